"""The additive law on repeated data (Muennighoff et al. 2023, eqs. 5 and 6).

A pass over samples that were seen before teaches less. With U unique samples and D consumed,
R = D/U - 1 repetitions are worth R* (1 - exp(-R/R*)) fresh ones, and D' = U (1 + that) stands for
D in E + A/N^alpha + B/D'^beta.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.laws.surfaces import Space, SumLaw, additive

Array = NDArray[np.float64]

LOG_REPEAT_BOUNDS = (-3.0, 9.0)
"""Bounds of log R*: from repetitions that are worthless to some that are as good as new."""


def log_effective_samples(
    log_d: Array, log_u: Array | float, log_scale: Array
) -> tuple[Array, Array, Array]:
    """log D' and its first two derivatives in log R*; the inputs broadcast."""
    passes = np.maximum(log_d - log_u, 0.0)  # log(D/U), 0 where nothing repeats (and for U = inf)
    repeats = np.expm1(passes)
    scale = np.exp(log_scale)
    decay = np.exp(-repeats / scale)
    worth = -scale * np.expm1(-repeats / scale)
    first = worth - repeats * decay
    second = first - repeats**2 / scale * decay
    slope = first / (1 + worth)
    return log_d - passes + np.log1p(worth), slope, second / (1 + worth) - slope**2


class _State(NamedTuple):
    """Derivatives at a point: of mu in the floor and the terms' logs, of log D' in log R*."""

    floor_share: Array
    size_share: Array
    data_share: Array
    x: Array
    """log D' relative to its centre."""
    slope: Array
    bend: Array
    beta: Array


@dataclass(frozen=True, eq=False)
class RepeatedLaw:
    """theta = (E, log A, alpha, log B, beta, log R*); a `Law` for `minimize_huber`."""

    log_n: Array
    """log N relative to its centre, (rows,)."""
    log_d: Array
    """log D, (rows,)."""
    log_u: Array
    """log U, (rows,)."""
    centre_d: float
    space: Space

    @property
    def _additive(self) -> SumLaw:
        return additive([self.log_n, self.log_d], (0.0, self.centre_d), self.space)

    @property
    def lower(self) -> Array:
        return np.append(self._additive.lower, LOG_REPEAT_BOUNDS[0])

    @property
    def upper(self) -> Array:
        return np.append(self._additive.upper, LOG_REPEAT_BOUNDS[1])

    def evaluate(self, theta: Array) -> tuple[Array, _State]:
        """mu (R, rows) at theta (R, 6)."""
        floor, a, alpha, b, beta, log_scale = theta.T[:, :, None]
        log_effective, slope, bend = log_effective_samples(self.log_d, self.log_u, log_scale)
        x = log_effective - self.centre_d
        size_term, data_term = np.exp(a - alpha * self.log_n), np.exp(b - beta * x)
        total = floor + size_term + data_term
        if self.space == "linear":
            shares = np.ones_like(total), size_term, data_term
            return total, _State(*shares, x, slope, bend, beta)
        shares = 1 / total, size_term / total, data_term / total
        return np.log(total), _State(*shares, x, slope, bend, beta)

    def contract(self, state: _State, first: Array, second: Array) -> tuple[Array, Array]:
        """See `laws.newton.Law.contract`."""
        jacobian, size_design, data_design = self._derivatives(state)
        gradient = -(first[:, None, :] @ jacobian)[:, 0].T
        hessian = -_gram(size_design, first * state.size_share)
        hessian -= _gram(data_design, first * state.data_share)
        hessian += _gram(jacobian, first + second if self.space == "log" else second)
        # The exponent b - beta log D' is itself curved in (beta, log R*).
        weight = first * state.data_share
        curved = (weight * state.slope).sum(axis=1)
        hessian[:, 4, 5] += curved
        hessian[:, 5, 4] += curved
        hessian[:, 5, 5] += (weight * state.beta * state.bend).sum(axis=1)
        return gradient, hessian.transpose(1, 2, 0)

    def jacobian(self, theta: Array) -> Array:
        """d mu / d theta, (R, rows, 6)."""
        return self._derivatives(self.evaluate(theta)[1])[0]

    def _derivatives(self, state: _State) -> tuple[Array, Array, Array]:
        """d mu and the derivatives of the two terms' exponents, (R, rows, 6) each."""
        size_design, data_design = (np.zeros((*state.x.shape, 6)) for _ in range(2))
        size_design[:, :, 1], size_design[:, :, 2] = 1.0, -self.log_n
        data_design[:, :, 3], data_design[:, :, 4] = 1.0, -state.x
        data_design[:, :, 5] = -state.beta * state.slope
        jacobian = state.size_share[:, :, None] * size_design
        jacobian += state.data_share[:, :, None] * data_design
        jacobian[:, :, 0] = state.floor_share
        return jacobian, size_design, data_design


def _gram(design: Array, weights: Array) -> Array:
    """sum_i w_i x_i x_i' of designs (R, rows, P) and weights (R, rows): (R, P, P)."""
    return design.transpose(0, 2, 1) @ (weights[:, :, None] * design)


def repeated(
    log_n: ArrayLike,
    log_d: ArrayLike,
    log_u: ArrayLike,
    centre: tuple[float, float],
    space: Space = "log",
) -> RepeatedLaw:
    """The law at rows with log N, log D and log U, (rows,) each; N and D' relative to `centre`."""
    n, d, u = (np.asarray(x, dtype=float) for x in (log_n, log_d, log_u))
    return RepeatedLaw(n - centre[0], d, u, centre[1], space)
