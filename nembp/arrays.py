"""Your own arrays: one door that checks and scales X and y, trains, and answers in your units.

``nembp.train(net, X, y)`` is a whole training in one call. What it finds wrong with the arrays is
refused here, before anything is computed, with what came, what was expected and the remedy; what
lies behind trusts its input.
"""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from numbers import Real
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nembp import checkpoints
from nembp.checkpoints import Model, encode, environment, fitting
from nembp.datasets import Scaling, Split, class_means, feature_means
from nembp.datasets.assemble import SQUARED, as_array, check_finite, check_inputs, column_names
from nembp.datasets.reading import BatchReader
from nembp.datasets.scaling import check_range, scaling_for, standardized
from nembp.datasets.sources import random_bits, stratified_choice
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.engine.metrics import evaluate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Optimizer, get_optimizer
from nembp.engine.training import Callback, History, Trainer, check_counts, set_input_bias
from nembp.errors import ArchitectureError, DataError, ShapeError

Vector = NDArray[Any]
FAR = 300.0  # standard deviations from 0, at which the backward nll has lost three digits
DOMAINS = {"bernoulli": (0.0, 1.0), "bipolar": (-1.0, 1.0), "multinomial": (0.0, math.inf)}


# -- what is given ---------------------------------------------------------------------------------
def check_targets(
    y: Any,
    likelihood: Likelihood,
    outputs: int,
    n: int,
    name: str = "y",
    known: tuple[Any, ...] = (),
) -> tuple[Vector, tuple[Any, ...]]:
    """Return n targets that a likelihood can describe, and the classes that labels stand for.

    Targets are int64 labels (n,), or floats (n, outputs). For a multinomial likelihood y holds
    labels of any kind, among the classes ``known`` if there are any, one-hot rows or rows of
    probabilities; for a Gaussian numbers; for a Bernoulli numbers in [0, 1]. A DataError or
    ShapeError says what else it is.
    """
    t = as_array(y, name, text=True)
    if t.ndim == 2 and t.shape[1] == 1:
        t = t[:, 0]
    if t.ndim not in (1, 2):
        raise ShapeError(f"{name} has shape {t.shape}; expected (n,) or (n, outputs)")
    if len(t) != n:
        raise ShapeError(f"X has {n} samples, but {name} has {len(t)}; expected one for each")
    check_finite(t, name, SQUARED)
    classes: tuple[Any, ...] = ()
    by_class = isinstance(likelihood, Multinomial)
    if by_class and t.ndim == 1:
        t, classes = _labels(t, name, known)
    elif t.dtype.kind not in "fiub":
        raise DataError(
            f"{name} holds text, but the network's forward likelihood is {likelihood.name}, which "
            "describes numbers; give one label per sample to a multinomial one for classes"
        )
    else:
        t = t.reshape(n, -1).astype(np.float64)
        _check_domain(t, likelihood, name)
    if by_class and t.ndim == 2:
        if not np.allclose(t.sum(axis=1), 1.0, atol=1e-3):
            raise DataError(
                f"{name} has shape {t.shape}, but its rows are not probabilities, with a sum of 1; "
                "give labels, one-hot rows, or use bernoulli for several labels at once"
            )
        classes = tuple(range(t.shape[1]))
        t = t.argmax(axis=1) if np.all(t.max(axis=1) == 1.0) else t
    found = len(classes) if by_class else t.shape[1]
    if found != outputs:
        what = "classes" if by_class else "columns"
        raise ShapeError(
            f"{name} has {found} {what}, but the network has {outputs} outputs; make its last "
            f"layer {found}, or give {outputs} {'one-hot ' * by_class}columns"
        )
    return t, classes


def _labels(t: Vector, name: str, known: tuple[Any, ...]) -> tuple[Vector, tuple[Any, ...]]:
    """Return labels as their places among the sorted classes."""
    if t.dtype.kind == "f":
        odd = (t != np.rint(t)) | (np.abs(t) >= 2.0**63)
        if np.any(odd):
            raise DataError(
                f"{name} holds {t[odd][0]:g}, which is not a class; give labels, or "
                "use a network whose forward likelihood is gaussian for numbers"
            )
        t = t.astype(np.int64)
    values, index = np.unique(t, return_inverse=True)
    found = values.tolist()
    place = {value: k for k, value in enumerate(known or found)}
    if unknown := [value for value in found if value not in place]:
        raise DataError(f"{name} has a class {unknown[0]!r} that y has not")
    places = np.array([place[value] for value in found], np.int64)
    return places[index.reshape(-1)], tuple(place)


