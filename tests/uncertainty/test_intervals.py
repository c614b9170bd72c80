import numpy as np
import pytest

from scaling_analysis.errors import BootstrapError
from scaling_analysis.uncertainty.intervals import (
    basic_interval,
    jackknife_interval,
    percentile_interval,
)

DRAWS = np.arange(1001.0)


def test_percentiles_have_equal_tails():
    np.testing.assert_allclose(percentile_interval(DRAWS, 0.9), (50.0, 950.0), rtol=1e-12)


def test_basic_interval_mirrors_the_percentiles():
    found = basic_interval(np.array(400.0), DRAWS, 0.9)
    np.testing.assert_allclose(found, (800 - 950.0, 800 - 50.0), rtol=1e-12)


def test_shape_is_that_of_the_quantity():
    draws = np.random.default_rng(0).normal(size=(300, 2, 3))
    lo, hi = percentile_interval(draws, 0.5)
    assert lo.shape == hi.shape == (2, 3)
    assert (lo < hi).all()


def test_jackknife_of_a_mean_is_the_textbook_interval():
    from scipy.stats import t

    x = np.random.default_rng(1).normal(3, 2, 12)
    without = (x.sum() - x) / 11
    lo, hi = jackknife_interval(np.array(x.mean()), without, 0.9)
    half = t.ppf(0.95, 11) * x.std(ddof=1) / np.sqrt(12)
    np.testing.assert_allclose([lo, hi], [x.mean() - half, x.mean() + half], rtol=1e-12)


def test_a_tenth_may_fail_and_no_more():
    draws = DRAWS.copy()
    draws[:100] = np.nan
    assert percentile_interval(draws, 0.9).lo > 100
    draws[:101] = np.nan
    with pytest.raises(BootstrapError, match=r"10% of 1001 replicates are no valid fit"):
        percentile_interval(draws, 0.9)


def test_an_interval_without_width_is_refused():
    with pytest.raises(BootstrapError, match="every replicate gives the same"):
        percentile_interval(np.ones(50), 0.9)
    with pytest.raises(BootstrapError, match="every replicate gives the same"):
        jackknife_interval(np.array(1.0), np.ones(12), 0.9)


@pytest.mark.parametrize("level", [0.0, 1.0, 90])
def test_level_is_a_share(level):
    with pytest.raises(BootstrapError, match="between 0 and 1"):
        percentile_interval(DRAWS, level)


def test_no_replicate_is_no_interval():
    with pytest.raises(BootstrapError, match="no replicate"):
        percentile_interval(np.empty(0), 0.9)
