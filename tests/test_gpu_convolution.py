"""Convolutions as implicit products: the CUDA kernels, the link, and which form is chosen."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import seeds

import nembp.backend.implicit
from nembp.backend import get_backend
from nembp.backend.implicit import CONTRACTIONS, TILES, Product, product
from nembp.backend.kernels import kernel_source
from nembp.engine.convolution import Convolution

pytestmark = needs_kernels
CPU = get_backend("cpu")
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
some = settings(max_examples=max(1, settings.default.max_examples // 2))

CASES = {
    "3 x 3": Convolution((7, 6, 8), 12, (3, 3), (1, 1), (1, 1)),
    "stride 2": Convolution((8, 8, 4), 36, (4, 4), (2, 2), (1, 1)),
    "strides apart": Convolution((9, 11, 5), 7, (3, 5), (2, 3), (2, 0)),
    "not square": Convolution((5, 12, 3), 40, (1, 4), (1, 2), (0, 2)),
    "stride beyond the kernel": Convolution((9, 8, 6), 4, (2, 1), (3, 2), (0, 0)),
    "rest left over": Convolution((8, 9, 2), 3, (3, 4), (2, 4), (0, 1)),
    "padding beyond the kernel": Convolution((3, 2, 4), 8, (2, 2), (2, 1), (3, 2)),
    "one channel": Convolution((10, 10, 1), 9, (5, 5), (1, 1), (2, 2)),
    "channels beyond a tile": Convolution((3, 3, 68), 132, (2, 2), (1, 1), (0, 0)),
    "the whole image": Convolution((6, 5, 3), 10, (6, 5)),
    "one pixel": Convolution((4, 3, 6), 5, (1, 1)),
}
each_case = pytest.mark.parametrize("case", list(CASES))


@st.composite
def convolutions(draw: st.DrawFn) -> Convolution:
    """Any sizes, channels that fill packs and tiles and such that do not."""
    pair = partial(st.tuples, *[st.integers(0, 3)] * 2)
    kernel = tuple(k + 1 for k in draw(pair()))
    padding = draw(pair())
    more = draw(st.tuples(st.integers(0, 7), st.integers(0, 7)))
    size = [max(1, k - 2 * p) + m for k, p, m in zip(kernel, padding, more, strict=True)]
    channels = st.sampled_from([1, 2, 3, 4, 8, 12, 20, 33])
    stride = tuple(s + 1 for s in draw(st.tuples(st.integers(0, 2), st.integers(0, 2))))
    return Convolution((*size, draw(channels)), draw(channels), kernel, stride, padding)


def source() -> str:
    return kernel_source("float32", "convolution")


def numbers(linear_map: Convolution, rows: int, dtype: str, seed: int = 0) -> tuple[Any, Any, Any]:
    generator = np.random.default_rng(seed)
    shapes = (rows, linear_map.inputs), linear_map.weight_shape, (rows, linear_map.outputs)
    x, W, y = (generator.normal(size=shape).astype(dtype) for shape in shapes)
    return x, W, y


def operands(contraction: str, x: Any, W: Any, y: Any) -> tuple[Any, Any, Any]:
    """Return what a contraction takes, and what has the shape of its result."""
    return {"forward": (x, W, y), "adjoint": (y, W, x), "gradient": (x, y, W)}[contraction]


def on_device(array: np.ndarray, offset: int = 0) -> Any:
    """Move an array, to an address that is so many numbers beyond a whole pack."""
    flat = gpu().empty((array.size + 8,), str(array.dtype))
    first = -(flat.data.ptr // array.itemsize) % 4 + offset
    part = flat[first : first + array.size]
    part[...] = gpu().asarray(array.ravel())
    return gpu().xp.reshape(part, array.shape)


def implicit(
    contraction: str, linear_map: Convolution, x: Any, W: Any, y: Any, offset: int = 0
) -> np.ndarray:
    left, right, like = operands(contraction, x, W, y)
    out = on_device(np.full_like(like, np.nan), offset)
    size = gpu().implicit_spare(contraction, linear_map, len(x))
    spare = gpu().empty((size,), str(like.dtype)) if size else None
    moved = on_device(left, offset), on_device(right, offset)
    assert gpu().contract_implicitly(contraction, linear_map, *moved, out, spare)
    return gpu().to_numpy(out)


def by_numpy(contraction: str, linear_map: Convolution, x: Any, W: Any, y: Any) -> np.ndarray:
    left, right, like = operands(contraction, x, W, y)
    out = np.full_like(like, np.nan)
    call = {"forward": "forward", "adjoint": "adjoint", "gradient": "weight_gradient"}
    getattr(linear_map, call[contraction])(CPU, left, right, out)
    return out


def compare(linear_map: Convolution, rows: int, dtype: str, seed: int = 0) -> None:
    arrays = numbers(linear_map, rows, dtype, seed)
    for contraction in CONTRACTIONS:
        expected = by_numpy(contraction, linear_map, *arrays)
        scale = 10 * max(1.0, np.sqrt(product(contraction, linear_map, rows).k))
        found = implicit(contraction, linear_map, *arrays)
        assert_near(found, expected, TOLERANCE[dtype], contraction, scale=scale)


# -- the kernels -----------------------------------------------------------------------------------
@each_case
@each_dtype
@pytest.mark.parametrize("rows", [1, 3])
def test_contractions_are_those_of_numpy(rows, dtype, case):
    compare(CASES[case], rows, dtype)


@each_dtype
@some
@given(linear_map=convolutions(), rows=st.integers(1, 5), seed=seeds)
def test_contractions_of_any_shape_are_those_of_numpy(dtype, linear_map, rows, seed):
    compare(linear_map, rows, dtype, seed)


@each_case
@each_dtype
def test_trilinear(dtype, case):
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, gradient(x, y)⟩."""
    linear_map = CASES[case]
    x, W, y = numbers(linear_map, 3, dtype)
    up, down, gradient = (implicit(name, linear_map, x, W, y) for name in CONTRACTIONS)
    pairs = ((up, y), (down, x), (gradient, W))
    totals = [float(np.vdot(a.astype("f8"), b.astype("f8"))) for a, b in pairs]
    size = np.sqrt(x.size * W.size * y.size) * TOLERANCE[dtype]
    assert abs(totals[0] - totals[1]) < size
    assert abs(totals[0] - totals[2]) < size


