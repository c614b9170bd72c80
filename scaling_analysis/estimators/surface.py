"""`fit_surface`: one quantity against several inputs, and its forecast beyond the data."""

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
from scaling_analysis.estimators.series import (
    MIN_POINTS,
    Direction,
    column,
    least_variance,
    precision_weights,
    run_names,
    run_noise,
    standard_errors,
)
from scaling_analysis.estimators.surface_forms import (
    NAMES,
    Surface,
    average_forms,
    fit_form,
    law_of,
    least_rows,
    natural_parameters,
)
from scaling_analysis.uncertainty.rolling_origin import replay, roll_origins

Array = NDArray[np.float64]

MAX_ORIGINS = 8
BUDGET_WIDTH = 0.1
"""Rows whose positions differ by less than 10 % are taken to lie on one budget."""


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
        names, x = _read_inputs(inputs, self.columns)
        return np.log(x[[names.index(name) for name in self.inputs]])

    def _mu(self, y: Array) -> Array:
        return _fall(y, self.direction, self.surface.space, self.surface.shift, self.surface.unit)

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


def fit_surface(
    inputs: pd.DataFrame | ArrayLike,
    y: ArrayLike,
    direction: Direction = "decreasing",
    y_se: ArrayLike | None = None,
    run: ArrayLike | None = None,
    form: str = "auto",
    rng: int | np.random.Generator | None = 0,
) -> SurfaceFit:
    """Fit y(x_1, ..., x_k) and say how far its forecast can be trusted.

    Parameters
    ----------
    inputs : DataFrame, or array_like (n, k)
        Positive: params, samples, unique samples, ... One that never varies takes no part.
    y : array_like, (n,)
        Residuals are of log y where y is positive throughout, else of y.
    direction : {"decreasing", "increasing"}
        Whether more of the inputs is meant to lower y (a loss) or to raise it (a return).
    y_se : array_like, (n,), optional
        Standard errors of y.
    run : array_like, (n,), optional
        The training run that a row belongs to; a new observation is then one of a new run.
    form : str
        "auto" averages forms by their errors in a hindcast that holds out the rows furthest in the
        direction of extrapolation: the sum of the logs of the inputs, each counted in the direction
        in which y improves; compute, for N and D. Or one of "log_linear", "log_quadratic",
        "additive", "tied", "kaplan" (inputs N and D, in this order) and "product", fitted alone.
    rng : int, Generator or None
        Accepted so that all fits are called alike; nothing here is random.

    Raises
    ------
    FitError
        Fewer than 4 rows, a value that is no number, or too few rows for a named form.

    Examples
    --------
    >>> n, d = np.meshgrid([1e6, 1e7, 1e8, 1e9], [1e8, 1e9, 1e10, 1e11])
    >>> inputs = pd.DataFrame({"N": n.ravel(), "D": d.ravel()})
    >>> loss = 1.8 + 480 / inputs["N"] ** 0.35 + 2100 / inputs["D"] ** 0.37
    >>> fit = fit_surface(inputs, loss, form="additive")
    >>> {name: round(float(v), 4) for name, v in fit.parameters.items()}
    {'E': 1.8, 'A_N': 480.0, 'alpha_N': 0.35, 'A_D': 2100.0, 'alpha_D': 0.37}
    """
    if direction not in ("decreasing", "increasing"):
        raise FitError(f"direction={direction!r}: say 'decreasing' or 'increasing'")
    if form != "auto" and form not in NAMES:
        raise FitError(f"form={form!r} is unknown: 'auto' or one of {', '.join(NAMES)}")
    columns, x = _read_inputs(inputs, None)
    response = column("y", y)
    if len(response) != x.shape[1]:
        raise FitError(f"inputs have {x.shape[1]} rows, y {len(response)}: they must pair up")
    if len(response) < MIN_POINTS:
        raise FitError(f"{len(response)} rows: an extrapolation needs at least {MIN_POINTS}")
    varies = np.ptp(np.log(x), axis=1) > 1e-9
    if not varies.any():
        raise FitError("no input varies: a surface needs rows with different inputs")
    names = tuple(name for name, used in zip(columns, varies, strict=True) if used)
    surface = _state_surface(np.log(x[varies]), response, direction)
    noise = least_variance(surface.mu, surface.space)
    weights = np.ones(len(response))
    if y_se is not None:
        se = standard_errors(y_se, len(response))
        se = se / response if surface.space == "log" else se / surface.unit
        plane = fit_form("log_linear", surface, weights[None])
        misfit = law_of("log_linear", surface.log_inputs, surface).evaluate(plane)[0] - surface.mu
        weights = precision_weights(se, max(noise, float(np.var(misfit))))
    common: dict[str, Any] = {
        "form": form,
        "inputs": names,
        "columns": columns,
        "direction": direction,
        "y": response,
        "surface": surface,
        "weights": weights,
    }
    runs = None if run is None else run_names(run, len(response))
    messages = [f"{name} never varies and takes no part" for name in columns if name not in names]
    if form == "auto":
        return _fit_average(common, runs, messages)
    return _fit_named(common, runs, messages)


