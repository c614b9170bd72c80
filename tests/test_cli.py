"""The `scaling` command: what it writes, says and refuses."""

import errno
import io
import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

import scaling_analysis as sa
from scaling_analysis import cli
from scaling_analysis.cli.application import JOINT, spread
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs
from scaling_analysis.progress import progress_bar
from scaling_analysis.report import demonstration

COMMANDS = (
    "demo",
    "check",
    "import",
    "fit",
    "influence",
    "hindcast",
    "forecast",
    "reach",
    "plan",
    "next",
    "verify",
    "compare",
    "report",
)
LAW = AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)
QUICK = ("--method", "isoflop-vertex", "--replicates", 30)


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    runs = simulate_runs(
        LAW,
        np.geomspace(2e3, 4e5, 9),
        [1e10, 3e10, 1e11, 3e11, 1e12, 3e12],
        seeds=2,
        sizes_per_budget=6,
        run_noise=0.01,
        checkpoint_noise=0.004,
    )
    return sa.write_runs(runs, tmp_path_factory.mktemp("log") / "runs.csv")


@pytest.fixture(scope="module")
def forecast_file(log, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("forecast") / "forecast.json"
    scaling("forecast", log, "--flops", "1e13", "2e13", "-o", file, *QUICK)
    return file


def invoke(*words):
    return CliRunner().invoke(cli.app, [str(word) for word in words])


def scaling(*words) -> str:
    """Output of a command that succeeds."""
    result = invoke(*words)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def shell(*words, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    code = "from scaling_analysis.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | (environment or {}),
    )


def test_every_command_has_help_with_an_example():
    overview = scaling("--help")
    places = [overview.index(f"  {command} ") for command in COMMANDS]
    assert places == sorted(places), "commands are listed in the order in which they are used"
    for command in COMMANDS:
        help_text = scaling(command, "--help")
        assert f"Example: scaling {command}" in help_text


def test_help_loads_nothing_heavy():
    code = (
        "import sys, time; from scaling_analysis import cli; "
        "from typer.main import get_command; command = get_command(cli.app); "
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "print(len(heavy), time.process_time())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, seconds = out.stdout.split()
    assert heavy == "0"
    assert float(seconds) < 0.4


def test_the_version():
    assert scaling("--version") == f"scaling {sa.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("scaling hin", ["hindcast"]),
        ("scaling fit --method iso", ["isoflop-vertex", "isoflop-cubic", "isoflop-grid"]),
        ("scaling fit --target l", ["loss"]),
    ],
)
def test_the_shell_completes_commands_and_values(typed, offered):
    environment = {
        "_SCALING_COMPLETE": "complete_bash",
        "COMP_WORDS": typed,
        "COMP_CWORD": str(len(typed.split()) - 1),
    }
    done = shell(environment=environment)
    assert done.stdout.split() == offered, done.stderr
    script = shell(environment={"_SCALING_COMPLETE": "source_bash"}).stdout
    assert "complete -o default -F _scaling_completion scaling" in script


def test_check_prints_the_findings_worst_first_and_as_json(log):
    assert scaling("check", log).startswith("Audit: ")
    found = json.loads(scaling("check", log, "--json"))
    order = ["serious", "warning", "note"]
    severities = [order.index(each["severity"]) for each in found["findings"]]
    assert severities == sorted(severities)
    assert all(each["remedy"] for each in found["findings"] if each["severity"] != "note")


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


def test_fit_prints_and_saves_the_bootstrap(log, tmp_path):
    out = tmp_path / "fit.json"
    said = scaling("fit", log, "--replicates", 30, "-o", out)
    assert "exponent of N_opt" in said
    assert sa.Bootstrap.load(out).fit.method.startswith("isoflop-vertex")


