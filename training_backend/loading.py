"""Chunks of demonstrations on the device that trains, there before they are asked for.

What a step reads follows from the stream and the step alone: neither the number of reading
processes nor the device changes a byte or the order.
"""

import weakref
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import Any, Final, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training_backend.ring import Readers, Ring, make_ring
from training_backend.shards import Shards
from training_backend.streams import ShardStream
from training_backend.tasks.fields import Stream

AHEAD: Final = 3
"""Chunks that processes read before they are asked for."""
AT_ONCE: Final = 32
BYTES_AT_ONCE: Final = 4 << 20
"""Chunks that are read together where training reads for itself, and their size, at most: most of
the cost of small chunks is by lane, and large ones had better stay in the cache."""
BLOCKS_AT_ONCE: Final = 2
BYTES_OF_BLOCKS: Final = 32 << 20
"""The same of frames that are decompressed in blocks: what is left of a block when a read ends has
gone from the cache by the next, so that a read had better take whole ones."""
RESIDENT_SHARE: Final = 0.25
"""Part of a device's free memory that demonstrations may take for good."""
READERS: Final = 4
"""Reading processes where the device is no CPU, unless another number is asked for."""


class _Source(Protocol):
    def __getitem__(self, step: int, /) -> dict[str, Tensor]: ...


