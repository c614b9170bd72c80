"""Averaging methods, and the width of a forecast, by the errors of a hindcast.

Everything here is arrays of errors in the space of the forecast (log loss, log N, log return). One
column is one hindcast cell: a budget beyond an origin, forecast from the runs up to that origin.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self
from warnings import catch_warnings, simplefilter

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]

GROWTH = 0.85
"""Law error grows as log(C / C_max)^GROWTH: between a random walk of the slope (0.5) and a slope
that was wrong from the start (1); chosen on public isoFLOP sweeps and the NetHack log, where .7 to
1 do about as well."""

SHORTEST = 0.1
"""Log horizons below this do not differ in kind: within the log, too, a law is a little wrong."""

PRIOR_ORIGINS = 2.0
"""Weight of the prior of a law's error, in hindcast origins: few origins promise little."""

INDIFFERENT_ORIGINS = 1.0
"""Weight of the prior that methods are alike, in hindcast origins: few origins decide little."""

_TINY = np.finfo(np.float64).tiny


def log_horizon(flops: ArrayLike, flops_max: ArrayLike) -> Array:
    """log(C / C_max), 0 within the range that was fitted."""
    ratio = np.asarray(flops, dtype=np.float64) / np.asarray(flops_max, dtype=np.float64)
    return np.log(np.maximum(ratio, 1.0))


def method_weights(
    errors: ArrayLike,
    horizon: ArrayLike,
    origin: ArrayLike,
    target_horizon: float,
    spreads: ArrayLike,
    prior_sd: float = 0.0,
) -> Array:
    """Weight of each method in the average for targets at `target_horizon`.

    A method's expected squared error is its mean squared hindcast error, cells near the target's
    log horizon and late origins counting more, shrunk towards the geometric mean of all methods as
    if `INDIFFERENT_ORIGINS` origins had shown no difference (in logs, since one hopeless method
    would otherwise make the others look alike), plus the square of its own bootstrap spread at the
    target. The weight is the inverse square of that. Picking the best method outright, and
    equal weights, were both worse on public sets. Before any origin is on record the law's expected
    error stands in its place: a form that is tight because it is rigid has shown nothing yet.

    Parameters
    ----------
    errors : array_like, shape (methods, cells)
        Observed minus forecast. NaN where a method could not be fitted at an origin: that says
        nothing of how well it forecasts where it can be, so the mean of the others stands in.
    horizon, origin : array_like, shape (cells,)
        log(C / C_max) of the cell, and its C_max.
    target_horizon : float
        log(C / C_max) of the forecasts to be made.
    spreads : array_like, shape (methods,) or (methods, targets)
        Bootstrap standard deviations of the forecasts to be made; not finite where a method has
        none, which is then left out.
    prior_sd : float
        Standard deviation of a law's error at `target_horizon` expected before any hindcast.

    Returns
    -------
    Array, shape of `spreads`
        Non-negative, summing to one over methods; NaN where no method has a forecast.
    """
    spread = np.asarray(spreads, dtype=np.float64)
    variance = (spread if spread.ndim > 1 else spread[:, None]) ** 2
    squared = np.asarray(errors, dtype=np.float64) ** 2
    known = np.isfinite(squared).any(axis=0)
    expected = variance + prior_sd**2
    if known.any():
        squared = squared[:, known]
        squared = np.where(np.isfinite(squared), squared, np.nanmean(squared, axis=0))
        cells = cell_weights(np.asarray(horizon)[known], np.asarray(origin)[known], target_horizon)
        own = np.log(np.maximum(np.average(squared, axis=1, weights=cells), _TINY))
        prior = INDIFFERENT_ORIGINS / (INDIFFERENT_ORIGINS + cells.sum())
        score = np.exp(prior * own.mean() + (1 - prior) * own)
        expected = variance + score[:, None]
    usable = np.isfinite(expected)
    least = np.min(np.where(usable, expected, np.inf), axis=0)
    # Relative to the best method; where the best is exact, exact methods share all the weight.
    excess = np.divide(expected, least, out=np.where(expected > 0, np.inf, 1.0), where=least > 0)
    weight = np.where(usable, excess, np.inf) ** -2.0
    with np.errstate(invalid="ignore"):
        weight = weight / weight.sum(axis=0)
    return weight.reshape(spread.shape)


