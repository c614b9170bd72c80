"""What the figures show, read off the data on their axes."""

from types import SimpleNamespace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from scipy.interpolate import interp1d

import scaling_analysis as sa
from scaling_analysis.report import pictures
from scaling_analysis.report.axes import BLUE, MOST_MARKS, ORANGE, RED, logarithmic, thinned
from scaling_analysis.report.curves import draw_comparison
from scaling_analysis.report.residuals import Residuals
from scaling_analysis.report.sources import Curves, law_curve, observed_optima, profile_fit


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
    shown = [each for each in ax.lines if each.get_label().startswith("average")]
    assert sum(len(each.get_xdata()) for each in shown) == len(own)
    missed = [each for each in shown if each.get_label() == "average, missed"]
    assert sum(len(each.get_xdata()) for each in missed) == (~own["inside"]).sum()
    assert len(missed) == bool((~own["inside"]).any())  # no entry in the legend without a mark
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


def test_residuals_are_logs_of_observed_over_fitted(forecast, ax):
    boot = forecast.ensemble.losses["parametric-additive"]
    assert sa.plot_residuals(boot, ax=ax) is ax
    rows = boot.fit.rows
    expected = np.log(rows["loss"] / boot.fit.fitted_values())
    drawn = line(ax, "o")
    assert np.allclose(drawn, np.column_stack([rows["flops"], expected]))
    means = [each.get_ydata() for each in ax.lines if each.get_color() == ORANGE]
    assert 2 <= len(means) <= 8
    assert all(np.ptp(y) == 0 and abs(y[0]) < np.abs(expected).max() for y in means)
    assert "%" in ax.yaxis.get_major_formatter()(0.1, 0)
    with pytest.raises(sa.ReportError, match="'flops', 'params', 'fitted', 'normal'"):
        sa.plot_residuals(boot, "time")  # pyright: ignore[reportArgumentType]


def test_ordered_residuals_lie_on_normal_quantiles(forecast, ax):
    fit = forecast.ensemble.losses["parametric-additive"].fit
    sa.plot_residuals(fit, "normal", ax=ax)
    x, y = line(ax, "o").T
    assert np.all(np.diff(x) > 0)
    assert np.all(np.diff(y) >= 0)
    assert np.sqrt(np.mean(y**2)) == pytest.approx(1)
    assert x[0] == pytest.approx(-x[-1])


def test_the_share_of_a_run_is_that_of_its_rows():
    rng = np.random.default_rng(3)
    run = np.repeat(np.arange(400), 6)
    noise = 0.03 * rng.standard_normal(400)[run] + 0.04 * rng.standard_normal(len(run))
    rows = pd.DataFrame({"run_id": run.astype(str), "residual": noise, "flops": 1.0})
    found = Residuals(method="", target="loss", space="log", rows=rows)
    assert found.run_share == pytest.approx(9 / 25, abs=0.05)
    assert found.rms == pytest.approx(0.05, rel=0.05)


def test_the_misfit_is_that_of_the_optima(forecast, ax):
    sa.plot_misfit(forecast, "loss", ax=ax)
    optima = observed_optima(forecast, "loss")
    by_name = {each.get_label(): each for each in ax.lines}
    for name in ("isoflop-vertex", "parametric-additive"):
        law = forecast.ensemble.losses[name].fit.value_opt(optima["flops"].to_numpy())
        assert np.allclose(by_name[name].get_ydata(), np.log(optima["value"] / law))
    assert not any(text.get_parse_math() for text in ax.get_legend().get_texts())


@pytest.mark.parametrize("quantity", ["params_opt", "loss", "mean_return"])
def test_every_method_says_what_its_row_of_the_forecast_says(forecast, ax, quantity):
    sa.plot_methods(forecast, quantity, ax=ax)
    table = forecast.table[forecast.table["flops"] == forecast.table["flops"].min()]
    said = {row["method"]: row[quantity] for _, row in table.iterrows()}
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert labels[0] == "average"
    assert {"persistence", "log line"} <= set(labels)
    points = np.concatenate(
        [np.column_stack(each.get_data()) for each in ax.lines if each.get_marker() in "so"]
    )
    assert points[0, 0] == pytest.approx(said["combined"])
    for name in ("persistence", "log-line"):
        at = -labels.index(name.replace("-", " "))
        assert points[points[:, 1] == at, 0] == pytest.approx(said[name])


