"""Run logs drawn from a known law: for tests, coverage studies, and "how many runs do I need"."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError
from scaling_analysis.laws.cost import Cost
from scaling_analysis.runlog import load_runs

Array = NDArray[np.float64]


class TrueLaw(Protocol):
    """What a simulation needs of a law. Every fitted frontier has it too."""

    @property
    def cost(self) -> Cost: ...

    def params_opt(self, flops: ArrayLike) -> Array: ...

    def value_opt(self, flops: ArrayLike) -> Array: ...

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdditiveSurface:
    """L = E + A/N^alpha + B/D^beta with C = k N D (Hoffmann et al. 2022, approach 3).

    Examples
    --------
    >>> law = AdditiveSurface(E=1.8, A=480.0, alpha=0.35, B=2100.0, beta=0.37)
    >>> round(law.params_exponent, 4), f"{law.params_opt(6e23):.3g}"
    (0.5139, '7.86e+10')
    """

    E: float
    """Irreducible loss [nats/action]."""
    A: float
    alpha: float
    B: float
    beta: float
    cost_constant: float = 6.0
    """k [FLOP/(parameter sample)]."""

    @property
    def cost(self) -> Cost:
        return _constant_cost(self.cost_constant)

    @property
    def params_exponent(self) -> float:
        """a in N_opt ~ C^a."""
        return self.beta / (self.alpha + self.beta)

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count], in closed form."""
        total = self.alpha + self.beta
        balance = (self.alpha * self.A / (self.beta * self.B)) ** (1 / total)
        return balance * (np.asarray(flops, dtype=float) / self.cost_constant) ** (
            self.params_exponent
        )

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action]."""
        return self.value(self.params_opt(flops), flops)

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Loss [nats/action] of a run of N `params` on C `flops`."""
        n = np.asarray(params, dtype=float)
        d = np.asarray(flops, dtype=float) / (self.cost_constant * n)
        return self.E + self.A / n**self.alpha + self.B / d**self.beta


