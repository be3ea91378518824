"""`BidirectionalClassifier` beside scikit-learn's `MLPClassifier`: the same folds and settings.

Fits of a fold are interleaved, with the same number of epochs and BLAS at one thread; differences
of accuracy are paired by fold. Noise is Gaussian, on standardized test inputs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np

from nembp.datasets import available, load
from nembp.datasets.sources import as_rows
from nembp.errors import ArchitectureError, DataError
from nembp.threads import threads

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
NOISE = 0.7  # standard deviations of the test inputs
EPOCHS, FOLDS = 60, 5
MOST = 5000  # samples of a data set from files


def sets() -> dict[str, Callable[[], Data]]:
    """Return what makes each data set of scikit-learn's own."""
    from sklearn import datasets

    options = {"n_informative": 20, "n_classes": 5, "class_sep": 1.0, "random_state": 0}
    return {
        "breast-cancer": partial(datasets.load_breast_cancer, return_X_y=True),
        "wine": partial(datasets.load_wine, return_X_y=True),
        "iris": partial(datasets.load_iris, return_X_y=True),
        "digits": partial(datasets.load_digits, return_X_y=True),
        "synthetic": partial(datasets.make_classification, 5000, 40, **options),
    }


def samples(entry: str) -> Data:
    """Return (X, y) of an entry: one of `sets`, or ``mnist:DIR``, ``csv:FILE`` and the like.

    ArchitectureError or DataError if there is none, or no classes in it.
    """
    name, colon, path = entry.partition(":")
    if name in sets() and not colon:
        return sets()[name]()
    if name not in available() or not path:
        names = ", ".join(sets())
        raise ArchitectureError(
            f"no data set {entry!r:.200}; expected one of {names}, or a kind of `nembp data list` "
            "and its path, as in mnist:DIR or csv:FILE"
        )
    data = load(name, path, limit=MOST)
    if not data.is_classification:
        raise DataError(
            f"{data.source}: has no classes, and the estimators compared are of classes"
        )
    X = as_rows(data.train.x).take(np.arange(len(data.train)))
    return X.reshape(len(X), -1).astype(np.float64), np.asarray(data.train.y)


def measure(
    case: Any, backend: object, repeats: int | None = None, budget: float = 0.0
) -> dict[str, Any]:
    """Return times, accuracies and their paired differences on the data set that the case names.

    ``repeats`` are splits into five folds, two by default; ``backend`` and ``budget`` are not used.
    """
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    from nembp.estimators import BidirectionalClassifier

    start, (X, y) = time.perf_counter(), samples(case.network)
    same: dict[str, Any] = {"max_iter": EPOCHS, "tol": 0.0, "n_iter_no_change": EPOCHS + 1}
    kinds = {"mlp": MLPClassifier, "ours": BidirectionalClassifier}
    results: dict[str, list[tuple[float, ...]]] = {"mlp": [], "ours": []}
    with threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the epochs end before convergence
        for seed in range(repeats or 2):
            folded = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y)
            for fold, (train, test) in enumerate(folded):
                scaler = StandardScaler().fit(X[train])
                x, held = scaler.transform(X[train]), scaler.transform(X[test])
                noise = np.random.default_rng([seed, fold]).normal(0.0, NOISE, held.shape)
                for name in ("mlp", "ours") if fold % 2 else ("ours", "mlp"):
                    model = kinds[name](random_state=FOLDS * seed + fold, **same)
                    before = time.perf_counter()
                    model.fit(x, y[train])
                    seconds = time.perf_counter() - before
                    scores = (model.score(each, y[test]) for each in (held, held + noise))
                    results[name].append((seconds, *scores))
    ours, mlp = (np.array(results[name]) for name in ("ours", "mlp"))
    row = {"samples": float(len(X)), "time_ratio": float(np.median(ours[:, 0] / mlp[:, 0]))}
    for k, kind in ((1, "accuracy"), (2, "noisy_accuracy")):
        difference = ours[:, k] - mlp[:, k]
        row |= {
            kind: float(ours[:, k].mean()),
            f"mlp_{kind}": float(mlp[:, k].mean()),
            f"{kind}_gain": float(difference.mean()),
            f"{kind}_gain_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
        }
    headline = (
        f"{row['time_ratio']:.2f} of MLPClassifier's time, accuracy {100 * row['accuracy']:.1f} % "
        f"({100 * row['accuracy_gain']:+.2f} ± {100 * row['accuracy_gain_error']:.2f}), noisy "
        f"{100 * row['noisy_accuracy']:.1f} % ({100 * row['noisy_accuracy_gain']:+.2f} ± "
        f"{100 * row['noisy_accuracy_gain_error']:.2f})"
    )
    own = {"kind": "estimator", "headline": headline, "seconds": time.perf_counter() - start}
    return {**asdict(case), **own, **row}
