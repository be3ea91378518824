"""Linear maps of images and their workspaces: definition, sizes, refusals, devices, threads."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_cases import (
    CPU,
    MAPS,
    STRICT,
    TOLERANCE,
    again,
    arrays_of,
    convolutions,
    definition,
    dense,
    joint,
    poisoned,
    seeds,
)
from near import assert_near

from nembp.backend import Backend
from nembp.checkpoints import decode, encode
from nembp.engine.activations import ACTIVATIONS, LeakyReLU, get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution, Im2colWorkspace
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import (
    AveragePooling,
    Dense,
    LinearMap,
    Reshape,
    RowWorkspace,
    Transposed,
    Workspace,
)
from nembp.engine.network import Layer, Network
from nembp.engine.winograd import WinogradWorkspace, plans
from nembp.errors import ArchitectureError
from nembp.threads import threads

few = settings(max_examples=settings.default.max_examples // 4)
each_kind = pytest.mark.parametrize("kind", MAPS)
each_dtype = pytest.mark.parametrize("dtype", list(TOLERANCE))


# -- the contractions --------------------------------------------------------------------------
def check_map(linear_map: LinearMap, rows: int, seed: int, backend: Backend, dtype: str) -> None:
    """Compare a map's contractions, written into buffers of NaN, with the definition."""
    arrays = arrays_of(linear_map, rows, seed)
    x, W, y = (backend.asarray(value, dtype) for value in arrays)
    expected = definition(linear_map, *arrays)
    up, down, gradient = (backend.asarray(np.full_like(v, np.nan), dtype) for v in expected)
    linear_map.forward(backend, x, W, up)
    linear_map.adjoint(backend, y, W, down)
    linear_map.weight_gradient(backend, x, y, gradient)
    found = [backend.to_numpy(value) for value in (up, down, gradient)]
    compare(found, expected, arrays, dtype, type(linear_map).__name__)


def compare(found: Any, expected: Any, arrays: Any, dtype: str, name: str) -> None:
    scale = math.prod(float(np.abs(array).max(initial=1.0)) for array in arrays)
    for what, actual, value in zip(
        ("forward", "adjoint", "gradient"), found, expected, strict=True
    ):
        assert actual.dtype == dtype
        if value.size:
            assert_near(actual, value, TOLERANCE[dtype], f"{name}: {what}", scale=scale)


def workspaces(
    linear_map: LinearMap, backend: Backend, parts: Any, dtype: str, upward: bool, workers: int
) -> Iterator[Workspace]:
    """Yield the workspace that a step takes, and all others that there are for the map."""
    yield linear_map.workspace(backend, parts, dtype, upward=upward, workers=workers)
    options = {"upward": upward, "workers": workers}
    if type(linear_map) is Dense:
        yield RowWorkspace(linear_map, backend, **options)
    if type(linear_map) is Convolution:
        yield Im2colWorkspace(linear_map, backend, parts, dtype, **options)
        if backend.has_strided_views:
            c = linear_map
            for plan in plans(c.shape, c.output_shape, c.kernel, c.stride, c.padding):
                yield WinogradWorkspace(c, plan, backend, parts, dtype, **options)


def check_workspaces(
    linear_map: LinearMap, rows: int, seed: int, backend: Backend, dtype: str
) -> None:
    """Compare every workspace with the definition: of parts of the rows, with other weights."""
    backend = poisoned(backend)
    for second, upward, workers in ((0, True, 1), (rows + 1, False, 3), (2, True, 2)):
        turned = linear_map if upward else Transposed(linear_map)
        batches = [arrays_of(turned, rows + second, seed + k) for k in (0, 1)]
        for workspace in workspaces(linear_map, backend, (rows, second), dtype, upward, workers):
            for arrays in (*batches, batches[0]):
                expected = definition(turned, *arrays)
                for most in (rows, rows + second):
                    wanted = expected[0][:most], expected[1][:most], expected[2]
                    found = list(passed(workspace, backend, dtype, arrays, rows, most))
                    second_part = found.pop()
                    compare(found, wanted, arrays, dtype, type(workspace).__name__)
                    if second:
                        one = [*found[:1], second_part, found[2]]
                        same = wanted[0], expected[1][rows:], wanted[2]
                        compare(one, same, arrays, dtype, f"{type(workspace).__name__}, 2nd part")


