"""Laws of linear maps and of a network's two directions."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import SYNAPSES, cases, seeds

import nembp
from nembp.engine.linear import Dense, LinearMap
from nembp.engine.network import Layer, Network, dense_network
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification.laws import check, maps, structure
from nembp.verification.laws.law import tolerances

each_linear_map = pytest.mark.parametrize("kind", list(SYNAPSES), ids=lambda kind: kind.__name__)


def test_every_linear_map_of_the_package_is_put_to_the_law():
    for module in pkgutil.iter_modules(nembp.__path__, "nembp."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    known, pending = set(), [LinearMap]
    while pending:
        pending += (subclasses := pending.pop().__subclasses__())
        known |= {c for c in subclasses if c.__module__.startswith("nembp.")}
    assert {c for c in known if not inspect.isabstract(c)} == set(SYNAPSES)


@each_linear_map
@given(data=st.data(), rows=st.integers(1, 9), seed=seeds)
def test_trilinear_law(kind, data, rows, seed):
    linear_map = data.draw(SYNAPSES[kind])
    check(maps.trilinear(linear_map, rows, seed))
    check(maps.transposed(linear_map, rows, seed), 0.0)


@each_linear_map
@given(data=st.data(), rows=st.integers(1, 9), seed=seeds)
def test_maps_are_their_definition(kind, data, rows, seed):
    linear_map = data.draw(SYNAPSES[kind])
    check(maps.definition(linear_map, rows, seed))
    check(maps.definition(linear_map, rows, seed, dtype="float32"), tolerances()["float32"])


@given(data=st.data(), seed=seeds)
def test_calls_do_not_remember(data, seed):
    several = [data.draw(SYNAPSES[kind]) for kind in SYNAPSES]
    for rows in (5, 3, 7):
        check(maps.keeps_no_memory(several, rows, seed))


@each_linear_map
@given(data=st.data(), rows=st.integers(1, 9), seed=seeds)
def test_calls_of_two_threads_do_not_meet(kind, data, rows, seed):
    check(maps.reentrant(data.draw(SYNAPSES[kind]), rows, seed))


@given(case=cases())
def test_two_directions_are_views_of_one_vector(case):
    net = case.net()
    check(structure.views(net), 0.0)
    check(structure.views(net.reversed), 0.0)


COPIERS = {
    "copy method": lambda net: net.copy(),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda net: pickle.loads(pickle.dumps(net)),
    "to": lambda net: net.to(),
}


@pytest.mark.parametrize("copier", list(COPIERS.values()), ids=list(COPIERS))
@given(case=cases(), dtype=st.sampled_from(["float32", "float64"]))
def test_copies_rebuild_their_views(copier, case, dtype):
    net = case.net(dtype)
    check(structure.copies(net, copier, dtype))
    check(structure.copies(net.reversed, copier, dtype))


@given(case=cases(), dtypes=st.permutations(["float32", "float64"]))
def test_another_precision_is_a_copy(case, dtypes):
    net = case.net(dtypes[0])
    tolerance = tolerances()[dtypes[0]]
    for direction in (net, net.reversed):
        found = structure.copies(direction, lambda net: net.to(dtype=dtypes[1]), dtypes[1])
        check(found, tolerance)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda v: pickle.loads(pickle.dumps(v))])
def test_a_pair_of_directions_stays_a_pair(copier):
    net = dense_network([3, 4, 2])
    for pair in ((net, net.reversed), (net.reversed, net)):
        first, second = copier(pair)
        assert first.reversed is second
        assert second.reversed is first
        assert first.direction == pair[0].direction


@given(case=cases())
def test_binding_another_vector_reaches_both_directions(case):
    net, other = case.net(), case.with_(seed=case.seed + 1).net()
    x, y = case.batch()
    net.parameters[...] = other.parameters
    assert np.array_equal(net.predict(x), other.predict(x))
    assert np.array_equal(net.reversed.predict(y), other.reversed.predict(y))


@given(case=cases(), dtype=st.sampled_from(["float32", "float64"]))
def test_prediction_leaves_its_input_alone_and_owns_its_output(case, dtype):
    net = case.net(dtype)
    x = case.batch()[0].astype(dtype)
    kept = x.copy()
    first = net.predict(x)
    held = first.copy()
    assert first.dtype == np.dtype(dtype)
    net.predict(x + 1)
    assert np.array_equal(x, kept)
    assert np.array_equal(first, held)


def test_swapped_directions_are_pointed_out():
    net = dense_network([3, 5, 2])
    with pytest.raises(ShapeError, match=r"net expects \(rows, 3\); did you swap x and y\?"):
        net.predict(np.ones((4, 2)))
    with pytest.raises(ShapeError, match=r"net\.reversed expects \(rows, 2\); did you swap"):
        net.reversed.predict(np.ones((4, 3)))
    with pytest.raises(ShapeError, match=r"shape \(4,\) but net expects \(rows, 3\)$"):
        net.predict(np.ones(4))


def test_networks_that_cannot_be_are_refused():
    ends = (dense_network([3, 2]).likelihood, dense_network([3, 2]).reversed.likelihood)
    with pytest.raises(ArchitectureError, match="linear map 1 joins 3 to 4 neurons, but layers 0"):
        Network([Layer(3), Layer(2)], [Dense(3, 4)], *ends)
    with pytest.raises(ArchitectureError, match="2 layers and 2 linear maps"):
        Network([Layer(3), Layer(2)], [Dense(3, 2), Dense(2, 3)], *ends)
    with pytest.raises(ArchitectureError, match="got 4 neurons and 3 biases"):
        Layer(4, None, 3)
    with pytest.raises(ArchitectureError, match="layer 1 has size 0"):
        dense_network([3, 0, 2])
    with pytest.raises(ArchitectureError, match="at least 2 layers"):
        dense_network([3])
    with pytest.raises(ArchitectureError, match="dtype must be"):
        dense_network([3, 2], dtype="int64")
