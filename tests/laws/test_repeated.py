"""Effective samples of repeated data, Muennighoff et al. 2023, eq. 5."""

import numpy as np
import pytest

from scaling_analysis.laws.repeated import log_effective_samples


def effective_samples(samples, unique_samples, repeat_scale):
    """D' for D samples drawn from U unique ones."""
    log_d, log_u = np.log(samples), np.log(unique_samples)
    return np.exp(log_effective_samples(log_d, log_u, np.log(repeat_scale))[0])


def test_the_published_formula():
    unique, scale = 1e8, 15.39
    for passes in (1.0, 1.5, 4.0, 40.0):
        expected = unique * (1 + scale * (1 - np.exp(-(passes - 1) / scale)))
        assert effective_samples(passes * unique, unique, scale) == pytest.approx(expected)


def test_one_pass_or_less_is_worth_itself():
    np.testing.assert_allclose(effective_samples([1e3, 1e8], 1e8, 5.0), [1e3, 1e8], rtol=1e-12)
    np.testing.assert_allclose(effective_samples(3e8, np.inf, 5.0), 3e8, rtol=1e-12)


def test_repetition_is_worth_less_and_less_and_ends_at_one_plus_the_scale():
    worth = effective_samples(1e8 * np.geomspace(1, 1e4, 50), 1e8, 5.0) / 1e8
    assert (np.diff(worth) >= 0).all()
    assert (worth <= np.geomspace(1, 1e4, 50) * (1 + 1e-12)).all()
    assert worth[-1] == pytest.approx(6.0)


def test_a_large_scale_makes_repeated_data_as_good_as_new():
    assert effective_samples(4e8, 1e8, 1e9) == pytest.approx(4e8, rel=1e-6)


def test_derivatives_in_the_log_of_the_scale():
    log_d, log_u = np.log(1e8 * np.geomspace(0.5, 100, 20)), np.log(1e8)
    scale, step = np.array(1.3), 1e-5
    ends = [log_effective_samples(log_d, log_u, scale + s) for s in (step, -step)]
    _, slope, bend = log_effective_samples(log_d, log_u, scale)
    np.testing.assert_allclose(slope, (ends[0][0] - ends[1][0]) / (2 * step), atol=1e-9)
    np.testing.assert_allclose(bend, (ends[0][1] - ends[1][1]) / (2 * step), atol=1e-9)
