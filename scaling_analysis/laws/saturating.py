"""Saturating return curves R = R0 + (A - R0)/(1 + (C_mid/C)^B) (Khatri et al. 2025, ScaleRL).

The asymptote A is what the curve is fitted for and what it determines worst. It is looked for on a
grid; at each A, C_mid and B are, and R0, where it is not known, is linear. All replicates share the
nodes, so that sums of squares are matrix products; the best node is then polished by least squares.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws.curves import SIGMOID, CurveLaw, logistic
from scaling_analysis.laws.newton import minimize_huber

Array = NDArray[np.float64]

STEEPNESS = (0.1, 10.0)
"""Where B is looked for."""
AHEAD = np.log(1000.0)
"""C_mid is looked for up to a thousand times beyond the data."""
_MIDDLES = 60
_STEEPNESSES = 24
_CELLS = 2**21
_NEAR = 0.8
"""Factor (a log) around C_mid and B in which a profile over A is refined."""


class Saturating(NamedTuple):
    """Curves of R replicates, (R,) each but the last."""

    start: Array
    """R0 [points]."""
    asymptote: Array
    """A [points]."""
    log_middle: Array
    """log C_mid [FLOP]."""
    steepness: Array
    """B."""
    squares: Array
    """Weighted sum of squared residuals."""
    converged: NDArray[np.bool_]
    profile: Array
    """(R, grid) the same at every A of the grid, best over the nodes of the other parameters."""


@dataclass(frozen=True, slots=True, eq=False)
class SaturatingProblem:
    """A curve's points and where its parameters are looked for."""

    log_x: Array
    """(n,) log C, increasing."""
    start: float | None
    """R0 where it is known."""
    asymptotes: Array
    """(G,) grid over A."""

    def solve(self, y: Array, weights: Array) -> Saturating:
        """Least squares of all replicates; y and weights (R, n)."""
        middles = np.linspace(self.log_x[0] - 1.0, self.log_x[-1] + AHEAD, _MIDDLES)
        steps = np.geomspace(*STEEPNESS, _STEEPNESSES)
        middle, steep = (v.ravel() for v in np.meshgrid(middles, steps, indexing="ij"))
        shape = logistic(steep[:, None] * (self.log_x - middle[:, None]))
        count = len(y)
        profile = np.empty((count, len(self.asymptotes)))
        seeds = np.empty((count, 4))
        chunk = max(1, _CELLS // (len(middle) * len(self.asymptotes)))
        for first in range(0, count, chunk):
            some = slice(first, first + chunk)
            profile[some], seeds[some] = self._scan(y[some], weights[some], shape, middle, steep)
        unit = np.ptp(y, axis=1).max()
        low, high = self._bounds(unit)
        law = CurveLaw(curve=SIGMOID, t=self.log_x, lower=low, upper=high, space="linear", sign=1.0)
        scaled = seeds / np.array([unit, unit, 1.0, 1.0])
        found = minimize_huber(law, y / unit, weights, scaled, delta=np.inf)
        theta = found.theta * np.array([unit, unit, 1.0, 1.0])
        squares = 2 * found.objective * unit**2
        start, end, log_middle, steepness = theta.T
        return Saturating(start, end, log_middle, steepness, squares, found.converged, profile)

    def refined_profile(self, y: Array, weights: Array, found: Saturating) -> Array:
        """(G,) least squares at every A for one replicate, nodes dense around its optimum."""
        middles = found.log_middle[0] + np.linspace(-_NEAR, _NEAR, 2 * _MIDDLES)
        steps = found.steepness[0] * np.exp(np.linspace(-_NEAR, _NEAR, 2 * _STEEPNESSES))
        middle, steep = (v.ravel() for v in np.meshgrid(middles, steps, indexing="ij"))
        shape = logistic(steep[:, None] * (self.log_x - middle[:, None]))
        dense = self._scan(y, weights, shape, middle, steep)[0]
        return np.minimum(dense, found.profile)[0]

    def _scan(
        self, y: Array, weights: Array, shape: Array, middle: Array, steep: Array
    ) -> tuple[Array, Array]:
        """Least squares at every A, (R, G), and the parameters of the best node, (R, 4)."""
        rest = 1 - shape
        wy = weights * y
        on_end, on_start = wy @ shape.T, wy @ rest.T
        end2, both, start2 = (weights @ v.T for v in (shape**2, shape * rest, rest**2))
        total = (wy * y).sum(axis=1)[:, None, None]
        a = self.asymptotes[None, :, None]
        s, t, ee, es, ss = (v[:, None, :] for v in (on_end, on_start, end2, both, start2))
        # y ~ start (1 - shape) + A shape: the best start is linear, given A.
        if self.start is None:
            start = (t - a * es) / np.where(ss > 0, ss, np.inf)
        else:
            start = np.full_like(a, self.start)
        squares = total - 2 * (a * s + start * t) + a**2 * ee + 2 * a * start * es + start**2 * ss
        squares = np.maximum(squares, 0.0)
        best = squares.reshape(len(y), -1).argmin(axis=1)
        row, node = np.unravel_index(best, squares.shape[1:])
        at = np.arange(len(y))
        start = np.broadcast_to(start, squares.shape)[at, row, node]
        seeds = np.stack([start, self.asymptotes[row], middle[node], steep[node]], axis=1)
        return squares.min(axis=2), seeds

    def _bounds(self, unit: float) -> tuple[Array, Array]:
        """Of start, asymptote, log C_mid and B, returns in units of their range."""
        known = -np.inf if self.start is None else self.start / unit
        top = np.inf if self.start is None else known
        low = [known, self.asymptotes[0] / unit, self.log_x[0] - 2.0, STEEPNESS[0]]
        high = [top, self.asymptotes[-1] / unit, self.log_x[-1] + AHEAD, STEEPNESS[1]]
        return np.array(low), np.array(high)


def saturating_value(curve: Saturating, log_x: Array) -> Array:
    """R at log C: (R,) + the shape of `log_x`."""
    lift = (slice(None),) + (None,) * log_x.ndim
    start, end, middle, steep = (v[lift] for v in curve[:4])
    return start + (end - start) * logistic(steep * (log_x - middle))
