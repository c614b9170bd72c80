"""Options that commands share, and what they make of them."""

import inspect
import json
import os
import sys
from collections.abc import Callable
from enum import StrEnum
from errno import EACCES, EISDIR, ENOTDIR
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypedDict

import typer

from scaling_analysis.cli.application import JOINT, PROGRAM
from scaling_analysis.cli.wording import in_shell_words

if TYPE_CHECKING:
    import pandas as pd

    from scaling_analysis.forecasting.result import Forecast


class Target(StrEnum):
    """What a fit is of."""

    LOSS = "loss"
    MEAN_RETURN = "mean_return"


class Shown(Protocol):
    """A result that can be printed or passed on."""

    def summary(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...


def _methods(incomplete: str) -> list[str]:
    """Names of methods that start with what has been typed, for the shell's completion."""
    from scaling_analysis.forecasting.members import known_methods

    names = {**known_methods("loss"), **known_methods("mean_return")}
    return [name for name in names if name.startswith(incomplete)]


class OfTargets(TypedDict):
    """Methods for the loss and for the return, as `forecast` takes them."""

    methods: list[str] | None
    return_methods: list[str] | None


def of_targets(names: list[str] | None) -> OfTargets:
    """The methods that are named for the loss and for the return, as `forecast` takes them.

    A method of both is meant for both; where none is named for a target, its own are used.
    """
    from scaling_analysis.errors import ForecastError
    from scaling_analysis.forecasting.members import BASELINES, known_methods

    known = known_methods("loss"), known_methods("mean_return")
    for name in names or []:
        if not any(name in of for of in known):
            every = ", ".join(dict.fromkeys([*known[0], *known[1]]))
            raise ForecastError(f"method {name!r} is not known: choose among {every}")
    loss, returns = ([name for name in names or [] if name in of] for of in known)
    if set(names or []) <= set(BASELINES):  # refused with the reason
        return {"methods": names or None, "return_methods": names or None}
    return {
        "methods": loss if set(loss) - set(BASELINES) else None,
        "return_methods": returns if set(returns) - set(BASELINES) else None,
    }


Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUNS", help="Run log: CSV, Parquet or JSON lines; several are joined."),
]
Seed = Annotated[int, typer.Option(help="Seed of the replicates.")]
Replicates = Annotated[int, typer.Option(min=2, help="Bootstrap replicates of every method.")]
Level = Annotated[float, typer.Option(min=0.01, max=0.999, help="Level of the intervals.")]
Method = Annotated[
    list[str] | None,
    typer.Option(help="Method to use; may be repeated.", autocompletion=_methods),
]
OfTarget = Annotated[
    Target | None, typer.Option(help="What is fitted; by default the loss where the log has one.")
]
Flops = Annotated[
    list[float] | None, typer.Option("--flops", help="Budgets [FLOP]: --flops 1e19 1e20.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


def check_writable(out: Path | None) -> Path | None:
    """A place that is written to after the work, which is refused before it."""
    if out is not None:
        there = next(folder for folder in out.absolute().parents if folder.exists())
        if not there.is_dir():
            raise NotADirectoryError(ENOTDIR, os.strerror(ENOTDIR), str(there))
        if not os.access(there, os.W_OK | os.X_OK):
            raise PermissionError(EACCES, os.strerror(EACCES), str(there))
    return out


def _check_file(out: Path | None) -> Path | None:
    if out is not None and out.is_dir():
        raise IsADirectoryError(EISDIR, "is a folder, name a file in it", str(out))
    return check_writable(out)


def _check_folder(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise NotADirectoryError(ENOTDIR, "is a file, name a folder", str(out))
    check_writable(out / "file")
    return out


def out_file(meaning: str = "Where to write it.") -> Any:
    """The option for the file that a command writes."""
    return typer.Option("-o", "--out", help=meaning, callback=_check_file)


def out_folder(meaning: str = "Folder to write to.") -> Any:
    """The option for the folder that a command writes to."""
    return typer.Option("-o", "--out", help=meaning, callback=_check_folder)


TableOut = Annotated[Path | None, out_file("File for the table (CSV), if wanted.")]

_OF_A_LOG = {
    "agent": (str | None, typer.Option(help="Use the rows of this agent.")),
    "task": (str | None, typer.Option(help="Use the rows of this task.")),
    "where": (
        str | None,
        typer.Option(help='Leave out rows that do not meet this, "budget >= 1e15".'),
    ),
    "exclude": (
        list[str] | None,
        typer.Option(help="Leave out a run, and say why; may be repeated.", metavar='RUN "REASON"'),
    ),
    "column": (
        list[str] | None,
        typer.Option(
            "--map",
            help="Name of the schema and of the file: params=n_params. May be repeated.",
        ),
    ),
    "cost_constant": (
        float | None,
        typer.Option(help="k of C = k N D, to compute a missing one of N, D and C."),
    ),
    "protocol": (
        str | None,
        typer.Option(help="Evaluation protocol of rows with a return that name none."),
    ),
}


Rows = dict[str, Any]
"""What was given of the options that choose the rows of a log, as `load` takes them."""


def chooses_rows(command: Callable[..., None]) -> Callable[..., None]:
    """A command with the options that choose the rows of a log; it is given them as `rows`."""

    def take(**given: Any) -> None:
        rows = {name: given.pop(name) for name in _OF_A_LOG}
        command(rows=rows, **given)

    own = inspect.signature(command).parameters.values()
    return _presented(take, command, [each for each in own if each.name != "rows"])


def reads_runs(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose `runs`, chosen by the same options, are read for it: a DataFrame."""

    def read_first(runs: list[Path], **given: Any) -> None:
        rows = {name: given.pop(name) for name in _OF_A_LOG}
        command(load(runs, **rows), **given)

    own = list(inspect.signature(command).parameters.values())
    return _presented(read_first, command, [own[0].replace(annotation=Runs), *own[1:]])


def _presented(
    function: Callable[..., None], command: Callable[..., None], own: list[inspect.Parameter]
) -> Callable[..., None]:
    """`function` under the name of `command`, with its own parameters and those of all logs."""
    kind = inspect.Parameter.KEYWORD_ONLY
    shared = [
        inspect.Parameter(name, kind, default=None, annotation=Annotated[of, option])
        for name, (of, option) in _OF_A_LOG.items()
    ]
    every = [*(each.replace(kind=kind) for each in own), *shared]
    function.__signature__ = inspect.Signature(every)  # pyright: ignore
    function.__annotations__ = {each.name: each.annotation for each in every}
    function.__name__, function.__doc__ = command.__name__, command.__doc__
    function.__module__ = command.__module__
    return function


def load(
    runs: list[Path],
    agent: str | None = None,
    task: str | None = None,
    where: str | None = None,
    exclude: list[str] | None = None,
    column: list[str] | None = None,
    cost_constant: float | None = None,
    protocol: str | None = None,
) -> "pd.DataFrame":
    """The run log that a command line names."""
    import scaling_analysis as sa

    sources = [str(path) for path in runs]
    return sa.load_runs(
        sources[0] if len(sources) == 1 else sources,
        columns=pairs("--map", column) or None,
        cost_constant=cost_constant,
        agent=agent,
        task=task,
        where=where,
        exclude=exclusions(exclude),
        protocol=protocol,
    )


def exclusions(texts: list[str] | None) -> dict[str, str]:
    """Runs to leave out with the reason of each."""
    found = {}
    for text in texts or []:
        run, sign, reason = text.partition(JOINT)
        if not (sign and reason):
            raise typer.BadParameter(f'give the reason too: --exclude {run} "restarted by hand"')
        found[run] = reason
    return found


def pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    """{name: value} of an option NAME=VALUE."""
    found = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not (sign and name and value):
            raise typer.BadParameter(f"{option} {text}: write NAME=VALUE")
        found[name] = value
    return found


def target_of(runs: "pd.DataFrame") -> Target:
    """What a log is fitted for where it is not said: its loss, or its return if it has none."""
    held = "loss" in runs and runs["loss"].notna().any()
    return Target.LOSS if held or "mean_return" not in runs else Target.MEAN_RETURN


def shortened(runs: "pd.DataFrame", as_json: bool) -> "pd.DataFrame":
    """A log of very many rows as a forecast would fit it; says what was done to it."""
    from scaling_analysis.forecasting.condensing import condense
    from scaling_analysis.runlog.selecting import select

    runs, said = condense(select(runs))
    if said:
        typer.echo(said, err=as_json)
    return runs


def load_forecast(path: Path) -> "Forecast":
    """The forecast in a file."""
    import scaling_analysis as sa

    return sa.Forecast.load(path)


def show(result: Shown, as_json: bool) -> None:
    """Print a result, for a reader or for a machine."""
    typer.echo(json.dumps(result.to_dict()) if as_json else in_shell_words(result.summary()))


def show_table(table: "pd.DataFrame", as_json: bool, out: Path | None, note: str = "") -> None:
    """Print a table, as text or as JSON records, and write it as CSV where that is asked for."""
    if as_json:
        typer.echo(json.dumps(records(table)))
    else:
        typer.echo(table.to_string(index=False, float_format=lambda v: f"{v:.4g}"))
        if note:
            typer.echo(note)
    if out is not None:
        write_table(table, out)
        typer.echo(f"wrote {out}", err=as_json)


def write_table(table: "pd.DataFrame", out: Path) -> None:
    """A table as CSV, which appears whole or not at all."""
    from scaling_analysis.runlog.writing import replacing

    with replacing(out) as file:
        table.to_csv(file, index=False, lineterminator="\n")


def records(table: "pd.DataFrame") -> list[dict[str, Any]]:
    """Rows as JSON objects; what is missing or infinite is null."""
    import numpy as np

    return [
        {
            str(name): None if isinstance(v, float) and not np.isfinite(v) else v
            for name, v in row.items()
        }
        for row in table.to_dict("records")
    ]


def typed() -> str:
    """The command as it was typed, for the reader of its product."""
    import shlex

    return shlex.join([PROGRAM, *sys.argv[1:]])
