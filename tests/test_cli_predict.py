"""``nembp evaluate`` and ``nembp predict``, as a user calls them."""

from __future__ import annotations

import contextlib
import csv
import json
import os
from functools import partial
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from command_line import as_json, fails, rows, run, summary, works
from fuzz_cases import traced
from nembp_cli.main import cli
from PIL import Image

from nembp.checkpoints import load_model, save_model
from nembp.datasets import load
from nembp.datasets.images import read_image
from nembp.files import replacing
from nembp.plotting.pictures import write_images
from nembp.runs import RunConfig, evaluate_run, from_toml, train_run
from nembp.runs.predicting import SplitName, answer, load_run, read_samples, sample_names

BACK = ("--direction", "backward")
SUMS = np.array([[1.0, 3.0], [2.0, -1.0]])
drawn = partial(as_json, "draw", "noise", "--force")
GENERATOR = np.random.default_rng(3)
X = GENERATOR.normal(size=(90, 3)) * 0.3 + 4 * np.eye(3)[np.arange(90) % 3]
SHORT = ["--layers", "8", "--epochs", "30", "--learning-rate", "0.02", "--device", "cpu", "--quiet"]
pytestmark = pytest.mark.usefixtures("own_folder")


def trained(run: object, **options: object) -> None:
    train_run(RunConfig(device="cpu", **{"layers": (), "epochs": 1, **options}), run)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs of digits, of named classes of a table, and of two numbers; and data for them."""
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "digits", layers=(32,), epochs=15, validation_fraction=0.1)
    trained(folder / "oneway", layers=(8,), backward="none")
    trained(folder / "bernoulli", layers=(16,), epochs=2, backward="bernoulli", noise="nem",
            noise_std=0.25, noise_target="both", noise_rejected="zero",
            noise_law="uniform")  # fmt: skip
    x = np.random.default_rng(0).normal(size=(150, 2))
    np.savez(folder / "pairs.npz", x=x[:4], y=x[:4] @ SUMS + 100)
    np.save(folder / "few.npy", x[:4])
    x += 6 * np.repeat([[0, 0], [1, 0], [0, 1]], 50, axis=0)
    np.save(folder / "x.npy", x[[0, 60, 120]])
    for name, targets, header in (
        ("kinds", np.repeat(["ant", "bee", "cat"], 50)[:, np.newaxis], ["kind"]),
        ("numbers", x @ SUMS + 100, ["left", "right"]),
    ):
        with open(folder / f"{name}.csv", "w", newline="") as file:
            rows = [[*u, *v] for u, v in zip(x.tolist(), targets.tolist(), strict=True)]
            csv.writer(file).writerows([["a", "b", *header], *rows])
        trained(folder / name, dataset="csv", data_dir=str(folder / f"{name}.csv"),
                targets=tuple(header), layers=(32,), epochs=80)  # fmt: skip
    write_images(folder / "digit.png", load("digits").test.x[[5]] / 16, (8, 8, 1))
    return folder


@pytest.fixture(autouse=True)
def _pictures_of_one_pixel(monkeypatch, request):
    """All tests but one look at the numbers."""

    def draw(path, *_):
        with replacing(path) as file:
            Image.new("RGB", (1, 1)).save(file, "PNG")

    if "sample_are_drawn" not in request.node.name:
        monkeypatch.setattr("nembp.plotting.noise.draw_noise", draw)


def table(text: str) -> list[list[str]]:
    return list(csv.reader(text.splitlines()))


def predict(*args: object) -> list[list[str]]:
    """Return the cells of the table that is printed, or a line that is not."""
    return [line.split() for line in works("predict", *args).stdout.splitlines()]


# -- scores ----------------------------------------------------------------------------------------
def test_evaluate_finds_the_scores_of_the_run_again(runs):
    told, keys = summary(runs / "digits"), ("forward/accuracy", "forward/nll", "backward/nll",
                                            "backward/centroid_error")  # fmt: skip
    for run_ in (runs / "digits", runs / "digits/model.npz"):
        scores = as_json("evaluate", run_)
        assert {key: scores[key] for key in keys} == pytest.approx({k: told[k] for k in keys})
    found = {split: evaluate_run(runs / "digits", split=split) for split in get_args(SplitName)}
    counts = {split: scores["samples"] for split, scores in found.items()}
    assert counts == {"train": 1350, "validation": 150, "test": 297, "all": 1797}
    last = rows(runs / "digits")[-1]["forward/nll"]
    assert found["validation"]["forward/nll"] == pytest.approx(last)
    text = run("evaluate", runs / "digits").stdout
    assert f"accuracy {told['forward/accuracy']:#.4g}" in text
    assert "297 test samples of digits" in text
    assert as_json("evaluate", runs / "numbers")["forward/accuracy"] is None


def test_data_and_settings_that_do_not_fit_are_refused(runs):
    text = (runs / "numbers.csv").read_text()
    head, *lines = text.splitlines()
    Path("new.csv").write_text("\n".join([head, *lines[::3]]))
    new = evaluate_run(runs / "numbers", data_dir="new.csv", split="all")
    assert (new["samples"], new["forward/r2"] > 0.8) == (50, True)
    model = load_model(runs / "digits" / "model.npz")
    model.settings |= {"of_the_future": 1}
    save_model("future.npz", model)
    assert evaluate_run("future.npz")["samples"] == 297
    model.settings |= {"epochs": "many"}
    save_model("odd.npz", model)
    assert "odd.npz: settings of another version" in fails(3, "evaluate", "odd.npz")
    model = load_model(runs / "digits" / "model.npz")
    model.classes = tuple("abcdefghij")
    save_model("letters.npz", model)
    assert "no class '0'; expected one of the classes 'a', " in fails(3, "evaluate", "letters.npz")


def test_new_samples_need_not_be_of_every_class(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def write(names, file):
        lines = [f"{'rgbk'.index(name) + k / 100},{name}" for k in range(20) for name in names]
        Path(file).write_text("\n".join(["x,colour", *lines]))

    for names in ("rgb", "gb", "b", "gk"):
        write(names, f"{names}.csv")
    run("train", "--dataset", "csv", "--data-dir", "rgb.csv", "--epochs", "60", "--out", "run")
    options = ("run", "--split", "all", "--data-dir")
    for names in ("rgb", "gb", "b"):
        scores = as_json("evaluate", *options, f"{names}.csv")
        assert (scores["samples"], scores["forward/accuracy"] > 0.9) == (20 * len(names), True)
    assert "gk.csv: column 'colour': no class 'k'" in fails(3, "evaluate", *options, "gk.csv")


# -- what is read ----------------------------------------------------------------------------------
def test_samples_are_read_in_every_form_and_predicted_in_raw_units(runs):
    model, x = load_run(runs / "digits"), load("digits").test.x[:3]
    for form in (x, x[..., 0].astype(float), x.reshape(3, 64), np.asfortranarray(x)):
        np.save("a.npy", form)
        read, files = read_samples(["a.npy"], model)
        assert np.array_equal(read, x)
        assert list(sample_names(files)) == [f"a.npy[{row}]" for row in range(3)]
    np.save("one.npy", x[0, :, :, 0])
    np.savez("d.npz", x=x[1:], other=x)
    read, files = read_samples(["one.npy", "d.npz"], model)
    assert np.array_equal(read, x)
    assert next(sample_names(files)) == "one.npy"
    assert np.array_equal(read_samples(["d.npz"], model, "other")[0], x)
    numbers, x = load_run(runs / "numbers"), np.load(runs / "x.npy")
    y = x @ SUMS + 100
    assert np.abs(answer(numbers, x) - y).max() < 0.5 * y.std()
    assert np.abs(answer(numbers, y, backward=True) - x).max() < x.std()


# -- forward ---------------------------------------------------------------------------------------
def test_forward_prints_classes_and_probabilities(runs):
    head, *lines = predict(runs / "kinds", runs / "x.npy")
    assert head == ["input", "class", "p(ant)", "p(bee)", "p(cat)"]
    found = as_json("predict", runs / "kinds", runs / "x.npy")["predictions"]
    for row, (line, item) in enumerate(zip(lines, found, strict=True)):
        kind = ("ant", "bee", "cat")[row]
        assert line[:2] == [f"{runs / 'x.npy'}[{row}]", kind] == [item["input"], item["class"]]
        assert np.argmax(item["probabilities"]) == item["label"] == row
        assert line[2:] == [f"{p:.4f}" for p in item["probabilities"]]


def test_of_many_classes_the_most_probable_are_shown():
    x = np.eye(15)[np.arange(150) % 15]
    np.savez("d.npz", x=x, y=np.arange(150) % 15 + 100)
    trained("run", dataset="npz", data_dir="d.npz", epochs=3)
    np.save("x.npy", x[:2])
    head, *lines = predict("run", "x.npy")
    assert head == ["input", "class", "p", "next", "p", "next", "p"]
    for line, item in zip(lines, as_json("predict", "run", "x.npy")["predictions"], strict=True):
        best = np.argsort(item["probabilities"])[::-1][:3]
        assert line[1::2] == [str(100 + k) for k in best]
        assert line[2::2] == [f"{item['probabilities'][k]:.4f}" for k in best]


def test_forward_writes_arrays(runs):
    digits = load("digits").test
    np.save("x.npy", digits.x[:20])
    for out in ("p.npy", "p.npz"):
        result = run("predict", runs / "digits", "x.npy", "--out", out)
        assert (result.stdout, result.stderr) == ("", f"nembp: wrote {out}: 20 rows\n")
    p = np.load("p.npy")
    assert np.allclose(p.sum(axis=1), 1.0, atol=1e-5)
    assert np.mean(p.argmax(axis=1) == digits.y[:20]) > 0.8
    with np.load("p.npz", allow_pickle=False) as archive:
        assert np.array_equal(archive["probabilities"], p)
        assert np.array_equal(archive["labels"], p.argmax(axis=1))
        assert archive["classes"].tolist() == list("0123456789")
    assert "exists" in fails(6, "predict", runs / "digits", "x.npy", "--out", "p.npy")
    predict(runs / "digits", "x.npy", "--out", "p.npy", "--force")


def test_pixels_that_look_scaled_are_noted(runs):
    np.save("scaled.npy", load("digits").test.x[:2] / 16.0)
    np.save("raw.npy", load("digits").test.x[:2] * 1.0)
    assert "raw pixels are expected" in run("predict", runs / "digits", "scaled.npy").stderr
    assert run("predict", runs / "digits", "raw.npy").stderr == ""


def test_a_table_is_predicted_by_the_names_of_its_columns(runs):
    x = np.load(runs / "x.npy")
    Path("new.csv").write_text(
        "b;note;a\n" + "".join(f"{b!r};näh;{a!r}\n" for a, b in x.tolist()), encoding="utf-8-sig"
    )
    np.save("new.npy", x)
    for name in ("kinds", "numbers"):
        named, plain = (as_json("predict", runs / name, file)["predictions"]
                        for file in ("new.csv", "new.npy"))  # fmt: skip
        assert [row.pop("input") for row in named] == [f"new.csv[{k}]" for k in range(3)]
        assert [row.pop("input") for row in plain] == [f"new.npy[{k}]" for k in range(3)]
        assert named == plain
    comma = "a;b;kind\n" + "".join(f"{a};{b};ant\n" for a, b in x.tolist()).replace(".", ",")
    Path("comma.csv").write_text(comma + comma[9:].replace("ant", "bee") + "0;0;cat\n")
    assert "say decimal=',' (--decimal ,)" in fails(3, "predict", runs / "kinds", "comma.csv")
    rows = as_json("predict", runs / "kinds", "comma.csv", "--decimal", ",")["predictions"][:3]
    assert [row["class"] for row in rows] == ["ant", "bee", "cat"]
    other = ("--data-dir", "comma.csv", "--split", "all", "--decimal", ",")
    assert as_json("evaluate", runs / "kinds", *other)["samples"] == 7
    for content, message in (
        ("a,c\n1,2\n", "no column 'b'; the columns are 'a', 'c', but expected are 'a', 'b', in"),
        ("a,b\n1,x\n", "row 2, column 'b': text 'x'; expected a number"),
        ("a,b\n", "no samples; expected at least one"),
    ):
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
    line = fails(3, "predict", runs / "digits", "few.csv")
    assert "2 columns ('a', 'b'); the model does not know" in line


def test_a_table_with_its_targets_is_predicted_into_a_table(runs):
    predict(runs / "kinds", runs / "kinds.csv", "--out", "out.csv")
    head, *rows = table(Path("out.csv").read_text())
    assert head == ["input", "class", "p(ant)", "p(bee)", "p(cat)"]
    assert [row[1] for row in rows[:1] + rows[-1:]] == ["ant", "cat"]
    np.save("x.npy", np.loadtxt(runs / "kinds.csv", delimiter=",", skiprows=1, usecols=(0, 1)))
    predict(runs / "kinds", "x.npy", "--out", "p.npy")
    p = np.array([row[2:] for row in rows], dtype=float)
    assert np.array_equal(np.load("p.npy"), p)  # every digit
    predict(runs / "numbers", runs / "numbers.csv", "--out", "numbers.csv")
    assert table(Path("numbers.csv").read_text())[0] == ["input", "left", "right"]


# -- backward --------------------------------------------------------------------------------------
def test_a_picture_makes_the_round_trip(runs):
    predict(runs / "digits", *BACK, "--labels", "3", "--out", "three.png")
    predict(runs / "digits", *BACK, "--labels", "3", "--out", "three.npy")
    pixels, raw = read_image(Path("three.png"), (8, 8), 1), np.load("three.npy")
    assert raw.shape == (1, 8, 8, 1)
    assert np.abs(np.clip(raw, 0, 16) / 16 * 255 - pixels).max() <= 0.5 + 1e-9
    assert predict(runs / "digits", "three.png")[1][:2] == ["three.png", "3"]
    predict(runs / "digits", *BACK, "--out", "all.png")  # a sheet of all ten
    assert Path("all.png").stat().st_size > Path("three.png").stat().st_size


def test_backward_goes_from_labels_and_tables_to_the_units_of_tables(runs):
    head, *lines = predict(runs / "kinds", *BACK)
    assert head == ["input", "a", "b"]
    assert [line[0] for line in lines] == ["ant", "bee", "cat"]
    values = np.array([line[1:] for line in lines], dtype=float)
    assert np.abs(values - [[0, 0], [6, 0], [0, 6]]).max() < 2.0
    (sample,) = as_json("predict", runs / "kinds", *BACK, "--labels", "bee")["samples"]
    assert sample == {"input": "bee", "x": pytest.approx(values[1], rel=1e-4)}
    Path("y.csv").write_text("kind\ncat\nant\n")
    there, named = (predict(runs / "kinds", *BACK, *way)
                    for way in (["y.csv"], ["--labels", "cat,ant"]))  # fmt: skip
    assert [line[1:] for line in there] == [line[1:] for line in named]
    Path("two.csv").write_text("kind,other\nant,1\n")
    line = fails(3, "predict", runs / "kinds", "two.csv", *BACK)
    assert "expected one column, of labels" in line
    Path("t.csv").write_text("right,left\n101,100\n")
    np.save("t.npy", [[100.0, 101.0]])
    predict(runs / "numbers", "t.csv", *BACK, "--out", "x.csv")
    predict(runs / "numbers", "t.npy", *BACK, "--out", "x.npy")
    head, row = table(Path("x.csv").read_text())
    assert head == ["input", "a", "b"]
    assert np.array_equal(np.array([row[1:]], dtype=float), np.load("x.npy"))
    assert np.abs(np.load("x.npy")).max() < 1.5


def test_names_of_classes_may_hold_a_comma_and_do_not_command_the_terminal():
    names = ["ant, red", "\x1b[31m\x9b\u202ebee"]
    kinds = np.array(names)[np.arange(40) % 2]
    np.savez("d.npz", x=np.arange(80.0).reshape(40, 2), y=kinds)
    trained("run", dataset="npz", data_dir="d.npz")
    args = "predict", "run", "--direction", "backward", "--label", "ant, red", "--label", names[1]
    text, as_json = run(*args).output, run(*args, "--json").output
    assert [sample["input"] for sample in json.loads(as_json)["samples"]] == names
    assert "\\x1b[31m\\x9b\\u202ebee" in text
    for said in (text, as_json, fails(2, *args, "--label", "\x9b\x1b\u202e")):
        assert not set(said) & {"\x1b", "\x9b", "\u202e"}


def test_a_long_table_is_read_and_written_as_it_comes(runs):
    """What a row takes in memory is its numbers, not its text."""
    count = 20_000
    text = "a,b\n" + "1,2\n" * count
    Path("long.csv").write_text(text)
    for args in (("--out", "long.out.csv"), ("--out", "y.npy"), ("--json",), ()):
        ask = partial(cli, ["predict", str(runs / "kinds"), "long.csv", *args])
        with open("said.txt", "w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
            ended, peak = traced(partial(pytest.raises, SystemExit, ask))
        assert ended.value.code == 0
        assert peak < 8 * 8 * count + 2_000_000, args  # x twice, y twice, blocks of text
    assert len(Path("said.txt").read_text().splitlines()) == count + 1
    assert np.load("y.npy").shape == (count, 3)
    assert len(table(Path("long.out.csv").read_text())) == count + 1


# -- bad input -------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("code", "args", "message"),
    [
        (2, "predict digits", "Missing argument 'INPUT'"),
        (2, "predict digits --labels 3", "--direction backward"),
        (2, "predict digits x.npy --by-index", "--direction backward"),
        (2, "predict digits x.npy --key y", "no INPUT is one"),
        (2, "predict digits x.npy BACK --labels 3", "not both"),
        (2, "predict digits x.npy x.npy BACK", "one INPUT"),
        (2, "predict digits x.npy --out x.txt", "must end in one of .npy, .npz, .csv, .png"),
        (2, "predict digits x.npy --out p.png", "use .csv, .npy or .npz"),
        (2, "predict digits BACK", "--out FILE.png"),
        (2, "predict digits BACK --labels 3,x", "no class 'x'"),
        (2, "predict numbers BACK", "targets to start from"),
        (2, "predict numbers BACK --labels 3", "labels name classes"),
        (2, "predict kinds BACK --out a.png", "rows of a table"),
        (3, "predict digits absent.png", "absent.png: no such file"),
        (3, "predict digits not.png", "not.png: not an image"),
        (3, "predict kinds not.png", "not.png: an image"),
        (3, "predict digits text.npy", "text.npy: not a .npy array"),
        (6, "predict kinds x.npy --out x.npy/p.npy", "cannot be written"),
        (6, "predict kinds x.npy --out x.npy", "x.npy: exists"),
        (2, "evaluate digits --split tset", "--split"),
        (2, "evaluate numbers --split validation", "no validation split"),
        (3, "draw noise nowhere", "nowhere: no such file"),
        (2, "draw noise digits --sample 297", "297 test samples; expected a number from 0 to 296"),
        (2, "draw noise kinds --class bea", "no class 'bea'; expected one of the classes 'ant', "
         "'bee', 'cat'; did you mean 'bee'?"),
        (2, "draw noise numbers --class left", "predicts numbers; choose a sample by its number"),
        (2, "draw noise digits --sample 1 --class 1", "give one of them"),
        (2, "draw noise digits --std 0", "a number ≥ 1e-09 and < 1e+06, got 0.0"),
        (2, "draw noise digits --out noise.jpg", "must end in .png"),
        (3, "draw noise digits --input absent.npy --class 1", "absent.npy"),
        (2, "draw noise digits --input a.npy --data-dir b", "--data-dir"),
        (6, "draw noise digits --out not.png", "not.png: exists; choose another --out, or replace"),
        # samples of files need a target, and have to fit
        (2, "draw noise digits --input digit.png", "a sample without its target, and noise is "
         "noise on a target; --class NAME says which class it is of"),
        (2, "draw noise numbers --input few.npy", "give an .npz with the arrays x and y"),
        (2, "draw noise numbers --input pairs.npz --sample 4", "expected a number from 0 to 3"),
        (3, "draw noise digits --input few.npy --class 1", "expected (n, 8, 8, 1)"),
        (2, "draw noise numbers --input uneven.npz", "3 samples x and 2 targets y"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(runs, code, args, message):
    np.save("x.npy", np.zeros((2, 2)))
    np.savez("uneven.npz", x=np.zeros((3, 2)), y=np.full((2, 2), 100.0))
    Path("not.png").write_bytes(b"no picture")
    Path("text.npy").write_text("1,2,3")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    words = args.replace("BACK", "--direction backward").split()
    there = {"digits", "numbers", "kinds", "nowhere", "digit.png", "few.npy", "pairs.npz"}
    assert message in fails(code, *(runs / word if word in there else word for word in words))
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


@pytest.mark.parametrize(
    ("way", "values", "message"),
    [
        ((), np.zeros((3, 7, 8)), "shape (3, 7, 8); expected (n, 8, 8, 1) or"),
        ((), np.zeros((0, 64)), "no samples"),
        ((), np.full((1, 64), 1e31), "expected finite numbers"),
        ((), np.full((1, 64), "a"), "expected real numbers"),
        ((), np.array(5), "shape (); expected"),
        (BACK, [3.5], "no class 3.5; expected one of the classes '0'"),
        (BACK, [], "no targets"),
        (BACK, [[1.0, 0.0]], "expected (n, 10)"),
        (BACK, -np.eye(10), "probabilities ≥ 0"),
        (BACK, ["x"], "no class 'x'"),
    ],
)
def test_arrays_that_do_not_fit(runs, way, values, message):
    np.save("x.npy", values)
    assert message in fails(3, "predict", runs / "digits", "x.npy", *way, "--json")


def test_outputs_that_are_not_finite_are_errors(runs):
    model = load_model(runs / "digits" / "model.npz")
    model.net.parameters[...] = 1e38
    save_model("model.npz", model)
    np.save("x.npy", load("digits").test.x[:2])
    for args in (("predict", "model.npz", "x.npy"), ("evaluate", "model.npz")):
        assert "outputs that are not finite" in fails(3, *args)
    assert "output for this sample is not finite" in fails(3, "draw", "noise", "model.npz")


# -- what a run read, another command reads alike --------------------------------------------------
def write_table(
    path: str, rows: np.ndarray, names: str = "a,b,c", order: tuple = (0, 1, 2)
) -> None:
    header = ",".join([*(names.split(",")[k] for k in order), "kind"])
    lines = [",".join([*(f"{float(X[k, c % 3])!r}" for c in order), f"k{k % 3}"]) for k in rows]
    Path(path).write_text("\n".join([header, *lines]) + "\n")


def backward(*args: object) -> list:
    """Return the samples drawn backward; the same whatever names the class."""
    result = works("predict", "run", "--direction", "backward", "--json", *args)
    return [sample["x"] for sample in json.loads(result.stdout)["samples"]]


def test_a_label_names_a_class_whatever_holds_it():
    np.savez("d.npz", x=X, y=np.array([7, 8, 10])[np.arange(90) % 3])
    trained("run", dataset="npz", data_dir="d.npz", layers=(16,))
    named = backward("--labels", "10,7")
    Path("y.csv").write_text("10\n7\n")
    np.save("y.npy", [10, 7])
    np.save("float.npy", [10.0, 7.0])
    np.save("small.npy", np.array([10, 7], np.uint8))
    np.save("bytes.npy", [b" 10", b"7.0"])
    np.savez("y.npz", y=[10, 7], rows=np.eye(3)[[2, 0]])
    for file in ("y.csv", "y.npy", "float.npy", "small.npy", "bytes.npy", "y.npz"):
        assert backward(file) == named, file
    assert backward("y.npz", "--key", "rows") == named
    assert backward("--labels", "2,0", "--by-index") == named
    assert np.allclose(np.array(backward())[[2, 0]], named)  # 7, 8, 10
    for label in ("0", "blue", "7.5", "nan"):
        said = fails(2, "predict", "run", *BACK, "--labels", label)
        assert f"no class '{label}'; expected one of the classes '7', '8', '10'" in said
    said = fails(2, "predict", "run", *BACK, "--labels", "3", "--by-index")
    assert "expected an index from 0 to 2" in said
    np.save("index.npy", [0])
    assert "no class 0" in fails(3, "predict", "run", "index.npy", *BACK)
    assert len(backward("index.npy", "--by-index")) == 1


def test_data_is_matched_by_its_columns_and_known_by_its_content():
    write_table("d.csv", np.arange(90))
    works("train", "--dataset", "csv", "--data-dir", "d.csv", *SHORT, "--out", "run")
    write_table("swapped.csv", np.arange(90), order=(2, 0, 1))
    scores = [as_json("evaluate", "run", "--data-dir", name) for name in ("d.csv", "swapped.csv")]
    assert scores[0]["forward/accuracy"] == scores[1]["forward/accuracy"] > 0.9
    write_table("other.csv", np.arange(90), names="a,b,d")
    write_table("more.csv", np.arange(90), names="a,b,c,d", order=(0, 1, 2, 3))
    for name, fault in (("other.csv", "no column 'c'"), ("more.csv", "unknown column 'd'")):
        assert fault in fails(3, "evaluate", "run", "--data-dir", name, "--split", "all")
    for kept in (np.arange(90)[::-1], np.arange(1, 90)):  # not what was held out
        write_table("d.csv", kept)
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


# -- which noise is drawn ---------------------------------------------------------------------------------
def test_without_options_the_classes_of_the_first_test_sample_are_drawn(runs):
    pytest.importorskip("matplotlib")
    result = works("draw", "noise", runs / "digits")
    assert result.stderr == "nembp: wrote noise-forward.png\n"
    head, simplex, span = result.stdout.splitlines()
    assert head.split()[:4] == ["panel", "screened", "units", "accepted"]
    assert simplex.startswith("three classes on the simplex")
    assert span.startswith("all 10 units")
    assert os.listdir() == ["noise-forward.png"]
    with Image.open("noise-forward.png") as image:
        assert image.format == "PNG"
        assert len(np.unique(np.asarray(image.convert("RGB")).reshape(-1, 3), axis=0)) > 50


def test_the_target_and_the_output_are_those_of_the_sample(runs):
    data, model = load("digits").test, load_model(runs / "digits" / "model.npz")
    facts = drawn(runs / "digits", "--sample", 7)
    assert facts["sample"] == "test sample 7 of digits"
    assert facts["target"] == np.eye(10)[data.y[7]].tolist()
    x = model.x_scaling.apply(data.x[[7]], np.float64).reshape(1, -1)
    p = model.net.predict(x)[0]
    assert np.allclose(facts["output"], p, rtol=1e-5)
    assert facts["log_likelihood"] == pytest.approx(np.log(p[data.y[7]]), rel=1e-4)
    backward = drawn(runs / "digits", "--sample", 7, "--direction", "backward")
    assert np.allclose(backward["target"], x[0])
    assert np.allclose(backward["output"], model.net.reversed.predict(np.eye(10)[data.y[[7]]])[0])
    assert backward["out"] == "noise-backward.png"


def test_what_is_not_asked_for_is_the_runs(runs):
    names = "std", "rejected", "law", "draws", "seed"
    asked = ("--std", 0.5, "--rejected", "reflect", "--law", "gaussian", "--draws", 70, "--seed", 1)
    for run_, more, expected in (
        ("bernoulli", (), [0.25, "zero", "uniform", 2000, 0]),
        ("bernoulli", asked, [0.5, "reflect", "gaussian", 70, 1]),
        ("digits", (), [0.1, "reflect", "gaussian", 2000, 0]),  # trained without noise
    ):
        facts = drawn(runs / run_, *more)
        assert [facts[name] for name in names] == expected
        unused = "reflected" if facts["rejected"] == "zero" else "set_to_zero"
        assert facts["panels"][0][unused] == 0


def test_samples_of_files_are_drawn(runs):
    facts = drawn(runs / "digits", "--input", runs / "digit.png", "--class", "3")
    assert facts["sample"] == str(runs / "digit.png")
    assert facts["target"] == np.eye(10)[3].tolist()
    pairs = drawn(runs / "numbers", "--input", runs / "pairs.npz", "--sample", 3)
    model = load_model(runs / "numbers" / "model.npz")
    y = np.load(runs / "pairs.npz")["y"][[3]]
    assert np.allclose(pairs["target"], model.y_scaling.apply(y, np.float64)[0])
    back = drawn(runs / "kinds", "--input", runs / "few.npy", "--class", "bee", "--sample", 2,
                 "--direction", "backward")  # fmt: skip
    x = np.load(runs / "few.npy")[[2]]
    assert np.allclose(back["target"], load_model(runs / "kinds" / "model.npz").x_scaling.apply(
        x, np.float64)[0])  # fmt: skip


def test_a_direction_that_was_not_trained_is_noted(runs):
    result = works("draw", "noise", runs / "oneway", "--direction", "backward")
    assert "the backward direction of this run was not trained" in result.stderr
    assert "not trained" not in run("draw", "noise", runs / "oneway").stderr
