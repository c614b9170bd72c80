"""Curves: gradients, grids and exact recovery."""

from dataclasses import replace

import numpy as np
import pytest

from scaling_analysis.laws import curve_fits, curves
from scaling_analysis.laws.curve_fits import average_nodes, curve_law, fit_optimum
from scaling_analysis.laws.curve_points import Points

T = np.linspace(-3.0, 3.0, 16)
THETA = {
    "LEVEL": [0.4],
    "LINE": [1.0, 0.3],
    "HINGE": [1.0, 0.3, 0.4, 0.5, -1.0],
    "POWER_FLOOR": [0.2, 0.4, 0.5],
    "INVERSE": [0.2, 0.4, 0.5],
    "BROKEN_FLOOR": [0.2, 0.3, 0.4, 0.5, -1.0, 0.3],
    "SIGMOID": [1.0, 0.2, 0.4, 1.3],
    "M4": [0.1, 0.7, 0.6, 0.3, 1.5],
}
FORMS = {
    "HINGE": curve_fits.BROKEN,
    "POWER_FLOOR": curve_fits.POWER_FLOOR,
    "BROKEN_FLOOR": curve_fits.BROKEN_FLOOR,
    "SIGMOID": curve_fits.SIGMOID,
    "M4": curve_fits.M4,
}


def make_points(name: str, y: np.ndarray, space: str = "log") -> Points:
    return Points(t=T, y=np.atleast_2d(y), weights=np.ones((1, len(T))), space=space, limit=0.0)


def truth(name: str) -> np.ndarray:
    curve, theta = getattr(curves, name), np.array(THETA[name])
    value = curve.value(theta, T)
    return np.exp(value) if curve.of_log else value


