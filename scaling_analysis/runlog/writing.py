"""Writing run logs: whole files atomically, single rows safely beside other writers."""

import contextlib
import csv
import io
import json
import math
import os
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import pandas as pd

from scaling_analysis.errors import RunLogError, ScalingWarning
from scaling_analysis.runlog.reading import load_runs
from scaling_analysis.runlog.schema import RUN_COLUMNS, RUN_KEY, SCHEMA_VERSION
from scaling_analysis.runlog.tables import MISSING, file_format

_CONTENT = tuple(column for column in RUN_COLUMNS if column.content)
_VERSION = "schema_version"


def write_runs(runs: pd.DataFrame, path: str | os.PathLike[str]) -> Path:
    """Write a run log as CSV, Parquet or JSON lines, by the suffix; return the path.

    The file appears whole or not at all: it is written beside its place, flushed to the disk and
    renamed. Columns come in the order of the schema, the others behind them.

    Raises
    ------
    RunLogError
        The file cannot be written; one that stood there is intact.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> runs = load_runs(pd.DataFrame({"params": [1e5], "samples": [2e6], "loss": [1.3]}),
    ...                  cost_constant=6)
    >>> path = write_runs(runs, pathlib.Path(tempfile.mkdtemp()) / "runs.parquet")
    >>> load_runs(path)["loss"].tolist()
    [1.3]
    """
    target = Path(path)
    kind = file_format(target)
    known = [column.name for column in RUN_COLUMNS if column.name in runs]
    others = [name for name in runs.columns if name not in known]
    names = [name for name in (*known, *others) if name != _VERSION]
    frame = runs[names].assign(**{_VERSION: SCHEMA_VERSION})
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        other_writers = _locked(target) if target.exists() else contextlib.nullcontext()
        with other_writers, replacing(target) as file:
            if kind == "parquet":
                frame.to_parquet(file, index=False)
            elif kind == "csv":
                frame.to_csv(file, index=False)
            else:
                file.write("".join(_json_line(row) for row in frame.to_dict("records")).encode())
    except OSError as error:
        raise RunLogError(
            f"{target}: the run log could not be written ({error.strerror or error}). A file that "
            "stood there is intact; make room, or mend the path, and write it again."
        ) from error
    return target


def append_run(path: str | os.PathLike[str], **row: Any) -> bool:
    """Add one row to a run log in CSV or JSON lines; return False if it was there already.

    The row is checked as `load_runs` checks it. Any number of processes may append at once. What
    a killed process leaves of a line is cut off by the next writer, with a warning. A second row
    with the same run_id, samples and budget is refused if it says something else, so a run that
    resumes may log its last checkpoint again. Line breaks in text become spaces.

    Raises
    ------
    RunLogError
        The row breaks a rule of the schema or says something else than the log; or the file cannot
        be written (a full disk, no permission): the rows before it are safe, log it again.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> log = pathlib.Path(tempfile.mkdtemp()) / "runs.csv"
    >>> append_run(log, run_id="a", params=1e5, samples=2e6, flops=1.2e12, loss=1.31)
    True
    >>> append_run(log, run_id="a", params=1e5, samples=2e6, flops=1.2e12, loss=1.31)
    False
    """
    target = Path(path)
    kind = file_format(target)
    if kind == "parquet":
        raise RunLogError(
            f"{target}: a Parquet file cannot grow by a row. Append to .csv or .jsonl, and convert "
            "with write_runs(load_runs(...), ...) at the end."
        )
    cells = _checked_cells(target, row)
    try:
        return _append(target, kind, cells, row)
    except OSError as error:
        raise RunLogError(
            f"{target}: the row of run {cells['run_id']!r} could not be written "
            f"({error.strerror or error}). The rows before it are safe; make room, or mend the "
            "path, and log it again."
        ) from error


def _append(target: Path, kind: str, cells: dict[str, Any], row: dict[str, Any]) -> bool:
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target) as file:
        if kind == "csv":
            _check_is_ours(target, file)
        _cut_torn_line(target, file, kind)
        if kind == "jsonl":
            present = _json_rows(file)
            line = _json_line(cells)
        else:
            header = _csv_header(file)
            names = _merged_header(header, [*cells, *(name for name in row if name not in cells)])
            if header and names != header:
                _rewrite_header(target, file, header, names)
                return _append(target, kind, cells, row)  # the file behind this lock is new
            present = _csv_rows(file)
            line = _csv_line([cells.get(name, "") for name in names])
            if not header:
                line = _csv_line(names) + line
        if _is_logged(target, present, cells):
            return False
        _write_whole(file, line.encode())
    return True


def _checked_cells(target: Path, row: dict[str, Any]) -> dict[str, Any]:
    """The row as plain Python values, in the order of the schema, checked by the reader's rules."""
    if "run_id" not in row:
        raise RunLogError(f"{target}: a row to append needs run_id, the name of its training run.")
    try:
        frame = load_runs(pd.DataFrame({name: [value] for name, value in row.items()}))
    except RunLogError as error:
        raise RunLogError(f"{target}: the row to append is refused. {error}") from None
    cells: dict[str, Any] = {}
    order = [column.name for column in RUN_COLUMNS if column.name in frame]
    for name in [*order, *(name for name in frame.columns if name not in order)]:
        if name not in row and name != "status":
            continue
        value = frame[name].tolist()[0]  # a plain Python value
        if isinstance(value, str):
            value = " ".join(value.splitlines())
        elif isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
            value = int(value)
        if not (isinstance(value, float) and math.isnan(value)):
            cells[name] = value
    cells.pop(_VERSION, None)
    return {**cells, _VERSION: SCHEMA_VERSION}