class Loader:
    """A stream's chunks as tensors on a device, by step. Made by `open_loader`."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self.waited = 0.0
        """Time that the caller has stood in this loader so far [s]: what training waits for."""

    def __getitem__(self, step: int, /) -> dict[str, Tensor]:
        """The chunk of a step: fields, `action`, `reset` and perhaps `to_go`, each (T, B, ...).

        On a CUDA device `reset_host` is the resets in the host's memory. Steps are meant to be
        taken one after another; any other is read when it is asked for. The tensors are new ones.
        """
        began = perf_counter()
        try:
            return self._source[step]
        finally:
            self.waited += perf_counter() - began


@contextmanager
def open_loader(
    stream: Stream,
    *,
    device: str | torch.device = "cpu",
    workers: int | None = None,
    lanes: range | None = None,
    resident: bool | None = None,
) -> Iterator[Loader]:
    """A loader of a stream while the block lasts.

    Args:
        stream: what to read.
        device: where the chunks go.
        workers: reading processes; 0 reads in this one, in a thread. Default: 0 on a CPU, whose
            cores are training already, `READERS` elsewhere. A stream that is not of shards is
            always read here, when a chunk is asked for.
        lanes: only these of the stream's lanes, for one rank of several. Default: all.
        resident: whether to keep the demonstrations on the device and gather chunks there.
            Default: on CUDA, where they are features and fit into `RESIDENT_SHARE` of its memory.

    Yields:
        The loader. Its use may raise TrainError: a reading process ended, or a shard is damaged.

    Example:
        >>> with open_loader(shards.stream(64, 32, seed=0)) as load:  # doctest: +SKIP
        ...     chunk = load[0]
        ...     chunk["action"].shape
        torch.Size([32, 64])
    """
    place = torch.device(device)
    with ExitStack() as held:
        if not isinstance(stream, ShardStream):
            yield Loader(_Inline(stream if lanes is None else _Part(stream, lanes), place))
            return
        lanes = range(stream.batch) if lanes is None else lanes
        columns = None
        if resident or (resident is None and place.type == "cuda"):
            columns = resident_columns(stream.shards, place, stream.returns, force=bool(resident))
        if columns is not None:
            yield Loader(_Resident(stream, lanes, columns))
            return
        count = workers if workers is not None else 0 if place.type == "cpu" else READERS
        if count == 0:
            read = held.enter_context(_Lanes(stream, lanes))
            yield Loader(read if place.type == "cpu" else _Inline(read, place))
            return
        ring = held.enter_context(make_ring(stream.layout(len(lanes)), AHEAD + 1))
        yield Loader(held.enter_context(_Ahead(ring, stream, lanes, count, place)))


class _Part:
    """Some lanes of a stream that can only be read whole."""

    def __init__(self, stream: Stream, lanes: range) -> None:
        self._stream, self._lanes = stream, slice(lanes.start, lanes.stop)

    def __getitem__(self, step: int, /) -> dict[str, Any]:
        chunk = self._stream[step]
        return {name: np.ascontiguousarray(value[:, self._lanes]) for name, value in chunk.items()}


class _Lanes:
    """Some lanes of a stream of shards, which reads no others, and several steps at a time.

    A thread reads the steps that come next while those before are used: numpy and Arrow let go of
    the interpreter as they copy and decompress.
    """

    def __init__(self, stream: ShardStream, lanes: range) -> None:
        self._stream, self._lanes = stream, lanes
        self._count = steps_at_once(stream, len(lanes))
        self._steps = range(0)
        self._chunks: list[dict[str, Tensor]] = []
        self._spare: dict[str, list[NDArray[Any]]] = {name: [] for name in stream.layout()}
        """Arrays of steps read before of which nobody holds a tensor any more."""
        self._thread = ThreadPoolExecutor(1, "chunks")
        self._next: tuple[range, Future[list[dict[str, Tensor]]]] | None = None
        """Steps that the thread has been told to read."""

    def __enter__(self) -> "_Lanes":
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def __getitem__(self, step: int, /) -> dict[str, Tensor]:
        if step in self._steps:
            if self._next is None:  # not before: the caller may hold the last of the steps before
                self._read_from(self._steps.stop)
        else:
            self._chunks = []
            if self._next is not None and self._next[0].start != step:
                wait([self._next[1]])
                self._next = None
            steps, read = self._next or self._read_from(step)
            self._next, self._steps, self._chunks = None, steps, read.result()
            if len(steps) == 1:
                self._read_from(steps.stop)
        return dict(self._chunks[step - self._steps.start])

    def _read_from(self, step: int) -> tuple[range, "Future[list[dict[str, Tensor]]]"]:
        left = self._stream.steps_an_epoch - step % self._stream.steps_an_epoch
        steps = range(step, step + min(self._count, left))
        self._next = steps, self._thread.submit(self._read, steps)
        return self._next

    def _read(self, steps: range) -> list[dict[str, Tensor]]:
        arrays = self._take_arrays(len(steps))
        self._stream.fill(steps.start, arrays, self._lanes)
        parts = [torch.from_numpy(array).split(self._stream.chunk) for array in arrays.values()]
        return [dict(zip(arrays, part, strict=True)) for part in zip(*parts, strict=True)]

    def _take_arrays(self, steps: int) -> dict[str, NDArray[Any]]:
        """Arrays for so many steps: used ones where there are, since the system's pages of new ones
        cost as much as what is read into them."""
        arrays = {}
        for name, (shape, dtype) in self._stream.layout(len(self._lanes), self._count).items():
            spare = self._spare[name]
            whole = spare.pop() if spare else np.empty(shape, dtype)
            part = whole[: steps * self._stream.chunk]
            weakref.finalize(part, spare.append, whole).atexit = False
            arrays[name] = part
        return arrays


def steps_at_once(stream: ShardStream, lanes: int) -> int:
    """Steps of so many lanes that are read together."""
    chunk = sum(prod(shape) * dtype.itemsize for shape, dtype in stream.layout(lanes).values())
    block = stream.shards.block
    whole = BLOCKS_AT_ONCE * block // stream.chunk if block > 1 else 1
    return min(max(BYTES_AT_ONCE // chunk, min(whole, BYTES_OF_BLOCKS // chunk), 1), AT_ONCE)


class _Inline:
    """Reads when a chunk is asked for."""

    def __init__(self, stream: "Stream | _Lanes", device: torch.device) -> None:
        self._stream, self._device = stream, device

    def __getitem__(self, step: int, /) -> dict[str, Tensor]:
        chunk = {name: torch.as_tensor(value) for name, value in self._stream[step].items()}
        if self._device.type == "cpu":
            return chunk
        there = {name: value.to(self._device) for name, value in chunk.items()}
        return _with_resets(there, chunk["reset"])


class _Ahead:
    """Processes read the steps to come; on CUDA the next chunk travels while this one is used."""

    def __init__(
        self, ring: Ring, stream: ShardStream, lanes: range, count: int, device: torch.device
    ) -> None:
        self._device = device
        self._memory, arrays = ring.map()
        self._slots = [
            {name: torch.from_numpy(array) for name, array in slot.items()} for slot in arrays
        ]
        self._pinned = device.type == "cuda" and _pin(self._slots[0], ring.nbytes, device)
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._free = list(range(ring.slots))
        self._asked: list[tuple[int, int]] = []
        """(step, slot) that readers were told and that have not been taken."""
        self._sent: tuple[int, int, dict[str, Tensor], Any] | None = None
        """Step, slot, tensors and event of a chunk that is on its way to the device."""
        self._readers = Readers(ring, stream, lanes, min(count, len(lanes)))

    def __enter__(self) -> "_Ahead":
        return self

    def __exit__(self, *_: object) -> None:
        self._readers.close()
        if self._copies is not None:
            self._copies.synchronize()
        if self._pinned:
            first = next(iter(self._slots[0].values()))
            runtime: Any = torch.cuda.cudart()
            runtime.cudaHostUnregister(first.data_ptr())
        self._slots.clear()

    def __getitem__(self, step: int, /) -> dict[str, Tensor]:
        if self._sent is not None and self._sent[0] == step:
            _, slot, chunk, event = self._sent
            self._sent = None
        else:
            self._go_to(step)
            slot, chunk, event = self._take(step)
        if event is not None:
            torch.cuda.current_stream(self._device).wait_event(event)
            for value in chunk.values():
                if value.is_cuda:
                    value.record_stream(torch.cuda.current_stream(self._device))
            event.synchronize()  # of the copies alone: the slot may be written again
        self._free.append(slot)
        self._ask_from(step + 1)
        if self._copies is not None and self._readers.is_ready():
            self._sent = (step + 1, *self._take(step + 1))
        return chunk

    def _go_to(self, step: int) -> None:
        """Have the readers work at this step: whatever else they were told is thrown away."""
        if self._sent is not None:
            self._sent[3].synchronize()
            self._free.append(self._sent[1])
            self._sent = None
        if self._asked and self._asked[0][0] == step:
            return
        while self._asked:
            self._readers.wait()
            self._free.append(self._asked.pop(0)[1])
        self._ask_from(step)

    def _ask_from(self, step: int) -> None:
        following = self._asked[-1][0] + 1 if self._asked else step + (self._sent is not None)
        while self._free:
            slot = self._free.pop()
            self._readers.ask(slot, following)
            self._asked.append((following, slot))
            following += 1

    def _take(self, step: int) -> tuple[int, dict[str, Tensor], Any]:
        """The next chunk that was asked for, copied to the device, and when that will be done."""
        self._readers.wait()
        found, slot = self._asked.pop(0)
        if found != step:
            raise AssertionError(f"step {found} was read where {step} was asked for")
        arrays = self._slots[slot]
        if self._copies is None:
            chunk = {name: value.clone() for name, value in arrays.items()}
            return slot, {name: v.to(self._device) for name, v in chunk.items()}, None
        with torch.cuda.stream(self._copies):
            chunk = {
                name: value.to(self._device, non_blocking=True) for name, value in arrays.items()
            }
        return slot, _with_resets(chunk, arrays["reset"].clone()), self._copies.record_event()


def _with_resets(chunk: dict[str, Tensor], resets: Tensor) -> dict[str, Tensor]:
    """On CUDA the resets stay in the host's memory as well: who needs them there need not wait."""
    return chunk | {"reset_host": resets} if chunk["reset"].is_cuda else chunk


