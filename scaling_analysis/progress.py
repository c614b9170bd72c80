"""Progress of long work on the terminal: one display, however deep the work is nested."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress

_display: "Progress | None" = None


@contextmanager
def progress_bar(label: str, total: float) -> Iterator[Callable[[float], None]]:
    """A bar with the remaining time, for as long as the block runs; give it what was done.

    Silent unless stderr is a terminal. A bar inside another one is shown below it.

    Examples
    --------
    >>> with progress_bar("fits", 3) as advance:
    ...     for _ in range(3):
    ...         advance(1)
    """
    global _display
    if not sys.stderr.isatty():
        yield _silent
        return
    outermost = _display is None
    if _display is None:
        _display = _new_display()
        _display.start()
    display = _display
    task = display.add_task(label, total=total)
    try:
        yield lambda done: display.advance(task, done)
    finally:
        display.remove_task(task)
        if outermost:
            display.stop()
            _display = None


def _silent(done: float) -> None:
    """What a bar that nobody sees does."""


def _new_display() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn
    from rich.progress import TimeRemainingColumn as Remaining

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        Remaining(),
        console=Console(stderr=True),
        transient=True,
    )
