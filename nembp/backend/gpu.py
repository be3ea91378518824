"""CuPy on a CUDA device: the only file that imports CuPy, and only when a GPU is asked for.

**Graphs.** A step is captured once and launched as one. A graph does the same work on the same
buffers: whatever changes from step to step (a row of numbers, and the samples) lies in device
memory, laid out for many steps at once. Every step takes its own and counts on by itself, as noise
streams count their draws; captured or not it gives the same numbers bit for bit.

**Copies from the host** overlap with computing. A batch is gathered on the host into a page-locked
buffer, copied on a stream of its own into a buffer of the device, and read from there by the step;
events order the three, and the host only ever waits for the end of a copy:

    gather → copy (waits until the step before last has read the device's buffer) → step reads

**Products** go to cuBLAS itself: CuPy refuses to call it while a graph is being captured ("calling
cuBLAS API during stream capture is currently unsupported", cupy/cupy issue 6290), though cuBLAS can
be captured as long as its handle and workspace exist beforehand.
"""

from __future__ import annotations

import ctypes
import math
import warnings
from collections import Counter
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend.fused import FusedKernels, PhiloxStream
from nembp.backend.standard import EXTRAS, NO_CUPY, PRECISIONS, Array, Precision, Steps, stream
from nembp.errors import DeviceError, DeviceMemoryError, check_choice

# what CuPy and CUDA say to work that cannot be captured, such as a copy to the host
CAPTURE_ERRORS = (RuntimeError, NotImplementedError)
WARM_UP = 2  # calls before a function is captured: kernels are compiled, buffers allocated
WORKSPACE = 32 << 20  # bytes; what cuBLAS recommends for Hopper
AS_IT_IS, TRANSPOSED = 0, 1
FULL_PRECISION, TF32 = 0, 3  # cublasMath_t
_handle, _int, _pointer = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
_REALS = {
    "float32": ("cublasSgemm_v2", ctypes.c_float),
    "float64": ("cublasDgemm_v2", ctypes.c_double),
}
SIGNATURES: dict[str, list[Any]] = {
    "cublasCreate_v2": [ctypes.POINTER(_handle)],
    "cublasSetStream_v2": [_handle, _pointer],
    "cublasSetWorkspace_v2": [_handle, _pointer, ctypes.c_size_t],
    "cublasSetMathMode": [_handle, _int],
    **{
        # handle, op(A), op(B), m, n, k, alpha, A, lda, B, ldb, beta, C, ldc
        name: [
            _handle, _int, _int, _int, _int, _int, ctypes.POINTER(real), _pointer, _int,
            _pointer, _int, ctypes.POINTER(real), _pointer, _int,
        ]
        for name, real in _REALS.values()
    },
}  # fmt: skip
LARGEST = 2**31 - 1


def load_cublas() -> Any:
    """Return the cuBLAS library that CuPy uses, found as CuPy finds it, or raise OSError."""
    from cuda.pathfinder import load_nvidia_dynamic_lib

    return ctypes.CDLL(load_nvidia_dynamic_lib("cublas").abs_path)


