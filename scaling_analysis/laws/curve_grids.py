"""Curves by variable projection: every law at the nodes of a grid of its nonlinear parameters.

At a node the remaining parameters follow from (weighted) linear least squares, for all replicates
at once. `curve_fits` starts a search for the optimum from the best nodes, or averages all nodes,
each weighted by how likely it makes the data. A grid spans the points present.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws import curves
from scaling_analysis.laws.curve_points import Points
from scaling_analysis.laws.least_squares import solve_definite

Array = NDArray[np.float64]

EXPONENTS = np.geomspace(0.01, 4.0, 48)
"""Exponents b of a power law with a limit: flatter is a constant, steeper a single point."""
BREAK_PLACES, BREAK_WIDTHS = np.linspace(0.1, 0.9, 9), np.array([0.03, 0.12])
"""Place and width of a break, as shares of the range of log x."""
SIGMOID_PLACES, SIGMOID_STEEPNESS = np.linspace(0.0, 1.5, 14), np.geomspace(0.2, 6.0, 12)
"""Middle of a sigmoid, as a share of the range of log x (at most half of it ahead); its slope."""
BREAK_PENALTY = 0.05
"""A change of slope is held down as by a point of this weight that saw none one unit away."""
EXPONENT_BOUNDS = (1e-4, 10.0)
STEEPNESS_BOUNDS = (1e-2, 20.0)
BREAK_MARGIN, BREAK_WIDTH_BOUNDS = 0.05, np.array([0.01, 0.5])
"""A break keeps this share of the range of log x away from both ends; its width likewise."""
_FREE = 600.0
"""Bound on the log of a coefficient, far outside any data and inside the floats."""
M4_MAX_KAPPA = 6.0
"""Beyond, the curve leaves its start like a step."""


def _weighted(design: Array, target: Array, weights: Array, penalty: Array | None = None) -> Array:
    """Least-squares coefficients (..., p) for a design (..., n, p); NaN where undetermined."""
    weighted = design * weights[..., None]
    right = (np.swapaxes(weighted, -1, -2) @ target[..., None])[..., 0]
    normal = np.swapaxes(weighted, -1, -2) @ design
    shape, size = normal.shape[:-2], normal.shape[-1]
    if penalty is not None:
        normal = normal + np.eye(size) * penalty[..., None, :]
    flat = np.moveaxis(normal.reshape(-1, size, size), 0, -1)
    solution, definite = solve_definite(flat, right.reshape(-1, size).T)
    return np.where(definite, solution, np.nan).T.reshape(*shape, size)


def _spread(*axes: Array) -> list[Array]:
    """Every combination of (R, K_i) axes: arrays (R, K_1 K_2 ...)."""
    count = len(axes)
    shaped = [
        axis.reshape(len(axis), *(-1 if i == j else 1 for j in range(count)))
        for i, axis in enumerate(axes)
    ]
    full = np.broadcast_arrays(*shaped)
    return [axis.reshape(len(axis), -1) for axis in full]


def free_bounds(size: int) -> Callable[[Points], tuple[Array, Array]]:
    """No bounds on any of `size` parameters."""
    return lambda points: (np.full(size, -np.inf), np.full(size, np.inf))


def level_nodes(points: Points) -> Array:
    """Theta (R, 1, 1) of `curves.LEVEL`: the mean, in closed form."""
    w, mu = points.weights, points.mu
    return ((w * mu).sum(axis=1) / w.sum(axis=1))[:, None, None]


def line_nodes(points: Points) -> Array:
    """Theta (R, 1, 2) of `curves.LINE` in closed form; level where all x are one."""
    w, mu = points.weights, points.mu
    total = w.sum(axis=1, keepdims=True)
    centre = (w * points.t).sum(axis=1, keepdims=True) / total
    level = (w * mu).sum(axis=1, keepdims=True) / total
    dt = points.t - centre
    spread = (w * dt**2).sum(axis=1, keepdims=True)
    b = -(w * dt * (mu - level)).sum(axis=1, keepdims=True) / np.where(spread > 0, spread, np.inf)
    return np.stack([level + b * centre, b], axis=-1)


def power_floor_nodes(points: Points) -> Array:
    """Theta (R, nodes, 3) of `curves.POWER_FLOOR` for every exponent of the grid."""
    decay = np.exp(-EXPONENTS[:, None] * points.t)
    design = np.stack([decay, np.ones_like(decay)], axis=-1)
    w = points.relative
    a, c = np.moveaxis(_weighted(design, points.y[:, None], w[:, None]), -1, 0)
    # Where the limit would be passed the curve ends on it, and a alone is fitted.
    on_limit = ~(c > points.limit)
    if np.isfinite(points.limit) and on_limit.any():
        right = (w * (points.y - points.limit)) @ decay.T
        a = np.where(on_limit, right / (w @ (decay**2).T), a)
        c = np.where(on_limit, points.limit, c)
    # A curve that will not fall is level.
    mean = ((w * points.y).sum(axis=1) / w.sum(axis=1))[:, None]
    falling = a > 0
    with np.errstate(invalid="ignore", divide="ignore"):
        log_a = np.where(falling, np.log(a), -50.0 + np.log(np.abs(mean) + 1e-300))
    c = np.where(falling, c, mean)
    return np.stack([*np.broadcast_arrays(log_a, EXPONENTS, c)], axis=-1)


def power_floor_bounds(points: Points) -> tuple[Array, Array]:
    low, high = EXPONENT_BOUNDS
    return np.array([-_FREE, low, points.limit]), np.array([_FREE, high, np.inf])


def _reciprocal(points: Points) -> Points:
    """1/y of a rising positive y: falling, and with a limit of 0."""
    return Points(
        t=points.t, y=1 / (points.sign * points.y), weights=points.weights, space="log", limit=0.0
    )


def inverse_nodes(points: Points) -> Array:
    """Theta (R, nodes, 3) of `curves.INVERSE`: 1/y is a power law + floor."""
    return power_floor_nodes(_reciprocal(points))


def inverse_bounds(points: Points) -> tuple[Array, Array]:
    return power_floor_bounds(_reciprocal(points))


def _breaks(points: Points) -> tuple[Array, Array]:
    """Places and log widths (R or 1, nodes) of a break, within the range of the points."""
    first, last = points.span()
    reach = last - first
    at, log_width = _spread(first + reach * BREAK_PLACES, np.log(reach * BREAK_WIDTHS))
    return at, log_width


def hinge_nodes(points: Points) -> Array:
    """Theta (R, nodes, 5) of `curves.HINGE`, a law of log y or of y by the space."""
    at, log_width = _breaks(points)
    return _hinge_at(points.t, at, log_width, points.mu[:, None], points.weights[:, None])


def hinge_bounds(points: Points) -> tuple[Array, Array]:
    """A break stays inside the points, no narrower than their spacing tells."""
    first, last = points.span()
    first, last = first.min(), last.max()
    reach, steepest = last - first, EXPONENT_BOUNDS[1]
    narrow, wide = np.log(reach * BREAK_WIDTH_BOUNDS)
    inside = BREAK_MARGIN * reach
    lower = [-np.inf, -steepest, -2 * steepest, first + inside, narrow]
    upper = [np.inf, steepest, 2 * steepest, last - inside, wide]
    return np.array(lower), np.array(upper)


def _hinge_at(t: Array, at: Array, log_width: Array, target: Array, weights: Array) -> Array:
    """Hinges with given breaks (R, G), fitted to targets (R, G or 1, n): (R, G, 5)."""
    width = np.exp(log_width)[..., None]
    bend = -width * curves.softplus((t - at[..., None]) / width)
    design = np.stack(np.broadcast_arrays(np.ones_like(t), -t, bend), axis=-1)
    mean = weights.sum(axis=-1) / np.maximum((weights > 0).sum(axis=-1), 1)
    penalty = np.array([0.0, 0.0, BREAK_PENALTY]) * mean[..., None]
    a, b, change = np.moveaxis(_weighted(design, target, weights, penalty), -1, 0)
    return np.stack([*np.broadcast_arrays(a, b, change, at, log_width)], axis=-1)


def broken_floor_nodes(points: Points) -> Array:
    """Theta (R, nodes, 6) of `curves.BROKEN_FLOOR`; it must fall at the end."""
    first, last = points.span()
    places, widths = first + (last - first) * BREAK_PLACES, np.log((last - first) * BREAK_WIDTHS)
    limits = points.limits()
    count = len(limits)
    grid = [np.broadcast_to(v, (count, v.shape[1])) for v in (limits, places, widths)]
    c, at, log_width = _spread(*grid)
    target, weights = _above(points, c)
    theta = _hinge_at(points.t, at, log_width, target, weights)
    rises = theta[..., 1] + theta[..., 2] < 0
    theta = np.concatenate([theta, c[..., None]], axis=-1)
    return np.where(rises[..., None], np.nan, theta)


def broken_floor_bounds(points: Points) -> tuple[Array, Array]:
    lower, upper = hinge_bounds(points)
    return np.append(lower, points.limit), np.append(upper, np.inf)


def _above(points: Points, c: Array) -> tuple[Array, Array]:
    """log(y - c) (R, G, n) for limits c (R, G), weighted as residuals of the points' space."""
    above = points.y[:, None] - c[..., None]
    weights = points.relative[:, None] * above**2
    present = (points.weights > 0)[:, None]
    target = np.log(np.where(above > 0, above, np.nan))
    return np.where(present, target, 0.0), np.where(present, weights, 0.0)


