"""The inverse question: how much compute, and what N and D, reach a loss or a return."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError
from scaling_analysis.forecasting.ensemble import Ensemble
from scaling_analysis.forecasting.questions import check_level

Array = NDArray[np.float64]

REACH = 1e6
"""By default a value counts as out of reach if a million times the largest budget misses it."""
_POINTS_A_DECADE = 40


def flops_for(
    ensemble: Ensemble,
    *,
    loss: ArrayLike | None = None,
    mean_return: ArrayLike | None = None,
    level: float = 0.9,
    limit: float | None = None,
) -> pd.DataFrame:
    """Compute that reaches a loss or a mean return at the optimum, or how likely it never does.

    Parameters
    ----------
    loss, mean_return : array_like
        Give one of the two.
    level : float
        Of the interval: its ends are where the two ends of the interval of the expected value reach
        the target.
    limit : float, optional
        Largest compute considered [FLOP]; `REACH` times the largest budget by default.

    Returns
    -------
    DataFrame
        loss or mean_return, flops, flops_lo, flops_hi [FLOP] (inf beyond `limit`, 0 below the
        smallest compute that was fitted), extrapolation, params, params_lo, params_hi [count],
        samples [count] (NaN where flops is inf or 0), probability_unreachable: that the expected
        value misses the target at every compute up to `limit`, under these laws and their law
        error.
    """
    if (loss is None) == (mean_return is None):
        raise ForecastError("give one target: loss=... or mean_return=...")
    check_level(level)
    target, asked = ("loss", loss) if mean_return is None else ("mean_return", mean_return)
    goals = np.atleast_1d(np.asarray(asked, dtype=np.float64))
    if target not in ensemble.noise:
        raise ForecastError(f"nothing forecasts the {target} here, so none can be aimed at")
    if not np.all(np.isfinite(goals) & (goals > 0)):
        raise ForecastError(f"{target}={goals.tolist()}: targets must be positive and finite")
    limit = REACH * ensemble.flops_max if limit is None else float(limit)
    if not limit > ensemble.flops_max:
        raise ForecastError(
            f"limit={limit:g} FLOP lies within the log, whose largest budget is "
            f"{ensemble.flops_max:g}"
        )
    # Backwards the laws are no better known than forwards, and nobody asks for less than was run.
    start = min(float(b.fit.rows["flops"].min()) for b in ensemble.fitted("params_opt").values())
    grid = np.geomspace(start, limit, int(_POINTS_A_DECADE * np.log10(limit / start)) + 1)
    value = ensemble.predict(f"{target}_opt", grid)
    lo, hi = (np.log(end) for end in value.interval(level))
    sign = 1.0 if target == "loss" else -1.0
    best, worst = (lo, hi) if sign > 0 else (hi, lo)
    return pd.DataFrame(
        [_row(ensemble, target, goal, grid, value, (best, worst), sign, level) for goal in goals]
    )


def _row(ensemble, target, goal, grid, value, band, sign, level) -> dict[str, float]:
    aim = np.log(goal)
    flops = _first(grid, sign * (value.log - aim))
    earliest, latest = (_first(grid, sign * (end - aim)) for end in band)
    reached = value.falls_short(aim, sign)
    row = {
        target: goal,
        "flops": flops,
        "flops_lo": earliest,
        "flops_hi": latest,
        "extrapolation": flops / ensemble.flops_max,
    }
    sizes = [np.nan, np.nan, np.nan]
    if 0 < flops < np.inf:
        at = np.clip([flops, earliest, latest], grid[0], grid[-1])
        size = ensemble.predict("params_opt", at)
        lo, hi = size.interval(level)
        sizes = [float(np.exp(size.log[0])), float(lo[1]), float(hi[2])]
    row |= dict(zip(("params", "params_lo", "params_hi"), sizes, strict=True))
    row["samples"] = float(ensemble.cost.samples(sizes[0], flops)) if sizes[0] > 0 else np.nan
    row["probability_unreachable"] = 1 - float(np.nanmax(reached))
    return row


def _first(grid: Array, gap: Array) -> float:
    """The compute at which `gap` first falls to zero; inf if it never does, 0 from the start."""
    below = np.flatnonzero(gap <= 0)
    if below.size == 0:
        return np.inf
    i = int(below[0])
    if i == 0:
        return 0.0
    share = gap[i - 1] / (gap[i - 1] - gap[i])
    return float(np.exp(np.log(grid[i - 1]) + share * np.log(grid[i] / grid[i - 1])))
