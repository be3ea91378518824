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
from typing import Any

import numpy as np
from cuda_on_cpu import Kernel

from nembp.backend import cublas

VIEWS = {"reshape", "transpose", "permute_dims", "squeeze", "expand_dims", "broadcast_to"}


class OutOfMemoryError(MemoryError):
    pass


class CUDARuntimeError(RuntimeError):
    pass


class State:
    """The device: its streams, and what is under way."""

    def __init__(self) -> None:
        self.memory_limit = 1 << 40
        self.deferred = False
        self.copies_first = False  # which of two streams that may both go on does
        self.streams: list[Stream] = []
        self.default = Stream(device=self)
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


DEVICE: State


class Stream:
    """A queue of calls."""

    def __init__(self, non_blocking: bool = False, device: State | None = None) -> None:
        streams = (device or DEVICE).streams
        self.ptr = len(streams)
        self.queue: deque[Any] = deque()
        self.captured: list[Any] | None = None
        streams.append(self)

    def __enter__(self) -> Stream:
        self._before, DEVICE.current = DEVICE.current, self
        return self

    def __exit__(self, *error: object) -> None:
        DEVICE.current = self._before

    def put(self, call: Callable[[], None], ready: Callable[[], bool] | None = None) -> None:
        if self.captured is not None:
            assert ready is None, "events between streams are no part of these captures"
            self.captured.append(call)
        elif DEVICE.deferred:
            self.queue.append((call, ready))
        else:
            assert ready is None or ready()
            call()

    def synchronize(self) -> None:
        DEVICE.sync_allowed("a stream is waited for")
        DEVICE.waits += 1
        run_until(lambda: not self.queue)

    def wait_event(self, event: Event) -> None:
        version = event.recorded
        self.put(lambda: None, lambda: event.done >= version)

    def begin_capture(self, mode: int | None = None) -> None:
        assert self is not DEVICE.default, "the default stream cannot be captured"
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
        order = DEVICE.streams[::-1] if DEVICE.copies_first else DEVICE.streams
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

        (stream or DEVICE.current).put(reached)

    def synchronize(self) -> None:
        DEVICE.sync_allowed("an event is waited for")
        DEVICE.waits += 1
        version = self.recorded
        run_until(lambda: self.done >= version)


def get_elapsed_time(begin: Event, end: Event) -> float:
    assert begin.done
    assert end.done
    return 1e3 * (end.time - begin.time)


class Graph:
    def __init__(self, calls: list[Callable[[], None]]) -> None:
        self.calls = calls
        self.launched = 0

    def upload(self, stream: Stream | None = None) -> None:
        pass

    def launch(self, stream: Stream | None = None) -> None:
        self.launched += 1
        for call in self.calls:
            (stream or DEVICE.current).put(call)


class MemoryPool:
    def __init__(self) -> None:
        self.total = 0

    def malloc(self, size: int) -> int:
        if self.total + size > DEVICE.memory_limit:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes")
        self.total += size
        return size

    def free_bytes(self) -> int:
        return 0

    def total_bytes(self) -> int:
        return self.total


# -- arrays ----------------------------------------------------------------------------------------
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
        DEVICE.current.put(call)

    def set(self, arr: np.ndarray[Any, Any], stream: Stream | None = None) -> None:
        DEVICE.sync_allowed("a copy from the host")
        assert arr.shape == self.shape
        assert arr.dtype == self.dtype
        DEVICE.uploads += 1
        (stream or DEVICE.current).put(lambda: np.copyto(self._host, arr))

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


def _new(shape: Any, dtype: Any) -> ndarray:
    host = np.empty(shape, dtype)
    DEVICE.allocate(host.nbytes)
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
            DEVICE.current.put(lambda: function(*bare, **bare_options))
            return out
        trial = np.asarray(function(*bare, **bare_options))  # for its shape and dtype
    result = _new(trial.shape, trial.dtype)
    call = lambda: np.copyto(result._host, function(*bare, **bare_options))  # noqa: E731
    DEVICE.current.put(call)
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
            DEVICE.sync_allowed("calling cuBLAS API during stream capture")
        if name == "take":  # CuPy's has no modes
            options.pop("mode", None)
        return _compute(numpy_function, *args, **options)

    return call


FUNCTIONS = {
    name: _function(name) for name in dir(np)
    if callable(getattr(np, name)) and not isinstance(getattr(np, name), type) and name[0] != "_"
}  # fmt: skip


def asarray(value: Any, dtype: Any = None, **options: Any) -> ndarray:
    if isinstance(value, ndarray):
        return value if dtype is None or value.dtype == dtype else value.astype(dtype)
    DEVICE.sync_allowed("a copy from the host")
    DEVICE.uploads += 1
    host = np.array(value, dtype=dtype)  # what it is now
    result = _new(host.shape, host.dtype)
    DEVICE.current.put(lambda: np.copyto(result._host, host))
    return result


def array(value: Any, dtype: Any = None, copy: bool = True, **options: Any) -> ndarray:
    made = asarray(value, dtype)
    return made.copy() if made is value and copy else made


def _filled(number: float) -> Callable[..., ndarray]:
    def make(shape: Any, dtype: Any = float, **options: Any) -> ndarray:
        result = _new(shape, dtype)
        result[...] = number
        return result

    return make


def to_host(value: ndarray) -> np.ndarray[Any, Any]:
    """Wait, and copy to the host."""
    DEVICE.current.synchronize()
    return np.array(value._host)


