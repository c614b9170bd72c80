"""Weights & Biases: the CSV of a runs table, and run directories."""

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.importing.mapping import Imported, assemble, column_kinds
from scaling_analysis.runlog.tables import Table, read_table

_SUMMARY = "wandb-summary.json"
_CONFIG = "config.yaml"


def import_wandb(
    source: str | PathLike[str],
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    *,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
) -> Imported:
    """Read a CSV export of a runs table, or run directories (`wandb/run-<time>-<id>`).

    A runs table has one row a run; runs whose State is not "finished" get status "preempted" with
    the state as their note. Of a run directory the files `files/wandb-summary.json` and
    `files/config.yaml` are read: one row, the last values of the run; columns are called
    "summary.eval/loss" and "config.optimizer.lr". The history is in a binary file that only the
    tool's own server reads: export it as CSV or log a row a checkpoint with `append_run`.

    The other arguments are those of `import_csv`.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> export = pathlib.Path(tempfile.mkdtemp()) / "export.csv"
    >>> rows = ["Name,State,n_params,samples,loss", "a,finished,1e6,2e7,3.1", "b,crashed,1e6,1e7,4"]
    >>> _ = export.write_text("\\n".join(rows))
    >>> names = {"run_id": "Name", "params": "n_params"}
    >>> import_wandb(export, columns=names, cost_constant=6).runs["status"].tolist()
    ['ok', 'preempted']
    """
    path = Path(source)
    if not path.exists():
        raise RunLogError(f"{path}: no such file or folder.")
    if path.is_dir():
        table, messages = _run_directories(path)
    else:
        table, messages = _runs_table(path, columns)
    return assemble(
        [table],
        columns=columns,
        scale=scale,
        constants=constants,
        cost_constant=cost_constant,
        messages=messages,
    )


def _runs_table(path: Path, columns: Mapping[str, str] | None) -> tuple[Table, list[str]]:
    table = read_table(path, 0, column_kinds(columns))
    header = list(table.frame.columns)
    if "State" not in header or "status" in header:
        return table, []
    states = table.frame["State"].astype(str).str.lower()
    unfinished = states != "finished"
    frame = table.frame.assign(
        status=states.where(unfinished, "ok").where(~unfinished, "preempted"),
        note=("W&B state " + states).where(unfinished, ""),
    )
    counts = states[unfinished].value_counts()
    said = [
        f"{count} row{'' if count == 1 else 's'} with state {state}: status preempted"
        for state, count in counts.items()
    ]
    return Table(table.name, frame, table.place), said


def _run_directories(folder: Path) -> tuple[Table, list[str]]:
    found = sorted(path.parent.parent for path in folder.rglob(f"files/{_SUMMARY}"))
    if folder.name == "files" and (folder / _SUMMARY).exists():
        found.append(folder.parent)
    if not found:
        raise RunLogError(
            f"{folder}: no run directory in it (a folder with files/{_SUMMARY}). Runs that never "
            "logged a summary have none. Files that were exported as CSV, one a run, are read by "
            f"import_csv({str(folder)!r})."
        )
    rows = [
        {
            "run_id": _run_id(run),
            **_flat("config", _config(run / "files" / _CONFIG)),
            **_flat("summary", _json(run / "files" / _SUMMARY)),
        }
        for run in found
    ]
    messages = ["one row a run, its last values: the history in the .wandb files is not read"]
    places = [str(run) for run in found]
    return Table(str(folder), pd.DataFrame(rows), places.__getitem__), messages


def _run_id(run: Path) -> str:
    """The id of a run: of its binary file `run-<id>.wandb`, or the end of the folder's name."""
    for file in run.glob("run-*.wandb"):
        return file.stem.removeprefix("run-")
    return run.name.rpartition("-")[2] if run.name.startswith(("run-", "offline-")) else run.name


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunLogError(f"{path}: not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise RunLogError(f"{path}: holds a {type(value).__name__}, not an object.")
    return value


def _config(path: Path) -> dict[str, Any]:
    """The configuration, each key as {"value": ...} beside its description."""
    if not path.exists():
        return {}
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise RunLogError(
            f"{path}: reading YAML needs PyYAML: pip install 'scaling-analysis[import]'."
        ) from error
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise RunLogError(f"{path}: not YAML ({error}).") from error
    if not isinstance(config, dict):
        raise RunLogError(f"{path}: holds a {type(config).__name__}, not a mapping.")
    return {
        key: value["value"] if isinstance(value, dict) and "value" in value else value
        for key, value in config.items()
        if key not in ("wandb_version", "_wandb")
    }


def _flat(prefix: str, value: Any) -> dict[str, Any]:
    """{"a": {"b": 1}} as {"prefix.a.b": 1}; lists are left out."""
    if isinstance(value, dict):
        return {
            name: leaf
            for key, inner in value.items()
            for name, leaf in _flat(f"{prefix}.{key}", inner).items()
        }
    return {} if isinstance(value, list) else {prefix: value}
