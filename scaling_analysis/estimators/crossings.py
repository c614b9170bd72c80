"""Learning curves compared at common values of C: where each of them crosses each C."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError

Array = NDArray[np.float64]

MIN_SIZES = 3
"""Curves of fewer distinct sizes have no best one with a larger and a smaller beside it."""
_POINTS = 48
_NEAR = 10.0
"""The curvature of a frontier is known, and holds, within this factor of N_opt."""


class Crossings(NamedTuple):
    """Where learning curves cross each C of a grid, or the rows that stand at each budget."""

    flops: Array
    """(G,) C of the grid."""
    point: NDArray[np.intp]
    """(E,) grid point of each crossing."""
    left: NDArray[np.intp]
    """(E,) row before it."""
    right: NDArray[np.intp]
    """(E,) row after it."""
    share: Array
    """(E,) weight of the row after it, by distance in log C."""

    def values(self, y: Array, log_space: bool) -> Array:
        """(R, E) the curves of responses y, (R, rows), at the crossings: straight lines in log C.

        And in log y, where that is asked for.
        """
        shown = np.log(y) if log_space else y
        between = (1 - self.share) * shown[:, self.left] + self.share * shown[:, self.right]
        return np.exp(between) if log_space else between

    def weights(self, weights: Array) -> Array:
        """(R, E) from weights of rows: a crossing needs both of its, unless it lies on one."""
        return np.minimum(
            np.where(self.share < 1, weights[:, self.left], np.inf),
            np.where(self.share > 0, weights[:, self.right], np.inf),
        )


def cross_curves(rows: pd.DataFrame, grid: Array) -> Crossings:
    """Every crossing of a learning curve with a C of the grid."""
    flops = rows["flops"].to_numpy(dtype=float)
    columns: list[tuple[NDArray[Any], ...]] = []
    run = pd.factorize(rows["run_id"])[0]
    for label in range(run.max() + 1):
        members = np.flatnonzero(run == label)
        order = members[np.argsort(flops[members], kind="stable")]
        c = flops[order]
        point = np.flatnonzero((grid >= c[0]) & (grid <= c[-1]))
        if c[0] == c[-1] or not len(point):
            continue
        after = np.clip(np.searchsorted(c, grid[point]), 1, len(c) - 1)
        width = np.log(c[after] / c[after - 1])
        share = np.log(grid[point] / c[after - 1]) / np.where(width > 0, width, 1.0)
        columns.append((point, order[after - 1], order[after], np.clip(share, 0.0, 1.0)))
    point, left, right, share = (np.concatenate(column) for column in zip(*columns, strict=True))
    return Crossings(flops=grid, point=point, left=left, right=right, share=share)


def common_flops(rows: pd.DataFrame) -> Array:
    """Evenly spaced log C, as C, at which at least three sizes have a learning curve.

    Raises
    ------
    FitError
        Fewer than three sizes have two checkpoints or more, or nowhere three of them together.
    """
    curves = _spans(rows)
    sizes = curves["n"].nunique()
    if sizes < MIN_SIZES:
        raise FitError(
            f"{sizes} size{' has' if sizes == 1 else 's have'} a learning curve (two checkpoints "
            f"or more), {MIN_SIZES} are needed: the envelope wants several checkpoints a run; for "
            "single runs use fit_isoflop or fit_parametric"
        )
    grid = np.geomspace(curves["low"].min(), curves["high"].max(), _POINTS)
    low, high, n = (curves[name].to_numpy(dtype=float) for name in ("low", "high", "n"))
    covered = (low <= grid[:, None]) & (grid[:, None] <= high)
    enough = np.array([len(np.unique(n[row])) >= MIN_SIZES for row in covered])
    if not enough.any():
        raise FitError("no compute is covered by the learning curves of three sizes")
    return grid[enough]


def is_interior(
    best: NDArray[np.int64], weights: Array, cell: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """(R,) whether a larger and a smaller size than the best one are present at a C.

    Parameters
    ----------
    best : (R,)
        Index of the best size.
    weights : (R, crossings)
        Zero where a crossing is absent.
    cell : (crossings,)
        Index of the size of each crossing.
    """
    present = weights @ np.eye(cell.max() + 1)[cell] > 0
    first = present.argmax(axis=1)
    last = present.shape[1] - 1 - present[:, ::-1].argmax(axis=1)
    return (first < best) & (best < last)


def has_curves(rows: pd.DataFrame) -> bool:
    """Whether enough sizes have a learning curve."""
    return _spans(rows)["n"].nunique() >= MIN_SIZES


def near_optimum(params: Array, params_opt: Array) -> NDArray[np.bool_]:
    """Where an envelope says anything of a size N: within a factor of ten of N_opt."""
    return np.abs(np.log(params / params_opt)) <= np.log(_NEAR)


def _spans(rows: pd.DataFrame) -> pd.DataFrame:
    """Size, first and last C of every run that has a learning curve."""
    spans = rows.groupby("run_id").agg(
        n=("params", "first"), low=("flops", "min"), high=("flops", "max")
    )
    return spans[spans["low"] < spans["high"]]
