"""The optimum of one isoFLOP slice: loss or return against log N at a fixed budget.

The leading axis is the replicate. A slice holds rows; rows of one size share a cell.
"""

from enum import IntEnum
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Optimum = Literal["vertex", "cubic", "grid"]


class SliceState(IntEnum):
    """Whether a slice has an optimum, and if not, why."""

    OK = 0
    FEW_SIZES = 1
    """Fewer distinct sizes with weight than the polynomial has coefficients."""
    NO_OPTIMUM = 2
    """The profile bends the wrong way: its stationary point is not an optimum of the right kind."""
    OUTSIDE = 3
    """The optimum lies at or beyond the smallest or largest size that was run."""
    NOT_POSITIVE = 4
    """The value at the optimum is not positive, so it has no place in a power law."""


class SliceOptima(NamedTuple):
    """Optima of one slice, one a replicate."""

    state: NDArray[np.int8]
    """(R,) values of `SliceState`."""
    log_params: Array
    """(R,) log N at the optimum; NaN where the slice has none."""
    value: Array
    """(R,) loss or return there; NaN where the slice has none."""
    curvature: Array
    """(R,) k in y = y_opt + k (log N - log N_opt)^2, y in the fitted space; NaN where unknown."""
    fitted: Array
    """(R, rows) the polynomial at the rows, in the fitted space; the response itself outside the
    window, where nothing is fitted."""
    cell: NDArray[np.int64]
    """(R,) index of the size at the optimum (`grid`) or nearest to it."""
    smoothed: Array
    """(R,) the polynomial at its own interior optimum; NaN where it has none."""


def slice_optima(
    log_sizes: Array,
    cell_of_row: NDArray[np.int64],
    response: Array,
    weights: Array,
    pooling: Array,
    *,
    optimum: Optimum,
    maximise: bool,
    log_space: bool,
    window: int | None,
) -> SliceOptima:
    """Weighted polynomial in log N through a slice, and its interior optimum, for all replicates.

    Parameters
    ----------
    log_sizes : (sizes,)
        Log N of the sizes that were run at this budget, increasing.
    cell_of_row : (rows,)
        Index into `log_sizes`.
    response, weights : (R or 1, rows)
        Loss or return in its own unit, and weights; rows of weight zero are absent.
    pooling : (rows,)
        What a row counts for when rows of one size are averaged (episodes for returns).
    optimum : "vertex", "cubic" or "grid"
        Minimum of a parabola, of a cubic, or the best size as it was run. `grid` reads curvature
        and fitted values off the parabola.
    maximise : bool
        Look for a maximum (returns) instead of a minimum.
    log_space : bool
        Fit the polynomial to the log of the response.
    window : int, optional
        Use only this many sizes around the best one.
    """
    y_rows = np.log(response) if log_space else response
    member = np.eye(len(log_sizes))[cell_of_row]
    cell_weight = weights @ member
    present = cell_weight > 0
    count = present.sum(axis=1)
    best = _best_cell(response, weights * pooling, member, present, maximise)
    w, inside = weights, present
    if window is not None:
        inside = _window(present, best, window)
        w = np.where(inside[:, cell_of_row], weights, 0.0)
        present = present & inside

    degree = 3 if optimum == "cubic" else 2
    centre = 0.5 * (log_sizes[0] + log_sizes[-1])
    half = 0.5 * (log_sizes[-1] - log_sizes[0]) or 1.0
    u = (log_sizes - centre) / half
    enough = present.sum(axis=1) > degree
    coefficients = _polynomial(u[cell_of_row], y_rows, w, degree, enough)
    fitted = coefficients @ np.power.outer(u[cell_of_row], np.arange(degree + 1)).T
    if window is not None:
        fitted = np.where(inside[:, cell_of_row], fitted, y_rows)

    low, high = u[np.argmax(present, axis=1)], u[-1 - np.argmax(present[:, ::-1], axis=1)]
    vertex, bend, turns = _stationary(coefficients, maximise)
    # A cubic may fall below its own minimum before the end of the profile.
    at = [_evaluate(coefficients, point) for point in (vertex, low, high)]
    sign = -1.0 if maximise else 1.0
    interior = (low < vertex) & (vertex < high)
    interior &= (sign * at[0] <= sign * at[1]) & (sign * at[0] <= sign * at[2])
    has_vertex = enough & turns & interior
    with np.errstate(over="ignore"):
        smoothed = np.exp(at[0]) if log_space else at[0]
    curvature = np.where(has_vertex, bend / half**2, np.nan)

    if optimum == "grid":
        state = np.where(count > 0, SliceState.OK, SliceState.FEW_SIZES)
        log_params = log_sizes[best]
        value = _cell_means(response, weights * pooling, member)[np.arange(len(best)), best]
    else:
        state = np.select(
            [~enough, ~turns, ~interior],
            [SliceState.FEW_SIZES, SliceState.NO_OPTIMUM, SliceState.OUTSIDE],
            SliceState.OK,
        )
        log_params = centre + half * vertex
        value = smoothed
    state = np.where((state == SliceState.OK) & ~(value > 0), SliceState.NOT_POSITIVE, state)
    ok = state == SliceState.OK
    if optimum != "grid":
        away = np.abs(log_sizes - np.where(ok, log_params, np.inf)[:, None])
        best = np.where(ok, np.argmin(away, axis=1), best)
    return SliceOptima(
        state=state.astype(np.int8),
        log_params=np.where(ok, log_params, np.nan),
        value=np.where(ok, value, np.nan),
        curvature=curvature,
        fitted=fitted,
        cell=best,
        smoothed=np.where(has_vertex, smoothed, np.nan),
    )


