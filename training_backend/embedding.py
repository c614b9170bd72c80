"""Look-ups in embedding tables, with gradients that are fast on a CPU and on a GPU.

Shapes: K tables side by side (runs of a stack), n look-ups in each, R rows of a table, E numbers
of a row.
"""

from typing import Any, Final

import torch
from torch import Tensor
from torch.nn import functional as F

ONE_HOT_ROWS: Final = 2048
"""Tables with more rows get PyTorch's own gradient on a GPU."""
_BLOCK: Final = 1 << 27
"""One-hot numbers held at a time on a GPU: 256 MiB in bfloat16."""
_ROWS_A_NUMBER: Final = 20
"""A table with more rows than so many for each number of a row is summed up by atomic additions on
a GPU: a one-hot row is written and read, 6 to 10 bytes for every row of the table, whereas the
additions grow with the numbers of a row."""
_COPIES: Final = 32
"""Copies of a table, at most, that atomic additions are spread over: half of a screen's look-ups
are of one row, and additions to one place wait for each other."""
_COPIED: Final = 1 << 20
"""Numbers of all copies together, at most (where there is more than one)."""


def embed(ids: Tensor, table: Tensor) -> Tensor:
    """Rows of `table` (R, E) at `ids`: (..., E), as `F.embedding`, with another gradient.

    PyTorch's own gradient adds one row at a time on a CPU, nine tenths of a small agent's training
    step; a scatter over an expanded index sorts the ids first and is about eight times faster. On a
    GPU it sorts all ids and adds up the partial sums of a row one after another, and half of a
    screen's look-ups are of one row. So there rows are added atomically to copies of the table, or
    multiplied by one-hot rows where a row has many numbers.
    """
    table = for_autocast(table)
    if not torch.is_grad_enabled():  # under `torch.vmap` no table says that it needs a gradient
        return F.embedding(ids, table)
    if table.device.type == "cuda" and table.shape[0] > ONE_HOT_ROWS:
        return F.embedding(ids, table)
    return _Embed.apply(ids.reshape(1, -1), table.unsqueeze(0)).view(*ids.shape, -1)


def pays_apart(table: Tensor) -> bool:
    """Whether fields that share a table are better looked up one by one, each in its own rows: on a
    GPU, where rows are multiplied by one-hot rows as long as the table."""
    return table.is_cuda and _is_wide(table, table.shape[0])


def _is_wide(like: Tensor, rows: int) -> bool:
    return like.shape[-1] * _ROWS_A_NUMBER >= rows


def for_autocast(tensor: Tensor) -> Tensor:
    """The tensor in the type that autocast computes in, where it is on.

    What is gathered, joined or summed up before autocast sees it then moves half the bytes.
    """
    device = tensor.device.type
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensor
    return tensor.to(torch.get_autocast_dtype(device))


class _Embed(torch.autograd.Function):
    """Look-ups (K, n) in tables (K, R, E): (K, n, E)."""

    @staticmethod
    def forward(ids: Tensor, tables: Tensor) -> Tensor:
        k, rows, size = tables.shape
        if k > 1:
            ids = ids + torch.arange(k, device=ids.device).unsqueeze(1) * rows
        return F.embedding(ids, tables.reshape(k * rows, size))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ids, tables = inputs
        ctx.save_for_backward(ids)
        ctx.rows = tables.shape[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (ids,) = ctx.saved_tensors
        total = sum_by_scatter
        if ids.device.type == "cuda":
            # compiled, additions of whole numbers would be sorted first
            multiply = _is_wide(grads[0], ctx.rows) or torch.compiler.is_compiling()
            total = sum_by_product if multiply else sum_into_copies
        return None, total(ids, grads[0], ctx.rows)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], *inputs: Tensor) -> tuple[Tensor, int]:
        """Tables of several vmapped callers are looked up in one call."""
        stacks = [
            (t.expand(info.batch_size, *t.shape) if dim is None else t.movedim(dim, 0)).flatten(
                0, 1
            )
            for t, dim in zip(inputs, in_dims, strict=True)
        ]
        return _Embed.apply(*stacks).unflatten(0, (info.batch_size, -1)), 0


def sum_by_scatter(ids: Tensor, grad: Tensor, rows: int) -> Tensor:
    """Sums (K, R, E) of the rows of `grad` (K, n, E) that have the same id in `ids` (K, n)."""
    k, _, size = grad.shape
    if k > 1:
        ids = ids + torch.arange(k, device=ids.device).unsqueeze(1) * rows
    index = ids.reshape(-1, 1).expand(-1, size)
    sums = grad.new_zeros(k * rows, size).scatter_add_(0, index, grad.reshape(-1, size))
    return sums.view(k, rows, size)


def sum_into_copies(ids: Tensor, grad: Tensor, rows: int, copies: int = _COPIES) -> Tensor:
    """As `sum_by_scatter`, into copies of the tables that are added up.

    Atomic additions come in any order, so they are made of whole numbers, whose sum is the same in
    every order: the numbers are rounded to 2^-62 n of the largest one of their table. What is not
    finite spoils its table's sums.
    """
    k, n, size = grad.shape
    copies = max(1, min(copies, _COPIED // (k * rows * size)))
    table = torch.arange(k, device=ids.device).unsqueeze(1) * copies
    table = table + torch.arange(n, device=ids.device) % copies
    exact = grad.double()
    unit = exact.abs().amax((1, 2), keepdim=True) * (n * 2.0**-62)
    unit = unit.clamp(min=torch.finfo(torch.float64).tiny)
    whole = (exact / unit).round().long().reshape(-1, size)
    sums = whole.new_zeros(k * copies * rows, size)
    sums.index_add_(0, (ids + table * rows).flatten(), whole)
    return (sums.view(k, copies, rows, size).sum(1) * unit).to(grad.dtype)


def sum_by_product(ids: Tensor, grad: Tensor, rows: int, block: int = _BLOCK) -> Tensor:
    """As `sum_by_scatter`, by products with blocks of one-hot rows, added up in float32."""
    k, n, size = grad.shape
    values = torch.arange(rows, device=ids.device, dtype=ids.dtype)
    sums = grad.new_zeros(k, rows, size, dtype=torch.promote_types(grad.dtype, torch.float32))
    step = max(1, block // (k * rows))
    for start in range(0, n, step):
        part = slice(start, start + step)
        one_hot = (ids[:, None, part] == values[:, None]).to(grad.dtype)
        sums += torch.bmm(one_hot, grad[:, part])
    return sums.to(grad.dtype)
