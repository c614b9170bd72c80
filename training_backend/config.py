"""RunConfig: everything that determines a training run, fixed before it starts."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from scaling_analysis import PlanError, split_budgets
from training_backend.families import find_family
from training_backend.objectives.games import best_threshold, require_scores, used_games
from training_backend.objectives.return_conditioned import KAPPA, bins_of
from training_backend.sizing import Size, size_for_params
from training_backend.tasks.fields import Demonstrations

CHUNK = 32
"""Steps of truncated backpropagation."""
LONG_CHUNK = 128
"""The same for large transformers, as many as they remember: in chunks of 32 four fifths of the
keys that a step is compared with are copies of the memory."""
LONG_CHUNK_PARAMS = 2e6
"""Transformers from this size on are trained in long chunks [count]."""
WARMUP_STEPS = 50
CLIP = 1.0
COOLDOWN = 0.0
"""No cooldown branches: `benchmarks/results/cooldown.md` has the comparison."""
AVERAGING = 0.1
"""Averaged weights lose 5 to 10 % less than the last ones at a constant learning rate."""
MEASURED = 400e3
"""Size up to which the measured rules for batch and learning rate are taken to hold, twice the
largest of the sweep behind them [count]."""
LONGEST_NAME = 200
"""Letters of a run_id: file systems take 255."""
COARSEST_STEP = 0.05
"""A budget of which one optimiser step would be a larger part is skipped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leg:
    """A stretch of a run between two of its checkpoints, in optimiser steps."""

    begin: int
    """Steps taken before it."""
    end: int
    """Steps taken after it."""
    budget: float | None
    """The budget [FLOP] that is spent at its end, where the agent is kept; None: it is not."""
    cools: bool
    """Whether it is a cooldown branch: the learning rate falls to zero, and the next leg goes on
    from `begin`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunConfig:
    """One training run. Equal configurations give equal losses (bit for bit on one CPU thread).

    Example:
        >>> config = RunConfig.from_plan_row(plan.iloc[0], shards)  # doctest: +SKIP
        >>> RunConfig.from_json(config.to_json()) == config  # doctest: +SKIP
        True
    """

    run_id: str
    """Name of the run in plan, log and folder."""
    agent: str
    """Name of the agent's family."""
    task: str
    """Task name, as in the run log."""
    data: str
    """Fingerprint of the demonstrations."""
    seed: int
    """Seed of the initial weights and of the order of the games."""
    width: float
    """Setting of the agent's dial."""
    params: int
    """N [count], counted at `width`."""
    flops_per_sample: float
    """C / D [FLOP], counted."""
    snapshots: tuple[float, ...]
    """Budgets at which the agent is kept and evaluated, increasing [FLOP]."""
    skipped: tuple[float, ...]
    """Planned budgets that are too small for this size and batch [FLOP]."""
    learning_rate: float
    """Constant learning rate after the warm-up."""
    warmup_steps: int
    """Optimiser steps over which the learning rate rises linearly."""
    batch_size: int
    """Samples an optimiser step: lanes x chunk."""
    chunk: int
    """Steps of truncated backpropagation."""
    clip: float
    """Largest norm of the gradient."""
    averaging: float
    """Mean age of the weights averaged in a snapshot over the steps taken; 0: the last weights."""
    protocol: str
    """Evaluation protocol of the returns; empty: none are measured."""
    cooldown: float = 0.0
    """Part of a budget's steps that are a branch of their own, along which the learning rate falls
    to zero; 0: no branches."""
    score_threshold: float | None = None
    """Least final score of the games that are cloned [points]; objective "best" only."""
    return_edges: tuple[int, ...] = ()
    """Lowest return to go of every bin but the first [points]; objective "returns" only."""
    return_values: tuple[float, ...] = ()
    """Mean return to go of every bin [points]; objective "returns" only."""
    kappa: float = 0.0
    """Tilt of the returns at play: how much the highest counts more than the lowest in log P
    [nats]; objective "returns" only."""

    @classmethod
    def from_plan_row(
        cls,
        row: Mapping[str, Any],
        demonstrations: Demonstrations,
        *,
        averaging: float = AVERAGING,
        cooldown: float = COOLDOWN,
    ) -> Self:
        """Resolve a row of a plan: count the size, fill in learning rate and batch by their rules.

        Args:
            row: run_id, agent, task, params, budget, seed and, where given, snapshots,
                learning_rate, batch_size, protocol.
            demonstrations: the training split, of which the objective may use a part
                (`objectives.games.used_games`).
            averaging: mean age of the weights averaged in a snapshot over the steps taken.
            cooldown: part of a budget's steps that are its cooldown branch. Cooled weights are not
                averaged.

        Raises:
            PlanError: the row has no agent of this size, none of its budgets can be reached in
                at least 20 optimiser steps, its run_id cannot name a folder, its seed is negative,
                or the demonstrations lack the scores that the objective learns from.
        """
        run_id = str(row["run_id"])
        _refuse_odd_names(run_id, int(row["seed"]))
        if not 0 <= cooldown <= 0.5:
            raise PlanError(f"cooldown={cooldown:g}: a part of the steps, 0 to .5")
        try:
            used, learned = _objective(str(row["agent"]), demonstrations)
            size = size_for_params(
                demonstrations.fields, demonstrations.actions, float(row["params"]), row["agent"]
            )
            planned = _budgets(row)
            batch = _given(row, "batch_size") or batch_size_for(size)
            chunk = min(chunk_for(str(row["agent"]), size), int(batch))
            if batch % chunk:
                raise PlanError(
                    f"batch_size={batch:g}: give a multiple of the chunk of {chunk} steps"
                )
            batch = int(batch)
            finest = batch * size.flops_per_sample / COARSEST_STEP
            kept = tuple(b for b in planned if b >= finest)
            if not kept:
                raise PlanError(
                    f"a step of {batch} samples costs {batch * size.flops_per_sample:.3g} FLOP, "
                    f"over {COARSEST_STEP:.0%} of the largest budget {planned[-1]:g}; plan a "
                    "larger budget, a smaller size or a smaller batch_size"
                )
        except PlanError as error:
            raise PlanError(f"run {run_id}: {error}") from error
        return cls(
            run_id=run_id,
            agent=row["agent"],
            task=str(row["task"]),
            data=used.fingerprint,
            seed=int(row["seed"]),
            width=size.width,
            params=size.params,
            flops_per_sample=size.flops_per_sample,
            snapshots=kept,
            skipped=tuple(b for b in planned if b < finest),
            learning_rate=float(_given(row, "learning_rate") or learning_rate_for(size, batch)),
            warmup_steps=WARMUP_STEPS,
            batch_size=batch,
            chunk=chunk,
            clip=CLIP,
            averaging=0.0 if cooldown else averaging,
            protocol=str(row.get("protocol") or ""),
            cooldown=cooldown,
            **learned,
        )

    @property
    def lanes(self) -> int:
        """Games side by side."""
        return self.batch_size // self.chunk

    @property
    def snapshot_steps(self) -> tuple[int, ...]:
        """First optimiser step whose counted FLOP reach each budget."""
        step = self.batch_size * self.flops_per_sample
        return tuple(math.ceil(budget / step) for budget in self.snapshots)

    @property
    def legs(self) -> tuple[Leg, ...]:
        """What to train, one leg after another.

        Without cooldown from snapshot to snapshot. With it, the trunk at its constant rate to
        where a budget's branch leaves it, then that branch, then the trunk again from there: a
        snapshot's FLOP are those on its own path.
        """
        legs, at = [], 0
        for end, budget in zip(self.snapshot_steps, self.snapshots, strict=True):
            if self.cooldown:
                leave = end - max(1, round(self.cooldown * end))
                legs.append(Leg(begin=at, end=leave, budget=None, cools=False))
                legs.append(Leg(begin=leave, end=end, budget=budget, cools=True))
                at = leave
            else:
                legs.append(Leg(begin=at, end=end, budget=budget, cools=False))
                at = end
        return tuple(legs)

    @property
    def samples(self) -> int:
        """D [count] at the last snapshot."""
        return self.snapshot_steps[-1] * self.batch_size

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The configuration that `to_json` wrote; settings that came later have their defaults."""
        values = json.loads(text)
        known = {f.name for f in fields(cls)}
        needed = {f.name for f in fields(cls) if f.default is MISSING}
        if odd := (set(values) - known) | (needed - set(values)):
            names = ", ".join(sorted(odd))
            raise PlanError(f"not the configuration of a run by this version: {names}")
        values |= {k: tuple(v) for k, v in values.items() if isinstance(v, list)}
        return cls(**values)

    @property
    def hash(self) -> str:
        """Names the run's content: equal configurations have equal hashes.

        A setting at its default is left out, so a run keeps its hash when a setting is added.
        """
        defaults = {f.name: f.default for f in fields(self) if f.default is not MISSING}
        named = {k: v for k, v in asdict(self).items() if k not in defaults or v != defaults[k]}
        text = json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def batch_size_for(size: Size) -> int:
    """Samples an optimiser step, by size alone, so that a longer run differs in nothing but length.

    The smallest batch that trains at a fair speed: at small budgets a batch twice as large costs an
    8k agent 15 % of its loss (`benchmarks/results/learning_rate.md`). Beyond `MEASURED` parameters
    it grows as their square root, to the nearest power of two: about the exponent .57 with which
    the best batch grows with the samples (Li et al. 2025, arXiv:2503.04715, equation 1), and the
    samples of a compute-optimal run with the size. Not measured here.
    """
    if size.params <= MEASURED:
        return 256 if size.params < 24e3 else 512 if size.params < 100e3 else 1024
    return 2 ** round(math.log2(1024 * math.sqrt(size.params / MEASURED)))


def chunk_for(agent: str, size: Size) -> int:
    """Steps of truncated backpropagation of a family's agents of a size."""
    large = find_family(agent).core == "transformer" and size.params >= LONG_CHUNK_PARAMS
    return LONG_CHUNK if large else CHUNK


