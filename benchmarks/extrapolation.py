"""Forecasts beyond the data: the average of forms against each form alone, and other tools.

    SCALING_REFERENCE_DATA=... python benchmarks/extrapolation.py [--curves 600] [--surfaces 80]
        [--forms auto power_floor additive ...] [--others scores.csv ...] [--out FOLDER]

prints, and writes to FOLDER/extrapolation.md, on public curves and surfaces (where the
variable names a folder with extrapolation/<set>/{cases.csv, meta.json}) and on simulated families:
error (root mean square of log y, or of y over its standard deviation), the share of new
observations inside the 90 % interval, and the median interval score. Scores of other tools on the
same public cases are read from tables with the columns dataset, case, method, err, c90, is90.
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

CURVES = ("auto", "persistence", "power", "tail_line", "power_floor", "broken", "sigmoid", "m4")
SURFACES = ("auto", "log_linear", "log_quadratic", "additive", "tied", "kaplan")
TINY = 1e-12


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--curves", type=int, default=600, help="simulated curves")
    parser.add_argument("--surfaces", type=int, default=80, help="simulated surfaces")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--forms", nargs="*", help="of these forms alone; all by default")
    parser.add_argument("--others", nargs="*", default=[], help="tables of other tools' scores")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    wanted = set(options.forms or (*CURVES, *SURFACES))
    rng = np.random.default_rng(options.seed)
    cases = [*public_cases(), *simulate_curves(options.curves, rng)]
    cases += simulate_surfaces(options.surfaces, rng)
    scores = pd.DataFrame(
        [score(case, form) for case in cases for form in forms(case) if form in wanted]
    )
    command = (
        f"python benchmarks/extrapolation.py --curves {options.curves} "
        f"--surfaces {options.surfaces} --seed {options.seed}"
    )
    if options.forms:
        command += f" --forms {' '.join(options.forms)}"
    text = f"# Forecasts beyond the data\n\n`{command}`\n\n{render(scores)}"
    if options.others:
        text += f"\n{render_others(scores, pd.concat(map(pd.read_csv, options.others)))}"
    print(text)
    if options.out:
        (options.out / "extrapolation.md").write_text(text)


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
    kind = "Curves" if case.inputs.ndim == 1 else "Surfaces"
    row: dict[str, object] = {"set": case.family, "form": form, "kind": kind}
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
    for kind, part in scores.groupby("kind", sort=False):
        names = [
            name for name in (CURVES if kind == "Curves" else SURFACES) if name in {*part.form}
        ]
        for column, title, how in (
            ("error", "error, mean", "mean"),
            ("run", "new observations inside the 90 % interval", "mean"),
            ("law", "truths inside the 90 % interval of the curve", "mean"),
            ("interval", "interval score at 90 %, median", "median"),
        ):
            table = part.pivot_table(
                index="set", columns="form", values=column, aggfunc=how, sort=False
            ).reindex(columns=names)
            if column == "error":
                table.insert(0, "cases", part[part["form"] == names[0]].groupby("set").size())
            parts.append(f"## {kind}: {title}\n\n{markdown(table)}")
        answered = part.assign(answered=part["error"].notna()).groupby("form")["answered"].mean()
        shares = ", ".join(f"{name} {answered[name]:.0%}" for name in names)
        seconds = part.loc[part["form"] == names[0], "seconds"].median()
        parts.append(
            f"Answered: {shares}. Fit and forecast, {names[0]}: median {seconds:.2f} CPU s."
        )
    return "\n\n".join(parts) + "\n"


def render_others(scores: pd.DataFrame, others: pd.DataFrame) -> str:
    """The average beside other tools on each set that these tell of."""
    columns = ["set", "form", "error", "run", "interval"]
    ours = scores.loc[scores["form"] == "auto", columns]
    theirs = others.rename(
        columns={"method": "form", "err": "error", "c90": "run", "is90": "interval"}
    )
    joined = theirs["dataset"] + " " + theirs["case"].str.split("|").str[0]
    theirs["set"] = joined.where(joined.isin(ours["set"]), theirs["dataset"])
    both = pd.concat([ours[ours["set"].isin(theirs["set"])], theirs[columns]])
    parts = ["## Other tools on the public sets"]
    for name, part in both.groupby("set", sort=False):
        by_form = part.groupby("form", sort=False)
        table = pd.DataFrame(
            {
                "cases": by_form.size(),
                "answered": by_form["error"].count(),
                "error, mean": by_form["error"].mean(),
                "inside 90 %": by_form["run"].mean(),
                "interval score, median": by_form["interval"].median(),
            }
        )
        parts.append(f"### {name}\n\n{markdown(table)}")
    return "\n\n".join(parts) + "\n"


def markdown(table: pd.DataFrame) -> str:
    head = ["set", *table.columns]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, row in table.iterrows():
        cells = [
            "-" if pd.isna(v) else f"{v:.0f}" if column in ("cases", "answered") else f"{v:.4f}"
            for column, v in row.items()
        ]
        lines.append("| " + " | ".join([str(name), *cells]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
