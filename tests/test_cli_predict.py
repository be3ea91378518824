"""``nembp evaluate`` and ``nembp predict``, as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_predict_cases import table, train_runs
from command_line import fails, run

from nembp.checkpoints import load_model, save_model
from nembp.datasets import load
from nembp.datasets.images import read_images
from nembp.runs import RunConfig, train_run


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return train_runs(tmp_path_factory.mktemp("runs"))


pytestmark = pytest.mark.usefixtures("own_folder")


# -- evaluate --------------------------------------------------------------------------------------
def test_evaluate_prints_scores_or_json(runs):
    summary = json.loads((runs / "digits" / "summary.json").read_text())
    result = run("evaluate", runs / "digits", "--json")
    scores = json.loads(result.stdout)
    assert scores["forward/nll"] == pytest.approx(summary["forward/nll"])
    assert result.stderr == ""
    text = run("evaluate", runs / "digits").stdout
    assert f"accuracy {summary['forward/accuracy']:#.4g}" in text
    assert "297 test samples of digits" in text
    assert "1500 train samples" in run("evaluate", runs / "digits", "--split", "train").stdout


def test_evaluate_reads_data_from_elsewhere(runs, tmp_path):
    text = (runs / "numbers.csv").read_text()
    Path("moved.csv").write_text(text)
    args = ["evaluate", runs / "numbers", "--data-dir", "moved.csv", "--json"]
    moved = json.loads(run(*args).stdout)
    assert moved["forward/r2"] > 0.9
    assert moved["forward/accuracy"] is None
    assert "absent.csv" in fails(3, "evaluate", runs / "numbers", "--data-dir", "absent.csv")
    Path("other.csv").write_text(text.replace("left", "other"))
    line = fails(3, "evaluate", runs / "numbers", "--data-dir", "other.csv")
    assert "'left'" in line
    assert "--split" in fails(2, "evaluate", runs / "digits", "--split", "tset")


# -- predict forward -------------------------------------------------------------------------------
def test_forward_prints_classes_and_probabilities(runs):
    result = run("predict", runs / "kinds", runs / "x.npy")
    assert result.exit_code == 0, result.stderr
    head, *lines = [line.split() for line in result.stdout.splitlines()]
    assert head == ["input", "class", "p(ant)", "p(bee)", "p(cat)"]
    assert [line[1] for line in lines] == ["ant", "bee", "cat"]
    for row, line in enumerate(lines):
        assert line[0] == f"{runs / 'x.npy'}[{row}]"
        assert sum(map(float, line[2:])) == pytest.approx(1.0, abs=2e-4)
        assert np.argmax([float(p) for p in line[2:]]) == row
    found = json.loads(run("predict", runs / "kinds", runs / "x.npy", "--json").stdout)
    assert [item["class"] for item in found["predictions"]] == ["ant", "bee", "cat"]
    assert [item["label"] for item in found["predictions"]] == [0, 1, 2]


def test_forward_writes_arrays(runs, tmp_path):
    x = load("digits").test.x[:20]
    np.save("x.npy", x)
    for out in ("p.npy", "p.npz"):
        result = run("predict", runs / "digits", "x.npy", "--out", out)
        assert result.exit_code == 0, result.stderr
        assert result.stdout == ""
        assert f"wrote {out}: 20 rows" in result.stderr
    p = np.load("p.npy")
    assert np.allclose(p.sum(axis=1), 1.0, atol=1e-5)
    with np.load("p.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["probabilities"], p)
        assert np.array_equal(archive["labels"], p.argmax(axis=1))
        assert archive["classes"].tolist() == list("0123456789")
    assert np.mean(p.argmax(axis=1) == load("digits").test.y[:20]) > 0.8
    assert "exists" in fails(6, "predict", runs / "digits", "x.npy", "--out", "p.npy")
    again = run("predict", runs / "digits", "x.npy", "--out", "p.npy", "--force")
    assert again.exit_code == 0


def test_pixels_that_look_scaled_are_noted(runs):
    np.save("scaled.npy", load("digits").test.x[:2] / 16.0)
    np.save("raw.npy", load("digits").test.x[:2] * 1.0)
    assert "raw pixels are expected" in run("predict", runs / "digits", "scaled.npy").stderr
    assert run("predict", runs / "digits", "raw.npy").stderr == ""
    assert run("predict", runs / "kinds", runs / "x.npy").stderr == ""


# -- predict backward ------------------------------------------------------------------------------
def test_a_picture_makes_the_round_trip(runs):
    args = ["predict", runs / "digits", "--direction", "backward"]
    assert run(*args, "--labels", "3", "--out", "three.png").exit_code == 0
    pixels = read_images("three.png", (8, 8, 1))
    assert run(*args, "--labels", "3", "--out", "three.npy").exit_code == 0
    raw = np.load("three.npy")
    assert raw.shape == (1, 8, 8, 1)
    assert np.abs(np.clip(raw, 0, 16) / 16 * 255 - pixels).max() <= 0.5 + 1e-9
    text = run("predict", runs / "digits", "three.png").stdout
    assert text.splitlines()[1].split()[:2] == ["three.png", "3"]
    assert run(*args, "--out", "all.png").exit_code == 0  # a sheet of all ten
    assert Path("all.png").stat().st_size > Path("three.png").stat().st_size


def test_tables_go_backward_to_their_units(runs):
    result = run("predict", runs / "kinds", "--direction", "backward")
    head, *lines = [line.split() for line in result.stdout.splitlines()]
    assert head == ["input", "a", "b"]
    assert [line[0] for line in lines] == ["ant", "bee", "cat"]
    values = np.array([[float(cell) for cell in line[1:]] for line in lines])
    assert np.abs(values - [[0, 0], [6, 0], [0, 6]]).max() < 2.0
    one = run("predict", runs / "kinds", "--direction", "backward", "--labels", "bee", "--json")
    sample = json.loads(one.stdout)["samples"][0]
    assert sample["input"] == "bee"
    assert sample["x"] == pytest.approx(values[1], rel=1e-4)
    np.save("y.npy", [[100.0, 100.0]])
    back = run("predict", runs / "numbers", "--direction", "backward", "y.npy", "--json")
    assert np.abs(json.loads(back.stdout)["samples"][0]["x"]).max() < 1.5


# -- bad input -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "model", "args", "message"),
    [
        (2, "digits", [], "Missing argument 'INPUT'"),
        (2, "digits", ["--labels", "3"], "--direction backward"),
        (2, "digits", ["x.npy", "--direction", "backward", "--labels", "3"], "not both"),
        (2, "digits", ["x.npy", "x.npy", "--direction", "backward"], "one INPUT"),
        (2, "digits", ["x.npy", "--out", "x.txt"], "must end in one of .npy, .npz, .csv, .png"),
        (2, "digits", ["x.npy", "--out", "p.png"], "use .csv, .npy or .npz"),
        (2, "digits", ["--direction", "backward"], "--out FILE.png"),
        (2, "digits", ["--direction", "backward", "--labels", "3,x"], "no class 'x'"),
        (2, "numbers", ["--direction", "backward"], "targets to start from"),
        (2, "numbers", ["--direction", "backward", "--labels", "3"], "labels name classes"),
        (2, "kinds", ["--direction", "backward", "--out", "a.png"], "rows of a table"),
        (3, "digits", ["x.npy"], "x.npy: shape (2, 2)"),
        (3, "digits", ["absent.png"], "absent.png: no such file"),
        (3, "digits", ["not.png"], "not.png: not an image"),
        (3, "kinds", ["not.png"], "not.png: an image"),
        (3, "digits", ["text.npy"], "text.npy: not a .npy array"),
        (6, "kinds", ["x.npy", "--out", "x.npy/p.npy"], "cannot be written"),
        (6, "kinds", ["x.npy", "--out", "x.npy"], "x.npy: exists"),
    ],
)
def test_bad_input_is_one_line(runs, code, model, args, message):
    np.save("x.npy", np.zeros((2, 2)))
    Path("not.png").write_bytes(b"no picture")
    Path("text.npy").write_text("1,2,3")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert message in fails(code, "predict", runs / model, *args)
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_of_many_classes_the_most_probable_are_shown():
    x = np.eye(15)[np.arange(150) % 15]
    np.savez("d.npz", x=x, y=np.arange(150) % 15 + 100)
    config = RunConfig(dataset="npz", data_dir="d.npz", layers=(), epochs=3, device="cpu")
    train_run(config, "run")
    np.save("x.npy", x[:2])
    head, *lines = [line.split() for line in run("predict", "run", "x.npy").stdout.splitlines()]
    assert head == ["input", "class", "p", "next", "p", "next", "p"]
    predictions = json.loads(run("predict", "run", "x.npy", "--json").stdout)["predictions"]
    for line, prediction in zip(lines, predictions, strict=True):
        best = np.argsort(prediction["probabilities"])[::-1][:3]
        assert line[1::2] == [str(100 + k) for k in best]
        shown = [f"{prediction['probabilities'][k]:.4f}" for k in best]
        assert line[2::2] == shown


def test_a_table_is_predicted_by_the_names_of_its_columns(runs):
    x = np.load(runs / "x.npy")
    Path("new.csv").write_text(
        "b;note;a\n" + "".join(f"{b!r};näh;{a!r}\n" for a, b in x.tolist()), encoding="utf-8-sig"
    )
    np.save("new.npy", x)
    for name in ("kinds", "numbers"):
        told = [json.loads(run("predict", runs / name, file, "--json").stdout)
                for file in ("new.csv", "new.npy")]  # fmt: skip
        named, plain = (each["predictions"] for each in told)
        assert [row.pop("input") for row in named] == [f"new.csv[{k}]" for k in range(3)]
        assert [row.pop("input") for row in plain] == [f"new.npy[{k}]" for k in range(3)]
        assert named == plain


def test_a_table_with_its_targets_is_predicted_into_a_table(runs):
    result = run("predict", runs / "kinds", runs / "kinds.csv", "--out", "out.csv")
    assert result.stderr == "nembp: wrote out.csv: 150 rows\n"
    head, *rows = table(Path("out.csv").read_text())
    assert head == ["input", "class", "p(ant)", "p(bee)", "p(cat)"]
    assert [row[1] for row in rows[:1] + rows[-1:]] == ["ant", "cat"]
    p = np.array([row[2:] for row in rows], dtype=float)
    np.testing.assert_allclose(p.sum(axis=1), 1.0, rtol=1e-6)
    np.save("x.npy", np.loadtxt(runs / "kinds.csv", delimiter=",", skiprows=1, usecols=(0, 1)))
    run("predict", runs / "kinds", "x.npy", "--out", "p.npy")
    assert np.array_equal(np.load("p.npy"), p)  # every digit
    run("predict", runs / "numbers", runs / "numbers.csv", "--out", "numbers.csv")
    assert table(Path("numbers.csv").read_text())[0] == ["input", "left", "right"]


def test_backward_goes_from_tables_to_tables(runs):
    Path("y.csv").write_text("kind\ncat\nant\n")
    there = run("predict", runs / "kinds", "y.csv", "--direction", "backward").stdout
    assert there.splitlines()[0].split() == ["input", "a", "b"]
    labels = ("--direction", "backward", "--labels", "cat,ant")
    named = run("predict", runs / "kinds", *labels).stdout
    assert [line.split()[1:] for line in there.splitlines()[1:]] == [
        line.split()[1:] for line in named.splitlines()[1:]
    ]
    Path("t.csv").write_text("right,left\n101,100\n")
    back = ("predict", runs / "numbers", "t.csv", "--direction", "backward")
    result = run(*back, "--out", "x.csv")
    assert result.exit_code == 0, result.output
    np.save("t.npy", [[100.0, 101.0]])
    run("predict", runs / "numbers", "t.npy", "--direction", "backward", "--out", "x.npy")
    head, row = table(Path("x.csv").read_text())
    assert head == ["input", "a", "b"]
    assert np.array_equal(np.array([row[1:]], dtype=float), np.load("x.npy"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a,c\n1,2\n", "no column 'b'; the columns are 'a', 'c', but expected are 'a', 'b', in"),
        ("a,b\n1,x\n", "row 2, column 'b': text 'x'; expected a number"),
        ("a,b\n", "no samples; expected at least one"),
    ],
)
def test_a_table_that_does_not_fit_is_one_line(runs, content, message):
    Path("bad.csv").write_text(content)
    assert message in fails(3, "predict", runs / "kinds", "bad.csv")


def test_a_model_without_names_takes_columns_as_they_come(runs):
    pixels = load("digits").test.x[:2].reshape(2, 64)
    header = ",".join(f"p{k}" for k in range(64))
    np.savetxt("digits.csv", pixels, delimiter=",", header=header, comments="", fmt="%d")
    np.save("digits.npy", pixels)
    told = [run("predict", runs / "digits", f"digits.{kind}").stdout for kind in ("csv", "npy")]
    assert told[0] == told[1].replace("npy", "csv") != ""
    Path("few.csv").write_text("a,b\n1,2\n")
    assert "2 columns ('a', 'b'); the model does not know" in fails(
        3, "predict", runs / "digits", "few.csv"
    )
    Path("two.csv").write_text("kind,other\nant,1\n")
    assert "expected one column, of labels" in fails(
        3, "predict", runs / "kinds", "two.csv", "--direction", "backward"
    )


def test_a_class_whose_name_holds_a_comma():
    """Nor does a name command the terminal."""
    kinds = np.array(["ant, red", "\x1b[31mbee"])[np.arange(40) % 2]
    np.savez("d.npz", x=np.arange(80.0).reshape(40, 2), y=kinds)
    train_run(RunConfig(dataset="npz", data_dir="d.npz", layers=(), epochs=1, device="cpu"), "run")
    args = "predict", "run", "--direction", "backward", "--label", "ant, red"
    samples = json.loads(run(*args, "--json").stdout)["samples"]
    assert [sample["input"] for sample in samples] == ["ant, red"]
    result = run("predict", "run", "--direction", "backward")
    assert "\\x1b[31mbee" in result.stdout
    assert "\x1b" not in result.output


def test_outputs_that_are_not_finite_are_errors(runs):
    model = load_model(runs / "digits" / "model.npz")
    model.net.parameters[...] = 1e38
    save_model("model.npz", model)
    np.save("x.npy", load("digits").test.x[:2])
    for args in (("predict", "model.npz", "x.npy"), ("evaluate", "model.npz")):
        assert "outputs that are not finite" in fails(3, *args)
