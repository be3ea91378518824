"""Moving averages of parameters."""

from __future__ import annotations

from nembp.engine.network import Network

__all__ = ["ParameterAverage"]


class ParameterAverage:
    """θ̄ₜ = Σ (1 − β) βⁱ θₜ₋ᵢ / (1 − βᵗ), i from 0 to t − 1: weights that sum to one from the start.

    Parameters
    ----------
    net : Network
        Whose parameters are averaged.
    beta : float
        0 ≤ β < 1; 0 keeps none, and the average is the network itself.

    Attributes
    ----------
    steps : int
        t, which the caller counts: a step of a device that replays it calls nothing here.
    """

    def __init__(self, net: Network, beta: float) -> None:
        self.net, self.beta, self.steps = net, beta, 0
        self._network = net.copy() if beta else net
        if beta:
            shape = tuple(net.parameters.shape)
            self._sum = net.backend.zeros(shape, net.dtype)
            self._spare = net.backend.empty(shape, net.dtype)

    def add(self) -> None:
        """Take the network's parameters of now into the average."""
        if not self.beta:
            return
        backend, xp, beta = self.net.backend, self.net.backend.xp, self.beta
        backend.into(self._sum, xp.multiply, self._sum, beta)
        backend.into(self._spare, xp.multiply, self.net.parameters, 1.0 - beta)
        backend.into(self._sum, xp.add, self._sum, self._spare)

    def clear(self) -> None:
        """Begin again from the network's parameters of then."""
        self.steps = 0
        if self.beta:
            self._sum[...] = 0.0

    def network(self) -> Network:
        """Return a network with the average, which a later call overwrites."""
        if self.beta:
            backend, xp, own = self.net.backend, self.net.backend.xp, self._network.parameters
            if self.steps:
                weight = 1.0 / (1.0 - self.beta**self.steps)
                backend.into(own, xp.multiply, self._sum, weight)
            else:
                own[...] = self.net.parameters
            self._network.statistics[...] = self.net.statistics  # of normalized layers
        return self._network
