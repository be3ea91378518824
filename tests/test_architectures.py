"""Networks from descriptions: sizes, biases, both directions, files, and what does not fit."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.architectures import generator_network, network
from nembp.backpropagation import JointBackpropagation, backpropagate
from nembp.checkpoints import Model, load_model, save_model
from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.datasets import Scaling
from nembp.errors import ArchitectureError
from nembp.network import dense_network
from nembp.neurons import get_activation
from nembp.summaries import describe
from nembp.synapses import Dense, Synapse, Transposed

MIXED = "conv8x4s2,pool2,48,reshape4x4x3,up6x4s2,conv5x3,20"


@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.integers(0, 99))
def test_dense_descriptions_are_dense_networks(sizes, seed):
    ours = network(sizes[0], sizes[1:-1], sizes[-1], activation="tanh", seed=seed)
    theirs = dense_network(sizes, activation="tanh", seed=seed)
    assert ours.layers == theirs.layers
    assert ours.synapses == theirs.synapses
    assert np.array_equal(ours.parameters, theirs.parameters)


def test_each_entry_becomes_a_layer_and_its_synapse():
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
    assert list(net.synapses) == [synapse for *_, synapse in wanted[1:]]
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
        assert net.synapses[0].synapse.output_shape == (side, side, 2)
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
    shapes = [synapse.output_shape for synapse in (net.synapses[0], net.synapses[2])]
    assert shapes == [(2, 3, 3), (3, 1, 5)]
    assert net.synapses[1].synapse.shape == (6, 6, 5)
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


# -- generators --------------------------------------------------------------------------------
DCGAN = {
    "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn": (32, 32, 3),
    "up32x4s4p0bn,up16x4s2bn": (16, 16, 1),
    "98,reshape7x7x2,up4x4s2bn": (28, 28, 1),
    "30,reshape2x3x5": (6, 12, 1),
    "30,reshape2x3x5,conv4x3": (2, 3, 2),
    "24bn": (4, 4, 1),
    "": (4, 4, 1),
}


@pytest.mark.parametrize("text", list(DCGAN))
def test_a_generator_makes_images_of_the_asked_shape_and_its_gradients_are_right(text):
    shape = DCGAN[text]
    net = generator_network(64, text, shape, forward="bernoulli", backward="gaussian",
                            dtype="float64", seed=1)  # fmt: skip
    rows = describe(net)
    assert (rows[-1].shape, net.outputs) == (
        shape if "reshape" in text or "up" in text else (math.prod(shape),),
        math.prod(shape),
    )
    assert ",".join(row.text for row in rows[1:-1]) == text
    generator = np.random.default_rng(0)
    z = generator.normal(size=(5, 64))
    x = generator.random((5, net.outputs))
    assert net.predict(z).shape == x.shape
    assert net.reversed.predict(x).shape == z.shape
    joint = JointBackpropagation(net, 5)
    joint.x[...], joint.t[...] = z, x
    gradient = np.empty(net.parameter_count)
    joint(gradient)
    both = backpropagate(net, z, x)[0] + backpropagate(net.reversed, x, z)[0]
    np.testing.assert_allclose(gradient, both, rtol=0, atol=1e-11 * np.abs(both).max())
    for way, source, target in ((net, z, x), (net.reversed, x, z)):
        slope = backpropagate(way, source, target)[0]
        direction = generator.normal(size=net.parameter_count)
        values = []
        for h in (1e-6, -1e-6):
            moved = net.copy()
            moved.parameters[...] += h * direction
            moved = moved if way is net else moved.reversed
            values.append(-np.mean(moved.log_likelihood(source, target, "batch")))
        numeric = (values[0] - values[1]) / 2e-6
        size = np.linalg.norm(slope) * np.linalg.norm(direction)
        assert abs(slope @ direction - numeric) < 1e-5 * size


def test_where_the_output_image_does_not_fit_the_dense_layer_is_named():
    with pytest.raises(ArchitectureError) as caught:
        generator_network(8, "64,reshape4x4x4,up2x4s2", (28, 28, 1))
    assert str(caught.value) == (
        "the output: an image 28x28 is no whole multiple of the 8x8 image of layer 3; expected "
        "sides that divide 28x28, or a dense layer last"
    )
    for shape in ((2, 2), (0, 4, 1)):
        with pytest.raises(ArchitectureError, match="an output of shape"):
            network(8, "4", shape)


def test_an_output_of_one_number_is_dense_over_images_too():
    assert isinstance(network((8, 8, 1), "conv4x3", 10).synapses[-1], Dense)


IMAGE, TABLE = (8, 8, 1), (13,)


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        (TABLE, "conv8x3", "layer 1 `conv8x3`: a convolution reads an image, but the input is a "
         "row of 13 features; expected reshapeHxWxC before it, or dense layers such as 256"),
        (64, "pool2", "layer 1 `pool2`: a pooling reads an image, but the input is a row of 64 "
         "features; expected reshapeHxWxC before it, such as reshape8x8x1"),
        (IMAGE, "conv4x3,48,up8x4", "layer 3 `up8x4s2`: a convolution reads an image, but layer 2 "
         "is 48 dense neurons; expected reshapeHxWxC before it, such as reshape4x4x3"),
        (IMAGE, "conv8x4s2,conv8x4s2,conv8x4s2,conv8x4s2,32", "layer 4 `conv8x4s2`: kernel 4 does "
         "not fit the 1x1 image of layer 3; expected at most 3 (1 + twice the padding 1), a "
         "larger padding, or fewer strided layers before it"),
        (IMAGE, "conv8x9p0", "kernel 9 does not fit the 8x8 image of the input; expected "
         "at most 8"),
        (IMAGE, "conv8x3-9p0", "kernel width 9 does not fit the 8x8 image of the input"),
        (IMAGE, "pool4,pool3", "layer 2 `pool3`: window 3 does not fit the 2x2 image of layer 1; "
         "expected at most 2, or fewer strided layers before it"),
        (IMAGE, "48,reshape4x4x2", "layer 2 `reshape4x4x2`: 4x4x2 are 32 neurons, but layer 1 has "
         "48; expected a shape of 48, such as reshape4x4x3, or a layer of 32 before it"),
        (IMAGE, "up8x4p0", "layer 1 `up8x4s2p0`: kernel 4, stride 2 and padding 0 do not multiply "
         "the image's sides by 2; expected a padding of 1"),
        (IMAGE, "up8x4s1", "expected an odd kernel, or a stride of 2"),
        (IMAGE, "conv999999999x3", "63,999,999,936 neurons; expected at most 999,999,999"),
        (IMAGE, "999999999", "layer 1 `999999999`: it would have 63,999,999,936 weights"),
        ((2, 3), "4", "an input of shape (2, 3); expected (features,) or (height, width, "),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_what_would(shape, text, message):
    with pytest.raises(ArchitectureError) as caught:
        network(shape, text, 10)
    assert message in str(caught.value)


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


def test_a_table_shows_synapses_of_others():
    class Twice(Synapse):
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
    assert (again.layers, again.synapses) == (net.layers, net.synapses)
    assert describe(again) == describe(net)
    x = np.random.default_rng(0).normal(size=(2, 256)).astype(np.float32)
    assert np.array_equal(again.predict(x), net.predict(x))
    assert np.array_equal(again.reversed.predict(np.eye(3)), net.reversed.predict(np.eye(3)))
