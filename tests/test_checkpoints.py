"""Sealed archives, classes as JSON, and model files: back bit for bit, or refused in little memory."""

from __future__ import annotations

import io
import json
import math
import os
import sys
import zipfile
from collections import ChainMap
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal
from unittest.mock import Mock

import numpy as np
import pytest
from fuzz_cases import traced
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from nembp import checkpoints
from nembp.backend import Backend
from nembp.checkpoints import Model, decode, encode, environment, load_model, save_model
from nembp.datasets import Scaling
from nembp.engine.activations import ACTIVATIONS, Activation, LeakyReLU, Tanh
from nembp.engine.batchnorm import BatchNormalization
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, Score
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.errors import ArchitectureError, DataError, DeviceError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model. 2.npz"  # a full stop in the name must not cut a message


def one_sentence(path, error: DataError, reason: str, remedy: str) -> None:
    message = str(error)
    assert message.startswith(f"{path}: ")
    assert message.endswith(remedy)
    assert reason in message
    assert "\n" not in message
    assert len(message) < 1000


# -- sealed archives -------------------------------------------------------------------------------
HEADER = {"format": "thing", "version": 1, "note": "é \ud800 🂡", "numbers": [0.1, -0.0, 2**80]}


def read(path):
    return checkpoints.read_archive(path, "thing", "Make it again.")


def unread(path, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        read(path)
    one_sentence(path, caught.value, reason, ". Make it again.")


def npy(array) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), allow_pickle=False)
    return file.getvalue()


def write_zip(path, entries, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)


def sealed(text, arrays):
    """Entries with a seal that fits, as an attacker would write them."""
    content = dict(arrays) | {"header": np.frombuffer(text.encode(), np.uint8)}
    seal = np.frombuffer(bytes.fromhex(checkpoints.content_hash(content)), np.uint8)
    return {name: npy(array) for name, array in (content | {"sha256": seal}).items()}


dtypes = npst.scalar_dtypes().filter(lambda dtype: dtype.kind in "biuf" and dtype.itemsize <= 8)
some_arrays = npst.arrays(dtypes, npst.array_shapes(min_dims=0, max_dims=3, min_side=0))


@given(st.dictionaries(st.sampled_from("abc"), some_arrays))
def test_arrays_come_back_bit_for_bit(tmp_path_factory, arrays):
    path = tmp_path_factory.mktemp("archives") / "thing.npz"
    checkpoints.write_archive(path, "thing", HEADER, arrays)
    header, back = read(path)
    assert header == HEADER
    assert math.copysign(1, header["numbers"][1]) == -1
    assert set(back) == set(arrays)
    for name, array in arrays.items():
        native = array.astype(array.dtype.newbyteorder("="))
        assert (back[name].dtype, back[name].shape) == (native.dtype, array.shape)
        assert back[name].tobytes() == native.tobytes()


def test_same_content_gives_the_same_bytes_which_numpy_can_open(tmp_path):
    arrays = {"W": np.arange(6.0).reshape(2, 3).T}
    for name in "ab":
        checkpoints.write_archive(tmp_path / name, "thing", HEADER, arrays)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert np.array_equal(read(tmp_path / "a")[1]["W"], arrays["W"])
    with np.load(tmp_path / "a", allow_pickle=False) as opened:
        assert np.array_equal(opened["W"], arrays["W"])
        assert json.loads(opened["header"].tobytes()) == HEADER


@pytest.mark.parametrize("value", [math.nan, {1}, np.float32(1), {(1, 2): 3}])
def test_a_header_that_is_not_json_is_refused_before_anything_is_written(path, value):
    with pytest.raises(ArchitectureError, match="its header is not JSON"):
        checkpoints.write_archive(path, "thing", {"value": value}, {})
    with pytest.raises(ValueError, match="Object arrays cannot be saved"):  # never pickled
        checkpoints.write_archive(path, "thing", HEADER, {"a": np.array([object()])})
    assert list(path.parent.iterdir()) == []


