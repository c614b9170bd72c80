"""K runs of one size as one model: an optimiser step for all of them.

Shapes: K runs, P parameters of a run, T steps of a chunk, B lanes.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._pytree import tree_map

from training_backend.models import Agent, State
from training_backend.objectives.behaviour_cloning import measure_loss
from training_backend.objectives.training_state import TrainingState, average_weight, build_agent
from training_backend.precision import PLAIN, Precision
from training_backend.recurrence import ScanLSTM, fused

BETAS = (0.9, 0.999)
"""How much of its first and second moment Adam keeps, as `torch.optim.Adam` does."""
WARM_UP = 3
"""Steps before one is recorded: kernels are chosen and memory is laid out in them."""


class Stack:
    """K runs as one model, and one optimiser step for all of them.

    The parameters of all runs are one array (K, P), and so are moments and averages: clipping, Adam
    and averaging are a few operations on these, whatever the number of layers. The runs' own
    tensors become views into them, so that a run's checkpoints are written and read as if it were
    alone.

    Parameters
    ----------
    runs
        Runs of one kind, each with its agent and its memory.
    precision
        Number format of the products. A single run is computed as it would be alone, its encoder
        compiled if that is asked for; of several, which are batched by `torch.vmap`, nothing is.
    graph
        Capture the step in a CUDA graph: one launch instead of hundreds.
    """

    def __init__(
        self,
        runs: Sequence[TrainingState],
        *,
        precision: Precision = PLAIN,
        graph: bool = False,
    ) -> None:
        first = runs[0]
        self.runs = tuple(runs)
        self.precision = precision if len(runs) == 1 else replace(precision, compiled=False)
        """How the products are really computed."""
        self._loss = _Loss(build_agent(first.config, first.agent.fields, first.agent.actions))
        self._loss.to(first.device)
        self.precision.prepare(self._loss.agent)
        shapes = {name: p.shape for name, p in first.agent.named_parameters()}
        zeros = first.agent.embedding.new_zeros
        size = sum(shape.numel() for shape in shapes.values())
        self._weights, self._first, self._second, self._average = (
            zeros(len(runs), size) for _ in range(4)
        )
        self._views = {
            key: _split(flat, shapes)
            for key, flat in (
                ("agent", self._weights),
                ("average", self._average),
                ("exp_avg", self._first),
                ("exp_avg_sq", self._second),
            )
        }
        self._parameters = {
            f"agent.{name}": view.detach().requires_grad_()
            for name, view in self._views["agent"].items()
        }
        self._memory = tuple(torch.stack(m) for m in zip(*(r.memory for r in runs), strict=True))
        self._chunk: dict[str, Tensor] = {}
        # of each run: learning rate, weight in the average, and whether it takes this step
        self._settings = zeros(3, len(runs), dtype=torch.float64)
        self._steps = zeros(len(runs), dtype=torch.float64)
        self._clip = zeros(len(runs)) + first.config.clip
        self.losses = zeros(len(runs))
        """Mean loss of each run at its last step, (K,) [nats/action]."""
        self._alive = zeros(len(runs), dtype=torch.bool)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._wants_graph = graph
        for run in runs:
            self.adopt(run)

    def adopt(self, run: TrainingState) -> None:
        """Take over what a run has built or loaded; its tensors become views of the stack's."""
        k = self.runs.index(run)
        with torch.no_grad():
            for name, parameter in run.agent.named_parameters():
                moments = run.optimiser.state[parameter]
                views = {key: view[name][k] for key, view in self._views.items()}
                views["agent"].copy_(parameter)
                views["average"].copy_(run.average[name])
                for key in ("exp_avg", "exp_avg_sq"):
                    views[key].copy_(moments[key]) if key in moments else views[key].zero_()
                parameter.data, run.average[name] = views["agent"], views["average"]
                run.optimiser.state[parameter] = {
                    "step": torch.tensor(float(run.steps)),
                    "exp_avg": views["exp_avg"],
                    "exp_avg_sq": views["exp_avg_sq"],
                }
            for ours, theirs in zip(self._memory, run.memory, strict=True):
                ours[k].copy_(theirs)
            run.memory = tuple(ours[k] for ours in self._memory)
            self._steps[k] = run.steps
            self._alive[k] = run.status == "ok"

    def step(
        self, chunk: Mapping[str, Tensor], going: Sequence[bool], rates: Sequence[float]
    ) -> None:
        """One optimiser step of the runs that go; the others stay as they are.

        So does a run whose loss is not finite; `lost` tells which.

        Args:
            chunk: the fields, `action` and `reset` (and `to_go`), each (K, T, B, ...).
            going: of each run, whether it takes the step.
            rates: of each run, its learning rate.
        """
        mixing = [average_weight(run.steps + 1, run.config.averaging) for run in self.runs]
        settings = torch.tensor([rates, mixing, going], dtype=torch.float64)
        self._settings.copy_(settings, non_blocking=True)
        if self._wants_graph:
            with torch.cuda.device(self.losses.device):
                self._replay(chunk)
        else:
            self._compute(chunk)
        for run, goes in zip(self.runs, going, strict=True):
            run.steps += goes

    def lost(self) -> dict[int, float]:
        """Runs whose loss was not finite, by number, with that loss; each is named once.

        Their `steps` are set back to those that they really took. On a GPU this waits for it.
        """
        found = {}
        for k, alive in enumerate(self._alive.tolist()):
            run = self.runs[k]
            if not alive and run.status == "ok":
                found[k] = float(self.losses[k])
                run.steps = int(self._steps[k])
        return found

    def settle(self, run: TrainingState) -> None:
        """Bring what a run's optimiser counts up to date, before its checkpoint."""
        for state in run.optimiser.state.values():
            state["step"].fill_(run.steps)

    def _compute(self, chunk: Mapping[str, Tensor]) -> None:
        """Forward and backward pass, clipping, Adam and average, for all runs at once."""
        with self.precision.computing(self.losses.device):
            losses, memory = self._measure(chunk)
        gradients = torch.autograd.grad(losses.sum(), list(self._parameters.values()))
        with torch.no_grad():
            rates, mixing, going = self._settings
            started = (going > 0) & self._alive
            go = started & losses.isfinite()
            self.losses.copy_(torch.where(started, losses, self.losses))
            self._alive.logical_and_(go | ~started)
            self._steps.add_(go)
            for ours, new in zip(self._memory, memory, strict=True):
                ours.copy_(torch.where(go.view(-1, *[1] * (new.dim() - 1)), new, ours))
            steps = self._steps.clamp(min=1.0)
            size = rates * go / (1 - BETAS[0] ** steps)
            root = (1 - BETAS[1] ** steps).sqrt()
            gradient = torch.cat([g.flatten(1) for g in gradients], 1)
            norm = torch.linalg.vector_norm(gradient, dim=1)
            shrink = (self._clip / (norm + 1e-6)).clamp(max=1.0)
            decays = ((1 - beta) * go for beta in BETAS)
            columns = torch.stack([go, shrink, size, root, mixing * go, *decays], 1).float()
            arrays = (self._weights, self._first, self._second, self._average)
            fused(_update, gradient)(*arrays, gradient, columns)

    def _measure(self, chunk: Mapping[str, Tensor]) -> tuple[Tensor, State]:
        """Losses (K,) and memory (K, B, ...) of all runs after a chunk."""
        inputs = self._parameters, dict(chunk), self._memory
        if len(self.runs) > 1:
            # the fused kernels of attention cannot all be batched over runs, its definition can
            with sdpa_kernel(SDPBackend.MATH):
                return vmap(self._measure_one)(*inputs)
        # autocast does not reach all that vmap takes apart, and a compiler nothing
        parameters, fields, memory = tree_map(lambda tensor: tensor.squeeze(0), inputs)
        loss, memory = self._measure_one(parameters, fields, memory)
        return loss.unsqueeze(0), tuple(tensor.unsqueeze(0) for tensor in memory)

    def _measure_one(
        self, parameters: dict[str, Tensor], chunk: dict[str, Tensor], memory: State
    ) -> tuple[Tensor, State]:
        return functional_call(self._loss, parameters, (chunk, memory))

    def _replay(self, chunk: Mapping[str, Tensor]) -> None:
        """The step as one launch; it reads its chunk where the first one was put."""
        graph = self._graph
        if graph is None:
            self._chunk = {name: tensor.clone() for name, tensor in chunk.items()}
            graph = self._graph = self._capture()
        for name, tensor in self._chunk.items():
            tensor.copy_(chunk[name], non_blocking=True)
        graph.replay()

    def _capture(self) -> torch.cuda.CUDAGraph:
        """Record a step. In the rounds before it no run goes, so they leave all as it is."""
        going = self._settings[2].clone()
        self._settings[2].zero_()
        graph = record(lambda: self._compute(self._chunk))
        self._settings[2].copy_(going)
        return graph


