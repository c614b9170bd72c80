"""What a forecast may be asked: budgets, sizes, levels. Anything else gets an error, no NaN."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError

Array = NDArray[np.float64]

_EXAMPLES = {"flops": "budgets such as 1e19", "params": "sizes such as 1e6"}


def positive(name: str, values: ArrayLike) -> Array:
    """Positive, finite numbers with an axis, or a ForecastError that names the first other."""
    try:
        array = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError) as error:
        raise ForecastError(f"{name}={values!r}: give numbers, {_EXAMPLES[name]}") from error
    bad = ~(np.isfinite(array) & (array > 0))
    if bad.any() or not array.size:
        given = f"{array[bad][0]:g}" if array.size else "empty"
        raise ForecastError(f"{name} is {given}: give positive, finite {_EXAMPLES[name]}")
    return array


def paired(flops: ArrayLike, params: ArrayLike) -> tuple[Array, Array]:
    """C and N of runs, broadcast against one another."""
    c, n = positive("flops", flops), positive("params", params)
    try:
        c, n = np.broadcast_arrays(c, n)
    except ValueError as error:
        raise ForecastError(
            f"flops has shape {c.shape}, params {n.shape}: give one of each for a run, or one for "
            "all runs"
        ) from error
    return c, n


def check_level(level: float) -> None:
    """Refuse what is no level of an interval."""
    if not 0 < level < 1:
        raise ForecastError(f"level={level!r} must lie between 0 and 1, such as 0.9")


def check_replicates(**counts: int) -> None:
    """Refuse fewer than two replicates."""
    for name, count in counts.items():
        if count < 2:
            raise ForecastError(f"{name}={count!r}: a spread needs two replicates at least")
