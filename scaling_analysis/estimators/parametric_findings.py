"""What a parametric fit must say of itself: standard errors, fragilities, summary."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.parametric_problem import Problem, off_bounds
from scaling_analysis.laws.newton import Minimum, derivatives

if TYPE_CHECKING:
    from scaling_analysis.estimators.parametric import ParametricFit

Array = NDArray[np.float64]

_MOVED = 0.05
"""A change of the exponent of N_opt that a reader must know of, if it is no accident."""
_SHORTEST = (0.25, 0.5)
"""Shares of the rows, those with the fewest samples, left out to see what moves."""
_RIVAL = 0.01
"""Another minimum within this share of the objective is a rival."""
_NO_EFFECT = 1e-6
"""A change over the whole range, as a share of the response's, that is none."""
_FEW = 5
_ACCIDENT = 3.0
"""Standard errors up to which a change may be an accident."""
_UNRESOLVED = 2.0
"""Standard errors up to which a floor may be zero."""


def conclude(
    fit: "ParametricFit", problem: Problem, ends: Minimum, findings: bool
) -> "ParametricFit":
    """The fit with standard errors, status and messages; refuses what determines no frontier.

    `ends` are all the minima that the cold starts led to. Without `findings` a fit is refused for
    the same reasons, and nothing else is looked at.
    """
    best = int(np.argmin(ends.objective))
    theta = ends.theta[best : best + 1]
    for name in ("params", "samples"):
        if not has_effect(fit, name):
            raise FitError(
                f"{fit.target} does not change with {name} in the fitted law, so there is no "
                f"optimum between size and data; add runs that differ more in {name}"
            )
    at_bound = [name for name in problem.form.exponents if not off_bounds(fit.parameters[name])]
    if at_bound:
        _refuse_if_flat(fit, problem, theta, at_bound[0])
    if not np.isfinite(fit.params_exponent):
        raise FitError(
            f"{fit.equation}: along an isoFLOP line the fitted surface has no minimum, so there is "
            "no N_opt. Add runs on both sides of the optimum, or use form='additive'"
        )
    fit = replace(fit, sound=np.asarray(fit.sound & (not at_bound)))
    if not findings:
        return fit
    influence = influence_of_runs(fit, problem, theta, np.ones((1, len(fit.rows))))
    errors = dict(zip(influence.names, influence.standard_errors(), strict=True))
    fit = replace(fit, standard_errors=errors)
    doubts = [
        f"{name} is on its bound {float(fit.parameters[name]):.4g}: the law does not describe "
        "these runs"
        for name in at_bound
    ]
    if not ends.converged[best]:
        doubts.append("the solver did not converge: the parameters are not those of the optimum")
    doubts += [*_floor(fit), *_rival(fit, problem, ends), *_moved(fit, problem, influence)]
    return replace(
        fit,
        status=FitStatus.DOUBTFUL if doubts else FitStatus.OK,
        messages=(*doubts, *_notes(fit)),
    )


@dataclass(frozen=True, slots=True)
class Influence:
    """First-order effect of each run on the estimates: their sum of squares is the variance."""

    names: tuple[str, ...]
    """The parameters and "params_exponent"."""
    by_run: Array
    """(runs, names); NaN where the curvature is singular or a parameter is on its bound."""

    def standard_errors(self) -> list[float]:
        """The sandwich over runs, with the usual G / (G - 1)."""
        runs = len(self.by_run)
        if runs < 2:
            return [float("nan")] * len(self.names)
        return [float(v) for v in np.sqrt((self.by_run**2).sum(axis=0) * runs / (runs - 1))]


