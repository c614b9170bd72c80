"""From an expert, or from somebody's recordings, to the shards that training reads."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from training_backend import demonstrations
from training_backend.bench import HELD_OUT, TRAIN, shards_folder
from training_backend.decoding import write_splits
from training_backend.demonstrations import Game
from training_backend.families import Observation
from training_backend.recording import collect


def prepare_demonstrations(
    data: Path,
    games: int,
    held_out: int,
    *,
    source: Path | None = None,
    observations: Sequence[Observation] = ("features",),
    workers: int = 1,
    say: Callable[[str], object] = print,
) -> None:
    """Record the scripted expert, or take recorded games, and decode both splits.

    What is on disk already is neither recorded nor decoded again.

    Args:
        data: folder for the recordings, a folder a split, and the shards.
        games: games to train on; not used with `source`, whose other games are all taken.
        held_out: games to measure the loss on.
        source: folder of ttyrec3 recordings in NLE's layout to take instead of recording.
        observations: what agents will see: "features", "screen", or both; each takes its own
            shards.
        workers: processes.
        say: takes a line for each thing done.

    Raises:
        TrainError: nothing to decode, a disk that is full; what was finished is kept.
    """
    if source is None:
        for split, count, seeds in (
            (HELD_OUT, held_out, demonstrations.HELD_OUT_SEEDS),
            (TRAIN, games, demonstrations.TRAIN_SEEDS),
        ):
            done = collect(data / split, count, seeds[0], workers=workers)
            say(
                f"{split}: {done.games} games ({done.recorded} new), {done.steps:,} transitions, "
                f"mean score {done.mean_score:,.0f}, {done.capped} ended by the step cap, "
                f"{done.set_aside} set aside"
            )
        of_split = {s: demonstrations.open_index(data / s) for s in (HELD_OUT, TRAIN)}
    else:
        found = demonstrations.open_index(source)
        train, held = demonstrations.split_games(found, held_out)
        of_split = {HELD_OUT: held, TRAIN: train}
        size = sum(game.size for game in found) / 1e6
        say(
            f"{source}: {len(train)} games to train on and {len(held)} held out, {size:,.0f} MB of "
            "recordings"
        )
    for observation in observations:
        of_folder = {
            shards_folder(data, split, observation): recorded
            for split, recorded in of_split.items()
        }
        _decode(of_folder, observation, workers, say)


def _decode(
    of_folder: Mapping[Path, Sequence[Game]],
    observation: Observation,
    workers: int,
    say: Callable[[str], object],
) -> None:
    console = Console(stderr=True)
    with Progress(console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task("decoding " + ", ".join(folder.name for folder in of_folder))
        written = write_splits(
            of_folder,
            observation=observation,
            workers=workers,
            on_shard=lambda done, total: bar.update(task, completed=done, total=total),
        )
    for folder, decoded in written.items():
        say(
            f"{folder.name}: {decoded.games} games, {decoded.transitions:,} transitions decoded "
            f"into {folder}"
        )
        if decoded.skipped:
            say(f"  {len(decoded.skipped)} games could not be used and were left out:")
        for game, reason in decoded.skipped:
            say(f"  left out {game}: {reason}")
