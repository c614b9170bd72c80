"""Lines of several tasks on arrays: own, shared or partially pooled slopes, and a task's posterior.

z = alpha_t + beta_t u + noise for task t. The intercepts are the tasks' own; what is pooled is the
slope.
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import FitError

Array = NDArray[np.float64]

_LEAST = 1e-9
"""Variance of slopes, as a share of the noise's, that stands for none."""
_DIFFERENT = 0.01
"""p value below which a shared slope is called wrong."""


class Lines(NamedTuple):
    """The slopes of all tasks."""

    mean: float
    """Slope of the typical task."""
    variance: float
    """Of `mean`."""
    spread: float
    """Variance of slopes between tasks: 0 where all share one, infinite where each has its own."""
    noise: float
    """Standard deviation of a point about its task's line."""
    freedom: tuple[float, float]
    """Degrees of freedom of the spread of tasks and of the noise."""
    messages: tuple[str, ...]


class Posterior(NamedTuple):
    """What is known of the line of one task."""

    line: Array
    """(2,) intercept, slope."""
    between: Array
    """(2, 2) covariance from the spread of tasks and from what is known of their mean."""
    within: Array
    """(2, 2) covariance from the noise of the task's own points."""


class _AwayFromZero:
    """Penalty that keeps a variance off its bound: adds the log of the standard deviation.

    Chung et al. 2013, "A nondegenerate penalized likelihood estimator for variance parameters in
    multilevel models": a gamma(2) prior with a rate going to 0.
    """

    @staticmethod
    def func(mat: Array, mat_inv: Array) -> float:
        return -0.5 * float(np.linalg.slogdet(mat)[1])

    @staticmethod
    def deriv(mat: Array, mat_inv: Array) -> Array:
        return -0.5 * mat_inv.ravel()  # packed, as statsmodels wants it: one variance


def partial_lines(u: Array, z: Array, member: NDArray[np.intp]) -> Lines:
    """Slopes drawn from a normal distribution: a linear mixed model (Laird, Ware 1982) by REML.

    REML often puts the variance of slopes at 0, and intervals for a new task made from it cover
    down to .76 where .90 is promised; with the penalised estimate they cover .87 or more
    (`benchmarks/results/pooled_spread.md`).
    """
    from statsmodels.regression.mixed_linear_model import MixedLM

    tasks = int(member.max()) + 1
    spare = len(z) - 2 * tasks
    if spare < 1:
        raise FitError(
            f"{len(z)} points of {tasks} tasks: with fewer than three points a task on average, "
            "tasks cannot be told from noise. Use pooling='complete'"
        )
    scale_u, scale_z = float(u.std()), float(within(z, member).std())
    if not scale_z > 0:
        raise FitError("y does not change within any task: there is no exponent")
    exog = np.column_stack([np.eye(tasks)[member], u / scale_u])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MixedLM(z / scale_z, exog, groups=member, exog_re=u[:, None] / scale_u)
            # L-BFGS, its default, stops far from the optimum and calls that converged.
            found = model.fit(reml=True, cov_pen=_AwayFromZero(), method=["powell", "bfgs"])
    except np.linalg.LinAlgError as error:
        raise FitError(
            f"the mixed model is singular ({error}): use pooling='complete' or 'none'"
        ) from error
    back = scale_z / scale_u
    messages = () if found.converged else ("the mixed model's optimiser did not converge",)
    spread = float(np.asarray(found.cov_re)[0, 0]) * back**2
    noise = float(np.sqrt(found.scale)) * scale_z
    # The slope of a task has variance spread + noise^2 / sxx; the mean weighs by its inverse.
    sxx = np.bincount(member, weights=within(u, member) ** 2)
    information = (sxx / (spread * sxx + noise**2)).sum()
    return Lines(
        mean=float(np.asarray(found.fe_params)[tasks]) * back,
        variance=float(1 / information),
        spread=spread,
        noise=noise,
        freedom=(float(tasks - 1), float(spare)),
        messages=messages,
    )


