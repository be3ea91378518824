"""`BidirectionalClassifier` beside scikit-learn's `MLPClassifier`: the same folds and settings.

Fits of a fold are interleaved, with the same number of epochs and BLAS at one thread; differences
of accuracy are paired by fold. Noise is Gaussian, on standardized test inputs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nembp.threads import threads

Data = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
NOISE = 0.7  # standard deviations of the test inputs


def sets(mnist: str | None = None) -> dict[str, Callable[[], Data]]:
    """Return what makes each data set; MNIST where its folder is given, 10,000 images of it."""
    from sklearn import datasets

    def synthetic() -> Data:
        options = {"n_informative": 20, "n_classes": 5, "class_sep": 1.0, "random_state": 0}
        X, y = datasets.make_classification(5000, 40, **options)
        return X, y

    found: dict[str, Callable[[], Data]] = {
        "breast-cancer": lambda: datasets.load_breast_cancer(return_X_y=True),
        "wine": lambda: datasets.load_wine(return_X_y=True),
        "iris": lambda: datasets.load_iris(return_X_y=True),
        "digits": lambda: datasets.load_digits(return_X_y=True),
        "synthetic": synthetic,
    }
    if mnist is not None:

        def images() -> Data:
            from nembp.datasets import load

            train = load("mnist", mnist).train
            x = np.asarray(train.x[:10_000], np.float64).reshape(10_000, -1) / 255
            return x, np.asarray(train.y[:10_000])

        found["mnist"] = images
    return found


def compare(
    data: Data, *, epochs: int = 100, folds: int = 5, seeds: Sequence[int] = (0, 1), **options: Any
) -> dict[str, float]:
    """Return times, accuracies and their paired differences on one data set.

    ``options`` are of the `BidirectionalClassifier`, such as ``backward_weight``.
    """
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    from nembp.estimators import BidirectionalClassifier

    X, y = data
    same: dict[str, Any] = {"max_iter": epochs, "tol": 0.0, "n_iter_no_change": epochs + 1}
    results: dict[str, list[tuple[float, float, float]]] = {"ours": [], "mlp": []}
    with threads(1):
        for seed in seeds:
            folded = StratifiedKFold(folds, shuffle=True, random_state=seed).split(X, y)
            for fold, (train, test) in enumerate(folded):
                scaler = StandardScaler().fit(X[train])
                x, held = scaler.transform(X[train]), scaler.transform(X[test])
                noise = np.random.default_rng([seed, fold]).normal(0.0, NOISE, held.shape)
                own = {"random_state": folds * seed + fold, **same}
                pair = [
                    ("mlp", MLPClassifier(**own)),
                    ("ours", BidirectionalClassifier(**own, **options)),
                ]
                for name, model in pair[:: 1 if fold % 2 else -1]:
                    start = time.perf_counter()
                    model.fit(x, y[train])
                    seconds = time.perf_counter() - start
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
    return row


def rows(mnist: str | None = None, **options: Any) -> Iterator[tuple[str, dict[str, float]]]:
    """Yield the name of each data set and its comparison."""
    import warnings

    for name, make in sets(mnist).items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the epochs end before convergence
            yield name, compare(make(), **options)


if __name__ == "__main__":
    import sys

    for name, row in rows(*sys.argv[1:2]):
        print(name, {key: round(value, 4) for key, value in row.items()}, flush=True)
