"""Persistence and the log line: published numbers, exact recovery, replicates, refusals."""

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.baselines import BaselineFit, fit_log_line, fit_persistence
from scaling_analysis.estimators.protocol import FrontierFit
from scaling_analysis.runlog import load_runs


def power_law_ladder():
    """L = 40 C^-.1 exp(.05 log(N/N_opt)^2) with N_opt = .01 C^.5 among the sizes of each budget."""
    rows = []
    for c in np.geomspace(1e14, 1e18, 5):
        for factor in (0.25, 0.5, 1, 2, 4):
            n = 0.01 * c**0.5 * factor
            rows.append((n, c / (6 * n), c, c, 40 * c**-0.1 * np.exp(0.05 * np.log(factor) ** 2)))
    return load_runs(pd.DataFrame(rows, columns=["params", "samples", "flops", "budget", "loss"]))


@pytest.fixture(scope="module")
def runs():
    return power_law_ladder()


def power_law_curves():
    """Learning curves that meet that law from 13 sizes, 41 checkpoints each, without a budget."""
    sizes, rows = np.geomspace(2e4, 5e7, 13), []
    for n in sizes:
        for c in np.geomspace(1e12, 1e18, 41):
            away = np.log(n / (0.01 * c**0.5))
            rows.append((f"{n:.0f}", n, c / (6 * n), c, 40 * c**-0.1 * np.exp(0.05 * away**2)))
    return load_runs(pd.DataFrame(rows, columns=["run_id", "params", "samples", "flops", "loss"]))


@pytest.fixture(scope="module")
def curves():
    return power_law_curves()


def test_log_line_recovers_power_laws_exactly(runs):
    fit = fit_log_line(runs)
    assert isinstance(fit, FrontierFit)
    c = np.array([1e15, 1e20])
    np.testing.assert_allclose(fit.params_opt(c), 0.01 * c**0.5, rtol=1e-9)
    np.testing.assert_allclose(fit.value_opt(c), 40 * c**-0.1, rtol=1e-9)
    np.testing.assert_allclose(6 * fit.params_opt(c) * fit.samples_opt(c), c, rtol=1e-9)
    off = 0.01 * c**0.5 * 3
    expected = 40 * c**-0.1 * np.exp(0.05 * np.log(3) ** 2)
    np.testing.assert_allclose(fit.value(off, c), expected, rtol=1e-9)


def test_persistence_stays_with_the_best_run_of_the_largest_budget(runs):
    fit = fit_persistence(runs)
    assert fit.params_opt(1e21) == pytest.approx(0.01 * 1e9)
    assert fit.value_opt([1e18, 1e21]) == pytest.approx([40 * 1e18**-0.1] * 2)


def test_curves_without_budgets_are_read_along_their_envelope(curves):
    """N_opt is one of sizes a factor of 1.9 apart: the steps average out along the line."""
    fit = fit_log_line(curves)
    c = np.array([1e15, 1e20])
    np.testing.assert_allclose(fit.params_line[1], 0.5, atol=0.02)
    np.testing.assert_allclose(fit.value_opt(c), 40 * c**-0.1, rtol=0.01)
    steps = fit.to_frame()["flops"]
    assert steps.iloc[[0, -1]].tolist() == pytest.approx([1e12, 1e18])
    assert fit.summary().endswith("envelope of 13 learning curves")
    # Off the envelope the curves bend as the law does; far off it nothing is said.
    far = np.abs(np.log(fit.rows["params"] / fit.params_opt(fit.rows["flops"]))) > np.log(10)
    assert np.isnan(fit.fitted_values()[far]).all()
    near = ~far.to_numpy()
    np.testing.assert_allclose(fit.fitted_values()[near], fit.rows["loss"][near], rtol=0.06)


def test_persistence_of_curves_is_the_best_one_at_the_end(curves):
    best = curves[curves["flops"] == curves["flops"].max()].nsmallest(1, "loss").iloc[0]
    fit = fit_persistence(curves.assign(budget=np.nan))
    assert fit.params_opt(1e21) == pytest.approx(best["params"])
    assert fit.value_opt(1e21) == pytest.approx(best["loss"])


