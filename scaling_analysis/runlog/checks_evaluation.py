"""Checks of the evaluation: protocols, episodes, standard errors, the ceiling of the return."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

from scaling_analysis.runlog.findings import Finding, Group, Severity, short, shorts
from scaling_analysis.runlog.schema import RUN_KEY

FEW_EPISODES = 50
NOISY_RETURN = 0.05
"""A relative standard error above this hides the trend between neighbouring budgets."""
NEAR_EXPERT = 0.9
FLAT_RANGE = 10.0
"""Returns that stand still over this factor of compute have reached a ceiling."""


def results(group: Group) -> Iterator[Finding]:
    """Returns of two protocols, losses without an error, values that no law can hold."""
    returns = np.isfinite(group.column("mean_return"))
    if returns.any() and "protocol" in group.rows:
        names = group.rows["protocol"][returns].value_counts()
        if len(names) > 1:
            yield group.finding(
                "mixed-protocols",
                Severity.SERIOUS,
                f"Returns come from {len(names)} evaluation protocols.",
                where=", ".join(f"{name!r}: {count} rows" for name, count in names.head(6).items()),
                bias="A change of protocol looks like a change of return.",
                remedy=f"Choose one: where=\"protocol == '{names.index[0]}'\".",
                figures={"protocols": len(names)},
            )
    loss, loss_se = group.column("loss"), group.column("loss_se")
    measured = np.isfinite(loss)
    if (loss[measured] <= 0).any():
        yield group.finding(
            "loss-not-positive",
            Severity.SERIOUS,
            f"{int((loss <= 0).sum())} rows have a loss of zero or less.",
            bias="Laws of the loss are fitted in its log; such rows cannot be.",
            remedy="Log a cross-entropy in nats; a missing loss is an empty cell, not 0.",
        )
    if measured.sum() > 2 and np.ptp(loss[measured]) == 0:
        yield group.finding(
            "constant-loss",
            Severity.SERIOUS,
            f"All {measured.sum()} losses are {loss[measured][0]:.6g}.",
            remedy="Look for the place where the evaluation writes its result.",
        )
    if measured.any() and not np.isfinite(loss_se[measured]).any():
        yield group.finding(
            "no-loss-error",
            Severity.NOTE,
            "No standard error of the loss is logged.",
            bias="Evaluation noise is taken for noise between runs.",
            remedy="Log loss_se: the spread of the mean loss over held-out episodes.",
        )
    elif (loss_se[measured] == 0).any():
        yield group.finding(
            "zero-error",
            Severity.WARNING,
            f"{int((loss_se[measured] == 0).sum())} rows have a standard error of the loss of 0.",
            bias="A weight by 1/se^2 would be infinite.",
            remedy="Leave the cell empty where it is unknown.",
        )


def ceiling(group: Group) -> Iterator[Finding]:
    """Returns that cannot rise any more, because the expert or the game does not allow it."""
    returns = group.column("mean_return")
    use = np.isfinite(returns)
    if not use.any():
        return
    expert = group.expert_return
    if expert is not None:
        near = use & (returns >= NEAR_EXPERT * expert)
        if near.any():
            yield group.finding(
                "at-ceiling",
                Severity.SERIOUS if near.sum() > 0.25 * use.sum() else Severity.WARNING,
                f"{near.sum()} of {use.sum()} returns are at {NEAR_EXPERT:.0%} or more of the "
                f"expert's {short(expert)}.",
                where=f"compute from {short(group.flops[near].min())} on",
                bias="A clone does not pass its expert: a power law through these rows is too flat "
                "and forecasts returns that cannot be reached.",
                remedy="Fit a form with a ceiling, or leave these rows out of the power law.",
                figures={"rows": int(near.sum()), "expert": expert},
            )
        return
    budget = group.column("budget")
    best = pd.Series(returns[use]).groupby(np.where(np.isfinite(budget), budget, group.flops)[use])
    best = best.max()
    compute = best.index.to_numpy(float)
    top = compute >= compute[-1] / FLAT_RANGE
    if top.sum() < 3 or (~top).sum() < 3:
        return
    highest, before = float(best[top].max()), float(best[~top].max())
    first = float(best.iloc[0])
    if highest - first > 0 and highest - before < 0.02 * (highest - first):
        yield group.finding(
            "flat-return",
            Severity.WARNING,
            f"The best return stands still: {before:.4g} below C = {short(compute[top][0])}, "
            f"{highest:.4g} from there to {short(compute[-1])}.",
            bias="A power law of the return through a plateau is too flat below it and too high "
            "beyond it.",
            remedy="If this is the expert's or the game's ceiling, give expert_return and fit a "
            "form with a ceiling.",
            figures={"highest": highest, "before": before},
        )


def episode_counts(group: Group) -> Iterator[Finding]:
    """Too few episodes, and what they would have to be."""
    returns, errors = group.column("mean_return"), group.column("return_se")
    episodes = group.column("episodes")
    use = np.isfinite(returns)
    if not use.any():
        return
    if not np.isfinite(episodes[use]).any():
        yield group.finding(
            "episodes-unknown",
            Severity.NOTE,
            "The number of evaluation episodes is not logged.",
            remedy="Log episodes and return_se.",
        )
    few = use & (episodes < FEW_EPISODES)
    if few.any():
        yield group.finding(
            "few-episodes",
            Severity.WARNING,
            f"{few.sum()} of {use.sum()} returns rest on fewer than {FEW_EPISODES} episodes, down "
            f"to {short(episodes[few].min())}.",
            where=f"sizes {shorts(np.unique(group.params[few]))}",
            bias="The best of several noisy returns is too high (winner's curse): R_opt is biased "
            "up, N_opt towards the noisiest size.",
            remedy="Play 200 or more episodes near the optimum, 50 or more elsewhere.",
            figures={"rows": int(few.sum()), "fewest": float(episodes[few].min())},
        )
    known = use & (errors > 0) & (returns > 0)
    relative = np.where(known, errors / np.where(known, returns, 1.0), np.nan)
    noisy = known & (relative > NOISY_RETURN)
    if noisy.sum() > 0.25 * max(known.sum(), 1):
        typical = float(np.median(relative[known]))
        wanted = episodes * (relative / NOISY_RETURN) ** 2
        enough = float(np.nanmedian(wanted[noisy])) if np.isfinite(wanted[noisy]).any() else np.nan
        yield group.finding(
            "noisy-returns",
            Severity.NOTE,
            f"{noisy.sum()} of {known.sum()} returns have a standard error above "
            f"{NOISY_RETURN:.0%} of the return (median {typical:.1%}).",
            bias="The maximum over sizes is biased up, most at budgets with the noisiest returns.",
            remedy="Smooth over sizes before taking the maximum."
            + (
                f" {NOISY_RETURN:.0%} would take about {short(enough)} episodes a checkpoint."
                if np.isfinite(enough)
                else ""
            ),
            figures={"rows": int(noisy.sum()), "median": typical, "episodes": enough}
            if np.isfinite(enough)
            else {"rows": int(noisy.sum()), "median": typical},
        )


def episode_table(group: Group) -> Iterator[Finding]:
    """The episodes against the means and counts of the log."""
    if group.episodes is None or "mean_return" not in group.rows:
        return
    key = [name for name in RUN_KEY if name in group.episodes and name in group.rows]
    played = group.episodes.groupby(key)["return"].agg(["mean", "size", "max"])
    logged = group.rows.dropna(subset="mean_return").set_index(key)
    both = logged.join(played, how="left")
    absent = both["size"].isna()
    if absent.any():
        names = both.index[absent].get_level_values(0).unique()
        yield group.finding(
            "episodes-missing",
            Severity.WARNING,
            f"{int(absent.sum())} of {len(both)} checkpoints with a return have no episode in the "
            "episode table.",
            where=f"run_id {', '.join(map(repr, names[:5]))}",
            remedy="Write the episodes of every evaluation, under run_id, samples and budget of "
            "its row.",
            figures={"rows": int(absent.sum())},
        )
    seen = both[~absent]
    off = (seen["mean"] - seen["mean_return"]).abs() > 1e-6 * seen["mean_return"].abs().clip(
        lower=1
    )
    if "episodes" in seen:
        off |= seen["episodes"].notna() & (seen["episodes"] != seen["size"])
    if off.any():
        worst = (seen["mean"] - seen["mean_return"])[off].abs().idxmax()
        yield group.finding(
            "episodes-disagree",
            Severity.SERIOUS,
            f"{int(off.sum())} of {len(seen)} mean returns or episode counts differ from the "
            "episode table.",
            where=f"most at {dict(zip(key, worst, strict=True))}: log "
            f"{seen.loc[worst, 'mean_return']:.6g}, table {seen.loc[worst, 'mean']:.6g}",
            bias="Intervals resample the table, points come from the log.",
            remedy="Compute mean_return, return_se and episodes from the episodes.",
            figures={"rows": int(off.sum())},
        )
