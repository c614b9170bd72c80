"""Recording demonstrations: an expert's games in the format of `demonstrations`, resumable.

Every process plays into a scratch folder of its own; a finished game is moved into the collection,
its xlogfile last and at once. So a recording that is killed at any moment resumes without loss or
repetition.
"""

import json
import multiprocessing
import os
import shutil
import signal
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing import connection
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import TrainError
from training_backend.demonstrations import read_keys, read_row
from training_backend.experts.nethack import Player
from training_backend.files import held
from training_backend.tasks.nethack_env import make_env, start_game

_SCRATCH: Final = ".recording"
_FOLDER: Final = 100
"""Seeds whose games share a folder."""


class Expert(Protocol):
    """Who plays: `reset` before every game, then `act` once for every observation."""

    def reset(self) -> None: ...

    def act(
        self, chars: NDArray[np.uint8], colors: NDArray[np.int8], cursor: NDArray[np.uint8]
    ) -> int:
        """Index into `nle.nethack.ACTIONS` for a screen as the environment gives it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """What `collect` left on disk."""

    root: Path
    games: int
    """Finished games of the seeds asked for, recorded now or before."""
    recorded: int
    """Games among them that this call recorded."""
    set_aside: int
    """Games that NLE could not end at the step cap: not indexed, not tried again."""
    steps: int
    """Keys of play [transitions] over all games."""
    capped: int
    """Games that the step cap ended."""
    mean_score: float
    """Mean of NetHack's points."""


def collect(
    out_dir: Path | str,
    games: int,
    first_seed: int,
    *,
    workers: int | None = None,
    max_steps: int = 8000,
    expert: Callable[[], Expert] = Player,
) -> Collection:
    """Record one game for each seed from `first_seed` on; skip those that are on disk already.

    Parameters
    ----------
    out_dir
        Root of the collection; one process at a time may record into it.
    games, first_seed
        Seeds `first_seed` to `first_seed + games - 1`.
    workers
        Processes; None uses one a core.
    max_steps
        Step cap [keys]: a game that is still alive there is quit.
    expert
        Makes the player; a class or function of a module, since it goes to other processes.

    Raises `TrainError` for a bad count, a root in use, or a disk that is full; games that were
    finished stay, and the same call goes on from there.
    """
    if games < 1 or first_seed < 0 or max_steps < 1:
        raise TrainError(
            f"cannot record {games} games from seed {first_seed} with a cap of {max_steps} steps: "
            "games and cap must be at least 1, seeds at least 0"
        )
    root = Path(out_dir).resolve()
    seeds = range(first_seed, first_seed + games)
    busy = f"another process is recording into {root}: wait for it, or choose another folder"
    with held(root / ".lock", busy):
        shutil.rmtree(root / _SCRATCH, ignore_errors=True)  # games that were cut short
        missing = [
            s for s in seeds if not (_row_path(root, s).exists() or _aside(root, s).exists())
        ]
        if missing:
            count = min(workers or os.cpu_count() or 1, len(missing))
            _record_all(root, missing, count, max_steps, expert)
            # A process that outlived a killed recording may have written there meanwhile.
            shutil.rmtree(root / _SCRATCH, ignore_errors=True)
    rows = [read_row(_row_path(root, s)) for s in seeds if _row_path(root, s).exists()]
    return Collection(
        root=root,
        games=len(rows),
        recorded=sum(_row_path(root, s).exists() for s in missing),
        set_aside=sum(_aside(root, s).exists() for s in seeds),
        steps=sum(int(row["played"]) for row in rows),
        capped=sum(int(row["capped"]) for row in rows),
        mean_score=float(np.mean([int(row["points"]) for row in rows])) if rows else float("nan"),
    )


def _row_path(root: Path, seed: int) -> Path:
    return root / f"{seed // _FOLDER * _FOLDER}" / f"nle.{seed}.xlogfile"


def _aside(root: Path, seed: int) -> Path:
    return root / "set_aside" / f"{seed}.json"


