"""Time of 4000 isoFLOP refits of loss and return, against a loop over numpy.polyfit.

    SCALING_REFERENCE_DATA=folder python benchmarks/isoflop_refits.py --out benchmarks/results

The log is that of Tuyls et al. 2023 (152 rows, 14 budgets) where the folder of third-party run logs
is named, else a simulated one of the same shape.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface

LOOPED = 100


def load() -> tuple[str, pd.DataFrame]:
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if folder:
        runs = sa.load_runs(Path(folder) / "nethack_il" / "runs.csv")
        return "Tuyls et al. 2023", runs[runs["budget"].between(1e15, 5e18)]
    law = AdditiveSurface(E=0.1, A=40.0, alpha=0.35, B=300.0, beta=0.37)
    sizes, budgets = np.geomspace(2e5, 2e8, 15), np.geomspace(1e15, 5e18, 14)
    runs = sa.simulate_runs(
        law,
        sizes,
        budgets,
        sizes_per_budget=11,
        run_noise=0.02,
        link=lambda loss: 200 / loss**1.7,
    )
    return "simulated", runs


def seconds(work: Callable[[], object], repeats: int = 5) -> float:
    """Smallest CPU time of a few repeats."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def loop(rows: pd.DataFrame, target: str, weights: np.ndarray) -> None:
    """The same parabolas over whole profiles, one polyfit a slice and replicate."""
    x, y = np.log(rows["params"].to_numpy()), rows[target].to_numpy()
    slices = [np.flatnonzero(rows["budget"] == budget) for budget in rows["budget"].unique()]
    for w in weights:
        for at in slices:
            if np.unique(x[at][w[at] > 0]).size > 2:
                np.polyfit(x[at], y[at], 2, w=np.sqrt(w[at]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, runs = load()
    fits = {target: sa.fit_isoflop(runs, target) for target in ("loss", "mean_return")}
    weights = np.random.default_rng(0).integers(0, 3, (options.replicates, len(runs))).astype(float)
    few = weights[:LOOPED]
    ours = seconds(lambda: [fit.refit(weights=weights) for fit in fits.values()])
    looped = seconds(lambda: [loop(fit.rows, target, few) for target, fit in fits.items()], 2)
    looped *= options.replicates / len(few)
    text = (
        f"# {options.replicates} isoFLOP refits, loss and return together\n\n"
        f"`python benchmarks/isoflop_refits.py`, log: {name}, {len(runs)} rows; CPU seconds on one "
        "core\n\n"
        f"| | seconds |\n|---|---|\n| vectorised over replicates | {ours:.2f} |\n"
        f"| loop over numpy.polyfit ({len(few)} replicates, scaled) | {looped:.1f} |\n"
        f"| ratio | {looped / ours:.0f} |\n"
    )
    print(text)
    if options.out:
        (options.out / "isoflop_refits.md").write_text(text)


if __name__ == "__main__":
    main()
