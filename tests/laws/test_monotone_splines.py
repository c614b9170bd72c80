"""Splines that never fall."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_analysis.laws.monotone_splines import MonotoneSpline, fit_spline

X = np.linspace(-2.0, 3.0, 400)


def test_a_spline_of_the_same_knots_is_recovered():
    coefficients = np.cumsum(np.random.default_rng(0).exponential(size=12))
    truth = MonotoneSpline(-2.0, 3.0, coefficients)
    fit = fit_spline(X, truth.value(X), np.ones_like(X), 12)
    # The penalty that fills empty knots costs a little, most where the last one hardly acts.
    assert np.abs(fit.fitted - truth.value(X)).max() < 2e-4 * np.ptp(coefficients)
    np.testing.assert_allclose(fit.spline.coefficients[2:-2], coefficients[2:-2], atol=2e-3)


def test_a_smooth_rising_function_is_followed():
    y = 1 / (1 + np.exp(-3 * X))
    fit = fit_spline(X, y, np.ones_like(X), 30)
    assert np.abs(fit.fitted - y).max() < 1e-4
    np.testing.assert_allclose(fit.spline.value(X), fit.fitted, atol=1e-12)


def test_a_falling_function_becomes_its_mean():
    fit = fit_spline(X, -X, np.ones_like(X), 20)
    np.testing.assert_allclose(fit.fitted, -X.mean(), atol=1e-6)


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_it_never_falls(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=60), rng.normal(size=60)
    fit = fit_spline(x, y, rng.uniform(0.1, 2, 60), 15)
    dense = np.linspace(x.min() - 1, x.max() + 1, 500)
    assert (np.diff(fit.spline.value(dense)) >= -1e-12).all()


def test_weights_count_repetitions():
    rng = np.random.default_rng(1)
    x, y = np.sort(rng.normal(size=50)), rng.normal(size=50)
    weights = rng.integers(1, 4, 50)
    weighted = fit_spline(x, y, weights.astype(float), 12)
    repeated = fit_spline(np.repeat(x, weights), np.repeat(y, weights), np.ones(weights.sum()), 12)
    np.testing.assert_allclose(
        weighted.spline.coefficients, repeated.spline.coefficients, atol=1e-9
    )


def test_slope_against_central_differences():
    spline = MonotoneSpline(-2.0, 3.0, np.cumsum(np.random.default_rng(2).exponential(size=10)))
    inside = X[1:-1]
    numeric = (spline.value(inside + 1e-6) - spline.value(inside - 1e-6)) / 2e-6
    np.testing.assert_allclose(spline.slope(inside), numeric, atol=1e-5)


def test_what_a_refit_takes_up_is_its_derivative():
    rng = np.random.default_rng(3)
    y = 1 / (1 + np.exp(-2 * X)) + 0.05 * rng.standard_normal(len(X))
    weights = rng.uniform(0.5, 2.0, len(X))
    fit = fit_spline(X, y, weights, 15)
    change = np.stack([np.sin(X), X**2], axis=1)
    for column, absorbed in zip(change.T, fit.absorbed(change).T, strict=True):
        refitted = fit_spline(X, y + 1e-7 * column, weights, 15).fitted
        np.testing.assert_allclose((refitted - fit.fitted) / 1e-7, absorbed, atol=2e-3)


def test_constant_beyond_its_ends():
    spline = MonotoneSpline(0.0, 1.0, np.arange(8.0))
    assert spline.value(np.array(5.0)) == pytest.approx(float(spline.value(np.array(1.0))))
    assert spline.value(np.array(-5.0)) == pytest.approx(float(spline.value(np.array(0.0))))
