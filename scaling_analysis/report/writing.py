"""Write the report of a run log or of a study folder."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scaling_analysis.errors import ReportError, ScalingError
from scaling_analysis.forecasting.forecasting import forecast as make_forecast
from scaling_analysis.forecasting.members import Methods
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.progress import progress_bar
from scaling_analysis.report.composing import Study, compose
from scaling_analysis.report.html import render_html
from scaling_analysis.report.model import Report
from scaling_analysis.report.pdf import render_pdf
from scaling_analysis.report.sources import Curves
from scaling_analysis.runlog import load_episodes, load_runs, select
from scaling_analysis.runlog.audit import audit
from scaling_analysis.runlog.writing import replacing

FORMATS = ("html", "pdf", "json")
REACH = (10.0, 100.0)
"""Budgets that are forecast unless others are asked for, as factors on the largest of the log."""
UNDATED = "1970-01-01T00:00:00+00:00"
"""Date of a forecast from a log without times: a report says nothing that is not in its input."""


Source = pd.DataFrame | str | os.PathLike[str]
"""A run log, or the path of one, or of a study folder."""


class Opened(NamedTuple):
    """What a source holds."""

    runs: pd.DataFrame
    episodes: pd.DataFrame | None
    forecast: Forecast | None
    verification: Verification | None


class Options(NamedTuple):
    """How a forecast is made for a source that brings none."""

    flops: ArrayLike | None
    methods: Methods | None
    return_methods: Methods | None
    level: float
    n_resamples: int
    rng: int | np.random.Generator | None


def write_report(
    source: Source | Sequence[Source] | Mapping[str, Source],
    out: str | os.PathLike[str],
    formats: Sequence[str] = ("html", "pdf"),
    *,
    forecast: Forecast | None = None,
    verification: Verification | None = None,
    episodes: pd.DataFrame | None = None,
    flops: ArrayLike | None = None,
    methods: Methods | None = None,
    return_methods: Methods | None = None,
    level: float = 0.9,
    n_resamples: int = 1000,
    rng: int | np.random.Generator | None = 0,
    agent: str | None = None,
    task: str | None = None,
    title: str | None = None,
    command: str = "",
) -> dict[str, Path]:
    """Write what a run log says, and what it forecasts, as a page and as a paper.

    Parameters
    ----------
    source : DataFrame or path, or several of them
        A run log, or a study folder with runs.csv and, where it has them, episodes.parquet,
        forecast.json and verification.json. Several, in a sequence or by name, make one report with
        a part each, side by side first and the others compared with the first; so do the agents
        and tasks of one log, unless one is chosen.
    out : path
        Folder for report.html, report.pdf and report.json; made if absent.
    formats : sequence of str
        Which of "html", "pdf" and "json" (the report as data) to write.
    forecast, verification, episodes : optional
        Used instead of those of the folder, for one source. Without a forecast one is made from the
        log, dated with its newest row.
    flops : array_like, optional
        Budgets to forecast [FLOP]; 10 and 100 times the largest of the log by default.
    methods, return_methods, level, n_resamples, rng, agent, task
        As in `forecast`, for a forecast that is made here.
    title : str, optional
    command : str
        What made this report, for its reproduction block.

    Returns
    -------
    dict
        Path of each file by its format. The same input and seed give the same bytes.

    Raises
    ------
    ReportError
        An unknown format, no run log in the folder, a verification of another forecast, or a
        forecast, verification or episodes beside several sources.
    ForecastError, FitError, RunLogError
        The log allows no forecast. Of several parts those that allow one are shown, and the others
        named with the reason.

    Examples
    --------
    >>> sa.write_report("runs.csv", "report", flops=[1e19, 1e20])          # doctest: +SKIP
    {'html': PosixPath('report/report.html'), 'pdf': PosixPath('report/report.pdf')}
    >>> sa.write_report({"old": "old.csv", "new": "new.csv"}, "report")    # doctest: +SKIP
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ReportError(f"formats={list(formats)}: choose among {', '.join(FORMATS)}")
    given = {"forecast": forecast, "verification": verification, "episodes": episodes}
    logs = _opened(source, given, agent, task)
    options = Options(flops, methods, return_methods, level, n_resamples, rng)
    studies, refused = [], {}
    with progress_bar("forecasts", len(logs)) as advance:
        for name, log in logs.items():
            try:
                studies.append(_study(name, log, options))
            except ScalingError as error:
                if len(logs) == 1:
                    raise
                refused[name] = str(error)
            advance(1)
    if not studies:
        parts: dict[str, list[str]] = {}
        for name, why in refused.items():
            parts.setdefault(why, []).append(name)
        reasons = "\n".join(f"{', '.join(names)}: {why}" for why, names in parts.items())
        raise ReportError(f"none of {len(logs)} parts allows a forecast.\n{reasons}")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    made = {}
    with progress_bar("report", 1 + len(formats)) as advance:
        report = compose(
            studies,
            title=title or "Scaling of " + ", ".join(study.name for study in studies),
            command=command,
            refused=refused,
        )
        advance(1)
        for name in formats:
            made[name] = _write(report, folder / f"report.{name}")
            advance(1)
    return made


def _write(report: Report, path: Path) -> Path:
    """The report in the format that the suffix names."""
    if path.suffix == ".json":
        return report.save(path)
    content = render_html(report).encode() if path.suffix == ".html" else render_pdf(report)
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise ReportError(f"{path}: cannot write it ({error.strerror})") from error
    return path


