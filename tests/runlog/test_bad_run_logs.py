"""Every mistake in a run log gets an error that names file, place, column, value and remedy."""

import numpy as np
import pandas as pd
import pytest

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog import load_runs

HEADER = "run_id,params,samples,flops,loss\n"
STATUS_REMEDY = ", or give the row a status: diverged, preempted or excluded."

GOLDEN = {
    "not a number at all": (
        HEADER + "a,1e5,1e6,nan,2\n",
        "runs.csv, line 2, column 'flops': no value (empty or NaN). Write compute spent so far, "
        "counted [FLOP]" + STATUS_REMEDY,
    ),
    "empty cell": (
        HEADER + "a,1e5,1e6,6e11,2\nb,,1e6,6e11,2\n",
        "runs.csv, line 3, column 'params': no value (empty or NaN). Write all trainable "
        "parameters [count]" + STATUS_REMEDY,
    ),
    "infinite": (
        HEADER + "a,1e5,inf,6e11,2\n",
        "runs.csv, line 2, column 'samples': inf is not finite. Write (observation, action) pairs "
        "consumed [count]" + STATUS_REMEDY,
    ),
    "negative, behind blank lines, twice": (
        HEADER + "a,1e5,1e6,6e11,2\n\n\nb,-5,1e6,6e11,2\nc,-5,1e6,6e11,2\n",
        "runs.csv, line 5, column 'params': -5 is not above 0 (and 1 more such rows). Write all "
        "trainable parameters [count]" + STATUS_REMEDY,
    ),
    "zero": (
        HEADER + "a,0,1e6,6e11,2\n",
        "runs.csv, line 2, column 'params': 0 is not above 0. Write all trainable parameters "
        "[count]" + STATUS_REMEDY,
    ),
    "a placeholder": (
        HEADER + "a,1e5,1e6,6e11,1e300\n",
        "runs.csv, line 2, column 'loss': 1e+300 is beyond 1e+60. Write held-out cross-entropy "
        "[nats/action]" + STATUS_REMEDY,
    ),
    "a suffix": (
        HEADER + "a,125M,1e6,6e11,2\n",
        "runs.csv, line 2, column 'params': '125M' is not a number. Write 125000000.",
    ),
    "separators": (
        HEADER + 'a,1e5,"1,000,000",6e11,2\n',
        "runs.csv, line 2, column 'samples': '1,000,000' is not a number. Write 1000000.",
    ),
    "a word": (
        HEADER + "a,large,1e6,6e11,2\n",
        "runs.csv, line 2, column 'params': 'large' is not a number. Write a plain number such as "
        "125000000 or 1.25e8.",
    ),
    "behind a quoted line break": (
        'run_id,note,params,samples,flops,loss\na,"two\nlines",1,1,6,2\nb,,-1,1,6,2\n',
        "runs.csv, line 4, column 'params': -1 is not above 0. Write all trainable parameters "
        "[count]" + STATUS_REMEDY,
    ),
    "half an episode": (
        "run_id,params,samples,flops,mean_return,protocol,episodes\na,1e5,1e6,6e11,2,v1,2.5\n",
        "runs.csv, line 2, column 'episodes': 2.5 is not a whole number. Write evaluation episodes "
        "behind mean_return [count].",
    ),
    "a seed of 64 bits": (
        "run_id,seed,params,samples,flops,loss\na,9223372036854775807,1,1,6,2\n",
        "runs.csv, line 2, column 'seed': 9.22337203685e+18 is beyond 2**53, where integers run "
        "together. Write seed of the run.",
    ),
    "a negative error": (
        "run_id,params,samples,flops,loss,loss_se\na,1e5,1e6,6e11,2,-0.1\n",
        "runs.csv, line 2, column 'loss_se': -0.1 is below 0. Write standard error of the loss "
        "[nats/action].",
    ),
    "an unknown status": (
        "run_id,params,samples,flops,loss,status\na,1e5,1e6,6e11,2,done\n",
        "runs.csv, line 2, column 'status': 'done' is no status. Write one of ok, diverged, "
        "preempted, excluded, duplicate.",
    ),
    "a run without a name": (
        HEADER + "a,1e5,1e6,6e11,2\n,1e5,1e6,6e11,2\n",
        "runs.csv, line 3, column 'run_id': no value (empty or NaN). Name the run, or delete the "
        "column where every row is a run of its own.",
    ),
    "the same checkpoint twice": (
        HEADER + "a,1e5,1e6,6e11,2\nb,1e5,1e6,6e11,2\na,1e5,1e6,6e11,2.5\n",
        "runs.csv, line 2 and runs.csv, line 4: the same checkpoint (run_id=a, samples=1000000.0) "
        "with different loss (2.0 and 2.5). Correct one of them, or give it status excluded. Where "
        "runs were resumed, a folder with one file a run can be imported: import_csv('folder') "
        "takes the later rows.",
    ),
    "a short line": (
        HEADER + "a,1e5,1e6,6e11,2\nb,1e5,1e6\nc,1e5,1e6,6e11,2\n",
        "runs.csv, line 3: 3 fields, the header has 5. Quote fields that hold a comma; delete the "
        "line if a crash tore it.",
    ),
    "a repeated column": (
        "run_id,params,params,flops,loss\na,1e5,1e6,6e11,2\n",
        "runs.csv, line 1: the header names the column 'params' twice. Rename or delete one.",
    ),
    "bars": (
        "run_id|params|samples\na|1|2\n",
        "runs.csv, line 1: the header is one column, 'run_id|params|samples'. Separate the columns "
        "by commas.",
    ),
    "a decimal comma": (
        HEADER + 'a,1e5,1e6,6e11,"0,512"\n',
        "runs.csv, line 2, column 'loss': '0,512' is not a number. Write 0.512, with a decimal "
        "point.",
    ),
    "one comma, decimal or not": (
        "run_id;params;samples;flops;loss\na;1,234;1e6;6e11;2\n",
        "runs.csv, line 2, column 'params': '1,234' is not a number. Write 1.234 if the comma is a "
        "decimal one, 1234 if not.",
    ),
    "commas and points": (
        "run_id;params;samples;flops;loss\na;1,2345;1e6;6e11;2.5\n",
        "runs.csv, line 2, column 'params': '1,2345' is not a number. Write 1.2345, with a decimal "
        "point.",
    ),
    "a percentage": (
        HEADER + "a,1e5,1e6,6e11,12%\n",
        "runs.csv, line 2, column 'loss': '12%' is not a number. Write 0.12.",
    ),
    "commas at the end": (
        HEADER + "a,1e5,1e6,6e11,2,,\n",
        "runs.csv, line 2: 7 fields, the header has 5. Delete the commas at the end of the lines, "
        "or name the columns.",
    ),
    "a title above": (
        "# my runs\n" + HEADER + "a,1e5,1e6,6e11,2\n",
        "runs.csv, line 2: 5 fields, the header has 1. Is '# my runs' no header? Delete what "
        "stands above the column names.",
    ),
    "nothing": (
        "",
        "runs.csv: the file is empty. A run log starts with a line of column names.",
    ),
    "a header alone": (HEADER, "runs.csv: there is a header and no row."),
    "a wide header": (
        ",".join(f"c{i}" for i in range(10_001)) + "\n",
        "runs.csv, line 1: the header names 10001 columns, at most 10000 are read. A run log has "
        "one row a checkpoint: is the table transposed?",
    ),
    "other names": (
        "run,n_params,tokens,val_loss\na,1e5,1e6,2\n",
        "runs.csv: no column 'params' (all trainable parameters) and no column 'samples' "
        "((observation, action) pairs consumed) and no column 'flops' (compute spent so far, "
        "counted). If the names are right, say columns={'params': 'n_params', 'samples': "
        "'tokens', 'run_id': 'run', 'loss': 'val_loss'}. The columns are: run, n_params, tokens, "
        "val_loss. Two of params, samples and flops are needed; the third then follows from "
        "cost_constant=6 (C = 6 N D, right for dense transformers only).",
    ),
    "no result": (
        "run_id,params,samples,flops,test_loss\na,1e5,1e6,6e11,.2\n",
        "runs.csv: no column 'loss' (held-out cross-entropy) and no column 'mean_return' (mean "
        "undiscounted return of the evaluation episodes). If the names are right, say "
        "columns={'loss': 'test_loss'}. The columns are: run_id, params, samples, flops, "
        "test_loss. One of the two is needed.",
    ),
    "a return without a protocol": (
        "run_id,params,samples,flops,mean_return\na,1e5,1e6,6e11,2\n",
        "runs.csv, line 2, column 'protocol': no value (empty or NaN). A mean return needs the "
        'name of its evaluation protocol: add the column, or say protocol="name" for the rows '
        "that have none.",
    ),
    "a newer schema": (
        "run_id,params,samples,flops,loss,schema_version\na,1e5,1e6,6e11,2,7\n",
        "runs.csv: schema_version 7 is newer than 1, the newest known here. Install a newer "
        "scaling-analysis.",
    ),
}


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_messages(tmp_path, monkeypatch, case):
    text, message = GOLDEN[case]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs.csv").write_text(text, encoding="utf-8")
    with pytest.raises(RunLogError) as caught:
        load_runs("runs.csv")
    assert str(caught.value) == message