def influence_of_runs(
    fit: "ParametricFit", problem: Problem, theta: Array, weights: Array
) -> Influence:
    """The influence of every run at an optimum `theta` (1, P) for `weights` (1, rows).

    Few rows lie inside the knee, too few to estimate from them alone how densely residuals lie
    around zero, which is the curvature of the expected objective. As for medians (Powell 1991) the
    density is taken from a wider window, 2.1 robust standard deviations times rows^(-1/5).
    """
    law, form = problem.law, problem.form
    mu = problem.scaled(fit.rows[fit.target].to_numpy(dtype=float))[None]
    predicted, state = law.evaluate(theta)
    residuals = mu - predicted
    window = problem.delta
    if np.isfinite(window):
        kept = residuals[weights > 0]
        spread = np.subtract(*np.quantile(kept, [0.75, 0.25])) / 1.349
        window = max(window, 2.12 * spread * len(kept) ** -0.2)
        second = weights * (np.abs(residuals) <= window) * problem.delta / window
    else:
        second = weights
    first = weights * np.clip(residuals, -problem.delta, problem.delta)
    hessian = law.contract(state, first, second)[1][:, :, 0]
    run, runs = fit.rows["run_id"].factorize()
    scores = np.zeros((len(runs), theta.shape[1]))
    np.add.at(scores, run, first[0][:, None] * law.jacobian(theta)[0])

    free = ((theta > law.lower) & (theta < law.upper))[0]
    on_theta = np.zeros_like(scores)
    scale = np.sqrt(np.abs(np.diag(hessian)[free]))
    curvature = hessian[np.ix_(free, free)] / np.outer(scale, scale)
    if np.linalg.eigvalsh(curvature)[0] > 1e-12:
        on_theta[:, free] = np.linalg.solve(curvature, (scores[:, free] / scale).T).T / scale
    else:
        on_theta[:] = np.nan
    # Natural parameters are smooth in theta: central differences are exact enough for an error.
    step = 1e-6 * np.maximum(np.abs(theta[0]), 1.0)
    ends = []
    for moved in (theta + np.diag(step), theta - np.diag(step)):
        natural = form.natural(moved, problem.rows)
        ends.append(np.stack([*natural.values(), form.params_exponent(natural)]))
    jacobian = (ends[0] - ends[1]) / (2 * step)
    by_run = on_theta @ jacobian.T
    fixed = ~(np.abs(jacobian[:, free]) > 0).any(axis=1)
    by_run[:, fixed] = np.nan
    return Influence((*form.names, "params_exponent"), by_run)


def has_effect(fit: "ParametricFit", name: str) -> NDArray[np.bool_]:
    """Whether the fitted law changes with `name`, "params" or "samples"; () or (R,)."""
    columns = (fit.rows[column].to_numpy(dtype=float) for column in ("params", "samples"))
    n, d = (np.full(2, np.median(column)) for column in columns)
    (n if name == "params" else d)[:] = fit.rows[name].min(), fit.rows[name].max()
    value = fit.value(n, fit.cost.flops(n, d))
    spread = np.ptp(fit.rows[fit.target].to_numpy(dtype=float))
    return np.abs(value[..., 1] - value[..., 0]) > _NO_EFFECT * spread


def _refuse_if_flat(fit: "ParametricFit", problem: Problem, theta: Array, name: str) -> None:
    """An exponent on its bound where moving it by .1 changes the objective by less than 0.1 %."""
    mu = problem.scaled(fit.rows[fit.target].to_numpy(dtype=float))[None]
    value, gradient, _ = derivatives(problem.law, theta, mu, np.ones_like(mu), problem.delta)
    bound = ((theta <= problem.law.lower) | (theta >= problem.law.upper))[0]
    if 0.1 * np.abs(gradient[bound, 0]).max(initial=0.0) < 1e-3 * value[0]:
        raise FitError(
            f"{name} ran to its bound {float(fit.parameters[name]):.4g} and the objective is flat "
            f"there: the runs do not determine {name}. Add sizes or lengths, or use form='tied'"
        )


def _floor(fit: "ParametricFit") -> list[str]:
    """A floor of zero, or one that the runs do not tell from zero."""
    if "E" not in fit.parameters or fit.residual_space != "log":
        return []
    floor, error = float(fit.parameters["E"]), fit.standard_errors["E"]
    if floor == 0:
        found = "the floor E went to zero"
    elif not floor > _UNRESOLVED * error:
        found = f"the floor E = {floor:.3g} +- {error:.2g} is not told from zero"
    else:
        return []
    return [f"{found}: beyond the data, forecasts by this law are likely too good"]


def _rival(fit: "ParametricFit", problem: Problem, ends: Minimum) -> list[str]:
    """Another minimum, almost as good, with another frontier."""
    near = ends.converged & (ends.objective < (1 + _RIVAL) * ends.objective.min())
    exponents = problem.form.params_exponent(problem.form.natural(ends.theta, problem.rows))
    moved = near & (np.abs(exponents - fit.law.params_exponent(fit.parameters)) > _MOVED)
    if not moved.any():
        return []
    rival = int(np.flatnonzero(moved)[np.argmin(ends.objective[moved])])
    worse = ends.objective[rival] / ends.objective.min() - 1
    return [
        f"another minimum, {worse:.2%} worse, has N_opt ~ C^{exponents[rival]:.3f}: the runs "
        "hardly tell them apart"
    ]


