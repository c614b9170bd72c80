"""What a training run is at a moment, and the files that hold it."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from scaling_analysis import TrainError
from training_backend import checkpoint
from training_backend.config import RunConfig
from training_backend.heads import ReturnHead
from training_backend.models import Agent, State
from training_backend.tasks.fields import Field

STATE = "training.safetensors"
"""Checkpoint in a run's folder that training goes on from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a training run ended."""

    status: Literal["ok", "diverged"]
    note: str
    """Reason of the status; empty when ok."""
    steps: int
    """Optimiser steps taken; with cooldown branches those before the last one left, or of the
    branch that diverged."""
    wall_seconds: float
    """Time spent training, resumed parts and branches included [s]."""
    data_seconds: float = 0.0
    """The part of it that the loop stood waiting for data [s]."""


class TrainingState:
    """An agent in training: its weights, their average, the optimiser's and the agent's memory.

    Parameters
    ----------
    config
        The run.
    fields, actions
        Of the demonstrations.
    folder
        The run's own folder.
    device
        Where to compute, as PyTorch names it.

    Examples
    --------
    >>> run = TrainingState(config, FIELDS, ACTIONS, folder)  # doctest: +SKIP
    >>> run.load(STATE)  # where an earlier process stopped  # doctest: +SKIP
    """

    def __init__(
        self,
        config: RunConfig,
        fields: Sequence[Field],
        actions: int,
        folder: Path,
        device: str = "cpu",
    ) -> None:
        self.config, self.folder, self.device = config, folder, device
        self.agent = build_agent(config, fields, actions).to(device)
        self.optimiser = torch.optim.Adam(
            self.agent.parameters(), lr=config.learning_rate, fused=True
        )
        self.average = {k: v.detach().clone() for k, v in self.agent.named_parameters()}
        """Weighted average of the weights so far, by parameter."""
        empty = self.agent.initial_state(config.lanes)
        self.memory: State = tuple(tensor.clone() for tensor in empty)
        """The agent's memory, of every lane."""
        self.steps = 0
        """Optimiser steps behind these weights."""
        self.status: Literal["ok", "diverged"] = "ok"
        self.note = ""
        self.writes = True
        """Whether this process writes the run's files: one of those that train it does."""
        self.computing = ""
        """How the device computed where that is not plain float32, for the record."""
        self.data_seconds = 0.0
        """Time that the loop waited for data [s]."""
        self._spent, self._began = 0.0, time.monotonic()

    def outcome(self) -> Outcome:
        return Outcome(
            status=self.status,
            note=self.note,
            steps=self.steps,
            wall_seconds=self._wall_seconds(),
            data_seconds=self.data_seconds,
        )

    def _wall_seconds(self) -> float:
        running = self.status != "diverged"
        return self._spent + (time.monotonic() - self._began if running else 0.0)

    def diverge(self, loss: float) -> Outcome:
        """Stop for good at a loss that is not finite."""
        samples = self.steps * self.config.batch_size
        self._spent = self._wall_seconds()
        self.status, self.note = "diverged", f"the loss is {loss} after {samples:,} samples"
        self.keep()
        return self.outcome()

    def set_rate(self, rate: float) -> None:
        self.optimiser.param_groups[0]["lr"] = rate

    def update_average(self) -> None:
        """Take the weights after step `steps` into their average."""
        update_average(self.average, self.agent, self.steps, self.config.averaging)

    def keep(self, name: str = STATE) -> None:
        """Write the checkpoint. Raises `TrainError` on a full disk; an older one is intact."""
        about = asdict(self.outcome()) | {"config": self.config.to_json()}
        about["computing"] = self.computing
        if self.writes:
            checkpoint.save(self.folder / name, self._pack(), about, keep=checkpoint.KEPT)

    def load(self, name: str = STATE) -> bool:
        """Go on where the checkpoint stopped; False where there is none.

        Time that was spent is never forgotten, by going back to a trunk either.

        Raises:
            TrainError: it is damaged and so is the one before it, or it is of another run.
        """
        path = self.folder / name
        if not path.exists():
            return False
        tensors, about = checkpoint.load_newest(path, checkpoint.KEPT)
        _refuse_other_run(path, about, self.config)
        self._unpack(tensors)
        self.steps, self.status, self.note = about["steps"], about["status"], about["note"]
        if about["wall_seconds"] > self._wall_seconds() or self.status == "diverged":
            self._spent, self._began = about["wall_seconds"], time.monotonic()
        self.data_seconds = max(self.data_seconds, about.get("data_seconds", 0.0))
        return True

    def save_snapshot(self, budget: float) -> None:
        """Keep the agent that spent `budget`: averaged weights, or the cooled ones as they are."""
        samples = self.steps * self.config.batch_size
        outcome = self.outcome()
        about = {
            "config": self.config.to_json(),
            "budget": budget,
            "samples": samples,
            "flops": samples * self.config.flops_per_sample,
            "wall_seconds": outcome.wall_seconds,
            "data_seconds": outcome.data_seconds,
            "device": self.device,
            "computing": self.computing,
            "time_utc": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        weights = dict(self.agent.named_parameters()) if self.config.cooldown else self.average
        if self.writes:
            checkpoint.save(snapshot_path(self.folder, budget), weights, about)

    def forget(self, name: str) -> None:
        """Remove a checkpoint that nothing goes on from."""
        if self.writes:
            for age in range(checkpoint.KEPT):
                checkpoint.older_path(self.folder / name, age).unlink(missing_ok=True)

    def _pack(self) -> dict[str, Tensor]:
        names = _memory_names(len(self.memory))
        tensors = dict(zip(names, self.memory, strict=True))
        for name, parameter in self.agent.named_parameters():
            tensors[f"agent.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{key}.{name}"] = value
        return tensors

    def _unpack(self, tensors: dict[str, Tensor]) -> None:
        """Into the tensors that are there: they may be parts of larger ones."""
        with torch.no_grad():
            for name, parameter in self.agent.named_parameters():
                parameter.copy_(tensors[f"agent.{name}"])
                self.average[name].copy_(tensors[f"average.{name}"])
                slots = self.optimiser.state[parameter]
                for slot in ("step", "exp_avg", "exp_avg_sq"):
                    found = tensors.get(f"adam.{slot}.{name}")
                    if found is not None and slot in slots:
                        slots[slot].copy_(found)
                    elif found is not None:
                        slots[slot] = found.to(parameter.device)
            names = _memory_names(len(self.memory))
            for name, memory in zip(names, self.memory, strict=True):
                memory.copy_(tensors[name])


def _memory_names(count: int) -> list[str]:
    """Names of the memory's tensors in a checkpoint; two are an LSTM's, as ever."""
    return ["state.hidden", "state.cell"] if count == 2 else [f"state.{i}" for i in range(count)]


def build_agent(config: RunConfig, fields: Sequence[Field], actions: int) -> Agent:
    """The run's agent with its initial weights, which depend on `config.seed` alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _make_agent(config, fields, actions)


def _make_agent(config: RunConfig, fields: Sequence[Field], actions: int) -> Agent:
    agent = Agent(fields, actions, config.width, config.agent)
    if isinstance(agent.head, ReturnHead):
        agent.head.set_returns(config.return_edges, config.return_values, config.kappa)
    return agent


def cooldown_file(budget: float | None) -> str:
    """The checkpoint of a cooldown branch that is under way; `STATE` waits where it left."""
    return f"{budget:g}.cooldown.safetensors"


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
    agent = _make_agent(config, fields, actions)
    shapes = {name: tuple(v.shape) for name, v in agent.named_parameters()}
    if shapes != {name: tuple(v.shape) for name, v in tensors.items()}:
        raise TrainError(
            f"{path}: the agent was made for other observations or actions than the "
            f"{config.task} task has now; use the version of this code that trained it"
        )
    agent.load_state_dict(tensors)
    return agent, config, about


def average_weight(steps: int, width: float) -> float:
    """What the weights after step `steps` count in the average of all until then.

    A step counts as step^(1 / width - 2), so the average's mean age is width x steps: the window
    grows with the run, and one average serves every budget (the power-function average of Karras
    et al. 2024, arXiv:2312.02696, section 3.1). Width 0: the last weights alone.
    """
    return 1.0 if width == 0 else 1.0 - (1.0 - 1.0 / steps) ** (1.0 / width - 1.0)


def update_average(average: dict[str, Tensor], agent: Agent, steps: int, width: float) -> None:
    """Take an agent's weights after step `steps` into their average, by `average_weight`."""
    parameters = dict(agent.named_parameters())
    with torch.no_grad():
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            [average[name] for name in parameters],
            list(parameters.values()),
            average_weight(steps, width),
        )


def _refuse_other_run(path: Path, about: dict[str, Any], config: RunConfig) -> None:
    was = RunConfig.from_json(about["config"])
    if was != config:
        old, new = asdict(was), asdict(config)
        changed = [f"{k} was {old[k]!r}, now {new[k]!r}" for k in old if old[k] != new[k]]
        raise TrainError(
            f"{path.parent}: holds a run of other settings ({'; '.join(changed)}). Give the "
            "planned run another run_id, or delete the folder to train it again"
        )