@each_case
@pytest.mark.parametrize("offset", [1, 2])
def test_where_arrays_begin_changes_no_number(offset, case):
    """Weights lie anywhere in the parameters' vector: packs of four are not always whole."""
    linear_map = CASES[case]
    arrays = numbers(linear_map, 2, "float32")
    for contraction in CONTRACTIONS:
        aligned, other = (implicit(contraction, linear_map, *arrays, k) for k in (0, offset))
        assert np.array_equal(aligned, other)


@pytest.mark.parametrize("case", ["3 x 3", "stride 2", "strides apart", "channels beyond a tile"])
def test_tiles_change_no_number(case, monkeypatch):
    linear_map = CASES[case]
    arrays = numbers(linear_map, 2, "float32")
    monkeypatch.setattr(nembp.backend.implicit, "WARPS", 1)  # one part
    for contraction in CONTRACTIONS:
        found = []
        for tile in TILES:
            monkeypatch.setattr(nembp.backend.implicit, "TILES", (tile,))
            assert product(contraction, linear_map, 2).tile == tile
            found.append(implicit(contraction, linear_map, *arrays))
        for other in found[1:]:
            assert np.array_equal(found[0], other)


def test_parts_are_summed_in_their_order():
    """A sum of parts is theirs, whatever the memory held, and has the same bits every time."""
    linear_map = Convolution((9, 9, 16), 20, (3, 3), (1, 1), (1, 1))
    arrays = numbers(linear_map, 8, "float32")
    for contraction in CONTRACTIONS:
        assert product(contraction, linear_map, 8).parts > 1
        found = [implicit(contraction, linear_map, *arrays) for _ in range(3)]
        assert np.array_equal(found[0], found[1])
        assert np.array_equal(found[0], found[2])
    compare(linear_map, 8, "float32")


def test_no_part_has_the_last_terms_but_its_own(monkeypatch):
    """Parts that the sum does not divide into, and more parts than slabs."""
    linear_map = Convolution((5, 5, 3), 4, (3, 3))
    for parts in (2, 3, 7, 65, 130):
        original = nembp.backend.implicit.product

        def cut_up(*args: Any, _parts: int = parts, _original: Any = original) -> Product:
            whole = _original(*args)
            return Product(whole.m, whole.n, whole.k, whole.phases, whole.tile, _parts)

        with monkeypatch.context() as patched:
            patched.setattr(nembp.backend.implicit, "product", cut_up)
            compare(linear_map, 3, "float64")


def test_every_kernel_is_tried_above():
    made = set(re.findall(r"^CONTRACTIONS\((\d+), (\d+), (\d+)\)", source(), re.MULTILINE))
    threads = {(int(m), int(n)): int(m) * int(n) // (8 * int(t)) for m, n, t in made}
    assert threads == {(tile.rows, tile.columns): tile.threads for tile in TILES}
