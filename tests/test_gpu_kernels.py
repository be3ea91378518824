"""Every CUDA kernel does what the engine's own operations do, number for number.

Operations are called on the CPU, and on a GPU or the stand-in that runs the kernels' sources on the
host, with outputs that hold NaN or nonsense before.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cuda_on_cpu
import fake_cupy
import numpy as np
import pytest
from devices import REAL, gpu, needs_kernels
from engines import STRICT, seeds
from hypothesis import given, settings
from hypothesis import strategies as st

from nembp.backend import Backend, NumpyBackend, get_backend
from nembp.backend.fused import kernel_source
from nembp.backend.gpu import CupyBackend
from nembp.engine.activations import ACTIVATIONS, get_activation
from nembp.engine.likelihoods import Gaussian, Likelihood, Readout
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise, NoiseSource
from nembp.engine.optimizers import OPTIMIZERS, SGD
from nembp.testing import likelihoods, noise_for
from nembp.verification.cases import random_targets

pytestmark = needs_kernels
CPU = get_backend("cpu")
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
sizes = st.integers(1, 70)
some = settings(max_examples=max(1, settings.default.max_examples // 2))


@pytest.fixture(autouse=True, scope="module")
def blocks_as_on_a_gpu():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nembp.backend.fused.THREADS", 256)
        yield


def host(array: Any) -> np.ndarray:
    return gpu().to_numpy(array)


def same(actual: Any, expected: Any, scale: float = 1.0) -> None:
    actual = host(actual)
    assert actual.dtype == expected.dtype
    size = scale + np.nanmax(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[str(actual.dtype)] * size)


def drawn(seed: int, *shape: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


def on_both(operation: Callable[..., Any], *kernels: str) -> list[Any]:
    """Return what an operation gives on the CPU and on the GPU, by the kernels named."""
    expected = operation(CPU, lambda value: None if value is None else np.array(value))
    if not REAL:
        fake_cupy.device().launches.clear()
    actual = operation(gpu(), lambda value: None if value is None else gpu().asarray(value))
    assert REAL or set(kernels) <= set(fake_cupy.device().launches)
    return list(zip(actual, expected, strict=True))


# -- layers ----------------------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("name", [None, *sorted(ACTIVATIONS)], ids=str)
@some
@given(rows=sizes, channels=sizes, per_channel=st.integers(1, 3), seed=seeds, biased=st.booleans())
def test_layers(name, dtype, rows, channels, per_channel, seed, biased):
    activation = None if name is None else get_activation(name)
    values = 3 * drawn(seed, rows, channels * per_channel, dtype=dtype)
    values.flat[::7] = 0.0
    shifts = drawn(seed + 1, channels, dtype=dtype) if biased else None
    errors = drawn(seed + 2, *values.shape, dtype=dtype)

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        z, error, scratch = moved(values), moved(errors), moved(values)
        backend.activate(activation, z, moved(shifts), scratch)
        if activation is not None:
            backend.multiply_derivative(activation, error, z, scratch)
        return z, error

    for actual, expected in on_both(operation):
        same(actual, expected)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
def test_layers_at_the_edges(name):
    values = np.array([[np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30, -1e30, 1e-30]], np.float32)

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        z = moved(values)
        backend.activate(get_activation(name), z, None, moved(values))
        return (z,)

    ((actual, expected),) = on_both(operation)
    np.testing.assert_allclose(host(actual), expected, rtol=1e-6)


@each_dtype
@given(shapes=st.lists(st.tuples(sizes, st.integers(1, 100)), min_size=1, max_size=5), seed=seeds)
def test_sums_of_rows(dtype, shapes, seed):
    matrices = [drawn(seed + k, *shape, dtype=dtype) for k, shape in enumerate(shapes)]
    matrices.append(drawn(seed, 1500, 2, dtype=dtype))  # of many rows: by a product
    outs = [gpu().empty((1, x.shape[1]), dtype) for x in matrices]
    on_gpu = [gpu().asarray(x) for x in matrices]
    for _ in range(2):
        gpu().sum_rows(list(zip(on_gpu, outs, strict=True)))
        for x, out in zip(matrices, outs, strict=True):
            same(out, x.sum(axis=0, keepdims=True), scale=len(x))


# -- ends ------------------------------------------------------------------------------------------
@each_dtype
@given(
    likelihood=likelihoods(), rows=st.integers(0, 70), width=st.integers(1, 400), seed=seeds,
    summed=st.booleans(), counted=st.sampled_from(["own", "one", "column"]),
)  # fmt: skip
def test_outputs(dtype, likelihood, rows, width, seed, summed, counted):
    generator = np.random.default_rng(seed)
    z = drawn(seed, rows, width, dtype=dtype)
    target = random_targets(likelihood, generator, rows, width, hard=True).astype(dtype)
    count = generator.integers(0, 5, (rows, 1)).astype(dtype)
    square = generator.normal(size=(rows, 1)).astype(dtype) ** 2

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        o, t = Readout(backend, rows, width, dtype), moved(target)
        o.z[...] = moved(z)
        sums = (moved(count), moved(square)) if summed else ()
        score, out = backend.empty((rows, 1), dtype), backend.empty((rows, width), dtype)
        score[...] = backend.output_and_score(likelihood, o, t, *sums)
        counts = {"own": None, "one": 1.0, "column": moved(count)}[counted]
        backend.output_error(likelihood, o, t, out, counts, 0.25)
        return o.a, o.z, score, out

    pairs = on_both(operation, *(("output_and_score", "output_error") if rows else ()))
    scales = 1.0, 8.0, (1.0 + likelihood.scale) * width * 40, 8 * likelihood.scale
    for (actual, expected), scale in zip(pairs, scales, strict=True):
        same(actual, expected, scale)


@each_dtype
@given(rows=st.integers(1, 700), classes=sizes, width=sizes, seed=seeds, squared=st.booleans())
def test_sums(dtype, rows, classes, width, seed, squared):
    labels = np.random.default_rng(seed).integers(0, classes, rows)
    x = drawn(seed, rows, width, dtype=dtype)

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        values, column = moved(x), backend.empty((rows, 1), dtype)
        backend.row_dot(values, values, column)
        counts, sums = (backend.zeros((classes, 1), dtype) for _ in range(2))
        members = moved(np.eye(classes, dtype=dtype)[labels])
        backend.count_classes(members, counts, *((column, sums) if squared else ()))
        mean = backend.empty((1, 1), dtype)
        backend.sum_column(column, mean, -0.5)
        return column, counts, sums, mean

    kernels = "row_squares", "count_classes", "sum_column"
    for actual, expected in on_both(operation, *kernels):
        same(actual, expected, scale=rows * width)


# -- noise -----------------------------------------------------------------------------------------
class Drawn(NumpyBackend):
    """Draws what it is told."""

    draws: Any = None

    def normal(self, generator: Any, out: Any) -> Any:
        out[...] = self.draws
        return out

    uniform = normal


def screened(
    noise: Noise, likelihood: Likelihood, z: np.ndarray, t: np.ndarray, on_device: bool = False
) -> tuple[NoiseSource, NoiseSource, Readout]:
    """Screen the same draws on the GPU and on the CPU."""
    (rows, width), dtype = z.shape, str(z.dtype)
    draws = gpu().empty((rows, width), dtype)
    fill = gpu().normal if noise.law == "gaussian" else gpu().uniform
    fill(gpu().generator(5, "noise/forward"), draws)
    cpu = Drawn()
    cpu.draws = host(draws)
    ours = likelihood.at(z, CPU)
    theirs = Readout(gpu(), rows, width, dtype)
    theirs.z[...], theirs.a[...] = gpu().asarray(ours.z), gpu().asarray(ours.a)
    sources = []
    for backend, generator in ((gpu(), gpu().generator(5, "noise/forward")), (cpu, None)):
        source = NoiseSource(noise, likelihood, backend, rows, width, dtype, generator)
        source.std = gpu().asarray([0.3]) if on_device and backend is gpu() else 0.3
        sources.append(source)
    sources[0](theirs, gpu().asarray(t))
    sources[1](ours, t)
    return sources[0], sources[1], ours


@each_dtype
@pytest.mark.parametrize("kind", ["nem", "anti", "blind"])
@given(
    data=st.data(), likelihood=likelihoods(), rows=st.integers(1, 9), width=st.integers(1, 80),
    seed=seeds, on_device=st.booleans(),
)  # fmt: skip
def test_screening(kind, dtype, data, likelihood, rows, width, seed, on_device):
    noise = replace(data.draw(noise_for(kind=kind)), draws=1)
    if noise.law not in ("gaussian", "uniform"):  # left to the engine
        noise = replace(noise, law="gaussian")
    if noise.update == "zero-sum" and noise.screening_for(likelihood) == "component":
        noise = Noise(kind, std=noise.std, law=noise.law, mode=noise.mode)
    z = drawn(seed, rows, width, dtype=dtype)
    t = random_targets(likelihood, np.random.default_rng(seed), rows, width, hard=False).astype(
        dtype
    )
    device, cpu, o = screened(noise, likelihood, z, t, on_device)
    off = np.abs(host(device.n) - cpu.n) > 20 * TOLERANCE[dtype] * (1 + np.abs(cpu.n))
    if not off.any():
        same(device.accepted, cpu.accepted)
        same(device.gain, cpu.gain, scale=10 * width * likelihood.scale)
        return
    gain = np.empty_like(z)  # they differ only where the gain is zero but for rounding
    likelihood.gain_terms(o, t, np.where(cpu.n == 0, host(device.n), cpu.n), gain)
    if cpu.screening == "component":
        assert np.all(np.abs(gain[off]) < 1e-5 * likelihood.scale * (1 + np.abs(z[off])))
    elif cpu.screening == "vector":
        size = np.abs(gain).sum(axis=1) + 1e-30
        assert np.all((np.abs(gain.sum(axis=1)) / size)[off.any(axis=1)] < 1e-5)


def philox(key: int, place: int, call: int) -> list[int]:
    """Philox 4x32-10 by its definition."""
    word, low = 0xFFFFFFFF, lambda x: x & 0xFFFFFFFF
    k0, k1 = key & word, key >> 32
    c = [place & word, place >> 32, call & word, call >> 32]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k0, low(second), (first >> 32) ^ c[3] ^ k1, low(first)]
        k0, k1 = low(k0 + 0x9E3779B9), low(k1 + 0xBB67AE85)
    return c


def test_philox_by_its_published_answers():
    """Known answers of Random123, the authors' own library."""
    most = 2**64 - 1
    assert philox(0, 0, 0) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert philox(most, most, most) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    digits = philox(0x299F31D0A4093822, 0x85A308D3243F6A88, 0x0370734413198A2E)
    assert digits == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


