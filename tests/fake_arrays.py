"""Arrays of `fake_cupy`, and its functions of them, which are NumPy's, queued on a stream."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
from fake_streams import Stream, device

VIEWS = {"reshape", "transpose", "permute_dims", "squeeze", "expand_dims", "broadcast_to"}


class Device:
    id = 0

    def __init__(self, device: Any = None) -> None:
        pass

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device)

    __hash__ = None  # type: ignore[assignment]


class ndarray:
    """An array of the device."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self._host = host

    dtype = property(lambda self: self._host.dtype)
    ndim = property(lambda self: self._host.ndim)
    size = property(lambda self: self._host.size)
    nbytes = property(lambda self: self._host.nbytes)
    itemsize = property(lambda self: self._host.itemsize)
    strides = property(lambda self: self._host.strides)
    flags = property(lambda self: self._host.flags)
    T = property(lambda self: ndarray(self._host.T))

    @property
    def shape(self) -> tuple[int, ...]:
        return self._host.shape

    @shape.setter
    def shape(self, shape: tuple[int, ...]) -> None:
        if not self.flags.c_contiguous:
            raise AttributeError("incompatible shape")
        self._host = self._host.reshape(shape)

    def view(self) -> ndarray:
        return ndarray(self._host)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    @property
    def device(self) -> Any:
        return Device()

    def __array__(self, *args: object, **options: object) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> ndarray:
        assert not isinstance(key, ndarray)
        return ndarray(self._host[key if isinstance(key, tuple) else (key,)])

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        call = lambda: self._host.__setitem__(_bare(key), _bare(value))  # noqa: E731
        device().current.put(call)

    def set(self, arr: np.ndarray[Any, Any], stream: Stream | None = None) -> None:
        device().sync_allowed("a copy from the host")
        assert arr.shape == self.shape
        assert arr.dtype == self.dtype
        device().uploads += 1
        (stream or device().current).put(lambda: np.copyto(self._host, arr))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return _compute(lambda host: host.astype(dtype, copy=True), self)

    def reshape(self, *shape: Any) -> ndarray:
        return FUNCTIONS["reshape"](self, shape[0] if len(shape) == 1 else shape)

    def copy(self) -> ndarray:
        return _compute(np.copy, self)

    def __bool__(self) -> bool:
        return bool(to_host(self))

    def __float__(self) -> float:
        return float(to_host(self))

    item = __float__


def _binary(name: str) -> None:
    method = getattr(np.ndarray, name)
    setattr(ndarray, name, lambda self, *others: _compute(method, self, *others))


for each in (
    "add", "radd", "sub", "rsub", "mul", "rmul", "truediv", "rtruediv", "pow", "neg", "eq", "ne",
    "lt", "le", "gt", "ge", "and", "or", "invert",
):  # fmt: skip
    _binary(f"__{each}__")


def _bare(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, tuple | list):
        return type(value)(_bare(each) for each in value)
    return value


def new(shape: Any, dtype: Any) -> ndarray:
    host = np.empty(shape, dtype)
    device().allocate(host.nbytes)
    if host.size:
        host.fill(np.nan if host.dtype.kind in "fc" else 113)
    return ndarray(host)


def _compute(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Queue a function of arrays, whose result has memory of its own."""
    for arg in (*args, *options.values()):
        if isinstance(arg, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    bare, bare_options = _bare(args), {key: _bare(value) for key, value in options.items()}
    out = options.get("out")
    with np.errstate(all="ignore"):
        if out is not None:
            device().current.put(lambda: function(*bare, **bare_options))
            return out
        trial = np.asarray(function(*bare, **bare_options))  # for its shape and dtype
    result = new(trial.shape, trial.dtype)
    call = lambda: np.copyto(result._host, function(*bare, **bare_options))  # noqa: E731
    device().current.put(call)
    return result


def _function(name: str) -> Callable[..., Any]:
    numpy_function = getattr(np, name)

    def call(*args: Any, **options: Any) -> Any:
        if name in VIEWS:
            bare = _bare(args), {key: _bare(value) for key, value in options.items()}
            view = numpy_function(*bare[0], **bare[1])
            if np.shares_memory(view, bare[0][0]) or not view.size:
                return ndarray(view)
        if name == "matmul":
            device().sync_allowed("calling cuBLAS API during stream capture")
        if name == "take":  # CuPy's has no modes
            options.pop("mode", None)
        return _compute(numpy_function, *args, **options)

    return call


FUNCTIONS = {
    name: _function(name) for name in dir(np)
    if callable(getattr(np, name)) and not isinstance(getattr(np, name), type) and name[0] != "_"
}  # fmt: skip


def _in_place(ufunc: str) -> Callable[..., ndarray]:
    return lambda self, other: FUNCTIONS[ufunc](self, other, out=self)


for operator, ufunc in (
    ("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("truediv", "divide"),
):  # fmt: skip
    setattr(ndarray, f"__i{operator}__", _in_place(ufunc))


def asarray(value: Any, dtype: Any = None, **options: Any) -> ndarray:
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    device().sync_allowed("a copy from the host")
    device().uploads += 1
    host = np.array(value, dtype=dtype)  # what it is now
    result = new(host.shape, host.dtype)
    device().current.put(lambda: np.copyto(result._host, host))
    return result


def array(value: Any, dtype: Any = None, copy: bool = True, **options: Any) -> ndarray:
    made = asarray(value, dtype)
    return made.copy() if made is value and copy else made


def filled(number: float) -> Callable[..., ndarray]:
    def make(shape: Any, dtype: Any = float, **options: Any) -> ndarray:
        result = new(shape, dtype)
        result[...] = number
        return result

    return make


def to_host(value: ndarray) -> np.ndarray[Any, Any]:
    """Wait, and copy to the host."""
    device().current.synchronize()
    return np.array(value._host)
