"""Could the methods of a forecast be weighed better: equally, more sharply, by stacking, or not?

The same hindcasts are averaged again under other rules, and widened again by what each rule's
average erred at earlier origins: of the loss at the optimum of simulated ladders beyond their last
budget (the worlds of `forecast_coverage.py`), and at the hindcast's own origins, on the logs of
`widening_rules.py` and the studies in `reports/`, on the forecasts that every method could make.

Rules: the present one, expected squared errors to the power -2; the same to the powers -1 and -4;
equal weights; the best alone; equal weights of those within twice the least expected squared
error; stacking (least squares on the simplex, one origin's worth of a prior at equal weights); and
each method alone.

Usage: python benchmarks/weighing_rules.py [--logs 6] [--replicates 40] [--out benchmarks/results]
"""

import argparse
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from forecast_coverage import AHEAD, BUDGETS, WORLDS, markdown, simulate
from numpy.typing import NDArray
from widening_rules import LEVEL, public_logs

import scaling_analysis as sa
from scaling_analysis.forecasting.combination import (
    cell_weights,
    combine,
    fit_widening,
    interval_score,
    method_weights,
)
from scaling_analysis.forecasting.scores import PRIOR_SCALE, Record, weighed_by

Array = NDArray[np.float64]
METHODS = ("isoflop-vertex", "parametric-additive", "parametric-tied")
Rule = Callable[[Array, Array, Array, float, Array, float], Array]
"""errors, horizon, origin of past cells; horizon, spreads, prior of the target -> weights."""


def present(power: float) -> Rule:
    """The present rule, whose weights go as the power -2, to another power."""

    def weights(*known) -> Array:
        w = method_weights(*known) ** (power / 2)
        return w / w.sum(axis=0)

    return weights


def best(*known) -> Array:
    w = method_weights(*known)
    return (w == w.max(axis=0)).astype(float)


def undominated(*known) -> Array:
    w = method_weights(*known)
    kept = (w >= w.max(axis=0) / 4).astype(float)  # weights go as the square of squared errors
    return kept / kept.sum(axis=0)


def equal(*known) -> Array:
    kept = np.isfinite(known[4]).astype(float)
    return kept / kept.sum(axis=0)


def stacked(errors: Array, horizon: Array, origin: Array, target: float, *rest) -> Array:
    """Simplex weights of least squared past error plus one origin's worth of |w - 1/K|^2."""
    known = np.isfinite(errors).any(axis=0)
    if not known.any():
        return equal(errors, horizon, origin, target, *rest)
    e = np.where(np.isfinite(errors), errors, np.nanmean(errors, axis=0))[:, known]
    gram = (e * cell_weights(horizon[known], origin[known], target)) @ e.T
    size = np.exp(np.log(np.maximum(np.diag(gram), 1e-30)).mean())
    normal, right = gram + size * np.eye(len(e)), np.full(len(e), size / len(e))
    found, least = np.full(len(e), 1 / len(e)), np.inf
    for count in range(1, len(e) + 1):
        for chosen in combinations(range(len(e)), count):
            at = list(chosen)
            system = np.ones((count + 1, count + 1))
            system[:count, :count], system[-1, -1] = normal[np.ix_(at, at)], 0.0
            w = np.linalg.solve(system, np.append(right[at], 1.0))[:count]
            value = w @ normal[np.ix_(at, at)] @ w - 2 * right[at] @ w
            if (w >= 0).all() and value < least:
                found, least = np.zeros(len(e)), value
                found[at] = w
    return np.repeat(found[:, None], rest[0].shape[1], axis=1)


def alone(method: int) -> Rule:
    def weights(*known) -> Array:
        return np.repeat(np.eye(len(METHODS))[:, [method]], known[4].shape[1], axis=1)

    return weights


RULES: dict[str, Rule] = {
    "as it is": present(2),
    "power -1": present(1),
    "power -4": present(4),
    "equal": equal,
    "best": best,
    "undominated": undominated,
    "stacked": stacked,
    **{f"{name} alone": alone(i) for i, name in enumerate(METHODS)},
}


def replay(cells: pd.DataFrame, quantity: str, rule: Rule) -> tuple[Record, Array, Array, Record]:
    """The record of a quantity, its average at every cell and base, and what weighs it."""
    scored = Record.of(cells, weighed_by(quantity, cells), METHODS)
    record = Record.of(cells, quantity, METHODS)
    origin, budget, trend = (
        record.cells[name].to_numpy(np.float64) for name in ("origin", "budget", "trend")
    )
    mean, base = np.full(len(origin), np.nan), np.full(len(origin), np.nan)
    prior = fit_widening([], [], [], [], [], PRIOR_SCALE[quantity])
    for cut, ahead in {*zip(origin, budget, strict=True)}:
        at = (origin == cut) & (budget == ahead)
        known, horizon = scored.until(cut), float(np.log(ahead / cut))
        said = float(prior.law_sd(horizon, trend[at][0]))
        w = rule(known._errors(), *known._when(), horizon, record.base[:, at], said)
        mean[at], base[at] = combine(record.predicted[:, at], record.base[:, at], w)
    return record, mean, base, scored


def widened(record: Record, mean: Array, base: Array, quantity: str):
    """Law error of an average."""
    se = record.cells["observed_se"].fillna(0.0).to_numpy(np.float64)
    error = record.cells["observed"].to_numpy(np.float64) - mean
    trend = record.cells["trend"].to_numpy(np.float64)
    spread = np.hypot(base, se)
    return fit_widening(error, spread, *record._when(), trend, PRIOR_SCALE[quantity])


