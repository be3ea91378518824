"""A stand-in for CuPy made of NumPy, so that the Python side of `CupyBackend` runs without a GPU.

What it takes seriously: arrays of the device are no NumPy arrays and refuse to become any; kernels
are the real sources, compiled for the host (:mod:`cuda_on_cpu`), with the types of their arguments
checked; work can be deferred, each stream in its order and streams in either order, so that events
that are missing show; a graph under capture records calls in place of doing them, and refuses what
CUDA refuses (copies to and from the host, waiting, compiling, and CuPy's own products); memory has
a limit. New memory holds NaN or nonsense.

What it cannot know: speed, rounding of the device, and whether CUDA itself agrees.
"""

from __future__ import annotations

import contextlib
import ctypes
import sys
import threading
import time
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
from cuda_on_cpu import Kernel

import nembp.backend
from nembp.backend import fused, gpu

fused.THREADS = 32  # of most blocks: a fiber each (test_gpu_kernels takes as many as a GPU)


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


# -- the device: streams, events, graphs, memory ---------------------------------------------------
class State:
    """The device: its streams, and what is under way."""

    def __init__(self) -> None:
        self.memory_limit = 1 << 40
        self.deferred = False
        self.copies_first = False  # which of two streams that may both go on does
        self.streams: list[Stream] = []
        self.default = Stream(owner=self)
        self._threads = threading.local()
        self.pool = MemoryPool()
        self.allocate = self.pool.malloc
        self.launches: list[str] = []
        self.uploads = 0  # copies from the host
        self.waits = 0  # of the host for the device

    @property
    def current(self) -> Stream:
        """The stream of the thread that asks: one may gather batches while another captures."""
        found: Stream = getattr(self._threads, "stream", self.default)
        return found

    @current.setter
    def current(self, stream: Stream) -> None:
        self._threads.stream = stream

    def sync_allowed(self, what: str) -> None:
        if self.current.captured is not None:
            raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what}")

    def put(self, call: Callable[[], None]) -> None:
        self.current.put(call)


def device() -> State:
    """Return the device in use."""
    return _devices["in use"]


class Stream:
    """A queue of calls."""

    def __init__(self, non_blocking: bool = False, owner: State | None = None) -> None:
        streams = (owner or device()).streams
        self.ptr = len(streams)
        self.queue: deque[Any] = deque()
        self.captured: list[Any] | None = None
        streams.append(self)

    def __enter__(self) -> Stream:
        self._before, device().current = device().current, self
        return self

    def __exit__(self, *error: object) -> None:
        device().current = self._before

    def put(self, call: Callable[[], None], ready: Callable[[], bool] | None = None) -> None:
        if self.captured is not None:
            assert ready is None, "events between streams are no part of these captures"
            self.captured.append(call)
        elif device().deferred:
            self.queue.append((call, ready))
        else:
            assert ready is None or ready()
            call()

    def synchronize(self) -> None:
        device().sync_allowed("a stream is waited for")
        device().waits += 1
        run_until(lambda: not self.queue)

    def wait_event(self, event: Event) -> None:
        version = event.recorded
        self.put(lambda: None, lambda: event.done >= version)

    def begin_capture(self, mode: int | None = None) -> None:
        assert self is not device().default, "the default stream cannot be captured"
        self.captured = []

    def end_capture(self) -> Graph:
        calls, self.captured = self.captured, None
        assert calls is not None
        return Graph(calls)

    def is_capturing(self) -> bool:
        return self.captured is not None


def run_until(done: Callable[[], bool]) -> None:
    """Do what is queued until a condition holds."""
    while not done():
        order = device().streams[::-1] if device().copies_first else device().streams
        for stream in order:
            if stream.queue and (stream.queue[0][1] is None or stream.queue[0][1]()):
                stream.queue.popleft()[0]()
                break
        else:
            raise AssertionError("streams wait for each other")


class Event:
    def __init__(self, block: bool = False, disable_timing: bool = False) -> None:
        self.recorded = self.done = 0
        self.time = 0.0

    def record(self, stream: Stream | None = None) -> None:
        self.recorded += 1
        version = self.recorded

        def reached() -> None:
            self.done, self.time = max(self.done, version), time.perf_counter()

        (stream or device().current).put(reached)

    def synchronize(self) -> None:
        device().sync_allowed("an event is waited for")
        device().waits += 1
        version = self.recorded
        run_until(lambda: self.done >= version)


def get_elapsed_time(begin: Event, end: Event) -> float:
    assert begin.done
    assert end.done
    return 1e3 * (end.time - begin.time)


class Graph:
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self.calls = calls

    def upload(self) -> None:
        pass

    def launch(self) -> None:
        for call in self.calls:
            device().put(call)


class MemoryPool:
    def __init__(self) -> None:
        self.total = 0

    def malloc(self, size: int) -> int:
        if self.total + size > device().memory_limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.total += size
        return size

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return self.total


_devices: dict[str, State] = {}
_devices["in use"] = State()


# -- arrays ----------------------------------------------------------------------------------------
class Device:
    id = 0


