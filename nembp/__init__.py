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

_HOMES: Final = {  # public names, and what each is; imported when it is first used
    "Bernoulli": "engine.likelihoods.Bernoulli",
    "BidirectionalClassifier": "estimators.BidirectionalClassifier",
    "BidirectionalRegressor": "estimators.BidirectionalRegressor",
    "Gaussian": "engine.likelihoods.Gaussian",
    "Model": "checkpoints.Model",
    "Multinomial": "engine.likelihoods.Multinomial",
    "Network": "engine.network.Network",
    "Noise": "engine.noise.Noise",
    "check_gradient": "verification.check_gradient",
    "dense_network": "engine.network.dense_network",
    "gradient": "engine.backprop.gradient",
    "load": "checkpoints.load_model",
    "load_dataset": "datasets.load",
    "save": "checkpoints.save_model",
    "save_onnx": "export.save_onnx",
    "train": "arrays.train",
}
__all__ = [
    "Bernoulli", "BidirectionalClassifier", "BidirectionalRegressor", "Gaussian", "Model",
    "Multinomial", "Network", "Noise", "__version__", "check_gradient", "dense_network", "gradient",
    "load", "load_dataset", "save", "save_onnx", "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nembp' has no attribute {name!r}")
    module, _, attribute = _HOMES[name].rpartition(".")
    value = globals()[name] = getattr(importlib.import_module(f"nembp.{module}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
