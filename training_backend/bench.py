"""The bench of a task: its demonstrations on disk, its held-out loss, its evaluation games."""

from functools import partial
from pathlib import Path

import pandas as pd

from scaling_analysis import TrainError
from training_backend.evaluate import evaluate_returns, held_out_loss
from training_backend.jobs import Bench
from training_backend.models import Agent
from training_backend.shards import Shards
from training_backend.tasks.nethack_protocol import find_protocol

TRAIN, HELD_OUT = "train", "held_out"
"""Splits; recordings are in `<data>/<split>`, what training reads in `<data>/shards/<split>`."""

LOSS_GAMES = 128
"""Held-out games that the loss is measured on, where there are so many."""


def open_bench(task: str, data: Path) -> Bench:
    """What agents of a task train on and are judged by.

    Args:
        task: name of the task, as in a plan.
        data: folder that `scaling-train collect` made.

    Raises:
        TrainError: the task is not known, or a split has no decoded demonstrations.
    """
    if task != "nethack":
        raise TrainError(f"task {task!r} is not known; this version trains: nethack")
    for split in (TRAIN, HELD_OUT):
        Shards(shards_folder(data, split))
    return Bench(
        open_demonstrations=partial(Shards, shards_folder(data, TRAIN)),
        held_out_loss=partial(_held_out_loss, shards_folder(data, HELD_OUT)),
        play=_play,
        protocol_id=_protocol_id,
    )


def shards_folder(data: Path, split: str) -> Path:
    """Where a split's decoded demonstrations are."""
    return data / "shards" / split


def _held_out_loss(folder: Path, agent: Agent) -> tuple[float, float]:
    shards = Shards(folder)
    return held_out_loss(agent, shards.held_out(min(LOSS_GAMES, len(shards.games))))


def _play(agent: Agent, protocol: str, games: int) -> pd.DataFrame:
    return evaluate_returns(agent, find_protocol(protocol), games)


def _protocol_id(name: str) -> str:
    return find_protocol(name).id
