"""Columns of numbers as a caller gives them, checked: what is wrong is said with its place."""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.laws.surfaces import Space

Array = NDArray[np.float64]

MIN_POINTS = 4
MOST_DECADES = 60.0
"""A positive quantity that spans more is no curve but a mistake in a unit or a file."""


def column(name: str, values: ArrayLike) -> Array:
    """A finite column of numbers, (n,)."""
    try:
        raw = np.asarray(values)
        if raw.dtype.kind not in "biuf":
            _refuse_text(name, raw)
        out = raw.astype(float)
    except (TypeError, ValueError) as problem:
        raise FitError(f"{name} holds something that is no number: {problem}") from None
    if out.ndim != 1:
        raise FitError(f"{name} has shape {out.shape}: give one value a point")
    bad = ~np.isfinite(out)
    if bad.any():
        i = int(np.argmax(bad))
        raise FitError(f"{name}[{i}] is {out[i]:g}: leave that point out")
    return out


def _refuse_text(name: str, raw: NDArray[np.generic]) -> None:
    if raw.dtype.kind == "O":
        text = [i for i, v in enumerate(raw.flat) if isinstance(v, str | bytes)]
        if not text:
            return
        where = f"{name}[{text[0]}] is {raw.flat[text[0]]!r}"
    else:
        where = f"its type is {raw.dtype}, as in {raw.flat[0]!r}" if raw.size else "it is empty"
    raise FitError(f"{name} holds something that is no number: {where}")


def positive_column(name: str, values: ArrayLike) -> Array:
    """A column of positive numbers that stay within `MOST_DECADES`."""
    out = column(name, values)
    if (out <= 0).any():
        i = int(np.argmax(out <= 0))
        raise FitError(
            f"{name}[{i}] = {out[i]:g}: a law in logs needs positive numbers; leave that point out"
        )
    check_decades(name, out)
    return out


def check_decades(name: str, values: Array) -> None:
    """Refuse positive values that lie more than `MOST_DECADES` apart."""
    if values.size and np.ptp(np.log10(values)) > MOST_DECADES:
        low, high = int(values.argmin()), int(values.argmax())
        raise FitError(
            f"{name} goes from {values[low]:g} at [{low}] to {values[high]:g} at [{high}]: more "
            f"than {MOST_DECADES:g} decades are a mistake, not a curve; mend or leave out the point"
        )


def check_outsize(name: str, values: Array) -> None:
    """Refuse a value that dwarfs the others, of either sign, by more than `MOST_DECADES`."""
    size = np.abs(values)
    typical = float(np.median(size[size > 0])) if size.any() else 1.0
    i = int(size.argmax())
    if size[i] > 0 and np.log10(size[i]) - np.log10(typical) > MOST_DECADES:
        raise FitError(
            f"{name}[{i}] = {values[i]:g} is more than {MOST_DECADES:g} decades beyond the typical "
            f"{typical:g}: mend or leave out the point"
        )


def response_space(y: Array) -> Space:
    """ "log" where all y are positive, else "linear"; refused where their sizes make no sense."""
    if (y > 0).all():
        check_decades("y", y)
        return "log"
    check_outsize("y", y)
    return "linear"


def standard_errors(y_se: ArrayLike, count: int) -> Array:
    """Standard errors, one a point, none negative."""
    se = column("y_se", y_se)
    if len(se) != count:
        raise FitError(f"y_se has {len(se)} values for {count} points")
    if (se < 0).any():
        i = int(np.argmax(se < 0))
        raise FitError(f"y_se[{i}] = {se[i]:g} is negative: a standard error cannot be")
    return se


def run_names(run: ArrayLike, count: int) -> NDArray[np.str_]:
    """The run of every point, as text."""
    names = np.asarray(run)
    if names.shape != (count,):
        raise FitError(f"run has shape {names.shape} for {count} points: give one name a point")
    missing = pd.isna(pd.Series(names)).to_numpy()
    if missing.any():
        raise FitError(f"run[{int(np.argmax(missing))}] is missing: name the run of every point")
    return names.astype(str)


def check_direction(direction: str) -> None:
    if direction not in ("decreasing", "increasing"):
        raise FitError(f"direction={direction!r}: say 'decreasing' or 'increasing'")


def power_of_two(size: float) -> float:
    """The power of two at or below a positive size, 1 for 0: dividing by it rounds nothing."""
    return float(np.ldexp(1.0, int(np.frexp(size)[1]) - 1)) if size > 0 else 1.0
