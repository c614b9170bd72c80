import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_analysis.uncertainty import stratified


@given(st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_interquartile_mean_is_scipys_trimmed_mean(n, seed):
    from scipy.stats import trim_mean

    x = np.random.default_rng(seed).gamma(1.0, 1.0, (3, n))
    np.testing.assert_allclose(
        stratified.interquartile_mean(x), trim_mean(x, 0.25, axis=-1), rtol=1e-12
    )


def test_weights_are_repetitions():
    x, w = np.array([3.0, 1.0, 2.0, 9.0]), np.array([1, 4, 2, 1])
    repeated = stratified.interquartile_mean(np.repeat(x, w))
    assert stratified.interquartile_mean(x, w) == pytest.approx(repeated)
    assert stratified.interquartile_mean(x, 7 * w) == pytest.approx(repeated)


def test_statistics_by_hand():
    x = np.array([0.0, 2.0, 1.0, 1.0, 5.0, 7.0])
    two = [2, 2, 2]
    assert stratified.summarise_scores(x, two, "mean") == pytest.approx(8 / 3)
    assert stratified.summarise_scores(x, two, "median") == 1.0
    assert stratified.summarise_scores(x, two, "iqm") == pytest.approx((1 + 1 + 2 + 5) / 4)
    assert stratified.summarise_scores(x, two, "optimality_gap") == pytest.approx(1 / 6)
    assert stratified.summarise_scores(x, two, "optimality_gap", 6.0) == pytest.approx(21 / 6)
    uneven = np.array([0.0, 2.0, 1.0, 5.0, 7.0])
    assert stratified.summarise_scores(uneven, [2, 1, 2], "mean") == pytest.approx(8 / 3)


def test_tasks_count_alike_whatever_their_runs():
    scores = [np.array([0.2, 0.4]), np.array([1.0, 1.4])]
    both = np.concatenate(scores)
    padded = np.concatenate([np.tile(scores[0], 5), scores[1]])
    for name in ("iqm", "mean", "median"):
        equal = stratified.summarise_scores(both, [2, 2], name)
        assert stratified.summarise_scores(padded, [10, 2], name) == pytest.approx(equal)


@pytest.mark.parametrize("runs", [[3, 3, 3], [2, 5, 9], [300, 2]])
def test_draws_stay_in_their_task_and_are_uniform(runs):
    drawn = stratified.draw_within(np.random.default_rng(0), 4000, runs)
    task = np.repeat(np.arange(len(runs)), runs)
    assert (task[drawn] == task).all()
    expected = 4000 * np.array(runs)[task] / np.array(runs)[task]
    counts = np.bincount(drawn.ravel(), minlength=len(task))
    assert (np.abs(counts - expected) < 6 * np.sqrt(expected)).all()


def test_scaled_replicates_have_the_standard_error_of_the_mean():
    rng = np.random.default_rng(1)
    for runs in ([4] * 6, [2, 3, 8, 5]):
        scores = rng.normal(size=sum(runs))
        draws = stratified.resample_statistics(rng, 40_000, scores, runs, ["mean"])[0]
        se = np.sqrt((stratified.task_variances(scores, runs) / runs).sum()) / len(runs)
        scaled = stratified.deviation_scale(scores, runs) * draws.std()
        assert scaled == pytest.approx(se, rel=0.02)


def test_satterthwaite_between_one_task_and_all():
    scores = np.array([0.0, 1.0, 2.0, 5.0, 6.0, 7.0])
    assert stratified.satterthwaite(scores, [3, 3]) == pytest.approx(4.0)
    lone = np.array([0.0, 1.0, 2.0, 5.0, 5.0, 5.0])
    assert stratified.satterthwaite(lone, [3, 3]) == pytest.approx(2.0)


def test_wilson_against_statsmodels():
    from statsmodels.stats.proportion import proportion_confint

    for successes in (0, 3, 8):
        expected = proportion_confint(successes, 8, alpha=0.1, method="wilson")
        assert stratified.wilson_interval(successes, 8, 0.9) == pytest.approx(expected, abs=1e-12)
    assert stratified.wilson_interval(0, 8, 0.9)[1] > 0.2


def test_wins_count_ties_half():
    np.testing.assert_array_equal(
        stratified.win_matrix([1.0, 2.0], [1.0, 0.0, 3.0]), [[0.5, 1.0, 0.0], [1.0, 1.0, 0.0]]
    )


def test_parts_of_the_improvement():
    rng = np.random.default_rng(3)
    wins = [stratified.win_matrix(rng.normal(0.5, 1, 5), rng.normal(0, 1, 4)) for _ in range(3)]
    both, of_x, of_y = stratified.resample_improvement(rng, 20_000, wins)
    mean = np.mean([w.mean() for w in wins])
    for draws in (both, of_x, of_y):
        assert draws.mean() == pytest.approx(mean, abs=0.005)
    # To first order the two sides add up.
    assert both.var() == pytest.approx(of_x.var() + of_y.var(), rel=0.25)
