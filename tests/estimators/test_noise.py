"""Noise, outliers and weights of a measured curve."""

import numpy as np
import pytest

from scaling_analysis.estimators.noise import (
    LEAST_NOISE,
    additive_weights,
    least_variance,
    neighbour_noise,
    outlier_weights,
    precision_weights,
    run_noise,
)

T = np.linspace(0.0, 10.0, 400)


def test_noise_is_found_without_a_law():
    rng = np.random.default_rng(0)
    z = np.sin(T) + 0.05 * rng.normal(size=400)
    assert np.sqrt(neighbour_noise(T, z, np.ones(400))) == pytest.approx(0.05, rel=0.15)


def test_uneven_and_tied_places_do_not_bias_it():
    rng = np.random.default_rng(1)
    t = np.sort(np.r_[rng.uniform(0, 10, 300), np.repeat(rng.uniform(0, 10, 50), 2)])
    z = 2 - 0.3 * t + 0.05 * rng.normal(size=400)
    assert np.sqrt(neighbour_noise(t, z, np.ones(400))) == pytest.approx(0.05, rel=0.15)


@pytest.mark.parametrize("repeats", [2, 3, 5, 20])
def test_the_order_of_points_at_one_place_says_nothing(repeats):
    rng = np.random.default_rng(3)
    t = np.repeat(np.linspace(0, 10, 240 // repeats), repeats)
    z = 2 - 0.3 * t + 0.05 * rng.normal(size=240)
    z = z[np.lexsort((z, t))]  # as a curve is read: neighbours of one x resemble one another
    assert np.sqrt(neighbour_noise(t, z, np.ones(240))) == pytest.approx(0.05, rel=0.12)
    assert (outlier_weights(t, z) == 1).all()


def test_points_of_little_weight_say_little():
    z = 2 - 0.3 * T
    z[200] += 5.0
    weights = np.ones(400)
    weights[200] = 1e-6
    assert neighbour_noise(T, z, weights) < 1e-3 * neighbour_noise(T, z, np.ones(400))


@pytest.mark.parametrize("count", [9, 16, 60])
def test_normal_noise_has_hardly_an_outlier(count):
    rng = np.random.default_rng(2)
    t = np.linspace(0, 10, count)
    found = [
        (outlier_weights(t, 2 - 0.3 * t + 0.01 * rng.normal(size=count)) < 1).any()
        for _ in range(200)
    ]
    assert np.mean(found) < 0.04


@pytest.mark.parametrize("noise", [0.0, 0.002, 0.01])
def test_a_bend_is_no_outlier(noise):
    rng = np.random.default_rng(6)
    t = np.linspace(7, 18, 16)
    bent = np.log(40 * np.exp(-0.4 * t) + 0.7)
    found = [(outlier_weights(t, bent + noise * rng.normal(size=16)) < 1).any() for _ in range(100)]
    assert np.mean(found) < 0.03


def test_an_outlier_loses_weight_by_its_size_and_alone():
    rng = np.random.default_rng(3)
    t = np.linspace(0, 10, 24)
    z = 2 - 0.3 * t + 0.01 * rng.normal(size=24)
    near, far = z.copy(), z.copy()
    near[10] += 0.3
    far[10] += 3.0
    one, other = outlier_weights(t, near), outlier_weights(t, far)
    assert np.flatnonzero(one < 1).tolist() == [10]
    assert other[10] < 0.02 * one[10]


def test_eight_points_have_no_outlier():
    assert (outlier_weights(np.arange(8.0), np.r_[np.zeros(4), 99.0, np.zeros(3)]) == 1).all()


def test_precision_weights_follow_the_errors_and_average_one():
    weights = precision_weights(np.array([0.1, 0.1, 0.2, 0.2]), 0.0)
    assert weights.mean() == pytest.approx(1.0)
    scattered = precision_weights(np.array([0.1, 0.1, 0.2, 0.2]), 100.0)
    assert weights[0] / weights[2] > 3.5
    np.testing.assert_allclose(scattered, 1.0, rtol=0.01)


def test_exact_standard_errors_leave_finite_weights():
    weights = precision_weights(np.array([0.0, 0.0, 0.1]), 1e-6)
    assert np.isfinite(weights).all()
    assert weights[0] > weights[2] > 0


def test_noise_of_a_new_run_has_both_parts():
    rng = np.random.default_rng(4)
    run = np.repeat(np.arange(200).astype(str), 5)
    residuals = np.repeat(0.3 * rng.normal(size=200), 5) + 0.1 * rng.normal(size=1000)
    assert run_noise(residuals, run) == pytest.approx(0.3**2 + 0.1**2, rel=0.2)
    assert run_noise(residuals[:10], run[:10]) == 0.0  # two runs tell nothing
    assert run_noise(residuals[::5], run[::5]) == 0.0  # nor do runs of one point


def test_a_return_that_starts_at_nothing_is_weighed_by_its_size():
    rng = np.random.default_rng(5)
    x = np.arange(1.0, 41.0)
    y = np.maximum((x / 40) ** 3 + 0.01 * rng.normal(size=40), 1e-5)
    weights = additive_weights(np.log(x), y)
    assert weights[0] < 0.05
    assert weights[-1] == 1.0
    steady = x**0.4 * np.exp(0.01 * rng.normal(size=40))
    assert (additive_weights(np.log(x), steady) == 1).all()


def test_the_least_noise_has_the_unit_of_its_space():
    assert least_variance(np.zeros(5), "log") == pytest.approx((0.1 * LEAST_NOISE) ** 2)
    assert least_variance(np.full(5, 40.0), "linear") == pytest.approx((4 * LEAST_NOISE) ** 2)
    assert least_variance(np.zeros(5), "linear") > 0
    spread = np.array([-1.0, 1.0])
    assert least_variance(spread, "linear") == pytest.approx(LEAST_NOISE**2)
