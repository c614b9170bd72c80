"""How long a run log of a million rows takes to load, check and audit, against reading it alone.

    python benchmarks/run_log.py [--rows 1000000]

Times are CPU seconds of this process on one core; the ratio is to `pandas.read_csv`, which parses
the same file and checks nothing.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import scaling_analysis as sa
from scaling_analysis.runlog import content_hash

CHECKPOINTS = 50


def make_log(rows: int) -> pd.DataFrame:
    """Long runs of random sizes on L = 1.5 + 400 N^-.34 + 400 D^-.28, with returns."""
    rng = np.random.default_rng(0)
    runs = rows // CHECKPOINTS
    log = pd.DataFrame(
        {
            "run_id": np.repeat([f"run-{i:06d}" for i in range(runs)], CHECKPOINTS),
            "agent": "lstm",
            "task": "simulated",
            "seed": np.repeat(rng.integers(0, 5, runs), CHECKPOINTS),
            "params": np.repeat((10 ** rng.uniform(4, 9, runs)).round(), CHECKPOINTS),
            "samples": np.tile((10 ** np.linspace(5, 10, CHECKPOINTS)).round(), runs),
        }
    )
    log["flops"] = 6 * log.params * log.samples
    log["budget"] = 10 ** (np.round(4 * np.log10(log.flops)) / 4)
    log["loss"] = 1.5 + 400 / log.params**0.34 + 400 / log.samples**0.28
    log["loss"] *= np.exp(0.01 * rng.standard_normal(len(log)))
    log["loss_se"] = 0.002 * log.loss
    log["mean_return"] = 1000 * np.exp(-log.loss)
    log["return_se"] = 0.03 * log.mean_return
    return log.assign(episodes=200, protocol="simulated/1")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    rows = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        make_log(rows).to_csv(path, index=False)
        parsing, _ = timed(lambda: pd.read_csv(path))
        sa.audit(sa.load_runs(path))  # imports are not part of the comparison
        loading, runs = timed(lambda: sa.load_runs(path))
        auditing, report = timed(lambda: sa.audit(runs))
        hashing, _ = timed(lambda: content_hash(runs))
    print(f"{len(runs):,} rows, {len(report.findings)} findings")
    for name, seconds in (
        ("pandas.read_csv", parsing),
        ("load_runs", loading),
        ("audit", auditing),
        ("load_runs + audit", loading + auditing),
        ("content_hash", hashing),
    ):
        print(f"{name:20} {seconds:6.2f} s   {seconds / parsing:5.2f} x read_csv")


if __name__ == "__main__":
    main()
