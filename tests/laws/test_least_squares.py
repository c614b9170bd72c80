import numpy as np
import pytest

from scaling_analysis.laws.least_squares import solve_definite, weighted_least_squares

RNG = np.random.default_rng(0)


def test_each_replicate_is_its_own_regression():
    x, y = RNG.normal(size=(30, 3)), RNG.normal(size=(5, 30))
    w = RNG.uniform(0.1, 2, (5, 30))
    got = weighted_least_squares(x, y, w)
    for r in range(5):
        root = np.sqrt(w[r])
        expected = np.linalg.lstsq(x * root[:, None], y[r] * root, rcond=None)[0]
        np.testing.assert_allclose(got[r], expected, rtol=1e-10)


@pytest.mark.parametrize("shared", ["response", "weights"])
def test_response_or_weights_may_be_shared(shared):
    x, y, w = RNG.normal(size=(30, 2)), RNG.normal(size=30), RNG.uniform(0.1, 2, (4, 30))
    if shared == "response":
        got = weighted_least_squares(x, y, w)
        expected = weighted_least_squares(x, np.tile(y, (4, 1)), w)
    else:
        got = weighted_least_squares(x, w, w[0])
        expected = weighted_least_squares(x, w, np.tile(w[0], (4, 1)))
    np.testing.assert_allclose(got, expected, rtol=1e-12)


def test_powers_of_a_large_log_keep_their_digits():
    log_n = np.linspace(40, 46, 25)
    x = np.stack([np.ones(25), log_n, log_n**2], axis=1)
    truth = np.array([3.0, -0.2, 0.004])
    np.testing.assert_allclose(weighted_least_squares(x, x @ truth)[0], truth, rtol=1e-7)


def test_an_undetermined_replicate_is_nan_and_spares_the_others():
    x = np.stack([np.ones(6), np.arange(6.0)], axis=1)
    w = np.ones((2, 6))
    w[0, 1:] = 0
    got = weighted_least_squares(x, 1 + 2 * np.arange(6.0), w)
    assert np.isnan(got[0]).all()
    np.testing.assert_allclose(got[1], [1, 2], rtol=1e-12)


def test_collinear_columns_are_nan():
    x = np.stack([np.ones(6), np.full(6, 2.0)], axis=1)
    assert np.isnan(weighted_least_squares(x, np.arange(6.0))).all()


def test_solve_definite_says_which_matrices_are():
    root = RNG.normal(size=(50, 4, 4))
    matrices = root @ root.transpose(0, 2, 1)
    matrices[::5] -= 30 * np.eye(4)
    right = RNG.normal(size=(50, 4))
    x, definite = solve_definite(matrices.transpose(1, 2, 0), right.T)
    np.testing.assert_array_equal(definite, np.linalg.eigvalsh(matrices)[:, 0] > 0)
    expected = np.linalg.solve(matrices[definite], right[definite][:, :, None])[:, :, 0]
    np.testing.assert_allclose(x.T[definite], expected, rtol=1e-6)
