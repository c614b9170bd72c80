"""Workers of a killed process end too."""

import os
import subprocess
import sys
import time

POOL = """
import os, time
from training_backend.decoding import _pool
if __name__ == "__main__":
    with _pool(1) as pool:
        print(pool.submit(os.getpid).result(), flush=True)
        time.sleep(600)
"""


def _is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_worker_that_waits_ends_with_its_killed_parent(tmp_path) -> None:
    script = tmp_path / "decode.py"
    script.write_text(POOL)
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker = int(process.stdout.readline())
    assert _is_running(worker)
    process.kill()
    process.wait()
    process.stdout.close()
    until = time.monotonic() + 60
    while _is_running(worker) and time.monotonic() < until:
        time.sleep(0.05)
    gone = not _is_running(worker)
    if not gone:
        os.kill(worker, 9)
    assert gone
