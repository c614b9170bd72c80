"""The batched solver: derivatives, optima, and independence of how replicates are batched."""

import numpy as np
import pytest

from scaling_analysis.laws import newton
from scaling_analysis.laws.kaplan import kaplan
from scaling_analysis.laws.newton import derivatives, minimize_huber, objective
from scaling_analysis.laws.repeated import repeated
from scaling_analysis.laws.surfaces import additive, log_quadratic, tied

RNG = np.random.default_rng(0)
ROWS = 30
LOG_N, LOG_D = RNG.uniform(10, 20, ROWS), RNG.uniform(15, 25, ROWS)
LOG_U = LOG_D - RNG.uniform(-1, 3, ROWS)
THIRD = RNG.uniform(0, 3, ROWS)
CENTRE = (LOG_N.mean(), LOG_D.mean())
POINT = {
    "additive": [0.5, -0.3, 0.3, -0.2, 0.4],
    "three inputs": [0.5, -0.3, 0.3, -0.2, 0.4, -1.0, 0.7],
    "tied": [0.5, -0.3, -0.2, 0.4],
    "repeated": [0.5, -0.3, 0.3, -0.2, 0.4, 1.5],
}
LAWS = {
    **{
        f"{name} {space}": (law, POINT[name])
        for space in ("log", "linear")
        for name, law in (
            ("additive", additive([LOG_N, LOG_D], space=space)),
            ("three inputs", additive([LOG_N, LOG_D, THIRD], space=space)),
            ("tied", tied([LOG_N, LOG_D], space=space)),
            ("repeated", repeated(LOG_N, LOG_D, LOG_U, CENTRE, space=space)),
        )
    },
    "log-quadratic": (log_quadratic([LOG_N, LOG_D]), [0.5, -0.3, 0.3, -0.02, 0.04, 0.02]),
    "kaplan": (kaplan([LOG_N, LOG_D], CENTRE), [0.3, 0.1, 0.7, -0.4]),
}


def _three_points(point):
    return np.array([point]) + np.random.default_rng(1).normal(0, 0.05, (3, len(point)))


def _central_difference(function, theta, step=1e-6):
    """d function / d theta, the parameter as the last axis; function is of (R, P)."""
    moves = step * np.eye(theta.shape[1])
    sides = [(function(theta + move) - function(theta - move)) / (2 * step) for move in moves]
    return np.stack(sides, axis=-1)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("delta", [0.2, np.inf])
def test_gradient_and_hessian_against_central_differences(name, delta):
    law, point = LAWS[name]
    theta, rng = _three_points(point), np.random.default_rng(2)
    weights = rng.uniform(0.5, 2, (3, ROWS))
    response = law.evaluate(theta)[0] + rng.normal(0, 0.3, (3, ROWS))
    value, gradient, hessian = derivatives(law, theta, response, weights, delta)
    np.testing.assert_allclose(value, objective(law, theta, response, weights, delta), rtol=1e-13)

    numeric = _central_difference(lambda t: objective(law, t, response, weights, delta), theta)
    np.testing.assert_allclose(gradient.T, numeric, atol=1e-8 * np.abs(gradient).max())
    numeric = _central_difference(
        lambda t: derivatives(law, t, response, weights, delta)[1].T, theta
    )
    np.testing.assert_allclose(
        hessian.transpose(2, 0, 1), numeric, atol=1e-8 * np.abs(hessian).max()
    )


@pytest.mark.parametrize("name", LAWS)
def test_jacobian_against_central_differences(name):
    law, point = LAWS[name]
    theta = _three_points(point)
    numeric = _central_difference(lambda t: law.evaluate(t)[0], theta)
    np.testing.assert_allclose(law.jacobian(theta), numeric, atol=1e-8)


