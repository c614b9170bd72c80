"""`scaling-train`: from recorded games to a run log, and what it says when it cannot."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("nle")

from scaling_analysis import load_episodes, load_runs, write_plan
from scaling_analysis.cli import plans
from training_backend import cli, cluster, demonstrations, recording, study_format
from training_backend.families import FAMILIES

RUN_ID = "lstm-4000-s0"


def _plan(folder: Path, **changes: object) -> Path:
    row = {
        "run_id": RUN_ID,
        "agent": "lstm",
        "task": "nethack",
        "params": 4e3,
        "samples": 1e4,
        "budget": 2.4e8,
        "snapshots": "1.2e8;2.4e8",
        "seed": 0,
        "learning_rate": 3e-3,
        "batch_size": 256.0,
        "epochs": 6.0,
        "protocol": "",
        "forecast_hash": "",
    }
    path = folder / "plan.csv"
    write_plan(pd.DataFrame([row | changes]), path)
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A collection of nine games, cut short."""
    folder = tmp_path_factory.mktemp("data")
    for split, games, seeds in (
        ("train", 6, demonstrations.TRAIN_SEEDS),
        ("held_out", 3, demonstrations.HELD_OUT_SEEDS),
    ):
        recording.collect(folder / split, games, seeds[0], workers=1, max_steps=300)
    return folder


def _run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["scaling-train", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return int(left.value.code or 0)


def test_collect_run_evaluate_play(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    collected = _run(monkeypatch, "collect", data, "--games", 6, "--held-out", 3, "--workers", 1)
    output = capsys.readouterr().out
    assert collected == 0
    assert "train: 6 games (0 new)" in output
    assert "held_out: 3 games" in output

    log, plan = tmp_path / "runs.csv", _plan(tmp_path, protocol="nethack-monk")
    options = ["--log", log, "--data", data, "--workers", 1]
    assert _run(monkeypatch, "run", plan, *options, "--dry-run") == 0
    output = capsys.readouterr().out
    assert RUN_ID in output
    assert "hours of training" in output
    assert not log.exists()

    mine = tmp_path / "mine.csv"
    mine.write_text(f"run_id,task,agent,params,budget\n{RUN_ID},nethack,lstm,4e3,2.4e8\n")
    assert _run(monkeypatch, "run", mine, *options, "--dry-run") == 0
    assert "1 run without a protocol in the plan: the loss is" in capsys.readouterr().out
    mine.write_text(mine.read_text().replace("lstm,", ","))
    assert _run(monkeypatch, "run", mine, *options, "--dry-run") == 1
    assert f"run {RUN_ID}: no agent. Write one into the column agent" in capsys.readouterr().err

    assert _run(monkeypatch, "run", plan, *options, "--games", 3, "--games-elsewhere", 2) == 0
    assert "2 rows in the log, 0 runs failed" in capsys.readouterr().out
    runs = load_runs(log)
    assert runs["budget"].tolist() == [2.4e8, 1.2e8]
    assert runs["loss"].between(1, 5).all()
    assert runs["protocol"].str.match(r"nethack-monk\.1\.[0-9a-f]{8}").all()
    assert runs["episodes"].tolist() == [3, 3]
    episodes = load_episodes(tmp_path / "episodes.parquet")
    assert episodes.groupby("budget")["return"].mean().tolist() == (
        runs.sort_values("budget")["mean_return"].tolist()
    )

    checkpoint = tmp_path / "runs_files" / RUN_ID / "2.4e+08.safetensors"
    arguments = ["evaluate", checkpoint, "--data", data, "--protocol", "nethack-monk"]
    assert _run(monkeypatch, *arguments, "--games", 3) == 0
    output = capsys.readouterr().out
    assert f"loss {runs['loss'][0]:.4f}" in output
    assert f"return {runs['mean_return'][0]:.1f}" in output

    assert _run(monkeypatch, *arguments, "--games", 3, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["loss"] == pytest.approx(runs["loss"][0])
    assert said["mean_return"] == pytest.approx(runs["mean_return"][0])

    assert _run(monkeypatch, "play", checkpoint, "--seed", 3_000_000, "--delay", 0) == 0
    output = capsys.readouterr().out
    assert "Dlvl:1" in re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", output)
    assert " points in " in output


def test_games_are_not_counted_out_of_a_folder_of_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["collect", tmp_path / "data", "--from", tmp_path, "--games", 6]
    assert _run(monkeypatch, *words) == 2
    assert "--from takes all games of the folder" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "chess"}, "task 'chess' is not known; this version trains: nethack"),
        ({"params": 30.0}, f"run {RUN_ID}: params=30: no lstm agent of this task has so many"),
        ({"agent": "gru"}, f"run {RUN_ID}: agent 'gru' is not known"),
        ({"samples": 1e6, "budget": 2e10, "snapshots": "2e10"}, "allow it with --max-epochs "),
        ({"protocol": "easy"}, "unknown protocol 'easy': choose one of nethack-monk"),
    ],
)
def test_plans_that_cannot_be_run(
    changes: dict[str, object],
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    cli.demonstrations.collect(data, games=6, held_out=3, workers=1)
    plan = _plan(tmp_path, **changes)
    log = tmp_path / "runs.csv"
    assert _run(monkeypatch, "run", plan, "--log", log, "--data", data, "--workers", 1) == 1
    assert message in capsys.readouterr().err
    assert not log.exists()


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--executor", "slurm"], 2, "--executor slurm: one of local, ray"),
        (["--executor", "ray", "--address", "ray://head:1"], 1, "client cannot stream results"),
        (["--device", "gpu"], 1, "--device gpu: no name of a device"),
    ],
)
def test_means_that_are_not_there(
    options: list[str],
    code: int,
    message: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if "ray" in options:
        pytest.importorskip("ray")
    cli.demonstrations.collect(data, games=6, held_out=3, workers=1)
    arguments = ["run", _plan(tmp_path), "--log", tmp_path / "runs.csv", "--data", data]
    assert _run(monkeypatch, *arguments, *options) == code
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "runs.csv").exists()


