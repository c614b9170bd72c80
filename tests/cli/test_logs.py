"""Commands about the run log itself."""

import json

import scaling_analysis as sa

from .conftest import scaling


def test_check_prints_the_findings_worst_first_and_as_json(log):
    assert scaling("check", log).startswith("Audit: ")
    found = json.loads(scaling("check", log, "--json"))
    order = ["serious", "warning", "note"]
    severities = [order.index(each["severity"]) for each in found["findings"]]
    assert severities == sorted(severities)
    assert all(each["remedy"] for each in found["findings"] if each["severity"] != "note")


def test_import_maps_scales_and_writes(tmp_path):
    source = tmp_path / "sweep.csv"
    source.write_text("size_m,tokens,val\n1.5,2e7,3.1\n3,4e7,2.9\n")
    out = tmp_path / "runs.csv"
    words = ["--map", "params=size_m", "--map", "samples=tokens", "--map", "loss=val"]
    said = scaling(
        "import", "csv", source, "-o", out, *words, "--scale", "params=1e6", "--cost-constant", 6
    )
    assert "params <- size_m" in said
    assert sa.load_runs(out)["params"].tolist() == [1.5e6, 3e6]
    words += ["--scale", "params=1e6", "--cost-constant", 6, "--json"]
    made = json.loads(scaling("import", "csv", source, "-o", out, *words))
    assert made["used"] == {"params": "size_m", "samples": "tokens", "loss": "val"}
    assert made["written"] == [str(out)]
