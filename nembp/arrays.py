"""Your own arrays: one door that checks and scales X and y, trains, and answers in your units.

``nembp.train(net, X, y)`` is a whole training in one call. What it finds wrong with the arrays is
refused here, before anything is computed, with what came, what was expected and the remedy; what
lies behind trusts its input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nembp.backend import stream
from nembp.checkpoints import Model, environment
from nembp.datasets import Scaling, Split, class_means, feature_means
from nembp.datasets.reading import BatchReader
from nembp.datasets.scaling import check_range, image_scaling, signed, standardized, unit_range
from nembp.engine.likelihoods import Bernoulli, Bipolar, Gaussian, Likelihood, Multinomial
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Optimizer, get_optimizer
from nembp.engine.training import Callback, History, Trainer, set_input_bias
from nembp.errors import ArchitectureError, DataError, ShapeError

Vector = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Targets:
    """Checked targets.

    Attributes
    ----------
    y : ndarray
        int64 labels (n,), or floating targets (n, outputs).
    classes : tuple
        What the labels stand for, in order; () where y holds numbers.
    """

    y: Vector
    classes: tuple[Any, ...] = ()


def check_inputs(X: Any, inputs: int | None = None, name: str = "X") -> Vector:
    """Return samples as an array (n, features) of finite numbers, images flattened.

    Parameters
    ----------
    X : array_like, shape (n, ...)
        Numbers: a list of rows, a NumPy or CuPy array, a pandas or Polars table.
    inputs : int, optional
        Values that each sample must have.
    name : str
        What messages call it.

    Raises
    ------
    DataError
        If it holds no samples, text, dates, complex numbers, or a NaN or infinity.
    ShapeError
        If its rows have different lengths, or not ``inputs`` values.
    """
    x = _as_array(X, name)
    if x.ndim < 2:
        raise ShapeError(
            f"{name} has shape {x.shape}; expected one row per sample, (n, features). A single "
            "feature is X.reshape(-1, 1), a single sample X.reshape(1, -1)"
        )
    if x.shape[0] == 0 or x.size == 0:
        raise DataError(f"{name} has shape {x.shape}; expected at least one sample and one feature")
    x = x.reshape(len(x), -1)
    if inputs is not None and x.shape[1] != inputs:
        raise ShapeError(
            f"{name} has {x.shape[1]} values in a sample, but the network has {inputs} inputs; "
            "give it the columns that it was made for, or make a network of that size"
        )
    _check_finite(x, name)
    return x


def check_targets(
    y: Any, likelihood: Likelihood, outputs: int | None, n: int, name: str = "y"
) -> Targets:
    """Return targets that a likelihood can describe.

    Parameters
    ----------
    y : array_like, shape (n,) or (n, outputs)
        For a multinomial likelihood labels of any kind, or one-hot rows or rows of probabilities;
        for a Gaussian numbers; for a Bernoulli numbers in [0, 1].
    likelihood : Likelihood
        Of the forward direction.
    outputs : int or None
        Of the network.
    n : int
        Number of samples.

    Raises
    ------
    DataError
        If a value lies outside the likelihood's domain.
    ShapeError
        If there is not one target for each sample, or they do not fit the outputs.
    """
    t = _as_array(y, name, text=True)
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    if t.ndim not in (1, 2):
        raise ShapeError(f"{name} has shape {t.shape}; expected (n,) or (n, outputs)")
    if len(t) != n:
        raise ShapeError(f"X has {n} samples, but {name} has {len(t)}; expected one for each")
    if isinstance(likelihood, Multinomial):
        found = _labels(t, name) if t.ndim == 1 else _rows_of_classes(t, name)
        count = len(found.classes) if found.classes else found.y.shape[1]
        if outputs is not None and count != outputs:
            raise ShapeError(
                f"{name} has {count} classes, but the network has {outputs} outputs; make its last "
                f"layer {count}, or give one-hot rows of {outputs} columns"
            )
        return found
    if t.dtype.kind not in "fiub":
        raise DataError(
            f"{name} holds text, but the network's forward likelihood is {likelihood.name}, which "
            "describes numbers; use a multinomial one for classes"
        )
    t = t.reshape(n, -1).astype(np.float64)
    _check_finite(t, name)
    if outputs is not None and t.shape[1] != outputs:
        raise ShapeError(f"{name} has {t.shape[1]} columns, but the network has {outputs} outputs")
    low = -1.0 if isinstance(likelihood, Bipolar) else 0.0
    if isinstance(likelihood, Bernoulli | Bipolar) and (t.min() < low or t.max() > 1.0):
        raise DataError(
            f"{name} runs from {t.min():g} to {t.max():g}, but a {likelihood.name} likelihood "
            f"describes values from {low:g} to 1; scale it, or use a gaussian likelihood"
        )
    return Targets(t)


def input_scaling(x: Vector, likelihood: Likelihood, weights: Vector | None = None) -> Scaling:
    """Return the scaling of inputs that the backward likelihood describes.

    8-bit images go to [0, 1]; for a Bernoulli all columns do; for a Gaussian each column gets mean
    0 and standard deviation 1, over samples of the given weights; counts for a multinomial are
    divided by their largest.
    """
    if isinstance(likelihood, Bipolar):
        return signed(image_scaling(x) if x.dtype == np.uint8 else unit_range(x))
    if x.dtype == np.uint8:
        return image_scaling(x)
    if isinstance(likelihood, Bernoulli):
        return unit_range(x)
    if isinstance(likelihood, Multinomial):
        if x.min() < 0:
            raise DataError(
                f"X holds {x.min():g}, but the backward likelihood is multinomial, which describes "
                "counts or shares ≥ 0; use a gaussian one"
            )
        return Scaling(factor=1.0 / max(1.0, float(x.max())))
    if weights is None:
        return standardized(x)
    x = x[weights > 0]
    share = weights[weights > 0] / weights.sum()
    mean = np.where(x.min(axis=0) == x.max(axis=0), x[0], share @ x)
    std = np.sqrt(share @ np.square(x - mean))
    return Scaling(mean, 1.0 / np.where(std > 0, std, 1.0))


def train(
    net: Network,
    X: Any,
    y: Any,
    *,
    epochs: int = 20,
    batch_size: int = 32,
    optimizer: str | Optimizer = "adam",
    learning_rate: float | None = None,
    weight_decay: float = 0.0,
    schedule: str = "cosine",
    backward: bool | Literal["only"] = True,
    noise: dict[str, Noise] | Noise | None = None,
    scale: bool = True,
    validation: float | tuple[Any, Any] | None = None,
    monitor: str = "forward/nll",
    patience: int | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
) -> History:
    """Train a network on arrays, in both directions.

    Parameters
    ----------
    net : Network
        Seen from its forward direction; trained in place.
    X : array_like, shape (n, features) or (n, height, width, channels)
        Samples in their own units: a list, an array, a pandas or Polars table.
    y : array_like, shape (n,) or (n, outputs)
        Labels of any kind, one-hot rows, or numbers: what the network's forward likelihood
        describes.
    epochs, batch_size : int
        Length of the training.
    optimizer, learning_rate, weight_decay, schedule
        As of `Trainer` and `get_optimizer`.
    backward : bool or "only"
        Train the backward direction too; or that one alone.
    noise : Noise or dict of Noise, optional
        On the forward targets, or by place as of `Trainer`.
    scale : bool
        Give inputs and numeric targets the range that their likelihood describes
        (:func:`input_scaling`; targets of a Gaussian are standardized). The backward input bias
        starts at the training mean in any case.
    validation : float, or pair of X and y, optional
        Samples to score after each epoch: a share that is held out, or others.
    monitor, patience : str, int, optional
        Stop early, and restore the best parameters, as of `Trainer`.
    callbacks : sequence of callable
        Called with each epoch's row of scores; one that returns True ends the training.
    seed : int
        Of the batches and the noise.

    Returns
    -------
    History
        Scores of each epoch; its ``model`` predicts in the units of X and y, and is what
        `nembp.save` writes.

    Raises
    ------
    DataError, ShapeError
        If the arrays do not fit; see `check_inputs` and `check_targets`.
    ArchitectureError
        If an option is out of bounds.

    Examples
    --------
    >>> import nembp
    >>> net = nembp.dense_network([2, 8, 2])
    >>> X, y = [[0, 1], [2, 0], [0, 2], [1, 0]], ["up", "down", "up", "down"]
    >>> history = nembp.train(net, X, y, epochs=50, learning_rate=0.05)
    >>> history.model.predict_labels([[0, 3], [3, 0]]).tolist()
    ['up', 'down']
    >>> history.model.predict_inputs(["down"]).shape
    (1, 2)
    """
    if net.direction != "forward":
        raise ArchitectureError("train takes the forward direction of a network; give net.reversed")
    x = check_inputs(X, net.inputs)
    targets = check_targets(y, net.likelihood, net.outputs, len(x))
    held: Split | None = None
    split = Split(x, targets.y)
    if isinstance(validation, tuple):
        held = _validation(validation, net, targets)
    elif validation is not None:
        split, held = _hold_out(split, validation, seed)
    x_scaling = input_scaling(np.asarray(split.x), net.reversed.likelihood) if scale else Scaling()
    numeric = scale and isinstance(net.likelihood, Gaussian)
    y_scaling = standardized(split.y) if numeric else Scaling()
    check_range(x, x_scaling, "X")

    def reader(part: Split) -> BatchReader:
        # offsets are subtracted in float64, before the values are cast to the network's precision
        made, own, x = (net.backend, net.dtype), Scaling(), np.asarray(part.x)
        if x.dtype == np.uint8:  # scaled batch by batch
            own = x_scaling
        else:
            x = x_scaling.apply(x, net.dtype)
        if backward != "only":
            return BatchReader(Split(x, part.y), own, y_scaling, net.outputs, *made)
        t = np.eye(net.outputs)[part.y] if part.y.ndim == 1 else y_scaling.apply(part.y, net.dtype)
        return BatchReader(Split(t, x), Scaling(), own, net.inputs, *made)

    set_input_bias(net, feature_means(split, x_scaling))
    way = net.reversed if backward == "only" else net
    both = backward is True
    score: Callable[[Network], dict[str, float]] | None = None
    if held is not None:
        scored = reader(held)
        score = lambda way: evaluate(way, scored, backward=both)  # noqa: E731
    trainer = Trainer(
        way,
        reader(split),
        epochs=epochs,
        batch_size=batch_size,
        optimizer=get_optimizer(optimizer, learning_rate, weight_decay),
        schedule=schedule,
        backward=both,
        noise={"forward": noise} if isinstance(noise, Noise) else noise,
        seed=seed,
        evaluate=score,
        monitor=monitor,
        patience=patience,
        callbacks=callbacks,
    )
    history = trainer.run()
    shape = np.shape(X)[1:] if isinstance(X, np.ndarray) else (net.inputs,)
    labelled = split.y.ndim == 1
    history.model = Model(
        net=net,
        shape=tuple(map(int, shape)),
        classes=tuple(map(str, targets.classes)),
        target_names=() if targets.classes else tuple(f"y{k}" for k in range(net.outputs)),
        x_scaling=Scaling(*(_shaped(v, shape) for v in (x_scaling.offset, x_scaling.factor))),
        y_scaling=y_scaling,
        centroids=class_means(split, x_scaling, net.outputs) if labelled else None,
        is_image=len(shape) == 3,
        dataset="arrays",
        settings={},
        environment=environment(net),
    )
    return history


def _shaped(value: Any, shape: tuple[int, ...]) -> Any:
    """Return one value per feature in the shape of a sample."""
    return np.reshape(value, shape) if np.ndim(value) else value


def _as_array(value: Any, name: str, *, text: bool = False) -> Vector:
    """Return what a user gave as a NumPy array of numbers, or of labels where ``text`` may come."""
    if hasattr(value, "toarray"):  # SciPy's sparse matrices
        value = value.toarray()
    elif hasattr(value, "to_numpy"):  # pandas and Polars
        value = value.to_numpy()
    elif hasattr(value, "get") and hasattr(value, "__cuda_array_interface__"):
        value = value.get()
    try:
        array = np.asarray(value)
    except (TypeError, ValueError) as error:
        raise ShapeError(
            f"{name} is not an array ({str(error).splitlines()[0].rstrip('.')}); give all rows the "
            "same number of values"
        ) from error
    if array.dtype.kind == "O":  # a table of mixed columns, say
        array = np.array(array.tolist()) if text else _numbers(array, name)
    if array.dtype.kind == "b":
        array = array.astype(np.uint8) if not text else array
    if array.dtype.kind not in ("fiubUS" if text else "fiu"):
        raise DataError(
            f"{name} holds {array.dtype}, but numbers are expected; convert text to numbers, dates "
            "to seconds, and complex numbers to their parts"
        )
    return array


def _numbers(array: Vector, name: str) -> Vector:
    try:
        return array.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{name} holds what is not a number ({error}); encode text columns first, as by "
            "sklearn.preprocessing.OneHotEncoder"
        ) from error


def _check_finite(array: Vector, name: str) -> None:
    if array.dtype.kind == "f" and not np.all(np.isfinite(array)):
        row, column = np.argwhere(~np.isfinite(array.reshape(len(array), -1)))[0]
        raise DataError(
            f"{name} holds {array.reshape(len(array), -1)[row, column]} in row {row}, column "
            f"{column}; remove such rows, or fill the gaps, as by sklearn.impute.SimpleImputer"
        )


def _labels(t: Vector, name: str) -> Targets:
    """Return labels as numbers of their sorted values."""
    if t.dtype.kind == "f":
        _check_finite(t, name)
        if np.any(t != np.rint(t)):
            raise DataError(
                f"{name} holds {t[t != np.rint(t)][0]:g}, which is not a class; give labels, or "
                "use a network whose forward likelihood is gaussian for numbers"
            )
        t = t.astype(np.int64)
    classes, index = np.unique(t, return_inverse=True)
    return Targets(index.reshape(-1).astype(np.int64), tuple(classes.tolist()))


def _rows_of_classes(t: Vector, name: str) -> Targets:
    """Return one-hot rows as labels, and rows of probabilities as they are."""
    if t.dtype.kind not in "fiub":
        raise DataError(f"{name} is a table of text; give one label per sample, shape (n,)")
    t = t.astype(np.float64)
    _check_finite(t, name)
    if t.min() < 0.0 or not np.allclose(t.sum(axis=1), 1.0, atol=1e-3):
        raise DataError(
            f"{name} has shape {t.shape}, but its rows are not probabilities (≥ 0, with a sum of "
            "1); give labels, one-hot rows, or use bernoulli for several labels at once"
        )
    if np.all(t.max(axis=1) == 1.0):
        return Targets(t.argmax(axis=1), tuple(range(t.shape[1])))
    return Targets(t)


def _validation(pair: tuple[Any, Any], net: Network, targets: Targets) -> Split:
    """Return validation arrays, whose labels are those of training."""
    x = check_inputs(pair[0], net.inputs, "the validation's X")
    found = check_targets(pair[1], net.likelihood, None, len(x), "the validation's y")
    if targets.classes:
        unknown = set(found.classes) - set(targets.classes)
        if unknown:
            raise DataError(f"the validation's y has a class {unknown.pop()!r} that y has not")
        index = np.array([targets.classes.index(c) for c in found.classes], dtype=np.int64)
        return Split(x, index[found.y])
    return Split(x, found.y)


def _hold_out(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Return the samples to train on, and a share of them drawn to be scored."""
    if not 0.0 < fraction < 1.0:
        raise ArchitectureError(f"validation must be a share between 0 and 1, got {fraction!r}")
    n = len(split)
    held = max(1, round(n * fraction))
    if held >= n:
        raise ArchitectureError(f"validation={fraction:g} leaves none of {n} samples to train on")
    order = stream(seed, "validation").permutation(n)
    return split.subset(np.sort(order[held:])), split.subset(np.sort(order[:held]))
