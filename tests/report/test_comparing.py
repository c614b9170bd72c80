"""What the report says of methods against baselines, and how it writes small numbers."""

from dataclasses import replace

import pandas as pd

from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.report.comparing import _sized as sized
from scaling_analysis.report.comparing import beaten_by_baselines, methods_section
from scaling_analysis.report.equations import _plain as equation_number
from scaling_analysis.report.equations import equations
from scaling_analysis.report.residuals import Residuals


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
    (said,) = beaten_by_baselines(beaten, ["loss"])
    count = (beaten.ensemble.hindcast.cells["quantity"] == "loss_opt") & (
        beaten.ensemble.hindcast.cells["method"] == COMBINED
    )
    assert "hindcast of the loss the baseline log-line does better than the average" in said
    assert "error 1\N{NO-BREAK SPACE}% against 50\N{NO-BREAK SPACE}%" in said
    assert f"over {int(count.sum())} forecasts" in said
    assert said in methods_section(beaten, ["loss"]).paragraphs


def test_nothing_is_said_of_baselines_that_do_worse(forecast):
    assert beaten_by_baselines(with_errors(forecast, 0.01, 0.5), ["loss"]) == ()
    alone = replace(forecast, ensemble=replace(forecast.ensemble, hindcast=None))
    assert beaten_by_baselines(alone, ["loss"]) == ()


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