def _study(name: str, log: Opened, options: Options) -> Study:
    """The forecast of a log, made where it has none, with its audit and its verdict."""
    forecast, verification = log.forecast, log.verification
    if forecast is None:
        if verification is not None:
            raise ReportError("a verification needs the forecast that it judges: give forecast=")
        forecast = make_forecast(
            log.runs,
            default_flops(log.runs) if options.flops is None else options.flops,
            options.methods,
            return_methods=options.return_methods,
            level=options.level,
            n_resamples=options.n_resamples,
            hindcast_resamples=min(100, options.n_resamples),
            rng=options.rng,
            time_utc=newest(log.runs),
        )
    if verification is not None and verification.forecast_hash != forecast.hash:
        raise ReportError(
            f"the verification judges forecast {verification.forecast_hash[:12]}, and this one is "
            f"{forecast.hash[:12]}: verify again"
        )
    return Study(
        name=name,
        curves=Curves(forecast),
        runs=log.runs,
        audit=audit(log.runs, log.episodes),
        verification=verification,
    )


def default_flops(runs: pd.DataFrame, reach: Sequence[float] = REACH) -> list[float]:
    """The largest budget (or compute) among the usable rows [FLOP] times each of `reach`."""
    ok = runs[runs["status"] == "ok"]
    compute = ok["budget"].fillna(ok["flops"]) if "budget" in ok else ok["flops"]
    return [float(f"{factor * compute.max():.6g}") for factor in reach]


def newest(runs: pd.DataFrame) -> str:
    """The latest time in a log, ISO 8601; `UNDATED` without one."""
    if "time_utc" not in runs or runs["time_utc"].dropna().empty:
        return UNDATED
    times = pd.to_datetime(runs["time_utc"].dropna(), utc=True, errors="coerce", format="ISO8601")
    return UNDATED if times.isna().all() else times.max().isoformat(timespec="seconds")


def _opened(
    source: Source | Sequence[Source] | Mapping[str, Source],
    given: Mapping[str, Any],
    agent: str | None,
    task: str | None,
) -> dict[str, Opened]:
    """What is reported, by the name of its part: each agent and task of each source."""
    given = {name: value for name, value in given.items() if value is not None}
    if isinstance(source, pd.DataFrame | str | os.PathLike):
        log = _open(source)._replace(**given)
        parts = _split(log, agent, task)
        return {_who(part) or "a run log": part for part in parts}
    named = source if isinstance(source, Mapping) else dict(enumerate(source, 1))
    if not named:
        raise ReportError("no source: give a run log, a study folder, or several of them")
    if given and len(named) > 1:
        raise ReportError(
            f"{', '.join(given)}= belongs to one source, and {len(named)} are given: put it into a "
            "study folder beside its runs.csv"
        )
    found: dict[str, Opened] = {}
    for key, each in named.items():
        parts = _split(_open(each)._replace(**given), agent, task)
        for part in parts:
            name = _who(part) or "a run log"
            if isinstance(source, Mapping):
                name = f"{key}, {name}" if len(parts) > 1 else str(key)
            elif name in found and not isinstance(each, pd.DataFrame):
                name = f"{name} ({Path(each).stem})"
            found[name if name not in found else f"{name} ({len(found) + 1})"] = part
    return found


def _split(log: Opened, agent: str | None, task: str | None) -> list[Opened]:
    """The parts of a log: one an agent and task; all of a log that brings its forecast."""
    if log.forecast is not None:
        chosen = agent or log.forecast.agent or None, task or log.forecast.task or None
        runs = log.runs
        for name, value in zip(("agent", "task"), chosen, strict=True):
            if value is not None and name in runs:
                runs = select(runs, **{name: value}, mixture=True)
        return [log._replace(runs=runs)]
    runs = select(log.runs, agent, task, mixture=True)
    names = [name for name in ("agent", "task") if name in runs and runs[name].nunique() > 1]
    if not names:
        return [log._replace(runs=runs)]
    keys = runs.loc[runs["status"] == "ok", names].drop_duplicates()
    parts = []
    for _, key in keys.iterrows():
        at = (runs[names] == key).all(axis=1)
        parts.append(log._replace(runs=runs[at], episodes=_own(log.episodes, runs[at])))
    return parts


def _own(episodes: pd.DataFrame | None, runs: pd.DataFrame) -> pd.DataFrame | None:
    return None if episodes is None else episodes[episodes["run_id"].isin(runs["run_id"])]


def _who(log: Opened) -> str:
    """Agent and task of a log: "lstm on nethack"."""
    names = []
    for name in ("agent", "task"):
        values = log.runs[name].dropna().unique() if name in log.runs else []
        names += [str(values[0])] if len(values) == 1 and str(values[0]) else []
    return " on ".join(names)


def _open(source: Source) -> Opened:
    if isinstance(source, pd.DataFrame):
        runs = source if "status" in source.columns else load_runs(source)
        return Opened(runs, None, None, None)
    path = Path(source)
    if not path.is_dir():
        return Opened(load_runs(path), None, None, None)
    logs = [path / f"runs.{suffix}" for suffix in ("csv", "parquet", "jsonl")]
    log = next((file for file in logs if file.is_file()), None)
    if log is None:
        raise ReportError(f"{path}: no runs.csv in this folder; name a run log or a study folder")
    episodes, stored = path / "episodes.parquet", path / "forecast.json"
    verdict = path / "verification.json"
    return Opened(
        runs=load_runs(log),
        episodes=load_episodes(episodes) if episodes.is_file() else None,
        forecast=Forecast.load(stored) if stored.is_file() else None,
        verification=Verification.load(verdict) if verdict.is_file() else None,
    )