def test_blend_adds_the_curvature_of_reweighting_outside_the_knee():
    law, point = LAWS["log-quadratic"]
    theta, delta = np.array([point]), 0.01
    response = law.evaluate(theta)[0] + np.random.default_rng(3).normal(0, 0.3, (1, ROWS))
    residuals = (response - law.evaluate(theta)[0])[0]
    weights = np.ones((1, ROWS))
    hessian = derivatives(law, theta, response, weights, delta, blend=1.0)[2][:, :, 0]
    reweighted = np.minimum(1, delta / np.abs(residuals))
    np.testing.assert_allclose(hessian, (law.design * reweighted) @ law.design.T, rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize("delta", [1e-3, np.inf])
def test_noiseless_parameters_are_recovered(name, delta):
    law, point = LAWS[name]
    truth = np.array([point])
    start = truth + np.random.default_rng(4).normal(0, 0.1, (5, len(point)))
    found = minimize_huber(law, law.evaluate(truth)[0], np.ones(ROWS), start, delta=delta)
    assert found.converged.all()
    np.testing.assert_allclose(found.theta, np.repeat(truth, 5, axis=0), rtol=1e-6)


def _noisy(rows=80, seed=5, scale=0.02):
    """A law with heavy-tailed noise in log space: (law, log y)."""
    rng = np.random.default_rng(seed)
    n, d = rng.uniform(12, 18, rows), rng.uniform(16, 23, rows)
    law = additive([n, d])
    y = law.evaluate(np.array([[0.6, -1.5, 0.4, -1.0, 0.45]]))[0][0]
    return law, y + scale * rng.standard_t(2, rows)


def test_no_point_nearby_is_lower():
    law, y = _noisy()
    found = minimize_huber(law, y, np.ones(80), [0.6, -1.5, 0.4, -1.0, 0.45])
    assert found.converged.all()
    rng = np.random.default_rng(6)
    for scale in (1e-5, 1e-3, 1e-1):
        around = found.theta * (1 + scale * rng.normal(size=(3000, 5)))
        assert objective(law, around, y, np.ones(80)).min() > found.objective[0]


def test_the_objective_is_nearly_least_absolute_deviation_and_still_converges():
    """With no more rows inside the knee than parameters, the exact Hessian says next to nothing."""
    law, y = _noisy(scale=0.1)
    weights = np.random.default_rng(7).multinomial(80, np.ones(80) / 80, 300).astype(float)
    found = minimize_huber(law, y, weights, [0.6, -1.5, 0.4, -1.0, 0.45])
    inside = (np.abs(y - law.evaluate(found.theta)[0]) < 1e-3) & (weights > 0)
    assert np.median(inside.sum(axis=1)) <= 5
    assert found.converged.all()


def test_replicates_do_not_depend_on_their_batch(monkeypatch):
    law, y = _noisy()
    weights = np.random.default_rng(8).multinomial(80, np.ones(80) / 80, 12).astype(float)
    start = np.array([0.6, -1.5, 0.4, -1.0, 0.45])
    together = minimize_huber(law, y, weights, start)
    monkeypatch.setattr(newton, "IN_FLIGHT", 5 * 80)
    in_turn = minimize_huber(law, y, weights, start)
    alone = [minimize_huber(law, y, w, start) for w in weights]
    for other in (in_turn.theta, np.concatenate([m.theta for m in alone])):
        np.testing.assert_allclose(other, together.theta, rtol=1e-6)
    np.testing.assert_allclose(in_turn.objective, together.objective, rtol=1e-12)


def test_weights_are_repetitions_and_zero_is_absence():
    law, y = _noisy()
    start = np.array([0.6, -1.5, 0.4, -1.0, 0.45])
    counts = np.random.default_rng(9).multinomial(80, np.ones(80) / 80)
    drawn = np.repeat(np.arange(80), counts)
    n, d = (-law.designs[i][1] for i in range(2))
    subset = additive([n[drawn], d[drawn]], centre=(0.0, 0.0))
    weighted = minimize_huber(law, y, counts, start)
    repeated_rows = minimize_huber(subset, y[drawn], np.ones(80), start)
    np.testing.assert_allclose(weighted.theta, repeated_rows.theta, rtol=1e-6)
    np.testing.assert_allclose(weighted.objective, repeated_rows.objective, rtol=1e-11)


def test_responses_may_differ_between_replicates():
    law, _ = _noisy()
    truth = np.array([[0.6, -1.5, 0.4, -1.0, 0.45], [0.2, -1.0, 0.5, -0.5, 0.3]])
    found = minimize_huber(law, law.evaluate(truth)[0], np.ones(80), truth.mean(axis=0))
    np.testing.assert_allclose(found.theta, truth, rtol=1e-6)


def test_a_floor_that_is_not_there_ends_on_zero():
    rng = np.random.default_rng(10)
    law = additive([rng.uniform(12, 18, 60)])
    y = -0.3 - 0.4 * -law.designs[0][1]
    found = minimize_huber(law, y - 0.02 * law.designs[0][1] ** 2, np.ones(60), [0.3, -0.5, 0.5])
    assert found.converged.all()
    assert found.theta[0, 0] == 0.0


def test_an_exponent_stays_within_its_bounds():
    law, _ = _noisy()
    y = law.evaluate(np.array([[0.6, -1.5, 6.0, -1.0, 0.45]]))[0]
    found = minimize_huber(law, y, np.ones(80), [0.6, -1.5, 2.0, -1.0, 0.45])
    assert found.theta[0, 2] == law.upper[2]


def test_infinite_knee_is_least_squares():
    law, point = LAWS["log-quadratic"]
    rng = np.random.default_rng(11)
    y = law.evaluate(np.array([point]))[0][0] + rng.normal(0, 0.1, ROWS)
    weights = rng.uniform(0.2, 3, ROWS)
    found = minimize_huber(law, y, weights, point, delta=np.inf)
    root = np.sqrt(weights)
    expected = np.linalg.lstsq((law.design * root).T, y * root, rcond=None)[0]
    np.testing.assert_allclose(found.theta[0], expected, rtol=1e-9)


def test_a_start_that_overflows_is_reported_not_returned_as_an_optimum():
    law, y = _noisy()
    found = minimize_huber(law, np.where(np.arange(80) == 3, np.nan, y), np.ones(80), np.ones(5))
    assert not found.converged.any()
