"""Jobs shared out among processes."""

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

import scaling_analysis as sa
from scaling_analysis.processes import has_company, processes, spread, usable_cores


def end_abruptly(parent: int, value: int) -> int:
    if os.getpid() != parent and value == 2:
        os._exit(3)
    return value


def nested() -> tuple[int, int, list[int]]:
    with processes(2):
        return usable_cores(), os.getpid(), spread(os.getpid, [(), ()])


def test_jobs_are_done_here_unless_a_block_is_open():
    assert spread(os.getpid, [(), ()]) == [os.getpid()] * 2
    assert not has_company()
    assert 1 <= usable_cores() <= 8


def test_results_come_back_in_the_order_of_the_jobs():
    with processes(2):
        assert has_company()
        assert os.getpid() not in spread(os.getpid, [(), ()])
        roots = spread(math.sqrt, [(float(i),) for i in range(12)])
        assert spread(lambda x: 2 * x, [(1,), (2,)]) == [2, 4]
    assert roots == [math.sqrt(i) for i in range(12)]
    assert spread(os.getpid, [(), ()]) == [os.getpid()] * 2


def test_what_a_job_raises_is_raised_here():
    with processes(2):
        with pytest.raises(ValueError, match="math domain"):
            spread(math.log, [(1.0,), (-1.0,), (2.0,)])
        assert spread(abs, [(-1,), (-2,)]) == [1, 2]


def test_a_script_needs_no_guard_and_may_give_functions_of_its_own(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import math\n"
        "from scaling_analysis.processes import processes, spread\n"
        "def mine(x): return x + 1\n"
        "with processes(2):\n"
        "    print(spread(math.sqrt, [(1.0,), (4.0,)]), spread(mine, [(1,), (2,)]))\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert done.stdout == "[1.0, 2.0] [2, 3]\n"
    assert done.stderr == ""


def test_a_worker_that_dies_is_replaced():
    with processes(2):
        jobs = [(os.getpid(), k) for k in range(4)]
        assert spread(end_abruptly, jobs) == [0, 1, 2, 3]
        assert len(set(spread(os.getpid, [()] * 8)) - {os.getpid()}) >= 1


def test_workers_have_no_workers():
    with processes(2):
        for cores, worker, inner in spread(nested, [(), ()]):
            assert cores == 1
            assert inner == [worker, worker]


def test_two_processes_give_the_hindcast_of_one():
    law = sa.AdditiveSurface(E=0.45, A=18.0, alpha=0.33, B=260.0, beta=0.38)
    budgets = [1e10, 1e11, 1e12, 1e13, 1e14]
    runs = sa.simulate_runs(law, np.geomspace(2e3, 4e5, 9), budgets, sizes_per_budget=6, rng=3)
    alone = sa.hindcast(runs, ["isoflop-vertex"], n_resamples=20, rng=0)
    with processes(2):
        together = sa.hindcast(runs, ["isoflop-vertex"], n_resamples=20, rng=0)
        by_hand = sa.hindcast(runs, {"mine": lambda r: sa.fit_isoflop(r)}, n_resamples=20, rng=0)
    pd.testing.assert_frame_equal(alone.cells, together.cells, check_exact=True)
    assert "mine" in set(by_hand.cells["method"])


def test_an_interrupt_of_the_terminal_does_not_reach_the_workers(capfd):
    with processes(2):
        workers = set(spread(os.getpid, [()] * 8)) - {os.getpid()}
        for worker in workers:
            os.kill(worker, signal.SIGINT)
        assert spread(abs, [(-1,), (-2,)]) == [1, 2]
        assert workers & set(spread(os.getpid, [()] * 8))
    assert "Traceback" not in capfd.readouterr().err
