"""Commands that show a whole analysis."""

import pytest

import scaling_analysis as sa
from scaling_analysis.report import demonstration

from .conftest import scaling


def test_demo_ends_with_the_paths_of_both_reports(log, tmp_path, monkeypatch):
    monkeypatch.setattr(demonstration, "shipped_log", lambda: log.parent)
    monkeypatch.setattr(demonstration, "_REPLICATES", 30)
    lines = scaling("demo", "-o", tmp_path / "demo").strip().splitlines()
    paths = [tmp_path / "demo" / f"report.{name}" for name in ("html", "pdf")]
    assert lines[-2:] == [str(path) for path in paths]
    assert paths[1].read_bytes().startswith(b"%PDF")
    assert sa.Forecast.load(tmp_path / "demo" / "forecast.json").table["flops"].max() == 3e13


def test_the_shipped_log_is_usable():
    try:
        folder = demonstration.shipped_log()
    except sa.ReportError:
        pytest.skip("this checkout holds no data/nethack_bc")
    runs = sa.load_runs(folder / "runs.csv")
    assert {"loss", "mean_return", "budget", "seed"} <= set(runs.columns)
