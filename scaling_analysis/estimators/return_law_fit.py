"""The law of the best return over compute: return-optimal size and return of every budget."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.curve_fit import CurveFit
from scaling_analysis.estimators.episodes import Statistic
from scaling_analysis.estimators.isoflop import IsoflopFit
from scaling_analysis.estimators.metrics import Metric
from scaling_analysis.results import Result

Array = NDArray[np.float64]

_LABEL = {"mean": "mean", "median": "median", "iqm": "interquartile mean"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ReturnLaw(Result):
    """Return-optimal size and return over compute; a `FrontierFit` where the law has a name.

    The parameters of replicates lie in `profiles` and `curve`, with a leading axis R.
    """

    _error = FitError

    profiles: IsoflopFit
    """IsoFLOP profiles of the metric of the return, moved up by `shift`."""
    curve: CurveFit
    """The law of the metric of R_opt over C [FLOP]."""
    metric: Metric
    """What the profiles and the law are fitted in."""
    statistic: Statistic
    """What a row's return stands for: "mean", "median" or "iqm" of its episodes."""
    floor: float | None
    """r [points], the return of random play, where it is known."""
    ceiling: float | None
    """t [points], the return that cannot be exceeded, where it is known."""
    shift: float
    """Added to the metric before profiles are fitted, so that it is positive; they do not mind."""
    rows: pd.DataFrame
    """The fitted rows of the run log, mean_return in points, in the order of `response`."""
    points: pd.DataFrame
    """One row a budget with an optimum: flops, params_opt, samples_opt, mean_return [points] there
    with lo, hi and se from the evaluation noise (NaN where that is not known); highest and
    highest_params, the best size as it was run, and optimism, what picking it adds to a return on
    average by evaluation noise alone [points]."""
    level: float
    """Level of lo and hi in `points`."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def method(self) -> str:
        """Name with the options that change the answer."""
        parts = ["return-law", self.curve.form, self.profiles.method.removeprefix("isoflop-")]
        parts += [self.metric.name] if self.metric.name != "points" else []
        return "-".join(parts + ([self.statistic] if self.statistic != "mean" else []))

    @property
    def target(self) -> Literal["mean_return"]:
        """What the law is one of."""
        return "mean_return"

    @property
    def residual_space(self) -> str:
        """ "log" or "linear": the space, of the metric, in which the law's residuals are taken."""
        return self.curve.residual_space

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The same profiles and law for R sets of weights or of returns [points], each (R, rows).

        Raises
        ------
        FitError
            law="auto", an average of forms, has no parameters to refit: name a law.
        """
        if self.curve.form == "auto":
            raise FitError(
                "law='auto' averages forms and cannot be refitted: give fit_return_law(law='power')"
                " or another name for a bootstrap; predict() has the interval of the average"
            )
        moved = None
        if response is not None:
            moved = self.metric.of(response) + self.shift
            # A replicate beyond the end of the metric stays just inside it.
            seen = self.profiles.profiles.response
            moved = np.where(np.isfinite(moved), moved, seen)
        profiles = self.profiles.refit(weights=weights, response=moved)
        value = profiles.slices.value[:, self._kept()] - self.shift
        have = np.isfinite(value)
        curve = self.curve.refit(
            weights=have.astype(float), response=np.where(have, value, self.curve.series.y)
        )
        return replace(self, profiles=profiles, curve=curve)

    def fitted_values(self) -> Array:
        """Expected return [points] of the fitted rows, off their profiles: (rows,) or (R, rows)."""
        return self.metric.points(self.profiles.fitted_values() - self.shift)

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count], the size of highest return: () or (R,) + the shape of `flops`."""
        return self.profiles.params_opt(flops)

    def samples_opt(self, flops: ArrayLike) -> Array:
        """D_opt(C) [count]."""
        return self.profiles.samples_opt(flops)

    def value_opt(self, flops: ArrayLike) -> Array:
        """R_opt(C) [points]."""
        return self.metric.points(self.curve.value(flops))

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Expected return [points] of runs of N `params` on C `flops`, by the profiles' curvature.

        To second order in log N around the optimum, and never below the smallest return fitted.
        """
        laws = replace(self.profiles.laws, lowest=-np.inf)
        n, c = np.asarray(params, dtype=float), np.asarray(flops, dtype=float)
        lead = self.profiles.laws.log_params.shape
        if not (lead and n.shape == lead + c.shape):
            n, c = np.broadcast_arrays(n, c)
        here, best = laws.value(n, c), laws.value_opt(c)
        at_optimum = self.curve.value(c)
        if laws.log_space:
            found = (at_optimum + self.shift) * (here / best) - self.shift
        else:
            found = at_optimum + (here - best)
        lowest = float(self.profiles.profiles.response.min()) - self.shift
        return self.metric.points(np.maximum(found, lowest))

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a valid fit: () or (R,)."""
        return self.profiles.valid() & self.curve.valid()

    def predict(self, flops: ArrayLike, level: float = 0.9) -> pd.DataFrame:
        """Size and return of the best run of larger budgets, with intervals.

        Parameters
        ----------
        flops : array_like, (m,) or ()
            C [FLOP].
        level : float
            Nominal coverage.

        Returns
        -------
        DataFrame
            flops, params_opt, samples_opt, mean_return [points] with _lo, _hi (the law: sampling
            and its own error as its hindcast saw it) and _run_lo, _run_hi (a new observation).
        """
        c = np.atleast_1d(np.asarray(flops, dtype=float))
        law = self.curve.predict(c, level)
        names = {"value": "", "lo": "_lo", "hi": "_hi", "run_lo": "_run_lo", "run_hi": "_run_hi"}
        back = {
            f"mean_return{end}": self.metric.points(law[name].to_numpy(dtype=float))
            for name, end in names.items()
        }
        sizes = {"params_opt": self.params_opt(c), "samples_opt": self.samples_opt(c)}
        return pd.DataFrame({"flops": c} | sizes | back)

    def equation(self) -> str:
        """The law with its numbers, in the metric."""
        left = "R_opt" if self.metric.name == "points" else f"m = {self.metric.equation}; m_opt"
        if self.curve.form == "auto":
            return f"{left} = average of {len(self.curve.forms)} forms over C"
        values = ", ".join(f"{k} = {v:.5g}" for k, v in self.curve.parameters.items() if not v.ndim)
        return f"{left}: {self.curve.form} over C with {values}"

    def summary(self) -> str:
        """Status and messages first, then the laws and the points behind them."""
        p, laws = self.points, self.profiles.laws
        ends = [
            f"{name} {end:g}"
            for name, end in (("floor", self.floor), ("ceiling", self.ceiling))
            if end is not None
        ]
        lines = [
            f"{self.method} of the {_LABEL[self.statistic]} return: {self.status}",
            *(f"  - {message}" for message in self.messages),
            f"{len(self.rows)} rows of {self.rows['run_id'].nunique()} runs, {len(p)} of "
            f"{len(self.profiles.profiles.budgets)} budgets; "
            f"{' and '.join(ends) or 'neither floor nor ceiling known'}",
            self.equation(),
        ]
        if not laws.params_exponent.ndim:
            lines.append(laws.equations().splitlines()[0])
        lines.append("budget       N_opt     R_opt    interval              highest of the sizes")
        for row in p.to_dict("records"):
            lines.append(
                f"{row['flops']:<9.3g} {row['params_opt']:>8.3g}  {row['mean_return']:>8.4g}    "
                f"[{row['lo']:.4g}, {row['hi']:.4g}]  {row['highest']:>12.4g} at "
                f"{row['highest_params']:.3g}"
            )
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """The optimum of every budget: `points`."""
        return self.points.copy()

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept.

        Raises
        ------
        FitError
            The metric is a pair of functions.
        """
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "profiles": self.profiles.to_dict(),
            "curve": self.curve.to_dict(),
            "metric": self.metric.to_dict(),
            "statistic": self.statistic,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "shift": self.shift,
            "rows": encode_frame(self.rows),
            "points": encode_frame(self.points),
            "level": self.level,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        plain = {k: v for k, v in data.items() if k not in ("kind", "method")}
        return cls(
            **plain
            | {
                "profiles": IsoflopFit.from_dict(data["profiles"]),
                "curve": CurveFit.from_dict(data["curve"]),
                "metric": Metric.from_dict(data["metric"]),
                "rows": decode_frame(data["rows"]),
                "points": decode_frame(data["points"]),
                "status": FitStatus(data["status"]),
                "messages": tuple(data["messages"]),
            }
        )

    def _kept(self) -> NDArray[np.bool_]:
        """Which budgets are points of the law."""
        return np.isin(self.profiles.profiles.budgets, self.points["flops"].to_numpy(dtype=float))
