"""Rows of a surface y(x_1, ..., x_k), checked and put into the space in which it is fitted."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, encode_array
from scaling_analysis.errors import FitError
from scaling_analysis.estimators.columns import (
    MIN_POINTS,
    check_direction,
    column,
    positive_column,
    power_of_two,
    response_space,
    run_names,
)
from scaling_analysis.estimators.series import Direction
from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

BUDGET_WIDTH = 0.1
"""Rows whose positions differ by less than 10 % are taken to lie on one budget."""


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Surface:
    """Rows in the space in which they are fitted.

    mu is what is fitted. It falls as the inputs grow: with s = 1 for a decreasing y and -1 for an
    increasing one, mu = s log y - shift in log space, near 0, and mu = s y / unit in linear space,
    of range 1.
    """

    columns: tuple[str, ...]
    """Names of all inputs given."""
    inputs: tuple[str, ...]
    """Names of those that vary."""
    log_inputs: Array
    """(k, n)."""
    y: Array
    """(n,)."""
    run: NDArray[np.str_] | None
    """Which run a row belongs to."""
    direction: Direction
    space: Space
    shift: float
    unit: float
    weights: Array
    """Of the rows in every fit, (n,), 1 on average."""
    centre: Array
    """Means of the log inputs, (k,)."""
    axis: Array
    """+1 or -1 by input, (k,): the direction in which y improves, on average over the rows."""
    position: Array
    """axis . log inputs: how far a row is in the direction of extrapolation, (n,)."""

    @property
    def mu(self) -> Array:
        return self.mu_of(self.y)

    def mu_of(self, y: Array) -> Array:
        """mu of responses y."""
        sign = -1.0 if self.direction == "increasing" else 1.0
        return sign * np.log(y) - self.shift if self.space == "log" else sign * y / self.unit

    def response(self, mu: Array) -> Array:
        """y of mu."""
        sign = -1.0 if self.direction == "increasing" else 1.0
        if self.space == "linear":
            return sign * self.unit * mu
        with np.errstate(over="ignore"):
            return np.exp(sign * (mu + self.shift))

    def log_rows(self, inputs: pd.DataFrame | ArrayLike) -> Array:
        """Logs (k, m) of new rows of inputs, of those that vary."""
        names, x = read_inputs(inputs, self.columns)
        return np.log(x[[names.index(name) for name in self.inputs]])

    def distance(self, log_inputs: Array) -> Array:
        """How far rows lie beyond these, (m,): in position, or in an input on its own."""
        known = self.log_inputs
        ahead = self.axis @ log_inputs - (self.axis @ known).max()
        above = (log_inputs - known.max(axis=1, keepdims=True)).max(axis=0)
        below = (known.min(axis=1, keepdims=True) - log_inputs).max(axis=0)
        return np.maximum(np.maximum(ahead, np.maximum(above, below)), 0.0)

    def to_dict(self) -> dict[str, Any]:
        """The rows as plain data for JSON."""
        arrays = ("log_inputs", "y", "weights", "centre", "axis", "position")
        return {
            "columns": list(self.columns),
            "inputs": list(self.inputs),
            "run": None if self.run is None else self.run.tolist(),
            "direction": self.direction,
            "space": self.space,
            "shift": self.shift,
            "unit": self.unit,
            **{name: encode_array(getattr(self, name)) for name in arrays},
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The rows that `to_dict` wrote."""
        return cls(
            columns=tuple(data["columns"]),
            inputs=tuple(data["inputs"]),
            log_inputs=decode_array(data["log_inputs"]),
            y=decode_array(data["y"]),
            run=None if data["run"] is None else np.array(data["run"]),
            direction=data["direction"],
            space=data["space"],
            shift=data["shift"],
            unit=data["unit"],
            weights=decode_array(data["weights"]),
            centre=decode_array(data["centre"]),
            axis=decode_array(data["axis"]),
            position=decode_array(data["position"]),
        )


def read_surface(
    inputs: pd.DataFrame | ArrayLike,
    y: ArrayLike,
    direction: Direction,
    run: ArrayLike | None,
) -> Surface:
    """The rows, all of weight 1, or a FitError that says which value cannot be used."""
    check_direction(direction)
    columns, x = read_inputs(inputs, None)
    response = column("y", y)
    if len(response) != x.shape[1]:
        raise FitError(f"inputs have {x.shape[1]} rows, y {len(response)}: they must pair up")
    if len(response) < MIN_POINTS:
        raise FitError(f"{len(response)} rows: an extrapolation needs at least {MIN_POINTS}")
    varies = np.ptp(np.log(x), axis=1) > 1e-9
    if not varies.any():
        raise FitError("no input varies: a surface needs rows with different inputs")
    space = response_space(response)
    sign = -1.0 if direction == "increasing" else 1.0
    size = power_of_two(float(np.abs(response).max()))
    reach = float(np.ptp(response / size))
    log_x = np.log(x[varies])
    centre = log_x.mean(axis=1)
    shift = sign * float(np.log(response).mean()) if space == "log" else 0.0
    unit = size * (reach or 1.0) if space == "linear" else 1.0
    mu = sign * np.log(response) - shift if space == "log" else sign * response / unit
    slopes = np.linalg.lstsq((log_x - centre[:, None]).T, mu - mu.mean(), rcond=1e-9)[0]
    axis = np.where(slopes > 0, -1.0, 1.0)
    return Surface(
        columns=columns,
        inputs=tuple(name for name, used in zip(columns, varies, strict=True) if used),
        log_inputs=log_x,
        y=response,
        run=None if run is None else run_names(run, len(response)),
        direction=direction,
        space=space,
        shift=shift,
        unit=unit,
        weights=np.ones(len(response)),
        centre=centre,
        axis=axis,
        position=np.round(axis @ log_x / BUDGET_WIDTH) * BUDGET_WIDTH,
    )


def read_inputs(
    inputs: pd.DataFrame | ArrayLike, columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Array]:
    """Names and positive values (k, n) of the inputs; by name where they have names."""
    if isinstance(inputs, pd.DataFrame):
        frame: pd.DataFrame = inputs
        names = tuple(str(name) for name in frame.columns)
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FitError(f"the inputs have two columns {twice!r}: name each once")
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise FitError(f"the inputs lack the column {missing[0]!r}: they have {list(names)}")
        named = dict(zip(names, (frame[name] for name in frame.columns), strict=True))
        names = columns or names
        values = [positive_column(name, named[name]) for name in names]
    else:
        try:
            table = np.asarray(inputs)
        except ValueError as problem:
            raise FitError(f"inputs are no table of numbers: {problem}") from None
        if table.ndim != 2 or (columns is not None and table.shape[1] != len(columns)):
            wanted = "rows of inputs" if columns is None else f"the columns {list(columns)}"
            raise FitError(f"inputs have shape {table.shape}: give {wanted}")
        names = columns or tuple(f"x{i + 1}" for i in range(table.shape[1]))
        values = [positive_column(name, v) for name, v in zip(names, table.T, strict=True)]
    if not values:
        raise FitError("there is no input")
    return names, np.array(values)
