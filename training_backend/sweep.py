"""A sweep: the runs of a plan, side by side on one machine or on many.

Three passes: train every run and measure its held-out losses; choose which snapshots play how many
games, many near the optimum of a budget and fewer elsewhere, which needs all the losses; play. A
row of the run log is written when it is complete, and so once: games that were played are not
played again, and more of them are not added. Any pass can be killed and goes on from its files.
"""

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling_analysis import PlanError, RunLogError, TrainError, append_run, load_runs
from training_backend.config import AVERAGING, RunConfig
from training_backend.executors import Executor, Failure, Job, Processes
from training_backend.families import find_family
from training_backend.files import unwritable, write_parquet
from training_backend.jobs import (
    Bench,
    Place,
    episodes_path,
    loss_path,
    play_games,
    read_episodes,
    read_row,
    train_runs,
)
from training_backend.memory import CONTEXT, count_memory, device_memory
from training_backend.objectives.behaviour_cloning import STATE, snapshot_path
from training_backend.stacking import stacks_of
from training_backend.tasks.fields import Demonstrations

GAMES_AN_AGENT = 100
"""Evaluation games that an agent plays at least, where there are so many to share."""
EPISODES = "episodes.parquet"
"""The evaluation games of all runs, beside the run log."""
LARGEST_STACK = 32
"""Runs that are trained as one model at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepResult:
    """What a sweep did."""

    rows: int
    """Rows of the plan's runs that are in the log."""
    failed: tuple[tuple[str, str], ...]
    """(run_id, reason) of each run that stopped with an error, the others went on; `EPISODES` in
    place of a run where the table of all games could not be written."""
    diverged: tuple[tuple[str, str], ...] = ()
    """(run_id, what became of its loss) of each run that has rows of the status "diverged"."""

    def summary(self) -> str:
        counts = [f"{self.rows} rows in the log", f"{len(self.failed)} runs failed"]
        counts += [f"{len(self.diverged)} diverged"] if self.diverged else []
        told = [f"  {run}: {reason}" for run, reason in (*self.failed, *self.diverged)]
        return "\n".join([", ".join(counts), *told])


def configure(plan: pd.DataFrame, bench: Bench, *, averaging: float = AVERAGING) -> list[RunConfig]:
    """Resolve every row of a plan.

    Raises:
        PlanError: naming all the rows that cannot be sized, before anything is spent.
    """
    splits: dict[str, Demonstrations] = {}
    configs, errors = [], []
    for row in plan.to_dict("records"):
        try:
            seen = find_family(row["agent"]).observation
            if seen not in splits:
                splits[seen] = bench.open_demonstrations(seen)
            configs.append(
                RunConfig.from_plan_row(
                    {str(k): v for k, v in row.items()}, splits[seen], averaging=averaging
                )
            )
        except PlanError as error:
            text, run = str(error), f"run {row['run_id']}: "
            errors.append(text if text.startswith(run) else run + text)
    if errors:
        raise PlanError("\n".join(errors))
    return configs


