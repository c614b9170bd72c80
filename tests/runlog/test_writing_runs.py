"""Writing run logs: whole files, rows beside other writers, after crashes, on full disks."""

import errno
import io
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from scaling_analysis.errors import RunLogError, ScalingWarning
from scaling_analysis.runlog import append_run, load_runs, write_runs
from scaling_analysis.runlog.writing import _write_whole

ROW = {"run_id": "a", "params": 1e5, "samples": 1e6, "flops": 6e11, "loss": 2.5}


@pytest.fixture(params=["runs.csv", "runs.jsonl"])
def log(request, tmp_path):
    return tmp_path / request.param


def test_a_row_comes_back_as_it_was_given(log):
    assert append_run(
        log, **ROW, seed=3, note='said "no", and\nleft', mean_return=1 / 3, protocol="p"
    )
    runs = load_runs(log)
    assert runs.loss[0] == 2.5
    assert runs.mean_return[0] == 1 / 3
    assert runs.seed[0] == 3
    assert runs.note[0] == 'said "no", and left'
    assert runs.status[0] == "ok"
    assert runs.schema_version[0] == 1


def test_the_same_row_is_written_once(log):
    assert append_run(log, **ROW, wall_seconds=1.0) is True
    size = log.stat().st_size
    # A run that resumes evaluates its last checkpoint again, in other time.
    assert append_run(log, **ROW, wall_seconds=7.0) is False
    assert log.stat().st_size == size
    with pytest.raises(RunLogError, match=r"row 0 .*column 'loss': the log has .*2.5.* now 2.4"):
        append_run(log, **ROW | {"loss": 2.4})
    assert append_run(log, **ROW | {"budget": 6e11}) is True
    assert append_run(log, **ROW | {"samples": 2e6, "status": "diverged", "note": "inf"}) is True
    assert append_run(log, **ROW | {"samples": 2e6, "status": "diverged", "note": "inf"}) is False
    assert append_run(log, **ROW | {"samples": 2e6}) is True
    assert list(load_runs(log).status) == ["ok", "ok", "diverged", "ok"]


def test_rows_are_checked_before_the_file_is_touched(log):
    with pytest.raises(
        RunLogError, match=r"the row to append is refused.*'params': -1 is not above"
    ):
        append_run(log, **ROW | {"params": -1})
    with pytest.raises(RunLogError, match="needs run_id"):
        append_run(log, params=1e5, samples=1e6, flops=6e11, loss=2.5)
    with pytest.raises(RunLogError, match="no column 'flops'"):
        append_run(log, run_id="a", params=1e5, samples=1e6, loss=2.5)
    assert not log.exists()


def test_new_columns_widen_the_file(tmp_path):
    log = tmp_path / "runs.csv"
    append_run(log, **ROW)
    append_run(log, **ROW | {"run_id": "b"}, depth=4, budget=6e11)
    lines = log.read_text().splitlines()
    assert lines[0] == "run_id,params,samples,flops,loss,status,budget,depth,schema_version"
    assert lines[1] == "a,100000,1000000,600000000000,2.5,ok,,,1"
    runs = load_runs(log)
    assert runs.depth[1] == 4


def test_a_file_made_elsewhere_is_continued(tmp_path):
    log = tmp_path / "runs.csv"
    log.write_text("run_id,params,samples,flops,loss\na,1e5,1e6,6e11,2.5")  # no line end
    assert append_run(log, **ROW) is False
    assert append_run(log, **ROW | {"run_id": "b"}) is True
    assert list(load_runs(log).run_id) == ["a", "b"]
    other = tmp_path / "other.csv"
    other.write_text("name,size\nx,3\n")
    with pytest.raises(RunLogError, match=r"line 1: the header \(name, size\) names no run_id"):
        append_run(other, **ROW)
    with pytest.raises(RunLogError, match="a Parquet file cannot grow by a row"):
        append_run(tmp_path / "runs.parquet", **ROW)


