"""Time, memory and size of `scaling report` with 4,000 replicates of every method.

    SCALING_REFERENCE_DATA=folder python benchmarks/report.py --out benchmarks/results

The log is that of Tuyls et al. 2023 (loss and return, 197 rows) where the folder of third-party run
logs is named, else the one of this repository. It means something on a free machine only.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent


def log() -> tuple[str, Path]:
    folder = os.environ.get("SCALING_REFERENCE_DATA")
    if folder:
        return "Tuyls et al. 2023", Path(folder) / "nethack_il" / "runs.csv"
    return "data/nethack_bc", HERE.parent / "data" / "nethack_bc" / "runs.csv"


def measure(runs: Path, out: Path, replicates: int, watch: bool) -> tuple[float, int]:
    """Seconds of the command, and with `watch`, which slows it, the most memory of it and its
    workers [bytes]."""
    program = "from scaling_analysis.cli import main; main()"
    words = ["report", str(runs), "-o", str(out), "--replicates", str(replicates)]
    start, most = time.perf_counter(), 0
    with subprocess.Popen(
        [sys.executable, "-c", program, *words], stdout=subprocess.DEVNULL
    ) as command:
        while watch and command.poll() is None:
            most = max(most, sum(map(_resident, _family(command.pid))))
            time.sleep(0.1)
        command.wait()
    if command.returncode:
        raise SystemExit(f"scaling report ended with {command.returncode}")
    return time.perf_counter() - start, most


def _family(pid: int) -> list[int]:
    """A process and its children, who have none."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        children = []
    return [pid, *map(int, children)]


def _resident(pid: int) -> int:
    """Memory of a process, what it shares counted in proportion [bytes]."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--replicates", type=int, default=4000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    name, runs = log()
    replicates, repeats = options.replicates, options.repeats
    with tempfile.TemporaryDirectory() as folder:
        memory = measure(runs, Path(folder), replicates, watch=True)[1]
        times = sorted(
            measure(runs, Path(folder), replicates, watch=False)[0] for _ in range(repeats)
        )
        size = {kind: (Path(folder) / f"report.{kind}").stat().st_size for kind in ("html", "pdf")}
    cores = len(os.sched_getaffinity(0))
    text = f"""\
# A report with {replicates:,} replicates of every method, HTML and PDF

`python benchmarks/report.py`, log: {name}; {cores} cores, {repeats} times

| | |
|---|---|
| seconds, median | {statistics.median(times):.1f} ({times[0]:.1f} to {times[-1]:.1f}) |
| memory of all processes together, at most | {memory / 2**20:.0f} MiB |
| HTML | {size["html"] / 1e6:.2f} MB |
| PDF | {size["pdf"] / 1e6:.2f} MB |
"""
    print(text)
    if options.out:
        (options.out / "report.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
