"""Scores of generated samples: modes of a known mixture, and scores by a classifier's outputs.

========================= ============================================== ===========================
score                     formula                                        range
========================= ============================================== ===========================
inception score           exp E KL(p(y|x) ‖ p(y))                        1 to K; more is better
Fréchet distance          ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½)         ≥ 0; less is better
precision, recall         shares within the other set's manifold         0 to 1; more is better
========================= ============================================== ===========================

Modes and high quality are those of Srivastava et al. 2017 (VEEGAN), section 4.1, and of the code of
Lin et al. 2018 (PacGAN): a sample counts for the mode whose centre is nearest, and only within
three standard deviations of it.

Samples without known modes are scored by a classifier that nembp trained on the real data. It takes
the place of the Inception network of Salimans et al. 2016, which was trained on photographs and
knows nothing of digits. It is trained once for a data set, kept in a file, and its accuracy on the
test split stands in every score.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.adversarial.data import CHANNELS, MixtureData, StackedData
from nembp.architecture import network
from nembp.backend import stream
from nembp.checkpoints import Model, content_hash, environment, load_model, save_model
from nembp.datasets import Dataset, Scaling, Split
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.datasets.scaling import chunks, standardized
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.engine.optimizers import Adam
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, DataError, DivergenceError, OutputError, ShapeError

Floats: TypeAlias = NDArray[np.float64]
Blocks: TypeAlias = Iterable[NDArray[Any]]  # of raw samples
Note = Callable[[str], None]
Scores = dict[str, float]
Recipe = dict[str, Any]

REACH = 3.0  # standard deviations within which a sample counts for a mode
STRICT = 0.25  # of a uniform share
NEIGHBOURS = 3  # k of precision and recall, as in the publication
MEBIBYTES = 16  # of distances held at a time
SLACK = 1e-12  # of the largest square: rounding of a product may not put a point out of its ball
BLOCK = 512  # samples classified at a time
REFERENCE = 10_000  # real samples that generated ones are compared with
MANIFOLD = 5_000  # of them and of the generated ones whose neighbours are searched
SEED: Final = 0  # of the classifier and of the choice of real samples: the same for all runs
VERSION = 1  # of the recipes: a change makes new files
FEW: Final = 10_000  # training samples below which they are seen more often
FEW_SEEN: Final = 60_000  # samples in all
FLIPPED: Final = ("cifar10", "cifar100")  # whose mirror images are of the same class
UNITS: Final = {
    "modes": "modes with a sample within 3 standard deviations (Srivastava et al. 2017); of "
    "stacked digits, triples that occur (Metz et al. 2017)",
    "modes_strict": "modes with a quarter of a uniform share of the samples",
    "high_quality": "share of samples within 3 standard deviations of a mode",
    "kl": "nats of the modes' histogram from the uniform one (Lin et al. 2018)",
    "classes": "classes that the classifier finds among the samples",
    "classes_strict": "classes with a quarter of a uniform share of the samples",
    "class_kl": "nats of the classes' histogram from the uniform one",
    "inception_score": "exp E KL(p(y|x) || p(y)) by the classifier, 1 to the number of classes "
    "(Salimans et al. 2016)",
    "frechet_distance": "squared units of the classifier's last hidden layer; compare equal "
    "numbers of samples (Heusel et al. 2017)",
    "precision": "share of samples within the real ones' manifold, 3 nearest neighbours in the "
    "classifier's last hidden layer (Kynkäänniemi et al. 2019)",
    "recall": "share of real samples within the generated ones' manifold, as precision",
    "judge_accuracy": "share of the real test samples that the classifier gets right",
}


# -- histograms and modes --------------------------------------------------------------------------
def kl_from_uniform(counts: ArrayLike) -> float:
    """Σ p log(p K), the nats of a histogram from the uniform one, p = counts / Σ counts.

    From 0 (all alike) to log K (all in one, or nothing to count). n samples of the uniform
    distribution itself give about (K − 1) / 2n.
    """
    n = np.asarray(counts, np.float64)
    if not n.any():
        return math.log(len(n))
    p = n[n > 0] / n.sum()
    return max(0.0, float(p @ np.log(p * len(n))))  # rounding must not make it negative


def coverage(counts: ArrayLike, samples: int) -> tuple[float, float]:
    """Count the K modes that have a sample, and those that have a quarter of their share of n.

    >>> coverage([97, 2, 1, 0], 100), coverage([70, 20, 7, 3], 100)
    ((3.0, 1.0), (4.0, 3.0))
    """
    n = np.asarray(counts)
    enough = np.maximum(1.0, STRICT * samples / len(n))
    return float(np.count_nonzero(n)), float(np.count_nonzero(n >= enough))


def near_modes(samples: ArrayLike, centres: Floats, std: float) -> NDArray[np.int64]:
    """Return how many samples lie within 3σ of each centre (K, d) and nearest to it, shape (K,)."""
    from scipy.spatial import KDTree

    distance, mode = KDTree(centres).query(samples)
    return np.bincount(mode[distance <= REACH * std], minlength=len(centres))


# -- by probabilities and features -----------------------------------------------------------------
def inception_score(probabilities: ArrayLike) -> float:
    """Exp E KL(p(y|x) ‖ p(y)), with p(y) = E p(y|x), of rows (n, K) (Salimans et al. 2016).

    From 1 (every sample classified alike, or none with confidence) to K (each with certainty, all
    classes equally often). The mean over ten pieces, which others report, is a little lower.
    """
    from scipy.special import entr  # −p log p, 0 at 0

    p = np.asarray(probabilities, np.float64)
    p = p / p.sum(axis=1, keepdims=True)
    kl = entr(p.mean(axis=0)).sum() - entr(p).sum(axis=1).mean()
    return float(np.exp(max(0.0, kl)))


def frechet_distance(features1: ArrayLike, features2: ArrayLike) -> float:
    """‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^½), of the means and covariances of rows (n, d).

    The squared 2-Wasserstein distance of two Gaussians (Dowson and Landau 1982; Heusel et al.
    2017), larger for few samples. With Σᵢ = RᵢRᵢᵀ by symmetric eigen-decompositions, tr (Σ₁Σ₂)^½
    is the sum of the singular values of R₁ᵀR₂, also where a covariance is singular.
    """
    means, roots, spread = [], [], 0.0
    for features in (features1, features2):
        x = np.asarray(features, np.float64)
        cov = np.atleast_2d(np.cov(x, rowvar=False))
        values, vectors = np.linalg.eigh((cov + cov.T) / 2)
        means.append(x.mean(axis=0))
        roots.append(vectors * np.sqrt(np.maximum(values, 0.0)))
        spread += np.trace(cov)
    overlap = np.linalg.svd(roots[0].T @ roots[1], compute_uv=False).sum()
    return max(0.0, float(np.square(means[0] - means[1]).sum() + (spread - 2.0 * overlap)))


def precision_recall(
    real: ArrayLike, generated: ArrayLike, k: int = NEIGHBOURS
) -> tuple[float, float]:
    """Shares of generated points among the real ones, and of real among the generated ones.

    A set's manifold is the union of balls about its points, each as wide as the distance to that
    point's k-th nearest neighbour in the set (Kynkäänniemi et al. 2019). More points make wider
    manifolds, so as many of both, (n, d), are compared.
    """
    a, b = np.asarray(real, np.float64), np.asarray(generated, np.float64)
    if min(len(a), len(b)) <= k:
        raise ShapeError(f"{len(a)} and {len(b)} samples; expected more than {k} of both")
    centre = a.mean(axis=0)  # products of centred points lose fewer digits
    a, b = a - centre, b - centre
    return _share(b, a, k), _share(a, b, k)


def _share(points: Floats, centres: Floats, k: int) -> float:
    """Share of points that lie in a ball about a centre, all distances squared."""
    from sklearn.metrics import pairwise_distances_chunked

    options: Any = {"metric": "euclidean", "squared": True, "working_memory": MEBIBYTES}
    own = pairwise_distances_chunked(centres, **options)  # a point's own is 0, and the least
    radii = np.concatenate([np.partition(square, k, axis=1)[:, k] for square in own])
    largest = max(np.square(points).sum(axis=1).max(), np.square(centres).sum(axis=1).max())
    reach, apart = radii + SLACK * largest, pairwise_distances_chunked(points, centres, **options)
    return float(sum((square <= reach).any(axis=1).sum() for square in apart) / len(points))


def average_scores(rows: Sequence[Mapping[str, float]], last: int = 5) -> Scores:
    """Mean of each score over the ``last`` rows that hold it: one checkpoint says little of a GAN.

    >>> average_scores([{"modes": 1}, {"modes": 7, "kl": 0.5}, {}, {"modes": 8}], last=2)
    {'modes': 7.5, 'kl': 0.5}
    """
    held: dict[str, list[float]] = {}
    for row in rows:
        for key, value in row.items():
            held.setdefault(key, []).append(float(value))
    return {key: float(np.mean(values[-last:])) for key, values in held.items()}


# -- the classifier --------------------------------------------------------------------------------
class Classifier:
    """A trained classifier, and its file if it has one; ``accuracy`` is on the test split."""

    def __init__(self, model: Model, path: Path | None = None) -> None:
        net = model.net
        self.model, self.path = model, path
        self.accuracy = float(model.settings["accuracy"])
        # the same pass up to the last hidden layer
        kind: Any = {"device": net.backend, "dtype": net.dtype, "seed": None}
        body = self._body = Network(net.layers[:-1], net.maps[:-1], "gaussian", **kind)
        whole = *net.weights[:-1], *net.biases[1:-1]
        for own, each in zip((*body.weights, *body.biases[1:]), whole, strict=True):
            if own is not None:
                own[...] = each

    def look(self, blocks: Blocks) -> tuple[NDArray[np.float32], Floats]:
        """Return the last hidden activations (n, d) and p(y|x) (n, K) of blocks of raw samples."""
        net, features, probabilities = self.model.net, [], []
        for block in blocks:
            x = self.model.x_scaling.apply(block, np.float32).reshape(len(block), -1)
            features.append(self._body.predict(x))
            z = features[-1] @ net.weights[-1] + net.biases[-1]
            probabilities.append(net.likelihood.at(z, net.backend).a)
        return np.concatenate(features), np.concatenate(probabilities).astype(np.float64)

    def describe(self) -> dict[str, Any]:
        """Return JSON values: its accuracy, hash, file, recipe, and what it was trained on."""
        net = self.model.net
        settings = {key: each for key, each in self.model.settings.items() if key != "key"}
        return settings | {
            "dataset": self.model.dataset,
            "sha256": content_hash({"parameters": net.backend.to_numpy(net.parameters)}),
            "file": None if self.path is None else str(self.path),
        }


def default_cache() -> Path:
    """Return where classifiers are kept: ``$NEMBP_CACHE/judges``, or ``~/.cache/nembp/judges``."""
    if os.environ.get("NEMBP_CACHE"):
        return Path(os.environ["NEMBP_CACHE"], "judges")
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:  # a user without a home
        home = tempfile.gettempdir()
    return Path(home, "nembp", "judges")


def classifier_for(
    data: Dataset, cache: str | os.PathLike[str] | None = None, note: Note = lambda text: None
) -> Classifier:
    """Return the classifier of a data set: from its file in ``cache``, or trained and put there.

    The file's name has a SHA-256 of all samples, labels, scaling, recipe and seed. ``note`` is told
    before one is trained, how well it does, and where a file cannot be used or written.
    """
    if not data.is_classification:
        raise ArchitectureError(
            f"{data.name}: samples are scored by a classifier, and {data.source} has no classes; "
            "expected labels, such as a last column of names"
        )
    # raw samples to the classifier's units, whatever the networks' are
    grey = data.is_image and data.shape[2] == 1
    scaling = data.to_unit if grey else standardized(data.train.x, by_channel=data.is_image)
    recipe = recipe_for(data)
    key = _key(data, scaling, recipe)
    path = Path(default_cache() if cache is None else cache) / f"{data.name}-{key[:16]}.npz"
    if os.path.exists(path):  # False too where it cannot be looked at
        try:
            model = load_model(path)
            if model.settings.get("key") == key:
                return Classifier(model, path)
            note(f"{path} is the classifier of other data; training a new one")
        except DataError as error:
            note(f"training the classifier again: {error}")
    epochs = recipe["epochs"]
    note(f"training a classifier of {data.name}: {len(data.train)} samples, {epochs} epochs")
    model = train_classifier(data, recipe, scaling)
    model.settings["key"] = key
    accuracy = model.settings["accuracy"]
    note(f"the classifier is right on {accuracy:.2%} of {len(data.test)} test samples")
    try:
        save_model(path, model)
    except OutputError as error:
        note(f"the classifier was not kept: {error}")
        return Classifier(model)
    return Classifier(model, path)


def _key(data: Dataset, scaling: Scaling, recipe: Recipe) -> str:
    plain = {"version": VERSION, "recipe": recipe, "seed": SEED, "classes": data.classes}
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    numbers = {"offset": np.asarray(scaling.offset), "factor": np.asarray(scaling.factor)}
    for split in (data.train, data.test):
        digest.update(content_hash(numbers | {"y": split.y}).encode())
        digest.update(f"{split.x.shape} {split.x.dtype.str}".encode())
        for part in chunks(split.x):
            digest.update(np.ascontiguousarray(split.x[part]).data)
    return digest.hexdigest()


def recipe_for(data: Dataset) -> Recipe:
    """Return the recipe that suits a data set: Adam with cosine decay, forward direction alone.

    On one core: digits 98.3 % of the test split in 1 s, MNIST 99.1 % in 20 s, CIFAR-10 73.8 % in
    two and a half minutes.
    """
    n, side = len(data.train), min(data.shape[:2]) if data.is_image else 0
    layers: list[int | str] = [128, 64]
    epochs, rate = 10, 0.002
    if side >= 16 and data.shape[2] == 1:
        layers, epochs, rate = ["conv16x5s2", "conv32x5s2", 128], 3, 0.003
    elif side >= 16:
        halvings = min(3, int(math.log2(side / 4)))
        layers, epochs = [*("conv32x4s2", "conv64x4s2", "conv128x4s2")[:halvings], 256], 8
    elif side >= 8:
        layers = ["conv16x4s2", "conv32x4s2", 128]
    if n < FEW:
        epochs, rate = min(100, max(10, FEW_SEEN // n)), 0.002
    return {
        "layers": layers, "epochs": epochs, "batch_size": 128 if n >= FEW else 32,
        "learning_rate": rate, "weight_decay": 0.05, "flip": data.name in FLIPPED,
    }  # fmt: skip


def train_classifier(data: Dataset, recipe: Recipe, scaling: Scaling) -> Model:
    """Train a classifier, always on the CPU, so that scores do not depend on the device."""
    samples = data.shape if data.is_image else data.features
    ends: Any = {"forward": "multinomial", "backward": "gaussian", "seed": SEED}
    net = network(samples, recipe["layers"], data.outputs, **ends)

    def reader(split: Split, flip: bool = False) -> BatchReader:
        options: Any = {"augmentation": Augmentation(flip=True) if flip else None, "seed": SEED}
        sizes = data.outputs, net.backend, net.dtype
        return BatchReader(split, scaling, data.y_scaling, *sizes, **options)

    optimizer = Adam(recipe["learning_rate"], recipe["weight_decay"])
    options: Any = {key: recipe[key] for key in ("epochs", "batch_size")}
    options |= {"optimizer": optimizer, "backward": False, "seed": SEED}
    Trainer(net, reader(data.train, recipe["flip"]), **options).run()
    settings = {
        "accuracy": evaluate(net, reader(data.test), backward=False)["forward/accuracy"],
        "recipe": recipe, "seed": SEED,
        "training_samples": len(data.train), "test_samples": len(data.test),
    }  # fmt: skip
    return Model(
        net, data.shape, data.classes, (), scaling, Scaling(), None, data.is_image, data.name,
        settings, environment(net),
    )  # fmt: skip


# -- scorers ---------------------------------------------------------------------------------------
class Scorer:
    """Scores samples of one data set, by a classifier but where their modes are known.

    Here of a mixture of Gaussians. ``modes``: modes with a sample within 3σ. ``modes_strict``:
    modes with at least n / 4K of them, a quarter of a uniform share. ``high_quality``: share of
    samples within 3σ of a mode; the mixture itself has 1 − exp(−9/2) = 0.989 in two dimensions.
    ``kl``: nats of the histogram of those samples from the uniform one.
    """

    samples = 2500  # how many a score to be reported should have (Srivastava et al. 2017)
    least = 1  # real samples, and scored ones, that the scores can do with
    headline = "modes"  # the score to watch
    names: tuple[str, ...] = ("modes", "modes_strict", "high_quality", "kl")

    def __init__(self, data: Dataset, classifier: Classifier | None = None) -> None:
        self.data: Any = data
        self.classifier: Any = classifier

    def score(self, samples: ArrayLike) -> Scores:
        """Score generated samples (n, features) in the networks' units."""
        x, features = np.asarray(samples), self.data.features
        if x.ndim != 2 or x.shape[1] != features or not len(x):
            raise ShapeError(f"samples of shape {x.shape}; expected (n ≥ 1, {features})")
        bad = int((~np.isfinite(x)).any(axis=1).sum())
        if bad:
            raise DivergenceError(
                f"{bad} of {len(x)} generated samples are not finite: training diverged. Lower "
                "the learning rates"
            )
        parts = (x[start : start + BLOCK] for start in range(0, len(x), BLOCK))
        invert, shape = self.data.x_scaling.invert, self.data.shape
        return self._named(invert(part.reshape(-1, *shape)) for part in parts)

    def real(self) -> Scores:
        """Score the test split, which is what a perfect generator would get."""
        test = self.data.test
        return self._named(_blocks(test, np.arange(min(len(test), self.samples))))

    def describe(self) -> dict[str, Any]:
        """Return what the scores rest on, as JSON values."""
        units = {name: UNITS[name] for name in self.names}
        return {"most": self.data.outputs, "units": units} | self._rest()

    def _named(self, blocks: Blocks) -> Scores:
        return dict(zip(self.names, self._score(blocks), strict=True))

    def _score(self, blocks: Blocks) -> tuple[float, ...]:
        x = np.concatenate(list(blocks))
        counts = near_modes(x, self.data.centres, self.data.std)
        return *coverage(counts, len(x)), float(counts.sum() / len(x)), kl_from_uniform(counts)

    def _rest(self) -> dict[str, Any]:
        return {"std": self.data.std}


