import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, SymmetricSurface
from scaling_analysis.laws.profiles import SliceState

SYMMETRIC = SymmetricSurface(
    floor=0.12, scale=60.0, exponent=0.15, params_scale=3e-4, params_exponent=0.6, curvature=0.02
)
ADDITIVE = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
BUDGETS = np.geomspace(1e15, 1e18, 7)


def centred(law, budgets=BUDGETS, sizes=9, factor=16.0):
    """A sweep of single runs, evenly spread in log N around the optimum of every budget."""
    parts = []
    for c in budgets:
        n = law.params_opt(c) * np.geomspace(1 / factor, factor, sizes)
        parts.append(pd.DataFrame({"params": n, "flops": c, "loss": law.value(n, c)}))
    runs = pd.concat(parts, ignore_index=True)
    runs["samples"] = law.cost.samples(runs["params"], runs["flops"])
    return sa.load_runs(runs.assign(budget=runs["flops"]))


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("optimum", ["vertex", "cubic"])
def test_a_symmetric_surface_is_recovered_exactly(optimum, window):
    fit = sa.fit_isoflop(centred(SYMMETRIC), optimum=optimum, window=window, value_law="floor")
    far = np.array([1e16, 1e21])
    np.testing.assert_allclose(fit.laws.params_exponent, 0.6, rtol=1e-6)
    np.testing.assert_allclose(fit.params_opt(far), SYMMETRIC.params_opt(far), rtol=1e-6)
    np.testing.assert_allclose(fit.value_opt(far), SYMMETRIC.value_opt(far), rtol=1e-6)
    np.testing.assert_allclose(fit.laws.value_exponent, -0.15, rtol=1e-6)
    np.testing.assert_allclose(fit.laws.value_floor, 0.12, rtol=1e-6)
    n, c = 3 * SYMMETRIC.params_opt(3e16), 3e16
    np.testing.assert_allclose(fit.value(n, c), SYMMETRIC.value(n, c), rtol=1e-6)


def test_a_return_with_a_maximum_is_recovered_exactly():
    runs = centred(SYMMETRIC)
    peak = 5.0 * runs["flops"] ** 0.15
    away = np.log(runs["params"] / SYMMETRIC.params_opt(runs["flops"]))
    runs["mean_return"] = peak - 30.0 * away**2
    runs["protocol"] = "test-1"
    fit = sa.fit_isoflop(runs, "mean_return", window=None, value_law="power")
    np.testing.assert_allclose(fit.laws.params_exponent, 0.6, rtol=1e-6)
    np.testing.assert_allclose(fit.value_opt(1e20), 5.0 * 1e20**0.15, rtol=1e-6)
    np.testing.assert_allclose(fit.slices.curvature, -30.0, rtol=1e-6)


def test_the_inverse_form_of_a_return_is_recovered_exactly():
    runs = centred(SYMMETRIC)
    peak = 1 / (2.0 * (runs["flops"] / 1e15) ** -0.5 + 1e-3)
    away = np.log(runs["params"] / SYMMETRIC.params_opt(runs["flops"]))
    runs["mean_return"] = peak * (1 - 0.02 * away**2)
    runs["protocol"] = "test-1"
    fit = sa.fit_isoflop(runs, "mean_return", value_law="inverse")
    np.testing.assert_allclose(fit.laws.value_exponent, -0.5, rtol=1e-6)
    np.testing.assert_allclose(fit.value_opt(1e25), 1 / 1.02e-3, rtol=1e-6)


def test_d_opt_comes_from_the_counted_flop_where_no_constant_holds():
    runs = centred(SYMMETRIC)
    runs["samples"] = runs["flops"] / (40 * runs["params"] ** 0.8)
    fit = sa.fit_isoflop(sa.load_runs(runs))
    assert fit.cost.constant is None
    n = fit.params_opt(1e17)
    np.testing.assert_allclose(fit.samples_opt(1e17), 1e17 / (40 * n**0.8), rtol=1e-6)


