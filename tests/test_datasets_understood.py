"""What a file means: understood, said, or refused; never a silent wrong result (issue 15)."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz_cases import CONSTANT, FILES, TIMES, check_dataset, mutated, traced, write_idx
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from nembp.backend import get_backend
from nembp.datasets import Scaling, Split, load
from nembp.datasets.arrays import NAMES
from nembp.datasets.dataset import fingerprint
from nembp.datasets.reading import BatchReader
from nembp.datasets.tables import read_cells, read_numbers
from nembp.errors import ArchitectureError, DataError

X = np.random.default_rng(0).normal(size=(60, 2))


@pytest.fixture
def table(tmp_path):
    """Write a table, of lines or of all its text, and load it."""

    def write(*lines, name="t.csv", load_it=True, **options):
        path, text = tmp_path / name, lines[0]
        if len(lines) > 1:
            text = "\n".join(lines) + "\n"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return load("csv", path, **options) if load_it else path

    return write


def refused(message, *args, **options):
    with pytest.raises(DataError, match=message):
        load(*args, **options)


# --- 1: labels are names


def test_names_that_are_numbers_sort_as_numbers(tmp_path, table):
    names = [str(k) for k in range(8, 13)]
    for name in names:
        (tmp_path / "images" / name).mkdir(parents=True)
        for k in range(3):
            Image.new("L", (4, 5), k).save(tmp_path / "images" / name / f"{k}.png")
    np.savez(tmp_path / "d.npz", x=X, y=np.array(names * 12))
    lines = ["a,k", *(f"{k},{names[k % 5]}" for k in range(60))]
    for data in (
        load("images", tmp_path / "images"),
        load("npz", tmp_path / "d.npz"),
        table(*lines, task="classification"),
    ):
        assert data.classes == tuple(names)


def test_a_column_of_labels_without_a_header_loses_none(table):
    for lines, classes, cells in (
        (("ant", "bee"), ("ant", "bee"), ["ant", "bee"]),
        (("kind", "bee"), ("ant", "bee"), ["bee"]),
        (("3", "1"), (), ["3", "1"]),
    ):
        assert read_cells(table(*lines, load_it=False), classes=classes) == cells


# --- 2 and 3: columns by name, and whether the data is the same


@given(st.data())
def test_a_fingerprint_is_of_the_rows_and_of_their_order(data):
    n, m = data.draw(st.integers(2, 30)), data.draw(st.integers(1, 6))
    generator = np.random.default_rng(data.draw(st.integers(0, 99)))
    x = generator.integers(0, 9, (n, m)).astype(data.draw(st.sampled_from(["u1", "f4", "f8"])))
    y, order, columns = np.arange(n) % 3, generator.permutation(n), generator.permutation(m)
    names = [f"c{k}" for k in range(m)]
    seen = fingerprint(x, y, names)
    same = np.array_equal(x[order], x) and np.array_equal(y[order], y)
    assert (fingerprint(x[order], y[order], names) == seen) is same  # by it, rows are split
    assert fingerprint(x[:, columns], y, [names[k] for k in columns]) == seen
    assert fingerprint(x.astype("f8"), y.astype("f8"), names) == seen
    assert fingerprint(x[1:], y[1:], names) != seen
    changed = x.copy()
    changed[order[0], columns[0]] += 1
    assert fingerprint(changed, y, names) != seen
    assert fingerprint(x, (y + (np.arange(n) == order[0])) % 3, names) != seen


def test_the_fingerprint_is_of_the_whole_file_and_of_long_rows_in_part(tmp_path):
    np.savez(tmp_path / "d.npz", x=X, y=np.arange(60) % 2)
    seen = load("npz", tmp_path / "d.npz").fingerprint
    assert load("npz", tmp_path / "d.npz", limit=9, seed=4, test_fraction=0.4).fingerprint == seen
    old = seen.rpartition(":")[0]  # without the order of rows
    others = (f"{seen}+{seen}", old[:-1] + "x", seen[:-1] + "x")
    matches = load("npz", tmp_path / "d.npz").matches
    assert [matches(each) for each in (seen, old, *others)] == [True, True, False, False, False]
    np.savez(tmp_path / "d.npz", x=X[1:], y=np.arange(60)[1:] % 2)
    assert load("npz", tmp_path / "d.npz").fingerprint != seen
    x, y = np.random.default_rng(0).integers(0, 256, (6, 300, 300, 3), np.uint8), np.arange(6)
    others = [(x[::-1], y[::-1]), (x[:5], y[:5]), (x[::-1], y)]
    assert fingerprint(x, y) not in [fingerprint(*other) for other in others]


# --- 7, 10 and 12: what is a class
CLASSES = {"task": "classification"}
NUMBERS = "numbers with signs, units or separators"


@pytest.mark.parametrize(
    ("cells", "options", "meaning"),  # a message, or the classes
    [
        (["€5", "€7", "€9"], {}, NUMBERS),
        (["20 °C", "21 °C", "19.5 °C"], {}, NUMBERS),
        (['"1,25"', '"0,5"', '"3,75"'], {}, f"{NUMBERS}.*--decimal ,"),
        (["03/04/2021", "12/11/2020"], {}, "dates or times"),
        (["09:30", "17:05:10"], {}, "dates or times"),
        (["09:30", "17:05:10"], CLASSES, ("09:30", "17:05:10")),
        ([f"name {k}" for k in range(50)], {}, "50 different labels in 60 samples"),
        (["good", "n/a", "bad"], {}, "label 'n/a' of 20 samples marks a missing value"),
        (["?", "b"], {}, "'[?]' of 30 samples marks a missing value"),
        (["1", "none"], CLASSES, "label 'none' of 30 samples marks a missing value"),
        (["0"], {}, r"column 'target': 0 of every sample.*--targets"),
        (["2D", "3D"], {}, ("2D", "3D")),
        (["<=50K", ">50K"], {}, ("<=50K", ">50K")),
        (["1st", "2nd", "3rd"], {}, ("1st", "2nd", "3rd")),
        (["none", "some"], {}, ("none", "some")),
        (["3", "3.0", "20", "2e1"], CLASSES, ("3", "20")),  # numbers are compared by value
        (["01", "02"], CLASSES, ("01", "02")),
        ([str(10**18), str(10**18 + 1)], CLASSES, (str(10**18), str(10**18 + 1))),
        (list("12345"), {}, ()),
        (list("12345"), CLASSES, tuple("12345")),
    ],
)
def test_what_cells_of_targets_mean(table, cells, options, meaning):
    lines = ["a,target", *(f"{k},{cells[k % len(cells)]}" for k in range(60))]
    if isinstance(meaning, tuple):
        assert table(*lines, **options).classes == meaning
    else:
        with pytest.raises(DataError, match=meaning):
            table(*lines, **options)


def test_the_remedy_for_decimal_commas_works(table):
    lines = ["a;b;y", *(f"{k},5;1.000,{k};{k},25" for k in range(20))]
    with pytest.raises(DataError, match=r"row 2, column 'a': text '0,5'.*--decimal ,"):
        table(*lines)
    data = table(*lines, decimal=",")
    whole = np.sort(np.concatenate([data.train.y, data.test.y]), axis=0)
    assert whole[:3, 0].tolist() == [0.25, 1.25, 2.25]
    assert set(np.floor(data.train.x[:, 1])) == {1000.0}
    with pytest.raises(DataError, match=r"text '0.125'; expected a number.*--decimal \."):
        table("a;y", *["0.125;1,5"] * 20, decimal=",")  # no thousands begin with 0


@pytest.mark.parametrize("dtype", ["f8", "?"])
def test_what_is_guessed_of_targets_is_said(tmp_path, table, dtype):
    def of(y, **options):
        np.savez(tmp_path / "d.npz", x=X, y=y)
        return load("npz", tmp_path / "d.npz", **options)

    labels = np.arange(60) % 4
    one, two = of(np.eye(4)[labels].astype(dtype)), of(labels)
    assert (one.classes, one.test.y.tolist()) == (two.classes, two.test.y.tolist())
    assert "one-hot" in one.notes[0]
    assert of(np.eye(4)[labels].astype(dtype), task="regression").outputs == 4
    lines = ["a,is_u,is_v", *(f"{k},{k % 2},{1 - k % 2}" for k in range(20))]
    assert table(*lines, targets=["is_u", "is_v"]).classes == ("is_u", "is_v")
    with pytest.raises(DataError, match=r"60 different labels in 60 samples.*task='regression'"):
        of(np.arange(60) * 10)
    assert of(np.arange(60) * 10, task="regression").outputs == 1
    assert "taken for 25 classes" in of(np.arange(60) % 25).notes[0]
    notes = table("label,b,c", *(f"{k % 3},{k},{k % 5 + 1}" for k in range(40))).notes
    assert "'c', is the target; --targets names another, such as 'label'" in notes[0]
    assert "5 different whole numbers" in notes[1]


# --- 8 and 9: delimiters and headers


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_delimiters_are_found_outside_of_quotes(table, mark):
    others = "".join(set(",;\t|") - {mark})
    lines = [f'"a {others} z"{mark}b{mark}kind'] + [
        f"{k}{mark}{k}{mark}{'uv'[k % 2]}" for k in range(20)
    ]
    for text in (lines, [f"sep={mark}", *lines]):
        data = table(*text)
        assert (data.feature_names, data.classes) == ((f"a {others} z", "b"), ("u", "v"))
    assert table(*(line.replace(mark, ":") for line in lines), delimiter=":").classes == ("u", "v")


def test_a_delimiter_that_rows_do_not_tell_is_asked_for(table):
    lines = ["a;b,kind", *(f"{k};u,{'xy'[k % 2]}" for k in range(20))]
    with pytest.raises(DataError, match="do not tell by which; say it with delimiter"):
        table(*lines)
    with pytest.raises(ArchitectureError, match="expected one character, or the word tab"):
        table(*lines, delimiter=";;")
    tabs = [line.replace(";u,", "\t").replace(";b,", "\t") for line in lines]
    assert table(*tabs, delimiter="tab").classes == ("x", "y")


@pytest.mark.parametrize(
    ("first", "row", "options", "n", "names", "note"),
    [
        ("0.5,-1,u", "{k}.5,-{k},{c}", {}, 21, ("1", "2"), "--header makes"),
        ("0.5,-1,u", "{k}.5,-{k},{c}", {"header": True}, 20, ("0.5", "-1"), ""),
        ("1,5", "{k},{k}.5", {"header": False}, 21, ("1",), ""),
        ("u,2,8,8", "{c},{k},{k},-{k}", {"targets": "1"}, 21, ("2", "3", "4"), "--header makes"),
        ("2019,2020,2021,grade", "{k},1,2,{k}.5", {}, 20, ("2019", "2020", "2021"), "--no-header"),
        ("0,1,2,label", "{k},1,2,{k}.5", {}, 20, ("0", "1", "2"), "--no-header"),
        ("0,1,2,3", "{k},1,2,{k}.5", {}, 20, ("0", "1", "2"), "--no-header"),
    ],
)
def test_a_first_row_is_names_or_a_sample(table, first, row, options, n, names, note):
    data = table(first, *(row.format(k=k, c="uv"[k % 2]) for k in range(20)), **options)
    assert (len(data.train) + len(data.test), data.feature_names) == (n, names)
    assert note in "".join(data.notes)
    assert bool(note) == bool(data.notes)


def test_rows_without_names_are_numbered(table, tmp_path):
    table(*(f"{k}.5,-{k},{'uv'[k % 2]}" for k in range(20)))
    found = read_numbers(tmp_path / "t.csv", ("2", "1"), 2)[:2]
    assert found.tolist() == [[0.0, 0.5], [-1.0, 1.5]]
    with pytest.raises(DataError, match=r"row 1, column '2': text '[?]'"):
        table("5.1,?,u", *(f"{k},{k},{'uv'[k % 2]}" for k in range(20)))


def test_tables_have_many_suffixes(tmp_path, table):
    lines = ["a\tkind", *(f"{k}\t{'uv'[k % 2]}" for k in range(20))]
    table(*lines, name="Train.TSV", load_it=False)
    assert len(load("csv", tmp_path).train) == 16
    table(*lines[:6], name="TEST.tsv", load_it=False)
    assert len(load("csv", tmp_path).test) == 5


# --- 11 and 13: images in other orders


@pytest.mark.parametrize("kind", ["npz", "npy"])
@pytest.mark.parametrize("shape", [(3, 12, 10), (1, 8, 9)])
def test_channels_first_are_recognized_and_said(tmp_path, kind, shape):
    x = np.random.default_rng(0).integers(0, 256, (20, *shape), np.uint8)
    y = np.arange(20) % 2
    np.savez(tmp_path / "d.npz", x=x, y=y)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "y.npy", y)
    path = tmp_path / "d.npz" if kind == "npz" else tmp_path
    data = load(kind, path, test_fraction=0.5, seed=3)
    assert data.shape == (*shape[1:], shape[0])
    assert any("(samples, channels, height, width)" in note for note in data.notes)
    images = {image.tobytes() for image in np.ascontiguousarray(np.moveaxis(x, 1, 3))}
    assert all(image.tobytes() in images for image in np.asarray(data.test.x))
    assert load(kind, path, image_order="last").shape == shape
    np.savez(tmp_path / "d.npz", x=np.moveaxis(x, 1, 3), y=y)
    data = load("npz", tmp_path / "d.npz")
    assert (data.shape, data.notes) == ((*shape[1:], shape[0]), ())
    assert load("npz", tmp_path / "d.npz", image_order="first").shape != data.shape


@pytest.mark.parametrize("prefix", ["emnist-digits-", "other-"])
@pytest.mark.parametrize("kaggle", [False, True])
def test_emnist_is_turned_and_kaggles_folders_are_opened(tmp_path, prefix, kaggle):
    x = np.arange(20 * 12).reshape(20, 4, 3).astype(np.uint8)
    for name in NAMES:
        array = x if "images" in name else np.arange(20, dtype=np.uint8) % 2
        file = prefix + (name.replace("t10k", "test") if prefix else name)
        write_idx(tmp_path / file / file if kaggle else tmp_path / file, array)
    turned = prefix.startswith("emnist")
    data = load("idx", tmp_path)
    assert np.array_equal(data.train.x[..., 0], x.swapaxes(1, 2) if turned else x)
    assert len(data.notes) == turned
    assert load("idx", tmp_path, transpose=not turned).shape == ((4, 3, 1) if turned else (3, 4, 1))


def test_of_several_idx_sets_one_is_named(tmp_path):
    for k, prefix in enumerate(("emnist-letters", "emnist-digits")):
        for name in NAMES:
            array = np.full((6, 2, 2), k, np.uint8) if "images" in name else np.arange(6) % 2
            write_idx(tmp_path / f"{prefix}-{name}", array.astype(np.uint8))
    refused("several sets: emnist-digits, emnist-letters; expected one", "idx", tmp_path)
    assert load("idx", tmp_path / "emnist-digits").train.x.max() == 1


# --- arrays of other names


@pytest.mark.parametrize(
    ("names", "unused"),
    [
        ("X y", ""), ("data target", "feature_names"), ("images labels", "meta"), ("arr_0 arr_1", ""),
        ("X_train Y_train X_val Y_val", ""), ("xtrain ytrain xtest ytest", ""), ("trainImages trainLabels testImages testLabels", ""),
        ("train_images train_labels test_images test_labels", "val_images val_labels"),
        ("training-x training-y testing-x testing-y", "")
    ]
)  # fmt: skip
def test_arrays_of_usual_names_are_understood(tmp_path, names, unused):
    arrays = {name: X if k % 2 == 0 else np.arange(60) % 2 for k, name in enumerate(names.split())}
    np.savez(tmp_path / "d.npz", **arrays, **dict.fromkeys(unused.split(), X))
    data = load("npz", tmp_path)
    assert len(data.train) == (60 if len(arrays) == 4 else 48)
    assert any("not used are " + ", ".join(unused.split()) in note for note in data.notes) == (
        unused != ""
    )


def test_two_arrays_can_be_named(tmp_path):
    (tmp_path / "two").mkdir()
    np.savez(tmp_path / "d.npz", before=X, after=np.arange(60) % 2, other=X[:9])
    refused("no array .x.; found before, after, other; .*--x NAME --y NAME", "npz", tmp_path)
    assert load("npz", tmp_path, x="before", y="after").classes == ("0", "1")
    np.savez(tmp_path / "two" / "d.npz", data=X, images=X, y=np.arange(60) % 2)
    refused("data and images may each be x; expected one.*--x NAME", "npz", tmp_path / "two")
    refused("no array 'then'", "npz", tmp_path, x="before", y="then")
    with pytest.raises(ArchitectureError, match="expected both x and y, or neither"):
        load("npz", tmp_path, x="before")


# --- issue 14: what the network sees


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_sees_what_prediction_sees(dtype):
    """A large mean costs no digits; pixels are scaled alike on both ways."""
    generator = np.random.default_rng(0)
    times = 1.7e9 + generator.normal(0, 20, (300, 2))
    pixels = np.arange(1200).astype(np.uint8).reshape(300, 1, 1, 4)
    channels = Scaling(np.array([113.7, 99.1, 3.3, 250.0]), 1 / np.array([61.3, 7.0, 9.9, 1.7]))
    for x, scaling in ((times, Scaling(times.mean(axis=0), 1 / times.std(axis=0))),
                       (pixels, channels)):  # fmt: skip
        for resident in (None, False):
            split = Split(x, np.arange(300) % 2)
            reader = BatchReader(
                split, scaling, Scaling(), 2, get_backend("cpu"), dtype, resident=resident
            )
            seen = np.empty((300, reader.features), dtype)
            reader.read_x(np.arange(300), seen)
            assert np.array_equal(seen, scaling.apply(x, dtype).reshape(seen.shape))
    assert Scaling(times.mean(axis=0), 1 / times.std(axis=0)).apply(times).std() == pytest.approx(1)


# --- tables: read in every dialect, refused by row and column
FLOWERS = "length,width,kind\n" + "".join(
    f"{i}.5,{i * i},{'iris' if i % 2 else 'aster'}\n" for i in range(10)
)


HOUSES = "area,rooms,price,tax\n" + "".join(f"{i},{i % 3},{i * 2.5},{-i}\n" for i in range(10))


def rows(dataset):
    x = np.concatenate([dataset.train.x, dataset.test.x])
    y = np.concatenate([part.y.reshape(len(part), -1) for part in (dataset.train, dataset.test)])
    table = np.column_stack([x, y])
    return table[np.argsort(table[:, 0])]


def test_numbers_make_regression_targets(table):
    one, two = table(HOUSES), table(HOUSES, targets=["tax", "area"])
    assert (one.target_names, one.features, one.outputs) == (("tax",), 3, 1)
    assert two.target_names == ("tax", "area")
    expected = [[i % 3, i * 2.5, -i, i] for i in range(10)]
    assert np.array_equal(rows(two)[np.argsort(rows(two)[:, 3])], expected)
    assert two.y_scaling == Scaling(two.train.y.mean(axis=0), 1 / two.train.y.std(axis=0))
    assert table(HOUSES, targets="price").target_names == ("price",)


def test_a_task_that_the_targets_are_not_of(table):
    with pytest.raises(DataError, match="row 2, column 'kind': text 'aster'"):
        table(FLOWERS, task="regression")
    with pytest.raises(DataError, match="one label per sample"):
        table(HOUSES, targets=["price", "tax"], task="classification")


def test_training_and_test_tables_of_a_folder(table, tmp_path):
    def pair(test):
        table(test, name="test.csv", load_it=False)
        return load("csv", tmp_path)

    table(FLOWERS, name="train.csv", load_it=False)
    dataset = pair("length,width,kind\n1,2,iris\n")
    assert (len(dataset.train), dataset.test.y.tolist()) == (10, [1])
    assert np.array_equal(dataset.train.x[:, 1], np.arange(10.0) ** 2)  # in the file's order
    assert pair("width,kind,length\n2,iris,1\n").test.x.tolist() == [[1, 2]]
    for test, message in (
        ("length,width,kind\n1,2,rose\n", r"test\.csv: column 'kind': no class 'rose'; expected"),
        ("width,other,kind\n1,2,iris\n", r"test\.csv: no column 'length'"),
        ("length,width,other,kind\n1,2,3,iris\n", r"test\.csv: unknown column 'other'"),
        ("length,width,kind\n", r"test\.csv: no samples"),
    ):
        with pytest.raises(DataError, match=message):
            pair(test)
    (tmp_path / "test.csv").unlink()
    assert len(load("csv", tmp_path).train) == 8
    table(FLOWERS, name="other.csv", load_it=False)
    refused(r"2 \.csv files in this folder", "csv", tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        FLOWERS.replace(",", ";"), FLOWERS.replace("\n", "\r\n"), FLOWERS.replace("\n", "\n\n"),
        FLOWERS.replace(",", " , "), FLOWERS.rstrip("\n"),
        FLOWERS.replace("iris", '"iris"').replace("length", '"length"'),
    ],
)  # fmt: skip
def test_dialects(table, text):
    dataset = table(text)
    assert dataset.classes == ("aster", "iris")
    assert np.array_equal(rows(dataset), rows(table(FLOWERS)))


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
def test_damaged_tables(table, text, message):
    with pytest.raises(DataError, match=rf"t\.csv.*{message}"):
        table(text)


def test_targets_that_are_not_there(table):
    with pytest.raises(DataError, match=r"no column 'cost'.*'area', 'rooms', 'price', 'tax'"):
        table(HOUSES, targets="cost")
    for targets in ([], ["tax", "tax"], ["area", "rooms", "price", "tax"]):
        with pytest.raises(ArchitectureError, match="leave at least one feature"):
            table(HOUSES, targets=targets)
    with pytest.raises(DataError, match="'c19' and 10 more"):
        table(",".join(f"c{i}" for i in range(30)) + "\n", targets="d")


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
                  "decimal": st.sampled_from(".,")}
    )
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
