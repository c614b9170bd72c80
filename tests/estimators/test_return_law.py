"""Return-optimal isoFLOP and its law between a floor and a ceiling."""

import json
from functools import partial

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.bootstrapping import fit_from_dict
from scaling_analysis.uncertainty.episodes import resample_episodes, summarise_episodes

BUDGETS = np.geomspace(1e14, 1e17, 8)
FLOOR, CEILING = -20.0, 900.0


def best(flops):
    """R_opt(C): odds between floor and ceiling are a power law."""
    odds = (np.asarray(flops) / 2e16) ** 0.5
    return FLOOR + (CEILING - FLOOR) * odds / (1 + odds)


def simulate(noise=0.0, rng=0, sizes=13):
    """Runs of all sizes at all budgets, the odds of the return quadratic in log N."""
    c, n = (a.ravel() for a in np.meshgrid(BUDGETS, np.geomspace(1e5, 1e8, sizes)))
    odds = (c / 2e16) ** 0.5 * np.exp(-0.05 * np.log(n / (0.05 * c**0.45)) ** 2)
    returns = FLOOR + (CEILING - FLOOR) * odds / (1 + odds)
    returns = returns + noise * np.random.default_rng(rng).standard_normal(len(c))
    return pd.DataFrame(
        {
            "run_id": [f"r{i}" for i in range(len(c))],
            "params": n,
            "samples": c / (6 * n),
            "flops": c,
            "budget": c,
            "mean_return": returns,
            "protocol": "test.1",
            "status": "ok",
        }
    )


