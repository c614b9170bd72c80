"""Several tasks at once: own, shared and partially pooled exponents, and a new task."""

import json

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.bootstrapping import fit_from_dict
from scaling_analysis.forecasting.simulation import SymmetricSurface

MIDDLE = np.log(10**16.5)


def simulate(rng, tasks=8, points=6, spread=0.03, noise=0.05, exponent=-0.15):
    """One row a run, and (log coefficient at 10^16.5 FLOP, exponent) of every task."""
    rows, truth = [], {}
    for t in range(tasks):
        a, b = rng.normal(0.0, 0.5), rng.normal(exponent, spread)
        log_c = np.log(10.0) * rng.uniform(15, 18, points)
        loss = np.exp(a + b * (log_c - MIDDLE) + noise * rng.standard_normal(points))
        frame = pd.DataFrame({"flops": np.exp(log_c), "loss": loss, "task": f"task {t}"})
        rows.append(frame.assign(run_id=[f"{t}-{i}" for i in range(points)]))
        truth[f"task {t}"] = (a, b)
    table = pd.concat(rows, ignore_index=True)
    return table.assign(params=1e6, samples=1e9, status="ok"), truth


@pytest.fixture(scope="module")
def simulated():
    return simulate(np.random.default_rng(3))


@pytest.fixture(scope="module")
def fits(simulated):
    return {p: sa.fit_pooled(simulated[0], pooling=p) for p in ("partial", "complete", "none")}


def test_noiseless_tasks_of_one_exponent_are_recovered():
    runs, truth = simulate(np.random.default_rng(0), spread=0.0, noise=1e-9)
    for pooling in ("complete", "none"):
        fit = sa.fit_pooled(runs, pooling=pooling)
        assert fit.exponent()[0] == pytest.approx(-0.15, abs=1e-6)
        found = fit.predict("task 2", [1e19])["value"][0]
        a, b = truth["task 2"]
        assert found == pytest.approx(np.exp(a + b * (np.log(1e19) - MIDDLE)), rel=1e-6)


def test_every_task_alone_is_least_squares(simulated, fits):
    runs, _ = simulated
    for row in fits["none"].table.to_dict("records"):
        own = runs[runs["task"] == row["task"]]
        slope = np.polyfit(np.log(own["flops"]), np.log(own["loss"]), 1)[0]
        assert row["exponent"] == pytest.approx(slope)
        assert row["alone"] == pytest.approx(slope)


def test_one_exponent_is_least_squares_with_own_intercepts(simulated, fits):
    runs, _ = simulated
    design = np.column_stack([pd.get_dummies(runs["task"]).to_numpy(float), np.log(runs["flops"])])
    expected = np.linalg.lstsq(design, np.log(runs["loss"]), rcond=None)[0][-1]
    assert fits["complete"].exponent()[0] == pytest.approx(expected)
    assert fits["complete"].table["exponent"].to_numpy() == pytest.approx(expected)


def test_partial_pooling_lies_between(fits):
    partial, alone = fits["partial"].table, fits["none"].table["exponent"]
    mean = fits["partial"].exponent()[0]
    share = (partial["exponent"] - mean) / (alone - mean)
    assert ((share > 0) & (share < 1)).all()
    assert partial["exponent"].std() < alone.std()


@pytest.mark.filterwarnings("ignore:The MLE may be on the boundary")
def test_partial_pooling_is_statsmodels_and_its_posterior(simulated, fits):
    """Without the penalty, and given its variances, the tasks' exponents are statsmodels' own."""
    from statsmodels.regression.mixed_linear_model import MixedLM

    from scaling_analysis.estimators.pooled_lines import posterior

    runs, _ = simulated
    runs = runs.sort_values(["task", "flops"])
    fit = fits["partial"]
    u = np.log(runs["flops"].to_numpy()) - fit.centre
    z, task = np.log(runs["loss"].to_numpy()), runs["task"].to_numpy()
    exog = np.column_stack([pd.get_dummies(task).to_numpy(float), u])
    found = MixedLM(z, exog, groups=task, exog_re=u[:, None]).fit(reml=True, method="powell")
    lines = fit.lines._replace(
        mean=float(found.fe_params[-1]),
        spread=float(found.cov_re[0, 0]),
        noise=float(np.sqrt(found.scale)),
    )
    for name, effect in found.random_effects.items():
        own = task == name
        line = posterior(u[own], z[own], lines).line
        # statsmodels keeps the intercept at its fixed estimate.
        assert line[1] == pytest.approx(lines.mean + float(effect.iloc[0]), abs=3e-4)
    # The penalty moves the spread away from zero, by about (tasks - 1) / (tasks - 2) in variance.
    assert 1.0 < fit.lines.spread / lines.spread < 1.6


def test_better_than_alone_where_points_are_few():
    error = {"partial": [], "none": []}
    for seed in range(4):
        runs, truth = simulate(np.random.default_rng(seed), tasks=12, points=4, noise=0.15)
        for pooling, missed in error.items():
            table = sa.fit_pooled(runs, pooling=pooling).table
            missed += [row.exponent - truth[row.task][1] for row in table.itertuples()]
    assert np.std(error["partial"]) < 0.8 * np.std(error["none"])


def test_a_new_task_from_two_points():
    """Nominal 90 %: the partially pooled interval covers, a shared exponent's does not."""
    covered, complete, sets = 0, 0, 40
    for seed in range(sets):
        runs, truth = simulate(np.random.default_rng([1, seed]), tasks=9)
        new = (runs["task"] == "task 8").to_numpy()
        few = runs[new].nsmallest(2, "flops")
        a, b = truth["task 8"]
        expected = np.exp(a + b * (np.log(1e19) - MIDDLE))
        for pooling in ("partial", "complete"):
            fit = sa.fit_pooled(runs[~new], pooling=pooling)
            found = fit.predict_new(few["flops"], few["loss"], 1e19).iloc[0]
            inside = found["lo"] < expected < found["hi"]
            covered += inside and pooling == "partial"
            complete += inside and pooling == "complete"
            assert found["run_lo"] < found["lo"] < found["value"] < found["hi"] < found["run_hi"]
    assert covered / sets >= 0.8
    assert complete < covered - 5