def _check_domain(t: Vector, likelihood: Likelihood, name: str) -> None:
    """Raise a DataError unless a likelihood describes such values."""
    low, high = DOMAINS.get(likelihood.name, (-math.inf, math.inf))
    if t.min() < low or t.max() > high:
        raise DataError(
            f"{name} runs from {t.min():g} to {t.max():g}, but a {likelihood.name} likelihood "
            f"describes values from {low:g} to {high:g}; scale it, or use a gaussian likelihood"
        )


def check_weights(weights: Any, n: int) -> Vector:
    """Return one weight per sample: finite, at least 0, not all 0."""
    w = as_array(weights, "sample_weight").astype(np.float64)
    if w.shape not in ((n,), (n, 1)):
        raise ShapeError(f"sample_weight has shape {w.shape}; expected one for each of {n} samples")
    check_finite(w, "sample_weight")
    if w.min() < 0.0 or not w.any():
        raise DataError("sample_weight must be at least 0, and not all of it 0")
    return w.reshape(n)


def input_scaling(x: Vector, likelihood: Likelihood, weights: Vector | None = None) -> Scaling:
    """Return the scaling of inputs that the backward likelihood describes.

    8-bit images go to [0, 1] (an 8-bit array with no value beyond 1 is no image, but indicators);
    for a Bernoulli all columns do; for a Gaussian each column gets mean 0 and standard deviation 1,
    over samples of the given weights > 0; counts for a multinomial are divided by their largest.
    """
    largest = max(float(x.max()), -float(x.min()))
    if largest > SQUARED:  # of an estimator
        raise DataError(f"values of up to {largest:g} are too large; rescale or remove them")
    pixels = Scaling(factor=1 / 255) if x.dtype == np.uint8 and largest > 1 else None
    if weights is None or pixels or not isinstance(likelihood, Gaussian):
        return scaling_for(likelihood.name, x, "X", pixels)
    share = weights / weights.sum()
    mean = np.where(x.min(axis=0) == x.max(axis=0), x[0], share @ x)
    std = np.sqrt(share @ np.square(x - mean))
    return Scaling(mean, 1.0 / np.where(std > 0, std, 1.0))


