"""Kernels of optimizers, batches and windows of images do what the engine's own operations do."""

from __future__ import annotations

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import CPU, STRICT, TOLERANCE, drawn, each_dtype, host, same, sizes
from strategies import seeds

from nembp.engine.convolution import Convolution
from nembp.engine.network import dense_network
from nembp.engine.optimizers import OPTIMIZERS

pytestmark = needs_kernels


# -- optimizers ------------------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("decay", [0.0, 0.1])
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers(name, decay, dtype):
    ends, states = [], []
    for backend in (CPU, gpu()):
        net = dense_network([30, 20, 10], dtype=dtype, device=backend)
        optimizer = OPTIMIZERS[name](learning_rate=0.05, weight_decay=decay)
        gradient = optimizer.bind(net)
        generator = np.random.default_rng(0)
        for k in range(5):
            gradient[...] = backend.asarray(generator.normal(size=gradient.shape), dtype)
            factor = 0.5**k
            if backend is CPU or k % 2:
                optimizer.step(factor)
            else:  # as a captured step does
                optimizer.steps += 1
                numbers = optimizer.numbers(optimizer.steps, factor)
                optimizer.apply(backend.asarray(np.array(numbers)))
        ends.append(net.parameters)
        states.append(optimizer.state)
    same(ends[1], ends[0])
    for slot, expected in states[0].items():
        same(states[1][slot], expected)


def test_an_optimizer_of_your_own_needs_no_kernel():
    class Slow(OPTIMIZERS["sgd"]):  # type: ignore[misc]
        def _update(self, chunk, eta):
            super()._update(chunk, eta / 2)

    ends = []
    for backend in (CPU, gpu()):
        net = dense_network([4, 3], device=backend)
        optimizer = Slow(0.5)
        optimizer.bind(net)[...] = 1.0
        assert not optimizer.takes_numbers
        optimizer.step()
        ends.append(net.parameters)
    same(ends[1], ends[0])
    with pytest.raises(TypeError, match="Slow has no kernel"):
        optimizer.apply(None)


# -- batches ---------------------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("source", ["uint8", "float32", "float64"])
@given(
    rows=sizes, width=sizes, samples=sizes, seed=seeds, offset=st.booleans(), row=st.booleans()
)  # fmt: skip
def test_gathered_batches(source, dtype, rows, width, samples, seed, offset, row):
    generator = np.random.default_rng(seed)
    table = (100 * generator.random((samples, width))).astype(source)
    index = generator.integers(0, samples, rows)
    moved = generator.normal(size=width).astype(dtype) if offset else None
    factor = generator.normal(size=width).astype(dtype) if row else 0.125
    ends = []
    for backend in (CPU, gpu()):
        each = [v if v is None or isinstance(v, float) else backend.asarray(v)
                for v in (moved, factor)]  # fmt: skip
        out = backend.empty((rows, width), dtype)
        raw = None if source == dtype else backend.empty((rows, width), source)
        backend.gather(backend.asarray(table), backend.asarray(index), out, raw, *each)
        staged = backend.empty((samples, width), dtype)
        backend.receive(table, staged, *each)
        ends.append((out, staged))
    for actual, expected in zip(ends[1], ends[0], strict=True):
        same(actual, expected, scale=100.0)


@each_dtype
def test_one_hot_rows(dtype):
    labels, index = np.array([2, 0, 1, 2]), np.array([3, 3, 1, 0, 2])
    table = gpu().asarray(np.eye(3), dtype)
    spare, out = gpu().empty((5,), "int64"), gpu().empty((5, 3), dtype)
    gpu().one_hot(gpu().asarray(labels), gpu().asarray(index), table, spare, out)
    same(out, np.eye(3, dtype=dtype)[labels[index]])


def test_steps_find_their_own_numbers_and_samples():
    table = np.arange(12.0).reshape(4, 3)
    order = np.random.default_rng(0).permutation(11)
    step = gpu().zeros((1,), "int64")
    numbers, index = gpu().empty((3,), "float64"), gpu().empty((3,), "int64")
    on_gpu = gpu().asarray(table), numbers, gpu().asarray(order), 3
    for k in range(4):
        rows = index[: min(3, 11 - 3 * k)]
        gpu().begin_step(step, *on_gpu, rows)
        assert np.array_equal(host(numbers), table[k])
        assert np.array_equal(host(rows), order[3 * k : 3 * k + 3])
    assert host(step)[0] == 4


# -- images ----------------------------------------------------------------------------------------
@each_dtype
@given(seed=seeds, rows=st.integers(1, 4))
def test_im2col_and_col2im(dtype, seed, rows):
    generator = np.random.default_rng(seed)
    kernel = tuple(int(k) for k in generator.integers(1, 5, 2))
    padding = tuple(int(p) for p in generator.integers(0, 3, 2))
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    shape = tuple(int(low + generator.integers(0, 6)) for low in least)
    stride = tuple(int(s) for s in generator.integers(1, 4, 2))
    channels = int(generator.integers(1, 4))
    convolution = Convolution((*shape, channels), 1, kernel, stride, padding)
    images = drawn(seed, rows, *shape, channels, dtype=dtype)
    columns = drawn(seed, rows, *convolution.output_shape[:2], *kernel, channels, dtype=dtype)
    laid_out, summed = [], []
    for backend in (CPU, gpu(), STRICT):
        padded = backend.padded((rows + 1, *shape, channels), padding, dtype)
        for _ in range(2):
            out = backend.empty(columns.shape, dtype)
            backend.im2col(backend.asarray(images), padding, stride, padded, out)
            laid_out.append(backend.to_numpy(out))
            out = backend.empty(images.shape, dtype)
            backend.col2im(backend.asarray(columns), padding, stride, padded, out)
            summed.append(backend.to_numpy(out))
    for other in laid_out:
        assert np.array_equal(other, laid_out[0])
    for other in summed:
        np.testing.assert_allclose(other, summed[0], rtol=0, atol=40 * TOLERANCE[dtype])
    assert np.vdot(laid_out[0], columns) == pytest.approx(
        np.vdot(images, summed[0]), abs=1e-4 * columns.size**0.5, rel=1e-4
    )
