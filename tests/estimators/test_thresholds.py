"""Samples until a return is reached, its surface over N, and the horizon law."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.estimators.horizon import HorizonFit
from scaling_analysis.estimators.thresholds import DataToThreshold


def curves(noise=0.0, seeds=4):
    """Return = samples/1e5 points for 1e5 parameters, twice that for 4e5, up to 10."""
    rng = np.random.default_rng(0)
    parts = []
    for params, speed in ((1e5, 1e-5), (4e5, 2e-5)):
        for seed in range(seeds):
            samples = np.arange(1, 11) * 1e5
            returns = np.minimum(speed * samples, 10.0) + noise * rng.standard_normal(10)
            parts.append(
                pd.DataFrame(
                    {
                        "run_id": f"{params:g}-{seed}",
                        "params": params,
                        "samples": samples,
                        "flops": 6 * params * samples,
                        "mean_return": returns,
                        "protocol": "v1",
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def test_crossings_without_noise():
    found = sa.data_to_threshold(curves(), [2.5, 7.5, 12.0], n_resamples=50)
    table = found.table.set_index(["params", "threshold"])["samples"]
    assert table[1e5, 2.5] == pytest.approx(2.5e5)
    assert table[4e5, 2.5] == pytest.approx(1.25e5)
    assert table[1e5, 7.5] == pytest.approx(7.5e5)
    assert np.isnan(table[1e5, 12.0])
    assert found.replicates.shape == (50, 6)
    assert np.isnan(found.replicates[:, 2]).all()
    assert "2 of 6 thresholds are never reached" in found.messages


def test_several_games_or_sizes_are_not_one_curve():
    each = [curves().assign(task=task) for task in ("chess", "go")]
    runs = pd.concat([part.assign(run_id=part["task"] + part["run_id"]) for part in each])
    with pytest.raises(sa.FitError, match=r"params = 100000.0: .* mixes 2 values of task: .*by="):
        sa.data_to_threshold(runs, 2.5)
    apart = sa.data_to_threshold(runs, 2.5, by=["task", "params"], n_resamples=50)
    assert len(apart.table) == 4
    sizes = sa.data_to_threshold(curves().assign(task="go"), 2.5, by="task", n_resamples=50)
    assert sizes.status == "doubtful"
    assert "by=['task', 'params']" in sizes.messages[0]


def test_a_lucky_evaluation_does_not_cross_early():
    runs = curves(seeds=1)
    runs.loc[1, "mean_return"] = 9.0  # at 2e5 samples; the next ones are 3, 4, 5, ...
    found = sa.data_to_threshold(runs[runs["params"] == 1e5], 8.5).table
    assert found["samples"].iloc[0] > 7e5
    assert np.isnan(found["samples_lo"].iloc[0])  # one run: no spread between seeds


def test_intervals_hold_the_truth_and_count_what_never_reaches():
    runs = curves(noise=0.3, seeds=8)
    found = sa.data_to_threshold(runs, [5.0], n_resamples=400).table.set_index("params")
    assert found.loc[1e5, "samples_lo"] < 5e5 < found.loc[1e5, "samples_hi"]
    slow = runs["run_id"].str.endswith(("-0", "-1", "-2", "-3"))
    runs.loc[slow, "mean_return"] = 0.1
    found = sa.data_to_threshold(runs, [5.5], n_resamples=400)
    row = found.table.set_index("params").loc[1e5]
    assert 0 < row["reached"] < 1
    assert np.isinf(row["samples_hi"])
    assert np.isnan(found.replicates[:, 0]).mean() == pytest.approx(1 - row["reached"])


def test_the_seed_is_honoured():
    runs = curves(noise=0.3)
    one, same, other = (sa.data_to_threshold(runs, [5.0], n_resamples=99, rng=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.replicates, same.replicates)
    assert (one.replicates != other.replicates).any()


def test_unequal_evaluations_are_averaged_where_they_are():
    runs = curves(seeds=2)
    found = sa.data_to_threshold(runs.drop(index=[3, 5]), [6.5], n_resamples=60).table
    assert found["samples"].iloc[0] == pytest.approx(6.5e5)


def test_few_seeds_are_doubtful():
    found = sa.data_to_threshold(curves(seeds=2), [5.0], n_resamples=20)
    assert found.status == sa.FitStatus.DOUBTFUL
    assert "2 of 2 groups have fewer than 3 runs" in found.messages[0]


def test_json_round_trip_and_summary():
    found = sa.data_to_threshold(curves(noise=0.3), [5.0, 30.0], n_resamples=40)
    back = DataToThreshold.from_dict(json.loads(json.dumps(found.to_dict(), allow_nan=False)))
    pd.testing.assert_frame_equal(back.table, found.table)
    np.testing.assert_allclose(back.replicates, found.replicates, rtol=1e-6)
    assert found.summary().startswith("data to threshold: ok")
    assert "intervals at 90%, seeds resampled" in found.summary()


@pytest.mark.parametrize(
    ("thresholds", "options", "message"),
    [
        ([np.nan], {}, "give finite returns"),
        ([], {}, "give finite returns"),
        ([1.0], {"by": "width"}, "no column 'width'"),
        ([1.0], {"level": 1.0}, "level is 1.0"),
        ([1.0], {"n_resamples": 0}, "n_resamples is 0"),
    ],
)
def test_bad_questions_are_refused(thresholds, options, message):
    with pytest.raises(sa.FitError, match=message):
        sa.data_to_threshold(curves(), thresholds, **options)


def test_a_group_without_a_curve_is_refused():
    with pytest.raises(sa.FitError, match=r"params = 100000.0 has 1 evaluations"):
        sa.data_to_threshold(curves().query("samples == 1e5"), 1.0)


SIGMA, PARAMS = (v.ravel() for v in np.meshgrid([1.0, 2, 4, 8, 16], np.geomspace(1e5, 1e8, 4)))
NEEDED = 4e5 * (1 + (1.5 / SIGMA) ** 0.9 + (5e5 / PARAMS) ** 0.8)


@pytest.mark.parametrize("space", ["log", "linear"])
def test_the_surface_is_recovered(space):
    fit = sa.fit_data_surface(SIGMA, PARAMS, NEEDED, residual_space=space)
    expected = {"c": 4e5, "a": 1.5, "alpha": 0.9, "b": 5e5, "beta": 0.8}
    for name, value in expected.items():
        assert float(fit.parameters[name]) == pytest.approx(value, rel=1e-5), name
    assert float(fit.value(3.0, 3e6)) == pytest.approx(4e5 * (1 + 0.5**0.9 + (1 / 6) ** 0.8))
    assert fit.residual_space == space


def test_replicates_of_the_surface():
    noise = np.exp(0.02 * np.random.default_rng(0).standard_normal((30, len(NEEDED))))
    fit = sa.fit_data_surface(SIGMA, PARAMS, NEEDED)
    many = fit.refit(NEEDED * noise)
    assert many.sound.all()
    assert 0.005 < many.parameters["beta"].std() < 0.2
    assert many.value(3.0, [1e6, 1e7]).shape == (30, 2)
    one = sa.fit_data_surface(SIGMA, PARAMS, NEEDED * noise[4])
    assert many.parameters["beta"][4] == pytest.approx(float(one.parameters["beta"]), rel=1e-5)
    back = sa.fit_from_dict(json.loads(json.dumps(many.to_dict())))
    np.testing.assert_array_equal(back.value(3.0, 1e6), many.value(3.0, 1e6))


def test_points_that_were_never_reached_stay_out():
    holes = np.where(np.arange(len(NEEDED)) % 6 == 0, np.nan, NEEDED)
    fit = sa.fit_data_surface(SIGMA, PARAMS, holes)
    assert "4 points without a finite D left out" in fit.messages
    assert float(fit.parameters["beta"]) == pytest.approx(0.8, rel=1e-5)


@pytest.mark.parametrize(
    ("sigma", "params", "samples", "message"),
    [
        (np.ones(20), PARAMS, NEEDED, "sigma takes 1 values where D is known"),
        (SIGMA, PARAMS, -NEEDED, r"samples\[0\] is -"),
        (np.where(SIGMA == 1, np.nan, SIGMA), PARAMS, NEEDED, r"sigma\[0\] is nan"),
        (SIGMA[:5], PARAMS, NEEDED, r"sigma has shape \(5,\)"),
        (SIGMA, PARAMS, np.where(np.arange(20) < 16, np.nan, NEEDED), "where D is known"),
    ],
)
def test_bad_surfaces_are_refused(sigma, params, samples, message):
    with pytest.raises(sa.FitError, match=message):
        sa.fit_data_surface(sigma, params, samples)


def test_the_horizon_law_is_recovered():
    h = np.array([1.0, 3, 10, 30, 100])
    fit = sa.fit_horizon(h, 2e6 + 5e4 * h)
    assert float(fit.own) == pytest.approx(2e6)
    assert float(fit.per_step) == pytest.approx(5e4)
    assert float(fit.value(1000.0)) == pytest.approx(5.2e7)
    assert fit.status == sa.FitStatus.OK
    golden = """\
