"""The two forecasts that any other must beat: nothing changes, and a straight line in log-log."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.selection import Target, select_rows
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.power import fit_power
from scaling_analysis.laws.profiles import slice_optima
from scaling_analysis.results import Result

Array = NDArray[np.float64]


def fit_persistence(runs: pd.DataFrame, target: Target = "loss") -> "BaselineFit":
    """The best run of the largest budget, forecast to stay as it is at any larger budget."""
    return _fit(runs, target, "persistence")


def fit_log_line(runs: pd.DataFrame, target: Target = "loss") -> "BaselineFit":
    """Least squares of log N_opt and of log value on log C through the best run of each budget."""
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
    """Rows fitted: those with a budget at which at least one size was run."""
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
        """Expected value of every fitted row, () or (R,) + (rows,)."""
        return self.value(self.rows["params"].to_numpy(), self.rows["flops"].to_numpy())

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
            f"{what} ~ C^{self.value_line[1]:.4f}, {self.rows['budget'].nunique()} budgets"
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a budget: flops, params_opt, samples_opt and value_opt by the baseline."""
        flops = np.unique(self.rows["flops" if "budget" not in self.rows else "budget"])
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
    rows = select_rows(runs, target, needs=("params", "samples", "flops", "budget"))
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
        raise FitError(
            f"{method} needs at least {2 if method == 'log-line' else 1} budgets, "
            f"got {rows['budget'].nunique()}"
        )
    return fit


def _solve(
    rows: pd.DataFrame, target: str, method: str, weights: Array, response: Array
) -> dict[str, Array]:
    """Lines and curvature for every replicate."""
    flops, budget_of_row = np.unique(rows["budget"].to_numpy(np.float64), return_inverse=True)
    log_n_rows = np.log(rows["params"].to_numpy(np.float64))
    pooling = _pooling(rows, target)
    n_replicates = max(len(weights), len(response))
    log_n = np.full((n_replicates, flops.size), np.nan)
    log_y = np.full((n_replicates, flops.size), np.nan)
    for b in range(flops.size):
        at = np.flatnonzero(budget_of_row == b)
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
        log_n[:, b], log_y[:, b] = best.log_params, np.log(best.value)
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
    away = (log_n_rows - log_n[:, budget_of_row]) ** 2
    rise = np.log(response) - log_y[:, budget_of_row]
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
