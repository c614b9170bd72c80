"""Importers: other tools' files become run logs, and no name is guessed in silence."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog import append_run, load_runs, write_runs
from scaling_analysis.runlog.importing import (
    import_csv,
    import_jsonl,
    import_tensorboard,
    import_wandb,
)

# --- CSV ---------------------------------------------------------------------------------------


def test_mapped_scaled_and_completed(tmp_path):
    path = tmp_path / "sweep.csv"
    path.write_text("name,size (M),tokens,val,lr\n007,1.5,2e7,3.1,1e-3\n008,3,2e7,2.9,1e-3\n")
    imported = import_csv(
        path,
        columns={"run_id": "name", "params": "size (M)", "samples": "tokens", "loss": "val"},
        scale={"params": 1e6},
        constants={"task": "text", "agent": "lstm"},
        cost_constant=6,
    )
    runs = imported.runs
    assert list(runs.run_id) == ["007", "008"]
    assert list(runs.params) == [1.5e6, 3e6]
    assert list(runs.flops) == [1.8e14, 3.6e14]
    assert list(runs.derived) == ["flops", "flops"]
    assert set(runs.task) == {"text"}
    assert imported.used == {
        "run_id": "name",
        "params": "size (M)",
        "samples": "tokens",
        "loss": "val",
    }
    assert imported.unused == ("lr",)
    assert imported.messages == (
        "not read, to confirm: learning_rate=lr (looks like 'learning_rate')",
    )
    # What was imported is a run log like any other.
    pd.testing.assert_frame_equal(
        load_runs(write_runs(runs, tmp_path / "runs.csv"))[list(runs)], runs
    )


QUESTIONS = """\
sweep.csv: the names of these columns must be confirmed:
  params (all trainable parameters): n_params
  samples ((observation, action) pairs consumed): tokens; or examples
  flops (compute spent so far, counted): no guess
  loss (held-out cross-entropy): loss; or val_loss
  run_id (one training run; the unit that is resampled): run
