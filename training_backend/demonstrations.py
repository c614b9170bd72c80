"""Demonstrations in the format of the NetHack Learning Dataset: indexing, splitting, reading.

A recorded game is a pair of files in ``root/<folder>/``: the terminal recording
(``nle.<seed>.0.ttyrec3.bz2``) and a one-line xlogfile (``nle.<seed>.xlogfile``). The line is NLE's
own with five fields more: the game's seed, the recorded keys before the play begins (``lead``), the
keys of the play (``played``; what follows them was pressed by NLE to end the game), whether the
step cap ended it (``capped``) and the CRC-32 of the recording, as it was when it was found to be
whole (``crc32``). A game exists when its xlogfile does.

Recordings of others, NLD-AA for one, have no such fields and are read by the same functions.
"""

import bz2
import contextlib
import glob
import hashlib
import io
import os
import sqlite3
import struct
import tempfile
import warnings
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import ScalingWarning, TrainError

TRAIN_SEEDS: Final = range(1_000_000, 2_000_000)
HELD_OUT_SEEDS: Final = range(2_000_000, 3_000_000)
"""Seeds of demonstrations; evaluation plays 3,000,000 and up, tuning 4,000,000 and up."""
DATABASE: Final = "ttyrecs.db"
_DATASET: Final = "games"
_HEADER: Final = struct.Struct("<iiiB")
_INPUT, _SCORE = 1, 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Game:
    """One indexed game."""

    gameid: int
    """Its number in the SQLite index, from 1."""
    paths: tuple[Path, ...]
    """The parts of its recording, in order."""
    points: int
    """NetHack's final points, of the xlogfile."""
    turns: int
    """Game turns."""
    death: str
    """How it ended, in NetHack's words."""
    seed: int | None
    """Seed; None where somebody else recorded it."""
    lead: int
    """Recorded keys before the play begins."""
    played: int | None
    """Keys of the play; None means all that follow `lead`."""
    capped: bool
    """Whether the step cap ended it."""
    checksum: int | None = None
    """CRC-32 of its recording when it was whole; None where nobody wrote it down."""

    @property
    def name(self) -> str:
        """Folder and file of the first part: the same on every machine."""
        return f"{self.paths[0].parent.name}/{self.paths[0].name}"

    @property
    def size(self) -> int:
        """Bytes of its recording, as far as it is there."""
        return sum(path.stat().st_size for path in self.paths if path.exists())


def read_row(path: Path) -> dict[str, str]:
    """The fields of the first line of an xlogfile; what is no field is passed over."""
    with path.open(encoding="latin-1") as log:
        fields = log.readline().rstrip("\n").split("\t")
    return dict(field.split("=", 1) for field in fields if "=" in field)


def open_index(root: Path | str, database: Path | None = None) -> list[Game]:
    """All games under a root of NLE's layout (`root/<folder>/nle.*.xlogfile`), sorted by name.

    The index is NLE's own SQLite database: made at `database` (default `root/ttyrecs.db`, or a
    temporary file where the root cannot be written or holds somebody's own database of that name)
    unless one is there that is younger than every game; `nle.dataset.TtyrecDataset` opens it as
    data set "games". Recordings that no readable row names are left out, with a warning. Raises
    `TrainError` where the folder holds no finished game.
    """
    root = Path(root).resolve()
    logs = list(root.glob("*/*.xlogfile"))
    if not logs:
        raise TrainError(
            f"no recorded games in {root}: expected folders with nle.*.xlogfile and "
            "nle.*.ttyrec3.bz2 files; record some with `scaling-train collect`"
        )
    with tempfile.TemporaryDirectory() as spare:
        if database is None:
            database = root / DATABASE
            if not os.access(root, os.W_OK) or _data_sets(database) - {_DATASET}:
                database = Path(spare) / DATABASE
        newest = max(log.stat().st_mtime_ns for log in logs)
        if not _data_sets(database) or database.stat().st_mtime_ns <= newest:
            _build_index(root, database, logs)
        games = sorted(_indexed_games(root, database), key=lambda game: game.name)
    _warn_of_the_unnamed(root, games)
    return games


