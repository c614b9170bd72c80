"""Weights, averages, widening and scores on arrays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm, t

from scaling_analysis.forecasting.combination import (
    GROWTH,
    Widening,
    cell_weights,
    combine,
    fit_widening,
    interval_score,
    method_weights,
    robust_sd,
    weighted_quantile,
)


def cells(n_origins=4):
    """Horizon and origin of every later origin seen from every earlier one, steps of 3 x."""
    pairs = [(o, later) for o in range(n_origins) for later in range(o + 1, n_origins + 1)]
    origin = np.array([3.0**o for o, _ in pairs])
    horizon = np.array([(later - o) * np.log(3) for o, later in pairs])
    return horizon, origin


def test_methods_weigh_the_same_without_a_hindcast():
    weights = method_weights(np.empty((3, 0)), [], [], 1.0, [0.1, 0.1, 0.1])
    np.testing.assert_allclose(weights, 1 / 3)


def test_a_method_that_was_right_outweighs_one_that_was_wrong():
    horizon, origin = cells()
    errors = np.stack([0.01 * horizon, 0.1 * horizon, 0.02 * horizon])
    good, bad, middling = method_weights(errors, horizon, origin, 1.0, [0.0, 0.0, 0.0])
    assert good > middling > bad
    assert bad < 0.2
    assert good + bad + middling == pytest.approx(1)


def test_few_origins_do_not_decide():
    shares = []
    for n in (1, 3, 8):
        horizon, origin = cells(n)
        errors = np.stack([0.01 * horizon, 0.1 * horizon])
        shares.append(method_weights(errors, horizon, origin, 1.0, [0.0, 0.0])[0])
    assert 0.5 < shares[0] < shares[1] < shares[2] < 1


def test_a_method_unsure_of_itself_weighs_less():
    horizon, origin = cells()
    errors = np.stack([0.02 * horizon] * 2)
    sure, unsure = method_weights(errors, horizon, origin, 1.0, [0.01, 0.3])
    assert unsure < 0.02 * sure


def test_an_origin_that_a_method_could_not_use_is_no_mark_against_it():
    horizon, origin = cells()
    errors = np.stack([0.02 * horizon, 0.02 * horizon])
    errors[1, :4] = np.nan
    weights = method_weights(errors, horizon, origin, 1.0, [0.0, 0.0])
    np.testing.assert_allclose(weights, 0.5)
    better = method_weights(errors * [[1.0], [0.1]], horizon, origin, 1.0, [0.0, 0.0])
    assert better[1] > better[0] > 0


def test_a_method_without_a_forecast_gets_nothing():
    weights = method_weights(np.empty((2, 0)), [], [], 1.0, [[0.1, np.nan], [np.nan, np.nan]])
    np.testing.assert_array_equal(weights[:, 0], [1, 0])
    assert np.isnan(weights[:, 1]).all()


def test_exact_methods_share_all_the_weight():
    horizon, origin = cells()
    errors = np.stack([0 * horizon, 0 * horizon, 0.1 * horizon])
    weights = method_weights(errors[:2], horizon, origin, 1.0, [0.0, 0.0])
    np.testing.assert_allclose(weights, 0.5)


def test_near_horizons_and_late_origins_count_most():
    horizon, origin = cells(5)
    weight = cell_weights(horizon, origin, np.log(3))
    one_step = weight[np.isclose(horizon, np.log(3))]
    assert (np.diff(one_step[np.argsort(origin[np.isclose(horizon, np.log(3))])][:-1]) > 0).all()
    first = weight[origin == 1]
    assert (np.diff(first) < 0).all()
    for o in np.unique(origin):
        assert weight[origin == o].sum() <= 1 + 1e-12


def test_average_is_between_the_methods_and_holds_their_disagreement():
    mean, base = combine([[1.0], [3.0]], [[0.1], [0.3]], [0.5, 0.5])
    assert mean[0] == pytest.approx(2.0)
    assert base[0] == pytest.approx(np.hypot(0.2, 1.0))


def test_average_leaves_out_what_is_not_finite():
    mean, base = combine([[1.0, np.nan], [3.0, np.nan]], [[0.1, 1], [np.nan, 1]], [0.5, 0.5])
    assert mean[0] == 1.0
    assert base[0] == pytest.approx(0.1)
    assert np.isnan(mean[1])
    assert np.isnan(base[1])


def test_widening_recovers_a_law_error_from_many_origins():
    rng = np.random.default_rng(0)
    origin = np.repeat(np.arange(1.0, 301.0), 2)
    horizon = np.tile([1.0, 3.0], 300)
    base, trend, scale = 0.02, 0.2, 0.3
    sd = np.hypot(base, scale * trend * horizon**GROWTH)
    errors = sd * rng.standard_normal(600)
    found = fit_widening(errors, np.full(600, base), horizon, origin, np.full(600, trend), 0.15)
    assert found.scale == pytest.approx(scale, rel=0.1)
    assert found.origins == 300


def test_widening_shrinks_where_the_bootstrap_said_enough_and_keeps_the_prior_without_cells():
    horizon, origin = cells()
    trend = np.ones(horizon.size)
    right = fit_widening(0.01 * trend, 0.05 * trend, horizon, origin, trend, 0.1)
    prior = fit_widening([], [], [], [], [], 0.1)
    broken = fit_widening(0.5 * horizon, 0.05 * trend, horizon, origin, trend, 0.1)
    assert right.scale < prior.scale < broken.scale
    assert prior.scale == pytest.approx(0.1, rel=0.02)
    assert (prior.origins, right.origins) == (0, 4)
    assert prior.dof < right.dof


def test_widening_grows_with_the_horizon_and_never_vanishes_within_the_log():
    law = Widening(scale=0.2, dof=5, origins=3)
    sd = law.sd(0.01, [0.0, 1.0, 2.0, 5.0], 0.1)
    assert (np.diff(sd) > 0).all()
    assert law.sd(0.0, 0.0, 0.1) > 0
    assert law.sd(0.0, 2.0, 0.1) == pytest.approx(0.02 * 2**GROWTH)
    assert law.quantile(0.9) == pytest.approx(t.ppf(0.95, 5))
    assert Widening.from_dict(law.to_dict()) == law


def test_robust_sd_is_that_of_a_normal_and_ignores_wild_replicates():
    draws = norm.ppf((np.arange(2000) + 0.5) / 2000)[:, None] * [1.0, 3.0]
    np.testing.assert_allclose(robust_sd(draws), [1.0, 3.0], rtol=2e-3)
    draws[:20] = [1e9, np.nan]
    np.testing.assert_allclose(robust_sd(draws), [1.0, 3.0], rtol=0.05)
    assert np.isnan(robust_sd(np.full((5, 1), np.nan)))[0]


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=30), st.floats(0.01, 0.99))
def test_weighted_quantile_lies_within_the_draws_and_ignores_the_scale_of_weights(values, level):
    weights = np.arange(1.0, len(values) + 1)
    q = weighted_quantile(values, weights, level)
    assert min(values) <= q <= max(values)
    assert q == pytest.approx(weighted_quantile(values, 7 * weights, level), abs=1e-9)


def test_interval_score_by_hand():
    score = interval_score([1.0, 3.0, -1.0], [0.0] * 3, [2.0] * 3, 0.9)
    np.testing.assert_allclose(score, [2.0, 2.0 + 20, 2.0 + 20])


def test_before_any_hindcast_a_tight_spread_earns_little_trust():
    nothing = np.empty((2, 0))
    alone = method_weights(nothing, [], [], 1.0, [0.01, 0.04])
    with_prior = method_weights(nothing, [], [], 1.0, [0.01, 0.04], prior_sd=0.2)
    assert alone[0] > 0.99
    assert 0.5 < with_prior[0] < 0.55


def test_a_hindcast_takes_the_place_of_the_prior():
    errors, horizon, origin = [[0.1, 0.1], [0.4, 0.4]], [1.0, 1.0], [1.0, 2.0]
    without = method_weights(errors, horizon, origin, 1.0, [0.01, 0.01])
    with_prior = method_weights(errors, horizon, origin, 1.0, [0.01, 0.01], prior_sd=3.0)
    np.testing.assert_array_equal(without, with_prior)
