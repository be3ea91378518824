"""Every CUDA kernel does what the engine's own operations do, number for number.

The hooks are called on a GPU, or on the stand-in that runs the kernels' sources on the host, with
outputs that hold NaN or nonsense before.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_likelihood, noises, seeds, targets

from nembp.backend import NumpyBackend, get_backend
from nembp.convolution import Convolution
from nembp.likelihoods import Gaussian, Likelihood, Multinomial, Readout
from nembp.network import dense_network
from nembp.neurons import ACTIVATIONS, get_activation
from nembp.noise import Noise, NoiseSource
from nembp.optimizers import OPTIMIZERS

pytestmark = needs_kernels
CPU = get_backend("cpu")
TOLERANCE = {"float32": 3e-6, "float64": 1e-14}
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))
sizes = st.integers(1, 70)
some = settings(max_examples=max(1, settings.default.max_examples // 2))


def host(array: Any) -> np.ndarray:
    return gpu().to_numpy(array)


def same(actual: Any, expected: np.ndarray, scale: float = 1.0) -> None:
    actual = host(actual)
    assert actual.dtype == expected.dtype
    assert np.array_equal(np.isnan(actual), np.isnan(expected))
    size = scale + np.nanmax(np.abs(expected), initial=0.0, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[str(actual.dtype)] * size)


def drawn(seed: int, *shape: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


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
@given(rows=sizes, columns=sizes, seed=seeds)
def test_column_sums(dtype, rows, columns, seed):
    x = drawn(seed, rows, columns, dtype=dtype)
    out = gpu().empty((1, columns), dtype)
    gpu().column_sums(gpu().asarray(x), out, gpu().ones((1, rows), dtype))
    same(out, x.sum(axis=0, keepdims=True), scale=rows)


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
def readouts(z: np.ndarray) -> tuple[Readout, Readout]:
    pair = []
    for backend in (CPU, gpu()):
        o = Readout.allocate(backend, *z.shape, str(z.dtype))
        o.z[...] = backend.asarray(z)
        pair.append(o)
    return pair[0], pair[1]


@each_dtype
@given(
    likelihood=any_likelihood, rows=sizes, width=st.integers(1, 400), seed=seeds,
    summed=st.booleans(), mass=st.sampled_from(["own", "one", "column"]),
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


# -- noise -----------------------------------------------------------------------------------------
class Drawn(NumpyBackend):
    """Draws what it is told."""

    def __init__(self, draws: np.ndarray) -> None:
        super().__init__()
        self.draws = draws

    def normal(self, generator: Any, out: np.ndarray) -> np.ndarray:
        out[...] = self.draws
        return out

    uniform = normal


def sources(
    noise: Noise, likelihood: Likelihood, rows: int, width: int, dtype: str
) -> tuple[NoiseSource, NoiseSource]:
    """Return a source on the GPU, and one on the CPU with the same draws."""
    draws = gpu().empty((rows, width), dtype)
    fill = gpu().normal if noise.law == "gaussian" else gpu().uniform
    fill(gpu().generator(5, "noise/forward"), draws)
    options = rows, width, dtype
    stream = gpu().generator(5, "noise/forward")
    return (
        NoiseSource(noise, likelihood, gpu(), *options, stream),
        NoiseSource(noise, likelihood, Drawn(host(draws)), *options, None),
    )


@each_dtype
@pytest.mark.parametrize("kind", ["nem", "anti", "blind"])
@given(
    data=st.data(), likelihood=any_likelihood, rows=st.integers(1, 9), width=st.integers(1, 80),
    seed=seeds, on_device=st.booleans(),
)  # fmt: skip
def test_noise_is_screened_as_on_the_cpu(
    kind, dtype, data, likelihood, rows, width, seed, on_device
):
    noise = replace(data.draw(noises(kind)), draws=1)
    if noise.law not in ("gaussian", "uniform"):  # left to the engine
        noise = replace(noise, law="gaussian")
    if noise.update == "zero-sum" and noise.screening_for(likelihood) == "component":
        noise = Noise(kind, std=noise.std, law=noise.law, mode=noise.mode)
    z = drawn(seed, rows, width, dtype=dtype)
    t = targets(likelihood, np.random.default_rng(seed), rows, width, hard=False).astype(dtype)
    ours, theirs = readouts(z)
    CPU.link_and_score(likelihood, ours, t)
    on_gpu = gpu().asarray(t)
    gpu().link_and_score(likelihood, theirs, on_gpu)
    theirs.z[...], theirs.a[...] = gpu().asarray(ours.z), gpu().asarray(ours.a)
    device, cpu = sources(noise, likelihood, rows, width, dtype)
    if on_device:
        device.deviation = gpu().asarray(np.array([0.3]))
        noise_on_gpu = device(theirs, on_gpu, 7.0)
    else:
        noise_on_gpu = device(theirs, on_gpu, 0.3)
    expected = cpu(ours, t, 0.3)
    tolerance = 20 * TOLERANCE[dtype]
    off = np.abs(host(noise_on_gpu) - expected) > tolerance * (1 + np.abs(expected))
    if off.any():  # only where the gain is zero but for rounding
        gain = np.empty_like(z)
        n = np.where(expected == 0, host(noise_on_gpu), expected)
        likelihood.gain_terms(ours, t, n, gain)
        if cpu.screening == "component":
            assert np.all(np.abs(gain[off]) < 1e-5 * likelihood.scale * (1 + np.abs(z[off])))
        elif cpu.screening == "vector":
            size = np.abs(gain).sum(axis=1) + 1e-30
            assert np.all((np.abs(gain.sum(axis=1)) / size)[off.any(axis=1)] < 1e-5)
        return
    same(device.accepted, cpu.accepted)
    same(device.gain, cpu.gain, scale=10 * width * likelihood.scale)


@each_dtype
def test_rejected_rows_are_reflected_as_on_the_cpu(dtype):
    rows, width, likelihood = 64, 10, Multinomial()
    noise = Noise("nem", std=0.3, screening="vector", rejected="reflect")
    z = drawn(1, rows, width, dtype=dtype)
    t = np.eye(width, dtype=dtype)[np.arange(rows) % width]
    ours, theirs = readouts(z)
    CPU.link_and_score(likelihood, ours, t)
    theirs.z[...], theirs.a[...] = gpu().asarray(ours.z), gpu().asarray(ours.a)
    device, cpu = sources(noise, likelihood, rows, width, dtype)
    kept = host(device(theirs, gpu().asarray(t), 0.3))
    assert np.all(np.abs(kept).max(axis=1) > 0)  # half of the rows as drawn, the others turned
    np.testing.assert_allclose(kept, cpu(ours, t, 0.3), atol=20 * TOLERANCE[dtype])


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
def test_normal_draws_are_those_of_box_and_muller(dtype):
    units, normals = (gpu().empty((1, 400), dtype) for _ in range(2))
    gpu().uniform(gpu().generator(1, "a"), units)
    gpu().normal(gpu().generator(1, "a"), normals)
    least = 2.0**-24 if dtype == "float32" else 2.0**-53
    pairs = host(units).astype("f8").reshape(-1, 2)
    r, angle = np.sqrt(-2 * np.log(pairs[:, 0] + least)), 2 * np.pi * pairs[:, 1]
    expected = np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1).reshape(1, -1)
    same(normals, expected.astype(dtype), scale=10.0)


def test_draws_are_standard_normal():
    """Moments of a million draws, each within five standard errors: false alarms 2e-6."""
    out = gpu().empty((1_000_000,), "float32")
    gpu().normal(gpu().generator(3, "noise/forward"), out)
    x = host(out).astype("f8")
    for power, moment, error in ((1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0)):
        assert abs(np.mean(x**power) - moment) < 5 * np.sqrt(error / x.size)
    assert abs(np.mean(x[:-1] * x[1:])) < 5 / np.sqrt(x.size)


@pytest.mark.parametrize(("threads", "blocks"), [(256, 1 << 13), (32, 3), (64, 1)])
def test_draws_do_not_depend_on_the_launch(threads, blocks, monkeypatch):
    expected = gpu().empty((3, 1001), "float32")
    gpu().normal(gpu().generator(2, "a"), expected)
    monkeypatch.setattr("nembp.backend.kernels.THREADS", threads)
    monkeypatch.setattr("nembp.backend.kernels.MOST_BLOCKS", blocks)
    out = gpu().empty((3, 1001), "float32")
    gpu().normal(gpu().generator(2, "a"), out)
    assert np.array_equal(host(out), host(expected))


def test_streams_are_apart():
    draws = []
    for seed, name in ((0, "a"), (0, "b"), (1, "a"), (0, "a")):
        out = gpu().empty((50,), "float32")
        gpu().normal(gpu().generator(seed, name), out)
        draws.append(host(out))
    assert np.array_equal(draws[0], draws[3])
    assert not np.any(draws[0] == draws[1])
    assert not np.any(draws[0] == draws[2])


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


# -- windows ---------------------------------------------------------------------------------------
def convolution(generator: np.random.Generator) -> Convolution:
    kernel = tuple(int(k) for k in generator.integers(1, 5, 2))
    padding = tuple(int(p) for p in generator.integers(0, 3, 2))
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    shape = tuple(int(low + generator.integers(0, 6)) for low in least)
    stride = tuple(int(s) for s in generator.integers(1, 4, 2))
    channels = int(generator.integers(1, 4))
    return Convolution((*shape, channels), int(generator.integers(1, 4)), kernel, stride, padding)


@each_dtype
@given(seed=seeds, rows=st.integers(1, 4))
def test_windows_and_their_adjoint(dtype, seed, rows):
    generator = np.random.default_rng(seed)
    synapse = convolution(generator)
    (height, width, channels), (p, q) = synapse.shape, synapse.padding
    images = drawn(seed, rows, synapse.inputs, dtype=dtype)
    down, across, _ = synapse.output_shape
    shape = (rows, down, across, *synapse.kernel, channels)
    padded = np.zeros((rows, height + 2 * p, width + 2 * q, channels), dtype)
    padded[:, p : p + height, q : q + width, :] = images.reshape(rows, *synapse.shape)
    windows = CPU.copy_windows(padded, synapse.stride, np.empty(shape, dtype))
    on_gpu = gpu().empty(shape, dtype)
    assert gpu().lay_windows(synapse, gpu().asarray(images), on_gpu)
    assert np.array_equal(host(on_gpu), windows)
    values = drawn(seed + 1, *shape, dtype=dtype)
    padded[...] = 0.0
    CPU.add_windows(values, synapse.stride, padded)
    expected = padded[:, p : p + height, q : q + width, :].reshape(rows, -1)
    out = gpu().empty((rows, synapse.inputs), dtype)
    assert gpu().gather_windows(synapse, gpu().asarray(values), out)
    same(out, expected, scale=8.0)


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
