"""Commands about runs to do: a first ladder, the test of a forecast, the most telling next runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_analysis.cli.application import Command, app
from scaling_analysis.cli.options import (
    AsJson,
    Flops,
    Replicates,
    Seed,
    load_forecast,
    out_file,
    reads_runs,
    records,
    shortened,
    target_of,
)

if TYPE_CHECKING:
    import pandas as pd

PlanOut = Annotated[Path, out_file()]
TASK, AGENT = "nethack", "lstm"
"""What a first ladder trains unless it is said: what `scaling-train` has."""
_SHOWN = ("run_id", "params", "samples", "snapshots")
_WIDTH = 8.0
"""Candidates lie within this factor of N_opt at the budgets tried."""
_CANDIDATE_SIZES = 9
_HARDLY = 0.97
"""A standard deviation above this share of what it was is said to have hardly fallen."""


@app.command(cls=Command)
def plan(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="FORECAST", help="forecast.json to test; leave out with --ladder."),
    ] = None,
    flops: Flops = None,
    out: PlanOut = Path("plan.csv"),
    ladder: Annotated[bool, typer.Option("--ladder", help="Plan a first sweep.")] = False,
    params: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest size of the ladder.")
    ] = (4e3, 4e5),
    budgets: Annotated[int, typer.Option(help="Budgets of the ladder.")] = 6,
    spread: Annotated[
        list[float] | None, typer.Option(help="Factors on the forecast N_opt: --spread .5 1 2.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every run.")] = 3,
    share: Annotated[
        float,
        typer.Option(min=1, help="Budgets whose N_opt lie within this factor share their runs."),
    ] = 1.0,
    task: Annotated[
        str | None, typer.Option(help=f"Task of the runs; the forecast's, or {TASK}.")
    ] = None,
    agent: Annotated[
        str | None, typer.Option(help=f"Agent of the runs; the forecast's, or {AGENT}.")
    ] = None,
    unique_samples: Annotated[
        float | None, typer.Option(help="Distinct samples there are; at most two epochs of them.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Evaluation protocol.")] = None,
    cost_constant: Annotated[float, typer.Option(help="k of C = k N D, for a ladder.")] = 6.0,
    as_json: AsJson = False,
) -> None:
    """Plan a first ladder, or a test.

    A ladder is a first sweep of sizes and budgets; a test trains what a forecast names.

    Example: scaling plan --ladder --flops 1e10 3e12 --params 4e3 4e5 --seeds 3 -o plan.csv

    Example: scaling plan forecast.json --flops 1e19 --spread .5 1 2 --seeds 3 -o plan.csv
    """
    import scaling_analysis as sa

    common: dict[str, Any] = {
        "seeds": seeds,
        "unique_samples": unique_samples,
        "protocol": protocol,
    }
    if ladder:
        if not flops or len(flops) != 2:
            raise typer.BadParameter(
                "--ladder needs the smallest and the largest budget: --flops LO HI"
            )
        made = sa.plan_ladder(
            (flops[0], flops[1]),
            params,
            task=task or TASK,
            agent=agent or AGENT,
            budgets=budgets,
            cost=cost_constant,
            **common,
        )
    elif source is None:
        raise typer.BadParameter("name a forecast.json, or --ladder for a first sweep")
    else:
        made_for = load_forecast(source)
        chosen = flops or made_for.table["flops"].unique()
        factors = spread or [0.5, 1.0, 2.0]
        made = sa.plan_forecast(
            made_for, chosen, spread=factors, share=share, task=task, agent=agent, **common
        )
    _write(made, out, list(_SHOWN), as_json)


@app.command("next", cls=Command)
@reads_runs
def choose_next(
    runs: "pd.DataFrame",
    flops: Flops = None,
    spend: Annotated[
        float | None, typer.Option(help="Compute for all chosen runs together [FLOP].")
    ] = None,
    count: Annotated[int | None, typer.Option(min=1, help="Number of runs to choose.")] = None,
    candidates: Annotated[
        Path | None,
        typer.Option(help="Plan to choose from; by default runs up to the log's largest budget."),
    ] = None,
    method: Annotated[
        str, typer.Option(help="Method whose forecast is to be sharpened.")
    ] = "parametric-additive",
    out: PlanOut = Path("plan_next.csv"),
    replicates: Replicates = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Choose the most telling next runs.

    Those that sharpen the forecast most for their compute. Without --spend and --count: as much
    compute as one run at the largest budget of the log.

    Example: scaling next runs.csv --flops 1e19 --spend 3e17 -o plan_next.csv
    """
    import scaling_analysis as sa
    from scaling_analysis.forecasting.members import resolve_methods
    from scaling_analysis.report.writing import default_flops

    target = target_of(runs).value
    estimator = resolve_methods([method], target)[method]
    fitted = sa.bootstrap(shortened(runs, as_json), estimator, n_resamples=replicates, rng=seed)
    (largest,) = default_flops(runs, (1.0,))
    offered = sa.read_plan(candidates) if candidates else _candidates(fitted.fit, largest)
    made = sa.next_runs(
        fitted,
        offered,
        flops or default_flops(runs),
        max_flops=largest if spend is None and count is None else spend,
        count=count,
    )
    before, after = float(made["sd_before"].iloc[0]), float(made["sd_after"].iloc[-1])
    made = _as_new_seeds(made, runs)
    _write(made, out, [*_SHOWN, "rank", "sd_after"], as_json)
    if not as_json:
        typer.echo(
            f"the standard deviation of the forecast falls from {before:.2%} to {after:.2%} "
            f"({method}, {target} at the optimum)"
        )
        if after > _HARDLY * before:
            typer.echo("that is hardly less: no run of this compute tells much of that optimum")


