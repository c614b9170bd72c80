"""Figures of curves: one quantity against one, and one law of several forecasts."""

from collections.abc import Mapping
from itertools import cycle
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import ReportError
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.report.axes import (
    BLUE,
    GREY,
    NAMES,
    PALETTE,
    given_or_new,
    logarithmic,
    name_ends,
    thinned,
)
from scaling_analysis.report.sources import flops_max, grid_of, law_curve

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from scaling_analysis.estimators.curve import CurveFit

Array = NDArray[np.float64]
Quantity = Literal["params_opt", "samples_opt", "loss", "mean_return"]

_BEYOND = 10.0


def plot_curve(
    fit: "CurveFit",
    x: ArrayLike | None = None,
    *,
    level: float = 0.9,
    x_name: str = "x",
    y_name: str = "y",
    ax: "Axes | None" = None,
) -> "Axes":
    """A fitted curve y(x): the points, the curve, and its intervals inside and beyond them.

    Parameters
    ----------
    fit : CurveFit
    x : array_like, optional
        Ends of the range to draw; by default from the first point to ten times the last.
    level : float
        Of the bands: dark for the curve, light for a new observation.
    x_name, y_name : str
        Labels of the axes, with their units.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Examples
    --------
    >>> import scaling_analysis as sa
    >>> x = np.geomspace(1e15, 1e18, 10)
    >>> fit = sa.fit_curve(x, 2 + 3e5 * x**-0.4, form="power_floor")
    >>> ax = sa.plot_curve(fit, x_name="Compute C [FLOP]", y_name="Loss [nats/token]")
    >>> ax.get_xlabel()
    'Compute C [FLOP]'
    """
    ax = given_or_new(ax)
    known, y = np.asarray(fit.series.x, float), np.asarray(fit.series.y, float)
    ends = np.array([known.min(), known.max() * _BEYOND]) if x is None else np.asarray(x, float)
    said = fit.predict(np.geomspace(ends.min(), ends.max(), 120), level=level)
    ax.fill_between(said["x"], said["run_lo"], said["run_hi"], color=BLUE, alpha=0.12, lw=0)
    ax.fill_between(said["x"], said["lo"], said["hi"], color=BLUE, alpha=0.25, lw=0)
    inside = said["x"] <= known.max() * (1 + 1e-9)
    ax.plot(said["x"][inside], said["value"][inside], "-", color=BLUE, lw=1.6)
    ax.plot(said["x"][~inside], said["value"][~inside], "--", color=BLUE, lw=1.6)
    keep = thinned(len(known))
    ax.plot(known[keep], y[keep], "o", ms=3.5, color=GREY, alpha=0.8, mew=0, zorder=3)
    ax.axvline(known.max(), color=GREY, lw=0.8, ls=(0, (4, 3)))
    logarithmic(ax, "x", x_name)
    if fit.residual_space == "log":
        logarithmic(ax, "y", y_name)
    else:
        ax.set_ylabel(y_name)
    return ax


def plot_comparison(
    forecasts: Mapping[str, Forecast],
    quantity: Quantity = "params_opt",
    flops: ArrayLike | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """One law of several forecasts on one Axes, each with its interval, named at its end.

    Parameters
    ----------
    forecasts : mapping from name to Forecast
        Recipes, agents or tasks.
    quantity : str
        "params_opt", "samples_opt", or "loss" or "mean_return" at the optimum.
    flops : array_like, optional
        Ends of the range to draw [FLOP]; of each forecast its log and its budgets by default.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A line and a band a forecast; the line is dashed beyond the largest budget of its log.

    Examples
    --------
    >>> sa.plot_comparison({"lstm": one, "transformer": two}, "loss")          # doctest: +SKIP
    """
    ax = given_or_new(ax)
    if not forecasts:
        raise ReportError("give at least one forecast to draw")
    curves = {}
    for name, forecast in forecasts.items():
        grid = grid_of(forecast, flops)
        curves[name] = forecast, grid, law_curve(forecast, quantity, grid)
    return draw_comparison(ax, curves, quantity)


def draw_comparison(
    ax: "Axes",
    curves: Mapping[str, tuple[Forecast, Array, Mapping[str, Array]]],
    quantity: str,
) -> "Axes":
    """`plot_comparison` with forecast, grid [FLOP] and curve of each name worked out already."""
    ends = []
    for (name, (forecast, grid, curve)), colour in zip(
        curves.items(), cycle(PALETTE), strict=False
    ):
        within = grid <= flops_max(forecast) * (1 + 1e-9)
        ax.fill_between(grid, curve["lo"], curve["hi"], color=colour, alpha=0.15, lw=0)
        ax.plot(grid[within], curve["value"][within], "-", color=colour, lw=1.6, label=name)
        ax.plot(grid[~within], curve["value"][~within], "--", color=colour, lw=1.6)
        # A law of returns may end before the range does, at the highest return seen.
        if (drawn := np.flatnonzero(np.isfinite(curve["value"]))).size:
            last = drawn[-1]
            ends.append((float(grid[last]), float(curve["value"][last]), name, colour))
    logarithmic(ax, "x", "Compute C [FLOP]")
    logarithmic(ax, "y", NAMES[quantity])
    name_ends(ax, ends)
    return ax
