"""Rows of a surface, checked and put into the space in which it is fitted."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.series import Direction, column
from scaling_analysis.estimators.surface_forms import Surface

Array = NDArray[np.float64]

BUDGET_WIDTH = 0.1
"""Rows whose positions differ by less than 10 % are taken to lie on one budget."""


def state_surface(log_x: Array, y: Array, direction: Direction) -> Surface:
    space = "log" if (y > 0).all() else "linear"
    sign = -1.0 if direction == "increasing" else 1.0
    shift = sign * float(np.log(y).mean()) if space == "log" else 0.0
    unit = max(float(np.ptp(y)), 1e-300) if space == "linear" else 1.0
    mu = fall(y, direction, space, shift, unit)
    centre = log_x.mean(axis=1)
    moved = log_x - centre[:, None]
    slopes = np.linalg.lstsq(moved.T, mu - mu.mean(), rcond=1e-9)[0]
    axis = np.where(slopes > 0, -1.0, 1.0)
    position = np.round(axis @ log_x / BUDGET_WIDTH) * BUDGET_WIDTH
    return Surface(
        log_inputs=log_x,
        mu=mu,
        space=space,
        centre=centre,
        position=position,
        axis=axis,
        shift=shift,
        unit=unit,
    )


def fall(y: Array, direction: Direction, space: str, shift: float, unit: float) -> Array:
    """What is fitted: it falls as the inputs grow, and is near 0 (log) or of range 1 (linear)."""
    sign = -1.0 if direction == "increasing" else 1.0
    return sign * np.log(y) - shift if space == "log" else sign * y / unit


def read_inputs(
    inputs: pd.DataFrame | ArrayLike, columns: tuple[str, ...] | None
) -> tuple[tuple[str, ...], Array]:
    """Names and positive values (k, n) of the inputs; by name where they have names."""
    if isinstance(inputs, pd.DataFrame):
        names = tuple(str(name) for name in inputs.columns)
        missing = [name for name in columns or () if name not in names]
        if missing:
            raise FitError(f"the inputs lack the column {missing[0]!r}: they have {list(names)}")
        named = dict(zip(names, (inputs[name] for name in inputs.columns), strict=True))
        names = columns or names
        values = [column(name, named[name]) for name in names]
    else:
        table = np.asarray(inputs)
        if table.ndim != 2 or (columns is not None and table.shape[1] != len(columns)):
            wanted = "rows of inputs" if columns is None else f"the columns {list(columns)}"
            raise FitError(f"inputs have shape {table.shape}: give {wanted}")
        names = columns or tuple(f"x{i + 1}" for i in range(table.shape[1]))
        values = [column(name, v) for name, v in zip(names, table.T, strict=True)]
    for name, v in zip(names, values, strict=True):
        if (v <= 0).any():
            i = int(np.argmax(v <= 0))
            raise FitError(f"{name}[{i}] = {v[i]:g}: a law in logs needs positive inputs")
    if not values:
        raise FitError("there is no input")
    return names, np.array(values)
