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
        advance, masks = fused(_advance, gates), _masks(keep)
        transposed = weight.to(gates.dtype).transpose(1, 2)
        h, c, steps = h0.to(gates.dtype), c0, []
        for gate, mask in zip(gates.unbind(1), masks, strict=True):
            step = advance(gate, torch.bmm(h, transposed), c, mask)
            h, c = step[:2]
            steps.append(step)
        y, cells, *others = (torch.stack(parts, 1) for parts in zip(*steps, strict=True))
        return y, h.to(h0.dtype), c.clone(), cells, *others

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, ...]) -> None:
        _, h0, c0, keep, weight = inputs
        y, _, _, *kept = output
        ctx.mark_non_differentiable(*kept)
        ctx.save_for_backward(h0, c0, keep, weight, y, *kept)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        saved = (tensor.detach() for tensor in ctx.saved_tensors)  # as in `forward`
        h0, c0, keep, weight, y, cells, tanhs, i, f, g, o = saved
        grad_y, dh, dc = grads[0], grads[1].to(y.dtype), grads[2]
        mask = keep.unsqueeze(-1)
        # nothing is cleared after the last step; a mask there too spares a GPU a second kernel
        masks = [*_masks(keep), torch.ones_like(mask[:, 0]) if keep.is_cuda else None]
        h_before, *of_steps = fused(_factors, y)(h0, c0, mask, y, cells, tanhs, i, f, g, o)
        retreat = fused(_retreat, y)
        factors = [factor.unbind(1) for factor in (grad_y, *of_steps)]
        product, d_gates = weight.to(y.dtype), []
        for t in reversed(range(y.shape[1])):
            d_gate, dc = retreat(dh, masks[t + 1], dc, *(factor[t] for factor in factors))
            dh = torch.bmm(d_gate, product)
            d_gates.append(d_gate)
        dh = dh * mask[:, 0]
        d_gate = torch.stack(d_gates[::-1], 1)
        d_weight = torch.bmm(d_gate.flatten(1, 2).transpose(1, 2), h_before.flatten(1, 2))
        return d_gate, dh.to(h0.dtype), dc, None, d_weight.to(weight.dtype)

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


def _advance(gate: Tensor, product: Tensor, c: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
    """One step: what enters the gates (K, B, 4W) from below and from the step before, and the cell
    (K, B, W), to h, c, tanh c and the four gates.

    Where a memory is cleared, `mask` (K, B, 1) is 0: the product has no bias, so masking it is
    masking h.
    """
    if mask is not None:
        product, c = product * mask, c * mask.to(c.dtype)
    i, f, g, o = (gate + product).chunk(4, -1)
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
    of_c = torch.stack([g * i * (1 - i), c_before * f * (1 - f), i * (1 - g * g)], -2)
    return h_before, into_c, of_c, tanhs * o * (1 - o), f * mask


def _retreat(
    dh: Tensor,
    mask: Tensor | None,
    dc: Tensor,
    grad_y: Tensor,
    into_c: Tensor,
    of_c: Tensor,
    of_h: Tensor,
    kept: Tensor,
) -> tuple[Tensor, Tensor]:
    """One step of the gradient: gates' gradient (K, B, 4W), and that of the cell before.

    `dh` comes from the step after, whose mask is `mask`.
    """
    dh = grad_y + (dh if mask is None else dh * mask)
    dc = dc + dh * into_c
    d_cell = (of_c * dc.unsqueeze(-2)).flatten(-2)
    return torch.cat([d_cell, of_h * dh], -1).to(grad_y.dtype), dc * kept


def _masks(keep: Tensor) -> list[Tensor | None]:
    """Of each step (K, B, 1), or None where no memory is cleared; on a GPU, where looking for such
    steps would wait, never None."""
    masks = keep.unsqueeze(-1).unbind(1)
    if keep.device.type != "cpu":
        return list(masks)
    borders = (keep != 1).any(2).any(0).tolist()
    return [mask if border else None for mask, border in zip(masks, borders, strict=True)]


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
