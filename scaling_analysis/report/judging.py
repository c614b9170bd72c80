"""The chapter on the verdict: planned runs, the choice of N, scores."""

import numpy as np
import pandas as pd

from scaling_analysis.forecasting.scores import COMBINED
from scaling_analysis.forecasting.verification import Verification
from scaling_analysis.report import pictures
from scaling_analysis.report.answering import TARGETS, verdict_sentence
from scaling_analysis.report.model import Section, Table
from scaling_analysis.report.wording import (
    UNITS,
    WORDS,
    clipped,
    compute,
    count,
    interval,
    percent,
    quantity,
)


def verdict_section(verification: Verification | None) -> Section | None:
    """Every planned run beside its interval; None without a verification."""
    if verification is None:
        return None
    level = percent(verification.level)
    tables, figures = [], []
    for target in TARGETS:
        at = verification.runs[verification.runs["target"] == target]
        if at.empty:
            continue
        if (at["status"] == "ok").any():
            figures.append(pictures.verification(verification, target))
        tables.append(
            Table(
                caption=(
                    f"Planned runs: {WORDS[target]} [{UNITS[target]}] observed against the {level} "
                    "interval of a new run, stated before they were trained. The error is in "
                    "half-widths of the interval: its ends are at -1 and +1."
                ),
                columns=("run", "C [FLOP]", "N", "forecast", level, "observed", "error", "inside"),
                rows=tuple(_verdict_row(row) for _, row in at.iterrows()),
                text_columns=(0, 7),
            )
        )
    if len(verification.decisions):
        tables.append(
            Table(
                caption=(
                    "The choice of N: does the forecast size beat its neighbours? Held or missed: "
                    "by more than two standard errors of the seeds; tied: within."
                ),
                columns=("C [FLOP]", "N", "neighbour", "difference", "standard error", "verdict"),
                rows=tuple(
                    (
                        compute(row["flops"]),
                        count(row["params"]),
                        count(row["neighbour"]),
                        percent(row["difference"], signed=True),
                        percent(row["se"]),
                        str(row["verdict"]),
                    )
                    for _, row in verification.decisions.iterrows()
                ),
                text_columns=(5,),
            )
        )
    if len(verification.scores):
        tables.append(
            Table(
                caption=(
                    "Interval scores of these runs in logs (lower is better: width, and a fine "
                    "for every miss), beside each method alone and the baselines."
                ),
                columns=("of", "method", "runs", "inside", "error", "width", "score"),
                rows=tuple(
                    (
                        WORDS[str(row["target"])],
                        str(row["method"]),
                        str(int(row["runs"])),
                        percent(row["coverage"]),
                        percent(row["error"]),
                        percent(row["width"]),
                        quantity(row["interval_score"]),
                    )
                    for _, row in verification.scores.iterrows()
                ),
                text_columns=(0, 1),
                emphasis=tuple(
                    int(i) for i in np.flatnonzero(verification.scores["method"] == COMBINED)
                ),
            )
        )
    return Section(
        key="verification",
        title="Verification: was it right?",
        paragraphs=(verdict_sentence(verification), *verification.messages),
        figures=tuple(figures),
        tables=tuple(tables),
    )


def _verdict_row(row: pd.Series) -> tuple[str, ...]:
    ok = row["status"] == "ok"
    return (
        clipped(str(row["run_id"]), 60),
        compute(row["budget"]),
        count(row["params"]),
        quantity(row["predicted"]),
        interval(row["lo"], row["hi"]),
        quantity(row["observed"]) if ok else str(row["status"]),
        f"{row['error']:+.2f}" if ok else "",
        ("yes" if row["inside"] else "NO") if ok else "",
    )
