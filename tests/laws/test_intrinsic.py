"""The law of intrinsic performance against its lemma and its own definition."""

import numpy as np
import pytest

from scaling_analysis.laws.cost import fit_cost
from scaling_analysis.laws.intrinsic import IntrinsicLaw, intrinsic_slopes

LEMMA = IntrinsicLaw.from_constants(size_exponent=0.7, sample_exponent=0.45, size_scale=3e-4)
LAW = IntrinsicLaw(
    params_exponent=np.asarray(0.4),
    log_sample_exponent=np.log(0.8),
    log_params=np.log(2e6),
    flops_ref=1e15,
    cost_constant=6.0,
)
FLOPS = np.geomspace(1e10, 1e22, 7)


def test_the_lemma():
    """Hilton et al. 2023: N*(C) = N_c (1 + aN/aE)^(1/aN) C^(1/(1 + aN/aE))."""
    np.testing.assert_allclose(LEMMA.params_opt([1e2, 1e5]), [6.9479e-3, 0.103697], rtol=1e-4)
    np.testing.assert_allclose(
        LEMMA.params_opt(FLOPS),
        3e-4 * (1 + 0.7 / 0.45) ** (1 / 0.7) * FLOPS ** (1 / (1 + 0.7 / 0.45)),
        rtol=1e-12,
    )


def test_the_constants_are_those_of_the_published_form():
    a_n, a_e, n_c = 0.7, 0.45, 3e-4
    assert LEMMA.size_exponent == pytest.approx(a_n)
    assert LEMMA.sample_exponent == pytest.approx(a_e)
    assert LEMMA.size_scale == pytest.approx(n_c)
    assert 1 / LEMMA.beta == pytest.approx(1 / a_n + 1 / a_e)
    # The published tie of the two scales.
    tie = (1 + a_n / a_e) ** (1 / a_n) * (1 + a_e / a_n) ** (1 / a_e)
    assert 1 / (n_c * LEMMA.sample_scale) == pytest.approx(tie)
    n, e = np.array([1e-3, 0.2]), np.array([[1e3], [1e7]])
    published = ((n_c / n) ** a_n + (LEMMA.sample_scale / e) ** a_e) ** (-1 / LEMMA.beta)
    np.testing.assert_allclose(np.exp(LEMMA.log_intrinsic(n, e)), published, rtol=1e-12)


@pytest.mark.parametrize("law", [LEMMA, LAW])
def test_the_best_size_has_an_intrinsic_performance_equal_to_its_compute(law):
    for c in FLOPS:
        best = float(law.params_opt(c))
        n = best * np.exp(np.linspace(-2, 2, 4001))
        found = law.log_intrinsic(n, c / (law.cost_constant * n))
        assert found.argmax() == 2000
        assert found.max() == pytest.approx(np.log(c), abs=1e-12)
    spent = law.cost_constant * law.params_opt(FLOPS) * law.samples_opt(FLOPS)
    np.testing.assert_allclose(spent, FLOPS, rtol=1e-12)


def test_an_environment_cost_moves_the_optimum_to_larger_models():
    extra, cost = 3e6, 6.0
    n = LAW.params_opt(FLOPS, None, extra)
    d = LAW.samples_opt(FLOPS, None, extra)
    np.testing.assert_allclose(cost * (n + extra) * d, FLOPS, rtol=1e-9)
    # alpha_N T_N (1 + N_e/N) = alpha_E T_E (Hilton et al. 2023).
    t_n = (LAW.size_scale / n) ** LAW.size_exponent
    t_e = (LAW.sample_scale / d) ** LAW.sample_exponent
    np.testing.assert_allclose(
        LAW.size_exponent * t_n * (1 + extra / n), LAW.sample_exponent * t_e, rtol=1e-9
    )
    assert (n > LAW.params_opt(FLOPS)).all()
    # Where the model costs far more than the environment, nothing changes.
    assert n[-1] / LAW.params_opt(FLOPS)[-1] == pytest.approx(1, rel=1e-2)


def test_the_counted_cost_is_followed_where_no_constant_holds():
    sizes = np.geomspace(1e4, 1e10, 13)
    cost = fit_cost(sizes, np.ones(13), 500 * sizes**0.7)
    assert cost.constant is None
    c = np.array([1e14, 1e16, 1e18])
    n = LAW.params_opt(c, cost)
    for best, flops in zip(n, c, strict=True):
        near = best * np.exp(np.linspace(-1, 1, 201))
        found = LAW.log_intrinsic(near, flops / cost.flops_per_sample(near))
        assert abs(int(found.argmax()) - 100) <= 1


def test_replicates_are_laws_of_their_own():
    many = IntrinsicLaw(
        params_exponent=np.array([0.3, 0.6]),
        log_sample_exponent=np.log([0.5, 1.5]),
        log_params=np.log([1e6, 1e7]),
        flops_ref=1e15,
        cost_constant=6.0,
    )
    n, c = np.geomspace(1e5, 1e8, 4), np.array([[1e14], [1e17]])
    assert many.params_opt(c).shape == (2, 2, 1)
    assert many.log_intrinsic(n, c).shape == (2, 2, 4)
    for i in range(2):
        one = many.replicate(i)
        np.testing.assert_array_equal(many.params_opt(c)[i], one.params_opt(c))
        np.testing.assert_array_equal(many.log_intrinsic(n, c)[i], one.log_intrinsic(n, c))
        np.testing.assert_allclose(
            many.params_opt(c, None, 1e5)[i], one.params_opt(c, None, 1e5), rtol=1e-12
        )
    own = many.params_opt(c)
    found = many.log_intrinsic(own, c / (6 * own), own=True)
    np.testing.assert_allclose(np.exp(found), np.stack([c, c]), rtol=1e-12)
    back = IntrinsicLaw.from_dict(many.to_dict())
    np.testing.assert_array_equal(back.params_opt(c), many.params_opt(c))


def test_slopes_against_central_differences():
    rng = np.random.default_rng(0)
    for _ in range(5):
        theta = rng.normal(scale=[1.0, 0.7, 1.0])
        n, e = rng.normal(scale=3, size=(2, 20))
        value, slopes = intrinsic_slopes(theta, n, e)
        steps = 1e-6 * np.eye(3)
        numeric = [
            (intrinsic_slopes(theta + s, n, e)[0] - intrinsic_slopes(theta - s, n, e)[0]) / 2e-6
            for s in steps
        ]
        np.testing.assert_allclose(slopes, np.stack(numeric, axis=1), rtol=1e-6, atol=1e-7)
        assert np.isfinite(value).all()


def test_the_solvers_coordinates_are_those_of_the_law():
    n, d = np.geomspace(1e4, 1e9, 6), np.geomspace(1e6, 1e12, 6)
    theta = np.array([np.log(0.4 / 0.6), np.log(0.8), np.log(2e6)])
    log_e = np.log(6.0 * d) - np.log(1e15)
    value = intrinsic_slopes(theta, np.log(n), log_e)[0] + np.log(1e15)
    np.testing.assert_allclose(value, LAW.log_intrinsic(n, d), rtol=1e-12)
