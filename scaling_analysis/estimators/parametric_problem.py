"""The rows of a parametric fit as the solver sees them, and the solving."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.selection import Target, select_rows
from scaling_analysis.laws.forms import FORMS, Form, Rows
from scaling_analysis.laws.newton import Minimum, SmoothLaw, minimize_huber
from scaling_analysis.laws.surfaces import EXPONENT_BOUNDS, Space
from scaling_analysis.runlog import load_runs
from scaling_analysis.uncertainty.resampling import groups_present

Array = NDArray[np.float64]

MIN_DISTINCT = 3
"""Fewer distinct N, or D, cannot tell a power from a floor."""
_COLD_STARTS = 16
_RESTARTS = 4


@dataclass(frozen=True, slots=True)
class Problem:
    """A form at the rows of a log, with a response near 1."""

    form: Form
    rows: Rows
    law: SmoothLaw
    delta: float
    """Knee of Huber's loss in the units of the scaled response."""
    rising: bool

    @property
    def objective_unit(self) -> float:
        """What the solver's objective is multiplied by."""
        return self.rows.unit**2 if self.rows.space == "linear" else 1.0

    def scaled(self, y: Array) -> Array:
        """mu of a response, see `laws.forms.Rows`."""
        sign = -1.0 if self.rising else 1.0
        if self.rows.space == "log":
            return sign * np.log(y) - self.rows.shift
        return sign * y / self.rows.unit

    def solve_cold(self, y: Array) -> Minimum:
        """The minima reached from the best seeds, for one response (rows,)."""
        mu, weights = self.scaled(y)[None], np.ones((1, len(y)))
        starts = self.form.seeds(self.rows, mu, weights, _COLD_STARTS)[0]
        return minimize_huber(self.law, mu, weights, starts, delta=self.delta)

    def solve_warm(self, start: Array, y: Array, weights: Array, full: bool) -> Minimum:
        """The minimum of each replicate from a shared start (P,); y and weights (R or 1, rows).

        Replicates where that fails, or with `full` all of them, are also started from seeds of
        their own, and the best end counts.
        """
        mu = self.scaled(y)
        found = minimize_huber(self.law, mu, weights, start, delta=self.delta)
        again = np.flatnonzero(full | ~found.converged)
        if not len(again):
            return found
        mu, weights = (v if len(v) == 1 else v[again] for v in (mu, weights))
        starts = self.form.seeds(self.rows, mu, weights, _RESTARTS)
        for k in range(starts.shape[1]):
            other = minimize_huber(self.law, mu, weights, starts[:, k], delta=self.delta)
            better = other.objective < found.objective[again] * (1 - 1e-12)
            at = again[better]
            found.theta[at], found.objective[at] = other.theta[better], other.objective[better]
            found.converged[at] = other.converged[better]
        return found

    def determined(self, weights: Array) -> NDArray[np.bool_]:
        """Whether each replicate has weight on enough distinct N and D."""
        return np.logical_and(*(_count_distinct(x, weights) >= MIN_DISTINCT for x in self.rows[:2]))


def _count_distinct(log_x: Array, weights: Array) -> NDArray[np.int64]:
    return groups_present(weights, np.unique(log_x, return_inverse=True)[1]).sum(axis=1)


def state_problem(
    rows: pd.DataFrame, form: str, target: Target, space: Space, delta: float
) -> Problem:
    """The problem that the rows of a fit pose; `delta` is in the units of the residuals."""
    y = rows[target].to_numpy(dtype=float)
    log_u = np.full(len(rows), np.inf)
    if form == "repeated":
        log_u = np.log(rows["unique_samples"].fillna(np.inf).to_numpy(dtype=float))
    rising = target == "mean_return"
    law_rows = Rows(
        log_n=np.log(rows["params"].to_numpy(dtype=float)),
        log_d=np.log(rows["samples"].to_numpy(dtype=float)),
        log_u=log_u,
        space=space,
        shift=float((-1 if rising else 1) * np.log(y).mean()) if space == "log" else 0.0,
        unit=float(np.ptp(y)) if space == "linear" else 1.0,
    )
    law = FORMS[form].law(law_rows)
    return Problem(FORMS[form], law_rows, law, delta / law_rows.unit, rising)


def off_bounds(exponent: ArrayLike) -> NDArray[np.bool_]:
    """Whether an exponent lies inside its bounds."""
    low, high = EXPONENT_BOUNDS
    return (np.asarray(exponent) > low * (1 + 1e-6)) & (np.asarray(exponent) < high * (1 - 1e-6))


def select_surface_rows(
    runs: pd.DataFrame,
    form: str,
    target: Target,
    size: str,
    space: Space,
    min_samples: float | None,
    where: str | None,
) -> pd.DataFrame:
    """The rows to fit, or a FitError that says why they determine no law."""
    if "status" not in runs:
        runs = load_runs(runs)
    if where is not None:
        try:
            runs = runs.query(where)
        except (NameError, SyntaxError, TypeError, ValueError) as error:
            raise FitError(
                f"where={where!r} is no filter of these runs: {error}. Write it over the columns "
                f"{', '.join(map(str, runs.columns))}, such as 'budget >= 1e15'"
            ) from error
    if min_samples is not None:
        runs = runs[runs["samples"] >= min_samples]
    if runs.empty:
        raise FitError(f"no row is left after where={where!r}, min_samples={min_samples!r}")
    rows = select_rows(runs, target, size=size)
    if form == "repeated":
        if "unique_samples" not in rows:
            raise FitError("form='repeated' needs the column unique_samples")
        if not (rows["unique_samples"] < rows["samples"]).any():
            raise FitError(
                "form='repeated': no row has more samples than unique_samples, so nothing was "
                "repeated; fit form='additive'"
            )
    for name in ("params", "samples"):
        distinct = rows[name].nunique()
        if distinct < MIN_DISTINCT:
            raise FitError(
                f"{name} takes {distinct} distinct value{'s' * (distinct > 1)} in {len(rows)} "
                f"rows: a law over N and D needs at least {MIN_DISTINCT} of each; add runs of "
                "other sizes or lengths"
            )
    needed = len(FORMS[form].names) + 1
    if len(rows) < needed:
        raise FitError(f"{len(rows)} rows: form={form!r} needs at least {needed}")
    y = rows[target].to_numpy(dtype=float)
    if space == "log" and not (y > 0).all():
        at = int(np.argmax(~(y > 0)))
        raise FitError(
            f"{target} is {y[at]:.6g} in run {rows['run_id'][at]!r}, which has no logarithm: use "
            "residual_space='linear'"
        )
    if np.ptp(y) == 0:
        raise FitError(f"{target} is {y[0]:.6g} in every row: there is nothing to fit")
    return rows
