"""Is a floor of the loss found, and what do intervals cover that take the choice for certain?

Simulated ladders of single runs under laws with a floor and without: how often the isoFLOP fit and
the envelope take a floor into the law of the loss, the error at ten times the largest budget, and
the coverage of bootstrap intervals there; and how far the envelope's loss is from the truth inside
the log, since the lowest of noisy curves is too low.

Usage: python benchmarks/value_law.py [--logs 30] [--replicates 200] [--out benchmarks/results]
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from forecast_coverage import markdown

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs

BUDGETS = np.geomspace(1e10, 3e12, 8)
SIZES = np.geomspace(2e3, 6e5, 14)
AHEAD = 10 * BUDGETS[-1]
LAWS = {
    "floor .45": AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0, beta=0.38),
    "floor .45, other exponents": AdditiveSurface(E=0.45, A=40.0, alpha=0.40, B=120.0, beta=0.32),
    "no floor": AdditiveSurface(E=0.0, A=18.0, alpha=0.33, B=260.0, beta=0.38),
}
NOISE = {"single runs, 2 %": (False, 0.02), "long runs, 1.5 %": (True, 0.015)}


def chosen(logs: int, replicates: int) -> pd.DataFrame:
    """Floors taken, errors and coverage of the isoFLOP fit, by law, design and value_law."""
    rows = []
    for law_name, law in LAWS.items():
        truth = float(np.log(law.value_opt(AHEAD)))
        for design, (snapshots, noise) in NOISE.items():
            for form in ("auto", "floor"):
                floors, error, held = 0, [], []
                for seed in range(logs):
                    runs = simulate_runs(
                        law, SIZES, BUDGETS, snapshots=snapshots, sizes_per_budget=6,
                        run_noise=noise, checkpoint_noise=0.005 * snapshots, rng=seed,
                    )  # fmt: skip
                    made = sa.bootstrap(
                        runs, lambda r, form=form: sa.fit_isoflop(r, value_law=form),
                        n_resamples=replicates, rng=seed,
                    )  # fmt: skip
                    floors += made.fit.laws.value_form == "floor"
                    error.append(float(np.log(made.fit.value_opt(AHEAD))) - truth)
                    low, high = np.log(made.interval("value_opt", AHEAD))
                    held.append(bool(low <= truth <= high))
                rows.append(
                    {
                        "law": law_name,
                        "design": design,
                        "value_law": form,
                        "floors taken": f"{floors} of {logs}",
                        "mean error": float(np.mean(error)),
                        "root mean square": float(np.sqrt(np.mean(np.square(error)))),
                        "coverage": float(np.mean(held)),
                    }
                )
    return pd.DataFrame(rows)


def lowest(logs: int) -> pd.DataFrame:
    """Mean log error of the envelope's and of the isoFLOP fit's loss in the middle of the log."""
    rows, law = [], LAWS["floor .45"]
    middle = float(np.exp(np.log(BUDGETS).mean()))
    truth = float(np.log(law.value_opt(middle)))
    for noise in (0.01, 0.03):
        errors: dict[str, list[float]] = {"envelope": [], "isoFLOP": []}
        refused = dict.fromkeys(errors, 0)
        for seed in range(logs):
            runs = simulate_runs(law, SIZES, BUDGETS, run_noise=noise, rng=seed)
            for name, fit in (("envelope", sa.fit_envelope), ("isoFLOP", sa.fit_isoflop)):
                try:
                    errors[name].append(float(np.log(fit(runs).value_opt(middle))) - truth)
                except sa.FitError:  # noisy curves may leave no size between others
                    refused[name] += 1
        means = {name: float(np.mean(found)) for name, found in errors.items()}
        none = {f"{name} refused": f"{count} of {logs}" for name, count in refused.items()}
        rows.append({"noise of a run": noise} | means | none)
    return pd.DataFrame(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=30)
    parser.add_argument("--replicates", type=int, default=200)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    command = f"--logs {options.logs} --replicates {options.replicates}"
    text = ["# A floor or none, and the lowest of noisy curves", ""]
    text += [f"`python benchmarks/value_law.py {command}`. Errors in logs.", ""]
    text += ["## The loss at ten times the largest budget, nominal 90 %", ""]
    text += markdown(chosen(options.logs, options.replicates))
    text += ["## The loss at the optimum in the middle of the log, mean error", ""]
    text += markdown(lowest(options.logs))
    print("\n".join(text))
    if options.out:
        (options.out / "value_law.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
