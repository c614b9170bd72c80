"""What the figures show, read off the data on their axes."""

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy.interpolate import interp1d

import scaling_analysis as sa
from scaling_analysis.report.axes import MOST_MARKS, RED, thinned
from scaling_analysis.report.sources import law_curve, observed_optima, profile_fit


@pytest.fixture
def ax():
    return Figure().subplots()


def line(ax, marker: str):
    """All points drawn with a marker."""
    drawn = [each for each in ax.lines if each.get_marker() == marker]
    return np.concatenate([np.column_stack(each.get_data()) for each in drawn])


def test_profiles_show_every_run_and_the_optimum_of_each_budget(forecast, ax):
    fit = profile_fit(forecast, "loss")
    assert sa.plot_profiles(fit, ax) is ax
    runs = line(ax, "o")
    expected = fit.rows[["params", "loss"]].to_numpy()
    assert np.array_equal(np.sort(runs, axis=0), np.sort(expected, axis=0))
    optima = line(ax, "D")
    found = fit.slices.state == 0
    assert np.allclose(optima[:, 0], fit.slices.params[found])
    assert np.allclose(optima[:, 1], fit.slices.value[found])
    assert ax.get_xscale() == ax.get_yscale() == "log"
    assert "nats/action" in ax.get_ylabel()


@pytest.mark.parametrize("target", ["loss", "mean_return"])
def test_profile_curves_pass_through_their_optimum_and_the_fitted_sizes(forecast, ax, target):
    fit = profile_fit(forecast, target)
    sa.plot_profiles(fit, ax)
    curves = [each for each in ax.lines if each.get_linestyle() == "-"]
    found = np.flatnonzero(fit.slices.state == 0)
    assert len(curves) == len(found)
    for curve, b in zip(curves, found, strict=True):
        x, y = curve.get_data()
        assert len(x) == 60  # smooth, not a chain through the sizes
        extreme = y.min() if target == "loss" else y.max()
        assert extreme == pytest.approx(fit.slices.value[b], rel=1e-3)


def test_the_frontier_is_the_forecast_with_its_interval(forecast, ax):
    sa.plot_frontier(forecast, ax=ax)
    table = forecast.table[forecast.table["method"] == "combined"]
    squares = line(ax, "s")
    assert np.allclose(squares, table[["flops", "params_opt"]])
    x, y = next(each for each in ax.lines if each.get_linestyle() == "-").get_data()
    at = interp1d(np.log(x), np.log(y), fill_value="extrapolate")(np.log(squares[0, 0]))
    assert np.exp(at) == pytest.approx(squares[0, 1], rel=1e-3)
    optima = observed_optima(forecast)
    assert np.allclose(line(ax, "o"), optima[["flops", "params_opt"]])
    assert "N_{opt}" in ax.get_ylabel()
    assert "FLOP" in ax.get_xlabel()


def test_samples_at_the_optimum_swap_the_ends_of_the_interval(forecast):
    curve = law_curve(forecast, "samples_opt", np.array([1e13]))
    row = forecast.table[forecast.table["method"] == "combined"].iloc[0]
    assert curve["lo"] < curve["value"] < curve["hi"]
    assert curve["lo"][0] == pytest.approx(row["samples_opt_lo"], rel=1e-9)


def test_laws_of_a_bootstrap_have_one_band_and_of_a_forecast_two(forecast, hostile_runs):
    boot = forecast.ensemble.losses["parametric-additive"]
    one, two = Figure().subplots(1, 2)
    sa.plot_law(boot, ax=one)
    sa.plot_law(forecast, "loss", ax=two)
    bands = [len(ax.collections) for ax in (one, two)]
    assert bands[0] == 1
    assert bands[1] == 3  # expectation, new run, the stated intervals


def test_the_link_falls_with_the_loss_and_shows_every_run(forecast, ax):
    link = forecast.ensemble.link
    sa.plot_link(link, ax=ax)
    assert len(line(ax, "o")) == len(link.fit.rows)
    curve = next(each for each in ax.lines if each.get_linestyle() == "-")
    x, y = curve.get_data()
    assert np.all(np.diff(y[np.argsort(x)]) < 0)
    assert ax.xaxis_inverted()


def test_the_hindcast_shows_every_forecast_of_the_average(forecast, ax):
    past = forecast.ensemble.hindcast
    sa.plot_hindcast(past, "loss_opt", ax=ax)
    frame = past.to_frame()
    own = frame[(frame["quantity"] == "loss_opt") & (frame["method"] == "combined")]
    shown = [each for each in ax.lines if each.get_label().startswith("combined")]
    assert sum(len(each.get_xdata()) for each in shown) == len(own)
    assert len(shown[1].get_xdata()) == (~own["inside"]).sum()
    with pytest.raises(sa.ReportError, match="no 'nothing'"):
        sa.plot_hindcast(past, "nothing", ax=ax)


def test_a_run_outside_its_interval_is_a_red_cross(verification, ax):
    sa.plot_verification(verification, "loss", ax=ax)
    missed = [each for each in ax.lines if each.get_marker() == "X"]
    assert missed[0].get_color() == RED
    judged = verification.runs[verification.runs["target"] == "loss"]
    outside = judged[~judged["inside"]]
    assert np.allclose(missed[0].get_xdata(), outside["observed"])
    assert len(ax.get_yticks()) == len(judged)
    assert not any(text.get_parse_math() for text in ax.get_yticklabels())
    with pytest.raises(sa.ReportError, match="no planned run"):
        sa.plot_verification(verification, "accuracy", ax=ax)


def test_marks_are_thinned_evenly():
    for rows in (1, MOST_MARKS, 10 * MOST_MARKS + 7):
        shown = thinned(rows)
        assert shown[0]
        assert shown.sum() <= MOST_MARKS
        gaps = np.diff(np.flatnonzero(shown))
        assert gaps.size == 0 or gaps.min() == gaps.max()


def test_figures_follow_the_style_of_their_maker(forecast):
    with mpl.rc_context({"axes.facecolor": "#123456"}):
        ax = sa.plot_frontier(forecast)
    assert mpl.colors.to_hex(ax.get_facecolor()) == "#123456"
