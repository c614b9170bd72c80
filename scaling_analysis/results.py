"""What every public result can do: print, show itself in a notebook, convert, be saved and read."""

import json
import os
from collections.abc import Mapping
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Self

import pandas as pd

from scaling_analysis.errors import ScalingError
from scaling_analysis.runlog.writing import replacing

_MOST_ROWS = 20


class Result:
    """Base of the results: frozen dataclasses with `summary`, `to_frame`, `to_dict`, `from_dict`.

    >>> print(fit)                          # its summary                      # doctest: +SKIP
    >>> fit                                 # in a notebook: table and figure  # doctest: +SKIP
    >>> fit.save("fit.json")                # whole or not at all              # doctest: +SKIP
    >>> type(fit).load("fit.json")                                             # doctest: +SKIP
    """

    __slots__ = ()

    _error: ClassVar[type[ScalingError]] = ScalingError
    """What `save`, `load` and `from_dict` raise."""
    _written_by: ClassVar[str] = "`save`"
    """What writes such a file."""

    def summary(self) -> str:
        """The result in words and figures, status and messages first."""
        raise NotImplementedError

    def to_frame(self) -> pd.DataFrame:
        """The result as a table."""
        raise NotImplementedError

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        raise NotImplementedError

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote."""
        raise NotImplementedError

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it as JSON, atomically, and return the path; the same result gives the same bytes.

        Raises
        ------
        ScalingError
            The file cannot be written; one that stood there is intact.
        """
        target = Path(path)
        text = json.dumps(self.to_dict(), allow_nan=False, indent=1)
        try:
            with replacing(target) as file:
                file.write(text.encode() + b"\n")
        except OSError as error:
            raise self._error(f"{target}: cannot write it ({error.strerror})") from error
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises
        ------
        ScalingError
            There is no such file, or it holds something else.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise cls._error(f"{path}: no such file; {cls._written_by} writes one") from error
        except (OSError, ValueError) as error:
            raise cls._error(
                f"{path}: cannot be read as JSON ({error}); {cls._written_by} writes such a file"
            ) from error
        kind = data.get("kind") if isinstance(data, dict) else None
        if str(kind).lower() != cls.__name__.lower():
            held = f"a {kind}" if kind else "something else"
            raise cls._error(f"{path}: holds {held}, not a {cls.__name__}")
        try:
            return cls.from_dict(data)
        except ScalingError as error:
            raise cls._error(f"{path}: {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise cls._error(
                f"{path}: is damaged, or written by another version ({type(error).__name__}: "
                f"{error}); {cls._written_by} writes it again"
            ) from error

    def __str__(self) -> str:
        return self.summary()

    def __repr__(self) -> str:
        status = getattr(self, "status", None)
        return f"<{type(self).__name__}{f': {status}' if status else ''}>"

    def _shown(self) -> pd.DataFrame:
        """The part of the table that a notebook shows."""
        return self.to_frame()

    def _repr_html_(self) -> str:
        """What a notebook shows: status and messages, the table, the figure, the summary."""
        title, *_ = self.summary().splitlines()
        messages = getattr(self, "messages", ())
        said = "".join(f"<li>{escape(message)}</li>" for message in messages)
        shown = self._shown().rename(columns=lambda c: f"{c:.4g}" if isinstance(c, float) else c)
        table = shown.to_html(
            max_rows=_MOST_ROWS, float_format=lambda value: f"{value:.4g}", border=0
        )
        # The one arrow that points up: a result that is looked at asks the report for its figure.
        figure = import_module("scaling_analysis.report.notebook").figure_of(self)
        return (
            f"<div><p><b>{escape(title)}</b></p>{f'<ul>{said}</ul>' if said else ''}"
            f"{table}{figure}<details><summary>summary</summary>"
            f"<pre>{escape(self.summary())}</pre></details></div>"
        )
