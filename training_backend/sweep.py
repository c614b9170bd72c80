"""A sweep: the runs of a plan, in worker processes, on one machine.

Three passes: train every run and measure its held-out losses; choose which snapshots play how many
games, many near the optimum of a budget and fewer elsewhere, which needs all the losses; play. A
row of the run log is written when it is complete, and so once; a return under another protocol
or more games never train anything again. Any pass can be killed and goes on from its files.
"""

import math
import multiprocessing
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from scaling_analysis import PlanError, ScalingError, TrainError, append_run, load_runs
from training_backend.config import AVERAGING, RunConfig
from training_backend.jobs import (
    Bench,
    Place,
    loss_path,
    play_games,
    read_row,
    train_run,
    write_parquet,
)
from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import build_agent, optimise
from training_backend.tasks.fields import Demonstrations

GAMES_AN_AGENT = 100
"""Evaluation games that an agent plays at least, where there are so many to share."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep did."""

    rows: int
    """Rows of the plan's runs that are in the log."""
    failed: tuple[tuple[str, str], ...]
    """(run_id, reason) of each run that stopped with an error; the others went on."""

    def summary(self) -> str:
        lines = [f"{self.rows} rows in the log, {len(self.failed)} runs failed"]
        return "\n".join(lines + [f"  {run}: {reason}" for run, reason in self.failed])


def configure(
    plan: pd.DataFrame, demonstrations: Demonstrations, *, averaging: float = AVERAGING
) -> list[RunConfig]:
    """Resolve every row of a plan.

    Raises:
        PlanError: naming all the rows that cannot be sized, before anything is spent.
    """
    configs, errors = [], []
    for row in plan.to_dict("records"):
        try:
            configs.append(
                RunConfig.from_plan_row(
                    {str(k): v for k, v in row.items()}, demonstrations, averaging=averaging
                )
            )
        except PlanError as error:
            errors.append(str(error))
    if errors:
        raise PlanError("\n".join(errors))
    return configs


def dry_run(configs: Sequence[RunConfig], demonstrations: Demonstrations) -> pd.DataFrame:
    """What each run would be and cost, without training it.

    Returns:
        One row a run: run_id, width, params, flops_per_sample, batch_size, learning_rate, samples,
        epochs, hours (of one worker, from timing a few optimiser steps here; playing the
        evaluation games comes on top), snapshots, skipped.
    """
    seconds: dict[tuple[float, int], float] = {}
    rows = []
    for c in configs:
        kind = (c.width, c.batch_size)
        if kind not in seconds:
            seconds[kind] = _seconds_per_step(c, demonstrations)
        rows.append(
            {
                "run_id": c.run_id,
                "width": c.width,
                "params": c.params,
                "flops_per_sample": c.flops_per_sample,
                "batch_size": c.batch_size,
                "learning_rate": c.learning_rate,
                "samples": c.samples,
                "epochs": c.samples / len(demonstrations),
                "hours": c.snapshot_steps[-1] * seconds[kind] / 3600,
                "snapshots": ";".join(f"{b:g}" for b in c.snapshots),
                "skipped": ";".join(f"{b:g}" for b in c.skipped),
            }
        )
    return pd.DataFrame(rows)


def run_sweep(
    configs: Sequence[RunConfig],
    bench: Bench,
    place: Place,
    *,
    workers: int = 1,
    games: tuple[int, int] = (200, 50),
    device: str = "cpu",
) -> SweepResult:
    """Train and judge the runs, longest first; go on where a killed sweep stopped.

    Args:
        configs: the runs, from `configure`.
        bench: what they train on and are judged by.
        place: run log, and the folder of the runs' files.
        workers: processes at a time, each with one torch thread.
        games: evaluation games of a size near the best one of its budget, and elsewhere. Agents
            of one size and budget share them, `GAMES_AN_AGENT` or more each.
        device: where to train, as PyTorch names it.

    Returns:
        What is in the log, and which runs failed: a failed run does not stop the others.

    Raises:
        KeyboardInterrupt: all workers have been ended; nothing that was finished is lost.
    """
    pending = [c for c in configs if not _is_trained(c, place)]
    pending.sort(key=lambda c: c.samples * c.flops_per_sample, reverse=True)
    training = [
        _Job(
            name=c.run_id,
            work=c.snapshots[-1],
            target=train_run,
            arguments=(c, bench, place, device),
            reports=True,
        )
        for c in pending
    ]
    failed = _run_jobs(training, workers, "training")
    logged = _logged(place.log)
    counts = _games_to_play(configs, place, games)
    for (config, budget), count in counts.items():
        if not count and (config.run_id, budget) not in logged:
            append_run(place.log, **read_row(place.folder(config), budget))
    playing = [
        _Job(
            name=config.run_id,
            work=float(count),
            target=play_games,
            arguments=(config, budget, count, bench, place),
        )
        for (config, budget), count in counts.items()
        if count and (config.run_id, budget) not in logged
    ]
    failed += _run_jobs(playing, workers, "playing")
    gather_episodes(place)
    logged = _logged(place.log)
    rows = sum((c.run_id, b) in logged for c in configs for b in c.snapshots)
    return SweepResult(rows=rows, failed=tuple(failed))


def gather_episodes(place: Place) -> Path | None:
    """Put the evaluation games of all runs into one episodes table beside the log; its path."""
    parts = sorted(place.runs.glob("*/*.episodes.parquet"))
    if not parts:
        return None
    target = place.log.with_name("episodes.parquet")
    write_parquet(target, pd.concat([pd.read_parquet(part) for part in parts], ignore_index=True))
    return target


