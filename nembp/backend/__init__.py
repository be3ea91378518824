"""Devices and arrays.

Code says ``xp.exp(z, out=a)`` and ``z += b``, with ``xp = backend.xp`` NumPy or CuPy. A backend
adds what these lack or do not do alike: random draws, whole operations that a device may do in one
pass, steps that it may capture. :class:`Backend` itself uses nothing but the array-API standard, so
it runs on any conforming library (array-api-strict in the tests); :class:`NumpyBackend` and
:class:`~nembp.backend.gpu.CupyBackend` replace what their library does better.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from importlib.util import find_spec

from nembp.backend.standard import NO_CUPY, Array, Backend, NumpyBackend, Precision, stream
from nembp.errors import ArchitectureError, DeviceError, DeviceMemoryError

__all__ = ["Array", "Backend", "NumpyBackend", "Precision", "get_backend", "stream"]

# a device's one backend holds compiled kernels and a workspace
_cpu = cache(NumpyBackend)


@cache
def _gpu(precision: Precision = "float32") -> Backend:
    if not _has_cupy():  # nothing of a GPU is imported then
        raise DeviceError(NO_CUPY)
    from nembp.backend.gpu import CupyBackend

    return CupyBackend(precision)


def _has_cupy() -> bool:
    return sys.modules.get("cupy") is not None or find_spec("cupy") is not None


def get_backend(device: str | Backend = "cpu", precision: Precision = "float32") -> Backend:
    """Return the backend of a device name; a backend is returned as it is.

    ``"auto"`` takes a GPU where one works and the CPU otherwise. ``precision`` is of a GPU's
    products of float32 matrices; a CPU computes in float32 whatever is said.

    >>> get_backend("cpu").name
    'cpu'
    """
    if isinstance(device, Backend):
        return device
    if device == "cpu":
        return _cpu()
    if device == "gpu":
        return _gpu(precision)
    if device == "auto":
        try:
            return _gpu(precision)
        except (DeviceError, DeviceMemoryError):
            return _cpu()
    raise ArchitectureError(f"device must be 'auto', 'cpu' or 'gpu', got {device!r}")


def gpu_seems_present() -> bool:
    """Tell whether there is an NVIDIA driver, or CuPy: whether someone may expect a GPU to be used.

    Nothing is loaded or started for it.
    """
    if _has_cupy():
        return True
    drivers = "/dev/nvidiactl", "/dev/dxg"  # Linux, and Linux under Windows
    return any(map(os.path.exists, drivers)) or shutil.which("nvidia-smi") is not None
