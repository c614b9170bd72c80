"""Decoded demonstrations: memory-mapped columns, read as chunks for truncated backpropagation."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.decoding import read_about
from training_backend.tasks import nethack
from training_backend.tasks.fields import Field

STUCK_KEYS = 150
"""A recorded player that presses one key so often on end is stuck: the no-progress rule by which
the protocols end an agent's game, as far as it can be told from keys."""


class Shards:
    """The shards of one split.

    Parameters
    ----------
    folder
        Where `decoding.write_shards` wrote them.

    Raises
    ------
    TrainError
        The folder holds no shards, or some that another encoding made.

    Examples
    --------
    >>> shards = Shards(Path("shards/train"))  # doctest: +SKIP
    >>> stream = shards.stream(batch=64, chunk=32, seed=0)  # doctest: +SKIP
    >>> stream[0]["action"].shape  # doctest: +SKIP
    (32, 64)
    """

    def __init__(self, folder: Path) -> None:
        import pyarrow as pa

        paths = sorted(Path(folder).glob("*.arrow"))
        if not paths:
            raise TrainError(
                f"{folder}: no decoded demonstrations; record games with `scaling-train collect`"
            )
        self.fields: Sequence[Field] = nethack.FIELDS
        self.actions = nethack.ACTIONS
        self.games: list[str] = []
        """Name of every game, in order."""
        self.scores: NDArray[np.float64]
        """Points of every game."""
        names = [*(field.name for field in self.fields), "action"]
        self._columns: list[dict[str, NDArray[Any]]] = []
        shard_of, start_of, steps_of, scores = [], [], [], []
        digest = hashlib.sha256()
        for i, path in enumerate(paths):
            about = read_about(path)
            if about["encoding"] != nethack.ENCODING:
                raise TrainError(
                    f"{path}: encoded as {about['encoding']}, this version reads "
                    f"{nethack.ENCODING}; delete {folder} and decode the games again"
                )
            digest.update(about["hash"].encode())
            batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
            self._columns.append({name: _array(batch.column(name)) for name in names})
            start = 0
            for game in about["games"]:
                self.games.append(game["name"])
                scores.append(game["score"])
                shard_of.append(i)
                start_of.append(start)
                steps_of.append(game["steps"])
                start += game["steps"]
        self.scores = np.array(scores, float)
        self.steps = np.array(steps_of, np.int64)
        """Transitions of every game."""
        self._shard = np.array(shard_of)
        self._start = np.array(start_of)
        self.fingerprint = digest.hexdigest()[:16]
        """Hash of the content."""

    def __len__(self) -> int:
        """Number of distinct transitions."""
        return int(self.steps.sum())

    def stream(self, batch: int, chunk: int, seed: int) -> "ShardStream":
        """Chunks of `chunk` steps in `batch` lanes; see `ShardStream`."""
        return ShardStream(self, batch, chunk, seed)

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
        arrays = self._empty(steps, games)
        counts = np.zeros((steps, games), bool)
        for lane, game in enumerate(chosen):
            self._copy(int(game), int(begin[lane]), int(end[lane]), arrays, 0, lane)
            counts[first[lane] - begin[lane] : end[lane] - begin[lane], lane] = True
        arrays["reset"] = np.zeros((steps, games), bool)
        arrays["reset"][0] = True
        return HeldOut(
            arrays=arrays, counts=counts, games=tuple(self.games[game] for game in chosen)
        )

    def played_steps(self, game: int) -> int:
        """Transitions of a game until its player pressed one key `STUCK_KEYS` times on end."""
        part = slice(self._start[game], self._start[game] + self.steps[game])
        actions = self._columns[self._shard[game]]["action"][part]
        borders = np.flatnonzero(np.diff(actions)) + 1
        begins = np.concatenate([[0], borders])
        lengths = np.diff(np.concatenate([begins, [len(actions)]]))
        stuck = np.flatnonzero(lengths >= STUCK_KEYS)
        return int(begins[stuck[0]]) if stuck.size else len(actions)

    def _empty(self, steps: int, lanes: int) -> dict[str, NDArray[Any]]:
        return {
            name: np.zeros((steps, lanes, *column.shape[1:]), column.dtype)
            for name, column in self._columns[0].items()
        }

    def _copy(
        self, game: int, begin: int, end: int, into: dict[str, NDArray[Any]], row: int, lane: int
    ) -> None:
        columns = self._columns[self._shard[game]]
        start = self._start[game]
        for name, column in columns.items():
            into[name][row : row + end - begin, lane] = column[start + begin : start + end]


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldOut:
    """Frames for the held-out loss: `steps` rows, a lane for each game."""

    arrays: dict[str, NDArray[Any]]
    """The fields, `action` and `reset`, each (steps, games, ...)."""
    counts: NDArray[np.bool_]
    """(steps, games): which frames count; the rest is warm-up or padding."""
    games: tuple[str, ...]
    """Name of each lane's game."""


