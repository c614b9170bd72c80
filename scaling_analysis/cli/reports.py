"""Commands that show a whole analysis: the report of a log or a study, and the demonstration."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from scaling_analysis.cli.application import LongCommand, app
from scaling_analysis.cli.options import (
    AsJson,
    Flops,
    Level,
    Method,
    Replicates,
    Rows,
    Seed,
    chooses_rows,
    load,
    of_targets,
    out_folder,
    typed,
)


class Format(StrEnum):
    """Files that a report can be written as."""

    HTML = "html"
    PDF = "pdf"
    JSON = "json"


@app.command(cls=LongCommand)
@chooses_rows
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUNS|STUDY",
            help="Run log, several to be joined, or study folders to be compared.",
        ),
    ],
    rows: Rows,
    out: Annotated[Path, out_folder()] = Path("report"),
    flops: Flops = None,
    format: Annotated[
        list[Format] | None, typer.Option(help="What to write; may be repeated. [html and pdf]")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    level: Level = 0.9,
    method: Method = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Write a report: HTML page and PDF.

    What a log says, and what it forecasts. A log of several agents or tasks, and several study
    folders, make one report that compares them.

    Example: scaling report runs.csv -o report --flops 1e19 1e20
    """
    import scaling_analysis as sa

    studies = [path for path in runs if path.is_dir()]
    if studies and len(studies) < len(runs):
        raise typer.BadParameter("give run logs or study folders, not both")
    agent, task = rows.pop("agent"), rows.pop("task")
    if studies and any(rows.values()):
        raise typer.BadParameter("only --agent and --task choose what is reported of a study")
    source = load(runs, **rows) if not studies else studies[0] if len(studies) == 1 else studies
    made = sa.write_report(
        source,
        out,
        tuple(format or (Format.HTML, Format.PDF)),
        flops=flops or None,
        **of_targets(method),
        level=level,
        n_resamples=replicates,
        rng=seed,
        agent=agent,
        task=task,
        title=title,
        command=typed(),
    )
    if as_json:
        typer.echo(json.dumps({str(name): str(path) for name, path in made.items()}))
        return
    for path in made.values():
        typer.echo(path)


@app.command(cls=LongCommand)
def demo(
    out: Annotated[Path, out_folder()] = Path("scaling-demo"),
) -> None:
    """Do all of it on the shipped run log.

    Audit, fits, forecast and report.

    Example: scaling demo
    """
    from scaling_analysis.report.demonstration import run_demo

    for path in run_demo(out, say=typer.echo).values():
        typer.echo(path)
