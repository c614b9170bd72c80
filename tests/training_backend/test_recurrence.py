"""The LSTM as a scan: what the fused one computes, for one run and for several at once."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap

from training_backend import recurrence
from training_backend.lstm import LSTM
from training_backend.recurrence import ScanLSTM

STEPS, LANES, INPUTS, UNITS = 7, 3, 5, 4


def _problem(seed: int) -> tuple[LSTM, torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]:
    torch.manual_seed(seed)
    core = LSTM(INPUTS, UNITS).double()
    x = torch.randn(STEPS, LANES, INPUTS, dtype=torch.float64)
    state = tuple(torch.randn(LANES, UNITS, dtype=torch.float64) for _ in range(2))
    resets = torch.zeros(STEPS, LANES, dtype=torch.bool)
    resets[0, 1] = resets[3, 0] = resets[3, 2] = resets[6, 1] = True
    return core, x, state, resets


def _gradients(core: nn.Module, x, state, resets) -> list[torch.Tensor]:
    """Of a scalar of everything that comes out, with respect to everything that goes in."""
    inputs = [x.clone().requires_grad_(), *(s.clone().requires_grad_() for s in state)]
    y, (h, c) = core(inputs[0], tuple(inputs[1:]), resets)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    value = (weights * y).sum() + h.square().sum() + c.pow(3).sum()
    return [y, h, c, *torch.autograd.grad(value, [*inputs, *core.parameters()])]


def test_equals_the_fused_lstm_with_borders_and_all_gradients() -> None:
    core, x, state, resets = _problem(0)
    for given in (resets, None):
        fused = _gradients(core, x, state, given)
        scanned = _gradients(ScanLSTM(core), x, state, given)
        for expected, found in zip(fused, scanned, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_masks_at_every_step_as_on_a_gpu_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    core, x, state, resets = _problem(0)
    fused = _gradients(core, x, state, resets)
    everywhere = lambda keep: [keep] * keep.shape[1]  # noqa: E731
    monkeypatch.setattr(recurrence, "_keeps", everywhere)
    copies = lambda dc: dc.unsqueeze(-2).repeat(1, 1, 4, 1)  # noqa: E731
    monkeypatch.setattr(recurrence, "_for_gates", copies)
    for expected, found in zip(fused, _gradients(ScanLSTM(core), x, state, resets), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


def test_shares_the_parameters_and_their_names() -> None:
    core, *_ = _problem(0)
    scan = dict(ScanLSTM(core).named_parameters())
    assert list(scan) == [name for name, _ in core.named_parameters()]
    assert all(scan[name] is parameter for name, parameter in core.named_parameters())


def test_several_runs_at_once_are_each_run_alone() -> None:
    problems = [_problem(seed) for seed in range(3)]
    names = [name for name, _ in problems[0][0].named_parameters()]
    stacked = {
        name: torch.stack([core.get_parameter(name).detach() for core, *_ in problems])
        for name in names
    }
    parameters = {name: tensor.requires_grad_() for name, tensor in stacked.items()}
    base = ScanLSTM(problems[0][0])
    xs = torch.stack([x for _, x, _, _ in problems])
    states = tuple(torch.stack([state[i] for _, _, state, _ in problems]) for i in range(2))
    resets = torch.stack([r.roll(k, 0) for k, (_, _, _, r) in enumerate(problems)])
    y, _ = vmap(lambda p, x, s, r: functional_call(base, p, (x, s, r)))(
        parameters, xs, states, resets
    )
    y.square().sum().backward()
    for k, (core, x, state, _) in enumerate(problems):
        alone, _ = core(x, state, resets[k])
        expected = torch.autograd.grad(alone.square().sum(), list(core.parameters()))
        torch.testing.assert_close(y[k], alone, rtol=1e-10, atol=1e-12)
        for name, gradient in zip(names, expected, strict=True):
            grad = parameters[name].grad
            assert grad is not None
            torch.testing.assert_close(grad[k], gradient, rtol=1e-9, atol=1e-11)


def test_under_autocast_products_are_bfloat16_and_the_cell_is_float32() -> None:
    core, x, state, resets = _problem(0)
    scan, x, state = ScanLSTM(core).float(), x.float(), tuple(s.float() for s in state)
    expected = _gradients(scan, x, state, resets)
    with torch.autocast("cpu", torch.bfloat16):
        y, (h, c) = scan(x, state, resets)
    assert (y.dtype, h.dtype, c.dtype) == (torch.bfloat16, torch.float32, torch.float32)
    torch.testing.assert_close(y.float(), expected[0], rtol=0.03, atol=0.03)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = scan(x, state, resets)
        value = y.float().square().sum()
    found = torch.autograd.grad(value, list(scan.parameters()))
    exact, _ = scan(x, state, resets)
    wanted = torch.autograd.grad(exact.square().sum(), list(scan.parameters()))
    for one, other in zip(found, wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.1)


def test_nothing_is_compiled_without_triton_headers_and_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = recurrence.can_compile.__wrapped__
    monkeypatch.setattr(recurrence, "has_triton", lambda: True)
    monkeypatch.setattr(recurrence.shutil, "which", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(recurrence.sysconfig, "get_path", lambda name: str(tmp_path))
    assert not look()
    (tmp_path / "Python.h").touch()
    assert look()
    monkeypatch.setattr(recurrence.shutil, "which", lambda name: None)
    assert not look()
    monkeypatch.setattr(recurrence, "has_triton", lambda: False)
    monkeypatch.setattr(recurrence.shutil, "which", lambda name: name)
    assert not look()


def test_only_a_plain_lstm_can_be_scanned() -> None:
    with pytest.raises(ValueError, match="one layer and direction, with biases"):
        ScanLSTM(nn.LSTM(INPUTS, UNITS, num_layers=2))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiles for the CPU with g++")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler itself
def test_the_compiled_step_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    core, x, state, resets = _problem(0)
    plain = _gradients(ScanLSTM(core), x, state, resets)
    monkeypatch.setattr(recurrence, "fused", lambda function, like: recurrence._compiled(function))
    compiled = _gradients(ScanLSTM(core), x, state, resets)
    for expected, found in zip(plain, compiled, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_a_gpu_compiles_each_step_once_for_all_steps_and_sizes() -> None:
    """A process may compile a function eight times, and a ladder has more sizes than that."""
    graphs: list[object] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    advance, retreat = (
        torch.compile(function, dynamic=True, backend=backend)
        for function in (recurrence._advance, recurrence._retreat)
    )
    of_cell = torch.arange(4).unsqueeze(1) < 3
    for runs, steps, lanes, units in ((2, 5, 7, 11), (3, 5, 8, 13)):
        gates, keep = torch.rand(runs, steps, lanes, 4 * units), torch.rand(runs, steps + 1, lanes)
        y, c = torch.rand(runs, steps, lanes, units), torch.rand(runs, lanes, units)
        factors = y, y, gates.unflatten(-1, (4, units)), y
        for t in range(steps):
            step = recurrence.FIRST + t
            forth = step, gates, gates[:, t].clone(), c, keep
            back = step, c, keep, c.unsqueeze(-2).repeat(1, 1, 4, 1), of_cell, *factors
            torch.testing.assert_close(advance(*forth), recurrence._advance(*forth))
            torch.testing.assert_close(retreat(*back), recurrence._retreat(*back))
    assert len(graphs) == 2
