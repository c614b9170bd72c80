"""Questions to a forecast: inverse, caps, wrong sizes, spending, influence, comparison."""

from dataclasses import replace

import numpy as np
import pytest

from scaling_analysis.errors import ForecastError
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.forecasting import comparison
from scaling_analysis.forecasting.allocation import spending
from scaling_analysis.forecasting.comparison import compare_recipes
from scaling_analysis.forecasting.doubts import warnings
from scaling_analysis.forecasting.influence import influence
from scaling_analysis.forecasting.members import log_value
from scaling_analysis.forecasting.simulation import AdditiveSurface, simulate_runs

ONE = {"surface": fit_parametric}


def test_compute_for_a_loss_inverts_the_forecast(made, law):
    goal = float(made.table.query("method == 'combined' and flops == 1e13")["loss"].iloc[0])
    found = made.flops_for(loss=goal).iloc[0]
    assert found["flops"] == pytest.approx(1e13, rel=0.01)
    assert found["flops_lo"] < found["flops"] < found["flops_hi"]
    assert found["params"] == pytest.approx(float(made.params_opt(1e13)), rel=0.01)
    assert found["samples"] * 6 * found["params"] == pytest.approx(found["flops"])
    true = found["flops"] * (law.value_opt(found["flops"]) / goal) ** 8
    assert found["flops_lo"] < true < found["flops_hi"]


def test_compute_for_a_return(made):
    goal = float(made.table.query("method == 'combined' and flops == 2e13")["mean_return"].iloc[0])
    assert made.flops_for(mean_return=goal)["flops"][0] == pytest.approx(2e13, rel=0.01)


def test_lower_losses_take_more_compute_and_are_less_likely(made, law):
    table = made.flops_for(loss=[1.2, 0.9, 0.6, 0.3 * law.E])
    assert table["flops"].is_monotonic_increasing
    assert table["probability_unreachable"].is_monotonic_increasing
    last = table.iloc[-1]
    assert np.isinf(last["flops"])
    assert np.isnan(last["params"])
    assert last["probability_unreachable"] > 0.5
    assert table["probability_unreachable"].iloc[0] < 0.02


def test_less_compute_than_any_run_is_no_number_made_up(made, ladder):
    smallest = ladder["flops"].min()
    found = made.flops_for(
        loss=[20.0, float(np.exp(made.ensemble.predict("loss_opt", 2e10).log[0]))]
    )
    assert found["flops"].tolist() == [0.0, pytest.approx(2e10, rel=1e-3)]
    assert found["flops_hi"][0] == 0
    assert found.loc[0, ["params", "params_lo", "params_hi", "samples"]].isna().all()
    assert found["flops_hi"][1] > smallest
    assert found["probability_unreachable"][0] < 1e-6


@pytest.mark.parametrize(
    ("question", "message"),
    [
        ({}, "give one target"),
        ({"loss": 1.0, "mean_return": 100}, "give one target"),
        ({"loss": -1.0}, "must be positive and finite"),
        ({"loss": 1.0, "limit": 1e12}, "lies within the log"),
    ],
)
def test_inverse_questions_that_are_refused(made, question, message):
    with pytest.raises(ForecastError, match=message):
        made.flops_for(**question)


def test_caps(made):
    free = made.capped(1e13).iloc[0]
    assert free["binding"] == "none"
    assert free["params"] == pytest.approx(float(made.params_opt(1e13)))
    serving = made.capped(1e13, max_params=2e4).iloc[0]
    assert (serving["binding"], serving["params"]) == ("params", 2e4)
    data = made.capped(1e13, max_samples=5e6).iloc[0]
    assert data["binding"] == "samples"
    assert data["samples"] == pytest.approx(5e6)
    assert data["params"] * 6 * 5e6 == pytest.approx(1e13)
    both = made.capped(1e13, max_params=2e4, max_samples=5e6).iloc[0]
    assert both["binding"] == "both"
    assert both["flops_spent"] == pytest.approx(6 * 2e4 * 5e6)
    assert both["loss"] > serving["loss"] > free["loss"]
    assert serving["excess"] > free["excess"]
    with pytest.raises(ForecastError, match="caps must be positive"):
        made.capped(1e13, max_params=0.0)


def test_a_wrong_size_costs_loss_and_compute(made, law):
    best = float(made.params_opt(1e13))
    table = made.misallocation(1e13, [best / 8, best / 2, best, best * 2, best * 8])
    assert table["excess"].idxmin() == 2
    assert (np.diff(table["excess"]) * [-1, -1, 1, 1] > 0).all()
    assert (table["excess_lo"] <= table["excess"] + 0.01).all()
    assert table["wasted"].iloc[0] > table["wasted"].iloc[1] > table["wasted"].iloc[2]
    true = law.value(table["params"], 1e13) / law.value_opt(1e13) - 1
    np.testing.assert_allclose(table["excess"], true, atol=0.05)


def test_spending_by_hand():
    bill = spending([3.6e18], 1e15, price_per_hour=2.0, watts=700.0).iloc[0]
    assert bill.to_dict() == {
        "flops": 3.6e18,
        "device_hours": 1.0,
        "price": 2.0,
        "kilowatt_hours": pytest.approx(0.7),
    }
    assert list(spending(1e18, 1e15).columns) == ["flops", "device_hours"]
    with pytest.raises(ForecastError, match=r"flops_per_second=0.0 must be a positive number"):
        spending(1e18, 0.0)