def _fit_average(
    common: dict[str, Any], run: NDArray[np.str_] | None, messages: list[str]
) -> SurfaceFit:
    surface, weights = common["surface"], common["weights"]
    forms = average_forms(surface)
    origins = roll_origins(surface.position, 2, MAX_ORIGINS, min_rows=surface.inputs + 3)
    thetas = [fit_form(name, surface, origins.weights * weights) for name in forms]
    forecasts = np.stack(
        [
            law_of(name, surface.log_inputs, surface).evaluate(theta)[0]
            for name, theta in zip(forms, thetas, strict=True)
        ],
        axis=1,
    )
    rows = origins.train.sum(axis=1)[:, None]
    least = np.array([least_rows(name, surface.inputs) for name in forms])
    past = replay(
        forecasts,
        surface.mu,
        surface.position,
        origins,
        usable=rows >= least,
        row_weights=weights,
    )
    if past.effective < 1:
        messages.append(
            f"{len(surface.mu)} rows: hardly any past forecast to judge the forms by, so they "
            "count nearly alike and the interval is wide"
        )
    residuals = surface.mu - past.average[-1]
    free = 1 + 2 * surface.inputs
    return SurfaceFit(
        **common,
        forms=forms,
        form_weights=past.weights[-1],
        thetas=tuple(theta[-1] for theta in thetas),
        covariance=None,
        noise=_noise(surface, weights, residuals, free, run),
        origins=past.effective,
        growth=past.growth,
        inflation=1.0,
        sound=np.array(True),
        status=FitStatus.DOUBTFUL if past.effective < 1 else FitStatus.OK,
        messages=tuple(messages),
    )


def _fit_named(
    common: dict[str, Any], run: NDArray[np.str_] | None, messages: list[str]
) -> SurfaceFit:
    surface, weights, form = common["surface"], common["weights"], common["form"]
    size, rows = least_rows(form, surface.inputs) - 2, len(surface.mu)
    if rows <= size:
        raise FitError(
            f"form={form!r} has {size} parameters for {rows} rows: give more rows or a simpler "
            "form, or form='auto'"
        )
    if form == "kaplan" and (surface.inputs != 2 or surface.space == "linear"):
        raise FitError("form='kaplan' is a law of two inputs, N and D, and of positive y")
    origins = roll_origins(surface.position, 2, MAX_ORIGINS, min_rows=size + 2)
    thetas = fit_form(form, surface, origins.weights * weights)
    law = law_of(form, surface.log_inputs, surface)
    forecasts = law.evaluate(thetas)[0]
    residuals = surface.mu - forecasts[-1]
    noise = _noise(surface, weights, residuals, size, run)
    slope = law.jacobian(thetas)
    information = np.einsum("rn,rni,rnj->rij", origins.weights * weights, slope, slope)
    # With its knee far inside the noise, Huber's loss is close to least absolute deviations: pi/2
    # times the variance of least squares for normal noise. The linear forms are least squares.
    loss = 1.0 if form in ("product", "log_linear", "log_quadratic") else np.pi / 2
    covariances = loss * noise * np.linalg.pinv(information, rcond=1e-13, hermitian=True)
    past = replay(forecasts[:, None], surface.mu, surface.position, origins, row_weights=weights)
    promised = np.einsum("rni,rij,rnj->rn", slope, covariances, slope)[:-1] + noise
    return SurfaceFit(
        **common,
        forms=(form,),
        form_weights=np.ones(1),
        thetas=(thetas[-1],),
        covariance=covariances[-1],
        noise=noise,
        origins=past.effective,
        growth=past.growth,
        inflation=past.inflation(promised),
        sound=np.array(True),
        status=FitStatus.OK if rows >= size + 2 else FitStatus.DOUBTFUL,
        messages=tuple(messages),
    )


