"""The door for arrays: what is refused, what is scaled, and what comes back in the user's units."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits

import nembp
from nembp.arrays import check_inputs, check_targets
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
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


def test_labels_of_any_kind_come_back_as_they_were_named():
    X, y = blobs()
    history = nembp.train(net(), X.tolist(), y.tolist(), epochs=60, learning_rate=0.02)
    assert (history.model.predict_labels(X) == y).mean() > 0.95
    drawn = history.model.predict_inputs(["bee", "ant"])
    means = np.array([X[y == name].mean(axis=0) for name in ("bee", "ant")])
    np.testing.assert_allclose(drawn, means, atol=1.0)
    assert history.model.classes == ("ant", "bee")


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


def test_a_saved_model_answers_the_same(tmp_path):
    X, y = blobs()
    history = nembp.train(net(), X, y, epochs=2)
    nembp.save(tmp_path / "model.npz", history.model)
    again = nembp.load(tmp_path / "model.npz")
    np.testing.assert_array_equal(again.predict(X), history.model.predict(X))


def test_digits_as_images_of_eight_bits():
    digits = load_digits()
    images = (digits.images * 15.9).astype(np.uint8)[..., None]
    history = nembp.train(net((64, 32, 10)), images, digits.target, epochs=10, learning_rate=0.005)
    assert history.model.shape == (8, 8, 1)
    assert (history.model.predict_labels(images) == digits.target.astype(str)).mean() > 0.9
    assert history.model.predict_inputs(["7"]).shape == (1, 8, 8, 1)


X, Y = blobs()
REFUSED = {
    "one label too few": (X, Y[:-1], "X has 60 samples, but y has 59"),
    "one label too many": (X, [*Y, "ant"], "X has 60 samples, but y has 61"),
    "a gap": (np.where(X[3, 1] == X, np.nan, X), Y, "X holds nan in row 3, column 1"),
    "an infinity": (np.where(X[3, 1] == X, np.inf, X), Y, "X holds inf in row 3, column 1"),
    "no samples": (X[:0], Y[:0], "expected at least one sample"),
    "a single sample": (X[0], Y[:1], "one row per sample"),
    "too few columns": (X[:, :2], Y, "2 values in a sample, but the network has 3"),
    "text": (X.astype(str), Y, "X holds <U"),
    "ragged rows": ([[1, 2, 3], [1, 2]], ["ant", "bee"], "same number of values"),
    "three classes": (X, np.arange(60) % 3, "3 classes, but the network has 2 outputs"),
    "halves": (X, np.arange(60) % 2 + 0.5, "0.5, which is not a class"),
    "negative shares": (X, np.tile([1.5, -0.5], (60, 1)), "not probabilities"),
    "complex": (X * 1j, Y, "X holds complex128"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_a_remedy(case):
    x, y, message = REFUSED[case]
    with pytest.raises(NembpError, match=message.replace("(", r"\(")):
        nembp.train(net(), x, y)


def test_targets_outside_a_likelihoods_domain_are_refused():
    with pytest.raises(DataError, match="from -1 to 1, but a bernoulli likelihood"):
        check_targets([[1, -1]], Bernoulli(), 2, 1)
    with pytest.raises(DataError, match="holds text"):
        check_targets(["a", "b"], Gaussian(), 1, 2)
    with pytest.raises(ShapeError, match="2 columns, but the network has 3"):
        check_targets([[1.0, 2.0]], Gaussian(), 3, 1)
    assert check_targets([3.0, 1.0, 3.0], Multinomial(), 2, 3).classes == (1, 3)
    assert check_targets([[0, 1], [1, 0]], Multinomial(), 2, 2).y.tolist() == [1, 0]


def test_options_are_refused_before_an_epoch_is_spent():
    for options, message in (
        ({"validation": 1.5}, "between 0 and 1"),
        ({"validation": 0.2, "patience": 2, "monitor": "forward/acuracy"}, "monitor must be one"),
        ({"noise": "nem"}, "expected a dict"),
        ({"validation": (X, np.full(60, "cow"))}, "'cow' that y has not"),
    ):
        with pytest.raises((ArchitectureError, DataError), match=message):
            nembp.train(net(), X, Y, **options)


def test_accuracy_is_maximized():
    history = nembp.train(
        net(), X, Y, epochs=30, validation=0.3, monitor="forward/accuracy", patience=3
    )
    assert history["forward/accuracy"][history.best_epoch - 1] == max(history["forward/accuracy"])


def test_sparse_and_table_like_inputs_are_read():
    from scipy.sparse import csr_matrix

    class Table:
        def to_numpy(self):
            return X

    dense = check_inputs(X)
    np.testing.assert_array_equal(check_inputs(csr_matrix(X)), dense)
    np.testing.assert_array_equal(check_inputs(Table()), dense)


def test_one_target_row_is_not_spread_over_all_samples():
    network = net(forward="gaussian", dtype="float64")
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 1"):
        network.log_likelihood(X[:2], np.zeros((1, 2)))


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
