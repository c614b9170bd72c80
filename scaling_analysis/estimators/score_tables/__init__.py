"""Versioned reference scores: the return of random play and of a human or expert, task by task.

A table is a JSON file beside this one and never changes: a correction is a new version, a new file.
"""

import difflib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Any, Self

from scaling_analysis.errors import FitError

_WRAPPING = re.compile(r"^(ale/)|(noframeskip|deterministic)?-v\d+$")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreTable:
    """Reference scores of the tasks of one benchmark."""

    name: str
    """Name with its version, "atari57-v1"."""
    reference: str
    """Whose score counts as 1."""
    protocol: str
    """How both were measured."""
    source: str
    """Where the figures come from."""
    checked_against: str
    """Other sources that the figures were compared with, and where they differ."""
    caution: str
    """What a reader of normalised scores has to know."""
    scores: Mapping[str, tuple[float, float]]
    """(random, reference) [points] by task."""

    def ends(self, task: str) -> tuple[float, float]:
        """Random and reference score [points] of a task, however its name is spelt.

        "SpaceInvaders", "space_invaders", "ALE/SpaceInvaders-v5" are one game.

        Raises
        ------
        FitError
            The table does not have the task; the message names those close to it.
        """
        known = {plain_name(name): name for name in self.scores}
        found = known.get(plain_name(task))
        if found is None:
            near = [known[name] for name in difflib.get_close_matches(plain_name(task), known, n=3)]
            hint = f" Close to it: {', '.join(near)}." if near else ""
            raise FitError(
                f"the score table {self.name!r} has no task {task!r}.{hint} Give your own table: "
                "table={task: (random, reference)}"
            )
        return self.scores[found]

    @classmethod
    def from_mapping(cls, scores: Mapping[str, tuple[float, float]], name: str = "own") -> Self:
        """A table of one's own: {task: (random, reference)} in points."""
        return cls._read({"name": name, "scores": scores})

    @classmethod
    def _read(cls, data: Mapping[str, Any]) -> Self:
        scores = {}
        for task, ends in data["scores"].items():
            try:
                low, high = (float(end) for end in ends)
            except (TypeError, ValueError) as error:
                raise FitError(
                    f"score table {data['name']!r}, task {task!r}: {ends!r} is no pair of numbers "
                    "(random, reference)"
                ) from error
            if not low < high < float("inf"):
                raise FitError(
                    f"score table {data['name']!r}, task {task!r}: the reference {high:g} must be "
                    f"finite and above random play, {low:g}"
                )
            scores[str(task)] = low, high
        if not scores:
            raise FitError(f"score table {data['name']!r} holds no task")
        texts = ("reference", "protocol", "source", "checked_against", "caution")
        return cls(name=data["name"], scores=scores, **{k: str(data.get(k, "")) for k in texts})


def plain_name(task: str) -> str:
    """A task's name without case, separators, the "ALE/" before it and the version behind it."""
    return re.sub(r"[^a-z0-9]", "", _WRAPPING.sub("", _WRAPPING.sub("", str(task).lower())))


@cache
def score_table(name: str) -> ScoreTable:
    """A table that comes with the package, by its name with ("atari57-v1") or without a version."""
    tables = {Path(str(file)).stem: file for file in files(__name__).iterdir()}
    tables = {stem: file for stem, file in tables.items() if re.search(r"-v\d+$", stem)}
    versions = [stem for stem in tables if name in (stem, stem.rsplit("-v", 1)[0])]
    if not versions:
        raise FitError(
            f"score table {name!r} is not known: {', '.join(sorted(tables))}, the path of a JSON "
            "file with 'name' and 'scores', or a mapping {task: (random, reference)}"
        )
    newest = max(versions, key=lambda stem: int(stem.rsplit("-v", 1)[1]))
    return ScoreTable._read(json.loads(tables[newest].read_text(encoding="utf-8")))


def read_score_table(
    table: str | PathLike[str] | Mapping[str, tuple[float, float]] | ScoreTable,
) -> ScoreTable:
    """A table from its name, from the path of a JSON file, or from a mapping."""
    if isinstance(table, ScoreTable):
        return table
    if isinstance(table, Mapping):
        return ScoreTable.from_mapping(table)
    path = Path(table)
    if path.suffix != ".json":
        return score_table(str(table))
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return ScoreTable._read(data)
    except OSError as error:
        raise FitError(f"{path}: cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FitError(
            f"{path}: no score table: a JSON object with 'name' and 'scores' is needed ({error})"
        ) from error