def play(runs, episodes=60, rng=0):
    """Heavy-tailed episodes whose mean is exactly the row's return."""
    draws = np.random.default_rng(rng)
    parts = []
    for row in runs.itertuples():
        deviation = draws.gamma(0.6, 40.0, episodes)
        returns = row.mean_return + deviation - deviation.mean()
        parts.append(
            pd.DataFrame(
                {
                    "run_id": row.run_id,
                    "samples": row.samples,
                    "episode": np.arange(episodes),
                    "return": returns,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


ODDS = {"metric": "odds", "floor": FLOOR, "ceiling": CEILING, "law": "power"}
FAR = np.array([1e18, 1e20])


@pytest.fixture(scope="module")
def noisy():
    return simulate(noise=3.0)


def test_exact_recovery_in_the_metric_and_back_in_points():
    fit = sa.fit_return_law(simulate(), **ODDS)
    np.testing.assert_allclose(fit.value_opt(FAR), best(FAR), rtol=1e-6)
    np.testing.assert_allclose(fit.params_opt(FAR), 0.05 * FAR**0.45, rtol=1e-6)
    np.testing.assert_allclose(fit.points["mean_return"], best(fit.points["flops"]), rtol=1e-9)
    table = fit.predict(FAR)
    np.testing.assert_allclose(table["mean_return"], best(FAR), rtol=1e-6)
    np.testing.assert_allclose(6 * table["params_opt"] * table["samples_opt"], FAR, rtol=1e-6)
    assert isinstance(fit, sa.FrontierFit)


def test_negative_returns_are_no_obstacle():
    """The shift that makes profiles positive does not move their optima."""
    runs = simulate()
    assert (runs["mean_return"] < 0).any()
    fit = sa.fit_return_law(runs, law="sigmoid")
    assert fit.shift > 0
    # Profiles are parabolas of the odds, not of the return: their vertices are off by a little.
    np.testing.assert_allclose(fit.profiles.laws.params_exponent, 0.45, atol=0.05)
    lifted = runs.assign(mean_return=runs["mean_return"] + 1e4)
    above = sa.fit_return_law(lifted, law="sigmoid", window=5)
    assert above.shift == 0
    low, high = fit.points, above.points
    both = np.intersect1d(low["flops"], high["flops"])
    assert len(both) >= 6
    at, up = (t.set_index("flops")["mean_return"].loc[both] for t in (low, high))
    np.testing.assert_allclose(up - 1e4, at, rtol=0.02, atol=2.0)


def test_floor_and_ceiling_bound_the_forecast(noisy):
    fit = sa.fit_return_law(noisy, floor=-21, ceiling=CEILING)
    far = fit.predict([1e19, 1e22, 1e26])
    names = [name for name in far if name.startswith("mean_return")]
    assert (far[names].to_numpy() <= CEILING + 1e-9).all()
    assert (far[names].to_numpy() >= -21 - 1e-9).all()


def test_ends_as_parameters():
    fit = sa.fit_return_law(simulate(sizes=60), law="sigmoid", window=9)
    # The returns end at two thirds of the way, and parabolas of the return read them off a little.
    assert fit.curve.parameters["end"] == pytest.approx(CEILING, rel=0.15)
    assert fit.curve.parameters["start"] == pytest.approx(FLOOR, abs=30)


def test_refit_is_the_fit(noisy):
    fit = sa.fit_return_law(noisy, floor=-30, ceiling=CEILING, law="power", metric="odds")
    n = len(fit.rows)
    for same in (
        fit.refit(weights=np.ones((3, n))),
        fit.refit(response=np.tile(fit.rows["mean_return"], (3, 1))),
    ):
        np.testing.assert_allclose(same.value_opt(FAR), np.tile(fit.value_opt(FAR), (3, 1)))
        np.testing.assert_allclose(same.params_opt(FAR), np.tile(fit.params_opt(FAR), (3, 1)))
        assert same.valid().all()
    off = fit.value(3 * fit.params_opt(FAR), FAR)
    assert (off < fit.value_opt(FAR)).all()
    np.testing.assert_allclose(fit.value(fit.params_opt(FAR), FAR), fit.value_opt(FAR), rtol=1e-9)


def test_it_goes_through_the_bootstrap(noisy):
    estimator = partial(sa.fit_return_law, floor=-30, ceiling=CEILING, law="power", metric="odds")
    boot = sa.bootstrap(noisy, estimator, n_resamples=60, scheme="wild")
    lo, hi = boot.interval("value_opt", 1e18)
    assert lo < best(1e18) < hi


def test_the_average_of_forms_is_not_refitted(noisy):
    fit = sa.fit_return_law(noisy)
    with pytest.raises(FitError, match="law='auto' averages forms and cannot be refitted"):
        fit.refit(weights=np.ones((2, len(fit.rows))))


def test_intervals_of_the_points_come_from_the_episodes(noisy):
    episodes = play(noisy)
    one = sa.fit_return_law(noisy, episodes, law="sigmoid", n_resamples=300)
    se = noisy.assign(
        return_se=[e.std() / np.sqrt(len(e)) for _, e in episodes.groupby("run_id")["return"]]
    )
    assert (one.points["lo"] < one.points["mean_return"]).all()
    assert (one.points["mean_return"] < one.points["hi"]).all()
    by_se = sa.fit_return_law(se, law="sigmoid", n_resamples=300)
    ratio = one.points["se"].median() / by_se.points["se"].median()
    assert ratio == pytest.approx(1.0, abs=0.3)
    without = sa.fit_return_law(noisy, law="sigmoid")
    assert without.points["se"].isna().all()


def test_median_and_interquartile_mean_are_their_own_quantities(noisy):
    episodes = play(noisy)
    mean, median, iqm = (
        sa.fit_return_law(noisy, episodes, statistic=s, law="sigmoid", n_resamples=100)
        for s in ("mean", "median", "iqm")
    )
    # Skewed to the right: median below interquartile mean below mean.
    for low, high in ((median, iqm), (iqm, mean)):
        gap = np.interp(low.points["flops"], high.points["flops"], high.points["mean_return"])
        assert (low.points["mean_return"] < gap).mean() > 0.8
    assert median.method.endswith("-median")
    assert median.points["se"].gt(0).all()
    with pytest.raises(FitError, match="statistic='median' needs episodes="):
        sa.fit_return_law(noisy, statistic="median")


def test_the_highest_of_noisy_returns_is_too_high():
    gaps, optimism = [], []
    for seed in range(3):
        runs = simulate(noise=25.0, rng=seed, sizes=40).assign(return_se=25.0)
        fit = sa.fit_return_law(runs, optimum="grid", law="sigmoid", n_resamples=100)
        gaps += list(fit.points["highest"] - best(fit.points["flops"]))
        optimism += list(fit.points["optimism"])
        assert fit.status == FitStatus.DOUBTFUL
        assert "the highest of noisy returns is too high" in fit.messages[-1]
    assert np.mean(gaps) > 10
    # Resampled around noisy returns, the optimism is a part of the bias.
    assert 5 < np.mean(optimism) < 2 * np.mean(gaps)


@pytest.mark.parametrize("statistic", ["mean", "median", "iqm"])
@pytest.mark.parametrize("count", [25, 24])
def test_resampled_episodes_against_a_plain_loop(statistic, count):
    rng = np.random.default_rng(0)
    returns = rng.gamma(0.7, 100.0, count)
    of = {"mean": np.mean, "median": np.median}.get(statistic)
    of = of or (lambda x: summarise_episodes([x], "iqm")[0])
    loop = [of(rng.choice(returns, count)) for _ in range(6000)]
    fast = resample_episodes(rng, 6000, [returns, returns + 5], statistic)
    assert fast.shape == (6000, 2)
    assert fast[:, 0].mean() == pytest.approx(np.mean(loop), rel=0.03)
    assert fast[:, 0].std() == pytest.approx(np.std(loop), rel=0.06)
    assert fast[:, 1].mean() == pytest.approx(fast[:, 0].mean() + 5, rel=0.03)


def test_round_trip(noisy):
    fit = sa.fit_return_law(noisy, play(noisy), **ODDS | {"floor": -30}, n_resamples=50)
    for one in (fit, fit.refit(weights=np.ones((2, len(fit.rows))))):
        back = fit_from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        np.testing.assert_allclose(back.value_opt(FAR), one.value_opt(FAR), rtol=1e-6)
        assert back.method == one.method == "return-law-power-vertex-log-5-odds"
    assert back.messages == fit.messages
    own = sa.fit_return_law(noisy, law="log_line", metric=(np.cbrt, lambda m: m**3))
    with pytest.raises(FitError, match="a metric given as functions cannot be stored"):
        own.to_dict()


def test_same_seed_same_points(noisy):
    episodes = play(noisy)
    a, b, c = (
        sa.fit_return_law(noisy, episodes, law="sigmoid", n_resamples=50, rng=seed).points
        for seed in (1, 1, 2)
    )
    pd.testing.assert_frame_equal(a, b)
    assert not a["se"].equals(c["se"])


def bad_episode(episodes):
    return episodes.assign(**{"return": episodes["return"].where(episodes["episode"] != 3)})


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        (None, {"ceiling": 500.0}, r"returns \d+.* at or above ceiling=500: give a ceiling"),
        (None, {"floor": 5.0, "ceiling": 1.0}, "ceiling=1 is not above floor=5"),
        (None, {"metric": "above"}, "metric='above' needs floor="),
        (None, {"metric": "odds", "ceiling": 1e4}, "metric 'odds', m = .*has no finite value"),
        (None, {"law": "spline"}, "form='spline' is unknown"),
        (None, {"statistic": "mode"}, "statistic is 'mode'"),
        (None, {"level": 90}, "level is 90"),
        (None, {"n_resamples": 1}, "at least two are needed"),
        (lambda r: r.assign(mean_return=5.0), {}, "all 104 returns are 5: there is no law"),
        (lambda r: r[r["run_id"] == "r0"], {}, "all 1 returns|budgets have an optimum"),
        (lambda r: r[r["budget"].between(1.5e15, 2e16)], {}, "3 points: an extrapolation needs"),
        (lambda r: r.drop(columns="budget"), {}, "needs the column 'budget'"),
    ],
)
def test_refusals(noisy, change, options, message):
    runs = noisy if change is None else change(noisy)
    with pytest.raises(FitError, match=message):
        sa.fit_return_law(runs, **options)


def test_bad_episodes_are_refused_and_disagreement_is_said(noisy):
    episodes = play(noisy)
    with pytest.raises(FitError, match="104 episodes have no return, the first of run 'r0'"):
        sa.fit_return_law(noisy, bad_episode(episodes))
    with pytest.raises(FitError, match=r"run 'r5' at .* samples has 0 episodes in the table"):
        sa.fit_return_law(noisy, episodes[episodes["run_id"] != "r5"])
    with pytest.raises(FitError, match="no column 'return'"):
        sa.fit_return_law(noisy, episodes.drop(columns="return"))
    other = episodes.assign(**{"return": 2 * episodes["return"]})
    fit = sa.fit_return_law(noisy, other, law="sigmoid", n_resamples=20)
    assert "the episodes' mean is not the mean_return of the log" in fit.messages[0]


def test_rows_at_the_floor_are_named(noisy):
    floor = float(noisy["mean_return"].sort_values().iloc[2])
    fit = sa.fit_return_law(noisy, floor=floor, law="sigmoid")
    assert f"3 of 104 rows return no more than the floor of {floor:g}" in fit.messages


def test_nethack_episodes_have_the_standard_error_of_the_mean(reference_data):
    """157,200 episodes: the bootstrap's spread against the textbook's, row by row."""
    episodes = sa.load_episodes(reference_data / "nethack_il" / "episodes.parquet")
    groups = episodes.groupby(["run_id", "samples", "budget"])["return"]
    returns = [own.to_numpy(float) for _, own in groups]
    assert sum(map(len, returns)) == 157_200
    draws = resample_episodes(np.random.default_rng(0), 1000, returns, "mean")
    expected = np.array([own.std(ddof=1) / np.sqrt(len(own)) for own in returns])
    np.testing.assert_allclose(draws.std(axis=0), expected, rtol=0.1)
    assert np.mean(draws.std(axis=0) / expected) == pytest.approx(1.0, abs=0.01)


def test_nethack_forecast_of_the_return(reference_data):
    """Fitted up to 1e17 FLOP, the law forecasts the best returns of 2e17 to 5e18."""
    runs = sa.load_runs(reference_data / "nethack_il" / "runs.csv")
    past = runs[runs["budget"] <= 1e17]
    fit = sa.fit_return_law(past)
    later = sa.fit_isoflop(runs[runs["budget"] > 1e17], "mean_return", optimum="grid").slices.value
    table = fit.predict([2e17, 5e17, 1e18, 2e18, 3e18, 4e18, 5e18])
    error = np.log(table["mean_return"].to_numpy() / later)
    last = np.log(fit.points["mean_return"].iloc[-1] / later)
    assert np.sqrt(np.mean(error**2)) < 0.15 < np.sqrt(np.mean(last**2))
    inside = (table["mean_return_run_lo"] < later) & (later < table["mean_return_run_hi"])
    assert inside.mean() >= 0.8
