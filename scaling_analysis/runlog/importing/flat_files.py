"""Plain CSV and JSON lines: a table of many runs, or folders with one file a run."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.checking import own_spelling
from scaling_analysis.runlog.importing.mapping import (
    Imported,
    assemble,
    checkpoints,
    column_kinds,
)
from scaling_analysis.runlog.tables import Table, read_table

_MOST_FILES = 4
"""Files of which the same is said one by one."""


def import_csv(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read CSV (or Parquet) files whose columns have other names or units.

    One file is a table of any number of runs. Of a folder, or of several files, one without a
    column for run_id and of one size is a run: it is named by the file, what it says once (its
    configuration) is taken for all its rows, lines without a result are left out, and of a
    checkpoint that was written again after a resume the later line counts. The messages say so.

    Parameters
    ----------
    source
        A file, several, or a folder of them.
    columns
        {name of the schema: name in the file}, `{"params": "n_params"}`.
    scale
        {name of the schema: factor}, `{"params": 1e6}` for a column in millions.
    constants
        {name of the schema: value} for what no column says, `{"task": "breakout"}`.
    cost_constant
        k of C = k N D, to compute the one of params, samples and flops that is missing.

    Raises
    ------
    RunLogError
        Listing each column that has to be confirmed, with a guess.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "sweep.csv"
    >>> _ = path.write_text("size_m,tokens,val\\n1.5,2e7,3.1\\n")
    >>> imported = import_csv(
    ...     path,
    ...     columns={"params": "size_m", "samples": "tokens", "loss": "val"},
    ...     scale={"params": 1e6},
    ...     cost_constant=6,
    ... )
    >>> float(imported.runs.params[0])
    1500000.0
    """
    found = _files(source, (".csv", ".parquet", ".pq"))
    return _imported(found, columns, False, scale, constants, cost_constant)


def import_jsonl(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read JSON lines, one file a run, one object a checkpoint: a folder, or files.

    A file without a column for run_id names its run, however many there are; the rest is as
    `import_csv` reads several files, and so are the other arguments.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "small.jsonl").write_text(
    ...     '{"n": 1e6, "seed": 3}\\n{"samples": 2e7, "loss": 3.1}\\n{"samples": 4e7, "loss": 2.9}'
    ... )
    >>> imported = import_jsonl(folder, columns={"params": "n"}, cost_constant=6)
    >>> imported.runs[["run_id", "params", "samples", "loss"]].values.tolist()
    [['small', 1000000.0, 20000000.0, 3.1], ['small', 1000000.0, 40000000.0, 2.9]]
    """
    found = _files(source, (".jsonl", ".ndjson"))
    return _imported(found, columns, True, scale, constants, cost_constant)


def _imported(
    found: tuple[list[Path], Path | None],
    columns: Mapping[str, str] | None,
    always: bool,
    scale: Mapping[str, float] | None,
    constants: Mapping[str, str | float] | None,
    cost_constant: float | None,
) -> Imported:
    """The run log of files; with `always` each without a run_id is a run, whatever it holds."""
    tables, messages = _runs_apart(*found, columns, always=always)
    return assemble(
        tables,
        columns=columns,
        scale=scale,
        constants=constants,
        cost_constant=cost_constant,
        messages=messages,
    )


def _files(
    source: str | PathLike[str] | Sequence[str | PathLike[str]], suffixes: tuple[str, ...]
) -> tuple[list[Path], Path | None]:
    """The files of a source, and the folder that they were found in."""
    if not isinstance(source, str | PathLike):
        paths = [Path(one) for one in source]
        if not paths:
            raise RunLogError("no file to import was given.")
        return paths, None
    folder = Path(source)
    if not folder.exists() and not folder.suffix:
        raise RunLogError(f"{folder}: no such file or folder.")
    if not folder.is_dir():
        return [folder], None
    paths = sorted(path for path in folder.rglob("*") if path.suffix in suffixes)
    if not paths:
        raise RunLogError(f"{folder}: no {' or '.join(suffixes[:2])} file in it.")
    return paths, folder


def _runs_apart(
    paths: Sequence[Path],
    folder: Path | None,
    columns: Mapping[str, str] | None,
    *,
    always: bool,
) -> tuple[list[Table], list[str]]:
    """The tables of all files, those that are one run named and reduced to its checkpoints."""
    mapping = dict(columns or {})
    name = mapping.get("run_id", "run_id")
    apart = always or folder is not None or len(paths) > 1
    tables: list[Table] = []
    found: list[Table] = []
    named: list[str] = []
    said_of: list[str] = []
    for path in paths:
        table = read_table(path, 0, column_kinds(columns))
        unnamed = own_spelling(name, list(table.frame.columns)) is None
        if apart and unnamed and (always or _one_size(table, mapping)):
            run = str(path.relative_to(folder).with_suffix("")) if folder else path.stem
            table = Table(table.name, table.frame.assign(**{name: run}), table.place)
            named.append(run)
        tables.append(table)
        if apart and name in table.frame and table.frame[name].nunique() == 1:
            table, said = checkpoints(table, mapping)
            said_of += said
        if table is not None:
            found.append(table)
    run, count = Counter(named).most_common(1)[0] if named else ("", 0)
    if count > 1:
        raise RunLogError(
            f"{count} files would name their runs the same, {run!r}. Give the folder that holds "
            "them: runs are then called by their places in it."
        )
    messages = _alike_once(said_of)
    if named and not always:
        messages.insert(0, f"run_id: the names of {len(named)} files, each taken for a run")
    return found or tables, messages  # where none has a result, names are still to be confirmed


def _alike_once(said: Sequence[str]) -> list[str]:
    """Messages, those that say the same of many files, but for numbers, by the first of them."""
    alike: dict[str, list[str]] = {}
    for each in said:
        kind = re.sub(r"\d+", "#", each.partition(": ")[2])
        alike.setdefault(kind, []).append(each)
    shown = []
    for each in alike.values():
        more = len(each) - _MOST_FILES
        shown += each if more <= 0 else [f"{each[0]} (the like of {len(each) - 1} more files)"]
    return shown


def _one_size(table: Table, mapping: Mapping[str, str]) -> bool:
    """Whether no column for the size says that the rows are several runs."""
    size = own_spelling(mapping.get("params", "params"), list(table.frame.columns))
    return size is None or table.frame[size].nunique() <= 1
