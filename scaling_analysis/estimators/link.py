"""The link between loss and return: what an agent of a given loss scores."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.frontier import ols_table
from scaling_analysis.laws.monotone import interpolate, isotonic_falling
from scaling_analysis.laws.power import fit_power, fit_power_floor
from scaling_analysis.laws.profiles import slice_optima
from scaling_analysis.results import Result

Array = NDArray[np.float64]
Form = Literal["power", "inverse", "logistic", "monotone"]
Points = Literal["rows", "optimum"]

_PARAMETERS = {"power": 2, "inverse": 3, "logistic": 2, "monotone": 4}
_ARRAYS = ("log_scale", "exponent", "offset", "knot_log_loss", "knot_values", "spread")
_PRIOR = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ReturnLink(Result):
    """Return R as a falling function of the loss L; parameters are () or, for replicates, (R,).

    With the floor r (random agent) and the ceiling t (expert):
    "power" R = r + s L^-p; "inverse" R = r + (a L^g + b)^-1; "logistic" R = r + (t - r) / (1 + a
    L^g); "monotone" a falling sequence of knots, constant beyond them.
    """

    _error = FitError

    form: Form
    """Which of the forms was fitted."""
    points: Points
    """"rows": all rows; "optimum": the size of lowest loss at every budget."""
    floor: float
    """r [points], the return of an agent that knows nothing."""
    ceiling: float | None
    """t [points], the return that cannot be exceeded; needed by "logistic"."""
    rows: pd.DataFrame
    """The fitted rows of the run log, in the order of `weights` and `response`."""
    log_scale: Array
    """log s, or log a."""
    exponent: Array
    """p, or g; positive."""
    offset: Array
    """b of the inverse form [1/points]; 0 otherwise."""
    knot_log_loss: Array
    """(K,) log L of the knots of "monotone", increasing."""
    knot_values: Array
    """(K,) or (R, K) transformed return at the knots."""
    spread: Array
    """Standard deviation of a row around the link, in the transformed return; see `residual_space`.
    It carries the degrees of freedom of the fit."""
    loss_range: tuple[float, float]
    """Smallest and largest loss that was fitted: beyond, the link is an extrapolation."""
    status: FitStatus
    messages: tuple[str, ...]

    @property
    def target(self) -> str:
        """What the link predicts."""
        return "mean_return"

    @property
    def method(self) -> str:
        """Name with the options that change the answer."""
        return f"link-{self.form}{'-optimum' if self.points == 'optimum' else ''}"

    @property
    def residual_space(self) -> str:
        """Space of residuals and `spread`: "logit" between floor and ceiling, "log" above the
        floor, or "linear" (monotone, with returns at or below the floor)."""
        if self.form == "logistic":
            return "logit"
        above = self.rows["mean_return"].to_numpy(dtype=float) > self.floor
        return "log" if bool(above.all()) or self.form != "monotone" else "linear"

    def predict(self, loss: ArrayLike, paired: bool = False) -> Array:
        """Expected return [points] of agents of these losses.

        Parameters
        ----------
        loss : array_like
            L [nats/action].
        paired : bool
            In a fit of R replicates, whether the leading axis of `loss` is that of the replicates.
            Otherwise every replicate predicts all of `loss`.

        Returns
        -------
        The shape of `loss`, with R in front for replicates that are not paired.
        """
        return self.untransform(self._transformed(np.log(np.asarray(loss, dtype=float)), paired))

    def transform(self, returns: ArrayLike) -> Array:
        """Returns in the space of the residuals."""
        y = np.asarray(returns, dtype=float)
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.residual_space == "logit":
                return np.log((y - self.floor) / (_given(self.ceiling) - y))
            return np.log(y - self.floor) if self.residual_space == "log" else y

    def untransform(self, values: ArrayLike) -> Array:
        """The inverse of `transform`: for predictions with noise added in the residual space."""
        v = np.asarray(values, dtype=float)
        if self.residual_space == "logit":
            return self.floor + (_given(self.ceiling) - self.floor) / (1 + np.exp(-v))
        return self.floor + np.exp(v) if self.residual_space == "log" else v

    def fitted_values(self) -> Array:
        """Expected return of every fitted row: (rows,) or (R, rows)."""
        return self.predict(self.rows["loss"].to_numpy(dtype=float))

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a valid fit: finite, and falling with the loss; () or (R,)."""
        finite = np.isfinite(self.log_scale) & np.isfinite(self.offset) & np.isfinite(self.exponent)
        if self.form == "monotone":
            return finite & np.isfinite(self.knot_values).all(axis=-1)
        return finite & (self.exponent > 0)

    def refit(
        self,
        weights: ArrayLike | None = None,
        response: ArrayLike | None = None,
        loss: ArrayLike | None = None,
    ) -> Self:
        """The same link for R sets of weights, of returns or of losses, each (R, rows)."""
        n = len(self.rows)
        given = {"weights": weights, "response": response, "loss": loss}
        if all(v is None for v in given.values()):
            raise ValueError("refit needs weights, responses or losses, each of shape (R, rows)")
        columns = {"weights": np.ones(n), "response": self._column("mean_return")}
        columns["loss"] = self._column("loss")
        arrays = {
            name: columns[name][None] if v is None else np.asarray(v, dtype=float)
            for name, v in given.items()
        }
        for name, values in arrays.items():
            if values.ndim != 2 or values.shape[1] != n:
                raise ValueError(f"{name} has shape {values.shape}, not (R, {n})")
        count = max(len(v) for v in arrays.values())
        full = {name: np.broadcast_to(v, (count, n)) for name, v in arrays.items()}
        log_loss, returns, w = self._points(full["loss"], full["response"], full["weights"])
        y = self.transform(returns)
        w = np.where(np.isfinite(y), w, 0.0)
        y = np.where(w > 0, y, 0.0)
        nothing = np.zeros(count)
        if self.form == "monotone":
            fit = replace(
                self,
                log_scale=nothing,
                exponent=nothing,
                offset=nothing,
                knot_values=self._knots(log_loss, y, w),
            )
        elif self.form == "inverse":
            log_a, g, b = fit_power_floor(log_loss, -y, w)
            fit = replace(self, log_scale=log_a, exponent=g, offset=b)
        else:
            intercept, slope = fit_power(log_loss, y, w)
            scale = -intercept if self.form == "logistic" else intercept
            fit = replace(self, log_scale=scale, exponent=-slope, offset=nothing)
        residual = np.where(w > 0, y - fit._transformed(log_loss, paired=True), 0.0)
        present = (w > 0).sum(axis=1)
        freedom = np.maximum(present - _PARAMETERS[self.form], 1)
        share = w / np.where(w.sum(axis=1, keepdims=True) > 0, w.sum(axis=1, keepdims=True), 1.0)
        spread = np.sqrt((share * residual**2).sum(axis=1) * present / freedom)
        return replace(fit, spread=spread)

    def ols_table(self, level: float = 0.95) -> pd.DataFrame:
        """Line of log(R - floor) on log(1/L) at the fitted points, with its textbook interval."""
        loss, returns = self._column("loss")[None], self._column("mean_return")[None]
        log_loss, returns, _ = self._points(loss, returns, np.ones_like(loss))
        return ols_table(np.exp(-log_loss[0]), {"return": returns[0] - self.floor}, level)

    def equation(self) -> str:
        """The law with its numbers."""
        r, a, p = self.floor, float(np.exp(self.log_scale)), float(self.exponent)
        if self.form == "power":
            return f"R = {r:g} + {a:.5g} L^-{p:.4f}"
        if self.form == "inverse":
            return f"R = {r:g} + ({a:.4g} L^{p:.4f} + {float(self.offset):.4g})^-1"
        if self.form == "logistic":
            return f"R = {r:g} + {_given(self.ceiling) - r:g} / (1 + {a:.4g} L^{p:.4f})"
        return f"R falls along {len(self.knot_log_loss)} knots"

    def summary(self) -> str:
        """Status and messages first, then the law."""
        lo, hi = self.loss_range
        return "\n".join(
            [
                f"{self.method} of mean_return on loss: {self.status}",
                *(f"  - {message}" for message in self.messages),
                f"{len(self.rows)} rows of {self.rows['run_id'].nunique()} runs, loss {lo:.4g} to "
                f"{hi:.4g}",
                self.equation(),
                f"spread of a row around it: {float(self.spread):.3g} "
                f"({self.residual_space} return)",
            ]
        )

    def to_frame(self) -> pd.DataFrame:
        """One row a fitted row: run_id, loss, mean_return and what the link expects, `fitted`."""
        return self.rows[["run_id", "loss", "mean_return"]].assign(fitted=self.fitted_values())

    def to_dict(self) -> dict[str, Any]:
        """The link as JSON types; a replicate axis is kept."""
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "form": self.form,
            "points": self.points,
            "floor": self.floor,
            "ceiling": self.ceiling,
            "rows": encode_frame(self.rows),
            **{name: encode_array(getattr(self, name)) for name in _ARRAYS},
            "loss_range": list(self.loss_range),
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The link that `to_dict` wrote."""
        return cls(
            form=data["form"],
            points=data["points"],
            floor=data["floor"],
            ceiling=data["ceiling"],
            rows=decode_frame(data["rows"]),
            **{name: decode_array(data[name]) for name in _ARRAYS},
            loss_range=(data["loss_range"][0], data["loss_range"][1]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )

    def replicate(self, i: int) -> Self:
        """One replicate, without the leading axis."""
        names = [name for name in _ARRAYS if name != "knot_log_loss"]
        if self.form != "monotone":
            names.remove("knot_values")
        return replace(self, **{name: np.asarray(getattr(self, name)[i]) for name in names})

    def _column(self, name: str) -> Array:
        return self.rows[name].to_numpy(dtype=float)

    def _transformed(self, log_loss: Array, paired: bool) -> Array:
        """Expected return in the residual space."""
        if self.form == "monotone":
            return interpolate(self.knot_log_loss, self.knot_values, log_loss, paired=paired)
        extra = log_loss.ndim - (1 if paired else 0)
        scale, exponent, offset = (
            v.reshape(v.shape + (1,) * extra) for v in (self.log_scale, self.exponent, self.offset)
        )
        if self.form == "power":
            return scale - exponent * log_loss
        falling = scale + exponent * log_loss
        return -falling if self.form == "logistic" else -np.log(np.exp(falling) + offset)

    def _points(self, loss: Array, returns: Array, weights: Array) -> tuple[Array, Array, Array]:
        """Log loss, return and weight (R, points) of what the link goes through."""
        if self.points == "rows":
            return np.log(loss), returns, weights
        budget, log_n = self._column("budget"), np.log(self._column("params"))
        episodes = np.ones(len(budget))
        if "episodes" in self.rows and (self.rows["episodes"] > 0).all():
            episodes = self._column("episodes")
        found = []
        for c in np.unique(budget):
            at = np.flatnonzero(budget == c)
            sizes, cell = np.unique(log_n[at], return_inverse=True)
            best = slice_optima(
                sizes,
                cell,
                loss[:, at],
                weights[:, at],
                np.ones(len(at)),
                optimum="grid",
                maximise=False,
                log_space=False,
                window=None,
            )
            pool = weights[:, at] * episodes[at] * (cell == best.cell[:, None])
            with np.errstate(invalid="ignore"):
                pooled = (pool * returns[:, at]).sum(axis=1) / pool.sum(axis=1)
            found.append((np.log(best.value), pooled))
        log_loss, mean = (np.stack(column, axis=1) for column in zip(*found, strict=True))
        known = np.isfinite(log_loss) & np.isfinite(mean)
        return np.where(known, log_loss, 0.0), np.where(known, mean, np.nan), known.astype(float)

    def _knots(self, log_loss: Array, y: Array, w: Array) -> Array:
        """(R, K) falling values at the knots, each the weighted mean of the rows nearest to it."""
        nearest = np.abs(log_loss[0][:, None] - self.knot_log_loss).argmin(axis=1)
        member = np.eye(len(self.knot_log_loss))[nearest]
        mass = w @ member
        mean = (w * y) @ member / np.where(mass > 0, mass, 1.0)
        # A knot without rows in a replicate takes the value of the next one at a lower loss, or of
        # the first one with rows, at a whisper of a weight.
        place = np.where(mass > 0, np.arange(mass.shape[1]), -1)
        source = np.maximum.accumulate(place, axis=1)
        source = np.where(source < 0, (mass > 0).argmax(axis=1)[:, None], source)
        mean = np.take_along_axis(mean, source, axis=1)
        return isotonic_falling(mean, np.maximum(mass, _PRIOR))


def _given(ceiling: float | None) -> float:
    """The ceiling of a logistic link, which always has one."""
    if ceiling is None:
        raise FitError("this link has no ceiling")
    return ceiling
