"""The parametric fit against published numbers and against scipy, on third-party data."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy.optimize import least_squares, minimize

from scaling_analysis.errors import FitStatus
from scaling_analysis.estimators.parametric import fit_parametric
from scaling_analysis.laws.newton import huber, minimize_huber
from scaling_analysis.runlog import load_runs

REFERENCE = Path(__file__).parents[1] / "reference"
CHINCHILLA = json.loads((REFERENCE / "chinchilla.json").read_text())
NETHACK = json.loads((REFERENCE / "nethack_parametric.json").read_text())
NAMES = ("E", "A", "alpha", "B", "beta")


@pytest.fixture(scope="module")
def chinchilla(reference_data):
    points = pd.read_csv(reference_data / "chinchilla_epoch" / "points.csv")
    points = points.sort_values("loss").iloc[:-5].sort_index()
    n, c = points["Model Size"], points["Training FLOP"]
    runs = pd.DataFrame({"params": n, "samples": c / (6 * n), "flops": c, "loss": points["loss"]})
    return fit_parametric(load_runs(runs))


@pytest.fixture(scope="module")
def drawn():
    """The 4000 resamples of the 240 rows that the published notebook drew."""
    return np.random.RandomState(42).choice(240, (4000, 240))


@pytest.fixture(scope="module")
def replicates(chinchilla, drawn):
    return chinchilla.refit(weights=_counts(drawn))


def _counts(drawn):
    rows = drawn.shape[1]
    flat = (drawn + rows * np.arange(len(drawn))[:, None]).ravel()
    return np.bincount(flat, minlength=drawn.size).reshape(drawn.shape).astype(float)


def _logs(fit):
    return (np.log(fit.rows[name].to_numpy(dtype=float)) for name in ("params", "samples", "loss"))


def _residuals(theta, n, d, y):
    """Of log y, at (log E, log A, alpha, log B, beta)."""
    e, a, alpha, b, beta = theta
    return np.logaddexp(np.logaddexp(e, a - alpha * n), b - beta * d) - y


def _objective(theta, n, d, y):
    return huber(_residuals(theta, n, d, y), 1e-3).sum()


def _theta(values):
    return np.array([np.log(values[k]) if k in "EAB" else values[k] for k in NAMES])


def test_the_optimum_to_five_digits(chinchilla):
    assert len(chinchilla.rows) == 240
    expected = CHINCHILLA["optimum"]
    for name, value in expected["value"].items():
        got = float(chinchilla.parameters[name])
        assert got == pytest.approx(value, rel=expected["relative_tolerance"]), name
    assert float(chinchilla.params_exponent) == pytest.approx(expected["params_exponent"], abs=5e-6)


def test_the_objective_to_nine_digits(chinchilla):
    expected = CHINCHILLA["objective"]
    assert float(chinchilla.objective) == pytest.approx(
        expected["value"], rel=expected["relative_tolerance"]
    )
    theta = _theta({k: float(v) for k, v in chinchilla.parameters.items()})
    assert _objective(theta, *_logs(chinchilla)) == pytest.approx(expected["value"], rel=1e-9)


def test_the_published_parameters_are_not_the_minimum(chinchilla):
    value = _objective(_theta(CHINCHILLA["published"]["value"]), *_logs(chinchilla))
    assert value / float(chinchilla.objective) - 1 == pytest.approx(0.0045, abs=3e-4)
    value = _objective(_theta(CHINCHILLA["approach_3"]["value"]), *_logs(chinchilla))
    assert value > 3 * float(chinchilla.objective)


def test_published_bootstrap_intervals_to_two_digits(replicates):
    assert replicates.valid().all()
    for name, (low, high) in CHINCHILLA["intervals_95"]["value"].items():
        got = np.percentile(replicates.parameters[name], [2.5, 97.5])
        for value, published in zip(got, (low, high), strict=True):
            unit = 10.0 ** (np.floor(np.log10(published)) - 1)
            assert abs(value - published) <= unit, (name, got)


def _fit_by_scipy(start, n, d, y):
    def jacobian(theta, *_):
        e, a, alpha, b, beta = theta
        parts = np.exp([np.full_like(n, e), a - alpha * n, b - beta * d])
        share = parts / parts.sum(axis=0)
        columns = [share[0], share[1], -n * share[1], share[2], -d * share[2]]
        return np.stack(columns, axis=1)

    fit = least_squares(
        _residuals,
        start,
        jac=jacobian,
        loss="huber",
        f_scale=1e-3,
        x_scale="jac",
        args=(n, d, y),
    )
    return _objective(fit.x, n, d, y)


@pytest.mark.parametrize("count", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_no_replicate_ends_above_scipy(chinchilla, replicates, drawn, count):
    start = _theta({k: float(v) for k, v in chinchilla.parameters.items()})
    n, d, y = _logs(chinchilla)
    theirs = np.array([_fit_by_scipy(start, n[i], d[i], y[i]) for i in drawn[:count]])
    assert (replicates.objective[:count] <= theirs * (1 + 1e-9)).all()


@pytest.mark.parametrize("count", [50, pytest.param(4000, marks=pytest.mark.slow)])
def test_replicates_end_in_the_best_of_twenty_random_starts(chinchilla, replicates, drawn, count):
    problem, rng = chinchilla._problem(), np.random.default_rng(1)
    mu = problem.scaled(chinchilla.rows["loss"].to_numpy())[None]
    best = replicates.objective[:count].copy()
    for _ in range(20):
        pairs = (rng.uniform(*bounds, count) for bounds in ((-3, 0.5), (0.05, 1.5)) * 2)
        start = np.stack([rng.uniform(0.2, 0.8, count), *pairs], axis=1)
        ends = minimize_huber(problem.law, mu, _counts(drawn[:count]), start)
        best = np.minimum(best, ends.objective)
    equal = replicates.objective[:count] <= best * (1 + 1e-9)
    assert equal.sum() >= np.floor(0.9975 * count)


def test_a_single_quasi_newton_start_goes_astray_and_ours_does_not(chinchilla, replicates):
    """From one start of Hoffmann's grid L-BFGS ends at beta > 1, eleven times as high, content."""
    n, d, y = _logs(chinchilla)

    def value_and_gradient(theta):
        r = _residuals(theta, n, d, y)
        e, a, alpha, b, beta = theta
        share = np.exp([e - y - r, a - alpha * n - y - r, b - beta * d - y - r])
        parts = np.stack([share[0], share[1], -n * share[1], share[2], -d * share[2]])
        return huber(r, 1e-3).sum(), parts @ np.clip(r, -1e-3, 1e-3)

    start = np.array([0.5, 10.0, 0.5, 20.0, 0.5])
    astray = minimize(value_and_gradient, start, jac=True, method="L-BFGS-B")
    assert astray.success
    assert astray.x[4] > 1
    assert astray.fun > 10 * float(chinchilla.objective)

    problem = chinchilla._problem()
    at = {"E": np.exp(0.5), "A": np.exp(10.0), "alpha": 0.5, "B": np.exp(20.0), "beta": 0.5}
    theta = problem.form.theta({k: np.array(v) for k, v in at.items()}, problem.rows)
    mu = problem.scaled(np.exp(y))
    ours = minimize_huber(problem.law, mu, np.ones(240), theta)
    assert ours.objective[0] == pytest.approx(float(chinchilla.objective), rel=1e-9)
    assert (np.abs(replicates.parameters["beta"] - 0.367) < 0.1).all()


