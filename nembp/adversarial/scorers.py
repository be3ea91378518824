"""One scorer for each kind of data: what generated samples are worth, and what real ones get."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.adversarial.classifier import Judge, judge_for
from nembp.adversarial.mixtures_2d import MixtureData
from nembp.adversarial.modes import check_samples, coverage, kl_from_uniform
from nembp.adversarial.neighbours import K, precision_recall
from nembp.adversarial.scores import frechet_distance, inception_score, moments
from nembp.adversarial.stacked import StackedData
from nembp.backend import stream
from nembp.datasets import Dataset, Split

__all__ = ["UNITS", "ImageScorer", "MixtureScorer", "Scorer", "StackedScorer", "scorer_for"]

BLOCK = 512  # samples classified at a time
REFERENCE = 10_000  # real samples that generated ones are compared with
NEIGHBOURS = 5_000  # of them and of the generated ones whose neighbours are searched
Scores = dict[str, float]

UNITS: Final = {
    "modes": "modes with a sample within 3 standard deviations (Srivastava et al. 2017); of "
    "stacked digits, triples that occur (Metz et al. 2017)",
    "modes_strict": "modes with a quarter of a uniform share of the samples",
    "high_quality": "share of samples within 3 standard deviations of a mode",
    "kl": "nats of the modes' histogram from the uniform one (Lin et al. 2018)",
    "classes": "classes that the judge finds among the samples",
    "classes_strict": "classes with a quarter of a uniform share of the samples",
    "class_kl": "nats of the classes' histogram from the uniform one",
    "inception_score": "exp E KL(p(y|x) || p(y)) by the judge, 1 to the number of classes "
    "(Salimans et al. 2016)",
    "frechet_distance": "squared units of the judge's last hidden layer; compare equal numbers of "
    "samples (Heusel et al. 2017)",
    "precision": "share of samples within the real ones' manifold, 3 nearest neighbours in the "
    "judge's last hidden layer (Kynkäänniemi et al. 2019)",
    "recall": "share of real samples within the generated ones' manifold, as precision",
    "judge_accuracy": "share of the real test samples that the judge classifies rightly",
}


class Scorer(Protocol):
    """Scores samples of one data set.

    Attributes
    ----------
    samples : int
        How many samples a score to be reported should have; fewer do while a network learns.
    headline : str
        The score to watch.
    """

    samples: int
    headline: str

    def score(self, samples: ArrayLike) -> Scores:
        """Score generated samples (n, features) in the players' units.

        Raises
        ------
        DivergenceError, ShapeError
            If samples are not finite, or do not fit.
        """
        ...

    def real(self) -> Scores:
        """Score the test split, which is what a perfect generator would get."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return what the scores rest on, as JSON values."""
        ...


def scorer_for(
    data: Dataset,
    *,
    cache: str | os.PathLike[str] | None = None,
    seed: int = 0,
    note: Callable[[str], None] = lambda text: None,
) -> Scorer:
    """Return the scorer of a data set; its judge is trained unless its file is at hand.

    Parameters
    ----------
    data : Dataset
        As the players see it: `x_scaling` leads from raw to their units.
    cache, seed, note
        As in `nembp.adversarial.classifier.judge_for`.

    Raises
    ------
    ArchitectureError
        If the data set has neither modes nor classes.

    >>> from nembp.adversarial.mixtures_2d import ring
    >>> scorer = scorer_for(ring(1000, scale=2.0))
    >>> scorer.score(2.0 * ring(1000).modes.centres)["modes"], scorer.real()["modes"]
    (8.0, 8.0)
    """
    if isinstance(data, MixtureData):
        return MixtureScorer(data)
    if isinstance(data, StackedData):
        return StackedScorer(data, judge_for(data.digits, cache, seed=seed, note=note))
    return ImageScorer(data, judge_for(data, cache, seed=seed, note=note), seed=seed)


class MixtureScorer:
    """Counts modes of a mixture of Gaussians (`nembp.adversarial.modes.Modes.score`)."""

    samples = 2500  # Srivastava et al. 2017
    headline = "modes"

    def __init__(self, data: MixtureData) -> None:
        self.data = data

    def score(self, samples: ArrayLike) -> Scores:
        """Score samples; see `Scorer.score`."""
        x = check_samples(samples, self.data.features)
        return self.data.modes.score(self.data.x_scaling.invert(x))

    def real(self) -> Scores:
        """Score the test split."""
        return self.data.modes.score(np.asarray(self.data.test.x)[: self.samples])

    def describe(self) -> dict[str, Any]:
        """Return the number of modes and their width."""
        names = ("modes", "modes_strict", "high_quality", "kl")
        modes = self.data.modes
        return {
            "most": len(modes),
            "std": modes.std,
            "units": {name: UNITS[name] for name in names},
        }


