"""Each figure of the report with its caption, its numbers and its hover text."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED, Hindcast
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.laws.profiles import SliceState
from scaling_analysis.report import diagnostics, figures, verdicts
from scaling_analysis.report.axes import ORANGE, thinned
from scaling_analysis.report.curves import draw_comparison
from scaling_analysis.report.drawing import HEIGHT, draw
from scaling_analysis.report.model import Figure, Table
from scaling_analysis.report.residuals import Residuals, misfit_of
from scaling_analysis.report.sources import Curves, fitted_rows, observed_optima
from scaling_analysis.report.wording import (
    WORDS,
    clipped,
    compute,
    count,
    interval,
    percent,
    quantity,
)

_NAME = {"loss": "loss", "mean_return": "return"}
_PROFILE_COLUMNS = ("run_id", "params", "samples", "flops", "budget")
_RESAMPLED = "Intervals at {level}; resampled: {scheme} by {unit}, and widened by the hindcast."


def profiles(fit: Any) -> Figure:
    target = fit.target
    rows = fit.rows.loc[thinned(len(fit.rows)), [*_PROFILE_COLUMNS, target]]
    found = int((fit.slices.state == SliceState.OK).sum())
    every = found == len(fit.profiles.budgets)
    others = "" if every else " The others have no optimum inside the sizes that were run."
    best = "lowest" if target == "loss" else "highest"
    return draw(
        f"profiles-{target}",
        f"IsoFLOP profiles of the {_NAME[target]}",
        f"One colour a budget; lines: the fitted polynomial ({fit.method}); diamonds: the {best} "
        f"point of {found} of {len(fit.profiles.budgets)} budgets.{others}",
        lambda ax: figures.plot_profiles(fit, ax),
        rows,
        "params",
        target,
        label=lambda r: (
            f"{clipped(str(r['run_id']), 60)}: N {count(r['params'])}, D {count(r['samples'])}, "
            f"C {compute(r['budget'])}, {_NAME[target]} {quantity(r[target])}"
        ),
    )


def optima_table(fit: Any) -> Table:
    slices = fit.slices
    rows = []
    for b, flops in enumerate(fit.profiles.budgets):
        found = slices.state[b] == SliceState.OK
        sizes = fit.rows.loc[fit.rows["budget"] == flops, "params"].nunique()
        if found:
            best = (count(slices.params[b]), count(slices.samples[b]), quantity(slices.value[b]))
        else:
            best = ("no optimum", "", "")
        rows.append((compute(flops), str(sizes), *best))
    return Table(
        caption=f"Optimum of each budget by {_NAME[fit.target]} ({fit.method}).",
        columns=("C [FLOP]", "sizes run", "N", "D", _NAME[fit.target]),
        rows=tuple(rows),
        text_columns=(),
    )


def frontier(curves: Curves, name: str) -> Figure:
    forecast = curves.forecast
    symbol = "N" if name == "params_opt" else "D"
    best = _combined(forecast)
    stated = best[["flops", name, f"{name}_lo", f"{name}_hi"]].assign(what="forecast")
    seen = observed_optima(forecast)
    points = pd.concat([seen[["flops", name]].assign(what="optimum"), stated], ignore_index=True)
    return draw(
        f"frontier-{symbol}",
        f"{'Parameters' if symbol == 'N' else 'Samples'} at the optimum",
        _scheme(forecast),
        lambda ax: figures.draw_frontier(ax, forecast, name, *_shown(curves, name)),
        points,
        "flops",
        name,
        label=lambda r: (
            f"{r['what']} at C {compute(r['flops'])}: {symbol} {count(r[name])}"
            + _ends(r, name, count)
        ),
        follows=name,
    )


def law(curves: Curves, target: str, verdict: Verification | None) -> Figure:
    forecast = curves.forecast
    rows = fitted_rows(forecast, target)
    rows = rows[thinned(len(rows))]
    names = ["run_id", "params", "flops"]
    points = rows[[*names, target]].assign(what="run")
    best = _combined(forecast)
    stated = best.rename(columns={"params_opt": "params"})
    if target in best and best[target].notna().any():
        ends = [f"{target}_run_lo", f"{target}_run_hi"]
        stated = stated[["params", "flops", target, *ends]].assign(what="forecast", run_id="")
        points = pd.concat([points, stated], ignore_index=True)
    new = pd.DataFrame()
    if verdict is not None:
        new = verdict.runs[(verdict.runs["target"] == target) & (verdict.runs["status"] == "ok")]
        new = new.rename(columns={"observed": target})[[*names, target]].assign(what="new run")
        points = pd.concat([points, new], ignore_index=True)

    def plot(ax: Any) -> None:
        figures.draw_law(ax, forecast, target, *_shown(curves, target))
        if len(new):
            ax.plot(new["flops"], new[target], "x", ms=5, mew=1.2, color=ORANGE, zorder=6)

    said = " Crosses: runs trained after the forecast was written." if len(new) else ""
    return draw(
        f"law-{target}",
        f"{_NAME[target].capitalize()} against compute",
        _scheme(forecast) + said,
        plot,
        points,
        "flops",
        target,
        label=lambda r: (
            f"{r['what']} {clipped(str(r['run_id']), 60)} at C {compute(r['flops'])}, "
            f"N {count(r['params'])}: {_NAME[target]} {quantity(r[target])}"
            + _ends(r, f"{target}_run", quantity)
        ),
        follows=target,
    )


def link(boot: Bootstrap, level: float) -> Figure:
    rows = boot.fit.rows[["run_id", "params", "flops", "loss", "mean_return"]]
    rows = rows[thinned(len(rows))]
    return draw(
        "link",
        "Return against loss",
        f"{boot.fit.method}; band: {percent(level)} interval of the expected return, {boot.scheme} "
        f"by {boot.unit} ({len(boot.valid)} replicates). The loss falls to the right.",
        lambda ax: figures.plot_link(boot, level=level, ax=ax),
        rows,
        "loss",
        "mean_return",
        label=lambda r: (
            f"{clipped(str(r['run_id']), 60)}: N {count(r['params'])}, C {compute(r['flops'])}, "
            f"loss {quantity(r['loss'])}, return {quantity(r['mean_return'])}"
        ),
    )


def hindcast(past: Hindcast, name: str, level: float) -> Figure:
    frame = past.to_frame(level)
    frame = frame[(frame["quantity"] == name) & (frame["method"] == COMBINED)]
    columns = ["origin", "budget", "extrapolation", "observed", "predicted", "lo", "hi"]
    points = frame.loc[thinned(len(frame)), columns]
    points = points.assign(ratio=points["observed"] / points["predicted"])
    held = int(frame["inside"].sum())
    return draw(
        f"hindcast-{name}",
        f"Hindcast of {verdicts.of(name).replace('$N_{opt}$', 'N_opt')}",
        f"{held} of {len(frame)} forecasts from {frame['origin'].nunique()} origins held at "
        f"{percent(level)}. Bars: the interval as it would have been stated; small marks: what "
        "the baselines would have said.",
        lambda ax: verdicts.plot_hindcast(past, name, level=level, ax=ax),
        points,
        "extrapolation",
        "ratio",
        label=lambda r: (
            f"from {compute(r['origin'])} to {compute(r['budget'])}: forecast "
            f"{_number(name, r['predicted'])} "
            f"({_number(name, r['lo'])} to {_number(name, r['hi'])}), "
            f"observed {_number(name, r['observed'])}"
        ),
    )


def verification(verdict: Verification, target: str) -> Figure:
    judged = verdict.runs[(verdict.runs["target"] == target) & (verdict.runs["status"] == "ok")]
    judged = judged.sort_values(["budget", "params"])
    points = judged[["run_id", "budget", "params", "observed", "predicted", "lo", "hi", "inside"]]
    points = points.assign(line=-np.arange(len(points), dtype=np.float64))
    return draw(
        f"verification-{target}",
        f"{_NAME[target].capitalize()} of the planned runs",
        f"Bar and tick: the {percent(verdict.level)} interval and centre of the forecast for a new "
        "run of that N and C, written before it was trained. Dot: the run; cross: outside.",
        lambda ax: verdicts.plot_verification(verdict, target, ax=ax),
        points,
        "observed",
        "line",
        label=lambda r: (
            f"{clipped(str(r['run_id']), 60)}: observed {quantity(r['observed'])}, forecast "
            f"{quantity(r['predicted'])} ({interval(r['lo'], r['hi'])})"
        ),
        height=max(HEIGHT * 0.6, 0.9 + 0.36 * len(judged)),
        left=0.36,
    )


def methods(forecast: Forecast, name: str) -> Figure:
    """Every method's forecast of one quantity at the first budget."""
    flops = float(forecast.table["flops"].min())
    table = forecast.table[forecast.table["flops"] == flops]
    points = table[table[name].notna()][["method", name]].reset_index(drop=True)
    points["line"] = -np.arange(len(points), dtype=np.float64)
    said = "N_opt" if name == "params_opt" else WORDS[name]
    write = count if name == "params_opt" else quantity
    return draw(
        f"methods-{name}",
        f"Every method's {said} at {compute(flops)} FLOP",
        f"Bars: {percent(forecast.level)} intervals of the expected value, each widened by the "
        "method's own hindcast. Square: the average; grey: the baselines.",
        lambda ax: diagnostics.plot_methods(forecast, name, ax=ax),  # type: ignore[arg-type]
        points,
        name,
        "line",
        label=lambda r: f"{r['method']}: {write(r[name])}",
        height=0.8 + 0.24 * len(points),
        left=0.3,
    )


