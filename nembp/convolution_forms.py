"""Which form a convolution's contractions take on a GPU: windows laid out, or gathered in tiles.

Both compute the same sums and round them differently, so that the choice is part of a run's
numbers. By default it is a **rule**: estimated times, from the shapes alone. The same network and
batch then take the same forms in every run, every resumed run and on every GPU, and runs repeat
bit for bit. Timings would not promise that: where both forms are nearly as fast, noise decides.

``NEMBP_CONVOLUTION`` (or ``backend.convolution``) says otherwise:

=============== ==================================================================================
``rule``        the form that :func:`estimated_seconds` says is faster (default)
``windows``     windows laid out, then cuBLAS
``implicit``    implicit products, wherever there are kernels for them
``measure``     whichever the device's clock finds faster when a shape is first met, kept for the
                life of the process; two runs may differ in their last digits
=============== ==================================================================================

``nembp bench --suite convolution --device gpu`` times both forms beside the rule's choice.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from nembp.backend import Array, Backend
from nembp.backend.implicit import CONTRACTIONS, product
from nembp.implicit import ImplicitLink
from nembp.windows import WindowsLink

if TYPE_CHECKING:
    from nembp.convolution import Convolution

__all__ = [
    "FormTimes",
    "estimated_seconds",
    "implicit_contractions",
    "link_by_definition",
    "time_forms",
]

# What an H100 does in a second, as estimated from its data sheet; no device is asked, so that a
# choice is the same everywhere. ``tests/gpu_programme.sh`` shows where they are wrong.
PRODUCTS = {"float32": 25e12, "tf32": 150e12, "float64": 25e12}  # multiply-adds of cuBLAS
IMPLICIT = {"float32": 20e12, "float64": 8e12}
BANDWIDTH = 2.5e12  # bytes
LAUNCH = 2e-6  # seconds of a kernel
LAUNCHES = {"forward": 2, "adjoint": 2, "gradient": 5}  # of a block of windows
WARM_UP, REPEATS, CALLS = 2, 5, 4  # of a timing


def link_by_definition(
    synapse: Convolution,
    backend: Backend,
    parts: Sequence[int],
    dtype: str,
    upward: bool = True,
    lanes: int = 1,
) -> WindowsLink:
    """Return the link that computes a convolution by its definition, in the form chosen."""
    implicit = implicit_contractions(synapse, backend, sum(parts), dtype)
    if implicit:
        return ImplicitLink(synapse, implicit, backend, parts, dtype, upward, lanes)
    return WindowsLink(synapse, backend, parts, dtype, upward, lanes)


def implicit_contractions(
    synapse: Convolution, backend: Backend, rows: int, dtype: str
) -> frozenset[str]:
    """Return which of ``forward``, ``adjoint`` and ``gradient`` are implicit for so many rows."""
    how = backend.convolution
    if how == "windows" or dtype not in IMPLICIT:
        return frozenset()
    if how == "implicit":
        return frozenset(CONTRACTIONS)
    if how == "measure" and rows and not backend.is_capturing:
        key = synapse, rows, dtype
        if key not in backend.forms:
            times = time_forms(synapse, backend, rows, dtype)
            backend.forms[key] = frozenset(
                n for n, each in times.items() if each.implicit_is_faster
            )
        return backend.forms[key]
    return _by_rule(synapse, rows, dtype, getattr(backend, "precision", "float32"))


@cache
def _by_rule(synapse: Convolution, rows: int, dtype: str, precision: str) -> frozenset[str]:
    return frozenset(
        contraction
        for contraction in CONTRACTIONS
        if estimated_seconds(contraction, synapse, rows, dtype, precision).implicit_is_faster
    )


@dataclass(frozen=True)
class FormTimes:
    """Seconds of a contraction in both forms."""

    windows: float
    implicit: float

    @property
    def implicit_is_faster(self) -> bool:
        """Whether the implicit form is."""
        return self.implicit < self.windows


def estimated_seconds(
    contraction: str,
    synapse: Convolution,
    rows: int,
    dtype: str = "float32",
    precision: str = "float32",
) -> FormTimes:
    """Return how long both forms should take for so many images, from their shapes alone.

    Windows: their bytes written and read, and a large product's rate. Implicit: the multiply-adds
    of whole tiles at a lower rate, and the bytes of partial sums. Both: launches.

    >>> from nembp.convolution import Convolution
    >>> few = Convolution((16, 16, 64), 64, (3, 3), (1, 1), (1, 1))
    >>> many = Convolution((16, 16, 512), 512, (3, 3), (1, 1), (1, 1))
    >>> [estimated_seconds("forward", s, 128).implicit_is_faster for s in (few, many)]
    [True, False]
    """
    item = 8 if dtype == "float64" else 4
    window = math.prod(synapse.kernel) * synapse.shape[2]
    count = rows * math.prod(synapse.output_shape[:2]) * window
    rate = PRODUCTS[precision if dtype == "float32" else dtype]
    windows = LAUNCHES[contraction] * LAUNCH + 2 * item * count / BANDWIDTH
    windows += count * synapse.channels / rate
    cut = product(contraction, synapse, rows)
    implicit = LAUNCH + cut.multiply_adds / IMPLICIT[dtype]
    if cut.parts > 1:
        moved = 2 * item * cut.parts * cut.m * cut.n * cut.phases
        implicit += LAUNCH + moved / BANDWIDTH
    return FormTimes(windows, implicit)


def time_forms(
    synapse: Convolution, backend: Backend, rows: int, dtype: str
) -> dict[str, FormTimes]:
    """Time both forms of every contraction by the device's own clock (synchronises).

    On random numbers, medians of five, after a warm-up.
    """
    draw = backend.generator(0, "convolution forms")

    def drawn(*shape: int) -> Array:
        return backend.normal(draw, backend.empty(shape, dtype))

    x, y = drawn(rows, synapse.inputs), drawn(rows, synapse.outputs)
    W, gradient = drawn(*synapse.weight_shape), drawn(*synapse.weight_shape)
    up, down = drawn(*y.shape), drawn(*x.shape)
    seconds: list[dict[str, float]] = []
    for implicit in (frozenset[str](), frozenset(CONTRACTIONS)):
        options = backend, (rows,), dtype
        link = ImplicitLink(synapse, implicit, *options)
        link.load(W)
        works = {
            "forward": lambda link=link: link.forward(x, up),
            "adjoint": lambda link=link: link.adjoint(y, down),
            "gradient": lambda link=link: link.descend(x, y, None, gradient),
        }
        seconds.append({name: _median_seconds(backend, work) for name, work in works.items()})
    windows, tiles = seconds
    return {name: FormTimes(windows[name], tiles[name]) for name in CONTRACTIONS}


def _median_seconds(backend: Backend, work: object) -> float:
    assert callable(work)
    for _ in range(WARM_UP):
        work()

    def several() -> None:
        for _ in range(CALLS):
            work()

    return statistics.median(backend.seconds(several) / CALLS for _ in range(REPEATS))
