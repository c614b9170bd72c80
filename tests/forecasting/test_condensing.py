"""Long logs made short."""

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.condensing import LEAST_CHECKPOINTS, MOST_ROWS, condense


@pytest.fixture(scope="module")
def long_log(simulate):
    """Sixty budgets, forty seeds a size: far more rows than a forecast needs."""
    return simulate(4, budgets=np.geomspace(1e10, 3e12, 60), seeds=40)


def test_a_short_log_is_left_alone(ladder):
    same, said = condense(ladder)
    assert same is ladder
    assert said == ""


def test_budgets_are_thinned_and_seeds_averaged(long_log):
    short, said = condense(long_log)
    assert len(short) <= MOST_ROWS < len(long_log)
    assert f"{len(long_log):,} rows" in said
    assert f"as {len(short):,} rows" in said
    budgets = np.unique(short["budget"])
    assert len(budgets) >= LEAST_CHECKPOINTS
    assert budgets[[0, -1]] == pytest.approx(long_log["budget"].agg(["min", "max"]).to_numpy())
    assert set(short["params"]) == set(long_log["params"])
    assert set(budgets) <= set(long_log["budget"])
    assert condense(short)[0] is short


def test_a_mean_of_seeds_is_that_of_its_runs():
    sizes, seeds = [1e4, 1e5, 1e6], 700
    parts = [
        pd.DataFrame(
            {
                "run_id": f"{n:g}-{seed:03d}",
                "params": n,
                "samples": [1e6, 2e6],
                "flops": [6e6 * n, 12e6 * n],
                "loss": [2 + seed, 1 + seed],
                "loss_se": 0.1,
                "episodes": 10,
                "status": "ok",
            }
        )
        for n in sizes
        for seed in range(seeds)
    ]
    short, _ = condense(pd.concat(parts, ignore_index=True))
    assert len(short) == 2 * 3 * 350
    first = short[(short["params"] == 1e4) & (short["samples"] == 1e6)].iloc[0]
    assert first["loss"] == pytest.approx(2.5)
    assert first["loss_se"] == pytest.approx(0.1 / np.sqrt(2))
    assert first["episodes"] == 20
    assert short["run_id"].nunique() == 3 * 350


def test_runs_without_common_checkpoints_are_drawn_evenly():
    rng = np.random.default_rng(0)
    n = np.repeat(np.geomspace(1e4, 1e8, 600), 40)
    samples = np.sort(np.exp(rng.uniform(10, 15, (600, 40))), axis=1).ravel()
    run_id = np.repeat([f"run {k}" for k in range(600)], 40)
    runs = pd.DataFrame(
        {"run_id": run_id, "params": n, "samples": samples, "flops": 6 * n * samples, "loss": 1.0}
    )
    short, _ = condense(runs)
    assert len(short) <= 2 * MOST_ROWS
    assert short["params"].agg(["min", "max"]).tolist() == [1e4, 1e8]
    ends = runs.groupby("run_id")["samples"].agg(["min", "max"])
    kept = short.groupby("run_id")["samples"].agg(["min", "max"])
    pd.testing.assert_frame_equal(kept, ends.loc[kept.index])


def test_a_forecast_says_so_and_stays_what_it_was(simulate, law, monkeypatch):
    monkeypatch.setattr("scaling_analysis.forecasting.condensing.MOST_ROWS", 300)
    runs = simulate(4, budgets=np.geomspace(1e10, 3e12, 9), seeds=16, link=None)
    made = sa.forecast(
        runs, [1e13], ["isoflop-vertex"], n_resamples=30, hindcast_resamples=10, rng=0
    )
    assert any("are fitted as" in message for message in made.messages)
    assert len(made.ensemble.losses["isoflop-vertex"].fit.rows) <= 450 < len(runs)
    best = made.table[made.table["method"] == "combined"].iloc[0]
    assert best["params_opt"] == pytest.approx(float(law.params_opt(1e13)), rel=0.15)
    assert best["loss"] == pytest.approx(float(law.value_opt(1e13)), rel=0.02)
    assert len(made.rows) == len(runs)