def test_ray_that_is_not_installed_is_named(
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    cluster._import_ray.cache_clear()
    cli.demonstrations.collect(data, games=6, held_out=3, workers=1)
    arguments = ["run", _plan(tmp_path), "--log", tmp_path / "runs.csv", "--data", data]
    assert _run(monkeypatch, *arguments, "--executor", "ray") == 1
    assert "pip install 'scaling-analysis[cluster]'" in capsys.readouterr().err


def test_a_study_of_a_gpu_is_rehearsed_on_a_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = study_format.GPU.replace("1.2e7", "2e4").replace(
        "flops = [1e11, 1e15]", "flops = [1e9, 2e10]"
    )
    monkeypatch.setitem(study_format.PRESETS, "gpu", small.replace("centre", "#"))
    arguments = ["study", tmp_path / "s", "--preset", "gpu", "--agent", "feedforward"]
    assert _run(monkeypatch, *arguments, "--dry-run") == 0
    output = capsys.readouterr().out
    assert "39,960,000 transitions to train on" in output
    assert "feedforward-" in output
    for word in (
        "hours on",
        "epochs",
        "GB of memory a run",
        "GB of checkpoints",
        "4 sizes, 2 seeds",
    ):
        assert word in output
    assert [path.name for path in (tmp_path / "s").iterdir()] == ["study.toml"]
    assert _run(monkeypatch, "study", tmp_path / "s", "--agent", "lstm") == 2


def test_an_empty_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = _plan(tmp_path)
    arguments = ["run", plan, "--log", tmp_path / "runs.csv", "--data", tmp_path / "nothing"]
    assert _run(monkeypatch, *arguments) == 1
    message = capsys.readouterr().err
    assert "no decoded demonstrations; make them with `scaling-train collect`" in message


def test_a_missing_plan_and_a_missing_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = tmp_path / "absent.csv"
    options = ["--log", tmp_path / "runs.csv", "--data", tmp_path]
    assert _run(monkeypatch, "run", absent, *options) == 1
    assert "absent.csv: no such file" in capsys.readouterr().err
    assert _run(monkeypatch, "play", tmp_path / "agent.safetensors") == 1
    assert "agent.safetensors: no such checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("package", ["torch", "nle"])
def test_a_missing_package_is_named_with_what_to_install(package: str, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None; from training_backend.cli import main; "
        "main()"
    )
    arguments = ["run", str(_plan(tmp_path)), "--log", "runs.csv", "--data", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 1
    assert f"the package {package} is not installed" in done.stderr
    assert "pip install 'scaling-analysis[train]'" in done.stderr
    assert "Traceback" not in done.stderr


COMMANDS = ("collect", "study", "run", "evaluate", "play")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_with_an_example(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _run(monkeypatch, command, "--help") == 0
    assert f"Example: scaling-train {command}" in capsys.readouterr().out


def test_the_agent_of_a_first_ladder_is_one_that_can_be_trained() -> None:
    assert plans.AGENT in FAMILIES
    assert plans.TASK == "nethack"


def test_the_shell_completes_commands() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from training_backend.cli import main; main()"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ
        | {
            "_SCALING_TRAIN_COMPLETE": "complete_bash",
            "COMP_WORDS": "scaling-train ev",
            "COMP_CWORD": "1",
        },
    )
    assert done.stdout.split() == ["evaluate"], done.stderr


def test_help_needs_neither_torch_nor_nle() -> None:
    code = (
        "import sys; sys.modules['torch'] = sys.modules['nle'] = None; "
        "from training_backend.cli import main; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert "collect" in done.stdout


def test_a_command_that_is_stopped_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("training_backend.preparing.prepare_demonstrations", interrupt)
    assert _run(monkeypatch, "collect", tmp_path / "data") == 130
    assert "error: stopped; the same command goes on from here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "plan.csv", "--log", "runs.txt", "--data", "d"],
            "runs.txt: no name for a run log",
        ),
        (["evaluate", "x.safetensors", "--data", "d", "--protocol", "easy"], "unknown protocol"),
    ],
)
def test_what_would_fail_at_the_end_is_refused_at_the_beginning(
    arguments: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert _run(monkeypatch, *arguments) == 1
    assert message in capsys.readouterr().err
