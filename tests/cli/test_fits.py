"""Commands about fits."""

import json

import numpy as np
import pandas as pd

import scaling_analysis as sa
from scaling_analysis.forecasting import condensing

from .conftest import scaling


def test_fit_prints_and_saves_the_bootstrap(log, tmp_path):
    out = tmp_path / "fit.json"
    said = scaling("fit", log, "--replicates", 30, "-o", out)
    assert "exponent of N_opt" in said
    assert sa.Bootstrap.load(out).fit.method.startswith("isoflop-vertex")


def test_returns_have_fits_of_their_own(log, tmp_path):
    runs = sa.load_runs(log)
    noise = np.random.default_rng(0).normal(0, 0.05, len(runs))
    returns = 100 * runs["loss"] ** -2.0 * np.exp(noise)
    played = tmp_path / "played.csv"
    sa.write_runs(runs.assign(mean_return=returns, protocol="p.1"), played)
    said = scaling("fit", played, "--method", "return-link", "--replicates", 20)
    assert "mean_return on loss" in said


def test_several_methods_are_fitted_side_by_side(log, tmp_path):
    methods = ["--method", "isoflop-vertex", "--method", "log-line"]
    made = scaling("fit", log, *methods, "--replicates", 30, "--json", "-o", tmp_path / "fits")
    assert [each["kind"] for each in json.loads(made)] == ["IsoflopFit", "BaselineFit"]
    names = {file.name for file in (tmp_path / "fits").iterdir()}
    assert names == {"isoflop-vertex.json", "log-line.json"}


def test_influence_lists_what_the_fit_hangs_on(log, tmp_path):
    out = tmp_path / "influence.csv"
    words = ["--method", "isoflop-vertex", "--flops", "1e13"]
    made = json.loads(scaling("influence", log, *words, "--json", "-o", out))
    sizes = sa.load_runs(log)["params"].nunique()
    assert len(made) == len(pd.read_csv(out)) == sizes + 1
    change = [abs(row["params_change"]) for row in made if row["params_change"] is not None]
    assert change == sorted(change, reverse=True)
    assert "changes are log ratios" in scaling("influence", log, *words, "--top", 3)


def test_a_long_log_is_fitted_as_a_forecast_would(log, monkeypatch):
    words = ("--method", "parametric-additive", "--replicates", 10)
    assert "rows are" not in scaling("fit", log, *words)
    monkeypatch.setattr(condensing, "MOST_ROWS", 40)
    rows = len(sa.load_runs(log))
    said = scaling("fit", log, *words)
    assert said.startswith(f"{rows} rows of")
    fitted = int(said.split(" are fitted as ")[1].split()[0])
    assert f"\n{fitted} rows of" in said, "the fit is of the rows that were said"
    whole = scaling("fit", log, *words, "--unit", "params")
    assert f"\n{rows} rows of" in whole, "another unit may lie across what would be averaged"
