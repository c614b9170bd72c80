"""Ladders, plans around a forecast, and plan files."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import PlanError, RunLogError, ScalingWarning
from scaling_analysis.forecasting.plan_files import (
    PLAN_COLUMNS,
    join_budgets,
    read_plan,
    split_budgets,
    write_plan,
)
from scaling_analysis.forecasting.planning import plan_forecast, plan_ladder
from scaling_analysis.runlog import schema

FLOPS, PARAMS = (1e10, 3e12), (4e3, 4e5)


def ladder(**changes):
    options = {"task": "nethack", "agent": "lstm", "seeds": 3}
    return plan_ladder(
        changes.pop("flops", FLOPS), changes.pop("params", PARAMS), **(options | changes)
    )


def cells(plan):
    """Every (size, budget) pair of a plan's first seed."""
    first = plan[plan["seed"] == plan["seed"].min()]
    return pd.DataFrame(
        [(n, c) for n, text in zip(first["params"], first["snapshots"], strict=True)
         for c in split_budgets(text)],
        columns=["params", "budget"],
    )  # fmt: skip


def test_ladder_has_the_budgets_sizes_and_seeds_asked_for():
    plan = ladder(budgets=6)
    assert list(plan.columns) == list(PLAN_COLUMNS)
    assert sorted(cells(plan)["budget"].unique()) == [1e10, 3e10, 1e11, 3e11, 1e12, 3e12]
    assert plan["params"].nunique() >= 6
    assert plan["params"].min() == 4e3
    assert plan["params"].max() == 4e5
    assert {tuple(s) for _, s in plan.groupby("params")["seed"]} == {(0, 1, 2)}
    assert plan["run_id"].is_unique


def test_runs_of_no_named_agent_have_names_that_are_no_options():
    names = ladder(agent="")["run_id"]
    assert names.is_unique
    assert names.str.fullmatch(r"\d+-\d+e\d+-s\d").all()


def test_ladder_is_a_band_around_the_expected_optimum():
    table = cells(ladder())
    counts = table.groupby("budget")["params"].count()
    assert (counts >= 5).all()
    middle = table.groupby("budget")["params"].apply(lambda n: np.exp(np.log(n).mean()))
    assert middle.is_monotonic_increasing
    assert len(table) < 0.8 * table["budget"].nunique() * table["params"].nunique()
    expected = np.sqrt(PARAMS[0] * PARAMS[1]) * np.sqrt(1e10 / np.sqrt(FLOPS[0] * FLOPS[1]))
    at_first = table.loc[table["budget"] == 1e10, "params"]
    assert at_first.min() < expected < at_first.max()


def test_a_run_is_one_size_and_seed_to_its_largest_budget():
    plan = ladder()
    assert not plan.duplicated(["params", "seed"]).any()
    largest = [split_budgets(text)[-1] for text in plan["snapshots"]]
    np.testing.assert_array_equal(plan["budget"], largest)
    np.testing.assert_allclose(plan["samples"], plan["budget"] / (6 * plan["params"]))


def test_cost_is_the_constant_k_or_flop_a_sample():
    constant = ladder(cost=20.0)
    counted = ladder(cost=lambda n: 20.0 * n)
    pd.testing.assert_frame_equal(constant, counted)
    np.testing.assert_allclose(constant["samples"] * 20 * constant["params"], constant["budget"])


def test_epochs_are_computed_and_capped():
    plan = ladder(unique_samples=15e6, max_epochs=2.0)
    np.testing.assert_allclose(plan["epochs"], plan["samples"] / 15e6)
    assert plan["epochs"].max() <= 2.0
    assert cells(plan).groupby("budget").size().min() >= 5
    assert cells(ladder()).query("budget == 3e12")["params"].min() == 15e3
    assert cells(plan).query("budget == 3e12")["params"].min() == 29e3


def test_few_unique_samples_thin_the_ladder_aloud_then_refuse():
    with pytest.warns(ScalingWarning, match=r"fewer than 5 sizes.*3e\+12 \(4\)"):
        ladder(unique_samples=5e6)
    with pytest.raises(PlanError, match=r"budget 3e\+12 FLOP keeps 1 of 8 sizes under 2 epochs"):
        ladder(unique_samples=1e6)


def test_centre_moves_the_band():
    low = cells(ladder(centre=lambda c: np.full(c.shape, 8e3)))
    high = cells(ladder(centre=lambda c: np.full(c.shape, 2e5)))
    assert low["params"].max() < 4e5
    assert high["params"].min() > 8e3


def test_a_ladder_may_have_the_budgets_of_a_log():
    own = [1e10, 2e11, 1.9999e12, 3e12]
    assert sorted(set(cells(ladder(budgets=own[::-1]))["budget"])) == own


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"flops": (1e12, 1e10)}, r"flops=\(1e\+12, 1e\+10\): give a smallest"),
        ({"params": (0.0, 4e5)}, r"params=\(0, 400000\)"),
        ({"params": (4e3, np.nan)}, r"params=\(4000, nan\)"),
        ({"budgets": 1}, "at least 2 are needed"),
        ({"budgets": [1e10, 1e11]}, r"must be those of flops, 1e\+10 and 3e\+12"),
        ({"sizes": 2}, "a minimum needs at least 3 sizes"),
        ({"seeds": 0}, "at least one seed"),
        ({"cost": -6.0}, "one positive number for each"),
        ({"cost": lambda n: 6.0}, "one positive number for each"),
        ({"unique_samples": 0.0}, "unique_samples=0.0 must be a positive number"),
        ({"centre": lambda c: -c}, "not a positive size for every budget"),
        ({"batch_size": lambda n: n * np.nan}, "batch_size gives"),
        ({"seeds": [1, 1]}, "seeds and sizes must be distinct"),
    ],
)
def test_ladder_refuses_bad_input(changes, message):
    with pytest.raises(PlanError, match=message):
        ladder(**changes)


