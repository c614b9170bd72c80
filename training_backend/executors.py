"""Executors: what runs a sweep's jobs side by side, and brings back what they have to say.

A job is a function that runs in another process. It writes into the folder of its runs and tells an
`Outbox` what it did: the work done so far, rows of the run log, files where its folder is not the
sweep's own. The sweep alone writes the run log, so jobs may run where it cannot be reached. Here
are jobs in processes of this machine; `cluster.py` runs the same jobs on a Ray cluster.
"""

import math
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Literal, Protocol, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from scaling_analysis import ScalingError
from training_backend.files import write_file
from training_backend.memory import MemoryLimitError
from training_backend.orphans import end_with_parent

Send = Callable[[str, Any], object]
"""Takes a message of a job: its kind ("work", "row", "file" or "failed") and its content."""
TakeRow = Callable[[dict[str, Any]], object]
"""Takes a finished row of the run log."""
PROGRESS_SECONDS = 0.5
"""Work done is reported no more often."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A piece of a sweep: a run or a stack of runs to train, or the games of one agent."""

    runs: tuple[str, ...]
    """Names of the runs that it is about."""
    work: float
    """Size of the job, in the unit of its pass."""
    target: Callable[..., None]
    """Called with the arguments, the folder of the runs' folders, and an `Outbox`."""
    arguments: tuple[Any, ...]
    memory: float = 0.0
    """Memory of the device that it takes [bytes]; infinite: it wants the device to itself."""
    inputs: tuple[Path, ...] = ()
    """Files it reads, as paths in the folder of the runs' folders; those that exist are moved to
    where it runs if need be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A job that ended with an error."""

    job: Job
    reason: str
    kind: Literal["error", "memory", "lost"] = "error"
    """"memory" where less of it, or fewer jobs beside it, may help; "lost" where it vanished."""


@dataclass(slots=True)
class Outbox:
    """What a job tells its sweep."""

    send: Send
    moved: bool = False
    """Whether the job's folder is not the sweep's own, so that files must travel."""
    folder: Path = Path()
    """Folder of the runs' folders where the job runs."""
    _told: float = field(default=-math.inf, init=False)

    def work(self, done: float) -> None:
        """Tell how much work is done so far; may be called as often as one likes."""
        if (now := time.monotonic()) - self._told > PROGRESS_SECONDS:
            self._told = now
            self.send("work", done)

    def row(self, row: dict[str, Any]) -> None:
        """Hand over a finished row of the run log."""
        self.send("row", row)

    def file(self, path: Path) -> None:
        """Hand over a file that the job has left in its folder."""
        if self.moved:
            self.send("file", (str(path.relative_to(self.folder)), path.read_bytes()))