def test_more_points_narrow_a_new_task(simulated, fits):
    runs, _ = simulated
    new = runs[runs["task"] == "task 0"].sort_values("flops")
    widths = []
    for n in (1, 3, 6):
        found = fits["partial"].predict_new(new["flops"][:n], new["loss"][:n], 1e19).iloc[0]
        widths.append(np.log(found["hi"] / found["lo"]))
    assert widths[0] > widths[1] > widths[2]


def test_exponent_of_a_new_task_is_wider_than_that_of_the_typical_one(fits):
    value, lo, hi = fits["partial"].exponent()
    new = fits["partial"].new_exponent()
    assert new[0] < lo < value < hi < new[1]
    with pytest.raises(FitError, match="needs pooling='partial'"):
        fits["complete"].new_exponent()


def test_a_wrong_shared_exponent_is_said():
    runs, _ = simulate(np.random.default_rng(2), spread=0.06)
    fit = sa.fit_pooled(runs, pooling="complete")
    assert fit.status == FitStatus.DOUBTFUL
    assert "the tasks do not share one exponent (F test" in fit.messages[0]


def test_optima_of_every_task():
    parts = []
    for t, exponent in enumerate((0.45, 0.5, 0.55, 0.5)):
        law = SymmetricSurface(
            floor=0.5,
            scale=70.0,
            exponent=0.17,
            params_scale=0.05,
            params_exponent=exponent,
            curvature=0.12,
        )
        runs = sa.simulate_runs(
            law, np.geomspace(1e5, 1e9, 25), np.geomspace(1e15, 1e18, 7), run_noise=0.002, rng=t
        )
        parts.append(runs.assign(task=f"game {t}", run_id=runs["run_id"] + f"-{t}"))
    fit = sa.fit_pooled(pd.concat(parts), quantity="params_opt", window=9)
    assert fit.x == "budget"
    assert fit.exponent()[0] == pytest.approx(0.5, abs=0.03)
    assert fit.table["exponent"].to_numpy() == pytest.approx([0.45, 0.5, 0.55, 0.5], abs=0.03)


def test_scores_that_are_not_positive_go_without_logs():
    runs, _ = simulate(np.random.default_rng(4))
    runs["score"] = np.log(runs["loss"]) - 0.3
    fit = sa.fit_pooled(runs, "score", pooling="complete")
    assert fit.space == "linear"
    assert fit.exponent()[0] == pytest.approx(sa.fit_pooled(runs, pooling="complete").exponent()[0])
    with pytest.raises(FitError, match="logs need positive values"):
        sa.fit_pooled(runs, "score", space="log")


def test_checkpoints_of_a_run_are_named(simulated):
    runs, _ = simulated
    apart = runs["samples"] * np.linspace(1.0, 1.01, len(runs))
    fit = sa.fit_pooled(runs.assign(run_id="one", samples=apart), pooling="complete")
    assert "40 rows are further checkpoints of a run" in fit.messages[-1]


@pytest.mark.parametrize("pooling", ["partial", "complete", "none"])
def test_round_trip(fits, pooling):
    fit = fits[pooling]
    back = fit_from_dict(json.loads(json.dumps(fit.to_dict(), allow_nan=False)))
    assert back.summary() == fit.summary()
    first, second = (f.predict("task 1", [1e19, 1e20]) for f in (fit, back))
    pd.testing.assert_frame_equal(first, second)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "full"}, "pooling is 'full'"),
        ({"quantity": "samples_opt"}, "quantity is 'samples_opt'"),
        ({"target": "score"}, "no column 'score'"),
        ({"x": "tokens"}, "x is 'tokens': choose"),
        ({"x": "params"}, "all points are at params = 1e"),
        ({"level": 90}, "level is 90"),
        ({"window": 5}, "window= is an option of quantity='params_opt'"),
        ({"quantity": "value_opt"}, "no task has isoFLOP optima"),
    ],
)
def test_refusals(simulated, options, message):
    with pytest.raises(FitError, match=message):
        sa.fit_pooled(simulated[0], **options)


def test_too_little(simulated):
    runs, _ = simulated
    with pytest.raises(FitError, match="2 tasks: pooling='partial' needs 3"):
        sa.fit_pooled(runs[runs["task"].isin(["task 0", "task 1"])])
    with pytest.raises(FitError, match="pooling needs the column 'task'"):
        sa.fit_pooled(runs.drop(columns="task"))
    few = runs.groupby("task").head(2)
    with pytest.raises(FitError, match="tasks cannot be told from noise"):
        sa.fit_pooled(few)
    with pytest.raises(FitError, match="task 'task 0' has 2 points: 3 are needed"):
        sa.fit_pooled(few, pooling="none")


def test_questions_that_cannot_be_answered(fits):
    with pytest.raises(FitError, match="no task 'chess' was fitted"):
        fits["partial"].predict("chess", 1e19)
    with pytest.raises(FitError, match="0 points of the new task: pooling='partial' needs 1"):
        fits["partial"].predict_new([], [], 1e19)
    with pytest.raises(FitError, match="x_new must be positive"):
        fits["partial"].predict_new([1e16], [1.0], -1.0)
    with pytest.raises(FitError, match="y of the task is -1: logs need positive values"):
        fits["partial"].predict_new([1e16], [-1.0], 1e19)
