"""Known floor and ceiling of the return: its forecasts stay strictly between."""

from functools import partial

import numpy as np
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.bounds import Bounds, enter_table
from scaling_analysis.forecasting.ensemble import Prediction
from scaling_analysis.forecasting.forecasting import forecast
from scaling_analysis.forecasting.scores import COMBINED, PRIOR_SCALE, Hindcast, prior_scale
from scaling_analysis.forecasting.through_link import LINK, find_bounds
from scaling_analysis.uncertainty.intervals import student_quantile

ENDS = Bounds(floor=20.0, ceiling=3000.0)
OPEN = Bounds(floor=20.0, ceiling=None)


def saturating(loss):
    """Half the way between the floor and the ceiling at the lowest loss of the ladder."""
    return 20 + 2980 / (1 + (np.asarray(loss) / 1.5) ** 4.6)


@pytest.fixture(scope="module")
def bounded(simulate):
    runs = simulate(link=saturating)
    link = partial(sa.fit_return_link, floor=20.0, ceiling=3000.0)
    return forecast(
        runs, [1e13, 1e14, 1e16], link=link, n_resamples=40, hindcast_resamples=20, rng=0
    )


@pytest.mark.parametrize("bounds", [ENDS, OPEN, Bounds(floor=0.0, ceiling=50.0)])
def test_returns_come_back(bounds):
    returns = np.log(np.array([20.5, 21.0, 30.0, 44.0, 49.5]))
    np.testing.assert_allclose(bounds.leave(bounds.enter(returns)), returns, rtol=1e-12)


def test_log_odds_by_hand():
    assert ENDS.enter(np.log(1510.0)) == pytest.approx(0.0, abs=1e-12)
    assert ENDS.enter(np.log(765.0)) == pytest.approx(-np.log(3.0))
    assert OPEN.enter(np.log(120.0)) == pytest.approx(np.log(100.0))
    assert np.isnan(ENDS.enter(np.log([20.0, 10.0, 3000.0, 4000.0]))).all()
    ends = ENDS.enter_or_end(np.log([10.0, 4000.0]))
    np.testing.assert_array_equal(ends, [-np.inf, np.inf])


def test_the_slope_is_the_derivative():
    at, step = np.log([25.0, 300.0, 2800.0]), 1e-6
    numeric = (ENDS.enter(at + step) - ENDS.enter(at - step)) / (2 * step)
    np.testing.assert_allclose(ENDS.slope(at), numeric, rtol=1e-6)


def test_no_z_reaches_an_end():
    points = np.exp(ENDS.leave([-1e9, -40.0, 40.0, 1e9]))
    assert np.all((points > 20.0) & (points < 3000.0))


def test_a_forecast_that_knows_no_ceiling_is_kept_inside_and_below_it_untouched():
    returns = np.geomspace(1.0, 1e6, 400)
    z, spread = ENDS.bend(np.log(returns), np.full(400, 0.1))
    assert np.all(np.diff(z) > 0)
    assert np.all(spread > 0)
    points = np.exp(ENDS.leave(z))
    assert np.all((points > 20.0) & (points < 3000.0))
    inside = (returns > 20 / 0.75) & (returns < 0.75 * 3000)
    np.testing.assert_allclose(points[inside], returns[inside], rtol=1e-9)
    # Well inside, the spread is the delta method's.
    slope = ENDS.slope(np.log(500.0))
    assert ENDS.bend(np.log(500.0), 0.01)[1] == pytest.approx(0.01 * slope, rel=1e-3)


def test_ends_that_lie_close_together_leave_a_rising_curve():
    z, _ = Bounds(floor=90.0, ceiling=100.0).bend(np.log([10.0, 92.0, 95.0, 99.0, 500.0]), 0.0)
    assert np.all(np.diff(z) > 0)


def test_an_interval_ends_strictly_between_and_narrows_at_the_ceiling():
    z = ENDS.enter(np.log([100.0, 1500.0, 2900.0]))
    said = Prediction(z, np.full(3, 2.0), np.full(3, 3.0), ENDS)
    np.testing.assert_allclose(np.exp(said.log), [100.0, 1500.0, 2900.0])
    lo, hi = said.interval(0.99)
    assert np.all((lo > 20.0) & (lo < np.exp(said.log)))
    assert np.all((hi < 3000.0) & (hi > np.exp(said.log)))
    lo, hi = said._replace(sd=np.full(3, 0.2)).interval(0.9)
    assert np.all(np.diff(np.log(hi / lo)) < 0)


def test_a_run_passes_the_ceiling_by_no_more_than_its_noise():
    said = Prediction(ENDS.enter(np.log([2000.0, 2950.0])), np.full(2, 1.0), np.full(2, 5.0), ENDS)
    lo, hi = said.interval(0.9)
    run_lo, run_hi = said.run_interval(0.9, 0.05, 1e6)
    assert np.all(run_lo < lo)
    assert run_hi[1] > 3000.0
    assert np.all(run_hi < hi * np.exp(student_quantile(0.9, 5.0) * 0.05))
    exact = said.run_interval(0.9, 0.0, 1.0)
    np.testing.assert_allclose(exact, (lo, hi), rtol=1e-9)


