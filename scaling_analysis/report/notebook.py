"""The figure that a result shows in a notebook, beside its table."""

import io
from base64 import b64encode
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from scaling_analysis.errors import ScalingError
from scaling_analysis.report.axes import BLUE, ORANGE, logarithmic, thinned
from scaling_analysis.report.figures import plot_frontier, plot_law, plot_link, plot_profiles
from scaling_analysis.report.verdicts import plot_hindcast, plot_verification
from scaling_analysis.results import Result

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Draw = Callable[[Any, Any], object]
"""Draws a result on an Axes."""

_SIZE = (4.2, 3.0)
_VALUE = {"loss": "Loss [nats/action]", "mean_return": "Mean return [points]"}


def figure_of(result: Result) -> str:
    """An `<img>` of the result, or "" where it has no figure; the matplotlib state is untouched."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    draws = _drawings(result)
    if not draws:
        return ""
    figure = Figure(figsize=(_SIZE[0] * len(draws), _SIZE[1]), layout="constrained")
    try:
        for ax, draw in zip(np.ravel(figure.subplots(1, len(draws))), draws, strict=True):
            draw(result, ax)
    except ScalingError:  # what cannot be drawn is still told by the table and the messages
        return ""
    file = io.BytesIO()
    with rc_context({"svg.hashsalt": type(result).__name__}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    # An image of its own: the ids inside two inline SVGs would meet on one page.
    data = b64encode(file.getvalue()).decode("ascii")
    return f'<img alt="{type(result).__name__}" src="data:image/svg+xml;base64,{data}">'


def _drawings(result: Result) -> list[Draw]:
    """What to draw, side by side, by the kind of the result."""
    kind = type(result).__name__
    if kind == "Bootstrap":
        fit = result.fit  # pyright: ignore[reportAttributeAccessIssue]
        if type(fit).__name__ == "ReturnLink":
            return [lambda r, ax: plot_link(r, ax=ax)]
        kind = "Forecast" if hasattr(fit, "params_opt") else ""
    if kind == "Forecast":
        return [lambda r, ax: plot_frontier(r, ax=ax), lambda r, ax: plot_law(r, ax=ax)]
    by_kind: dict[str, Draw] = {
        "IsoflopFit": lambda r, ax: plot_profiles(r, ax=ax),
        "ReturnLink": lambda r, ax: plot_link(r, ax=ax),
        "Hindcast": lambda r, ax: plot_hindcast(r, ax=ax),
        "Verification": lambda r, ax: plot_verification(r, ax=ax),
    }
    if kind in by_kind:
        return [by_kind[kind]]
    if hasattr(result, "params_opt") and hasattr(result, "value_opt"):
        return [_sizes, _values]
    if kind == "CurveFit":
        return [_curve]
    return []


def _sizes(fit: Any, ax: "Axes") -> None:
    """Sizes that were run, and N_opt, along compute."""
    flops, along = _compute(fit)
    _scatter(ax, flops, fit.rows["params"].to_numpy(float))
    ax.plot(along, fit.params_opt(along), "-", color=ORANGE)
    logarithmic(ax, "y", "Parameters N")


def _values(fit: Any, ax: "Axes") -> None:
    """What was observed, and the value at the optimum, along compute."""
    flops, along = _compute(fit)
    _scatter(ax, flops, fit.rows[fit.target].to_numpy(float))
    ax.plot(along, fit.value_opt(along), "-", color=ORANGE)
    ax.set_ylabel(_VALUE[fit.target])


def _compute(fit: Any) -> tuple[Any, Any]:
    flops = fit.rows["flops"].to_numpy(float)
    return flops, np.geomspace(flops.min(), flops.max(), 60)


def _scatter(ax: "Axes", x: Any, y: Any) -> None:
    shown = thinned(len(x))
    ax.plot(x[shown], y[shown], "o", ms=3, mew=0, alpha=0.6, color=BLUE)
    logarithmic(ax, "x", "Compute C [FLOP]")


def _curve(fit: Any, ax: "Axes") -> None:
    """The points and the curve through them."""
    x, y = (np.asarray(each, dtype=float) for each in (fit.series.x, fit.series.y))
    shown = thinned(len(x))
    ax.plot(x[shown], y[shown], "o", ms=3, mew=0, alpha=0.6, color=BLUE)
    along = np.geomspace(x.min(), x.max(), 60)
    ax.plot(along, fit.value(along), "-", color=ORANGE)
    logarithmic(ax, "x", "x")
    ax.set_ylabel("y")
