"""Figures of forecasts against what was observed. Each takes and returns a matplotlib Axes."""

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import ReportError
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.scores import COMBINED, Hindcast
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.report.axes import (
    BLUE,
    GREY,
    NAMES,
    ORANGE,
    PURPLE,
    RED,
    given_or_new,
    jittered,
    logarithmic,
    thinned,
)
from scaling_analysis.report.wording import clipped, compute, count, percent

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def plot_hindcast(
    hindcast: Hindcast,
    quantity: str | None = None,
    *,
    level: float = 0.9,
    ax: "Axes | None" = None,
) -> "Axes":
    """Held-out budgets over what would have been forecast of them, against the distance.

    Parameters
    ----------
    hindcast : Hindcast
    quantity : str, optional
        "loss_opt", "params_opt", ...: see `scores.QUANTITIES`; the first of loss_opt, loss,
        mean_return_opt and mean_return on record by default.
    level : float
        Of the intervals as they would have been stated: bars around 1.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        Filled dots: the average held; red crosses: it missed. Small marks: the baselines.

    Examples
    --------
    >>> sa.plot_hindcast(sa.hindcast(runs), "loss_opt")                        # doctest: +SKIP
    """
    ax = given_or_new(ax)
    frame = hindcast.to_frame(level)
    known = set(frame["quantity"])
    order = ("loss_opt", "loss", "mean_return_opt", "mean_return", "params_opt")
    quantity = quantity or next(name for name in order if name in known)
    frame = frame[frame["quantity"] == quantity]
    if frame.empty:
        raise ReportError(f"the hindcast has no {quantity!r}; it has {', '.join(sorted(known))}")
    own = frame[frame["method"] == COMBINED]
    own = own[thinned(len(own))]
    ratio = (own["observed"] / own["predicted"]).to_numpy(np.float64)
    distance = jittered(own["extrapolation"].to_numpy(np.float64))
    lo, hi = (own[name] / own["predicted"] for name in ("lo", "hi"))
    ax.vlines(distance, lo, hi, color=BLUE, alpha=0.3, lw=2.5)
    styles = {"persistence": ("_", ORANGE), "log-line": ("x", PURPLE)}
    for name in BASELINES:
        other = frame[frame["method"] == name]
        if other.empty:
            continue
        other = other[thinned(len(other))]
        marker, colour = styles[name]
        ax.plot(
            other["extrapolation"],
            other["observed"] / other["predicted"],
            marker,
            ms=4,
            color=colour,
            alpha=0.8,
            label=name.replace("-", " "),
        )
    inside = own["inside"].to_numpy(bool)
    for which, marker, size, colour, said in (
        (inside, "o", 4.0, BLUE, "held"),
        (~inside, "X", 5.5, RED, "missed"),
    ):
        if which.any():
            name = f"average, {said}"
            ax.plot(distance[which], ratio[which], marker, ms=size, color=colour, label=name)
    ax.axhline(1.0, color=GREY, lw=0.8)
    logarithmic(ax, "x", "Held-out compute over the last budget fitted", plain=True)
    logarithmic(ax, "y", "Observed over forecast", plain=True)
    low, high = ax.get_ylim()  # room for the legend, which no bar may cross
    ax.set_ylim(low, high * (high / low) ** 0.15)
    ax.legend(frameon=False, fontsize="x-small", loc="upper left", ncols=2)
    return ax


def plot_verification(
    verification: Verification, target: str | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """Every planned run: the interval that was forecast, and what was observed.

    Parameters
    ----------
    verification : Verification
    target : str, optional
        "loss" or "mean_return"; the first judged by default.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        One line a run, smallest compute on top: bar and tick are the forecast, the dot is the run
        (a red cross where it lies outside).

    Examples
    --------
    >>> sa.plot_verification(sa.verify(forecast, plan, runs), "loss")          # doctest: +SKIP
    """
    ax = given_or_new(ax)
    judged = verification.runs[verification.runs["status"] == "ok"]
    target = target or str(judged["target"].iloc[0])
    judged = judged[judged["target"] == target].sort_values(["budget", "params"])
    if judged.empty:
        raise ReportError(f"no planned run has a {target} to show")
    height = -np.arange(len(judged), dtype=np.float64)
    ax.hlines(height, judged["lo"], judged["hi"], color=BLUE, alpha=0.3, lw=7)
    ax.plot(judged["predicted"], height, "|", ms=9, color=BLUE)
    inside = judged["inside"].to_numpy(bool)
    observed = judged["observed"].to_numpy(np.float64)
    ax.plot(observed[inside], height[inside], "o", ms=5, color=BLUE)
    ax.plot(observed[~inside], height[~inside], "X", ms=6, color=RED)
    names = [clipped(str(name), 28, keep="end") for name in judged["run_id"]]
    sizes = zip(judged["params"], judged["budget"], strict=True)
    labels = [
        f"{name}\nN {count(params)}, C {compute(budget)}"
        for name, (params, budget) in zip(names, sizes, strict=True)
    ]
    ax.set_yticks(height, labels, fontsize="x-small", parse_math=False)
    ax.set_ylim(height.min() - 0.7, 0.7)
    logarithmic(
        ax, "x", f"{NAMES[target]}: bar = {percent(verification.level)} forecast", plain=True
    )
    return ax


def of(quantity: str) -> str:
    """A quantity of the hindcast in words."""
    return {
        "loss_opt": "loss at the optimum",
        "loss": "loss",
        "mean_return_opt": "return at the optimum",
        "mean_return": "mean return",
        "params_opt": "$N_{opt}$",
    }[quantity]
