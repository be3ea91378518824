"""Small images and readers of them, for the tests of batches."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import array_api_strict
import numpy as np

from nembp.backend import Backend
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.engine.network import Network, dense_network

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))
SHAPE, CLASSES = (4, 5, 3), 4
BOTH = Augmentation(flip=True, crop=2)


def images(n: int = 60) -> Split:
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, *SHAPE)).astype(np.uint8)
    return Split(x, generator.integers(0, CLASSES, n))


def in_file(split: Split, folder: Path) -> Split:
    np.save(folder / "x.npy", split.x)
    return Split(np.load(folder / "x.npy", mmap_mode="r"), split.y)


def reader_of(split: Split, net: Network, **options: Any) -> BatchReader:
    return BatchReader(
        split, Scaling(factor=1 / 255), Scaling(), net.outputs, net.backend, net.dtype, **options
    )


def network(backend: Backend | str = "cpu", dtype: str = "float32") -> Network:
    return dense_network([60, 8, CLASSES], device=backend, dtype=dtype)


def no_thread_is_left() -> bool:
    return not any("nembp-batches" in thread.name for thread in threading.enumerate())