def sigmoid_nodes(points: Points) -> Array:
    """Theta (R, nodes, 4) of `curves.SIGMOID`, start above end and neither past its limit."""
    first, last = points.span()
    middle, log_steepness = _spread(
        first + (last - first) * SIGMOID_PLACES,
        np.broadcast_to(np.log(SIGMOID_STEEPNESS), (len(first), len(SIGMOID_STEEPNESS))),
    )
    steepness = np.exp(log_steepness)
    rest = curves.logistic(-steepness[..., None] * (points.t - middle[..., None]))
    w = points.relative[:, None]
    y = points.y[:, None]
    if points.start is None:
        design = np.stack([rest, 1 - rest], axis=-1)
        start, end = np.moveaxis(_weighted(design, y, w), -1, 0)
    else:
        start = np.array(points.start)
        design = (1 - rest)[..., None]
        end = _weighted(design, y - start * rest, w)[..., 0]
    on_limit = end < points.limit
    if np.isfinite(points.limit) and on_limit.any():
        end = np.where(on_limit, points.limit, end)
        if points.start is None:
            alone = (w * rest * (y - points.limit * (1 - rest))).sum(axis=-1)
            start = np.where(on_limit, alone / (w * rest**2).sum(axis=-1), start)
    top = _start_bounds(points)[1]
    theta = np.stack([*np.broadcast_arrays(start, end, middle, steepness)], axis=-1)
    wrong = (theta[..., 0] <= theta[..., 1]) | (theta[..., 0] > top)
    return np.where(wrong[..., None], np.nan, theta)


