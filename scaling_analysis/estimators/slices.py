"""Rows of a run log as isoFLOP slices, and the optimum of every slice in every replicate."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError
from scaling_analysis.estimators.selection import Target
from scaling_analysis.laws.cost import Cost
from scaling_analysis.laws.profiles import Optimum, slice_optima

Array = NDArray[np.float64]
Space = Literal["linear", "log"]
Weighting = Literal["equal", "se"]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slices:
    """The optimum of every budget: arrays (B,), or (R, B) for replicates."""

    state: NDArray[np.int8]
    """`SliceState`: 0 where the slice has an optimum, else why it has none."""
    params: Array
    """N at the optimum; NaN where there is none."""
    samples: Array
    """D there: as logged for the grid optimum, else from the FLOP a sample."""
    value: Array
    """Loss or return there."""
    curvature: Array
    """k in y = y_opt + k (log N - log N_opt)^2, in the fitted space."""
    fitted: Array
    """(rows,) or (R, rows): the polynomial of its slice at every row, in the target's unit; the
    response itself where no polynomial reaches. Not stored for replicates: (R, 0) after loading."""

    def replicate(self, i: int) -> "Slices":
        """The slices of one replicate, without the leading axis."""
        return Slices(**{f.name: getattr(self, f.name)[i] for f in fields(self)})

    def to_dict(self) -> dict[str, Any]:
        """Arrays in base64; those of replicates in single precision, which quantiles do not see."""
        single = None if self.params.ndim == 1 else np.float32
        arrays = {f.name: getattr(self, f.name) for f in fields(self)}
        if single is not None:
            arrays["fitted"] = self.fitted[:, :0]
        return {
            name: encode_array(array, None if name == "state" else single)
            for name, array in arrays.items()
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Slices":
        return cls(**{f.name: decode_array(data[f.name]) for f in fields(cls)})


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Profiles:
    """IsoFLOP slices of a run log and the way their optima are read."""

    target: Target
    """"loss" [nats/action] or "mean_return" [points]."""
    optimum: Optimum
    """"vertex" of a parabola, interior optimum of a "cubic", or best size on the "grid"."""
    space: Space
    """Whether the polynomial is fitted to y ("linear") or to log y ("log")."""
    window: int | None
    """Sizes used around the best one; None for the whole profile."""
    weighting: Weighting
    """"equal" rows, or by the inverse square of their standard error ("se")."""
    rows: pd.DataFrame
    """Rows of the run log, in the order of weights and responses."""
    budgets: Array
    """(B,) nominal budgets C [FLOP], increasing."""
    cost: Cost
    """FLOP a sample, which turns N into D."""

    def __post_init__(self) -> None:
        for name, known in (
            ("optimum", ("vertex", "cubic", "grid")),
            ("space", ("linear", "log")),
            ("weighting", ("equal", "se")),
        ):
            given = getattr(self, name)
            if given not in known:
                raise FitError(f"{name} is {given!r}: choose {' or '.join(map(repr, known))}")
        least = 4 if self.optimum == "cubic" else 3
        if self.window is not None and self.window < least:
            raise FitError(f"window={self.window}: optimum={self.optimum!r} needs {least} or more")
        y = self.response
        if self.space == "log" and (y <= 0).any():
            at = int(np.flatnonzero(y <= 0)[0])
            raise FitError(
                f"{self.target} is {y[at]:g} in {self._where(at)}: logs need positive values; "
                "use space='linear'"
            )

    @property
    def maximise(self) -> bool:
        """Whether optima are maxima (returns)."""
        return self.target == "mean_return"

    @property
    def response(self) -> Array:
        """(rows,) the observed loss or return."""
        return self.rows[self.target].to_numpy(dtype=float)

    def optima(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Slices:
        """Optima of all slices for R sets of weights or of responses, each (R, rows).

        Neither gives one replicate, R = 1. The loop runs over budgets, not over replicates.
        """
        w, y = self._replicates(weights, response)
        if self.weighting == "se":
            w = w * self._precision()
        pooling = np.ones(len(self.rows))
        if self.maximise and "episodes" in self.rows and (self.rows["episodes"] > 0).all():
            pooling = self.rows["episodes"].to_numpy(dtype=float)
        log_n = np.log(self.rows["params"].to_numpy(dtype=float))
        samples = self.rows["samples"].to_numpy(dtype=float)
        slice_of_row = np.searchsorted(self.budgets, self.rows["budget"].to_numpy(dtype=float))

        shape = (max(len(w), len(y)), len(self.budgets))
        state = np.empty(shape, dtype=np.int8)
        params, logged, value, curvature = (np.empty(shape) for _ in range(4))
        fitted = np.empty((shape[0], len(self.rows)))
        for b in range(len(self.budgets)):
            at = np.flatnonzero(slice_of_row == b)
            log_sizes, cell = np.unique(log_n[at], return_inverse=True)
            best = slice_optima(
                log_sizes,
                cell,
                y[:, at],
                w[:, at],
                pooling[at],
                optimum=self.optimum,
                maximise=self.maximise,
                log_space=self.space == "log",
                window=self.window,
            )
            state[:, b], value[:, b] = best.state, best.value
            params[:, b], curvature[:, b] = np.exp(best.log_params), best.curvature
            fitted[:, at] = np.exp(best.fitted) if self.space == "log" else best.fitted
            cell_samples = np.bincount(cell, weights=samples[at]) / np.bincount(cell)
            logged[:, b] = np.where(best.state == 0, cell_samples[best.cell], np.nan)
        on_grid = self.optimum == "grid"
        return Slices(
            state=state,
            params=params,
            samples=logged if on_grid else self.cost.samples(params, self.budgets),
            value=value,
            curvature=curvature,
            fitted=fitted,
        )

    def to_dict(self) -> dict[str, Any]:
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {
            "rows": encode_frame(self.rows),
            "budgets": encode_array(self.budgets),
            "cost": self.cost.to_dict(),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        plain = {f.name: data[f.name] for f in fields(cls)}
        return cls(
            **plain
            | {
                "rows": decode_frame(data["rows"]),
                "budgets": decode_array(data["budgets"]),
                "cost": Cost.from_dict(data["cost"]),
            }
        )

    def _replicates(
        self, weights: ArrayLike | None, response: ArrayLike | None
    ) -> tuple[Array, Array]:
        """Weights and responses with a replicate axis each, checked against the rows."""
        n = len(self.rows)
        w = np.ones((1, n)) if weights is None else np.asarray(weights, dtype=float)
        y = self.response[None] if response is None else np.asarray(response, dtype=float)
        for name, values in (("weights", w), ("response", y)):
            if values.ndim != 2 or values.shape[1] != n:
                raise ValueError(f"{name} has shape {values.shape}, not (R, {n})")
        if min(len(w), len(y)) > 1 and len(w) != len(y):
            raise ValueError(f"{len(w)} sets of weights and {len(y)} of responses")
        return w, y

    def _precision(self) -> Array:
        """(rows,) inverse squares of the standard errors in the fitted space, of mean 1."""
        column = "return_se" if self.maximise else "loss_se"
        if column not in self.rows:
            raise FitError(f"weighting='se' needs the column {column!r}; use weighting='equal'")
        error = self.rows[column].to_numpy(dtype=float)
        bad = ~(np.isfinite(error) & (error > 0))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            raise FitError(
                f"{column} is {error[at]:g} in {self._where(at)}: weighting='se' needs a positive "
                "one in every row; use weighting='equal'"
            )
        if self.space == "log":
            error = error / self.response
        return (1 / error**2) / np.mean(1 / error**2)

    def _where(self, row: int) -> str:
        return f"run {self.rows['run_id'][row]!r} at budget {self.rows['budget'][row]:g}"
