"""Both forms of a convolution's contractions on a GPU: windows laid out, and implicit products."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from nembp.backend import Array, Backend, stream
from nembp.backend.hooks import ConvolutionForm
from nembp.backend.implicit import CONTRACTIONS
from nembp.benchmarks.cases import ImageCase
from nembp.benchmarks.contractions import measure_layer
from nembp.benchmarks.notation import convolution_of
from nembp.engine.convolution import (
    Convolution,
    ImplicitLink,
    estimated_seconds,
    implicit_contractions,
    time_forms,
)

__all__ = ["compare_forms", "in_form", "measure_gpu_layer"]


def measure_gpu_layer(
    case: ImageCase, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time a layer as :func:`measure_layer` does, and each of its contractions in both forms."""
    linear_map = convolution_of(case.network)
    assert linear_map is not None
    result = measure_layer(case, backend, repeats, budget)
    return result | {"forms": compare_forms(linear_map, backend, case.batch, case.dtype)}


def compare_forms(
    linear_map: Convolution, backend: Backend, rows: int, dtype: str
) -> dict[str, dict[str, Any]]:
    """Return for each contraction what is known of its two forms.

    Returns
    -------
    dict
        By contraction: the seconds of ``windows`` and ``implicit`` (medians, by the device's own
        clock), the ``faster`` one, the one ``taken`` by the backend's present choice, the seconds
        ``estimated`` of each, and by how much their results differ, relative to their size.
    """
    times = time_forms(linear_map, backend, rows, dtype)
    taken = implicit_contractions(linear_map, backend, rows, dtype)
    differences = _differences(linear_map, backend, rows, dtype)
    precision = getattr(backend, "precision", "float32")
    found: dict[str, dict[str, Any]] = {}
    for name in CONTRACTIONS:
        estimated = estimated_seconds(name, linear_map, rows, dtype, precision)
        found[name] = {
            "windows": times[name].windows,
            "implicit": times[name].implicit,
            "faster": "implicit" if times[name].implicit_is_faster else "windows",
            "taken": "implicit" if name in taken else "windows",
            "estimated": {"windows": estimated.windows, "implicit": estimated.implicit},
            "difference": differences[name],
        }
    return found


def _differences(
    linear_map: Convolution, backend: Backend, rows: int, dtype: str
) -> dict[str, float]:
    """Return ‖windows − implicit‖ / ‖windows‖ of each contraction, on random numbers."""
    draw = stream(0, "benchmark/forms")
    shapes = (rows, linear_map.inputs), (rows, linear_map.outputs), linear_map.weight_shape
    x, y, W = (backend.asarray(draw.standard_normal(shape), dtype) for shape in shapes)
    results: list[list[Array]] = []
    for implicit in (frozenset[str](), CONTRACTIONS):
        link = ImplicitLink(linear_map, implicit, backend, (rows,), dtype)
        up, down, gradient = (backend.empty(tuple(like.shape), dtype) for like in (y, x, W))
        link.load(W)
        link.forward(x, up)
        link.descend(x, y, down, gradient)
        results.append([backend.to_numpy(array).astype("f8") for array in (up, down, gradient)])
    return {
        name: float(np.linalg.norm(a - b) / np.linalg.norm(a))
        for name, a, b in zip(CONTRACTIONS, *results, strict=True)
    }


@contextmanager
def in_form(backend: Backend, form: ConvolutionForm) -> Iterator[None]:
    """Let the links that are made meanwhile take one form."""
    before, backend.convolution = backend.convolution, form
    try:
        yield
    finally:
        backend.convolution = before
