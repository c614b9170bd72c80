"""Recorded games (ttyrec3) to the frames on which the player pressed a key."""

import bz2
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.bzip2 import with_block
from training_backend.demonstrations import Game

_HEADER: Final = struct.Struct("<iiiB")
"""Of a record: seconds, microseconds, bytes that follow, channel."""
_OUTPUT, _KEY = 0, 1
"""The channels of output and of keys."""
_MARK: Final = _HEADER.pack(0, -1, 1, _KEY) + b"\0" + _HEADER.pack(0, -1, 1, _OUTPUT) + b" "
"""Put behind a recording: a key before time began. (Whatever comes last is lost on the converter
where the file ends at the same byte.)"""
_MARKED: Final = -1
"""The time of that key [microseconds]."""
_CHECKED: Final = 1 << 17
"""Bytes that a file is decompressed in at a time when it is checked: they stay in the cache."""


class Frames(NamedTuple):
    """Consecutive frames of a game: the screen, and the key that the player pressed at it."""

    chars: NDArray[np.uint8]
    """Characters (n, 24, 80)."""
    colors: NDArray[np.int8]
    """Colours (n, 24, 80), 0 to 15, and 16 more in reverse video."""
    cursor: NDArray[np.int16]
    """Row and column of the cursor (n, 2)."""
    keys: NDArray[np.uint8]
    """Key codes (n,)."""
    scores: NDArray[np.int32]
    """Score in the game when the key was pressed (n,) [points]."""
    times: NDArray[np.int64]
    """When the key was recorded (n,) [microseconds since 1970]."""

    def part(self, start: int, stop: int | None) -> "Frames":
        """Frames `start` to `stop`."""
        return self._make(array[start:stop] for array in self)


class Unproven(Exception):
    """A recording was not converted to its end: nobody knows what of it is whole."""


def read_frames(
    game: Game, block: int, *, reuse: bool = False, late: bool = False
) -> Iterator[Frames]:
    """The frames of a game on which the player pressed a key, `block` at a time, the rest last.

    Yields new arrays, or with `reuse` the same ones again and again, which is faster: their content
    must then be used before the next block is asked for. What the environment pressed before the
    player's first key (spaces past greetings) is left out, and so is what it pressed to end the
    game.

    With `late` files that nobody vouches for are checked as they are converted, and not before: at
    their end `Unproven` is raised where they may be damaged, or this process ends on the way.

    Raises `TrainError`, at any block, where a file is missing, damaged, or shorter than the game.
    """
    recordings = _Recordings(game, late)
    if game.played == 0:
        raise TrainError(f"{game.paths[0]}: holds no frames")
    lead, left = game.lead, game.played
    greeted = game.played is not None
    frames, filled, yielded, more = _new_frames(block), 0, 0, True
    while more:
        free = frames.part(filled, None)
        found = recordings.fill(free)
        more = found == len(free.keys)
        start = min(lead, found)
        lead -= start
        while not greeted and start < found:  # nothing says where the play begins
            greeted = not _greets(free.chars[start], int(free.keys[start]))
            start += not greeted
        if start:
            for array in free:
                array[: found - start] = array[start:found]
        filled += found - start
        wanted = block if left is None else min(block, left - yielded)
        if filled >= wanted:
            yield frames.part(0, wanted)
            yielded += wanted
            if yielded == left:
                return
            frames, filled = frames if reuse else _new_frames(block), 0
    if filled:
        yield frames.part(0, filled)
        yielded += filled
    if left is not None:
        raise TrainError(f"{game.paths[-1]}: ends {left - yielded} steps before its game does")
    if not yielded:
        raise TrainError(f"{game.paths[0]}: holds no frames")


