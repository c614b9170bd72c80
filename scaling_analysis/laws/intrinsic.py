"""Intrinsic performance of agents that learn by interaction (Hilton, Tang, Schulman 2023).

The intrinsic performance I of a return is the least compute that any model of a family needs to
reach it. With the compute of a run written C = k N E (N parameters, E samples),

    I^-beta = (N_c/N)^alpha_N + (E_c/E)^alpha_E,    1/beta = 1/alpha_N + 1/alpha_E,

and one relation between N_c and E_c that makes max over N of I equal to C. A shorter way to say the
same, which is the one computed here: with C_N the compute at which N is the best size, C_E that at
which E is the best number of samples, and a the exponent of N*(C),

    I^-beta = a C_N^-beta + (1 - a) C_E^-beta,

a weighted power mean of the two. Three constants are free: a, alpha_E and N* at one compute.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.laws.cost import Cost

Array = NDArray[np.float64]

_REACH = 80.0
"""The best size is looked for within this many e-folds of the one without environment cost."""
_HALVINGS = 60


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class IntrinsicLaw:
    """The law of intrinsic performance; its three parameters are () or, for replicates, (R,).

    Examples
    --------
    >>> law = IntrinsicLaw.from_constants(size_exponent=0.7, sample_exponent=0.45, size_scale=3e-4)
    >>> law.params_opt([1e2, 1e5]).round(6)
    array([0.006948, 0.103697])
    """

    params_exponent: Array
    """a in N* ~ C^a, between 0 and 1."""
    log_sample_exponent: Array
    """log alpha_E."""
    log_params: Array
    """log N*(C_ref)."""
    flops_ref: float = 1.0
    """C_ref [FLOP]."""
    cost_constant: float = 1.0
    """k in C = k N E [FLOP/(parameter sample)]."""

    @classmethod
    def from_constants(
        cls, *, size_exponent: float, sample_exponent: float, size_scale: float
    ) -> "IntrinsicLaw":
        """The law with alpha_N, alpha_E and N_c of the first equation, in units where k = 1."""
        a = sample_exponent / (size_exponent + sample_exponent)
        return cls(
            params_exponent=np.asarray(a),
            log_sample_exponent=np.log(sample_exponent),
            log_params=np.log(size_scale) - np.log(a) / size_exponent,
        )

    @property
    def sample_exponent(self) -> Array:
        """alpha_E."""
        return np.exp(self.log_sample_exponent)

    @property
    def size_exponent(self) -> Array:
        """alpha_N = alpha_E (1 - a)/a."""
        return self.sample_exponent * (1 - self.params_exponent) / self.params_exponent

    @property
    def beta(self) -> Array:
        """1/(1/alpha_N + 1/alpha_E) = (1 - a) alpha_E."""
        return (1 - self.params_exponent) * self.sample_exponent

    @property
    def size_scale(self) -> Array:
        """N_c [count]."""
        log_n = self.log_params - self.params_exponent * np.log(self.flops_ref)
        return np.exp(log_n + np.log(self.params_exponent) / self.size_exponent)

    @property
    def sample_scale(self) -> Array:
        """E_c [count]."""
        a = self.params_exponent
        log_e = a * np.log(self.flops_ref) - self.log_params - np.log(self.cost_constant)
        return np.exp(log_e + np.log1p(-a) / self.sample_exponent)

    def log_intrinsic(self, params: ArrayLike, samples: ArrayLike, *, own: bool = False) -> Array:
        """log I [FLOP] of models of `params` that have seen `samples`.

        The inputs broadcast; the result has R in front for replicates. With `own` the leading axis
        of the inputs is already that of the replicates.
        """
        x_n, x_e = self._limits(np.log(params), np.log(samples), own)
        ndim = x_n.ndim - self.params_exponent.ndim
        a, beta = _lift(self.params_exponent, ndim), _lift(self.beta, ndim)
        mean = np.logaddexp(np.log(a) - beta * x_n, np.log1p(-a) - beta * x_e)
        return np.log(self.flops_ref) - mean / beta

    def params_opt(
        self, flops: ArrayLike, cost: Cost | None = None, environment_params: float = 0.0
    ) -> Array:
        """N*(C) [count], () or (R,) + the shape of `flops` [FLOP].

        Parameters
        ----------
        cost : Cost, optional
            Counted FLOP a sample, where C = k N E does not hold. The best size then solves
            alpha_N T_N = alpha_E T_E d log(FLOP a sample)/d log N, T being the two terms of the
            law, on the line of equal compute.
        environment_params : float
            N_e: what a sample costs beside the model, as the number of parameters that would cost
            the same; C = k (N + N_e) E. With k alone the condition is that of Hilton et al.,
            alpha_N T_N (1 + N_e/N) = alpha_E T_E.
        """
        log_c = np.log(np.asarray(flops, dtype=float))
        ndim = log_c.ndim
        q, a = _lift(self.log_params, ndim), _lift(self.params_exponent, ndim)
        plain = q + a * (log_c - np.log(self.flops_ref))
        if environment_params == 0 and (cost is None or cost.constant is not None):
            return np.exp(plain)
        low, high = plain - _REACH, plain + _REACH
        beta = _lift(self.beta, ndim)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            per_sample, slope = self._per_sample(np.exp(middle), cost, environment_params)
            x_n, x_e = self._limits(middle, log_c - np.log(per_sample), own=True)
            # A larger model still helps while the samples are not what limits.
            with np.errstate(divide="ignore"):
                larger = beta * (x_e - x_n) > np.log(slope)
            low, high = np.where(larger, middle, low), np.where(larger, high, middle)
        return np.exp(0.5 * (low + high))

    def samples_opt(
        self, flops: ArrayLike, cost: Cost | None = None, environment_params: float = 0.0
    ) -> Array:
        """E*(C) [count], the compute over what a sample costs at N*(C)."""
        n = self.params_opt(flops, cost, environment_params)
        return np.asarray(flops, dtype=float) / self._per_sample(n, cost, environment_params)[0]

    def samples(
        self,
        params: ArrayLike,
        flops: ArrayLike,
        cost: Cost | None = None,
        environment_params: float = 0.0,
    ) -> Array:
        """E [count] that a model of `params` sees for `flops` [FLOP]; the inputs broadcast."""
        n = np.asarray(params, dtype=float)
        return np.asarray(flops, dtype=float) / self._per_sample(n, cost, environment_params)[0]

    def replicate(self, i: int) -> "IntrinsicLaw":
        """The law of one replicate, without the leading axis."""
        return replace(self, **{name: np.asarray(getattr(self, name)[i]) for name in _FREE})

    def to_dict(self) -> dict[str, Any]:
        fixed = {"flops_ref": self.flops_ref, "cost_constant": self.cost_constant}
        return fixed | {name: encode_array(getattr(self, name)) for name in _FREE}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "IntrinsicLaw":
        values = {name: decode_array(data[name]) for name in _FREE}
        return cls(**values, flops_ref=data["flops_ref"], cost_constant=data["cost_constant"])

    def _limits(self, log_n: ArrayLike, log_e: ArrayLike, own: bool) -> tuple[Array, Array]:
        """log(C_N/C_ref) and log(C_E/C_ref)."""
        log_n, log_e = np.broadcast_arrays(log_n, log_e)
        ndim = log_n.ndim - (self.params_exponent.ndim if own else 0)
        a, q = _lift(self.params_exponent, ndim), _lift(self.log_params, ndim)
        samples_ref = np.log(self.flops_ref / self.cost_constant) - q
        return (log_n - q) / a, (log_e - samples_ref) / (1 - a)

    def _per_sample(
        self, params: Array, cost: Cost | None, environment_params: float
    ) -> tuple[Array, Array]:
        """FLOP a sample, environment included, and its slope in log-log."""
        extra = self.cost_constant * environment_params
        model = self.cost_constant * params if cost is None else cost.flops_per_sample(params)
        slope = 1.0 if cost is None else cost.slope(params)
        total = model + extra
        return total, slope * model / total


_FREE = tuple(field.name for field in fields(IntrinsicLaw))[:3]


def intrinsic_slopes(theta: Array, log_n: Array, log_e: Array) -> tuple[Array, Array]:
    """log(I/C_ref) at rows (n,) and its derivatives (n, 3), for one set of solver's coordinates.

    Parameters
    ----------
    theta : (3,)
        logit a, log alpha_E, and q = log N*(C_ref), in the centred coordinates of the rows.
    log_n, log_e : (n,)
        log N and log of k E, so centred that they add up to log(C/C_ref).
    """
    a = 1 / (1 + np.exp(-theta[0]))
    b = 1 - a
    beta = b * np.exp(theta[1])
    x_n, x_e = (log_n - theta[2]) / a, (log_e + theta[2]) / b
    u_n, u_e = np.log(a) - beta * x_n, np.log(b) - beta * x_e
    total = np.logaddexp(u_n, u_e)
    value = -total / beta
    share = np.exp(u_n - total)
    # d/d beta at fixed a: both terms, and the root itself.
    on_beta = (share * x_n + (1 - share) * x_e - value) / beta
    on_a = -(share / a - (1 - share) / b) / beta - share * x_n / a + (1 - share) * x_e / b
    on_a = on_a - beta / b * on_beta
    on_q = -share / a + (1 - share) / b
    return value, np.stack([a * b * on_a, beta * on_beta, on_q], axis=1)


def _lift(parameter: Array, ndim: int) -> Array:
    """The parameter with `ndim` axes added behind, so that its replicate axis stays in front."""
    parameter = np.asarray(parameter, dtype=float)
    return parameter.reshape(parameter.shape + (1,) * ndim)
