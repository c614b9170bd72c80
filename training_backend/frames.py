"""Frame shards: the screens of recorded games as they were, compressed, read in any place.

A shard is an Arrow file whose record batches are blocks of up to `BLOCK` consecutive frames of one
game, each column compressed by itself (LZ4, by Arrow). A row holds all that a recording holds of a
frame, so that nothing is lost: characters, colours, cursor, key, the key before, score, time, and
which game and step it is. A last, empty batch carries the shard's description. Block and codec are
chosen by `benchmarks/data.py`: zstd takes a third of the disk, and twice the time to read.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.demonstrations import Game
from training_backend.features import refuse_odd_keys
from training_backend.shardfiles import as_metadata, writing
from training_backend.shards import Split
from training_backend.streams import Blocks
from training_backend.tasks import nethack, nethack_screen
from training_backend.ttyrecs import Frames, Unproven, read_frames

BLOCK: Final = 128
CODEC: Final = "lz4"
_READ: Final = ("characters", "colours", "cursor", "key", "previous", "score")
_CHARACTERS, _COLOURS, _CURSOR, _KEY, _PREVIOUS, _SCORE = 3, 6, 9, 11, 13, 15
"""Which of a batch's buffers hold the values of the columns `_READ`: the batch itself has one, for
what is missing, and so has each column and each list's values."""
_READING: Final = Lock()
"""Loaders of one process share a split's files, and each reads in a thread of its own."""
_CELLS: Final = nethack_screen.ROWS * nethack_screen.COLUMNS


class _Unusable(Exception):
    """A game turned out damaged after some of its blocks had been written."""

    def __init__(self, game: Game, reason: str) -> None:
        super().__init__(reason)
        self.game = game


def write_frames(group: Sequence[Game], path: Path, *, late: bool = False) -> None:
    """Decode games into the shard `path`; damaged ones are named in its description.

    Frames pass through in blocks: memory does not grow with the games. With `late` recordings are
    checked on the way (`ttyrecs.read_frames`), which ends some processes that come upon damage.
    """
    skipped: dict[str, str] = {}
    while True:
        try:
            return _write(group, path, skipped, late)
        except Unproven:
            late = False
        except _Unusable as found:  # rare: what can be seen at a game's start is seen there
            skipped[found.game.name] = str(found)


