"""Rows that a fit may use, and the identity of rows: keys and a content hash."""

import hashlib
import struct
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog.schema import COUNTS, RUN_COLUMNS, RUN_KEY, SCHEMA_VERSION

_CONTENT = tuple(column for column in RUN_COLUMNS if column.content)


def usable(runs: pd.DataFrame, target: str) -> pd.DataFrame:
    """The rows with status "ok" and a finite `target`, in their order, with their index labels.

    `target` is "loss", "mean_return" or any other numeric column. A frame that never went through
    `load_runs` is checked as `load_runs` does it. Rows of two evaluation protocols are refused for
    returns: they cannot be compared. So are two rows of one checkpoint: `load_runs` leaves none,
    but frames that were put together afterwards may hold a log twice.
    """
    runs = _loaded(runs)
    absent = [name for name in (*COUNTS, target) if name not in runs]
    if absent:
        raise RunLogError(
            f"the run log has no column {absent[0]!r}. It has: {', '.join(map(str, runs.columns))}."
        )
    rows = runs[(runs["status"] == "ok").to_numpy() & np.isfinite(runs[target].to_numpy(float))]
    if rows.empty:
        counts = ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())
        raise RunLogError(
            f"no row has status ok and a finite {target} ({len(runs)} rows: {counts})."
        )
    _refuse_copies(rows)
    if target == "mean_return" and "protocol" in rows and rows["protocol"].nunique() > 1:
        raise RunLogError(
            f"returns of {rows['protocol'].nunique()} evaluation protocols cannot be compared: "
            f"{_numbered(rows['protocol'])}. Choose one: "
            f"where=\"protocol == '{rows['protocol'].mode()[0]}'\"."
        )
    return rows


def repeated(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """(rows,) which rows stand for the same checkpoint as an earlier one: equal in run_id, samples
    and budget."""
    return rows.duplicated([name for name in RUN_KEY if name in rows]).to_numpy()


def _refuse_copies(rows: pd.DataFrame) -> None:
    again = np.flatnonzero(repeated(rows))
    if not len(again):
        return
    key = [name for name in RUN_KEY if name in rows]
    second = rows.iloc[again[0]]
    shown = ", ".join(
        f"{name}={second[name]!r}" if isinstance(second[name], str) else f"{name}={second[name]:g}"
        for name in key
    )
    raise RunLogError(
        f"{len(again)} of {len(rows)} rows repeat the checkpoint of another row, first "
        f"{shown}: copies would count as further measurements, and intervals come out too narrow. "
        "Put logs together with load_runs([one, two]), which leaves copies out; a run that is "
        "meant to count twice needs a run_id of its own each time."
    )


def _loaded(runs: pd.DataFrame) -> pd.DataFrame:
    if isinstance(runs, pd.DataFrame) and "status" in runs:
        return runs
    from scaling_analysis.runlog.reading import load_runs

    return load_runs(runs)


def select(
    runs: pd.DataFrame, agent: str | None = None, task: str | None = None, *, mixture: bool = False
) -> pd.DataFrame:
    """The rows of one agent and one task; a mixture that is left is refused.

    With `mixture=True` it is not: for estimators that pool tasks or agents. What never went through
    `load_runs`, a path, a plain frame or a table of another library, is checked as it does it.
    """
    runs = _loaded(runs)
    for name, chosen in (("agent", agent), ("task", task)):
        if chosen is not None:
            if name not in runs:
                raise RunLogError(f"{name}={chosen!r}: the run log has no column {name!r}.")
            rows = runs[name] == chosen
            if not rows.any():
                raise RunLogError(
                    f"{name}={chosen!r}: no such row. The log has {_numbered(runs[name])}."
                )
            runs = runs[rows]
    if mixture:
        return runs
    for name in ("agent", "task"):
        if name not in runs:
            continue
        fitted = runs[name][runs["status"] == "ok"] if "status" in runs else runs[name]
        if fitted.nunique() > 1:
            raise RunLogError(
                f"the run log mixes {fitted.nunique()} values of {name}: {_numbered(fitted)}. "
                f"Choose one: {name}={fitted.mode()[0]!r}."
            )
    return runs


def row_keys(runs: pd.DataFrame) -> list[tuple[str, float, float | None]]:
    """(run_id, samples, budget) of every row, sorted; a row without a budget has None there."""
    run_id, samples = runs[RUN_KEY[0]], runs[RUN_KEY[1]]
    budget = runs[RUN_KEY[2]] if RUN_KEY[2] in runs else pd.Series(np.nan, runs.index)
    keys = (
        (str(run), float(count), None if np.isnan(flops) else float(flops))
        for run, count, flops in zip(run_id, samples, budget, strict=True)
    )
    return sorted(keys, key=lambda key: (key[0], key[1], key[2] or 0.0))


def content_hash(runs: pd.DataFrame) -> str:
    """Hash (64 hex digits) of what was measured, independent of file format, row and column order.

    It covers the content columns of the schema (run_id to protocol), not the status, the note or
    what describes the machine: the same measurement keeps its hash when a comment is added.
    """
    digest = hashlib.sha256(f"run log {SCHEMA_VERSION}".encode())
    for row in sorted(row_digests(runs)):
        digest.update(row)
    return digest.hexdigest()


def row_digests(runs: pd.DataFrame) -> Iterator[bytes]:
    """16 bytes for the content of each row, in order. An absent column equals an empty one."""
    texts = [column.name for column in _CONTENT if column.kind == "text"]
    names = [column.name for column in _CONTENT if column.kind != "text"]
    numbers = np.full((len(runs), len(names)), np.nan, dtype="<f8")
    for at, name in enumerate(names):
        if name in runs:
            numbers[:, at] = runs[name].to_numpy(dtype=float, na_value=np.nan)
    numbers += 0.0  # -0.0 and 0.0 are the same value
    numbers[np.isnan(numbers)] = np.nan  # and so are all NaN
    # Few distinct combinations of the texts occur: each is encoded once.
    empty = pd.Series("", runs.index, dtype=str)
    labels = pd.DataFrame(
        {name: runs[name].fillna("").astype(str) if name in runs else empty for name in texts}
    )
    combination = labels.groupby(texts, sort=False).ngroup().to_numpy()
    encoded = [
        b"".join(struct.pack("<q", len(part.encode())) + part.encode() for part in row)
        for row in labels.iloc[np.unique(combination, return_index=True)[1]].itertuples(index=False)
    ]
    block, width = memoryview(numbers.tobytes()), numbers.shape[1] * numbers.itemsize
    for row, code in enumerate(combination.tolist()):
        digest = hashlib.blake2b(encoded[code], digest_size=16)
        digest.update(block[row * width : (row + 1) * width])
        yield digest.digest()


def _numbered(cells: pd.Series) -> str:
    counts = cells.value_counts()
    shown = ", ".join(f"{value!r} ({count} rows)" for value, count in counts.head(8).items())
    return shown if len(counts) <= 8 else f"{shown} and {len(counts) - 8} more"