def cell_weights(horizon: Array, origin: Array, target_horizon: float) -> Array:
    """Weight of hindcast cells, shape (cells,): an origin counts for at most one in all.

    The cells of one origin share its fit, and so its error. Within an origin the cells nearest to
    the target's log horizon count most, and an origin whose cells are all far from it counts less.
    Laws drift: each origin counts a fifth less than the next one.
    """
    near = np.minimum(horizon, target_horizon) + SHORTEST
    closeness = near / (np.maximum(horizon, target_horizon) + SHORTEST)
    origins, index = np.unique(origin, return_inverse=True)
    best, total = np.zeros(origins.size), np.zeros(origins.size)
    np.maximum.at(best, index, closeness)
    np.add.at(total, index, closeness)
    age = origins.size - 1 - np.arange(origins.size)
    return closeness * (best * 0.8**age / total)[index]


@dataclass(frozen=True, slots=True, kw_only=True)
class Widening:
    """What a hindcast adds to the spread of a bootstrap: the error of the law itself.

    The variance of a forecast at log horizon h is base^2 + (scale * trend * h^GROWTH)^2, where
    `base` is the spread of bootstrap and methods, and `trend` the change of the quantity that a
    factor e of compute has brought so far; its quantiles are those of a t distribution.
    """

    scale: float
    """Standard deviation of the law's error at C = e C_max, as a share of the trend."""
    dof: float
    """Degrees of freedom of the t quantiles: hindcast origins plus the prior's."""
    origins: int
    """Hindcast origins behind it; 0 where only the prior speaks."""

    def sd(self, base: ArrayLike, horizon: ArrayLike, trend: ArrayLike) -> Array:
        """Standard deviation of the law's forecast."""
        return np.hypot(np.asarray(base, dtype=np.float64), self.law_sd(horizon, trend))

    def law_sd(self, horizon: ArrayLike, trend: ArrayLike) -> Array:
        """Its part beyond bootstrap and methods; within the log, that of a tenth of e C_max."""
        ahead = np.maximum(np.asarray(horizon, dtype=np.float64), SHORTEST)
        return self.scale * np.asarray(trend, dtype=np.float64) * ahead**GROWTH

    def quantile(self, level: float) -> float:
        """Half-width of the central interval of `level`, in standard deviations."""
        return float(student_quantile(level, self.dof))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def fit_widening(
    errors: ArrayLike,
    base: ArrayLike,
    horizon: ArrayLike,
    origin: ArrayLike,
    trend: ArrayLike,
    prior_scale: float,
) -> Widening:
    """Estimate the law error from hindcast errors that their `base` spread does not explain.

    The scale s maximises sum_i w_i log Normal(e_i; 0, base_i^2 + (s trend_i h_i^GROWTH)^2), each
    origin weighing one in all (its cells share a fit), plus `PRIOR_ORIGINS` origins whose scale was
    `prior_scale`. A law that was right within its bootstrap at every origin keeps a scale below the
    prior's; one that broke gets what it takes to cover the breaks.

    Parameters
    ----------
    errors, base, horizon, origin, trend : array_like, shape (cells,)
        Observed minus forecast; the spread that bootstrap, methods and observation explain; log(C /
        C_max); C_max; the trend known at the origin. Cells with a NaN error are left out.
    prior_scale : float
        Law error expected at C = e C_max before any hindcast, as a share of the trend.
    """
    e, b, h, o, u = (np.asarray(a, np.float64) for a in (errors, base, horizon, origin, trend))
    seen = np.isfinite(e) & np.isfinite(b) & (h > 0)
    e, b, h, o, u = e[seen], b[seen], h[seen], o[seen], u[seen]
    origins, index, cells = np.unique(o, return_inverse=True, return_counts=True)
    weight = 1.0 / cells[index]
    scales = prior_scale * np.geomspace(0.02, 100.0, 600)
    prior = -PRIOR_ORIGINS * (np.log(scales) + 0.5 * (prior_scale / scales) ** 2)
    variance = b**2 + np.square(scales[:, None] * u * h**GROWTH)
    likelihood = -0.5 * (np.log(variance) + e**2 / variance) @ weight
    best = int(np.argmax(prior + likelihood))
    return Widening(
        scale=float(scales[best]), dof=PRIOR_ORIGINS + origins.size, origins=int(origins.size)
    )