def passed(
    workspace: Workspace, backend: Backend, dtype: str, arrays: Any, rows: int, most: int
) -> Iterator[np.ndarray]:
    """Go up and down as a step does; yield three results, and the adjoint of the second part."""
    x, W, y = (backend.asarray(value, dtype) for value in arrays)
    up, down, gradient, part = (
        backend.asarray(np.full_like(value, np.nan), dtype)
        for value in (arrays[2][:most], arrays[0][:most], arrays[1], arrays[0][rows:])
    )
    workspace.load(W)
    workspace.forward(x, up)
    if part.shape[0]:
        workspace.adjoint(y[rows:, :], part)
    workspace.adjoint_and_gradient(x, y, None, gradient)
    if arrays[1].size:
        gradient[...] = np.nan
    workspace.adjoint_and_gradient(x, y, down, gradient)
    yield from (backend.to_numpy(value) for value in (up, down, gradient, part))


@each_kind
@each_dtype
@few
@given(data=st.data(), rows=st.integers(1, 5), seed=seeds)
def test_maps_and_workspaces_obey_the_definition(kind, dtype, data, rows, seed):
    linear_map = data.draw(MAPS[kind])
    for each in (linear_map, Transposed(linear_map)):
        check_map(each, rows, seed, CPU, dtype)
    check_workspaces(linear_map, rows, seed, CPU, dtype)


