"""Places where a device may do several steps of the engine at once.

The mathematics stands where it belongs, in ``neurons``, ``likelihoods``, ``noise``, ``optimizers``
and ``windows``; there it is computed operation by operation, which in a CPU's cache is fast. A
device that pays for every launch and every pass over memory overrides these methods. Those that
return a bool say whether they did the work; here they did not, so that the caller does it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from nembp.engine.activations import Activation
    from nembp.engine.convolution import Convolution
    from nembp.engine.likelihoods import Likelihood, Readout
    from nembp.engine.noise import NoiseSource
    from nembp.engine.optimizers import Optimizer

__all__ = ["ConvolutionForm", "Hooks", "OptimizerKernel"]

Array = Any
# called with the parameters' vectors' numbers on the device, or None, and the numbers themselves
OptimizerKernel = Callable[[Array, tuple[float, float, float]], None]
ConvolutionForm = Literal["rule", "measure", "windows", "implicit"]


class Hooks:
    """What :class:`~nembp.backend.Backend` offers to fused kernels; nothing is fused here."""

    has_graphs = False  # whether a sequence of calls can be captured and replayed
    window_bytes = 1 << 62  # of a convolution's windows laid out at once

    xp: Any
    into: Callable[..., Array]
    matmul: Callable[[Array, Array, Array], Array]
    cast: Callable[[Array, Array], Array]
    take_rows: Callable[[Array, Array, Array], Array]
    asarray: Callable[..., Array]

    # -- neurons -------------------------------------------------------------------------------
    def add_bias_activate(self, activation: Activation | None, z: Array, bias: Array) -> bool:
        """Write f(z + bias) over ``z``; ``bias`` (or None) repeats along the flattened rows."""
        return False

    def multiply_derivative(self, activation: Activation, error: Array, a: Array) -> bool:
        """Write error ∘ f' over ``error``, f' in terms of ``a``."""
        return False

    def column_sums(self, x: Array, out: Array, ones: Array) -> None:
        """Write the sums of the columns of ``x`` into ``out`` (1, columns); ``ones`` (1, rows)."""
        # a product with ones sums columns faster than a reduction
        self.matmul(ones, x, out)

    sums_together = False  # whether a step's column sums wait for each other

    def column_sums_together(
        self, sums: list[tuple[Array, Array, Array]], tables: dict[Any, Array]
    ) -> None:
        """Write all the :meth:`column_sums` of a list; ``tables`` is the caller's to keep."""
        for x, out, ones in sums:
            self.column_sums(x, out, ones)

    # -- ends ------------------------------------------------------------------------------------
    def link_and_score(
        self,
        likelihood: Likelihood,
        o: Readout,
        t: Array,
        mass: Array | None = None,
        square: Array | None = None,
    ) -> Array:
        """Write a = link(z), and return log p(t) of each row, as the likelihood's methods do."""
        likelihood.link(o)
        return likelihood.log_likelihood(o, t, mass, square)

    def write_error(
        self,
        likelihood: Likelihood,
        o: Readout,
        t: Array,
        out: Array,
        mass: Array | float | None,
        factor: float,
    ) -> None:
        """Write the error into ``out``, as :meth:`Likelihood.error` does."""
        likelihood.error(o, t, out, mass=mass, factor=factor)

    def sum_column(self, column: Array, out: Array, factor: float, ones: Array) -> None:
        """Write factor · Σ column into ``out`` (1, 1); ``ones`` (1, rows)."""
        self.matmul(ones, column, out)
        self.into(out, self.xp.multiply, out, factor)

    def class_totals(
        self, members: Array, ones: Array, counts: Array, column: Array | None, squares: Array
    ) -> None:
        """Write each class's number of samples, and its sum of ``column`` where there is one."""
        by_class = members.T
        self.matmul(by_class, ones, counts)
        if column is not None:
            self.matmul(by_class, column, squares)

    # -- noise -----------------------------------------------------------------------------------
    def draw_and_screen(self, source: NoiseSource, o: Readout, t: Array, std: Array) -> bool:
        """Draw and screen a source's noise, as :class:`~nembp.engine.noise.NoiseSource` does."""
        return False

    # -- optimizers ------------------------------------------------------------------------------
    def optimizer_kernel(
        self, optimizer: Optimizer, parameters: Array, weights: int
    ) -> OptimizerKernel | None:
        """Return what moves the parameters in one pass, or None."""
        return None

    def add_share(self, total: Array, value: Array, share: float, spare: Array) -> None:
        """Add share · value to ``total``, all of shape (1, 1)."""
        self.into(spare, self.xp.multiply, value, share)
        self.into(total, self.xp.add, total, spare)

    # -- batches ---------------------------------------------------------------------------------
    def gather(
        self,
        table: Array,
        index: Array,
        out: Array,
        raw: Array,
        offset: Array | None,
        factor: Array | float,
    ) -> None:
        """Write (table[index] − offset) · factor into ``out``.

        ``raw`` has the shape of ``out`` and the table's dtype; None where that is the dtype of
        ``out``.
        """
        if raw is None:
            self.take_rows(table, index, out)
        else:
            self.cast(self.take_rows(table, index, raw), out)
        self._scale(out, offset, factor)

    def one_hot(self, labels: Array, index: Array, table: Array, spare: Array, out: Array) -> None:
        """Write the one-hot rows of labels[index]; ``table`` holds those of all classes."""
        self.take_rows(table, self.take_rows(labels, index, spare), out)

    def receive(
        self,
        staged: np.ndarray[Any, Any],
        out: Array,
        offset: Array | None,
        factor: Array | float,
    ) -> None:
        """Write (staged − offset) · factor into ``out``; ``staged`` lies on the host."""
        self.cast(self.asarray(staged), out)
        self._scale(out, offset, factor)

    def host_buffer(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray[Any, Any]:
        """Return memory of the host from which :meth:`receive` copies fast."""
        return np.empty(shape, dtype)

    def wait_for_copy(self, staged: np.ndarray[Any, Any]) -> None:
        """Wait until the last :meth:`receive` from this memory needs it no more."""

    def _scale(self, out: Array, offset: Array | None, factor: Array | float) -> None:
        if offset is not None:
            self.into(out, self.xp.subtract, out, offset)
        self.into(out, self.xp.multiply, out, factor)

    # -- windows of images -----------------------------------------------------------------------
    def lay_windows(self, linear_map: Convolution, images: Array, windows: Array) -> bool:
        """Write the windows of images, padded by zeros, as rows."""
        return False

    def gather_windows(self, linear_map: Convolution, windows: Array, images: Array) -> bool:
        """Write the sum of all windows over each pixel, the adjoint of :meth:`lay_windows`."""
        return False

    # -- convolutions without windows ------------------------------------------------------------
    convolution: ConvolutionForm = "windows"  # how their form is chosen (nembp.engine.convolution)
    forms: dict[Any, frozenset[str]]  # those that were measured
    has_implicit_products = False
    is_capturing = False  # whether calls are recorded rather than done

    def implicit_spare(self, contraction: str, linear_map: Convolution, images: int) -> int:
        """Return how many numbers :meth:`contract_implicitly` needs besides its result."""
        return 0

    def contract_implicitly(
        self,
        contraction: str,
        linear_map: Convolution,
        left: Array,
        right: Array,
        out: Array,
        spare: Array,
    ) -> bool:
        """Write a contraction of images into ``out``, their windows laid out nowhere.

        ``forward`` of (x, W), ``adjoint`` of (y, W) or ``gradient`` of (x, y).
        """
        return False
