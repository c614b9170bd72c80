"""Commands about forecasts: from a log to a verdict."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa

from .conftest import QUICK, scaling, shell


def test_hindcast_scores_every_method(log, tmp_path):
    out = tmp_path / "hindcast.json"
    said = scaling("hindcast", log, "--flops", "3e11", *QUICK, "-o", out)
    assert "isoflop-vertex" in said
    assert "persistence" in said
    assert set(sa.Hindcast.load(out).cells["origin"]) == {3e11}


def test_from_a_log_to_a_verdict(log, forecast_file, tmp_path):
    plan, runs = (tmp_path / name for name in ("plan.csv", "new.csv"))
    forecast = sa.Forecast.load(forecast_file)
    words = ["--flops", "1e13", "--spread", ".5", "1", "2", "--seeds", 1, "-o", plan]
    planned_said = json.loads(scaling("plan", forecast_file, *words, "--json"))
    planned = sa.read_plan(plan)
    assert [row["run_id"] for row in planned_said] == planned["run_id"].tolist()
    n = forecast.params_opt(1e13)
    assert np.allclose(planned["params"] / n, [0.5, 1, 2], rtol=1e-4)

    said = forecast.predict_run(planned["params"], 1e13)
    new = planned[["run_id", "agent", "task", "params", "samples", "budget"]].assign(
        flops=1e13, loss=said["loss"], time_utc="2126-01-01T00:00:00+00:00"
    )
    sa.write_runs(pd.concat([sa.load_runs(log), new], ignore_index=True), runs)
    verdict = scaling("verify", forecast_file, plan, runs, "-o", tmp_path / "verification.json")
    assert "3 of 3 planned runs inside" in verdict

    study = tmp_path / "study"
    study.mkdir()
    runs.rename(study / "runs.csv")
    (study / "forecast.json").write_bytes(forecast_file.read_bytes())
    (tmp_path / "verification.json").rename(study / "verification.json")
    made = scaling("report", study, "-o", tmp_path / "report", "--format", "html")
    page = (tmp_path / "report" / "report.html").read_text()
    assert made.strip().endswith("report.html")
    assert "3 of 3" in page


def test_reach_turns_the_question_round(forecast_file):
    forecast = sa.Forecast.load(forecast_file)
    row = forecast.table[forecast.table["method"] == "combined"].iloc[0]
    (found,) = json.loads(scaling("reach", forecast_file, "--loss", f"{row['loss']:.9f}", "--json"))
    assert found["flops"] == pytest.approx(1e13, rel=1e-3)
    assert "inf: not within" in scaling("reach", forecast_file, "--loss", "1", "0.01")


def test_compare_finds_the_compute_that_a_recipe_saves(log, forecast_file, tmp_path):
    better = sa.load_runs(log)
    better["loss"] *= 0.8
    other = sa.write_runs(better, tmp_path / "better.csv")
    words = [forecast_file, other, "--flops", "1e13", *QUICK]
    (row,) = json.loads(scaling("compare", *words, "--json", "-o", tmp_path / "table.csv"))
    assert row["multiplier"] > 1.2
    assert row["multiplier_lo"] < row["multiplier"] < row["multiplier_hi"]
    assert len(pd.read_csv(tmp_path / "table.csv")) == 1


def test_compare_reads_logs_of_other_names(log, forecast_file, tmp_path):
    other = tmp_path / "other.csv"
    pd.read_csv(log).drop(columns="flops").rename(columns={"params": "width"}).to_csv(other)
    words = [forecast_file, other, "--flops", "1e13", *QUICK]
    (row,) = json.loads(
        scaling("compare", *words, "--map", "params=width", "--cost-constant", 6, "--json")
    )
    assert row["multiplier"] == pytest.approx(1, abs=0.05)


def test_progress_is_silent_in_a_pipe(log, capsys, tmp_path):
    done = shell("hindcast", log, *QUICK, "--flops", "3e11", "--json")
    assert done.returncode == 0
    assert done.stderr == ""
    json.loads(done.stdout)
