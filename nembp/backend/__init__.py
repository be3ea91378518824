"""Devices and arrays.

The array-API namespace ``backend.xp`` is the abstraction; code says ``xp.exp(z)``. A backend adds
only what the standard lacks: results written into a given array, random draws, and the device's
choice and synchronisation. :class:`Backend` itself uses nothing but the standard, so it runs on
any conforming library (array-api-strict in the tests); :class:`NumpyBackend` and
:class:`CupyBackend` replace what their library does better.
"""

from __future__ import annotations

import os
import shutil
import sys
from functools import cache
from importlib.util import find_spec

from nembp.backend.cpu import NumpyBackend
from nembp.backend.gpu import PRECISIONS, CupyBackend, Precision
from nembp.backend.standard import Array, Backend, stream
from nembp.errors import ArchitectureError, DeviceError, DeviceMemoryError

__all__ = [
    "PRECISIONS",
    "Array",
    "Backend",
    "CupyBackend",
    "NumpyBackend",
    "Precision",
    "get_backend",
    "gpu_seems_present",
    "stream",
]

_GPUS: dict[tuple[int, Precision], CupyBackend] = {}


def get_backend(device: str | Backend = "cpu", precision: Precision = "float32") -> Backend:
    """Return the backend of a device name.

    Parameters
    ----------
    device : {"cpu", "gpu", "auto"} or Backend
        ``"auto"`` takes a GPU where one works and the CPU otherwise. A backend is returned as it
        is.
    precision : {"float32", "tf32"}
        Of a GPU's products of float32 matrices; a CPU computes in float32 whatever is said.

    Raises
    ------
    DeviceError
        If ``"gpu"`` is asked for and cannot be used.
    DeviceMemoryError
        If other programs fill its memory.
    ArchitectureError
        If the name is none of the three.

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
    if sys.modules.get("cupy") is not None or find_spec("cupy") is not None:
        return True
    drivers = "/dev/nvidiactl", "/dev/dxg"  # Linux, and Linux under Windows
    return any(map(os.path.exists, drivers)) or shutil.which("nvidia-smi") is not None


def _gpu(precision: Precision) -> CupyBackend:
    """Return the GPU's one backend of a precision: it holds compiled kernels and a workspace."""
    key = id(sys.modules.get("cupy")), precision
    if key not in _GPUS:
        made = CupyBackend(precision)
        key = id(sys.modules.get("cupy")), precision
        _GPUS[key] = made
    return _GPUS[key]


@cache
def _cpu() -> NumpyBackend:
    return NumpyBackend()
