"""Influence: what every fit says without one run, one size or one budget."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scaling_analysis.errors import FitError, ForecastError
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.members import BASELINES, Methods, log_value, resolve_methods

Unit = Literal["run_id", "params", "budget"]


def influence(
    runs: pd.DataFrame,
    flops: ArrayLike,
    unit: Unit = "params",
    methods: Methods | None = None,
    *,
    target: Target = "loss",
) -> pd.DataFrame:
    """Refit every method without each run, size or budget in turn.

    Parameters
    ----------
    runs : DataFrame
        A run log.
    flops : array_like
        Budgets at which the forecasts are compared [FLOP].
    unit : "run_id", "params" or "budget"
        What is left out, one at a time.
    methods : iterable of names or mapping, optional
        As in `forecast`.

    Returns
    -------
    DataFrame
        method, left_out (the run, size or budget; None for the whole log), flops, params_opt,
        value_opt, params_change, value_change (log ratio to the whole log), valid (False where the
        rest does not determine the law; its numbers are NaN). Largest changes of N_opt first.

    Examples
    --------
    >>> table = influence(runs, 1e13, "budget", ["isoflop-vertex"])
    >>> table[["left_out", "params_change", "value_change"]].shape    # the log and each budget
    (6, 3)
    """
    budgets = np.atleast_1d(np.asarray(flops, dtype=np.float64))
    chosen = resolve_methods(methods, target)
    parts, refusals = [], []
    for name, estimator in chosen.items():
        if name in BASELINES:
            continue
        try:
            fit = estimator(runs)
        except FitError as error:
            refusals.append(f"{name}: {error}")
            continue
        if unit not in fit.rows or fit.rows[unit].isna().all():
            raise ForecastError(f"unit={unit!r}: the fitted rows have no such column")
        values = fit.rows[unit].to_numpy()
        units = pd.unique(fit.rows[unit].dropna())
        kept = np.array([values != one for one in units], dtype=np.float64)
        left_out = fit.refit(weights=np.vstack([np.ones((1, len(values))), kept]))
        valid = np.asarray(left_out.valid())
        found = {}
        for quantity in ("params_opt", "value_opt"):
            log = log_value(left_out, quantity, budgets)
            found[quantity] = np.where(valid[:, None], log, np.nan)
        for i, one in enumerate([None, *units]):
            parts.append(
                pd.DataFrame(
                    {
                        "method": name,
                        "left_out": one,
                        "flops": budgets,
                        "params_opt": np.exp(found["params_opt"][i]),
                        "value_opt": np.exp(found["value_opt"][i]),
                        "params_change": found["params_opt"][i] - found["params_opt"][0],
                        "value_change": found["value_opt"][i] - found["value_opt"][0],
                        "valid": bool(valid[i]),
                    }
                ).astype({"left_out": object})
            )
    if not parts:
        raise ForecastError("no method could be fitted: " + "; ".join(refusals))
    table = pd.concat(parts, ignore_index=True)
    order = table["params_change"].abs().fillna(np.inf).to_numpy()
    return table.iloc[np.argsort(-order, kind="stable")].reset_index(drop=True)
