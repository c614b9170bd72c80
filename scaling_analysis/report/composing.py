"""From a forecast and what stands beside it to the report model: what is said, in which order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.processes import Jobs
from scaling_analysis.report import pictures
from scaling_analysis.report.answering import TARGETS, answer, answer_table, calculator
from scaling_analysis.report.comparing import methods_section, residuals_section
from scaling_analysis.report.equations import equations, link_equation
from scaling_analysis.report.judging import verdict_section
from scaling_analysis.report.model import Part, Report, Section, Table
from scaling_analysis.report.overview import overview
from scaling_analysis.report.sources import Curves, profile_fit
from scaling_analysis.report.wording import WORDS, clipped, interval
from scaling_analysis.runlog.audit import Audit

_MOST_NAMED = 12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Study:
    """A forecast with what stands beside it."""

    name: str
    """How the report calls it where it holds several."""
    curves: Curves
    """Of the forecast, whose own fits, rows and dates are what is shown."""
    runs: pd.DataFrame
    """The log, for what was left out of the fits."""
    audit: Audit
    """Of the same log."""
    verification: Verification | None
    """The verdict on this forecast, if there is one."""

    @property
    def forecast(self) -> Forecast:
        return self.curves.forecast


def compose(
    studies: Sequence[Study],
    *,
    title: str,
    command: str,
    refused: Mapping[str, str] | None = None,
) -> Report:
    """All that the report says, as data.

    Parameters
    ----------
    studies : sequence of Study
        One part each, in this order, and where there are several, all of them side by side first.
    title : str
    command : str
        What makes this report again.
    refused : mapping, optional
        By the name of a part that allows no forecast, why.
    """
    several = len(studies) > 1 or bool(refused)
    keys = [f"{i}-" if several else "" for i in range(1, len(studies) + 1)]
    parts = [_part(study, key, command) for study, key in zip(studies, keys, strict=True)]
    curves = {study.name: study.curves for study in studies}
    return Report(
        title=title,
        sections=overview(curves, refused or {}) if several else (),
        parts=tuple(parts),
    )


def _part(study: Study, key: str, command: str) -> Part:
    forecast, verification, curves = study.forecast, study.verification, study.curves
    targets = [name for name in TARGETS if name in forecast.ensemble.noise]
    beside = Jobs(_without_curves, [(forecast, targets)])
    frontier, laws = _frontier(curves), _laws(curves, targets, verification)
    ((profiles, link, methods, past, residuals),) = beside.results("figures")
    sections = [
        profiles,
        frontier,
        laws,
        link,
        methods,
        past,
        residuals,
        verdict_section(verification),
        _audit(study.audit),
        _left_out(forecast, study.runs),
        _again(forecast, command),
    ]
    return Part(
        key=key,
        name=study.name,
        subtitle=_subtitle(forecast, study.runs),
        date=date_of(forecast.time_utc),
        answer=answer(forecast, targets, verification),
        table=answer_table(forecast, targets),
        cautions=tuple(forecast.messages),
        calculator=calculator(curves, targets),
        sections=tuple(_keyed(section, key) for section in sections if section is not None),
    )


def _without_curves(forecast: Forecast, targets: list[str]) -> tuple[Section | None, ...]:
    """The chapters that are drawn from the fits themselves, while others trace the laws."""
    return (
        _profiles(forecast, targets),
        _link(forecast),
        methods_section(forecast, targets),
        _hindcast(forecast),
        residuals_section(forecast, targets),
    )


def _keyed(section: Section, key: str) -> Section:
    """The chapter with `key` before its own and its figures' keys."""
    figures = tuple(replace(figure, key=key + figure.key) for figure in section.figures)
    return replace(section, key=key + section.key, figures=figures)


