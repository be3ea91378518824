"""Bad input of every kind: one clear line, its exit code, and nothing lost."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from command_line import fails, run

from nembp.checkpoints import load_model
from nembp.runs import from_toml

SHORT = ["train", "--layers", "16", "--epochs", "2", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in os.environ:
        if name.startswith("NEMBP_"):
            monkeypatch.delenv(name)


# -- usage -----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--layers", "512,0"], "'--layers': it has '0' as layer 2: it has 0 neurons; expected"),
        (["--layers", "512,-3"], "it has '-3' as layer 2: expected a whole number"),
        (["--layers", "many"], "it has 'many' as layer 1: no layer is called many; expected"),
        (["--layers", "cnv8x4"], "it has 'cnv8x4' as layer 1: did you mean conv?"),
        (
            ["--layers", "16,conv8x4"],
            "layer 2 `conv8x4`: a convolution reads an image, but layer "
            "1 is 16 dense neurons; expected reshape",
        ),
        (
            ["--layers", "conv8x4s2,conv8x4s2,conv8x4s2,conv8x4s2"],
            "layer 4 `conv8x4s2`: kernel 4 "
            "does not fit the 1x1 image of layer 3; expected at most 3",
        ),
        (["--scaling", "units"], "'units' is not one of 'auto', 'unit', 'channel'"),
        (["--scaling", "channel", "--backward", "bernoulli"], "use --scaling unit"),
        (["--augment", "flip"], "it must be none, flips, crops or flips,crops"),
        (["--augment", "crops8"], "--augment"),
        (["--image-size", "big"], "it must be height and width in pixels, as in"),
        (["--image-size", "8x8"], "image_size resizes image files; 'digits' has none"),
        (["--epochs", "0"], "'--epochs': it must be a whole number ≥ 1, got 0"),
        (["--noise-std", "nan"], "it must be a number ≥ 0, got nan"),
        (["--learning-rate", "fast"], "it must be a number > 0, got 'fast'"),
        (["--noise", "some"], "'some' is not one of 'none', 'nem'"),
        (["--dataset", "mnits"], "expected one of digits, mnist"),
        (["--dataset", "mnist"], "nembp data fetch mnist"),
        (["--targets", "a"], "targets name the columns of a csv"),
        (["--backward", "none", "--noise", "nem", "--noise-target", "both"], "train both"),
        (["--patience", "2", "--validation-fraction", "0"], "--validation-fraction above 0"),
        (["--config", "absent.toml"], "absent.toml: cannot be read"),
    ],
)
def test_wrong_usage(tmp_path, args, message):
    assert message in fails(2, "train", *args)
    assert list(tmp_path.iterdir()) == []


# -- bad data --------------------------------------------------------------------------------------
IMAGES = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2)
LABELS = np.arange(40, dtype=np.uint8) % 2


def idx(x: np.ndarray) -> bytes:
    return struct.pack(f">HBB{x.ndim}I", 0, 8, x.ndim, *x.shape) + x.tobytes()


def four(folder: Path, **replaced: bytes | None) -> Path:
    """An MNIST-shaped folder, some of its files replaced or left out."""
    folder.mkdir()
    files = {
        "train-images-idx3-ubyte": idx(IMAGES), "train-labels-idx1-ubyte": idx(LABELS),
        "t10k-images-idx3-ubyte": idx(IMAGES), "t10k-labels-idx1-ubyte": idx(LABELS),
    }  # fmt: skip
    short = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}
    for name, content in replaced.items():
        files[short[name]] = content
    for name, content in files.items():
        if content is not None:
            (folder / name).write_bytes(content)
    return folder


def test_a_good_folder_trains(tmp_path):
    assert run(*SHORT, "--dataset", "idx", "--data-dir", four(tmp_path / "d")).exit_code == 0


@pytest.mark.parametrize(
    ("replaced", "message"),
    [
        ({"images": None}, "train-images-idx3-ubyte: no such file"),
        ({"images": b""}, "train-images-idx3-ubyte: 0 bytes"),
        ({"images": idx(IMAGES)[:-1]}, "truncated"),
        ({"images": gzip.compress(idx(IMAGES))[:-9]}, "truncated"),
        ({"images": idx(IMAGES) + b"\0"}, "trailing bytes"),
        ({"labels": gzip.compress(idx(LABELS)) + b"x"}, "trailing bytes"),
        ({"images": struct.pack(">HBB3I", 0, 8, 3, 2**31, 2**31, 2**31)}, "declares"),
        ({"images": struct.pack(">HBB3I", 0, 8, 3, 60000, 28, 28)}, "declares shape"),
        ({"images": b"\x89PNG" + bytes(30)}, "not an IDX file"),
        ({"labels": idx(LABELS[:39])}, "39 labels or targets for 40 samples"),
        ({"labels": idx(np.zeros(40, np.uint8))}, "class"),
    ],
)
def test_bad_idx_files(tmp_path, replaced, message):
    folder = four(tmp_path / "d", **replaced)
    before = {path: path.read_bytes() for path in folder.iterdir()}
    line = fails(3, "train", "--dataset", "idx", "--data-dir", folder, "--out", tmp_path / "run")
    assert message in line
    assert str(folder) in line
    assert {path: path.read_bytes() for path in folder.iterdir()} == before
    assert list(tmp_path.iterdir()) == [folder]


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (np.array([[1.0], [np.nan], [2.0], [3.0]]), np.array([0, 1, 0, 1]), "is nan"),
        (np.array([[1.0], [np.inf], [2.0], [3.0]]), np.array([0, 1, 0, 1]), "is inf"),
        (np.eye(4), np.zeros(4, int), "class"),
        (np.eye(4), np.array([0, 1, 0]), "3 labels or targets for 4 samples"),
        (np.eye(4), np.array([0.5, np.nan, 1.0, 2.0]), "is nan"),
        (np.zeros((0, 3)), np.zeros(0, int), "no samples"),
    ],
)
def test_bad_arrays(tmp_path, x, y, message):
    np.savez("d.npz", x=x, y=y)
    line = fails(3, "train", "--dataset", "npz", "--data-dir", "d.npz")
    assert message in line
    assert "d.npz" in line
    assert [path.name for path in tmp_path.iterdir()] == ["d.npz"]


# -- where it is written ---------------------------------------------------------------------------
def test_an_out_that_cannot_be_written(tmp_path):
    Path("file").write_text("mine")
    for out in ("file", "file/below", "/proc/nembp"):
        line = fails(6, "train", "--out", out)
        assert out in line
        assert "Choose another --out" in line
    assert Path("file").read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_older_run_is_replaced_only_when_asked():
    assert run(*SHORT, "--out", "a").exit_code == 0
    before = {path: path.read_bytes() for path in Path("a").iterdir()}
    assert "--force" in fails(6, *SHORT, "--out", "a")
    assert {path: path.read_bytes() for path in Path("a").iterdir()} == before
    assert run(*SHORT, "--out", "a", "--seed", "1", "--force").exit_code == 0
    assert from_toml("a/config.toml").seed == 1


# -- models ----------------------------------------------------------------------------------------
def test_a_damaged_model_is_refused_by_every_command():
    assert run(*SHORT, "--out", "a").exit_code == 0
    good = Path("a/model.npz").read_bytes()
    np.save("x.npy", np.zeros((1, 64)))
    commands = (["evaluate", "a"], ["predict", "a", "x.npy"], ["evaluate", "a/model.npz"])
    generator = np.random.default_rng(0)
    for position in generator.integers(0, len(good), 5):
        flipped = bytearray(good)
        flipped[position] ^= 1 << int(generator.integers(8))
        Path("a/model.npz").write_bytes(flipped)
        for command in commands:
            result = run(*command)
            if result.exit_code == 0:  # a bit that no reader looks at: then nothing has changed
                assert np.array_equal(load_model("a/model.npz").net.parameters, parameters_of(good))
            else:
                assert "a/model.npz" in fails(3, *command)
    for content in (b"", good[:-1], good[: len(good) // 2], b"text"):
        Path("a/model.npz").write_bytes(content)
        for command in commands:
            assert "a/model.npz" in fails(3, *command)
    Path("a/model.npz").unlink()
    assert "a/model.npz: no such file" in fails(3, "evaluate", "a")
    assert "absent" in fails(3, "predict", "absent", "x.npy")


def parameters_of(content: bytes) -> np.ndarray:
    Path("good.npz").write_bytes(content)
    return load_model("good.npz").net.parameters
