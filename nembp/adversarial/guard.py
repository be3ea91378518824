"""What a training that diverges goes back to."""

from __future__ import annotations

import math
from collections.abc import Mapping

from nembp.engine.network import Network
from nembp.errors import DivergenceError

__all__ = ["LastGood"]


class LastGood:
    """Parameters and running statistics of networks at the last check at which all was finite.

    Parameters
    ----------
    nets : mapping of str to Network
        By the names that messages call them.
    """

    def __init__(self, nets: Mapping[str, Network]) -> None:
        self.nets, self.iteration = dict(nets), 0
        self._kept = [
            (vector, net.backend.empty(tuple(vector.shape), net.dtype))
            for net in nets.values()
            for vector in (net.parameters, net.statistics)
        ]
        self._keep()

    def _keep(self) -> None:
        for vector, kept in self._kept:
            kept[...] = vector

    def check(self, values: Mapping[str, float], iteration: int, remedy: str) -> None:
        """Keep the networks as they are if ``values`` and all parameters are finite.

        Raises
        ------
        DivergenceError
            If they are not; the networks are then as they were at the last check.
        """
        seen = dict(values)
        for name, net in self.nets.items():
            total = net.backend.to_numpy(net.backend.xp.sum(net.parameters))
            seen[f"the sum of the {name}'s parameters"] = float(total)
        bad = [key for key, value in seen.items() if not math.isfinite(value)]
        if not bad:
            self._keep()
            self.iteration = iteration
            return
        for vector, kept in self._kept:
            vector[...] = kept
        raise DivergenceError(
            f"training diverged by iteration {iteration}: {bad[0]} is not finite; the parameters "
            f"of iteration {self.iteration} were restored. {remedy}"
        )
