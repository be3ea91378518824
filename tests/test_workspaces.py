"""Workspaces, in which a step computes linear maps by blocks of rows and on several workers.

Maps themselves obey the definitions, say the laws.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from engines import STRICT, Array, assert_close, each_path, joint, picker, seeds
from hypothesis import given, settings

from nembp.backend import get_backend
from nembp.engine.activations import get_activation
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.convolution import Convolution, Im2colWorkspace
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import (
    AveragePooling,
    Dense,
    Reshape,
    RowWorkspace,
    Transposed,
    Workspace,
)
from nembp.engine.network import Layer, Network
from nembp.engine.winograd import WinogradWorkspace, plans
from nembp.threads import threads
from nembp.verification import check_linear_map
from nembp.verification.cases import random_map

CPU = get_backend("cpu")
TOLERANCE = {"float32": 1e-4, "float64": 1e-11}
few = settings(max_examples=max(1, settings.default.max_examples // 3))
each_kind = pytest.mark.parametrize(
    "kind", [Dense, Convolution, AveragePooling, Reshape], ids=lambda kind: kind.__name__
)


def workspaces(
    linear: Any, backend: Any, parts: tuple[int, int], dtype: str, upward: bool, workers: int
) -> Iterator[Workspace]:
    """Yield the workspace that a step takes, and all others that there are for the map."""
    options: dict[str, Any] = {"upward": upward, "workers": workers}
    yield linear.workspace(backend, parts, dtype, **options)
    if type(linear) is Dense:
        yield RowWorkspace(linear, backend, **options)
    if type(linear) is Convolution:
        yield Im2colWorkspace(linear, backend, parts, dtype, **options)
        if backend.has_cache:
            for plan in plans(linear):
                yield WinogradWorkspace(plan, backend, parts, dtype, **options)


def passed(workspace: Workspace, backend: Any, signals: list[Array], rows: int) -> Iterator[Array]:
    """Go up and down as a step does: forward, adjoint of a second part, adjoint and gradient."""
    x, W, y = (backend.asarray(value) for value in signals)
    up, part, gradient, down = (
        backend.asarray(np.full_like(value, np.nan))
        for value in (signals[2], signals[0][rows:], signals[1], signals[0])
    )
    workspace.load(W)
    workspace.forward(x, up)
    if part.shape[0]:
        workspace.adjoint(y[rows:, :], part)
    workspace.adjoint_and_gradient(x, y, None, gradient)
    workspace.adjoint_and_gradient(x, y, down, gradient)
    yield from (backend.to_numpy(value) for value in (up, part, gradient, down))


def check(linear: Any, rows: int, seed: int, backend: Any, dtype: str) -> None:
    """Compare every workspace with the map itself: of two parts of rows, with other weights."""
    for second, upward, workers in ((0, True, 1), (rows + 1, False, 3), (2, True, 2)):
        turned = linear if upward else Transposed(linear)
        shapes = (
            (rows + second, turned.inputs),
            turned.weight_shape,
            (rows + second, turned.outputs),
        )
        g = np.random.default_rng(seed)
        batches = [[g.normal(size=shape).astype(dtype) for shape in shapes] for _ in (0, 1)]
        for workspace in workspaces(linear, backend, (rows, second), dtype, upward, workers):
            for signals in (*batches, batches[0]):
                exact = [value.astype(float) for value in signals]
                wanted = passed(Workspace(linear, CPU, upward), CPU, exact, rows)
                for actual, value in zip(
                    passed(workspace, backend, signals, rows), wanted, strict=True
                ):
                    assert actual.dtype == np.dtype(dtype)
                    assert_close(actual, value, TOLERANCE[dtype], 1.0)


@each_kind
@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", "float32"), ("cpu", "float64"), (STRICT, "float64")], ids=str
)
@few
@given(seed=seeds)
def test_workspaces_give_what_the_map_gives(kind, device, dtype, seed):
    g = np.random.default_rng(seed)
    check(random_map(picker(g), kind), int(g.integers(1, 5)), seed, get_backend(device), dtype)


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


def test_workspaces_of_small_blocks_give_what_the_map_gives(small_blocks):
    for kind in (Convolution, Convolution, Dense):
        for seed in range(5):
            g = np.random.default_rng(seed)
            check(random_map(picker(g), kind), int(g.integers(1, 9)), seed, CPU, "float64")


def test_winograd_is_taken_where_it_costs_less():
    def taken(linear: Convolution) -> type[Workspace]:
        return type(linear.workspace(CPU, (32, 0), "float32"))

    assert taken(Convolution((16, 16, 32), 32, (3, 3), (1, 1), (1, 1))) is WinogradWorkspace
    assert taken(Convolution((16, 16, 1), 4, (9, 9))) is Im2colWorkspace  # too few points


@pytest.mark.parametrize(
    ("linear", "shape"),
    [
        (Convolution((16, 16, 3), 8, (4, 4), (2, 2), (1, 1)), (8, 8, 8)),
        (Convolution((7, 9, 2), 3, (2, 3), (3, 2)), (2, 4, 3)),  # pixels left over on both axes
        (Convolution((6, 5, 2), 7, (6, 5)), (1, 1, 7)),  # the whole image
        (Convolution((1, 1, 1), 1, (3, 3), (1, 1), (2, 2)), (3, 3, 1)),
        (AveragePooling((7, 6, 3), (2, 3), (2, 2)), (3, 2, 3)),
        (Reshape((3, 4, 2), (2, 0, 1)), (2, 3, 4)),
    ],
    ids=str,
)
def test_sizes(linear, shape):
    assert linear.output_shape == shape
    assert (linear.inputs, linear.outputs) == (math.prod(linear.shape), math.prod(shape))
    assert linear.initial_weights(np.random.default_rng(0)).shape == linear.weight_shape
    assert check_linear_map(linear).passed


# -- workers ---------------------------------------------------------------------------------------
HERE = threading.local()


def alternately(function: Callable[[Any], object], items: Sequence[Any]) -> None:
    """Call ``function`` on every item, in threads that take turns at every operation."""
    turns, changed = deque(range(len(items))), threading.Condition()  # the first goes on

    def run(me: int) -> None:
        def wait() -> None:
            assert changed.wait_for(lambda: turns[0] == me, timeout=60.0)

        def hand_over() -> None:
            with changed:
                turns.rotate(-1)
                changed.notify_all()
                wait()

        HERE.hand_over = hand_over
        with changed:
            wait()
        try:
            function(items[me])
        finally:
            with changed:
                turns.popleft()
                changed.notify_all()

    with ThreadPoolExecutor(len(items)) as pool:
        for done in [pool.submit(run, me) for me in range(len(items))]:
            done.result()


class HandingOver:
    """A device, or its namespace, whose operations let the other workers go on."""

    def __init__(self, original: Any) -> None:
        self.original = original

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.original, name)
        if not callable(value) or isinstance(value, type):
            return value

        def call(*args: Any, **options: Any) -> Any:
            result = value(*args, **options)
            getattr(HERE, "hand_over", lambda: None)()
            return result

        return call


@each_path
@pytest.mark.parametrize("activation", ["relu", "leaky-relu", "tanh", "logistic"])
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

    def gradient(count: int) -> Array:
        net = Network(layers, maps, Multinomial(), Gaussian(), dtype="float64", seed=None)
        net.parameters[...] = np.random.default_rng(1).normal(0.0, 0.5, net.parameter_count)
        with threads(count):
            return joint(net, x, t, path)[0]

    expected = gradient(1)
    for module in ("linear", "batchnorm", "network", "backprop", "convolution", "winograd"):
        name = f"nembp.engine.{module}.run_parallel"
        monkeypatch.setattr(name, alternately, raising=False)
    for name in ("matmul", "copy_windows", "add_windows"):
        monkeypatch.setattr(CPU, name, getattr(HandingOver(CPU), name), raising=False)
    monkeypatch.setattr(CPU, "xp", HandingOver(CPU.xp))
    for workers in (2, 3):
        assert_close(gradient(workers), expected, 1e-12, 1.0)
