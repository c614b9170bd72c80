"""Coverage for a new task of two estimates of the spread of exponents between tasks.

Exponents of T tasks are drawn from N(0, tau^2) and seen with standard errors of .6 to 1.6 (a slope
each, as least squares of a task gives); a new task's exponent is forecast at nominal 90 % by
Student's t(T - 1) from its posterior, with no point of its own or an estimate of standard error
1.5. "REML" maximises the restricted likelihood over tau, "penalised" adds log tau to it (Chung et
al. 2013), as `fit_pooled` does. Both on a grid of tau.

Usage: python benchmarks/pooled_spread.py [--sets 4000] [--out benchmarks/results]
"""

import argparse
import platform
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

LEVEL, OWN, WITHIN_FREEDOM = 0.9, 1.5, 200.0
GRID = np.concatenate([[0.0], np.geomspace(0.02, 60, 120)])
WAYS = ("REML", "penalised")


def coverage(tasks: int, tau: float, own: float, sets: int) -> dict[str, tuple[float, float]]:
    """Coverage and median width of the interval by each way; `own` infinite without points."""
    rng = np.random.default_rng([tasks, int(10 * tau), int(np.isfinite(own))])
    se = rng.uniform(0.6, 1.6, (sets, tasks))
    seen = rng.standard_normal((sets, tasks)) * np.hypot(tau, se)
    weight = 1 / (GRID[:, None, None] ** 2 + se**2)
    total = weight.sum(axis=-1)
    mean = (weight * seen).sum(axis=-1) / total
    log_likelihood = 0.5 * (np.log(weight).sum(axis=-1) - np.log(total))
    log_likelihood -= 0.5 * (weight * (seen - mean[..., None]) ** 2).sum(axis=-1)
    truth = rng.normal(0.0, tau, sets)
    estimate = truth + (rng.standard_normal(sets) * own if np.isfinite(own) else 0.0)
    found, each = {}, np.arange(sets)
    for way in WAYS:
        penalty = np.log(np.maximum(GRID, 1e-9)) if way == "penalised" else 0 * GRID
        at = (log_likelihood + penalty[:, None]).argmax(axis=0)
        prior = GRID[at] ** 2 + 1 / total[at, each]
        share = prior / (prior + own**2) if np.isfinite(own) else np.zeros(sets)
        centre = mean[at, each] + share * (estimate - mean[at, each])
        between, within = (1 - share) ** 2 * prior, share**2 * min(own, 1e9) ** 2
        split = between**2 / (tasks - 1) + within**2 / WITHIN_FREEDOM
        half = stdtrit((between + within) ** 2 / split, 0.5 + LEVEL / 2)
        half = half * np.sqrt(between + within)
        found[way] = float((np.abs(truth - centre) < half).mean()), float(np.median(2 * half))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=4000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    lines = [
        "# Coverage for the exponent of a new task, nominal 90 %",
        "",
        f"`python benchmarks/pooled_spread.py --sets {options.sets}`, {platform.machine()}. "
        f"{options.sets} simulated sets of tasks a row; tau and widths in units of the typical "
        "standard error of a task's exponent.",
        "",
        "| tasks | tau | own points | REML covers | width | penalised covers | width |",
        "|---|---|---|---|---|---|---|",
    ]
    for tasks in (3, 4, 6, 8, 12, 20):
        for tau in (0.0, 0.5, 2.0):
            for own in (np.inf, OWN):
                made = coverage(tasks, tau, own, options.sets)
                cells = " | ".join(f"{share:.1%} | {width:.2f}" for share, width in made.values())
                some = "few" if np.isfinite(own) else "none"
                lines.append(f"| {tasks} | {tau:g} | {some} | {cells} |")
    text = "\n".join([*lines, ""])
    print(text)
    if options.out:
        (options.out / "pooled_spread.md").write_text(text)


if __name__ == "__main__":
    main()
