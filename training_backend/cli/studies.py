"""`study`: from demonstrations to a verdict."""

from pathlib import Path
from typing import Annotated

import typer

from training_backend.cli.application import app
from training_backend.cli.options import (
    CORES,
    Address,
    Device,
    ExecutorName,
    MicroBatches,
    Stack,
    Workers,
    open_executor,
)

_FOLDER = "Folder of the study: its study.toml, which --preset writes, and all that is made."


@app.command()
def study(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help=_FOLDER)],
    preset: Annotated[
        str, typer.Option(help="Write this preset's study.toml first: quick, or gpu.")
    ] = "",
    agent: Annotated[
        list[str] | None,
        typer.Option(help="With --preset: family of the agents, such as lstm; may be repeated."),
    ] = None,
    workers: Workers = CORES,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = "auto",
    stack: Stack = None,
    micro_batches: MicroBatches = 1,
    stop_before: Annotated[
        str,
        typer.Option(help="End before this stage: forecast, or training (of its runs)."),
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost and stop.")
    ] = False,
) -> None:
    """Forecast first, train after.

    Ladder, forecast, training of what it names, verdict, report: each goes on where it was stopped.

    Example: scaling-train study my-study --preset quick

    On a GPU: scaling-train study my-study --preset gpu --device cuda
    """
    from training_backend.study import run_study, write_preset

    if preset:
        write_preset(folder, preset, agent or ())
    elif agent:
        raise typer.BadParameter("goes with --preset; study.toml names the agents of a study")
    with open_executor(executor, address, workers, device) as runner:
        run_study(
            folder.absolute() if executor == "ray" else folder,
            workers=workers,
            device=device,
            executor=runner,
            stack=stack,
            micro_batches=micro_batches,
            say=typer.echo,
            stop_before=stop_before,
            rehearse=dry_run,
        )
