"""Links: what steps compute with, in blocks, on several threads, in any order of events."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from near import assert_near
from nembp.verification.laws.links import all_workspaces, links
from strategies import SYNAPSES, cases, seeds

import nembp.engine.linear
from nembp.backend import get_backend
from nembp.engine.activations import ACTIVATIONS, get_activation
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network
from nembp.engine.winograd import WinogradWorkspace, plans
from nembp.threads import threads
from nembp.verification.laws import check, joint
from nembp.verification.laws.law import tolerances

CPU = get_backend("cpu")
each_linear_map = pytest.mark.parametrize("kind", list(SYNAPSES), ids=lambda kind: kind.__name__)


@pytest.fixture
def small_blocks(monkeypatch):
    """Make every block one row, or as few as can be, so that every step has many."""
    monkeypatch.setattr("nembp.engine.convolution.BLOCK_BYTES", 1)
    monkeypatch.setattr("nembp.engine.winograd.BLOCK_BYTES", 1)
    monkeypatch.setattr("nembp.engine.winograd.LEAST_TILES", 1)
    monkeypatch.setattr("nembp.engine.linear.ROW_UNIT", 1)
    monkeypatch.setattr("nembp.engine.linear.WORKERS_PAY", 0)


@each_linear_map
@given(data=st.data(), rows=st.integers(1, 9), seed=seeds)
def test_links_are_their_linear_map(kind, data, rows, seed):
    linear_map = data.draw(SYNAPSES[kind])
    check(links(linear_map, rows, seed))
    check(links(linear_map, rows, seed, dtype="float32"), tolerances()["float32"])


def test_links_of_blocks_are_their_linear_map(small_blocks):
    @given(data=st.data(), rows=st.integers(1, 9), seed=seeds)
    def holds(data, rows, seed):
        linear_map = data.draw(SYNAPSES[Convolution] | SYNAPSES[Dense])
        check(links(linear_map, rows, seed))

    holds()


@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_steps_of_blocks(lanes, path, small_blocks):
    @given(case=cases(images=True))
    def holds(case):
        x, t = case.labelled_batch() if path == "classes" else case.batch()
        with threads(lanes):
            check(joint.sum_of_directions(case.net(), x, t, path))
            net = case.net(device=joint.poisoned(CPU))
            other = case.with_(seed=case.seed + 1)
            second = other.labelled_batch() if path == "classes" else other.batch()
            check(joint.keeps_no_memory(net, (x, t), second, path), 0.0)

    holds()


def test_the_law_tries_every_algorithm():
    sizes = (7, 6, 2), (7, 6, 3), (3, 3), (1, 1), (1, 1)
    assert {plan.results for plan in plans(*sizes)} == {
        (m, n) for m in range(1, 5) for n in range(1, 5)
    }
    linear_map = Convolution((7, 6, 2), 3, (3, 3), (1, 1), (1, 1))
    names = {
        name
        for seed in range(40)
        for name, _ in all_workspaces(linear_map, CPU, (2, 0), "float64", seed=seed)
    }
    assert len(names) == 16 + 2
    large = Convolution((16, 16, 32), 32, (3, 3), (1, 1), (1, 1))
    assert isinstance(large.workspace(CPU, (8, 0), "float32"), WinogradWorkspace)


# -- two lanes in every order ------------------------------------------------------------------
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
    baton, failed = Baton(len(items)), []

    def run(me: int) -> None:
        HERE.baton, HERE.me = baton, me
        baton.wait(me)
        try:
            function(items[me])
        except BaseException as error:  # noqa: BLE001  raised again below
            failed.append(error)
        finally:
            baton.leave(me)

    lanes = [threading.Thread(target=run, args=(k,)) for k in range(len(items))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    if failed:
        raise failed[0]


def handing_over() -> Any:
    """Return a device whose operations let the other lanes go first."""
    twin = copy.copy(CPU)

    def wrapped(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if getattr(HERE, "baton", None) is not None:
                HERE.baton.pass_on(HERE.me)
                HERE.baton.wait(HERE.me)
            return operation(*args, **options)

        return call

    for name in ("into", "matmul", "copy_windows", "add_windows", "keep_where_positive", "rectify"):
        setattr(twin, name, wrapped(getattr(CPU, name)))
    return twin


@pytest.mark.parametrize("path", ["samples", "classes", "none"])
@pytest.mark.parametrize("lanes", [2, 3])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_lanes_do_not_meet(activation, lanes, path, small_blocks, monkeypatch):
    """Lanes that take turns at every operation compute what one lane does."""
    hidden = get_activation(activation)
    shape = Convolution((5, 4, 2), 3, (3, 3), (1, 1), (1, 1))
    strided = Convolution((5, 4, 3), 2, (2, 2), (2, 2))
    layers = [Layer(40), Layer(60, hidden, 3), Layer(8, hidden, 2), Layer(6, hidden), Layer(4)]
    maps = [shape, strided, Dense(8, 6), Dense(6, 4)]
    g = np.random.default_rng(2)
    x, t = g.normal(size=(6, 40)), np.eye(4)[g.integers(0, 4, 6)]

    def gradient(device: Any, count: int) -> np.ndarray:
        net = Network(
            layers, maps, Multinomial(), Gaussian(), device=device, dtype="float64", seed=None
        )
        net.parameters[...] = np.random.default_rng(1).normal(0.0, 0.5, net.parameter_count)
        with threads(count):
            return joint.run(net, x, t, path)[0]

    expected = gradient(CPU, 1)
    with monkeypatch.context() as patched:
        patched.setattr(nembp.engine.linear, "run_parallel", alternately)
        found = gradient(handing_over(), lanes)
    assert_near(found, expected, 1e-12, "gradient", scale=1.0)
