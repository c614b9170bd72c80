"""The law of Kaplan et al. 2020, eq. 1.5: L = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.laws.surfaces import EXPONENT_BOUNDS, SumLaw

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class KaplanLaw:
    """mu = log L = s log(exp(c - g log N) + exp(d - log D)); a `Law` for `minimize_huber`.

    theta = (s, c, g, d) with s = alpha_D, g = alpha_N/alpha_D, c = g log N_c and d = log D_c, both
    for centred inputs.
    """

    inner: SumLaw
    """The sum inside the outer power, with theta[1:]."""

    @property
    def lower(self) -> Array:
        return np.concatenate([[EXPONENT_BOUNDS[0]], self.inner.lower])

    @property
    def upper(self) -> Array:
        return np.concatenate([[EXPONENT_BOUNDS[1]], self.inner.upper])

    def evaluate(self, theta: Array) -> tuple[Array, tuple[Array, Array, Any]]:
        """mu (R, rows) at theta (R, 4)."""
        log_sum, state = self.inner.evaluate(theta[:, 1:])
        power = theta[:, :1]
        return power * log_sum, (power, log_sum, state)

    def contract(
        self, state: tuple[Array, Array, Any], first: Array, second: Array
    ) -> tuple[Array, Array]:
        """See `laws.newton.Law.contract`."""
        power, log_sum, inner = state
        g, h = self.inner.contract(inner, power * first, power**2 * second)
        cross, _ = self.inner.contract(inner, power * log_sum * second - first, second)
        gradient = np.concatenate([-(first * log_sum).sum(axis=1)[None], g])
        hessian = np.empty((4, 4, len(first)))
        hessian[0, 0] = (second * log_sum**2).sum(axis=1)
        hessian[0, 1:] = hessian[1:, 0] = -cross
        hessian[1:, 1:] = h
        return gradient, hessian

    def jacobian(self, theta: Array) -> Array:
        """d mu / d theta, (R, rows, 4)."""
        log_sum, _ = self.inner.evaluate(theta[:, 1:])
        inner = theta[:, :1, None] * self.inner.jacobian(theta[:, 1:])
        return np.concatenate([log_sum[:, :, None], inner], axis=2)


def kaplan(log_inputs: Sequence[ArrayLike], centre: Sequence[float]) -> KaplanLaw:
    """The law at rows with (log N, log D), (rows,) each, relative to `centre`."""
    n, d = (np.asarray(x, dtype=float) - c for x, c in zip(log_inputs, centre, strict=True))
    ones = np.ones_like(n)
    return KaplanLaw(
        SumLaw(
            designs=(np.array([ones, -n]), ones[None]),
            indices=((0, 1), (2,)),
            lower=np.array([-200.0, EXPONENT_BOUNDS[0], -200.0]),
            upper=np.array([200.0, EXPONENT_BOUNDS[1] / EXPONENT_BOUNDS[0], 200.0]),
            offsets=(None, -d),
            floor=False,
        )
    )
