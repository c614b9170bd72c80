"""The forms that a curve may take, by name, and their forecasts from many origins at once."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.estimators.series import Series
from scaling_analysis.laws import curve_fits
from scaling_analysis.laws.curve_fits import Form
from scaling_analysis.laws.curve_grids import Points

Array = NDArray[np.float64]

RECENT = 0.5
"""The recent line halves its weights, and more, e-fold in this share of the range of log x."""
TAIL = 0.1
"""Persistence and the tail line see this share of the points, and at least one or two."""


class Named(NamedTuple):
    """A form under its public name."""

    form: Form
    equation: str
    least_origin: int
    """Distinct x needed to be tried at an origin of the hindcast."""
    least: int
    """Distinct x needed to enter the average: a free parameter more than points to spare."""


NAMED = {
    "persistence": Named(curve_fits.LEVEL, "the last level", 1, 1),
    "power": Named(curve_fits.LINE, "a x^-b", 2, 2),
    "log_line": Named(curve_fits.LINE, "a - b log x", 2, 2),
    "recent_line": Named(curve_fits.LINE, "a line in log x that favours late points", 2, 2),
    "tail_line": Named(curve_fits.LINE, "a line in log x through the last points", 2, 2),
    "power_floor": Named(curve_fits.POWER_FLOOR, "a x^-b + c", 4, 5),
    "inverse": Named(curve_fits.INVERSE, "1/(a x^-b + c)", 4, 5),
    "broken": Named(curve_fits.BROKEN, "a x^-b (1 + (x/d)^(1/w))^(-w change)", 4, 5),
    "broken_floor": Named(
        curve_fits.BROKEN_FLOOR, "a x^-b (1 + (x/d)^(1/w))^(-w change) + c", 5, 6
    ),
    "sigmoid": Named(curve_fits.SIGMOID, "start + (end - start)/(1 + (d/x)^steepness)", 5, 6),
    "m4": Named(curve_fits.M4, "(y - c)/(start - y)^kappa = a x^-b", 5, 6),
}
"""A rising y has the signs of a and change, and of y - c and start - y, turned round; in linear
space the broken form is a broken line of y."""


def auto_forms(series: Series) -> tuple[str, ...]:
    """The forms that can be averaged for this series, the simplest first."""
    distinct = len(np.unique(series.x))
    absent = {"log_line"} if series.space == "log" else {"power", "inverse"}
    if series.direction == "decreasing":
        absent.add("inverse")
    return tuple(
        name for name, named in NAMED.items() if named.least <= distinct and name not in absent
    )


def _late(points: Points, share: float, least: int) -> Array:
    """Weights of the last distinct t present: a share of them, and at least so many."""
    distinct, member = np.unique(points.t, return_inverse=True)
    present = (points.weights > 0) @ np.eye(len(distinct))[member] > 0
    from_end = np.cumsum(present[:, ::-1], axis=1)[:, ::-1]
    kept = np.maximum(least, (share * present.sum(axis=1)).astype(int))[:, None]
    return np.where((from_end <= kept)[:, member], points.weights, 0.0)


def points_of(name: str, points: Points) -> Points:
    """The points as a form sees them: some look at the last ones only."""
    if name == "persistence":
        return replace(points, weights=_late(points, TAIL, 1))
    if name == "tail_line":
        return replace(points, weights=_late(points, TAIL, 2))
    if name == "recent_line":
        present = points.weights > 0
        last = np.where(present, points.t, -np.inf).max(axis=1, keepdims=True)
        first = np.where(present, points.t, np.inf).min(axis=1, keepdims=True)
        reach = np.maximum(last - first, 1e-300)
        age = np.where(present, last - points.t, 0.0)
        return replace(points, weights=points.weights * np.exp(-age / (RECENT * reach)))
    return points


def forecast_forms(names: Sequence[str], points: Points, new_t: Array) -> Array:
    """What each form, averaged over its grid, says of log y or y at `new_t`: (R, forms, new)."""
    return np.stack(
        [
            curve_fits.average_nodes(NAMED[name].form, points_of(name, points), new_t)
            for name in names
        ],
        axis=1,
    )


def natural_parameters(name: str, theta: Array, series: Series) -> dict[str, Array]:
    """Parameters by name and in natural units, from theta for centred log x; () or (R,)."""
    curve = NAMED[name].form.curve
    sign = -1.0 if series.direction == "increasing" and curve.decreasing else 1.0
    moved = curve.recentre(theta, series.centre)
    out: dict[str, Array] = {}
    for i, symbol in enumerate(curve.parameters):
        value = moved[..., i]
        if symbol in ("level", "a") and series.space == "log":
            value = np.exp(value)
        elif symbol.startswith("log_"):
            symbol, value = symbol.removeprefix("log_"), np.exp(value)
        elif i == curve.place:
            symbol, value = f"x_{symbol}", np.exp(value)
        elif symbol in ("c", "start", "end"):
            value = sign * value
        out[symbol] = value
    return out
