"""What a forecast would have said at earlier origins: its average, and its widths.

An average of methods and the widening of an interval are learnt from past errors. Replayed at an
origin, they know only the errors that were on record by then.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from scaling_analysis.forecasting.combination import combine, fit_widening
from scaling_analysis.forecasting.scores import (
    COMBINED,
    PRIOR_SCALE,
    Record,
    prior_scale,
    weighed_by,
)
from scaling_analysis.forecasting.through_link import LINK


def replay(table: pd.DataFrame, members: Sequence[str]) -> pd.DataFrame:
    """Add the average of `members`, and what each interval would have been at its origin."""
    parts = [table]
    for quantity in table["quantity"].unique():
        scored = Record.of(table, weighed_by(quantity, table), members)
        record = Record.of(table, quantity, members)
        origin, budget = record.cells["origin"].to_numpy(), record.cells["budget"].to_numpy()
        average = np.full((2, len(record.cells)), np.nan)
        for cut in np.unique(origin):
            known = scored.until(cut)
            prior = fit_widening([], [], [], [], [], PRIOR_SCALE[str(quantity)])
            for ahead in np.unique(budget[origin == cut]):
                at = (origin == cut) & (budget == ahead)
                point, base = record.predicted[:, at], record.base[:, at]
                horizon = float(np.log(ahead / cut))
                prior_sd = float(prior.law_sd(horizon, record.cells["trend"].to_numpy()[at][0]))
                weights = known.weights(horizon, base, prior_sd)
                average[:, at] = combine(point, base, weights)
        combined = record.cells.assign(predicted=average[0], base=average[1])
        parts.append(combined.assign(quantity=quantity, method=COMBINED))
    every = pd.concat(parts, ignore_index=True)
    law_sd, dof = np.full(len(every), np.nan), np.full(len(every), np.nan)
    origin, budget, base, trend = (
        every[name].to_numpy(np.float64) for name in ("origin", "budget", "base", "trend")
    )
    for (quantity, method), rows in every.groupby(["quantity", "method"], sort=False):
        record = Record.of(rows, str(quantity), [str(method)])
        for cut in rows["origin"].unique():
            at = rows.index[origin[rows.index] == cut]
            expected = prior_scale(str(quantity), str(method), LINK in members)
            widening = record.until(cut).widening(0, expected)
            law_sd[at] = widening.sd(base[at], np.log(budget[at] / cut), trend[at])
            dof[at] = widening.dof
    se = every["observed_se"].fillna(0.0)
    return every.assign(law_sd=law_sd, sd=np.hypot(law_sd, se), dof=dof)
