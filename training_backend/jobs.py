"""What one worker process of a sweep does: train a run, or play an agent's evaluation games.

Everything a job leaves is a file in the run's folder, so that a sweep killed at any moment finds
out from the files what is left to do:

    <run>/training.safetensors   where training stopped
    <run>/<budget>.safetensors   the agent at a budget
    <run>/<budget>.loss.json     its held-out loss
    <run>/<budget>.episodes.parquet  its evaluation games, where returns are measured

The run log's row is written last, by the job that completes it: it holds loss and return, exists
once, and `append_run` refuses a second one.
"""

import fcntl
import json
import math
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from scaling_analysis import RunLogError, TrainError, append_run
from training_backend.checkpoint import unwritable
from training_backend.config import RunConfig
from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import (
    Outcome,
    load_snapshot,
    snapshot_path,
    train,
)
from training_backend.sizing import measure_size
from training_backend.tasks.fields import Demonstrations


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What the agents of a sweep train on and are judged by; sent to the worker processes."""

    open_demonstrations: Callable[[], Demonstrations]
    """The training split. Opened in each process; memory-mapped files are shared between them."""
    held_out_loss: Callable[[Agent], tuple[float, float]]
    """Loss on the held-out games and its standard error [nats/action]."""
    play: Callable[[Agent, str, int], pd.DataFrame]
    """(agent, protocol, games) -> one row a game: episode, return, length."""
    protocol_id: Callable[[str], str] = str
    """The full name of a protocol, as the run log holds it: with its version and hash."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a sweep's results go."""

    log: Path
    """Run log (.csv or .jsonl)."""
    runs: Path
    """Folder that holds a folder a run."""

    def folder(self, config: RunConfig) -> Path:
        return self.runs / config.run_id


def train_run(
    config: RunConfig, bench: Bench, place: Place, device: str, progress: Callable[[float], None]
) -> None:
    """Train a run and measure the held-out loss of each snapshot; log rows that need no returns.

    Args:
        progress: called now and then with the FLOP spent so far.
    """
    folder = place.folder(config)
    with _alone(folder):
        demonstrations = bench.open_demonstrations()
        per_step = config.batch_size * config.flops_per_sample
        outcome = train(
            config,
            demonstrations,
            folder,
            device=device,
            on_step=lambda step: progress(step * per_step),
        )
        reached = [b for b in config.snapshots if snapshot_path(folder, b).exists()]
        for budget in reached:
            if not loss_path(folder, budget).exists():
                agent, _, about = load_snapshot(
                    snapshot_path(folder, budget), demonstrations.fields, demonstrations.actions
                )
                loss, loss_se = bench.held_out_loss(agent.eval())
                row = _row(config, demonstrations, about) | {"loss": loss, "loss_se": loss_se}
                write_json(loss_path(folder, budget), row)
            if not config.protocol:
                _log_row(place, read_row(folder, budget))
        if outcome.status == "diverged":
            _log_divergence(config, demonstrations, place, outcome, device)


def play_games(config: RunConfig, budget: float, games: int, bench: Bench, place: Place) -> None:
    """Play the evaluation games of a snapshot, unless they have been played, and log its row."""
    folder = place.folder(config)
    with _alone(folder, f"{budget:g}.lock"):
        row = read_row(folder, budget)
        path = episodes_path(folder, budget)
        if not path.exists():
            demonstrations = bench.open_demonstrations()
            agent, _, _ = load_snapshot(
                snapshot_path(folder, budget), demonstrations.fields, demonstrations.actions
            )
            played = bench.play(agent.eval(), config.protocol, games)
            key = {name: row[name] for name in ("run_id", "samples", "budget")}
            write_parquet(path, played.assign(**key))
        returns = pd.read_parquet(path)["return"]
        measured = {
            "mean_return": float(returns.mean()),
            "return_se": float(returns.std(ddof=1) / len(returns) ** 0.5),
            "episodes": len(returns),
            "protocol": config.protocol,
        }
        _log_row(place, row | measured)


def loss_path(folder: Path, budget: float) -> Path:
    return folder / f"{budget:g}.loss.json"


def episodes_path(folder: Path, budget: float) -> Path:
    return folder / f"{budget:g}.episodes.parquet"


def read_row(folder: Path, budget: float) -> dict[str, Any]:
    """The run-log row of a snapshot, without its returns."""
    return json.loads(loss_path(folder, budget).read_text())


def write_json(path: Path, content: dict[str, Any]) -> None:
    _replace(path, lambda beside: beside.write_text(json.dumps(content, indent=1)))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    _replace(path, lambda beside: frame.to_parquet(beside, index=False))


def _replace(path: Path, write: Callable[[Path], object]) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise TrainError(unwritable(path, error)) from error


def _row(
    config: RunConfig, demonstrations: Demonstrations, about: dict[str, Any]
) -> dict[str, Any]:
    samples = about["samples"]
    size = measure_size(demonstrations.fields, demonstrations.actions, config.width, config.agent)
    return {
        "run_id": config.run_id,
        "agent": config.agent,
        "task": config.task,
        "seed": config.seed,
        "params": size.params,
        "params_core": size.params_core,
        "samples": samples,
        "unique_samples": min(samples, len(demonstrations)),
        "epochs": round(samples / len(demonstrations), 4),
        "flops": about["flops"],
        "budget": about["budget"],
        "learning_rate": config.learning_rate,
        "batch_size": config.batch_size,
        "wall_seconds": round(about["wall_seconds"], 2),
        "device": _device_name(about["device"]),
        "git_commit": _git_commit(),
        "time_utc": about["time_utc"],
        "config_hash": config.hash,
    }


def _log_divergence(
    config: RunConfig,
    demonstrations: Demonstrations,
    place: Place,
    outcome: Outcome,
    device: str,
) -> None:
    """A row for each budget that the run never reached, so that the log shows what is missing."""
    samples = max(outcome.steps, 1) * config.batch_size
    about = {
        "samples": samples,
        "flops": samples * config.flops_per_sample,
        "wall_seconds": outcome.wall_seconds,
        "device": device,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    for step, budget in zip(config.snapshot_steps, config.snapshots, strict=True):
        if step > outcome.steps:
            row = _row(config, demonstrations, about | {"budget": budget})
            _log_row(place, row | {"loss": math.nan, "status": "diverged", "note": outcome.note})


def _log_row(place: Place, row: dict[str, Any]) -> None:
    """Add a row to the run log; where the disk refuses it, say that the run itself is kept."""
    try:
        append_run(place.log, **row)
    except RunLogError as error:
        if isinstance(error.__cause__, OSError):
            raise TrainError(unwritable(place.log, error.__cause__)) from error
        raise


@contextmanager
def _alone(folder: Path, name: str = "lock", patience: float = 10.0) -> Iterator[None]:
    """Hold the folder for this process: an orphan of a killed sweep may still be letting go."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / name).open("w")
    except OSError as error:
        raise TrainError(unwritable(folder, error)) from error
    with file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise TrainError(
                        f"{folder}: another process works on this run; wait for it, or end it"
                    ) from None
                time.sleep(0.2)
        yield


@cache
def _git_commit() -> str:
    """Commit of the checkout that this package runs from; empty for an installed one."""
    project = Path(__file__).resolve().parents[1]
    if not (project / ".git").exists():
        return ""
    git = ["git", "-C", str(project), "rev-parse", "HEAD"]
    try:
        return subprocess.run(git, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def _device_name(device: str) -> str:
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    return f"{device} {platform.machine()}"
