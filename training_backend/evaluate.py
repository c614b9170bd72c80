"""What an agent is worth: loss on held-out games, returns of its own, and a look at one of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from training_backend.rollouts import Episode, Games, play_games
from training_backend.shards import HeldOut, Shards
from training_backend.tasks import nethack
from training_backend.tasks.nethack_protocol import PROTOCOLS, Protocol

if TYPE_CHECKING:
    from training_backend.models import Agent

_CHUNK = 64


def held_out_loss(agent: "Agent", held_out: Shards | HeldOut) -> tuple[float, float]:
    """Cross-entropy on held-out games [nats/action] and its standard error over games.

    Every game counts the same, however long it is: the loss is the mean over games of each game's
    mean over its frames. `Shards` stands for its `held_out()` frames.
    """
    import torch
    from torch.nn import functional

    frames = held_out.held_out() if isinstance(held_out, Shards) else held_out
    steps, games = frames.counts.shape
    state = agent.initial_state(games)
    device = state[0].device
    sums = torch.zeros(games, dtype=torch.float64)
    with torch.inference_mode():
        for start in range(0, steps, _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = {
                name: torch.from_numpy(array[part]).to(device)
                for name, array in frames.arrays.items()
            }
            logits, state = agent(chunk, state, chunk["reset"])
            losses = functional.cross_entropy(
                logits.flatten(0, 1), chunk["action"].flatten().long(), reduction="none"
            ).view(-1, games)
            counted = torch.from_numpy(frames.counts[part])
            sums += torch.where(counted, losses.cpu().double(), 0.0).sum(0)
    means = sums.numpy() / frames.counts.sum(0)
    return float(means.mean()), float(means.std(ddof=1) / np.sqrt(games))


def evaluate_returns(
    agent: "Agent",
    protocol: Protocol,
    games: int,
    *,
    workers: int = 1,
    seed: int = 0,
) -> pd.DataFrame:
    """Play the first `games` games of a protocol; one row an episode.

    Columns: episode (number of the game), seed (of the game), return [points], length [keys] and
    ending ("over", "cap" or "stalled"). The result depends on agent, protocol, games and the
    sampling seed alone, not on the number of processes.

    >>> frame = evaluate_returns(agent, PROTOCOLS["nethack-monk"], 200)  # doctest: +SKIP
    >>> frame["return"].mean(), frame["return"].sem()  # doctest: +SKIP
    """
    episodes = play_games(
        agent, protocol, protocol.seeds(games), workers=workers, sampling_seed=seed
    )
    return episode_frame(episodes)


def episode_frame(episodes: list[Episode]) -> pd.DataFrame:
    """Episodes as a table, in order."""
    return pd.DataFrame(
        {
            "episode": np.arange(len(episodes)),
            "seed": [episode.seed for episode in episodes],
            "return": [episode.points for episode in episodes],
            "length": [episode.steps for episode in episodes],
            "ending": [episode.ending for episode in episodes],
        }
    )


def play(
    checkpoint: Path,
    *,
    seed: int = 3_000_000,
    protocol: Protocol = PROTOCOLS["nethack-monk"],
    delay: float = 0.05,
    show: Callable[[str], None] = print,
) -> Episode:
    """Let the agent of a checkpoint play one game and show it, a screen for every key.

    Parameters
    ----------
    checkpoint
        A snapshot of a training run.
    seed
        Seed of the game.
    protocol
        When the game is cut, and the sampling temperature.
    delay
        Pause after each screen [s].
    show
        What is given the screens, as text with ANSI colours.

    Raises `TrainError` for a file that holds no agent.
    """
    from nle import nethack as nle_nethack

    from training_backend.objectives.behaviour_cloning import load_snapshot

    agent, _, _ = load_snapshot(checkpoint, nethack.FIELDS, nethack.ACTIONS)

    def on_screen(games: Games) -> None:
        screen = nle_nethack.tty_render(games.chars[0], games.colors[0], games.cursor[0])
        show("\033[H\033[2J" + screen)
        time.sleep(delay)

    (episode,) = play_games(agent.eval(), protocol, [seed], on_screen=on_screen)
    return episode
