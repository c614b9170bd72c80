"""Surfaces y(x_1, ..., x_k) that are sums of exponentials of linear functions of the parameters.

    S(theta) = floor + sum_t exp(z_t),    z_t = theta[index_t] . design_t + offset_t

covers E + A/N^alpha + B/D^beta for any number of inputs (Hoffmann et al. 2022, approach 3), its
tied form (Gadre et al. 2024), polynomials in the logs (Tuyls et al. 2023) and, inside other laws,
those of Kaplan et al. 2020 and Muennighoff et al. 2023. Everything but the exponential is linear
in theta, so the exact Hessian costs little more than the gradient: with p_t = exp(z_t)/S, every
block of it is a matrix product of (replicates, rows) with (rows, few).

Parameters have the replicate axis first. Inputs are logs, taken relative to a `centre` that keeps
the normal equations well conditioned; `uncentre_*` gives the parameters for plain logs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Space = Literal["log", "linear"]

EXPONENT_BOUNDS = (0.01, 4.0)
"""Where exponents are looked for: beyond, a term is constant or acts on the smallest size only."""

_LOG_RANGE = 60.0
"""Bound on |log| of a coefficient at the centre: far outside any response, inside the floats."""


@dataclass(frozen=True, eq=False, kw_only=True)
class SumLaw:
    """mu = log S in "log" space, mu = S in "linear" space; a `Law` for `minimize_huber`.

    With a floor, theta[0] is the floor itself: not negative in log space, of either sign in linear
    space. (Its logarithm would leave a fit without a floor crawling towards minus infinity.)
    """

    designs: tuple[Array, ...]
    """What the parameters of each term are multiplied by, (parameters of the term, rows)."""
    indices: tuple[tuple[int, ...], ...]
    """Where the parameters of each term stand in theta; a parameter may serve several terms."""
    lower: Array
    """Lower bounds of theta, (P,)."""
    upper: Array
    """Upper bounds of theta, (P,)."""
    offsets: tuple[Array | None, ...]
    """Fixed parts of the exponents, (rows,), or None."""
    floor: bool
    space: Space = "log"

    @cached_property
    def _terms(self) -> tuple[tuple[list[int], Array], ...]:
        """Index and design of every term, the floor among them as a design of ones."""
        rows = self.designs[0].shape[1]
        floor = (([0], np.ones((1, rows))),) if self.floor else ()
        return floor + tuple(
            (list(i), design) for i, design in zip(self.indices, self.designs, strict=True)
        )

    @cached_property
    def _blocks(self) -> list[list[tuple[Array, Any, Any]]]:
        """For each term t and s = 0 ... t: row by row products of their designs, (parameters_t *
        parameters_s, rows), and where this pair and its transpose stand in the Hessian."""
        return [
            [
                ((x[:, None] * z).reshape(-1, x.shape[1]), _places(i, j), _places(j, i))
                for j, z in self._terms[: t + 1]
            ]
            for t, (i, x) in enumerate(self._terms)
        ]

    def evaluate(self, theta: Array) -> tuple[Array, list[Array]]:
        """mu (R, rows) at theta (R, P), and d mu / d z_t of every term."""
        parts = []
        for index, design, offset in zip(self.indices, self.designs, self.offsets, strict=True):
            z = theta[:, list(index)] @ design
            if offset is not None:
                z += offset
            parts.append(np.exp(z, out=z))
        total = sum(parts[1:], start=parts[0].copy())
        if self.floor:
            total += theta[:, :1]
            parts.insert(0, np.ones_like(theta[:, :1]))
        if self.space == "linear":
            return total, parts
        inverse = 1 / total
        return np.log(total, out=total), [part * inverse for part in parts]

    def contract(self, state: list[Array], first: Array, second: Array) -> tuple[Array, Array]:
        """See `laws.newton.Law.contract`."""
        size, replicates = len(self.lower), len(first)
        gradient = np.zeros((size, replicates))
        hessian = np.zeros((size, size, replicates))
        # With p the derivative of mu in a term's exponent, or in the floor, the second derivatives
        # are [t = s] p_t, 0 for the floor, and in log space - p_t p_s besides.
        outer = first + second if self.space == "log" else second
        for t, (index, design) in enumerate(self._terms):
            slope = first * state[t]
            gradient[index] -= design @ slope.T
            outer_t = outer * state[t]
            for s, (products, at, mirrored) in enumerate(self._blocks[t]):
                weight = outer_t * state[s]
                if s == t and (t > 0 or not self.floor):
                    weight -= slope
                block = (products @ weight.T).reshape(len(index), -1, replicates)
                hessian[at] += block
                if s != t:
                    hessian[mirrored] += block.transpose(1, 0, 2)
        return gradient, hessian

    def jacobian(self, theta: Array) -> Array:
        """d mu / d theta, (R, rows, P), at theta (R, P)."""
        mu, state = self.evaluate(theta)
        out = np.zeros((*mu.shape, theta.shape[1]))
        for slope, (index, design) in zip(state, self._terms, strict=True):
            for i, x in zip(index, design, strict=True):
                out[:, :, i] += slope * x
        return out


def additive(
    log_inputs: Sequence[ArrayLike], centre: Sequence[float] | None = None, space: Space = "log"
) -> SumLaw:
    """y = E + sum_i A_i / x_i^alpha_i: theta = (E, log A_1, alpha_1, log A_2, alpha_2, ...).

    Parameters
    ----------
    log_inputs : sequence of k arrays, (rows,) each
        log N, log D, ...
    centre : sequence of k floats, optional
        Subtracted from the log inputs; their means where not given.
    space : {"log", "linear"}
        "log": mu = log y and E >= 0. "linear": mu = y and E has either sign.
    """
    x = _centred(log_inputs, centre)
    ones = np.ones(x.shape[1])
    return _with_floor(
        tuple(np.array([ones, -row]) for row in x),
        tuple((1 + 2 * i, 2 + 2 * i) for i in range(len(x))),
        exponents=[2 + 2 * i for i in range(len(x))],
        space=space,
    )


def tied(
    log_inputs: Sequence[ArrayLike], centre: Sequence[float] | None = None, space: Space = "log"
) -> SumLaw:
    """y = E + sum_i A_i / x_i^alpha: theta = (E, log A_1, ..., log A_k, alpha)."""
    x = _centred(log_inputs, centre)
    ones = np.ones(x.shape[1])
    return _with_floor(
        tuple(np.array([ones, -row]) for row in x),
        tuple((1 + i, 1 + len(x)) for i in range(len(x))),
        exponents=[1 + len(x)],
        space=space,
    )


def _places(i: Sequence[int], j: Sequence[int]) -> Any:
    """Where the rows i and columns j of a matrix stand: as slices, which are faster, if evenly."""
    slices = []
    for index in (i, j):
        step = index[1] - index[0] if len(index) > 1 else 1
        if step < 1 or list(index) != list(range(index[0], index[-1] + 1, step)):
            return np.ix_(i, j)
        slices.append(slice(index[0], index[-1] + 1, step))
    return tuple(slices)


@dataclass(frozen=True, eq=False)
class LinearLaw:
    """mu = theta . design; a `Law` for `minimize_huber`, whose F is then convex."""

    design: Array
    """(P, rows)."""

    @property
    def lower(self) -> Array:
        return np.full(len(self.design), -np.inf)

    @property
    def upper(self) -> Array:
        return np.full(len(self.design), np.inf)

    def evaluate(self, theta: Array) -> tuple[Array, None]:
        """mu (R, rows) at theta (R, P)."""
        return theta @ self.design, None

    def contract(self, state: None, first: Array, second: Array) -> tuple[Array, Array]:
        """See `laws.newton.Law.contract`."""
        size, rows = self.design.shape
        products = (self.design[:, None] * self.design).reshape(size * size, rows)
        return -self.design @ first.T, (products @ second.T).reshape(size, size, -1)

    def jacobian(self, theta: Array) -> Array:
        """d mu / d theta, (R, rows, P)."""
        return np.broadcast_to(self.design.T, (len(theta), *self.design.T.shape))


def log_quadratic(
    log_inputs: Sequence[ArrayLike], centre: Sequence[float] | None = None
) -> LinearLaw:
    """mu = c_0 + sum_i c_i x_i + sum_(i<=j) c_ij x_i x_j in the log inputs x (Tuyls et al. 2023).

    theta = (c_0, c_1, ..., c_k, c_11, c_12, ..., c_kk).
    """
    x = _centred(log_inputs, centre)
    pairs = [x[i] * x[j] for i, j in combinations_with_replacement(range(len(x)), 2)]
    return LinearLaw(np.array([np.ones(x.shape[1]), *x, *pairs]))


def _centred(log_inputs: Sequence[ArrayLike], centre: Sequence[float] | None) -> Array:
    x = np.array([np.asarray(row, dtype=float) for row in log_inputs])
    return x - (x.mean(axis=1) if centre is None else np.asarray(centre, dtype=float))[:, None]


def _with_floor(
    designs: tuple[Array, ...],
    indices: tuple[tuple[int, ...], ...],
    exponents: list[int],
    space: Space,
) -> SumLaw:
    upper = np.full(1 + max(max(i) for i in indices), _LOG_RANGE)
    lower = -upper
    lower[exponents], upper[exponents] = EXPONENT_BOUNDS
    lower[0], upper[0] = 0.0 if space == "log" else -np.inf, np.inf
    return SumLaw(
        designs=designs,
        indices=indices,
        offsets=(None,) * len(designs),
        lower=lower,
        upper=upper,
        floor=True,
        space=space,
    )
