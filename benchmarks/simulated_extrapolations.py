"""Curves and surfaces of known families with noise, to choose and to check extrapolation on.

A case is what a user has: few to some dozens of points, evenly spaced in log x or in x, noise that
is independent or not, and truths that lie 1.5 to 30 times beyond the last point.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

FAMILIES = ("floor", "power", "broken", "sigmoid", "return", "wander")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Case:
    """Points to fit and new observations beyond them."""

    family: str
    inputs: Array
    """(n,) or (n, k)."""
    y: Array
    new_inputs: Array
    new_y: Array
    new_truth: Array
    """What `new_y` is without its noise; NaN where nobody knows it."""
    direction: str
    log: bool
    """Whether errors are judged in log y."""


def simulate_curves(count: int, rng: np.random.Generator) -> Iterator[Case]:
    """`count` curves, the families in turn."""
    for i in range(count):
        yield _simulate_curve(FAMILIES[i % len(FAMILIES)], rng)


def _simulate_curve(family: str, rng: np.random.Generator) -> Case:
    n = int(rng.choice([5, 6, 8, 10, 12, 16, 24, 40]))
    reach = np.log(10) * rng.uniform(1, 4)
    if family == "return" or rng.random() < 0.15:
        x = np.linspace(1, np.exp(reach), n + 1)[int(rng.random() < 0.5) :][:n]
        new_x = np.linspace(x[-1], x[-1] * rng.choice([1.5, 2, 4]), 6)[1:]
    else:
        t = np.sort(np.linspace(0, reach, n) + rng.normal(0, 0.15 * reach / n, n))
        x = np.exp(t - t[0])
        new_x = x[-1] * np.exp(np.linspace(0, rng.uniform(np.log(2), np.log(30)), 5)[1:])
    t = np.log(np.concatenate([x, new_x]) / x[0])
    y, direction = _truth(family, t, t[n - 1], n, rng)
    y *= np.exp(rng.normal())
    noise, rho = np.exp(rng.uniform(np.log(0.001), np.log(0.03))), rng.choice([0.0, 0.5])
    shock = rng.normal(size=len(t))
    for k in range(1, len(t)):
        shock[k] = rho * shock[k - 1] + np.sqrt(1 - rho**2) * shock[k]
    additive, truth = family == "return", y
    y = y + 3 * noise * np.ptp(y) * shock if additive else y * np.exp(noise * shock)
    return Case(
        family=family,
        inputs=x,
        y=y[:n],
        new_inputs=new_x,
        new_y=y[n:],
        new_truth=truth[n:],
        direction=direction,
        log=not additive,
    )


def _truth(
    family: str, t: Array, last: float, n: int, rng: np.random.Generator
) -> tuple[Array, str]:
    if family == "floor":
        b = np.exp(rng.normal(np.log(0.3), 0.5))
        return np.exp(-b * t) + np.exp(-b * last + rng.normal(-0.5, 1.5)), "decreasing"
    if family == "power":
        b = rng.choice([-1, 1]) * np.exp(rng.normal(np.log(0.4), 0.6))
        return np.exp(-b * t), "decreasing" if b > 0 else "increasing"
    if family == "broken":
        b, later = np.exp(rng.normal(np.log([0.2, 0.3]), [0.6, 0.7]))
        at, width = rng.uniform(0, last), rng.uniform(0.1, 0.8)
        bend = np.logaddexp(0, (t - at) / width) - np.logaddexp(0, -at / width)
        y = np.exp(-b * t - (later - b) * width * bend)
        return y + rng.choice([0, 1]) * y[n - 1] * np.exp(rng.normal(-0.5, 1.2)), "decreasing"
    if family == "sigmoid":
        middle, steepness = rng.uniform(0.3, 1.3) * last, np.exp(rng.normal(0, 0.5))
        end = rng.uniform(0, 0.9)
        return end + (1 - end) / (1 + np.exp(steepness * (t - middle))), "decreasing"
    if family == "return":
        middle, steepness = rng.uniform(0, 1.2) * last, np.exp(rng.normal(np.log(1.5), 0.5))
        end = rng.uniform(0.3, 1)
        start = rng.uniform(0, 0.3) * end
        return start + (end - start) / (1 + np.exp(-steepness * (t - middle))), "increasing"
    grid = np.linspace(0, t[-1], 400)
    slope = 0.25 + 0.06 * np.sqrt(t[-1] / 400) * np.cumsum(rng.normal(size=400))
    return np.exp(-np.interp(t, grid, np.cumsum(slope) * grid[1])), "decreasing"


SURFACES = ("additive", "no floor", "interacting", "scattered")


def simulate_surfaces(count: int, rng: np.random.Generator) -> Iterator[Case]:
    """`count` surfaces of a loss over (N, D), the families in turn; new rows spend more."""
    for i in range(count):
        yield _simulate_surface(SURFACES[i % len(SURFACES)], rng)


def _simulate_surface(family: str, rng: np.random.Generator) -> Case:
    budgets = np.log(1e17) + np.cumsum(rng.uniform(0.7, 1.5, size=int(rng.integers(4, 8))))
    new_budgets = budgets[-1] + np.cumsum(rng.uniform(0.7, 2.0, size=2))
    sizes = int(rng.integers(4, 11))
    log_nd = np.repeat(np.concatenate([budgets, new_budgets]) - np.log(6), sizes)
    share = np.tile(np.linspace(-1, 1, sizes), len(budgets) + 2) * rng.uniform(0.7, 1.5)
    if family == "scattered":
        log_nd = log_nd + rng.uniform(-0.4, 0.4, len(log_nd))
        share = rng.uniform(-1.2, 1.2, len(log_nd))
    log_n = 0.5 * log_nd - 1.5 + share
    log_d = log_nd - log_n
    alpha, beta = rng.uniform(0.2, 0.5, size=2)
    n_part = np.exp(-alpha * (log_n - np.median(log_n)) + rng.normal(0, 0.4))
    d_part = np.exp(-beta * (log_d - np.median(log_d)) + rng.normal(0, 0.4))
    y = n_part + d_part
    if family == "interacting":
        y = y + rng.uniform(-0.3, 0.6) * np.sqrt(n_part * d_part)
    if family != "no floor":
        y = y + np.exp(rng.normal(0.5, 0.6))
    truth = y
    y = y * np.exp(np.exp(rng.uniform(np.log(0.001), np.log(0.02))) * rng.normal(size=len(y)))
    old = np.arange(len(y)) < sizes * len(budgets)
    inputs = np.exp(np.stack([log_n, log_d], axis=1))
    return Case(
        family=family,
        inputs=inputs[old],
        y=y[old],
        new_inputs=inputs[~old],
        new_y=y[~old],
        new_truth=truth[~old],
        direction="decreasing",
        log=True,
    )
