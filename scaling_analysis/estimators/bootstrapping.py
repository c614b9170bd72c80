"""Intervals for any fit of a run log, by resampling its runs.

Rows of a run are dependent, and a ladder has few runs: what is resampled decides whether an
interval holds. `benchmarks/results/coverage.md` has the evidence for the default.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import BootstrapError, FitError
from scaling_analysis.estimators.protocol import FrontierFit
from scaling_analysis.estimators.schemes import MIN_IN_STRATUM, Draws
from scaling_analysis.results import Result
from scaling_analysis.uncertainty.intervals import (
    Interval,
    basic_interval,
    check_failures,
    jackknife_interval,
    percentile_interval,
)

Array = NDArray[np.float64]
Scheme = Literal[
    "auto", "components", "jackknife", "pairs", "rows", "dirichlet", "wild", "parametric"
]
Kind = Literal["auto", "percentile", "basic", "t"]
Quantity = str | Callable[[Any], ArrayLike]

_DESCRIPTION = {
    "components": "noise with a {unit} and a row component, corrected for what the fit absorbs",
    "jackknife": "leaving out one {unit} at a time",
    "pairs": "drawing by {unit}",
    "rows": "drawing rows within their budget",
    "dirichlet": "Dirichlet weights by {unit}",
    "wild": "random signs of the residuals by {unit}",
    "parametric": "noise of the size of the evaluation's standard errors",
}
_MODULE_OF_KIND = {
    "IsoflopFit": "isoflop",
    "EnvelopeFit": "envelope",
    "ParametricFit": "parametric",
    "ReturnLink": "link",
    "ReturnLaw": "return_law_fit",
    "PooledFit": "pooled",
    "ScoreAggregate": "score_aggregate",
    "AggregateLaw": "aggregate_law",
    "BaselineFit": "baselines",
    "IntrinsicFit": "intrinsic_fit",
    "SaturatingFit": "saturating",
    "HorizonFit": "horizon",
    "DataSurface": "data_surface",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Bootstrap(Result):
    """A fit with its replicates: ask it for any quantity at any level, without refitting."""

    _error = BootstrapError
    _written_by = "`scaling fit -o`"

    fit: Any
    """The fit to the runs as they are, a `FrontierFit`."""
    replicates: Any
    """The same fit to resampled runs, parameters with a leading axis R."""
    valid: NDArray[np.bool_]
    """(R,) which replicates are a valid fit; the others enter no interval, and are counted."""
    scheme: str
    """What was resampled: "components", "jackknife", "pairs", ..."""
    unit: str
    """The column whose values were resampled as wholes."""
    units: int
    """Number of units."""
    messages: tuple[str, ...] = ()
    """What a reader has to know about the scheme."""

    def interval(
        self,
        quantity: Quantity,
        flops: ArrayLike | None = None,
        level: float = 0.9,
        kind: Kind = "auto",
    ) -> Interval:
        """Interval of a quantity.

        Parameters
        ----------
        quantity : str or callable
            A method of the fit that takes flops ("params_opt", "samples_opt", "value_opt"), or a
            function of the fit that returns an array, and for replicates one with a leading R.
        flops : array_like, optional
            C [FLOP], for a method.
        level : float
            Nominal coverage.
        kind : "auto", "percentile", "basic" or "t"
            "t" belongs to the jackknife and is its default, "percentile" that of all others.
            "basic" and "t" work on logs where a quantity is positive.

        Returns
        -------
        Interval
            lo, hi: the shape of the quantity.

        Raises
        ------
        BootstrapError
            More than 10 % of the replicates failed, or all give the same.
        """
        if kind == "auto":
            kind = "t" if self.scheme == "jackknife" else "percentile"
        if (kind == "t") != (self.scheme == "jackknife"):
            raise BootstrapError(
                f"kind={kind!r} does not go with scheme={self.scheme!r}: the jackknife gives 't', "
                "the others 'percentile' or 'basic'"
            )
        draws = self._evaluate(self.replicates, quantity, flops)
        draws = np.where(self.valid.reshape(-1, *[1] * (draws.ndim - 1)), draws, np.nan)
        if kind == "percentile":
            return percentile_interval(draws, level)
        estimate = self._evaluate(self.fit, quantity, flops)
        positive = bool((estimate > 0).all() and (draws[np.isfinite(draws)] > 0).all())
        if positive:
            estimate, draws = np.log(estimate), np.log(draws)
        make = jackknife_interval if kind == "t" else basic_interval
        found = make(estimate, draws, level)
        return Interval(np.exp(found.lo), np.exp(found.hi)) if positive else found

    def to_frame(self, level: float = 0.9) -> pd.DataFrame:
        """quantity, flops, value, lo, hi at C_max and at ten times it.

        Quantities are N_opt, D_opt and the value at the optimum, or the value alone of a curve over
        compute. Of the link: loss, value, lo, hi at the least, middle and largest loss fitted.
        """
        if not (hasattr(self.fit, "params_opt") or hasattr(self.fit, "value")):
            rows = self.fit.rows["loss"].to_numpy(float)
            at = np.array([rows.min(), np.median(rows), rows.max()])
            lo, hi = self.interval(lambda fit: fit.predict(at), level=level)
            value = np.asarray(self.fit.predict(at))
            return pd.DataFrame({"loss": at, "value": value, "lo": lo, "hi": hi})
        largest = float(self.fit.rows["flops"].max())
        flops = np.array([largest, 10 * largest])
        parts = []
        frontier = ("params_opt", "samples_opt", "value_opt")
        for name in frontier if hasattr(self.fit, "params_opt") else ("value",):
            try:
                value = np.asarray(getattr(self.fit, name)(flops))
            except FitError:  # beyond the reach of a fit that does not extrapolate
                continue
            lo, hi = np.full(flops.shape, np.nan), np.full(flops.shape, np.nan)
            known = np.isfinite(value)
            if known.any():
                lo[known], hi[known] = self.interval(name, flops[known], level)
            columns = {"quantity": name, "flops": flops, "value": value, "lo": lo, "hi": hi}
            parts.append(pd.DataFrame(columns))
        names = ["quantity", "flops", "value", "lo", "hi"]
        return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=names)

    def summary(self, level: float = 0.9) -> str:
        """Scheme and failures, then the exponent of N_opt and the frontier at C_max and beyond."""
        failed = int((~self.valid).sum())
        lines = [
            f"{self.scheme}: {_DESCRIPTION[self.scheme].format(unit=self.unit)} "
            f"({self.units} units, {len(self.valid)} replicates, {failed} failed)",
            *(f"  - {message}" for message in self.messages),
        ]
        if not hasattr(self.fit, "params_opt"):
            return "\n".join(lines)
        span = np.array([self.fit.rows["flops"].min(), self.fit.rows["flops"].max()])

        def exponent(fit: FrontierFit) -> Array:
            log_n = np.log(fit.params_opt(span))
            return (log_n[..., 1] - log_n[..., 0]) / np.log(span[1] / span[0])

        check_failures(self.valid)
        lo, hi = self.interval(exponent, level=level)
        lines.append(f"exponent of N_opt {float(exponent(self.fit)):.3f} [{lo:.3f}, {hi:.3f}]")
        for flops in (span[1], 10 * span[1]):
            parts = [f"C = {flops:.3g} FLOP:"]
            for name, method in (("N_opt", "params_opt"), (self.fit.target, "value_opt")):
                try:
                    value = float(getattr(self.fit, method)(flops))
                except FitError:  # beyond the reach of a fit that does not extrapolate
                    value = np.nan
                if not np.isfinite(value):
                    parts.append(f"{name} refused")
                    continue
                lo, hi = self.interval(method, flops, level)
                parts.append(f"{name} {value:.4g} [{lo:.4g}, {hi:.4g}]")
            lines.append(" ".join(parts))
        return "\n".join([*lines, f"intervals at {level:.0%}"])

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "schema_version": 1,
            "fit": self.fit.to_dict(),
            "replicates": self.replicates.to_dict(),
            "valid": encode_array(self.valid),
            "scheme": self.scheme,
            "unit": self.unit,
            "units": self.units,
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Bootstrap":
        return cls(
            fit=fit_from_dict(data["fit"]),
            replicates=fit_from_dict(data["replicates"]),
            valid=decode_array(data["valid"]),
            scheme=data["scheme"],
            unit=data["unit"],
            units=data["units"],
            messages=tuple(data["messages"]),
        )

    def _evaluate(self, fit: Any, quantity: Quantity, flops: ArrayLike | None) -> Array:
        if callable(quantity):
            return np.asarray(quantity(fit), dtype=float)
        if flops is None:
            raise BootstrapError(f"interval({quantity!r}) needs flops=")
        if not callable(getattr(fit, quantity, None)):
            raise BootstrapError(
                f"interval({quantity!r}): {type(fit).__name__} has no such method; give "
                "'params_opt', 'samples_opt', 'value_opt' or a function of the fit"
            )
        return np.asarray(getattr(fit, quantity)(np.asarray(flops, dtype=float)), dtype=float)


def bootstrap(
    runs: pd.DataFrame,
    estimator: Callable[[pd.DataFrame], Any],
    *,
    n_resamples: int = 4000,
    unit: str = "run_id",
    scheme: Scheme = "auto",
    episodes: pd.DataFrame | None = None,
    rng: int | np.random.Generator | None = 0,
) -> Bootstrap:
    """Fit `estimator` to the runs and to resampled runs.

    Parameters
    ----------
    runs : DataFrame
        A run log.
    estimator : callable
        From runs to a fit: `fit_isoflop`, `partial(fit_parametric, form="tied")`, ...
    n_resamples : int
        Replicates; the jackknife has one a unit.
    unit : str
        Column of the run log whose values are resampled as wholes.
    scheme : str
        "components" (what "auto" chooses): fitted values plus noise with a component that all rows
        of a unit share and one of each row, in logs where the target is positive; their sizes are
        corrected for what the fit absorbs.
        "jackknife": one unit left out at a time, with t(G - 1).
        "pairs": units drawn with replacement, within sizes that have three or more of them; those
        of other sizes are drawn together.
        "rows": rows drawn within their budget; only where every row is its own run.
        "dirichlet": random positive weights of the units.
        "wild": the residuals of every unit times a random sign.
        "parametric": observations plus noise of the size of `loss_se` or `return_se`, or of
        resampled `episodes`; without them, fitted values plus noise of the size of the residuals.
    episodes : DataFrame, optional
        Returns of single episodes (run_id, samples, return), for "parametric" and, under "pairs",
        for units that no draw can vary.
    rng : int, Generator or None
        Same seed, same rows: same draws, whatever the estimator.

    Returns
    -------
    Bootstrap

    Raises
    ------
    BootstrapError
        The scheme does not apply to these runs.

    Notes
    -----
    Coverage of nominal 90 % intervals for the exponent of N_opt and for N_opt at ten times the
    largest budget on ladders of 10 or 13 long runs: components .88 to .93, jackknife .83 to .98 and
    wider, wild .47 to .73 (`benchmarks/results/coverage.md`, 30 to 114 simulated logs a row).

    Examples
    --------
    >>> found = bootstrap(runs, sa.fit_isoflop, n_resamples=50)
    >>> lo, hi = found.interval("params_opt", flops=1e13, level=0.9)
    >>> bool(lo < found.fit.params_opt(1e13) < hi)
    True
    >>> found.interval(lambda fit: fit.laws.params_exponent).lo.shape   # any function of a fit
    ()
    """
    if scheme not in get_args(Scheme):
        known = ", ".join(map(repr, get_args(Scheme)))
        raise BootstrapError(f"scheme is {scheme!r}: choose one of {known}")
    if n_resamples < 2:
        raise BootstrapError(f"n_resamples is {n_resamples}: at least two are needed")
    fit = estimator(runs)
    rows = fit.rows
    if unit not in rows:
        raise BootstrapError(f"unit={unit!r}: the fitted rows have no such column")
    groups = pd.factorize(rows[unit], sort=True)[0].astype(np.intp)
    units = int(groups.max()) + 1
    if scheme == "auto":
        scheme = "components"
    if units < MIN_IN_STRATUM and scheme != "parametric":
        raise BootstrapError(
            f"{units} values of {unit}: no scheme sees the spread between fewer than three units. "
            "Give more runs, or scheme='parametric' for the noise of the evaluation alone"
        )
    draws_rng, probe_rng = np.random.default_rng(rng).spawn(2)
    draws = Draws(fit=fit, groups=groups, n_resamples=n_resamples, episodes=episodes)
    weights, response, messages = draws.make(scheme, draws_rng, probe_rng)
    replicates = fit.refit(weights=weights, response=response)
    return Bootstrap(
        fit=fit,
        replicates=replicates,
        valid=np.asarray(replicates.valid()),
        scheme=scheme,
        unit="row" if scheme == "rows" else unit,
        units=len(rows) if scheme == "rows" else units,
        messages=messages,
    )


def fit_from_dict(data: Mapping[str, Any]) -> Any:
    """The fit that its `to_dict` wrote, whatever its class.

    Examples
    --------
    >>> fit = sa.fit_isoflop(runs)
    >>> fit_from_dict(fit.to_dict()).summary() == fit.summary()
    True
    """
    kind = data.get("kind")
    if kind not in _MODULE_OF_KIND:
        known = ", ".join(_MODULE_OF_KIND)
        raise BootstrapError(f"kind is {kind!r}: no stored fit (known: {known})")
    module = import_module(f"scaling_analysis.estimators.{_MODULE_OF_KIND[kind]}")
    return getattr(module, kind).from_dict(data)
