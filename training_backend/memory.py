"""Memory that training takes on its device, counted before it is spent, and what to do without it.

Per parameter there are the weight, its gradient, Adam's two moments and the snapshot's average, in
float32. To these come the tensors that the forward pass keeps for the backward pass: they grow with
the samples of a step, and training can take a step in micro-batches to keep fewer of them.
"""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch

from scaling_analysis import PlanError, TrainError
from training_backend.config import RunConfig
from training_backend.models import Agent
from training_backend.sizing import size_for_params
from training_backend.tasks.fields import Field

BYTES_A_PARAMETER = 4 * 5
"""Weight, gradient, two moments and average, in float32."""
CONTEXT = 0.6e9
"""What a process takes of a GPU before it computes anything [bytes]."""
GIGA = 1e9


class MemoryLimitError(TrainError):
    """A run needs more memory than its device has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a run takes of its device while it trains."""

    weights: float
    """Parameters, gradients, the optimiser's moments and the average [bytes]."""
    activations: float
    """Tensors kept for the backward pass, and the demonstrations of a step [bytes]."""

    @property
    def total(self) -> float:
        """[bytes]"""
        return self.weights + self.activations


def count_memory(
    config: RunConfig, fields: Sequence[Field], actions: int, *, micro_batches: int = 1
) -> Memory:
    """Count a run's memory on the meta device, where nothing is allocated.

    Buffers inside single operations are not seen, and kernels that keep other tensors than
    PyTorch's own composition do: the real peak lies within about a factor of two.

    Args:
        config: the run.
        fields: of its demonstrations.
        actions: number of actions.
        micro_batches: parts that a step's lanes are split into.
    """
    params, constant, of_lane = _kept(
        tuple(fields), actions, config.width, config.agent, config.chunk
    )
    lanes = math.ceil(config.lanes / micro_batches)
    return Memory(
        weights=float(BYTES_A_PARAMETER * params), activations=float(constant + lanes * of_lane)
    )


@lru_cache(maxsize=256)
def _kept(
    fields: tuple[Field, ...], actions: int, width: float, name: str, chunk: int
) -> tuple[int, int, int]:
    """Parameters [count], and bytes kept for a backward pass: without lanes, and each lane's."""
    with torch.device("meta"):
        agent = Agent(fields, actions, width, name)
        one, two = (_kept_bytes(agent, chunk, lanes) for lanes in (1, 2))
    params = sum(p.numel() for p in agent.parameters())
    return params, 2 * one - two, two - one


def _kept_bytes(agent: Agent, steps: int, lanes: int) -> int:
    """Bytes of the observations of a chunk, and of what autograd keeps of its forward pass."""
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    chunk = {
        f.name: torch.empty(steps, lanes, *f.shape, dtype=getattr(torch, f.dtype))
        for f in agent.fields
    }
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits, _ = agent(chunk, agent.initial_state(lanes))
        logits.flatten(0, 1).log_softmax(-1)
    for tensor in (*agent.parameters(), *chunk.values()):
        kept.pop(tensor.untyped_storage()._cdata, None)
    observations = sum(tensor.untyped_storage().nbytes() for tensor in chunk.values())
    return observations + sum(storage.nbytes() for storage in kept.values())


def device_memory(device: str) -> float:
    """All of a device's memory [bytes]: the card's; or the machine's, or what a limit leaves."""
    if torch.device(device).type == "cuda":
        return float(torch.cuda.mem_get_info(torch.device(device))[1])
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            limits.append(int(Path(path).read_text()))
        except (OSError, ValueError):  # no such limit
            continue
    return float(min(limits))


def check_device(device: str) -> None:
    """Refuse a device that PyTorch does not have here.

    Raises:
        TrainError: no such device; the message says what to do.
    """
    try:
        kind = torch.device(device)
    except RuntimeError as error:
        raise TrainError(
            f"--device {device}: no name of a device; give cpu, cuda or cuda:1"
        ) from error
    if kind.type == "cpu":
        return
    if kind.type != "cuda":
        raise TrainError(f"--device {device}: this version trains on cpu and cuda")
    if not torch.cuda.is_available():
        built = "for CUDA" if torch.version.cuda else "for the CPU alone"
        raise TrainError(
            f"--device {device}: PyTorch {torch.__version__} (built {built}) finds no CUDA device "
            "here. Check `nvidia-smi` and the PyTorch build, or leave --device out: the CPU is used"
        )
    if kind.index is not None and kind.index >= torch.cuda.device_count():
        raise TrainError(
            f"--device {device}: there are {torch.cuda.device_count()} CUDA devices here, "
            "counted from 0"
        )


