"""Which rows of a run log a fit may use."""

from collections.abc import Iterable
from typing import Literal

import numpy as np
import pandas as pd

from scaling_analysis.errors import FitError
from scaling_analysis.runlog import select, usable

Target = Literal["loss", "mean_return"]
_KEEP = ("run_id", "params", "samples", "flops", "budget", "unique_samples", "episodes", "seed")
_STANDARD_ERROR = {"loss": "loss_se", "mean_return": "return_se"}


def select_rows(
    runs: pd.DataFrame,
    target: Target,
    *,
    needs: Iterable[str] = ("params", "samples", "flops"),
    size: str = "params",
) -> pd.DataFrame:
    """The rows and columns that a fit of `target` and its bootstrap use, with a fresh index.

    Parameters
    ----------
    runs : DataFrame
        A run log of one agent and one task; rows with another status than "ok" or without a finite
        target stay out.
    target : "loss" or "mean_return"
    needs : iterable of str
        Columns of positive, finite numbers; rows without a value there stay out.
    size : str
        The column that stands for N, such as "params_core". It is called `params` in the result.

    Raises
    ------
    FitError
        A column is missing, a value in it is not positive, or no row is left.
    RunLogError
        The log is no run log, or mixes agents, tasks or, for returns, evaluation protocols.
    """
    if target not in _STANDARD_ERROR:
        raise FitError(f"target is {target!r}: choose 'loss' or 'mean_return'")
    rows = select(usable(runs, target))
    if size != "params":
        if size not in rows:
            raise FitError(f"size={size!r}: the run log has no such column")
        rows = rows.assign(params=rows[size])
    for name in needs:
        if name not in rows:
            without = "fit_intrinsic(runs)" if target == "mean_return" else "fit_parametric(runs)"
            remedy = f"; {without} needs none" if name == "budget" else ""
            raise FitError(
                f"this fit needs the column {name!r}, which the run log does not have{remedy}"
            )
        rows = rows[rows[name].notna()]
        values = rows[name].to_numpy(dtype=float)
        bad = ~(np.isfinite(values) & (values > 0))
        if bad.any():
            at = int(np.argmax(bad))
            raise FitError(
                f"{name} is {values[at]:g} in row {rows.index[at]}: it must be positive and "
                "finite; mend the row or set its status to 'excluded'"
            )
    if rows.empty:
        raise FitError(f"no row has a value in each of {', '.join(needs)}")
    keep = dict.fromkeys([*_KEEP, *needs, target, _STANDARD_ERROR[target]])
    return rows[[name for name in keep if name in rows]].reset_index(drop=True)
