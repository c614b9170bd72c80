"""The methods that a forecast is made of: their names, their fits and their spreads."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from inspect import signature
from textwrap import shorten
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import BootstrapError, FitError, ForecastError
from scaling_analysis.estimators.baselines import fit_log_line, fit_persistence
from scaling_analysis.estimators.bootstrapping import Bootstrap, bootstrap
from scaling_analysis.estimators.protocol import FrontierFit
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.combination import robust_sd
from scaling_analysis.processes import Jobs
from scaling_analysis.uncertainty.intervals import check_failures

Array = NDArray[np.float64]
Estimator = Callable[[pd.DataFrame], FrontierFit]
FitQuantity = Literal["params_opt", "value_opt", "value"]
"""Methods of a `FrontierFit` that are forecast."""
Methods = Iterable[str] | Mapping[str, Estimator]

BASELINES = ("persistence", "log-line")
"""Forecast and scored beside the methods, never averaged with them."""


def known_methods(target: Target) -> dict[str, Estimator]:
    """Every method by its name, baselines last."""
    from scaling_analysis.estimators.envelope import fit_envelope
    from scaling_analysis.estimators.intrinsic import fit_intrinsic
    from scaling_analysis.estimators.isoflop import fit_isoflop
    from scaling_analysis.estimators.parametric import fit_parametric

    isoflop = partial(fit_isoflop, target=target, space="log")
    methods: dict[str, Estimator] = {
        "isoflop-vertex": isoflop,
        "isoflop-cubic": partial(isoflop, optimum="cubic", window=_CUBIC_WINDOW),
        "isoflop-grid": partial(isoflop, optimum="grid"),
        "envelope": partial(fit_envelope, target=target),
    }
    if target == "loss":
        methods["parametric-additive"] = partial(fit_parametric, form="additive")
        methods["parametric-tied"] = partial(fit_parametric, form="tied")
    else:
        # Beyond the highest observed return it forecasts sizes only.
        methods["intrinsic"] = partial(fit_intrinsic, beyond="nan")
    methods["persistence"] = partial(fit_persistence, target=target)
    methods["log-line"] = partial(fit_log_line, target=target)
    return methods


_CUBIC_WINDOW = 7
"""Sizes around the best one that a cubic goes through: three more than it has coefficients."""

DEFAULT_METHODS: dict[str, tuple[str, ...]] = {
    "loss": ("isoflop-vertex", "parametric-additive", "parametric-tied"),
    "mean_return": ("isoflop-vertex",),
}
"""Averaged unless others are asked for. The raw grid optimum and the envelope read N_opt off the
best single runs: quantised and, for returns, a winner's curse. A cubic instead of the parabola made
the average neither better nor worse on public sweeps."""


def resolve_methods(methods: Methods | None, target: Target) -> dict[str, Estimator]:
    """Names or callables to callables, with the baselines added at the end."""
    known = known_methods(target)
    if methods is None:
        methods = DEFAULT_METHODS[target]
    if isinstance(methods, Mapping):
        chosen = dict(methods)
    else:
        methods = [methods] if isinstance(methods, str) else list(methods)
        unknown = [name for name in methods if name not in known]
        if unknown:
            raise ForecastError(
                f"method {unknown[0]!r} is not known for {target}: choose among "
                f"{', '.join(known)}, or give a mapping from a name to an estimator"
            )
        chosen = {name: known[name] for name in methods}
    if not set(chosen) - set(BASELINES):
        raise ForecastError("give at least one method beside the baselines")
    return chosen | {name: known[name] for name in BASELINES}


def without_findings(estimator: Estimator) -> Estimator:
    """The method, told to fit and to look for nothing else where it takes that."""
    if isinstance(estimator, partial) and "findings" in signature(estimator.func).parameters:
        return partial(estimator.func, *estimator.args, **estimator.keywords | {"findings": False})
    return estimator


class Members:
    """Fits and bootstraps of several methods, begun, all on the same draws."""

    def __init__(
        self,
        runs: pd.DataFrame,
        methods: Mapping[str, Callable[[pd.DataFrame], Any]],
        n_resamples: int,
        seed: int,
    ) -> None:
        self._names = tuple(methods)
        self._jobs = Jobs(
            resampled_or_why,
            [(runs, estimator, n_resamples, seed) for estimator in methods.values()],
        )

    def results(self, label: str = "fits") -> tuple[dict[str, Bootstrap], dict[str, str]]:
        """The bootstraps by name, and for each method that could not be fitted or resampled why.

        Only refusals of a fit are caught: a mistake in the log or in a method's code is raised.
        """
        members, failures = {}, {}
        for name, made in zip(self._names, self._jobs.results(label), strict=True):
            if isinstance(made, str):
                failures[name] = made
            else:
                members[name] = made
        return members, failures

    def cancel(self) -> None:
        """Leave out the fits that are not begun yet."""
        self._jobs.cancel()


def resampled_or_why(
    runs: pd.DataFrame, estimator: Callable[[pd.DataFrame], Any], n_resamples: int, seed: int
) -> Bootstrap | str:
    """`resampled`, or the reason of its refusal."""
    try:
        return resampled(runs, estimator, n_resamples, seed)
    except (FitError, BootstrapError) as error:
        return str(error)


def refusals(failures: Mapping[str, str]) -> str:
    """Why no method could be fitted: a short reason a method, methods that share one together."""
    methods: dict[str, list[str]] = {}
    for name, why in failures.items():
        methods.setdefault(shorten(why, _REASON_WIDTH, placeholder=" ..."), []).append(name)
    return "".join(f"\n  {', '.join(names)}: {why}" for why, names in methods.items())


_REASON_WIDTH = 160


def resampled(
    runs: pd.DataFrame, estimator: Callable[[pd.DataFrame], Any], n_resamples: int, seed: int
) -> Bootstrap:
    """Bootstrap of a method, refused where more than a tenth of its replicates is no fit."""
    try:
        made = bootstrap(runs, estimator, n_resamples=n_resamples, rng=seed)
    except BootstrapError:  # residuals without noise have no components
        made = bootstrap(runs, estimator, scheme="jackknife", rng=seed)
    check_failures(made.valid)
    return made


def log_forecast(
    member: Bootstrap, quantity: FitQuantity, flops: ArrayLike, params: ArrayLike | None = None
) -> tuple[Array, Array]:
    """Log of a member's forecast and its bootstrap standard deviation, the shape of `flops`."""
    replicates = log_value(member.replicates, quantity, flops, params)[member.valid]
    if member.scheme == "jackknife":
        spread = np.std(replicates, axis=0) * np.sqrt(len(replicates) - 1)
    else:
        spread = robust_sd(replicates)
    return log_value(member.fit, quantity, flops, params), spread


def log_value(
    fit: FrontierFit, quantity: FitQuantity, flops: ArrayLike, params: ArrayLike | None = None
) -> Array:
    """Log of what a fit or its replicates expect; not finite where that is not positive."""
    c = np.asarray(flops, dtype=np.float64)
    n = None if params is None else np.asarray(params, dtype=np.float64)
    # Far off the optimum a parabola in log N overflows; that is no forecast, and no error either.
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        if quantity != "value":
            return np.log(getattr(fit, quantity)(c))
        if n is None:
            raise ValueError("the value of a run needs its params")
        return np.log(fit.value(n, c))
