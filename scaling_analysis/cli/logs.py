"""Commands about a run log itself: check it, make one from the files of other tools."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_analysis.cli.application import Command, app
from scaling_analysis.cli.options import AsJson, out_file, pairs, reads_runs
from scaling_analysis.cli.wording import in_shell_words

if TYPE_CHECKING:
    import pandas as pd


class Tool(StrEnum):
    """Tools whose files can be imported."""

    CSV = "csv"
    JSONL = "jsonl"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    IL_SCALING = "il-scaling"


_TOOLS = (
    "csv, jsonl: tables of runs, or a folder with one file a run; wandb: its table of runs as CSV, "
    "or its folder; tensorboard: its folder; il-scaling: the logs of Tuyls et al. 2023."
)


@app.command(cls=Command)
@reads_runs
def check(
    runs: "pd.DataFrame",
    expert_return: Annotated[
        float | None, typer.Option(help="Mean return of the demonstrator [points].")
    ] = None,
    episodes: Annotated[
        Path | None, typer.Option(help="Returns of single episodes, compared with the log.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Audit a run log.

    Finds what silently ruins a fit; the worst comes first, each with its remedy.

    Example: scaling check runs.csv --where "budget >= 1e15" --exclude run7 "restarted by hand"
    """
    import scaling_analysis as sa

    table = None if episodes is None else sa.load_episodes(str(episodes))
    found = sa.audit(runs, table, expert_return=expert_return)
    typer.echo(json.dumps(found.to_dict()) if as_json else in_shell_words(found.summary()))


@app.command("import", cls=Command)
def import_files(
    source: Annotated[Tool, typer.Argument(metavar="TOOL", help=_TOOLS)],
    path: Annotated[
        list[Path],
        typer.Argument(
            metavar="SRC",
            help="File or folder of that tool; of csv and jsonl several, each a run.",
        ),
    ],
    out: Annotated[Path, out_file("Run log to write.")],
    column: Annotated[
        list[str] | None,
        typer.Option("--map", help="Column of the schema and of the source: params=n_params."),
    ] = None,
    scale: Annotated[
        list[str] | None, typer.Option(help="Unit of a column: params=1e6 for millions.")
    ] = None,
    constant: Annotated[
        list[str] | None, typer.Option(help="What no column says: task=breakout.")
    ] = None,
    cost_constant: Annotated[
        float | None, typer.Option(help="k of C = k N D, to compute the third of N, D and C.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run log from other tools' files.

    Nothing is guessed in silence: what is not certain is listed with a guess to confirm.

    Example: scaling import csv sweep.csv -o runs.csv --map params=n_params --cost-constant 6

    A folder with one file a run: scaling import csv histories -o runs.csv
    """
    import scaling_analysis as sa
    from scaling_analysis.runlog.writing import replacing

    readers = {
        Tool.CSV: sa.import_csv,
        Tool.JSONL: sa.import_jsonl,
        Tool.WANDB: sa.import_wandb,
        Tool.TENSORBOARD: sa.import_tensorboard,
        Tool.IL_SCALING: sa.import_il_scaling,
    }
    options: dict[str, Any] = {
        "columns": pairs("--map", column),
        "constants": pairs("--constant", constant),
        "cost_constant": cost_constant,
    }
    if scale:
        if source == Tool.IL_SCALING:
            raise typer.BadParameter("--scale: the units of il-scaling are known; leave it out")
        factors = pairs("--scale", scale).items()
        options["scale"] = {name: _number(name, factor) for name, factor in factors}
    if len(path) > 1 and source not in (Tool.CSV, Tool.JSONL):
        raise typer.BadParameter(f"{source}: name one folder or file")
    made = readers[source](path[0] if len(path) == 1 else path, **options)
    if not as_json:
        typer.echo(in_shell_words(made.summary()))
    written = [sa.write_runs(made.runs, out)]
    if made.episodes is not None:
        beside = out.with_name("episodes.parquet")
        with replacing(beside) as file:
            made.episodes.to_parquet(file, index=False)
        written.append(beside)
    if as_json:
        said = {"rows": len(made.runs), "used": made.used, "unused": list(made.unused)}
        said |= {"messages": list(made.messages), "written": [str(each) for each in written]}
        typer.echo(json.dumps(said))
        return
    for each in written:
        typer.echo(f"wrote {each}")


def _number(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"--scale {name}={text}: {text} is no number") from None