@each_dtype
@pytest.mark.parametrize("calls", [1, 3])
def test_draws_are_philox(dtype, calls):
    stream = gpu().generator(11, "noise/backward")
    out = gpu().empty((2, 9), dtype)
    for _ in range(calls):
        gpu().uniform(stream, out)
    key, next_call = (int(word) for word in host(stream.state))
    assert next_call == calls
    expected = []
    for place in range(9):
        w = philox(key, place, calls - 1)
        if dtype == "float32":
            expected += [(word >> 8) / 2**24 for word in w]
        else:
            expected += [((w[i] >> 5) * 2**26 + (w[i + 1] >> 6)) / 2**53 for i in (0, 2)]
    assert np.array_equal(host(out).ravel(), np.array(expected[:18], dtype))


@each_dtype
@pytest.mark.parametrize(("threads", "blocks"), [(256, 1 << 13), (64, 1)])
def test_normal_draws_are_those_of_box_and_muller(dtype, threads, blocks, monkeypatch):
    """Whatever the launch."""
    monkeypatch.setattr("nembp.backend.fused.THREADS", threads)
    monkeypatch.setattr("nembp.backend.fused.MOST_BLOCKS", blocks)
    units, normals = (gpu().empty((1, 1000), dtype) for _ in range(2))
    gpu().uniform(gpu().generator(1, "a"), units)
    gpu().normal(gpu().generator(1, "a"), normals)
    least = 2.0**-24 if dtype == "float32" else 2.0**-53
    pairs = host(units).astype("f8").reshape(-1, 2)
    r, angle = np.sqrt(-2 * np.log(pairs[:, 0] + least)), 2 * np.pi * pairs[:, 1]
    expected = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).reshape(1, -1)
    same(normals, expected.astype(dtype), scale=10.0)