def device_here(device: str) -> str:
    """The device if this machine has it, else the CPU: where the driver of a cluster can try."""
    return device if device.startswith("cuda") and torch.cuda.is_available() else "cpu"


@contextmanager
def explaining_memory(
    configs: Sequence[RunConfig],
    fields: Sequence[Field],
    actions: int,
    device: str,
    micro_batches: int = 1,
) -> Iterator[None]:
    """Turn running out of memory into an error that says what would fit.

    Raises:
        MemoryLimitError: PyTorch or Python ran out of memory in the block.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        message = explain(configs, fields, actions, device, micro_batches)
        raise MemoryLimitError(message) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a GPU or on the CPU.

    So does one that came of such an error: a CUDA graph whose recording was interrupted says that
    and not why.
    """
    before = error.__cause__ or error.__context__
    if before is not None and is_out_of_memory(before):
        return True
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    texts = ("not enough memory", "can't allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, RuntimeError) and any(text in str(error) for text in texts)


def explain(
    configs: Sequence[RunConfig],
    fields: Sequence[Field],
    actions: int,
    device: str,
    micro_batches: int = 1,
) -> str:
    """What a run (or a stack of runs) takes, what there is, and what would fit."""
    config = configs[0]
    needed = count_memory(config, fields, actions, micro_batches=micro_batches)
    capacity = device_memory(device)
    runs = f"{len(configs)} runs of " if len(configs) > 1 else ""
    batch = math.ceil(config.lanes / micro_batches) * config.chunk
    lines = [
        f"out of memory on {device}, which has {capacity / GIGA:.1f} GB: {runs}"
        f"{config.params:,} parameters take about {len(configs) * needed.total / GIGA:.2g} GB "
        f"({len(configs) * needed.weights / GIGA:.2g} for weights and optimiser, "
        f"{len(configs) * needed.activations / GIGA:.2g} for {batch} samples at a time)"
    ]
    # what already ran out shows that the count is low, or that something else is there too
    room = min(capacity, len(configs) * needed.total) * 0.9
    parts = fitting_parts(config, fields, actions, room, above=micro_batches)
    if parts is not None:
        lines.append(f"--micro-batches {parts} would fit, with the same losses")
    size = fitting_size(config, fields, actions, room, micro_batches=micro_batches)
    if size is not None:
        lines.append(f"with {batch} samples at a time about {size:,.2g} parameters fit")
    if len(configs) == 1:
        lines.append("or run fewer jobs beside it (--workers)")
    return "; ".join(lines)


def fitting_parts(
    config: RunConfig, fields: Sequence[Field], actions: int, room: float, *, above: int
) -> int | None:
    """The fewest micro-batches, more than `above`, that fit into `room` [bytes], if any do."""
    for parts in range(above + 1, config.lanes + 1):
        even = config.lanes % parts == 0
        if even and (count_memory(config, fields, actions, micro_batches=parts).total <= room):
            return parts
    return None


def fitting_size(
    config: RunConfig,
    fields: Sequence[Field],
    actions: int,
    room: float,
    *,
    micro_batches: int = 1,
) -> float | None:
    """The largest N [count], to 10 %, that `room` [bytes] holds at the run's batch, if any does."""

    def fits(params: float) -> bool:
        try:
            size = size_for_params(fields, actions, params, config.agent)
        except PlanError:  # smaller than any agent
            return False
        other = replace(config, width=size.width, params=size.params)
        return count_memory(other, fields, actions, micro_batches=micro_batches).total <= room

    low, high = 0.0, math.log(config.params)
    if not fits(math.exp(high - 3)):
        return None
    low = high - 3
    while high - low > 0.1:
        middle = (low + high) / 2
        low, high = (middle, high) if fits(math.exp(middle)) else (low, middle)
    return math.exp(low)
