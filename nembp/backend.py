"""Devices and arrays: the only file that imports CuPy.

The array-API namespace ``backend.xp`` is the abstraction; code says ``xp.exp(z)``. A backend adds
only what the standard lacks: results written into a given array, random draws, and the device's
choice and synchronisation. :class:`Backend` itself uses nothing but the standard, so it runs on
any conforming library (array-api-strict in the tests); :class:`NumpyBackend` and
:class:`CupyBackend` replace what their library does better.
"""

from __future__ import annotations

import warnings
import zlib
from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from nembp.errors import ArchitectureError, DeviceError
from nembp.threads import thread_count

Array = Any
DeviceName = Literal["auto", "cpu", "gpu"]

__all__ = ["Array", "Backend", "CupyBackend", "NumpyBackend", "get_backend", "stream"]


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one named stream of a seed.

    Streams with different names are independent, so that injected noise (``"noise/forward"``)
    never shifts the draws of weights or batches: arms of an experiment stay paired.

    >>> bool(stream(0, "weights").random() == stream(0, "weights").random())
    True
    """
    key = zlib.crc32(name.encode())
    return np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(key,)))


class Backend:
    """Arrays of one array-API namespace on one device, by nothing but the standard.

    Parameters
    ----------
    xp : namespace
        An array-API namespace (array-api-compat's, or array-api-strict itself).
    device : object, optional
        The namespace's own device object; its default device if None.
    """

    name = "standard"

    def __init__(self, xp: Any, device: Any = None) -> None:
        self.xp = xp
        self.device = device
        self._zero_rows: dict[tuple[int, Any], Array] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.describe()!r})"

    def describe(self) -> str:
        """Name the device for people."""
        return f"{self.xp.__name__} {self.device}"

    # -- arrays in and out ---------------------------------------------------------------------
    def dtype(self, name: str) -> Any:
        """Return the namespace's dtype called ``name``, for example ``"float32"``."""
        return getattr(self.xp, name)

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        """Return ``value`` (host data or an array of this backend) as an array on the device."""
        kind = None if dtype is None else self.dtype(dtype)
        return self.xp.asarray(value, dtype=kind, device=self.device)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        """Copy an array of this backend to the host (synchronises)."""
        return np.from_dlpack(array.to_device(self._host_device())).copy()

    def _host_device(self) -> Any:
        return self.xp.Device("CPU_DEVICE")

    def empty(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an uninitialised array."""
        return self.xp.empty(shape, dtype=self.dtype(dtype), device=self.device)

    def zeros(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of zeros."""
        return self.xp.zeros(shape, dtype=self.dtype(dtype), device=self.device)

    def ones(self, shape: tuple[int, ...], dtype: str) -> Array:
        """Return an array of ones."""
        return self.xp.ones(shape, dtype=self.dtype(dtype), device=self.device)

    def synchronize(self) -> None:
        """Wait until the device has done all work queued so far."""

    # -- results written into a given array ------------------------------------------------------
    def into(self, out: Array, function: Callable[..., Array], *args: Any) -> Array:
        """Write ``function(*args)`` into ``out`` and return ``out``."""
        out[...] = function(*args)
        return out

    def matmul(self, left: Array, right: Array, out: Array) -> Array:
        """Write the matrix product ``left @ right`` into ``out``."""
        return self.into(out, self.xp.matmul, left, right)

    def row_dot(self, left: Array, right: Array, out: Array) -> Array:
        """Write ``out[i, 0] = sum_j left[i, j] right[i, j]`` (no conjugate)."""
        out[...] = self.xp.sum(left * right, axis=1, keepdims=True)
        return out

    def row_max(self, x: Array, out: Array) -> Array:
        """Write ``out[i, 0] = max_j x[i, j]``."""
        out[...] = self.xp.max(x, axis=1, keepdims=True)
        return out

    def row_sum(self, x: Array, out: Array) -> Array:
        """Write ``out[i, 0] = sum_j x[i, j]``."""
        out[...] = self.xp.sum(x, axis=1, keepdims=True)
        return out

    def take_rows(self, table: Array, index: Array, out: Array) -> Array:
        """Write ``out[i] = table[index[i]]``; every index must be in range."""
        out[...] = self.xp.take(table, index, axis=0)
        return out

    def cast(self, source: Array, out: Array) -> Array:
        """Write ``source`` into ``out``, converted to its dtype."""
        out[...] = self.xp.astype(source, out.dtype)
        return out

    def keep(self, x: Array, mask: Array) -> Array:
        """Set ``x`` to zero where the boolean ``mask`` (broadcast) is False, in place."""
        x[...] = self.xp.where(mask, x, self.xp.zeros_like(x))
        return x

    def rectify(self, z: Array) -> Array:
        """Write ``max(z, 0)`` over ``z`` (rows, width)."""
        return self.into(z, self.xp.maximum, z, self._zero_row(z))

    def keep_where_positive(self, x: Array, a: Array, scratch: Array) -> Array:
        """Set ``x`` to zero where ``a`` ≤ 0, in place; ``scratch`` has their shape and dtype."""
        return self.keep(x, a > 0)

    def softplus(self, z: Array, out: Array) -> Array:
        """Write log(1 + eᶻ) into ``out``."""
        return self.into(out, self.xp.logaddexp, z, self._zero_row(z))

    def _zero_row(self, z: Array) -> Array:
        # an array, since NumPy's maximum with a scalar is four times slower
        key = (z.shape[-1], z.dtype)
        if key not in self._zero_rows:
            self._zero_rows[key] = self.xp.zeros(z.shape[-1], dtype=z.dtype, device=self.device)
        return self._zero_rows[key]

    # -- random draws ------------------------------------------------------------------------------
    def generator(self, seed: int, name: str) -> Any:
        """Return the generator of a named stream for :meth:`normal` and :meth:`uniform`."""
        return stream(seed, name)

    def normal(self, generator: Any, out: Array) -> Array:
        """Fill ``out`` with draws of mean 0 and standard deviation 1."""
        draws = generator.standard_normal(out.shape, dtype=_host_dtype(out))
        out[...] = self._from_host(draws, out)
        return out

    def uniform(self, generator: Any, out: Array) -> Array:
        """Fill ``out`` with draws from [0, 1)."""
        out[...] = self._from_host(generator.random(out.shape, dtype=_host_dtype(out)), out)
        return out

    def _from_host(self, draws: np.ndarray[Any, Any], like: Array) -> Array:
        return self.xp.asarray(draws, dtype=like.dtype, device=self.device)

    # -- work over long vectors ----------------------------------------------------------------
    chunk = 1 << 62  # elements that an optimizer works through at a time

    def lanes(self) -> int:
        """Return how many threads share an optimizer's chunks."""
        return 1


def _host_dtype(out: Array) -> type[np.floating[Any]]:
    """Return in what precision to draw for ``out``: in its own, as NumPy fills its arrays."""
    return np.float32 if str(out.dtype).endswith("float32") else np.float64


class NumpyBackend(Backend):
    """NumPy on the CPU: every result goes into its buffer, nothing is allocated on the way."""

    name = "cpu"
    chunk = 1 << 16  # four float32 vectors and the scratch of a chunk stay in a 1 MiB cache

    def __init__(self) -> None:
        import array_api_compat.numpy as xp

        super().__init__(xp)

    def describe(self) -> str:
        return "cpu"

    def lanes(self) -> int:
        return thread_count()

    def asarray(self, value: Any, dtype: str | None = None) -> Array:
        return np.asarray(value, dtype=dtype)

    def to_numpy(self, array: Array) -> np.ndarray[Any, Any]:
        return np.array(array)

    def into(self, out: Array, function: Callable[..., Array], *args: Any) -> Array:
        return function(*args, out=out)

    def matmul(self, left: Array, right: Array, out: Array) -> Array:
        return np.matmul(left, right, out=out)

    def row_dot(self, left: Array, right: Array, out: Array) -> Array:
        # einsum neither conjugates nor allocates, and is as fast as a product here
        return np.einsum("ij,ij->i", left, right, out=out[:, 0])

    def row_max(self, x: Array, out: Array) -> Array:
        return np.maximum.reduce(x, axis=1, keepdims=True, out=out)

    def row_sum(self, x: Array, out: Array) -> Array:
        return np.add.reduce(x, axis=1, keepdims=True, out=out)

    def take_rows(self, table: Array, index: Array, out: Array) -> Array:
        # mode="raise" would copy through a temporary; indices come from permutations
        return np.take(table, index, axis=0, out=out, mode="clip")

    def cast(self, source: Array, out: Array) -> Array:
        np.copyto(out, source, casting="unsafe")
        return out

    def keep(self, x: Array, mask: Array) -> Array:
        return np.multiply(x, mask, out=x)

    def keep_where_positive(self, x: Array, a: Array, scratch: Array) -> Array:
        mask = scratch.view(np.bool_)[:, : a.shape[1]]  # the mask borrows the scratch's memory
        np.greater(a, 0, out=mask)
        return np.multiply(x, mask, out=x)

    def softplus(self, z: Array, out: Array) -> Array:
        if z.dtype.kind == "c":  # complex steps: analytic, and small z
            return np.log1p(np.exp(z, out=out), out=out)
        return super().softplus(z, out)

    def normal(self, generator: Any, out: Array) -> Array:
        if out.dtype in (np.float32, np.float64) and out.flags.c_contiguous:
            return generator.standard_normal(out=out, dtype=out.dtype)
        return super().normal(generator, out)

    def uniform(self, generator: Any, out: Array) -> Array:
        if out.dtype in (np.float32, np.float64) and out.flags.c_contiguous:
            return generator.random(out=out, dtype=out.dtype)
        return super().uniform(generator, out)


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
        return _numpy_backend()
    if device == "gpu":
        return CupyBackend()
    if device == "auto":
        try:
            return CupyBackend()
        except DeviceError:
            return _numpy_backend()
    raise ArchitectureError(f"device must be 'auto', 'cpu' or 'gpu', got {device!r}")


_CPU: list[NumpyBackend] = []


def _numpy_backend() -> NumpyBackend:
    if not _CPU:
        _CPU.append(NumpyBackend())
    return _CPU[0]