def test_wrong_archives_are_refused_by_what_is_wrong(path):
    unread(path, "no such file")
    path.mkdir()
    unread(path, "is a folder")
    path.rmdir()
    path.write_bytes(b"")
    unread(path, "not an .npz archive")
    np.savez(path, a=np.zeros(3))
    unread(path, "an .npz archive, but not a thing")
    checkpoints.write_archive(path, "thing", HEADER | {"format": "other"}, {})
    unread(path, "an .npz archive, but not a thing")
    checkpoints.write_archive(path, "thing", HEADER | {"version": 2}, {})
    unread(path, "has format version 2; this nembp reads version 1")
    whole = sealed(json.dumps(HEADER), {"a": np.zeros(3)})
    for name, entry in (
        ("a", np.ones(3)), ("a", np.zeros((3, 1))), ("a", np.zeros(3, np.int64)), ("a", None),
        ("a", -np.zeros(3)), ("d", np.zeros(0)), ("sha256", np.zeros(32)),
    ):  # fmt: skip
        kept = {key: value for key, value in whole.items() if key != name}
        write_zip(path, kept if entry is None else kept | {name: npy(entry)})
        unread(path, "damaged: its content does not match the SHA-256 inside")
    write_zip(path, {{"a": "b"}.get(name, name): entry for name, entry in whole.items()})
    unread(path, "damaged: its content does not match the SHA-256 inside")
    for text in ("[" * 100_000, "{", "null", "[]", '"x"', "9" * 10_000, ""):
        write_zip(path, sealed(text, {}))
        unread(path, "not")


def test_memory_is_bounded_by_the_file_whatever_it_claims(path):
    bomb, small = npy(np.zeros(40_000_000, np.uint8)), npy(np.zeros(3))
    huge = small.replace(b"(3,)", b"(3" + b"0" * 11 + b",)", 1).replace(b" " * 11, b"", 1)
    assert len(huge) == len(small)
    for entry, method, reason in (
        (bomb, zipfile.ZIP_DEFLATED, "is compressed"),
        (huge, zipfile.ZIP_STORED, "for shape (300000000000,)"),
    ):
        write_zip(path, sealed(json.dumps(HEADER), {}) | {"a": entry}, method)
        assert traced(lambda: unread(path, reason))[1] < 2_000_000  # noqa: B023


# -- classes as JSON -------------------------------------------------------------------------------
@dataclass(frozen=True)
class Rich(Dense):
    """Fields of every sort that a later linear map may have."""

    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, ...] = ()
    padding: Literal["same", "valid"] = "same"
    inner: Activation | None = None
    label: str | None = None
    open: bool = False
    computed: int = field(init=False, default=0)


@pytest.fixture
def families(monkeypatch):
    """Registers that a test may write into."""
    copies = {name: (b, ChainMap({}, k)) for name, (b, k) in checkpoints._FAMILIES.items()}
    monkeypatch.setattr(checkpoints, "_FAMILIES", copies)


def through_json(hint: Any, value: Any) -> Any:
    return decode(hint, json.loads(json.dumps(encode(value), allow_nan=False)))


def test_activations_likelihoods_and_layers_come_back_exactly():
    for likelihood in (Multinomial(0.1 + 0.2), Bernoulli(1e-300), Score()):
        assert through_json(Likelihood, likelihood) == likelihood
    for activation in (kind() for kind in ACTIVATIONS.values()):
        assert through_json(Activation, activation) == activation
    layers = (Layer(4), Layer(6, Tanh(), 3), Layer(np.int64(2), LeakyReLU(np.float64(0.5))))
    back = through_json(tuple[Layer, ...], layers)
    assert back == layers
    assert type(back[2].size) is int


def test_a_class_of_ones_own_may_have_fields_of_every_sort(families):
    checkpoints.register_kind("synapse", "rich", Rich)  # an older word for a linear map
    rich = Rich(4, 3, (5, 7), (1, 2, 3), "valid", LeakyReLU(0.25), "label", True)
    for linear_map in (rich, Rich(4, 3), Transposed(rich)):
        assert through_json(LinearMap, linear_map) == linear_map
    # a field added later gets its default
    assert decode(LinearMap, {"kind": "rich", "inputs": 4, "outputs": 3}) == Rich(4, 3)


