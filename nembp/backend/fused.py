"""Whole operations of the engine by CUDA kernels: the sources in ``cuda/``, and their launches.

The sources are plain CUDA C with nothing included, compiled on the user's machine (NVRTC, through
CuPy, which keeps the result). ``real`` is float or double, so there are two modules.

Only what the kernels were written for goes to them: contiguous float32 and float64 arrays, and
activations, likelihoods, noise and optimizers whose own class names a ``kernel``. Others take the
way of every extension, operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import numpy as np

from nembp.backend.standard import Array, Backend, Numbers, Pair

SOURCES = "common", "layers", "likelihoods", "noise", "optimizers", "batches", "images"
OPTIONS = ("--std=c++17",)
THREADS = 256  # of a block; at most THREADS of common.cu where it reduces
MOST_BLOCKS = 1 << 13  # of a loop over elements: a multiple of what any device runs at once
LONGEST = 1 << 31  # elements: the kernels divide 32-bit places
SHORT = 1024  # rows; the columns of more are summed by a product
NULL = np.uintp(0)

# what the kernels call the names that the engine's classes have as `kernel`
ACTIVATIONS = {"identity": 0, "logistic": 1, "tanh": 2, "relu": 3, "leaky-relu": 4}
LIKELIHOODS = {"multinomial": 0, "gaussian": 1, "bernoulli": 2, "bipolar": 3}
LAWS = {"gaussian": 0, "uniform": 1}
GATHERS = {"uint8": "gather_bytes", "float32": "gather_floats", "float64": "gather_doubles"}


@cache
def kernel_source(dtype: str) -> str:
    """Return the source of the kernels for ``float32`` or ``float64``."""
    folder = files("nembp.backend") / "cuda"
    parts = [(folder / f"{name}.cu").read_text(encoding="utf-8") for name in SOURCES]
    return "\n".join(["#define NEMBP_DOUBLE"] * (dtype == "float64") + parts)


class Kernels:
    """The kernels of one precision, launched on the current stream.

    Arrays are passed as pointers, None as the null pointer, whole numbers as int and Python's
    floats as ``real``, float or double; NumPy's scalars as they are.
    """

    def __init__(self, cupy: Any, dtype: str) -> None:
        self.real = np.float32 if dtype == "float32" else np.float64
        self._module = cupy.RawModule(code=kernel_source(dtype), options=OPTIONS)
        self._functions: dict[str, Any] = {}

    def each(self, name: str, n: int, *args: Any) -> None:
        """Launch over ``n`` elements."""
        self.launch(name, max(1, min(MOST_BLOCKS, -(-n // THREADS))), THREADS, *args)

    def rows(self, name: str, rows: int, width: int, *args: Any) -> None:
        """Launch with a block for each row, of as many threads as suit its width."""
        self.launch(name, rows, min(THREADS, max(32, 1 << (width - 1).bit_length())), *args)

    def block(self, name: str, *args: Any) -> None:
        """Launch one block."""
        self.launch(name, 1, THREADS, *args)

    def launch(self, name: str, blocks: int, threads: int | tuple[int, int], *args: Any) -> None:
        """Launch so many blocks of so many threads; without rows there are none."""
        if not blocks:
            return
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
        block = threads if isinstance(threads, tuple) else (threads,)
        function((blocks,), block, tuple(map(self._typed, args)))

    def _typed(self, arg: Any) -> Any:
        kind = type(arg)
        if kind is int:
            return np.int32(arg)
        return self.real(arg) if kind is float else NULL if arg is None else arg


@dataclass(frozen=True)
class PhiloxStream:
    """A stream of random numbers on the device."""

    state: Array  # two uint64: key, and number of the next call, which every call moves on


class FusedKernels(Backend):
    """Operations by kernels, where :meth:`kernels_of` finds them; else one by one."""

    def __init__(self, xp: Any, device: Any = None) -> None:
        super().__init__(xp, device)
        self._kernels: dict[str, Kernels] = {}
        self._tables: dict[Any, Array] = {}  # kept: captured steps read them

    def kernels_of(self, *arrays: Array) -> Kernels | None:
        """Return the kernels for arrays (or None), all contiguous and of one real dtype."""
        dtype = str(arrays[0].dtype)
        for array in arrays:
            if array is not None and not (
                str(array.dtype) == dtype and array.flags.c_contiguous and array.size < LONGEST
            ):
                return None
        return self.kernels(dtype) if dtype in ("float32", "float64") else None

    def kernels(self, dtype: str) -> Kernels:
        """Return the kernels of a dtype, compiled at the first call."""
        if dtype not in self._kernels:
            self._kernels[dtype] = Kernels(self.xp, dtype)
        return self._kernels[dtype]

    def has_kernel(self, named: Any) -> bool:
        return vars(type(named)).get("kernel") is not None

    def row_dot(self, left: Array, right: Array, out: Array) -> Array:
        kernels = self.kernels_of(left, out)
        if left is not right or kernels is None:
            return super().row_dot(left, right, out)
        rows, width = left.shape
        kernels.rows("row_squares", rows, width, left, width, out)
        return out

    # -- a layer -------------------------------------------------------------------------------
    def activate(self, activation: Any, z: Array, bias: Array, scratch: Array) -> None:
        kind, kernels = _id(activation, ACTIVATIONS), self.kernels_of(z, bias)
        if kind is None or kernels is None:
            super().activate(activation, z, bias, scratch)
        elif bias is not None or kind:
            width = z.shape[1] if bias is None else bias.shape[0]
            slope = float(getattr(activation, "slope", 0.0))
            kernels.each("add_bias_activate", z.size, z, bias, z.size, width, kind, slope)

    def multiply_derivative(self, activation: Any, error: Array, a: Array, scratch: Array) -> None:
        kind, kernels = _id(activation, ACTIVATIONS), self.kernels_of(error, a)
        if kind is None or kernels is None:
            super().multiply_derivative(activation, error, a, scratch)
        elif kind:
            slope = float(getattr(activation, "slope", 0.0))
            kernels.each("multiply_derivative", error.size, error, a, error.size, kind, slope)

    def sum_rows(self, pairs: Sequence[tuple[Array, Array]]) -> None:
        """Sum the rows of all short matrices by one kernel, which finds them in a table."""
        lines: list[tuple[int, ...]] = []
        kernels, blocks = None, 0
        for x, out in pairs:
            found = self.kernels_of(x, out) if x.shape[0] <= SHORT else None
            if found is None or kernels not in (None, found):
                super().sum_rows([(x, out)])
                continue
            kernels = found
            lines.append((x.data.ptr, out.data.ptr, *x.shape, blocks))
            blocks += -(-x.shape[1] // 32)
        if kernels is not None:
            table = self._kept(tuple(lines), lambda: self.asarray(np.array(lines, dtype=np.int64)))
            kernels.launch("sum_rows", blocks, (32, 32), table, len(lines))

    def _kept(self, key: Any, make: Callable[[], Array]) -> Array:
        """Return an array of the device, always the same for a key: a graph may hold it."""
        if key not in self._tables:
            self._tables[key] = make()
        return self._tables[key]

    # -- ends ------------------------------------------------------------------------------------
    def output_and_score(
        self, likelihood: Any, o: Any, t: Array, counts: Array = None, squares: Array = None
    ) -> Array:
        kind = _id(likelihood, LIKELIHOODS)
        kernels = self.kernels_of(o.z, o.a, t, o.column, counts, squares)
        if kind is None or kernels is None:
            return super().output_and_score(likelihood, o, t, counts, squares)
        rows, width = o.z.shape
        numbers = float(likelihood.scale), float(likelihood.log_normalizer(width))
        if kind != LIKELIHOODS["gaussian"]:
            squares = None
        arrays = o.z, o.a, t, counts, squares, o.column
        kernels.rows("output_and_score", rows, width, *arrays, width, kind, *numbers)
        return o.column

    def output_error(
        self, likelihood: Any, o: Any, t: Array, out: Array, counts: Any, factor: float
    ) -> None:
        column = counts if hasattr(counts, "shape") else None
        kernels = self.kernels_of(o.a, t, out, column)
        plain = column is not None or counts is None or counts == 1.0
        if _id(likelihood, LIKELIHOODS) is None or kernels is None or not plain:
            super().output_error(likelihood, o, t, out, counts, factor)
            return
        rows, width = o.a.shape
        own = counts is None and likelihood.counts_are_target_sums
        args = width, int(own), float(factor * likelihood.scale)
        kernels.rows("output_error", rows, width, o.a, t, column, out, *args)

    def sum_column(self, column: Array, out: Array, factor: float) -> None:
        if kernels := self.kernels_of(column, out):
            kernels.block("sum_column", column, column.shape[0], float(factor), out)
        else:
            super().sum_column(column, out, factor)

    def count_classes(
        self, members: Array, counts: Array, column: Array = None, sums: Array = None
    ) -> None:
        if kernels := self.kernels_of(members, counts, column, sums):
            rows, classes = members.shape
            args = members, column, rows, classes, counts, sums
            kernels.rows("count_classes", classes, rows, *args)
        else:
            super().count_classes(members, counts, column, sums)

    # -- noise and optimizers --------------------------------------------------------------------
    def screen(self, source: Any, o: Any, t: Array) -> None:
        noise, stream, likelihood = source.noise, source.generator, source.likelihood
        linear, (rows, width) = likelihood.gain_is_linear, t.shape
        signal, means = o.z if linear else o.a, (source.accepted, source.gain)
        kernels = self.kernels_of(source.n, signal, t, *means)
        drawn = self.has_kernel(source) and isinstance(stream, PhiloxStream) and noise.law in LAWS
        once = noise.kind != "drift" and source.draws == 1 and source.screening != "expectation"
        if not (drawn and once) or kernels is None or _id(likelihood, LIKELIHOODS) is None:
            super().screen(source, o, t)
            return
        flags = (  # the bits of `how` in noise.cu
            noise.mode == "multiplicative", source.zero_sum, source.screening == "component",
            noise.rejected == "reflect", noise.kind == "blind", noise.kind == "anti", linear,
        )  # fmt: skip
        how = sum(flag << bit for bit, flag in enumerate(flags))
        std = source.std
        device, number = (None, std) if isinstance(std, int | float) else (std, 0.0)
        shape = (2, rows), str(t.dtype)  # the share kept and the gain of each row
        of_rows = self._kept(shape, lambda: self.empty(*shape))
        kernels.rows(
            "draw_and_screen", rows, width, source.n, signal, t, of_rows, stream.state, device,
            np.float64(number), width, LAWS[noise.law], how, float(likelihood.scale),
        )  # fmt: skip
        kernels.block("finish_noise", of_rows, rows, *means, stream.state)

    def _draw(self, law: str, generator: Any, out: Array) -> Array:
        if not isinstance(generator, PhiloxStream):
            return super()._draw(law, generator, out)  # on the host, to compare devices
        if kernels := self.kernels_of(out):
            kernels.each("fill_random", out.size, out, out.size, generator.state, LAWS[law])
            kernels.block("next_call", generator.state)
        else:  # part of each row, say, or complex
            out[...] = self._draw(law, generator, self.empty(out.shape, "float64"))
        return out

    def optimizer_step(self, optimizer: Any, numbers: Numbers) -> None:
        vectors = optimizer.vectors
        kernels = self.kernels_of(*vectors)
        if not self.has_kernel(optimizer) or kernels is None:
            super().optimizer_step(optimizer, numbers)
            return
        on_device = hasattr(numbers, "dtype")
        count, constants = vectors[0].size, map(float, optimizer.constants())
        own = (numbers, 1.0, 0.0, 0.0) if on_device else (None, *numbers)
        args = *constants, own[0], *map(np.float64, own[1:])
        kernels.each(optimizer.kernel, count, *vectors, count, int(optimizer.weights), *args)

    # -- batches ---------------------------------------------------------------------------------
    def gather(
        self, table: Array, index: Array, out: Array, raw: Array, offset: Array, factor: Any
    ) -> None:
        factors = factor if hasattr(factor, "shape") else None
        offset_row = offset if hasattr(offset, "shape") else None
        kernels = self.kernels_of(out, offset_row, factors)
        name = GATHERS.get(str(table.dtype))
        alike = offset is offset_row and table.flags.c_contiguous
        if kernels is not None and name is not None and alike and not _is_other(index):
            args = offset_row, factors, float(1.0 if factors is not None else factor), out
            kernels.each(name, out.size, table, index, out.size, out.shape[1], *args)
        else:
            super().gather(table, index, out, raw, offset, factor)

    def one_hot(
        self, labels: Array, index: Array, classes: Array, spare: Array, out: Array
    ) -> None:
        kernels = self.kernels_of(out)
        if kernels is None or _is_other(index) or _is_other(labels):
            super().one_hot(labels, index, classes, spare, out)
        else:
            kernels.each("one_hot_rows", out.size, labels, index, out.size, out.shape[1], out)

    # -- images --------------------------------------------------------------------------------
    def padded(self, images: tuple[int, ...], padding: Pair, dtype: str) -> Any:
        return None if dtype in ("float32", "float64") else super().padded(images, padding, dtype)

    def im2col(self, images: Array, padding: Pair, stride: Pair, padded: Any, out: Array) -> None:
        if padded is not None:
            super().im2col(images, padding, stride, padded, out)
        else:
            self._move("im2col", images, out, images.shape, out.shape, (*stride, *padding))

    def col2im(self, columns: Array, padding: Pair, stride: Pair, padded: Any, out: Array) -> None:
        if padded is not None:
            super().col2im(columns, padding, stride, padded, out)
        else:
            self._move("col2im", columns, out, out.shape, columns.shape, (*stride, *padding))

    def _move(
        self, name: str, source: Array, out: Array, images: Any, columns: Any, steps: Any
    ) -> None:
        kernels, (_, rows, across, height, width, _) = self.kernels_of(source, out), columns
        assert kernels is not None, "images of one real dtype, of fewer than 2^31 numbers"
        sizes = *images[1:], height, width, *steps, rows, across
        kernels.each(name, out.size, source, out, out.size, *sizes)


def _id(named: Any, ids: dict[str, int]) -> int | None:
    """Return the kernels' number for an activation or likelihood; None where it names no kernel."""
    if named is None:
        return 0
    return ids.get(vars(type(named)).get("kernel", ""))


def _is_other(index: Array | None) -> bool:
    """Say whether an index is none of contiguous 64-bit integers."""
    return index is not None and not (str(index.dtype) == "int64" and index.flags.c_contiguous)
