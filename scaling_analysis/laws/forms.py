"""The laws of loss or return against model size N and data D, by name.

A form knows its parameters in natural units and turns them into the vector that `laws.newton`
fits and back; its value and slopes anywhere; where to start; and its optimum on an isoFLOP line.

What is fitted is a cost m(N, D) that falls with N and D and is least on the frontier: the loss
itself, the inverse of a return in log space, minus the return in linear space. mu is log m in log
space and m in linear space. Natural parameters are dicts of arrays that broadcast with log N and
log D (see `lift`); theta is (R, P).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.laws import surfaces
from scaling_analysis.laws.kaplan import KaplanLaw, kaplan
from scaling_analysis.laws.least_squares import weighted_least_squares
from scaling_analysis.laws.repeated import (
    LOG_REPEAT_BOUNDS,
    RepeatedLaw,
    log_effective_samples,
    repeated,
)
from scaling_analysis.laws.seeds import additive_seeds, exponent_grid, project
from scaling_analysis.laws.surfaces import LinearLaw, Space, SumLaw

Array = NDArray[np.float64]
Parameters = Mapping[str, Array]


class Rows(NamedTuple):
    """What a surface is fitted to, in logs and near 1."""

    log_n: Array
    log_d: Array
    log_u: Array
    """log of the unique samples; inf where nothing is repeated."""
    space: Space
    shift: float
    """mu = log m - shift, in log space."""
    unit: float
    """mu = m / unit, in linear space."""

    @property
    def centre(self) -> tuple[float, float]:
        return float(self.log_n.mean()), float(self.log_d.mean())

    def response(self, mu: Array) -> Array:
        """The scaled m behind a scaled mu."""
        return np.exp(mu) if self.space == "log" else mu

    @property
    def scale(self) -> float:
        """What a term of the scaled m is multiplied by to be one of m."""
        return float(np.exp(self.shift)) if self.space == "log" else self.unit


def lift(parameters: Parameters, ndim: int) -> dict[str, Array]:
    """Parameters () or (R,), shaped to broadcast with (R,) + points of `ndim` axes."""
    return {
        name: np.reshape(value, np.shape(value) + (1,) * ndim) if np.ndim(value) else value
        for name, value in parameters.items()
    }


@dataclass(frozen=True, slots=True)
class PowerForm:
    """m = E + A/N^alpha + B/D^beta: additive, with one exponent (tied), or on repeated data."""

    tied: bool = False
    repeats: bool = False

    @property
    def names(self) -> tuple[str, ...]:
        if self.tied:
            return ("E", "A", "B", "alpha")
        return ("E", "A", "alpha", "B", "beta", "R_D") if self.repeats else _ADDITIVE

    @property
    def exponents(self) -> tuple[str, ...]:
        return ("alpha",) if self.tied else ("alpha", "beta")

    @property
    def equation(self) -> str:
        data = "D'" if self.repeats else "D"
        return f"E + A/N^alpha + B/{data}^{'alpha' if self.tied else 'beta'}"

    def law(self, rows: Rows) -> SumLaw | RepeatedLaw:
        if self.repeats:
            return repeated(rows.log_n, rows.log_d, rows.log_u, rows.centre, rows.space)
        make = surfaces.tied if self.tied else surfaces.additive
        return make([rows.log_n, rows.log_d], rows.centre, rows.space)

    def seeds(self, rows: Rows, mu: Array, weights: Array, keep: int) -> Array:
        """Starts (R, several, P) by variable projection; mu and weights are (R or 1, rows)."""
        grid = exponent_grid(1, 24).repeat(2, axis=0) if self.tied else exponent_grid(2)
        scales = np.linspace(*LOG_REPEAT_BOUNDS, 9)[1:-1] if self.repeats else [np.inf]
        starts = []
        for scale in scales:
            log_d = rows.log_d
            if self.repeats:
                log_d = log_effective_samples(log_d, rows.log_u, np.asarray(scale))[0]
            start = additive_seeds(
                [rows.log_n, log_d],
                rows.response(mu),
                weights,
                centre=rows.centre,
                space=rows.space,
                exponents=grid,
                keep=max(1, keep // len(scales)),
            )
            if self.tied:
                start = start[:, :, [0, 1, 3, 2]]
            elif self.repeats:
                start = np.insert(start, 5, scale, axis=2)
            starts.append(start)
        return np.concatenate(starts, axis=1)

    def natural(self, theta: Array, rows: Rows) -> dict[str, Array]:
        by_name = dict(zip(self.names, theta.T, strict=True))
        alpha, beta = (by_name[name] for name in (self.exponents * 2)[:2])
        n, d = rows.centre
        out = {
            "E": rows.scale * by_name["E"],
            "A": rows.scale * np.exp(by_name["A"] + alpha * n),
            "B": rows.scale * np.exp(by_name["B"] + beta * d),
            "alpha": alpha,
            "beta": beta,
        }
        if self.repeats:
            out["R_D"] = np.exp(by_name["R_D"])
        return {name: out[name] for name in self.names}

    def theta(self, p: Parameters, rows: Rows) -> Array:
        """The inverse of `natural`."""
        alpha, beta = (np.asarray(p[name]) for name in (self.exponents * 2)[:2])
        n, d = rows.centre
        out = {
            "E": np.asarray(p["E"]) / rows.scale,
            "A": np.log(p["A"]) - alpha * n - np.log(rows.scale),
            "B": np.log(p["B"]) - beta * d - np.log(rows.scale),
            "alpha": alpha,
            "beta": beta,
        }
        if self.repeats:
            out["R_D"] = np.log(p["R_D"])
        return np.stack([out[name] for name in self.names], axis=-1)

    def mu(self, p: Parameters, log_n: Array, log_d: Array, log_u: Array, space: Space) -> Array:
        n_term, d_term, _ = self._terms(p, log_n, log_d, log_u)
        total = p["E"] + n_term + d_term
        return np.log(total) if space == "log" else total

    def slopes(
        self, p: Parameters, log_n: Array, log_d: Array, log_u: Array
    ) -> tuple[Array, Array]:
        """Derivatives of m in log N and log D, up to a common positive factor."""
        n_term, d_term, bend = self._terms(p, log_n, log_d, log_u)
        alpha, beta = (p[name] for name in (self.exponents * 2)[:2])
        return -alpha * n_term, -beta * d_term * bend

    def log_params_opt(self, p: Parameters, log_nd: Array) -> Array:
        """log N that minimises m at a given log(N D), nothing repeated."""
        alpha, beta = (p[name] for name in (self.exponents * 2)[:2])
        balance = np.log(alpha * p["A"]) - np.log(beta * p["B"])
        return (balance + beta * log_nd) / (alpha + beta)

    def params_exponent(self, p: Parameters) -> Array:
        """a in N_opt ~ C^a where C = k N D."""
        alpha, beta = (p[name] for name in (self.exponents * 2)[:2])
        return beta / (alpha + beta)

    def _terms(
        self, p: Parameters, log_n: Array, log_d: Array, log_u: Array
    ) -> tuple[Array, Array, Array | float]:
        """The two terms of m, and d log D' / d log D."""
        alpha, beta = (p[name] for name in (self.exponents * 2)[:2])
        bend = 1.0
        if self.repeats:
            repeats = np.expm1(np.maximum(log_d - log_u, 0.0))
            effective = log_effective_samples(log_d, log_u, np.log(p["R_D"]))[0]
            bend = np.exp(log_d - effective - repeats / p["R_D"])
            log_d = effective
        return (
            np.exp(np.log(p["A"]) - alpha * log_n),
            np.exp(np.log(p["B"]) - beta * log_d),
            bend,
        )


