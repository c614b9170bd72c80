"""The parametric frontier: a law y(N, D) fitted to all runs, and its optimum for every budget.

Hoffmann et al. 2022 (approach 3) fit L = E + A/N^alpha + B/D^beta by Huber's loss with a knee of
1e-3 on the residuals of log L; so does `fit_parametric(runs)`, to the optimum.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_array, decode_frame, encode_array, encode_frame
from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.parametric_findings import conclude, has_effect, summarise
from scaling_analysis.estimators.parametric_problem import (
    Problem,
    off_bounds,
    select_surface_rows,
    state_problem,
)
from scaling_analysis.estimators.selection import Target
from scaling_analysis.laws import frontier
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.forms import FORMS, Form, lift
from scaling_analysis.laws.surfaces import Space
from scaling_analysis.results import Result

Array = NDArray[np.float64]
Restarts = Literal["warm", "full"]

DELTA = 1e-3
"""Knee of Huber's loss in log space, as in Hoffmann et al. 2022."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class ParametricFit(Result):
    """A law of loss or return over N and D; a `FrontierFit`.

    `parameters` are those of a cost m that falls with N and D: the loss itself; for returns 1/R in
    log space and -R in linear space. `equation` says which.
    """

    _error = FitError

    form: str
    """Name of the law, see `fit_parametric`."""
    target: Target
    """"loss" [nats/action] or "mean_return" [points]."""
    size: str
    """The column of the run log that stands for N."""
    residual_space: Space
    """Whether residuals are of log y or of y."""
    delta: float
    """Knee of Huber's loss [log y or y]; inf is least squares."""
    restarts: Restarts
    """Where `refit` starts: from these parameters, or also from new seeds for each replicate."""
    selection: Mapping[str, Any]
    """The filters that were asked for: min_samples, where."""
    rows: pd.DataFrame
    """The rows fitted, in the order of the weights and responses of `refit`."""
    cost: Cost
    """FLOP a sample over N."""
    parameters: Mapping[str, Array]
    """By name, in natural units, () or (R,)."""
    objective: Array
    """Sum of Huber's losses at the optimum, () or (R,)."""
    sound: NDArray[np.bool_]
    """Converged, with enough sizes, no exponent on its bound and an optimum on the frontier."""
    standard_errors: Mapping[str, float]
    """Of the parameters and `params_exponent`, by the sandwich over runs; empty in replicates."""
    status: FitStatus
    """DOUBTFUL where one of the messages is a reason not to trust the numbers blindly."""
    messages: tuple[str, ...]
    """What a reader must know, reasons for doubt first."""

    @property
    def method(self) -> str:
        return f"parametric-{self.form}"

    @property
    def law(self) -> Form:
        """The form, with its mathematics."""
        return FORMS[self.form]

    @property
    def equation(self) -> str:
        """What is equal to what, in the words of `parameters`."""
        name, log_space = self.target, self.residual_space == "log"
        if self.form == "log_quadratic":
            left = f"log {name}" if log_space else name
            left = f"-{left}" if self.rising else left
        else:
            left = (f"1/{name}" if log_space else f"-{name}") if self.rising else name
        return f"{left} = {self.law.equation}"

    @property
    def rising(self) -> bool:
        """Whether more is better, as for returns."""
        return self.target == "mean_return"

    @property
    def params_exponent(self) -> Array:
        """a in N_opt ~ C^a; () or (R,).

        Where no cost constant holds, the mean exponent over the compute of the rows.
        """
        if self.cost.constant is not None:
            return self.law.params_exponent(self.parameters)
        ends = self.rows["flops"].min(), self.rows["flops"].max()
        log_n = np.log(self.params_opt(ends))
        return (log_n[..., 1] - log_n[..., 0]) / np.log(ends[1] / ends[0])

    def params_opt(self, flops: ArrayLike, unique_samples: float = np.inf) -> Array:
        """N_opt(C) [count]; NaN where the law has no optimum.

        `unique_samples` caps the distinct samples, for form="repeated".
        """
        c = np.asarray(flops, dtype=float)
        capped = self._capped(unique_samples)
        if self.cost.constant is not None and not capped:
            log_nd = np.log(c) - np.log(self.cost.constant)
            return np.exp(self.law.log_params_opt(lift(self.parameters, c.ndim), log_nd))
        p, log_u = lift(self.parameters, 1), np.log(unique_samples)
        log_n = frontier.log_params_opt(
            lambda n, d: np.atleast_2d(self.law.mu(p, n, d, log_u, self.residual_space)),
            lambda n, d: self.law.slopes(p, n, d, log_u)[0],
            lambda n, d: self.law.slopes(p, n, d, log_u)[1],
            np.log(c).ravel(),
            self.cost,
            max(1, self.objective.size),
        )
        return np.exp(log_n).reshape(self.objective.shape + c.shape)

    def samples_opt(self, flops: ArrayLike, unique_samples: float = np.inf) -> Array:
        """D_opt(C) [count], repetitions included."""
        return self.cost.samples(self.params_opt(flops, unique_samples), flops)

    def value_opt(self, flops: ArrayLike, unique_samples: float = np.inf) -> Array:
        """L_opt(C) [nats/action] or R_opt(C) [points]."""
        c = np.asarray(flops, dtype=float)
        n = self.params_opt(c, unique_samples)
        return self._value(n, self.cost.samples(n, c), unique_samples, c.ndim)

    def value(self, params: ArrayLike, flops: ArrayLike, unique_samples: float = np.inf) -> Array:
        """Expected loss or return of runs of N `params` on C `flops`, off the frontier too.

        The inputs broadcast. In a fit of R replicates, `params` of shape (R,) + that of `flops`,
        as `params_opt` gives them, belong to the replicates.
        """
        n, c = np.asarray(params, dtype=float), np.asarray(flops, dtype=float)
        own = self.objective.ndim == 1 and n.shape == self.objective.shape + c.shape
        ndim = c.ndim if own else max(n.ndim, c.ndim)
        self._capped(unique_samples)
        return self._value(n, self.cost.samples(n, c), unique_samples, ndim)

    def fitted_values(self) -> Array:
        """Expected loss or return of the rows, (rows,) or (R, rows)."""
        n, d = (self.rows[name].to_numpy(dtype=float) for name in ("params", "samples"))
        unique = np.exp(self._problem().rows.log_u)
        return self._value(n, d, unique, 1)

    def valid(self) -> NDArray[np.bool_]:
        return self.sound

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The law refitted to R sets of weights or of responses, (R, rows) or (rows,) each.

        `response` is loss or return itself, in either residual space. The parameters of the result
        have a leading axis R.
        """
        if self.objective.ndim:
            raise FitError("these are replicates already: refit the fit that they came from")
        count = len(self.rows)
        base = self.rows[self.target].to_numpy(dtype=float)
        w = np.atleast_2d(np.ones(count) if weights is None else np.asarray(weights, dtype=float))
        y = np.atleast_2d(base if response is None else np.asarray(response, dtype=float))
        for name, values in (("weights", w), ("response", y)):
            if values.shape[1:] != (count,) or len(values) not in (1, max(len(w), len(y))):
                raise FitError(f"{name} has shape {values.shape}, the fit {count} rows")
        if not (np.isfinite(w).all() and (w >= 0).all()):
            raise FitError("weights must be finite and not negative")
        possible = np.isfinite(y) & ((y > 0) | (self.residual_space == "linear"))
        problem = self._problem()
        found = problem.solve_warm(
            self.law.theta(self.parameters, problem.rows),
            np.where(possible, y, base),
            w,
            full=self.restarts == "full",
        )
        parameters = self.law.natural(found.theta, problem.rows)
        sound = found.converged & problem.determined(w) & (possible | (w == 0)).all(axis=1)
        sound &= np.isfinite(list(parameters.values())).all(axis=0)
        for name in self.law.exponents:
            sound &= off_bounds(parameters[name])
        fit = replace(
            self,
            parameters=parameters,
            objective=found.objective * problem.objective_unit,
            sound=sound,
            standard_errors={},
            status=FitStatus.OK,
            messages=(),
        )
        sound &= np.isfinite(fit.params_exponent)
        for name in ("params", "samples"):
            sound &= has_effect(fit, name)
        return replace(fit, sound=sound)

    def replicate(self, i: int) -> Self:
        """One replicate, without the leading axis."""
        return replace(
            self,
            parameters={name: np.asarray(v[i]) for name, v in self.parameters.items()},
            objective=np.asarray(self.objective[i]),
            sound=np.asarray(self.sound[i]),
        )

    def to_frame(self) -> pd.DataFrame:
        """Parameters and `params_exponent` of a single fit: value and standard_error by name."""
        values = {**self.parameters, "params_exponent": self.params_exponent}
        return pd.DataFrame(
            {
                "value": {name: float(v) for name, v in values.items()},
                "standard_error": {n: self.standard_errors.get(n, np.nan) for n in values},
            }
        ).rename_axis("parameter")

    def summary(self) -> str:
        """Status and messages first, then what was fitted to what, parameters and frontier."""
        return summarise(self)

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept."""
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "form": self.form,
            "target": self.target,
            "size": self.size,
            "residual_space": self.residual_space,
            "delta": None if np.isinf(self.delta) else self.delta,
            "restarts": self.restarts,
            "selection": dict(self.selection),
            "rows": encode_frame(self.rows),
            "cost": self.cost.to_dict(),
            "parameters": {name: encode_array(v) for name, v in self.parameters.items()},
            "objective": encode_array(self.objective),
            "sound": encode_array(self.sound),
            "standard_errors": {
                name: None if np.isnan(v) else v for name, v in self.standard_errors.items()
            },
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        return cls(
            form=data["form"],
            target=data["target"],
            size=data["size"],
            residual_space=data["residual_space"],
            delta=np.inf if data["delta"] is None else data["delta"],
            restarts=data["restarts"],
            selection=data["selection"],
            rows=decode_frame(data["rows"]),
            cost=Cost.from_dict(data["cost"]),
            parameters={name: decode_array(v) for name, v in data["parameters"].items()},
            objective=decode_array(data["objective"]),
            sound=decode_array(data["sound"]),
            standard_errors={
                name: np.nan if v is None else v for name, v in data["standard_errors"].items()
            },
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )

    def _capped(self, unique_samples: float) -> bool:
        capped = bool(np.isfinite(unique_samples))
        if capped and self.form != "repeated":
            raise FitError(
                f"form={self.form!r} does not know what repeated samples are worth: fit "
                "form='repeated' to runs of several epochs for a frontier under unique_samples"
            )
        return capped

    def _value(self, params: Array, samples: Array, unique_samples: ArrayLike, ndim: int) -> Array:
        p = lift(self.parameters, ndim)
        log_u = np.log(np.asarray(unique_samples, dtype=float))
        mu = self.law.mu(p, np.log(params), np.log(samples), log_u, self.residual_space)
        mu = -mu if self.rising else mu
        return np.exp(mu) if self.residual_space == "log" else mu

    def _problem(self) -> Problem:
        return state_problem(self.rows, self.form, self.target, self.residual_space, self.delta)


