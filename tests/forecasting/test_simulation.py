import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, SymmetricSurface

ADDITIVE = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
SYMMETRIC = SymmetricSurface(
    floor=0.12, scale=60.0, exponent=0.15, params_scale=3e-4, params_exponent=0.6, curvature=0.02
)
BUDGETS = np.geomspace(1e14, 1e18, 5)
SIZES = np.geomspace(1e5, 1e9, 9)


@given(
    st.floats(0.1, 0.9),
    st.floats(0.1, 0.9),
    st.floats(1, 1e3),
    st.floats(1, 1e3),
    st.floats(12, 26),
)
def test_the_closed_form_optimum_is_the_minimum(alpha, beta, a, b, log10_flops):
    law = AdditiveSurface(E=1.0, A=a, alpha=alpha, B=b, beta=beta)
    c = 10**log10_flops
    n = law.params_opt(c)
    assert law.value(n, c) == pytest.approx(law.value_opt(c), rel=1e-12)
    assert law.value(1.05 * n, c) >= law.value_opt(c)
    assert law.value(n / 1.05, c) >= law.value_opt(c)


@pytest.mark.parametrize("law", [ADDITIVE, SYMMETRIC])
def test_without_noise_a_log_is_the_law(law):
    runs = sa.simulate_runs(law, SIZES, BUDGETS)
    assert len(runs) == 45
    assert runs["run_id"].nunique() == 9
    np.testing.assert_allclose(runs["loss"], law.value(runs["params"], runs["flops"]))
    np.testing.assert_allclose(runs["flops"], 6 * runs["params"] * runs["samples"])
    assert (runs["status"] == "ok").all()


def test_single_runs_and_seeds():
    runs = sa.simulate_runs(ADDITIVE, SIZES, BUDGETS, snapshots=False, seeds=[3, 8])
    assert runs["run_id"].nunique() == len(runs) == 90
    assert set(runs["seed"]) == {3, 8}


def test_a_band_of_sizes_around_the_optimum():
    runs = sa.simulate_runs(ADDITIVE, SIZES, BUDGETS, sizes_per_budget=4)
    for budget, rows in runs.groupby("budget"):
        assert len(rows) == 4
        distance = np.abs(np.log(SIZES / ADDITIVE.params_opt(budget)))
        expected = np.sort(SIZES[np.argsort(distance)[:4]])
        np.testing.assert_allclose(np.sort(rows["params"]), expected)


def _log_noise(**options):
    runs = sa.simulate_runs(ADDITIVE, SIZES, BUDGETS, seeds=200, **options)
    return runs.assign(noise=np.log(runs["loss"] / ADDITIVE.value(runs["params"], runs["flops"])))


def test_run_noise_is_shared_by_the_rows_of_a_run():
    runs = _log_noise(run_noise=0.03)
    assert (runs.groupby("run_id")["noise"].std() < 1e-12).all()
    assert runs.groupby("run_id")["noise"].first().std() == pytest.approx(0.03, rel=0.1)


def test_seed_noise_is_shared_by_the_runs_of_a_seed():
    runs = _log_noise(seed_noise=0.03)
    assert (runs.groupby("seed")["noise"].std() < 1e-12).all()
    assert runs.groupby("seed")["noise"].first().std() == pytest.approx(0.03, rel=0.2)


def test_checkpoint_noise_is_every_rows_own():
    runs = _log_noise(checkpoint_noise=0.03)
    assert runs["noise"].std() == pytest.approx(0.03, rel=0.05)
    between = runs.groupby("run_id")["noise"].mean().std()
    assert between == pytest.approx(0.03 / np.sqrt(5), rel=0.1)


def test_evaluation_noise_has_the_standard_error_that_is_logged():
    runs = _log_noise(evaluation_noise=0.01)
    error = runs["loss"] - ADDITIVE.value(runs["params"], runs["flops"])
    assert (error / runs["loss_se"]).std() == pytest.approx(1.0, rel=0.05)


def test_returns_follow_the_link_with_the_noise_of_their_episodes():
    runs = sa.simulate_runs(
        ADDITIVE,
        SIZES,
        BUDGETS,
        seeds=200,
        link=lambda loss: 100 / loss**2,
        episodes=64,
        episode_spread=0.8,
    )
    expected = 100 / runs["loss"] ** 2
    error = (runs["mean_return"] - expected) / expected
    assert error.mean() == pytest.approx(0.0, abs=5e-3)
    assert error.std() == pytest.approx(0.8 / 8, rel=0.05)
    assert (runs["return_se"] / runs["mean_return"]).mean() == pytest.approx(0.1, rel=1e-6)
    assert (runs["episodes"] == 64).all()
    assert runs["protocol"].nunique() == 1


def test_a_fit_can_be_the_law():
    known = sa.simulate_runs(SYMMETRIC, SIZES, BUDGETS)
    fit = sa.fit_isoflop(known, window=None, value_law="floor")
    runs = sa.simulate_runs(fit, SIZES, BUDGETS)
    np.testing.assert_allclose(runs["loss"], known["loss"], rtol=1e-6)


def test_same_seed_same_log():
    options = {"run_noise": 0.01, "checkpoint_noise": 0.01}
    one, two, other = (
        sa.simulate_runs(ADDITIVE, SIZES, BUDGETS, rng=rng, **options) for rng in (1, 1, 2)
    )
    assert one.equals(two)
    assert not one.equals(other)


def test_what_cannot_be_simulated_is_refused():
    with pytest.raises(sa.ScalingError, match="at least one size"):
        sa.simulate_runs(ADDITIVE, [], BUDGETS)
    with pytest.raises(sa.ScalingError, match="not positive"):
        sa.simulate_runs(ADDITIVE, SIZES, BUDGETS, link=lambda loss: -loss)
