from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pytest
from checkpoints_cases import contents, image_model, refused
from hypothesis import given
from hypothesis import strategies as st

from nembp import checkpoints as kinds
from nembp.backend import Backend, CupyBackend
from nembp.checkpoints import (
    Model,
    environment,
    load_model,
    save_model,
)
from nembp.datasets import Scaling
from nembp.engine.activations import ACTIVATIONS
from nembp.engine.likelihoods import Bernoulli, Gaussian, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Layer, Network, dense_network
from nembp.errors import ArchitectureError, DataError, DeviceError, OutputError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def table_model(dtype: str = "float64", **changes: Any) -> Model:
    net = dense_network([4, 8, 2], forward="gaussian", backward="bernoulli", dtype=dtype, seed=3)
    offset = np.random.default_rng(1).normal(size=4)
    scaling = Scaling(np.array([1e-300, -2.5]), np.array([3.0, 1e7]))
    model = image_model(
        net=net,
        shape=(4,),
        classes=(),
        target_names=("height", "width"),
        x_scaling=Scaling(offset, 1 / offset),
        y_scaling=scaling,
        centroids=None,
        is_image=False,
    )
    return replace(model, **changes)


def colour_model(dtype: str = "float32", **changes: Any) -> Model:
    """Colours standardized by channel: a model that knows two scalings of its pixels."""
    channels = Scaling(np.array([118.5, 120.25, 99.0]), np.array([1 / 61, 1 / 62, 1 / 63]))
    model = image_model(
        net=dense_network([12, 3], backward="gaussian", dtype=dtype),
        shape=(2, 2, 3),
        x_scaling=channels,
        pixel_scaling=Scaling(factor=1 / 255),
        centroids=None,
    )
    return replace(model, **changes)


# --- round trips


@pytest.mark.parametrize("make", [image_model, table_model, colour_model])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_model_comes_back_bit_for_bit(path, make, dtype):
    model = make(dtype)
    save_model(path, model)
    back = load_model(path)
    assert contents(back) == contents(model)
    for part in ("offset", "factor"):  # a float or an array
        assert type(getattr(back.x_scaling, part)) is type(getattr(model.x_scaling, part))
    assert os.listdir(path.parent) == ["model.npz"]
    save_model(path.with_name("again.npz"), back)
    assert path.with_name("again.npz").read_bytes() == path.read_bytes()


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=4),
    st.sampled_from(sorted(ACTIVATIONS)),
    st.sampled_from(list(product([Multinomial, Gaussian, Bernoulli], repeat=2))),
    st.floats(0.0, 1e300, exclude_min=True),
    st.sampled_from(["float32", "float64"]),
    st.integers(0, 2**32),
)
def test_any_network_comes_back(tmp_path_factory, sizes, activation, ends, weight, dtype, seed):
    forward, backward = (end(weight) for end in ends)
    net = dense_network(
        sizes, activation=activation, forward=forward, backward=backward, dtype=dtype, seed=seed
    )
    model = table_model(
        net=net,
        shape=(sizes[0],),
        target_names=(),
        x_scaling=Scaling(),
        y_scaling=Scaling(2.0, 0.1),
    )
    path = tmp_path_factory.mktemp("models") / "model.npz"
    save_model(path, model)
    assert contents(load_model(path)) == contents(model)


def test_loaded_network_works_in_both_directions_over_one_memory(path):
    model = image_model("float64", net=dense_network([4, 5, 3], dtype="float64", seed=1))
    save_model(path, model)
    net = load_model(path).net
    x, y = np.random.default_rng(0).random((5, 4)), np.eye(3)
    assert net.reversed.reversed is net
    assert np.array_equal(net.predict(x), model.net.predict(x))
    assert np.array_equal(net.reversed.predict(y), model.net.reversed.predict(y))
    net.parameters[...] = 0.0
    assert not net.weights[0].any()
    assert not net.reversed.weights[-1].any()
    assert np.array_equal(net.reversed.predict(y), np.zeros((3, 4)))


def test_model_is_saved_and_loaded_where_there_is_a_gpu(path):
    try:
        device = CupyBackend()
    except DeviceError:
        pytest.skip("no GPU")
    model = image_model()
    save_model(path, model)
    on_gpu = load_model(path, device="gpu")
    assert on_gpu.net.backend.name == "gpu"
    assert device.to_numpy(on_gpu.net.parameters).tobytes() == model.net.parameters.tobytes()
    save_model(path.with_name("gpu.npz"), on_gpu)
    assert path.with_name("gpu.npz").read_bytes() == path.read_bytes()


def test_model_is_loaded_onto_any_backend(path):
    strict = pytest.importorskip("array_api_strict")
    backend = Backend(strict, strict.Device("device1"))
    model = image_model()
    save_model(path, model)
    loaded = load_model(path, device=backend)
    assert loaded.net.backend is backend
    on_host = loaded.net.parameters.to_device(strict.Device("CPU_DEVICE"))
    assert np.asarray(on_host).tobytes() == model.net.parameters.tobytes()


