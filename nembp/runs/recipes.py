"""Recipes: what an option is where nobody sets it.

Measured on digits and MNIST (images) and on scikit-learn's small tables; a run writes down what it
used, so its ``config.toml`` does not change when a recipe does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from nembp.runs.config import RunConfig

if TYPE_CHECKING:
    from nembp.datasets import Dataset

__all__ = ["ALWAYS", "describe_default", "recipe"]

# whatever the data
ALWAYS: Final[dict[str, Any]] = {
    "task": "auto",
    "test_fraction": 0.2,
    "split_seed": 0,
    "activation": "relu",
    "backward": "gaussian",
    "dtype": "float32",
    "noise": "none",
    "noise_target": "forward",
    "noise_std": 0.1,
    "noise_decay": 1.0,
    "noise_clock": "iteration",
    "noise_law": "gaussian",
    "noise_mode": "additive",
    "noise_screening": "auto",
    "noise_rejected": "reflect",
    "noise_update": "exact",
    "optimizer": "adam",
    "weight_decay": 0.0,
    "schedule": "cosine",
    "seed": 0,
    "device": "auto",
}

# by the width of a sample: digits have 64 features, MNIST 784
WIDE: Final = 256
NARROW_INPUT: Final[dict[str, Any]] = {"layers": (128, 64), "backward_weight": 0.3}
WIDE_INPUT: Final[dict[str, Any]] = {"layers": (512, 256), "backward_weight": 0.1}
TABLE_WEIGHT: Final = 0.1  # of standardized columns, which vary more than pixels in [0, 1]

# by the number of training samples: digits have 1500, MNIST 60000
MANY: Final = 10_000
MANY_SAMPLES: Final[dict[str, Any]] = {"batch_size": 128, "epochs": 14}
# tuned on 50,000 + 10,000 training images of MNIST: 98.3 % for 98.1 % at 0.001 without decay
ADAM_ON_MANY: Final[dict[str, Any]] = {"learning_rate": 0.003, "weight_decay": 0.05}
FEW_SAMPLES: Final[dict[str, Any]] = {"batch_size": 32, "epochs": 40}
FEW_SEEN: Final = 12_000  # samples in all; the fewer there are, the more epochs
MOST_EPOCHS: Final = 100

_IN_WORDS: Final = {
    "dataset": "digits",
    "layers": "128,64, or 512,256 above 256 inputs",
    "forward": "multinomial for classes, gaussian for numbers",
    "backward_weight": "by the data: 0.3 for digits, 0.1 for mnist",
    "learning_rate": "0.001 for adam (0.003 from 10000 samples on) and rmsprop, 0.02 momentum, "
    "0.1 sgd",
    "weight_decay": "0, or 0.05 with adam from 10000 samples on",
    "batch_size": "32, or 128 from 10000 samples on",
    "epochs": "40, or more below 300 samples, or 14 from 10000 on",
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
        Without a None but for data_dir, targets, limit, patience and threads, where it means none.

    >>> from nembp.datasets import load
    >>> filled = recipe(load("digits"), RunConfig(optimizer="sgd"))
    >>> filled.layers, filled.epochs, filled.backward_weight, filled.learning_rate
    ((128, 64), 40, 0.3, 0.1)
    """
    from nembp.optimizers import OPTIMIZERS

    config = config or RunConfig(dataset=data.name)
    set_already = {name: value for name, value in vars(config).items() if value is not None}
    n = len(data.train)
    defaults = {**ALWAYS, **(WIDE_INPUT if data.features > WIDE else NARROW_INPUT)}
    optimizer = OPTIMIZERS[set_already.get("optimizer", ALWAYS["optimizer"])]
    defaults["learning_rate"] = optimizer.default_learning_rate
    if n >= MANY:
        defaults |= MANY_SAMPLES
        if optimizer.name == "adam":
            defaults |= ADAM_ON_MANY
    else:
        epochs = max(FEW_SAMPLES["epochs"], FEW_SEEN // n)
        defaults |= {**FEW_SAMPLES, "epochs": min(epochs, MOST_EPOCHS)}
    defaults["forward"] = "multinomial" if data.is_classification else "gaussian"
    defaults["validation_fraction"] = 0.0 if config.patience is None else 0.1
    defaults["backward_weight"] = _backward_weight(data, defaults, set_already)
    return RunConfig(**(defaults | set_already))


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
