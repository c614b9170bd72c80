"""Behaviour cloning: predict the demonstrator's next action, by truncated backpropagation.

One loop: Adam at a constant learning rate after a warm-up; the recurrent state is carried from
chunk to chunk and cleared where a game begins; the agent is kept at the first optimiser step whose
counted FLOP reach each budget. A run can be killed at any moment: what it does next depends on its
last checkpoint alone.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from scaling_analysis import TrainError
from training_backend import checkpoint
from training_backend.config import RunConfig
from training_backend.models import Agent, State
from training_backend.tasks.fields import Demonstrations, Field

STATE = "training.safetensors"
"""Checkpoint in a run's folder that training goes on from."""
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a training run ended."""

    status: Literal["ok", "diverged"]
    note: str
    """Reason of the status; empty when ok."""
    steps: int
    """Optimiser steps taken."""
    wall_seconds: float
    """Time spent training, resumed parts included [s]."""


def train(
    config: RunConfig,
    demonstrations: Demonstrations,
    folder: Path,
    *,
    device: str = "cpu",
    on_step: Callable[[int], None] = lambda step: None,
) -> Outcome:
    """Train a run, or go on with it where its folder says it stopped.

    Leaves in `folder` one snapshot a budget (`snapshot_path`) and the last checkpoint.

    Args:
        config: the run.
        demonstrations: what `config.data` names.
        folder: the run's own folder; no other run may use it.
        device: where to compute, as PyTorch names it.
        on_step: called with the number of steps taken after each; may raise to stop the run.

    Returns:
        `status` "diverged" where the loss was not finite: snapshots before that are there.

    Raises:
        TrainError: the folder holds another run, or the disk is full.
    """
    agent = build_agent(config, demonstrations.fields, demonstrations.actions).to(device)
    optimiser = torch.optim.Adam(agent.parameters(), lr=config.learning_rate, fused=True)
    average = {k: v.detach().clone() for k, v in agent.named_parameters()}
    lstm_state = agent.initial_state(config.lanes)
    done, wall, started = 0, 0.0, time.monotonic()
    if (folder / STATE).exists():
        tensors, about = _load_state(folder / STATE, config)
        lstm_state = _unpack(tensors, agent, optimiser, average)
        done, wall = about["steps"], about["wall_seconds"]
        if about["status"] == "diverged":
            return Outcome(**{k: about[k] for k in ("status", "note", "steps", "wall_seconds")})

    def outcome(status: Literal["ok", "diverged"] = "ok", note: str = "") -> Outcome:
        seconds = wall + time.monotonic() - started
        return Outcome(status=status, note=note, steps=done, wall_seconds=seconds)

    def keep(result: Outcome) -> None:
        tensors = _pack(agent, optimiser, average, lstm_state)
        checkpoint.save(folder / STATE, tensors, asdict(result) | {"config": config.to_json()})

    stream = demonstrations.stream(config.lanes, config.chunk, config.seed)
    budget_at = dict(zip(config.snapshot_steps, config.snapshots, strict=True))
    last_kept = time.monotonic()
    while done < config.snapshot_steps[-1]:
        chunk = {k: torch.from_numpy(v).to(device) for k, v in stream[done].items()}
        optimiser.param_groups[0]["lr"] = config.learning_rate * min(
            1.0, (done + 1) / max(config.warmup_steps, 1)
        )
        loss, lstm_state = optimise(agent, optimiser, chunk, lstm_state, config.clip)
        if not math.isfinite(loss):
            samples = done * config.batch_size
            result = outcome("diverged", f"the loss is {loss} after {samples:,} samples")
            keep(result)
            return result
        done += 1
        _update_average(average, agent, done, config.averaging)
        if done in budget_at:
            _save_snapshot(folder, config, budget_at[done], average, outcome(), device)
        if done in budget_at or time.monotonic() - last_kept > CHECKPOINT_SECONDS:
            keep(outcome())
            last_kept = time.monotonic()
        on_step(done)
    return outcome()


def optimise(
    agent: Agent,
    optimiser: torch.optim.Optimizer,
    chunk: Mapping[str, Tensor],
    state: State,
    clip: float,
) -> tuple[float, State]:
    """One optimiser step on a chunk, skipped where the loss is not finite.

    Args:
        chunk: the fields, `action` and `reset`, each (T, B, ...).
        state: memory before the chunk.
        clip: largest norm of the gradient.

    Returns:
        Mean cross-entropy of the chunk [nats/action], and the memory after it.
    """
    logits, (h, c) = agent(chunk, state, chunk["reset"])
    loss = F.cross_entropy(logits.flatten(0, 1), chunk["action"].flatten().long())
    value = loss.item()
    if math.isfinite(value):
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), clip)
        optimiser.step()
    return value, (h.detach(), c.detach())


def build_agent(config: RunConfig, fields: Sequence[Field], actions: int) -> Agent:
    """The run's agent with its initial weights, which depend on `config.seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return Agent(fields, actions, config.width, config.agent)