def test_influence_is_a_refit_without_the_unit(ladder):
    table = influence(ladder, [1e13], "params", ONE)
    size = ladder["params"].unique()[3]
    refit = fit_parametric(ladder[ladder["params"] != size])
    row = table[table["left_out"] == size].iloc[0]
    assert row["params_opt"] == pytest.approx(float(refit.params_opt(1e13)), rel=0.01)
    whole = table[table["left_out"].isna()].iloc[0]
    assert whole["params_change"] == 0
    changes = table["params_change"].abs()
    assert changes.is_monotonic_decreasing
    assert len(table) == 1 + ladder["params"].nunique()
    assert len(influence(ladder, [1e13], "budget", ONE)) == 1 + 6
    with pytest.raises(ForecastError, match="unit='color': the fitted rows have no such column"):
        influence(ladder, [1e13], "color", ONE)


def test_comparison_finds_the_effective_compute_of_a_better_recipe(ladder, make_forecast):
    """A recipe that needs a third of the samples for the same loss is worth 3^(1/ (1 + ...))."""
    better = AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0 / 3**0.38, beta=0.38)
    runs = simulate_runs(
        better, np.geomspace(2e3, 4e5, 9), sorted(ladder["budget"].unique()), seeds=3,
        sizes_per_budget=6, run_noise=0.01, checkpoint_noise=0.005, rng=5,
    )  # fmt: skip
    base = make_forecast(ladder.drop(columns="mean_return"), [1e13], methods=ONE)
    new = make_forecast(runs, [1e13], methods=ONE)
    row = compare_recipes(base, new, [3e12], n_draws=500).iloc[0]
    # With samples worth three times as much, 3 times the compute at thrice the samples is matched.
    assert row["multiplier_lo"] < 3.0 < row["multiplier_hi"]
    assert row["better"] > 0.95
    assert row["params_exponent_difference_lo"] < 0 < row["params_exponent_difference_hi"]
    same = compare_recipes(base, base, [3e12], n_draws=500).iloc[0]
    assert same["multiplier_lo"] < 1 < same["multiplier_hi"]
    assert 0.3 < same["better"] < 0.7


def test_beyond_the_end_of_a_law_nothing_is_compared(made, monkeypatch):
    """Intrinsic performance ends at the highest return seen: what lies beyond is not 0 nor inf."""

    def ends(fit, name, flops, *rest):
        values = log_value(fit, name, flops, *rest)
        return np.where(np.asarray(flops) > 2e13, np.nan, values) if name == "value_opt" else values

    free = compare_recipes(made, made, [1e12], n_draws=500).iloc[0]
    monkeypatch.setattr(comparison, "log_value", ends)
    cut = compare_recipes(made, made, [1e12], n_draws=500).iloc[0]
    assert cut["multiplier_lo"] == free["multiplier_lo"]
    assert cut["multiplier_hi"] == free["multiplier_hi"]
    with pytest.raises(ForecastError, match="the first forecast's law of loss has ended in"):
        compare_recipes(made, made, [1.9e13])
    with pytest.raises(ForecastError, match="the second forecast's law of loss has ended in 100%"):
        compare_recipes(made, made, [1e14])


def test_a_forecast_says_where_it_has_no_value(made, monkeypatch):
    predict = type(made.ensemble).predict

    def silent(self, quantity, flops, *rest, **options):
        found = predict(self, quantity, flops, *rest, **options)
        unknown = (quantity == "loss_opt") & (np.asarray(flops) > 1e13)
        return found._replace(centre=np.where(unknown, np.nan, found.centre))

    monkeypatch.setattr(type(made.ensemble), "predict", silent)
    said = warnings(made.ensemble, np.array([1e13, 2e13, 3e13]))
    assert (
        "no method says what loss to expect at 2e+13 FLOP: sizes alone are forecast there" in said
    )
    row = made.table.assign(params_near_lo=np.nan, params_near_hi=np.nan)
    assert "nan" not in replace(made, table=row).summary()
    assert (
        ", within 1% of the best to 3e+04"
        in replace(made, table=row.assign(params_near_hi=3e4)).summary()
    )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda f: f.predict_run(params=[0, 1e5], flops=1e13), "params is 0: give positive"),
        (lambda f: f.predict_run(params=1e5, flops=np.nan), "flops is nan: give positive"),
        (lambda f: f.predict_run(params=[1e4, 1e5], flops=[1e13] * 3), r"shape \(3,\), params"),
        (lambda f: f.predict_run(params=1e5, flops=1e13, level=1.5), "level=1.5 must lie"),
        (lambda f: f.predict_run(params=1e5, flops=1e13, runs=0), "runs=0: the mean of one"),
        (lambda f: f.predict_run(params=1e5, flops=1e13, method="foo"), "'foo' is unknown: choose"),
        (lambda f: f.flops_for(loss=0.9, level=2), "level=2 must lie"),
        (lambda f: f.misallocation(1e13, -1), "params is -1: give positive"),
        (lambda f: f.misallocation(0, 1e5), "flops is 0: give positive"),
        (lambda f: f.capped(-1e13), "flops is -1e\\+13: give positive"),
        (lambda f: compare_recipes(f, f, 0), "flops is 0: give positive"),
        (lambda f: compare_recipes(f, f, 1e13, level=2), "level=2 must lie"),
        (lambda f: spending(np.inf, 1e14), "flops is inf: give positive"),
    ],
)
def test_what_makes_no_sense_is_refused_and_no_nan(made, ask, message):
    with pytest.raises(ForecastError, match=message):
        ask(made)