def combine(points: ArrayLike, spreads: ArrayLike, weights: ArrayLike) -> tuple[Array, Array]:
    """Average of methods and the spread around it, before any widening.

    Methods see the same runs, so their sampling errors are taken as fully dependent (their spreads
    add, not their variances); what they disagree on is added as a variance of its own.

    Parameters
    ----------
    points, spreads : array_like, shape (methods, ...)
        Forecasts and bootstrap standard deviations in the space of the forecast. A method that is
        not finite somewhere is left out there.
    weights : array_like, shape (methods,) or (methods, ...)

    Returns
    -------
    mean, base : Array, shape (...)
    """
    point, spread = np.asarray(points, dtype=np.float64), np.asarray(spreads, dtype=np.float64)
    w = np.asarray(weights, dtype=np.float64)
    w = w.reshape(w.shape + (1,) * (point.ndim - w.ndim))
    w = np.where(np.isfinite(point) & np.isfinite(spread), w, 0.0)
    total = w.sum(axis=0)
    w = np.divide(w, total, out=np.full(w.shape, np.nan), where=total > 0)
    known = w > 0
    mean = np.sum(np.where(known, w * point, 0.0), axis=0)
    sampling = np.sum(np.where(known, w * spread, 0.0), axis=0)
    between = np.sum(np.where(known, w * (point - mean) ** 2, 0.0), axis=0)
    nowhere = ~(total > 0)
    mean, base = np.where(nowhere, np.nan, mean), np.sqrt(sampling**2 + between)
    return mean, np.where(nowhere, np.nan, base)


def robust_sd(replicates: ArrayLike, axis: int = 0) -> Array:
    """Half the central 68.3 % range of replicates: a few wild refits do not set the spread."""
    values = np.asarray(replicates, dtype=np.float64)
    ends = [0.158655, 0.841345]
    if values.size and not np.isnan(values).any():  # many times as fast
        low, high = np.quantile(values, ends, axis=axis)
        return (high - low) / 2
    with catch_warnings():
        simplefilter("ignore", RuntimeWarning)  # no finite replicate gives NaN, as it should
        low, high = np.nanquantile(values, ends, axis=axis)
    return (high - low) / 2


def weighted_quantile(values: ArrayLike, weights: ArrayLike, levels: ArrayLike) -> Array:
    """Quantiles of weighted draws, shape of `levels`; draws that are NaN are left out."""
    x, w = np.asarray(values, dtype=np.float64), np.asarray(weights, dtype=np.float64)
    known = ~np.isnan(x)
    order = np.argsort(x[known], kind="stable")
    x, w = x[known][order], w[known][order]
    if x.size == 0:
        return np.full(np.shape(levels), np.nan)
    middle = (np.cumsum(w) - w / 2) / w.sum()
    return np.interp(np.asarray(levels, dtype=np.float64), middle, x)


def interval_score(observed: ArrayLike, lo: ArrayLike, hi: ArrayLike, level: float) -> Array:
    """Width plus the penalty 2 / (1 - level) for each unit by which an observation lies outside.

    Gneiting and Raftery 2007, equation 43; lower is better, a useless width does not pass as a hit.
    """
    y, low, high = (np.asarray(a, dtype=np.float64) for a in (observed, lo, hi))
    miss = np.maximum(low - y, 0) + np.maximum(y - high, 0)
    return (high - low) + 2 / (1 - level) * miss
