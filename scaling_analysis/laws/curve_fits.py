"""Curves fitted to points, R replicates at a time: at their optimum or averaged over a grid."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws import curve_grids, curves
from scaling_analysis.laws.curve_points import Points
from scaling_analysis.laws.curves import Curve, CurveLaw, predict
from scaling_analysis.laws.newton import minimize_huber

Array = NDArray[np.float64]

SEEDS = 4
"""Nodes from which the search for an optimum starts."""
RESOLUTION = 0.01
"""Nodes are not told apart by misfits below this share of the scatter of the response."""
_LOG_PRIOR_SPREAD = 1.0
"""Exponents are within a factor e of their usual value, give or take."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Form:
    """A curve with its grid and its bounds."""

    curve: Curve
    nodes: Callable[[Points], Array]
    """(R, nodes, P)."""
    bounds: Callable[[Points], tuple[Array, Array]]
    """Lower and upper bounds of theta, (P,) each, shared by all replicates."""
    linear: int
    """Parameters that are free at a node."""
    exponent: tuple[int, float] | None = None
    """Place in theta of an exponent, and its usual value."""

    def sign(self, points: Points) -> float:
        """-1 where y is the negative of the curve."""
        return points.sign if self.curve.decreasing else 1.0


LEVEL = Form(
    curve=curves.LEVEL,
    nodes=curve_grids.level_nodes,
    bounds=curve_grids.free_bounds(1),
    linear=1,
)
LINE = Form(
    curve=curves.LINE, nodes=curve_grids.line_nodes, bounds=curve_grids.free_bounds(2), linear=2
)
POWER_FLOOR = Form(
    curve=curves.POWER_FLOOR,
    nodes=curve_grids.power_floor_nodes,
    bounds=curve_grids.power_floor_bounds,
    linear=2,
    exponent=(1, 0.3),
)
INVERSE = Form(
    curve=curves.INVERSE,
    nodes=curve_grids.inverse_nodes,
    bounds=curve_grids.inverse_bounds,
    linear=2,
    exponent=(1, 0.3),
)
BROKEN = Form(
    curve=curves.HINGE, nodes=curve_grids.hinge_nodes, bounds=curve_grids.hinge_bounds, linear=3
)
BROKEN_FLOOR = Form(
    curve=curves.BROKEN_FLOOR,
    nodes=curve_grids.broken_floor_nodes,
    bounds=curve_grids.broken_floor_bounds,
    linear=3,
)
SIGMOID = Form(
    curve=curves.SIGMOID,
    nodes=curve_grids.sigmoid_nodes,
    bounds=curve_grids.sigmoid_bounds,
    linear=2,
    exponent=(3, 1.0),
)
M4 = Form(curve=curves.M4, nodes=curve_grids.m4_nodes, bounds=curve_grids.m4_bounds, linear=3)


def average_nodes(form: Form, points: Points, new_t: Array) -> Array:
    """Forecasts (R, new) of log y or y: the mean over the nodes, by their posterior weights.

    A node's weight is its likelihood, with the scale of the noise integrated out, times its
    prior: where the points are few this forecasts better than the optimum, because a parameter
    that they do not determine is averaged over. Nodes that have no finite forecast at a new point
    are left out there; NaN where none is left.
    """
    theta = form.nodes(points)
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = predict(form.curve, theta, points.t, points.space, form.sign(points))
        forecast = predict(form.curve, theta, new_t, points.space, form.sign(points))
    weights, mu = points.weights, points.mu
    total = weights.sum(axis=1, keepdims=True)
    scatter = (weights * (mu - (weights * mu).sum(axis=1, keepdims=True) / total) ** 2).sum(axis=1)
    residuals = np.where((weights > 0)[:, None], fitted - mu[:, None], 0.0)
    misfit = (weights[:, None] * residuals**2).sum(axis=-1)
    count = (weights > 0).sum(axis=1)[:, None]
    freedom = np.maximum(count - form.linear, 1)
    log_weight = -0.5 * freedom * np.log(misfit + RESOLUTION**2 * scatter[:, None] + 1e-300)
    if form.exponent is not None:
        place, usual = form.exponent
        with np.errstate(invalid="ignore"):
            log_weight -= 0.5 * (np.log(theta[..., place] / usual) / _LOG_PRIOR_SPREAD) ** 2
    log_weight = np.where(np.isfinite(misfit), log_weight, -np.inf)
    best = log_weight.max(axis=1, keepdims=True)
    share = np.exp(log_weight - np.where(np.isfinite(best), best, 0.0))
    finite = np.isfinite(forecast)
    with np.errstate(invalid="ignore"):
        total_share = np.einsum("rg,rgm->rm", share, finite.astype(float))
        mean = np.einsum("rg,rgm->rm", share, np.where(finite, forecast, 0.0)) / total_share
    return np.where(total_share > 0, mean, np.nan)


