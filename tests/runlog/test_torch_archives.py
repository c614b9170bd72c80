"""Archives of torch.save, read without torch; the published data of Tuyls et al."""

import contextlib
import io
import json
import pickle
import subprocess
import sys
import zipfile
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scaling_analysis.errors import RunLogError
from scaling_analysis.runlog import load_episodes
from scaling_analysis.runlog.importing import import_il_scaling
from scaling_analysis.runlog.importing.torch_archive import read_torch_archive


class Tensor:
    """A tensor to be written: contiguous values with a storage of their own."""

    def __init__(self, values):
        self.values = np.asarray(values)


_STORAGE = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage", "b1": "BoolStorage"}


def torch_module():
    """A stand-in for torch, so that a pickle names its classes without torch being there."""
    import types

    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in _STORAGE.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2(*_):
        raise NotImplementedError

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    torch._utils = utils
    return {"torch": torch, "torch._utils": utils}


def save(value, path, monkeypatch):
    """What torch.save writes: a zip of a pickle and the bytes of each storage."""
    modules = torch_module()
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    storages = []

    class Storage:
        def __init__(self, values):
            self.values = values

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj):
            if not isinstance(obj, Storage):
                return None
            storages.append(obj.values)
            code = obj.values.dtype.str[1:]
            kind = getattr(modules["torch"], _STORAGE[code])
            return ("storage", kind, str(len(storages) - 1), "cuda:0", obj.values.size)

        def reducer_override(self, obj):
            if not isinstance(obj, Tensor):
                return NotImplemented
            values = obj.values
            stride = tuple(step // values.itemsize for step in values.strides)
            arguments = (Storage(values.ravel()), 0, values.shape, stride, False, OrderedDict())
            return modules["torch._utils"]._rebuild_tensor_v2, arguments

    data = io.BytesIO()
    Pickler(data, protocol=2).dump(value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data.getvalue())
        archive.writestr("archive/byteorder", "little")
        for number, values in enumerate(storages):
            archive.writestr(f"archive/data/{number}", values.tobytes())
        archive.writestr("archive/version", "3\n")
    for name in modules:
        monkeypatch.delitem(sys.modules, name)
    return path


def test_tensors_numbers_and_containers(tmp_path, monkeypatch):
    table = defaultdict(dict)
    table["1e13"][2111] = Tensor(np.float32(1.25))
    table["1e13"][6705] = np.float64(0.1)
    value = {
        "table": table,
        "matrix": Tensor(np.arange(6.0).reshape(2, 3)),
        "flags": Tensor(np.array([True, False])),
        "count": Tensor(np.int64(7)),
        "array": np.arange(3, dtype=np.int16),
        "rest": [None, True, 2.5, "text", (1, 2), OrderedDict(a=1)],
    }
    read = read_torch_archive(save(value, tmp_path / "x.tar", monkeypatch))
    assert read["table"] == {"1e13": {2111: 1.25, 6705: 0.1}}
    np.testing.assert_array_equal(read["matrix"], np.arange(6.0).reshape(2, 3))
    np.testing.assert_array_equal(read["flags"], [True, False])
    assert read["count"] == 7
    np.testing.assert_array_equal(read["array"], [0, 1, 2])
    assert read["array"].dtype == np.int16
    assert read["rest"] == [None, True, 2.5, "text", (1, 2), {"a": 1}]


def test_archives_that_torch_itself_wrote(tmp_path):
    torch = pytest.importorskip("torch")
    value = defaultdict(dict)
    value["1e13"][5] = torch.tensor(0.75)
    value["1e13"][6] = torch.arange(12.0).reshape(3, 4).t()[1:, ::2]  # a view with strides
    value["half"] = torch.tensor([1.5, -2.0], dtype=torch.bfloat16)
    value["parameter"] = torch.nn.Parameter(torch.ones(2))
    path = tmp_path / "x.tar"
    torch.save(value, path)
    read = read_torch_archive(path)
    assert read["1e13"][5] == 0.75
    np.testing.assert_array_equal(read["1e13"][6], value["1e13"][6].numpy())
    np.testing.assert_array_equal(read["half"], [1.5, -2.0])
    np.testing.assert_array_equal(read["parameter"], [1, 1])


class Runs:
    """A pickle that would write a file if it were obeyed."""

    def __init__(self, call, *arguments):
        self.call = call, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("hostile", "named"),
    [
        (lambda mark: Runs(__import__("os").system, f"touch {mark}"), "posix.system"),
        (lambda mark: Runs(eval, f"open({str(mark)!r}, 'w')"), "builtins.eval"),
        (lambda mark: Runs(getattr, dict, "get"), "builtins.getattr"),
        (lambda mark: Runs(np.load, str(mark)), "numpy.load"),
        (lambda mark: Runs(bytearray, 10**12), "builtins.bytearray"),
    ],
)
def test_a_pickle_that_calls_anything_else_is_refused_by_name(
    tmp_path, monkeypatch, hostile, named
):
    mark = tmp_path / "mark"
    path = save({"loss": [hostile(mark)]}, tmp_path / "x.tar", monkeypatch)
    with pytest.raises(RunLogError, match=rf"x.tar: its pickle asks for '{named}', which is nei"):
        read_torch_archive(path)
    assert not mark.exists()


