"""The fitted law of intrinsic performance: frontier, returns, intrinsic performance of any run."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.intrinsic_problem import (
    EXPONENTS,
    SAMPLE_EXPONENTS,
    TABLE,
    CurveProblem,
    Inner,
    Solution,
    solve_chunk,
)
from scaling_analysis.estimators.intrinsic_rows import state_problem
from scaling_analysis.estimators.metrics import Metric
from scaling_analysis.laws.cost import Cost
from scaling_analysis.laws.intrinsic import IntrinsicLaw
from scaling_analysis.processes import has_company, processes, spread, usable_cores
from scaling_analysis.results import Result

Array = NDArray[np.float64]
Beyond = Literal["refuse", "nan"]

_CHUNK = 16
_WORTH_PROCESSES = 128
"""Fewer replicates are solved before a process has started."""
_FIELDS = ("low", "high", "table", "line", "squares", "total", "sound")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class IntrinsicFit(Result):
    """Law of intrinsic performance with the return as a function of it; a `FrontierFit`.

    Arrays are () or, for replicates, (R,) in front.
    """

    _error = FitError

    inner: Inner
    """The return as a function of log I: a "smooth" spline that never falls, an "isotonic" step
    function, or through a "metric" whose logarithm is a straight line in log I."""
    rows: pd.DataFrame
    """Rows of the run log that were fitted, in the order of weights and responses."""
    size: str
    """Column that stood for N."""
    dropped: float
    """Share of each run's samples that was left out at its start."""
    smoothing: float
    """Width of the running mean along the curves, in log samples; 0 for none."""
    knots: int
    """Coefficients of the smooth function."""
    law: IntrinsicLaw
    """alpha_N, alpha_E and N*(C)."""
    cost: Cost
    """Counted FLOP a sample over N."""
    environment_params: float
    """N_e: what a sample costs beside the model, in parameters; C = k (N + N_e) E."""
    metric: Metric | None
    """Natural metric of the return, or None."""
    low: Array
    """Least log I [FLOP] among the points."""
    high: Array
    """Greatest log I [FLOP] among them."""
    table: Array
    """(..., TABLE): return [points] at equidistant log I from `low` to `high`."""
    line: Array
    """(..., 2): intercept and slope of the log metric over log I; NaN without a metric."""
    squares: Array
    """Sum of squared residuals of the averaged curves [points^2]."""
    total: Array
    """The same around their mean."""
    sound: NDArray[np.bool_]
    """Whether the optimum converged inside its bounds."""
    reference: IntrinsicLaw
    """Law of the runs as they are: what the reach of a replicate is judged by."""
    reach: float
    """Greatest log I [FLOP] of the runs as they are: that of the highest observed return."""
    rivals: Mapping[str, float]
    """Exponent of N* with other functions of log I, by name."""
    near: tuple[float, float]
    """Exponents of N* whose sum of squares is within 5 % of the least."""
    beyond: Beyond
    """What is given beyond the reach without a metric: an error ("refuse") or NaN ("nan")."""
    both_sides: bool
    """Whether replicates are also started on both sides of the optimum."""
    status: FitStatus
    messages: tuple[str, ...]
    """What a reader must know, reasons for doubt first."""
    workers: int | None = field(default=None, repr=False)
    """Processes for replicates; None for one a core."""

    @property
    def method(self) -> str:
        return f"intrinsic-{self.inner}"

    @property
    def target(self) -> str:
        return "mean_return"

    @property
    def residual_space(self) -> str:
        """Always "linear": residuals in log I would have a degenerate optimum."""
        return "linear"

    @property
    def params_exponent(self) -> Array:
        """a in N* ~ C^a without environment cost, () or (R,)."""
        return self.law.params_exponent

    @property
    def r_squared(self) -> Array:
        """Share of the variance of the averaged curves that is explained, in return space."""
        return 1 - self.squares / self.total

    def with_environment(self, params: float) -> Self:
        """The same fit where a sample costs as much as `params` parameters beside the model."""
        if not (np.isfinite(params) and params >= 0):
            raise FitError(f"environment_params is {params!r}: give a count, 0 or more")
        return replace(self, environment_params=float(params))

    def intrinsic(self, params: ArrayLike, samples: ArrayLike) -> Array:
        """I [FLOP]: the compute at which the best size is as good as N `params` after `samples`."""
        n, d = np.asarray(params, dtype=float), np.asarray(samples, dtype=float)
        return np.exp(self.law.log_intrinsic(n, d))

    def flops_for(self, mean_return: ArrayLike) -> Array:
        """I [FLOP] of a return: the least compute that reaches it; inverse of `value_opt`.

        Without environment cost. NaN for a return above all observed ones, unless a natural metric
        was fitted, and for one below the function's lowest value.
        """
        y = np.asarray(mean_return, dtype=float)
        if self.metric is not None:
            level, slope = (_lift(self.line[..., i], y.ndim) for i in (0, 1))
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.exp((np.log(self.metric.of(y)) - level) / slope)
        flat, tables = np.atleast_1d(y).ravel(), self.table.reshape(-1, TABLE)
        # The first point of the table that reaches y; y lies between it and the one before.
        after = np.stack([np.searchsorted(values, flat) for values in tables])
        inside = np.clip(after, 1, TABLE - 1)
        left, right = (np.take_along_axis(tables, inside - k, axis=1) for k in (1, 0))
        share = (flat - left) / np.where(right > left, right - left, 1.0)
        known = (flat >= tables[:, :1]) & (flat <= tables[:, -1:])
        place = (inside - 1 + np.clip(share, 0.0, 1.0)) / (TABLE - 1)
        low, high = self.low.reshape(-1, 1), self.high.reshape(-1, 1)
        found = np.where(known, np.exp(low + place * (high - low)), np.nan)
        return found.reshape(self.squares.shape + y.shape)

    def params_opt(self, flops: ArrayLike) -> Array:
        """N*(C) [count], under the counted cost and the environment's: () or (R,) + its shape."""
        return self.law.params_opt(flops, self.cost, self.environment_params)

    def samples_opt(self, flops: ArrayLike) -> Array:
        """E*(C) [count], interactions included that the environment's cost leaves."""
        return self.law.samples_opt(flops, self.cost, self.environment_params)

    def value_opt(self, flops: ArrayLike) -> Array:
        """R*(C) [points]; beyond the highest observed return only with a natural metric."""
        n, judge = self.params_opt(flops), self.reference.params_opt(flops, *self._budget)
        d = self.law.samples(n, flops, *self._budget)
        known = self.reference.samples(judge, flops, *self._budget)
        return self._value(
            self.law.log_intrinsic(n, d, own=True), self.reference.log_intrinsic(judge, known)
        )

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Expected return of runs of N `params` that spend C `flops`; the inputs broadcast.

        In a fit of R replicates, `params` of shape (R,) + that of `flops` belong to the replicates.
        """
        n, c = np.asarray(params, dtype=float), np.asarray(flops, dtype=float)
        own = self.squares.ndim == 1 and n.shape == self.squares.shape + c.shape
        d = self.law.samples(n, c, *self._budget)
        return self._value(
            self.law.log_intrinsic(n, d, own=own), self.reference.log_intrinsic(n, d)
        )

    def fitted_values(self) -> Array:
        """Expected return of the rows [points], (rows,) or (R, rows)."""
        return self._value(self._row_intrinsic(self.law), self._row_intrinsic(self.reference))

    def checkpoints(self) -> pd.DataFrame:
        """Every fitted row with its intrinsic performance.

        Columns run_id, params, samples, flops, mean_return, fitted [points], intrinsic [FLOP] (of N
        and E, by the law), intrinsic_of_return [FLOP] (of the observed return), efficiency (I/C:
        1 on the frontier).
        """
        rows = self.rows[["run_id", "params", "samples", "flops", "mean_return"]]
        log_i = self._row_intrinsic(self.law)
        return rows.assign(
            fitted=self.fitted_values(),
            intrinsic=np.exp(log_i),
            intrinsic_of_return=self.flops_for(rows["mean_return"]),
            efficiency=np.exp(log_i) / rows["flops"].to_numpy(dtype=float),
        )

    def to_frame(self) -> pd.DataFrame:
        """`checkpoints`; of replicates, their parameters."""
        if self.squares.ndim == 0:
            return self.checkpoints()
        law = self.law
        return pd.DataFrame(
            {
                "params_exponent": law.params_exponent,
                "sample_exponent": law.sample_exponent,
                "r_squared": self.r_squared,
                "valid": self.sound,
            }
        )

    def frontier(self, flops: ArrayLike) -> pd.DataFrame:
        """The efficient frontier: flops, params, samples, environment_share, mean_return.

        `environment_share` is the part of the compute that the environment takes; mean_return is
        NaN beyond the highest observed one unless a natural metric was fitted.
        """
        c = np.atleast_1d(np.asarray(flops, dtype=float))
        n = self.params_opt(c)
        model = self.cost.flops_per_sample(n)
        extra = self.law.cost_constant * self.environment_params
        return pd.DataFrame(
            {
                "flops": c,
                "params": n,
                "samples": self.samples_opt(c),
                "environment_share": extra / (model + extra),
                "mean_return": replace(self, beyond="nan").value_opt(c),
            }
        )

    def refit(
        self, weights: ArrayLike | None = None, response: ArrayLike | None = None
    ) -> "IntrinsicFit":
        """The law refitted to R sets of weights or of responses, (R, rows) or (rows,) each.

        Each replicate starts from this optimum; many of them are shared out among processes.
        """
        if self.squares.ndim:
            raise FitError("these are replicates already: refit the fit that they came from")
        count = len(self.rows)
        base = self.rows["mean_return"].to_numpy(dtype=float)
        w = np.atleast_2d(np.ones(count) if weights is None else np.asarray(weights, dtype=float))
        y = np.atleast_2d(base if response is None else np.asarray(response, dtype=float))
        for name, values in (("weights", w), ("response", y)):
            if values.shape[1:] != (count,) or len(values) not in (1, max(len(w), len(y))):
                raise FitError(f"{name} has shape {values.shape}, the fit {count} rows")
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise FitError("weights must be finite and not negative")
        shape = (max(len(w), len(y)), count)
        w, y = np.broadcast_to(w, shape), np.broadcast_to(y, shape)
        possible = (np.isfinite(y) | (w == 0)).all(axis=1)
        y = np.where(np.isfinite(y), y, base)
        problem = state_problem(self)
        solution = _solve(problem, self._theta(), y, w, self.workers)
        fit = settle(self, problem, solution)
        return replace(
            fit,
            sound=fit.sound & possible,
            rivals={},
            near=(np.nan, np.nan),
            status=FitStatus.OK,
            messages=(),
        )

    def valid(self) -> NDArray[np.bool_]:
        return self.sound

    def replicate(self, i: int) -> Self:
        """One replicate, without the leading axis."""
        own = {name: np.asarray(getattr(self, name)[i]) for name in _FIELDS}
        return replace(self, law=self.law.replicate(i), **own)

    def summary(self) -> str:
        """Status and messages first, then the law, the frontier and how well it is known."""
        from scaling_analysis.estimators.intrinsic_findings import summarise

        return summarise(self)

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept."""
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "inner": self.inner,
            "rows": encode_frame(self.rows),
            "size": self.size,
            "dropped": self.dropped,
            "smoothing": self.smoothing,
            "knots": self.knots,
            "law": self.law.to_dict(),
            "cost": self.cost.to_dict(),
            "environment_params": self.environment_params,
            "metric": None if self.metric is None else self.metric.to_dict(),
            **{name: encode_array(getattr(self, name)) for name in _FIELDS},
            "reference": self.reference.to_dict(),
            "reach": self.reach,
            "rivals": dict(self.rivals),
            "near": [None if np.isnan(v) else v for v in self.near],
            "beyond": self.beyond,
            "both_sides": self.both_sides,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        near = [np.nan if v is None else float(v) for v in data["near"]]
        return cls(
            inner=data["inner"],
            rows=decode_frame(data["rows"]),
            size=data["size"],
            dropped=data["dropped"],
            smoothing=data["smoothing"],
            knots=data["knots"],
            law=IntrinsicLaw.from_dict(data["law"]),
            cost=Cost.from_dict(data["cost"]),
            environment_params=data["environment_params"],
            metric=None if data["metric"] is None else Metric.from_dict(data["metric"]),
            **{name: decode_array(data[name]) for name in _FIELDS},
            reference=IntrinsicLaw.from_dict(data["reference"]),
            reach=data["reach"],
            rivals=data["rivals"],
            near=(near[0], near[1]),
            beyond=data["beyond"],
            both_sides=data["both_sides"],
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
            workers=None,
        )

    @property
    def _budget(self) -> tuple[Cost, float]:
        return self.cost, self.environment_params

    def _row_intrinsic(self, law: IntrinsicLaw) -> Array:
        return law.log_intrinsic(
            *(self.rows[name].to_numpy(float) for name in ("params", "samples"))
        )

    def _theta(self) -> Array:
        """The parameters as the solver has them."""
        problem = state_problem(self)
        a = float(self.law.params_exponent)
        theta = [np.log(a / (1 - a)), self.law.log_sample_exponent, self.law.log_params]
        return np.array(theta, dtype=float) - [0.0, 0.0, problem.middle]

    def _value(self, log_i: Array, judged: Array) -> Array:
        """The return at log I; `judged` is log I under the law of the runs as they are."""
        if self.metric is not None:
            extra = log_i.ndim - self.squares.ndim
            level, slope = (_lift(self.line[..., i], extra) for i in (0, 1))
            return self.metric.points(np.exp(np.clip(level + slope * log_i, -300.0, 300.0)))
        known = judged <= self.reach + 1e-9
        if self.beyond == "refuse" and not known.all():
            highest = self.table[..., -1] if self.squares.ndim == 0 else np.nan
            raise FitError(
                f"C = {np.exp(judged[~known].max()):.4g} FLOP, well spent, is beyond the highest "
                f"return that was observed (I = {np.exp(self.reach):.4g} FLOP"
                + (f", {float(highest):.4g} points" if np.isfinite(highest) else "")
                + "): a monotone function says nothing there. Fit natural=..., a metric in which "
                "the return is a power law; or beyond='nan', if only sizes are to be forecast"
            )
        extra = log_i.ndim - self.squares.ndim
        low, high = _lift(self.low, extra), _lift(self.high, extra)
        place = np.clip((log_i - low) / (high - low), 0.0, 1.0) * (TABLE - 1)
        # A replicate that is no fit has no place: its value is NaN, and it must not look one up.
        i = np.minimum(np.nan_to_num(place).astype(np.intp), TABLE - 2)
        if self.squares.ndim == 0:
            left, right = self.table[i], self.table[i + 1]
        else:
            flat = i.reshape(len(i), -1)
            left, right = (
                np.take_along_axis(self.table, flat + k, axis=1).reshape(i.shape) for k in (0, 1)
            )
        value = left + (place - i) * (right - left)
        return np.where(known, value, np.nan)


