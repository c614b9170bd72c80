"""Hindcast: fit the past of a log, forecast its held-out end, and score what would have been said.

Origins roll over the budgets. At each, every method is fitted and bootstrapped on the runs up to
the origin and forecasts the budgets beyond it. The average of the methods and the widening of every
interval are replayed too: at an origin they know only errors that were on record by then.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from scaling_analysis.errors import FitStatus, ForecastError, RunLogError
from scaling_analysis.estimators.bootstrapping import Bootstrap
from scaling_analysis.estimators.return_link import fit_return_link
from scaling_analysis.estimators.selection import Target
from scaling_analysis.forecasting.bounds import enter_table
from scaling_analysis.forecasting.condensing import condense
from scaling_analysis.forecasting.members import (
    BASELINES,
    Members,
    Methods,
    log_forecast,
    refusals,
    resampled_or_why,
    resolve_methods,
    without_findings,
)
from scaling_analysis.forecasting.observation import WITHIN, observe, trend_until
from scaling_analysis.forecasting.questions import check_level, check_replicates
from scaling_analysis.forecasting.replaying import replay
from scaling_analysis.forecasting.scores import COMBINED, Hindcast
from scaling_analysis.forecasting.through_link import (
    LINK,
    LinkEstimator,
    find_bounds,
    link_forecast,
)
from scaling_analysis.processes import Jobs
from scaling_analysis.runlog import select, usable

Array = NDArray[np.float64]

MIN_BUDGETS = 3
"""No method has a frontier through fewer."""
MOST_ORIGINS = 16
"""Of more budgets, evenly spaced ones are origins: neighbours would tell the same twice."""

LEVELS = (0.5, 0.8, 0.9, 0.95)
"""Levels at which coverage is reported."""

QUANTITY = {
    ("loss", "params_opt"): "params_opt",
    ("loss", "value_opt"): "loss_opt",
    ("loss", "value"): "loss",
    ("mean_return", "params_opt"): "params_opt",
    ("mean_return", "value_opt"): "mean_return_opt",
    ("mean_return", "value"): "mean_return",
}


def hindcast(
    runs: pd.DataFrame,
    methods: Methods | None = None,
    *,
    return_methods: Methods | None = None,
    link: LinkEstimator | None = None,
    origins: Sequence[float] | None = None,
    levels: Sequence[float] = LEVELS,
    within: float = WITHIN,
    n_resamples: int = 200,
    rng: int | np.random.Generator | None = 0,
) -> Hindcast:
    """Score the methods on the end of the log itself, by rolling origin over its budgets.

    Parameters
    ----------
    runs : DataFrame
        A run log of one agent and one task. Without a `budget` column runs are grouped by compute,
        and only runs of stated sizes are scored, not optima.
    methods, return_methods : iterable of names or mapping from names to estimators, optional
        Methods for the loss and for the mean return. An estimator takes runs and returns a
        `FrontierFit`. The baselines persistence and log-line are always added.
    link : callable, optional
        Estimator of the link from loss to return; the return is forecast through it as well.
    origins : sequence of float, optional
        Largest compute of each fit [FLOP]; by default every budget from the third on that has
        budgets beyond it (at most 16 of them), which gives near and far horizons from the same log.
    levels : sequence of float
        Levels at which coverage is reported.
    within : float
        Runs of sizes within this factor of a budget's own optimum are scored.
    n_resamples : int
        Bootstrap replicates of each method at each origin.
    rng : int, Generator or None
        One seed an origin is drawn from it; methods share their draws.

    Returns
    -------
    Hindcast

    Raises
    ------
    ForecastError
        Fewer than four budgets, or no method could be fitted at any origin.

    Examples
    --------
    >>> past = hindcast(runs, ["isoflop-vertex"], n_resamples=20)
    >>> scores = past.scores().query("quantity == 'loss_opt' and distance == 'all'")
    >>> scores["method"].tolist()
    ['combined', 'isoflop-vertex', 'log-line', 'persistence']
    """
    return Hindcasting(
        runs,
        methods,
        return_methods=return_methods,
        link=link,
        origins=origins,
        levels=levels,
        within=within,
        n_resamples=n_resamples,
        rng=rng,
    ).finish()


class Hindcasting:
    """A hindcast, begun: all fits are on their way, and `finish` scores them.

    Arguments and errors are those of `hindcast`.
    """

    def __init__(
        self,
        runs: pd.DataFrame,
        methods: Methods | None,
        *,
        return_methods: Methods | None,
        link: LinkEstimator | None,
        n_resamples: int,
        rng: int | np.random.Generator | None,
        origins: Sequence[float] | None = None,
        levels: Sequence[float] = LEVELS,
        within: float = WITHIN,
    ) -> None:
        check_replicates(n_resamples=n_resamples)
        for level in levels:
            check_level(level)
        if not within > 1:
            raise ForecastError(f"within={within!r}: a factor above 1 around the optimum")
        runs, self._condensed = condense(select(runs))
        draws = np.random.default_rng(rng)
        targets = available_targets(runs)
        self._levels = tuple(float(level) for level in levels)
        self._observed: dict[Target, pd.DataFrame] = {
            target: observe(runs, target, within) for target in targets
        }
        budgets = np.unique(np.concatenate([o["budget"] for o in self._observed.values()]))
        self._cuts = _cuts(budgets, origins)
        seeds = [int(draws.integers(2**31)) for _ in self._cuts]
        pasts = [past(runs, cut) for cut in self._cuts]
        asked: dict[Target, Methods | None] = {"loss": methods, "mean_return": return_methods}
        self._chosen = {target: resolve_methods(asked[target], target) for target in targets}
        self._cells = self._wanted()
        self._jobs: dict[Target, Jobs[tuple[pd.DataFrame, dict[str, str]]]] = {
            target: self._begin(target, pasts, seeds, n_resamples) for target in targets
        }
        self._links: Jobs[Bootstrap | str] | None = None
        self._bounds = find_bounds(link, runs) if len(targets) > 1 else None
        if len(targets) > 1:
            estimator = fit_return_link if link is None else link
            self._links = Jobs(
                _link_at_origin,
                [
                    (known, estimator, n_resamples, seed)
                    for known, seed in zip(pasts, seeds, strict=True)
                ],
            )
        self._failures: list[tuple[str, float, str, str]] = []

    def _wanted(self) -> dict[Target, pd.DataFrame]:
        """What each target's methods forecast."""
        cells = dict(self._observed)
        if len(cells) > 1:  # the link takes a loss wherever there is a return to forecast
            loss, returns = self._observed["loss"], self._observed["mean_return"]
            cells["loss"] = _with_points_of(loss, returns)
            cells["mean_return"] = returns[returns["quantity"] != "params_opt"]
        return cells

    def _begin(
        self, target: Target, pasts: Sequence[pd.DataFrame], seeds: Sequence[int], n_resamples: int
    ) -> Jobs[tuple[pd.DataFrame, dict[str, str]]]:
        """The forecasts of every cell beyond every origin by every method, begun."""
        cells, methods = self._cells[target], self._chosen[target]
        return Jobs(
            _at_origin,
            [
                (known, methods, cells[cells["budget"] > cut], n_resamples, seed)
                for known, cut, seed in zip(pasts, self._cuts, seeds, strict=True)
            ],
        )

    def cancel(self) -> None:
        """Leave out the fits that are not begun yet."""
        for jobs in (*self._jobs.values(), self._links):
            if jobs is not None:
                jobs.cancel()

    def finish(self) -> Hindcast:
        """Replay what would have been said at each origin, and score it."""
        scored: dict[Target, pd.DataFrame] = {}
        averaged: dict[str, None] = {}
        for target in self._jobs:
            members = [name for name in self._chosen[target] if name not in BASELINES]
            table = self._forecasts(target)
            if self._links is not None and target == "mean_return":
                linked = self._through_link(self._links, scored["loss"])
                table = pd.concat([table, linked], ignore_index=True)
                table = enter_table(table, self._cells[target], self._bounds, LINK)
                members.append(LINK)
            averaged |= dict.fromkeys(members)
            scored[target] = replay(table, members)
        every = pd.concat(scored.values(), ignore_index=True)
        every = every[every["observed"].notna()].reset_index(drop=True)
        if every.loc[every["method"] == COMBINED, "predicted"].notna().sum() == 0:
            latest = {n: why for _, _, n, why in self._failures if n not in BASELINES}
            raise ForecastError(f"no method could be fitted at any origin:{refusals(latest)}")
        failed = pd.DataFrame(self._failures, columns=["target", "origin", "method", "reason"])
        status, messages = _verdict(every, self._cuts, failed)
        return Hindcast(
            cells=every,
            members=tuple(averaged),
            levels=self._levels,
            failures=failed,
            bounds=self._bounds,
            loss_counted=self._links is not None,
            status=status,
            messages=(self._condensed, *messages) if self._condensed else messages,
        )

    def _forecasts(self, target: Target) -> pd.DataFrame:
        """Forecast of every cell beyond every origin by every method: predicted and base."""
        out = []
        found = self._jobs[target].results(f"hindcast of the {target.removeprefix('mean_')}")
        for cut, (made, failed) in zip(self._cuts, found, strict=True):
            self._failures += [(target, cut, name, reason) for name, reason in failed.items()]
            out.append(made.assign(origin=cut))
        return _named(pd.concat(out, ignore_index=True), target, self._cells[target])

    def _through_link(self, links: Jobs[Bootstrap | str], loss_cells: pd.DataFrame) -> pd.DataFrame:
        """Forecasts of the return through the link, from the combined forecast of the loss."""
        cells = self._cells["mean_return"]
        combined = loss_cells[loss_cells["method"] == COMBINED].assign(
            size=lambda f: f["params"].fillna(0.0)
        )
        out = []
        found = links.results("hindcast through the link")
        for cut, fitted in zip(self._cuts, found, strict=True):
            ahead = cells[cells["budget"] > cut].reset_index(drop=True)
            predicted, base = np.full(len(ahead), np.nan), np.full(len(ahead), np.nan)
            if isinstance(fitted, str):
                self._failures.append(("mean_return", cut, LINK, fitted))
            else:
                at = combined[combined["origin"] == cut].set_index(["quantity", "budget", "size"])
                loss_of = {"value_opt": "loss_opt", "value": "loss"}
                keys = zip(
                    ahead["quantity"].map(loss_of),
                    ahead["budget"],
                    ahead["params"].fillna(0.0),
                    strict=True,
                )
                loss = at.reindex(pd.MultiIndex.from_tuples(list(keys), names=at.index.names))
                predicted, base = link_forecast(
                    fitted, loss["predicted"].to_numpy(), loss["law_sd"].to_numpy(), self._bounds
                )
            out.append(ahead.assign(predicted=predicted, base=base, method=LINK, origin=cut))
        return _named(pd.concat(out, ignore_index=True), "mean_return", cells)