def train(
    net: Network,
    X: Any,
    y: Any,
    *,
    sample_weight: Any = None,
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
    monitor: str | None = None,
    patience: int | None = None,
    callbacks: Sequence[Callback] = (),
    resume: str | os.PathLike[str] | None = None,
    checkpoint_every: float | None = None,
    seed: int = 0,
) -> History:
    """Train a network on arrays, in both directions.

    Parameters
    ----------
    net : Network
        Seen from its forward direction; trained in place.
    X : array_like, shape (n, features) or (n, height, width, channels)
        Samples in their own units: a list, an array, a sparse matrix, a pandas or Polars table.
    y : array_like, shape (n,) or (n, outputs)
        Labels of any kind, one-hot rows, or numbers: what the network's forward likelihood
        describes.
    sample_weight : array_like, shape (n,), optional
        Multiplies each sample's log-likelihoods, in both directions: a weight of 2 is a second
        copy, of 0 no sample. Normalized layers and scores of ``validation`` count samples once.
    epochs, batch_size, optimizer, learning_rate, weight_decay, schedule
        Length of the training and its steps, as of `Trainer` and `get_optimizer`.
    backward : bool or "only"
        Train the backward direction too; or that one alone.
    noise : Noise or dict of Noise, optional
        On the target of the direction that is trained (the forward one of two), or by place as of
        `Trainer`.
    scale : bool
        Give inputs and numeric targets the range that their likelihood describes
        (:func:`input_scaling`; targets of a Gaussian are standardized). The backward input bias
        starts at the training mean in any case.
    validation : float, or pair of X and y, optional
        Samples to score after each epoch: a share that is held out, in the classes' proportions,
        or others.
    monitor, patience : str, int, optional
        Stop early, and restore the best parameters, as of `Trainer`; by default the nll is
        monitored, the forward one of two.
    callbacks : sequence of callable
        Called with each epoch's row of scores; one that returns True ends the training.
    resume : path, optional
        File of a checkpoint. It is written as the training goes, after the step in which Ctrl-C
        comes too, and gone on from where it is there: bit for bit as if nothing had stopped the
        training, given the same arrays, settings (but for more ``epochs``) and build; a warning
        says where the build differs. What a callback remembers is the caller's to keep.
    checkpoint_every : float, optional
        Seconds between its writings within an epoch; by default 60, and as seldom as they take at
        most 1 % of the time.
    seed : int
        Of the batches and the noise.

    Returns
    -------
    History
        Scores of each epoch; its ``model`` predicts in the units of X and y, and is what
        `nembp.save` writes.

    Raises
    ------
    DataError, ShapeError, ArchitectureError, OutputError
        If the arrays do not fit, an option is out of bounds, ``resume`` is of a training with other
        settings, or cannot be written.
    KeyboardInterrupt
        Of Ctrl-C; the network is then as it was after the last step.

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
    if not isinstance(net, Network) or net.direction != "forward":
        raise ArchitectureError(
            f"train takes the forward direction of a network, got {net!r:.60}; give it "
            "nembp.dense_network([inputs, ..., outputs]), and net.reversed of a reversed one"
        )
    way = net.reversed if backward == "only" else net
    both = backward is True
    noise = {way.direction: noise} if isinstance(noise, Noise) else noise
    places = [] if both or not isinstance(noise, Mapping) else list(noise)
    idle = [place for place in places if place.startswith(way.reversed.direction)]
    functions = isinstance(callbacks, Iterable) and all(map(callable, callbacks))
    for is_right, fault in (
        (isinstance(backward, bool) or backward == "only",
         f'backward must be True, False or "only", got {backward!r}'),
        (isinstance(scale, bool), f"scale must be True or False, got {scale!r}"),
        (functions, f"callbacks must be a list of functions, got {callbacks!r:.60}"),
        (monitor is None if patience is None else validation is not None,
         "stopping early takes both validation, a share or (X, y), and patience, epochs; got "
         f"monitor={monitor!r}, patience={patience!r}"),
        (not idle, f"noise of {', '.join(idle)} would do nothing: backward={backward!r} does not "
         "train that direction"),
        (not isinstance(optimizer, Optimizer) or (learning_rate is None and not weight_decay),
         f"{type(optimizer).__name__} has its own learning rate and weight decay; give them to it, "
         "or name an optimizer"),
        (checkpoint_every is None or (isinstance(checkpoint_every, Real) and checkpoint_every > 0),
         f"checkpoint_every must be seconds above 0, got {checkpoint_every!r}"),
        (resume is None or isinstance(resume, str | os.PathLike),
         f"resume must be the path of a file, got {resume!r:.80}"),
    ):  # fmt: skip
        if not is_right:
            raise ArchitectureError(fault)
    if patience is not None:
        check_counts(patience=patience)

    x = check_inputs(X, net.inputs)
    t, classes = check_targets(y, net.likelihood, net.outputs, len(x))
    split, held, w = Split(x, t), None, None
    if sample_weight is not None:
        w = check_weights(sample_weight, len(x))
        split, w = split.subset(np.flatnonzero(w)), w[w > 0]
    if isinstance(validation, tuple | list):
        held = _validation(validation, net, classes, column_names(X))
    elif validation is not None:
        kept, out = _hold_out(split.y, validation, seed)
        split, held, w = split.subset(kept), split.subset(out), None if w is None else w[kept]
    x, t = np.asarray(split.x), split.y

    x_scaling = input_scaling(x, net.reversed.likelihood, w) if scale else Scaling()
    if not scale and backward:
        _check_unscaled(x, net)
    numbers = scale and isinstance(net.likelihood, Gaussian)
    y_scaling = input_scaling(t, net.likelihood, w) if numbers else Scaling()
    check_range(x, x_scaling, "X")
    mean, centroids = _means(split, x_scaling, w, net.outputs)
    set_input_bias(net, mean)

    def reader(part: Split) -> BatchReader:
        # offsets are subtracted in float64, before the values are cast to the network's precision
        x, own, made = np.asarray(part.x), x_scaling, (net.backend, net.dtype)
        if x.dtype != np.uint8:  # which is scaled batch by batch
            x, own = x_scaling.apply(x, net.dtype), Scaling()
        if backward != "only":
            return BatchReader(Split(x, part.y), own, y_scaling, net.outputs, *made)
        t = np.eye(net.outputs)[part.y] if part.y.ndim == 1 else y_scaling.apply(part.y, net.dtype)
        return BatchReader(Split(t, x), Scaling(), own, net.inputs, *made)

    if held is not None:
        check_range(held.x, x_scaling, "the validation's X")
    trainer = Trainer(
        way, reader(split), epochs=epochs, batch_size=batch_size, schedule=schedule, seed=seed,
        optimizer=get_optimizer(optimizer, learning_rate, weight_decay), backward=both, noise=noise,
        sample_weight=None if w is None else w * (len(w) / w.sum()), callbacks=callbacks,
        evaluate=None if held is None else partial(evaluate, reader=reader(held), backward=both),
        monitor=monitor or f"{way.direction}/nll", patience=patience,
    )  # fmt: skip
    if resume is None:
        history = trainer.run()
    else:
        seen = (x, t, w) if held is None else (x, t, w, held.x, held.y)
        history = _resumed(resume, trainer, net, checkpoint_every, seen, {
            "backward": backward, "noise": noise or {}, "schedule": schedule, "seed": seed,
            "scale": scale, "monitor": monitor, "patience": patience, "epochs": epochs,
        })  # fmt: skip
    shape = np.shape(X)[1:] if isinstance(X, np.ndarray) else (net.inputs,)
    scalings = x_scaling, y_scaling
    history.model = array_model(net, shape, classes, *scalings, column_names(X), centroids)
    return history


def _resumed(
    path: str | os.PathLike[str],
    trainer: Trainer,
    net: Network,
    every: float | None,
    arrays: Sequence[Any],
    told: Mapping[str, Any],
) -> History:
    """Train, from a checkpoint where it is there, and write it as the training goes."""
    where, optimizer, own = os.fspath(path), trainer.optimizer, ("steps", "weights")
    numbers = {k: v for k, v in vars(optimizer).items() if isinstance(v, Real) and k not in own}
    seen = {str(k): np.asarray(array) for k, array in enumerate(arrays) if array is not None}
    settings = {
        **told, "arrays": checkpoints.content_hash(seen), "network": [net.layers, net.maps],
        "likelihoods": [net.likelihood, net.reversed.likelihood], "dtype": net.dtype,
        "optimizer": {"name": optimizer.name, **numbers}, "batch_size": trainer.batch_size,
    }  # fmt: skip
    settings = json.loads(json.dumps(settings, default=encode))
    header = {"command": "nembp.train", "settings": settings, "environment": environment(net)}
    if os.path.exists(path):
        found, state = checkpoints.load_checkpoint(path)
        with fitting(path):
            old = dict(found["settings"]) if found.get("command") == header["command"] else {}
        if not old:
            raise ArchitectureError(f"{where}: is no checkpoint of nembp.train; name another file")
        for key, now in settings.items():
            then = old.get(key)
            if then == now or (key == "epochs" and isinstance(then, int) and now >= then):
                continue
            fault = f"{key} was {then!r:.80}, and is now {now!r:.80}"
            if key in ("arrays", "network"):
                fault = f"is of another {key.rstrip('s')}"
            raise ArchitectureError(
                f"{where}: {fault}; give the same arrays and settings, or name another file"
            )
        with fitting(path):
            checkpoints.check_state(state, trainer.state())
            trainer.resume(state)
            differ = checkpoints.differences(found["environment"], environment(net))
        if differ:
            warnings.warn(
                f"{where}: the last bits may differ from those of a training in one go: {differ}",
                stacklevel=3,
            )
    writer = checkpoints.Checkpoints(path, header, trainer.state, every)

    def ends() -> bool:
        is_last = trainer.epoch == trainer.epochs and not trainer.batch
        return is_last or trainer.history.stopped_early

    def after_epoch(row: dict[str, float]) -> None:
        if ends() or writer.are_due:
            writer.write()

    trainer.callbacks.append(after_epoch)
    trainer.after_step = writer.after_step
    with writer:
        if not ends():  # a file that cannot be written is found now
            writer.write()
        history = trainer.run()
    if writer.signals:  # after the last step: the file holds its end
        raise KeyboardInterrupt
    return history


def _check_unscaled(x: Vector, net: Network) -> None:
    """Refuse inputs outside the backward likelihood's domain; warn of those that cancel."""
    _check_domain(x, net.reversed.likelihood, "X")
    own = standardized(x)
    far = float(np.abs(own.offset * own.factor).max())
    if far > FAR and net.dtype == "float32" and isinstance(net.reversed.likelihood, Gaussian):
        warnings.warn(
            f"a column of X has a mean {far:.3g} times its standard deviation: squares of such "
            "values cancel in float32. Leave scale=True, subtract the mean, or make the network "
            'with dtype="float64"',
            stacklevel=3,
        )


