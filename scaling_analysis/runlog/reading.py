"""Reading run logs, episode tables and plans into plain data frames, checked to the last cell."""

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.building import build_runs, place_in, together
from scaling_analysis.runlog.checking import (
    check_present,
    check_values,
    convert,
    listed,
    missing_columns,
    resolve_names,
)
from scaling_analysis.runlog.schema import (
    EPISODE_COLUMNS,
    EPISODE_KEY,
    PLAN_COLUMNS,
    RUN_COLUMNS,
    Column,
)
from scaling_analysis.runlog.selecting import select
from scaling_analysis.runlog.tables import Source, Table, read_table


def load_runs(
    source: Source | Sequence[Source],
    columns: Mapping[str, str] | None = None,
    cost_constant: float | None = None,
    agent: str | None = None,
    task: str | None = None,
    where: str | None = None,
    exclude: Mapping[str, str] | None = None,
    protocol: str | None = None,
) -> pd.DataFrame:
    """Read a run log: one row an evaluated checkpoint, columns as in `schema.RUN_COLUMNS`.

    Parameters
    ----------
    source
        A path to CSV, Parquet or JSON lines, a pandas, polars or pyarrow table, or a list of these,
        whose rows are put together.
    columns
        Names of the table under names of the schema, `{"params": "n_params"}`. Columns that the
        schema does not know are kept as they are.
    cost_constant
        k of C = k N D [FLOP per parameter and sample]; 6 for dense transformers. With it a missing
        one of params, samples and flops is computed from the other two, and the column `derived`
        says where. Without it a missing one is an error.
    agent, task
        Keep the rows of this model family and of this game or data set only.
    where
        A condition on a row as `DataFrame.query` reads it, such as "budget >= 1e15". Rows that do
        not meet it get status "excluded" and the condition as their note.
    exclude
        Runs to leave out with the reason, `{"51ju4o92": "restarted by hand"}`: status "excluded",
        the reason as the note.
    protocol
        Evaluation protocol of the rows that state none; a mean return needs one.

    Returns
    -------
    DataFrame
        Numbers are float64. run_id, params, samples, flops, status and note are always there.
        Rows are annotated and never dropped: an identical second row has status "duplicate".

    Raises
    ------
    RunLogError
        Naming file, line, column, value and remedy.

    Examples
    --------
    >>> import pandas as pd
    >>> runs = load_runs(pd.DataFrame({"params": [1e6], "samples": [2e7], "loss": [3.1]}),
    ...                  cost_constant=6)
    >>> float(runs.flops[0]), runs.derived[0], runs.status[0]
    (120000000000000.0, 'flops', 'ok')
    """
    tables = _tables(source, RUN_COLUMNS, columns)
    runs = build_runs(tables, columns, cost_constant=cost_constant, protocol=protocol)
    for run_id, reason in (exclude or {}).items():
        rows = runs.run_id == run_id
        if not rows.any():
            names = list(runs.run_id.unique())
            near = difflib.get_close_matches(run_id, names, n=3)
            raise RunLogError(
                f"exclude: no run {run_id!r} in the log. "
                + (f"Close to it: {', '.join(near)}." if near else f"It has: {listed(names)}.")
            )
        runs.loc[rows, "status"] = "excluded"
        runs.loc[rows, "note"] = reason
    if where is not None:
        left_out = ~_meets(runs, where) & (runs.status == "ok").to_numpy()
        runs.loc[left_out, "status"] = "excluded"
        runs.loc[left_out, "note"] = f"not where {where}"
    if agent is not None or task is not None:
        runs = select(runs, agent, task, mixture=True).reset_index(drop=True)
    return runs


