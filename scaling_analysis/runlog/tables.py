"""Files and tables of any kind as one raw data frame that knows where each row came from."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from scaling_analysis.errors import RunLogError, ScalingWarning
from scaling_analysis.runlog.dialects import (
    csv_records,
    dialect_of,
    field_remedy,
    read_decimal_commas,
)
from scaling_analysis.runlog.schema import MAX_COLUMNS

Source = str | PathLike[str] | pd.DataFrame | Any
"""A path to CSV, Parquet or JSON lines, or a pandas, polars or pyarrow table."""

SUFFIXES = {
    ".csv": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
}

_REMEDIES = {
    ".gz": "Unpack it first (gunzip).",
    ".zip": "Unpack it first (unzip).",
    ".xlsx": "Save the sheet as CSV.",
    ".xls": "Save the sheet as CSV.",
    ".ods": "Save the sheet as CSV.",
    ".json": "Write one object a line, as .jsonl: jq -c '.[]' runs.json > runs.jsonl.",
    ".tsv": "Name it .csv: tabs and semicolons are read too.",
    ".txt": "Name it .csv: tabs and semicolons are read too.",
}
"""What to do about files of other kinds."""

MISSING = frozenset({"", "na", "n/a", "nan", "-nan", "null", "none", "#n/a", "<na>"})
"""Cells that say "no value", compared without case."""

_ARROW_NULLS = ["", "NA", "N/A", "n/a", "nan", "NaN", "NAN", "-nan", "null", "NULL", "None", "#N/A"]


@dataclass(frozen=True, slots=True)
class Table:
    """A table as it was found: nothing converted, nothing checked."""

    name: str
    frame: pd.DataFrame
    place: Callable[[int], str]
    """Where the i-th row (counted from 0) stands: "line 7" of a text file, "row 5" of a table."""
    names: dict[str, str] = field(default_factory=dict)
    """{schema name: name in the table} of the columns that are read under another name."""


def read_table(source: Source, number: int, kinds: Callable[[list[str]], dict[str, str]]) -> Table:
    """Read one source; `kinds(header)` says which of its columns hold "number" or "text".

    `number` is the position of the source in the list given by the caller, for messages.
    """
    if isinstance(source, str | PathLike):
        path = Path(source)
        if path.is_dir():
            raise RunLogError(f"{path}: is a folder. Name the files in it.")
        reader = {"csv": _read_csv, "jsonl": _read_jsonl, "parquet": _read_parquet}
        return reader[file_format(path)](path, kinds)
    name = f"table {number}" if number else "table"
    frame = source if isinstance(source, pd.DataFrame) else _to_pandas(name, source)
    if frame.columns.nlevels > 1:
        raise RunLogError(f"{name}: the columns have {frame.columns.nlevels} levels; flatten them.")
    if any(label is not None and label not in frame.columns for label in frame.index.names):
        frame = frame.reset_index()
    header = [str(label) for label in frame.columns]
    _check_header(name, header)
    kinds(header)
    return Table(name, frame.set_axis(header, axis=1).reset_index(drop=True), _row_place)


def _to_pandas(name: str, source: Any) -> pd.DataFrame:
    if not hasattr(source, "to_pandas"):
        raise RunLogError(
            f"{name}: a {type(source).__name__} is no table. Give a path to CSV, Parquet or "
            "JSON lines, or a pandas, polars or pyarrow table (collect a lazy one first)."
        )
    return source.to_pandas()


def file_format(path: Path) -> str:
    """ "csv", "parquet" or "jsonl", by the suffix of the name."""
    suffix = path.suffix.lower()
    kind = SUFFIXES.get(suffix)
    if kind is None:
        raise RunLogError(
            f"{path}: cannot tell the format from the name. "
            + _REMEDIES.get(suffix, f"Use one of {', '.join(SUFFIXES)}.")
        )
    return kind


def _row_place(row: int) -> str:
    return f"row {row} (counted from 0)"


def _check_header(name: str, header: list[str]) -> None:
    if len(header) > MAX_COLUMNS:
        raise RunLogError(
            f"{name}: the header names {len(header)} columns, at most {MAX_COLUMNS} are read. "
            "A run log has one row a checkpoint: is the table transposed?"
        )
    seen: set[str] = set()
    for label in header:
        if label in seen:
            raise RunLogError(
                f"{name}: the header names the column {label!r} twice. Rename or delete one."
            )
        seen.add(label)


def _existing(path: Path) -> None:
    if not path.exists():
        near = sorted(other.name for other in path.parent.glob("*") if other.suffix in SUFFIXES)
        hint = f" The folder holds {', '.join(near[:5])}." if near else ""
        raise RunLogError(f"{path}: no such file.{hint}")


def _csv_header(path: Path) -> list[str]:
    _existing(path)
    for _, record in csv_records(path):
        if len(record) == 1 and "|" in record[0]:
            raise RunLogError(
                f"{path}, line 1: the header is one column, {record[0][:60]!r}. "
                "Separate the columns by commas."
            )
        return record
    raise RunLogError(f"{path}: the file is empty. A run log starts with a line of column names.")


def _read_csv(path: Path, kinds: Callable[[list[str]], dict[str, str]]) -> Table:
    import pyarrow as pa
    from pyarrow import csv as arrow_csv

    written = _csv_header(path)
    header = [name.strip() for name in written]
    _check_header(f"{path}, line 1", header)
    encoding, delimiter = dialect_of(path)
    kind_of = kinds(header)
    types = {"number": pa.float64(), "text": pa.string()}
    lines: list[int] = []

    def place(row: int) -> str:
        # Lines are counted only when a message needs one: quoted line breaks and blank lines
        # make them differ from rows.
        if not lines:
            lines.extend(line for line, _ in csv_records(path))
        return f"line {lines[row + 1]}"

    try:
        table = arrow_csv.read_csv(
            path,
            read_options=arrow_csv.ReadOptions(
                use_threads=False, encoding="utf-16" if encoding == "utf-16" else "utf8"
            ),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, delimiter=delimiter),
            convert_options=arrow_csv.ConvertOptions(
                column_types={
                    name: types[kind_of[name.strip()]]
                    for name in written
                    if name.strip() in kind_of
                },
                null_values=_ARROW_NULLS,
            ),
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        # Something does not parse: read it as text, so that the message can name the cell.
        frame = _read_csv_as_text(path, header, kind_of)
        if delimiter != ",":
            read_decimal_commas(frame, [name for name in header if kind_of.get(name) == "number"])
        return Table(str(path), frame, place)
    return Table(str(path), table.to_pandas().set_axis(header, axis=1), place)


def _read_csv_as_text(path: Path, header: list[str], kind_of: dict[str, str]) -> pd.DataFrame:
    import warnings

    records = list(csv_records(path))[1:]
    if records and _is_torn(path, header, records[-1][1]):
        line, record = records.pop()
        warnings.warn(
            f"{path}, line {line}: the last line is torn ({','.join(record)[:60]!r}) and was not "
            "read. A writer was stopped inside it; append_run cuts it off before it writes.",
            ScalingWarning,
            stacklevel=6,
        )
    for line, record in records:
        if len(record) != len(header):
            raise RunLogError(
                f"{path}, line {line}: {len(record)} fields, the header has {len(header)}. "
                + field_remedy(header, record)
            )
    columns = list(zip(*(record for _, record in records), strict=True)) or [()] * len(header)
    frame = pd.DataFrame(
        {name: np.array(cells, dtype=object) for name, cells in zip(header, columns, strict=True)}
    )
    for name in frame.columns.difference(list(kind_of)):
        try:
            frame[name] = pd.to_numeric(frame[name])
        except (ValueError, TypeError):
            continue
    return frame


def _is_torn(path: Path, header: list[str], record: list[str]) -> bool:
    """Whether a writer was stopped inside the last line: no line end, and a field is missing."""
    with path.open("rb") as file:
        file.seek(-1, 2)
        if file.read(1) in b"\r\n":
            return False
    return len(record) < len(header) or (header[-1] == "schema_version" and not record[-1])


def _read_jsonl(path: Path, kinds: Callable[[list[str]], dict[str, str]]) -> Table:
    import warnings

    _existing(path)
    lines: list[int] = []
    rows: list[dict[str, Any]] = []
    text = path.read_bytes()
    pieces = text.split(b"\n")
    for line, piece in enumerate(pieces, 1):
        if not piece.strip():
            continue
        try:
            row = json.loads(piece)
        except ValueError as error:
            if line == len(pieces):  # the file does not end with a line break: a torn write
                warnings.warn(
                    f"{path}, line {line}: the last line is torn and was not read. A writer was "
                    "stopped inside it; append_run cuts it off before it writes.",
                    ScalingWarning,
                    stacklevel=5,
                )
                break
            raise RunLogError(f"{path}, line {line}: not JSON ({error}).") from error
        if not isinstance(row, dict):
            raise RunLogError(
                f"{path}, line {line}: holds {piece[:40].decode(errors='replace')!r}; each line "
                "of a run log is one JSON object, a row."
            )
        lines.append(line)
        rows.append(
            {
                key: json.dumps(value) if isinstance(value, dict | list) else value
                for key, value in row.items()
            }
        )
    if not rows:
        raise RunLogError(f"{path}: the file is empty. A run log has one JSON object a line.")
    header = list(dict.fromkeys(key for row in rows for key in row))
    _check_header(str(path), header)
    kinds(header)
    return Table(str(path), pd.DataFrame(rows, columns=header), lambda row: f"line {lines[row]}")


def _read_parquet(path: Path, kinds: Callable[[list[str]], dict[str, str]]) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    _existing(path)
    try:
        header = list(parquet.read_schema(path).names)
        _check_header(str(path), header)
        kinds(header)
        frame = parquet.read_table(path).to_pandas(ignore_metadata=True)
    except (pa.ArrowInvalid, OSError) as error:
        raise RunLogError(
            f"{path}: cannot be read as Parquet ({error}). Write it again with write_runs."
        ) from error
    return Table(str(path), frame.reset_index(drop=True), _row_place)
