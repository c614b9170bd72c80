"""`fit_curve`: recovery, forecasts, intervals and bad input."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.curve_fit import CurveFit
from scaling_analysis.estimators.curve_forms import NAMED

X = np.geomspace(1e3, 1e8, 16)
RISING = {"direction": "increasing"}
CURVES = {
    # name: y at X, direction, parameters
    "power": (3 * X**-0.2, "decreasing", {"a": 3.0, "b": 0.2}),
    "log_line": (2 - 0.3 * np.log(X), "decreasing", {"a": 2.0, "b": 0.3}),
    "power_floor": (40 * X**-0.4 + 0.7, "decreasing", {"a": 40.0, "b": 0.4, "c": 0.7}),
    "inverse": (1 / (40 * X**-0.4 + 0.7), "increasing", {"a": 40.0, "b": 0.4, "c": 0.7}),
    "broken": (
        9 * X**-0.1 * (1 + (X / 3e5) ** 2) ** (-0.3 * 0.5),
        "decreasing",
        {"a": 9.0, "b": 0.1, "change": 0.3, "x_break": 3e5, "width": 0.5},
    ),
    "broken_floor": (
        9 * X**-0.1 * (1 + (X / 3e5) ** 2) ** (-0.3 * 0.5) + 0.5,
        "decreasing",
        {"a": 9.0, "b": 0.1, "change": 0.3, "x_break": 3e5, "width": 0.5, "c": 0.5},
    ),
    "sigmoid": (
        0.1 + 0.6 / (1 + (2e5 / X) ** 0.8),
        "increasing",
        {"start": 0.1, "end": 0.7, "x_middle": 2e5, "steepness": 0.8},
    ),
}


@pytest.mark.parametrize("form", CURVES)
@pytest.mark.parametrize("unit", [1.0, 1e-9, 1e12])
def test_exact_recovery_in_any_unit(form, unit):
    y, direction, expected = CURVES[form]
    fit = sa.fit_curve(X, unit * y, direction=direction, form=form)
    per_unit = {"a", "c", "start", "end"} | ({"b"} if form == "log_line" else set())
    factor = 1 / unit if form == "inverse" else unit
    for name, value in expected.items():
        scale = factor if name in per_unit else 1.0
        np.testing.assert_allclose(fit.parameters[name], scale * value, rtol=1e-6, err_msg=name)
    assert fit.valid()
    np.testing.assert_allclose(fit.fitted_values(), unit * y, rtol=1e-7)


def test_m4_recovers():
    start, c, kappa, b, log_a = 2.0, 0.5, 0.6, 0.35, 3.5
    low, high = np.full(len(X), c), np.full(len(X), start)
    for _ in range(200):
        y = (low + high) / 2
        above = (y - c) / (start - y) ** kappa > np.exp(log_a) * X**-b
        low, high = np.where(above, low, y), np.where(above, y, high)
    fit = sa.fit_curve(X, y, form="m4")
    expected = {"a": np.exp(log_a), "b": b, "kappa": kappa, "c": c, "start": start}
    for name, value in expected.items():
        np.testing.assert_allclose(fit.parameters[name], value, rtol=1e-6, err_msg=name)


@pytest.mark.parametrize("direction", ["decreasing", "increasing"])
def test_a_curve_of_either_sign_is_fitted_in_linear_space(direction):
    sign = 1.0 if direction == "decreasing" else -1.0
    y = sign * (5 * X**-0.2 - 0.4)
    fit = sa.fit_curve(X, y, direction=direction, form="power_floor")
    assert fit.residual_space == "linear"
    np.testing.assert_allclose(fit.parameters["c"], -0.4 * sign, rtol=1e-6)
    np.testing.assert_allclose(fit.parameters["a"], 5.0, rtol=1e-6)
    np.testing.assert_allclose(fit.value(1e10), sign * (5 * 1e10**-0.2 - 0.4), rtol=1e-6)


def test_scalerl_curve():
    """R0 .35, A .61, C_mid 2542, B 1.92 with noise .005 on C in [1500, 16000]."""
    flops = np.geomspace(1500, 16000, 40)
    truth = 0.35 + (0.61 - 0.35) / (1 + (2542 / flops) ** 1.92)
    for seed in range(5):
        noise = 0.005 * np.random.default_rng(seed).normal(size=40)
        free = sa.fit_curve(flops, truth + noise, form="sigmoid", **RISING)
        assert free.parameters["end"] == pytest.approx(0.61, abs=0.02)
        known = sa.fit_curve(flops, truth + noise, form="sigmoid", bounds=(0.35, None), **RISING)
        assert known.parameters["start"] == pytest.approx(0.35)
        assert known.parameters["end"] == pytest.approx(0.61, abs=0.02)
        assert known.parameters["steepness"] == pytest.approx(1.92, abs=0.2)
        assert known.status == FitStatus.OK


def test_row_order_does_not_matter():
    rng = np.random.default_rng(0)
    y = 2 * X**-0.2 * np.exp(0.02 * rng.normal(size=16))
    shuffle = rng.permutation(16)
    one, other = sa.fit_curve(X, y), sa.fit_curve(X[shuffle], y[shuffle])
    pd.testing.assert_frame_equal(one.predict([1e9]), other.predict([1e9]))


def test_units_of_x_and_y_only_scale_the_average():
    rng = np.random.default_rng(0)
    y = (2 * X**-0.2 + 0.1) * np.exp(0.01 * rng.normal(size=16))
    one = sa.fit_curve(X, y).predict([1e9]).to_numpy()[0, 1:]
    other = sa.fit_curve(1e6 * X, 1e3 * y).predict([1e15]).to_numpy()[0, 1:]
    np.testing.assert_allclose(other, 1e3 * one, rtol=1e-6)


def test_the_average_finds_a_power_law_that_grows_without_bound():
    y = 0.02 * X**0.6 * np.exp(0.01 * np.random.default_rng(1).normal(size=16))
    fit = sa.fit_curve(X, y, **RISING)
    assert fit.value(1e11) == pytest.approx(0.02 * 1e11**0.6, rel=0.1)


def test_the_average_finds_a_floor():
    y = (40 * X**-0.4 + 0.7) * np.exp(0.002 * np.random.default_rng(1).normal(size=16))
    assert sa.fit_curve(X, y).value(1e10) == pytest.approx(0.7, rel=0.03)


def test_the_average_stays_where_a_curve_has_stopped():
    steps = np.arange(1.0, 61.0)
    rng = np.random.default_rng(2)
    returns = 100 * (1 - np.exp(-steps / 5)) + rng.normal(size=60)
    fit = sa.fit_curve(steps, returns, **RISING)
    row = fit.predict([240.0]).iloc[0]
    assert row["value"] == pytest.approx(100, abs=3)
    assert row["run_lo"] < 100 < row["run_hi"]


def test_forecasts_follow_the_better_form():
    steady = sa.fit_curve(X, 3 * X**-0.2)
    weights = dict(zip(steady.forms, steady.form_weights, strict=True))
    assert weights["persistence"] < 0.01
    assert steady.form_weights.sum() == pytest.approx(1.0)


def test_intervals_widen_with_distance_and_with_fewer_points():
    rng = np.random.default_rng(4)
    y = 2 * X**-0.2 * np.exp(0.02 * rng.normal(size=16))
    table = sa.fit_curve(X, y).predict([2e8, 1e9, 1e11])
    width = np.log(table["hi"] / table["lo"])
    assert (np.diff(width) > 0).all()
    few = sa.fit_curve(X[-5:], y[-5:]).predict([1e11])
    assert np.log(few["hi"] / few["lo"]).item() > width.iloc[-1]


def test_a_new_observation_is_no_more_certain_than_the_curve():
    y = 2 * X**-0.2 * np.exp(0.02 * np.random.default_rng(4).normal(size=16))
    for form in ("auto", "power", "power_floor"):
        table = sa.fit_curve(X, y, form=form).predict([1e3, 1e5, 1e9])
        assert (table["run_lo"] <= table["lo"]).all()
        assert (table["lo"] < table["value"]).all()
        assert (table["value"] < table["hi"]).all()
        assert (table["hi"] <= table["run_hi"]).all()


def test_a_higher_level_is_wider():
    fit = sa.fit_curve(X, 2 * X**-0.2 + 0.01 * np.cos(np.arange(16)))
    narrow, wide = fit.predict([1e9], level=0.5), fit.predict([1e9], level=0.95)
    assert wide["run_lo"].item() < narrow["run_lo"].item()
    assert narrow["run_hi"].item() < wide["run_hi"].item()


def test_standard_errors_weigh_points_and_widen_the_noise():
    y = 2 * X**-0.2
    off = y.copy()
    off[8] *= 1.2
    se = np.full(16, 0.002) * y
    se[8] = 0.5 * y[8]
    trusting = sa.fit_curve(X, off, form="power")
    wary = sa.fit_curve(X, off, form="power", y_se=se)
    error = [abs(np.log(fit.value(1e3) / y[0])) for fit in (trusting, wary)]
    assert error[1] < 0.1 * error[0]


def test_new_runs_are_less_certain_than_rows():
    rng = np.random.default_rng(6)
    x, run = np.tile(np.geomspace(1e3, 1e6, 6), 8), np.repeat(np.arange(8), 6)
    effect = 0.1 * rng.normal(size=8)
    y = 3 * x**-0.2 * np.exp(effect[run] + 0.005 * rng.normal(size=48))
    known = sa.fit_curve(x, y, run=run, form="power")
    assert np.sqrt(known.noise) == pytest.approx(0.1, rel=0.5)
    table = known.predict([1e5])
    assert np.log(table["run_hi"] / table["run_lo"]).item() > 4 * 0.05


def test_an_outlier_is_reported_and_counts_less():
    x = np.geomspace(1e3, 1e8, 24)
    y = 2 * x**-0.2 * np.exp(0.003 * np.random.default_rng(3).normal(size=24))
    spoilt = y.copy()
    spoilt[10] *= 3
    fit = sa.fit_curve(x, spoilt, form="power")
    assert any("1 outlier" in message for message in fit.messages)
    np.testing.assert_allclose(fit.value(1e10), 2 * 1e10**-0.2, rtol=0.02)
    assert not sa.fit_curve(x, y, form="power").messages


def test_a_jump_to_a_new_level_is_no_outlier():
    x = np.arange(1.0, 41.0)
    y = np.where(x <= 20, 0.9, 0.1) * np.exp(0.001 * np.random.default_rng(0).normal(size=40))
    assert sa.fit_curve(x, y).series.outliers == 0


def test_a_return_that_starts_at_almost_nothing_is_not_ruled_by_its_start():
    x = np.arange(1.0, 31.0)
    rng = np.random.default_rng(0)
    y = np.maximum(0.6 * (1 - np.exp(-x / 8)) - 0.06 + 0.01 * rng.normal(size=30), 1e-4)
    fit = sa.fit_curve(x, y, **RISING)
    assert fit.residual_space == "log"
    assert fit.series.weights[:3].max() < 0.3
    assert fit.value(60.0) == pytest.approx(0.54, abs=0.06)


def test_bounds_hold_and_leave_a_width():
    returns = np.array([10.0, 30.0, 50.0, 70.0, 88.0, 97.0, 99.5, 99.9])
    fit = sa.fit_curve(np.geomspace(1, 1e3, 8), returns, bounds=(0.0, 100.0), **RISING)
    table = fit.predict([2e3, 1e5])
    assert (table[["value", "hi", "run_hi"]] <= 100).all(axis=None)
    assert (table["lo"] < table["value"]).all()


@pytest.mark.parametrize("form", ["auto", "power", "power_floor", "tail_line"])
def test_noiseless_points_leave_a_stated_width(form):
    table = sa.fit_curve(X, 40 * X**-0.4 + 0.7, form=form).predict([1e5, 1e9])
    assert (table["lo"] < table["hi"]).all()
    assert (np.log(table["run_hi"] / table["run_lo"]) > 1e-4).all()


@pytest.mark.parametrize(
    "y",
    [
        np.ones(8),
        np.zeros(8),
        -np.ones(8),
        np.r_[np.ones(7), 1e-12],
        1e-250 * np.arange(1.0, 9.0),
        1e250 * np.arange(1.0, 9.0),
        np.linspace(1, -1, 8),
    ],
    ids=["ones", "zeros", "negative", "jump", "tiny", "huge", "crossing"],
)
@pytest.mark.parametrize("direction", ["decreasing", "increasing"])
def test_no_interval_is_nan_or_of_zero_width(y, direction):
    fit = sa.fit_curve(np.geomspace(1, 1e3, 8), y, direction=direction)
    table = fit.predict([0.01, 1.0, 30.0, 1e3, 1e4, 1e6])
    assert np.isfinite(table.to_numpy()).all()
    assert (table["lo"] < table["hi"]).all()
    assert (table["run_lo"] < table["run_hi"]).all()
    if np.ptp(y) == 0:
        assert any("constant" in message for message in fit.messages)


def test_values_beyond_a_bound_are_told():
    y = np.array([10.0, 30.0, 50.0, 70.0, 88.0, 97.0, 101.0, 102.0])
    fit = sa.fit_curve(np.geomspace(1, 1e3, 8), y, bounds=(0.0, 100.0), **RISING)
    assert "2 points lie beyond the bounds, which the curve keeps within" in fit.messages
    assert fit.predict([1e4])["run_hi"].item() <= 100


def test_the_same_points_give_the_same_bytes_whatever_the_generator():
    y = 2 * X**-0.2 * np.exp(0.02 * np.random.default_rng(4).normal(size=16))
    first = json.dumps(sa.fit_curve(X, y).to_dict())
    for rng in (0, 7, None, np.random.default_rng(1)):
        assert json.dumps(sa.fit_curve(X, y, rng=rng).to_dict()) == first


def test_ties_and_four_points_are_answered():
    tied = sa.fit_curve([1, 1, 10, 10], [3.0, 3.1, 2.0, 2.2])
    assert tied.status == FitStatus.DOUBTFUL
    assert np.isfinite(tied.predict([100.0]).to_numpy()).all()


def test_refit_follows_weights_and_responses():
    rng = np.random.default_rng(9)
    y = (40 * X**-0.4 + 0.7) * np.exp(0.03 * rng.normal(size=16))
    fit = sa.fit_curve(X, y, form="power_floor")
    assert not fit.series.outliers  # subsets have none of their own
    weights = np.zeros((5, 16))
    for row in weights:
        row[rng.permutation(16)[:8]] = 1.0
    replicates = fit.refit(weights=weights)
    assert replicates.valid().shape == (5,)
    assert replicates.value([1e9, 1e10]).shape == (5, 2)
    for r, row in enumerate(weights > 0):
        alone = sa.fit_curve(X[row], y[row], form="power_floor")
        np.testing.assert_allclose(replicates.value(1e9)[r], alone.value(1e9), rtol=1e-5)
    responses = fit.refit(response=np.stack([y, 2 * y]))
    np.testing.assert_allclose(responses.value(1e9)[1], 2 * responses.value(1e9)[0], rtol=1e-6)


def test_refit_of_an_impossible_response_is_not_valid():
    fit = sa.fit_curve(X, 40 * X**-0.4 + 0.7, form="power_floor")
    response = np.tile(fit.series.y, (2, 1))
    response[1, 4] = np.nan
    assert fit.refit(response=response).valid().tolist() == [True, False]


def test_json_round_trip():
    y = 2 * X**-0.2 * np.exp(0.02 * np.random.default_rng(4).normal(size=16))
    fits = [
        sa.fit_curve(X, y, y_se=0.01 * y, run=np.arange(16) // 2),
        sa.fit_curve(X, y, form="power_floor", bounds=(0.0, None)),
    ]
    for fit in fits:
        back = CurveFit.from_dict(json.loads(json.dumps(fit.to_dict())))
        pd.testing.assert_frame_equal(back.predict([1e9]), fit.predict([1e9]))
        assert back.summary() == fit.summary()


def test_tables_hold_points_or_replicates():
    fit = sa.fit_curve(X, 3 * X**-0.2, form="power")
    table = fit.to_frame()
    assert table.columns.tolist() == ["x", "y", "weight", "fitted"]
    np.testing.assert_allclose(table["fitted"], table["y"], rtol=1e-9)
    replicates = fit.refit(weights=np.ones((3, 16))).to_frame()
    np.testing.assert_allclose(replicates[["a", "b"]], [[3.0, 0.2]] * 3)


def test_summary_tells_the_state_first():
    assert sa.fit_curve(X, 3 * X**-0.2, form="power").summary() == (
        "status: ok\n"
        "16 points, x from 1000 to 1e+08, y decreasing; residuals of log y, sd 0.000708\n"
        "power, y = a x^-b: a = 3, b = 0.2"
    )
    short = sa.fit_curve(X[:4], 3 * X[:4] ** -0.2).summary().splitlines()
    assert short[0] == "status: doubtful"
    assert "hardly any past forecast" in short[1]


def test_every_form_says_what_it_is():
    assert all(named.equation for named in NAMED.values())


BAD = {
    "3 points": (([1, 2, 3], [3, 2, 1]), {}, "3 points: an extrapolation needs at least 4"),
    "no pairs": (([1, 2, 3, 4], [3, 2, 1]), {}, "x has 4 values, y 3"),
    "nan": (([1, 2, 3, 4], [3, np.nan, 1, 1]), {}, r"y\[1\] is nan"),
    "inf": (([1, np.inf, 3, 4], [3, 2, 1, 1]), {}, r"x\[1\] is inf"),
    "text": (([1, 2, 3, "many"], [3, 2, 1, 1]), {}, "x holds something that is no number"),
    "negative x": (([1, 2, -3, 4], [3, 2, 1, 1]), {}, r"x\[2\] = -3"),
    "one x": (([5, 5, 5, 5], [3, 2, 1, 1]), {}, "all 4 points are at x = 5"),
    "form": (([1, 2, 3, 4], [4, 3, 2, 1]), {"form": "cubic"}, "form='cubic' is unknown"),
    "direction": (([1, 2, 3, 4], [4, 3, 2, 1]), {"direction": "down"}, "'decreasing' or"),
    "short": (([1, 2, 3, 4], [4, 3, 2, 1]), {"form": "m4"}, "form='m4' has 5 parameters"),
    "sign": (([1, 2, 3, 4], [4, 3, 2, -1]), {"form": "power"}, "needs positive y, and y is -1"),
    "se": (([1, 2, 3, 4], [4, 3, 2, 1]), {"y_se": [1, 1, 1]}, "y_se has 3 values for 4"),
    "bad se": (([1, 2, 3, 4], [4, 3, 2, 1]), {"y_se": [1, 1, 1, -1]}, r"y_se\[3\] = -1"),
    "run": (([1, 2, 3, 4], [4, 3, 2, 1]), {"run": ["a"]}, "one name a point"),
    "bounds": (([1, 2, 3, 4], [4, 3, 2, 1]), {"bounds": (1.0, 0.0)}, "floor must be below"),
    "falling inverse": (([1, 2, 3, 4], [4, 3, 2, 1]), {"form": "inverse"}, "rises to its limit"),
    "numbers as text": ((["1", "2", "3", "4"], [4, 3, 2, 1]), {}, "x holds something that is no"),
    "nothing": (([], []), {}, "0 points: an extrapolation needs at least 4"),
    "one point": (([5], [3]), {}, "1 points: an extrapolation needs"),
    "slipped y": (
        ([1, 2, 3, 4], [4, 3, 2, 1e300]),
        {},
        r"y goes from 2 at \[2\] to 1e\+300 at \[3\]",
    ),
    "slipped, signed": (
        ([1, 2, 3, 4], [4, 3, -2, -1e300]),
        {},
        r"y\[3\] = -1e\+300 is more than 60 decades beyond the typical",
    ),
    "slipped x": (([1, 2, 3, 1e300], [4, 3, 2, 1]), {}, r"x goes from 1 at \[0\] to 1e\+300"),
    "no run": (([1, 2, 3, 4], [4, 3, 2, 1]), {"run": ["a", "a", "b", None]}, r"run\[3\] is miss"),
    "bound": (([1, 2, 3, 4], [4, 3, 2, 1]), {"bounds": "low"}, r"give \(floor, ceiling\)"),
    "far bound": (([1, 2, 3, 4], [4, 3, 2, 1]), {"bounds": (0, np.inf)}, "a finite number, or"),
    "two axes": ((np.ones((4, 2)), [4, 3, 2, 1]), {}, r"x has shape \(4, 2\)"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_named(case):
    arguments, options, message = BAD[case]
    with pytest.raises(FitError, match=message):
        sa.fit_curve(*arguments, **options)


def test_misuse_is_named():
    fit = sa.fit_curve(X, 3 * X**-0.2)
    with pytest.raises(FitError, match="no parameters: name a form"):
        fit.refit(weights=np.ones(16))
    with pytest.raises(FitError, match="it is a probability"):
        fit.predict([1e9], level=90)
    with pytest.raises(FitError, match="x_new must be positive"):
        fit.predict([-1.0])
    named = sa.fit_curve(X, 3 * X**-0.2, form="power")
    with pytest.raises(FitError, match=r"weights has shape \(1, 3\), the fit 16 points"):
        named.refit(weights=np.ones(3))
    with pytest.raises(FitError, match="not negative"):
        named.refit(weights=-np.ones(16))
    replicates = named.refit(weights=np.ones((2, 16)))
    with pytest.raises(FitError, match="these are replicates"):
        replicates.predict([1e9])
    with pytest.raises(FitError, match="replicates already"):
        replicates.refit(weights=np.ones(16))


@pytest.mark.slow
@pytest.mark.parametrize("form", ["power", "power_floor"])
def test_coverage_where_the_law_is_right(form):
    """Nominal 90 % covers 87 to 94 %, give or take two binomial standard errors of 1,000 curves."""
    rng = np.random.default_rng(11)
    hits = []
    for _ in range(1000):
        x = np.geomspace(1, 10 ** rng.uniform(2, 4), int(rng.choice([8, 12, 20])))
        at = np.append(x, 5 * x[-1])
        truth = at ** -rng.uniform(0.2, 0.6)
        if form == "power_floor":
            truth = truth + rng.uniform(0.2, 1.5) * truth[-2]
        y = truth * np.exp(0.01 * rng.normal(size=len(at)))
        row = sa.fit_curve(x, y[:-1], form=form).predict([at[-1]]).iloc[0]
        hits.append((row["lo"] <= truth[-1] <= row["hi"], row["run_lo"] <= y[-1] <= row["run_hi"]))
    law, run = np.mean(hits, axis=0)
    assert 0.85 <= law <= 0.96
    assert 0.85 <= run <= 0.96


@pytest.mark.parametrize("count", [1000, 20_000])
def test_more_points_are_fitted_as_means_and_say_more(count):
    rng = np.random.default_rng(0)

    def fitted(count):
        x = np.geomspace(1, 1e6, count)
        return sa.fit_curve(x, 3 * x**-0.1 * np.exp(0.01 * rng.normal(size=count)))

    few, many = fitted(200), fitted(count)
    assert f"{count:,} points are fitted as 200 means of neighbours" in many.messages
    assert np.sqrt(many.noise) == pytest.approx(0.01, rel=0.1)  # of a point, not of a mean
    before, after = (fit.predict([1e7]).iloc[0] for fit in (few, many))
    assert after["hi"] - after["lo"] < before["hi"] - before["lo"]
    assert after["lo"] < 3 * 1e7**-0.1 < after["hi"]
    again = type(many).from_dict(json.loads(json.dumps(many.to_dict())))
    assert again.predict([1e7]).equals(many.predict([1e7]))


def test_means_are_those_of_one_run():
    rng = np.random.default_rng(1)
    x = np.tile(np.geomspace(1, 1e6, 300), 4)
    run = np.repeat(list("abcd"), 300)
    offset = np.repeat([-0.15, -0.05, 0.05, 0.15], 300)
    made = sa.fit_curve(x, 3 * x**-0.1 * np.exp(offset + 0.02 * rng.normal(size=1200)), run=run)
    assert set(made.series.run) == set("abcd")
    assert len(made.series.x) == 200
    assert np.sqrt(made.noise) == pytest.approx(np.hypot(np.std(offset[::300], ddof=1), 0.02), 0.1)
