"""IsoFLOP profiles: the best size of every budget, and the power laws through them.

Approach 2 of Hoffmann et al. 2022 ("Training Compute-Optimal Large Language Models"); the raw grid
optimum is the recipe of Tuyls et al. 2023 ("Scaling Laws for Imitation Learning in Single-Agent
Games").
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.frontier import (
    MIN_POINTS,
    FrontierLaws,
    ValueLaw,
    choose_value_law,
    fit_frontier_laws,
    ols_table,
)
from scaling_analysis.estimators.selection import Target, select_rows
from scaling_analysis.estimators.slices import Profiles, Slices, Space, Weighting
from scaling_analysis.laws.cost import Cost, fit_cost
from scaling_analysis.laws.profiles import Optimum, SliceState
from scaling_analysis.results import Result

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class IsoflopFit(Result):
    """IsoFLOP profiles and the frontier through their optima.

    The replicates of a bootstrap are the same class; `slices` and `laws` then have a leading axis
    R, and so has what the methods return.
    """

    _error = FitError

    profiles: Profiles
    """The fitted rows and the way their optima are read."""
    slices: Slices
    """The optimum of every budget."""
    laws: FrontierLaws
    """N_opt(C), D_opt(C), L_opt(C) or R_opt(C), and the curvature of the profiles over C."""
    status: FitStatus
    """`DOUBTFUL` where a message undermines the exponents."""
    messages: tuple[str, ...]
    """What a reader has to know before using the numbers."""

    @property
    def method(self) -> str:
        """Name with the options that change the answer, such as "isoflop-vertex-log-5"."""
        p = self.profiles
        parts = ["isoflop", p.optimum]
        parts += ["log"] if p.space == "log" and p.optimum != "grid" else []
        parts += [str(p.window)] if p.window is not None and p.optimum != "grid" else []
        return "-".join(parts)

    @property
    def target(self) -> Target:
        """ "loss" [nats/action] or "mean_return" [points]."""
        return self.profiles.target

    @property
    def rows(self) -> pd.DataFrame:
        """The fitted rows of the run log, in the order of `weights` and `response`."""
        return self.profiles.rows

    @property
    def cost(self) -> Cost:
        """FLOP a sample over N."""
        return self.profiles.cost

    @property
    def residual_space(self) -> str:
        """ "log" or "linear": the space in which residuals were taken."""
        return self.profiles.space

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The same profiles and laws for R sets of weights or of responses.

        Parameters
        ----------
        weights : array_like, shape (R, rows), optional
            Multiply the weights of the rows; a row of weight zero is absent.
        response : array_like, shape (R, rows), optional
            Replace the target, in its own unit.

        Returns
        -------
        IsoflopFit
            Slices without an optimum drop out of their replicate; `valid()` is False where fewer
            than three are left. The form of the value law stays.
        """
        if weights is None and response is None:
            raise ValueError("refit needs weights, responses or both, each of shape (R, rows)")
        slices = self.profiles.optima(weights, response)
        laws = _through(self.profiles, slices, self.laws.value_form)
        return replace(self, slices=slices, laws=laws)

    def fitted_values(self) -> Array:
        """Expected loss or return of the fitted rows, off their profiles: (rows,) or (R, rows)."""
        return self.slices.fitted

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
        """Expected loss or return of runs of N `params` on C `flops`, by the profiles' curvature.

        To second order around the optimum; far from it a surface is the better guide. The inputs
        broadcast; `params` of shape (R,) + that of `flops` belong to the replicates.
        """
        return self.laws.value(params, flops)

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a valid fit: () or (R,)."""
        return self.laws.valid()

    def ols_table(self, level: float = 0.95) -> pd.DataFrame:
        """Lines of log N, log D and log y at the optima on log C, with textbook intervals.

        The table of the papers: rows N_opt, D_opt and L_opt or R_opt; columns intercept, slope,
        slope_lo, slope_hi, r2, points; natural logs, C in FLOP. The interval takes the optima as
        independent and exact; `bootstrap` does not.
        """
        columns = {
            "N_opt": self.slices.params,
            "D_opt": self.slices.samples,
            "L_opt" if self.target == "loss" else "R_opt": self.slices.value,
        }
        return ols_table(self.profiles.budgets, columns, level)

    def summary(self) -> str:
        """Status and messages first, then the laws and the optima behind them."""
        from scaling_analysis.estimators.isoflop_findings import summarise

        return summarise(self)

    def to_frame(self) -> pd.DataFrame:
        """One row a budget: flops, params_opt, samples_opt, value_opt (NaN without one), state."""
        return pd.DataFrame(
            {
                "flops": self.profiles.budgets,
                "params_opt": self.slices.params,
                "samples_opt": self.slices.samples,
                "value_opt": self.slices.value,
                "state": [SliceState(state).name.lower() for state in self.slices.state],
            }
        )

    def to_dict(self) -> dict[str, Any]:
        """The fit as JSON types; a replicate axis is kept."""
        return {
            "kind": type(self).__name__,
            "method": self.method,
            "profiles": self.profiles.to_dict(),
            "slices": self.slices.to_dict(),
            "laws": self.laws.to_dict(),
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The fit that `to_dict` wrote."""
        return cls(
            profiles=Profiles.from_dict(data["profiles"]),
            slices=Slices.from_dict(data["slices"]),
            laws=FrontierLaws.from_dict(data["laws"]),
            status=FitStatus(data["status"]),
            messages=tuple(data["messages"]),
        )


