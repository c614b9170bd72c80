"""What a log taught: fitted methods, their hindcast and the noise of runs, asked for any run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ForecastError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.estimators.protocol import FrontierFit
from scaling_analysis.forecasting.bounds import Bounds
from scaling_analysis.forecasting.combination import (
    Widening,
    combine,
    fit_widening,
    log_horizon,
    method_weights,
)
from scaling_analysis.forecasting.members import BASELINES, FitQuantity, log_forecast
from scaling_analysis.forecasting.observation import Noise
from scaling_analysis.forecasting.questions import check_level, paired
from scaling_analysis.forecasting.scores import COMBINED, PRIOR_SCALE, Hindcast
from scaling_analysis.forecasting.through_link import LINK, link_forecast
from scaling_analysis.laws.cost import Cost
from scaling_analysis.uncertainty.intervals import student_quantile

Array = NDArray[np.float64]

_OF_MEMBER: dict[str, FitQuantity] = {
    "params_opt": "params_opt",
    "loss_opt": "value_opt",
    "loss": "value",
    "mean_return_opt": "value_opt",
    "mean_return": "value",
}


class Prediction(NamedTuple):
    """A t distribution, elementwise, of the log of a quantity or of z between known bounds."""

    centre: Array
    sd: Array
    """Scale."""
    dof: Array
    """Degrees of freedom."""
    bounds: Bounds | None = None
    """Bounds whose z (see `Bounds`) is distributed so; None: the log is."""

    @property
    def log(self) -> Array:
        """Log of the forecast."""
        return self._log(self.centre)

    def interval(self, level: float) -> tuple[Array, Array]:
        """Ends of the central interval of `level`, in the quantity's own unit."""
        half = student_quantile(level, self.dof) * self.sd
        return np.exp(self._log(self.centre - half)), np.exp(self._log(self.centre + half))

    def run_interval(self, level: float, sd: float, dof: float) -> tuple[Array, Array]:
        """The same with independent noise of `sd` and `dof` in the log of the quantity.

        Degrees of freedom are added by Welch and Satterthwaite. Bounds are those of what is
        expected: each side keeps its own width, and passes a bound by no more than noise does.
        """
        half = student_quantile(level, self.dof)
        ends = []
        for side in (-1.0, 1.0):
            law = self.sd**2
            if self.bounds is not None:
                law = ((self._log(self.centre + side * half * self.sd) - self.log) / half) ** 2
            noise = np.full_like(law, sd**2)
            with np.errstate(invalid="ignore", divide="ignore"):
                both = (law + noise) ** 2 / (law**2 / self.dof + noise**2 / dof)
            freedom = np.where(law + noise > 0, both, self.dof)
            away = student_quantile(level, freedom) * np.sqrt(law + noise)
            ends.append(np.exp(self.log + side * away))
        return ends[0], ends[1]

    def falls_short(self, log_value: float, sign: float = 1.0) -> Array:
        """Probability that the log of the quantity is below `log_value`; above, with sign -1."""
        from scipy.special import stdtr

        at = np.asarray(log_value)
        if self.bounds is not None:
            at = self.bounds.enter_or_end(log_value)
        with np.errstate(divide="ignore"):
            return stdtr(self.dof, sign * (at - self.centre) / self.sd)

    def _log(self, value: Array) -> Array:
        return value if self.bounds is None else self.bounds.leave(value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ensemble:
    """All methods fitted to one log, and how to weigh, average and widen them."""

    losses: Mapping[str, Bootstrap]
    """Bootstraps of the methods for the loss, baselines included."""
    returns: Mapping[str, Bootstrap]
    """The same for the mean return as a function of compute."""
    link: Bootstrap | None
    """Link from loss to return, where the log has both."""
    hindcast: Hindcast | None
    """None where the log has too few budgets."""
    noise: Mapping[str, Noise]
    """Noise of a run, by target."""
    trends: Mapping[str, float]
    """Change of the log value that a factor e of compute has brought, by target."""
    flops_max: float
    """Largest compute (nominal budget, if there is one) fitted [FLOP]."""
    cost: Cost
    """FLOP a sample by size."""
    bounds: Bounds | None = None
    """Floor and ceiling of the return: its forecasts are averaged and widened as z between them
    (see `Bounds`). None, in logs, where the link knows none and in forecasts of older versions."""

    @property
    def target(self) -> str:
        """What the optimum is an optimum of: the loss, or the mean return of a log without it."""
        return "loss" if self.losses else "mean_return"

    def methods(self, quantity: str) -> list[str]:
        """Methods that are averaged for a quantity."""
        fitted = self.fitted(quantity)
        names = [name for name in fitted if name not in BASELINES]
        linked = self.link is not None and quantity.startswith("mean_return")
        return [*names, LINK] if linked else names

    def predict(
        self,
        quantity: str,
        flops: ArrayLike,
        params: ArrayLike | None = None,
        method: str = COMBINED,
    ) -> Prediction:
        """Expected N_opt, loss or mean return, with the law's own error.

        Parameters
        ----------
        quantity : str
            One of `scores.QUANTITIES`.
        flops, params : array_like, shape (K,)
            C [FLOP]; N [count], only for "loss" and "mean_return".
        method : str
            A method, a baseline, the link, or the average of the methods.
        """
        c = np.atleast_1d(np.asarray(flops, dtype=np.float64))
        n = None if params is None else np.broadcast_to(np.asarray(params, np.float64), c.shape)
        if method == COMBINED:
            mean, base = self._average(quantity, c, n)
        else:
            mean, base = self.point(quantity, c, n, method)
        widening = self.widening(quantity, method)
        sd = widening.sd(base, log_horizon(c, self.flops_max), self.trend(quantity))
        return Prediction(mean, sd, np.full(c.shape, widening.dof), self._bounds(quantity))

    def weights(self, quantity: str, flops: float) -> dict[str, float]:
        """Weight of each averaged method in the forecast of a quantity at C `flops`."""
        c = np.array([flops])
        n = None
        if _OF_MEMBER[quantity] == "value":
            n = np.exp(self.predict("params_opt", c).log)
        names = self.methods(quantity)
        spread = np.array([self.point(quantity, c, n, name)[1] for name in names])
        return dict(zip(names, self._weights(quantity, spread, flops)[:, 0].tolist(), strict=True))

    def widening(self, quantity: str, method: str) -> Widening:
        """Law error of a method, from the hindcast or, without one, from the prior alone."""
        if self.hindcast is None:
            return fit_widening([], [], [], [], [], PRIOR_SCALE[quantity])
        return self.hindcast.widening(quantity, method)

    def trend(self, quantity: str) -> float:
        """The unit of a quantity's law error (see `trend_until`)."""
        return 1.0 if quantity == "params_opt" else self.trends[quantity.removesuffix("_opt")]

    def point(
        self, quantity: str, flops: Array, params: Array | None, method: str
    ) -> tuple[Array, Array]:
        """Forecast of one method and its spread before widening, in logs or as z."""
        if method == LINK:
            if self.link is None:
                raise ForecastError("the log has no link from loss to return: it needs both")
            loss = self.predict(quantity.replace("mean_return", "loss"), flops, params)
            return link_forecast(self.link, loss.log, loss.sd, self.bounds)
        fitted = self.fitted(quantity)
        if method not in fitted:
            raise ForecastError(
                f"method {method!r} does not forecast {quantity}; choose among "
                f"{', '.join([COMBINED, *self.methods(quantity), *BASELINES])}"
            )
        log, spread = log_forecast(fitted[method], _OF_MEMBER[quantity], flops, params)
        bounds = self._bounds(quantity)
        return (log, spread) if bounds is None else bounds.bend(log, spread)

    def _bounds(self, quantity: str) -> Bounds | None:
        return self.bounds if quantity.startswith("mean_return") else None

    def _average(self, quantity: str, flops: Array, params: Array | None) -> tuple[Array, Array]:
        found = [self.point(quantity, flops, params, name) for name in self.methods(quantity)]
        points, spreads = (np.array(part) for part in zip(*found, strict=True))
        weights = np.empty_like(spreads)
        for c in np.unique(flops):
            at = flops == c
            weights[:, at] = self._weights(quantity, spreads[:, at], float(c))
        return combine(points, spreads, weights)

    def _weights(self, quantity: str, spreads: Array, flops: float) -> Array:
        """(methods, targets); N_opt that no origin judged is weighed as the value at it is.

        By the bootstrap alone the form with the fewest exponents would win: the stiffest one.
        """
        names = self.methods(quantity)
        if quantity == "params_opt" and self.hindcast and not self.hindcast.judges(quantity):
            of_value, at = f"{self.target}_opt", np.array([flops])
            value = np.array([self.point(of_value, at, None, name)[1] for name in names])
            if np.isfinite(value).all():  # a law of returns may end before, while N_opt goes on
                quantity, spreads = of_value, np.where(np.isfinite(spreads), value, np.nan)
        if self.hindcast is None:
            horizon = float(log_horizon(flops, self.flops_max))
            prior = self.widening(quantity, COMBINED)
            prior_sd = float(prior.law_sd(horizon, self.trend(quantity)))
            none = np.empty((len(names), 0))
            return method_weights(none, [], [], horizon, spreads, prior_sd)
        return self.hindcast.weights(quantity, names, flops / self.flops_max, spreads)

    def forecasts(self, quantity: str, method: str) -> bool:
        """Whether a method, a baseline, the link or the average forecasts a quantity."""
        if method == COMBINED:
            return bool(self.methods(quantity))
        return method in self.methods(quantity) or method in self.fitted(quantity)

    def known(self, quantity: str) -> list[str]:
        """What forecasts a quantity: the average, methods and baselines."""
        names = [COMBINED, *self.methods(quantity), *BASELINES]
        return [name for name in names if self.forecasts(quantity, name)]

    def fitted(self, quantity: str) -> Mapping[str, Bootstrap]:
        """The bootstraps that forecast a quantity, baselines included."""
        if quantity == "params_opt":
            return self.losses or self.returns
        return self.losses if quantity.startswith("loss") else self.returns

    def draws(
        self, quantity: str, flops: float, of: Callable[[FrontierFit], ArrayLike]
    ) -> tuple[Array, Array]:
        """Any function of a fit over all replicates of all averaged methods, and their weights.

        A method's replicates share the weight that it has in the forecast of `quantity` at C
        `flops`. Quantiles of the draws hold sampling error and the disagreement of methods, not the
        hindcast's widening.
        """
        fitted = self.fitted(quantity)
        values, weights = [], []
        for name, weight in self.weights(quantity, flops).items():
            if name in fitted and weight > 0:
                own = np.asarray(of(fitted[name].replicates), dtype=np.float64)
                own = own[fitted[name].valid]
                values.append(own)
                weights.append(np.full(len(own), weight / len(own)))
        w = np.concatenate(weights)
        return np.concatenate(values), w / w.sum()

    def to_dict(self) -> dict[str, Any]:
        return {
            "losses": {name: b.to_dict() for name, b in self.losses.items()},
            "returns": {name: b.to_dict() for name, b in self.returns.items()},
            "link": None if self.link is None else self.link.to_dict(),
            "hindcast": None if self.hindcast is None else self.hindcast.to_dict(),
            "noise": {t: {"sd": n.sd, "dof": n.dof} for t, n in self.noise.items()},
            "trends": dict(self.trends),
            "flops_max": self.flops_max,
            "cost": self.cost.to_dict(),
            **({} if self.bounds is None else {"bounds": self.bounds.to_dict()}),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        link, past, bounds = data["link"], data["hindcast"], data.get("bounds")
        return cls(
            losses={name: Bootstrap.from_dict(b) for name, b in data["losses"].items()},
            returns={name: Bootstrap.from_dict(b) for name, b in data["returns"].items()},
            link=None if link is None else Bootstrap.from_dict(link),
            hindcast=None if past is None else Hindcast.from_dict(past),
            noise={t: Noise(**n) for t, n in data["noise"].items()},
            trends=data["trends"],
            flops_max=data["flops_max"],
            cost=Cost.from_dict(data["cost"]),
            bounds=None if bounds is None else Bounds.from_dict(bounds),
        )


def run_table(
    ensemble: Ensemble,
    params: ArrayLike,
    flops: ArrayLike,
    level: float,
    method: str = COMBINED,
    runs: int = 1,
) -> pd.DataFrame:
    """Forecast of runs of N `params` on C `flops`, with the intervals of the law and of new runs.

    Returns
    -------
    DataFrame
        params, flops, and for loss and mean_return, where the log has them and the method forecasts
        them: the expected value, _lo and _hi (expectation), _run_lo and _run_hi (mean of `runs` new
        runs).
    """
    c, n = paired(flops, params)
    check_level(level)
    if not runs >= 1:
        raise ForecastError(f"runs={runs!r}: the mean of one new run or of more")
    known = {name for t in ("loss", "mean_return") for name in ensemble.known(t)}
    if method not in known:
        raise ForecastError(
            f"method {method!r} is unknown: choose among {', '.join(sorted(known))}"
        )
    table = {"params": n, "flops": c}
    for target in ("loss", "mean_return"):
        if target in ensemble.noise and ensemble.forecasts(target, method):
            law = ensemble.predict(target, c, n, method)
            table |= value_columns(target, law, ensemble, level, runs)
    return pd.DataFrame(table)


def value_columns(
    target: str, law: Prediction, ensemble: Ensemble, level: float, runs: int = 1
) -> dict[str, Array]:
    """Columns of a value, its interval, and the interval of the mean of new runs.

    Noise that is better known than the law adds degrees of freedom, so that the interval of a run
    can come out the narrower one. It then serves for the expected value too: independent noise only
    takes probability from an interval about the centre (Anderson 1955), so that one which holds a
    run holds what is expected of it.
    """
    noise = ensemble.noise[target]
    lo, hi = law.interval(level)
    run_lo, run_hi = law.run_interval(level, noise.sd / np.sqrt(runs), noise.dof)
    lo, hi = np.fmax(lo, run_lo), np.fmin(hi, run_hi)
    return {
        target: np.exp(law.log),
        f"{target}_lo": lo,
        f"{target}_hi": hi,
        f"{target}_run_lo": run_lo,
        f"{target}_run_hi": run_hi,
    }