def settle(fit: IntrinsicFit, problem: CurveProblem, found: Solution) -> IntrinsicFit:
    """The fit with the solver's optima, in natural units; the parameters have a leading axis."""
    a = 1 / (1 + np.exp(-found.theta[:, 0]))
    alpha = np.exp(found.theta[:, 1])
    shift = np.log(fit.law.flops_ref)
    reach = 0.999 * problem.log_params_reach
    inside = (a > EXPONENTS[0] * 1.01) & (a < 1 - (1 - EXPONENTS[1]) * 1.01)
    inside &= (alpha > SAMPLE_EXPONENTS[0] * 1.01) & (alpha < SAMPLE_EXPONENTS[1] * 0.99)
    inside &= np.abs(found.theta[:, 2]) < reach
    line = found.line.copy()
    line[:, 0] -= line[:, 1] * shift
    return replace(
        fit,
        law=replace(
            fit.law,
            params_exponent=a,
            log_sample_exponent=found.theta[:, 1],
            log_params=found.theta[:, 2] + problem.middle,
        ),
        low=found.low + shift,
        high=found.high + shift,
        table=found.table,
        line=line,
        squares=found.squares,
        total=found.total,
        sound=found.converged & inside,
    )


def _solve(
    problem: CurveProblem, start: Array, responses: Array, weights: Array, workers: int | None
) -> Solution:
    """Optima of all replicates, in chunks."""
    jobs = [
        (problem, start, responses[i : i + _CHUNK], weights[i : i + _CHUNK])
        for i in range(0, len(responses), _CHUNK)
    ]
    count = usable_cores() if workers is None else workers
    own = len(responses) >= _WORTH_PROCESSES and not has_company()
    with processes(count) if own else nullcontext():
        sizes = [len(job[2]) for job in jobs]
        parts = spread(solve_chunk, jobs, label="intrinsic fits", sizes=sizes)
    return Solution(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _lift(parameter: Array, ndim: int) -> Array:
    parameter = np.asarray(parameter)
    return parameter.reshape(parameter.shape + (1,) * ndim)
