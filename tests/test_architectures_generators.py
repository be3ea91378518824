"""Generators: the networks of images from codes."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nembp.architecture import describe, generator_network, network
from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.linear import Dense
from nembp.errors import ArchitectureError

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
    assert isinstance(network((8, 8, 1), "conv4x3", 10).maps[-1], Dense)


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
