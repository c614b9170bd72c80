"""The fitted laws as equations with their numbers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from scaling_analysis.estimators.link import ReturnLink
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.result import Forecast
from scaling_analysis.report.model import Equation
from scaling_analysis.report.wording import compute, count, quantity


def equations(forecast: Forecast, symbols: Sequence[str]) -> tuple[Equation, ...]:
    """Laws of N, L or R of all methods that have a closed form, in the order of the methods."""
    found: list[Equation] = []
    for members in (forecast.ensemble.losses, forecast.ensemble.returns):
        for name, member in members.items():
            if name in BASELINES:
                continue
            of = "return" if member.fit.target == "mean_return" else "loss"
            for each in _of_fit(member.fit, f"{name}, {of}"):
                if each.symbol in symbols:
                    found.append(each)
    return tuple(found)


def link_equation(link: ReturnLink) -> tuple[Equation, ...]:
    """The link from loss to return as an equation, where it is a power law."""
    if link.form != "power":
        return ()
    values = {
        "scale": quantity(float(np.exp(link.log_scale))),
        "exponent": f"{-float(link.exponent):.3f}",
        "floor": quantity(link.floor),
    }
    return (Equation(name=link.method, symbol="R", kind="link", values=values),)


def _of_fit(fit: Any, name: str) -> list[Equation]:
    if hasattr(fit, "laws"):
        laws = fit.laws
        reference = {"reference": compute(laws.flops_ref)}
        size = {
            "scale": count(float(np.exp(laws.log_params))),
            "exponent": f"{float(laws.params_exponent):.3f}",
        }
        value = {
            "scale": quantity(float(np.exp(laws.value_log_scale))),
            "exponent": f"{float(laws.value_exponent):.3f}",
            "floor": quantity(float(laws.value_floor)),
        }
        symbol = "R" if laws.maximise else "L"
        return [
            Equation(name=name, symbol="N", kind="power", values=size | reference),
            Equation(name=name, symbol=symbol, kind=laws.value_form, values=value | reference),
        ]
    if getattr(fit, "form", "") == "additive" and not fit.rising:
        values = {key: _plain(float(v)) for key, v in fit.parameters.items()}
        return [Equation(name=name, symbol="L", kind="additive", values=values)]
    return []


def _plain(value: float) -> str:
    return f"{value:.4g}" if value <= 0 or 1e-3 <= value < 1e4 else compute(value)
