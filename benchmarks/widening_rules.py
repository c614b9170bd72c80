"""Could the law error of a forecast be estimated in another way, smaller or on the right side?

The widening of every interval is fitted again to the same hindcasts under other rules, and coverage
and width are counted again: of the loss at the optimum of simulated ladders beyond their last
budget (the worlds of `forecast_coverage.py`); of the runs of the studies in `reports/` that were
trained a decade beyond their ladder; and at the hindcast's own origins, on the NetHack log of Tuyls
et al. 2023 (loss and return, budgets from 1e15 FLOP) and on their two Atari games and the isoFLOP
sweeps of the extrapolation set (loss), where SCALING_REFERENCE_DATA names the folder that holds
them. Each origin knows only errors that were on record by then.

Rules: the present one; its prior law error halved or doubled; each origin counting a fifth less
than the next; one multiplier of all that is expected beforehand, by the mean squared standardised
error with a prior of four origins at 1; the sign that origins share, as the mean scaled error m
(each origin counting half of the next, with a prior of one origin at 0), added in quadrature to
the law error on its side ("one side") or moving the forecast ("shifted"); and the squared distance
to the log-line, a baseline, added to the variance with the weight that its past errors give it
beside the average.

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
from scaling_analysis.forecasting.combination import (
    GROWTH,
    PRIOR_ORIGINS,
    interval_score,
    method_weights,
)
from scaling_analysis.forecasting.ensemble import Ensemble
from scaling_analysis.forecasting.scores import COMBINED, prior_scale
from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]
LEVEL = 0.9
LINE = "log-line"
SIGN_AGE = 0.5
SIGN_ORIGINS = 1.0
GAP = 0.15
"""Runs of one budget of a sweep lie closer than this in log C."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A way to get from hindcast errors to the law error."""

    prior: float = 1.0
    """Factor of the law error expected beforehand."""
    age: float = 1.0
    """An origin counts so much of the next one."""
    multiplier: float = 0.0
    """Origins of the prior of one multiplier for all; 0: the law error is fitted."""
    sign: str = ""
    """What a sign that origins share does: widen its "side", or "shift" the forecast."""
    line: bool = False
    """Whether the distance to the log-line counts."""


RULES = {
    "as it is": Rule(),
    "half the prior": Rule(prior=0.5),
    "twice the prior": Rule(prior=2.0),
    "late origins count more": Rule(age=0.8),
    "one multiplier": Rule(multiplier=4.0),
    "one side": Rule(sign="side"),
    "shifted": Rule(sign="shift"),
    "log-line": Rule(line=True),
}


@dataclass(frozen=True, kw_only=True)
class Said:
    """Forecasts of the average from one origin, in the space of the hindcast."""

    centre: Array
    base: Array
    line: Array
    """What the log-line says; NaN where it says nothing."""
    horizon: Array
    trend: Array
    noise: Array
    """Standard deviation of the observation."""


def ends(said: Said, past: pd.DataFrame, quantity: str, rule: Rule) -> tuple[Array, Array, Array]:
    """Lower end, forecast, upper end; `past` are the cells of the quantity known by then."""
    known = past[(past["method"] == COMBINED) & past["predicted"].notna()]
    scale, factor, freedom = law_error(known, prior_scale(quantity, COMBINED, True), rule)
    step = said.trend * said.horizon**GROWTH
    base2, shared = said.base**2, shared_sign(known) if rule.sign else 0.0
    if rule.line:
        away = np.nan_to_num(said.line - said.centre)
        base2 = base2 + line_weight(past, said.horizon) * away**2
    centre = said.centre + (shared * step if rule.sign == "shift" else 0.0)
    found = []
    for side in (-1.0, 1.0):
        own = np.hypot(scale, shared) if rule.sign == "side" and side * shared > 0 else scale
        sd = np.sqrt(factor**2 * (base2 + (own * step) ** 2) + said.noise**2)
        found.append(centre + side * student_quantile(LEVEL, freedom) * sd)
    return found[0], centre, found[1]


