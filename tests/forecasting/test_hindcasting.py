"""Rolling origin: what is fitted when, what is scored, and what the replay knows."""

from dataclasses import replace
from functools import partial

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import ForecastError
from scaling_analysis.estimators.isoflop import fit_isoflop
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.forecasting.hindcasting import hindcast
from scaling_analysis.forecasting.scores import COMBINED, Hindcast

METHODS = {
    "surface": fit_parametric,
    "profiles": partial(fit_isoflop, space="log", value_law="power"),
}


@pytest.fixture(scope="module")
def scored(ladder):
    return hindcast(ladder, METHODS, n_resamples=40)


def test_every_origin_forecasts_every_later_budget(scored, ladder):
    cells = scored.cells
    budgets = sorted(ladder["budget"].unique())
    assert sorted(cells["origin"].unique()) == budgets[2:-1]
    assert (cells["budget"] > cells["origin"]).all()
    surface = cells[(cells["method"] == "surface") & (cells["quantity"] == "loss")]
    for origin, at in surface.groupby("origin"):
        assert sorted(at["budget"].unique()) == [c for c in budgets if c > origin]


def test_methods_see_nothing_beyond_their_origin(ladder, scored):
    """Spoiling the future changes what is observed, never what was forecast of it."""
    spoilt = ladder.assign(loss=ladder["loss"].where(ladder["budget"] < 1e12, 3.0))
    again = hindcast(spoilt, METHODS, n_resamples=40)
    key = ["quantity", "method", "origin", "budget", "params"]
    pair = scored.cells.merge(again.cells, on=key, suffixes=("", "_spoilt"))
    first = pair[(pair["origin"] == 1e11) & pair["predicted"].notna()]
    first = first[first["quantity"] == "loss"]
    assert len(first) > 5
    for column in ("predicted", "base", "sd", "dof"):
        if column != "sd":  # the error of the observation belongs to it
            np.testing.assert_array_equal(first[column], first[f"{column}_spoilt"])
    assert not np.allclose(first["observed"], first["observed_spoilt"])


def test_a_forecast_at_an_origin_is_that_of_the_method_fitted_to_its_past(ladder, scored):
    fit = fit_parametric(ladder[ladder["budget"] <= 1e11])
    rows = scored.cells.query("method == 'surface' and origin == 1e11")
    optimum = rows[rows["quantity"] == "loss_opt"]
    np.testing.assert_allclose(optimum["predicted"], np.log(fit.value_opt(optimum["budget"])))
    single = rows[rows["quantity"] == "loss"]
    expected = np.log(fit.value(single["params"], single["flops"]))
    np.testing.assert_allclose(single["predicted"], expected)


def test_first_origin_knows_no_errors_and_later_ones_do(scored):
    combined = scored.cells[
        (scored.cells["method"] == COMBINED) & (scored.cells["quantity"] == "loss_opt")
    ]
    dof = combined.groupby("origin")["dof"].first()
    assert dof.iloc[0] == 2.0
    assert (np.diff(dof) > 0).all()


def test_the_average_lies_between_the_methods(scored):
    wide = scored.cells[scored.cells["quantity"] == "loss"].pivot_table(
        index=["origin", "budget", "params"], columns="method", values="predicted"
    )
    members = wide[list(METHODS)]
    assert (wide[COMBINED] >= members.min(axis=1) - 1e-12).all()
    assert (wide[COMBINED] <= members.max(axis=1) + 1e-12).all()


def test_good_methods_beat_the_baselines_and_cover(scored):
    table = scored.scores().query("distance == 'all' and quantity == 'loss'").set_index("method")
    assert table.loc[COMBINED, "error"] < 0.3 * table.loc["persistence", "error"]
    assert table.loc[COMBINED, "interval_score"] < table.loc["log-line", "interval_score"]
    assert table.loc[COMBINED, "coverage_90"] >= 0.85
    coverage = table.loc[COMBINED, ["coverage_50", "coverage_80", "coverage_90", "coverage_95"]]
    assert (np.diff(coverage.to_numpy(float)) >= 0).all()


def test_scores_are_grouped_by_distance(scored):
    table = scored.scores().query("quantity == 'loss' and method == 'surface'")
    assert table["distance"].tolist() == ["1-3x", "3-10x", "10-30x", "all"]
    assert table["cells"].iloc[:-1].sum() == table["cells"].iloc[-1]


def test_returns_go_through_the_link_as_well(scored):
    seen = scored.methods("mean_return_opt")
    assert seen[0] == COMBINED
    assert "link" in seen
    frame = scored.to_frame().query("method == 'link' and quantity == 'mean_return'")
    assert np.sqrt((frame["error"] ** 2).mean()) < 0.25


