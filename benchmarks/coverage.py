"""Do the intervals hold? Coverage and width of every bootstrap scheme on simulated ladders.

    python benchmarks/coverage.py --simulations 300
    python benchmarks/coverage.py --simulations 1000 --schemes components --replicates 1000

Every simulation is a line of the cache file, so that a stopped study goes on where it was. The
table is printed and written to benchmarks/results/coverage.md with the command that made it.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import scaling_analysis as sa
from scaling_analysis.forecasting.simulation import AdditiveSurface

HERE = Path(__file__).parent
LAW = AdditiveSurface(E=0.5, A=40.0, alpha=0.35, B=300.0, beta=0.37)
LEVEL = 0.9
BEYOND = 10.0
QUANTITIES = ("exponent", "N_opt", "loss")
ESTIMATORS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "isoflop": sa.fit_isoflop,
    "parametric": sa.fit_parametric,
}
SCHEMES = ("components", "jackknife", "pairs", "rows", "dirichlet", "wild", "parametric")


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """How the runs of a study are laid out, and their noise."""

    words: str
    budgets: np.ndarray
    sizes: int
    margin: float
    """Sizes reach this factor beyond the optima of the smallest and the largest budget."""
    options: dict[str, Any]

    def simulate(self, rng: np.random.Generator) -> pd.DataFrame:
        low, high = LAW.params_opt(self.budgets[[0, -1]])
        sizes = np.geomspace(low / self.margin, high * self.margin, self.sizes)
        return sa.simulate_runs(LAW, sizes, self.budgets, rng=rng, **self.options)


LADDERS = {
    "long-13": Ladder(
        words="13 long runs, one a size, 9 budgets of 7 sizes; noise 1.5 % a run, .7 % a row",
        budgets=np.geomspace(1e14, 1e18, 9),
        sizes=13,
        margin=6,
        options={"sizes_per_budget": 7, "run_noise": 0.015, "checkpoint_noise": 0.007},
    ),
    "long-10": Ladder(
        words="10 long runs, one a size, all at 9 budgets; noise 2 % a run, .5 % a row",
        budgets=np.geomspace(1e14, 1e18, 9),
        sizes=10,
        margin=4,
        options={"run_noise": 0.02, "checkpoint_noise": 0.005},
    ),
    "long-8x3": Ladder(
        words="24 long runs, 8 sizes x 3 seeds, 6 budgets of 6 sizes; noise as for 13 long runs",
        budgets=np.geomspace(1e14, 1e17, 6),
        sizes=8,
        margin=4,
        options={
            "sizes_per_budget": 6,
            "seeds": 3,
            "run_noise": 0.015,
            "checkpoint_noise": 0.007,
        },
    ),
    "single-63": Ladder(
        words="63 single runs, 9 budgets of 7 sizes; noise 1.5 %",
        budgets=np.geomspace(1e14, 1e18, 9),
        sizes=13,
        margin=6,
        options={"sizes_per_budget": 7, "snapshots": False, "run_noise": 0.015},
    ),
    "single-30": Ladder(
        words="30 single runs, 6 budgets of 5 sizes; noise 1 %",
        budgets=np.geomspace(1e14, 1e17, 6),
        sizes=11,
        margin=6,
        options={"sizes_per_budget": 5, "snapshots": False, "run_noise": 0.01},
    ),
}


def quantities(fit: Any, flops: float) -> np.ndarray:
    """Exponent of N_opt, log N_opt and log loss at BEYOND times the largest budget."""
    log_n = np.log(fit.params_opt(np.array([flops, BEYOND * flops])))
    exponent = (log_n[..., 1] - log_n[..., 0]) / np.log(BEYOND)
    return np.stack([exponent, log_n[..., 1], np.log(fit.value_opt(BEYOND * flops))], axis=-1)


def simulate(ladder: Ladder, estimator: Any, schemes: list[str], replicates: int, seed: Any) -> Any:
    """Per scheme: error of the fit, interval ends minus the truth, or why there is none."""
    runs = ladder.simulate(np.random.default_rng(seed))
    flops = ladder.budgets[-1]
    truth = quantities(LAW, flops)
    result = {}
    for scheme in schemes:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", sa.ScalingWarning)
                found = sa.bootstrap(
                    runs, estimator, n_resamples=replicates, scheme=scheme, rng=seed[-1]
                )
            lo, hi = found.interval(partial(quantities, flops=flops), level=LEVEL)
        except (sa.FitError, sa.BootstrapError) as error:
            result[scheme] = {"refused": str(error)[:60]}
            continue
        result[scheme] = {
            "error": (quantities(found.fit, flops) - truth).round(6).tolist(),
            "lo": (lo - truth).round(6).tolist(),
            "hi": (hi - truth).round(6).tolist(),
        }
    return result


def table(lines: list[dict[str, Any]]) -> Iterator[str]:
    """Markdown: a block for each ladder and estimator, a row a scheme."""
    for name, ladder in LADDERS.items():
        for estimator in ESTIMATORS:
            mine = [x for x in lines if (x["ladder"], x["estimator"]) == (name, estimator)]
            if not mine:
                continue
            yield f"\n### {estimator}, {name}\n\n{ladder.words}.\n"
            yield (
                "| scheme | simulations | refused | exponent | width | N_opt, 10 x C_max | "
                "width [log N] | loss, 10 x C_max | width [log L] |"
            )
            yield "|---|---|---|---|---|---|---|---|---|"
            for scheme in SCHEMES:
                all_cells = [x["result"][scheme] for x in mine if scheme in x["result"]]
                cells = [x for x in all_cells if "lo" in x]
                if not all_cells:
                    continue
                row = [scheme, str(len(all_cells)), str(len(all_cells) - len(cells))]
                if len(cells) >= len(all_cells) / 2:
                    lo = np.array([x["lo"] for x in cells])
                    hi = np.array([x["hi"] for x in cells])
                    for i in range(len(QUANTITIES)):
                        hit = float(np.mean((lo[:, i] <= 0) & (hi[:, i] >= 0)))
                        error = np.sqrt(hit * (1 - hit) / len(cells))
                        row += [
                            f"{hit:.3f} +- {error:.3f}",
                            f"{np.median(hi[:, i] - lo[:, i]):.3f}",
                        ]
                else:
                    row += ["-"] * 6
                yield f"| {' | '.join(row)} |"
            errors = np.array(
                [
                    cell["error"]
                    for x in mine
                    for cell in list(x["result"].values())[:1]
                    if "error" in cell
                ]
            )
            ideal = 2 * 1.645 * errors.std(axis=0)
            yield (
                f"\nThe fit's own errors: mean {errors.mean(axis=0).round(3).tolist()}, "
                f"90 % of a normal distribution of their spread {ideal.round(3).tolist()} wide."
            )


def main() -> None:
    parser = argparse.ArgumentParser(description="Coverage and width of bootstrap intervals")
    parser.add_argument("--simulations", type=int, default=300)
    parser.add_argument("--replicates", type=int, default=500)
    parser.add_argument("--schemes", nargs="+", default=list(SCHEMES), choices=SCHEMES)
    parser.add_argument("--ladders", nargs="+", default=list(LADDERS), choices=LADDERS)
    parser.add_argument("--estimators", nargs="+", default=list(ESTIMATORS), choices=ESTIMATORS)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--cache", type=Path, default=HERE / "results" / "coverage.jsonl")
    parser.add_argument("--table", type=Path, default=HERE / "results" / "coverage.md")
    arguments = parser.parse_args()
    lines = []
    if arguments.cache.exists():
        lines = [json.loads(line) for line in arguments.cache.read_text().splitlines()]
    done = {(x["ladder"], x["estimator"], x["i"], s) for x in lines for s in x["result"]}
    with arguments.cache.open("a") as cache:
        for number, name in enumerate(LADDERS):
            for estimator in arguments.estimators:
                for i in range(arguments.simulations if name in arguments.ladders else 0):
                    todo = [s for s in arguments.schemes if (name, estimator, i, s) not in done]
                    if not todo:
                        continue
                    seed = [arguments.seed, number, i]
                    result = simulate(
                        LADDERS[name], ESTIMATORS[estimator], todo, arguments.replicates, seed
                    )
                    line = {"ladder": name, "estimator": estimator, "i": i, "result": result}
                    lines.append(line)
                    cache.write(json.dumps(line) + "\n")
                    cache.flush()
                    if sys.stderr.isatty() and i % 20 == 0:
                        print(f"{name} {estimator} {i}", end="\r", file=sys.stderr)
    text = "\n".join(
        [
            "# Coverage of bootstrap intervals",
            "",
            f"Nominal {LEVEL:.0%}: share of simulated logs whose interval holds the truth, with "
            "its binomial error, and the median width. Law: L = E + A/N^alpha + B/D^beta with "
            f"{LAW}.",
            "",
            f"`python benchmarks/coverage.py {' '.join(sys.argv[1:])}`".replace(" `", "`"),
            *table(lines),
            "",
        ]
    )
    arguments.table.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
