"""What `nembp train` can be asked for, and the recipe for what is left open.

Images of several channels get a convolutional network, all else a dense one. It was measured
on digits, MNIST and CIFAR-10 (images) and on scikit-learn's small tables; a run writes down what it
used, so its ``config.toml`` does not change when the recipe does.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final

from nembp.runs.options import Augment, C, Config, File, Layers, Names, Size, option, read_settings

if TYPE_CHECKING:
    from nembp.datasets import Dataset

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

    groups: ClassVar = {
        "dataset": "Data", "layers": "Network", "noise": "NEM noise", "optimizer": "Training",
    }  # fmt: skip

    # fmt: off
    dataset: str = option("Data set: `nembp data list` names them.", words="digits", of="digits")
    data_dir: File | None = option("Folder it is read from; of npz and csv the file, or a folder "
        "with it.")
    targets: Names | None = option("Target columns of a csv, by name; its last column if left out.")
    task: str | None = option("What the targets are; auto looks at them.", choices="auto "
        "classification regression", default="auto")
    limit: int | None = option("Train on this many samples, drawn in the classes' proportions.",
        "≥ 1")
    test_fraction: float | None = option("Share held out for testing where the files hold no test "
        "split.", "> 0 and < 1", default=0.2)
    validation_fraction: float | None = option("Share of the training samples that each epoch is "
        "scored on. Without one, epochs are scored on the test split: for display only, nothing is "
        "chosen by it.", "≥ 0 and < 1", words="0, or 0.1 with --patience")
    split_seed: int | None = option("Seed of these splits and of --limit, apart from --seed so "
        "that runs of different seeds share them.", "≥ 0", default=0)
    image_size: Size | None = option("Resize the files of `images` to this height and width, as in "
        "32x32.")
    delimiter: str | None = option("What separates the cells of a csv: a character, or the word "
        "tab.", words="what the first rows tell")
    header: bool | None = option("Whether the first row of a csv names its columns.",
        words="unless it holds numbers")
    decimal: str | None = option("Decimal mark of a csv.", choices=". ,", words="the point")
    image_order: str | None = option("Whether the channels of images in arrays come before height "
        "and width, or after.", choices="auto first last", words="auto")
    transpose: bool | None = option("Swap height and width of images in arrays, idx files.",
        words="of EMNIST, which is stored so")
    x: str | None = option("Name of the array of samples in an npz; with --y.", words="the usual "
        "names")
    y: str | None = option("Name of its array of targets.", words="the usual names")
    max_bytes: int | None = option("Bytes that a packed file (gzip, npz, image) may unpack to.",
        "≥ 1", words="100 times its own, or 64 MiB")
    scaling: str | None = option("Of the inputs: unit maps images, or each column of a table, to "
        "[0, 1]; channel standardizes images channel by channel; auto is channel for images of "
        "several channels, unit for others, and standardizes the columns of tables.",
        choices="auto unit channel", default="auto")
    augment: Augment | None = option("Change each training image anew every epoch: flips (half of "
        "them, left to right), crops (shifted by up to 4 pixels; crops2: 2), flips,crops, none.",
        default="none", words="none, or flips,crops for cifar10 and cifar100")
    layers: Layers | None = option('Hidden layers, "" for none: 256 neurons, conv32x4s2 (32 '
        'channels, kernel 4x4, stride 2), pool2, up64x4s2, reshape4x4x128, with commas between '
        'them; 256bn and conv32x4s2bn are batch-normalized.', words="128,64, or 512,256 above 256 "
        "inputs; images of several channels, by their size: conv32x4s2,conv64x4s2,conv128x4s2,256")
    activation: str | None = option("Of the hidden neurons.", choices="relu leaky-relu tanh "
        "logistic identity", default="relu")
    forward: str | None = option("Likelihood of the forward direction, log p(y|x).",
        choices="multinomial gaussian bernoulli bipolar", words="multinomial for classes, gaussian "
        "for numbers")
    backward: str | None = option("Likelihood of the backward direction, log p(x|y); none trains "
        "the forward direction alone.", choices="gaussian bernoulli bipolar multinomial none",
        default="gaussian")
    backward_weight: float | None = option("Weight of the backward direction: the precision 1/v of "
        "a gaussian, the tempering power of the others.", "> 0", words="by the data: 0.3 for "
        "digits, 0.1 for mnist, 0.02 with convolutions; several channels 0.004, or 0.0003 with "
        "convolutions")
    weight_scale: float | None = option("Initial weights, times Glorot's; about 4 spares deep "
        "logistic layers a plateau, since the slope of logistic units is at most 1/4.", "> 0",
        default=1.0)
    dtype: str | None = option("Precision.", choices="float32 float64", default="float32")
    noise: str | None = option("Noise on the training targets: NEM (kept where it makes the target "
        "more probable), or one of its controls.", choices="none nem blind anti drift",
        default="none")
    noise_target: str | None = option("Direction whose target receives it.", choices="forward "
        "backward both", default="forward")
    noise_place: Names | None = option("Where in that direction: on its target, its input, all "
        "hidden layers or the last one; several with commas between them. Signals are screened by "
        "how probable the target is when the layers above run again.", choices="target input "
        "hidden last-hidden", default=("target",), words="target, or hidden for logistic units")
    noise_std: float | None = option("Standard deviation of the first draw, in units of the scaled "
        "target.", "≥ 0", default=0.1, words="0.1; on hidden layers alone 0.3, or 1 for logistic "
        "units")
    noise_decay: float | None = option("d of the annealing: std / tᵈ.", "≥ 0", default=1.0)
    noise_clock: str | None = option("What t counts.", choices="epoch iteration",
        default="iteration", words="iteration; on hidden layers alone epoch")
    noise_law: str | None = option("Law of the draws; on targets also normal ones that vary as the "
        "output itself is undecided.", choices="gaussian uniform curvature", default="gaussian")
    noise_mode: str | None = option("t + n, or t (1 + n).", choices="additive multiplicative",
        default="additive")
    noise_screening: str | None = option("Screen whole samples, single neurons, or batches by "
        "their mean gain; auto: neurons for a gaussian target, samples else.", choices="auto "
        "vector component expectation", default="auto")
    noise_rejected: str | None = option("What becomes of a rejected draw: -n is tried, or 0 taken.",
        choices="reflect zero", default="reflect")
    noise_update: str | None = option("Softmax error under noise: a Σ(t+n) - (t+n), a - (t+n), or "
        "noise projected to sum zero.", choices="exact published zero-sum", default="exact")
    noise_draws: int | None = option("Draws per sample, of which the one with the largest gain is "
        "taken.", "≥ 1", default=1)
    optimizer: str | None = option("Optimizer.", choices="adam rmsprop momentum sgd",
        default="adam")
    learning_rate: float | None = option("Of the first step.", "> 0", words="0.001 for adam (from "
        "10000 samples on 0.003, or 0.002 with convolutions) and rmsprop, 0.02 momentum, 0.1 sgd")
    weight_decay: float | None = option("Decoupled decay of the weights that both directions "
        "share.", "≥ 0", default=0.0, words="0, or 0.05 with adam from 10000 samples on")
    schedule: str | None = option("Schedule of the learning rate over the run; late-cosine: at "
        "first constant.", choices="cosine constant step late-cosine", default="cosine")
    batch_size: int | None = option("Samples per step.", "≥ 1", words="32, or 128 from 10000 "
        "samples on")
    epochs: int | None = option("Passes over the training data.", "≥ 1", words="40, or more below "
        "300 samples; from 10000 on 14, or with convolutions 10, or 20 for several channels")
    patience: int | None = option("Stop when the validation split's forward nll has not improved "
        "for this many epochs, and keep the best; holds out a tenth if --validation-fraction is "
        "not given.", "≥ 1")
    seed: int | None = option("Of the weights, batches and noise, each its own stream.", "≥ 0",
        default=0)
    device: str | None = option("auto takes a GPU where one works.", choices="auto cpu gpu",
        default="auto")
    precision: str | None = option("Of a GPU's float32 products: TF32 is faster, and keeps three "
        "digits.", choices="float32 tf32", default="float32")
    cuda_graphs: str | None = option("Capture a GPU's training step once and replay it: faster, "
        "the same numbers.", choices="auto off", default="auto")
    threads: int | None = option("BLAS threads; as the BLAS has it if left out.", "≥ 1")
    # fmt: on


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
    optimizer = config.optimizer or "adam"
    n, wide, colour = len(data.train), data.features > WIDE, is_colour(data)
    layers = config.layers
    if layers is None:
        layers = _convolutions(data) or ((512, 256) if wide else (128, 64))
    dense = all(item.word == "dense" for item in parse(layers))
    weight = 0.1 if wide else 0.3
    if not dense:  # tuned on 54,000 + 6,000 training images of MNIST, conv16x5s2,conv32x5s2,128
        weight = 0.02
    if colour:
        # on 45,000 + 5,000 of CIFAR-10, JPEG re-encoded, 12 epochs, weight none / 0.0003 / 0.001:
        # 76.3 / 76.4 / 75.7 %, centroid error - / 0.033 / 0.027; 0.003 costs accuracy
        weight = 0.004 if dense else 0.0003
    if not data.is_classification:
        weight = min(1.0, data.outputs / data.features)  # as much error from either end
    elif not data.is_image:  # standardized columns vary more than pixels in [0, 1]
        weight = 0.1 * min(1.0, math.sqrt(64 / data.features))
    logistic = config.activation == "logistic"
    if logistic:  # more drowns the forward direction
        weight = min(weight, 1 / data.features)
    # `nembp experiment search` and the protocols ``found`` saw NEM noise pay in all hidden layers
    # of logistic networks: from Glorot's weights those stay on a plateau, which it cuts short, the
    # more so the deeper they are. (Initial weights times 4 do that better; beside them noise does
    # no good.) Nothing of the kind was found for other units, nor on the targets, where the default
    # is as good as none: 0.1 in the first step, 0.01 in the tenth.
    of_targets = config.noise_update or config.noise_mode or config.noise_screening == "component"
    neurons = [layer for layer in layers if not str(layer).startswith(("pool", "reshape"))]
    pays = logistic and neurons and (config.weight_scale or 1.0) <= 1.0 and not of_targets
    place = config.noise_place or (("hidden",) if pays else ("target",))
    return config.filled(
        (True, {
            "forward": "multinomial" if data.is_classification else "gaussian",
            "validation_fraction": 0.0 if config.patience is None else 0.1, "layers": layers,
            "backward_weight": float(f"{weight:.3g}"), "noise_place": place, "batch_size": 32,
            "learning_rate": OPTIMIZERS[optimizer].default_learning_rate,
            # the fewer samples there are, the more epochs
            "epochs": min(max(40, 12_000 // n), 100) if dense else 40,
        }),
        (n >= MANY, {"batch_size": 128, "epochs": 14 if dense else 10}),
        (n >= MANY and colour and not dense, {"epochs": 20}),
        # dense: tuned on 50,000 + 10,000 training images of MNIST, 98.3 % for 98.1 % at 0.001
        # without decay
        (n >= MANY and optimizer == "adam",
         {"learning_rate": 0.003 if dense else 0.002, "weight_decay": 0.05}),
        # flips alone overfit from epoch 8 on: 72 %, centroid error 0.011
        (data.name in ("cifar10", "cifar100"), {"augment": "flips,crops4"}),
        (set(place) <= {"hidden", "last-hidden"},
         {"noise_std": 1.0 if logistic else 0.3, "noise_clock": "epoch"}),
    )  # fmt: skip


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