def record(step: Callable[[], object]) -> torch.cuda.CUDAGraph:
    """A step as a CUDA graph. It is taken a few times first, and must bear that."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(WARM_UP):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


class _Loss(nn.Module):
    """An agent's loss as a module's call, so that its parameters can be swapped for many."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = agent
        if isinstance(agent.core, nn.LSTM):
            agent.register_module("core", ScanLSTM(agent.core))

    def forward(self, chunk: Mapping[str, Tensor], memory: State) -> tuple[Tensor, State]:
        return measure_loss(self.agent, chunk, memory)


def _update(
    weights: Tensor,
    first: Tensor,
    second: Tensor,
    average: Tensor,
    gradient: Tensor,
    columns: Tensor,
) -> None:
    """Clip each run's gradient, let the runs that go take Adam's step, and average the weights.

    Arrays (K, P), of which the first four are changed, and columns (K, 7): whether the run goes,
    what clipping leaves of its gradient, learning rate over the first moment's bias, root of the
    second's bias, and what the new ones weigh in the average and in both moments (0 where the run
    does not go).

    The norm is not taken here: compiled for a small agent first, all of this would be one reduction
    with one block of threads a run, for the large agents that come after it too. Nor is a number of
    the module named: a compiler takes it for an input, to be read from the host at every step.
    """
    go, shrink, size, root, mixing, into_first, into_second = columns.split(1, 1)
    gradient = torch.where(go > 0, gradient * shrink, 0.0)
    first.lerp_(gradient, into_first)
    second.lerp_(gradient * gradient, into_second)
    weights.addcdiv_(-size * first, (second.sqrt() / root).add_(1e-8))
    average.lerp_(weights, mixing)


def _split(flat: Tensor, shapes: Mapping[str, torch.Size]) -> dict[str, Tensor]:
    """Views of an array (K, P), one (K, ...) for each shape."""
    parts = flat.split([shape.numel() for shape in shapes.values()], dim=1)
    return {
        name: part.unflatten(1, shape) if shape else part.squeeze(1)
        for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
