"""Hindcast of the return on the NetHack log of Tuyls et al. 2023: every route side by side.

Fitted to the budgets up to 1e17 FLOP, the budgets from 2e17 to 5e18 are forecast: directly by the
isoFLOP vertex, through the forecast loss and the link, by their average (the default), and by the
baselines. Errors are root mean squares of log returns; intervals are those that would have been
stated at 1e17, at 90 %, with the errors of earlier origins. Below it, the link alone: returns of
later budgets at losses below all seen, from the observed loss, by each form and by their average
("auto"); the same on the project's own log, with and without floor and ceiling.

The log of Tuyls et al. is not part of the project: SCALING_REFERENCE_DATA names the folder that
holds it.

Usage: python benchmarks/return_hindcast.py [--replicates 100] [--out benchmarks/results]
"""

import argparse
import os
from pathlib import Path

import numpy as np
import pandas as pd

import scaling_analysis as sa

ORIGIN = 1e17
FIRST = {"all budgets": 0.0, "budgets from 1e15": 1e15}
QUANTITY = {"mean_return": "runs near the optimum", "mean_return_opt": "optimum"}
FORMS = ("auto", "power", "inverse", "monotone", "tail")
OWN_ENDS = {"floor": 28.0, "ceiling": 2809.0}
"""Random moves and the expert of the project's own log, `data/nethack_bc` [points]."""


def score_routes(runs: pd.DataFrame, replicates: int) -> pd.DataFrame:
    """Error, coverage, width and interval score of every method at the origin."""
    found = sa.hindcast(runs, n_resamples=replicates, rng=0).to_frame(0.9)
    at = found[np.isclose(found["origin"], ORIGIN) & found["quantity"].isin(list(QUANTITY))]
    rows = []
    for (quantity, method), cells in at.groupby(["quantity", "method"], sort=False):
        width = np.log(cells["hi"] / cells["lo"])
        rows.append(
            {
                "forecast of": QUANTITY[str(quantity)],
                "method": method,
                "cells": len(cells),
                "error": float(np.sqrt((cells["error"] ** 2).mean())),
                "bias": float(cells["error"].mean()),
                "covers": float(cells["inside"].mean()),
                "width": float(width.median()),
                "interval score": float(cells["score"].mean()),
            }
        )
    return pd.DataFrame(rows).sort_values(["forecast of", "interval score"], ignore_index=True)


def score_links(runs: pd.DataFrame, **ends: float) -> pd.DataFrame:
    """Root mean square log error of each form, origin by origin, then over origins."""
    played = runs[runs["mean_return"].notna()]
    budgets = np.unique(played["budget"])
    forms = ("auto", "logistic") if ends else FORMS
    errors: dict[str, list[np.ndarray]] = {form: [] for form in forms}
    for origin in budgets[2:-1]:
        past, later = played[played["budget"] <= origin], played[played["budget"] > origin]
        later = later[later["loss"] < past["loss"].min()]
        for form in forms:
            said = sa.fit_return_link(past, form, **ends).predict(later["loss"])
            errors[form].append(np.log(later["mean_return"].to_numpy() / said))
    squares = {form: [np.mean(e**2) for e in found] for form, found in errors.items()}
    late = slice(len(budgets[2:-1]) // 2, None)
    return pd.DataFrame(
        {
            "form": forms,
            "origins": len(budgets[2:-1]),
            "error": [float(np.sqrt(np.mean(squares[form]))) for form in forms],
            "bias": [float(np.mean([e.mean() for e in errors[form]])) for form in forms],
            "later half of the origins": [
                float(np.sqrt(np.mean(squares[form][late]))) for form in forms
            ],
        }
    )


def markdown(table: pd.DataFrame) -> list[str]:
    def shown(value: object) -> str:
        return f"{value:.3f}" if isinstance(value, float) else str(value)

    lines = ["| " + " | ".join(table.columns) + " |", "|---" * len(table.columns) + "|"]
    lines += ["| " + " | ".join(map(shown, row)) + " |" for row in table.itertuples(index=False)]
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if not folder:
        raise SystemExit("SCALING_REFERENCE_DATA does not name the folder of the reference data")
    log = sa.load_runs(Path(folder) / "nethack_il" / "runs.csv")
    text = [
        "# Hindcast of the return on the NetHack log of Tuyls et al. 2023",
        "",
        f"`python benchmarks/return_hindcast.py --replicates {options.replicates}`. Fitted up to "
        "1e17 FLOP, forecast from 2e17 to 5e18; errors, biases and widths in logs, intervals at "
        "90 %.",
        "",
    ]
    for name, least in FIRST.items():
        runs = log[log["budget"] >= least]
        text += [f"## {name[0].upper()}{name[1:]}", ""]
        text += markdown(score_routes(runs, options.replicates))
        text += ["The link alone, at the observed losses of later budgets, all origins:", ""]
        text += markdown(score_links(runs))
    own = sa.load_runs(Path(__file__).parents[1] / "data" / "nethack_bc" / "runs.csv")
    text += ["## The project's own log, `data/nethack_bc`: the link alone", ""]
    text += markdown(score_links(own))
    text += ["With floor 28 (random moves) and ceiling 2,809 (the expert):", ""]
    text += markdown(score_links(own, **OWN_ENDS))
    print("\n".join(text))
    if options.out:
        (options.out / "return_hindcast.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
