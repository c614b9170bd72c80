"""Recorded games (ttyrec3) to shards: decoded and encoded once, so that training only reads arrays.

A shard is an Arrow file of one record batch, uncompressed: a column for every field and one for
the action, a row for every transition, games one after another. Its schema's metadata names the
games. Shards are made by processes side by side, each appears whole or not at all, and those that
exist are not made again.
"""

import bz2
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.demonstrations import Game
from training_backend.tasks import nethack

GAMES_A_SHARD: Final = 256
_LANES: Final = 64
_BLOCK: Final = 64
"""Frames that are decoded of a game at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decoded:
    """What `write_shards` did."""

    games: int
    """Games in the folder's shards."""
    transitions: int
    """Rows of the folder's shards."""
    skipped: tuple[tuple[str, str], ...]
    """Recordings that could not be used, each with the reason."""


def write_shards(
    games: Sequence[Game],
    folder: Path,
    *,
    workers: int = 1,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> Decoded:
    """Decode recorded games into the shards of one split.

    Parameters
    ----------
    games
        The split's games, as `demonstrations.open_index` lists them. Damaged ones are left out,
        named in the result and in their shard.
    folder
        Where the shards go. Shards there of the same games and encoding are kept; others go.
    workers
        Processes.
    on_shard
        Called with the number of shards done and the number of all.

    Raises
    ------
    TrainError
        No games were given, none could be used, or the disk is full.

    Examples
    --------
    >>> write_shards(open_index("demonstrations"), Path("shards/train"))  # doctest: +SKIP
    Decoded(games=4000, transitions=10234567, skipped=())
    """
    if not games:
        raise TrainError(
            f"no recorded games to decode into {folder}: record some with `scaling-train collect`"
        )
    ordered = sorted(games, key=lambda game: game.name)
    groups = [ordered[i : i + GAMES_A_SHARD] for i in range(0, len(ordered), GAMES_A_SHARD)]
    names = [f"{i:04d}-{_group_hash(group)}.arrow" for i, group in enumerate(groups)]
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.arrow"):
        if path.name not in names:
            path.unlink()
    missing = [i for i, name in enumerate(names) if not (folder / name).exists()]
    done = len(names) - len(missing)
    on_shard(done, len(names))
    jobs = [(groups[i], folder / names[i]) for i in missing]
    if workers > 1 and len(jobs) > 1:
        context = get_context("spawn")
        with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=context) as pool:
            for future in as_completed([pool.submit(_write_shard, *job) for job in jobs]):
                future.result()
                done += 1
                on_shard(done, len(names))
    else:
        for job in jobs:
            _write_shard(*job)
            done += 1
            on_shard(done, len(names))
    about = [read_about(folder / name) for name in names]
    skipped = tuple((entry[0], entry[1]) for each in about for entry in each["skipped"])
    decoded = sum(len(each["games"]) for each in about)
    if not decoded:
        raise TrainError(f"none of {len(ordered)} games could be decoded; first: {skipped[0]}")
    transitions = sum(game["steps"] for each in about for game in each["games"])
    return Decoded(games=decoded, transitions=transitions, skipped=skipped)


def read_about(path: Path) -> dict[str, Any]:
    """The description of a shard: encoding, games (name, steps, score), skipped, hash."""
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as source:
            metadata = pa.ipc.open_file(source).schema.metadata
        return json.loads(metadata[b"about"])
    except (pa.ArrowInvalid, KeyError, TypeError, OSError) as error:
        raise TrainError(f"{path}: not a shard of demonstrations ({error}); delete it") from error


