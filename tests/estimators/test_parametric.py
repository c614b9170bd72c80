"""fit_parametric: exact recovery, invariances, compute that is counted, repeated data."""

import json

import numpy as np
import pandas as pd
import pytest
from size_grids import SURFACES, additive, grid, make_runs, noisy_runs

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.parametric import ParametricFit, fit_parametric
from scaling_analysis.estimators.protocol import FrontierFit

BUDGETS = np.array([1e18, 1e21])
TRUTH = {
    "tied": {"E": 0.3, "A": 20.0, "B": 300.0, "alpha": 0.4},
    "kaplan": {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095},
    "repeated": {"E": 1.7, "A": 400.0, "alpha": 0.34, "B": 410.0, "beta": 0.28, "R_D": 15.4},
    "log_quadratic": {
        "c_0": 12.0,
        "c_N": -0.3,
        "c_D": -0.6,
        "c_NN": 0.012,
        "c_ND": -0.01,
        "c_DD": 0.013,
    },
}


def optimum(p, flops):
    """N_opt and L_opt of the additive law with k = 6, by the stationarity condition."""
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    n = g * (flops / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    return n, additive(p, n, flops / (6 * n))


@pytest.mark.parametrize("delta", [None, np.inf])
@pytest.mark.parametrize("name", SURFACES)
def test_exact_recovery_of_three_surfaces(name, delta):
    truth = SURFACES[name]
    n, d = grid()
    fit = fit_parametric(make_runs(additive(truth, n, d), n, d), delta=delta)
    for key, value in truth.items():
        assert float(fit.parameters[key]) == pytest.approx(value, rel=1e-6), key
    n_opt, loss = optimum(truth, BUDGETS)
    np.testing.assert_allclose(fit.params_opt(BUDGETS), n_opt, rtol=1e-6)
    np.testing.assert_allclose(fit.value_opt(BUDGETS), loss, rtol=1e-6)
    assert fit.status is FitStatus.OK
    assert fit.valid()


@pytest.mark.parametrize("form", TRUTH)
def test_exact_recovery_of_every_other_form(form):
    p = TRUTH[form]
    n, d = grid()
    unique = np.where(np.arange(len(n)) % 2, d, d / 8)
    if form == "tied":
        loss = p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["alpha"]
    elif form == "kaplan":
        size_part = (p["N_c"] / n) ** (p["alpha_N"] / p["alpha_D"])
        loss = (size_part + p["D_c"] / d) ** p["alpha_D"]
    elif form == "repeated":
        worth = unique * (1 + p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"])))
        loss = additive(p, n, worth)
    else:
        x, z = np.log(n), np.log(d)
        linear = p["c_0"] + p["c_N"] * x + p["c_D"] * z
        loss = np.exp(linear + p["c_NN"] * x**2 + p["c_ND"] * x * z + p["c_DD"] * z**2)
    fit = fit_parametric(make_runs(loss, n, d, unique_samples=unique), form)
    for key, value in p.items():
        assert float(fit.parameters[key]) == pytest.approx(value, rel=1e-6), key
    np.testing.assert_allclose(fit.fitted_values(), loss, rtol=1e-9)


def test_a_ceiling_of_returns_in_linear_space_is_recovered():
    n, d = grid()
    reward = 50.0 - 3000 / n**0.3 - 4000 / d**0.35
    assert reward.min() < 0
    runs = make_runs(reward, n, d, protocol="p").rename(columns={"loss": "mean_return"})
    fit = fit_parametric(runs, target="mean_return", residual_space="linear")
    assert float(fit.parameters["E"]) == pytest.approx(-50, rel=1e-6)
    assert float(fit.parameters["alpha"]) == pytest.approx(0.3, rel=1e-6)
    np.testing.assert_allclose(fit.fitted_values(), reward, rtol=1e-9, atol=1e-9)
    assert (np.diff(fit.value_opt(np.geomspace(1e16, 1e22, 9))) > 0).all()


def test_returns_in_log_space_are_the_inverse_of_a_sum():
    n, d = grid()
    reward = 1 / (2e-4 + 3 / n**0.5 + 40 / d**0.5)
    runs = make_runs(reward, n, d, protocol="p").rename(columns={"loss": "mean_return"})
    fit = fit_parametric(runs, target="mean_return")
    assert float(fit.parameters["E"]) == pytest.approx(2e-4, rel=1e-6)
    np.testing.assert_allclose(fit.fitted_values(), reward, rtol=1e-9)
    assert "1/mean_return = E + A/N^alpha + B/D^beta" in fit.summary()


@pytest.mark.parametrize("form", ["additive", "tied", "kaplan", "log_quadratic"])
def test_budget_is_spent_and_exponents_add_up(form):
    fit = fit_parametric(noisy_runs(), form)
    c = np.geomspace(1e16, 1e24, 7)
    np.testing.assert_allclose(6 * fit.params_opt(c) * fit.samples_opt(c), c, rtol=1e-12)
    slope = np.diff(np.log(fit.params_opt(c))) / np.diff(np.log(c))
    np.testing.assert_allclose(slope, float(fit.params_exponent), rtol=1e-9)
    np.testing.assert_allclose(fit.value(fit.params_opt(c), c), fit.value_opt(c), rtol=1e-12)
    assert (fit.value(2 * fit.params_opt(c), c) > fit.value_opt(c)).all()
    assert (fit.value(0.5 * fit.params_opt(c), c) > fit.value_opt(c)).all()


def test_row_order_does_not_matter():
    runs = noisy_runs()
    shuffled = runs.sample(frac=1, random_state=np.random.default_rng(1))
    a, b = fit_parametric(runs), fit_parametric(shuffled)
    for key in a.parameters:
        np.testing.assert_allclose(b.parameters[key], a.parameters[key], rtol=1e-6)


def test_units_do_not_matter():
    """Sizes in millions, samples in billions, loss in bits: the same frontier in those units."""
    runs = noisy_runs()
    bits = runs.assign(
        params=runs.params / 1e6, samples=runs.samples / 1e9, loss=runs.loss / np.log(2)
    )
    a, b = fit_parametric(runs), fit_parametric(bits)
    np.testing.assert_allclose(b.params_opt(BUDGETS) * 1e6, a.params_opt(BUDGETS), rtol=1e-5)
    np.testing.assert_allclose(b.value_opt(BUDGETS) * np.log(2), a.value_opt(BUDGETS), rtol=1e-7)
    np.testing.assert_allclose(float(b.objective), float(a.objective), rtol=1e-9)


@pytest.mark.parametrize("replicates", [False, True])
def test_json_round_trip(replicates):
    fit = fit_parametric(noisy_runs())
    if replicates:
        fit = fit.refit(weights=np.random.default_rng(2).multinomial(36, np.ones(36) / 36, 5))
    again = ParametricFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert isinstance(again, FrontierFit)
    assert again.summary() == fit.summary()
    np.testing.assert_array_equal(again.value_opt(BUDGETS), fit.value_opt(BUDGETS))
    np.testing.assert_array_equal(again.valid(), fit.valid())
    pd.testing.assert_frame_equal(again.rows, fit.rows, check_dtype=False)
    if not replicates:
        np.testing.assert_array_equal(
            again.refit(weights=np.ones(36)).value_opt(BUDGETS),
            fit.refit(weights=np.ones(36)).value_opt(BUDGETS),
        )


def test_counted_flops_that_are_no_multiple_of_params_bend_the_frontier():
    truth = SURFACES["Chinchilla"]
    n, d = grid(9, 6)
    flops_per_sample = 900 * n**0.75 + 6 * n
    fit = fit_parametric(make_runs(additive(truth, n, d), n, d).assign(flops=flops_per_sample * d))
    assert fit.cost.constant is None
    assert any("C/(N D) drifts" in message for message in fit.messages)
    c = np.array([1e17, 1e20])
    n_opt = fit.params_opt(c)
    np.testing.assert_allclose(fit.cost.flops(n_opt, fit.samples_opt(c)), c, rtol=1e-10)
    for factor in (0.97, 1.03):
        assert (fit.value(factor * n_opt, c) > fit.value_opt(c)).all()
    many = fit.refit(weights=np.ones((3, len(n))))
    np.testing.assert_allclose(many.params_opt(c), np.tile(n_opt, (3, 1)), rtol=1e-6)
    assert float(fit.params_exponent) != pytest.approx(0.28 / 0.62, abs=0.01)


def test_params_core_can_stand_for_the_size():
    truth = SURFACES["Chinchilla"]
    n, d = grid()
    runs = make_runs(additive(truth, n, d), n, d).assign(params=n + 5e6, params_core=n)
    fit = fit_parametric(runs, size="params_core")
    assert float(fit.parameters["alpha"]) == pytest.approx(0.34, rel=1e-6)
    assert "N is params_core" in fit.summary()


def test_a_cap_on_unique_samples_moves_the_optimum_to_larger_models():
    p, (n, d) = TRUTH["repeated"], grid()
    unique = np.where(np.arange(len(n)) % 2, d, d / 8)
    worth = unique * (1 + p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"])))
    fit = fit_parametric(make_runs(additive(p, n, worth), n, d, unique_samples=unique), "repeated")
    free, c = fit.params_opt(1e22), 1e22
    cap = float(fit.samples_opt(c)) / 20
    assert fit.params_opt(c, unique_samples=cap) > 1.05 * free
    assert fit.value_opt(c, unique_samples=cap) > fit.value_opt(c)
    np.testing.assert_allclose(fit.params_opt(c, unique_samples=1e30), free, rtol=1e-9)
    with pytest.raises(FitError, match="form='additive' does not know what repeated"):
        fit_parametric(noisy_runs()).params_opt(c, unique_samples=cap)
    with pytest.raises(FitError, match="form='additive' does not know what repeated"):
        fit_parametric(noisy_runs()).value(1e8, c, unique_samples=cap)