def write_pickle(path, code: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", code)
        archive.writestr("a/data/0", np.zeros(4, "f4").tobytes())
    return path


def rebuild(offset, size, stride, count=4) -> bytes:
    """A pickle of _rebuild_tensor_v2(storage of 4 floats, offset, size, stride, False, {})."""
    stored = pickle.dumps(("storage", 0, "0", "cpu", count), protocol=2)[2:-1]
    stored = stored.replace(b"K\x00", b"ctorch\nFloatStorage\n", 1)
    parts = b"".join(pickle.dumps(part, protocol=2)[2:-1] for part in (offset, size, stride))
    return b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + stored + b"Q" + parts + b"\x89}tR."


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (rebuild(0, (5,), (1,)), "reaches beyond its storage"),
        (rebuild(2, (2,), (2,)), "reaches beyond its storage"),
        (rebuild(-1, (2,), (1,)), "a negative or incomplete shape"),
        (rebuild(0, (-2,), (1,)), "a negative or incomplete shape"),
        (rebuild(0, (2, 2), (1,)), "a negative or incomplete shape"),
        (rebuild(0, (10**9,), (0,)), "far larger than its storage"),
        (rebuild(0, (2,), (1,), count=400), "its pickle is malformed"),
        (b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00O8tR.", "holds a _Dtype"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x05\x00\x00\x00_callK\x01sb.",
            "malformed",
        ),
        (b"\x80\x02cbuiltins\ndict\n.", "holds a type"),
        (b"\x80\x02]q\x00h\x00a.", "nested deeper"),
        (b"garbage", "malformed"),
        (b"", "malformed"),
    ],
)
def test_malformed_pickles_are_errors(tmp_path, code, message):
    with pytest.raises(RunLogError, match=message):
        read_torch_archive(write_pickle(tmp_path / "x.tar", code))


def test_a_stand_in_cannot_be_changed_by_a_pickle(tmp_path):
    """BUILD on a callable of ours must not leave anything behind for the next archive."""
    poison = b"\x80\x02cnumpy\ndtype\n}X\x05\x00\x00\x00_callcbuiltins\nlist\nsb."
    with pytest.raises(RunLogError, match="malformed"):
        read_torch_archive(write_pickle(tmp_path / "x.tar", poison))
    good = write_pickle(tmp_path / "y.tar", rebuild(0, (2, 2), (2, 1)))
    np.testing.assert_array_equal(read_torch_archive(good), np.zeros((2, 2)))


@given(st.binary(max_size=60))
def test_no_bytes_do_anything_but_fail_or_be_data(code):
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("a/data.pkl", b"\x80\x02" + code + b".")
    archive.seek(0)
    with contextlib.suppress(RunLogError):
        read_torch_archive(archive)


