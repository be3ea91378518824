"""The cases of the dense suite: a network, a batch, threads, and the data they train on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.benchmarks import Settings
from nembp.errors import ArchitectureError
from nembp.likelihoods import Gaussian
from nembp.network import Network, dense_network

__all__ = ["Case", "cases_of", "parse_network", "start_network", "synthetic_batch"]

BACKWARD_WEIGHT = 0.1
LIT = 0.19  # share of pixels that are not zero, as in MNIST


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    sizes: tuple[int, ...]
    batch: int
    threads: int
    dtype: str = "float32"

    @property
    def network(self) -> str:
        """The network as the user wrote it."""
        return "-".join(map(str, self.sizes))

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.network}, batch {self.batch}, {threads}"


def parse_network(text: str) -> tuple[int, ...]:
    """Return the sizes of the layers of ``784-512-512-10``.

    Raises
    ------
    ArchitectureError
        If ``text`` is not of that form, or has fewer than two classes.

    >>> parse_network("784-256-10")
    (784, 256, 10)
    """
    parts = text.split("-")
    if len(parts) < 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise ArchitectureError(
            f"{text!r} is no dense network; expected the sizes of its layers, as in 784-512-512-10"
        )
    sizes = tuple(int(part) for part in parts)
    if sizes[-1] < 2:
        raise ArchitectureError(f"{text!r} has 1 output neuron; a classifier needs at least 2")
    return sizes


def cases_of(settings: Settings) -> Iterator[Case]:
    """Yield the cases of the settings: by network, then threads, then batch."""
    for network in settings.networks:
        for threads in settings.threads:
            for batch in settings.batches:
                yield Case(parse_network(network), batch, threads, settings.dtype)


def start_network(case: Case, backend: Backend) -> Network:
    """Return the network that every contender of a case starts from."""
    likelihood = Gaussian(variance=1.0 / BACKWARD_WEIGHT)
    return dense_network(case.sizes, backward=likelihood, device=backend, dtype=case.dtype)


def synthetic_batch(case: Case) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Draw x (batch, inputs) with MNIST's share of lit pixels, and labels of all classes."""
    draw = stream(0, "benchmark/batch")
    x = draw.random((case.batch, case.sizes[0]))
    x *= draw.random((case.batch, case.sizes[0])) < LIT
    labels = draw.permutation(np.arange(case.batch) % case.sizes[-1])
    return x.astype(case.dtype), labels
