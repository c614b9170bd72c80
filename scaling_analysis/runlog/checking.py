"""From a raw table to checked columns of the schema, or to an error that says where.

Every message names the file, the line or row, the column, the value and what to do next.
"""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.schema import COUNTS, MAX_MAGNITUDE, RUN_COLUMNS, Column
from scaling_analysis.runlog.tables import MISSING, Table


def resolve_names(
    name: str, header: list[str], schema: tuple[Column, ...], columns: Mapping[str, str] | None
) -> dict[str, str]:
    """Which column of the table holds each column of the schema: {schema name: table name}."""
    known = [column.name for column in schema]
    given = dict(columns or {})
    for ours, theirs in given.items():
        if ours not in known:
            raise RunLogError(
                f"columns={{{ours!r}: {theirs!r}}}: the schema has no column {ours!r}."
                f"{_did_you_mean(ours, known)} Keys are names of the schema, values names of the "
                "table; other columns are kept under their own names."
            )
        if theirs not in header:
            raise RunLogError(
                f"{name}: no column {theirs!r} to read as {ours!r}."
                f"{_did_you_mean(theirs, header)} The columns are: {_listed(header)}."
            )
        if ours in header and ours != theirs:
            raise RunLogError(
                f"{name}: {ours!r} is to be read from {theirs!r}, but there is a column {ours!r} "
                "too. Rename or delete one of them."
            )
    return {ours: given.get(ours, ours) for ours in known if ours in given or ours in header}


def missing_columns(
    name: str, wanted: Sequence[str], header: list[str], schema: tuple[Column, ...]
) -> str:
    """The message for columns that are not there, with the mapping to type if some look alike."""
    by_name = {column.name: column for column in schema}
    what = " and ".join(f"no column {want!r} ({by_name[want].meaning})" for want in wanted)
    guess = {want: near[0] for want in wanted if (near := look_alikes(by_name[want], header))}
    if guess:
        return f"{name}: {what}. If the names are right, say columns={guess!r}."
    return f"{name}: {what}. The columns are: {_listed(header)}."


def look_alikes(column: Column, header: list[str], *, fuzzy: bool = True) -> list[str]:
    """Names in `header` that may stand for `column`, the likeliest first.

    These are its known aliases and, if `fuzzy`, names that are spelled nearly like it.
    """
    others = {other.name for other in RUN_COLUMNS} - {column.name}
    plain = {_plain(name): name for name in header if name not in others}
    exact = [
        plain[_plain(name)] for name in (column.name, *column.aliases) if _plain(name) in plain
    ]
    if not fuzzy:
        return list(dict.fromkeys(exact))
    close = difflib.get_close_matches(_plain(column.name), list(plain), n=3, cutoff=0.75)
    return list(dict.fromkeys([*exact, *(plain[name] for name in close)]))


def convert(table: Table, schema: tuple[Column, ...]) -> pd.DataFrame:
    """Columns of the schema that the table has, as float64 or string, then its other columns.

    `table.names` is what `resolve_names` gave.
    """
    names = table.names
    by_name = {column.name: column for column in schema}
    data: dict[str, pd.Series | NDArray[np.float64]] = {}
    for ours, theirs in names.items():
        cells = table.frame[theirs]
        if by_name[ours].kind == "text":
            data[ours] = _as_text(cells)
        else:
            data[ours] = _as_number(table, by_name[ours], cells)
    used = set(names.values())
    others = [name for name in table.frame.columns if name not in used and name not in by_name]
    frame = pd.DataFrame(data, index=table.frame.index)
    return pd.concat([frame, table.frame[others]], axis=1) if others else frame


def check_values(
    table: Table, frame: pd.DataFrame, schema: tuple[Column, ...], rows: NDArray[np.bool_]
) -> None:
    """Refuse values of `rows` that are infinite, out of bounds, no integers where they must be."""
    for column in schema:
        if column.kind == "text" or column.name not in frame:
            continue
        values = frame[column.name].to_numpy()
        present = rows & ~np.isnan(values)
        finite = np.isfinite(values)
        whole = column.kind == "whole"
        for bad, what in (
            (~finite, "is not finite"),
            (finite & (np.abs(values) > MAX_MAGNITUDE), f"is beyond {MAX_MAGNITUDE:g}"),
            (values <= column.above, f"is not above {column.above:g}"),
            (values < column.at_least, f"is below {column.at_least:g}"),
            (whole & finite & (values != np.floor(values)), "is not a whole number"),
            (whole & (np.abs(values) > 2**53), "is beyond 2**53, where integers run together"),
        ):
            wrong = np.flatnonzero(bad & present)
            if len(wrong):
                value = f"{values[wrong[0]]:.12g}"
                raise RunLogError(_at(table, wrong, column, f"{value} {what}"))


def check_present(
    table: Table, frame: pd.DataFrame, column: Column, rows: NDArray[np.bool_], remedy: str = ""
) -> None:
    """Refuse `rows` in which the cell of `column` is empty."""
    cells = frame[column.name]
    empty = (cells == "") if column.kind == "text" else cells.isna()
    wrong = np.flatnonzero(rows & empty.to_numpy(dtype=bool))
    if len(wrong):
        raise RunLogError(_at(table, wrong, column, "no value (empty or NaN)", remedy))


def _at(
    table: Table, rows: NDArray[np.intp], column: Column, problem: str, remedy: str = ""
) -> str:
    more = f" (and {len(rows) - 1} more such rows)" if len(rows) > 1 else ""
    unit = "" if column.unit == "-" else f" [{column.unit}]"
    if not remedy:
        remedy = f"Write {column.meaning}{unit}"
        if column.name in (*COUNTS, "loss", "mean_return"):
            remedy += ", or give the row a status: diverged, preempted or excluded"
    place = table.place(int(rows[0]))
    theirs = table.names.get(column.name, column.name)
    label = repr(theirs) if theirs == column.name else f"{theirs!r} (read as {column.name!r})"
    return f"{table.name}, {place}, column {label}: {problem}{more}. {remedy}."


def _as_number(table: Table, column: Column, cells: pd.Series) -> NDArray[np.float64]:
    kind = cells.dtype.kind
    if kind in "iuf":
        return cells.to_numpy(dtype=np.float64, na_value=np.nan)
    values = np.full(len(cells), np.nan)
    empty = cells.isna().to_numpy(dtype=bool)
    for row, cell in enumerate(cells.tolist()):
        if empty[row] or (isinstance(cell, str) and cell.strip().lower() in MISSING):
            continue
        try:
            if isinstance(cell, bool | np.bool_):
                raise TypeError
            # float() takes "1_000", which no other reader of the file would.
            values[row] = float(cell if not isinstance(cell, str) or "_" not in cell else "")
        except (TypeError, ValueError):
            problem = f"{str(cell)[:60]!r} is not a number"
            raise RunLogError(
                _at(table, np.array([row]), column, problem, _number_remedy(cell))
            ) from None
    return values


def _number_remedy(cell: object) -> str:
    text = str(cell).strip()
    factor = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}.get(text[-1:].lower())
    for plain, scale in ((text.replace(",", "").replace("_", ""), 1.0), (text[:-1], factor)):
        try:
            if scale:
                return f"Write {float(plain) * scale:.12g}"
        except ValueError:
            continue
    return "Write a plain number such as 125000000 or 1.25e8"


def _as_text(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind == "f":
        # Integers beside a missing cell come as floats: 7.0 is the label "7".
        cells = cells.map(lambda value: f"{value:.17g}", na_action="ignore")
    return cells.astype(str).where(cells.notna(), "")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def _listed(names: list[str], most: int = 20) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
