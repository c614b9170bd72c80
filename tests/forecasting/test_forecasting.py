"""The forecast as a whole: its table, its intervals, its document, what it refuses."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import FitError, FitStatus, ForecastError
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.forecasting.ensemble import Prediction, value_columns
from scaling_analysis.forecasting.forecasting import TABLE_COLUMNS, forecast
from scaling_analysis.forecasting.members import BASELINES, refusals
from scaling_analysis.forecasting.observation import Noise
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.runlog import content_hash

QUICK = {"n_resamples": 60, "hindcast_resamples": 20, "time_utc": "2026-01-01T00:00:00+00:00"}
ONE = {"surface": fit_parametric}


def combined(made):
    return made.table[made.table["method"] == "combined"].set_index("flops")


def test_table_has_a_row_a_budget_and_method(made):
    assert list(made.table.columns) == list(TABLE_COLUMNS)
    methods = ["combined", "isoflop-vertex", "parametric-additive", "parametric-tied"]
    methods += ["persistence", "log-line"]
    for _, at in made.table.groupby("flops"):
        assert at["method"].tolist() == methods
    np.testing.assert_allclose(combined(made)["extrapolation"], [1e13 / 3e12, 2e13 / 3e12])


def test_truth_lies_in_the_intervals_and_they_are_useful(made, law, link):
    table = combined(made)
    flops = table.index.to_numpy()
    truth = {
        "params_opt": law.params_opt(flops),
        "samples_opt": flops / (6 * law.params_opt(flops)),
        "loss": law.value_opt(flops),
        "mean_return": link(law.value_opt(flops)),
    }
    for name, value in truth.items():
        assert ((table[f"{name}_lo"] < value) & (value < table[f"{name}_hi"])).all(), name
    half_width = np.log(table["loss_hi"] / table["loss_lo"]) / 2
    assert (half_width < 0.10).all()
    assert half_width.is_monotonic_increasing
    assert (np.log(table["params_opt"] / truth["params_opt"]).abs() < 0.15).all()


def test_runs_spread_more_than_their_expectation(made):
    table = combined(made)
    for value in ("loss", "mean_return"):
        assert (table[f"{value}_run_lo"] < table[f"{value}_lo"]).all()
        assert (table[f"{value}_run_hi"] > table[f"{value}_hi"]).all()


def test_near_optimal_sizes_lose_what_was_tolerated(made, law):
    table = combined(made)
    for flops, row in table.iterrows():
        assert row["params_near_lo"] < row["params_opt"] < row["params_near_hi"]
        ends = made.misallocation(flops, [row["params_near_lo"], row["params_near_hi"]])
        np.testing.assert_allclose(ends["excess"], 0.01, rtol=0.05)
        true = law.value([row["params_near_lo"], row["params_near_hi"]], flops)
        assert (true / law.value_opt(flops) < 1.03).all()


def test_average_weighs_by_the_hindcast(made):
    weights = made.weights()
    sums = weights.groupby(["flops", "quantity"])["weight"].sum()
    np.testing.assert_allclose(sums, 1.0)
    assert not weights["method"].isin(["persistence", "log-line"]).any()
    table = made.table[made.table["flops"] == 1e13].set_index("method")
    own = weights[(weights["flops"] == 1e13) & (weights["quantity"] == "loss_opt")]
    average = np.exp((own["weight"] * np.log(table.loc[own["method"], "loss"].to_numpy())).sum())
    assert table.loc["combined", "loss"] == pytest.approx(average)


def test_prediction_of_runs(made, law):
    runs = made.predict_run([3e4, 7e4, 3e5], 1e13)
    truth = law.value(runs["params"], 1e13)
    assert ((runs["loss_run_lo"] < truth) & (truth < runs["loss_run_hi"])).all()
    assert runs["loss"].idxmin() == 1
    wide = made.predict_run([7e4], 1e13, level=0.99)
    mean = made.predict_run([7e4], 1e13, runs=9)
    assert wide["loss_run_hi"][0] > runs["loss_run_hi"][1]
    assert runs["loss_hi"][1] < mean["loss_run_hi"][0] < runs["loss_run_hi"][1]
    baseline = made.predict_run([7e4], 1e13, method="persistence")
    assert baseline["loss"][0] > runs["loss"][1]
    with pytest.raises(ForecastError, match="method 'magic' does not forecast"):
        made.ensemble.predict("loss", 1e13, 7e4, method="magic")


def test_within_the_log_a_forecast_is_narrow_but_not_certain(made, law):
    inside = made.predict_run(law.params_opt(1e12), 1e12)
    assert 0 < np.log(inside["loss_hi"][0] / inside["loss_lo"][0]) / 2 < 0.04


def test_same_runs_seed_and_time_give_the_same_bytes(ladder, make_forecast, tmp_path):
    options = {"methods": ONE, **QUICK}
    runs = ladder[ladder["budget"] >= 1e11].drop(columns=["mean_return", "return_se"])
    paths = [tmp_path / name for name in ("a.json", "b.json")]
    for path, log in zip(paths, (runs, runs.sample(frac=1, random_state=0)), strict=True):
        make_forecast(log, [1e13], **options).save(path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    first = Forecast.load(paths[0])
    assert make_forecast(runs, [1e13], **options, rng=1).hash != first.hash


def test_returns_directly_and_through_the_link_side_by_side(made):
    routes = made.return_routes()
    for c, at in routes.groupby("flops"):
        by_route = at.set_index("route")["mean_return"]
        both = sorted([by_route["direct"], by_route["link"]])
        assert both[0] <= by_route["combined"] <= both[1]
        assert at.loc[at["route"].isin(["direct", "link"]), "weight"].sum() == pytest.approx(1.0)
        assert set(at.loc[at["route"] == "baseline", "method"]) == {"persistence", "log-line"}
        table = combined(made).loc[c]
        row = at[at["route"] == "combined"].iloc[0]
        for name in ("mean_return", "mean_return_lo", "mean_return_run_hi"):
            assert row[name] == pytest.approx(table[name])
    assert (routes["mean_return_lo"] < routes["mean_return"]).all()
    assert "mean_return through the link" in made.summary()
    wide, narrow = made.return_routes(0.95), made.return_routes(0.5)
    assert (wide["mean_return_hi"] > narrow["mean_return_hi"]).all()


def test_document_round_trip(made, tmp_path):
    path = made.save(tmp_path / "forecast.json")
    again = Forecast.load(path)
    assert again.to_dict() == made.to_dict()
    assert again.summary() == made.summary()
    pd.testing.assert_frame_equal(
        again.predict_run([5e4, 9e4], 3e13), made.predict_run([5e4, 9e4], 3e13)
    )
    assert path.stat().st_size < 3e6


def test_document_knows_what_it_was_fitted_on(made, ladder):
    assert len(made.rows) == len(ladder)
    assert made.content_hash == content_hash(ladder)
    assert (made.agent, made.task, made.protocol) == ("simulated", "simulated", "simulated-1")
    assert made.seed == 0
    assert {"python", "numpy", "scaling-analysis"} <= set(made.versions)
    data = made.to_dict()
    assert (data["kind"], data["schema_version"]) == ("forecast", 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"level": 0.5}, "was changed after it was made"),
        ({"kind": "fit"}, "holds a fit, not a Forecast"),
        ({"schema_version": 9}, "schema_version=9"),
    ],
)
def test_a_changed_document_is_refused(made, tmp_path, change, message):
    path = tmp_path / "forecast.json"
    path.write_text(json.dumps(made.to_dict() | change))
    with pytest.raises(ForecastError, match=message):
        Forecast.load(path)


def test_files_that_are_no_forecast(tmp_path):
    with pytest.raises(ForecastError, match="no such file"):
        Forecast.load(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(ForecastError, match="cannot be read as JSON"):
        Forecast.load(tmp_path / "bad.json")


def test_summary_says_status_first_and_every_method(made):
    lines = made.summary().splitlines()
    assert lines[0] == "forecast: ok"
    text = "\n".join(lines)
    assert "C = 1e+13 FLOP, 3.33 times the largest budget" in text
    assert text.count("parametric-tied") == 2
    assert "<pre>" in made._repr_html_()


def test_few_budgets_widen_the_interval_and_say_so(simulate, make_forecast):
    short = simulate(budgets=[1e11, 1e12, 3e12], link=None)
    made = make_forecast(short, [1e13], methods=ONE)
    assert made.status == FitStatus.DOUBTFUL
    assert any("no hindcast" in message for message in made.messages)
    row = combined(made).iloc[0]
    assert row["loss_hi"] / row["loss_lo"] > 1.1
    assert np.isnan(row["mean_return"])


def test_a_log_of_returns_alone(ladder, make_forecast):
    made = make_forecast(ladder.drop(columns="loss"), [1e13], return_methods=["isoflop-grid"])
    row = combined(made).iloc[0]
    assert np.isnan(row["loss"])
    assert row["mean_return_lo"] < row["mean_return"] < row["mean_return_hi"]
    assert made.ensemble.target == "mean_return"


def test_single_runs_take_their_noise_from_the_fit(simulate, make_forecast):
    single = simulate(seeds=1, snapshots=False, link=None)
    made = make_forecast(single, [1e13], methods=ONE)
    assert any("no size was run twice" in message for message in made.messages)
    assert made.ensemble.noise["loss"].sd == pytest.approx(0.0112, rel=0.5)


def test_few_games_take_the_noise_of_a_return_from_the_link(ladder, make_forecast):
    # One seed plays, and of each budget's sizes two: no profile of the return, a link all the same.
    played = ladder.groupby("budget")["params"].transform(lambda n: n.isin(np.unique(n)[2:4]))
    some = ladder.assign(mean_return=ladder["mean_return"].where(played & (ladder["seed"] == 0)))
    made = make_forecast(some, [1e13], methods=ONE)
    assert not made.ensemble.returns.keys() - set(BASELINES)
    noise = made.ensemble.noise["mean_return"]
    assert 0.02 < noise.sd < 0.12  # 5 % a run, and what the loss has of its own
    assert noise.dof > 3
    assert not any("repeat exactly" in message for message in made.messages)


def test_noiseless_runs_still_have_an_interval(simulate, make_forecast, law):
    exact = simulate(link=None, seeds=1, run_noise=0.0, checkpoint_noise=0.0)
    made = make_forecast(exact, [1e13], methods=ONE)
    row = combined(made).iloc[0]
    assert row["loss"] == pytest.approx(law.value_opt(1e13), rel=1e-5)
    assert row["loss_lo"] < row["loss"] < row["loss_hi"]
    assert any("go through every row of loss" in message for message in made.messages)


def test_runs_that_repeat_exactly_are_told_from_runs_without_a_second(simulate, make_forecast):
    quick = {"n_resamples": 20, "hindcast_resamples": 4}
    exact = simulate(link=None, seeds=2, run_noise=0.0, checkpoint_noise=0.0)
    made = make_forecast(exact, [1e13], methods=ONE, **quick)
    assert "runs of loss repeat exactly: intervals of runs hold no noise" in made.messages
    few = simulate(link=None, seeds=1, snapshots=False).iloc[[0, 9, 18, 27, 33]]
    made = make_forecast(few, [1e13], methods=["parametric-tied"], **quick)
    assert any("the noise of a run of loss is not known" in message for message in made.messages)
    assert not any("repeat exactly" in message for message in made.messages)


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        (
            lambda loss: -20 + 10 * np.exp(-loss),
            "runs.assign(mean_return=runs.mean_return - floor)",
        ),
        (lambda loss: 0 * loss, "runs.assign(mean_return=runs.mean_return - floor)"),
        (lambda loss: 100 * loss, "the profile has no maximum"),
    ],
    ids=["negative", "all zero", "falling"],
)
def test_returns_that_no_method_takes_cost_no_forecast_of_the_loss(
    ladder, make_forecast, returns, reason
):
    unusable = ladder.assign(mean_return=returns(ladder["loss"]))
    made = make_forecast(unusable, [1e13], methods=ONE, n_resamples=20, hindcast_resamples=4)
    row = combined(made).iloc[0]
    assert row["loss_lo"] < row["loss"] < row["loss_hi"]
    assert np.isnan(row["mean_return"])
    assert made.messages[0].startswith("mean_return is not forecast")
    assert reason in made.messages[0]
    with pytest.raises(ForecastError, match="nothing forecasts the mean_return"):
        made.flops_for(mean_return=10.0)


def test_what_is_doubtful_of_the_link_is_said(ladder, make_forecast):
    # Agents of a loss above 1.9 score nothing, as most here do.
    played = ladder.assign(mean_return=np.maximum(1.9 - ladder["loss"], 0.0) * 1000)
    made = make_forecast(played, [1e13], methods=ONE, n_resamples=20, hindcast_resamples=4)
    said = [m for m in made.messages if m.startswith("link (mean_return): ")]
    assert "rows return no more than the floor of 0" in said[0]


def test_returns_beyond_every_origin_are_doubtful(ladder, make_forecast):
    late = ladder["budget"] > 1e12
    played = ladder.assign(mean_return=ladder["mean_return"].where(late))
    made = make_forecast(played, [1e13], methods=ONE, n_resamples=20, hindcast_resamples=4)
    assert np.isfinite(combined(made).iloc[0]["mean_return"])
    assert made.status == "doubtful"
    assert any("no origin could forecast the mean_return" in m for m in made.messages)


def test_a_method_that_fails_is_named_and_left_out(ladder, make_forecast):
    def broken(runs):
        raise FitError("this one never fits")

    losses = ladder.drop(columns="mean_return")
    made = make_forecast(losses, [1e13], methods={"broken": broken, **ONE})
    assert "broken (loss) left out: this one never fits" in made.messages
    assert "broken" not in set(made.table["method"])
    with pytest.raises(ForecastError, match="no method could be fitted to loss:\n  broken: this"):
        make_forecast(losses, [1e13], methods={"broken": broken})


def test_where_nothing_fits_each_method_gives_one_short_reason(ladder):
    def refuse(name, why):
        def estimator(runs):
            raise FitError(f"{why}: " + " and ".join([f"{name} at {len(runs)} rows"] * 50))

        return estimator

    methods = {name: refuse(name, "no interior minimum") for name in ("first", "second", "third")}
    with pytest.raises(ForecastError) as caught:
        forecast(ladder.drop(columns="mean_return"), [1e13], methods=methods)
    lines = str(caught.value).splitlines()
    assert lines[0] == "no method could be fitted to loss:"
    assert [line.split(":")[0] for line in lines[1:]] == ["  first", "  second", "  third"]
    assert all("no interior minimum" in line and line.endswith("...") for line in lines[1:])
    assert max(len(line) for line in lines) < 200


def test_methods_that_fail_for_one_reason_share_a_line():
    reasons = {"vertex": "no minimum", "cubic": "no minimum", "tied": "a bound"}
    assert refusals(reasons) == "\n  vertex, cubic: no minimum\n  tied: a bound"


def test_without_an_observed_optimum_the_record_of_the_loss_decides(
    simulate, make_forecast, monkeypatch
):
    """No budgets, no optimum seen: the stiffest form has the least spread of N_opt, not a merit."""
    runs = simulate(1, link=None, snapshots=False).drop(columns="budget")
    ensemble = make_forecast(runs, n_resamples=40, hindcast_resamples=20).ensemble
    assert not ensemble.hindcast.judges("params_opt")
    sizes, optimum, loss = (
        ensemble.weights(name, 1e13) for name in ("params_opt", "loss_opt", "loss")
    )
    assert sizes == pytest.approx(optimum)
    assert sizes == pytest.approx(loss, abs=0.02)
    law = ensemble.widening("loss_opt", "combined")
    assert law == ensemble.widening("loss", "combined")
    assert law.origins > 0
    # Where the law of the value has ended (returns beyond the highest seen), N_opt goes on.
    point = type(ensemble).point

    def ended(self, quantity, flops, params, method):
        found = point(self, quantity, flops, params, method)
        return found if quantity == "params_opt" else tuple(np.full_like(v, np.nan) for v in found)

    monkeypatch.setattr(type(ensemble), "point", ended)
    assert sum(ensemble.weights("params_opt", 1e13).values()) == pytest.approx(1)
    assert np.isfinite(ensemble.predict("params_opt", [1e13]).log).all()


def test_far_budgets_are_said_to_be_unsupported(made, ladder, make_forecast):
    assert not any("farthest hindcast" in message for message in made.messages)
    far = make_forecast(ladder.drop(columns="mean_return"), [1e16], methods=ONE)
    assert any("farther out than the farthest hindcast" in message for message in far.messages)


@pytest.mark.parametrize(
    ("flops", "options", "message"),
    [
        ([0.0], {}, r"flops=\[0.0\]: every budget must be positive"),
        ([np.nan], {}, "must be positive and finite"),
        ([], {}, "must be positive and finite"),
        (["much"], {}, "are not budgets"),
        ([1e13], {"level": 1.0}, "level=1.0 must lie between 0 and 1"),
        ([1e13], {"n_resamples": 1}, "n_resamples=1: a spread needs two"),
        ([1e13], {"hindcast_resamples": 0}, "hindcast_resamples=0: a spread needs two"),
        ([1e13], {"tolerance": 0.0}, "tolerance=0.0 must be a positive share"),
        ([1e13], {"methods": ["magic"]}, "method 'magic' is not known"),
        ([1e13], {"methods": ["persistence"]}, "at least one method beside the baselines"),
    ],
)
def test_bad_questions_are_refused(ladder, flops, options, message):
    with pytest.raises(ForecastError, match=message):
        forecast(ladder, flops, **options)


def test_nethack_forecast_of_the_published_large_run(reference_data):
    """Tuyls et al. 2023 forecast 138M parameters at C = 6 x 137,185,401 x 40,000,028,672.

    Theirs is the power law through the grid optima; an interval that did not hold it would be too
    sure of itself, and one much wider than the sizes that were run would be of no use.
    """
    from scaling_analysis.runlog import load_runs

    runs = load_runs(reference_data / "nethack_il" / "runs.csv")
    runs = runs[runs["budget"] >= 2e16].drop(columns=["mean_return", "return_se"])
    flops = 6 * 137_185_401 * 40_000_028_672
    made = forecast(runs, [flops], ["isoflop-vertex", "parametric-tied"], **QUICK)
    row = combined(made).iloc[0]
    assert row["params_opt_lo"] < 137_185_401 < row["params_opt_hi"] < 1e9
    assert 0.11 < row["loss_lo"] < row["loss"] < row["loss_hi"] < 0.16


@pytest.mark.parametrize("sd", [1e-4, 0.01, 0.05, 0.5])
def test_the_interval_of_a_run_is_never_inside_that_of_its_expectation(made, sd):
    """Well-known noise added to a law known from three origins has more degrees of freedom."""
    law = Prediction(np.zeros(1), np.full(1, 0.1), np.full(1, 3.0))
    noisy = replace(made.ensemble, noise={"loss": Noise(sd=sd, dof=200)})
    ends = {k: v[0] for k, v in value_columns("loss", law, noisy, 0.9).items()}
    assert ends["loss_run_lo"] <= ends["loss_lo"] < ends["loss"] < ends["loss_hi"]
    assert ends["loss_hi"] <= ends["loss_run_hi"]
    assert ends["loss_hi"] <= law.interval(0.9)[1][0]


def test_checkpoints_without_a_return_do_not_hide_the_protocol(simulate):
    runs = simulate(budgets=[1e10, 1e11, 1e12])
    unplayed = runs["seed"] == 0
    runs.loc[unplayed, ["mean_return", "return_se", "episodes"]] = np.nan
    runs.loc[unplayed, "protocol"] = ""
    assert forecast(runs, [1e13], ONE, n_resamples=10).protocol == "simulated-1"


def test_a_plain_table_of_runs_is_enough(simulate):
    runs = simulate(budgets=[1e10, 1e11, 1e12], seeds=1, snapshots=False, link=None)
    plain = runs[["params", "flops", "budget", "loss"]].assign(samples=runs["samples"])
    made = forecast(plain, [1e13], methods=ONE, n_resamples=10)
    assert combined(made).iloc[0]["loss"] > 0
    assert made.rows["run_id"].is_unique


def test_a_forecast_says_where_a_baseline_did_better(simulate, make_forecast):
    # The optimum turns: no surface does, and after a turn the last value seen is as good as any.
    runs = simulate(link=None)
    turn = np.exp(0.3 * np.cos(2 * np.log10(runs["budget"])))
    wave = runs.assign(loss=runs["loss"] * turn)
    made = make_forecast(wave, [1e13], methods=ONE, n_resamples=20, hindcast_resamples=4)
    assert any("in the hindcast of the loss the baseline" in message for message in made.messages)
