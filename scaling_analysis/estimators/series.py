"""A measured curve, checked and put into the space in which it is fitted."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.laws.curve_grids import Points
from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]
Direction = Literal["decreasing", "increasing"]
Bounds = tuple[float | None, float | None]
"""Known floor and ceiling of y, None where unknown."""

MIN_POINTS = 4
LEAST_NOISE = 1e-3
"""No noise is taken to be below this share of the response's scatter, nor below a tenth of it of
the response itself: an interval is never of zero width."""
_OUTLIER = 5.0
"""Robust standard deviations from which a point is an outlier."""
_WINDOW = 4
"""Points on either side of a point that say what it should be."""
_NOISE_RATIO = 4.0
"""Relative noise that is so many times larger at low y than at high y is not relative."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Series:
    """Points of one curve in the order of x."""

    x: Array
    y: Array
    y_se: Array | None
    run: NDArray[np.str_] | None
    """Which run a point belongs to."""
    space: Space
    direction: Direction
    bounds: Bounds
    """Known floor and ceiling of y."""
    weights: Array
    """Of the points in every fit: from `y_se` and of outliers, 1 on average without either."""
    noise: float
    """Variance of a new observation about the curve, in the space of the residuals."""
    outliers: int

    @property
    def centre(self) -> float:
        return float(np.log(self.x).mean())

    @property
    def t(self) -> Array:
        """log x - centre."""
        return np.log(self.x) - self.centre

    @property
    def z(self) -> Array:
        """log y or y."""
        return np.log(self.y) if self.space == "log" else self.y

    def points(self, weights: Array, response: Array | None = None) -> Points:
        """What the grids are laid over: `weights` (R, n), and other responses (R, n) of y."""
        sign = 1.0 if self.direction == "decreasing" else -1.0
        y = sign * (self.y[None] if response is None else response)
        floor, ceiling = self.bounds
        end, start = (floor, ceiling) if sign > 0 else (ceiling, floor)
        limit = -np.inf if end is None else sign * end
        if self.space == "log" and sign > 0:
            limit = max(limit, 0.0)
        return Points(
            t=self.t,
            y=y,
            weights=weights,
            space=self.space,
            limit=limit,
            start=None if start is None else sign * start,
            sign=sign,
        )


def read_series(
    x: ArrayLike,
    y: ArrayLike,
    direction: Direction,
    y_se: ArrayLike | None,
    run: ArrayLike | None,
    bounds: Bounds | None,
) -> Series:
    """The curve, or a FitError that says which value cannot be used."""
    if direction not in ("decreasing", "increasing"):
        raise FitError(f"direction={direction!r}: say 'decreasing' or 'increasing'")
    px, py = column("x", x), column("y", y)
    if px.shape != py.shape:
        raise FitError(f"x has {len(px)} values, y {len(py)}: they must pair up")
    if (px <= 0).any():
        i = int(np.argmax(px <= 0))
        raise FitError(f"x[{i}] = {px[i]!r}: a law in log x needs positive x; leave that point out")
    if len(px) < MIN_POINTS:
        raise FitError(f"{len(px)} points: an extrapolation needs at least {MIN_POINTS}")
    if np.ptp(px) == 0:
        raise FitError(f"all {len(px)} points are at x = {px[0]!r}: a curve needs two values of x")
    order = np.lexsort((py, px))
    se = None if y_se is None else standard_errors(y_se, len(px))[order]
    names = None if run is None else run_names(run, len(px))[order]
    px, py = px[order], py[order]
    log_x = np.log(px)
    space: Space = "log" if (py > 0).all() else "linear"
    z = np.log(py) if space == "log" else py
    outlying = _outlier_weights(log_x, z)
    weights = outlying
    if space == "log" and direction == "increasing":
        weights = weights * _additive_weights(log_x, py)
    noise = max(_neighbour_noise(log_x, z, weights), least_variance(z, space))
    if se is not None:
        weights = weights * precision_weights(se / py if space == "log" else se, noise)
    return Series(
        x=px,
        y=py,
        y_se=se,
        run=names,
        space=space,
        direction=direction,
        bounds=_check_bounds(bounds),
        weights=weights,
        noise=noise,
        outliers=int((outlying < 1).sum()),
    )


def column(name: str, values: ArrayLike) -> Array:
    """A finite column of numbers, or a FitError that says where it is not."""
    try:
        out = np.asarray(values, dtype=float)
    except (TypeError, ValueError) as problem:
        raise FitError(f"{name} holds something that is no number: {problem}") from None
    if out.ndim != 1:
        raise FitError(f"{name} has shape {out.shape}: give one value a point")
    bad = ~np.isfinite(out)
    if bad.any():
        i = int(np.argmax(bad))
        raise FitError(f"{name}[{i}] is {out[i]!r}: leave that point out")
    return out


