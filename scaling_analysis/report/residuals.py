"""What the fits leave unexplained: residuals row by row, and optima against the laws."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import ReportError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.report.sources import observed_optima

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Residuals:
    """Residuals of one fit."""

    method: str
    target: str
    space: Literal["log", "linear"]
    """"log": residual = log(observed / fitted); "linear": their difference."""
    rows: pd.DataFrame
    """run_id, params, flops, observed, fitted, residual; rows without a fitted value are left
    out."""

    @property
    def rms(self) -> float:
        """Root mean square of the residuals."""
        return float(np.sqrt(np.mean(self.rows["residual"] ** 2)))

    @property
    def run_share(self) -> float:
        """Share of the variance that the rows of a run have in common, 0 to 1; NaN without
        repeated rows. Intraclass correlation by one-way analysis of variance."""
        groups = self.rows.groupby("run_id")["residual"]
        size = groups.size().to_numpy(np.float64)
        total, runs = size.sum(), len(size)
        if runs < 2 or total == runs:
            return np.nan
        mean = groups.mean().to_numpy()
        between = float(size @ (mean - self.rows["residual"].mean()) ** 2) / (runs - 1)
        within = float(((self.rows["residual"] - groups.transform("mean")) ** 2).sum())
        within /= total - runs
        usual = (total - (size**2).sum() / total) / (runs - 1)
        component = max((between - within) / usual, 0.0)
        return component / (component + within) if component + within > 0 else np.nan

    def at_the_end(self) -> tuple[float, float]:
        """Mean residual of the largest eighth of compute, and its standard error by runs."""
        edge = self.rows["flops"].quantile(0.875)
        last = self.rows[self.rows["flops"] >= edge * (1 - 1e-9)]
        by_run = last.groupby("run_id")["residual"].mean()
        error = float(by_run.std(ddof=1) / np.sqrt(len(by_run))) if len(by_run) > 1 else np.nan
        return float(by_run.mean()), error


def residuals_of(fit: Any) -> Residuals:
    """Residuals of anything with `rows`, `target` and `fitted_values()`, or a bootstrap of one."""
    fit = fit.fit if isinstance(fit, Bootstrap) else fit
    rows, target = fit.rows, fit.target
    observed = rows[target].to_numpy(np.float64)
    fitted = np.asarray(fit.fitted_values(), dtype=np.float64)
    if fitted.shape != observed.shape:
        raise ReportError("give a fit, or a bootstrap, not its replicates")
    known = np.isfinite(fitted)
    if not known.any():
        raise ReportError(f"{fit.method} has no fitted value for any row")
    logs = bool((observed[known] > 0).all() and (fitted[known] > 0).all())
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = np.log(observed / fitted) if logs else observed - fitted
    names = ["run_id", "params", "flops"]
    table = rows[names].assign(observed=observed, fitted=fitted, residual=residual)[known]
    return Residuals(
        method=fit.method,
        target=target,
        space="log" if logs else "linear",
        rows=table.reset_index(drop=True),
    )


def misfit_of(forecast: Forecast, target: str) -> pd.DataFrame:
    """method, flops, observed, law, residual: optima of the budgets over the laws, in logs."""
    optima = observed_optima(forecast, target)
    members = forecast.ensemble.losses if target == "loss" else forecast.ensemble.returns
    parts = []
    for name, member in members.items():
        if name in BASELINES or optima.empty:
            continue
        law = np.asarray(member.fit.value_opt(optima["flops"].to_numpy()), dtype=np.float64)
        observed = optima["value"].to_numpy(np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            residual = np.log(observed / law)
        parts.append(
            pd.DataFrame(
                {
                    "method": name,
                    "flops": optima["flops"],
                    "observed": observed,
                    "law": law,
                    "residual": residual,
                }
            )
        )
    columns = ["method", "flops", "observed", "law", "residual"]
    table = pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)
    return table[np.isfinite(table["residual"].to_numpy(np.float64))].reset_index(drop=True)
