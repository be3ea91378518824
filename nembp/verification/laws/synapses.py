"""Laws of synapses: the trilinear form, its definition, and that calls leave nothing behind."""

from __future__ import annotations

import contextvars
import copy
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.synapses import Synapse, Transposed
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
    synapse: Synapse,
    x: Vector,
    W: Vector,
    y: Vector,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> tuple[Vector, Vector, Vector]:
    """Return forward(x), adjoint(y) and weight_gradient(x, y), from buffers that held NaN."""
    backend = backend or get_backend("cpu")
    shapes = y.shape, x.shape, synapse.weight_shape
    outs = [backend.asarray(np.full(shape, np.nan), dtype) for shape in shapes]
    x, y, W = (backend.asarray(value, dtype) for value in (x, y, W))
    synapse.forward(backend, x, W, outs[0])
    synapse.adjoint(backend, y, W, outs[1])
    if synapse.weight_count:
        synapse.weight_gradient(backend, x, y, outs[2])
    up, down, gradient = (backend.to_numpy(out).astype(float) for out in outs)
    return up, down, gradient


def random_arrays(
    synapse: Synapse, rows: int, seed: int, dtype: str
) -> tuple[Vector, Vector, Vector]:
    """Draw x, W and y that ``dtype`` can represent."""
    g = np.random.default_rng(seed)
    shapes = (rows, synapse.inputs), synapse.weight_shape, (rows, synapse.outputs)
    x, W, y = (g.normal(size=shape).astype(dtype).astype(float) for shape in shapes)
    return x, W, y


def trilinear(
    synapse: Synapse,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩, linear in x, y and W.

    Row by row too, since a form summed over rows cannot tell them apart.
    """
    x, W, y = random_arrays(synapse, rows, seed, dtype)
    up, down, gradient = contractions(synapse, x, W, y, backend, dtype)
    scale = float(np.abs(x).sum() * np.abs(y).max() * np.abs(W).max(initial=1.0))
    form = np.sum(up * y)
    yield near(np.sum(x * down), form, "⟨x, adjoint(y)⟩", scale=scale)
    if synapse.weight_count:
        yield near(np.sum(W * gradient), form, "⟨W, weight_gradient(x, y)⟩", scale=scale)
        yield from _linear_in_weights(synapse, x, W, y, scale, backend, dtype)
    if not is_written_out(synapse) or np.any(matrix_of(synapse, W)):  # all may be padding
        yield holds(abs(form) > 0.0, "the form does not vanish")
    for r in range(rows):
        row = slice(r, r + 1)
        one = contractions(synapse, x[row], W, y[row], backend, dtype)
        yield near(up[row], one[0], f"forward, row {r} by itself", scale=scale)
        yield near(down[row], one[1], f"adjoint, row {r} by itself", scale=scale)
    twice = contractions(synapse, 2.0 * x, W, -3.0 * y, backend, dtype)
    names = ("forward(2x) = 2 forward(x)", "adjoint(−3y)", "weight_gradient(2x, −3y)")
    for name, actual, once, factor in zip(
        names, twice, (up, down, gradient), (2.0, -3.0, -6.0), strict=True
    ):
        if actual.size and not (name == names[2] and not synapse.weight_count):
            yield near(actual, factor * once, name, scale=scale)


def _linear_in_weights(
    synapse: Synapse,
    x: Vector,
    W: Vector,
    y: Vector,
    scale: float,
    backend: Backend | None,
    dtype: str,
) -> Deviations:
    """``weight_gradient`` does not see W: its product with other weights is their form too."""
    other = random_arrays(synapse, 1, 1 + x.size, dtype)[1]
    up, _, gradient = contractions(synapse, x, other, y, backend, dtype)
    scale *= 1.0 + float(np.abs(other).max())
    yield near(np.sum(other * gradient), np.sum(up * y), "the form at other weights", scale=scale)
    both = contractions(synapse, x, W + other, y, backend, dtype)[0]
    alone = contractions(synapse, x, W, y, backend, dtype)[0]
    yield near(both, up + alone, "forward at W + W'", scale=scale)


def transposed(
    synapse: Synapse,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """``Transposed`` exchanges the arguments over the same W, and undoes itself, bit for bit."""
    x, W, y = random_arrays(synapse, rows, seed, dtype)
    turned = Transposed(synapse)
    shapes = (turned.inputs, turned.outputs, turned.weight_shape, turned.weight_count)
    expected = (synapse.outputs, synapse.inputs, synapse.weight_shape, synapse.weight_count)
    yield holds(shapes == expected, "sizes of the transposed synapse")
    up, down, gradient = contractions(synapse, x, W, y, backend, dtype)
    swapped = contractions(turned, y, W, x, backend, dtype)
    back = contractions(Transposed(turned), x, W, y, backend, dtype)
    for name, actual, same in zip(NAMES, swapped, (down, up, gradient), strict=True):
        yield equal(actual, same, f"transposed {name}")
    for name, actual, same in zip(
        ("forward", "adjoint", "weight_gradient"), back, (up, down, gradient), strict=True
    ):
        yield equal(actual, same, f"twice transposed {name}")


def definition(
    synapse: Synapse,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """All three are products with the matrix that the kind of synapse is defined by.

    forward = x M(W), adjoint = y M(W)ᵀ, weight_gradient = Σ xᵀ y wherever M has the weight.
    """
    x, W, y = random_arrays(synapse, rows, seed, dtype)
    matrix = matrix_of(synapse, W)
    yield holds(matrix.shape == (synapse.inputs, synapse.outputs), "sizes of both layers")
    expected = x @ matrix, y @ matrix.T, weight_gradient_of(synapse, x, y)
    size = np.abs(x).max() * np.abs(y).max() * np.abs(W).max(initial=1.0)
    found = contractions(synapse, x, W, y, backend, dtype)
    for name, actual, value in zip(NAMES, found, expected, strict=True):
        yield near(actual, value, name, scale=float(size))


# -- calls in a row, and at once -----------------------------------------------------------------
def keeps_no_memory(
    synapses: Sequence[Synapse],
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """Results depend on the arguments alone: not on earlier calls of any synapse.

    In between come calls with more rows and fewer, all NaN: whatever they leave would show.
    """
    given = [random_arrays(synapse, rows, seed + k, dtype) for k, synapse in enumerate(synapses)]
    before = [
        contractions(synapse, *values, backend, dtype)
        for synapse, values in zip(synapses, given, strict=True)
    ]
    for count in (rows + 2, max(1, rows - 2), rows + 5, rows):
        for synapse in synapses:
            x, W, y = (np.full_like(v, np.nan) for v in random_arrays(synapse, count, 0, dtype))
            contractions(synapse, x, W, y, backend, dtype)
    for k in reversed(range(len(synapses))):
        after = contractions(synapses[k], *given[k], backend, dtype)
        for name, actual, value in zip(NAMES, after, before[k], strict=True):
            yield near(actual, value, f"{name} after other calls", scale=1.0)


def reentrant(
    synapse: Synapse,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """A call in one thread changes nothing in a call that another thread is in the middle of."""
    backend = backend or get_backend("cpu")
    mine, theirs = (random_arrays(synapse, rows, seed + k, dtype) for k in (0, 1))
    expected = [contractions(synapse, *values, backend, dtype) for values in (mine, theirs)]
    seen: list[tuple[Vector, ...]] = []

    def other(twin: Backend) -> None:
        seen.append(contractions(synapse, *theirs, twin, dtype))

    found = contractions(synapse, *mine, interrupted(backend, other), dtype)
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
