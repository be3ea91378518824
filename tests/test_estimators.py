"""The scikit-learn estimators: its own checks, weights of samples, warm starts, the other way."""

from __future__ import annotations

import pickle
import warnings
from itertools import product

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csc_array, csr_matrix
from scipy.special import softmax
from sklearn.datasets import make_blobs, make_multilabel_classification
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from nembp import BidirectionalClassifier, BidirectionalRegressor, Noise

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

FAST = {"hidden_layer_sizes": (8,), "max_iter": 20, "random_state": 0, "learning_rate_init": 0.01}
X, Y = make_blobs(90, 4, centers=3, cluster_std=0.5, random_state=0)
X = X * [1.0, 100.0, 0.01, 1.0] + [0.0, 1e4, 0.0, 5.0]
NAMES = np.array(["ant", "bee", "cow"])[Y]
T = np.stack([X[:, 0] + 1e3, X[:, 3]], axis=1)


def classifier(**options):
    return BidirectionalClassifier(**{**FAST, **options})


def regressor(**options):
    return BidirectionalRegressor(**{**FAST, **options})


CHECKED = {"max_iter": 30, "learning_rate_init": 0.01}
ROUNDING = ("check_methods_subset_invariance", "check_sample_weight_equivalence")


@parametrize_with_checks([
    BidirectionalClassifier(dtype="auto", **CHECKED), BidirectionalRegressor(dtype="auto", **CHECKED),
    BidirectionalClassifier(**CHECKED),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_scikit_learns_checks_pass(estimator, check):
    if estimator.dtype == "float32" and check.func.__name__.startswith(ROUNDING):
        pytest.skip("compares to 1e-7, and parameters are float32")
    check(estimator)


def test_parameters_are_those_of_mlp():
    own = {"backward_weight", "noise", "layers", "image_shape", "standardize", "device", "dtype",
           "callbacks"}  # fmt: skip
    for ours, theirs, more in (
        (BidirectionalClassifier(), MLPClassifier(), own | {"class_weight"}),
        (BidirectionalRegressor(), MLPRegressor(), own),
    ):
        mine, peers = ours.get_params(), theirs.get_params()
        assert set(mine) - set(peers) == more
        assert set(peers) - set(mine) <= {"max_fun", "loss"}  # of lbfgs, and Poisson
        assert all(mine[name] == peers[name] for name in set(mine) & set(peers))


# -- weights of samples ----------------------------------------------------------------------------
@pytest.mark.parametrize("one_direction", [False, True])
@pytest.mark.parametrize("make", [classifier, regressor])
def test_weighted_fit_is_the_fit_of_copies(make, one_direction):
    y = NAMES if make is classifier else T
    copies = np.random.default_rng(0).integers(0, 3, len(X))
    options = {"dtype": "float64", "batch_size": 10_000, "max_iter": 5}
    options |= {"backward_weight": 0} if one_direction else {}
    with pytest.warns(UserWarning, match="clipped"):
        weighted = make(**options).fit(X, y, sample_weight=0.5 * copies)
    rows = np.repeat(np.arange(len(X)), copies)
    options["batch_size"] = len(rows)
    repeated = make(alpha=1e-4 / 0.5, **options).fit(X[rows], y[rows])
    np.testing.assert_allclose(weighted.loss_curve_, repeated.loss_curve_, rtol=1e-8)
    for one, other in zip(weighted.coefs_, repeated.coefs_, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9)


def test_class_weights_are_sample_weights():
    by_class = {"ant": 1.0, "bee": 5.0, "cow": 0.5}
    one = classifier(class_weight=by_class).fit(X, NAMES)
    other = classifier().fit(X, NAMES, sample_weight=[by_class[name] for name in NAMES])
    np.testing.assert_array_equal(one.predict_proba(X), other.predict_proba(X))


def test_samples_of_no_weight_are_left_out():
    rows = np.arange(len(X)) % 3 > 0
    layers = {"layers": "6bn,4", "early_stopping": True}
    without = classifier(**layers).fit(X[rows], NAMES[rows])
    zero = classifier(**layers).fit(X, NAMES, sample_weight=rows.astype(float))
    np.testing.assert_allclose(zero.predict_proba(X), without.predict_proba(X), atol=1e-5)


# -- training --------------------------------------------------------------------------------------
def test_coefficients_take_the_data_in_its_units():
    def output(model):
        hidden = np.maximum(X @ model.coefs_[0] + model.intercepts_[0], 0.0)
        return hidden @ model.coefs_[1] + model.intercepts_[1]

    model, numbers = classifier().fit(X, NAMES), regressor().fit(X, T)
    assert (model.out_activation_, numbers.out_activation_) == ("softmax", "identity")
    np.testing.assert_allclose(softmax(output(model), axis=1), model.predict_proba(X), atol=1e-5)
    np.testing.assert_allclose(output(numbers), numbers.predict(X), rtol=1e-3, atol=0.1)


@pytest.mark.parametrize("make", [classifier, regressor])
def test_epochs_one_by_one_are_the_epochs_of_fit(make):
    """With the samples in order, partial_fit and warm starts go on where the last one ended."""
    y = NAMES if make is classifier else T
    options = {"shuffle": False, "batch_size": 20, "tol": 0.0, "n_iter_no_change": 1000}
    whole = make(max_iter=6, **options).fit(X, y)
    first = {"classes": np.unique(NAMES)} if make is classifier else {}
    pieces = make(**options)
    for k in range(6):
        pieces.partial_fit(X, y, **(first if k == 0 else {}))
    again = make(max_iter=3, warm_start=True, **options).fit(X, y)
    again = pickle.loads(pickle.dumps(again)).fit(X, y)
    for other in (pieces, again):
        np.testing.assert_array_equal(other.predict(X), whole.predict(X))
        np.testing.assert_array_equal(other.loss_curve_, whole.loss_curve_)
        np.testing.assert_array_equal(other.predict_inputs(y), whole.predict_inputs(y))
    assert (whole.n_iter_, again.n_iter_, pieces.n_iter_) == (6, 3, 1)
    assert len(again.history_.epochs) == len(again.loss_curve_) == 6
    assert whole.t_ == pieces.t_ == 6 * len(X)


def test_the_classical_solvers_take_the_steps_of_mlp():
    """One step of plain, of Nesterov's momentum and of alpha, from the weights that MLP drew."""
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 3
    for momentum, nesterov in product((0.0, 0.9), (False, True)):
        options = {
            "hidden_layer_sizes": (5,), "activation": "tanh", "solver": "sgd", "alpha": 0.5,
            "learning_rate_init": 0.1, "momentum": momentum, "nesterovs_momentum": nesterov,
            "shuffle": False, "random_state": 0,
        }  # fmt: skip
        own = {"backward_weight": 0, "standardize": False, "dtype": "float64"}
        ours, peer = BidirectionalClassifier(**own, **options), MLPClassifier(**options)
        for model in (peer, ours):
            model.partial_fit(x, y, classes=[0, 1, 2])
            del model._optimizer  # start anew from here
        ours._optimizer = None
        for k in range(2):
            ours.network_.weights[k][...] = peer.coefs_[k]
            ours.network_.biases[k + 1][...] = peer.intercepts_[k]
        for model in (peer, ours) * 3:
            model.partial_fit(x, y)
        for one, other in zip(ours.coefs_, peer.coefs_, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10)
        np.testing.assert_allclose(ours.loss_curve_[1:], peer.loss_curve_[1:], rtol=5e-3)


def test_early_stopping_keeps_the_best_parameters():
    model = classifier(early_stopping=True, max_iter=60, n_iter_no_change=3).fit(X, NAMES)
    assert model.best_validation_score_ == max(model.validation_scores_)
    assert model.best_loss_ is None
    assert len(model.validation_scores_) == model.n_iter_ < 60
    best = model.coefs_[0]
    model.set_params(warm_start=True, early_stopping=False, max_iter=1).fit(X, NAMES)
    assert not np.array_equal(model.coefs_[0], best)  # it goes on, and does not fall back


def test_callbacks_noise_and_layers():
    rows = []
    image = {"layers": "conv4x3,pool2,8", "image_shape": (8, 8, 1), "activation": "tanh"}
    callbacks = [rows.append, lambda row: row["epoch"] == 2]
    model = classifier(noise=Noise("nem", std=0.1), callbacks=callbacks, **image)
    images = np.random.default_rng(0).integers(0, 256, (40, 64)).astype(np.uint8)
    model.fit(images, np.arange(40) % 2)
    assert len(rows) == model.n_iter_ == 2
    assert 0.0 < rows[0]["noise/forward/accepted"] <= 1.0
    assert [w.ndim for w in model.coefs_ if w.size] == [4, 2, 2]
    drawn = model.predict_inputs([0, 1])
    assert drawn.shape == (2, 64)
    assert 0 < drawn.mean() < 255
    with pytest.raises(ValueError, match=r"image_shape is \(8, 8, 3\), but X has 64"):
        model.set_params(image_shape=(8, 8, 3)).fit(images, np.arange(40) % 2)


SEVERAL = np.stack([Y > 0, Y > 1], axis=1).astype(int)
DATES = np.arange(90).astype("M8[D]")
REFUSED = [
    ({"solver": "lbfgs"}, {}, "Use 'adam' or 'sgd'"),
    ({"layers": "conv3"}, {}, "conv3"),
    ({"backward_weight": -1}, {}, "backward_weight"),
    ({"noise": {"sideways": Noise("nem")}}, {}, "sideways"),
    ({"hidden_layer_sizes": (3, 0)}, {}, "must be > 0"),
    ({"hidden_layer_sizes": (8.5,)}, {}, "Expected integers"),
    ({"hidden_layer_sizes": ((8,), 4)}, {}, "Expected integers"),
    ({"image_shape": ("a", 4, 1), "layers": "8"}, {}, "image_shape is"),
    ({"callbacks": print}, {}, "callbacks"),
    ({"callbacks": [3]}, {}, "callbacks must be functions"),
    ({}, {"sample_weight": np.zeros(len(X))}, r"sample_weight|non-zero"),
    ({"class_weight": {"ant": -1.0}}, {}, "sample_weight"),
    ({"class_weight": {"ant": np.nan}}, {}, "sample_weight"),
    ({}, {"X": DATES[:, None]}, "dates to seconds"),
    ({}, {"X": pd.DataFrame({"a": pd.Categorical(NAMES)})}, "not a number"),
    ({}, {"X": [[None], [1.0], [2.0]], "y": [0, 1, 0]}, r"X: value \[0, 0\] is nan"),
    (None, {"y": DATES}, "y holds datetime64"),
    (None, {"y": NAMES}, "y holds <U3, but numbers"),
    (None, {"y": [None] * len(X)}, "y contains NaN"),
]


@pytest.mark.parametrize(("options", "data", "message"), REFUSED)
def test_options_and_data_are_refused_with_a_remedy(options, data, message):
    model = regressor() if options is None else classifier(**options)
    with pytest.raises(ValueError, match=message):
        model.fit(**{"X": X, "y": NAMES, **data})


def test_what_a_fitted_model_is_asked_is_checked():
    model, numbers = classifier(warm_start=True).fit(X, NAMES), regressor().fit(X, T)
    one = classifier(warm_start=True).fit(X, Y > 0)
    both = classifier().partial_fit(X, SEVERAL, classes=[0, 1])
    balanced = classifier(class_weight="balanced")
    larger = classifier(warm_start=True).fit(X, NAMES).set_params(hidden_layer_sizes=(9,))
    for ask, message in (
        (lambda: model.predict(X * 1e200), "too large for float32"),
        (lambda: model.predict_inputs("ant"), "at least 1 dimension"),
        (lambda: model.predict_inputs([]), "0 sample"),
        (lambda: model.predict_inputs(["dog"]), "classes not in"),
        (lambda: numbers.predict_inputs([[np.nan, 1.0]]), "NaN"),
        (lambda: numbers.predict_inputs([1.0, 2.0]), "y has 1 outputs, but fit saw 2"),
        (lambda: larger.fit(X, NAMES), "call fit with warm_start=False"),
        (lambda: balanced.partial_fit(X, Y, classes=[0, 1, 2]), "needs all samples at once"),
        (lambda: one.fit(X, SEVERAL), "as of the first fit"),
        (lambda: both.partial_fit(X, Y > 0), "as of the first fit"),
        (lambda: both.partial_fit(X, np.eye(3, dtype=int)[Y]), "as of the first fit"),
        (lambda: both.predict_inputs([1, 0]), "as of the first fit"),
        (lambda: one.predict_inputs(np.eye(2)), "as of the first fit"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            ask()
    column = model.predict_inputs([["ant"], ["cow"]])
    np.testing.assert_array_equal(column, model.predict_inputs(["ant", "cow"]))


def test_a_first_batch_that_says_nothing_of_the_others_is_told():
    model = classifier().partial_fit(X * 1e-3, NAMES, classes=np.unique(NAMES))
    with pytest.warns(UserWarning, match="begin with samples of every kind"):
        model.partial_fit(X, NAMES)
    plain = classifier(standardize=False).partial_fit(X * 1e-3, NAMES, classes=np.unique(NAMES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain.partial_fit(X, NAMES)


def test_scikit_learns_callbacks_see_the_epochs():
    callbacks = pytest.importorskip("sklearn.callback")

    class Stop:
        begun, ended = 0, 0

        def setup(self, estimator, context): ...

        def teardown(self, estimator, context): ...

        def on_fit_task_begin(self, estimator, context):
            self.begun += 1

        def on_fit_task_end(self, estimator, context, *, X=None, fitted_estimator=None):
            self.ended += 1
            self.last = fitted_estimator
            return context.task_name == "epoch" and context.task_id == 4

    stop, monitor = Stop(), callbacks.ScoringMonitor(scoring="accuracy")
    model = classifier().set_callbacks(stop, monitor)
    table = pd.DataFrame(X, columns=list("abcd"))
    model.fit(table, NAMES, sample_weight=np.ones(len(X)))
    assert model.n_iter_ == 5
    assert stop.begun == stop.ended == 6  # the fit, and its epochs
    scores = [row["accuracy"] for row in monitor.get_logs().data if row["task_name"] == "epoch"]
    assert len(scores) == 5
    assert scores[-1] == model.score(table, NAMES) == stop.last.score(table, NAMES)


# -- the other direction ---------------------------------------------------------------------------
def test_prototypes_are_the_centroids_of_classes():
    model = classifier(backward_weight=1.0, max_iter=200, n_iter_no_change=200).fit(X, NAMES)
    means = np.stack([X[name == NAMES].mean(axis=0) for name in model.classes_])
    error = np.abs(model.class_prototypes_ - means) / X.std(axis=0)
    assert error.max() < 0.15
    np.testing.assert_array_equal(
        model.predict_inputs(["cow", "ant"]), model.class_prototypes_[[2, 0]]
    )


def test_inputs_of_numbers_and_of_several_labels():
    model = regressor(backward_weight=1.0, max_iter=200).fit(X, T)
    correlation = np.corrcoef(model.predict_inputs(T)[:, 0], X[:, 0])[0, 1]
    assert correlation > 0.9
    x, y = make_multilabel_classification(60, 6, n_classes=3, random_state=0)
    several = classifier(max_iter=100).fit(x, csr_matrix(y))
    assert several.predict_inputs(y).shape == x.shape
    assert several.class_prototypes_.shape == (3, 6)
    assert several.score(x, y) > 0.5
    np.testing.assert_allclose(several.predict_log_proba(x), np.log(several.predict_proba(x)))


def test_one_direction_alone_has_no_prototypes():
    model = classifier(backward_weight=0).fit(X, NAMES)
    assert "train/backward/nll" not in model.history_.epochs[0]
    assert not hasattr(model, "class_prototypes_")
    with pytest.raises(ValueError, match="backward_weight is 0"):
        model.predict_inputs(["ant"])


def test_the_columns_together_weigh_as_one_target():
    constant = np.hstack([X, np.ones((len(X), 1))])
    assert classifier().fit(constant, NAMES).backward_weight_ == pytest.approx(1 / X.shape[1])
    plain = classifier(standardize=False, early_stopping=False)
    weights = np.arange(len(X)) % 3
    plain.fit(3.0 * X, NAMES, weights)
    v = np.average((X - np.average(X, 0, weights)) ** 2, 0, weights).sum() * 9
    assert plain.backward_weight_ == pytest.approx(1 / v, rel=1e-5)
    assert plain.network_.reversed.likelihood.variance == 1 / plain.backward_weight_
    stream = classifier().partial_fit(X[:20], NAMES[:20], classes=np.unique(NAMES))
    first = stream.backward_weight_
    assert stream.partial_fit(X[20:], NAMES[20:]).backward_weight_ == first
    assert classifier(backward_weight=0.5).fit(X, NAMES).backward_weight_ == 0.5


# -- kinds of input --------------------------------------------------------------------------------
class Device(np.ndarray):
    """What a CuPy array shows."""

    __cuda_array_interface__ = None

    def get(self):
        return np.asarray(self)


def test_sparse_and_devices_arrays_are_read_alike():
    whole = classifier().fit(X, NAMES).predict(X)
    for x in (csr_matrix(X), csc_array(X), X.view(Device)):
        np.testing.assert_array_equal(classifier().fit(x, NAMES).predict(x), whole)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_names_of_columns_are_kept(library):
    frames = pytest.importorskip(library)
    table = frames.DataFrame({f"x{k}": X[:, k] for k in range(4)})
    model = classifier().fit(table, frames.Series(NAMES.tolist()))
    assert model.feature_names_in_.tolist() == ["x0", "x1", "x2", "x3"]
    np.testing.assert_array_equal(model.predict(table), classifier().fit(X, NAMES).predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(table[["x1", "x0", "x2", "x3"]])


def test_a_large_mean_is_subtracted_in_float64():
    moved = X + 1.7e9
    p, q = (classifier().fit(x, NAMES).predict_proba(x) for x in (X, moved))
    np.testing.assert_allclose(p, q, atol=1e-2)


# -- within scikit-learn ---------------------------------------------------------------------------
def test_weights_are_routed():
    import sklearn

    with sklearn.config_context(enable_metadata_routing=True):
        routed = classifier().set_fit_request(sample_weight=True)
        scaler = StandardScaler().set_fit_request(sample_weight=False)
        pipeline = make_pipeline(scaler, routed)
        weights = np.where(NAMES == "ant", 1.0, 0.01)
        fitted = pipeline.fit(X, NAMES, sample_weight=weights)[-1]
    direct = classifier().fit(StandardScaler().fit_transform(X), NAMES, sample_weight=weights)
    np.testing.assert_array_equal(fitted.coefs_[0], direct.coefs_[0])


def test_early_stopping_takes_a_rare_class_and_sparse_tables_are_read():
    rare = np.r_[3, Y[1:]]  # of one sample: there is no part of it to hold out
    table = pd.DataFrame.sparse.from_spmatrix(csr_matrix(X))
    fitted = classifier(early_stopping=True).fit(table, rare)
    assert fitted.predict_proba(X).shape == (90, 4)
