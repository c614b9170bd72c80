"""Runs of NetHack agents on random observations: what they compute, and not what they learn."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from training_backend.config import RunConfig
from training_backend.distributed import ALONE, Computation
from training_backend.families import find_family
from training_backend.loading import Loader
from training_backend.lstm import LSTM
from training_backend.objectives.behaviour_cloning import measure_loss, optimise
from training_backend.objectives.training_state import TrainingState
from training_backend.precision import BF16_PARAMS, choose_precision
from training_backend.recurrence import ScanLSTM
from training_backend.stack import Stack, record
from training_backend.stacking import pays_alone
from training_backend.tasks import nethack, nethack_screen

LONG_CHUNK = 128
"""Steps of a large transformer's chunk: its memory, so that half of a step's keys are its own."""
GAME_STEPS = 1500
"""Mean length of a game: how often a memory is cleared."""


def configure(family: str, params: float, batch: int, steps: int = 10**6) -> RunConfig:
    """A run of so many optimiser steps on no data in particular."""
    row = {"run_id": "a", "agent": family, "task": "nethack", "params": params, "seed": 0}
    config = RunConfig.from_plan_row(
        row | {"budget": 1e30, "batch_size": batch}, _Nothing(fields_of(family))
    )
    snapshots = (steps * batch * config.flops_per_sample,)
    long = find_family(family).core == "transformer" and config.params >= BF16_PARAMS
    chunk = min(LONG_CHUNK, batch) if long else config.chunk
    return replace(config, snapshots=snapshots, chunk=chunk)


def fields_of(family: str) -> Any:
    screen = find_family(family).observation == "screen"
    return nethack_screen.FIELDS if screen else nethack.FIELDS


class _Nothing:
    """Demonstrations as far as sizes depend on them."""

    actions, fingerprint = nethack.ACTIONS, "none"

    def __init__(self, fields: Any) -> None:
        self.fields = fields

    def __len__(self) -> int:
        return 10**9

    def stream(self, batch: int, chunk: int, seed: int) -> Any:
        raise NotImplementedError


def random_chunk(config: RunConfig, device: str) -> dict[str, Tensor]:
    """Random observations, actions and borders of games, (T, B, ...)."""
    rng, lead = np.random.default_rng(0), (config.chunk, config.lanes)
    arrays: dict[str, Any] = {
        field.name: rng.integers(
            0, min(field.vocabulary or 24, 256), (*lead, *field.shape), dtype=field.dtype
        )
        for field in fields_of(config.agent)
    }
    arrays["action"] = rng.integers(0, nethack.ACTIONS, lead, dtype=np.uint8)
    arrays["reset"] = rng.random(lead) < 1 / GAME_STEPS
    chunk = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return chunk | ({"reset_host": chunk["reset"].cpu()} if chunk["reset"].is_cuda else {})


class Trainer:
    """Steps of one run as a sweep takes them, without its files."""

    def __init__(self, config: RunConfig, device: str) -> None:
        self.precision = choose_precision(device, config.params, find_family(config.agent).core)
        with self.precision.computing(torch.device(device)):  # as `train` does: the memory's type
            self.run = TrainingState(
                config, fields_of(config.agent), nethack.ACTIONS, Path("unused"), device
            )
        if not pays_alone(config, device):
            self.precision.prepare(self.run.agent)
        self.computation = Computation(measure_loss, self.run.agent, self.precision, ALONE)
        self.config, self.on_cpu, self._read = config, device == "cpu", 0
        self._stack = None
        if pays_alone(config, device):
            self._stack = Stack([self.run], precision=self.precision, graph=True)

    def step(self, chunk: Mapping[str, Tensor]) -> None:
        run = self.run
        if self._stack is not None:
            part = {k: v.unsqueeze(0) for k, v in chunk.items() if k != "reset_host"}
            self._stack.step(part, [True], [self.config.learning_rate])
            return
        loss, run.memory = optimise(
            run.agent,
            run.optimiser,
            chunk,
            run.memory,
            self.config.clip,
            computation=self.computation,
        )
        if self.on_cpu:
            loss.item()
        run.steps += 1
        run.update_average()

    def describe(self) -> str:
        graph = "" if self._stack is None else "CUDA graph"
        precision = self.precision if self._stack is None else self._stack.precision
        return ", ".join(filter(None, [precision.describe(), graph])) or "float32"

    def step_of(self, load: Loader) -> None:
        """A step on the next chunk of a loader."""
        chunk = load[self._read]
        self._read += 1
        self.step(chunk)

    def core_step(self, chunk: Mapping[str, Tensor]) -> Callable[[], object]:
        """Forward and backward pass of the core alone, on inputs that are there.

        As in the whole step: where that is a CUDA graph, this is one too.
        """
        agent, memory = self.run.agent, self.run.memory
        core, device = agent.core, chunk["reset"].device
        if self._stack is not None and isinstance(core, LSTM):
            core = ScanLSTM(core)
        x = torch.randn(
            *chunk["action"].shape, agent.dimensions.hidden, device=device, requires_grad=True
        )
        wanted = [x, *core.parameters()]

        def step() -> None:
            with self.precision.computing(device):
                y, _ = core(x, memory, chunk["reset"])
            torch.autograd.grad(y, wanted, torch.ones_like(y), allow_unused=True)

        return step if self._stack is None else record(step).replay


def write_random_shards(folder: Path, frames: int) -> None:
    """Feature shards of random games."""
    import pyarrow as pa

    rng = np.random.default_rng(0)
    columns: dict[str, Any] = {
        field.name: rng.integers(
            0, field.vocabulary or 256, (frames, *field.shape), dtype=field.dtype
        )
        for field in nethack.FIELDS
    }
    columns["action"] = rng.integers(0, nethack.ACTIONS, frames, dtype=np.uint8)
    arrays = []
    for column in columns.values():
        flat = pa.array(column.reshape(-1))
        one = column.ndim == 1
        arrays.append(flat if one else pa.FixedSizeListArray.from_arrays(flat, column.shape[1]))
    lengths = [GAME_STEPS] * (frames // GAME_STEPS) + [frames % GAME_STEPS or GAME_STEPS]
    lengths = lengths if sum(lengths) == frames else lengths[:-1]
    about = {
        "encoding": nethack.ENCODING,
        "games": [
            {"name": str(i), "steps": length, "score": 0.0} for i, length in enumerate(lengths)
        ],
        "skipped": [],
        "hash": f"random {frames}",
    }
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    schema = batch.schema.with_metadata({"about": json.dumps(about)})
    with pa.OSFile(str(folder / "0.arrow"), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(batch.replace_schema_metadata(schema.metadata))
