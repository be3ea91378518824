"""Draws on the device are Philox's, and noise is screened as the engine's own operations do."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from hypothesis import strategies as st
from kernel_cases import CPU, TOLERANCE, drawn, each_dtype, host, readouts, same
from strategies import any_likelihood, noises, seeds, targets

from nembp.backend import NumpyBackend
from nembp.engine.likelihoods import Likelihood, Multinomial
from nembp.engine.noise import Noise, NoiseSource

pytestmark = needs_kernels


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
    monkeypatch.setattr("nembp.backend.fused.THREADS", threads)
    monkeypatch.setattr("nembp.backend.fused.MOST_BLOCKS", blocks)
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
