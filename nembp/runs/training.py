"""Training runs: data, network and splits from a configuration; training; a folder of results."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nembp.architecture import chain, network
from nembp.checkpoints import Model, save_model
from nembp.datasets import Dataset, Split, class_means, feature_means, load
from nembp.datasets.reading import Augmentation, BatchReader
from nembp.datasets.scaling import scaling_for
from nembp.datasets.sources import random_bits, stratified_choice
from nembp.engine.likelihoods import get_likelihood
from nembp.engine.metrics import Units, evaluate
from nembp.engine.network import Network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import get_optimizer
from nembp.engine.training import Callback, Trainer, set_input_bias
from nembp.errors import ArchitectureError, DivergenceError
from nembp.runs.config import RunConfig, recipe
from nembp.runs.folder import CHECKPOINT, CONFIG, METRICS, SUMMARY
from nembp.runs.run import Note, Path_, Row, Run, choose_backend, silent

if TYPE_CHECKING:
    from nembp.engine.network import Layer

MODEL, PICTURE = "model.npz", "backward.png"
FINGERPRINT = "data_fingerprint"  # in a model's settings
READ_OPTIONS = ("delimiter", "header", "decimal", "image_order", "transpose", "x", "y", "max_bytes")
LOADED_BY = ("targets", "task", "test_fraction", "limit", "scaling", "image_size", *READ_OPTIONS)
IN_BOUNDS = "bernoulli", "bipolar", "multinomial"  # likelihoods of values that have bounds
MOST_DRAWN = 100  # classes of a picture, spread over all of them
WORSE = 1000.0  # times the nll of a constant prediction, from which on that is said


# -- from a configuration to what is trained -------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Prepared:
    """What a run trains."""

    config: Any  # RunConfig, complete: a recipe has filled what was open
    data: Dataset  # with the scalings that suit the likelihoods
    train: Split
    validation: Split | None  # held out of the training samples
    net: Network  # before its first step
    centroids: NDArray[np.float64] | None  # class means of train in the network's units

    def reader(self, split: Split, *, augmented: bool = False) -> BatchReader:
        """Return the reader that feeds a split to the network, augmented as configured or plain."""
        data, net, config = self.data, self.net, self.config
        scalings = data.x_scaling, data.y_scaling
        changes = augmentation(config.augment) if augmented else None
        return BatchReader(split, *scalings, data.outputs, net.backend, net.dtype,
                           augmentation=changes, seed=config.seed)  # fmt: skip


def load_data(config: RunConfig, classes: tuple[str, ...] = ()) -> Dataset:
    """Load the data set that a configuration names, as `nembp.datasets.load` does."""
    options = {name: value for name, value in config.chosen().items() if name in LOADED_BY}
    options |= {"seed": config.split_seed or 0, "classes": classes}
    return load(config.dataset, config.data_dir, **options)


def prepare(config: RunConfig, note: Note = silent, data: Dataset | None = None) -> Prepared:
    """Load the data, fill in the recipe, and build the network with its input bias at the mean.

    ``data`` is what `load_data` gave for this configuration; loaded here without it.
    """
    data = load_data(config) if data is None else data
    for text in data.notes:
        note(text)
    filled: Any = recipe(data, config)
    architecture = data.shape if data.is_image else data.features, filled.layers, data.outputs
    layers, _ = chain(*architecture)
    check_options(filled, data, layers)
    backend = choose_backend(filled.device, note, filled.precision)
    path = None if filled.data_dir is None else os.path.abspath(filled.data_dir)
    filled = filled.replace({"device": backend.name, "data_dir": path})
    data = fit_scalings(data, filled)
    train, validation = hold_out(data, filled)
    backward = "gaussian" if filled.backward == "none" else filled.backward
    net = network(
        *architecture, activation=filled.activation, forward=filled.forward,
        backward=get_likelihood(backward, filled.backward_weight),
        device=backend, dtype=filled.dtype, seed=filled.seed,
    )  # fmt: skip
    if filled.weight_scale != 1.0:
        for W in net.weights:
            W[...] = W * filled.weight_scale
    set_input_bias(net, feature_means(train, data.x_scaling))
    centroids = None
    if data.is_classification:
        centroids = class_means(train, data.x_scaling, data.outputs)
    return Prepared(filled, data, train, validation, net, centroids)


def augmentation(words: str) -> Augmentation:
    """Return what an option such as "flips,crops4" asks for."""
    kinds = words.split(",")
    crops = [int(kind.removeprefix("crops")) for kind in kinds if kind.startswith("crops")]
    return Augmentation(flip="flips" in kinds, crop=sum(crops))


def check_options(config: RunConfig, data: Dataset, layers: Sequence[Layer]) -> None:
    """Raise ArchitectureError where options contradict each other or the data."""
    check_batches(layers, min(config.batch_size or 1, len(data.train)))
    noisy = config.noise != "none"
    places = set(config.noise_place or ()) - {"target"} if noisy else set()
    hidden = [layer for layer in layers[1:-1] if layer.activation is not None]
    for wrong, message in (
        (config.forward == "multinomial" and not data.is_classification,
         f"forward multinomial describes classes, but the targets of {data.source} are numbers; "
         "use --forward gaussian, or say --task classification if they are labels"),
        (config.backward == "none" and noisy and config.noise_target != "forward",
         f"noise_target {config.noise_target} needs a backward direction, and backward is none; "
         "use --noise-target forward, or train both directions"),
        (config.scaling == "channel" and config.backward in IN_BOUNDS,
         f"backward {config.backward} describes pixels in [0, 1], which scaling channel leaves; "
         "use --scaling unit, or --backward gaussian"),
        (places & {"hidden", "last-hidden"} and not hidden,
         "noise_place hidden needs a hidden layer, and layers names none; use --noise-place target "
         "or input, or give --layers"),
        ({"hidden", "last-hidden"} <= places,
         "noise_place hidden holds the last hidden layer already; name one of the two"),
        (places and config.noise_law == "curvature",
         "noise_law curvature is that of a target's likelihood, which signals have none of; use "
         "--noise-law gaussian or uniform, or --noise-place target"),
        (places and config.noise_screening == "component",
         "noise on signals is screened by whole samples: one neuron's share of the gain is not its "
         "own; use --noise-screening vector or expectation, or --noise-place target"),
        (config.patience is not None and not config.validation_fraction,
         "patience needs a validation split to watch, since the test split must not choose; "
         "expected --validation-fraction above 0, such as 0.1"),
    ):  # fmt: skip
        if wrong:
            raise ArchitectureError(message)


def check_batches(layers: Sequence[Layer], batch_size: int) -> None:
    """Raise ArchitectureError where batch normalization would see a single value."""
    if batch_size == 1 and any(layer.gains == layer.size for layer in layers[1:]):
        raise ArchitectureError(
            "batch normalization of dense layers learns nothing from batches of one, which is "
            "its own mean; expected a batch_size of 2 or more, or layers without bn"
        )


def fit_scalings(data: Dataset, config: RunConfig) -> Dataset:
    """Give inputs and targets the range that their direction's likelihood describes.

    A Bernoulli likelihood takes values in [0, 1], a bipolar one in [−1, 1] and a multinomial one
    values ≥ 0: images, and the columns of a table, which may be standardized, are mapped there.
    """
    if not data.is_classification and config.forward in ("bernoulli", "bipolar"):
        data = replace(data, y_scaling=scaling_for(config.forward, data.train.y, data.source))
    if config.backward not in IN_BOUNDS:
        return data
    pixels = data.to_unit if data.is_image else None
    scaling = scaling_for(config.backward, data.train.x, data.source, pixels)
    is_unit = config.backward != "bipolar"
    return replace(data, x_scaling=scaling, pixel_scaling=None if is_unit else pixels)


def hold_out(data: Dataset, config: RunConfig) -> tuple[Split, Split | None]:
    """Split the training samples into those to train on and a validation split, or None.

    Stratified by class, drawn from the stream "validation" of ``split_seed``.
    """
    fraction = config.validation_fraction or 0.0
    if not fraction:
        return data.train, None
    n = len(data.train)
    n_train = n - max(1, round(n * fraction))
    least = max(1, len(data.classes))
    if n_train < least:
        raise ArchitectureError(
            f"validation_fraction={fraction:g} leaves {n_train} of {n} samples to train on; "
            f"expected at least {least}. Lower it"
        )
    bits = random_bits(config.split_seed or 0, "validation")
    kept, held = stratified_choice(data.train.y, n_train, bits)
    return data.train.subset(kept), data.train.subset(held)


def pixel_units(data: Dataset | Model) -> Units | None:
    """Return the map from rows in the network's units to pixels in [0, 1]; None if none is needed.

    Tables, and images that are in [0, 1] already, need none.
    """
    scaling, pixels, shape = data.x_scaling, data.pixel_scaling, data.shape
    if pixels is None:
        return None

    def units(x: NDArray[Any]) -> NDArray[Any]:
        images = scaling.invert(np.reshape(x, (-1, *shape)))
        return pixels.apply(images, np.float64).reshape(len(x), -1)

    return units


def trainer_of(
    prepared: Prepared, *, evaluate: Callable[[Network], dict[str, float]] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:  # fmt: skip
    """Return the trainer that a configuration describes; the rest as `Trainer` takes it."""
    config = prepared.config
    noise = noise_settings(config, "noise_target", "noise_place")
    target = config.noise_target
    noises = {
        direction if place == "target" else f"{direction}/{place}": noise
        for direction in (("forward", "backward") if target == "both" else (target,))
        for place in config.noise_place
    }
    return Trainer(
        prepared.net, prepared.reader(prepared.train, augmented=True), epochs=config.epochs,
        batch_size=config.batch_size, schedule=config.schedule, seed=config.seed,
        optimizer=get_optimizer(config.optimizer, config.learning_rate, config.weight_decay),
        backward=config.backward != "none", noise=noises, evaluate=evaluate,
        patience=config.patience, callbacks=callbacks, cuda_graphs=config.cuda_graphs != "off",
    )  # fmt: skip


def noise_settings(config: Any, *apart: str) -> Noise:
    """Return the noise that the options ``noise_...`` describe, apart from those of some names."""
    names = [name for name in vars(config) if name.startswith("noise_") and name not in apart]
    values = {name.removeprefix("noise_"): getattr(config, name) for name in names}
    return Noise(kind=config.noise, **values)


# -- a run -----------------------------------------------------------------------------------------
class TrainRun(Run):
    """A run of `nembp train`."""

    kind = RunConfig
    title = "A run of nembp"
    saved = MODEL, "model"
    files = CONFIG, METRICS, MODEL, SUMMARY, PICTURE, CHECKPOINT

    @classmethod
    def prepare(cls, config: RunConfig, note: Note, start: Path_ | None) -> Prepared:
        if start is not None:
            raise ArchitectureError(f"start is of adversarial runs, got {start}; leave it out")
        return prepare(config, note)

    def __init__(self, prepared: Prepared, *rest: Any) -> None:
        super().__init__(prepared, *rest)
        held = prepared.validation
        self.test = prepared.reader(prepared.data.test)
        self.watched = self.test if held is None else prepared.reader(held)
        self.scored_on = "test" if held is None else "validation"
        self.trainer = trainer_of(
            prepared,
            evaluate=lambda net: self._scores(self.watched),
            callbacks=[self._epoch],
        )

    def about(self) -> Row:
        return {
            "training_samples": len(self.prepared.train), "test_samples": len(self.data.test),
            "classes": len(self.data.classes), "scored_on": self.scored_on,
            "sizes": [layer.size for layer in self.net.layers],
            "parameters": self.net.parameter_count,
        }  # fmt: skip

    def resume(self, state: Row) -> None:
        super().resume(state)
        rows = self.trainer.history.epochs
        self.rows = [self._shown(row) | {"seconds": row["seconds"]} for row in rows]
        self.done, self.stopped_early = len(rows), bool(self.trainer.history.stopped_early)

    def _scores(self, reader: BatchReader) -> dict[str, float]:
        with np.errstate(all="ignore"):
            centroids, units = self.prepared.centroids, pixel_units(self.data)
            return evaluate(self.net, reader, centroids, units=units)

    def _epoch(self, row: dict[str, float]) -> bool:
        self.done, self.stopped_early = self.trainer.epoch, self.trainer.history.stopped_early
        directions = ("forward",) if self.config.backward == "none" else ("forward", "backward")
        for key in (f"{direction}/nll" for direction in directions):
            if not math.isfinite(row[key]):  # though the parameters are
                raise DivergenceError(
                    f"training diverged in epoch {self.done}: {key} of the {self.scored_on} split "
                    f"is not finite. Lower the learning rate (now {self.config.learning_rate:g})"
                )
        last = self.stopped_early or self.done == self.trainer.epochs
        return self.after_row(self._shown(row), last=last)

    def _shown(self, row: dict[str, float]) -> Row:
        """Return a row of the history as metrics.jsonl has it."""
        return row | {"epoch": int(row["epoch"]), "scored_on": self.scored_on}

    def restore(self, status: str) -> bool:
        if status == "diverged" or self.trainer.epoch > self.done:  # a step may be half done
            self.net.restore(self.trainer.last_good)
        return self.done > 0 or status == "diverged"

    def save(self) -> None:
        more = {FINGERPRINT: self.data.fingerprint} if self.data.fingerprint else {}
        model = self.model(self.net, more, centroids=self.prepared.centroids)
        save_model(self.folder.file(MODEL), model)

    def summarize(self, *, kept: bool) -> Row:
        history, data = self.trainer.history, self.data
        scores = self._scores(self.test) if kept else {}
        d = data.outputs
        constant = math.log(d) if data.is_classification else d * (1 + math.log(2 * math.pi))
        if (nll := scores.get("forward/nll", 0.0)) > WORSE * max(constant, 1.0):
            self.told.on_note(
                f"the network predicts far worse than a constant: forward nll {nll:.3g} nats, "
                f"where it is about {constant:.2g}; lower the learning rate (now "
                f"{self.config.learning_rate:g})"
            )
        seconds = sum(row["seconds"] for row in history.epochs)
        last = history.epochs[-1] if history.epochs else {}
        names = ("forward/accuracy", "forward/nll", "backward/nll", "backward/centroid_error")
        return {
            **dict.fromkeys(names), **scores, "best_epoch": history.best_epoch, "seconds": seconds,
            "samples_per_second": self.done * self.trainer.reader.n / seconds if seconds else None,
            "backward_trained": self.config.backward != "none",
            "parameters": self.net.parameter_count,
            **{key: value for key, value in last.items() if key.startswith(("train/", "noise/"))},
        }  # fmt: skip

    def draw(self) -> dict[str, str]:
        """Draw each class's backward sample beside its centroid, where there are classes."""
        data, centroids, units = self.data, self.prepared.centroids, pixel_units(self.data)
        if centroids is None:
            return {}
        from nembp.plotting.pictures import backward_picture

        shown = np.linspace(0, data.outputs - 1, min(data.outputs, MOST_DRAWN)).astype(int)
        samples = self.net.reversed.predict(np.eye(data.outputs)[shown])
        pair = [self.net.backend.to_numpy(samples), centroids[shown]]
        if units is not None:  # images are drawn from [0, 1], tables in their own units
            pair = [units(part) for part in pair]
        pair = [part.reshape(-1, *data.shape) for part in pair]
        if not data.is_image:
            pair = [data.x_scaling.invert(part) for part in pair]
        names = tuple(data.classes[k] for k in shown)
        backward_picture(self.folder.file(PICTURE), pair[0], pair[1], data.shape, names)
        return {"picture": PICTURE}


train_run, resume_run = TrainRun.begin, TrainRun.go_on
