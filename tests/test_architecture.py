"""The language of ``--layers`` and the networks it describes: what fits, and what does not by name."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.architecture import Item, describe, generator_network, network, parse, plain
from nembp.checkpoints import decode, encode
from nembp.engine.activations import get_activation
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import dense_network
from nembp.errors import ArchitectureError

MIXED = "conv8x4s2,pool2,48,reshape4x4x3,up6x4s2,conv5x3,20"

# -- the language ----------------------------------------------------------------------------------
SIZES = st.integers(1, 999_999_999)
PAIRS = st.tuples(SIZES, SIZES) | SIZES.map(lambda size: (size, size))


KERNELS = st.tuples(st.integers(10, 99), st.integers(10, 99))
PADDINGS = st.tuples(st.integers(0, 9), st.integers(0, 9))
STRIDED = st.builds(Item, st.sampled_from(["conv", "up"]), SIZES, KERNELS, PAIRS, PADDINGS,
                    st.booleans())  # fmt: skip
ITEMS = st.one_of(
    st.builds(Item, st.just("dense"), SIZES, normalized=st.booleans()),
    STRIDED,
    STRIDED.map(lambda i: replace(i, padding=((i.kernel[0] - 1) // 2, (i.kernel[1] - 1) // 2))),
    st.builds(Item, st.just("pool"), st.just(0), PAIRS, PAIRS),
    PAIRS.map(lambda window: Item("pool", 0, window, window)),
    st.builds(Item, st.just("reshape"), SIZES, st.tuples(SIZES, SIZES)),
)


@given(st.lists(ITEMS, max_size=5).map(tuple), st.sampled_from([",", ", ", " ,\n"]))
def test_a_description_reads_back_as_it_is_written(items, comma):
    text = comma.join(map(str, items))
    assert parse(text) == parse(text.upper()) == parse(items) == items
    assert parse(list(plain(items))) == items


@given(st.text(max_size=12) | st.text("convupreshab0123459xsp-,", max_size=12))
def test_any_text_is_a_description_or_one_clear_error(text):
    try:
        items = parse(text)
    except ArchitectureError as error:
        message = str(error)
    else:
        message = "layers has been read as expected"
        assert parse(",".join(map(str, items))) == items
    assert message.startswith("layers has ")
    assert "expected" in message


@pytest.mark.parametrize(
    ("text", "item"),
    [
        ("256", Item("dense", 256)),
        ("conv32x4s2", Item("conv", 32, (4, 4), (2, 2), (1, 1))),
        ("conv16x3-5p0s1-2", Item("conv", 16, (3, 5), (1, 2), (0, 0))),
        ("up64x4p0s4bn", Item("up", 64, (4, 4), (4, 4), (0, 0), normalized=True)),
        ("pool2", Item("pool", 0, (2, 2), (2, 2))),
        ("pool3-2s2-1", Item("pool", 0, (3, 2), (2, 1))),
        ("reshape4x5x128", Item("reshape", 128, (4, 5))),
        ("256bn", Item("dense", 256, normalized=True)),
    ],
)
def test_what_each_form_means(text, item):
    assert parse(text) == (item,)


def test_sizes_of_other_kinds():
    assert parse((np.int64(7), "conv8x3")) == parse("7,conv8x3")
    assert parse("") == parse(" ") == parse([]) == ()
    assert plain(parse("conv8x3p1s1bn,7,7bn")) == ("conv8x3bn", 7, "7bn")
    with pytest.raises(ArchitectureError, match=r"layers must be layers, as in .*, got 3"):
        parse(3)
    with pytest.raises(ArchitectureError, match="an output of shape"):
        network(8, "4", (0, 4, 1))


@pytest.mark.parametrize(
    ("value", "number", "message"),
    [
        ("-3", 1, "expected a whole number of units from 1 to 999999999, or layers such as 256 (dense), conv32x4s2"),
        ([10**30], 1, "expected a whole number of units from 1 to"),
        ([True], 1, "expected a whole number"),
        ("cnov8x3", 1, "no layer is called cnov; expected layers such as 256 (dense), conv32x4s2, pool2"),
        ("deconv8x4", 1, "up64x4s2 (a transposed convolution)"),
        ("64,dense32", 2, "no layer is called dense; expected layers such as 256 (dense)"),
        ("conv32", 1, "as in conv32x4s2p1: 32 channels, kernel 4x4"),
        ("conv32x4s2s3", 1, "expected it as in conv32x4s2p1"),
        ("conv4x3s1-0", 1, "only a padding may be 0"),
        ("conv4x3p1-3", 1, "with padding 1-3 some windows of kernel 3 hold nothing else; "
         "expected at most p2"),
        ("64,reshape4x4x4bn", 2, "no bn, since it has no units of its own to normalize"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_what_would_be_right(value, number, message):
    with pytest.raises(ArchitectureError) as caught:
        parse(value, "--layers")
    assert str(caught.value).startswith("--layers has ")
    assert f" as layer {number}: " in str(caught.value)
    assert message in str(caught.value)


# -- networks --------------------------------------------------------------------------------------
@given(st.lists(st.integers(1, 20), min_size=2, max_size=5), st.booleans())
def test_dense_descriptions_are_dense_networks(sizes, bias):
    options = {"activation": "tanh", "seed": 7, "bias": bias, "initial": "he"}
    ours = network(sizes[0], sizes[1:-1], sizes[-1], **options)
    theirs = dense_network(sizes, **options)
    assert (ours.layers, ours.maps) == (theirs.layers, theirs.maps)
    assert np.array_equal(ours.parameters, theirs.parameters)


def test_each_entry_becomes_a_layer_and_its_linear_map():
    options = {"activation": "tanh", "forward": "gaussian", "backward": "bernoulli"}
    net, tanh = network((16, 16, 1), MIXED, 10, **options), get_activation("tanh")
    wanted = [
        (256, None, 256, None),
        (8 * 8 * 8, tanh, 8, Convolution((16, 16, 1), 8, (4, 4), (2, 2), (1, 1))),
        (4 * 4 * 8, None, 0, AveragePooling((8, 8, 8), (2, 2), (2, 2))),
        (48, tanh, 48, Dense(128, 48)),
        (48, None, 0, Reshape((4, 4, 3))),
        (8 * 8 * 6, tanh, 6, Transposed(Convolution((8, 8, 6), 3, (4, 4), (2, 2), (1, 1)))),
        (8 * 8 * 5, tanh, 5, Convolution((8, 8, 6), 5, (3, 3), (1, 1), (1, 1))),
        (20, tanh, 20, Dense(320, 20)),
        (10, None, 10, Dense(20, 10)),
    ]
    found = [(layer.size, layer.activation, layer.biases) for layer in net.layers]
    assert found == [(size, f, biases) for size, f, biases, _ in wanted]
    assert list(net.maps) == [linear_map for *_, linear_map in wanted[1:]]
    assert (net.likelihood.name, net.reversed.likelihood.name) == ("gaussian", "bernoulli")
    bare = network((16, 16, 1), MIXED, 10, bias=False)
    assert bare.parameter_count == bare.weight_count == net.weight_count
    normalized = network((8, 8, 1), "conv6x4s2bn,pool2,20bn,reshape2x2x5,up3x4s2bn,7", 3)
    assert [layer.gains for layer in normalized.layers] == [0, 6, 0, 20, 0, 3, 0, 0]
    assert [layer.biases for layer in normalized.layers] == [64, 6, 0, 20, 0, 3, 7, 3]


@given(side=st.integers(1, 40), k=st.integers(1, 9), s=st.integers(1, 4), data=st.data())
def test_sides_are_the_windows_that_fit(side, k, s, data):
    p = data.draw(st.integers(0, k - 1))
    windows = range(0, side + 2 * p - k + 1, s)  # where one can begin in the padded image
    text = f"conv2x{k}s{s}p{p}"
    if not windows:
        with pytest.raises(ArchitectureError, match="fit"):
            network((side, side, 1), text, 2)
        return
    assert network((side, side, 1), text, 2).layers[1].size == len(windows) ** 2 * 2
    if p == 0:
        pooled = network((side, side, 3), f"pool{k}s{s}", 2)
        assert pooled.layers[1].size == len(windows) ** 2 * 3
    if k > 2:  # padding of its own
        halved = network((2 * side, 2 * side, 1), f"conv3x{k}s2", 2)
        assert halved.layers[1].size == side * side * 3


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


IMAGE, TABLE = (8, 8, 1), (13,)


@pytest.mark.parametrize(
    ("shape", "text", "message"),
    [
        (TABLE, "conv8x3", "layer 1 `conv8x3`: conv reads an image, but the input is a row of 13 "
         "units; expected reshapeHxWxC before it, or dense layers such as 256"),
        (64, "pool2", "layer 1 `pool2`: pool reads an image, but the input is a row of 64 units; "
         "expected reshapeHxWxC before it, such as reshape8x8x1"),
        (IMAGE, "conv4x3,48,up8x4", "layer 3 `up8x4s2`: up reads an image, but layer 2 is a row of "
         "48 units; expected reshapeHxWxC before it, such as reshape4x4x3"),
        (IMAGE, "conv8x4s2,conv8x4s2,conv8x4s2,conv8x4s2,32", "layer 4 `conv8x4s2`: kernel 4 does "
         "not fit the 1x1 image of layer 3; expected at most 3 with the padding on both "
         "sides, a larger padding, or fewer strided layers before it"),
        (IMAGE, "conv8x3-9p0", "kernel 3-9 does not fit the 8x8 image of the input; expected "
         "at most 8"),
        (IMAGE, "pool4,pool3", "layer 2 `pool3`: window 3 does not fit the 2x2 image of layer 1; "
         "expected at most 2, or fewer strided layers before it"),
        (IMAGE, "48,reshape4x4x2", "layer 2 `reshape4x4x2`: 4x4x2 are 32 units, but layer 1 has "
         "48; expected a shape of 48, such as reshape4x4x3, or a layer of 32 before it"),
        (IMAGE, "up8x4p0", "layer 1 `up8x4s2p0`: kernel 4, stride 2 and padding 0 do not multiply "
         "the image's sides by 2; expected a padding of 1"),
        (IMAGE, "up8x4s1", "expected an odd kernel, or a stride of 2"),
        (IMAGE, "conv999999999x3", "63,999,999,936 units; expected at most 999,999,999"),
        (IMAGE, "999999999", "layer 1 `999999999`: it would have 63,999,999,936 weights"),
        ((2, 3), "4", "an input of shape (2, 3); expected (features,) or (height, width, "),
        (8, "64,reshape4x4x4,up2x4s2", "the output: an image 28x28 is no whole multiple of the 8x8 "
         "image of layer 3; expected sides that divide 28x28, or a dense layer last"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named_with_what_would(shape, text, message):
    with pytest.raises(ArchitectureError) as caught:
        network(shape, text, (28, 28, 1))
    assert message in str(caught.value)


# -- generators ------------------------------------------------------------------------------------
GENERATORS = {
    "2048bn,reshape4x4x128,up64x4s2bn,up32x4s2bn": (32, 32, 3),
    "up32x4s4p0bn,up16x4s2bn": (16, 16, 1),
    "30,reshape2x3x5": (6, 12, 1),
    "30,reshape2x3x5,conv4x3": (2, 3, 2),
    "24bn": (4, 4, 1),
    "": (4, 4, 1),
}


@pytest.mark.parametrize("text", list(GENERATORS))
def test_a_generator_makes_images_of_the_asked_shape_in_both_directions(text):
    shape = GENERATORS[text]
    net = generator_network(64, text, shape, forward="bernoulli", backward="gaussian",
                            dtype="float64", seed=1)  # fmt: skip
    rows = describe(net)
    assert rows[-1]["shape"] == (shape if "x" in text else (math.prod(shape),))
    assert ",".join(row["description"] for row in rows[1:-1]) == text
    generator = np.random.default_rng(0)
    z, x = generator.normal(size=(5, 64)), generator.random((5, math.prod(shape)))
    assert net.predict(z).shape == x.shape
    assert net.reversed.predict(x).shape == z.shape


# -- tables ----------------------------------------------------------------------------------------
COUNTS = "weights", "biases", "gains", "multiply_adds"


@pytest.mark.parametrize(
    "text", ["", "7", MIXED, "conv4x3-2s1-2p0,pool3s2", "conv4x3bn,pool4,7bn,9"]
)
def test_a_table_counts_every_parameter_and_files_hold_every_kind_of_layer(text):
    net = network((16, 16, 1), text, 10)
    up, down = describe(net), describe(net.reversed)[::-1]
    for row, back, layer in zip(up, down, net.layers, strict=True):
        assert math.prod(row["shape"]) == math.prod(back["shape"]) == layer.size
        assert (row["biases"], row["gains"]) == (back["biases"], back["gains"])
    totals = [{k: sum(row[k] for row in rows) for k in COUNTS} for rows in (up, down)]
    assert totals[0] == totals[1]
    assert totals[0].pop("multiply_adds") > 0
    assert sum(totals[0].values()) == net.parameter_count
    assert ",".join(row["description"] for row in up[1:-1]) == text
    assert decode(tuple[LinearMap, ...], encode(net.maps)) == net.maps


def test_a_table_says_how_often_weights_are_used():
    rows = describe(network((8, 8, 1), "conv4x3,up2x4s2,5", 3))
    assert [row["multiply_adds"] for row in rows[1:]] == [64 * 9 * 4, 64 * 16 * 4 * 2, 2560, 15]
    turned = describe(network((8, 8, 1), "conv4x4s2,conv2x3s2", 3).reversed)
    assert [row["description"] for row in turned] == ["input", "8", "up4x3s2", "up1x4s2"]
    odd = describe(network((7, 7, 1), "conv4x4s2p0", 3).reversed)
    assert odd[2]["description"] == "conv4x4s2p0 transposed"  # 2x2 to 7x7 is no multiple
    sides = describe(network((4, 6, 2), "conv3x1-4s2-1p0,up5x3-2s3-2p0,pool2-4", 2))
    assert [row["shape"] for row in sides[:4]] == [(4, 6, 2), (2, 3, 3), (6, 6, 5), (3, 1, 5)]
