"""Saturating curves: recovery, the window, refusals."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa

C = np.geomspace(1500, 16000, 40)
"""The window of the published check: A .61, B 1.92, C_mid 2542, R0 .35, noise .005."""


def curve(c):
    return 0.35 + 0.26 / (1 + (2542 / c) ** 1.92)


def noisy(c, seed=0, noise=0.005):
    return curve(c) + noise * np.random.default_rng(seed).standard_normal(len(c))


@pytest.fixture(scope="module")
def fit():
    return sa.fit_saturating(C, noisy(C), start=0.35)


@pytest.mark.parametrize("start", [0.35, None])
def test_it_is_recovered_without_noise(start):
    found = sa.fit_saturating(C, curve(C), start=start)
    assert float(found.asymptote) == pytest.approx(0.61, rel=1e-6)
    assert float(found.steepness) == pytest.approx(1.92, rel=1e-5)
    assert float(found.middle) == pytest.approx(2542, rel=1e-5)
    assert float(found.start) == pytest.approx(0.35, rel=1e-5)
    np.testing.assert_allclose(found.value([100.0, 1e6]), curve(np.array([100.0, 1e6])), rtol=1e-4)


def test_the_published_check():
    """A within .02, B within .2 with R0 known, in every one of ten noisy copies."""
    truth = sa.fit_saturating(C, curve(C), start=0.35)
    responses = np.stack([noisy(C, seed) for seed in range(10)])
    found = truth.refit(response=responses)
    assert found.valid().all()
    assert np.abs(found.asymptote - 0.61).max() < 0.02
    assert np.abs(found.steepness - 1.92).max() < 0.2


def test_replicates_are_fits_of_their_own():
    truth = sa.fit_saturating(C, curve(C), start=0.35)
    responses = np.stack([noisy(C, seed) for seed in range(3)])
    many = truth.refit(response=responses)
    for i, y in enumerate(responses):
        one = sa.fit_saturating(C, y, start=0.35)
        assert float(many.asymptote[i]) == pytest.approx(float(one.asymptote), rel=1e-3)
        assert float(many.steepness[i]) == pytest.approx(float(one.steepness), rel=1e-2)
    weights = np.ones((2, len(C)))
    weights[1, 20:] = 0.0
    few = truth.refit(weights=weights)
    np.testing.assert_allclose(few.asymptote, 0.61, rtol=1e-4)
    assert few.value([2000.0, 3000.0]).shape == (2, 2)
    assert few.fitted_values().shape == (2, len(C))


def test_the_window_is_reported(fit):
    assert float(fit.window_ratio) == pytest.approx(16000 / 2542, rel=0.1)
    low, high = fit.asymptote_range
    assert low < float(fit.asymptote) < high
    assert high - low < 0.02
    assert low - 0.005 < 0.61 < high + 0.005
    assert "times C_mid" in fit.summary()


def test_the_range_of_the_asymptote_ends_where_least_squares_say():
    from scipy.optimize import least_squares
    from scipy.stats import f

    rng = np.random.default_rng(4)
    c = np.geomspace(100, 20000, 30)
    r = 0.35 + 0.26 / (1 + (2542 / c) ** 1.92) + 0.005 * rng.normal(size=30)
    found = sa.fit_saturating(c, r, start=0.35)
    allowed = float(found.squares) * (1 + f.ppf(0.9, 1, 27) / 27)
    for height in found.asymptote_range:  # not at the nodes of a grid, some way inside

        def residuals(theta, height=height):
            return 0.35 + (height - 0.35) / (1 + np.exp(theta[1] * (theta[0] - np.log(c)))) - r

        at = least_squares(residuals, [float(found.log_middle), float(found.steepness)])
        assert 2 * at.cost == pytest.approx(allowed, rel=0.02)


def test_a_window_that_ends_short_of_the_middle_refuses_the_asymptote():
    short = np.geomspace(300, 1800, 30)
    found = sa.fit_saturating(short, noisy(short, 1, 0.002), start=0.35)
    assert found.status == sa.FitStatus.DOUBTFUL
    with pytest.raises(sa.FitError, match=r"short of half the rise|no asymptote is excluded"):
        _ = found.asymptote
    with pytest.raises(sa.FitError, match="Train on, or give ceiling="):
        found.value(1e5)
    assert np.isfinite(found.value(1500.0))
    assert "A = A (refused)" in found.summary()
    assert np.isnan(found.to_frame().loc["A", "value"])


def test_a_straight_line_excludes_no_asymptote():
    y = 0.1 * np.log(C) + 0.002 * np.random.default_rng(0).standard_normal(len(C))
    found = sa.fit_saturating(C, y)
    assert found.status == sa.FitStatus.DOUBTFUL
    assert np.isinf(found.asymptote_range[1]) or float(found.window_ratio) < 1
    with pytest.raises(sa.FitError):
        _ = found.asymptote


def test_the_bootstrap_takes_a_run_log():
    runs = pd.DataFrame(
        {
            "run_id": np.repeat(["a", "b", "c", "d"], 20),
            "params": 1e6,
            "samples": np.tile(np.linspace(1500, 16000, 20), 4),
            "protocol": "v1",
        }
    )
    runs["flops"] = runs["samples"]
    runs["mean_return"] = noisy(runs["flops"].to_numpy())
    found = sa.fit_saturating(runs, start=0.35)
    made = sa.bootstrap(runs, lambda _: found, n_resamples=60)
    lo, hi = made.interval(lambda f: f.asymptote)
    assert lo < 0.61 < hi
    assert hi - lo < 0.03
    two = pd.concat([runs, runs.assign(params=2e6, run_id=runs["run_id"] + "2")])
    with pytest.raises(sa.FitError, match="the run log holds 2 sizes"):
        sa.fit_saturating(two)


def test_json_round_trip(fit):
    for one in (fit, fit.refit(response=np.stack([noisy(C, 5), noisy(C, 6)]))):
        back = sa.fit_from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        np.testing.assert_array_equal(back.value(3000.0), one.value(3000.0))
        assert back.summary() == one.summary()


GOLDEN = """\
saturating curve of mean_return: ok
R = R0 + (A - R0)/(1 + (C_mid/C)^B): R0 = 0.35 (given), A = 0.61, C_mid = 2542 FLOP, B = 1.920
40 points to C = 1.6e+04 FLOP, 6.29 times C_mid; residuals"""


def test_golden_summary():
    text = sa.fit_saturating(C, curve(C), start=0.35).summary()
    assert text.startswith(GOLDEN)
    assert text.splitlines()[-1].startswith("A from 0.61")


@pytest.mark.parametrize(
    ("c", "y", "options", "message"),
    [
        (C, curve(C), {"ceiling": 0.5}, "ceiling=0.5 is below a return that was observed: 0.60"),
        (C, curve(C), {"start": 0.9}, "start=0.9 is above every return"),
        (C, np.full(40, 0.5), {}, "the return is 0.5 at every point"),
        (C, 1 - curve(C), {}, "the returns do not rise with compute"),
        (C[:4], curve(C[:4]), {}, "4 distinct values of C"),
        (C, np.where(C > 1e4, np.nan, curve(C)), {}, r"y\[\d+\] is nan"),
        (-C, curve(C), {}, r"C\[0\] is -1500"),
        (C[:-1], curve(C), {}, r"C has shape \(39,\), y \(40,\)"),
        (C, None, {}, "give a run log, or C and y"),
    ],
)
def test_bad_input_is_refused(c, y, options, message):
    with pytest.raises(sa.FitError, match=message):
        sa.fit_saturating(c, y, **options)


def test_a_ceiling_bounds_the_asymptote():
    short = np.geomspace(300, 1800, 30)
    found = sa.fit_saturating(short, noisy(short, 1, 0.002), start=0.35, ceiling=0.7)
    assert float(found.asymptote_fitted) <= 0.7
    assert found.asymptote_range[1] <= 0.7
