"""The audit of rows and runs: early training, copies, one seed, what was left out."""

import pandas as pd
from audited_logs import curves, found, ladder

from scaling_analysis.runlog import load_runs
from scaling_analysis.runlog.audit import audit


def test_rows_before_the_steepest_fall_are_early_training():
    finding = found(curves(transient=True))["early-training"]
    assert finding.figures["runs"] == 4
    assert 4 <= finding.figures["rows"] <= 20
    assert "floor goes towards zero" in finding.bias
    assert "early-training" not in found(curves(transient=False))


def test_a_remedy_that_is_a_condition_does_what_it_says():
    runs = curves(transient=True)
    condition = found(runs)["early-training"].remedy.split('"')[1]
    codes = {finding.code for finding in audit(load_runs(runs, where=condition)).findings}
    assert "left-out" in codes
    assert "early-training" not in codes
    runs = ladder()
    runs.loc[runs.budget < 2e13, "flops"] *= 1.2
    condition = found(runs)["budget-missed"].remedy.split('"')[1]
    assert condition == "budget >= 1e14"
    codes = {finding.code for finding in audit(load_runs(runs, where=condition)).findings}
    assert "budget-missed" not in codes


def test_a_loss_that_rises_is_not_taken_for_training():
    runs = curves(transient=False)
    last = runs.index[runs.run_id == "100000"][-2:]
    runs.loc[last, "loss"] *= 3
    finding = found(runs)["rising-loss"]
    assert finding.figures["rows"] == 2
    assert "'100000'" in finding.where
    assert "rising-loss" not in found(
        runs.assign(status=["ok"] * 28 + ["diverged"] * 2 + ["ok"] * 10)
    )


def test_copies_under_another_name():
    runs = ladder(seeds=1)
    copy = runs[:3].assign(run_id=["x", "y", "z"])
    finding = found(pd.concat([runs, copy], ignore_index=True))["copied-checkpoint"]
    assert finding.severity == "serious"
    assert finding.figures["rows"] == 6
    assert "'x'" in finding.where


def test_a_log_put_together_with_itself_after_loading():
    runs = load_runs(ladder(seeds=1))
    twice = pd.concat([runs, runs])
    (finding,) = (each for each in audit(twice).findings if each.code == "repeated-checkpoint")
    assert finding.severity == "serious"
    assert finding.figures["rows"] == len(runs)
    assert "repeated-checkpoint" not in found(load_runs([runs, runs]))


def test_one_run_is_not_told_of_the_jackknife_nor_of_profiles_twice():
    runs = curves(transient=False, sizes=(1e4,)).assign(
        budget=lambda log: log.flops, mean_return=1.0, protocol="a"
    )
    report = audit(runs)
    codes = [finding.code for finding in report.findings]
    assert codes.count("few-profiles") == 1
    few = next(finding for finding in report.findings if finding.code == "few-runs")
    assert few.what.endswith("come from one run.")
    assert "jackknife" not in few.remedy


def test_repeated_rows_and_shared_checkpoints_are_noted():
    runs = ladder()
    assert found(pd.concat([runs, runs[:5]]))["duplicate-rows"].figures["rows"] == 5
    twice = pd.concat([runs, runs[:1].assign(budget=2e12, loss=runs.loss[0] * 1.001)])
    assert found(twice)["checkpoint-for-two-budgets"].figures["rows"] == 2


def test_a_run_with_two_sizes():
    runs = curves(transient=False)
    runs.loc[0, "params"] = 9.0
    assert found(runs)["run-mixes-values"].severity == "serious"


def test_one_seed_and_few_runs():
    once = found(ladder(seeds=1))
    assert "one-seed" in once
    assert "one-seed" not in found(ladder(seeds=2))
    assert found(curves(transient=False))["few-runs"].figures == {"runs": 4, "rows": 40}
    some = curves(transient=False)
    both = pd.concat([some, some[:10].assign(run_id="again", loss=some.loss[:10] * 1.01)])
    assert found(both)["few-replicates"].figures == {"single": 3, "sizes": 4}


def test_rows_left_out_are_listed_with_their_reasons():
    log = ladder()
    runs = load_runs(log, where="budget > 2e13", exclude={log.run_id.iloc[-1]: "restarted"})
    finding = {finding.code: finding for finding in audit(runs).findings}["left-out"]
    assert finding.where == "68 excluded (not where budget > 2e13); 1 excluded (restarted)"
    assert finding.figures["rows"] == 69


def test_columns_that_look_like_the_schema_are_pointed_out():
    finding = found(ladder().rename(columns={"loss_se": "loss_sem"}))["unread-columns"]
    assert "columns={'loss_se': 'loss_sem'}" in finding.remedy
