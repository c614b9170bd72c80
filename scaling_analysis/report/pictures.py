"""Each figure of the report with its caption, its numbers and its hover text."""

from typing import Any

import numpy as np
import pandas as pd

from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED, Hindcast
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.laws.profiles import SliceState
from scaling_analysis.report import figures
from scaling_analysis.report.axes import ORANGE
from scaling_analysis.report.drawing import HEIGHT, draw
from scaling_analysis.report.model import Figure, Table
from scaling_analysis.report.sources import fitted_rows, observed_optima
from scaling_analysis.report.wording import clipped, compute, count, interval, percent, quantity

_NAME = {"loss": "loss", "mean_return": "return"}
_RESAMPLED = "Intervals at {level}; resampled: {scheme} by {unit}, and widened by the hindcast."


def profiles(fit: Any) -> Figure:
    target = fit.target
    rows = fit.rows[["run_id", "params", "samples", "flops", "budget", target]]
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


def frontier(forecast: Forecast, name: str) -> Figure:
    symbol = "N" if name == "params_opt" else "D"
    best = _combined(forecast)
    stated = best[["flops", name, f"{name}_lo", f"{name}_hi"]].assign(what="forecast")
    seen = observed_optima(forecast)
    points = pd.concat([seen[["flops", name]].assign(what="optimum"), stated], ignore_index=True)
    return draw(
        f"frontier-{symbol}",
        f"{'Parameters' if symbol == 'N' else 'Samples'} at the optimum",
        _scheme(forecast),
        lambda ax: figures.plot_frontier(forecast, name, ax=ax),  # type: ignore[arg-type]
        points,
        "flops",
        name,
        label=lambda r: (
            f"{r['what']} at C {compute(r['flops'])}: {symbol} {count(r[name])}"
            + _ends(r, name, count)
        ),
        follows=name,
    )


def law(forecast: Forecast, target: str, verdict: Verification | None) -> Figure:
    rows = fitted_rows(forecast, target)
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
        figures.plot_law(forecast, target, ax=ax)
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
    points = frame[["origin", "budget", "extrapolation", "observed", "predicted", "lo", "hi"]]
    points = points.assign(ratio=points["observed"] / points["predicted"])
    held = int(frame["inside"].sum())
    return draw(
        f"hindcast-{name}",
        f"Hindcast of {figures.of(name).replace('$N_{opt}$', 'N_opt')}",
        f"{held} of {len(frame)} forecasts from {frame['origin'].nunique()} origins held at "
        f"{percent(level)}. Bars: the interval as it would have been stated; small marks: what "
        "the baselines would have said.",
        lambda ax: figures.plot_hindcast(past, name, level=level, ax=ax),
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
        lambda ax: figures.plot_verification(verdict, target, ax=ax),
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


def _combined(forecast: Forecast) -> pd.DataFrame:
    return forecast.table[forecast.table["method"] == COMBINED]


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