def a_forecast():
    """What plan_forecast reads of a forecast."""
    table = pd.DataFrame(
        {
            "flops": [1e13, 2e13, 1e13],
            "method": ["combined", "combined", "persistence"],
            "params_opt": [1.0e5, 1.4e5, 5e4],
        }
    )
    return SimpleNamespace(
        table=table,
        flops_per_sample=lambda n: 8.0 * n,
        hash="abc",
        task="nethack",
        agent="lstm",
        protocol="v1",
    )


def test_forecast_plan_surrounds_the_forecast_size():
    plan = plan_forecast(a_forecast(), [1e13, 2e13], seeds=2, unique_samples=1e7)
    assert len(plan) == 2 * 3 * 2
    first = plan[plan["budget"] == 1e13]
    assert sorted(first["params"].unique()) == [5e4, 1e5, 2e5]
    assert set(plan["forecast_hash"]) == {"abc"}
    assert set(plan["protocol"]) == {"v1"}
    np.testing.assert_allclose(plan["samples"], plan["budget"] / (8 * plan["params"]))
    np.testing.assert_allclose(plan["epochs"], plan["samples"] / 1e7)
    assert [split_budgets(t).tolist() for t in first["snapshots"]] == [[1e13]] * 6


def test_budgets_with_near_optima_share_their_runs():
    own = plan_forecast(a_forecast(), [1e13, 2e13], seeds=2, share=1.3)
    pd.testing.assert_frame_equal(own, plan_forecast(a_forecast(), [1e13, 2e13], seeds=2))
    plan = plan_forecast(a_forecast(), [1e13, 2e13], seeds=2, share=1.5)
    middle = (1.0e5 * 1.4e5) ** 0.5
    np.testing.assert_allclose(plan["params"].unique(), middle * np.array([0.5, 1, 2]), rtol=1e-5)
    assert len(plan) == 3 * 2
    assert set(plan["snapshots"]) == {"1e13;2e13"}
    assert set(plan["budget"]) == {2e13}
    np.testing.assert_allclose(plan["samples"], 2e13 / (8 * plan["params"]))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"share": 0.5}, "a factor of 1 or more"),
        ({"flops": 3e13}, r"3e\+13 FLOP is not in the forecast, which covers 1e\+13, 2e\+13"),
        ({"spread": (0.5, 2)}, "with 1 among them"),
        ({"spread": (0, 1)}, "positive factors"),
        ({"method": "magic"}, "it has combined, persistence"),
    ],
)
def test_forecast_plan_refuses_bad_input(changes, message):
    options = {"flops": [1e13]} | changes
    with pytest.raises(PlanError, match=message):
        plan_forecast(a_forecast(), **options)


def test_plan_file_round_trip(tmp_path):
    path = tmp_path / "plan.csv"
    plan = ladder(flops=(1.2345678e10, 3e12), unique_samples=3e7, learning_rate=1e-3)
    write_plan(plan, path)
    pd.testing.assert_frame_equal(read_plan(path), plan)
    assert [p.name for p in tmp_path.iterdir()] == ["plan.csv"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("budget", "bugdet", r"plan.csv.*budget"),
        ("4000.0", "four", r"plan.csv, line 2, column 'params': 'four'"),
        ("1e10;3e10", "3e10;1e10", r"s0, column 'snapshots': .* increasing"),
        ("1e10;3e10", "1e10;x", r"s0, column 'snapshots': .* joined by"),
        ("1e10;3e10", "1e10;4e10", r"s0: budget 3e\+10 is not the largest"),
        ("lstm-4000-3e10-s1", "lstm-4000-3e10-s0", r"line 3.*planned twice"),
    ],
)
def test_plan_file_errors_name_place_and_column(tmp_path, old, new, message):
    path = tmp_path / "plan.csv"
    write_plan(ladder(), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises((PlanError, RunLogError), match=message):
        read_plan(path)


def test_a_plan_made_by_hand_needs_what_the_schema_requires(tmp_path):
    path = tmp_path / "plan.csv"
    path.write_text("run_id,params,budget,learning_rate\nmine,9000,6e9,0.005\n")
    plan = read_plan(path)
    assert list(plan) == list(schema_columns())
    row = plan.iloc[0]
    assert (row["snapshots"], row["seed"], row["learning_rate"]) == ("6e09", 0, 0.005)
    assert row["agent"] == row["protocol"] == row["forecast_hash"] == ""
    assert np.isnan(row["samples"])
    path.write_text("run_id,params\nmine,9000\n")
    with pytest.raises(RunLogError, match="budget"):
        read_plan(path)


def schema_columns():
    return (column.name for column in schema.PLAN_COLUMNS)


def test_plan_file_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(PlanError, match="cannot write the plan"):
        write_plan(ladder(), tmp_path / "file" / "plan.csv")
    with pytest.raises(PlanError, match="column budget is missing"):
        write_plan(ladder().drop(columns="budget"), tmp_path / "plan.csv")


def test_budgets_as_text_are_exact():
    budgets = [1e10, 2.0**53 + 2, 1 / 3]
    np.testing.assert_array_equal(split_budgets(join_budgets(budgets)), sorted(budgets))
