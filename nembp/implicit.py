"""A convolution's contractions whose windows are gathered tile by tile and laid out nowhere.

windows(x) W and windows(x)ᵀ y read each number of x from as many windows as hold it. An implicit
product reads it from the image each time, out of cache, in place of writing the windows and reading
them back, which takes kernel² / stride² times the images' memory; and its adjoint sums over the
taps that lead to a pixel, in place of adding windows up. The kernels are a device's
(:mod:`nembp.backend.implicit`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from nembp.backend import Array, Backend
from nembp.backend.implicit import CONTRACTIONS
from nembp.links import After
from nembp.windows import WindowsLink

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = ["ImplicitLink"]


class ImplicitLink(WindowsLink):
    """A link some of whose contractions are implicit, where the device has kernels for arrays.

    Parameters
    ----------
    implicit : collection of str
        Of ``forward``, ``adjoint`` and ``gradient``, as the synapse calls them, whichever way the
        link goes.
    """

    def __init__(
        self,
        synapse: Convolution,
        implicit: Collection[str],
        backend: Backend,
        parts: Sequence[int],
        dtype: str,
        upward: bool = True,
        lanes: int = 1,
    ) -> None:
        self._implicit = frozenset(implicit)
        self._spares: dict[tuple[str, int], Array] = {}  # kept: captured steps write into them
        super().__init__(synapse, backend, parts, dtype, upward, lanes)

    def _make_room(self) -> None:
        if not self._implicit.issuperset(CONTRACTIONS):
            super()._make_room()

    def _contract(self, contraction: str, left: Array, right: Array, out: Array) -> bool:
        if contraction not in self._implicit:
            return False
        backend, key = self.backend, (contraction, left.shape[0])
        if key not in self._spares:
            size = backend.implicit_spare(contraction, self.synapse, left.shape[0])
            self._spares[key] = backend.empty((size,), self.dtype) if size else None
        if backend.contract_implicitly(
            contraction, self.synapse, left, right, out, self._spares[key]
        ):
            return True
        self._implicit -= {contraction}
        if not self._padded:
            super()._make_room()
        return False

    def _sweep(self, signal: Array, out: Array, after: After | None, *, upward: bool) -> None:
        rows = out.shape[0]
        name = "forward" if upward else "adjoint"
        if not self._contract(name, signal[:rows, :], self._W, out):
            super()._sweep(signal, out, after, upward=upward)
        elif after is not None:
            after(0, rows)

    def descend(
        self, x: Array, y: Array, out: Array | None, gradient: Array, after: After | None = None
    ) -> None:
        if out is not None:
            self.adjoint(y[: out.shape[0], :], out, after)
        lower, upper = (x, y) if self.upward else (y, x)
        rows = y.shape[0]
        if not self._contract("gradient", lower[:rows, :], upper[:rows, :], gradient):
            super().descend(x, y, None, gradient)
