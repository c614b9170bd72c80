"""Losses of known surfaces on a grid of sizes and samples."""

import numpy as np
import pandas as pd

SURFACES = {
    "symmetric": {"E": 1.5, "A": 400.0, "alpha": 0.33, "B": 400.0, "beta": 0.33},
    "Chinchilla": {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
    "asymmetric": {"E": 1.7, "A": 1000.0, "alpha": 0.465, "B": 40.0, "beta": 0.155},
}


def grid(sizes=6, lengths=6):
    n = np.tile(np.geomspace(1e6, 1e9, sizes), lengths)
    d = np.repeat(np.geomspace(1e8, 1e11, lengths), sizes)
    return n, d


def make_runs(loss, n, d, **columns):
    ids = [f"run{i}" for i in range(len(n))]
    frame = {"run_id": ids, "params": n, "samples": d, "flops": 6 * n * d, "loss": loss}
    return pd.DataFrame({**frame, **columns})


def additive(p, n, d):
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def noisy_runs(scale=0.01, seed=0, sizes=6, lengths=6, df=3):
    n, d = grid(sizes, lengths)
    noise = scale * np.random.default_rng(seed).standard_t(df, len(n))
    return make_runs(additive(SURFACES["Chinchilla"], n, d) * np.exp(noise), n, d)