def run_sweep(
    configs: Sequence[RunConfig],
    bench: Bench,
    place: Place,
    *,
    workers: int = 1,
    executor: Executor | None = None,
    games: tuple[int, int] = (200, 50),
    device: str = "cpu",
    stack: bool | None = None,
    micro_batches: int = 1,
) -> SweepResult:
    """Train and judge the runs, longest first; go on where a killed sweep stopped.

    Args:
        configs: the runs, from `configure`.
        bench: what they train on and are judged by.
        place: run log, and the folder of the runs' files.
        workers: processes at a time, each with one torch thread.
        executor: what runs the jobs; `Processes(workers)` by default. It must be open.
        games: evaluation games of a size near the best one of its budget, and elsewhere. Agents
            of one size and budget share them, `GAMES_AN_AGENT` or more each.
        device: where to train, as PyTorch names it.
        stack: whether runs of one size (other seeds, other learning rates) are trained as one
            stacked model; by default on a GPU. A stack takes its steps whole, so not where
            `micro_batches` are asked for.
        micro_batches: parts that an optimiser step is taken in, to save memory.

    Returns:
        What is in the log, and which runs failed: a failed run does not stop the others.

    Raises:
        TrainError: the log or the folder cannot be written, or a folder holds another run.
        KeyboardInterrupt: all workers have been ended; nothing that was finished is lost.
    """
    on_gpu = device.startswith("cuda")
    check_log(place.log)
    if executor is None:
        executor = Processes(workers, usable_memory(device))
    try:
        place.runs.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainError(unwritable(place.runs, error)) from error
    taken: set[tuple[str, float]] = set()

    def take_row(row: dict[str, Any]) -> None:
        key = (row["run_id"], row["budget"])
        if key not in taken:  # a job that was lost and done again may repeat itself
            _log_row(place, row)
            taken.add(key)

    logged = _logged(place.log)
    pending = [c for c in configs if not _is_trained(c, place, logged)]
    stacking = (on_gpu if stack is None else stack) and micro_batches == 1
    stacks = stacks_of(pending, LARGEST_STACK if stacking else 1)
    stacks.sort(key=_flops, reverse=True)
    jobs = [
        _train_job(part, bench, device, micro_batches)
        for runs in stacks
        for part in _fitting(runs, bench, device, micro_batches, executor.memory)
    ]
    failed: list[Failure] = []
    while jobs:
        failures = executor.run(jobs, place.runs, "training", take_row)
        again = [(f, _smaller(f, device)) for f in failures]
        failed += [f for f, smaller in again if not smaller]
        jobs = [job for _, smaller in again for job in smaller]
    counts = _games_to_play(configs, place, games)
    logged = _logged(place.log)
    for (config, budget), count in counts.items():
        if not count and (config.run_id, budget) not in logged:
            take_row(read_row(place.folder(config), budget))
    playing = [
        Job(
            runs=(config.run_id,),
            work=float(count),
            target=play_games,
            arguments=(config, budget, count, bench, device),
            inputs=_files(config, (budget,)),
        )
        for (config, budget), count in counts.items()
        if count and (config.run_id, budget) not in logged
    ]
    failed += executor.run(playing, place.runs, "playing", take_row)
    stopped = [(run, f.reason) for f in failed for run in f.job.runs]
    try:
        gather_episodes(place)
    except TrainError as error:  # what became of the runs is told nevertheless
        stopped.append((EPISODES, str(error)))
    logged = _logged(place.log)
    return SweepResult(
        rows=sum((c.run_id, b) in logged for c in configs for b in c.snapshots),
        failed=tuple(stopped),
        diverged=tuple(
            (c.run_id, f"diverged, {notes[0]}")
            for c in configs
            if (notes := [logged[key] for b in c.snapshots if logged.get(key := (c.run_id, b))])
        ),
    )


def check_log(log: Path) -> None:
    """Raise `TrainError` where rows cannot be added to a file of this name, before any is made."""
    if log.suffix.lower() not in (".csv", ".jsonl", ".ndjson") or log.is_dir():
        raise TrainError(
            f"{log}: no name for a run log that rows are added to; give a file that ends in .csv "
            "or .jsonl"
        )


def gather_episodes(place: Place) -> Path | None:
    """Put the evaluation games of all runs into one episodes table beside the log; its path."""
    parts = sorted(place.runs.glob("*/*.episodes.parquet"))
    if not parts:
        return None
    target = place.log.with_name(EPISODES)
    write_parquet(target, pd.concat([read_episodes(part) for part in parts], ignore_index=True))
    return target


def usable_memory(device: str) -> float:
    """What jobs side by side may take of a GPU; without limit on a CPU [bytes]."""
    return 0.9 * device_memory(device) if device.startswith("cuda") else math.inf


def _train_job(configs: Sequence[RunConfig], bench: Bench, device: str, micro_batches: int) -> Job:
    return Job(
        runs=tuple(c.run_id for c in configs),
        work=_flops(configs),
        target=train_runs,
        arguments=(tuple(configs), bench, device, micro_batches),
        memory=_memory(configs, bench, micro_batches) if device.startswith("cuda") else 0.0,
        inputs=tuple(path for c in configs for path in _files(c, c.snapshots)),
    )


def _smaller(failure: Failure, device: str) -> list[Job]:
    """What to try where memory ran out: halves of a stack; a run that was not alone, alone."""
    job = failure.job
    if failure.kind != "memory":
        return []
    configs, *others = job.arguments
    if len(configs) > 1:
        middle = len(configs) // 2
        return [_train_job(part, *others) for part in (configs[:middle], configs[middle:])]
    alone = not device.startswith("cuda") or math.isinf(job.memory)
    return [] if alone else [replace(job, memory=math.inf)]


