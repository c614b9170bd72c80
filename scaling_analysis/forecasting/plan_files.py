"""plan.csv: the columns of a plan, writing it and reading it back."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import PlanError
from scaling_analysis.runlog import load_plan, schema
from scaling_analysis.runlog.writing import replacing

PLAN_COLUMNS = tuple(column.name for column in schema.PLAN_COLUMNS)
"""One row a run: `budget` is its largest, `snapshots` all of its budgets joined by ";", and
`forecast_hash` names the forecast that it tests (empty in a first ladder). Empty learning_rate and
batch_size are the trainer's to choose; empty epochs: the supply of samples was not stated."""


def write_plan(plan: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a plan as CSV, atomically: the file is either the old one or the whole new one.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "plan.csv"
    >>> write_plan(sa.plan_ladder((1e10, 1e12), (4e3, 1e5), task="game", agent="lstm"), path)
    >>> len(read_plan(path)) > 0
    True
    """
    target = Path(path)
    missing = [c for c in PLAN_COLUMNS if c not in plan.columns]
    if missing:
        raise PlanError(f"not a plan: column {', '.join(missing)} is missing")
    try:
        with replacing(target) as file:
            plan.to_csv(file, index=False, lineterminator="\n")
    except OSError as error:
        raise PlanError(f"{target}: cannot write the plan ({error.strerror})") from error


def read_plan(path: str | os.PathLike[str]) -> pd.DataFrame:
    """Read a plan and check it.

    Returns
    -------
    DataFrame
        The columns `PLAN_COLUMNS`, counts as float64, seed as int64, empty text as "". A plan made
        by hand may leave out what is not required: seeds are then 0, the only snapshot is the
        budget, and the trainer chooses the rest.

    Raises
    ------
    RunLogError
        The file is no table, lacks a column, or holds a value that its column does not; the message
        names file, line and column.
    PlanError
        The snapshots of a run are no list of budgets that ends with its own.

    Examples
    --------
    >>> read_plan("plan.csv")[["run_id", "params", "snapshots"]]            # doctest: +SKIP
    """
    plan = load_plan(path)
    for column in schema.PLAN_COLUMNS:
        if column.name not in plan:
            plan[column.name] = "" if column.kind == "text" else np.nan
    texts = [c.name for c in schema.PLAN_COLUMNS if c.kind == "text"]
    plan[texts] = plan[texts].fillna("")
    plan["seed"] = plan["seed"].fillna(0).astype(np.int64)
    alone = plan["snapshots"] == ""
    plan.loc[alone, "snapshots"] = [short_number(budget) for budget in plan.loc[alone, "budget"]]
    for run, text, budget in zip(plan["run_id"], plan["snapshots"], plan["budget"], strict=True):
        try:
            largest = split_budgets(text)[-1]
        except PlanError as error:
            raise PlanError(f"{path}, run {run}, column 'snapshots': {error}") from error
        if largest != budget:
            raise PlanError(
                f"{path}, run {run}: budget {budget:g} is not the largest of its snapshots ({text})"
            )
    return plan[list(PLAN_COLUMNS)]


def join_budgets(budgets: Iterable[float]) -> str:
    """Budgets as the text of the column `snapshots`, increasing: "1e10;3e10"."""
    return ";".join(short_number(b) for b in sorted(budgets))


def short_number(value: float) -> str:
    """The shortest text that reads back as the same number: 3e12, 31300."""
    short = format(float(value), "g")
    return (short if float(short) == value else repr(float(value))).replace("e+", "e")


def split_budgets(text: str) -> NDArray[np.float64]:
    """Budgets [FLOP] from the text of the column `snapshots`, in increasing order.

    Examples
    --------
    >>> split_budgets("1e10;3e10").tolist()
    [10000000000.0, 30000000000.0]
    """
    try:
        values = np.array([float(part) for part in text.split(";")])
    except ValueError as error:
        raise PlanError(f"{text!r} is not a list of budgets joined by ';'") from error
    if not np.all(np.isfinite(values) & (values > 0)) or np.any(np.diff(values) <= 0):
        raise PlanError(f"{text!r} must hold increasing positive budgets")
    return values