# -- optimizers ------------------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("name", sorted(OPTIMIZERS))
def test_optimizers(name, dtype):
    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        net = dense_network([30, 20, 10], dtype=dtype, device=backend)
        optimizer = OPTIMIZERS[name](learning_rate=0.05, weight_decay=0.1)
        gradient = optimizer.bind(net)
        for k in range(5):
            gradient[...] = moved(drawn(k, *gradient.shape, dtype=dtype))
            numbers: Any = optimizer.numbers(k + 1, 0.5**k)
            if backend is not CPU and k % 2:  # as a captured step finds them
                numbers = backend.asarray(np.array(numbers))
            backend.optimizer_step(optimizer, numbers)
        return net.parameters, *optimizer.state.values()

    for actual, expected in on_both(operation, name):
        same(actual, expected)


# -- batches and images ----------------------------------------------------------------------------
@each_dtype
@pytest.mark.parametrize("source", ["uint8", "float64"])
@given(
    rows=sizes, width=sizes, samples=sizes, seed=seeds, offset=st.booleans(), row=st.booleans()
)  # fmt: skip
def test_batches(source, dtype, rows, width, samples, seed, offset, row):
    generator = np.random.default_rng(seed)
    table = (100 * generator.random((samples, width))).astype(source)
    index, labels = generator.integers(0, samples, rows), generator.integers(0, 3, samples)
    shifts = generator.normal(size=width).astype(dtype) if offset else None
    factors = generator.normal(size=width).astype(dtype) if row else None

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        by = moved(shifts), moved(factors) if row else 0.125
        out, hot = backend.empty((rows, width), dtype), backend.empty((rows, 3), dtype)
        raw = None if source == dtype else backend.empty((rows, width), source)
        backend.gather(moved(table), moved(index), out, raw, *by)
        staged = backend.empty((samples, width), dtype)
        backend.receive(table, staged, *by)
        spare = backend.empty((rows,), "int64")
        backend.one_hot(moved(labels), moved(index), moved(np.arange(3)[None]), spare, hot)
        return out, staged, hot

    for actual, expected in on_both(operation, "one_hot_rows"):
        same(actual, expected, scale=100.0)


