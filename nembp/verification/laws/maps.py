"""Laws of linear maps: the trilinear form, its definition, and that calls leave nothing behind."""

from __future__ import annotations

import contextvars
import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.linear import LinearMap, Transposed
from nembp.verification.laws.deviations import Deviations, Vector, equal, holds, near
from nembp.verification.laws.matrices import is_written_out, matrix_of, weight_gradient_of

__all__ = [
    "contractions",
    "definition",
    "interrupted",
    "keeps_no_memory",
    "random_arrays",
    "reentrant",
    "transposed",
    "trilinear",
]

NAMES = ("forward", "adjoint", "weight_gradient")
HANDOVERS = 40  # of one call to another thread, at most


def contractions(
    linear_map: LinearMap,
    x: Vector,
    W: Vector,
    y: Vector,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> tuple[Vector, Vector, Vector]:
    """Return forward(x), adjoint(y) and weight_gradient(x, y), from buffers that held NaN."""
    backend = backend or get_backend("cpu")
    shapes = y.shape, x.shape, linear_map.weight_shape
    outs = [backend.asarray(np.full(shape, np.nan), dtype) for shape in shapes]
    x, y, W = (backend.asarray(value, dtype) for value in (x, y, W))
    linear_map.forward(backend, x, W, outs[0])
    linear_map.adjoint(backend, y, W, outs[1])
    if linear_map.weight_count:
        linear_map.weight_gradient(backend, x, y, outs[2])
    up, down, gradient = (backend.to_numpy(out).astype(float) for out in outs)
    return up, down, gradient


def random_arrays(
    linear_map: LinearMap, rows: int, seed: int, dtype: str
) -> tuple[Vector, Vector, Vector]:
    """Draw x, W and y that ``dtype`` can represent."""
    g = np.random.default_rng(seed)
    shapes = (rows, linear_map.inputs), linear_map.weight_shape, (rows, linear_map.outputs)
    x, W, y = (g.normal(size=shape).astype(dtype).astype(float) for shape in shapes)
    return x, W, y


def trilinear(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩, linear in x, y and W.

    Row by row too, since a form summed over rows cannot tell them apart.
    """
    x, W, y = random_arrays(linear_map, rows, seed, dtype)
    up, down, gradient = contractions(linear_map, x, W, y, backend, dtype)
    scale = float(np.abs(x).sum() * np.abs(y).max() * np.abs(W).max(initial=1.0))
    form = np.sum(up * y)
    yield near(np.sum(x * down), form, "⟨x, adjoint(y)⟩", scale=scale)
    if linear_map.weight_count:
        yield near(np.sum(W * gradient), form, "⟨W, weight_gradient(x, y)⟩", scale=scale)
        yield from _linear_in_weights(linear_map, x, W, y, scale, backend, dtype)
    if not is_written_out(linear_map) or np.any(matrix_of(linear_map, W)):  # all may be padding
        yield holds(abs(form) > 0.0, "the form does not vanish")
    for r in range(rows):
        row = slice(r, r + 1)
        one = contractions(linear_map, x[row], W, y[row], backend, dtype)
        yield near(up[row], one[0], f"forward, row {r} by itself", scale=scale)
        yield near(down[row], one[1], f"adjoint, row {r} by itself", scale=scale)
    twice = contractions(linear_map, 2.0 * x, W, -3.0 * y, backend, dtype)
    names = ("forward(2x) = 2 forward(x)", "adjoint(−3y)", "weight_gradient(2x, −3y)")
    for name, actual, once, factor in zip(
        names, twice, (up, down, gradient), (2.0, -3.0, -6.0), strict=True
    ):
        if actual.size and not (name == names[2] and not linear_map.weight_count):
            yield near(actual, factor * once, name, scale=scale)


def _linear_in_weights(
    linear_map: LinearMap,
    x: Vector,
    W: Vector,
    y: Vector,
    scale: float,
    backend: Backend | None,
    dtype: str,
) -> Deviations:
    """``weight_gradient`` does not see W: its product with other weights is their form too."""
    other = random_arrays(linear_map, 1, 1 + x.size, dtype)[1]
    up, _, gradient = contractions(linear_map, x, other, y, backend, dtype)
    scale *= 1.0 + float(np.abs(other).max())
    yield near(np.sum(other * gradient), np.sum(up * y), "the form at other weights", scale=scale)
    both = contractions(linear_map, x, W + other, y, backend, dtype)[0]
    alone = contractions(linear_map, x, W, y, backend, dtype)[0]
    yield near(both, up + alone, "forward at W + W'", scale=scale)


def transposed(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """``Transposed`` exchanges the arguments over the same W, and undoes itself, bit for bit."""
    x, W, y = random_arrays(linear_map, rows, seed, dtype)
    turned = Transposed(linear_map)
    shapes = (turned.inputs, turned.outputs, turned.weight_shape, turned.weight_count)
    expected = (
        linear_map.outputs,
        linear_map.inputs,
        linear_map.weight_shape,
        linear_map.weight_count,
    )
    yield holds(shapes == expected, "sizes of the transposed linear map")
    up, down, gradient = contractions(linear_map, x, W, y, backend, dtype)
    swapped = contractions(turned, y, W, x, backend, dtype)
    back = contractions(Transposed(turned), x, W, y, backend, dtype)
    for name, actual, same in zip(NAMES, swapped, (down, up, gradient), strict=True):
        yield equal(actual, same, f"transposed {name}")
    for name, actual, same in zip(
        ("forward", "adjoint", "weight_gradient"), back, (up, down, gradient), strict=True
    ):
        yield equal(actual, same, f"twice transposed {name}")


def definition(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """All three are products with the matrix that the kind of linear map is defined by.

    forward = x M(W), adjoint = y M(W)ᵀ, weight_gradient = Σ xᵀ y wherever M has the weight.
    """
    x, W, y = random_arrays(linear_map, rows, seed, dtype)
    matrix = matrix_of(linear_map, W)
    yield holds(matrix.shape == (linear_map.inputs, linear_map.outputs), "sizes of both layers")
    expected = x @ matrix, y @ matrix.T, weight_gradient_of(linear_map, x, y)
    size = np.abs(x).max() * np.abs(y).max() * np.abs(W).max(initial=1.0)
    found = contractions(linear_map, x, W, y, backend, dtype)
    for name, actual, value in zip(NAMES, found, expected, strict=True):
        yield near(actual, value, name, scale=float(size))


# -- calls in a row, and at once -----------------------------------------------------------------
def keeps_no_memory(
    maps: Sequence[LinearMap],
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """Results depend on the arguments alone: not on earlier calls of any linear_map.

    In between come calls with more rows and fewer, all NaN: whatever they leave would show.
    """
    given = [random_arrays(linear_map, rows, seed + k, dtype) for k, linear_map in enumerate(maps)]
    before = [
        contractions(linear_map, *values, backend, dtype)
        for linear_map, values in zip(maps, given, strict=True)
    ]
    for count in (rows + 2, max(1, rows - 2), rows + 5, rows):
        for linear_map in maps:
            x, W, y = (np.full_like(v, np.nan) for v in random_arrays(linear_map, count, 0, dtype))
            contractions(linear_map, x, W, y, backend, dtype)
    for k in reversed(range(len(maps))):
        after = contractions(maps[k], *given[k], backend, dtype)
        for name, actual, value in zip(NAMES, after, before[k], strict=True):
            yield near(actual, value, f"{name} after other calls", scale=1.0)


def reentrant(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """A call in one thread changes nothing in a call that another thread is in the middle of."""
    backend = backend or get_backend("cpu")
    mine, theirs = (random_arrays(linear_map, rows, seed + k, dtype) for k in (0, 1))
    expected = [contractions(linear_map, *values, backend, dtype) for values in (mine, theirs)]
    seen: list[tuple[Vector, ...]] = []

    def other(twin: Backend) -> None:
        seen.append(contractions(linear_map, *theirs, twin, dtype))

    found = contractions(linear_map, *mine, interrupted(backend, other), dtype)
    for values, same, who in [(found, expected[0], "interrupted")] + [
        (values, expected[1], "from another thread") for values in seen
    ]:
        for name, actual, value in zip(NAMES, values, same, strict=True):
            yield near(actual, value, f"{name} {who}", scale=1.0)


def interrupted(backend: Backend, other: Callable[[Backend], None]) -> Backend:
    """Return a twin that hands over before its operations: ``other`` runs in another thread.

    As two threads might meet at worst, but each time alike. 40 times at most.
    """
    twin, owner, left = copy.copy(backend), threading.get_ident(), [HANDOVERS]

    def handing_over(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if threading.get_ident() == owner and left[0]:
                left[0] -= 1
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(contextvars.copy_context().run, other, twin).result()
            return operation(*args, **options)

        return call

    for name in ("add_windows", "copy_windows", "empty", "into", "matmul", "ones", "zeros"):
        if hasattr(backend, name):
            setattr(twin, name, handing_over(getattr(backend, name)))
    return twin
