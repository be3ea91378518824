"""Benchmarks: suites of steps timed beside their peers, interleaved in one run.

A suite is a module that defines what :class:`SuiteModule` lists. It is registered in
:data:`SUITES` by name and imported only when it runs, so that ``nembp bench --help`` stays instant.
:func:`nembp.benchmarks.runner.run` runs one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

from nembp.errors import ArchitectureError

if TYPE_CHECKING:
    from nembp.backend import Backend, Precision

__all__ = ["SUITES", "Progress", "Settings", "Suite", "SuiteModule", "get_suite"]

Progress = Callable[[str], None]


@dataclass(frozen=True)
class Settings:
    """What a run measures.

    Attributes
    ----------
    networks : tuple of str
        In the suite's own notation, ``784-512-512-10`` or ``32x32x3/conv32x4s2/256/10``.
    batches, threads : tuple of int
        Rows of a batch; threads of BLAS and of PyTorch alike.
    repeats : int or None
        Interleaved rounds for each line of the table; None fits them into ``budget``.
    budget : float
        Seconds of timing in all, start-up and the memory run not counted.
    dtype, device : str
        ``float32`` or ``float64``; ``cpu``, ``gpu`` or ``auto``.
    precision : str
        Of a GPU's float32 products, nembp's and PyTorch's alike: ``float32`` or ``tf32``.
    memory : bool
        Also run the training whose peak memory is reported.
    """

    networks: tuple[str, ...]
    batches: tuple[int, ...]
    threads: tuple[int, ...]
    repeats: int | None = None
    budget: float = 140.0
    dtype: str = "float32"
    device: str = "auto"
    precision: Precision = "float32"
    memory: bool = True


class SuiteModule(Protocol):
    """What the module of a suite defines."""

    DEFAULTS: Settings
    QUICK: Settings
    STEP: str  # what is timed, in words

    def check_network(self, text: str) -> None:
        """Raise ArchitectureError, naming ``text``, if it is no network of this suite."""

    def measure(self, settings: Settings, backend: Backend, progress: Progress) -> list[Any]:
        """Time every case, and return one object that ``json`` can write for each."""

    def table(self, results: list[Any]) -> str:
        """Return the results as text for people."""


@dataclass(frozen=True)
class Suite:
    """A registered suite: a line about it, and the module that has it."""

    summary: str
    module: str


SUITES: dict[str, Suite] = {
    "dense": Suite("training steps of fully connected classifiers", "nembp.benchmarks.dense"),
    "convolution": Suite(
        "convolutions by themselves, and training steps of classifiers of images",
        "nembp.benchmarks.convolution",
    ),
    "adversarial": Suite(
        "training steps of a generator and a discriminator", "nembp.benchmarks.adversarial"
    ),
    "parts": Suite(
        "where the time of a fully connected classifier's step goes", "nembp.benchmarks.parts"
    ),
}


def get_suite(name: str) -> SuiteModule:
    """Import a suite by name.

    Raises
    ------
    ArchitectureError
        If no suite has that name.

    >>> get_suite("dense").DEFAULTS.batches
    (32, 128, 512)
    """
    if name not in SUITES:
        raise ArchitectureError(f"suite must be one of {', '.join(SUITES)}, got {name!r}")
    return cast(SuiteModule, importlib.import_module(SUITES[name].module))