def test_without_bounds_a_run_adds_variances_and_degrees_of_freedom():
    """Welch and Satterthwaite 1946, by hand."""
    said = Prediction(np.zeros(1), np.full(1, 0.3), np.full(1, 4.0))
    lo, hi = said.run_interval(0.9, 0.4, 10.0)
    freedom = 0.25**2 / (0.09**2 / 4 + 0.16**2 / 10)
    half = 0.5 * student_quantile(0.9, freedom)
    np.testing.assert_allclose([np.log(lo[0]), np.log(hi[0])], [-half, half])


def test_what_lies_beyond_the_ceiling_is_never_reached():
    said = Prediction(np.zeros(1), np.ones(1), np.full(1, 5.0), ENDS)
    assert said.falls_short(np.log(1510.0)) == pytest.approx(0.5)
    assert said.falls_short(np.log(1510.0), -1.0) == pytest.approx(0.5)
    assert said.falls_short(np.log(3000.0)) == 1.0
    assert said.falls_short(np.log(3001.0), -1.0) == 0.0


def test_bounds_are_those_of_the_link(ladder):
    assert find_bounds(None, ladder) is None
    assert find_bounds(sa.fit_return_link, ladder) is None
    assert find_bounds(partial(sa.fit_return_link, ceiling=1e4), ladder) == Bounds(
        floor=0.0, ceiling=1e4
    )
    assert find_bounds(partial(sa.fit_return_link, ceiling=1.0), ladder) is None


def test_every_route_of_a_forecast_stays_between_its_ends(bounded):
    assert bounded.ensemble.bounds == ENDS
    routes = bounded.return_routes(level=0.99)
    assert {"direct", "link", "combined", "baseline"} == set(routes["route"])
    for name in ("mean_return", "mean_return_lo", "mean_return_hi"):
        assert routes[name].between(20.0, 3000.0, inclusive="neither").all()
    assert np.all(routes["mean_return_lo"] <= routes["mean_return"])
    assert np.all(routes["mean_return"] <= routes["mean_return_hi"])
    truth = saturating(1.310)  # the ladder's law at 1e13 FLOP
    first = bounded.table[bounded.table["method"] == COMBINED].iloc[0]
    assert first["mean_return_lo"] < truth < first["mean_return_hi"]
    unreachable = bounded.flops_for(mean_return=[1000, 3500])["probability_unreachable"]
    assert unreachable[0] < 0.1
    assert unreachable[1] == 1.0


def test_a_hindcast_between_ends_is_shown_in_points(bounded, simulate):
    past = bounded.ensemble.hindcast
    frame = past.to_frame(0.9)
    returns = frame[frame["quantity"] == "mean_return"]
    runs = simulate(link=saturating)
    assert returns["observed"].between(*runs["mean_return"].quantile([0, 1])).all()
    assert (returns["hi"] < 3000.0).all()
    np.testing.assert_allclose(returns["error"], np.log(returns["observed"] / returns["predicted"]))
    inside = returns["observed"].between(returns["lo"], returns["hi"])
    np.testing.assert_array_equal(inside, returns["inside"])
    losses = frame[frame["quantity"] == "loss"]
    cells = past.cells[past.cells["quantity"] == "loss"]
    assert np.isclose(np.log(losses["observed"].iloc[0]), cells["observed"]).any()


def test_a_bounded_forecast_comes_back_from_its_file(bounded, tmp_path):
    again = sa.Forecast.load(bounded.save(tmp_path / "forecast.json"))
    assert again.ensemble.bounds == ENDS
    assert again.ensemble.hindcast.bounds == ENDS
    args = ([5e4], [1e13])
    np.testing.assert_allclose(again.predict_run(*args), bounded.predict_run(*args), rtol=1e-6)


def test_a_table_without_bounds_is_left_alone(bounded):
    cells = bounded.ensemble.hindcast.cells
    assert enter_table(cells, cells, None, LINK) is cells


def test_the_error_of_the_loss_is_counted_once(made):
    """A return through the link holds it in its spread; older hindcasts counted it twice."""
    past = made.ensemble.hindcast
    assert past.loss_counted
    old = Hindcast.from_dict({k: v for k, v in past.to_dict().items() if k != "loss_counted"})
    assert not old.loss_counted
    for quantity in ("mean_return", "mean_return_opt"):
        assert past.widening(quantity).scale < old.widening(quantity).scale
        assert past.widening(quantity, "isoflop-vertex") == old.widening(quantity, "isoflop-vertex")
        assert prior_scale(quantity, LINK, True) < PRIOR_SCALE[quantity]
    assert past.widening("loss") == old.widening("loss")
