"""CSV as programs of many countries write it: delimiters, decimal commas, encodings."""

import csv
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from scaling_analysis.errors import RunLogError


def csv_records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Every record of a CSV file with the line (from 1) on which it starts; blank lines skipped."""
    encoding, delimiter = dialect_of(path)
    with path.open(encoding=encoding, newline="") as file:
        reader = csv.reader(file, delimiter=delimiter)
        line = 1
        while True:
            try:
                record = next(reader)
            except StopIteration:
                return
            except UnicodeDecodeError as error:
                raise _undecodable(path, encoding) from error
            except csv.Error as error:
                raise RunLogError(f"{path}, line {line}: {error}. Save it as plain CSV.") from error
            if record:
                yield line, record
            line = reader.line_num + 1


def dialect_of(path: Path) -> tuple[str, str]:
    """Encoding and delimiter: commas, or what Excel writes where the comma is a decimal one."""
    with path.open("rb") as file:
        encoding = "utf-16" if file.read(2) in (BOM_UTF16_LE, BOM_UTF16_BE) else "utf-8-sig"
    header = ""
    with path.open(encoding=encoding, errors="replace") as file:
        header = next((line for line in file if line.strip()), "")
    return encoding, max(",;\t", key=header.count)


def _undecodable(path: Path, encoding: str) -> RunLogError:
    """The error for bytes that are no text, with the line and the bytes."""
    data = path.read_bytes()
    try:
        data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        near = data[max(0, error.start - 10) : error.start + 5]
        return RunLogError(
            f"{path}, line {line}: {near!r} is not UTF-8 text ({error.reason}). Save it as UTF-8."
        )
    return RunLogError(f"{path}: not UTF-8 text. Save it as UTF-8.")  # pragma: no cover


def field_remedy(header: list[str], record: list[str]) -> str:
    if len(record) > len(header) and not any(record[len(header) :]):
        return "Delete the commas at the end of the lines, or name the columns."
    if len(header) < 3 < len(record):
        return f"Is {','.join(header)[:40]!r} no header? Delete what stands above the column names."
    return "Quote fields that hold a comma; delete the line if a crash tore it."


def read_decimal_commas(frame: pd.DataFrame, columns: list[str]) -> None:
    """Numbers as Excel writes them beside semicolons, 0,25; left as they are where the comma may
    part thousands, so that the first of them is refused."""
    cells = [cell for name in columns for cell in frame[name] if "," in cell or "." in cell]
    decimal = all(re.fullmatch(r"\s*[+-]?\d+,\d+(e[+-]?\d+)?\s*", each, re.I) for each in cells)
    thousands = all(re.fullmatch(r"\s*[+-]?[1-9]\d{0,2},\d{3}\s*", each) for each in cells)
    if decimal and not thousands:
        for name in columns:
            frame[name] = [cell.replace(",", ".") for cell in frame[name]]
