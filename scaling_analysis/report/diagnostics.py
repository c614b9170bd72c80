"""Figures of what the laws miss, and of what each method says. Each takes and returns an Axes."""

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import ReportError
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.report.axes import (
    BLUE,
    GREY,
    NAMES,
    ORANGE,
    PALETTE,
    RED,
    given_or_new,
    logarithmic,
    thinned,
)
from scaling_analysis.report.residuals import Residuals, misfit_of, residuals_of
from scaling_analysis.report.sources import main_target
from scaling_analysis.report.wording import compute, count, percent, quantity

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]
Against = Literal["flops", "params", "fitted", "normal"]

_AGAINST = {
    "flops": "Compute C [FLOP]",
    "params": "Parameters N",
    "fitted": "Fitted value",
    "normal": "Quantile of the normal distribution",
}


def plot_residuals(fit: Any, against: Against = "flops", *, ax: "Axes | None" = None) -> "Axes":
    """Residuals of a fit: row by row, with their mean along the axis.

    Parameters
    ----------
    fit : fit, link or Bootstrap of one
        Anything with `rows`, `target` and `fitted_values()`.
    against : str
        "flops", "params" or "fitted": what lies along the x axis; the dashes are the means of
        groups of rows next to one another, and where they leave zero together the law bends
        otherwise than the data. "normal": ordered residuals over their root mean square against
        the quantiles of the normal distribution, where a straight line means normal errors.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Examples
    --------
    >>> import scaling_analysis as sa
    >>> law = sa.AdditiveSurface(E=0.25, A=60.0, alpha=0.45, B=200.0, beta=0.38)
    >>> budgets = np.geomspace(1e10, 1e12, 5)
    >>> runs = sa.simulate_runs(law, np.geomspace(2e3, 4e5, 9), budgets, checkpoint_noise=0.01)
    >>> sa.plot_residuals(sa.fit_isoflop(runs), "params").get_ylabel()
    'Observed over fitted'
    """
    if against not in _AGAINST:
        raise ReportError(f"against is {against!r}: choose among {', '.join(map(repr, _AGAINST))}")
    ax = given_or_new(ax)
    found = residuals_of(fit)
    ax.axhline(0, color=GREY, lw=0.8)
    if against == "normal":
        return _quantiles(ax, found)
    shown = found.rows[thinned(len(found.rows))]
    ax.plot(shown[against], shown["residual"], "o", ms=3, color=BLUE, alpha=0.6, mew=0)
    for x, mean in _group_means(found, against):
        ax.plot(x, [mean, mean], "-", color=ORANGE, lw=1.8)
    if (found.rows[against] > 0).all():
        logarithmic(ax, "x", _AGAINST[against])
    else:
        ax.set_xlabel(_AGAINST[against])
    _share_axis(ax, found)
    return ax


def plot_misfit(
    forecast: Forecast, target: str | None = None, *, ax: "Axes | None" = None
) -> "Axes":
    """The optimum of every budget over the law of every method: where the laws leave the data.

    Parameters
    ----------
    forecast : Forecast
    target : str, optional
        "loss" or "mean_return"; the main one of the forecast by default.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Returns
    -------
    Axes
        A line a method; a law whose line leaves zero at the largest budgets is wrong where the
        forecast begins.

    Examples
    --------
    >>> sa.plot_misfit(forecast, "loss")                                       # doctest: +SKIP
    """
    ax = given_or_new(ax)
    target = target or main_target(forecast)
    table = misfit_of(forecast, target)
    if table.empty:
        raise ReportError(f"no budget has an optimum of the {target} of its own to compare with")
    ax.axhline(0, color=GREY, lw=0.8)
    for (name, at), colour in zip(table.groupby("method", sort=False), PALETTE * 9, strict=False):
        ax.plot(at["flops"], at["residual"], "o-", ms=3.5, lw=1, color=colour, label=str(name))
    logarithmic(ax, "x", "Compute C [FLOP]")
    ax.set_ylabel("Optimum of a budget over the law")
    ax.margins(y=0.2)
    _as_percent(ax)
    legend = ax.legend(frameon=False, fontsize="x-small", loc="best")
    for text in legend.get_texts():
        text.set_parse_math(False)
    return ax


