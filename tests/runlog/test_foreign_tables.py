"""Tables as other programs write them, read without a word where nothing is uncertain."""

from typing import Any

import pandas as pd
import pytest

from scaling_analysis.errors import RunLogError, ScalingWarning
from scaling_analysis.runlog import append_run, load_runs
from scaling_analysis.runlog.audit import audit
from scaling_analysis.runlog.importing import import_csv
from scaling_analysis.runlog.selecting import select, usable

LOG = pd.DataFrame(
    {
        "run_id": ["007", "007", "b"],
        "params": [1.5e5, 1.5e5, 3e5],
        "samples": [1e6, 2e6, 1e6],
        "flops": [9e11, 1.8e12, 1.8e12],
        "budget": [9e11, 1.8e12, 1.8e12],
        "loss": [0.5125, 0.4, 1.25],
    }
)


@pytest.fixture
def plain(tmp_path):
    LOG.to_csv(tmp_path / "plain.csv", index=False)
    return load_runs(tmp_path / "plain.csv")


@pytest.mark.parametrize(
    "dialect",
    [
        {"sep": ";"},
        {"sep": ";", "decimal": ","},
        {"sep": "\t"},
        {"sep": "\t", "encoding": "utf-16"},
        {"encoding": "utf-16"},
        {"encoding": "utf-8-sig"},
        {"sep": ";", "decimal": ",", "lineterminator": "\r\n", "encoding": "utf-8-sig"},
        {"sep": ";", "decimal": ",", "quoting": 1},
    ],
    ids=str,
)
def test_what_spreadsheets_write(dialect, plain, tmp_path):
    LOG.to_csv(tmp_path / "runs.csv", index=False, **dialect)
    pd.testing.assert_frame_equal(load_runs(tmp_path / "runs.csv"), plain)


@pytest.mark.parametrize("spell", [str.upper, str.title, lambda name: name.replace("_", " ")])
def test_names_that_differ_in_case_or_spaces_only(spell, plain, tmp_path):
    path = tmp_path / "runs.csv"
    LOG.rename(columns=spell).to_csv(path, index=False)
    pd.testing.assert_frame_equal(load_runs(path), plain)
    pd.testing.assert_frame_equal(import_csv(path).runs, plain)
    pd.testing.assert_frame_equal(load_runs(LOG.rename(columns=spell)), load_runs(LOG))


def test_a_name_as_in_the_schema_comes_first_and_two_spellings_are_none():
    both = LOG.assign(Loss=9.0)
    assert load_runs(both)["loss"].tolist() == LOG["loss"].tolist()
    with pytest.raises(RunLogError, match="no column 'loss'"):
        load_runs(both.rename(columns={"loss": "LOSS"}))


def test_a_status_of_another_tool_is_not_ours():
    assert set(load_runs(LOG.assign(Status="Finished"))["status"]) == {"ok"}


def test_one_answer_names_all_columns():
    names = {
        "run_id": "Name",
        "params": "model.n_params",
        "samples": "train/samples",
        "flops": "train/flops",
        "budget": "flop_budget",
        "loss": "eval/loss",
    }
    theirs = LOG.rename(columns=names).assign(**{"train/loss": 0.1})
    with pytest.raises(RunLogError) as caught:
        load_runs(theirs)
    said = str(caught.value).split("columns=")[1].split("}")[0] + "}"
    told = eval(said)
    assert told == names
    pd.testing.assert_frame_equal(
        load_runs(theirs, columns=told)[list(LOG.columns)], load_runs(LOG)[list(LOG.columns)]
    )


def test_an_import_asks_for_the_runs_too(tmp_path):
    path = tmp_path / "export.csv"
    LOG.rename(columns={"run_id": "Name", "params": "n"}).to_csv(path, index=False)
    with pytest.raises(RunLogError, match=r"say columns=\{'params': 'n', 'run_id': 'Name'\}"):
        import_csv(path)


@pytest.mark.parametrize(
    "dialect", [{"sep": ";", "decimal": ","}, {"encoding": "utf-16"}, {"columns": ["params"]}]
)
def test_a_row_is_not_appended_to_a_foreign_table(dialect, tmp_path):
    path = tmp_path / "runs.csv"
    LOG.to_csv(path, index=False, **dialect)
    path.write_bytes(path.read_bytes().rstrip())  # the last line looks torn
    before = path.read_bytes()
    with pytest.raises(RunLogError, match="no run log to append to"):
        append_run(path, run_id="c", params=1e5, samples=1e6, flops=6e11, loss=1.0)
    assert path.read_bytes() == before


def test_a_header_that_a_crash_tore_is_ours(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("run")
    with pytest.warns(ScalingWarning, match="torn by a crash"):
        assert append_run(path, run_id="c", params=1e5, samples=1e6, flops=6e11, loss=1.0)
    assert load_runs(path)["run_id"].tolist() == ["c"]


def test_runs_under_another_name_are_a_warning_of_the_audit():
    log = pd.concat([LOG.assign(loss=LOG["loss"] * k, params=LOG["params"] * k) for k in (1, 2, 3)])
    named = audit(load_runs(log.rename(columns={"run_id": "Name"}))).to_frame().set_index("code")
    assert named.loc["unread-columns", "severity"] == "warning"
    assert "'Name' for 'run_id'" in named.loc["unread-columns", "what"]
    assert "run of its own" in named.loc["unread-columns", "bias"]
    alone = log.rename(columns={"run_id": "Name"}).assign(Name=range(len(log)))
    assert audit(load_runs(alone)).to_frame().set_index("code").loc[
        "unread-columns", "severity"
    ] == ("note")
    assert (
        "unread-columns"
        not in audit(load_runs(log.drop(columns="run_id"))).to_frame()["code"].tolist()
    )


def test_what_takes_runs_takes_a_path_and_refuses_what_is_none(tmp_path):
    LOG.to_csv(tmp_path / "runs.csv", index=False)
    path: Any = tmp_path / "runs.csv"
    assert len(select(path)) == len(usable(path, "loss")) == len(LOG)
    nothing: Any = None
    for take in (select, lambda runs: usable(runs, "loss")):
        with pytest.raises(RunLogError, match="a NoneType is no table"):
            take(nothing)