class Cublas:
    """A handle of cuBLAS with its workspace, device memory of ``WORKSPACE`` bytes.

    With ``tf32`` float32 products may round their factors to 10 bits.
    """

    def __init__(self, library: Any, workspace: Array, *, tf32: bool = False) -> None:
        self._library, self._workspace = library, workspace
        self._stream: int | None = None
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, _int
        self._handle = _handle()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        self._call("cublasSetMathMode", self._handle, TF32 if tf32 else FULL_PRECISION)

    def _call(self, name: str, *args: Any) -> None:
        status = getattr(self._library, name)(*args)
        if status:
            raise DeviceError(
                f"{name} of cuBLAS failed with status {status}; expected 0. Check that driver and "
                "CuPy fit each other (`nembp info`), or use --device cpu"
            )

    def matmul(self, left: Array, right: Array, out: Array, stream: int) -> bool:
        """Write ``left @ right`` into ``out`` on a stream; say whether cuBLAS can.

        It multiplies real matrices of one dtype whose rows or columns are contiguous. It counts
        columns first, so it is asked for outᵀ = rightᵀ leftᵀ.
        """
        found = _REALS.get(str(out.dtype))
        if found is None or not left.dtype == right.dtype == out.dtype:
            return False
        A, B, C = _layout(right), _layout(left), _layout(out)
        if A is None or B is None or C is None or C[0] == TRANSPOSED:
            return False
        (rows, inner), columns = left.shape, right.shape[1]
        if stream != self._stream:  # which takes the workspace away
            self._call("cublasSetStream_v2", self._handle, stream)
            pointer = self._workspace.data.ptr
            self._call("cublasSetWorkspace_v2", self._handle, pointer, self._workspace.nbytes)
            self._stream = stream
        name, real = found
        one, zero = real(1.0), real(0.0)
        self._call(
            name, self._handle, A[0], B[0], columns, rows, inner, ctypes.byref(one),
            right.data.ptr, A[1], left.data.ptr, B[1], ctypes.byref(zero), out.data.ptr, C[1],
        )  # fmt: skip
        return True