class _Judged:
    """What the scorers by a judge share."""

    samples: int
    headline: str
    names: tuple[str, ...]

    def __init__(self, data: Dataset, judge: Judge) -> None:
        self.data, self.judge = data, judge

    def score(self, samples: ArrayLike) -> Scores:
        """Score samples; see `Scorer.score`."""
        return self._score(self._raw(check_samples(samples, self.data.features)))

    def real(self) -> Scores:
        """Score the test split."""
        test = self.data.test
        return self._score(_blocks(test, np.arange(min(len(test), self.samples))))

    def describe(self) -> dict[str, Any]:
        """Return what the judge is and what the scores mean."""
        return {
            "most": self.data.outputs,
            "judge": self.judge.describe(),
            "units": {name: UNITS[name] for name in self.names},
        }

    def _raw(self, samples: NDArray[Any]) -> Iterator[NDArray[Any]]:
        for start in range(0, len(samples), BLOCK):
            block = samples[start : start + BLOCK]
            yield self.data.x_scaling.invert(block.reshape(-1, *self.data.shape))

    def _score(self, blocks: Iterator[NDArray[Any]]) -> Scores:
        raise NotImplementedError


class ImageScorer(_Judged):
    """Scores samples by the classes and features that the judge sees in them.

    A classifier names a class whatever it is shown: noise has classes too. And one outlier among
    the real samples has a wide ball that noise may fall into: uniform noise had a precision of 0.2
    by the judge of MNIST, and of 1.0 by one of CIFAR-10 that was right on 47 %. Read either beside
    the Fréchet distance and recall, which tell noise apart.

    Parameters
    ----------
    data : Dataset
        Of images, or of a table, with classes.
    judge : Judge
        Trained on it.
    seed : int
        Of the stream ``reference``, which draws the real samples to compare with from the training
        split.
    """

    samples = 10_000
    headline = "inception_score"
    names = ("classes", "classes_strict", "class_kl", "inception_score", "frechet_distance",
             "precision", "recall", "judge_accuracy")  # fmt: skip

    def __init__(self, data: Dataset, judge: Judge, *, seed: int = 0) -> None:
        super().__init__(data, judge)
        order = stream(seed, "reference").permutation(len(data.train))
        self._index = order[:REFERENCE]

    @cached_property
    def _reference(self) -> NDArray[np.float32]:
        return self.judge.look(_blocks(self.data.train, self._index))[0]

    @cached_property
    def _moments(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return moments(self._reference)

    def _score(self, blocks: Iterator[NDArray[Any]]) -> Scores:
        features, probabilities = self.judge.look(blocks)
        n, k = probabilities.shape
        counts = np.bincount(probabilities.argmax(axis=1), minlength=k)
        classes, strict = coverage(counts, n)
        # as many of both: the more points, the wider a manifold
        few = min(n, len(self._reference), NEIGHBOURS)
        precision, recall = precision_recall(self._reference[:few], features[:few])
        return {
            "classes": float(classes),
            "classes_strict": float(strict),
            "class_kl": kl_from_uniform(counts),
            "inception_score": inception_score(probabilities),
            "frechet_distance": frechet_distance(*self._moments, *moments(features)),
            "precision": precision,
            "recall": recall,
            "judge_accuracy": self.judge.accuracy,
        }

    def describe(self) -> dict[str, Any]:
        """Return what the judge is, how many real samples it compares with, and the units."""
        return super().describe() | {"reference_samples": len(self._index), "neighbours": K}


class StackedScorer(_Judged):
    """Counts the triples of digits that the judge reads, one channel at a time."""

    samples = 26_000  # Srivastava et al. 2017, Lin et al. 2018
    headline = "modes"
    names = ("modes", "modes_strict", "kl", "judge_accuracy")

    def read(self, blocks: Iterator[NDArray[Any]]) -> NDArray[np.int64]:
        """Read raw stacked images: their modes, 0 to 999."""
        modes = []
        for block in blocks:
            channels = np.moveaxis(block, -1, 0)[..., np.newaxis]
            digits = [self.judge.look([channel])[1].argmax(axis=1) for channel in channels]
            modes.append(np.stack(digits, axis=1) @ np.array([100, 10, 1]))
        return np.concatenate(modes)

    def _score(self, blocks: Iterator[NDArray[Any]]) -> Scores:
        modes = self.read(blocks)
        counts = np.bincount(modes, minlength=self.data.outputs)
        covered, strict = coverage(counts, len(modes))
        return {
            "modes": float(covered),
            "modes_strict": float(strict),
            "kl": kl_from_uniform(counts),
            "judge_accuracy": self.judge.accuracy,
        }


def _blocks(split: Split, index: NDArray[np.integer[Any]]) -> Iterator[NDArray[Any]]:
    for start in range(0, len(index), BLOCK):
        yield split.x[index[start : start + BLOCK]]
