"""`BidirectionalClassifier` beside scikit-learn's `MLPClassifier`: the same folds and settings.

Fits of a fold are interleaved, with the same number of epochs and BLAS at one thread; differences
of accuracy are paired by fold. Noise is Gaussian, on standardized test inputs.
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict
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
SYNTHETIC = {"n_samples": 5000, "n_features": 40, "n_informative": 20, "n_classes": 5,
             "random_state": 0}  # fmt: skip
OWN: dict[str, tuple[str, dict[str, Any]]] = {  # of scikit-learn: what makes them, and its options
    **{name: (f"load_{name.replace('-', '_')}", {"return_X_y": True})
       for name in ("breast-cancer", "wine", "iris", "digits")},
    "synthetic": ("make_classification", SYNTHETIC),
}  # fmt: skip


def samples(entry: str) -> Data:
    """Return (X, y) of an entry: one of `OWN`, or ``mnist:DIR``, ``csv:FILE`` and the like.

    ArchitectureError or DataError if there is none, or no classes in it.
    """
    if entry in OWN:
        from sklearn import datasets

        make, options = OWN[entry]
        found: Data = getattr(datasets, make)(**options)
        return found
    name, _, path = entry.partition(":")
    if name not in available() or not path:
        raise ArchitectureError(
            f"no data set {entry!r:.200}; expected one of {', '.join(OWN)}, or a kind of `nembp "
            "data list` and its path, as in mnist:DIR or csv:FILE"
        )
    data = load(name, path, limit=MOST)
    if not data.is_classification:
        raise DataError(
            f"{data.source}: has no classes, and the estimators compared are of classes"
        )
    X = as_rows(data.train.x).take(np.arange(len(data.train)))
    return X.reshape(len(X), -1).astype(np.float64), np.asarray(data.train.y)


def measure(case: Any, _: object, repeats: int | None = None, **__: object) -> dict[str, Any]:
    """Return times, accuracies and their paired differences on the data set that the case names.

    ``repeats`` are splits into five folds, two by default.
    """
    from sklearn.model_selection import StratifiedKFold
    from sklearn.neural_network import MLPClassifier
    from sklearn.preprocessing import StandardScaler

    from nembp.estimators import BidirectionalClassifier

    start, (X, y) = time.perf_counter(), samples(case.network)
    same: dict[str, Any] = {"max_iter": EPOCHS, "tol": 0.0, "n_iter_no_change": EPOCHS + 1}
    results: dict[Any, list[tuple[float, ...]]] = {MLPClassifier: [], BidirectionalClassifier: []}
    with threads(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the epochs end before convergence
        for seed in range(repeats or 2):
            folded = StratifiedKFold(FOLDS, shuffle=True, random_state=seed).split(X, y)
            for fold, (train, test) in enumerate(folded):
                scaler = StandardScaler().fit(X[train])
                x, held = scaler.transform(X[train]), scaler.transform(X[test])
                noise = np.random.default_rng([seed, fold]).normal(0.0, NOISE, held.shape)
                for kind in list(results)[:: 1 if fold % 2 else -1]:
                    model = kind(random_state=FOLDS * seed + fold, **same)
                    before = time.perf_counter()
                    model.fit(x, y[train])
                    seconds = time.perf_counter() - before
                    scores = (model.score(each, y[test]) for each in (held, held + noise))
                    results[kind].append((seconds, *scores))
    mlp, ours = map(np.array, results.values())
    row = {"samples": float(len(X)), "time_ratio": float(np.median(ours[:, 0] / mlp[:, 0]))}
    words = f"{row['time_ratio']:.2f} of MLPClassifier's time"
    for k, kind in ((1, "accuracy"), (2, "noisy_accuracy")):
        difference = ours[:, k] - mlp[:, k]
        mean, gain = float(ours[:, k].mean()), float(difference.mean())
        error = float(difference.std(ddof=1) / len(difference) ** 0.5)
        row |= {kind: mean, f"mlp_{kind}": float(mlp[:, k].mean())}
        row |= {f"{kind}_gain": gain, f"{kind}_gain_error": error}
        words += f", {kind.replace('_', ' ')} {100 * mean:.1f} % ({100 * gain:+.2f} ± "
        words += f"{100 * error:.2f})"
    own = {"kind": "estimator", "headline": words, "seconds": time.perf_counter() - start}
    return {**asdict(case), **own, **row}