def test_forecasts_are_compared_on_one_axes_and_named_as_they_are(forecast, ax):
    sa.plot_comparison({"$x$": forecast, "other": forecast}, "loss", ax=ax)
    assert [text.get_text() for text in ax.texts] == ["$x$", "other"]
    assert not any(text.get_parse_math() for text in ax.texts)
    dashed = [each for each in ax.lines if each.get_linestyle() == "--"]
    assert len(dashed) == 2
    assert all((each.get_xdata() > forecast.ensemble.flops_max).all() for each in dashed)
    at = forecast.table[forecast.table["method"] == "combined"].iloc[-1]
    assert dashed[0].get_xydata()[-1] == pytest.approx([at["flops"], at["loss"]])


def test_a_curve_goes_through_its_points_and_on(ax):
    x = np.geomspace(1e15, 1e18, 12)
    noise = np.random.default_rng(2).normal(scale=0.01, size=12)
    fit = sa.fit_curve(x, 3e5 * x**-0.3 * np.exp(noise), form="power")
    sa.plot_curve(fit, x_name="Compute C [FLOP]", ax=ax)
    assert np.allclose(line(ax, "o")[:, 0], x)
    curves = [each for each in ax.lines if each.get_color() == BLUE]
    ahead = curves[1].get_xdata()
    assert ahead.max() == pytest.approx(10 * x.max())
    assert np.allclose(curves[1].get_ydata(), fit.predict(ahead)["value"])
    assert ax.get_xlabel() == "Compute C [FLOP]"


def test_curves_between_their_nodes_are_those_of_the_forecast(forecast):
    curves = Curves(forecast)
    rng = np.random.default_rng(1)
    c = np.exp(rng.uniform(*np.log(curves.flops[[0, -1]]), 25))
    for name in ("params_opt", "samples_opt", "loss", "mean_return"):
        exact, read = law_curve(forecast, name, c), curves.read(name, c)
        assert read["value"] == pytest.approx(exact["value"], rel=3e-4)
        for end in set(exact) - {"value"}:
            assert read[end] == pytest.approx(exact[end], rel=3e-3)


def test_numbers_of_long_logs_are_thinned_as_the_marks_are(forecast):
    fit = profile_fit(forecast, "loss")
    copies = -(-3 * MOST_MARKS // len(fit.rows))
    rows = pd.concat([fit.rows] * copies, ignore_index=True)
    long = sa.fit_isoflop(rows.assign(run_id=[f"r{i}" for i in range(len(rows))]), space="log")
    figure = pictures.profiles(long)
    assert MOST_MARKS / 2 < len(figure.csv.splitlines()) - 1 <= MOST_MARKS
    assert len(figure.marks) <= 400
    assert len(figure.svg) < 1e6


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


def test_a_short_axis_of_compute_has_powers_of_ten():
    ax = Figure().subplots()
    ax.plot([1e9, 5e10], [1.0, 2.0])
    logarithmic(ax, "x", "Compute C [FLOP]")
    assert ax.xaxis.get_major_formatter()(2e10) == "2×10¹⁰"
    logarithmic(ax, "x", "Parameters N")
    assert ax.xaxis.get_major_formatter()(2e10) == "20B"


def test_a_law_that_ends_before_the_range_is_named_where_it_ends():
    grid = np.geomspace(1e9, 1e12, 30)
    value = np.where(grid < 1e11, grid**0.1, np.nan)
    curve = {"value": value, "lo": value * 0.9, "hi": value * 1.1}
    made = SimpleNamespace(fit=SimpleNamespace(rows=pd.DataFrame({"flops": [1e11]})))
    ax = draw_comparison(Figure().subplots(), {"sac": (made, grid, curve)}, "mean_return")
    (name,) = [text for text in ax.texts if text.get_text() == "sac"]
    assert name.xy[0] == grid[grid < 1e11][-1]
    assert np.isfinite(name.xy[1])
