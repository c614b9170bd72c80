"""Performance against model size over many games, as a law."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.bootstrapping import fit_from_dict

SIZES = (1e7, 4e7, 2e8, 1e9)


def scores(rng, sizes=SIZES, exponent=0.2, noise=0.1, tasks=20, runs=4):
    """Games of very different scores, all of which rise as N^exponent."""
    level = np.exp(rng.normal(-0.5, 1.0, tasks))
    rows = [
        {
            "task": f"game {t}",
            "run_id": f"{n:g}-{t}-{r}",
            "params": n,
            "score": level[t] * (n / 1e8) ** exponent * np.exp(noise * rng.standard_normal()),
        }
        for n in sizes
        for t in range(tasks)
        for r in range(runs)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize("statistic", ["iqm", "median", "mean"])
def test_the_exponent_of_the_games_is_that_of_their_aggregate(statistic):
    table = scores(np.random.default_rng(0), noise=1e-6)
    fit = sa.fit_aggregate_law(table, statistic=statistic, n_resamples=500)
    assert fit.exponent()[0] == pytest.approx(0.2, abs=1e-5)
    ratio = fit.predict([1e10])["value"][0] / fit.predict([1e8])["value"][0]
    assert ratio == pytest.approx(100**0.2, rel=1e-4)


def test_the_interval_covers():
    inside = width = 0.0
    sets = 60
    for seed in range(sets):
        fit = sa.fit_aggregate_law(scores(np.random.default_rng(seed)), n_resamples=400, rng=seed)
        _, lo, hi = fit.exponent()
        inside += lo < 0.2 < hi
        width += (hi - lo) / sets
    assert inside / sets >= 0.8
    assert width < 0.1


def test_points_are_aggregates():
    table = scores(np.random.default_rng(1))
    fit = sa.fit_aggregate_law(table, n_resamples=2000, rng=5, level=0.95)
    one = sa.aggregate_scores(table[table["params"] == 1e7], "iqm", rng=5, n_resamples=2000)
    row = fit.points.iloc[0]
    assert (row["value"], row["lo"], row["hi"]) == pytest.approx(one.value("iqm"))


def test_a_bend_widens_the_interval():
    table = scores(np.random.default_rng(2), noise=0.02)
    straight = sa.fit_aggregate_law(table, n_resamples=500)
    bent = table.assign(score=table["score"] * np.where(table["params"] == 4e7, 1.4, 1.0))
    found = sa.fit_aggregate_law(bent, n_resamples=500)
    assert found.misfit > 20 * straight.misfit
    assert np.diff(found.exponent()[1:]) > 5 * np.diff(straight.exponent()[1:])


def test_three_sizes_are_doubtful():
    fit = sa.fit_aggregate_law(scores(np.random.default_rng(3), SIZES[:3]), n_resamples=500)
    assert fit.status == FitStatus.DOUBTFUL
    assert "3 values of params hardly show whether a line holds" in fit.summary()


def test_scores_below_zero_take_the_log_line():
    table = scores(np.random.default_rng(4))
    table["score"] = np.log(table["score"])
    with pytest.raises(FitError, match="a power law needs positive ones, form='log_line' does not"):
        sa.fit_aggregate_law(table.assign(score=table["score"] - 9), n_resamples=100)
    fit = sa.fit_aggregate_law(table, "params", "mean", form="log_line", n_resamples=500)
    assert fit.exponent()[0] == pytest.approx(0.2, abs=0.02)


def test_round_trip():
    fit = sa.fit_aggregate_law(scores(np.random.default_rng(5)), n_resamples=500)
    back = fit_from_dict(json.loads(json.dumps(fit.to_dict(), allow_nan=False)))
    assert back.summary() == fit.summary()
    pd.testing.assert_frame_equal(back.predict([1e10]), fit.predict([1e10]))


def test_refusals():
    table = scores(np.random.default_rng(6), tasks=4)
    with pytest.raises(FitError, match="2 values of params: a law with an interval needs three"):
        sa.fit_aggregate_law(table[table["params"] < 1e8])
    missing = table[~((table["params"] == 1e9) & (table["task"] == "game 3"))]
    with pytest.raises(FitError, match=r"at params = 1e\+09 are not those at 1e\+07 \(game 3\)"):
        sa.fit_aggregate_law(missing, n_resamples=100)
    with pytest.raises(FitError, match="'game 0' has 1 run"):
        sa.fit_aggregate_law(table.groupby(["task", "params"], as_index=False).head(1))
    with pytest.raises(FitError, match="statistic is 'mode'"):
        sa.fit_aggregate_law(table, statistic="mode")
    with pytest.raises(FitError, match="no column 'tokens'"):
        sa.fit_aggregate_law(table, "tokens")
    with pytest.raises(FitError, match="form is 'cubic'"):
        sa.fit_aggregate_law(table, form="cubic")
