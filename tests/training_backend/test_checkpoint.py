"""Checkpoints: whole or absent, and honest about who wrote them."""

import errno
from pathlib import Path
from typing import Any

import pytest
import torch

from scaling_analysis import TrainError
from training_backend import checkpoint

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


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainError, match=r"x\.safetensors: no such checkpoint"):
        checkpoint.load(tmp_path / "x.safetensors")
