"""Training speed of NetHack agents, as a share of what this machine's matrix product reaches.

    python benchmarks/training.py [--shards FOLDER] [--seconds 4]

Prints, for agents of several sizes, the counted training FLOP a second of one process with one
torch thread, over the float32 matrix-product rate of the same thread measured in the same seconds.
"""

import argparse
import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from training_backend.models import Agent
from training_backend.objectives.behaviour_cloning import optimise
from training_backend.shards import Shards
from training_backend.sizing import size_for_params
from training_backend.tasks import nethack
from training_backend.tasks.fields import Stream

SIZES = ((4e3, 256), (28e3, 512), (28e3, 2048), (100e3, 1024), (400e3, 1024), (400e3, 2048))
"""(params, batch) to time, the rule's batch and a larger one; the aim is .25 at 28k, .5 at 400k."""
CHUNK = 32
GAME_STEPS = 1500
ROUNDS = 5


class RandomScreens:
    """Chunks of random observations; a game ends every `GAME_STEPS` steps of a lane."""

    def __init__(self, lanes: int) -> None:
        rng = np.random.default_rng(0)
        self.arrays: dict[str, Any] = {
            field.name: rng.integers(
                0, field.vocabulary or 2, (CHUNK, lanes, *field.shape), dtype=field.dtype
            )
            for field in nethack.FIELDS
        }
        self.arrays["action"] = rng.integers(0, nethack.ACTIONS, (CHUNK, lanes), dtype=np.uint8)
        self.resets = rng.random((64, CHUNK, lanes)) < 1 / GAME_STEPS

    def __getitem__(self, step: int, /) -> Mapping[str, Any]:
        return self.arrays | {"reset": self.resets[step % len(self.resets)]}


def matrix_product_rate(seconds: float) -> float:
    """Float32 FLOP a second of products of two 1024 x 1024 matrices on one thread."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        torch.mm(a, b)
        count += 1
    return 2 * 1024**3 * count / (time.perf_counter() - start)


def training_rate(params: float, batch: int, stream: Stream, seconds: float) -> tuple[int, float]:
    """N, and samples a second."""
    size = size_for_params(nethack.FIELDS, nethack.ACTIONS, params)
    torch.manual_seed(0)
    agent = Agent(nethack.FIELDS, nethack.ACTIONS, size.width)
    optimiser = torch.optim.Adam(agent.parameters(), lr=1e-4, fused=True)
    state, step, start = agent.initial_state(batch // CHUNK), -3, time.perf_counter()
    while step < 0 or time.perf_counter() - start < seconds:
        if step == 0:
            start = time.perf_counter()
        chunk = {k: torch.from_numpy(v) for k, v in stream[step + 3].items()}
        _, state = optimise(agent, optimiser, chunk, state, 1.0)
        step += 1
    return size.params, step * batch / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shards", type=Path, help="train on these instead of random screens")
    parser.add_argument("--seconds", type=float, default=4.0, help="time for each line")
    options = parser.parse_args()
    torch.set_num_threads(1)
    shards = None if options.shards is None else Shards(options.shards)
    print(f"{platform.machine()}, torch {torch.__version__}, one thread, chunks of {CHUNK} steps")
    print("      N  batch  samples/s  GFLOP/s  matrix product  ratio [spread over rounds]")
    for params, batch in SIZES:
        lanes = batch // CHUNK
        stream = RandomScreens(lanes) if shards is None else shards.stream(lanes, CHUNK, 0)
        rates = []
        for _ in range(ROUNDS):  # alternate, so that a busy machine slows both
            product = matrix_product_rate(options.seconds / ROUNDS / 4)
            counted, samples = training_rate(params, batch, stream, options.seconds / ROUNDS)
            product = (product + matrix_product_rate(options.seconds / ROUNDS / 4)) / 2
            rates.append((samples, product))
        size = size_for_params(nethack.FIELDS, nethack.ACTIONS, params)
        samples, product = np.median(np.array(rates), axis=0)
        flops = samples * size.flops_per_sample
        ratios = sorted(s * size.flops_per_sample / p for s, p in rates)
        print(
            f"{counted:7d}  {batch:5d}  {samples:9.0f}  {flops / 1e9:7.1f}  {product / 1e9:14.1f}"
            f"  {np.median(ratios):5.2f} [{ratios[0]:.2f}, {ratios[-1]:.2f}]"
        )


if __name__ == "__main__":
    main()
