"""Work shared out among processes."""

import math
import os
import subprocess
import sys

import pytest

from scaling_analysis.uncertainty.processes import map_in_processes, usable_cores


def test_one_process_is_this_one():
    assert map_in_processes(os.path.basename, ["a/b", "c"], workers=1) == ["b", "c"]


def test_results_come_back_in_the_order_of_the_tasks():
    tasks = [float(i) for i in range(12)]
    assert map_in_processes(math.sqrt, tasks, workers=2) == [math.sqrt(t) for t in tasks]


def test_what_a_task_raises_is_raised_here():
    with pytest.raises(ValueError, match="math domain"):
        map_in_processes(math.log, [1.0, -1.0, 2.0], workers=2)


def test_a_script_needs_no_guard(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from scaling_analysis.uncertainty.processes import map_in_processes\n"
        "print(map_in_processes(math.sqrt, [1.0, 4.0, 9.0], workers=2))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0, 2.0, 3.0]\n"
    assert done.stderr == ""


def test_a_worker_that_dies_is_told():
    with pytest.raises(RuntimeError, match="a worker process ended with code 3"):
        map_in_processes(os._exit, [3, 3], workers=2)


def test_there_is_at_least_one_core():
    assert usable_cores() >= 1