def _moved(fit: "ParametricFit", problem: Problem, influence: Influence) -> list[str]:
    """What the frontier and the floor do when the runs' early rows are left out."""
    samples = fit.rows["samples"].to_numpy(dtype=float)
    cuts = np.unique(np.quantile(samples, _SHORTEST))
    weights = (samples >= cuts[:, None]).astype(float)
    without = fit.refit(weights=weights)
    theta = problem.form.theta(without.parameters, problem.rows)
    at = influence.names.index("params_exponent")
    for i in np.flatnonzero(without.sound):
        other = influence_of_runs(fit, problem, theta[i : i + 1], weights[i : i + 1])
        # Runs bear on both fits: the error of the change is that of the difference of influences.
        change = Influence(influence.names, other.by_run - influence.by_run).standard_errors()
        before, after = float(fit.params_exponent), float(without.params_exponent[i])
        if abs(after - before) <= max(_MOVED, _ACCIDENT * np.nan_to_num(change[at])):
            continue
        text = (
            f"without the {int((weights[i] == 0).sum())} rows of fewer than {cuts[i]:.3g} samples "
            f"the exponent of N_opt moves from {before:.3f} to {after:.3f}"
        )
        if "E" in fit.parameters:
            floors = float(fit.parameters["E"]), float(without.parameters["E"][i])
            text += f" and E from {floors[0]:.3g} to {floors[1]:.3g}"
        return [f"{text}: early training may obey another law; consider min_samples"]
    return []


def _notes(fit: "ParametricFit") -> list[str]:
    """What holds of the data and does not by itself make the fit doubtful."""
    notes = []
    for name, symbol in (("params", "N"), ("samples", "D")):
        distinct = fit.rows[name].nunique()
        if distinct < _FEW:
            notes.append(f"{symbol} takes only {distinct} distinct values")
    if fit.cost.constant is None:
        notes.append(
            f"C/(N D) drifts by up to {fit.cost.spread:.0%} with N: the frontier uses the counted "
            "FLOP a sample, interpolated over N"
        )
    if fit.form != "repeated" and "unique_samples" in fit.rows:
        passes = (fit.rows["samples"] / fit.rows["unique_samples"]).max()
        if passes > 1.01:
            notes.append(
                f"up to {passes:.1f} passes over the data count as fresh samples here; "
                "form='repeated' discounts them"
            )
    return notes


def summarise(fit: "ParametricFit") -> str:
    """The text of `ParametricFit.summary`."""
    if fit.objective.ndim:
        count, sound = fit.objective.size, int(fit.sound.sum())
        return f"{fit.method} fit of {fit.target}: {count} replicates, {sound} of them valid"
    rows = fit.rows
    runs = rows["run_id"].nunique()
    residuals = f"log {fit.target}" if fit.residual_space == "log" else fit.target
    loss = "least squares" if np.isinf(fit.delta) else f"Huber's loss, knee {fit.delta:.4g}"
    ranges = "; ".join(
        f"{symbol} {rows[name].min():.3g} to {rows[name].max():.3g}"
        for symbol, name in (("N", "params"), ("D", "samples"), ("C", "flops"))
    )
    lines = [
        f"{fit.method} fit of {fit.target}: {fit.equation}",
        f"status: {fit.status}",
        *(f"  - {message}" for message in fit.messages),
        f"{len(rows)} rows of {runs} run{'s' * (runs > 1)}; {ranges}",
    ]
    if fit.size != "params":
        lines.append(f"N is {fit.size}")
    if fit.selection:
        lines.append("filters: " + ", ".join(f"{k} = {v}" for k, v in fit.selection.items()))
    lines += [
        f"residuals of {residuals} by {loss}; objective {float(fit.objective):.6g}",
        "",
        f"{'parameter':<16}{'value':>12}{'std. error':>12}   (by run)",
    ]
    for name, value, error in fit.to_frame().itertuples():
        shown = "-" if np.isnan(error) else f"{error:.2g}"
        lines.append(f"{name:<16}{value:>12.5g}{shown:>12}")
    lines.append("")
    for factor in (1, 10):
        c = factor * rows["flops"].max()
        n, d, y = (float(f(c)) for f in (fit.params_opt, fit.samples_opt, fit.value_opt))
        lines.append(f"at C = {c:.3g}: N_opt {n:.3g}, D_opt {d:.3g}, {fit.target} {y:.4g}")
    return "\n".join(lines)
