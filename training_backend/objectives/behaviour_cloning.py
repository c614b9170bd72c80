"""Behaviour cloning: predict the demonstrator's next action, by truncated backpropagation.

One loop: Adam at a constant learning rate after a warm-up; the agent's memory is carried from
chunk to chunk and cleared where a game begins; the agent is kept at the first optimiser step whose
counted FLOP reach each budget. A run can be killed at any moment: what it does next depends on its
last checkpoint alone.

The loop is that of every objective. What is cloned differs: all games, the best ones
(`objectives.games`), or actions given the return that followed (`objectives.return_conditioned`).
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from scaling_analysis import TrainError
from training_backend.config import Leg, RunConfig
from training_backend.distributed import ALONE, Computation, World
from training_backend.families import find_family
from training_backend.loading import open_loader
from training_backend.models import Agent, State
from training_backend.objectives import return_conditioned
from training_backend.objectives.games import require_scores
from training_backend.objectives.training_state import (
    STATE,
    Outcome,
    TrainingState,
    build_agent,
    cooldown_file,
    load_snapshot,
    snapshot_path,
)
from training_backend.precision import choose_precision
from training_backend.tasks.fields import Demonstrations, Stream

__all__ = [
    "STATE",
    "Outcome",
    "build_agent",
    "end_leg",
    "frame_losses",
    "is_behind",
    "leg_file",
    "load_snapshot",
    "measure_loss",
    "open_stream",
    "optimise",
    "rate_at",
    "snapshot_path",
    "train",
]

CHECKPOINT_SECONDS = 60.0
LOSS_EVERY = 16
"""Steps between two looks at the loss on a GPU, which would stand still at every look."""


def train(
    config: RunConfig,
    demonstrations: Demonstrations,
    folder: Path,
    *,
    device: str = "cpu",
    micro_batches: int = 1,
    world: World = ALONE,
    on_step: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Train a run, or go on with it where its folder says it stopped.

    Leaves in `folder` one snapshot a budget (`snapshot_path`) and the last checkpoint.

    Args:
        config: the run.
        demonstrations: what `config.data` names (`games.used_games`).
        folder: the run's own folder; no other run may use it.
        device: where to compute, as PyTorch names it.
        micro_batches: parts of a batch that are computed one after another to save memory; the
            losses are the same up to rounding.
        world: the processes that train this run together, each calling this with the same run.
        on_step: called with the number of steps taken after each; may raise to stop the run.

    Returns:
        `status` "diverged" where the loss was not finite: snapshots before that are there.

    Raises:
        TrainError: the folder holds another run, these are not its demonstrations, there are more
            micro-batches than lanes, or the disk is full.
    """
    if demonstrations.fingerprint != config.data:
        raise TrainError(
            f"run {config.run_id}: planned for the demonstrations {config.data}, these are "
            f"{demonstrations.fingerprint}; plan it again, or open those"
        )
    lanes = world.lanes(config.lanes)
    if not 1 <= micro_batches <= len(lanes):
        raise TrainError(
            f"run {config.run_id}: {micro_batches} micro-batches of {len(lanes)} lanes; choose 1 "
            f"to {len(lanes)}, or a larger batch_size"
        )
    precision = choose_precision(device, config.params, find_family(config.agent).core)
    with precision.computing(torch.device(device)):  # the memory has the type it is computed in
        run = TrainingState(config, demonstrations.fields, demonstrations.actions, folder, device)
    run.writes = world.writes
    run.load()
    if run.status == "diverged":
        return run.outcome()
    precision.prepare(run.agent)
    run.computing = ", ".join(filter(None, [precision.describe(), world.describe()]))
    computation = Computation(measure_loss, run.agent, precision, world, config.lanes)
    stream = open_stream(config, demonstrations)
    last_kept = time.monotonic()
    with precision.active(), open_loader(stream, device=device, lanes=lanes) as load:
        for leg in config.legs:
            if is_behind(leg, run):
                continue
            if leg.cools:
                run.load(leg_file(leg))
            memory = world.part_of(run.memory)
            while run.steps < leg.end:
                waited = load.waited
                chunk = load[run.steps]
                run.data_seconds += load.waited - waited
                run.set_rate(rate_at(config, leg, run.steps))
                loss, memory = optimise(
                    run.agent, run.optimiser, chunk, memory, config.clip, micro_batches, computation
                )
                look = device == "cpu" or run.steps % LOSS_EVERY == 0 or run.steps == leg.end - 1
                if look and not math.isfinite(value := computation.mean(loss).item()):
                    run.memory = world.gather(memory, config.lanes)
                    return run.diverge(value)
                run.steps += 1
                run.update_average()
                if look and world.agree(time.monotonic() - last_kept > CHECKPOINT_SECONDS, device):
                    run.memory = world.gather(memory, config.lanes)
                    run.keep(leg_file(leg))
                    last_kept = time.monotonic()
                on_step(run.steps)
            run.memory = world.gather(memory, config.lanes)
            end_leg(leg, run)
            world.wait()
            last_kept = time.monotonic()
    return run.outcome()


