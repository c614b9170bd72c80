"""From raw tables to a run log: names, counts, statuses, duplicates, each checked in its place."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.checking import (
    check_present,
    check_values,
    convert,
    missing_columns,
    resolve_names,
)
from scaling_analysis.runlog.schema import (
    COUNTS,
    RUN_COLUMNS,
    RUN_KEY,
    SCHEMA_VERSION,
    STATUSES,
)
from scaling_analysis.runlog.selecting import row_digests
from scaling_analysis.runlog.tables import Table

_COLUMN = {column.name: column for column in RUN_COLUMNS}


def build_runs(
    tables: Sequence[Table],
    columns: Mapping[str, str] | None = None,
    *,
    scale: Mapping[str, float] | None = None,
    cost_constant: float | None = None,
    protocol: str | None = None,
) -> pd.DataFrame:
    """One run log from the rows of all tables; `scale` multiplies numbers, by schema name.

    The other arguments are those of `load_runs`.
    """
    if cost_constant is not None and not 0 < cost_constant < np.inf:
        raise RunLogError(f"cost_constant={cost_constant}: k of C = k N D is a positive number.")
    parts = [
        (table, _build_part(table, columns, scale or {}, cost_constant, protocol))
        for table in tables
    ]
    runs = together([part for _, part in parts])
    _mark_duplicates(runs, place_in([(table, len(part)) for table, part in parts]))
    return runs


def together(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """The rows of all parts; texts that a part does not have are empty."""
    if len(parts) == 1:
        return parts[0]
    frame = pd.concat(parts, ignore_index=True)
    for name in frame.columns:
        column = _COLUMN.get(name)
        if column is not None and column.kind == "text":
            frame[name] = frame[name].fillna("")
    return frame


def place_in(parts: Sequence[tuple[Table, int]]) -> Callable[[int], str]:
    """Where the i-th row of all tables together stands."""
    ends = np.cumsum([length for _, length in parts])

    def place(row: int) -> str:
        part = int(np.searchsorted(ends, row, side="right"))
        table, length = parts[part]
        return f"{table.name}, {table.place(row - int(ends[part]) + length)}"

    return place


def _build_part(
    table: Table,
    columns: Mapping[str, str] | None,
    scale: Mapping[str, float],
    cost_constant: float | None,
    protocol: str | None,
) -> pd.DataFrame:
    header = list(table.frame.columns)
    names = resolve_names(table.name, header, RUN_COLUMNS, columns)
    table = replace(table, names=names)
    frame = convert(table, RUN_COLUMNS)
    every = np.ones(len(frame), dtype=bool)
    for name, factor in scale.items():
        if name not in frame or _COLUMN[name].kind == "text":
            raise RunLogError(
                f"{table.name}: scale={{{name!r}: {factor}}}: no number is read as {name!r}."
            )
        if not 0 < factor < np.inf:
            raise RunLogError(f"scale={{{name!r}: {factor}}}: a scale is a positive number.")
        frame[name] = frame[name] * factor
    if "schema_version" in frame:
        newest = frame.schema_version.max()
        if newest > SCHEMA_VERSION:
            raise RunLogError(
                f"{table.name}: schema_version {newest:g} is newer than {SCHEMA_VERSION}, the "
                "newest known here. Install a newer scaling-analysis."
            )
    status = _status(table, frame)
    ok = (status == "ok").to_numpy()
    _complete_counts(table, frame, ok, cost_constant, header)
    if "loss" not in frame and "mean_return" not in frame:
        targets = ("loss", "mean_return")
        both = missing_columns(table.name, targets, header, RUN_COLUMNS, names)
        raise RunLogError(f"{both} One of the two is needed.")
    check_values(table, frame, RUN_COLUMNS, ok)
    for name in COUNTS:
        check_present(table, frame, _COLUMN[name], ok)
    if "mean_return" in frame:
        _check_protocol(table, frame, ok, protocol)
    if "run_id" in frame:
        remedy = "Name the run, or delete the column where every row is a run of its own"
        check_present(table, frame, _COLUMN["run_id"], every, remedy)
    else:
        frame.insert(0, "run_id", _content_names(frame))
    frame["status"] = status
    frame["note"] = frame["note"] if "note" in frame else pd.Series("", frame.index, dtype=str)
    return frame


def _status(table: Table, frame: pd.DataFrame) -> pd.Series:
    if "status" not in frame:
        return pd.Series("ok", frame.index, dtype=str)
    status = frame["status"].str.strip().replace("", "ok")
    wrong = np.flatnonzero(~status.isin(STATUSES).to_numpy())
    if len(wrong):
        raise RunLogError(
            f"{table.name}, {table.place(int(wrong[0]))}, column 'status': "
            f"{status.iloc[wrong[0]]!r} is no status. Write one of {', '.join(STATUSES)}."
        )
    return status


def _complete_counts(
    table: Table,
    frame: pd.DataFrame,
    ok: NDArray[np.bool_],
    cost_constant: float | None,
    header: list[str],
) -> None:
    """Compute the one of N, D and C that is missing from C = k N D, and say so in `derived`."""
    absent = [name for name in COUNTS if name not in frame]
    missing = missing_columns(table.name, absent, header, RUN_COLUMNS, table.names)
    if len(absent) > 1:
        raise RunLogError(
            f"{missing} Two of params, samples and flops are needed; the third then follows from "
            "cost_constant=6 (C = 6 N D, right for dense transformers only)."
        )
    if absent and cost_constant is None:
        raise RunLogError(
            f"{missing} To compute it from the other two, say cost_constant=6 (C = 6 N D, right "
            "for dense transformers only)."
        )
    if cost_constant is None:
        return
    for name in absent:
        frame[name] = np.nan
    params, samples, flops = (frame[name].to_numpy() for name in COUNTS)
    with np.errstate(all="ignore"):  # bad values are reported below, by the checks of the columns
        derived_from = {
            "params": flops / (cost_constant * samples),
            "samples": flops / (cost_constant * params),
            "flops": cost_constant * params * samples,
        }
    derived = np.full(len(frame), "", dtype=object)
    gap = np.isnan(np.stack([params, samples, flops]))
    check_values(table, frame, tuple(_COLUMN[name] for name in COUNTS), ok)
    for column, name in enumerate(COUNTS):
        fill = gap[column] & (gap.sum(axis=0) == 1)
        frame[name] = np.where(fill, derived_from[name], frame[name].to_numpy())
        derived[fill] = name
    if (derived != "").any():
        marked = pd.Series(derived, frame.index, dtype=str)
        before = frame.get("derived", "")
        frame["derived"] = marked.where(marked != "", before)


def _check_protocol(
    table: Table, frame: pd.DataFrame, ok: NDArray[np.bool_], protocol: str | None
) -> None:
    if "protocol" not in frame:
        frame["protocol"] = pd.Series("", frame.index, dtype=str)
    has_return = frame["mean_return"].notna().to_numpy()
    if protocol is not None:
        unnamed = has_return & (frame["protocol"] == "").to_numpy()
        frame.loc[unnamed, "protocol"] = protocol
    remedy = (
        "A mean return needs the name of its evaluation protocol: add the column, or say "
        'protocol="name" for the rows that have none'
    )
    check_present(table, frame, _COLUMN["protocol"], ok & has_return, remedy)


def _content_names(frame: pd.DataFrame) -> pd.Series:
    """Names for rows that are runs of their own: the same content has the same name in any log."""
    names = [f"row-{digest.hex()[:12]}" for digest in row_digests(frame)]
    return pd.Series(names, frame.index, dtype=str)


def names_are_made_up(runs: pd.DataFrame) -> bool:
    """Whether the log named no runs, so that each row was named by its content."""
    return bool(runs["run_id"].str.fullmatch(r"row-[0-9a-f]{12}").all())


def _mark_duplicates(runs: pd.DataFrame, place: Callable[[int], str]) -> None:
    """Status "duplicate" for a repeated row; an error for one key with two different contents."""
    keys = [name for name in RUN_KEY if name in runs]
    ok = (runs.status == "ok").to_numpy()
    repeated = np.flatnonzero(ok)[runs.loc[ok, keys].duplicated(keep=False).to_numpy()]
    if not len(repeated):
        return
    content = [column.name for column in RUN_COLUMNS if column.content and column.name in runs]
    rows = runs.loc[repeated, content]
    checkpoint = rows.groupby(keys, dropna=False, sort=False).ngroup().to_numpy()
    what = rows.groupby(content, dropna=False, sort=False).ngroup().to_numpy()
    first = np.unique(checkpoint, return_index=True)[1][checkpoint]  # of each row's checkpoint
    differs = np.flatnonzero(what != what[first])
    if len(differs):
        several = len(np.unique(checkpoint[differs]))
        others = f" (and {several - 1} more such checkpoints)" if several > 1 else ""
        one, two = int(repeated[first[differs[0]]]), int(repeated[differs[0]])
        names = [name for name in content if str(runs.at[one, name]) != str(runs.at[two, name])]
        raise RunLogError(
            f"{place(one)} and {place(two)}: the same checkpoint "
            f"({', '.join(f'{name}={runs.at[one, name]}' for name in keys)}) with different "
            f"{', '.join(names)} ({runs.at[one, names[0]]} and {runs.at[two, names[0]]}){others}. "
            "Correct one of them, or give it status excluded. Where runs were resumed, a folder "
            "with one file a run can be imported: import_csv('folder') takes the later rows."
        )
    again = np.flatnonzero(first != np.arange(len(first)))
    runs.loc[repeated[again], "status"] = "duplicate"
    runs.loc[repeated[again], "note"] = [
        f"same as {place(int(repeated[first[row]]))}" for row in again
    ]
