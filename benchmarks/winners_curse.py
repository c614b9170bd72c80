"""The winner's curse of return-optimal isoFLOP: the highest of noisy returns against the vertex.

Simulated logs: the true return of the best size is R_opt = 40 (C / 1e14)^.3 points, log R is
quadratic in log N around it (curvature .04), sizes lie on a geometric grid over a factor of 1000,
and a row's return is the mean of heavy-tailed episodes (log-normal, sd 1.5 in logs) times a
log-normal run effect. Compared at every budget: the highest return over the sizes, and the vertex
of the parabola through the five or all sizes around it. Bias is the mean of log(R_found / R_opt).

Usage: python benchmarks/winners_curse.py [--logs 200] [--out benchmarks/results]
"""

import argparse
import platform
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

import scaling_analysis as sa

Array = NDArray[np.float64]

BUDGETS = np.geomspace(1e14, 1e17, 7)
EXPONENT, SIGMA, CURVATURE = 0.3, 1.5, 0.04
WAYS = {
    "highest": {"optimum": "grid"},
    "vertex of 5": {"optimum": "vertex", "window": 5},
    "vertex of all": {"optimum": "vertex", "window": None},
}


def simulate(rng: np.random.Generator, sizes: int, episodes: int, run_noise: float) -> pd.DataFrame:
    c, n = (a.ravel() for a in np.meshgrid(BUDGETS, np.geomspace(1, 1000, sizes)))
    best = 0.05 * c**0.45 / 30
    log_r = np.log(40) + EXPONENT * np.log(c / 1e14) - CURVATURE * np.log(n / 30) ** 2
    # The mean of log-normal episodes has expectation 1 times exp(log_r).
    draws = rng.lognormal(-(SIGMA**2) / 2, SIGMA, (len(c), episodes)).mean(axis=1)
    returns = np.exp(log_r + run_noise * rng.standard_normal(len(c)) - run_noise**2 / 2) * draws
    params = n * best
    columns = {"params": params, "samples": c / (6 * params), "flops": c, "budget": c}
    names = [f"r{i}" for i in range(len(c))]
    return pd.DataFrame(columns | {"mean_return": returns, "run_id": names, "status": "ok"})


def study(sizes: int, episodes: int, run_noise: float, logs: int) -> list[dict[str, float | str]]:
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name in WAYS}
    truth = np.log(40) + EXPONENT * np.log(BUDGETS / 1e14)
    for seed in range(logs):
        runs = simulate(np.random.default_rng([seed, sizes, episodes]), sizes, episodes, run_noise)
        for name, options in WAYS.items():
            space = "linear" if options["optimum"] == "grid" else "log"
            try:
                fit = sa.fit_isoflop(runs, "mean_return", space=space, value_law="power", **options)
            except sa.FitError:
                continue
            error = np.log(fit.slices.value) - truth
            log_n = np.log(fit.slices.params / (0.05 * BUDGETS**0.45))
            found[name].append(
                (
                    float(np.nanmean(error)),
                    float(np.nanmean(error**2)),
                    float(np.nanmean(log_n**2)),
                )
            )
    rows = []
    for name, each in found.items():
        bias, square, size = np.array(each).mean(axis=0)
        rows.append(
            {
                "sizes": sizes,
                "episodes": episodes,
                "run noise": run_noise,
                "reading": name,
                "bias of log R": bias,
                "error of log R": np.sqrt(square),
                "error of log N": np.sqrt(size),
                "logs": len(each),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows = []
    for sizes in (7, 15, 31):
        for episodes, run_noise in ((30, 0.1), (300, 0.1), (300, 0.0)):
            rows += study(sizes, episodes, run_noise, options.logs)
    names = list(rows[0])
    text = "\n".join(
        [
            "# Winner's curse in return-optimal isoFLOP",
            "",
            f"`python benchmarks/winners_curse.py --logs {options.logs}`, {platform.machine()}. "
            "Seven budgets, sizes over a factor of 1000, heavy-tailed episodes (sd of a log-normal "
            "1.5 in logs: 2.9 times its mean); errors are root mean squares over budgets and logs. "
            "`logs`: how many simulated logs gave three budgets with an optimum.",
            "",
            "| " + " | ".join(names) + " |",
            "|---" * len(names) + "|",
            *[
                "| "
                + " | ".join(
                    f"{row[n]:+.3f}"
                    if n.startswith("bias")
                    else f"{row[n]:.3f}"
                    if n.startswith("error")
                    else str(row[n])
                    for n in names
                )
                + " |"
                for row in rows
            ],
            "",
            "The highest of noisy returns is too high, by more the more sizes compete and the "
            "fewer episodes each has. A parabola through the sizes averages their noise; a narrow "
            "window around the highest keeps a part of the bias.",
            "",
        ]
    )
    print(text)
    if options.out:
        (options.out / "winners_curse.md").write_text(text)


if __name__ == "__main__":
    main()
