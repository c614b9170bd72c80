"""What a forecast says against itself: unsound fits, unknown noise, budgets far out, baselines."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitStatus
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.ensemble import Ensemble
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.observation import Noise, grouped_rows, seed_noise
from scaling_analysis.forecasting.scores import COMBINED, Hindcast

Array = NDArray[np.float64]

_EXACT = 1e-6
"""Noise of a log value below this is that of arithmetic."""
_FAR = 3.0
"""Times the farthest hindcast, or below the smallest run, from which on a forecast is doubted."""
_PARAMETERS = 5
"""Parameters that a surface spends; a profile spends three a budget, less than it has sizes."""


def fit_doubts(target: Target, members: dict[str, Bootstrap]) -> list[str]:
    """What methods that are not sound say of themselves."""
    return [
        f"{name} ({target}): {message}"
        for name, member in members.items()
        if member.fit.status != FitStatus.OK and name not in BASELINES
        for message in member.fit.messages
    ]


def noise_of_run(
    runs: pd.DataFrame, target: Target, members: dict[str, Bootstrap], messages: list[str]
) -> Noise:
    """Noise of a run, from repeated sizes or else from what the methods leave unexplained."""
    noise, none = seed_noise(grouped_rows(runs, target), target), "intervals of runs hold no noise"
    if noise.dof > 0:
        if noise.sd < _EXACT:
            messages.append(f"runs of {target} repeat exactly: {none}")
        return noise
    spreads, freedom = [], []
    for name, member in members.items():
        if name not in BASELINES:
            observed = member.fit.rows[target].to_numpy(np.float64)
            with np.errstate(invalid="ignore", divide="ignore"):
                residual = np.log(observed / member.fit.fitted_values())
            residual = residual[np.isfinite(residual)]
            left = residual.size - _PARAMETERS
            if left > 0:
                spreads.append(float(np.sqrt(residual @ residual / left)))
                freedom.append(left)
    unseen = f"no size was run twice at a budget{{}}: the noise of a run of {target} is {{}}"
    if not spreads:
        messages.append(unseen.format(" and the rows are few", f"not known, and {none}"))
        return Noise(sd=0.0, dof=1)
    sd = float(np.median(spreads))
    said = "taken from the residuals of the methods, which hold their misfit too"
    messages.append(unseen.format("", said))
    if sd < _EXACT:
        messages.append(f"the methods go through every row of {target}: {none}")
    return Noise(sd=sd, dof=min(freedom))


def warnings(ensemble: Ensemble, budgets: Array) -> list[str]:
    """Budgets that lie too far out or below all runs, and targets that no origin judged."""
    messages = []
    reach = 1.0
    if ensemble.hindcast is not None:
        cells = ensemble.hindcast.cells
        reach = float((cells["budget"] / cells["origin"]).max())
    far = budgets[budgets > ensemble.flops_max * reach * _FAR]
    if far.size and ensemble.hindcast is not None:
        messages.append(
            f"budgets from {far[0]:g} FLOP on lie more than {_FAR:g} times farther out than the "
            f"farthest hindcast ({reach:.3g} times its origin): their widening is extrapolated"
        )
    fitted = ensemble.fitted("params_opt").values()
    least = min(float(member.fit.rows["flops"].min()) for member in fitted)
    if budgets[0] < least / _FAR:
        messages.append(
            f"{budgets[0]:g} FLOP is less than the smallest run spent ({least:.3g}): the intervals "
            "are made for larger budgets, and too narrow there"
        )
    unknown = budgets[np.isnan(ensemble.predict(f"{ensemble.target}_opt", budgets).log)]
    if unknown.size:
        messages.append(
            f"no method says what {ensemble.target} to expect at {unknown[0]:g} FLOP: sizes alone "
            "are forecast there"
        )
    messages += [
        f"no origin could forecast the {target}: its methods weigh the same there and its "
        "intervals rest on a prior"
        for target in unjudged(ensemble)
    ]
    return messages


def beaten(
    past: Hindcast | None, targets: list[Target], level: float, farthest: float
) -> list[str]:
    """Where a baseline would have done better than what is forecast, no farther out than that."""
    if past is None:
        return []
    return [
        f"in the hindcast of the {row.target} the baseline {row.baseline} did better than the "
        f"average: interval score {row.score:.3g} against {row.score_average:.3g} over "
        f"{row.forecasts} forecasts as far ahead at most"
        for row in past.better_baselines(targets, level, farthest).itertuples()
    ]


def unjudged(ensemble: Ensemble) -> list[str]:
    """Targets that the hindcast, if there is one, has nothing of."""
    if ensemble.hindcast is None:
        return []
    cells = ensemble.hindcast.cells
    judged = cells[(cells["method"] == COMBINED) & cells["predicted"].notna()]["quantity"]
    return [t for t in ensemble.noise if not judged.str.startswith(t).any()]
