"""What the report says of methods against baselines, and how it writes small numbers."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.report.answering import answer
from scaling_analysis.report.axes import logarithmic
from scaling_analysis.report.comparing import _sized as sized
from scaling_analysis.report.comparing import better_baselines, methods_section
from scaling_analysis.report.diagnostics import plot_methods
from scaling_analysis.report.equations import _plain as equation_number
from scaling_analysis.report.equations import equations
from scaling_analysis.report.residuals import Residuals
from scaling_analysis.report.verdicts import plot_hindcast


def with_errors(forecast, of_average: float, of_baseline: float):
    """The forecast, its hindcast of the loss off by these in logs."""
    past = forecast.ensemble.hindcast
    cells = past.cells.copy()
    loss = cells["quantity"] == "loss_opt"
    for method, error in ((COMBINED, of_average), ("log-line", of_baseline), ("persistence", 9.0)):
        rows = loss & (cells["method"] == method)
        cells.loc[rows, "predicted"] = cells.loc[rows, "observed"] + error
        cells.loc[rows, "sd"] = 0.1
    past = replace(past, cells=cells, _records={})
    return replace(forecast, ensemble=replace(forecast.ensemble, hindcast=past))


def test_a_baseline_that_does_better_is_said_first(forecast):
    beaten = with_errors(forecast, 0.5, 0.01)
    better = better_baselines(beaten, ["loss"])
    assert list(better) == [("loss", "log-line")]
    said = better["loss", "log-line"]
    cells = beaten.ensemble.hindcast.cells
    asked = beaten.table["extrapolation"].max()  # who is right farther out is of no concern
    near = cells["budget"] <= cells["origin"] * asked
    count = (cells["quantity"] == "loss_opt") & (cells["method"] == COMBINED) & near
    assert "hindcast of the loss the baseline log-line does better than the average" in said
    assert "error 1\N{NO-BREAK SPACE}% against 50\N{NO-BREAK SPACE}%" in said
    assert f"over {int(count.sum())} forecasts" in said
    assert said in methods_section(beaten, ["loss"]).paragraphs
    assert "log-line for the loss." in " ".join(answer(beaten, ["loss"], None))


def test_nothing_is_said_of_baselines_that_do_worse(forecast):
    ahead = with_errors(forecast, 0.01, 0.5)
    assert better_baselines(ahead, ["loss"]) == {}
    assert "baseline" not in " ".join(answer(ahead, ["loss"], None))
    alone = replace(forecast, ensemble=replace(forecast.ensemble, hindcast=None))
    assert better_baselines(alone, ["loss"]) == {}


def test_numbers_of_an_equation_are_written_alike(forecast):
    additive = [each for each in equations(forecast, ("L",)) if each.kind == "additive"]
    assert additive
    for each in additive:
        assert not any("e+" in text or "e-" in text for text in each.values.values()), each
    assert [equation_number(x) for x in (0.0, 0.07602, 125.1, 28820.0)] == [
        "0",
        "0.07602",
        "125.1",
        "2.88×10⁴",
    ]


def test_a_residual_of_rounding_errors_is_zero():
    found = Residuals(method="", target="loss", space="log", rows=pd.DataFrame())
    assert sized(found, 5e-17, signed=True) == "+0\N{NO-BREAK SPACE}%"


def test_the_legend_of_a_hindcast_crosses_no_bar(forecast):
    ax = Figure().subplots()
    plot_hindcast(forecast.ensemble.hindcast, ax=ax)
    ax.figure.canvas.draw()
    below = ax.get_legend().get_window_extent().y0
    for drawn in (*ax.lines, *ax.collections):
        if isinstance(drawn, LineCollection):
            y = np.concatenate([segment[:, 1] for segment in drawn.get_segments()])
        else:
            y = np.asarray(drawn.get_ydata(), dtype=float)
        if len(y):
            assert ax.transData.transform([(1.0, y.max())])[0, 1] <= below


@pytest.mark.parametrize("flops", [1e13, 1.98e13])
def test_the_label_of_the_sizes_has_room(forecast, flops):
    ax = Figure(figsize=(4.1, 2.2)).subplots()
    ax.figure.subplots_adjust(left=0.35)
    plot_methods(forecast, "params_opt", flops, ax=ax)
    ax.figure.canvas.draw()
    assert ax.xaxis.label.get_window_extent().x1 <= ax.figure.bbox.x1


def test_a_short_logarithmic_axis_has_several_numbers():
    ax = Figure().subplots()
    ax.plot([1, 2], [2.1e4, 9e5])
    ax.set_yscale("log")
    logarithmic(ax, "y", "N")
    low, high = ax.get_ylim()
    assert sum(low <= tick <= high for tick in ax.get_yticks()) >= 4
    labels = [text.get_text() for text in ax.get_yticklabels()]
    assert {"50k", "200k"} <= set(labels)


def test_a_notebook_writes_budgets_in_short(forecast):
    shown = forecast._repr_html_()
    assert ">1e+13<" in shown
    assert "10000000000000.0" not in shown
