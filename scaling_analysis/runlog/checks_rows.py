"""Checks of rows and runs: copies, mixtures, early training, divergence, replicates, exclusions."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.runlog.building import names_are_made_up
from scaling_analysis.runlog.checking import look_alikes
from scaling_analysis.runlog.findings import Finding, Group, Severity, bound, short, shorts
from scaling_analysis.runlog.schema import RUN_COLUMNS
from scaling_analysis.runlog.selecting import repeated

FEW_RUNS = 10
EARLY_STEP = 4.0
"""Slopes of a learning curve are taken between bins of samples a factor of 4 wide."""


def mixed_runs(group: Group) -> Iterator[Finding]:
    """A run has one size, one seed, one agent, one task."""
    constant = [name for name in ("params", "params_core", "seed") if name in group.rows]
    distinct = group.rows[constant].groupby(group.run).nunique()
    for name in constant:
        several = (distinct[name] > 1).to_numpy()
        if several.any():
            names = pd.unique(group.rows["run_id"])[several]
            yield group.finding(
                "run-mixes-values",
                Severity.SERIOUS,
                f"{several.sum()} runs have more than one {name}.",
                where=f"run_id {', '.join(map(repr, names[:5]))}",
                bias="Runs are the unit that is resampled: two runs under one name are resampled "
                "as one, and intervals are wrong.",
                remedy="Give every training run a run_id of its own.",
                figures={"runs": int(several.sum())},
            )


def copied_rows(group: Group) -> Iterator[Finding]:
    """The same measurement twice: under one name, under two, or for two budgets."""
    duplicates = int((group.log["status"] == "duplicate").sum())
    if duplicates:
        yield group.finding(
            "duplicate-rows",
            Severity.NOTE,
            f"{duplicates} rows repeat another row word for word; they have weight 0.",
            remedy="Find out which step wrote them twice.",
            figures={"rows": duplicates},
        )
    again = repeated(group.rows)
    if again.any():
        names = pd.unique(group.rows["run_id"][again])
        yield group.finding(
            "repeated-checkpoint",
            Severity.SERIOUS,
            f"{int(again.sum())} rows repeat the checkpoint of another row: run_id, samples and "
            "budget are the same.",
            where=f"run_id {', '.join(map(repr, names[:6]))}",
            bias="A copy counts as a further measurement: intervals are too narrow. Fits "
            "refuse it.",
            remedy="Put logs together with load_runs([one, two]), which leaves copies out.",
            figures={"rows": int(again.sum())},
        )
    targets = [name for name in ("loss", "mean_return") if name in group.rows]
    measured = group.rows[["params", "samples", *targets]]
    full = measured[targets].notna().any(axis=1)
    same = full & measured.duplicated(keep=False)
    if same.any():
        rows = group.rows[same]
        keys = [rows[name] for name in measured.columns]
        others = rows["run_id"].groupby(keys, dropna=False).transform("nunique") > 1
        if others.any():
            names = pd.unique(rows["run_id"][others])
            yield group.finding(
                "copied-checkpoint",
                Severity.SERIOUS,
                f"{int(others.sum())} rows of different runs are equal in N, D and every result.",
                where=f"run_id {', '.join(map(repr, names[:6]))}",
                bias="A copy counts as a second run: intervals are too narrow.",
                remedy="Give the copies status duplicate.",
                figures={"rows": int(others.sum())},
            )
    if "budget" not in group.rows:
        return
    named = group.rows[["run_id", "samples", "budget"]].dropna()
    shared = named[named.duplicated(["run_id", "samples"], keep=False)]
    if not shared.empty:
        yield group.finding(
            "checkpoint-for-two-budgets",
            Severity.NOTE,
            f"{len(shared)} rows share run and samples with another row: one checkpoint stands for "
            "two budgets, and misses at least one of them.",
            where=f"run_id {', '.join(map(repr, pd.unique(shared['run_id'])[:5]))}; budgets "
            f"{shorts(np.unique(shared['budget']))}",
            remedy="Where one optimiser step is more than a few percent of a budget, leave that "
            "budget out for that size.",
            figures={"rows": len(shared)},
        )


def early_training(group: Group) -> Iterator[Finding]:
    """Checkpoints before a run's steepest fall: the loss does not yet follow a power law there.

    In the laws that are fitted, -d log L / d log D falls along a run. Where it still rises, the run
    is in its first transient (from the level of an untrained network).
    """
    loss = group.column("loss")
    use = np.flatnonzero(loss > 0)
    if not len(use):
        return
    bins = np.floor(np.log(group.samples[use]) / np.log(EARLY_STEP))
    points = pd.DataFrame(
        {
            "run": group.run[use],
            "bin": bins,
            "d": np.log(group.samples[use]),
            "y": np.log(loss[use]),
        }
    )
    binned = points.groupby(["run", "bin"], as_index=False).mean()
    step = binned.groupby("run")[["d", "y"]].diff()
    binned["fall"] = -step["y"] / step["d"]
    falls = binned.dropna(subset="fall")
    if falls.empty:
        return
    by_run = falls.groupby("run")["fall"]
    steepest = falls.loc[by_run.idxmax(), ["run", "bin", "fall"]].set_index("run")
    risen = steepest["fall"] > 1.5 * by_run.first().clip(lower=0)
    until = steepest["bin"][risen & (by_run.size() >= 3)]
    early = bins < pd.Series(group.run[use]).map(until).to_numpy(float)
    if not early.any():
        return
    rows = use[early]
    latest = float(group.samples[rows].max())
    yield group.finding(
        "early-training",
        Severity.WARNING,
        f"{len(rows)} of {len(loss)} rows lie before the steepest fall of their run's loss, up to "
        f"D = {short(latest)}: no power law yet.",
        where=f"{len(until)} of {len(np.unique(group.run))} runs; losses "
        f"{short(loss[rows].min())} to {short(loss[rows].max())}",
        bias="A parametric fit bends to them: its floor goes towards zero and its forecast is too "
        "low. At low budgets they make large models look bad.",
        remedy=f'Leave them out, for instance where="samples > {bound(latest, up=True)}".',
        figures={"rows": len(rows), "latest": latest, "runs": len(until)},
    )


def rising_loss(group: Group) -> Iterator[Finding]:
    """A loss that goes up again: divergence or overfitting that no status tells of."""
    loss = group.column("loss")
    order = np.lexsort((group.samples, group.run))
    ordered = pd.Series(loss[order])
    best = ordered.groupby(group.run[order]).cummin()
    risen = (ordered > 1.05 * best).to_numpy() & (best > 0).to_numpy()
    if not risen.any():
        return
    rows = order[risen]
    worst = float((ordered / best)[risen].max())
    names = pd.unique(group.rows["run_id"].iloc[rows])
    yield group.finding(
        "rising-loss",
        Severity.WARNING,
        f"{len(rows)} rows of {len(names)} runs have a loss more than 5 % above an earlier "
        f"checkpoint of the run, up to {worst:.3g} times it.",
        where=f"run_id {', '.join(map(repr, names[:6]))}",
        bias="Unmarked divergence raises the loss of the sizes it hits and moves N_opt away from "
        "them; with repeated data it is overfitting.",
        remedy="Look at these runs; give the rows status diverged with a note, or explain them.",
        figures={"rows": len(rows), "worst": worst},
    )


def replicates(group: Group) -> Iterator[Finding]:
    """How many runs there are, and whether any two differ in nothing but chance."""
    runs = len(np.unique(group.run))
    of_size = pd.Series(group.run).groupby(group.params).nunique()
    single = int((of_size == 1).sum())
    seeds = group.rows["seed"].nunique() if "seed" in group.rows else 0
    if runs == len(group.rows) and runs > len(of_size):
        repeated = group.rows.groupby(["params", "samples"]).size().max() > 1
    else:
        repeated = bool((of_size > 1).any())
    if not repeated:
        yield group.finding(
            "one-seed",
            Severity.WARNING,
            f"No size was trained twice{' (one seed for all)' if seeds == 1 else ''}: the noise "
            "between runs cannot be measured.",
            where=f"{len(of_size)} sizes",
            bias="Intervals rest on the residuals of the fit alone and are too narrow where the "
            "law is wrong.",
            remedy="Repeat at least the runs near the optimum with another seed.",
            figures={"sizes": len(of_size)},
        )
    elif single and runs < len(group.rows):
        yield group.finding(
            "few-replicates",
            Severity.NOTE,
            f"{single} of {len(of_size)} sizes were trained once.",
            where=f"sizes {shorts(of_size.index[of_size == 1].to_numpy(float))}",
            bias="Noise between runs is known for the other sizes only.",
            remedy="Repeat runs near the optimum with another seed.",
            figures={"single": single, "sizes": len(of_size)},
        )
    if runs < FEW_RUNS and runs < len(group.rows):
        yield group.finding(
            "few-runs",
            Severity.WARNING,
            f"All {len(group.rows)} rows come from {'one run' if runs == 1 else f'{runs} runs'}.",
            bias="Checkpoints of one run are not independent: rows resampled one by one give "
            "intervals that are far too narrow.",
            remedy="Resample runs; with so few the jackknife over runs is the safer interval."
            if runs > 2
            else "Train more runs: no interval sees the spread between fewer than three.",
            figures={"runs": runs, "rows": len(group.rows)},
        )


def has_result(rows: pd.DataFrame) -> NDArray[np.bool_]:
    """(rows,) which rows hold a loss or a mean return."""
    targets = [name for name in ("loss", "mean_return") if name in rows]
    return rows[targets].notna().any(axis=1).to_numpy()


def left_out(group: Group) -> Iterator[Finding]:
    """Rows that are not fitted, and why."""
    others = group.log[~group.log["status"].isin(["ok", "duplicate"])]
    blank = int((~has_result(group.rows)).sum())
    if others.empty and not blank:
        return
    reasons = others[["status", "note"]].value_counts()
    lost = others[others["status"] == "diverged"]["params"].dropna()
    yield group.finding(
        "left-out",
        Severity.NOTE,
        f"{len(others) + blank} of {len(group.log)} rows are not fitted.",
        where="; ".join(
            [
                f"{count} {status}{f' ({note})' if note else ''}"
                for status, note, count in reasons.head(6).reset_index().itertuples(index=False)
            ]
            + ([f"{blank} without a loss or a mean return"] if blank else [])
        ),
        bias=(
            f"Diverged runs have N from {short(lost.min())} to {short(lost.max())}: profiles are "
            "thinner there."
            if len(lost)
            else ""
        ),
        figures={"rows": len(others) + blank},
    )


def unread_columns(group: Group) -> Iterator[Finding]:
    """Columns whose name looks like one of the schema, but which are not read as it."""
    known = {column.name for column in RUN_COLUMNS}
    others = [str(name) for name in group.log.columns if name not in known]
    nameless = names_are_made_up(group.log)
    guesses = {
        column.name: near[0]
        for column in RUN_COLUMNS
        if column.name not in group.log or (column.name == "run_id" and nameless)
        for near in [look_alikes(column, others[:1000])]
        if near
    }
    if guesses:
        theirs = guesses.get("run_id", "")
        joins = bool(theirs) and bool(group.rows[theirs].duplicated().any())
        yield group.finding(
            "unread-columns",
            Severity.WARNING if joins else Severity.NOTE,
            "Columns that may stand for one of the schema are not used: "
            + ", ".join(f"{theirs!r} for {ours!r}" for ours, theirs in guesses.items())
            + ".",
            bias="Every row is taken for a run of its own: intervals are too narrow where several "
            "are checkpoints of one."
            if joins
            else "",
            remedy=f"Where the guess is right, say columns={guesses!r}.",
        )
