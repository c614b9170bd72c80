"""Could the law error of a forecast be estimated in another way, and be smaller?

The widening of every interval is fitted again to the same hindcasts under other rules, and coverage
and width are counted again: of the loss at the optimum of simulated ladders beyond their last
budget (the worlds of `forecast_coverage.py`), and of the loss and the return at the hindcast's own
origins on the NetHack log of Tuyls et al. 2023 (budgets from 1e15 FLOP), where
SCALING_REFERENCE_DATA names the folder that holds it. Each origin knows only errors that were on
record by then.

Rules: the present one; its prior law error halved or doubled; each origin counting a fifth less
than the next; and one multiplier of all that is expected beforehand, by the mean squared
standardised error with a prior of four origins at 1.

Usage: python benchmarks/widening_rules.py [--logs 14] [--replicates 100] [--out benchmarks/results]
"""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from forecast_coverage import AHEAD, BUDGETS, WORLDS, markdown, simulate
from numpy.typing import NDArray

import scaling_analysis as sa
from scaling_analysis.forecasting.combination import GROWTH, PRIOR_ORIGINS, interval_score
from scaling_analysis.forecasting.ensemble import Ensemble
from scaling_analysis.forecasting.scores import COMBINED, prior_scale
from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]
LEVEL = 0.9


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to get from hindcast errors to the law error."""

    prior: float = 1.0
    """Factor of the law error expected beforehand."""
    age: float = 1.0
    """An origin counts so much of the next one."""
    multiplier: float = 0.0
    """Origins of the prior of one multiplier for all; 0: the law error is fitted."""


RULES = {
    "as it is": Rule(),
    "half the prior": Rule(prior=0.5),
    "twice the prior": Rule(prior=2.0),
    "late origins count more": Rule(age=0.8),
    "one multiplier": Rule(multiplier=4.0),
}


def law_error(cells: pd.DataFrame, prior: float, rule: Rule) -> tuple[float, float, float]:
    """Scale of the law error, multiplier of everything, degrees of freedom."""
    cells = cells[cells["predicted"].notna()]
    origin, index, count = np.unique(cells["origin"], return_inverse=True, return_counts=True)
    weight = rule.age ** np.arange(len(origin))[::-1]
    effective = weight.sum() ** 2 / (weight**2).sum() if len(origin) else 0.0
    weight = (weight * effective / weight.sum() / count)[index] if len(origin) else np.empty(0)
    error = (cells["observed"] - cells["predicted"]).to_numpy(np.float64)
    known = cells["base"].to_numpy(np.float64) ** 2 + cells["observed_se"].fillna(0) ** 2
    step = cells["trend"].to_numpy() * np.log(cells["budget"] / cells["origin"]) ** GROWTH
    freedom = PRIOR_ORIGINS + effective
    if rule.multiplier:
        ratio = weight @ (error**2 / (known + (prior * step) ** 2).to_numpy())
        all_of_it = (rule.multiplier + ratio) / (rule.multiplier + weight.sum())
        return prior, float(np.sqrt(all_of_it)), freedom
    scales = rule.prior * prior * np.geomspace(0.02, 100.0, 600)
    expected = PRIOR_ORIGINS * (np.log(scales) + 0.5 * (rule.prior * prior / scales) ** 2)
    variance = known.to_numpy() + np.square(scales[:, None] * step.to_numpy())
    likelihood = -0.5 * (np.log(variance) + error**2 / variance) @ weight
    return float(scales[np.argmax(likelihood - expected)]), 1.0, freedom


def ahead(ensemble: Ensemble, rule: Rule) -> tuple[Array, Array]:
    """Log of the loss at the optimum of `AHEAD`, and half its interval."""
    past, horizon = ensemble.hindcast, np.log(np.array(AHEAD) / BUDGETS[-1])
    if past is None:
        raise ValueError("no hindcast")
    said, trend = ensemble.predict("loss_opt", AHEAD), ensemble.trend("loss_opt")
    now = ensemble.widening("loss_opt", COMBINED)
    base = said.sd**2 - now.law_sd(horizon, trend) ** 2
    own = past.cells.query(f"quantity == 'loss_opt' and method == '{COMBINED}'")
    scale, factor, freedom = law_error(own, prior_scale("loss_opt", COMBINED, True), rule)
    sd = factor * np.sqrt(base + (scale * trend * horizon**GROWTH) ** 2)
    return said.log, student_quantile(LEVEL, freedom) * sd


def on_ladders(ensembles: dict[str, list[Ensemble]]) -> pd.DataFrame:
    """Coverage and half-width of the loss beyond simulated ladders."""
    rows = []
    for name, made in ensembles.items():
        truth = np.log(WORLDS[name].value_opt(np.array(AHEAD)))
        for label, rule in RULES.items():
            point, half = np.array([ahead(ensemble, rule) for ensemble in made]).swapaxes(0, 1)
            for i, c in enumerate(AHEAD):
                rows.append(
                    {
                        "law": name,
                        "times C_max": c / BUDGETS[-1],
                        "rule": label,
                        "logs": len(made),
                        "coverage": float(np.mean(np.abs(point - truth)[:, i] < half[:, i])),
                        "half width": float(np.median(half[:, i])),
                    }
                )
    return pd.DataFrame(rows)


def on_origins(cells: pd.DataFrame) -> pd.DataFrame:
    """Coverage, width and interval score of the average at the origins of a hindcast, in logs."""
    rows = []
    for quantity in ("loss_opt", "loss", "mean_return_opt", "mean_return"):
        own = cells[(cells["quantity"] == quantity) & (cells["method"] == COMBINED)]
        own = own[own["predicted"].notna()]
        prior = prior_scale(quantity, COMBINED, True)
        for label, rule in RULES.items():
            half = np.empty(len(own))
            for cut in own["origin"].unique():
                at = (own["origin"] == cut).to_numpy()
                scale, factor, freedom = law_error(own[own["budget"] <= cut], prior, rule)
                step = own["trend"][at] * np.log(own["budget"][at] / cut) ** GROWTH
                variance = own["base"][at] ** 2 + (scale * step) ** 2
                sd = np.sqrt(factor**2 * variance + own["observed_se"][at].fillna(0) ** 2)
                half[at] = student_quantile(LEVEL, freedom) * sd
            y, centre = own["observed"].to_numpy(), own["predicted"].to_numpy()
            score = interval_score(y, centre - half, centre + half, LEVEL)
            rows.append(
                {
                    "quantity": quantity,
                    "rule": label,
                    "forecasts": len(own),
                    "coverage": float(np.mean(np.abs(y - centre) <= half)),
                    "width": float(np.median(2 * half)),
                    "interval score": float(score.mean()),
                }
            )
    return pd.DataFrame(rows)


def report(ladders: pd.DataFrame, origins: pd.DataFrame | None, command: str) -> str:
    text = ["# Other rules for the law error", "", f"`{command}`. 90 %, in logs.", ""]
    text += ["## Loss beyond simulated ladders", "", *markdown(ladders)]
    if origins is not None:
        text += ["## NetHack log of Tuyls et al. 2023, all origins", "", *markdown(origins)]
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=14)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    ensembles = {
        name: [
            sa.forecast(
                simulate(law, seed), AHEAD, n_resamples=200, hindcast_resamples=60, rng=seed
            ).ensemble
            for seed in range(options.logs)
        ]
        for name, law in WORLDS.items()
    }
    origins = None
    if folder := os.environ.get("SCALING_REFERENCE_DATA"):
        log = sa.load_runs(Path(folder) / "nethack_il" / "runs.csv")
        past = sa.hindcast(log[log["budget"] >= 1e15], n_resamples=options.replicates, rng=0)
        origins = on_origins(past.cells)
    command = (
        f"python benchmarks/widening_rules.py --logs {options.logs} "
        f"--replicates {options.replicates}"
    )
    text = report(on_ladders(ensembles), origins, command)
    print(text)
    if options.out:
        (options.out / "widening_rules.md").write_text(text)


if __name__ == "__main__":
    main()
