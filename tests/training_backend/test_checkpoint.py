"""Checkpoints: whole or absent, and honest about who wrote them."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch
from markov_source import ACTIONS, FIELDS, MarkovSource
from safetensors.torch import save_file

from scaling_analysis import ScalingWarning, TrainError
from training_backend import checkpoint
from training_backend.config import RunConfig
from training_backend.objectives.training_state import STATE, TrainingState

TENSORS = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor(3, dtype=torch.int64)}


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "x.safetensors"
    checkpoint.save(path, TENSORS, {"steps": 3, "note": "é"})
    tensors, about = checkpoint.load(path)
    assert about == {"steps": 3, "note": "é"}
    assert all(torch.equal(tensors[k], v) for k, v in TENSORS.items())
    assert tensors["b"].dtype == torch.int64
    assert [p.name for p in path.parent.iterdir()] == ["x.safetensors"]


def test_full_disk_keeps_the_older_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {"steps": 3})

    def full(tensors: Any, place: Path, header: Any) -> None:
        place.write_bytes(b"torn")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(TrainError, match=r"the disk is full\. Make room and start again: finished"):
        checkpoint.save(path, TENSORS, {"steps": 4})
    assert checkpoint.load(path)[1] == {"steps": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_another_version_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    monkeypatch.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
    checkpoint.save(path, TENSORS, {})
    monkeypatch.undo()
    message = f"another version of this code .format {checkpoint.FORMAT + 1}, here"
    with pytest.raises(TrainError, match=message):
        checkpoint.load(path)


def test_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {})
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(TrainError, match=r"x\.safetensors: not a readable checkpoint .*delete it"):
        checkpoint.load(path)


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {"steps": 3})
    whole = path.read_bytes()
    for place in (whole.index(b'"steps\\": 3') + 10, len(whole) - 30):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(TrainError, match="its content is not what was written"):
            checkpoint.load(path)


def test_checkpoints_from_before_there_was_a_checksum_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(TENSORS, path, {"format": str(checkpoint.FORMAT), "about": "{}"})
    assert torch.equal(checkpoint.load(path)[0]["a"], TENSORS["a"])


def test_who_may_read_other_files_may_read_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    checkpoint.save(tmp_path / "x.safetensors", TENSORS, {})
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"x\.safetensors: no such checkpoint"):
        checkpoint.load(tmp_path / "x.safetensors")


def test_the_last_checkpoints_are_kept_and_the_newest_whole_one_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    for step in range(5):
        checkpoint.save(path, TENSORS, {"steps": step}, keep=3)
    kept = [checkpoint.older_path(path, age) for age in range(3)]
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert [checkpoint.load(p)[1]["steps"] for p in kept] == [4, 3, 2]
    assert checkpoint.load_newest(path, 3)[1] == {"steps": 4}
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.warns(ScalingWarning, match=r"not a readable.*goes on from .* x\.1\.safe"):
        assert checkpoint.load_newest(path, 3)[1] == {"steps": 3}
    for older in kept[1:]:
        older.write_bytes(b"")
    with pytest.warns(ScalingWarning), pytest.raises(TrainError, match=r"x\.2\.safetensors: not"):
        checkpoint.load_newest(path, 3)


def test_an_only_checkpoint_that_is_damaged_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {}, keep=2)
    path.write_bytes(b"")
    with pytest.raises(TrainError, match=r"x\.safetensors: not a readable checkpoint"):
        checkpoint.load_newest(path, 2)


def test_another_version_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    checkpoint.save(path, TENSORS, {}, keep=2)
    with monkeypatch.context() as later:
        later.setattr(checkpoint, "FORMAT", checkpoint.FORMAT + 1)
        checkpoint.save(path, TENSORS, {}, keep=2)
    with pytest.raises(TrainError, match="another version of this code"):
        checkpoint.load_newest(path, 2)


@pytest.mark.parametrize("links", [True, False])
def test_a_link_is_the_same_checkpoint(
    links: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:  # as on a disk that knows none

        def refuse(*_: object) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(checkpoint.os, "link", refuse)
    one, best = tmp_path / "one.safetensors", tmp_path / "best.safetensors"
    checkpoint.save(one, TENSORS, {"steps": 1})
    checkpoint.link(one, best)
    checkpoint.link(one, best)
    checkpoint.save(one, TENSORS, {"steps": 2})
    assert checkpoint.load(best)[1] == {"steps": 1}
    assert best.stat().st_size == one.stat().st_size


def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(tmp_path: Path) -> None:
    row = {"run_id": "r", "agent": "lstm", "task": "markov", "params": 1e3, "budget": 1e9}
    config = RunConfig.from_plan_row(row | {"seed": 0, "batch_size": 256}, MarkovSource())
    run = TrainingState(config, FIELDS, ACTIONS, tmp_path, "cpu")
    for steps in (3, 5):
        run.steps = steps
        run.keep()
    path = tmp_path / STATE
    path.write_bytes(path.read_bytes()[:-5])
    again = TrainingState(config, FIELDS, ACTIONS, tmp_path, "cpu")
    with pytest.warns(ScalingWarning, match=r"goes on from the checkpoint before it, training\.1"):
        assert again.load()
    assert again.steps == 3
    again.forget(STATE)
    assert not list(tmp_path.glob("*.safetensors"))
