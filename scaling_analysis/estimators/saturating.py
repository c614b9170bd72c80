"""`fit_saturating`: where the return of one recipe stops as compute grows, if the data can tell."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.selection import select_rows
from scaling_analysis.laws.saturating import (
    STEEPNESS,
    Saturating,
    SaturatingProblem,
    saturating_value,
)
from scaling_analysis.results import Result

Array = NDArray[np.float64]

MIN_POINTS = 6
WELL_COVERED = 6.0
"""Data that reach so many times C_mid know A to a few thousandths of the range."""
_GRID = 120
_HIGHEST = 4.0
"""A is looked for up to so many ranges of the observed returns above the highest."""
_BELOW = 0.15
"""Noise lifts the highest observation: A may lie this share of the range below it."""
_LEVEL = 0.9
_RISES = 0.05
_PARAMETERS = ("start", "asymptote_fitted", "log_middle", "steepness")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class SaturatingFit(Result):
    """R = R0 + (A - R0)/(1 + (C_mid/C)^B); parameters are () or, for replicates, (R,)."""

    _error = FitError

    rows: pd.DataFrame
    """run_id, flops, mean_return [points], and return_se where known, in the order of flops."""
    known_start: float | None
    """R0 [points] where it was given."""
    ceiling: float | None
    """Highest return that is possible [points], where it was given."""
    start: Array
    """R0 [points]."""
    asymptote_fitted: Array
    """A [points] as least squares has it; `asymptote` refuses it where the data do not reach."""
    log_middle: Array
    """log C_mid [FLOP]."""
    steepness: Array
    """B."""
    squares: Array
    """Sum of squared residuals [points^2]."""
    sound: NDArray[np.bool_]
    """Whether the solver converged inside the bounds of C_mid and B."""
    asymptote_range: tuple[float, float]
    """Values of A that the data do not exclude at 90 %; an infinite end was not found."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def method(self) -> str:
        return "saturating"

    @property
    def target(self) -> str:
        return "mean_return"

    @property
    def residual_space(self) -> str:
        return "linear"

    @property
    def middle(self) -> Array:
        """C_mid [FLOP]: half of the rise is done."""
        return np.exp(self.log_middle)

    @property
    def window_ratio(self) -> Array:
        """Largest C observed over C_mid: below 1 the data end before half of the rise."""
        return self.rows["flops"].max() / self.middle

    @property
    def reached(self) -> NDArray[np.bool_]:
        """Whether the data reach C_mid, so that A can be told at all; () or (R,)."""
        return np.asarray(self.window_ratio) >= 1

    @property
    def asymptote(self) -> Array:
        """A [points]; NaN in replicates whose C_mid lies beyond the data.

        Raises
        ------
        FitError
            The data end short of C_mid, or exclude no A however high.
        """
        if self.asymptote_fitted.ndim:
            return np.where(self.reached, self.asymptote_fitted, np.nan)
        reason = self._refusal()
        if reason:
            raise FitError(reason)
        return self.asymptote_fitted

    def value(self, flops: ArrayLike) -> Array:
        """Expected return [points] at C [FLOP]; beyond the data only where A is known."""
        c = np.asarray(flops, dtype=float)
        if self.asymptote_fitted.ndim == 0 and (c > self.rows["flops"].max() * (1 + 1e-9)).any():
            reason = self._refusal()
            if reason:
                raise FitError(reason)
        value = saturating_value(self._curve(), np.log(c))
        return value if self.asymptote_fitted.ndim else value[0]

    def fitted_values(self) -> Array:
        """Expected return of the rows, (rows,) or (R, rows)."""
        value = saturating_value(self._curve(), np.log(self.rows["flops"].to_numpy(dtype=float)))
        return value if self.asymptote_fitted.ndim else value[0]

    def refit(
        self, weights: ArrayLike | None = None, response: ArrayLike | None = None
    ) -> "SaturatingFit":
        """The curve refitted to R sets of weights or of responses, (R, rows) or (rows,) each."""
        if self.asymptote_fitted.ndim:
            raise FitError("these are replicates already: refit the fit that they came from")
        base = self.rows["mean_return"].to_numpy(dtype=float)
        w = np.atleast_2d(np.ones_like(base) if weights is None else np.asarray(weights, float))
        y = np.atleast_2d(base if response is None else np.asarray(response, dtype=float))
        for name, values in (("weights", w), ("response", y)):
            if values.shape[1:] != base.shape or len(values) not in (1, max(len(w), len(y))):
                raise FitError(f"{name} has shape {values.shape}, the fit {len(base)} rows")
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise FitError("weights must be finite and not negative")
        shape = (max(len(w), len(y)), len(base))
        w, y = np.broadcast_to(w, shape), np.broadcast_to(y, shape)
        possible = np.isfinite(y).all(axis=1) & ((w > 0).sum(axis=1) >= MIN_POINTS - 1)
        found = _problem(self).solve(np.where(np.isfinite(y), y, base), w)
        fit = _settled(self, found)
        return replace(
            fit,
            sound=fit.sound & possible,
            asymptote_range=(np.nan, np.nan),
            status=FitStatus.OK,
            messages=(),
        )

    def valid(self) -> NDArray[np.bool_]:
        return self.sound

    def replicate(self, i: int) -> Self:
        """One replicate, without the leading axis."""
        names = (*_PARAMETERS, "squares", "sound")
        return replace(self, **{name: np.asarray(getattr(self, name)[i]) for name in names})

    def to_frame(self) -> pd.DataFrame:
        """Parameters of a single fit: value, by name and unit."""
        refused = bool(self._refusal())
        return pd.DataFrame(
            {
                "value": {
                    "R0": float(self.start),
                    "A": np.nan if refused else float(self.asymptote_fitted),
                    "C_mid": float(self.middle),
                    "B": float(self.steepness),
                },
                "unit": {"R0": "points", "A": "points", "C_mid": "FLOP", "B": "1"},
            }
        ).rename_axis("parameter")

    def summary(self) -> str:
        """Status and messages first, then the curve and how far the data reach."""
        lines = [
            f"saturating curve of mean_return: {self.status}",
            *(f"  - {message}" for message in self.messages),
        ]
        if self.asymptote_fitted.ndim:
            return "\n".join([*lines, f"{len(self.sound)} replicates, {self.sound.sum()} valid"])
        refused = bool(self._refusal())
        known = "given" if self.known_start is not None else "fitted"
        top = "A (refused)" if refused else f"{float(self.asymptote_fitted):.4g}"
        lines += [
            f"R = R0 + (A - R0)/(1 + (C_mid/C)^B): R0 = {float(self.start):.4g} ({known}), "
            f"A = {top}, C_mid = {float(self.middle):.4g} FLOP, B = {float(self.steepness):.3f}",
            f"{len(self.rows)} points to C = {self.rows['flops'].max():.4g} FLOP, "
            f"{float(self.window_ratio):.2f} times C_mid; residuals "
            f"{np.sqrt(float(self.squares) / len(self.rows)):.3g} points",
        ]
        low, high = self.asymptote_range
        end = "any height" if np.isinf(high) else f"{high:.4g}"
        lines.append(f"A from {low:.4g} to {end} is not excluded at {_LEVEL:.0%}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept."""
        return {
            "kind": type(self).__name__,
            "rows": encode_frame(self.rows),
            "known_start": self.known_start,
            "ceiling": self.ceiling,
            **{name: encode_array(getattr(self, name)) for name in (*_PARAMETERS, "squares")},
            "sound": encode_array(self.sound),
            "asymptote_range": [float(v) if np.isfinite(v) else None for v in self.asymptote_range],
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        low, high = data["asymptote_range"]
        single = low is not None
        return cls(
            rows=decode_frame(data["rows"]),
            known_start=data["known_start"],
            ceiling=data["ceiling"],
            **{name: decode_array(data[name]) for name in (*_PARAMETERS, "squares")},
            sound=decode_array(data["sound"]),
            asymptote_range=(
                low if single else np.nan,
                high if high is not None else (np.inf if single else np.nan),
            ),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )

    def _curve(self) -> Saturating:
        start, end, middle, steep = (np.atleast_1d(getattr(self, name)) for name in _PARAMETERS)
        return Saturating(start, end, middle, steep, self.squares, self.sound, np.empty(0))

    def _refusal(self) -> str:
        """Why A is not given, or nothing."""
        if not self.reached:
            return (
                f"the data end at {float(self.window_ratio):.2g} C_mid, short of half the rise: "
                "where the curve stops cannot be told. Train on, or give ceiling="
            )
        if np.isinf(self.asymptote_range[1]):
            return (
                "no asymptote is excluded, however high: the data show a bend too slight to say "
                "where it ends. Train on, or give ceiling="
            )
        return ""


def fit_saturating(
    data: pd.DataFrame | ArrayLike,
    y: ArrayLike | None = None,
    *,
    start: float | None = None,
    ceiling: float | None = None,
) -> SaturatingFit:
    """Fit R = R0 + (A - R0)/(1 + (C_mid/C)^B), the compute-performance curve of Khatri et al. 2025.

    Parameters
    ----------
    data : DataFrame or array_like (n,)
        A run log of one recipe (one size; the rows of its learning curves with `flops` and
        `mean_return`), or compute C [FLOP] with `y`.
    y : array_like, (n,), optional
        Returns [points], with C as first argument.
    start : float, optional
        R0, the return without training on this recipe; fitted where it is not given, and B is then
        poorly known: to .2 only with R0 given.
    ceiling : float, optional
        Highest return that is possible; A is looked for below it.

    Returns
    -------
    SaturatingFit
        `asymptote` raises where the data end short of C_mid; `window_ratio` says how far they
        reach beyond it (A is good to some .005 of a unit range at 6, to .06 at 1.6).

    Raises
    ------
    FitError
        Fewer than six points, returns that do not vary or do not rise, NaN, a ceiling below an
        observed return, a start above all of them.

    Examples
    --------
    >>> c = np.geomspace(100, 20000, 30)
    >>> fit = fit_saturating(c, 0.35 + 0.26 / (1 + (2542 / c) ** 1.92), start=0.35)
    >>> float(fit.asymptote.round(4)), float(fit.steepness.round(3)), round(float(fit.middle))
    (0.61, 1.92, 2542)
    """
    rows = _read(data, y)
    r = rows["mean_return"].to_numpy(dtype=float)
    _check(rows, r, start, ceiling)
    nothing = np.array(np.nan)
    fit = SaturatingFit(
        rows=rows,
        known_start=None if start is None else float(start),
        ceiling=None if ceiling is None else float(ceiling),
        start=nothing,
        asymptote_fitted=nothing,
        log_middle=nothing,
        steepness=nothing,
        squares=nothing,
        sound=np.array(False),
        asymptote_range=(np.nan, np.nan),
        status=FitStatus.OK,
        messages=(),
    )
    problem = _problem(fit)
    found = problem.solve(r[None], np.ones((1, len(r))))
    fit = _settled(fit, found).replicate(0)
    explained = 1 - float(fit.squares) / float(((r - r.mean()) ** 2).sum())
    if explained < _RISES or float(fit.asymptote_fitted) <= float(fit.start):
        raise FitError(
            "the returns do not rise with compute: a saturating curve explains "
            f"{max(explained, 0.0):.0%} of their variance"
        )
    fit = replace(fit, asymptote_range=_range(fit, problem, found))
    doubts = _doubts(fit)
    return replace(
        fit, status=FitStatus.DOUBTFUL if doubts else FitStatus.OK, messages=tuple(doubts)
    )


def _read(data: pd.DataFrame | ArrayLike, y: ArrayLike | None) -> pd.DataFrame:
    """run_id, flops, mean_return and return_se, in the order of flops."""
    if isinstance(data, pd.DataFrame):
        if y is not None:
            raise FitError("give a run log alone, or C and y")
        rows = select_rows(data, "mean_return", needs=("flops",))
        sizes = rows["params"].nunique() if "params" in rows else 1
        if sizes > 1:
            raise FitError(
                f"the run log holds {sizes} sizes: a saturating curve is one recipe's. Choose one, "
                "runs[runs.params == n], or fit all of them with fit_intrinsic"
            )
        names = ["run_id", "flops", "mean_return", "return_se"]
        rows = rows[[name for name in names if name in rows]]
        return rows.sort_values("flops", kind="stable", ignore_index=True)
    if y is None:
        raise FitError("give a run log, or C and y")
    c, r = (np.atleast_1d(np.asarray(v, dtype=float)) for v in (data, y))
    if c.shape != r.shape or c.ndim != 1:
        raise FitError(f"C has shape {c.shape}, y {r.shape}: give one value a point in each")
    for name, values, bad in (("C", c, ~(np.isfinite(c) & (c > 0))), ("y", r, ~np.isfinite(r))):
        if bad.any():
            at = int(np.argmax(bad))
            raise FitError(
                f"{name}[{at}] is {values[at]:g}: compute must be positive, both must be finite; "
                "leave that point out"
            )
    names = [f"point {i}" for i in range(len(c))]
    rows = pd.DataFrame({"run_id": names, "flops": c, "mean_return": r})
    return rows.sort_values("flops", kind="stable", ignore_index=True)


def _check(rows: pd.DataFrame, r: Array, start: float | None, ceiling: float | None) -> None:
    for name, end in (("start", start), ("ceiling", ceiling)):
        if end is not None and not np.isfinite(end):
            raise FitError(f"{name}={end!r}: give a finite return [points], or leave it out")
    if rows["flops"].nunique() < MIN_POINTS:
        raise FitError(
            f"{rows['flops'].nunique()} distinct values of C: a curve of four parameters needs "
            f"{MIN_POINTS} or more"
        )
    if np.ptp(r) == 0:
        raise FitError(f"the return is {r[0]:.6g} at every point: there is nothing to fit")
    if ceiling is not None and r.max() > ceiling:
        raise FitError(
            f"ceiling={ceiling:g} is below a return that was observed: {r.max():g} at C = "
            f"{rows['flops'][int(r.argmax())]:.4g} FLOP"
        )
    if start is not None and r.max() <= start:
        raise FitError(f"start={start:g} is above every return, the best is {r.max():g}")


def _problem(fit: SaturatingFit) -> SaturatingProblem:
    r = fit.rows["mean_return"].to_numpy(dtype=float)
    bottom = r.min() if fit.known_start is None else min(fit.known_start, r.min())
    span = r.max() - bottom
    top = r.max() + _HIGHEST * span if fit.ceiling is None else fit.ceiling
    low = r.max() - _BELOW * span
    # Dense where the data are, sparse far above.
    share = np.linspace(0, 1, _GRID) ** (2.0 if fit.ceiling is None else 1.0)
    return SaturatingProblem(
        np.log(fit.rows["flops"].to_numpy(dtype=float)), fit.known_start, low + share * (top - low)
    )


def _settled(fit: SaturatingFit, found: Saturating) -> SaturatingFit:
    low, high = STEEPNESS[0] * 1.001, STEEPNESS[1] * 0.999
    inside = (found.steepness > low) & (found.steepness < high)
    return replace(
        fit,
        start=found.start,
        asymptote_fitted=found.asymptote,
        log_middle=found.log_middle,
        steepness=found.steepness,
        squares=found.squares,
        sound=found.converged & inside & np.isfinite(found.squares),
    )


def _range(
    fit: SaturatingFit, problem: SaturatingProblem, found: Saturating
) -> tuple[float, float]:
    """Values of A whose least squares are within what the noise explains (profile likelihood)."""
    from scipy.stats import f

    free = len(fit.rows) - (3 if fit.known_start is not None else 4)
    allowed = float(fit.squares) * (1 + float(f.ppf(_LEVEL, 1, max(free, 1))) / max(free, 1))
    r = fit.rows["mean_return"].to_numpy(dtype=float)[None]
    profile = problem.refined_profile(r, np.ones_like(r), found)
    best = float(fit.asymptote_fitted)
    height = np.append(problem.asymptotes, best)
    order = np.argsort(height, kind="stable")
    # In the root of what a profile is above its least it is nearly a line on either side.
    least = min(float(fit.squares), float(profile.min()))
    above = np.sqrt(np.maximum(np.append(profile, fit.squares) - least, 0.0))[order]
    height, limit = height[order], float(np.sqrt(max(allowed - least, 0.0)))
    good = np.flatnonzero(above <= limit)  # the optimum at least
    low, high = float(height[0]), float(height[-1]) if fit.ceiling is not None else np.inf
    if good[0] > 0:
        low = _reaches(limit, above[good[0] - 1 :][:2], height[good[0] - 1 :][:2])
    if good[-1] + 1 < len(height):
        high = _reaches(limit, above[good[-1] :][:2], height[good[-1] :][:2])
    return low, high


def _reaches(limit: float, value: Array, at: Array) -> float:
    """Where a line through two points reaches a value between theirs."""
    return float(at[0] + (limit - value[0]) / (value[1] - value[0]) * (at[1] - at[0]))


def _doubts(fit: SaturatingFit) -> list[str]:
    found = []
    reason = fit._refusal()
    if reason:
        found.append(reason)
    elif float(fit.window_ratio) < WELL_COVERED:
        low, high = fit.asymptote_range
        found.append(
            f"the data reach {float(fit.window_ratio):.2g} C_mid: A is known to "
            f"{(high - low) / 2:.2g}, to a few thousandths of the range only from "
            f"{WELL_COVERED:g} C_mid on"
        )
    if not fit.sound:
        found.append(
            f"B = {float(fit.steepness):.3g} lies on its bound or the solver did not converge"
        )
    if fit.known_start is None:
        found.append("R0 was fitted: B is known to .2 only with start= given")
    return found