def _fitting(
    configs: Sequence[RunConfig], bench: Bench, device: str, micro_batches: int, room: float
) -> list[Sequence[RunConfig]]:
    """A stack cut into as many even parts as it takes to fit into the device's memory."""
    if len(configs) == 1 or not device.startswith("cuda"):
        return [configs]
    needed = _memory(configs, bench, micro_batches)
    parts = min(len(configs), max(1, math.ceil(needed / room)))
    return [part.tolist() for part in np.array_split(np.array(configs, dtype=object), parts)]


def _memory(configs: Sequence[RunConfig], bench: Bench, micro_batches: int) -> float:
    demonstrations = bench.demonstrations_for(configs[0])
    each = count_memory(
        configs[0], demonstrations.fields, demonstrations.actions, micro_batches=micro_batches
    )
    return CONTEXT + len(configs) * each.total


def _files(config: RunConfig, budgets: Sequence[float]) -> tuple[Path, ...]:
    """Files of a run that a job may go on from, in the folder of the runs' folders."""
    folder = Path(config.run_id)
    of_budgets = [
        path(folder, budget)
        for budget in budgets
        for path in (snapshot_path, loss_path, episodes_path)
    ]
    return (folder / STATE, *of_budgets)


def _flops(configs: Sequence[RunConfig]) -> float:
    return sum(c.samples * c.flops_per_sample for c in configs)


def _is_trained(config: RunConfig, place: Place, logged: Collection[tuple[str, float]]) -> bool:
    """Whether all that `train_runs` leaves is there: losses, and rows where it hands them over."""
    folder = place.folder(config)
    if all(loss_path(folder, b).exists() for b in config.snapshots):
        if any(read_row(folder, b)["config_hash"] != config.hash for b in config.snapshots):
            raise TrainError(
                f"{folder}: holds a run of other settings. Give the planned run another run_id, "
                "or delete the folder and its rows in the log to train it again"
            )
        if config.protocol:
            return True
    return all((config.run_id, b) in logged for b in config.snapshots)


def _logged(log: Path) -> dict[tuple[str, float], str]:
    """(run_id, budget) of the rows in the log, with what is noted of those that diverged."""
    if not log.exists() or not log.stat().st_size:  # a full disk leaves a log without a line
        return {}
    runs = load_runs(log)
    notes = runs["note"] if "note" in runs else [""] * len(runs)
    return {
        (run, budget): note if status == "diverged" else ""
        for run, budget, status, note in zip(
            runs["run_id"], runs["budget"], runs["status"], notes, strict=True
        )
    }


def _log_row(place: Place, row: dict[str, Any]) -> None:
    """Add a row to the run log; where the disk refuses it, say that the run itself is kept."""
    try:
        append_run(place.log, **row)
    except RunLogError as error:
        if isinstance(error.__cause__, OSError):
            raise TrainError(unwritable(place.log, error.__cause__)) from error
        raise


def _games_to_play(
    configs: Sequence[RunConfig], place: Place, games: tuple[int, int]
) -> dict[tuple[RunConfig, float], int]:
    """Games of each snapshot whose loss is known, the largest budgets first: they play longest.

    Near a family's optimum are the size with the lowest mean loss at the budget and the better of
    its neighbours: the vertex lies between them. Few games an agent would be slow, since the
    longest of them decides when a process is done, so the agents with the first seeds of a size
    play them.
    """
    losses: dict[tuple[float, str], dict[RunConfig, float]] = {}
    for config in configs:
        for budget in config.snapshots if config.protocol else ():
            if loss_path(place.folder(config), budget).exists():
                row = read_row(place.folder(config), budget)
                losses.setdefault((budget, config.agent), {})[config] = row["loss"]
    counts: dict[tuple[RunConfig, float], int] = {}
    for (budget, _), measured in sorted(losses.items(), key=lambda item: item[0], reverse=True):
        counts |= {(c, budget): 0 for c, loss in measured.items() if not math.isfinite(loss)}
        of_run = {c: loss for c, loss in measured.items() if math.isfinite(loss)}
        if not of_run:
            continue
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