def sigmoid_bounds(points: Points) -> tuple[Array, Array]:
    first, last = points.span()
    first, last = first.min(), last.max()
    reach = last - first
    low, high = _start_bounds(points)
    lower = [low, points.limit, first - reach, STEEPNESS_BOUNDS[0]]
    upper = [high, high, last + 3 * reach, STEEPNESS_BOUNDS[1]]
    return np.array(lower), np.array(upper)


def _start_bounds(points: Points) -> tuple[float, float]:
    """Where the start of a curve may lie: where it is known, or on the side of zero it is on."""
    if points.start is not None:
        return points.start, points.start
    negative = points.space == "log" and points.sign < 0
    return points.limit, 0.0 if negative else np.inf


def m4_nodes(points: Points) -> Array:
    """Theta (R, nodes, 5) of `curves.M4` for every limit and start of the grid."""
    c, start = _spread(points.limits(), points.starts())
    target, weights = _above(points, c)
    below = np.log(np.maximum(start[..., None] - points.y[:, None], 1e-300))
    below = np.where((points.weights > 0)[:, None], below, 0.0)
    design = np.stack(np.broadcast_arrays(np.ones_like(below), -points.t, below), axis=-1)
    theta = _weighted(design, target, weights)
    without = _weighted(design[..., :2], target, weights)
    without = np.concatenate([without, np.zeros_like(without[..., :1])], axis=-1)
    theta = np.where(theta[..., 2:] < 0, without, theta)
    theta = np.concatenate([theta, c[..., None], start[..., None]], axis=-1)
    wrong = (theta[..., 1] <= 0) | (theta[..., 2] > M4_MAX_KAPPA) | (start <= c)
    return np.where(wrong[..., None], np.nan, theta)


def m4_bounds(points: Points) -> tuple[Array, Array]:
    """The limit stays below all points and the start above them."""
    low, high = points.extent()
    least, most = _start_bounds(points)
    margin = 1e-9 * max(float(high.max() - low.min()), 1e-300)
    lower = [-_FREE, EXPONENT_BOUNDS[0], 0.0, points.limit, max(least, high.max() + margin)]
    upper = [_FREE, EXPONENT_BOUNDS[1], M4_MAX_KAPPA, low.min() - margin, most]
    if points.start is not None:
        lower[4] = upper[4] = points.start
    return np.array(lower), np.array(upper)
