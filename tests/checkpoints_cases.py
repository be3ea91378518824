"""Models to save, and ways to spoil their files."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nembp.checkpoints import (
    Model,
    environment,
    load_model,
)
from nembp.datasets import Scaling
from nembp.engine.activations import LeakyReLU, Tanh
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Layer, Network
from nembp.errors import DataError

CLASSES = ("zero", "één", "two")


def image_model(dtype: str = "float32", **changes: Any) -> Model:
    """A small network whose every parameter is random, of images of 2 x 2 pixels."""
    layers = [Layer(4), Layer(6, LeakyReLU(0.3), 2), Layer(5, Tanh()), Layer(3)]
    maps = [Dense(4, 6), Transposed(Dense(5, 6)), Dense(5, 3)]
    net = Network(layers, maps, Multinomial(0.5), Gaussian(1 / 3), dtype=dtype)
    generator = np.random.default_rng(5)
    net.parameters[...] = generator.normal(size=net.parameter_count)
    net.parameters[:3] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    model = Model(
        net=net,
        shape=(2, 2, 1),
        classes=CLASSES,
        target_names=(),
        x_scaling=Scaling(factor=1 / 255),
        y_scaling=Scaling(),
        centroids=generator.random((3, 4)),
        is_image=True,
        dataset="squares",
        settings={"epochs": 3, "noise": {"scale": 0.1}, "sizes": [4, 6, 5, 3], "limit": None},
        environment=environment(net),
    )
    return replace(model, **changes)


def contents(model: Model) -> dict[str, Any]:
    """All there is in a model, to compare bit by bit."""
    net = model.net
    result = {field.name: getattr(model, field.name) for field in dataclasses.fields(model)}
    result["net"] = (net.layers, net.maps, net.dtype, net.backend.name, net.direction)
    result["ends"] = (net.likelihood, net.reversed.likelihood)
    result["parameters"] = net.backend.to_numpy(net.parameters).tobytes()
    for key in ("x_scaling", "y_scaling", "pixel_scaling"):
        if result[key] is None:
            continue
        values = [np.asarray(value) for value in (result[key].offset, result[key].factor)]
        result[key] = [(value.shape, str(value.dtype), value.tobytes()) for value in values]
    centroids = result["centroids"]
    if centroids is not None:
        result["centroids"] = (centroids.shape, str(centroids.dtype), centroids.tobytes())
    return result


def refused(path, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        load_model(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.endswith("train again.")
    assert reason in message
    assert "\n" not in message
    assert len(message) < 1000
