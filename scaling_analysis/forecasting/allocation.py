"""What a choice of N costs: near-optimal sizes, wrong sizes, caps on N or D, hours and money."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError
from scaling_analysis.forecasting.combination import weighted_quantile
from scaling_analysis.forecasting.ensemble import Ensemble, run_table
from scaling_analysis.forecasting.members import log_value
from scaling_analysis.forecasting.questions import check_level, paired, positive
from scaling_analysis.forecasting.scores import COMBINED

Array = NDArray[np.float64]

_REACH = np.log(100.0)
"""Near-optimal sizes are looked for up to a factor of 100 from N_opt on either side."""
_POINTS = 401
SECONDS_AN_HOUR = 3600.0
JOULES_A_KWH = 3.6e6


def excess(ensemble: Ensemble, flops: float, params: ArrayLike, method: str = COMBINED) -> Array:
    """Log of the expected loss at N `params` over the least at the same C; for returns, its fall.

    NaN where no method says what to expect at C, such as returns beyond the highest seen. The
    average of methods keeps the weights that it has at N_opt: then it is as convex in log N as the
    methods are.
    """
    target = ensemble.target
    sign = 1.0 if target == "loss" else -1.0
    centre = float(ensemble.predict("params_opt", flops, method=method).log[0])
    grid = centre + np.linspace(-_REACH, _REACH, _POINTS)
    asked = np.log(np.asarray(params, dtype=np.float64))
    everywhere = np.concatenate([grid, np.ravel(asked)])
    curve = sign * _profile(ensemble, target, flops, np.exp(everywhere), method)
    least = np.fmin.reduce(curve[:_POINTS])  # NaN where all are
    return (curve[_POINTS:] - least).reshape(asked.shape)


def near_optimal(
    ensemble: Ensemble, flops: float, tolerance: float, method: str = COMBINED
) -> tuple[float, float]:
    """Smallest and largest N [count] whose expected loss is within `tolerance` of the best.

    NaN at an end that lies beyond a factor of 100 from N_opt: the profile is flat there; and at
    both where nothing is expected at C.
    """
    centre = float(ensemble.predict("params_opt", flops, method=method).log[0])
    grid = centre + np.linspace(-_REACH, _REACH, _POINTS)
    above = excess(ensemble, flops, np.exp(grid), method) - np.log1p(tolerance)
    if np.isnan(above).all():
        return np.nan, np.nan
    best = int(np.nanargmin(above))
    return (
        float(np.exp(_crossing(grid[best::-1], above[best::-1]))),
        float(np.exp(_crossing(grid[best:], above[best:]))),
    )


def _crossing(x: Array, y: Array) -> float:
    """Where y, negative at first, first rises through zero; NaN if it never does."""
    rising = np.flatnonzero(y > 0)
    if rising.size == 0:
        return np.nan
    i = int(rising[0])
    share = -y[i - 1] / (y[i] - y[i - 1])
    return float(x[i - 1] + share * (x[i] - x[i - 1]))


def _profile(ensemble: Ensemble, target: str, flops: float, params: Array, method: str) -> Array:
    """Log of the expected value over N at one budget."""
    c = np.full(params.shape, flops)
    fitted = ensemble.fitted(target)
    if method != COMBINED:
        return log_value(fitted[method].fit, "value", c, params)
    weights = ensemble.weights(target, flops)
    names = [name for name in weights if name in fitted]
    curves = np.array([log_value(fitted[name].fit, "value", c, params) for name in names])
    w = np.where(np.isfinite(curves), np.array([weights[name] for name in names])[:, None], 0.0)
    with np.errstate(invalid="ignore"):
        return np.sum(np.where(w > 0, w * curves, 0.0), axis=0) / w.sum(axis=0)


def misallocation(
    ensemble: Ensemble, flops: ArrayLike, params: ArrayLike, level: float
) -> pd.DataFrame:
    """What it costs to spend C on N `params` instead of N_opt.

    Returns
    -------
    DataFrame
        flops, params, params_opt, excess (share by which the expected loss is above the least, or
        the return below the most), excess_lo, excess_hi, wasted (share of C that would have bought
        the same at N_opt; NaN where the law never reaches it).
    """
    c, n = paired(flops, params)
    check_level(level)
    sign = 1.0 if ensemble.target == "loss" else -1.0
    rows = []
    for budget, size in zip(c.ravel(), n.ravel(), strict=True):
        lost = float(excess(ensemble, budget, size))

        def loss_over_best(fit, budget=budget, size=size):
            at = log_value(fit, "value", budget, size) - log_value(fit, "value_opt", budget)
            return sign * at

        draws, weights = ensemble.draws(ensemble.target, budget, loss_over_best)
        lo, hi = weighted_quantile(draws, weights, [0.5 - level / 2, 0.5 + level / 2])
        needed = _equal_budget(ensemble, budget, lost * sign)
        rows.append(
            {
                "flops": budget,
                "params": size,
                "params_opt": float(np.exp(ensemble.predict("params_opt", budget).log[0])),
                "excess": np.expm1(lost) if sign > 0 else -np.expm1(-lost),
                "excess_lo": np.expm1(lo) if sign > 0 else -np.expm1(-lo),
                "excess_hi": np.expm1(hi) if sign > 0 else -np.expm1(-hi),
                "wasted": 1 - needed / budget,
            }
        )
    return pd.DataFrame(rows)


def _equal_budget(ensemble: Ensemble, flops: float, lost: float) -> float:
    """The budget below `flops` at which the optimum is worth `lost` (log) less."""
    quantity = f"{ensemble.target}_opt"
    grid = flops * np.geomspace(1e-4, 1.0, 201)
    value = ensemble.predict(quantity, grid).log
    gap = np.abs(value - value[-1]) - abs(lost)
    below = np.flatnonzero(gap > 0)
    if below.size == 0:
        return np.nan
    i = int(below[-1])
    if i == grid.size - 1:
        return float(flops)
    share = gap[i] / (gap[i] - gap[i + 1])
    return float(np.exp(np.log(grid[i]) + share * np.log(grid[i + 1] / grid[i])))


def capped(
    ensemble: Ensemble,
    flops: ArrayLike,
    level: float,
    max_params: float = np.inf,
    max_samples: float = np.inf,
) -> pd.DataFrame:
    """The best run of each budget under a cap on N (serving cost) or on D (unique data).

    A cap on D asks for larger models, one on N for longer training; where both bind the budget
    cannot be spent, and the run ends at both caps.

    Returns
    -------
    DataFrame
        flops, flops_spent, params, samples, binding ("none", "params", "samples" or "both"), the
        forecast of that run (see `run_table`), and excess (share by which its expected loss is
        above, or its return below, that of the best run without caps).
    """
    if not (max_params > 0 and max_samples > 0):
        raise ForecastError(
            f"max_params={max_params!r}, max_samples={max_samples!r}: caps must be positive"
        )
    rows = []
    for budget in positive("flops", flops):
        best = float(np.exp(ensemble.predict("params_opt", budget).log[0]))
        least = _size_of_cost(ensemble, budget / max_samples)
        size, binding, spent = best, "none", budget
        if max_params < least:
            size, binding = max_params, "both"
            spent = float(ensemble.cost.flops(max_params, max_samples))
        elif best > max_params:
            size, binding = max_params, "params"
        elif best < least:
            size, binding = least, "samples"
        rows.append((budget, spent, size, float(ensemble.cost.samples(size, spent)), binding))
    table = pd.DataFrame(rows, columns=["flops", "flops_spent", "params", "samples", "binding"])
    runs = run_table(ensemble, table["params"], table["flops_spent"], level)
    quantity = ensemble.target
    free = np.exp(ensemble.predict(f"{quantity}_opt", table["flops"]).log)
    ratio = runs[quantity].to_numpy() / free
    runs["excess"] = ratio - 1 if quantity == "loss" else 1 - ratio
    return pd.concat([table, runs.drop(columns=["params", "flops"])], axis=1)


def _size_of_cost(ensemble: Ensemble, flops_per_sample: float) -> float:
    """The N at which a sample costs `flops_per_sample`."""
    from scipy.optimize import brentq

    if flops_per_sample <= 0:
        return 0.0

    def gap(log_n: float) -> float:
        return float(np.log(ensemble.cost.flops_per_sample(np.exp(log_n)) / flops_per_sample))

    return float(np.exp(brentq(gap, -50.0, 120.0, xtol=1e-10)))


def spending(
    flops: ArrayLike,
    flops_per_second: float,
    *,
    price_per_hour: float | None = None,
    watts: float | None = None,
) -> pd.DataFrame:
    """Hours, money and energy of budgets on a device of stated throughput, price and power.

    Parameters
    ----------
    flops : array_like
        Budgets [FLOP].
    flops_per_second : float
        FLOP that a device really does in a second of training, not its peak.
    price_per_hour : float, optional
        Price of an hour of the device, in any currency.
    watts : float, optional
        Power that it draws, cooling included if it should count [W].

    Returns
    -------
    DataFrame
        flops, device_hours, price, kilowatt_hours (the last two where asked for).

    Examples
    --------
    >>> spending(3.6e18, flops_per_second=1e14, price_per_hour=2.0).values.tolist()
    [[3.6e+18, 10.0, 20.0]]
    """
    given = {
        "flops_per_second": flops_per_second,
        "price_per_hour": price_per_hour,
        "watts": watts,
    }
    for name, value in given.items():
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ForecastError(f"{name}={value!r} must be a positive number")
    c = positive("flops", flops)
    seconds = c / flops_per_second
    table = {"flops": c, "device_hours": seconds / SECONDS_AN_HOUR}
    if price_per_hour is not None:
        table["price"] = seconds / SECONDS_AN_HOUR * price_per_hour
    if watts is not None:
        table["kilowatt_hours"] = seconds * watts / JOULES_A_KWH
    return pd.DataFrame(table)
