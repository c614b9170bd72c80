import numpy as np

from scaling_analysis.laws.surfaces import additive, log_quadratic, tied

RNG = np.random.default_rng(0)
N, D, X = (np.exp(RNG.uniform(low, low + 6, 20)) for low in (10, 15, 0))
LOGS = np.log([N, D, X])
PLAIN = (0.0, 0.0, 0.0)


def test_additive_is_the_sum_of_powers():
    theta = np.array([[1.7, np.log(400), 0.34, np.log(410), 0.28]])
    expected = 1.7 + 400 / N**0.34 + 410 / D**0.28
    log_value = additive(LOGS[:2], PLAIN[:2]).evaluate(theta)[0]
    value = additive(LOGS[:2], PLAIN[:2], "linear").evaluate(theta)[0]
    np.testing.assert_allclose(log_value[0], np.log(expected), rtol=1e-13)
    np.testing.assert_allclose(value[0], expected, rtol=1e-13)


def test_additive_takes_any_number_of_inputs():
    theta = np.array([[0.1, np.log(3), 0.3, np.log(5), 0.2, np.log(0.5), 0.7]])
    for k in (1, 2, 3):
        terms = [c * x**-p for c, x, p in ((3, N, 0.3), (5, D, 0.2), (0.5, X, 0.7))][:k]
        got = additive(LOGS[:k], PLAIN[:k], "linear").evaluate(theta[:, : 1 + 2 * k])[0][0]
        np.testing.assert_allclose(got, 0.1 + sum(terms), rtol=1e-13)


def test_a_linear_floor_may_be_negative():
    theta = np.array([[-40.0, np.log(3), 0.3]])
    got = additive(LOGS[:1], PLAIN[:1], "linear").evaluate(theta)[0][0]
    np.testing.assert_allclose(got, -40 + 3 / N**0.3, rtol=1e-13)


def test_tied_is_additive_with_equal_exponents():
    together = tied(LOGS[:2]).evaluate(np.array([[0.3, -1.0, -2.0, 0.4]]))[0]
    apart = additive(LOGS[:2]).evaluate(np.array([[0.3, -1.0, 0.4, -2.0, 0.4]]))[0]
    np.testing.assert_allclose(together, apart, rtol=1e-14)


def test_log_quadratic_has_every_product_once():
    n, d = LOGS[:2]
    theta = np.array([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    expected = 1 + 2 * n + 3 * d + 4 * n**2 + 5 * n * d + 6 * d**2
    np.testing.assert_allclose(log_quadratic(LOGS[:2], PLAIN[:2]).evaluate(theta)[0][0], expected)


def test_the_centre_shifts_the_inputs():
    theta = np.array([[0.3, -1.0, 0.4, -2.0, 0.3]])
    shifted = additive(LOGS[:2], (12.0, 18.0)).evaluate(theta)[0]
    plain = additive(LOGS[:2] - np.array([[12.0], [18.0]]), (0, 0)).evaluate(theta)[0]
    np.testing.assert_allclose(shifted, plain, rtol=1e-13)


def test_a_start_far_away_does_not_raise():
    with np.errstate(all="ignore"):
        mu, _ = additive(LOGS[:2], PLAIN[:2]).evaluate(np.array([[0.0, 900.0, 0.1, 0.0, 0.1]]))
    assert np.isinf(mu).all()
