"""Rates of a device, and ratios of rates over several rounds."""

import gc
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch

from training_backend.memory import is_out_of_memory


class Clock:
    """Seconds that a device has worked: of this process's CPU, or until a GPU is done."""

    def __init__(self, device: str) -> None:
        self.on_cuda = torch.device(device).type == "cuda"

    def now(self) -> float:
        if not self.on_cuda:
            return time.process_time()
        torch.cuda.synchronize()
        return time.perf_counter()

    def rate(self, step: Callable[[], object], seconds: float) -> float:
        """Steps a second, after a few to warm up (a compiler does its work in them)."""
        for _ in range(2):
            step()
        began, first = self.now(), time.perf_counter()
        step()
        each = max(self.now() - began, 1e-5)
        # looking at the clock makes a GPU wait, so the number of steps is settled before
        count = max(1, round(seconds / max(each, time.perf_counter() - first)))
        began = self.now()
        for _ in range(count):
            step()
        return count / (self.now() - began)


def matrix_product(device: str, side: int) -> Callable[[], object]:
    """A product of two random matrices in the device's own number format."""
    dtype = torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    return lambda: torch.mm(a, b)


def ratio(values: Sequence[float]) -> str:
    return f"{np.median(values):6.3f} [{min(values):.3f}, {max(values):.3f}]"


FAILED: list[str] = []
"""Lines that could not be measured."""


@contextmanager
def freeing(line: str) -> Iterator[None]:
    """Say where a line could not be measured, go on, and give back what it took."""
    try:
        yield
    except Exception as error:
        memory = is_out_of_memory(error)
        print(f"{line} {'out of memory' if memory else f'failed: {type(error).__name__}'}")
        if not memory:
            traceback.print_exc()
        FAILED.append(line)
    finally:
        gc.collect()
        if torch.cuda.is_available():
            torch.compiler.reset()  # a process may compile few agents, and keeps them all
            torch.cuda.empty_cache()


def device_name(device: str) -> str:
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, one thread"
