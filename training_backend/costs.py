"""What a plan will take, before anything is spent: hours, epochs, memory and disk."""

import math
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from scaling_analysis import PlanError, ScalingWarning
from training_backend.checkpoint import KEPT
from training_backend.config import RunConfig
from training_backend.jobs import Bench
from training_backend.memory import GIGA, count_memory, explain, is_out_of_memory
from training_backend.objectives.behaviour_cloning import train
from training_backend.stacking import pays_alone, stacks_of, train_stack
from training_backend.sweep import LARGEST_STACK
from training_backend.tasks.fields import Demonstrations

MAX_EPOCHS = 16.0
"""Most epochs that a plan may ask for unless it is allowed more: with the fit of Muennighoff et al.
2023 (arXiv:2305.16264) for text, samples seen again are worth little from about here on."""
_TIMED = {"cpu": (1, 3), "cuda": (16, 48)}
"""Optimiser steps that are not timed, and the last one that is."""


def dry_run(
    configs: Sequence[RunConfig], bench: Bench, *, device: str = "cpu", micro_batches: int = 1
) -> pd.DataFrame:
    """What each run would be and cost, without training it.

    Returns:
        One row a run: run_id, width, params, flops_per_sample, batch_size, learning_rate, samples,
        epochs, hours (of one worker, from timing a few optimiser steps here, its share where runs
        are trained as a stack; playing the evaluation games comes on top; NaN, with a warning that
        says what fits, where a step of it runs out of memory), memory_gb (of the device
        while training), disk_gb (what the run leaves), snapshots, skipped.
    """
    seconds: dict[tuple[str, float, int], float] = {}
    memory: dict[tuple[str, float, int], float] = {}
    demonstrations = open_splits(configs, bench)
    rows = []
    for c in configs:
        kind, split = _kind(c), demonstrations[c.data]
        if kind not in seconds:
            alike = [
                replace(other, snapshots=c.snapshots, skipped=c.skipped)
                for other in configs
                if _kind(other) == kind and other.data == c.data
            ]
            stacked = device.startswith("cuda") and micro_batches == 1
            together, *_ = stacks_of(alike, LARGEST_STACK if stacked else 1)
            memory[kind] = count_memory(
                c, split.fields, split.actions, micro_batches=micro_batches
            ).total
            try:
                step = seconds_per_step(together, split, device, micro_batches)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                step = math.nan  # the run will fail so, and no other
                said = explain([c], split.fields, split.actions, device, micro_batches)
                warnings.warn(f"run {c.run_id}: {said}", ScalingWarning, stacklevel=2)
            seconds[kind] = step / len(together)
        rows.append(
            {
                "run_id": c.run_id,
                "width": c.width,
                "params": c.params,
                "flops_per_sample": c.flops_per_sample,
                "batch_size": c.batch_size,
                "learning_rate": c.learning_rate,
                "samples": c.samples,
                "epochs": c.samples / len(split),
                "hours": c.snapshot_steps[-1] * seconds[kind] / 3600,
                "memory_gb": memory[kind] / GIGA,
                "disk_gb": disk_bytes(c) / GIGA,
                "snapshots": ";".join(f"{b:g}" for b in c.snapshots),
                "skipped": ";".join(f"{b:g}" for b in c.skipped),
            }
        )
    return pd.DataFrame(rows)


def _kind(config: RunConfig) -> tuple[str, float, int]:
    return config.agent, config.width, config.batch_size


def open_splits(configs: Sequence[RunConfig], bench: Bench) -> Mapping[str, Demonstrations]:
    """The demonstrations that the runs are planned with, by fingerprint."""
    return {c.data: bench.demonstrations_for(c) for c in {c.data: c for c in configs}.values()}


def disk_bytes(config: RunConfig) -> float:
    """What a run leaves on the disk: an agent a budget, and the last training states [bytes]."""
    state = 4 * 4 * config.params  # weights, their average and Adam's moments
    return 4.0 * config.params * len(config.snapshots) + KEPT * state


def check_epochs(
    configs: Sequence[RunConfig],
    sizes: Mapping[str, int],
    limit: float,
    remedy: str = "allow it with --max-epochs {epochs}",
) -> None:
    """Refuse a plan that goes over its data more often than `limit` times.

    Args:
        configs: the runs.
        sizes: number of distinct samples of each data set, by fingerprint.
        limit: epochs.
        remedy: how to allow it; `{epochs}` stands for the epochs that the plan needs.

    Raises:
        PlanError: how many epochs the plan takes, and what can be done.
    """
    over = {c: epochs for c in configs if (epochs := c.samples / sizes[c.data]) > limit}
    if not over:
        return
    worst = max(over, key=lambda c: over[c])
    needed = math.ceil(worst.samples / limit)
    raise PlanError(
        f"the plan is larger than the data: {len(over)} of {len(configs)} runs go over them more "
        f"than {limit:g} times, run {worst.run_id} {over[worst]:.3g} times ({worst.samples:,} "
        f"samples, {sizes[worst.data]:,} distinct ones). Give {needed:,} transitions or more "
        f"(`scaling-train collect --games`), larger agents or smaller budgets, or "
        f"{remedy.format(epochs=math.ceil(over[worst] * 10) / 10)}"
    )


class _EnoughError(Exception):
    """Enough steps have been timed."""


def seconds_per_step(
    configs: Sequence[RunConfig],
    demonstrations: Demonstrations,
    device: str,
    micro_batches: int = 1,
) -> float:
    """Seconds of one optimiser step, by taking a few of the real loop with one thread [s].

    Of one run; of several, which differ in seed and learning rate alone, that of their stack.
    """
    skipped, last = _TIMED["cuda" if device.startswith("cuda") else "cpu"]
    times: list[float] = []

    def on_step(steps: int) -> None:
        step = steps // len(configs)
        if step in (skipped, last):
            if device.startswith("cuda"):
                torch.cuda.synchronize(device)
            times.append(time.perf_counter())
        if step == last:
            raise _EnoughError

    # one budget, far away: nothing is kept before the steps are timed
    step_flops = configs[0].batch_size * configs[0].flops_per_sample
    away = (1e3 * last * step_flops,)
    shorts = [replace(c, snapshots=away, skipped=(), protocol="") for c in configs]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / str(number) for number in range(len(shorts))]
            if len(shorts) > 1 or (micro_batches == 1 and pays_alone(shorts[0], device)):
                train_stack(shorts, demonstrations, folders, device=device, on_step=on_step)
            train(
                shorts[0],
                demonstrations,
                folders[0],
                device=device,
                micro_batches=micro_batches,
                on_step=on_step,
            )
    except _EnoughError:
        pass
    finally:
        torch.set_num_threads(threads)
    return (times[1] - times[0]) / (last - skipped)
