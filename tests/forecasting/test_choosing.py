"""Which runs to do next: the update itself, and what it buys in simulated sweeps."""

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import PlanError
from scaling_analysis.estimators.bootstrapping import bootstrap
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.forecasting.choosing import next_runs
from scaling_analysis.forecasting.plan_files import split_budgets
from scaling_analysis.forecasting.planning import plan_ladder
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs

LAW = AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0, beta=0.38)
TARGET = 3e14
NOISE = 0.01
FIT = fit_parametric


def first_sweep(rng):
    budgets, sizes = [1e10, 3e10, 1e11, 3e11], np.geomspace(4e3, 1e5, 6)
    return simulate_runs(
        LAW, sizes, budgets, snapshots=False, sizes_per_budget=5, run_noise=NOISE, rng=rng
    )


def candidates():
    """Every cell of a ladder as a run of its own."""
    plan = plan_ladder((1e10, 3e12), (4e3, 4e5), task="t", agent="a", seeds=1)
    cells = [(n, c) for n, text in zip(plan["params"], plan["snapshots"], strict=True)
             for c in split_budgets(text)]  # fmt: skip
    return pd.DataFrame(cells, columns=["params", "budget"])


@pytest.fixture(scope="module")
def sampled():
    return bootstrap(first_sweep(0), FIT, n_resamples=500, rng=1)


def sharpness(added, rng):
    """Root mean square error of log L_opt at the target, over noise, once `added` has been run."""
    base = first_sweep(0)[["params", "budget"]]
    cells = pd.concat([base, added[["params", "budget"]]], ignore_index=True)
    n, c = cells["params"].to_numpy(), cells["budget"].to_numpy()
    truth = LAW.value(n, c)
    runs = pd.DataFrame(
        {"params": n, "samples": c / (6 * n), "flops": c, "loss": truth, "budget": c}
    ).assign(run_id=[f"r{i}" for i in range(len(n))], status="ok")
    fit = FIT(runs)
    draws = fit.refit(response=truth * np.exp(NOISE * rng.standard_normal((400, len(n)))))
    error = np.log(draws.value_opt(TARGET)[draws.valid()] / LAW.value_opt(TARGET))
    return np.sqrt(np.mean(error**2))


def uniform_grid(pool, spend):
    """The candidate cells in turn, spread evenly over the list, until the compute is spent."""
    order = np.concatenate([np.arange(start, len(pool), 5) for start in range(5)])
    cost = pool["budget"].to_numpy()[order]
    total, kept = 0.0, []
    for cell, flops in zip(order, cost, strict=True):
        if total + flops <= spend:
            total += flops
            kept.append(cell)
    return pool.iloc[kept], total


@pytest.mark.parametrize("spend", [1e13, 2e13])
def test_chosen_runs_beat_a_uniform_grid_of_the_same_cost(sampled, spend):
    pool = candidates()
    chosen = next_runs(sampled, pool, TARGET, max_flops=spend)
    grid, cost = uniform_grid(pool, spend)
    assert chosen["cost"].sum() <= spend
    assert cost >= 0.9 * spend
    rng = np.random.default_rng(0)
    with_grid, with_chosen = sharpness(grid, rng), sharpness(chosen, rng)
    assert with_grid < sharpness(pool.iloc[:0], rng)
    assert with_chosen < 0.9 * with_grid


def test_variance_falls_with_every_run(sampled):
    chosen = next_runs(sampled, candidates(), [1e13, 1e14], count=6)
    assert chosen["rank"].tolist() == [1, 2, 3, 4, 5, 6]
    assert (chosen["sd_after"] < chosen["sd_before"]).all()
    np.testing.assert_allclose(chosen["sd_after"][:-1], chosen["sd_before"][1:])
    gain = (chosen["sd_before"] ** 2 - chosen["sd_after"] ** 2) / chosen["cost"]
    np.testing.assert_allclose(chosen["gain_per_flop"], gain)


def test_first_choice_is_the_best_single_run_by_brute_force(sampled):
    pool = candidates()
    single = [
        next_runs(sampled, pool.iloc[[i]], TARGET, count=1)["gain_per_flop"].iloc[0]
        for i in range(len(pool))
    ]
    best = next_runs(sampled, pool, TARGET, count=1)
    assert best["gain_per_flop"].iloc[0] == pytest.approx(max(single), rel=1e-9)
    assert best["params"].iloc[0] == pool["params"].iloc[int(np.argmax(single))]


def test_snapshots_make_a_run_worth_more(sampled):
    one = pd.DataFrame({"params": [3e4], "budget": [3e12]})
    many = one.assign(snapshots="3e10;3e11;3e12")
    gains = [next_runs(sampled, pool, TARGET, count=1)["sd_after"].iloc[0] for pool in (one, many)]
    assert gains[1] < gains[0]


def test_without_repeats_each_candidate_is_chosen_once(sampled):
    chosen = next_runs(sampled, candidates(), TARGET, count=8, repeats=False)
    assert not chosen.duplicated(["params", "budget"]).any()
    again = next_runs(sampled, candidates().iloc[[0]], TARGET, count=3)
    assert again["repeat"].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("pool", "options", "message"),
    [
        (candidates(), {}, "give max_flops=.* or count="),
        (candidates(), {"max_flops": 1e9}, r"no candidate fits into 1e\+09 FLOP; the smallest"),
        (candidates().iloc[:0], {"count": 1}, "there are no candidates"),
        (candidates().drop(columns="budget"), {"count": 1}, "no column 'budget'"),
        (candidates().assign(params=-1.0), {"count": 1}, "positive params"),
    ],
)
def test_bad_questions_are_refused(sampled, pool, options, message):
    with pytest.raises(PlanError, match=message):
        next_runs(sampled, pool, TARGET, **options)
