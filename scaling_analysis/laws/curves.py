"""Curves y(x) in t = log x: value and analytic gradient, any number of replicates at once.

Parameters are arrays (..., P), abscissae (n,) or (..., n); values have shape (..., n), gradients
(..., n, P). The laws that approach a level are written for a decreasing y; a rising y is fitted
as -y (`CurveLaw.sign`). `CurveLaw` puts a curve at given points in the form that
`newton.minimize_huber` solves.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

_EXPONENT_LIMIT = 600.0
"""exp() is cut here, inside the floats; a law that gets so far is rejected by its misfit."""
_M4_STEPS = 60


@dataclass(frozen=True, eq=False, kw_only=True)
class Curve:
    """A law y(t), t = log x."""

    name: str
    parameters: tuple[str, ...]
    """Names of the components of theta, in order."""
    value: Callable[[Array, Array], Array]
    """(..., P), (..., n) -> (..., n)."""
    gradient: Callable[[Array, Array], Array]
    """(..., P), (..., n) -> (..., n, P)."""
    of_log: bool = False
    """The law is one of log y where y is positive (a line of log y is a power law of y)."""
    decreasing: bool = False
    """The law only falls: a rising y is fitted as -y."""
    intercept: int | None = None
    """Place of the intercept of a line a - b t; b follows it."""
    place: int | None = None
    """Place of a parameter that is a log x."""

    def recentre(self, theta: Array, centre: float) -> Array:
        """Parameters for t = log x, from those for t = log x - centre."""
        moved = np.array(theta, dtype=float)
        if self.intercept is not None:
            moved[..., self.intercept] += centre * moved[..., self.intercept + 1]
        if self.place is not None:
            moved[..., self.place] += centre
        return moved


def _exp(exponent: Array) -> Array:
    return np.exp(np.clip(exponent, -_EXPONENT_LIMIT, _EXPONENT_LIMIT))


def _columns(theta: Array) -> tuple[Array, ...]:
    """The parameters one by one, ready to broadcast against (..., n)."""
    return tuple(theta[..., i, None] for i in range(theta.shape[-1]))


def _stack(*columns: Array) -> Array:
    return np.stack(np.broadcast_arrays(*columns), axis=-1)


def _level(theta: Array, t: Array) -> Array:
    (level,) = _columns(theta)
    return level + 0 * t


def _level_gradient(theta: Array, t: Array) -> Array:
    return np.ones((*_level(theta, t).shape, 1))


def _line(theta: Array, t: Array) -> Array:
    a, b = _columns(theta)
    return a - b * t


def _line_gradient(theta: Array, t: Array) -> Array:
    a, _ = _columns(theta)
    return _stack(np.ones_like(a), -t)


def softplus(v: Array) -> Array:
    """log(1 + exp(v)): from 0 to v around v = 0."""
    return np.logaddexp(0.0, v)


def logistic(v: Array) -> Array:
    """1 / (1 + exp(-v)), the derivative of `softplus`."""
    return 0.5 * (1 + np.tanh(0.5 * v))


def _hinge(theta: Array, t: Array) -> Array:
    a, b, change, at, log_width = _columns(theta)
    width = np.exp(log_width)
    return a - b * t - change * width * softplus((t - at) / width)


def _hinge_gradient(theta: Array, t: Array) -> Array:
    a, _, change, at, log_width = _columns(theta)
    width = np.exp(log_width)
    v = (t - at) / width
    bend, share = softplus(v), logistic(v)
    return _stack(
        np.ones_like(a), -t, -width * bend, change * share, -change * width * (bend - v * share)
    )


def _power_floor(theta: Array, t: Array) -> Array:
    log_a, b, c = _columns(theta)
    return _exp(log_a - b * t) + c


def _power_floor_gradient(theta: Array, t: Array) -> Array:
    log_a, b, c = _columns(theta)
    part = _exp(log_a - b * t)
    return _stack(part, -t * part, np.ones_like(c))


def _inverse(theta: Array, t: Array) -> Array:
    return 1 / _power_floor(theta, t)


def _inverse_gradient(theta: Array, t: Array) -> Array:
    return -_power_floor_gradient(theta, t) * (_inverse(theta, t) ** 2)[..., None]


def _broken_floor(theta: Array, t: Array) -> Array:
    return _exp(_hinge(theta[..., :5], t)) + theta[..., 5, None]


def _broken_floor_gradient(theta: Array, t: Array) -> Array:
    part = _exp(_hinge(theta[..., :5], t))[..., None]
    inner = part * _hinge_gradient(theta[..., :5], t)
    return np.concatenate([inner, np.ones_like(part)], axis=-1)


def _sigmoid(theta: Array, t: Array) -> Array:
    start, end, middle, steepness = _columns(theta)
    return start + (end - start) * logistic(steepness * (t - middle))


def _sigmoid_gradient(theta: Array, t: Array) -> Array:
    start, end, middle, steepness = _columns(theta)
    done = logistic(steepness * (t - middle))
    slope = (end - start) * done * (1 - done)
    return _stack(1 - done, done, -steepness * slope, (t - middle) * slope)


def _m4_odds(theta: Array, t: Array) -> Array:
    """v = log (y - c)/(start - y), by Newton's method in v: the equation is monotone in it."""
    log_a, b, kappa, c, start = _columns(theta)
    # log(y - c) - kappa log(start - y) = log_a - b t, with y - c = (start - c) logistic(v).
    right = log_a - b * t - (1 - kappa) * np.log(start - c)
    v = np.where(right < 0, right, right / np.maximum(kappa, 0.05))
    for _ in range(_M4_STEPS):
        miss = kappa * softplus(v) - softplus(-v) - right
        # Where kappa is near 0 the equation flattens as v grows: bounded steps.
        step = np.clip(miss / (logistic(-v) + kappa * logistic(v) + 1e-12), -4.0, 4.0)
        v = v - step
        if not (np.abs(step) > 1e-13 * (1 + np.abs(v))).any():
            break
    return np.clip(v, -_EXPONENT_LIMIT, _EXPONENT_LIMIT)


