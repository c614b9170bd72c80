"""fit_parametric: exact recovery, invariances, refits, what it refuses and what it says."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import FitError, FitStatus, RunLogError
from scaling_analysis.estimators.parametric import ParametricFit, fit_parametric
from scaling_analysis.estimators.protocol import FrontierFit
from scaling_analysis.runlog import load_runs

SURFACES = {
    "symmetric": {"E": 1.5, "A": 400.0, "alpha": 0.33, "B": 400.0, "beta": 0.33},
    "Chinchilla": {"E": 1.69, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
    "asymmetric": {"E": 1.7, "A": 1000.0, "alpha": 0.465, "B": 40.0, "beta": 0.155},
}
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


def _grid(sizes=6, lengths=6):
    n = np.tile(np.geomspace(1e6, 1e9, sizes), lengths)
    d = np.repeat(np.geomspace(1e8, 1e11, lengths), sizes)
    return n, d


def _runs(loss, n, d, **columns):
    ids = [f"run{i}" for i in range(len(n))]
    frame = {"run_id": ids, "params": n, "samples": d, "flops": 6 * n * d, "loss": loss}
    return pd.DataFrame({**frame, **columns})


def _additive(p, n, d):
    return p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["beta"]


def _noisy(scale=0.01, seed=0, sizes=6, lengths=6, df=3):
    n, d = _grid(sizes, lengths)
    noise = scale * np.random.default_rng(seed).standard_t(df, len(n))
    return _runs(_additive(SURFACES["Chinchilla"], n, d) * np.exp(noise), n, d)


def _optimum(p, flops):
    """N_opt and L_opt of the additive law with k = 6, by the stationarity condition."""
    g = (p["alpha"] * p["A"] / (p["beta"] * p["B"])) ** (1 / (p["alpha"] + p["beta"]))
    n = g * (flops / 6) ** (p["beta"] / (p["alpha"] + p["beta"]))
    return n, _additive(p, n, flops / (6 * n))


@pytest.mark.parametrize("delta", [None, np.inf])
@pytest.mark.parametrize("name", SURFACES)
def test_exact_recovery_of_three_surfaces(name, delta):
    truth = SURFACES[name]
    n, d = _grid()
    fit = fit_parametric(_runs(_additive(truth, n, d), n, d), delta=delta)
    for key, value in truth.items():
        assert float(fit.parameters[key]) == pytest.approx(value, rel=1e-6), key
    n_opt, loss = _optimum(truth, BUDGETS)
    np.testing.assert_allclose(fit.params_opt(BUDGETS), n_opt, rtol=1e-6)
    np.testing.assert_allclose(fit.value_opt(BUDGETS), loss, rtol=1e-6)
    assert fit.status is FitStatus.OK
    assert fit.valid()


@pytest.mark.parametrize("form", TRUTH)
def test_exact_recovery_of_every_other_form(form):
    p = TRUTH[form]
    n, d = _grid()
    unique = np.where(np.arange(len(n)) % 2, d, d / 8)
    if form == "tied":
        loss = p["E"] + p["A"] / n ** p["alpha"] + p["B"] / d ** p["alpha"]
    elif form == "kaplan":
        size_part = (p["N_c"] / n) ** (p["alpha_N"] / p["alpha_D"])
        loss = (size_part + p["D_c"] / d) ** p["alpha_D"]
    elif form == "repeated":
        worth = unique * (1 + p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"])))
        loss = _additive(p, n, worth)
    else:
        x, z = np.log(n), np.log(d)
        linear = p["c_0"] + p["c_N"] * x + p["c_D"] * z
        loss = np.exp(linear + p["c_NN"] * x**2 + p["c_ND"] * x * z + p["c_DD"] * z**2)
    fit = fit_parametric(_runs(loss, n, d, unique_samples=unique), form)
    for key, value in p.items():
        assert float(fit.parameters[key]) == pytest.approx(value, rel=1e-6), key
    np.testing.assert_allclose(fit.fitted_values(), loss, rtol=1e-9)


def test_a_ceiling_of_returns_in_linear_space_is_recovered():
    n, d = _grid()
    reward = 50.0 - 3000 / n**0.3 - 4000 / d**0.35
    assert reward.min() < 0
    runs = _runs(reward, n, d, protocol="p").rename(columns={"loss": "mean_return"})
    fit = fit_parametric(runs, target="mean_return", residual_space="linear")
    assert float(fit.parameters["E"]) == pytest.approx(-50, rel=1e-6)
    assert float(fit.parameters["alpha"]) == pytest.approx(0.3, rel=1e-6)
    np.testing.assert_allclose(fit.fitted_values(), reward, rtol=1e-9, atol=1e-9)
    assert (np.diff(fit.value_opt(np.geomspace(1e16, 1e22, 9))) > 0).all()


def test_returns_in_log_space_are_the_inverse_of_a_sum():
    n, d = _grid()
    reward = 1 / (2e-4 + 3 / n**0.5 + 40 / d**0.5)
    runs = _runs(reward, n, d, protocol="p").rename(columns={"loss": "mean_return"})
    fit = fit_parametric(runs, target="mean_return")
    assert float(fit.parameters["E"]) == pytest.approx(2e-4, rel=1e-6)
    np.testing.assert_allclose(fit.fitted_values(), reward, rtol=1e-9)
    assert "1/mean_return = E + A/N^alpha + B/D^beta" in fit.summary()


@pytest.mark.parametrize("form", ["additive", "tied", "kaplan", "log_quadratic"])
def test_budget_is_spent_and_exponents_add_up(form):
    fit = fit_parametric(_noisy(), form)
    c = np.geomspace(1e16, 1e24, 7)
    np.testing.assert_allclose(6 * fit.params_opt(c) * fit.samples_opt(c), c, rtol=1e-12)
    slope = np.diff(np.log(fit.params_opt(c))) / np.diff(np.log(c))
    np.testing.assert_allclose(slope, float(fit.params_exponent), rtol=1e-9)
    np.testing.assert_allclose(fit.value(fit.params_opt(c), c), fit.value_opt(c), rtol=1e-12)
    assert (fit.value(2 * fit.params_opt(c), c) > fit.value_opt(c)).all()
    assert (fit.value(0.5 * fit.params_opt(c), c) > fit.value_opt(c)).all()


def test_row_order_does_not_matter():
    runs = _noisy()
    shuffled = runs.sample(frac=1, random_state=np.random.default_rng(1))
    a, b = fit_parametric(runs), fit_parametric(shuffled)
    for key in a.parameters:
        np.testing.assert_allclose(b.parameters[key], a.parameters[key], rtol=1e-6)


def test_units_do_not_matter():
    """Sizes in millions, samples in billions, loss in bits: the same frontier in those units."""
    runs = _noisy()
    bits = runs.assign(
        params=runs.params / 1e6, samples=runs.samples / 1e9, loss=runs.loss / np.log(2)
    )
    a, b = fit_parametric(runs), fit_parametric(bits)
    np.testing.assert_allclose(b.params_opt(BUDGETS) * 1e6, a.params_opt(BUDGETS), rtol=1e-5)
    np.testing.assert_allclose(b.value_opt(BUDGETS) * np.log(2), a.value_opt(BUDGETS), rtol=1e-7)
    np.testing.assert_allclose(float(b.objective), float(a.objective), rtol=1e-9)


@pytest.mark.parametrize("replicates", [False, True])
def test_json_round_trip(replicates):
    fit = fit_parametric(_noisy())
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


def test_refit_is_the_fit_of_the_resampled_log():
    runs = _noisy()
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
    fit = fit_parametric(_noisy())
    truth = SURFACES["asymmetric"]
    n, d = (fit.rows[name].to_numpy() for name in ("params", "samples"))
    refitted = fit.refit(response=np.stack([_additive(truth, n, d), fit.fitted_values()]))
    for key, value in truth.items():
        assert refitted.parameters[key][0] == pytest.approx(value, rel=1e-6)
        assert refitted.parameters[key][1] == pytest.approx(float(fit.parameters[key]), rel=1e-6)
    np.testing.assert_allclose(refitted.fitted_values()[1], fit.fitted_values(), rtol=1e-9)


def test_shapes_of_inputs_broadcast_and_lead_with_the_replicate():
    fit = fit_parametric(_noisy())
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
    fit = fit_parametric(_noisy())
    two_sizes = fit.rows["params"].isin(np.sort(fit.rows["params"].unique())[:2]).to_numpy(float)
    refitted = fit.refit(weights=np.stack([two_sizes, np.ones(36)]))
    assert refitted.valid().tolist() == [False, True]


@pytest.mark.parametrize("name", ["params", "samples"])
def test_a_replicate_that_does_not_depend_on_one_input_is_invalid(name):
    fit = fit_parametric(_noisy())
    without = 2 + 400 / fit.rows["samples" if name == "params" else "params"].to_numpy() ** 0.3
    refitted = fit.refit(response=np.stack([without, fit.fitted_values()]))
    assert refitted.valid().tolist() == [False, True]


def test_a_response_without_a_logarithm_makes_its_replicate_invalid():
    fit = fit_parametric(_noisy())
    response = np.stack([fit.fitted_values()] * 2)
    response[0, 5] = -0.1
    assert fit.refit(response=response).valid().tolist() == [False, True]


def test_warm_and_full_restarts_differ_where_the_objective_has_several_minima():
    """Heavy-tailed noise on 25 rows: from the fit's own optimum some replicates end higher up."""
    fit = fit_parametric(_noisy(scale=0.02, sizes=5, lengths=5, df=2))
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
    fits = [fit_parametric(_noisy(seed=s, sizes=8, lengths=8, df=30)) for s in range(8)]
    expected = _additive(SURFACES["Chinchilla"], *_grid(8, 8))
    noise = 0.01 * np.random.default_rng(1).standard_t(30, (400, 64))
    spread = fits[0].refit(response=expected * np.exp(noise))
    for name in ("alpha", "beta", "E", "params_exponent"):
        error = np.median([fit.standard_errors[name] for fit in fits])
        values = spread.params_exponent if name == "params_exponent" else spread.parameters[name]
        assert error == pytest.approx(np.std(values), rel=0.3), name


