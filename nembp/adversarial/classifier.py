"""The judge: a classifier trained by nembp on real data, by which generated samples are scored.

It takes the place of the Inception network of Salimans et al. 2016, which was trained on
photographs and knows nothing of digits. It is trained once for a data set, kept in a file, and its
accuracy on the test split stands in every score.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.classifier_training import Recipe, judge_scaling, recipe_for, train_judge
from nembp.checkpoints import Model, content_hash, load_model, save_model
from nembp.datasets import Dataset, Scaling
from nembp.datasets.scaling import chunks
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.network import Network
from nembp.errors import ArchitectureError, DataError, OutputError

__all__ = ["Judge", "default_cache", "judge_for"]

VERSION = 1  # of the recipes: a change makes new files
Note = Callable[[str], None]


class Judge:
    """A trained classifier, and what it makes of samples.

    Parameters
    ----------
    model : Model
        As `train_judge` makes it.
    path : Path, optional
        Its file.

    Attributes
    ----------
    accuracy : float
        On the test split, from 0 to 1.
    sha256 : str
        Of its parameters.
    """

    def __init__(self, model: Model, path: Path | None = None) -> None:
        net = model.net
        self.model, self.path = model, path
        self.shape, self.classes = model.shape, model.classes
        self.accuracy = float(model.settings["accuracy"])
        self.sha256 = content_hash({"parameters": net.backend.to_numpy(net.parameters)})
        kind: dict[str, Any] = {"device": net.backend, "dtype": net.dtype, "seed": None}
        last = len(net.maps) - 1
        # the same pass, cut before the last linear map: below it features, above it classes
        body = Network(net.layers[:-1], net.maps[:-1], Gaussian(), Gaussian(), **kind)
        head = Network(net.layers[-2:], net.maps[-1:], Multinomial(), Gaussian(), **kind)
        for part, first in ((body, 0), (head, last)):
            for k, weights in enumerate(part.weights):
                weights[...] = net.weights[first + k]
                bias, source = part.biases[k + 1], net.biases[first + k + 1]
                if bias is not None and source is not None:
                    bias[...] = source
        self._body, self._head = body, head

    def look(
        self, blocks: Iterable[NDArray[Any]]
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Classify raw samples.

        Parameters
        ----------
        blocks : iterable of ndarray, shape (rows, *shape)
            Samples in the data set's raw units, a block at a time.

        Returns
        -------
        features : ndarray of float32, shape (n, d)
            Activations of the last hidden layer.
        probabilities : ndarray of float64, shape (n, K)
            p(y|x).
        """
        backend, features, probabilities = self.model.net.backend, [], []
        for block in blocks:
            x = self.model.x_scaling.apply(block, np.float32).reshape(len(block), -1)
            hidden = self._body.predict(x)
            features.append(backend.to_numpy(hidden))
            probabilities.append(backend.to_numpy(self._head.predict(hidden)))
        return np.concatenate(features), np.concatenate(probabilities).astype(np.float64)

    def describe(self) -> dict[str, Any]:
        """Return JSON values: its accuracy, hash, file, recipe, and what it was trained on."""
        names = ("accuracy", "recipe", "seed", "training_samples", "test_samples")
        return {
            **{name: self.model.settings[name] for name in names},
            "dataset": self.model.dataset,
            "sha256": self.sha256,
            "file": None if self.path is None else str(self.path),
        }


def default_cache() -> Path:
    """Return where judges are kept: ``$NEMBP_CACHE/judges``, or ``~/.cache/nembp/judges``."""
    if os.environ.get("NEMBP_CACHE"):
        return Path(os.environ["NEMBP_CACHE"], "judges")
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home, "nembp", "judges")


def judge_for(
    data: Dataset,
    cache: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    note: Note = lambda text: None,
) -> Judge:
    """Return the judge of a data set: from its file, or trained and put there.

    The file's name holds a SHA-256 of all samples, labels, the scaling, the recipe and the seed, so
    that no judge is taken for another's.

    Parameters
    ----------
    data : Dataset
        Of classes. Its training split teaches the judge, its test split measures it.
    cache : path, optional
        Folder of the files; `default_cache` if left out.
    seed : int
        Of its weights and batches.
    note : callable
        Told before it is trained, how well it does, and where a file cannot be used or written.

    Raises
    ------
    ArchitectureError
        If the data set has no classes.
    """
    if not data.is_classification:
        raise ArchitectureError(
            f"{data.name}: samples are scored by a classifier, and {data.source} has no classes; "
            "expected labels, such as a last column of names"
        )
    recipe, scaling = recipe_for(data), judge_scaling(data)
    key = _key(data, scaling, recipe, seed)
    path = Path(default_cache() if cache is None else cache) / f"{data.name}-{key[:16]}.npz"
    if path.exists():
        try:
            model = load_model(path)
            if model.settings.get("key") == key:
                return Judge(model, path)
            note(f"{path} is the judge of other data; training a new one")
        except DataError as error:
            note(f"training the judge again: {error}")
    note(f"training the judge of {data.name}: {len(data.train)} samples, {recipe.epochs} epochs")
    model = train_judge(data, recipe, seed=seed)
    model.settings["key"] = key
    note(f"the judge is right on {model.settings['accuracy']:.2%} of {len(data.test)} test samples")
    try:
        save_model(path, model)
    except OutputError as error:
        note(f"the judge was not kept: {error}")
        return Judge(model)
    return Judge(model, path)


def _key(data: Dataset, scaling: Scaling, recipe: Recipe, seed: int) -> str:
    digest = hashlib.sha256()
    plain = {"version": VERSION, "recipe": asdict(recipe), "seed": seed, "classes": data.classes}
    digest.update(json.dumps(plain, sort_keys=True).encode())
    numbers = {"offset": np.asarray(scaling.offset), "factor": np.asarray(scaling.factor)}
    for split in (data.train, data.test):
        numbers["y"] = split.y
        digest.update(content_hash(numbers).encode())
        digest.update(f"{split.x.shape} {split.x.dtype.str}".encode())
        for part in chunks(split.x):
            digest.update(np.ascontiguousarray(split.x[part]).data)
    return digest.hexdigest()