def _is_trained(config: RunConfig, place: Place) -> bool:
    """Whether all that `train_run` leaves is there: losses, and rows where it writes them."""
    folder = place.folder(config)
    if all(loss_path(folder, b).exists() for b in config.snapshots):
        if any(read_row(folder, b)["config_hash"] != config.hash for b in config.snapshots):
            raise TrainError(
                f"{folder}: holds a run of other settings. Give the planned run another run_id, "
                "or delete the folder and its rows in the log to train it again"
            )
        if config.protocol:
            return True
    return all((config.run_id, b) in _logged(place.log) for b in config.snapshots)


def _logged(log: Path) -> set[tuple[str, float]]:
    if not log.exists():
        return set()
    runs = load_runs(log)
    return set(zip(runs["run_id"], runs["budget"], strict=True))


def _games_to_play(
    configs: Sequence[RunConfig], place: Place, games: tuple[int, int]
) -> dict[tuple[RunConfig, float], int]:
    """Games of each snapshot whose loss is known, the largest budgets first: they play longest.

    Near the optimum are the size with the lowest mean loss at the budget and the better of its
    neighbours: the vertex lies between them. Few games an agent would be slow, since the longest of
    them decides when a process is done, so the agents with the first seeds of a size play them.
    """
    losses: dict[float, dict[RunConfig, float]] = {}
    for config in configs:
        for budget in config.snapshots if config.protocol else ():
            if loss_path(place.folder(config), budget).exists():
                row = read_row(place.folder(config), budget)
                losses.setdefault(budget, {})[config] = row["loss"]
    counts: dict[tuple[RunConfig, float], int] = {}
    for budget, of_run in sorted(losses.items(), reverse=True):
        sizes = sorted({config.params for config in of_run})
        means = np.array([np.mean([v for c, v in of_run.items() if c.params == n]) for n in sizes])
        best = int(np.argmin(means))
        beside = [i for i in (best - 1, best + 1) if 0 <= i < len(sizes)]
        near = {best, *sorted(beside, key=lambda i: means[i])[:1]}
        for i, size in enumerate(sizes):
            wanted = games[0] if i in near else games[1]
            agents = sorted((c for c in of_run if c.params == size), key=lambda c: c.seed)
            players = agents[: max(1, wanted // GAMES_AN_AGENT)]
            for config in agents:
                counts[config, budget] = 0
            for config in players:
                counts[config, budget] = math.ceil(wanted / len(players))
    return counts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Job:
    name: str
    work: float
    """Size of the job, in the unit of its pass."""
    target: Callable[..., None]
    arguments: tuple[Any, ...]
    reports: bool = False
    """Whether the target takes a callable that is told the work done so far."""


def _run_jobs(jobs: Sequence[_Job], workers: int, title: str) -> list[tuple[str, str]]:
    """Each job in a process of its own, at most `workers` at a time; (name, reason) of failures.

    The processes are forked from a server that has imported torch, so that starting one is cheap
    and a crash in one touches no other.
    """
    if not jobs:
        return []
    context = multiprocessing.get_context("forkserver")
    # an optimiser's first use imports torch._dynamo, which would cost every process a second
    context.set_forkserver_preload(["__main__", __name__, "torch._dynamo"])
    waiting, running, failed = list(jobs), {}, []
    done, total = 0.0, sum(job.work for job in jobs)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    shown = Progress(*columns, console=console) if console.is_terminal else nullcontext()
    with shown as bar:
        task = bar.add_task(title, total=total) if bar is not None else None
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    spent = context.Value("d", 0.0)
                    reason, to_parent = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(job, spent, to_parent))
                    process.start()
                    to_parent.close()
                    running[process.sentinel] = (job, process, spent, reason)
                for sentinel in wait(list(running), timeout=0.5):
                    job, process, _, reason = running.pop(sentinel)
                    process.join()
                    done += job.work
                    if process.exitcode != 0:
                        failed.append((job.name, _reason(process.exitcode, reason)))
                    reason.close()
                if bar is not None and task is not None:
                    current = sum(spent.value for _, _, spent, _ in running.values())
                    bar.update(task, completed=done + current)
        finally:
            for _, process, _, _ in running.values():
                process.terminate()
                process.join()
    return failed


def _reason(exitcode: int | None, pipe: Any) -> str:
    try:
        reason, trace = pipe.recv()
    except EOFError:
        return f"its process ended with code {exitcode}, without a message (out of memory?)"
    sys.stderr.write(trace)
    return reason


def _work(job: _Job, spent: Any, reason: Any) -> None:
    """Body of a worker process."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()

    def report(work: float) -> None:
        spent.value = work

    try:
        job.target(*job.arguments, *((report,) if job.reports else ()))
    except KeyboardInterrupt:
        os._exit(1)
    except Exception as error:
        if isinstance(error, ScalingError):
            reason.send((str(error), ""))
        else:
            reason.send((f"{type(error).__name__}: {error}", traceback.format_exc()))
        raise SystemExit(1) from None


def _end_with_parent() -> None:
    """Do not outlive a killed sweep: the resumed one must find the runs' folders free."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _seconds_per_step(config: RunConfig, demonstrations: Demonstrations) -> float:
    agent: Agent = build_agent(config, demonstrations.fields, demonstrations.actions)
    optimiser = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, fused=True)
    stream = demonstrations.stream(config.lanes, config.chunk, config.seed)
    state, times = agent.initial_state(config.lanes), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for step in range(4):
        start = time.perf_counter()
        chunk = {k: torch.from_numpy(v) for k, v in stream[step].items()}
        _, state = optimise(agent, optimiser, chunk, state, config.clip)
        times.append(time.perf_counter() - start)
    torch.set_num_threads(threads)
    return float(np.median(times[1:]))