def learning_rate_for(size: Size, batch: int) -> float:
    """Adam's learning rate: 0.014 (N / 16k)^-0.2 at the batch of the rule, and as its square root.

    Read off the sweep in `benchmarks/results/learning_rate.md`; half or twice the rate changes the
    loss by 1 to 5 %. Beyond `MEASURED` parameters it goes on from there as N^-0.4, extrapolated:
    the best rate of language models is 1.79 N^-.713 D^.307 at a batch of .58 D^.571 tokens (Li et
    al. 2025), which at the batch of our rule (as its square root) and D = 50 N samples is .0024,
    .0010 and .0004 for 10M, 100M and 500M; this rule gives .0020, .0008 and .0004. All families
    take the LSTM's rule: the best rates of the others lay a factor of .5 to 1.6 from it.
    """
    rate = 0.014 * (min(size.params, MEASURED) / 16e3) ** -0.2
    rate *= max(size.params / MEASURED, 1.0) ** -0.4
    return rate * math.sqrt(batch / batch_size_for(size))


def _objective(agent: str, demonstrations: Demonstrations) -> tuple[Demonstrations, dict[str, Any]]:
    """The games that an agent learns from, and what its objective measures of them."""
    match find_family(agent).objective:
        case "cloning":
            return demonstrations, {}
        case "best":
            threshold = best_threshold(demonstrations)
            return used_games(demonstrations, agent, threshold), {"score_threshold": threshold}
        case "returns":
            bins = bins_of(require_scores(demonstrations))
            return demonstrations, {
                "return_edges": bins.edges,
                "return_values": bins.values,
                "kappa": KAPPA,
            }


def _refuse_odd_names(run_id: str, seed: int) -> None:
    """Raise `PlanError` for a run whose folder would lie elsewhere, or that cannot be drawn."""
    odd = run_id != Path(run_id).name or run_id.startswith(".")
    if odd or len(run_id.encode()) > LONGEST_NAME:
        raise PlanError(
            f"run {run_id}: a run's folder has its run_id for a name, so it holds no /, begins "
            f"with no dot, and has {LONGEST_NAME} letters at most"
        )
    if seed < 0:
        raise PlanError(f"run {run_id}: seed={seed}: seeds begin at 0")


def _budgets(row: Mapping[str, Any]) -> tuple[float, ...]:
    text = row.get("snapshots")
    if isinstance(text, str) and text:
        return tuple(float(b) for b in split_budgets(text))
    return (float(row["budget"]),)


def _given(row: Mapping[str, Any], name: str) -> float | None:
    value = row.get(name)
    return None if value is None or math.isnan(float(value)) else float(value)
