"""The part of a backend that needs nothing but the array-API standard, and the named streams."""

from __future__ import annotations

import operator
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from nembp.backend.hooks import Array, Hooks
from nembp.errors import ArchitectureError

__all__ = ["Array", "Backend", "fill_normal", "stream"]


def stream(seed: int, name: str) -> np.random.Generator:
    """Return the generator of one named stream of a seed.

    Streams with different names are independent, so that injected noise (``"noise/forward"``)
    never shifts the draws of weights or batches: arms of an experiment stay paired.

    Raises
    ------
    ArchitectureError
        If the seed is no integer of at least 0.

    >>> bool(stream(0, "weights").random() == stream(0, "weights").random())
    True
    """
    try:
        entropy = operator.index(seed)
    except TypeError:
        entropy = -1
    if entropy < 0:
        raise ArchitectureError(f"seed must be an integer of at least 0, got {seed!r}")
    key = zlib.crc32(name.encode())
    return np.random.default_rng(np.random.SeedSequence(entropy=entropy, spawn_key=(key,)))


class WithOut:
    """A namespace of the array-API standard, to whose functions ``out=`` is added.

    The standard has no ``out=``: the result is computed, then assigned.
    """

    def __init__(self, xp: Any) -> None:
        self._xp = xp

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._xp, name)
        if isinstance(member, type) or not callable(member):
            return member

        def function(*args: Any, out: Array = None, **options: Any) -> Array:
            result = member(*args, **options)
            if out is None:
                return result
            if result.dtype != out.dtype:
                raise TypeError(f"{name} gives {result.dtype}, but out has {out.dtype}")
            out[...] = result
            return out

        setattr(self, name, function)
        return function


class Backend(Hooks):
    """Arrays of one namespace on one device, by nothing but the array-API standard and ``out=``.

    Parameters
    ----------
    xp : namespace
        NumPy, CuPy, or an array-API namespace whose functions have no ``out=`` (array-api-strict
        in the tests), which are given one by :class:`WithOut`.
    device : object, optional
        The namespace's own device object; its default device if None.
    """

    name = "standard"

    def __init__(self, xp: Any, device: Any = None) -> None:
        self.xp = xp if hasattr(xp, "ufunc") else WithOut(xp)
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

    def seconds(self, work: Callable[[], object]) -> float:
        """Return how long the device takes for what ``work`` queues (synchronises)."""
        self.synchronize()
        begin = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - begin

    def free_memory(self) -> int:
        """Return how many bytes fit on the device now; as good as any number where none is told."""
        return 1 << 62

    # -- results written into a given array ------------------------------------------------------
    def into(self, out: Array, function: Callable[..., Array], *args: Any) -> Array:
        """Write ``function(*args)`` into ``out`` and return ``out``."""
        return function(*args, out=out)

    def matmul(self, left: Array, right: Array, out: Array) -> Array:
        """Write the matrix product ``left @ right`` into ``out``."""
        return self.xp.matmul(left, right, out=out)

    def row_dot(self, left: Array, right: Array, out: Array) -> Array:
        """Write ``out[i, 0] = sum_j left[i, j] right[i, j]`` (no conjugate)."""
        return self.xp.sum(left * right, axis=1, keepdims=True, out=out)

    def row_max(self, x: Array, out: Array) -> Array:
        """Write ``out[i, 0] = max_j x[i, j]``."""
        return self.xp.max(x, axis=1, keepdims=True, out=out)

    def row_sum(self, x: Array, out: Array) -> Array:
        """Write ``out[i, 0] = sum_j x[i, j]``."""
        return self.xp.sum(x, axis=1, keepdims=True, out=out)

    def take_rows(self, table: Array, index: Array, out: Array) -> Array:
        """Write ``out[i] = table[index[i]]``; every index must be in range."""
        return self.xp.take(table, index, axis=0, out=out)

    def copy(self, source: Array, out: Array) -> Array:
        """Write ``source`` into ``out``, of the same dtype."""
        out[...] = source
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
        return self.xp.maximum(z, self._zero_row(z), out=z)

    def keep_where_positive(self, x: Array, a: Array, scratch: Array) -> Array:
        """Set ``x`` to zero where ``a`` ≤ 0, in place; ``scratch`` has their shape and dtype."""
        return self.keep(x, a > 0)

    def softplus(self, z: Array, out: Array) -> Array:
        """Write log(1 + eᶻ) into ``out``."""
        return self.xp.logaddexp(z, self._zero_row(z), out=out)

    def _zero_row(self, z: Array) -> Array:
        # an array, since NumPy's maximum with a scalar is four times slower
        key = (z.shape[-1], z.dtype)
        if key not in self._zero_rows:
            self._zero_rows[key] = self.zeros((z.shape[-1],), str(z.dtype).rpartition(".")[2])
        return self._zero_rows[key]

    has_cache = False  # whether work in blocks of cache size pays
    has_strided_views = False

    # -- windows of images ---------------------------------------------------------------------
    def copy_windows(self, images: Array, stride: tuple[int, int], out: Array) -> Array:
        """Write ``out[n, p, q, i, j, c] = images[n, s p + i, t q + j, c]`` with stride (s, t)."""
        for i, j, pixels in _pixels_of_windows(images, stride, out):
            out[:, :, :, i, j, :] = pixels
        return out

    def add_windows(self, windows: Array, stride: tuple[int, int], out: Array) -> Array:
        """Add ``windows[n, p, q, i, j, c]`` to ``out[n, s p + i, t q + j, c]``."""
        for i, j, pixels in _pixels_of_windows(out, stride, windows):
            pixels[...] = pixels + windows[:, :, :, i, j, :]
        return out

    def strided_view(self, array: Array, shape: tuple[int, ...], steps: tuple[int, ...]) -> Array:
        """Return a view of a contiguous array from its start, with steps in elements."""
        raise NotImplementedError("the array-API standard has no strided views")

    # -- random draws ------------------------------------------------------------------------------
    def generator(self, seed: int, name: str) -> Any:
        """Return the generator of a named stream for :meth:`normal` and :meth:`uniform`."""
        return stream(seed, name)

    def normal(self, generator: Any, out: Array) -> Array:
        """Fill ``out`` with draws of mean 0 and standard deviation 1."""
        draws = np.empty(out.shape, dtype=_host_dtype(out))
        out[...] = self._from_host(fill_normal(generator, draws), out)
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