_ADDITIVE = ("E", "A", "alpha", "B", "beta")


@dataclass(frozen=True, slots=True)
class KaplanForm:
    """m = ((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D (Kaplan et al. 2020), in log space."""

    names: ClassVar[tuple[str, ...]] = ("N_c", "D_c", "alpha_N", "alpha_D")
    exponents: ClassVar[tuple[str, ...]] = ("alpha_N", "alpha_D")
    equation = "((N_c/N)^(alpha_N/alpha_D) + D_c/D)^alpha_D"

    def law(self, rows: Rows) -> KaplanLaw:
        return kaplan([rows.log_n, rows.log_d], rows.centre)

    def seeds(self, rows: Rows, mu: Array, weights: Array, keep: int) -> Array:
        """Starts (R, several, 4): with its outer power given, the law is a sum of powers."""
        n, d = rows.log_n - rows.centre[0], rows.log_d - rows.centre[1]
        ratios = np.geomspace(0.1, 10.0, 16)
        features = [np.exp(-ratios[:, None] * n), np.exp(-d)[None]]
        nodes = np.array([np.arange(16), np.zeros(16, dtype=int)])
        starts = []
        powers = np.geomspace(0.03, 2.0, 12)
        for power in powers:
            inner = np.exp(mu / power)
            relative = weights * (power / inner) ** 2
            best, c, _ = project(
                features,
                nodes,
                inner,
                relative,
                floor=False,
                keep=max(1, keep // len(powers)),
            )
            start = np.empty((*best.shape, 4))
            start[:, :, 0], start[:, :, 2] = power, ratios[best]
            start[:, :, [1, 3]] = np.log(c[:, :, 1:])
            starts.append(start)
        return np.concatenate(starts, axis=1)

    def natural(self, theta: Array, rows: Rows) -> dict[str, Array]:
        power, c, ratio, d = theta.T
        log_n = (c + rows.shift / power) / ratio + rows.centre[0]
        log_d = d + rows.shift / power + rows.centre[1]
        with np.errstate(over="ignore"):  # an infinite constant makes its replicate invalid
            scales = np.exp(log_n), np.exp(log_d)
        return dict(zip(self.names, (*scales, ratio * power, power), strict=True))

    def theta(self, p: Parameters, rows: Rows) -> Array:
        power, ratio = np.asarray(p["alpha_D"]), np.asarray(p["alpha_N"]) / p["alpha_D"]
        c = ratio * (np.log(p["N_c"]) - rows.centre[0]) - rows.shift / power
        d = np.log(p["D_c"]) - rows.centre[1] - rows.shift / power
        return np.stack([power, c, ratio, d], axis=-1)

    def mu(self, p: Parameters, log_n: Array, log_d: Array, log_u: Array, space: Space) -> Array:
        ratio = p["alpha_N"] / p["alpha_D"]
        n_part, d_part = ratio * (np.log(p["N_c"]) - log_n), np.log(p["D_c"]) - log_d
        return p["alpha_D"] * np.logaddexp(n_part, d_part)

    def slopes(
        self, p: Parameters, log_n: Array, log_d: Array, log_u: Array
    ) -> tuple[Array, Array]:
        """Derivatives of m in log N and log D, up to a common positive factor."""
        ratio = p["alpha_N"] / p["alpha_D"]
        balance = ratio * (np.log(p["N_c"]) - log_n) - np.log(p["D_c"]) + log_d
        return -ratio, -np.exp(-balance)

    def log_params_opt(self, p: Parameters, log_nd: Array) -> Array:
        """log N that minimises m at a given log(N D)."""
        ratio = p["alpha_N"] / p["alpha_D"]
        balance = np.log(ratio) + ratio * np.log(p["N_c"]) - np.log(p["D_c"])
        return (balance + log_nd) / (ratio + 1)

    def params_exponent(self, p: Parameters) -> Array:
        """a in N_opt ~ C^a where C = k N D."""
        return p["alpha_D"] / (p["alpha_N"] + p["alpha_D"])


@dataclass(frozen=True, slots=True)
class QuadraticForm:
    """mu = c_0 + c_N n + c_D d + c_NN n^2 + c_ND n d + c_DD d^2 in n = log N and d = log D."""

    names: ClassVar[tuple[str, ...]] = ("c_0", "c_N", "c_D", "c_NN", "c_ND", "c_DD")
    exponents: ClassVar[tuple[str, ...]] = ()
    equation = "c_0 + c_N n + c_D d + c_NN n^2 + c_ND n d + c_DD d^2 (n = log N, d = log D)"

    def law(self, rows: Rows) -> LinearLaw:
        return surfaces.log_quadratic([rows.log_n, rows.log_d], rows.centre)

    def seeds(self, rows: Rows, mu: Array, weights: Array, keep: int) -> Array:
        """The least-squares fit, (R, 1, 6): Huber's objective is convex here."""
        return weighted_least_squares(self.law(rows).design.T, mu, weights)[:, None]

    def natural(self, theta: Array, rows: Rows) -> dict[str, Array]:
        factor = 1.0 if rows.space == "log" else rows.unit
        n, d = rows.centre
        c0, cn, cd, cnn, cnd, cdd = theta.T
        plain = (
            c0 - cn * n - cd * d + cnn * n * n + cnd * n * d + cdd * d * d,
            cn - 2 * cnn * n - cnd * d,
            cd - cnd * n - 2 * cdd * d,
            *(cnn, cnd, cdd),
        )
        out = {name: factor * value for name, value in zip(self.names, plain, strict=True)}
        out["c_0"] = out["c_0"] + (rows.shift if rows.space == "log" else 0.0)
        return out

    def theta(self, p: Parameters, rows: Rows) -> Array:
        n, d = rows.centre
        c0, cn, cd, cnn, cnd, cdd = (np.asarray(p[name]) for name in self.names)
        centred = (
            c0 + cn * n + cd * d + cnn * n * n + cnd * n * d + cdd * d * d,
            cn + 2 * cnn * n + cnd * d,
            cd + cnd * n + 2 * cdd * d,
            *(cnn, cnd, cdd),
        )
        theta = np.stack(centred, axis=-1)
        if rows.space == "linear":
            return theta / rows.unit
        theta[..., 0] -= rows.shift
        return theta

    def mu(self, p: Parameters, log_n: Array, log_d: Array, log_u: Array, space: Space) -> Array:
        linear = p["c_0"] + p["c_N"] * log_n + p["c_D"] * log_d
        return linear + p["c_NN"] * log_n**2 + p["c_ND"] * log_n * log_d + p["c_DD"] * log_d**2

    def slopes(
        self, p: Parameters, log_n: Array, log_d: Array, log_u: Array
    ) -> tuple[Array, Array]:
        """Derivatives of mu in log N and log D."""
        return (
            p["c_N"] + 2 * p["c_NN"] * log_n + p["c_ND"] * log_d,
            p["c_D"] + p["c_ND"] * log_n + 2 * p["c_DD"] * log_d,
        )

    def log_params_opt(self, p: Parameters, log_nd: Array) -> Array:
        """log N at the minimum along log(N D); NaN where the parabola has a maximum."""
        curvature = p["c_NN"] - p["c_ND"] + p["c_DD"]
        curvature = np.where(curvature > 0, curvature, np.nan)
        slope = p["c_N"] - p["c_D"] + (p["c_ND"] - 2 * p["c_DD"]) * log_nd
        return -slope / (2 * curvature)

    def params_exponent(self, p: Parameters) -> Array:
        """a in N_opt ~ C^a where C = k N D."""
        curvature = p["c_NN"] - p["c_ND"] + p["c_DD"]
        return (p["c_DD"] - p["c_ND"] / 2) / np.where(curvature > 0, curvature, np.nan)


Form = PowerForm | KaplanForm | QuadraticForm

FORMS: dict[str, Form] = {
    "additive": PowerForm(),
    "tied": PowerForm(tied=True),
    "repeated": PowerForm(repeats=True),
    "kaplan": KaplanForm(),
    "log_quadratic": QuadraticForm(),
}
"""The laws that `fit_parametric` knows."""
