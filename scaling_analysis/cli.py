"""`scaling`: a run log in, a forecast and a report out. Each command is around one public function.

What a command needs is imported when it runs, so that help and completion answer at once.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from scaling_analysis.errors import ReportError, ScalingError

if TYPE_CHECKING:
    import pandas as pd

app = typer.Typer(
    help="Scaling laws of loss and return against compute, and forecasts of larger runs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Runs = Annotated[
    list[Path], typer.Argument(help="Run log: CSV, Parquet or JSON lines; several are joined.")
]
Agent = Annotated[str | None, typer.Option(help="Use the rows of this agent.")]
Task = Annotated[str | None, typer.Option(help="Use the rows of this task.")]
Where = Annotated[
    str | None, typer.Option(help='Leave out rows that do not meet this, "budget >= 1e15".')
]
Exclude = Annotated[
    list[str] | None, typer.Option(help='Leave out a run: "RUN=reason". May be repeated.')
]
Seed = Annotated[int, typer.Option(help="Seed of the replicates.")]
Replicates = Annotated[int, typer.Option(min=2, help="Bootstrap replicates of every method.")]
Method = Annotated[
    list[str] | None, typer.Option(help="Method to use for the loss; may be repeated.")
]
Flops = Annotated[
    list[float] | None, typer.Option("--flops", help="Budget [FLOP]; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]


class Source(StrEnum):
    """Tools whose files can be imported."""

    CSV = "csv"
    JSONL = "jsonl"
    WANDB = "wandb"
    TENSORBOARD = "tensorboard"
    IL_SCALING = "il-scaling"


def main() -> None:
    """Entry point: a user's mistake is one message and exit status 1; `--debug` shows where."""
    debug = "--debug" in sys.argv
    try:
        app([a for a in spread(sys.argv[1:]) if a != "--debug"])
    except ScalingError as error:
        if debug:
            raise
        typer.secho(f"error: {error}", fg="red", err=True)
        raise SystemExit(1) from None


def spread(arguments: list[str]) -> list[str]:
    """Several values of an option, `--flops 1e19 1e20`, as `--flops 1e19 --flops 1e20`."""
    out: list[str] = []
    option, given = "", 0
    for word in arguments:
        if word in ("--flops", "--spread"):
            option, given = word, 0
            out.append(word)
        elif option and _is_number(word):
            out += [option, word] if given else [word]
            given += 1
        else:
            option = ""
            out.append(word)
    return out


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


