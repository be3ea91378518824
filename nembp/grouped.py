"""Batch normalization of parts of a batch by themselves.

Where a batch joins samples of two kinds, as a discriminator's real and generated ones, each kind
has statistics of its own (the usual practice since Radford, Metz and Chintala, DCGAN,
arXiv:1511.06434): what the network is shown of one kind alone, it has then been trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, TypeAlias

from nembp.backend import Array
from nembp.errors import ShapeError
from nembp.links import After
from nembp.normalization import Normalizer, normalizers

if TYPE_CHECKING:
    from nembp.network import Network

__all__ = ["AnyNormalizer", "GroupedNormalizer", "grouped_normalizers"]


class GroupedNormalizer:
    """A :class:`~nembp.normalization.Normalizer` for each group of rows.

    Parameters
    ----------
    net, k, lanes
        As of the Normalizer.
    groups : sequence of int
        Rows of each, in order.

    Attributes
    ----------
    bias_gradient, gain_gradient : array, shape (channels,)
        ∂/∂β and ∂/∂γ of all groups, after :meth:`pull_back`.
    """

    def __init__(self, net: Network, k: int, groups: Sequence[int], lanes: int = 1) -> None:
        self._backend = net.backend
        self._groups = [
            (start, stop, Normalizer(net, k, stop - start, lanes=lanes))
            for start, stop in pairwise(accumulate(groups, initial=0))
        ]
        self.bias_gradient, self.gain_gradient = (
            net.backend.empty((net.layers[k].gains,), net.dtype) for _ in range(2)
        )

    def forward(
        self, z: Array, after: After | None = None, first: int = 0, *, held: bool = False
    ) -> None:
        """Write γ ẑ over each group of ``z``."""
        for start, stop, normalizer in self._groups:
            normalizer.forward(z[start:stop, :], after, first + start, held=held)

    def pull_back(self, error: Array, before: After | None = None, first: int = 0) -> None:
        """Turn ∂/∂y into ∂/∂z in each group, and sum ∂/∂β and ∂/∂γ."""
        backend, xp = self._backend, self._backend.xp
        for start, stop, normalizer in self._groups:
            normalizer.pull_back(error[start:stop, :], before, first + start)
            for total, part in (
                (self.bias_gradient, normalizer.bias_gradient),
                (self.gain_gradient, normalizer.gain_gradient),
            ):
                if start == 0:
                    backend.copy(part, total)
                else:
                    backend.into(total, xp.add, total, part)

    def update_running(self) -> None:
        """Move the running statistics by one group after the other."""
        for *_, normalizer in self._groups:
            normalizer.update_running()


AnyNormalizer: TypeAlias = Normalizer | GroupedNormalizer


def grouped_normalizers(
    net: Network, rows: int, groups: Sequence[int] | None = None, lanes: int = 1
) -> list[AnyNormalizer | None]:
    """Return what normalizes each layer of a direction, in groups of rows or all of them together.

    Raises
    ------
    ShapeError
        If the groups are not all of the rows.
    """
    if groups is None:
        return [*normalizers(net, rows, lanes=lanes)]
    if sum(groups) != rows or min(groups) < 1:
        raise ShapeError(f"groups of {tuple(groups)} rows; expected {rows} rows in all")
    return [
        None if layer.normalization is None else GroupedNormalizer(net, k, groups, lanes)
        for k, layer in enumerate(net.layers)
    ]
