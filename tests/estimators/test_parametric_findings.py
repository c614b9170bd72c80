"""What a parametric fit leaves out, says and refuses."""

import numpy as np
import pandas as pd
import pytest
from size_grids import SURFACES, additive, grid, make_runs, noisy_runs

from scaling_analysis.errors import FitError, FitStatus, RunLogError
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.runlog import load_runs


def test_filters_choose_rows_and_are_recorded():
    runs = noisy_runs()
    fit = fit_parametric(runs, min_samples=3e8, where="params < 5e8")
    assert (fit.rows.samples >= 3e8).all()
    assert (fit.rows.params < 5e8).all()
    assert "filters: min_samples = 300000000.0, where = params < 5e8" in fit.summary()


def test_a_frame_that_was_not_loaded_is_checked_before_it_is_filtered():
    n, d = grid()
    frame = pd.DataFrame({"params": n, "flops": 6 * n * d, "loss": noisy_runs().loss})
    fit = fit_parametric(load_runs(frame, cost_constant=6), min_samples=3e8)
    assert len(fit.rows) == (d >= 3e8 * (1 - 1e-12)).sum()
    with pytest.raises(RunLogError, match="cost_constant"):
        fit_parametric(frame, min_samples=3e8)


def test_rows_that_are_not_ok_stay_out():
    runs = noisy_runs()
    runs["status"], runs["note"] = "ok", ""
    spoilt = runs.copy()
    spoilt.loc[3, ["status", "loss"]] = ["diverged", 90.0]
    fit = fit_parametric(spoilt)
    assert len(fit.rows) == 35
    expected = fit_parametric(runs.drop(index=3))
    assert float(fit.objective) == pytest.approx(float(expected.objective), rel=1e-9)


def test_a_law_without_a_floor_is_said_to_have_none():
    n, d = grid()
    loss = 400 / n**0.34 + 410 / d**0.28 - 0.2  # falls faster than any sum of powers
    noise = 0.002 * np.random.default_rng(1).normal(size=len(n))
    fit = fit_parametric(make_runs(loss * np.exp(noise), n, d))
    assert fit.status is FitStatus.DOUBTFUL
    assert fit.parameters["E"] == 0
    assert "the floor E went to zero" in fit.messages[0]
    assert fit.summary().splitlines()[1:3] == ["status: doubtful", f"  - {fit.messages[0]}"]


def test_early_rows_under_another_law_are_found():
    truth = SURFACES["Chinchilla"]
    n, d = grid(8, 10)
    loss = additive(truth, n, d) * (1 + (2e8 / d) ** 2 * np.log(n / 1e5) / 5)
    noise = 0.002 * np.random.default_rng(2).normal(size=len(n))
    fit = fit_parametric(make_runs(loss * np.exp(noise), n, d))
    assert any(
        "without the 16 rows of fewer than 4.64e+08 samples the exponent" in m
        and "consider min_samples" in m
        for m in fit.messages
    ), fit.messages


def test_few_sizes_and_repeated_data_are_noted():
    n, d = grid(3, 8)
    loss = additive(SURFACES["Chinchilla"], n, d)
    fit = fit_parametric(make_runs(loss, n, d, unique_samples=d / 3))
    assert "N takes only 3 distinct values" in fit.messages
    assert any("up to 3.0 passes over the data" in m for m in fit.messages)
    assert fit.status is FitStatus.OK


def test_summary_of_a_good_fit():
    fit = fit_parametric(noisy_runs(scale=0.005, df=30))
    lines = fit.summary().splitlines()
    assert lines[0] == "parametric-additive fit of loss: loss = E + A/N^alpha + B/D^beta"
    assert lines[1] == "status: ok"
    assert lines[2] == ("36 rows of 36 runs; N 1e+06 to 1e+09; D 1e+08 to 1e+11; C 6e+14 to 6e+20")
    assert lines[3].startswith("residuals of log loss by Huber's loss, knee 0.001; objective ")
    assert lines[5] == "parameter              value  std. error   (by run)"
    assert [line.split()[0] for line in lines[6:12]] == [*fit.parameters, "params_exponent"]
    assert lines[-1].startswith("at C = 6e+21: N_opt ")
    assert fit.summary() in fit._repr_html_().replace("&#x27;", "'")
    assert fit.to_frame().loc["alpha", "value"] == float(fit.parameters["alpha"])


def test_summary_of_replicates_counts_the_valid_ones():
    many = fit_parametric(noisy_runs()).refit(weights=np.ones((4, 36)))
    assert many.summary() == "parametric-additive fit of loss: 4 replicates, 4 of them valid"


N, D = grid()
LOSS = additive(SURFACES["Chinchilla"], N, D)
RUNS = make_runs(LOSS, N, D)


@pytest.mark.parametrize(
    ("runs", "options", "match"),
    [
        (RUNS, {"form": "cubic"}, "form is 'cubic': choose one of additive, tied"),
        (RUNS, {"residual_space": "sqrt"}, "residual_space is 'sqrt'"),
        (RUNS, {"restarts": "cold"}, "restarts is 'cold'"),
        (RUNS, {"delta": 0.0}, "delta is 0.0: the knee of Huber's loss"),
        (RUNS, {"target": "accuracy"}, "target is 'accuracy'"),
        (RUNS, {"form": "kaplan", "residual_space": "linear"}, "fitted in log space"),
        (RUNS, {"form": "repeated"}, "needs the column unique_samples"),
        (
            make_runs(LOSS, N, D, unique_samples=D),
            {"form": "repeated"},
            "no row has more samples than unique_samples",
        ),
        (RUNS, {"min_samples": 1e15}, "no row is left after"),
        (RUNS, {"where": "width > 3"}, "where='width > 3' is no filter .* 'width' is"),
        (RUNS, {"where": "params >"}, "where='params >' is no filter of these runs"),
        (RUNS[N < 5e6], {}, "params takes 2 distinct values in 12 rows"),
        (RUNS[D < 5e8], {}, "samples takes 2 distinct values in 12 rows"),
        (
            RUNS[::7],
            {"form": "log_quadratic"},
            "6 rows: form='log_quadratic' needs",
        ),
        (make_runs(0 * LOSS + 2, N, D), {}, "loss is 2 in every row"),
        (make_runs(LOSS - 3, N, D), {}, "loss is .* in run 'run.*', which has no logarithm"),
        (
            make_runs(np.exp(-((np.log(N) - 16) ** 2) / 50) / D**0.1, N, D),
            {"form": "log_quadratic"},
            "has no minimum",
        ),
        (make_runs(2 + 0 * N + 400 / D**0.3, N, D), {}, "loss does not change with params"),
    ],
)
def test_what_cannot_be_fitted_is_refused(runs, options, match):
    with pytest.raises(FitError, match=match):
        fit_parametric(runs, **options)
