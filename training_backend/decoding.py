"""Recorded games to shards, once: by processes side by side, each file whole or not at all.

What a shard holds is the affair of `features` (made by hand of the screens, uncompressed) and of
`frames` (the screens themselves, compressed). Shards that exist are not made again.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Final

from scaling_analysis.errors import TrainError
from training_backend.demonstrations import Game
from training_backend.families import Observation
from training_backend.features import write_features
from training_backend.files import held, remove_leftovers
from training_backend.frames import write_frames
from training_backend.orphans import work_for_parent
from training_backend.shardfiles import read_about, write_manifest
from training_backend.tasks.observations import find_task

GAMES_A_SHARD: Final = 256
BYTES_A_SHARD: Final = 32 << 20
"""Recordings that a shard is made of at most, unless one game is larger."""
_WRITERS: Final = {"features": write_features, "screen": write_frames}


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
    observation: Observation = "features",
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
    observation
        "features" or "screen": what agents will see.
    workers
        Processes.
    on_shard
        Called with the number of shards done and the number of all.

    Raises
    ------
    TrainError
        No games were given, none could be used, the disk is full, or a process was killed.

    Examples
    --------
    >>> write_shards(open_index("demonstrations"), Path("shards/train"))  # doctest: +SKIP
    Decoded(games=4000, transitions=10234567, skipped=())
    """
    written = write_splits(
        {folder: games}, observation=observation, workers=workers, on_shard=on_shard
    )
    return written[folder]


def write_splits(
    splits: Mapping[Path, Sequence[Game]],
    *,
    observation: Observation = "features",
    workers: int = 1,
    on_shard: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Path, Decoded]:
    """Decode several splits, each into its folder: `write_shards` for all at once.

    No process waits for the last shard of a split before it begins with the next.
    """
    groups: dict[Path, dict[str, list[Game]]] = {}
    for folder, games in splits.items():
        if not games:
            raise TrainError(
                f"no recorded games to decode into {folder}: record some with `scaling-train "
                "collect`"
            )
        parts = _group(sorted(games, key=lambda game: game.name))
        groups[folder] = {
            f"{i:04d}-{_hash(part, observation)}.arrow": part for i, part in enumerate(parts)
        }
    with ExitStack() as stack:
        for folder, shards in groups.items():
            if {path.name for path in folder.glob("*.arrow")} != set(shards):
                stack.enter_context(_alone(folder, shards))
        jobs = [
            (part, folder / name)
            for folder, shards in groups.items()
            for name, part in shards.items()
            if not (folder / name).exists()
        ]
        total = sum(map(len, groups.values()))
        done = total - len(jobs)
        on_shard(done, total)
        for _ in _write(jobs, observation, workers):
            done += 1
            on_shard(done, total)
        return {folder: _finish(folder, list(groups[folder]), splits[folder]) for folder in splits}


@contextmanager
def _alone(folder: Path, shards: Collection[str]) -> Iterator[None]:
    """Hold a folder for this process, rid of all but these shards."""
    busy = f"another process is decoding into {folder}: wait for it, or end it"
    with held(folder.with_name(f".{folder.name}.lock"), busy):
        folder.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder, ".*.tmp")
        for path in folder.glob("*.arrow"):
            if path.name not in shards:
                path.unlink()
        yield


def _finish(folder: Path, names: Sequence[str], games: Sequence[Game]) -> Decoded:
    """Name a folder's shards in it, all of which are there, and say what they hold."""
    about = [read_about(folder / name) for name in names]
    write_manifest(folder, names)
    skipped = tuple((entry[0], entry[1]) for each in about for entry in each["skipped"])
    decoded = sum(len(each["games"]) for each in about)
    if not decoded:
        raise TrainError(f"none of {len(games)} games could be decoded; first: {skipped[0]}")
    transitions = sum(game["steps"] for each in about for game in each["games"])
    return Decoded(games=decoded, transitions=transitions, skipped=skipped)


def _write(
    jobs: Sequence[tuple[list[Game], Path]], observation: Observation, workers: int
) -> Iterator[None]:
    """Write shards, as each is done.

    In processes of their own recordings are checked late, which is cheaper; where damage ends a
    process, what it and those beside it were at is done again with all recordings checked before.
    """
    write = _WRITERS[observation]
    if workers == 1:
        for job in jobs:
            yield write(*job)
        return
    late = True
    left = sorted(jobs, key=lambda job: -sum(game.size for game in job[0]))  # the longest first
    while left:
        broken = []
        with _pool(min(workers, len(left))) as pool:
            doing = {pool.submit(write, *job, late=late): job for job in left}
            for future in as_completed(doing):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    if not late:
                        raise TrainError(
                            f"a process that decodes games into {doing[future][1].parent} has "
                            "ended (out of memory, or killed): give the same command again; "
                            "finished shards are kept"
                        ) from None
                    broken.append(doing[future])
        late, left = False, broken


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one, and at once where what they are used for raises."""
    others = set(active_children())
    pool = ProcessPoolExecutor(
        workers, mp_context=get_context("spawn"), initializer=work_for_parent
    )
    with pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in set(active_children()) - others:
                process.terminate()
            raise


def _group(games: Sequence[Game]) -> list[list[Game]]:
    groups: list[list[Game]] = []
    size = 0
    for game in games:
        size += game.size
        if not groups or len(groups[-1]) == GAMES_A_SHARD or size > BYTES_A_SHARD:
            groups.append([])
            size = game.size
        groups[-1].append(game)
    return groups


def _hash(group: Sequence[Game], observation: Observation) -> str:
    parts = [find_task(observation).ENCODING]
    parts += [f"{game.name} {game.lead} {game.played} {game.size}" for game in group]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