def misfit(forecast: Forecast, target: str) -> Figure | None:
    """Optima of the budgets over every law; None where no budget has an optimum of its own."""
    points = misfit_of(forecast, target)
    if points.empty:
        return None
    return draw(
        f"misfit-{target}",
        f"Optima of the {_NAME[target]} over the laws",
        f"The {_NAME[target]} at the optimum of every budget, over what the law of each method "
        "says there. A line that bends away from zero at the right is a law that is wrong where "
        "the forecast begins.",
        lambda ax: diagnostics.plot_misfit(forecast, target, ax=ax),
        points,
        "flops",
        "residual",
        label=lambda r: (
            f"{r['method']} at C {compute(r['flops'])}: optimum {quantity(r['observed'])}, law "
            f"{quantity(r['law'])} ({percent(float(np.expm1(r['residual'])), signed=True)})"
        ),
        left=0.195,
    )


def residuals(found: Residuals, fit: Any, key: str, against: str) -> Figure:
    """Residuals of one method row by row."""
    rows = found.rows
    if against == "normal":
        return draw(
            f"normal-{key}",
            f"Are the residuals of {found.method} normal?",
            "Ordered residuals over their root mean square against normal quantiles; the line is "
            "equality. Ends that leave it are outliers, or tails heavier than normal.",
            lambda ax: diagnostics.plot_residuals(fit, "normal", ax=ax),
            rows.head(0),
            "flops",
            "residual",
            label=str,
        )
    return draw(
        f"residuals-{key}",
        f"Residuals of {found.method}",
        "Every fitted row over its fitted value; dashes: means of neighbouring rows.",
        lambda ax: diagnostics.plot_residuals(fit, "flops", ax=ax),
        rows[thinned(len(rows))],
        "flops",
        "residual",
        label=lambda r: f"{clipped(str(r['run_id']), 60)}: {diagnostics.describe(r, found)}",
        left=0.195,
    )


