"""nembp predict: tables."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cli_predict_cases import table, train_runs
from command_line import fails, run

from nembp.datasets import load


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    return train_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
        (
            "a,c\n1,2\n",
            "no column 'b'; the columns are 'a', 'c', but expected are 'a', 'b', in any order",
        ),
        ("a,b\n1,\n", "row 2, column 'b': empty cell; expected a number"),
        ("a,b\n1,x\n", "row 2, column 'b': text 'x'; expected a number"),
        ("a,b\n1,2,3\n", "row 2: 3 cells; expected 2, as in the header"),
        ("a,b\n1,inf\n", "column 'b': inf; expected a finite number"),
        ("a,b,a\n1,2,3\n", "two columns are called 'a'"),
        ("1,2\n3,4\n", "no column 'a'; the columns are '1', '2'"),
        ("a,b\n", "no samples; expected at least one"),
        ("", "empty; expected a header row"),
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
