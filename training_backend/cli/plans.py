"""`run`: a plan in, a run log out."""

from pathlib import Path
from typing import Annotated

import typer

from scaling_analysis import PlanError, TrainError
from training_backend.cli.application import app
from training_backend.cli.options import (
    CORES,
    Address,
    AsJson,
    Data,
    Device,
    ExecutorName,
    MicroBatches,
    Stack,
    Workers,
    check_executor,
    counted,
    open_executor,
)

_PLAN = "Plan (.csv) of `scaling plan`, or made by hand: run_id, task, agent, params, budget."


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help=_PLAN)],
    log: Annotated[Path, typer.Option(help="Run log (.csv or .jsonl) to append to.")],
    data: Data,
    workers: Workers = CORES,
    games: Annotated[
        int, typer.Option(min=2, help="Evaluation games of agents near their budget's best size.")
    ] = 200,
    games_elsewhere: Annotated[int, typer.Option(min=2, help="Games of the other agents.")] = 50,
    averaging: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=0.5,
            help="Mean age of the weights averaged in a snapshot, over the steps taken; 0: the "
            "last weights. [default: 0.1]",
        ),
    ] = None,
    device: Device = "cpu",
    executor: ExecutorName = "local",
    address: Address = "auto",
    stack: Stack = None,
    micro_batches: MicroBatches = 1,
    max_epochs: Annotated[
        float | None,
        typer.Option(
            min=0,
            help="Most often that a run may go over the demonstrations. [default: 16]",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate a plan's runs.

    What each run will be and cost is printed first; --dry-run ends there.

    Example: scaling-train run plan.csv --log runs.csv --data demonstrations --dry-run

    On one GPU: scaling-train run plan.csv --log runs.csv --data demonstrations --device cuda

    On the Ray cluster that this machine is in: scaling-train run plan.csv --log runs.csv --data
    /shared/demonstrations --executor ray

    Ray's machines need the demonstrations at the same path and the same version of this package;
    the folder of the log is best shared too, so that a lost run goes on from its checkpoint.
    """
    from scaling_analysis import read_plan
    from training_backend import costs, sweep
    from training_backend.bench import open_bench
    from training_backend.config import AVERAGING
    from training_backend.jobs import Place
    from training_backend.memory import check_device, device_here

    sweep.check_log(log)
    check_executor(executor)
    planned = read_plan(plan)
    tasks = planned["task"].unique()
    if len(tasks) > 1:
        raise PlanError(f"{plan}: plans runs of {', '.join(tasks)}; run a plan for each task")
    for name, such in (("task", "nethack"), ("agent", "lstm")):
        if (planned[name] == "").any():
            run = planned.loc[planned[name] == "", "run_id"].iloc[0]
            raise PlanError(
                f"{plan}, run {run}: no {name}. Write one into the column {name}: {such}"
            )
    bench = open_bench(tasks[0], data.absolute())
    named = planned["protocol"] != ""
    planned.loc[named, "protocol"] = planned.loc[named, "protocol"].map(bench.protocol_id)
    configs = sweep.configure(
        planned, bench, averaging=AVERAGING if averaging is None else averaging
    )
    sizes = {d: len(split) for d, split in costs.open_splits(configs, bench).items()}
    costs.check_epochs(configs, sizes, costs.MAX_EPOCHS if max_epochs is None else max_epochs)
    if executor == "local":
        check_device(device)
    table = costs.dry_run(
        configs,
        bench,
        device=device_here(device),
        micro_batches=micro_batches,
    )
    if as_json:
        typer.echo(table.to_json(orient="records"))
    else:
        typer.echo(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    typer.echo(
        f"{counted(len(configs), 'run')}, "
        f"{sum(c.samples * c.flops_per_sample for c in configs):.3g} FLOP, about "
        f"{table['hours'].sum() / workers:.2g} hours of training on "
        f"{counted(workers, 'process')}, and the evaluation games; "
        f"up to {table['epochs'].max():.2g} epochs, "
        f"{table['memory_gb'].max():.2g} GB of memory a run, {table['disk_gb'].sum():.2g} GB of "
        "checkpoints",
        err=as_json,
    )
    for c in configs:
        if c.skipped:
            typer.echo(
                f"{c.run_id} skips {', '.join(f'{b:g}' for b in c.skipped)}: a step of "
                f"{c.batch_size} samples is over 5 % of it",
                err=as_json,
            )
    silent = sum(not c.protocol for c in configs)
    if silent:
        typer.echo(
            f"{counted(silent, 'run')} without a protocol in the plan: the loss is measured, no "
            "game is played (nethack-monk is one)",
            err=as_json,
        )
    if dry_run:
        return
    log = log.absolute()
    place = Place(log=log, runs=log.with_name(f"{log.stem}_files"))
    with open_executor(executor, address, workers, device) as runner:
        result = sweep.run_sweep(
            configs,
            bench,
            place,
            executor=runner,
            games=(games, games_elsewhere),
            device=device,
            stack=stack,
            micro_batches=micro_batches,
        )
    typer.echo(result.summary(), err=as_json)
    if result.failed:
        raise TrainError(
            "some runs failed; what has finished is kept: mend the cause and run again"
        )
