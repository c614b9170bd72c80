"""Decoded demonstrations of one split: games on disk, read in any place."""

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.shardfiles import list_shards, read_about
from training_backend.streams import Blocks, Layout, ShardStream
from training_backend.tasks import nethack
from training_backend.tasks.fields import Field

STUCK_KEYS = 150
"""A recorded player that presses one key so often on end is stuck: the no-progress rule by which
the protocols end an agent's game, as far as it can be told from keys."""


class Split(ABC):
    """Games of one split, whatever form their observations are kept in.

    Opening reads the shards' descriptions alone. A copy that is sent to another process is opened
    there anew, so that nothing but its folder's name travels.

    Raises
    ------
    TrainError
        The folder holds no shards, one is missing, or some are another encoding's.
    """

    fields: Sequence[Field]
    encoding: ClassVar[str]
    made_by: ClassVar[str]
    """Command that makes such shards."""
    actions: int = nethack.ACTIONS
    block: ClassVar[int] = 1
    """Steps of a game that are decompressed together."""

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self.paths = list_shards(self.folder, self.made_by)
        self._files: list[Any] = []
        self._chosen: tuple[int, ...] | None = None
        described: list[dict[str, Any]] = []
        shard_of: list[int] = []
        start_of: list[int] = []
        digest = hashlib.sha256()
        for i, path in enumerate(self.paths):
            about = read_about(path)
            if about["encoding"] != self.encoding:
                raise TrainError(
                    f"{path}: encoded as {about['encoding']}, this version reads "
                    f"{self.encoding}; delete {self.folder} and decode the games again"
                )
            digest.update(about["hash"].encode())
            self._files.append(self._open(path, about))
            start = 0
            for game in about["games"]:
                described.append(game)
                shard_of.append(i)
                start_of.append(game.get("block", start))
                start += game["steps"]
        self.games: list[str] = [game["name"] for game in described]
        """Name of every game, in order."""
        self.scores = np.array([game["score"] for game in described], float)
        """NetHack's final points of every game."""
        self.steps = np.array([game["steps"] for game in described], np.int64)
        """Transitions of every game."""
        self.has_scores: bool = all("last_score" in game for game in described)
        """Whether the score at every frame is known."""
        self._last = np.array([game.get("last_score", 0) for game in described], np.int32)
        self._shard = np.array(shard_of)
        self._start = np.array(start_of)
        self.first_rows = np.cumsum(self.steps) - self.steps
        """(games,) row at which each game begins, all shards laid end to end."""
        self._content = digest.hexdigest()[:16]
        self.fingerprint: str = self._content
        """Hash of the content: a run goes on only with the data that it started with."""

    @abstractmethod
    def _open(self, path: Path, about: dict[str, Any]) -> Any:
        """Map one shard."""

    @abstractmethod
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
        """Steps `begin` to `end` of a game, to the rows from `row` on of a lane of these arrays.

        `blocks` is where a reader keeps what it has decompressed for a lane.
        """

    @abstractmethod
    def actions_of(self, game: int) -> NDArray[np.uint8]:
        """(steps,) actions of a game."""

    @abstractmethod
    def scores_of(self, game: int) -> NDArray[np.int32]:
        """(steps,) score in the game at each of its frames [points]; `has_scores` must hold."""

    def __len__(self) -> int:
        """Number of distinct transitions."""
        return int(self.steps.sum())

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.folder, self._chosen)

    def subset(self, games: Sequence[int] | NDArray[np.integer]) -> Self:
        """The same shards with some games only, by number; its fingerprint is its own."""
        part = copy.copy(self)
        chosen = [int(game) for game in games]
        before = range(len(self.games)) if self._chosen is None else self._chosen
        part._chosen = tuple(before[game] for game in chosen)
        part.games = [self.games[game] for game in chosen]
        for name in ("scores", "steps", "first_rows", "_last", "_shard", "_start"):
            setattr(part, name, getattr(self, name)[chosen])
        text = f"{self._content} {part.games}"
        part.fingerprint = hashlib.sha256(text.encode()).hexdigest()[:16]
        return part

    def layout(self, returns: bool = False) -> Layout:
        """Shape and type of a transition's fields, `action` and, with returns, `to_go`.

        Raises `TrainError` where returns are asked for and the shards hold no scores.
        """
        arrays: Layout = {f.name: (f.shape, np.dtype(f.dtype)) for f in self.fields}
        arrays["action"] = ((), np.dtype(np.uint8))
        if returns:
            self._need_scores()
            arrays["to_go"] = ((), np.dtype(np.int32))
        return arrays

    def _need_scores(self) -> None:
        if not self.has_scores:
            raise TrainError(
                f"{self.folder}: decoded without the score at every frame, which agents that learn "
                f"returns need; delete the folder and make it anew with {self.made_by}"
            )

    def stream(self, batch: int, chunk: int, seed: int, *, returns: bool = False) -> "ShardStream":
        """Chunks of `chunk` steps in `batch` lanes; with `to_go` if returns; see `ShardStream`."""
        return ShardStream(self, batch, chunk, seed, returns=returns)

    def returns_to_go(self) -> NDArray[np.int32]:
        """(len,) points that the player had still to score at each transition, games in order.

        The score at the game's last frame minus that at the frame: negative where points were lost
        again. Raises `TrainError` for shards without scores.
        """
        self._need_scores()
        games = range(len(self.games))
        return np.concatenate([self._last[game] - self.scores_of(game) for game in games])

    def held_out(self, games: int = 128, frames: int = 1024, warmup: int = 64) -> "HeldOut":
        """The same frames every time: one stretch of each of the first `games` games.

        A stretch lies anywhere in its game, by a fixed draw, but before the player got stuck
        (`played_steps`): a few games full of one key, right or wrong as one, would decide the mean.
        Where it does not begin with the game, `warmup` frames before it fill an agent's memory and
        do not count.

        Raises `TrainError` where there are fewer games.
        """
        if len(self.games) < games:
            raise TrainError(
                f"the held-out loss needs {games} games, there are {len(self.games)}: "
                "record or hold out more"
            )
        order = np.argsort([hashlib.sha256(name.encode()).hexdigest() for name in self.games])
        chosen = np.sort(order[:games])
        played = np.array([self.played_steps(int(game)) for game in chosen])
        rng = np.random.default_rng(0)
        first = rng.integers(0, np.maximum(played - frames, 0) + 1)
        begin = np.maximum(first - warmup, 0)
        end = np.minimum(first + frames, played)
        steps = int((end - begin).max())
        arrays = {
            name: np.zeros((steps, games, *shape), dtype)
            for name, (shape, dtype) in self.layout(self.has_scores).items()
        }
        counts = np.zeros((steps, games), bool)
        for lane, game in enumerate(chosen):
            self.copy(int(game), int(begin[lane]), int(end[lane]), arrays, 0, lane, {})
            counts[first[lane] - begin[lane] : end[lane] - begin[lane], lane] = True
        arrays["reset"] = np.zeros((steps, games), bool)
        arrays["reset"][0] = True
        return HeldOut(
            arrays=arrays, counts=counts, games=tuple(self.games[game] for game in chosen)
        )

    def played_steps(self, game: int) -> int:
        """Transitions of a game until its player pressed one key `STUCK_KEYS` times on end."""
        actions = self.actions_of(game)
        borders = np.flatnonzero(np.diff(actions)) + 1
        begins = np.concatenate([[0], borders])
        lengths = np.diff(np.concatenate([begins, [len(actions)]]))
        stuck = np.flatnonzero(lengths >= STUCK_KEYS)
        return int(begins[stuck[0]]) if stuck.size else len(actions)


