"""How noisy a measured curve is, which of its points are outliers, and what a point counts for."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

LEAST_NOISE = 1e-3
"""No noise is taken to be below this share of the response's scatter, nor below a tenth of it of
the response itself: an interval is never of zero width."""
_OUTLIER = 5.0
"""Robust standard deviations from which a point is an outlier."""
_WINDOW = 4
"""Points on either side of a point that say what it should be."""
_NOISE_RATIO = 4.0
"""Relative noise that is so many times larger at low y than at high y is not relative."""


def least_variance(z: Array, space: Space) -> float:
    """Variance below which no noise is taken to be, of log y or of y in a unit of its size."""
    size = 1.0 if space == "log" else float(np.abs(z).max()) or 1.0
    return max((LEAST_NOISE * float(z.std())) ** 2, (0.1 * LEAST_NOISE * size) ** 2)


def precision_weights(se_z: Array, noise: float) -> Array:
    """Inverse variances, 1 on average: standard errors and what scatters beyond them."""
    beyond = max(noise - float(np.mean(se_z**2)), 0.01 * noise)
    precision = 1 / (se_z**2 + beyond)
    return precision / precision.mean()


def run_noise(residuals: Array, run: NDArray[np.str_]) -> float:
    """Variance of an observation of a new run: between runs and within, from residuals.

    0 unless some of at least three runs have several points.
    """
    names, member, sizes = np.unique(run, return_inverse=True, return_counts=True)
    if len(names) < 3 or sizes.max() < 2:
        return 0.0
    means = np.bincount(member, weights=residuals) / sizes
    rest = len(residuals) - len(names)
    within = float(((residuals - means[member]) ** 2).sum() / max(rest, 1))
    between = float(np.var(means, ddof=1)) - within * float(np.mean(1 / sizes))
    return max(between, 0.0) + within


def neighbour_noise(log_x: Array, z: Array, weights: Array) -> float:
    """Variance of a point, from what needs no law.

    From points about the line through their two neighbours, and, since the order of points at one
    x says nothing, from these about their mean, which then stands for them as a neighbour.
    """
    places = _places(log_x, z, weights)
    apart = (weights * (z - places.z[places.member]) ** 2).sum()
    freedom = (places.total - places.squares / places.total).sum()
    miss, at = _neighbour_misses(places)
    mean_weight = places.total / places.points
    w = np.minimum(np.minimum(mean_weight[at - 1], mean_weight[at]), mean_weight[at + 1])
    return float((apart + (w * miss**2).sum()) / (freedom + w.sum()))


def additive_weights(log_x: Array, y: Array) -> Array:
    """Weights in log space for a rising y > 0 whose noise does not shrink with it.

    Where log y is several times noisier among the low half of the points than among the high half
    (a return that starts at almost nothing), a point counts by y^2, up to the median of y.
    """
    places = _places(log_x, np.log(y), np.ones_like(y))
    miss, at = _neighbour_misses(places)
    middle = np.median(y)
    low = np.exp(places.z[at]) <= middle
    if len(y) < 8 or low.all() or not low.any():
        return np.ones(len(y))
    low_size, high_size = np.median(np.abs(miss[low])), np.median(np.abs(miss[~low]))
    if not low_size > _NOISE_RATIO * high_size:
        return np.ones(len(y))
    return np.minimum(y / middle, 1.0) ** 2


def outlier_weights(log_x: Array, z: Array) -> Array:
    """1 for a point that its neighbours on either side agree with, less for one they disown.

    A point is an outlier where the robust lines through the four points before it and the four
    after it agree with each other better than either does with the point, and both miss it by five
    robust standard deviations, as does the cubic through its four nearest: that the curve bends
    makes none of its points an outlier. Nor does a jump to a new level.
    """
    count, weights = len(z), np.ones(len(z))
    if count < 2 * _WINDOW + 1:
        return weights
    inner = np.arange(_WINDOW, count - _WINDOW)
    sides = [
        _median_line(log_x, z, inner[:, None] + offsets, log_x[inner])
        for offsets in (np.arange(-_WINDOW, 0), np.arange(1, _WINDOW + 1))
    ]
    miss = np.minimum(*(np.abs(z[inner] - side) for side in sides))
    scale = 1.4826 * np.median(np.abs(_misses_of_points(log_x, z)))
    limit = _OUTLIER * max(scale, LEAST_NOISE * float(z.std()))
    outlying = (miss > limit) & (miss > 2 * np.abs(sides[0] - sides[1]))
    outlying &= np.abs(z[inner] - _cubic(log_x, z, inner)) > limit
    weights[inner[outlying]] = (limit / miss[outlying]) ** 2
    return weights


class _Places(NamedTuple):
    """The distinct x of a curve, and what was seen there."""

    log_x: Array
    z: Array
    """Weighted mean of the points at each."""
    member: NDArray[np.intp]
    """(points,) where each lies."""
    points: Array
    total: Array
    """Sum of weights."""
    squares: Array
    """Sum of squared weights."""


def _places(log_x: Array, z: Array, weights: Array) -> _Places:
    distinct, member, count = np.unique(log_x, return_inverse=True, return_counts=True)
    total, of_z, squares = (
        np.bincount(member, weights=values).astype(float)
        for values in (weights, weights * z, weights**2)
    )
    single = count[member] == 1  # as it is, not divided by its weight
    mean = of_z / total
    mean[member[single]] = z[single]
    return _Places(distinct, mean, member, count.astype(float), total, squares)


def _neighbour_misses(places: _Places) -> tuple[Array, NDArray[np.intp]]:
    """Departures of places from the line through their two neighbours, scaled to one sd of a point.

    And which places those are.
    """
    log_x, z = places.log_x, places.z
    share = (log_x[1:-1] - log_x[:-2]) / (log_x[2:] - log_x[:-2])
    miss = z[1:-1] - (1 - share) * z[:-2] - share * z[2:]
    variance = places.squares / places.total**2  # of a mean, in those of a point
    variance = np.where(places.points == 1, 1.0, variance)
    spread = variance[1:-1] + share**2 * variance[2:] + (1 - share) ** 2 * variance[:-2]
    return miss / np.sqrt(spread), np.arange(1, len(z) - 1)


def _misses_of_points(log_x: Array, z: Array) -> Array:
    """What points miss their neighbours by, or those at their x, scaled to one sd of a point."""
    places = _places(log_x, z, np.ones_like(z))
    count = places.points[places.member]
    shared = count > 1
    apart = (z - places.z[places.member])[shared] * np.sqrt(count[shared] / (count[shared] - 1))
    return np.concatenate([_neighbour_misses(places)[0], apart])


def _cubic(log_x: Array, z: Array, at: NDArray[np.intp]) -> Array:
    """Lagrange's cubic through the two points before and the two after; infinite at tied places."""
    rows = at[:, None] + np.array([-2, -1, 1, 2])
    gaps = log_x[rows] - log_x[at][:, None]
    spread = gaps[:, :, None] - gaps[:, None, :] + np.eye(4)
    with np.errstate(divide="ignore", invalid="ignore"):
        # Row k of `factors` holds gap_j / (gap_j - gap_k) for j other than k, and 1 for k itself.
        factors = np.where(np.eye(4, dtype=bool), 1.0, gaps[:, None, :] / -spread)
        value = (factors.prod(axis=2) * z[rows]).sum(axis=1)
    return np.where(np.isfinite(value), value, np.inf)


def _median_line(log_x: Array, z: Array, rows: NDArray[np.intp], at: Array) -> Array:
    """Theil and Sen's line through each row of points, at one abscissa a row."""
    x, y = log_x[rows], z[rows]
    first, second = np.triu_indices(rows.shape[1], 1)
    dx, dy = x[:, second] - x[:, first], y[:, second] - y[:, first]
    slope = np.median(np.where(dx > 0, dy / np.where(dx > 0, dx, 1.0), 0.0), axis=1)[:, None]
    return np.median(y + slope * (at[:, None] - x), axis=1)
