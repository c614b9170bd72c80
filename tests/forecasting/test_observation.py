"""What a log says of its own budgets: optima, near runs, noise and trend."""

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.forecasting.observation import (
    grouped_rows,
    observe,
    seed_noise,
    trend_until,
)
from scaling_analysis.forecasting.simulation import SymmetricSurface, simulate_runs

BUDGETS = [1e14, 1e15, 1e16, 1e17]


def symmetric(budgets=BUDGETS, **noise):
    law = SymmetricSurface(
        floor=0.0, scale=40.0, exponent=0.1, params_scale=0.1, params_exponent=0.5, curvature=0.0
    )
    runs = simulate_runs(law, np.geomspace(1e5, 1e9, 17), budgets, sizes_per_budget=7, **noise)
    bowl = np.exp(0.05 * np.log(runs["params"] / law.params_opt(runs["flops"])) ** 2)
    return law, runs.assign(loss=runs["loss"] * bowl)


def test_optima_of_a_log_parabola_are_exact():
    law, runs = symmetric()
    seen = observe(runs, "loss", within=4.0)
    sizes = seen[seen["quantity"] == "params_opt"]
    values = seen[seen["quantity"] == "value_opt"]
    np.testing.assert_allclose(np.exp(sizes["observed"]), law.params_opt(sizes["budget"]))
    np.testing.assert_allclose(np.exp(values["observed"]), law.value_opt(values["budget"]))
    assert (values["observed_se"].abs() < 1e-9).all()


def test_only_runs_near_the_optimum_are_scored_each_size_once():
    law, runs = symmetric(seeds=3, run_noise=0.01)
    near = observe(runs, "loss", within=2.5)
    near = near[near["quantity"] == "value"]
    away = np.abs(np.log(near["params"] / law.params_opt(near["budget"])))
    assert away.max() < np.log(2.5) * 1.1
    assert not near.duplicated(["budget", "params"]).any()
    noise = seed_noise(grouped_rows(runs, "loss"), "loss").sd
    np.testing.assert_allclose(near["observed_se"], noise / np.sqrt(3))


def test_standard_errors_are_those_of_repeated_logs():
    _, exact = symmetric([1e16], seeds=2)
    rng, estimates = np.random.default_rng(0), []
    for _ in range(100):
        noise = np.exp(0.02 * rng.standard_normal(len(exact)))
        seen = observe(exact.assign(loss=exact["loss"] * noise), "loss", within=4.0)
        estimates.append(seen[seen["quantity"] != "value"])
    table = pd.concat(estimates)
    for quantity in ("params_opt", "value_opt"):
        of = table[table["quantity"] == quantity]
        promised = np.sqrt(np.mean(of["observed_se"] ** 2))
        assert promised == pytest.approx(of["observed"].std(), rel=0.2)


def test_a_budget_without_an_interior_minimum_has_no_optimum():
    _, runs = symmetric()
    edge = runs[(runs["budget"] > 1e14) | (runs["params"] < 1e6)]
    seen = observe(edge, "loss", within=4.0)
    assert 1e14 not in set(seen.loc[seen["quantity"] != "value", "budget"])
    assert 1e14 in set(seen.loc[seen["quantity"] == "value", "budget"])


def test_noise_of_runs_counts_runs_and_not_checkpoints():
    _, runs = symmetric(seeds=3, run_noise=0.02, rng=1)
    noise = seed_noise(grouped_rows(runs, "loss"), "loss")
    sizes = runs.loc[runs["budget"] >= 1e16, "params"].nunique()
    assert noise.dof == 2 * sizes
    assert noise.sd == pytest.approx(0.02, rel=0.4)
    _, single = symmetric(run_noise=0.02)
    assert seed_noise(grouped_rows(single, "loss"), "loss").dof == 0


def test_a_log_without_budgets_is_grouped_by_compute():
    _, runs = symmetric()
    seen = observe(runs.drop(columns="budget"), "loss", within=4.0)
    assert set(seen["quantity"]) == {"value"}
    assert seen["budget"].nunique() == len(BUDGETS)
    assert (np.abs(np.log(seen["flops"] / seen["budget"])) < np.log(3)).all()


def test_trend_is_the_slope_so_far():
    _, runs = symmetric()
    seen = observe(runs, "loss", within=4.0)
    assert trend_until(seen, "value", 1e16) == pytest.approx(0.1, rel=0.02)
    assert trend_until(seen, "params_opt", 1e16) == 1.0
    flat = seen.assign(observed=0.0)
    assert trend_until(flat, "value", 1e17) == 0.01
    assert trend_until(seen, "value", 1e14) == 0.01
