import numpy as np

from scaling_analysis.laws.newton import minimize_huber, objective
from scaling_analysis.laws.seeds import additive_seeds, exponent_grid, project
from scaling_analysis.laws.surfaces import additive

RNG = np.random.default_rng(0)
LOG_N, LOG_D = RNG.uniform(12, 18, 60), RNG.uniform(16, 23, 60)
TRUTH = np.array([[0.6, -1.5, 0.4, -1.0, 0.45]])
LAW = additive([LOG_N, LOG_D])
Y = np.exp(LAW.evaluate(TRUTH)[0][0])


def test_a_grid_that_holds_the_true_exponents_gives_the_true_coefficients():
    exponents = np.array([[0.2, 0.4, 0.4, 0.8], [0.45, 0.3, 0.45, 0.45]])
    for space, y in (("log", Y), ("linear", Y)):
        seed = additive_seeds([LOG_N, LOG_D], y, np.ones(60), space=space, exponents=exponents)
        np.testing.assert_allclose(seed[0, 0], TRUTH[0], rtol=1e-9)


def test_every_replicate_has_its_own_seed():
    weights = RNG.multinomial(60, np.ones(60) / 60, 300).astype(float)
    response = Y * np.exp(RNG.normal(0, 0.05, (300, 60)))
    together = additive_seeds([LOG_N, LOG_D], response, weights, keep=2)
    for r in (0, 150, 299):
        alone = additive_seeds([LOG_N, LOG_D], response[r], weights[r], keep=2)
        np.testing.assert_allclose(together[r], alone[0], rtol=1e-9)


def test_the_least_squares_of_a_node_agree_with_lstsq():
    features = [np.exp(-np.outer([0.2, 0.6], LOG_N - 15)), np.exp(-np.outer([0.3], LOG_D - 20))]
    nodes = np.array([[0, 1], [0, 0]])
    y = Y * np.exp(RNG.normal(0, 0.02, 60))
    best, coefficients, squares = project(features, nodes, y[None], np.ones((1, 60)), keep=2)
    for k in range(2):
        design = np.stack([np.ones(60), features[0][nodes[0, best[0, k]]], features[1][0]], axis=1)
        expected, residual, *_ = np.linalg.lstsq(design, y, rcond=None)
        np.testing.assert_allclose(coefficients[0, k], expected, rtol=1e-8)
        np.testing.assert_allclose(squares[0, k], residual[0], rtol=1e-6)
    assert squares[0, 0] < squares[0, 1]


def test_a_floor_that_would_be_negative_is_zero_in_log_space_and_kept_in_linear_space():
    x = np.linspace(0, 3, 40)
    y = np.exp(-x) * 10 + 0.001 - 0.4 * np.exp(-0.1 * x) + 0.4
    y -= y.min() - 1e-3
    weights, grid = np.ones((1, 40)), exponent_grid(1)
    seed = additive_seeds([x], y - 0.3 * y.min(), weights, exponents=grid)
    assert seed[0, 0, 0] >= 0
    free = additive_seeds([x], y - 5, weights, space="linear", exponents=grid)
    assert free[0, 0, 0] < 0


def test_a_response_that_rises_still_gives_finite_seeds():
    seed = additive_seeds([LOG_N, LOG_D], 1 / Y, np.ones(60), keep=3)
    assert np.isfinite(seed).all()


def test_three_inputs():
    third = RNG.uniform(0, 5, 60)
    truth = np.array([[0.4, -1.5, 0.4, -1.0, 0.45, -1.2, 0.3]])
    law = additive([LOG_N, LOG_D, third])
    y = law.evaluate(truth)[0][0]
    seed = additive_seeds([LOG_N, LOG_D, third], np.exp(y), np.ones(60))
    found = minimize_huber(law, y, np.ones(60), seed[:, 0])
    np.testing.assert_allclose(found.theta, truth, rtol=1e-6)


def test_the_best_seed_starts_closer_than_the_middle_of_the_grid():
    seed = additive_seeds([LOG_N, LOG_D], Y, np.ones(60))[:, 0]
    middle = np.array([[0.5, -1.0, 0.27, -1.0, 0.27]])
    values = [objective(LAW, t, np.log(Y), np.ones(60))[0] for t in (seed, middle)]
    assert values[0] < 0.2 * values[1]


def test_a_replicate_without_weight_does_not_disturb_the_others():
    weights = np.ones((2, 60))
    weights[0] = 0
    seeds = additive_seeds([LOG_N, LOG_D], Y, weights)
    assert np.isfinite(seeds).all()
    np.testing.assert_allclose(seeds[1], additive_seeds([LOG_N, LOG_D], Y, weights[1])[0])
