"""Commands about runs to do."""

import json

import scaling_analysis as sa

from .conftest import scaling


def test_next_runs_are_a_plan_of_new_runs(log, tmp_path):
    out = tmp_path / "next.csv"
    words = ["--flops", "3e13", "--spend", "6e12", "--replicates", 60, "-o", out]
    said = scaling("next", log, *words, "--method", "isoflop-vertex")
    assert "the standard deviation of the forecast falls from" in said
    planned = sa.read_plan(out)
    assert 0 < planned["budget"].sum() <= 6e12
    assert not set(planned["run_id"]) & set(sa.load_runs(log)["run_id"])
    again = tmp_path / "again.csv"
    chosen = scaling(
        "next", log, "--candidates", out, "--count", 2, "-o", again, "--json", "--replicates", 60
    )
    assert len(json.loads(chosen)) == len(sa.read_plan(again)) == 2


def test_a_ladder_needs_no_forecast(tmp_path):
    out = tmp_path / "plan.csv"
    scaling("plan", "--ladder", "--flops", "1e10", "3e12", "--params", "4e3", "4e5", "-o", out)
    planned = sa.read_plan(out)
    assert planned["params"].min() == 4e3
    assert planned["budget"].max() == 3e12
    assert set(planned["agent"]) == {"lstm"}
