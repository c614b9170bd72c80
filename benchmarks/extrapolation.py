"""Forecasts beyond the data: the average of forms against each form alone.

    SCALING_REFERENCE_DATA=... python benchmarks/extrapolation.py [--curves 600] [--surfaces 80]

prints, and writes to benchmarks/results/extrapolation.md, on public curves and surfaces (where the
variable names a folder with extrapolation/<set>/{cases.csv, meta.json}) and on simulated families:
error (root mean square of log y, or of y over its standard deviation), the share of new
observations inside the 90 % interval, and the median interval score.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from simulated_extrapolations import Case, simulate_curves, simulate_surfaces

import scaling_analysis as sa

RESULTS = Path(__file__).parent / "results" / "extrapolation.md"
CURVES = ("auto", "persistence", "power", "tail_line", "power_floor", "broken", "sigmoid", "m4")
SURFACES = ("auto", "log_linear", "log_quadratic", "additive", "tied", "kaplan")
TINY = 1e-12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=600, help="simulated curves")
    parser.add_argument("--surfaces", type=int, default=80, help="simulated surfaces")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cases = [*public_cases(), *simulate_curves(options.curves, rng)]
    cases += simulate_surfaces(options.surfaces, rng)
    scores = pd.DataFrame([score(case, form) for case in cases for form in forms(case)])
    command = (
        f"python benchmarks/extrapolation.py --curves {options.curves} "
        f"--surfaces {options.surfaces} --seed {options.seed}"
    )
    text = f"# Forecasts beyond the data\n\n`{command}`\n\n{render(scores)}"
    print(text)
    RESULTS.write_text(text)


def public_cases() -> Iterator[Case]:
    """The cases of third-party sets; bounded quantities as their distance from the bound."""
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if not folder:
        print("SCALING_REFERENCE_DATA names no folder: simulated families only")
        return
    for path in sorted(Path(folder).glob("extrapolation/*/meta.json")):
        meta = json.loads(path.read_text())
        for name, rows in pd.read_csv(path.parent / meta["file"]).groupby("case", sort=False):
            y = rows["y"].to_numpy(dtype=float)
            if "y_max" in meta:
                y = meta["y_max"] - y
            inputs = rows[meta["inputs"]].to_numpy(dtype=float)
            old = (rows["split"] == "train").to_numpy()
            group = f" {str(name).split('|')[0]}" if "group" in meta else ""
            yield Case(
                family=meta["name"] + group,
                inputs=inputs[old].squeeze(axis=1) if inputs.shape[1] == 1 else inputs[old],
                y=y[old],
                new_inputs=inputs[~old].squeeze(axis=1) if inputs.shape[1] == 1 else inputs[~old],
                new_y=y[~old],
                new_truth=np.full((~old).sum(), np.nan),
                direction="decreasing",
                log=meta["scale"] == "log",
            )


def forms(case: Case) -> tuple[str, ...]:
    return CURVES if case.inputs.ndim == 1 else SURFACES


def score(case: Case, form: str) -> dict[str, object]:
    """Error, coverage, interval score and time of one form on one case; NaN where it refuses."""
    fit = sa.fit_curve if case.inputs.ndim == 1 else sa.fit_surface
    row: dict[str, object] = {"set": case.family, "form": form}
    start = time.process_time()
    try:
        fitted = fit(case.inputs, case.y, direction=case.direction, form=form)
        table = fitted.predict(case.new_inputs)
    except sa.FitError:
        return row
    row["seconds"] = time.process_time() - start
    value, lo, hi = (scale(case, table[name].to_numpy()) for name in ("value", "run_lo", "run_hi"))
    law_lo, law_hi = (scale(case, table[name].to_numpy()) for name in ("lo", "hi"))
    new, truth = scale(case, case.new_y), scale(case, case.new_truth)
    outside = np.maximum(lo - new, 0) + np.maximum(new - hi, 0)
    return row | {
        "error": float(np.sqrt(np.mean((value - new) ** 2))),
        "run": float(np.mean(outside == 0)),
        "law": float(np.mean((law_lo <= truth) & (truth <= law_hi)))
        if np.isfinite(truth).all()
        else np.nan,
        "interval": float(np.mean(hi - lo + 20 * outside)),
    }


def scale(case: Case, y: np.ndarray) -> np.ndarray:
    """y in the units of the errors: logs, or standard deviations."""
    if case.log:
        return np.log(np.maximum(y, TINY))
    return y / (np.std(np.concatenate([case.y, case.new_y])) + TINY)


def render(scores: pd.DataFrame) -> str:
    """Three tables, a set a row and a form a column, and the time of the average."""
    parts = []
    for kind, names in (("Curves", CURVES), ("Surfaces", SURFACES)):
        own = [s for s, q in scores.groupby("set", sort=False) if set(q["form"]) == set(names)]
        part = scores[scores["set"].isin(own)]
        for column, title, how in (
            ("error", "error, mean", "mean"),
            ("run", "new observations inside the 90 % interval", "mean"),
            ("law", "truths inside the 90 % interval of the curve", "mean"),
            ("interval", "interval score at 90 %, median", "median"),
        ):
            table = part.pivot_table(
                index="set", columns="form", values=column, aggfunc=how, sort=False
            ).reindex(columns=list(names))
            if column == "error":
                table.insert(0, "cases", part[part["form"] == "auto"].groupby("set").size())
            parts.append(f"## {kind}: {title}\n\n{markdown(table)}")
        answered = part.assign(answered=part["error"].notna()).groupby("form")["answered"].mean()
        shares = ", ".join(f"{name} {answered[name]:.0%}" for name in names)
        seconds = part.loc[part["form"] == "auto", "seconds"].median()
        parts.append(
            f"Answered: {shares}. Fit and forecast of the average: median {seconds:.2f} CPU s."
        )
    return "\n\n".join(parts) + "\n"


def markdown(table: pd.DataFrame) -> str:
    head = ["set", *table.columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in table.iterrows():
        cells = [
            "-" if pd.isna(v) else f"{v:.0f}" if column == "cases" else f"{v:.4f}"
            for column, v in row.items()
        ]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
