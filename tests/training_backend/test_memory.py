"""Memory of training: counted before it is spent, explained when it runs out."""

from typing import Any

import pytest
import torch
from markov_source import ACTIONS, FIELDS, MarkovSource

from scaling_analysis import TrainError
from training_backend.config import RunConfig
from training_backend.memory import (
    BYTES_A_PARAMETER,
    MemoryLimitError,
    check_device,
    count_memory,
    device_here,
    device_memory,
    explain,
    explaining_memory,
    fitting_parts,
    fitting_size,
    is_out_of_memory,
)
from training_backend.models import Agent


def _config(**changes: Any) -> RunConfig:
    row = {
        "run_id": "r",
        "agent": "lstm",
        "task": "markov",
        "params": 2e4,
        "budget": 1e12,
        "seed": 0,
        "batch_size": 2048,
    }
    return RunConfig.from_plan_row(row | changes, MarkovSource())


@pytest.mark.parametrize("agent", ["lstm", "feedforward"])
def test_counted_memory_is_what_a_step_keeps(agent: str) -> None:
    config = _config(agent=agent)
    counted = count_memory(config, FIELDS, ACTIONS)
    assert counted.weights == BYTES_A_PARAMETER * config.params
    # the same forward pass for real: bytes that autograd holds until the backward pass
    model = Agent(FIELDS, ACTIONS, config.width, config.agent)
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    chunk = MarkovSource().stream(config.lanes, config.chunk, 0)[0]
    fields = {f.name: torch.from_numpy(chunk[f.name]) for f in FIELDS}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits, _ = model(fields, model.initial_state(config.lanes))
        loss = logits.flatten(0, 1).log_softmax(-1)
    measured = sum(kept.values())
    assert loss.requires_grad
    assert 0.5 < counted.activations / measured < 2


def test_micro_batches_keep_fewer_activations() -> None:
    config = _config()
    whole = count_memory(config, FIELDS, ACTIONS)
    parts = count_memory(config, FIELDS, ACTIONS, micro_batches=4)
    assert parts.weights == whole.weights
    assert parts.activations == pytest.approx(whole.activations / 4, rel=0.1)


def test_what_fits_is_the_most_that_fits() -> None:
    config = _config(params=1e6)
    whole = count_memory(config, FIELDS, ACTIONS)
    room = whole.weights + 0.4 * whole.activations
    parts = fitting_parts(config, FIELDS, ACTIONS, room, above=1)
    assert parts == 4  # halves take more
    assert fitting_parts(config, FIELDS, ACTIONS, whole.weights, above=1) is None
    params = fitting_size(config, FIELDS, ACTIONS, room)
    assert params is not None

    def total(n: float) -> float:
        return count_memory(_config(params=n), FIELDS, ACTIONS).total

    assert total(params) <= room < total(1.25 * params)
    assert fitting_size(config, FIELDS, ACTIONS, 1.0) is None


def test_running_out_of_memory_says_what_fits() -> None:
    config = _config(params=1e6)
    with (
        pytest.raises(MemoryLimitError) as raised,
        explaining_memory([config], FIELDS, ACTIONS, "cpu"),
    ):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried")
    message = str(raised.value)
    assert message.startswith("out of memory on cpu, which has ")
    assert f"{config.params:,} parameters take about" in message
    assert "--micro-batches 2 would fit" in message
    assert "with 2048 samples at a time about" in message
    assert "3 runs of" in explain([config] * 3, FIELDS, ACTIONS, "cpu")


def test_only_memory_is_explained() -> None:
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate"))
    assert is_out_of_memory(RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling"))
    assert not is_out_of_memory(ValueError("out of memory"))
    # what a CUDA graph says whose recording ran out of memory
    late = RuntimeError("operation failed due to a previous error during capture")
    assert not is_out_of_memory(late)
    late.__context__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate")
    assert is_out_of_memory(late)
    with (
        pytest.raises(RuntimeError, match="shapes cannot be multiplied"),
        explaining_memory([_config()], FIELDS, ACTIONS, "cpu"),
    ):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_memory_of_this_machine_is_that_of_its_processes_at_least() -> None:
    assert 1e8 < device_memory("cpu") < 1e15


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_refused() -> None:
    check_device("cpu")
    with pytest.raises(TrainError, match=r"--device cuda: PyTorch .* finds no CUDA device here"):
        check_device("cuda")
    with pytest.raises(TrainError, match="--device gpu: no name of a device; give cpu, cuda"):
        check_device("gpu")
    with pytest.raises(TrainError, match="--device mps: this version trains on cpu and cuda"):
        check_device("mps")
    assert device_here("cuda") == device_here("cpu") == "cpu"
