"""CIFAR-10 and CIFAR-100 in both official layouts, with fewer records per file; pickles."""

from __future__ import annotations

import contextlib
import os
import pickle
import struct

import cifar_files
import numpy as np
import pytest
from cifar_files import COUNT, NAMES, batch, binary, expected, pickled, python2
from fuzz_cases import traced
from hypothesis import given
from hypothesis import strategies as st

from nembp.datasets import Scaling, cifar, load
from nembp.datasets.cifar import read_pickle
from nembp.datasets.sources import is_mapped
from nembp.errors import ArchitectureError, DataError


@pytest.fixture(autouse=True)
def _small_files(monkeypatch):
    cifar_files.shrink(monkeypatch)


@pytest.mark.parametrize(
    ("make", "parent"),
    [(binary, True), (pickled, False), (lambda folder: pickled(folder, "F"), True)],
)
def test_both_layouts_make_the_same_data_set(tmp_path, make, parent):
    name = "cifar-10-batches-bin" if make is binary else "cifar-10-batches-py"
    folder = make(tmp_path / name)
    data = load("cifar10", tmp_path if parent else folder)
    assert (data.name, data.source) == ("cifar10", str(folder))
    assert "Krizhevsky" in data.attribution
    assert data.classes == tuple(NAMES)
    assert data.shape == (32, 32, 3)
    assert (len(data.train), len(data.test)) == (5 * COUNT, COUNT)
    assert is_mapped(data.train.x)
    assert np.array_equal(data.train.x, expected(cifar._FIVE))
    assert np.array_equal(data.test.x, expected(["test_batch"]))
    assert data.train.y.tolist() == [*range(10)] * 15
    assert data.to_unit == Scaling(factor=1 / 255)
    if make is binary:
        os.truncate(folder / "data_batch_5.bin", 1000)
        with pytest.raises(DataError, match=r"data_batch_5\.bin: cut short"):
            np.asarray(data.train.x)


@pytest.mark.parametrize("kind", ["binary", "python"])
def test_cifar100_has_its_fine_classes(tmp_path, kind):
    sets = cifar_files.hundred(tmp_path, kind)
    data = load("cifar100", tmp_path)
    assert data.classes == tuple(cifar_files.HUNDRED)
    for part, (pixels, labels) in zip((data.train, data.test), sets.values(), strict=True):
        assert np.array_equal(part.y, labels)
        assert np.array_equal(part.x, pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def to(content):
    return lambda old: content


def cut(size):
    return lambda old: old[:size]


def fields(**changes):
    changed = batch(*cifar_files.FILES["data_batch_2"]) | {
        key.encode(): v for key, v in changes.items()
    }
    return to(python2({key: value for key, value in changed.items() if value is not None}))


@pytest.mark.parametrize(
    ("make", "name", "change", "message"),
    [
        (binary, "data_batch_2.bin", cut(3073 * 29), r" 89117 bytes; expected 92190, for shape \(30, 3073\)"),
        (binary, "data_batch_3.bin", lambda old: old[:12292] + b"\n" + old[12293:], "label 10 of record 4; expected 0 to 9. Unpack"),
        (binary, "data_batch_4.bin", to(None), "no such file; expected data_batch_1.bin, .*batches.meta.txt"),
        (binary, "batches.meta.txt", to(None), "no such file"),
        (binary, "batches.meta.txt", to(b"a\n" * 10), "1 different class names; expected 10"),
        (binary, "batches.meta.txt", to(b"\xff\n0\n1\n2\n3\n4\n5\n6\n7\n8"), "class names are no text"),
        (pickled, "data_batch_2", fields(data=None), "no table 'data' of 30 x 3072 bytes"),
        (pickled, "data_batch_2", fields(labels=None), "no list 'labels' of 30 labels"),
        (pickled, "data_batch_2", fields(labels=[0] * 29 + [True]), "no list 'labels' of 30"),
        (pickled, "data_batch_2", fields(labels=[0] * 29 + [10]), "label 10 of record 29; expected 0 to 9"),
        (pickled, "data_batch_5", cut(50_000), "not a pickle of plain data"),
        (pickled, "batches.meta", to(b"\x80\x02cos\nsystem\n."), "not a pickle of plain data .it asks for 'os.system'"),
        (pickled, "batches.meta", to(python2({b"label_names": [1] * 10})), "0 different class names"),
        (pickled, "test_batch", to(None), "no such file"),
    ]
)  # fmt: skip
def test_damaged_files(tmp_path, make, name, change, message):
    folder = make(tmp_path / ("cifar-10-batches-bin" if make is binary else "cifar-10-batches-py"))
    content = change((folder / name).read_bytes())
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name}: .*{message}|{name}: {message}"):
        load("cifar10", folder)


