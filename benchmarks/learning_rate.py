"""The sweep behind the learning-rate rule: the best constant rate at several sizes and batches.

    python benchmarks/learning_rate.py DATA --files /tmp/rates [--out rates.csv] [--agent NAME]
        [--pair] [--seeds 0 1 2]

Trains each (size, batch) at rates a factor of two apart to a budget near the one it is optimal at,
keeps the run log, and prints losses (means over seeds) and the vertex of the parabola through the
three best in log rate. `training_backend.config` states the rules for rate and batch that were
read off it; `results/learning_rate.md` holds the measurement.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd

from scaling_analysis import load_runs
from training_backend.bench import open_bench
from training_backend.config import AVERAGING
from training_backend.jobs import Place
from training_backend.sweep import configure, run_sweep

LADDER = (
    # params, budget [FLOP], batch [samples]
    (4e3, 1e10, 256),
    (4e3, 1e10, 512),
    (8e3, 3e10, 256),
    (8e3, 3e10, 512),
    (16e3, 1e11, 256),
    (16e3, 1e11, 1024),
    (64e3, 1e12, 512),
    (64e3, 1e12, 1024),
    (200e3, 1e12, 1024),
    (200e3, 1e12, 2048),
)
PAIR = (
    (16e3, 5e10, 256),
    (64e3, 1e11, 512),
)
SCREENS = (
    (16e3, 3e11, 256),
    (64e3, 1e12, 512),
)
"""Cells at which families are compared with the LSTM; those that read screens spend up to ten times
as much on a sample."""
RATES = tuple(1e-3 * 2.0**k for k in range(7))
"""Learning rates to try: each size of the LSTM takes the four around its rule's, other families
the five from .002 to .032."""


def plan(agent: str, averaging: float, seeds: list[int], pair: bool) -> pd.DataFrame:
    rows = []
    compared = SCREENS if agent.startswith("screen") else PAIR
    whole = agent == "lstm" and not pair
    for params, budget, batch in LADDER if whole else compared:
        centre = 0.014 * (params / 16e3) ** -0.2
        near = sorted(RATES, key=lambda rate: abs(np.log(rate / centre)))[:4]
        near = near if whole else RATES[1:6]
        rows += [
            {
                "run_id": f"{agent}-{params:.0f}-{batch}-{rate:g}-a{averaging:g}-s{seed}",
                "agent": agent,
                "task": "nethack",
                "params": params,
                "budget": budget,
                "snapshots": f"{budget / 10:g};{budget / 3:g};{budget:g}",
                "seed": seed,
                "learning_rate": rate,
                "batch_size": float(batch),
                "protocol": "",
            }
            for rate in sorted(near)
            for seed in seeds
        ]
    return pd.DataFrame(rows)


def vertex(rates: np.ndarray, losses: np.ndarray) -> float:
    """Rate of least loss by a parabola in log rate through the best and its neighbours."""
    best = int(np.argmin(losses))
    if best in (0, len(rates) - 1):
        return float(rates[best])  # on the edge of the grid: no better than known
    three = slice(best - 1, best + 2)
    a, b, _ = np.polyfit(np.log(rates[three]), losses[three], 2)
    return float(np.exp(-b / (2 * a)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--out", type=Path, default=Path("learning_rate.csv"), help="run log")
    parser.add_argument("--agent", default="lstm", help="family of the agents")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--averaging", type=float, default=AVERAGING)
    parser.add_argument("--pair", action="store_true", help="the cells of the other families")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--files", type=Path, required=True, help="folder for checkpoints")
    options = parser.parse_args()
    bench = open_bench("nethack", options.data)
    planned = plan(options.agent, options.averaging, options.seeds, options.pair)
    configs = configure(planned, bench, averaging=options.averaging)
    place = Place(log=options.out, runs=options.files)
    print(run_sweep(configs, bench, place, workers=options.workers).summary())
    runs = load_runs(options.out)
    print("params   batch    budget     best rate    loss   losses by rate")
    for (params, batch, budget), cell in runs.groupby(["params", "batch_size", "budget"]):
        mean = cell.groupby("learning_rate")["loss"].mean()
        rates, losses = mean.index.to_numpy(), mean.to_numpy()
        by_rate = " ".join(f"{r:g}:{v:.4f}" for r, v in zip(rates, losses, strict=True))
        print(
            f"{params:7.0f} {batch:6.0f} {budget:9.3g} {vertex(rates, losses):12.3g}"
            f" {losses.min():8.4f}   {by_rate}"
        )


if __name__ == "__main__":
    main()
