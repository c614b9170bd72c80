"""The compute-optimal size on an isoFLOP line, for all replicates and budgets at once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws.cost import Cost

Array = NDArray[np.float64]
Along = Callable[[Array, Array], Array]

_REACH = 30.0
"""Sizes are looked for within this many e-folds of those that were run."""
_NODES = 121
_HALVINGS = 48


def log_params_opt(
    mu: Along, slope_n: Along, slope_d: Along, log_flops: Array, cost: Cost, replicates: int
) -> Array:
    """log N that minimises mu(log N, log D) on the line C = cost.flops(N, D).

    The lowest node of a wide grid brackets the minimum; bisecting the total derivative gives it to
    full precision, which minimising the value, flat as it is there, would not.

    Parameters
    ----------
    mu, slope_n, slope_d : callables of (log N, log D), each (R or 1, points)
        The cost surface and, up to a common positive factor, its derivatives; (R, points).
    log_flops : (points,)
    cost : Cost
    replicates : int
        R.

    Returns
    -------
    (R, points); NaN where the minimum lies outside the range that is looked at.
    """
    knots = cost.log_params
    grid = np.linspace(knots[0] - _REACH, knots[-1] + _REACH, _NODES)
    log_cost = np.log(cost.flops_per_sample(np.exp(grid)))
    best = np.full((replicates, len(log_flops)), np.inf)
    node = np.zeros(best.shape, dtype=np.intp)
    for i in range(_NODES):
        value = mu(grid[i : i + 1, None], (log_flops - log_cost[i])[None])
        lower = value < best
        best, node = np.where(lower, value, best), np.where(lower, i, node)
    inside = (node > 0) & (node < _NODES - 1)
    low, high = grid[np.maximum(node - 1, 0)], grid[np.minimum(node + 1, _NODES - 1)]
    for _ in range(_HALVINGS):
        middle = 0.5 * (low + high)
        n = np.exp(middle)
        log_d = log_flops - np.log(cost.flops_per_sample(n))
        # Along the line, d log D / d log N = -d log(FLOP a sample) / d log N.
        rising = slope_n(middle, log_d) - cost.slope(n) * slope_d(middle, log_d) > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return np.where(inside, 0.5 * (low + high), np.nan)
