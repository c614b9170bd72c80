"""Rolling origin: what the forecasts of several methods were worth, and of their average.

At every origin only what lay before it is fitted; the rows beyond it are then forecast and
compared. Here are the arrays of such a hindcast and what is learnt from them: weights for averaging
the methods, replayed at every origin with nothing but the errors known by then, and from the errors
of that replayed average the width of a forecast's interval. It knows no estimator: methods enter as
forecasts (origins + 1, methods, rows), the last origin being the present.

A row's position is a logarithm (of x, of compute). Errors are taken to grow with distance as a
standard deviation ~ distance^0.8: a slope that is wrong once and for all would give 1, one that
goes its own way at every step 0.5.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

GROWTH = 0.8
"""Power of the distance with which the standard deviation of a forecast's error grows."""
SHORTEST = 0.02
"""Distances count as at least 2 %: below, an error is noise."""
RECENCY = 4.0
"""An origin a quarter of the range back counts 1/e of the present."""
PRIOR_ORIGINS = 1.0
"""The prior, all methods alike, counts as so many origins."""
STEEPNESS = 4.0
"""Weights go with this inverse power of the scaled error."""
MAX_ORIGINS = 14


@dataclass(frozen=True, slots=True, kw_only=True)
class Origins:
    """Where a hindcast stands: row i of every array is an origin, the last one the present."""

    train: Mask
    """Rows known at an origin, (origins + 1, rows)."""
    edge: Array
    """Position of the last row known, (origins + 1,)."""
    first: float
    """Position of the first row."""

    @property
    def weights(self) -> Array:
        """`train` as 0 and 1: one replicate an origin for a batched fit."""
        return self.train.astype(float)


