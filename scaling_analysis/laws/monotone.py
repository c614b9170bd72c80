"""Falling step functions through points, for many replicates at once."""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_CELLS = 2**22


def isotonic_falling(y: Array, weights: Array) -> Array:
    """Weighted least squares of a sequence that never rises.

    By the max-min formula, in one pass over all replicates: pool-adjacent-violators is faster for
    one sequence, but its pools differ from replicate to replicate.

    Parameters
    ----------
    y : (R, points)
        In the order along which the sequence falls.
    weights : (R, points)
        Positive.

    Returns
    -------
    (R, points)
    """
    n_replicates, n = y.shape
    out = np.empty((n_replicates, n))
    chunk = max(1, _CELLS // n**2)
    for start in range(0, n_replicates, chunk):
        some = slice(start, start + chunk)
        zero = np.zeros((len(y[some]), 1))
        mass = np.hstack([zero, np.cumsum(weights[some], axis=1)])
        total = np.hstack([zero, np.cumsum(weights[some] * y[some], axis=1)])
        # Mean of points j ... k - 1 for every j < k.
        width = mass[:, None, 1:] - mass[:, :-1, None]
        valid = np.tri(n, dtype=bool).T
        mean = (total[:, None, 1:] - total[:, :-1, None]) / np.where(valid, width, 1.0)
        # Falling: the value at i is the least, over starts j <= i, of the greatest mean to k > i.
        mean = np.where(valid, mean, -np.inf)
        greatest = np.maximum.accumulate(mean[:, :, ::-1], axis=2)[:, :, ::-1]
        greatest = np.where(valid, greatest, np.inf)
        out[some] = greatest.min(axis=1)
    return out


def interpolate(knots: Array, values: Array, x: Array, *, paired: bool = False) -> Array:
    """Straight lines between knots, constant beyond the ends.

    Parameters
    ----------
    knots : (K,)
        Increasing.
    values : (K,) or (R, K)
    x : any shape
        With `paired`, its leading axis is that of the replicates.

    Returns
    -------
    The shape of `x`, with R in front where `values` has replicates that are not paired.
    """
    if len(knots) == 1:
        one = values[..., 0]
        return one.reshape(one.shape + (1,) * (x.ndim - int(paired))) + np.zeros_like(x)
    i = np.clip(np.searchsorted(knots, x) - 1, 0, len(knots) - 2)
    t = np.clip((x - knots[i]) / (knots[i + 1] - knots[i]), 0.0, 1.0)
    if not paired:
        return values[..., i] + t * (values[..., i + 1] - values[..., i])
    flat = i.reshape(len(i), -1)
    left, right = (np.take_along_axis(values, flat + k, axis=1).reshape(x.shape) for k in (0, 1))
    return left + t * (right - left)
