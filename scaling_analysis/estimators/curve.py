"""`fit_curve`: one quantity against one, y(x), and its forecast beyond the data.

docs/methods-extrapolation.md derives the average and its interval and says where their few
constants come from.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.curve_forms import (
    NAMED,
    auto_forms,
    forecast_forms,
    natural_parameters,
    points_of,
)
from scaling_analysis.estimators.extrapolation import (
    ORIGIN_FREEDOM,
    average_variance,
    interval_columns,
)
from scaling_analysis.estimators.series import (
    Bounds,
    Direction,
    Series,
    least_variance,
    read_series,
    run_noise,
)
from scaling_analysis.laws import curve_fits, curves
from scaling_analysis.laws.curve_grids import Points
from scaling_analysis.laws.curves import predict
from scaling_analysis.uncertainty.rolling_origin import replay, roll_origins

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class CurveFit:
    """A curve y(x) with its forecast: one named form, or the average of several."""

    form: str
    """"auto" or the name of a form."""
    series: Series
    """The points fitted, in the order of x."""
    forms: tuple[str, ...]
    """The forms averaged; the named one alone."""
    form_weights: Array
    """Their weights, (forms,), which add up to 1."""
    theta: Array | None
    """Parameters of a named form in centred log x, (P,) or (R, P); see `parameters`."""
    covariance: Array | None
    """Of `theta`, (P, P), without the error of the law itself."""
    noise: float
    """Variance of a new observation about the curve, in the space of the residuals."""
    origins: float
    """Origins of the hindcast, each counted by its recency."""
    growth: float
    """kappa^2: squared error of the replayed forecasts at a distance of 1 in log x."""
    inflation: float
    """Squared errors of a named form in the hindcast over those that its covariance promised."""
    sound: NDArray[np.bool_]
    """Whether the fit, () or (R,), converged to something finite."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def residual_space(self) -> str:
        """ "log" where residuals are of log y, "linear" where they are of y."""
        return self.series.space

    @property
    def parameters(self) -> dict[str, Array]:
        """Parameters of a named form by name, in natural units; () or (R,) each."""
        return natural_parameters(self.form, self._theta(), self.series)

    def value(self, x: ArrayLike) -> Array:
        """y of the curve at `x`; () or (R,) + its shape."""
        at = np.asarray(x, dtype=float)
        z = self._forecast(self._log(at.ravel()))[0]
        return self._back(z).reshape(*z.shape[:-1], *at.shape)

    def fitted_values(self) -> Array:
        """y of the curve at the points, in the order of `series`: (n,) or (R, n)."""
        return self.value(self.series.x)

    def predict(self, x_new: ArrayLike, level: float = 0.9) -> pd.DataFrame:
        """The curve at `x_new` with its intervals.

        Parameters
        ----------
        x_new : array_like, (m,) or ()
            Where; positive, inside the data or beyond.
        level : float
            Nominal coverage.

        Returns
        -------
        pandas.DataFrame
            x, value, lo, hi (the curve: sampling, the law's own error as the hindcast saw it, and
            the spread of the forms), run_lo, run_hi (a new observation). Never of zero width: see
            `estimators.series.LEAST_NOISE`.
        """
        if self.sound.ndim:
            raise FitError("these are replicates: predict from the fit that they came from")
        at = np.atleast_1d(np.asarray(x_new, dtype=float))
        if at.ndim != 1 or not (np.isfinite(at) & (at > 0)).all():
            raise FitError("x_new must be positive, finite numbers, one a row")
        log_x, known = self._log(at), self.series.t
        z, variance = self._forecast(log_x)
        if self.theta is None:
            distance = np.maximum(np.maximum(log_x - known[-1], known[0] - log_x), 0.0)
            sampling = 2 * self.noise / len(known)
            variance = average_variance(variance, self.growth, distance, sampling)
            noise_freedom = max(len(known) - 4, 1)
            beyond = min(self.origins + ORIGIN_FREEDOM, len(known) - 2)
            freedom = np.where(distance > 0, beyond, len(known) - 2)
        else:
            freedom = noise_freedom = max(len(known) - self.theta.shape[-1], 1)
        # The curve is cut at a bound first, so that an interval there keeps its width inwards.
        z = self._space(self._back(z))
        columns = interval_columns(
            z, variance, freedom, self.noise, noise_freedom, level, self._back
        )
        return pd.DataFrame({"x": at} | columns)

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """A named form refitted to R sets of weights or of responses, (R, n) or (n,) each.

        Both follow the order of `series`; weights multiply those of the fit, responses are y. The
        parameters of the result have a leading axis R.
        """
        self._theta()
        if self.sound.ndim:
            raise FitError("these are replicates already: refit the fit that they came from")
        series = self.series
        w = np.atleast_2d(np.ones(len(series.x)) if weights is None else weights).astype(float)
        y = np.atleast_2d(series.y if response is None else np.asarray(response, dtype=float))
        for name, values in (("weights", w), ("response", y)):
            if values.shape[1:] != series.x.shape or len(values) not in (1, max(len(w), len(y))):
                raise FitError(f"{name} has shape {values.shape}, the curve {len(series.x)} points")
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise FitError("weights must be finite and not negative")
        possible = np.isfinite(y) & ((y > 0) | (series.space == "linear"))
        points = series.points(w * series.weights, np.where(possible, y, series.y))
        theta, _, converged = _fit_named(self.form, points)
        sound = converged & (possible | (w == 0)).all(axis=1) & np.isfinite(theta).all(axis=1)
        return replace(self, theta=theta, covariance=None, sound=sound, messages=())

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a fit, () or (R,)."""
        return self.sound

    def summary(self) -> str:
        """The fit in a few lines, its status first."""
        series = self.series
        lines = [f"status: {self.status}", *self.messages]
        lines.append(
            f"{len(series.x)} points, x from {series.x[0]:.4g} to {series.x[-1]:.4g}, y "
            f"{series.direction}; residuals of {'log y' if series.space == 'log' else 'y'}, "
            f"sd {np.sqrt(self.noise):.3g}"
        )
        if self.theta is None:
            lines.append(f"average of {len(self.forms)} forms, {self.origins:.1f} origins:")
            order = np.argsort(-self.form_weights, kind="stable")
            lines += [
                f"  {self.form_weights[i]:.2f} {self.forms[i]}: {NAMED[self.forms[i]].equation}"
                for i in order
            ]
        else:
            values = ", ".join(f"{k} = {v:.6g}" for k, v in self.parameters.items() if not v.ndim)
            lines.append(f"{self.form}, y = {NAMED[self.form].equation}: {values}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fit as plain data for JSON."""
        s = self.series
        arrays = {"x": s.x, "y": s.y, "weights": s.weights, "form_weights": self.form_weights}
        optional = {"y_se": s.y_se, "theta": self.theta, "covariance": self.covariance}
        return {
            "kind": "CurveFit",
            "form": self.form,
            "forms": list(self.forms),
            "space": s.space,
            "direction": s.direction,
            "bounds": list(s.bounds),
            "run": None if s.run is None else s.run.tolist(),
            "point_noise": s.noise,
            "outliers": s.outliers,
            **{name: encode_array(v) for name, v in arrays.items()},
            **{name: None if v is None else encode_array(v) for name, v in optional.items()},
            "noise": self.noise,
            "origins": self.origins,
            "growth": self.growth,
            "inflation": self.inflation,
            "sound": encode_array(self.sound),
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        optional = {
            name: None if data[name] is None else decode_array(data[name])
            for name in ("y_se", "theta", "covariance")
        }
        series = Series(
            x=decode_array(data["x"]),
            y=decode_array(data["y"]),
            y_se=optional["y_se"],
            run=None if data["run"] is None else np.array(data["run"]),
            space=data["space"],
            direction=data["direction"],
            bounds=(data["bounds"][0], data["bounds"][1]),
            weights=decode_array(data["weights"]),
            noise=data["point_noise"],
            outliers=data["outliers"],
        )
        return cls(
            form=data["form"],
            series=series,
            forms=tuple(data["forms"]),
            form_weights=decode_array(data["form_weights"]),
            theta=optional["theta"],
            covariance=optional["covariance"],
            noise=data["noise"],
            origins=data["origins"],
            growth=data["growth"],
            inflation=data["inflation"],
            sound=decode_array(data["sound"]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )

    def _log(self, x: Array) -> Array:
        return np.log(x) - self.series.centre

    def _theta(self) -> Array:
        if self.theta is None:
            raise FitError("form='auto' averages forms and has no parameters: name a form")
        return self.theta

    def _back(self, z: Array) -> Array:
        """y from the space of the residuals, inside the bounds."""
        floor, ceiling = self.series.bounds
        with np.errstate(over="ignore"):
            y = np.exp(z) if self.series.space == "log" else z
        return y if floor is None and ceiling is None else np.clip(y, floor, ceiling)

    def _space(self, y: Array) -> Array:
        if self.series.space == "linear":
            return y
        return np.log(np.clip(y, 1e-300, 1e300))

    def _forecast(self, log_x: Array) -> tuple[Array, Array]:
        """log y or y at centred log x, and its variance: between forms, or by sampling."""
        series = self.series
        if self.theta is None:
            points = series.points(series.weights[None])
            each = forecast_forms(self.forms, points, log_x)[0]
            each = np.where(np.isfinite(each), each, 0.0)
            z = self.form_weights @ each
            between = self.form_weights @ (each - z) ** 2
            return z, between
        z = _at(self.form, self.theta, log_x, series)
        if self.covariance is None:
            return z, np.zeros(log_x.shape)
        slope = np.nan_to_num(_slopes(self.form, self.theta, log_x, series))
        variance = np.einsum("ni,ij,nj->n", slope, self.covariance, slope)
        return z, self.inflation * np.maximum(variance, 0.0)


def fit_curve(
    x: ArrayLike,
    y: ArrayLike,
    direction: Direction = "decreasing",
    y_se: ArrayLike | None = None,
    run: ArrayLike | None = None,
    bounds: Bounds | None = None,
    form: str = "auto",
    rng: int | np.random.Generator | None = 0,
) -> CurveFit:
    """Fit y(x) and say how far its forecast can be trusted.

    Parameters
    ----------
    x : array_like, (n,)
        Positive: compute, samples, parameters, ...
    y : array_like, (n,)
        Residuals are of log y where y is positive throughout, else of y.
    direction : {"decreasing", "increasing"}
        Whether more x is meant to lower y (a loss, an error) or to raise it (a return, N_opt).
    y_se : array_like, (n,), optional
        Standard errors of y.
    run : array_like, (n,), optional
        The training run that a point belongs to; a new observation is then one of a new run.
    bounds : (floor, ceiling), optional
        What y cannot pass, None where unknown. A law that starts from a level (sigmoid, m4) starts
        from the bound on that side: the return of a random policy, the error of chance.
    form : str
        "auto" averages forms by their rolling-origin errors. Or one of "persistence", "power",
        "log_line", "recent_line", "tail_line", "power_floor", "inverse", "broken",
        "broken_floor", "sigmoid", "m4", fitted at its least squares.
    rng : int, Generator or None
        Accepted so that all fits are called alike; nothing here is random.

    Raises
    ------
    FitError
        Fewer than 4 points, a value that is no number, or too few points for a named form.

    Examples
    --------
    >>> x = [1e3, 1e4, 1e5, 1e6, 1e7, 1e8]
    >>> fit = fit_curve(x, [2 * v**-0.25 + 0.1 for v in x], form="power_floor")
    >>> {name: round(float(v), 6) for name, v in fit.parameters.items()}
    {'a': 2.0, 'b': 0.25, 'c': 0.1}
    """
    series = read_series(x, y, direction, y_se, run, bounds)
    if form == "auto":
        return _fit_average(series)
    if form not in NAMED:
        raise FitError(f"form={form!r} is unknown: 'auto' or one of {', '.join(NAMED)}")
    return _fit_form(series, form)


def _fit_average(series: Series) -> CurveFit:
    forms = auto_forms(series)
    origins = roll_origins(np.log(series.x))
    forecasts = forecast_forms(forms, series.points(origins.weights * series.weights), series.t)
    seen = np.array([len(np.unique(series.x[row])) for row in origins.train])[:, None]
    least = np.array([NAMED[name].least_origin for name in forms])
    past = replay(
        forecasts,
        series.z,
        np.log(series.x),
        origins,
        usable=seen >= least,
        row_weights=series.weights,
    )
    messages = _messages(series)
    if past.effective < 1:
        messages.append(
            f"{seen[-1, 0]} distinct x: hardly any past forecast to judge the forms by, so they "
            "count nearly alike and the interval is wide"
        )
    return CurveFit(
        form="auto",
        series=series,
        forms=forms,
        form_weights=past.weights[-1],
        theta=None,
        covariance=None,
        noise=_total_noise(series, series.noise, series.z - past.average[-1]),
        origins=past.effective,
        growth=past.growth,
        inflation=1.0,
        sound=np.array(True),
        status=FitStatus.DOUBTFUL if past.effective < 1 else FitStatus.OK,
        messages=tuple(messages),
    )


def _fit_form(series: Series, form: str) -> CurveFit:
    law = NAMED[form].form
    size = len(law.curve.parameters)
    distinct = len(np.unique(series.x))
    if distinct < size:
        raise FitError(
            f"form={form!r} has {size} parameters and x takes {distinct} distinct values: give "
            "more points or a simpler form, or form='auto'"
        )
    if form in ("power", "inverse") and series.space == "linear":
        i = int(np.argmin(series.y))
        raise FitError(
            f"form={form!r} needs positive y, and y is {series.y[i]!r} at x = "
            f"{series.x[i]!r}: use form='log_line' or 'sigmoid'"
        )
    if form == "inverse" and series.direction == "decreasing":
        raise FitError(
            "form='inverse' rises to its limit: direction='increasing', or 'power_floor'"
        )
    origins = roll_origins(np.log(series.x), min_points=max(size, 3))
    points = series.points(origins.weights * series.weights)
    theta, at_bound, converged = _fit_named(form, points)
    now = theta[-1]
    residuals = series.z - _at(form, now, series.t, series)
    free = ~at_bound[-1]
    spare = len(series.x) - int(free.sum())
    misfit = float(series.weights @ residuals**2 / spare) if spare > 0 else series.noise
    least = least_variance(series.z, series.space)
    noise = _total_noise(series, max(misfit, least), residuals)
    covariances = _covariances(form, theta, at_bound, points, series) * max(misfit, least)
    messages = _messages(series)
    bound = [s for s, b in zip(law.curve.parameters, at_bound[-1], strict=True) if b]
    if bound:
        messages.append(f"at its bound: {', '.join(bound)}; the interval takes it as known")
    sound = bool(converged[-1] and np.isfinite(now).all())
    if not sound:
        raise FitError(f"form={form!r} finds no curve through these points: use form='auto'")
    past = replay(
        _at(form, theta, series.t, series)[:, None],
        series.z,
        np.log(series.x),
        origins,
        row_weights=series.weights,
    )
    return CurveFit(
        form=form,
        series=series,
        forms=(form,),
        form_weights=np.ones(1),
        theta=now,
        covariance=covariances[-1],
        noise=noise,
        origins=past.effective,
        growth=past.growth,
        inflation=past.inflation(_variances(form, theta, covariances, series)[:-1] + noise),
        sound=np.array(sound),
        status=FitStatus.DOUBTFUL if bound or spare < 2 else FitStatus.OK,
        messages=tuple(messages),
    )


def _fit_named(form: str, points: Points) -> tuple[Array, NDArray[np.bool_], NDArray[np.bool_]]:
    """Theta (R, P), which of it is at a bound, and what converged (R,)."""
    law, seen = NAMED[form].form, points_of(form, points)
    if law.curve in (curves.LEVEL, curves.LINE):
        theta = law.nodes(seen)[:, 0]
        return theta, np.zeros(theta.shape, dtype=bool), np.isfinite(theta).all(axis=1)
    found = curve_fits.fit_optimum(law, seen)
    return found.theta, found.at_bound, found.converged


def _at(form: str, theta: Array, log_x: Array, series: Series) -> Array:
    """log y or y of a named form."""
    law = NAMED[form].form
    sign = law.sign(series.points(series.weights[None]))
    with np.errstate(invalid="ignore"):
        return predict(law.curve, theta, log_x, series.space, sign)


def _slopes(form: str, theta: Array, log_x: Array, series: Series) -> Array:
    """Derivatives of log y or y by theta, (..., m, P)."""
    law = NAMED[form].form
    points = replace(series.points(series.weights[None]), t=log_x)
    return curve_fits.slopes(law, theta, points)


def _covariances(
    form: str, theta: Array, at_bound: NDArray[np.bool_], points: Points, series: Series
) -> Array:
    """Covariance of theta (R, P, P) for a misfit of 1, of the parameters off their bounds."""
    slope = np.nan_to_num(_slopes(form, theta, series.t, series))
    weights = np.broadcast_to(points_of(form, points).weights, slope.shape[:2])
    slope = np.where(at_bound[:, None], 0.0, slope * np.sqrt(weights)[..., None])
    return np.linalg.pinv(np.swapaxes(slope, 1, 2) @ slope, rcond=1e-13, hermitian=True)


def _variances(form: str, theta: Array, covariances: Array, series: Series) -> Array:
    """Variance of the fitted log y or y at the points, (R, n)."""
    slope = np.nan_to_num(_slopes(form, theta, series.t, series))
    return np.maximum(np.einsum("rni,rij,rnj->rn", slope, covariances, slope), 0.0)


def _total_noise(series: Series, noise: float, residuals: Array) -> float:
    """Variance of a new observation, of a new run where runs are known."""
    return noise if series.run is None else max(noise, run_noise(residuals, series.run))


def _messages(series: Series) -> list[str]:
    out = []
    if series.outliers:
        out.append(f"{series.outliers} outliers count less: their neighbours disown them")
    if np.ptp(series.y) == 0:
        out.append("y is constant: nothing is known of how it changes")
    return out
