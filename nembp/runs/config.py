"""What `nembp train` can be asked for, and the recipe for what is left open.

Images of several channels get a convolutional network, all else a dense one. It was measured
on digits, MNIST and CIFAR-10 (images) and on scikit-learn's small tables; a run writes down what it
used, so its ``config.toml`` does not change when the recipe does.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from nembp.runs.options import C, Config, choice, option, read_settings

if TYPE_CHECKING:
    from nembp.datasets import Dataset

DATA, NETWORK, NOISE, TRAINING = "Data", "Network", "NEM noise", "Training"
TABLES = ("delimiter", "header", "decimal")  # how a table is written


@dataclass(frozen=True)
class RunConfig(Config):
    """Options of a training run; None means the data set's recipe (see `recipe`).

    The fields are those of ``nembp train --help``, with _ for -.

    >>> RunConfig(layers="conv8x4s2,16", epochs=3).layers
    ('conv8x4s2', 16)
    >>> RunConfig(epochs=0)
    Traceback (most recent call last):
        ...
    nembp.errors.ArchitectureError: epochs must be a whole number ≥ 1, got 0
    """

    dataset: str = option("text", DATA, "Data set: `nembp data list` names them.", "digits",
        words="digits")  # fmt: skip
    data_dir: str | None = option("path", DATA, "Folder it is read from; of npz and csv the file, "
        "or a folder with it.")  # fmt: skip
    targets: tuple[str, ...] | None = option("names", DATA, "Target columns of a csv, by name; "
        "its last column if left out.")  # fmt: skip
    task: str | None = choice(DATA, "What the targets are; auto looks at them.", "auto",
        "classification", "regression", default="auto")  # fmt: skip
    limit: int | None = option("integer", DATA, "Train on this many samples, drawn in the "
        "classes' proportions.", least=1)  # fmt: skip
    test_fraction: float | None = option("number", DATA, "Share held out for testing where the "
        "files hold no test split.", above=0, below=1, default=0.2)  # fmt: skip
    validation_fraction: float | None = option("number", DATA, "Share of the training samples "
        "that each epoch is scored on. Without one, epochs are scored on the test split: for "
        "display only, nothing is chosen by it.", least=0, below=1, words="0, or 0.1 with "
        "--patience")  # fmt: skip
    split_seed: int | None = option("integer", DATA, "Seed of these splits and of --limit, apart "
        "from --seed so that runs of different seeds share them.", least=0, default=0)  # fmt: skip
    image_size: tuple[int, int] | None = option("size", DATA, "Resize the files of `images` to "
        "this height and width, as in 32x32.")  # fmt: skip
    delimiter: str | None = option("text", DATA, "What separates the cells of a csv: a character, "
        "or the word tab.", words="what the first rows tell")  # fmt: skip
    header: bool | None = option("flag", DATA, "Whether the first row of a csv names its columns.",
        words="unless it holds numbers")  # fmt: skip
    decimal: str | None = choice(DATA, "Decimal mark of a csv.", ".", ",", words="the point")
    image_order: str | None = choice(DATA, "Whether the channels of images in arrays come before "
        "height and width, or after.", "auto", "first", "last", words="auto")  # fmt: skip
    transpose: bool | None = option("flag", DATA, "Swap height and width of images in arrays, idx "
        "files.", words="of EMNIST, which is stored so")  # fmt: skip
    x: str | None = option("text", DATA, "Name of the array of samples in an npz; with --y.",
        words="the usual names")  # fmt: skip
    y: str | None = option("text", DATA, "Name of its array of targets.", words="the usual names")
    max_bytes: int | None = option("integer", DATA, "Bytes that a packed file (gzip, npz, "
        "image) may unpack to.", least=1, words="100 times its own, or 64 MiB")  # fmt: skip
    scaling: str | None = choice(DATA, "Of the inputs: unit maps images, or each column of a "
        "table, to [0, 1]; channel standardizes images channel by channel; auto is channel for "
        "images of several channels, unit for others, and standardizes the columns of tables.",
        "auto", "unit", "channel", default="auto")  # fmt: skip
    augment: str | None = option("augmentation", DATA, "Change each training image anew every "
        "epoch: flips (half of them, left to right), crops (shifted by up to 4 pixels; crops2: "
        "2), flips,crops, none.", default="none", words="none, or flips,crops for cifar10 and "
        "cifar100")  # fmt: skip
    layers: tuple[int | str, ...] | None = option("layers", NETWORK, 'Hidden layers, "" for none: '
        "256 neurons, conv32x4s2 (32 channels, kernel 4x4, stride 2), pool2, up64x4s2, "
        "reshape4x4x128, with commas between them; 256bn and conv32x4s2bn are batch-normalized.",
        words="128,64, or 512,256 above 256 inputs; images of several channels, by their size: "
        "conv32x4s2,conv64x4s2,conv128x4s2,256")  # fmt: skip
    activation: str | None = choice(NETWORK, "Of the hidden neurons.", "relu", "leaky-relu", "tanh",
        "logistic", "identity", default="relu")  # fmt: skip
    forward: str | None = choice(NETWORK, "Likelihood of the forward direction, log p(y|x).",
        "multinomial", "gaussian", "bernoulli", "bipolar",
        words="multinomial for classes, gaussian for "
        "numbers")  # fmt: skip
    backward: str | None = choice(NETWORK, "Likelihood of the backward direction, log p(x|y); "
        "none trains the forward direction alone.",
        "gaussian", "bernoulli", "bipolar", "multinomial", "none",
        default="gaussian")  # fmt: skip
    backward_weight: float | None = option("number", NETWORK, "Weight of the backward direction: "
        "the precision 1/v of a gaussian, the tempering power of the others.", above=0,
        words="by the data: 0.3 for digits, 0.1 for mnist, 0.02 with convolutions; several "
        "channels 0.004, or 0.0003 with convolutions")  # fmt: skip
    weight_scale: float | None = option("number", NETWORK, "Initial weights, times Glorot's; "
        "about 4 spares deep logistic layers a plateau, since the slope of logistic units is at "
        "most 1/4.", above=0, default=1.0)  # fmt: skip
    dtype: str | None = choice(NETWORK, "Precision.", "float32", "float64", default="float32")
    noise: str | None = choice(NOISE, "Noise on the training targets: NEM (kept where it makes "
        "the target more probable), or one of its controls.", "none", "nem", "blind", "anti",
        "drift", default="none")  # fmt: skip
    noise_target: str | None = choice(NOISE, "Direction whose target receives it.", "forward",
        "backward", "both", default="forward")  # fmt: skip
    noise_place: tuple[str, ...] | None = option("names", NOISE, "Where in that direction: on its "
        "target, its input, all hidden layers or the last one; several with commas between them. "
        "Signals are screened by how probable the target is when the layers above run again.",
        choices=("target", "input", "hidden", "last-hidden"), default=("target",),
        words="target, or hidden for logistic units")  # fmt: skip
    noise_std: float | None = option("number", NOISE, "Standard deviation of the first draw, in "
        "units of the scaled target.", least=0, default=0.1, words="0.1; on hidden layers alone "
        "0.3, or 1 for logistic units")  # fmt: skip
    noise_decay: float | None = option("number", NOISE, "d of the annealing: std / tᵈ.", least=0,
        default=1.0)  # fmt: skip
    noise_clock: str | None = choice(NOISE, "What t counts.", "epoch", "iteration",
        default="iteration", words="iteration; on hidden layers alone epoch")  # fmt: skip
    noise_law: str | None = choice(NOISE, "Law of the draws; on targets also normal ones that "
        "vary as the output itself is undecided.", "gaussian", "uniform", "curvature",
        default="gaussian")  # fmt: skip
    noise_mode: str | None = choice(NOISE, "t + n, or t (1 + n).", "additive", "multiplicative",
        default="additive")  # fmt: skip
    noise_screening: str | None = choice(NOISE, "Screen whole samples, single neurons, or batches "
        "by their mean gain; auto: neurons for a gaussian target, samples else.", "auto", "vector",
        "component", "expectation", default="auto")  # fmt: skip
    noise_rejected: str | None = choice(NOISE, "What becomes of a rejected draw: -n is tried, or "
        "0 taken.", "reflect", "zero", default="reflect")  # fmt: skip
    noise_update: str | None = choice(NOISE, "Softmax error under noise: a Σ(t+n) - (t+n), a - "
        "(t+n), or noise projected to sum zero.", "exact", "published", "zero-sum",
        default="exact")  # fmt: skip
    noise_draws: int | None = option("integer", NOISE, "Draws per sample, of which the one with "
        "the largest gain is taken.", least=1, default=1)  # fmt: skip
    optimizer: str | None = choice(TRAINING, "Optimizer.", "adam", "rmsprop", "momentum", "sgd",
        default="adam")  # fmt: skip
    learning_rate: float | None = option("number", TRAINING, "Of the first step.", above=0,
        words="0.001 for adam (from 10000 samples on 0.003, or 0.002 with convolutions) and "
        "rmsprop, 0.02 momentum, 0.1 sgd")  # fmt: skip
    weight_decay: float | None = option("number", TRAINING, "Decoupled decay of the weights that "
        "both directions share.", least=0, default=0.0, words="0, or 0.05 with adam from 10000 "
        "samples on")  # fmt: skip
    schedule: str | None = choice(TRAINING, "Schedule of the learning rate over the run; "
        "late-cosine: at first constant.", "cosine", "constant", "step", "late-cosine",
        default="cosine")  # fmt: skip
    batch_size: int | None = option("integer", TRAINING, "Samples per step.", least=1,
        words="32, or 128 from 10000 samples on")  # fmt: skip
    epochs: int | None = option("integer", TRAINING, "Passes over the training data.", least=1,
        words="40, or more below 300 samples; from 10000 on 14, or with convolutions 10, or 20 "
        "for several channels")  # fmt: skip
    patience: int | None = option("integer", TRAINING, "Stop when the validation split's forward "
        "nll has not improved for this many epochs, and keep the best; holds out a tenth if "
        "--validation-fraction is not given.", least=1)  # fmt: skip
    seed: int | None = option("integer", TRAINING, "Of the weights, batches and noise, each its "
        "own stream.", least=0, default=0)  # fmt: skip
    device: str | None = choice(TRAINING, "auto takes a GPU where one works.", "auto", "cpu", "gpu",
        default="auto")  # fmt: skip
    precision: str | None = choice(TRAINING, "Of a GPU's float32 products: TF32 is faster, and "
        "keeps three digits.", "float32", "tf32", default="float32")  # fmt: skip
    cuda_graphs: str | None = choice(TRAINING, "Capture a GPU's training step once and replay it: "
        "faster, the same numbers.", "auto", "off", default="auto")  # fmt: skip
    threads: int | None = option("integer", TRAINING, "BLAS threads; as the BLAS has it if left "
        "out.", least=1)  # fmt: skip


def from_toml(path: str | os.PathLike[str], kind: type[C] = RunConfig) -> C:  # type: ignore[assignment]
    """Return the configuration that a file describes, as in ``from_toml("runs/a/config.toml")``."""
    return kind(**read_settings(path, kind))


# -- the recipe ------------------------------------------------------------------------------------
MANY: Final = 10_000  # training samples: digits have 1500, MNIST 60000
WIDE: Final = 256  # features: digits have 64, MNIST 784


def recipe(data: Dataset, config: RunConfig | None = None) -> RunConfig:
    """Fill in what a configuration leaves open, and keep what it sets.

    Not data_dir, targets, limit, image_size, patience, threads and how files are read, where None
    means none.

    >>> from nembp.datasets import load
    >>> filled = recipe(load("digits"), RunConfig(optimizer="sgd"))
    >>> filled.layers, filled.epochs, filled.backward_weight, filled.learning_rate
    ((128, 64), 40, 0.3, 0.1)
    """
    from nembp.architecture import parse
    from nembp.engine.optimizers import OPTIMIZERS

    config = config or RunConfig(dataset=data.name)
    chosen, defaults = config.chosen(), RunConfig.defaults()
    optimizer = OPTIMIZERS[chosen.get("optimizer", defaults["optimizer"])]
    n, many, colour = len(data.train), len(data.train) >= MANY, is_colour(data)
    defaults["forward"] = "multinomial" if data.is_classification else "gaussian"
    defaults["validation_fraction"] = 0.0 if config.patience is None else 0.1
    defaults["learning_rate"] = optimizer.default_learning_rate
    defaults["batch_size"] = 128 if many else 32
    layers = chosen.get("layers", _convolutions(data))
    dense = all(item.word == "dense" for item in parse(layers))
    if dense:
        wide = data.features > WIDE
        defaults["layers"] = (512, 256) if wide else (128, 64)
        weight = 0.004 if colour else 0.1 if wide else 0.3
        # the fewer samples there are, the more epochs
        defaults["epochs"] = 14 if many else min(max(40, 12_000 // n), 100)
    else:
        # grey: tuned on 54,000 + 6,000 training images of MNIST, conv16x5s2,conv32x5s2,128
        # colour: on 45,000 + 5,000 of CIFAR-10, JPEG re-encoded, 12 epochs, weight none / 0.0003 /
        # 0.001: 76.3 / 76.4 / 75.7 %, centroid error - / 0.033 / 0.027; 0.003 costs accuracy
        defaults["layers"] = layers
        weight = 0.0003 if colour else 0.02
        defaults["epochs"] = 40 if not many else 20 if colour else 10
    if many and optimizer.name == "adam":
        # dense: tuned on 50,000 + 10,000 training images of MNIST, 98.3 % for 98.1 % at 0.001
        # without decay
        defaults |= {"learning_rate": 0.003 if dense else 0.002, "weight_decay": 0.05}
    if not data.is_classification:
        weight = min(1.0, data.outputs / data.features)  # as much error from either end
    elif not data.is_image:  # standardized columns vary more than pixels in [0, 1]
        weight = 0.1 * min(1.0, math.sqrt(64 / data.features))
    if chosen.get("activation") == "logistic":  # more drowns the forward direction
        weight = min(weight, 1 / data.features)
    defaults["backward_weight"] = float(f"{weight:.3g}")
    if data.name in ("cifar10", "cifar100"):
        # flips alone overfit from epoch 8 on: 72 %, centroid error 0.011
        defaults["augment"] = "flips,crops4"
    defaults |= _noise(defaults | chosen, chosen)
    return RunConfig(**(defaults | chosen))


def _noise(settings: dict[str, Any], chosen: dict[str, Any]) -> dict[str, Any]:
    """Return where noise goes, and how much of it.

    `nembp experiment search` and the protocols ``found`` saw NEM noise pay in all hidden layers of
    logistic networks: from Glorot's weights those stay on a plateau, which it cuts short, the more
    so the deeper they are. (Initial weights times 4, ``weight_scale``, do that better; beside them
    noise does no good.) Nothing of the kind was found for other units, nor on the targets, where
    the default is as good as none: 0.1 in the first step, 0.01 in the tenth.
    """
    logistic = settings["activation"] == "logistic"
    of_targets = {"noise_update", "noise_mode"} & set(chosen)
    of_targets |= {"noise_screening"} if settings["noise_screening"] == "component" else set()
    neurons = [x for x in settings["layers"] if not str(x).startswith(("pool", "reshape"))]
    hidden = logistic and neurons and settings["weight_scale"] <= 1.0 and not of_targets
    place = chosen.get("noise_place", ("hidden",) if hidden else ("target",))
    if not set(place) <= {"hidden", "last-hidden"}:
        return {"noise_place": place}
    return {"noise_place": place, "noise_std": 1.0 if logistic else 0.3, "noise_clock": "epoch"}


def is_colour(data: Dataset) -> bool:
    """Return whether samples are images of several channels."""
    return data.is_image and data.shape[2] > 1


def _convolutions(data: Dataset) -> tuple[int | str, ...]:
    """Return convolutions for images of several channels: each but the last keeps a side of 4."""
    side = min(data.shape[:2]) if is_colour(data) else 0
    if side < 8:
        return ()
    halvings = min(int(math.log2(side / 4)), 4)
    return (*(f"conv{32 << k}x4s2" for k in range(halvings)), 256)
