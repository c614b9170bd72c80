"""What only a GPU can show: CUDA graphs, resuming, number formats. `pytest -m gpu` runs it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markov_source import ACTIONS, BENCH, FIELDS, MarkovSource
from torch.nn import functional as F

from training_backend.config import RunConfig
from training_backend.distributed import Computation
from training_backend.embedding import embed
from training_backend.jobs import Place
from training_backend.memory import MemoryLimitError, explaining_memory
from training_backend.objectives.behaviour_cloning import (
    load_snapshot,
    measure_loss,
    open_stream,
    optimise,
    rate_at,
    snapshot_path,
    train,
)
from training_backend.objectives.training_state import TrainingState, build_agent
from training_backend.precision import Precision, choose_precision
from training_backend.rollouts import Policy
from training_backend.stack import Stack
from training_backend.stacking import train_stack
from training_backend.sweep import run_sweep

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore")]  # of the compiler itself

SIZES = {"lstm": 1.5e3, "feedforward": 1.5e3, "transformer": 1e4, "lstm-returns": 8e3}


def _config(agent: str = "lstm", steps: tuple[int, ...] = (20, 70), **changes: Any) -> RunConfig:
    row = {
        "run_id": "a",
        "agent": agent,
        "task": "markov",
        "params": SIZES[agent],
        "budget": 1e12,
        "seed": 0,
        "learning_rate": 6e-3,
        "batch_size": 256,
    }
    config = replace(RunConfig.from_plan_row(row, MarkovSource()), warmup_steps=10)
    step = config.batch_size * config.flops_per_sample
    return replace(config, snapshots=tuple(n * step for n in steps), **changes)


def _on_device(chunk: Any) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(array).cuda() for name, array in chunk.items()}


@pytest.mark.parametrize("agent", SIZES)
def test_a_graph_of_a_stack_gives_the_losses_of_separate_runs(agent: str, tmp_path: Path) -> None:
    configs = [_config(agent), _config(agent, run_id="b", seed=1, learning_rate=2e-2)]
    leg = configs[0].legs[0]
    streams = [open_stream(config, MarkovSource()) for config in configs]
    stacked, alone = (
        [TrainingState(config, FIELDS, ACTIONS, tmp_path, "cuda") for config in configs]
        for _ in range(2)
    )
    for run in alone:  # cuDNN's LSTM computes in TF32
        Precision(scanned=True).prepare(run.agent)
    stack = Stack(stacked, graph=True)
    for step in range(40):
        chunks = [_on_device(stream[step]) for stream in streams]
        together = {name: torch.stack([c[name] for c in chunks]) for name in chunks[0]}
        rates = [rate_at(config, leg, step) for config in configs]
        stack.step(together, [True, True], rates)
        for k, run in enumerate(alone):
            run.set_rate(rates[k])
            loss, run.memory = optimise(
                run.agent, run.optimiser, chunks[k], run.memory, configs[k].clip
            )
            assert float(stack.losses[k]) == pytest.approx(float(loss), rel=1e-3), (step, k)
    assert stack.lost() == {}
    assert [run.steps for run in stacked] == [40, 40]


@pytest.mark.parametrize("agent", ["lstm", "transformer", "lstm-returns"])
@pytest.mark.parametrize("size", [1, 2])
def test_a_graph_in_bfloat16_stays_near_float32(agent: str, size: int, tmp_path: Path) -> None:
    configs = [_config(agent, run_id=str(seed), seed=seed) for seed in range(size)]
    chunk = _on_device(open_stream(configs[0], MarkovSource())[0])
    together = {name: torch.stack([tensor] * size) for name, tensor in chunk.items()}
    losses = []
    for precision in (Precision(), Precision(bf16=True, tf32=True, compiled=True, scanned=True)):
        runs = [TrainingState(c, FIELDS, ACTIONS, tmp_path / c.run_id, "cuda") for c in configs]
        stack = Stack(runs, precision=precision, graph=True)
        with precision.active():
            for _ in range(20):
                stack.step(together, [True] * size, [6e-3] * size)
        losses.append(stack.losses.tolist())
        assert stack.lost() == {}
    assert losses[1] == pytest.approx(losses[0], rel=0.1)


class _StopError(Exception):
    pass


@pytest.mark.parametrize("stacked", [False, True])
def test_a_stopped_run_goes_on_to_the_same_losses(stacked: bool, tmp_path: Path) -> None:
    config = _config()

    def stop(step: int) -> None:
        if step == 33:
            raise _StopError

    def run(folder: Path, **options: Any) -> None:
        if stacked:
            train_stack([config], MarkovSource(), [folder], device="cuda", **options)
        else:
            train(config, MarkovSource(), folder, device="cuda", **options)

    run(tmp_path / "whole")
    with pytest.raises(_StopError):
        run(tmp_path / "parts", on_step=stop)
    run(tmp_path / "parts")  # 50 steps from the first snapshot's checkpoint
    chunk = {k: torch.as_tensor(v) for k, v in MarkovSource(seed=1).stream(20, 150, 0)[0].items()}
    losses = []
    for name in ("whole", "parts"):
        agent, _, _ = load_snapshot(
            snapshot_path(tmp_path / name, config.snapshots[-1]), FIELDS, ACTIONS
        )
        with torch.no_grad():
            losses.append(float(measure_loss(agent, chunk, agent.initial_state(20))[0]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("agent", SIZES)
def test_bfloat16_and_compiled_parts_stay_near_float32(agent: str, tmp_path: Path) -> None:
    config = _config(agent)
    chunk = _on_device(open_stream(config, MarkovSource())[0])
    found = []
    for precision in (Precision(), Precision(bf16=True, tf32=True, compiled=True, scanned=True)):
        run = TrainingState(config, FIELDS, ACTIONS, tmp_path, "cuda")
        precision.prepare(run.agent)
        computation = Computation(measure_loss, run.agent, precision)
        with precision.active():
            for _ in range(20):
                loss, run.memory = optimise(
                    run.agent,
                    run.optimiser,
                    chunk,
                    run.memory,
                    config.clip,
                    computation=computation,
                )
        found.append(float(loss))
    assert found[1] == pytest.approx(found[0], rel=0.1)


def test_a_modern_card_is_used_as_one() -> None:
    large = choose_precision("cuda", 3e7, "transformer")
    modern = torch.cuda.get_device_capability() >= (8, 0)
    assert (large.bf16, large.tf32) == (modern, modern)


@pytest.mark.parametrize("agent", ["lstm", "transformer", "lstm-returns"])
def test_an_agent_at_play_decides_as_on_a_cpu(agent: str) -> None:
    config, rng = _config(agent), np.random.default_rng(0)
    policies = [
        Policy(build_agent(config, FIELDS, ACTIONS).to(device), 3, 5) for device in ("cuda", "cpu")
    ]
    for step in range(4):
        fields = {
            f.name: rng.integers(0, f.vocabulary or 16, (3, *f.shape), dtype=f.dtype)
            for f in FIELDS
        }
        for policy in policies:
            policy.resets[:] = step == 2
        found, expected = (policy.decide(fields) for policy in policies)
        np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.01)


def test_a_sweep_trains_stacks_in_processes_of_their_own(tmp_path: Path) -> None:
    steps = (20, 40)
    configs = [_config(steps=steps, run_id=f"l{seed}", seed=seed) for seed in range(2)]
    configs.append(_config("feedforward", steps, run_id="f"))
    place = Place(log=tmp_path / "runs.csv", runs=tmp_path / "files")
    result = run_sweep(configs, BENCH, place, workers=2, device="cuda")
    assert (result.rows, result.failed) == (6, ())


def test_memory_that_runs_out_is_explained_and_given_back(tmp_path: Path) -> None:
    config = _config()
    chunk = _on_device(open_stream(config, MarkovSource())[0])
    together = {name: tensor.unsqueeze(0) for name, tensor in chunk.items()}

    def train_one() -> None:
        run = TrainingState(config, FIELDS, ACTIONS, tmp_path, "cuda")
        stack = Stack([run], graph=True)
        stack.step(together, [True], [6e-3])
        assert stack.lost() == {}

    train_one()
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(0.0)
        with (
            pytest.raises(MemoryLimitError, match="out of memory on cuda"),
            explaining_memory([config], FIELDS, ACTIONS, "cuda"),
        ):
            train_one()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    train_one()


@pytest.mark.parametrize("size", [8, 32])
def test_gradients_of_look_ups_are_those_of_pytorch(size: int) -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 300, (50_000,), device="cuda") * (
        torch.rand(50_000, device="cuda") < 0.5
    )
    weight = torch.randn(50_000, size, device="cuda")
    table = torch.randn(300, size, device="cuda", requires_grad=True)
    (found,) = torch.autograd.grad((embed(ids, table) * weight).sum(), table)
    (expected,) = torch.autograd.grad((F.embedding(ids, table) * weight).sum(), table)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)
