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
_COARSE = 4
_STEPS = 60
"""More than bisection would need; a smooth derivative takes about eight."""


def log_params_opt(
    mu: Along, slope_n: Along, slope_d: Along, log_flops: Array, cost: Cost, replicates: int
) -> Array:
    """log N that minimises mu(log N, log D) on the line C = cost.flops(N, D).

    The lowest node of a wide grid brackets the minimum; the zero of the total derivative gives it
    to full precision, which minimising the value, flat as it is there, would not.

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

    def look_at(i: NDArray[np.intp]) -> None:
        value = mu(grid[i], log_flops - log_cost[i])
        lower = value < best
        best[lower] = np.broadcast_to(value, best.shape)[lower]
        node[lower] = np.broadcast_to(i, best.shape)[lower]

    for i in range(0, _NODES, _COARSE):  # every few nodes, then those around the lowest
        look_at(np.full((1, 1), i))
    around = node.copy()
    for offset in range(1 - _COARSE, _COARSE):
        if offset:
            look_at(np.clip(around + offset, 0, _NODES - 1))
    inside = (node > 0) & (node < _NODES - 1)
    low, high = grid[np.maximum(node - 1, 0)], grid[np.minimum(node + 1, _NODES - 1)]

    def rising(log_n: Array) -> Array:
        # Along the line, d log D / d log N = -d log(FLOP a sample) / d log N.
        log_sample, slope = cost.along(log_n)
        log_d = log_flops - log_sample
        return slope_n(log_n, log_d) - slope * slope_d(log_n, log_d)

    return np.where(inside, _crossing(rising, low, high), np.nan)


def _crossing(f: Callable[[Array], Array], low: Array, high: Array) -> Array:
    """Where f, elementwise, crosses zero between `low` and `high`, to full precision.

    The method of Chandrupatla 1997: inverse quadratic interpolation where it can be trusted,
    bisection elsewhere. Without a change of sign it ends at the side that is closer to zero.
    """
    a, b = high, low
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        f_a, f_b = f(a), f(b)
        share = np.full(low.shape, 0.5)
        for _ in range(_STEPS):
            x = a + share * (b - a)
            f_x = f(x)
            same = np.signbit(f_x) == np.signbit(f_a)
            c, f_c = np.where(same, a, b), np.where(same, f_a, f_b)
            b, f_b = np.where(same, b, a), np.where(same, f_b, f_a)
            a, f_a = x, f_x
            least = 2 * np.finfo(float).eps * np.maximum(np.abs(a), 1.0) / np.abs(b - a)
            if np.all((least > 0.5) | (f_a == 0) | ~np.isfinite(least)):
                break
            xi, phi = (a - b) / (c - b), (f_a - f_b) / (f_c - f_b)
            trusted = (phi**2 < xi) & ((1 - phi) ** 2 < 1 - xi)
            quadratic = f_a / (f_b - f_a) * f_c / (f_b - f_c) + (c - a) / (b - a) * f_a / (
                f_c - f_a
            ) * f_b / (f_c - f_b)
            share = np.where(trusted & np.isfinite(quadratic), quadratic, 0.5)
            share = np.clip(share, np.minimum(least, 0.5), np.maximum(1 - least, 0.5))
            share = np.where(f_a == 0, 0.0, share)
    return np.where(np.abs(f_a) <= np.abs(f_b), a, b)