def test_what_no_file_can_hold_is_refused(families):
    for value in (object(), {1, 2}, 1j, Tanh):
        with pytest.raises(ArchitectureError, match="cannot be kept in a file"):
            encode(value)
    for name, kind, reason in (
        ("other", int, "int cannot be registered"),
        ("other", Tanh, "subclasses LinearMap"),
        ("dense", Rich, "linear map 'dense' is already registered as Dense"),
    ):
        with pytest.raises(ArchitectureError, match=reason):
            checkpoints.register_kind("linear map", name, kind)
    with pytest.raises(ArchitectureError, match="family must be one of activation, linear map"):
        checkpoints.register_kind("map", "rich", Rich)


# -- models ----------------------------------------------------------------------------------------
def image_model(dtype: str = "float32", **changes: Any) -> Model:
    """A small network whose every parameter is random, of images of 2 x 2 pixels."""
    layers = [Layer(4), Layer(6, LeakyReLU(0.3), 2), Layer(5, Tanh()), Layer(3)]
    maps = [Dense(4, 6), Transposed(Dense(5, 6)), Dense(5, 3)]
    net = Network(layers, maps, Multinomial(0.5), Gaussian(1 / 3), dtype=dtype)
    generator = np.random.default_rng(5)
    net.parameters[...] = generator.normal(size=net.parameter_count)
    net.parameters[:3] = [-0.0, np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max]
    settings = {"epochs": 3, "noise": {"scale": 0.1}, "sizes": [4, 6, 5, 3], "limit": None}
    model = Model(
        net, (2, 2, 1), ("zero", "één", "two"), (), Scaling(factor=1 / 255), Scaling(),
        generator.random((3, 4)), True, "squares", settings, environment(net),
    )  # fmt: skip
    return replace(model, **changes)


def table_model(dtype: str = "float64", **changes: Any) -> Model:
    net = dense_network([4, 8, 2], forward="gaussian", backward="bernoulli", dtype=dtype, seed=3)
    offset = np.random.default_rng(1).normal(size=4)
    parts: dict[str, Any] = {
        "net": net, "shape": (4,), "classes": (), "target_names": ("height", "width"),
        "x_scaling": Scaling(offset, 1 / offset), "centroids": None, "is_image": False,
        "y_scaling": Scaling(np.array([1e-300, -2.5]), np.array([3.0, 1e7])),
    }  # fmt: skip
    return image_model(**(parts | changes))


def colour_model(dtype: str = "float32", **changes: Any) -> Model:
    """Colours standardized by channel: a model that knows two scalings of its pixels."""
    parts: dict[str, Any] = {
        "net": dense_network([12, 3], backward="gaussian", dtype=dtype), "shape": (2, 2, 3),
        "x_scaling": Scaling(np.array([118.5, 120.25, 99.0]), np.array([1 / 61, 1 / 62, 1 / 63])),
        "pixel_scaling": Scaling(factor=1 / 255), "centroids": None,
    }  # fmt: skip
    return image_model(**(parts | changes))


def resaved(path) -> bytes:
    """What a model that was loaded is saved as: all there is in it."""
    save_model(path.with_name("again.npz"), load_model(path))
    return path.with_name("again.npz").read_bytes()


def refused(path, reason: str) -> None:
    with pytest.raises(DataError) as caught:
        load_model(path)
    one_sentence(path, caught.value, reason, "train again.")


@pytest.mark.parametrize("make", [image_model, table_model, colour_model])
def test_a_model_comes_back_bit_for_bit(path, make):
    model = make()
    save_model(path, model)
    assert os.listdir(path.parent) == [path.name]
    back = load_model(path)
    assert resaved(path) == path.read_bytes()
    for name in ("x_scaling", "y_scaling", "pixel_scaling", *checkpoints.PLAIN):
        assert getattr(back, name) == getattr(model, name)
    assert (back.net.layers, back.net.maps) == (model.net.layers, model.net.maps)
    assert back.net.parameters.tobytes() == model.net.parameters.tobytes()


