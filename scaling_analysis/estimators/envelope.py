"""The envelope of learning curves: which size is best at each compute, and power laws through it.

Approach 1 of Hoffmann et al. 2022 ("Training Compute-Optimal Large Language Models"): learning
curves are interpolated in log C, and at each of many C the size with the lowest loss is noted.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.crossings import (
    MIN_SIZES,
    common_flops,
    cross_curves,
    is_interior,
    near_optimum,
)
from scaling_analysis.estimators.frontier import (
    FrontierLaws,
    ValueLaw,
    choose_value_law,
    fit_frontier_laws,
    ols_table,
)
from scaling_analysis.estimators.selection import Target, select_rows
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.profiles import slice_optima
from scaling_analysis.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class EnvelopeFit(Result):
    """The envelope of learning curves and the frontier through it.

    Replicates have a leading axis R in `params`, `values` and `laws`.
    """

    _error = FitError

    target: Target
    """"loss" [nats/action] or "mean_return" [points]."""
    rows: pd.DataFrame
    """The fitted rows of the run log, in the order of `weights` and `response`."""
    flops: Array
    """(G,) C at which the curves are compared [FLOP]."""
    params: Array
    """(G,) or (R, G) the best size at each C; NaN where it is the smallest or largest there."""
    values: Array
    """(G,) or (R, G) the loss or return at the optimum, smoothed over the sizes around it."""
    laws: FrontierLaws
    """N_opt(C), D_opt(C), L_opt(C) or R_opt(C), and the curvature over log N."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def method(self) -> str:
        """Name of the estimator."""
        return "envelope"

    @property
    def residual_space(self) -> str:
        """ "log" for positive targets, in which curves are interpolated, else "linear"."""
        return "log" if self.laws.log_space else "linear"

    @property
    def cost(self) -> Cost:
        """FLOP a sample over N."""
        return self.laws.cost

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The envelope of R sets of weights or of responses, each (R, rows).

        A row of weight zero is absent, and with it the stretch of its curve up to the next rows.
        """
        if weights is None and response is None:
            raise ValueError("refit needs weights, responses or both, each of shape (R, rows)")
        y = self.rows[self.target].to_numpy(dtype=float)
        w = np.ones((1, len(y))) if weights is None else np.asarray(weights, dtype=float)
        y = y[None] if response is None else np.asarray(response, dtype=float)
        for name, values in (("weights", w), ("response", y)):
            if values.ndim != 2 or values.shape[1] != len(self.rows):
                raise ValueError(f"{name} has shape {values.shape}, not (R, {len(self.rows)})")
        params, values, curvature = _trace(self, y, w)
        laws = fit_frontier_laws(
            self.flops,
            np.log(params),
            values,
            curvature,
            form=self.laws.value_form,
            cost=self.laws.cost,
            maximise=self.laws.maximise,
            log_space=self.laws.log_space,
            lowest=self.laws.lowest,
        )
        return replace(self, params=params, values=values, laws=laws)

    def fitted_values(self) -> Array:
        """Expected loss or return of the rows, (rows,) or (R, rows).

        NaN further than a factor of ten from N_opt, where an envelope says nothing.
        """
        n, c = (self.rows[name].to_numpy(dtype=float) for name in ("params", "flops"))
        return np.where(near_optimum(n, self.laws.params_opt(c)), self.laws.value(n, c), np.nan)

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count]: () or (R,) + the shape of `flops` [FLOP]."""
        return self.laws.params_opt(flops)

    def samples_opt(self, flops: ArrayLike) -> Array:
        """D_opt(C) [count], from N_opt(C) and the FLOP a sample."""
        return self.laws.samples_opt(flops)

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action] or R_opt(C) [points]."""
        return self.laws.value_opt(flops)

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Expected loss or return of runs of N `params` on C `flops`, to second order in log N."""
        return self.laws.value(params, flops)

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a valid fit: () or (R,)."""
        return self.laws.valid()

    def ols_table(self, level: float = 0.95) -> pd.DataFrame:
        """Lines of log N and log y on log C along the envelope, as `IsoflopFit.ols_table`.

        The points share their runs: the interval is far too narrow, `bootstrap` is not.
        """
        symbol = "L_opt" if self.target == "loss" else "R_opt"
        return ols_table(self.flops, {"N_opt": self.params, symbol: self.values}, level)

    def summary(self) -> str:
        """Status and messages first, then the laws."""
        n = self.params[np.isfinite(self.params)]
        return "\n".join(
            [
                f"{self.method} of {self.target}: {self.status}",
                *(f"  - {message}" for message in self.messages),
                f"{self.rows['run_id'].nunique()} learning curves, {len(n)} of {len(self.flops)} "
                f"points with an interior optimum, {len(np.unique(n))} sizes on the envelope",
                self.laws.equations(),
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a point of the envelope: flops, params, value; NaN where it has no optimum."""
        return pd.DataFrame({"flops": self.flops, "params": self.params, "value": self.values})

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept."""
        single = np.float32 if self.params.ndim == 2 else None
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "target": self.target,
            "rows": encode_frame(self.rows),
            "flops": encode_array(self.flops),
            "params": encode_array(self.params, single),
            "values": encode_array(self.values, single),
            "laws": self.laws.to_dict(),
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        return cls(
            target=data["target"],
            rows=decode_frame(data["rows"]),
            flops=decode_array(data["flops"]),
            params=decode_array(data["params"]),
            values=decode_array(data["values"]),
            laws=FrontierLaws.from_dict(data["laws"]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )


def fit_envelope(
    runs: pd.DataFrame,
    target: Target = "loss",
    *,
    value_law: ValueLaw = "auto",
    size: str = "params",
) -> EnvelopeFit:
    """Best size along the lower envelope of the learning curves, then power laws through it.

    Learning curves are straight lines between checkpoints in log C (and log y where y is
    positive). Runs of one size are averaged. At each of 48 values of C, where at least three sizes
    have a curve, the best size is noted, unless it is the smallest or the largest there. Its value
    is that of a parabola through the five sizes around it, where that has an optimum inside: the
    lowest of noisy curves lies too low (`docs/limits.md`).

    Parameters
    ----------
    runs : DataFrame
        A run log with several checkpoints a run. The learning rate has to be right for every
        checkpoint: with a decay that ends later, the early part of a curve lies too high.
    target : "loss" or "mean_return"
        The lower envelope of the loss, or the upper one of the return.
    value_law, size
        As in `fit_isoflop`.

    Raises
    ------
    FitError
        Runs have one checkpoint each, or fewer than three sizes make up the envelope.

    Examples
    --------
    >>> fit = fit_envelope(runs)                    # learning curves of nine sizes
    >>> fit.to_frame()["params"].nunique() >= 3
    True
    """
    rows = select_rows(runs, target, size=size)
    y = rows[target].to_numpy(dtype=float)
    maximise, log_space = target == "mean_return", bool((y > 0).all())
    grid = common_flops(rows)
    cost = fit_cost(rows["params"], rows["samples"], rows["flops"])
    blank = FrontierLaws.blank(
        cost=cost,
        maximise=maximise,
        log_space=log_space,
        lowest=float(y.min()) if maximise else -np.inf,
    )
    nothing = np.full(len(grid), np.nan)
    fit = EnvelopeFit(
        target=target,
        rows=rows,
        flops=grid,
        params=nothing,
        values=nothing,
        laws=blank,
        status=FitStatus.OK,
        messages=(),
    )
    params, values, curvature = (column[0] for column in _trace(fit, y[None], np.ones((1, len(y)))))
    found = np.isfinite(params)
    sizes = np.unique(params[found])
    if len(sizes) < MIN_SIZES:
        raise FitError(
            f"the envelope of {target} has {len(sizes)} sizes with larger and smaller ones beside "
            f"them, {MIN_SIZES} are needed: run more sizes, or longer"
        )
    if not np.isfinite(curvature).any():
        raise FitError(f"{target} does not bend over log N at any compute: no frontier")
    # One point a size for the choice of the form: neighbours on the grid share their runs.
    single = _one_a_size(params)
    form, why = choose_value_law(value_law, grid[single], values[single], maximise)
    fit = replace(fit, laws=replace(blank, value_form=form))
    one = fit.refit(weights=np.ones((1, len(y))))
    messages = [
        f"N_opt is quantised: {len(sizes)} sizes make up the envelope; fit_isoflop reads between "
        "sizes"
    ]
    return replace(
        one,
        params=one.params[0],
        values=one.values[0],
        laws=one.laws.replicate(0),
        messages=(*messages, *([why] if why else [])),
    )


def _one_a_size(params: Array) -> NDArray[np.intp]:
    """For each size the middle of the points of the grid, (G,), at which it is the best one."""
    at = [np.flatnonzero(params == size) for size in np.unique(params[np.isfinite(params)])]
    return np.sort([points[len(points) // 2] for points in at])


def _trace(fit: EnvelopeFit, y: Array, weights: Array) -> tuple[Array, Array, Array]:
    """Best size, its value and the curvature, each (R, G); a loop over the grid only."""
    curves = cross_curves(fit.rows, fit.flops)
    log_space = fit.laws.log_space
    log_n = np.log(fit.rows["params"].to_numpy(dtype=float))
    between, both = curves.values(y, log_space), curves.weights(weights)
    count = max(len(y), len(weights))
    params, values, curvature = (np.full((count, len(fit.flops)), np.nan) for _ in range(3))
    for g in range(len(fit.flops)):
        at = np.flatnonzero(curves.point == g)
        sizes, cell = np.unique(log_n[curves.left[at]], return_inverse=True)
        best = slice_optima(
            sizes,
            cell,
            between[:, at],
            both[:, at],
            np.ones(len(at)),
            optimum="grid",
            maximise=fit.laws.maximise,
            log_space=log_space,
            window=5,
        )
        interior = (best.state == 0) & is_interior(best.cell, both[:, at], cell)
        params[:, g] = np.where(interior, np.exp(best.log_params), np.nan)
        # The best of noisy curves is too good: the parabola through its neighbours is less so.
        value = np.where(best.smoothed > 0, best.smoothed, best.value)
        values[:, g] = np.where(interior, value, np.nan)
        curvature[:, g] = np.where(interior, best.curvature, np.nan)
    on_it = np.sort(np.where(np.isfinite(params), params, 0.0), axis=1)
    distinct = (np.diff(on_it, axis=1, prepend=0.0) > 0).sum(axis=1)
    params[distinct < MIN_SIZES] = np.nan
    return params, values, curvature