def standard_errors(y_se: ArrayLike, count: int) -> Array:
    """Standard errors, one a point, none negative."""
    se = column("y_se", y_se)
    if len(se) != count:
        raise FitError(f"y_se has {len(se)} values for {count} points")
    if (se < 0).any():
        i = int(np.argmax(se < 0))
        raise FitError(f"y_se[{i}] = {se[i]!r} is negative: a standard error cannot be")
    return se


def run_names(run: ArrayLike, count: int) -> NDArray[np.str_]:
    """The run of every point, as text."""
    names = np.asarray(run).astype(str)
    if names.shape != (count,):
        raise FitError(f"run has shape {names.shape} for {count} points: give one name a point")
    return names


def _check_bounds(bounds: Bounds | None) -> Bounds:
    floor, ceiling = (None, None) if bounds is None else bounds
    for value in (floor, ceiling):
        if value is not None and not np.isfinite(value):
            raise FitError(f"bounds={bounds!r}: a bound is a finite number, or None if unknown")
    if floor is not None and ceiling is not None and not floor < ceiling:
        raise FitError(f"bounds={bounds!r}: the floor must be below the ceiling")
    return floor, ceiling


def _additive_weights(log_x: Array, y: Array) -> Array:
    """Weights in log space for a rising y > 0 whose noise does not shrink with it.

    Where log y is several times noisier among the low half of the points than among the high half
    (a return that starts at almost nothing), a point counts by y^2, up to the median of y.
    """
    miss, at = _neighbour_misses(log_x, np.log(y))
    middle = np.median(y)
    low = y[at] <= middle
    if len(y) < 8 or low.all() or not low.any():
        return np.ones(len(y))
    low_size, high_size = np.median(np.abs(miss[low])), np.median(np.abs(miss[~low]))
    if not low_size > _NOISE_RATIO * high_size:
        return np.ones(len(y))
    return np.minimum(y / middle, 1.0) ** 2


def least_variance(z: Array, space: Space) -> float:
    """Variance below which no noise is taken to be."""
    size = 1.0 if space == "log" else float(np.abs(z).max())
    return max((LEAST_NOISE * float(z.std())) ** 2, (0.1 * LEAST_NOISE * size) ** 2, 1e-300)


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


def _neighbour_misses(log_x: Array, z: Array) -> tuple[Array, NDArray[np.intp]]:
    """Departures of points from the line through their two neighbours, scaled to one sd of noise.

    And which points those are. Three points at one x are compared with their mean.
    """
    reach = log_x[2:] - log_x[:-2]
    share = np.where(reach > 0, (log_x[1:-1] - log_x[:-2]) / np.where(reach > 0, reach, 1.0), 0.5)
    miss = z[1:-1] - (1 - share) * z[:-2] - share * z[2:]
    return miss / np.sqrt(1 + share**2 + (1 - share) ** 2), np.arange(1, len(z) - 1)


def _neighbour_noise(log_x: Array, z: Array, weights: Array) -> float:
    miss, at = _neighbour_misses(log_x, z)
    w = np.minimum(np.minimum(weights[at - 1], weights[at]), weights[at + 1])
    return float((w * miss**2).sum() / w.sum())


def _outlier_weights(log_x: Array, z: Array) -> Array:
    """1 for a point that its neighbours on either side agree with, less for one they disown.

    A point is an outlier where the robust lines through the four points before it and the four
    after it agree with each other better than either does with the point, and both miss it by five
    robust standard deviations. A jump to a new level is none.
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
    scale = 1.4826 * np.median(np.abs(_neighbour_misses(log_x, z)[0]))
    limit = _OUTLIER * max(scale, LEAST_NOISE * float(z.std()))
    outlying = (miss > limit) & (miss > 2 * np.abs(sides[0] - sides[1]))
    weights[inner[outlying]] = (limit / miss[outlying]) ** 2
    return weights


def _median_line(log_x: Array, z: Array, rows: NDArray[np.intp], at: Array) -> Array:
    """Theil and Sen's line through each row of points, at one abscissa a row."""
    x, y = log_x[rows], z[rows]
    first, second = np.triu_indices(rows.shape[1], 1)
    dx, dy = x[:, second] - x[:, first], y[:, second] - y[:, first]
    slope = np.median(np.where(dx > 0, dy / np.where(dx > 0, dx, 1.0), 0.0), axis=1)[:, None]
    return np.median(y + slope * (at[:, None] - x), axis=1)
