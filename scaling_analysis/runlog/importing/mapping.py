"""Names of another tool to names of the schema: confirmed by the user, or listed as questions."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import RunLogError
from scaling_analysis.results import Result
from scaling_analysis.runlog.building import build_runs
from scaling_analysis.runlog.checking import look_alikes, own_spelling, resolve_names
from scaling_analysis.runlog.schema import COUNTS, RUN_COLUMNS
from scaling_analysis.runlog.tables import Table

TARGETS = ("loss", "mean_return")
_AMBIGUITY_MATTERS = ("run_id", *COUNTS, *TARGETS)
_CONFIGURATION = (
    "agent",
    "task",
    "seed",
    "params",
    "params_core",
    "unique_samples",
    "protocol",
    "learning_rate",
    "batch_size",
    "device",
    "git_commit",
)
_PROGRESS = ("samples", "flops", "budget")
"""Columns that tell the checkpoints of a run apart."""
_MOST_LISTED = 30
_MOST_RIVALS = 5


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Imported(Result):
    """A run log made from the files of another tool, and what was done to make it."""

    _error = RunLogError

    runs: pd.DataFrame
    """The run log, as `load_runs` returns it."""
    episodes: pd.DataFrame | None = None
    """Returns of single episodes, as `load_episodes` returns them, where the source has them."""
    used: dict[str, str]
    """{column of the schema: column of the source}."""
    unused: tuple[str, ...]
    """Columns of the source that stand for nothing in the schema; the run log keeps them."""
    messages: tuple[str, ...]
    """What was left out, filled in or assumed, and guesses to confirm."""

    def summary(self) -> str:
        lines = [f"{len(self.runs)} rows of {self.runs['run_id'].nunique()} runs"]
        lines += [f"  {ours} <- {theirs}" for ours, theirs in self.used.items()]
        lines += [f"- {message}" for message in self.messages]
        if self.unused:
            lines.append(f"not mapped: {listed(self.unused)}")
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """`runs`: one row an evaluated checkpoint."""
        return self.runs.copy()

    def to_dict(self) -> dict[str, Any]:
        """The import as JSON types."""
        return {
            "kind": type(self).__name__,
            "runs": encode_frame(self.runs),
            "episodes": None if self.episodes is None else encode_frame(self.episodes),
            "used": dict(self.used),
            "unused": list(self.unused),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The import that `to_dict` wrote."""
        episodes = data["episodes"]
        return cls(
            runs=decode_frame(data["runs"]),
            episodes=None if episodes is None else decode_frame(episodes),
            used=dict(data["used"]),
            unused=tuple(data["unused"]),
            messages=tuple(data["messages"]),
        )


def assemble(
    tables: Sequence[Table],
    *,
    columns: Mapping[str, str] | None = None,
    scale: Mapping[str, float] | None = None,
    constants: Mapping[str, str | float] | None = None,
    cost_constant: float | None = None,
    episodes: pd.DataFrame | None = None,
    messages: Sequence[str] = (),
) -> Imported:
    """Map, scale and check the rows of all tables, or say which names are to be confirmed."""
    name = tables[0].name if len(tables) == 1 else f"{tables[0].name} and {len(tables) - 1} more"
    header = list(dict.fromkeys(label for table in tables for label in table.frame.columns))
    if (chart := next((at for at in header if f"{at}__MIN" in header), None)) is not None:
        raise RunLogError(
            f"{name}: this is the export of a chart (columns such as {chart!r}). Export the "
            "table of runs instead: it has a row a run and its configuration."
        )
    constants = dict(constants or {})
    for constant in constants:
        if constant in header or constant in (columns or {}):
            raise RunLogError(
                f"{name}: {constant!r} is given as a constant and stands in a column."
            )
    used, guesses = match_names(name, header, columns or {}, constants, cost_constant)
    if "mean_return" in used and not {"protocol"} & {*used, *constants}:
        raise RunLogError(
            f"{name}: returns ({used['mean_return']!r}) need the name of their evaluation "
            "protocol: returns of two protocols are never compared. Say constants={'protocol': "
            "'v1'}, or map the column that names it."
        )
    # A column that has a name of the schema and stands for something else steps aside.
    aside = [ours for ours, theirs in used.items() if ours != theirs and ours in header]
    guesses += [f"{ours!r} of the source is not kept: {ours}={used[ours]}" for ours in aside]
    frames = []
    for table in tables:
        frame = table.frame.drop(columns=aside, errors="ignore").assign(**constants)
        # A column that only other tables have is empty here, so that one mapping serves all.
        absent = [theirs for theirs in used.values() if theirs not in frame]
        frames.append(Table(table.name, frame.assign(**dict.fromkeys(absent)), table.place))
    mapping = {ours: theirs for ours, theirs in used.items() if ours != theirs}
    runs = build_runs(frames, mapping, scale=scale, cost_constant=cost_constant)
    taken = {*used.values(), *(column.name for column in RUN_COLUMNS)}
    return Imported(
        runs=runs,
        episodes=episodes,
        used=used,
        unused=tuple(label for label in header if label not in taken),
        messages=(*messages, *guesses),
    )