def test_a_model_is_loaded_onto_any_backend(path, monkeypatch):
    strict = pytest.importorskip("array_api_strict")
    backend = Backend(strict, strict.Device("device1"))
    model = image_model()
    save_model(path, model)
    loaded = load_model(path, device=backend)
    assert loaded.net.backend is backend
    on_host = loaded.net.parameters.to_device(strict.Device("CPU_DEVICE"))
    assert np.asarray(on_host).tobytes() == model.net.parameters.tobytes()
    monkeypatch.setitem(sys.modules, "cupy", None)  # import cupy fails
    with pytest.raises(DeviceError, match="CuPy"):
        load_model(path, device="gpu")


# -- what is not written ---------------------------------------------------------------------------
def poisoned() -> Model:
    model = image_model()
    model.net.parameters[7] = np.nan
    return model


UNFIT = {
    "parameters hold a NaN": poisoned,
    "centroids hold a NaN": lambda: image_model(centroids=np.full((3, 4), np.inf)),
    "samples of shape (2, 2, 2) do not fit 4 inputs": lambda: image_model(shape=(2, 2, 2)),
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


def test_networks_that_no_file_holds_are_refused(path, families):
    net = image_model().net
    rich = Network([Layer(4), Layer(3)], [Rich(4, 3)], Multinomial(), Gaussian())
    for wrong, message in (
        (net.reversed, "forward direction"),
        (net.to(dtype="complex128"), "complex128"),
        (rich, r'register_kind\("linear map", name, Rich\)'),
    ):
        with pytest.raises(ArchitectureError, match=message):
            save_model(path, image_model(net=wrong))
    assert not path.exists()


# -- what is not loaded ----------------------------------------------------------------------------
def rewritten(path, header=None, without=(), **arrays):
    """Change a model file's header and arrays under a seal that fits, as an attacker would."""
    old_header, old_arrays = checkpoints.read_archive(path, checkpoints.FORMAT, "")
    new = {key: value for key, value in (old_header | (header or {})).items() if key not in without}
    kept = {key: value for key, value in (old_arrays | arrays).items() if key not in without}
    checkpoints.write_archive(path, checkpoints.FORMAT, new, kept)


def test_every_truncation_is_detected_and_every_flipped_bit_detected_or_harmless(path):
    """300 flips spread over the file, all bits of a byte alike; a full run found none either."""
    save_model(path, image_model())
    whole, detected = path.read_bytes(), 0
    for length in range(0, len(whole), 57):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError):
            load_model(path)
    for number, bit in enumerate(np.linspace(0, 8 * len(whole) - 1, 300, dtype=int).tolist()):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << number % 8
        path.write_bytes(damaged)
        try:
            assert resaved(path) == whole
        except DataError:
            detected += 1
    assert detected > 225  # most bytes matter


def gaussian(**fields):
    return {"header": {"backward": {"kind": "gaussian"} | fields}}


