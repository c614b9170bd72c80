"""Fit the link between loss and return, and choose its form by what it forecasts."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.link import Form, Points, ReturnLink
from scaling_analysis.estimators.selection import select_rows

Array = NDArray[np.float64]

_FORMS: tuple[Form, ...] = ("power", "inverse", "logistic", "monotone")
_KNOTS = 48
_MIN_POINTS = 4
_MIN_ORIGINS = 3


def fit_return_link(
    runs: pd.DataFrame,
    form: Form | Literal["auto"] = "auto",
    *,
    floor: float | None = None,
    ceiling: float | None = None,
    points: Points = "rows",
) -> ReturnLink:
    """Return against loss, with its own residual spread.

    Parameters
    ----------
    runs : DataFrame
        A run log; rows with a loss and a mean return are used.
    form : "power", "inverse", "logistic", "monotone" or "auto"
        "auto" takes the form that, fitted up to a budget, forecasts best the returns of later
        budgets at the lower losses seen there. "power" is that of Tuyls et al. 2023.
    floor : float, optional
        Return of an agent that knows nothing (random actions) [points]; 0 if not given. Rows at or
        below it say nothing about any form but "monotone", and are named.
    ceiling : float, optional
        Return that cannot be exceeded (the expert's, the game's) [points]: "logistic" needs it.
    points : "rows" or "optimum"
        Go through all rows, or through the size of lowest loss of every budget, as the papers do.

    Returns
    -------
    ReturnLink

    Raises
    ------
    FitError
        Too few rows, returns that do not fall with the loss, or a return beyond the ceiling.

    Examples
    --------
    >>> played = runs.assign(mean_return=100 * runs["loss"] ** -2.0, protocol="game.1")
    >>> link = fit_return_link(played)
    >>> bool(abs(link.predict(2.0) - 25) < 0.5)
    True
    """
    if form not in (*_FORMS, "auto"):
        raise FitError(f"form is {form!r}: choose 'auto', {', '.join(map(repr, _FORMS))}")
    if points not in ("rows", "optimum"):
        raise FitError(f"points is {points!r}: choose 'rows' or 'optimum'")
    if form == "monotone" and points == "optimum":
        raise FitError("form='monotone' needs points='rows': optima are too few for it")
    needs = ["params", "loss", *(["budget"] if points == "optimum" else [])]
    rows = select_rows(runs, "mean_return", needs=needs)
    returns = rows["mean_return"].to_numpy(dtype=float)
    low = 0.0 if floor is None else float(floor)
    _check_ends(returns, floor, ceiling, form)
    messages = []
    at_floor = int((returns <= low).sum())
    if at_floor and form != "monotone":
        messages.append(
            f"{at_floor} of {len(rows)} rows return no more than the floor of {low:g}: they are "
            "outside every form but 'monotone'"
        )
    candidates: list[Form] = [f for f in _FORMS if form in (f, "auto")]
    if form == "auto" and ceiling is None:
        candidates.remove("logistic")
    if form == "auto" and points == "optimum":
        candidates.remove("monotone")
    links: dict[Form, ReturnLink] = {
        name: _fit(rows, name, low, ceiling, points) for name in candidates
    }
    best = candidates[0]
    if form == "auto":
        best, why = _choose(links)
        messages.append(why)
    link = links[best]
    if not bool(link.valid()):
        raise FitError(
            f"the return does not fall with the loss (form={best!r}): this log carries no link. "
            "Look at the rows with audit(runs)"
        )
    slope = link.predict(np.array(link.loss_range))
    if not slope[0] > slope[1]:
        raise FitError("the return is the same at the smallest and the largest loss: no link")
    if best == "inverse" and link.offset > 0:
        limit = link.floor + 1 / float(link.offset)
        if limit < 2 * returns.max():
            messages.append(
                f"the inverse form never exceeds {limit:,.0f} points, {limit / returns.max():.2f} "
                "times the highest return seen: larger runs may well pass it"
            )
    return replace(link, messages=tuple(messages))


def _fit(
    rows: pd.DataFrame, form: Form, floor: float, ceiling: float | None, points: Points
) -> ReturnLink:
    loss = rows["loss"].to_numpy(dtype=float)
    nan = np.array(np.nan)
    knots = np.empty(0)
    if form == "monotone":
        quantiles = np.linspace(0, 1, min(_KNOTS, len(rows)))
        knots = np.unique(np.quantile(np.log(loss), quantiles, method="nearest"))
    empty = ReturnLink(
        form=form,
        points=points,
        floor=floor,
        ceiling=ceiling,
        rows=rows,
        log_scale=nan,
        exponent=nan,
        offset=nan,
        knot_log_loss=knots,
        knot_values=np.zeros(len(knots)),
        spread=nan,
        loss_range=(float(loss.min()), float(loss.max())),
        status=FitStatus.OK,
        messages=(),
    )
    used = np.isfinite(empty.transform(rows["mean_return"])).sum()
    if used < _MIN_POINTS:
        raise FitError(
            f"{used} rows have a loss and a return above the floor: a link needs {_MIN_POINTS}"
        )
    return empty.refit(weights=np.ones((1, len(rows)))).replicate(0)


def _choose(links: Mapping[Form, ReturnLink]) -> tuple[Form, str]:
    """The form that forecasts lower losses of later budgets best, and a sentence with errors."""
    rows = next(iter(links.values())).rows
    stage = np.log(rows["budget" if "budget" in rows else "flops"].to_numpy(dtype=float))
    stages = np.unique(stage)
    if len(stages) > 12:
        stages = np.unique(np.quantile(stage, np.linspace(0, 1, 12)))
    origins = stages[_MIN_ORIGINS - 1 : -1]
    seen = (stage <= origins[:, None]).astype(float) if len(origins) else np.empty((0, len(stage)))
    seen = seen[seen.sum(axis=1) >= _MIN_POINTS]
    if not len(seen):
        return "power", "the power law was chosen: too few budgets to compare forms on later ones"
    loss, returns = (rows[name].to_numpy(dtype=float) for name in ("loss", "mean_return"))
    scale = np.maximum(returns - links["power"].floor, np.ptp(returns) * 1e-3)
    # A forecast asks for losses below all that were seen; rows off the frontier do not decide.
    best_seen = np.where(seen > 0, loss, np.inf).min(axis=1, keepdims=True)
    ahead_of_all = (seen == 0) & (loss < best_seen)
    if not ahead_of_all.any():
        return "power", "the power law was chosen: no later budget has a lower loss"
    errors = {}
    for name, link in links.items():
        ahead = link.refit(weights=seen)
        expected = ahead.predict(loss) - link.floor
        miss = np.abs(np.log(np.maximum(expected, 1e-3 * scale) / scale))
        miss = np.where(ahead.valid()[:, None], miss, np.inf)
        errors[name] = float(miss[ahead_of_all].mean())
    best = min(errors, key=lambda name: errors[name])
    listed = ", ".join(f"{name} {error:.3f}" for name, error in errors.items())
    return best, (
        f"form {best!r} forecasts the returns of lower losses at later budgets best (mean error of "
        f"the log: {listed})"
    )


def _check_ends(returns: Array, floor: float | None, ceiling: float | None, form: str) -> None:
    if floor is None and (returns < 0).any() and form != "monotone":
        raise FitError(
            f"a return is {returns.min():g}: with negative returns state floor= (that of random "
            "actions), or use form='monotone'"
        )
    if form == "logistic" and ceiling is None:
        raise FitError("form='logistic' needs ceiling= (the expert's return, or the game's own)")
    if ceiling is not None and (returns >= ceiling).any():
        raise FitError(
            f"the highest return is {returns.max():g}, at or above ceiling={ceiling:g}: give a "
            "ceiling that no run reaches, or none"
        )
    if ceiling is not None and floor is not None and ceiling <= floor:
        raise FitError(f"ceiling={ceiling:g} is not above floor={floor:g}")
    if not np.ptp(returns) > 0:
        raise FitError(f"all returns are {returns[0]:g}: there is no link to fit")