def test_files_that_are_no_archive(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(b"plain text")
    with pytest.raises(RunLogError, match=r"not a zip archive of torch.save"):
        read_torch_archive(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme", "")
    with pytest.raises(RunLogError, match=r"holds 0 files named data.pkl"):
        read_torch_archive(path)


# --- the published layout ----------------------------------------------------------------------


@pytest.fixture
def clone(tmp_path, monkeypatch):
    """A small clone of the repository, in its layout and formats."""
    atari = tmp_path / "experiment_data" / "atari"
    for kind, factor in (("eval_loss", 1.0), ("eval_return", 10.0), ("flop_params_to_samples", 0)):
        (atari / kind).mkdir(parents=True)
        table = defaultdict(dict)
        for budget in ("1e13", "2e13"):
            for params in (2111, 6705):
                value = factor + params / 1e4
                table[budget][params] = (
                    int(float(budget) / params / 5000) if not factor else Tensor(np.float32(value))
                )
        if kind == "eval_loss":
            table["5e13"][2111] = Tensor(np.float32(0.5))  # no sample count is published for it
        save(table, atari / kind / f"{kind}_BattleZone.tar", monkeypatch)
    repeat = {"1e13": {2111: 11.5}}
    save(repeat, atari / "eval_return" / "eval_return_BattleZone_3.tar", monkeypatch)
    run = tmp_path / "experiment_data" / "nethack" / "llama_iso_flop" / "51ju4o92"
    run.mkdir(parents=True)
    for budget, loss in (("1e14", 1.25), ("2e14", 1.0)):
        result = {
            "num_params": 188_793,
            "num_samples": int(float(budget) / (6 * 188_793)),
            "dev_loss": Tensor(loss + np.array([-0.5, 0.0, 0.5])),
        }
        save(result, run / f"eval_loss_overlap_0_model_{budget}.tar", monkeypatch)
        (run / f"eval_returns_model_{budget}.txt").write_text("15.0\n16.0\n44.0\n")
        (run / f"eval_lens_model_{budget}.txt").write_text("4849\n15174\n19460\n")
    (tmp_path / "experiment_data" / "nethack" / "llama_depth_vs_width").mkdir()
    return tmp_path


NAMES = {
    "params": "num_params",
    "samples": "num_samples",
    "loss": "dev_loss.mean",
    "loss_se": "dev_loss.se",
}


def test_the_published_layout(clone):
    imported = import_il_scaling(clone, columns=NAMES, cost_constant=6)
    runs = imported.runs
    atari = runs[runs.task == "BattleZone"].set_index(["run_id", "budget"])
    row = atari.loc[("BattleZone-2111", 1e13)]
    assert row.loss == pytest.approx(1.2111)
    assert row.mean_return == pytest.approx(10.2111)
    assert row.samples == int(1e13 / 2111 / 5000)
    assert row.flops == 1e13
    repeat = atari.loc[("BattleZone-2111-seed3", 1e13)]
    assert repeat.mean_return == 11.5
    assert np.isnan(repeat.loss)
    assert repeat.samples == row.samples
    left_out = atari.loc[("BattleZone-2111", 5e13)]
    assert (left_out.status, left_out.note) == ("excluded", "no sample count published")
    nethack = runs[runs.task == "nethack"]
    assert list(nethack.run_id) == ["51ju4o92", "51ju4o92"]
    assert list(nethack.budget) == [1e14, 2e14]
    assert list(nethack.loss) == [1.25, 1.0]
    assert nethack.loss_se.iloc[0] == pytest.approx(0.5 / np.sqrt(3))
    assert nethack.mean_return.iloc[0] == pytest.approx(25)
    assert list(nethack.episodes) == [3, 3]
    episodes = load_episodes(imported.episodes)
    assert len(episodes) == 6
    assert list(episodes["length"][:3]) == [4849, 15174, 19460]
    assert set(imported.messages) >= {
        "Atari: flops are the nominal budgets, as published",
        "Atari: 1 rows have no sample count: excluded",
        "NetHack: llama_depth_vs_width is no isoFLOP sweep, not read",
    }


def test_names_in_the_archives_are_questions(clone):
    with pytest.raises(RunLogError) as caught:
        import_il_scaling(clone, cost_constant=6)
    text = str(caught.value)
    assert "'params': 'num_params'" in text
    assert "'samples': 'num_samples'" in text


def test_one_half_of_the_data_is_enough(clone):
    import shutil

    shutil.rmtree(clone / "experiment_data" / "nethack")
    runs = import_il_scaling(clone / "experiment_data").runs
    assert set(runs.agent) == {"bc-cnn"}
    assert len(runs) == 6
    shutil.rmtree(clone / "experiment_data" / "atari")
    with pytest.raises(RunLogError, match="Name a clone of princeton-nlp/il-scaling-in-games"):
        import_il_scaling(clone)


def test_defects_of_the_files_are_named(clone, monkeypatch):
    run = clone / "experiment_data" / "nethack" / "llama_iso_flop" / "51ju4o92"
    (run / "eval_lens_model_1e14.txt").write_text("1\n2\n")
    with pytest.raises(RunLogError, match=r"eval_lens_model_1e14.txt: 2 lengths for 3 returns"):
        import_il_scaling(clone, columns=NAMES, cost_constant=6)
    (run / "eval_returns_model_1e14.txt").write_text("1\nx\n")
    with pytest.raises(RunLogError, match=r"eval_returns_model_1e14.txt, line 2: 'x' is not a num"):
        import_il_scaling(clone, columns=NAMES, cost_constant=6)
    atari = clone / "experiment_data" / "atari" / "eval_loss" / "eval_loss_BattleZone.tar"
    save([1, 2], atari, monkeypatch)
    with pytest.raises(RunLogError, match=r"expected \{budget: \{params: value\}\}"):
        import_il_scaling(clone, columns=NAMES, cost_constant=6)
    save({"1e13": Runs(json.loads, "1")}, atari, monkeypatch)
    with pytest.raises(RunLogError, match=r"asks for 'json.loads'.*Refused, nothing was run"):
        import_il_scaling(clone, columns=NAMES, cost_constant=6)


def test_torch_is_not_loaded(clone):
    code = (
        "import sys, scaling_analysis as sa\n"
        f"sa.import_il_scaling({str(clone)!r}, columns={NAMES!r}, cost_constant=6)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
