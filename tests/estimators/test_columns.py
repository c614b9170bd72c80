"""Columns as callers give them: what is refused, and what the refusal says."""

import datetime

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.columns import (
    check_decades,
    column,
    positive_column,
    power_of_two,
    run_names,
    standard_errors,
)


@pytest.mark.parametrize(
    "values",
    [[1, 2], (1.0, 2.0), np.array([1, 2], dtype=np.int8), pd.Series([1.0, 2.0], index=[7, 9])],
    ids=["list", "tuple", "small integers", "series"],
)
def test_numbers_of_any_kind_are_a_column(values):
    out = column("y", values)
    assert out.dtype == np.float64
    assert out.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["1", "2"], "y holds something that is no number: its type is <U1, as in "),
        ([1.0, "many"], "y holds something that is no number"),
        (np.array([1.0, "2"], dtype=object), r"no number: y\[1\] is '2'"),
        ([1j, 2.0], "y holds something that is no number: its type is complex128"),
        ([datetime.date(2024, 1, 1)] * 2, "y holds something that is no number"),
        (pd.to_datetime(["2024-01-01"] * 2), "no number: its type is datetime64"),
        ([[1.0], [1.0, 2.0]], "y holds something that is no number"),
        ([1.0, None], r"y\[1\] is nan: leave that point out"),
        (pd.Series([1, None], dtype="Int64"), r"y\[1\] is nan|no number"),
        ([1.0, -np.inf], r"y\[1\] is -inf"),
        (3.0, r"y has shape \(\): give one value a point"),
        (np.ones((2, 2)), r"y has shape \(2, 2\)"),
    ],
)
def test_what_is_no_number_is_refused_with_its_place(values, message):
    with pytest.raises(FitError, match=message):
        column("y", values)


def test_positive_means_positive():
    assert positive_column("x", [5e-324, 1e-300]).min() > 0
    with pytest.raises(FitError, match=r"x\[1\] = 0: a law in logs needs positive numbers"):
        positive_column("x", [1.0, 0.0])


def test_a_value_that_is_decades_off_is_named():
    check_decades("y", np.array([1e-30, 1e29]))
    with pytest.raises(FitError, match=r"y goes from 2 at \[0\] to 1e\+300 at \[2\]"):
        check_decades("y", np.array([2.0, 3.0, 1e300]))


@given(st.floats(min_value=5e-324, max_value=1.79e308))
def test_a_power_of_two_divides_exactly(size):
    unit = power_of_two(size)
    assert unit <= size < 2 * unit or size == unit
    assert np.frexp(unit)[0] == 0.5
    assert (size / unit) * unit == size
    assert power_of_two(0.0) == 1.0


def test_standard_errors_and_runs_go_with_the_points():
    assert standard_errors([0.0, 0.1], 2).tolist() == [0.0, 0.1]
    with pytest.raises(FitError, match=r"y_se\[1\] = -0.1 is negative"):
        standard_errors([0.0, -0.1], 2)
    assert run_names([1, 2], 2).tolist() == ["1", "2"]
    for missing in (None, np.nan, pd.NA):
        with pytest.raises(FitError, match=r"run\[1\] is missing"):
            run_names(np.array(["a", missing], dtype=object), 2)
