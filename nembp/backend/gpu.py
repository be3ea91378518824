"""CuPy on a CUDA device: the only file that imports CuPy, and only when a GPU is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend.cublas import WORKSPACE, Cublas, load_cublas
from nembp.backend.fused import FusedKernels, PhiloxStream
from nembp.backend.graphs import Captured, StepsOnDevice, capture_graph
from nembp.backend.standard import PRECISIONS, Array, Precision, stream
from nembp.backend.transfers import Transfers
from nembp.errors import ArchitectureError, DeviceError, DeviceMemoryError

EXTRAS = "pip install 'nembp[cuda12]' or 'nembp[cuda13]', whichever `nvidia-smi` says"


class CupyBackend(FusedKernels):
    """CuPy on one CUDA device.

    Work is queued on the current stream, as a rule the default one.

    Parameters
    ----------
    precision : {"float32", "tf32"}
        Whether products of float32 matrices are computed in float32, or may round their factors
        to TF32, which is several times faster and keeps three digits.

    Raises
    ------
    ArchitectureError
        If the precision is unknown.
    DeviceError
        If CuPy or cuBLAS is not installed, or no usable GPU and driver are found.
    DeviceMemoryError
        If other programs fill the GPU's memory.
    """

    name = "gpu"
    column_bytes = 1 << 28

    def __init__(self, precision: Precision = "float32") -> None:
        if precision not in PRECISIONS:
            raise ArchitectureError(
                f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            )
        self.precision = precision
        self._cupy = cupy = _import_cupy()
        self._pool = cupy.get_default_memory_pool()
        cupy.cuda.set_allocator(self._allocator_of(self._pool))
        _check_device(cupy)
        super().__init__(cupy, cupy.cuda.Device())
        self._transfers = Transfers(cupy)
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

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        return self._transfers.host_buffer(shape, dtype)

    def wait_for_copy(self, staged: np.ndarray[Any, Any]) -> None:
        self._transfers.wait(staged)

    def receive(self, staged: np.ndarray[Any, Any], out: Array, offset: Array, factor: Any) -> None:
        with self._transfers.on_device(staged) as raw:
            self.gather(raw, None, out, None, offset, factor)

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
        """Capture what ``work`` queues, without doing it; return what queues all of it at once."""
        return capture_graph(self._cupy, work, self._allocator_of)

    def steps(self, samples: int, batch_size: int, width: int) -> StepsOnDevice:
        return StepsOnDevice(self, samples, batch_size, width)

    def generator(self, seed: int, name: str) -> Any:
        key = stream(seed, name).integers(2**63)
        return PhiloxStream(self.asarray(np.array([key, 0], dtype=np.uint64)))


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        raise DeviceError(
            "device 'gpu' needs CuPy, which is not installed; install the extra that fits "
            f"your driver ({EXTRAS}) or use --device cpu"
        ) from error
    return cupy


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
