"""The best return a budget can buy, R_opt(C), from isoFLOP profiles of the return.

Recipe of Tuyls et al. 2023 ("Scaling Laws for Imitation Learning in Single-Agent Games"), with two
changes: the vertex of a profile instead of the highest of its noisy points, which is too high by
what selection adds (`benchmarks/results/winners_curse.md`), and the law by the forms of `fit_curve`
between a floor and a ceiling instead of a power law alone.
"""

from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.curve import fit_curve
from scaling_analysis.estimators.episodes import Statistic, read_episodes
from scaling_analysis.estimators.isoflop import fit_isoflop
from scaling_analysis.estimators.metrics import Metric, Pair, check_end_values, natural_metric
from scaling_analysis.estimators.return_law_fit import ReturnLaw
from scaling_analysis.estimators.return_law_points import (
    describe_optimism,
    resample_returns,
    tabulate_optima,
)
from scaling_analysis.estimators.selection import select_rows
from scaling_analysis.laws.profiles import Optimum
from scaling_analysis.uncertainty.episodes import STATISTICS, summarise_episodes

Array = NDArray[np.float64]

_DISAGREE = 0.01
"""Mean returns of the log and of the episode table may differ by this share."""


def fit_return_law(
    runs: pd.DataFrame,
    episodes: pd.DataFrame | None = None,
    *,
    statistic: Statistic = "mean",
    floor: float | None = None,
    ceiling: float | None = None,
    optimum: Optimum = "vertex",
    window: int | None = 5,
    law: str = "auto",
    metric: str | Pair | Metric | None = None,
    size: str = "params",
    level: float = 0.9,
    n_resamples: int = 1000,
    rng: int | np.random.Generator | None = 0,
) -> ReturnLaw:
    """Return-optimal size of every budget, and the law of the return there.

    Parameters
    ----------
    runs : DataFrame
        A run log with `budget` and `mean_return`.
    episodes : DataFrame, optional
        Returns of single episodes (`load_episodes`). They are resampled within every row, for the
        interval of the return of each budget and its weight in the law; without them `return_se`
        stands for that noise, if the log has it.
    statistic : "mean", "median" or "iqm"
        What of a row's episodes is fitted. Means of heavy-tailed returns are noisy; medians and
        interquartile means are other quantities, not better estimates of the mean. Only the mean
        can do without `episodes`.
    floor, ceiling : float, optional
        Return of random play, and the expert's or the game's own [points]. Given, the law stays
        between them, and starts from the floor where its form has a start. Left out, they are
        parameters of the forms that have them ("sigmoid", "m4", "inverse").
    optimum : "vertex", "cubic" or "grid"
        Vertex of a parabola through the sizes near the best, optimum of a cubic, or the highest of
        the noisy returns as it was run, whose optimism is then stated.
    window : int or None
        Sizes around the best one that the polynomial goes through.
    law : str
        Form of R_opt(C) as for `fit_curve`; "auto" averages forms by their hindcasts.
    metric : str, pair of functions, Metric or None
        Fit in a natural metric of the return (`natural_metric`); forecasts come back in points.
    size : str
        The column that stands for N.
    level : float
        Level of the intervals in `points`.
    n_resamples : int
        Replicates of the evaluation noise.
    rng : int, Generator or None

    Returns
    -------
    ReturnLaw

    Raises
    ------
    FitError
        Fewer than four budgets have an optimum, a return is at or above the ceiling, all returns
        are equal, an episode is no number, or the episodes of a row are missing.

    Examples
    --------
    >>> c, n = (a.ravel() for a in np.meshgrid(np.geomspace(1e14, 1e17, 7),
    ...                                        np.geomspace(1e5, 1e8, 13)))
    >>> odds = (c / 2e16) ** 0.5 * np.exp(-0.05 * np.log(n / (0.05 * c**0.45)) ** 2)
    >>> runs = pd.DataFrame({"params": n, "samples": c / (6 * n), "flops": c, "budget": c,
    ...                      "mean_return": 900 * odds / (1 + odds), "protocol": "test"})
    >>> fit = fit_return_law(runs, law="power", metric="odds", floor=0, ceiling=900)
    >>> round(float(fit.value_opt(2e16)), 6), round(float(fit.profiles.laws.params_exponent), 6)
    (450.0, 0.45)
    """
    if statistic not in STATISTICS:
        raise FitError(f"statistic is {statistic!r}: choose 'mean', 'median' or 'iqm'")
    if statistic != "mean" and episodes is None:
        raise FitError(
            f"statistic={statistic!r} needs episodes=: the log holds means, from which it "
            "cannot be computed"
        )
    if not 0 < level < 1:
        raise FitError(f"level is {level!r}: give a share between 0 and 1, such as 0.9")
    if n_resamples < 2:
        raise FitError(f"n_resamples is {n_resamples}: at least two are needed")
    measure = natural_metric(metric, floor=floor, ceiling=ceiling)
    rows = select_rows(
        runs, "mean_return", needs=("params", "samples", "flops", "budget"), size=size
    )
    messages: list[str] = []
    returns_of = None if episodes is None else read_episodes(rows, episodes)
    if returns_of is not None:
        rows, said = _with_statistic(rows, returns_of, statistic)
        messages += said
    returns = rows["mean_return"].to_numpy(dtype=float)
    messages += _check_ends(returns, floor, ceiling, rows)
    measure.check(returns)
    y = measure.of(returns)
    shift = 0.0 if y.min() > 0 else float(np.ptp(y) - y.min())
    profiles = fit_isoflop(
        rows.assign(mean_return=y + shift, status="ok"),
        "mean_return",
        optimum=optimum,
        window=window,
        space="linear" if shift else "log",
        value_law="power",
    )
    noise = resample_returns(rows, returns_of, statistic, n_resamples, np.random.default_rng(rng))
    points = tabulate_optima(profiles, rows, measure, shift, noise, level)
    ends = tuple(_finite(measure, end) for end in (floor, ceiling))
    at = points["mean_return"].to_numpy(dtype=float)
    error = points["se"].to_numpy(dtype=float) * measure.slope(at)
    known = np.isfinite(error)
    # A point without an error of its own takes the largest.
    error = np.where(known, error, error[known].max(initial=0.0))
    curve = fit_curve(
        points["flops"].to_numpy(dtype=float),
        measure.of(at),
        direction="increasing",
        y_se=error if known.any() else None,
        bounds=cast(tuple[float | None, float | None], ends),
        form=law,
    )
    messages += list(curve.messages) + list(profiles.messages)
    if optimum == "grid":
        messages.append(describe_optimism(points))
    swapped = bool((rows["params"] > rows["samples"]).mean() > 0.5)
    if swapped:
        messages.append("most rows have more params than samples: are the two swapped?")
    doubtful = FitStatus.DOUBTFUL in (curve.status, profiles.status) or optimum == "grid" or swapped
    return ReturnLaw(
        profiles=profiles,
        curve=curve,
        metric=measure,
        statistic=statistic,
        floor=floor,
        ceiling=ceiling,
        shift=shift,
        rows=rows,
        points=points,
        level=level,
        status=FitStatus.DOUBTFUL if doubtful else FitStatus.OK,
        messages=tuple(dict.fromkeys(messages)),
    )


