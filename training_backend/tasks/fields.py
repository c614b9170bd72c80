"""The fields of an observation: what a task's encoder yields and a model is built from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One array of every observation: categorical ids where `vocabulary` is set, else numbers."""

    name: str
    """Key in the encoder's dictionary and column of the shards."""
    shape: tuple[int, ...]
    """Shape of one observation's array; () for a scalar."""
    dtype: str
    """NumPy dtype in which it is stored, such as "uint8" or "int16"."""
    vocabulary: int | None = None
    """Number of ids, which run from 0; None for numbers."""
    scale: float = 1.0
    """Numbers enter the model as value / scale; unused for ids."""

    @property
    def size(self) -> int:
        """Numbers (or ids) in one observation."""
        return prod(self.shape)


class Stream(Protocol):
    """Demonstrations as chunks for truncated backpropagation, addressed by step.

    `batch` lanes run side by side through the games; lane b of step k + 1 goes on where lane b of
    step k ended, so that a recurrent state can be carried over.
    """

    def __getitem__(self, step: int, /) -> Mapping[str, Any]:
        """Step `step` >= 0, endless over epochs: arrays (chunk, batch, ...) by the fields' names,
        `action` (chunk, batch), `reset` (chunk, batch) bool: True on a game's first frame and
        wherever a lane jumps to another place."""
        ...


class Demonstrations(Protocol):
    """What training needs of a data set, real (`shards.Shards`) or synthetic."""

    fields: Sequence[Field]
    actions: int
    fingerprint: str
    """Hash of the content: a run goes on only with the data that it started with."""

    def __len__(self) -> int:
        """Number of distinct (observation, action) pairs."""
        ...

    def stream(self, batch: int, chunk: int, seed: int) -> Stream: ...
