"""Replicates of a parametric fit, their shapes, and standard errors."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from size_grids import SURFACES, additive, grid, noisy_runs

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.parametric import fit_parametric

BUDGETS = np.array([1e18, 1e21])


def test_refit_is_the_fit_of_the_resampled_log():
    runs = noisy_runs()
    fit = fit_parametric(runs)
    counts = np.random.default_rng(3).multinomial(36, np.ones(36) / 36, 4)
    refitted = fit.refit(weights=counts)
    assert refitted.params_opt(BUDGETS).shape == (4, 2)
    for r in range(4):
        drawn = runs.iloc[np.repeat(np.arange(36), counts[r])].reset_index(drop=True)
        drawn["run_id"] = [f"draw{i}" for i in range(36)]
        alone = fit_parametric(drawn)
        np.testing.assert_allclose(
            refitted.params_opt(BUDGETS)[r], alone.params_opt(BUDGETS), rtol=1e-5
        )
        assert refitted.objective[r] == pytest.approx(float(alone.objective), rel=1e-9)
        assert refitted.replicate(r).params_opt(BUDGETS).shape == (2,)


def test_refit_to_responses_takes_them_in_the_units_of_the_target():
    fit = fit_parametric(noisy_runs())
    truth = SURFACES["asymmetric"]
    n, d = (fit.rows[name].to_numpy() for name in ("params", "samples"))
    refitted = fit.refit(response=np.stack([additive(truth, n, d), fit.fitted_values()]))
    for key, value in truth.items():
        assert refitted.parameters[key][0] == pytest.approx(value, rel=1e-6)
        assert refitted.parameters[key][1] == pytest.approx(float(fit.parameters[key]), rel=1e-6)
    np.testing.assert_allclose(refitted.fitted_values()[1], fit.fitted_values(), rtol=1e-9)


def test_shapes_of_inputs_broadcast_and_lead_with_the_replicate():
    fit = fit_parametric(noisy_runs())
    many = fit.refit(weights=np.ones((4, 36)))
    sizes, budgets = np.geomspace(1e6, 1e8, 3)[:, None], np.geomspace(1e18, 1e20, 5)
    assert fit.value(sizes, budgets).shape == (3, 5)
    assert many.value(sizes, budgets).shape == (4, 3, 5)
    assert many.value(1e7, budgets).shape == (4, 5)
    assert many.params_opt(1e20).shape == (4,)
    assert fit.params_opt(1e20).shape == ()
    np.testing.assert_allclose(
        many.value(many.params_opt(budgets), budgets), many.value_opt(budgets), rtol=1e-12
    )


def test_a_replicate_without_enough_sizes_is_invalid_and_spares_the_others():
    fit = fit_parametric(noisy_runs())
    two_sizes = fit.rows["params"].isin(np.sort(fit.rows["params"].unique())[:2]).to_numpy(float)
    refitted = fit.refit(weights=np.stack([two_sizes, np.ones(36)]))
    assert refitted.valid().tolist() == [False, True]


@pytest.mark.parametrize("name", ["params", "samples"])
def test_a_replicate_that_does_not_depend_on_one_input_is_invalid(name):
    fit = fit_parametric(noisy_runs())
    without = 2 + 400 / fit.rows["samples" if name == "params" else "params"].to_numpy() ** 0.3
    refitted = fit.refit(response=np.stack([without, fit.fitted_values()]))
    assert refitted.valid().tolist() == [False, True]


def test_a_response_without_a_logarithm_makes_its_replicate_invalid():
    fit = fit_parametric(noisy_runs())
    response = np.stack([fit.fitted_values()] * 2)
    response[0, 5] = -0.1
    assert fit.refit(response=response).valid().tolist() == [False, True]


def test_warm_and_full_restarts_differ_where_the_objective_has_several_minima():
    """Heavy-tailed noise on 25 rows: from the fit's own optimum some replicates end higher up."""
    fit = fit_parametric(noisy_runs(scale=0.02, sizes=5, lengths=5, df=2))
    weights = np.random.default_rng(5).multinomial(25, np.ones(25) / 25, 200).astype(float)
    warm = fit.refit(weights=weights)
    full = replace(fit, restarts="full").refit(weights=weights)
    assert (full.objective <= warm.objective * (1 + 1e-9)).all()
    better = full.objective < warm.objective * (1 - 1e-9)
    assert 1 <= better.sum() <= 20
    moved = np.abs(full.params_exponent - warm.params_exponent)
    assert moved[better].max() > 0.02
    np.testing.assert_allclose(moved[~better], 0, atol=1e-4)


def test_the_standard_error_is_the_spread_of_the_estimates():
    fits = [fit_parametric(noisy_runs(seed=s, sizes=8, lengths=8, df=30)) for s in range(8)]
    expected = additive(SURFACES["Chinchilla"], *grid(8, 8))
    noise = 0.01 * np.random.default_rng(1).standard_t(30, (400, 64))
    spread = fits[0].refit(response=expected * np.exp(noise))
    for name in ("alpha", "beta", "E", "params_exponent"):
        error = np.median([fit.standard_errors[name] for fit in fits])
        values = spread.params_exponent if name == "params_exponent" else spread.parameters[name]
        assert error == pytest.approx(np.std(values), rel=0.3), name


def test_rows_of_one_run_count_together_in_the_standard_error():
    runs = noisy_runs()
    doubled = pd.concat([runs, runs.assign(samples=runs.samples * (1 + 1e-9))], ignore_index=True)
    as_rows = doubled.assign(run_id=np.arange(72).astype(str))
    alone, together, apart = (
        fit_parametric(frame, delta=np.inf).standard_errors["alpha"]
        for frame in (runs, doubled, as_rows)
    )
    assert together == pytest.approx(alone, rel=1e-5)
    assert apart == pytest.approx(alone / np.sqrt(2) * np.sqrt(72 / 71 / (36 / 35)), rel=1e-5)


@pytest.mark.parametrize(
    ("refit", "match"),
    [
        ({"weights": np.ones((2, 35))}, r"weights has shape \(2, 35\), the fit 36 rows"),
        ({"response": np.ones((3, 35))}, r"response has shape \(3, 35\)"),
        (
            {"weights": np.ones((2, 36)), "response": np.ones((3, 36))},
            r"weights has shape \(2, 36\)",
        ),
        ({"weights": -np.ones(36)}, "weights must be finite and not negative"),
        ({"weights": np.full(36, np.nan)}, "weights must be finite and not negative"),
    ],
)
def test_bad_refits_are_refused(refit, match):
    with pytest.raises(FitError, match=match):
        fit_parametric(noisy_runs()).refit(**refit)


def test_replicates_cannot_be_refitted():
    with pytest.raises(FitError, match="these are replicates already"):
        fit_parametric(noisy_runs()).refit(weights=np.ones((2, 36))).refit()
