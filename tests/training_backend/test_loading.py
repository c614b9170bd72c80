"""Loading: the same bytes in the same order, however many processes read, wherever they go."""

import os
import signal

import numpy as np
import pytest
import torch
from markov_source import MarkovSource
from synthetic_shards import write_synthetic

from scaling_analysis.errors import TrainError
from training_backend import loading
from training_backend.loading import open_loader, resident_columns
from training_backend.shards import Shards

STEPS = (0, 1, 2, 3, 4, 5, 6, 20, 21, 3, 4, 5)
"""Three epochs of 8 steps, with jumps, as a run makes that goes on from a checkpoint."""


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_synthetic(folder, [("1", 300), ("2", 7), ("3", 150)])
    write_synthetic(folder, [("4", 1), ("5", 342)])
    return Shards(folder)


@pytest.fixture(scope="module")
def expected(shards):
    stream = shards.stream(4, 25, seed=1, returns=True)
    assert stream.steps_an_epoch == 8
    return [stream[step] for step in STEPS]


def assert_same(chunk, arrays):
    assert set(chunk) == set(arrays)
    for name, array in arrays.items():
        assert chunk[name].numpy().tobytes() == array.tobytes(), name
        assert chunk[name].shape == array.shape


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_bytes_and_order_do_not_depend_on_the_number_of_readers(shards, expected, workers):
    stream = shards.stream(4, 25, seed=1, returns=True)
    with open_loader(stream, workers=workers) as load:
        chunks = [load[step] for step in STEPS]
        assert load.waited > 0
    for chunk, arrays in zip(chunks, expected, strict=True):
        assert_same(chunk, arrays)  # and later chunks did not overwrite earlier ones


def test_memory_is_used_again_once_nobody_holds_it(shards, monkeypatch):
    monkeypatch.setattr(loading, "AT_ONCE", 2)
    with open_loader(shards.stream(4, 25, seed=1)) as load:
        places = []
        for step in range(16):
            chunk = load[step]
            places.append(chunk["action"].data_ptr())
        assert len(set(places)) <= 2 * 3  # steps read together; held, used and read ahead
        held = [load[step] for step in range(16, 24)]
        assert len({chunk["action"].data_ptr() for chunk in held}) == 8


def test_steps_read_one_at_a_time_are_read_ahead_too(shards, expected, monkeypatch):
    monkeypatch.setattr(loading, "AT_ONCE", 1)
    with open_loader(shards.stream(4, 25, seed=1, returns=True)) as load:
        for step, arrays in zip(STEPS, expected, strict=True):
            assert_same(load[step], arrays)


def test_demonstrations_kept_on_the_device_give_the_same(shards, expected):
    with open_loader(shards.stream(4, 25, seed=1, returns=True), resident=True) as load:
        for step, arrays in zip(STEPS, expected, strict=True):
            assert_same(load[step], arrays)


@pytest.mark.parametrize("way", [{"workers": 0}, {"workers": 2}, {"resident": True}])
def test_one_rank_reads_its_own_lanes(shards, expected, way):
    stream = shards.stream(4, 25, seed=1, returns=True)
    with open_loader(stream, lanes=range(1, 4), **way) as load:
        for step, arrays in zip(STEPS[:4], expected, strict=False):
            assert_same(load[step], {k: np.ascontiguousarray(v[:, 1:4]) for k, v in arrays.items()})


def test_any_stream_is_read():
    stream = MarkovSource().stream(3, 10, seed=0)
    with open_loader(stream, workers=2) as load:
        assert_same(load[4], dict(stream[4]))
    with open_loader(stream, lanes=range(1, 3)) as load:
        part = {name: np.ascontiguousarray(array[:, 1:3]) for name, array in stream[4].items()}
        assert_same(load[4], part)


def test_columns_are_kept_once_and_only_where_they_may_be(shards):
    assert resident_columns(shards, "cpu") is None
    kept = resident_columns(shards, "cpu", force=True)
    assert kept is not None
    assert resident_columns(shards, "cpu", force=True) is kept
    assert {*kept.places, *kept.others} == {"action", *(field.name for field in shards.fields)}
    assert kept.packed.shape == (len(shards), sum(field.size for field in shards.fields) + 1)
    assert resident_columns(MarkovSource(), "cpu", force=True) is None


def test_a_reader_that_is_gone_is_noticed(shards):
    stream = shards.stream(4, 25, seed=1)
    with open_loader(stream, workers=2) as load:
        load[0]
        reader = load._source._readers._processes[0]
        os.kill(reader.pid, signal.SIGKILL)
        reader.join()
        with pytest.raises(TrainError, match="a process that reads demonstrations has ended"):
            assert [load[step] for step in range(1, 8)]


def test_what_a_reader_finds_wrong_is_told(tmp_path):
    write_synthetic(tmp_path, [("1", 300)])
    stream = Shards(tmp_path).stream(2, 10, seed=0)
    stream.shards.folder = tmp_path / "elsewhere"  # what a reader will not find
    with (
        open_loader(stream, workers=1) as load,
        pytest.raises(TrainError, match="a process that reads demonstrations has ended"),
    ):
        load[0]


def test_readers_end_with_the_loader(shards):
    with open_loader(shards.stream(4, 25, seed=1), workers=2) as load:
        load[0]
        processes = load._source._readers._processes
    assert not any(process.is_alive() for process in processes)


@pytest.mark.gpu
@pytest.mark.parametrize("way", [{"workers": 0}, {"workers": 3}, {"resident": True}])
def test_a_cuda_device_gets_the_same_bytes(shards, expected, way):
    stream = shards.stream(4, 25, seed=1, returns=True)
    with open_loader(stream, device="cuda", **way) as load:
        chunks = [load[step] for step in STEPS]
        torch.cuda.synchronize()
    for chunk, arrays in zip(chunks, expected, strict=True):
        resets = chunk.pop("reset_host")
        assert all(value.is_cuda for value in chunk.values())
        assert resets.numpy().tobytes() == arrays["reset"].tobytes()
        assert_same({name: value.cpu() for name, value in chunk.items()}, arrays)
