"""Coverage and width of forecasts on simulated ladders, under laws that the methods know or not.

The first tables are of the loss and N_opt. The last is of the mean return of the same ladders, by
a link that saturates between a floor and a ceiling that the forecast is told, or by a power law.

Usage: python benchmarks/forecast_coverage.py [--logs 30] [--return-logs 10]
    [--out benchmarks/results]
"""

import argparse
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface, SymmetricSurface
from scaling_analysis.laws.cost import Cost

Array = NDArray[np.float64]

BUDGETS = [1e10, 3e10, 1e11, 3e11, 1e12, 3e12]
AHEAD = [1e13, 2e13, 1e14]
SIZES = np.geomspace(2e3, 4e5, 9)


@dataclass(frozen=True)
class Broken:
    """An additive surface whose loss falls no further than a floor that the ladder hardly shows."""

    inside: AdditiveSurface
    floor: float

    @property
    def cost(self) -> Cost:
        return self.inside.cost

    def params_opt(self, flops: ArrayLike) -> Array:
        return self.inside.params_opt(flops)

    def value_opt(self, flops: ArrayLike) -> Array:
        return self._bent(self.inside.value_opt(flops))

    def value(self, params: ArrayLike, flops: ArrayLike) -> Array:
        return self._bent(self.inside.value(params, flops))

    def _bent(self, loss: Array) -> Array:
        return (loss**6 + self.floor**6) ** (1 / 6)


WORLDS = {
    "additive surface": AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0, beta=0.38),
    "symmetric profiles": SymmetricSurface(
        floor=0.5,
        scale=70.0,
        exponent=0.17,
        params_scale=0.04,
        params_exponent=0.48,
        curvature=0.12,
    ),
    "late floor": Broken(AdditiveSurface(E=0.0, A=18.0, alpha=0.30, B=200.0, beta=0.33), 1.15),
}


@dataclass(frozen=True)
class Saturating:
    """A return that rises from a floor to a ceiling: its odds are a power of the loss."""

    odds: float
    """Odds at loss `at`."""
    at: float
    exponent: float
    ends: dict[str, float]

    def __call__(self, loss: Array) -> Array:
        share = 1 / (1 + (np.asarray(loss) / self.at) ** self.exponent / self.odds)
        return self.ends["floor"] + (self.ends["ceiling"] - self.ends["floor"]) * share


def unbounded(loss: Array) -> Array:
    """A power law of the loss."""
    return 500.0 * np.asarray(loss) ** -4.0


ENDS = {"floor": 20.0, "ceiling": 3000.0}
LINKS: dict[str, tuple[Callable[[Array], Array], dict[str, float]]] = {
    "additive surface": (Saturating(0.82, 1.517, 4.6, ENDS), ENDS),
    "symmetric profiles": (unbounded, {}),
    "late floor": (Saturating(0.5, 1.67, 3.0, ENDS), ENDS),
}
"""The link of each world, and the ends that the forecast is told."""


def return_coverage(name: str, logs: int) -> pd.DataFrame:
    """The mean return at the optimum: average, and the link and the direct method by themselves."""
    law, (link, ends) = WORLDS[name], LINKS[name]
    truth = dict(zip(AHEAD, link(law.value_opt(np.array(AHEAD))), strict=True))
    parts = []
    for seed in range(logs):
        runs = simulate(law, seed, link=link, return_noise=0.05)
        made = sa.forecast(
            runs,
            AHEAD,
            link=partial(sa.fit_return_link, **ends),
            n_resamples=200,
            hindcast_resamples=60,
            rng=seed,
        )
        parts.append(made.return_routes().query("route != 'baseline'"))
    rows = []
    for (method, flops), at in pd.concat(parts).groupby(["method", "flops"], sort=True):
        lo, hi, value = at["mean_return_lo"], at["mean_return_hi"], truth[flops]
        rows.append(
            {
                "law": name,
                "quantity": "mean_return",
                "method": method,
                "times C_max": flops / BUDGETS[-1],
                "coverage": float(((lo < value) & (value < hi)).mean()),
                "half width": float((np.log(hi / lo) / 2).median()),
                "error": float(np.sqrt((np.log(at["mean_return"] / value) ** 2).mean())),
                "beyond the ceiling": int((hi >= ends.get("ceiling", np.inf)).sum()),
            }
        )
    return pd.DataFrame(rows)


def simulate(law, seed: int, **options) -> pd.DataFrame:
    """One ladder."""
    return sa.simulate_runs(
        law,
        SIZES,
        BUDGETS,
        seeds=3,
        sizes_per_budget=6,
        run_noise=0.01,
        checkpoint_noise=0.005,
        rng=seed,
        **options,
    )


def coverage(name: str, logs: int) -> pd.DataFrame:
    law = WORLDS[name]
    parts = []
    for seed in range(logs):
        runs = simulate(law, seed)
        made = sa.forecast(runs, AHEAD, n_resamples=200, hindcast_resamples=60, rng=seed)
        table = made.table[made.table["method"].isin(["combined", "persistence", "log-line"])]
        parts.append(table.assign(log=seed))
    table = pd.concat(parts)
    rows = []
    for (method, flops), at in table.groupby(["method", "flops"], sort=False):
        for quantity, truth in (
            ("loss", law.value_opt(flops)),
            ("params_opt", law.params_opt(flops)),
        ):
            lo, hi = at[f"{quantity}_lo"], at[f"{quantity}_hi"]
            rows.append(
                {
                    "law": name,
                    "quantity": quantity,
                    "method": method,
                    "times C_max": flops / BUDGETS[-1],
                    "coverage": float(((lo < truth) & (truth < hi)).mean()),
                    "half width": float((np.log(hi / lo) / 2).median()),
                    "error": float(np.sqrt((np.log(at[quantity] / truth) ** 2).mean())),
                }
            )
    return pd.DataFrame(rows).sort_values(["quantity", "method", "times C_max"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--logs", type=int, default=30)
    parser.add_argument("--return-logs", type=int, default=10)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    tables = [coverage(name, options.logs) for name in WORLDS]
    text = "\n".join(
        [
            "# Coverage of forecasts, nominal 90 %",
            "",
            f"`python benchmarks/forecast_coverage.py --logs {options.logs} "
            f"--return-logs {options.return_logs}`, "
            f"{platform.machine()}. Widths and errors in logs; coverage has a binomial standard "
            f"error of {np.sqrt(0.09 / options.logs):.2f}.",
            "",
            *[line for table in tables for line in markdown(table)],
            *returns_part(options.return_logs),
        ]
    )
    print(text)
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "forecast_coverage.md").write_text(text)


def returns_part(logs: int) -> list[str]:
    """The section on returns."""
    table = pd.concat([return_coverage(name, logs) for name in LINKS])
    return [f"## Mean return, {logs} logs a law", "", *markdown(table)]


def markdown(table: pd.DataFrame) -> list[str]:
    """The lines of a table, and an empty one."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * table.shape[1]]
    for row in table.itertuples(index=False):
        cells = [f"{v:.3g}" if isinstance(v, float) else str(v) for v in row]
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


if __name__ == "__main__":
    main()
