"""Replicates of a data set: sets of weights, or of noise for the responses.

Arrays and callables only. `groups` labels the rows of one unit (a training run) by 0 ... G - 1;
what is drawn has shape (R, rows), ready for an estimator that refits all replicates in one call.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labels = NDArray[np.intp]
Residuals = Callable[[Array], Array]
"""Residuals (R, rows) after refitting to the fitted values plus noise (R, rows)."""

_ROUNDS = 2
_SETTLED = 0.1
"""A round that changes the variances by less is the last: the probes know them no better."""
_EPISODE_CHUNK = 128


def draw_weights(
    rng: np.random.Generator, n_resamples: int, groups: Labels, strata: Labels
) -> Array:
    """Weights of drawing groups with replacement; each stratum keeps its number of groups.

    Parameters
    ----------
    groups : (rows,)
        Unit of each row.
    strata : (units,)
        Stratum of each unit; a negative one stays as it is, with weight one.

    Returns
    -------
    (n_resamples, rows)
        How often the unit of each row was drawn.
    """
    counts = np.ones((n_resamples, len(strata)))
    for label in np.unique(strata[strata >= 0]):
        members = np.flatnonzero(strata == label)
        # Integers and one bincount: several times as fast as rng.multinomial.
        drawn = rng.integers(0, len(members), (n_resamples, len(members)))
        drawn += len(members) * np.arange(n_resamples)[:, None]
        flat = np.bincount(drawn.ravel(), minlength=n_resamples * len(members))
        counts[:, members] = flat.reshape(n_resamples, len(members))
    return counts[:, groups]


def dirichlet_weights(rng: np.random.Generator, n_resamples: int, groups: Labels) -> Array:
    """(n_resamples, rows) weights of the Bayesian bootstrap of units (Rubin 1981), of mean one."""
    n_groups = int(groups.max()) + 1
    weights = rng.standard_exponential((n_resamples, n_groups))
    weights *= n_groups / weights.sum(axis=1, keepdims=True)
    return weights[:, groups]


def delete_one_weights(groups: Labels) -> Array:
    """(G, rows) weights: replicate g is without unit g."""
    return (groups != np.arange(int(groups.max()) + 1)[:, None]).astype(float)


def groups_present(weights: Array, groups: Labels) -> NDArray[np.bool_]:
    """(R, G) whether any row of a group has weight; weights are (R, rows), no group is empty."""
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(int(groups.max()) + 1))
    return np.logical_or.reduceat(weights[:, order] > 0, first, axis=1)


def wild_noise(
    rng: np.random.Generator, n_resamples: int, groups: Labels, residuals: Array
) -> Array:
    """(n_resamples, rows) the residuals of every unit times one random sign (Liu 1988)."""
    signs = rng.choice([-1.0, 1.0], (n_resamples, int(groups.max()) + 1))
    return signs[:, groups] * residuals


@dataclass(frozen=True, slots=True, kw_only=True)
class Components:
    """Standard deviations of the noise around a fit."""

    group: float
    """Of what all rows of a unit share."""
    row: float
    """Of what a row has for itself."""


def estimate_components(
    rng: np.random.Generator,
    groups: Labels,
    observed: Array,
    residuals: Residuals,
    probes: int = 200,
) -> Components:
    """Unit and row components of the noise, corrected for what the fit absorbs.

    The sums of squares of residuals over rows, and of their totals over units, are linear in the
    two variances. A fit shrinks both sums by unknown factors, large where there are few runs; so
    the factors are measured: noise of known size goes through `residuals`, and the variances are
    those whose sums equal the observed ones on average. Up to two further rounds at the estimate
    take care of fits that are not linear in the response (windows, Huber's loss).

    Parameters
    ----------
    groups : (rows,)
        Unit of each row. Where every row is its own unit, there is only a row component.
    observed : (rows,)
        Residuals of the fit.
    residuals : callable
        Residuals (R, rows) of the fit to its own fitted values plus noise (R, rows).
    probes : int
        Refits to simulated noise a round; the factors are known to about 1/sqrt(probes * runs).

    Raises
    ------
    ValueError
        The residuals are zero, or the fit passes through any response, so that there is no noise
        to see.
    """
    n_rows, n_groups = len(groups), int(groups.max()) + 1
    scale = float(np.sqrt(np.mean(observed**2)))
    if not scale > 1e-10:
        raise ValueError("the fit passes through every row")
    z_group = rng.standard_normal((probes, n_groups))[:, groups]
    z_row = rng.standard_normal((probes, n_rows))
    order = np.argsort(groups, kind="stable")
    first = np.searchsorted(groups[order], np.arange(n_groups))

    def sums(e: Array) -> Array:
        totals = np.add.reduceat(e[:, order], first, axis=1)
        both = np.stack([(e**2).sum(axis=1), (totals**2).sum(axis=1)], axis=1)
        return both[np.isfinite(both).all(axis=1)]

    def expected(variances: Array) -> Array:
        """Mean sums (cases, 2) of refits to noise of variances (cases, 2), all in one call."""
        noise = np.concatenate([np.sqrt(a) * z_group + np.sqrt(b) * z_row for a, b in variances])
        found = [sums(each) for each in np.split(residuals(noise), len(variances))]
        if min(map(len, found)) < probes // 2:
            raise ValueError("most fits to simulated noise fail")
        return np.array([each.mean(axis=0) for each in found])

    target = sums(observed[None])[0]
    single = n_groups == n_rows
    unit = np.array([0.0 if single else scale**2, scale**2])
    share = expected(np.diag(unit)).T / scale**2
    if share[0, 1] < 1e-6 * n_rows:
        raise ValueError("the fit has as many parameters as rows")
    if not single and share[1, 0] < 1e-6 * n_rows:
        raise ValueError("the fit absorbs what the rows of a unit share")
    variances = _solve(share, target, single)
    for _ in range(_ROUNDS):
        before = variances
        missing = target - expected(variances[None])[0]
        variances = _solve(share, share @ variances + missing, single)
        if np.all(np.abs(variances - before) <= _SETTLED * before):
            break
    return Components(group=float(np.sqrt(variances[0])), row=float(np.sqrt(variances[1])))


def component_noise(
    rng: np.random.Generator,
    n_resamples: int,
    groups: Labels,
    components: Components,
    freedom: float,
) -> Array:
    """(n_resamples, rows) noise with both components, drawn from a t-like mixture.

    The components are known from few runs. Each replicate therefore scales both by
    sqrt(freedom / chi^2(freedom)), as Student's t does for an unknown variance.
    """
    n_groups = int(groups.max()) + 1
    shared = rng.standard_normal((n_resamples, n_groups))[:, groups]
    own = rng.standard_normal((n_resamples, len(groups)))
    inflation = np.sqrt(freedom / rng.chisquare(freedom, (n_resamples, 1)))
    return inflation * (components.group * shared + components.row * own)


def episode_noise(rng: np.random.Generator, n_resamples: int, returns: Sequence[Array]) -> Array:
    """(n_resamples, rows) mean of resampled episodes less their mean, row by row.

    `returns` holds the returns of the episodes of every row. An episode is taken Poisson(1) times
    (Hanley, MacGibbon 2006, "Creating non-parametric bootstrap samples using Poisson frequencies"):
    about the mean, the noise has the variance and skewness of drawing n of n with replacement.
    Rows share the counts of a chunk of replicates, each with its episodes in a fresh random order:
    one product of matrices instead of as many random numbers as episodes and replicates.
    """
    noise = np.empty((n_resamples, len(returns)))
    centred = [episodes - episodes.mean() for episodes in returns]
    most = max(map(len, centred), default=0)
    for start in range(0, n_resamples, _EPISODE_CHUNK):
        some = noise[start : start + _EPISODE_CHUNK]
        times = rng.poisson(1.0, (len(some), most)).astype(float)
        for row, own in enumerate(centred):
            some[:, row] = times[:, : len(own)] @ rng.permutation(own) / len(own)
    return noise


def _solve(share: Array, target: Array, single: bool) -> Array:
    """Two variances, none negative, from two sums of squares."""
    if single:
        return np.array([0.0, max(target[0] / share[0, 1], 0.0)])
    both = np.asarray(np.linalg.solve(share, target), dtype=float)
    if (both >= 0).all():
        return both
    # On the edge the other variance stands alone, for the sum that it dominates.
    if both[0] < 0:
        return np.array([0.0, max(target[0] / share[0, 1], 0.0)])
    return np.array([max(target[1] / share[1, 0], 0.0), 0.0])
