import numpy as np
import pytest

from scaling_analysis.laws.power import fit_power, fit_power_floor

X = np.log(np.geomspace(1e15, 5e18, 14))


def test_power_law_is_recovered():
    y = np.stack([2.0 - 0.3 * X, -40 + 0.6 * X])
    log_a, p = fit_power(X, y, np.ones_like(y))
    np.testing.assert_allclose(log_a, [2.0, -40.0], rtol=1e-10)
    np.testing.assert_allclose(p, [-0.3, 0.6], rtol=1e-12)


def test_absent_points_may_hold_anything():
    y = np.stack([2.0 - 0.3 * X])
    y[0, 3] = np.nan
    weights = np.ones_like(y)
    weights[0, 3] = 0.0
    np.testing.assert_allclose(fit_power(X, y, weights)[1], -0.3, rtol=1e-12)


def test_one_point_is_no_law():
    weights = np.zeros((1, len(X)))
    weights[0, 0] = 1.0
    assert np.isnan(fit_power(X, np.ones((1, len(X))), weights)[1]).all()


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e12])
@pytest.mark.parametrize(("p", "floor"), [(-0.348, 0.1193), (-1.2, 0.01), (0.4, 3.0), (-0.2, 0.0)])
def test_power_law_with_floor_is_recovered_in_any_unit(p, floor, unit):
    x = X - X[0]
    y = np.log(unit * (0.4847 * np.exp(p * x) + floor))[None]
    log_a, exponent, b = fit_power_floor(x, y, np.ones_like(y))
    np.testing.assert_allclose(exponent, p, rtol=1e-6)
    np.testing.assert_allclose(np.exp(log_a), 0.4847 * unit, rtol=1e-6)
    np.testing.assert_allclose(b, floor * unit, rtol=1e-6, atol=1e-7 * unit)


@pytest.mark.parametrize(("noise", "floor"), [(0.02, 0.1193), (0.1, 0.1193), (0.1, 0.0)])
def test_no_replicate_is_worse_than_a_general_optimiser(noise, floor):
    from scipy.optimize import least_squares

    x = X - X[0]
    rng = np.random.default_rng(4)
    y = np.log(0.4847 * np.exp(-0.348 * x) + floor) + rng.normal(0, noise, (40, len(x)))
    log_a, p, b = fit_power_floor(x, y, np.ones_like(y))
    assert (b >= 0).all()
    for i in range(len(y)):

        def residual(q, i=i):
            return np.log(np.exp(q[0] + q[1] * x) + q[2]) - y[i]

        ours = np.sum(residual([log_a[i], p[i], b[i]]) ** 2)
        bounds = ([-9, -5, 0], [9, -1e-3, 5])
        starts = ([-0.7, -0.3, 0.1], [-0.7, -0.15, 0.01])
        best = min(
            2 * least_squares(residual, q, bounds=bounds, xtol=1e-14, ftol=1e-14).cost
            for q in starts
        )
        assert ours <= best * (1 + 1e-7)


def test_the_floor_is_never_negative():
    y = -0.1 * X[None] - 0.002 * (X[None] - X.mean()) ** 2  # bends away from any floor
    _, p, b = fit_power_floor(X, y, np.ones_like(y))
    assert b[0] == 0
    np.testing.assert_allclose(p, fit_power(X, y, np.ones_like(y))[1])


def test_each_replicate_may_have_its_own_x():
    x = np.stack([X, X + 1.0])
    y = 3.0 - 0.25 * x
    np.testing.assert_allclose(fit_power(x, y, np.ones_like(y))[0], 3.0, rtol=1e-10)
    y = np.log(np.exp(3 - 0.25 * (x - X[0])) + 2.0)
    np.testing.assert_allclose(fit_power_floor(x - X[0], y, np.ones_like(y))[2], 2.0, rtol=1e-6)
