"""Train one run of a plan on all processes that `torchrun` starts, then measure it on the first.

    torchrun --nproc-per-node 8 -m training_backend.torchrun plan.csv RUN --run-log runs.csv \
        --data demonstrations --device cuda

On several machines as torchrun says (--nnodes, --rdzv-endpoint); the log's folder must be one that
all of them see. The run goes on with another number of processes where it was stopped, or alone by
`scaling-train run`; its losses are the same up to rounding.
"""

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from scaling_analysis import PlanError, ScalingError, read_plan
from training_backend import sweep
from training_backend.bench import open_bench
from training_backend.distributed import joined
from training_backend.executors import Processes
from training_backend.jobs import Place, alone
from training_backend.memory import explaining_memory
from training_backend.objectives.behaviour_cloning import train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    plan: Annotated[Path, typer.Argument(help="Plan (.csv).")],
    run: Annotated[str, typer.Argument(help="Name of one of its runs.")],
    log: Annotated[  # torchrun takes --log for an option of its own
        Path, typer.Option("--run-log", help="Run log (.csv or .jsonl) to append to.")
    ],
    data: Annotated[Path, typer.Option(help="Folder of demonstrations, made by `collect`.")],
    device: Annotated[str, typer.Option(help="Where to train: cpu, or cuda.")] = "cpu",
    micro_batches: Annotated[
        int, typer.Option(min=1, help="Parts that a process takes its lanes in.")
    ] = 1,
    games: Annotated[int, typer.Option(min=2, help="Evaluation games of each snapshot.")] = 200,
) -> None:
    """Train one run on all processes, then measure it on the first."""
    sweep.check_log(log)
    planned = read_plan(plan)
    row = planned[planned["run_id"] == run]
    if row.empty:
        raise PlanError(f"{plan}: has no run {run!r}; it plans {', '.join(planned['run_id'])}")
    bench = open_bench(str(row["task"].iloc[0]), data.absolute())
    if row["protocol"].iloc[0]:
        row = row.assign(protocol=row["protocol"].map(bench.protocol_id))
    (config,) = sweep.configure(row, bench)
    log = log.absolute()
    place = Place(log=log, runs=log.with_name(f"{log.stem}_files"))
    demonstrations = bench.demonstrations_for(config)
    fields, actions = demonstrations.fields, demonstrations.actions
    with joined(device) as (world, own_device):
        folder = place.folder(config)
        held = alone(folder) if world.writes else nullcontext()
        with held, explaining_memory([config], fields, actions, own_device, micro_batches):
            train(
                config,
                demonstrations,
                folder,
                device=own_device,
                micro_batches=micro_batches,
                world=world,
            )
        writes = world.writes
    if writes:  # the run is trained, so the sweep measures it and writes its rows
        executor = Processes(1, sweep.usable_memory(own_device))
        result = sweep.run_sweep(
            [config], bench, place, executor=executor, games=(games, games), device=own_device
        )
        typer.echo(result.summary())


if __name__ == "__main__":
    try:
        app()
    except ScalingError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
