import dataclasses
import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface

LAW = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
BUDGETS = np.geomspace(1e14, 1e18, 9)
SIZES = np.geomspace(2e5, 2e8, 13)
SCHEMES = ("components", "jackknife", "pairs", "dirichlet", "wild", "parametric")


def simulated(**options):
    defaults = {"sizes_per_budget": 7, "run_noise": 0.01, "checkpoint_noise": 0.004, "rng": 1}
    return sa.simulate_runs(LAW, SIZES, BUDGETS, **(defaults | options))


@pytest.fixture(scope="module")
def runs():
    return simulated()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_scheme_gives_intervals_around_the_fit(runs, scheme):
    boot = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=200, scheme=scheme)
    assert boot.scheme == scheme
    assert boot.unit == "run_id"
    assert boot.units == 13
    assert len(boot.valid) == (13 if scheme == "jackknife" else 200)
    c = np.array([1e18, 1e19])
    for quantity in ("params_opt", "samples_opt", "value_opt"):
        lo, hi = boot.interval(quantity, c)
        assert lo.shape == hi.shape == (2,)
        assert (lo > 0).all()
        assert (lo < hi).all()
    lo, hi = boot.interval("params_opt", 1e18)
    assert lo < boot.fit.params_opt(1e18) * 1.2
    assert hi > boot.fit.params_opt(1e18) / 1.2
    wide = boot.interval("params_opt", 1e18, level=0.99)
    assert wide.lo < lo
    assert wide.hi > hi


def test_the_default_is_components(runs):
    auto = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=100)
    assert auto.scheme == "components"
    assert "a row and" in auto.messages[0]
    named = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=100, scheme="components")
    np.testing.assert_array_equal(
        auto.replicates.laws.params_exponent, named.replicates.laws.params_exponent
    )


def test_the_components_are_those_of_the_simulation():
    runs = simulated(seeds=3, run_noise=0.02, checkpoint_noise=0.005)
    fit = sa.fit_isoflop(runs, window=None)
    boot = sa.bootstrap(runs, lambda r: fit, n_resamples=2000)
    noise = np.log(_responses(boot) / fit.fitted_values())
    # t-like scaling with G - 3 degrees of freedom inflates the variance by (G - 3)/(G - 5).
    expected = (0.02**2 + 0.005**2) * (boot.units - 3) / (boot.units - 5)
    assert noise.var() == pytest.approx(expected, rel=0.3)
    assert boot.units == 39


def _responses(boot):
    """Responses are not stored: draw them once more, by the same seed."""
    from scaling_analysis.estimators.schemes import Draws

    groups = pd.factorize(boot.fit.rows["run_id"], sort=True)[0]
    draws = Draws(fit=boot.fit, groups=groups, n_resamples=len(boot.valid), episodes=None)
    return draws.make("components", *np.random.default_rng(0).spawn(2))[1]


def test_same_seed_same_replicates_whatever_the_estimator(runs):
    one, two = (sa.bootstrap(runs, sa.fit_isoflop, n_resamples=50, rng=7) for _ in range(2))
    other = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=50, rng=8)
    exponent = [b.replicates.laws.params_exponent for b in (one, two, other)]
    np.testing.assert_array_equal(exponent[0], exponent[1])
    assert not np.array_equal(exponent[0], exponent[2])
    # Weights do not depend on the estimator: two fits see the same resampled runs.
    pairs = [
        sa.bootstrap(runs, fit, n_resamples=50, scheme="dirichlet", rng=7)
        for fit in (sa.fit_isoflop, sa.fit_parametric)
    ]
    logs = [np.log(b.replicates.value_opt(1e17)) for b in pairs]
    assert np.corrcoef(*logs)[0, 1] > 0.5


def test_a_generator_is_taken_as_it_is(runs):
    rng = np.random.default_rng(3)
    one = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=20, rng=rng)
    two = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=20, rng=rng)
    assert not np.array_equal(
        one.replicates.laws.params_exponent, two.replicates.laws.params_exponent
    )


def test_rows_of_a_run_are_not_drawn_as_independent(runs):
    with pytest.raises(sa.BootstrapError, match="runs have several rows here"):
        sa.bootstrap(runs, sa.fit_isoflop, scheme="rows", n_resamples=20)
    single = simulated(snapshots=False)
    boot = sa.bootstrap(single, sa.fit_isoflop, scheme="rows", n_resamples=200)
    assert boot.unit == "row"
    assert boot.units == len(single)


