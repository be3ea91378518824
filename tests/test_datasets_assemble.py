"""Samples and targets put together: what fits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.datasets import (
    Dataset,
    Raw,
    Request,
    Scaling,
    Split,
    assemble,
    load,
)
from nembp.datasets.scaling import CHUNK_VALUES, standardized
from nembp.errors import DataError


def put_together(x, y, test=None, request=None, **options) -> Dataset:
    train = Raw(np.asarray(x), np.asarray(y), "file: x", "file: y")
    if test is not None:
        test = Raw(np.asarray(test[0]), np.asarray(test[1]), "file: x_test", "file: y_test")
    return assemble("name", train, test, request or Request(), source="file", **options)


# --- assembling and checks


def test_labels_are_mapped_in_sorted_order():
    x = np.arange(8.0).reshape(8, 1)
    dataset = put_together(x, [7, -3, 7, 20, 20, 7, -3, 7], (x[:2], [20, -3]))
    assert dataset.classes == ("-3", "7", "20")
    assert dataset.train.y.tolist() == [1, 0, 1, 2, 2, 1, 0, 1]
    assert dataset.test.y.tolist() == [2, 0]
    words = put_together(x[:4], ["b", "a", "b", "a"], (x[:1], ["b"]))
    assert (words.classes, words.test.y.tolist()) == (("a", "b"), [1])
    octets = put_together(x[:2], np.array([b"b", b"a"]), (x[:1], [b"b"]))
    assert (octets.classes, octets.test.y.tolist()) == (("a", "b"), [1])


def test_regression_targets_are_standardized_on_the_training_split():
    x = np.arange(8.0).reshape(8, 1)
    y = np.stack([x[:, 0] * 3 + 1, np.full(8, 2.0)], axis=1)
    dataset = put_together(x, y, (x + 100, y + 100))
    assert not dataset.is_classification
    assert dataset.target_names == ("y0", "y1")
    assert dataset.outputs == 2
    assert np.array_equal(dataset.train.y, y)
    assert dataset.y_scaling == Scaling(y.mean(axis=0), np.array([1 / y[:, 0].std(), 1.0]))
    assert dataset.x_scaling == Scaling(x.mean(axis=0), 1 / x.std(axis=0))
    assert put_together(x, y[:, 0], (x, y[:, 0])).train.y.shape == (8, 1)


def test_limit_comes_before_scaling():
    x = np.arange(100.0).reshape(100, 1)
    dataset = put_together(x, x[:, 0], (x, x[:, 0]), Request(limit=5))
    assert len(dataset.train) == 5
    assert dataset.x_scaling == standardized(dataset.train.x)
    assert dataset.y_scaling == standardized(dataset.train.y)


def test_held_out_part_is_stratified_and_seeded():
    x = np.arange(100.0).reshape(100, 1)
    y = np.repeat([0, 1], [80, 20])
    one, two = (put_together(x, y, request=Request(seed=seed)) for seed in (0, 1))
    assert np.bincount(one.test.y).tolist() == [16, 4]
    assert len(one.train) == 80
    assert np.array_equal(np.sort(np.concatenate([one.train.x, one.test.x]), axis=0), x)
    assert not np.array_equal(one.test.x, two.test.x)
    assert np.array_equal(one.test.x, put_together(x, y, request=Request(seed=0)).test.x)
    few = put_together(x[:4], [0, 1, 2, 2], request=Request(test_fraction=0.9))
    assert (np.bincount(few.train.y).tolist(), few.test.y.tolist()) == ([1, 1, 1], [2])
    third = put_together(x, x[:, 0], request=Request(test_fraction=0.35))
    assert (len(third.train), len(third.test)) == (65, 35)


def test_images_stay_uint8_and_are_not_copied():
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    x.setflags(write=False)
    dataset = put_together(x, [0, 1, 0, 1, 0, 1], (x, [0] * 6))
    assert dataset.shape == (4, 5, 1)
    assert dataset.train.x.dtype == np.uint8
    assert np.shares_memory(dataset.train.x, x)
    assert dataset.x_scaling == Scaling(factor=1 / 255)
    flat = put_together(x.reshape(6, 20), [0, 1, 0, 1, 0, 1], (x.reshape(6, 20), [0] * 6))
    assert flat.x_scaling == Scaling(factor=1 / 255)
    assert not flat.is_image


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (np.bool_, np.float32),
        (np.int8, np.float32),
        (np.int16, np.float32),
        (np.float16, np.float32),
        (np.float32, np.float32),
        (np.int32, np.float64),
        (np.uint64, np.float64),
        (np.float64, np.float64),
    ],
)
def test_other_dtypes_become_floats(dtype, expected):
    x = np.array([[0], [1]], dtype=dtype)
    dataset = put_together(x, [0, 1], (x, [0, 1]))
    assert dataset.train.x.dtype == expected
    assert np.array_equal(dataset.train.x, x)


X, Y = np.arange(6.0).reshape(6, 1), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("x", "y", "test", "message"),
    [
        (X[:5], Y, None, "file: y: 6 labels or targets for 5 samples .file: x"),
        (X, Y[:, None] * [1, 1], None, r"shape \(6, 2\).*argmax"),
        (X, Y * 0, None, r"file: y: one class only \(0\)"),
        (X, Y, (X[:1], [2]), "file: y_test: label 2 of sample 0 does not occur"),
        (X[:0], Y[:0], None, "file: x: no samples"),
        (X, Y, (X[:0], Y[:0]), "file: x_test: no samples"),
        (X, Y, (np.ones((6, 2)), Y), r"file: x_test: samples of shape \(2,\).*shape \(1,\)"),
        (np.ones((6, 0)), Y, None, "at least one value per sample"),
        (np.ones((6, 1, 1, 1, 1)), Y, None, "expected images"),
        (np.float64(1), Y, None, "expected images"),
        (X, np.float64(1), None, "a single value"),
        (X, np.int64(1), None, r"shape \(\) of int64"),
        (X, Y, (X, Y.astype(str)), "file: y_test: labels of <U.*training labels of int64"),
        (X, Y, (X, Y.astype("M8[s]")), "file: y_test: dtype datetime64"),
        (X, Y, (X, Y + 0.5), "file: y_test: label 0.5 of sample 0"),
        (X, X, (X, Y.astype(str)), "file: y_test: dtype <U"),
        (X.astype(complex), Y, None, "dtype complex128; expected real numbers"),
        (X.astype("M8[s]"), Y, None, "expected real numbers"),
        (X, X[:, 0].astype("M8[s]"), None, "file: y: dtype datetime64"),
        (np.where(X == 4, np.nan, X), Y, None, r"file: x: value \[4, 0\] is nan"),
        (np.where(X == 3, -np.inf, X), Y, None, r"value \[3, 0\] is -inf"),
        (np.where(X == 3, 1e31, X), Y, None, r"\[3, 0\] is 1e\+31.*magnitude up to 1e\+30"),
        (X, np.where(X == 4, np.nan, X), None, r"file: y: value \[4, 0\] is nan"),
        (X, X, (X, np.ones((6, 2))), "file: y_test: 2 targets a sample.*1 .file: y"),
        (X, X[:, :, None], None, r"file: y: shape \(6, 1, 1\); expected \(n,\)"),
        (X * 1e-25, Y, (X * 1e25, Y), "file: x_test: value .* after scaling, too large"),
        (X, X * 1e-25, (X, X * 1e25), "file: y_test: value .* after scaling, too large"),
        (X[:2], Y[:2], None, "2 samples of 2 classes cannot be split.*at least 3.*regression"),
        (X[:1], X[:1], None, "1 samples of 0 classes cannot be split.*at least 2"),
        (X, np.array(list("aaaaaa")), None, "one class only .a."),
        (X, np.array([b"\xff", b"a"] * 3), None, "not valid text"),
        (X, np.array([2**64 - 1, 1] * 3, dtype=np.uint64), None, "18446744073709551615 of"),
    ],
)
def test_data_that_cannot_be_used(x, y, test, message):
    with pytest.raises(DataError, match=message):
        put_together(x, y, test)


def test_value_in_a_late_chunk_is_named():
    x = np.zeros((CHUNK_VALUES + 10, 2), dtype=np.float32)
    x[CHUNK_VALUES + 3, 1] = np.nan
    with pytest.raises(DataError, match=rf"\[{CHUNK_VALUES + 3}, 1\] is nan"):
        put_together(x, np.arange(len(x)) % 2)


def test_task_overrides_what_dtypes_say():
    regression = put_together(X, Y, (X, Y), Request(task="regression"))
    assert regression.target_names == ("y0",)
    assert regression.train.y.dtype.kind == "f"
    classes = put_together(X, Y + 0.0, (X, Y), Request(task="classification"))
    assert classes.classes == ("0", "1")
    with pytest.raises(DataError, match=r"label 0\.5 of sample 0.*task='regression'"):
        put_together(X, Y + 0.5, (X, Y), Request(task="classification"))
    with pytest.raises(DataError, match="is nan; expected finite"):
        put_together(X, Y + np.nan, (X, Y), Request(task="classification"))
    with pytest.raises(DataError, match="text targets"):
        put_together(X, Y.astype(str), (X, Y), Request(task="regression"))


def test_classes_given_by_a_reader_must_occur():
    with pytest.raises(DataError, match="class 'c' has no training sample"):
        put_together(X, Y, (X, Y + 1), classes=("a", "b", "c"))
    with pytest.raises(DataError, match=r"one class only \(a\)"):
        put_together(X, Y * 0, classes=("a",))
    assert put_together(X, Y, (X, Y), classes=("a", "b")).classes == ("a", "b")


def test_split_knows_its_length():
    assert len(Split(X, Y)) == 6


def test_a_data_set_fits_a_line_of_a_notebook():
    digits = load("digits")
    told = "Dataset('digits', 1500 training and 297 test samples of 8x8x1, 10 classes)"
    assert repr(digits) == told
    assert repr(digits.test) == "Split(297 samples of 8x8x1, labels)"