def scorer_for(
    data: Dataset, cache: str | os.PathLike[str] | None = None, note: Note = lambda text: None
) -> Scorer:
    """Return the scorer of a data set, whose `x_scaling` leads from raw to the networks' units.

    >>> from nembp.adversarial.data import mixture
    >>> scorer = scorer_for(mixture("ring", 1000, scale=2.0))
    >>> scorer.score(2.0 * scorer.data.centres)["modes"], scorer.real()["modes"]
    (8.0, 8.0)
    """
    if isinstance(data, MixtureData):
        return Scorer(data)
    if isinstance(data, StackedData):
        return StackedScorer(data, classifier_for(data.digits, cache, note))
    return ImageScorer(data, classifier_for(data, cache, note))


class ImageScorer(Scorer):
    """Scores samples by the classes and features that the classifier sees in them.

    A classifier names a class whatever it is shown: noise has classes too. And one outlier among
    the real samples has a wide ball that noise may fall into: uniform noise had a precision of 0.2
    by the classifier of MNIST, and of 1.0 by one of CIFAR-10 that was right on 47 %. Read either
    beside the Fréchet distance and recall, which tell noise apart.

    The real samples to compare with come from the training split, by the stream ``reference``.
    """

    samples, least = 10_000, NEIGHBOURS + 1
    headline = "inception_score"
    names = ("classes", "classes_strict", "class_kl", "inception_score", "frechet_distance",
             "precision", "recall", "judge_accuracy")  # fmt: skip

    @cached_property
    def _reference(self) -> NDArray[np.float32]:
        order = stream(SEED, "reference").permutation(len(self.data.train))
        features: NDArray[np.float32]
        features, _ = self.classifier.look(_blocks(self.data.train, order[:REFERENCE]))
        return features

    def _score(self, blocks: Blocks) -> tuple[float, ...]:
        features, probabilities = self.classifier.look(blocks)
        n, k = probabilities.shape
        counts = np.bincount(probabilities.argmax(axis=1), minlength=k)
        # as many of both: the more points, the wider a manifold
        few, real = min(n, len(self._reference), MANIFOLD), self._reference
        return (
            *coverage(counts, n),
            kl_from_uniform(counts),
            inception_score(probabilities),
            frechet_distance(real, features),
            *precision_recall(real[:few], features[:few]),
            self.classifier.accuracy,
        )

    def _rest(self) -> dict[str, Any]:
        many = min(REFERENCE, len(self.data.train))
        judge = self.classifier.describe()
        return {"judge": judge, "reference_samples": many, "neighbours": NEIGHBOURS}