def comparison(every: Mapping[str, Curves], name: str) -> Figure:
    """One law of several forecasts, with the rows of their tables as numbers."""
    parts = []
    for who, curves in every.items():
        best = _combined(curves.forecast)
        columns = ["flops", name, f"{name}_lo", f"{name}_hi"]
        parts.append(best[columns].assign(forecast=who))
    points = pd.concat(parts, ignore_index=True)
    write = quantity if name in WORDS else count
    said = WORDS[name].capitalize() if name in WORDS else {"params_opt": "N_opt"}.get(name, "D_opt")
    levels = sorted({percent(curves.forecast.level) for curves in every.values()})
    drawn = {who: (curves.forecast, *_shown(curves, name)) for who, curves in every.items()}
    return draw(
        f"comparison-{name}",
        f"{said} side by side",
        f"Averages of methods with {' and '.join(levels)} bands of the expected value; dashed "
        "beyond the largest budget of each log.",
        lambda ax: draw_comparison(ax, drawn, name),
        points,
        "flops",
        name,
        label=lambda r: (
            f"{clipped(str(r['forecast']), 60)} at C {compute(r['flops'])}: {write(r[name])}"
            + _ends(r, name, write)
        ),
    )


def _combined(forecast: Forecast) -> pd.DataFrame:
    return forecast.table[forecast.table["method"] == COMBINED]


def _shown(curves: Curves, name: str) -> tuple[NDArray[np.float64], dict]:
    """The range of compute that a figure shows, from the log to the forecast, and the curve."""
    farthest = max(float(curves.forecast.table["flops"].max()), curves.forecast.ensemble.flops_max)
    grid = curves.within(0.0, farthest)
    return grid, curves.read(name, grid)


def _scheme(forecast: Forecast) -> str:
    boot = next(iter((forecast.ensemble.losses or forecast.ensemble.returns).values()))
    return _RESAMPLED.format(level=percent(forecast.level), scheme=boot.scheme, unit=boot.unit)


def _ends(row: pd.Series, name: str, write: Any) -> str:
    lo, hi = row.get(f"{name}_lo"), row.get(f"{name}_hi")
    if lo is None or hi is None or not np.isfinite([lo, hi]).all():
        return ""
    return f" ({interval(lo, hi, write)})"


def _number(name: str, value: float) -> str:
    return count(value) if name == "params_opt" else quantity(value)
