"""Copies of a network, their views rebuilt: in memory, on another device, in a pickle."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike

from nembp.backend import Backend, get_backend

if TYPE_CHECKING:
    from nembp.layers import Layer
    from nembp.likelihoods import Likelihood
    from nembp.network import Network
    from nembp.synapses import Synapse

__all__ = ["Portable"]

Vector = np.ndarray[Any, Any]


class Portable:
    """What a network's copies are made by.

    A copy has its own vectors of parameters and of running statistics, on whatever device and in
    whatever precision, and both directions look at them.
    """

    def to(
        self: Any, device: str | Backend | None = None, dtype: DTypeLike | None = None
    ) -> Network:
        """Return a copy on another device or in another precision, seen from this direction."""
        backend = self.backend if device is None else get_backend(device)
        primary = self if self.direction == "forward" else self.reversed
        copy = type(primary)(
            primary.layers,
            primary.synapses,
            primary.likelihood,
            primary.reversed.likelihood,
            device=backend,
            dtype=self.dtype if dtype is None else dtype,
            seed=None,
        )
        copy._bind(*(backend.asarray(flat, copy.dtype) for flat in self.snapshot()))
        other: Network = copy if self.direction == "forward" else copy.reversed
        return other

    def copy(self: Any) -> Network:
        """Return an independent copy, its views rebuilt."""
        copied: Network = self.to()
        return copied

    def snapshot(self: Any) -> tuple[Vector, Vector]:
        """Return all that training moves, copied to the host: parameters, running statistics."""
        return self.backend.to_numpy(self.parameters), self.backend.to_numpy(self.statistics)

    def restore(self: Any, snapshot: tuple[Any, Any]) -> None:
        """Write what :meth:`snapshot` returned back in place, for both directions."""
        for flat, kept in zip((self.parameters, self.statistics), snapshot, strict=True):
            flat[...] = self.backend.asarray(kept, self.dtype)

    def __copy__(self: Any) -> Network:
        copied: Network = self.to()
        return copied

    def __deepcopy__(self: Any, memo: dict[int, Any]) -> Network:
        copied: Network = self.to()
        memo[id(self)], memo[id(self.reversed)] = copied, copied.reversed
        return copied

    def __reduce__(self: Any) -> tuple[Any, ...]:
        if self.direction == "backward":  # through the forward one, so that a pair stays a pair
            return attrgetter("reversed"), (self.reversed,)
        ends = self.likelihood, self.reversed.likelihood
        return _rebuild, (self.layers, self.synapses, *ends, self.dtype, *self.snapshot())


def _rebuild(
    layers: tuple[Layer, ...],
    synapses: tuple[Synapse, ...],
    forward: Likelihood,
    backward: Likelihood,
    dtype: str,
    flat: Vector,
    statistics: Vector | None = None,  # what older versions pickled had none
) -> Network:
    """Unpickle on the CPU, whatever device the network was on."""
    from nembp.network import Network

    net = Network(layers, synapses, forward, backward, dtype=dtype, seed=None)
    net.restore((flat, net.statistics if statistics is None else statistics))
    return net
