"""Reading `torch.save` archives without torch, and without running what a pickle may ask for.

A pickle is a program. This reader builds numbers, containers and arrays; any other object that the
pickle names is refused, by name.
"""

import io
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from scaling_analysis.errors import RunLogError

MAX_BYTES = 2**30
"""Larger members of an archive are refused: no experiment table needs them."""
_MAX_DEPTH = 50

_STORAGES = {
    "DoubleStorage": "f8",
    "FloatStorage": "f4",
    "HalfStorage": "f2",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "i8",
    "IntStorage": "i4",
    "ShortStorage": "i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}


def read_torch_archive(path: Path) -> Any:
    """The object in a zip archive of `torch.save`: numbers, strings, containers, numpy arrays.

    Raises
    ------
    RunLogError
        If the file is no such archive, or its pickle names anything but tensors and containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if len(pickles) != 1:
                raise RunLogError(
                    f"{path}: holds {len(pickles)} files named data.pkl; an archive of torch.save "
                    "holds one."
                )
            folder = pickles[0].removesuffix("data.pkl")

            def member(name: str) -> bytes:
                if archive.getinfo(name).file_size > MAX_BYTES:
                    raise RunLogError(f"{path}: {name} is larger than {MAX_BYTES} bytes.")
                return archive.read(name)

            order = f"{folder}byteorder"
            swap = order in archive.namelist() and member(order).strip() == b"big"
            reader = _Reader(path, member(pickles[0]), lambda key: member(f"{folder}data/{key}"))
            reader.byte_order = ">" if swap else "<"
            return _plain(path, reader.load())
    except (zipfile.BadZipFile, KeyError) as error:
        raise RunLogError(f"{path}: not a zip archive of torch.save ({error}).") from error
    except RunLogError:
        raise
    # A malformed pickle fails in many ways, all of them a defect of the file.
    except Exception as error:
        raise RunLogError(
            f"{path}: its pickle is malformed ({type(error).__name__}: {error})."
        ) from error


class _Sealed:
    """A callable of ours that a pickle may call but not change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise TypeError("a pickle may not change what it calls")


class _Storage:
    """Bytes of a tensor with their type."""

    __slots__ = ("values",)

    def __init__(self, values: NDArray[Any]) -> None:
        self.values = values


class _Dtype:
    """What a pickled numpy.dtype says, read without numpy's own state setter."""

    __slots__ = ("code", "order")

    def __init__(self, code: str, *_: Any) -> None:
        self.code, self.order = str(code), "<"

    def __setstate__(self, state: Any) -> None:
        self.order = ">" if state[1] == ">" else "<"

    def numpy(self) -> np.dtype[Any]:
        if self.code not in (
            "b1",
            "i1",
            "u1",
            "i2",
            "u2",
            "i4",
            "u4",
            "i8",
            "u8",
            "f2",
            "f4",
            "f8",
        ):
            raise TypeError(f"a dtype {self.code!r} is no number")
        return np.dtype(self.order + self.code)


class _Array:
    """A pickled numpy array."""

    __slots__ = ("values",)

    def __init__(self, *_: Any) -> None:
        self.values: NDArray[Any] = np.empty(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        self.values = np.frombuffer(data, dtype.numpy()).reshape(
            shape, order="F" if fortran else "C"
        )


class _Reader(pickle.Unpickler):
    """An unpickler that knows a fixed list of names."""

    def __init__(self, path: Path, data: bytes, member: Callable[[str], bytes]) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path
        self._member = member
        self.byte_order = "<"
        scalar = _Sealed(lambda dtype, data: np.frombuffer(data, dtype.numpy())[0].item())
        array = _Sealed(_Array)
        self._known: dict[str, Any] = {
            "builtins.dict": dict,
            "builtins.list": list,
            "builtins.set": set,
            "builtins.frozenset": frozenset,
            "collections.OrderedDict": _Sealed(OrderedDict),
            "collections.defaultdict": _Sealed(_default_dict),
            "_codecs.encode": _Sealed(lambda text, encoding: text.encode("latin1")),
            "torch.Size": _Sealed(tuple),
            "torch.device": _Sealed(lambda *parts: ":".join(map(str, parts))),
            "torch._utils._rebuild_tensor": _Sealed(_tensor),
            "torch._utils._rebuild_tensor_v2": _Sealed(_tensor),
            "torch._utils._rebuild_parameter": _Sealed(lambda tensor, *_: tensor),
            "numpy.dtype": _Sealed(_Dtype),
            "numpy.ndarray": array,
        }
        for package in ("numpy.core.multiarray", "numpy._core.multiarray"):
            self._known[f"{package}.scalar"] = scalar
            self._known[f"{package}._reconstruct"] = array
        for name, code in _STORAGES.items():
            self._known[f"torch.{name}"] = code

    def find_class(self, module_name: str, global_name: str) -> Any:
        module = {"__builtin__": "builtins"}.get(module_name, module_name)
        name = f"{module}.{global_name}"
        if name not in self._known:
            raise RunLogError(
                f"{self._path}: its pickle asks for {name!r}, which is neither a tensor nor a "
                "container. Refused, nothing was run."
            )
        return self._known[name]

    def persistent_load(self, pid: Any) -> _Storage:
        kind, code, key, _location, count = pid
        if kind != "storage" or code not in _STORAGES.values():
            raise TypeError(f"an unknown kind of storage, {pid[:2]!r}")
        data = self._member(str(key))
        if code == "bfloat16":
            high = np.frombuffer(data, f"{self.byte_order}u2", count=int(count))
            return _Storage((high.astype(np.uint32) << 16).view(np.float32))
        return _Storage(np.frombuffer(data, self.byte_order + code, count=int(count)))


def _default_dict(factory: Any = None, *items: Any) -> dict[Any, Any]:
    if factory not in (None, dict, list, set):
        raise TypeError("a defaultdict of something else than dict, list or set")
    return defaultdict(factory, *items)


def _tensor(storage: _Storage, offset: int, size: Any, stride: Any, *_: Any) -> NDArray[Any]:
    size, stride = tuple(map(int, size)), tuple(map(int, stride))
    if len(size) != len(stride) or min((0, offset, *size, *stride)) < 0:
        raise TypeError("a tensor with a negative or incomplete shape")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last >= len(storage.values):
        raise TypeError("a tensor that reaches beyond its storage")
    if 0 in size:
        return np.empty(size, storage.values.dtype)
    width = storage.values.itemsize
    view = as_strided(storage.values[offset:], size, tuple(step * width for step in stride))
    if view.size > 64 * len(storage.values):
        raise TypeError("a tensor far larger than its storage")
    return view.copy()


def _plain(path: Path, value: Any, depth: int = 0) -> Any:
    """Stand-ins replaced by what they hold; 0-dimensional arrays by numbers."""
    if depth > _MAX_DEPTH:
        raise RunLogError(f"{path}: nested deeper than {_MAX_DEPTH} levels.")
    if isinstance(value, dict):
        return {
            _plain(path, key, depth + 1): _plain(path, inner, depth + 1)
            for key, inner in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return type(value)(_plain(path, inner, depth + 1) for inner in value)
    if isinstance(value, _Array | _Storage):
        value = value.values
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    raise RunLogError(f"{path}: holds a {type(value).__name__}, which is no number or container.")
