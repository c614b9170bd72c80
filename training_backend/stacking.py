"""Runs of one size trained side by side as one model: what a GPU needs to be busy with small ones.

A step of a small agent is some hundred launches of kernels that have next to nothing to do. K runs
that differ in seed and learning rate alone take the same launches once: their parameters get a
leading run dimension, every matrix product becomes a batched one, and each run keeps its own data,
learning rate, gradient norm and fate. What `train` leaves in a run's folder a stack leaves too, and
a run may go on alone, in the same stack or in another one.

Shapes: K runs, T steps of a chunk, B lanes.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scaling_analysis import TrainError
from training_backend.config import RunConfig
from training_backend.families import find_family
from training_backend.loading import Columns, gather, open_loader, resident_columns
from training_backend.objectives import behaviour_cloning
from training_backend.objectives.behaviour_cloning import (
    LOSS_EVERY,
    end_leg,
    is_behind,
    leg_file,
    open_stream,
    rate_at,
)
from training_backend.objectives.training_state import Outcome, TrainingState
from training_backend.precision import BF16_PARAMS, COMPILED_PARAMS, choose_precision
from training_backend.stack import Stack
from training_backend.tasks.fields import Demonstrations

Feed = Callable[[int], Mapping[str, Tensor]]
"""Step -> what the runs read at it: the fields, `action` and `reset`, each (K, T, B, ...)."""


def stacks_of(configs: Sequence[RunConfig], most: int) -> list[list[RunConfig]]:
    """Runs that are best trained as one model, in groups of at most `most`, in the order given.

    They may differ in name, seed, learning rate, warm-up and protocol, and in nothing else. Large
    agents whose parts are compiled, which those of a stack are not, stay alone.
    """
    if most < 1:
        raise ValueError(f"most={most}: a stack holds at least one run")
    groups: dict[RunConfig, list[RunConfig]] = {}
    for config in configs:
        groups.setdefault(_kind(config), []).append(config)
    stacks = []
    for kind, group in groups.items():
        family = find_family(kind.agent)
        scanned = family.core == "lstm" and family.observation == "features"
        size = most if kind.params < COMPILED_PARAMS or scanned else 1
        stacks += [group[start : start + size] for start in range(0, len(group), size)]
    return stacks


def pays_alone(config: RunConfig, device: str) -> bool:
    """Whether even a single run is best trained as a stack, of one: on a GPU, where its step is
    many small kernels, which a CUDA graph starts at once. So are small agents, and LSTMs."""
    small = config.params < BF16_PARAMS or find_family(config.agent).core == "lstm"
    return torch.device(device).type == "cuda" and small


def _kind(config: RunConfig) -> RunConfig:
    """What runs of a stack have in common."""
    return replace(config, run_id="", seed=0, learning_rate=0.0, warmup_steps=0, protocol="")


def train_stack(
    configs: Sequence[RunConfig],
    demonstrations: Demonstrations,
    folders: Sequence[Path],
    *,
    device: str = "cpu",
    on_step: Callable[[int], None] = lambda steps: None,
) -> list[Outcome]:
    """Train runs as one model, or go on with them where their folders say they stopped.

    Each run's losses are those of `behaviour_cloning.train`, up to rounding, and so is what it
    leaves in its folder. Runs that stopped at different steps wait for those behind them; a run
    that diverges stops, and the others go on.

    Args:
        configs: runs that `stacks_of` puts together.
        demonstrations: what their `data` names (`games.used_games`).
        folders: each run's own.
        device: where to compute, as PyTorch names it.
        on_step: called with the steps that all runs have taken together after each; may raise to
            stop them.

    Returns:
        Of each run, how it ended.

    Raises:
        TrainError: the runs are not of one kind, a folder holds another run, these are not their
            demonstrations, or the disk is full.
    """
    _check(configs, demonstrations)
    fields, actions = demonstrations.fields, demonstrations.actions
    runs = [
        TrainingState(config, fields, actions, folder, device)
        for config, folder in zip(configs, folders, strict=True)
    ]
    for run in runs:
        run.load()
    on_cuda = torch.device(device).type == "cuda"
    precision = choose_precision(device, configs[0].params, find_family(configs[0].agent).core)
    stack = Stack(runs, precision=precision, graph=on_cuda)
    notes = (
        stack.precision.describe(),
        "CUDA graph" if on_cuda else "",
        f"stack of {len(runs)}" if len(runs) > 1 else "",
    )
    for run in runs:
        run.computing = ", ".join(filter(None, notes))
    last_kept = time.monotonic()
    with precision.active(), _open_feed(configs, demonstrations, device) as feed:
        for leg in configs[0].legs:
            here = [run for run in runs if run.status == "ok" and not is_behind(leg, run)]
            if leg.cools:
                for run in here:
                    run.load(leg_file(leg))
                    stack.adopt(run)
            while behind := [run for run in here if run.status == "ok" and run.steps < leg.end]:
                step = min(run.steps for run in behind)
                asked = time.monotonic()
                chunk = feed(step)
                for run in behind:
                    run.data_seconds += time.monotonic() - asked
                going = [run in behind and run.steps == step for run in runs]
                stack.step(chunk, going, [rate_at(run.config, leg, step) for run in runs])
                if not on_cuda or step % LOSS_EVERY == 0 or step == leg.end - 1:
                    for number, loss in stack.lost().items():
                        stack.settle(runs[number])
                        runs[number].diverge(loss)
                    if time.monotonic() - last_kept > behaviour_cloning.CHECKPOINT_SECONDS:
                        for run in behind:
                            if run.status == "ok":
                                stack.settle(run)
                                run.keep(leg_file(leg))
                        last_kept = time.monotonic()
                on_step(sum(run.steps for run in runs))
            for run in here:
                if run.status == "ok":
                    stack.settle(run)
                    end_leg(leg, run)
                    stack.adopt(run)
            last_kept = time.monotonic()
    return [run.outcome() for run in runs]


def _check(configs: Sequence[RunConfig], demonstrations: Demonstrations) -> None:
    if len({_kind(config) for config in configs}) != 1:
        names = ", ".join(config.run_id for config in configs) or "none"
        raise TrainError(
            f"runs {names}: a stack takes runs that differ in seed and learning rate alone; group "
            "them with `stacks_of`"
        )
    if demonstrations.fingerprint != configs[0].data:
        raise TrainError(
            f"run {configs[0].run_id}: planned for the demonstrations {configs[0].data}, these are "
            f"{demonstrations.fingerprint}; plan it again, or open those"
        )


@contextmanager
def _open_feed(
    configs: Sequence[RunConfig], demonstrations: Demonstrations, device: str
) -> Iterator[Feed]:
    """What all runs read at a step; runs with the same seed read the same games once."""
    seeds = list(dict.fromkeys(config.seed for config in configs))
    of_run = [seeds.index(config.seed) for config in configs]
    streams: list[Any] = [
        open_stream(replace(configs[0], seed=seed), demonstrations) for seed in seeds
    ]
    returns = find_family(configs[0].agent).objective == "returns"
    columns = resident_columns(demonstrations, device, returns)
    with ExitStack() as held:
        if columns is not None:
            yield lambda step: _gather(streams, of_run, columns, step)
            return
        loaders = [held.enter_context(open_loader(s, device=device)) for s in streams]

        def read(step: int) -> Mapping[str, Tensor]:
            chunks = [loader[step] for loader in loaders]
            return {
                name: torch.stack([chunks[i][name] for i in of_run])
                for name in chunks[0]
                if name != "reset_host"
            }

        yield read


def _gather(
    streams: Sequence[Any], of_run: Sequence[int], columns: Columns, step: int
) -> dict[str, Tensor]:
    """The runs' chunks of a step from columns that lie on the device: only row numbers travel."""
    found = [stream.rows(step) for stream in streams]
    rows, resets = (np.stack([found[i][part] for i in of_run]) for part in (0, 1))
    chunk = gather(columns, rows, resets)
    chunk.pop("reset_host", None)
    return chunk
