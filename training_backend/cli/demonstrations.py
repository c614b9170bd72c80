"""`collect`: games to learn from."""

from pathlib import Path
from typing import Annotated

import typer

from training_backend.cli.application import app
from training_backend.cli.options import CORES, Workers

GAMES = 5000
"""Games of the expert that are recorded to train on, unless it is said."""


@app.command()
def collect(
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Folder for recordings and shards.")],
    games: Annotated[
        int | None,
        typer.Option(min=1, help=f"Games of the expert to train on. [default: {GAMES}]"),
    ] = None,
    held_out: Annotated[int, typer.Option(min=1, help="Games to measure the loss on.")] = 160,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take all games of this folder of ttyrec3 recordings instead."),
    ] = None,
    observation: Annotated[
        list[str] | None,
        typer.Option(
            help="What agents will see: features, or screen; may be repeated. [default: features]",
            show_default=False,
        ),
    ] = None,
    workers: Workers = CORES,
) -> None:
    """Record an expert, or take recordings.

    The scripted expert plays, or recorded games are taken, and all are decoded for training.

    Example: scaling-train collect demonstrations --games 5000
    """
    from training_backend.families import OBSERVATIONS
    from training_backend.preparing import prepare_demonstrations

    if source is not None and games is not None:
        raise typer.BadParameter(
            "--games: --from takes all games of the folder, but those that are held out; leave it "
            "out, or name a folder that holds fewer"
        )
    wanted = observation or ["features"]
    if unknown := set(wanted) - set(OBSERVATIONS):
        raise typer.BadParameter(
            f"--observation {', '.join(unknown)}: one of {', '.join(OBSERVATIONS)}"
        )
    prepare_demonstrations(
        data,
        games or GAMES,
        held_out,
        source=source,
        observations=[name for name in OBSERVATIONS if name in wanted],
        workers=workers,
        say=typer.echo,
    )
