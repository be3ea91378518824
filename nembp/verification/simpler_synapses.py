"""Simpler chains of synapses, for counterexamples that people can read."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.errors import ArchitectureError
from nembp.synapses import Dense, Synapse, Transposed
from nembp.verification.cases import Case

__all__ = ["simpler_chains"]


def simpler_chains(case: Case) -> Iterator[Case]:
    """Yield cases with fewer or plainer synapses, the boldest steps first.

    All dense; without the first or the last; one of them dense; then one with a smaller image,
    kernel, stride, padding or number of channels, where what it joins is dense or an end.
    """
    synapses = case.synapses
    if synapses is None:
        return
    yield case.with_(synapses=None)
    if len(synapses) > 1:
        yield _cut(case, 1, len(synapses) + 1)
        yield _cut(case, 0, len(synapses))
    for k, synapse in enumerate(synapses):
        if not isinstance(synapse, Dense):
            yield _replaced(case, k, Dense(synapse.inputs, synapse.outputs))
    for k, synapse in enumerate(synapses):
        for simpler in _simpler(synapse):
            smaller = _refitted(case, k, simpler)
            if smaller is not None:
                yield smaller


def _cut(case: Case, start: int, stop: int) -> Case:
    """Return the case with the layers from ``start`` to before ``stop``."""
    assert case.synapses is not None
    return case.with_(
        sizes=case.sizes[start:stop],
        synapses=case.synapses[start : stop - 1],
        biases=case.biases and case.biases[start:stop],
        linear=tuple(k - start for k in case.linear if start < k < stop - 1),
        normalized=tuple(k - start for k in case.normalized if start < k < stop - 1),
    )


def _replaced(case: Case, k: int, synapse: Synapse) -> Case:
    assert case.synapses is not None
    return case.with_(synapses=(*case.synapses[:k], synapse, *case.synapses[k + 1 :]))


def _refitted(case: Case, k: int, synapse: Synapse) -> Case | None:
    """Return the case with another synapse k and dense neighbours that fit it; None if others."""
    assert case.synapses is not None
    before = case.sizes
    sizes = (*before[:k], synapse.inputs, synapse.outputs, *before[k + 2 :])
    case = _replaced(case, k, synapse).with_(sizes=sizes)
    assert case.synapses is not None
    for near in (k - 1, k + 1):
        if 0 <= near < len(case.synapses):
            other = case.synapses[near]
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


def _simpler(synapse: Synapse) -> Iterator[Synapse]:
    """Yield synapses of the same kind with one smaller number; of a transposed one, both."""
    if isinstance(synapse, Transposed):
        yield synapse.synapse
        yield from (Transposed(inner) for inner in _simpler(synapse.synapse))
    if type(synapse) not in (Dense, Convolution, AveragePooling, Reshape):
        return
    for field in dataclasses.fields(synapse):  # type: ignore[arg-type]
        value = getattr(synapse, field.name)
        axes = field.name == "axes" and value is not None
        for smaller in [None] if axes else _smaller(value):
            try:
                yield dataclasses.replace(synapse, **{field.name: smaller})  # type: ignore[type-var]
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
