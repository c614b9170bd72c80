"""Independent jobs shared out among processes.

Workers are fresh interpreters that import this package and nothing of the script that calls: it
needs no `if __name__ == "__main__"` guard, and no thread is forked. Each computes in one thread.
"""

import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from importlib import import_module
from queue import SimpleQueue
from threading import local
from typing import Any, BinaryIO, Generic, TypeVar

from scaling_analysis.progress import progress_bar

Result = TypeVar("Result")
Worker = subprocess.Popen[bytes]

MOST = 8
"""More workers than this wait for each other's starts longer than they save."""
# Ctrl-C reaches every process of a terminal: the caller answers it and ends its workers, whose own
# tracebacks would bury what it says.
_SERVE = (
    "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from scaling_analysis.processes import serve; serve()"
)
_SURROUNDINGS = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    # glibc gives work arrays back to the system and asks for fresh pages each time; a worker, whose
    # life is short, keeps them: replicates are refitted up to three times as fast.
    "MALLOC_MMAP_THRESHOLD_": str(2**27),
    "MALLOC_TRIM_THRESHOLD_": str(2**29),
}
_NEEDED = ("scaling_analysis.estimators.isoflop", "scaling_analysis.estimators.parametric")
"""What nearly all jobs need."""
_LENGTH = struct.Struct("<Q")
_DONE, _RAISED, _FOREIGN = 0, 1, 2


