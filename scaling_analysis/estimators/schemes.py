"""The schemes of `bootstrap`: from a fit and its rows to weights or responses."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import BootstrapError
from scaling_analysis.uncertainty import resampling

Array = NDArray[np.float64]

MIN_IN_STRATUM = 3
"""Fewer units of a size cannot stand for their population."""
_ABSORBED = 3
"""Of the runs' own deviations, a function of N, a fit absorbs level, slope and curvature."""

_MOST_PROBES = 200
_MOST_OF_FEW = 64
_PROBED_UNITS = 1_600
"""Units times probes: the size of the noise is known to about one over the root of it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Draws:
    """Weights and responses for the replicates of one fit."""

    fit: Any
    """The fit to the runs as they are, a `FrontierFit`."""
    groups: NDArray[np.intp]
    """(rows,) the unit of each row, 0 ... G - 1."""
    n_resamples: int
    episodes: pd.DataFrame | None
    """Returns of single episodes."""

    def make(
        self, scheme: str, rng: np.random.Generator, probe_rng: np.random.Generator
    ) -> tuple[Array | None, Array | None, tuple[str, ...]]:
        """Weights (R, rows), responses (R, rows), and what a reader has to know of them.

        `rng` makes the replicates; `probe_rng` whatever is measured beforehand, so that the draws
        of two estimators on the same rows are the same.
        """
        match scheme:
            case "components":
                return self._components(rng, probe_rng)
            case "jackknife":
                return resampling.delete_one_weights(self.groups), None, ()
            case "pairs":
                return self._pairs(rng)
            case "rows":
                return self._rows(rng)
            case "dirichlet":
                weights = resampling.dirichlet_weights(rng, self.n_resamples, self.groups)
                return weights, None, ()
            case "wild":
                noise = resampling.wild_noise(rng, self.n_resamples, self.groups, self._residuals())
                return None, self._add(noise), ()
            case _:
                return self._parametric(rng)

    def _observed(self) -> Array:
        return self.fit.rows[self.fit.target].to_numpy(dtype=float)

    def _in_logs(self) -> bool:
        """Noise of losses and of positive returns is relative: it shrinks as they do.

        Unless returns were fitted as they are: a success rate near 0 is as noisy as one near 1.
        """
        space = getattr(self.fit, "residual_space", None)
        if self.fit.target == "mean_return" and space == "linear":
            return False
        return bool((self._observed() > 0).all())

    def _centre(self) -> Array:
        """(rows,) fitted values; the observation where a fit gives none that noise can act on."""
        fitted, y = np.asarray(self.fit.fitted_values(), dtype=float), self._observed()
        good = np.isfinite(fitted) & ((fitted > 0) | (not self._in_logs()))
        return np.where(good, fitted, y)

    def _residuals(self) -> Array:
        y, centre = self._observed(), self._centre()
        return np.log(y / centre) if self._in_logs() else y - centre

    def _add(self, noise: Array) -> Array:
        centre = self._centre()
        return centre * np.exp(noise) if self._in_logs() else centre + noise

    def _after_refit(self, noise: Array) -> Array:
        """Residuals of refits to the fitted values plus noise."""
        response = self._add(noise)
        fitted = np.asarray(self.fit.refit(response=response).fitted_values(), dtype=float)
        if self._in_logs():
            good = np.isfinite(fitted) & (fitted > 0)
            return np.log(response / np.where(good, fitted, response))
        return response - np.where(np.isfinite(fitted), fitted, response)

    def _probes(self) -> int:
        """Refits to simulated noise: no fewer than tell its size to about 2.5 %.

        A bootstrap of few replicates, as in a hindcast, is itself no more precise, and would
        spend most of its time on probes.
        """
        units = int(self.groups.max()) + 1
        enough = min(_MOST_OF_FEW, -(-_PROBED_UNITS // units))
        return min(_MOST_PROBES, max(enough, self.n_resamples // 4))

    def _components(
        self, rng: np.random.Generator, probe_rng: np.random.Generator
    ) -> tuple[None, Array, tuple[str, ...]]:
        try:
            components = resampling.estimate_components(
                probe_rng,
                self.groups,
                self._residuals(),
                self._after_refit,
                probes=self._probes(),
            )
        except ValueError as error:
            raise BootstrapError(
                f"scheme='components' sees no noise: {error}. Use scheme='jackknife', or "
                "scheme='parametric' with standard errors"
            ) from error
        units = int(self.groups.max()) + 1
        noise = resampling.component_noise(
            rng, self.n_resamples, self.groups, components, max(units - _ABSORBED, 2)
        )
        size = "{:.2%}" if self._in_logs() else "{:.3g}"
        said = f"noise of {size.format(components.row)} a row"
        if units < len(self.groups):
            said += f" and {size.format(components.group)} a unit"
        return None, self._add(noise), (f"{said} (standard deviation)",)

    def _pairs(self, rng: np.random.Generator) -> tuple[Array, Array | None, tuple[str, ...]]:
        size = self.fit.rows.groupby(self.groups)["params"].max().to_numpy(dtype=float)
        _, strata, count = np.unique(size, return_inverse=True, return_counts=True)
        rest = count[strata] < MIN_IN_STRATUM
        messages: tuple[str, ...] = ()
        if rest.sum() >= MIN_IN_STRATUM:
            strata = np.where(rest, strata.max() + 1, strata)
            messages = (
                f"{rest.sum()} runs of sizes with fewer than three runs are drawn together: a "
                "replicate misses some sizes, and budgets lose their optimum",
            )
        elif rest.any():
            strata = np.where(rest, -1, strata)
            messages = (f"{rest.sum()} runs stay as they are: their sizes have no third run",)
        weights = resampling.draw_weights(rng, self.n_resamples, self.groups, strata)
        fixed = strata[self.groups] < 0
        if not fixed.any():
            return weights, None, messages
        noise = self._evaluation_noise(rng)
        if noise is None:
            return weights, None, messages
        return weights, self._observed() + np.where(fixed, noise, 0.0), messages

    def _rows(self, rng: np.random.Generator) -> tuple[Array, None, tuple[str, ...]]:
        if int(self.groups.max()) + 1 < len(self.groups):
            raise BootstrapError(
                "scheme='rows' takes rows as independent, but runs have several rows here: its "
                "nominal 90 % interval covers about half. Use 'components', 'jackknife' or 'pairs'"
            )
        rows = np.arange(len(self.groups))
        strata = np.zeros(len(rows), dtype=np.intp)
        if "budget" in self.fit.rows:
            strata = pd.factorize(self.fit.rows["budget"])[0].astype(np.intp)
        return resampling.draw_weights(rng, self.n_resamples, rows, strata), None, ()

    def _parametric(self, rng: np.random.Generator) -> tuple[None, Array, tuple[str, ...]]:
        noise = self._evaluation_noise(rng)
        if noise is not None:
            message = "evaluation noise only: the spread between runs is not in these intervals"
            # Around what was observed, as resampled episodes are.
            response = self._observed() + noise
            if self._in_logs():
                response = np.maximum(response, 1e-3 * self._observed())
            return None, response, (message,)
        residuals = self._residuals()
        if not (np.abs(residuals) > 1e-10).any():
            raise BootstrapError("scheme='parametric' has no standard errors and no residuals")
        scale = np.sqrt(np.mean(residuals**2))
        noise = scale * rng.standard_normal((self.n_resamples, len(residuals)))
        message = "no standard errors: noise of the size of the residuals, independent by row"
        return None, self._add(noise), (message,)

    def _evaluation_noise(self, rng: np.random.Generator) -> Array | None:
        """(R, rows) noise of the evaluation in the target's unit, or None where it is unknown."""
        rows, target = self.fit.rows, self.fit.target
        if self.episodes is not None and target == "mean_return":
            return resampling.episode_noise(rng, self.n_resamples, self._returns())
        column = "loss_se" if target == "loss" else "return_se"
        if column not in rows or not np.isfinite(rows[column]).all():
            return None
        return rng.standard_normal((self.n_resamples, len(rows))) * rows[column].to_numpy(float)

    def _returns(self) -> list[Array]:
        """The returns of the episodes of every row."""
        table = self.episodes
        assert table is not None
        bad = ~np.isfinite(table["return"].to_numpy(dtype=float))
        if bad.any():
            raise BootstrapError(
                f"{int(bad.sum())} episodes have no return, the first of run "
                f"{table['run_id'].to_numpy()[bad][0]!r}: leave them out and say so; a missing "
                "return is not 0"
            )
        keys = ["run_id", "samples"]
        if "budget" in table and table["budget"].notna().all():
            keys.append("budget")
        by_key = {key: part.to_numpy(dtype=float) for key, part in table.groupby(keys)["return"]}
        found = []
        for row in self.fit.rows[keys].itertuples(index=False, name=None):
            if row not in by_key:
                raise BootstrapError(
                    f"the episode table has no episodes of run {row[0]!r} at {row[1]:g} samples"
                )
            found.append(by_key[row])
        return found
