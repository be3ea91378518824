"""Recipes: what an option is where nobody sets it.

Images of several channels get a convolutional network, all else a dense one. Measured on digits,
MNIST and CIFAR-10 (images) and on scikit-learn's small tables; a run writes down what it used, so
its ``config.toml`` does not change when a recipe does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from nembp.architecture import DenseItem, parse
from nembp.runs.config import RunConfig

if TYPE_CHECKING:
    from nembp.datasets import Dataset

__all__ = ["ALWAYS", "describe_default", "recipe"]

# whatever the data
ALWAYS: Final[dict[str, Any]] = {
    "task": "auto",
    "test_fraction": 0.2,
    "split_seed": 0,
    "scaling": "auto",
    "augment": "none",
    "activation": "relu",
    "backward": "gaussian",
    "weight_scale": 1.0,
    "dtype": "float32",
    "noise": "none",
    "noise_target": "forward",
    "noise_place": ("target",),
    "noise_std": 0.1,
    "noise_decay": 1.0,
    "noise_clock": "iteration",
    "noise_law": "gaussian",
    "noise_mode": "additive",
    "noise_screening": "auto",
    "noise_rejected": "reflect",
    "noise_update": "exact",
    "noise_draws": 1,
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "cosine",
    "seed": 0,
    "device": "auto",
    "precision": "float32",
    "cuda_graphs": "auto",
}

# of dense networks, by the width of a sample: digits have 64 features, MNIST 784
WIDE: Final = 256
NARROW_INPUT: Final[dict[str, Any]] = {"layers": (128, 64), "backward_weight": 0.3}
WIDE_INPUT: Final[dict[str, Any]] = {"layers": (512, 256), "backward_weight": 0.1}
TABLE_WEIGHT: Final = 0.1  # of standardized columns, which vary more than pixels in [0, 1]
COLOUR_WEIGHT: Final = 0.004  # of several channels, standardized too

# by the number of training samples: digits have 1500, MNIST 60000
MANY: Final = 10_000
MANY_SAMPLES: Final[dict[str, Any]] = {"batch_size": 128, "epochs": 14}
# tuned on 50,000 + 10,000 training images of MNIST: 98.3 % for 98.1 % at 0.001 without decay
ADAM_ON_MANY: Final[dict[str, Any]] = {"learning_rate": 0.003, "weight_decay": 0.05}
FEW_SAMPLES: Final[dict[str, Any]] = {"batch_size": 32, "epochs": 40}
FEW_SEEN: Final = 12_000  # samples in all; the fewer there are, the more epochs
MOST_EPOCHS: Final = 100

# of convolutional networks; the layers for images of several channels that set none
LEAST_SIDE: Final = 8
STRIDED: Final = ("conv32x4s2", "conv64x4s2", "conv128x4s2", "conv256x4s2")
LAST_SIDE: Final = 4  # a strided layer more as long as an image keeps this side
TOP: Final = 256
# grey: tuned on 54,000 + 6,000 training images of MNIST, conv16x5s2,conv32x5s2,128
# colour: on 45,000 + 5,000 of CIFAR-10, JPEG re-encoded, 12 epochs, weight none / 0.0003 / 0.001:
# 76.3 / 76.4 / 75.7 %, centroid error - / 0.033 / 0.027; 0.003 costs accuracy
COLOUR_INPUT: Final[dict[str, Any]] = {"backward_weight": 0.0003, "epochs": 20}
GREY_INPUT: Final[dict[str, Any]] = {"backward_weight": 0.02, "epochs": 10}
CONVOLUTIONS_ON_MANY: Final[dict[str, Any]] = {"batch_size": 128}
CONVOLUTIONS_BY_ADAM_ON_MANY: Final[dict[str, Any]] = {
    "learning_rate": 0.002,
    "weight_decay": 0.05,
}
CONVOLUTIONS_ON_FEW: Final[dict[str, Any]] = {"batch_size": 32, "epochs": 40}

# by name, where more is known than shape and size tell
BY_NAME: Final[dict[str, dict[str, Any]]] = {
    # flips alone overfit from epoch 8 on: 72 %, centroid error 0.011
    "cifar10": {"augment": "flips,crops4"},
    "cifar100": {"augment": "flips,crops4"},
}

_IN_WORDS: Final = {
    "dataset": "digits",
    "layers": "128,64, or 512,256 above 256 inputs; images of several channels, by their size: "
    "conv32x4s2,conv64x4s2,conv128x4s2,256",
    "augment": "none, or flips,crops for cifar10 and cifar100",
    "forward": "multinomial for classes, gaussian for numbers",
    "backward_weight": "by the data: 0.3 for digits, 0.1 for mnist, 0.02 with convolutions; "
    "several channels 0.004, or 0.0003 with convolutions",
    "noise_place": "target, or hidden for logistic units",
    "noise_std": "0.1; on hidden layers alone 0.3, or 1 for logistic units",
    "noise_clock": "iteration; on hidden layers alone epoch",
    "learning_rate": "0.001 for adam (from 10000 samples on 0.003, or 0.002 with convolutions) "
    "and rmsprop, 0.02 momentum, 0.1 sgd",
    "weight_decay": "0, or 0.05 with adam from 10000 samples on",
    "batch_size": "32, or 128 from 10000 samples on",
    "epochs": "40, or more below 300 samples; from 10000 on 14, or with "
    "convolutions 10, or 20 for several channels",
    "validation_fraction": "0, or 0.1 with --patience",
}


def recipe(data: Dataset, config: RunConfig | None = None) -> RunConfig:
    """Fill in what a configuration leaves open.

    Parameters
    ----------
    data : Dataset
        What is to be trained on.
    config : RunConfig, optional
        What is set already, and stays.

    Returns
    -------
    RunConfig
        Without a None but for data_dir, targets, limit, image_size, patience and threads, where
        it means none.

    >>> from nembp.datasets import load
    >>> filled = recipe(load("digits"), RunConfig(optimizer="sgd"))
    >>> filled.layers, filled.epochs, filled.backward_weight, filled.learning_rate
    ((128, 64), 40, 0.3, 0.1)
    """
    from nembp.engine.optimizers import OPTIMIZERS

    config = config or RunConfig(dataset=data.name)
    set_already = {name: value for name, value in vars(config).items() if value is not None}
    optimizer = OPTIMIZERS[set_already.get("optimizer", ALWAYS["optimizer"])]
    defaults = {**ALWAYS, "learning_rate": optimizer.default_learning_rate}
    layers = set_already.get("layers", _convolutions(data))
    if not all(isinstance(item, DenseItem) for item in parse(layers)):
        defaults |= _convolutional(data, optimizer.name) | {"layers": layers}
    else:
        defaults |= _dense(data, optimizer.name)
    defaults |= BY_NAME.get(data.name, {})
    defaults["forward"] = "multinomial" if data.is_classification else "gaussian"
    defaults["validation_fraction"] = 0.0 if config.patience is None else 0.1
    defaults["backward_weight"] = _backward_weight(data, defaults, set_already)
    defaults |= _noise(defaults | set_already, set_already)
    return RunConfig(**(defaults | set_already))


def _dense(data: Dataset, optimizer: str) -> dict[str, Any]:
    n = len(data.train)
    defaults = {**(WIDE_INPUT if data.features > WIDE else NARROW_INPUT)}
    if _is_colour(data):
        defaults["backward_weight"] = COLOUR_WEIGHT
    if n >= MANY:
        return defaults | MANY_SAMPLES | (ADAM_ON_MANY if optimizer == "adam" else {})
    epochs = max(FEW_SAMPLES["epochs"], FEW_SEEN // n)
    return {**defaults, **FEW_SAMPLES, "epochs": min(epochs, MOST_EPOCHS)}


def _convolutional(data: Dataset, optimizer: str) -> dict[str, Any]:
    defaults = {**(COLOUR_INPUT if _is_colour(data) else GREY_INPUT)}
    if len(data.train) < MANY:
        return defaults | CONVOLUTIONS_ON_FEW
    adam = CONVOLUTIONS_BY_ADAM_ON_MANY if optimizer == "adam" else {}
    return defaults | CONVOLUTIONS_ON_MANY | adam


def _noise(settings: dict[str, Any], set_already: dict[str, Any]) -> dict[str, Any]:
    """Return where noise goes, and how much of it.

    `nembp experiment search` and the protocols ``found`` saw NEM noise pay in all hidden layers of
    logistic networks: from Glorot's weights those stay on a plateau, which it cuts short, the more
    so the deeper they are. (Initial weights times 4, ``weight_scale``, do that better; beside them
    noise does no good.) Nothing of the kind was found for other units, nor on the targets, where
    the default is as good as none: 0.1 in the first step, 0.01 in the tenth.
    """
    logistic = settings["activation"] == "logistic"
    of_targets = {"noise_update", "noise_mode"} & set(set_already)
    of_targets |= {"noise_screening"} if settings["noise_screening"] == "component" else set()
    neurons = [x for x in settings["layers"] if not str(x).startswith(("pool", "reshape"))]
    hidden = logistic and neurons and settings["weight_scale"] <= 1.0 and not of_targets
    place = set_already.get("noise_place", ("hidden",) if hidden else ("target",))
    if not set(place) <= {"hidden", "last-hidden"}:
        return {"noise_place": place}
    return {"noise_place": place, "noise_std": 1.0 if logistic else 0.3, "noise_clock": "epoch"}


def _is_colour(data: Dataset) -> bool:
    return data.is_image and data.shape[2] > 1


def _convolutions(data: Dataset) -> tuple[int | str, ...]:
    """Return the convolutional layers that suit a data set's images, none for other data."""
    if not _is_colour(data) or min(data.shape[:2]) < LEAST_SIDE:
        return ()
    halvings = int(math.log2(min(data.shape[:2]) / LAST_SIDE))
    return (*STRIDED[:halvings], TOP)


def _backward_weight(data: Dataset, defaults: dict[str, Any], set_already: dict[str, Any]) -> float:
    weight = float(defaults["backward_weight"])
    if not data.is_classification:
        weight = min(1.0, data.outputs / data.features)  # as much error from either end
    elif not data.is_image:
        weight = TABLE_WEIGHT * min(1.0, math.sqrt(64 / data.features))
    if set_already.get("activation") == "logistic":  # more drowns the forward direction
        weight = min(weight, 1 / data.features)
    return float(f"{weight:.3g}")


def describe_default(name: str) -> str:
    """Say in words what an option is where it is not set; "" where that is nothing."""
    if name in _IN_WORDS:
        return _IN_WORDS[name]
    value = ALWAYS.get(name)
    return "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