class _Crew:
    """Workers that start with the first job, or when they are called, and stay for the next."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._workers: list[Worker] = []
        self._idle: SimpleQueue[Worker] = SimpleQueue()
        self._threads: ThreadPoolExecutor | None = None
        self._leaving = False

    def take(
        self, function: Callable[..., Result], job: tuple[Any, ...], message: bytes
    ) -> Future[Result]:
        """What will be the answer of the next worker that is free, in the order of the calls."""
        self.be_there()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self.count)
        return self._threads.submit(self._ask, function, job, message)

    def _ask(self, function: Callable[..., Result], job: tuple[Any, ...], message: bytes) -> Result:
        """What a worker answers; done here where no worker can, or where it died of the job."""
        worker = self._idle.get()
        answer: Any
        try:
            _send(_pipe(worker.stdin), message)
            kind, answer = pickle.loads(_receive(_pipe(worker.stdout)))
        except (EOFError, BrokenPipeError):
            if self._leaving:
                raise
            worker.wait()
            worker = self._start()
            kind, answer = _FOREIGN, None
        finally:
            self._idle.put(worker)
        if kind == _RAISED:
            raise answer
        if kind == _DONE:
            return answer
        _here.busy = True  # a thread that waits for others of its kind may wait for ever
        try:
            return function(*job)
        finally:
            _here.busy = False

    def be_there(self) -> None:
        """Start whoever is missing."""
        while len(self._workers) < self.count:
            self._idle.put(self._start())

    def _start(self) -> Worker:
        pipe = subprocess.PIPE
        command = [sys.executable, "-c", _SERVE]
        worker = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=os.environ | _SURROUNDINGS)
        self._workers.append(worker)
        stdin = _pipe(worker.stdin)
        pickle.dump(sys.path, stdin)
        stdin.flush()
        return worker

    def leave(self) -> None:
        self._leaving = True
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self._workers:
            worker.terminate()
            worker.wait()
        if self._threads is not None:
            self._threads.shutdown()
        for worker in self._workers:
            for pipe in (worker.stdin, worker.stdout):
                with suppress(BrokenPipeError):
                    _pipe(pipe).close()


_crew = _Crew(1)
_here = local()
"""Of a thread of the crew: whether it does a job itself."""
_is_worker = False


@contextmanager
def processes(count: int) -> Iterator[None]:
    """Within the block, hindcasts and the fits of several methods share `count` processes.

    Results are the same, bit for bit, however many there are. The `scaling` command uses all
    processors.

    Examples
    --------
    >>> with processes(2):
    ...     spread(abs, [(-1,), (2,)])
    [1, 2]
    """
    global _crew
    before, _crew = _crew, _Crew(1 if _is_worker else count)
    try:
        yield
    finally:
        _crew.leave()
        _crew = before


class Jobs(Generic[Result]):
    """`[function(*job) for job in jobs]`, begun: the processes of the block that we are in work.

    Jobs are taken up in the order in which they are begun, so that those of a later stage follow
    without a pause while the caller still sorts the results of an earlier one. Without a block of
    processes, and where the jobs cannot travel to another process, such as a lambda or a function
    of the caller's own script, they are done by `results`.

    Examples
    --------
    >>> with processes(2):
    ...     begun = Jobs(abs, [(-1,), (2,)])
    ...     begun.results()
    [1, 2]
    """

    def __init__(self, function: Callable[..., Result], jobs: Sequence[tuple[Any, ...]]) -> None:
        self._function, self._jobs = function, jobs
        self._calls: dict[Future[Result], int] | None = None
        able = _crew.count > 1 and not getattr(_here, "busy", False)
        if able and (messages := _messages(function, jobs)) is not None:
            self._calls = {
                _crew.take(function, job, message): i
                for i, (job, message) in enumerate(zip(jobs, messages, strict=True))
            }

    def results(self, label: str = "", sizes: Sequence[float] | None = None) -> list[Result]:
        """The results in the order of the jobs; what a job raises is raised here.

        Parameters
        ----------
        label : str
            What the progress bar says; there is none unless stderr is a terminal.
        sizes : sequence of float, optional
            How far each job moves the bar, 1 by default.
        """
        sizes = [1] * len(self._jobs) if sizes is None else sizes
        results: list[Any] = [None] * len(self._jobs)
        with progress_bar(label, sum(sizes)) as advance:
            if self._calls is None:
                for i, job in enumerate(self._jobs):
                    results[i] = self._function(*job)
                    advance(sizes[i])
                return results
            try:
                for call in as_completed(self._calls):
                    results[self._calls[call]] = call.result()
                    advance(sizes[self._calls[call]])
            except BaseException:
                self.cancel()
                raise
        return results

    def cancel(self) -> None:
        """Leave out the jobs that no process has taken up."""
        for call in self._calls or ():
            call.cancel()


def spread(
    function: Callable[..., Result],
    jobs: Sequence[tuple[Any, ...]],
    *,
    label: str = "",
    sizes: Sequence[float] | None = None,
) -> list[Result]:
    """`[function(*job) for job in jobs]`, by the processes of the block that we are in.

    A single job is done here. `label` and `sizes` are those of `Jobs.results`.
    """
    if len(jobs) < 2:
        with progress_bar(label, len(jobs)):
            return [function(*job) for job in jobs]
    return Jobs(function, jobs).results(label, sizes)


def call_processes() -> None:
    """Have the processes of the block start now, beside what the caller still has to do."""
    if _crew.count > 1:
        _crew.be_there()


def usable_cores() -> int:
    """Processors that this program may use and that are worth a process each; 1 in a worker."""
    if _is_worker:
        return 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return min(max(1, cores or 1), MOST)


def has_company() -> bool:
    """Whether a block of `processes` is open."""
    return _crew.count > 1


def serve() -> None:
    """A worker's life: read a job, write its result, until the pipe is closed."""
    global _is_worker
    _is_worker = True
    for name in _NEEDED:  # while the first job is still on its way
        import_module(name)
    inbox, outbox = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not reach the pipe
    while True:
        try:
            message = _receive(inbox)
        except EOFError:
            return
        try:
            function, job = pickle.loads(message)
        except Exception:  # a module or a name that only the caller has
            answer = (_FOREIGN, None)
        else:
            try:
                answer = (_DONE, function(*job))
            except Exception as error:
                answer = (_RAISED, error)
        _send(outbox, pickle.dumps(answer))


def _messages(function: Callable, jobs: Sequence[tuple[Any, ...]]) -> list[bytes] | None:
    try:
        return [pickle.dumps((function, job)) for job in jobs]
    except (pickle.PicklingError, AttributeError, TypeError):
        return None


def _send(pipe: BinaryIO, message: bytes) -> None:
    pipe.write(_LENGTH.pack(len(message)) + message)
    pipe.flush()


def _receive(pipe: BinaryIO) -> bytes:
    head = pipe.read(_LENGTH.size)
    if len(head) < _LENGTH.size:
        raise EOFError
    message = pipe.read(_LENGTH.unpack(head)[0])
    if len(message) < _LENGTH.unpack(head)[0]:
        raise EOFError
    return message


def _pipe(pipe: Any) -> BinaryIO:
    assert pipe is not None
    return pipe