class ndarray:
    """An array of the device."""

    __array_priority__ = 100
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, host: np.ndarray[Any, Any]) -> None:
        self._host = host

    def __getattr__(self, name: str) -> Any:
        if name in ("dtype", "ndim", "size", "nbytes", "itemsize", "shape", "strides", "flags"):
            return getattr(self._host, name)
        raise AttributeError(name)

    @property
    def T(self) -> ndarray:
        return ndarray(self._host.T)

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self._host.ctypes.data)

    def __array__(self, *args: object, **options: object) -> Any:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __len__(self) -> int:
        return len(self._host)

    def __getitem__(self, key: Any) -> ndarray:
        assert not isinstance(key, ndarray)
        key = key if isinstance(key, tuple) else (key,)
        return ndarray(self._host[key if ... in key else (*key, ...)])  # a view, of one number too

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        device().put(lambda: self._host.__setitem__(_bare(key), _bare(value)))

    def set(self, arr: np.ndarray[Any, Any], stream: Stream | None = None) -> None:
        device().sync_allowed("a copy from the host")
        assert arr.shape == self.shape
        assert arr.dtype == self.dtype
        device().uploads += 1
        (stream or device().current).put(lambda: np.copyto(self._host, arr))

    def astype(self, dtype: Any, copy: bool = True) -> ndarray:
        return _compute(lambda host: host.astype(dtype, copy=True), self)

    def __bool__(self) -> bool:
        return bool(to_host(self))

    def __float__(self) -> float:
        return float(to_host(self))


def _operator(name: str, ufunc: str | None = None) -> None:
    method = getattr(np.ndarray, f"__{name}__")
    call = lambda self, *others: _compute(method, self, *others)  # noqa: E731
    setattr(ndarray, f"__{name}__", call)
    if ufunc:  # without __iadd__, `x += y` would quietly be another array
        in_place = lambda self, other: FUNCTIONS[ufunc](self, other, out=self)  # noqa: E731
        setattr(ndarray, f"__i{name}__", in_place)


for each in ("radd", "rsub", "rmul", "rtruediv", "neg", "eq", "ne", "lt", "le", "gt", "ge", "and",
             "or", "invert"):  # fmt: skip
    _operator(each)
for each, ufunc in (("add", "add"), ("sub", "subtract"), ("mul", "multiply"), ("pow", "power"),
                    ("truediv", "divide")):  # fmt: skip
    _operator(each, ufunc)


def _bare(value: Any) -> Any:
    if isinstance(value, ndarray):
        return value._host
    if isinstance(value, tuple | list):
        return type(value)(_bare(each) for each in value)
    return value


def new(shape: Any, dtype: Any = float) -> ndarray:
    host = np.empty(shape, dtype)
    device().allocate(host.nbytes)
    if host.size:
        host.fill(np.nan if host.dtype.kind in "fc" else 113)
    return ndarray(host)


def _filled(number: float) -> Callable[..., ndarray]:
    def make(shape: Any, dtype: Any = float) -> ndarray:
        result = new(shape, dtype)
        result[...] = number
        return result

    return make


def asarray(value: Any, dtype: Any = None) -> ndarray:
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    device().sync_allowed("a copy from the host")
    device().uploads += 1
    host = np.array(value, dtype=dtype)  # what it is now
    result = new(host.shape, host.dtype)
    device().put(lambda: np.copyto(result._host, host))
    return result


def to_host(value: ndarray) -> np.ndarray[Any, Any]:
    """Wait, and copy to the host."""
    device().current.synchronize()
    return np.array(value._host)


