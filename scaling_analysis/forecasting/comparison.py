"""Two recipes beside one another: exponents, and how much compute the better one saves."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError
from scaling_analysis.forecasting.combination import log_horizon
from scaling_analysis.forecasting.ensemble import Ensemble
from scaling_analysis.forecasting.members import log_value
from scaling_analysis.forecasting.questions import check_level, check_replicates, positive
from scaling_analysis.forecasting.result import Forecast

Array = NDArray[np.float64]

_REACH = 1e4
"""The multiplier is looked for between 1/10,000 and 10,000."""
_HALF_DECADE = np.sqrt(10.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Curves:
    """Draws of one recipe's frontier around a budget."""

    log_params: Array
    """(draws, 2) log N_opt half a decade below and above the budget."""
    log_value: Array
    """(draws, grid) log value at the optimum, the law's error included."""


def compare_recipes(
    first: Forecast,
    second: Forecast,
    flops: ArrayLike,
    *,
    level: float = 0.9,
    n_draws: int = 2000,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """Difference of exponents, and effective-compute multiplier of the second recipe.

    Draws are replicates of the averaged methods, each with its weight, plus one draw of the law's
    error from the hindcast; the two recipes are drawn independently.

    Parameters
    ----------
    first, second : Forecast
        Forecasts of the same target from two logs.
    flops : array_like
        Budgets at which they are compared [FLOP].

    Returns
    -------
    DataFrame
        One row a budget: flops; params_exponent (a in N_opt ~ C^a around that budget) and
        value_exponent of the first, the same of the second, and their difference (second less
        first); multiplier: how many times the compute the first recipe needs to reach what the
        second reaches with `flops` (above 1: the second is better; inf or 0 beyond a factor of
        10,000). Each has _lo and _hi; `better` is the share of draws with a multiplier above 1.
        value_exponent is NaN where a law ends within half a decade.

    Raises
    ------
    ForecastError
        The targets differ, or a law says nothing of the returns that are to be compared: some end
        at the highest return seen.

    Examples
    --------
    >>> table = compare_recipes(forecast, forecast, 1e13)     # a recipe beside itself
    >>> bool(table["multiplier_lo"][0] < 1 < table["multiplier_hi"][0])
    True
    """
    one, two = first.ensemble, second.ensemble
    if one.target != two.target:
        raise ForecastError(
            f"the first forecast is of {one.target}, the second of {two.target}: compare like with "
            "like"
        )
    check_level(level)
    check_replicates(n_draws=n_draws)
    draws = np.random.default_rng(rng)
    rows = []
    for budget in positive("flops", flops):
        grid = budget * np.geomspace(1 / _REACH, _REACH, 321)
        a, b = (_curves(e, budget, grid, n_draws, draws) for e in (one, two))
        middle = grid.size // 2
        reached = b.log_value[:, middle]
        multiplier = _needed(np.log(grid), a.log_value, reached, one.target) / budget
        unknown = np.isnan(multiplier)
        if unknown.mean() > 0.5 - level / 2:
            which = "second" if np.isnan(reached).mean() > 0.5 - level / 2 else "first"
            raise ForecastError(
                f"at {budget:g} FLOP the {which} forecast's law of {one.target} has ended in "
                f"{np.mean(unknown):.0%} of the draws (a law in intrinsic performance ends at the "
                "highest return seen): compare at less compute, or forecast by a method that goes "
                "on, such as isoflop-vertex"
            )
        multiplier = multiplier[~unknown]
        exponents = [_exponents(curves, grid) for curves in (a, b)]
        row = {"flops": budget}
        for i, name in enumerate(("params_exponent", "value_exponent")):
            of = {"first": exponents[0][i], "second": exponents[1][i]}
            of["difference"] = of["second"] - of["first"]
            for label, values in of.items():
                row |= _interval(f"{name}_{label}", values, level)
        row |= _interval("multiplier", multiplier, level)
        row["better"] = float(np.mean(multiplier > 1))
        rows.append(row)
    return pd.DataFrame(rows)


def _curves(
    ensemble: Ensemble, flops: float, grid: Array, n_draws: int, rng: np.random.Generator
) -> _Curves:
    quantity = f"{ensemble.target}_opt"
    ends = np.array([flops / _HALF_DECADE, flops * _HALF_DECADE])
    fitted = ensemble.fitted(quantity)
    weights = {n: w for n, w in ensemble.weights(quantity, flops).items() if n in fitted}
    total = sum(weights.values())
    if not total > 0:
        raise ForecastError(
            f"no method says what {ensemble.target} to expect at {flops:g} FLOP: compare at less "
            "compute, or forecast by a method that goes on, such as isoflop-vertex"
        )
    share = np.array(list(weights.values())) / total
    counts = rng.multinomial(n_draws, share)
    sizes, values = [], []
    for name, count in zip(weights, counts, strict=True):
        member = fitted[name]
        picked = rng.choice(np.flatnonzero(member.valid), count)
        sizes.append(log_value(member.replicates, "params_opt", ends)[picked])
        values.append(log_value(member.replicates, "value_opt", grid)[picked])
    widening = ensemble.widening(quantity, "combined")
    law = widening.law_sd(log_horizon(grid, ensemble.flops_max), ensemble.trend(quantity))
    error = rng.standard_t(widening.dof, (n_draws, 1)) * law
    order = rng.permutation(n_draws)  # or methods would be paired across the recipes
    return _Curves(
        log_params=np.concatenate(sizes)[order], log_value=np.concatenate(values)[order] + error
    )


def _exponents(curves: _Curves, grid: Array) -> tuple[Array, Array]:
    decade = np.log(10.0)
    half = int(np.argmin(np.abs(grid / grid[grid.size // 2] - _HALF_DECADE))) - grid.size // 2
    middle = grid.size // 2
    run = np.log(grid[middle + half] / grid[middle - half])
    value = curves.log_value[:, middle + half] - curves.log_value[:, middle - half]
    return (curves.log_params[:, 1] - curves.log_params[:, 0]) / decade, value / run


def _needed(log_grid: Array, log_value: Array, reached: Array, target: str) -> Array:
    """(draws,) compute at which each curve first reaches a value; inf or 0 off the grid.

    NaN where the value is not known, or the curve ends before it is reached.
    """
    sign = 1.0 if target == "loss" else -1.0
    gap = sign * (log_value - reached[:, None])
    below = gap <= 0
    index = np.argmax(below, axis=1)
    rows = np.arange(len(gap))
    before = np.maximum(index - 1, 0)
    high, low = gap[rows, before], gap[rows, index]
    with np.errstate(invalid="ignore", divide="ignore"):
        # A curve that starts below the value has no crossing; its share is not finite.
        share = high / (high - low)
        found = np.exp(log_grid[before] + share * (log_grid[index] - log_grid[before]))
    found = np.where(~below.any(axis=1), np.inf, np.where(index == 0, 0.0, found))
    ended = np.isnan(reached) | (np.isnan(gap[:, -1]) & ~below.any(axis=1))
    return np.where(ended, np.nan, found)


def _interval(name: str, draws: Array, level: float) -> dict[str, float]:
    """Median and central interval of what is known; order statistics, since one may be infinite."""
    ordered = np.sort(draws[~np.isnan(draws)])
    if not ordered.size:
        return {name: np.nan, f"{name}_lo": np.nan, f"{name}_hi": np.nan}
    at = np.array([0.5, 0.5 - level / 2, 0.5 + level / 2]) * (ordered.size - 1)
    middle, lo, hi = ordered[np.round(at).astype(int)]
    return {name: float(middle), f"{name}_lo": float(lo), f"{name}_hi": float(hi)}