def shared_lines(u: Array, z: Array, member: NDArray[np.intp]) -> Lines:
    """One slope for all tasks, by least squares, with a message where an F test rejects it."""
    tasks = int(member.max()) + 1
    du, dz = within(u, member), within(z, member)
    sxx, freedom = float(du @ du), len(z) - tasks - 1
    if not sxx > 0 or freedom < 1:
        raise FitError("no task has points at two x and one to spare: there is no exponent")
    slope = float(du @ dz) / sxx
    rss = float(((dz - slope * du) ** 2).sum())
    noise2 = rss / freedom
    own, bent, spare = _alone(u, z, member)
    messages: tuple[str, ...] = ()
    if spare > 0 and bent > 1 and own > 0:
        from scipy.special import fdtrc

        p = float(fdtrc(bent - 1, spare, max(rss - own, 0.0) / (bent - 1) / (own / spare)))
        if p < _DIFFERENT:
            messages = (
                f"the tasks do not share one exponent (F test, p = {p:.2g}): use pooling='partial'",
            )
    dof = (float(freedom), float(freedom))
    return Lines(slope, noise2 / sxx, 0.0, float(np.sqrt(noise2)), dof, messages)


def separate_lines(u: Array, z: Array, member: NDArray[np.intp]) -> Lines:
    """Every task by least squares of its own, with one noise for all."""
    tasks = int(member.max()) + 1
    slopes = np.array([line(u[member == i], z[member == i])[1] for i in range(tasks)])
    rss, _, spare = _alone(u, z, member)
    if spare < 1 or not np.isfinite(slopes).all():
        raise FitError("a task has points at one x only, or none has a point to spare")
    error2 = float(slopes.var(ddof=1)) / tasks if tasks > 1 else np.nan
    freedom = (float(max(tasks - 1, 1)), float(spare))
    return Lines(float(slopes.mean()), error2, np.inf, float(np.sqrt(rss / spare)), freedom, ())


def posterior(u: Array, z: Array, lines: Lines) -> Posterior:
    """The line of a task from its own points and the slopes of the others, by their precisions."""
    noise2 = max(lines.noise**2, 1e-300)
    tight = np.isfinite(lines.spread)
    precision = np.zeros((2, 2))
    if tight:
        precision[1, 1] = 1 / (lines.spread + _LEAST * noise2)
    design = np.stack([np.ones_like(u), u], axis=1)
    own = design.T @ design / noise2
    total = np.linalg.inv(precision + own)
    centre = np.array([0.0, lines.mean if tight else 0.0])
    shrunk = total @ precision
    # Var(line) = (total P) (spread + variance of the mean) (total P)' + what the own points leave.
    between = shrunk @ total
    if tight:
        between = between + lines.variance * np.outer(shrunk[:, 1], shrunk[:, 1])
    return Posterior(
        line=total @ (precision @ centre + design.T @ z / noise2),
        between=between,
        within=total @ own @ total,
    )


def satterthwaite(between: Array, own: Array, freedom: tuple[float, float]) -> Array:
    """Degrees of freedom of between + own, each with its own."""
    split = between**2 / freedom[0] + own**2 / freedom[1]
    return (between + own) ** 2 / np.maximum(split, 1e-300)


def within(values: Array, member: NDArray[np.intp]) -> Array:
    """Deviations from the mean of each group."""
    return values - (np.bincount(member, weights=values) / np.bincount(member))[member]


def line(u: Array, z: Array) -> tuple[float, float]:
    """Least squares of one task: intercept and slope; NaN without two u."""
    du = u - u.mean()
    if not du @ du > 0:
        return np.nan, np.nan
    slope = float(du @ z / (du @ du))
    return float(z.mean() - slope * u.mean()), slope


def _alone(u: Array, z: Array, member: NDArray[np.intp]) -> tuple[float, int, int]:
    """Residual sum of squares of lines of their own, tasks with a slope, degrees of freedom."""
    rss, tasks, spare = 0.0, 0, 0
    for i in range(int(member.max()) + 1):
        own = member == i
        intercept, slope = line(u[own], z[own])
        if np.isfinite(slope):
            rss += float(((z[own] - intercept - slope * u[own]) ** 2).sum())
            tasks, spare = tasks + 1, spare + int(own.sum()) - 2
    return rss, tasks, spare
