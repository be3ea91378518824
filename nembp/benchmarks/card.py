"""What a device can do at most, measured: bytes and multiply-adds a second."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from functools import cache

from nembp.backend import Array, Backend, stream

__all__ = ["Card", "floor_seconds", "measure_card"]

REPEATS = 5


@dataclass(frozen=True)
class Card:
    """The ceilings of a device.

    Attributes
    ----------
    bandwidth : float
        Bytes a second, read and written, of a long copy.
    rate : float
        Multiply-adds a second of a large matrix product.
    """

    bandwidth: float
    rate: float

    def to_dict(self) -> dict[str, float]:
        """Return the fields, for JSON."""
        return asdict(self)


@cache
def measure_card(
    backend: Backend, dtype: str = "float32", size: int = 8192, length: int = 1 << 28
) -> Card:
    """Measure a copy of ``length`` numbers and a product of square matrices of ``size``.

    On random data, since products of zeros are faster; the medians of five, after a warm-up.
    """
    draw, xp = stream(0, "benchmark/card"), backend.xp

    def filled(*shape: int) -> Array:
        return backend.asarray(draw.standard_normal(shape, dtype="f4"), dtype)

    left, right = filled(size, size), filled(size, size)
    out = backend.empty((size, size), dtype)
    product = _median(backend, lambda: backend.matmul(left, right, out))
    source, copy = backend.ones((length,), dtype), backend.empty((length,), dtype)
    moved = 2 * length * (4 if dtype == "float32" else 8)
    copied = _median(backend, lambda: xp.multiply(source, 1.0, out=copy))
    return Card(bandwidth=moved / copied, rate=size**3 / product)


def _median(backend: Backend, work: object) -> float:
    assert callable(work)
    backend.seconds(work)
    return statistics.median(backend.seconds(work) for _ in range(REPEATS))


def floor_seconds(card: Card, multiply_adds: int, moved: int) -> float:
    """Return the least time of work that multiplies, then moves bytes.

    >>> floor_seconds(Card(bandwidth=1e12, rate=1e13), 10**9, 10**6)
    0.000101
    """
    return multiply_adds / card.rate + moved / card.bandwidth
