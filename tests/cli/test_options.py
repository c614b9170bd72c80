"""Options that commands share: which rows of which log."""

import json

import scaling_analysis as sa

from .conftest import QUICK, scaling


def test_rows_are_chosen_and_exclusions_carry_their_reason(log):
    runs = sa.load_runs(log)
    excluded = [str(name) for name in runs["run_id"].unique()[:2]]
    words = ["--exclude", excluded[0], "restarted by hand", "--exclude", excluded[1], "other code"]
    found = json.loads(scaling("check", log, "--where", "budget >= 3e10", *words, "--json"))
    left = runs[(runs["budget"] >= 3e10) & ~runs["run_id"].isin(excluded)]
    assert found["usable"] == len(left)
    noted = " ".join(each["what"] + each["where"] for each in found["findings"])
    assert "restarted by hand" in noted
    assert "not where budget >= 3e10" in noted


def test_a_raw_table_needs_only_its_names(tmp_path, log):
    raw = tmp_path / "raw.csv"
    runs = sa.load_runs(log)
    runs.rename(columns={"params": "n_params"})[
        ["run_id", "n_params", "samples", "budget", "loss"]
    ].to_csv(raw, index=False)
    words = ["--map", "params=n_params", "--cost-constant", 6]
    found = json.loads(scaling("check", raw, *words, "--json"))
    assert found["usable"] == len(runs)
    out = tmp_path / "report"
    made = scaling("report", raw, *words, "-o", out, *QUICK, "--format", "html", "--json")
    assert json.loads(made) == {"html": str(out / "report.html")}
    assert "Best of 3e+13" not in (out / "report.html").read_text()
