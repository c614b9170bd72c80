"""The episode table of a run log, row by row."""

from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError

Array = NDArray[np.float64]
Statistic = Literal["mean", "median", "iqm"]


def read_episodes(rows: pd.DataFrame, episodes: pd.DataFrame) -> list[Array]:
    """The returns of the episodes of every row of a log, in the order of the rows.

    Raises
    ------
    FitError
        A column is missing, an episode's return is no number, or a row has fewer than two episodes.
    """
    for name in ("run_id", "samples", "return"):
        if name not in episodes:
            raise FitError(f"the episode table has no column {name!r}; see load_episodes")
    bad = ~np.isfinite(episodes["return"].to_numpy(dtype=float))
    if bad.any():
        first = episodes[bad].iloc[0]
        raise FitError(
            f"{int(bad.sum())} episodes have no return, the first of run {first['run_id']!r} at "
            f"{first['samples']:g} samples: leave them out and say so; a missing return is not 0"
        )
    keys = ["run_id", "samples"]
    if "budget" in rows and "budget" in episodes and episodes["budget"].notna().all():
        keys.append("budget")
    by_key = {key: part.to_numpy(dtype=float) for key, part in episodes.groupby(keys)["return"]}
    found = []
    for key in rows[keys].itertuples(index=False, name=None):
        own = by_key.get(key, np.empty(0))
        if len(own) < 2:
            raise FitError(
                f"run {key[0]!r} at {key[1]:g} samples has {len(own)} episodes in the table: two "
                "are needed to see how they spread. Leave the row out (status 'excluded')"
            )
        found.append(own)
    return found
