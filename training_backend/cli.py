"""`scaling-train`: record demonstrations, run a plan, evaluate and watch agents.

Each command is a few lines around public functions; what they need (torch, NLE) is imported when a
command runs, so that a missing package is named, with what to install.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from scaling_analysis import PlanError, ScalingError, TrainError

app = typer.Typer(
    help="Train the agents that a forecast names, and write the run log it is judged by.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Data = Annotated[Path, typer.Option(help="Folder of demonstrations, made by `collect`.")]
Workers = Annotated[int, typer.Option(min=1, help="Processes.")]
CORES = os.cpu_count() or 1


def main() -> None:
    """Entry point: a user's mistake is one message and exit status 1; `--debug` shows where."""
    debug = "--debug" in sys.argv
    try:
        app([a for a in sys.argv[1:] if a != "--debug"])
    except ScalingError as error:
        if debug:
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(1) from None
    except ModuleNotFoundError as error:
        if debug or error.name not in ("torch", "nle", "safetensors"):
            raise
        typer.secho(
            f"error: the package {error.name} is not installed. Training needs the extra `train`: "
            "pip install 'scaling-analysis[train]'",
            fg="red",
            err=True,
        )
        raise SystemExit(1) from None


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
    """Record the scripted expert, or take recorded games, and decode them for training.

    Can be stopped at any moment; the same command goes on.
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
    """Forecast first, train what it names after: ladder, forecast, training, verdict, report.

    Goes on where it was stopped. Example: scaling-train study my-study --preset quick
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
    dry_run: Annotated[bool, typer.Option(help="Say what it would cost and stop.")] = False,
) -> None:
    """Train and evaluate the runs of a plan; the same command goes on where it was stopped."""
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
    typer.echo(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    typer.echo(
        f"{len(configs)} runs, {sum(c.samples * c.flops_per_sample for c in configs):.3g} FLOP, "
        f"about {table['hours'].sum() / workers:.2g} hours of training on {workers} processes, "
        "and the evaluation games"
    )
    for c in configs:
        if c.skipped:
            typer.echo(
                f"{c.run_id} skips {', '.join(f'{b:g}' for b in c.skipped)}: a step of "
                f"{c.batch_size} samples is over 5 % of it"
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
    typer.echo(result.summary())
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
) -> None:
    """Measure an agent's held-out loss, and its return where a protocol is given."""
    from training_backend.bench import open_bench
    from training_backend.objectives.behaviour_cloning import load_snapshot
    from training_backend.tasks import nethack

    agent, config, about = load_snapshot(checkpoint, nethack.FIELDS, nethack.ACTIONS)
    bench = open_bench(config.task, data)
    loss, loss_se = bench.held_out_loss(agent)
    typer.echo(
        f"{config.run_id}: {config.params:,} parameters, {about['samples']:,} samples, "
        f"{about['flops']:.3g} FLOP\nloss {loss:.4f} +- {loss_se:.4f} nats/action"
    )
    if protocol:
        returns = bench.play(agent, protocol, games)["return"]
        error = returns.std(ddof=1) / len(returns) ** 0.5
        typer.echo(f"return {returns.mean():.1f} +- {error:.1f} points ({games} games, {protocol})")


@app.command()
def play(
    checkpoint: Annotated[Path, typer.Argument(help="Agent, a .safetensors file of a run.")],
    seed: Annotated[int, typer.Option(min=0, help="The game's seed.")] = 3_000_000,
    delay: Annotated[float, typer.Option(min=0, help="Seconds between screens.")] = 0.05,
) -> None:
    """Watch an agent play one game in the terminal."""
    from training_backend import evaluate as evaluation

    episode = evaluation.play(checkpoint, seed=seed, delay=delay, show=typer.echo)
    typer.echo(f"{episode.points} points in {episode.steps:,} keys ({episode.ending})")
