"""Bootstrap refits of L = E + A/N^alpha + B/D^beta: ours against scipy, in one run, on one core.

    python benchmarks/parametric.py
    python benchmarks/parametric.py --full

The rows are the 240 Chinchilla points of the folder that SCALING_REFERENCE_DATA names, or 240
simulated ones with the same design where it is unset. scipy is `least_squares(loss="huber",
f_scale=1e-3, x_scale="jac")` with the analytic Jacobian of the centred logs, started from the
full-data optimum as ours is; without --full it refits the first 400 replicates and its time is
scaled to all of them, and 20 random starts are tried for the first 400 only.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import scipy
from scipy.optimize import least_squares

from scaling_analysis.laws.newton import huber, minimize_huber
from scaling_analysis.laws.seeds import additive_seeds
from scaling_analysis.laws.surfaces import additive

REPLICATES, SUBSAMPLE, STARTS, ROUNDS = 4000, 400, 20, 5
DELTA = 1e-3
OPTIMUM = 1.0182740178e-3
"""The global minimum on the Chinchilla points (432 starts agree)."""


def on_one_core() -> None:
    """Start again with one thread: numpy reads the variables when it loads its libraries."""
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    if not one.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **one})


def processor() -> str:
    """The name that Linux gives it, or nothing."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), "CPU")


def load() -> tuple[pd.DataFrame, str]:
    """The points as params, samples, loss, and what they are."""
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if folder:
        points = pd.read_csv(Path(folder) / "chinchilla_epoch" / "points.csv")
        points = points.sort_values("loss").iloc[:-5].sort_index()
        n, c = points["Model Size"].to_numpy(), points["Training FLOP"].to_numpy()
        frame = pd.DataFrame({"params": n, "samples": c / (6 * n), "loss": points["loss"]})
        return frame, "240 Chinchilla points"
    rng = np.random.default_rng(0)
    n, c = np.exp(rng.uniform(17.9, 23.5, 240)), np.exp(rng.uniform(41.8, 50.9, 240))
    law = 1.8172 + 477.8 / n**0.3473 + 2143.4 / (c / (6 * n)) ** 0.3672
    loss = law * np.exp(0.004 * rng.standard_t(3, 240))
    return pd.DataFrame({"params": n, "samples": c / (6 * n), "loss": loss}), "240 simulated points"


def timed(call: Callable[[], object]) -> float:
    """Median CPU time of a few rounds [s]."""
    times = []
    for _ in range(ROUNDS):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return float(np.median(times))


