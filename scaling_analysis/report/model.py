"""What a report says, as plain data: the HTML and the PDF are two renderings of it."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from scaling_analysis.errors import ReportError
from scaling_analysis.runlog.writing import replacing

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Text in rows and columns."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    emphasis: tuple[int, ...] = ()
    """Rows that matter most."""
    text_columns: tuple[int, ...] = (0,)
    """Columns of words, set to the left; the others hold numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scale:
    """A logarithmic or linear axis of a figure, for marks that are set later."""

    log: bool
    limits: tuple[float, float]
    """Values at both ends of the axis."""
    pixels: tuple[float, float]
    """Their places in the SVG's own units."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """A place in a figure that tells its values on hover."""

    x: float
    y: float
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """A vector drawing with its numbers."""

    key: str
    """Short name, unique in the report."""
    title: str
    caption: str
    svg: str
    width: float
    height: float
    marks: tuple[Mark, ...]
    csv: str
    """The points drawn, as CSV with a header."""
    follows: str = ""
    """Column of the calculator whose point the figure shows: "loss", "params_opt", ..., or ""."""
    x: Scale | None = None
    y: Scale | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Equation:
    """A law with its numbers.

    `kind` "power": y = s (C/C0)^p; "floor": the same + E; "inverse": (s (C/C0)^p + b)^-1;
    "additive": E + A/N^alpha + B/D^beta; "link": R = r + s L^p.
    """

    name: str
    """Where it comes from."""
    symbol: Literal["N", "D", "L", "R"]
    kind: Literal["power", "floor", "inverse", "additive", "link"]
    values: Mapping[str, str]
    """Numbers by name: scale, reference, exponent, floor; or E, A, alpha, B, beta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A chapter; its parts come in the order of the fields."""

    key: str
    title: str
    paragraphs: tuple[str, ...] = ()
    equations: tuple[Equation, ...] = ()
    figures: tuple[Figure, ...] = ()
    tables: tuple[Table, ...] = ()
    code: str = ""
    """Text to be shown as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculator:
    """The forecast on a dense grid of compute."""

    columns: Mapping[str, tuple[float | None, ...]]
    """flops [FLOP] increasing, params_opt, samples_opt [count], loss, mean_return with _lo, _hi,
    _run_lo, _run_hi; None where there is none."""
    start: float
    """The compute shown first [FLOP]."""
    flops_max: float
    """Largest compute of the log [FLOP]."""
    level: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What one forecast says: of one agent on one task, from one log."""

    key: str
    """Set before the keys of its chapters and figures; "" where the report has no other part."""
    name: str
    subtitle: str
    date: str
    """Of the forecast, ISO 8601; "" where the log carries no time."""
    answer: tuple[str, ...]
    table: Table
    cautions: tuple[str, ...]
    calculator: Calculator
    sections: tuple[Section, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """All that a reader sees."""

    title: str
    sections: tuple[Section, ...]
    """About all parts together; none where there is one part."""
    parts: tuple[Part, ...]
    schema_version: int = field(default=SCHEMA_VERSION)

    @property
    def figures(self) -> tuple[Figure, ...]:
        """All figures in the order of the report."""
        every = (*self.sections, *(section for part in self.parts for section in part.sections))
        return tuple(figure for section in every for figure in section.figures)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The report that `to_dict` wrote."""
        if data.get("schema_version") != SCHEMA_VERSION:
            raise ReportError(
                f"schema_version is {data.get('schema_version')!r}: no report of schema "
                f"{SCHEMA_VERSION}"
            )
        parts = {
            "sections": tuple(_section(each) for each in data["sections"]),
            "parts": tuple(_part(each) for each in data["parts"]),
        }
        return cls(**{**data, **parts})

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the report as JSON, atomically."""
        target = Path(path)
        text = json.dumps(self.to_dict(), allow_nan=False, indent=1, ensure_ascii=False)
        with replacing(target) as file:
            file.write(text.encode() + b"\n")
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote."""
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReportError(f"{path}: cannot be read as a report ({error})") from error


def _part(data: Mapping[str, Any]) -> Part:
    columns = {name: tuple(v) for name, v in data["calculator"]["columns"].items()}
    inner = {
        "table": _table(data["table"]),
        "calculator": Calculator(**{**data["calculator"], "columns": columns}),
        "sections": tuple(_section(each) for each in data["sections"]),
    }
    return Part(**{**_tuples(data), **inner})


def _table(data: Mapping[str, Any]) -> Table:
    rows = tuple(tuple(row) for row in data["rows"])
    return Table(**{**_tuples(data), "rows": rows})


def _figure(data: Mapping[str, Any]) -> Figure:
    axes = {name: data[name] and Scale(**_tuples(data[name])) for name in ("x", "y")}
    marks = tuple(Mark(**mark) for mark in data["marks"])
    return Figure(**{**data, **axes, "marks": marks})


def _section(data: Mapping[str, Any]) -> Section:
    inner = {
        "equations": tuple(Equation(**each) for each in data["equations"]),
        "figures": tuple(_figure(each) for each in data["figures"]),
        "tables": tuple(_table(each) for each in data["tables"]),
    }
    return Section(**{**_tuples(data), **inner})


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tuple(v) if isinstance(v, list) else v for name, v in data.items()}
