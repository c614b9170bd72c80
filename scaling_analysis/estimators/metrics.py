"""Natural metrics: monotone functions of the return in which a law may be a power law.

A return that saturates (a success rate, a share of the expert's score) bends away from any power
law; its odds, or the strength behind an Elo rating, need not. Hilton et al. 2023 ("Scaling laws for
single-agent reinforcement learning") call such a measure natural. A fit happens in the metric, and
what is forecast comes back in points.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError

Array = NDArray[np.float64]
Transform = Callable[[Array], ArrayLike]
Pair = tuple[Transform, Transform]

NAMES = ("points", "above", "normalised", "odds", "elo")
_ELO = 400 / np.log(10)
_STEP = 1e-5
_EXACT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Metric:
    """An increasing function of the return [points], with its inverse."""

    name: str
    """One of `NAMES`, or "own" for a pair of functions."""
    equation: str
    """m as a function of R."""
    forward: Transform = field(repr=False)
    """Points to metric."""
    inverse: Transform = field(repr=False)
    """Metric to points."""
    floor: float | None = None
    """r [points], the return of random play, where the metric knows one."""
    ceiling: float | None = None
    """t [points], the return that cannot be exceeded, where the metric knows one."""

    def of(self, returns: ArrayLike) -> Array:
        """The metric of returns [points]; not finite outside its domain."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self.forward(np.asarray(returns, dtype=float)), dtype=float)

    def points(self, values: ArrayLike) -> Array:
        """The returns [points] of metric values."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return np.asarray(self.inverse(np.asarray(values, dtype=float)), dtype=float)

    def slope(self, returns: ArrayLike) -> Array:
        """dm/dR, for standard errors: that of the metric is slope times that of the return."""
        r = np.asarray(returns, dtype=float)
        step = _STEP * np.maximum(np.abs(r), 1.0)
        if self.name == "odds" and self.floor is not None and self.ceiling is not None:
            step = np.minimum(step, 1e-2 * np.minimum(r - self.floor, self.ceiling - r))
        with np.errstate(divide="ignore", invalid="ignore"):
            return (self.of(r + step) - self.of(r - step)) / (2 * step)

    def check(self, returns: ArrayLike) -> None:
        """Refuse returns outside the domain, and functions that do not rise or do not invert.

        Raises
        ------
        FitError
            Naming the return and the remedy.
        """
        r = np.unique(np.asarray(returns, dtype=float))
        value = self.of(r)
        bad = ~np.isfinite(value)
        if bad.any():
            inside = [
                f"{side} {end:g}"
                for side, end in (("above", self.floor), ("below", self.ceiling))
                if end is not None
            ]
            raise FitError(
                f"metric {self.name!r}, m = {self.equation}: a return of {r[bad][0]:g} has no "
                f"finite value. It is for returns {' and '.join(inside) or 'of its domain'}"
            )
        if (np.diff(value) <= 0).any():
            at = int(np.argmax(np.diff(value) <= 0))
            raise FitError(
                f"metric {self.name!r} does not rise from {r[at]:g} to {r[at + 1]:g} points: a "
                "metric must be increasing in the return"
            )
        back = self.points(value)
        scale = max(float(np.ptp(r)), float(np.abs(r).max()), 1e-300)
        missed = np.abs(back - r) > _EXACT * scale
        if not np.isfinite(back).all() or missed.any():
            at = int(np.argmax(~np.isfinite(back) | missed))
            raise FitError(
                f"metric {self.name!r}: the inverse of the metric of {r[at]:g} points is "
                f"{back[at]:g}. Give (function, inverse) that undo each other"
            )

    def transform_runs(self, runs: pd.DataFrame) -> pd.DataFrame:
        """A run log whose mean_return and return_se are in the metric, for any fit of returns.

        Standard errors follow by the slope at the mean. A metric of the mean is not the mean of the
        metric of the episodes; it is the former here.

        Raises
        ------
        FitError
            A return lies outside the metric's domain.
        """
        if "mean_return" not in runs:
            raise FitError("the run log has no column 'mean_return' to transform")
        returns = runs["mean_return"].to_numpy(dtype=float)
        known = np.isfinite(returns)
        if np.isinf(returns).any():
            at = int(np.argmax(np.isinf(returns)))
            raise FitError(f"mean_return is {returns[at]:g} in row {runs.index[at]}: mend the row")
        if not known.any():
            raise FitError("no row has a mean_return: there is nothing to transform")
        self.check(returns[known])
        out = runs.assign(mean_return=np.where(known, self.of(returns), np.nan))
        if "return_se" in runs:
            out["return_se"] = runs["return_se"].to_numpy(dtype=float) * self.slope(returns)
        return out

    def to_dict(self) -> dict[str, Any]:
        """Name and ends as JSON types.

        Raises
        ------
        FitError
            The metric is a pair of functions: those cannot be written down.
        """
        if self.name not in NAMES:
            raise FitError(
                "a metric given as functions cannot be stored: use a named one "
                f"({', '.join(NAMES)}), or refit after loading the runs"
            )
        return {"name": self.name, "floor": self.floor, "ceiling": self.ceiling}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Metric":
        """The metric that `to_dict` wrote."""
        return natural_metric(data["name"], floor=data["floor"], ceiling=data["ceiling"])


def natural_metric(
    metric: str | Pair | Metric | None = None,
    *,
    floor: float | None = None,
    ceiling: float | None = None,
) -> Metric:
    """A metric by its name, or from a pair of functions (metric of points, points of metric).

    Parameters
    ----------
    metric : str, pair of callables, Metric or None
        "points" or None: the return itself. "above": R - r, for a power law above the return of
        random play. "normalised": (R - r) / (t - r). "odds": (R - r) / (t - R), of a success rate p
        (r = 0, t = 1 unless given) p / (1 - p). "elo": 10^(R/400), the Bradley-Terry strength of a
        player rated R, whose odds against another are the ratio of their strengths (Elo 1978).
    floor, ceiling : float, optional
        r and t [points].

    Raises
    ------
    FitError
        The name is not known, an end is missing, or the ends are the wrong way round.

    Examples
    --------
    >>> odds = natural_metric("odds")
    >>> odds.of([0.5, 0.9]).round(9).tolist(), round(float(odds.points(9.0)), 9)
    ([1.0, 9.0], 0.9)
    >>> natural_metric((np.log1p, np.expm1)).points(0.0).item()
    0.0
    """
    if isinstance(metric, Metric):
        return metric
    if metric is not None and not isinstance(metric, str):
        if not (isinstance(metric, tuple) and len(metric) == 2 and all(map(callable, metric))):
            raise FitError(
                "metric must be a name or a pair of functions, (metric of points, points of metric)"
            )
        forward, inverse = metric
        return Metric(name="own", equation="f(R)", forward=forward, inverse=inverse)
    name = "points" if metric is None else metric
    if name not in NAMES:
        raise FitError(f"metric is {name!r}: choose {', '.join(map(repr, NAMES))}, or functions")
    if name == "odds":
        floor, ceiling = 0.0 if floor is None else floor, 1.0 if ceiling is None else ceiling
    if floor is None and name in ("above", "normalised"):
        raise FitError(f"metric={name!r} needs floor=, the return of random play [points]")
    if ceiling is None and name == "normalised":
        raise FitError(
            "metric='normalised' needs ceiling=, the expert's or the game's own [points]"
        )
    check_end_values(floor, ceiling)
    r, t = 0.0 if floor is None else float(floor), 1.0 if ceiling is None else float(ceiling)
    above = f"R - {r:g}" if r >= 0 else f"R + {-r:g}"
    equation, forward, inverse = {
        "points": ("R", _same, _same),
        "above": (above, lambda y: y - r, lambda m: m + r),
        "normalised": (
            f"({above})/{t - r:g}",
            lambda y: (y - r) / (t - r),
            lambda m: r + (t - r) * m,
        ),
        "odds": (
            f"({above})/({t:g} - R)",
            lambda y: np.where((y > r) & (y < t), (y - r) / (t - y), np.nan),
            lambda m: r + (t - r) * np.where(np.isinf(m), 1.0, m / (1 + m)),
        ),
        "elo": ("10^(R/400)", lambda y: np.exp(y / _ELO), lambda m: _ELO * np.log(m)),
    }[name]
    bounded = name == "odds"
    return Metric(
        name=name,
        equation=equation,
        forward=forward,
        inverse=inverse,
        floor=floor if bounded or name in ("above", "normalised") else None,
        ceiling=ceiling if bounded or name == "normalised" else None,
    )


def check_end_values(floor: float | None, ceiling: float | None) -> None:
    """Refuse ends [points] that are no numbers or the wrong way round."""
    for name, end in (("floor", floor), ("ceiling", ceiling)):
        if end is not None and not np.isfinite(end):
            raise FitError(f"{name}={end!r}: give a finite return [points], or leave it out")
    if floor is not None and ceiling is not None and not floor < ceiling:
        raise FitError(f"ceiling={ceiling:g} is not above floor={floor:g}")


def _same(values: Array) -> Array:
    return values
