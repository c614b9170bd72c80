"""Commands about forecasts: make one, ask one, score its making, compare two, judge one."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scaling_analysis.cli.application import Command, LongCommand, app
from scaling_analysis.cli.options import (
    AsJson,
    Flops,
    Level,
    Method,
    Replicates,
    Rows,
    Runs,
    Seed,
    TableOut,
    chooses_rows,
    load,
    load_forecast,
    of_targets,
    out_file,
    reads_runs,
    show,
    show_table,
)

if TYPE_CHECKING:
    import pandas as pd


@app.command(cls=LongCommand)
@reads_runs
def forecast(
    runs: "pd.DataFrame",
    flops: Flops = None,
    out: Annotated[Path, out_file()] = Path("forecast.json"),
    level: Level = 0.9,
    method: Method = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Forecast compute-optimal runs.

    All methods, averaged by their hindcast; written down with its date. Without --flops: 10 and
    100 times the largest budget of the log.

    Example: scaling forecast runs.csv --flops 1e19 1e20 -o forecast.json
    """
    import scaling_analysis as sa
    from scaling_analysis.report.writing import default_flops

    made = sa.forecast(
        runs,
        flops or default_flops(runs),
        **of_targets(method),
        level=level,
        n_resamples=replicates,
        rng=seed,
    )
    show(made, as_json)
    _keep_earlier(out, made.hash, as_json)
    typer.echo(f"wrote {made.save(out)}", err=as_json)


def _keep_earlier(out: Path, but: str, as_json: bool) -> None:
    """A forecast that stands in the way may be on file for runs to come: it gets another name."""
    import scaling_analysis as sa

    try:
        earlier = sa.Forecast.load(out).hash
    except sa.ForecastError:  # none, or none that could be verified
        return
    if earlier != but:
        kept = out.with_name(f"{out.stem}-{earlier[:8]}{out.suffix}")
        out.replace(kept)
        typer.echo(f"the forecast that stood there is now {kept}", err=as_json)


@app.command(cls=Command)
def reach(
    source: Annotated[Path, typer.Argument(metavar="FORECAST", help="forecast.json")],
    loss: Annotated[list[float] | None, typer.Option(help="Losses to reach [nats/action].")] = None,
    mean_return: Annotated[
        list[float] | None, typer.Option(help="Mean returns to reach [points].")
    ] = None,
    level: Annotated[
        float | None, typer.Option(min=0.01, max=0.999, help="Level of the intervals.")
    ] = None,
    out: TableOut = None,
    as_json: AsJson = False,
) -> None:
    """Find the compute for a loss or a return.

    With what N and D, and how likely it is that it cannot be reached at all.

    Example: scaling reach forecast.json --mean-return 3000 5000
    """
    if bool(loss) == bool(mean_return):
        raise typer.BadParameter("give one target: --loss ... or --mean-return ...")
    made = load_forecast(source)
    table = made.flops_for(loss=loss or None, mean_return=mean_return or None, level=level)
    note = "inf: not within a million times the largest budget; 0: with less compute than any run"
    show_table(table, as_json, out, note)


@app.command(cls=LongCommand)
@reads_runs
def hindcast(
    runs: "pd.DataFrame",
    origin: Annotated[
        list[float] | None,
        typer.Option("--flops", help="Largest compute of each fit [FLOP]; all by default."),
    ] = None,
    method: Method = None,
    replicates: Replicates = 200,
    seed: Seed = 0,
    out: Annotated[Path | None, out_file("File for all of it (JSON).")] = None,
    as_json: AsJson = False,
) -> None:
    """Score all methods on the log's own end.

    Fits the past of the log, forecasts the budgets beyond, and rolls on.

    Example: scaling hindcast runs.csv --flops 1e16 1e17
    """
    import scaling_analysis as sa

    made = sa.hindcast(runs, **of_targets(method), origins=origin, n_resamples=replicates, rng=seed)
    show(made, as_json)
    if out is not None:
        made.save(out)
        typer.echo(f"wrote {out}", err=as_json)


_FIRST = "Run log or forecast.json of the one recipe."


@app.command(cls=Command)
@chooses_rows
def compare(
    first: Annotated[Path, typer.Argument(metavar="FIRST", help=_FIRST)],
    second: Annotated[Path, typer.Argument(metavar="SECOND", help="The same of the other recipe.")],
    rows: Rows,
    flops: Flops = None,
    level: Level = 0.9,
    method: Method = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    out: TableOut = None,
    as_json: AsJson = False,
) -> None:
    """Compare two recipes.

    The difference of their exponents, and how much compute the second one saves. Without --flops:
    at the largest budget that both logs hold.

    Example: scaling compare old.csv new.csv --flops 1e19
    """
    import scaling_analysis as sa

    logs = {path: load([path], **rows) for path in (first, second) if path.suffix != ".json"}
    budgets = flops or [min(_reached(path, logs) for path in (first, second))]
    one, two = (
        load_forecast(path)
        if path not in logs
        else sa.forecast(
            logs[path],
            budgets,
            **of_targets(method),
            level=level,
            n_resamples=replicates,
            rng=seed,
        )
        for path in (first, second)
    )
    table = sa.compare_recipes(one, two, budgets, level=level, rng=seed)
    if as_json:
        show_table(table, True, out)
        return
    for _, row in table.iterrows():
        typer.echo(f"at {row['flops']:.4g} FLOP, with {level:.0%} intervals:")
        for name in ("params_exponent", "value_exponent"):
            for of in ("first", "second", "difference"):
                typer.echo(f"  {name} {of}: {_interval(row, f'{name}_{of}')}")
        typer.echo(
            f"  compute that the first needs to reach the second: {_interval(row, 'multiplier')} "
            f"times; the second is better with probability {row['better']:.2f}"
        )
    if out is not None:
        show_table(table, False, out)


@app.command(cls=Command)
def verify(
    source: Annotated[Path, typer.Argument(metavar="FORECAST", help="forecast.json")],
    planned: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan made from it.")],
    runs: Runs,
    out: Annotated[Path, out_file()] = Path("verification.json"),
    level: Annotated[
        float | None, typer.Option(min=0.01, max=0.999, help="Level of the intervals.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a forecast by its planned runs.

    Example: scaling verify forecast.json plan.csv runs.csv -o verification.json
    """
    import scaling_analysis as sa

    verdict = sa.verify(load_forecast(source), sa.read_plan(planned), load(runs), level=level)
    show(verdict, as_json)
    typer.echo(f"wrote {verdict.save(out)}", err=as_json)


def _reached(path: Path, logs: dict[Path, "pd.DataFrame"]) -> float:
    """The largest budget that a forecast was fitted on, or that a log holds [FLOP]."""
    from scaling_analysis.report.writing import default_flops

    if path in logs:
        return default_flops(logs[path], (1.0,))[0]
    return load_forecast(path).ensemble.flops_max


def _interval(row: "pd.Series", name: str) -> str:
    return f"{row[name]:.4g} [{row[f'{name}_lo']:.4g}, {row[f'{name}_hi']:.4g}]"