def test_a_torn_line_is_cut_off_wherever_it_was_torn(log):
    append_run(log, **ROW)
    whole = log.read_bytes()
    append_run(log, **ROW | {"run_id": "b", "loss": 2.125})
    both = log.read_bytes()
    for end in [*range(len(whole) + 1, len(both) - 1, 4), len(both) - 2]:
        log.write_bytes(both[:end])
        with pytest.warns(ScalingWarning, match="torn by a crash and is cut off"):
            assert append_run(log, **ROW | {"run_id": "b", "loss": 2.125})
        assert log.read_bytes() == both
    log.write_bytes(both[:-1])  # only the line end is missing: the row is whole
    assert append_run(log, **ROW | {"run_id": "b", "loss": 2.125}) is False
    assert log.read_bytes() == both


def test_a_torn_header_is_written_again(tmp_path):
    log = tmp_path / "runs.csv"
    append_run(log, **ROW)
    first = log.read_bytes()
    log.write_bytes(first[:9])
    with pytest.warns(ScalingWarning, match="torn"):
        append_run(log, **ROW)
    assert log.read_bytes() == first


def _append_many(arguments):
    log, writer = arguments
    for step in range(1, 16):
        row = ROW | {"run_id": f"run-{writer}", "samples": 1e6 * step, "loss": 3 / step}
        append_run(log, **row, **({"extra": writer} if step > 8 else {}))


def test_writers_of_several_processes_lose_nothing(tmp_path):
    log = tmp_path / "runs.csv"
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_append_many, [(log, writer) for writer in range(3)], chunksize=1)
    runs = load_runs(log)
    assert len(runs) == 45
    assert runs.status.eq("ok").all()
    assert runs.groupby("run_id").samples.max().eq(15e6).all()


def test_a_killed_writer_leaves_whole_rows(tmp_path):
    log = tmp_path / "runs.csv"
    code = (
        "from scaling_analysis.runlog import append_run\n"
        "for step in range(1, 100000):\n"
        f"    append_run({str(log)!r}, run_id='k', params=1e5, samples=step, flops=6e5 * step, "
        "loss=1.5, budget=step)\n"
        "    print(step, flush=True)\n"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdout is not None
        for line in writer.stdout:
            last = int(line)
            if last == 40:
                writer.kill()
    append_run(log, **ROW)
    runs = load_runs(log)
    # What a writer reported as written is there; one more row may have been under way.
    assert len(runs) - 1 in (last, last + 1)
    assert runs.samples.iloc[:-1].tolist() == list(range(1, len(runs)))


class _FullDisk(io.BytesIO):
    """A file on which half of a line fits."""

    def write(self, data):
        super().write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_keeps_what_is_there():
    file = _FullDisk(b"a,1\n")
    with pytest.raises(OSError, match="No space left on device"):
        _write_whole(file, b"b,2\n")
    assert file.getvalue() == b"a,1\n"


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("runs.csv", "fsync"),
        ("runs.jsonl", "fsync"),
        ("runs.csv", "open"),
        ("runs.jsonl", "open"),
        ("runs.csv", "replace"),
    ],
)
def test_a_disk_that_fails_anywhere_is_a_typed_error(tmp_path, monkeypatch, name, place):
    log = tmp_path / name
    append_run(log, **ROW)
    before = log.read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    row = ROW | {"run_id": "later"}
    if place == "replace":
        row["new_column"] = 1.0  # makes the file wider: it is written anew
    target = os if place == "fsync" else Path
    with monkeypatch.context() as broken:
        broken.setattr(target, place, full)
        with pytest.raises(RunLogError, match=r"row of run 'later' .*No space left.*log it again"):
            append_run(log, **row)
    assert log.read_bytes() == before
    assert append_run(log, **row)
    assert len(load_runs(log)) == 2


def test_write_runs_replaces_whole_files(tmp_path, monkeypatch):
    path = tmp_path / "runs.csv"
    runs = load_runs(pd.DataFrame([ROW]))
    write_runs(runs, path)
    before = path.read_bytes()

    def broken(*_, **__):
        raise OSError("disk on fire")

    monkeypatch.setattr(pd.DataFrame, "to_csv", broken)
    with pytest.raises(RunLogError, match=r"could not be written \(disk on fire\)"):
        write_runs(runs.assign(loss=1.0), path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["runs.csv"]