class Executor(Protocol):
    """Runs jobs; a context, so that nothing it started outlives it."""

    memory: float
    """What jobs side by side may take of a device together [bytes]."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def run(self, jobs: Sequence[Job], runs: Path, title: str, take_row: TakeRow) -> list[Failure]:
        """Run the jobs, the first ones first, and hand each row over as it comes.

        Args:
            jobs: in the order in which they should begin.
            runs: the sweep's folder of the runs' folders.
            title: what they do, for the progress bar.
            take_row: called in this process; what it raises fails the job, not the others.

        Returns:
            The jobs that failed.
        """
        ...


def perform(job: Job, runs: Path, send: Send, *, moved: bool = False) -> bool:
    """Do a job in this thread and send what it says; whether it ended well."""
    torch.set_num_threads(1)
    try:
        job.target(*job.arguments, runs, Outbox(send=send, moved=moved, folder=runs))
    except ScalingError as error:
        kind = "memory" if isinstance(error, MemoryLimitError) else "error"
        send("failed", (str(error), "", kind))
    except Exception as error:
        send("failed", (f"{type(error).__name__}: {error}", traceback.format_exc(), "error"))
    else:
        return True
    return False


class Desk:
    """Where the messages of running jobs arrive: rows, progress and failures of one pass."""

    def __init__(self, jobs: Sequence[Job], runs: Path, title: str, take_row: TakeRow) -> None:
        self.failures: list[Failure] = []
        self._runs, self._take_row = runs, take_row
        self._work: dict[int, float] = {}
        self._finished = 0
        self._done, self._total = 0.0, sum(job.work for job in jobs)
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
        counter = TextColumn("{task.fields[finished]}/{task.fields[jobs]}")
        self._bar = Progress(*columns, counter, console=console, disable=not console.is_terminal)
        self._task = self._bar.add_task(title, total=self._total, finished=0, jobs=len(jobs))

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def take(self, job: Job, kind: str, content: Any) -> None:
        """Take a message of a job."""
        try:
            if kind == "work":
                self._work[id(job)] = content
                self._show()
            elif kind == "row":
                self._take_row(content)
            elif kind == "file":
                name, data = content
                write_file(self._runs / name, lambda beside: beside.write_bytes(data))
            else:
                reason, trace, why = content
                sys.stderr.write(trace)
                self.fail(job, reason, why)
        except ScalingError as error:
            self.fail(job, str(error))

    def fail(
        self, job: Job, reason: str, kind: Literal["error", "memory", "lost"] = "error"
    ) -> None:
        """Note a failure; the first one of a job counts."""
        if not any(failure.job is job for failure in self.failures):
            self.failures.append(Failure(job=job, reason=reason, kind=kind))

    def close(self, job: Job) -> None:
        """A job has ended, well or not."""
        self._work.pop(id(job), None)
        self._done += job.work
        self._finished += 1
        self._show()

    def restart(self, job: Job, why: str) -> None:
        """A job begins anew."""
        self._work.pop(id(job), None)
        told = f"{', '.join(job.runs)}: lost ({why}), started again"
        self._bar.console.print(told, markup=False, highlight=False, soft_wrap=True)
        self._show()

    def _show(self) -> None:
        done = self._done + sum(self._work.values())
        self._bar.update(self._task, completed=done, finished=self._finished)


@dataclass(slots=True)
class _Worker:
    job: Job
    process: ForkServerProcess
    pipe: Connection
    open: bool = True


class Processes:
    """Jobs in processes of this machine, each with one torch thread.

    They are forked from a server that has imported torch, so that starting one is cheap and a crash
    in one touches no other. Jobs that share a device start while their memory fits it.

    Args:
        workers: processes at a time.
        memory: what the jobs may take of the device together [bytes].
    """

    def __init__(self, workers: int = 1, memory: float = math.inf) -> None:
        self.workers, self.memory = workers, memory

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left running after `run`."""

    def run(self, jobs: Sequence[Job], runs: Path, title: str, take_row: TakeRow) -> list[Failure]:
        """As `Executor.run`; a job whose process is killed has failed.

        Raises:
            KeyboardInterrupt: all workers have been ended.
        """
        if not jobs:
            return []
        context = multiprocessing.get_context("forkserver")
        # an optimiser's first use imports torch._dynamo, which would cost every process a second
        context.set_forkserver_preload(["__main__", "training_backend.jobs", "torch._dynamo"])
        waiting, running = list(jobs), list[_Worker]()
        with Desk(jobs, runs, title, take_row) as desk:
            try:
                while waiting or running:
                    while (job := self._next(waiting, running)) is not None:
                        waiting.remove(job)
                        pipe, to_parent = context.Pipe(duplex=False)
                        process = context.Process(target=_work, args=(job, runs, to_parent))
                        process.start()
                        to_parent.close()
                        running.append(_Worker(job=job, process=process, pipe=pipe))
                    pipes = [worker.pipe for worker in running if worker.open]
                    ready = wait([*(w.process.sentinel for w in running), *pipes], timeout=0.5)
                    for worker in list(running):
                        ended = worker.process.sentinel in ready
                        _read(worker, desk)
                        if ended:
                            _end(worker, desk)
                            running.remove(worker)
            finally:
                for worker in running:
                    worker.process.terminate()
                    worker.process.join()
        return desk.failures

    def _next(self, waiting: Sequence[Job], running: Sequence[_Worker]) -> Job | None:
        """The first waiting job that there is room for; any, where none is running."""
        if len(running) >= self.workers:
            return None
        free = self.memory - sum(worker.job.memory for worker in running)
        for job in waiting:
            if not running or job.memory <= free or job.memory == 0:
                return job
        return None


def _read(worker: _Worker, desk: Desk) -> None:
    """Take the messages that have arrived."""
    try:
        while worker.open and worker.pipe.poll():
            desk.take(worker.job, *worker.pipe.recv())
    except (EOFError, OSError):
        worker.open = False


def _end(worker: _Worker, desk: Desk) -> None:
    worker.process.join()
    worker.pipe.close()
    code = worker.process.exitcode
    if code != 0:
        # not said where the job has said why
        reason = f"its process ended with code {code}, without a message (out of memory?)"
        desk.fail(worker.job, reason, "lost")
    desk.close(worker.job)


def _work(job: Job, runs: Path, to_parent: Connection) -> None:
    """Body of a worker process."""
    end_with_parent()
    try:
        well = perform(job, runs, lambda kind, content: to_parent.send((kind, content)))
    except KeyboardInterrupt:
        os._exit(1)
    raise SystemExit(0 if well else 1)