# -- functions, which are NumPy's, queued on a stream ----------------------------------------------
def _compute(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Queue a function of arrays, whose result has memory of its own unless it has an ``out``."""
    for arg in (*args, *options.values()):
        if isinstance(arg, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    bare, bare_options = _bare(args), {key: _bare(value) for key, value in options.items()}
    out = options.get("out")
    with np.errstate(all="ignore"):
        if out is not None:
            device().put(lambda: function(*bare, **bare_options))
            return out
        trial = np.asarray(function(*bare, **bare_options))  # for its shape and dtype
    result = new(trial.shape, trial.dtype)
    device().put(lambda: np.copyto(result._host, function(*bare, **bare_options)))
    return result


def _function(name: str) -> Callable[..., Any]:
    numpy_function = getattr(np, name)

    def call(*args: Any, **options: Any) -> Any:
        if name in ("reshape", "transpose", "permute_dims"):
            view = numpy_function(*_bare(args), **options)
            if np.shares_memory(view, _bare(args[0])) or not view.size:
                return ndarray(view)
        if name == "matmul":
            device().sync_allowed("calling cuBLAS API during stream capture")
        return _compute(numpy_function, *args, **options)

    return call


FUNCTIONS = {
    name: _function(name) for name in dir(np)
    if callable(getattr(np, name)) and not isinstance(getattr(np, name), type) and name[0] != "_"
}  # fmt: skip


class Cublas:
    """cuBLAS by NumPy, called through ctypes with the signatures that `nembp` declares."""

    def __init__(self) -> None:
        self.stream, self.math_mode, self.workspace = -1, -1, False
        for name, arguments in gpu.SIGNATURES.items():
            method = self._gemm if "gemm" in name else getattr(self, name)
            setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(_status(method)))

    def cublasCreate_v2(self, handle: Any) -> None:
        handle[0] = 1234

    def cublasSetStream_v2(self, handle: int, stream: int | None) -> None:
        self.stream, self.workspace = stream or 0, False

    def cublasSetWorkspace_v2(self, handle: int, pointer: int, size: int) -> None:
        assert size >= 1 << 22
        self.workspace = True

    def cublasSetMathMode(self, handle: int, mode: int) -> None:
        self.math_mode = mode

    def _gemm(
        self, handle: int, transposed_a: int, transposed_b: int, m: int, n: int, k: int,
        alpha: Any, a: int, lda: int, b: int, ldb: int, beta: Any, c: int, ldc: int,
    ) -> None:  # fmt: skip
        assert self.workspace, "the stream's workspace is not set: a capture would allocate one"
        assert self.stream == device().current.ptr, "the product goes to another stream"
        assert (handle, alpha[0], beta[0]) == (1234, 1.0, 0.0)
        real = alpha._type_
        A = _matrix(a, (k, m) if transposed_a else (m, k), lda, real)
        B = _matrix(b, (n, k) if transposed_b else (k, n), ldb, real)
        C = _matrix(c, (m, n), ldc, real)
        A, B = A.T if transposed_a else A, B.T if transposed_b else B

        def product() -> None:
            with np.errstate(all="ignore"):
                C[...] = A @ B

        device().put(product)


def _status(method: Callable[..., None]) -> Callable[..., int]:
    def call(*args: Any) -> int:
        try:
            method(*args)
        except Exception as error:  # noqa: BLE001  # nothing else gets through ctypes
            print(f"cuBLAS: {error!r}", file=sys.stderr)
            return 7
        return 0

    return call


def _matrix(pointer: int, shape: tuple[int, int], leading: int, real: Any) -> Any:
    """View columns-first memory as a matrix."""
    assert leading >= shape[0], (leading, shape)
    count = leading * (shape[1] - 1) + shape[0]
    flat = np.frombuffer((real * count).from_address(pointer), np.dtype(real))
    item = flat.itemsize
    return np.lib.stride_tricks.as_strided(flat, shape, (item, leading * item))


# -- the module ------------------------------------------------------------------------------------
class RawModule:
    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        device().sync_allowed("a module is loaded")
        self.code = code

    def get_function(self, name: str) -> Callable[..., None]:
        device().sync_allowed("a kernel is loaded")
        kernel = Kernel(self.code, name)

        def launch(grid: Any, block: Any, args: Any) -> None:
            device().launches.append(name)
            device().put(kernel(grid, block, args))

        return launch


@contextlib.contextmanager
def using_allocator(allocate: Callable[[int], Any]) -> Iterator[None]:
    before, device().allocate = device().allocate, allocate
    try:
        yield
    finally:
        device().allocate = before


def _pinned(size: int) -> Any:
    device().sync_allowed("memory of the host is locked")
    return bytearray(b"\xab" * size)


def make() -> types.ModuleType:
    """Return the module ``cupy``."""
    cupy, cuda = types.ModuleType("cupy"), types.ModuleType("cupy.cuda")
    named = {n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), type)}
    vars(cupy).update({k: v for k, v in named.items() if k not in ("ndarray", "matrix")})
    vars(cupy).update(FUNCTIONS)
    vars(cupy).update(
        ndarray=ndarray, asarray=asarray, asnumpy=to_host, zeros=_filled(0.0), ones=_filled(1.0),
        empty=new, RawModule=RawModule, get_default_memory_pool=lambda: device().pool, cuda=cuda,
        __version__="14.2.0",
    )  # fmt: skip
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"NumPy"},
        memGetInfo=lambda: (device().memory_limit - device().pool.total, device().memory_limit),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        streamCaptureModeRelaxed=2,
    )
    vars(cuda).update(
        Device=Device, Stream=Stream, Event=Event, MemoryPool=MemoryPool, runtime=runtime,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        get_current_stream=lambda: device().current, using_allocator=using_allocator,
        set_allocator=lambda allocate: setattr(device(), "allocate", allocate),
        alloc_pinned_memory=_pinned, get_elapsed_time=get_elapsed_time,
    )  # fmt: skip
    return cupy


def install(monkeypatch: Any, state: State | None = None) -> State:
    """Make `import cupy` give this, and `CupyBackend` find its cuBLAS; return the device."""
    monkeypatch.setitem(_devices, "in use", state or State())
    monkeypatch.setattr(nembp.backend, "_gpu", cache(gpu.CupyBackend))
    monkeypatch.setitem(sys.modules, "cupy", make())
    monkeypatch.setattr("nembp.backend.gpu.load_cublas", Cublas)
    return device()