def fit_by_scipy(x: np.ndarray, y: np.ndarray, start: np.ndarray) -> np.ndarray:
    """(e, a, alpha, b, beta) of the law in log space, e = log E; x is (2, rows), centred."""

    def terms(theta: np.ndarray) -> np.ndarray:
        e, a, alpha, b, beta = theta
        return np.exp([np.full_like(y, e), a - alpha * x[0], b - beta * x[1]])

    def residuals(theta: np.ndarray) -> np.ndarray:
        return np.log(terms(theta).sum(axis=0)) - y

    def jacobian(theta: np.ndarray) -> np.ndarray:
        share = terms(theta)
        share /= share.sum(axis=0)
        return np.stack([share[0], share[1], -x[0] * share[1], share[2], -x[1] * share[2]], axis=1)

    return least_squares(
        residuals, start, jac=jacobian, loss="huber", f_scale=DELTA, x_scale="jac"
    ).x


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--full", action="store_true", help="all replicates for scipy and starts")
    count = REPLICATES if parser.parse_args().full else SUBSAMPLE
    frame, words = load()
    n, d, y = (np.log(frame[name].to_numpy()) for name in ("params", "samples", "loss"))
    law = additive([n, d])
    x = np.array([n - n.mean(), d - d.mean()])
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(y), (REPLICATES, len(y)))
    offset = len(y) * np.arange(REPLICATES)[:, None]
    weights = np.bincount((drawn + offset).ravel(), minlength=REPLICATES * len(y))
    weights = weights.reshape(REPLICATES, len(y)).astype(float)

    seed = additive_seeds([n, d], np.exp(y), np.ones(len(y)))[:, 0]
    full = minimize_huber(law, y, np.ones(len(y)), seed)
    start = full.theta[0]

    ours = minimize_huber(law, y, weights, start)
    warm = timed(lambda: minimize_huber(law, y, weights, start))
    seeding = timed(lambda: additive_seeds([n, d], np.exp(y), weights))
    seeds = additive_seeds([n, d], np.exp(y), weights)[:, 0]
    cold_end = minimize_huber(law, y, weights, seeds)
    cold = timed(lambda: minimize_huber(law, y, weights, seeds))

    log_start = np.concatenate([[np.log(start[0])], start[1:]])
    began = time.process_time()
    theirs = np.array([fit_by_scipy(x[:, i], y[i], log_start) for i in drawn[:count]])
    scipy_time = (time.process_time() - began) / count
    mu = np.log(
        np.exp(theirs[:, :1])
        + np.exp(theirs[:, 1:2] - theirs[:, 2:3] * x[0])
        + np.exp(theirs[:, 3:4] - theirs[:, 4:5] * x[1])
    )
    scipy_value = (weights[:count] * huber(y - mu, DELTA)).sum(axis=1)
    excess = ours.objective[:count] / scipy_value - 1

    best = ours.objective[:count].copy()
    for _ in range(STARTS):
        random = np.stack(
            [
                np.exp(rng.uniform(-1.0, np.log(np.exp(y).min()), count)),
                *(rng.uniform(*bounds, count) for bounds in ((-3, 1), (0.05, 1.5)) * 2),
            ],
            axis=1,
        )
        ends = minimize_huber(law, y, weights[:count], random)
        best = np.minimum(best, ends.objective)
    equal = int((ours.objective[:count] <= best * (1 + 1e-9)).sum())

    print(f"{words}; {REPLICATES} bootstrap replicates of rows")
    print(
        f"numpy {np.__version__}, scipy {scipy.__version__}; CPU time on one core of {processor()}"
    )
    print(f"objective of the full data            {full.objective[0]:.13e}")
    if "Chinchilla" in words:
        print(f"  relative to {OPTIMUM:.10e}       {full.objective[0] / OPTIMUM - 1:+.1e}")
    print(
        f"ours, warm                            {warm:8.3f} s   {warm / 4e-3:7.0f} us a replicate"
    )
    print(f"  evaluations a replicate             {ours.evaluations.mean():8.1f}")
    print(f"  converged                           {int(ours.converged.sum()):8d} of {REPLICATES}")
    print(f"seeds by variable projection          {seeding:8.3f} s   {seeding / 4e-3:7.1f} us")
    print(f"ours, from the seeds                  {cold:8.3f} s   {cold / 4e-3:7.0f} us")
    same = np.isclose(cold_end.objective, ours.objective, rtol=1e-9).sum()
    print(f"  same minimum as warm                {int(same):8d} of {REPLICATES}")
    note = "" if count == REPLICATES else f" (from {count})"
    print(
        f"scipy, warm                           {scipy_time * 4000:8.3f} s   "
        f"{scipy_time * 1e6:7.0f} us{note}"
    )
    print(f"RATIO scipy / ours, warm              {scipy_time * REPLICATES / warm:8.1f}")
    print(
        f"RATIO scipy warm / ours from seeds    {scipy_time * REPLICATES / (cold + seeding):8.1f}"
    )
    print(f"worst excess of ours over scipy       {excess.max():+.1e} (relative)")
    print(
        f"replicates where scipy is worse by more than 1e-9   {int((excess < -1e-9).sum())}"
        f" of {count}"
    )
    print(f"equal to the best of {STARTS} random starts    {equal} of {count}")


if __name__ == "__main__":
    on_one_core()
    main()
