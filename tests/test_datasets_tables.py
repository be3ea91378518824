"""Tables: read in every dialect, refused by row and column."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz_cases import CONSTANT, FILES, TIMES, check_dataset, mutated, traced
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import Scaling, load
from nembp.errors import ArchitectureError, DataError

FLOWERS = "length,width,kind\n" + "".join(
    f"{i}.5,{i * i},{'iris' if i % 2 else 'aster'}\n" for i in range(10)
)


HOUSES = "area,rooms,price,tax\n" + "".join(f"{i},{i % 3},{i * 2.5},{-i}\n" for i in range(10))


@pytest.fixture
def put(tmp_path):
    def write(text: str | bytes, name: str = "table.csv") -> str:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def rows(dataset):
    x = np.concatenate([dataset.train.x, dataset.test.x])
    y = np.concatenate([part.y.reshape(len(part), -1) for part in (dataset.train, dataset.test)])
    table = np.column_stack([x, y])
    return table[np.argsort(table[:, 0])]


def test_numbers_make_regression_targets(put):
    path = put(HOUSES)
    one = load("csv", path)
    assert (one.target_names, one.features, one.outputs) == (("tax",), 3, 1)
    two = load("csv", path, targets=["tax", "area"])
    assert two.target_names == ("tax", "area")
    table = [[i % 3, i * 2.5, -i, i] for i in range(10)]
    assert np.array_equal(rows(two)[np.argsort(rows(two)[:, 3])], table)
    assert two.y_scaling == Scaling(two.train.y.mean(axis=0), 1 / two.train.y.std(axis=0))
    assert load("csv", path, targets="price").target_names == ("price",)


def test_task_overrides(put):
    text = "x,k\n" + "".join(f"{i},{10 - i % 3 * 4}\n" for i in range(9))
    assert load("csv", put(text)).target_names == ("k",)
    classes = load("csv", put(text), task="classification")
    assert classes.classes == ("2", "6", "10")  # numerically
    assert rows(classes)[:3, 1].tolist() == [2, 1, 0]
    with pytest.raises(DataError, match="row 2, column 'kind': text 'aster'"):
        load("csv", put(FLOWERS), task="regression")
    with pytest.raises(DataError, match="one label per sample"):
        load("csv", put(HOUSES), targets=["price", "tax"], task="classification")


def test_training_and_test_tables_of_a_folder(put, tmp_path):
    put(FLOWERS, "train.csv")
    put("length,width,kind\n1,2,iris\n", "test.csv")
    dataset = load("csv", tmp_path)
    assert (len(dataset.train), dataset.test.y.tolist()) == (10, [1])
    assert np.array_equal(dataset.train.x[:, 1], np.arange(10.0) ** 2)  # in the file's order
    put("length,width,kind\n1,2,rose\n", "test.csv")
    with pytest.raises(DataError, match="label rose of sample 0 does not occur"):
        load("csv", tmp_path)
    put("width,kind,length\n2,iris,1\n", "test.csv")
    assert load("csv", tmp_path).test.x.tolist() == [[1, 2]]
    put("width,other,kind\n1,2,iris\n", "test.csv")
    with pytest.raises(DataError, match=r"test\.csv: no column 'length'"):
        load("csv", tmp_path)
    put("length,width,kind\n", "test.csv")
    with pytest.raises(DataError, match=r"test\.csv: no samples"):
        load("csv", tmp_path)
    (tmp_path / "test.csv").unlink()
    assert len(load("csv", tmp_path).train) == 8
    put(FLOWERS, "other.csv")
    with pytest.raises(DataError, match=r"2 \.csv files in this folder"):
        load("csv", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        FLOWERS.replace(",", ";"),
        FLOWERS.replace("\n", "\r\n"),
        FLOWERS.replace("\n", "\n\n"),
        FLOWERS.replace(",", " , "),
        FLOWERS.replace("iris", '"iris"').replace("length", '"length"'),
        FLOWERS.rstrip("\n"),
    ],
)
def test_dialects(put, text):
    dataset = load("csv", put(text))
    assert dataset.classes == ("aster", "iris")
    assert np.array_equal(rows(dataset), rows(load("csv", put(FLOWERS))))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; expected a header row"),
        ("a,b\n", "no samples"),
        ("a\n1\n", "one column .'a'."),
        (",a,b\n0,1,2\n", r"column 1 has no name.*index=False"),
        ("a,a,b\n", "two columns are called 'a'"),
        ("a,b\n1,2\n3\n", "row 3: 1 cells; expected 2"),
        ("a,b\n1,2\nred,3\n", "row 3, column 'a': text 'red'; expected a number. Encode"),
        ("a,b\n1,2\n1_000,3\n", "row 3, column 'a': text '1_000'"),
        ("a,b\n1,2\n\n,3\n", "row 4, column 'a': empty cell"),
        ("a,b\n1,2\n1e999,3\n", "row 3, column 'a': 1e999; expected a finite number"),
        ("a,b\n1,x\n3,\n", "row 3, column 'b': empty cell; expected a label"),
        ("a,b\n1,x\n3,4\n", "row 3, column 'b': number '4' among text labels.*--task class"),
        ("a,b\n1,x\n3,x\n4,x\n", r"column 'b': one class only \(x\)"),
        ('a,b\n1,"x\n', "row 2: unexpected end of data"),
        ("a,b\n1," + "x" * 140_000, "field larger than field limit"),
        (b"a,b\n1,\xff\n", "not UTF-8"),
    ],
)
def test_damaged_tables(put, text, message):
    path = put(text)
    with pytest.raises(DataError, match=message) as caught:
        load("csv", path)
    assert path in str(caught.value)


def test_targets_that_are_not_there(put):
    path = put(HOUSES)
    with pytest.raises(DataError, match=r"no column 'cost'.*'area', 'rooms', 'price', 'tax'"):
        load("csv", path, targets="cost")
    for targets in ([], ["tax", "tax"], ["area", "rooms", "price", "tax"]):
        with pytest.raises(ArchitectureError, match="leave at least one feature"):
            load("csv", path, targets=targets)
    wide = ",".join(f"c{i}" for i in range(30)) + "\n"
    with pytest.raises(DataError, match="'c19' and 10 more"):
        load("csv", put(wide), targets="d")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("fuzz")


cell = (
    st.floats(-1e3, 1e3).map(lambda value: f"{value:g}")
    | st.sampled_from(["1", "2", "a", "b", "", "nan", "inf", "1e999", "1_0", '"', '"a,b"', " 3 "])
    | st.text(max_size=5)
)


random_table = st.lists(st.lists(cell, max_size=4), max_size=8).map(
    lambda rows: "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")
)


@st.composite
def valid_table(draw) -> bytes:
    labels = st.integers(0, 9).map(str) if draw(st.booleans()) else st.sampled_from("abc")
    mark, decimal = draw(st.sampled_from(",;\t|")), draw(st.sampled_from("..,"))
    head = draw(st.sampled_from([["p,q,r"], [], ["sep=,", "p,q,r"]]))
    rows = [f"{i},{i / 7:.3f},{draw(labels)}" for i in range(draw(st.integers(0, 12)))]
    text = "\n".join([*head, *rows]).replace(",", mark)
    return text.replace(".", decimal).encode()


@FILES
@given(
    content=mutated(valid_table()) | random_table | st.binary(max_size=80),
    options=st.fixed_dictionaries(
        {"task": st.sampled_from(["auto", "classification", "regression"])},
        optional={"delimiter": st.sampled_from([",", ";", "tab", " "]), "header": st.booleans(),
                  "decimal": st.sampled_from(".,")},
    ),
)  # fmt: skip
def test_csv(place, content, options):
    path = place / "x.csv"
    path.write_bytes(content)
    result, peak = traced(lambda: load("csv", path, **options))
    assert peak <= TIMES["csv"] * len(content) + CONSTANT
    if result is not None:
        check_dataset(result)
        rows = [line for line in content.removeprefix(b"\xef\xbb\xbf").splitlines() if line]
        if b'"' not in content:  # quotes may hold line ends
            header_lines = len(rows) - len(result.train) - len(result.test)
            assert header_lines in (0, 1, 2)
            assert header_lines < 2 or rows[0].startswith(b"sep=")


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n" + "1,2\n" * 20_000,
        "a,b\n" + "".join(f"1,{i:x}x\n" for i in range(20_000)),  # as many labels as rows
        ",".join(f"c{i}" for i in range(50_000)) + "\n",
        "a,b\n" + "," * 200_000 + "\n",
        "a,b\n" + "\n" * 200_000,
        "a,b\n1," + '"' + "\n" * 200_000,
        "a" * 200_000,
    ],
)
def test_large_tables_stay_within_the_bound(place, text):
    path = place / "large.csv"
    path.write_text(text)
    result, peak = traced(lambda: load("csv", path))
    assert peak <= TIMES["csv"] * len(text) + CONSTANT
    if result is not None:
        check_dataset(result)
