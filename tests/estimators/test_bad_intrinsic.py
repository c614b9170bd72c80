"""Intrinsic performance: what is refused, left out or flagged."""

import numpy as np
import pytest
from learning_curves import SAMPLES, SIZES, simulated

import scaling_analysis as sa

BAD = {
    "one run": (
        lambda r: r[r["params"] == SIZES[0]],
        r"1 run\(s\) of 1 size\(s\): .* at least 3 sizes",
    ),
    "two sizes": (lambda r: r[r["params"] <= SIZES[1]], r"2 run\(s\) of 2 size\(s\)"),
    "no curves": (
        lambda r: r[r["samples"] == SAMPLES[-1]],
        "0 of 6 sizes have a learning curve of 4 checkpoints",
    ),
    "returns all equal": (lambda r: r.assign(mean_return=5.0), "mean_return is 5 in every row"),
    "swapped axes": (
        lambda r: r.rename(columns={"params": "samples", "samples": "params"}).assign(
            budget=r["flops"]
        ),
        "24 values of params: a run trains one model. Are params and samples swapped?",
    ),
    "falling": (
        lambda r: r.assign(mean_return=-r["mean_return"]),
        "the returns do not rise with model size or samples",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    spoil, message = BAD[name]
    with pytest.raises(sa.FitError, match=message):
        sa.fit_intrinsic(spoil(simulated()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"inner": "spline"}, "inner is 'spline'"),
        ({"beyond": "extrapolate"}, "beyond is 'extrapolate'"),
        ({"drop": 1.5}, "drop is 1.5"),
        ({"smoothing": -1.0}, "smoothing is -1"),
        ({"knots": 3}, "knots is 3"),
        ({"ceiling": 100.0}, "ends of a metric: give natural="),
        (
            {"natural": "odds", "ceiling": 50.0},
            r"ceiling=50 is below a return that was observed: 9\d",
        ),
        ({"natural": "above", "floor": 150.0}, "floor=150 is above every return"),
        ({"natural": "loudness"}, "metric is 'loudness'"),
        ({"environment_params": float("nan")}, "environment_params is nan"),
        ({"size": "params_core"}, "no such column"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(sa.FitError, match=message):
        sa.fit_intrinsic(simulated(), **options)


def test_missing_returns_stay_out_and_all_missing_is_an_error():
    runs = simulated()
    holes = runs.assign(mean_return=runs["mean_return"].where(np.arange(len(runs)) % 7 > 0))
    found = sa.fit_intrinsic(holes, workers=1)
    assert len(found.rows) < len(runs)
    assert float(found.params_exponent) == pytest.approx(0.45, abs=2e-3)
    with pytest.raises(sa.RunLogError, match="finite mean_return"):
        sa.fit_intrinsic(runs.assign(mean_return=np.nan))


def test_unequal_lengths_are_flagged():
    runs = simulated(seeds=2)
    short = (runs["run_id"] == runs["run_id"].iloc[1]) & (runs["samples"] > 1e7)
    found = sa.fit_intrinsic(runs[~short], workers=1)
    assert found.status == sa.FitStatus.DOUBTFUL
    assert "runs of 1 size(s) have unequal lengths: of N = 1e+04" in found.messages[0]


def test_swapped_axes_without_run_ids_are_flagged():
    runs = simulated().drop(columns="run_id")
    swapped = runs.rename(columns={"params": "samples", "samples": "params"})
    found = sa.fit_intrinsic(swapped, drop=0.0, workers=1)
    assert any("are params and samples swapped?" in message for message in found.messages)