def _record_all(
    root: Path, seeds: list[int], workers: int, max_steps: int, expert: Callable[[], Expert]
) -> None:
    from rich.console import Console
    from rich.progress import Progress

    context = multiprocessing.get_context("spawn")
    readers: list[Connection] = []
    processes = []
    for i in range(workers):
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(
            target=_record, args=(root, seeds[i::workers], max_steps, expert, writer), daemon=True
        )
        process.start()
        writer.close()
        readers.append(reader)
        processes.append(process)
    console = Console(stderr=True)
    failures = []
    with Progress(console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("games recorded", total=len(seeds))
        while readers:
            ready = connection.wait(readers)
            for reader in [r for r in readers if r in ready]:
                try:
                    news = reader.recv()
                except EOFError:
                    readers.remove(reader)
                    continue
                if isinstance(news, str):
                    failures.append(news)
                else:
                    progress.advance(task)
    for process in processes:
        process.join()
        if process.exitcode:
            failures.append(f"a recording process ended with status {process.exitcode}")
    if failures:
        raise TrainError(
            f"recording into {root} stopped: {failures[0]}; the games finished so far are kept: "
            "free the cause, then give the same command again to go on"
        )


def _record(
    root: Path, seeds: Sequence[int], max_steps: int, expert: Callable[[], Expert], news: Connection
) -> None:
    """Body of a recording process: plays its seeds, one finished game at a time."""
    parent = os.getppid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # an interrupt is the parent's to handle
    scratch = root / _SCRATCH / str(os.getpid())
    try:
        env = make_env(record_to=scratch)
        player = expert()
        finished: tuple[int, list[int], bool] | None = None
        for episode, seed in enumerate(seeds):
            observation = start_game(env, seed)  # this also closes the recording before it
            if finished is not None:
                _keep(root, scratch, episode - 1, *finished)
                news.send(finished[0])
            keys, capped = _play(env, player, observation, max_steps, parent)
            finished = seed, keys, capped
        env.close()
        if finished is not None:
            _keep(root, scratch, len(seeds) - 1, *finished)
            news.send(finished[0])
    except (OSError, TrainError) as error:
        news.send(f"{type(error).__name__}: {error}")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _play(
    env: Any, player: Expert, observation: dict[str, Any], max_steps: int, parent: int
) -> tuple[list[int], bool]:
    """Keys of one game and whether the cap ended it; leaves where the parent process is gone."""
    player.reset()
    keys: list[int] = []
    done = False
    while not done and len(keys) < max_steps:
        chars, colors, cursor = (observation[k] for k in ("tty_chars", "tty_colors", "tty_cursor"))
        action = player.act(chars, colors, cursor)
        keys.append(int(env.actions[action]))
        observation, _, done, _, _ = env.step(action)
        if len(keys) % 256 == 0:
            _leave_with(parent)
    _leave_with(parent)
    if not done:
        quit_game(env)
    return keys, not done


def _leave_with(parent: int) -> None:
    """End this process if the one that started it is gone: nobody else may record then."""
    if os.getppid() != parent:
        os._exit(1)


def quit_game(env: Any) -> None:
    """End a running game as its player would, so that NetHack writes its xlogfile row."""
    for _ in range(3):  # out of menus and the choice of a place, which NLE does not leave itself
        env.nethack.step(27)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a quit that fails shows in the missing row
        env._quit_game(env.last_observation, False)


def _keep(
    root: Path, scratch: Path, episode: int, seed: int, keys: list[int], capped: bool
) -> None:
    """Move one finished game into the collection, the row that makes it exist last."""
    recording = next(scratch.glob(f"nle.*.{episode}.ttyrec3.bz2"))
    rows = next(scratch.glob("*.xlogfile")).read_text("latin-1").splitlines()
    row = next((r for r in rows if r.endswith(f"ttyrecname={recording.name}")), None)
    if row is None:
        _write_at_once(_aside(root, seed), json.dumps({"seed": seed, "steps": len(keys)}))
        recording.unlink()
        return
    recorded, _ = read_keys(recording)
    played = bytes(keys)
    lead = recorded.find(played)
    if lead < 0:
        raise TrainError(f"the recording of seed {seed} is incomplete (is the disk full?)")
    row_path = _row_path(root, seed)
    final = row_path.with_name(f"nle.{seed}.0.ttyrec3.bz2")
    row_path.parent.mkdir(parents=True, exist_ok=True)
    os.replace(recording, final)
    fields = row.split("\t")[:-1]
    fields += [f"seed={seed}", f"lead={lead}", f"played={len(keys)}", f"capped={int(capped)}"]
    fields += [f"crc32={zlib.crc32(final.read_bytes())}"]
    _write_at_once(row_path, "\t".join([*fields, f"ttyrecname={final.name}\n"]))


def _write_at_once(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.write_text(text, "latin-1")
    os.replace(draft, path)
