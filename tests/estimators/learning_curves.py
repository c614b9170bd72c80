"""Learning curves of returns that follow a known law of intrinsic performance."""

import numpy as np
import pandas as pd

from scaling_analysis.laws.intrinsic import IntrinsicLaw

TRUTH = IntrinsicLaw(
    params_exponent=np.asarray(0.45),
    log_sample_exponent=np.log(0.5),
    log_params=np.log(1e6),
    flops_ref=1e14,
    cost_constant=6.0,
)
SIZES = np.geomspace(1e4, 1e8, 6)
SAMPLES = np.geomspace(2e5, 1e8, 24)
INSIDE = np.array([[1e12, 1e13], [1e14, 5e14]])


def simulated(noise=0.0, seeds=1, rng=0, **columns):
    """A log of learning curves on a grid of sizes and samples."""
    n, d, seed = (v.ravel() for v in np.meshgrid(SIZES, SAMPLES, np.arange(seeds), indexing="ij"))
    deviations = noise * np.random.default_rng(rng).standard_normal(len(n))
    return _log(n, d, seed, expected_return(n, d) + deviations).assign(**columns)


def played(params, samples, seed, rng):
    """Evaluations of some runs, a point of noise each; positive and below 103 points."""
    expected = expected_return(params, samples)
    noise = np.random.default_rng(rng).standard_normal(len(expected))
    return _log(params, samples, seed, (expected + noise).clip(0.1, 103.0))


def expected_return(params, samples):
    """Logistic in log I, from 0 to 100 points."""
    return 100 / (1 + np.exp(-0.7 * (TRUTH.log_intrinsic(params, samples) - np.log(1e13))))


def _log(params, samples, seed, returns):
    return pd.DataFrame(
        {
            "run_id": [f"{n:.0f}-{s}" for n, s in zip(params, seed, strict=True)],
            "params": params,
            "samples": samples,
            "flops": 6 * params * samples,
            "mean_return": returns,
            "protocol": "v1",
        }
    )
