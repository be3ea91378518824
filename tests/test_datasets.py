from __future__ import annotations

import subprocess
import sys
import types

import nembp.datasets.digits as digits_module
import numpy as np
import pytest

from nembp.datasets import (
    Dataset,
    Request,
    Scaling,
    available,
    load,
    loading,
    register,
)
from nembp.errors import ArchitectureError, DataError

DIGITS_TEST_LABELS = [5, 5, 1, 8, 5, 9, 0, 4, 9, 3, 2, 2]
DIGITS_TEST_SUM = 13842129


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
