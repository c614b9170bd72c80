"""Coverage of intervals of the interquartile mean over tasks, by runs a task.

Scores of 26 simulated tasks: task means from a log-normal distribution as wide as that of
human-normalised Atari scores (median .3, a few tasks far above 1), runs of a task gamma distributed
with a coefficient of variation of its own, .1 to .8. The truth is the interquartile mean of 3,000
runs a task. "plain" is the percentile interval of the stratified bootstrap, "default" scales its
deviations by sqrt(k / (k - 1)), "t" is estimate +- Student's t times its standard deviation.

Usage: python benchmarks/aggregate_coverage.py [--sets 2000] [--out benchmarks/results]
"""

import argparse
import platform
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from numpy.typing import NDArray

import scaling_analysis as sa
from scaling_analysis.uncertainty import stratified

Array = NDArray[np.float64]

TASKS, LEVEL, RESAMPLES = 26, 0.95, 1000
RUNS = (1, 2, 3, 5, 10)
WAYS = ("plain", "default", "t")


def simulate(rng: np.random.Generator, runs: int, shape: Array, scale: Array) -> Array:
    """(tasks, runs) scores."""
    return rng.gamma(shape[:, None], scale[:, None], (TASKS, runs))


def coverage(runs: int, sets: int) -> dict[str, float]:
    """Share of the intervals that hold the truth, and their median width."""
    rng = np.random.default_rng([7, runs])
    inside, width = dict.fromkeys(WAYS, 0), {name: [] for name in WAYS}
    for _ in range(sets):
        mean = np.exp(rng.normal(np.log(0.3), 1.3, TASKS))
        variation = rng.uniform(0.1, 0.8, TASKS)
        shape, scale = variation**-2, mean * variation**2
        truth = stratified.interquartile_mean(simulate(rng, 3_000, shape, scale).ravel())
        scores = simulate(rng, runs, shape, scale)
        for name, (lo, hi) in intervals(scores, rng).items():
            inside[name] += int(lo < truth < hi)
            width[name].append(hi - lo)
    row = {f"{name} coverage": count / sets for name, count in inside.items()}
    return row | {f"{name} width": float(np.median(w)) for name, w in width.items()}


def intervals(scores: Array, rng: np.random.Generator) -> dict[str, tuple[float, float]]:
    """Interval by every way; with one run a task there is only the plain bootstrap, of no width."""
    runs = scores.shape[1]
    if runs == 1:
        value = float(stratified.interquartile_mean(scores.ravel()))
        return dict.fromkeys(WAYS, (value, value))
    options = {"level": LEVEL, "n_resamples": RESAMPLES, "rng": rng}
    made = {
        "plain": sa.aggregate_scores(scores, "iqm", corrected=False, **options),
        "default": sa.aggregate_scores(scores, "iqm", **options),
        "t": sa.aggregate_scores(scores, "iqm", interval="t", **options),
    }
    return {name: found.value("iqm")[1:] for name, found in made.items()}


def speed() -> str:
    """Seconds for 50,000 replicates of 6 tasks x 8 runs, the best of five."""
    scores = np.random.default_rng(0).gamma(1.0, 1.0, (6, 8))
    best = [np.inf, np.inf]
    for _ in range(5):
        wall, cpu = perf_counter(), process_time()
        sa.aggregate_scores(scores, "iqm", n_resamples=50_000)
        best = [min(best[0], perf_counter() - wall), min(best[1], process_time() - cpu)]
    return (
        f"50,000 replicates of 6 x 8 scores: {best[0]:.3f} s by the clock, {best[1]:.3f} s of CPU "
        "time (best of five; the clock counts whatever else the machine was doing)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", type=int, default=2000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = [(runs, coverage(runs, options.sets)) for runs in RUNS]
    error = np.sqrt(0.9 * 0.1 / options.sets)
    text = "\n".join(
        [
            "# Coverage of the interquartile mean over 26 tasks, nominal 95 %",
            "",
            f"`python benchmarks/aggregate_coverage.py --sets {options.sets}`, "
            f"{platform.machine()}. {options.sets} simulated score tables a row, standard error of "
            f"a coverage {error:.1%} or less. With one run a task nothing can be drawn: the plain "
            "interval has no width, and `aggregate_scores` refuses.",
            "",
            "| runs | " + " | ".join([f"{name} coverage | {name} width" for name in WAYS]) + " |",
            "|---" * (1 + 2 * len(WAYS)) + "|",
            *[
                f"| {runs} | "
                + " | ".join(
                    "refused | -"
                    if runs == 1 and name != "plain"
                    else f"{row[f'{name} coverage']:.1%} | {row[f'{name} width']:.3f}"
                    for name in WAYS
                )
                + " |"
                for runs, row in rows
            ],
            "",
            speed(),
            "",
        ]
    )
    print(text)
    if options.out:
        (options.out / "aggregate_coverage.md").write_text(text)


if __name__ == "__main__":
    main()