@pytest.mark.parametrize("name", THETA)
def test_gradient_is_the_derivative(name):
    curve, theta = getattr(curves, name), np.array(THETA[name])
    gradient = curve.gradient(theta, T)
    assert gradient.shape == (len(T), len(theta))
    for i in range(len(theta)):
        step = np.zeros(len(theta))
        step[i] = 1e-6
        central = (curve.value(theta + step, T) - curve.value(theta - step, T)) / 2e-6
        np.testing.assert_allclose(gradient[:, i], central, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", ["HINGE", "POWER_FLOOR", "M4"])
def test_replicates_are_independent_rows(name):
    curve, theta = getattr(curves, name), np.array(THETA[name])
    batch = np.stack([theta, theta * 1.1])
    np.testing.assert_allclose(curve.value(batch, T)[1], curve.value(theta * 1.1, T), rtol=1e-12)
    np.testing.assert_allclose(
        curve.gradient(batch, T)[0], curve.gradient(theta, T), rtol=1e-12, atol=1e-14
    )


def test_m4_solves_its_own_equation():
    log_a, b, kappa, c, start = THETA["M4"]
    y = curves.M4.value(np.array(THETA["M4"]), T)
    np.testing.assert_allclose((y - c) / (start - y) ** kappa, np.exp(log_a - b * T), rtol=1e-10)


def test_m4_is_a_sigmoid_for_kappa_one_and_a_power_law_with_floor_for_kappa_zero():
    sigmoid = curves.M4.value(np.array([0.0, 1.3, 1.0, 0.2, 1.0]), T)
    expected = curves.SIGMOID.value(np.array([1.0, 0.2, 0.0, 1.3]), T)
    np.testing.assert_allclose(sigmoid, expected, rtol=1e-10)
    power = curves.M4.value(np.array([-3.0, 0.4, 0.0, 0.2, 50.0]), T)
    np.testing.assert_allclose(power, np.exp(-3 - 0.4 * T) + 0.2, rtol=1e-10)


@pytest.mark.parametrize("name", FORMS)
def test_recentring_gives_the_parameters_of_plain_logs(name):
    curve, theta = getattr(curves, name), np.array(THETA[name])
    moved = curve.recentre(theta, 5.0)
    np.testing.assert_allclose(curve.value(moved, T + 5.0), curve.value(theta, T), rtol=1e-12)


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("space", ["log", "linear"])
def test_exact_recovery(name, space):
    form = FORMS[name]
    y = form.curve.value(np.array(THETA[name]), T)
    if form.curve.of_log and space == "log":
        y = np.exp(y)
    found = fit_optimum(form, make_points(name, y, space))
    assert found.converged.all()
    np.testing.assert_allclose(found.theta[0], THETA[name], rtol=1e-6)


def test_inverse_recovers_and_is_the_reciprocal_of_a_power_law_with_floor():
    y = truth("INVERSE")
    points = replace(make_points("INVERSE", -y), sign=-1.0, limit=-np.inf)
    found = fit_optimum(curve_fits.INVERSE, points)
    np.testing.assert_allclose(found.theta[0], THETA["INVERSE"], rtol=1e-6)
    np.testing.assert_allclose(1 / y, curves.POWER_FLOOR.value(np.array(THETA["INVERSE"]), T))


def test_rising_curves_are_fitted_as_their_negative():
    theta = np.array([0.2, 0.4, -8.0])  # y = 8 - exp(.2 - .4 t)
    y = -curves.POWER_FLOOR.value(theta, T)
    points = replace(make_points("POWER_FLOOR", -y), sign=-1.0, limit=-np.inf)
    found = fit_optimum(curve_fits.POWER_FLOOR, points)
    np.testing.assert_allclose(found.theta[0], theta, rtol=1e-6)


def test_replicates_are_fitted_as_one_by_one():
    rng = np.random.default_rng(3)
    y = truth("POWER_FLOOR") * np.exp(0.02 * rng.normal(size=(6, len(T))))
    weights = rng.integers(0, 3, size=(6, len(T))).astype(float)
    points = replace(make_points("POWER_FLOOR", y), weights=weights)
    together = fit_optimum(curve_fits.POWER_FLOOR, points)
    for r in range(6):
        alone = fit_optimum(curve_fits.POWER_FLOOR, replace(points, y=y[[r]], weights=weights[[r]]))
        np.testing.assert_allclose(together.theta[r], alone.theta[0], rtol=1e-5, atol=1e-7)


def test_the_optimum_beats_every_node_of_its_grid_and_the_truth():
    rng = np.random.default_rng(5)
    y = truth("BROKEN_FLOOR") * np.exp(0.01 * rng.normal(size=len(T)))
    points = make_points("BROKEN_FLOOR", y)
    found = fit_optimum(curve_fits.BROKEN_FLOOR, points)
    nodes = curve_fits.BROKEN_FLOOR.nodes(points)[0]
    fitted = np.log(curves.BROKEN_FLOOR.value(nodes, T))
    best_node = np.nanmin(((fitted - np.log(y)) ** 2).sum(axis=1))
    at_truth = ((np.log(truth("BROKEN_FLOOR")) - np.log(y)) ** 2).sum()
    assert found.squares[0] <= min(best_node, at_truth)


def test_bounds_hold():
    y = np.exp(-0.4 * T) + 0.5
    points = replace(make_points("POWER_FLOOR", y), limit=0.6)
    found = fit_optimum(curve_fits.POWER_FLOOR, points)
    assert found.theta[0, 2] == pytest.approx(0.6)
    assert found.at_bound[0].tolist() == [False, False, True]
    low, high = curve_law(curve_fits.POWER_FLOOR, points).lower, found.theta[0]
    assert (high >= low).all()


def test_a_known_start_is_kept():
    y = curves.SIGMOID.value(np.array([1.0, 0.2, 0.4, 1.3]), T)
    found = fit_optimum(curve_fits.SIGMOID, replace(make_points("SIGMOID", y), start=1.05))
    assert found.theta[0, 0] == pytest.approx(1.05)


def test_weight_zero_is_absence():
    y = truth("POWER_FLOOR")
    spoilt = y.copy()
    spoilt[3] = 40.0
    weights = np.ones((1, len(T)))
    weights[0, 3] = 0.0
    points = replace(make_points("POWER_FLOOR", spoilt), weights=weights)
    np.testing.assert_allclose(
        fit_optimum(curve_fits.POWER_FLOOR, points).theta[0], THETA["POWER_FLOOR"], rtol=1e-6
    )


@pytest.mark.parametrize("name", FORMS)
def test_average_of_nodes_follows_an_exact_curve(name):
    y = truth(name)
    new_t = np.array([3.5])
    curve, theta = getattr(curves, name), np.array(THETA[name])
    expected = curve.value(theta, new_t)
    expected = expected if curve.of_log else np.log(expected)
    forecast = average_nodes(FORMS[name], make_points(name, y), new_t)
    np.testing.assert_allclose(forecast[0], expected, atol=0.05)


def test_average_of_nodes_at_one_point_does_not_depend_on_the_others():
    y = 8.0 - np.exp(0.2 - 0.4 * T)  # falls below zero far behind the data
    points = replace(make_points("POWER_FLOOR", -y), sign=-1.0, limit=-np.inf)
    alone = average_nodes(curve_fits.POWER_FLOOR, points, np.array([4.0]))
    both = average_nodes(curve_fits.POWER_FLOOR, points, np.array([-40.0, 4.0]))
    assert both[0, 1] == alone[0, 0]
