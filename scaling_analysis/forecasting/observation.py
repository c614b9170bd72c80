"""What a log itself says about each of its budgets: the optimum there, and the runs around it."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.estimators.selection import Target, select_rows

Array = NDArray[np.float64]

OBSERVED_COLUMNS = ("quantity", "budget", "params", "flops", "observed", "observed_se")
WITHIN = 4.0
"""Runs of sizes within this factor of a budget's own optimum are scored by a hindcast."""
_WINDOW = 5
"""Sizes around the best one that a budget's own optimum is read from: a local parabola is less
biased by an asymmetric profile than one through all sizes."""
_FLATTEST = 0.01
_ENOUGH_DOF = 3
_BIN = 3.0
"""Runs without budgets are grouped into ranges of this factor of compute."""


def observe(runs: pd.DataFrame, target: Target, within: float) -> pd.DataFrame:
    """Observed optimum of each budget, and mean of the runs of each size near it, all in logs.

    Returns
    -------
    DataFrame
        Columns `OBSERVED_COLUMNS`. `quantity` is "params_opt", "value_opt" (the vertex of a local
        parabola in log value; only where it is interior) or "value" (mean over the runs of one
        size, only sizes within a factor `within` of the optimum). `observed` and its standard error
        are logs. A log without budgets has "value" rows only, grouped by compute.
    """
    rows, nominal = grouped_rows(runs, target), has_budgets(runs)
    noise = seed_noise(rows, target).sd
    rows = rows.assign(log_value=np.log(rows[target].to_numpy(np.float64)))
    found = []
    for budget, at in rows.groupby("budget", sort=True):
        centre = None
        if nominal:
            centre, log_n, log_v = _optimum(at, target, noise)
            if np.isfinite(log_n[0]):
                centre = log_n[0]
                found.append(("params_opt", budget, np.nan, budget, *log_n))
                found.append(("value_opt", budget, np.nan, budget, *log_v))
        for size in np.sort(at["params"].unique()):
            cell = at[at["params"] == size]
            if centre is not None and abs(np.log(size) - centre) > np.log(within):
                continue
            flops = float(np.exp(np.log(cell["flops"]).mean()))
            se = noise / np.sqrt(cell["run_id"].nunique())
            found.append(("value", budget, size, flops, cell["log_value"].mean(), se))
    frame = pd.DataFrame(found, columns=list(OBSERVED_COLUMNS))
    return frame.astype(dict.fromkeys(OBSERVED_COLUMNS[1:], np.float64))


def trend_until(observed: pd.DataFrame, quantity: str, flops: float) -> float:
    """Change of a log value that a factor e of compute has brought, in the budgets up to `flops`.

    The absolute slope of a line through the median of the observed sizes of each budget, at least
    1 % a factor e. It is the unit of law errors: a flat quantity is easier to forecast than a
    steep one. N_opt is measured in log C itself (1).

    `observed` are rows of `observe`.
    """
    if quantity == "params_opt":
        return 1.0
    cells = observed[(observed["quantity"] == "value") & (observed["budget"] <= flops)]
    by_budget = cells.groupby("budget")["observed"].median()
    if len(by_budget) < 2:
        return _FLATTEST
    x = np.log(by_budget.index.to_numpy(np.float64))
    return max(abs(float(np.polyfit(x, by_budget.to_numpy(np.float64), 1)[0])), _FLATTEST)


def grouped_rows(runs: pd.DataFrame, target: Target) -> pd.DataFrame:
    """The usable rows of positive value, each with a budget: its own or its range of compute."""
    rows = select_rows(runs, target)
    rows = rows[rows[target] > 0]
    if has_budgets(runs):
        return rows[rows["budget"].notna()]
    return rows.assign(budget=_compute_bins(rows["flops"].to_numpy(np.float64)))


def has_budgets(rows: pd.DataFrame) -> bool:
    """Whether a log's rows stand for nominal budgets."""
    return "budget" in rows and bool(rows["budget"].notna().any())


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """Spread of the log value of single runs around their expectation."""

    sd: float
    """Standard deviation between runs of one size at one budget; 0 where no size was repeated."""
    dof: int
    """Degrees of freedom behind it: distinct runs less distinct sizes, not checkpoints."""


