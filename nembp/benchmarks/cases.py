"""The cases of the suites: a network or layer, a batch, threads, and the data they train on."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from nembp.architecture import network
from nembp.backend import Backend, stream
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.environment import threads_limited
from nembp.benchmarks.notation import parse_images, parse_network
from nembp.benchmarks.peers import load_peers
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import Network, dense_network

__all__ = [
    "Case",
    "DenseCase",
    "ImageCase",
    "cases_of",
    "measure_cases",
    "synthetic_batch",
]

BACKWARD_WEIGHT = 0.1
LIT = 0.19  # share of pixels that are not zero, as in MNIST
Host = np.ndarray[Any, Any]


class Case(Protocol):
    """One line of a table: a network on a batch."""

    @property
    def network(self) -> str:
        """The network as the user wrote it."""

    @property
    def batch(self) -> int:
        """Rows."""

    @property
    def threads(self) -> int:
        """Of every library."""

    @property
    def dtype(self) -> str:
        """Of all arrays."""

    def start(self, backend: Backend) -> Network:
        """Return the network that every contender starts from."""

    def draw(self) -> tuple[Host, Host]:
        """Return the batch: x (batch, inputs), and labels of all classes."""


@dataclass(frozen=True)
class _Case:
    network: str
    batch: int
    threads: int
    dtype: str = "float32"

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.network}, batch {self.batch}, {threads}"


@dataclass(frozen=True)
class DenseCase(_Case):
    """A fully connected classifier, ``784-512-512-10``, on images like MNIST's."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Neurons of each layer."""
        return parse_network(self.network)

    def start(self, backend: Backend) -> Network:
        """Return the network, its hidden neurons ReLU."""
        likelihood = Gaussian(variance=1.0 / BACKWARD_WEIGHT)
        return dense_network(self.sizes, backward=likelihood, device=backend, dtype=self.dtype)

    def draw(self) -> tuple[Host, Host]:
        """Return pixels in 0..1, of which `LIT` are not 0, and labels."""
        x, labels = synthetic_batch(self.batch, self.sizes[0], self.sizes[-1], LIT)
        return x.astype(self.dtype), labels


@dataclass(frozen=True)
class ImageCase(_Case):
    """A classifier of images, ``32x32x3/conv32x4s2/256/10``."""

    def start(self, backend: Backend) -> Network:
        """Return the network of its layers."""
        shape, items = parse_images(self.network)
        return network(
            shape,
            items[:-1],
            int(str(items[-1])),
            backward=Gaussian(variance=1.0 / BACKWARD_WEIGHT),
            device=backend,
            dtype=self.dtype,
        )

    def draw(self) -> tuple[Host, Host]:
        """Return pixels in −1..1, and labels."""
        shape, items = parse_images(self.network)
        x, labels = synthetic_batch(self.batch, math.prod(shape), int(str(items[-1])))
        return (2.0 * x - 1.0).astype(self.dtype), labels  # pixels scaled to -1..1


def synthetic_batch(rows: int, inputs: int, classes: int, lit: float = 1.0) -> tuple[Host, Host]:
    """Draw x (rows, inputs) in 0..1, the share ``lit`` of it not 0, and labels of all classes."""
    draw = stream(0, "benchmark/batch")
    x = draw.random((rows, inputs))
    x *= draw.random((rows, inputs)) < lit
    return x, draw.permutation(np.arange(rows) % classes)


def cases_of(settings: Settings, kind: Callable[..., Any]) -> list[Any]:
    """Return the cases of the settings: by network, then threads, then batch."""
    return [
        kind(network, batch, threads, settings.dtype)
        for network in settings.networks
        for threads in settings.threads
        for batch in settings.batches
    ]


Measure = Callable[[Any, Backend, "int | None", float], dict[str, Any]]


def measure_cases(
    settings: Settings,
    backend: Backend,
    progress: Progress,
    kind: Callable[..., Any],
    measure: Measure,
) -> list[dict[str, Any]]:
    """Measure every case of the settings; a case's unused time goes to the later ones.

    ``measure(case, backend, repeats, budget)`` returns a result with its ``seconds`` and its
    ``headline``, the line of progress. On a GPU the number of CPU threads decides nothing: only
    the first is measured.
    """
    if backend.name == "gpu":
        settings = replace(settings, threads=settings.threads[:1])
    cases = cases_of(settings, kind)
    load_peers()  # now, so that the limit on threads finds their libraries
    results: list[dict[str, Any]] = []
    for number, case in enumerate(cases, start=1):
        left = settings.budget - sum(result["seconds"] for result in results)
        share = left / (len(cases) - number + 1)
        with threads_limited(case.threads):
            result = measure(case, backend, settings.repeats, share)
        results.append(result)
        progress(f"[{number}/{len(cases)}] {case}: {result['headline']}")
    return results
