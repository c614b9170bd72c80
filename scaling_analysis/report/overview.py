"""Several forecasts in one report: their answers and laws side by side, and pairs compared."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from scaling_analysis.forecasting.comparison import compare_recipes
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.report import pictures
from scaling_analysis.report.model import Section, Table
from scaling_analysis.report.sources import Curves
from scaling_analysis.report.wording import (
    MISSING,
    UNITS,
    WORDS,
    clipped,
    compute,
    count,
    interval,
    percent,
    quantity,
    times,
)

_NAME = 60
_DRAWS = 2000


def overview(curves: Mapping[str, Curves], refused: Mapping[str, str]) -> tuple[Section, ...]:
    """The chapters before the parts of a report on several forecasts; `refused`: why, by name."""
    forecasts = {name: each.forecast for name, each in curves.items()}
    sections = [_side_by_side(forecasts, curves, refused)]
    pairs = _comparable(forecasts)
    if pairs:
        sections.append(_compared(forecasts, pairs))
    return tuple(sections)


def _side_by_side(
    forecasts: Mapping[str, Forecast], curves: Mapping[str, Curves], refused: Mapping[str, str]
) -> Section:
    targets = [name for name in WORDS if all(name in f.ensemble.noise for f in forecasts.values())]
    rows = []
    for name, forecast in forecasts.items():
        best = forecast.table[forecast.table["method"] == COMBINED]
        for _, row in best.iterrows():
            cells = [clipped(name, _NAME), compute(row["flops"]), times(row["extrapolation"])]
            for column, write in (("params_opt", count), ("samples_opt", count)):
                cells.append(_with_ends(row, column, column, write))
            cells += [_with_ends(row, target, f"{target}_run", quantity) for target in targets]
            rows.append(tuple(cells))
    table = Table(
        caption=(
            "All forecasts: compute-optimal parameters and samples, and what a new run there "
            "reaches, with the interval of each forecast."
        ),
        columns=(
            "what",
            "Compute [FLOP]",
            "beyond the log",
            "N_opt",
            "D_opt",
            *(f"{WORDS[target].capitalize()} [{UNITS[target]}], a new run" for target in targets),
        ),
        rows=tuple(rows),
    )
    shown = ["params_opt", *targets]
    return Section(
        key="side-by-side",
        title="Side by side",
        paragraphs=(
            f"{len(forecasts)} forecasts: {', '.join(clipped(name, _NAME) for name in forecasts)}. "
            "Each has a part of its own below.",
            *(f"No forecast of {clipped(name, _NAME)}: {why}" for name, why in refused.items()),
        ),
        figures=tuple(pictures.comparison(curves, name) for name in shown),
        tables=(table,),
    )


def _comparable(forecasts: Mapping[str, Forecast]) -> list[tuple[str, str]]:
    """The first forecast with each other one of the same task and target."""
    (first, one), *others = forecasts.items()
    return [
        (first, name)
        for name, other in others
        if other.task == one.task and other.ensemble.target == one.ensemble.target
    ]


def _compared(forecasts: Mapping[str, Forecast], pairs: list[tuple[str, str]]) -> Section:
    """Exponents and effective compute of pairs: which recipe is better, by how much, how surely."""
    rows, said = [], []
    for first, second in pairs:
        one, two = forecasts[first], forecasts[second]
        level = min(one.level, two.level)
        budgets = _shared_budgets(one, two)
        table = compare_recipes(one, two, budgets, level=level, n_draws=_DRAWS)
        for _, row in table.iterrows():
            rows.append(
                (
                    f"{clipped(second, _NAME)} against {clipped(first, _NAME)}",
                    compute(row["flops"]),
                    _estimate(row, "multiplier", _multiple),
                    percent(row["better"]),
                    _estimate(row, "params_exponent_difference", _signed),
                    _estimate(row, "value_exponent_difference", _signed),
                )
            )
        last = table.iloc[-1]
        said.append(
            f"At {compute(last['flops'])} FLOP what {clipped(second, _NAME)} reaches costs "
            f"{clipped(first, _NAME)} {_multiple(last['multiplier'])} the compute "
            f"({percent(level)} interval {_multiple(last['multiplier_lo'])} to "
            f"{_multiple(last['multiplier_hi'])})."
        )
    return Section(
        key="compared",
        title="Which one is better, and by how much?",
        paragraphs=(
            *said,
            "The multiplier of compute is how many times its own budget the first needs to reach "
            "what the second reaches; above 1 the second is better. An interval that holds 1 does "
            "not decide between them.",
        ),
        tables=(
            Table(
                caption=(
                    f"From {_DRAWS:,} draws of both forecasts, replicates of the averaged methods "
                    "with the error of the law. Differences of exponents: second less first, "
                    "around that budget."
                ),
                columns=(
                    "pair",
                    "Compute [FLOP]",
                    "multiplier of compute",
                    "second better",
                    "exponent of N_opt",
                    "exponent of the value",
                ),
                rows=tuple(rows),
            ),
        ),
    )


def _shared_budgets(one: Forecast, two: Forecast) -> list[float]:
    """The largest budget that both logs reach, and the budgets of the first forecast."""
    within = min(one.ensemble.flops_max, two.ensemble.flops_max)
    return [within, *(float(c) for c in one.table["flops"].unique() if c > within * (1 + 1e-9))]


def _with_ends(row: pd.Series, value: str, ends: str, write) -> str:
    if not np.isfinite(row[value]):
        return MISSING
    return f"{write(row[value])} ({interval(row[f'{ends}_lo'], row[f'{ends}_hi'], write)})"


def _estimate(row: pd.Series, name: str, write) -> str:
    return f"{write(row[name])} ({interval(row[f'{name}_lo'], row[f'{name}_hi'], write)})"


def _multiple(value: float) -> str:
    """A multiplier of compute, which the comparison follows over four decades to either side."""
    if value == 0:
        return "< 0.0001×"
    return times(value) if np.isfinite(value) else "> 10,000×"


def _signed(value: float) -> str:
    return f"{value:+.3f}"
