"""The bench of a task: its demonstrations on disk, its held-out loss, its evaluation games."""

import os
from functools import partial
from pathlib import Path

import pandas as pd

from scaling_analysis import TrainError
from training_backend.evaluate import evaluate_returns, held_out_losses
from training_backend.frames import FrameShards
from training_backend.jobs import Bench
from training_backend.models import Agent
from training_backend.rollouts import LANES
from training_backend.shards import Shards, Split
from training_backend.tasks.nethack_protocol import find_protocol
from training_backend.tasks.observations import find_observation

TRAIN, HELD_OUT = "train", "held_out"
"""Splits; recordings are in `<data>/<split>`, what training reads in `shards_folder`."""

_FOLDERS = {"features": "shards", "screen": "frames"}
_KINDS: dict[str, type[Split]] = {"features": Shards, "screen": FrameShards}

LOSS_GAMES = 128
"""Held-out games that the loss is measured on, where there are so many."""


def open_bench(task: str, data: Path) -> Bench:
    """What agents of a task train on and are judged by.

    Args:
        task: name of the task, as in a plan.
        data: folder that `scaling-train collect` made.

    Raises:
        TrainError: the task is not known, a split has no decoded demonstrations, or both splits
            have a game.
    """
    if task != "nethack":
        raise TrainError(f"task {task!r} is not known; this version trains: nethack")
    there = [name for name in _KINDS if shards_folder(data, TRAIN, name).exists()]
    for observation in there or ["features"]:
        train, held_out = (open_split(data, split, observation) for split in (TRAIN, HELD_OUT))
        if both := set(train.games) & set(held_out.games):
            raise TrainError(
                f"{train.folder}: holds {len(both)} of the held-out games, {min(both)} for one: "
                "a loss on games that agents learn from says nothing. Make both folders anew with "
                f"{train.made_by}"
            )
    return Bench(
        open_demonstrations=partial(open_split, data, TRAIN),
        held_out_loss=partial(_held_out_loss, data),
        play=_play,
        protocol_id=_protocol_id,
    )


def shards_folder(data: Path, split: str, observation: str = "features") -> Path:
    """Where a split's decoded demonstrations are, as agents with this observation see them."""
    return data / _FOLDERS[observation] / split


def open_split(data: Path, split: str, observation: str = "features") -> Split:
    """The demonstrations of a split, as agents with this observation see them.

    Raises:
        TrainError: they were not decoded, or a shard is missing.
    """
    return _KINDS[observation](shards_folder(data, split, observation))


def _held_out_loss(data: Path, agent: Agent) -> dict[str, float]:
    held_out = open_split(data, HELD_OUT, find_observation(agent.fields))
    return held_out_losses(agent, held_out.held_out(min(LOSS_GAMES, len(held_out.games))))


def _play(agent: Agent, protocol: str, games: int) -> pd.DataFrame:
    device = next(agent.parameters()).device
    workers = 1  # a sweep has a job a core already
    if device.type != "cpu":  # one device, many environments
        workers = min(os.cpu_count() or 1, -(-games // LANES))
    return evaluate_returns(agent, find_protocol(protocol), games, workers=workers)


def _protocol_id(name: str) -> str:
    return find_protocol(name).id
