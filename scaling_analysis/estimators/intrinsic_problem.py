"""The learning curves of an intrinsic fit as its solver sees them, and the solving."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.estimators.metrics import Metric
from scaling_analysis.laws.intrinsic import intrinsic_slopes
from scaling_analysis.laws.monotone_splines import fit_spline

Array = NDArray[np.float64]
Inner = Literal["smooth", "isotonic", "metric"]

TABLE = 257
"""Points at which the fitted function of log I is kept."""
SAMPLE_EXPONENTS = (0.02, 20.0)
"""Where alpha_E is looked for: below, only compute matters and not how it is split; above, the
scarcer of the two matters alone."""
EXPONENTS = (0.02, 0.98)
"""Where the exponent of N* is looked for."""
_GRID = (np.linspace(0.08, 0.92, 8), np.geomspace(0.1, 4.0, 5), np.linspace(-0.75, 0.75, 7))
"""Nodes of the search: exponent, alpha_E, and log N* at the median compute, in units of the range
of log N around its middle."""
_STARTS = 8
_NEIGHBOURS = (-1.0, 1.0)
"""A replicate is also started with logit a that much off the optimum of the data."""
_REACH = 2.0
"""log N* at the median compute lies within the sizes run, give or take so many of their ranges."""
_EXACT = 1e-12
_FAR = 300.0
_STEP = 1e-5
_FREE = (np.array([-np.inf, 0.0]), np.array([np.inf, np.inf]))
"""Bounds of the line of a log metric: it must not fall."""


class Solution(NamedTuple):
    """Optima of R replicates."""

    theta: Array
    """(R, 3) logit a, log alpha_E, log N* at the median compute (centred)."""
    squares: Array
    """(R,) weighted sum of squared residuals of the points."""
    total: Array
    """(R,) the same around their mean."""
    low: Array
    """(R,) least log I (centred) among the points."""
    high: Array
    """(R,) greatest log I (centred)."""
    table: Array
    """(R, TABLE) the function of log I at equidistant points from low to high."""
    line: Array
    """(R, 2) intercept and slope of the log metric in log I (centred); NaN without one."""
    converged: NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CurveProblem:
    """Learning curves, averaged over seeds, whose returns are a function of log I."""

    cell: NDArray[np.intp]
    """(rows,) the point (N, samples) that a row belongs to; runs of one size are averaged there."""
    log_n: Array
    """(points,) log N about its middle."""
    log_e: Array
    """(points,) log k E, so centred that log_n + log_e = log(C/C_ref)."""
    middle: float
    """What was taken off log N."""
    smoothing: Array | None
    """(points, points) kernel of the running mean along the curves; None for none."""
    inner: Inner
    knots: int
    metric: Metric | None = None
    """Whose logarithm is a straight line in log I; "metric" only."""
    both_sides: bool = True
    """Whether replicates are also started on both sides of the optimum of the data."""

    @property
    def log_params_reach(self) -> float:
        """How far off the middle log N* at the median compute is looked for."""
        return _REACH * float(np.ptp(self.log_n))

    def points(self, response: Array, weights: Array) -> tuple[Array, Array]:
        """Return and weight of every point, (points,) each; weight 0 where a point has no row."""
        count = len(self.log_n)
        mass = np.bincount(self.cell, weights, count).astype(float)
        total = np.bincount(self.cell, weights * response, count)
        mean = total / np.where(mass > 0, mass, 1.0)
        if self.smoothing is not None:
            kernel = self.smoothing * mass
            share = kernel.sum(axis=1)
            mean = (kernel @ mean) / np.where(share > 0, share, 1.0)
        return mean, mass

    def search(self, response: Array, weights: Array) -> Solution:
        """The global optimum.

        A grid over the three parameters, then least squares from its best nodes: the coordinates
        are nearly independent of each other, so that few starts go astray.
        """
        curves = _Curves(self, response, weights)
        half = np.ptp(self.log_n)
        nodes = np.stack(np.meshgrid(*_GRID, indexing="ij"), axis=-1).reshape(-1, 3)
        nodes = np.stack(
            [np.log(nodes[:, 0] / (1 - nodes[:, 0])), np.log(nodes[:, 1]), half * nodes[:, 2]], 1
        )
        squares = np.array([curves.squares(theta) for theta in nodes])
        starts = np.argsort(squares, kind="stable")[:_STARTS]
        best = min((curves.descend(nodes[i]) for i in starts), key=lambda end: end[1])
        return curves.solution(best[0], best[2])

    def follow(self, start: Array, response: Array, weights: Array) -> Solution:
        """The optimum of a replicate, from that of the data and from both sides of it."""
        curves = _Curves(self, response, weights)
        if not curves.determined:
            return curves.failure()
        starts = [start]
        if self.both_sides:
            starts += [start + np.array([step, 0.0, 0.0]) for step in _NEIGHBOURS]
        best = min((curves.descend(theta) for theta in starts), key=lambda end: end[1])
        return curves.solution(best[0], best[2])

    def profile(self, start: Array, response: Array, weights: Array, exponents: Array) -> Array:
        """Least objective at each fixed exponent of N*, walking away from the optimum `start`."""
        curves = _Curves(self, response, weights)
        logits = np.log(exponents / (1 - exponents))
        out = np.empty(len(logits))
        for side in (logits >= start[0], logits < start[0]):
            theta = start
            for i in np.flatnonzero(side)[np.argsort(np.abs(logits[side] - start[0]))]:
                theta, out[i], _ = curves.descend(np.array([logits[i], *theta[1:3]]), fixed=True)
        return out


def solve_chunk(problem: CurveProblem, start: Array, responses: Array, weights: Array) -> Solution:
    """`follow` for several replicates of responses and weights, (R, rows)."""
    found = [problem.follow(start, y, w) for y, w in zip(responses, weights, strict=True)]
    return Solution(*(np.concatenate(column) for column in zip(*found, strict=True)))


class _Curves:
    """One replicate: its points, and its least squares by variable projection.

    Given theta, the best monotone function is a linear problem; what is left are three parameters,
    whose Jacobian is that of log I, projected off what the function can follow (Kaufman 1975).
    """

    def __init__(self, problem: CurveProblem, response: Array, weights: Array) -> None:
        mean, mass = problem.points(response, weights)
        kept = mass > 0
        self.problem, self.metric = problem, problem.metric
        self.log_n, self.log_e = problem.log_n[kept], problem.log_e[kept]
        self.weights = mass[kept]
        self.unit = float(np.ptp(mean[kept])) if kept.any() else 0.0
        self.response = mean[kept] / (self.unit or 1.0)
        self.root = np.sqrt(self.weights / max(self.weights.sum(), _EXACT))
        self.determined = self.unit > 0 and len(np.unique(self.log_n)) >= 3
        reach = problem.log_params_reach
        self.bounds = (
            np.array([_logit(EXPONENTS[0]), np.log(SAMPLE_EXPONENTS[0]), -reach]),
            np.array([_logit(EXPONENTS[1]), np.log(SAMPLE_EXPONENTS[1]), reach]),
        )

    def squares(self, theta: Array) -> float:
        """Mean squared residual, in units of the squared range, at the best function."""
        if self.problem.inner == "isotonic":
            return float(((self.root * (self.response - self._isotonic(theta))) ** 2).sum())
        return float((self._smooth(theta)[0] ** 2).sum())

    def descend(self, start: Array, fixed: bool = False) -> tuple[Array, float, bool]:
        """The optimum below a start (its first coordinate kept if `fixed`), and its objective.

        With a metric, the line of its logarithm follows the three parameters.
        """
        start = np.clip(start[:3], self.bounds[0] + 1e-6, self.bounds[1] - 1e-6)
        if self.problem.inner == "isotonic":
            return self._descend_isotonic(start, fixed)
        from scipy.optimize import least_squares

        moving = np.arange(1 if fixed else 0, 3)
        full = start
        if self.metric is not None:
            full = np.concatenate([start, self._line(start)])
            moving = np.concatenate([moving, [3, 4]])
        low, high = (np.append(end, far) for end, far in zip(self.bounds, _FREE, strict=True))
        last: dict[str, Array] = {}

        def residuals(part: Array) -> Array:
            full[moving] = part
            last["at"] = part.copy()
            r, last["jacobian"] = self._smooth(full) if self.metric is None else self._metric(full)
            return r

        def jacobian(part: Array) -> Array:
            if not np.array_equal(last["at"], part):
                residuals(part)
            return last["jacobian"][:, moving]

        found = least_squares(
            residuals,
            full[moving],
            jac=jacobian,
            bounds=(low[moving], high[moving]),
            ftol=1e-9,
            xtol=1e-7,
            gtol=1e-12,
            max_nfev=60,
        )
        full[moving] = found.x
        return full.copy(), 2 * float(found.cost), bool(found.status > 0)

    def solution(self, theta: Array, converged: bool) -> Solution:
        """All that is kept of an optimum."""
        value = intrinsic_slopes(theta, self.log_n, self.log_e)[0]
        low, high = float(value.min()), float(value.max())
        at, line = np.linspace(low, high, TABLE), np.full(2, np.nan)
        if self.metric is not None:
            line = theta[3:]
            fitted, table = (self._returns(line[0] + line[1] * x) for x in (value, at))
        elif self.problem.inner == "isotonic":
            fitted = self._isotonic(theta)
            order = np.argsort(value, kind="stable")
            table = np.interp(at, value[order], fitted[order])
        else:
            fit = fit_spline(value, self.response, self.root**2, self.problem.knots)
            fitted, table = fit.fitted, fit.spline.value(at)
        scale = self.weights.sum() * self.unit**2
        mean = np.average(self.response, weights=self.weights)
        return Solution(
            theta[None, :3],
            np.array([((self.root * (self.response - fitted)) ** 2).sum() * scale]),
            np.array([((self.root * (self.response - mean)) ** 2).sum() * scale]),
            np.array([low]),
            np.array([high]),
            table[None] * self.unit,
            line[None],
            np.array([converged]),
        )

    def failure(self) -> Solution:
        """Of a replicate that determines no law."""
        nothing = np.full(1, np.nan)
        return Solution(
            theta=np.full((1, 3), np.nan),
            squares=nothing,
            total=nothing,
            low=nothing,
            high=nothing,
            table=np.full((1, TABLE), np.nan),
            line=np.full((1, 2), np.nan),
            converged=np.array([False]),
        )

    def _isotonic(self, theta: Array) -> Array:
        from scipy.optimize import isotonic_regression

        value = intrinsic_slopes(theta, self.log_n, self.log_e)[0]
        order = np.argsort(value, kind="stable")
        fitted = np.empty_like(value)
        fitted[order] = isotonic_regression(self.response[order], weights=self.weights[order]).x
        return fitted

    def _smooth(self, theta: Array) -> tuple[Array, Array]:
        """Weighted residuals (points,) and their Jacobian (points, 3)."""
        value, slopes = intrinsic_slopes(theta, self.log_n, self.log_e)
        fit = fit_spline(value, self.response, self.root**2, self.problem.knots)
        # The knots move with the ends of log I: a point keeps its place among them.
        first, last = int(np.argmin(value)), int(np.argmax(value))
        share = ((value - fit.spline.low) / (fit.spline.high - fit.spline.low))[:, None]
        moving = slopes - (1 - share) * slopes[first] - share * slopes[last]
        along = fit.spline.slope(value)[:, None] * moving
        return self.root * (self.response - fit.fitted), self.root[:, None] * (
            fit.absorbed(along) - along
        )

    def _metric(self, full: Array) -> tuple[Array, Array]:
        """Weighted residuals (points,) and their Jacobian (points, 5), the line's own included."""
        value, slopes = intrinsic_slopes(full[:3], self.log_n, self.log_e)
        log_m = full[3] + full[4] * value
        rise = (self._returns(log_m + _STEP) - self._returns(log_m - _STEP)) / (2 * _STEP)
        along = np.column_stack([full[4] * slopes, np.ones_like(value), value])
        fitted = self._returns(log_m)
        return self.root * (self.response - fitted), -(self.root * rise)[:, None] * along

    def _returns(self, log_metric: Array) -> Array:
        """Returns, in units of their range, of log metrics."""
        assert self.metric is not None
        return self.metric.points(np.exp(np.clip(log_metric, -_FAR, _FAR))) / self.unit

    def _line(self, theta: Array) -> Array:
        """Where the line starts: through the log metric of a smooth function's values."""
        assert self.metric is not None
        value = intrinsic_slopes(theta, self.log_n, self.log_e)[0]
        fit = fit_spline(value, self.response, self.root**2, self.problem.knots)
        with np.errstate(invalid="ignore", divide="ignore"):
            log_m = np.log(self.metric.of(fit.fitted * self.unit))
        good = np.isfinite(log_m) & (np.abs(log_m) < _FAR)
        if good.sum() < 3:
            return np.array([0.0, 1.0])
        slope, level = np.polyfit(value[good], log_m[good], 1)
        return np.array([level, max(slope, 1e-3)])

    def _descend_isotonic(self, start: Array, fixed: bool) -> tuple[Array, float, bool]:
        """The objective of a step function has no derivative: Nelder and Mead's simplex."""
        from scipy.optimize import minimize

        low, high = self.bounds
        first = start[:1] if fixed else start[:0]
        part = start[1:] if fixed else start

        def objective(x: Array) -> float:
            theta = np.concatenate([first, x])
            inside = np.clip(theta, low, high)
            return self.squares(inside) + float(((theta - inside) ** 2).sum())

        simplex = np.vstack([part, part + 0.15 * np.eye(len(part))])
        found = minimize(
            objective,
            part,
            method="Nelder-Mead",
            options={"initial_simplex": simplex, "xatol": 1e-5, "fatol": 1e-12, "maxfev": 600},
        )
        theta = np.clip(np.concatenate([first, found.x]), low, high)
        return theta, float(found.fun), bool(found.success)


def make_smoothing(log_n: Array, log_e: Array, width: float) -> Array | None:
    """Kernel (points, points) of a running mean: points of one size within `width` in log samples.

    Symmetric on the log scale, so that a straight line in log samples stays as it is away from the
    ends; there the window shrinks to what lies on both sides.
    """
    if width == 0:
        return None
    gap = np.abs(log_e[:, None] - log_e)
    same = log_n[:, None] == log_n
    size_low = np.array([log_e[row].min() for row in same])
    size_high = np.array([log_e[row].max() for row in same])
    half = np.minimum(width / 2, np.minimum(log_e - size_low, size_high - log_e))
    return (same & (gap <= half[:, None] * (1 + 1e-12))).astype(float)


def _logit(p: float) -> float:
    return float(np.log(p / (1 - p)))
