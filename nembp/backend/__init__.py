"""Devices and arrays.

The array-API namespace ``backend.xp`` is the abstraction; code says ``xp.exp(z)``. A backend adds
only what the standard lacks: results written into a given array, random draws, and the device's
choice and synchronisation. :class:`Backend` itself uses nothing but the standard, so it runs on
any conforming library (array-api-strict in the tests); :class:`NumpyBackend` and
:class:`CupyBackend` replace what their library does better.
"""

from __future__ import annotations

from functools import cache

from nembp.backend.cpu import NumpyBackend
from nembp.backend.gpu import CupyBackend
from nembp.backend.standard import Array, Backend, stream
from nembp.errors import ArchitectureError, DeviceError

__all__ = ["Array", "Backend", "CupyBackend", "NumpyBackend", "get_backend", "stream"]


def get_backend(device: str | Backend = "cpu") -> Backend:
    """Return the backend of a device name.

    Parameters
    ----------
    device : {"cpu", "gpu", "auto"} or Backend
        ``"auto"`` takes a GPU where one works and the CPU otherwise. A backend is returned as it
        is.

    Raises
    ------
    DeviceError
        If ``"gpu"`` is asked for and cannot be used.
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
        return CupyBackend()
    if device == "auto":
        try:
            return CupyBackend()
        except DeviceError:
            return _cpu()
    raise ArchitectureError(f"device must be 'auto', 'cpu' or 'gpu', got {device!r}")


@cache
def _cpu() -> NumpyBackend:
    return NumpyBackend()