def _pixels_of_windows(
    images: Array, stride: tuple[int, int], windows: Array
) -> Iterator[tuple[int, int, Array]]:
    """Yield, for each pixel (i, j) of a window, the view of that pixel in all windows."""
    (s, t), (_, rows, columns, height, width, _) = stride, windows.shape
    for i in range(height):
        for j in range(width):
            down = slice(i, i + s * (rows - 1) + 1, s)
            across = slice(j, j + t * (columns - 1) + 1, t)
            yield i, j, images[:, down, across, :]


def fill_normal(generator: np.random.Generator, out: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Fill a contiguous array of the host with draws from N(0, 1).

    Float32 by Box and Muller (1958): √(−2 log u) cos 2πv and √(−2 log u) sin 2πv are independent
    and normal for u, v uniform on (0, 1]; four times as fast as the generator's own ziggurat, since
    NumPy vectorizes every step. The steps of u, 2⁻²⁴, end the tails at 5.8, beyond which lies one
    normal draw in 10⁸. Float64 by the generator.
    """
    if out.dtype != np.float32:
        return generator.standard_normal(out=out, dtype=out.dtype.type)
    flat = out.reshape(-1)
    if flat.size % 2:
        flat[-1] = generator.standard_normal(dtype=np.float32)
    for start in range(0, flat.size - 1, 2 * _PAIRS):
        block = flat[start : start + 2 * _PAIRS]
        pairs = block.size // 2
        r, angle = block[:pairs], block[pairs : 2 * pairs]
        generator.random(out=r, dtype=np.float32)
        generator.random(out=angle, dtype=np.float32)
        np.subtract(1.0, r, out=r)
        np.log(r, out=r)
        np.multiply(r, -2.0, out=r)
        np.sqrt(r, out=r)
        np.multiply(angle, np.float32(2.0 * np.pi), out=angle)
        sine = _scratch(pairs)
        np.sin(angle, out=sine)
        np.cos(angle, out=angle)
        np.multiply(angle, r, out=angle)
        np.multiply(sine, r, out=r)
    return out


_PAIRS = 1 << 15  # worked on at a time, in cache
_LOCAL = threading.local()


def _scratch(size: int) -> np.ndarray[Any, Any]:
    if not hasattr(_LOCAL, "scratch"):
        _LOCAL.scratch = np.empty(_PAIRS, dtype=np.float32)
    scratch: np.ndarray[Any, Any] = _LOCAL.scratch[:size]
    return scratch


def _host_dtype(out: Array) -> type[np.floating[Any]]:
    """Return in what precision to draw for ``out``: in its own, as NumPy fills its arrays."""
    return np.float32 if str(out.dtype).endswith("float32") else np.float64
