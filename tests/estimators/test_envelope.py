import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface

LAW = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
DENSE = np.geomspace(1e14, 1e18, 33)


def test_dense_curves_recover_the_frontier():
    runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 33), DENSE)
    fit = sa.fit_envelope(runs)
    # Sizes lie a factor of 1.33 apart: the staircase averages out along the frontier.
    np.testing.assert_allclose(fit.laws.params_exponent, LAW.params_exponent, atol=2e-3)
    np.testing.assert_allclose(fit.params_opt(1e17), LAW.params_opt(1e17), rtol=0.01)
    np.testing.assert_allclose(fit.value_opt(1e18), LAW.value_opt(1e18), rtol=1e-3)
    sizes = len(np.unique(fit.params[np.isfinite(fit.params)]))
    assert any(f"{sizes} sizes make up the envelope" in message for message in fit.messages)


def test_curves_are_straight_in_logs_between_checkpoints():
    # Power laws of increasing slope: two checkpoints say all, and every size is best somewhere.
    n, slopes = np.geomspace(1e4, 1e7, 9), np.linspace(0.05, 0.45, 9)
    level = 14 * slopes**2
    ends = np.array([1e14, 1e18])
    rows = [
        {"run_id": f"{i}", "params": n[i], "flops": c, "samples": c / (6 * n[i])}
        | {"loss": np.exp(level[i] - slopes[i] * np.log(c / 1e13))}
        for i in range(9)
        for c in ends
    ]
    fit = sa.fit_envelope(sa.load_runs(pd.DataFrame(rows)))
    lines = np.exp(level - slopes * np.log(fit.flops / 1e13)[:, None])
    best = lines.argmin(axis=1)
    inner = (best > 0) & (best < 8)
    assert inner.sum() > 10
    # Along log N these lines are a parabola of lowest value exp(-x^2 / 56), x = log(C / 1e13).
    lowest = np.exp(-(np.log(fit.flops / 1e13) ** 2) / 56)
    np.testing.assert_allclose(fit.values[inner], lowest[inner], rtol=1e-9)
    np.testing.assert_allclose(fit.params[inner], n[best[inner]], rtol=1e-9)
    assert np.isnan(fit.params[~inner]).all()


def test_the_best_of_noisy_curves_is_hardly_too_good():
    """The lowest of 17 curves whose runs differ by 3 % is 2 % too low."""
    errors, lowest = [], []
    for seed in range(12):
        runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 17), DENSE, run_noise=0.03, rng=seed)
        fit = sa.fit_envelope(runs)
        errors.append(np.nanmean(np.log(fit.values / LAW.value_opt(fit.flops))))
        best = runs.groupby("flops")["loss"].min()
        lowest.append(np.log(best / LAW.value_opt(best.index)).mean())
    assert np.mean(lowest) < -0.02
    assert abs(np.mean(errors)) < 0.5 * abs(np.mean(lowest))


def test_the_upper_envelope_of_returns():
    runs = sa.simulate_runs(
        LAW, np.geomspace(1e5, 1e9, 25), DENSE, link=lambda loss: 1000 / loss, episodes=10**9
    )
    of_return, of_loss = sa.fit_envelope(runs, "mean_return"), sa.fit_envelope(runs)
    np.testing.assert_allclose(of_return.params_opt(1e17), of_loss.params_opt(1e17), rtol=0.02)
    np.testing.assert_allclose(of_return.value_opt(1e17), 1000 / LAW.value_opt(1e17), rtol=5e-3)


def test_a_run_that_is_left_out_leaves_the_envelope():
    runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 25), DENSE)
    fit = sa.fit_envelope(runs)
    best = fit.params[np.isfinite(fit.params)][5]
    weights = np.ones((2, len(fit.rows)))
    weights[1, np.isclose(fit.rows["params"], best)] = 0.0
    found = fit.refit(weights=weights)
    assert np.isclose(found.params[0], best).any()
    assert not np.isclose(found.params[1], best).any()


def test_replicates_with_too_few_sizes_are_invalid():
    runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 25), DENSE)
    fit = sa.fit_envelope(runs)
    few = np.isin(fit.rows["params"], np.unique(fit.rows["params"])[8:12])
    found = fit.refit(weights=np.stack([np.ones(len(few)), few.astype(float)]))
    assert found.valid().tolist() == [True, False]


def test_runs_without_a_curve_are_refused():
    runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 9), DENSE[::8], snapshots=False)
    with pytest.raises(sa.FitError, match=r"0 sizes have a learning curve.*fit_isoflop"):
        sa.fit_envelope(runs)


def test_runs_of_one_size_are_averaged():
    runs = sa.simulate_runs(LAW, np.geomspace(1e5, 1e9, 25), DENSE)
    up, down = runs.assign(loss=runs["loss"] * 1.02), runs.assign(loss=runs["loss"] / 1.02)
    both = pd.concat(
        [up.assign(run_id="a" + up["run_id"]), down.assign(run_id="b" + down["run_id"])]
    )
    one, two = sa.fit_envelope(runs), sa.fit_envelope(both)
    np.testing.assert_allclose(two.params_opt(1e17), one.params_opt(1e17), rtol=1e-6)
    np.testing.assert_allclose(two.value_opt(1e17), one.value_opt(1e17), rtol=1e-3)
