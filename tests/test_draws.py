"""Normal draws: their law, their repeatability, every shape."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nembp.backend import get_backend, stream
from nembp.backend.standard import fill_normal

N = 1 << 20


@pytest.fixture(scope="module")
def draws() -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return fill_normal(stream(0, "noise/forward"), np.empty(N, dtype=np.float32))


def test_the_law_is_normal(draws: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    """False-alarm rate 1e-4 for each of two seeded tests, fixed by the seed."""
    assert stats.kstest(draws.astype(np.float64), "norm").pvalue > 1e-4
    beyond = [np.count_nonzero(np.abs(draws) > limit) for limit in (3.0, 4.0)]
    for count, limit in zip(beyond, (3.0, 4.0), strict=True):
        assert stats.binomtest(count, N, 2 * stats.norm.sf(limit)).pvalue > 1e-4
    assert 4.2 < np.abs(draws).max() < 5.8


def test_the_two_of_a_pair_are_independent(
    draws: np.ndarray[tuple[int], np.dtype[np.float32]],
) -> None:
    """Correlations of 2^19 pairs have deviation 0.0014; five of them fail once in 2e6."""
    pairs = 1 << 15
    blocks = draws.astype(np.float64).reshape(-1, 2, pairs)
    a, b = blocks[:, 0].reshape(-1), blocks[:, 1].reshape(-1)
    for one, other in ((a, b), (a**2, b**2), (np.abs(a), b)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / np.sqrt(N / 2)


@pytest.mark.parametrize("shape", [(1,), (2,), (3,), (7, 5), (1, (1 << 16) + 1), ((1 << 16) - 1,)])
def test_every_entry_is_drawn(shape: tuple[int, ...]) -> None:
    out = fill_normal(stream(1, "n"), np.full(shape, np.nan, dtype=np.float32))
    assert np.all(np.isfinite(out))
    assert len(np.unique(out)) > 0.99 * out.size


def test_float64_is_the_generators_own() -> None:
    out = fill_normal(stream(2, "n"), np.empty((3, 4)))
    np.testing.assert_array_equal(out, stream(2, "n").standard_normal((3, 4)))


def test_a_stream_repeats_itself() -> None:
    backend = get_backend("cpu")
    first, second = (
        backend.normal(stream(3, "n"), backend.empty((9, 11), "float32")) for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
