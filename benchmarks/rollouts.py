"""Rollouts of an agent against replay of its own keys, in one process of one thread.

    python benchmarks/rollouts.py [CHECKPOINT] [--games 128] [--steps 600] [--rounds 5]

Each round plays the games and then replays their keys, so that a busy machine slows both. Prints
medians over the rounds, in CPU time: environment steps a second with encoding and policy, steps a
second at which the same games replay the same keys with neither, the ratio and its spread, and
what environment, encoding and policy cost by themselves. Opening and starting games is left out of
all. Without a checkpoint the agent is untrained, of 28,000 parameters, and presses moves; a trained
one plays longer games of costlier screens.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import numpy as np
import torch

from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import load_snapshot
from training_backend.rollouts import LANES, Timing, play_games, replay
from training_backend.sizing import size_for_params
from training_backend.tasks import nethack
from training_backend.tasks.nethack_protocol import PROTOCOLS, TUNING_SEEDS

PARTS = ("environment", "encoding", "policy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--games", type=int, default=LANES)
    parser.add_argument("--steps", type=int, default=600, help="step cap of a game")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.checkpoint:
        agent, _, _ = load_snapshot(options.checkpoint, nethack.FIELDS, nethack.ACTIONS)
    else:
        torch.manual_seed(0)
        width = size_for_params(nethack.FIELDS, nethack.ACTIONS, 28e3, "lstm").width
        agent = Agent(nethack.FIELDS, nethack.ACTIONS, width, "lstm")
        with torch.no_grad():
            agent.head.bias[:8] += 5
            agent.head.bias[nethack.KEYS.index(13)] += 5
    protocol = dataclasses.replace(PROTOCOLS["nethack-monk"], max_steps=options.steps)
    seeds = TUNING_SEEDS[: options.games]
    agent.eval()
    rates, costs, steps = [], [], 0
    for _ in range(options.rounds):
        played, replayed = Timing(), Timing()
        episodes = play_games(agent, protocol, seeds, timing=played)
        replay(episodes, replayed)
        steps = sum(episode.steps for episode in episodes)
        rates.append((steps / played.total, steps / replayed.total))
        costs.append([getattr(played, part) / steps * 1e6 for part in PARTS])
    params = sum(parameter.numel() for parameter in agent.parameters())
    rollouts, replays = np.median(rates, axis=0)
    ratios = np.sort([with_policy / without for with_policy, without in rates])
    print(
        f"agent of {params:,} parameters, {len(seeds)} games of {steps:,} steps in all, "
        f"{options.rounds} rounds, CPU time"
    )
    print(f"rollouts       {rollouts:10,.0f} steps/s")
    print(f"replay         {replays:10,.0f} steps/s")
    print(f"ratio          {np.median(ratios):10.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]")
    for part, cost in zip(PARTS, np.median(costs, axis=0), strict=True):
        print(f"{part:14s} {cost:10.1f} us a step")


if __name__ == "__main__":
    sys.exit(main())