class StackedScorer(Scorer):
    """Counts the triples of digits that the classifier reads, one channel at a time."""

    samples = 26_000  # Srivastava et al. 2017, Lin et al. 2018
    names = ("modes", "modes_strict", "kl", "judge_accuracy")

    def read(self, blocks: Blocks) -> NDArray[np.int64]:
        """Read raw stacked images: their modes, 0 to 999."""
        # one image after the other, its channels as three rows
        digits = (np.moveaxis(block, -1, 1).reshape(-1, *block.shape[1:3], 1) for block in blocks)
        _, probabilities = self.classifier.look(digits)
        found: NDArray[np.int64] = probabilities.argmax(axis=1).reshape(-1, CHANNELS)
        return np.asarray(found @ np.array([100, 10, 1]))

    def _score(self, blocks: Blocks) -> tuple[float, ...]:
        modes = self.read(blocks)
        counts = np.bincount(modes, minlength=self.data.outputs)
        return *coverage(counts, len(modes)), kl_from_uniform(counts), self.classifier.accuracy

    def _rest(self) -> dict[str, Any]:
        return {"judge": self.classifier.describe()}


def _blocks(split: Split, index: NDArray[np.integer[Any]]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(index), BLOCK):
        yield split.x[index[start : start + BLOCK]]
