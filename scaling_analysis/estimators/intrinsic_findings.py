"""What an intrinsic fit must say of itself: how flat its optimum is, doubts, summary."""

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.intrinsic_problem import CurveProblem, Inner

if TYPE_CHECKING:
    from scaling_analysis.estimators.intrinsic_fit import IntrinsicFit

Array = NDArray[np.float64]

_NEAR = 0.05
"""Exponents whose sum of squares is within this share of the least are near-optimal."""
_PROFILE = np.linspace(0.05, 0.95, 19)
_WIDE = 0.3
"""A range of near-optimal exponents that decides nothing."""
_FLAT = 0.1
"""One wide enough that replicates are started on both sides."""
_RISES = 0.05
"""Returns explained by less than this do not rise with compute."""
_POOR = 0.9
_APART = 0.1
_BENT = 0.02
"""Loss of R2 to a metric's straight line that shows a bend."""


def conclude(fit: "IntrinsicFit", problem: CurveProblem, doubts: tuple[str, ...]) -> "IntrinsicFit":
    """The fit with its rivals, near-optimal range, status and messages."""
    if not float(fit.r_squared) > _RISES:
        raise FitError(
            "the returns do not rise with model size or samples: the best rising function explains "
            f"{max(float(fit.r_squared), 0.0):.0%} of their variance. Check that mean_return is a "
            "return, the higher the better"
        )
    theta, y = fit._theta(), fit.rows["mean_return"].to_numpy(dtype=float)
    ones = np.ones(len(y))
    near = _near(fit, problem, theta, y, ones)
    rivals, explained = {}, {}
    others: list[Inner] = ["isotonic", "smooth"]
    for other in others:
        if other != fit.inner:
            found = replace(problem, inner=other, metric=None).follow(theta, y, ones)
            rivals[other] = float(1 / (1 + np.exp(-found.theta[0, 0])))
            explained[other] = float(1 - found.squares[0] / found.total[0])
    fit = replace(fit, rivals=rivals, near=near, both_sides=near[1] - near[0] > _FLAT)
    found = [*doubts, *_doubts(fit, explained)]
    return replace(
        fit,
        status=FitStatus.DOUBTFUL if found else FitStatus.OK,
        messages=(*found, *_notes(fit)),
    )


def _near(
    fit: "IntrinsicFit", problem: CurveProblem, theta: Array, y: Array, ones: Array
) -> tuple[float, float]:
    """Smallest and largest exponent around the optimum that fit nearly as well."""
    objective = problem.profile(theta, y, ones, _PROFILE)
    mean, mass = problem.points(y, ones)
    least = float(fit.squares) / (mass.sum() * float(np.ptp(mean)) ** 2)
    best = float(fit.params_exponent)
    excess = objective - (least * (1 + _NEAR) + 1e-9)
    ends = []
    for side in (np.flatnonzero(best > _PROFILE)[::-1], np.flatnonzero(best <= _PROFILE)):
        exponents = np.concatenate([[best], _PROFILE[side]])
        over = np.concatenate([[-_NEAR * least - 1e-9], excess[side]])
        first = np.flatnonzero(over > 0)
        if not len(first):
            ends.append(float(exponents[-1]))
            continue
        i = int(first[0])
        share = over[i - 1] / (over[i - 1] - over[i])
        ends.append(float(exponents[i - 1] + share * (exponents[i] - exponents[i - 1])))
    return ends[0], ends[1]


