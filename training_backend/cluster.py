"""The jobs of a sweep on a Ray cluster: any number of machines, fractions of their GPUs.

What the machines must share: the demonstrations, at the same path on each (a network disk, or a
copy), and the same version of this package. The folder of the runs should be shared, at the same
path too: then a run whose machine is lost goes on elsewhere from its last checkpoint. Whether it is
shared is found out by each job; where it is not, a job works in a temporary folder, the files that
it needs and leaves travel through Ray, and a lost run starts again. The run log is written by the
sweep alone, where `scaling-train` was started, and need not be shared.
"""

import hashlib
import logging
import math
import os
import queue
import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

from scaling_analysis import TrainError
from training_backend.executors import Desk, Failure, Job, TakeRow, perform

LOSSES = 5
"""Times that a job may be lost before it counts as failed: a job that kills its worker each time
would otherwise never end."""
SMALLEST_SHARE = 0.02
"""Part of a GPU that a job takes at least."""
_GOING_ON, _ENDED, _WITHOUT_FILES = "going on", "ended", "without files"


@dataclass(slots=True)
class _Task:
    job: Job
    losses: int = 0


class RayCluster:
    """Jobs on a Ray cluster, each on one CPU core, those that compute on a GPU on a part of one.

    Args:
        address: of the cluster: "auto" for the one that this machine belongs to, "HOST:PORT", or
            "local" for one of this machine alone, started for the sweep and ended after it.
        workers: jobs at a time, at most; as many as the cluster has cores by default.
        gpu: whether jobs compute on GPUs.
        shared: whether the folder of the runs is the same on every machine; found out by default.

    Raises (when it is entered):
        TrainError: Ray is not installed, there is no such cluster, or it has no GPU.
    """

    def __init__(
        self,
        address: str = "auto",
        *,
        workers: int | None = None,
        gpu: bool = False,
        shared: bool | None = None,
    ) -> None:
        self.address, self.workers, self.gpu, self.shared = address, workers, gpu, shared
        self.memory = math.inf
        self._joined = False
        self._session = ""
        self._moves = shared is False

    def __enter__(self) -> Self:
        ray = _import_ray()
        if self.address.startswith("ray://"):
            raise TrainError(
                f"--address {self.address}: Ray's client cannot stream results. Start the command "
                "on a machine of the cluster, with --address auto (`ray job submit` does that)"
            )
        if not ray.is_initialized():
            self._join(ray)
        try:
            if self.gpu:
                self.memory = 0.9 * _gpu_memory()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _join(self, ray: Any) -> None:
        """Connect to the cluster, or start one of this machine."""
        options: dict[str, Any] = {"address": self.address}
        if self.address == "local":
            self._session = tempfile.mkdtemp(prefix="ray-")
            options |= {"num_cpus": self.workers, "include_dashboard": False}
            options["_temp_dir"] = self._session
        try:
            _knock(self.address)
            self._joined = True
            ray.init(
                **options,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:  # Ray has no class of its own for this
            self.__exit__()
            raise TrainError(
                f"--address {self.address}: no Ray cluster answers there ({error}). Start one "
                "with `ray start --head`, or give --address local for this machine alone"
            ) from error

    def __exit__(self, *error: object) -> None:
        if self._joined:
            _import_ray().shutdown()
            self._joined = False
        if self._session:
            shutil.rmtree(self._session, ignore_errors=True)
            self._session = ""

    def run(self, jobs: Sequence[Job], runs: Path, title: str, take_row: TakeRow) -> list[Failure]:
        """As `Executor.run`; a job whose machine or process is lost is done again."""
        if not jobs:
            return []
        ray = _import_ray()
        token = runs / f".sweep-{uuid.uuid4().hex}"
        token.touch()
        waiting = [_Task(job=job) for job in jobs]
        running: dict[Any, _Task] = {}
        with Desk(jobs, runs, title, take_row) as desk:
            try:
                while waiting or running:
                    while waiting and len(running) < self._room():
                        task = waiting.pop(0)
                        running[self._submit(task.job, runs, token)] = task
                    ready, _ = ray.wait(
                        list(running), num_returns=len(running), timeout=0.2, fetch_local=False
                    )
                    for messages in ready:
                        task = running[messages]
                        state = self._read(messages, task.job, desk)
                        if state == _GOING_ON:
                            continue
                        del running[messages]
                        if state == _ENDED:
                            desk.close(task.job)
                        elif state == _WITHOUT_FILES:
                            waiting.insert(0, task)
                        elif task.losses < LOSSES:
                            task.losses += 1
                            desk.restart(task.job, state)
                            waiting.insert(0, task)
                        else:
                            desk.fail(task.job, f"lost {LOSSES + 1} times, last: {state}", "lost")
                            desk.close(task.job)
            finally:
                token.unlink(missing_ok=True)
                for messages in running:
                    ray.cancel(messages, force=True)
        return desk.failures

    def _room(self) -> int:
        """Jobs to hand to Ray at a time: somewhat more than run, so that no core waits."""
        if self.workers is not None:
            return self.workers
        return 2 + 2 * int(_import_ray().cluster_resources().get("CPU", 1))

    def _submit(self, job: Job, runs: Path, token: Path) -> Any:
        share = gpu_share(job.memory, self.memory) if self.gpu else 0.0
        existing = [name for name in job.inputs if (runs / name).exists()]
        files = None
        if self._moves or not existing:
            files = {str(name): (runs / name).read_bytes() for name in existing}
        return (
            _remote()
            .options(num_cpus=1, num_gpus=share)
            .remote(job, str(runs), str(token), self.shared, files, code_hash())
        )

    def _read(self, messages: Any, job: Job, desk: Desk) -> str:
        """Take the messages that have arrived; how the job stands, or how it was lost."""
        ray = _import_ray()
        while True:
            try:
                kind, content = ray.get(next(messages))
            except StopIteration:
                return _ENDED
            except ray.exceptions.RayError as error:
                return str(error).strip().splitlines()[0]
            if kind == _WITHOUT_FILES:
                self._moves = True
                return _WITHOUT_FILES
            desk.take(job, kind, content)
            if not ray.wait([messages], timeout=0, fetch_local=False)[0]:
                return _GOING_ON


def _knock(address: str) -> None:
    """Raise `OSError` where nobody listens at HOST:PORT: Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and not port.isdecimal():
        raise OSError(f"{port!r} is no port: give HOST:PORT, such as {host or 'head'}:6379")
    if colon:
        socket.create_connection((host, int(port)), timeout=10).close()


def gpu_share(memory: float, of_gpu: float) -> float:
    """Part of a GPU that a job takes: by its memory, and a whole one where it wants that."""
    if memory >= of_gpu:
        return 1.0
    return max(SMALLEST_SHARE, math.ceil(100 * memory / of_gpu) / 100)


@cache
def code_hash() -> str:
    """Names this version of the package by its source."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _perform_there(
    job: Job,
    runs: str,
    token: str,
    shared: bool | None,
    files: Mapping[str, bytes] | None,
    code: str,
) -> Iterator[tuple[str, Any]]:
    """Body of a Ray task: the messages of a job, as they come."""
    host = socket.gethostname()
    if code != code_hash():
        reason = (
            f"machine {host} has another version of this package than the one that the sweep was "
            "started on: install the same on every machine"
        )
        yield "failed", (reason, "", "error")
        return
    messages: queue.SimpleQueue[tuple[str, Any] | None] = queue.SimpleQueue()
    here = Path(token).exists() if shared is None else shared
    if not here and files is None:
        yield _WITHOUT_FILES, None
        return
    with tempfile.TemporaryDirectory(prefix="scaling-train-") as scratch:
        folder = Path(runs) if here else Path(scratch)
        if not here:
            for name, content in (files or {}).items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(content)

        def work() -> None:
            try:
                perform(job, folder, lambda *message: messages.put(message), moved=not here)
            finally:
                messages.put(None)

        threading.Thread(target=work, daemon=True).start()
        while (message := messages.get()) is not None:
            if message[0] == "failed":
                reason, trace, kind = message[1]
                message = "failed", (f"{reason} (on {host})", trace, kind)
            yield message