def snapshot_path(folder: Path, budget: float) -> Path:
    """Where the agent that spent `budget` [FLOP] is kept."""
    return folder / f"{budget:g}.safetensors"


def load_snapshot(
    path: Path, fields: Sequence[Field], actions: int
) -> tuple[Agent, RunConfig, dict[str, Any]]:
    """A snapshot's agent, the configuration of its run, and what it had spent.

    Raises:
        TrainError: no such file, a damaged one, another version's, or an agent for other fields.
    """
    tensors, about = checkpoint.load(path)
    config = RunConfig.from_json(about["config"])
    agent = Agent(fields, actions, config.width, config.agent)
    shapes = {name: tuple(v.shape) for name, v in agent.named_parameters()}
    if shapes != {name: tuple(v.shape) for name, v in tensors.items()}:
        raise TrainError(
            f"{path}: the agent was made for other observations or actions than the "
            f"{config.task} task has now; use the version of this code that trained it"
        )
    agent.load_state_dict(tensors)
    return agent, config, about


def _update_average(average: dict[str, Tensor], agent: Agent, steps: int, width: float) -> None:
    """Average of the weights so far, weighted by step^(1 / width - 2): mean age width x steps.

    The window grows with the run, so that one average serves every budget (the power-function
    average of Karras et al. 2024, arXiv:2312.02696, section 3.1). Width 0: the last weights.
    """
    weight = 1.0 if width == 0 else 1.0 - (1.0 - 1.0 / steps) ** (1.0 / width - 1.0)
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            average[name].lerp_(parameter, weight)


def _save_snapshot(
    folder: Path,
    config: RunConfig,
    budget: float,
    weights: Mapping[str, Tensor],
    result: Outcome,
    device: str,
) -> None:
    samples = result.steps * config.batch_size
    about = {
        "config": config.to_json(),
        "budget": budget,
        "samples": samples,
        "flops": samples * config.flops_per_sample,
        "wall_seconds": result.wall_seconds,
        "device": device,
        "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    checkpoint.save(snapshot_path(folder, budget), weights, about)


def _pack(
    agent: Agent,
    optimiser: torch.optim.Adam,
    average: Mapping[str, Tensor],
    state: State,
) -> dict[str, Tensor]:
    tensors = {"state.hidden": state[0], "state.cell": state[1]}
    for name, parameter in agent.named_parameters():
        tensors[f"agent.{name}"] = parameter
        tensors[f"average.{name}"] = average[name]
        for key, value in optimiser.state[parameter].items():
            tensors[f"adam.{key}.{name}"] = value
    return tensors


def _unpack(
    tensors: Mapping[str, Tensor],
    agent: Agent,
    optimiser: torch.optim.Adam,
    average: dict[str, Tensor],
) -> State:
    with torch.no_grad():
        for name, parameter in agent.named_parameters():
            parameter.copy_(tensors[f"agent.{name}"])
            average[name].copy_(tensors[f"average.{name}"])
            slots = ("step", "exp_avg", "exp_avg_sq")
            found = {s: tensors[f"adam.{s}.{name}"] for s in slots if f"adam.{s}.{name}" in tensors}
            optimiser.state[parameter] = {s: v.to(parameter.device) for s, v in found.items()}
    device = agent.embedding.device
    return tensors["state.hidden"].to(device), tensors["state.cell"].to(device)


def _load_state(path: Path, config: RunConfig) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, about = checkpoint.load(path)
    was = RunConfig.from_json(about["config"])
    if was != config:
        old, new = asdict(was), asdict(config)
        changed = [f"{k} was {old[k]!r}, now {new[k]!r}" for k in old if old[k] != new[k]]
        raise TrainError(
            f"{path.parent}: holds a run of other settings ({'; '.join(changed)}). Give the "
            "planned run another run_id, or delete the folder to train it again"
        )
    return tensors, about