def _doubts(fit: "IntrinsicFit", explained: dict[str, float]) -> list[str]:
    found = []
    if not fit.sound:
        found.append(
            f"the optimum lies on a bound (exponent {float(fit.params_exponent):.3f}, alpha_E "
            f"{float(fit.law.sample_exponent):.3g}): these curves do not determine the law"
        )
    if float(fit.r_squared) < _POOR:
        found.append(
            f"the law explains {float(fit.r_squared):.1%} of the returns' variance: look at the "
            "curves before trusting it"
        )
    low, high = fit.near
    if high - low > _WIDE:
        found.append(
            f"the optimum is flat: exponents from {low:.2f} to {high:.2f} leave the sum of squares "
            f"within {_NEAR:.0%} of the least"
        )
    for name, exponent in fit.rivals.items():
        if abs(exponent - float(fit.params_exponent)) > _APART:
            found.append(
                f"with the {name} function of log I the exponent is {exponent:.3f}, not "
                f"{float(fit.params_exponent):.3f}"
            )
    if fit.metric is not None and explained["smooth"] - float(fit.r_squared) > _BENT:
        found.append(
            f"the metric {fit.metric.name!r} is no power law of I: its line explains "
            f"{float(fit.r_squared):.1%} of the returns' variance, a smooth function "
            f"{explained['smooth']:.1%}; what is forecast beyond the data follows the line"
        )
    sizes = fit.rows["params"].min(), fit.rows["params"].max()
    best = float(fit.params_opt(np.exp(fit.reach)))
    if not sizes[0] <= best <= sizes[1]:
        found.append(
            f"the best size for the highest return, {best:.3g}, is none of the sizes run, "
            f"{sizes[0]:.3g} to {sizes[1]:.3g}: the frontier is extrapolated in size"
        )
    return found


def _notes(fit: "IntrinsicFit") -> list[str]:
    found = []
    if fit.cost.constant is None:
        found.append(
            f"FLOP a sample are not proportional to N (spread {fit.cost.spread:.0%}): I is in "
            f"units of {fit.law.cost_constant:.3g} N E, the frontier follows the counted FLOP"
        )
    if fit.environment_params > 0:
        found.append(
            f"the budget holds the environment's cost, that of {fit.environment_params:.4g} "
            "parameters a sample"
        )
    if (fit.rows["mean_return"] <= 0).any():
        found.append(
            "some returns are not positive: the fit does not mind, a forecast of the return, which "
            "takes logs, does"
        )
    seeds = fit.rows.groupby("params")["run_id"].nunique()
    if (seeds == 1).all():
        found.append(
            "one run (or mean curve) a size: the spread between seeds is not seen; with return_se, "
            "bootstrap(..., scheme='parametric') gives the evaluation's part"
        )
    return found


def summarise(fit: "IntrinsicFit") -> str:
    """Status and messages first, then the law, the frontier and how well it is known."""
    lines = [
        f"{fit.method} of mean_return: {fit.status}",
        *(f"  - {message}" for message in fit.messages),
    ]
    rows = fit.rows
    share = f"first {fit.dropped:.3g} of each run dropped" if fit.dropped else "nothing dropped"
    mean = f"running mean of {fit.smoothing:g} in log samples" if fit.smoothing else "no smoothing"
    points = len(rows[["params", "samples"]].drop_duplicates())
    lines.append(
        f"{rows['params'].nunique()} sizes, {rows['run_id'].nunique()} runs, {len(rows)} rows, "
        f"{points} points after averaging seeds; {share}; {mean}"
    )
    law = fit.law
    if law.params_exponent.ndim:
        return "\n".join(
            [*lines, f"{len(law.params_exponent)} replicates, {fit.sound.sum()} valid"]
        )
    a = float(law.params_exponent)
    ref = law.flops_ref
    n_ref = float(fit.params_opt(ref)), float(fit.samples_opt(ref))
    lines += [
        f"I^-{float(law.beta):.4f} = ({float(law.size_scale):.4g}/N)^{float(law.size_exponent):.4f}"
        f" + ({float(law.sample_scale):.4g}/E)^{float(law.sample_exponent):.4f}, I = C = "
        f"{law.cost_constant:.4g} N E on the frontier [FLOP]",
        f"N_opt ~ C^{a:.4f}, D_opt ~ C^{1 - a:.4f}; at C = {ref:.4g} FLOP {n_ref[0]:.4g} and "
        f"{n_ref[1]:.4g}",
    ]
    if fit.metric is not None:
        level, slope = (float(v) for v in fit.line)
        lines.append(f"m = {fit.metric.equation} = {np.exp(level):.4g} I^{slope:.4f} (I in FLOP)")
    highest = float(rows["mean_return"].max())
    lines += [
        f"R2 = {float(fit.r_squared):.4f} in return space; returns to {highest:.4g}, I to "
        f"{np.exp(fit.reach):.4g} FLOP",
        f"exponent within {_NEAR:.0%} of the least sum of squares: {fit.near[0]:.2f} to "
        f"{fit.near[1]:.2f}; "
        + ", ".join(f"{name} instead: {value:.3f}" for name, value in fit.rivals.items()),
    ]
    return "\n".join(lines)