def _pin(slot: dict[str, Tensor], nbytes: int, device: torch.device) -> bool:
    """Let the device read the ring's memory by itself; where it may not, copies take longer."""
    first = next(iter(slot.values()))
    runtime: Any = torch.cuda.cudart()
    if int(runtime.cudaHostRegister(first.data_ptr(), nbytes, 0)) == 0:
        return True
    with suppress(RuntimeError):  # CUDA tells the refusal to whoever launches a kernel next
        torch.zeros(1, device=device)
    return False


class _Resident:
    """Demonstrations that are on the device already: only row numbers travel."""

    def __init__(self, stream: ShardStream, lanes: range, columns: "Columns") -> None:
        self._stream, self._lanes, self._columns = stream, lanes, columns

    def __getitem__(self, step: int, /) -> dict[str, Tensor]:
        rows, resets = self._stream.rows(step)
        part = slice(self._lanes.start, self._lanes.stop)
        return gather(self._columns, rows[:, part], resets[:, part])


@dataclass(frozen=True, slots=True)
class Columns:
    """Whole columns of feature shards on a device."""

    packed: Tensor
    """Those of one byte a number, side by side, (rows, bytes): one look-up brings a row of all."""
    places: Mapping[str, tuple[slice, tuple[int, ...]]]
    """Which bytes of it a column is, and the shape of one of its rows."""
    others: Mapping[str, Tensor]
    """The other columns."""

    def __getitem__(self, index: Tensor) -> dict[str, Tensor]:
        """Rows of all columns by name, for an index of any shape on the device."""
        at = index.flatten()
        packed = self.packed.index_select(0, at).unflatten(0, index.shape)
        found = {
            name: packed[..., part].unflatten(-1, shape) if shape else packed[..., part.start]
            for name, (part, shape) in self.places.items()
        }
        return found | {
            name: column.index_select(0, at).unflatten(0, index.shape)
            for name, column in self.others.items()
        }


