"""What an agent is worth: loss on held-out games, returns of its own, and a look at one of them."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from scaling_analysis import TrainError
from training_backend.families import find_family
from training_backend.rollouts import Episode, Games, play_games
from training_backend.shards import HeldOut, Split
from training_backend.tasks.nethack_protocol import PROTOCOLS, Protocol
from training_backend.tasks.observations import find_task

if TYPE_CHECKING:
    from training_backend.config import RunConfig
    from training_backend.models import Agent

_CHUNK = 64


def held_out_losses(agent: "Agent", held_out: Split | HeldOut) -> dict[str, float]:
    """Losses on held-out games, by their column in the run log.

    `loss` is the cross-entropy of the demonstrators' actions under the agent's policy
    [nats/action], whatever its objective, and `loss_se` its standard error over games; a
    return-conditioned agent adds the parts that it was trained on
    (`objectives.return_conditioned.frame_losses`), where the games' scores are known.

    Every game counts the same, however long it is: a loss is the mean over games of each game's
    mean over its frames. A `Split` stands for its `held_out()` frames.
    """
    import torch

    from training_backend.objectives.behaviour_cloning import frame_losses

    frames = held_out.held_out() if isinstance(held_out, Split) else held_out
    steps, games = frames.counts.shape
    state = agent.initial_state(games)
    device = next(agent.parameters()).device
    sums: dict[str, torch.Tensor] = {}
    with torch.inference_mode():
        for start in range(0, steps, _CHUNK):
            part = slice(start, start + _CHUNK)
            chunk = {
                name: torch.from_numpy(array[part]).to(device)
                for name, array in frames.arrays.items()
            }
            losses, state = frame_losses(agent, chunk, state)
            counted = torch.from_numpy(frames.counts[part])
            for name, of_frame in losses.items():
                sums.setdefault(name, torch.zeros(games, dtype=torch.float64))
                sums[name] += torch.where(counted, of_frame.cpu().double(), 0.0).sum(0)
    of_game = {name: total.numpy() / frames.counts.sum(0) for name, total in sums.items()}
    means = {name: float(losses.mean()) for name, losses in of_game.items()}
    return means | {"loss_se": float(of_game["loss"].std(ddof=1) / np.sqrt(games))}


def held_out_loss(agent: "Agent", held_out: Split | HeldOut) -> tuple[float, float]:
    """`loss` and `loss_se` of `held_out_losses`."""
    losses = held_out_losses(agent, held_out)
    return losses["loss"], losses["loss_se"]


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


def load_agent(path: Path) -> "tuple[Agent, RunConfig, dict[str, Any]]":
    """A snapshot's agent, whatever it sees, its run's configuration and what it had spent.

    Raises `TrainError` for a file that holds no agent of NetHack.
    """
    from training_backend import checkpoint
    from training_backend.config import RunConfig
    from training_backend.objectives.behaviour_cloning import load_snapshot

    _, about = checkpoint.load(path)
    if "budget" not in about or "config" not in about:
        raise TrainError(
            f"{path}: no agent that was kept at a budget; beside what training goes on from are "
            "such, as best.safetensors"
        )
    config = RunConfig.from_json(about["config"])
    task = find_task(find_family(config.agent).observation)
    return load_snapshot(path, task.FIELDS, task.ACTIONS)


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

    agent, _, _ = load_agent(checkpoint)

    def on_screen(games: Games) -> None:
        screen = nle_nethack.tty_render(games.chars[0], games.colors[0], games.cursor[0])
        show("\033[H\033[2J" + screen)
        time.sleep(delay)

    (episode,) = play_games(agent.eval(), protocol, [seed], on_screen=on_screen)
    return episode
