"""A small source of demonstrations that can be learned, partly only with memory."""

from collections.abc import Mapping
from copy import copy
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch.nn import functional as F

from training_backend.jobs import Bench
from training_backend.models import Agent
from training_backend.tasks.fields import Field

ACTIONS = 7
FIELDS = (
    Field(name="cells", shape=(3, 3), dtype="uint8", vocabulary=20),
    Field(name="previous", shape=(), dtype="uint8", vocabulary=ACTIONS + 1),
    Field(name="status", shape=(4,), dtype="uint8", scale=16.0),
)


class MarkovSource:
    """Games whose action follows from the centre cell now and two steps ago, with 10 % noise.

    Every action that is no noise scores 10 points, so a game's score grows with its length.
    """

    def __init__(self, games: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.fields, self.actions, self.fingerprint = FIELDS, ACTIONS, f"markov-{games}-{seed}"
        self.starts = np.concatenate([[0], np.cumsum(rng.integers(5, 300, games))])
        n = int(self.starts[-1])
        often = np.arange(1, 21) ** -1.0
        cells = rng.choice(20, size=(n, 3, 3), p=often / often.sum())
        self.columns: dict[str, Any] = {
            "cells": cells.astype(np.uint8),
            "status": rng.integers(0, 16, (n, 4)).astype(np.uint8),
        }
        centre = self.columns["cells"][:, 1, 1].astype(np.int64)
        remembered = np.where(np.arange(n) - self._game_start(n) >= 2, np.roll(centre, 2), 0)
        action = (centre + 3 * remembered) % ACTIONS
        noisy = rng.random(n) < 0.1
        action = np.where(noisy, rng.integers(0, ACTIONS, n), action)
        first = np.arange(n) == self._game_start(n)
        self.columns["previous"] = np.where(first, ACTIONS, np.roll(action, 1)).astype(np.uint8)
        self.columns["action"] = action.astype(np.uint8)
        self.columns["reset"] = first
        scored = np.cumsum(np.where(noisy, 0, 10))
        before = np.concatenate([[0], scored])[self.starts]
        self.scores = np.diff(before).astype(float)
        last = np.searchsorted(self.starts, np.arange(n), side="right")
        self._to_go = (before[last] - scored).astype(np.int32)

    def _game_start(self, n: int) -> np.ndarray:
        game = np.searchsorted(self.starts, np.arange(n), side="right") - 1
        return self.starts[game]

    def __len__(self) -> int:
        return int(self.starts[-1])

    def stream(self, batch: int, chunk: int, seed: int, *, returns: bool = False) -> "MarkovStream":
        return MarkovStream(self, batch, chunk, seed, returns)

    def returns_to_go(self) -> np.ndarray:
        return self._to_go

    def subset(self, games: np.ndarray) -> "MarkovSource":
        rows = np.concatenate([np.arange(*self.starts[g : g + 2]) for g in games])
        part = copy(self)
        part.starts = np.concatenate([[0], np.cumsum(np.diff(self.starts)[games])])
        part.columns = {name: column[rows] for name, column in self.columns.items()}
        part.scores, part._to_go = self.scores[games], self._to_go[rows]
        part.fingerprint = f"{self.fingerprint}-{'.'.join(map(str, games))}"
        return part


class MarkovStream:
    """Lanes through the source at evenly spaced, seeded places; wraps round at its end."""

    def __init__(
        self, source: MarkovSource, batch: int, chunk: int, seed: int, returns: bool
    ) -> None:
        self.source, self.chunk = source, chunk
        self.columns = source.columns | ({"to_go": source.returns_to_go()} if returns else {})
        n = len(source)
        self.places = (np.arange(batch) * n // batch + np.random.default_rng(seed).integers(n)) % n

    def __getitem__(self, step: int, /) -> Mapping[str, Any]:
        rows = (self.places + step * self.chunk + np.arange(self.chunk)[:, None]) % len(self.source)
        chunk = {name: column[rows] for name, column in self.columns.items()}
        if step == 0:
            chunk["reset"] = chunk["reset"].copy()
            chunk["reset"][0] = True
        return chunk


def held_out_loss(agent: Agent) -> tuple[float, float]:
    """Loss and standard error over 20 lanes of games that training did not see."""
    chunk = MarkovSource(seed=1).stream(20, 150, seed=0)[0]
    place = agent.embedding.device
    tensors = {name: torch.from_numpy(column).to(place) for name, column in chunk.items()}
    with torch.no_grad():
        logits, _ = agent(tensors, agent.initial_state(20), tensors["reset"])
    targets = tensors["action"].long()
    loss = F.cross_entropy(logits.movedim(-1, 1), targets, reduction="none").mean(0)
    return float(loss.mean()), float(loss.std() / 20**0.5)


def play(agent: Agent, protocol: str, games: int) -> pd.DataFrame:
    """Stands for games whose return falls with the loss."""
    rng = np.random.default_rng(len(protocol))
    returns = rng.poisson(100 / held_out_loss(agent)[0], games)
    return pd.DataFrame({"episode": np.arange(games), "return": returns, "length": 10})


def measure(agent: Agent) -> dict[str, float]:
    """The columns of the run log that `held_out_loss` measures."""
    loss, loss_se = held_out_loss(agent)
    return {"loss": loss, "loss_se": loss_se}


def open_source(observation: str) -> MarkovSource:
    """The training games; there is one observation."""
    return MarkovSource()


BENCH = Bench(open_demonstrations=open_source, held_out_loss=measure, play=play)