def seed_noise(rows: pd.DataFrame, target: Target) -> Noise:
    """Noise of a run from those of one size at one budget.

    From the larger half of the budgets where they hold at least three degrees of freedom, since it
    is larger runs whose noise is asked for; otherwise from all.
    """
    rows = rows.assign(log_value=np.log(rows[target].to_numpy(np.float64)))
    late = rows[rows["budget"] >= rows["budget"].median()]
    return next((n for n in map(_noise, (late, rows)) if n.dof >= _ENOUGH_DOF), _noise(rows))


def _noise(rows: pd.DataFrame) -> Noise:
    one_a_run = rows.groupby(["budget", "params", "run_id"])["log_value"].mean()
    cells = one_a_run.groupby(level=["budget", "params"])
    one_a_run = one_a_run[(cells.transform("count") > 1).to_numpy()]
    if one_a_run.empty:
        return Noise(sd=0.0, dof=0)
    cells = one_a_run.groupby(level=["budget", "params"])
    squares = ((one_a_run - cells.transform("mean")) ** 2).sum()
    distinct = one_a_run.index.to_frame().nunique()
    within = len(one_a_run) - len(cells)
    # A run that is evaluated at six budgets is not six runs.
    dof = min(within, max(int(distinct["run_id"] - distinct["params"]), 1))
    return Noise(sd=float(np.sqrt(squares / within)), dof=dof)


def _compute_bins(flops: Array) -> Array:
    """The geometric middle of each row's range of compute."""
    step = np.log(_BIN)
    low = np.log(flops.min(initial=np.inf))  # of no row, where no return is positive
    return np.exp(low + (np.floor((np.log(flops) - low) / step + 1e-9) + 0.5) * step)


def _optimum(rows: pd.DataFrame, target: Target, noise: float) -> tuple[float, Array, Array]:
    """Log N at the best size, and log N and log value (each with its standard error) at the vertex.

    The vertex is that of a parabola in log N through the log values of the sizes around the best
    one; NaN where it is not interior. Its errors follow from `noise`, the spread of one run, or
    from the residuals of the parabola where no size was repeated.
    """
    none = np.array([np.nan, np.nan])
    by_size = rows.groupby("params", sort=True)["log_value"].mean()
    sign = 1.0 if target == "loss" else -1.0
    best = int(np.argmin(sign * by_size.to_numpy()))
    grid = np.log(by_size.index.to_numpy(np.float64))
    first = int(np.clip(best - _WINDOW // 2, 0, max(grid.size - _WINDOW, 0)))
    sizes = grid[first : first + _WINDOW]
    log_n, log_v = np.log(rows["params"].to_numpy(np.float64)), rows["log_value"].to_numpy()
    near = np.isin(log_n, sizes)
    if sizes.size < 3:
        return float(grid[best]), none, none
    u = log_n[near] - grid[best]
    design = np.stack([np.ones_like(u), u, u**2], axis=1)
    inverse = np.linalg.inv(design.T @ design)
    level, slope, bend = inverse @ design.T @ log_v[near]
    vertex = -slope / (2 * bend) if bend != 0 else np.inf
    if sign * bend <= 0 or not sizes[0] < grid[best] + vertex < sizes[-1]:
        return float(grid[best]), none, none
    residual = log_v[near] - design @ (level, slope, bend)
    variance = noise**2
    if variance == 0 and u.size > 3:
        variance = float(residual @ residual) / (u.size - 3)
    to_vertex = np.array([0.0, -1.0, -2 * vertex]) / (2 * bend)
    to_value = np.array([1.0, vertex, vertex**2])
    se_n = np.sqrt(variance * to_vertex @ inverse @ to_vertex)
    se_v = np.sqrt(variance * to_value @ inverse @ to_value)
    return (
        float(grid[best]),
        np.array([grid[best] + vertex, se_n]),
        np.array([level + slope * vertex / 2, se_v]),
    )
