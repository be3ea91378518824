"""CuPy on a CUDA device: the only file that imports CuPy, and only when a GPU is asked for."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend.standard import Array, Backend, stream
from nembp.errors import DeviceError

__all__ = ["CupyBackend"]


class CupyBackend(Backend):
    """CuPy on one CUDA device.

    Raises
    ------
    DeviceError
        If CuPy is not installed, or no usable GPU and driver are found.
    """

    name = "gpu"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise DeviceError(
                "device 'gpu' needs CuPy, which is not installed; install the extra that fits "
                "your driver (pip install 'nembp[cuda12]' or 'nembp[cuda13]') or use --device cpu"
            ) from error
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                count = cupy.cuda.runtime.getDeviceCount()
                cupy.zeros(1)  # `import cupy` succeeds without a GPU; the first call tells
        except (RuntimeError, ImportError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise DeviceError(
                f"device 'gpu' needs a CUDA GPU and driver, and CuPy found none ({reason}); "
                "check `nvidia-smi`, or use --device cpu"
            ) from error
        import array_api_compat.cupy as xp

        if count < 1:
            raise DeviceError("device 'gpu': the driver lists no GPU; use --device cpu")
        self._cupy = cupy
        super().__init__(xp, cupy.cuda.Device())

    def describe(self) -> str:
        properties = self._cupy.cuda.runtime.getDeviceProperties(self.device.id)
        return f"gpu ({properties['name'].decode()})"

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        return self._cupy.asarray(value, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        return np.asarray(self._cupy.asnumpy(array))

    def synchronize(self) -> None:
        self._cupy.cuda.get_current_stream().synchronize()

    def free_memory(self) -> int:
        free: int = self._cupy.cuda.runtime.memGetInfo()[0]
        return free + int(self._cupy.get_default_memory_pool().free_bytes())

    def into(self, out: Array, function: Callable[..., Array], *args: Any) -> Array:
        return function(*args, out=out)

    def take_rows(self, table: Array, index: Array, out: Array) -> Array:
        return self._cupy.take(table, index, axis=0, out=out)

    def generator(self, seed: int, name: str) -> Any:
        key = int(stream(seed, name).integers(2**63))
        return self._cupy.random.Generator(self._cupy.random.XORWOW(key))

    def normal(self, generator: Any, out: Array) -> Array:
        if isinstance(generator, np.random.Generator):  # noise drawn on the host, to compare
            return super().normal(generator, out)
        return generator.standard_normal(out.shape, dtype=out.dtype, out=out)

    def uniform(self, generator: Any, out: Array) -> Array:
        if isinstance(generator, np.random.Generator):
            return super().uniform(generator, out)
        return generator.random(out.shape, dtype=out.dtype, out=out)