def _subtitle(forecast: Forecast, runs: pd.DataFrame) -> str:
    fitted = len(forecast.rows)
    text = f"{fitted} checkpoints of {forecast.rows['run_id'].nunique()} runs fitted"
    more = len(runs) - fitted
    return f"{text}, {more} more rows in the log" if more > 0 else text


def date_of(time_utc: str) -> str:
    """The date of a forecast as a report shows it; "" for one from a log without times."""
    return "" if time_utc.startswith("1970-01-01") else time_utc


def _profiles(forecast: Forecast, targets: list[str]) -> Section:
    figures, tables, said = [], [], []
    for target in targets:
        fit = profile_fit(forecast, target)
        if fit is None:
            said.append(
                f"No isoFLOP profile of the {WORDS[target]} could be fitted; what there is to "
                "know before using these numbers says why."
            )
            continue
        figures.append(pictures.profiles(fit))
        tables.append(pictures.optima_table(fit))
    return Section(
        key="profiles",
        title="IsoFLOP profiles",
        paragraphs=(
            "Every budget buys a large model for few samples or a small one for many. Where the "
            "curve of a budget turns is its best size; how flat it is there says how much the "
            "choice matters.",
            *said,
        ),
        figures=tuple(figures),
        tables=tuple(tables),
    )


def _frontier(curves: Curves) -> Section:
    return Section(
        key="frontier",
        title="The compute-optimal frontier",
        paragraphs=(
            "How the best size and the best number of samples grow with compute. Dots are the "
            "optima of single budgets; the line is the average of all methods, weighed by how "
            "well each one has forecast; squares are the forecast.",
        ),
        equations=equations(curves.forecast, ("N",)),
        figures=(
            pictures.frontier(curves, "params_opt"),
            pictures.frontier(curves, "samples_opt"),
        ),
    )


def _laws(curves: Curves, targets: list[str], verification: Verification | None) -> Section:
    forecast = curves.forecast
    shown = [t for t in targets if forecast.ensemble.forecasts(t, COMBINED)]
    return Section(
        key="laws",
        title="What to expect at the optimum",
        paragraphs=(
            "The dark band is the expected value at the compute-optimal size with the error of "
            "the law itself; the light band is a single new run. Grey points are all runs of the "
            "log, optimal or not.",
        ),
        equations=equations(forecast, ("L", "R")),
        figures=tuple(pictures.law(curves, target, verification) for target in shown),
    )


def _link(forecast: Forecast) -> Section | None:
    link = forecast.ensemble.link
    if link is None:
        return None
    lo, hi = link.fit.loss_range
    return Section(
        key="link",
        title="From loss to return",
        paragraphs=(
            "What an agent of a given loss scores. The link was fitted to losses from "
            f"{interval(lo, hi)}; below, it is an extrapolation.",
            *link.fit.messages,
        ),
        equations=link_equation(link.fit),
        figures=(pictures.link(link, forecast.level),),
    )


def _hindcast(forecast: Forecast) -> Section:
    past = forecast.ensemble.hindcast
    if past is None:
        return Section(
            key="hindcast",
            title="Hindcast",
            paragraphs=(
                "The log has too few budgets to hold some out and forecast them. The intervals "
                "rest on errors that are usual for such laws, not on this log's own.",
            ),
        )
    known = set(past.cells.loc[past.cells["predicted"].notna(), "quantity"])
    order = [("loss_opt", "loss"), ("mean_return_opt", "mean_return"), ("params_opt",)]
    chosen = [next((q for q in names if q in known), None) for names in order]
    return Section(
        key="hindcast",
        title="Hindcast: would it have been right before?",
        paragraphs=(
            "The log was cut at earlier budgets, the whole procedure repeated on what came before "
            "(choice of weights and widths included), and the budgets beyond forecast. A bar is "
            "the interval as it would have been stated, around 1; a dot is what was observed. "
            "Nothing is claimed about distances farther than these but by extrapolating the "
            "errors themselves.",
            *past.messages,
        ),
        figures=tuple(pictures.hindcast(past, q, forecast.level) for q in chosen if q),
    )