@each_kind
@each_dtype
@few
@given(data=st.data(), rows=st.integers(1, 2), seed=seeds)
def test_another_device_computes_the_same(kind, dtype, data, rows, seed):
    """By nothing but the array-API standard and ``out=``, on array-api-strict's second device."""
    small = convolutions(side=4, channels=2, kernel=3)
    linear_map = data.draw(small if kind == "convolution" else MAPS[kind])
    check_map(linear_map, rows, seed, STRICT, dtype)
    check_workspaces(linear_map, rows, seed, STRICT, dtype)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make every block one row, or as few as can be, so that every step has many."""
    for name, value in (
        ("convolution.BLOCK_BYTES", 1),
        ("winograd.BLOCK_BYTES", 1),
        ("winograd.LEAST_TILES", 1),
        ("linear.ROW_UNIT", 1),
        ("linear.WORKERS_PAY", 0),
        ("batchnorm.BLOCK_BYTES", 1),
    ):
        monkeypatch.setattr(f"nembp.engine.{name}", value)


def test_workspaces_of_small_blocks_obey_the_definition(small_blocks):
    @few
    @given(linear_map=convolutions() | dense, rows=st.integers(1, 9), seed=seeds)
    def holds(linear_map, rows, seed):
        check_workspaces(linear_map, rows, seed, CPU, "float64")

    holds()


@each_kind
@few
@given(data=st.data(), rows=st.integers(1, 5), seed=seeds)
def test_complex_signals_and_weights(kind, data, rows, seed):
    """Complex steps go through."""
    linear_map = data.draw(MAPS[kind])
    parts = [arrays_of(linear_map, rows, seed + k) for k in (0, 1)]
    x, W, y = (real + 1j * imaginary for real, imaginary in zip(*parts, strict=True))
    found = [np.full(v.shape, np.nan, "complex128") for v in (y, x, W)]
    linear_map.forward(CPU, x, W, found[0])
    linear_map.adjoint(CPU, y, W, found[1])
    linear_map.weight_gradient(CPU, x, y, found[2])
    for actual, value in zip(found, definition(linear_map, x, W, y), strict=True):
        if value.size:
            assert_near(actual.real, value.real, 1e-12, "real part", scale=1.0)
            assert_near(actual.imag, value.imag, 1e-12, "imaginary part", scale=1.0)


def test_winograd_is_taken_where_it_costs_less():
    def taken(linear_map: Convolution) -> type[Workspace]:
        return type(linear_map.workspace(CPU, (32, 0), "float32"))

    assert taken(Convolution((16, 16, 32), 32, (3, 3), (1, 1), (1, 1))) is WinogradWorkspace
    assert taken(Convolution((16, 16, 1), 4, (9, 9))) is Im2colWorkspace  # too few points


# -- sizes, refusals, files ------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("linear_map", "shape"),
    [
        (Convolution((32, 32, 3), 8, (4, 4), (2, 2), (1, 1)), (16, 16, 8)),
        (Convolution((7, 9, 2), 3, (2, 3), (3, 2)), (2, 4, 3)),  # pixels left over on both axes
        (Convolution((6, 5, 2), 7, (6, 5)), (1, 1, 7)),  # the whole image
        (Convolution((1, 1, 1), 1, (3, 3), (1, 1), (2, 2)), (3, 3, 1)),
        (AveragePooling((7, 6, 3), (2, 3), (2, 2)), (3, 2, 3)),
        (Reshape((3, 4, 2), (2, 0, 1)), (2, 3, 4)),
        (Reshape((6,)), (6,)),
    ],
    ids=str,
)
def test_sizes(linear_map, shape):
    assert linear_map.output_shape == shape
    assert linear_map.outputs == math.prod(shape)
    assert linear_map.inputs == math.prod(linear_map.shape)
    assert linear_map.initial_weights(np.random.default_rng(0)).shape == linear_map.weight_shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Convolution((4, 4, 1), 2, (5, 4)), r"kernel \(5, 4\) does not fit.*at most 4"),
        (lambda: Convolution((4, 4, 1), 2, (3, 7), (1, 1), (0, 1)), "at most 6"),
        (lambda: Convolution((4, 4, 1), 0, (1, 1)), "channels"),
        (lambda: Convolution((4, 4, 1), 2, (1, 1), (1, 1), (-1, 0)), "padding of at least 0"),
        (lambda: AveragePooling((4, 4, 1), (5, 1), (1, 1)), r"window \(5, 1\) does not fit"),
        (lambda: AveragePooling((4, 4, 1), (2, 2), (0, 1)), "at least 1"),
        (lambda: Reshape((2, 3), (0, 0)), r"axes \(0, 0\) are no order of the 2 axes"),
        (lambda: Reshape(()), "sizes of at least 1"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ArchitectureError, match=message):
        make()


@each_kind
@given(data=st.data(), turned=st.booleans())
def test_files_hold_them(kind, data, turned):
    linear_map = data.draw(MAPS[kind])
    linear_map = Transposed(linear_map) if turned else linear_map
    assert decode(LinearMap, encode(linear_map)) == linear_map


def test_initial_weights_suit_both_directions():
    """Variance 2 / (fan in + fan out): 6912 draws are within 10 % of it but once in 1e8."""
    linear_map = Convolution((16, 16, 12), 16, (6, 6), (2, 2), (2, 2))
    drawn = linear_map.initial_weights(np.random.default_rng(0))
    assert drawn.var() == pytest.approx(2.0 / (36 * 12 + 9 * 16), rel=0.1)


# -- threads -----------------------------------------------------------------------------------
class Baton:
    """Lets one of several threads go on at a time, and passes to the next at every operation."""

    def __init__(self, count: int) -> None:
        self.alive, self.turn = list(range(count)), 0
        self.changed = threading.Condition()

    def wait(self, me: int) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.turn == me, timeout=30.0)

    def pass_on(self, me: int) -> None:
        with self.changed:
            after = [k for k in self.alive if k > me] or self.alive
            self.turn = after[0] if after else -1
            self.changed.notify_all()

    def leave(self, me: int) -> None:
        with self.changed:
            self.alive.remove(me)
            self.pass_on(me)


HERE = threading.local()


def alternately(function: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Call ``function`` on every item, in threads that take turns at every operation."""
    baton = Baton(len(items))

    def run(me: int) -> None:
        HERE.baton, HERE.me = baton, me
        baton.wait(me)
        try:
            function(items[me])
        finally:
            baton.leave(me)

    with ThreadPoolExecutor(len(items)) as pool:
        for done in [pool.submit(run, me) for me in range(len(items))]:
            done.result()


