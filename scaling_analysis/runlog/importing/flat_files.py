"""Plain CSV, and folders of JSON lines with one file a run."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.importing.mapping import (
    Imported,
    assemble,
    checkpoints,
    column_kinds,
)
from scaling_analysis.runlog.tables import Table, read_table


def import_csv(
    source: str | PathLike[str] | Sequence[str | PathLike[str]],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read CSV (or Parquet) files whose columns have other names or units.

    Parameters
    ----------
    source
        A file or several.
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
    paths = [source] if isinstance(source, str | PathLike) else list(source)
    if not paths:
        raise RunLogError("no file to import was given.")
    tables = [read_table(path, 0, column_kinds(columns)) for path in paths]
    return assemble(
        tables, columns=columns, scale=scale, constants=constants, cost_constant=cost_constant
    )


def import_jsonl(
    source: str | PathLike[str],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read a folder of JSON lines, one file a run, one object a checkpoint.

    A file without a column for run_id names its run. What a file says once (its configuration) is
    taken for all its rows; lines without a result are left out; both are said in the messages. The
    other arguments are those of `import_csv`.

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
    folder = Path(source)
    if folder.is_file():
        paths = [folder]
    else:
        paths = sorted(path for path in folder.rglob("*") if path.suffix in (".jsonl", ".ndjson"))
    if not paths:
        raise RunLogError(f"{folder}: no .jsonl or .ndjson file in it.")
    mapping = dict(columns or {})
    tables: list[Table] = []
    found: list[Table] = []
    messages: list[str] = []
    for path in paths:
        table = read_table(path, 0, column_kinds(columns))
        name = mapping.get("run_id", "run_id")
        if name not in table.frame:
            run = str(path.relative_to(folder).with_suffix("")) if path != folder else path.stem
            table = Table(table.name, table.frame.assign(**{name: run}), table.place)
        tables.append(table)
        if table.frame[name].nunique() == 1:
            table, said = checkpoints(table, mapping)
            messages += said
        if table is not None:
            found.append(table)
    return assemble(
        found or tables,  # where none has a result, the names are still to be confirmed
        columns=columns,
        scale=scale,
        constants=constants,
        cost_constant=cost_constant,
        messages=messages,
    )
