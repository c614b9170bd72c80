"""The program: help, exit codes, messages, and how its command lines are read."""

import errno
import os
import subprocess
import sys

import pytest

import scaling_analysis as sa
from scaling_analysis.cli.application import JOINT, Stopped, spread

from .conftest import invoke, scaling, shell

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


def test_every_command_has_help_with_an_example():
    overview = scaling("--help")
    places = [overview.index(f"  {command} ") for command in COMMANDS]
    assert places == sorted(places), "commands are listed in the order in which they are used"
    for command in COMMANDS:
        help_text = scaling(command, "--help")
        assert f"Example: scaling {command}" in help_text


def test_help_loads_nothing_heavy():
    code = (
        "import sys, time; import rich, typer.main; others = time.process_time(); "
        "from scaling_analysis import cli; command = typer.main.get_command(cli.app); "
        "heavy = {'numpy', 'pandas', 'scipy', 'matplotlib', 'jinja2'} & set(sys.modules); "
        "print(len(heavy), time.process_time() / others)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy, times = out.stdout.split()
    assert heavy == "0"
    assert float(times) < 4, "our modules take longer than three times python, typer and rich"


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


def test_a_mistake_is_one_message_and_exit_status_1(program, tmp_path):
    missing = tmp_path / "missing.csv"
    result = shell("check", missing)
    assert result.returncode == 1
    assert result.stderr.startswith(f"error: {missing}")
    assert "Traceback" not in result.stderr
    with pytest.raises(sa.RunLogError):  # and so its traceback
        program("check", missing, "--debug")
    assert program("check")[0] == 2
    assert program("nonsense")[0] == 2


def test_a_bad_cell_is_named_by_file_line_column_and_value(program, tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("params,samples,flops,loss\n1e5,1e6,6e11,2.5\n1e5,2e6,twelve,2.4\n")
    code, _, said = program("report", path, "-o", tmp_path / "report")
    assert code == 1
    for part in (str(path), "line 3", "'flops'", "'twelve'"):
        assert part in said
    assert not (tmp_path / "report").exists()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_a_message(log, tmp_path):
    tmp_path.chmod(0o500)
    result = shell("plan", "--ladder", "--flops", "1e10", "3e12", "-o", tmp_path / "plan.csv")
    assert result.returncode == 1
    assert "Traceback" not in result.stderr


def test_an_error_of_the_system_is_a_message_too(program, log, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device", "somewhere.csv")

    monkeypatch.setattr(sa, "audit", full)
    code, _, said = program("check", log)
    assert code == 1
    assert "error: somewhere.csv: No space left on device." in said


def test_a_command_that_is_stopped_says_so(program, log, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sa, "audit", stop)
    assert program("check", log) == (130, "", "stopped\n")
    with pytest.raises(Stopped) as shown:
        program("check", log, "--debug")
    assert isinstance(shown.value.__cause__, KeyboardInterrupt)


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
