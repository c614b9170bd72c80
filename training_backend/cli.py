"""`scaling-train`: record demonstrations, run a plan, evaluate and watch agents.

Each command is a few lines around public functions; what they need (torch, NLE) is imported when a
command runs, so that a missing package is named, with what to install.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from scaling_analysis import PlanError, ScalingError, TrainError

app = typer.Typer(
    help="Train the agents that a forecast names, and write the run log it is judged by.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
PROGRAM = "scaling-train"
STOPPED = 130
"""Exit code of a program that was stopped by Ctrl-C."""
Data = Annotated[Path, typer.Option(help="Folder of demonstrations, made by `collect`.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
CORES = os.cpu_count() or 1


@app.callback()
def options_of_the_program(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where a mistake was found; may stand anywhere.")
    ] = False,
) -> None:
    """Train the agents that a forecast names, and write the run log it is judged by.

    All of it, small: scaling-train study my-study --preset quick

    Every command can be stopped at any moment; the same command goes on.
    """


def main() -> None:
    """Entry point. Exit codes: 0; 1 for what a user can mend, in one message; 2 for a usage error.

    `--debug` shows the traceback.
    """
    debug = "--debug" in sys.argv
    warnings.showwarning = _show_warning
    try:
        app([a for a in sys.argv[1:] if a != "--debug"], prog_name=PROGRAM)
    except (ScalingError, OSError) as error:
        if debug:
            raise
        _fail(str(error))
    except KeyboardInterrupt:
        if debug:
            raise
        _fail("stopped; the same command goes on from here", STOPPED)
    except ModuleNotFoundError as error:
        if debug or error.name not in ("torch", "nle", "safetensors"):
            raise
        _fail(
            f"the package {error.name} is not installed. Training needs the extra `train`: "
            "pip install 'scaling-analysis[train]', or pip install -e '.[train]' in a checkout"
        )


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.secho(f"error: {message}", fg="red", err=True)
    raise SystemExit(code) from None


def _show_warning(message: Warning | str, category: type[Warning], *_: object) -> None:
    typer.secho(f"warning: {message}", fg="yellow", err=True)


@app.command()
def collect(
    data: Annotated[Path, typer.Argument(help="Folder for recordings and decoded shards.")],
    games: Annotated[int, typer.Option(min=1, help="Games to train on.")] = 5000,
    held_out: Annotated[int, typer.Option(min=1, help="Games to measure the loss on.")] = 160,
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Take the games of this folder of ttyrec3 recordings instead."),
    ] = None,
    workers: Workers = CORES,
) -> None:
    """Record an expert, or take recordings.

    The scripted expert plays, or recorded games are taken, and all are decoded for training.

    Example: scaling-train collect demonstrations --games 5000
    """
    from training_backend.preparing import prepare_demonstrations

    prepare_demonstrations(data, games, held_out, source=source, workers=workers, say=typer.echo)


@app.command()
def study(
    folder: Annotated[Path, typer.Argument(help="Folder with a study.toml.")],
    preset: Annotated[str, typer.Option(help="Write this preset's study.toml first: quick.")] = "",
    workers: Workers = CORES,
    device: Annotated[str, typer.Option(help="Where to train, as PyTorch names it.")] = "cpu",
    stop_before: Annotated[
        str,
        typer.Option(help="End before this stage: forecast, or training (of its runs)."),
    ] = "",
) -> None:
    """Forecast first, train after.

    Ladder, forecast, training of what it names, verdict, report: each goes on where it was stopped.

    Example: scaling-train study my-study --preset quick
    """
    from training_backend.study import run_study, write_preset

    if preset:
        write_preset(folder, preset)
    run_study(folder, workers=workers, device=device, say=typer.echo, stop_before=stop_before)


@app.command()
def run(
    plan: Annotated[Path, typer.Argument(help="Plan (.csv) of `scaling plan`.")],
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
    device: Annotated[str, typer.Option(help="Where to train, as PyTorch names it.")] = "cpu",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost and stop.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train and evaluate a plan's runs.

    What each run will be and cost is printed first; --dry-run ends there.

    Example: scaling-train run plan.csv --log runs.csv --data demonstrations --dry-run
    """
    from scaling_analysis import read_plan
    from training_backend import sweep
    from training_backend.bench import open_bench
    from training_backend.config import AVERAGING
    from training_backend.jobs import Place

    planned = read_plan(plan)
    tasks = planned["task"].unique()
    if len(tasks) > 1:
        raise PlanError(f"{plan}: plans runs of {', '.join(tasks)}; run a plan for each task")
    bench = open_bench(tasks[0], data)
    named = planned["protocol"] != ""
    planned.loc[named, "protocol"] = planned.loc[named, "protocol"].map(bench.protocol_id)
    demonstrations = bench.open_demonstrations()
    configs = sweep.configure(
        planned, demonstrations, averaging=AVERAGING if averaging is None else averaging
    )
    table = sweep.dry_run(configs, demonstrations)
    if as_json:
        typer.echo(table.to_json(orient="records"))
    else:
        typer.echo(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    typer.echo(
        f"{len(configs)} runs, {sum(c.samples * c.flops_per_sample for c in configs):.3g} FLOP, "
        f"about {table['hours'].sum() / workers:.2g} hours of training on {workers} processes, "
        "and the evaluation games",
        err=as_json,
    )
    for c in configs:
        if c.skipped:
            typer.echo(
                f"{c.run_id} skips {', '.join(f'{b:g}' for b in c.skipped)}: a step of "
                f"{c.batch_size} samples is over 5 % of it",
                err=as_json,
            )
    if dry_run:
        return
    place = Place(log=log, runs=log.with_name(f"{log.stem}_files"))
    result = sweep.run_sweep(
        configs,
        bench,
        place,
        workers=workers,
        games=(games, games_elsewhere),
        device=device,
    )
    typer.echo(result.summary(), err=as_json)
    if result.failed:
        raise TrainError(
            "some runs failed; what has finished is kept: mend the cause and run again"
        )


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(help="Agent, a .safetensors file of a run.")],
    data: Data,
    protocol: Annotated[str, typer.Option(help="Evaluation protocol.")] = "",
    games: Annotated[int, typer.Option(min=2, help="Evaluation games.")] = 50,
    as_json: AsJson = False,
) -> None:
    """Measure an agent's loss and return.

    The loss on held-out games; the return where a protocol is given.

    Example: scaling-train evaluate runs_files/RUN/1e12.safetensors --data demonstrations --protocol
    nethack-monk
    """
    from training_backend.bench import open_bench
    from training_backend.objectives.behaviour_cloning import load_snapshot
    from training_backend.tasks import nethack

    agent, config, about = load_snapshot(checkpoint, nethack.FIELDS, nethack.ACTIONS)
    bench = open_bench(config.task, data)
    loss, loss_se = bench.held_out_loss(agent)
    found = {
        "run_id": config.run_id,
        "params": config.params,
        "samples": about["samples"],
        "flops": about["flops"],
        "loss": loss,
        "loss_se": loss_se,
    }
    if protocol:
        returns = bench.play(agent, protocol, games)["return"]
        found |= {
            "mean_return": float(returns.mean()),
            "return_se": float(returns.std(ddof=1) / len(returns) ** 0.5),
            "episodes": games,
            "protocol": protocol,
        }
    if as_json:
        typer.echo(json.dumps(found))
        return
    typer.echo(
        f"{config.run_id}: {config.params:,} parameters, {about['samples']:,} samples, "
        f"{about['flops']:.3g} FLOP\nloss {loss:.4f} +- {loss_se:.4f} nats/action"
    )
    if protocol:
        typer.echo(
            f"return {found['mean_return']:.1f} +- {found['return_se']:.1f} points "
            f"({games} games, {protocol})"
        )


@app.command()
def play(
    checkpoint: Annotated[Path, typer.Argument(help="Agent, a .safetensors file of a run.")],
    seed: Annotated[int, typer.Option(min=0, help="The game's seed.")] = 3_000_000,
    delay: Annotated[float, typer.Option(min=0, help="Seconds between screens.")] = 0.05,
) -> None:
    """Watch an agent play in the terminal.

    Example: scaling-train play runs_files/RUN/1e12.safetensors
    """
    from training_backend import evaluate as evaluation

    episode = evaluation.play(checkpoint, seed=seed, delay=delay, show=typer.echo)
    typer.echo(f"{episode.points} points in {episode.steps:,} keys ({episode.ending})")
