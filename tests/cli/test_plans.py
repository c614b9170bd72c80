"""Commands about runs to do."""

import json

import scaling_analysis as sa
from scaling_analysis.forecasting.plan_files import split_budgets

from .conftest import scaling


def test_next_runs_are_a_plan_of_new_runs(log, tmp_path):
    out = tmp_path / "next.csv"
    words = ["--flops", "3e13", "--spend", "6e12", "--replicates", 60, "-o", out]
    said = scaling("next", log, *words, "--method", "isoflop-vertex")
    assert "the standard deviation of the forecast falls from" in said
    planned = sa.read_plan(out)
    assert 0 < planned["budget"].sum() <= 6e12
    runs = sa.load_runs(log)
    assert not set(planned["run_id"]) & set(runs["run_id"])
    snapshots = {c for text in planned["snapshots"] for c in split_budgets(text)}
    assert snapshots <= set(runs["budget"])
    again = tmp_path / "again.csv"
    chosen = scaling(
        "next", log, "--candidates", out, "--count", 2, "-o", again, "--json", "--replicates", 60
    )
    assert len(json.loads(chosen)) == len(sa.read_plan(again)) == 2


def test_runs_that_tell_nothing_are_said_to(log, tmp_path):
    plan = sa.plan_ladder((1e10, 1e11), (4e3, 2e4), task="nethack", agent="lstm", seeds=1)
    sa.write_plan(plan.head(1), tmp_path / "offered.csv")
    words = ["--candidates", tmp_path / "offered.csv", "--count", 1, "--replicates", 60]
    said = scaling("next", log, *words, "-o", tmp_path / "next.csv")
    assert "hardly less" in said
    assert "1 run, " in said


def test_a_ladder_needs_no_forecast(tmp_path):
    out = tmp_path / "plan.csv"
    scaling("plan", "--ladder", "--flops", "1e10", "3e12", "--params", "4e3", "4e5", "-o", out)
    planned = sa.read_plan(out)
    assert planned["params"].min() == 4e3
    assert planned["budget"].max() == 3e12
    assert set(planned["agent"]) == {"lstm"}
