"""The record of a hindcast: scores by distance, weights of methods, widening of intervals."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitStatus, ForecastError
from scaling_analysis.forecasting.bounds import Bounds
from scaling_analysis.forecasting.combination import (
    Widening,
    fit_widening,
    interval_score,
    log_horizon,
    method_weights,
)
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.through_link import LINK
from scaling_analysis.results import Result
from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]

COMBINED = "combined"
"""Name of the average of the methods."""

QUANTITIES = ("params_opt", "loss_opt", "loss", "mean_return_opt", "mean_return")
"""N_opt; loss and mean return at the optimum; loss and mean return of runs of stated sizes."""

PRIOR_SCALE = {
    "params_opt": 0.08,
    "loss_opt": 0.15,
    "loss": 0.15,
    "mean_return_opt": 0.30,
    "mean_return": 0.30,
}
"""Law error expected at C = e C_max before any hindcast, as a share of the trend of the log value
(of log C itself for N_opt): the size of the errors of isoFLOP and surface fits one to two budgets
ahead on public sweeps, twice that for returns."""

THROUGH_LINK = 0.15
"""The same for a return through the loss, whose spread holds the law error of the loss already:
the error of the link alone. Counted twice, every interval of the return held (coverage 1.00)."""

_WEIGHED_BY = {"loss": "loss_opt", "mean_return": "mean_return_opt"}
"""One set of weights for the optimum and the runs around it, from the less noisy of the two."""

_PLACE = ["origin", "budget", "params"]
"""What tells the cells of a quantity apart."""

DISTANCES = (1.0, 3.0, 10.0, 30.0, np.inf)
"""Borders of the extrapolation factors that scores are grouped by."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Hindcast(Result):
    """Forecasts of budgets that were held out, beside what was observed there."""

    _error = ForecastError
    _written_by = "`scaling hindcast -o`"

    cells: pd.DataFrame
    """One row a quantity, method, origin and held-out budget (and size, for runs of stated sizes):
    quantity, method, origin [FLOP], budget [FLOP], params, flops, trend (change of the log value a
    factor e of compute had brought by then), observed, observed_se, predicted, base, sd, dof.
    `observed` and what follows are logs, or z of returns with `bounds`. `base` is the spread of
    bootstrap and methods, `sd` the widened one, with the error of the observation, as it would have
    been stated at the origin; its quantiles are t with `dof` degrees of freedom."""
    members: tuple[str, ...]
    """Methods that are averaged, for all targets."""
    levels: tuple[float, ...]
    """Levels at which coverage is reported."""
    failures: pd.DataFrame
    """Methods that could not be fitted at an origin: target, origin, method, reason."""
    status: FitStatus
    messages: tuple[str, ...]
    bounds: Bounds | None = None
    """Floor and ceiling of the return, where the link was given them."""
    loss_counted: bool = False
    """Whether the prior of a return through the link is `THROUGH_LINK`; older hindcasts have that
    of a return by itself."""
    _records: dict[tuple[str, ...], "Record"] = field(default_factory=dict, repr=False)
    """Arrays of the cells that were asked for before."""

    def methods(self, quantity: str) -> list[str]:
        """Methods with at least one forecast of a quantity, the combination first."""
        of = self.cells[self.cells["quantity"] == quantity]
        seen = of.loc[of["predicted"].notna(), "method"].unique().tolist()
        return sorted(seen, key=lambda name: (name != COMBINED, seen.index(name)))

    def weights(
        self, quantity: str, methods: Sequence[str], extrapolation: float, spreads: Array
    ) -> Array:
        """Weight of each of `methods` in forecasts at `extrapolation` = C / C_max.

        `spreads` are their bootstrap standard deviations there (see `method_weights`).
        """
        key = ("weights", quantity, *methods)
        if key not in self._records:
            self._records[key] = self._record(weighed_by(quantity, self.cells), methods)
        record = self._records[key]
        return record.weights(float(np.log(max(extrapolation, 1.0))), spreads)

    def widening(self, quantity: str, method: str = COMBINED) -> Widening:
        """Law error of a method for a quantity, from all origins.

        Where no optimum was observed, a value there errs as the values of stated sizes do.
        """
        prior = prior_scale(quantity, method, self.loss_counted)
        of = quantity if self.judges(quantity) else quantity.removesuffix("_opt")
        return self._record(of, [method]).widening(0, prior)

    def judges(self, quantity: str) -> bool:
        """Whether a quantity was observed beyond any origin."""
        return bool((self.cells["quantity"] == quantity).any())

    def _record(self, quantity: str, methods: Sequence[str]) -> "Record":
        key = (quantity, *methods)
        if key not in self._records:
            self._records[key] = Record.of(self.cells, quantity, methods)
        return self._records[key]

    def to_frame(self, level: float = 0.9) -> pd.DataFrame:
        """The cells in natural units with the interval of `level` and whether it held.

        Adds extrapolation, error (log observed minus log predicted), lo, hi, inside and score (the
        interval score in logs, lower is better).
        """
        frame = self.cells.copy()
        half = student_quantile(level, frame["dof"].to_numpy()) * frame["sd"].to_numpy()
        y, centre = frame["observed"].to_numpy(), frame["predicted"].to_numpy()
        frame["inside"] = np.abs(y - centre) <= half
        y, centre, lo, hi = (self._logs(z) for z in (y, centre, centre - half, centre + half))
        frame["extrapolation"] = frame["budget"] / frame["origin"]
        frame["error"] = y - centre
        frame["score"] = interval_score(y, lo, hi, level)
        frame["lo"], frame["hi"] = np.exp(lo), np.exp(hi)
        frame["observed"], frame["predicted"] = np.exp(y), np.exp(centre)
        return frame[frame["predicted"].notna()].reset_index(drop=True)

    def _logs(self, values: Array) -> Array:
        """Logs of a column of the cells."""
        if self.bounds is None:
            return values
        bounded = self.cells["quantity"].str.startswith("mean_return").to_numpy()
        return np.where(bounded, self.bounds.leave(values), values)

    def scores(self, level: float = 0.9) -> pd.DataFrame:
        """Errors, coverage and interval score by quantity, method and extrapolation distance.

        Returns
        -------
        DataFrame
            quantity, method, distance ("1-3x", ..., "all"), cells, origins, error (root mean square
            of the log error), bias (mean log error), coverage_50 ... for every level, width (median
            full width of the interval of `level`, in logs), interval_score (mean, of `level`).
        """
        frame = self.to_frame(level)
        frame["width"] = np.log(frame["hi"] / frame["lo"])
        for each in self.levels:
            frame[f"coverage_{each * 100:g}"] = self.to_frame(each)["inside"]
        frame["distance"] = pd.cut(
            frame["extrapolation"], DISTANCES, labels=_distance_names(), right=True
        ).astype(str)
        out = []
        everything = frame.assign(distance="all")
        for (quantity, method, distance), at in pd.concat([frame, everything]).groupby(
            ["quantity", "method", "distance"], sort=False
        ):
            row: dict[str, Any] = {"quantity": quantity, "method": method, "distance": distance}
            row |= {"cells": len(at), "origins": at["origin"].nunique()}
            row |= {"error": np.sqrt((at["error"] ** 2).mean()), "bias": at["error"].mean()}
            names = [f"coverage_{each * 100:g}" for each in self.levels]
            row |= {name: at[name].mean() for name in names}
            row |= {"width": at["width"].median(), "interval_score": at["score"].mean()}
            out.append(row)
        table = pd.DataFrame(out)
        order = {name: i for i, name in enumerate([*_distance_names(), "all"])}
        return table.sort_values(
            ["quantity", "method", "distance"],
            key=lambda c: c.map(order) if c.name == "distance" else c,
            ignore_index=True,
        )

    def better_baselines(
        self, targets: Iterable[str], level: float = 0.9, farthest: float = np.inf
    ) -> pd.DataFrame:
        """Baselines with a lower interval score than the average, at the optimum where it is known.

        Both are scored on the same cells, those that both could forecast, up to `farthest` times
        their origin (see `no_farther`).

        Returns
        -------
        DataFrame
            target, baseline, score and score_average (mean interval score of `level`), error and
            error_average (root mean square of the log error), forecasts.
        """
        frame = no_farther(self.to_frame(level), farthest)
        rows = []
        for target in targets:
            at = frame[frame["quantity"] == scored_of(frame, target)]
            average = at[at["method"] == COMBINED]
            for name in BASELINES:
                own = at[at["method"] == name]
                both = own.merge(average, on=_PLACE, suffixes=("", "_average"))
                row: dict[str, Any] = {"target": target, "baseline": name, "forecasts": len(both)}
                for of in ("", "_average"):
                    row["score" + of] = both["score" + of].mean()
                    row["error" + of] = np.sqrt((both["error" + of] ** 2).mean())
                rows.append(row)
        table = pd.DataFrame(rows)
        return table[table["score"] < table["score_average"]].reset_index(drop=True)

    def summary(self) -> str:
        """Status and messages first, then the scores over all distances."""
        lines = [f"hindcast: {self.status}", *(f"  {m}" for m in self.messages)]
        scores = self.scores()
        scores = scores[scores["distance"] == "all"]
        covered = [f"coverage_{each * 100:g}" for each in self.levels]
        for quantity in (q for q in QUANTITIES if q in set(scores["quantity"])):
            table = scores[scores["quantity"] == quantity].sort_values("interval_score")
            cells, origins = int(table["cells"].max()), int(table["origins"].max())
            lines.append(f"{quantity}, {cells} forecasts from {origins} origins (errors in logs):")
            shown = table[["method", "error", "bias", *covered, "width", "interval_score"]]
            text = shown.to_string(index=False, float_format=lambda v: f"{v:.3f}")
            lines += [f"  {line}" for line in text.splitlines()]
        return "\n".join(lines)

    def _shown(self) -> pd.DataFrame:
        scores = self.scores()
        return scores[scores["distance"] == "all"].drop(columns="distance")

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": type(self).__name__,
            "cells": encode_frame(self.cells),
            "members": list(self.members),
            "levels": list(self.levels),
            "failures": encode_frame(self.failures),
            "status": str(self.status),
            "messages": list(self.messages),
            **({} if self.bounds is None else {"bounds": self.bounds.to_dict()}),
            **({"loss_counted": True} if self.loss_counted else {}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        bounds = data.get("bounds")
        return cls(
            bounds=None if bounds is None else Bounds.from_dict(bounds),
            loss_counted=data.get("loss_counted", False),
            cells=decode_frame(data["cells"]),
            members=tuple(data["members"]),
            levels=tuple(data["levels"]),
            failures=decode_frame(data["failures"]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Hindcast of one quantity as arrays: one row a method, one column a cell."""

    cells: pd.DataFrame
    """origin, budget, params, flops, trend, observed, observed_se of the cells, sorted."""
    predicted: Array
    """(methods, cells) logs; NaN where a method made no forecast."""
    base: Array
    """(methods, cells) spread of bootstrap and methods."""

    @classmethod
    def of(cls, cells: pd.DataFrame, quantity: str, methods: Sequence[str]) -> "Record":
        """The record of `methods` from rows such as those of `Hindcast.cells`."""
        rows = cells[cells["quantity"] == quantity]
        key = ["origin", "budget", "params", "flops", "trend", "observed", "observed_se"]
        groups = rows.groupby(key, dropna=False, sort=True).ngroup().to_numpy()
        first = np.unique(groups, return_index=True)[1]
        shape = len(methods), first.size
        predicted, base = np.full(shape, np.nan), np.full(shape, np.nan)
        for m, name in enumerate(methods):
            own = (rows["method"] == name).to_numpy()
            predicted[m, groups[own]] = rows.loc[own, "predicted"]
            base[m, groups[own]] = rows.loc[own, "base"]
        return cls(cells=rows[key].iloc[first], predicted=predicted, base=base)

    def until(self, flops: float) -> "Record":
        """What was on record when the largest budget run was `flops`."""
        known = (self.cells["budget"] <= flops).to_numpy()
        return Record(
            cells=self.cells[known], predicted=self.predicted[:, known], base=self.base[:, known]
        )

    def weights(self, target_horizon: float, spreads: Array, prior_sd: float = 0.0) -> Array:
        """Weight of each method at a log horizon, the shape of `spreads` (methods, targets)."""
        return method_weights(self._errors(), *self._when(), target_horizon, spreads, prior_sd)

    def widening(self, method: int, prior_scale: float) -> Widening:
        """Law error of one method."""
        error_of_observation = self.cells["observed_se"].fillna(0.0).to_numpy(np.float64)
        spread = np.hypot(self.base[method], error_of_observation)
        trend = self.cells["trend"].to_numpy(np.float64)
        return fit_widening(self._errors()[method], spread, *self._when(), trend, prior_scale)

    def _errors(self) -> Array:
        return self.cells["observed"].to_numpy(np.float64) - self.predicted

    def _when(self) -> tuple[Array, Array]:
        """Log horizon and origin of the cells."""
        origin = self.cells["origin"].to_numpy(np.float64)
        return log_horizon(self.cells["budget"], origin), origin


def scored_of(frame: pd.DataFrame, target: str) -> str:
    """The quantity that scores a target: its optimum, where that is known; "" for nothing."""
    known = set(frame["quantity"])
    return next((q for q in (f"{target}_opt", target) if q in known), "")


def no_farther(frame: pd.DataFrame, farthest: float) -> pd.DataFrame:
    """Cells up to `farthest` times their origin, or the nearest ones where all are farther.

    Whoever forecasts three times ahead is not concerned with who was right at fifty times.
    """
    reach = frame["extrapolation"]
    return frame[reach <= max(farthest, reach.min()) * (1 + 1e-9)] if len(frame) else frame


def weighed_by(quantity: str, cells: pd.DataFrame) -> str:
    """The quantity whose errors decide the weights for `quantity`."""
    known = set(cells["quantity"])
    other = _WEIGHED_BY.get(quantity, quantity)
    return next((q for q in (other, quantity.removesuffix("_opt")) if q in known), quantity)


def prior_scale(quantity: str, method: str, loss_counted: bool) -> float:
    """The prior of a method's law error; `loss_counted`: whether returns come through a link."""
    if loss_counted and quantity.startswith("mean_return") and method in (COMBINED, LINK):
        return THROUGH_LINK
    return PRIOR_SCALE[quantity]


def _distance_names() -> list[str]:
    ends = [f"{a:g}-{b:g}x" for a, b in pairwise(DISTANCES[:-1])]
    return [*ends, f"over {DISTANCES[-2]:g}x"]
