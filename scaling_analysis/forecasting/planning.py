"""Plans of training runs: a first ladder, and the runs around a forecast.

A plan is a DataFrame in the run log's names, one row a run. A run trains one size to its largest
budget and is evaluated on the way, at each of its `snapshots`, so that budgets share runs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING
from warnings import warn

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import PlanError, ScalingWarning
from scaling_analysis.forecasting.plan_files import PLAN_COLUMNS, join_budgets, short_number

if TYPE_CHECKING:
    from scaling_analysis.forecasting.forecasting import Forecast

Array = NDArray[np.float64]
OfSize = Callable[[Array], ArrayLike]
"""A function of an array of params [count]."""

_MIN_SIZES = 3
"""Fewer sizes at a budget cannot show a minimum."""


def plan_ladder(
    flops: tuple[float, float],
    params: tuple[float, float],
    *,
    task: str,
    agent: str,
    seeds: int | Sequence[int] = 3,
    budgets: int | Sequence[float] = 6,
    sizes: int | None = None,
    sizes_per_budget: int = 6,
    cost: float | OfSize = 6.0,
    unique_samples: float | None = None,
    max_epochs: float = 2.0,
    centre: OfSize | None = None,
    protocol: str | None = None,
    learning_rate: float | OfSize | None = None,
    batch_size: float | OfSize | None = None,
) -> pd.DataFrame:
    """Plan a first sweep: a band of sizes around the expected optimum of every budget.

    Budgets and sizes lie evenly in log over the two ranges (by default a size every factor of two,
    at least six). Each budget gets the `sizes_per_budget` sizes nearest to its
    expected optimum, because a square of sizes and budgets spends most of its compute where the
    isoFLOP profile is steep and says little about its minimum. A (size, seed) is one run to the
    largest of its budgets with a snapshot at each.

    Parameters
    ----------
    flops, params : (float, float)
        Smallest and largest budget [FLOP] and size [count].
    task, agent : str
        What is trained: the names that the run log will carry.
    seeds : int or sequence of int
        Number of seeds (0, 1, ...), or the seeds.
    budgets : int or sequence of float
        Number of budgets, or the budgets [FLOP], such as those of a log that the runs are to join;
        the smallest and the largest are those of `flops`.
    sizes : int, optional
        Number of sizes.
    sizes_per_budget : int
        Sizes that each budget is trained with.
    cost : float or callable
        k of C = k N D, or a function from params to counted FLOP a sample.
    unique_samples : float, optional
        Distinct samples available [count]. Cells that would go over them more than `max_epochs`
        times are left out, and `epochs` is filled in.
    centre : callable, optional
        Function from flops [FLOP] to the expected N_opt [count], such as the `params_opt` of a fit
        or a forecast. Default: C^(1/2) through the geometric middle of both ranges (the exponent
        of Hoffmann et al. 2022).
    protocol : str, optional
        Evaluation protocol of the returns.
    learning_rate, batch_size : float or callable, optional
        A number or a function of params; without one the trainer's own rule decides.

    Returns
    -------
    DataFrame
        One row a run with the columns `PLAN_COLUMNS`, smallest size first.

    Raises
    ------
    PlanError
        A range is empty or not positive, or a budget keeps fewer than three sizes.

    Examples
    --------
    >>> plan = plan_ladder((1e10, 3e12), (4e3, 4e5), task="nethack", agent="lstm", seeds=1)
    >>> float(plan["params"][0]), plan["snapshots"][0]
    (4000.0, '1e10;3e10')
    """
    budget_grid = _budget_grid(flops, budgets)
    if sizes is None:
        low, high = _checked_range("params", params)
        sizes = max(6, int(np.ceil(np.log2(high / low))) + 1)
    size_grid = _spaced("params", params, sizes)
    if min(sizes, sizes_per_budget) < _MIN_SIZES:
        raise PlanError(
            f"sizes={sizes}, sizes_per_budget={sizes_per_budget}: a minimum needs at least "
            f"{_MIN_SIZES} sizes at every budget"
        )
    per_sample = _flops_per_sample(cost, size_grid)
    expected = _expected_optimum(centre, budget_grid, flops, params)
    epochs = None
    if unique_samples is not None:
        _check_positive("unique_samples", unique_samples)
        epochs = budget_grid[:, None] / per_sample / unique_samples
    member = _band(budget_grid, size_grid, expected, sizes_per_budget, epochs, max_epochs)

    rows = []
    for size, cost_of_size, of_size in zip(size_grid, per_sample, member.T, strict=True):
        if of_size.any():
            own = budget_grid[of_size]
            rows += [(size, own[-1], own[-1] / cost_of_size, own, s) for s in _seed_list(seeds)]
    return _plan(
        rows, task, agent, unique_samples, protocol, learning_rate, batch_size, forecast_hash=""
    )


def plan_forecast(
    forecast: "Forecast",
    flops: ArrayLike,
    *,
    spread: Sequence[float] = (0.5, 1.0, 2.0),
    seeds: int | Sequence[int] = 2,
    share: float = 1.0,
    task: str | None = None,
    agent: str | None = None,
    method: str = "combined",
    unique_samples: float | None = None,
    protocol: str | None = None,
    learning_rate: float | OfSize | None = None,
    batch_size: float | OfSize | None = None,
) -> pd.DataFrame:
    """Plan the runs that test a forecast: its N_opt at each budget, and sizes around it.

    Parameters
    ----------
    forecast : Forecast
        What is tested; its hash goes into every row, and `verify` asks for it.
    flops : array_like
        Budgets [FLOP], all of them in the forecast's table.
    spread : sequence of float
        Factors on the forecast N_opt. 1 must be among them, for it is the size whose choice is
        judged against its neighbours.
    seeds : int or sequence of int
        Number of seeds (0, 1, ...), or the seeds.
    share : float
        Budgets whose N_opt lie within this factor of each other share their runs: sizes around the
        geometric mean of their N_opt, with a snapshot at each. By default every budget has its own.
    task, agent, protocol : str, optional
        Default to the forecast's own.
    method : str
        Row of the forecast's table that names N_opt.
    unique_samples, learning_rate, batch_size
        As in `plan_ladder`.

    Returns
    -------
    DataFrame
        One row a run with the columns `PLAN_COLUMNS`: every budget (or group of budgets that
        share), size and seed is a run of its own, trained to the largest of its budgets.

    Raises
    ------
    PlanError
        A budget is not in the forecast's table, `spread` lacks 1, or `share` is below 1.

    Examples
    --------
    >>> plan = plan_forecast(forecast, 1e13, spread=(0.5, 1, 2), seeds=2)
    >>> (plan["params"] / forecast.params_opt(1e13)).round(2).tolist()
    [0.5, 0.5, 1.0, 1.0, 2.0, 2.0]
    """
    factors = np.unique(np.asarray(spread, dtype=np.float64))
    if not np.all(np.isfinite(factors) & (factors > 0)) or 1.0 not in factors:
        raise PlanError(f"spread={tuple(spread)}: give positive factors with 1 among them")
    table = forecast.table[forecast.table["method"] == method].set_index("flops")
    if table.empty:
        known = ", ".join(sorted(forecast.table["method"].unique()))
        raise PlanError(f"method={method!r} is not in the forecast; it has {known}")
    if not share >= 1:
        raise PlanError(f"share={share:g}: a factor of 1 or more")
    budgets = np.unique(np.atleast_1d(np.asarray(flops, dtype=np.float64)))
    missing = [c for c in budgets if c not in table.index]
    if missing:
        known = ", ".join(f"{c:g}" for c in table.index)
        raise PlanError(
            f"{missing[0]:g} FLOP is not in the forecast, which covers {known}; "
            "make the forecast again with this budget among its flops"
        )
    best = table["params_opt"].reindex(budgets).to_numpy(np.float64)
    rows = []
    for group in _within(best, share):
        sizes = np.round(float(np.exp(np.log(best[group]).mean())) * factors)
        own, largest = budgets[group], budgets[group].max()
        per_sample = np.asarray(forecast.flops_per_sample(sizes), dtype=np.float64)
        for size, cost_of_size in zip(sizes, per_sample, strict=True):
            rows += [(size, largest, largest / cost_of_size, own, s) for s in _seed_list(seeds)]
    return _plan(
        rows,
        forecast.task if task is None else task,
        forecast.agent if agent is None else agent,
        unique_samples,
        forecast.protocol if protocol is None else protocol,
        learning_rate,
        batch_size,
        forecast_hash=forecast.hash,
    )


def _within(sizes: Array, factor: float) -> list[list[int]]:
    """Positions of neighbouring sizes, grouped so that a group spans at most a factor."""
    groups: list[list[int]] = []
    for i, size in enumerate(sizes):
        first = sizes[groups[-1][0]] if groups else np.nan
        if max(size / first, first / size) <= factor:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _plan(
    rows: Iterable[tuple[float, float, float, Array, int]],
    task: str,
    agent: str,
    unique_samples: float | None,
    protocol: str | None,
    learning_rate: float | OfSize | None,
    batch_size: float | OfSize | None,
    forecast_hash: str,
) -> pd.DataFrame:
    """Table of runs from (params, budget, samples, snapshots, seed)."""
    size, budget, samples, snapshots, seed = zip(*rows, strict=True)
    params = np.array(size, dtype=np.float64)
    plan = pd.DataFrame(
        {
            "run_id": [
                # A log may name no agent, and a name of a run is no option of a command.
                f"{agent}-{n:.0f}-{short_number(c)}-s{s}".lstrip("-")
                for n, c, s in zip(size, budget, seed, strict=True)
            ],
            "agent": agent,
            "task": task,
            "params": params,
            "samples": np.array(samples, dtype=np.float64),
            "budget": np.array(budget, dtype=np.float64),
            "snapshots": [join_budgets(own) for own in snapshots],
            "seed": np.array(seed, dtype=np.int64),
            "learning_rate": _of_size("learning_rate", learning_rate, params),
            "batch_size": _of_size("batch_size", batch_size, params),
            "epochs": np.array(samples) / (np.nan if unique_samples is None else unique_samples),
            "protocol": "" if protocol is None else protocol,
            "forecast_hash": forecast_hash,
        }
    )
    if plan["run_id"].duplicated().any():
        twice = plan.loc[plan["run_id"].duplicated(), "run_id"].iloc[0]
        raise PlanError(f"two planned runs are both {twice!r}: seeds and sizes must be distinct")
    return plan[list(PLAN_COLUMNS)]


def _band(
    budgets: Array,
    sizes: Array,
    expected: Array,
    per_budget: int,
    epochs: Array | None,
    max_epochs: float,
) -> NDArray[np.bool_]:
    """Which (budget, size) cells to train: the allowed sizes nearest to each expected optimum."""
    allowed = np.ones((budgets.size, sizes.size), dtype=bool)
    if epochs is not None:
        allowed = epochs <= max_epochs
    member = np.zeros_like(allowed)
    thin = []
    for i, budget in enumerate(budgets):
        if allowed[i].sum() < _MIN_SIZES:
            largest = epochs[i].min() if epochs is not None else np.nan
            raise PlanError(
                f"budget {budget:g} FLOP keeps {allowed[i].sum()} of {sizes.size} sizes under "
                f"{max_epochs:g} epochs (the largest size sees {largest:.3g}); give more "
                "unique_samples, larger params, or a smaller budget"
            )
        distance = np.where(allowed[i], np.abs(np.log(sizes / expected[i])), np.inf)
        nearest = np.argsort(distance, kind="stable")[: min(per_budget, allowed[i].sum())]
        member[i, nearest] = True
        if nearest.size < min(5, sizes.size):
            thin.append(f"{budget:g} ({nearest.size})")
    if thin:
        warn(
            f"budgets with fewer than 5 sizes, for {max_epochs:g} epochs allow no more: "
            + ", ".join(thin),
            ScalingWarning,
            stacklevel=3,
        )
    return member


def _expected_optimum(
    centre: OfSize | None,
    budgets: Array,
    flops: tuple[float, float],
    params: tuple[float, float],
) -> Array:
    if centre is None:
        middle_flops, middle_params = np.sqrt(flops[0] * flops[1]), np.sqrt(params[0] * params[1])
        return middle_params * np.sqrt(budgets / middle_flops)
    expected = np.broadcast_to(np.asarray(centre(budgets), dtype=np.float64), budgets.shape)
    if not np.all(np.isfinite(expected) & (expected > 0)):
        raise PlanError(f"centre gives {expected.tolist()}, not a positive size for every budget")
    return expected


def _budget_grid(flops: tuple[float, float], budgets: int | Sequence[float]) -> Array:
    if isinstance(budgets, int):
        return _spaced("flops", flops, budgets)
    grid = np.unique(np.asarray(budgets, dtype=np.float64))
    low, high = _checked_range("flops", flops)
    if not (grid.size > 1 and (grid[0], grid[-1]) == (low, high)):
        raise PlanError(
            f"budgets={list(budgets)}: the smallest and the largest must be those of flops, "
            f"{low:g} and {high:g}"
        )
    return grid


def _spaced(name: str, ends: tuple[float, float], count: int) -> Array:
    """`count` values evenly in log, rounded to the fewest digits that move none by 5 % of a step.

    1e10 to 3e12 in six gives 1, 3, 10, ... rather than 1, 3.13, 9.79: easier to read, same design.
    """
    low, high = _checked_range(name, ends)
    if count < 2:
        raise PlanError(f"{count} values from {low:g} to {high:g} in {name}: at least 2 are needed")
    exact = np.geomspace(low, high, count)
    step = np.log(high / low) / (count - 1)
    for digits in range(1, 6):
        rounded = np.array([float(f"{v:.{digits - 1}e}") for v in exact])
        if np.all(np.abs(np.log(rounded / exact)) < 0.05 * step):
            rounded[[0, -1]] = low, high
            return rounded
    return exact


def _checked_range(name: str, ends: tuple[float, float]) -> tuple[float, float]:
    low, high = (float(v) for v in ends)
    if not (np.isfinite([low, high]).all() and 0 < low < high):
        raise PlanError(f"{name}=({low:g}, {high:g}): give a smallest and a larger positive value")
    return low, high


def _flops_per_sample(cost: float | OfSize, params: Array) -> Array:
    """Counted FLOP of one sample at each size."""
    if callable(cost):
        per_sample = np.asarray(cost(params), dtype=np.float64)
    else:
        per_sample = float(cost) * params
    good = np.isfinite(per_sample) & (per_sample > 0)
    if per_sample.shape != params.shape or not good.all():
        raise PlanError(
            f"cost gives {per_sample.tolist()} FLOP a sample for {params.size} sizes; it must "
            "give one positive number for each"
        )
    return per_sample


def _of_size(name: str, value: float | OfSize | None, params: Array) -> Array:
    if value is None:
        return np.full(params.shape, np.nan)
    given = value(params) if callable(value) else value
    array = np.array(np.broadcast_to(np.asarray(given, dtype=np.float64), params.shape))
    if not np.all(np.isfinite(array) & (array > 0)):
        raise PlanError(f"{name} gives {array.tolist()}, not a positive number for every size")
    return array


def _seed_list(seeds: int | Sequence[int]) -> list[int]:
    chosen = list(range(seeds)) if isinstance(seeds, int) else [int(s) for s in seeds]
    if not chosen:
        raise PlanError(f"seeds={seeds!r}: at least one seed is needed")
    return chosen


def _check_positive(name: str, value: float) -> None:
    if not (np.isfinite(value) and value > 0):
        raise PlanError(f"{name}={value!r} must be a positive number")
