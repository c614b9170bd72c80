"""The best return of every budget, smoothed and as it was run, with the evaluation's noise."""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.estimators.episodes import Statistic
from scaling_analysis.estimators.isoflop import IsoflopFit
from scaling_analysis.estimators.metrics import Metric
from scaling_analysis.laws.profiles import SliceState
from scaling_analysis.uncertainty.episodes import resample_episodes

Array = NDArray[np.float64]


def resample_returns(
    rows: pd.DataFrame,
    returns: list[Array] | None,
    statistic: Statistic,
    n_resamples: int,
    rng: np.random.Generator,
) -> Array | None:
    """(R, rows) returns [points] with the evaluation's noise; None where it is not known."""
    if returns is not None:
        return resample_episodes(rng, n_resamples, returns, statistic)
    if "return_se" not in rows or not np.isfinite(rows["return_se"]).all():
        return None
    noise = rng.standard_normal((n_resamples, len(rows)))
    return rows["mean_return"].to_numpy(dtype=float) + noise * rows["return_se"].to_numpy(float)


def tabulate_optima(
    fit: IsoflopFit,
    rows: pd.DataFrame,
    metric: Metric,
    shift: float,
    noise: Array | None,
    level: float,
) -> pd.DataFrame:
    """The optimum of every budget that has one, smoothed and as it was run; see `ReturnLaw`."""
    profiles, grid = fit.profiles, replace(fit.profiles, optimum="grid")
    have = fit.slices.state == SliceState.OK
    highest = grid.optima()
    table: dict[str, Array] = {
        "flops": profiles.budgets,
        "params_opt": fit.slices.params,
        "samples_opt": fit.slices.samples,
        "mean_return": metric.points(fit.slices.value - shift),
        **{name: np.full(len(have), np.nan) for name in ("lo", "hi", "se")},
        "highest": metric.points(highest.value[0] - shift),
        "highest_params": highest.params[0],
        "optimism": np.full(len(have), np.nan),
    }
    if noise is not None:
        moved = metric.of(noise) + shift
        seen = profiles.response
        moved = np.where(np.isfinite(moved) & (moved > 0), moved, seen)
        smooth = metric.points(profiles.optima(response=moved).value - shift)
        # A budget whose optimum most replicates do not find has no interval.
        often = np.isfinite(smooth).mean(axis=0) > 0.5
        tails = [0.5 - level / 2, 0.5 + level / 2]
        table["lo"][often], table["hi"][often] = np.nanquantile(smooth[:, often], tails, axis=0)
        table["se"][often] = np.nanstd(smooth[:, often], axis=0)
        picked = grid.optima(response=moved)
        table["optimism"] = (
            metric.points(picked.value - shift) - _return_at(picked.params, rows, profiles.budgets)
        ).mean(axis=0)
    return pd.DataFrame(table)[have].reset_index(drop=True)


def describe_optimism(points: pd.DataFrame) -> str:
    """What the highest of noisy returns is too high by."""
    share = (points["optimism"] / points["highest"]).mean()
    measured = f" ({share:.1%} by evaluation noise alone)" if np.isfinite(share) else ""
    return (
        f"the highest of noisy returns is too high{measured}, and by more where sizes lie close: "
        "optimum='vertex' reads the profile"
    )


def _return_at(params: Array, rows: pd.DataFrame, budgets: Array) -> Array:
    """The observed return [points] of sizes (R, budgets), pooled over the runs of a size."""
    episodes = np.ones(len(rows))
    if "episodes" in rows and (rows["episodes"] > 0).all():
        episodes = rows["episodes"].to_numpy(dtype=float)
    found = np.full(params.shape, np.nan)
    for b, budget in enumerate(budgets):
        at = (rows["budget"] == budget).to_numpy()
        sizes, cell = np.unique(rows["params"].to_numpy(dtype=float)[at], return_inverse=True)
        weights = np.bincount(cell, weights=episodes[at])
        total = np.bincount(cell, weights=(episodes * rows["mean_return"])[at])
        nearest = np.abs(np.log(params[:, b, None] / sizes)).argmin(axis=1)
        found[:, b] = (total / weights)[nearest]
    return found