@dataclass(frozen=True, eq=False, kw_only=True)
class Optimum:
    """A curve at its least squares, for R replicates."""

    theta: Array
    """(R, P); NaN where no start was feasible."""
    squares: Array
    """Weighted sum of squared residuals, (R,)."""
    converged: NDArray[np.bool_]
    at_bound: NDArray[np.bool_]
    """Which parameters ended on a bound, (R, P)."""


def curve_law(form: Form, points: Points) -> CurveLaw:
    """The form at the points, with its bounds."""
    lower, upper = form.bounds(points)
    return CurveLaw(
        curve=form.curve,
        t=points.t,
        lower=lower,
        upper=upper,
        space=points.space,
        sign=form.sign(points),
    )


def fit_optimum(form: Form, points: Points) -> Optimum:
    """Weighted least squares of a form, from the best nodes of its grid, for all replicates."""
    law = curve_law(form, points)
    replicates = max(len(points.y), len(points.weights))
    y, weights = (
        np.broadcast_to(v, (replicates, len(points.t))) for v in (points.mu, points.weights)
    )
    seeds = _seeds(form, points, y, weights)
    count = seeds.shape[1]
    flat = np.clip(seeds.reshape(replicates * count, -1), law.lower, law.upper)
    start = np.where(np.isfinite(flat), flat, np.clip(0.0, law.lower, law.upper))
    found = minimize_huber(
        law, np.repeat(y, count, axis=0), np.repeat(weights, count, axis=0), start, delta=np.inf
    )
    squares = np.where(np.isfinite(flat).all(axis=1), 2 * found.objective, np.inf)
    best = squares.reshape(replicates, count).argmin(axis=1) + np.arange(replicates) * count
    possible = np.isfinite(squares[best])
    theta = np.where(possible[:, None], found.theta[best], np.nan)
    return Optimum(
        theta=theta,
        squares=squares[best],
        converged=found.converged[best] & possible,
        at_bound=(theta <= law.lower) | (theta >= law.upper),
    )


def _seeds(form: Form, points: Points, mu: Array, weights: Array) -> Array:
    """The nodes (R, SEEDS, P) that fit best; NaN where fewer are feasible."""
    theta = form.nodes(points)
    with np.errstate(over="ignore", invalid="ignore"):
        fitted = predict(form.curve, theta, points.t, points.space, form.sign(points))
        residuals = np.where((weights > 0)[:, None], fitted - mu[:, None], 0.0)
        misfit = (weights[:, None] * residuals**2).sum(axis=-1)
    misfit = np.where(np.isfinite(misfit), misfit, np.inf)
    order = np.argsort(misfit, axis=1)[:, :SEEDS]
    theta = np.broadcast_to(theta, (*misfit.shape, theta.shape[-1]))
    seeds = np.take_along_axis(theta, order[..., None], axis=1)
    infeasible = ~np.isfinite(np.take_along_axis(misfit, order, axis=1))
    return np.where(infeasible[..., None], np.nan, seeds)


def slopes(form: Form, theta: Array, points: Points) -> Array:
    """Derivatives (..., n, P) of the response, log or linear, by theta (..., P)."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        gradient = form.curve.gradient(theta, points.t)
        if form.curve.of_log:
            return gradient
        if points.space == "linear":
            return form.sign(points) * gradient
        return gradient / form.curve.value(theta, points.t)[..., None]
