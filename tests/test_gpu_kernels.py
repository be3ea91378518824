"""Every CUDA kernel does what the engine's own operations do, number for number.

The hooks are called on a GPU, or on the stand-in that runs the kernels' sources on the host, with
outputs that hold NaN or nonsense before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import CPU, drawn, each_dtype, host, readouts, same, sizes, some
from strategies import any_likelihood, seeds, targets

from nembp.engine.activations import ACTIVATIONS, get_activation
from nembp.engine.likelihoods import Gaussian, Readout

pytestmark = needs_kernels


# -- neurons ---------------------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("name", [None, *sorted(ACTIVATIONS)], ids=str)
@some
@given(rows=sizes, channels=sizes, per_channel=st.integers(1, 3), seed=seeds, biased=st.booleans())
def test_neurons(name, dtype, rows, channels, per_channel, seed, biased):
    activation = None if name is None else get_activation(name)
    z = 3 * drawn(seed, rows, channels * per_channel, dtype=dtype)
    z.flat[::7] = 0.0
    bias = drawn(seed + 1, channels, dtype=dtype) if biased else None
    on_gpu = gpu().asarray(z), None if bias is None else gpu().asarray(bias)
    assert gpu().add_bias_activate(activation, *on_gpu)
    if bias is not None:
        z = (z.reshape(-1, channels) + bias).reshape(z.shape)
    error = drawn(seed + 2, *z.shape, dtype=dtype)
    error_on_gpu = gpu().asarray(error)
    if activation is not None:
        activation.activate(CPU, z, np.empty_like(z))
        assert gpu().multiply_derivative(activation, error_on_gpu, gpu().asarray(z))
        activation.multiply_derivative(CPU, error, z, np.empty_like(z))
    same(on_gpu[0], z)
    same(error_on_gpu, error)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_neurons_at_the_edges(name):
    activation = get_activation(name)
    z = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-30]], np.float32)
    on_gpu = gpu().asarray(z)
    gpu().add_bias_activate(activation, on_gpu, None)
    activation.activate(CPU, z, np.empty_like(z))
    np.testing.assert_allclose(host(on_gpu), z, rtol=1e-6)


@each_dtype
@given(shapes=st.lists(st.tuples(sizes, st.integers(1, 100)), min_size=1, max_size=5), seed=seeds)
def test_column_sums_together(dtype, shapes, seed):
    matrices = [drawn(seed + k, *shape, dtype=dtype) for k, shape in enumerate(shapes)]
    matrices.append(drawn(seed, 1500, 2, dtype=dtype))  # of many rows: by a product
    tables: dict[Any, Any] = {}
    for _ in range(2):
        sums = []
        for x in matrices:
            ones = gpu().ones((1, len(x)), dtype)
            sums.append((gpu().asarray(x), gpu().empty((1, x.shape[1]), dtype), ones))
        gpu().column_sums_together(sums, tables)
        for x, (_, out, _) in zip(matrices, sums, strict=True):
            same(out, x.sum(axis=0, keepdims=True), scale=len(x))


def test_columns_of_many_rows_are_summed_by_a_product():
    x = drawn(0, 3000, 5, dtype="float32")
    out = gpu().empty((1, 5), "float32")
    gpu().column_sums(gpu().asarray(x), out, gpu().ones((1, 3000), "float32"))
    same(out, x.sum(axis=0, keepdims=True), scale=3000.0)


# -- ends ------------------------------------------------------------------------------------------
@each_dtype
@given(
    likelihood=any_likelihood, rows=sizes, width=st.integers(1, 400), seed=seeds,
    summed=st.booleans(), counts=st.sampled_from(["own", "one", "column"]),
)  # fmt: skip
def test_ends(dtype, likelihood, rows, width, seed, summed, mass):
    generator = np.random.default_rng(seed)
    z = drawn(seed, rows, width, dtype=dtype)
    t = targets(likelihood, generator, rows, width, hard=True).astype(dtype)
    count = generator.integers(0, 5, (rows, 1)).astype(dtype)
    square = generator.normal(size=(rows, 1)).astype(dtype) ** 2
    sums = (count, square) if summed else (None, None)
    ours, theirs = readouts(z)
    expected = CPU.link_and_score(likelihood, ours, t, *sums)
    moved = (None if each is None else gpu().asarray(each) for each in sums)
    actual = gpu().link_and_score(likelihood, theirs, gpu().asarray(t), *moved)
    scale = (1.0 + likelihood.scale) * width * 40
    same(theirs.a, ours.a)
    same(theirs.z, ours.z, scale=8.0)
    same(actual, expected, scale=scale)
    given_mass = {"own": None, "one": 1.0, "column": count}[mass]
    out = np.empty_like(z)
    CPU.write_error(likelihood, ours, t, out, given_mass, 0.25)
    on_gpu = gpu().empty(z.shape, dtype)
    if mass == "column":
        given_mass = gpu().asarray(count)
    gpu().write_error(likelihood, theirs, gpu().asarray(t), on_gpu, given_mass, 0.25)
    same(on_gpu, out, scale=8 * likelihood.scale)


@each_dtype
@given(rows=sizes, classes=sizes, width=sizes, seed=seeds, squared=st.booleans())
def test_class_totals(dtype, rows, classes, width, seed, squared):
    generator = np.random.default_rng(seed)
    members = np.eye(classes)[generator.integers(0, classes, rows)].astype(dtype)
    x = generator.normal(size=(rows, width)).astype(dtype)
    ends = []
    for backend in (CPU, gpu()):
        column = None
        if squared:
            column = backend.empty((rows, 1), dtype)
            values = backend.asarray(x)
            backend.row_dot(values, values, column)
        counts, squares = (backend.zeros((classes, 1), dtype) for _ in range(2))
        ones = backend.ones((rows, 1), dtype)
        backend.class_totals(backend.asarray(members), ones, counts, column, squares)
        ends.append((counts, squares))
    for actual, expected in zip(ends[1], ends[0], strict=True):
        same(actual, expected, scale=rows * width)


@each_dtype
@given(rows=st.integers(1, 700), seed=seeds)
def test_sums_and_shares(dtype, rows, seed):
    column = drawn(seed, rows, 1, dtype=dtype)
    out, total = gpu().empty((1, 1), dtype), gpu().ones((1, 1), dtype)
    gpu().sum_column(gpu().asarray(column), out, -0.5, gpu().ones((1, rows), dtype))
    expected = np.sum(column, keepdims=True).astype(dtype) * np.dtype(dtype).type(-0.5)
    same(out, expected, scale=rows)
    gpu().add_share(total, out, 0.25, gpu().empty((1, 1), dtype))
    same(total, 1 + host(out) * np.dtype(dtype).type(0.25))


# -- what has no kernel takes the way of every extension -------------------------------------------
def test_what_the_kernels_were_not_written_for_is_left_to_the_engine():
    class Halved(Gaussian):
        pass

    class Bent(type(get_activation("relu"))):  # type: ignore[misc]
        pass

    wide = gpu().asarray(np.ones((4, 6), "float32"))
    assert not gpu().add_bias_activate(Bent(), wide, None)
    assert not gpu().multiply_derivative(Bent(), wide, wide)
    assert not gpu().add_bias_activate(None, wide[:, :3], None)
    assert not gpu().add_bias_activate(None, gpu().asarray(np.ones((2, 2), "complex128")), None)
    assert gpu().add_bias_activate(None, wide[1:3, :], None)
    o, expected = Readout.allocate(gpu(), 4, 6, "float32"), wide
    o.z[...] = wide
    gpu().link_and_score(Halved(), o, wide)
    same(o.a, host(expected))
