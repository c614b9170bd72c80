"""Mean outcome by budget and size, and the plain estimates of the optimum that papers report."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.runlog.findings import Group, slope

MIN_SIZES = 3
"""A budget with fewer sizes has no profile."""


@dataclass(frozen=True, slots=True)
class Profiles:
    """Mean outcome of every (budget, size), sorted by budget and then by size."""

    budgets: NDArray[np.float64]
    """Budget of each profile, rising."""
    start: NDArray[np.intp]
    """First cell of each profile."""
    profile: NDArray[np.intp]
    """Profile of each cell."""
    params: NDArray[np.float64]
    value: NDArray[np.float64]
    """Mean of the target in each cell; for returns its negative, so that less is better."""
    spread: NDArray[np.float64]
    """Standard deviation of the log of the target between runs of the cell; NaN for one run."""
    runs: NDArray[np.float64]

    @classmethod
    def of(cls, cells: pd.DataFrame) -> Self | None:
        """From cells with columns budget, params, value, spread, runs; None without a profile."""
        cells = cells[cells.groupby("budget")["params"].transform("size") >= MIN_SIZES]
        if cells.empty:
            return None
        cells = cells.sort_values(["budget", "params"])
        budgets, start, profile = np.unique(cells["budget"], return_index=True, return_inverse=True)
        columns = (cells[name].to_numpy(float) for name in ("params", "value", "spread", "runs"))
        return cls(budgets, start, profile, *columns)

    @property
    def end(self) -> NDArray[np.intp]:
        """One past the last cell of each profile."""
        return np.append(self.start[1:], len(self.params))

    def optimum(self) -> NDArray[np.intp]:
        """Cell of the best size of each profile; of equal ones the smallest size."""
        best = np.minimum.reduceat(self.value, self.start)
        cells = np.flatnonzero(self.value == best[self.profile])
        return cells[np.unique(self.profile[cells], return_index=True)[1]]

    def exponent(self) -> float:
        """Exponent of N_opt by the line of log N of the grid optimum on log C."""
        return slope(np.log(self.budgets), np.log(self.params[self.optimum()]))

    def exponent_without(self, size: float) -> float:
        """The same with one size left out of every profile."""
        best = self.optimum()
        for profile in np.flatnonzero(self.params[best] == size):
            cells = np.arange(self.start[profile], self.end[profile])
            cells = cells[self.params[cells] != size]
            best[profile] = cells[self.value[cells].argmin()]
        return slope(np.log(self.budgets), np.log(self.params[best]))

    def vertices(self, reach: int | None = None) -> NDArray[np.float64]:
        """Log N at the vertex of a parabola through log L of each profile, NaN where it has none.

        The whole profile is used and the vertex must lie inside it, or, with `reach` = 2, the five
        sizes around the grid optimum (fewer at an end), and it may lie one span outside.
        """
        x, y = np.log(self.params), np.log(self.value)
        used = np.ones(len(x), dtype=bool)
        if reach is not None:
            used = np.abs(np.arange(len(x)) - self.optimum()[self.profile]) <= reach
        total = np.add.reduceat(used.astype(float), self.start)
        middle = np.add.reduceat(x * used, self.start) / total
        x = x - middle[self.profile]
        moments = np.stack([np.add.reduceat(x**k * used, self.start) for k in range(5)], axis=1)
        right = np.stack([np.add.reduceat(x**k * y * used, self.start) for k in range(3)], axis=1)
        normal = moments[:, np.add.outer(np.arange(3), np.arange(3))]
        solvable = total >= MIN_SIZES
        vertex = np.full(len(total), np.nan)
        _, linear, square = np.linalg.solve(normal[solvable], right[solvable, :, None])[..., 0].T
        with np.errstate(divide="ignore", invalid="ignore"):
            vertex[solvable] = np.where(square > 0, -linear / (2 * square), np.nan)
        first = np.minimum.reduceat(np.where(used, x, np.inf), self.start)
        last = np.maximum.reduceat(np.where(used, x, -np.inf), self.start)
        beyond = 0.0 if reach is None else last - first
        inside = (vertex > first - beyond) & (vertex < last + beyond)
        return np.where(inside, vertex + middle, np.nan)


def grid_optima(group: Group, target: str) -> Profiles | None:
    """Profiles of the group's rows; means over the runs of a size, of returns over episodes."""
    budget, values = group.column("budget"), group.column(target)
    use = np.isfinite(budget) & np.isfinite(values)
    if target == "loss":
        use &= values > 0
    if not use.any():
        return None
    weights = np.ones(len(values))
    if target == "mean_return":
        episodes = group.column("episodes")
        weights = np.where(np.isfinite(episodes), episodes, 1.0)
    frame = pd.DataFrame(
        {
            "budget": budget[use],
            "params": group.params[use],
            "weighted": (weights * values)[use],
            "weight": weights[use],
            "log": np.log(values[use]) if target == "loss" else np.nan,
        }
    )
    grouped = frame.groupby(["budget", "params"], as_index=False)
    cells = grouped.agg(
        weighted=("weighted", "sum"),
        weight=("weight", "sum"),
        spread=("log", "std"),
        runs=("log", "size"),
    )
    sign = 1.0 if target == "loss" else -1.0
    cells["value"] = sign * cells["weighted"] / cells["weight"]
    return Profiles.of(cells)
