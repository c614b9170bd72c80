import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scaling_analysis as sa
from scaling_analysis.errors import FitError
from scaling_analysis.estimators.metrics import NAMES, Metric

ENDS = {"floor": -3.0, "ceiling": 40.0}


@pytest.mark.parametrize("name", NAMES)
@given(share=st.floats(1e-6, 1 - 1e-6))
def test_named_metrics_invert(name, share):
    metric = sa.natural_metric(name, **ENDS)
    points = -3.0 + 43.0 * share
    assert metric.points(metric.of(points)) == pytest.approx(points, rel=1e-9, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_slopes_by_a_wider_difference(name):
    metric = sa.natural_metric(name, **ENDS)
    r = np.array([-2.5, 3.0, 30.0])
    expected = (metric.of(r + 1e-3) - metric.of(r - 1e-3)) / 2e-3
    np.testing.assert_allclose(metric.slope(r), expected, rtol=1e-4)
    metric.check(r)


def test_success_odds_and_their_ends():
    metric = sa.natural_metric("odds")
    np.testing.assert_allclose(metric.of([0.5, 0.75, 0.99]), [1.0, 3.0, 99.0])
    assert metric.points(np.inf) == 1.0
    with pytest.raises(FitError, match=r"a return of 1 has no finite value\. It is for ret"):
        metric.check([0.2, 1.0])
    with pytest.raises(FitError, match="a return of 0 has no finite value"):
        sa.natural_metric("odds", ceiling=10).check([0.0, 0.2])


def test_elo_strengths_give_the_expected_score():
    strength = sa.natural_metric("elo").of([1500.0, 1700.0])
    # A lead of 200 is won to 1 / (1 + 10^(-200/400)).
    expected = 1 / (1 + 10 ** (-0.5))
    assert strength[1] / strength.sum() == pytest.approx(expected)


def test_a_pair_of_functions():
    metric = sa.natural_metric((np.cbrt, lambda m: m**3))
    metric.check([-8.0, 1.0, 27.0])
    assert metric.points(metric.of(27.0)) == pytest.approx(27.0)
    with pytest.raises(FitError, match="cannot be stored: use a named one"):
        metric.to_dict()


def test_runs_in_the_metric():
    runs = pd.DataFrame({"mean_return": [0.5, np.nan, 0.9], "return_se": [0.01, 0.1, 0.01]})
    found = sa.natural_metric("odds").transform_runs(runs)
    np.testing.assert_allclose(found["mean_return"], [1.0, np.nan, 9.0])
    # d/dp p/(1-p) = (1-p)^-2
    np.testing.assert_allclose(found["return_se"][[0, 2]], [0.04, 1.0], rtol=1e-4)
    assert runs["mean_return"][0] == 0.5


@pytest.mark.parametrize(
    ("metric", "options", "message"),
    [
        ("logit", {}, "metric is 'logit': choose 'points', 'above'"),
        ("above", {}, "needs floor="),
        ("normalised", {"floor": 0.0}, "needs ceiling="),
        ("odds", {"floor": 2.0}, "ceiling=1 is not above floor=2"),
        (np.log, {}, "a name or a pair of functions"),
        ((np.log, 3), {}, "a name or a pair of functions"),
    ],
)
def test_refusals(metric, options, message):
    with pytest.raises(FitError, match=message):
        sa.natural_metric(metric, **options)


@pytest.mark.parametrize(
    ("pair", "returns", "message"),
    [
        ((np.log, np.exp), [-1.0, 2.0], "a return of -1 has no finite value"),
        ((np.square, np.sqrt), [-2.0, 1.0], "does not rise from -2 to 1 points"),
        ((np.sqrt, np.sqrt), [2.0, 4.0], "the inverse of the metric of 2 points is 1.18"),
    ],
)
def test_functions_that_are_no_metric(pair, returns, message):
    with pytest.raises(FitError, match=message):
        sa.natural_metric(pair).check(returns)


def test_round_trip():
    metric = sa.natural_metric("normalised", **ENDS)
    back = Metric.from_dict(json.loads(json.dumps(metric.to_dict())))
    assert back.of(18.5) == metric.of(18.5) == 0.5
    assert sa.natural_metric(back) is back
    assert sa.natural_metric().of(3.0) == 3.0