def test_unusable_device_is_a_device_error(path, monkeypatch):
    save_model(path, image_model())
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy fails
    with pytest.raises(DeviceError, match="CuPy"):
        load_model(path, device="gpu")


# --- what is not written


def test_failed_write_keeps_the_old_model(path, monkeypatch):
    save_model(path, image_model())
    old = path.read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OutputError, match=r"model\.npz: cannot be written \(No space left"):
        save_model(path, table_model())
    assert path.read_bytes() == old
    assert os.listdir(path.parent) == ["model.npz"]


def test_unwritable_place_is_named(path):
    path.write_bytes(b"")
    with pytest.raises(OutputError, match=r"model\.npz/below: cannot be written .* Choose another"):
        save_model(path / "below", image_model())


def poisoned() -> Network:
    net = image_model().net
    net.parameters[7] = np.nan
    return net


UNFIT = {
    "parameters hold a NaN": lambda: image_model(net=poisoned()),
    "centroids hold a NaN": lambda: image_model(centroids=np.full((3, 4), np.inf)),
    "samples of shape (2, 2, 2) do not fit 4 inputs": lambda: image_model(shape=(2, 2, 2)),
    "samples of shape (-2, -2, 1) do not fit": lambda: image_model(shape=(-2, -2, 1)),
    "samples of shape () do not fit": lambda: image_model(shape=()),
    "images of shape (4,)": lambda: image_model(shape=(4,)),
    "2 classes do not fit 3 outputs": lambda: image_model(classes=("a", "b"), centroids=None),
    "1 target names do not fit 2 outputs": lambda: table_model(target_names=("a",)),
    "centroids of shape (4, 3)": lambda: image_model(centroids=np.zeros((4, 3))),
    "x_scaling of shape (3,) does not fit (2, 2, 1)": lambda: image_model(
        x_scaling=Scaling(np.zeros(3))
    ),
    "pixel_scaling of shape (2,) does not fit (2, 2, 3)": lambda: colour_model(
        pixel_scaling=Scaling(np.zeros(2))
    ),
    "y_scaling of shape (2, 2) does not fit (2,)": lambda: table_model(
        y_scaling=Scaling(factor=np.ones((2, 2)))
    ),
}


@pytest.mark.parametrize("reason", UNFIT)
def test_what_would_not_load_is_neither_written_nor_loaded(path, reason, monkeypatch):
    with pytest.raises(DataError) as caught:
        save_model(path, UNFIT[reason]())
    assert str(caught.value).startswith(f"{path}: not written: ")
    assert reason in str(caught.value)
    assert not path.exists()
    with monkeypatch.context() as patch:  # the same content under a seal that fits
        patch.setattr("nembp.checkpoints._check", lambda *_: None)
        save_model(path, UNFIT[reason]())
    refused(path, reason)


def test_networks_that_no_file_holds_are_refused(path):
    net = image_model().net
    with pytest.raises(ArchitectureError, match="forward direction"):
        save_model(path, image_model(net=net.reversed))
    with pytest.raises(ArchitectureError, match="complex128"):
        save_model(path, image_model(net=net.to(dtype="complex128")))
    with pytest.raises(ArchitectureError, match="its header is not JSON"):
        save_model(path, image_model(settings={"rate": float("nan")}))
    assert not path.exists()


# --- kinds


@dataclass(frozen=True)
class Masked(Dense):
    """A linear map of the user's own."""

    every: int = 2


def test_new_kind_only_registers_itself(path, monkeypatch):
    net = Network([Layer(4), Layer(3)], [Masked(4, 3, every=5)], Multinomial(), Gaussian())
    model = image_model(net=net)
    with pytest.raises(ArchitectureError, match=r'register_kind\("linear map", name, Masked\)'):
        save_model(path, model)
    monkeypatch.setitem(kinds._KINDS, "synapse", dict(kinds.SYNAPSES))
    kinds.register_kind("synapse", "masked", Masked)
    save_model(path, model)
    assert load_model(path).net.maps == (Masked(4, 3, every=5),)
    kinds._KINDS["synapse"].pop("masked")
    refused(
        path, "linear maps: linear map of unknown kind 'masked'; expected one of dense, transposed,"
    )
    refused(path, "import the module that registers it (nembp.checkpoints.register_kind)")


# --- environment


def test_environment_says_what_the_bits_depend_on():
    found = environment(dense_network([4, 3]))
    assert set(found) == {"nembp", "python", "numpy", "cupy", "platform", "device", "blas"}
    assert found["numpy"] == np.__version__
    assert found["device"] == "cpu"
    assert json.loads(json.dumps(found)) == found
    import threadpoolctl

    if found["blas"] is not None:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert environment(dense_network([4, 3]))["blas"] == found["blas"] | {"threads": 1}


def test_environment_without_a_known_blas(monkeypatch):
    monkeypatch.setattr("threadpoolctl.threadpool_info", list)
    assert environment(dense_network([4, 3]))["blas"] is None