def test_wrong_paths_say_what_is_expected(tmp_path):
    with pytest.raises(ArchitectureError, match=r"pass data_dir .*nembp data fetch cifar10"):
        load("cifar10")
    with pytest.raises(ArchitectureError, match="holds classes: task='regression'"):
        load("cifar10", tmp_path, task="regression")
    for place in (tmp_path / "nowhere", tmp_path):
        wanted = r"no CIFAR-100 here; expected the folder cifar-100-binary or cifar-100-python"
        with pytest.raises(DataError, match=f"{place}: {wanted}.*nembp data fetch cifar100"):
            load("cifar100", place)
    archive = tmp_path / "cifar-10-binary.tar.gz"
    archive.write_bytes(b"")
    for place in (tmp_path, archive):
        with pytest.raises(DataError, match=f"Unpack it first: tar -xf {archive} -C {tmp_path}"):
            load("cifar10", place)


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3072), np.uint8)
LABELS = np.arange(40) % 10
START = b"\x80\x02}q\x01"


@pytest.fixture
def read(tmp_path):
    def reader(content):
        (tmp_path / "data_batch_1").write_bytes(content)
        return read_pickle(tmp_path / "data_batch_1")

    return reader


class Evil:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_is_never_run_and_the_name_that_was_asked_for_is_told(
    read, protocol, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    evils = Evil(os.system, "touch owned"), Evil(eval, "open('owned', 'w')")
    values = [value for e in evils for value in (e, {b"data": e}, {b"labels": [1, e]})]
    named = (b"posix\nsystem", b"__builtin__\neval", b"numpy\nload", b"\x1b[2J\nx" + b"x" * 900)
    contents = [pickle.dumps(value, protocol) for value in values]
    for content in contents + [b"\x80\x02c" + name + b"\n(U\x04echot R." for name in named]:
        with pytest.raises(DataError) as caught:
            read(content)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'data_batch_1'}: ")
        assert "Nothing in it was run. Unpack the official archive again" in message
        assert message.isprintable()
        assert len(message) < 400
        for name in named:
            if content.startswith(b"\x80\x02c" + name):
                asked = repr(name[:20].decode().replace("\n", "."))
                assert f"asks for {asked[:-1]}" in message
    assert os.listdir(tmp_path) == ["data_batch_1"]


def test_no_more_memory_than_in_proportion_to_the_file(read, tmp_path):
    bombs = (
        START + b"U\x04dataX\xff\xff\xff\x7f.",
        START + b"(" * 40_000 + b"t" * 40_000 + b".",  # a tuple 40000 deep
        START + b")\x85" + b"\x85" * 40_000 + b".",
        b"\x80\x02]q\x01" + b"h\x01a" * 40_000 + b".",  # a list that holds itself
        b"\x80\x02]q\x01(" + b"h\x01" * 40_000 + b"e.",
        b"\x80\x02]q\x01" + b"".join(b"(" + b"h%ch%c" % (k, k) + b"tq%c" % (k + 1)
                                     for k in range(1, 200) if k not in (9, 12)) + b"."
    )  # fmt: skip
    for bomb in bombs:
        result, peak = traced(lambda: read(bomb))  # noqa: B023
        assert result is None
        assert peak < 1_000_000 + 100 * len(bomb)
    # class names that are one long text are not copied
    folder, long = pickled(tmp_path / "cifar-10-batches-py"), b"A" * 300_000
    for many in (10, 20_000):
        names = b"T" + struct.pack("<i", len(long)) + long + b"q\x01" + b"h\x01" * (many - 1)
        meta = b"\x80\x02}U\x0blabel_names](" + names + b"es."
        (folder / "batches.meta").write_bytes(meta)
        result, peak = traced(lambda: load("cifar10", tmp_path))
        assert result is None
        assert peak < 5 * len(meta) + 1_000_000


@given(st.data())
def test_no_damage_ends_in_another_error(tmp_path_factory, data):
    content = bytearray(python2(batch(PIXELS[:1], LABELS[:1])))
    head, tail = 420, len(content) - 200
    places = st.one_of(st.integers(0, head), st.integers(tail, len(content) - 1))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.sampled_from([len(content), tail, head, 100]))])
    path = tmp_path_factory.mktemp("pickle") / "file"
    path.write_bytes(content)
    with contextlib.suppress(DataError):
        assert isinstance(read_pickle(path), dict)