def _send(columns: dict[str, NDArray[Any]], device: torch.device) -> Columns:
    """Columns, which are let go of one by one, as `Columns` on a device."""
    bytewise = [name for name, column in columns.items() if column.dtype == np.uint8]
    ends = np.cumsum([0, *(prod(columns[name].shape[1:]) for name in bytewise)]).tolist()
    rows = len(columns[bytewise[0]])
    packed = torch.empty(rows, ends[-1], dtype=torch.uint8, device=device)
    places = {}
    for name, begin, end in zip(bytewise, ends, ends[1:], strict=False):
        column = columns.pop(name)
        places[name] = slice(begin, end), column.shape[1:]
        packed[:, begin:end] = torch.from_numpy(column.reshape(rows, -1)).to(device)
    others = {name: torch.from_numpy(column).to(device) for name, column in columns.items()}
    return Columns(packed, places, others)


def gather(
    columns: Columns, rows: NDArray[np.int64], resets: NDArray[np.bool_]
) -> dict[str, Tensor]:
    """Chunks out of `resident_columns`: the rows and resets, of any one shape, alone travel."""
    on_host = torch.from_numpy(np.ascontiguousarray(resets))
    index = torch.from_numpy(np.ascontiguousarray(rows))
    device = columns.packed.device
    if device.type == "cuda":
        index, on_host = index.pin_memory(), on_host.pin_memory()
    chunk = columns[index.to(device, non_blocking=True)]
    chunk["reset"] = on_host.to(device, non_blocking=True)
    return _with_resets(chunk, on_host)


_RESIDENT: "weakref.WeakKeyDictionary[Any, dict[Any, Columns]]"
_RESIDENT = weakref.WeakKeyDictionary()


def resident_columns(
    demonstrations: Any,
    device: str | torch.device,
    returns: bool = False,
    *,
    force: bool = False,
) -> Columns | None:
    """Whole columns of feature shards on a device, once for all loaders of this process.

    Args:
        demonstrations: the split; others than `Shards` stay where they are.
        device: where they go.
        returns: whether `to_go` is wanted too.
        force: also on a CPU, and whatever part of its memory they take.

    Returns:
        The columns of `Shards.layout`, their rows those of `ShardStream.rows`. None where
        they are no features, the device is no CUDA device, or they do not fit into
        `RESIDENT_SHARE` of its free memory.
    """
    place = torch.device(device)
    if not isinstance(demonstrations, Shards):
        return None
    kept = _RESIDENT.setdefault(demonstrations, {})
    if (place, returns) not in kept:
        if not force:
            if place.type != "cuda":
                return None
            free, _ = torch.cuda.mem_get_info(place)
            if demonstrations.nbytes > RESIDENT_SHARE * free:
                return None
        kept[place, returns] = _send(demonstrations.columns(returns), place)
    return kept[place, returns]
