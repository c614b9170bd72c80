"""The forecast as a document: what it says, what it rests on, and its file."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitStatus, ForecastError
from scaling_analysis.forecasting import allocation, inverse
from scaling_analysis.forecasting.ensemble import Ensemble, run_table, value_columns
from scaling_analysis.forecasting.members import BASELINES
from scaling_analysis.forecasting.scores import COMBINED, QUANTITIES
from scaling_analysis.forecasting.through_link import LINK
from scaling_analysis.results import Result
from scaling_analysis.runlog.selecting import row_digests

Array = NDArray[np.float64]

SCHEMA_VERSION = 1
KIND = "forecast"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Forecast(Result):
    """The compute-optimal runs of larger budgets, as they were forecast at `time_utc`.

    Examples
    --------
    >>> forecast = sa.forecast(runs, [1e19, 1e20])           # doctest: +SKIP
    >>> forecast.save("forecast.json")                       # doctest: +SKIP
    >>> forecast.predict_run(params=1e8, flops=1e19)         # doctest: +SKIP
    >>> forecast.flops_for(loss=0.12)                        # doctest: +SKIP
    """

    _error = ForecastError
    _written_by = "`scaling forecast`"

    table: pd.DataFrame
    """One row a (flops, method), "combined" among them: flops, extrapolation (C / C_max), method,
    params_opt [count] with _lo and _hi, params_near_lo and _hi (sizes whose expected loss is within
    `tolerance` of the best), samples_opt [count], loss [nats/action] and mean_return [points] at
    the optimum, each with _lo and _hi (the expected value, the law's error included) and _run_lo
    and _run_hi (one new run)."""
    level: float
    """Level of the intervals in the table."""
    tolerance: float
    """Share of the loss that near-optimal sizes may lose."""
    ensemble: Ensemble
    """The fitted methods with their replicates, their hindcast, the link, the noise of runs."""
    rows: pd.DataFrame
    """run_id, samples, budget, digest (of the content) of every row that was fitted."""
    content_hash: str
    """Hash of the fitted rows, independent of file format and row order."""
    agent: str
    task: str
    protocol: str
    """Evaluation protocol of the returns; "" where the log has none."""
    seed: int | None
    """Seed of the replicates; None where a generator was passed on."""
    versions: Mapping[str, str]
    """Versions of python and of the packages that made it."""
    time_utc: str
    """When it was made, ISO 8601."""
    hash: str
    """Hash of everything else in the forecast; plans name it and files are checked against it."""
    status: FitStatus
    messages: tuple[str, ...]

    @classmethod
    def dated(cls, **values: Any) -> Self:
        """A forecast from everything but its hash."""
        made = cls(hash="", **values)
        return replace(made, hash=_hash(made.to_dict()))

    def params_opt(self, flops: ArrayLike) -> Array:
        """N_opt(C) [count] by the average of methods; the shape of `flops`."""
        c = np.asarray(flops, dtype=np.float64)
        return np.exp(self.ensemble.predict("params_opt", c.ravel()).log).reshape(c.shape)

    def flops_per_sample(self, params: ArrayLike) -> Array:
        """FLOP of a sample [FLOP] for models of N `params`."""
        return self.ensemble.cost.flops_per_sample(params)

    def predict_run(
        self,
        params: ArrayLike,
        flops: ArrayLike,
        level: float | None = None,
        method: str = COMBINED,
        runs: int = 1,
    ) -> pd.DataFrame:
        """Forecast of runs of N `params` on C `flops`, on the frontier or off it.

        Parameters
        ----------
        params, flops : array_like
            Broadcast against one another.
        level : float, optional
            The forecast's own by default.
        method : str
            "combined", a method or a baseline.
        runs : int
            _run_lo and _run_hi are those of the mean of this many new runs.

        Returns
        -------
        DataFrame
            params, flops, and loss and mean_return with _lo, _hi, _run_lo and _run_hi.
        """
        level = self.level if level is None else level
        return run_table(self.ensemble, params, flops, level, method, runs)

    def flops_for(
        self,
        *,
        loss: ArrayLike | None = None,
        mean_return: ArrayLike | None = None,
        level: float | None = None,
        limit: float | None = None,
    ) -> pd.DataFrame:
        """Compute, N and D that reach a loss or a mean return; see `inverse.flops_for`."""
        level = self.level if level is None else level
        return inverse.flops_for(
            self.ensemble, loss=loss, mean_return=mean_return, level=level, limit=limit
        )

    def capped(
        self,
        flops: ArrayLike,
        *,
        max_params: float = np.inf,
        max_samples: float = np.inf,
        level: float | None = None,
    ) -> pd.DataFrame:
        """The best runs under a cap on N or on D; see `allocation.capped`."""
        level = self.level if level is None else level
        return allocation.capped(self.ensemble, flops, level, max_params, max_samples)

    def misallocation(
        self, flops: ArrayLike, params: ArrayLike, level: float | None = None
    ) -> pd.DataFrame:
        """Excess loss and wasted compute of sizes other than N_opt; see `allocation`."""
        level = self.level if level is None else level
        return allocation.misallocation(self.ensemble, flops, params, level)

    def weights(self) -> pd.DataFrame:
        """Weight of each method in the average: flops, quantity, method, weight."""
        rows = [
            {"flops": c, "quantity": quantity, "method": name, "weight": weight}
            for c in self.table["flops"].unique()
            for quantity in QUANTITIES
            if self.ensemble.forecasts(quantity, COMBINED)
            for name, weight in self.ensemble.weights(quantity, c).items()
        ]
        return pd.DataFrame(rows)

    def return_routes(self, level: float | None = None) -> pd.DataFrame:
        """The mean return at the optimum by every way to it, side by side.

        Returns
        -------
        DataFrame
            One row a (flops, route): "direct" by each method for the return over compute, "link"
            through the forecast loss and the link from loss to return, "combined" their average,
            "baseline" for persistence and log-line; method, mean_return [points] with _lo, _hi and
            _run_lo, _run_hi, weight in the average. Empty for a log without returns.
        """
        ensemble, level = self.ensemble, self.level if level is None else level
        quantity, flops = "mean_return_opt", self.table["flops"].unique()
        if "mean_return" not in ensemble.noise or not ensemble.forecasts(quantity, COMBINED):
            return pd.DataFrame()
        weights = [ensemble.weights(quantity, float(c)) for c in flops]
        parts = []
        for name in [COMBINED, *ensemble.methods(quantity), *BASELINES]:
            if not ensemble.forecasts(quantity, name):
                continue
            law = ensemble.predict(quantity, flops, method=name)
            route = {COMBINED: "combined", LINK: "link"} | dict.fromkeys(BASELINES, "baseline")
            parts.append(
                pd.DataFrame(
                    {"flops": flops, "route": route.get(name, "direct"), "method": name}
                    | value_columns("mean_return", law, ensemble, level)
                    | {"weight": [each.get(name, np.nan) for each in weights]}
                )
            )
        return pd.concat(parts, ignore_index=True).sort_values(
            "flops", kind="stable", ignore_index=True
        )

    def summary(self) -> str:
        """Status and messages first, then the average of methods and each method beside it."""
        lines = [f"forecast: {self.status}", *(f"  {m}" for m in self.messages)]
        percent = f"{self.level:.0%}"
        routes = self.return_routes() if self.ensemble.link is not None else pd.DataFrame()
        for c, at in self.table.groupby("flops", sort=True):
            best = at[at["method"] == COMBINED].iloc[0]
            lines.append(f"C = {c:.4g} FLOP, {best['extrapolation']:.3g} times the largest budget")
            lines.append(
                f"  N_opt {_range(best, 'params_opt')} ({percent}){_near(best, self.tolerance)}"
            )
            lines.append(f"  D_opt {_range(best, 'samples_opt')}")
            for value in ("loss", "mean_return"):
                if np.isfinite(best[value]):
                    lines.append(
                        f"  {value} {_range(best, value)}; a new run "
                        f"{best[f'{value}_run_lo']:.4g} to {best[f'{value}_run_hi']:.4g}"
                    )
            for _, other in at[at["method"] != COMBINED].iterrows():
                lines.append(
                    f"    {other['method']:<22} N_opt {other['params_opt']:.3g}"
                    + "".join(
                        f", {value} {other[value]:.4g}"
                        for value in ("loss", "mean_return")
                        if np.isfinite(other[value])
                    )
                )
            for way in routes[routes["flops"] == c].to_dict("records") if len(routes) else ():
                if way["route"] in ("direct", "link") and np.isfinite(way["mean_return"]):
                    how = "through the link" if way["route"] == "link" else f"by {way['method']}"
                    lines.append(
                        f"    mean_return {how} {way['mean_return']:.4g} "
                        f"[{way['mean_return_lo']:.4g}, {way['mean_return_hi']:.4g}], "
                        f"weight {way['weight']:.2f}"
                    )
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """`table`: one row a budget and method."""
        return self.table.copy()

    def _shown(self) -> pd.DataFrame:
        best = self.table[self.table["method"] == COMBINED].drop(columns="method")
        return best.set_index("flops").dropna(axis=1, how="all").T

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "table": encode_frame(self.table),
            "level": self.level,
            "tolerance": self.tolerance,
            "ensemble": self.ensemble.to_dict(),
            "rows": encode_frame(self.rows),
            "content_hash": self.content_hash,
            "agent": self.agent,
            "task": self.task,
            "protocol": self.protocol,
            "seed": self.seed,
            "versions": dict(self.versions),
            "time_utc": self.time_utc,
            "hash": self.hash,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The forecast that `to_dict` wrote.

        Raises
        ------
        ForecastError
            This is no forecast, or it was changed after it was made.
        """
        if data.get("kind") != KIND or data.get("schema_version") != SCHEMA_VERSION:
            raise ForecastError(
                f"not a forecast of schema {SCHEMA_VERSION}: kind={data.get('kind')!r}, "
                f"schema_version={data.get('schema_version')!r}"
            )
        if _hash(data) != data["hash"]:
            raise ForecastError("the forecast was changed after it was made: its hash disagrees")
        plain = {k: v for k, v in data.items() if k not in ("kind", "schema_version")}
        return cls(
            **plain
            | {
                "table": decode_frame(data["table"]),
                "rows": decode_frame(data["rows"]),
                "ensemble": Ensemble.from_dict(data["ensemble"]),
                "status": FitStatus(data["status"]),
                "messages": tuple(data["messages"]),
            }
        )


def fingerprints(rows: pd.DataFrame) -> pd.DataFrame:
    """run_id, samples, budget and digest of every row, sorted: which rows, and what they held."""
    budget = rows.get("budget", np.nan)
    frame = pd.DataFrame(
        {
            "run_id": rows["run_id"].astype(str),
            "samples": rows["samples"].astype(np.float64),
            "budget": budget,
            "digest": [digest.hex() for digest in row_digests(rows)],
        }
    )
    return frame.sort_values(["run_id", "samples", "budget", "digest"], ignore_index=True)


def now_utc() -> str:
    """The time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _hash(document: Mapping[str, Any]) -> str:
    content = {key: value for key, value in document.items() if key != "hash"}
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _near(row: pd.Series, tolerance: float) -> str:
    """The sizes that are nearly as good; one that is NaN lies beyond where they were looked for."""
    ends = np.array([row["params_near_lo"], row["params_near_hi"]], dtype=np.float64)
    known = np.isfinite(ends)
    if not known.any():
        return ""
    words = [
        f"{word} {end:.3g}" for word, end, ok in zip(("from", "to"), ends, known, strict=True) if ok
    ]
    return f", within {tolerance:.0%} of the best {' '.join(words)}"


def _range(row: pd.Series, name: str) -> str:
    return f"{row[name]:.4g} [{row[f'{name}_lo']:.4g}, {row[f'{name}_hi']:.4g}]"
