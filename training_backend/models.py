"""Agents: embeddings and an encoder, a core with or without memory, a head over actions.

Shapes: T steps of a chunk, B lanes (games side by side), A actions, P ids and M numbers of an
observation, E embedding dimensions, H hidden units of the encoder, W units of the core.
"""

from collections.abc import Mapping, Sequence
from itertools import accumulate

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training_backend.dimensions import count_inputs, dimensions, plain_fields
from training_backend.embedding import embed, pays_apart
from training_backend.encoders import ScreenEncoder, table_rows
from training_backend.families import find_family
from training_backend.heads import ReturnHead
from training_backend.lstm import LSTM
from training_backend.tasks.fields import Field
from training_backend.transformer import Transformer

State = tuple[Tensor, ...]
"""What the core remembers: arrays with the lanes first, as many as the core needs."""


def _layout(ids: Sequence[Field], numbers: Sequence[Field]) -> tuple[Tensor, Tensor]:
    """For every id of an observation the first row of its field in the joint table, (P,); for
    every number what it is divided by, (M,)."""
    first = [0, *accumulate(f.vocabulary or 0 for f in ids)]
    rows = [row for f, row in zip(ids, first, strict=False) for _ in range(f.size)]
    return torch.tensor(rows), torch.tensor([f.scale for f in numbers for _ in range(f.size)])