def linear(**fields):
    return {"header": {"synapses": [{"kind": "dense"} | fields]}}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"header": {"format": "nembp optimizer"}}, "not a nembp model"),
        ({"header": {"dtype": "float64"}}, "the array parameters is float32"),
        ({"header": {"layers": []}}, "parameters of shape (90,), but its layers have"),
        ({"without": ["environment"]}, "environment: None where dict was expected"),
        ({"without": ["x_factor"]}, "the array x_factor is missing"),
        ({"parameters": np.zeros((90, 1), np.float32)}, "parameters of shape (90, 1), but"),
        ({"centroids": np.zeros((3, 4), np.int64)}, "the array centroids is int64"),
        ({"x_factor": np.zeros(())}, "factors must not be zero"),
        ({"x_offset": np.zeros((1,) * 20)}, "x_scaling of shape"),
        ({"pixel_offset": np.zeros(())}, "the array pixel_factor is missing"),
        ({"header": {"forward": "dense"}}, "'dense' where Likelihood was expected"),
        ({"header": {"forward": {"kind": "torus"}}}, "unknown kind 'torus'; expected one of "),
        (gaussian(variance="1"), "gaussian: '1' where float was"),
        (gaussian(variance=-1), "positive, finite"),
        (linear(inputs=4), "has the fields 'inputs'; expected inputs, outputs"),
        (linear(inputs=4.0, outputs=3), "dense: 4.0 where int was"),
        (linear(inputs=True, outputs=3), "dense: True where int was"),
        (
            {"header": {"layers": [{"activation": {"kind": "x"}, "size": 3}]}},
            "Layer: activation of",
        ),
        ({"header": {"shape": [1, "y" * 10**6]}}, "'" + "y" * 59 + " where int was expected"),
    ],
)
def test_contents_that_do_not_fit_are_refused(path, change, reason):
    save_model(path, image_model())
    rewritten(path, **change)
    refused(path, reason)


def test_files_from_before_normalization_load(path):
    """What older versions wrote: layers without the field, no statistics."""
    save_model(path, image_model())
    whole = path.read_bytes()
    header, arrays = checkpoints.read_archive(path, checkpoints.FORMAT, "")
    assert "statistics" not in arrays
    for layer in header["layers"]:
        assert layer.pop("normalization") is None
    rewritten(path, {"layers": header["layers"]})
    assert resaved(path) == whole


def test_damaged_statistics_are_named(path):
    net = dense_network([4, 5, 3], normalization=BatchNormalization())
    for change, reason in (
        ({"without": ["statistics"]}, "statistics of shape"),
        ({"statistics": -net.statistics}, "a variance below 0"),
    ):
        save_model(path, image_model(net=net))
        rewritten(path, **change)
        refused(path, reason)


def dense(*sizes: int) -> dict[str, Any]:
    """Header of layers and linear maps of these sizes."""
    maps = [{"kind": "dense", "inputs": m, "outputs": n} for m, n in pairwise(sizes)]
    return {"layers": [{"size": n, "activation": None, "bias_size": 1} for n in sizes],
            "synapses": maps}  # fmt: skip


def nested(depth: int) -> Any:
    linear_map: dict[str, Any] = {"kind": "dense", "inputs": 4, "outputs": 3}
    for _ in range(depth):
        linear_map = {"kind": "transposed", "synapse": linear_map}
    return {"synapses": [linear_map]}


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (dense(10**12, 10**12), "but its layers have 1000000000000000000000002"),
        (dense(10**4000, 10**4000), "integer string conversion"),
        (dense(4, 10**9, 3), "but its layers have 7000000004"),
        (dense(-4, 22, 3), "at least 1"),
        (nested(600), "recursion"),
    ],
)
def test_hostile_headers_are_refused_without_their_memory(path, header, reason):
    save_model(path, image_model())
    rewritten(path, header)
    assert traced(lambda: refused(path, reason))[1] < 3_000_000


def test_a_memory_that_is_too_small_is_not_called_damage(path, monkeypatch):
    save_model(path, image_model())
    monkeypatch.setattr(checkpoints, "Network", Mock(side_effect=MemoryError))
    with pytest.raises(MemoryError):
        load_model(path)


# -- environment -----------------------------------------------------------------------------------
def test_the_environment_says_what_the_bits_depend_on(monkeypatch):
    import threadpoolctl

    net = dense_network([4, 3])
    found = environment(net)
    assert (found["numpy"], found["device"]) == (np.__version__, "cpu")
    assert json.loads(json.dumps(found)) == found
    if found["blas"] is not None:
        with threadpoolctl.threadpool_limits(1, user_api="blas"):
            assert environment(net)["blas"] == found["blas"] | {"threads": 1}
    monkeypatch.setattr("threadpoolctl.threadpool_info", list)
    assert environment(net)["blas"] is None
