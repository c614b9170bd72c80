"""Fit the link between loss and return, and average its forms by what they forecast."""

from dataclasses import replace
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError, FitStatus
from scaling_analysis.estimators.link import Points, ReturnLink, Space, find_space
from scaling_analysis.estimators.link_forms import Form
from scaling_analysis.estimators.metrics import check_end_values
from scaling_analysis.estimators.selection import select_rows

Array = NDArray[np.float64]

_FORMS: tuple[Form, ...] = ("power", "inverse", "logistic", "monotone", "tail")
_BY_ROWS: tuple[Form, ...] = ("monotone", "tail")
"""Forms that need many points."""
_KNOTS = 48
_MIN_POINTS = 4
_FIRST = 3
"""Budgets before the first origin."""
_MOST_STAGES = 12
_AGE = 0.8
"""Each origin counts so much of the next one: links drift."""
_PRIOR_ORIGINS = 1.0
"""Weight of the prior that forms are alike, in origins."""
_EXACT = 1e-16


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
    form : "power", "inverse", "logistic", "monotone", "tail" or "auto"
        "auto" averages forms by what each, fitted up to a budget, said of the lower losses of later
        ones: power, inverse, monotone and tail, or with a ceiling logistic, monotone and tail,
        which stay below it. "power" is that of Tuyls et al. 2023. "monotone" stays where it is
        below the lowest loss seen, "tail" goes on as the power law through the lowest ones.
    floor : float, optional
        Return of an agent that knows nothing (random actions) [points]; 0 if not given. Rows at or
        below it say nothing about any form but "monotone", and are named.
    ceiling : float, optional
        Return that cannot be exceeded (the expert's, the game's) [points]: "logistic" needs it.
        Where it is known, give it: no form finds it in returns that are still far below.
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
    if form in _BY_ROWS and points == "optimum":
        raise FitError(f"form={form!r} needs points='rows': optima are too few for it")
    needs = ["params", "loss", *(["budget"] if points == "optimum" else [])]
    rows = select_rows(runs, "mean_return", needs=needs)
    returns = rows["mean_return"].to_numpy(dtype=float)
    low = 0.0 if floor is None else float(floor)
    _check_ends(returns, floor, ceiling, form)
    doubts, messages = _doubts(rows), []
    at_floor = int((returns <= low).sum())
    if at_floor and form not in _BY_ROWS:
        said = (
            f"{at_floor} of {len(rows)} rows return no more than the floor of {low:g}: they are "
            "outside every form but 'monotone' and 'tail'"
        )
        (doubts if at_floor > len(rows) / 2 else messages).append(said)
    if form == "auto":
        link, why = _average(rows, low, ceiling, points)
        messages.append(why)
    else:
        link = _fit(rows, form, low, ceiling, points)
    if not bool(link.valid()):
        raise FitError(
            f"the return does not fall with the loss (form={form!r}): this log carries no link. "
            "Look at the rows with audit(runs)"
        )
    slope = link.predict(np.array(link.loss_range))
    if not slope[0] > slope[1]:
        raise FitError("the return is the same at the smallest and the largest loss: no link")
    if form == "inverse" and link.offset > 0:
        limit = link.floor + 1 / float(link.offset)
        if limit < 2 * returns.max():
            messages.append(
                f"the inverse form never exceeds {limit:,.0f} points, {limit / returns.max():.2f} "
                "times the highest return seen: larger runs may well pass it"
            )
    status = FitStatus.DOUBTFUL if doubts else FitStatus.OK
    return replace(link, status=status, messages=(*doubts, *messages))


def _doubts(rows: pd.DataFrame) -> list[str]:
    """What the rows cannot show."""
    runs, sizes = rows["run_id"].nunique(), rows["params"].nunique()
    if runs == 1:
        return ["one run: its luck is in every row, and the link of other runs may be another"]
    if sizes == 1:
        return ["one size: whether other sizes play as well at the same loss is not seen"]
    return []


def _fit(
    rows: pd.DataFrame,
    form: Form,
    floor: float,
    ceiling: float | None,
    points: Points,
    space: Space | None = None,
) -> ReturnLink:
    """One form, in its own residual space unless another is given."""
    empty = _empty(rows, form, floor, ceiling, points, space)
    used = np.isfinite(empty.transform(rows["mean_return"])).sum()
    if used < _MIN_POINTS:
        raise FitError(
            f"{used} rows have a loss and a return above the floor: a link needs {_MIN_POINTS}"
        )
    return empty.refit(weights=np.ones((1, len(rows)))).replicate(0)


