"""The language of ``--layers``: what is written reads back, what is wrong is named."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.architecture import (
    ConvolutionItem,
    DenseItem,
    PoolingItem,
    ReshapeItem,
    UpsamplingItem,
    parse,
    plain,
)
from nembp.errors import ArchitectureError

SIZES = st.integers(1, 999_999_999)
PAIRS = st.tuples(SIZES, SIZES) | SIZES.map(lambda size: (size, size))


def strided(kind):
    paddings = st.tuples(st.integers(0, 9), st.integers(0, 9))
    kernels = st.tuples(st.integers(10, 99), st.integers(10, 99))
    own = st.builds(lambda c, k, s, bn: kind(c, k, s, ((k[0] - 1) // 2, (k[1] - 1) // 2), bn),
                    SIZES, kernels, PAIRS, st.booleans())  # fmt: skip
    return st.builds(kind, SIZES, kernels, PAIRS, paddings, st.booleans()) | own


ITEMS = st.one_of(
    st.builds(DenseItem, SIZES, st.booleans()),
    strided(ConvolutionItem),
    strided(UpsamplingItem),
    st.builds(PoolingItem, PAIRS, PAIRS),
    st.builds(lambda window: PoolingItem(window, window), PAIRS),
    st.builds(ReshapeItem, st.tuples(SIZES, SIZES, SIZES)),
)


@given(st.lists(ITEMS, max_size=5).map(tuple), st.sampled_from([",", ", ", " ,\n"]))
def test_a_description_reads_back_as_it_is_written(items, comma):
    text = comma.join(map(str, items))
    assert parse(text) == parse(text.upper()) == parse(items) == items
    assert parse(list(plain(items))) == items
    assert plain(parse(text)) == plain(items)


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
        ("256", DenseItem(256)),
        ("conv32x4s2", ConvolutionItem(32, (4, 4), (2, 2), (1, 1))),
        ("conv32x5s2", ConvolutionItem(32, (5, 5), (2, 2), (2, 2))),
        ("conv32x3", ConvolutionItem(32, (3, 3), (1, 1), (1, 1))),
        ("conv16x3-5p0s1-2", ConvolutionItem(16, (3, 5), (1, 2), (0, 0))),
        ("up64x4", UpsamplingItem(64, (4, 4), (2, 2), (1, 1))),
        ("up8x3s1", UpsamplingItem(8, (3, 3), (1, 1), (1, 1))),
        ("pool2", PoolingItem((2, 2), (2, 2))),
        ("pool3-2s2-1", PoolingItem((3, 2), (2, 1))),
        ("reshape4x5x128", ReshapeItem((4, 5, 128))),
        ("256bn", DenseItem(256, normalized=True)),
        ("conv32x4s2bn", ConvolutionItem(32, (4, 4), (2, 2), (1, 1), normalized=True)),
        ("up64x4p0s4bn", UpsamplingItem(64, (4, 4), (4, 4), (0, 0), normalized=True)),
    ],
)
def test_what_each_form_means(text, item):
    assert parse(text) == (item,)


def test_sizes_of_other_kinds():
    assert parse((np.int64(7), "conv8x3")) == parse("7,conv8x3")
    assert parse("") == parse(" ") == parse([]) == ()
    assert plain(parse("conv8x3p1s1,7")) == ("conv8x3", 7)
    assert plain(parse("conv8x3p1s1bn,7bn")) == ("conv8x3bn", "7bn")


@pytest.mark.parametrize(
    ("value", "number", "message"),
    [
        ("512,0", 2, "it has 0 neurons; expected from 1 to 999999999"),
        ("-3", 1, "expected a whole number of neurons ≥ 1, or layers such as 256, conv32x4s2"),
        ("12,,3", 2, "expected a whole number of neurons ≥ 1"),
        ("1.5", 1, "expected a whole number"),
        ("٣", 1, "expected a whole number"),
        ("9" * 12, 1, "expected a whole number"),
        ([10**30], 1, "expected from 1 to"),
        ([True], 1, "expected a whole number"),
        ([8.0], 1, "expected a whole number"),
        ([None], 1, "expected a whole number"),
        (["4,4"], 1, "expected a whole number"),
        ("cnov8x3", 1, "did you mean conv?; expected layers such as"),
        ("Convolution8x3", 1, "did you mean conv?"),
        ("poool2", 1, "did you mean pool?"),
        ("deconv8x4", 1, "did you mean up?"),
        ("64,dense32", 2, "a dense layer is its number of neurons alone"),
        ("maxpool2", 1, "by averages"),
        ("conv8x3,flatten,10", 2, "leave it out"),
        ("qqq3", 1, "no layer is called qqq; expected layers such as"),
        ("conv32", 1, "as in conv32x4s2p1: 32 channels, kernel 4x4"),
        ("conv32x3x3", 1, "3-5: 3 high, 5 wide"),
        ("conv32x4s", 1, "as in conv32x4s2p1"),
        ("conv32x4s2s3", 1, "it says s twice"),
        ("conv0x4", 1, "it has 0 channels"),
        ("conv4x0", 1, "its kernel is 0; expected whole numbers ≥ 1"),
        ("conv4x3s1-0", 1, "its stride is 1-0"),
        ("conv4x3p3", 1, "with padding 3 some windows of kernel 3 hold nothing else; "
         "expected at most p2"),
        ("up4", 1, "as in up64x4s2p1"),
        ("pool0", 1, "its window is 0"),
        ("pool2p1", 1, "as in pool3s2"),
        ("reshape4x4", 1, "as in reshape4x4x128: height, width, channels"),
        ("reshape4x4x0", 1, "it has 0 pixels or channels"),
        ("pool2bn", 1, "a pool layer has no neurons of its own to normalize; expected bn on"),
        ("64,reshape4x4x4bn", 2, "a reshape layer has no neurons of its own"),
        ("0bn", 1, "it has 0 neurons"),
        ("256,bn", 2, "bn ends the layer that it normalizes, as in 256bn"),
        ("batchnorm", 1, "bn ends the layer that it normalizes"),
        ("conv8bnx3", 1, "as in conv32x4s2p1"),
        ("conv8x3bns2", 1, "and bn added at the end"),
    ],
)  # fmt: skip
def test_a_wrong_entry_is_named_with_what_would_be_right(value, number, message):
    with pytest.raises(ArchitectureError) as caught:
        parse(value, "--layers")
    assert f" as layer {number}: " in str(caught.value)
    assert str(caught.value).startswith("--layers has ")
    assert message in str(caught.value)


def test_what_is_no_list_of_layers():
    with pytest.raises(ArchitectureError, match=r"layers must be layers, as in .*, got 3"):
        parse(3)
