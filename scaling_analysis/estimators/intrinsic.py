"""`fit_intrinsic`: learning curves of a family of agents, and the size that learns best for C."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.intrinsic_findings import conclude
from scaling_analysis.estimators.intrinsic_fit import Beyond, IntrinsicFit, settle
from scaling_analysis.estimators.intrinsic_problem import TABLE
from scaling_analysis.estimators.intrinsic_rows import select_curves, state_problem
from scaling_analysis.estimators.metrics import Metric, Pair, natural_metric
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.intrinsic import IntrinsicLaw

Array = NDArray[np.float64]

DROPPED = 1 / 64
"""Share of each run's samples, from the start, that Hilton et al. 2023 leave out."""


def fit_intrinsic(
    runs: pd.DataFrame,
    *,
    inner: Literal["smooth", "isotonic"] = "smooth",
    natural: str | Pair | Metric | None = None,
    floor: float | None = None,
    ceiling: float | None = None,
    environment_params: float = 0.0,
    drop: float = DROPPED,
    smoothing: float = 0.0,
    knots: int = 30,
    size: str = "params",
    beyond: Beyond = "refuse",
    workers: int | None = None,
) -> IntrinsicFit:
    """Fit the law of intrinsic performance (Hilton et al. 2023) to learning curves.

    Returns need not rise smoothly with compute; the least compute that reaches them, by any size of
    the family, does: I^-beta = (N_c/N)^alpha_N + (E_c/E)^alpha_E, tied so that the best size has
    I = C. The return is a monotone function of I, found together with the three constants.

    Parameters
    ----------
    runs : DataFrame
        A run log with several checkpoints a run and at least three sizes: params N, samples E
        (interactions), mean_return. Runs of one size are averaged where they were evaluated after
        the same number of samples; each run keeps its weight.
    inner : "smooth" or "isotonic"
        Function of log I: a monotone cubic spline of `knots` coefficients, or isotonic regression,
        whose estimates err twice as much (docs/methods-intrinsic.md). The other is fitted too, and
        the summary compares them.
    natural : str, pair of callables or Metric, optional
        A metric (see `natural_metric`: "above", "normalised", "odds", "elo", or (metric of points,
        points of metric)) that is a power law of I. Then returns beyond the highest observed one
        can be forecast; residuals stay in return space.
    floor, ceiling : float, optional
        Ends of a named metric [points].
    environment_params : float
        N_e: what a sample costs beside the model, in parameters. Costs that are in `flops` already
        need none: the frontier follows the counted FLOP a sample.
    drop : float
        Share of each run's samples, from its start, that is left out.
    smoothing : float
        Width of a running mean along each averaged curve, in log samples. Least squares averages
        anyway, and the mean flattens bends: 0, none, is the default.
    knots : int
        20 to 40.
    size : str
        The column that stands for N; one with the FLOP a sample makes C = N E exact.
    beyond : "refuse" or "nan"
        What is given for returns beyond the highest observed one, without a metric: a FitError, or
        NaN, with which forecasts of sizes go on.
    workers : int, optional
        Processes for the replicates of a bootstrap; by default one a usable core.

    Returns
    -------
    IntrinsicFit

    Raises
    ------
    FitError
        Fewer than three sizes, no learning curves, returns that do not vary or do not rise with
        compute, several sizes in one run, a ceiling below an observed return.

    Examples
    --------
    >>> n, e = np.repeat(np.geomspace(1e4, 1e7, 6), 40), np.tile(np.geomspace(1e4, 1e8, 40), 6)
    >>> limit = (1e3 / n) ** 0.6 + (1e5 / e) ** 0.4
    >>> runs = pd.DataFrame({"params": n, "samples": e, "flops": 6 * n * e,
    ...                      "mean_return": 100 / (1 + limit), "run_id": n.astype(str),
    ...                      "protocol": "v1"})
    >>> round(float(fit_intrinsic(runs).params_exponent), 3)
    0.4
    """
    if inner not in ("smooth", "isotonic"):
        raise FitError(f"inner is {inner!r}: choose 'smooth' or 'isotonic'")
    if beyond not in ("refuse", "nan"):
        raise FitError(f"beyond is {beyond!r}: choose 'refuse' or 'nan'")
    if not 0 <= drop < 1:
        raise FitError(f"drop is {drop!r}: a share of the samples, such as 1/64, or 0")
    if not (np.isfinite(smoothing) and smoothing >= 0):
        raise FitError(f"smoothing is {smoothing!r}: a width in log samples, 0 for none")
    if not 8 <= knots <= 200:
        raise FitError(f"knots is {knots!r}: 20 to 40 are usual, 8 to 200 possible")
    if natural is None and (floor is not None or ceiling is not None):
        raise FitError("floor= and ceiling= are ends of a metric: give natural= as well")
    metric = None if natural is None else natural_metric(natural, floor=floor, ceiling=ceiling)
    rows, notes = select_curves(runs, size=size, drop=drop, metric=metric)
    cost = fit_cost(rows["params"], rows["samples"], rows["flops"])
    nothing = np.array(np.nan)
    blank = IntrinsicLaw(
        params_exponent=nothing,
        log_sample_exponent=nothing,
        log_params=nothing,
        flops_ref=float(np.exp(np.median(np.log(rows["flops"].to_numpy(dtype=float))))),
        cost_constant=_cost_constant(rows, cost),
    )
    fit = IntrinsicFit(
        inner=inner if metric is None else "metric",
        rows=rows,
        size=size,
        dropped=float(drop),
        smoothing=float(smoothing),
        knots=int(knots),
        law=blank,
        cost=cost,
        environment_params=0.0,
        metric=metric,
        low=nothing,
        high=nothing,
        table=np.full(TABLE, np.nan),
        line=np.full(2, np.nan),
        squares=nothing,
        total=nothing,
        sound=np.array(False),
        reference=blank,
        reach=float("nan"),
        rivals={},
        near=(float("nan"), float("nan")),
        beyond=beyond,
        both_sides=True,
        status=FitStatus.OK,
        messages=(),
        workers=workers,
    )
    fit = fit.with_environment(environment_params)
    problem = state_problem(fit)
    y = rows["mean_return"].to_numpy(dtype=float)
    solution = problem.search(y, np.ones(len(y)))
    fit = settle(fit, problem, solution).replicate(0)
    fit = replace(fit, reference=fit.law, reach=float(fit.high))
    return conclude(fit, problem, notes)


def _cost_constant(rows: pd.DataFrame, cost: Cost) -> float:
    """k of C = k N E: counted, or the typical one, in whose units I is then measured."""
    if cost.constant is not None:
        return cost.constant
    n, d, c = (np.log(rows[name].to_numpy(dtype=float)) for name in ("params", "samples", "flops"))
    return float(np.exp(pd.Series(c - n - d).groupby(n).mean().mean()))
