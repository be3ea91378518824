"""Model files that are damaged, hostile or of another kind are refused, in little memory."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from checkpoints_cases import contents, image_model, refused

from nembp.checkpoints import (
    ARRAYS,
    FORMAT,
    OPTIONAL,
    VERSION,
    load_model,
    read_archive,
    save_model,
    write_archive,
)
from nembp.errors import DataError


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.npz"


def rewritten(path, header=None, without=(), **arrays):
    """Change a model file's header and arrays under a seal that fits, as an attacker would."""
    old_header, old_arrays = read_archive(path, FORMAT, VERSION, ARRAYS + OPTIONAL, "")
    new = {key: value for key, value in (old_header | (header or {})).items() if key not in without}
    kept = {key: value for key, value in (old_arrays | arrays).items() if key not in without}
    write_archive(path, new, kept)


# --- what is not loaded


def test_wrong_files_are_refused(path):
    refused(path, "no such file")
    path.mkdir()
    refused(path, "is a folder")
    path.rmdir()
    path.write_text("a,b\n1,2\n")
    refused(path, "not an .npz archive")
    np.savez(path, x=np.zeros((3, 4)), y=np.zeros(3))
    refused(path, "an .npz archive, but not a nembp model")


def test_every_truncation_is_detected(path):
    save_model(path, image_model())
    whole = path.read_bytes()
    for length in range(0, len(whole), 13):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"model\.npz: "):
            load_model(path)


def test_every_single_bit_flip_is_detected_or_harmless(path):
    """1200 flips spread over the file, all bits of a byte alike; a full run found none either."""
    save_model(path, image_model())
    whole = path.read_bytes()
    reference = contents(load_model(path))
    detected = 0
    for number, bit in enumerate(np.linspace(0, 8 * len(whole) - 1, 1200, dtype=int).tolist()):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << number % 8
        path.write_bytes(damaged)
        try:
            model = load_model(path)
        except DataError:
            detected += 1
        else:
            assert contents(model) == reference
    assert detected > 900  # most bytes matter


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"header": {"version": 2}}, "has format version 2; this nembp reads version 1"),
        ({"header": {"version": "1"}}, "has format version '1'"),
        ({"header": {"format": "nembp optimizer"}}, "not a nembp model"),
        ({"header": {"dtype": "float16"}}, "dtype: 'float16' where Literal was expected"),
        ({"header": {"dtype": "float64"}}, "the array parameters is float32"),
        ({"header": {"layers": None}}, "layers: None where tuple was expected"),
        ({"header": {"layers": []}}, "parameters of shape (90,), but its layers have"),
        ({"header": {"forward": {"kind": "poisson"}}}, "forward: likelihood of unknown kind"),
        ({"header": {"backward": {"kind": "gaussian", "variance": 0.0}}}, "positive, finite"),
        ({"header": {"shape": [4.0]}}, "shape: 4.0 where int was expected"),
        ({"header": {"shape": [2] * 100}}, "do not fit 4 inputs"),
        ({"header": {"classes": "012"}}, "classes: '012' where tuple was expected"),
        ({"header": {"is_image": 1}}, "is_image: 1 where bool was expected"),
        ({"header": {"settings": []}}, "settings: [] where dict was expected"),
        ({"without": ["environment"]}, "environment: None where dict was expected"),
        ({"without": ["x_factor"]}, "the array x_factor is missing"),
        ({"parameters": np.zeros(89, np.float32)}, "parameters of shape (89,), but its layers"),
        ({"parameters": np.zeros((90, 1), np.float32)}, "parameters of shape (90, 1), but"),
        ({"parameters": np.zeros(90, np.float64)}, "the array parameters is float64"),
        ({"parameters": np.full(90, -np.inf, np.float32)}, "parameters hold a NaN"),
        ({"centroids": np.zeros((3, 4), np.int64)}, "the array centroids is int64"),
        ({"x_factor": np.zeros(())}, "factors must not be zero"),
        ({"y_offset": np.full(3, np.nan)}, "finite offsets and factors"),
        ({"x_offset": np.zeros((1,) * 20)}, "x_scaling of shape"),
        ({"pixel_offset": np.zeros(())}, "the array pixel_factor is missing"),
        ({"pixel_factor": np.ones(3), "pixel_offset": np.zeros(3)}, "pixel_scaling of shape (3,)"),
    ],
)
def test_contents_that_do_not_fit_are_refused(path, change, reason):
    save_model(path, image_model())
    assert load_model(path).net.parameters.shape == (90,)
    rewritten(path, **change)
    refused(path, reason)


def dense(*sizes: int) -> dict[str, Any]:
    """Header of layers and linear maps of these sizes."""
    return {
        "layers": [{"size": size, "activation": None, "bias_size": 1} for size in sizes],
        "synapses": [
            {"kind": "dense", "inputs": inputs, "outputs": outputs}
            for inputs, outputs in pairwise(sizes)
        ],
    }


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
        (dense(-4, 22, 3), "at least 1 neuron"),
        (nested(600), "recursion"),
    ],
)
def test_hostile_headers_are_refused_without_their_memory(path, header, reason):
    save_model(path, image_model())
    rewritten(path, header)
    tracemalloc.start()
    try:
        refused(path, reason)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
