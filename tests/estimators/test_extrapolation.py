"""The interval of a forecast, and what may be refitted."""

import numpy as np
import pytest
from scipy import stats

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.extrapolation import (
    FORMS_SHARE,
    ORIGIN_FREEDOM,
    ORIGIN_SHARE,
    average_freedom,
    average_variance,
    check_form,
    interval_columns,
    replicate_rows,
)
from scaling_analysis.uncertainty.rolling_origin import GROWTH


def columns(variance, freedom, noise, noise_freedom, level=0.9):
    z = np.zeros(np.shape(variance))
    return interval_columns(z, variance, freedom, noise, noise_freedom, level, lambda v: v)


def test_known_variances_give_normal_intervals():
    table = columns(np.array([0.04]), 1e9, 0.05, 1e9)
    assert table["hi"][0] == pytest.approx(stats.norm.ppf(0.95) * 0.2)
    assert table["run_hi"][0] == pytest.approx(stats.norm.ppf(0.95) * 0.3)
    assert table["run_lo"][0] == -table["run_hi"][0]


def test_a_new_observation_covers_at_its_level():
    """Both variances estimated, on 3 and 8 degrees of freedom."""
    rng = np.random.default_rng(0)
    count, noise, law = 20_000, 0.5, 1.0
    variance = law * rng.chisquare(3, count) / 3
    spread = noise * rng.chisquare(8, count) / 8
    error = np.sqrt(law) * rng.normal(size=count) + np.sqrt(noise) * rng.normal(size=count)
    table = columns(variance, 3.0, spread, 8.0)
    assert np.mean(np.abs(error) <= table["run_hi"]) == pytest.approx(0.9, abs=0.02)


def test_the_curve_is_never_less_certain_than_an_observation_of_it():
    table = columns(np.geomspace(1e-6, 1e6, 60), 0.6, 1.0, 40)
    assert (table["hi"] <= table["run_hi"]).all()
    assert (table["hi"] > 0).all()
    assert (table["hi"] < table["run_hi"]).any()
    assert (table["hi"] == table["run_hi"]).any()


@pytest.mark.parametrize("level", [0, 1, 90, -0.1, np.nan, "0.9", None])
def test_a_level_is_a_probability(level):
    with pytest.raises(FitError, match="it is a probability, such as"):
        columns(np.ones(1), 5, 1.0, 5, level)


def test_the_variance_of_an_average_has_three_parts():
    distance = np.array([0.0, 1.0, 2.0])
    variance = average_variance(np.full(3, 4.0), 9.0, distance, 0.01)
    expected = FORMS_SHARE * 4 + ORIGIN_SHARE * 9 * distance ** (2 * GROWTH) + 0.01
    np.testing.assert_allclose(variance, expected)
    freedom = average_freedom(distance, 2.0, 10)
    assert freedom.tolist() == [10, 2 + ORIGIN_FREEDOM, 2 + ORIGIN_FREEDOM]
    assert average_freedom(distance, 50.0, 10).tolist() == [10, 10, 10]


def test_weights_and_responses_are_checked():
    y = np.array([1.0, 2.0, 3.0])
    weights, response, possible = replicate_rows(None, [[1, np.nan, 3], [-1, 2, 3]], y, "log")
    assert weights.shape == (1, 3)
    assert possible.tolist() == [[True, False, True], [False, True, True]]
    np.testing.assert_array_equal(response, [[1, 2, 3], [1, 2, 3]])
    assert replicate_rows(None, [[-1, 2, 3]], y, "linear")[2].all()
    for weights, response, message in (
        ([1.0, 1.0], None, r"weights has shape \(1, 2\), the fit 3 points"),
        (None, np.ones((2, 4)), r"response has shape \(2, 4\)"),
        (np.ones((2, 3)), np.ones((3, 3)), r"weights has shape \(2, 3\)"),
        ([1, 1, np.nan], None, "finite and not negative"),
    ):
        with pytest.raises(FitError, match=message):
            replicate_rows(weights, response, y, "log")


def test_an_unknown_form_is_told_the_known_ones():
    check_form("auto", ("a", "b"))
    with pytest.raises(FitError, match="form='c' is unknown: 'auto' or one of a, b"):
        check_form("c", ("a", "b"))