def roll_origins(
    position: ArrayLike,
    min_points: int = 3,
    max_origins: int = MAX_ORIGINS,
    min_rows: int = 0,
) -> Origins:
    """Origins behind at least `min_points` distinct positions and `min_rows` rows.

    Rows at one position stay together. Where there are more than `max_origins`, half, and one more,
    are spread evenly over the points and half over the positions: early cuts, that forecast far,
    and late ones are both among them.
    """
    place = np.asarray(position, dtype=float)
    distinct = np.unique(place)
    cuts = np.arange(min_points - 1, len(distinct) - 1)
    cuts = cuts[(place[:, None] <= distinct[cuts]).sum(axis=0) >= min_rows]
    if len(cuts) > max_origins:
        by_rank = np.linspace(cuts[0], cuts[-1], max_origins // 2 + 1).astype(int)
        even = np.linspace(distinct[cuts[0]], distinct[-1], max_origins // 2 + 2)[1:-1]
        by_place = np.clip(np.searchsorted(distinct, even, side="right") - 1, cuts[0], cuts[-1])
        cuts = np.unique(np.concatenate([by_rank, by_place]))
    edge = np.append(distinct[cuts], distinct[-1])
    return Origins(train=place <= edge[:, None], edge=edge, first=float(distinct[0]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """The average of methods as it would have been made at every origin."""

    weights: Array
    """Weights of the methods, (origins + 1, methods)."""
    average: Array
    """Averaged forecast of every row, (origins + 1, rows); NaN where no method was usable."""
    between: Array
    """Weighted variance of the methods' forecasts about it, (origins + 1, rows)."""
    errors: Array
    """Average minus observed where the row lay ahead, NaN elsewhere, (origins, rows)."""
    distance: Array
    """How far ahead the row lay, (origins, rows)."""
    importance: Array
    """How much each origin counts now, from its recency, (origins,)."""

    @property
    def effective(self) -> float:
        """Origins, each counted by its importance."""
        return float(self.importance.sum())

    @property
    def growth(self) -> float:
        """kappa^2: mean squared error at distance 1, by the mean absolute scaled error.

        The mean absolute error, times sqrt(pi/2) as for a normal variable, is not carried away by
        the one early origin that saw nothing of what was to come. 0 without an origin.
        """
        if not self.effective:
            return 0.0
        ahead = np.isfinite(self.errors)
        count = np.maximum(ahead.sum(axis=1), 1)
        size = np.where(ahead, np.abs(self.errors), 0.0).sum(axis=1) / count
        scale = np.where(ahead, self.distance**GROWTH, 0.0).sum(axis=1) / count
        return float(np.pi / 2 * ((self.importance @ size) / (self.importance @ scale)) ** 2)

    def inflation(self, variance: ArrayLike) -> float:
        """Mean squared error over the `variance` promised, (origins, rows), at least 1.

        One origin's worth of a prior says that the promise holds. 1 without an origin.
        """
        if not self.effective:
            return 1.0
        ahead = np.isfinite(self.errors)
        size = np.where(ahead, np.abs(self.errors) / np.sqrt(variance), 0.0).sum(axis=1)
        size = size / np.maximum(ahead.sum(axis=1), 1)
        ratio = np.pi / 2 * float(self.importance @ size / self.effective) ** 2
        return max(1.0, (self.effective * ratio + 1) / (self.effective + 1))


def replay(
    forecasts: ArrayLike,
    observed: ArrayLike,
    position: ArrayLike,
    origins: Origins,
    *,
    usable: ArrayLike | None = None,
    row_weights: ArrayLike | None = None,
) -> Replay:
    """Average methods by their past errors, at every origin and now.

    Parameters
    ----------
    forecasts : (origins + 1, methods, rows)
        What each method, fitted to the rows known at an origin, says of every row.
    observed, position : (rows,)
    usable : (origins + 1, methods), optional
        Methods that may enter at an origin (enough points). A method without a past takes the
        typical error of those that have one. A forecast that is not finite is never used.
    row_weights : (rows,), optional
        Weights of the rows in the errors, for instance of outliers.

    Returns
    -------
    Replay
        Weights ~ (mean squared scaled error)^-2 with a prior that counts as one origin, so
        that where few origins speak the methods count alike.
    """
    f = np.asarray(forecasts, dtype=float)
    y, place = np.asarray(observed, dtype=float), np.asarray(position, dtype=float)
    w = np.ones(len(y)) if row_weights is None else np.asarray(row_weights, dtype=float)
    allowed: Mask = np.asarray(np.isfinite(f).all(axis=2))
    if usable is not None:
        allowed = allowed & np.asarray(usable, dtype=bool)
    train = origins.train
    past = slice(0, len(train) - 1)
    distance = np.maximum(place - origins.edge[past, None], SHORTEST)
    ahead = np.where(train[past], 0.0, w)
    known = train.astype(float)
    # Of a method's forecasts made at origin o, those that had come true by origin p.
    filled = np.where(allowed[..., None], f, 0.0)
    squared = (filled[past] - y) ** 2 * ahead[:, None]
    total = np.einsum("ofn,pn->pof", squared, known)
    scale = np.einsum("on,pn->po", ahead * distance ** (2 * GROWTH), known)
    weights = _weights(total, scale, _recency(origins), allowed)
    silent: Mask = ~np.asarray(allowed.any(axis=1))
    average = np.einsum("pf,pfn->pn", weights, filled)
    average[silent] = np.nan
    between = np.einsum("pf,pfn->pn", weights, (filled - average[:, None]) ** 2)
    importance = np.where(silent[past], 0.0, _recency(origins)[-1, past])
    return Replay(
        weights=weights,
        average=average,
        between=between,
        errors=np.where(train[past], np.nan, (average[past] - y) * np.sqrt(w)),
        distance=distance,
        importance=importance,
    )


def _recency(origins: Origins) -> Array:
    """How much origin o counts at origin p, (p, o); 0 unless o is before p."""
    now, then = origins.edge[:, None], origins.edge
    share = (now - then) / np.maximum(now - origins.first, 1e-300)
    return np.where(then < now, np.exp(-RECENCY * np.maximum(share, 0.0)), 0.0)


def _weights(total: Array, scale: Array, recency: Array, allowed: Mask) -> Array:
    """Weights (p, methods) from scaled squared errors (p, o, methods) and scales (p, o)."""
    origins = scale.shape[1]
    judged = (recency[:, :origins] * (scale > 0))[..., None] * allowed[:origins]
    scaled = total / np.where(scale > 0, scale, 1.0)[..., None]
    count = judged.sum(axis=1)
    with np.errstate(invalid="ignore"):
        error = (judged * scaled).sum(axis=1) / count
    spoken = count > 0
    # Errors are told apart down to a hundred-millionth of the largest.
    floor = 1e-8 * np.where(spoken, error, 0.0).max(axis=1, keepdims=True) + 1e-300
    log_error = np.where(spoken, np.log(np.where(spoken, error, 1.0) + floor), 0.0)
    typical = np.exp(log_error.sum(axis=1) / np.maximum(spoken.sum(axis=1), 1))[:, None]
    error = np.where(spoken, np.exp(log_error), typical)
    error = (count * error + PRIOR_ORIGINS * typical) / (count + PRIOR_ORIGINS)
    log_weight = -0.5 * STEEPNESS * np.log(error)
    log_weight = np.where(allowed, log_weight, -np.inf)
    best = log_weight.max(axis=1, keepdims=True)
    weight = np.where(allowed, np.exp(log_weight - np.where(np.isfinite(best), best, 0.0)), 0.0)
    return weight / np.maximum(weight.sum(axis=1, keepdims=True), 1e-300)