def test_returns_have_fits_of_their_own(log, tmp_path):
    runs = sa.load_runs(log)
    noise = np.random.default_rng(0).normal(0, 0.05, len(runs))
    returns = 100 * runs["loss"] ** -2.0 * np.exp(noise)
    played = tmp_path / "played.csv"
    sa.write_runs(runs.assign(mean_return=returns, protocol="p.1"), played)
    said = scaling("fit", played, "--method", "return-link", "--replicates", 20)
    assert "mean_return on loss" in said


def test_several_methods_are_fitted_side_by_side(log, tmp_path):
    methods = ["--method", "isoflop-vertex", "--method", "log-line"]
    made = scaling("fit", log, *methods, "--replicates", 30, "--json", "-o", tmp_path / "fits")
    assert [each["kind"] for each in json.loads(made)] == ["IsoflopFit", "BaselineFit"]
    names = {file.name for file in (tmp_path / "fits").iterdir()}
    assert names == {"isoflop-vertex.json", "log-line.json"}


def test_influence_lists_what_the_fit_hangs_on(log, tmp_path):
    out = tmp_path / "influence.csv"
    words = ["--method", "isoflop-vertex", "--flops", "1e13"]
    made = json.loads(scaling("influence", log, *words, "--json", "-o", out))
    sizes = sa.load_runs(log)["params"].nunique()
    assert len(made) == len(pd.read_csv(out)) == sizes + 1
    change = [abs(row["params_change"]) for row in made if row["params_change"] is not None]
    assert change == sorted(change, reverse=True)
    assert "changes are log ratios" in scaling("influence", log, *words, "--top", 3)


def test_hindcast_scores_every_method(log, tmp_path):
    out = tmp_path / "hindcast.json"
    said = scaling("hindcast", log, "--flops", "3e11", *QUICK, "-o", out)
    assert "isoflop-vertex" in said
    assert "persistence" in said
    assert set(sa.Hindcast.load(out).cells["origin"]) == {3e11}


def test_from_a_log_to_a_verdict(log, forecast_file, tmp_path):
    plan, runs = (tmp_path / name for name in ("plan.csv", "new.csv"))
    forecast = sa.Forecast.load(forecast_file)
    words = ["--flops", "1e13", "--spread", ".5", "1", "2", "--seeds", 1, "-o", plan]
    planned_said = json.loads(scaling("plan", forecast_file, *words, "--json"))
    planned = sa.read_plan(plan)
    assert [row["run_id"] for row in planned_said] == planned["run_id"].tolist()
    n = forecast.params_opt(1e13)
    assert np.allclose(planned["params"] / n, [0.5, 1, 2], rtol=1e-4)

    said = forecast.predict_run(planned["params"], 1e13)
    new = planned[["run_id", "agent", "task", "params", "samples", "budget"]].assign(
        flops=1e13, loss=said["loss"], time_utc="2126-01-01T00:00:00+00:00"
    )
    sa.write_runs(pd.concat([sa.load_runs(log), new], ignore_index=True), runs)
    verdict = scaling("verify", forecast_file, plan, runs, "-o", tmp_path / "verification.json")
    assert "3 of 3 planned runs inside" in verdict

    study = tmp_path / "study"
    study.mkdir()
    runs.rename(study / "runs.csv")
    (study / "forecast.json").write_bytes(forecast_file.read_bytes())
    (tmp_path / "verification.json").rename(study / "verification.json")
    made = scaling("report", study, "-o", tmp_path / "report", "--format", "html")
    page = (tmp_path / "report" / "report.html").read_text()
    assert made.strip().endswith("report.html")
    assert "3 of 3" in page


def test_reach_turns_the_question_round(forecast_file):
    forecast = sa.Forecast.load(forecast_file)
    row = forecast.table[forecast.table["method"] == "combined"].iloc[0]
    (found,) = json.loads(scaling("reach", forecast_file, "--loss", f"{row['loss']:.9f}", "--json"))
    assert found["flops"] == pytest.approx(1e13, rel=1e-3)
    assert "inf: not within" in scaling("reach", forecast_file, "--loss", "1", "0.01")