@dataclass(frozen=True, slots=True, kw_only=True)
class SymmetricSurface:
    """L = E + s C^-g + k (log N - log N_opt)^2 with N_opt = n C^a: parabolic profiles."""

    floor: float
    """E [nats/action]."""
    scale: float
    """s."""
    exponent: float
    """g."""
    params_scale: float
    """n."""
    params_exponent: float
    """a."""
    curvature: float
    """k [nats/action]."""
    cost_constant: float = 6.0

    @property
    def cost(self) -> Cost:
        return _constant_cost(self.cost_constant)

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count]."""
        return self.params_scale * np.asarray(flops, dtype=float) ** self.params_exponent

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action]."""
        return self.floor + self.scale * np.asarray(flops, dtype=float) ** -self.exponent

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Loss [nats/action] of a run of N `params` on C `flops`."""
        away = np.log(np.asarray(params, dtype=float) / self.params_opt(flops))
        return self.value_opt(flops) + self.curvature * away**2


def simulate_runs(
    law: TrueLaw,
    sizes: ArrayLike,
    budgets: ArrayLike,
    *,
    seeds: int | Sequence[int] = 1,
    snapshots: bool = True,
    sizes_per_budget: int | None = None,
    run_noise: float = 0.0,
    seed_noise: float = 0.0,
    checkpoint_noise: float = 0.0,
    evaluation_noise: float = 0.0,
    link: Callable[[Array], ArrayLike] | None = None,
    return_noise: float = 0.0,
    episodes: int = 200,
    episode_spread: float = 1.0,
    rng: int | np.random.Generator | None = 0,
) -> pd.DataFrame:
    """A run log of the sweep sizes x budgets x seeds under a known law.

    Parameters
    ----------
    law : TrueLaw
        Expected loss, `AdditiveSurface`, `SymmetricSurface` or any fitted frontier of the loss.
    sizes, budgets : array_like
        N [count] and C [FLOP].
    seeds : int or sequence of int
        Number of seeds, or the seeds.
    snapshots : bool
        One long run a (size, seed), evaluated at every budget; otherwise a run a row.
    sizes_per_budget : int, optional
        Only this many sizes around N_opt at each budget, as `plan_ladder` lays them out.
    run_noise, seed_noise, checkpoint_noise : float
        Standard deviations of log loss: common to all rows of a run, to all runs of a seed, and of
        every row on its own.
    evaluation_noise : float
        Relative standard error of the measured loss: added to it, and logged as `loss_se`.
    link : callable, optional
        Return [points] as a function of the loss without evaluation noise. Adds the columns
        mean_return, return_se, episodes and protocol.
    return_noise : float
        Standard deviation of the log return, common to all rows of a run.
    episodes, episode_spread
        Episodes a row, and the standard deviation of an episode over its mean; episodes follow a
        gamma distribution, so the returns have to be positive.
    rng : int, Generator or None

    Returns
    -------
    DataFrame
        A run log as `load_runs` returns it.

    Examples
    --------
    >>> law = AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)
    >>> made = simulate_runs(law, [1e4, 2e4, 4e4], [1e10, 1e11], seeds=2, run_noise=0.01)
    >>> len(made), made["run_id"].nunique()
    (12, 6)
    """
    rng = np.random.default_rng(rng)
    sizes = np.sort(np.atleast_1d(np.asarray(sizes, dtype=float)))
    budgets = np.sort(np.atleast_1d(np.asarray(budgets, dtype=float)))
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not (len(sizes) and len(budgets) and seed_list):
        raise ForecastError("a simulation needs at least one size, one budget and one seed")
    cells = [(n, c) for c in budgets for n in _near(law, sizes, c, sizes_per_budget)]
    params, flops = (np.tile(column, len(seed_list)) for column in zip(*cells, strict=True))
    seed = np.repeat(seed_list, len(cells))
    run = [
        f"n{n:.4g}-s{s}" if snapshots else f"n{n:.4g}-c{c:.4g}-s{s}"
        for n, c, s in zip(params, flops, seed, strict=True)
    ]
    deviation = (
        run_noise * _shared(run, rng)
        + seed_noise * _shared(seed, rng)
        + checkpoint_noise * rng.standard_normal(len(params))
    )
    loss = law.value(params, flops) * np.exp(deviation)
    frame = pd.DataFrame(
        {
            "run_id": run,
            "agent": "simulated",
            "task": "simulated",
            "seed": seed,
            "params": params,
            "samples": law.cost.samples(params, flops),
            "flops": flops,
            "budget": flops,
            "loss": loss,
        }
    )
    if evaluation_noise > 0:
        frame["loss"] = loss * (1 + evaluation_noise * rng.standard_normal(len(loss)))
        frame["loss_se"] = evaluation_noise * loss
    if link is not None:
        expected = np.asarray(link(loss), dtype=float) * np.exp(return_noise * _shared(run, rng))
        if not (expected > 0).all():
            raise ForecastError("the link gives returns that are not positive")
        # The mean of n gamma variables of spread s is a gamma variable of shape n/s^2.
        shape = episodes / episode_spread**2
        frame["mean_return"] = rng.gamma(shape, expected / shape)
        frame["return_se"] = frame["mean_return"] / np.sqrt(shape)
        frame["episodes"] = float(episodes)
        frame["protocol"] = "simulated-1"
    return load_runs(frame)


def _near(law: TrueLaw, sizes: Array, flops: float, count: int | None) -> Array:
    """The sizes that a budget gets: all, or the `count` nearest to its optimum."""
    if count is None:
        return sizes
    distance = np.abs(np.log(sizes / law.params_opt(flops)))
    return np.sort(sizes[np.argsort(distance, kind="stable")[:count]])


def _shared(labels: ArrayLike, rng: np.random.Generator) -> Array:
    """A standard normal number for every distinct label, at the rows that carry it."""
    distinct, member = np.unique(labels, return_inverse=True)
    return rng.standard_normal(len(distinct))[member]


def _constant_cost(k: float) -> Cost:
    return Cost(constant=k, spread=0.0, log_params=(0.0,), log_flops_per_sample=(float(np.log(k)),))