class ShardStream:
    """All games of a split, endlessly, in lanes side by side, addressed by step.

    An epoch lays the games end to end in an order drawn from (seed, epoch) and cuts that row into
    as many equal stretches as there are lanes: a step takes the next `chunk` transitions of each.
    Memory of an agent carries over from step to step; `reset` is True on a game's first frame and
    where an epoch begins. The few transitions that do not fill a last step are left out.
    """

    def __init__(self, shards: Shards, batch: int, chunk: int, seed: int) -> None:
        self._shards, self.batch, self.chunk, self.seed = shards, batch, chunk, seed
        self._lane_steps = len(shards) // batch
        self.steps_an_epoch = self._lane_steps // chunk
        """Steps until every game has been seen."""
        if not self.steps_an_epoch:
            raise TrainError(
                f"{len(shards):,} transitions are too few for {batch} lanes of {chunk} steps: "
                "record more games or lower the batch size"
            )
        self._epoch = -1
        self._order = np.zeros(0, np.int64)
        self._ends = np.zeros(0, np.int64)

    def epochs(self, steps: int) -> float:
        """How often the data have been seen after so many steps."""
        return steps / self.steps_an_epoch

    def unique_samples(self, steps: int) -> int:
        """Distinct transitions among those of the first `steps` steps."""
        return min(steps * self.batch * self.chunk, len(self._shards))

    def __getitem__(self, step: int) -> dict[str, NDArray[Any]]:
        """Chunk number `step` >= 0: arrays (chunk, batch, ...)."""
        epoch, within = divmod(step, self.steps_an_epoch)
        if epoch != self._epoch:
            rng = np.random.default_rng((self.seed, epoch))
            self._order = rng.permutation(len(self._shards.games))
            self._ends = np.cumsum(self._shards.steps[self._order])
            self._epoch = epoch
        arrays = self._shards._empty(self.chunk, self.batch)
        reset = np.zeros((self.chunk, self.batch), bool)
        reset[0] = within == 0
        begins = np.arange(self.batch) * self._lane_steps + within * self.chunk
        places = np.searchsorted(self._ends, begins, side="right")
        for lane, (at, place) in enumerate(zip(begins.tolist(), places.tolist(), strict=True)):
            row = 0
            while row < self.chunk:
                game = int(self._order[place])
                length = int(self._shards.steps[game])
                begin = at - (int(self._ends[place]) - length)
                size = min(self.chunk - row, length - begin)
                self._shards._copy(game, begin, begin + size, arrays, row, lane)
                if begin == 0:
                    reset[row, lane] = True
                row, at, place = row + size, at + size, place + 1
        arrays["reset"] = reset
        return arrays


def _array(column: Any) -> NDArray[Any]:
    """An Arrow column as an array on the same memory."""
    import pyarrow as pa

    if pa.types.is_fixed_size_list(column.type):
        flat = column.flatten().to_numpy(zero_copy_only=True)
        return flat.reshape(len(column), column.type.list_size)
    return column.to_numpy(zero_copy_only=True)
