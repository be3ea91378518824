"""Files are understood, asked about or refused: what a run read, another command reads alike."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import as_json, fails, works

from nembp.runs import RunConfig, from_toml, train_run

GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(90, 3)) * 0.3 + 4 * np.eye(3)[np.arange(90) % 3]
SHORT = ["--layers", "8", "--epochs", "30", "--learning-rate", "0.02", "--device", "cpu", "--quiet"]


pytestmark = pytest.mark.usefixtures("own_folder")


def write_table(
    path: str, rows: np.ndarray, names: str = "a,b,c", order: tuple = (0, 1, 2)
) -> None:
    header = ",".join([*(names.split(",")[k] for k in order), "kind"])
    lines = [",".join([*(f"{float(X[k, c])!r}" for c in order), f"k{k % 3}"]) for k in rows]
    Path(path).write_text("\n".join([header, *lines]) + "\n")


def backward(*args: object) -> list:
    """Return the samples drawn backward; the same whatever names the class."""
    result = works("predict", "run", "--direction", "backward", "--json", *args)
    return [sample["x"] for sample in json.loads(result.stdout)["samples"]]


def test_a_label_names_a_class_whatever_holds_it():
    np.savez("d.npz", x=X, y=np.array([7, 8, 10])[np.arange(90) % 3])
    train_run(RunConfig(dataset="npz", data_dir="d.npz", epochs=2, device="cpu"), "run")
    named = backward("--labels", "10,7")
    Path("y.csv").write_text("10\n7\n")
    np.save("y.npy", [10, 7])
    np.save("float.npy", [10.0, 7.0])
    np.savez("y.npz", y=[10, 7], rows=np.eye(3)[[2, 0]])
    for file in ("y.csv", "y.npy", "float.npy", "y.npz"):
        assert backward(file) == named, file
    assert backward("y.npz", "--key", "rows") == named
    assert backward("--labels", "2,0", "--by-index") == named
    assert np.allclose(np.array(backward())[[2, 0]], named)  # 7, 8, 10
    assert "no class '0'; expected one of the classes" in fails(
        2, "predict", "run", "--direction", "backward", "--labels", "0"
    )
    np.save("index.npy", [0])
    assert "no class 0" in fails(3, "predict", "run", "index.npy", "--direction", "backward")
    assert len(backward("index.npy", "--by-index")) == 1


def test_data_is_matched_by_its_columns_and_known_by_its_content():
    write_table("d.csv", np.arange(90))
    works("train", "--dataset", "csv", "--data-dir", "d.csv", *SHORT, "--out", "run")
    write_table("swapped.csv", np.arange(90), order=(2, 0, 1))
    scores = [as_json("evaluate", "run", "--data-dir", name) for name in ("d.csv", "swapped.csv")]
    assert scores[0]["forward/accuracy"] == scores[1]["forward/accuracy"] > 0.9
    write_table("d.csv", np.arange(90)[::-1])  # the same rows in another order
    works("evaluate", "run")
    write_table("other.csv", np.arange(90), names="a,b,d")
    assert "'c'" in fails(3, "evaluate", "run", "--data-dir", "other.csv", "--split", "all")
    write_table("d.csv", np.arange(1, 90))  # not what was held out
    for split in ("test", "train"):
        assert "--split all" in fails(3, "evaluate", "run", "--split", split)
    assert as_json("evaluate", "run", "--split", "all")["samples"] == 89


def test_how_a_table_is_read_can_be_said():
    lines = [f"{a:.3f}|{b:.3f}|k{k % 3}".replace(".", ",") for k, (a, b) in enumerate(X[:, :2])]
    Path("d.csv").write_text("\n".join(lines) + "\n")
    said = ["--decimal", ",", "--delimiter", "|", "--no-header"]
    result = works("train", "--dataset", "csv", "--data-dir", "d.csv", *said, *SHORT, "--out", "run",
                 "--json")  # fmt: skip
    assert json.loads(result.stdout)["config"]["header"] is False
    config = from_toml("run/config.toml")
    assert (config.decimal, config.delimiter, config.header) == (",", "|", False)
    env = {"NEMBP_TRAIN_DECIMAL": ",", "NEMBP_TRAIN_DELIMITER": "|", "NEMBP_TRAIN_HEADER": "0"}
    works("train", "--dataset", "csv", "--data-dir", "d.csv", *SHORT, "--out", "b", env=env)
    Path("new.csv").write_text("\n".join(line.rpartition("|")[0] for line in lines) + "\n")
    assert len(as_json("predict", "run", "new.csv")["predictions"]) == 90
    works("evaluate", "run")


def test_arrays_can_be_named_and_what_was_guessed_is_told_and_kept():
    np.savez("d.npz", feats=X, kind=np.arange(90) % 3, spare=X)
    args = ["train", "--dataset", "npz", "--data-dir", "d.npz", "--x", "feats", "--y", "kind"]
    result = works(*args, *SHORT[:-1], "--out", "run")
    assert "feats, kind" in result.stderr.splitlines()[0]
    assert "feats, kind" in Path("run/config.toml").read_text()
    works("evaluate", "run")
    np.savez("first.npz", x=GENERATOR.integers(0, 255, (60, 3, 8, 8)).astype(np.uint8),
             y=np.arange(60) % 2)  # fmt: skip
    result = works("gan", "--data", "npz", "--data-dir", "first.npz", "--image-order", "first",
                 "--iterations", "2", "--checkpoints", "1", "--generator", "8", "--device", "cpu",
                 "--discriminator", "8", "--scored-samples", "20", "--out", "gan", "--json",
                 env={"NEMBP_CACHE": "cache"})  # fmt: skip
    assert " of 8x8x3" in result.stderr
    assert json.loads(result.stdout)["config"]["image_order"] == "first"
