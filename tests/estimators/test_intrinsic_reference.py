"""Published learning curves of contrastive agents (arXiv 2503.14858), one mean curve a depth."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa

# R2 in return space, and where other fits of the same curves found the exponent of N*.
TASKS = {"humanoid": (0.99, 0.26, 0.03), "arm_push_easy": (0.95, 0.50, 0.03)}


@pytest.fixture(scope="module", params=TASKS)
def task(request, reference_data):
    """N is the FLOP of an update relative to depth 4, a sample an epoch."""
    folder = reference_data / "contrastive_rl"
    curves = pd.read_csv(folder / "curves.csv")
    curves = curves[curves["task"] == request.param]
    profiles = json.loads((folder / "flops.json").read_text())["profiles"]
    flops = {p["depth"]: p["sgd_update_flops"] for p in profiles if p["width"] == 256}
    params = curves["depth"].map(flops) / flops[4]
    runs = pd.DataFrame(
        {
            "run_id": curves["depth"].map("depth {}".format),
            "params": params,
            "samples": curves["epoch"].astype(float),
            "flops": params * curves["epoch"],
            "mean_return": curves["mean_return"],
            "return_se": curves["return_se"],
            "protocol": "published",
        }
    )
    return request.param, runs, sa.fit_intrinsic(runs, workers=1)


def test_the_law_explains_the_returns(task):
    name, runs, fit = task
    least, exponent, within = TASKS[name]
    assert float(fit.r_squared) >= least
    assert float(fit.params_exponent) == pytest.approx(exponent, abs=within)
    assert fit.status == sa.FitStatus.OK
    # Recomputed by hand: residuals in return space, of the rows as they were fitted.
    y = fit.rows["mean_return"].to_numpy()
    squares = ((y - fit.fitted_values()) ** 2).sum()
    assert 1 - squares / ((y - y.mean()) ** 2).sum() == pytest.approx(
        float(fit.r_squared), abs=1e-3
    )
    assert len(fit.rows) == len(runs) - 5  # the first epoch of each depth


def test_standard_errors_give_a_narrow_interval(task):
    _, runs, fit = task
    made = sa.bootstrap(runs, lambda _: fit, scheme="parametric", n_resamples=60)
    lo, hi = made.interval(lambda f: f.params_exponent)
    assert lo < float(fit.params_exponent) < hi
    assert max(hi - float(fit.params_exponent), float(fit.params_exponent) - lo) <= 0.15
    assert made.valid.all()


def test_humanoids_optimum_is_flat(task):
    name, _, fit = task
    low, high = fit.near
    if name == "humanoid":
        assert high - low > 0.15
        assert fit.both_sides
    else:
        assert high - low < 0.15
    assert np.isfinite(fit.frontier([10.0, 1e3])["params"]).all()


def test_value_based_surface(reference_data):
    """Fu et al. 2025: D = c (1 + (a/sigma)^alpha + (b/N)^beta), refitted; residuals of log D."""
    table = pd.read_csv(reference_data / "value_based_rl" / "dmc_last_threshold.csv")
    columns = (table["utd"], table["critic_params"])
    fit = sa.fit_data_surface(*columns, table["time"])
    expected = {"c": 3.719e5, "a": 1.26, "alpha": 1.01, "b": 6.332e5, "beta": 0.89}
    for name, value in expected.items():
        assert float(fit.parameters[name]) == pytest.approx(value, rel=0.01), name
    # The authors' own prediction, their column.
    np.testing.assert_allclose(fit.value(*columns), table["time_sum_powerlaw"], rtol=1e-6)
    linear = sa.fit_data_surface(*columns, table["time"], residual_space="linear")
    assert float(linear.parameters["beta"]) == pytest.approx(0.56, abs=0.01)
    assert linear.summary().count("in D") == 1
