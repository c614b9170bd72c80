"""Rollouts of an agent against replay of its own keys, in one process of one thread.

    python benchmarks/rollouts.py [CHECKPOINT] [--games 64] [--steps 1500]

Prints, from one run: environment steps a second with encoding and policy, steps a second at which
the same games replay the same keys with neither, and the ratio; and what encoding and policy cost
by themselves. Without a checkpoint the agent is untrained, of 28,000 parameters, and presses moves;
a trained one plays longer games of costlier screens.
"""

import argparse
import dataclasses
import sys
from pathlib import Path

import torch

from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import load_snapshot
from training_backend.rollouts import Timing, play_games, replay
from training_backend.sizing import size_for_params
from training_backend.tasks import nethack
from training_backend.tasks.nethack_protocol import PROTOCOLS, TUNING_SEEDS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", nargs="?", type=Path)
    parser.add_argument("--games", type=int, default=64)
    parser.add_argument("--steps", type=int, default=1500, help="step cap of a game")
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
    timing = Timing()
    episodes = play_games(agent.eval(), protocol, seeds, timing=timing)
    steps = sum(episode.steps for episode in episodes)
    replayed = Timing()
    replay(episodes, replayed)
    params = sum(parameter.numel() for parameter in agent.parameters())
    rates = {
        name: steps / seconds
        for name, seconds in (("rollouts", timing.total), ("replay", replayed.total))
    }
    print(f"agent of {params:,} parameters, {len(seeds)} games, {steps:,} steps, CPU time")
    print(f"rollouts       {rates['rollouts']:10,.0f} steps/s")
    print(f"replay         {rates['replay']:10,.0f} steps/s")
    print(f"ratio          {rates['rollouts'] / rates['replay']:10.2f}")
    for name in ("environment", "encoding", "policy"):
        print(f"{name:14s} {getattr(timing, name) / steps * 1e6:10.1f} us a step")


if __name__ == "__main__":
    sys.exit(main())