def match_names(
    name: str,
    header: list[str],
    columns: Mapping[str, str],
    constants: Mapping[str, object],
    cost_constant: float | None,
) -> tuple[dict[str, str], list[str]]:
    """{schema name: source name} of what is certain, and guesses for what is not needed.

    A column is certain if the caller maps it, or if it has the name of the schema and no other
    column looks like it. What is needed and uncertain is an error that lists everything.
    """
    used = dict(columns)
    apart = [label for label in header if used.get(label, label) == label]
    resolve_names(name, apart, RUN_COLUMNS, columns)  # names that are given must be there
    ambiguous: dict[str, list[str]] = {}
    missing: dict[str, list[str]] = {}
    for column in RUN_COLUMNS:
        if column.name in used or column.name in constants:
            continue
        free = [label for label in header if label not in used.values()]
        alike = look_alikes(column, free)
        spelled = own_spelling(column.name, free)
        if spelled is not None:
            rivals = look_alikes(column, free, fuzzy=False)
            if column.name in _AMBIGUITY_MATTERS and len(rivals) > 1:
                ambiguous[column.name] = rivals
            else:
                used[column.name] = spelled
        elif alike:
            missing[column.name] = alike
    have = {*used, *constants}
    counts = [count for count in COUNTS if count not in have]
    needed = list(counts)
    if cost_constant is not None:
        without = [count for count in counts if count not in missing] or counts
        needed = [count for count in counts if len(counts) > 1 and count != without[-1]]
    if not have.intersection(TARGETS):
        needed += [target for target in TARGETS if target in missing or target in ambiguous] or [
            *TARGETS
        ]
    unsure = {**{want: missing.get(want, []) for want in needed}, **ambiguous}
    if unsure:
        # Without runs and budgets the log would be read as other than it is: asked for as well.
        unsure |= {want: missing[want] for want in ("run_id", "budget") if want in missing}
        raise RunLogError(_questions(name, header, unsure, counts, cost_constant))
    return used, [
        f"not read, to confirm: {ours}={alike[0]} (looks like {ours!r})"
        for ours, alike in missing.items()
    ]


def _questions(
    name: str,
    header: list[str],
    unsure: Mapping[str, list[str]],
    counts: list[str],
    cost_constant: float | None,
) -> str:
    meaning = {column.name: column.meaning for column in RUN_COLUMNS}
    lines = [f"{name}: the names of these columns must be confirmed:"]
    guess = {want: alike[0] for want, alike in unsure.items() if alike}
    for want, alike in unsure.items():
        others = f"; or {listed(alike[1:], _MOST_RIVALS)}" if alike[1:] else ""
        lines.append(f"  {want} ({meaning[want]}): {guess.get(want, 'no guess')}{others}")
    if guess:
        lines.append(f"If the guesses are right, say columns={guess!r}.")
    derivable = [count for count in counts if not unsure.get(count, [])]
    if len(derivable) == 1 and cost_constant is None:
        lines.append(
            f"To compute {derivable[0]} from the other two, say cost_constant=6 (C = 6 N D, right "
            "for dense transformers only)."
        )
    lines.append(f"The columns are: {listed(header)}.")
    lines.append("For other units, such as millions, say scale={'params': 1e6}.")
    return "\n".join(lines)


def column_kinds(columns: Mapping[str, str] | None) -> Callable[[list[str]], dict[str, str]]:
    """How `read_table` is to read the columns that a mapping or their own name gives a meaning."""
    kind_of = {column.name: column.kind for column in RUN_COLUMNS}
    mapping = dict(columns or {})

    def kinds(header: list[str]) -> dict[str, str]:
        read = {ours: mapping.get(ours) or own_spelling(ours, header) for ours in kind_of}
        return {
            theirs: "text" if kind_of[ours] == "text" else "number"
            for ours, theirs in read.items()
            if theirs is not None and theirs in header
        }

    return kinds


def checkpoints(table: Table, columns: Mapping[str, str]) -> tuple[Table | None, list[str]]:
    """The evaluated checkpoints of one run's lines: None if it has none.

    Trainers log the configuration once and results now and then: a configuration column with a
    single value is filled, lines without a result are left out, and both are said.
    """
    frame = table.frame
    filled = []
    for label in (columns.get(ours, ours) for ours in _CONFIGURATION):
        if label not in frame:
            continue
        cells = frame[label].dropna()
        if 0 < len(cells) < len(frame) and cells.astype(str).nunique() == 1:
            frame = frame.assign(**{label: cells.iloc[0]})
            filled.append(label)
    targets = [columns.get(target, target) for target in TARGETS]
    present = [target for target in targets if target in frame]
    measured = frame[present].notna().any(axis=1).to_numpy() if present else np.zeros(0, bool)
    kept = np.flatnonzero(measured)
    if not len(kept):
        return None, [f"{table.name}: no {' or '.join(targets)} in it, left out"]
    messages = []
    if filled:
        messages.append(f"{table.name}: one value a run, taken for all its rows: {listed(filled)}")
    if len(kept) < len(frame):
        messages.append(
            f"{table.name}: {len(frame) - len(kept)} of {len(frame)} lines hold no "
            f"{' or '.join(present)}: no evaluated checkpoint, left out"
        )
    kept, said = _later(table, kept, columns)
    messages += said
    lines = [table.place(int(row)) for row in kept]
    return Table(table.name, frame.iloc[kept].reset_index(drop=True), lines.__getitem__), messages


def _later(
    table: Table, kept: NDArray[np.intp], columns: Mapping[str, str]
) -> tuple[NDArray[np.intp], list[str]]:
    """Of a checkpoint that one run wrote twice the later line, as a run that was resumed writes."""
    header = list(table.frame.columns)
    spelled = {ours: own_spelling(columns.get(ours, ours), header) for ours in _PROGRESS}
    # The size is one and the same; what says how far the run was is enough.
    key = [label for label in spelled.values() if label is not None]
    if not {spelled["samples"], spelled["flops"]} - {None}:
        return kept, []
    again = table.frame.iloc[kept].duplicated(key, keep="last").to_numpy()
    if not again.any():
        return kept, []
    return kept[~again], [
        f"{table.name}: {int(again.sum())} checkpoints were written again, as after a resume: the "
        "later line counts"
    ]


def listed(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    shown = ", ".join(names[:most])
    more = len(names) - most
    return f"{shown} and {more} more" if more > 0 else shown
