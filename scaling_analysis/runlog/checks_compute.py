"""Checks of the compute: is C what it says, and does it mean the same for every size?"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.runlog.findings import Finding, Group, Severity, bound, short, shorts, slope
from scaling_analysis.runlog.grid_profiles import grid_optima

CONSTANT_WITHIN = 1.02
"""C/(N D) that varies by less between sizes counts as constant, as in `laws.cost.fit_cost`."""
SERIOUS_DRIFT = 1.5


def cost_drift(group: Group) -> Iterator[Finding]:
    """C/(N D) should not depend on N; where it does, equal budgets are no equal compute.

    Let C_counted = k(N) N D with k ~ N^s while the true cost is constant. The optimum of
    L = E + A N^-alpha + B D^-beta on an isoFLOP of C_counted grows with exponent
    a = beta / (alpha + beta (1 + s)), against beta / (alpha + beta) on one of the true cost: the
    true exponent is a / (1 - s a). That of D_opt is off by the same factor, because the counted
    compute grows more slowly than the true one where s < 0: then both exponents are too high.
    """
    counted = np.ones(len(group.rows), dtype=bool)
    if "derived" in group.rows:
        counted = (group.rows["derived"] == "").to_numpy()
    if not counted.any():
        constant = float(np.median(group.flops / (group.params * group.samples)))
        yield group.finding(
            "cost-assumed",
            Severity.NOTE,
            f"N, D and C are tied by an assumed C = {short(constant)} N D, so a wrong count of "
            "FLOP cannot be seen.",
            remedy="Log counted FLOP, 3 x the forward count of a step.",
        )
        return
    constants = group.flops[counted] / (group.params[counted] * group.samples[counted])
    by_size = pd.Series(constants).groupby(group.params[counted]).median()
    sizes, typical = by_size.index.to_numpy(float), by_size.to_numpy()
    # Small sample counts are rounded up to whole batches, hence the median of each size.
    yield from _uneven_cost(group, counted, constants)
    spread = float(typical.max() / typical.min())
    figures = {"spread": spread, "smallest": float(typical.min()), "largest": float(typical.max())}
    if spread <= CONSTANT_WITHIN:
        yield from _constant_cost(group, float(np.median(typical)))
        return
    drift = slope(np.log(sizes), np.log(typical))
    figures["slope"] = drift
    first, last = typical[0], typical[-1]
    free = drift > 0 and typical.max() < 6.6
    severity = Severity.SERIOUS if spread > SERIOUS_DRIFT and not free else Severity.WARNING
    yield group.finding(
        "cost-drift",
        severity,
        f"C/(N D) is not constant in N: {short(first)} at N = {short(sizes[0])}, {short(last)} at "
        f"N = {short(sizes[-1])}, a spread of {spread:.3g} times, as N^{drift:.3f}.",
        where=f"{len(sizes)} sizes; C/(N D) by size: {shorts(typical)}",
        bias=_drift_bias(group, drift, figures),
        remedy=(
            "Rising to 6 with N is what parameters that cost no FLOP (embeddings) do: log "
            "params_core and read N from it, columns={'params': 'params_core'}."
            if free
            else "Recount the FLOP of one step by hand for the smallest and the largest size. A "
            "convolution costs its weights times its output positions; a wrong resolution, a "
            "missing backward pass or an attention term left out shows up like this. If the count "
            "is right, D_opt follows from the FLOP a sample of each size, never from 6 N D."
        ),
        figures=figures,
    )


def _constant_cost(group: Group, constant: float) -> Iterator[Finding]:
    if constant < 5.4:
        yield group.finding(
            "cost-below-6",
            Severity.WARNING,
            f"C/(N D) is {short(constant)} for every size; a dense network needs 6 (2 forward, 4 "
            "backward).",
            bias="Exponents are not touched; every budget is too low by the same factor.",
            remedy="About 2 is the forward pass alone, about 1 counts multiply-add as one.",
            figures={"constant": constant},
        )


def _uneven_cost(
    group: Group, counted: NDArray[np.bool_], constants: NDArray[np.float64]
) -> Iterator[Finding]:
    """Rows of one size whose C/(N D) differs from that of the others."""
    sizes = group.params[counted]
    ratio = constants / pd.Series(constants).groupby(sizes).transform("median").to_numpy()
    off = np.abs(np.log(ratio)) > np.log(1.05)
    if not off.any():
        return
    worst = int(np.argmax(np.abs(np.log(ratio))))
    low = bool(np.median(ratio[off]) < 1)
    samples = group.samples[counted][off]
    yield group.finding(
        "cost-uneven",
        Severity.WARNING,
        f"{off.sum()} of {len(ratio)} rows have a C/(N D) more than 5 % off that of other rows of "
        f"their size, the worst {ratio[worst]:.3g} times it (N = {short(sizes[worst])}).",
        where=f"samples from {short(samples.min())} to {short(samples.max())}",
        bias=(
            "These rows consumed more samples than their C pays for (a budget overshot by a whole "
            "batch?): their loss is too low for their C, mostly for large models at low budgets, "
            "where N_opt comes out too large and its exponent too low."
            if low
            else "These rows paid for more than their samples: their loss is too high for their C."
        ),
        remedy="Log the FLOP spent, not the budget aimed at.",
        figures={"rows": int(off.sum()), "worst": float(ratio[worst])},
    )


def _drift_bias(group: Group, drift: float, figures: dict[str, float]) -> str:
    text = (
        f"If the true cost of a parameter and sample is the same for every size, small models are "
        f"charged too {'much' if drift < 0 else 'little'}: the exponents of N_opt and of D_opt are "
        f"both too {'high' if drift < 0 else 'low'}."
    )
    optima = grid_optima(group, "loss")
    if optima is None or len(optima.budgets) < 3:
        return text
    exponent = optima.exponent()
    corrected = exponent / (1 - drift * exponent)
    figures |= {"exponent": exponent, "exponent_corrected": corrected}
    return (
        f"{text} By the grid N_opt grows as C^{exponent:.3f}; with a constant cost about "
        f"C^{corrected:.3f}."
    )


def nominal_compute(group: Group) -> Iterator[Finding]:
    """The compute spent against the budget that a row stands for."""
    budget = group.column("budget")
    named = np.isfinite(budget)
    if not named.any():
        return
    ratio, sizes = group.flops[named] / budget[named], group.params[named]
    off = np.abs(np.log(ratio)) > np.log(1.05)
    if not off.any():
        return
    worst = int(np.argmax(np.abs(np.log(ratio))))
    common = float(np.exp(np.median(np.log(ratio))))
    wild = np.abs(np.log(ratio)) > np.log(10)
    affected = np.unique(budget[named][off])
    # Within budgets: do large models get more than their share?
    middle = pd.Series(np.log(sizes)).groupby(budget[named]).transform("mean").to_numpy()
    centred = np.log(sizes) - middle
    tilt = slope(centred[off], np.log(ratio[off])) if off.sum() > 2 else float("nan")
    low = np.log(affected).mean() < np.log(np.unique(budget[named])).mean()
    bias = ""
    if np.isfinite(tilt) and abs(tilt) > 0.01:
        size = "large" if tilt > 0 else "small"
        end = "low" if low else "high"
        moves = (tilt > 0) != low
        bias = (
            f"Within a budget {size} models spend more (as N^{tilt:.2f}): N_opt is too {size} at "
            f"the {end} budgets, its exponent too {'high' if moves else 'low'}."
        )
    yield group.finding(
        "budget-missed",
        Severity.SERIOUS if wild.any() else Severity.WARNING,
        f"{off.sum()} of {named.sum()} rows spent more than 5 % off their budget, the worst "
        f"{ratio[worst]:.3g} times it (N = {short(sizes[worst])}, budget "
        f"{short(budget[named][worst])})."
        + (f" Typically {common:.3g} times: another unit?" if abs(np.log(common)) > 2.3 else ""),
        where=f"budgets {shorts(affected)}",
        bias=bias,
        remedy=(
            "Correct the column budget or flops: they differ by more than ten times."
            if wild.any()
            else "Fit against the counted flops, or leave out the budgets concerned: "
            f'where="budget >= {bound(_first_clean(budget[named], off), up=False)}".'
        ),
        figures={"rows": int(off.sum()), "worst": float(ratio[worst]), "typical": common},
    )


def _first_clean(budget: NDArray[np.float64], off: NDArray[np.bool_]) -> float:
    """The lowest budget from which on at most one row in ten is off."""
    levels = np.unique(budget)
    for level in levels:
        if off[budget >= level].mean() <= 0.1 and not off[budget == level].mean() > 0.1:
            return float(level)
    return float(levels[-1])


def repetition(group: Group) -> Iterator[Finding]:
    """Samples seen more than twice are worth less than fresh ones (Muennighoff et al. 2023)."""
    epochs = group.samples / group.column("unique_samples")
    epochs = np.where(np.isfinite(epochs), epochs, group.column("epochs"))
    known = np.isfinite(epochs)
    if not known.any():
        yield group.finding(
            "repetition-unknown",
            Severity.NOTE,
            "Neither unique_samples nor epochs is logged: repeated data cannot be seen.",
            remedy="Log unique_samples; the forecast can then say when data run out.",
        )
        return
    most = float(epochs[known].max())
    many = known & (epochs > 2)
    if not many.any():
        return
    yield group.finding(
        "repetition",
        Severity.WARNING if most > 4 else Severity.NOTE,
        f"{many.sum()} of {len(epochs)} rows saw their data more than twice, up to {most:.3g} "
        "times.",
        where=f"sizes {shorts(np.unique(group.params[many]))}",
        bias="Repeated samples lower the loss less than fresh ones. At one budget small models "
        "repeat most: N_opt is too large there, and its exponent too high where repetition grows "
        "with the budget.",
        remedy="Collect more data, or fit the form with a term for repeated data.",
        figures={"rows": int(many.sum()), "most": most},
    )


def free_parameters(group: Group) -> Iterator[Finding]:
    """Embeddings: with a share that changes with N, N and the core N scale differently."""
    share = 1 - group.column("params_core") / group.params
    known = np.isfinite(share)
    if not known.any():
        return
    largest, smallest = float(share[known].max()), float(share[known].min())
    if smallest < -1e-9:
        yield group.finding(
            "core-exceeds-params",
            Severity.SERIOUS,
            f"params_core is larger than params in {int((share < -1e-9).sum())} rows.",
            remedy="params counts all trainable parameters, params_core those without embeddings.",
        )
    elif largest > 0.1 and largest - smallest > 0.05:
        relation = slope(
            np.log(group.params[known]), np.log(group.params[known] * (1 - share[known]))
        )
        yield group.finding(
            "embedding-share",
            Severity.WARNING,
            f"Embeddings are {largest:.0%} of the parameters at one size and {smallest:.0%} at "
            f"another: params_core grows as params^{relation:.2f}.",
            bias=f"The exponent of N_opt in params_core is about {relation:.2f} times that in "
            "params.",
            remedy="Say which one is meant: params as it is, or columns={'params': 'params_core'}.",
            figures={"largest": largest, "smallest": smallest, "relation": relation},
        )
