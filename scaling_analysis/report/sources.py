"""What a figure takes from a forecast or a bootstrap: curves, optima, rows."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ReportError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.laws.profiles import SliceState

Array = NDArray[np.float64]


def main_target(source: Forecast | Bootstrap) -> str:
    """What the optimum is an optimum of: "loss" or "mean_return"."""
    return source.ensemble.target if isinstance(source, Forecast) else source.fit.target


def law_curve(
    source: Forecast | Bootstrap, quantity: str, flops: Array, level: float = 0.9
) -> dict[str, Array]:
    """value, lo and hi of a quantity along compute, and run_lo, run_hi where a forecast has them.

    `quantity` is "params_opt", "samples_opt", "loss" or "mean_return".
    """
    if isinstance(source, Forecast):
        e, level = source.ensemble, source.level
        if quantity in ("params_opt", "samples_opt"):
            size = e.predict("params_opt", flops)
            lo, hi = size.interval(level)
            if quantity == "params_opt":
                return {"value": np.exp(size.log), "lo": lo, "hi": hi}
            return {  # a larger model sees fewer samples: the ends swap
                "value": e.cost.samples(np.exp(size.log), flops),
                "lo": e.cost.samples(hi, flops),
                "hi": e.cost.samples(lo, flops),
            }
        law = e.predict(f"{quantity}_opt", flops)
        lo, hi = law.interval(level)
        noise = e.noise[quantity]
        run_lo, run_hi = law.plus(noise.sd, noise.dof).interval(level)
        return {
            "value": np.exp(law.log),
            "lo": lo,
            "hi": hi,
            "run_lo": run_lo,
            "run_hi": run_hi,
        }
    name = quantity if quantity in ("params_opt", "samples_opt") else "value_opt"
    band = source.interval(name, flops=flops, level=level)
    return {"value": getattr(source.fit, name)(flops), "lo": band.lo, "hi": band.hi}


def profile_fit(source: Forecast | Bootstrap, target: str = "loss") -> Any:
    """The isoFLOP fit of a forecast or bootstrap, a parabola's for choice; None without one."""
    if isinstance(source, Bootstrap):
        fits = [source.fit] if source.fit.target == target else []
    else:
        e = source.ensemble
        members = e.losses if target == "loss" else e.returns
        order = sorted(members, key=lambda name: (name != "isoflop-vertex", name))
        fits = [members[name].fit for name in order]
    return next((fit for fit in fits if hasattr(fit, "slices")), None)


def observed_optima(source: Forecast | Bootstrap, target: str | None = None) -> pd.DataFrame:
    """flops, params_opt, samples_opt, value of the budgets with an optimum of their own."""
    fit = profile_fit(source, target or main_target(source))
    if fit is None:
        return pd.DataFrame(columns=["flops", "params_opt", "samples_opt", "value"])
    found = fit.slices.state == SliceState.OK
    return pd.DataFrame(
        {
            "flops": fit.profiles.budgets[found],
            "params_opt": fit.slices.params[found],
            "samples_opt": fit.slices.samples[found],
            "value": fit.slices.value[found],
        }
    )


def fitted_rows(source: Forecast | Bootstrap, target: str) -> pd.DataFrame:
    """The rows of the log behind the laws of a target: the most that any method has used."""
    if isinstance(source, Bootstrap):
        return source.fit.rows
    members = source.ensemble.losses if target == "loss" else source.ensemble.returns
    fits = [member.fit for member in members.values()]
    if not fits:
        raise ReportError(f"the forecast has no {target}")
    return max((fit.rows for fit in fits), key=len)


def grid_of(source: Forecast | Bootstrap, flops: ArrayLike | None) -> Array:
    """Compute along which a law is drawn [FLOP]: the log and the forecast, or the given ends."""
    if flops is not None:
        ends = np.asarray(flops, dtype=np.float64)
    else:
        target = main_target(source)
        ends = fitted_rows(source, target)["flops"].to_numpy(np.float64)
        if isinstance(source, Forecast):
            ends = np.append(ends, source.table["flops"])
    return np.geomspace(ends.min(), ends.max(), 120)


def flops_max(source: Forecast | Bootstrap) -> float:
    """Largest compute of the log [FLOP]."""
    if isinstance(source, Forecast):
        return source.ensemble.flops_max
    return float(source.fit.rows["flops"].max())
