"""From a raw table to checked columns of the schema, or to an error that says where.

Every message names the file, the line or row, the column, the value and what to do next.
"""

import difflib
import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.schema import COUNTS, MAX_MAGNITUDE, RUN_COLUMNS, Column
from scaling_analysis.runlog.tables import MISSING, Table

_WORTH_NAMING = ("run_id", "budget", "loss", "mean_return")
"""Columns that are asked for beside those that a log cannot do without."""

_OTHER_COUNT = {"params": "params_core"}
"""Of two counts that a log may hold, the one that can be asked for in the place of the other."""


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
                f"{_did_you_mean(theirs, header)} The columns are: {listed(header)}."
            )
        if ours in header and ours != theirs and _OTHER_COUNT.get(ours) != theirs:
            raise RunLogError(
                f"{name}: {ours!r} is to be read from {theirs!r}, but there is a column {ours!r} "
                "too. Rename or delete one of them."
            )
    free = [label for label in header if label not in given.values()]
    own = {ours: spelled for ours in known if (spelled := own_spelling(ours, free)) is not None}
    return {ours: {**own, **given}[ours] for ours in known if ours in given or ours in own}


def own_spelling(name: str, header: Sequence[str]) -> str | None:
    """How a table spells a name of the schema: as it is, or the one as "Params" or "Run ID"."""
    if name in header:
        return name
    if name == "status":  # other tools have a Status of their own, with other words in it
        return None
    alike = [label for label in header if _joined(label) == name]
    return alike[0] if len(alike) == 1 else None


def missing_columns(
    name: str,
    wanted: Sequence[str],
    header: list[str],
    schema: tuple[Column, ...],
    known: Mapping[str, str] | None = None,
) -> str:
    """The message for columns that are not there, with the mapping to type if some look alike.

    What else is worth naming stands in the same mapping, so that one answer is enough: a log whose
    runs or budgets go by another name would be read without them. `known` are names that are read.
    """
    by_name = {column.name: column for column in schema}
    what = " and ".join(f"no column {want!r} ({by_name[want].meaning})" for want in wanted)
    guess = {want: near[0] for want in wanted if (near := look_alikes(by_name[want], header))}
    said = f"{name}: {what}."
    if guess:
        taken = {**(known or {}), **guess}
        for extra in _WORTH_NAMING:
            if extra not in by_name or extra in taken or own_spelling(extra, header):
                continue
            free = [label for label in header if label not in taken.values()]
            if near := _of_that_name(by_name[extra], free):
                taken[extra] = guess[extra] = near[0]
        said += f" If the names are right, say columns={guess!r}."
    if not set(wanted) <= set(guess):
        said += f" The columns are: {listed(header)}."
    return said


def look_alikes(column: Column, header: list[str], *, fuzzy: bool = True) -> list[str]:
    """Names in `header` that may stand for `column`, the likeliest first.

    These are its known aliases and, if `fuzzy`, names that end in one of them after a slash or dot
    ("eval/loss") and names that are spelled nearly like it.
    """
    plain = _plain_names(column, header)
    names = (column.name, *column.aliases)
    exact = [plain[_plain(name)] for name in names if _plain(name) in plain]
    if not fuzzy:
        return list(dict.fromkeys(exact))
    close = difflib.get_close_matches(_plain(column.name), list(plain), n=3, cutoff=0.75)
    ended = _of_that_name(column, header)
    return list(dict.fromkeys([*exact, *ended, *(plain[name] for name in close)]))


def _of_that_name(column: Column, header: list[str]) -> list[str]:
    """Names in `header` that are an alias of `column`, or end in one after a slash or dot."""
    exact = look_alikes(column, header, fuzzy=False)
    names = {_plain(name) for name in (column.name, *column.aliases)}
    ended = [
        label
        for label in _plain_names(column, header).values()
        if _plain(re.split(r"[/.]", label)[-1]) in names and label not in exact
    ]
    # Of train/loss and eval/loss the second is meant.
    return [*exact, *sorted(ended, key=lambda label: "train" in label and "loss" in label)]


def _plain_names(column: Column, header: list[str]) -> dict[str, str]:
    """{letters and digits: name} of what is not the exact name of another column."""
    others = {other.name for other in RUN_COLUMNS} - {column.name}
    return {_plain(name): name for name in header if name not in others}


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
        # Of a run log only: a plan has columns of these names, and no status.
        if column.name in (*COUNTS, "loss", "mean_return") and column in RUN_COLUMNS:
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
    if text.endswith("%"):
        text, factor = text[:-1], 0.01
        return _written(text, factor) or "Write a share such as 0.25"
    if re.fullmatch(r"[+-]?\d+,\d+(e[+-]?\d+)?", text, re.IGNORECASE):
        decimal = f"Write {float(text.replace(',', '.')):.12g}"
        if not re.fullmatch(r"[+-]?[1-9]\d{0,2},\d{3}", text):
            return f"{decimal}, with a decimal point"
        return f"{decimal} if the comma is a decimal one, {text.replace(',', '')} if not"
    factor = {"k": 1e3, "m": 1e6, "b": 1e9, "g": 1e9, "t": 1e12}.get(text[-1:].lower())
    for plain, scale in ((text.replace(",", "").replace("_", ""), 1.0), (text[:-1], factor)):
        if scale and (remedy := _written(plain, scale)):
            return remedy
    return "Write a plain number such as 125000000 or 1.25e8"


def _written(text: str, scale: float) -> str:
    try:
        return f"Write {float(text) * scale:.12g}"
    except ValueError:
        return ""


def _as_text(cells: pd.Series) -> pd.Series:
    if cells.dtype.kind == "f":
        # Integers beside a missing cell come as floats: 7.0 is the label "7".
        cells = cells.map(lambda value: f"{value:.17g}", na_action="ignore")
    return cells.astype(str).where(cells.notna(), "")


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def _joined(name: str) -> str:
    """A name without case, its words joined as in the schema: "Run ID" as "run_id"."""
    return re.sub(r"[\s_-]+", "_", name.strip().lower())


def _did_you_mean(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def listed(names: list[str], most: int = 20) -> str:
    """Names in a message, the first of them."""
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
