"""What a job of a sweep does: train a run or a stack of runs, or play an agent's evaluation games.

Everything a job leaves is a file in a run's folder, so that a sweep killed at any moment finds out
from the files what is left to do:

    <run>/training.safetensors   where training stopped; training.1.safetensors: before that
    <run>/<budget>.safetensors   the agent at a budget
    <run>/<budget>.loss.json     its held-out loss
    <run>/best.safetensors       the agent with the lowest of these losses
    <run>/<budget>.episodes.parquet  its evaluation games, where returns are measured

The run log's row is handed over last, by the job that completes it: it holds loss and return, and
the sweep writes it once.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_analysis import TrainError
from training_backend import checkpoint
from training_backend.config import RunConfig
from training_backend.executors import Outbox
from training_backend.families import find_family
from training_backend.files import held, remove_leftovers, write_json, write_parquet
from training_backend.memory import explaining_memory
from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import (
    Outcome,
    load_snapshot,
    snapshot_path,
    train,
)
from training_backend.objectives.games import used_games
from training_backend.run_rows import run_row
from training_backend.stacking import pays_alone, train_stack
from training_backend.tasks.fields import Demonstrations

BEST = "best.safetensors"
"""The snapshot of a run with the lowest held-out loss so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the agents of a sweep train on and are judged by; sent to the worker processes."""

    open_demonstrations: Callable[[str], Demonstrations]
    """The training split as an observation ("features", "screen") of the agents shows it. Opened
    in each process; memory-mapped files are shared between them."""
    held_out_loss: Callable[[Agent], Mapping[str, float]]
    """Columns of the run log measured on the held-out games: `loss` and its standard error
    `loss_se` [nats/action]."""
    play: Callable[[Agent, str, int], pd.DataFrame]
    """(agent, protocol, games) -> one row a game: episode, return, length."""
    protocol_id: Callable[[str], str] = str
    """The full name of a protocol, as the run log holds it: with its version and hash."""

    def demonstrations_for(self, config: RunConfig) -> Demonstrations:
        """What a run trains on.

        Raises:
            TrainError: there are none, or they are not those that the run was planned with.
        """
        split = self.open_demonstrations(find_family(config.agent).observation)
        found = used_games(split, config.agent, config.score_threshold)
        if found.fingerprint != config.data:
            raise TrainError(
                f"run {config.run_id}: the demonstrations here ({len(found):,} transitions, "
                f"{found.fingerprint}) are not those that it was planned with ({config.data}): "
                "files are missing or were changed since. Restore them (`scaling-train collect` "
                "decodes missing shards again) and start again"
            )
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sweep's results go."""

    log: Path
    """Run log (.csv or .jsonl)."""
    runs: Path
    """Folder that holds a folder a run."""

    def folder(self, config: RunConfig) -> Path:
        return self.runs / config.run_id


def train_runs(
    configs: Sequence[RunConfig],
    bench: Bench,
    device: str,
    micro_batches: int,
    runs: Path,
    outbox: Outbox,
) -> None:
    """Train a run, or several as a stack, and measure the held-out loss of each snapshot.

    Hands over the rows that need no returns.

    Args:
        configs: one run; or runs that `stacking.stacks_of` says can be stacked.
        micro_batches: parts that an optimiser step is taken in, to save memory.
        runs: folder of the runs' folders.
        outbox: is told the FLOP spent so far.

    Raises:
        MemoryLimitError: the device has not enough memory; the message says what would fit.
    """
    folders = [runs / config.run_id for config in configs]
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(alone(folder))
            remove_leftovers(folder, ".*.json.*.tmp", *checkpoint.LEFTOVERS)
        demonstrations = bench.demonstrations_for(configs[0])
        fields, actions = demonstrations.fields, demonstrations.actions
        with explaining_memory(configs, fields, actions, device, micro_batches):
            outcomes = _train(configs, demonstrations, folders, device, micro_batches, outbox)
            for config, folder, outcome in zip(configs, folders, outcomes, strict=True):
                _measure(config, folder, outcome, bench, demonstrations, device, outbox)
                if outcome.status == "diverged":
                    _hand_over_divergence(config, demonstrations, folder, outcome, device, outbox)


def _train(
    configs: Sequence[RunConfig],
    demonstrations: Demonstrations,
    folders: Sequence[Path],
    device: str,
    micro_batches: int,
    outbox: Outbox,
) -> list[Outcome]:
    per_step = configs[0].batch_size * configs[0].flops_per_sample

    def on_step(steps: int) -> None:
        """Steps of the run, or of all runs of a stack together."""
        outbox.work(steps * per_step)

    if len(configs) > 1 or (micro_batches == 1 and pays_alone(configs[0], device)):
        return train_stack(configs, demonstrations, folders, device=device, on_step=on_step)
    outcome = train(
        configs[0],
        demonstrations,
        folders[0],
        device=device,
        micro_batches=micro_batches,
        on_step=on_step,
    )
    return [outcome]


