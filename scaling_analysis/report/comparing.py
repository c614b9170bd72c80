"""Every method side by side: exponent, forecast, record in the hindcast, weight, residuals."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import BootstrapError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED, no_farther, scored_of
from scaling_analysis.forecasting.through_link import LINK
from scaling_analysis.report import pictures
from scaling_analysis.report.model import Figure, Section, Table
from scaling_analysis.report.residuals import Residuals, residuals_of
from scaling_analysis.report.sources import fitted_rows
from scaling_analysis.report.wording import (
    MISSING,
    WORDS,
    clipped,
    compute,
    count,
    percent,
    quantity,
    times,
)


def methods_section(forecast: Forecast, targets: list[str]) -> Section:
    """One table a target, in the order of the forecast."""
    return Section(
        key="methods",
        title="Every method side by side",
        paragraphs=(
            "Methods are averaged by how well each one forecast held-out budgets of this log; the "
            "weight is that at the first budget forecast. The baselines, persistence (nothing "
            "improves) and a straight line in logs, are never averaged: a method that does not "
            "beat them earns no trust.",
            "The average is scored as it would have been made at each origin, when less was known "
            "of the methods: its record is that of the procedure, not of today's weights.",
            *better_baselines(forecast, targets).values(),
        ),
        figures=tuple(
            pictures.methods(forecast, name)
            for name in ("params_opt", *targets)
            if forecast.ensemble.forecasts(name, COMBINED)
        ),
        tables=tuple(_table(forecast, target) for target in targets),
    )


def better_baselines(forecast: Forecast, targets: Iterable[str]) -> dict[tuple[str, str], str]:
    """What the hindcast says against the average: {(target, baseline): sentence}."""
    past = forecast.ensemble.hindcast
    if past is None:
        return {}
    return {
        (row["target"], row["baseline"]): (
            f"In the hindcast of the {WORDS[row['target']]} the baseline {row['baseline']} does "
            f"better than the average: interval score {quantity(row['score'])} against "
            f"{quantity(row['score_average'])} (lower is better), error {percent(row['error'])} "
            f"against {percent(row['error_average'])}, over {row['forecasts']} forecasts up to "
            f"{times(_farthest(forecast))} ahead."
        )
        for row in past.better_baselines(targets, forecast.level, _farthest(forecast)).to_dict(
            "records"
        )
    }


def _farthest(forecast: Forecast) -> float:
    """The largest budget forecast over the largest of the log."""
    return float(forecast.table["extrapolation"].max())


def residuals_section(forecast: Forecast, targets: list[str]) -> Section:
    """What the methods leave unexplained: a table of all, figures of the one that weighs most."""
    figures: list[Figure | None] = []
    tables = []
    for target in targets:
        fits = _residual_fits(forecast, target)
        found = {name: residuals_of(fit) for name, fit in fits.items()}
        if not found:
            continue
        figures.append(pictures.misfit(forecast, target))
        best = _heaviest(forecast, target, found)
        for against in ("flops", "normal"):
            figures.append(pictures.residuals(found[best], fits[best], target, against))
        tables.append(_residual_table(found, target))
    return Section(
        key="residuals",
        title="Residuals: what the laws leave unexplained",
        paragraphs=(
            "Where residuals bend, or sit on one side at the largest budgets, the law has the "
            "wrong shape there, and the forecast begins there. What the rows of a run share does "
            "not average out over its checkpoints: that is why runs are resampled, not rows.",
        ),
        figures=tuple(each for each in figures if each is not None),
        tables=tuple(tables),
    )


def _residual_fits(forecast: Forecast, target: str) -> dict[str, Any]:
    e = forecast.ensemble
    members = e.losses if target == "loss" else e.returns
    fits = {name: member.fit for name, member in members.items() if name not in BASELINES}
    if target == "mean_return" and e.link is not None:
        fits[LINK] = e.link.fit
    return {name: fit for name, fit in fits.items() if np.isfinite(fit.fitted_values()).any()}


def _heaviest(forecast: Forecast, target: str, methods: Iterable[str]) -> str:
    """The method that weighs most at the first budget forecast."""
    weights = forecast.ensemble.weights(target, float(forecast.table["flops"].min()))
    return max(methods, key=lambda name: weights.get(name, 0.0))


def _residual_table(found: Mapping[str, Residuals], target: str) -> Table:
    rows = []
    for name, each in found.items():
        mean, error = each.at_the_end()
        worst = each.rows.iloc[int(np.argmax(each.rows["residual"].abs()))]
        farthest = float(worst["residual"])
        if each.space == "log":
            farthest = float(np.expm1(farthest))
        rows.append(
            (
                name,
                str(len(each.rows)),
                _sized(each, each.rms),
                percent(each.run_share),
                f"{_sized(each, mean, signed=True)} ± {_sized(each, error)}",
                f"{_sized(each, farthest, signed=True)}: "
                f"{clipped(str(worst['run_id']), 40)}, C {compute(worst['flops'])}",
            )
        )
    return Table(
        caption=(
            f"Residuals of the {WORDS[target]}, in logs where all values are positive. Shared by "
            "runs: the part of their variance that the rows of a run have in common. At the end: "
            "mean over the runs of the largest eighth of compute, with its standard error."
        ),
        columns=("method", "rows", "typical size", "shared by runs", "at the end", "farthest row"),
        rows=tuple(rows),
        text_columns=(0, 5),
    )


def _sized(found: Residuals, value: float, signed: bool = False) -> str:
    """A residual: in percent where it is of logs."""
    if not np.isfinite(value):
        return MISSING
    if found.space == "log":
        return percent(round(value, 6), signed=signed)  # zero but for rounding errors is zero
    return f"{value:{'+' if signed else ''}.3g}"


def _table(forecast: Forecast, target: str) -> Table:
    e, level = forecast.ensemble, forecast.level
    flops = float(forecast.table["flops"].min())
    scored, record = _record(forecast, target)
    weights = e.weights(target, flops)
    members = e.losses if target == "loss" else e.returns
    names = [COMBINED, *e.methods(target), *(b for b in BASELINES if b in members)]
    rows = []
    for name in names:
        if not e.forecasts(f"{target}_opt", name):
            continue
        said = np.exp(e.predict(f"{target}_opt", flops, method=name).log[0])
        rows.append(
            (
                "average" if name == COMBINED else name,
                _exponent_of_all(forecast, target)
                if name == COMBINED
                else _exponent(members.get(name), level),
                _size(forecast, name, flops),
                quantity(float(said)),
                *record.get(name, (MISSING,) * 3),
                _weight(name, weights),
            )
        )
    of = WORDS[target] + " at the optimum" * scored.endswith("_opt")
    far = times(_farthest(forecast))
    origin = f"Hindcast of the {of}, up to {far} ahead: " if record else "No hindcast. "
    return Table(
        caption=(
            f"Methods for the {WORDS[target]} at {compute(flops)} FLOP. {origin}error is the root "
            f"mean square of the log error, inside the share of {percent(level)} intervals that "
            "held, score the mean interval score in logs (lower is better)."
        ),
        columns=(
            "method",
            f"exponent of N_opt ({percent(level)})",
            "N_opt",
            WORDS[target],
            "error",
            "inside",
            "score",
            "weight",
        ),
        rows=tuple(rows),
        emphasis=(0,),
    )


def _record(forecast: Forecast, target: str) -> tuple[str, dict[str, tuple[str, str, str]]]:
    """What was scored, and error, coverage and interval score of each method.

    Of budgets as far ahead as those forecast, at most.
    """
    past, level = forecast.ensemble.hindcast, forecast.level
    if past is None:
        return "", {}
    frame = no_farther(past.to_frame(level), _farthest(forecast))
    scored = scored_of(frame, target)
    out = {}
    for name, at in frame[frame["quantity"] == scored].groupby("method"):
        rms = float(np.sqrt((at["error"] ** 2).mean()))
        held = f"{int(at['inside'].sum())} of {len(at)}"
        out[str(name)] = percent(rms), held, f"{at['score'].mean():.3f}"
    return scored, out


def _exponent(member: Bootstrap | None, level: float) -> str:
    """Mean exponent of N_opt over the compute of the rows, with its bootstrap interval."""
    if member is None:
        return MISSING
    exponent = _exponent_between(member.fit.rows["flops"].min(), member.fit.rows["flops"].max())
    value = float(exponent(member.fit))
    if not np.isfinite(value) or value == 0:
        return MISSING
    try:
        lo, hi = member.interval(exponent, level=level)
    except BootstrapError:
        return f"{value:.3f}"
    return f"{value:.3f} ({lo:.3f} to {hi:.3f})"


def _exponent_of_all(forecast: Forecast, target: str) -> str:
    """The same over the replicates of all averaged methods, each with the method's weight."""
    e = forecast.ensemble
    if target != e.target:
        return MISSING
    rows = fitted_rows(forecast, target)
    exponent = _exponent_between(rows["flops"].min(), rows["flops"].max())
    values, weights = e.draws("params_opt", float(forecast.table["flops"].min()), exponent)
    known = np.isfinite(values)
    values, weights = values[known], weights[known]
    if not len(values):
        return MISSING
    order = np.argsort(values)
    share = np.cumsum(weights[order]) / weights.sum()
    half = forecast.level / 2
    lo, middle, hi = np.interp([0.5 - half, 0.5, 0.5 + half], share, values[order])
    return f"{middle:.3f} ({lo:.3f} to {hi:.3f})"


def _exponent_between(low: float, high: float) -> Callable[[Any], NDArray[np.float64]]:
    span = np.array([low, high])

    def exponent(fit: Any) -> NDArray[np.float64]:
        log_n = np.log(fit.params_opt(span))
        return (log_n[..., 1] - log_n[..., 0]) / np.log(span[1] / span[0])

    return exponent


def _size(forecast: Forecast, name: str, flops: float) -> str:
    e = forecast.ensemble
    if name == LINK or not e.forecasts("params_opt", name):
        return MISSING
    return count(float(np.exp(e.predict("params_opt", flops, method=name).log[0])))


def _weight(name: str, weights: dict[str, float]) -> str:
    if name == COMBINED:
        return ""
    return percent(round(weights[name], 3)) if name in weights else "baseline"
