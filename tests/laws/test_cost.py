import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_analysis.errors import FitError
from scaling_analysis.laws.cost import Cost, fit_cost

SIZES = np.array([1e4, 3e4, 1e5, 4e5, 2e6])


def _bent_cost(params):
    return 40.0 * params**0.8 + 6.0 * params


def test_a_constant_is_found_exactly():
    params, samples = np.repeat(SIZES, 3), np.tile([1e7, 1e8, 1e9], 5)
    cost = fit_cost(params, samples, 6.0 * params * samples)
    assert cost.constant == pytest.approx(6.0, rel=1e-14)
    np.testing.assert_allclose(cost.flops_per_sample([10.0, 1e12]), [60.0, 6e12], rtol=1e-14)
    np.testing.assert_allclose(cost.slope(SIZES), 1.0)
    np.testing.assert_allclose(cost.samples(1e6, 6e15), 1e9, rtol=1e-14)


@pytest.mark.parametrize(("factor", "holds"), [(1.019, True), (1.06, False)])
def test_the_constant_is_refused_beyond_two_percent(factor, holds):
    params = np.array([1e5, 1e6])
    cost = fit_cost(params, [1e8, 1e8], 6e8 * params * np.array([1.0, factor]))
    assert (cost.constant is not None) == holds
    assert cost.spread == pytest.approx(np.sqrt(factor) - 1, rel=1e-9)


def test_counted_flops_are_interpolated_through_the_sizes():
    cost = fit_cost(SIZES, np.full(5, 1e8), 1e8 * _bent_cost(SIZES))
    assert cost.constant is None
    np.testing.assert_allclose(cost.flops_per_sample(SIZES), _bent_cost(SIZES), rtol=1e-12)
    between = np.geomspace(1e4, 2e6, 200)
    np.testing.assert_allclose(cost.flops_per_sample(between), _bent_cost(between), rtol=2e-3)
    np.testing.assert_allclose(cost.flops(between, 3.0), 3 * cost.flops_per_sample(between))


def test_extrapolation_is_straight_in_log_log_and_smooth_at_the_ends():
    cost = fit_cost(SIZES, np.full(5, 1e8), 1e8 * _bent_cost(SIZES))
    outside = np.array([2e6, 2e7, 2e8, 2e9])
    steps = np.diff(np.log(cost.flops_per_sample(outside)))
    np.testing.assert_allclose(steps, steps[0], rtol=1e-12)
    np.testing.assert_allclose(cost.slope(2e6 * 0.999999), cost.slope(2e6 * 1.000001), rtol=1e-4)


def test_slope_is_the_derivative():
    cost = fit_cost(SIZES, np.full(5, 1e8), 1e8 * _bent_cost(SIZES))
    log_n = np.linspace(np.log(2e3), np.log(9e6), 101)
    step = 1e-6
    up, down = (np.log(cost.flops_per_sample(np.exp(log_n + s))) for s in (step, -step))
    np.testing.assert_allclose(cost.slope(np.exp(log_n)), (up - down) / (2 * step), atol=1e-6)


def test_sizes_out_of_order_are_pooled_so_that_cost_never_falls():
    flops_per_sample = np.array([1e6, 5e6, 4e6, 2e7, 1e8])
    cost = fit_cost(SIZES, np.ones(5), flops_per_sample)
    assert (np.diff(cost.flops_per_sample(np.geomspace(1e3, 1e8, 500))) > 0).all()
    assert len(cost.log_params) == 4


COUNT = st.floats(1.0, 1e30)


@given(st.lists(st.tuples(COUNT, COUNT, COUNT), min_size=1, max_size=12))
def test_cost_never_falls_and_budgets_are_spent_whatever_the_counts(rows):
    params, samples, flops = np.array(rows).T
    cost = fit_cost(params, samples, flops)
    log_n = np.linspace(np.log(params.min()) - 3, np.log(params.max()) + 3, 60)
    per_sample = cost.flops_per_sample(np.exp(log_n))
    assert (np.diff(np.log(per_sample)) >= -1e-9).all()
    spent = cost.flops(np.exp(log_n), cost.samples(np.exp(log_n), 1e20))
    np.testing.assert_allclose(spent, 1e20, rtol=1e-9)


def test_one_size_gives_its_own_constant():
    assert fit_cost([1e6], [1e8], [7e14]).constant == pytest.approx(7.0)


def test_weights_of_zero_leave_rows_out():
    params = np.array([1e5, 1e6, 1e7])
    flops = 6 * params * 1e8 * np.array([1, 1, 3])
    assert fit_cost(params, np.full(3, 1e8), flops).constant is None
    assert fit_cost(params, np.full(3, 1e8), flops, [1, 1, 0]).constant == pytest.approx(6)


def test_counts_near_the_largest_float_do_not_overflow():
    assert fit_cost([1e300, 1e200], [1e7, 1e8], [6e307, 6e208]).constant == pytest.approx(6)


@pytest.mark.parametrize("bent", [False, True])
def test_json_round_trip(bent):
    flops = 1e8 * (_bent_cost(SIZES) if bent else 6 * SIZES)
    cost = fit_cost(SIZES, np.full(5, 1e8), flops)
    assert Cost.from_dict(json.loads(json.dumps(cost.to_dict()))) == cost


@pytest.mark.parametrize(
    ("params", "samples", "flops", "weights", "match"),
    [
        ([1e5, np.nan], [1, 1], [1, 1], None, "params is nan in row 1"),
        ([1e5, 1e6], [1, 0], [1, 1], None, "samples is 0 in row 1"),
        ([1e5, 1e6], [1, 1], [np.inf, 1], None, "flops is inf in row 0"),
        ([1e5, 1e6], [1, 1, 1], [1, 1], None, "samples has shape"),
        ([1e5, 1e6], [1, 1], [1, 1], [-1, 1], "weights is -1 in row 0"),
        ([1e5, 1e6], [1, 1], [1, 1], [0, 0], "every weight is zero"),
    ],
)
def test_bad_input(params, samples, flops, weights, match):
    with pytest.raises(FitError, match=match):
        fit_cost(params, samples, flops, weights)


def test_two_neighbouring_sizes_do_not_set_the_slope_of_the_extrapolation():
    params = np.array([1e4, 1e5, 1e6, 1.001e6])
    flops_per_sample = _bent_cost(params) * np.array([1, 1, 1, 1.05])
    cost = fit_cost(params, np.ones(4), flops_per_sample)
    assert 0.8 < cost.slope(1e9) < 1.1
