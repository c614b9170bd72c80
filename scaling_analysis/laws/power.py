"""Power laws y = a x^p and y = a x^p + b through few points, for many replicates at once.

The leading axis is the replicate. Residuals are taken in log y. A point of weight zero is absent.
"""

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

EXPONENT_BOUND = 5.0
"""A steeper approach to a floor than |p| = 5 is decided by one point, not by a law."""
_EXPONENTS = np.geomspace(0.02, EXPONENT_BOUND, 16)
_ITERATIONS = 60


def fit_power(log_x: Array, log_y: Array, weights: Array) -> tuple[Array, Array]:
    """Ordinary (weighted) least squares of log y on log x.

    Parameters
    ----------
    log_x : (points,) or (R, points)
    log_y, weights : (R, points)
        `log_y` may hold anything, NaN included, where the weight is zero.

    Returns
    -------
    log_a, p : (R,)
        log y = log_a + p log_x; NaN where fewer than two points have weight.
    """
    y = np.where(weights > 0, log_y, 0.0)
    total = weights.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        x_mean, y_mean = (weights * log_x).sum(axis=1) / total, (weights * y).sum(axis=1) / total
        dx = log_x - x_mean[:, None]
        xx = (weights * dx**2).sum(axis=1)
        slope = (weights * dx * (y - y_mean[:, None])).sum(axis=1) / np.where(xx > 0, xx, np.nan)
    return y_mean - slope * x_mean, slope


def fit_power_floor(log_x: Array, log_y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Least squares of log y on log(a x^p + b), b >= 0.

    Starts from the best of 16 exponents, with a and b by linear least squares on relative
    residuals, and goes on by damped Gauss-Newton steps in (log a, p, b). The sign of p is that of
    the power law through the same points. Where no positive floor does better, the power law is
    the answer, with b = 0.

    Parameters
    ----------
    log_x : (points,) or (R, points)
    log_y, weights : (R, points)

    Returns
    -------
    log_a, p, b : (R,)
        y = exp(log_a + p log_x) + b.
    """
    present = weights > 0
    log_a0, p0 = fit_power(log_x, log_y, weights)
    sign = np.where(p0 > 0, 1.0, -1.0)
    # Near 1 in x and y every parameter is of order 1, whatever the units.
    x_ref = log_x.mean()
    count = np.maximum(present.sum(axis=1), 1)
    y_ref = np.where(present, log_y, 0.0).sum(axis=1) / count
    t = sign[:, None] * (log_x - x_ref)
    y = np.where(present, log_y - y_ref[:, None], 0.0)

    theta = _start(t, y, weights)
    theta, cost = _gauss_newton(theta, t, y, weights)
    plain = _cost(np.stack([log_a0 + p0 * x_ref - y_ref, np.abs(p0), 0 * p0], -1), t, y, weights)
    floor = (theta[:, 2] > 0) & (cost < plain)
    p = sign * theta[:, 1]
    return (
        np.where(floor, theta[:, 0] - p * x_ref + y_ref, log_a0),
        np.where(floor, p, p0),
        np.where(floor, theta[:, 2] * np.exp(y_ref), 0.0),
    )


def _start(t: Array, y: Array, weights: Array) -> Array:
    """(R, 3) log a, |p|, b: the best of a grid of exponents, linear in a and b."""
    best = np.full(len(y), np.inf)
    theta = np.zeros((len(y), 3))
    u = np.exp(-y)  # relative residual of a point: (a z + b) u - 1
    w1, w2 = weights * u, weights * u**2
    s_1, s_y1, s_yy = w2.sum(axis=1), w1.sum(axis=1), weights.sum(axis=1)
    for p in _EXPONENTS:
        z = np.exp(p * t)
        s_z, s_zz, s_yz = (w2 * z).sum(axis=1), (w2 * z**2).sum(axis=1), (w1 * z).sum(axis=1)
        with np.errstate(invalid="ignore", divide="ignore"):
            a = (s_yz * s_1 - s_y1 * s_z) / (s_zz * s_1 - s_z**2)
            b = (s_y1 - a * s_z) / s_1
            no_floor = ~(b > 0)
            a = np.where(no_floor, s_yz / s_zz, a)
            b = np.where(no_floor, 0.0, b)
            misfit = s_yy - a * s_yz - b * s_y1
            better = (a > 0) & (misfit < best)
            best = np.where(better, misfit, best)
            start = np.stack([np.log(a), np.full_like(a, p), b], axis=-1)
        theta = np.where(better[:, None], start, theta)
    return theta


def _model(theta: Array, t: Array) -> tuple[Array, Array]:
    """(R, points) the rising or falling part and the whole."""
    part = np.exp(theta[:, :1] + theta[:, 1:2] * t)
    return part, part + theta[:, 2:]


def _cost(theta: Array, t: Array, y: Array, weights: Array) -> Array:
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        residual = np.log(_model(theta, t)[1]) - y
        cost = np.where(weights > 0, weights * residual**2, 0.0).sum(axis=1)
    return np.where(np.isfinite(cost), cost, np.inf)


def _gauss_newton(theta: Array, t: Array, y: Array, weights: Array) -> tuple[Array, Array]:
    """Levenberg-Marquardt on all replicates that still move."""
    theta = theta.copy()
    cost = _cost(theta, t, y, weights)
    damping = np.full(len(theta), 1e-3)
    moving = np.flatnonzero(np.isfinite(cost))
    for _ in range(_ITERATIONS):
        if not len(moving):
            break
        now, tm, wm = theta[moving], t[moving], weights[moving]
        part, whole = _model(now, tm)
        jacobian = np.stack([part / whole, part * tm / whole, 1 / whole], axis=-1)
        residual = np.where(wm > 0, np.log(whole) - y[moving], 0.0)
        weighted = jacobian * wm[..., None]
        normal = np.swapaxes(weighted, 1, 2) @ jacobian
        gradient = (weighted * residual[..., None]).sum(axis=1)
        scale = np.maximum(np.diagonal(normal, axis1=1, axis2=2), 1e-12)
        damped = normal + (damping[moving, None] * scale)[..., None] * np.eye(3)
        # A floor at zero that would go below is held there; the others then move without it.
        held = (now[:, 2] == 0) & (gradient[:, 2] > 0)
        damped[held, 2, :2] = damped[held, :2, 2] = gradient[held, 2] = 0.0
        trial = now - np.linalg.solve(damped, gradient[..., None])[..., 0]
        trial[:, 1] = np.clip(trial[:, 1], 1e-3, EXPONENT_BOUND)
        trial[:, 2] = np.maximum(trial[:, 2], 0.0)
        trial_cost = _cost(trial, tm, y[moving], wm)
        accept = trial_cost <= cost[moving]
        gain = cost[moving] - trial_cost
        still = np.abs(trial - now).max(axis=1) > 1e-10
        theta[moving[accept]] = trial[accept]
        cost[moving[accept]] = trial_cost[accept]
        damping[moving] = np.where(accept, 0.2 * damping[moving], 5 * damping[moving])
        done = accept & (~still | (gain <= 1e-14 * trial_cost))
        moving = moving[~done & (damping[moving] < 1e8)]
    return theta, cost
