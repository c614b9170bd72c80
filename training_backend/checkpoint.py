"""Checkpoints: tensors and JSON in one safetensors file, which appears whole or not at all."""

import json
import os
import shutil
import warnings
import zlib
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scaling_analysis import ScalingWarning, TrainError
from training_backend.files import unwritable, write_file

FORMAT = 2
"""Raised whenever the meaning of a checkpoint's tensors or of the data order changes: a run is
never continued by code that would not have started it the same way."""

_UNKNOWN = ""
"""The checksum of checkpoints from before there was one."""

KEPT = 2
"""Training states that a run keeps: the last one, and the one before it should that be damaged."""


LEFTOVERS = (".*.safetensors.*.tmp", ".tmp*")
"""Names of what a process that is killed while it writes a checkpoint leaves beside it: safetensors
writes a file of its own there first."""


class DamagedError(TrainError):
    """A checkpoint's file is not whole."""


def save(
    path: Path,
    tensors: Mapping[str, torch.Tensor],
    about: Mapping[str, Any],
    *,
    keep: int = 1,
) -> None:
    """Write a checkpoint atomically.

    Args:
        path: its place; the file is written beside it, flushed and renamed.
        tensors: state by name.
        about: what JSON can hold. It goes into the header of the same file, so that state and
            description cannot come apart.
        keep: checkpoints to keep in all, this one and those that it takes the place of
            (`older_path`), for `load_newest`.

    Raises:
        TrainError: the disk is full or cannot be written; an older checkpoint is intact.
    """
    stored = {k: v.detach().contiguous().cpu() for k, v in tensors.items()}
    header = {"format": str(FORMAT), "about": json.dumps(about)}
    header["crc32"] = _checksum(stored, header["about"])
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        mode = beside.stat().st_mode
        save_file(stored, beside, header)
        beside.chmod(mode)  # safetensors keeps others from reading it
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        for age in range(keep - 1, 0, -1):
            if older_path(path, age - 1).exists():
                link(older_path(path, age - 1), older_path(path, age))
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):  # a disk that cannot be written
            beside.unlink(missing_ok=True)
        raise TrainError(unwritable(path, error)) from error


def older_path(path: Path, age: int) -> Path:
    """Where the checkpoint is that was written `age` checkpoints before the one at `path`."""
    return path if age == 0 else path.with_name(f"{path.stem}.{age}{path.suffix}")


def link(source: Path, target: Path) -> None:
    """Have `target` be the same file as `source`, a copy where the disk knows no links."""

    def make(beside: Path) -> None:
        beside.unlink(missing_ok=True)
        try:
            os.link(source, beside)
        except OSError:
            shutil.copyfile(source, beside)

    write_file(target, make)


def load_newest(path: Path, keep: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """As `load`; where the file is damaged, with a warning, the newest of the `keep` that is not.

    Raises:
        TrainError: no file is whole, or another version of this code wrote it.
    """
    paths = [older_path(path, age) for age in range(keep)]
    for at, older in pairwise(paths):
        try:
            return load(at)
        except DamagedError as error:
            if not older.exists():
                raise
            warnings.warn(
                f"{error}. Training goes on from the checkpoint before it, {older.name}",
                ScalingWarning,
                stacklevel=2,
            )
    return load(paths[-1])


def load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and description of a checkpoint.

    Raises:
        TrainError: there is no such file, it is damaged, or another version of this code wrote it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError as error:
        raise TrainError(f"{path}: no such checkpoint") from error
    except (OSError, SafetensorError) as error:
        raise _damaged(path, str(error)) from error
    if header.get("format") != str(FORMAT):
        raise TrainError(
            f"{path}: written by another version of this code (format {header.get('format')}, "
            f"here {FORMAT}); continue it with that version, or delete it to start this run again"
        )
    if header.get("crc32", _UNKNOWN) not in (_UNKNOWN, _checksum(tensors, header["about"])):
        raise _damaged(path, "its content is not what was written")
    return tensors, json.loads(header["about"])


def _damaged(path: Path, reason: str) -> DamagedError:
    return DamagedError(
        f"{path}: not a readable checkpoint ({reason}); if it is a run's, delete its folder to "
        "train that run again"
    )


def _checksum(tensors: Mapping[str, torch.Tensor], about: str) -> str:
    """CRC-32 of a checkpoint's content; its tensors lie in the CPU's memory."""
    found = zlib.crc32(about.encode())
    for name in sorted(tensors):
        content: Any = tensors[name].reshape(-1).view(torch.uint8).numpy()
        found = zlib.crc32(content, zlib.crc32(name.encode(), found))
    return f"{found:08x}"
