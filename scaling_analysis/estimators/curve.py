"""`fit_curve`: one quantity against one, y(x), and its forecast beyond the data.

docs/methods-extrapolation.md derives the average and its interval and says where their few
constants come from.

`fit_parametric` and the frontier's power laws do not go through these fits. They share the laws and
the solver, but weigh rows, draw replicates and put intervals together in their own way: thousands
of replicates of a power law are one weighted least-squares solve there (`laws.power.fit_power`),
and 4,000 of a surface take a third of a second.
"""

import numpy as np
from numpy.typing import ArrayLike

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.curve_fit import Array, CurveFit
from scaling_analysis.estimators.curve_forms import (
    NAMED,
    auto_forms,
    covariances,
    evaluate,
    fit_named,
    forecast_forms,
)
from scaling_analysis.estimators.extrapolation import check_form, origin_doubt
from scaling_analysis.estimators.noise import least_variance, run_noise
from scaling_analysis.estimators.series import Bounds, Direction, Series, read_series
from scaling_analysis.uncertainty.rolling_origin import replay, roll_origins


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
        Positive: compute, samples, parameters, ... More than 200 points are fitted as means of
        neighbours, of one run where runs are known; the noise is that of the points.
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
    check_form(form, NAMED)
    series = read_series(x, y, direction, y_se, run, bounds)
    return _fit_average(series) if form == "auto" else _fit_form(series, form)


def _fit_average(series: Series) -> CurveFit:
    forms = auto_forms(series)
    origins = roll_origins(np.log(series.x))
    forecasts = forecast_forms(forms, series.points(origins.weights * series.weights), series.t)
    seen = np.array([len(np.unique(series.x[row])) for row in origins.train])[:, None]
    past = replay(
        forecasts,
        series.z,
        np.log(series.x),
        origins,
        usable=seen >= np.array([NAMED[name].least_origin for name in forms]),
        row_weights=series.weights,
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
        messages=(*_messages(series), *origin_doubt(past, f"{series.distinct} distinct x")),
    )


def _fit_form(series: Series, form: str) -> CurveFit:
    _check_form(series, form)
    law = NAMED[form].form
    size = len(law.curve.parameters)
    origins = roll_origins(np.log(series.x), min_points=max(size, 3))
    points = series.points(origins.weights * series.weights)
    thetas, at_bound, converged = fit_named(form, points)
    theta = thetas[-1]
    if not (converged[-1] and np.isfinite(theta).all()):
        raise FitError(f"form={form!r} finds no curve through these points: use form='auto'")
    fitted = evaluate(form, thetas, series.t, series)
    residuals = series.z - fitted[-1]
    spare = len(series.x) - int((~at_bound[-1]).sum())
    misfit = float(series.weights @ residuals**2 / spare) if spare > 0 else series.noise
    misfit = max(misfit, least_variance(series.z, series.space))
    noise = _total_noise(series, misfit, residuals)
    of_theta, of_z = covariances(form, thetas, at_bound, points, series)
    past = replay(fitted[:, None], series.z, np.log(series.x), origins, row_weights=series.weights)
    messages = _messages(series)
    lower, upper = law.bounds(points)
    bound = [
        name
        for name, there, known in zip(
            law.curve.parameters, at_bound[-1], lower == upper, strict=True
        )
        if there and not known
    ]
    if bound:
        messages.append(f"at its bound: {', '.join(bound)}; the interval takes it as known")
    return CurveFit(
        form=form,
        series=series,
        forms=(form,),
        form_weights=np.ones(1),
        theta=theta,
        covariance=misfit * of_theta[-1],
        noise=noise,
        origins=past.effective,
        growth=past.growth,
        inflation=past.inflation(misfit * of_z[:-1] + noise),
        sound=np.array(True),
        status=FitStatus.DOUBTFUL if bound or spare < 2 else FitStatus.OK,
        messages=tuple(messages),
    )


def _check_form(series: Series, form: str) -> None:
    """Refuse what a named form cannot be."""
    size = len(NAMED[form].form.curve.parameters)
    if series.distinct < size:
        raise FitError(
            f"form={form!r} has {size} parameters and x takes {series.distinct} distinct values: "
            "give more points or a simpler form, or form='auto'"
        )
    if form in ("power", "inverse") and series.space == "linear":
        i = int(np.argmin(series.y))
        raise FitError(
            f"form={form!r} needs positive y, and y is {series.y[i]:g} at x = {series.x[i]:g}: "
            "use form='log_line' or 'sigmoid'"
        )
    if form == "inverse" and series.direction == "decreasing":
        raise FitError(
            "form='inverse' rises to its limit: direction='increasing', or 'power_floor'"
        )


def _total_noise(series: Series, noise: float, residuals: Array) -> float:
    """Variance of a new observation, of a new run where runs are known."""
    if series.read:  # residuals of means are less than those of points
        noise = max(noise, series.noise)
    return noise if series.run is None else max(noise, run_noise(residuals, series.run))


def _messages(series: Series) -> list[str]:
    out = []
    if series.read:
        out.append(f"{series.read:,} points are fitted as {len(series.x)} means of neighbours")
    if series.outliers:
        one = series.outliers == 1
        out.append(
            "1 outlier counts less: its neighbours disown it"
            if one
            else f"{series.outliers} outliers count less: their neighbours disown them"
        )
    if np.ptp(series.y) == 0:
        out.append("y is constant: nothing is known of how it changes")
    floor, ceiling = series.bounds
    low, high = -np.inf if floor is None else floor, np.inf if ceiling is None else ceiling
    outside = int(((series.y < low) | (series.y > high)).sum())
    if outside:
        out.append(f"{outside} points lie beyond the bounds, which the curve keeps within")
    return out
