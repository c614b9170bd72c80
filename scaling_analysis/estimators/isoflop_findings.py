"""What an isoFLOP fit says aloud: dropped slices, quantised optima, leverage of single sizes."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import FitStatus
from scaling_analysis.estimators.slices import Profiles, Slices
from scaling_analysis.laws.power import fit_power
from scaling_analysis.laws.profiles import SliceState

if TYPE_CHECKING:
    from scaling_analysis.estimators.isoflop import IsoflopFit

Array = NDArray[np.float64]

_LEVERAGE = 0.05
"""A size whose removal moves the exponent by more than this is named."""
_READING = 0.02
"""Readings of the same profiles that differ by more than this are listed."""
_NAMED = 3
"""More budgets than this are not named one by one."""


def reasons(profiles: Profiles, slices: Slices) -> list[str]:
    """Why slices have no optimum: one phrase a reason, naming its budgets."""
    kind = _kind(profiles)
    words = {
        SliceState.FEW_SIZES: "too few for this polynomial",
        SliceState.NO_OPTIMUM: f"the profile has no {kind}",
        SliceState.OUTSIDE: f"the {kind} is not inside the sizes run",
        SliceState.NOT_POSITIVE: f"{profiles.target} is not positive at the optimum",
    }
    n_sizes = profiles.rows.groupby("budget")["params"].nunique()
    found = []
    for state, why in words.items():
        budgets = profiles.budgets[slices.state == state]
        if len(budgets):
            sizes = n_sizes.loc[budgets.tolist()]
            found.append(f"{_listed(budgets)} FLOP ({_counted(sizes.min(), sizes.max())}): {why}")
    return found


def _listed(budgets: Array) -> str:
    if len(budgets) > _NAMED:
        return f"{len(budgets)} from {budgets[0]:.3g} to {budgets[-1]:.3g}"
    return ", ".join(f"{budget:.3g}" for budget in budgets)


def _counted(fewest: int, most: int) -> str:
    if fewest == most:
        return "1 size" if most == 1 else f"{most} sizes"
    return f"{fewest} to {most} sizes"


def look(fit: "IsoflopFit") -> tuple[FitStatus, tuple[str, ...]]:
    """Status and messages of a fit; it is doubtful where one of the first kind applies."""
    doubts = [*_dropped(fit), *_at_the_ends(fit), *_quantised(fit), *_leverage(fit)]
    notes = [*_readings(fit), *_asymptote(fit)]
    return (FitStatus.DOUBTFUL if doubts else FitStatus.OK), (*doubts, *notes)


def summarise(fit: "IsoflopFit") -> str:
    """The text of `IsoflopFit.summary`."""
    laws, table = fit.laws, fit.ols_table()
    lines = [
        f"{fit.method} of {fit.target}: {fit.status}",
        *(f"  - {message}" for message in fit.messages),
        f"{len(fit.rows)} rows of {fit.rows['run_id'].nunique()} runs, {int(laws.points)} of "
        f"{len(fit.profiles.budgets)} budgets, {fit.profiles.budgets[0]:.3g} to "
        f"{fit.profiles.budgets[-1]:.3g} FLOP; residuals in "
        f"{'log ' if fit.residual_space == 'log' else ''}{fit.target}",
        "",
        "law      intercept     slope   95 % OLS interval      R2   (natural logs)",
    ]
    for name, row in table.iterrows():
        lines.append(
            f"{name}    {row.intercept:9.4f}  {row.slope:8.4f}   "
            f"[{row.slope_lo:7.4f}, {row.slope_hi:7.4f}]   {row.r2:.3f}"
        )
    return "\n".join([*lines, "", laws.equations()])


def _dropped(fit: "IsoflopFit") -> list[str]:
    """Slices without an optimum: doubtful where they are more than a quarter."""
    missing = int((fit.slices.state != SliceState.OK).sum())
    if not missing:
        return []
    why = "; ".join(reasons(fit.profiles, fit.slices))
    return [f"{missing} of {len(fit.profiles.budgets)} budgets dropped: {why}"]


def _at_the_ends(fit: "IsoflopFit") -> list[str]:
    if fit.profiles.optimum != "grid":
        return []
    sizes = fit.rows.groupby("budget")["params"].agg(["min", "max"]).to_numpy()
    log_ratio = np.log(fit.slices.params[:, None] / sizes)
    at_end = np.abs(log_ratio).min(axis=1) < 1e-9
    if not at_end.any():
        return []
    named = ", ".join(f"{c:.3g}" for c in fit.profiles.budgets[at_end])
    return [
        f"{at_end.sum()} of {len(at_end)} grid {_kind(fit.profiles)[:-2]}a are not interior: at "
        f"{named} FLOP the best size is the smallest or largest that was run, so the true optimum "
        "may lie beyond it"
    ]


def _quantised(fit: "IsoflopFit") -> list[str]:
    if fit.profiles.optimum != "grid":
        return []
    n = fit.slices.params[np.isfinite(fit.slices.params)]
    distinct = len(np.unique(n))
    if distinct == len(n):
        return []
    return [
        f"N_opt is quantised: {distinct} distinct sizes over {len(n)} budgets, so the OLS interval "
        "of its exponent is too narrow; optimum='vertex' reads between the sizes"
    ]


def _leverage(fit: "IsoflopFit") -> list[str]:
    """The size whose removal moves the exponent most."""
    n = fit.rows["params"].to_numpy(dtype=float)
    sizes = np.unique(n)
    without = fit.refit(weights=(n != sizes[:, None]).astype(float))
    exponent = np.where(without.valid(), without.laws.params_exponent, np.nan)
    shift = exponent - fit.laws.params_exponent
    if not np.isfinite(shift).any():
        return ["no single size can be left out: without any one, fewer than three budgets remain"]
    worst = int(np.nanargmax(np.abs(shift)))
    if abs(shift[worst]) <= _LEVERAGE:
        return []
    return [
        f"one size carries the answer: without N = {sizes[worst]:,.0f} the exponent of N_opt moves "
        f"from {fit.laws.params_exponent:.3f} to {exponent[worst]:.3f}"
    ]


def _readings(fit: "IsoflopFit") -> list[str]:
    """The exponent by other usual readings of the same profiles."""
    positive = bool((fit.profiles.response > 0).all())
    others = {
        "the grid": replace(fit.profiles, optimum="grid"),
        "the vertex of the whole profile": replace(
            fit.profiles, optimum="vertex", window=None, space="log" if positive else "linear"
        ),
        "the vertex of five sizes": replace(
            fit.profiles, optimum="vertex", window=5, space="log" if positive else "linear"
        ),
    }
    found = []
    for label, profiles in others.items():
        slices = profiles.optima()
        ok = slices.state == SliceState.OK
        if ok.sum() >= 3 and not np.array_equal(slices.params[0], fit.slices.params, True):
            log_n = np.log(np.where(ok, slices.params, 1.0))
            exponent = fit_power(np.log(profiles.budgets), log_n, ok.astype(float))[1]
            logs = " in logs" if positive and profiles.optimum == "vertex" else ""
            found.append((float(exponent[0]), f"by {label}{logs} ({ok.sum()} budgets)"))
    here = float(fit.laws.params_exponent)
    if all(abs(exponent - here) <= _READING for exponent, _ in found):
        return []
    listed = ", ".join(f"{exponent:.3f} {how}" for exponent, how in found)
    return [f"the exponent of N_opt depends on how the optimum is read: {here:.3f} here, {listed}"]


def _asymptote(fit: "IsoflopFit") -> list[str]:
    """A return that the inverse form can never exceed, close to what was seen."""
    if fit.laws.value_form != "inverse" or not fit.laws.value_floor > 0:
        return []
    highest = fit.profiles.response.max()
    limit = 1 / float(fit.laws.value_floor)
    if limit > 2 * highest:
        return []
    return [
        f"the inverse form never exceeds {limit:,.0f} points, {limit / highest:.2f} times the "
        "highest return seen: larger runs may well pass it"
    ]


def _kind(profiles: Profiles) -> str:
    return "maximum" if profiles.maximise else "minimum"
