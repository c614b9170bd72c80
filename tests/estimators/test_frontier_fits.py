"""What every `FrontierFit` promises, whatever its law."""

import json
from functools import partial
from html import escape

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.estimators.bootstrapping import fit_from_dict
from scaling_analysis.forecasting.simulation import AdditiveSurface

LAW = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
BUDGETS = np.geomspace(1e14, 1e18, 9)
SIZES = np.geomspace(1e5, 2e8, 16)
FITS = {
    "isoflop-vertex": sa.fit_isoflop,
    "isoflop-vertex-log": partial(sa.fit_isoflop, space="log", window=None),
    "isoflop-cubic": partial(sa.fit_isoflop, optimum="cubic", window=7),
    "isoflop-grid": partial(sa.fit_isoflop, optimum="grid"),
    "envelope": sa.fit_envelope,
    "parametric-additive": sa.fit_parametric,
    "parametric-tied": partial(sa.fit_parametric, form="tied"),
}
FAR = np.array([[1e16, 1e17, 1e18], [1e19, 1e20, 1e21]])


@pytest.fixture(scope="module")
def runs():
    return sa.simulate_runs(LAW, SIZES, BUDGETS, run_noise=0.01, checkpoint_noise=0.004, rng=3)


@pytest.fixture(scope="module", params=FITS)
def estimator(request):
    return FITS[request.param]


@pytest.fixture(scope="module")
def fit(estimator, runs):
    return estimator(runs)


@pytest.fixture(scope="module")
def replicates(fit):
    weights = np.random.default_rng(0).integers(1, 3, (5, len(fit.rows))).astype(float)
    return fit.refit(weights=weights)


def test_it_is_a_frontier_fit(fit):
    assert isinstance(fit, sa.FrontierFit)
    assert fit.target == "loss"
    assert fit.residual_space in ("log", "linear")
    assert bool(fit.valid())


def test_compute_is_spent(fit):
    spent = 6 * fit.params_opt(FAR) * fit.samples_opt(FAR)
    np.testing.assert_allclose(spent, FAR, rtol=1e-9)


def test_compute_is_spent_where_no_constant_holds(estimator, runs):
    other = runs.assign(samples=runs["flops"] / (500 * runs["params"] ** 0.7))
    fit = estimator(other)
    n = fit.params_opt(FAR)
    counted = fit.cost.flops_per_sample(n)
    np.testing.assert_allclose(counted * fit.samples_opt(FAR), FAR, rtol=1e-9)
    # Inside the sizes run, the FLOP a sample is the one that was counted.
    inside = (n > SIZES[0]) & (n < SIZES[-1])
    assert inside.any()
    np.testing.assert_allclose(counted[inside], 500 * n[inside] ** 0.7, rtol=1e-3)


def test_the_frontier_is_near_the_truth(fit):
    c = np.geomspace(1e15, 1e18, 7)
    np.testing.assert_allclose(fit.params_opt(c), LAW.params_opt(c), rtol=0.6)
    np.testing.assert_allclose(fit.value_opt(c), LAW.value_opt(c), rtol=0.03)


def test_the_value_on_the_frontier_is_the_best(fit):
    n = fit.params_opt(FAR)
    np.testing.assert_allclose(fit.value(n, FAR), fit.value_opt(FAR), rtol=1e-6)
    assert (fit.value(2 * n, FAR) > fit.value_opt(FAR)).all()
    assert (fit.value(n / 2, FAR) > fit.value_opt(FAR)).all()


def test_the_order_of_rows_does_not_matter(estimator, fit, runs):
    shuffled = estimator(runs.sample(frac=1.0, random_state=1))
    np.testing.assert_allclose(shuffled.params_opt(FAR), fit.params_opt(FAR), rtol=1e-6)
    np.testing.assert_allclose(shuffled.value_opt(FAR), fit.value_opt(FAR), rtol=1e-6)


def test_units_do_not_matter(estimator, fit, runs):
    n, c, y = 1e-6, 1e-12, 1e3
    scaled = runs.assign(
        params=runs["params"] * n,
        flops=runs["flops"] * c,
        budget=runs["budget"] * c,
        samples=runs["samples"] * c / n,
        loss=runs["loss"] * y,
    )
    other = estimator(scaled)
    np.testing.assert_allclose(other.params_opt(FAR * c), fit.params_opt(FAR) * n, rtol=1e-4)
    np.testing.assert_allclose(other.samples_opt(FAR * c), fit.samples_opt(FAR) * c / n, rtol=1e-4)
    np.testing.assert_allclose(other.value_opt(FAR * c), fit.value_opt(FAR) * y, rtol=1e-4)


