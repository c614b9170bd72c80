"""Scores of several tasks: statistics over all of them, and their stratified bootstrap.

A stratum is a task; its runs are drawn with replacement, the tasks stay (Agarwal et al. 2021, "Deep
Reinforcement Learning at the Edge of the Statistical Precipice"). Arrays only: replicates lie along
the leading axis, and no loop runs over them.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CUT = 0.25
"""Share of the scores that the interquartile mean leaves out at each end."""
_CHUNK = 2048
"""Replicates handled at once: what fits into the cache."""


def interquartile_mean(scores: ArrayLike, weights: ArrayLike | None = None) -> Array:
    """Mean of the middle half of the scores along the last axis.

    Without weights floor(n / 4) scores are left out at each end, as in scipy.stats.trim_mean. With
    them, (n,) of any scale, a quarter of their sum is cut at each end, a score that the cut goes
    through counting in part.
    """
    x = np.asarray(scores, dtype=float)
    n = x.shape[-1]
    if weights is None:
        cut = int(CUT * n)
        if cut == 0:
            return x.mean(axis=-1)
        # Sorting whole rows is faster than partitioning them: it is vectorised.
        return np.sort(x, axis=-1)[..., cut : n - cut].mean(axis=-1)
    order = np.argsort(x, axis=-1, kind="stable")
    w = np.asarray(weights, dtype=float)[order]
    upper = np.cumsum(w, axis=-1) / w.sum(axis=-1, keepdims=True)
    lower = np.concatenate([np.zeros_like(upper[..., :1]), upper[..., :-1]], axis=-1)
    inside = np.clip(upper, CUT, 1 - CUT) - np.clip(lower, CUT, 1 - CUT)
    return (inside * np.take_along_axis(x, order, axis=-1)).sum(axis=-1) / inside.sum(axis=-1)


def summarise_scores(
    scores: ArrayLike, runs: ArrayLike, statistic: str, gamma: float = 1.0
) -> Array:
    """A statistic over all tasks, each task counting alike.

    Parameters
    ----------
    scores : (..., n)
        The scores of all runs, those of a task side by side.
    runs : (tasks,) int
        Runs of each task; they add up to n.
    statistic : str
        "iqm" the interquartile mean over all runs of all tasks, "median" and "mean" those of the
        tasks' means, "optimality_gap" the mean of max(0, gamma - score).
    gamma : float
        The score beyond which an improvement does not count for the optimality gap.

    Returns
    -------
    (...)
    """
    x = np.asarray(scores, dtype=float)
    k = np.asarray(runs)
    if statistic == "iqm":
        equal = bool((k == k[0]).all())
        return interquartile_mean(x, None if equal else np.repeat(1 / k, k))
    if statistic == "optimality_gap":
        return _task_means(np.maximum(gamma - x, 0.0), k).mean(axis=-1)
    means = _task_means(x, k)
    return np.median(means, axis=-1) if statistic == "median" else means.mean(axis=-1)


def resample_statistics(
    rng: np.random.Generator,
    n_resamples: int,
    scores: ArrayLike,
    runs: ArrayLike,
    statistics: Sequence[str],
    gamma: float = 1.0,
) -> Array:
    """Statistics of scores whose runs are drawn with replacement within their tasks.

    `scores` (n,) and `runs` as for `summarise_scores`. All statistics see the same draws.

    Returns
    -------
    (statistics, n_resamples)
    """
    x, k = np.asarray(scores, dtype=float), np.asarray(runs)
    out = np.empty((len(statistics), n_resamples))
    for start in range(0, n_resamples, _CHUNK):
        size = min(_CHUNK, n_resamples - start)
        drawn = x.take(draw_within(rng, size, k))
        for row, name in zip(out, statistics, strict=True):
            row[start : start + size] = summarise_scores(drawn, k, name, gamma)
    return out


def draw_within(
    rng: np.random.Generator, n_resamples: int, runs: ArrayLike
) -> NDArray[np.unsignedinteger]:
    """(n_resamples, n) positions of drawn runs, those of a task among the runs of that task."""
    k = np.asarray(runs)
    first = np.repeat(np.cumsum(k) - k, k)
    shape = n_resamples, int(k.sum())
    # Short integers: the draw is a large part of the time.
    small = np.uint8 if k.sum() < 2**8 else np.uint32
    high = k[0] if (k == k[0]).all() else np.repeat(k, k)
    return rng.integers(0, high, shape, dtype=small) + first.astype(small)


def deviation_scale(scores: ArrayLike, runs: ArrayLike) -> float:
    """What the deviations of a stratified bootstrap are short by: sqrt(k / (k - 1)) for k runs.

    Drawing from k runs spreads as their variance over k, not over k - 1. Where tasks differ in
    k, it is the factor for the mean over tasks: the root of sum s^2 / k over sum s^2 (k - 1) / k^2,
    s^2 the unbiased variance of a task's runs.
    """
    x, k = np.asarray(scores, dtype=float), np.asarray(runs)
    if (k == k[0]).all():
        return float(np.sqrt(k[0] / (k[0] - 1)))
    variance = task_variances(x, k)
    if not variance.sum() > 0:
        return float(np.sqrt(k.min() / (k.min() - 1)))
    return float(np.sqrt((variance / k).sum() / (variance * (k - 1) / k**2).sum()))


def satterthwaite(scores: ArrayLike, runs: ArrayLike) -> float:
    """Degrees of freedom of the standard error of the mean over tasks (Satterthwaite 1946)."""
    k = np.asarray(runs)
    part = task_variances(scores, k) / k
    if not part.sum() > 0:
        return float((k - 1).sum())
    return float(part.sum() ** 2 / (part**2 / (k - 1)).sum())


def task_variances(scores: ArrayLike, runs: ArrayLike) -> Array:
    """(tasks,) unbiased variance of the runs of each task."""
    x, k = np.asarray(scores, dtype=float), np.asarray(runs)
    deviation = x - np.repeat(_task_means(x, k), k)
    return np.add.reduceat(deviation**2, np.cumsum(k) - k) / (k - 1)


def wilson_interval(successes: float, trials: float, level: float) -> tuple[float, float]:
    """Interval of a success rate (Wilson 1927): it has a width at 0 and at 1 too."""
    from scipy.special import ndtri

    z2 = float(ndtri(0.5 + level / 2)) ** 2
    p = successes / trials
    centre = (p + z2 / (2 * trials)) / (1 + z2 / trials)
    half = np.sqrt(z2 * (p * (1 - p) / trials + z2 / (4 * trials**2))) / (1 + z2 / trials)
    # At the ends the arithmetic misses 0 and 1 by the last bit.
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def win_matrix(x: ArrayLike, y: ArrayLike) -> Array:
    """(kx, ky) 1 where a run of x beats one of y, 1/2 where they tie."""
    difference = np.asarray(x, dtype=float)[:, None] - np.asarray(y, dtype=float)
    return 0.5 * (1 + np.sign(difference))


def resample_improvement(
    rng: np.random.Generator, n_resamples: int, wins: Sequence[Array]
) -> tuple[Array, Array, Array]:
    """Mean over tasks of P(X > Y), with the runs of both drawn, of X alone and of Y alone.

    `wins` holds the `win_matrix` of every task. Each result is (n_resamples,).
    """
    both, of_x, of_y = (np.zeros(n_resamples) for _ in range(3))
    for matrix in wins:
        drawn = []
        for size in matrix.shape:
            at = rng.integers(0, size, (n_resamples, size)) + size * np.arange(n_resamples)[:, None]
            counts = np.bincount(at.ravel(), minlength=n_resamples * size)
            drawn.append(counts.reshape(n_resamples, size) / size)
        both += np.einsum("ri,ij,rj->r", *(drawn[0], matrix, drawn[1]), optimize=True)
        of_x += drawn[0] @ matrix.mean(axis=1)
        of_y += drawn[1] @ matrix.mean(axis=0)
    return both / len(wins), of_x / len(wins), of_y / len(wins)


def _task_means(x: Array, runs: NDArray) -> Array:
    """(..., tasks) mean of the runs of each task."""
    if (runs == runs[0]).all():
        return x.reshape(*x.shape[:-1], len(runs), int(runs[0])).mean(axis=-1)
    return np.add.reduceat(x, np.cumsum(runs) - runs, axis=-1) / runs
