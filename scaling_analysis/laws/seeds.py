"""Where to start: variable projection over a grid of exponents, for every replicate at once.

Given its exponents, a sum of powers is linear in its coefficients. The least-squares problems of
all replicates at all nodes of an exponent grid have normal equations that are linear in the
weights, so one matrix product builds them all; each is a system of k + 1 unknowns.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.laws.least_squares import solve_definite
from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

_SYSTEMS = 20_000
"""Normal equations solved together: their work arrays stay in the cache."""


def exponent_grid(inputs: int, nodes: int = 150) -> Array:
    """Every combination of exponents from .03 to 2.5, about `nodes` of them: (inputs, nodes)."""
    a_side = max(4, round(nodes ** (1 / inputs)))
    axis = np.geomspace(0.03, 2.5, a_side)
    return np.array(np.meshgrid(*[axis] * inputs, indexing="ij")).reshape(inputs, -1)


def additive_seeds(
    log_inputs: Sequence[ArrayLike],
    response: ArrayLike,
    weights: ArrayLike,
    *,
    centre: Sequence[float] | None = None,
    space: Space = "log",
    exponents: Array | None = None,
    keep: int = 1,
) -> Array:
    """Starts (R, keep, 1 + 2 k) for `surfaces.additive`, the best by squared error first.

    Parameters
    ----------
    log_inputs, centre, space
        As for `surfaces.additive`.
    response : array_like, (R, rows) or (rows,)
        y itself, in either space; positive in log space, where squares are of relative errors.
    weights : array_like, (R, rows) or (rows,)
    exponents : array, (k, nodes), optional
        The combinations tried; `exponent_grid` where not given.
    keep : int
        Starts for each replicate.
    """
    x = np.array([np.asarray(row, dtype=float) for row in log_inputs])
    x -= (x.mean(axis=1) if centre is None else np.asarray(centre, dtype=float))[:, None]
    y, w = (np.atleast_2d(np.asarray(v, dtype=float)) for v in (response, weights))
    exponents = exponent_grid(len(x)) if exponents is None else exponents
    axes = [np.unique(row, return_inverse=True) for row in exponents]
    features = [np.exp(-axis[:, None] * row) for (axis, _), row in zip(axes, x, strict=True)]
    nodes, coefficients, _ = project(
        features,
        np.array([position for _, position in axes]),
        y,
        w / y**2 if space == "log" else w,
        positive_floor=space == "log",
        keep=keep,
    )
    theta = np.empty((*nodes.shape, 1 + 2 * len(x)))
    theta[:, :, 0] = coefficients[:, :, 0]
    theta[:, :, 1::2] = np.log(coefficients[:, :, 1:])
    theta[:, :, 2::2] = exponents.T[nodes]
    return theta


def project(
    features: Sequence[Array],
    nodes: NDArray[np.intp],
    response: Array,
    weights: Array,
    *,
    floor: bool = True,
    positive_floor: bool = True,
    keep: int = 1,
) -> tuple[NDArray[np.intp], Array, Array]:
    """Best nodes of y = E + sum_i c_i features[i][nodes[i]] by weighted least squares, c_i > 0.

    Parameters
    ----------
    features : k arrays (values_i, rows)
        A feature of input i for each value of its exponent.
    nodes : (k, nodes)
        Which of its features each input takes at a node.
    response, weights : (R, rows) or (1, rows)
    keep : int
        How many of the best nodes to return for each replicate.

    Returns
    -------
    best : (R, keep)
        The nodes with the smallest sum of squares, best first.
    coefficients : (R, keep, 1 + k)
        E and the c_i. E is 0 where there is no floor or where it must not be negative but would.
    squares : (R, keep)
        Weighted sums of squares; inf for a node where a c_i would be negative (it is 1e-6 of the
        mean response then).
    """
    replicates, inputs = max(len(response), len(weights)), len(features)
    keep = min(keep, nodes.shape[1])
    blocks = [np.ones((1, features[0].shape[1])), *features]
    index = [np.zeros(nodes.shape[1], dtype=np.intp), *nodes]
    # Rows of the normal equations: few distinct ones where only one input enters.
    alone = [block if t == 0 else block**2 for t, block in enumerate(blocks)]
    crossed = {
        (s, t): blocks[s][index[s]] * blocks[t][index[t]]
        for t in range(1 + inputs)
        for s in range(1, t)
    }
    best = np.empty((replicates, keep), dtype=np.intp)
    coefficients = np.empty((replicates, keep, 1 + inputs))
    squares = np.empty((replicates, keep))
    chunk = max(1, _SYSTEMS // nodes.shape[1])
    for start in range(0, replicates, chunk):
        part = slice(start, start + chunk)
        y, w = (v if len(v) == 1 else v[part] for v in (response, weights))
        wy = w * y
        normal = np.empty((1 + inputs, 1 + inputs, len(wy), nodes.shape[1]))
        for t, i in enumerate(index):
            normal[t, t] = (w @ alone[t].T)[:, i]
            normal[0, t] = normal[t, 0] = (w @ blocks[t].T)[:, i]
        for (s, t), product in crossed.items():
            normal[s, t] = normal[t, s] = w @ product.T
        right = np.array([(wy @ block.T)[:, i] for block, i in zip(blocks, index, strict=True)])
        total = (wy * y).sum(axis=1)[:, None]
        c, cost = _solve(normal, right, total, floor, positive_floor)
        order = np.argsort(cost, axis=1)[:, :keep]
        best[part], squares[part] = order, np.take_along_axis(cost, order, axis=1)
        coefficients[part] = np.take_along_axis(c, order[None], axis=2).transpose(1, 2, 0)
    return best, coefficients, squares


def _solve(
    normal: Array, right: Array, total: Array, floor: bool, positive_floor: bool
) -> tuple[Array, Array]:
    """Coefficients (1 + k, R, nodes) and sums of squares (R, nodes) of all systems."""
    shape = right.shape
    normal, right = normal.reshape(*shape[:1] * 2, -1), right.reshape(len(right), -1)
    c = np.zeros_like(right)
    c[1:], usable = solve_definite(normal[1:, 1:], right[1:])
    if floor:
        with_floor, definite = solve_definite(normal, right)
        better = definite & (with_floor[1:] > 0).all(axis=0)
        if positive_floor:
            better &= with_floor[0] > 0
        c, usable = np.where(better, with_floor, c), usable | better
    usable &= (c[1:] > 0).all(axis=0)
    explained = (right * c).sum(axis=0).reshape(shape[1:])
    cost = np.where(usable.reshape(shape[1:]), total - explained, np.inf)
    mean = np.abs(right[0]) / np.where(normal[0, 0] > 0, normal[0, 0], 1.0)
    c[1:] = np.where(usable, c[1:], np.maximum(1e-6 * mean, 1e-300))
    return c.reshape(shape), cost
