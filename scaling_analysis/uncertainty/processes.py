"""Work on replicates in several processes, with a progress bar.

For fits with a library's optimiser inside, which no array operation can batch. Workers are fresh
interpreters that import this package and nothing of the caller's script: a script needs no
`if __name__ == "__main__"` guard, and no thread is forked.
"""

import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, TypeVar

from scaling_analysis.progress import progress_bar

Task = TypeVar("Task")
Result = TypeVar("Result")

_SERVE = (
    "import pickle, sys; sys.path[:] = pickle.load(sys.stdin.buffer); "
    "from scaling_analysis.uncertainty.processes import serve; serve()"
)
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def map_in_processes(
    function: Callable[[Task], Result],
    tasks: Sequence[Task],
    *,
    workers: int,
    label: str = "",
    sizes: Sequence[float] | None = None,
) -> list[Result]:
    """`[function(task) for task in tasks]`, shared out among processes.

    Parameters
    ----------
    function : callable
        A function of a module of this package. What it raises is raised here.
    tasks : sequence
        Anything that can be pickled, and so must be the results.
    workers : int
        Processes; with 1, or a single task, all is done in this one.
    label : str
        What the progress bar says; there is none unless stderr is a terminal.
    sizes : sequence of float, optional
        How far each task moves the bar, 1 by default.
    """
    sizes = [1] * len(tasks) if sizes is None else sizes
    results: list[Any] = [None] * len(tasks)
    workers = min(workers, len(tasks))
    with progress_bar(label, sum(sizes)) as advance:
        if workers <= 1:
            for i, task in enumerate(tasks):
                results[i] = function(task)
                advance(sizes[i])
            return results
        with _started(workers) as idle, ThreadPoolExecutor(workers) as threads:
            calls = {threads.submit(_ask, idle, function, t): i for i, t in enumerate(tasks)}
            try:
                for call in as_completed(calls):
                    results[calls[call]] = call.result()
                    advance(sizes[calls[call]])
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
    return results


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def serve() -> None:
    """A worker's life: read a task, write its result, until the pipe is closed."""
    inbox, outbox = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr  # what a library prints must not reach the pipe
    while True:
        try:
            function, task = pickle.load(inbox)
        except EOFError:
            return
        try:
            answer = (True, function(task))
        except Exception as error:
            answer = (False, error)
        pickle.dump(answer, outbox)
        outbox.flush()


def _ask(idle: "SimpleQueue[subprocess.Popen[bytes]]", function: Callable, task: Any) -> Any:
    worker = idle.get()
    try:
        assert worker.stdin is not None
        assert worker.stdout is not None
        pickle.dump((function, task), worker.stdin)
        worker.stdin.flush()
        good, answer = pickle.load(worker.stdout)
    except (EOFError, BrokenPipeError) as error:
        raise RuntimeError(
            f"a worker process ended with code {worker.wait()} before its task was done: give "
            "workers=1 to see why"
        ) from error
    finally:
        idle.put(worker)
    if not good:
        raise answer
    return answer


@contextmanager
def _started(count: int) -> "Iterator[SimpleQueue[subprocess.Popen[bytes]]]":
    command = [sys.executable, "-c", _SERVE]
    idle: SimpleQueue[subprocess.Popen[bytes]] = SimpleQueue()
    workers = []
    try:
        for _ in range(count):
            worker = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | _ONE_THREAD,
            )
            workers.append(worker)
            assert worker.stdin is not None
            pickle.dump(sys.path, worker.stdin)
            worker.stdin.flush()
            idle.put(worker)
        yield idle
    finally:
        for worker in workers:
            for pipe in (worker.stdin, worker.stdout):
                assert pipe is not None
                with suppress(BrokenPipeError):
                    pipe.close()
            worker.terminate()
            worker.wait()
