"""The forms that a surface y(x_1, ..., x_k) may take, by name, fitted from many origins at once.

All are laws of a quantity that falls as the inputs grow, see `surface_rows.Surface`.
"""

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.estimators.surface_rows import Surface
from scaling_analysis.laws import surfaces
from scaling_analysis.laws.forms import FORMS, Rows
from scaling_analysis.laws.kaplan import kaplan
from scaling_analysis.laws.newton import SmoothLaw, minimize_huber
from scaling_analysis.laws.seeds import additive_seeds
from scaling_analysis.laws.surfaces import LinearLaw

Array = NDArray[np.float64]

NAMES = ("product", "log_linear", "log_quadratic", "additive", "tied", "kaplan")
"""The forms: a line in the log of the product of the inputs; a plane in their logs; a quadratic in
them (Tuyls et al. 2023); E + sum A_i/x_i^alpha_i (Hoffmann et al. 2022, approach 3); the same with
one exponent (Gadre et al. 2024); the law of Kaplan et al. 2020 for (N, D)."""
AVERAGED = (
    *("log_linear", "log_quadratic", "additive", "tied"),
    *("recent log_quadratic", "recent additive", "recent tied"),
)
"""What the average is made of; a form that is "recent" sees late rows more than early ones. The law
of Kaplan et al. is left out: it has no irreducible loss, and the plane stands for that already."""
RECENT = 0.25
"""Rows lose weight e-fold over this share of the range of the position."""
CURVATURE_PENALTY = 0.05
"""In the average, a quadratic's curvature is held down as by a row of this weight at one sd that
saw none. A quadratic fitted by its name is plain least squares."""
DELTA = 1e-3
"""Knee of Huber's loss, in log y as in Hoffmann et al. 2022, or as a share of the range of y."""
_SEEDS = 2


def least_rows(name: str, inputs: int) -> int:
    """Rows from which a form can enter the average: two more than its parameters."""
    base = name.removeprefix("recent ")
    parameters = {
        "product": 1,
        "log_linear": 1 + inputs,
        "log_quadratic": (inputs + 1) * (inputs + 2) // 2,
        "additive": 1 + 2 * inputs,
        "tied": 2 + inputs,
        "kaplan": 4,
    }
    return parameters[base] + 2


def law_of(name: str, log_inputs: Array, surface: Surface) -> SmoothLaw:
    """A form at any log inputs (k, m), with the parameters of the fit to `surface`."""
    base, centre = name.removeprefix("recent "), surface.centre.tolist()
    if base == "product":
        along = surface.axis @ (log_inputs - surface.centre[:, None])
        return LinearLaw(np.array([np.ones(along.shape), along]))
    if base == "log_linear":
        moved = log_inputs - surface.centre[:, None]
        return LinearLaw(np.concatenate([np.ones((1, moved.shape[1])), moved]))
    if base == "log_quadratic":
        return surfaces.log_quadratic(list(log_inputs), centre)
    if base == "kaplan":
        return kaplan(list(log_inputs), centre)
    make = surfaces.additive if base == "additive" else surfaces.tied
    return make(list(log_inputs), centre, surface.space)


def fit_form(
    name: str,
    surface: Surface,
    weights: Array,
    response: Array | None = None,
    curvature_penalty: float = 0.0,
) -> Array:
    """Parameters (R, P) of a form for weights (R or 1, n), and for other responses (R or 1, n)."""
    base = name.removeprefix("recent ")
    if base != name:
        weights = weights * _recency(surface.position, weights)
    law = law_of(name, surface.log_inputs, surface)
    mu = np.atleast_2d(surface.mu if response is None else surface.mu_of(response))
    mu, weights = np.broadcast_arrays(mu, weights)
    if isinstance(law, LinearLaw):
        return _fit_linear(base, law, surface, mu, weights, curvature_penalty)
    starts = _starts(base, surface, mu, weights)
    count = starts.shape[1]
    found = minimize_huber(
        law,
        np.repeat(mu, count, axis=0),
        np.repeat(weights, count, axis=0),
        starts.reshape(-1, starts.shape[2]),
        delta=DELTA,
    )
    best = found.objective.reshape(-1, count).argmin(axis=1) + np.arange(len(mu)) * count
    return found.theta[best]


def _recency(position: Array, weights: Array) -> Array:
    present = weights > 0
    last = np.where(present, position, -np.inf).max(axis=1, keepdims=True)
    first = np.where(present, position, np.inf).min(axis=1, keepdims=True)
    age = np.where(present, last - position, 0.0)
    return np.exp(-age / np.maximum(RECENT * (last - first), 1e-300))