def _noise(
    surface: Surface,
    weights: Array,
    residuals: Array,
    free: int,
    run: NDArray[np.str_] | None,
) -> float:
    """Variance of a new observation, of a new run where runs are known."""
    spare = max(len(residuals) - free, 1)
    noise = max(float(weights @ residuals**2) / spare, least_variance(surface.mu, surface.space))
    return noise if run is None else max(noise, run_noise(residuals, run))


def _state_surface(log_x: Array, y: Array, direction: Direction) -> Surface:
    space = "log" if (y > 0).all() else "linear"
    sign = -1.0 if direction == "increasing" else 1.0
    shift = sign * float(np.log(y).mean()) if space == "log" else 0.0
    unit = max(float(np.ptp(y)), 1e-300) if space == "linear" else 1.0
    mu = _fall(y, direction, space, shift, unit)
    centre = log_x.mean(axis=1)
    moved = log_x - centre[:, None]
    slopes = np.linalg.lstsq(moved.T, mu - mu.mean(), rcond=1e-9)[0]
    axis = np.where(slopes > 0, -1.0, 1.0)
    position = np.round(axis @ log_x / BUDGET_WIDTH) * BUDGET_WIDTH
    return Surface(
        log_inputs=log_x,
        mu=mu,
        space=space,
        centre=centre,
        position=position,
        axis=axis,
        shift=shift,
        unit=unit,
    )


def _fall(y: Array, direction: Direction, space: str, shift: float, unit: float) -> Array:
    """What is fitted: it falls as the inputs grow, and is near 0 (log) or of range 1 (linear)."""
    sign = -1.0 if direction == "increasing" else 1.0
    return sign * np.log(y) - shift if space == "log" else sign * y / unit


def _read_inputs(
    inputs: pd.DataFrame | ArrayLike, columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Array]:
    """Names and positive values (k, n) of the inputs; by name where they have names."""
    if isinstance(inputs, pd.DataFrame):
        names = tuple(str(name) for name in inputs.columns)
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise FitError(f"the inputs lack the column {missing[0]!r}: they have {list(names)}")
        named = dict(zip(names, (inputs[name] for name in inputs.columns), strict=True))
        names = columns or names
        values = [column(name, named[name]) for name in names]
    else:
        table = np.asarray(inputs)
        if table.ndim != 2 or (columns is not None and table.shape[1] != len(columns)):
            wanted = "rows of inputs" if columns is None else f"the columns {list(columns)}"
            raise FitError(f"inputs have shape {table.shape}: give {wanted}")
        names = columns or tuple(f"x{i + 1}" for i in range(table.shape[1]))
        values = [column(name, v) for name, v in zip(names, table.T, strict=True)]
    for name, v in zip(names, values, strict=True):
        if (v <= 0).any():
            i = int(np.argmax(v <= 0))
            raise FitError(f"{name}[{i}] = {v[i]!r}: a law in logs needs positive inputs")
    if not values:
        raise FitError("there is no input")
    return names, np.array(values)