def _measure(
    config: RunConfig,
    folder: Path,
    outcome: Outcome,
    bench: Bench,
    demonstrations: Demonstrations,
    device: str,
    outbox: Outbox,
) -> None:
    """Measure the loss of the snapshots that were reached, unless it has been."""
    for budget in config.snapshots:
        path = snapshot_path(folder, budget)
        if not path.exists():
            if outcome.status == "ok":
                raise TrainError(
                    f"{path}: the agent of this budget was trained and is gone; restore it, or "
                    f"delete {folder} to train the run again"
                )
            continue
        if not loss_path(folder, budget).exists():
            agent, _, about = load_snapshot(path, demonstrations.fields, demonstrations.actions)
            measured = bench.held_out_loss(agent.to(device).eval())
            row = run_row(config, demonstrations, about) | dict(measured)
            if not math.isfinite(row["loss"]):  # its last step spoilt the weights
                note = f"the held-out loss is {row['loss']}"
                row |= {"loss": math.nan, "loss_se": math.nan, "status": "diverged", "note": note}
            write_json(loss_path(folder, budget), row)
        outbox.file(path)
        outbox.file(loss_path(folder, budget))
        if not config.protocol:
            outbox.row(read_row(folder, budget))
    link_best(folder, config.snapshots)


def _hand_over_divergence(
    config: RunConfig,
    demonstrations: Demonstrations,
    folder: Path,
    outcome: Outcome,
    device: str,
    outbox: Outbox,
) -> None:
    """A row for each budget that the run never reached, so that the log shows what is missing."""
    samples = max(outcome.steps, 1) * config.batch_size
    about = {
        "samples": samples,
        "flops": samples * config.flops_per_sample,
        "wall_seconds": outcome.wall_seconds,
        "data_seconds": outcome.data_seconds,
        "device": device,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for budget in config.snapshots:
        if not snapshot_path(folder, budget).exists():
            row = run_row(config, demonstrations, about | {"budget": budget})
            outbox.row(row | {"loss": math.nan, "status": "diverged", "note": outcome.note})


def link_best(folder: Path, budgets: Sequence[float]) -> None:
    """Have `best.safetensors` be the snapshot with the lowest held-out loss, if there is one."""
    losses = {
        budget: loss
        for budget in budgets
        if loss_path(folder, budget).exists() and snapshot_path(folder, budget).exists()
        if math.isfinite(loss := read_row(folder, budget)["loss"])
    }
    if losses:
        best = min(losses, key=lambda budget: losses[budget])
        checkpoint.link(snapshot_path(folder, best), folder / BEST)


def play_games(
    config: RunConfig,
    budget: float,
    games: int,
    bench: Bench,
    device: str,
    runs: Path,
    outbox: Outbox,
) -> None:
    """Play the evaluation games of a snapshot, unless they have been, and hand over its row."""
    folder = runs / config.run_id
    with alone(folder, f"{budget:g}.lock"):
        row = read_row(folder, budget)
        path = episodes_path(folder, budget)
        remove_leftovers(folder, f".{path.name}.*.tmp")
        if not path.exists():
            demonstrations = bench.demonstrations_for(config)
            agent, _, _ = load_snapshot(
                snapshot_path(folder, budget), demonstrations.fields, demonstrations.actions
            )
            played = bench.play(agent.to(device).eval(), config.protocol, games)
            key = {name: row[name] for name in ("run_id", "samples", "budget")}
            write_parquet(path, played.assign(**key))
            outbox.file(path)
        returns = read_episodes(path)["return"]
        measured = {
            "mean_return": float(returns.mean()),
            "return_se": float(returns.std(ddof=1) / len(returns) ** 0.5),
            "episodes": len(returns),
            "protocol": config.protocol,
        }
        outbox.row(row | measured)


def loss_path(folder: Path, budget: float) -> Path:
    return folder / f"{budget:g}.loss.json"


def episodes_path(folder: Path, budget: float) -> Path:
    return folder / f"{budget:g}.episodes.parquet"


def read_row(folder: Path, budget: float) -> dict[str, Any]:
    """The run-log row of a snapshot, without its returns.

    Raises:
        TrainError: the file is damaged.
    """
    path = loss_path(folder, budget)
    try:
        row = json.loads(path.read_text())
        missing = {"run_id", "budget", "loss", "config_hash"} - set(row)
    except (ValueError, TypeError) as error:
        raise TrainError(
            f"{path}: damaged ({error}); delete it to measure the loss again"
        ) from error
    if missing:
        raise TrainError(f"{path}: lacks {', '.join(missing)}; delete it to measure the loss again")
    return row


def read_episodes(path: Path) -> pd.DataFrame:
    """The evaluation games of a snapshot, one row a game.

    Raises:
        TrainError: the file is damaged.
    """
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise TrainError(
            f"{path}: damaged ({error}); delete it, and the games are played again"
        ) from error


def alone(folder: Path, name: str = "lock", patience: float = 30.0) -> AbstractContextManager[None]:
    """Hold the folder for this process: an orphan of a killed sweep may still be letting go."""
    busy = f"{folder}: another process works on this run; wait for it, or end it"
    return held(folder / name, busy, patience)