def _fit_linear(
    base: str,
    law: LinearLaw,
    surface: Surface,
    mu: Array,
    weights: Array,
    curvature_penalty: float,
) -> Array:
    """Weighted least squares, with a trace of ridge, and `curvature_penalty`, on scaled slopes."""
    spread = surface.log_inputs.std(axis=1) + 1e-12
    scale = np.ones(len(law.design))
    penalty = np.full(len(law.design), 1e-9)
    if base != "product":
        scale[1 : 1 + len(surface.inputs)] = spread
    if base == "log_quadratic":
        first, second = np.triu_indices(len(surface.inputs))
        scale[1 + len(surface.inputs) :] = spread[first] * spread[second]
        penalty[1 + len(surface.inputs) :] += curvature_penalty
    design = law.design.T / scale
    weighted = design.T * weights[:, None]
    typical = weights.sum(axis=1) / np.maximum((weights > 0).sum(axis=1), 1)
    normal = weighted @ design + (penalty * typical[:, None])[:, None] * np.eye(len(scale))
    right = weighted @ mu[..., None]
    return np.linalg.solve(normal, right)[..., 0] / scale


def _starts(base: str, surface: Surface, mu: Array, weights: Array) -> Array:
    """Starts (R, several, P) by variable projection."""
    log_inputs, space = list(surface.log_inputs), surface.space
    if base == "kaplan":
        log_n, log_d = surface.log_inputs
        rows = Rows(log_n, log_d, np.full(mu.shape[1], np.inf), "log", 0.0, 1.0)
        return FORMS["kaplan"].seeds(rows, mu, weights, 1)
    response = np.exp(mu) if space == "log" else mu
    if base == "additive":
        return additive_seeds(
            log_inputs, response, weights, centre=list(surface.centre), space=space, keep=_SEEDS
        )
    one = np.tile(np.geomspace(0.03, 2.5, 24), (len(surface.inputs), 1))
    starts = additive_seeds(
        log_inputs,
        response,
        weights,
        centre=list(surface.centre),
        space=space,
        exponents=one,
        keep=_SEEDS,
    )
    return np.concatenate([starts[..., :1], starts[..., 1::2], starts[..., 2:3]], axis=-1)


def average_forms(surface: Surface) -> tuple[str, ...]:
    """The forms that the rows can carry; the product of the inputs where they carry none else."""
    rows = surface.log_inputs.shape[1]
    able = tuple(name for name in AVERAGED if least_rows(name, len(surface.inputs)) <= rows)
    return able or ("product",)


def natural_parameters(name: str, theta: Array, surface: Surface) -> dict[str, Array]:
    """Parameters of the fitted, falling quantity for plain logs of the inputs; () or (R,)."""
    names = surface.inputs
    centre, logarithmic = surface.centre, surface.space == "log"
    factor = np.exp(surface.shift) if logarithmic else surface.unit
    if name == "additive" or name == "tied":
        exponents = theta[..., 2::2] if name == "additive" else theta[..., -1:]
        logs = theta[..., 1::2] if name == "additive" else theta[..., 1:-1]
        exponents = np.broadcast_to(exponents, logs.shape)
        out = {"E": factor * theta[..., 0]}
        for i, symbol in enumerate(names):
            out[f"A_{symbol}"] = factor * np.exp(logs[..., i] + exponents[..., i] * centre[i])
            out[f"alpha_{symbol}"] = exponents[..., i]
        return out
    if name == "kaplan":
        power, c, ratio, d = np.moveaxis(theta, -1, 0)
        rise = surface.shift / power
        n_c, d_c = np.exp((c + rise) / ratio + centre[0]), np.exp(d + rise + centre[1])
        return {"N_c": n_c, "D_c": d_c, "alpha_N": ratio * power, "alpha_D": power}
    size = len(surface.inputs)
    if name == "product":
        theta = np.concatenate([theta[..., :1], theta[..., 1:] * surface.axis], axis=-1)
    constant, slopes = theta[..., 0], theta[..., 1 : 1 + size]
    constant = constant - slopes @ centre
    out = {}
    if name == "log_quadratic":
        first, second = np.triu_indices(size)
        bend = np.zeros((*theta.shape[:-1], size, size))
        bend[..., first, second] = theta[..., 1 + size :]
        both = bend + np.swapaxes(bend, -1, -2)
        constant = constant + np.einsum("i,...ij,j->...", centre, bend, centre)
        slopes = slopes - both @ centre
        out = {
            f"c_{names[i]}_{names[j]}": bend[..., i, j]
            for i, j in zip(first.tolist(), second.tolist(), strict=True)
        }
    linear = {f"c_{symbol}": slopes[..., i] for i, symbol in enumerate(names)}
    if logarithmic:
        return {"c_0": constant + surface.shift} | linear | out
    return {key: factor * v for key, v in ({"c_0": constant} | linear | out).items()}
