"""Checkpoints: tensors and JSON in one safetensors file, which appears whole or not at all."""

import errno
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scaling_analysis import TrainError

FORMAT = 2
"""Raised whenever the meaning of a checkpoint's tensors or of the data order changes: a run is
never continued by code that would not have started it the same way."""


def save(path: Path, tensors: Mapping[str, torch.Tensor], about: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically.

    Args:
        path: its place; the file is written beside it, flushed and renamed.
        tensors: state by name.
        about: what JSON can hold. It goes into the header of the same file, so that state and
            description cannot come apart.

    Raises:
        TrainError: the disk is full or cannot be written; an older checkpoint is intact.
    """
    header = {"format": str(FORMAT), "about": json.dumps(about)}
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, beside, header)
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except (OSError, SafetensorError) as error:
        beside.unlink(missing_ok=True)
        raise TrainError(unwritable(path, error)) from error


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
        raise TrainError(
            f"{path}: not a readable checkpoint ({error}); delete it to start this run again"
        ) from error
    if header.get("format") != str(FORMAT):
        raise TrainError(
            f"{path}: written by another version of this code (format {header.get('format')}, "
            f"here {FORMAT}); continue it with that version, or delete it to start this run again"
        )
    return tensors, json.loads(header["about"])


def unwritable(path: Path, error: Exception) -> str:
    """What to tell a user whose disk refused a file."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    if full:
        return f"{path}: the disk is full. Make room and start again: finished work is kept"
    return f"{path}: cannot be written ({error})"
