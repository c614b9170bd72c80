"""A small simulated study: a log with hostile texts, its forecast, and the runs that test it."""

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs
from scaling_analysis.report.composing import Study, compose
from scaling_analysis.report.model import Report
from scaling_analysis.report.sources import Curves

SCRIPT = "</script><img src=x onerror=alert(1)>"
TYPST = '#include("x") $x_1$ *b* \\ ]'
ARABIC = "\u202e\u0645\u0631\u062d\u0628\u0627 $x$"
"""Right-to-left, with an override of direction before it."""
LAW = AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)


def simulated(copies: int = 2, **options) -> pd.DataFrame:
    budgets = [1e10, 3e10, 1e11, 3e11, 1e12, 3e12]
    return simulate_runs(
        LAW,
        np.geomspace(2e3, 4e5, 9),
        budgets,
        seeds=copies,
        sizes_per_budget=6,
        run_noise=0.01,
        checkpoint_noise=0.004,
        link=lambda loss: 120 * loss**-2.0,
        return_noise=0.05,
        **options,
    )


@pytest.fixture(scope="session")
def hostile_runs() -> pd.DataFrame:
    """A log with markup in every column of text, a row left out and one that diverged."""
    runs = simulated()
    runs["run_id"] = runs["run_id"] + SCRIPT
    runs["agent"], runs["task"], runs["protocol"] = SCRIPT, TYPST, f"{SCRIPT}{TYPST}"
    runs["device"], runs["git_commit"] = TYPST, ARABIC
    runs["time_utc"] = "2026-01-02T03:04:05+00:00"
    first = runs["run_id"] == runs["run_id"].iloc[0]
    runs.loc[first, ["status", "note"]] = ["excluded", f"{TYPST} {SCRIPT} {ARABIC}"]
    return runs


@pytest.fixture(scope="session")
def forecast(hostile_runs) -> sa.Forecast:
    return sa.forecast(
        hostile_runs,
        [1e13, 2e13],
        ["isoflop-vertex", "parametric-additive"],
        n_resamples=40,
        hindcast_resamples=20,
        time_utc="2026-01-02T03:04:05+00:00",
    )


@pytest.fixture(scope="session")
def verification(hostile_runs, forecast) -> sa.Verification:
    """Two seeds of three sizes at 1e13 FLOP: the law's own loss, but one run far off."""
    plan = sa.plan_forecast(forecast, 1e13, seeds=2)
    new = plan[["run_id", "agent", "task", "params", "budget", "protocol"]].copy()
    new["samples"] = LAW.cost.samples(new["params"], new["budget"])
    new["flops"] = new["budget"]
    new["loss"] = LAW.value(new["params"], new["flops"]) * np.tile([1.004, 0.996], 3)
    new["mean_return"] = 120 * new["loss"] ** -2.0
    new.loc[0, "loss"] *= 2
    new["time_utc"] = "2026-02-02T03:04:05+00:00"
    return sa.verify(forecast, plan, pd.concat([hostile_runs, new], ignore_index=True))


@pytest.fixture(scope="session")
def report(hostile_runs, forecast, verification) -> Report:
    """The report of all of it, with markup in title and command."""
    study = Study(
        name=SCRIPT,
        curves=Curves(forecast),
        runs=hostile_runs,
        audit=sa.audit(hostile_runs),
        verification=verification,
    )
    return compose(
        [study],
        title=f"Scaling of {SCRIPT} on {TYPST}",
        command=f"scaling report '{SCRIPT}'",
    )
