"""Colours, axes and marks that the figures share."""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.report.wording import clipped, compute, count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]

BLUE, ORANGE, GREEN, RED, PURPLE, GREY = (
    "#0072B2",
    "#E69F00",
    "#009E73",
    "#D55E00",
    "#CC79A7",
    "#8A8F98",
)
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, "#56B4E9", GREY)
"""Order in which lines of equal rank take their colours."""
NAMES = {
    "params_opt": "Compute-optimal parameters $N_{opt}$",
    "samples_opt": "Compute-optimal samples $D_{opt}$",
    "loss": "Loss [nats/action]",
    "mean_return": "Mean return [points]",
}
_NAME = 24
"""Characters of a name that a figure shows."""
MOST_MARKS = 1200
"""Figures thin their marks to about this many, evenly through the rows."""


def boundary(ax: "Axes", end: float) -> None:
    """A line where the log ends and the forecast begins."""
    ax.axvline(end, color=GREY, lw=0.8, ls=(0, (4, 3)))
    ax.annotate(
        "largest budget of the log",
        (end, 0.03),
        xycoords=("data", "axes fraction"),
        xytext=(-3, 0),
        textcoords="offset points",
        rotation=90,
        ha="right",
        va="bottom",
        fontsize="x-small",
        color=GREY,
    )


def beside_line(ax: "Axes", height: float, text: str) -> None:
    """A label on top of a horizontal line."""
    ax.annotate(
        text,
        (0.01, height),
        xycoords=("axes fraction", "data"),
        xytext=(0, 2),
        textcoords="offset points",
        fontsize="x-small",
        color=GREY,
    )


def name_ends(ax: "Axes", ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Names of lines beside their last points, moved apart where they would touch.

    `ends`: x, y, name, colour. Room for them is made on the right; names are shown as they are.
    """
    if not ends:
        return
    low, high = ax.get_xlim()
    longest = max(len(name) for _, _, name, _ in ends)
    ax.set_xlim(low, high * (high / low) ** min(0.6, 0.02 * min(longest, _NAME) + 0.04))
    apart = 0.055
    places = [
        (float(ax.transAxes.inverted().transform(ax.transData.transform((x, y)))[1]), x, name, c)
        for x, y, name, c in ends
    ]
    below = -np.inf
    for height, x, name, colour in sorted(places):
        below = max(height, below + apart)
        ax.annotate(
            clipped(name, _NAME),
            (x, below),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize="small",
            color=colour,
            parse_math=False,
        )


def thinned(rows: int) -> NDArray[np.bool_]:
    """Which rows are drawn: every k-th, so that at most `MOST_MARKS` are."""
    keep = np.zeros(rows, dtype=bool)
    keep[:: max(1, -(-rows // MOST_MARKS))] = True
    return keep


def jittered(x: Array) -> Array:
    """Values moved apart a little where they are equal, the same way every time."""
    order = np.argsort(x, kind="stable")
    place = np.zeros(len(x))
    for value in np.unique(np.round(np.log(x), 6)):
        at = order[np.isclose(np.log(x[order]), value, atol=1e-6)]
        place[at] = np.linspace(-0.5, 0.5, len(at) + 2)[1:-1]
    return x * np.exp(0.06 * place)


def room(ax: "Axes", x: Array, y: Array) -> None:
    """Limits around what was observed, so that a curve off the data does not rule the picture."""
    low, high = float(np.nanmin(y)), float(np.nanmax(y))
    if low > 0:
        ax.set_yscale("log")
        ax.set_ylim(low / (high / low) ** 0.06, high * (high / low) ** 0.06)
    # Room on the right for the labels of the budgets.
    ax.set_xlim(x.min() / 1.3, x.max() * (x.max() / x.min()) ** 0.16)


def given_or_new(ax: "Axes | None") -> "Axes":
    """The Axes of the caller, or one of a new pyplot figure."""
    if ax is not None:
        return ax
    from matplotlib import pyplot

    return pyplot.figure().add_subplot()


def logarithmic(ax: "Axes", which: Literal["x", "y"], label: str, plain: bool = False) -> None:
    """A logarithmic axis with its label; `plain` writes ticks as numbers rather than as powers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axis = ax.xaxis if which == "x" else ax.yaxis
    (ax.set_xscale if which == "x" else ax.set_yscale)("log")
    axis.set_label_text(label)
    lo, hi = sorted(ax.get_xlim() if which == "x" else ax.get_ylim())
    if hi / lo < 100 or plain:  # of powers alone a shorter axis may show one, or none
        if hi / lo < 6:
            axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
        else:
            subs = (1.0, 2.0, 3.0, 5.0) if hi / lo < 12 else (1.0, 2.0, 5.0)
            axis.set_major_locator(LogLocator(subs=subs if hi / lo < 300 else (1.0,)))
        write = _round if max(abs(lo), hi) >= 1e3 and not plain else "{:,.6g}".format
        if "[FLOP]" in label:  # 10⁹, as everywhere in the text: "1B" is a size
            write = compute
        axis.set_major_formatter(FuncFormatter(lambda value, _: write(float(value))))
    axis.set_minor_locator(NullLocator())


def _round(value: float) -> str:
    """A tick at a round number: 20k rather than 20.0k."""
    return re.sub(r"\.0+(?=\D|$)", "", count(value))
