"""Learning curves out of a run log: the rows of an intrinsic fit, and what is odd about them."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.intrinsic_problem import CurveProblem, make_smoothing
from scaling_analysis.estimators.metrics import Metric
from scaling_analysis.estimators.selection import select_rows

if TYPE_CHECKING:
    from scaling_analysis.estimators.intrinsic_fit import IntrinsicFit

MIN_SIZES = 3
MIN_POINTS = 4
"""Checkpoints that at least three sizes must have: fewer are no learning curve."""
_SAME_LENGTH = 0.05
"""Runs of one size whose ends differ by more than this share have unequal lengths."""


def select_curves(
    runs: pd.DataFrame, *, size: str, drop: float, metric: Metric | None
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The rows to fit and reasons for doubt in them, or a FitError that says why they are none.

    Rows of the first `drop` of each run's samples stay out.
    """
    rows = select_rows(runs, "mean_return", size=size)
    mixed = rows.groupby("run_id")["params"].nunique()
    if (mixed > 1).any():
        raise FitError(
            f"run {mixed.idxmax()!r} has {mixed.max()} values of {size}: a run trains one model. "
            "Are params and samples swapped? load_runs(path, columns={...}) renames them"
        )
    longest = rows.groupby("run_id")["samples"].transform("max")
    rows = rows[rows["samples"] >= drop * longest].reset_index(drop=True)
    sizes = rows.groupby("params")["samples"].nunique()
    if len(sizes) < MIN_SIZES:
        raise FitError(
            f"{rows['run_id'].nunique()} run(s) of {len(sizes)} size(s): to see which size learns "
            f"best for its compute takes at least {MIN_SIZES} sizes"
        )
    curves = int((sizes >= MIN_POINTS).sum())
    if curves < MIN_SIZES:
        raise FitError(
            f"{curves} of {len(sizes)} sizes have a learning curve of {MIN_POINTS} checkpoints or "
            f"more, {MIN_SIZES} are needed: log evaluations during training, or fit single runs "
            "with fit_isoflop(runs, target='mean_return')"
        )
    y = rows["mean_return"].to_numpy(dtype=float)
    if np.ptp(y) == 0:
        raise FitError(f"mean_return is {y[0]:.6g} in every row: there is nothing to fit")
    if metric is not None:
        _check_metric(metric, rows)
    return rows, tuple(_doubts(rows))


def state_problem(fit: "IntrinsicFit") -> CurveProblem:
    """The problem that the rows of a fit pose, centred and averaged over seeds."""
    log_n = np.log(fit.rows["params"].to_numpy(dtype=float))
    log_e = np.log(fit.law.cost_constant * fit.rows["samples"].to_numpy(dtype=float))
    middle = float((log_n.min() + log_n.max()) / 2)
    points, cell = np.unique(np.stack([log_n, log_e], axis=1), axis=0, return_inverse=True)
    size, position = points[:, 0] - middle, points[:, 1] - np.log(fit.law.flops_ref) + middle
    return CurveProblem(
        cell=cell.ravel(),
        log_n=size,
        log_e=position,
        middle=middle,
        smoothing=make_smoothing(size, position, fit.smoothing),
        inner=fit.inner,
        knots=fit.knots,
        metric=fit.metric,
        both_sides=fit.both_sides,
    )


def _check_metric(metric: Metric, rows: pd.DataFrame) -> None:
    """A ceiling above all returns, and a function that rises and inverts between them."""
    y = rows["mean_return"].to_numpy(dtype=float)
    best = int(np.argmax(y))
    if metric.ceiling is not None and y[best] > metric.ceiling:
        raise FitError(
            f"ceiling={metric.ceiling:g} is below a return that was observed: {y[best]:g} in run "
            f"{rows['run_id'][best]!r}. Give the highest return that is possible"
        )
    low, high = float(y.min()), float(y.max())
    if metric.floor is not None:
        if high <= metric.floor:
            raise FitError(f"floor={metric.floor:g} is above every return, the best is {high:g}")
        low = max(low, metric.floor + 1e-3 * (high - metric.floor))
    if metric.ceiling is not None:
        high = min(high, metric.ceiling - 1e-3 * (metric.ceiling - low))
    metric.check(np.linspace(low, high, 33))
    if not (metric.of(np.array([low, high])) > 0).all():
        raise FitError(
            f"metric {metric.name!r}, m = {metric.equation}, is not positive at a return of "
            f"{low:g}: a power law of I needs a positive metric; give floor=, or another metric"
        )


def _doubts(rows: pd.DataFrame) -> list[str]:
    found = []
    ends = rows.groupby(["params", "run_id"])["samples"].max()
    by_size = ends.groupby(level="params")
    short = by_size.max() > by_size.min() * (1 + _SAME_LENGTH)
    if short.any():
        n = short.idxmax()
        found.append(
            f"runs of {int(short.sum())} size(s) have unequal lengths: of N = {n:.4g}, from "
            f"{by_size.min()[n]:.4g} to {by_size.max()[n]:.4g} samples; where a run ends, the mean "
            "over seeds jumps"
        )
    per_size = rows.groupby("params")["samples"].nunique()
    if len(per_size) > per_size.median() and rows["run_id"].nunique() == len(rows):
        found.append(
            f"{len(per_size)} sizes with {per_size.median():g} checkpoints each: are params and "
            "samples swapped?"
        )
    return found
