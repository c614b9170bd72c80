"""A measured curve, checked and put into the space in which it is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import FitError
from scaling_analysis.estimators.columns import (
    MIN_POINTS,
    check_direction,
    column,
    positive_column,
    power_of_two,
    response_space,
    run_names,
    standard_errors,
)
from scaling_analysis.estimators.noise import (
    additive_weights,
    least_variance,
    neighbour_noise,
    outlier_weights,
    precision_weights,
)
from scaling_analysis.laws.curve_points import Points
from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]
Direction = Literal["decreasing", "increasing"]
Bounds = tuple[float | None, float | None]
"""Known floor and ceiling of y, None where unknown."""

MOST_POINTS = 200
"""More points are fitted as means of neighbours: a law has a handful of parameters, and origins of
a hindcast that stand behind three of a thousand points would forecast from a hair's breadth."""

FARTHEST = 600.0
"""A logarithm this far from those of the points is as good as infinite."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Series:
    """Points of one curve in the order of x.

    z is what is fitted: log(y / unit) in log space, y / unit in linear space.
    """

    x: Array
    y: Array
    y_se: Array | None
    run: NDArray[np.str_] | None
    """Which run a point belongs to."""
    space: Space
    direction: Direction
    bounds: Bounds
    """Known floor and ceiling of y."""
    unit: float
    """A power of two of the size of y: a curve has the same fit in any unit."""
    weights: Array
    """Of the points in every fit: from `y_se` and of outliers, 1 on average without either."""
    noise: float
    """Variance of z of a new observation about the curve."""
    outliers: int
    read: int = 0
    """How many points were given, where they are fitted as fewer means of neighbours; else 0."""

    @property
    def centre(self) -> float:
        return float(np.log(self.x).mean())

    @property
    def t(self) -> Array:
        """log x - centre."""
        return np.log(self.x) - self.centre

    @property
    def z(self) -> Array:
        return np.log(self.y / self.unit) if self.space == "log" else self.y / self.unit

    @property
    def distinct(self) -> int:
        """How many different x there are."""
        return len(np.unique(self.x))

    def response(self, z: Array) -> Array:
        """y of z, inside the bounds."""
        floor, ceiling = self.bounds
        with np.errstate(over="ignore"):
            y = self.unit * (np.exp(z) if self.space == "log" else z)
        return y if floor is None and ceiling is None else np.clip(y, floor, ceiling)

    def nearest(self, z: Array) -> Array:
        """z where its y is inside the bounds, else that of the bound; never infinite."""
        floor, ceiling = self.bounds
        if floor is not None or ceiling is not None:
            y = self.response(z)
            with np.errstate(divide="ignore"):
                z = np.log(np.maximum(y, 0.0) / self.unit) if self.space == "log" else y / self.unit
        return z if self.space == "linear" else np.clip(z, -FARTHEST, FARTHEST)

    def points(self, weights: Array, response: Array | None = None) -> Points:
        """What the grids are laid over: `weights` (R, n), and other responses (R, n) of y."""
        sign = 1.0 if self.direction == "decreasing" else -1.0
        y = sign * (self.y[None] if response is None else response) / self.unit
        floor, ceiling = self.bounds
        end, start = (floor, ceiling) if sign > 0 else (ceiling, floor)
        limit = -np.inf if end is None else sign * end / self.unit
        if self.space == "log" and sign > 0:
            limit = max(limit, 0.0)
        return Points(
            t=self.t,
            y=y,
            weights=weights,
            space=self.space,
            limit=limit,
            start=None if start is None else sign * start / self.unit,
            sign=sign,
        )

    def to_dict(self) -> dict[str, Any]:
        """The points as plain data for JSON."""
        return {
            "x": encode_array(self.x),
            "y": encode_array(self.y),
            "y_se": None if self.y_se is None else encode_array(self.y_se),
            "run": None if self.run is None else self.run.tolist(),
            "space": self.space,
            "direction": self.direction,
            "bounds": list(self.bounds),
            "unit": self.unit,
            "weights": encode_array(self.weights),
            "noise": self.noise,
            "outliers": self.outliers,
            **({"read": self.read} if self.read else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The points that `to_dict` wrote."""
        return cls(
            x=decode_array(data["x"]),
            y=decode_array(data["y"]),
            y_se=None if data["y_se"] is None else decode_array(data["y_se"]),
            run=None if data["run"] is None else np.array(data["run"]),
            space=data["space"],
            direction=data["direction"],
            bounds=(data["bounds"][0], data["bounds"][1]),
            unit=data["unit"],
            weights=decode_array(data["weights"]),
            noise=data["noise"],
            outliers=data["outliers"],
            read=data.get("read", 0),
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
    check_direction(direction)
    px, py = positive_column("x", x), column("y", y)
    if px.shape != py.shape:
        raise FitError(f"x has {len(px)} values, y {len(py)}: they must pair up")
    if len(px) < MIN_POINTS:
        raise FitError(f"{len(px)} points: an extrapolation needs at least {MIN_POINTS}")
    if np.ptp(px) == 0:
        raise FitError(f"all {len(px)} points are at x = {px[0]:g}: a curve needs two values of x")
    space = response_space(py)
    order = np.lexsort((py, px))
    se = None if y_se is None else standard_errors(y_se, len(px))[order]
    names = None if run is None else run_names(run, len(px))[order]
    px, py = px[order], py[order]
    log_x = np.log(px)
    size = np.exp(np.log(py).mean()) if space == "log" else np.abs(py).max()
    unit = power_of_two(float(size))
    z = np.log(py / unit) if space == "log" else py / unit
    outlying = outlier_weights(log_x, z)
    weights = outlying
    if space == "log" and direction == "increasing":
        weights = weights * additive_weights(log_x, py / unit)
    noise = max(neighbour_noise(log_x, z, weights), least_variance(z, space))
    if se is not None:
        weights = weights * precision_weights(se / (py if space == "log" else unit), noise)
    series = Series(
        x=px,
        y=py,
        y_se=se,
        run=names,
        space=space,
        direction=direction,
        bounds=_check_bounds(bounds),
        unit=unit,
        weights=weights,
        noise=noise,
        outliers=int((outlying < 1).sum()),
    )
    return series if len(px) <= MOST_POINTS else _with_means_of_neighbours(series)


def _with_means_of_neighbours(series: Series) -> Series:
    """The same curve as about `MOST_POINTS` means in logs, or of y, of neighbours of one run."""
    count = len(series.x)
    run = np.zeros(count, dtype=np.intp)
    if series.run is not None:
        run = np.unique(series.run, return_inverse=True)[1]
    group, found = np.empty(count, dtype=np.intp), 0
    for label in range(int(run.max()) + 1):
        own = np.flatnonzero(run == label)
        means = min(len(own), max(1, round(MOST_POINTS * len(own) / count)))
        group[own] = found + np.arange(len(own)) * means // len(own)
        found += means
    total = np.bincount(group, weights=series.weights)

    def mean(values: Array) -> Array:
        return np.bincount(group, weights=series.weights * values) / total

    x, z = np.exp(mean(np.log(series.x))), mean(series.z)
    order = np.lexsort((z, x))
    y = series.unit * (np.exp(z) if series.space == "log" else z)
    first = np.unique(group, return_index=True)[1]
    return replace(
        series,
        x=x[order],
        y=y[order],
        y_se=None,
        run=None if series.run is None else series.run[first][order],
        weights=(total / total.mean())[order],
        read=count,
    )


def _check_bounds(bounds: Bounds | None) -> Bounds:
    try:
        floor, ceiling = (None, None) if bounds is None else bounds
        known = [float(value) for value in (floor, ceiling) if value is not None]
    except (TypeError, ValueError):
        raise FitError(f"bounds={bounds!r}: give (floor, ceiling), None where unknown") from None
    if not np.isfinite(known).all():
        raise FitError(f"bounds={bounds!r}: a bound is a finite number, or None if unknown")
    if len(known) == 2 and not known[0] < known[1]:
        raise FitError(f"bounds={bounds!r}: the floor must be below the ceiling")
    return (
        None if floor is None else float(floor),
        None if ceiling is None else float(ceiling),
    )
