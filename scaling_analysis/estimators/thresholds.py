"""`data_to_threshold`: samples until the mean return of several seeds reaches a threshold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus, RunLogError
from scaling_analysis.laws.monotone import isotonic_falling
from scaling_analysis.results import Result
from scaling_analysis.runlog import select, usable

Array = NDArray[np.float64]

MIN_CURVE = 3
_FEW_SEEDS = 3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class DataToThreshold(Result):
    """Samples at which the mean return of each group first reaches each threshold."""

    _error = FitError

    table: pd.DataFrame
    """One row a group and threshold: the columns of `by`, threshold [points], runs, samples
    [count] (NaN where never reached), samples_lo, samples_hi (infinite where too many resamples
    never reach it), reached (share of resamples that do)."""
    replicates: Array
    """(R, rows of the table) samples [count], NaN where a resample never reaches."""
    by: tuple[str, ...]
    """Columns that made the groups."""
    level: float
    """Nominal coverage of samples_lo, samples_hi."""
    status: FitStatus
    messages: tuple[str, ...]

    def to_frame(self) -> pd.DataFrame:
        """The table."""
        return self.table

    def summary(self) -> str:
        """Status and messages first, then the table."""
        lines = [f"data to threshold: {self.status}", *(f"  - {m}" for m in self.messages)]
        text = self.table.to_string(index=False, float_format=lambda v: f"{v:.4g}")
        return "\n".join([*lines, text, f"intervals at {self.level:.0%}, seeds resampled"])

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        table = self.table.assign(samples_hi=self.table["samples_hi"].replace(np.inf, np.nan))
        return {
            "kind": type(self).__name__,
            "table": encode_frame(table),
            "unbounded": encode_array(np.isinf(self.table["samples_hi"].to_numpy(dtype=float))),
            "replicates": encode_array(self.replicates, np.float32),
            "by": list(self.by),
            "level": self.level,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote."""
        table = decode_frame(data["table"])
        high = np.where(decode_array(data["unbounded"]), np.inf, table["samples_hi"])
        return cls(
            table=table.assign(samples_hi=high, runs=table["runs"].astype(int)),
            replicates=decode_array(data["replicates"]),
            by=tuple(data["by"]),
            level=data["level"],
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )


def data_to_threshold(
    runs: pd.DataFrame,
    thresholds: float | Sequence[float],
    *,
    by: str | Sequence[str] = "params",
    n_resamples: int = 1000,
    level: float = 0.9,
    rng: int | np.random.Generator | None = 0,
) -> DataToThreshold:
    """Samples until the mean return over seeds first reaches a threshold.

    The curves of a group's runs are averaged where they were evaluated after the same number of
    samples, made monotone by isotonic regression (noise must not cross a threshold early), and
    read off by straight lines between evaluations (as Fu et al. 2025 do for value-based agents).
    Intervals draw seeds with replacement; a resample that never reaches is counted.

    Parameters
    ----------
    runs : DataFrame
        A run log with mean_return and samples; runs are told apart by run_id.
    thresholds : float or sequence of float
        Returns [points].
    by : str or sequence of str
        Columns whose values make the groups: model size, updates a sample, ... Each group is of one
        task and agent.
    n_resamples : int
        Resamples of the seeds.

    Returns
    -------
    DataToThreshold

    Raises
    ------
    FitError
        A threshold is not finite, a column is missing, or a group has no learning curve or several
        tasks or agents.

    Examples
    --------
    >>> runs = pd.DataFrame({"run_id": ["a"] * 5 + ["b"] * 5, "params": 1e5, "protocol": "v1",
    ...     "samples": [1e3, 2e3, 3e3, 4e3, 5e3] * 2, "mean_return": [0, 1, 2, 3, 4] * 2})
    >>> table = data_to_threshold(runs.assign(flops=6e5 * runs.samples), [1.5, 9.0]).table
    >>> table["samples"].tolist()
    [2500.0, nan]
    """
    try:
        goals = np.atleast_1d(np.asarray(thresholds, dtype=float))
    except (TypeError, ValueError):
        raise FitError(f"thresholds={thresholds!r}: give finite returns [points]") from None
    if goals.ndim != 1 or not len(goals) or not np.isfinite(goals).all():
        raise FitError(f"thresholds={thresholds!r}: give finite returns [points]")
    if not 0 < level < 1:
        raise FitError(f"level is {level!r}: give a share between 0 and 1, such as 0.9")
    if n_resamples < 1:
        raise FitError(f"n_resamples is {n_resamples}: at least one is needed")
    columns = [by] if isinstance(by, str) else list(by)
    rows = usable(runs, "mean_return")
    for name in (*columns, "run_id"):
        if name not in rows:
            raise FitError(f"the run log has no column {name!r}")
    draws = np.random.default_rng(rng)
    parts, replicates, few, lone, uneven, early, mixed = [], [], 0, 0, 0, 0, 0
    for key, group in rows.groupby(columns, sort=True):
        label = dict(zip(columns, key, strict=True))
        try:
            select(group)
        except RunLogError as error:
            raise FitError(f"{_named(label)}: {error} Or make it one of by=.") from error
        mixed += "params" in group and group["params"].nunique() > 1
        samples, returns = _curves(group, label)
        count = len(returns)
        few, lone = few + (count < _FEW_SEEDS), lone + (count == 1)
        uneven += int(not np.isfinite(returns[:, -1]).all())
        picks = draws.integers(0, count, (n_resamples, count))
        times = np.zeros((n_resamples + 1, count))
        times[0] = 1.0
        np.add.at(times, (np.arange(1, n_resamples + 1)[:, None], picks), 1.0)
        found = _first_crossings(samples, returns, times, goals)
        replicates.append(found[1:])
        early += int((found[0] <= samples[0]).sum())
        for i, goal in enumerate(goals):
            row = label | {"threshold": goal, "runs": count}
            parts.append(row | _ends(found[:, i], level, count))
    doubts = []
    if few:
        doubts.append(
            f"{few} of {len(parts) // len(goals)} groups have fewer than {_FEW_SEEDS} runs: "
            f"their intervals are too narrow{', one run has none' if lone else ''}"
        )
    if mixed:
        doubts.append(
            f"{mixed} of {len(parts) // len(goals)} groups average runs of several sizes: give "
            f"by={[*columns, 'params']} for a curve of each"
        )
    if uneven:
        doubts.append(
            f"in {uneven} groups not all runs were evaluated to the end: where one ends, the mean "
            "over seeds jumps"
        )
    if early:
        doubts.append(
            f"{early} thresholds are reached at the first evaluation already: their samples are an "
            "upper limit"
        )
    table = pd.DataFrame(parts)
    never = int(table["samples"].isna().sum())
    notes = [f"{never} of {len(table)} thresholds are never reached"] if never else []
    return DataToThreshold(
        table=table,
        replicates=np.concatenate(replicates, axis=1),
        by=tuple(columns),
        level=level,
        status=FitStatus.DOUBTFUL if doubts else FitStatus.OK,
        messages=(*doubts, *notes),
    )


