from __future__ import annotations

import subprocess
import sys
import types

import numpy as np
import pytest

import nembp.datasets.digits as digits_module
from nembp.datasets import (
    Dataset,
    Raw,
    Request,
    Scaling,
    Split,
    assemble,
    available,
    load,
    loading,
    register,
)
from nembp.datasets.scaling import CHUNK_VALUES, image_scaling, standardized
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError, DataError

DIGITS_TEST_LABELS = [5, 5, 1, 8, 5, 9, 0, 4, 9, 3, 2, 2]
DIGITS_TEST_SUM = 13842129


def put_together(x, y, test=None, request=None, **options) -> Dataset:
    train = Raw(np.asarray(x), np.asarray(y), "file: x", "file: y")
    if test is not None:
        test = Raw(np.asarray(test[0]), np.asarray(test[1]), "file: x_test", "file: y_test")
    return assemble("name", train, test, request or Request(), source="file", **options)


# --- digits


def test_digits_are_scikit_learns_without_importing_it():
    # its own interpreter: other tests import scikit-learn into this one
    code = (
        "import sys; from nembp.datasets import load; d = load('digits');"
        "assert 'sklearn' not in sys.modules, 'slow start'; print(d.train.x.sum(), d.test.x.sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    from sklearn.datasets import load_digits

    theirs = load_digits()
    ours = load("digits")
    assert done.stdout.split() == [str(ours.train.x.sum()), str(ours.test.x.sum())]
    mine = np.column_stack(
        [
            np.concatenate([ours.train.x, ours.test.x]).reshape(-1, 64),
            np.concatenate([ours.train.y, ours.test.y]),
        ]
    )
    other = np.column_stack([theirs.data, theirs.target]).astype(np.int64)
    assert np.array_equal(np.unique(mine, axis=0), np.unique(other, axis=0))
    assert len(np.unique(mine, axis=0)) == 1797


def test_digits_shape_and_split():
    digits = load("digits")
    assert (len(digits.train), len(digits.test)) == (1500, 297)
    assert digits.shape == (8, 8, 1)
    assert (digits.features, digits.outputs) == (64, 10)
    assert digits.is_image
    assert digits.is_classification
    assert digits.classes == tuple("0123456789")
    assert digits.target_names == ()
    assert digits.train.x.dtype == np.uint8
    assert digits.train.y.dtype == np.int64
    assert digits.train.x.max() == 16
    assert digits.x_scaling == Scaling(factor=1 / 16)
    assert digits.y_scaling == Scaling()
    assert "Alpaydin" in digits.attribution
    counts = np.bincount(np.concatenate([digits.train.y, digits.test.y]))
    assert np.all(np.abs(np.bincount(digits.train.y) - counts * 1500 / 1797) < 1)


def test_digits_split_is_fixed_for_good():
    one, two = load("digits"), load("digits", seed=7)
    assert np.array_equal(one.train.x, two.train.x)
    # recorded once: published figures depend on this split
    assert one.test.y[:12].tolist() == DIGITS_TEST_LABELS
    assert int(np.arange(297) @ one.test.x.sum(axis=(1, 2, 3))) == DIGITS_TEST_SUM


def test_digits_fall_back_to_scikit_learn(monkeypatch):
    packed = load("digits")
    monkeypatch.setattr(digits_module, "_CSV_MD5", "another version's")
    asked = load("digits")
    assert asked.source == "sklearn.datasets.load_digits"
    assert packed.source.endswith("digits.csv.gz")
    assert np.array_equal(asked.train.x, packed.train.x)
    assert np.array_equal(asked.test.y, packed.test.y)


def test_digits_from_an_odd_scikit_learn_are_refused(monkeypatch):
    import sklearn.datasets

    odd = types.SimpleNamespace(data=np.zeros((5, 64)), target=np.zeros(5))
    monkeypatch.setattr(digits_module, "_CSV_MD5", "another version's")
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: odd)
    with pytest.raises(DataError, match=r"shape \(5, 65\); expected \(1797, 65\).*Reinstall"):
        load("digits")
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match="pip install scikit-learn"):
        load("digits")


