"""Benchmarks: training steps and layers timed beside their peers, interleaved in one run.

`suites` says what is timed, `floor` and `peers` what it is compared with, `harness` takes the times
and notes where, `report` prints them. This module imports nothing heavy, so that
``nembp bench --help`` is there at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nembp.backend import Precision

SUITES = {
    "dense": "training steps of fully connected classifiers",
    "convolution": "convolutions by themselves, and training steps of classifiers of images",
    "adversarial": "training steps of a generator and a discriminator",
    "parts": "where the time of a fully connected classifier's step goes",
    "estimators": "the scikit-learn estimator beside MLPClassifier: time and accuracy",
}


@dataclass(frozen=True)
class Settings:
    """What a run measures.

    Attributes
    ----------
    networks : tuple of str
        ``784-512-512-10``, or of images ``32x32x3/conv32x4s2/256/10``.
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
