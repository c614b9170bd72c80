"""The two forecasts that any other must beat: nothing changes, and a straight line in log-log."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.crossings import (
    MIN_SIZES,
    Crossings,
    common_flops,
    cross_curves,
    has_curves,
    is_interior,
    near_optimum,
)
from scaling_analysis.estimators.selection import Target, select_rows
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.power import fit_power
from scaling_analysis.laws.profiles import slice_optima
from scaling_analysis.results import Result

Array = NDArray[np.float64]


def fit_persistence(runs: pd.DataFrame, target: Target = "loss") -> "BaselineFit":
    """The best run of the largest budget, forecast to stay as it is at any larger budget.

    Of a log without budgets, the best learning curve at the largest C that three sizes reached.
    """
    return _fit(runs, target, "persistence")


def fit_log_line(runs: pd.DataFrame, target: Target = "loss") -> "BaselineFit":
    """Least squares of log N_opt and of log value on log C through the best run of each budget.

    Of a log without budgets, through the envelope of its learning curves, as `fit_envelope` reads
    it: the best size at each C at which a larger and a smaller one stand beside it.
    """
    return _fit(runs, target, "log-line")


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class BaselineFit(Result):
    """log N_opt = a + b log C and log value_opt = c + d log C; slopes of 0 for persistence.

    Off the optimum, log value = log value_opt + k (log N - log N_opt)^2 with one k for all budgets.
    """

    _error = FitError

    method: Literal["persistence", "log-line"]
    target: str
    rows: pd.DataFrame
    """Rows fitted: those with a budget; all, and no column `budget`, where the log names none."""
    cost: Cost
    """FLOP a sample by size."""
    params_line: Array
    """(2,) or (R, 2): a, b."""
    value_line: Array
    """(2,) or (R, 2): c, d."""
    curvature: Array
    """() or (R,): k; positive for losses, negative for returns."""
    residual_space: str = "log"
    status: FitStatus = FitStatus.OK
    messages: tuple[str, ...] = ()

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The same baseline on R sets of weights or responses, each (R, rows)."""
        one = np.ones((1, len(self.rows)))
        w = one if weights is None else np.asarray(weights, dtype=np.float64)
        y = one * self.rows[self.target].to_numpy(np.float64) if response is None else response
        w, y = np.broadcast_arrays(w, np.asarray(y, dtype=np.float64))
        return replace(self, **_solve(self.rows, self.target, self.method, w, y))

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count]."""
        return _line(self.params_line, flops)

    def samples_opt(self, flops: ArrayLike) -> Array:
        """D_opt(C) [count]."""
        return self.cost.samples(self.params_opt(flops), flops)

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action] or R_opt(C) [points]."""
        return _line(self.value_line, flops)

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Expected value of a run of `params` parameters that spends `flops`.

        `params` of the shape of `params_opt(flops)` are taken replicate by replicate; others
        broadcast with `flops`.
        """
        n, c = np.asarray(params, dtype=np.float64), np.asarray(flops, dtype=np.float64)
        if n.shape != self.curvature.shape + c.shape:
            n, c = np.broadcast_arrays(n, c)
        bend = self.curvature.reshape(self.curvature.shape + (1,) * c.ndim)
        return self.value_opt(c) * np.exp(bend * np.log(n / self.params_opt(c)) ** 2)

    def fitted_values(self) -> Array:
        """Expected value of every fitted row, () or (R,) + (rows,).

        Of learning curves NaN further than a factor of ten from N_opt, as of an envelope.
        """
        n, c = self.rows["params"].to_numpy(), self.rows["flops"].to_numpy()
        found = self.value(n, c)
        if "budget" in self.rows:
            return found
        return np.where(near_optimum(n, self.params_opt(c)), found, np.nan)

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates saw enough budgets."""
        lines = np.concatenate([self.params_line, self.value_line], axis=-1)
        return np.asarray(np.isfinite(lines).all(axis=-1))

    def summary(self) -> str:
        what = "L_opt" if self.target == "loss" else "R_opt"
        if self.params_line.ndim > 1:
            return f"{self.method} baseline, {len(self.params_line)} replicates"
        if self.method == "persistence":
            n, v = np.exp(self.params_line[0]), np.exp(self.value_line[0])
            return f"persistence baseline: N_opt stays {n:.4g}, {what} stays {v:.4g}"
        return (
            f"log-line baseline: N_opt ~ C^{self.params_line[1]:.4f}, "
            f"{what} ~ C^{self.value_line[1]:.4f}, {self._through()}"
        )

    def _through(self) -> str:
        if "budget" in self.rows:
            return f"{self.rows['budget'].nunique()} budgets"
        return f"envelope of {self.rows['run_id'].nunique()} learning curves"

    def to_frame(self) -> pd.DataFrame:
        """One row a budget: flops, params_opt, samples_opt and value_opt by the baseline.

        Where the log names none, one row a C at which its learning curves are compared.
        """
        flops = _slices(self.rows).flops
        return pd.DataFrame(
            {
                "flops": flops,
                "params_opt": self.params_opt(flops),
                "samples_opt": self.samples_opt(flops),
                "value_opt": self.value_opt(flops),
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; arrays as `encode_array` writes them."""
        plain: dict[str, Any] = {"kind": type(self).__name__}
        for name in (f.name for f in fields(self)):
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                value = encode_array(value)
            elif isinstance(value, pd.DataFrame):
                value = encode_frame(value)
            elif isinstance(value, Cost):
                value = value.to_dict()
            plain[name] = value
        return plain

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        values = {f.name: data[f.name] for f in fields(cls)}
        for name in ("params_line", "value_line", "curvature"):
            values[name] = decode_array(values[name])
        values["rows"] = decode_frame(values["rows"])
        values["cost"] = Cost.from_dict(values["cost"])
        values["status"] = FitStatus(values["status"])
        values["messages"] = tuple(values["messages"])
        return cls(**values)


def _fit(
    runs: pd.DataFrame, target: Target, method: Literal["persistence", "log-line"]
) -> BaselineFit:
    needs = ("params", "samples", "flops")
    if "budget" in runs and runs["budget"].notna().any():
        rows = select_rows(runs, target, needs=(*needs, "budget"))
    else:
        rows = select_rows(runs, target, needs=needs).drop(columns="budget", errors="ignore")
        if not has_curves(rows):
            raise FitError(
                f"{method} needs the column 'budget', or learning curves of {MIN_SIZES} sizes: it "
                "compares runs at the same compute"
            )
    values = rows[target].to_numpy(np.float64)
    if np.any(values <= 0):
        raise FitError(
            f"{method} takes logs, and {int((values <= 0).sum())} of {len(rows)} rows have a "
            f"{target} of 0 or less; measure {target} from the value of a random policy"
        )
    solved = _solve(rows, target, method, np.ones((1, len(rows))), values[None])
    fit = BaselineFit(
        method=method,
        target=target,
        rows=rows,
        cost=fit_cost(rows["params"], rows["samples"], rows["flops"]),
        params_line=solved["params_line"][0],
        value_line=solved["value_line"][0],
        curvature=np.asarray(solved["curvature"][0]),
    )
    if not fit.valid():
        if "budget" in rows:
            least, got = 2 if method == "log-line" else 1, rows["budget"].nunique()
            raise FitError(f"{method} needs at least {least} budgets, got {got}")
        raise FitError(
            f"{method} needs two points of the learning curves at which the best size has a "
            "larger and a smaller one beside it: run more sizes, or longer"
        )
    return fit


def _slices(rows: pd.DataFrame) -> Crossings:
    """What is compared at equal compute: the rows of a budget, or else the learning curves."""
    if "budget" not in rows:
        return cross_curves(rows, common_flops(rows))
    flops, point = np.unique(rows["budget"].to_numpy(np.float64), return_inverse=True)
    each = np.arange(len(rows))
    return Crossings(flops=flops, point=point, left=each, right=each, share=np.zeros(len(rows)))


def _solve(
    rows: pd.DataFrame, target: str, method: str, weights: Array, response: Array
) -> dict[str, Array]:
    """Lines and curvature for every replicate."""
    slices = _slices(rows)
    flops = slices.flops
    response, weights = slices.values(response, log_space=True), slices.weights(weights)
    log_n_rows = np.log(rows["params"].to_numpy(np.float64))[slices.left]
    pooling = _pooling(rows, target)[slices.left]
    n_replicates = max(len(weights), len(response))
    log_n = np.full((n_replicates, flops.size), np.nan)
    log_y = np.full((n_replicates, flops.size), np.nan)
    for g in range(flops.size):
        at = np.flatnonzero(slices.point == g)
        sizes, cell = np.unique(log_n_rows[at], return_inverse=True)
        best = slice_optima(
            sizes,
            cell,
            response[:, at],
            weights[:, at],
            pooling[at],
            optimum="grid",
            maximise=target != "loss",
            log_space=True,
            window=None,
        )
        log_n[:, g], log_y[:, g] = best.log_params, np.log(best.value)
        if "budget" not in rows and method == "log-line":
            # Curves begin and end with their size: at the ends the best one is just what was run.
            log_n[~is_interior(best.cell, weights[:, at], cell), g] = np.nan
    x = np.log(flops)
    if method == "persistence":
        last = flops.size - 1 - np.argmax(np.isfinite(log_n)[:, ::-1], axis=1)
        pick = np.arange(n_replicates), last
        zero = np.zeros(n_replicates)
        params_line = np.stack([log_n[pick], zero], axis=1)
        value_line = np.stack([log_y[pick], zero], axis=1)
    else:
        found = np.isfinite(log_n).astype(np.float64)
        params_line = np.stack(fit_power(x, log_n, found), axis=1)
        value_line = np.stack(fit_power(x, log_y, found), axis=1)
    away = (log_n_rows - log_n[:, slices.point]) ** 2
    rise = np.log(response) - log_y[:, slices.point]
    known = np.isfinite(away) & np.isfinite(rise)
    away, rise = np.where(known, away, 0.0), np.where(known, rise, 0.0)
    spread = np.sum(weights * away**2, axis=1)
    curvature = np.divide(
        np.sum(weights * away * rise, axis=1),
        spread,
        out=np.zeros(n_replicates),
        where=spread > 0,
    )
    return {"params_line": params_line, "value_line": value_line, "curvature": curvature}


def _pooling(rows: pd.DataFrame, target: str) -> Array:
    """What a row counts for when the runs of one size are averaged."""
    if target == "mean_return" and "episodes" in rows and rows["episodes"].notna().all():
        return rows["episodes"].to_numpy(np.float64)
    return np.ones(len(rows))


def _line(coefficients: Array, flops: ArrayLike) -> Array:
    """exp(a + b log C), () or (R,) + the shape of `flops`."""
    x = np.log(np.asarray(flops, dtype=np.float64))
    a, b = coefficients[..., 0], coefficients[..., 1]
    shape = a.shape + (1,) * x.ndim
    return np.exp(a.reshape(shape) + b.reshape(shape) * x)
