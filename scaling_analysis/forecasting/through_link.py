"""The return through the loss: a forecast of the loss, and the link from loss to return."""

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.estimators.link import ReturnLink
from scaling_analysis.forecasting.bounds import Bounds
from scaling_analysis.forecasting.combination import robust_sd

Array = NDArray[np.float64]
LinkEstimator = Callable[[pd.DataFrame], ReturnLink]

LINK = "link"
"""Name of this way among the methods for the mean return."""


def find_bounds(link: LinkEstimator | None, runs: pd.DataFrame) -> Bounds | None:
    """The ends that an estimator of the link was given; None without any, or without a link."""
    if link is None:
        return None
    try:
        return Bounds.of(link(runs))
    except FitError:
        return None


def link_forecast(
    link: Bootstrap, log_loss: Array, loss_sd: Array, bounds: Bounds | None = None
) -> tuple[Array, Array]:
    """Return at forecast losses, and its spread from the loss, the link and its forms.

    In logs, or with `bounds` as z between them. The part of the loss is half the difference of the
    returns one standard deviation to either side, so that a link that flattens there says so.
    """

    def value(fit: ReturnLink, at: Array) -> Array:
        with np.errstate(invalid="ignore", divide="ignore"):
            log_return = np.log(fit.predict(np.exp(at)))
        return log_return if bounds is None else bounds.enter(log_return)

    better, worse = (value(link.fit, log_loss + side * loss_sd) for side in (-1.0, 1.0))
    of_link = robust_sd(value(link.replicates, log_loss)[link.valid])
    of_forms = link.fit.disagreement(np.exp(log_loss))
    if bounds is not None:
        with np.errstate(invalid="ignore", divide="ignore"):
            of_forms = of_forms * bounds.slope(np.log(link.fit.predict(np.exp(log_loss))))
    spread = np.sqrt((better - worse) ** 2 / 4 + of_link**2 + of_forms**2)
    return value(link.fit, log_loss), spread