def test_a_mapped_column_is_named_as_the_file_names_it(tmp_path):
    path = tmp_path / "runs.csv"
    path.write_text("N,samples,flops,loss\n1e5,1,6,2\n-3,1,6,2\n")
    with pytest.raises(RunLogError, match=r"line 3, column 'N' \(read as 'params'\): -3 is not"):
        load_runs(path, columns={"params": "N"})


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (True, "'True' is not a number"),
        (pd.Timestamp("2024-01-01"), "'2024-01-01 00:00:00' is not a number"),
        (1 + 2j, "is not a number"),
        ("1_000", "'1_000' is not a number. Write 1000"),
        (np.nan, "no value"),
        (None, "no value"),
        ("", "no value"),
    ],
)
def test_cells_of_a_table_in_memory(cell, message):
    log = pd.DataFrame(
        {"params": [1e5, cell], "samples": 1.0, "flops": 6.0, "loss": 2.0}, dtype=object
    )
    with pytest.raises(RunLogError, match=r"table, row 1 \(counted from 0\), column 'params'.*"):
        load_runs(log)
    with pytest.raises(RunLogError, match=message):
        load_runs(log)


def test_second_of_several_sources_is_named(tmp_path):
    good = pd.DataFrame({"params": [1e5], "samples": 1.0, "flops": 6.0, "loss": 2.0})
    with pytest.raises(RunLogError, match="table 2, row 0"):
        load_runs([good, good.assign(params=-1.0)])
    path = tmp_path / "more.csv"
    good.assign(run_id="a").to_csv(path, index=False)
    with pytest.raises(RunLogError, match=r"table 1, row 0 .* and .*more.csv, line 2: the same"):
        load_runs([good.assign(run_id="a", loss=3.0), path])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("runs.jsonl", "", "the file is empty"),
        ("runs.jsonl", '{"params": 1}\n{"params": \n{"params": 2}\n', "line 2: not JSON"),
        ("runs.jsonl", '[1, 2]\n{"a": 1}\n', r"line 1: holds '\[1, 2\]'; each line of a run log"),
        ("runs.parquet", "not parquet", "cannot be read as Parquet"),
        ("runs.xlsx", "x", "cannot tell the format from the name. Save the sheet as CSV"),
        ("runs.csv.gz", "x", r"Unpack it first \(gunzip\)"),
        ("runs.json", "x", "Write one object a line, as .jsonl"),
        ("runs.doc", "x", "cannot tell the format from the name. Use one of .csv"),
        (
            "runs.csv",
            b"run_id,params\ncaf\xe9,1\n",
            r"line 2: .*caf\\xe9.* not UTF-8 text .* UTF-8",
        ),
    ],
)
def test_files_that_are_no_run_log(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RunLogError, match=message):
        load_runs(path)