def _is_logged(target: Path, present: Iterator[dict[str, Any]], cells: dict[str, Any]) -> bool:
    if cells["status"] != "ok":
        return any(
            all(_same(other.get(name), cells.get(name)) for name in (*RUN_KEY, "status"))
            for other in present
        )
    for number, other in enumerate(present):
        if (other.get("status") or "ok") != "ok":
            continue
        if not all(_same(other.get(name), cells.get(name)) for name in RUN_KEY):
            continue
        for column in _CONTENT:
            was, now = other.get(column.name), cells.get(column.name)
            if not _same(was, now):
                raise RunLogError(
                    f"{target}, row {number} (counted from 0), column {column.name!r}: the log has "
                    f"{was!r} for the checkpoint run_id={cells['run_id']}, "
                    f"samples={cells.get('samples')}, budget={cells.get('budget')}, and now "
                    f"{now!r} is given. Give a repeated training another run_id."
                )
        return True
    return False


def _same(one: Any, two: Any) -> bool:
    one, two = (
        None if value is None or str(value).strip().lower() in MISSING else value
        for value in (one, two)
    )
    if one is None or two is None:
        return one is two
    try:
        return float(one) == float(two)
    except (TypeError, ValueError):
        return str(one) == str(two)


@contextlib.contextmanager
def _locked(target: Path) -> Iterator[BinaryIO]:
    """The file open for reading and writing, created if need be, held by this process alone."""
    while True:
        with target.open("a+b") as file:  # closing it lets the lock go
            _lock(file)
            # Another writer may have replaced the file while this one waited for the lock.
            if target.exists() and os.path.samestat(os.fstat(file.fileno()), target.stat()):
                yield file
                return


def _lock(file: BinaryIO) -> None:
    if os.name == "nt":  # pragma: no cover
        import msvcrt

        file.seek(0)
        msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        fcntl.flock(file.fileno(), fcntl.LOCK_EX)


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `target` once it is complete and on the disk.

    Its folder is made if need be. An `OSError` names `target`.
    """
    beside = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with beside.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            beside.replace(target)
        finally:
            with contextlib.suppress(OSError):
                beside.unlink(missing_ok=True)
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(beside)):
            error.filename, error.filename2 = str(target), None
        raise


def _write_whole(file: BinaryIO, line: bytes) -> None:
    """Add a line and wait until it is on the disk; on a full disk leave the file as it was."""
    end = file.seek(0, os.SEEK_END)
    try:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            file.truncate(end)
        raise


def _cut_torn_line(target: Path, file: BinaryIO, kind: str) -> None:
    """End the last line if it is whole, cut it off if a crash tore it."""
    file.seek(0)
    text = file.read()
    if not text or text.endswith(b"\n"):
        return
    start = text.rfind(b"\n") + 1
    tail = text[start:]
    if _is_whole(tail, text, kind):
        file.seek(0, os.SEEK_END)
        file.write(b"\n")
        return
    file.truncate(start)
    warnings.warn(
        f"{target}: the last line was torn by a crash and is cut off: {tail[:200]!r}. Log the "
        "checkpoint again if it was finished.",
        ScalingWarning,
        stacklevel=3,
    )


def _is_whole(tail: bytes, text: bytes, kind: str) -> bool:
    if kind == "jsonl":
        try:
            return isinstance(json.loads(tail), dict)
        except ValueError:
            return False
    lines = text.decode(errors="replace").splitlines()
    header, last = next(csv.reader(lines[:1])), next(csv.reader([tail.decode(errors="replace")]))
    # The schema version ends every line written here, so a line without it is no whole one.
    return len(last) == len(header) and (
        (header[-1] != _VERSION and tail != text) or last[-1] in (_VERSION, str(SCHEMA_VERSION))
    )


def _check_is_ours(target: Path, file: BinaryIO) -> None:
    """Refuse a file of other names, delimiters or encoding before a byte of it is changed."""
    header = _csv_header(file)
    file.seek(0)
    whole = file.readline().endswith(b"\n")  # a header that a crash tore is cut off
    if whole and "run_id" not in header:
        raise RunLogError(
            f"{target}, line 1: the header ({', '.join(header[:12])}) names no run_id, so this is "
            "no run log to append to. Write one with write_runs(load_runs(...), path)."
        )


def _csv_header(file: BinaryIO) -> list[str]:
    file.seek(0)
    return next(csv.reader([file.readline().decode("utf-8-sig", errors="replace")]), [])


def _csv_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    file.seek(0)
    return csv.DictReader(io.StringIO(file.read().decode("utf-8-sig"), newline=""))


def _json_rows(file: BinaryIO) -> Iterator[dict[str, Any]]:
    file.seek(0)
    return (json.loads(line) for line in file.read().splitlines() if line.strip())


def _merged_header(header: list[str], names: list[str]) -> list[str]:
    """The header with the new columns in it, the schema version last: a torn line misses it."""
    merged = [*header, *(name for name in names if name not in header)]
    return [*(name for name in merged if name != _VERSION), _VERSION] if merged else []


def _rewrite_header(target: Path, file: BinaryIO, header: list[str], names: list[str]) -> None:
    with replacing(target) as new:
        new.write(_csv_line(names).encode())
        for row in _csv_rows(file):
            new.write(_csv_line([row.get(name) or "" for name in names]).encode())


def _csv_line(cells: list[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _json_line(row: Mapping[Any, Any]) -> str:
    kept = {
        str(name): value
        for name, value in row.items()
        if not (isinstance(value, float) and not math.isfinite(value))
    }
    return json.dumps(kept, ensure_ascii=False, default=str) + "\n"