def on_ladders(logs: int) -> pd.DataFrame:
    rows, flops = [], np.array(AHEAD)
    horizon = np.log(flops / BUDGETS[-1])
    for name, law in WORLDS.items():
        truth = np.log(law.value_opt(flops))
        found: dict[str, list[tuple[Array, Array]]] = {rule: [] for rule in RULES}
        for seed in range(logs):
            made = sa.forecast(
                simulate(law, seed), AHEAD, n_resamples=60, hindcast_resamples=40, rng=seed
            ).ensemble
            if made.hindcast is None:
                raise ValueError("no hindcast")
            points = [made.point("loss_opt", flops, None, method) for method in METHODS]
            point, spread = (np.array(part) for part in zip(*points, strict=True))
            for label, rule in RULES.items():
                record, past, base, scored = replay(made.hindcast.cells, "loss_opt", rule)
                law_error = widened(record, past, base, "loss_opt")
                centre, half = np.empty(len(flops)), np.empty(len(flops))
                for i, h in enumerate(horizon):
                    known = scored._errors(), *scored._when(), float(h), spread[:, [i]], 0.0
                    c, b = combine(point[:, [i]], spread[:, [i]], rule(*known))
                    sd = law_error.sd(b, h, made.trend("loss_opt"))
                    centre[i], half[i] = c[0], law_error.quantile(LEVEL) * sd[0]
                found[label].append((centre, half))
        for label, pairs in found.items():
            centre, half = (np.array(part) for part in zip(*pairs, strict=True))
            for i, c in enumerate(AHEAD):
                row = {"law": name, "times C_max": c / BUDGETS[-1], "rule": label}
                rows.append(row | scores(truth[i] - centre[:, i], half[:, i]))
    return pd.DataFrame(rows)


def on_origins(logs: dict[str, pd.DataFrame], replicates: int) -> pd.DataFrame:
    rows = []
    for log, runs in logs.items():
        cells = sa.hindcast(runs, METHODS, n_resamples=replicates, rng=0).cells
        for quantity in ("loss_opt", "loss"):
            common = np.isfinite(Record.of(cells, quantity, METHODS).predicted).all(axis=0)
            if not common.any():
                continue
            for label, rule in RULES.items():
                record, mean, base, _ = replay(cells, quantity, rule)
                origin, budget, trend, se = (
                    record.cells[name].fillna(0.0).to_numpy(np.float64)
                    for name in ("origin", "budget", "trend", "observed_se")
                )
                half = np.full(len(mean), np.nan)
                for cut in np.unique(origin):
                    known, at = budget <= cut, origin == cut
                    past = widened(record.until(cut), mean[known], base[known], quantity)
                    sd = past.sd(base[at], np.log(budget[at] / cut), trend[at])
                    half[at] = past.quantile(LEVEL) * np.hypot(sd, se[at])
                error = record.cells["observed"].to_numpy(np.float64) - mean
                row = {"log": log, "quantity": quantity, "rule": label, "forecasts": common.sum()}
                rows.append(row | scores(error[common], half[common]))
    return pd.DataFrame(rows)


def scores(error: Array, half: Array) -> dict[str, float]:
    return {
        "error": float(np.sqrt(np.mean(error**2))),
        "coverage": float(np.mean(np.abs(error) <= half)),
        "interval score": float(interval_score(error, -half, half, LEVEL).mean()),
    }


def means(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Geometric means of error and score over laws or logs, and the mean coverage."""
    logs = table.assign(**{name: np.log(table[name]) for name in ("error", "interval score")})
    found = logs.groupby([*by, "rule"], sort=False)[["error", "coverage", "interval score"]].mean()
    for name in ("error", "interval score"):
        found[name] = np.exp(found[name])
    return found.reset_index()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=6)
    parser.add_argument("--replicates", type=int, default=40)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    logs = {}
    if folder := os.environ.get("SCALING_REFERENCE_DATA"):
        logs = public_logs(Path(folder))
    for study in ("nethack_bc_decade", "autoascend_bc_decade"):
        logs[study] = sa.load_runs(Path(__file__).parents[1] / "reports" / study / "runs.csv")
    losses = {
        name: runs.drop(columns=["mean_return"], errors="ignore") for name, runs in logs.items()
    }
    own = on_origins(
        {name: of_one_agent(runs) for name, runs in losses.items()}, options.replicates
    )
    ladders = on_ladders(options.logs)
    command = (
        f"python benchmarks/weighing_rules.py --logs {options.logs} "
        f"--replicates {options.replicates}"
    )
    text = ["# Other rules for the weights of methods", "", f"`{command}`. 90 %, in logs.", ""]
    text += ["## All logs, origins of their own", "", *markdown(means(own, ["quantity"]))]
    text += ["## Simulated ladders, beyond", "", *markdown(means(ladders, ["times C_max"]))]
    text += ["## By log", "", *markdown(own), "## By law", "", *markdown(ladders)]
    print("\n".join(text))
    if options.out:
        (options.out / "weighing_rules.md").write_text("\n".join(text))


def of_one_agent(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs of the commonest agent: a study holds another recipe for comparison."""
    if "agent" not in runs or runs["agent"].nunique() < 2:
        return runs
    return runs[runs["agent"] == runs["agent"].mode()[0]]


if __name__ == "__main__":
    main()
