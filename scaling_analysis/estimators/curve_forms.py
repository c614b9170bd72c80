"""The forms that a curve may take, by name: fitted, forecast and differentiated at many origins."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.estimators.series import Series
from scaling_analysis.laws import curve_fits, curves
from scaling_analysis.laws.curve_fits import Form
from scaling_analysis.laws.curve_points import Points
from scaling_analysis.uncertainty.resampling import groups_present

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

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
    absent = {"log_line"} if series.space == "log" else {"power", "inverse"}
    if series.direction == "decreasing":
        absent.add("inverse")
    return tuple(
        name
        for name, named in NAMED.items()
        if named.least <= series.distinct and name not in absent
    )


def _late(points: Points, share: float, least: int) -> Array:
    """Weights of the last distinct t present: a share of them, and at least so many."""
    member = np.unique(points.t, return_inverse=True)[1]
    present = groups_present(points.weights, member)
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


def fit_named(name: str, points: Points) -> tuple[Array, Mask, Mask]:
    """Least squares of a form: theta (R, P), which of it is at a bound, what converged (R,)."""
    form, seen = NAMED[name].form, points_of(name, points)
    if form.curve in (curves.LEVEL, curves.LINE):
        theta = form.nodes(seen)[:, 0]
        sound = np.asarray(np.isfinite(theta).all(axis=1))
        return theta, np.zeros(theta.shape, dtype=bool), sound
    found = curve_fits.fit_optimum(form, seen)
    return found.theta, found.at_bound, found.converged


def evaluate(name: str, theta: Array, t: Array, series: Series) -> Array:
    """z of a form at centred log x: (..., P), (m,) -> (..., m)."""
    form = NAMED[name].form
    sign = form.sign(series.points(series.weights[None]))
    return curves.predict(form.curve, theta, t, series.space, sign)


def slopes(name: str, theta: Array, t: Array, series: Series) -> Array:
    """Derivatives of z by theta at centred log x, (..., m, P); 0 where a law has none."""
    points = replace(series.points(series.weights[None]), t=t)
    return np.nan_to_num(curve_fits.slopes(NAMED[name].form, theta, points))


def covariances(
    name: str, theta: Array, at_bound: Mask, points: Points, series: Series
) -> tuple[Array, Array]:
    """Of theta (R, P, P) for a misfit of 1, of the parameters off their bounds, and of z (R, n)."""
    slope = slopes(name, theta, series.t, series)
    weights = np.broadcast_to(points_of(name, points).weights, slope.shape[:2])
    free = np.where(at_bound[:, None], 0.0, slope * np.sqrt(weights)[..., None])
    of_theta = np.linalg.pinv(np.swapaxes(free, 1, 2) @ free, rcond=1e-13, hermitian=True)
    of_z = np.einsum("rni,rij,rnj->rn", slope, of_theta, slope)
    return of_theta, np.maximum(of_z, 0.0)


def natural_parameters(name: str, theta: Array, series: Series) -> dict[str, Array]:
    """Parameters by name and in natural units, from theta for centred log x; () or (R,)."""
    curve = NAMED[name].form.curve
    sign = -1.0 if series.direction == "increasing" and curve.decreasing else 1.0
    unit = 1 / series.unit if name == "inverse" else series.unit
    # A law of log y has its slopes in y's unit where it is fitted to y itself.
    linear = curve.of_log and series.space == "linear"
    moved = curve.recentre(theta, series.centre)
    out: dict[str, Array] = {}
    for i, symbol in enumerate(curve.parameters):
        value = moved[..., i]
        if linear and symbol in ("level", "a", "b", "change"):
            value = unit * value
        elif symbol in ("level", "a", "log_a"):
            # M4's a scales y^(1 - kappa), any other a scales y.
            power = 1 - moved[..., curve.parameters.index("kappa")] if name == "m4" else 1.0
            symbol, value = symbol.removeprefix("log_"), unit**power * np.exp(value)
        elif symbol.startswith("log_"):
            symbol, value = symbol.removeprefix("log_"), np.exp(value)
        elif i == curve.place:
            symbol, value = f"x_{symbol}", np.exp(value)
        elif symbol in ("c", "start", "end"):
            value = sign * unit * value
        out[symbol] = value
    return out