# --- options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "imagenet"}, "no data set 'imagenet': expected one of digits, mnist"),
        ({"name": "digits", "task": "ranking"}, "task='ranking': expected one of auto"),
        ({"name": "digits", "task": "regression"}, "does not apply"),
        ({"name": "digits", "data_dir": "/tmp"}, "leave data_dir"),
        ({"name": "digits", "targets": "y"}, "targets name the columns of a csv"),
        ({"name": "digits", "test_fraction": 1.0}, "between 0 and 1"),
        ({"name": "digits", "seed": -1}, "at least 0"),
        ({"name": "digits", "limit": 0}, "at least 1"),
        ({"name": "digits", "limit": 9}, "expected at least 10"),
        ({"name": "mnist"}, "nembp data fetch mnist"),
        ({"name": "idx"}, "--data-dir PATH"),
        ({"name": "npz"}, "--data-dir PATH"),
        ({"name": "csv"}, "--data-dir PATH"),
    ],
)
def test_wrong_options(arguments, message):
    with pytest.raises(ArchitectureError, match=message):
        load(**arguments)


def test_limit_keeps_every_class_and_depends_on_the_seed_alone():
    whole, one, two = (load("digits", limit=limit) for limit in (None, 30, 30))
    other = load("digits", limit=30, seed=1)
    assert len(one.train) == 30
    assert np.bincount(one.train.y).tolist() == [3] * 10
    assert np.array_equal(one.train.x, two.train.x)
    assert not np.array_equal(one.train.x, other.train.x)
    assert np.array_equal(one.test.x, whole.test.x)
    assert np.array_equal(load("digits", limit=10**9).train.x, whole.train.x)
    rows = {row.tobytes() for row in whole.train.x}
    assert all(row.tobytes() in rows for row in one.train.x)


def test_registered_data_set_is_loaded_with_the_options(monkeypatch):
    monkeypatch.setattr(loading, "_REGISTRY", dict(loading._REGISTRY))
    asked: list[Request] = []

    def loader(request: Request) -> Dataset:
        asked.append(request)
        return load("digits")

    register("mine", loader, "my own")
    assert available()["mine"] == "my own"
    assert load("mine", "folder", targets="t", limit=20, seed=3).name == "digits"
    assert asked[0].path("mine").name == "folder"
    assert (asked[0].targets, asked[0].limit, asked[0].seed) == (("t",), 20, 3)
    register("lazy", "nembp.datasets.digits:load_digits", "by name")
    assert load("lazy").outputs == 10


# --- scaling


def test_scaling_is_undone_and_writes_in_place():
    generator = np.random.default_rng(0)
    raw = generator.normal(2000.0, 3.0, size=(50, 4))
    scaling = standardized(raw)
    scaled = scaling.apply(raw, np.float64)
    assert np.allclose(scaled.mean(axis=0), 0, atol=1e-12)
    assert np.allclose(scaled.std(axis=0), 1, rtol=1e-12)
    assert np.allclose(scaling.invert(scaled), raw, rtol=1e-14)
    assert scaling.apply(raw).dtype == np.float32
    assert np.allclose(scaling.apply(raw), scaled, atol=1e-6)  # no cancellation in float32
    out = np.empty((50, 4), dtype=np.float32)
    assert scaling.apply(raw, out=out) is out
    assert np.array_equal(out, scaling.apply(raw))


def test_uint8_images_are_scaled_in_place_exactly():
    raw = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    scaling = image_scaling(raw)
    out = np.empty(raw.shape, dtype=np.float32)
    scaling.apply(raw, out=out)
    assert np.array_equal(out, raw.astype(np.float32) * np.float32(1 / 255))
    assert (out.min(), out.max()) == (0.0, 1.0)
    assert np.array_equal(np.rint(scaling.invert(out)), raw)