def test_steps_find_their_own_numbers_and_samples():
    table, order = np.arange(12.0).reshape(4, 3), np.random.default_rng(0).permutation(11)
    for backend in (CPU, STRICT, gpu()):
        steps = backend.steps(11, 3, 3)
        for _ in range(2):  # an epoch as the other
            steps.lay_out(order, table)
            for k in range(4):
                numbers, index = steps.take(min(3, 11 - 3 * k))
                found = host(numbers) if backend.name == "gpu" else np.array(numbers)
                assert np.array_equal(found, table[k])
                assert np.array_equal(backend.to_numpy(index), order[3 * k : 3 * k + 3])


@each_dtype
@given(seed=seeds, rows=st.integers(1, 4))
def test_im2col_and_its_adjoint(dtype, seed, rows):
    draw = np.random.default_rng(seed).integers
    kernel, padding, stride = draw(1, 5, 2), draw(0, 3, 2), draw(1, 4, 2)
    size = np.maximum(1, kernel - 2 * padding) + draw(0, 6, 2)
    count = (size + 2 * padding - kernel) // stride + 1
    images = drawn(seed, rows, *size, 3, dtype=dtype)
    columns = drawn(seed, rows, *count, *kernel, 3, dtype=dtype)
    steps = tuple(map(int, padding)), tuple(map(int, stride))
    laid_out, summed = [], []
    for backend in (CPU, gpu(), STRICT):
        shape = (rows + 1, *map(int, size), 3)
        padded = backend.padded(shape, steps[0], dtype)
        for _ in range(2):
            laid_out.append(backend.empty(columns.shape, dtype))
            backend.im2col(backend.asarray(images), *steps, padded, laid_out[-1])
            summed.append(backend.empty(images.shape, dtype))
            backend.col2im(backend.asarray(columns), *steps, padded, summed[-1])
            laid_out[-1], summed[-1] = (backend.to_numpy(a[-1]) for a in (laid_out, summed))
    assert all(np.array_equal(other, laid_out[0]) for other in laid_out)
    for other in summed:
        np.testing.assert_allclose(other, summed[0], rtol=0, atol=40 * TOLERANCE[dtype])
    product = np.vdot(images, summed[0])
    assert np.vdot(laid_out[0], columns) == pytest.approx(product, abs=1e-3 * columns.size**0.5)


