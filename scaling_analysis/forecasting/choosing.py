"""Planning backwards: which runs to do next, so that the forecast gets sharper for its compute."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import PlanError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.combination import Widening
from scaling_analysis.forecasting.members import log_value
from scaling_analysis.forecasting.plan_files import split_budgets
from scaling_analysis.forecasting.scores import PRIOR_SCALE

Array = NDArray[np.float64]

_FARTHEST = 4.0
"""Replicates count as at most this many standard deviations out: a few wild refits would otherwise
decide the covariances."""
_COST_POWERS = (1.0, 0.75, 0.5, 0.25, 0.0)
"""Gain by FLOP alone fills a budget with cheap runs, gain alone with a few dear ones: both are
tried, and what lies between, and the design that leaves the least variance is taken."""
_NEGLIGIBLE = 1e-3
"""A run that lowers the variance by less than a thousandth is not worth its place in a plan."""


def next_runs(
    bootstrap: Bootstrap,
    candidates: pd.DataFrame,
    target_flops: ArrayLike,
    *,
    quantity: Literal["value_opt", "params_opt"] = "value_opt",
    max_flops: float | None = None,
    count: int | None = None,
    repeats: bool = True,
) -> pd.DataFrame:
    """Choose the candidate runs that shrink the variance of a forecast most per FLOP.

    The replicates of a bootstrap are a sample of what the runs so far leave possible: each says
    what the forecast would be and what any candidate would show. Their covariance gives the
    variance that is left once a candidate has been seen (the linear, or Kalman, update), without
    running or refitting anything. Runs are chosen one at a time, each given those before it.

    No law is exact: what a budget shows departs from it by an error that grows with the distance
    to the target, and that repeating cheap runs does not average out. It enters as noise that all
    rows of a budget share, of the size that a forecast takes for granted before any hindcast.

    Parameters
    ----------
    bootstrap : Bootstrap
        Of the method whose forecast is to be sharpened.
    candidates : DataFrame
        A plan: one row a run with params and budget, and snapshots where a run shows several
        budgets; `plan_ladder` makes one.
    target_flops : array_like
        Budgets whose forecast matters [FLOP].
    quantity : "value_opt" or "params_opt"
        The forecast: loss (or return) at the optimum, or N_opt.
    max_flops : float, optional
        Compute to spend on all chosen runs together [FLOP].
    count : int, optional
        Number of runs to choose. Give `max_flops`, `count` or both.
    repeats : bool
        Whether a candidate may be chosen again, as another seed.

    Returns
    -------
    DataFrame
        The chosen rows of `candidates` in their order of choice, with rank, repeat (1 for the first
        run of a candidate), cost [FLOP], sd_before and sd_after (standard deviation of the log of
        the forecast, root mean square over `target_flops`), and gain_per_flop (fall of that
        variance by FLOP).

    Raises
    ------
    PlanError
        No limit is given, no candidate fits into it, or a candidate is no run.

    Examples
    --------
    >>> fitted = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=50)
    >>> candidates = sa.plan_ladder((1e10, 1e12), (4e3, 1e5), task="game", agent="lstm", seeds=1)
    >>> chosen = next_runs(fitted, candidates, 1e13, max_flops=3e12)
    >>> bool(chosen["cost"].sum() <= 3e12), bool(chosen["sd_after"].is_monotonic_decreasing)
    (True, True)
    """
    if max_flops is None and count is None:
        raise PlanError("give max_flops=, the compute to spend, or count=, the number of runs")
    if count is not None and count < 1:
        raise PlanError(f"count={count!r}: choose one run at least")
    if candidates.empty:
        raise PlanError("there are no candidates; plan_ladder(...) makes some")
    absent = [name for name in ("params", "budget") if name not in candidates]
    if absent:
        raise PlanError(f"the candidates have no column {absent[0]!r}: give a plan")
    cost = candidates["budget"].to_numpy(np.float64)
    size = candidates["params"].to_numpy(np.float64)
    if not (np.all(np.isfinite(cost) & (cost > 0)) and np.all(np.isfinite(size) & (size > 0))):
        raise PlanError("every candidate needs positive params and a positive budget")
    snapshots = [np.array([c]) for c in cost]
    if "snapshots" in candidates:
        snapshots = [split_budgets(str(text)) for text in candidates["snapshots"]]
    outcome = np.repeat(np.arange(len(cost)), [len(s) for s in snapshots])
    flops = np.concatenate(snapshots)
    targets = np.atleast_1d(np.asarray(target_flops, dtype=np.float64))
    covariance = _covariance(bootstrap, quantity, targets, size[outcome], flops)
    k = targets.size
    covariance[k:, k:] += _law_error(bootstrap, targets, flops)
    noise = _noise(bootstrap, outcome)

    rows_of = [np.flatnonzero(outcome == j) for j in range(len(cost))]
    budget = np.inf if max_flops is None else float(max_flops)
    designs = [
        _greedy(covariance, noise, rows_of, cost, k, budget, count, repeats, power)
        for power in ((1.0,) if max_flops is None else _COST_POWERS)
    ]
    if not designs[0]:
        raise PlanError(
            f"no candidate fits into {max_flops:g} FLOP; the smallest costs {cost.min():g}"
        )
    table = pd.DataFrame(min(designs, key=lambda chosen: chosen[-1]["sd_after"]))
    picked = candidates.iloc[table.pop("candidate")].reset_index(drop=True)
    return pd.concat([picked, table], axis=1)


def _greedy(
    covariance: Array,
    noise: Array,
    rows_of: list[NDArray[np.intp]],
    cost: Array,
    k: int,
    budget: float,
    count: int | None,
    repeats: bool,
    power: float,
) -> list[dict[str, float]]:
    """Runs one at a time, each of the largest gain by cost^power, while they fit the budget."""
    times = np.zeros(len(cost), dtype=int)
    chosen: list[dict[str, float]] = []
    while count is None or len(chosen) < count:
        possible = np.flatnonzero((cost <= budget) & (repeats | (times == 0)))
        if not possible.size:
            break
        gains = np.array([_gain(covariance, noise, rows_of[j], k) for j in possible])
        best = int(possible[np.argmax(gains / cost[possible] ** power)])
        before = float(np.mean(np.diag(covariance)[:k]))
        covariance = _seen(covariance, noise, rows_of[best], k)
        after = max(float(np.mean(np.diag(covariance)[:k])), 0.0)
        times[best] += 1
        budget -= cost[best]
        chosen.append(
            {
                "candidate": best,
                "rank": len(chosen) + 1,
                "repeat": int(times[best]),
                "cost": float(cost[best]),
                "sd_before": float(np.sqrt(before)),
                "sd_after": float(np.sqrt(after)),
                "gain_per_flop": (before - after) / float(cost[best]),
            }
        )
        if count is None and before - after < _NEGLIGIBLE * after:
            break
    return chosen


def _covariance(
    bootstrap: Bootstrap, quantity: str, targets: Array, params: Array, flops: Array
) -> Array:
    """Covariance over replicates of the targets, then of what each candidate row would show."""
    of = bootstrap.replicates
    forecast = log_value(of, "value_opt" if quantity == "value_opt" else "params_opt", targets)
    draws = np.concatenate([forecast, log_value(of, "value", flops, params)], axis=1)
    draws = draws[bootstrap.valid]
    draws = draws[np.isfinite(draws).all(axis=1)]
    if len(draws) < 30:
        raise PlanError(
            f"only {len(draws)} replicates are usable for the candidates: bootstrap with more, or "
            "leave out candidates far from the runs so far"
        )
    centred = draws - np.median(draws, axis=0)
    spread = 1.4826 * np.median(np.abs(centred), axis=0)
    centred = np.clip(centred, -_FARTHEST * spread, _FARTHEST * spread)
    centred -= centred.mean(axis=0)
    return centred.T @ centred / (len(centred) - 1)


def _law_error(bootstrap: Bootstrap, targets: Array, flops: Array) -> Array:
    """Covariance of the candidate rows from the error of the law itself."""
    target = float(np.exp(np.log(targets).mean()))
    ends = np.array([bootstrap.fit.rows["flops"].max(), target])
    change = np.diff(log_value(bootstrap.fit, "value_opt", ends))[0]
    trend = abs(change / np.log(ends[1] / ends[0]))
    law = Widening(scale=PRIOR_SCALE["loss"], dof=np.inf, origins=0)
    sd = law.law_sd(np.abs(np.log(target / flops)), trend)
    return np.where(flops[:, None] == flops, sd[:, None] * sd, 0.0)


def _noise(bootstrap: Bootstrap, outcome: NDArray[np.intp]) -> Array:
    """Noise covariance of the candidate rows: what the rows of one run share, and their own."""
    rows = bootstrap.fit.rows
    observed = rows[bootstrap.fit.target].to_numpy(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        residual = pd.Series(np.log(observed / bootstrap.fit.fitted_values()))
    runs = residual.groupby(rows["run_id"].to_numpy())
    total = float(residual.var())
    within = (residual - runs.transform("mean")).dropna()
    dof = len(within) - runs.ngroups
    own = min(float(within @ within) / dof, total) if dof > 0 else total
    shared = total - own
    same_run = outcome[:, None] == outcome
    return shared * same_run + own * np.eye(outcome.size)


def _gain(covariance: Array, noise: Array, seen: NDArray[np.intp], k: int) -> float:
    """Fall of the targets' mean variance once the candidate rows `seen` are known."""
    at = seen + k
    inner = covariance[np.ix_(at, at)] + noise[np.ix_(seen, seen)]
    across = covariance[:k][:, at]
    return float(np.trace(across @ np.linalg.solve(inner, across.T))) / k


def _seen(covariance: Array, noise: Array, seen: NDArray[np.intp], k: int) -> Array:
    """Covariance that is left once the candidate rows `seen` are known."""
    at = seen + k
    inner = covariance[np.ix_(at, at)] + noise[np.ix_(seen, seen)]
    across = covariance[:, at]
    return covariance - across @ np.linalg.solve(inner, across.T)
