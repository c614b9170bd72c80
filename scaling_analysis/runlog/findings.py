"""What a finding of the audit says, and the rows that the checks look at."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray


class Severity(StrEnum):
    """How much a finding matters, the most important first."""

    SERIOUS = "serious"
    """A fit of the log misleads."""
    WARNING = "warning"
    """A fit stands, but tilted or with an interval that is too narrow."""
    NOTE = "note"
    """Worth knowing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that the audit found."""

    code: str
    """Short name of the finding, such as "cost-drift"; stable between versions."""
    severity: Severity
    what: str
    """What it is, in figures."""
    where: str = ""
    """Rows, runs, sizes or budgets concerned."""
    bias: str = ""
    """Which way it moves a fit."""
    remedy: str = ""
    """What to do about it."""
    figures: dict[str, float] = field(default_factory=dict)
    """The figures in `what`, by name, for machines."""

    def to_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__} | {
            "severity": str(self.severity)
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "severity": Severity(data["severity"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The rows of one agent on one task, ready for the checks."""

    label: str
    """Start of every text of a finding: empty unless the log holds several groups."""
    log: pd.DataFrame
    """All rows of the group."""
    rows: pd.DataFrame
    """The rows with status ok; the arrays below follow their order."""
    run: NDArray[np.intp]
    """Number of the run of each row."""
    params: NDArray[np.float64]
    samples: NDArray[np.float64]
    flops: NDArray[np.float64]
    episodes: pd.DataFrame | None
    """Returns of single episodes, of this and other groups."""
    expert_return: float | None

    @classmethod
    def of(
        cls,
        log: pd.DataFrame,
        episodes: pd.DataFrame | None,
        expert_return: float | None,
        label: str = "",
    ) -> Self:
        rows = log[(log["status"] == "ok").to_numpy()]
        return cls(
            label=label,
            log=log,
            rows=rows,
            run=pd.factorize(rows["run_id"])[0],
            params=rows["params"].to_numpy(float),
            samples=rows["samples"].to_numpy(float),
            flops=rows["flops"].to_numpy(float),
            episodes=episodes,
            expert_return=expert_return,
        )

    def column(self, name: str) -> NDArray[np.float64]:
        """A numeric column of the rows; NaN where the log has none."""
        if name in self.rows:
            return self.rows[name].to_numpy(float)
        return np.full(len(self.rows), np.nan)

    def finding(self, code: str, severity: Severity, what: str, **more: Any) -> Finding:
        return Finding(code=code, severity=severity, what=f"{self.label}{what}", **more)


def short(value: float) -> str:
    """A count or a compute in three digits: 1.57e+06 as 1.57e6."""
    return f"{value:.3g}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")


def bound(value: float, *, up: bool) -> str:
    """A threshold in three digits that lies on the stated side of the value."""
    unit = 10.0 ** (np.floor(np.log10(value)) - 2)
    return short((np.ceil if up else np.floor)(value / unit * (1 - 1e-12 * (2 * up - 1))) * unit)


def shorts(values: Iterable[float], most: int = 8) -> str:
    """Numbers in words, the first `most` of them."""
    shown = [short(value) for value in values]
    if len(shown) <= most:
        return ", ".join(shown)
    return ", ".join(shown[:most]) + f" and {len(shown) - most} more"


def slope(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Slope of the least-squares line of y on x; NaN where x does not vary."""
    centred = x - x.mean()
    spread = float(centred @ centred)
    return float(centred @ (y - y.mean())) / spread if spread > 0 else float("nan")