def available_targets(runs: pd.DataFrame) -> list[Target]:
    """Which of loss and mean_return the log has."""
    targets: list[Target] = []
    for target in ("loss", "mean_return"):
        if target in runs and runs[target].notna().any():
            usable(runs, target)
            targets.append(target)
    if not targets:
        raise ForecastError("the run log has neither a loss nor a mean_return: nothing to forecast")
    return targets


def _cuts(budgets: Array, origins: Sequence[float] | None) -> Array:
    if budgets.size < MIN_BUDGETS + 1:
        raise ForecastError(
            f"a hindcast needs at least {MIN_BUDGETS + 1} budgets, three to fit and one to "
            f"forecast; the log has {budgets.size}"
        )
    possible = budgets[MIN_BUDGETS - 1 : -1]
    if origins is None:
        even = np.linspace(0, possible.size - 1, min(possible.size, MOST_ORIGINS))
        return possible[even.round().astype(int)]
    last = [budgets[budgets <= origin * (1 + 1e-9)].max(initial=0.0) for origin in origins]
    kept = np.unique([cut for cut in last if cut in possible])
    if kept.size == 0:
        raise ForecastError(
            f"origins={[float(o) for o in origins]}: none leaves three budgets to fit and one to "
            f"forecast; choose from {possible[0]:g} to {possible[-1]:g} FLOP"
        )
    return kept


