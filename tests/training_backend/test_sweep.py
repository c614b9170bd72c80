"""Sweeps: a plan becomes rows, once each, whatever is killed or fails on the way."""

import errno
import math
import multiprocessing
import os
import re
import resource
import shutil
import signal
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from markov_source import ACTIONS, BENCH, FIELDS, MarkovSource, measure, play

from scaling_analysis import PlanError, TrainError, load_episodes, load_runs
from training_backend import sweep
from training_backend.config import RunConfig
from training_backend.executors import Failure, Job
from training_backend.jobs import Bench, Place, episodes_path, loss_path, train_runs
from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import load_snapshot, snapshot_path
from training_backend.sweep import _smaller, configure, run_sweep

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
    result = run_sweep(configure(_plan(), BENCH), BENCH, place, workers=2, games=(6, 2))
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
    configs, runs = configure(_plan(), BENCH), _sorted(swept.log)
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
    again = run_sweep(configure(_plan(), BENCH), BENCH, swept, games=(6, 2))
    assert again.rows == 10
    assert swept.log.read_bytes() == before
    assert {p: p.stat().st_mtime_ns for p in swept.runs.glob("*/*")} == times


def test_lost_rows_come_back_the_same(swept: Place, tmp_path: Path) -> None:
    # as after a kill between the files of a run and its row
    place = Place(log=tmp_path / "runs.csv", runs=swept.runs)
    run_sweep(configure(_plan(), BENCH), BENCH, place, games=(6, 2))
    pd.testing.assert_frame_equal(_sorted(place.log)[CONTENT], _sorted(swept.log)[CONTENT])


def _sweep_in_process(folder: Path) -> None:
    configs = configure(_plan(), BENCH)
    run_sweep(configs, BENCH, _place(folder), workers=2, games=(6, 2))


def _sweep_and_kill(folder: Path, delays: list[float], sign: str = "runs") -> None:
    """Start sweeps and kill each so long [s] after there is a file or folder of this name."""
    context = multiprocessing.get_context("spawn")
    for delay in delays:
        process = context.Process(target=_sweep_in_process, args=(folder,))
        process.start()
        assert process.pid is not None
        begun = time.monotonic()
        while not list(folder.glob(sign)) and time.monotonic() < begun + 60:
            time.sleep(0.01)
        time.sleep(delay)
        os.kill(process.pid, signal.SIGKILL)
        process.join()


def test_a_killed_sweep_goes_on_to_the_same_rows(swept: Place, tmp_path: Path) -> None:
    _sweep_and_kill(tmp_path, [0.0], sign="runs/*/*.safetensors")
    left = {path.name for path in tmp_path.glob("runs/*/*.safetensors")}
    assert left
    assert not (tmp_path / "episodes.parquet").exists()
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


def _crash_for_the_largest(agent: Agent) -> dict[str, float]:
    if agent.dimensions.core > 15:
        raise RuntimeError("no loss for this one")
    return measure(agent)