def test_places_of_other_formats(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(
        '{"params": 1, "samples": 1, "flops": 6, "loss": 2}\n\n'
        '{"params": 0, "samples": 1, "flops": 6, "loss": 2}\n'
    )
    with pytest.raises(RunLogError, match="line 3, column 'params': 0 is not above 0"):
        load_runs(path)
    table = tmp_path / "runs.parquet"
    pd.DataFrame({"params": [1.0, 0.0], "samples": 1.0, "flops": 6.0, "loss": 2.0}).to_parquet(
        table
    )
    with pytest.raises(RunLogError, match=r"runs.parquet, row 1 \(counted from 0\)"):
        load_runs(table)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"columns": {"parmas": "params"}}, "the schema has no column 'parmas'. Did you mean 'par"),
        ({"columns": {"budget": "flop"}}, "no column 'flop' to read as 'budget'. Did you mean 'fl"),
        ({"columns": {"params": "samples"}}, "there is a column 'params' too"),
        ({"cost_constant": -6}, "cost_constant=-6: k of C = k N D is a positive number"),
        ({"where": "lss > 1"}, "where='lss > 1': name 'lss' is not defined"),
        ({"where": "loss + 1"}, "does not give true or false for every row"),
        ({"exclude": {"run-1": "x"}}, "no run 'run-1' in the log. Close to it: run-0"),
        ({"exclude": {"x": "y"}}, "no run 'x' in the log. It has: run-0"),
        ({"agent": "lstm"}, "the run log has no column 'agent'"),
    ],
)
def test_arguments_that_do_not_fit(arguments, message):
    log = pd.DataFrame(
        {"run_id": ["run-0"], "params": [1e5], "samples": 1.0, "flops": 6.0, "loss": 2.0}
    )
    with pytest.raises(RunLogError, match=message):
        load_runs(log, **arguments)


@pytest.mark.parametrize("source", [[], {"params": [1]}, 3])
def test_sources_that_are_none(source):
    with pytest.raises(RunLogError, match=r"no run log was given|is no table"):
        load_runs(source)


def test_folders_and_missing_files(tmp_path):
    (tmp_path / "runs.csv").write_text(HEADER)
    with pytest.raises(RunLogError, match=r"no such file. The folder holds runs.csv"):
        load_runs(tmp_path / "runz.csv")
    with pytest.raises(RunLogError, match="is a folder"):
        load_runs(tmp_path)


def test_wide_tables_in_memory():
    with pytest.raises(RunLogError, match="names 10001 columns, at most 10000"):
        load_runs(pd.DataFrame(np.ones((1, 10_001))))
    levels = pd.DataFrame([[1.0]], columns=pd.MultiIndex.from_tuples([("a", "b")]))
    with pytest.raises(RunLogError, match="the columns have 2 levels"):
        load_runs(levels)
