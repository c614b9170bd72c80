"""What curves and surfaces share: how wide a forecast's interval is."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.uncertainty.rolling_origin import GROWTH

Array = NDArray[np.float64]

ORIGIN_SHARE = 0.15
"""Part of the replayed squared errors that the present average still makes: it has seen more."""
FORMS_SHARE = 0.25
"""Part of the variance between forms that is error of their mean."""
ORIGIN_FREEDOM = 0.5
"""Degrees of freedom of a forecast's error beside one for each effective origin."""


def average_variance(between: Array, growth: float, distance: Array, sampling: float) -> Array:
    """Variance of an average of forms about the truth, (m,).

    Parameters
    ----------
    between : (m,)
        Weighted variance between the forms.
    growth : float
        kappa^2 of the replayed forecasts, see `rolling_origin.Replay`.
    distance : (m,)
        How far beyond the data, in logs; 0 within.
    sampling : float
        Variance of a fitted value within the data.
    """
    return FORMS_SHARE * between + ORIGIN_SHARE * growth * distance ** (2 * GROWTH) + sampling


def interval_columns(
    z: Array,
    variance: Array,
    freedom: Array | float,
    noise: float,
    noise_freedom: float,
    level: float,
    back: Callable[[Array], Array],
) -> dict[str, Array]:
    """value, lo, hi, run_lo, run_hi from a forecast z, (m,), by `back` to the response.

    Both variances are estimates, of the curve on `freedom` and of a new observation on
    `noise_freedom` degrees of freedom; their sum has those of Welch and Satterthwaite.
    """
    from scipy.stats import t

    if not 0 < level < 1:
        raise FitError(f"level={level!r}: it is a probability, such as 0.9")
    both = variance + noise
    joint = both**2 / (variance**2 / freedom + noise**2 / noise_freedom)
    law = t.ppf(0.5 + level / 2, freedom) * np.sqrt(variance)
    run = t.ppf(0.5 + level / 2, joint) * np.sqrt(both)
    ends = {"value": z, "lo": z - law, "hi": z + law, "run_lo": z - run, "run_hi": z + run}
    return {name: back(end) for name, end in ends.items()}
