"""Linear algebra for many small systems: weighted least squares of all replicates together.

Here the replicate axis comes last inside the solver, so that each step of the elimination is one
operation on a contiguous array; NumPy's own batched routines call LAPACK once a system.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

_PIVOT = 1e-13
"""Smallest pivot, of a matrix with unit diagonal, that counts as positive."""
_FEW = 32
"""Up to so many systems LAPACK, called once a system, is faster than one operation a step."""


def weighted_least_squares(
    design: ArrayLike, response: ArrayLike, weights: ArrayLike | None = None
) -> Array:
    """Coefficients (R, P) that minimise sum_i w_ri (y_ri - x_i . theta_r)^2.

    The normal equations are formed on an orthogonal basis of the whole design, so that no digits
    are lost to nearly collinear columns (powers of a log). A replicate whose weights leave the
    coefficients undetermined gets NaN.

    Parameters
    ----------
    design : array_like, (rows, P)
    response, weights : array_like, (R, rows) or (rows,)
        Either may be shared by all replicates.

    Examples
    --------
    >>> x = np.array([0.0, 1.0, 2.0])
    >>> weighted_least_squares(np.stack([np.ones(3), x], axis=1), 3 + 2 * x).round(12)
    array([[3., 2.]])
    """
    x = np.asarray(design, dtype=float)
    y = np.atleast_2d(np.asarray(response, dtype=float))
    w = np.atleast_2d(np.ones(len(x)) if weights is None else np.asarray(weights, dtype=float))
    size = x.shape[1]
    left, singular, right = np.linalg.svd(x / np.linalg.norm(x, axis=0), full_matrices=False)
    if singular[-1] <= 1e-12 * singular[0]:
        return np.full((max(len(y), len(w)), size), np.nan)
    products = (left[:, :, None] * left[:, None, :]).reshape(len(x), size * size)
    moments = ((w * y) @ left).T
    normal = (products.T @ w.T).reshape(size, size, -1)
    normal = np.broadcast_to(normal, (size, size, moments.shape[1]))
    solution, definite = solve_definite(normal, moments)
    solution[:, ~definite] = np.nan
    return (solution.T / singular) @ right / np.linalg.norm(x, axis=0)


def solve_definite(matrix: Array, right: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Solve symmetric matrix x = right, (P, P, R) and (P, R), by Cholesky's method.

    Returns x and which matrices are positive definite; x means nothing for the others.
    """
    size = len(right)
    diagonal = np.einsum("iir->ir", matrix)
    if right.shape[1] <= _FEW and _are_definite(matrix, diagonal):
        found = np.linalg.solve(matrix.transpose(2, 0, 1), right.T[:, :, None])
        return np.asarray(found[:, :, 0].T, np.float64), np.ones(right.shape[1], dtype=bool)
    scale = 1 / np.sqrt(np.where(diagonal > 0, diagonal, 1.0))
    definite = np.all(diagonal > 0, axis=0)
    lower = np.empty_like(matrix)
    x = right * scale
    with np.errstate(over="ignore", invalid="ignore"):  # where it is not definite
        for j in range(size):
            pivot = matrix[j, j] * scale[j] ** 2
            for k in range(j):
                pivot -= lower[j, k] ** 2
            positive = pivot > _PIVOT
            definite &= positive
            inverse = 1 / np.sqrt(np.where(positive, pivot, 1.0))
            lower[j, j] = inverse  # the diagonal is kept inverted
            for i in range(j + 1, size):
                entry = matrix[i, j] * (scale[i] * scale[j])
                for k in range(j):
                    entry -= lower[i, k] * lower[j, k]
                lower[i, j] = entry * inverse
            for k in range(j):
                x[j] -= lower[j, k] * x[k]
            x[j] *= inverse
        for j in reversed(range(size)):
            for i in range(j + 1, size):
                x[j] -= lower[i, j] * x[i]
            x[j] *= lower[j, j]
        x *= scale
    return x, definite


def _are_definite(matrix: Array, diagonal: Array) -> bool:
    """Whether all matrices are positive definite."""
    try:
        lower = np.linalg.cholesky(matrix.transpose(2, 0, 1))
    except np.linalg.LinAlgError:
        return False
    return bool((np.einsum("rii->ir", lower) ** 2 > _PIVOT * diagonal).all())