def _write(group: Sequence[Game], path: Path, skipped: dict[str, str], late: bool) -> None:
    digest = hashlib.sha256()
    games: list[dict[str, Any]] = []
    blocks = 0
    with writing(path, _schema(), CODEC) as writer:
        for game in group:
            if game.name in skipped:
                continue
            steps, before, last = 0, 0, 0
            try:
                for frames in read_frames(game, BLOCK, reuse=True, late=late):
                    refuse_odd_keys(game, frames.keys)
                    columns = _columns(frames, len(games), steps, before)
                    writer.write_batch(_batch(columns))
                    for name in ("cursor", "key", "score"):
                        digest.update(columns[name].data)
                    steps += len(frames.keys)
                    before, last = int(frames.keys[-1]), int(frames.scores[-1])
            except TrainError as error:
                if steps:
                    raise _Unusable(game, str(error)) from error
                skipped[game.name] = str(error)
                continue
            games.append(
                {
                    "name": game.name,
                    "steps": steps,
                    "score": game.points,
                    "last_score": last,
                    "block": blocks,
                }
            )
            blocks += -(-steps // BLOCK)
        about = {
            "encoding": nethack_screen.ENCODING,
            "fields": [asdict(field) for field in nethack_screen.FIELDS],
            "actions": nethack_screen.ACTIONS,
            "block": BLOCK,
            "games": games,
            "skipped": sorted(skipped.items()),
            "hash": digest.hexdigest()[:16],
        }
        nothing = {field.name: np.zeros(0, np.uint8) for field in _schema()}
        writer.write_batch(_batch(nothing), custom_metadata=as_metadata(about))


@cache
def _schema() -> Any:
    import pyarrow as pa

    return pa.schema(
        {
            "characters": pa.list_(pa.uint8(), _CELLS),
            "colours": pa.list_(pa.uint8(), _CELLS),
            "cursor": pa.list_(pa.uint8(), 2),
            "key": pa.uint8(),
            "previous": pa.uint8(),
            "score": pa.int32(),
            "time": pa.int64(),
            "game": pa.int32(),
            "step": pa.int32(),
        }
    )


def _columns(frames: Frames, game: int, first: int, before: int) -> dict[str, NDArray[Any]]:
    """A block's columns; `before` is the key pressed before it, 0 at a game's start."""
    steps = len(frames.keys)
    return {
        "characters": frames.chars,
        "colours": frames.colors.view(np.uint8),
        "cursor": frames.cursor.astype(np.uint8),
        "key": frames.keys,
        "previous": np.concatenate([[np.uint8(before)], frames.keys[:-1]]),
        "score": frames.scores,
        "time": frames.times,
        "game": np.full(steps, game, np.int32),
        "step": np.arange(first, first + steps, dtype=np.int32),
    }


def _batch(columns: dict[str, NDArray[Any]]) -> Any:
    import pyarrow as pa

    arrays: list[Any] = []
    for (kind, dtype, rows), column in zip(_kinds(), columns.values(), strict=True):
        buffer = pa.py_buffer(np.ascontiguousarray(column, dtype))
        flat = pa.Array.from_buffers(kind, column.size, [None, buffer])
        arrays.append(pa.FixedSizeListArray.from_arrays(flat, type=rows) if rows else flat)
    return pa.RecordBatch.from_arrays(arrays, schema=_schema())


@cache
def _kinds() -> list[tuple[Any, Any, Any]]:
    """Arrow's and numpy's type of each column's values, and that of its rows where it has lists."""
    import pyarrow as pa

    kinds: list[tuple[Any, Any, Any]] = []
    for field in _schema():
        rows = field.type if pa.types.is_fixed_size_list(field.type) else None
        kind = field.type if rows is None else rows.value_type
        kinds.append((kind, np.dtype(kind.to_pandas_dtype()), rows))
    return kinds


class FrameShards(Split):
    """The frame shards of one split: what agents see that read the terminal itself.

    Parameters
    ----------
    folder
        Where `decoding.write_shards` wrote them, with observation "screen".
    Examples
    --------
    >>> shards = FrameShards(Path("frames/train"))  # doctest: +SKIP
    >>> shards.stream(batch=64, chunk=32, seed=0)[0]["characters"].shape  # doctest: +SKIP
    (32, 64, 24, 80)
    """

    fields = nethack_screen.FIELDS
    encoding = nethack_screen.ENCODING
    made_by = "`scaling-train collect --observation screen`"
    block = BLOCK

    def _open(self, path: Path, about: dict[str, Any]) -> Any:
        if about["block"] != BLOCK:
            raise TrainError(
                f"{path}: made of blocks of {about['block']} frames, this version reads {BLOCK}; "
                f"delete it and make it again with {self.made_by}"
            )
        return _open_columns(path, _READ)

    def copy(
        self,
        game: int,
        begin: int,
        end: int,
        into: dict[str, NDArray[Any]],
        row: int,
        lane: int,
        blocks: Blocks,
    ) -> None:
        while begin < end:
            number = begin // BLOCK
            block = self._block(game, number, lane, blocks)
            start = begin - number * BLOCK
            stop = min(end - number * BLOCK, BLOCK)
            rows = slice(row, row + stop - start)
            for name, array in into.items():
                if name == "to_go":
                    array[rows, lane] = self._last[game] - block["score"][start:stop]
                else:
                    array[rows, lane] = block[name][start:stop]
            row, begin = rows.stop, begin + stop - start

    def _block(self, game: int, number: int, lane: int, blocks: Blocks) -> dict[str, NDArray[Any]]:
        """A game's block; the one that a lane read last is kept, since it most often goes on."""
        found = blocks.get(lane)
        if found is None or found[0] != game or found[1] != number:
            with _READING:
                batch = self._files[self._shard[game]].get_batch(int(self._start[game]) + number)
            found = blocks[lane] = game, number, _arrays(batch)
        return found[2]

    def actions_of(self, game: int) -> NDArray[np.uint8]:
        keys = self._whole(game, "key")
        return nethack.ACTION_OF_KEY[keys]

    def scores_of(self, game: int) -> NDArray[np.int32]:
        return self._whole(game, "score")

    def _whole(self, game: int, name: str) -> NDArray[Any]:
        """One column of a game, without decompressing the others."""
        file = _open_columns(self.paths[self._shard[game]], (name,))
        first = int(self._start[game])
        blocks = range(first, first - (-int(self.steps[game]) // BLOCK))
        return np.concatenate([file.get_batch(i).column(0).to_numpy() for i in blocks])


def _arrays(batch: Any) -> dict[str, NDArray[Any]]:
    """A block of the columns `_READ`, on the memory that it was decompressed into.

    All buffers are asked for at once: column by column Arrow takes as long as to decompress them.
    """
    steps = batch.num_rows
    buffers = batch.to_struct_array().buffers()
    screens = (steps, nethack_screen.ROWS, nethack_screen.COLUMNS)
    keys, before = (np.ndarray(steps, np.uint8, buffers[at]) for at in (_KEY, _PREVIOUS))
    return {
        "characters": np.ndarray(screens, np.uint8, buffers[_CHARACTERS]),
        "colours": np.ndarray(screens, np.uint8, buffers[_COLOURS]),
        "cursor": np.ndarray((steps, 2), np.uint8, buffers[_CURSOR]),
        "action": nethack.ACTION_OF_KEY.take(keys),
        "previous": nethack.ACTION_OF_KEY.take(before),
        "score": np.ndarray(steps, np.int32, buffers[_SCORE]),
    }


def _open_columns(path: Path, names: Sequence[str]) -> Any:
    """A shard's file, of which some columns will be read."""
    import pyarrow as pa

    places = [_schema().get_field_index(name) for name in names]
    options = pa.ipc.IpcReadOptions(included_fields=places, use_threads=False)
    return pa.ipc.open_file(pa.memory_map(str(path)), options=options)