def _group_hash(group: Sequence[Game]) -> str:
    parts = [nethack.ENCODING]
    parts += [f"{game.name} {game.lead} {game.played} {_size(game)}" for game in group]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _write_shard(group: Sequence[Game], path: Path) -> None:
    import pyarrow as pa

    games, columns, skipped = encode_games(group)
    for field in nethack.FIELDS:
        if field.vocabulary is not None and columns[field.name].max(initial=0) >= field.vocabulary:
            raise AssertionError(f"field {field.name} has an id beyond {field.vocabulary}")
    digest = hashlib.sha256()
    for name in sorted(columns):
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
    schema = batch.schema.with_metadata({"about": json.dumps(about)})
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with pa.OSFile(str(beside), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            writer.write_batch(batch.replace_schema_metadata(schema.metadata))
        with beside.open("rb") as file:
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise TrainError(
            f"{path}: cannot be written ({error}). Make room and start again: finished shards are "
            "kept"
        ) from error


def encode_games(
    recordings: Sequence[Game],
) -> tuple[list[dict[str, Any]], dict[str, NDArray[Any]], list[tuple[str, str]]]:
    """Decode and encode games, several side by side.

    Returns the usable games (name, steps, score) in the order given, the columns of all their
    transitions (fields and `action`), and the recordings left out with the reason.
    """
    # The longest first, so that no lane is left with a long game at the end.
    queue = sorted(recordings, key=_size)
    lanes = min(_LANES, len(queue))
    encoder = nethack.Encoder(lanes)
    streams: list[Iterator[tuple[Any, ...]] | None] = [None] * lanes
    playing: list[Game | None] = [None] * lanes
    parts: dict[str, dict[str, list[NDArray[Any]]]] = {}
    skipped: dict[str, str] = {}
    names = [field.name for field in nethack.FIELDS] + ["action"]
    chars = np.full((lanes, _BLOCK, 24, 80), 32, np.uint8)
    colors = np.zeros((lanes, _BLOCK, 24, 80), np.int8)
    cursor = np.zeros((lanes, _BLOCK, 2), np.int16)
    keys = np.zeros((lanes, _BLOCK), np.uint8)
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
                    streams[lane] = read_frames(recording, _BLOCK)
                    encoder.reset(lane)
                    previous[lane] = nethack.NO_ACTION
                    parts[recording.name] = {name: [] for name in names}
                try:
                    block = next(streams[lane] or iter(()), None)
                except TrainError as error:
                    block = None
                    skipped[recording.name] = str(error)
                    del parts[recording.name]
                if block is None:
                    playing[lane] = None
                    continue
                filled[lane] = size = len(block[3])
                for whole, part in zip((chars, colors, cursor, keys), block, strict=True):
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
                for name in names[:-1]:
                    parts[recording.name][name].append(out[name][:size, lane].copy())
                parts[recording.name]["action"].append(actions[lane, :size].copy())
    games, kept = [], []
    for recording in recordings:
        if recording.name in parts:
            part = parts[recording.name]
            kept.append(part)
            steps = sum(map(len, part["action"]))
            games.append({"name": recording.name, "steps": steps, "score": recording.points})
    columns = {
        name: np.concatenate([piece for part in kept for piece in part[name]])
        if kept
        else np.zeros(0, np.uint8)
        for name in names
    }
    return games, columns, sorted(skipped.items())


def _size(game: Game) -> int:
    return sum(path.stat().st_size for path in game.paths if path.exists())


def read_frames(game: Game, block: int) -> Iterator[tuple[Any, ...]]:
    """The frames of a game on which the player pressed a key, `block` at a time, the rest last.

    Yields new arrays chars (n, 24, 80), colors (n, 24, 80), cursor (n, 2), keys (n,). What the
    environment pressed before the player's first key (spaces past greetings) is left out, and so
    is what it pressed to end the game.

    Raises `TrainError`, at any block, where a file is missing, damaged, or shorter than the game.
    """
    for path in game.paths:
        if reason := _damage(path):
            raise TrainError(f"{path}: {reason}")
    left = game.played
    yielded = False
    held: list[NDArray[Any]] = []
    for frames in _play_frames(game, block):
        if held:
            held = [np.concatenate(pair) for pair in zip(held, frames, strict=True)]
        else:
            held = list(frames)
        while len(held[0]) >= block and left != 0:
            size = block if left is None else min(block, left)
            yield tuple(array[:size] for array in held)
            yielded = True
            held = [array[size:] for array in held]
            left = None if left is None else left - size
        if left == 0:
            return
    size = len(held[0]) if held else 0
    size = size if left is None else min(size, left)
    if size:
        yield tuple(array[:size] for array in held)
    if left is not None and left > size:
        raise TrainError(f"{game.paths[-1]}: ends {left - size} steps before its game does")
    if not (yielded or size):
        raise TrainError(f"{game.paths[0]}: holds no frames")


def _play_frames(game: Game, block: int) -> Iterator[tuple[Any, ...]]:
    """All frames from the first of the play on, in pieces of any length."""
    from nle.dataset import dataset

    lead = game.lead
    greeted = game.played is not None
    converter = dataset.converter.Converter(24, 80, 3)
    for part, path in enumerate(game.paths):
        converter.load_ttyrec(str(path), gameid=1, part=part)
        size = block
        while size == block:
            chars = np.zeros((block, 24, 80), np.uint8)
            colors = np.zeros((block, 24, 80), np.int8)
            cursor = np.zeros((block, 2), np.int16)
            keys = np.zeros(block, np.uint8)
            times, scores = np.zeros(block, np.int64), np.zeros(block, np.int32)
            size = block - converter.convert(chars, colors, cursor, times, keys, scores)
            start = min(lead, size)
            lead -= start
            while not greeted and start < size:  # nothing says where the play begins
                greeted = not _greets(chars[start], int(keys[start]))
                start += not greeted
            if start < size:
                yield chars[start:size], colors[start:size], cursor[start:size], keys[start:size]


def _greets(chars: NDArray[np.uint8], key: int) -> bool:
    """Whether the environment, not the player, pressed the key: a space past a --More--."""
    return key == ord(" ") and b"--More--" in chars.tobytes()


def _damage(path: Path) -> str:
    """What is wrong with a bz2 file; nothing if it can be read to its end.

    NLE's converter takes a file that breaks off for one that ends.
    """
    decompressor = bz2.BZ2Decompressor()
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 16):
                decompressor.decompress(chunk)
                if decompressor.eof:
                    return ""
    except FileNotFoundError:
        return "no such file"
    except (OSError, EOFError) as error:
        return f"damaged ({error})"
    return "breaks off: the recording was not finished, or not copied to its end"
