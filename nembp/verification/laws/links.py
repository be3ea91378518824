"""Laws of links: what computes a step's contractions gives what the linear map gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.convolution import (
    POINTS,
    Convolution,
    MinimalFilteringLink,
    Plan,
    WindowsLink,
)
from nembp.engine.linear import Dense, LinearMap, Link, RowsLink, Transposed
from nembp.verification.laws.deviations import Deviations, Vector, holds, near
from nembp.verification.laws.joint import poisoned
from nembp.verification.laws.maps import contractions, random_arrays

__all__ = ["all_links", "links", "plans"]


FEW = 3  # sizes of tiles that are tried of one convolution


def all_links(
    linear_map: LinearMap,
    backend: Backend,
    parts: tuple[int, int],
    dtype: str,
    upward: bool = True,
    lanes: int = 1,
    *,
    seed: int = 0,
) -> Iterator[tuple[str, Link]]:
    """Yield the link that a step would take, and others that the linear map can have.

    Rows shared among lanes; windows, and tiles of three sizes, which the seed
    chooses; all whatever they cost.
    """
    yield "link", linear_map.link(backend, parts, dtype, upward, lanes)
    inner = linear_map
    while isinstance(inner, Transposed):
        inner, upward = inner.linear_map, not upward
    if type(inner) is Dense:
        yield "link by rows", RowsLink(inner, backend, dtype, upward, lanes)
    if type(inner) is not Convolution:
        return
    yield "link by windows", WindowsLink(inner, backend, parts, dtype, upward, lanes)
    sizes_of = list(plans(inner)) if backend.has_strided_views else []
    for k in np.random.default_rng(seed).permutation(len(sizes_of))[:FEW]:
        sizes = sizes_of[k]
        link = MinimalFilteringLink(inner, sizes, backend, parts, dtype, upward, lanes)
        yield f"link by tiles of {sizes.results}", link


def plans(linear_map: Convolution) -> Iterator[Plan]:
    """Yield all sizes of tiles that the algorithm has points for."""
    height, width, _ = linear_map.output_shape
    weights = tuple(-(-k // s) for k, s in zip(linear_map.kernel, linear_map.stride, strict=True))
    vertical, horizontal = (range(1, max(len(POINTS) + 2 - r, 0) + 1) for r in weights)
    for m, n in product(vertical, horizontal):
        if m <= height and n <= width:
            yield Plan((m, n), (weights[0], weights[1]), (-(-height // m), -(-width // n)), 0.0)


def links(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """forward, adjoint and descend of every link are the linear map's contractions.

    In buffers that held NaN, for a part of the rows, rows of two parts, after a batch of NaN, and
    again with other weights; ``after`` is told once of each row, when it is written.
    """
    backend = poisoned(backend or get_backend("cpu"))
    for second, upward, lanes in ((0, True, 1), (rows + 1, True, 3), (2, False, 1 + seed % 3)):
        turned = linear_map if upward else Transposed(linear_map)
        batches = [random_arrays(turned, rows + second, seed + k, dtype) for k in (0, 1)]
        wanted = [contractions(turned, *arrays, backend, dtype) for arrays in batches]
        for name, link in all_links(
            linear_map, backend, (rows, second), dtype, upward, lanes, seed=seed
        ):
            work = _Work(link, name, rows, second)
            for arrays, expected in zip(batches, wanted, strict=True):
                yield from work.compare(*arrays, expected)
                list(work.step(*(np.full_like(array, np.nan) for array in arrays)))
            yield from work.compare(*batches[0], wanted[0])


class _Work:
    """A link as a step uses it, from and to arrays of the host."""

    def __init__(self, link: Link, name: str, rows: int, second: int) -> None:
        self.link, self.name, self.rows, self.second = link, name, rows, second
        self.told: list[tuple[int, int, bool]] = []

    def _array(self, value: Vector) -> Any:
        return self.link.backend.asarray(value, self.link.dtype)

    def _after(self, out: Any) -> Any:
        def after(start: int, stop: int) -> None:
            written = self.link.backend.to_numpy(out[start:stop, :])
            self.told.append((start, stop, not np.any(np.isnan(written))))

        return after

    def step(self, x: Vector, W: Vector, y: Vector, *, some: bool = False) -> Iterator[Vector]:
        """Load, go up and down; yield forward, adjoint, adjoint of the second part, gradient.

        With ``some``, results of the first part of the rows alone.
        """
        link, most = self.link, self.rows if some else len(x)
        lower, upper, weights = self._array(x), self._array(y), self._array(W)
        link.load(weights)
        ups = self._array(np.full_like(y[:most], np.nan))
        link.forward(lower, ups, self._after(ups))
        yield link.backend.to_numpy(ups).astype(float)
        part = self._array(np.full_like(x[self.rows :], np.nan))
        if self.second:
            link.adjoint(upper[self.rows :, :], part, self._after(part))
        yield link.backend.to_numpy(part).astype(float)
        gradient = self._array(np.full_like(W, np.nan))
        downs = self._array(np.full_like(x[:most], np.nan))
        link.descend(lower, upper, downs, gradient, self._after(downs))
        yield link.backend.to_numpy(downs).astype(float)
        yield link.backend.to_numpy(gradient).astype(float)
        if W.size:
            gradient[...] = np.nan
            link.descend(lower, upper, None, gradient)
            yield link.backend.to_numpy(gradient).astype(float)

    def compare(self, x: Vector, W: Vector, y: Vector, expected: tuple[Vector, ...]) -> Deviations:
        """Compare with the linear map's own contractions."""
        up, down, gradient = expected
        largest = [float(np.abs(array).max(initial=1.0)) for array in (x, W, y)]
        scale = largest[0] * largest[1] * largest[2]
        for some in (False, True):
            most = self.rows if some else len(x)
            self.told.clear()
            found = list(self.step(x, W, y, some=some))
            same = [up[:most], down[self.rows :], down[:most], gradient, gradient]
            names = ("forward", "adjoint", "descend", "gradient", "gradient alone")
            for what, actual, value in zip(names, found, same, strict=False):
                yield near(actual, value, f"{self.name}: {what}", scale=scale)
            yield holds(all(done for *_, done in self.told), f"{self.name}: rows told are written")
            counts = [most, self.second, most]
            told = sorted(row for start, stop, _ in self.told for row in range(start, stop))
            every = sorted(row for count in counts for row in range(count))
            yield holds(told == every, f"{self.name}: rows are told once each")