class _Recordings:
    """A game's recordings, checked and converted by NLE, one after another."""

    def __init__(self, game: Game, late: bool) -> None:
        from nle.dataset import dataset

        self._converter = dataset.converter.Converter(24, 80, 3)
        self._vouched = _is_as_recorded(game)
        self._late = late and game.played is None  # else nothing is read behind the last step
        self._left = list(enumerate(game.paths))[::-1]
        self._marked = self._loaded = False
        if self._vouched:
            return
        for path in game.paths:
            if not self._late or not path.exists():
                _refuse_damaged(path)
        if game.checksum is not None:
            raise TrainError(f"{game.paths[0]}: another file than the one that was recorded")

    def fill(self, frames: Frames) -> int:
        """Convert the next frames into these arrays; how many, all but at the game's end."""
        filled = 0
        while filled < len(frames.keys) and (self._loaded or self._left):
            if not self._loaded:
                self._load(*self._left.pop())
            filled += self._convert(frames.part(filled, None))
        return filled

    def _load(self, part: int, path: Path) -> None:
        self._path, self._loaded = path, True
        self._marked = not self._vouched and _load_marked(self._converter, path, part)
        if not self._marked:
            if self._late and not self._vouched:
                _refuse_damaged(path)
            self._converter.load_ttyrec(str(path), gameid=1, part=part)

    def _convert(self, frames: Frames) -> int:
        asked = len(frames.keys)
        try:
            found = asked - self._converter.convert(
                frames.chars, frames.colors, frames.cursor, frames.times, frames.keys, frames.scores
            )
        except RuntimeError as error:
            raise self._broken(f"holds what is no record ({error})") from error
        self._loaded = found == asked
        if self._marked and found and frames.times[found - 1] == _MARKED:
            self._marked = self._loaded = False
            found -= 1
        if self._marked and not self._loaded:
            raise self._broken("ends within a record: the recording was not finished")
        return found

    def _broken(self, reason: str) -> Exception:
        return (Unproven if self._late else TrainError)(f"{self._path}: {reason}")


def _new_frames(block: int) -> Frames:
    return Frames(
        chars=np.empty((block, 24, 80), np.uint8),
        colors=np.empty((block, 24, 80), np.int8),
        cursor=np.empty((block, 2), np.int16),
        keys=np.empty(block, np.uint8),
        scores=np.empty(block, np.int32),
        times=np.empty(block, np.int64),
    )


def _greets(chars: NDArray[np.uint8], key: int) -> bool:
    """Whether the environment, not the player, pressed the key: a space past a --More--."""
    return key == ord(" ") and b"--More--" in chars.tobytes()


def _load_marked(converter: Any, path: Path, part: int) -> bool:
    """Load a recording with `_MARK` behind it; nothing is loaded where it cannot be put there."""
    marked = with_block(path.read_bytes(), _MARK)
    if marked is None:
        return False
    try:
        with NamedTemporaryFile(suffix=".ttyrec3.bz2") as file:
            file.write(marked)
            file.flush()
            converter.load_ttyrec(file.name, gameid=1, part=part)  # which keeps it open
    except OSError:  # no room for temporary files: the recording can be read as it is
        return False
    return True


def _is_as_recorded(game: Game) -> bool:
    """Whether a game's recording is, to the byte, the one that was whole when it was finished."""
    if game.checksum is None or len(game.paths) != 1 or not game.paths[0].exists():
        return False
    return zlib.crc32(game.paths[0].read_bytes()) == game.checksum


def _refuse_damaged(path: Path) -> None:
    """Raise `TrainError` where a bz2 file cannot be read to its end.

    NLE's converter takes a file that breaks off for one that ends, shows what a damaged block holds
    before it has seen its checksum, and ends the process on some of that. So a file that nobody
    vouches for is decompressed once before, at about a sixth of the converter's own time, unless
    it is checked late: then it is converted with `_MARK` behind it, which is come to only if all
    blocks before were whole.
    """
    decompressor = bz2.BZ2Decompressor()
    try:
        with path.open("rb") as file:
            while not decompressor.eof:
                chunk = file.read(1 << 16) if decompressor.needs_input else b""
                if decompressor.needs_input and not chunk:
                    raise TrainError(
                        f"{path}: breaks off: the recording was not finished, or not copied to "
                        "its end"
                    )
                decompressor.decompress(chunk, _CHECKED)
    except FileNotFoundError:
        raise TrainError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise TrainError(f"{path}: damaged ({error})") from error