def test_cold_starts_find_the_same_minima_as_warm_ones(chinchilla, replicates, drawn):
    problem, weights = chinchilla._problem(), _counts(drawn[:500])
    mu = problem.scaled(chinchilla.rows["loss"].to_numpy())[None]
    seeds = problem.form.seeds(problem.rows, mu, weights, 1)[:, 0]
    cold = minimize_huber(problem.law, mu, weights, seeds)
    np.testing.assert_allclose(cold.objective, replicates.objective[:500], rtol=1e-9)


@pytest.fixture(scope="module")
def nethack(reference_data):
    return load_runs(reference_data / "nethack_il" / "runs.csv")


def test_nethack_exponent(nethack):
    expected = NETHACK["exponent"]
    fit = fit_parametric(
        nethack,
        min_samples=expected["min_samples"],
        where=f"budget >= {expected['from_budget']}",
    )
    assert float(fit.params_exponent) == pytest.approx(expected["value"], abs=expected["tolerance"])
    assert fit.status is FitStatus.OK


def test_nethack_without_the_filter_says_that_its_floor_is_not_to_be_trusted(nethack):
    fit = fit_parametric(nethack)
    assert fit.status is FitStatus.DOUBTFUL
    assert "is not told from zero" in fit.messages[0]
    assert "rows of fewer than" in fit.messages[1]
    assert "consider min_samples" in fit.messages[1]
    filtered = fit_parametric(nethack, min_samples=3e8)
    assert float(fit.parameters["E"]) < 0.3 * float(filtered.parameters["E"])
    assert fit.value_opt(5e19) < 0.7 * filtered.value_opt(5e19)


def test_nethack_log_quadratic_depends_on_the_budgets_and_says_so(nethack):
    expected = NETHACK["log_quadratic"]
    for budget, value in expected["value"].items():
        fit = fit_parametric(nethack, "log_quadratic", delta=np.inf, where=f"budget >= {budget}")
        assert float(fit.params_exponent) == pytest.approx(value, abs=expected["tolerance"])
        if float(budget) < 1e16:
            assert fit.status is FitStatus.DOUBTFUL
            assert any("the exponent of N_opt moves" in m for m in fit.messages), budget