def plot_methods(
    forecast: Forecast,
    quantity: Literal["params_opt", "loss", "mean_return"] = "params_opt",
    flops: float | None = None,
    *,
    ax: "Axes | None" = None,
) -> "Axes":
    """What every method forecasts of one budget, with its interval, the average on top.

    Parameters
    ----------
    forecast : Forecast
    quantity : str
        "params_opt", or "loss" or "mean_return" at the optimum.
    flops : float, optional
        The budget [FLOP]; the first one forecast by default.
    ax : Axes, optional
        Where to draw; a new figure by default.

    Examples
    --------
    >>> sa.plot_methods(forecast, "loss", flops=1e13)                          # doctest: +SKIP
    """
    ax = given_or_new(ax)
    e = forecast.ensemble
    name = quantity if quantity == "params_opt" else f"{quantity}_opt"
    budget = float(forecast.table["flops"].min() if flops is None else flops)
    methods = [COMBINED, *e.methods(name), *BASELINES]
    methods = [each for each in methods if e.forecasts(name, each)]
    if not methods:
        raise ReportError(f"the forecast has no {quantity}")
    for row, method in enumerate(methods):
        said = e.predict(name, budget, method=method)
        lo, hi = (float(end[0]) for end in said.interval(forecast.level))
        colour = RED if method == COMBINED else GREY if method in BASELINES else BLUE
        ax.plot([lo, hi], [-row, -row], "-", color=colour, lw=2.5, alpha=0.45)
        ax.plot(np.exp(said.log), [-row], "s" if method == COMBINED else "o", ms=5, color=colour)
    labels = ["average" if name == COMBINED else name.replace("-", " ") for name in methods]
    ax.set_yticks(-np.arange(len(methods)), labels, parse_math=False)
    ax.set_ylim(0.6 - len(methods), 0.6)
    # The names of the methods take the room of a longer label.
    what = "$N_{opt}$" if quantity == "params_opt" else NAMES[quantity]
    logarithmic(ax, "x", f"{what} at {compute(budget)} FLOP", plain=quantity != "params_opt")
    return ax


def _quantiles(ax: "Axes", found: Residuals) -> "Axes":
    from scipy.special import ndtri

    ordered = np.sort(found.rows["residual"].to_numpy(np.float64))
    size = np.sqrt(np.mean(ordered**2))
    ranks = (np.arange(1, len(ordered) + 1) - 0.375) / (len(ordered) + 0.25)  # Blom 1958
    expected = ndtri(ranks)
    ends = expected[[0, -1]]
    ax.plot(ends, ends, "-", color=ORANGE, lw=1.2)
    keep = thinned(len(ordered))
    ax.plot(expected[keep], ordered[keep] / size, "o", ms=3, color=BLUE, alpha=0.6, mew=0)
    ax.set_xlabel(_AGAINST["normal"])
    ax.set_ylabel("Residual over its root mean square")
    return ax


def _group_means(found: Residuals, against: str) -> list[tuple[list[float], float]]:
    """Ends and mean residual of up to eight groups of neighbouring rows."""
    rows = found.rows.sort_values(against, kind="stable")
    edges = np.unique(np.quantile(rows[against], np.linspace(0, 1, 9)[1:-1]))
    group = np.searchsorted(edges, rows[against], side="left")
    out = []
    for _, at in rows.groupby(group):
        x = at[against].to_numpy(np.float64)
        ends = [float(x[0]), float(x[-1])]
        if ends[0] == ends[1]:
            ends = [ends[0] / 1.25, ends[1] * 1.25]
        out.append((ends, float(at["residual"].mean())))
    return out


def _share_axis(ax: "Axes", found: Residuals) -> None:
    if found.space == "log":
        ax.set_ylabel("Observed over fitted")
        _as_percent(ax)
    else:
        ax.set_ylabel(f"Residual of {NAMES[found.target]}")


def _as_percent(ax: "Axes") -> None:
    """Ticks of a log ratio at round percentages."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

    low, high = np.expm1(ax.get_ylim())
    locator = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10])
    ticks = np.asarray(locator.tick_values(max(low, -0.99), high))
    ax.yaxis.set_major_locator(FixedLocator(np.log1p(ticks[ticks > -1]).tolist()))
    ax.set_ylim(np.log1p(low), np.log1p(high))
    ax.yaxis.set_major_formatter(
        FuncFormatter(lambda value, _: percent(round(float(np.expm1(value)), 6), signed=True))
    )


def describe(row: Any, found: Residuals) -> str:
    """A residual in words, for hover."""
    size = (
        percent(float(np.expm1(row["residual"])), signed=True)
        if found.space == "log"
        else f"{row['residual']:+.3g}"
    )
    return (
        f"N {count(row['params'])}, C {compute(row['flops'])}: observed "
        f"{quantity(row['observed'])}, fitted {quantity(row['fitted'])} ({size})"
    )