def test_pairs_are_drawn_within_sizes_that_have_three_runs():
    from scaling_analysis.estimators.schemes import Draws

    runs = simulated(seeds=3, sizes_per_budget=None)
    runs = runs[(runs["seed"] == 0) | (runs["params"] > SIZES[2])]
    fit = sa.fit_isoflop(runs)
    groups = pd.factorize(fit.rows["run_id"], sort=True)[0]
    draws = Draws(fit=fit, groups=groups, n_resamples=300, episodes=None)
    weights, response, messages = draws.make("pairs", *np.random.default_rng(0).spawn(2))
    assert response is None
    size = fit.rows["params"].to_numpy()
    first = np.unique(groups, return_index=True)[1]
    for n in np.unique(size)[3:]:
        of_size = weights[:, first][:, size[first] == n]
        assert (of_size.sum(axis=1) == 3).all()
    few = weights[:, first][:, size[first] <= SIZES[2] * 1.01]
    assert (few.sum(axis=1) == 3).all()
    assert few.min() == 0
    assert "3 runs of sizes with fewer than three runs are drawn together" in messages[0]


def test_pairs_leave_two_lone_runs_as_they_are_but_for_their_evaluation():
    from scaling_analysis.estimators.schemes import Draws

    runs = simulated(seeds=3, sizes_per_budget=None, evaluation_noise=0.003)
    runs = runs[(runs["seed"] == 0) | (runs["params"] > SIZES[1])]
    fit = sa.fit_isoflop(runs)
    groups = pd.factorize(fit.rows["run_id"], sort=True)[0]
    draws = Draws(fit=fit, groups=groups, n_resamples=400, episodes=None)
    weights, response, messages = draws.make("pairs", *np.random.default_rng(0).spawn(2))
    lone = (fit.rows["params"] <= SIZES[1] * 1.01).to_numpy()
    assert (weights[:, lone] == 1).all()
    observed = fit.rows["loss"].to_numpy()
    assert (response[:, ~lone] == observed[~lone]).all()
    spread = response[:, lone].std(axis=0) / fit.rows["loss_se"][lone]
    np.testing.assert_allclose(spread, 1.0, rtol=0.2)
    assert "2 runs stay as they are" in messages[0]


def test_another_unit_may_be_resampled():
    runs = simulated(seeds=4)
    boot = sa.bootstrap(runs, sa.fit_isoflop, unit="seed", scheme="jackknife")
    assert (boot.unit, boot.units) == ("seed", 4)
    with pytest.raises(sa.BootstrapError, match="unit='lab'"):
        sa.bootstrap(runs, sa.fit_isoflop, unit="lab")


def test_few_units_are_refused():
    runs = simulated(seeds=2)
    with pytest.raises(sa.BootstrapError, match=r"2 values of seed.*fewer than three units"):
        sa.bootstrap(runs, sa.fit_isoflop, unit="seed")


def test_evaluation_noise_from_standard_errors():
    runs = simulated(run_noise=0.0, checkpoint_noise=0.0, evaluation_noise=0.004)
    boot = sa.bootstrap(runs, sa.fit_parametric, scheme="parametric", n_resamples=300)
    assert "evaluation noise only" in boot.messages[0]
    lo, hi = boot.interval("value_opt", 1e18)
    both = sa.bootstrap(runs.drop(columns="loss_se"), sa.fit_parametric, scheme="components")
    wide = both.interval("value_opt", 1e18)
    # With no other noise, standard errors and residuals say the same.
    assert np.log(hi / lo) == pytest.approx(np.log(wide.hi / wide.lo), rel=0.5)


def test_evaluation_noise_from_episodes():
    runs = simulated(
        link=lambda loss: 100 / loss**2, episodes=50, run_noise=0.0, checkpoint_noise=0.0
    )
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        [
            {"run_id": r.run_id, "samples": r.samples, "budget": r.budget, "episode": e}
            for r in runs.itertuples()
            for e in range(50)
        ]
    )
    means = runs["mean_return"].to_numpy().repeat(50)
    table["return"] = means * rng.gamma(1.0, 1.0, len(table))

    def exponent(fit):
        return fit.laws.params_exponent

    def fit(log):
        return sa.fit_isoflop(log, "mean_return", window=None)

    options = {"scheme": "parametric", "n_resamples": 400}
    of_episodes = sa.bootstrap(runs, fit, episodes=table, **options).interval(exponent)
    of_errors = sa.bootstrap(runs, fit, **options).interval(exponent)
    widths = [interval.hi - interval.lo for interval in (of_episodes, of_errors)]
    assert widths[0] == pytest.approx(widths[1], rel=0.3)
    with pytest.raises(sa.BootstrapError, match="has no episodes of run"):
        sa.bootstrap(runs, fit, episodes=table[table["run_id"] != runs["run_id"][0]], **options)


def test_a_fit_without_residuals_shows_no_noise():
    runs = simulated(run_noise=0.0, checkpoint_noise=0.0)
    with pytest.raises(sa.BootstrapError, match="sees no noise: the fit passes through every row"):
        sa.bootstrap(runs, sa.fit_parametric)
    with pytest.raises(sa.BootstrapError, match="no standard errors and no residuals"):
        sa.bootstrap(runs, sa.fit_parametric, scheme="parametric")


def test_an_interval_without_width_is_refused(runs):
    # One run a cell: positive weights do not move a grid optimum.
    boot = sa.bootstrap(
        runs, lambda r: sa.fit_isoflop(r, optimum="grid"), scheme="dirichlet", n_resamples=50
    )
    with pytest.raises(sa.BootstrapError, match="every replicate gives the same"):
        boot.interval("params_opt", 1e18)