def _means(
    split: Split, scaling: Scaling, weights: Vector | None, classes: int
) -> tuple[Vector, Vector | None]:
    """Return the scaled mean of all samples, and of each class if all have samples."""
    x, t = np.asarray(split.x), split.y
    every = t.ndim == 1 and bool(np.bincount(t, minlength=classes).all())
    if weights is None:
        means = class_means(split, scaling, classes) if every else None
        return feature_means(split, scaling), means
    members = [weights, *(weights * (t == k) for k in range(classes) if every)]
    means = scaling.apply(np.stack([w @ x / w.sum() for w in members]), np.float64)
    return means[0], means[1:] if every else None


def array_model(
    net: Network,
    shape: tuple[int, ...],
    classes: Iterable[Any],
    x_scaling: Scaling,
    y_scaling: Scaling,
    columns: Sequence[str],
    centroids: Vector | None = None,
) -> Model:
    """Return a model of a network trained on arrays, with classes or, without, numbers."""
    names = tuple(map(str, classes))
    targets = () if names else tuple(f"y{k}" for k in range(net.outputs))
    settings = {"feature_names": list(columns)} if columns else {}
    return Model(
        net=net, shape=tuple(map(int, shape)), classes=names, target_names=targets,
        x_scaling=x_scaling.reshaped(shape), y_scaling=y_scaling, centroids=centroids,
        is_image=len(shape) == 3, dataset="arrays", settings=settings, environment=environment(net),
    )  # fmt: skip