def _audit(audit: Audit) -> Section:
    rows = tuple(
        (str(f.severity), f.what, ". ".join(t for t in (f.where, f.bias) if t), f.remedy)
        for f in audit.findings
    )
    said = (
        f"{audit.rows} rows, {audit.usable} of them usable, of {audit.runs} runs were looked at "
        "for what silently ruins a fit."
    )
    table = Table(
        caption="What the audit found, the most important first.",
        columns=("", "what", "where, and which way it moves a fit", "what to do"),
        rows=rows,
        text_columns=(0, 1, 2, 3),
        emphasis=tuple(i for i, row in enumerate(rows) if row[0] == "serious"),
    )
    return Section(
        key="audit",
        title="What is wrong with the data",
        paragraphs=(said,) if rows else (said, "Nothing was found."),
        tables=(table,) if rows else (),
    )


def _left_out(forecast: Forecast, runs: pd.DataFrame) -> Section:
    """Rows outside the fits: those that the log marks, and those that are newer than the fits."""
    out = runs[runs["status"] != "ok"]
    unfitted = _unfitted(forecast, runs)
    rows = []
    noted = out.assign(note=out["note"].fillna("") if "note" in out else "")
    for (status, note), at in noted.groupby(["status", "note"]):
        rows.append((str(status), clipped(str(note), 400), str(len(at)), _named(at["run_id"])))
    if len(unfitted):
        why = "without a value of its own, or newer than the forecast"
        rows.append(("ok", why, str(len(unfitted)), _named(unfitted["run_id"])))
    if not rows:
        return Section(
            key="left-out", title="What was left out", paragraphs=("Every row of the log is used.",)
        )
    return Section(
        key="left-out",
        title="What was left out",
        paragraphs=(f"{len(out) + len(unfitted)} of {len(runs)} rows enter no fit.",),
        tables=(
            Table(
                caption="Rows that were left out, with the reason in the log.",
                columns=("status", "reason", "rows", "runs"),
                rows=tuple(rows),
                text_columns=(0, 1, 3),
            ),
        ),
    )


def _unfitted(forecast: Forecast, runs: pd.DataFrame) -> pd.DataFrame:
    """Rows of status ok that are not among the rows of the forecast."""
    ok = runs[runs["status"] == "ok"]
    fitted = set(map(tuple, forecast.rows[["run_id", "samples"]].itertuples(index=False)))
    keys = zip(ok["run_id"], ok["samples"], strict=True)
    return ok[np.array([key not in fitted for key in keys], dtype=bool)]


def _named(names: pd.Series) -> str:
    every = [clipped(name, 60) for name in names.astype(str).unique()]
    shown = ", ".join(every[:_MOST_NAMED])
    more = len(every) - _MOST_NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def _again(forecast: Forecast, command: str) -> Section:
    e = forecast.ensemble
    boot = next(iter((e.losses or e.returns).values()))
    facts = [
        ("forecast made", date_of(forecast.time_utc) or "undated: the log carries no time"),
        ("forecast hash", forecast.hash),
        ("hash of the fitted rows", forecast.content_hash),
        ("seed", "a generator was passed on" if forecast.seed is None else str(forecast.seed)),
        ("replicates", f"{len(boot.valid)} a method, {boot.scheme} by {boot.unit}"),
        ("evaluation protocol", forecast.protocol or "none"),
        *((f"version of {name}", text) for name, text in forecast.versions.items()),
    ]
    return Section(
        key="reproduce",
        title="To make this again",
        paragraphs=("The same log, seed and versions give the same numbers, byte for byte.",),
        code=command,
        tables=(
            Table(
                caption="What this report rests on.",
                columns=("what", "value"),
                rows=tuple((name, clipped(text, 200)) for name, text in facts),
                text_columns=(0, 1),
            ),
        ),
    )
