"""Look-ups: the gradients made here against PyTorch's own."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from training_backend.embedding import embed, sum_by_product, sum_by_scatter, sum_into_copies


def _case(k: int = 3, n: int = 40) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    ids = torch.randint(11, (k, n), generator=rng)
    tables = torch.randn(k, 13, 4, dtype=torch.float64, generator=rng)
    weight = torch.randn(k, n, 4, dtype=torch.float64, generator=rng)
    return ids, tables, weight


def test_values_and_gradient_equal_the_built_in_ones() -> None:
    ids, tables, weight = _case(k=1)
    ids, table, weight = ids.view(8, 5), tables[0].requires_grad_(), weight.view(8, 5, 4)
    results = []
    for look_up in (embed, F.embedding):
        found = look_up(ids, table)
        results.append((found, torch.autograd.grad((found * weight).sum(), table)[0]))
    (found, grad), (expected, expected_grad) = results
    assert torch.equal(found, expected)
    torch.testing.assert_close(grad, expected_grad, rtol=1e-12, atol=1e-14)
    assert not grad[11:].any()  # rows that were not looked up


@pytest.mark.parametrize("block", [1, 13 * 3 * 7, 1 << 20])
def test_all_sums_equal_a_sum_one_row_at_a_time(block: int) -> None:
    ids, _, grad = _case()
    expected = torch.zeros(3, 13, 4, dtype=torch.float64)
    for k in range(3):
        for i, row in zip(ids[k].tolist(), grad[k], strict=True):
            expected[k, i] += row
    for total in (
        sum_by_scatter,
        lambda *args: sum_by_product(*args, block=block),
        lambda *args: sum_into_copies(*args, copies=min(block, 50)),
    ):
        torch.testing.assert_close(total(ids, grad, 13), expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("way", [sum_by_product, sum_into_copies])
def test_sums_of_a_gpu_are_added_up_in_float32(way: Callable[..., Tensor]) -> None:
    # 4,000 ones in one row: bfloat16 alone stops at 256
    ids, grad = torch.zeros(1, 4000, dtype=torch.int64), torch.ones(1, 4000, 2).bfloat16()
    total = way(ids, grad, 3, 3)
    assert total.dtype == torch.bfloat16
    torch.testing.assert_close(total[0, 0].float(), torch.full((2,), 4000.0), rtol=2**-8, atol=0)


def test_sums_into_copies_are_the_same_in_any_order() -> None:
    ids, _, grad = _case(n=400)
    grad = grad.float() * torch.logspace(-9, 3, 400).unsqueeze(1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    total = sum_into_copies(ids, grad, 13)
    assert torch.equal(total, sum_into_copies(ids[:, order], grad[:, order], 13))
    assert not sum_into_copies(ids, grad * 0, 13).any()
    for odd in (torch.nan, torch.inf):
        grad[1, 5, 2] = odd
        found = sum_into_copies(ids, grad, 13)
        assert torch.equal(found[0], total[0])
        assert not found[1].isfinite().all()


@pytest.mark.parametrize("shared", ["nothing", "ids", "table"])
def test_tables_side_by_side_are_looked_up_by_vmap(shared: str) -> None:
    ids, tables, weight = _case()

    def loss(look_up: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
        return lambda table, i, w: (look_up(i, table) * w).sum()

    dims = (None if shared == "table" else 0, None if shared == "ids" else 0, 0)
    given = (
        tables[0] if shared == "table" else tables,
        ids[0] if shared == "ids" else ids,
        weight,
    )
    grads = torch.vmap(torch.func.grad(loss(embed)), in_dims=dims)(*given)
    for k in range(3):
        one = [x if dim is None else x[k] for x, dim in zip(given, dims, strict=True)]
        expected = torch.func.grad(loss(F.embedding))(*one)
        torch.testing.assert_close(grads[k], expected, rtol=1e-12, atol=1e-14)
