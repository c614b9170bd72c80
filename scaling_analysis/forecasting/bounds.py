"""Known ends of a return: the space in which its forecasts are averaged, widened and bounded.

Between the floor r (random play) and the ceiling t (the expert) a forecast is the log odds z =
log((R - r) / (t - R)); without a ceiling it is log(R - r). An interval of z that is symmetric
comes back as one of R that ends strictly between, and that narrows where the return saturates.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.estimators.link import ReturnLink
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.observation import trend_until

Array = NDArray[np.float64]

_NEAR = 0.75
"""A forecast that knows no ends is taken at its word up to this share of the ceiling."""
_FARTHEST = 20.0
"""Log odds, either way, at which a return is no longer told from its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Floor and ceiling of the expected return, as given to the link."""

    floor: float
    """r [points]."""
    ceiling: float | None
    """t [points]."""

    @classmethod
    def of(cls, link: ReturnLink) -> Self | None:
        """Those of a link; None where it knows no end but that returns are positive."""
        if link.ceiling is None and link.floor <= 0:
            return None
        return cls(floor=link.floor, ceiling=link.ceiling)

    def enter(self, log_return: ArrayLike) -> Array:
        """z of a log return; NaN at an end or beyond."""
        points = np.exp(np.asarray(log_return, dtype=np.float64))
        with np.errstate(divide="ignore", invalid="ignore"):
            z = np.log(points - self.floor)
            if self.ceiling is not None:
                z = z - np.log(self.ceiling - points)
        return np.where((z > -_FARTHEST) & (z < self._top), z, np.nan)

    @property
    def _top(self) -> float:
        return np.inf if self.ceiling is None else _FARTHEST

    def leave(self, z: ArrayLike) -> Array:
        """The log return of z, strictly between the ends."""
        near = np.clip(np.asarray(z, dtype=np.float64), -_FARTHEST, self._top)
        if self.ceiling is None:
            return np.log(self.floor + np.exp(near))
        return np.log(self.floor + (self.ceiling - self.floor) / (1 + np.exp(-near)))

    def enter_or_end(self, log_return: ArrayLike) -> Array:
        """z of a log return; minus or plus infinity at an end and beyond."""
        at = np.asarray(log_return, dtype=np.float64)
        z, middle = self.enter(at), (self.floor + (self.ceiling or np.inf)) / 2
        return np.where(np.isfinite(z), z, np.where(np.exp(at) < middle, -np.inf, np.inf))

    def slope(self, log_return: ArrayLike) -> Array:
        """dz / d log R, by which small errors of a log return become those of z."""
        points = np.exp(np.asarray(log_return, dtype=np.float64))
        with np.errstate(divide="ignore"):
            slope = points / (points - self.floor)
            return slope if self.ceiling is None else slope + points / (self.ceiling - points)

    def bend(self, log_return: ArrayLike, sd: ArrayLike) -> tuple[Array, Array]:
        """z and its spread for a forecast that knows no ends and may lie beyond them.

        From three quarters of the ceiling on, z is continued by its tangent in log R, and likewise
        near the floor: one beyond the ceiling comes to lie below it, the closer the farther it was.
        """
        at, width = np.asarray(log_return, np.float64), np.asarray(sd, np.float64)
        low, high = self._bent(at - width), self._bent(at + width)
        return self._bent(at), (high - low) / 2

    def _bent(self, log_return: Array) -> Array:
        bottom = -np.inf if self.floor <= 0 else np.log(self.floor / _NEAR)
        top = np.inf if self.ceiling is None else np.log(self.ceiling * _NEAR)
        if self.ceiling is not None and bottom > top:
            bottom = top = np.log(self.floor * self.ceiling) / 2
        exact = np.clip(log_return, bottom, top)
        return self.enter(exact) + self.slope(exact) * (log_return - exact)

    def enter_observed(self, cells: pd.DataFrame) -> pd.DataFrame:
        """Cells with `observed` and `observed_se` as z; NaN for returns at an end or beyond."""
        log_return = cells["observed"].to_numpy(np.float64)
        z = self.enter(log_return)
        se = cells["observed_se"].to_numpy(np.float64)
        se = np.where(np.isfinite(z), se * self.slope(log_return), np.nan)
        return cells.assign(observed=z, observed_se=se)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        return cls(**data)


def bounded_trend(
    observed: pd.DataFrame, target: Target, bounds: Bounds | None, flops: float = np.inf
) -> float:
    """Change of a log value, or of z, that a factor e of compute has brought; see `trend_until`."""
    if bounds is not None and target == "mean_return":
        observed = bounds.enter_observed(observed)
        observed = observed[observed["observed"].notna()]
    return trend_until(observed, "value", flops)


def enter_table(
    table: pd.DataFrame, observed: pd.DataFrame, bounds: Bounds | None, entered: str
) -> pd.DataFrame:
    """A table of forecasts of the log return with everything as z.

    Parameters
    ----------
    table : DataFrame
        Rows of `Hindcast.cells` as far as base, in logs.
    observed : DataFrame
        What was observed, as `observe` returns it; the trends are measured there.
    entered : str
        The method whose forecasts are z already.
    """
    if bounds is None:
        return table
    table = bounds.enter_observed(table)
    origins = table["origin"].unique()
    trend = {cut: bounded_trend(observed, "mean_return", bounds, cut) for cut in origins}
    table["trend"] = table["origin"].map(trend)
    own = (table["method"] != entered).to_numpy()
    z, base = bounds.bend(table.loc[own, "predicted"], table.loc[own, "base"])
    table.loc[own, "predicted"], table.loc[own, "base"] = z, base
    return table
