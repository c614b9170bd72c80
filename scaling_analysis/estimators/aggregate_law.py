"""How an aggregate over many tasks changes with size or compute, as a law with an interval.

Lee et al. 2022 ("Multi-Game Decision Transformers", figure 5) plot the interquartile mean of
human-normalised scores over 41 games against model size. Here that picture is a line in log x with
the uncertainty of the runs, by the stratified bootstrap, and of the line itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.aggregate import Statistic
from scaling_analysis.estimators.task_scores import read_scores
from scaling_analysis.results import Result
from scaling_analysis.uncertainty import stratified

Array = NDArray[np.float64]

_FEW = 4
"""Fewer points hardly show whether a line holds."""
_LABEL = {"iqm": "interquartile mean", "median": "median", "mean": "mean"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class AggregateLaw(Result):
    """A line of an aggregate score, or of its log, over log x."""

    _error = FitError

    form: str
    """"power": y = A x^b; "log_line": y = a + b log x."""
    statistic: str
    x: str
    """The column on the abscissa."""
    points: pd.DataFrame
    """x, value, lo, hi, se (of the value), tasks, runs: the aggregate at every x."""
    centre: float
    """log x at which the intercept is taken."""
    intercept: float
    """log y or y at the centre."""
    slope: float
    """b."""
    covariance: Array
    """(2, 2) of intercept and slope, from the runs alone."""
    misfit: float
    """Mean squared deviation from the line over what the runs explain, at least 1 (Birge 1932)."""
    freedom: tuple[float, float]
    """Degrees of freedom of the runs' spread and of the misfit."""
    level: float
    status: FitStatus
    messages: tuple[str, ...]

    def exponent(self, level: float | None = None) -> tuple[float, float, float]:
        """b with its interval."""
        lo, hi = self._ends(np.array([[0.0, 1.0]]), level)
        return self.slope, float(lo[0]), float(hi[0])

    def predict(self, x_new: ArrayLike, level: float | None = None) -> pd.DataFrame:
        """The aggregate at `x_new`, (m,) or (): x, value, lo, hi (the line, at nominal `level`)."""
        at = np.atleast_1d(np.asarray(x_new, dtype=float))
        if not (np.isfinite(at) & (at > 0)).all():
            raise FitError("x_new must be positive, finite numbers")
        design = np.stack([np.ones_like(at), np.log(at) - self.centre], axis=1)
        lo, hi = self._ends(design, level)
        value = design @ np.array([self.intercept, self.slope])
        back = np.exp if self.form == "power" else np.asarray
        return pd.DataFrame({"x": at, "value": back(value), "lo": back(lo), "hi": back(hi)})

    def _ends(self, design: Array, level: float | None) -> tuple[Array, Array]:
        from scipy.special import stdtrit

        level = self.level if level is None else level
        if not 0 < level < 1:
            raise FitError(f"level is {level!r}: give a share between 0 and 1, such as 0.9")
        sampling = np.einsum("ni,ij,nj->n", design, self.covariance, design)
        extra = (self.misfit - 1) * sampling
        dof = (sampling + extra) ** 2 / np.maximum(
            sampling**2 / self.freedom[0] + extra**2 / self.freedom[1], 1e-300
        )
        half = stdtrit(dof, 0.5 + level / 2) * np.sqrt(sampling + extra)
        centre = design @ np.array([self.intercept, self.slope])
        return centre - half, centre + half

    def summary(self) -> str:
        """Status and messages first, then the law and its points."""
        b, lo, hi = self.exponent()
        law = "A x^b" if self.form == "power" else "a + b log x"
        lines = [
            f"{_LABEL[self.statistic]} of scores over {self.x}, {law}: {self.status}",
            *(f"  - {message}" for message in self.messages),
            f"b = {b:.4f} [{lo:.4f}, {hi:.4f}] ({self.level:.0%}); deviations from the line are "
            f"{np.sqrt(self.misfit):.2f} times what the runs explain",
        ]
        for row in self.points.to_dict("records"):
            lines.append(
                f"{self.x} {row['x']:<9.3g} {row['value']:.4f} [{row['lo']:.4f}, {row['hi']:.4f}]  "
                f"{int(row['tasks'])} tasks, {int(row['runs'])} runs"
            )
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """The aggregate at every x: `points`."""
        return self.points.copy()

    def to_dict(self) -> dict[str, Any]:
        """The law as JSON types."""
        names = ("form", "statistic", "x", "centre", "intercept", "slope", "misfit", "level")
        return {
            "kind": type(self).__name__,
            **{name: getattr(self, name) for name in names},
            "points": encode_frame(self.points),
            "covariance": self.covariance.tolist(),
            "freedom": list(self.freedom),
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The law that `to_dict` wrote."""
        plain = {k: v for k, v in data.items() if k != "kind"}
        return cls(
            **plain
            | {
                "points": decode_frame(data["points"]),
                "covariance": np.array(data["covariance"]),
                "freedom": (data["freedom"][0], data["freedom"][1]),
                "status": FitStatus(data["status"]),
                "messages": tuple(data["messages"]),
            }
        )


def fit_aggregate_law(
    scores: pd.DataFrame,
    x: str = "params",
    statistic: Statistic = "iqm",
    *,
    form: Literal["power", "log_line"] = "power",
    level: float = 0.9,
    n_resamples: int = 10_000,
    rng: int | np.random.Generator | None = 0,
) -> AggregateLaw:
    """Aggregate of many tasks over model size, samples or compute.

    Parameters
    ----------
    scores : DataFrame
        task, run_id, score (`normalise_scores`) and the column `x`; one row a run, task and x. All
        tasks at every x: otherwise easy tasks at one end would bend the line.
    x : str
        "params", "samples", "flops", ...
    statistic : "iqm", "median" or "mean"
    form : "power" or "log_line"
        Line of log y (positive aggregates only), or of y.
    level : float
        Nominal coverage.
    n_resamples : int
        Replicates of the stratified bootstrap at every x, deviations corrected as in
        `aggregate_scores`.
    rng : int, Generator or None

    Returns
    -------
    AggregateLaw
        For these tasks, over new runs of them. `DOUBTFUL` with fewer than four x. From four on,
        `fit_curve(points.x, points.value, y_se=points.se)` compares other forms.

    Raises
    ------
    FitError
        Fewer than three x, tasks that differ between them, one run a task, or an aggregate that is
        not positive.

    Examples
    --------
    >>> law = fit_aggregate_law(scores)                                     # doctest: +SKIP
    >>> law.predict([1e8])                                                  # doctest: +SKIP
    """
    if statistic not in _LABEL:
        raise FitError(f"statistic is {statistic!r}: choose 'iqm', 'median' or 'mean'")
    if form not in ("power", "log_line"):
        raise FitError(f"form is {form!r}: choose 'power' or 'log_line'")
    if not 0 < level < 1:
        raise FitError(f"level is {level!r}: give a share between 0 and 1, such as 0.9")
    if x not in scores:
        raise FitError(f"the scores have no column {x!r}")
    if not pd.api.types.is_numeric_dtype(scores[x]):
        raise FitError(f"{x} holds something that is no number, such as {scores[x].iloc[0]!r}")
    if scores[x].isna().any():
        raise FitError(f"row {scores.index[scores[x].isna()][0]} of the scores has no {x}")
    at = np.sort(scores[x].unique().astype(float))
    if len(at) < 3:
        raise FitError(f"{len(at)} values of {x}: a law with an interval needs three")
    if not (at > 0).all():
        raise FitError(f"{x} is {at[0]:g}: a law in log {x} needs positive values")
    draws_rng = np.random.default_rng(rng)
    rows, z, variance, freedom, expected = [], [], [], [], None
    for value in at:
        names, groups = read_scores(scores[scores[x] == value])
        expected = names if expected is None else expected
        if names != expected:
            odd = sorted(set(names) ^ set(expected))
            raise FitError(
                f"the tasks at {x} = {value:g} are not those at {at[0]:g} ({', '.join(odd[:5])}): "
                "compare the tasks that all have"
            )
        flat, runs = np.concatenate(groups), [len(group) for group in groups]
        aggregate = float(stratified.summarise_scores(flat, runs, statistic))
        if form == "power" and not aggregate > 0:
            raise FitError(
                f"the {_LABEL[statistic]} at {x} = {value:g} is {aggregate:g}: a power law needs "
                "positive ones, form='log_line' does not"
            )
        replicates = stratified.resample_statistics(draws_rng, n_resamples, flat, runs, [statistic])
        scale = stratified.deviation_scale(flat, runs)
        moved = aggregate + scale * (replicates[0] - aggregate)
        lo, hi = np.quantile(moved, [0.5 - level / 2, 0.5 + level / 2])
        se = float(moved.std())
        if not se > 0:
            raise FitError(f"the runs at {x} = {value:g} do not differ: are they copies of one?")
        size = {"tasks": float(len(groups)), "runs": float(sum(runs))}
        rows.append({"x": value, "value": aggregate, "lo": lo, "hi": hi, "se": se} | size)
        z.append(np.log(aggregate) if form == "power" else aggregate)
        variance.append((se / aggregate if form == "power" else se) ** 2)
        freedom.append(stratified.satterthwaite(flat, runs))
    log_x, w = np.log(at), 1 / np.array(variance)
    centre = float(w @ log_x / w.sum())
    design = np.stack([np.ones_like(log_x), log_x - centre], axis=1)
    covariance = np.asarray(np.linalg.inv(design.T @ (w[:, None] * design)), dtype=float)
    intercept, slope = covariance @ design.T @ (w * np.array(z))
    chi2 = float(w @ (np.array(z) - design @ np.array([intercept, slope])) ** 2)
    few = len(at) < _FEW
    messages = (
        (f"{len(at)} values of {x} hardly show whether a line holds: do not go far beyond them",)
        if few
        else ()
    )
    return AggregateLaw(
        form=form,
        statistic=statistic,
        x=x,
        points=pd.DataFrame(rows),
        centre=centre,
        intercept=float(intercept),
        slope=float(slope),
        covariance=covariance,
        misfit=max(1.0, chi2 / (len(at) - 2)),
        freedom=(float(np.sum(freedom)), float(len(at) - 2)),
        level=level,
        status=FitStatus.DOUBTFUL if few else FitStatus.OK,
        messages=messages,
    )