def test_rows_of_one_run_count_together_in_the_standard_error():
    runs = _noisy()
    doubled = pd.concat([runs, runs.assign(samples=runs.samples * (1 + 1e-9))], ignore_index=True)
    as_rows = doubled.assign(run_id=np.arange(72).astype(str))
    alone, together, apart = (
        fit_parametric(frame, delta=np.inf).standard_errors["alpha"]
        for frame in (runs, doubled, as_rows)
    )
    assert together == pytest.approx(alone, rel=1e-5)
    assert apart == pytest.approx(alone / np.sqrt(2) * np.sqrt(72 / 71 / (36 / 35)), rel=1e-5)


def test_counted_flops_that_are_no_multiple_of_params_bend_the_frontier():
    truth = SURFACES["Chinchilla"]
    n, d = _grid(9, 6)
    flops_per_sample = 900 * n**0.75 + 6 * n
    fit = fit_parametric(_runs(_additive(truth, n, d), n, d).assign(flops=flops_per_sample * d))
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
    n, d = _grid()
    runs = _runs(_additive(truth, n, d), n, d).assign(params=n + 5e6, params_core=n)
    fit = fit_parametric(runs, size="params_core")
    assert float(fit.parameters["alpha"]) == pytest.approx(0.34, rel=1e-6)
    assert "N is params_core" in fit.summary()


