import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.estimators.selection import select_rows


@pytest.fixture
def runs():
    return sa.load_runs(
        pd.DataFrame(
            {
                "run_id": list("abcd"),
                "agent": "lstm",
                "task": "nethack",
                "params": [1e5, 1e6, 1e7, 1e8],
                "samples": 1e9,
                "flops": [6e14, 6e15, 6e16, 6e17],
                "budget": [6e14, 6e15, 6e16, np.nan],
                "loss": [1.0, 0.8, np.nan, 0.5],
                "status": ["ok", "ok", "ok", "ok"],
            }
        )
    )


def test_usable_rows_get_a_fresh_index(runs):
    rows = select_rows(runs, "loss")
    assert rows["run_id"].tolist() == ["a", "b", "d"]
    assert rows.index.tolist() == [0, 1, 2]


def test_excluded_rows_stay_out(runs):
    runs.loc[1, "status"] = "excluded"
    assert select_rows(runs, "loss")["run_id"].tolist() == ["a", "d"]


def test_rows_without_a_needed_value_stay_out(runs):
    needs = ("params", "samples", "flops", "budget")
    assert select_rows(runs, "loss", needs=needs)["run_id"].tolist() == ["a", "b"]


def test_another_column_may_stand_for_the_size(runs):
    rows = select_rows(runs.assign(params_core=runs["params"] / 2), "loss", size="params_core")
    assert rows["params"].tolist() == [5e4, 5e5, 5e7]


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        ({}, {"target": "score"}, sa.FitError, "target is 'score'"),
        ({}, {"size": "width"}, sa.FitError, "size='width'"),
        ({}, {"needs": ("wall_seconds",)}, sa.FitError, "needs the column 'wall_seconds'"),
        ({"flops": 0.0}, {}, sa.FitError, "flops is 0 in row 0: it must be positive"),
        ({"params": np.nan}, {}, sa.FitError, "no row has a value in each of params"),
        ({"agent": list("xxyy")}, {}, sa.RunLogError, "mixes 2 values of agent"),
        ({"loss": np.nan}, {}, sa.RunLogError, "no row has status ok and a finite loss"),
        ({}, {"target": "mean_return"}, sa.RunLogError, "no column 'mean_return'"),
    ],
)
def test_what_cannot_be_selected_is_refused(runs, change, options, error, message):
    with pytest.raises(error, match=message):
        select_rows(runs.assign(**change), **({"target": "loss"} | options))


def test_returns_of_two_protocols_are_not_compared(runs):
    mixed = runs.assign(mean_return=10.0, protocol=list("pqpq"))
    with pytest.raises(sa.RunLogError, match="2 evaluation protocols cannot be compared"):
        select_rows(mixed, "mean_return")


def test_a_log_that_is_there_twice_is_refused(runs):
    twice = pd.concat([runs, runs])
    for fit in (sa.fit_parametric, sa.fit_isoflop, sa.fit_envelope):
        with pytest.raises(sa.RunLogError, match="repeat the checkpoint of another row, first run"):
            fit(twice)
    assert len(select_rows(sa.load_runs([runs, runs]), "loss")) == len(select_rows(runs, "loss"))


def test_equal_results_of_two_runs_are_two_runs(runs):
    copies = runs.assign(run_id=runs["run_id"] + "-again")
    assert len(select_rows(pd.concat([runs, copies]), "loss")) == 2 * len(select_rows(runs, "loss"))