def _m4(theta: Array, t: Array) -> Array:
    _, _, _, c, start = _columns(theta)
    return c + (start - c) * logistic(_m4_odds(theta, t))


def _m4_gradient(theta: Array, t: Array) -> Array:
    _, _, kappa, c, start = _columns(theta)
    v, span = _m4_odds(theta, t), start - c
    share, rest = logistic(v), logistic(-v)
    slope = span * share * rest / (rest + kappa * share + 1e-300)  # dy/d(right-hand side)
    of_start = share - (1 - kappa) * slope / span
    return _stack(slope, -t * slope, slope * (np.log(span) - softplus(v)), 1 - of_start, of_start)


LEVEL = Curve(
    name="persistence", parameters=("level",), value=_level, gradient=_level_gradient, of_log=True
)
"""y = level."""

LINE = Curve(
    name="power",
    parameters=("a", "b"),
    value=_line,
    gradient=_line_gradient,
    of_log=True,
    intercept=0,
)
"""a - b t: the power law y = exp(a) x^-b where it is a line of log y."""

HINGE = Curve(
    name="broken",
    parameters=("a", "b", "change", "break", "log_width"),
    value=_hinge,
    gradient=_hinge_gradient,
    of_log=True,
    intercept=0,
    place=3,
)
"""a - b t - change width log(1 + exp((t - at)/width)): a line whose slope goes from -b to
-(b + change) at `at`. As a line of log y, the smoothly broken power law with one break and no
limit (Caballero et al. 2022)."""

POWER_FLOOR = Curve(
    name="power_floor",
    parameters=("log_a", "b", "c"),
    value=_power_floor,
    gradient=_power_floor_gradient,
    decreasing=True,
    intercept=0,
)
"""y = exp(log_a) x^-b + c."""

INVERSE = Curve(
    name="inverse",
    parameters=("log_a", "b", "c"),
    value=_inverse,
    gradient=_inverse_gradient,
    intercept=0,
)
"""y = 1 / (exp(log_a) x^-b + c): rises to 1/c."""

BROKEN_FLOOR = Curve(
    name="broken_floor",
    parameters=(*HINGE.parameters, "c"),
    value=_broken_floor,
    gradient=_broken_floor_gradient,
    decreasing=True,
    intercept=0,
    place=3,
)
"""y = exp(hinge(t)) + c: the smoothly broken power law with one break (Caballero et al. 2022)."""

SIGMOID = Curve(
    name="sigmoid",
    parameters=("start", "end", "middle", "steepness"),
    value=_sigmoid,
    gradient=_sigmoid_gradient,
    decreasing=True,
    place=2,
)
"""y = start + (end - start) / (1 + (x_mid/x)^steepness), middle = log x_mid (Khatri et al. 2025,
with R0, A, C_mid, B for the four)."""

M4 = Curve(
    name="m4",
    parameters=("log_a", "b", "kappa", "c", "start"),
    value=_m4,
    gradient=_m4_gradient,
    decreasing=True,
    intercept=0,
)
"""(y - c) / (start - y)^kappa = exp(log_a) x^-b (Alabdulmohsin et al. 2022): power law + floor for
kappa = 0, sigmoid in log x for kappa = 1."""


@dataclass(frozen=True, eq=False, kw_only=True)
class CurveLaw:
    """A curve at given points, with bounds: a `Law` for `newton.minimize_huber`.

    `contract` gives the Gauss-Newton matrix, without the curvature of the law itself: it is
    positive definite wherever the data determine the parameters, near the solution or not.
    """

    curve: Curve
    t: Array
    """log x of the points, (n,)."""
    lower: Array
    """Lower bounds of theta, (P,)."""
    upper: Array
    """Upper bounds of theta, (P,)."""
    space: Space = "log"
    sign: float = 1.0
    """-1 where y is the curve's negative."""

    def evaluate(self, theta: Array) -> tuple[Array, Any]:
        """mu (R, n), log y in "log" space and y in "linear" space, and its gradient."""
        value, gradient = self.curve.value(theta, self.t), self.curve.gradient(theta, self.t)
        if self.curve.of_log:
            return value, gradient
        if self.space == "linear":
            return self.sign * value, self.sign * gradient
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.log(self.sign * value), gradient / value[..., None]

    def contract(self, state: Array, first: Array, second: Array) -> tuple[Array, Array]:
        """See `laws.newton.Law.contract`."""
        gradient = np.einsum("rn,rnp->pr", -first, state)
        weighted = state * second[..., None]
        return gradient, np.moveaxis(np.swapaxes(weighted, 1, 2) @ state, 0, 2)


def predict(curve: Curve, theta: Array, t: Array, space: Space, sign: float = 1.0) -> Array:
    """mu, log y or y by `space`, of a curve at t: (..., P), (..., n) -> (..., n)."""
    value = curve.value(theta, t)
    if curve.of_log:
        return value
    with np.errstate(invalid="ignore", divide="ignore"):
        return sign * value if space == "linear" else np.log(sign * value)