@pytest.mark.parametrize(
    ("sizes", "target", "remedy"),
    [
        (1, "loss", r"\(1 size\): too few for this polynomial. Run 3 sizes or more at each of 3"),
        (3, "loss", r"7 from 1e\+15 to 1e\+18 FLOP \(3 sizes\): .* fit_parametric\(runs\)$"),
        (3, "mean_return", "Run sizes on both sides of the optimum$"),
    ],
)
def test_one_reason_is_said_once_with_a_remedy_that_helps(sizes, target, remedy):
    n = np.array([1e6, 2e6, 4e6])[:sizes]
    runs = pd.DataFrame([(size, c) for c in BUDGETS for size in n], columns=["params", "flops"])
    runs = runs.assign(samples=runs["flops"] / 6 / runs["params"], budget=runs["flops"])
    falls = runs.assign(loss=runs["params"] ** -0.1, mean_return=runs["params"], protocol="a")
    with pytest.raises(sa.FitError, match=remedy) as refusal:
        sa.fit_isoflop(sa.load_runs(falls), target=target)
    assert str(refusal.value).count(" FLOP (") == 1


def test_slices_that_fail_are_named_and_left_out():
    runs = centred(SYMMETRIC)
    low, high = BUDGETS[0], BUDGETS[-1]
    beyond = (runs["budget"] == low) & (runs["params"] > 0.9 * SYMMETRIC.params_opt(low))
    runs = runs[~beyond]
    at_high = runs["budget"] == high
    runs.loc[at_high, "loss"] = 2 * SYMMETRIC.value_opt(high) - runs.loc[at_high, "loss"]
    fit = sa.fit_isoflop(runs, window=None)
    assert fit.slices.state[0] == SliceState.OUTSIDE
    assert fit.slices.state[-1] == SliceState.NO_OPTIMUM
    assert fit.status == sa.FitStatus.DOUBTFUL
    dropped = fit.messages[0]
    assert "2 of 7 budgets dropped" in dropped
    assert "1e+15 FLOP (4 sizes): the minimum is not inside the sizes run" in dropped
    assert "1e+18 FLOP (9 sizes): the profile has no minimum" in dropped
    np.testing.assert_allclose(fit.laws.params_exponent, 0.6, rtol=1e-6)


def test_fewer_than_three_optima_are_refused_with_the_reason():
    runs = centred(SYMMETRIC, budgets=BUDGETS[:3])
    falling = runs[runs["params"] < 0.9 * SYMMETRIC.params_opt(runs["budget"])]
    with pytest.raises(sa.FitError, match=r"only 0 of 3 budgets have an optimum of loss.*fit_para"):
        sa.fit_isoflop(falling, window=None)
    with pytest.raises(sa.FitError, match=r"ends"):
        sa.fit_isoflop(falling, optimum="grid", window=None)


def test_dropped_slices_drop_in_their_replicate_only():
    runs = centred(SYMMETRIC)
    fit = sa.fit_isoflop(runs, window=None)
    weights = np.ones((3, len(runs)))
    in_first = (fit.rows["budget"] == BUDGETS[0]).to_numpy()
    weights[1, in_first] = 0.0
    weights[2, (fit.rows["budget"] > BUDGETS[1]).to_numpy()] = 0.0
    found = fit.refit(weights=weights)
    assert found.laws.points.tolist() == [7, 6, 2]
    assert found.valid().tolist() == [True, True, False]
    np.testing.assert_allclose(found.laws.params_exponent[:2], 0.6, rtol=1e-6)


def test_weights_by_standard_error():
    runs = sa.simulate_runs(
        ADDITIVE, np.geomspace(3e5, 3e8, 9), BUDGETS, evaluation_noise=1e-3, checkpoint_noise=0.005
    )
    noisy = runs["params"] == runs["params"].unique()[4]
    runs.loc[noisy, "loss"] *= 1.2
    runs.loc[noisy, "loss_se"] *= 1e4
    by_se = sa.fit_isoflop(runs, weighting="se", window=None)
    without = sa.fit_isoflop(runs[~noisy], weighting="se", window=None)
    np.testing.assert_allclose(by_se.slices.params, without.slices.params, rtol=1e-5)
    with pytest.raises(sa.FitError, match="weighting='se' needs a positive one in every row"):
        sa.fit_isoflop(runs.assign(loss_se=0.0), weighting="se")
    with pytest.raises(sa.FitError, match="needs the column 'loss_se'"):
        sa.fit_isoflop(runs.drop(columns="loss_se"), weighting="se")


