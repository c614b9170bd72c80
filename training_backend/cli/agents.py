"""`evaluate` and `play`: what a trained agent does."""

import json
from pathlib import Path
from typing import Annotated

import typer

from training_backend.cli.application import app
from training_backend.cli.options import AsJson, Data

_AGENT = "Agent, a .safetensors file of a run."


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Argument(metavar="AGENT", help=_AGENT)],
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
    from training_backend.evaluate import load_agent
    from training_backend.tasks.nethack_protocol import find_protocol

    if protocol:
        find_protocol(protocol)  # before the loss is measured
    agent, config, about = load_agent(checkpoint)
    bench = open_bench(config.task, data)
    measured = bench.held_out_loss(agent)
    found = {
        "run_id": config.run_id,
        "params": config.params,
        "samples": about["samples"],
        "flops": about["flops"],
    } | dict(measured)
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
        f"{about['flops']:.3g} FLOP\nloss {measured['loss']:.4f} +- "
        f"{measured['loss_se']:.4f} nats/action"
    )
    if protocol:
        typer.echo(
            f"return {found['mean_return']:.1f} +- {found['return_se']:.1f} points "
            f"({games} games, {protocol})"
        )


@app.command()
def play(
    checkpoint: Annotated[Path, typer.Argument(metavar="AGENT", help=_AGENT)],
    seed: Annotated[int, typer.Option(min=0, help="The game's seed.")] = 3_000_000,
    delay: Annotated[float, typer.Option(min=0, help="Seconds between screens.")] = 0.05,
) -> None:
    """Watch an agent play in the terminal.

    Example: scaling-train play runs_files/RUN/1e12.safetensors
    """
    from training_backend import evaluate as evaluation

    episode = evaluation.play(checkpoint, seed=seed, delay=delay, show=typer.echo)
    typer.echo(f"{episode.points} points in {episode.steps:,} keys ({episode.ending})")
