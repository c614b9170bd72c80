"""`fit_surface`: one quantity against several inputs, and its forecast beyond the data.

`fit_parametric` does not go through this fit: it knows the cost of a run, repeated data and the
frontier, and refits thousands of replicates from the optimum of the whole. Laws, seeds and solver
are the same.
"""

from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.columns import standard_errors
from scaling_analysis.estimators.extrapolation import check_form, origin_doubt
from scaling_analysis.estimators.noise import least_variance, precision_weights, run_noise
from scaling_analysis.estimators.series import Direction
from scaling_analysis.estimators.surface_fit import Array, SurfaceFit
from scaling_analysis.estimators.surface_forms import (
    CURVATURE_PENALTY,
    NAMES,
    average_forms,
    fit_form,
    law_of,
    least_rows,
)
from scaling_analysis.estimators.surface_rows import Surface, read_surface
from scaling_analysis.uncertainty.rolling_origin import replay, roll_origins

MAX_ORIGINS = 8


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
    check_form(form, NAMES)
    surface = read_surface(inputs, y, direction, run)
    if y_se is not None:
        surface = _weigh(surface, standard_errors(y_se, len(surface.y)))
    return _fit_average(surface) if form == "auto" else _fit_named(surface, form)


def _weigh(surface: Surface, y_se: Array) -> Surface:
    """The rows weighted by their standard errors and what scatters about a plane beyond them."""
    se = y_se / (surface.y if surface.space == "log" else surface.unit)
    plane = fit_form("log_linear", surface, surface.weights[None])
    fitted = law_of("log_linear", surface.log_inputs, surface).evaluate(plane)[0]
    noise = max(least_variance(surface.mu, surface.space), float(np.var(fitted - surface.mu)))
    return replace(surface, weights=precision_weights(se, noise))


def _fit_average(surface: Surface) -> SurfaceFit:
    weights, size = surface.weights, len(surface.inputs)
    forms = average_forms(surface)
    origins = roll_origins(surface.position, 2, MAX_ORIGINS, min_rows=size + 3)
    rows_known = origins.weights * weights
    thetas = [
        fit_form(name, surface, rows_known, curvature_penalty=CURVATURE_PENALTY) for name in forms
    ]
    forecasts = [
        law_of(name, surface.log_inputs, surface).evaluate(theta)[0]
        for name, theta in zip(forms, thetas, strict=True)
    ]
    rows = origins.train.sum(axis=1)[:, None]
    past = replay(
        np.stack(forecasts, axis=1),
        surface.mu,
        surface.position,
        origins,
        usable=rows >= np.array([least_rows(name, size) for name in forms]),
        row_weights=weights,
    )
    return SurfaceFit(
        form="auto",
        surface=surface,
        forms=forms,
        form_weights=past.weights[-1],
        thetas=tuple(theta[-1] for theta in thetas),
        covariance=None,
        noise=_noise(surface, surface.mu - past.average[-1], 1 + 2 * size),
        origins=past.effective,
        growth=past.growth,
        inflation=1.0,
        sound=np.array(True),
        status=FitStatus.DOUBTFUL if past.effective < 1 else FitStatus.OK,
        messages=(*_messages(surface), *origin_doubt(past, f"{len(surface.y)} rows")),
    )


def _fit_named(surface: Surface, form: str) -> SurfaceFit:
    weights, rows = surface.weights, len(surface.y)
    size = least_rows(form, len(surface.inputs)) - 2
    if rows <= size:
        raise FitError(
            f"form={form!r} has {size} parameters for {rows} rows: give more rows or a simpler "
            "form, or form='auto'"
        )
    if form == "kaplan" and (len(surface.inputs) != 2 or surface.space == "linear"):
        raise FitError("form='kaplan' is a law of two inputs, N and D, and of positive y")
    origins = roll_origins(surface.position, 2, MAX_ORIGINS, min_rows=size + 2)
    thetas = fit_form(form, surface, origins.weights * weights)
    law = law_of(form, surface.log_inputs, surface)
    forecasts = law.evaluate(thetas)[0]
    if not np.isfinite(forecasts[-1]).all():
        raise FitError(f"form={form!r} finds no surface through these rows: use form='auto'")
    noise = _noise(surface, surface.mu - forecasts[-1], size)
    slope = law.jacobian(thetas)
    information = np.einsum("rn,rni,rnj->rij", origins.weights * weights, slope, slope)
    # With its knee far inside the noise, Huber's loss is close to least absolute deviations: pi/2
    # times the variance of least squares for normal noise. The linear forms are least squares.
    loss = 1.0 if form in ("product", "log_linear", "log_quadratic") else np.pi / 2
    covariances = loss * noise * np.linalg.pinv(information, rcond=1e-13, hermitian=True)
    past = replay(forecasts[:, None], surface.mu, surface.position, origins, row_weights=weights)
    promised = np.einsum("rni,rij,rnj->rn", slope, covariances, slope)[:-1] + noise
    return SurfaceFit(
        form=form,
        surface=surface,
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
        messages=tuple(_messages(surface)),
    )


def _noise(surface: Surface, residuals: Array, free: int) -> float:
    """Variance of mu of a new observation, of a new run where runs are known."""
    spare = max(len(residuals) - free, 1)
    noise = float(surface.weights @ residuals**2) / spare
    noise = max(noise, least_variance(surface.mu, surface.space))
    return noise if surface.run is None else max(noise, run_noise(residuals, surface.run))


def _messages(surface: Surface) -> list[str]:
    idle = [name for name in surface.columns if name not in surface.inputs]
    out = [f"{name} never varies and takes no part" for name in idle]
    if np.ptp(surface.y) == 0:
        out.append("y is constant: nothing is known of how it changes")
    return out
