"""Planned runs beside what was forecast of them: hits, the choice of N, interval scores."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.forecasting.combination import interval_score
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED

Array = NDArray[np.float64]

TARGETS = ("loss", "mean_return")


def judge(forecast: Forecast, planned: pd.DataFrame, level: float) -> pd.DataFrame:
    """Every planned row and target beside its interval."""
    parts = []
    for target in TARGETS:
        if target not in forecast.ensemble.noise:
            continue
        rows = planned.assign(target=target, observed=pd.to_numeric(planned[target]))
        unmeasured = (rows["status"] == "ok") & ~(rows["observed"] > 0)
        rows.loc[unmeasured, "status"] = "unmeasured"
        size = pd.to_numeric(rows["params"]).fillna(rows["params_planned"]).astype(np.float64)
        spent = pd.to_numeric(rows["flops"]).fillna(rows["budget"]).astype(np.float64)
        said = forecast.predict_run(size, spent, level)
        rows = rows.assign(params=size, flops=spent, predicted=said[target].to_numpy())
        rows["lo"] = said[f"{target}_run_lo"].to_numpy()
        rows["hi"] = said[f"{target}_run_hi"].to_numpy()
        ok = rows["status"] == "ok"
        y, centre, lo, hi = rows[["observed", "predicted", "lo", "hi"]].to_numpy(np.float64).T
        with np.errstate(invalid="ignore", divide="ignore"):
            half = np.where(y < centre, np.log(centre / lo), np.log(hi / centre))
            error = np.log(y / centre) / half
        rows["error"] = np.where(ok, error, np.nan)
        rows["inside"] = ok & (np.abs(error) <= 1)
        parts.append(rows.drop(columns=[*TARGETS, "time_utc"]))
    order = ["run_id", "budget", "params_planned", "params", "flops", "target", "status"]
    values = ["observed", "predicted", "lo", "hi", "inside", "error"]
    return pd.concat(parts, ignore_index=True)[[*order, *values]]


def decide(forecast: Forecast, judged: pd.DataFrame) -> pd.DataFrame:
    """Did the forecast size beat its neighbours, beyond the spread of the seeds?"""
    target = forecast.ensemble.target
    sign = 1.0 if target == "loss" else -1.0
    ok = judged[(judged["target"] == target) & (judged["status"] == "ok")]
    ok = ok.assign(log=np.log(ok["observed"]))
    rows = []
    for budget in np.sort(ok["budget"].unique()):
        at = ok[ok["budget"] == budget]
        sizes = at.groupby("params_planned")["log"]
        means, counts = sizes.mean(), sizes.count()
        dof = int((counts - 1).sum())
        spread = forecast.ensemble.noise[target].sd
        if dof > 0:
            squares = ((at["log"] - sizes.transform("mean")) ** 2).sum()
            spread = float(np.sqrt(squares / dof))
        chosen = _chosen(forecast, budget, means.index.to_numpy(np.float64))
        for size in (s for s in means.index if s != chosen):
            difference = sign * float(means[size] - means[chosen])
            se = spread * float(np.sqrt(1 / counts[size] + 1 / counts[chosen]))
            beyond = abs(difference) > 2 * se
            verdict = ("held" if difference > 0 else "missed") if beyond else "tied"
            rows.append(
                {
                    "flops": budget,
                    "params": chosen,
                    "neighbour": size,
                    "value": float(np.exp(means[chosen])),
                    "value_neighbour": float(np.exp(means[size])),
                    "difference": difference,
                    "se": se,
                    "verdict": verdict,
                }
            )
    columns = ["flops", "params", "neighbour", "value", "value_neighbour", "difference", "se"]
    return pd.DataFrame(rows, columns=[*columns, "verdict"])


def _chosen(forecast: Forecast, budget: float, sizes: Array) -> float:
    """The planned size that stands for the forecast N_opt."""
    wanted = float(forecast.params_opt(budget))
    return float(sizes[np.argmin(np.abs(np.log(sizes / wanted)))])


def score(forecast: Forecast, judged: pd.DataFrame, level: float) -> pd.DataFrame:
    """Interval scores of the average, of each method and of the baselines on the same runs."""
    rows = []
    for target, at in judged[judged["status"] == "ok"].groupby("target", sort=False):
        y = np.log(at["observed"].to_numpy(np.float64))
        names = [COMBINED, *forecast.ensemble.methods(str(target)), *BASELINES]
        for method in names:
            if not forecast.ensemble.forecasts(str(target), method):
                continue
            said = forecast.predict_run(at["params"], at["flops"], level, method)
            centre, lo, hi = (
                np.log(said[name]) for name in (target, f"{target}_run_lo", f"{target}_run_hi")
            )
            rows.append(
                {
                    "target": target,
                    "method": method,
                    "runs": len(at),
                    "coverage": float(np.mean((lo <= y) & (y <= hi))),
                    "error": float(np.sqrt(np.mean((y - centre) ** 2))),
                    "width": float(np.median(hi - lo)),
                    "interval_score": float(np.mean(interval_score(y, lo, hi, level))),
                }
            )
    return pd.DataFrame(rows)
