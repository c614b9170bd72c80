"""A study end to end: forecast before training, each stage made once.

The training itself is replaced by a known law with noise (sweeps have tests of their own).
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markov_source import BENCH

import training_backend.study as study_module
from scaling_analysis import Forecast, TrainError, append_run, load_runs, read_plan
from training_backend.config import RunConfig
from training_backend.jobs import Bench, Place
from training_backend.study import PRESETS, Study, run_study, write_preset
from training_backend.sweep import SweepResult

SMALL = """\
name = "small"
task = "markov"
protocol = "markov-1"
evaluation_games = [6, 3]

[ladder]
flops = [3e7, 1e9]
params = [300, 8e3]
budgets = 5
sizes = 6
sizes_per_budget = 5
seeds = 2
max_epochs = 1e6

[forecast]
flops = [2e9]
spread = [0.5, 1, 2]
seeds = 1
resamples = 100
"""


def _sweep(configs: Sequence[RunConfig], bench: Bench, place: Place, **_: Any) -> SweepResult:
    """Rows of L = .3 + 10 / N^.4 + 30 / D^.4 with 1 % noise a run, and a return that follows it."""
    for config in configs:
        noise = np.random.default_rng(int(config.hash, 16)).normal(0, 0.01)
        for step, budget in zip(config.snapshot_steps, config.snapshots, strict=True):
            samples = step * config.batch_size
            loss = (0.3 + 10 / config.params**0.4 + 30 / samples**0.4) * np.exp(noise)
            append_run(
                place.log,
                run_id=config.run_id,
                agent=config.agent,
                task=config.task,
                seed=config.seed,
                params=config.params,
                samples=samples,
                flops=samples * config.flops_per_sample,
                budget=budget,
                loss=loss,
                mean_return=50 / loss,
                return_se=1.0,
                episodes=50,
                protocol=config.protocol,
                time_utc=datetime.now(UTC).isoformat(timespec="seconds"),
            )
    return SweepResult(rows=sum(len(c.snapshots) for c in configs), failed=())


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepared: list[tuple[int, int]] = []

    def prepare(data: Path, games: int, held_out: int, **_: object) -> None:
        prepared.append((games, held_out))

    monkeypatch.setattr(study_module, "prepare_demonstrations", prepare)
    monkeypatch.setattr(study_module, "open_bench", lambda task, data: BENCH)
    monkeypatch.setattr(study_module, "run_sweep", _sweep)
    (tmp_path / "study.toml").write_text(SMALL)
    return tmp_path


def test_a_study_forecasts_first_trains_after_and_repeats_nothing(folder: Path) -> None:
    said: list[str] = []
    run = partial(run_study, folder, workers=2, say=said.append)
    assert run(stop_before="training") is None
    made = Forecast.load(folder / "forecast.json")
    ladder = load_runs(folder / "runs.csv")
    plan = read_plan(folder / "plan_forecast.csv")
    assert ladder["flops"].max() < 1.05e9
    assert set(plan["forecast_hash"]) == {made.hash}
    assert any(made.hash in line for line in said)
    assert any("hours" in line and "epochs" in line and "GB" in line for line in said)

    verification = run()
    assert verification is not None
    verdict = verification.runs
    assert set(verdict["run_id"]) == set(plan["run_id"])
    assert (verdict["status"] == "ok").all()
    runs = load_runs(folder / "runs.csv")
    assert len(runs) == len(ladder) + len(plan)
    assert (runs["time_utc"].tail(len(plan)) >= made.time_utc).all()
    for product in ("verification.json", "report.html", "report.pdf"):
        assert (folder / product).stat().st_size > 1000, product

    before = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}
    run()
    after = {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.is_file()}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed <= {"episodes.parquet"}


def test_a_changed_ladder_is_planned_again(folder: Path) -> None:
    run_study(folder, workers=2, say=lambda line: None, stop_before="forecast")
    before = read_plan(folder / "plan.csv")
    (folder / "study.toml").write_text(SMALL.replace("seeds = 2", "seeds = 3"))
    run_study(folder, workers=2, say=lambda line: None, stop_before="forecast")
    after = read_plan(folder / "plan.csv")
    assert len(after) == len(before) * 3 / 2
    assert len(json.loads((folder / "stages.json").read_text())) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nonsense", "study.toml: "),
        (SMALL.replace("name", "nome"), "nome is not a setting of a study; known: agent"),
        (SMALL.replace("spread", "spreed"), r"forecast\.spreed is not a setting"),
        (SMALL.replace("params", "#params"), r"ladder\.params is missing"),
        (SMALL.replace('name = "small"', ""), "name is missing"),
    ],
)
def test_a_bad_study_file_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "study.toml").write_text(text)
    with pytest.raises(TrainError, match=message):
        Study.load(folder)


def test_a_folder_without_a_study_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match="--preset quick"):
        Study.load(tmp_path)
    with pytest.raises(TrainError, match="unknown preset 'slow'; there is quick"):
        write_preset(tmp_path, "slow")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_studies(tmp_path: Path, preset: str) -> None:
    write_preset(tmp_path, preset)
    assert Study.load(tmp_path).name == preset
    (tmp_path / "study.toml").write_text(SMALL)
    write_preset(tmp_path, preset)
    assert Study.load(tmp_path).name == "small"
