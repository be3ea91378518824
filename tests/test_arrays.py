"""The door for arrays: what is refused, what is scaled, and what comes back in the user's units."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix
from sklearn.datasets import load_diabetes, load_digits

import nembp
from nembp import Noise
from nembp.arrays import check_targets
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.optimizers import Adam
from nembp.errors import ArchitectureError, DataError, NembpError, ShapeError

RNG = np.random.default_rng(0)


def blobs(n=60, names=("ant", "bee")):
    y = np.arange(n) % len(names)
    X = RNG.normal(size=(n, 3)) + 4.0 * y[:, None]
    return X, np.array(names)[y]


def net(sizes=(3, 8, 2), **options):
    return nembp.dense_network(list(sizes), **options)


def test_import_is_instant_and_public_names_are_all_there():
    code = "import nembp, sys; print(sorted(m for m in sys.modules if m in ('numpy', 'sklearn')))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n"
    assert all(getattr(nembp, name) is not None for name in nembp.__all__)
    with pytest.raises(AttributeError, match="no attribute 'sing'"):
        nembp.sing  # noqa: B018


def test_a_column_with_a_large_mean_is_as_good_as_any():
    X, y = blobs()
    moved = X + np.array([1.7e9, 0.0, 0.0])  # a time in seconds
    plain, shifted = (nembp.train(net(), each, y, epochs=5) for each in (X, moved))
    np.testing.assert_allclose(
        shifted["train/forward/nll"], plain["train/forward/nll"], rtol=1e-3, atol=1e-4
    )
    np.testing.assert_allclose(
        shifted.model.predict(moved), plain.model.predict(X), rtol=1e-2, atol=1e-3
    )


def test_numbers_are_standardized_and_come_back_in_their_units():
    X, y = load_diabetes(return_X_y=True)
    y = y + 10_000.0
    regression = net((10, 16, 1), forward="gaussian")
    history = nembp.train(
        regression, X, y, epochs=20, learning_rate=0.01, validation=0.2, patience=5
    )
    predicted = history.model.predict(X)[:, 0]
    assert np.corrcoef(predicted, y)[0, 1] > 0.6
    assert abs(predicted.mean() - y.mean()) < 20
    assert 0.2 < max(history["forward/r2"]) < 1.0


def test_the_backward_direction_alone_leaves_the_forward_biases():
    X, y = blobs()
    network = net()
    before = [None if b is None else b.copy() for b in network.biases]
    history = nembp.train(network, X, y, backward="only", epochs=60, learning_rate=0.02)
    for b, old in zip(network.biases, before, strict=True):
        assert b is None or np.array_equal(b, old)
    assert "train/backward/nll" in history.epochs[0]
    assert not any("forward" in key for key in history.epochs[0])
    drawn = history.model.predict_inputs(["ant", "bee"])
    np.testing.assert_allclose(drawn[1] - drawn[0], 4.0, atol=1.5)


def test_digits_as_images_of_eight_bits():
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)[..., None]
    history = nembp.train(net((64, 32, 10)), images, digits.target, epochs=10, learning_rate=0.005)
    assert history.model.shape == (8, 8, 1)
    assert (history.model.predict_labels(images) == digits.target.astype(str)).mean() > 0.9
    assert history.model.predict_inputs(["7"]).shape == (1, 8, 8, 1)


X, Y = blobs()
GAP = [None, *Y[1:]]
HOT = np.eye(2)[(Y == "bee").astype(int)]
NEM = Noise("nem", std=0.1)
REFUSED = {
    "one label too few": (X, Y[:-1], "X has 60 samples, but y has 59"),
    "one label too many": (X, [*Y, "ant"], "X has 60 samples, but y has 61"),
    "a gap": (np.where(X[3, 1] == X, np.nan, X), Y, r"X: value \[3, 1\] is nan"),
    "an infinity": (np.where(X[3, 1] == X, np.inf, X), Y, r"X: value \[3, 1\] is inf"),
    "a column of gaps": (pd.DataFrame(X[:, :2]).assign(c=pd.array([pd.NA] * 60)), Y, "is nan; exp"),
    "a gap that is masked": (np.ma.masked_less(X, 0.0), Y, "X has masked values"),
    "no samples": (X[:0], Y[:0], "expected at least one sample"),
    "a single sample": (X[0], Y[:1], "one row per sample"),
    "too few columns": (X[:, :2], Y, "2 values in a sample, but the network has 3"),
    "text": (X.astype(str), Y, "X holds <U"),
    "a column of text": (pd.DataFrame(X[:, :2]).assign(c=Y), Y, "'ant'.*; encode text columns"),
    "dates": (X.astype("datetime64[s]"), Y, "X holds datetime64"),
    "one name twice": (pd.DataFrame(X, columns=list("aba")), Y, "two columns are called 'a'"),
    "huge": (X * 1e200, Y, "magnitude up to 1e.*Rescale"),
    "ragged rows": ([[1, 2, 3], [1, 2]], ["ant", "bee"], "same number of values"),
    "a generator": ((row for row in X), Y, "X is one generator"),
    "a name of a file": ("data.csv", Y, "X is one str"),
    "nothing": (X, None, "y is one NoneType"),
    "three classes": (X, np.arange(60) % 3, "3 classes, but the network has 2 outputs"),
    "halves": (X, np.arange(60) % 2 + 0.5, "0.5, which is not a class"),
    "negative shares": (X, np.tile([1.5, -0.5], (60, 1)), "from -0.5 to 1.5, but a multinomial"),
    "shares of more than 1": (X, np.tile([1.5, 0.5], (60, 1)), "not probabilities"),
    "complex": (X * 1j, Y, "X holds complex128"),
    "a missing label": (X, GAP, "y has no value in row 0"),
    "a missing label of a table": (X, pd.Series(GAP, dtype="string"), "y has no value in row 0"),
    "a missing label that is NaN": (X, np.array([np.nan, *Y[1:]], object), "y has no value in row"),
}


@pytest.mark.parametrize("dtype", ["float16", "float32", "longdouble"])
def test_floats_of_every_width_and_unit_are_read(dtype):
    expected = nembp.train(net(), X, Y, epochs=1).model.predict(X)
    model = nembp.train(net(), X.astype(dtype), Y, epochs=1).model
    assert np.allclose(model.predict(X), expected, atol=1e-2)
    model = nembp.train(net(), X * 1e40, Y, epochs=1).model  # kilograms of stars, say
    assert np.allclose(model.predict(X * 1e40), expected)
    with pytest.raises(DataError, match=r"X: value \[0, 0\] is inf"):
        nembp.train(net(), np.full((60, 3), np.inf, dtype), Y)


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_a_remedy(case):
    x, y, message = REFUSED[case]
    with pytest.raises(NembpError, match=message.replace("(", r"\(")):
        nembp.train(net(), x, y)


def test_values_outside_a_likelihoods_domain_are_refused():
    with pytest.raises(DataError, match="from 0 to 2, but a bernoulli likelihood"):
        check_targets([[2, 0]], Bernoulli(), 2, 1)
    with pytest.raises(DataError, match="holds text"):
        check_targets(["a", "b"], Gaussian(), 1, 2)
    with pytest.raises(ShapeError, match="2 columns, but the network has 3"):
        check_targets([[1.0, 2.0]], Gaussian(), 3, 1)
    for backward in ("bernoulli", "bipolar", "multinomial"):
        with pytest.raises(DataError, match=f"X runs from .* but a {backward} likelihood"):
            nembp.train(net(backward=backward), X, Y, scale=False)


def test_unscaled_columns_far_from_0_are_told():
    with pytest.warns(UserWarning, match="cancel in float32"):
        nembp.train(net(), X + 1e5, Y, scale=False, epochs=1, learning_rate=1e-6)
    nembp.train(net(dtype="float64"), X + 1e5, Y, scale=False, epochs=1, learning_rate=1e-6)


def test_labels_are_read_in_every_form():
    for likelihood, y, classes, read in (
        (Multinomial(), [3.0, 1.0, 3.0], (1, 3), [1, 0, 1]),
        (Multinomial(), [[0, 1], [1, 0]], (0, 1), [1, 0]),
        (Multinomial(), [[0.5, 0.5], [1, 0]], (0, 1), [[0.5, 0.5], [1, 0]]),
        (Multinomial(), csr_matrix([[0, 1], [1, 0]]), (0, 1), [1, 0]),
        (Multinomial(), np.array([b"b", b"a"]), ("a", "b"), [1, 0]),
        (Multinomial(), pd.Series(["b", "a"], dtype="category"), ("a", "b"), [1, 0]),
        (Multinomial(), pl.Series(["b", "a"]), ("a", "b"), [1, 0]),
        (Multinomial(), [True, False], (False, True), [1, 0]),
        (Bernoulli(), [[True, False]], (), [[1.0, 0.0]]),
    ):
        found, names = check_targets(y, likelihood, 2, np.shape(y)[0])
        assert (names, found.tolist()) == (classes, read)


def test_validation_has_the_labels_of_training():
    for y, pair in (
        (Y, (X, HOT)),
        (Y, [X[1::2], Y[1::2]]),
        (HOT, (X, HOT[:, 1])),
        (HOT * 0.5 + 0.25, (X[1::2], [1] * 30)),
        (HOT, (X[:1], HOT[:1])),
    ):
        history = nembp.train(net(), X, y, epochs=40, learning_rate=0.05, validation=pair)
        assert history["forward/accuracy"][-1] > 0.9


def test_options_are_refused_before_an_epoch_is_spent():
    stops = {"validation": 0.2, "patience": 2}
    for options, message in (
        ({"validation": 1.5}, "between 0 and 1"),
        ({"validation": X}, "between 0 and 1, or"),
        ({"validation": "0.2"}, "between 0 and 1, or"),
        ({"validation": (X, Y, Y)}, "got 3 values"),
        ({"validation": (X, np.full(60, "cow"))}, "'cow' that y has not"),
        ({"validation": (X * 1e200, Y)}, "validation's X: value"),
        (stops | {"monitor": "forward/acuracy"}, "monitor must be one"),
        ({"validation": 0.2, "monitor": "forward/accuracy"}, "takes both validation"),
        ({"patience": 2}, "takes both validation"),
        (stops | {"patience": 0}, "patience must be at least 1"),
        (stops | {"patience": "2"}, "patience must be a whole number"),
        ({"noise": "nem"}, "expected a dict"),
        ({"noise": {"backward": NEM}, "backward": False}, "would do nothing"),
        ({"noise": {"forward/hidden": NEM}, "backward": "only"}, "would do nothing"),
        ({"backward": "both"}, 'True, False or "only"'),
        ({"scale": "standard"}, "scale must be True or False"),
        ({"callbacks": print}, "a list of functions"),
        ({"callbacks": [3]}, "a list of functions"),
        ({"optimizer": Adam(), "learning_rate": 0.1}, "has its own learning rate"),
        ({"learning_rate": "0.1"}, "learning rate must be positive"),
        ({"sample_weight": np.ones(59)}, "one for each of 60"),
        ({"sample_weight": -np.ones(60)}, "at least 0"),
        ({"sample_weight": np.zeros(60)}, "not all of it 0"),
        ({"sample_weight": np.full(60, np.nan)}, "sample_weight: value .* is nan"),
    ):
        with pytest.raises((ArchitectureError, DataError, ShapeError), match=message):
            nembp.train(net(), X, Y, **({"callbacks": [pytest.fail]} | options))
    for wrong in (None, [3, 8, 2], net().reversed):
        with pytest.raises(ArchitectureError, match="forward direction of a network"):
            nembp.train(wrong, X, Y)


@pytest.mark.parametrize("backward", ["gaussian", "bernoulli"])
@pytest.mark.parametrize("targets", ["labels", "numbers"])
def test_a_weight_is_a_number_of_copies(backward, targets):
    copies = RNG.integers(0, 4, 60)
    y = Y if targets == "labels" else X @ [[1.0], [2.0], [3.0]] + 100.0
    made = {"forward": "multinomial"} if targets == "labels" else {"forward": "gaussian"}
    sizes = (3, 8, 2) if targets == "labels" else (3, 8, 1)
    trained = []
    for x, t, weight in (
        (X, y, 0.5 * copies),
        (X.repeat(copies, axis=0), y.repeat(copies, axis=0), None),
    ):
        history = nembp.train(
            net(sizes, backward=backward, dtype="float64", **made), x, t, sample_weight=weight,
            epochs=5, batch_size=1000, optimizer="sgd", learning_rate=0.1,
        )  # fmt: skip
        scores = [history["train/forward/nll"], history["train/backward/nll"]]
        model = history.model
        back = model.predict_inputs(["ant", "bee"] if targets == "labels" else [100.0, 120.0])
        means = 0.0 if model.centroids is None else model.centroids
        trained.append((scores, model.predict(X), back, means))
    for weighted, repeated in zip(*trained, strict=True):
        np.testing.assert_allclose(weighted, repeated, rtol=1e-8, atol=1e-10)


def test_classes_without_samples_are_no_obstacle():
    history = nembp.train(net((3, 8, 3)), X, np.c_[HOT, np.zeros(60)], epochs=1)
    assert history.model.centroids is None
    rare = np.where(np.arange(60) == 0, "cow", Y)
    history = nembp.train(net((3, 8, 3)), X, rare, epochs=1, validation=0.9)
    assert history.model.classes == ("ant", "bee", "cow")
    assert history.model.centroids is not None  # each class is among the samples of training


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_indicators_are_no_pixels(kind):
    """Columns of 0 and 1 are standardized; as 8-bit pixels they would be 1/255."""
    x = np.c_[X > 2.0, np.arange(60) % 3 == 0]
    plain = nembp.train(net((4, 8, 2)), x.astype(float), Y, epochs=3)
    eight = nembp.train(net((4, 8, 2)), x.astype(kind), Y, epochs=3)
    np.testing.assert_allclose(eight.model.predict(x), plain.model.predict(x), rtol=1e-4)


@pytest.mark.parametrize("table", [pd.DataFrame, pl.DataFrame])
def test_columns_of_a_table_may_come_in_any_order(table, tmp_path):
    named = table({name: X[:, k] for k, name in enumerate("abc")})
    turned = named[["c", "a", "b"]]
    history = nembp.train(net(), named, Y, epochs=20, learning_rate=0.02, validation=(turned, Y))
    assert history["forward/accuracy"][-1] > 0.9
    nembp.save(tmp_path / "m.npz", history)
    model = nembp.load(tmp_path / "m.npz")
    np.testing.assert_array_equal(model.predict(turned), model.predict(X))
    text = table({"d": Y} | {name: X[:, k] for k, name in enumerate("abc")})
    np.testing.assert_array_equal(model.predict(text), model.predict(X))  # d is left out
    with pytest.raises(DataError, match="no column 'a'"):
        model.predict(named[["b", "c"]])
    fitted = nembp.BidirectionalClassifier().partial_fit(named, Y, classes=["ant", "bee"])
    model = fitted.to_model()
    np.testing.assert_array_equal(model.predict(turned), model.predict(named))


def test_a_model_checks_what_it_is_asked(tmp_path):
    history = nembp.train(net(), X, Y, epochs=1)
    model = history.model
    numbered = nembp.train(net(), X, (Y == "bee") + 3.0, epochs=1).model
    np.testing.assert_array_equal(numbered.predict_inputs([3.0]), numbered.predict_inputs(["3"]))
    two = nembp.train(net(forward="gaussian"), X, X[:, :2], epochs=1).model
    for kind in (csr_matrix, pd.DataFrame, pl.DataFrame, list):
        np.testing.assert_array_equal(model.predict(kind(X)), model.predict(X))
    for ask, message in (
        (lambda: model.predict(X[:, :2]), "2 values in a sample"),
        (lambda: model.predict(X[0]), "one row per sample"),
        (lambda: model.predict(X * np.nan), "X: value .* is nan"),
        (lambda: model.predict(X * 1e200), "magnitude up to 1e"),
        (lambda: model.predict(X[:0]), "at least one sample"),
        (lambda: model.predict_inputs("ant"), "y is one str"),
        (lambda: model.predict_inputs([]), "at least one sample"),
        (lambda: model.predict_inputs(["dog"]), "no class 'dog'"),
        (lambda: two.predict_inputs([[1.0]]), "y has 1 columns; expected 2"),
        (lambda: two.predict_inputs([[1e200, 1.0]]), "magnitude up to 1e"),
        (lambda: nembp.train(net(), X, (Y == "bee") * 1e300), "is 1e\\+300; expected finite"),
        (lambda: nembp.save(tmp_path / "m.npz", net()), "is not a Model"),
        (lambda: nembp.save(model, tmp_path / "m.npz"), "is not a Model"),
    ):
        with pytest.raises((ShapeError, DataError, ArchitectureError), match=message):
            ask()
    nembp.save(tmp_path / "m.npz", history)
    np.testing.assert_array_equal(nembp.load(tmp_path / "m.npz").predict(X), model.predict(X))


def test_accuracy_is_maximized():
    history = nembp.train(
        net(), X, Y, epochs=30, validation=0.3, monitor="forward/accuracy", patience=3
    )
    assert history["forward/accuracy"][history.best_epoch - 1] == max(history["forward/accuracy"])


def test_the_authors_permutation_is_learned_both_ways():
    """Adigun and Kosko's own example: four bits in another order, one hidden layer, no biases."""
    x = np.array(np.meshgrid(*[[-1, 1]] * 4, indexing="ij")).reshape(4, -1).T
    y = x[[12, 14, 15, 13, 9, 5, 8, 4, 11, 7, 10, 6, 2, 0, 1, 3]]
    solved = 0
    for seed in range(3):  # five of six seeds do
        bits = nembp.dense_network(
            [4, 5, 4], activation="logistic", forward="bipolar", backward="bipolar", bias=False,
            initial=1.0, dtype="float64", seed=seed,
        )  # fmt: skip
        nembp.train(
            bits, x, y, epochs=3000, batch_size=16, optimizer="sgd", learning_rate=0.5,
            schedule="constant", scale=False,
        )  # fmt: skip
        there, back = np.sign(bits.predict(x)), np.sign(bits.reversed.predict(y))
        solved += np.array_equal(there, y) and np.array_equal(back, x)
    assert solved
