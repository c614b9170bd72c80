"""Commands about fits: one method with its bootstrap, and what hangs on single runs."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_analysis.cli.application import Command, app
from scaling_analysis.cli.options import (
    AsJson,
    Flops,
    Level,
    Method,
    OfTarget,
    Replicates,
    Seed,
    TableOut,
    Target,
    check_writable,
    reads_runs,
    shortened,
    show_table,
    target_of,
)

if TYPE_CHECKING:
    import pandas as pd

_DEFAULT = ["isoflop-vertex"]
_OF_RETURNS = {
    "return-link": "fit_return_link",
    "return-law": "fit_return_law",
}
"""Fits of returns that are no method of a forecast, by the name of their function."""


class LeftOut(StrEnum):
    """What is left out, one at a time."""

    RUN = "run_id"
    SIZE = "params"
    BUDGET = "budget"


@app.command(cls=Command)
@reads_runs
def fit(
    runs: "pd.DataFrame",
    method: Method = None,
    target: OfTarget = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "-o",
            "--out",
            help="File for the bootstrap; a folder for several methods.",
            callback=check_writable,
        ),
    ] = None,
    level: Level = 0.9,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    unit: Annotated[str, typer.Option(help="Column whose values are resampled.")] = "run_id",
    scheme: Annotated[
        str, typer.Option(help="What is resampled: components, jackknife, pairs, ...")
    ] = "auto",
    as_json: AsJson = False,
) -> None:
    """Fit methods, each with its bootstrap.

    isoflop-vertex, unless others are named.

    Example: scaling fit runs.csv --method parametric-additive -o fit.json
    """
    import scaling_analysis as sa

    target = target or target_of(runs)
    if unit == "run_id":
        runs = shortened(runs, as_json)
    documents = []
    names = method or _DEFAULT
    for name in names:
        made = sa.bootstrap(
            runs,
            _estimator(name, target),
            n_resamples=replicates,
            unit=unit,
            scheme=scheme,  # pyright: ignore[reportArgumentType]  (checked by bootstrap)
            rng=seed,
        )
        documents.append(made.fit.to_dict())
        if not as_json:
            typer.echo(f"{made.fit.summary()}\n{made.summary(level)}")
        if out is not None:
            file = out if len(names) == 1 else out / f"{name}.json"
            made.save(file)
            typer.echo(f"wrote {file}", err=as_json)
    if as_json:
        typer.echo(json.dumps(documents[0] if len(names) == 1 else documents))


@app.command(cls=Command)
@reads_runs
def influence(
    runs: "pd.DataFrame",
    flops: Flops = None,
    unit: Annotated[LeftOut, typer.Option(help="What is left out, one at a time.")] = LeftOut.SIZE,
    method: Method = None,
    target: OfTarget = None,
    top: Annotated[int, typer.Option(min=1, help="Rows to print.")] = 20,
    out: TableOut = None,
    as_json: AsJson = False,
) -> None:
    """Refit without each run, size or budget.

    Which of them does the forecast hang on?

    Example: scaling influence runs.csv --unit run_id --flops 1e19
    """
    import scaling_analysis as sa
    from scaling_analysis.report.writing import default_flops

    target = target or target_of(runs)
    table = sa.influence(
        runs, flops or default_flops(runs)[:1], unit.value, method, target=target.value
    )
    if out is not None or as_json:
        show_table(table, as_json, out)
    if not as_json:
        shown = table[table["left_out"].notna()].head(top)
        note = "changes are log ratios to the fit of the whole log, the largest of N_opt first"
        show_table(shown, False, None, note)


def _estimator(name: str, target: Target) -> Any:
    import scaling_analysis as sa
    from scaling_analysis.forecasting.members import known_methods

    if name in _OF_RETURNS:
        return getattr(sa, _OF_RETURNS[name])
    # A method that only returns have is meant whatever the target says.
    known = {**known_methods("mean_return"), **known_methods(target.value)}
    if name not in known:
        raise sa.ForecastError(
            f"method {name!r} is not known for {target}: choose among {', '.join(known)}; of "
            f"returns: {', '.join(_OF_RETURNS)}"
        )
    return known[name]