@app.command()
def check(
    runs: Runs,
    agent: Agent = None,
    task: Task = None,
    where: Where = None,
    exclude: Exclude = None,
    expert_return: Annotated[
        float | None, typer.Option(help="Mean return of the demonstrator [points].")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look through a run log for what silently ruins a fit, the worst first.

    Example: scaling check runs.csv --where "budget >= 1e15"
    """
    import scaling_analysis as sa

    log = _load(runs, agent, task, where, exclude)
    _show(sa.audit(log, expert_return=expert_return), as_json)


@app.command("import")
def import_(
    source: Annotated[Source, typer.Argument(help="Tool that wrote the files.")],
    path: Annotated[Path, typer.Argument(help="File or folder of that tool.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Run log to write.")],
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
) -> None:
    """Make a run log from the files of another tool; nothing is guessed in silence.

    Example: scaling import csv sweep.csv -o runs.csv --map params=n_params --cost-constant 6
    """
    import scaling_analysis as sa
    from scaling_analysis.runlog.writing import replacing

    readers = {
        Source.CSV: sa.import_csv,
        Source.JSONL: sa.import_jsonl,
        Source.WANDB: sa.import_wandb,
        Source.TENSORBOARD: sa.import_tensorboard,
        Source.IL_SCALING: sa.import_il_scaling,
    }
    options: dict[str, Any] = {
        "columns": _pairs("--map", column),
        "constants": _pairs("--constant", constant),
        "cost_constant": cost_constant,
    }
    if scale:
        if source == Source.IL_SCALING:
            raise ReportError("--scale: the units of il-scaling are known; leave it out")
        options["scale"] = {
            name: _number("--scale", name, factor)
            for name, factor in _pairs("--scale", scale).items()
        }
    made = readers[source](path, **options)
    typer.echo(made.summary())
    written = [sa.write_runs(made.runs, out)]
    if made.episodes is not None:
        beside = out.with_name("episodes.parquet")
        with replacing(beside) as file:
            made.episodes.to_parquet(file, index=False)
        written.append(beside)
    for each in written:
        typer.echo(f"wrote {each}")


@app.command()
def fit(
    runs: Runs,
    method: Annotated[str, typer.Option(help="Method, such as isoflop-vertex.")] = "isoflop-vertex",
    target: Annotated[str, typer.Option(help="loss or mean_return.")] = "loss",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="File for the fit.")] = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    unit: Annotated[str, typer.Option(help="Column whose values are resampled.")] = "run_id",
    agent: Agent = None,
    task: Task = None,
    where: Where = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Fit one method and its bootstrap, and print both.

    Example: scaling fit runs.csv --method parametric-additive -o fit.json
    """
    import scaling_analysis as sa
    from scaling_analysis.forecasting.members import resolve_methods

    if target not in ("loss", "mean_return"):
        raise ReportError(f"--target {target}: choose loss or mean_return")
    estimator = resolve_methods([method], target)[method]
    log = _load(runs, agent, task, where, exclude)
    made = sa.bootstrap(log, estimator, n_resamples=replicates, unit=unit, rng=seed)
    if as_json:
        typer.echo(json.dumps(made.fit.to_dict()))
    else:
        typer.echo(f"{made.fit.summary()}\n{made.summary()}")
    if out is not None:
        made.save(out)
        typer.echo(f"wrote {out}", err=as_json)


@app.command()
def forecast(
    runs: Runs,
    flops: Flops = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write it.")] = Path(
        "forecast.json"
    ),
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.9,
    method: Method = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    agent: Agent = None,
    task: Task = None,
    where: Where = None,
    exclude: Exclude = None,
    as_json: AsJson = False,
) -> None:
    """Forecast the compute-optimal run at larger budgets, and write it down with its date.

    Example: scaling forecast runs.csv --flops 1e19 1e20 -o forecast.json
    """
    import scaling_analysis as sa
    from scaling_analysis.report.writing import default_flops

    log = _load(runs, agent, task, where, exclude)
    made = sa.forecast(
        log,
        flops or default_flops(log),
        method or None,
        level=level,
        n_resamples=replicates,
        rng=seed,
    )
    path = made.save(out)
    _show(made, as_json)
    typer.echo(f"wrote {path}", err=as_json)


@app.command()
def plan(
    source: Annotated[
        Path | None, typer.Argument(help="forecast.json to test; leave out with --ladder.")
    ] = None,
    flops: Flops = None,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write it.")] = Path("plan.csv"),
    ladder: Annotated[bool, typer.Option(help="Plan a first sweep.")] = False,
    params: Annotated[
        tuple[float, float], typer.Option(help="Smallest and largest size of the ladder.")
    ] = (4e3, 4e5),
    budgets: Annotated[int, typer.Option(help="Budgets of the ladder.")] = 6,
    spread: Annotated[
        list[float] | None, typer.Option(help="Factors on the forecast N_opt; 0.5 1 2.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of every run.")] = 3,
    task: Annotated[str | None, typer.Option(help="Task of the runs.")] = None,
    agent: Annotated[str | None, typer.Option(help="Agent of the runs.")] = None,
    unique_samples: Annotated[
        float | None, typer.Option(help="Distinct samples there are; at most two epochs of them.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Evaluation protocol.")] = None,
    cost_constant: Annotated[float, typer.Option(help="k of C = k N D, for a ladder.")] = 6.0,
) -> None:
    """Plan a first ladder of runs, or the runs that test a forecast.

    Examples: scaling plan --ladder --flops 1e10 3e12 --params 4e3 4e5 --seeds 3 -o plan.csv

    scaling plan forecast.json --flops 1e19 --spread .5 1 2 --seeds 3 -o plan.csv
    """
    import scaling_analysis as sa

    common: dict[str, Any] = {
        "seeds": seeds,
        "unique_samples": unique_samples,
        "protocol": protocol,
    }
    if ladder:
        if not flops or len(flops) != 2:
            raise ReportError("--ladder needs the smallest and the largest budget: --flops LO HI")
        made = sa.plan_ladder(
            (flops[0], flops[1]),
            params,
            task=task or "nethack",
            agent=agent or "bc-lstm",
            budgets=budgets,
            cost=cost_constant,
            **common,
        )
    elif source is None:
        raise ReportError("name a forecast.json, or --ladder for a first sweep")
    else:
        made_for = sa.Forecast.load(source)
        chosen = flops or made_for.table["flops"].unique()
        factors = spread or [0.5, 1.0, 2.0]
        made = sa.plan_forecast(made_for, chosen, spread=factors, task=task, agent=agent, **common)
    sa.write_plan(made, out)
    spent = float(made["budget"].sum())
    typer.echo(made[["run_id", "params", "samples", "snapshots"]].to_string(index=False))
    typer.echo(f"{len(made)} runs, {spent:.3g} FLOP of training; wrote {out}")


@app.command()
def verify(
    source: Annotated[Path, typer.Argument(metavar="FORECAST", help="forecast.json")],
    planned: Annotated[Path, typer.Argument(metavar="PLAN", help="Plan made from it.")],
    runs: Runs,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where to write it.")] = Path(
        "verification.json"
    ),
    level: Annotated[float | None, typer.Option(help="Level of the intervals.")] = None,
    as_json: AsJson = False,
) -> None:
    """Judge a forecast by the runs that were planned to test it.

    Example: scaling verify forecast.json plan.csv runs.csv -o verification.json
    """
    import scaling_analysis as sa

    verdict = sa.verify(sa.Forecast.load(source), sa.read_plan(planned), _load(runs), level=level)
    path = verdict.save(out)
    _show(verdict, as_json)
    typer.echo(f"wrote {path}", err=as_json)


