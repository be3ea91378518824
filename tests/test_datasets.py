"""The door that every data set goes through: options, labels, splits, scaling, rows."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from fuzz_cases import traced
from hypothesis import given
from hypothesis import strategies as st

from nembp import datasets
from nembp.datasets import Dataset, Raw, Request, Scaling, Split, assemble, load, loading
from nembp.datasets.scaling import CHUNK_VALUES, standardized
from nembp.datasets.sources import Rows, choose, join, random_bits, stratified_choice
from nembp.errors import ArchitectureError, DataError


# -- digits and options ----------------------------------------------------------------------------
def test_digits_are_scikit_learns_without_importing_it():
    # its own interpreter: other tests import scikit-learn into this one
    code = (
        "import sys; from nembp.datasets import load; load('digits');"
        "assert 'sklearn' not in sys.modules, 'slow start'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    from sklearn.datasets import load_digits

    theirs, ours = load_digits(), load("digits")
    parts = (ours.train, ours.test)
    mine = [np.column_stack([part.x.reshape(-1, 64), part.y]) for part in parts]
    other = np.column_stack([theirs.data, theirs.target]).astype(np.int64)
    assert np.array_equal(np.unique(np.concatenate(mine), axis=0), np.unique(other, axis=0))
    assert (ours.shape, ours.classes, ours.target_names) == ((8, 8, 1), tuple("0123456789"), ())
    assert (ours.train.x.dtype, ours.train.y.dtype) == (np.uint8, np.int64)
    assert (ours.x_scaling, ours.y_scaling) == (Scaling(factor=1 / 16), Scaling())
    assert "Alpaydin" in ours.attribution
    counts = np.bincount(theirs.target) * 1500 / 1797
    assert np.all(np.abs(np.bincount(ours.train.y) - counts) < 1)
    # recorded once: published figures depend on this split
    assert np.array_equal(ours.train.x, load("digits", seed=7).train.x)
    assert ours.test.y[:12].tolist() == [5, 5, 1, 8, 5, 9, 0, 4, 9, 3, 2, 2]
    assert int(np.arange(297) @ ours.test.x.sum(axis=(1, 2, 3))) == 13842129


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("imagenet", {}, "no data set 'imagenet': expected one of digits, mnist"),
        ("digits", {"task": "ranking"}, "task='ranking': expected one of auto"),
        ("digits", {"task": "regression"}, "does not apply"),
        ("digits", {"data_dir": "/tmp"}, "leave data_dir"),
        ("digits", {"targets": "y"}, "targets is for the data sets csv, not for 'digits'"),
        ("digits", {"max_bytes": 5}, "max_bytes is for the data sets"),
        ("idx", {"delimiter": ";", "data_dir": "."}, "delimiter is for the data sets csv"),
        ("digits", {"scaling": "best"}, r"scaling='best': expected one of auto, unit"),
        ("digits", {"test_fraction": 1.0}, "between 0 and 1"),
        ("digits", {"seed": -1}, "at least 0"),
        ("digits", {"limit": 0}, "at least 1"),
        ("digits", {"limit": 9}, "expected a number from 10"),
        ("idx", {}, "--data-dir PATH"),
        ("digits", {"classes": ("0", "0")}, "two different names or more"),
        ("digits", {"limits": 30}, "no option 'limits': expected classes, data_dir"),
    ],
)
def test_wrong_options(name, options, message):
    with pytest.raises(ArchitectureError, match=message):
        load(name, **options)


def test_labels_name_the_classes_asked_for_or_are_refused(tmp_path):
    file, backwards = tmp_path / "d.csv", tuple("9876543210")
    assert np.array_equal(load("digits", classes=backwards).train.y, 9 - load("digits").train.y)
    file.write_text("a,y\n" + "\n".join(f"{k},{k / 7:.3f}" for k in range(40)))
    for name, place, message in (
        ("csv", file, "numbers to predict, but expected are the classes 'a', 'b'"),
        ("digits", None, "no class '0'; expected one of the classes 'a', 'b'"),
    ):
        with pytest.raises(DataError, match=message):
            load(name, place, classes=("a", "b"))


def test_limit_keeps_every_class_and_depends_on_the_seed_alone():
    whole, one, two = (load("digits", limit=limit) for limit in (10**9, 30, 30))
    assert np.bincount(one.train.y).tolist() == [3] * 10
    assert np.array_equal(one.train.x, two.train.x)
    assert not np.array_equal(one.train.x, load("digits", limit=30, seed=1).train.x)
    assert np.array_equal(one.test.x, whole.test.x)
    rows = {row.tobytes() for row in whole.train.x}
    assert all(row.tobytes() in rows for row in one.train.x)


def test_a_registered_data_set_is_loaded_with_the_options(monkeypatch):
    monkeypatch.setattr(loading, "_REGISTERED", {})
    asked = []
    datasets.register("mine", lambda request: asked.append(request) or load("digits"), "my own")
    assert datasets.available()["mine"] == "my own"
    assert load("mine", "folder", targets="t", limit=20, seed=3).name == "digits"
    assert (asked[0].path("mine").name, asked[0].targets, asked[0].limit) == ("folder", ("t",), 20)


# -- the door --------------------------------------------------------------------------------------
def put_together(x, y, test=None, request=None, **options) -> Dataset:
    parts = [Raw(np.asarray(x), np.asarray(y), "file: x", "file: y")]
    if test is not None:
        parts += [Raw(np.asarray(test[0]), np.asarray(test[1]), "file: x_test", "file: y_test")]
    return assemble("name", parts, request or Request(), source="file", **options)


def test_regression_targets_are_standardized_on_the_training_split():
    x = np.arange(8.0).reshape(8, 1)
    y = np.stack([x[:, 0] * 3 + 1, np.full(8, 2.0)], axis=1)
    dataset = put_together(x, y, (x + 100, y + 100))
    assert dataset.target_names == ("y0", "y1")
    assert np.array_equal(dataset.train.y, y)
    assert dataset.y_scaling == Scaling(y.mean(axis=0), np.array([1 / y[:, 0].std(), 1.0]))
    assert dataset.x_scaling == Scaling(x.mean(axis=0), 1 / x.std(axis=0))
    assert put_together(x, y[:, 0], (x, y[:, 0])).train.y.shape == (8, 1)


def test_held_out_part_is_stratified_and_seeded():
    x = np.arange(100.0).reshape(100, 1)
    y = np.repeat([0, 1], [80, 20])
    one, two = (put_together(x, y, request=Request(seed=seed)) for seed in (0, 1))
    assert (len(one.train), np.bincount(one.test.y).tolist()) == (80, [16, 4])
    assert np.array_equal(np.sort(np.concatenate([one.train.x, one.test.x]), axis=0), x)
    assert not np.array_equal(one.test.x, two.test.x)
    few = put_together(x[:4], [0, 1, 2, 2], request=Request(test_fraction=0.9))
    assert (np.bincount(few.train.y).tolist(), few.test.y.tolist()) == ([1, 1, 1], [2])
    third = put_together(x, x[:, 0], request=Request(test_fraction=0.35))
    assert (len(third.train), len(third.test)) == (65, 35)


def test_images_stay_uint8_and_are_not_copied_and_other_dtypes_become_floats():
    x = np.random.default_rng(0).integers(0, 256, (6, 4, 5), dtype=np.uint8)
    x.setflags(write=False)
    dataset = put_together(x, [0, 1, 0, 1, 0, 1], (x, [0] * 6))
    assert dataset.shape == (4, 5, 1)
    assert np.shares_memory(dataset.train.x, x)
    flat = put_together(x.reshape(6, 20), [0, 1, 0, 1, 0, 1], (x.reshape(6, 20), [0] * 6))
    assert dataset.x_scaling == flat.x_scaling == Scaling(factor=1 / 255)
    for dtype, expected in (("?", "f4"), ("i2", "f4"), ("f2", "f4"), ("i4", "f8"), ("f8", "f8")):
        x = np.array([[0], [1]], dtype=dtype)
        dataset = put_together(x, [0, 1], (x, [0, 1]))
        assert dataset.train.x.dtype == expected
        assert np.array_equal(dataset.train.x, x)


X, Y = np.arange(6.0).reshape(6, 1), np.array([0, 1, 0, 1, 0, 1])


@pytest.mark.parametrize(
    ("x", "y", "test", "message"),
    [
        (X[:5], Y, None, "file: y: 6 labels or targets for 5 samples .file: x"),
        (X, Y[:, None] * [1, 1], None, r"shape \(6, 2\).*one-hot"),
        (X, Y * 0, None, r"file: y: one class only \(0\)"),
        (X, Y, (X[:1], [2]), "file: y_test: no class '2'; expected one of the classes '0', '1'"),
        (X[:0], Y[:0], None, "file: x: no samples"),
        (X, Y, (np.ones((6, 2)), Y), r"file: x_test: samples of shape \(2,\).*shape \(1,\)"),
        (np.ones((6, 0)), Y, None, "at least one value per sample"),
        (np.float64(1), Y, None, "expected images"),
        (X, np.float64(1), None, "a single value"),
        (X, Y, (X, Y.astype("M8[s]")), "file: y_test: dtype datetime64"),
        (X.astype(complex), Y, None, "dtype complex128; expected real numbers"),
        (np.where(X == 4, np.nan, X), Y, None, r"file: x: value \[4, 0\] is nan"),
        (np.where(X == 3, 1e31, X), Y, None, r"\[3, 0\] is 1e\+31.*magnitude up to 1e\+30"),
        (X, np.where(X == 4, np.nan, X), None, r"file: y: value \[4, 0\] is nan"),
        (X, X, (X, np.ones((6, 2))), r"file: y_test: targets of shape \(2,\).*\(1,\) .file: y"),
        (X, X[:, :, None], None, r"file: y: shape \(6, 1, 1\); expected \(n,\)"),
        (X * 1e-25, Y, (X * 1e25, Y), "file: x_test: value .* after scaling, too large"),
        (X[:2], Y[:2], None, "2 samples of 2 classes cannot be split.*at least 3.*regression"),
        (X, np.array([b"\xff", b"a"] * 3), None, "not valid text"),
        (X, np.array([2**64 - 1, 1] * 3, dtype=np.uint64), None, "18446744073709551615 of"),
    ],
)
def test_data_that_cannot_be_used(x, y, test, message):
    with pytest.raises(DataError, match=message):
        put_together(x, y, test)


def test_task_overrides_what_dtypes_say():
    regression = put_together(X, Y, (X, Y), Request(task="regression"))
    assert (regression.target_names, regression.train.y.dtype.kind) == (("y0",), "f")
    classify = Request(task="classification")
    assert put_together(X, Y + 0.0, (X, Y), classify).classes == ("0", "1")
    with pytest.raises(DataError, match=r"label 0\.5 of sample 0.*task='regression'"):
        put_together(X, Y + 0.5, (X, Y), classify)
    with pytest.raises(DataError, match="is nan; expected finite"):
        put_together(X, Y + np.nan, (X, Y), classify)
    with pytest.raises(DataError, match="text targets"):
        put_together(X, Y.astype(str), (X, Y), Request(task="regression"))


def test_classes_given_by_a_reader_must_occur():
    with pytest.raises(DataError, match="class 'c' has no training sample"):
        put_together(X, Y, (X, Y + 1), classes=("a", "b", "c"))
    with pytest.raises(DataError, match=r"one class only \(a\)"):
        put_together(X, Y * 0, classes=("a",))
    assert put_together(X, Y, (X, Y), classes=("a", "b")).classes == ("a", "b")


# -- means, scaling, splits ------------------------------------------------------------------------
def test_means_over_chunks_with_an_offset_and_without_a_copy():
    n, scaling = 8 * CHUNK_VALUES // 50, Scaling(7.0, 0.25)
    generator = np.random.default_rng(0)
    x = generator.integers(0, 256, (n, 5, 10, 1), dtype=np.uint8)
    split = Split(x, generator.integers(0, 3, n))
    both = lambda: (datasets.class_means(split, scaling, 3), datasets.feature_means(split, scaling))  # noqa: E731
    (means, mean), peak = traced(both)
    assert peak < 8 * x.size / 2  # a float64 copy would be 8 bytes a value
    scaled = (x.reshape(n, 50) - 7.0) * 0.25
    expected = [scaled[split.y == k].mean(axis=0) for k in range(3)]
    assert np.allclose(means, expected, rtol=1e-12)
    assert np.allclose(mean, scaled.mean(axis=0), rtol=1e-12)


def test_standardized_over_several_chunks_and_with_constants_and_undone():
    n = CHUNK_VALUES + 7
    x = np.stack([np.full(n, 0.1), 2000.0 + np.arange(n), np.full(n, 1e30)], axis=1)
    scaling = standardized(x)
    assert scaling.offset == pytest.approx([0.1, 2000 + (n - 1) / 2, 1e30])
    assert scaling.factor == pytest.approx([1.0, 1 / np.arange(n).std(), 1.0])
    scaled = scaling.apply(x, np.float64)
    assert np.all(scaled[:, [0, 2]] == 0.0)
    assert np.allclose(scaling.invert(scaled), x, rtol=1e-14)
    assert np.allclose(scaling.apply(x), scaled, atol=1e-6)  # no cancellation in float32
    out = np.empty(x.shape, dtype=np.float32)
    assert scaling.apply(x, out=out) is out
    assert np.array_equal(out, scaling.apply(x))
    for wrong in ({"factor": 0.0}, {"factor": np.nan}, {"offset": np.inf}):
        with pytest.raises(ArchitectureError, match="factor"):
            Scaling(**wrong)


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


def colours(n=60, dtype=np.uint8):
    generator = np.random.default_rng(4)
    x = generator.normal([60.0, 120.0, 180.0], [5.0, 20.0, 30.0], (n, 5, 4, 3))
    return np.clip(x, 0, 255).astype(dtype), np.arange(n) % 3


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_colours_are_standardized_by_channel_on_the_training_part(dtype):
    x, y = colours(dtype=dtype)
    dataset = put_together(x, y, (x[:9] // 2, y[:9]))
    assert dataset.x_scaling.offset == pytest.approx(x.mean(axis=(0, 1, 2), dtype=float))
    assert dataset.x_scaling.factor == pytest.approx(1 / x.std(axis=(0, 1, 2), dtype=float))
    low, high = (0.0, 255.0) if dtype == np.uint8 else (float(x.min()), float(x.max()))
    assert dataset.to_unit.apply(np.array([low, high]), float) == pytest.approx([0, 1], abs=1e-12)


def test_scaling_can_be_chosen():
    x, y = colours()
    unit = put_together(x, y, request=Request(scaling="unit"))
    assert unit.x_scaling == unit.to_unit == Scaling(factor=1 / 255)
    assert put_together(x[..., :1], y).x_scaling == Scaling(factor=1 / 255)  # grey, as ever
    grey = put_together(x[..., :1], y, request=Request(scaling="channel"))
    assert grey.x_scaling == standardized(grey.train.x, by_channel=True)
    assert grey.to_unit == Scaling(factor=1 / 255)
    table = put_together(X, Y, (X, Y), request=Request(scaling="unit"))
    assert table.x_scaling == Scaling(np.zeros(1), np.full(1, 1 / 5))
    with pytest.raises(ArchitectureError, match=r"'channel' is for images .*shape \(1,\)"):
        put_together(X, Y, (X, Y), request=Request(scaling="channel"))


# -- rows ------------------------------------------------------------------------------------------
DTYPES = ("u1", "<f4", ">f4", "<f8", ">f8", "<i2", ">i4", "?")


def counted(n, sample, dtype="u1", order="C"):
    size = n * int(np.prod(sample))
    return np.asarray((np.arange(size) % 251).reshape(n, *sample).astype(dtype), order=order)


@st.composite
def views(draw):
    """Rows of some kind, and the array that they must read as."""
    sample = draw(st.sampled_from([(4,), (2, 3, 1), (1,)]))
    parts, arrays = [], []
    for _ in range(draw(st.integers(1, 3))):
        order = draw(st.sampled_from("CF"))
        array = counted(draw(st.integers(1, 5)), sample, draw(st.sampled_from(DTYPES)), order)
        arrays.append(array.astype("f8"))
        parts.append(Rows([array], dtype="f8"))
    rows, whole = join(parts), np.concatenate(arrays)
    for _ in range(draw(st.integers(0, 2))):
        index = draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=9))
        rows, whole = choose(rows, np.array(index)), whole[index]
    return rows, whole


@given(views(), st.data())
def test_rows_read_like_the_array_they_stand_for(view, data):
    rows, whole = view
    for name in ("shape", "dtype", "ndim", "size"):
        assert getattr(rows, name) == getattr(whole, name)
    assert len(rows) == len(whole)
    assert np.array_equal(np.asarray(rows), whole)
    index = np.array(data.draw(st.lists(st.integers(0, len(whole) - 1), max_size=8)), dtype=int)
    assert np.array_equal(rows.take(index), whole[index])
    for shape in (whole[index].shape, (len(index), int(np.prod(whole.shape[1:])))):
        out = np.full(shape, np.nan)
        assert rows.take(index, out) is out
        assert np.array_equal(out.reshape(-1, *whole.shape[1:]), whole[index])
    start, stop = data.draw(st.integers(-9, 9)), data.draw(st.integers(-9, 9))
    for key in (slice(start, stop), slice(None, None, -2), index, index - len(whole),
                np.arange(len(whole)) % 2 == 0, -1, np.int64(0)):  # fmt: skip
        assert np.array_equal(rows[key], whole[key])
    for wrong in ([len(whole)], [-1], [0, 99]):
        with pytest.raises(IndexError, match=f"of {len(whole)}"):
            rows.take(np.array(wrong))
