"""Reading run logs: formats, names, derived counts, statuses, duplicates, identity."""

import doctest
import importlib
import json
import pkgutil

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

import scaling_analysis.runlog as runlog
from scaling_analysis.errors import RunLogError, ScalingWarning
from scaling_analysis.runlog import (
    content_hash,
    load_episodes,
    load_plan,
    load_runs,
    row_keys,
    select,
    usable,
    write_runs,
)


def small_log(**more) -> pd.DataFrame:
    """Three checkpoints of two runs."""
    return pd.DataFrame(
        {
            "run_id": ["a", "a", "b"],
            "params": [10_000, 10_000, 40_000],
            "samples": [1e6, 2e6, 1e6],
            "flops": [6e10, 12e10, 24e10],
            "loss": [2.5, 2.25, 2.125],
        }
        | more
    )


def test_counts_are_float64_and_the_standing_columns_are_there():
    runs = load_runs(small_log())
    assert list(runs.run_id) == ["a", "a", "b"]
    for name in ("params", "samples", "flops"):
        assert runs[name].dtype == np.float64
    # 6 N D of a large language model does not fit into an int64.
    wide = small_log(params=[10**12] * 3, samples=[10**13, 2 * 10**13, 10**13])
    assert (6 * load_runs(wide).params * load_runs(wide).samples)[1] == 1.2e26
    assert list(runs.status) == ["ok"] * 3
    assert list(runs.note) == [""] * 3


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl", "pq", "ndjson"])
def test_every_format_holds_the_same_log(tmp_path, suffix):
    log = small_log(
        loss=[2.5, 1 / 3, 0.1 + 0.2], budget=[6e10, np.nan, 2.4e11], note=["", 'a "b", c', "x"]
    )
    runs = load_runs(log)
    path = write_runs(runs, tmp_path / f"runs.{suffix}")
    again = load_runs(path)
    assert again.schema_version.eq(1).all()
    pd.testing.assert_frame_equal(again.drop(columns="schema_version")[list(runs)], runs)
    assert content_hash(again) == content_hash(runs)


@pytest.mark.parametrize("convert", [pl.from_pandas, pa.Table.from_pandas, lambda frame: frame])
def test_tables_of_other_libraries(convert):
    runs = load_runs(convert(small_log()))
    pd.testing.assert_frame_equal(runs, load_runs(small_log()))


def test_a_named_index_is_a_column():
    pd.testing.assert_frame_equal(
        load_runs(small_log().set_index("run_id"))[["params", "loss"]],
        load_runs(small_log())[["params", "loss"]],
    )


def test_several_sources_are_put_together(tmp_path):
    first, second = small_log()[:2], small_log(agent="lstm")[2:]
    path = tmp_path / "first.csv"
    first.to_csv(path, index=False)
    runs = load_runs([path, second])
    assert list(runs.run_id) == ["a", "a", "b"]
    assert list(runs.agent) == ["", "", "lstm"]
    assert list(runs.index) == [0, 1, 2]


def test_names_of_the_table_are_mapped_and_others_kept(tmp_path):
    path = tmp_path / "sweep.csv"
    path.write_text("Model Size, C ,val,depth\n1e6,6e13,3.1,4\n", encoding="utf-8")
    runs = load_runs(
        path,
        columns={"params": "Model Size", "flops": "C", "budget": "C", "loss": "val"},
        cost_constant=6,
    )
    assert runs.samples[0] == pytest.approx(1e7, rel=1e-15)
    assert runs.budget[0] == runs.flops[0] == 6e13
    assert runs.depth[0] == 4
    assert "C" not in runs


