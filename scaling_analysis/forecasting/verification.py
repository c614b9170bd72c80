"""Was the forecast right? Planned runs against what was said before they existed."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

import numpy as np
import pandas as pd

from scaling_analysis.encoding import decode_frame, encode_frame
from scaling_analysis.errors import FitStatus, VerifyError
from scaling_analysis.forecasting.judging import TARGETS, decide, judge, score
from scaling_analysis.forecasting.plan_files import split_budgets
from scaling_analysis.forecasting.result import Forecast, fingerprints
from scaling_analysis.results import Result
from scaling_analysis.runlog import load_runs

SCHEMA_VERSION = 1
KIND = "verification"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, repr=False)
class Verification(Result):
    """Verdict on a forecast: its intervals, its choice of N, and its score beside the baselines."""

    _error = VerifyError
    _written_by = "`scaling verify`"

    runs: pd.DataFrame
    """One row a planned (run, budget, target): run_id, budget, params_planned, params, flops,
    target, status ("ok", "missing" or the log's), observed, predicted, lo, hi (interval of a new
    run at `level`, for the counted N and C), inside, error (log observed over predicted, in
    half-widths of the interval: +-1 is its edge)."""
    decisions: pd.DataFrame
    """One row a budget and neighbouring size: flops, params (the forecast's choice), neighbour,
    value, value_neighbour (means over seeds), difference (log value of the neighbour over that of
    the choice, signed so that above 0 the choice is better), se (from the spread of the seeds),
    verdict ("held", "tied" or "missed": beyond two standard errors or within)."""
    scores: pd.DataFrame
    """target, method, runs, coverage, error (root mean square log error), width (median full width
    in logs), interval_score (mean, in logs, lower is better) for the combined forecast, each method
    and the baselines."""
    level: float
    forecast_hash: str
    forecast_time_utc: str
    unplanned: int
    """New rows of the log that no plan asked for; they are not judged."""
    status: FitStatus
    """`DOUBTFUL` where planned runs are missing or diverged, or their time is unknown."""
    messages: tuple[str, ...]

    def summary(self) -> str:
        """Status and messages first, then hits, decisions and scores."""
        lines = [f"verification: {self.status}", *(f"  {m}" for m in self.messages)]
        for target in TARGETS:
            judged = self.runs[(self.runs["target"] == target) & (self.runs["status"] == "ok")]
            if judged.empty:
                continue
            lines.append(
                f"{target}: {int(judged['inside'].sum())} of {len(judged)} planned runs inside "
                f"their {self.level:.0%} interval"
            )
            for _, row in judged.iterrows():
                lines.append(
                    f"  {row['run_id']} at {row['budget']:.3g} FLOP: {row['observed']:.4g}, "
                    f"forecast {row['predicted']:.4g} [{row['lo']:.4g}, {row['hi']:.4g}], "
                    f"{row['error']:+.2f} half-widths, {'inside' if row['inside'] else 'OUTSIDE'}"
                )
        for _, row in self.decisions.iterrows():
            lines.append(
                f"N = {row['params']:.4g} against {row['neighbour']:.4g} at {row['flops']:.3g} "
                f"FLOP: {row['verdict']} ({row['difference']:+.2%}, standard error {row['se']:.2%})"
            )
        if not self.scores.empty:
            lines.append("interval scores in logs (lower is better):")
            text = self.scores.to_string(index=False, float_format=lambda v: f"{v:.3f}")
            lines += [f"  {line}" for line in text.splitlines()]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """`runs`: one row a planned run, budget and target."""
        return self.runs.copy()

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": KIND,
            "runs": encode_frame(self.runs),
            "decisions": encode_frame(self.decisions),
            "scores": encode_frame(self.scores),
            "level": self.level,
            "forecast_hash": self.forecast_hash,
            "forecast_time_utc": self.forecast_time_utc,
            "unplanned": self.unplanned,
            "status": str(self.status),
            "messages": list(self.messages),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        if data.get("kind") != KIND or data.get("schema_version") != SCHEMA_VERSION:
            raise VerifyError(
                f"not a verification of schema {SCHEMA_VERSION}: kind={data.get('kind')!r}, "
                f"schema_version={data.get('schema_version')!r}"
            )
        plain = {k: v for k, v in data.items() if k not in ("kind", "schema_version")}
        runs, scores = decode_frame(data["runs"]), decode_frame(data["scores"])
        return cls(
            **plain
            | {
                "runs": runs.assign(inside=runs["inside"].astype(bool)),
                "decisions": decode_frame(data["decisions"]),
                "scores": scores.astype({"runs": int}),
                "status": FitStatus(data["status"]),
                "messages": tuple(data["messages"]),
            }
        )


def verify(
    forecast: Forecast, plan: pd.DataFrame, runs: pd.DataFrame, *, level: float | None = None
) -> Verification:
    """Judge a forecast by the runs that were planned to test it.

    Parameters
    ----------
    forecast : Forecast
    plan : DataFrame
        Runs planned around it (`plan_forecast`); every row has to name this forecast.
    runs : DataFrame
        Any run log that holds the planned runs; rows that the forecast was fitted on are recognised
        and never judged.
    level : float, optional
        Level of the intervals; the forecast's own by default.

    Returns
    -------
    Verification

    Raises
    ------
    VerifyError
        The plan tests another forecast, a planned run is among the fitted ones, a fitted row has
        changed since, or a planned run is older than the forecast.

    Examples
    --------
    >>> plan = sa.plan_forecast(forecast, 1e13, seeds=1)
    >>> said = forecast.predict_run(plan["params"], plan["budget"])
    >>> new = plan[["run_id", "params", "samples", "budget"]].assign(
    ...     flops=1e13, loss=said["loss"], time_utc="2126-01-01T00:00:00Z"
    ... )
    >>> verdict = verify(forecast, plan, pd.concat([runs, new]))
    >>> int(verdict.runs["inside"].sum()), verdict.decisions["verdict"].tolist()
    (3, ['held', 'held'])
    """
    level = forecast.level if level is None else level
    log = load_runs(runs)
    _check_plan(forecast, plan)
    _check_history(forecast, log)
    planned = _planned_rows(plan, log)
    messages = _check_age(forecast, planned)
    judged = judge(forecast, planned, level)
    for status, rows in judged[judged["status"] != "ok"].groupby("status"):
        named = rows[["run_id", "budget"]].drop_duplicates().itertuples(index=False, name=None)
        messages.append(f"{status}: " + ", ".join(f"{run} at {c:g} FLOP" for run, c in named))
    if not (judged["status"] == "ok").any():
        raise VerifyError(f"no planned run has finished: {'; '.join(messages)}")
    doubtful = bool(messages)
    fitted = set(zip(forecast.rows["run_id"], forecast.rows["samples"], strict=True))
    asked = set(plan["run_id"].astype(str))
    rows_of_log = zip(log["run_id"].astype(str), log["samples"], strict=True)
    unplanned = sum(run not in asked and (run, d) not in fitted for run, d in rows_of_log)
    if unplanned:
        messages.append(f"{unplanned} new rows of the log were not planned: not judged")
    return Verification(
        runs=judged,
        decisions=decide(forecast, judged),
        scores=score(forecast, judged, level),
        level=level,
        forecast_hash=forecast.hash,
        forecast_time_utc=forecast.time_utc,
        unplanned=unplanned,
        status=FitStatus.DOUBTFUL if doubtful else FitStatus.OK,
        messages=tuple(messages),
    )


def _check_plan(forecast: Forecast, plan: pd.DataFrame) -> None:
    if plan.empty:
        raise VerifyError("the plan has no rows: nothing to verify")
    hashes = plan["forecast_hash"].fillna("").unique()
    other = [name for name in hashes if name != forecast.hash]
    if other:
        named = other[0] or "no forecast"
        raise VerifyError(
            f"the plan tests {named}, not this forecast ({forecast.hash}): give the plan that was "
            "made from it"
        )
    fitted = sorted(set(plan["run_id"]) & set(forecast.rows["run_id"]))
    if fitted:
        raise VerifyError(
            f"planned run {fitted[0]!r} is among the runs that the forecast was fitted on: it "
            "cannot test it"
        )


def _check_history(forecast: Forecast, log: pd.DataFrame) -> None:
    """Refuse a log in which a fitted row has other content than it had."""
    key = ["run_id", "samples", "budget"]
    now = fingerprints(log[log["status"] != "duplicate"])
    both = forecast.rows.merge(now, on=key, how="inner", suffixes=("_then", "_now"))
    # The key is unique among rows that are not duplicates, so each row meets itself.
    changed = both[both["digest_then"] != both["digest_now"]]
    if not changed.empty:
        row = changed.iloc[0]
        raise VerifyError(
            f"{len(changed)} fitted rows have changed since the forecast, such as run "
            f"{row['run_id']!r} at {row['samples']:g} samples: verify against the log as it was"
        )


def _planned_rows(plan: pd.DataFrame, log: pd.DataFrame) -> pd.DataFrame:
    """One row a planned (run, budget) with what the log has of it; status "missing" if nothing."""
    columns = ["params", "flops", "status", *TARGETS, "time_utc"]
    log = log[log["status"] != "duplicate"].assign(run_id=log["run_id"].astype(str))
    rows = []
    for run, size, text in zip(plan["run_id"], plan["params"], plan["snapshots"], strict=True):
        own = log[log["run_id"] == str(run)]
        for budget in split_budgets(text):
            at = own[np.isclose(own["budget"].to_numpy(np.float64), budget, rtol=1e-6)]
            row = {"run_id": str(run), "budget": budget, "params_planned": size}
            found = at.iloc[0].to_dict() if len(at) else {"status": "missing"}
            rows.append(row | {name: found.get(name) for name in columns})
    return pd.DataFrame(rows)


def _check_age(forecast: Forecast, planned: pd.DataFrame) -> list[str]:
    """Refuse runs that are older than the forecast; a message where no time was logged."""
    written = _time("the forecast", forecast.time_utc)
    present = planned[planned["status"] != "missing"]
    undated = present[present["time_utc"].isna()]
    for run, budget, stamp in zip(
        present["run_id"], present["budget"], present["time_utc"], strict=True
    ):
        if isinstance(stamp, str) and _time(f"run {run!r}", stamp) < written:
            raise VerifyError(
                f"run {run!r} at {budget:g} FLOP was evaluated at {stamp}, before the forecast "
                f"({forecast.time_utc}): a forecast is written before the runs that it predicts"
            )
    if undated.empty:
        return []
    return [
        f"{len(undated)} planned rows carry no time_utc: that they are younger than the forecast "
        "was not checked"
    ]


def _time(whose: str, text: str) -> datetime:
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise VerifyError(f"time_utc of {whose} is {text!r}, not ISO 8601") from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)
