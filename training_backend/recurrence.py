"""An LSTM over a chunk as a scan: K of them side by side, each with weights of its own.

The fused LSTM of PyTorch knows one set of weights, cannot be batched over several (`torch.vmap`),
and has to be cut at every border of a game. Here a step is one batched matrix product and a few
elementwise operations for all K, borders are a mask, and on a GPU nothing depends on the data: the
whole chunk can be captured in a CUDA graph.

Shapes: K runs, T steps of a chunk, B lanes, H inputs, W units. Gates come in PyTorch's order:
input i, forget f, cell g, output o.
"""

import os
import shutil
import sysconfig
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._triton import has_triton

from training_backend.embedding import for_autocast

State = tuple[Tensor, ...]

FIRST = 2
"""Number of a chunk's first step where a compiled function is told which step it is: for 0 and 1 a
compiler would make kernels of their own, as it would for views that begin there."""


class ScanLSTM(nn.Module):
    """What `nn.LSTM` with one layer computes, its parameters under the same names.

    Args:
        lstm: its parameters are shared: one layer, one direction, with biases.

    Example:
        >>> core = ScanLSTM(nn.LSTM(8, 16))
        >>> y, (h, c) = core(torch.zeros(5, 3, 8), (torch.zeros(3, 16), torch.zeros(3, 16)))
        >>> y.shape, c.shape
        (torch.Size([5, 3, 16]), torch.Size([3, 16]))
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        if lstm.num_layers != 1 or lstm.bidirectional or not lstm.bias or lstm.proj_size:
            raise ValueError("only an LSTM of one layer and direction, with biases, can be scanned")
        self.weight_ih_l0: nn.Parameter
        self.weight_hh_l0: nn.Parameter
        self.bias_ih_l0: nn.Parameter
        self.bias_hh_l0: nn.Parameter
        for name, parameter in lstm.named_parameters():
            self.register_parameter(name, parameter)

    def forward(
        self, x: Tensor, state: State, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs (T, B, W) of a chunk x (T, B, H), and the state after it, two arrays (B, W).

        Args:
            resets: (T, B) bool, True where the memory is cleared before the step.
        """
        # under vmap the bias is added after autocast's product, which makes float32 of it
        gates = for_autocast(F.linear(x, self.weight_ih_l0, self.bias_ih_l0 + self.bias_hh_l0))
        keep = torch.ones_like(x[..., 0]) if resets is None else (~resets).to(gates.dtype)
        one_run = (t.unsqueeze(0) for t in (gates, *state, keep, self.weight_hh_l0))
        y, h, c = (t.squeeze(0) for t in _Scan.apply(*one_run)[:3])
        return y, (h, c)


class _Scan(torch.autograd.Function):
    """The recurrence of K LSTMs: input gates (K, T, B, 4W) to outputs (K, T, B, W).

    Products are taken in the gates' number format (bfloat16 under autocast), the cell is summed up
    in that of `c0`.
    """

    @staticmethod
    def forward(
        gates: Tensor, h0: Tensor, c0: Tensor, keep: Tensor, weight: Tensor
    ) -> tuple[Tensor, ...]:
        """Outputs and last state; then, for the gradient, activated gates, cells and tanh cells."""
        # a compiler that sees that its inputs need gradients asks for theirs, with a warning
        gates, h0, c0, weight = (t.detach() for t in (gates, h0, c0, weight))
        advance, keeps = fused(_advance, gates), _keeps(keep)
        transposed = weight.to(gates.dtype).transpose(1, 2)
        h, c, steps = h0.to(gates.dtype), c0, []
        for t, kept in enumerate(keeps):
            step = advance(t + FIRST, gates, torch.bmm(h, transposed), c, kept)
            h, c = step[:2]
            steps.append(step)
        y, cells, *others = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        return y, h.to(h0.dtype), c.clone(), cells, *others

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, h0, c0, keep, weight = inputs
        y, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.set_materialize_grads(False)  # zeros for each array that is kept would be written
        ctx.save_for_backward(h0, c0, keep, weight, y, *kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = (tensor.detach() for tensor in ctx.saved_tensors)  # as in `forward`
        h0, c0, keep, weight, y, cells, tanhs, i, f, g, o = saved
        grad_y = torch.zeros_like(y) if grads[0] is None else grads[0]
        dh = torch.zeros_like(h0, dtype=y.dtype) if grads[1] is None else grads[1].to(y.dtype)
        dc = _for_gates(torch.zeros_like(c0) if grads[2] is None else grads[2])
        mask = keep.unsqueeze(-1)
        keeps = _keeps(F.pad(keep, (0, 0, 0, 1), value=1.0))  # nothing is cleared after the last
        h_before, *of_steps = fused(_factors, y)(h0, c0, mask, y, cells, tanhs, i, f, g, o)
        retreat = fused(_retreat, y)
        product, d_gates = weight.to(y.dtype), []
        of_cell = torch.arange(4, device=y.device).unsqueeze(1) < 3
        for t in reversed(range(y.shape[1])):
            d_gate, dc = retreat(t + FIRST, dh, keeps[t + 1], dc, of_cell, grad_y, *of_steps)
            dh = torch.bmm(d_gate, product)
            d_gates.append(d_gate)
        dh = dh * mask[:, 0]
        d_gate = torch.stack(d_gates[::-1], 1)
        d_weight = torch.bmm(d_gate.flatten(1, 2).transpose(1, 2), h_before.flatten(1, 2))
        return d_gate, dh.to(h0.dtype), dc[..., 0, :], None, d_weight.to(weight.dtype)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor
    ) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        """Runs of several vmapped callers go through one scan."""
        size = info.batch_size
        stacks = (
            t.expand(size, *t.shape) if dim is None else t.movedim(dim, 0)
            for t, dim in zip(inputs, in_dims, strict=True)
        )
        outputs = _Scan.apply(*(stack.flatten(0, 1) for stack in stacks))
        return tuple(t.unflatten(0, (size, -1)) for t in outputs), (0,) * len(outputs)


