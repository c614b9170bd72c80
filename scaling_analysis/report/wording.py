"""Numbers and labels as a reader sees them, the same in figures, HTML and PDF."""

import math
from typing import Literal

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_STEPS = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k"))
MISSING = "–"
WORDS = {"loss": "loss", "mean_return": "mean return"}
UNITS = {"loss": "nats/action", "mean_return": "points"}


def compute(flops: float) -> str:
    """FLOP as a power of ten: 10¹⁹, 3×10¹², 1.57×10¹⁸."""
    if not math.isfinite(flops) or flops <= 0:
        return MISSING
    digits, exponent = f"{flops:.2e}".split("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    digits = f"{float(digits):g}"
    return power if digits == "1" else f"{digits}×{power}"


def count(value: float) -> str:
    """A number of parameters or samples in three digits: 57.3M, 1.45B, 4.1k."""
    if not math.isfinite(value):
        return MISSING
    if value >= 1e15:
        return compute(value)
    for step, letter in _STEPS:
        if value >= step * 0.9995:
            return f"{_digits(value / step)}{letter}"
    return _digits(value)


def quantity(value: float) -> str:
    """A loss, return or ratio in three significant digits: 0.145, 1,230."""
    if not math.isfinite(value):
        return MISSING
    if value != 0 and not 1e-3 <= abs(value) < 1e6:
        return compute(value) if value > 0 else f"{value:.2e}"
    return f"{float(f'{value:.3g}'):,.0f}" if abs(value) >= 100 else _digits(value)


def percent(value: float, signed: bool = False) -> str:
    """A share in percent: 90 %, +3.2 %, with a space that does not break."""
    if not math.isfinite(value):
        return MISSING
    sign = "+" if signed else ""
    return f"{value * 100:{sign}.3g}\N{NO-BREAK SPACE}%"


def times(value: float) -> str:
    """An extrapolation factor: 10×, 2.4×."""
    return f"{_digits(value)}×" if math.isfinite(value) else MISSING


def interval(lo: float, hi: float, write=quantity) -> str:
    """Both ends of an interval on one line: 0.14 to 0.16."""
    return f"{write(lo)}\N{NO-BREAK SPACE}to\N{NO-BREAK SPACE}{write(hi)}"


def clipped(text: str, most: int, keep: Literal["start", "end"] = "start") -> str:
    """Text cut to `most` characters on one line, with an ellipsis where something is left out."""
    line = " ".join(text.split())
    if len(line) <= most:
        return line
    return line[: most - 1] + "…" if keep == "start" else "…" + line[1 - most :]


def _digits(value: float) -> str:
    """Three significant digits without an exponent."""
    value = float(f"{value:.2e}")
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{places}f}" if places else f"{value:,.0f}"