def test_a_cap_on_unique_samples_moves_the_optimum_to_larger_models():
    p, (n, d) = TRUTH["repeated"], _grid()
    unique = np.where(np.arange(len(n)) % 2, d, d / 8)
    worth = unique * (1 + p["R_D"] * (1 - np.exp(-(d / unique - 1) / p["R_D"])))
    fit = fit_parametric(_runs(_additive(p, n, worth), n, d, unique_samples=unique), "repeated")
    free, c = fit.params_opt(1e22), 1e22
    cap = float(fit.samples_opt(c)) / 20
    assert fit.params_opt(c, unique_samples=cap) > 1.05 * free
    assert fit.value_opt(c, unique_samples=cap) > fit.value_opt(c)
    np.testing.assert_allclose(fit.params_opt(c, unique_samples=1e30), free, rtol=1e-9)
    with pytest.raises(FitError, match="form='additive' does not know what repeated"):
        fit_parametric(_noisy()).params_opt(c, unique_samples=cap)
    with pytest.raises(FitError, match="form='additive' does not know what repeated"):
        fit_parametric(_noisy()).value(1e8, c, unique_samples=cap)


def test_filters_choose_rows_and_are_recorded():
    runs = _noisy()
    fit = fit_parametric(runs, min_samples=3e8, where="params < 5e8")
    assert (fit.rows.samples >= 3e8).all()
    assert (fit.rows.params < 5e8).all()
    assert "filters: min_samples = 300000000.0, where = params < 5e8" in fit.summary()


