"""Training speed of NetHack agents, as ratios to what this device does in the same run.

    python benchmarks/training.py [--device cuda] [--quick] [--parts agents ladder waiting]
                                  [--agents lstm ...] [--out benchmarks/results [--add]]

* agents: counted training FLOP a second over the device's own matrix product (float32 on a CPU,
  bfloat16 on a GPU), by family, size and batch; the core alone (a transformer's blocks) and the
  whole agent with its encoder.
* ladder: the same runs trained one after another and as stacks of one size, both from the first
  weights to the last checkpoint.
* waiting: what a step takes longer with its chunks read from shards than with one that is there.

Each line alternates what it compares, so that a busy machine slows both; medians over the rounds
are printed, with their range. On a CPU one thread computes and its own CPU time is the clock. On a
GPU everything is computed as `scaling-train run --device cuda` does it. Observations are random.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from random_runs import Trainer, configure, fields_of, random_chunk, write_random_shards
from timing import FAILED, Clock, device_name, freeing, matrix_product, ratio

from training_backend.config import RunConfig
from training_backend.families import FAMILIES, find_family
from training_backend.loading import open_loader
from training_backend.memory import check_device
from training_backend.objectives.behaviour_cloning import train
from training_backend.shards import Shards
from training_backend.sizing import measure_size
from training_backend.stacking import train_stack
from training_backend.tasks import nethack

Line = tuple[str, float, int]
"""Family, N, samples a step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Amounts:
    """What is measured on a kind of device."""

    lines: tuple[Line, ...]
    """Agents to time: the batch of the rule, and larger ones."""
    seconds: float
    """Time for one measurement."""
    rounds: int
    ladder: tuple[float, ...]
    """Sizes of the ladder's lstm agents."""
    seeds: int
    """Runs of a size: a stack."""
    steps: int
    """Optimiser steps of each run."""
    side: int
    """Rows and columns of the matrices whose product is the yardstick."""


CPU = Amounts(
    lines=(
        ("lstm", 4e3, 256),
        ("lstm", 28e3, 512),
        ("lstm", 28e3, 2048),
        ("lstm", 100e3, 1024),
        ("lstm", 400e3, 1024),
        ("feedforward", 28e3, 512),
        ("transformer", 100e3, 1024),
        ("transformer", 400e3, 1024),
        ("screen-lstm", 400e3, 1024),
        ("screen-transformer", 400e3, 1024),
    ),
    seconds=0.6,
    rounds=4,
    ladder=(4e3, 12e3, 28e3),
    seeds=8,
    steps=25,
    side=1024,
)
GPU = Amounts(
    lines=(
        ("lstm", 28e3, 512),
        ("lstm", 1e6, 1024),
        ("lstm", 30e6, 1024),
        ("lstm", 30e6, 8192),
        ("lstm", 30e6, 32768),
        # from 31 million on their attention heads have 64 numbers, which suits a GPU, below that 32
        ("transformer", 31e6, 8192),
        ("transformer", 100e6, 16384),
        ("transformer", 300e6, 16384),
        ("screen-lstm", 30e6, 8192),
        ("screen-transformer", 31e6, 8192),
        ("screen-transformer", 100e6, 16384),
    ),
    seconds=0.7,
    rounds=5,
    ladder=(4e3, 12e3, 36e3, 110e3, 350e3, 1.2e6),
    seeds=6,
    steps=1000,
    side=8192,
)


def quick(amounts: Amounts) -> Amounts:
    """A few lines, shortly."""
    return replace(
        amounts,
        lines=amounts.lines[1:3],
        seconds=0.2,
        rounds=2,
        ladder=amounts.ladder[:1],
        seeds=4,
        steps=amounts.steps // 2,
    )


def measure_agents(amounts: Amounts, device: str) -> None:
    clock = Clock(device)
    product = matrix_product(device, amounts.side)
    yardstick = 2 * amounts.side**3
    print(
        f"counted FLOP a second over the matrix product's ({amounts.side} x {amounts.side}); "
        "[range]\n"
        "family                     N   batch chunk  samples/s  TFLOP/s  product   agent"
        "                core   computed in"
    )
    for family, params, batch in amounts.lines:
        with freeing(f"{family:20s} {params:9.0f} {batch:7d}"):
            config = configure(family, params, batch)
            size = measure_size(fields_of(family), nethack.ACTIONS, config.width, config.agent)
            core_flops = size.flops_by_component["core"]
            trainer, chunk = Trainer(config, device), random_chunk(config, device)
            rows = []
            with trainer.precision.active():
                core = trainer.core_step(chunk)
                for _ in range(amounts.rounds):
                    before = clock.rate(product, amounts.seconds / 2) * yardstick
                    samples = clock.rate(partial(trainer.step, chunk), amounts.seconds) * batch
                    alone = clock.rate(core, amounts.seconds / 2) * batch
                    after = clock.rate(product, amounts.seconds / 2) * yardstick
                    rate = (before + after) / 2
                    rows.append(
                        (
                            samples,
                            rate,
                            samples * size.flops_per_sample / rate,
                            alone * core_flops / rate,
                        )
                    )
            samples, rate, *_ = np.median(rows, 0)
            agent, alone = (ratio([row[i] for row in rows]) for i in (2, 3))
            print(
                f"{family:20s} {size.params:9d} {batch:7d} {config.chunk:5d} {samples:10.0f} "
                f"{samples * size.flops_per_sample / 1e12:8.3f} {rate / 1e12:8.3f}   {agent}  "
                f"{alone}  {trainer.describe()}"
            )
    print()