def load_episodes(
    source: Source | Sequence[Source], columns: Mapping[str, str] | None = None
) -> pd.DataFrame:
    """Read returns of single episodes, columns as in `schema.EPISODE_COLUMNS`.

    One row an episode: run_id, samples (and budget, where two budgets share a checkpoint), episode,
    return [points], length [steps]. Sources are those of `load_runs`.

    Examples
    --------
    >>> played = pd.DataFrame({"run_id": "a", "samples": 1e6, "episode": [0, 1],
    ...                        "return": [30.0, 50.0]})
    >>> float(load_episodes(played)["return"].mean())
    40.0
    """
    parts: list[tuple[Table, pd.DataFrame]] = []
    for table in _tables(source, EPISODE_COLUMNS, columns):
        table, frame = _checked(table, EPISODE_COLUMNS, columns)
        parts.append((table, frame))
    episodes = together([part for _, part in parts])
    key = [name for name in EPISODE_KEY if name in episodes]
    again = np.flatnonzero(episodes.duplicated(key).to_numpy())
    if len(again):
        second = int(again[0])
        same = (episodes[key] == episodes.loc[second, key]).all(axis=1).to_numpy()
        place = place_in([(table, len(part)) for table, part in parts])
        raise RunLogError(
            f"{place(int(np.flatnonzero(same)[0]))} and {place(second)} are the same episode "
            f"({', '.join(f'{name}={episodes.loc[second, name]}' for name in key)}). Delete one, "
            "or number the episodes of a checkpoint 0, 1, 2, ..."
        )
    return episodes


def load_plan(source: Source, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a plan: one row a run to train, columns as in `schema.PLAN_COLUMNS`."""
    (table,) = _tables(source, PLAN_COLUMNS, columns)
    table, plan = _checked(table, PLAN_COLUMNS, columns)
    again = np.flatnonzero(plan.run_id.duplicated().to_numpy())
    if len(again):
        raise RunLogError(
            f"{table.name}, {table.place(int(again[0]))}, column 'run_id': "
            f"{plan.run_id[again[0]]!r} is planned twice. Name every run once."
        )
    return plan


def _tables(
    source: Source | Sequence[Source], schema: tuple[Column, ...], columns: Mapping[str, str] | None
) -> list[Table]:
    sources = list(source) if isinstance(source, list | tuple) else [source]
    if not sources:
        raise RunLogError("no run log was given: the list of sources is empty.")
    kind_of = {column.name: column.kind for column in schema}
    tables = []
    for number, one in enumerate(sources, 1):
        name = str(one) if isinstance(one, str) else "table"

        def kinds(header: list[str], name: str = name) -> dict[str, str]:
            kinds_of: dict[str, str] = {}
            for ours, theirs in resolve_names(name, header, schema, columns).items():
                kind = "text" if kind_of[ours] == "text" else "number"
                # A column that is read both ways is kept as text and converted later.
                kinds_of[theirs] = kind if kinds_of.get(theirs, kind) == kind else "text"
            return kinds_of

        table = read_table(one, number if len(sources) > 1 else 0, kinds)
        if table.frame.empty:
            raise RunLogError(f"{table.name}: there is a header and no row.")
        tables.append(table)
    return tables


def _checked(
    table: Table, schema: tuple[Column, ...], columns: Mapping[str, str] | None
) -> tuple[Table, pd.DataFrame]:
    header = list(table.frame.columns)
    names = resolve_names(table.name, header, schema, columns)
    absent = [column.name for column in schema if column.required == "yes"]
    absent = [name for name in absent if name not in names]
    if absent:
        raise RunLogError(missing_columns(table.name, absent, header, schema))
    table = replace(table, names=names)
    frame = convert(table, schema)
    every = np.ones(len(frame), dtype=bool)
    for column in schema:
        if column.required == "yes":
            check_present(table, frame, column, every)
    check_values(table, frame, schema, every)
    return table, frame


def _meets(runs: pd.DataFrame, condition: str) -> NDArray[np.bool_]:
    try:
        answer = runs.eval(condition)
    except Exception as error:  # the condition is the user's own text: any error is theirs to see
        raise RunLogError(
            f"where={condition!r}: {error}. Write a condition on the columns, such as "
            "\"flops >= 1e15 and status == 'ok'\". Columns that are mapped have the names of the "
            f"schema: {listed(list(runs.columns))}."
        ) from error
    if not isinstance(answer, pd.Series) or answer.dtype != np.bool_:
        raise RunLogError(
            f"where={condition!r} is no condition: it does not give true or false for every row. "
            'Write one such as "budget >= 1e15".'
        )
    return answer.to_numpy(dtype=bool)
