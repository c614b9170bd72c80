"""The first screen: the answer in a sentence and a table, and the table behind the calculator."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.report.comparing import better_baselines
from scaling_analysis.report.model import Calculator, Table
from scaling_analysis.report.sources import Curves
from scaling_analysis.report.wording import (
    UNITS,
    WORDS,
    compute,
    count,
    interval,
    percent,
    quantity,
    times,
)

Array = NDArray[np.float64]

TARGETS = ("loss", "mean_return")


def answer(
    forecast: Forecast, targets: list[str], verification: Verification | None
) -> tuple[str, ...]:
    """Sentences that say it all: budget, size, samples, what to expect, and the verdict."""
    best = forecast.table[forecast.table["method"] == COMBINED]
    row = best.iloc[0]
    level = percent(forecast.level)
    main = forecast.ensemble.target
    text = (
        f"A budget of {compute(row['flops'])} FLOP, {times(row['extrapolation'])} the largest of "
        f"this log, is best spent on a model of about {count(row['params_opt'])} parameters "
        f"({level} interval {interval(row['params_opt_lo'], row['params_opt_hi'], count)}) trained "
        f"on {count(row['samples_opt'])} samples."
    )
    for target in targets:
        if np.isfinite(row[target]):
            text += (
                f" A new run there reaches a {WORDS[target]} of {quantity(row[target])} "
                f"({level} interval "
                f"{interval(row[f'{target}_run_lo'], row[f'{target}_run_hi'])} {UNITS[target]})."
            )
    if np.isfinite(row["params_near_lo"]) and np.isfinite(row["params_near_hi"]):
        text += (
            f" Sizes from {interval(row['params_near_lo'], row['params_near_hi'], count)} are "
            f"expected within {percent(forecast.tolerance)} of the best {WORDS[main]}."
        )
    said = [text]
    missing = [WORDS[name] for name in TARGETS if name not in targets]
    if missing:
        said.append(
            f"The log has no {missing[0]}, so nothing is said about it, nor about its link to the "
            f"{WORDS[main]}."
        )
    if better := better_baselines(forecast, targets):
        named = ", ".join(f"{name} for the {WORDS[target]}" for target, name in better)
        said.append(
            "In the hindcast of this log a baseline did better than the average of the methods, "
            f"which is what is forecast here: {named}. The chapter on every method has the figures."
        )
    if verification is not None:
        said.append(verdict_sentence(verification))
    return tuple(said)


def verdict_sentence(verification: Verification) -> str:
    """How many planned runs were inside, and how the choice of N fared."""
    parts = []
    for target in TARGETS:
        judged = verification.runs[verification.runs["target"] == target]
        judged = judged[judged["status"] == "ok"]
        if len(judged):
            parts.append(
                f"{int(judged['inside'].sum())} of {len(judged)} new runs inside their "
                f"{percent(verification.level)} interval of the {WORDS[target]}"
            )
    verdicts = verification.decisions["verdict"].value_counts()
    if len(verdicts):
        against = ", ".join(f"{n} {word}" for word, n in verdicts.items())
        parts.append(f"the choice of N against its neighbours: {against}")
    return f"The forecast was tested: {'; '.join(parts)}."


def answer_table(forecast: Forecast, targets: list[str]) -> Table:
    """One row a budget forecast."""
    best = forecast.table[forecast.table["method"] == COMBINED]
    level = percent(forecast.level)
    columns = ["Compute [FLOP]", "beyond the log", f"N_opt ({level})", "near-optimal N"]
    columns += [f"D_opt ({level})"]
    columns += [
        f"{WORDS[target].capitalize()} [{UNITS[target]}] ({level}, a new run)" for target in targets
    ]
    rows = []
    for _, row in best.iterrows():
        cells = [compute(row["flops"]), times(row["extrapolation"])]
        cells.append(_with_ends(row, "params_opt", "params_opt", count))
        cells.append(interval(row["params_near_lo"], row["params_near_hi"], count))
        cells.append(_with_ends(row, "samples_opt", "samples_opt", count))
        cells += [_with_ends(row, target, f"{target}_run", quantity) for target in targets]
        rows.append(tuple(cells))
    return Table(
        caption=(
            "The forecast: compute-optimal parameters N and samples D, and what to expect of a "
            "run there. Intervals hold the sampling error of the runs, the disagreement of the "
            "methods and the errors that the hindcast showed; those of a new run hold its noise "
            f"too. Near-optimal: expected within {percent(forecast.tolerance)} of the best."
        ),
        columns=tuple(columns),
        rows=tuple(rows),
        text_columns=(),
    )


def _with_ends(row: pd.Series, value: str, ends: str, write: Callable[[float], str]) -> str:
    return f"{write(row[value])} ({interval(row[f'{ends}_lo'], row[f'{ends}_hi'], write)})"


def calculator(curves: Curves, targets: list[str]) -> Calculator:
    """The forecast on a dense grid, from the smallest run to beyond the farthest budget."""
    forecast = curves.forecast
    e = forecast.ensemble
    columns: dict[str, Array] = {"flops": curves.flops}
    for name in ("params_opt", "samples_opt", *targets):
        if not e.forecasts("params_opt" if name.endswith("_opt") else name, COMBINED):
            continue
        for end, values in curves.read(name).items():
            columns[name if end == "value" else f"{name}_{end}"] = values
    return Calculator(
        columns={name: _numbers(values) for name, values in columns.items()},
        start=float(forecast.table["flops"].iloc[0]),
        flops_max=e.flops_max,
        level=forecast.level,
    )


def _numbers(values: Array) -> tuple[float | None, ...]:
    return tuple(float(f"{v:.6g}") if np.isfinite(v) else None for v in values)