class HandingOver:
    """A device, or its namespace, whose operations let the other workers go on."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.original, name)
        if name == "xp":
            return HandingOver(value)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **options: Any) -> Any:
            result = value(*args, **options)
            if getattr(HERE, "baton", None) is not None:
                HERE.baton.pass_on(HERE.me)
                HERE.baton.wait(HERE.me)
            return result

        return call


@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_workers_do_not_meet(activation, path, small_blocks, monkeypatch):
    """Workers that take turns at every operation compute what one worker does."""
    hidden = get_activation(activation)
    maps = [
        Convolution((5, 4, 2), 3, (3, 3), (1, 1), (1, 1)),
        Convolution((5, 4, 3), 2, (2, 2), (2, 2)),
        Dense(8, 6),
        Dense(6, 4),
    ]
    layers = [Layer(40), Layer(60, hidden, 3), Layer(8, hidden, 2, BatchNormalization())]
    layers += [Layer(6, hidden), Layer(4)]
    g = np.random.default_rng(2)
    x, t = g.normal(size=(6, 40)), np.eye(4)[g.integers(0, 4, 6)]

    def gradient(count: int) -> np.ndarray:
        net = Network(layers, maps, Multinomial(), Gaussian(), dtype="float64", seed=None)
        net.parameters[...] = np.random.default_rng(1).normal(0.0, 0.5, net.parameter_count)
        with threads(count):
            return joint(net, x, t, path)[0]

    expected = gradient(1)
    for module in ("linear", "batchnorm", "network"):
        name = f"nembp.engine.{module}.run_parallel"
        monkeypatch.setattr(name, alternately, raising=False)
    for name in ("matmul", "copy_windows", "add_windows", "keep_where_positive", "rectify"):
        monkeypatch.setattr(CPU, name, getattr(HandingOver(CPU), name))
    monkeypatch.setattr(CPU, "xp", HandingOver(CPU.xp))
    for workers in (2, 3):
        assert_near(gradient(workers), expected, 1e-12, "gradient", scale=1.0)


def test_two_trainings_at_once():
    """Two threads step their own networks, each on two workers, as one after another would."""
    maps = [
        Convolution((16, 16, 3), 8, (4, 4), (2, 2), (1, 1)),
        Convolution((8, 8, 8), 8, (3, 3), (1, 1), (1, 1)),
        AveragePooling((8, 8, 8), (2, 2), (2, 2)),
        Dense(128, 10),
    ]
    layers = [Layer(768), Layer(512, LeakyReLU(), 8), Layer(512, LeakyReLU(), 8)]
    layers += [Layer(128, None, 0), Layer(10)]

    def work(seed: int) -> list[np.ndarray]:
        net = Network(layers, maps, Multinomial(), Gaussian(), dtype="float64", seed=seed)
        g = np.random.default_rng(seed)
        x, t = g.normal(size=(24, 768)), np.eye(10)[g.integers(0, 10, 24)]
        first, step = joint(net, x, t, "classes")
        return [first, *(again(step, x * k, t) for k in (2.0, 1.0))]

    with threads(2):
        alone = [work(seed) for seed in (0, 1)]
        with ThreadPoolExecutor(2) as pool:
            together = list(pool.map(work, (0, 1)))
    for mine, same in zip(together, alone, strict=True):
        for actual, expected in zip(mine, same, strict=True):
            assert_near(actual, expected, 1e-12, "gradient", scale=float(np.abs(expected).max()))
        assert np.array_equal(mine[0], mine[2])
