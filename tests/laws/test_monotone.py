import numpy as np
import pytest

from scaling_analysis.laws.monotone import interpolate, isotonic_falling


@pytest.mark.parametrize("n", [1, 2, 17])
def test_isotonic_regression_of_every_replicate(n):
    from scipy.optimize import isotonic_regression

    rng = np.random.default_rng(1)
    y, w = rng.normal(size=(30, n)).cumsum(axis=1), rng.random((30, n)) + 0.1
    found = isotonic_falling(y, w)
    for i in range(len(y)):
        expected = isotonic_regression(y[i], weights=w[i], increasing=False).x
        np.testing.assert_allclose(found[i], expected, atol=1e-12)


def test_interpolation_is_constant_beyond_the_knots():
    knots, values = np.array([0.0, 1.0, 3.0]), np.array([5.0, 4.0, 0.0])
    x = np.array([-1.0, 0.0, 0.5, 2.0, 3.0, 9.0])
    np.testing.assert_allclose(interpolate(knots, values, x), [5.0, 5.0, 4.5, 2.0, 0.0, 0.0])


def test_interpolation_of_replicates():
    knots = np.array([0.0, 1.0, 3.0])
    values = np.array([[5.0, 4.0, 0.0], [6.0, 6.0, 6.0]])
    x = np.array([0.5, 2.0, 7.0])
    both = interpolate(knots, values, x)
    np.testing.assert_allclose(both, [np.interp(x, knots, v) for v in values])
    paired = interpolate(knots, values, np.stack([x, x]), paired=True)
    np.testing.assert_allclose(paired, both)
    np.testing.assert_allclose(interpolate(knots[:1], values[:, :1], x), [[5.0] * 3, [6.0] * 3])
