"""Intrinsic performance through forecast, plan, verdict, report and bootstrap."""

import json
from functools import partial

import numpy as np
import pytest
from learning_curves import TRUTH, played

import scaling_analysis as sa


@pytest.fixture(scope="module")
def agents():
    """Few sizes and evaluations: replicates are fitted one by one, at every origin of a hindcast.

    The return is positive, as its logs in a forecast ask for.
    """
    n, d, seed = (
        v.ravel() for v in np.meshgrid(np.geomspace(1e5, 1e7, 4), np.geomspace(1e6, 1e8, 9), [0, 1])
    )
    return played(n, d, seed, rng=0)


def test_forecast_plan_verify_and_report_take_it(agents, tmp_path):
    odds = partial(sa.fit_intrinsic, natural="odds", floor=0.0, ceiling=104.0, workers=1)
    made = sa.forecast(
        agents,
        [6e16],
        return_methods={"intrinsic": odds},
        n_resamples=24,
        hindcast_resamples=4,
        time_utc="2026-01-01T00:00:00+00:00",
    )
    row = made.table[made.table["method"] == "intrinsic"].iloc[0]
    assert row["extrapolation"] == pytest.approx(10.0)
    assert row["params_opt"] == pytest.approx(float(TRUTH.params_opt(6e16)), rel=0.5)
    assert row["params_opt_lo"] < row["params_opt"] < row["params_opt_hi"]
    assert row["params_opt_lo"] < float(TRUTH.params_opt(6e16)) < row["params_opt_hi"]
    assert row["mean_return"] == pytest.approx(100, abs=8)
    beside = {"persistence", "log-line"}
    assert set(made.ensemble.hindcast.methods("mean_return")) == {"combined", "intrinsic"} | beside
    assert sa.Forecast.from_dict(json.loads(json.dumps(made.to_dict()))).hash == made.hash

    plan = sa.plan_forecast(made, [6e16], seeds=2)
    later = played(plan["params"], plan["samples"], plan["seed"], 1)
    planned = plan[["run_id", "agent", "task", "seed", "budget"]]
    later = later.assign(**planned, time_utc="2026-02-01T00:00:00+00:00")
    verdict = sa.verify(made, plan, later)
    assert verdict.status == sa.FitStatus.OK
    assert len(verdict.runs) == len(plan) == 6
    assert verdict.runs["inside"].mean() > 0.5

    pages = sa.write_report(agents, tmp_path, ["html"], forecast=made, verification=verdict)
    assert "intrinsic-metric" in pages["html"].read_text(encoding="utf-8")


@pytest.mark.slow
def test_by_its_name_it_forecasts_sizes_beyond_the_highest_return(agents):
    made = sa.forecast(
        agents, [6e16], return_methods=["intrinsic"], n_resamples=24, hindcast_resamples=4
    )
    row = made.table[made.table["method"] == "combined"].iloc[0]
    assert row["params_opt"] == pytest.approx(float(TRUTH.params_opt(6e16)), rel=0.5)
    assert np.isnan(row["mean_return"])


def test_a_bootstrap_says_where_returns_are_not_extrapolated(agents):
    fit = sa.fit_intrinsic(agents, beyond="nan", workers=1)
    made = sa.bootstrap(agents, lambda _: fit, scheme="parametric", n_resamples=10)
    assert "mean_return refused" in made.summary()
    table = made.to_frame().set_index("quantity")
    assert table.loc["value_opt", "value"].isna().any()
    assert (table.loc["params_opt", "lo"] < table.loc["params_opt", "hi"]).all()