def _empty(
    rows: pd.DataFrame,
    form: Form | Literal["average"],
    floor: float,
    ceiling: float | None,
    points: Points,
    space: Space | None = None,
) -> ReturnLink:
    """A link without parameters."""
    loss = rows["loss"].to_numpy(dtype=float)
    nan, knots = np.array(np.nan), np.empty(0)
    if form in _BY_ROWS:
        quantiles = np.linspace(0, 1, min(_KNOTS, len(rows)))
        knots = np.unique(np.quantile(np.log(loss), quantiles, method="nearest"))
    return ReturnLink(
        form=form,
        space=find_space(form, rows, floor, ceiling) if space is None else space,
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


def _average(
    rows: pd.DataFrame, floor: float, ceiling: float | None, points: Points
) -> tuple[ReturnLink, str]:
    """The forms averaged, and a sentence with their weights and past errors."""
    space: Space = "log" if ceiling is None else "logit"
    names: list[Form] = ["power", "inverse"] if ceiling is None else ["logistic"]
    names += _BY_ROWS if points == "rows" else ()
    fitted = [_fit(rows, name, floor, ceiling, points, space) for name in names]
    members = tuple(link for link in fitted if bool(link.valid()))
    if not members:
        return fitted[0], ""
    equal = (1 / len(members),) * len(members)
    average = _empty(rows, "average", floor, ceiling, points, space)
    average = replace(average, members=members, shares=equal)
    shares, errors = _weigh(average)
    link = replace(average, shares=shares).refit(weights=np.ones((1, len(rows)))).replicate(0)
    listed = ", ".join(f"{m.form} {s:.2f}" for m, s in zip(members, shares, strict=True))
    if errors is None:
        return link, f"no later budget has a lower loss to compare forms on: {listed}"
    past = ", ".join(f"{e:.3f}" for e in errors)
    return link, (
        f"forms averaged by what they said of lower losses at later budgets: {listed} (errors of "
        f"the {space} return {past})"
    )


def _weigh(link: ReturnLink) -> tuple[tuple[float, ...], Array | None]:
    """Weights of the members by rolling origin, and their typical errors there.

    A forecast asks for losses below all that were seen, so only those decide. A weight is the
    inverse of the geometric mean of the squared errors over origins: the first origins, whose
    errors are the largest by far, do not decide alone.
    """
    x, z, weights = link.points_of()
    stage = _stages(link)
    origins = np.unique(stage)[_FIRST - 1 : -1]
    if not len(origins):
        return link.shares, None
    seen = (stage <= origins[:, None]) & (weights > 0)
    lowest = np.where(seen, x, np.inf).min(axis=1, keepdims=True)
    ahead = ~seen & (weights > 0) & (x < lowest)
    used = (seen.sum(axis=1) >= _MIN_POINTS) & ahead.any(axis=1)
    if not used.any():
        return link.shares, None
    seen, ahead = seen[used], ahead[used]
    at, value = np.broadcast_to(x, seen.shape), np.broadcast_to(z, seen.shape)
    said = link.members_through(at, value, seen.astype(float))
    square = np.where(ahead[:, None], (said - z) ** 2, 0.0).sum(axis=2)
    square = square / ahead.sum(axis=1)[:, None] + _EXACT * np.ptp(z) ** 2
    # A form that an origin cannot determine errs as much as the worst one there.
    worst = np.nanmax(square, axis=1, keepdims=True)
    age = _AGE ** np.arange(len(square))[::-1]
    error = np.log(np.where(np.isfinite(square), square, worst)).T @ age / age.sum()
    trust = age.sum() / (age.sum() + _PRIOR_ORIGINS)
    weight = np.exp(-trust * (error - error.min()))
    return tuple(float(w) for w in weight / weight.sum()), np.exp(error / 2)


def _stages(link: ReturnLink) -> Array:
    """Log compute of the points: the budget, or where a log has none, the end of its range."""
    rows = link.rows
    if "budget" in rows:
        budget = np.log(rows["budget"].to_numpy(dtype=float))
        return np.unique(budget) if link.points == "optimum" else budget
    stage = np.log(rows["flops"].to_numpy(dtype=float))
    ends = np.unique(np.quantile(stage, np.linspace(0, 1, _MOST_STAGES + 1)[1:]))
    return ends[np.searchsorted(ends, stage)]


def _check_ends(returns: Array, floor: float | None, ceiling: float | None, form: str) -> None:
    check_end_values(floor, ceiling)
    if floor is None and (returns < 0).any() and form not in _BY_ROWS:
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
    if floor is not None and (returns <= floor).all():
        raise FitError(f"floor={floor:g} is above every return, the best is {returns.max():g}")
    if not np.ptp(returns) > 0:
        raise FitError(f"all returns are {returns[0]:g}: there is no link to fit")
