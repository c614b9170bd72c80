"""Scores of many tasks as one number with an interval.

The statistics and the stratified bootstrap are those of Agarwal et al. 2021 ("Deep Reinforcement
Learning at the Edge of the Statistical Precipice"). Two things differ: the deviations of the
bootstrap are scaled by sqrt(k / (k - 1)) for k runs a task, without which a nominal 95 % interval
covers 80 % with two runs (`benchmarks/results/aggregate_coverage.md`), and one run a task is
refused.
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.score_aggregate import ScoreAggregate
from scaling_analysis.estimators.task_scores import Scores, read_scores
from scaling_analysis.uncertainty import stratified

Array = NDArray[np.float64]
Statistic = Literal["iqm", "median", "mean", "optimality_gap"]
Kind = Literal["percentile", "t", "wilson"]

_SWAPPED = 9.0
"""Mean square of columns over that of what rows and columns leave: runs of a task are exchangeable,
so that it is near 1 unless columns are tasks."""
_FEW = 3
"""With fewer runs a task, the spread of the runs is hardly known."""


def aggregate_scores(
    scores: Scores,
    statistic: Statistic | Sequence[Statistic] = ("iqm", "median", "mean", "optimality_gap"),
    *,
    level: float = 0.95,
    interval: Kind = "percentile",
    corrected: bool = True,
    gamma: float = 1.0,
    n_resamples: int = 50_000,
    rng: int | np.random.Generator | None = 0,
) -> ScoreAggregate:
    """Statistics over several tasks with several runs each.

    Parameters
    ----------
    scores : array_like (tasks, runs), mapping of task to (runs,), or DataFrame
        Scores comparable over tasks. A DataFrame has task, run_id and score (see
        `normalise_scores`), one row a run and task: choose the checkpoint beforehand.
    statistic : str or sequence of str
        "iqm", the mean of the middle half of all runs of all tasks; "median" and "mean" of the
        tasks' means; "optimality_gap", the mean of max(0, gamma - score). Tasks count alike,
        whatever their numbers of runs.
    level : float
        Nominal coverage.
    interval : "percentile", "t" or "wilson"
        Percentiles of the stratified bootstrap; estimate +- Student's t times its standard
        deviation, wider where runs are few; or, for scores that are 0 or 1 (won or lost) and the
        mean, Wilson's interval of all runs together.
    corrected : bool
        Scale the deviations of the replicates by sqrt(k / (k - 1)) for k runs.
    gamma : float
        See `statistic`.
    n_resamples : int
    rng : int, Generator or None

    Returns
    -------
    ScoreAggregate
        `DOUBTFUL` with two runs a task.

    Raises
    ------
    FitError
        A task has one run, a score is no number, runs appear twice, or all scores are the same.

    Examples
    --------
    >>> found = aggregate_scores([[0.1, 0.3], [0.8, 1.2], [0.4, 0.5], [2.0, 2.4]], "iqm")
    >>> [round(v, 3) for v in found.value("iqm")]
    [0.725, 0.548, 0.902]
    """
    if not np.isfinite(gamma):
        raise FitError(f"gamma is {gamma!r}: give the score beyond which nothing is gained")
    names, groups = read_scores(scores)
    wanted = (statistic,) if isinstance(statistic, str) else tuple(statistic)
    _check_choices(wanted, level, interval, n_resamples)
    runs = [len(group) for group in groups]
    flat = np.concatenate(groups)
    _check_spread(names, groups)
    value = np.array([stratified.summarise_scores(flat, runs, name, gamma) for name in wanted])
    scale = stratified.deviation_scale(flat, runs) if corrected and interval != "wilson" else 1.0
    freedom = stratified.satterthwaite(flat, runs)
    if interval == "wilson":
        ends = _wilson(flat, runs, wanted, level)
        spread = np.full(len(wanted), np.sqrt(value[0] * (1 - value[0]) / len(flat)))
    else:
        draws = stratified.resample_statistics(
            np.random.default_rng(rng), n_resamples, flat, runs, wanted, gamma
        )
        ends, spread = _ends(value, draws, scale, freedom, level, interval)
    ends = np.where((np.array(wanted) == "optimality_gap")[:, None], np.maximum(ends, 0.0), ends)
    messages = _swapped(groups) if not isinstance(scores, pd.DataFrame | Mapping) else []
    if min(runs) < _FEW and interval == "percentile":
        few = ", ".join(name for name, k in zip(names, runs, strict=True) if k < _FEW)
        messages.append(
            f"two runs in {few}: their spread is hardly known. interval='t' allows for that"
        )
    return ScoreAggregate(
        table=pd.DataFrame(
            {"statistic": wanted, "value": value, "lo": ends[:, 0], "hi": ends[:, 1], "se": spread}
        ),
        tasks=_task_table(names, groups),
        level=level,
        interval=interval,
        scale=scale,
        freedom=freedom,
        gamma=gamma,
        n_resamples=n_resamples if interval != "wilson" else 0,
        status=FitStatus.DOUBTFUL if messages else FitStatus.OK,
        messages=tuple(messages),
    )


def probability_of_improvement(
    scores: Scores,
    baseline: Scores,
    *,
    level: float = 0.95,
    corrected: bool = True,
    n_resamples: int = 50_000,
    rng: int | np.random.Generator | None = 0,
) -> ScoreAggregate:
    """How often a run beats one of the baseline on a task, a tie counting half; mean over tasks.

    Parameters
    ----------
    scores, baseline
        As for `aggregate_scores`, of the same tasks; an array's tasks are matched by position.
    level, corrected, n_resamples, rng
        As for `aggregate_scores`. The correction scales the part of the deviations that the runs
        of either side bring.

    Returns
    -------
    ScoreAggregate
        One row, "improvement"; `tasks` are those of `scores`, their mean being P(X > Y).

    Raises
    ------
    FitError
        The tasks differ, or a task has one run on either side.

    Examples
    --------
    >>> better = probability_of_improvement([[0.5, 0.7], [0.6, 0.8]], [[0.1, 0.2], [0.3, 0.7]],
    ...                                     n_resamples=200)
    >>> better.value("improvement")[0]        # 4 of 4 pairs on one task, 3 of 4 on the other
    0.875
    """
    names, groups = read_scores(scores)
    other_names, others = read_scores(baseline)
    if set(names) != set(other_names):
        odd = sorted(set(names) ^ set(other_names))
        raise FitError(f"scores and baseline do not have the same tasks: {', '.join(odd[:5])}")
    _check_choices((), level, "percentile", n_resamples)
    by_name = dict(zip(other_names, others, strict=True))
    wins = [stratified.win_matrix(x, by_name[name]) for name, x in zip(names, groups, strict=True)]
    each = np.array([matrix.mean() for matrix in wins])
    value = float(each.mean())
    both, of_x, of_y = stratified.resample_improvement(
        np.random.default_rng(rng), n_resamples, wins
    )
    scale = 1.0
    if corrected:
        # The first-order parts of the two sides, each scaled by its own number of runs.
        k = np.array([matrix.shape for matrix in wins], dtype=float).mean(axis=0)
        parts = np.array([of_x.var(), of_y.var()])
        if parts.sum() > 0:
            scale = float(np.sqrt((parts * k / (k - 1)).sum() / parts.sum()))
    draws = np.clip(value + scale * (both - value), 0.0, 1.0)
    lo, hi = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2])
    messages = []
    if all((matrix == 0.5).all() for matrix in wins):
        raise FitError("all runs of both sides score the same: nothing to compare")
    if not np.ptp(both) > 0:
        messages.append("every run of one side beats every run of the other: no width to estimate")
    elif min(min(matrix.shape) for matrix in wins) < _FEW:
        messages.append("two runs in a task: their spread is hardly known")
    tasks = _task_table(names, groups).assign(mean=each, sd=np.nan)
    return ScoreAggregate(
        table=pd.DataFrame(
            {"statistic": ["improvement"], "value": value, "lo": lo, "hi": hi, "se": draws.std()}
        ),
        tasks=tasks,
        level=level,
        interval="percentile",
        scale=scale,
        freedom=float(sum(sum(matrix.shape) - 2 for matrix in wins)),
        gamma=1.0,
        n_resamples=n_resamples,
        status=FitStatus.DOUBTFUL if messages else FitStatus.OK,
        messages=tuple(messages),
    )


def _swapped(groups: Sequence[Array]) -> list[str]:
    """Of an array: runs of one number are alike over tasks, as only tasks should be over runs."""
    array = np.array(groups)
    if min(array.shape) < 2:
        return []
    centre = array.mean()
    rows, columns = array.mean(axis=1) - centre, array.mean(axis=0) - centre
    rest = array - centre - rows[:, None] - columns
    tasks, runs = array.shape
    of_rows, of_columns = runs * rows @ rows / (tasks - 1), tasks * columns @ columns / (runs - 1)
    noise = (rest**2).sum() / ((tasks - 1) * (runs - 1))
    if of_columns > of_rows and of_columns > _SWAPPED * noise:
        return ["columns differ more than rows: are tasks and runs swapped? Give (tasks, runs)"]
    return []


def _check_choices(wanted: Sequence[str], level: float, interval: str, n_resamples: int) -> None:
    for name in wanted:
        if name not in get_args(Statistic):
            known = ", ".join(map(repr, get_args(Statistic)))
            raise FitError(f"statistic is {name!r}: choose among {known}")
    if interval not in get_args(Kind):
        raise FitError(f"interval is {interval!r}: choose 'percentile', 't' or 'wilson'")
    if not 0 < level < 1:
        raise FitError(f"level is {level!r}: give a share between 0 and 1, such as 0.95")
    if n_resamples < 2:
        raise FitError(f"n_resamples is {n_resamples}: at least two are needed")


def _check_spread(names: Sequence[str], groups: Sequence[Array]) -> None:
    if all(np.ptp(group) == 0 for group in groups):
        raise FitError(
            f"all runs of a task score the same ({names[0]!r}: {groups[0][0]:g}): runs that do not "
            "differ are copies of one run, or the score cannot tell them apart"
        )


def _ends(
    value: Array, draws: Array, scale: float, freedom: float, level: float, interval: str
) -> tuple[Array, Array]:
    """(statistics, 2) ends, and (statistics,) standard deviations, from replicates."""
    spread = scale * draws.std(axis=1)
    if interval == "t":
        from scipy.special import stdtrit

        half = float(stdtrit(freedom, 0.5 + level / 2)) * spread
        return np.stack([value - half, value + half], axis=1), spread
    quantiles = np.quantile(draws, [0.5 - level / 2, 0.5 + level / 2], axis=1)
    return (value + scale * (quantiles - value)).T, spread


def _wilson(flat: Array, runs: Sequence[int], wanted: Sequence[str], level: float) -> Array:
    if tuple(wanted) != ("mean",) or not np.isin(flat, (0.0, 1.0)).all():
        raise FitError(
            "interval='wilson' is for statistic='mean' of scores that are 0 or 1, won or lost"
        )
    if len(set(runs)) > 1:
        raise FitError("interval='wilson' needs the same number of runs in every task")
    # Taking the runs of all tasks as one sample: too wide where tasks differ, never too narrow.
    return np.array([stratified.wilson_interval(flat.sum(), len(flat), level)])


def _task_table(names: Sequence[str], groups: Sequence[Array]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "task": names,
            "runs": [len(group) for group in groups],
            "mean": [group.mean() for group in groups],
            "sd": [group.std(ddof=1) for group in groups],
        }
    )
