"""What every public result can do: print, show itself, convert, be saved and read."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.estimators.baselines import fit_log_line, fit_persistence
from scaling_analysis.results import Result

HOSTILE = "</pre><script>alert(1)</script>"


@pytest.fixture(scope="module")
def runs(small_ladder) -> pd.DataFrame:
    made = small_ladder.assign(mean_return=1000 * np.exp(-2 * small_ladder["loss"]))
    return sa.load_runs(made, protocol="test.1")


@pytest.fixture(scope="module")
def forecast(runs) -> sa.Forecast:
    return sa.forecast(
        runs.drop(columns=["mean_return", "protocol"]),
        [1e13],
        ["isoflop-vertex"],
        n_resamples=30,
        hindcast_resamples=20,
        time_utc="2026-01-01T00:00:00+00:00",
    )


def _verification(runs: pd.DataFrame, forecast: sa.Forecast) -> sa.Verification:
    plan = sa.plan_forecast(forecast, 1e13, seeds=1)
    expected = forecast.predict_run(plan["params"], 1e13)
    new = plan[["run_id", "agent", "task", "params", "samples", "budget"]].assign(
        flops=1e13, loss=expected["loss"].to_numpy(), time_utc="2126-01-01T00:00:00+00:00"
    )
    known = runs.drop(columns=["mean_return", "protocol"])
    return sa.verify(forecast, plan, pd.concat([known, new], ignore_index=True))


def _imported(tmp_path) -> Any:
    path = tmp_path / "sweep.csv"
    path.write_text(f"params,samples,loss,{HOSTILE}\n1e5,1e6,3.1,x\n2e5,2e6,2.9,y\n")
    return sa.import_csv(path, cost_constant=6)


Make = Callable[[pd.DataFrame, sa.Forecast, Any], Any]
RESULTS: dict[str, Make] = {
    "isoflop": lambda runs, forecast, tmp: sa.fit_isoflop(runs),
    "isoflop of the return": lambda runs, forecast, tmp: sa.fit_isoflop(
        runs, "mean_return", space="log"
    ),
    "envelope": lambda runs, forecast, tmp: sa.fit_envelope(runs),
    "parametric": lambda runs, forecast, tmp: sa.fit_parametric(runs),
    "persistence": lambda runs, forecast, tmp: fit_persistence(runs),
    "log-line": lambda runs, forecast, tmp: fit_log_line(runs),
    "link": lambda runs, forecast, tmp: sa.fit_return_link(runs),
    "bootstrap": lambda runs, forecast, tmp: sa.bootstrap(runs, sa.fit_isoflop, n_resamples=20),
    "bootstrap of the link": lambda runs, forecast, tmp: sa.bootstrap(
        runs, sa.fit_return_link, n_resamples=20
    ),
    "forecast": lambda runs, forecast, tmp: forecast,
    "hindcast": lambda runs, forecast, tmp: forecast.ensemble.hindcast,
    "verification": lambda runs, forecast, tmp: _verification(runs, forecast),
    "curve": lambda runs, forecast, tmp: sa.fit_curve(
        np.geomspace(1, 1e3, 8), np.geomspace(4, 2, 8), form="power_floor"
    ),
    "surface": lambda runs, forecast, tmp: sa.fit_surface(
        runs[["params", "samples"]], runs["loss"], form="tied"
    ),
    "audit": lambda runs, forecast, tmp: sa.audit(runs),
    "import": lambda runs, forecast, tmp: _imported(tmp),
}
WITHOUT_FIGURE = {"Audit", "Imported", "SurfaceFit"}


@pytest.fixture(scope="module", params=RESULTS)
def result(request, runs, forecast, tmp_path_factory) -> Any:
    return RESULTS[request.param](runs, forecast, tmp_path_factory.mktemp("result"))


def test_it_prints_its_summary_and_has_a_short_repr(result):
    assert str(result) == result.summary()
    assert result.summary().strip()
    assert type(result).__name__ in repr(result)
    assert len(repr(result)) < 80


def test_it_survives_json_and_a_file(result, tmp_path):
    document = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    again = type(result).from_dict(document)
    assert again.to_dict() == result.to_dict()
    path = result.save(tmp_path / "result.json")
    written = path.read_bytes()
    loaded = type(result).load(path)
    assert loaded.summary() == result.summary()
    loaded.save(path)
    assert path.read_bytes() == written
    assert list(tmp_path.iterdir()) == [path], "nothing is left beside the file"


def test_its_errors_name_its_stage(result, tmp_path):
    with pytest.raises(sa.ScalingError, match="no such file") as caught:
        type(result).load(tmp_path / "absent.json")
    assert type(caught.value) is not sa.ScalingError


def test_it_is_a_table(result):
    table = result.to_frame()
    assert isinstance(table, pd.DataFrame)
    assert len(table) or type(result).__name__ == "Audit"


def test_a_notebook_shows_table_figure_and_summary(result):
    html = result._repr_html_()
    assert "<table" in html
    assert ("<img" in html) == (type(result).__name__ not in WITHOUT_FIGURE)
    assert "<script" not in html
    for message in getattr(result, "messages", ()):
        assert message.split("<")[0].split("&")[0].split('"')[0].split("'")[0][:40] in html


def test_a_notebook_shows_the_average_of_methods_and_the_scores(forecast):
    assert "persistence" not in forecast._repr_html_().split("<details>")[0]
    assert "params_opt_lo" in forecast._repr_html_()
    scores = forecast.ensemble.hindcast._repr_html_().split("<details>")[0]
    assert "persistence" in scores
    assert "coverage_90" in scores


def test_showing_it_leaves_no_figure_open(runs):
    import matplotlib.pyplot as plt

    plt.close("all")

    sa.fit_isoflop(runs)._repr_html_()
    assert plt.get_fignums() == []


def test_a_table_is_a_copy(forecast):
    table = forecast.to_frame()
    table.loc[:, "flops"] = 0.0
    assert (forecast.table["flops"] == 1e13).all()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; `scaling forecast` writes one"),
        ("{", "cannot be read as JSON"),
        ("[1]", "holds something else, not a Forecast"),
        ('{"kind": "Hindcast"}', "holds a Hindcast, not a Forecast"),
        ('{"kind": "forecast", "schema_version": 99}', "not a forecast of schema 1"),
    ],
)
def test_a_file_that_is_no_forecast(tmp_path, content, message):
    path = tmp_path / "forecast.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(sa.ForecastError, match=message) as caught:
        sa.Forecast.load(path)
    assert str(path) in str(caught.value)


def test_a_damaged_file_is_named_with_what_to_do(runs, tmp_path):
    path = sa.fit_isoflop(runs).save(tmp_path / "fit.json")
    data = json.loads(path.read_text())
    del data["slices"]
    path.write_text(json.dumps(data))
    with pytest.raises(sa.FitError, match="is damaged, or written by another version"):
        type(sa.fit_isoflop(runs)).load(path)


def test_a_place_that_cannot_be_written_is_a_typed_error(runs, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(sa.RunLogError, match="cannot write it"):
        sa.audit(runs).save(tmp_path / "file" / "audit.json")


def test_every_class_with_a_summary_is_a_result():
    """What prints, shows itself, converts and is saved alike: everything a function returns."""
    found = set()
    for module in pkgutil.walk_packages(sa.__path__, "scaling_analysis."):
        members = inspect.getmembers(importlib.import_module(module.name), inspect.isclass)
        found |= {
            kind
            for _, kind in members
            if kind.__module__.startswith("scaling_analysis.")
            and dataclasses.is_dataclass(kind)
            and hasattr(kind, "summary")
            and hasattr(kind, "to_dict")
        }
    assert len(found) > 15
    assert {kind.__name__ for kind in found if not issubclass(kind, Result)} == set()