def law_error(cells: pd.DataFrame, prior: float, rule: Rule) -> tuple[float, float, float]:
    """Scale of the law error, multiplier of everything, degrees of freedom."""
    origin, index, count = np.unique(cells["origin"], return_inverse=True, return_counts=True)
    weight = rule.age ** np.arange(len(origin))[::-1]
    effective = weight.sum() ** 2 / (weight**2).sum() if len(origin) else 0.0
    weight = (weight * effective / weight.sum() / count)[index] if len(origin) else np.empty(0)
    step = _step(cells)
    error = (cells["observed"] - cells["predicted"]).to_numpy(np.float64)
    if rule.sign == "shift":
        error = error - shared_sign(cells) * step
    known = (cells["base"] ** 2 + cells["observed_se"].fillna(0) ** 2).to_numpy(np.float64)
    freedom = PRIOR_ORIGINS + effective
    if rule.multiplier:
        ratio = weight @ (error**2 / (known + (prior * step) ** 2))
        all_of_it = (rule.multiplier + ratio) / (rule.multiplier + weight.sum())
        return prior, float(np.sqrt(all_of_it)), freedom
    scales = rule.prior * prior * np.geomspace(0.02, 100.0, 600)
    expected = PRIOR_ORIGINS * (np.log(scales) + 0.5 * (rule.prior * prior / scales) ** 2)
    variance = known + np.square(scales[:, None] * step)
    likelihood = -0.5 * (np.log(variance) + error**2 / variance) @ weight
    return float(scales[np.argmax(likelihood - expected)]), 1.0, freedom


def shared_sign(cells: pd.DataFrame) -> float:
    """Mean scaled error over origins, late ones first, drawn to 0."""
    scaled = (cells["observed"] - cells["predicted"]) / _step(cells)
    by_origin = scaled.groupby(cells["origin"]).mean().to_numpy()
    weight = SIGN_AGE ** np.arange(len(by_origin))[::-1]
    return float(weight @ by_origin / (weight.sum() + SIGN_ORIGINS))


def line_weight(past: pd.DataFrame, horizon: Array) -> Array:
    """Weight of the log-line beside the average of methods, by past errors alone."""
    pair = past[past["method"].isin((COMBINED, LINE))].fillna({"params": 0.0})
    key = ["origin", "budget", "params", "observed"]
    table = pair.pivot_table(index=key, columns="method", values="predicted").dropna()
    if table.shape[1] < 2 or table.empty:
        return np.zeros_like(horizon)
    table = table.reset_index()
    errors = [table["observed"] - table[name] for name in (COMBINED, LINE)]
    when = np.log(table["budget"] / table["origin"]), table["origin"]
    none = np.zeros(2)
    return np.array([method_weights(errors, *when, float(h), none)[1] for h in horizon])


def _step(cells: pd.DataFrame) -> Array:
    ahead = np.log(cells["budget"] / cells["origin"]) ** GROWTH
    return (cells["trend"] * ahead).to_numpy(np.float64)


def ask(
    ensemble: Ensemble, quantity: str, flops: Array, params: Array | None, noise: float
) -> tuple[Said, pd.DataFrame]:
    """What a fitted log says of runs ahead before any rule, and its hindcast."""
    past = ensemble.hindcast
    if past is None:
        raise ValueError("no hindcast")
    said, trend = ensemble.predict(quantity, flops, params), ensemble.trend(quantity)
    horizon = np.log(flops / ensemble.flops_max)
    law = ensemble.widening(quantity, COMBINED).law_sd(horizon, trend)
    made = Said(
        centre=said.centre,
        base=np.sqrt(said.sd**2 - law**2),
        line=ensemble.point(quantity, flops, params, LINE)[0],
        horizon=horizon,
        trend=np.full(horizon.shape, trend),
        noise=np.full(horizon.shape, noise),
    )
    return made, past.cells[past.cells["quantity"] == quantity]


def on_ladders(ensembles: dict[str, list[Ensemble]]) -> pd.DataFrame:
    """Coverage, half-width and interval score of the loss beyond simulated ladders."""
    rows, flops = [], np.array(AHEAD)
    for name, made in ensembles.items():
        truth = np.log(WORLDS[name].value_opt(flops))
        asked = [ask(ensemble, "loss_opt", flops, None, 0.0) for ensemble in made]
        for label, rule in RULES.items():
            lo, _, hi = np.array([ends(*each, "loss_opt", rule) for each in asked]).swapaxes(0, 1)
            for i, c in enumerate(AHEAD):
                row = {"law": name, "times C_max": c / BUDGETS[-1], "rule": label}
                rows.append(row | {"logs": len(made)} | _scored(truth[i], lo[:, i], hi[:, i]))
    return pd.DataFrame(rows)


def on_studies(reports: Path) -> pd.DataFrame:
    """The same of the runs of studies a decade beyond their ladder."""
    rows = []
    for folder in sorted(reports.glob("*_decade")):
        ensemble = sa.Forecast.load(folder / "forecast.json").ensemble
        runs = sa.Verification.load(folder / "verification.json").runs
        runs = runs[(runs["target"] == "loss") & (runs["status"] == "ok")]
        flops, params, observed = runs[["flops", "params", "observed"]].to_numpy(np.float64).T
        said, past = ask(ensemble, "loss", flops, params, ensemble.noise["loss"].sd)
        for label, rule in RULES.items():
            lo, _, hi = ends(said, past, "loss", rule)
            row = {"study": folder.name, "rule": label, "rows": len(runs)}
            rows.append(row | _scored(np.log(observed), lo, hi))
    return pd.DataFrame(rows)


