"""Calling a component on any device with arrays of the host, and watching what it writes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend import Array, Backend
from nembp.engine.likelihoods import Likelihood, Readout
from nembp.verification.layout import Vector

__all__ = ["Host", "LikelihoodHost", "dtype_name"]


def dtype_name(array: Vector) -> str:
    """Return the dtype that a component computes in for arguments like ``array``."""
    return str(array.dtype)


class Host:
    """Carries arrays to a backend and back.

    Attributes
    ----------
    changed : set of str
        Arguments that a call wrote into, though it should only read them.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.changed: set[str] = set()

    def array(self, value: Vector, dtype: str | None = None) -> Array:
        """Return a copy of ``value`` on the device."""
        return self.backend.asarray(np.array(value), dtype or dtype_name(value))

    def numpy(self, array: Array) -> Vector:
        """Return a copy of ``array`` on the host."""
        return self.backend.to_numpy(array)

    def call(
        self, function: Callable[..., None], shape: tuple[int, ...], dtype: str, **arguments: Vector
    ) -> Vector:
        """Return what ``function(backend, *arguments, out)`` writes into an ``out`` full of NaN."""
        given = {name: self.array(value, dtype) for name, value in arguments.items()}
        out = self.array(np.full(shape, np.nan), dtype)
        function(self.backend, *given.values(), out)
        self.watch(given, arguments)
        return self.numpy(out)

    def watch(self, given: dict[str, Array], before: dict[str, Vector]) -> None:
        """Note which arguments no longer are what they were."""
        for name, array in given.items():
            expected = self.numpy(self.array(before[name], str(array.dtype).rpartition(".")[2]))
            if not np.array_equal(self.numpy(array), expected, equal_nan=True):
                self.changed.add(name)


class LikelihoodHost(Host):
    """Calls one likelihood on readouts whose work space holds NaN."""

    def __init__(self, backend: Backend, likelihood: Likelihood) -> None:
        super().__init__(backend)
        self.likelihood = likelihood

    def readout(self, z: Vector) -> Readout:
        """Return a readout of ``z`` whose work space holds NaN."""
        backend, dtype = self.backend, dtype_name(z)
        o = Readout.allocate(backend, z.shape[0], z.shape[1], dtype)
        for buffer in (o.a, o.scratch, o.column, o.spare):
            buffer[...] = self.array(np.full(tuple(buffer.shape), np.nan), dtype)
        o.z[...] = self.array(z)
        self.likelihood.activate(o)
        return o

    def log_likelihood(self, z: Vector, t: Vector, *sums: Vector) -> Vector:
        """Return log p(t) of each row, shape (rows,)."""
        dtype = dtype_name(z)
        given = dict(zip(("t", "mass", "square"), (t, *sums), strict=False))
        arrays = {name: self.array(value, dtype) for name, value in given.items()}
        result = self.likelihood.log_likelihood(self.readout(z), *arrays.values())
        self.watch(arrays, given)
        return self.numpy(result)[:, 0]

    def error(self, z: Vector, t: Vector, **options: Any) -> Vector:
        """Return the error, written over NaN."""
        options = {k: self._device(v, z) for k, v in options.items()}
        return self._written(z, lambda o, a, out: self.likelihood.error(o, a, out, **options), t=t)

    def gain_terms(self, z: Vector, t: Vector, n: Vector) -> Vector:
        """Return the gain of each neuron's noise."""
        return self._written(z, self.likelihood.gain_terms, t=t, n=n)

    def gain_slope(self, z: Vector, t: Vector) -> Vector:
        """Return ∂gain/∂n at n = 0."""
        return self._written(z, self.likelihood.gain_slope, t=t)

    def _device(self, value: Any, z: Vector) -> Any:
        return self.array(value, dtype_name(z)) if isinstance(value, np.ndarray) else value

    def _written(self, z: Vector, function: Callable[..., None], **arguments: Vector) -> Vector:
        o, dtype = self.readout(z), dtype_name(z)
        given = {name: self.array(value, dtype) for name, value in arguments.items()}
        before = {"o.z": self.numpy(o.z), "o.a": self.numpy(o.a)}
        out = self.array(np.full(z.shape, np.nan), dtype)
        function(o, *given.values(), out)
        self.watch({**given, "o.z": o.z, "o.a": o.a}, {**arguments, **before})
        return self.numpy(out)