If the guesses are right, say columns={'params': 'n_params', 'samples': 'tokens', 'loss': 'loss', \
'run_id': 'run'}.
To compute flops from the other two, say cost_constant=6 (C = 6 N D, right for dense \
transformers only).
The columns are: run, n_params, tokens, examples, loss, val_loss.
For other units, such as millions, say scale={'params': 1e6}."""


HISTORY = {"params": "size", "samples": "tokens", "loss": "val"}


def histories(folder, count=2):
    """Files of a run each, as trackers export them: results now and then, and a resume."""
    folder.mkdir()
    for k in range(count):
        lines = [
            "tokens,size,val,lr",
            "1e6,,,3e-4",
            f"1e6,{k + 1}e5,3.{k},3e-4",
            "2e6,,2.9,2e-4",
            "2e6,,2.8,2e-4",
        ]
        (folder / f"run{k}.csv").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("listed", [False, True])
def test_a_folder_of_csv_with_one_file_a_run(listed, tmp_path):
    folder = histories(tmp_path / "runs")
    source = sorted(folder.iterdir()) if listed else folder
    imported = import_csv(source, HISTORY, cost_constant=6)
    runs = imported.runs
    assert list(runs.run_id) == ["run0", "run0", "run1", "run1"]
    assert list(runs.params) == [1e5, 1e5, 2e5, 2e5]
    assert list(runs.loss) == [3.0, 2.8, 3.1, 2.8]  # of what was written twice the later line
    said = "\n".join(imported.messages)
    assert "run_id: the names of 2 files, each taken for a run" in said
    assert "run1.csv: 1 checkpoints were written again, as after a resume" in said
    assert "run1.csv: 1 of 4 lines hold no val" in said


def test_what_is_said_of_many_files_is_said_once(tmp_path):
    imported = import_csv(histories(tmp_path / "runs", 9), HISTORY, cost_constant=6)
    assert sum("lines hold no val" in said for said in imported.messages) == 1
    assert any("(the like of 8 more files)" in said for said in imported.messages)


def test_files_of_several_sizes_are_tables_of_runs(tmp_path):
    text = "params,samples,flops,loss\n1e5,1e6,6e11,3\n2e5,1e6,12e11,2\n"
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text(text.replace("1e6", f"{ord(name)}e6"))
    runs = import_csv(tmp_path).runs
    assert runs.run_id.nunique() == 4
    assert runs.run_id.str.startswith("row-").all()


def test_files_of_one_name_are_told_apart_by_their_folder(tmp_path):
    for name in ("a", "b"):
        (histories(tmp_path / name, 1) / "run0.csv").rename(tmp_path / name / "history.csv")
    files = [tmp_path / name / "history.csv" for name in ("a", "b")]
    with pytest.raises(RunLogError, match="2 files would name their runs the same, 'history'"):
        import_csv(files, HISTORY, cost_constant=6)
    runs = import_csv(tmp_path, HISTORY, cost_constant=6).runs
    assert list(runs.run_id.unique()) == ["a/history", "b/history"]


def test_returns_ask_for_their_protocol(tmp_path):
    path = tmp_path / "returns.csv"
    path.write_text("params,samples,flops,mean_return\n1e5,1e6,6e11,30\n")
    with pytest.raises(RunLogError, match=r"Say constants=\{'protocol': 'v1'\}"):
        import_csv(path)
    assert import_csv(path, constants={"protocol": "v1"}).runs.protocol.tolist() == ["v1"]


def test_exports_without_runs_are_named_for_what_they_are(tmp_path):
    (tmp_path / "chart.csv").write_text("Step,a - loss,a - loss__MIN,a - loss__MAX\n1,2,2,2\n")
    with pytest.raises(RunLogError, match="export of a chart"):
        import_csv(tmp_path / "chart.csv")
    with pytest.raises(RunLogError, match="hold one curve and neither size nor samples"):
        import_tensorboard(tmp_path)
    with pytest.raises(RunLogError, match=r"exported as CSV, one a run, are read by import_csv\("):
        import_wandb(tmp_path)


def test_uncertain_names_are_questions(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "sweep.csv"
    path.write_text("run,n_params,tokens,examples,loss,val_loss\na,1,2,3,4,5\n")
    with pytest.raises(RunLogError) as caught:
        import_csv("sweep.csv")
    assert str(caught.value) == QUESTIONS
    with pytest.raises(RunLogError, match="confirmed") as caught:
        import_csv("sweep.csv", cost_constant=6)
    assert "flops" not in str(caught.value)
    imported = import_csv(
        path,
        columns={"params": "n_params", "samples": "tokens", "loss": "val_loss"},
        cost_constant=6,
    )
    assert imported.runs.loss[0] == 5
    assert "'loss' of the source is not kept: loss=val_loss" in imported.messages
    confirmed = {"params": "n_params", "samples": "tokens", "loss": "loss"}
    assert import_csv(path, columns=confirmed, cost_constant=6).runs.loss[0] == 4


def test_a_single_missing_count_may_be_computed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sweep.csv").write_text("params,samples,loss\n1,2,3\n")
    with pytest.raises(
        RunLogError, match=r"(?s)flops \(compute.*\): no guess\n.*To compute flops from"
    ):
        import_csv("sweep.csv")
    assert import_csv("sweep.csv", cost_constant=6).runs.flops[0] == 12


def test_sizes_beside_core_sizes_are_not_ambiguous(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("params,params_core,samples,flops,budget,loss\n10,8,1,60,60,2\n")
    assert import_csv(path).runs.params_core[0] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scale": {"params": 0}}, "a scale is a positive number"),
        ({"scale": {"agent": 2}}, "no number is read as 'agent'"),
        ({"constants": {"params": 3}}, "'params' is given as a constant and stands in a column"),
        ({"columns": {"loss": "nll"}}, "no column 'nll' to read as 'loss'"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, arguments, message):
    path = tmp_path / "runs.csv"
    path.write_text("params,samples,flops,val\n10,1,60,2\n")
    with pytest.raises(RunLogError, match=message):
        import_csv(path, **{"columns": {"loss": "val"}} | arguments)


def test_a_bad_cell_is_named_by_file_and_line(tmp_path):
    good, bad = tmp_path / "good.csv", tmp_path / "bad.csv"
    good.write_text("N,samples,flops,loss\n10,1,60,2\n")
    bad.write_text("N,samples,flops,loss\n10,1,60,2\n10M,1,60,2\n")
    with pytest.raises(RunLogError, match=r"bad.csv, line 3, column 'N' .*: '10M' is not a number"):
        import_csv([good, bad], columns={"params": "N"})


# --- JSON lines --------------------------------------------------------------------------------


def test_a_folder_of_json_lines(tmp_path):
    for name, params in (("small", 1e4), ("deep/large", 1e5)):
        path = tmp_path / f"{name}.jsonl"
        path.parent.mkdir(exist_ok=True)
        lines = [
            {"n_params": params, "lr": 1e-3},
            {"step": 1, "tokens": 10, "train": 3.0},
            {"step": 2, "tokens": 20, "train": 2.5, "eval": 2.75},
            {"step": 4, "tokens": 40, "train": 2.0, "eval": 2.25},
        ]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    imported = import_jsonl(
        tmp_path,
        columns={
            "params": "n_params",
            "samples": "tokens",
            "loss": "eval",
            "learning_rate": "lr",
        },
        cost_constant=6,
    )
    runs = imported.runs
    assert list(runs.run_id) == ["deep/large", "deep/large", "small", "small"]
    assert list(runs.params) == [1e5, 1e5, 1e4, 1e4]
    assert list(runs.samples) == [20, 40, 20, 40]
    assert set(runs.learning_rate) == {1e-3}
    large = tmp_path / "deep" / "large.jsonl"
    assert f"{large}: one value a run, taken for all its rows: n_params, lr" in imported.messages
    assert (
        f"{large}: 2 of 4 lines hold no eval: no evaluated checkpoint, left out"
        in imported.messages
    )


def test_our_own_log_needs_no_mapping(tmp_path):
    for seed in range(2):
        append_run(
            tmp_path / f"{seed}.jsonl",
            run_id=f"r{seed}",
            params=10,
            samples=5,
            flops=300,
            loss=2.0 + seed,
            seed=seed,
        )
    assert list(import_jsonl(tmp_path).runs.run_id) == ["r0", "r1"]


def test_a_run_without_a_result_is_left_out_and_said(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"params": 1, "samples": 1, "flops": 6, "loss": 2}\n')
    (tmp_path / "b.jsonl").write_text('{"params": 1, "samples": 1, "flops": 6}\n')
    imported = import_jsonl(tmp_path)
    assert list(imported.runs.run_id) == ["a"]
    assert any("b.jsonl: no loss or mean_return in it" in said for said in imported.messages)
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(RunLogError, match=r"loss \(held-out cross-entropy\): no guess"):
        import_jsonl(tmp_path)
    with pytest.raises(RunLogError, match=r"empty: no such file or folder"):
        import_jsonl(tmp_path / "empty")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunLogError, match=r"no .jsonl or .ndjson file"):
        import_jsonl(tmp_path / "empty")


# --- Weights & Biases --------------------------------------------------------------------------


def test_a_runs_table(tmp_path):
    path = tmp_path / "export.csv"
    path.write_text(
        '"Name","ID","State","Created","n_params","tokens","eval/loss"\n'
        '"swift-sun-1","a1b2","finished","2024-01-01","10000","1e6","2.5"\n'
        '"calm-sea-2","007","crashed","2024-01-02","20000","5e5",""\n'
    )
    imported = import_wandb(
        path,
        columns={"run_id": "ID", "params": "n_params", "samples": "tokens", "loss": "eval/loss"},
        cost_constant=6,
    )
    runs = imported.runs
    assert list(runs.run_id) == ["a1b2", "007"]
    assert list(runs.status) == ["ok", "preempted"]
    assert runs.note[1] == "W&B state crashed"
    assert "1 row with state crashed: status preempted" in imported.messages
    with pytest.raises(RunLogError, match=r"(?s)loss \(held-out.*'loss': 'eval/loss'"):
        import_wandb(path, columns={"params": "n_params", "samples": "tokens"}, cost_constant=6)


def test_a_chart_export_is_refused(tmp_path):
    path = tmp_path / "chart.csv"
    path.write_text('"Step","a - eval/loss","a - eval/loss__MIN","a - eval/loss__MAX"\n1,2,2,2\n')
    with pytest.raises(RunLogError, match=r"export of a chart .*Export the table of runs"):
        import_wandb(path)


def make_run_directory(folder, run, params, loss):
    files = folder / run / "files"
    files.mkdir(parents=True)
    (files / "wandb-summary.json").write_text(
        json.dumps({"eval": {"loss": loss}, "tokens": 1e6, "_wandb": {"runtime": 12}, "h": [1, 2]})
    )
    (files / "config.yaml").write_text(
        "wandb_version: 1\n\n_wandb:\n  desc: null\n  value:\n    cli_version: 0.16\n"
        f"model:\n  desc: null\n  value:\n    n_params: {params}\n"
    )


def test_run_directories(tmp_path):
    make_run_directory(tmp_path / "wandb", "run-20240101_120000-a1b2", 10000, 2.5)
    make_run_directory(tmp_path / "wandb", "offline-run-20240101_130000-c3d4", 20000, 2.25)
    columns = {
        "params": "config.model.n_params",
        "samples": "summary.tokens",
        "loss": "summary.eval.loss",
    }
    imported = import_wandb(tmp_path / "wandb", columns=columns, cost_constant=6)
    assert dict(zip(imported.runs.run_id, imported.runs.loss, strict=True)) == {
        "a1b2": 2.5,
        "c3d4": 2.25,
    }
    assert "the history in the .wandb files is not read" in imported.messages[0]
    named = tmp_path / "wandb" / "run-20240101_120000-a1b2"
    (named / "run-z9.wandb").write_bytes(b"")
    assert import_wandb(named, columns=columns, cost_constant=6).runs.run_id[0] == "z9"
    with pytest.raises(RunLogError, match="no such file or folder"):
        import_wandb(tmp_path / "wanbd")
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunLogError, match="no run directory in it"):
        import_wandb(tmp_path / "empty")
    (named / "files" / "wandb-summary.json").write_text("{")
    with pytest.raises(RunLogError, match=r"wandb-summary.json: not JSON"):
        import_wandb(named)


# --- TensorBoard -------------------------------------------------------------------------------


def write_events(folder, params, tensors=False):
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
    from tensorboard.summary.writer.event_file_writer import EventFileWriter
    from tensorboard.util.tensor_util import make_tensor_proto

    folder.mkdir(parents=True)
    writer = EventFileWriter(str(folder))

    def scalar(tag, step, value):
        if tensors:
            metadata = SummaryMetadata(
                plugin_data=SummaryMetadata.PluginData(plugin_name="scalars"),
                data_class="DATA_CLASS_SCALAR",
            )
            proto = make_tensor_proto(np.float32(value))
            entry = Summary.Value(tag=tag, tensor=proto, metadata=metadata)
        else:
            entry = Summary.Value(tag=tag, simple_value=value)
        writer.add_event(Event(step=step, wall_time=100.0 + step, summary=Summary(value=[entry])))

    scalar("model/params", 0, params)
    for step in range(1, 9):
        scalar("train/loss", step, 4.0 / step)
        if step % 4 == 0:
            scalar("eval/loss", step, 2.0 + 1.0 / step)
    writer.close()


@pytest.mark.parametrize("tensors", [False, True])
def test_event_files(tmp_path, tensors):
    pytest.importorskip("tensorboard")
    write_events(tmp_path / "sweep" / "a", 1024, tensors)
    write_events(tmp_path / "sweep" / "b" / "0", 4096, tensors)
    imported = import_tensorboard(
        tmp_path / "sweep",
        columns={"params": "model/params", "samples": "step", "loss": "eval/loss"},
        scale={"samples": 64},
        cost_constant=6,
    )
    runs = imported.runs
    assert list(runs.run_id) == ["a", "a", "b/0", "b/0"]
    assert list(runs.params) == [1024, 1024, 4096, 4096]
    assert list(runs.samples) == [256, 512, 256, 512]
    assert list(runs.loss) == [2.25, 2.125, 2.25, 2.125]
    assert any("7 of 9 lines hold no eval/loss" in said for said in imported.messages)
    with pytest.raises(RunLogError, match="'loss': 'eval/loss'"):
        import_tensorboard(tmp_path / "sweep", columns={"params": "model/params"})


def test_folders_without_events(tmp_path):
    with pytest.raises(RunLogError, match="no event file in it"):
        import_tensorboard(tmp_path)


def test_the_missing_extra_is_named(tmp_path, monkeypatch):
    (tmp_path / "events.out.tfevents.1").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "tensorboard.backend.event_processing", None)
    with pytest.raises(RunLogError, match=r"pip install 'scaling-analysis\[import\]'"):
        import_tensorboard(tmp_path)


def test_importers_load_no_training_stack():
    code = (
        "import sys, scaling_analysis as sa\n"
        "sa.import_csv, sa.import_il_scaling, sa.import_tensorboard\n"
        "print([name for name in ('torch', 'tensorboard', 'yaml', 'nle') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