def test_standardized_over_several_chunks_and_with_constants():
    n = CHUNK_VALUES + 7
    x = np.stack([np.full(n, 0.1), np.arange(n, dtype=float), np.full(n, 1e30)], axis=1)
    scaling = standardized(x)
    assert scaling.offset[0] == 0.1
    assert scaling.factor[[0, 2]].tolist() == [1.0, 1.0]
    assert scaling.offset[1] == pytest.approx((n - 1) / 2)
    assert scaling.factor[1] == pytest.approx(1 / np.arange(n).std())
    assert np.all(scaling.apply(x, np.float64)[:, [0, 2]] == 0.0)


def test_what_varies_too_little_is_not_blown_up():
    x = np.array([[0.0, 0.0], [1e-35, 1e-20]])
    assert standardized(x).factor.tolist() == [1.0, pytest.approx(2e20)]


def test_scaling_of_floating_images():
    inside = np.linspace(0.1, 0.9, 32).reshape(2, 4, 4, 1)
    assert image_scaling(inside) == Scaling()
    assert image_scaling(inside * 10 - 3) == Scaling(-2.0, 1 / 8.0)
    assert image_scaling(np.full((2, 4, 4, 1), 3.0)) == Scaling(3.0, 1.0)


@pytest.mark.parametrize("wrong", [{"factor": 0.0}, {"factor": np.nan}, {"offset": np.inf}])
def test_scalings_that_cannot_be_undone(wrong):
    with pytest.raises(ArchitectureError, match="factor"):
        Scaling(**wrong)


def test_scalings_compare_by_value():
    assert Scaling(np.zeros(2), np.ones(2)) == Scaling(np.zeros(2), np.ones(2))
    assert Scaling(np.zeros(2), np.ones(2)) != Scaling(np.zeros(2), np.array([1.0, 2.0]))
    assert Scaling() != "identity"


# --- splits


def test_shuffled_is_a_permutation_by_named_stream():
    one = shuffled(1000, random_bits(0, "a"))
    assert np.array_equal(np.sort(one), np.arange(1000))
    assert np.array_equal(one, shuffled(1000, random_bits(0, "a")))
    assert not np.array_equal(one, shuffled(1000, random_bits(0, "b")))
    assert not np.array_equal(one, shuffled(1000, random_bits(1, "a")))


@pytest.mark.parametrize("counts", [[5, 5], [1, 1, 98], [1] * 9 + [2], [7, 11, 13, 1]])
def test_stratified_choice_keeps_proportions_and_every_class(counts):
    counts = np.array(counts)
    labels = np.random.default_rng(0).permutation(np.repeat(np.arange(len(counts)), counts))
    for size in range(len(counts), counts.sum() + 1):
        chosen, rest = stratified_choice(labels, size, random_bits(0, "test"))
        assert np.array_equal(np.sort(np.concatenate([chosen, rest])), np.arange(len(labels)))
        taken = np.bincount(labels[chosen], minlength=len(counts))
        share = counts * size / counts.sum()
        assert taken.sum() == size == len(chosen)
        assert taken.min() >= 1
        assert np.all(taken <= counts)
        if share.min() >= 1:  # nothing was raised to 1, so rounding is all that differs
            assert np.all(np.abs(taken - share) < 1)
    for size in (len(counts) - 1, counts.sum() + 1):
        with pytest.raises(ArchitectureError, match="expected a number from"):
            stratified_choice(labels, size, random_bits(0, "test"))


def test_stratified_parts_are_in_random_order():
    labels = np.arange(5000) % 10
    for part in stratified_choice(labels, 4500, random_bits(0, "order")):
        # were the order that of the draw, the last class to fill up would end `chosen`
        positions = np.array([np.flatnonzero(labels[part] == k).mean() for k in range(10)])
        # means of at least 50 uniform positions: 5 standard errors, false alarm below 1e-4
        error = len(part) / np.sqrt(12 * len(part) / 10)
        assert np.all(np.abs(positions - len(part) / 2) < 5 * error)
        assert np.all(np.bincount(labels[part[-100:]], minlength=10) > 0)


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