# -- what has no kernel takes the way of every extension -------------------------------------------
def test_what_the_kernels_were_not_written_for():
    class Halved(Gaussian):
        def activate(self, o: Readout) -> None:
            o.backend.xp.multiply(o.z, 0.5, out=o.a)

    class Bent(type(get_activation("relu"))):  # type: ignore[misc]
        def activate(self, backend: Backend, z: Any, scratch: Any) -> None:
            z *= 0.5

    class Slow(SGD):
        def move(self, chunk: Any, eta: float, epsilon: float) -> None:
            super().move(chunk, eta / 2, epsilon)

    values = drawn(0, 4, 6, dtype="float32")

    def operation(backend: Backend, moved: Callable[[Any], Any]) -> Any:
        z, part, imaginary = moved(values), moved(values), moved(values.astype("complex128"))
        backend.activate(Bent(), z, None, moved(values))
        backend.activate(get_activation("tanh"), part[:, :3], None, moved(values[:, :3]))
        backend.activate(get_activation("tanh"), imaginary, None, moved(values))
        o = Readout(backend, 4, 6, "float32")
        o.z[...] = moved(values)
        backend.output_and_score(Halved(), o, moved(values))
        net = dense_network([4, 3], device=backend)
        optimizer = Slow(0.5)
        optimizer.bind(net)[...] = 1.0
        optimizer.step()
        real = moved(backend.to_numpy(imaginary).real)
        return z, part, real, o.a, net.parameters

    for actual, expected in on_both(operation):
        same(actual, expected)


# -- mistakes planted into the kernels' sources ----------------------------------------------------
BARRIER = "        __syncthreads();\n        if (i < half) shared[i] += shared[i + half];"
PLANTED: dict[str, tuple[str, str, Callable[..., None], tuple[Any, ...]]] = {
    "barrier of some threads": (
        BARRIER, BARRIER.replace("__syn", "if (i < half) __syn"), test_outputs, ("float32",),
    ),
    "columns": ("k < 32; k++", "k < 31; k++", test_sums_of_rows, ("float32",)),
    "matrix": (
        "table[5 * (k + 1) + 4] <=", "table[5 * (k + 1) + 4] <", test_sums_of_rows, ("float32",)
    ),
    "slope": ("x > 0 ? e : (real)0", "x < 0 ? e : (real)0", test_layers, ("relu", "float32")),
    "not a number": (
        "x < 0 ? (real)0 : x;", "x > 0 ? x : (real)0;", test_layers_at_the_edges, ("relu",)
    ),
    "normalizer": ("- samples * normalizer", "- normalizer", test_outputs, ("float32",)),
    "maximum": ("EXP(z[j] - most)", "EXP(z[j])", test_outputs, ("float32",)),
    "reflection": ("flip = -1", "flip = 1", test_screening, ("nem", "float32")),
    "screening": (
        "block_sum(score, shared) >= 0", "block_sum(score, shared) <= 0", test_screening,
        ("anti", "float32"),
    ),
    "same draws": (
        "threadIdx.x == 0) state[1] += 1", "threadIdx.x == 0) state[1] += 2",
        test_draws_are_philox, ("float32", 3),
    ),
    "rounds": ("round < 10", "round < 9", test_draws_are_philox, ("float32", 1)),
    "lanes": ("element % 4", "element % 2", test_draws_are_philox, ("float32", 1)),
    "decay": ("i < weights", "i <= weights", test_optimizers, ("sgd", "float32")),
    "numbers": ("epsilon = numbers[2]", "epsilon = numbers[1]", test_optimizers, ("adam", "float32")),
    "samples": (
        "order[now * batch + i]", "order[now * rows + i]",
        test_steps_find_their_own_numbers_and_samples, (),
    ),
    "window": (
        "down / stride_h >= rows", "down / stride_h >= rows - 1", test_im2col_and_its_adjoint,
        ("float32",),
    ),
    "padding": (
        "stride_w * q + j - left", "stride_w * q + j - top", test_im2col_and_its_adjoint,
        ("float32",),
    ),
}  # fmt: skip


@pytest.mark.skipif(cuda_on_cpu.COMPILER is None, reason="no C++ compiler")
@pytest.mark.parametrize("bug", PLANTED)
def test_a_wrong_kernel_is_caught(bug, monkeypatch):
    right, wrong, test, arguments = PLANTED[bug]
    source = kernel_source("float32")
    assert right in source, f"the source has changed; plant {bug} elsewhere"
    monkeypatch.setattr(
        "nembp.backend.fused.kernel_source",
        lambda dtype: kernel_source(dtype).replace(right, wrong),
    )
    fake_cupy.install(monkeypatch)
    backend = CupyBackend()
    monkeypatch.setattr(sys.modules[__name__], "gpu", lambda: backend)
    with pytest.raises(AssertionError):
        test(*arguments)