def test_the_last_size_is_best_where_larger_ones_were_not_run(curves):
    """At the ends of the grid of sizes the best one is not the optimum: the line leaves it out."""
    few = curves[curves["params"] < 1e6]
    found = fit_log_line(few)
    assert found.params_line[1] == pytest.approx(0.5, abs=0.05)
    stays = fit_persistence(few)
    assert stays.params_opt(1e21) == pytest.approx(few["params"].max())


def test_weights_of_zero_take_sizes_of_curves_away(curves):
    fit = fit_log_line(curves)
    weights = np.ones((2, len(curves)))
    weights[1, curves["params"].between(1e5, 2e6)] = 0
    without = fit_log_line(curves[weights[1] > 0])
    left = fit.refit(weights=weights)
    assert left.value_opt(1e19)[1] == pytest.approx(without.value_opt(1e19))
    assert left.value_opt(1e19)[0] == pytest.approx(fit.value_opt(1e19))


@pytest.mark.parametrize("kind", ["runs", "curves"])
def test_replicates_are_fits_of_their_own(kind, request):
    runs = request.getfixturevalue(kind)
    fit = fit_log_line(runs)
    rng = np.random.default_rng(0)
    response = fit.rows["loss"].to_numpy() * np.exp(0.02 * rng.standard_normal((3, len(runs))))
    many = fit.refit(response=response)
    single = fit_log_line(runs.assign(loss=response[1]))
    np.testing.assert_allclose(many.params_opt([1e19, 1e20])[1], single.params_opt([1e19, 1e20]))
    np.testing.assert_allclose(many.value(1e8, 1e19)[1], single.value(1e8, 1e19))
    assert many.fitted_values().shape == (3, len(runs))
    own = many.params_opt(np.array([1e19, 1e20]))
    np.testing.assert_allclose(many.value(own, [1e19, 1e20]), many.value_opt([1e19, 1e20]))


def test_weights_of_zero_take_a_budget_away(runs):
    fit = fit_log_line(runs)
    weights = np.ones((2, len(fit.rows)))
    weights[1, fit.rows["budget"] > 2e14] = 0
    left = fit.refit(weights=weights)
    assert left.valid().tolist() == [True, False]


def test_round_trip(runs, curves):
    many = fit_persistence(runs).refit(weights=np.ones((2, len(runs))))
    for fit in (fit_log_line(runs), many, fit_log_line(curves)):
        again = BaselineFit.from_dict(fit.to_dict())
        np.testing.assert_array_equal(again.fitted_values(), fit.fitted_values())
        assert again.summary() == fit.summary()


def test_summaries(runs):
    assert fit_log_line(runs).summary() == (
        "log-line baseline: N_opt ~ C^0.5000, L_opt ~ C^-0.1000, 5 budgets"
    )
    assert fit_persistence(runs).summary() == (
        "persistence baseline: N_opt stays 1e+07, L_opt stays 0.634"
    )


def test_published_lines_of_the_nethack_log(reference_data):
    """Tuyls et al. 2023, recomputed from their log: slopes and intercepts to four digits."""
    runs = load_runs(reference_data / "nethack_il" / "runs.csv")
    runs = runs[runs["budget"] >= 1e15]
    loss, returns = fit_log_line(runs), fit_log_line(runs, "mean_return")
    np.testing.assert_allclose(loss.params_line, [-8.7153, 0.6109], atol=5e-5)
    np.testing.assert_allclose(loss.value_line, [4.9057, -0.1615], atol=5e-5)
    np.testing.assert_allclose(returns.params_line, [-5.9152, 0.5374], atol=5e-5)
    np.testing.assert_allclose(returns.value_line, [-3.125, 0.2779], atol=5e-4)


def test_refusals(runs, curves):
    with pytest.raises(FitError, match="column 'budget', or learning curves of 3 sizes"):
        fit_log_line(runs.drop(columns="budget"))
    with pytest.raises(FitError, match="1 of 25 rows have a loss of 0 or less"):
        fit_persistence(runs.assign(loss=runs["loss"].where(runs.index > 0, -1.0)))
    with pytest.raises(FitError, match="at least 2 budgets, got 1"):
        fit_log_line(runs[runs["budget"] == 1e14])
    small = curves[(curves["flops"] > 1e16) & (curves["params"] < 3e5)]
    assert fit_persistence(small).params_opt(1e19) == pytest.approx(small["params"].max())
    with pytest.raises(FitError, match="a larger and a smaller one beside it: run more sizes"):
        fit_log_line(small)