def _named(label: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} = {v}" for k, v in label.items())


def _curves(group: pd.DataFrame, label: Mapping[str, Any]) -> tuple[Array, Array]:
    """Samples (T,) and returns (runs, T), NaN where a run was not evaluated."""
    wide = group.pivot_table(index="run_id", columns="samples", values="mean_return")
    if wide.shape[1] < MIN_CURVE:
        raise FitError(
            f"{_named(label)} has {wide.shape[1]} evaluations: a crossing needs a curve of "
            f"{MIN_CURVE} or more"
        )
    return wide.columns.to_numpy(dtype=float), wide.to_numpy(dtype=float)


def _first_crossings(samples: Array, returns: Array, times: Array, goals: Array) -> Array:
    """(R, goals) samples at the first crossing of the isotonic mean curves; NaN where none is.

    `times` (R, runs) says how often a resample holds each run.
    """
    known = np.isfinite(returns)
    mass = times @ known
    with np.errstate(invalid="ignore"):
        mean = (times @ np.where(known, returns, 0.0)) / mass
    # An evaluation that a resample does not have takes the last one before it, or the first.
    place = np.where(mass > 0, np.arange(mass.shape[1]), -1)
    source = np.maximum.accumulate(place, axis=1)
    source = np.where(source < 0, (mass > 0).argmax(axis=1)[:, None], source)
    mean = np.take_along_axis(mean, source, axis=1)
    curve = -isotonic_falling(-mean, np.maximum(mass, 1e-9))
    found = np.empty((len(times), len(goals)))
    for i, goal in enumerate(goals):
        over = curve >= goal
        after = over.argmax(axis=1)
        before = np.maximum(after - 1, 0)
        low, high = (np.take_along_axis(curve, k[:, None], axis=1)[:, 0] for k in (before, after))
        share = np.where(high > low, (goal - low) / np.where(high > low, high - low, 1.0), 1.0)
        at = samples[before] + np.clip(share, 0.0, 1.0) * (samples[after] - samples[before])
        found[:, i] = np.where(over.any(axis=1), at, np.nan)
    return found


def _ends(found: Array, level: float, count: int) -> dict[str, float]:
    """The columns of a group and threshold; `found` holds the data's own crossing first."""
    draws = np.where(np.isnan(found[1:]), np.inf, found[1:])
    low = high = np.nan
    if count > 1:
        tails = [0.5 - level / 2, 0.5 + level / 2]
        low, high = np.quantile(draws, tails, method="inverted_cdf")
    return {
        "samples": float(found[0]),
        "samples_lo": float(low) if np.isfinite(low) else np.nan,
        "samples_hi": float(high),
        "reached": float(np.isfinite(draws).mean()),
    }
