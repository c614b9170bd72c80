"""Runs trained as one model: each is what it would be alone, whatever happens to the others."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markov_source import ACTIONS, FIELDS, MarkovSource, held_out_loss
from screens import random_screens, screen_fields
from torch.utils._python_dispatch import TorchDispatchMode

from scaling_analysis import TrainError
from training_backend import embedding
from training_backend import stack as stack_module
from training_backend.config import RunConfig
from training_backend.embedding import sum_by_product, sum_into_copies
from training_backend.objectives import behaviour_cloning
from training_backend.objectives.behaviour_cloning import (
    STATE,
    load_snapshot,
    open_stream,
    optimise,
    rate_at,
    snapshot_path,
    train,
)
from training_backend.objectives.training_state import TrainingState
from training_backend.precision import Precision
from training_backend.stack import WARM_UP, Stack
from training_backend.stacking import pays_alone, stacks_of, train_stack
from training_backend.tasks import nethack, nethack_screen

STEPS = 40
SIZES = {"lstm": 1.5e3, "feedforward": 1.5e3, "transformer": 1e4, "lstm-returns": 8e3}


def _config(agent: str = "lstm", **changes: Any) -> RunConfig:
    row = {
        "run_id": "a",
        "agent": agent,
        "task": "markov",
        "params": SIZES[agent],
        "budget": 1e12,
        "seed": 0,
        "learning_rate": 6e-3,
        "batch_size": 128,
    }
    config = replace(RunConfig.from_plan_row(row, MarkovSource()), warmup_steps=10, chunk=16)
    step = config.batch_size * config.flops_per_sample
    snapshots = tuple(n * step for n in (15, 30))
    return replace(config, **({"snapshots": snapshots} | changes))


def _three(config: RunConfig) -> list[RunConfig]:
    """Other seeds, other learning rates; two of them read the same games."""
    return [
        config,
        replace(config, run_id="b", seed=1),
        replace(config, run_id="c", seed=1, learning_rate=0.02, warmup_steps=3),
    ]


def _state(config: RunConfig, folder: Path) -> TrainingState:
    return TrainingState(config, FIELDS, ACTIONS, folder)


def _tensors(chunk: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(array) for name, array in chunk.items()}


class _Products(TorchDispatchMode):
    """Number formats of the matrix products and convolutions inside."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func.overloadpacket).removeprefix("aten.")
        if name in ("mm", "bmm", "addmm", "baddbmm", "convolution", "convolution_backward"):
            self.found.setdefault(name, set()).add(args[1].dtype)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("agent", "size"), [("lstm", 1), ("lstm", 3), ("screen-lstm", 1)])
def test_products_are_bfloat16_where_asked_forwards_and_backwards(
    agent: str, size: int, tmp_path: Path
) -> None:
    screen = agent.startswith("screen")
    fields, config = FIELDS, _config()
    chunk = _tensors(open_stream(config, MarkovSource())[0])
    if screen:
        fields, config = screen_fields(), replace(config, agent=agent, width=6.0)
        chunk |= random_screens(fields, config.chunk, config.lanes)
    configs = [replace(config, run_id=str(seed), seed=seed) for seed in range(size)]
    together = {name: torch.stack([tensor] * size) for name, tensor in chunk.items()}
    losses = []
    for bf16 in (False, True):
        runs = [TrainingState(each, fields, ACTIONS, tmp_path) for each in configs]
        stack = Stack(runs, precision=Precision(bf16=bf16, scanned=True))
        with _Products() as products:
            for _ in range(3):
                stack.step(together, [True] * size, [6e-3] * size)
        kind = {torch.bfloat16 if bf16 else torch.float32}
        assert all(found == kind for found in products.found.values()), products.found
        assert ("convolution_backward" in products.found) == screen
        losses.append(stack.losses.tolist())
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    assert losses[1] != losses[0]


