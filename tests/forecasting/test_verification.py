"""Verdicts: what is judged, what is refused, what a hit is worth."""

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import FitStatus, VerifyError
from scaling_analysis.forecasting.planning import plan_forecast
from scaling_analysis.forecasting.verification import Verification, verify
from scaling_analysis.runlog import load_runs

LATER = "2026-02-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def plan(made):
    return plan_forecast(made, [1e13], seeds=2)


@pytest.fixture(scope="module")
def trained(plan, law, link):
    """The planned runs, trained under the same law: losses and returns by the truth."""
    return train(plan, law, link)


def train(plan, law, link, noise=0.01, rng=0):
    draws = np.random.default_rng(rng)
    loss = law.value(plan["params"], plan["budget"]) * np.exp(
        noise * draws.standard_normal(len(plan))
    )
    return load_runs(
        plan[["run_id", "agent", "task", "seed", "params", "samples", "budget"]].assign(
            flops=plan["budget"] * 1.001,
            loss=loss,
            mean_return=link(loss),
            protocol="simulated-1",
            time_utc=LATER,
        )
    )


def together(*logs):
    return load_runs(pd.concat(logs, ignore_index=True))


def test_runs_under_the_same_law_confirm_the_forecast(made, plan, ladder, trained):
    found = verify(made, plan, together(ladder, trained))
    assert found.status == FitStatus.OK
    assert len(found.runs) == 2 * len(plan)
    assert found.runs["inside"].all()
    assert (found.runs["error"].abs() < 1).all()
    assert found.unplanned == 0
    scores = found.scores[found.scores["target"] == "loss"].set_index("method")
    assert scores.loc["combined", "interval_score"] < scores.loc["persistence", "interval_score"]
    assert scores.loc["combined", "coverage"] == 1.0
    assert {"log-line", "persistence", "parametric-tied"} <= set(scores.index)


def test_errors_are_in_half_widths(made, plan, trained):
    found = verify(made, plan, trained)
    row = found.runs.iloc[0]
    half = np.log(row["hi"] / row["lo"]) / 2
    assert row["error"] == pytest.approx(np.log(row["observed"] / row["predicted"]) / half)
    said = made.predict_run([row["params"]], [row["flops"]])
    assert (row["lo"], row["hi"]) == (said["loss_run_lo"][0], said["loss_run_hi"][0])


def test_a_run_that_misses_is_outside_and_costs_score(made, plan, trained):
    worse = trained.assign(loss=trained["loss"] * 1.5)
    found = verify(made, plan, worse)
    loss = found.runs[found.runs["target"] == "loss"]
    assert not loss["inside"].any()
    assert (loss["error"] > 1).all()
    good = verify(made, plan, trained).scores.set_index(["target", "method"])["interval_score"]
    bad = found.scores.set_index(["target", "method"])["interval_score"]
    assert bad["loss", "combined"] > 3 * good["loss", "combined"]
    assert "OUTSIDE" in found.summary()


def test_the_choice_of_size_is_judged_beyond_the_spread_of_seeds(made, plan, law, link):
    clear = train(plan, law, link, noise=1e-4)
    held = verify(made, plan, clear).decisions
    assert (held["params"] == plan["params"].unique()[1]).all()
    assert set(held["verdict"]) == {"held"}
    tied = verify(made, plan, train(plan, law, link, noise=0.1)).decisions
    assert set(tied["verdict"]) == {"tied"}
    smallest = plan["params"].min()
    lucky = clear.assign(loss=clear["loss"].where(clear["params"] > smallest, 0.5))
    missed = verify(made, plan, lucky).decisions.set_index("neighbour")["verdict"]
    assert missed[smallest] == "missed"


def test_missing_and_diverged_runs_are_named(made, plan, trained):
    partly = trained.iloc[1:].copy()
    partly.loc[partly.index[0], "status"] = "diverged"
    found = verify(made, plan, partly)
    assert found.status == FitStatus.DOUBTFUL
    missing = plan["run_id"].iloc[0]
    assert any(m.startswith("missing") and missing in m for m in found.messages)
    assert any(m.startswith("diverged") and plan["run_id"].iloc[1] in m for m in found.messages)
    judged = found.runs[found.runs["status"] == "ok"]
    assert len(judged) == 2 * (len(plan) - 2)
    assert found.runs.loc[found.runs["status"] != "ok", "error"].isna().all()


def test_new_runs_that_nobody_planned_are_counted_not_judged(made, plan, ladder, trained):
    extra = trained.iloc[[0]].assign(run_id="somebody-else")
    found = verify(made, plan, together(ladder, trained, extra))
    assert found.unplanned == 1
    assert found.status == FitStatus.OK
    assert "somebody-else" not in set(found.runs["run_id"])


def test_a_fitted_row_that_changed_is_refused(made, plan, ladder, trained):
    edited = ladder.assign(loss=ladder["loss"].where(ladder.index != 7, 1.0))
    with pytest.raises(VerifyError, match=r"1 fitted rows have changed.*run 'n.*samples"):
        verify(made, plan, together(edited, trained))
    commented = ladder.assign(note="looked at again")
    assert verify(made, plan, together(commented, trained)).status == FitStatus.OK


def test_a_planned_run_among_the_fitted_is_refused(made, plan, ladder):
    cheat = plan.assign(run_id=[ladder["run_id"].iloc[0], *plan["run_id"].iloc[1:]])
    with pytest.raises(VerifyError, match="is among the runs that the forecast was fitted on"):
        verify(made, cheat, ladder)


def test_a_plan_of_another_forecast_is_refused(made, plan, trained):
    with pytest.raises(VerifyError, match="the plan tests 0123, not this forecast"):
        verify(made, plan.assign(forecast_hash="0123"), trained)
    with pytest.raises(VerifyError, match="the plan tests no forecast"):
        verify(made, plan.assign(forecast_hash=""), trained)
    with pytest.raises(VerifyError, match="the plan has no rows"):
        verify(made, plan.iloc[:0], trained)


def test_runs_older_than_the_forecast_are_refused(made, plan, trained):
    with pytest.raises(VerifyError, match="before the forecast"):
        verify(made, plan, trained.assign(time_utc="2025-12-31T23:59:59Z"))
    with pytest.raises(VerifyError, match="'yesterday', not ISO 8601"):
        verify(made, plan, trained.assign(time_utc="yesterday"))
    undated = verify(made, plan, trained.drop(columns="time_utc"))
    assert undated.status == FitStatus.DOUBTFUL
    assert any("was not checked" in message for message in undated.messages)


def test_nothing_finished_is_an_error(made, plan, ladder):
    with pytest.raises(VerifyError, match=r"no planned run has finished: .*missing"):
        verify(made, plan, ladder)


def test_round_trip(made, plan, trained, tmp_path):
    found = verify(made, plan, trained.iloc[1:])
    again = Verification.load(found.save(tmp_path / "verification.json"))
    assert again.to_dict() == found.to_dict()
    assert again.summary() == found.summary()
    assert again.runs["inside"].dtype == bool
    with pytest.raises(VerifyError, match="not a verification of schema 1"):
        Verification.from_dict({"kind": "forecast"})