def test_a_frame_that_was_not_loaded_is_checked_before_it_is_filtered():
    n, d = _grid()
    frame = pd.DataFrame({"params": n, "flops": 6 * n * d, "loss": _noisy().loss})
    fit = fit_parametric(load_runs(frame, cost_constant=6), min_samples=3e8)
    assert len(fit.rows) == (d >= 3e8 * (1 - 1e-12)).sum()
    with pytest.raises(RunLogError, match="cost_constant"):
        fit_parametric(frame, min_samples=3e8)


def test_rows_that_are_not_ok_stay_out():
    runs = _noisy()
    runs["status"], runs["note"] = "ok", ""
    spoilt = runs.copy()
    spoilt.loc[3, ["status", "loss"]] = ["diverged", 90.0]
    fit = fit_parametric(spoilt)
    assert len(fit.rows) == 35
    expected = fit_parametric(runs.drop(index=3))
    assert float(fit.objective) == pytest.approx(float(expected.objective), rel=1e-9)


def test_a_law_without_a_floor_is_said_to_have_none():
    n, d = _grid()
    loss = 400 / n**0.34 + 410 / d**0.28 - 0.2  # falls faster than any sum of powers
    noise = 0.002 * np.random.default_rng(1).normal(size=len(n))
    fit = fit_parametric(_runs(loss * np.exp(noise), n, d))
    assert fit.status is FitStatus.DOUBTFUL
    assert fit.parameters["E"] == 0
    assert "the floor E went to zero" in fit.messages[0]
    assert fit.summary().splitlines()[1:3] == ["status: doubtful", f"  - {fit.messages[0]}"]


def test_early_rows_under_another_law_are_found():
    truth = SURFACES["Chinchilla"]
    n, d = _grid(8, 10)
    loss = _additive(truth, n, d) * (1 + (2e8 / d) ** 2 * np.log(n / 1e5) / 5)
    noise = 0.002 * np.random.default_rng(2).normal(size=len(n))
    fit = fit_parametric(_runs(loss * np.exp(noise), n, d))
    assert any(
        "without the 16 rows of fewer than 4.64e+08 samples the exponent" in m
        and "consider min_samples" in m
        for m in fit.messages
    ), fit.messages


def test_few_sizes_and_repeated_data_are_noted():
    n, d = _grid(3, 8)
    loss = _additive(SURFACES["Chinchilla"], n, d)
    fit = fit_parametric(_runs(loss, n, d, unique_samples=d / 3))
    assert "N takes only 3 distinct values" in fit.messages
    assert any("up to 3.0 passes over the data" in m for m in fit.messages)
    assert fit.status is FitStatus.OK


