"""Forecasts on file say today what they said when they were written."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.encoding import decode_frame
from scaling_analysis.forecasting.combination import Widening
from scaling_analysis.forecasting.ensemble import value_columns

REPORTS = Path(__file__).parents[2] / "reports"


@pytest.mark.parametrize("study", ["nethack_bc", "nethack_bc_decade"])
def test_a_forecast_on_file_keeps_its_numbers(study):
    kept = sa.Forecast.load(REPORTS / study / "forecast.json")
    for method, at in kept.table.groupby("method"):
        for target in ("loss", "mean_return"):
            if not np.isfinite(at[target]).all():
                continue
            said = kept.ensemble.predict(f"{target}_opt", at["flops"], method=str(method))
            columns = value_columns(target, said, kept.ensemble, kept.level)
            for name, values in columns.items():
                np.testing.assert_allclose(values, at[name], rtol=1e-9)


def test_a_verdict_on_file_is_reached_again():
    folder = REPORTS / "nethack_bc"
    kept = json.loads((folder / "verification.json").read_text())
    then = decode_frame(kept["runs"])
    forecast = sa.Forecast.load(folder / "forecast.json")
    for target, at in then[then["status"] == "ok"].groupby("target"):
        said = forecast.predict_run(at["params"], at["flops"], kept["level"])
        for name, column in (("predicted", ""), ("lo", "_run_lo"), ("hi", "_run_hi")):
            np.testing.assert_allclose(said[f"{target}{column}"], at[name], rtol=1e-9)
    inside = then["observed"].between(then["lo"], then["hi"])
    pd.testing.assert_series_equal(inside, then["inside"].astype(bool), check_names=False)


def test_a_widening_on_file_keeps_its_meaning():
    law = Widening.from_dict({"scale": 0.2, "dof": 5.0, "origins": 3})
    assert law.sd(0.0, 1.0, 0.5) == pytest.approx(0.1)