def test_a_label_stays_the_label_that_was_written(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("run_id,git_commit,params,samples,flops,loss\n007,12e4567,1,2,3,4\n")
    assert load_runs(path).run_id[0] == "007"
    assert load_runs(path).git_commit[0] == "12e4567"
    assert load_runs(small_log(run_id=[7.0, 7.0, np.nan]).iloc[:2]).run_id[0] == "7"


def test_a_quoted_line_break_and_a_byte_order_mark_are_read(tmp_path):
    path = tmp_path / "runs.csv"
    text = 'run_id,params,samples,flops,loss,note\na,1,2,3,4,"two\nlines"\n\nb,1,2,3,4,\n'
    path.write_text(text, encoding="utf-8-sig")
    assert list(load_runs(path).note) == ["two\nlines", ""]


@pytest.mark.parametrize("missing", ["params", "samples", "flops"])
def test_the_third_count_is_derived_from_a_stated_constant_only(missing):
    log = small_log().drop(columns=missing)
    with pytest.raises(RunLogError, match=rf"no column '{missing}'.*cost_constant=6"):
        load_runs(log)
    runs = load_runs(log, cost_constant=6)
    np.testing.assert_allclose(runs[missing], small_log()[missing], rtol=1e-15)
    assert list(runs.derived) == [missing] * 3


def test_single_gaps_are_derived_and_marked():
    runs = load_runs(small_log(flops=[6e10, np.nan, 24e10]), cost_constant=6)
    assert list(runs.derived) == ["", "flops", ""]
    assert runs.flops[1] == 12e10
    assert "derived" not in load_runs(small_log(), cost_constant=6)


def test_marks_of_an_earlier_derivation_are_kept():
    log = load_runs(small_log(flops=[6e10, np.nan, 24e10]), cost_constant=6)
    log.loc[2, "samples"] = np.nan
    assert list(load_runs(log, cost_constant=6).derived) == ["", "flops", "samples"]


def test_rows_without_ids_are_runs_whose_names_follow_their_content():
    log = small_log().drop(columns="run_id")
    runs, shuffled = load_runs(log), load_runs(log[::-1])
    assert runs.run_id.nunique() == 3
    assert set(runs.run_id) == set(shuffled.run_id)
    assert runs.run_id[0] == shuffled.run_id[2]


def test_an_identical_second_row_is_annotated_not_dropped(tmp_path):
    path = tmp_path / "runs.csv"
    pd.concat([small_log(), small_log()[:1]]).to_csv(path, index=False)
    runs = load_runs(path)
    assert list(runs.status) == ["ok", "ok", "ok", "duplicate"]
    assert runs.note[3] == f"same as {path}, line 2"
    assert len(usable(runs, "loss")) == 3


def test_one_checkpoint_may_stand_for_two_budgets():
    log = small_log(samples=[1e6, 1e6, 1e6], budget=[1e10, 2e10, 1e10])
    assert load_runs(log).status.eq("ok").all()


def test_many_duplicates_are_found_at_once():
    log = pd.concat([small_log()] * 3, ignore_index=True)
    assert load_runs(log).status.value_counts().to_dict() == {"duplicate": 6, "ok": 3}


def test_rows_with_another_status_need_no_numbers(tmp_path):
    log = small_log(status=["ok", "diverged", None], loss=[2.5, np.inf, 2.1])
    log["samples"] = [1e6, np.nan, 1e6]
    runs = load_runs(log)
    assert list(runs.status) == ["ok", "diverged", "ok"]
    assert list(usable(runs, "loss").index) == [0, 2]


def test_exclusions_are_columns_with_a_reason():
    runs = load_runs(small_log(), exclude={"b": "restarted"}, where="samples > 1e6")
    assert list(runs.status) == ["excluded", "ok", "excluded"]
    assert list(runs.note) == ["not where samples > 1e6", "", "restarted"]


def test_agent_and_task_choose_rows():
    log = small_log(agent=["lstm", "lstm", "mlp"])
    assert list(load_runs(log, agent="mlp").run_id) == ["b"]
    with pytest.raises(RunLogError, match=r"mixes 2 values of agent: 'lstm' \(2 rows\)"):
        select(load_runs(log))
    assert len(select(load_runs(log), mixture=True)) == 3
    assert len(select(load_runs(log, exclude={"b": "no"}))) == 3
    with pytest.raises(RunLogError, match="agent='cnn': no such row"):
        load_runs(log, agent="cnn")


def test_usable_takes_a_frame_that_nobody_loaded():
    rows = usable(small_log(loss=[2.5, np.nan, 2.1]), "loss")
    assert list(rows.run_id) == ["a", "b"]
    with pytest.raises(RunLogError, match="no column 'mean_return'"):
        usable(load_runs(small_log()), "mean_return")
    with pytest.raises(
        RunLogError, match=r"no row has status ok and a finite loss \(3 rows: 3 div"
    ):
        usable(load_runs(small_log(status="diverged")), "loss")


def test_returns_of_two_protocols_are_refused():
    log = small_log(mean_return=[1.0, 2.0, 3.0], protocol=["v1", "v1", "v2"])
    runs = load_runs(log)
    with pytest.raises(RunLogError, match="returns of 2 evaluation protocols cannot be compared"):
        usable(runs, "mean_return")
    assert len(usable(runs, "loss")) == 3
    assert len(usable(load_runs(log, where="protocol == 'v1'"), "mean_return")) == 2


def test_a_protocol_may_be_named_for_all():
    log = small_log(mean_return=[1.0, 2.0, np.nan])
    with pytest.raises(RunLogError, match=r"column 'protocol': no value.*protocol=\"name\""):
        load_runs(log)
    assert list(load_runs(log, protocol="v1").protocol) == ["v1", "v1", ""]


@given(st.permutations(range(3)))
def test_the_content_hash_does_not_depend_on_order(order):
    runs = load_runs(small_log(budget=[np.nan, 1e10, 2e10]))
    again = runs.iloc[list(order)][list(runs.columns)[::-1]]
    assert content_hash(again) == content_hash(runs)
    assert row_keys(again) == row_keys(runs)


def test_the_content_hash_sees_measurements_only():
    runs = load_runs(small_log())
    assert content_hash(runs) == content_hash(runs.assign(note="seen", wall_seconds=3.0))
    assert content_hash(runs) == content_hash(runs.assign(budget=np.nan, agent=""))
    for changed in (
        runs.assign(loss=runs.loss + 1e-15),
        runs.assign(run_id=["a", "a", "c"]),
        runs.assign(seed=0.0),
        runs.iloc[:2],
        pd.concat([runs, runs]),
    ):
        assert content_hash(changed) != content_hash(runs)
    moved = runs.assign(agent=["ab", "", ""], task=["", "", ""])
    assert content_hash(moved) != content_hash(moved.assign(agent="", task=["ab", "", ""]))


def test_keys_are_json():
    runs = load_runs(small_log(budget=[np.nan, 1e10, 2e10]))
    keys = row_keys(runs)
    assert keys == [("a", 1e6, None), ("a", 2e6, 1e10), ("b", 1e6, 2e10)]
    assert [tuple(key) for key in json.loads(json.dumps(keys))] == keys


def test_a_torn_last_line_is_reported_and_not_read(tmp_path):
    path = tmp_path / "runs.csv"
    write_runs(load_runs(small_log()), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.warns(ScalingWarning, match=r"line 4: the last line is torn \('b,40000"):
        runs = load_runs(path)
    assert list(runs.run_id) == ["a", "a"]
    lines = tmp_path / "runs.jsonl"
    write_runs(load_runs(small_log()), lines)
    lines.write_bytes(lines.read_bytes()[:-20])
    with pytest.warns(ScalingWarning, match="line 3: the last line is torn"):
        assert len(load_runs(lines)) == 2


def test_episodes_and_plans(tmp_path):
    episodes = pd.DataFrame(
        {"run_id": "a", "samples": 1e6, "episode": [0, 1], "return": [3.5, 4.0], "depth": [1, 2]}
    )
    loaded = load_episodes(episodes)
    assert list(loaded["return"]) == [3.5, 4.0]
    assert list(loaded.depth) == [1, 2]
    with pytest.raises(RunLogError, match=r"row 0 .* and table, row 1 .* are the same episode"):
        load_episodes(episodes.assign(episode=0))
    with pytest.raises(RunLogError, match=r"no column 'return' .*columns=\{'return': 'reward'\}"):
        load_episodes(episodes.rename(columns={"return": "reward"}))
    plan = tmp_path / "plan.csv"
    plan.write_text("run_id,params,budget,snapshots\np0,1e5,1e12,1e11;1e12\n")
    assert load_plan(plan).snapshots[0] == "1e11;1e12"
    plan.write_text("run_id,params,budget\np0,1e5,1e12\np0,2e5,1e12\n")
    with pytest.raises(RunLogError, match=r"line 3, column 'run_id': 'p0' is planned twice"):
        load_plan(plan)
    plan.write_text("run_id,params,budget\np0,-4000,1e12\n")
    with pytest.raises(RunLogError, match=r"-4000 is not above 0. Write target size \[count\]\.$"):
        load_plan(plan)


def test_the_published_nethack_log_loads_whole(reference_data):
    runs = load_runs(reference_data / "nethack_il" / "runs.csv")
    assert len(runs) == 197
    assert runs.status.eq("ok").all()
    # Two pairs of rows share run and samples; their budgets differ.
    assert runs.duplicated(["run_id", "samples"]).sum() == 2
    assert len(set(row_keys(runs))) == 197
    episodes = load_episodes(reference_data / "nethack_il" / "episodes.parquet")
    assert len(episodes) == 157_200


def test_the_examples_in_the_docstrings_hold():
    for found in pkgutil.walk_packages(runlog.__path__, "scaling_analysis.runlog."):
        assert doctest.testmod(importlib.import_module(found.name)).failed == 0, found.name