def test_next_runs_are_a_plan_of_new_runs(log, tmp_path):
    out = tmp_path / "next.csv"
    words = ["--flops", "3e13", "--spend", "6e12", "--replicates", 60, "-o", out]
    said = scaling("next", log, *words, "--method", "isoflop-vertex")
    assert "the standard deviation of the forecast falls from" in said
    planned = sa.read_plan(out)
    assert 0 < planned["budget"].sum() <= 6e12
    assert not set(planned["run_id"]) & set(sa.load_runs(log)["run_id"])
    again = tmp_path / "again.csv"
    chosen = scaling(
        "next", log, "--candidates", out, "--count", 2, "-o", again, "--json", "--replicates", 60
    )
    assert len(json.loads(chosen)) == len(sa.read_plan(again)) == 2


def test_compare_finds_the_compute_that_a_recipe_saves(log, forecast_file, tmp_path):
    better = sa.load_runs(log)
    better["loss"] *= 0.8
    other = sa.write_runs(better, tmp_path / "better.csv")
    words = [forecast_file, other, "--flops", "1e13", *QUICK]
    (row,) = json.loads(scaling("compare", *words, "--json", "-o", tmp_path / "table.csv"))
    assert row["multiplier"] > 1.2
    assert row["multiplier_lo"] < row["multiplier"] < row["multiplier_hi"]
    assert len(pd.read_csv(tmp_path / "table.csv")) == 1


def test_a_ladder_needs_no_forecast(tmp_path):
    out = tmp_path / "plan.csv"
    scaling("plan", "--ladder", "--flops", "1e10", "3e12", "--params", "4e3", "4e5", "-o", out)
    planned = sa.read_plan(out)
    assert planned["params"].min() == 4e3
    assert planned["budget"].max() == 3e12
    assert set(planned["agent"]) == {"lstm"}


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


def test_the_remedy_is_in_words_of_the_shell(tmp_path):
    raw = tmp_path / "raw.csv"
    raw.write_text("n_params,samples,val_loss\n1e5,1e6,2.5\n2e5,1e6,2.4\n")
    names = ["--map", "params=n_params", "--map", "loss=val_loss"]
    first = shell("check", raw)
    assert first.returncode == 1
    assert "--map params=n_params" in first.stderr
    second = shell("check", raw, *names)
    assert second.returncode == 1
    assert "--cost-constant 6" in second.stderr
    assert shell("check", raw, *names, "--cost-constant", 6).returncode == 0