def _candidates(fit: Any, largest: float) -> "pd.DataFrame":
    """Runs of sizes around N_opt at the log's budgets, or up to its largest FLOP if it has none."""
    import numpy as np

    import scaling_analysis as sa

    rows = fit.rows
    own = rows["budget"].dropna().unique().tolist() if "budget" in rows else []
    smallest, largest = (min(own), max(own)) if len(own) > 1 else (rows["flops"].min(), largest)
    sizes = fit.params_opt(np.array([smallest, largest]))

    def only(name: str) -> str:
        values = rows[name].dropna().unique() if name in rows else []
        stated = [str(value) for value in values if value]  # no protocol without a return
        return stated[0] if len(stated) == 1 else ""

    return sa.plan_ladder(
        (smallest, largest),
        (float(sizes[0]) / _WIDTH**0.5, float(sizes[1]) * _WIDTH**0.5),
        task=only("task"),
        agent=only("agent") or "agent",
        seeds=1,
        budgets=own if len(own) > 1 else 6,
        sizes=_CANDIDATE_SIZES,
        cost=fit.cost.flops_per_sample,
        centre=fit.params_opt,
        protocol=only("protocol") or None,
    )


def _as_new_seeds(chosen: "pd.DataFrame", runs: "pd.DataFrame") -> "pd.DataFrame":
    """With a seed and a run_id of its own for every run that is chosen again or was run before."""
    taken = set(runs["run_id"].astype(str))
    names, seeds = [], []
    for name, first in zip(chosen["run_id"], chosen["seed"], strict=True):
        seed = int(first)
        stem = str(name).removesuffix(f"-s{seed}")
        while f"{stem}-s{seed}" in taken:
            seed += 1
        taken.add(f"{stem}-s{seed}")
        names.append(f"{stem}-s{seed}")
        seeds.append(seed)
    return chosen.assign(run_id=names, seed=seeds)


def _write(made: "pd.DataFrame", out: Path, columns: list[str], as_json: bool) -> None:
    import json

    import scaling_analysis as sa

    if as_json:
        typer.echo(json.dumps(records(made)))
    else:
        typer.echo(made[columns].to_string(index=False, float_format=lambda v: f"{v:.4g}"))
    sa.write_plan(made, out)
    spent = float(made["budget"].sum())
    runs = "1 run" if len(made) == 1 else f"{len(made)} runs"
    typer.echo(f"{runs}, {spent:.3g} FLOP of training; wrote {out}", err=as_json)