def test_weights_of_one_give_the_same_fit(fit):
    same = fit.refit(weights=np.ones((2, len(fit.rows))))
    for method in ("params_opt", "samples_opt", "value_opt"):
        expected = np.stack([getattr(fit, method)(FAR)] * 2)
        np.testing.assert_allclose(getattr(same, method)(FAR), expected, rtol=1e-6)


def test_the_observed_response_gives_the_same_fit(fit):
    same = fit.refit(response=fit.rows["loss"].to_numpy()[None])
    np.testing.assert_allclose(same.params_opt(FAR)[0], fit.params_opt(FAR), rtol=1e-6)


def test_a_weight_is_a_repetition(estimator, fit, runs):
    twice = (runs["run_id"] == runs["run_id"].iloc[70]).to_numpy()
    copies = runs[twice].assign(run_id="copy")
    repeated = estimator(pd.concat([runs, copies]))
    weights = np.where(fit.rows["run_id"] == runs["run_id"].iloc[70], 2.0, 1.0)
    weighted = fit.refit(weights=weights[None])
    # The form of the value law may differ, its points do not.
    np.testing.assert_allclose(weighted.params_opt(1e18)[0], repeated.params_opt(1e18), rtol=1e-4)


def test_shapes_of_one_fit(fit):
    for method in ("params_opt", "samples_opt", "value_opt"):
        assert np.shape(getattr(fit, method)(1e18)) == ()
        assert getattr(fit, method)(FAR).shape == FAR.shape
    assert fit.fitted_values().shape == (len(fit.rows),)
    assert fit.value([[1e6], [1e7]], FAR[0]).shape == (2, 3)
    assert np.shape(fit.valid()) == ()


def test_shapes_of_replicates(replicates):
    for method in ("params_opt", "samples_opt", "value_opt"):
        assert getattr(replicates, method)(1e18).shape == (5,)
        assert getattr(replicates, method)(FAR).shape == (5, *FAR.shape)
    assert replicates.fitted_values().shape == (5, len(replicates.rows))
    assert replicates.value([[1e6], [1e7]], FAR[0]).shape == (5, 2, 3)
    assert replicates.valid().shape == (5,)


def test_sizes_with_a_replicate_axis_belong_to_their_replicate(replicates):
    own = replicates.value(replicates.params_opt(FAR), FAR)
    np.testing.assert_allclose(own, replicates.value_opt(FAR), rtol=1e-6)


def test_a_refit_leaves_the_fit_as_it_was(fit):
    before = fit.params_opt(FAR)
    fit.refit(weights=np.zeros((1, len(fit.rows))) + 3.0)
    np.testing.assert_array_equal(fit.params_opt(FAR), before)


def test_json_round_trip(fit, replicates):
    for one in (fit, replicates):
        back = fit_from_dict(json.loads(json.dumps(one.to_dict(), allow_nan=False)))
        assert type(back) is type(one)
        for method in ("params_opt", "samples_opt", "value_opt"):
            np.testing.assert_array_equal(getattr(back, method)(FAR), getattr(one, method)(FAR))
        np.testing.assert_array_equal(back.valid(), one.valid())
        assert back.messages == one.messages
        assert back.method == one.method
    again = fit_from_dict(fit.to_dict()).refit(weights=np.ones((1, len(fit.rows))))
    np.testing.assert_allclose(again.params_opt(FAR)[0], fit.params_opt(FAR), rtol=1e-6)


def test_the_summary_leads_with_the_status(fit):
    lines = fit.summary().splitlines()
    assert any(str(fit.status) in line for line in lines[:2])
    head = "\n".join(lines[: 2 + len(fit.messages)])
    assert all(message in head for message in fit.messages)


def test_a_notebook_shows_the_summary(fit):
    assert f"<pre>{escape(fit.summary())}</pre>" in fit._repr_html_()


def test_an_unknown_kind_is_refused():
    with pytest.raises(sa.BootstrapError, match="kind is 'Spline': no stored fit"):
        fit_from_dict({"kind": "Spline"})