def fit_isoflop(
    runs: pd.DataFrame,
    target: Target = "loss",
    *,
    optimum: Optimum = "vertex",
    space: Space = "linear",
    window: int | None = 5,
    value_law: ValueLaw = "auto",
    weighting: Weighting = "equal",
    size: str = "params",
    findings: bool = True,
) -> IsoflopFit:
    """Best size of every budget by a polynomial in log N, then power laws through the optima.

    Parameters
    ----------
    runs : DataFrame
        A run log with `budget`. Choose the budgets beforehand, `runs[runs.budget >= 1e15]`.
    target : "loss" or "mean_return"
        Minima of the loss, or maxima of the return.
    optimum : "vertex", "cubic" or "grid"
        Vertex of a parabola; interior optimum of a cubic (a parabola's N_opt is off by up to 30 %
        on an asymmetric surface, a cubic's by 1 %); or the best size as it was run: losses are
        averaged over the runs of one size, returns pooled over them by episodes. The grid keeps
        optima at the end of a profile, the other two drop such a slice.
    space : "linear" or "log"
        Fit the polynomial to y or to log y.
    window : int or None
        Use this many sizes around the best one of each budget, at least three, four for a cubic;
        None for the whole profile. A parabola through sizes far from the optimum is biased, and
        its value at the vertex more than its place: on the NetHack log of Tuyls et al. 2023 the
        whole profile leaves R2 = .37 for the law of the loss, five sizes .96.
    value_law : "power", "floor" (loss), "inverse" (return) or "auto"
        Law of the value at the optimum over C. "auto" decides by forecasting later budgets from
        earlier ones. A pure power law forecasts too low a loss where the floor matters.
    weighting : "equal" or "se"
        Weight rows equally or by the inverse square of `loss_se` or `return_se`.
    size : str
        The column that stands for N.
    findings : bool
        Whether to look for what is fragile, which takes refits.

    Returns
    -------
    IsoflopFit

    Raises
    ------
    FitError
        Fewer than three budgets have an optimum; the message says of each why not.

    Examples
    --------
    >>> import numpy as np, pandas as pd
    >>> c, n = (a.ravel() for a in np.meshgrid([1e15, 1e16, 1e17], np.geomspace(1e5, 1e8, 7)))
    >>> loss = 40 * c**-0.1 + 0.01 * np.log(n / (2 * c**0.4)) ** 2
    >>> runs = pd.DataFrame({"params": n, "samples": c / (6 * n), "flops": c, "budget": c,
    ...                      "loss": loss})
    >>> fit = fit_isoflop(runs, value_law="power")
    >>> round(fit.laws.params_exponent.item(), 9), round(fit.laws.value_exponent.item(), 9)
    (0.4, -0.1)
    """
    rows = select_rows(runs, target, needs=("params", "samples", "flops", "budget"), size=size)
    profiles = Profiles(
        target=target,
        optimum=optimum,
        space=space,
        window=window,
        weighting=weighting,
        rows=rows,
        budgets=np.unique(rows["budget"].to_numpy(dtype=float)),
        cost=fit_cost(rows["params"], rows["samples"], rows["flops"]),
    )
    slices = profiles.optima()
    _check(profiles, slices.replicate(0))
    found = slices.state[0] == SliceState.OK
    form, why = choose_value_law(
        value_law, profiles.budgets[found], slices.value[0, found], profiles.maximise
    )
    fit = IsoflopFit(
        profiles=profiles,
        slices=slices.replicate(0),
        laws=_through(profiles, slices, form).replicate(0),
        status=FitStatus.OK,
        messages=(why,) if why else (),
    )
    if not findings:
        return fit
    from scaling_analysis.estimators.isoflop_findings import look

    status, messages = look(fit)
    return replace(fit, status=status, messages=(*messages, *fit.messages))


def _through(profiles: Profiles, slices: Slices, form: str) -> FrontierLaws:
    return fit_frontier_laws(
        profiles.budgets,
        np.log(slices.params),
        slices.value,
        slices.curvature,
        form=form,
        cost=profiles.cost,
        maximise=profiles.maximise,
        log_space=profiles.space == "log",
        lowest=float(profiles.response.min()) if profiles.maximise else -np.inf,
    )


def _check(profiles: Profiles, slices: Slices) -> None:
    """Refuse what determines no frontier, budget by budget."""
    from scaling_analysis.estimators.isoflop_findings import reasons

    found = int((slices.state == SliceState.OK).sum())
    if found < MIN_POINTS:
        why = "; ".join(reasons(profiles, slices))
        sizes = profiles.rows["params"].nunique()
        remedy = "Run sizes on both sides of the optimum"
        if sizes < MIN_POINTS:
            remedy = f"Run {MIN_POINTS} sizes or more at each of {MIN_POINTS} budgets or more"
        elif profiles.target == "loss":
            remedy += ", or fit the whole surface: fit_parametric(runs)"
        raise FitError(
            f"only {found} of {len(profiles.budgets)} budgets have an optimum of "
            f"{profiles.target} over N, three are needed{f': {why}' if why else ''}. {remedy}"
        )
    if not np.isfinite(slices.curvature).any():
        raise FitError(
            f"no profile of {profiles.target} has an interior optimum: all grid optima lie at the "
            "ends. Run sizes on both sides of the optimum"
        )