def _with_statistic(
    rows: pd.DataFrame, returns: list[Array], statistic: Statistic
) -> tuple[pd.DataFrame, list[str]]:
    """Rows whose mean_return is the statistic of their episodes, and what a reader has to know."""
    messages = []
    mean = summarise_episodes(returns, "mean")
    logged = rows["mean_return"].to_numpy(dtype=float)
    apart = np.abs(mean - logged) > _DISAGREE * np.maximum(np.abs(logged), 1e-300)
    if apart.any():
        at = int(np.argmax(apart))
        messages.append(
            f"{int(apart.sum())} rows: the episodes' mean is not the mean_return of the log (run "
            f"{rows['run_id'][at]!r}: {mean[at]:g} and {logged[at]:g}). The episodes are taken"
        )
    counts = np.array([len(own) for own in returns], dtype=float)
    value = mean if statistic == "mean" else summarise_episodes(returns, statistic)
    return rows.assign(mean_return=value, episodes=counts), messages


def _check_ends(
    returns: Array, floor: float | None, ceiling: float | None, rows: pd.DataFrame
) -> list[str]:
    """Refuse impossible returns; name those at the floor."""
    check_end_values(floor, ceiling)
    if not np.ptp(returns) > 0:
        raise FitError(f"all {len(returns)} returns are {returns[0]:g}: there is no law to fit")
    if ceiling is not None and (returns >= ceiling).any():
        at = int(np.argmax(returns))
        raise FitError(
            f"run {rows['run_id'][at]!r} returns {returns[at]:g} at {rows['budget'][at]:g} FLOP, "
            f"at or above ceiling={ceiling:g}: give a ceiling that no run reaches, or none"
        )
    low = 0 if floor is None else int((returns <= floor).sum())
    if low == len(returns):
        raise FitError(f"floor={floor:g} is above every return, the best is {returns.max():g}")
    if not low:
        return []
    return [f"{low} of {len(returns)} rows return no more than the floor of {floor:g}"]


def _finite(metric: Metric, end: float | None) -> float | None:
    """An end in the metric, None where it is not known or lies at infinity."""
    value = np.inf if end is None else float(metric.of(end))
    if metric.name == "odds" and end == metric.floor:
        value = 0.0
    return value if np.isfinite(value) else None
