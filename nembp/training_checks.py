"""Whether a training was asked for that can be run; found out before anything is computed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nembp.batches import BatchReader
from nembp.errors import ArchitectureError, ShapeError
from nembp.network import Network
from nembp.noise import Noise
from nembp.signal_noise import PLACES

__all__ = ["check_counts", "check_fit", "check_mean", "noise_that_acts"]

_TARGETS = ("forward", "backward")
_NAMES = (*_TARGETS, *(f"{direction}/{place}" for direction in _TARGETS for place in PLACES))


def check_counts(**counts: Any) -> None:
    """Raise an ArchitectureError unless each is a whole number of at least 1."""
    for key, value in counts.items():
        name = key.replace("_", " ")
        if not hasattr(value, "__index__"):
            raise ArchitectureError(f"{name} must be a whole number, got {value!r}")
        if value < 1:
            raise ArchitectureError(f"{name} must be at least 1, got {value}")


def check_fit(net: Network, reader: BatchReader) -> None:
    """Raise a ShapeError unless a reader feeds what the network takes."""
    if (reader.features, reader.outputs) != (net.inputs, net.outputs):
        raise ShapeError(
            f"the reader's samples have {reader.features} values and its targets "
            f"{reader.outputs}, but the network is {net.inputs} -> {net.outputs}; expected a "
            "network and a reader of the same sizes"
        )


def check_mean(net: Network, mean: Any) -> None:
    """Raise a ShapeError unless it is one value for each input neuron."""
    if mean.shape != (net.inputs,):
        raise ShapeError(
            f"the mean has shape {mean.shape}, but the network has {net.inputs} inputs; expected "
            f"shape ({net.inputs},), as feature_means returns it"
        )


def noise_that_acts(noise: Mapping[str, Noise] | None) -> dict[str, Noise]:
    """Return the noise by place, without places of kind "none".

    Raises
    ------
    ArchitectureError
        If it is no mapping of known places to noise: a misspelt place would train without.
    """
    noise = {} if noise is None else noise
    example = 'expected a dict such as {"forward": Noise("nem")}'
    if not isinstance(noise, Mapping):
        raise ArchitectureError(f"noise is {noise!r:.80}; {example}")
    for place, each in noise.items():
        if place not in _NAMES:
            raise ArchitectureError(
                f"no place for noise is called {place!r}; there are {', '.join(_NAMES)}"
            )
        if not isinstance(each, Noise):
            raise ArchitectureError(f"noise of {place} is {each!r:.80}; {example}")
    return {place: each for place, each in noise.items() if each.kind != "none"}