def _cell_means(y: Array, w: Array, member: Array) -> Array:
    """(R, sizes) weighted mean of each size; NaN where a size is absent."""
    with np.errstate(invalid="ignore", divide="ignore"):
        return ((w * y) @ member) / (w @ member)


def _best_cell(
    y: Array, w: Array, member: Array, present: NDArray[np.bool_], maximise: bool
) -> NDArray[np.int64]:
    """(R,) index of the size with the best mean among those present."""
    mean = _cell_means(y, w, member)
    worst = -np.inf if maximise else np.inf
    mean = np.where(present & np.isfinite(mean), mean, worst)
    return mean.argmax(axis=1) if maximise else mean.argmin(axis=1)


def _window(present: NDArray[np.bool_], best: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    """(R, sizes) the `size` present sizes around the best one, shifted inwards at the ends."""
    rank = np.cumsum(present, axis=1) - 1
    middle = np.take_along_axis(rank, best[:, None], axis=1)
    first = np.clip(middle - size // 2, 0, np.maximum(rank[:, -1:] + 1 - size, 0))
    return present & (rank >= first) & (rank < first + size)


def _polynomial(u: Array, y: Array, w: Array, degree: int, determined: NDArray[np.bool_]) -> Array:
    """(R, degree + 1) weighted least squares; the smallest solution where it is not determined."""
    powers = np.power.outer(u, np.arange(2 * degree + 1))
    moments = w @ powers
    # The shift keeps the sums small against the spread of y; it goes back into the constant.
    shift = y.mean(axis=1, keepdims=True)
    right = (w * (y - shift)) @ powers[:, : degree + 1]
    order = np.arange(degree + 1)
    normal = moments[:, order[:, None] + order]
    ridge = np.where(determined, 0.0, 1e-9 * np.maximum(moments[:, 0], 1e-300))
    normal = normal + ridge[:, None, None] * np.eye(degree + 1)
    rows = max(len(normal), len(right))
    normal = np.broadcast_to(normal, (rows, degree + 1, degree + 1))
    empty = ~(normal[:, 0, 0] > 0)
    if empty.any():
        normal = np.where(empty[:, None, None], np.eye(degree + 1), normal)
    right = np.broadcast_to(right, (rows, degree + 1))[..., None]
    coefficients = np.array(np.linalg.solve(normal, right)[..., 0], dtype=float)
    coefficients[:, 0] += shift[:, 0]
    return coefficients


def _evaluate(coefficients: Array, u: Array) -> Array:
    """(R,) the polynomial at one point a replicate."""
    with np.errstate(over="ignore", invalid="ignore"):
        powers = u[:, None] ** np.arange(coefficients.shape[1])
        return np.einsum("rk,rk->r", coefficients, powers)


def _stationary(coefficients: Array, maximise: bool) -> tuple[Array, Array, NDArray[np.bool_]]:
    """The optimum u, half the second derivative there, and whether it exists.

    Of the two stationary points of c0 + c1 u + c2 u^2 + c3 u^3, u = -c1/(c2 + r) with
    r = sqrt(c2^2 - 3 c1 c3) is the minimum: the second derivative there is 2 r. The form has no
    cancellation and becomes the vertex of the parabola at c3 = 0.
    """
    sign = -1.0 if maximise else 1.0
    c1, c2 = sign * coefficients[:, 1], sign * coefficients[:, 2]
    c3 = sign * coefficients[:, 3] if coefficients.shape[1] == 4 else np.zeros_like(c1)
    discriminant = c2**2 - 3 * c1 * c3
    root = np.sqrt(np.maximum(discriminant, 0.0))
    bend = np.where(c3 == 0, c2, root)
    with np.errstate(divide="ignore", invalid="ignore"):
        u = -c1 / (c2 + bend)
    turns = (discriminant > 0) & (bend > 0) & np.isfinite(u)
    return np.where(turns, u, 0.0), sign * bend, turns
