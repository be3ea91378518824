"""What a training leaves on record: a row of scores an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from nembp.backend import Array
from nembp.network import Network

__all__ = ["EpochMeans", "History"]


@dataclass
class History:
    """What happened, a dict of scores an epoch.

    Attributes
    ----------
    epochs : list of dict
        Keys: ``epoch``, ``learning_rate``, ``seconds``, ``samples_per_second``;
        ``train/forward/nll`` and ``train/backward/nll`` (means over the epoch's steps, nats); with
        noise, ``noise/forward/accepted``, ``noise/forward/gain`` (nats a sample) and so on; and the
        scores of the evaluation as ``forward/accuracy`` and so on.
    stopped_early : bool
        Whether patience ran out; the best parameters were then restored.
    best_epoch : int
        The epoch whose parameters the network has.
    """

    epochs: list[dict[str, float]] = field(default_factory=list)
    stopped_early: bool = False
    best_epoch: int = 0

    def __repr__(self) -> str:
        """Say how long it is and what it holds; the rows would fill a screen."""
        n, keys = len(self.epochs), ", ".join(self.epochs[-1] if self.epochs else ())
        return f"History({n} epoch{'' if n == 1 else 's'} of {keys or 'nothing'})"

    def __getitem__(self, key: str) -> list[float]:
        """Return one score over the epochs."""
        return [row[key] for row in self.epochs]


class EpochMeans:
    """Means over an epoch of what its steps leave on the device, where they stay until read.

    Parameters
    ----------
    net : Network
        Whose backend and dtype the values have.
    """

    def __init__(self, net: Network) -> None:
        self._net = net
        self._totals: dict[str, Array] = {}
        self._piece = net.backend.zeros((1, 1), net.dtype)

    def clear(self) -> None:
        """Begin an epoch."""
        for total in self._totals.values():
            total[...] = 0.0

    def add(self, key: str, value: Array, share: float) -> None:
        """Add a step's ``value``, shape (1, 1), weighted with its ``share`` of the samples."""
        backend = self._net.backend
        if key not in self._totals:
            self._totals[key] = backend.zeros((1, 1), self._net.dtype)
        backend.add_share(self._totals[key], value, share, self._piece)

    def read(self) -> dict[str, float]:
        """Return the means so far, the nll untempered (synchronises)."""
        net = self._net
        tempering = {
            "train/forward/nll": net.likelihood.tempering,
            "train/backward/nll": net.reversed.likelihood.tempering,
        }
        return {
            key: float(net.backend.to_numpy(total)[0, 0]) / tempering.get(key, 1.0)
            for key, total in self._totals.items()
        }
