"""Rolling origin: what is known when, and what follows from it."""

import numpy as np
import pytest

from scaling_analysis.uncertainty.rolling_origin import (
    GROWTH,
    MAX_ORIGINS,
    replay,
    roll_origins,
)


def test_origins_know_nothing_of_what_lies_ahead():
    origins = roll_origins([1.0, 2.0, 3.0, 4.0, 5.0], min_points=3)
    assert origins.train.sum(axis=1).tolist() == [3, 4, 5]
    assert origins.edge.tolist() == [3.0, 4.0, 5.0]


def test_rows_at_one_position_stay_together():
    origins = roll_origins([1.0, 1.0, 2.0, 2.0, 3.0, 4.0, 4.0], min_points=2)
    assert origins.train.sum(axis=1).tolist() == [4, 5, 7]


def test_enough_rows_are_asked_for():
    origins = roll_origins([1.0, 2.0, 3.0, 3.0, 4.0], min_points=1, min_rows=3)
    assert origins.train.sum(axis=1).tolist() == [4, 5]


def test_too_few_points_leave_the_present_alone():
    origins = roll_origins([1.0, 2.0, 3.0], min_points=3)
    assert len(origins.edge) == 1
    past = replay(np.ones((1, 2, 3)), np.ones(3), [1.0, 2.0, 3.0], origins)
    assert past.weights.tolist() == [[0.5, 0.5]]
    assert past.growth == 0.0
    assert past.inflation(np.ones((0, 3))) == 1.0


def test_many_points_give_few_origins_early_and_late():
    position = np.log(np.arange(1.0, 1001.0))
    origins = roll_origins(position)
    cuts = origins.train.sum(axis=1)
    assert len(cuts) - 1 <= MAX_ORIGINS + 1
    assert cuts[0] == 3
    assert cuts[-2] == 999
    assert (np.diff(origins.edge) > 0).all()


def test_the_better_method_gets_the_weight():
    x = np.arange(10.0)
    forecasts = np.stack([np.tile(2 * x, (8, 1)), np.tile(2 * x + 1, (8, 1))], axis=1)
    origins = roll_origins(x, min_points=3)
    past = replay(forecasts, 2 * x + 0.1, x, origins)
    assert past.weights[-1, 0] > 0.9
    assert past.weights[0].tolist() == [0.5, 0.5]
    np.testing.assert_allclose(past.weights.sum(axis=1), 1.0)


def test_selection_is_replayed_without_hindsight():
    """Method 0 is exact up to x = 6 and wrong after it: before 7 was seen it keeps its weight."""
    x = np.arange(12.0)
    y = np.zeros(12)
    forecasts = np.zeros((10, 2, 12))
    forecasts[:, 0, 7:] = 5.0
    forecasts[:, 1] = 1.0
    past = replay(forecasts, y, x, roll_origins(x, min_points=3))
    knows = np.flatnonzero(past.weights[:, 0] < 0.5)
    assert knows.min() == 5  # the sixth origin stands behind x = 7
    late = np.zeros_like(forecasts) + forecasts
    late[-1] = 99.0  # what methods say now cannot change what they would have been given
    np.testing.assert_array_equal(
        replay(late, y, x, roll_origins(x, min_points=3)).weights, past.weights
    )


def test_weights_do_not_depend_on_units():
    rng = np.random.default_rng(0)
    x, y = np.arange(9.0), rng.normal(size=9)
    forecasts = rng.normal(size=(7, 3, 9))
    origins = roll_origins(x)
    one = replay(forecasts, y, x, origins)
    other = replay(1e9 * forecasts, 1e9 * y, x, origins)
    np.testing.assert_allclose(one.weights, other.weights, rtol=1e-9)
    assert other.growth == pytest.approx(1e18 * one.growth)


def test_growth_recovers_the_scale_of_errors():
    """Errors drawn as kappa distance^g: kappa comes back."""
    rng = np.random.default_rng(1)
    x = np.arange(1.0, 400.0)
    origins = roll_origins(x, max_origins=100)
    count = len(origins.edge)
    distance = np.maximum(x - origins.edge[:, None], 0.02)
    forecasts = (0.3 * distance**GROWTH * rng.normal(size=(count, len(x))))[:, None]
    past = replay(forecasts, np.zeros(len(x)), x, origins)
    assert np.sqrt(past.growth) == pytest.approx(0.3, rel=0.1)


def test_inflation_is_the_ratio_to_what_was_promised():
    rng = np.random.default_rng(2)
    x = np.arange(1.0, 400.0)
    origins = roll_origins(x, max_origins=100)
    forecasts = 2 * rng.normal(size=(len(origins.edge), 1, len(x)))
    past = replay(forecasts, np.zeros(len(x)), x, origins)
    kept = past.effective / (past.effective + 1)
    assert past.inflation(np.ones_like(past.errors)) == pytest.approx(4 * kept + 1 - kept, rel=0.15)
    assert past.inflation(100 * np.ones_like(past.errors)) == 1.0


def test_a_method_that_is_not_usable_has_no_weight_and_no_say():
    x = np.arange(6.0)
    forecasts = np.zeros((4, 2, 6))
    forecasts[:, 1] = np.nan
    past = replay(forecasts, x, x, roll_origins(x))
    assert past.weights[:, 1].tolist() == [0.0] * 4
    usable = np.ones((4, 2), dtype=bool)
    usable[0] = False
    silent = replay(np.zeros((4, 2, 6)), x, x, roll_origins(x), usable=usable)
    assert np.isnan(silent.errors[0]).all()
    assert silent.importance[0] == 0.0


def test_an_origin_knows_what_lies_before_it():
    origins = roll_origins(np.arange(5.0))
    assert origins.weights.tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