samples against horizon: ok
samples = 2e+06 + 5e+04 h, equal parts at h = 40; 5 horizons, 0.0% about the line"""
    assert fit.summary() == golden
    many = fit.refit(np.exp(0.05 * np.random.default_rng(0).standard_normal((40, 5))) * fit.samples)
    assert many.own.shape == (40,)
    assert abs(np.median(many.own) / 2e6 - 1) < 0.1
    assert many.value([1.0, 2.0]).shape == (40, 2)
    back = HorizonFit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert back.summary() == fit.summary()


def test_parts_are_never_negative():
    h = np.array([1.0, 10, 100])
    falling = sa.fit_horizon(h, [3e6, 2e6, 1e6])
    assert float(falling.per_step) == 0
    assert "do not grow with the horizon" in falling.messages[0]
    steep = sa.fit_horizon(h, [1e4, 2e5, 4e6])
    assert float(steep.own) == 0
    assert steep.status == sa.FitStatus.DOUBTFUL


@pytest.mark.parametrize(
    ("h", "samples", "message"),
    [
        ([1.0, 2.0], [1e6, 2e6], "2 distinct horizons"),
        ([1.0, 2.0, np.nan], [1e6, 2e6, 3e6], r"horizon\[2\] is nan"),
        ([1.0, 2.0, 3.0], [1e6, 0.0, 3e6], r"samples\[1\] = 0"),
        ([1.0, 2.0, 3.0], [1e6, 2e6], r"samples \(2,\)"),
    ],
)
def test_bad_horizons_are_refused(h, samples, message):
    with pytest.raises(sa.FitError, match=message):
        sa.fit_horizon(h, samples)
