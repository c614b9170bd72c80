"""Files of decoded demonstrations: each appears whole or not at all, and says what it holds.

A split's folder holds shards, Arrow files named by their number and a hash of what they were made
from, and `shards.json`, which names them all, so that one that is missing is noticed.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from scaling_analysis.errors import TrainError
from training_backend.files import unwritable, write_json

MANIFEST: Final = "shards.json"
_ABOUT: Final = b"about"


@contextmanager
def writing(path: Path, schema: Any, compression: str | None = None) -> Iterator[Any]:
    """A writer of record batches into the Arrow file `path`, which is there when the block ends.

    Raises `TrainError` where the disk is full or cannot be written; nothing is left then.
    """
    import pyarrow as pa

    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    options = pa.ipc.IpcWriteOptions(compression=compression, use_threads=False)
    try:
        with (
            pa.OSFile(str(beside), "wb") as sink,
            pa.ipc.new_file(sink, schema, options=options) as writer,
        ):
            yield writer
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise TrainError(unwritable(path, error)) from error
    finally:
        beside.unlink(missing_ok=True)


def as_metadata(about: Mapping[str, Any]) -> dict[bytes, bytes]:
    """A shard's description as Arrow keeps it, in its schema or with its last batch."""
    return {_ABOUT: json.dumps(about).encode()}


def read_about(path: Path) -> dict[str, Any]:
    """The description of a shard: encoding, games (name, steps, score), skipped, hash."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            file = pa.ipc.open_file(source)
            metadata = file.schema.metadata or {}
            if _ABOUT not in metadata:
                last = file.num_record_batches - 1
                metadata = file.get_batch_with_custom_metadata(last).custom_metadata
            return json.loads(metadata[_ABOUT])
    except (pa.ArrowException, KeyError, TypeError, ValueError, OSError) as error:
        raise TrainError(f"{path}: not a shard of demonstrations ({error}); delete it") from error


def write_manifest(folder: Path, names: Sequence[str]) -> None:
    """Say which shards the folder holds, which may be one that cannot be written if it says so."""
    content = {"shards": list(names)}
    try:
        same = json.loads((folder / MANIFEST).read_text()) == content
    except (OSError, ValueError):
        same = False
    if not same:
        write_json(folder / MANIFEST, content)


def list_shards(folder: Path, made_by: str) -> list[Path]:
    """The shards of a folder, in order.

    Parameters
    ----------
    folder
        A split's folder.
    made_by
        The command that makes the shards, for the message where some are missing.

    Raises `TrainError` where there are none, or where one that should be there is missing; folders
    from before `shards.json` are judged by gaps in the numbers of their files.
    """
    paths = sorted(folder.glob("*.arrow"))
    if not paths:
        raise TrainError(f"{folder}: no decoded demonstrations; make them with {made_by}")
    manifest = folder / MANIFEST
    if manifest.exists():
        try:
            names = [str(name) for name in json.loads(manifest.read_text())["shards"]]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TrainError(
                f"{manifest}: damaged ({error}); make it anew with {made_by}: shards that are "
                "there are kept"
            ) from error
        lost = [name for name in names if not (folder / name).exists()]
        paths = [folder / name for name in names]
    else:
        numbers = {int(m[1]) for path in paths if (m := re.match(r"(\d{4})-", path.name))}
        lost = [f"{i:04d}-*.arrow" for i in range(max(numbers, default=-1)) if i not in numbers]
    if lost:
        raise TrainError(
            f"{folder}: {len(lost)} of its shards {'is' if len(lost) == 1 else 'are'} missing, "
            f"first {lost[0]}: copy it there again, or make it anew from the recordings with "
            f"{made_by}; shards that are there are kept"
        )
    return paths
