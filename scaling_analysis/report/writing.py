"""Write the report of a run log or of a study folder."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scaling_analysis.errors import ReportError
from scaling_analysis.forecasting.forecasting import forecast as make_forecast
from scaling_analysis.forecasting.members import Methods
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.report.composing import compose
from scaling_analysis.report.html import render_html
from scaling_analysis.report.pdf import render_pdf
from scaling_analysis.runlog import load_episodes, load_runs, select
from scaling_analysis.runlog.audit import audit
from scaling_analysis.runlog.writing import replacing

FORMATS = ("html", "pdf", "json")
REACH = (10.0, 100.0)
"""Budgets that are forecast unless others are asked for, as factors on the largest of the log."""
UNDATED = "1970-01-01T00:00:00+00:00"
"""Date of a forecast from a log without times: a report says nothing that is not in its input."""


class Study(NamedTuple):
    """What a study folder holds."""

    runs: pd.DataFrame
    episodes: pd.DataFrame | None
    forecast: Forecast | None
    verification: Verification | None


def write_report(
    source: pd.DataFrame | str | os.PathLike[str],
    out: str | os.PathLike[str],
    formats: Sequence[str] = ("html", "pdf"),
    *,
    forecast: Forecast | None = None,
    verification: Verification | None = None,
    episodes: pd.DataFrame | None = None,
    flops: ArrayLike | None = None,
    methods: Methods | None = None,
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
    source : DataFrame or path
        A run log, or a study folder with runs.csv and, where it has them, episodes.parquet,
        forecast.json, plan_forecast.csv and verification.json.
    out : path
        Folder for report.html, report.pdf and report.json; made if absent.
    formats : sequence of str
        Which of "html", "pdf" and "json" (the report as data) to write.
    forecast, verification, episodes : optional
        Used instead of those of the folder. Without a forecast one is made from the log, dated with
        its newest row.
    flops : array_like, optional
        Budgets to forecast [FLOP]; 10 and 100 times the largest of the log by default.
    methods, level, n_resamples, rng, agent, task
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
        An unknown format, no run log in the folder, or a verification of another forecast.
    ForecastError, FitError, RunLogError
        The log allows no forecast.

    Examples
    --------
    >>> sa.write_report("runs.csv", "report", flops=[1e19, 1e20])          # doctest: +SKIP
    {'html': PosixPath('report/report.html'), 'pdf': PosixPath('report/report.pdf')}
    """
    unknown = [name for name in formats if name not in FORMATS]
    if unknown or not formats:
        raise ReportError(f"formats={list(formats)}: choose among {', '.join(FORMATS)}")
    study = _open(source)
    runs = select(study.runs, agent, task)
    verification = verification or study.verification
    forecast = forecast or study.forecast
    if forecast is None:
        if verification is not None:
            raise ReportError("a verification needs the forecast that it judges: give forecast=")
        forecast = make_forecast(
            runs,
            default_flops(runs) if flops is None else flops,
            methods,
            level=level,
            n_resamples=n_resamples,
            hindcast_resamples=min(100, n_resamples),
            rng=rng,
            time_utc=newest(runs),
        )
    if verification is not None and verification.forecast_hash != forecast.hash:
        raise ReportError(
            f"the verification judges forecast {verification.forecast_hash[:12]}, and this one is "
            f"{forecast.hash[:12]}: verify again"
        )
    found = audit(runs, study.episodes if episodes is None else episodes)
    report = compose(
        forecast,
        runs,
        found,
        verification,
        title=title or _title(forecast),
        command=command,
    )
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    made: dict[str, Path] = {}
    for name in formats:
        made[name] = folder / f"report.{name}"
        if name == "json":
            report.save(made[name])
            continue
        content = render_html(report).encode() if name == "html" else render_pdf(report)
        try:
            with replacing(made[name]) as file:
                file.write(content)
        except OSError as error:
            raise ReportError(f"{made[name]}: cannot write it ({error.strerror})") from error
    return made


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


def _title(forecast: Forecast) -> str:
    who = " on ".join(name for name in (forecast.agent, forecast.task) if name)
    return f"Scaling of {who}" if who else "Scaling report"


def _open(source: pd.DataFrame | str | os.PathLike[str]) -> Study:
    if isinstance(source, pd.DataFrame):
        runs = source if "status" in source.columns else load_runs(source)
        return Study(runs, None, None, None)
    path = Path(source)
    if not path.is_dir():
        return Study(load_runs(path), None, None, None)
    logs = [path / f"runs.{suffix}" for suffix in ("csv", "parquet", "jsonl")]
    log = next((file for file in logs if file.is_file()), None)
    if log is None:
        raise ReportError(f"{path}: no runs.csv in this folder; name a run log or a study folder")
    runs = load_runs(log)
    episodes = path / "episodes.parquet"
    stored = path / "forecast.json"
    forecast = Forecast.load(stored) if stored.is_file() else None
    verdict = path / "verification.json"
    verification = Verification.load(verdict) if verdict.is_file() else None
    return Study(
        runs=runs,
        episodes=load_episodes(episodes) if episodes.is_file() else None,
        forecast=forecast,
        verification=verification,
    )