@app.command()
def report(
    runs: Annotated[
        list[Path], typer.Argument(help="Run log, several to be joined, or a study folder.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")] = Path("report"),
    flops: Flops = None,
    format: Annotated[
        list[str] | None, typer.Option(help="html, pdf or json; may be repeated.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="Title of the report.")] = None,
    level: Annotated[float, typer.Option(help="Level of the intervals.")] = 0.9,
    method: Method = None,
    replicates: Replicates = 1000,
    seed: Seed = 0,
    agent: Agent = None,
    task: Task = None,
    where: Where = None,
    exclude: Exclude = None,
) -> None:
    """Write what a log says and forecasts as a page (HTML) and as a paper (PDF).

    Example: scaling report runs.csv -o report --flops 1e19 1e20
    """
    import scaling_analysis as sa

    study = len(runs) == 1 and runs[0].is_dir()
    source = runs[0] if study else _load(runs, agent, task, where, exclude)
    made = sa.write_report(
        source,
        out,
        tuple(format or ("html", "pdf")),
        flops=flops or None,
        methods=method or None,
        level=level,
        n_resamples=replicates,
        rng=seed,
        title=title,
        command=_typed(),
    )
    for path in made.values():
        typer.echo(path)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder to write to.")] = Path(
        "scaling-demo"
    ),
) -> None:
    """Do all of it on the run log that comes with the package: audit, fits, forecast, report.

    Example: scaling demo
    """
    from scaling_analysis.report.demonstration import run_demo

    for path in run_demo(out, say=typer.echo).values():
        typer.echo(path)


def _load(
    runs: list[Path],
    agent: str | None = None,
    task: str | None = None,
    where: str | None = None,
    exclude: list[str] | None = None,
) -> "pd.DataFrame":
    import scaling_analysis as sa

    sources = [str(path) for path in runs]
    return sa.load_runs(
        sources[0] if len(sources) == 1 else sources,
        agent=agent,
        task=task,
        where=where,
        exclude=_pairs("--exclude", exclude),
    )


def _show(result: Any, as_json: bool) -> None:
    typer.echo(json.dumps(result.to_dict()) if as_json else result.summary())


def _pairs(option: str, texts: list[str] | None) -> dict[str, str]:
    pairs = {}
    for text in texts or []:
        name, sign, value = text.partition("=")
        if not (sign and name and value):
            raise ReportError(f"{option} {text}: write NAME=VALUE")
        pairs[name] = value
    return pairs


def _number(option: str, name: str, text: str) -> float:
    if not _is_number(text):
        raise ReportError(f"{option} {name}={text}: {text} is no number")
    return float(text)


def _typed() -> str:
    """The command as it was typed, for the reader of its product."""
    import shlex

    return shlex.join(["scaling", *sys.argv[1:]])