def test_summary_of_a_good_fit():
    n, d = _grid()
    assert fit_parametric(_runs(_additive(SURFACES["Chinchilla"], n, d), n, d), delta=np.inf)
    fit = fit_parametric(_noisy(scale=0.005, df=30))
    lines = fit.summary().splitlines()
    assert lines[0] == "parametric-additive fit of loss: loss = E + A/N^alpha + B/D^beta"
    assert lines[1] == "status: ok"
    assert lines[2] == ("36 rows of 36 runs; N 1e+06 to 1e+09; D 1e+08 to 1e+11; C 6e+14 to 6e+20")
    assert lines[3].startswith("residuals of log loss by Huber's loss, knee 0.001; objective ")
    assert lines[5] == "parameter              value  std. error   (by run)"
    assert [line.split()[0] for line in lines[6:12]] == [*fit.parameters, "params_exponent"]
    assert lines[-1].startswith("at C = 6e+21: N_opt ")
    assert fit.summary() in fit._repr_html_().replace("&#x27;", "'")
    assert fit.to_frame().loc["alpha", "value"] == float(fit.parameters["alpha"])


def test_summary_of_replicates_counts_the_valid_ones():
    many = fit_parametric(_noisy()).refit(weights=np.ones((4, 36)))
    assert many.summary() == "parametric-additive fit of loss: 4 replicates, 4 of them valid"


N, D = _grid()
LOSS = _additive(SURFACES["Chinchilla"], N, D)


@pytest.mark.parametrize(
    ("runs", "options", "match"),
    [
        (_runs(LOSS, N, D), {"form": "cubic"}, "form is 'cubic': choose one of additive, tied"),
        (_runs(LOSS, N, D), {"residual_space": "sqrt"}, "residual_space is 'sqrt'"),
        (_runs(LOSS, N, D), {"restarts": "cold"}, "restarts is 'cold'"),
        (_runs(LOSS, N, D), {"delta": 0.0}, "delta is 0.0: the knee of Huber's loss"),
        (_runs(LOSS, N, D), {"target": "accuracy"}, "target is 'accuracy'"),
        (_runs(LOSS, N, D), {"form": "kaplan", "residual_space": "linear"}, "fitted in log space"),
        (_runs(LOSS, N, D), {"form": "repeated"}, "needs the column unique_samples"),
        (
            _runs(LOSS, N, D, unique_samples=D),
            {"form": "repeated"},
            "no row has more samples than unique_samples",
        ),
        (_runs(LOSS, N, D), {"min_samples": 1e15}, "no row is left after"),
        (_runs(LOSS, N, D), {"where": "width > 3"}, "where='width > 3' is no filter .* 'width' is"),
        (_runs(LOSS, N, D), {"where": "params >"}, "where='params >' is no filter of these runs"),
        (_runs(LOSS, N, D)[N < 5e6], {}, "params takes 2 distinct values in 12 rows"),
        (_runs(LOSS, N, D)[D < 5e8], {}, "samples takes 2 distinct values in 12 rows"),
        (_runs(LOSS, N, D)[::7], {"form": "log_quadratic"}, "6 rows: form='log_quadratic' needs"),
        (_runs(0 * LOSS + 2, N, D), {}, "loss is 2 in every row"),
        (_runs(LOSS - 3, N, D), {}, "loss is .* in run 'run.*', which has no logarithm"),
        (
            _runs(np.exp(-((np.log(N) - 16) ** 2) / 50) / D**0.1, N, D),
            {"form": "log_quadratic"},
            "has no minimum",
        ),
        (_runs(2 + 0 * N + 400 / D**0.3, N, D), {}, "loss does not change with params"),
    ],
)
def test_what_cannot_be_fitted_is_refused(runs, options, match):
    with pytest.raises(FitError, match=match):
        fit_parametric(runs, **options)


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
        fit_parametric(_noisy()).refit(**refit)


def test_replicates_cannot_be_refitted():
    with pytest.raises(FitError, match="these are replicates already"):
        fit_parametric(_noisy()).refit(weights=np.ones((2, 36))).refit()
