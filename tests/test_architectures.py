"""Networks from descriptions: sizes, biases, both directions, files, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.architecture import describe, network
from nembp.checkpoints import Model, load_model, save_model
from nembp.datasets import Scaling
from nembp.engine.activations import get_activation
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError

MIXED = "conv8x4s2,pool2,48,reshape4x4x3,up6x4s2,conv5x3,20"


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 99))
def test_dense_descriptions_are_dense_networks(sizes, seed):
    ours = network(sizes[0], sizes[1:-1], sizes[-1], activation="tanh", seed=seed)
    theirs = dense_network(sizes, activation="tanh", seed=seed)
    assert ours.layers == theirs.layers
    assert ours.maps == theirs.maps
    assert np.array_equal(ours.parameters, theirs.parameters)


def test_each_entry_becomes_a_layer_and_its_linear_map():
    net = network(
        (16, 16, 1), MIXED, 10, activation="tanh", forward="gaussian", backward="bernoulli"
    )
    tanh = get_activation("tanh")
    wanted = [
        ((16, 16, 1), 256, None, 256, None),
        ("conv", 8 * 8 * 8, tanh, 8, Convolution((16, 16, 1), 8, (4, 4), (2, 2), (1, 1))),
        ("pool", 4 * 4 * 8, None, 0, AveragePooling((8, 8, 8), (2, 2), (2, 2))),
        ("dense", 48, tanh, 48, Dense(128, 48)),
        ("reshape", 48, None, 0, Reshape((4, 4, 3))),
        ("up", 8 * 8 * 6, tanh, 6, Transposed(Convolution((8, 8, 6), 3, (4, 4), (2, 2), (1, 1)))),
        ("conv", 8 * 8 * 5, tanh, 5, Convolution((8, 8, 6), 5, (3, 3), (1, 1), (1, 1))),
        ("dense", 20, tanh, 20, Dense(320, 20)),
        ("output", 10, None, 10, Dense(20, 10)),
    ]
    assert len(net.layers) == len(wanted)
    found = [(layer.size, layer.activation, layer.biases) for layer in net.layers]
    assert found == [(size, f, biases) for _, size, f, biases, _ in wanted]
    assert list(net.maps) == [linear_map for *_, linear_map in wanted[1:]]
    assert (net.likelihood.name, net.reversed.likelihood.name) == ("gaussian", "bernoulli")


def test_both_directions_run():
    net = network((16, 16, 1), MIXED, 10)
    assert net.predict(np.ones((3, 256), np.float32)).shape == (3, 10)
    assert net.reversed.predict(np.eye(10, dtype=np.float32)).shape == (10, 256)


@given(side=st.integers(1, 40), k=st.integers(1, 9), s=st.integers(1, 4), data=st.data())
def test_sides_are_the_windows_that_fit(side, k, s, data):
    p = data.draw(st.integers(0, k - 1))
    windows = range(0, side + 2 * p - k + 1, s)  # where one can begin in the padded image
    text = f"conv2x{k}s{s}p{p}"
    if not windows:
        with pytest.raises(ArchitectureError, match="fit"):
            network((side, side, 1), text, 2)
        return
    net = network((side, side, 1), text, 2, seed=0)
    assert net.layers[1].size == len(windows) ** 2 * 2
    if p == 0:
        pooled = network((side, side, 3), f"pool{k}s{s}", 2)
        assert pooled.layers[1].size == len(windows) ** 2 * 3


@given(half=st.integers(1, 20), k=st.integers(1, 9))
def test_the_padding_of_its_own_keeps_and_halves(half, k):
    if k % 2:
        kept = network((2 * half, half, 1), f"conv3x{k}", 2)
        assert kept.layers[1].size == 2 * half * half * 3
    if k > 2:
        halved = network((2 * half, 2 * half, 1), f"conv3x{k}s2", 2)
        assert halved.layers[1].size == half * half * 3


@given(side=st.integers(1, 12), k=st.integers(1, 9), s=st.integers(1, 4), p=st.integers(0, 8))
def test_upsampling_multiplies_the_sides_or_says_which_padding_does(side, k, s, p):
    def builds(padding):
        try:
            net = network((side, side, 2), f"up3x{k}s{s}p{padding}", 2)
        except ArchitectureError as error:
            return str(error)
        assert net.layers[1].size == (s * side) ** 2 * 3
        assert net.maps[0].linear_map.output_shape == (side, side, 2)
        return ""

    message = builds(p)
    # a window of the big image must begin at every pixel of the small one, and at no more
    windows = range(0, s * side + 2 * p - k + 1, s)
    assert (message == "") == (len(windows) == side and p < k)
    if "expected a padding of" in message:
        numbers = [int(word) for word in message.split("padding of")[1].split() if word.isdigit()]
        assert all(builds(right) == "" for right in numbers)


def test_height_and_width_are_told_apart():
    net = network((4, 6, 2), "conv3x1-4s2-1p0,up5x3-2s3-2p0,pool2-4", 2)
    shapes = [linear_map.output_shape for linear_map in (net.maps[0], net.maps[2])]
    assert shapes == [(2, 3, 3), (3, 1, 5)]
    assert net.maps[1].linear_map.shape == (6, 6, 5)
    assert [row.shape for row in describe(net)[:4]] == [(4, 6, 2), (2, 3, 3), (6, 6, 5), (3, 1, 5)]


SMALL = st.sampled_from(
    ["3", "16", "conv2x3", "conv2x4s2", "conv2x3p0", "conv2x2-3s1-2", "pool2", "pool3s2", "up2x4",
     "up2x4s1", "reshape4x4x1", "reshape2x2x4"]
)  # fmt: skip


@given(
    st.sampled_from([16, (4, 4, 1), (2, 3, 2), (1, 1, 3)]), st.lists(SMALL, min_size=1, max_size=4)
)
def test_a_description_fits_or_one_layer_of_it_is_named(shape, entries):
    try:
        net = network(shape, entries, 3)
    except ArchitectureError as error:
        message = str(error)
        number = int(message.split()[1])
        assert message.startswith(f"layer {number} `")
        assert "expected" in message
        network(shape, entries[: number - 1], 3)  # all below it fits
    else:
        assert len(net.layers) == len(entries) + 2
        assert net.reversed.predict(np.eye(3)).shape == (3, math.prod(np.atleast_1d(shape)))


def test_bn_normalizes_by_neuron_or_channel():
    net = network((8, 8, 1), "conv6x4s2bn,pool2,20bn,reshape2x2x5,up3x4s2bn,7", 3)
    assert [layer.gains for layer in net.layers] == [0, 6, 0, 20, 0, 3, 0, 0]
    assert [layer.biases for layer in net.layers] == [64, 6, 0, 20, 0, 3, 7, 3]


# -- tables ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text", ["", "7", MIXED, "conv4x3-2s1-2p0,pool3s2", "conv4x3bn,pool4,7bn,9"]
)
def test_a_table_counts_every_parameter(text):
    net = network((16, 16, 1), text, 10)
    up, down = describe(net), describe(net.reversed)
    assert sum(row.weights for row in up) == sum(row.weights for row in down) == net.weight_count
    others = sum(row.biases + row.gains for row in (*up, *down))
    assert net.weight_count + others == net.parameter_count
    assert [math.prod(row.shape) for row in up] == [layer.size for layer in net.layers]
    assert [math.prod(row.shape) for row in down] == [layer.size for layer in net.layers[::-1]]
    assert ",".join(row.text for row in up[1:-1]) == text
    assert sum(row.multiply_adds for row in up) == sum(row.multiply_adds for row in down)


def test_a_table_says_how_often_weights_are_used():
    rows = describe(network((8, 8, 1), "conv4x3,up2x4s2,5", 3))
    ours = 64 * 9 * 4, 64 * 16 * 4 * 2, 256 * 2 * 5, 15
    assert tuple(row.multiply_adds for row in rows[1:]) == ours
    turned = describe(network((8, 8, 1), "conv4x4s2,conv2x3s2", 3).reversed)
    assert [row.text for row in turned] == ["input", "8", "up4x3s2", "up1x4s2"]
    odd = describe(network((7, 7, 1), "conv4x4s2p0", 3).reversed)
    assert odd[2].text == "conv4x4s2p0 transposed"  # 2x2 to 7x7 is no multiple


def test_a_table_shows_maps_of_others():
    class Twice(LinearMap):
        inputs, outputs, weight_shape = 4, 4, (0,)

        def forward(self, backend, x, W, out):
            out[...] = 2 * x

        adjoint = forward

        def weight_gradient(self, backend, x, y, out):
            pass

        def initial_weights(self, generator):
            return np.zeros(0)

    net = dense_network([4, 4])
    net = type(net)(net.layers, [Twice()], net.likelihood, net.reversed.likelihood)
    assert [(row.text, row.multiply_adds) for row in describe(net)] == [
        ("input", 0), ("Twice of 4", None),
    ]  # fmt: skip


# -- files -----------------------------------------------------------------------------------------
def test_a_model_file_holds_every_kind_of_layer(tmp_path):
    net = network((16, 16, 1), MIXED.replace("s2,", "s2bn,").replace("48", "48bn"), 3)
    net.statistics[...] = np.random.default_rng(1).uniform(0.5, 2.0, net.statistics_count)
    model = Model(
        net, (16, 16, 1), ("a", "b", "c"), (), Scaling(), Scaling(), None, True, "some", {}, {}
    )
    save_model(tmp_path / "model.npz", model)
    again = load_model(tmp_path / "model.npz").net
    assert (again.layers, again.maps) == (net.layers, net.maps)
    assert describe(again) == describe(net)
    x = np.random.default_rng(0).normal(size=(2, 256)).astype(np.float32)
    assert np.array_equal(again.predict(x), net.predict(x))
    assert np.array_equal(again.reversed.predict(np.eye(3)), net.reversed.predict(np.eye(3)))
