"""Errors and coverage of the intrinsic fit on simulated learning curves.

    python benchmarks/intrinsic_coverage.py --simulations 100
    python benchmarks/intrinsic_coverage.py --part inner --simulations 40

Truth: alpha_N = .55, alpha_E = .45, so that the exponent of N* is .45; nine sizes from 1e4 to 1e8,
128 evaluations up to 1e8 samples each; the return is logistic in log I, its evaluation noise .01.
Every simulation is written to a cache as it ends: a run that was stopped goes on where it was.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd

import scaling_analysis as sa
from scaling_analysis.laws.intrinsic import IntrinsicLaw

LEVEL = 0.9
NOISE = 0.01
TRUTH = IntrinsicLaw.from_constants(size_exponent=0.55, sample_exponent=0.45, size_scale=3e-2)
SIZES = np.geomspace(1e4, 1e8, 9)
SAMPLES = np.linspace(1e8 / 128, 1e8, 128)
SCHEMES = ("components", "jackknife")
INNER = {
    "isotonic": {"inner": "isotonic"},
    "smooth, 20 knots": {"knots": 20},
    "smooth, 30 knots": {},
    "smooth, 40 knots": {"knots": 40},
    "smooth, 30 knots, running mean .3": {"smoothing": 0.3},
    "smooth, 30 knots, running mean 1": {"smoothing": 1.0},
    "smooth, 30 knots, nothing dropped": {"drop": 0.0},
}


def simulate(rng: np.random.Generator, noise: float, between: float = 0.0) -> pd.DataFrame:
    """A run log of one run a size; `between` is the spread of what a run has for itself."""
    n, d = np.repeat(SIZES, len(SAMPLES)), np.tile(SAMPLES, len(SIZES))
    log_i = TRUTH.log_intrinsic(n, d)
    low, high = np.quantile(log_i, [0.1, 0.9])
    expected = 1 / (1 + np.exp(-4 * (log_i - (low + high) / 2) / (high - low)))
    shift = np.repeat(between * rng.standard_normal(len(SIZES)), len(SAMPLES))
    return pd.DataFrame(
        {
            "run_id": [f"n{size:.4g}" for size in n],
            "params": n,
            "samples": d,
            "flops": n * d,
            "mean_return": expected * (1 + shift) + noise * rng.standard_normal(len(n)),
            "protocol": "simulated",
        }
    )


def exponent(fit: sa.FrontierFit) -> np.ndarray:
    return fit.params_exponent  # type: ignore[attr-defined]


def cover(seed: list[int], between: float, replicates: int) -> dict[str, list[float] | None]:
    """Estimate, and by scheme the interval of the exponent."""
    runs = simulate(np.random.default_rng(seed), NOISE, between)
    fit = sa.fit_intrinsic(runs, workers=1)
    out: dict[str, list[float] | None] = {"estimate": [float(fit.params_exponent)]}
    for scheme in SCHEMES:
        try:
            made = sa.bootstrap(
                runs, lambda _: fit, scheme=scheme, n_resamples=replicates, rng=seed[-1]
            )
            lo, hi = made.interval(exponent, level=LEVEL)
            out[scheme] = [float(lo), float(hi)]
        except sa.BootstrapError:
            out[scheme] = None
    return out


def compare(seed: list[int], between: float) -> dict[str, list[float] | None]:
    """Estimates by the function of log I and its options."""
    runs = simulate(np.random.default_rng(seed), NOISE, between)
    return {
        name: [float(sa.fit_intrinsic(runs, **options).params_exponent)]
        for name, options in INNER.items()
    }


def coverage_table(lines: list[dict]) -> list[str]:
    truth = float(TRUTH.params_exponent)
    out = [
        "| noise between runs | scheme | simulations | refused | coverage | median half-width "
        "| largest half-width |",
        "|---|---|---|---|---|---|---|",
    ]
    for between in sorted({line["between"] for line in lines}):
        for scheme in SCHEMES:
            found = [line["result"][scheme] for line in lines if line["between"] == between]
            ends = np.array([ends for ends in found if ends is not None])
            if not len(ends):
                continue
            inside = (ends[:, 0] <= truth) & (truth <= ends[:, 1])
            p, half = inside.mean(), (ends[:, 1] - ends[:, 0]) / 2
            error = 1.645 * np.sqrt(max(p * (1 - p), 1 / len(ends)) / len(ends))
            out.append(
                f"| {between:g} | {scheme} | {len(found)} | {len(found) - len(ends)} | {p:.2f} +- "
                f"{error:.2f} | {np.median(half):.4f} | {half.max():.4f} |"
            )
    return out


def error_table(lines: list[dict], names: list[str]) -> list[str]:
    truth = float(TRUTH.params_exponent)
    out = [
        "| noise between runs | fit | simulations | mean error | spread | largest |",
        "|---|---|---|---|---|---|",
    ]
    for between in sorted({line["between"] for line in lines}):
        for name in names:
            found = [line["result"][name][0] for line in lines if line["between"] == between]
            e = np.array(found) - truth
            out.append(
                f"| {between:g} | {name} | {len(e)} | {e.mean():+.4f} | {e.std(ddof=1):.4f} | "
                f"{np.abs(e).max():.4f} |"
            )
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", choices=("coverage", "inner"), default="coverage")
    parser.add_argument("--simulations", type=int, default=100)
    parser.add_argument("--replicates", type=int, default=100)
    parser.add_argument("--between", type=float, nargs="+", default=[0.0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=Path("intrinsic_coverage.jsonl"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    lines = []
    if arguments.cache.exists():
        lines = [json.loads(text) for text in arguments.cache.read_text().splitlines()]
    done = {(line["part"], line["between"], line["i"]) for line in lines}
    with arguments.cache.open("a") as cache:
        for i in range(arguments.simulations):
            for between in arguments.between:
                if (arguments.part, between, i) in done:
                    continue
                start, seed = time.process_time(), [arguments.seed, i]
                if arguments.part == "coverage":
                    result = cover(seed, between, arguments.replicates)
                else:
                    result = compare(seed, between)
                line = {"part": arguments.part, "between": between, "i": i, "result": result}
                line["seconds"] = time.process_time() - start
                lines.append(line)
                cache.write(json.dumps(line) + "\n")
                cache.flush()
                print(arguments.part, between, i, result, file=sys.stderr)
    text = ["# Intrinsic fit on simulated learning curves", "", *__doc__.splitlines()[5:7], ""]
    covered = [line for line in lines if line["part"] == "coverage"]
    compared = [line for line in lines if line["part"] == "inner"]
    text += [
        "`python benchmarks/intrinsic_coverage.py --simulations "
        f"{len({line['i'] for line in covered})}` and `--part inner --simulations "
        f"{len({line['i'] for line in compared})}`.",
        "",
    ]
    if covered:
        text += ["## Exponent of N*, its nominal 90 % interval", "", *coverage_table(covered), ""]
        text += ["Errors of the estimate:", "", *error_table(covered, ["estimate"]), ""]
        mean = np.mean([line["seconds"] for line in covered])
        text += [f"{mean:.1f} CPU seconds a simulation, the fit and both schemes.", ""]
    if compared:
        text += ["## Errors of the exponent by the function of log I", ""]
        text += [*error_table(compared, list(INNER)), ""]
    print("\n".join(text))
    if arguments.out:
        (arguments.out / "intrinsic_coverage.md").write_text("\n".join(text))


if __name__ == "__main__":
    main()
