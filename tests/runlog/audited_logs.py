"""Simulated logs for the audit, sound but for what a test asks for, and what is found in a log."""

import math

import numpy as np
import pandas as pd

from scaling_analysis.runlog import load_runs
from scaling_analysis.runlog.audit import audit

ALPHA, BETA = 0.35, 0.45


def ladder(
    *, sizes=17, budgets=6, seeds=2, noise=0.002, floor=0.0, centre=1.0, span=4.0, drift=0.0
) -> pd.DataFrame:
    """Single runs on isoFLOP slices of L = floor + 30 N^-alpha + 60 D^-beta, returns beside it.

    `centre` times the best size is the middle of each slice, `span` octaves to either side; C is
    counted as 6 (N / 1e6)^drift N D instead of 6 N D.
    """
    rng = np.random.default_rng(7)
    exponent = BETA / (ALPHA + BETA)
    constant = (30 * ALPHA / (60 * BETA)) ** (1 / (ALPHA + BETA))
    rows = []
    for budget in 10 ** np.linspace(12, 17, budgets):
        best = constant * (budget / 6) ** exponent * centre
        for params in np.round(best * 2 ** np.linspace(-span, span, sizes)):
            samples = budget / (6 * (params / 1e6) ** drift * params)
            for seed in range(seeds):
                loss = floor + 30 * params**-ALPHA + 60 * samples**-BETA
                loss *= math.exp(noise * rng.standard_normal())
                rows.append(
                    {
                        "run_id": f"{budget:.0e}-{params:.0f}-{seed}",
                        "seed": seed,
                        "params": params,
                        "samples": samples,
                        "unique_samples": samples / 1.5,
                        "flops": budget,
                        "budget": budget,
                        "loss": loss,
                        "loss_se": 0.001 * loss,
                        "mean_return": 3000 * math.exp(-2 * loss),
                        "return_se": 60 * math.exp(-2 * loss),
                        "episodes": 200,
                        "protocol": "v1",
                    }
                )
    return pd.DataFrame(rows)


def curves(transient: bool, sizes=(1e4, 3e4, 1e5, 3e5)) -> pd.DataFrame:
    """Long runs; with a transient each starts on the plateau of an untrained network."""
    rows = []
    for params in sizes:
        for samples in 4.0 ** np.arange(6, 16):
            loss = 0.2 + 10 * params**-ALPHA + 200 * samples**-BETA
            if transient:
                loss = (loss**-8 + 2.0**-8) ** (-1 / 8)
            rows.append((f"{params:.0f}", params, samples, 6 * params * samples, loss))
    return pd.DataFrame(rows, columns=["run_id", "params", "samples", "flops", "loss"])


def found(runs, **more):
    return {finding.code: finding for finding in audit(load_runs(runs), **more).findings}