def test_a_failed_run_does_not_stop_the_others(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    bench = replace(BENCH, held_out_loss=_crash_for_the_largest)
    configs = configure(_plan("").iloc[[0, 4]], BENCH)
    result = run_sweep(configs, bench, _place(tmp_path), workers=2)
    assert result.failed == (("lstm-4000-s0", "RuntimeError: no loss for this one"),)
    assert result.rows == 2
    assert "1 runs failed" in result.summary()
    assert "in _crash_for_the_largest" in capfd.readouterr().err
    resumed = run_sweep(configs, BENCH, _place(tmp_path))
    assert (resumed.rows, resumed.failed) == (3, ())


def _vanish(agent: Agent) -> dict[str, float]:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(agent)


def test_a_killed_worker_is_reported(tmp_path: Path) -> None:
    configs = configure(_plan("").iloc[:1], BENCH)
    result = run_sweep(configs, replace(BENCH, held_out_loss=_vanish), _place(tmp_path))
    assert result.failed[0][1].startswith("its process ended with code -9")


class _BrokenSource(MarkovSource):
    def __init__(self) -> None:
        super().__init__()
        self.columns["status"] = self.columns["status"].astype(np.float32)
        self.columns["status"][::2000] = np.nan


def _open_broken(observation: str) -> _BrokenSource:
    return _BrokenSource()


def test_diverged_runs_are_logged_as_such_once(tmp_path: Path) -> None:
    bench = Bench(open_demonstrations=_open_broken, held_out_loss=measure, play=play)
    configs = configure(_plan().iloc[:1], bench)
    for _ in range(2):
        result = run_sweep(configs, bench, _place(tmp_path))
        assert result.failed == ()
        runs = load_runs(tmp_path / "runs.csv")
        assert runs["status"].tolist() == ["diverged", "diverged"]
        assert runs["note"].str.startswith("the loss is nan after").all()


def _open_in_little_memory(observation: str) -> MarkovSource:
    """Allow this process 250 MB more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * os.sysconf("SC_PAGE_SIZE") + 250_000_000
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    return MarkovSource()


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's limits")
def test_a_run_out_of_memory_says_what_fits_and_stops_no_other(tmp_path: Path) -> None:
    plan = _plan("").iloc[[0, 2]].reset_index(drop=True)
    plan.loc[1, ["batch_size", "budget", "snapshots"]] = [2.0**19, 5e11, "5e11"]
    bench = replace(BENCH, open_demonstrations=_open_in_little_memory)
    result = run_sweep(configure(plan, BENCH), bench, _place(tmp_path))
    ((run, reason),) = result.failed
    assert run == "lstm-2000-s0"
    assert reason.startswith("out of memory on cpu, which has ")
    found = re.search(r"--micro-batches (\d+) would fit", reason)
    assert found
    assert result.rows == 2


def test_a_stack_out_of_memory_is_halved_and_a_run_on_a_gpu_is_tried_alone() -> None:
    configs = tuple(configure(_plan("").iloc[:4], BENCH))
    job = Job(
        runs=tuple(c.run_id for c in configs),
        work=4.0,
        target=train_runs,
        arguments=(configs, BENCH, "cpu", 1),
    )
    failure = Failure(job=job, reason="too large", kind="memory")
    halves = _smaller(failure, "cpu")
    assert [half.runs for half in halves] == [job.runs[:2], job.runs[2:]]
    assert [half.arguments[0] for half in halves] == [configs[:2], configs[2:]]
    assert _smaller(replace(failure, kind="error"), "cpu") == []
    alone = replace(job, runs=job.runs[:1], arguments=(configs[:1], BENCH, "cpu", 1), memory=1e9)
    assert _smaller(replace(failure, job=alone), "cpu") == []
    (again,) = _smaller(replace(failure, job=alone), "cuda")
    assert again.memory == math.inf
    assert _smaller(replace(failure, job=again), "cuda") == []


def test_stacked_runs_give_the_rows_of_single_ones(swept: Place, tmp_path: Path) -> None:
    configs = configure(_plan("").iloc[:4], BENCH)
    result = run_sweep(configs, BENCH, _place(tmp_path), stack=True)
    assert (result.rows, result.failed) == (8, ())
    runs, single = _sorted(tmp_path / "runs.csv"), _sorted(swept.log)
    single = single[single["run_id"].isin(runs["run_id"])]
    assert runs["device"].str.endswith("stack of 2)").all()
    assert runs["samples"].tolist() == single["samples"].tolist()
    assert runs["loss"].tolist() == pytest.approx(single["loss"].tolist(), rel=1e-3)
    assert {path.name for path in (tmp_path / "runs").iterdir()} == set(runs["run_id"])


def test_the_best_agent_of_a_run_is_kept(swept: Place) -> None:
    runs = _sorted(swept.log)
    for run_id, of_run in runs.groupby("run_id"):
        best = of_run.loc[of_run["loss"].idxmin(), "budget"]
        path = swept.runs / str(run_id) / "best.safetensors"
        _, _, about = load_snapshot(path, FIELDS, ACTIONS)
        assert about["budget"] == best


def test_other_demonstrations_than_the_planned_are_refused(tmp_path: Path) -> None:
    configs = configure(_plan("").iloc[:1], BENCH)
    bench = replace(BENCH, open_demonstrations=_open_fewer)
    result = run_sweep(configs, bench, _place(tmp_path))
    assert re.search(
        r"the demonstrations here .* are not those that it was planned with .*missing",
        result.failed[0][1],
    )


def _open_fewer(observation: str) -> MarkovSource:
    return MarkovSource(games=50)


def _fill_the_disk(agent: Agent) -> dict[str, float]:
    """From here on every file of this process meets a full disk."""

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    Path.replace = full  # type: ignore[method-assign]
    return measure(agent)


def test_a_disk_that_fills_up_in_a_run_keeps_what_is_finished(tmp_path: Path) -> None:
    configs = configure(_plan("").iloc[:1], BENCH)
    bench = replace(BENCH, held_out_loss=_fill_the_disk)
    result = run_sweep(configs, bench, _place(tmp_path))
    assert re.search(
        r"loss\.json: the disk is full\. Make room and start again", result.failed[0][1]
    )
    folder = tmp_path / "runs" / configs[0].run_id
    assert snapshot_path(folder, 1.6e8).exists()
    before = snapshot_path(folder, 1.6e8).stat().st_mtime_ns
    assert run_sweep(configs, BENCH, _place(tmp_path)).rows == 2
    assert snapshot_path(folder, 1.6e8).stat().st_mtime_ns == before  # it was not trained again


def test_changed_settings_are_refused(swept: Place) -> None:
    plan = _plan().assign(learning_rate=0.01)
    with pytest.raises(TrainError, match=r"lstm-.*: holds a run of other settings"):
        run_sweep(configure(plan, BENCH), BENCH, swept)


def test_all_rows_that_cannot_be_sized_are_named_before_anything_is_spent() -> None:
    plan = _plan()
    plan.loc[[0, 3], "params"] = 5.0
    with pytest.raises(PlanError, match=r"run lstm-1000-s0: params=5: .*\nrun lstm-2000-s1: param"):
        configure(plan, BENCH)


def test_configurations_travel_to_workers() -> None:
    # everything that a job takes is sent to another process
    import pickle

    config = configure(_plan().iloc[:1], BENCH)[0]
    again = pickle.loads(pickle.dumps(config))
    assert isinstance(again, RunConfig)
    assert again == config
    assert pickle.loads(pickle.dumps(partial(BENCH.held_out_loss))).func is measure


def test_a_full_disk_under_the_log_keeps_the_run(
    swept: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is all that is lost, and the next start writes it."""
    place = Place(log=tmp_path / "runs.csv", runs=swept.runs)
    configs = configure(_plan().head(1), BENCH)
    sweep_again = partial(run_sweep, configs, BENCH, place, games=(6, 2))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        failed = sweep_again().failed
    assert failed[0][0] == "lstm-1000-s0"
    assert re.search(r"runs\.csv: the disk is full.*finished work is kept", failed[0][1])
    assert sweep_again().rows == 2
    assert set(load_runs(place.log)["run_id"]) == {"lstm-1000-s0"}


@pytest.mark.parametrize("name", ["runs.txt", "runs.parquet", "runs"])
def test_a_log_that_rows_cannot_be_added_to_is_refused_before_training(
    name: str, tmp_path: Path
) -> None:
    place = Place(log=tmp_path / name, runs=tmp_path / "runs_files")
    with pytest.raises(TrainError, match=r"give a file that ends in \.csv or \.jsonl"):
        run_sweep(configure(_plan(), BENCH), BENCH, place)
    assert not list(tmp_path.iterdir())


def _measure_nan(agent: Agent) -> dict[str, float]:
    return {"loss": math.nan, "loss_se": math.nan}


@pytest.mark.parametrize("protocol", ["", "markov-1"])
def test_a_last_step_that_spoils_the_weights_is_a_divergence(protocol: str, tmp_path: Path) -> None:
    configs = configure(_plan(protocol)[:1], BENCH)
    place, bench = _place(tmp_path), replace(BENCH, held_out_loss=_measure_nan)
    for _ in range(2):  # and nothing is added when it is started again
        result = run_sweep(configs, bench, place, games=(6, 2))
        assert (result.rows, result.failed) == (2, ())
        assert result.diverged == ((configs[0].run_id, "diverged, the held-out loss is nan"),)
        runs = load_runs(place.log)
        assert (runs["status"] == "diverged").all()
        assert len(runs) == 2
    assert "0 runs failed, 1 diverged" in result.summary()


def _swept_again(swept: Place, folder: Path) -> tuple[Place, RunConfig, Path]:
    """A copy of the runs without their log, the first run, and its folder."""
    place, config = _place(folder), configure(_plan(), BENCH)[0]
    shutil.copytree(swept.runs, place.runs)
    return place, config, place.folder(config)


def test_an_agent_that_is_gone_is_told(swept: Place, tmp_path: Path) -> None:
    place, config, folder = _swept_again(swept, tmp_path)
    snapshot_path(folder, config.snapshots[0]).unlink()
    loss_path(folder, config.snapshots[0]).unlink()
    result = run_sweep([config], BENCH, place, games=(6, 2))
    ((run, reason),) = result.failed
    assert run == config.run_id
    assert "was trained and is gone; restore it, or delete " in reason


def test_damaged_results_are_named_with_what_to_do(swept: Place, tmp_path: Path) -> None:
    place, config, folder = _swept_again(swept, tmp_path)
    path = loss_path(folder, config.snapshots[0])
    for content in (path.read_text()[:50], "[]", "{}"):
        path.write_text(content)
        with pytest.raises(TrainError, match=r"loss\.json: .*delete it to measure the loss again"):
            run_sweep([config], BENCH, place, games=(6, 2))
    path.unlink()
    episodes = episodes_path(folder, config.snapshots[0])
    whole = episodes.read_bytes()
    episodes.write_bytes(whole[: len(whole) // 2])
    result = run_sweep([config], BENCH, place, games=(6, 2))
    assert [name for name, _ in result.failed] == [config.run_id, "episodes.parquet"]
    for _, reason in result.failed:
        assert re.search(r"parquet: damaged .*delete it, and the games are played", reason)
    episodes.unlink()
    assert run_sweep([config], BENCH, place, games=(6, 2)).failed == ()


def test_what_a_killed_writer_left_is_removed(swept: Place, tmp_path: Path) -> None:
    place, config, folder = _swept_again(swept, tmp_path)
    for name in (".training.safetensors.123.tmp", ".tmpAbC123", ".6e+07.loss.json.7.tmp"):
        (folder / name).write_bytes(b"half")
    loss_path(folder, config.snapshots[0]).unlink()
    run_sweep([config], BENCH, place, games=(6, 2))
    assert not [p.name for p in folder.iterdir() if p.name.startswith(".")]
