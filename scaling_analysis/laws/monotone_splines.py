"""Smooth functions that never fall: cubic splines whose coefficients do not decrease.

With equidistant knots a cubic spline rises where its B-spline coefficients do. In the steps between
coefficients, none of them negative, least squares is a non-negative problem as small as the number
of knots; its normal equations cost a few passes over the points.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_BEND = 1e-6
"""Penalty on second differences of the coefficients, as a share of the points' weight: it fills
knots between which no point lies, and is far below what noise could notice."""
_RIDGE = 1e-12
_LOCAL = np.arange(4)


@dataclass(frozen=True, slots=True, eq=False)
class MonotoneSpline:
    """A spline between `low` and `high`, constant beyond."""

    low: float
    high: float
    coefficients: Array
    """(K,), not decreasing."""

    def value(self, x: Array) -> Array:
        """The function at x; any shape."""
        place, share = _locate(np.clip(x, self.low, self.high), self.low, self.high, self._count)
        return (self.coefficients[place[..., None] + _LOCAL] * _basis(share)).sum(axis=-1)

    def slope(self, x: Array) -> Array:
        """Its derivative inside [low, high]."""
        place, share = _locate(x, self.low, self.high, self._count)
        steps = np.diff(self.coefficients)[place[..., None] + _LOCAL[:3]]
        width = (self.high - self.low) / (self._count - 3)
        rest = 1 - share
        quadratic = np.stack([rest**2 / 2, 0.5 + share * rest, share**2 / 2], axis=-1)
        return (steps * quadratic).sum(axis=-1) / width

    @property
    def _count(self) -> int:
        return len(self.coefficients)


@dataclass(frozen=True, slots=True, eq=False)
class SplineFit:
    """A fitted spline with what the derivative of its residuals needs."""

    spline: MonotoneSpline
    fitted: Array
    """(n,)."""
    place: NDArray[np.intp]
    basis: Array
    """(n, 4) the B-splines that are not zero at a point, from that of number `place` on."""
    weights: Array
    free: NDArray[np.bool_]
    """(K,) steps that are free to move."""
    normal: Array
    """(K, K) normal matrix of the steps, penalty included."""

    def absorbed(self, change: Array) -> Array:
        """What refitting takes up of a small change (n, m) of the response."""
        count = len(self.free)
        moments = np.stack(
            [
                _gather(self.place, self.basis * (self.weights * column)[:, None], count)
                for column in change.T
            ],
            axis=1,
        )
        steps = np.zeros_like(moments)
        inner = self.normal[np.ix_(self.free, self.free)]
        steps[self.free] = np.linalg.solve(inner, _from_end(moments)[self.free])
        coefficients = np.cumsum(steps, axis=0)
        return np.einsum("np,npm->nm", self.basis, coefficients[self.place[:, None] + _LOCAL])


def fit_spline(x: Array, y: Array, weights: Array, knots: int) -> SplineFit:
    """Weighted least squares of a spline that does not fall.

    Parameters
    ----------
    x, y, weights : (n,)
        Finite, the weights not negative; x takes at least two values.
    knots : int
        K, the number of coefficients, 4 or more.
    """
    from scipy.optimize import nnls

    low, high = float(x.min()), float(x.max())
    place, share = _locate(x, low, high, knots)
    basis = _basis(share)
    weighted = basis * weights[:, None]
    normal = np.zeros((knots, knots))
    for p in range(4):
        for q in range(p, 4):
            band = np.bincount(place + p, weighted[:, p] * basis[:, q], knots)[: knots - (q - p)]
            at = np.arange(knots - (q - p))
            normal[at, at + q - p] += band
            if q > p:
                normal[at + q - p, at] += band
    normal = _from_end(_from_end(normal).T) + weights.sum() * _penalty(knots)
    # Shifted down by its range, the first coefficient is positive like all others.
    shift = float(y.min() - np.ptp(y))
    moments = _from_end(_gather(place, weighted * (y - shift)[:, None], knots))
    upper = np.linalg.cholesky(normal).T
    steps, _ = nnls(upper, np.linalg.solve(upper.T, moments))
    coefficients = np.cumsum(steps) + shift
    fitted = (coefficients[place[:, None] + _LOCAL] * basis).sum(axis=1)
    spline = MonotoneSpline(low, high, coefficients)
    return SplineFit(spline, fitted, place, basis, weights, steps > 0, normal)


def _locate(x: Array, low: float, high: float, count: int) -> tuple[NDArray[np.intp], Array]:
    """Knot interval of x and its place within."""
    position = (x - low) * ((count - 3) / (high - low))
    place = np.clip(position.astype(np.intp), 0, count - 4)
    return place, position - place


def _basis(share: Array) -> Array:
    """The four uniform cubic B-splines that are not zero, (..., 4)."""
    rest = 1 - share
    left, right = rest**3 / 6, share**3 / 6
    first = 2 / 3 - share**2 * (1 - share / 2)
    return np.stack([left, first, 1 - left - first - right, right], axis=-1)


def _gather(place: NDArray[np.intp], parts: Array, count: int) -> Array:
    """(K,) sums over points of what each has for the coefficients from `place` on, (n, 4)."""
    total = np.zeros(count)
    for p in range(4):
        total += np.bincount(place + p, parts[:, p], count)
    return total


def _from_end(values: Array) -> Array:
    """Sums from every row to the last: from coefficients to the steps between them."""
    return np.cumsum(values[::-1], axis=0)[::-1]


@lru_cache(maxsize=8)
def _penalty(count: int) -> Array:
    steps = np.zeros((count - 2, count))
    at = np.arange(count - 2)
    steps[at, at + 1], steps[at, at + 2] = -1.0, 1.0
    return _BEND * steps.T @ steps + _RIDGE * np.eye(count)
