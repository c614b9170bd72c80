"""The laws of the frontier, N_opt(C), D_opt(C) and L_opt(C) or R_opt(C), through its points."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import FitError
from scaling_analysis.laws.cost import Cost
from scaling_analysis.laws.power import EXPONENT_BOUND, fit_power, fit_power_floor
from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]
ValueLaw = Literal["power", "floor", "inverse", "auto"]

MIN_POINTS = 3
"""A replicate with fewer points on the frontier is no valid fit."""
_ROLLING_FROM = 4
_PARAMETERS = (
    "log_params",
    "params_exponent",
    "value_log_scale",
    "value_exponent",
    "value_floor",
    "curvature_log_scale",
    "curvature_exponent",
    "points",
)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrontierLaws:
    """Laws of the frontier around C_ref; parameters are () or, for replicates, (R,)."""

    flops_ref: float
    """C_ref [FLOP], the geometric mean of the budgets: logs are taken of C/C_ref."""
    log_params: Array
    """log N_opt(C_ref)."""
    params_exponent: Array
    """a in N_opt ~ C^a."""
    value_form: str
    """"power": y = s (C/C_ref)^p; "floor": the same plus a floor; "inverse": the same plus a floor
    for 1/y, so that y = (a C^-g + b)^-1 (returns)."""
    value_log_scale: Array
    """log s."""
    value_exponent: Array
    """p: below zero for a loss and in the inverse form."""
    value_floor: Array
    """Floor of the loss [nats/action], or of 1/return; 0 for a power law."""
    curvature_log_scale: Array
    """log k(C_ref) of y = y_opt + k (log N - log N_opt)^2, in the fitted space; smooth over C."""
    curvature_exponent: Array
    """Exponent of k in C."""
    points: Array
    """Number of points on the frontier behind the laws."""
    cost: Cost
    """FLOP a sample, which turns N_opt(C) into D_opt(C)."""
    maximise: bool
    """Whether the frontier holds maxima (returns)."""
    log_space: bool
    """Whether profiles are quadratic in log y."""
    lowest: float
    """Smallest observed return; `value` never falls below it. -inf for a loss."""

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count]; () or (R,) + the shape of `flops`."""
        z = self._log_ratio(flops)
        return np.exp(_lead(self.log_params, z) + _lead(self.params_exponent, z) * z)

    def samples_opt(self, flops: ArrayLike) -> Array:
        """D_opt(C) [count], from the FLOP a sample of N_opt(C)."""
        return self.cost.samples(self.params_opt(flops), flops)

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action] or R_opt(C) [points]."""
        z = self._log_ratio(flops)
        scale, exponent = _lead(self.value_log_scale, z), _lead(self.value_exponent, z)
        value = np.exp(scale + exponent * z) + _lead(self.value_floor, z)
        return 1 / value if self.value_form == "inverse" else value

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Loss or return of a run of N `params` on C `flops`: quadratic in log N off the optimum.

        To second order, with the curvature smoothed over budgets; far from the optimum a cubic or
        a surface bends otherwise. A return never falls below the smallest one observed. The inputs
        broadcast; `params` of shape (R,) + that of `flops` belong to the replicates.
        """
        n, c = np.asarray(params, dtype=float), np.asarray(flops, dtype=float)
        if not (self.log_params.ndim == 1 and n.shape == self.log_params.shape + c.shape):
            n, c = np.broadcast_arrays(n, c)
        z = self._log_ratio(c)
        slope = _lead(self.curvature_exponent, z)
        curvature = np.exp(_lead(self.curvature_log_scale, z) + slope * z)
        away = (-1.0 if self.maximise else 1.0) * curvature * np.log(n / self.params_opt(c)) ** 2
        best = self.value_opt(c)
        return np.maximum(best * np.exp(away) if self.log_space else best + away, self.lowest)

    def valid(self) -> NDArray[np.bool_]:
        """Enough points, and every parameter finite and off its bound."""
        finite = np.isfinite(np.stack([getattr(self, name) for name in _PARAMETERS])).all(axis=0)
        bound = np.abs(self.value_exponent) < EXPONENT_BOUND * (1 - 1e-9)
        return finite & bound & (self.points >= MIN_POINTS)

    @classmethod
    def blank(
        cls, *, cost: Cost, maximise: bool, log_space: bool, lowest: float = -np.inf
    ) -> "FrontierLaws":
        """The setting of laws that are not fitted yet: parameters are NaN."""
        unknown = {name: np.array(np.nan) for name in _PARAMETERS}
        return cls(
            flops_ref=1.0,
            value_form="power",
            cost=cost,
            maximise=maximise,
            log_space=log_space,
            lowest=lowest,
            **unknown,
        )

    def equations(self) -> str:
        """The two laws with their numbers, a line each."""
        ratio = f"(C/{self.flops_ref:.4g})"
        n = f"N_opt = {np.exp(self.log_params):.4g} {ratio}^{self.params_exponent:.4f}"
        term = f"{np.exp(self.value_log_scale):.4g} {ratio}^{self.value_exponent:.4f}"
        symbol = "R_opt" if self.maximise else "L_opt"
        value = {
            "power": term,
            "floor": f"{term} + {self.value_floor:.4g}",
            "inverse": f"({term} + {self.value_floor:.4g})^-1",
        }[self.value_form]
        return f"{n}\n{symbol} = {value}"

    def replicate(self, i: int) -> "FrontierLaws":
        """The laws of one replicate, without the leading axis."""
        return replace(self, **{name: np.asarray(getattr(self, name)[i]) for name in _PARAMETERS})

    def to_dict(self) -> dict[str, Any]:
        return {
            "flops_ref": self.flops_ref,
            "value_form": self.value_form,
            "cost": self.cost.to_dict(),
            "maximise": self.maximise,
            "log_space": self.log_space,
            "lowest": None if np.isinf(self.lowest) else self.lowest,
            **{name: encode_array(getattr(self, name)) for name in _PARAMETERS},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "FrontierLaws":
        return cls(
            flops_ref=data["flops_ref"],
            value_form=data["value_form"],
            cost=Cost.from_dict(data["cost"]),
            maximise=data["maximise"],
            log_space=data["log_space"],
            lowest=-np.inf if data["lowest"] is None else data["lowest"],
            **{name: decode_array(data[name]) for name in _PARAMETERS},
        )

    def _log_ratio(self, flops: ArrayLike) -> Array:
        return np.log(np.asarray(flops, dtype=float) / self.flops_ref)


def fit_frontier_laws(
    flops: Array,
    log_params: Array,
    value: Array,
    curvature: Array,
    *,
    form: str,
    cost: Cost,
    maximise: bool,
    log_space: bool,
    lowest: float = -np.inf,
) -> FrontierLaws:
    """Least squares in logs through the points of the frontier, for all replicates at once.

    Parameters
    ----------
    flops : (points,)
        C of the points [FLOP].
    log_params, value, curvature : (R, points)
        NaN in `log_params` marks a point that a replicate does not have; `curvature` counts where
        it is finite and has the sign of an optimum.
    form : "power", "floor" or "inverse"
        Law of the value (`choose_value_law` makes "auto" one of these).
    """
    flops_ref = float(np.exp(np.log(flops).mean()))
    z = np.log(flops / flops_ref)
    weights = np.isfinite(log_params).astype(float)
    log_n, params_exponent = fit_power(z, log_params, weights)
    log_scale, exponent, floor = _fit_value(form, z, value, weights)
    bend = -curvature if maximise else curvature
    bent = np.isfinite(log_params) & (bend > 0)
    log_bend = np.log(np.where(bent, bend, 1.0))
    k, k_exponent = fit_power(z, log_bend, bent.astype(float))
    with np.errstate(invalid="ignore"):
        k_mean = log_bend.sum(axis=1) / np.where(bent.any(axis=1), bent.sum(axis=1), np.nan)
    few = bent.sum(axis=1) < MIN_POINTS
    return FrontierLaws(
        flops_ref=flops_ref,
        log_params=log_n,
        params_exponent=params_exponent,
        value_form=form,
        value_log_scale=log_scale,
        value_exponent=exponent,
        value_floor=floor,
        curvature_log_scale=np.where(few, k_mean, k),
        curvature_exponent=np.where(few, 0.0, k_exponent),
        points=weights.sum(axis=1),
        cost=cost,
        maximise=maximise,
        log_space=log_space,
        lowest=lowest,
    )


def choose_value_law(law: str, flops: Array, value: Array, maximise: bool) -> tuple[str, str]:
    """The form of the value law and, where "auto" chose it, a sentence that says why.

    "auto" compares the power law with its saturating counterpart (a floor for a loss, the inverse
    form for a return) by rolling origin: fitted to the first k points of the frontier, each
    forecasts the points beyond, and the smaller mean error in logs wins.

    `flops`, `value` : (points,), increasing in `flops`.
    """
    saturating = "inverse" if maximise else "floor"
    if law not in ("power", saturating, "auto"):
        raise FitError(
            f"value_law is {law!r}: choose 'power', {saturating!r} or 'auto' for a "
            f"{'return' if maximise else 'loss'}"
        )
    n = len(flops)
    if law != "auto":
        if law == saturating and n <= MIN_POINTS:
            raise FitError(
                f"value_law={law!r} has three parameters and the frontier {n} points: "
                "choose value_law='power' or run more budgets"
            )
        return law, ""
    if n <= _ROLLING_FROM:
        return "power", (
            f"the value law is a plain power law: {n} budgets are too few to tell a floor from "
            "none, so it may extrapolate too far"
        )
    z = np.log(flops / flops[0])
    error = {}
    seen = np.tri(n)[_ROLLING_FROM - 1 : n - 1]
    for form in ("power", saturating):
        log_scale, exponent, floor = _fit_value(form, z, np.tile(value, (len(seen), 1)), seen)
        law_value = np.exp(log_scale[:, None] + exponent[:, None] * z) + floor[:, None]
        log_value = -np.log(law_value) if form == "inverse" else np.log(law_value)
        error[form] = np.abs(log_value - np.log(value))[seen == 0].mean()
    best = min(error, key=lambda form: error[form])
    names = {"power": "a plain power law", "floor": "a power law with a floor"}
    names["inverse"] = "an inverse form"
    return best, (
        f"the value law is {names[best]}: forecasting later budgets from earlier ones, "
        f"{names['power']} errs by {error['power']:.1%} and {names[saturating]} by "
        f"{error[saturating]:.1%}"
    )


def _fit_value(form: str, z: Array, value: Array, weights: Array) -> tuple[Array, Array, Array]:
    with np.errstate(divide="ignore", invalid="ignore"):
        log_value = np.where(weights > 0, np.log(value), 0.0)
    if form == "power":
        log_scale, exponent = fit_power(z, log_value, weights)
        return log_scale, exponent, np.zeros_like(exponent)
    return fit_power_floor(z, -log_value if form == "inverse" else log_value, weights)


def ols_table(flops: Array, columns: Mapping[str, Array], level: float = 0.95) -> pd.DataFrame:
    """Straight lines of log y on log C with their textbook intervals, natural logs, C in FLOP.

    One row a quantity: intercept, slope, slope_lo, slope_hi, r2, points. The interval takes the
    points as independent and exact in C: it knows nothing of shared runs or of quantised sizes.
    """
    table = {}
    for name, y in columns.items():
        known = np.isfinite(y) & (y > 0)
        x, log_y = np.log(flops[known]), np.log(y[known])
        n = len(x)
        dx, dy = x - x.mean(), log_y - log_y.mean()
        slope = (dx @ dy) / (dx @ dx)
        residual = dy - slope * dx
        error = np.sqrt(residual @ residual / (n - 2) / (dx @ dx)) if n > 2 else np.nan
        half = student_quantile(level, n - 2) * error
        table[name] = {
            "intercept": log_y.mean() - slope * x.mean(),
            "slope": slope,
            "slope_lo": slope - half,
            "slope_hi": slope + half,
            "r2": 1 - (residual @ residual) / (dy @ dy) if dy @ dy > 0 else np.nan,
            "points": n,
        }
    return pd.DataFrame.from_dict(table, orient="index")


def _lead(parameter: Array, like: Array) -> Array:
    """The parameter with axes added behind, so that its replicate axis stays in front."""
    parameter = np.asarray(parameter)
    return parameter.reshape(parameter.shape + (1,) * like.ndim)