def _advance(
    step: int, gates: Tensor, product: Tensor, c: Tensor, keep: Tensor | None
) -> tuple[Tensor, ...]:
    """One step: what enters the gates from below (K, T, B, 4W) and from the step before (K, B, 4W),
    and the cell (K, B, W), to h, c, tanh c and the four gates.

    `step` counts from `FIRST`. Where a memory is cleared, `keep` (K, T, B) is 0: the product has no
    bias, so masking it is masking h.
    """
    gate = _at(gates, step)
    if keep is not None:
        mask = _at(keep, step).unsqueeze(-1)
        product, c = product * mask, c * mask.to(c.dtype)
    # of the cell's width, not a quarter of their own: of that a compiler cannot tell that the four
    # are equally wide, and makes a second kernel for the last one
    i, f, g, o = (gate + product).unflatten(-1, (4, c.shape[-1])).unbind(-2)
    i, f, g, o = i.sigmoid(), f.sigmoid(), g.tanh(), o.sigmoid()
    c = torch.addcmul(f * c, i.to(c.dtype), g.to(c.dtype))
    tanh = c.tanh()
    return (o * tanh).to(gate.dtype), c, tanh, i, f, g, o


def _factors(
    h0: Tensor,
    c0: Tensor,
    mask: Tensor,
    y: Tensor,
    cells: Tensor,
    tanhs: Tensor,
    i: Tensor,
    f: Tensor,
    g: Tensor,
    o: Tensor,
) -> tuple[Tensor, ...]:
    """What the steps of the gradient need and does not depend on later steps, for all at once.

    The outputs before each step (K, T, B, W), and what `_retreat` multiplies with.
    """
    h_before = torch.cat([h0.to(y.dtype).unsqueeze(1), y[:, :-1]], 1) * mask
    c_before = torch.cat([c0.unsqueeze(1), cells[:, :-1]], 1) * mask.to(cells.dtype)
    into_c = o * (1 - tanhs * tanhs)
    of_i, of_f, of_g = g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)
    of_gates = torch.stack([of_i, of_f, of_g, tanhs * o * (1 - o)], -2)
    return h_before, into_c, of_gates, f * mask


def _retreat(
    step: int,
    dh: Tensor,
    keep: Tensor | None,
    dc: Tensor,
    of_cell: Tensor,
    grad_y: Tensor,
    into_c: Tensor,
    of_gates: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the gradient: gates' gradient (K, B, 4W), and that of the cell before.

    `step` counts from `FIRST`, and picks what the arrays (K, T, B, ...) hold of it. `dh` comes from
    the step after, which `keep` (K, T + 1, B) masks; `dc` is `_for_gates`; `of_cell` (4, 1) says
    which gates the cell depends on.
    """
    if keep is not None:
        dh = dh * _at(keep, step + 1).unsqueeze(-1)
    dh = (_at(grad_y, step) + dh).unsqueeze(-2)
    dc = dc + dh * _at(into_c, step).unsqueeze(-2)
    d_gates = _at(of_gates, step) * torch.where(of_cell, dc, dh)
    return d_gates.flatten(-2).to(grad_y.dtype), dc * _at(kept, step).unsqueeze(-2)


def _at(x: Tensor, step: int) -> Tensor:
    """What an array (K, T, ...) holds of a step, (K, ...). Cut out, not picked by its number: that
    a compiler would take for a constant, and make a kernel for each step."""
    return x.narrow(1, step - FIRST, 1).squeeze(1)


def _for_gates(dc: Tensor) -> Tensor:
    """A cell's gradient (K, B, W) beside the gates' (K, B, 4, W): one of it, (K, B, 1, W), or on a
    GPU a copy for each gate, so that a step's two results have one shape and are one kernel."""
    dc = dc.unsqueeze(-2)
    return dc.repeat(1, 1, 4, 1) if dc.is_cuda else dc


def _keeps(keep: Tensor) -> list[Tensor | None]:
    """Of each step `keep` (K, T, B), or None where no memory is cleared; on a GPU, where a look at
    them would wait, never None."""
    if keep.device.type != "cpu":
        return [keep] * keep.shape[1]
    borders = (keep != 1).any(2).any(0).tolist()
    return [keep if border else None for border in borders]


def fused(function: Callable[..., Any], like: Tensor) -> Callable[..., Any]:
    """A function of many small operations as few kernels, on a GPU (where Triton is); as it is
    elsewhere."""
    return _compiled(function) if like.is_cuda and can_compile() else function


@cache
def can_compile() -> bool:
    """Whether kernels can be made for this machine's GPU: by Triton, which needs a C compiler and
    Python's headers."""
    if not has_triton() or not (Path(sysconfig.get_path("include")) / "Python.h").exists():
        return False
    return any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang"))


@cache
def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # one kernel for all shapes: compiled anew for each size, a ladder of short runs would wait for
    # the compiler, and a process may compile a function eight times
    return torch.compile(function, dynamic=True)