@pytest.mark.parametrize("agent", SIZES)
def test_losses_and_weights_are_those_of_separate_runs(agent: str, tmp_path: Path) -> None:
    configs = _three(_config(agent))
    leg = configs[0].legs[-1]
    streams = [open_stream(config, MarkovSource()) for config in configs]
    alone = [_state(config, tmp_path) for config in configs]
    runs = [_state(config, tmp_path) for config in configs]
    stack = Stack(runs)
    for step in range(STEPS):
        chunks = [_tensors(stream[step]) for stream in streams]
        together = {name: torch.stack([chunk[name] for chunk in chunks]) for name in chunks[0]}
        rates = [rate_at(config, leg, step) for config in configs]
        stack.step(together, [True] * 3, rates)
        for k, run in enumerate(alone):
            run.set_rate(rates[k])
            loss, run.memory = optimise(
                run.agent, run.optimiser, chunks[k], run.memory, configs[k].clip
            )
            run.steps += 1
            run.update_average()
            assert float(stack.losses[k]) == pytest.approx(float(loss), rel=2e-5), (step, k)
    assert stack.lost() == {}
    for run, other in zip(runs, alone, strict=True):
        assert run.steps == other.steps == STEPS
        expected = dict(other.agent.named_parameters())
        for name, parameter in run.agent.named_parameters():
            torch.testing.assert_close(parameter, expected[name], rtol=1e-3, atol=1e-4)
            torch.testing.assert_close(run.average[name], other.average[name], rtol=1e-3, atol=1e-4)
        for ours, theirs in zip(run.memory, other.memory, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


def test_agents_that_read_the_screen_are_stacked_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    fields, steps, lanes = nethack_screen.FIELDS, 3, 2
    config = replace(
        _config(), agent="screen-lstm", width=4.0, batch_size=steps * lanes, chunk=steps
    )
    configs = [config, replace(config, run_id="b", seed=1)]
    shapes = {f.name: (2, steps, lanes, *f.shape) for f in fields}
    chunk = {
        f.name: torch.as_tensor(rng.integers(0, min(f.vocabulary or 24, 256), shapes[f.name]))
        for f in fields
    }
    chunk["action"] = torch.as_tensor(rng.integers(0, nethack.ACTIONS, (2, steps, lanes)))
    chunk["reset"] = torch.zeros(2, steps, lanes, dtype=torch.bool)
    runs = [TrainingState(c, fields, nethack.ACTIONS, tmp_path) for c in configs]
    alone = [TrainingState(c, fields, nethack.ACTIONS, tmp_path) for c in configs]
    stack = Stack(runs)
    for _ in range(2):
        stack.step(chunk, [True, True], [1e-3, 1e-3])
        for k, run in enumerate(alone):
            run.set_rate(1e-3)
            part = {name: tensor[k] for name, tensor in chunk.items()}
            loss, run.memory = optimise(run.agent, run.optimiser, part, run.memory, config.clip)
            assert float(stack.losses[k]) == pytest.approx(float(loss), rel=1e-5)


def _weights(folder: Path, budget: float) -> dict[str, torch.Tensor]:
    agent, _, _ = load_snapshot(snapshot_path(folder, budget), FIELDS, ACTIONS)
    return agent.state_dict()


def _assert_same(one: Path, other: Path, config: RunConfig) -> None:
    for budget in config.snapshots:
        expected = _weights(one, budget)
        for name, weight in _weights(other, budget).items():
            torch.testing.assert_close(weight, expected[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("cooldown", [0.0, 0.2])
def test_a_stack_leaves_what_runs_alone_leave(tmp_path: Path, cooldown: float) -> None:
    configs = _three(_config(cooldown=cooldown, averaging=0.0 if cooldown else 0.1))
    taken: list[int] = []
    folders = [tmp_path / "stack" / c.run_id for c in configs]
    outcomes = train_stack(configs, MarkovSource(), folders, on_step=taken.append)
    assert taken[-1] == sum(outcome.steps for outcome in outcomes) or cooldown
    for config, outcome, folder in zip(configs, outcomes, folders, strict=True):
        alone = train(config, MarkovSource(), tmp_path / "alone" / config.run_id)
        assert (outcome.status, outcome.steps) == (alone.status, alone.steps)
        assert {p.name for p in folder.iterdir()} == {
            p.name for p in (tmp_path / "alone" / config.run_id).iterdir()
        }
        _assert_same(tmp_path / "alone" / config.run_id, folder, config)
        _, found, about = load_snapshot(
            snapshot_path(folder, config.snapshots[-1]), FIELDS, ACTIONS
        )
        assert found == config
        assert about["computing"] == "stack of 3"


class _StopError(Exception):
    pass


def _stop_at(total: int):
    def stop(steps: int) -> None:
        if steps >= total:
            raise _StopError

    return stop


def test_stopped_runs_go_on_from_different_steps_together_or_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs = _three(_config())
    folders = [tmp_path / "parts" / c.run_id for c in configs]
    # a checkpoint after every step, and a kill while those of a step are being written
    monkeypatch.setattr(behaviour_cloning, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(_StopError):
        train_stack(configs, MarkovSource(), folders, on_step=_stop_at(3 * 10))
    with pytest.raises(_StopError):
        train(configs[1], MarkovSource(), folders[1], on_step=_stop_at(13))
    with pytest.raises(_StopError):
        train(configs[2], MarkovSource(), folders[2], on_step=_stop_at(18))
    seen: list[int] = []
    outcomes = train_stack(configs, MarkovSource(), folders, on_step=seen.append)
    assert seen[0] == 11 + 13 + 18  # the one that is behind goes first
    assert [outcome.steps for outcome in outcomes] == [30, 30, 30]
    (folders[0] / STATE).unlink()  # finished runs are not trained again, a lost one is
    snapshot_path(folders[0], configs[0].snapshots[1]).unlink()
    train_stack(configs, MarkovSource(), folders)
    for config, folder in zip(configs, folders, strict=True):
        train(config, MarkovSource(), tmp_path / "alone" / config.run_id)
        _assert_same(tmp_path / "alone" / config.run_id, folder, config)


def _train_in_process(configs: list[RunConfig], folders: list[Path]) -> None:
    torch.set_num_threads(1)
    behaviour_cloning.CHECKPOINT_SECONDS = 0.01  # kills fall between and into checkpoints
    train_stack(configs, MarkovSource(), folders)


@pytest.mark.slow
def test_a_killed_stack_goes_on(tmp_path: Path) -> None:
    config = _config()
    step = config.batch_size * config.flops_per_sample
    configs = _three(replace(config, snapshots=(100 * step, 400 * step)))
    folders = [tmp_path / "killed" / c.run_id for c in configs]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "markov_source"])
    kills = 0
    for delay in [0.05, 0.3, 0.1, None]:
        process = context.Process(target=_train_in_process, args=(configs, folders))
        process.start()
        assert process.pid is not None
        if delay is not None:
            state = folders[-1] / STATE
            before = state.stat().st_mtime_ns if state.exists() else 0
            while process.is_alive() and not (state.exists() and state.stat().st_mtime_ns > before):
                time.sleep(0.001)
            time.sleep(delay)
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                kills += 1
        process.join()
    assert process.exitcode == 0
    assert kills >= 1
    for c, folder in zip(configs, folders, strict=True):
        train(c, MarkovSource(), tmp_path / "alone" / c.run_id)
        losses = []
        for place in (folder, tmp_path / "alone" / c.run_id):
            agent, _, _ = load_snapshot(snapshot_path(place, c.snapshots[1]), FIELDS, ACTIONS)
            losses.append(held_out_loss(agent)[0])
        # rounding grows over hundreds of steps, and no further than this
        assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_a_run_that_diverges_stops_and_touches_no_other(tmp_path: Path) -> None:
    configs = _three(_config())
    configs[1] = replace(configs[1], learning_rate=1e30)
    folders = [tmp_path / "stack" / c.run_id for c in configs]
    outcomes = train_stack(configs, MarkovSource(), folders)
    assert [outcome.status for outcome in outcomes] == ["ok", "diverged", "ok"]
    assert outcomes[1].steps < 15
    assert f"after {outcomes[1].steps * 128:,} samples" in outcomes[1].note
    assert not list(folders[1].glob("*e*.safetensors"))
    for k in (0, 2):
        train(configs[k], MarkovSource(), tmp_path / "alone" / configs[k].run_id)
        _assert_same(tmp_path / "alone" / configs[k].run_id, folders[k], configs[k])
    again = train_stack(configs, MarkovSource(), folders, on_step=lambda _: pytest.fail("trained"))
    assert again[1] == outcomes[1]


def test_a_step_in_which_no_run_goes_changes_nothing(tmp_path: Path) -> None:
    """What a CUDA graph's warm-up relies on."""
    configs = _three(_config())
    runs = [_state(config, tmp_path) for config in configs]
    stack = Stack(runs)
    stream = open_stream(configs[0], MarkovSource())
    for step, going in enumerate([True, False, True]):
        chunk = _tensors(stream[step])
        before = [{k: v.clone() for k, v in run._pack().items()} for run in runs]
        counted = [run.steps for run in runs]
        stack.step({k: torch.stack([v] * 3) for k, v in chunk.items()}, [going] * 3, [0.1] * 3)
        assert [run.steps - n for run, n in zip(runs, counted, strict=True)] == [int(going)] * 3
        for run, old in zip(runs, before, strict=True):
            same = all(torch.equal(tensor, old[name]) for name, tensor in run._pack().items())
            assert same is not going


def test_runs_are_grouped_by_all_but_seed_and_learning_rate() -> None:
    configs = _three(_config())
    other = replace(configs[0], run_id="d", width=9.0)
    longer = replace(configs[0], run_id="e", snapshots=(*configs[0].snapshots, 1e12))
    mixed = [configs[0], other, configs[1], longer, configs[2]]
    names = [[c.run_id for c in group] for group in stacks_of(mixed, 2)]
    assert names == [["a", "b"], ["c"], ["d"], ["e"]]
    with pytest.raises(ValueError, match="at least one run"):
        stacks_of(configs, 0)
    for agent, sizes in (("lstm", [2, 1]), ("transformer", [1] * 3), ("screen-lstm", [1] * 3)):
        large = [replace(config, agent=agent, params=30_000_000) for config in configs]
        assert [len(group) for group in stacks_of(large, 2)] == sizes


@pytest.mark.parametrize("way", [sum_into_copies, sum_by_product])
@pytest.mark.parametrize("size", [1, 2])
@pytest.mark.parametrize("agent", [*SIZES, "screen-lstm"])
def test_no_step_asks_for_a_value_or_brings_one_from_the_host(
    agent: str, size: int, way: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CUDA graph can record neither. On the meta device, which has no values, both fail."""
    adam = torch.optim.Adam
    monkeypatch.setattr(torch.optim, "Adam", lambda params, lr, fused: adam(params, lr))
    monkeypatch.setattr(embedding, "sum_by_scatter", way)  # one of a GPU's
    screen = agent == "screen-lstm"
    fields, config = (screen_fields() if screen else FIELDS), _config("lstm" if screen else agent)
    config = replace(config, agent=agent, width=6.0) if screen else config
    chunk = _tensors(open_stream(config, MarkovSource())[0])
    chunk |= random_screens(fields, config.chunk, config.lanes) if screen else {}
    configs = [replace(config, run_id=str(seed), seed=seed) for seed in range(size)]
    stack = Stack([TrainingState(each, fields, ACTIONS, tmp_path, "meta") for each in configs])
    stack._compute({name: torch.stack([t] * size).to("meta") for name, t in chunk.items()})
    assert stack.losses.is_meta


@pytest.mark.filterwarnings("ignore")  # of the compiler itself
def test_a_gpu_compiles_the_update_once_for_all_sizes_and_reads_nothing_from_the_host() -> None:
    """As one kernel: what reduces an array would be cut as the first size needs it."""
    graphs: list[torch.fx.GraphModule] = []

    def backend(graph: torch.fx.GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(stack_module._update, dynamic=True, backend=backend)
    for runs, params in ((2, 50), (3, 4_000), (6, 300_000)):
        arrays = [torch.rand(runs, params) for _ in range(5)]
        columns = torch.rand(runs, 7).round(decimals=1)
        others = [array.clone() for array in arrays]
        compiled(*arrays, columns)
        stack_module._update(*others, columns)
        assert all(torch.equal(one, other) for one, other in zip(arrays, others, strict=True))
    (graph,) = graphs
    inputs = [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
    assert all(value.dim() == 2 for value in inputs if isinstance(value, torch.Tensor))
    called = {getattr(n.target, "__name__", n.target) for n in graph.graph.nodes if "call" in n.op}
    assert not called & {"linalg_vector_norm", "norm", "sum", "mean", "amax", "item"}


@pytest.mark.parametrize("size", [1, 2])
def test_a_recorded_step_reads_its_own_chunk_and_warming_up_changes_nothing(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Recorded:
        """Stands for a CUDA graph: the step, taken a few times and then at every replay."""

        def __init__(self, step: Callable[[], object]) -> None:
            for _ in range(WARM_UP):
                step()
            self.replay = step

    monkeypatch.setattr(stack_module, "record", Recorded)
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    configs = [_config(run_id=str(seed), seed=seed) for seed in range(size)]
    streams = [open_stream(config, MarkovSource()) for config in configs]
    losses = []
    for graph in (False, True):
        runs = [_state(config, tmp_path) for config in configs]
        stack = Stack(runs, graph=graph)
        found = []
        for step in range(6):
            chunks = [_tensors(stream[step]) for stream in streams]
            together = {name: torch.stack([c[name] for c in chunks]) for name in chunks[0]}
            stack.step(together, [step != 3] * size, [6e-3] * size)
            found.append(stack.losses.clone())
        losses.append(found)
        assert [run.steps for run in runs] == [5] * size
    assert all(torch.equal(one, other) for one, other in zip(*losses, strict=True))
    assert not torch.equal(losses[0][4], losses[0][5])


def test_a_stack_of_one_pays_on_a_gpu_where_kernels_are_small() -> None:
    small, large = _config("transformer"), replace(_config("transformer"), params=30_000_000)
    assert not pays_alone(small, "cpu")
    assert pays_alone(small, "cuda")
    assert not pays_alone(large, "cuda")
    assert pays_alone(replace(_config(), params=30_000_000), "cuda:1")


def test_runs_of_two_kinds_and_other_demonstrations_are_refused(tmp_path: Path) -> None:
    config = _config()
    folders = [tmp_path / "a", tmp_path / "b"]
    other = replace(config, run_id="b", width=9.0)
    with pytest.raises(TrainError, match="runs a, b: a stack takes runs that differ in seed"):
        train_stack([config, other], MarkovSource(), folders)
    with pytest.raises(TrainError, match="planned for the demonstrations"):
        train_stack([config], MarkovSource(seed=5), folders[:1])
