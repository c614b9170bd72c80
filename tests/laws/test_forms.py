"""Every form: natural parameters and back, value, slopes, and the optimum on an isoFLOP line."""

import numpy as np
import pytest

from scaling_analysis.laws import frontier
from scaling_analysis.laws.cost import fit_cost
from scaling_analysis.laws.forms import FORMS, Rows, lift

RNG = np.random.default_rng(0)
LOG_N, LOG_D = RNG.uniform(11, 19, 40), RNG.uniform(16, 24, 40)
LOG_U = LOG_D - RNG.uniform(-1, 2.5, 40)
NATURAL = {
    "additive": {"E": 1.7, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28},
    "tied": {"E": 1.7, "A": 406.4, "B": 410.7, "alpha": 0.31},
    "repeated": {"E": 1.7, "A": 406.4, "alpha": 0.34, "B": 410.7, "beta": 0.28, "R_D": 15.4},
    "kaplan": {"N_c": 8.8e13, "D_c": 5.4e13, "alpha_N": 0.076, "alpha_D": 0.095},
    "log_quadratic": {
        "c_0": 12.0,
        "c_N": -0.3,
        "c_D": -0.7,
        "c_NN": 0.02,
        "c_ND": -0.021,
        "c_DD": 0.02,
    },
}
CASES = [(name, space) for name in NATURAL for space in ("log", "linear")]
CASES.remove(("kaplan", "linear"))


def _rows(space):
    return Rows(LOG_N, LOG_D, LOG_U, space, shift=0.7, unit=2.5)


def _arrays(name, replicates=3):
    """Natural parameters of a few replicates, (R,) each."""
    factors = 1 + 0.03 * np.random.default_rng(1).normal(size=(len(NATURAL[name]), replicates))
    return {key: v * f for (key, v), f in zip(NATURAL[name].items(), factors, strict=True)}


@pytest.mark.parametrize(("name", "space"), CASES)
def test_natural_parameters_and_back(name, space):
    form, rows, natural = FORMS[name], _rows(space), _arrays(name)
    assert form.names == tuple(natural)
    again = form.natural(form.theta(natural, rows), rows)
    for key in natural:
        np.testing.assert_allclose(again[key], natural[key], rtol=1e-9)


@pytest.mark.parametrize(("name", "space"), CASES)
def test_the_law_that_is_fitted_is_the_value_in_natural_parameters(name, space):
    form, rows, natural = FORMS[name], _rows(space), _arrays(name)
    fitted, _ = form.law(rows).evaluate(form.theta(natural, rows))
    fitted = fitted + rows.shift if space == "log" else fitted * rows.unit
    value = form.mu(lift(natural, 1), LOG_N, LOG_D, LOG_U, space)
    np.testing.assert_allclose(fitted, value, rtol=1e-9)


@pytest.mark.parametrize("name", NATURAL)
def test_slopes_have_the_ratio_of_the_derivatives(name):
    form, p, step = FORMS[name], _arrays(name, 1), 1e-5
    n, d = (
        form.mu(p, LOG_N + step * e, LOG_D + step * (1 - e), LOG_U, "log")
        - form.mu(p, LOG_N - step * e, LOG_D - step * (1 - e), LOG_U, "log")
        for e in (1, 0)
    )
    slope_n, slope_d = form.slopes(p, LOG_N, LOG_D, LOG_U)
    np.testing.assert_allclose(slope_n / slope_d, n / d, rtol=1e-5)
    np.testing.assert_array_equal(np.sign(np.broadcast_to(slope_n, n.shape)), np.sign(n))


@pytest.mark.parametrize("name", NATURAL)
def test_optimum_in_closed_form_is_the_lowest_point_of_the_line(name):
    form, p = FORMS[name], _arrays(name)
    log_nd = np.array([36.0, 41.0])
    best = form.log_params_opt(lift(p, 1), log_nd)
    assert best.shape == (3, 2)
    away = np.array([-0.3, -0.01, 0.01, 0.3])
    here = form.mu(lift(p, 1), best, log_nd - best, np.inf, "log")
    for shift in away:
        near = form.mu(lift(p, 1), best + shift, log_nd - best - shift, np.inf, "log")
        assert (near > here).all()
    exponent = (best[:, 1] - best[:, 0]) / (log_nd[1] - log_nd[0])
    np.testing.assert_allclose(form.params_exponent(p), exponent, rtol=1e-10)


@pytest.mark.parametrize("name", NATURAL)
def test_numerical_optimum_agrees_with_the_closed_form(name):
    form, p = FORMS[name], lift(_arrays(name), 1)
    log_c = np.log([1e19, 1e22])
    got = frontier.log_params_opt(
        lambda n, d: form.mu(p, n, d, np.inf, "log"),
        lambda n, d: form.slopes(p, n, d, np.inf)[0],
        lambda n, d: form.slopes(p, n, d, np.inf)[1],
        log_c,
        fit_cost([1e7, 1e8], [1e9, 1e9], [6e16, 6e17]),
        3,
    )
    expected = form.log_params_opt(p, log_c - np.log(6))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


def test_numerical_optimum_where_the_cost_of_a_sample_bends():
    form, p = FORMS["additive"], lift(_arrays("additive", 2), 1)
    sizes = np.geomspace(1e5, 1e9, 9)
    cost = fit_cost(sizes, np.ones(9), 800 * sizes**0.75 + 6 * sizes)
    log_c = np.log([1e15, 1e18, 1e21])
    got = frontier.log_params_opt(
        lambda n, d: form.mu(p, n, d, np.inf, "log"),
        lambda n, d: form.slopes(p, n, d, np.inf)[0],
        lambda n, d: form.slopes(p, n, d, np.inf)[1],
        log_c,
        cost,
        2,
    )
    grid = np.linspace(5, 30, 20001)[:, None, None]
    value = form.mu(p, grid, log_c - np.log(cost.flops_per_sample(np.exp(grid))), np.inf, "log")
    np.testing.assert_allclose(got, grid.ravel()[value.argmin(axis=0)], atol=2e-3)


def test_numerical_optimum_outside_every_range_is_nan():
    cost = fit_cost([1e7, 1e8], [1e9, 1e9], [6e16, 6e17])
    got = frontier.log_params_opt(
        lambda n, d: -n + 0 * d,
        lambda n, d: -np.ones_like(n + d),
        lambda n, d: np.zeros_like(n + d),
        np.log([1e20]),
        cost,
        1,
    )
    assert np.isnan(got).all()


def test_a_surface_without_a_valley_has_no_optimum():
    p = {**NATURAL["log_quadratic"], "c_ND": 0.05}
    form = FORMS["log_quadratic"]
    p = {key: np.asarray(v) for key, v in p.items()}
    assert np.isnan(form.log_params_opt(p, np.array(40.0)))
    assert np.isnan(form.params_exponent(p))


@pytest.mark.parametrize(("name", "space"), CASES)
def test_seeds_lead_to_the_truth(name, space):
    from scaling_analysis.laws.newton import minimize_huber

    form, rows = FORMS[name], Rows(LOG_N, LOG_D, LOG_U, space, shift=0.9, unit=1.0)
    truth = {key: np.array([v]) for key, v in NATURAL[name].items()}
    law = form.law(rows)
    mu = law.evaluate(form.theta(truth, rows))[0]
    starts = form.seeds(rows, mu, np.ones((1, 40)), 3)[0]
    ends = minimize_huber(law, mu, np.ones(40), starts)
    best = ends.theta[[ends.objective.argmin()]]
    for key, value in form.natural(best, rows).items():
        np.testing.assert_allclose(value, truth[key], rtol=1e-6)
