"""Simpler chains of linear maps, for counterexamples that people can read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.errors import ArchitectureError
from nembp.verification.cases import Case

__all__ = ["simpler_chains"]


def simpler_chains(case: Case) -> Iterator[Case]:
    """Yield cases with fewer or plainer linear maps, the boldest steps first.

    All dense; without the first or the last; one of them dense; then one with a smaller image,
    kernel, stride, padding or number of channels, where what it joins is dense or an end.
    """
    maps = case.maps
    if maps is None:
        return
    yield case.with_(maps=None)
    if len(maps) > 1:
        yield _cut(case, 1, len(maps) + 1)
        yield _cut(case, 0, len(maps))
    for k, linear_map in enumerate(maps):
        if not isinstance(linear_map, Dense):
            yield _replaced(case, k, Dense(linear_map.inputs, linear_map.outputs))
    for k, linear_map in enumerate(maps):
        for simpler in _simpler(linear_map):
            smaller = _refitted(case, k, simpler)
            if smaller is not None:
                yield smaller


def _cut(case: Case, start: int, stop: int) -> Case:
    """Return the case with the layers from ``start`` to before ``stop``."""
    assert case.maps is not None
    return case.with_(
        sizes=case.sizes[start:stop],
        maps=case.maps[start : stop - 1],
        biases=case.biases and case.biases[start:stop],
        linear=tuple(k - start for k in case.linear if start < k < stop - 1),
        normalized=tuple(k - start for k in case.normalized if start < k < stop - 1),
    )


def _replaced(case: Case, k: int, linear_map: LinearMap) -> Case:
    assert case.maps is not None
    return case.with_(maps=(*case.maps[:k], linear_map, *case.maps[k + 1 :]))


def _refitted(case: Case, k: int, linear_map: LinearMap) -> Case | None:
    """Return the case with another linear map k and dense neighbours that fit it; None if others."""
    assert case.maps is not None
    before = case.sizes
    sizes = (*before[:k], linear_map.inputs, linear_map.outputs, *before[k + 2 :])
    case = _replaced(case, k, linear_map).with_(sizes=sizes)
    assert case.maps is not None
    for near in (k - 1, k + 1):
        if 0 <= near < len(case.maps):
            other = case.maps[near]
            fits = (other.inputs, other.outputs) == sizes[near : near + 2]
            if not fits and not isinstance(other, Dense):
                return None
            if not fits:
                case = _replaced(case, near, Dense(*sizes[near : near + 2]))
    if case.biases is None:
        return case
    counts = [
        size if old == was else math.gcd(old, size)
        for old, was, size in zip(case.biases, before, sizes, strict=True)
    ]
    return case.with_(biases=tuple(counts))


def _simpler(linear_map: LinearMap) -> Iterator[LinearMap]:
    """Yield linear maps of the same kind with one smaller number; of a transposed one, both."""
    if isinstance(linear_map, Transposed):
        yield linear_map.linear_map
        yield from (Transposed(inner) for inner in _simpler(linear_map.linear_map))
    if type(linear_map) not in (Dense, Convolution, AveragePooling, Reshape):
        return
    for field in dataclasses.fields(linear_map):  # type: ignore[arg-type]
        value = getattr(linear_map, field.name)
        axes = field.name == "axes" and value is not None
        for smaller in [None] if axes else _smaller(value):
            try:
                yield dataclasses.replace(linear_map, **{field.name: smaller})  # type: ignore[type-var]
            except ArchitectureError:
                continue


def _smaller(value: Any) -> Iterator[Any]:
    """Yield smaller whole numbers, or tuples with one smaller entry."""
    if isinstance(value, int):
        yield from sorted({n for n in (0, 1, value // 2, value - 1) if 0 <= n < value})
    elif isinstance(value, tuple):
        for k, entry in enumerate(value):
            for smaller in _smaller(entry):
                yield (*value[:k], smaller, *value[k + 1 :])