def _with_points_of(own: pd.DataFrame, other: pd.DataFrame | None) -> pd.DataFrame:
    """The cells of `own`, and those that only `other` has, unobserved: the link needs them."""
    if other is None:
        return own
    key = ["quantity", "budget", "params"]
    merged = own.merge(other[[*key, "flops"]], on=key, how="outer", suffixes=("", "_other"))
    merged["flops"] = merged["flops"].fillna(merged["flops_other"])
    return merged.drop(columns="flops_other")


def _at_origin(
    known: pd.DataFrame, methods: Mapping, ahead: pd.DataFrame, n_resamples: int, seed: int
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Forecasts of the cells ahead by every method from what was known, and why some failed."""
    alone = {name: without_findings(estimator) for name, estimator in methods.items()}
    try:
        members, failed = Members(known, alone, n_resamples, seed).results()
    except RunLogError as error:  # what the log has only later; the whole of it is sound
        members, failed = {}, dict.fromkeys(methods, str(error))
    out = [_ahead(members.get(name), ahead).assign(method=name) for name in methods]
    return pd.concat(out, ignore_index=True), failed


def _link_at_origin(
    known: pd.DataFrame, estimator: LinkEstimator, n_resamples: int, seed: int
) -> Bootstrap | str:
    """The link as it was known, or why there was none."""
    try:
        return resampled_or_why(known, estimator, n_resamples, seed)
    except RunLogError as error:
        return str(error)


def _named(table: pd.DataFrame, target: Target, observed: pd.DataFrame) -> pd.DataFrame:
    """With the trend known at each origin, and quantities by their names in a hindcast."""
    known = table[["quantity", "origin"]].drop_duplicates()
    trend = {(q, cut): trend_until(observed, q, cut) for q, cut in known.itertuples(index=False)}
    keys = zip(table["quantity"], table["origin"], strict=True)
    table["trend"] = [trend[key] for key in keys]
    table["quantity"] = [QUANTITY[target, q] for q in table["quantity"]]
    return table


def _ahead(member: Bootstrap | None, cells: pd.DataFrame) -> pd.DataFrame:
    predicted, base = np.full(len(cells), np.nan), np.full(len(cells), np.nan)
    if member is not None:
        for quantity in ("params_opt", "value_opt", "value"):
            at = (cells["quantity"] == quantity).to_numpy()
            if at.any():
                flops, params = cells.loc[at, "flops"], cells.loc[at, "params"]
                predicted[at], base[at] = log_forecast(member, quantity, flops, params)
    return cells.assign(predicted=predicted, base=base)


def past(runs: pd.DataFrame, flops: float) -> pd.DataFrame:
    """The rows of a log whose budget (or compute, where it has none) is at most `flops`."""
    compute = runs["flops"] if "budget" not in runs else runs["budget"].fillna(runs["flops"])
    return runs[(compute <= flops * (1 + 1e-9)).to_numpy()]


def _verdict(
    cells: pd.DataFrame, cuts: Array, failed: pd.DataFrame
) -> tuple[FitStatus, tuple[str, ...]]:
    """Status and what a reader has to know."""
    messages = []
    combined = cells[(cells["method"] == COMBINED) & cells["predicted"].notna()]
    used = combined["origin"].nunique()
    if used < 3:
        share = f" of {len(cuts)} origins could" if used < len(cuts) else " origins can"
        messages.append(f"only {used}{share} be forecast from: wide intervals")
    for (target, method), rows in failed.groupby(["target", "method"]):
        messages.append(
            f"{method} ({target}) could not be fitted at {len(rows)} of {len(cuts)} origins: "
            f"{rows['reason'].iloc[0].split(': ')[0]}"
        )
    return (FitStatus.DOUBTFUL if used < 3 else FitStatus.OK), tuple(messages)
