import numpy as np
import pytest

from scaling_analysis.uncertainty import resampling as rs

GROUPS = np.repeat(np.arange(6), [3, 1, 4, 2, 5, 5])


def test_drawing_keeps_the_number_of_units_of_every_stratum():
    strata = np.array([0, 0, 1, 1, 1, -1])
    weights = rs.draw_weights(np.random.default_rng(0), 500, GROUPS, strata)
    first = [np.flatnonzero(g == GROUPS)[0] for g in range(6)]
    units = weights[:, first]
    assert (units[:, :2].sum(axis=1) == 2).all()
    assert (units[:, 2:5].sum(axis=1) == 3).all()
    assert (units[:, 5] == 1).all()
    for g in range(6):
        assert (weights[:, g == GROUPS] == units[:, [g]]).all()


def test_drawing_is_multinomial():
    weights = rs.draw_weights(np.random.default_rng(1), 40_000, np.arange(5), np.zeros(5, int))
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.02)
    np.testing.assert_allclose(weights.var(axis=0), 0.8, atol=0.03)  # n p (1 - p) with p = 1/5
    covariance = np.cov(weights[:, 0], weights[:, 1])[0, 1]
    assert covariance == pytest.approx(-0.2, abs=0.02)


def test_dirichlet_weights_are_positive_and_of_mean_one():
    weights = rs.dirichlet_weights(np.random.default_rng(0), 20_000, GROUPS)
    assert (weights > 0).all()
    first = [np.flatnonzero(g == GROUPS)[0] for g in range(6)]
    np.testing.assert_allclose(weights[:, first].sum(axis=1), 6.0)
    # Variance of n times a flat Dirichlet of n: (n - 1)/(n + 1).
    np.testing.assert_allclose(weights[:, first].var(axis=0), 5 / 7, rtol=0.05)


def test_deleting_one_unit_at_a_time():
    weights = rs.delete_one_weights(GROUPS)
    assert weights.shape == (6, 20)
    for g in range(6):
        assert (weights[g] == (g != GROUPS)).all()


def test_wild_noise_flips_whole_units():
    residuals = np.arange(1.0, 21.0)
    noise = rs.wild_noise(np.random.default_rng(0), 400, GROUPS, residuals)
    signs = noise / residuals
    assert set(np.unique(signs)) == {-1.0, 1.0}
    for g in range(6):
        assert (np.ptp(signs[:, g == GROUPS], axis=1) == 0).all()
    assert abs(signs.mean()) < 0.1


def _mean_by_column(design):
    """Residuals of ordinary least squares on `design`."""
    hat = design @ np.linalg.pinv(design)
    return lambda noise: noise - noise @ hat.T


@pytest.mark.parametrize(("group", "row"), [(0.02, 0.005), (0.0, 0.01), (0.03, 0.0)])
def test_components_are_unbiased_after_the_fit_has_absorbed_some(group, row):
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(12), 7)
    x = groups - 5.5
    design = np.stack([np.ones_like(x), x, x**2, np.tile(np.arange(7.0), 12)], axis=1)
    residuals = _mean_by_column(design)
    found = []
    for _ in range(60):
        noise = group * rng.standard_normal(12)[groups] + row * rng.standard_normal(84)
        observed = residuals(noise[None])[0]
        found.append(rs.estimate_components(rng, groups, observed, residuals))
    mean_square = np.mean([[c.group**2, c.row**2] for c in found], axis=0)
    # 60 logs of 12 runs: the mean variance is known to about 2 sqrt(2 / (60 * 9)) = 12 %.
    np.testing.assert_allclose(mean_square, [group**2, row**2], rtol=0.25, atol=3e-6)


def test_single_rows_have_a_row_component_only():
    rng = np.random.default_rng(3)
    design = np.stack([np.ones(40), np.arange(40.0)], axis=1)
    residuals = _mean_by_column(design)
    observed = residuals(0.05 * rng.standard_normal((1, 40)))[0]
    found = rs.estimate_components(rng, np.arange(40), observed, residuals)
    assert found.group == 0
    unbiased = np.sqrt((observed**2).sum() / 38)
    assert found.row == pytest.approx(unbiased, rel=0.05)


@pytest.mark.parametrize(
    ("observed", "residuals", "message"),
    [
        (np.zeros(20), lambda e: e, "passes through every row"),
        (np.ones(20), lambda e: 0 * e, "as many parameters as rows"),
        (
            np.random.default_rng(0).standard_normal(20),
            lambda e: e - np.stack([e[:, g == GROUPS].mean(axis=1) for g in GROUPS], axis=1),
            "absorbs what the rows of a unit share",
        ),
        (np.ones(20), lambda e: e * np.nan, "most fits to simulated noise fail"),
    ],
)
def test_noise_that_cannot_be_seen_is_said_to_be(observed, residuals, message):
    with pytest.raises(ValueError, match=message):
        rs.estimate_components(np.random.default_rng(0), GROUPS, observed, residuals)


def test_component_noise_has_both_parts_and_heavy_tails():
    components = rs.Components(group=0.3, row=0.4)
    groups = np.repeat(np.arange(2000), 2)
    noise = rs.component_noise(np.random.default_rng(0), 400, groups, components, freedom=9)
    # Variance of t(9) is 9/7; rows of a unit share the group part.
    assert noise.var() == pytest.approx(0.25 * 9 / 7, rel=0.05)
    both = np.mean(noise[:, 0::2] * noise[:, 1::2])
    assert both == pytest.approx(0.09 * 9 / 7, rel=0.1)


def test_episode_noise_has_the_standard_error_of_the_mean():
    rng = np.random.default_rng(5)
    returns = [rng.exponential(100, 400), rng.normal(50, 5, 1000)]
    noise = rs.episode_noise(rng, 4000, returns)
    assert noise.shape == (4000, 2)
    expected = [r.std() / np.sqrt(len(r)) for r in returns]
    np.testing.assert_allclose(noise.std(axis=0), expected, rtol=0.05)
    np.testing.assert_allclose(noise.mean(axis=0), 0.0, atol=0.3)


def test_episode_noise_is_that_of_drawing_with_replacement():
    rng = np.random.default_rng(7)
    episodes = rng.exponential(100, 60)
    noise = rs.episode_noise(rng, 20_000, [episodes, episodes])
    drawn = rng.choice(episodes, (20_000, 60)).mean(axis=1) - episodes.mean()
    levels = [0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99]
    scale = drawn.std()
    np.testing.assert_allclose(
        np.quantile(noise[:, 0], levels) / scale, np.quantile(drawn, levels) / scale, atol=0.1
    )
    skew = (drawn**3).mean() / scale**3
    assert (noise[:, 0] ** 3).mean() / scale**3 == pytest.approx(skew, abs=0.08)
    # Rows share counts, but not the order of their episodes.
    assert abs(np.corrcoef(noise.T)[0, 1]) < 0.06


def test_groups_with_any_weight_are_present():
    groups = np.array([2, 0, 1, 0, 2])
    weights = np.array([[1.0, 0.0, 0.0, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0, 0.0]])
    expected = [[True, False, True], [False, True, False]]
    assert rs.groups_present(weights, groups).tolist() == expected
