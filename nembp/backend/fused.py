"""The hooks of :mod:`nembp.backend.hooks` by CUDA kernels.

Only what the kernels were written for goes to them: contiguous float32 and float64 arrays, and the
engine's own neurons, likelihoods and optimizers. A subclass of one of those may compute anything
else, so it takes the way of every extension, operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from nembp.backend.fused_data import FusedData
from nembp.backend.hooks import Array, OptimizerKernel
from nembp.backend.implicit import ImplicitProducts
from nembp.backend.kernels import LONGEST, Kernels

if TYPE_CHECKING:
    from nembp.engine.activations import Activation
    from nembp.engine.likelihoods import Likelihood, Readout
    from nembp.engine.noise import NoiseSource
    from nembp.engine.optimizers import Optimizer

__all__ = ["FusedKernels", "PhiloxStream"]

SHORT = 1024  # rows; the columns of more are summed by a product
LAWS = {"gaussian": 0, "uniform": 1}
MULTIPLICATIVE, ZERO_SUM, COMPONENT, REFLECT, BLIND, ANTI, LINEAR = (1 << k for k in range(7))


@dataclass(frozen=True)
class PhiloxStream:
    """A stream of random numbers on the device.

    Attributes
    ----------
    state : array of uint64, shape (2,)
        Key, and number of the next call, which every call moves on by itself.
    """

    state: Array


class FusedKernels(FusedData, ImplicitProducts):
    """The hooks, on a device for which :meth:`kernels_of` finds kernels."""

    _kernels: dict[tuple[str, str], Kernels]
    make_kernels: Callable[[str, str], Kernels]

    def kernels_of(self, *arrays: Array, module: str = "engine") -> Kernels | None:
        """Return the kernels for arrays (or None), all contiguous and of one real dtype."""
        dtype = str(arrays[0].dtype)
        for array in arrays:
            if array is not None and not (
                str(array.dtype) == dtype and array.flags.c_contiguous and array.size < LONGEST
            ):
                return None
        if dtype not in ("float32", "float64"):
            return None
        return self.make_kernels_once(dtype, module)

    def make_kernels_once(self, dtype: str, module: str = "engine") -> Kernels:
        """Return the kernels of a dtype, compiled at the first call."""
        key = dtype, module
        if key not in self._kernels:
            self._kernels[key] = self.make_kernels(dtype, module)
        return self._kernels[key]

    # -- neurons -------------------------------------------------------------------------------
    def add_bias_activate(self, activation: Activation | None, z: Array, bias: Array) -> bool:
        kind = _kind_of_neuron(activation)
        kernels = self.kernels_of(z, bias)
        if kind is None or kernels is None:
            return False
        if bias is not None or kind:
            width = z.shape[1] if bias is None else bias.shape[0]
            args = (np.int64(z.size), np.int32(width), np.int32(kind), _slope(kernels, activation))
            kernels.each("add_bias_activate", z.size, z, bias, *args)
        return True

    def multiply_derivative(self, activation: Activation, error: Array, a: Array) -> bool:
        kind = _kind_of_neuron(activation)
        kernels = self.kernels_of(error, a)
        if kind is None or kernels is None:
            return False
        if kind:
            args = np.int64(error.size), np.int32(kind), _slope(kernels, activation)
            kernels.each("multiply_derivative", error.size, error, a, *args)
        return True

    def column_sums(self, x: Array, out: Array, ones: Array) -> None:
        kernels = self.kernels_of(x, out)
        if kernels is None or x.shape[0] > SHORT:
            super().column_sums(x, out, ones)
            return
        rows, columns = x.shape
        kernels.tiles("column_sums", columns, x, np.int64(rows), np.int32(columns), out)

    sums_together = True

    def column_sums_together(
        self, sums: list[tuple[Array, Array, Array]], tables: dict[Any, Array]
    ) -> None:
        """Write all sums of short matrices by one kernel, whose table lies on the device."""
        lines: list[tuple[int, ...]] = []
        tiles = 0
        for x, out, ones in sums:
            if x.shape[0] > SHORT or self.kernels_of(x, out) is None or x.dtype != sums[0][0].dtype:
                self.column_sums(x, out, ones)
            else:
                lines.append((x.data.ptr, out.data.ptr, *x.shape, tiles))
                tiles += -(-x.shape[1] // 32)
        if not lines:
            return
        key = tuple(lines)
        if key not in tables:
            tables[key] = self.asarray(np.array(lines, dtype=np.int64))
        kernels = self.kernels_of(sums[0][0])
        assert kernels is not None
        kernels.tiles("column_sums_together", 32 * tiles, tables[key], np.int32(len(lines)))

    # -- ends ------------------------------------------------------------------------------------
    def link_and_score(
        self,
        likelihood: Likelihood,
        o: Readout,
        t: Array,
        mass: Array | None = None,
        square: Array | None = None,
    ) -> Array:
        kind = _kind_of_likelihood(likelihood)
        kernels = self.kernels_of(o.z, o.a, t, o.column, mass, square)
        if kind is None or kernels is None:
            return super().link_and_score(likelihood, o, t, mass, square)
        rows, width = o.z.shape
        real = kernels.real
        normalizer = likelihood.log_normalizer(width)
        args = np.int32(width), np.int32(kind), real(likelihood.scale), real(normalizer)
        if kind != 1:
            square = None
        kernels.rows("link_and_score", rows, width, o.z, o.a, t, mass, square, o.column, *args)
        return o.column

    def write_error(
        self,
        likelihood: Likelihood,
        o: Readout,
        t: Array,
        out: Array,
        mass: Array | float | None,
        factor: float,
    ) -> None:
        column = mass if hasattr(mass, "shape") else None
        kernels = self.kernels_of(o.a, t, out, column)
        plain = column is not None or mass is None or mass == 1.0
        if _kind_of_likelihood(likelihood) is None or kernels is None or not plain:
            super().write_error(likelihood, o, t, out, mass, factor)
            return
        rows, width = o.a.shape
        own = mass is None and likelihood.mass_is_target_sum
        args = np.int32(width), np.int32(own), kernels.real(factor * likelihood.scale)
        kernels.rows("write_error", rows, width, o.a, t, column, out, *args)

    def sum_column(self, column: Array, out: Array, factor: float, ones: Array) -> None:
        kernels = self.kernels_of(column, out)
        if kernels is None:
            super().sum_column(column, out, factor, ones)
            return
        kernels.block("sum_column", column, np.int64(column.shape[0]), kernels.real(factor), out)

    def class_totals(
        self, members: Array, ones: Array, counts: Array, column: Array | None, squares: Array
    ) -> None:
        kernels = self.kernels_of(members, counts, column, squares)
        if kernels is None:
            super().class_totals(members, ones, counts, column, squares)
            return
        rows, classes = members.shape
        args = members, column, np.int64(rows), np.int32(classes), counts, squares
        kernels.rows("class_totals", classes, rows, *args)

    # -- noise -----------------------------------------------------------------------------------
    def draw_and_screen(self, source: NoiseSource, o: Readout, t: Array, std: Array) -> bool:
        noise, likelihood, stream = source.noise, source.likelihood, source.generator
        if (
            not isinstance(stream, PhiloxStream)
            or not source.screens_target
            or noise.kind not in ("nem", "blind", "anti")
            or noise.law not in LAWS
            or noise.draws > 1
            or source.screening == "expectation"
            or _kind_of_likelihood(likelihood) is None
        ):
            return False
        linear = likelihood.gain_is_linear
        given = o.z if linear else o.a
        kept, gain = source.columns
        kernels = self.kernels_of(source.n, given, t, kept, gain, source.accepted)
        if kernels is None:
            return False
        flags = {
            MULTIPLICATIVE: noise.mode == "multiplicative",
            ZERO_SUM: source.zero_sum,
            COMPONENT: source.screening == "component",
            REFLECT: noise.rejected == "reflect",
            BLIND: noise.kind == "blind",
            ANTI: noise.kind == "anti",
            LINEAR: linear,
        }
        how = sum(flag for flag, on in flags.items() if on)
        device, number = (None, std) if isinstance(std, float) else (std, 0.0)
        rows, width = t.shape
        args = np.int32(width), np.int32(LAWS[noise.law]), np.int32(how)
        kernels.rows(
            "draw_and_screen", rows, width, source.n, given, t, kept, gain, stream.state, device,
            np.float64(number), *args, kernels.real(likelihood.scale),
        )  # fmt: skip
        state, means = stream.state, (source.accepted, source.gain)
        kernels.block("finish_noise", kept, gain, np.int64(rows), *means, state)
        return True

    def fill_random(self, stream: PhiloxStream, out: Array, law: str) -> bool:
        """Fill ``out`` with the next numbers of a stream: N(0, 1), or uniform on [0, 1)."""
        kernels = self.kernels_of(out)
        if kernels is None:
            return False
        args = np.int64(out.size), stream.state, np.int32(LAWS[law])
        kernels.each("fill_random", out.size, out, *args)
        kernels.block("next_call", stream.state)
        return True

    # -- optimizers ------------------------------------------------------------------------------
    def optimizer_kernel(
        self, optimizer: Optimizer, parameters: Array, weights: int
    ) -> OptimizerKernel | None:
        kernel = vars(type(optimizer)).get("kernel")
        vectors = (parameters, optimizer.gradient, *optimizer.state.values())
        kernels = self.kernels_of(*vectors)
        if kernel is None or kernels is None:
            return None
        sizes = np.int64(parameters.size), np.int64(weights)
        constants = tuple(kernels.real(value) for value in optimizer.constants())

        def move(device: Array, numbers: tuple[float, float, float]) -> None:
            own = tuple(np.float64(number) for number in numbers)
            kernels.each(kernel, parameters.size, *vectors, *sizes, *constants, device, *own)

        return move

    def add_share(self, total: Array, value: Array, share: float, spare: Array) -> None:
        kernels = self.kernels_of(total, value)
        if kernels is None:
            super().add_share(total, value, share, spare)
            return
        kernels.block("add_share", total, value, kernels.real(share))


def _slope(kernels: Kernels, activation: Any) -> Any:
    return kernels.real(getattr(activation, "slope", 0.0))


@cache
def _neurons() -> dict[type, int]:
    from nembp.engine.activations import Identity, LeakyReLU, Logistic, ReLU, Tanh

    return {type(None): 0, Identity: 0, Logistic: 1, Tanh: 2, ReLU: 3, LeakyReLU: 4}


@cache
def _likelihoods() -> dict[type, int]:
    from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial

    return {Multinomial: 0, Gaussian: 1, Bernoulli: 2}


def _kind_of_neuron(activation: Any) -> int | None:
    return _neurons().get(type(activation))


def _kind_of_likelihood(likelihood: Any) -> int | None:
    return _likelihoods().get(type(likelihood))
