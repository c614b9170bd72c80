"""What the bootstrap, the hindcast and the forecast need of a fitted law."""

from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.errors import FitStatus

Array = NDArray[np.float64]


@runtime_checkable
class FrontierFit(Protocol):
    """A law of loss or return that knows the compute-optimal frontier.

    One fit and all the replicates of a bootstrap are instances of the same class: in the latter
    the parameters carry a leading axis R, and every method returns (R,) + the shape of its input.
    """

    @property
    def method(self) -> str:
        """Name of the estimator with the options that change its answer, "isoflop-grid" or so."""
        ...

    @property
    def target(self) -> str:
        """ "loss" [nats/action] or "mean_return" [points]."""
        ...

    @property
    def residual_space(self) -> str:
        """ "log" or "linear": the space in which residuals were taken."""
        ...

    @property
    def status(self) -> FitStatus: ...

    @property
    def messages(self) -> tuple[str, ...]: ...

    @property
    def rows(self) -> pd.DataFrame:
        """The rows of the run log that were fitted, in the order of `weights` and `response`."""
        ...

    def refit(self, weights: ArrayLike | None = None, response: ArrayLike | None = None) -> Self:
        """The same law refitted to R sets of `weights` or of responses, each (R, rows)."""
        ...

    def fitted_values(self) -> Array:
        """Expected value of every fitted row: (rows,) or (R, rows)."""
        ...

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count]."""
        ...

    def samples_opt(self, flops: ArrayLike) -> Array:
        """D_opt(C) [count]."""
        ...

    def value_opt(self, flops: ArrayLike) -> Array:
        """L_opt(C) [nats/action] or R_opt(C) [points]."""
        ...

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        """Expected value of a run of N `params` that spends C `flops`, on the frontier or off."""
        ...

    def valid(self) -> NDArray[np.bool_]:
        """Which replicates are a valid fit: () or (R,)."""
        ...

    def summary(self) -> str: ...

    def to_dict(self) -> dict[str, Any]: ...
