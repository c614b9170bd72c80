"""How a device computes: number format, compilation, kernels. Chosen by the device, on record.

On a CPU everything is off: float32, PyTorch's own kernels, the same bits every time. A GPU of the
Ampere generation or later multiplies in TF32, large agents in bfloat16 (weights, optimiser and sums
stay float32), and the parts of an agent that are many small operations are compiled.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from training_backend.models import Agent
from training_backend.recurrence import ScanLSTM, can_compile

BF16_PARAMS = 2e6
"""Agents from this size on multiply in bfloat16: smaller ones wait for launches, not products."""
COMPILED_PARAMS = 2e6
"""Agents from this size on are compiled: a minute that a run of a few minutes does not earn."""
AMPERE = (8, 0)
"""Compute capability from which a GPU has TF32 and bfloat16 products."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Precision:
    """How an agent's training step is computed. The default is plain float32."""

    bf16: bool = False
    """Matrix products and attention in bfloat16, by autocast."""
    tf32: bool = False
    """Other float32 products in TF32: 10 bits of mantissa, float32's range."""
    compiled: bool = False
    """Encoder and core through torch.compile."""
    scanned: bool = False
    """The LSTM as a scan: cuDNN's has no bfloat16 and is cut where games end."""

    def describe(self) -> str:
        """What is on, for run log and checkpoints; empty for plain float32.

        Example:
            >>> Precision(bf16=True, tf32=True).describe()
            'bf16, TF32'
        """
        names = {
            "bf16": self.bf16,
            "TF32": self.tf32,
            "compiled": self.compiled,
            "scanned LSTM": self.scanned,
        }
        return ", ".join(name for name, on in names.items() if on)

    def prepare(self, agent: Agent, *, compiler: Callable[[nn.Module], Any] | None = None) -> None:
        """Exchange and compile an agent's parts in place; its parameters stay what they are.

        Args:
            compiler: what compiles a module in place, by default for one shape of its inputs:
                another one, as of an uneven micro-batch, is compiled again.
        """
        if self.scanned and isinstance(agent.core, nn.LSTM):
            agent.register_module("core", ScanLSTM(agent.core))
        if self.compiled:
            for part in _compilable(agent):
                (compiler or partial(nn.Module.compile, dynamic=False))(part)

    @contextmanager
    def computing(self, device: torch.device) -> Iterator[None]:
        """Forward passes inside are computed like this; wrap the loss, not the backward pass."""
        with torch.autocast(device.type, torch.bfloat16) if self.bf16 else nullcontext():
            yield

    @contextmanager
    def active(self) -> Iterator[None]:
        """Set what PyTorch keeps for the whole process (TF32), and put it back afterwards."""
        before = torch.get_float32_matmul_precision()
        try:
            if self.tf32:
                torch.set_float32_matmul_precision("high")
            yield
        finally:
            torch.set_float32_matmul_precision(before)


PLAIN = Precision()
"""Float32 and nothing else: what a CPU does."""


def choose_precision(device: str, params: float, core: str) -> Precision:
    """What pays on a device for an agent of this size.

    Args:
        device: as PyTorch names it.
        params: N [count].
        core: the family's core.
    """
    if torch.device(device).type != "cuda":
        return PLAIN
    capability = torch.cuda.get_device_capability(device)
    return precision_for(capability, params, core, triton=can_compile())


def precision_for(
    capability: tuple[int, int], params: float, core: str, *, triton: bool
) -> Precision:
    """`choose_precision` for a GPU of this compute capability.

    Args:
        triton: whether there is a Triton that can compile kernels for it.
    """
    modern = capability >= AMPERE
    bf16 = modern and params >= BF16_PARAMS
    return Precision(
        bf16=bf16,
        tf32=modern,
        compiled=triton and params >= COMPILED_PARAMS,
        scanned=bf16 and core == "lstm",
    )


def _compilable(agent: Agent) -> list[nn.Module]:
    """The parts that are many small operations, and are used as calls of a module."""
    parts: list[nn.Module] = [] if agent.screen is None else [agent.screen]
    if not isinstance(agent.core, (nn.LSTM, ScanLSTM)):  # the scan compiles its own steps
        parts.append(agent.core)
    return parts
