import numpy as np
import pytest

from scaling_analysis.laws.profiles import SliceState, slice_optima

SIZES = np.log(np.geomspace(1e5, 1e8, 9))


def optima(y, weights=None, *, sizes=SIZES, cell=None, **options):
    y = np.atleast_2d(y)
    w = np.ones((1, y.shape[1])) if weights is None else np.atleast_2d(weights)
    cell = np.arange(len(sizes)) if cell is None else cell
    defaults = {"optimum": "vertex", "maximise": False, "log_space": False, "window": None}
    return slice_optima(sizes, cell, y, w, np.ones(y.shape[1]), **(defaults | options))


def parabola(vertex, curvature=0.05, value=1.0, sizes=SIZES):
    return value + curvature * (sizes - vertex) ** 2


def test_parabola_is_recovered_in_every_replicate():
    vertices = np.array([12.5, 14.0, 17.0])
    found = optima(np.stack([parabola(v) for v in vertices]))
    np.testing.assert_allclose(found.log_params, vertices, rtol=1e-12)
    np.testing.assert_allclose(found.value, 1.0, rtol=1e-12)
    np.testing.assert_allclose(found.curvature, 0.05, rtol=1e-10)
    assert (found.state == SliceState.OK).all()


def test_parabola_in_logs():
    found = optima(np.exp(parabola(14.0)), log_space=True)
    np.testing.assert_allclose(found.log_params, 14.0, rtol=1e-12)
    np.testing.assert_allclose(found.value, np.e, rtol=1e-12)


def test_cubic_finds_the_minimum_of_its_two_stationary_points():
    u = SIZES - 14.0
    y = 2.0 + 0.05 * u**2 + 0.004 * u**3  # minimum at u = 0, maximum at u = -8.33, outside
    found = optima(y, optimum="cubic")
    np.testing.assert_allclose(found.log_params, 14.0, rtol=1e-10)
    np.testing.assert_allclose(found.curvature, 0.05, rtol=1e-8)
    # A parabola through the same points is pulled aside.
    assert abs(optima(y).log_params[0] - 14.0) > 0.05


def test_cubic_with_a_lower_end_has_no_optimum():
    u = SIZES - 16.0
    y = 2.0 + 0.05 * u**2 + 0.02 * u**3  # minimum at 0, but the left end falls far below it
    assert y[0] < y.min() + 1e-12
    assert optima(y, optimum="cubic").state[0] == SliceState.OUTSIDE


def test_maximum_of_a_return():
    found = optima(100 - parabola(14.0, curvature=5.0, value=0.0), maximise=True)
    np.testing.assert_allclose(found.log_params, 14.0, rtol=1e-12)
    np.testing.assert_allclose(found.curvature, -5.0, rtol=1e-10)


@pytest.mark.parametrize(
    ("y", "state"),
    [
        (parabola(14.0, curvature=-0.05, value=9.0), SliceState.NO_OPTIMUM),
        (parabola(30.0), SliceState.OUTSIDE),
        (parabola(14.0, value=-1.0), SliceState.NOT_POSITIVE),
    ],
    ids=["concave", "vertex outside the sizes", "negative loss"],
)
def test_slices_without_an_optimum_say_why(y, state):
    found = optima(y)
    assert found.state[0] == state
    assert np.isnan(found.log_params[0])
    assert np.isnan(found.value[0])


def test_weight_zero_is_absence():
    y = parabola(14.0)
    broken = y.copy()
    broken[2] = 50.0
    weights = np.ones(len(y))
    weights[2] = 0.0
    np.testing.assert_allclose(optima(broken, weights).log_params, 14.0, rtol=1e-12)
    two_left = np.zeros(len(y))
    two_left[[0, 8]] = 1.0
    assert optima(y, two_left).state[0] == SliceState.FEW_SIZES


def test_interior_means_inside_the_sizes_that_are_present():
    weights = np.ones(len(SIZES))
    weights[SIZES < 14.5] = 0.0
    assert optima(parabola(14.0), weights).state[0] == SliceState.OUTSIDE


def test_repeated_rows_count_as_weights():
    y = parabola(14.0) + np.sin(7 * SIZES) * 0.02
    cell = np.array([0, 1, 2, 2, 3, 4, 5, 6, 7, 8])
    doubled = optima(y[cell], cell=cell)
    weights = np.ones(9)
    weights[2] = 2.0
    np.testing.assert_allclose(doubled.log_params, optima(y, weights).log_params, rtol=1e-12)


def test_window_uses_the_sizes_around_the_best_one():
    y = parabola(14.0)
    y[7:] += 5.0  # far from the optimum the profile is another one
    found = optima(y, window=5)
    np.testing.assert_allclose(found.log_params, 14.0, rtol=1e-10)
    # Outside the window nothing is fitted: the response itself stands there.
    np.testing.assert_array_equal(found.fitted[0, 7:], y[7:])


def test_window_at_an_end_is_shifted_inwards():
    y = parabola(12.0)
    np.testing.assert_allclose(optima(y, window=5).log_params, 12.0, rtol=1e-10)


def test_grid_takes_the_best_mean_and_keeps_the_ends():
    cell = np.array([0, 0, 1, 2])
    y = np.array([1.0, 3.0, 1.5, 1.8])  # the mean of the first size is 2
    found = optima(y, sizes=SIZES[:3], cell=cell, optimum="grid")
    np.testing.assert_allclose(found.log_params, SIZES[1])
    np.testing.assert_allclose(found.value, 1.5)
    falling = optima(parabola(30.0), optimum="grid")
    np.testing.assert_allclose(falling.log_params, SIZES[-1])


def test_weights_and_responses_combine():
    y = np.stack([parabola(13.0), parabola(15.0)])
    weights = np.random.default_rng(0).integers(1, 4, (2, len(SIZES))).astype(float)
    np.testing.assert_allclose(optima(y, weights).log_params, [13.0, 15.0], rtol=1e-12)


def test_scale_of_the_response_does_not_matter():
    y = parabola(14.0) + np.sin(5 * SIZES) * 0.02
    np.testing.assert_allclose(optima(1e9 * y).log_params, optima(y).log_params, rtol=1e-12)
