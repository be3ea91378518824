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
    """What a run measures."""

    networks: tuple[str, ...]  # 784-512-512-10, or of images 32x32x3/conv32x4s2/256/10
    batches: tuple[int, ...]  # rows
    threads: tuple[int, ...]  # of BLAS and of PyTorch alike
    repeats: int | None = None  # interleaved rounds of each line; None fits them into the budget
    budget: float = 140.0  # seconds of timing in all, start-up and the memory run not counted
    dtype: str = "float32"  # or float64
    device: str = "auto"  # or cpu, gpu
    precision: Precision = "float32"  # of a GPU's float32 products, nembp's and PyTorch's; or tf32
    memory: bool = True  # whether to run the training whose peak memory is reported
