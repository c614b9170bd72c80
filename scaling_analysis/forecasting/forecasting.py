"""A forecast of N_opt, D_opt, loss and return at larger budgets, written before they are run."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from platform import python_version
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitStatus, ForecastError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.estimators.return_link import fit_return_link
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.allocation import near_optimal
from scaling_analysis.forecasting.bounds import bounded_trend
from scaling_analysis.forecasting.condensing import condense
from scaling_analysis.forecasting.doubts import (
    beaten,
    fit_doubts,
    noise_of_run,
    unjudged,
    warnings,
)
from scaling_analysis.forecasting.ensemble import Ensemble, value_columns
from scaling_analysis.forecasting.hindcasting import Hindcasting, available_targets
from scaling_analysis.forecasting.members import (
    BASELINES,
    Members,
    Methods,
    refusals,
    resolve_methods,
)
from scaling_analysis.forecasting.observation import (
    WITHIN,
    has_budgets,
    observe,
)
from scaling_analysis.forecasting.questions import check_level, check_replicates
from scaling_analysis.forecasting.result import Forecast, fingerprints, now_utc
from scaling_analysis.forecasting.scores import COMBINED, Hindcast
from scaling_analysis.forecasting.through_link import LINK, LinkEstimator, find_bounds
from scaling_analysis.laws.cost import fit_cost
from scaling_analysis.runlog import content_hash, select

Array = NDArray[np.float64]

TABLE_COLUMNS = (
    "flops",
    "extrapolation",
    "method",
    *(f"params_{end}" for end in ("opt", "opt_lo", "opt_hi", "near_lo", "near_hi")),
    *(f"samples_{end}" for end in ("opt", "opt_lo", "opt_hi")),
    *(
        f"{value}{end}"
        for value in ("loss", "mean_return")
        for end in ("", "_lo", "_hi", "_run_lo", "_run_hi")
    ),
)
_PACKAGES = ("scaling-analysis", "numpy", "scipy", "pandas")
"""Beyond the farthest hindcast by this factor, a forecast is said to be unsupported by it."""


def forecast(
    runs: pd.DataFrame,
    flops: ArrayLike,
    methods: Methods | None = None,
    *,
    return_methods: Methods | None = None,
    link: LinkEstimator | None = None,
    level: float = 0.9,
    n_resamples: int = 1000,
    tolerance: float = 0.01,
    hindcast_resamples: int = 200,
    agent: str | None = None,
    task: str | None = None,
    rng: int | np.random.Generator | None = 0,
    time_utc: str | None = None,
) -> Forecast:
    """Forecast the compute-optimal run at larger budgets, with honest intervals.

    Every method is fitted and bootstrapped, scored by a hindcast on the log itself, and averaged by
    that score. An interval holds the sampling error (bootstrap), the disagreement of the methods,
    and the law error that the hindcast showed, which grows with log(C / C_max); its quantiles are
    those of a t distribution with as many degrees of freedom as there were origins.

    Parameters
    ----------
    runs : DataFrame
        A run log.
    flops : array_like
        Budgets to forecast [FLOP].
    methods, return_methods : iterable of names or mapping from names to estimators, optional
        Methods for the loss and for the mean return as functions of compute; see
        `members.known_methods`. An estimator takes runs and returns a `FrontierFit`.
    link : callable, optional
        Estimator of the link from loss to return; `fit_return_link` by default.
    level : float
        Level of the intervals in the table.
    n_resamples, hindcast_resamples : int
        Bootstrap replicates of each method, on the whole log and at each hindcast origin.
    tolerance : float
        Near-optimal sizes are those whose expected loss is within this share of the best.
    agent, task : str, optional
        Choose one where the log holds several.
    rng : int, Generator or None
        With an int the forecast is the same, byte for byte, for the same runs and time.
    time_utc : str, optional
        ISO 8601 time that the forecast is dated with; now by default.

    Returns
    -------
    Forecast

    Raises
    ------
    ForecastError
        A budget is not positive, the log has nothing to forecast, or no method could be fitted.

    Examples
    --------
    >>> made = forecast(runs, [1e13], ["isoflop-vertex"], n_resamples=20, hindcast_resamples=20)
    >>> best = made.table[made.table["method"] == "combined"].iloc[0]
    >>> bool(best["loss_lo"] < best["loss"] < best["loss_hi"])
    True
    >>> made.flops_for(loss=1.0).columns[:4].tolist()
    ['loss', 'flops', 'flops_lo', 'flops_hi']
    """
    budgets = _checked_budgets(flops)
    check_level(level)
    check_replicates(n_resamples=n_resamples, hindcast_resamples=hindcast_resamples)
    if not tolerance > 0:
        raise ForecastError(f"tolerance={tolerance!r} must be a positive share, such as 0.01")
    runs = _in_order(select(runs, agent, task))
    draws = np.random.default_rng(rng)
    targets = available_targets(runs)
    short, condensed = condense(runs)
    begun, messages = _begin_hindcast(
        short, methods, return_methods, link, hindcast_resamples, draws
    )
    seed = int(draws.integers(2**31))
    fits: dict[Target, Members] = {
        target: Members(
            short,
            _estimators(target, methods if target == "loss" else return_methods, link, targets),
            n_resamples,
            seed,
        )
        for target in targets
    }
    try:
        past = None if begun is None else _scored(begun, messages)
        if condensed:
            messages.insert(0, condensed)
        fitted, refused, linked = _fitted(fits, messages)
    except BaseException:
        for each in (*fits.values(), *([begun] if begun else [])):
            each.cancel()
        raise
    targets = _forecastable(targets, fitted, refused, linked, runs, messages)
    rows = runs[_is_fitted(runs, targets)]
    compute = rows["budget"].fillna(rows["flops"]) if has_budgets(rows) else rows["flops"]
    bounds = past.bounds if past else find_bounds(link, short) if linked else None
    ensemble = Ensemble(
        losses=fitted["loss"],
        returns=fitted["mean_return"] if "mean_return" in targets else {},
        link=linked,
        hindcast=past,
        noise={t: noise_of_run(runs, t, _seen(t, fitted, linked), messages) for t in targets},
        trends={t: bounded_trend(observe(runs, t, WITHIN), t, bounds) for t in targets},
        flops_max=float(compute.max()),
        cost=fit_cost(rows["params"], rows["samples"], rows["flops"]),
        bounds=bounds,
    )
    messages += warnings(ensemble, budgets)
    messages += beaten(past, targets, level, budgets[-1] / ensemble.flops_max)
    doubtful = past is None or past.status != "ok" or bool(unjudged(ensemble))
    return Forecast.dated(
        table=_table(ensemble, budgets, level, tolerance),
        level=level,
        tolerance=tolerance,
        ensemble=ensemble,
        rows=fingerprints(rows),
        content_hash=content_hash(rows),
        agent=_only(rows, "agent"),
        task=_only(rows, "task"),
        protocol=_only(rows, "protocol"),
        seed=rng if isinstance(rng, int) else None,
        versions={"python": python_version()} | {name: version(name) for name in _PACKAGES},
        time_utc=now_utc() if time_utc is None else time_utc,
        status=FitStatus.DOUBTFUL if doubtful else FitStatus.OK,
        messages=tuple(dict.fromkeys(messages)),
    )


def _checked_budgets(flops: ArrayLike) -> Array:
    try:
        budgets = np.unique(np.atleast_1d(np.asarray(flops, dtype=np.float64)))
    except (TypeError, ValueError) as error:
        raise ForecastError(f"flops={flops!r} are not budgets: give numbers, 1e19 or so") from error
    if budgets.size == 0 or not np.all(np.isfinite(budgets) & (budgets > 0)):
        raise ForecastError(f"flops={budgets.tolist()}: every budget must be positive and finite")
    return budgets


def _in_order(runs: pd.DataFrame) -> pd.DataFrame:
    """Rows in the order of their keys: a shuffled log gives the same draws, and the same bytes."""
    key = [name for name in ("run_id", "samples", "budget") if name in runs]
    return runs.sort_values(key, kind="stable", ignore_index=True)


def _begin_hindcast(
    runs: pd.DataFrame,
    methods: Methods | None,
    return_methods: Methods | None,
    link: LinkEstimator | None,
    n_resamples: int,
    rng: np.random.Generator,
) -> tuple[Hindcasting | None, list[str]]:
    """The hindcast, or None and why there is none; a mistake in what was asked for is raised."""
    resolve_methods(methods, "loss")
    resolve_methods(return_methods, "mean_return")
    try:
        begun = Hindcasting(
            runs,
            methods,
            return_methods=return_methods,
            link=link,
            n_resamples=n_resamples,
            rng=rng,
        )
    except ForecastError as error:
        return None, [_NO_HINDCAST.format(error)]
    return begun, []


def _scored(begun: Hindcasting, messages: list[str]) -> Hindcast | None:
    """The hindcast, what it says added to the messages; None where no method could be fitted."""
    try:
        past = begun.finish()
    except ForecastError as error:
        messages.append(_NO_HINDCAST.format(error))
        return None
    messages += [f"hindcast: {message}" for message in past.messages]
    return past


_NO_HINDCAST = "no hindcast, so methods weigh the same and intervals rest on a prior: {}"


def _estimators(
    target: Target, methods: Methods | None, link: LinkEstimator | None, targets: Sequence[Target]
) -> dict[str, Any]:
    """The methods of a target by name, the link among those of the return."""
    chosen = resolve_methods(methods, target)
    if target == "loss" or "loss" not in targets:
        return dict(chosen)
    return {LINK: fit_return_link if link is None else link, **chosen}  # the longest first


def _fitted(
    fits: Mapping[Target, Members], messages: list[str]
) -> tuple[dict[Target, dict[str, Bootstrap]], dict[Target, dict[str, str]], Bootstrap | None]:
    """By target what could be fitted, and why others could not; and the link."""
    fitted: dict[Target, dict[str, Bootstrap]] = {"loss": {}, "mean_return": {}}
    refused: dict[Target, dict[str, str]] = {}
    linked: Bootstrap | None = None
    for target, begun in fits.items():
        label = f"fits of the {target.removeprefix('mean_')}"
        fitted[target], refused[target] = begun.results(label)
        linked = fitted[target].pop(LINK, None)
        if LINK in refused[target]:
            messages.append(f"no link from loss to return: {refused[target].pop(LINK)}")
        messages += [f"{name} ({target}) left out: {why}" for name, why in refused[target].items()]
        messages += fit_doubts(target, fitted[target])
        messages += fit_doubts(target, {} if linked is None else {LINK: linked})
    return fitted, refused, linked


def _forecastable(
    targets: list[Target],
    fitted: Mapping[Target, dict[str, Bootstrap]],
    refused: Mapping[Target, dict[str, str]],
    linked: Bootstrap | None,
    runs: pd.DataFrame,
    messages: list[str],
) -> list[Target]:
    """The targets that a method was fitted to; a log with a loss does without its returns."""
    kept: list[Target] = []
    for target in targets:
        if set(fitted[target]) - set(BASELINES) or (target != "loss" and linked is not None):
            kept.append(target)
            continue
        failed = {name: why for name, why in refused[target].items() if name not in BASELINES}
        why, remedy = refusals(failed), ""
        if target == "mean_return" and (runs[target] <= 0).any():
            remedy = (
                ". Forecasts are made of logs: measure returns from that of random play, "
                "runs.assign(mean_return=runs.mean_return - floor)"
            )
        if "loss" not in kept:
            raise ForecastError(f"no method could be fitted to {target}:{why}{remedy}")
        why = "; ".join(line.strip() for line in why.splitlines() if line.strip())
        messages.insert(0, f"mean_return is not forecast, no method could be fitted: {why}{remedy}")
    return kept


def _is_fitted(runs: pd.DataFrame, targets: list[Target]) -> Array:
    """Rows that any method may have used."""
    finite = np.zeros(len(runs), dtype=bool)
    for target in targets:
        finite |= np.isfinite(runs[target].to_numpy(np.float64))
    if "status" in runs:
        finite &= (runs["status"] == "ok").to_numpy()
    return finite


def _seen(
    target: Target, fitted: Mapping[Target, dict[str, Bootstrap]], linked: Bootstrap | None
) -> dict[str, Bootstrap]:
    """The methods that leave residuals of a target, the link among those of the return."""
    through = {LINK: linked} if linked is not None and target == "mean_return" else {}
    return fitted[target] | through


def _only(rows: pd.DataFrame, name: str) -> str:
    """The one value of a text column, or ""; rows that state none do not count: a checkpoint
    without a return has no protocol."""
    if name not in rows:
        return ""
    values = rows[name].dropna().unique()
    stated = values[values != ""]
    return str(stated[0]) if len(stated) == 1 else ""


def _table(ensemble: Ensemble, budgets: Array, level: float, tolerance: float) -> pd.DataFrame:
    methods = [COMBINED, *ensemble.methods("params_opt"), *BASELINES]
    parts = [
        _method_table(ensemble, budgets, method, level, tolerance)
        for method in methods
        if ensemble.forecasts("params_opt", method)
    ]
    table = pd.concat(parts, ignore_index=True).reindex(columns=list(TABLE_COLUMNS))
    return table.sort_values("flops", kind="stable", ignore_index=True)


def _method_table(
    ensemble: Ensemble, budgets: Array, method: str, level: float, tolerance: float
) -> pd.DataFrame:
    size = ensemble.predict("params_opt", budgets, method=method)
    lo, hi = size.interval(level)
    near = [near_optimal(ensemble, budget, tolerance, method) for budget in budgets]
    samples = ensemble.cost.samples
    columns = {
        "flops": budgets,
        "extrapolation": budgets / ensemble.flops_max,
        "method": method,
        "params_opt": np.exp(size.log),
        "params_opt_lo": lo,
        "params_opt_hi": hi,
        "params_near_lo": [ends[0] for ends in near],
        "params_near_hi": [ends[1] for ends in near],
        "samples_opt": samples(np.exp(size.log), budgets),
        # A larger model sees fewer samples: the ends swap.
        "samples_opt_lo": samples(hi, budgets),
        "samples_opt_hi": samples(lo, budgets),
    }
    for target in ("loss", "mean_return"):
        if target in ensemble.noise and ensemble.forecasts(target, method):
            law = ensemble.predict(f"{target}_opt", budgets, method=method)
            columns |= value_columns(target, law, ensemble, level)
    return pd.DataFrame(columns)
