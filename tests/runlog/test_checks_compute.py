"""The audit of compute: what a wrong count does, with the direction of its bias."""

from ast import literal_eval

import numpy as np
import pandas as pd
import pytest
from audited_logs import ALPHA, BETA, found, ladder

from scaling_analysis.runlog import load_runs
from scaling_analysis.runlog.audit import audit


@pytest.mark.parametrize(("drift", "side"), [(-0.2, "high"), (0.2, "low")])
def test_a_drifting_counter_is_found_with_the_direction_of_its_bias(drift, side):
    """Sizes centred on the optimum that a user of the wrong count would find."""
    runs = ladder(noise=0.0, seeds=1, sizes=161, span=9, drift=drift)
    finding = found(runs)["cost-drift"]
    assert finding.severity == "serious"
    assert finding.figures["slope"] == pytest.approx(drift, abs=1e-9)
    truth = BETA / (ALPHA + BETA)
    # What such a count does to the exponent, and what the audit makes of it.
    biased = BETA / (ALPHA + BETA * (1 + drift))
    assert finding.figures["exponent"] == pytest.approx(biased, rel=0.02)
    assert finding.figures["exponent_corrected"] == pytest.approx(truth, rel=0.02)
    assert f"the exponents of N_opt and of D_opt are both too {side}" in finding.bias


def test_a_counter_that_is_only_too_low_keeps_the_exponents():
    runs = ladder()
    runs["flops"] /= 3
    runs["budget"] /= 3
    finding = found(runs)["cost-below-6"]
    assert finding.figures["constant"] == pytest.approx(2, rel=1e-12)
    assert "cost-drift" not in found(runs)


def test_parameters_that_cost_nothing_are_told_from_a_wrong_counter():
    runs = ladder()
    runs["params_core"] = runs.params
    runs["params"] += 2e5
    finding = found(runs)["cost-drift"]
    assert finding.severity == "warning"
    assert "embeddings" in finding.remedy
    columns = literal_eval(finding.remedy.split("columns=")[1].rstrip("."))
    read = load_runs(runs, columns=columns)
    np.testing.assert_array_equal(read["params"], runs["params_core"])
    assert "cost-drift" not in found(read)
    share = found(runs)["embedding-share"]
    assert share.figures["smallest"] < 0.01 < 0.5 < share.figures["largest"]
    assert share.figures["relation"] > 1
    runs["params_core"] = runs.params + 1
    assert found(runs)["core-exceeds-params"].severity == "serious"


def test_assumed_compute_cannot_be_checked():
    runs = load_runs(ladder().drop(columns="flops"), cost_constant=6)
    codes = [finding.code for finding in audit(runs).findings]
    assert "cost-assumed" in codes
    assert "cost-drift" not in codes


def test_rows_that_overshoot_their_budget_are_found():
    runs = ladder()
    large = (runs.budget < 1e13) & (runs.params > runs.params[runs.budget < 1e13].median())
    runs.loc[large, "flops"] *= runs.params[large] / runs.params[large].min()
    runs.loc[large, "samples"] *= runs.params[large] / runs.params[large].min()
    finding = found(runs)["budget-missed"]
    assert finding.severity == "serious"  # beyond ten times: another unit or another run
    assert finding.figures["rows"] == int((runs.flops > 1.05 * runs.budget).sum())
    assert "N_opt is too large at the low budgets, its exponent too low" in finding.bias
    some = load_runs(ladder().assign(flops=lambda log: 1.2 * log.budget))
    finding = next(f for f in audit(some).findings if f.code == "budget-missed")
    assert finding.severity == "warning"
    assert finding.figures["typical"] == pytest.approx(1.2)


def test_samples_beyond_what_compute_pays_for_are_found():
    """One size in several budgets, the first of them overshot by whole batches."""
    samples = np.array([3e5, 2e6, 2e7, 2e8])
    runs = pd.DataFrame(
        {"run_id": "a", "params": 1e5, "samples": samples, "loss": [2.5, 2.2, 2.0, 1.9]}
    )
    runs["flops"] = 6e5 * np.array([1e5, 2e6, 2e7, 2e8])
    finding = found(runs)["cost-uneven"]
    assert finding.figures == {"rows": 1, "worst": pytest.approx(1 / 3)}
    assert "exponent too low" in finding.bias


def test_repetition_is_counted_in_epochs():
    runs = ladder().assign(unique_samples=lambda log: log.samples / 6)
    finding = found(runs)["repetition"]
    assert finding.severity == "warning"
    assert finding.figures == {"rows": 204, "most": pytest.approx(6)}
    assert found(runs.assign(unique_samples=lambda log: log.samples / 3))[
        "repetition"
    ].severity == ("note")
    assert "repetition" in found(ladder().drop(columns="unique_samples").assign(epochs=5.0))
    assert "repetition-unknown" in found(ladder().drop(columns="unique_samples"))
