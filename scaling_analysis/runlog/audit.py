"""The audit: what in a run log silently ruins a fit, how much, and in which direction."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
import pandas as pd

from scaling_analysis.errors import FitStatus, RunLogError
from scaling_analysis.results import Result
from scaling_analysis.runlog import checks_compute, checks_evaluation, checks_profiles, checks_rows
from scaling_analysis.runlog.findings import Finding, Group, Severity
from scaling_analysis.runlog.reading import load_runs

# In the order of importance among findings of one severity.
_CHECKS: tuple[Callable[[Group], Iterator[Finding]], ...] = (
    checks_rows.mixed_runs,
    checks_rows.copied_rows,
    checks_compute.cost_drift,
    checks_compute.nominal_compute,
    checks_profiles.profiles,
    checks_compute.repetition,
    checks_compute.free_parameters,
    checks_rows.early_training,
    checks_rows.rising_loss,
    checks_evaluation.results,
    checks_evaluation.ceiling,
    checks_evaluation.episode_counts,
    checks_evaluation.episode_table,
    checks_rows.replicates,
    checks_rows.left_out,
    checks_rows.unread_columns,
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class Audit(Result):
    """What the audit of a run log found, the most important finding first."""

    _error = RunLogError

    rows: int
    """Rows of the log."""
    usable: int
    """Rows with status ok and a loss or a mean return."""
    runs: int
    """Training runs among the usable rows."""
    findings: tuple[Finding, ...]

    @property
    def status(self) -> FitStatus:
        """DOUBTFUL where a finding is serious: a fit of this log misleads until it is mended."""
        serious = any(finding.severity == Severity.SERIOUS for finding in self.findings)
        return FitStatus.DOUBTFUL if serious else FitStatus.OK

    @property
    def messages(self) -> tuple[str, ...]:
        """What each serious finding says."""
        return tuple(
            finding.what for finding in self.findings if finding.severity == Severity.SERIOUS
        )

    def summary(self) -> str:
        """The findings as text, in order, each with where it is, its bias and the remedy."""
        counts = {
            severity: sum(finding.severity == severity for finding in self.findings)
            for severity in Severity
        }
        lines = [
            f"Audit: {self.status}. {self.rows} rows, {self.usable} usable, {self.runs} runs; "
            + ", ".join(f"{count} {severity}" for severity, count in counts.items())
        ]
        for finding in self.findings:
            lines += ["", f"[{finding.severity}] {finding.code}: {finding.what}"]
            lines += [
                f"  {title}: {text}"
                for title, text in (
                    ("where", finding.where),
                    ("bias", finding.bias),
                    ("do", finding.remedy),
                )
                if text
            ]
        return "\n".join(lines)

    def to_frame(self) -> pd.DataFrame:
        """One row a finding: code, severity, what, where, bias, remedy."""
        names = ["code", "severity", "what", "where", "bias", "remedy"]
        rows = [[str(getattr(finding, name)) for name in names] for finding in self.findings]
        return pd.DataFrame(rows, columns=pd.Index(names))

    def to_dict(self) -> dict[str, Any]:
        findings = [finding.to_dict() for finding in self.findings]
        return {"kind": type(self).__name__, **asdict(self), "findings": findings}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        findings = tuple(Finding.from_dict(finding) for finding in data["findings"])
        counts = {name: data[name] for name in ("rows", "usable", "runs")}
        return cls(**counts, findings=findings)


def audit(
    runs: pd.DataFrame,
    episodes: pd.DataFrame | None = None,
    *,
    expert_return: float | None = None,
) -> Audit:
    """Look through a run log for what silently ruins a fit.

    Parameters
    ----------
    runs
        A run log as `load_runs` returns it; any other table goes through `load_runs` first.
    episodes
        Returns of single episodes (`load_episodes`): means and counts are compared with the log.
    expert_return
        Mean return [points] of the demonstrator; agents near it cannot show a trend.

    Returns
    -------
    Audit
        Findings in order of importance, each with figures, place, direction of the bias and remedy.
        Every (agent, task) is looked at by itself.

    Examples
    --------
    >>> import pandas as pd
    >>> log = pd.DataFrame({"params": [1e5, 2e5, 4e5], "samples": 1e6, "loss": [3, 2.8, 2.6]})
    >>> log["flops"] = 6 * log.params**1.3 * log.samples  # a counter that drifts with the size
    >>> audit(log).findings[0].code
    'cost-drift'
    """
    if "status" not in runs:
        runs = load_runs(runs)
    if expert_return is not None and not np.isfinite(expert_return):
        raise RunLogError(f"expert_return={expert_return}: give the expert's mean return [points].")
    ok = (runs["status"] == "ok").to_numpy()
    if not ok.any():
        counts = ", ".join(f"{n} {status}" for status, n in runs["status"].value_counts().items())
        raise RunLogError(f"no row has status ok, so there is nothing to audit ({counts}).")
    by = [name for name in ("agent", "task") if name in runs and runs[name].nunique() > 1]
    if by:
        of_groups: dict[str, list[Finding]] = {}
        labels = runs[by].agg(", ".join, axis=1) if len(by) > 1 else runs[by[0]]
        for label, rows in runs.groupby(labels, sort=True):
            group = Group.of(rows, episodes, expert_return, label=f"{label}: ")
            of_groups[str(label)] = _look(group)
        found = _alike_once(of_groups)
    else:
        found = _look(Group.of(runs, episodes, expert_return))
    order = list(Severity)
    found.sort(key=lambda finding: order.index(finding.severity))
    return Audit(
        rows=len(runs),
        usable=int((ok & checks_rows.has_result(runs)).sum()),
        runs=int(runs["run_id"][ok].nunique()),
        findings=tuple(found),
    )


def _alike_once(of_groups: Mapping[str, list[Finding]]) -> list[Finding]:
    """The findings of all groups, those that say the same of several said of them together."""
    labels: dict[tuple[str, ...], list[str]] = {}
    first: dict[tuple[str, ...], Finding] = {}
    for label, findings in of_groups.items():
        for each in findings:
            what = each.what.removeprefix(f"{label}: ")
            key = (each.code, each.severity, what, each.where, each.bias, each.remedy)
            labels.setdefault(key, []).append(label)
            first.setdefault(key, replace(each, what=what))
    everyone = f"each of {len(of_groups)}"
    return [
        replace(one, what=f"{everyone if len(of) == len(of_groups) else '; '.join(of)}: {one.what}")
        for one, of in zip(first.values(), labels.values(), strict=True)
    ]


def _look(group: Group) -> list[Finding]:
    if group.rows.empty:
        return []
    return [finding for check in _CHECKS for finding in check(group)]
