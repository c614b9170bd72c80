"""Statistics of heavy-tailed episode returns, and their bootstrap row by row."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.uncertainty.resampling import episode_noise
from scaling_analysis.uncertainty.stratified import CUT, interquartile_mean

Array = NDArray[np.float64]

STATISTICS = ("mean", "median", "iqm")
_CHUNK = 64


def summarise_episodes(returns: Sequence[Array], statistic: str) -> Array:
    """(rows,) mean, median or interquartile mean of the episodes of every row."""
    of = {"mean": np.mean, "median": np.median, "iqm": interquartile_mean}[statistic]
    return np.array([float(of(episodes)) for episodes in returns])


def resample_episodes(
    rng: np.random.Generator, n_resamples: int, returns: Sequence[Array], statistic: str
) -> Array:
    """(n_resamples, rows) the statistic of episodes drawn with replacement, row by row."""
    if statistic == "mean":
        centre = summarise_episodes(returns, "mean")
        return centre + episode_noise(rng, n_resamples, returns)
    draw = _medians if statistic == "median" else _interquartile_means
    return np.stack([draw(rng, n_resamples, np.sort(episodes)) for episodes in returns], axis=1)


def _medians(rng: np.random.Generator, n_resamples: int, ordered: Array) -> Array:
    """Medians of resamples, exactly, without drawing them.

    The order statistics of n drawn places are those of n uniform numbers: the m-th is beta
    distributed, and the next lies a beta(1, n - m) share of the rest above it.
    """
    n = len(ordered)
    m = (n + 1) // 2
    lower = rng.beta(m, n - m + 1, n_resamples)
    upper = lower
    if n % 2 == 0:
        upper = lower + (1 - lower) * rng.beta(1, n - m, n_resamples)
    places = (np.minimum((share * n).astype(np.intp), n - 1) for share in (lower, upper))
    return np.mean([ordered[place] for place in places], axis=0)


def _interquartile_means(rng: np.random.Generator, n_resamples: int, ordered: Array) -> Array:
    """The places drawn are sorted, and with them the returns: integers sort fast."""
    n, found = len(ordered), np.empty(n_resamples)
    cut = int(CUT * n)
    small = np.uint16 if n < 2**16 else np.uint32
    for start in range(0, n_resamples, _CHUNK):
        some = found[start : start + _CHUNK]
        places = np.sort(rng.integers(0, n, (len(some), n), dtype=small), axis=1)
        some[:] = ordered.take(places[:, cut : n - cut]).mean(axis=1)
    return found