class FeedForward(nn.Sequential):
    """A core without memory, of as many parameters as an LSTM (up to biases)."""

    def __init__(self, inputs: int, units: int) -> None:
        super().__init__(
            nn.Linear(inputs, 4 * units), nn.ReLU(), nn.Linear(4 * units, units), nn.ReLU()
        )

    def initial_state(self, batch: int) -> State:
        del batch
        return ()

    def forward(  # type: ignore[override]
        self, x: Tensor, state: State, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Outputs (..., W) of x (..., H), each step by itself."""
        return super().forward(x), state

    step = forward


class Agent(nn.Module):
    """A policy over key presses, from one observation (and what it remembers) to action logits.

    Ids and numbers enter one normalised hidden layer, and in a family that sees the screen what
    `ScreenEncoder` makes of it. The head sees this layer beside the core: what can be read off the
    screen need not pass through the memory first (without skip and norm, training spends most of a
    small budget on a plateau at the actions' frequencies). All categorical fields share one
    embedding table, each with its own rows, so that a step makes one gather and one scatter however
    many fields there are. Cores that remember carry their state from chunk to chunk and forget it
    wherever `resets` says that another game begins.

    Parameters
    ----------
    fields
        The observation's fields.
    actions
        A.
    width
        Setting of the dial (`dimensions.py`).
    name
        The agent's family, one of `families.FAMILIES`.

    Example:
        >>> agent = Agent(fields, actions=121, width=8)  # doctest: +SKIP
        >>> logits, state = agent(chunk, agent.initial_state(64), resets)  # doctest: +SKIP
    """

    def __init__(
        self, fields: Sequence[Field], actions: int, width: float, name: str = "lstm"
    ) -> None:
        super().__init__()
        self.family = find_family(name)
        size = dimensions(fields, actions, width, name)
        rows, ids, numbers = count_inputs(fields, self.family)
        self.fields, self.actions, self.dimensions = tuple(fields), actions, size
        self._first: Tensor
        self._scales: Tensor
        plain = plain_fields(fields, self.family)
        self._ids = [f for f in plain if f.vocabulary is not None]
        self._numbers = [f for f in plain if f.vocabulary is None]
        first, scales = _layout(self._ids, self._numbers)
        self.register_buffer("_first", first, persistent=False)
        self.register_buffer("_scales", scales, persistent=False)
        self.embedding = nn.Parameter(0.1 * torch.randn(rows, size.embedding))
        self.screen: ScreenEncoder | None = None
        self._screen_rows = 0
        inputs = ids * size.embedding
        if self.family.observation == "screen":
            self.screen = ScreenEncoder(fields, size.embedding, size.channels, size.letters)
            inputs += self.screen.outputs
            self._screen_rows = table_rows(fields)
        self.from_ids = nn.Linear(inputs, size.hidden, bias=False)
        self.from_numbers = nn.Linear(numbers, size.hidden, bias=False)
        self.norm = nn.LayerNorm(size.hidden)
        self.core: LSTM | FeedForward | Transformer
        if self.family.core == "lstm":
            self.core = LSTM(size.hidden, size.core)
        elif self.family.core == "feedforward":
            self.core = FeedForward(size.hidden, size.core)
        else:
            self.core = Transformer(
                size.hidden, size.core, size.depth, size.heads, size.head, size.feedforward
            )
        self.head: nn.Linear | ReturnHead
        if self.family.objective == "returns":
            self.head = ReturnHead(size.hidden + size.core, actions)
        else:
            self.head = nn.Linear(size.hidden + size.core, actions)
        if isinstance(self.core, LSTM):
            self.core.open_memory()

    def initial_state(self, batch: int) -> State:
        """Empty memory for `batch` lanes: arrays (B, ...), none for a core without memory."""
        return self.core.initial_state(batch)

    def forward(
        self, fields: Mapping[str, Tensor], state: State, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (T, B, A) of a chunk and the state after it.

        Args:
            fields: an array (T, B) + field shape for each field.
            state: memory before the first step.
            resets: (T, B) bool, True where a lane's game begins at this step: its memory is
                cleared before the step. None: nowhere.
        """
        z, state = self.remember(fields, state, resets)
        return self.head(z), state

    def remember(
        self, fields: Mapping[str, Tensor], state: State, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """What the head reads, (T, B, H + W), and the state; arguments as `forward`."""
        steps, batch = fields[self.fields[0].name].shape[:2]
        x = self.encode(fields, steps * batch).view(steps, batch, -1)
        y, state = self.core(x, state, resets)
        return torch.cat([x, y], -1), state

    def resets_of(self, chunk: Mapping[str, Tensor]) -> Tensor:
        """A chunk's resets (T, B) where the core looks at them.

        The fused LSTM is cut at them by the host, which would wait for the device to hear of them
        (`loading.Loader` has them in its memory too).
        """
        host = chunk.get("reset_host")
        return host if host is not None and isinstance(self.core, LSTM) else chunk["reset"]

    def step(
        self, fields: Mapping[str, Tensor], state: State, resets: Tensor | None = None
    ) -> tuple[Tensor, State]:
        """Logits (B, A) of one step of a rollout; as `forward` with T = 1, but faster.

        The state given may be overwritten: go on with the one returned. An agent conditioned on
        returns asks for high ones here (`ReturnHead.play`), and not in `forward`.

        Args:
            fields: an array (B,) + field shape for each field.
            resets: (B,) bool, or None.
        """
        x = self.encode(fields, fields[self.fields[0].name].shape[0])
        y, state = self.core.step(x, state, resets)
        z = torch.cat([x, y], -1)
        return (self.head.play(z) if isinstance(self.head, ReturnHead) else self.head(z)), state

    def encode(self, fields: Mapping[str, Tensor], rows: int) -> Tensor:
        """Observations (rows, ...), or (T, B, ...) with T x B = rows, to (rows, H)."""
        count = self.embedding.shape[0] - self._screen_rows
        table = self.embedding if self.screen is None else self.embedding[:count]
        inputs = []
        if self._ids:
            parts = [fields[f.name].reshape(rows, f.size) for f in self._ids]
            if pays_apart(table):
                tables = table.split([f.vocabulary or 0 for f in self._ids])
                looked_up = map(embed, (part.long() for part in parts), tables)
                inputs += [vectors.flatten(1) for vectors in looked_up]
            else:
                ids = torch.cat(parts, 1).long().add_(self._first)
                inputs.append(embed(ids, table).view(rows, -1))
        if self.screen is not None:
            inputs.append(self.screen(fields, self.embedding[count:], rows))
        x = self.from_ids(torch.cat(inputs, 1) if len(inputs) > 1 else inputs[0])
        if self._numbers:
            parts = [fields[f.name].reshape(rows, f.size) for f in self._numbers]
            numbers = torch.cat(parts, 1).to(x.dtype).div_(self._scales)
            x = torch.addmm(x, numbers, self.from_numbers.weight.t())
        return F.relu(self.norm(x))
