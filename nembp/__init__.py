"""Bidirectional backpropagation with noise-boosted (NEM) training, from scratch in NumPy/CuPy.

>>> import nembp
>>> net = nembp.dense_network([64, 32, 10])
>>> net.reversed.reversed is net
True
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from nembp.version import __version__

if TYPE_CHECKING:
    from nembp.arrays import train
    from nembp.checkpoints import Model
    from nembp.checkpoints import load_model as load
    from nembp.checkpoints import save_model as save
    from nembp.datasets import load as load_dataset
    from nembp.engine.backprop import gradient
    from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
    from nembp.engine.network import Network, dense_network
    from nembp.engine.noise import Noise
    from nembp.estimators import BidirectionalClassifier, BidirectionalRegressor
    from nembp.export import save_onnx
    from nembp.verification import check_gradient

# public name: its module, and its name there; imported when it is first used
_HOMES: Final = {
    "Network": ("engine.network", "Network"),
    "dense_network": ("engine.network", "dense_network"),
    "train": ("arrays", "train"),
    "BidirectionalClassifier": ("estimators", "BidirectionalClassifier"),
    "BidirectionalRegressor": ("estimators", "BidirectionalRegressor"),
    "gradient": ("engine.backprop", "gradient"),
    "Noise": ("engine.noise", "Noise"),
    "Multinomial": ("engine.likelihoods", "Multinomial"),
    "Gaussian": ("engine.likelihoods", "Gaussian"),
    "Bernoulli": ("engine.likelihoods", "Bernoulli"),
    "load_dataset": ("datasets", "load"),
    "Model": ("checkpoints", "Model"),
    "save": ("checkpoints", "save_model"),
    "load": ("checkpoints", "load_model"),
    "save_onnx": ("export", "save_onnx"),
    "check_gradient": ("verification", "check_gradient"),
}

__all__ = [
    "Bernoulli",
    "BidirectionalClassifier",
    "BidirectionalRegressor",
    "Gaussian",
    "Model",
    "Multinomial",
    "Network",
    "Noise",
    "__version__",
    "check_gradient",
    "dense_network",
    "gradient",
    "load",
    "load_dataset",
    "save",
    "save_onnx",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nembp' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(f"nembp.{module}"), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