def _reopen(kind: type[Split], folder: Path, chosen: tuple[int, ...] | None) -> Split:
    split = kind(folder)
    return split if chosen is None else split.subset(chosen)


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Frames for the held-out loss: `steps` rows, a lane for each game."""

    arrays: dict[str, NDArray[Any]]
    """The fields, `action`, `reset` and, where scores are known, `to_go`, each (steps, games, ...).
    """
    counts: NDArray[np.bool_]
    """(steps, games): which frames count; the rest is warm-up or padding."""
    games: tuple[str, ...]
    """Name of each lane's game."""


class Shards(Split):
    """The feature shards of one split: memory-mapped columns (`features.write_features`).

    Parameters
    ----------
    folder
        Where `decoding.write_shards` wrote them.

    Examples
    --------
    >>> shards = Shards(Path("shards/train"))  # doctest: +SKIP
    >>> stream = shards.stream(batch=64, chunk=32, seed=0)  # doctest: +SKIP
    >>> stream[0]["action"].shape  # doctest: +SKIP
    (32, 64)
    """

    fields = nethack.FIELDS
    encoding = nethack.ENCODING
    made_by = "`scaling-train collect`"

    def _open(self, path: Path, about: dict[str, Any]) -> dict[str, NDArray[Any]]:
        import pyarrow as pa

        batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
        names = [*(field.name for field in self.fields), "action"]
        names += ["score"] if "score" in batch.schema.names else []
        return {name: _array(batch.column(name)) for name in names}

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
        columns = self._files[self._shard[game]]
        start = self._start[game]
        rows, part = slice(row, row + end - begin), slice(start + begin, start + end)
        for name, array in into.items():
            if name == "to_go":
                array[rows, lane] = self._last[game] - columns["score"][part]
            else:
                array[rows, lane] = columns[name][part]

    def actions_of(self, game: int) -> NDArray[np.uint8]:
        return self._column(game, "action")

    def scores_of(self, game: int) -> NDArray[np.int32]:
        return self._column(game, "score")

    def _column(self, game: int, name: str) -> NDArray[Any]:
        start = self._start[game]
        return self._files[self._shard[game]][name][start : start + self.steps[game]]

    @property
    def nbytes(self) -> int:
        """Bytes of the fields and actions of all games in the shards."""
        return sum(column.nbytes for columns in self._files for name, column in columns.items())

    def columns(self, returns: bool = False) -> dict[str, NDArray[Any]]:
        """Copies of whole columns, as named in `layout`: `ShardStream.rows` points into them."""
        names = list(self.layout(returns))
        found = {
            name: np.concatenate([columns[name] for columns in self._files])
            for name in names
            if name != "to_go"
        }
        if returns:
            to_go = np.zeros(len(found["action"]), np.int32)
            for game, first in enumerate(self.first_rows):
                part = slice(first, first + self.steps[game])
                to_go[part] = self._last[game] - self.scores_of(game)
            found["to_go"] = to_go
        return found


def _array(column: Any) -> NDArray[Any]:
    """An Arrow column as an array on the same memory."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return flat.reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=True)