def test_weights_are_inverse_squares_of_standard_errors():
    runs = sa.simulate_runs(
        ADDITIVE, np.geomspace(3e5, 3e8, 9), BUDGETS, evaluation_noise=0.01, rng=2
    )
    runs["loss_se"] *= np.random.default_rng(0).uniform(0.3, 3, len(runs))
    fit = sa.fit_isoflop(runs, weighting="se", window=None)
    for budget, found in zip(fit.profiles.budgets, fit.slices.params, strict=True):
        at = runs[runs["budget"] == budget]
        # polyfit multiplies residuals, not their squares, by its weights.
        curve = np.polyfit(np.log(at["params"]), at["loss"], 2, w=1 / at["loss_se"])
        np.testing.assert_allclose(np.log(found), -curve[1] / (2 * curve[0]), rtol=1e-8)


def test_the_best_of_noisy_returns_is_a_winners_curse():
    def link(loss):
        return 1000 / loss**2

    runs = sa.simulate_runs(ADDITIVE, np.geomspace(3e5, 3e8, 9), BUDGETS, link=link, episodes=10**9)
    rng = np.random.default_rng(0)
    noisy = link(runs["loss"].to_numpy()) * np.exp(0.2 * rng.standard_normal((400, len(runs))))
    truth = np.log(link(ADDITIVE.value_opt(1e17)))

    def bias(optimum):
        fit = sa.fit_isoflop(runs, "mean_return", optimum=optimum, window=None, value_law="power")
        found = fit.refit(response=noisy)
        return float(np.mean(np.log(found.value_opt(1e17)[found.valid()])) - truth)

    assert bias("grid") > 0.15
    assert abs(bias("vertex")) < 0.1


def test_the_value_law_is_chosen_by_forecasting_later_budgets():
    with_floor = sa.fit_isoflop(centred(SYMMETRIC))
    assert with_floor.laws.value_form == "floor"
    assert "a power law with a floor: forecasting later budgets" in with_floor.messages[-1]
    plain = SymmetricSurface(
        floor=0.0, scale=60.0, exponent=0.15, params_scale=3e-4, params_exponent=0.6, curvature=0.02
    )
    rng = np.random.default_rng(3)
    runs = centred(plain)
    runs["loss"] *= np.exp(0.002 * rng.standard_normal(len(runs)))
    assert sa.fit_isoflop(runs).value_opt(1e20) == pytest.approx(plain.value_opt(1e20), rel=0.05)


def test_few_budgets_get_a_plain_power_law_and_say_so():
    fit = sa.fit_isoflop(centred(SYMMETRIC, budgets=BUDGETS[:4]))
    assert fit.laws.value_form == "power"
    assert any("too few to tell a floor" in message for message in fit.messages)
    with pytest.raises(sa.FitError, match="three parameters and the frontier 3 points"):
        sa.fit_isoflop(centred(SYMMETRIC, budgets=BUDGETS[:3]), value_law="floor")


def test_one_size_that_carries_the_answer_is_named():
    runs = sa.simulate_runs(ADDITIVE, np.geomspace(3e5, 3e8, 8), np.geomspace(1e14, 1e18, 9))
    odd = np.unique(runs["params"])[3]
    runs.loc[runs["params"] == odd, "loss"] *= 0.9
    fit = sa.fit_isoflop(runs)
    assert fit.status == sa.FitStatus.DOUBTFUL
    exponent = sa.fit_isoflop(runs[runs["params"] != odd]).laws.params_exponent
    expected = f"without N = {odd:,.0f} the exponent of N_opt moves from "
    expected += f"{fit.laws.params_exponent:.3f} to {exponent:.3f}"
    assert any(expected in message for message in fit.messages)