def _data_sets(database: Path) -> set[str]:
    """Names of the data sets in an index; none where there is no index, or a damaged one."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as index:
            return {name for (name,) in index.execute("SELECT DISTINCT dataset_name FROM datasets")}
    except sqlite3.DatabaseError:
        return set()


def _build_index(root: Path, database: Path, logs: Sequence[Path]) -> None:
    """Have NLE index the games of the xlogfiles that it can read."""
    from nle.dataset import db, populate_db

    odd = {log: reason for log in logs if (reason := _oddity(log))}
    if len(odd) == len(logs):
        log, reason = next(iter(odd.items()))
        raise TrainError(f"no game in {root} can be indexed: {log} {reason}")
    draft = database.with_name(f".{database.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            tempfile.TemporaryDirectory() as spare,
        ):
            db.create(str(draft))
            readable = _without(root, odd, Path(spare)) if odd else root
            populate_db.add_nledata_directory(str(readable), _DATASET, str(draft))
        if odd:
            with contextlib.closing(sqlite3.connect(draft)) as index:
                index.execute("UPDATE roots SET root = ?", (str(root),))
                index.commit()
        os.replace(draft, database)
    finally:
        draft.unlink(missing_ok=True)


def _oddity(log: Path) -> str:
    """What keeps NLE from indexing the games of an xlogfile; nothing if it can."""
    from nle.dataset import populate_db

    recordings = log.parent.glob(f"{glob.escape(log.stem)}.*.ttyrec*.bz2")
    if len({path.name.rpartition("ttyrec")[2] for path in recordings}) != 1:
        return "has no recordings beside it, or some of different versions"
    try:
        log.read_bytes().decode("ascii")
        for _ in populate_db.game_data_generator(str(log)):
            pass
    except ValueError as error:
        return f"is damaged ({error})"
    return ""


def _without(root: Path, odd: Collection[Path], shadow: Path) -> Path:
    """A folder like `root`, of links, without these xlogfiles."""
    for folder in {log.parent for log in root.glob("*/*.xlogfile")}:
        beside = [log.name for log in odd if log.parent == folder]
        if not beside:
            (shadow / folder.name).symlink_to(folder)
            continue
        (shadow / folder.name).mkdir()
        for path in folder.iterdir():
            if path.name not in beside:
                (shadow / folder.name / path.name).symlink_to(path)
    return shadow


def _warn_of_the_unnamed(root: Path, games: Sequence[Game]) -> None:
    named = {path for game in games for path in game.paths}
    unnamed = sorted(set(root.glob("*/*.ttyrec3.bz2")) - named)
    if unnamed:
        warnings.warn(
            f"{root}: {len(unnamed)} recordings are left out, first "
            f"{unnamed[0].relative_to(root)}: no readable row of an xlogfile beside them names "
            "them, so how their games ended is not known",
            ScalingWarning,
            stacklevel=3,
        )


def _indexed_games(root: Path, database: Path) -> Iterator[Game]:
    with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as index:
        found = index.execute(
            "SELECT games.gameid, points, turns, death, group_concat(path, char(10)) FROM "
            "(SELECT gameid, path FROM ttyrecs ORDER BY gameid, part) AS parts "
            "JOIN games ON games.gameid = parts.gameid GROUP BY games.gameid"
        ).fetchall()
    for gameid, points, turns, death, parts in found:
        paths = tuple(root / part for part in parts.split("\n"))
        own = _own_fields(paths[0])
        yield Game(
            gameid=gameid,
            paths=paths,
            points=points,
            turns=turns,
            death=death,
            seed=int(own["seed"]) if own else None,
            lead=int(own["lead"]) if own else 0,
            played=int(own["played"]) if own else None,
            capped=bool(own) and own["capped"] == "1",
            checksum=int(own["crc32"]) if "crc32" in own else None,
        )


def _own_fields(path: Path) -> dict[str, str]:
    """Row of a game that `recording.collect` wrote; nothing for the recordings of others."""
    stem, first_part, _ = path.name.partition(".0.ttyrec")
    row_path = path.with_name(f"{stem}.xlogfile")
    row = read_row(row_path) if first_part and row_path.exists() else {}
    if "seed" not in row:
        return {}
    for name in ("seed", "lead", "played", "capped"):
        if not row.get(name, "").isdecimal():
            raise TrainError(
                f"{row_path}: damaged ({name} is no number); remove it and its recording, which "
                "`scaling-train collect` then records again"
            )
    return row


def split_games(games: Sequence[Game], held_out: int) -> tuple[list[Game], list[Game]]:
    """(train, held-out) games, never parts of one: for recordings without seeds of their own.

    The choice follows a hash of the games' names, so it does not depend on their order or on the
    machine. Raises `TrainError` where no game would be left to train on.
    """
    if not 0 < held_out < len(games):
        raise TrainError(
            f"cannot hold out {held_out} of {len(games)} games: hold out 1 to {len(games) - 1}"
        )
    order = sorted(games, key=lambda game: hashlib.sha256(game.name.encode()).digest())
    return order[held_out:], order[:held_out]


def read_keys(path: Path) -> tuple[bytes, NDArray[np.int32]]:
    """Keys of one recording file and the score in the game when each was pressed, both (keys,).

    Raises `TrainError` that names the file where it is cut short or damaged.
    """
    try:
        length = 0
        raw = bz2.decompress(path.read_bytes())
        keys = bytearray()
        scores = []
        score = 0
        at = 0
        while at < len(raw):
            _, _, length, channel = _HEADER.unpack_from(raw, at)
            at += _HEADER.size
            if channel == _INPUT:
                keys.append(raw[at])
                scores.append(score)
            elif channel == _SCORE:
                (score,) = struct.unpack_from("<i", raw, at)
            at += length
        if length < 0 or at != len(raw):
            raise ValueError("a record runs past the end")
    except (OSError, ValueError, EOFError, struct.error, IndexError) as error:
        raise TrainError(f"{path} is damaged and cannot be read ({error}): remove it") from error
    return bytes(keys), np.array(scores, np.int32)


def read_game(game: Game) -> tuple[bytes, int]:
    """Keys of the play, cut to it, and NetHack's final points: what two collections must share."""
    keys = b"".join(read_keys(path)[0] for path in game.paths)
    end = None if game.played is None else game.lead + game.played
    return keys[game.lead : end], game.points