@cache
def _remote() -> Any:
    return _import_ray().remote(num_returns="streaming", max_retries=0)(_perform_there)


def _gpu_memory() -> float:
    """Memory of the smallest GPU of the cluster [bytes]."""
    ray = _import_ray()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy  # pyright: ignore[reportMissingImports]

    nodes = [n["NodeID"] for n in ray.nodes() if n["Alive"] and n["Resources"].get("GPU", 0) > 0]
    if not nodes:
        raise TrainError(
            "--device cuda: no machine of the Ray cluster has a GPU; leave --device out to train "
            "on CPUs"
        )
    measure = ray.remote(num_cpus=0, num_gpus=SMALLEST_SHARE)(_measure_gpu)
    found = [
        measure.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node_id=node, soft=False)
        ).remote()
        for node in nodes
    ]
    return min(ray.get(found))


def _measure_gpu() -> float:
    from training_backend.memory import check_device, device_memory

    check_device("cuda")
    return device_memory("cuda")


@cache
def _import_ray() -> Any:
    # before Ray is imported: it reads these then
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray  # pyright: ignore[reportMissingImports]
        import ray.exceptions  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise TrainError(
            "the package ray is not installed. --executor ray needs the extra `cluster`: pip "
            "install 'scaling-analysis[cluster]', or pip install -e '.[cluster]' in a checkout"
        ) from error
    return ray
