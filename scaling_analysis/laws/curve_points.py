"""Points of a curve as the grids of `curve_grids` and the solver see them.

Points are (n,) in t = log x, replicates (R, n) in y and weights. A point of weight zero is absent,
so that the origins of a hindcast are replicates.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

LIMIT_GAPS = np.array([1.0, 0.7, 0.4, 0.2, 0.1, 0.05])
"""How far the limit is below the lowest level, as a share of what it can be at most."""
START_GAPS = np.array([0.002, 0.02, 0.1, 0.5, 2.0])
"""How far the start of M4 is above the highest level, as a share of that level or of the range."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Points:
    """What a grid is laid over: falling y at t, with what is known of its limits."""

    t: Array
    """log x, (n,)."""
    y: Array
    """(R, n) or (1, n), falling: a rising curve is given as its negative."""
    weights: Array
    """(R, n) or (1, n)."""
    space: Space
    """"log": y is of one sign, residuals are relative. "linear": residuals are of y."""
    limit: float = -np.inf
    """What y cannot fall below."""
    start: float | None = None
    """What y starts from at x = 0, where that is known."""
    sign: float = 1.0
    """-1 where y is the negative of what was observed."""

    @property
    def mu(self) -> Array:
        """The observed response in the space of its residuals, log or linear."""
        observed = self.sign * self.y
        return np.log(observed) if self.space == "log" else observed

    @property
    def relative(self) -> Array:
        """Weights that make squared residuals of y those of the residual space."""
        return self.weights / self.y**2 if self.space == "log" else self.weights

    def span(self) -> tuple[Array, Array]:
        """First and last t present: (R, 1), or (1, 1) where it is the same for all replicates."""
        present = self.weights > 0
        first = np.where(present, self.t, np.inf).min(axis=1)[:, None]
        last = np.where(present, self.t, -np.inf).max(axis=1)[:, None]
        if (first == first[0]).all() and (last == last[0]).all():
            return first[:1], last[:1]
        return first, last

    def extent(self) -> tuple[Array, Array]:
        """Lowest and highest y present, (R, 1)."""
        present = self.weights > 0
        return (
            np.where(present, self.y, np.inf).min(axis=1)[:, None],
            np.where(present, self.y, -np.inf).max(axis=1)[:, None],
        )

    def limits(self) -> Array:
        """Candidate limits (R, K) below the lowest level."""
        low, high = self.extent()
        if np.isfinite(self.limit):
            return low - np.maximum(low - self.limit, 0.0) * LIMIT_GAPS
        if self.space == "log":  # y is negative here and has no bound: far means many times
            return low / np.maximum(1 - LIMIT_GAPS, 0.02)
        return low - (high - low) * LIMIT_GAPS

    def starts(self) -> Array:
        """Candidate starts (R, K) above the highest level."""
        low, high = self.extent()
        if self.start is not None:
            return np.full((len(low), 1), self.start)
        if self.space == "log":
            return high + np.abs(high) * START_GAPS / np.where(high < 0, 1 + START_GAPS, 1.0)
        return high + (high - low) * START_GAPS