def _layout(matrix: Array) -> tuple[int, int] | None:
    """Return whether a matrix lies transposed, and the elements from one line to the next."""
    if len(matrix.shape) != 2 or matrix.size < 1 or max(matrix.shape) > LARGEST:
        return None
    (rows, columns), item = matrix.shape, matrix.dtype.itemsize
    down, across = (stride // item for stride in matrix.strides)
    if columns == 1 and rows == 1:
        return AS_IT_IS, 1
    if (across == 1 or columns == 1) and (down >= columns or rows == 1):
        return AS_IT_IS, max(down if rows > 1 else columns, columns)
    if (down == 1 or rows == 1) and (across >= rows or columns == 1):
        return TRANSPOSED, max(across if columns > 1 else rows, rows)
    return None


class Captured:
    """A function that is captured at its third call with the same arguments, then launched.

    Where capturing fails all goes on call by call: ``reason`` says why, ``launches`` counts.
    """

    def __init__(self, backend: Any, function: Callable[..., None]) -> None:
        self._backend, self._function = backend, function
        self._calls: Counter[Hashable] = Counter()
        self._graphs: dict[Hashable, Callable[[], None]] = {}
        self.launches = 0
        self.reason: str | None = None

    def __call__(self, *args: Hashable) -> None:
        """Call the function, or launch what its call would queue."""
        if args not in self._graphs and self.reason is None and self._calls[args] >= WARM_UP:
            try:
                self._graphs[args] = self._backend.capture_graph(lambda: self._function(*args))
            except CAPTURE_ERRORS as error:
                words = str(error).strip() or type(error).__name__
                self.reason = f"a step cannot be captured ({words.splitlines()[0]})"
        if args in self._graphs:
            self._graphs[args]()
            self.launches += 1
        else:
            self._function(*args)
            self._calls[args] += 1


class StepsOnDevice(Steps):
    """Steps that find their numbers and samples on the device, always in the same memory."""

    def __init__(self, backend: Any, samples: int, batch_size: int, width: int) -> None:
        super().__init__(backend, batch_size)
        self._kernels = backend.kernels("float32")
        steps = -(-samples // batch_size)
        self._numbers = backend.zeros((width,), "float64")
        self._rows = backend.zeros((steps, width), "float64")
        self._samples = backend.zeros((samples,), "int64")
        self._index = backend.zeros((batch_size,), "int64")
        self._step = backend.zeros((1,), "int64")

    def lay_out(self, order: np.ndarray[Any, Any], table: np.ndarray[Any, Any]) -> None:
        backend = self._backend
        self._samples[: len(order)] = backend.asarray(order, "int64")
        self._rows[: len(table)] = backend.asarray(table, "float64")
        self._step[...] = 0

    def take(self, rows: int) -> tuple[Array, Array]:
        index = self._index[:rows]
        self._kernels.block(
            "begin_step", self._step, self._rows, self._rows.shape[1], self._numbers,
            self._samples, self._batch_size, rows, index,
        )  # fmt: skip
        return self._numbers, index


@dataclass
class _Staging:
    """What belongs to one page-locked buffer of the host."""

    device: Array
    copied: Any  # event: the host's buffer may be overwritten, the device's be read
    read: Any  # event: the device's buffer may be overwritten


class CupyBackend(FusedKernels):
    """CuPy on one CUDA device; work is queued on the current stream, as a rule the default one.

    With ``precision`` tf32 products of float32 matrices may round their factors to TF32, which is
    several times faster and keeps three digits.
    """

    name = "gpu"
    column_bytes = 1 << 28

    def __init__(self, precision: Precision = "float32") -> None:
        check_choice("precision", precision, PRECISIONS)
        self.precision = precision
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(NO_CUPY) from error
        self._cupy = cupy
        self._pool = cupy.get_default_memory_pool()
        cupy.cuda.set_allocator(self._allocator_of(self._pool))
        _check_device(cupy)
        super().__init__(cupy, cupy.cuda.Device())
        self._copies = cupy.cuda.Stream(non_blocking=True)
        self._staging: dict[int, _Staging] = {}  # by the buffer's address on the host
        try:
            library = load_cublas()
        except (OSError, ImportError, RuntimeError) as error:
            raise DeviceError(
                f"device 'gpu' needs cuBLAS, which was not found ({error}); install the extra "
                f"that fits your driver ({EXTRAS}) or use --device cpu"
            ) from error
        workspace = cupy.empty(WORKSPACE, dtype="uint8")
        self._cublas = Cublas(library, workspace, tf32=precision == "tf32")

    def describe(self) -> str:
        properties = self._cupy.cuda.runtime.getDeviceProperties(self.device.id)
        rounded = ", TF32 products" if self.precision == "tf32" else ""
        return f"gpu ({properties['name'].decode()}{rounded})"

    # -- memory --------------------------------------------------------------------------------
    def _allocator_of(self, pool: Any) -> Callable[[int], Any]:
        """Return an allocator whose failure is one clear line, wherever memory is asked for."""
        out_of_memory = self._cupy.cuda.memory.OutOfMemoryError

        def allocate(size: int) -> Any:
            try:
                return pool.malloc(size)
            except out_of_memory as error:
                free, total = self._cupy.cuda.runtime.memGetInfo()
                raise DeviceMemoryError(
                    f"the GPU's memory is full: {size / 1e6:,.0f} MB more are needed, and "
                    f"{free / 1e6:,.0f} of {total / 1e6:,.0f} MB are free. Use a smaller "
                    "--batch-size or network, end what else runs there (`nvidia-smi`), or use "
                    "--device cpu"
                ) from error

        return allocate

    def free_memory(self) -> int:
        free: int = self._cupy.cuda.runtime.memGetInfo()[0]
        return free + int(self._pool.free_bytes())

    def reserved_memory(self) -> int:
        """Return the bytes that were taken from the device so far, in use or kept for later."""
        return int(self._pool.total_bytes())

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(self._cupy.asnumpy(array))

    # -- copies from the host --------------------------------------------------------------------
    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        cupy, kind, count = self._cupy, np.dtype(dtype), math.prod(shape)
        memory = cupy.cuda.alloc_pinned_memory(max(1, count * kind.itemsize))
        array = np.frombuffer(memory, kind, count).reshape(shape)
        events = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        staging = _Staging(cupy.empty(shape, dtype=kind), *events)
        staging.read.record(cupy.cuda.get_current_stream())  # of whoever had this memory before
        self._staging[array.ctypes.data] = staging
        return array

    def receive(self, staged: np.ndarray[Any, Any], out: Array, offset: Array, factor: Any) -> None:
        own = self._staging.get(staged.ctypes.data)
        if own is None or not staged.flags.c_contiguous or staged.dtype != own.device.dtype:
            self.gather(self._cupy.asarray(staged), None, out, None, offset, factor)
            return
        current = self._cupy.cuda.get_current_stream()
        raw = own.device[: len(staged)]
        self._copies.wait_event(own.read)
        raw.set(staged, stream=self._copies)
        own.copied.record(self._copies)
        current.wait_event(own.copied)
        self.gather(raw, None, out, None, offset, factor)
        own.read.record(current)

    def wait_for_copy(self, staged: np.ndarray[Any, Any]) -> None:
        own = self._staging.get(staged.ctypes.data)
        if own is not None:
            own.copied.synchronize()

    # -- work ----------------------------------------------------------------------------------
    def synchronize(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()

    def seconds(self, work: Callable[[], object]) -> float:
        begin, end = (self._cupy.cuda.Event() for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(self._cupy.cuda.get_elapsed_time(begin, end)) / 1e3

    def matmul(self, left: Array, right: Array, out: Array) -> Array:
        current = self._cupy.cuda.get_current_stream().ptr
        if self._cublas.matmul(left, right, out, current):
            return out
        return super().matmul(left, right, out)

    def capture(self, function: Any) -> Any:
        return Captured(self, function)

    def capture_graph(self, work: Callable[[], object]) -> Callable[[], None]:
        """Capture what ``work`` queues, without doing it; return what queues all of it at once.

        Everything must have run once before, so that kernels are compiled and loaded. What calls
        allocate on their way comes from a pool of its own, which lives as long as the graph.
        """
        cuda = self._cupy.cuda
        stream, pool = cuda.Stream(non_blocking=True), cuda.MemoryPool()
        with stream, cuda.using_allocator(self._allocator_of(pool)):
            stream.begin_capture(cuda.runtime.streamCaptureModeRelaxed)
            try:
                work()
            except BaseException:
                with suppress(*CAPTURE_ERRORS):
                    stream.end_capture()  # or the stream would stay in capture
                raise
            graph = stream.end_capture()
        graph.upload()

        def launch(_kept: Any = (pool, stream, work)) -> None:  # what the graph works on
            graph.launch()

        return launch

    def steps(self, samples: int, batch_size: int, width: int) -> StepsOnDevice:
        return StepsOnDevice(self, samples, batch_size, width)

    def generator(self, seed: int, name: str) -> Any:
        key = stream(seed, name).integers(2**63)
        return PhiloxStream(self.asarray(np.array([key, 0], dtype=np.uint64)))


def _check_device(cupy: Any) -> None:
    """Raise DeviceError unless a first allocation works: ``import cupy`` alone tells nothing."""
    runtime = cupy.cuda.runtime
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            count = runtime.getDeviceCount()
            cupy.zeros(1)
    except (RuntimeError, ImportError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        driver, needed = _major(runtime.driverGetVersion), _major(runtime.runtimeGetVersion)
        if 0 < driver < needed:
            raise DeviceError(
                f"device 'gpu': the driver knows CUDA {driver}, but the CuPy installed "
                f"needs CUDA {needed} ({reason}); install the extra that fits ({EXTRAS}), "
                "or use --device cpu"
            ) from error
        raise DeviceError(
            f"device 'gpu' needs a CUDA GPU and driver, and CuPy found none ({reason}); "
            "check `nvidia-smi`, or use --device cpu"
        ) from error
    if count < 1:
        raise DeviceError("device 'gpu': the driver lists no GPU; use --device cpu")


def _major(ask: Callable[[], int]) -> int:
    """Return the CUDA version that is told as 1000 · major + 10 · minor; 0 if none is."""
    try:
        return int(ask()) // 1000
    except RuntimeError:
        return 0
