"""Options that commands share, and what runs their jobs."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from training_backend.executors import Executor

Data = Annotated[Path, typer.Option(help="Folder of demonstrations, made by `collect`.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
Device = Annotated[str, typer.Option(help="Where to train, as PyTorch names it: cpu, cuda.")]
ExecutorName = Annotated[
    str, typer.Option("--executor", help="What runs the jobs: local (processes), or ray.")
]
Address = Annotated[
    str,
    typer.Option(
        help="Ray cluster: auto (the one this machine is in), HOST:PORT, or local (one of this "
        "machine alone).",
    ),
]
Stack = Annotated[
    bool | None,
    typer.Option(
        "--stack/--no-stack",
        help="Train runs of one size as one stacked model. [default: on a GPU]",
        show_default=False,
    ),
]
MicroBatches = Annotated[
    int,
    typer.Option(min=1, help="Parts that an optimiser step is taken in, to save memory."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CORES = os.cpu_count() or 1


def counted(number: int, what: str) -> str:
    """A number of things, in words: 1 run, 2 processes."""
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def check_executor(name: str) -> None:
    """Refuse an executor that there is none of."""
    if name not in ("local", "ray"):
        raise typer.BadParameter(f"--executor {name}: one of local, ray")


def open_executor(
    name: str, address: str, workers: int, device: str
) -> "AbstractContextManager[Executor]":
    """What runs the jobs; refuses a device that is not there."""
    from training_backend.executors import Processes
    from training_backend.memory import check_device
    from training_backend.sweep import usable_memory

    check_executor(name)
    if name == "ray":
        from training_backend.cluster import RayCluster

        cores = workers if address == "local" else None
        return RayCluster(address, workers=cores, gpu=device.startswith("cuda"))
    check_device(device)
    return Processes(workers, usable_memory(device))