def test_core_parameters_may_stand_for_n():
    runs = centred(SYMMETRIC)
    runs["params_core"] = runs["params"] / 4
    fit = sa.fit_isoflop(runs, size="params_core")
    full = sa.fit_isoflop(runs)
    np.testing.assert_allclose(fit.params_opt(1e19), full.params_opt(1e19) / 4, rtol=1e-9)
    np.testing.assert_allclose(fit.samples_opt(1e19), full.samples_opt(1e19), rtol=1e-9)


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"optimum": "spline"}, "optimum is 'spline'"),
        ({}, {"space": "sqrt"}, "space is 'sqrt'"),
        ({}, {"window": 2}, "window=2: optimum='vertex' needs 3"),
        ({}, {"optimum": "cubic", "window": 3}, "window=3: optimum='cubic' needs 4"),
        ({}, {"value_law": "exponential"}, "value_law is 'exponential'"),
        ({}, {"value_law": "inverse"}, "choose 'power', 'floor' or 'auto' for a loss"),
        ({}, {"target": "accuracy"}, "target is 'accuracy'"),
        ({}, {"size": "width"}, "no such column"),
        ({"budget": np.nan}, {}, "no row has a value in each of"),
        ({"loss": 0.7}, {}, "budgets have an optimum"),
    ],
)
def test_what_cannot_be_fitted_is_refused(change, options, message):
    with pytest.raises(sa.FitError, match=message):
        sa.fit_isoflop(centred(SYMMETRIC).assign(**change), **options)


def test_a_log_without_budgets_is_refused():
    with pytest.raises(sa.FitError, match="needs the column 'budget'"):
        sa.fit_isoflop(centred(SYMMETRIC).drop(columns="budget"))


def test_logs_need_positive_values():
    runs = centred(SYMMETRIC)
    runs["mean_return"], runs["protocol"] = -1.0, "test-1"
    with pytest.raises(sa.FitError, match=r"mean_return is -1 in run .* use space='linear'"):
        sa.fit_isoflop(runs, "mean_return", space="log")


def test_refit_checks_its_shapes():
    fit = sa.fit_isoflop(centred(SYMMETRIC))
    with pytest.raises(ValueError, match="needs weights, responses or both"):
        fit.refit()
    with pytest.raises(ValueError, match=r"weights has shape \(3,\), not \(R, 63\)"):
        fit.refit(weights=np.ones(3))
    with pytest.raises(ValueError, match="2 sets of weights and 3 of responses"):
        fit.refit(weights=np.ones((2, 63)), response=np.ones((3, 63)))


SUMMARY = """\
isoflop-vertex of loss: ok
  - the value law is a power law with a floor: forecasting later budgets from earlier ones, a \
plain power law errs by 3.8% and a power law with a floor by 0.0%
63 rows of 63 runs, 7 of 7 budgets, 1e+15 to 1e+18 FLOP; residuals in loss

law      intercept     slope   95 % OLS interval      R2   (natural logs)
N_opt      -8.1117    0.6000   [ 0.6000,  0.6000]   1.000
D_opt       6.3200    0.4000   [ 0.4000,  0.4000]   1.000
L_opt       2.4344   -0.0936   [-0.0996, -0.0876]   0.997

N_opt = 2.383e+06 (C/3.162e+16)^0.6000
L_opt = 0.201 (C/3.162e+16)^-0.1500 + 0.12"""


def test_summary():
    assert sa.fit_isoflop(centred(SYMMETRIC), window=None).summary() == SUMMARY


def test_summary_of_a_bad_fit_leads_with_what_is_wrong():
    runs = sa.simulate_runs(ADDITIVE, np.geomspace(3e6, 3e8, 6), np.geomspace(1e14, 1e18, 9))
    lines = sa.fit_isoflop(runs, optimum="grid").summary().splitlines()
    assert lines[0] == "isoflop-grid of loss: doubtful"
    assert lines[1].startswith("  - 5 of 9 grid minima are not interior: at 1e+14, 3.16e+14, 1e+15")
    assert lines[2].startswith("  - N_opt is quantised: ")
