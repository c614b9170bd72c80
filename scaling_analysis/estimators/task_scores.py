"""Scores of runs over many tasks: returns normalised, tables and arrays read and checked."""

from collections.abc import Mapping
from os import PathLike

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.score_tables import ScoreTable, read_score_table

Array = NDArray[np.float64]
Scores = pd.DataFrame | Mapping[str, ArrayLike] | ArrayLike


def normalise_scores(
    runs: pd.DataFrame,
    table: str | PathLike[str] | Mapping[str, tuple[float, float]] | ScoreTable = "atari57",
) -> pd.DataFrame:
    """Returns as scores: 0 is random play, 1 the human or expert of the table.

    Parameters
    ----------
    runs : DataFrame
        task and mean_return [points]; return_se if there is one.
    table : str, path, mapping or ScoreTable
        "atari57" or "nethack", with "-v1" for one version for good; the path of a JSON file;
        {task: (random, reference)} in points.

    Returns
    -------
    DataFrame
        The same rows with `score`, `score_se` where return_se is there, and `score_table`, the
        table's name. Scores are not clipped: below 0 and above 1 are meant.

    Raises
    ------
    FitError
        A task is not in the table, or its ends are no numbers with random < reference.

    Examples
    --------
    >>> runs = pd.DataFrame({"task": ["Breakout", "ALE/Pong-v5"], "mean_return": [16.1, 14.6]})
    >>> normalise_scores(runs)["score"].round(3).tolist()
    [0.5, 1.0]
    """
    for name in ("task", "mean_return"):
        if name not in runs:
            raise FitError(f"normalise_scores needs the column {name!r}")
    reference = read_score_table(table)
    ends = {task: reference.ends(str(task)) for task in runs["task"].unique()}
    low, high = (runs["task"].map({t: e[i] for t, e in ends.items()}).astype(float) for i in (0, 1))
    try:
        returns = runs["mean_return"].astype(float)
    except (TypeError, ValueError) as problem:
        raise FitError(f"mean_return holds something that is no number: {problem}") from None
    if np.isinf(returns).any():
        at = int(np.argmax(np.isinf(returns)))
        raise FitError(f"mean_return is {returns.iloc[at]:g} in row {runs.index[at]}: mend the row")
    out = runs.assign(score=(returns - low) / (high - low))
    if "return_se" in runs:
        out["score_se"] = runs["return_se"] / (high - low)
    return out.assign(score_table=reference.name)


def read_scores(scores: Scores, least: int = 2) -> tuple[list[str], list[Array]]:
    """Names of the tasks, sorted for a table, and the scores of each, checked."""
    if isinstance(scores, pd.DataFrame):
        named = _from_table(scores)
    elif isinstance(scores, Mapping):
        named = {str(task): _numbers(values) for task, values in scores.items()}
    else:
        array = _numbers(scores)
        if array.ndim != 2:
            raise FitError(f"scores have shape {array.shape}: give (tasks, runs), or a table")
        named = {f"task {i}": row for i, row in enumerate(array)}
    if not named:
        raise FitError("there are no scores")
    for task, values in named.items():
        if values.ndim != 1:
            raise FitError(f"the scores of {task!r} have shape {values.shape}: give one a run")
        bad = ~np.isfinite(values)
        if bad.any():
            raise FitError(
                f"score {int(np.argmax(bad))} of {task!r} is {values[bad][0]}: leave that run out, "
                "and say so; a missing score is not 0"
            )
        if len(values) < least:
            raise FitError(
                f"{task!r} has {len(values)} run{'s' * (len(values) != 1)}: nothing is known of "
                f"how runs of it spread, so no interval can be given. Run at least {least} a task"
            )
    return list(named), list(named.values())


def _from_table(table: pd.DataFrame) -> dict[str, Array]:
    for name in ("task", "run_id", "score"):
        if name not in table:
            raise FitError(f"scores need the column {name!r}; see normalise_scores")
    if table["task"].isna().any():
        at = table.index[table["task"].isna()][0]
        raise FitError(f"row {at} of the scores has no task")
    if "protocol" in table:
        mixed = table.groupby("task")["protocol"].nunique()
        if (mixed > 1).any():
            raise FitError(
                f"the scores of {mixed.idxmax()!r} come from {mixed.max()} evaluation protocols: "
                "they are not comparable, choose one"
            )
    again = table.duplicated(["task", "run_id"])
    if again.any():
        row = table[again].iloc[0]
        raise FitError(
            f"run {row['run_id']!r} has more than one row for {row['task']!r}: choose one "
            "checkpoint a run beforehand, rows of a run are not independent"
        )
    return {
        str(task): rows.to_numpy(dtype=float)
        for task, rows in table.sort_values("run_id").groupby("task", sort=True)["score"]
    }


def _numbers(scores: ArrayLike) -> Array:
    try:
        return np.asarray(scores, dtype=float)
    except (TypeError, ValueError) as problem:
        raise FitError(
            f"scores are no table of numbers: {problem}. Tasks of different numbers of runs go "
            "into a mapping, {task: scores}"
        ) from None