def test_origins_can_be_chosen(ladder):
    late = hindcast(ladder, ["parametric-tied"], origins=[3.1e11, 1e12], n_resamples=20)
    assert sorted(late.cells["origin"].unique()) == [3e11, 1e12]
    with pytest.raises(ForecastError, match=r"origins=\[10.0\]: none leaves three budgets"):
        hindcast(ladder, METHODS, origins=[10.0])


def test_a_method_that_fails_early_is_named(ladder):
    def late(runs):
        if runs["budget"].nunique() < 5:
            raise_fit_error()
        return fit_parametric(runs)

    found = hindcast(ladder, {"late": late, "surface": fit_parametric}, n_resamples=20)
    assert set(found.failures["origin"]) == {1e11, 3e11}
    assert any("late (loss) could not be fitted at 2 of 3" in m for m in found.messages)


def raise_fit_error():
    from scaling_analysis.errors import FitError

    raise FitError("too few budgets")


def test_a_log_without_budgets_is_scored_by_runs(simulate):
    """And its baselines read the learning curves."""
    curves = simulate(seeds=1, link=None).drop(columns="budget")
    found = hindcast(curves, {"surface": fit_parametric}, n_resamples=20)
    assert set(found.cells["quantity"]) == {"loss"}
    said = found.cells.dropna(subset="predicted").groupby("method")["origin"].max()
    assert set(said.index) == {COMBINED, "surface", "persistence", "log-line"}
    assert (said == found.cells["origin"].max()).all()
    error = found.scores().query("quantity == 'loss' and distance == 'all'").set_index("method")
    assert error.loc["surface", "error"] < error.loc["persistence", "error"]


def test_same_seed_same_cells_and_round_trip(ladder, scored):
    again = hindcast(ladder, METHODS, n_resamples=40)
    pd.testing.assert_frame_equal(again.cells, scored.cells)
    other = hindcast(ladder, METHODS, n_resamples=40, rng=1, origins=[1e11])
    same_origin = scored.cells[scored.cells["origin"] == 1e11].reset_index(drop=True)
    key = ["quantity", "method", "budget"]
    pd.testing.assert_frame_equal(other.cells[key], same_origin[key])
    assert not np.allclose(other.cells["base"], same_origin["base"], equal_nan=True)
    back = Hindcast.from_dict(scored.to_dict())
    assert back.to_dict() == scored.to_dict()
    assert back.summary() == scored.summary()


def test_refusals(ladder):
    with pytest.raises(ForecastError, match=r"at least 4 budgets.*the log has 3"):
        hindcast(ladder[ladder["budget"] <= 1e11], METHODS)
    with pytest.raises(ForecastError, match="neither a loss nor a mean_return"):
        hindcast(ladder.drop(columns=["loss", "mean_return"]), METHODS)
    with pytest.raises(ForecastError, match="method 'magic' is not known for loss"):
        hindcast(ladder, ["magic"])
    with pytest.raises(ForecastError, match=r"no method could be fitted at any origin:\n.*never"):
        hindcast(ladder.drop(columns="mean_return"), {"broken": _never})


def _never(runs):
    from scaling_analysis.errors import FitError

    raise FitError("never")


def test_better_baselines_are_scored_where_the_average_is(scored):
    cells = scored.cells.copy()
    for method, error in (("combined", 0.3), ("log-line", 0.1), ("persistence", 0.5)):
        at = (cells["quantity"] == "loss_opt") & (cells["method"] == method)
        cells.loc[at, "predicted"] = cells.loc[at, "observed"] + error
        cells.loc[at, "sd"] = 1e-3
    first = cells["origin"].min()
    of_line = (cells["quantity"] == "loss_opt") & (cells["method"] == "log-line")
    cells.loc[of_line & (cells["origin"] == first), "predicted"] = np.nan  # could not be fitted
    changed = replace(scored, cells=cells, _records={})
    found = changed.better_baselines(["loss"])
    row = found.iloc[0]
    assert found["baseline"].tolist() == ["log-line"]
    assert row["error"] == pytest.approx(0.1)
    assert row["error_average"] == pytest.approx(0.3)
    assert row["score"] < row["score_average"]
    assert row["forecasts"] == (of_line & (cells["origin"] > first)).sum()
    near = changed.better_baselines(["loss"], farthest=5.0)["forecasts"].item()
    reach = cells["budget"] / cells["origin"]
    assert near == (of_line & (cells["origin"] > first) & (reach <= 5)).sum() < row["forecasts"]
    nearest = changed.better_baselines(["loss"], farthest=1.0)["forecasts"].item()
    assert 0 < nearest <= near  # where all are farther