def measure_ladder(amounts: Amounts, device: str, folder: Path) -> None:
    """Runs of several sizes and seeds: one after another, as stacks of one, as one stack a size."""
    shards, clock = Shards(folder), Clock(device)
    ways = {"alone": train_alone, "stacks of one": train_ones, "stacks": train_together}
    print(
        f"lstm agents, {amounts.seeds} seeds of each size, {amounts.steps} optimiser steps a run, "
        "from the first weights\nto the last checkpoint, read from shards; seconds for all runs of "
        "a size, one after another alone, one\nafter another as stacks of one (on a GPU: a CUDA "
        "graph each), and as one stack\n        N   batch      alone  stacks of one   one stack   "
        "alone / one stack"
    )
    totals = []
    for params in (amounts.ladder[0], *amounts.ladder):
        batch = 256 if params < 24e3 else 512
        config = configure("lstm", params, batch, amounts.steps)
        config = replace(config, data=shards.fingerprint)
        configs = [replace(config, run_id=str(seed), seed=seed) for seed in range(amounts.seeds)]
        seconds = []
        for way in ways.values():
            with tempfile.TemporaryDirectory() as place:
                began = clock.now()
                way(configs, shards, [Path(place) / c.run_id for c in configs], device)
                seconds.append(clock.now() - began)
        totals.append(seconds)
        if len(totals) > 1:  # the first round pays for what is loaded and compiled once
            print_ladder(f"{config.params:9d} {batch:7d}", seconds)
    count = len(amounts.ladder) * amounts.seeds
    print_ladder(f"all {count:5d} runs   ", np.sum(totals[1:], 0).tolist())
    print()


def print_ladder(name: str, seconds: Sequence[float]) -> None:
    alone, ones, stack = seconds
    print(f"{name} {alone:10.2f} {ones:14.2f} {stack:11.2f} {alone / stack:19.2f}")


def train_alone(
    configs: Sequence[RunConfig], shards: Shards, folders: Sequence[Path], device: str
) -> None:
    for config, folder in zip(configs, folders, strict=True):
        train(config, shards, folder, device=device)


def train_ones(
    configs: Sequence[RunConfig], shards: Shards, folders: Sequence[Path], device: str
) -> None:
    for config, folder in zip(configs, folders, strict=True):
        train_stack([config], shards, [folder], device=device)


def train_together(
    configs: Sequence[RunConfig], shards: Shards, folders: Sequence[Path], device: str
) -> None:
    train_stack(configs, shards, folders, device=device)


def measure_waiting(amounts: Amounts, device: str, folder: Path) -> None:
    clock, shards = Clock(device), Shards(folder)
    print(
        "share of a step that is reading its chunk, from the rates with and without; and as seen\n"
        "by the loop\nfamily                     N   batch  share [range]            loop waits"
    )
    lines = [line for line in amounts.lines if find_family(line[0]).observation == "features"]
    for family, params, batch in lines:
        with freeing(f"{family:20s} {params:9.0f} {batch:7d}"):
            config = configure(family, params, batch)
            trainer, chunk = Trainer(config, device), random_chunk(config, device)
            stream = shards.stream(config.lanes, config.chunk, seed=0)
            shares, waits = [], []
            with trainer.precision.active(), open_loader(stream, device=device) as load:
                for _ in range(amounts.rounds):
                    free = clock.rate(partial(trainer.step, chunk), amounts.seconds)
                    began, before = time.perf_counter(), load.waited
                    fed = clock.rate(partial(trainer.step_of, load), amounts.seconds)
                    waits.append((load.waited - before) / (time.perf_counter() - began))
                    shares.append(1 - fed / free)
            print(
                f"{family:20s} {config.params:9d} {batch:7d}  {ratio(shares)}   "
                f"{np.median(waits):9.4f}"
            )
    print()


class _Tee:
    """Writes to the terminal and to a file."""

    def __init__(self, *targets: Any) -> None:
        self._targets = targets

    def write(self, text: str) -> None:
        for target in self._targets:
            target.write(text)
            target.flush()

    def flush(self) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="a few lines, shortly")
    parser.add_argument(
        "--parts",
        nargs="+",
        default=["agents", "ladder", "waiting"],
        choices=["agents", "ladder", "waiting"],
    )
    parser.add_argument("--agents", nargs="+", choices=FAMILIES, help="these families alone")
    parser.add_argument("--out", type=Path, help="folder for training_<device>.txt")
    parser.add_argument("--add", action="store_true", help="go on with the file that is there")
    options = parser.parse_args()
    device = options.device
    check_device(device)
    on_cuda = torch.device(device).type == "cuda"
    amounts = GPU if on_cuda else CPU
    amounts = quick(amounts) if options.quick else amounts
    if options.agents:
        lines = tuple(line for line in amounts.lines if line[0] in options.agents)
        amounts = replace(amounts, lines=lines)
    if not on_cuda:
        torch.set_num_threads(1)
    name = torch.cuda.get_device_name(device).replace(" ", "_") if on_cuda else "cpu"
    with tempfile.TemporaryDirectory() as folder:
        targets: list[Any] = [sys.stdout]
        if options.out is not None:
            targets.append((options.out / f"training_{name}.txt").open("a" if options.add else "w"))
        with redirect_stdout(_Tee(*targets)):  # type: ignore[type-var]
            print(f"# python {' '.join(sys.argv)}")
            print(f"{device_name(device)}; torch {torch.__version__}\n")
            write_random_shards(Path(folder), 400_000 if on_cuda else 100_000)
            if "agents" in options.parts:
                measure_agents(amounts, device)
            if "ladder" in options.parts:
                measure_ladder(amounts, device, Path(folder))
            if "waiting" in options.parts:
                measure_waiting(amounts, device, Path(folder))
    if FAILED:
        sys.exit(f"{len(FAILED)} lines could not be measured")


if __name__ == "__main__":
    main()