def on_origins(log: str, cells: pd.DataFrame) -> pd.DataFrame:
    """The same of the average at the origins of a hindcast, and its error."""
    rows = []
    for quantity in ("loss_opt", "loss", "mean_return_opt", "mean_return"):
        of = cells[cells["quantity"] == quantity].fillna({"params": 0.0})
        of = of[of["predicted"].notna()]
        key = ["origin", "budget", "params"]
        own, line = (of[of["method"] == name].set_index(key) for name in (COMBINED, LINE))
        line = line["predicted"].reindex(own.index).to_numpy()
        own = own.reset_index().assign(line=line)
        for label, rule in RULES.items():
            parts = []
            for cut, at in own.groupby("origin"):
                said = Said(
                    centre=at["predicted"].to_numpy(),
                    base=at["base"].to_numpy(),
                    line=at["line"].to_numpy(),
                    horizon=np.log((at["budget"] / at["origin"]).to_numpy()),
                    trend=at["trend"].to_numpy(),
                    noise=at["observed_se"].fillna(0.0).to_numpy(),
                )
                found = ends(said, of[of["budget"] <= cut], quantity, rule)
                parts.append((at["observed"].to_numpy(), *found))
            if not parts:
                continue
            y, lo, centre, hi = (np.concatenate(part) for part in zip(*parts, strict=True))
            row = {"log": log, "quantity": quantity, "rule": label, "forecasts": len(y)}
            error = {"error": float(np.sqrt(np.mean((y - centre) ** 2)))}
            rows.append(row | _scored(y, lo, hi) | error)
    return pd.DataFrame(rows)


def _scored(observed: Array | float, lo: Array, hi: Array) -> dict[str, float]:
    return {
        "coverage": float(np.mean((lo <= observed) & (observed <= hi))),
        "half width": float(np.median(hi - lo) / 2),
        "interval score": float(interval_score(observed, lo, hi, LEVEL).mean()),
    }


def public_logs(folder: Path) -> dict[str, pd.DataFrame]:
    """NetHack with its returns; the losses of two Atari games and of isoFLOP sweeps."""
    nethack = sa.load_runs(folder / "nethack_il" / "runs.csv")
    logs = {"nethack_il": nethack[nethack["budget"] >= 1e15]}
    atari = pd.read_csv(folder / "atari_il" / "atari_il.csv").query("kind == 'eval_loss'")
    for game, rows in atari[atari["flops"] >= 2e14].groupby("game"):
        logs[str(game)] = _log(rows["params"], rows["flops"], rows["value"], rows["flops"])
    sweeps = pd.read_csv(folder / "extrapolation" / "isoflops_openathena" / "cases.csv")
    for case, rows in sweeps[sweeps["case"].str.startswith("top1|")].groupby("case"):
        log_c = np.log(6 * rows["N"] * rows["D"])
        order = np.sort(log_c)
        group = np.searchsorted(order[1:][np.diff(order) > GAP], log_c, side="right")
        budget = np.exp(log_c.groupby(group).transform("mean"))
        name = str(case).removeprefix("top1|").replace("|", "-")
        logs[name] = _log(rows["N"], np.exp(log_c), rows["y"], budget)
    return logs


def _log(params: pd.Series, flops: pd.Series, loss: pd.Series, budget: pd.Series) -> pd.DataFrame:
    columns = {"params": params, "samples": flops / 6 / params, "flops": flops}
    return pd.DataFrame(columns | {"budget": budget, "loss": loss}).query("loss > 0")


def report(tables: dict[str, pd.DataFrame], command: str) -> str:
    text = ["# Other rules for the law error", "", f"`{command}`. 90 %, in logs.", ""]
    for title, table in tables.items():
        text += [f"## {title}", "", *markdown(table)]
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
    tables = {
        "Loss beyond simulated ladders": on_ladders(ensembles),
        "Runs a decade beyond their ladder": on_studies(Path(__file__).parents[1] / "reports"),
    }
    if folder := os.environ.get("SCALING_REFERENCE_DATA"):
        pasts = {
            name: sa.hindcast(log, n_resamples=options.replicates, rng=0).cells
            for name, log in public_logs(Path(folder)).items()
        }
        found = [on_origins(name, cells) for name, cells in pasts.items()]
        tables["Logs of others, all origins"] = pd.concat(found)
    command = (
        f"python benchmarks/widening_rules.py --logs {options.logs} "
        f"--replicates {options.replicates}"
    )
    text = report(tables, command)
    print(text)
    if options.out:
        (options.out / "widening_rules.md").write_text(text)


if __name__ == "__main__":
    main()
