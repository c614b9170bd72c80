"""Files that appear whole or not at all, locks, and what to say where the disk refuses a file."""

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_analysis import TrainError


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` make a file beside `path`, and put it in its place once it is complete.

    Raises:
        TrainError: the disk is full or cannot be written; a file that stood there is intact.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        beside.replace(path)
    except OSError as error:
        with suppress(OSError):  # a disk that cannot be written
            beside.unlink(missing_ok=True)
        raise TrainError(unwritable(path, error)) from error


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a dictionary as JSON; see `write_file`."""
    write_file(path, lambda beside: beside.write_text(json.dumps(content, indent=1)))


def write_parquet(path: Path, frame: pd.DataFrame) -> None:
    """Write a table as Parquet; see `write_file`."""
    write_file(path, lambda beside: frame.to_parquet(beside, index=False))


@contextmanager
def held(path: Path, busy: str, patience: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path` for this process; it is let go even if the process is killed.

    Args:
        path: the lock file; its folder is made.
        busy: what to say where another process holds it for longer than that.
        patience: how long to wait for it [s].

    Raises:
        TrainError: another process holds it, or the disk cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise TrainError(unwritable(path, error)) from error
    with file:
        until = time.monotonic() + patience
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= until:
                    raise TrainError(busy) from None
                time.sleep(0.2)
        yield


def remove_leftovers(folder: Path, *patterns: str) -> None:
    """Remove the unfinished files of these names that a killed process left in a folder.

    Only who holds the folder may do this: another process may be writing them.
    """
    for pattern in patterns:
        for beside in folder.glob(pattern):
            beside.unlink(missing_ok=True)


def unwritable(path: Path, error: Exception) -> str:
    """What to tell a user whose disk refused a file."""
    full = getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error)
    if full:
        return f"{path}: the disk is full. Make room and start again: finished work is kept"
    return f"{path}: cannot be written ({error})"