def test_failures_are_counted_and_refused_past_a_tenth(runs):
    boot = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=100)
    nine, eleven = boot.valid.copy(), boot.valid.copy()
    nine[:9] = False
    eleven[:11] = False
    some = dataclasses.replace(boot, valid=nine)
    assert "9 failed" in some.summary()
    expected = np.quantile(boot.replicates.params_opt(1e18)[9:], [0.05, 0.95])
    np.testing.assert_allclose(some.interval("params_opt", 1e18), expected)
    with pytest.raises(sa.BootstrapError, match="11% of 100 replicates are no valid fit"):
        dataclasses.replace(boot, valid=eleven).interval("params_opt", 1e18)


def test_kinds_of_interval(runs):
    boot = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=200)
    draws, estimate = boot.replicates.params_opt(1e18), boot.fit.params_opt(1e18)
    lo, hi = np.quantile(draws, [0.05, 0.95])
    np.testing.assert_allclose(boot.interval("params_opt", 1e18), (lo, hi))
    logs = np.log(draws)
    low, high = np.exp(2 * np.log(estimate) - np.quantile(logs, [0.95, 0.05]))
    np.testing.assert_allclose(boot.interval("params_opt", 1e18, kind="basic"), (low, high))
    with pytest.raises(sa.BootstrapError, match="kind='t' does not go with scheme='components'"):
        boot.interval("params_opt", 1e18, kind="t")
    jack = sa.bootstrap(runs, sa.fit_isoflop, scheme="jackknife")
    with pytest.raises(sa.BootstrapError, match="does not go with scheme='jackknife'"):
        jack.interval("params_opt", 1e18, kind="percentile")
    with pytest.raises(sa.BootstrapError, match="needs flops="):
        boot.interval("params_opt")


def test_saved_and_asked_again(runs, tmp_path):
    boot = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=120)
    boot.save(tmp_path / "bootstrap.json")
    back = sa.Bootstrap.load(tmp_path / "bootstrap.json")
    assert (back.scheme, back.unit, back.units) == (boot.scheme, boot.unit, boot.units)
    assert back.summary() == boot.summary()
    for level in (0.5, 0.8, 0.95):
        for quantity in ("params_opt", "samples_opt", "value_opt"):
            np.testing.assert_array_equal(
                back.interval(quantity, [1e18, 1e21], level),
                boot.interval(quantity, [1e18, 1e21], level),
            )
    by_name = back.interval(lambda fit: fit.laws.params_exponent, level=0.9)
    assert by_name.lo < by_name.hi


def test_a_file_that_is_no_bootstrap_is_refused(tmp_path):
    path = tmp_path / "other.json"
    path.write_text("{}")
    with pytest.raises(sa.BootstrapError, match=r"other.json: holds something else"):
        sa.Bootstrap.load(path)
    path.write_text(json.dumps({"kind": "Forecast"}))
    with pytest.raises(sa.BootstrapError, match="holds a Forecast, not a Bootstrap"):
        sa.Bootstrap.load(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scheme": "bagging"}, "scheme is 'bagging': choose one of 'auto', 'components'"),
        ({"n_resamples": 1}, "n_resamples is 1"),
    ],
)
def test_what_makes_no_sense_is_refused(runs, options, message):
    with pytest.raises(sa.BootstrapError, match=message):
        sa.bootstrap(runs, sa.fit_isoflop, **options)


def test_summary(runs):
    lines = sa.bootstrap(runs, sa.fit_isoflop, n_resamples=100).summary().splitlines()
    assert lines[0] == (
        "components: noise with a run_id and a row component, corrected for what the fit absorbs "
        "(13 units, 100 replicates, 0 failed)"
    )
    assert lines[1].startswith("  - noise of 0.")
    assert lines[2].startswith("exponent of N_opt 0.")
    assert lines[3].startswith("C = 1e+18 FLOP: N_opt ")
    assert lines[4].startswith("C = 1e+19 FLOP: N_opt ")
    assert lines[-1] == "intervals at 90%"


@pytest.mark.slow
@pytest.mark.parametrize("snapshots", [True, False])
@pytest.mark.parametrize("estimator", [sa.fit_isoflop, sa.fit_parametric])
def test_the_default_interval_covers(estimator, snapshots):
    """200 logs: a nominal 90 % interval covers in .85 to .95, give or take 2 binomial errors."""
    hits = []
    for i in range(200):
        runs = simulated(run_noise=0.015, checkpoint_noise=0.007, snapshots=snapshots, rng=i)
        boot = sa.bootstrap(runs, estimator, n_resamples=200, rng=i)
        lo, hi = boot.interval("params_opt", 1e19)
        hits.append(lo <= LAW.params_opt(1e19) <= hi)
    assert 0.85 - 2 * 0.025 <= np.mean(hits) <= 0.95 + 2 * 0.015
