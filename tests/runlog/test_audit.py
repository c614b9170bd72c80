"""The audit as a result: order and text of its findings, JSON, tasks, what it refuses."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from audited_logs import curves, found, ladder
from hypothesis import given, settings
from hypothesis import strategies as st

from scaling_analysis.errors import FitStatus, RunLogError
from scaling_analysis.runlog import load_runs
from scaling_analysis.runlog.audit import Audit, audit


def test_a_sound_log_has_no_serious_finding_and_no_warning():
    report = audit(load_runs(ladder()))
    assert report.status == FitStatus.OK
    assert {finding.severity for finding in report.findings} <= {"note"}
    assert (report.rows, report.usable, report.runs) == (204, 204, 204)


def test_findings_come_in_order_of_importance():
    report = audit(load_runs(ladder(centre=60, seeds=1).drop(columns="loss_se")))
    ranks = [["serious", "warning", "note"].index(f.severity) for f in report.findings]
    assert ranks == sorted(ranks)
    assert len(set(ranks)) == 3
    assert report.status == FitStatus.DOUBTFUL
    assert report.messages == tuple(f.what for f in report.findings if f.severity == "serious")
    frame = report.to_frame()
    assert list(frame.columns) == ["code", "severity", "what", "where", "bias", "remedy"]
    assert list(frame.code) == [finding.code for finding in report.findings]


def test_a_report_survives_json():
    report = audit(load_runs(ladder(seeds=1)))
    again = Audit.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    assert again.summary() == report.summary()


def test_tasks_are_looked_at_one_by_one():
    one, two = ladder().assign(task="one"), ladder(drift=-0.2).assign(task="two")
    two["run_id"] = "two-" + two.run_id
    report = audit(load_runs(pd.concat([one, two])))
    (drift,) = [finding for finding in report.findings if finding.code == "cost-drift"]
    assert drift.what.startswith("two: C/(N D) is not constant")


def test_a_raw_table_is_loaded_first():
    assert audit(ladder()).findings == audit(load_runs(ladder())).findings
    with pytest.raises(RunLogError, match="no column 'params'"):
        audit(ladder().drop(columns=["params", "flops"]))


def test_nothing_to_audit():
    with pytest.raises(RunLogError, match=r"no row has status ok.*\(204 diverged\)"):
        audit(load_runs(ladder().assign(status="diverged")))
    with pytest.raises(RunLogError, match="expert_return=nan"):
        audit(ladder(), expert_return=math.nan)


def test_a_constant_loss():
    assert found(ladder().assign(loss=1.5))["constant-loss"].severity == "serious"


@settings(max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.sampled_from("abc"),
            st.sampled_from([1.0, 3e3, 1e9]),
            st.sampled_from([1.0, 7e5, 1e12]),
            st.sampled_from([1.0, 1e10, 1e25]),
            st.sampled_from([math.nan, 1e10, 3e10, 1e11]),
            st.sampled_from([math.nan, -1.0, 0.0, 0.5, 2.0, 1e50]),
            st.sampled_from([math.nan, -5.0, 0.0, 10.0]),
            st.sampled_from(["ok", "ok", "ok", "diverged"]),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda row: (row[0], row[2], row[4]),
    )
)
def test_no_log_that_loads_breaks_the_audit(rows):
    names = ["run_id", "params", "samples", "flops", "budget", "loss", "mean_return", "status"]
    runs = load_runs(pd.DataFrame(rows, columns=names), protocol="v1")
    if not (runs.status == "ok").any():
        return
    report = audit(runs)
    assert Audit.from_dict(json.loads(json.dumps(report.to_dict()))).summary() == report.summary()
    assert "nan" not in report.summary()


def test_golden_summary():
    runs = curves(transient=False, sizes=(1e4, 1e5)).assign(
        flops=lambda log: 6 * (log.params / 1e4) ** -0.5 * log.params * log.samples
    )
    assert audit(runs).summary() == GOLDEN_SUMMARY


GOLDEN_SUMMARY = """\
Audit: doubtful. 20 rows, 20 usable, 2 runs; 1 serious, 2 warning, 3 note

[serious] cost-drift: C/(N D) is not constant in N: 6 at N = 1e4, 1.9 at N = 1e5, a spread of 3.16 \
times, as N^-0.500.
  where: 2 sizes; C/(N D) by size: 6, 1.9
  bias: If the true cost of a parameter and sample is the same for every size, small models are \
charged too much: the exponents of N_opt and of D_opt are both too high.
  do: Recount the FLOP of one step by hand for the smallest and the largest size. A convolution \
costs its weights times its output positions; a wrong resolution, a missing backward pass or an \
attention term left out shows up like this. If the count is right, D_opt follows from the FLOP a \
sample of each size, never from 6 N D.

[warning] one-seed: No size was trained twice: the noise between runs cannot be measured.
  where: 2 sizes
  bias: Intervals rest on the residuals of the fit alone and are too narrow where the law is wrong.
  do: Repeat at least the runs near the optimum with another seed.

[warning] few-runs: All 20 rows come from 2 runs.
  bias: Checkpoints of one run are not independent: rows resampled one by one give intervals that \
are far too narrow.
  do: Train more runs: no interval sees the spread between fewer than three.

[note] no-budgets: No budget is logged: isoFLOP profiles can be neither fitted nor checked.
  do: Log the budget that each checkpoint stands for; the parametric fit needs none.

[note] repetition-unknown: Neither unique_samples nor epochs is logged: repeated data cannot be \
seen.
  do: Log unique_samples; the forecast can then say when data run out.

[note] no-loss-error: No standard error of the loss is logged.
  bias: Evaluation noise is taken for noise between runs.
  do: Log loss_se: the spread of the mean loss over held-out episodes."""


def test_what_is_said_of_every_group_is_said_once():
    one = pd.DataFrame({"params": [1e5, 2e5], "samples": 1e6, "loss": [3.0, 2.8]})
    of_tasks = [one.assign(task=task) for task in ("a", "b", "c")]
    runs = load_runs(pd.concat(of_tasks, ignore_index=True), cost_constant=6)
    found = audit(runs)
    once = [each.what for each in found.findings if each.code == "no-loss-error"]
    assert once == ["each of 3: No standard error of the loss is logged."]
    runs.loc[runs.task == "c", "loss_se"] = 0.1
    some = [each.what for each in audit(runs).findings if each.code == "no-loss-error"]
    assert some == ["a; b: No standard error of the loss is logged."]


def test_rows_without_a_result_are_counted_apart():
    rows = pd.DataFrame({"params": 1e5, "samples": [1e6, 2e6, 3e6], "loss": [3.0, np.nan, 2.0]})
    found = audit(load_runs(rows.assign(run_id="a"), cost_constant=6))
    assert (found.rows, found.usable) == (3, 2)
    left = next(each for each in found.findings if each.code == "left-out")
    assert left.what == "1 of 3 rows are not fitted."
    assert left.where == "1 without a loss or a mean return"
