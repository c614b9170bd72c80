"""Feature shards: recorded games encoded once, so that training only reads arrays.

A shard is an Arrow file of one record batch, uncompressed: a column for every field of
`tasks.nethack`, one for the action and one for the score, a row for every transition, games one
after another. Its schema's metadata names the games.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.demonstrations import Game
from training_backend.shardfiles import as_metadata, writing
from training_backend.tasks import nethack
from training_backend.ttyrecs import Frames, Unproven, read_frames

_LANES: Final = 64
_BLOCK: Final = 64
"""Frames that are decoded of a game at a time."""
_COLUMNS: Final = (*(field.name for field in nethack.FIELDS), "action", "score")


def write_features(group: Sequence[Game], path: Path, *, late: bool = False) -> None:
    """Decode and encode games into the shard `path`; damaged ones are named in its description.

    With `late` recordings are checked on the way (`ttyrecs.read_frames`), which ends some processes
    that come upon damage.
    """
    import pyarrow as pa

    try:
        games, columns, skipped = encode_games(group, late=late)
    except Unproven:
        games, columns, skipped = encode_games(group)
    for field in nethack.FIELDS:
        if field.vocabulary is not None and columns[field.name].max(initial=0) >= field.vocabulary:
            raise AssertionError(f"field {field.name} has an id beyond {field.vocabulary}")
    digest = hashlib.sha256()
    for name in sorted(set(columns) - {"score"}):  # shards from before there were scores match
        digest.update(columns[name].data)
    about = {
        "encoding": nethack.ENCODING,
        "fields": [asdict(field) for field in nethack.FIELDS],
        "actions": nethack.ACTIONS,
        "games": games,
        "skipped": skipped,
        "hash": digest.hexdigest()[:16],
    }
    arrays: list[Any] = []
    for column in columns.values():
        flat = pa.array(column.reshape(-1))
        width = column[0].size if len(column) else 1
        arrays.append(flat if column.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, width))
    batch = pa.RecordBatch.from_arrays(arrays, names=list(columns))
    batch = batch.replace_schema_metadata(as_metadata(about))
    with writing(path, batch.schema) as writer:
        writer.write_batch(batch)


def encode_games(
    recordings: Sequence[Game], *, late: bool = False
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]], list[tuple[str, str]]]:
    """Decode and encode games, several side by side.

    Returns the usable games (name, steps, score) in the order given, the columns of all their
    transitions (fields, `action` and `score`), and the recordings left out with the reason.
    """
    # The longest first, so that no lane is left with a long game at the end.
    queue = sorted(recordings, key=lambda game: game.size)
    lanes = min(_LANES, len(queue))
    encoder = nethack.Encoder(lanes)
    streams: list[Iterator[Frames]] = [iter(())] * lanes
    playing: list[Game | None] = [None] * lanes
    parts: dict[str, dict[str, list[NDArray[Any]]]] = {}
    skipped: dict[str, str] = {}
    chars = np.full((lanes, _BLOCK, 24, 80), 32, np.uint8)
    colors = np.zeros((lanes, _BLOCK, 24, 80), np.int8)
    cursor = np.zeros((lanes, _BLOCK, 2), np.int16)
    keys = np.zeros((lanes, _BLOCK), np.uint8)
    scores = np.zeros((lanes, _BLOCK), np.int32)
    previous = np.full(lanes, nethack.NO_ACTION, np.uint8)
    while True:
        filled = np.zeros(lanes, np.int64)
        for lane in range(lanes):
            while not filled[lane]:
                recording = playing[lane]
                if recording is None:
                    if not queue:
                        break
                    recording = playing[lane] = queue.pop()
                    streams[lane] = read_frames(recording, _BLOCK, reuse=True, late=late)
                    encoder.reset(lane)
                    previous[lane] = nethack.NO_ACTION
                    parts[recording.name] = {name: [] for name in _COLUMNS}
                try:
                    block = next(streams[lane], None)
                    if block is not None:
                        refuse_odd_keys(recording, block.keys)
                except TrainError as error:
                    block = None
                    skipped[recording.name] = str(error)
                    del parts[recording.name]
                if block is None:
                    playing[lane] = None
                    continue
                filled[lane] = size = len(block.keys)
                for whole, part in zip((chars, colors, cursor, keys, scores), block, strict=False):
                    whole[lane, :size] = part
        if not filled.any():
            break
        actions = nethack.ACTION_OF_KEY[keys]
        steps = int(filled.max())
        out = {
            field.name: np.empty((steps, lanes, *field.shape), field.dtype)
            for field in nethack.FIELDS
        }
        # A block is short at the end of its game only: what a lane sees after it is never read.
        for step in range(steps):
            observation = encoder.encode(chars[:, step], colors[:, step], cursor[:, step], previous)
            for name, value in observation.items():
                out[name][step] = value
            previous = actions[:, step]
        for lane in range(lanes):
            recording, size = playing[lane], filled[lane]
            if recording is not None and size:
                for name, value in out.items():
                    parts[recording.name][name].append(value[:size, lane].copy())
                parts[recording.name]["action"].append(actions[lane, :size].copy())
                parts[recording.name]["score"].append(scores[lane, :size].copy())
    games, kept = [], []
    for recording in recordings:
        if recording.name in parts:
            part = parts[recording.name]
            kept.append(part)
            steps = sum(map(len, part["action"]))
            games.append(
                {
                    "name": recording.name,
                    "steps": steps,
                    "score": recording.points,
                    "last_score": int(part["score"][-1][-1]),
                }
            )
    columns = {
        name: np.concatenate([piece for part in kept for piece in part[name]])
        if kept
        else np.zeros(0, np.uint8)
        for name in _COLUMNS
    }
    return games, columns, sorted(skipped.items())


def refuse_odd_keys(game: Game, keys: NDArray[np.uint8]) -> None:
    """Raise `TrainError` where a key is none of the actions: nothing could learn to press it."""
    odd = keys[nethack.ACTION_OF_KEY[keys] == nethack.NO_ACTION]
    if odd.size:
        raise TrainError(f"{game.paths[0]}: holds the key {int(odd[0])}, which is no action")
