"""Sweeps: a plan becomes rows, once each, whatever is killed or fails on the way."""

import errno
import multiprocessing
import os
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markov_source import BENCH, MarkovSource, held_out_loss, play

from scaling_analysis import PlanError, TrainError, load_episodes, load_runs
from training_backend import sweep
from training_backend.config import RunConfig
from training_backend.jobs import Bench, Place, play_games
from training_backend.models import Agent
from training_backend.sweep import configure, dry_run, run_sweep

CONTENT = ["run_id", "params", "samples", "flops", "budget", "loss", "loss_se", "mean_return"]


def _plan(protocol: str = "markov-1") -> pd.DataFrame:
    rows = [
        {
            "run_id": f"lstm-{params:.0f}-s{seed}",
            "agent": "lstm",
            "task": "markov",
            "params": params,
            "budget": 1.6e8,
            "snapshots": snapshots,
            "seed": seed,
            "learning_rate": 0.02,
            "batch_size": 256.0,
            "protocol": protocol,
        }
        for params, snapshots in ((1e3, "6e7;1.6e8"), (2e3, "6e7;1.6e8"), (4e3, "1.6e8"))
        for seed in (0, 1)
    ]
    return pd.DataFrame(rows)


def _place(folder: Path) -> Place:
    return Place(log=folder / "runs.csv", runs=folder / "runs")


def _sorted(log: Path) -> pd.DataFrame:
    return load_runs(log).sort_values(["run_id", "budget"], ignore_index=True)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = _place(tmp_path_factory.mktemp("swept"))
    result = run_sweep(configure(_plan(), MarkovSource()), BENCH, place, workers=2, games=(6, 2))
    assert (result.rows, result.failed) == (10, ())
    return place


def test_each_snapshot_becomes_a_complete_row(swept: Place) -> None:
    runs = _sorted(swept.log)
    assert len(runs) == 10
    assert (runs["status"] == "ok").all()
    assert (runs["flops"] >= runs["budget"]).all()
    assert (runs["flops"] < 1.05 * runs["budget"]).all()
    assert runs["loss"].between(0.4, 2).all()
    played = runs["episodes"].notna()
    assert (runs["protocol"] == np.where(played, "markov-1", "")).all()
    assert (runs["epochs"] == (runs["samples"] / len(MarkovSource())).round(4)).all()
    assert runs["config_hash"].nunique() == 6


def _near(of_budget: pd.DataFrame) -> set[float]:
    """The best size of a budget and the better of its neighbours."""
    mean = of_budget.groupby("params")["loss"].mean()
    best = int(np.argmin(mean))
    beside = mean.iloc[[i for i in (best - 1, best + 1) if 0 <= i < len(mean)]]
    return {mean.index[best], beside.idxmin()}


def test_most_games_are_played_near_the_best_size(swept: Place) -> None:
    for budget, of_budget in _sorted(swept.log).groupby("budget"):
        games = of_budget.groupby("params")["episodes"].sum()
        expected = np.where(games.index.isin(list(_near(of_budget))), 6, 2)
        assert (games == expected).all(), budget
        assert (of_budget.loc[of_budget["episodes"].notna(), "seed"] == 0).all()


def test_agents_of_one_size_share_the_games(swept: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "GAMES_AN_AGENT", 3)
    configs, runs = configure(_plan(), MarkovSource()), _sorted(swept.log)
    counts = sweep._games_to_play(configs, swept, (7, 2))
    for (config, budget), count in counts.items():
        near = config.params in _near(runs[runs["budget"] == budget])
        assert count == (4 if near else 2 * (config.seed == 0))


def test_episodes_stand_beside_the_log(swept: Place) -> None:
    runs, episodes = _sorted(swept.log), load_episodes(swept.log.with_name("episodes.parquet"))
    means = episodes.groupby(["run_id", "budget"])["return"].mean()
    assert len(episodes) == runs["episodes"].sum()
    for row in runs[runs["episodes"].notna()].itertuples():
        assert means[row.run_id, row.budget] == pytest.approx(row.mean_return)


def test_a_finished_sweep_does_nothing_more(swept: Place) -> None:
    before = swept.log.read_bytes()
    times = {p: p.stat().st_mtime_ns for p in swept.runs.glob("*/*")}
    again = run_sweep(configure(_plan(), MarkovSource()), BENCH, swept, games=(6, 2))
    assert again.rows == 10
    assert swept.log.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in swept.runs.glob("*/*")} == times


def test_lost_rows_come_back_the_same(swept: Place, tmp_path: Path) -> None:
    # as after a kill between the files of a run and its row
    place = Place(log=tmp_path / "runs.csv", runs=swept.runs)
    run_sweep(configure(_plan(), MarkovSource()), BENCH, place, games=(6, 2))
    pd.testing.assert_frame_equal(_sorted(place.log)[CONTENT], _sorted(swept.log)[CONTENT])


def _sweep_in_process(folder: Path) -> None:
    configs = configure(_plan(), MarkovSource())
    run_sweep(configs, BENCH, _place(folder), workers=2, games=(6, 2))


