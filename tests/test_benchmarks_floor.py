"""The floor: the products that the engine runs, their number, and Adam's traffic."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.backend import NumpyBackend, get_backend
from nembp.benchmarks.floor import Products, dense_maps, multiply_adds, product_shapes
from nembp.benchmarks.steps import PATHS
from nembp.benchmarks.traffic import AdamTraffic, adam_bytes
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.network import dense_network


class Recorder(NumpyBackend):
    """Keeps shape and layout of every product that is not a sum by a row or column of ones."""

    def __init__(self):
        super().__init__()
        self.products = []

    def matmul(self, left, right, out):
        (m, k), n = left.shape, right.shape[1]
        if m > 1 and n > 1:
            layout = tuple(array.flags.c_contiguous for array in (left, right, out))
            self.products.append(((m, k, n), layout))
        return super().matmul(left, right, out)


sizes_strategy = st.lists(st.integers(2, 9), min_size=2, max_size=5)


@given(
    sizes=sizes_strategy,
    batch=st.integers(2, 9),
    path=st.sampled_from(sorted(PATHS.values())),
)
def test_floor_runs_the_engine_s_products(sizes, batch, path):
    engine = Recorder()
    net = dense_network(sizes, device=engine)
    joint = JointBackpropagation(net, batch, path=path)
    joint.x[...] = 0.5
    joint.t[...] = np.eye(sizes[-1])[np.arange(batch) % sizes[-1]]
    joint(net.backend.zeros((net.parameter_count,), net.dtype))
    floor = Recorder()
    Products(floor, dense_maps(sizes), batch, path, "float32")()
    assert [shape for shape, _ in floor.products] == product_shapes(dense_maps(sizes), batch, path)
    assert sorted(floor.products) == sorted(engine.products)


@given(sizes=sizes_strategy, batch=st.integers(1, 9))
def test_multiply_adds_by_formula(sizes, batch):
    weights = sum(m * n for m, n in pairwise(sizes))
    first, last = sizes[0] * sizes[1], sizes[-2] * sizes[-1]
    maps = dense_maps(sizes)
    one = batch * (3 * weights - first)
    assert multiply_adds(maps, batch, "none") == one
    # each direction needs three products a weight, less the error that no one wants
    assert multiply_adds(maps, batch, "samples") == 2 * one + batch * (first - last)
    classes = -(-sizes[-1] // 4) * 4
    backward = classes * (3 * weights - last) + sizes[-1] * batch * sizes[0]
    assert multiply_adds(maps, batch, "classes") == one + backward


@pytest.mark.parametrize("threads", [1, 3])
def test_adam_s_traffic_reaches_every_parameter(threads):
    traffic = AdamTraffic(get_backend("cpu"), 1000, "float64", threads)
    traffic()
    for name, vectors in zip(("θ", "M", "V"), zip(*traffic._pieces, strict=True), strict=False):
        whole = np.concatenate(vectors)
        assert whole.shape == (1000,), name
        assert np.all(whole == -1.0), name
    assert sum(float(dot[0, 0]) for dot in traffic._dots) == 1000.0
    assert adam_bytes(1000, "float64") == 7 * 8 * 1000