def _validation(pair: Any, net: Network, known: tuple[Any, ...], columns: Sequence[str]) -> Split:
    """Return validation arrays, whose labels are those of training."""
    if len(pair) != 2:
        raise ArchitectureError(f"validation must be a share or (X, y), got {len(pair)} values")
    x = check_inputs(pair[0], net.inputs, "the validation's X", columns)
    name = "the validation's y"
    return Split(x, check_targets(pair[1], net.likelihood, net.outputs, len(x), name, known)[0])


def _hold_out(t: Vector, share: Any, seed: int) -> tuple[Vector, Vector]:
    """Return the samples to train on, some of every class, and a share of them to be scored."""
    n = len(t)
    if not isinstance(share, float | np.floating) or not 0.0 < share < 1.0:
        raise ArchitectureError(
            f"validation must be a share between 0 and 1, or (X, y), got {share!r:.60}"
        )
    labels = np.unique(t, return_inverse=True)[1] if t.ndim == 1 else np.zeros(n, np.int64)
    kept = n - max(1, round(n * share))
    classes = int(labels.max()) + 1
    if kept < 1 or n <= classes:
        raise ArchitectureError(
            f"validation={share} leaves too few of {n} samples to train on {classes} classes"
        )
    parts = stratified_choice(labels, max(kept, classes), random_bits(seed, "validation"))
    return np.sort(parts[0]), np.sort(parts[1])
