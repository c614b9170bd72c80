"""Checks of the isoFLOP profiles: how far the optimum of each budget can be trusted.

The estimates here are the plain ones that papers report (grid optimum, log-log line), because the
audit asks how fragile such an estimate is on this log. Fits are made by the estimators.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.runlog.findings import Finding, Group, Severity, short, shorts, slope
from scaling_analysis.runlog.grid_profiles import MIN_SIZES, Profiles, grid_optima

NOISE_DRAWS = 500
NOISE_CELLS = 20_000
"""Larger logs skip the noise study: it costs draws x cells."""


def profiles(group: Group) -> Iterator[Finding]:
    """All checks of the profiles of loss and return."""
    if not np.isfinite(group.column("budget")).any():
        yield group.finding(
            "no-budgets",
            Severity.NOTE,
            "No budget is logged: isoFLOP profiles can be neither fitted nor checked.",
            remedy="Log the budget that each checkpoint stands for; the parametric fit needs none.",
        )
        return
    too_few: dict[str, int] = {}
    for target, word in (("loss", "loss"), ("mean_return", "return")):
        found = grid_optima(group, target)
        if found is None or len(found.budgets) < 2:
            if np.isfinite(group.column(target)).any():
                too_few[word] = 0 if found is None else 1
            continue
        yield from _edges(group, found, word)
        if len(found.budgets) < 4:
            continue
        yield from _quantised(group, found, word)
        yield from _leverage(group, found, word)
        if target == "loss":
            yield from _noise(group, found)
            yield from _definition(group, found)
            yield from _range(group)
            yield from _floor(group, found)
    for count in sorted(set(too_few.values())):
        of = " or a ".join(word for word, found in too_few.items() if found == count)
        yield group.finding(
            "few-profiles",
            Severity.WARNING,
            f"{count or 'no'} budget{'' if count else 's'} ha{'s' if count else 've'} {MIN_SIZES} "
            f"sizes or more with a {of}: there is no isoFLOP frontier.",
            remedy="Train several sizes at each of several budgets.",
        )


def _edges(group: Group, found: Profiles, word: str) -> Iterator[Finding]:
    best = found.optimum()
    low, high = best == found.start, best == found.end - 1
    edge = low | high
    if not edge.any():
        return
    tilt = np.where(low, 1.0, np.where(high, -1.0, 0.0))
    lean = float(np.corrcoef(np.log(found.budgets), tilt)[0, 1]) if tilt.std() > 0 else 0.0
    sides = [
        f"{side.sum()} at the {name} size, where N_opt comes out too {wrong}"
        for side, name, wrong in ((low, "smallest", "large"), (high, "largest", "small"))
        if side.any()
    ]
    direction = (
        f"Together they make its exponent too {'high' if lean > 0 else 'low'}."
        if abs(lean) > 0.3
        else "Their pull on its exponent has no clear direction."
    )
    share = edge.mean()
    yield group.finding(
        "no-interior-minimum",
        Severity.SERIOUS if share >= 0.5 else Severity.WARNING,
        f"The best {word} of {edge.sum()} of {len(edge)} budgets lies at the end of the sizes "
        "tried, so the optimum may lie beyond.",
        where=f"budgets {shorts(found.budgets[edge])}",
        bias=f"{'; '.join(sides)}. {direction}",
        remedy="Train smaller sizes at the budgets whose minimum is at the smallest size, larger "
        "ones at the others, or leave these budgets out.",
        figures={"edges": int(edge.sum()), "budgets": len(edge), "lean": lean},
    )


def _quantised(group: Group, found: Profiles, word: str) -> Iterator[Finding]:
    best = np.unique(found.params[found.optimum()])
    if len(best) > 0.67 * len(found.budgets):
        return
    yield group.finding(
        "few-distinct-optima",
        Severity.WARNING,
        f"N_opt by the best {word} takes only {len(best)} distinct values at {len(found.budgets)} "
        "budgets.",
        where=f"sizes {shorts(best)}",
        bias="Neighbouring budgets repeat a rounding error: the interval of a log-log line through "
        "the grid optima is too narrow.",
        remedy="Fit the profiles (vertex of a parabola), add sizes between these, resample runs.",
        figures={"distinct": len(best), "budgets": len(found.budgets)},
    )


def _leverage(group: Group, found: Profiles, word: str) -> Iterator[Finding]:
    exponent = found.exponent()
    moved = {
        float(size): found.exponent_without(size)
        for size in np.unique(found.params[found.optimum()])
    }
    size = max(moved, key=lambda size: abs(moved[size] - exponent))
    if abs(moved[size] - exponent) < 0.05:
        return
    yield group.finding(
        "size-leverage",
        Severity.WARNING,
        f"Without the size N = {short(size)} the exponent of N_opt (grid, {word}) is "
        f"{moved[size]:.3f} instead of {exponent:.3f}.",
        where="without each size in turn: "
        + ", ".join(f"{short(size)}: {value:.3f}" for size, value in moved.items()),
        bias="One size decides the exponent.",
        remedy="Add sizes around it, and state the exponent with and without it.",
        figures={"size": size, "exponent": exponent, "without": moved[size]},
    )


def _noise(group: Group, found: Profiles) -> Iterator[Finding]:
    """What noise between runs does to the grid optimum."""
    known = np.isfinite(found.spread)
    if len(found.value) > NOISE_CELLS:
        return
    noise, source = 0.02, "no two runs of a size are there to measure it; 2 % is assumed"
    if known.any():
        free = found.runs[known] - 1
        noise = float(np.sqrt((free * found.spread[known] ** 2).sum() / free.sum()))
        source = f"measured on {int(known.sum())} cells with several runs"
    rng = np.random.default_rng(0)
    draws = np.log(found.value) + noise / np.sqrt(found.runs) * rng.standard_normal(
        (NOISE_DRAWS, len(found.value))
    )
    columns = [
        first + draws[:, first:end].argmin(axis=1)
        for first, end in zip(found.start, found.end, strict=True)
    ]
    best = np.stack(columns, axis=1)
    x = np.log(found.budgets) - np.log(found.budgets).mean()
    exponents = np.log(found.params[best]) @ x / (x @ x)
    low, high = np.quantile(exponents, [0.05, 0.95])
    if high - low < 0.05:
        return
    unsure = int(((best != found.optimum()).mean(axis=0) > 0.2).sum())
    yield group.finding(
        "noisy-optimum",
        Severity.WARNING,
        f"With a noise of {noise:.1%} between equal runs ({source}) the grid exponent of N_opt "
        f"lies anywhere in [{low:.2f}, {high:.2f}] (90 %).",
        where=f"at {unsure} of {len(found.budgets)} budgets another size wins in more than one "
        "draw of five",
        bias="None in the mean, but a log-log line through the grid optima does not know of it.",
        remedy="Fit the profiles rather than take their grid minimum; repeat the best runs.",
        figures={"noise": noise, "low": float(low), "high": float(high)},
    )


def _definition(group: Group, found: Profiles) -> Iterator[Finding]:
    """Grid minimum, local and whole parabola: three readings of one profile."""
    x = np.log(found.budgets)
    answers = {"grid": found.exponent()}
    used = {"grid": len(x)}
    for name, reach in (("local parabola", 2), ("whole parabola", None)):
        vertex = found.vertices(reach)
        inside = np.isfinite(vertex)
        if inside.sum() >= MIN_SIZES:
            answers[name] = slope(x[inside], vertex[inside])
            used[name] = int(inside.sum())
    apart = max(answers.values()) - min(answers.values())
    if apart < 0.03:
        return
    yield group.finding(
        "optimum-definition",
        Severity.WARNING,
        "The exponent of N_opt depends on how the minimum is read: "
        + ", ".join(
            f"{name} {value:.3f} ({used[name]} of {len(x)} budgets)"
            for name, value in answers.items()
        )
        + ".",
        bias="A parabola is tilted by an asymmetric profile, the grid by its spacing.",
        remedy="Report the methods side by side and let the hindcast choose.",
        figures={name.replace(" ", "_"): value for name, value in answers.items()},
    )


def _range(group: Group) -> Iterator[Finding]:
    """The log-quadratic surface on ever higher budgets: a law that holds would not move."""
    budget, loss = group.column("budget"), group.column("loss")
    use = np.isfinite(budget) & (loss > 0)
    levels = np.unique(budget[use])
    answers: dict[float, float] = {}
    for first in (levels[0], levels[len(levels) // 3], levels[len(levels) // 2]):
        rows = use & (budget >= first)
        exponent = _log_quadratic_exponent(group.params[rows], group.samples[rows], loss[rows])
        if np.isfinite(exponent):
            answers[float(first)] = exponent
    if len(answers) < 2 or max(answers.values()) - min(answers.values()) < 0.1:
        return
    yield group.finding(
        "range-dependence",
        Severity.WARNING,
        "The exponent of N_opt by a log-quadratic surface moves with the budgets used: "
        + ", ".join(f"{value:.2f} from {short(first)} on" for first, value in answers.items())
        + ".",
        bias="The low budgets do not follow the law of the high ones; extrapolation follows the "
        "range chosen.",
        remedy="Leave out early training, fit the high budgets, let the hindcast choose the range.",
        figures={f"from_{short(first)}": value for first, value in answers.items()},
    )


def _log_quadratic_exponent(
    params: NDArray[np.float64], samples: NDArray[np.float64], loss: NDArray[np.float64]
) -> float:
    """Exponent of N_opt of log L = quadratic in (log N, log D), minimised along log N + log D."""
    n, d = np.log(params), np.log(samples)
    n, d = n - n.mean(), d - d.mean()
    design = np.stack([np.ones_like(n), n, d, n * n, n * d, d * d], axis=1)
    found, _, rank, _ = np.linalg.lstsq(design, np.log(loss), rcond=None)
    curvature = found[3] - found[4] + found[5]
    if rank < design.shape[1] or len(n) < 2 * design.shape[1] or curvature <= 0:
        return float("nan")
    return float((2 * found[5] - found[4]) / (2 * curvature))


def _floor(group: Group, found: Profiles) -> Iterator[Finding]:
    """A straight line in log-log, put to the test on the highest budgets."""
    x, y = np.log(found.budgets), np.log(found.value[found.optimum()])
    early = x <= x[-1] - np.log(10)
    if early.sum() < 4:
        return
    line = slope(x[early], y[early])
    ahead = y[early].mean() + line * (x[-1] - x[early].mean())
    miss = float(np.exp(ahead - y[-1]) - 1)
    scatter = float(np.std(y[early] - y[early].mean() - line * (x[early] - x[early].mean())))
    if miss > -0.05 or ahead - y[-1] > -2 * scatter:
        return
    yield group.finding(
        "loss-floor",
        Severity.WARNING,
        f"A power law through the best losses up to C = {short(found.budgets[early][-1])} "
        f"forecasts {np.exp(ahead):.4f} at {short(found.budgets[-1])}, where {np.exp(y[-1]):.4f} "
        f"was seen ({miss:+.0%}).",
        bias="A pure power law forecasts losses that are too low.",
        remedy="Use a law with a floor, L = E + a C^-g.",
        figures={"miss": miss, "forecast": float(np.exp(ahead)), "seen": float(np.exp(y[-1]))},
    )