def leg_file(leg: Leg) -> str:
    """The checkpoint in a run's folder that a leg goes on from."""
    return cooldown_file(leg.budget) if leg.cools else STATE


def is_behind(leg: Leg, run: TrainingState) -> bool:
    """Whether a leg was trained to its end before the run was stopped."""
    kept = leg.budget is None or snapshot_path(run.folder, leg.budget).exists()
    if leg.cools:
        return kept or run.steps > leg.begin
    return run.steps > leg.end or (run.steps == leg.end and kept)


def end_leg(leg: Leg, run: TrainingState) -> None:
    """Keep what a leg leaves; after a branch the run is back where the branch left the trunk."""
    if leg.budget is not None and not snapshot_path(run.folder, leg.budget).exists():
        run.save_snapshot(leg.budget)
    if leg.cools:
        run.load(STATE)
        run.forget(leg_file(leg))
    run.keep()


def open_stream(config: RunConfig, demonstrations: Demonstrations) -> Stream:
    """The chunks that a run trains on, with the returns to go where it learns from them."""
    if find_family(config.agent).objective == "returns":
        scored = require_scores(demonstrations)
        return scored.stream(config.lanes, config.chunk, config.seed, returns=True)
    return demonstrations.stream(config.lanes, config.chunk, config.seed)


def rate_at(config: RunConfig, leg: Leg, step: int) -> float:
    """Learning rate of the optimiser step after `step` others.

    Constant after a linear warm-up; along a cooldown branch it falls linearly, to zero at its end.
    """
    rate = config.learning_rate * min(1.0, (step + 1) / max(config.warmup_steps, 1))
    return rate * (leg.end - step) / (leg.end - leg.begin) if leg.cools else rate


def optimise(
    agent: Agent,
    optimiser: torch.optim.Optimizer,
    chunk: Mapping[str, Tensor],
    state: State,
    clip: float,
    micro_batches: int = 1,
    computation: Computation | None = None,
) -> tuple[Tensor, State]:
    """One optimiser step on a chunk.

    Nothing here waits for the device. A loss that is not finite spoils the weights: who calls this
    stops there.

    Args:
        chunk: the fields, `action` and `reset` (and `to_go`), each (T, B, ...).
        state: memory before the chunk.
        clip: largest norm of the gradient.
        micro_batches: parts that the lanes are split into; their gradients are added.
        computation: how the device computes the agent's loss, and which other processes take
            part; None: in plain float32, alone.

    Returns:
        Mean loss of the chunk [nats/action], (), and the memory after it.
    """
    if computation is None:
        computation = Computation(measure_loss, agent)
    optimiser.zero_grad(set_to_none=True)
    total, memories = torch.zeros((), device=chunk["action"].device), []
    parts = list(_split_lanes(chunk, state, micro_batches))
    for number, (share, part, memory) in enumerate(parts, start=1):
        with computation.exchanging(number == len(parts)):
            loss, memory = computation(part, memory)
            (share * computation.weight * loss).backward()
        total += share * loss.detach()
        memories.append(memory)
    torch.nn.utils.clip_grad_norm_(agent.parameters(), clip)
    optimiser.step()
    if len(memories) == 1:  # not copied: a transformer's is larger than its activations
        return total, tuple(t.detach() for t in memories[0])
    kept = zip(*memories, strict=True)
    return total, tuple(torch.cat([t.detach() for t in part]) for part in kept)


def measure_loss(agent: Agent, chunk: Mapping[str, Tensor], state: State) -> tuple[Tensor, State]:
    """What training minimises: mean over a chunk (T, B) [nats/action], (), and the memory after it.

    The cross-entropy of the demonstrator's action; with returns, that of action and return.
    """
    if agent.family.objective == "returns":
        return return_conditioned.measure_loss(agent, chunk, state)
    logits, state = agent(chunk, state, agent.resets_of(chunk))
    return F.cross_entropy(logits.flatten(0, 1), chunk["action"].flatten().long()), state


def frame_losses(
    agent: Agent, chunk: Mapping[str, Tensor], state: State
) -> tuple[dict[str, Tensor], State]:
    """Losses of every frame of a chunk (T, B), by their column in the run log, and the memory.

    `loss` is the cross-entropy of the demonstrator's action [nats/action] under a policy that
    knows what the agent sees and nothing else, for every objective.
    """
    if agent.family.objective == "returns":
        return return_conditioned.frame_losses(agent, chunk, state)
    logits, state = agent(chunk, state, chunk["reset"])
    losses = F.cross_entropy(
        logits.flatten(0, 1), chunk["action"].flatten().long(), reduction="none"
    )
    return {"loss": losses.view_as(chunk["action"])}, state


def _split_lanes(
    chunk: Mapping[str, Tensor], state: State, parts: int
) -> Iterator[tuple[float, dict[str, Tensor], State]]:
    """The chunk's lanes in nearly equal parts, each with its share of the whole and its memory."""
    lanes = chunk["action"].shape[1]
    borders = [lanes * i // parts for i in range(parts + 1)]
    for begin, end in pairwise(borders):
        part = {name: tensor[:, begin:end] for name, tensor in chunk.items()}
        yield (end - begin) / lanes, part, tuple(t[begin:end] for t in state)