def test_a_bad_cell_is_named_by_file_line_column_and_value(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("params,samples,flops,loss\n1e5,1e6,6e11,2.5\n1e5,2e6,twelve,2.4\n")
    result = shell("report", path, "-o", tmp_path / "report")
    assert result.returncode == 1
    for part in (str(path), "line 3", "'flops'", "'twelve'"):
        assert part in result.stderr
    assert not (tmp_path / "report").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_message(log, tmp_path):
    tmp_path.chmod(0o500)
    result = shell("plan", "--ladder", "--flops", "1e10", "3e12", "-o", tmp_path / "plan.csv")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_an_error_of_the_system_is_a_message_too(log, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere.csv")

    monkeypatch.setattr(sa, "audit", full)
    monkeypatch.setattr(sys, "argv", ["scaling", "check", str(log)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "error: somewhere.csv: No space left on device." in capsys.readouterr().err


def test_a_warning_is_one_line(tmp_path, log):
    torn = tmp_path / "runs.csv"
    torn.write_bytes(log.read_bytes()[:-30])
    code = "from scaling_analysis.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "check", str(torn)], capture_output=True, text=True, check=True
    )
    assert done.stderr.startswith("warning: ")
    assert "the last line is torn" in done.stderr
    assert "reading.py" not in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["plan"], "name a forecast.json, or --ladder"),
        (["plan", "--ladder", "--flops", "1e10"], "smallest and the largest budget"),
        (["fit", "LOG", "--target", "accuracy"], "'mean_return'"),
        (["fit", "LOG", "--replicates", "1"], "'--replicates'"),
        (["check", "LOG", "--exclude", "run"], "give the reason too"),
        (["check", "LOG", "--map", "params"], "--map params: write NAME=VALUE"),
        (["import", "csv", "LOG", "-o", "x.csv", "--scale", "params=big"], "big is no number"),
        (["reach", "FORECAST"], "give one target"),
        (["report", "LOG", "FOLDER"], "not both"),
        (["report", "FOLDER", "--where", "loss > 1"], "only --agent and --task"),
        (["report", "LOG", "--format", "docx"], "docx"),
    ],
)
def test_a_usage_error_exits_2_and_says_what_to_type(log, tmp_path, words, message):
    known = {"LOG": log, "FOLDER": tmp_path, "FORECAST": tmp_path / "forecast.json"}
    result = invoke(*(known.get(word, word) for word in words))
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["fit", "LOG", "--method", "magic"], "'magic' is not known for loss"),
        (["fit", "LOG", "--unit", "country"], "unit='country'"),
        (["check", "LOG", "--exclude", "nobody", "no reason"], "no run 'nobody'"),
        (["check", "LOG", "--task", "chess"], "task='chess'"),
        (["forecast", "LOG", "--flops", "-1"], "must be positive"),
    ],
)
def test_a_users_mistake_is_a_typed_error(log, words, message):
    with pytest.raises(sa.ScalingError, match=message):
        scaling(*(str(log) if word == "LOG" else word for word in words))


def test_options_of_several_values_are_spelled_out():
    assert spread(["a.csv", "--flops", "1e19", "1e20", "-o", "f"]) == (
        ["a.csv", "--flops", "1e19", "--flops", "1e20", "-o", "f"]
    )
    assert spread(["--flops"]) == ["--flops"]
    assert spread(["--exclude", "a=b", "a reason", "x"]) == (
        ["--exclude", f"a=b{JOINT}a reason", "x"]
    )
    assert spread(["--exclude", "a", "--json"]) == ["--exclude", "a", "--json"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_shown_on_a_terminal_and_nests(monkeypatch):
    screen = Terminal()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("outer", 2) as advance:
        with progress_bar("inner", 1) as advance_inner:
            advance_inner(1)
        advance(2)
    assert "outer" in screen.getvalue()
    assert "inner" in screen.getvalue()
    with progress_bar("again", 1) as advance:
        advance(1)
    assert "again" in screen.getvalue()


def test_progress_is_silent_in_a_pipe(log, capsys, tmp_path):
    done = shell("hindcast", log, *QUICK, "--flops", "3e11", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    json.loads(done.stdout)


@pytest.mark.skipif(os.name == "nt", reason="needs a pseudo-terminal")
def test_progress_is_drawn_on_a_real_terminal_beside_the_output(tmp_path):
    main, side = pty.openpty()
    code = (
        "from scaling_analysis.progress import progress_bar\n"
        "with progress_bar('some fits', 2) as advance:\n"
        "    advance(2)\n"
        "print('the result')"
    )
    with (tmp_path / "said.txt").open("wb") as said:
        running = subprocess.Popen(
            [sys.executable, "-c", code],
            stdout=said,
            stderr=side,
            env=os.environ | {"TERM": "xterm"},
        )
    os.close(side)
    shown = b""
    while True:  # a terminal holds little: what is not read stops the command
        try:
            piece = os.read(main, 65536)
        except OSError:  # the other side is closed and everything was read
            break
        if not piece:
            break
        shown += piece
    os.close(main)
    assert running.wait() == 0
    assert b"some fits" in shown
    assert (tmp_path / "said.txt").read_text() == "the result\n"
