"""Statistics of scores over many tasks, each with its interval: the result."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import pandas as pd

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.results import Result

_LABEL = {
    "iqm": "interquartile mean",
    "median": "median over tasks",
    "mean": "mean",
    "optimality_gap": "optimality gap",
    "improvement": "probability of improvement",
}
_HOW = {
    "percentile": "stratified bootstrap of {n} replicates, percentiles",
    "t": "stratified bootstrap of {n} replicates, Student's t({freedom:.1f})",
    "wilson": "Wilson's interval of the pooled success rate",
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ScoreAggregate(Result):
    """Statistics over several tasks, each with its interval."""

    _error = FitError

    table: pd.DataFrame
    """statistic, value, lo, hi; se, the standard deviation of the replicates, corrected."""
    tasks: pd.DataFrame
    """task, runs, mean, sd (of its runs, unbiased)."""
    level: float
    """Nominal coverage."""
    interval: str
    """"percentile", "t" or "wilson"."""
    scale: float
    """What the deviations of the replicates were multiplied by; 1 without the correction."""
    freedom: float
    """Degrees of freedom of the spread of the runs, by Satterthwaite."""
    gamma: float
    """Score beyond which an improvement does not count for the optimality gap."""
    n_resamples: int
    status: FitStatus
    messages: tuple[str, ...]

    def summary(self) -> str:
        """Status and messages first, then every statistic with its interval."""
        k = self.tasks["runs"]
        runs = f"{k.min()}" if k.min() == k.max() else f"{k.min()} to {k.max()}"
        how = _HOW[self.interval].format(n=self.n_resamples, freedom=self.freedom)
        width = max(len(_LABEL[name]) for name in self.table["statistic"])
        rows = self.table.to_dict("records")
        return "\n".join(
            [
                f"aggregate of {len(self.tasks)} tasks with {runs} runs each: {self.status}",
                *(f"  - {message}" for message in self.messages),
                f"{self.level:.0%} intervals: {how}, deviations times {self.scale:.3f}",
                *(
                    f"{_LABEL[row['statistic']]:<{width}}  {row['value']:.4f} "
                    f"[{row['lo']:.4f}, {row['hi']:.4f}]"
                    for row in rows
                ),
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """The statistics with their intervals: `table`."""
        return self.table.copy()

    def value(self, statistic: str) -> tuple[float, float, float]:
        """Estimate, lo and hi of one statistic."""
        row = self.table[self.table["statistic"] == statistic]
        if row.empty:
            known = ", ".join(self.table["statistic"])
            raise FitError(f"statistic {statistic!r} was not aggregated; there are {known}")
        value, lo, hi = (float(row.iloc[0][name]) for name in ("value", "lo", "hi"))
        return value, lo, hi

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types."""
        return {
            "kind": type(self).__name__,
            "table": encode_frame(self.table),
            "tasks": encode_frame(self.tasks),
            "level": self.level,
            "interval": self.interval,
            "scale": self.scale,
            "freedom": self.freedom,
            "gamma": self.gamma,
            "n_resamples": self.n_resamples,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The result that `to_dict` wrote."""
        plain = {k: v for k, v in data.items() if k != "kind"}
        return cls(
            **plain
            | {
                "table": decode_frame(data["table"]),
                "tasks": decode_frame(data["tasks"]).astype({"runs": int}),
                "status": FitStatus(data["status"]),
                "messages": tuple(data["messages"]),
            }
        )