def _sweep_and_kill(folder: Path, delays: list[float]) -> None:
    context = multiprocessing.get_context("spawn")
    for delay in delays:
        process = context.Process(target=_sweep_in_process, args=(folder,))
        process.start()
        assert process.pid is not None
        runs, begun = folder / "runs", time.monotonic()
        while not runs.exists() and time.monotonic() < begun + 60:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_a_killed_sweep_goes_on_to_the_same_rows(swept: Place, tmp_path: Path) -> None:
    _sweep_and_kill(tmp_path, [0.5])
    _sweep_in_process(tmp_path)
    pd.testing.assert_frame_equal(
        _sorted(tmp_path / "runs.csv")[CONTENT], _sorted(swept.log)[CONTENT]
    )


@pytest.mark.slow
def test_ten_random_kills_of_a_sweep(swept: Place, tmp_path: Path) -> None:
    _sweep_and_kill(tmp_path, np.random.default_rng(2).uniform(0, 4, 10).tolist())
    _sweep_in_process(tmp_path)
    pd.testing.assert_frame_equal(
        _sorted(tmp_path / "runs.csv")[CONTENT], _sorted(swept.log)[CONTENT]
    )


def _crash_for_the_largest(agent: Agent) -> tuple[float, float]:
    if agent.dimensions.core > 15:
        raise RuntimeError("no loss for this one")
    return held_out_loss(agent)


def test_a_failed_run_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = replace(BENCH, held_out_loss=_crash_for_the_largest)
    configs = configure(_plan("").iloc[[0, 4]], MarkovSource())
    result = run_sweep(configs, bench, _place(tmp_path), workers=2)
    assert result.failed == (("lstm-4000-s0", "RuntimeError: no loss for this one"),)
    assert result.rows == 2
    assert "1 runs failed" in result.summary()
    assert "in _crash_for_the_largest" in capfd.readouterr().err
    resumed = run_sweep(configs, BENCH, _place(tmp_path))
    assert (resumed.rows, resumed.failed) == (3, ())


def _vanish(agent: Agent) -> tuple[float, float]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(agent)


def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    configs = configure(_plan("").iloc[:1], MarkovSource())
    result = run_sweep(configs, replace(BENCH, held_out_loss=_vanish), _place(tmp_path))
    assert result.failed[0][1].startswith("its process ended with code -9")


class _BrokenSource(MarkovSource):
    def __init__(self) -> None:
        super().__init__()
        self.columns["status"] = self.columns["status"].astype(np.float32)
        self.columns["status"][::2000] = np.nan


def test_diverged_runs_are_logged_as_such_once(tmp_path: Path) -> None:
    bench = Bench(open_demonstrations=_BrokenSource, held_out_loss=held_out_loss, play=play)
    configs = configure(_plan().iloc[:1], _BrokenSource())
    for _ in range(2):
        result = run_sweep(configs, bench, _place(tmp_path))
        assert result.failed == ()
        runs = load_runs(tmp_path / "runs.csv")
        assert runs["status"].tolist() == ["diverged", "diverged"]
        assert runs["note"].str.startswith("the loss is nan after").all()


def test_changed_settings_are_refused(swept: Place) -> None:
    plan = _plan().assign(learning_rate=0.01)
    with pytest.raises(TrainError, match=r"lstm-.*: holds a run of other settings"):
        run_sweep(configure(plan, MarkovSource()), BENCH, swept)


def test_all_rows_that_cannot_be_sized_are_named_before_anything_is_spent() -> None:
    plan = _plan()
    plan.loc[[0, 3], "params"] = 5.0
    with pytest.raises(PlanError, match=r"run lstm-1000-s0: params=5: .*\nrun lstm-2000-s1: param"):
        configure(plan, MarkovSource())


def test_dry_run_says_what_runs_would_cost() -> None:
    source = MarkovSource()
    configs = configure(_plan(), source)
    table = dry_run(configs, source)
    assert table["run_id"].tolist() == _plan()["run_id"].tolist()
    assert (table["epochs"] * len(source)).round().tolist() == table["samples"].tolist()
    assert table["hours"].between(1e-6, 0.1).all()
    assert (table["flops_per_sample"] * table["samples"] >= 1.6e8).all()


def test_configurations_travel_to_workers() -> None:
    # everything that a job takes is sent to another process
    import pickle

    config = configure(_plan().iloc[:1], MarkovSource())[0]
    again = pickle.loads(pickle.dumps(config))
    assert isinstance(again, RunConfig)
    assert again == config
    assert pickle.loads(pickle.dumps(partial(BENCH.held_out_loss))).func is held_out_loss


def test_a_full_disk_under_the_log_keeps_the_run(
    swept: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is all that is lost, and the next start writes it."""
    place = Place(log=tmp_path / "runs.csv", runs=swept.runs)
    config, *_ = configure(_plan().head(1), MarkovSource())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        with pytest.raises(TrainError, match=r"runs\.csv: the disk is full.*finished work is kept"):
            play_games(config, 1.6e8, 6, BENCH, place)
    play_games(config, 1.6e8, 6, BENCH, place)
    assert load_runs(place.log)["run_id"].tolist() == [config.run_id]
