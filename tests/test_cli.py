"""The `scaling` command: what it writes, says and refuses."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import scaling_analysis as sa
from scaling_analysis import cli
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs
from scaling_analysis.report import demonstration

COMMANDS = ("check", "import", "fit", "forecast", "plan", "verify", "report", "demo")


@pytest.fixture(scope="module")
def log(tmp_path_factory):
    law = AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)
    budgets = [1e10, 3e10, 1e11, 3e11, 1e12, 3e12]
    runs = simulate_runs(
        law,
        np.geomspace(2e3, 4e5, 9),
        budgets,
        seeds=2,
        sizes_per_budget=6,
        run_noise=0.01,
        checkpoint_noise=0.004,
    )
    return sa.write_runs(runs, tmp_path_factory.mktemp("log") / "runs.csv")


def scaling(*words) -> str:
    """Output of a command that succeeds."""
    result = CliRunner().invoke(cli.app, cli.spread([str(word) for word in words]))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def shell(*words) -> subprocess.CompletedProcess:
    code = "from scaling_analysis.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_command_has_help_with_an_example():
    overview = scaling("--help")
    for command in COMMANDS:
        assert command in overview
        help_text = scaling(command, "--help")
        assert f"scaling {command}" in help_text
        assert "Example" in help_text


def test_help_loads_nothing_heavy():
    code = (
        "import sys, time; from scaling_analysis import cli; "
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "print(len(heavy), time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, seconds = out.stdout.split()
    assert heavy == "0"
    assert float(seconds) < 0.4


def test_check_prints_the_findings_worst_first_and_as_json(log):
    assert scaling("check", log).startswith("Audit: ")
    found = json.loads(scaling("check", log, "--json"))
    order = ["serious", "warning", "note"]
    severities = [order.index(each["severity"]) for each in found["findings"]]
    assert severities == sorted(severities)


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


def test_fit_prints_and_saves_the_bootstrap(log, tmp_path):
    out = tmp_path / "fit.json"
    said = scaling("fit", log, "--replicates", 30, "-o", out)
    assert "exponent of N_opt" in said
    assert sa.Bootstrap.load(out).fit.method.startswith("isoflop-vertex")


def test_from_a_log_to_a_verdict(log, tmp_path):
    file, plan, runs = (tmp_path / name for name in ("forecast.json", "plan.csv", "new.csv"))
    quick = ["--method", "isoflop-vertex", "--replicates", 30]
    said = scaling("forecast", log, "--flops", "1e13", "2e13", "-o", file, *quick)
    assert "C = 1e+13 FLOP" in said
    assert "C = 2e+13 FLOP" in said
    forecast = sa.Forecast.load(file)
    scaling("plan", file, "--flops", "1e13", "--spread", ".5", "1", "2", "--seeds", 1, "-o", plan)
    planned = sa.read_plan(plan)
    n = forecast.params_opt(1e13)
    assert np.allclose(planned["params"] / n, [0.5, 1, 2], rtol=1e-4)

    said = forecast.predict_run(planned["params"], 1e13)
    new = planned[["run_id", "agent", "task", "params", "samples", "budget"]].assign(
        flops=1e13, loss=said["loss"], time_utc="2126-01-01T00:00:00+00:00"
    )
    sa.write_runs(pd.concat([sa.load_runs(log), new], ignore_index=True), runs)
    verdict = scaling("verify", file, plan, runs, "-o", tmp_path / "verification.json")
    assert "3 of 3 planned runs inside" in verdict

    runs.rename(tmp_path / "runs.csv")
    made = scaling("report", tmp_path, "-o", tmp_path / "report", "--format", "html")
    page = (tmp_path / "report" / "report.html").read_text()
    assert made.strip().endswith("report.html")
    assert "3 of 3 new runs inside" in page


def test_a_ladder_needs_no_forecast(tmp_path):
    out = tmp_path / "plan.csv"
    scaling("plan", "--ladder", "--flops", "1e10", "3e12", "--params", "4e3", "4e5", "-o", out)
    planned = sa.read_plan(out)
    assert planned["params"].min() == 4e3
    assert planned["budget"].max() == 3e12


def test_demo_ends_with_the_paths_of_both_reports(log, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration, "shipped_log", lambda: log.parent)
    monkeypatch.setattr(demonstration, "_REPLICATES", 30)
    lines = scaling("demo", "-o", tmp_path / "demo").strip().splitlines()
    paths = [tmp_path / "demo" / f"report.{name}" for name in ("html", "pdf")]
    assert lines[-2:] == [str(path) for path in paths]
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert sa.Forecast.load(tmp_path / "demo" / "forecast.json").table["flops"].max() == 3e13


def test_the_shipped_log_is_usable():
    try:
        folder = demonstration.shipped_log()
    except sa.ReportError:
        pytest.skip("this checkout holds no data/nethack_bc")
    runs = sa.load_runs(folder / "runs.csv")
    assert {"loss", "mean_return", "budget", "seed"} <= set(runs.columns)


def test_a_mistake_is_one_message_and_exit_status_1(tmp_path):
    missing = tmp_path / "missing.csv"
    result = shell("check", missing)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {missing}")
    assert "Traceback" not in result.stderr
    assert "Traceback" in shell("check", missing, "--debug").stderr
    assert shell("check").returncode == 2
    assert shell("nonsense").returncode == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "name a forecast.json, or --ladder"),
        (["plan", "--ladder", "--flops", "1e10"], "smallest and the largest budget"),
        (["fit", "LOG", "--method", "magic"], "'magic' is not known for loss"),
        (["fit", "LOG", "--target", "accuracy"], "choose loss or mean_return"),
        (["check", "LOG", "--exclude", "run"], "--exclude run: write NAME=VALUE"),
        (["import", "csv", "LOG", "-o", "x.csv", "--scale", "params=big"], "big is no number"),
    ],
)
def test_bad_options_are_named(log, words, message):
    words = [str(log) if word == "LOG" else word for word in words]
    with pytest.raises(sa.ScalingError, match=message):
        scaling(*words)


def test_options_of_several_values_are_spelled_out():
    assert cli.spread(["forecast", "a.csv", "--flops", "1e19", "1e20", "-o", "f"]) == (
        ["forecast", "a.csv", "--flops", "1e19", "--flops", "1e20", "-o", "f"]
    )
    assert cli.spread(["plan", "--flops"]) == ["plan", "--flops"]
