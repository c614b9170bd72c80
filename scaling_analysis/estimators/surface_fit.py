"""The result of `fit_surface`."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.extrapolation import (
    ORIGIN_FREEDOM,
    average_variance,
    interval_columns,
)
from scaling_analysis.estimators.series import Direction
from scaling_analysis.estimators.surface_forms import (
    Surface,
    fit_form,
    law_of,
    natural_parameters,
)
from scaling_analysis.estimators.surface_rows import fall, read_inputs

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class SurfaceFit:
    """A surface y(x_1, ..., x_k) with its forecast: one named form, or the average of several.

    `parameters` are those of a quantity that falls as the inputs grow: y itself where it is
    "decreasing"; where it is "increasing", 1/y in log space and -y in linear space.
    """

    form: str
    """"auto" or the name of a form."""
    inputs: tuple[str, ...]
    """Names of the inputs that take part."""
    columns: tuple[str, ...]
    """Names of all inputs given; one that never varies takes no part."""
    direction: Direction
    y: Array
    """(n,)."""
    surface: Surface
    """The rows fitted."""
    weights: Array
    """Of the rows in every fit, (n,), 1 on average."""
    forms: tuple[str, ...]
    """The forms averaged; the named one alone."""
    form_weights: Array
    """Their weights, (forms,), which add up to 1."""
    thetas: tuple[Array, ...]
    """Parameters of each form in centred logs, (P,) each, or (R, P) of a named form."""
    covariance: Array | None
    """Of the parameters of a named form, (P, P), without the error of the law itself."""
    noise: float
    """Variance of a new observation about the surface, in the space of the residuals."""
    origins: float
    """Origins of the hindcast, each counted by its recency."""
    growth: float
    """kappa^2: squared error of the replayed forecasts at a distance of 1 in log x."""
    inflation: float
    """Squared errors of a named form in the hindcast over those that its covariance promised."""
    sound: NDArray[np.bool_]
    """Whether the fit, () or (R,), is finite."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def residual_space(self) -> str:
        """ "log" where residuals are of log y, "linear" where they are of y."""
        return self.surface.space

    @property
    def parameters(self) -> dict[str, Array]:
        """Parameters of a named form by name, in natural units; () or (R,) each."""
        self._named()
        return natural_parameters(self.form, self.thetas[0], self.surface, self.inputs)

    def value(self, inputs: pd.DataFrame | ArrayLike) -> Array:
        """y of the surface at rows of inputs: (m,) or (R, m)."""
        return self._back(self._forecast(self._log(inputs))[0])

    def fitted_values(self) -> Array:
        """y of the surface at the rows fitted: (n,) or (R, n)."""
        return self._back(self._forecast(self.surface.log_inputs)[0])

    def predict(self, inputs: pd.DataFrame | ArrayLike, level: float = 0.9) -> pd.DataFrame:
        """The surface at new rows, with its intervals.

        Parameters
        ----------
        inputs : DataFrame with the columns fitted, or array (m, k)
        level : float
            Nominal coverage.

        Returns
        -------
        pandas.DataFrame
            The inputs, value, lo, hi (the surface: sampling, the law's own error as the hindcast
            saw it, and the spread of the forms), run_lo, run_hi (a new observation). Never of zero
            width: see `estimators.series.LEAST_NOISE`.
        """
        if self.sound.ndim:
            raise FitError("these are replicates: predict from the fit that they came from")
        log_x = self._log(inputs)
        mu, variance = self._forecast(log_x)
        if self.covariance is None:
            rows = len(self.y)
            free = 1 + 2 * len(self.inputs)
            distance = self._distance(log_x)
            sampling = free * self.noise / rows
            variance = average_variance(variance, self.growth, distance, sampling)
            noise_freedom = max(rows - free, 1)
            beyond = min(self.origins + ORIGIN_FREEDOM, noise_freedom)
            freedom = np.where(distance > 0, beyond, noise_freedom)
        else:
            freedom = noise_freedom = max(len(self.y) - self.thetas[0].shape[-1], 1)
            variance = np.maximum(variance, self.noise / len(self.y))
        columns = interval_columns(
            mu, variance, freedom, self.noise, noise_freedom, level, self._back
        )
        if self.direction == "increasing":  # what is fitted falls where y rises
            swap = {"lo": "hi", "hi": "lo", "run_lo": "run_hi", "run_hi": "run_lo"}
            columns = {name: columns[swap.get(name, name)] for name in columns}
        table = dict(zip(self.inputs, np.exp(log_x), strict=True))
        return pd.DataFrame(table | columns)

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """A named form refitted to R sets of weights or of responses, (R, n) or (n,) each.

        Weights multiply those of the fit, responses are y. The parameters of the result have a
        leading axis R.
        """
        self._named()
        if self.sound.ndim:
            raise FitError("these are replicates already: refit the fit that they came from")
        w = np.atleast_2d(np.ones(len(self.y)) if weights is None else weights).astype(float)
        y = np.atleast_2d(self.y if response is None else np.asarray(response, dtype=float))
        for name, values in (("weights", w), ("response", y)):
            if values.shape[1:] != self.y.shape or len(values) not in (1, max(len(w), len(y))):
                raise FitError(f"{name} has shape {values.shape}, the surface {len(self.y)} rows")
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise FitError("weights must be finite and not negative")
        possible = np.isfinite(y) & ((y > 0) | (self.surface.space == "linear"))
        surface = replace(self.surface, mu=self._mu(np.where(possible, y, self.y)))
        shape = (max(len(w), len(y)), len(self.y))
        theta = fit_form(self.form, surface, np.broadcast_to(w * self.weights, shape))
        sound = np.isfinite(theta).all(axis=1) & (possible | (w == 0)).all(axis=1)
        return replace(self, thetas=(theta,), covariance=None, sound=sound, messages=())

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a fit, () or (R,)."""
        return self.sound

    def summary(self) -> str:
        """The fit in a few lines, its status first."""
        lines = [f"status: {self.status}", *self.messages]
        lines.append(
            f"{len(self.y)} rows of {', '.join(self.inputs)}, y {self.direction}; residuals of "
            f"{'log y' if self.surface.space == 'log' else 'y'}, sd "
            f"{self.surface.unit * np.sqrt(self.noise):.3g}"
        )
        if self.form == "auto":
            lines.append(f"average of {len(self.forms)} forms, {self.origins:.1f} origins:")
            order = np.argsort(-self.form_weights, kind="stable")
            lines += [f"  {self.form_weights[i]:.2f} {self.forms[i]}" for i in order]
        elif not self.sound.ndim:
            values = ", ".join(f"{name} = {v:.6g}" for name, v in self.parameters.items())
            lines.append(f"{self.form}: {values}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fit as plain data for JSON."""
        s = self.surface
        return {
            "kind": "SurfaceFit",
            "form": self.form,
            "inputs": list(self.inputs),
            "columns": list(self.columns),
            "direction": self.direction,
            "space": s.space,
            "shift": s.shift,
            "unit": s.unit,
            **{
                name: encode_array(v)
                for name, v in (
                    ("y", self.y),
                    ("log_inputs", s.log_inputs),
                    ("centre", s.centre),
                    ("position", s.position),
                    ("axis", s.axis),
                    ("weights", self.weights),
                    ("form_weights", self.form_weights),
                    ("sound", self.sound),
                )
            },
            "forms": list(self.forms),
            "thetas": [encode_array(theta) for theta in self.thetas],
            "covariance": None if self.covariance is None else encode_array(self.covariance),
            "noise": self.noise,
            "origins": self.origins,
            "growth": self.growth,
            "inflation": self.inflation,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        y = decode_array(data["y"])
        surface = Surface(
            log_inputs=decode_array(data["log_inputs"]),
            mu=np.zeros(0),
            space=data["space"],
            centre=decode_array(data["centre"]),
            position=decode_array(data["position"]),
            axis=decode_array(data["axis"]),
            shift=data["shift"],
            unit=data["unit"],
        )
        covariance = data["covariance"]
        fit = cls(
            form=data["form"],
            inputs=tuple(data["inputs"]),
            columns=tuple(data["columns"]),
            direction=data["direction"],
            y=y,
            surface=surface,
            weights=decode_array(data["weights"]),
            forms=tuple(data["forms"]),
            form_weights=decode_array(data["form_weights"]),
            thetas=tuple(decode_array(theta) for theta in data["thetas"]),
            covariance=None if covariance is None else decode_array(covariance),
            noise=data["noise"],
            origins=data["origins"],
            growth=data["growth"],
            inflation=data["inflation"],
            sound=decode_array(data["sound"]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )
        return replace(fit, surface=replace(surface, mu=fit._mu(y)))

    def _named(self) -> None:
        if self.form == "auto":
            raise FitError("form='auto' averages forms and has no parameters: name a form")

    def _log(self, inputs: pd.DataFrame | ArrayLike) -> Array:
        names, x = read_inputs(inputs, self.columns)
        return np.log(x[[names.index(name) for name in self.inputs]])

    def _mu(self, y: Array) -> Array:
        return fall(y, self.direction, self.surface.space, self.surface.shift, self.surface.unit)

    def _back(self, mu: Array) -> Array:
        """y from the space of the fit."""
        sign = -1.0 if self.direction == "increasing" else 1.0
        if self.surface.space == "linear":
            return sign * self.surface.unit * mu
        with np.errstate(over="ignore"):
            return np.exp(sign * (mu + self.surface.shift))

    def _forecast(self, log_x: Array) -> tuple[Array, Array]:
        """mu at log inputs (k, m), and its variance: between forms, or by sampling."""
        laws = [law_of(name, log_x, self.surface) for name in self.forms]
        each = np.array(
            [
                law.evaluate(np.atleast_2d(theta))[0]
                for law, theta in zip(laws, self.thetas, strict=True)
            ]
        )
        if self.sound.ndim:
            return each[0], np.zeros(log_x.shape[1])
        each = each[:, 0]
        mu = self.form_weights @ each
        if self.covariance is None:
            return mu, self.form_weights @ (each - mu) ** 2
        slope = laws[0].jacobian(self.thetas[0][None])[0]
        variance = np.einsum("ni,ij,nj->n", slope, self.covariance, slope)
        return mu, self.inflation * np.maximum(variance, 0.0)

    def _distance(self, log_x: Array) -> Array:
        """How far new rows lie beyond the old: in position, or in an input on its own."""
        s = self.surface
        ahead = s.axis @ log_x - (s.axis @ s.log_inputs).max()
        above = (log_x - s.log_inputs.max(axis=1, keepdims=True)).max(axis=0)
        below = (s.log_inputs.min(axis=1, keepdims=True) - log_x).max(axis=0)
        return np.maximum(np.maximum(ahead, np.maximum(above, below)), 0.0)