# -- modules ---------------------------------------------------------------------------------------
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


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        DEVICE.sync_allowed("a module is loaded")
        self.code = code

    def get_function(self, name: str) -> Callable[..., None]:
        DEVICE.sync_allowed("a kernel is loaded")
        kernel = Kernel(self.code, name)

        def launch(grid: Any, block: Any, args: Any) -> None:
            DEVICE.launches.append(name)
            DEVICE.current.put(kernel(grid, block, args))

        return launch


@contextlib.contextmanager
def using_allocator(allocate: Callable[[int], Any]) -> Iterator[None]:
    before, DEVICE.allocate = DEVICE.allocate, allocate
    try:
        yield
    finally:
        DEVICE.allocate = before


def set_allocator(allocate: Callable[[int], Any]) -> None:
    DEVICE.allocate = allocate


def _pinned(size: int) -> Any:
    DEVICE.sync_allowed("memory of the host is locked")
    return bytearray(b"\xab" * size)


def make() -> types.ModuleType:
    """Return the module ``cupy``."""
    cupy = types.ModuleType("cupy")
    named = {n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), type)}
    vars(cupy).update({k: v for k, v in named.items() if k not in ("ndarray", "matrix")})
    vars(cupy).update(FUNCTIONS)
    vars(cupy).update(
        ndarray=ndarray, asarray=asarray, array=array, asnumpy=to_host, zeros=_filled(0.0),
        ones=_filled(1.0), empty=_new_array, RawModule=RawModule, pi=np.pi, inf=np.inf,
        nan=np.nan, newaxis=None, e=np.e, get_default_memory_pool=lambda: DEVICE.pool,
        __version__="14.2.0",
    )  # fmt: skip
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"NumPy"},
        memGetInfo=lambda: (DEVICE.memory_limit - DEVICE.pool.total, DEVICE.memory_limit),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        streamCaptureModeRelaxed=2,
    )
    cupy.cuda = types.ModuleType("cupy.cuda")  # type: ignore[attr-defined]
    vars(cupy.cuda).update(
        Device=Device, Stream=Stream, Event=Event, MemoryPool=MemoryPool, runtime=runtime,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError), Graph=Graph,
        get_current_stream=lambda: DEVICE.current, set_allocator=set_allocator,
        using_allocator=using_allocator, alloc_pinned_memory=_pinned,
        get_elapsed_time=get_elapsed_time,
    )  # fmt: skip
    return cupy


def _new_array(shape: Any, dtype: Any = float, **options: Any) -> ndarray:
    return _new(shape, dtype)


class Cublas:
    """cuBLAS by NumPy, called through ctypes with the signatures that `nembp` declares."""

    def __init__(self) -> None:
        self.stream = -1
        self.workspace = False
        self.math_mode = -1
        for name, arguments in cublas.SIGNATURES.items():
            method = self._gemm if "gemm" in name else getattr(self, name)
            setattr(self, name, ctypes.CFUNCTYPE(ctypes.c_int, *arguments)(_status(method)))

    def cublasCreate_v2(self, handle: Any) -> None:
        handle[0] = 1234

    def cublasSetStream_v2(self, handle: int, stream: int | None) -> None:
        self.stream, self.workspace = stream or 0, False

    def cublasSetWorkspace_v2(self, handle: int, pointer: int, size: int) -> None:
        self.workspace = pointer % 256 == 0 or True
        assert size >= 1 << 22

    def cublasSetMathMode(self, handle: int, mode: int) -> None:
        self.math_mode = mode

    def _gemm(
        self, handle: int, transposed_a: int, transposed_b: int, m: int, n: int, k: int,
        alpha: Any, a: int, lda: int, b: int, ldb: int, beta: Any, c: int, ldc: int,
    ) -> None:  # fmt: skip
        assert handle == 1234
        assert self.workspace, "the stream's workspace is not set: a capture would allocate one"
        assert self.stream == DEVICE.current.ptr, "the product goes to another stream"
        assert alpha[0] == 1.0
        assert beta[0] == 0.0
        real = type(alpha[0]) and alpha._type_
        A = _matrix(a, (k, m) if transposed_a else (m, k), lda, real)
        B = _matrix(b, (n, k) if transposed_b else (k, n), ldb, real)
        C = _matrix(c, (m, n), ldc, real)
        A, B = A.T if transposed_a else A, B.T if transposed_b else B

        def product() -> None:
            with np.errstate(all="ignore"):
                C[...] = A @ B

        DEVICE.current.put(product)


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


def install(monkeypatch: Any) -> State:
    """Make `import cupy` give this, and `CupyBackend` find its cuBLAS; return the device."""
    global DEVICE  # noqa: PLW0603  # there is one
    DEVICE = State()
    for name in [name for name in sys.modules if name.startswith("array_api_compat.cupy")]:
        monkeypatch.delitem(sys.modules, name)
    cupy = make()
    device = types.ModuleType("cupy.cuda.device")
    vars(device)["Device"] = Device
    modules = {"cupy": cupy, "cupy.cuda": vars(cupy)["cuda"], "cupy.cuda.device": device}
    for name, original in (("linalg", np.linalg), ("fft", np.fft)):
        module = modules[f"cupy.{name}"] = vars(cupy)[name] = types.ModuleType(f"cupy.{name}")
        vars(module).update({n: getattr(original, n) for n in original.__all__})
        vars(module)["__all__"] = list(original.__all__)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("nembp.backend.gpu.load_cublas", Cublas)
    return DEVICE