def fit_parametric(
    runs: pd.DataFrame,
    form: str = "additive",
    target: Target = "loss",
    size: str = "params",
    *,
    delta: float | None = None,
    residual_space: Space = "log",
    restarts: Restarts = "warm",
    min_samples: float | None = None,
    where: str | None = None,
    findings: bool = True,
) -> ParametricFit:
    """Fit a law y(N, D) to all rows of a run log by Huber's loss, and solve it for the frontier.

    Parameters
    ----------
    runs : DataFrame
        A run log.
    form : str
        "additive": E + A/N^alpha + B/D^beta (Hoffmann et al. 2022, approach 3). "tied": the same
        with one exponent (Gadre et al. 2024). "kaplan": Kaplan et al. 2020, without a floor.
        "log_quadratic": log y quadratic in log N and log D (Tuyls et al. 2023). "repeated":
        additive in the effective samples of Muennighoff et al. 2023, from `unique_samples`.
    target : "loss" or "mean_return"
        A return rises: the form then describes 1/R in log space and -R in linear space.
    size : str
        The column that stands for N, such as "params_core".
    delta : float, optional
        Knee of Huber's loss: 1e-3 in log space, inf (least squares) in linear space by default.
    residual_space : "log" or "linear"
        Residuals of log y, or of y where y need not be positive.
    restarts : "warm" or "full"
        Replicates start from this fit, and from seeds of their own where that fails; or always
        from both, and the best end counts.
    min_samples : float, optional
        Leave out rows of fewer samples: early training obeys no such law.
    where : str, optional
        Another filter, as for `DataFrame.query`.
    findings : bool
        Whether to look for what is fragile and for standard errors, which takes refits. A hindcast,
        which fits hundreds of times and reads the forecasts alone, does not.

    Returns
    -------
    ParametricFit
        `status` and `messages` say what is fragile.

    Raises
    ------
    FitError
        Too few sizes or rows, a response that has no logarithm, an exponent on its bound where the
        objective is flat, or no minimum of the surface along an isoFLOP line.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> n, d = np.tile(np.geomspace(1e6, 1e9, 5), 5), np.repeat(np.geomspace(1e8, 1e11, 5), 5)
    >>> loss = 1.7 + 400 / n**0.34 + 410 / d**0.28
    >>> runs = pd.DataFrame({"params": n, "samples": d, "flops": 6 * n * d, "loss": loss})
    >>> fit = fit_parametric(runs)
    >>> round(float(fit.params_exponent), 6)
    0.451613
    """
    if form not in FORMS:
        raise FitError(f"form is {form!r}: choose one of {', '.join(FORMS)}")
    if residual_space not in ("log", "linear"):
        raise FitError(f"residual_space is {residual_space!r}: choose 'log' or 'linear'")
    if restarts not in ("warm", "full"):
        raise FitError(f"restarts is {restarts!r}: choose 'warm' or 'full'")
    if form == "kaplan" and residual_space == "linear":
        raise FitError("form='kaplan' is fitted in log space: leave out residual_space='linear'")
    if delta is None:
        delta = DELTA if residual_space == "log" else np.inf
    if not delta > 0:
        raise FitError(f"delta is {delta!r}: the knee of Huber's loss must be positive")
    rows = select_surface_rows(runs, form, target, size, residual_space, min_samples, where)
    problem = state_problem(rows, form, target, residual_space, delta)
    ends = problem.solve_cold(rows[target].to_numpy(dtype=float))
    best = int(np.argmin(ends.objective))
    parameters = problem.form.natural(ends.theta[best : best + 1], problem.rows)
    chosen = {"min_samples": min_samples, "where": where}
    fit = ParametricFit(
        form=form,
        target=target,
        size=size,
        residual_space=residual_space,
        delta=float(delta),
        restarts=restarts,
        selection={name: value for name, value in chosen.items() if value is not None},
        rows=rows,
        cost=fit_cost(rows["params"], rows["samples"], rows["flops"]),
        parameters={name: value[0] for name, value in parameters.items()},
        objective=np.asarray(ends.objective[best] * problem.objective_unit),
        sound=np.asarray(ends.converged[best]),
        standard_errors={},
        status=FitStatus.OK,
        messages=(),
    )
    return conclude(fit, problem, ends, findings)
