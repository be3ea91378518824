"""Pickles of plain data are read; whatever else a pickle may ask for is refused and never run."""

from __future__ import annotations

import builtins
import contextlib
import os
import pickle
import pickletools
import struct
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nembp.datasets.plain_pickle import _Machine, read_plain_pickle
from pickles import UINT8, batch, python2

from nembp.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 3072), np.uint8)
LABELS = np.arange(40) % 10
START = b"\x80\x02}q\x01"


@pytest.fixture
def read(tmp_path):
    def reader(content):
        path = tmp_path / "data_batch_1"
        path.write_bytes(content)
        return read_plain_pickle(path)

    return reader


@pytest.fixture
def refused(read, tmp_path, monkeypatch):
    """Refuse content with a message, and see that nothing was imported or run meanwhile."""

    def check(content, reason=""):
        before = set(sys.modules)
        imports = []
        true_import = builtins.__import__
        with monkeypatch.context() as patch:
            patch.setattr(
                builtins, "__import__", lambda *a, **k: imports.append(a[0]) or true_import(*a, **k)
            )
            for module, name in ((pickle, "loads"), (pickle, "load"), (os, "system")):
                patch.setattr(module, name, lambda *a, **k: pytest.fail("was run"))
            with pytest.raises(DataError) as caught:
                read(content)
        message = str(caught.value)
        assert message.startswith(f"{tmp_path / 'data_batch_1'}: ")
        assert reason in message
        assert "Nothing in it was run. Unpack the official archive again" in message
        assert "\n" not in message
        assert len(message) < 400
        assert set(sys.modules) == before
        assert not {"os", "posix", "nt", "subprocess"} & set(imports)
        assert os.listdir(tmp_path) == ["data_batch_1"]

    return check


# --- what is read


@pytest.mark.parametrize("order", ["C", "F"])
def test_python_2_pickles_are_read_and_the_pixels_stay_in_the_file(read, order):
    written = batch(np.asarray(PIXELS, order=order), LABELS)
    content = python2(written)
    theirs = pickle.loads(content, encoding="bytes")  # the writer of these tests is right
    assert np.array_equal(theirs[b"data"], PIXELS)
    assert theirs.keys() == written.keys()
    found = read(content)
    assert type(found[b"data"]) is np.memmap
    assert np.array_equal(found[b"data"], PIXELS)
    for key in (b"labels", b"batch_label", b"filenames"):
        assert found[key] == written[key] == theirs[key]


@pytest.mark.parametrize("protocol", [1, 2, 3])
def test_plain_values_of_any_kind(read, protocol):
    value = {
        "text": "é", "empty": {}, "none": None, "truth": (True, False), "nested": [[1, -5], ()],
        "numbers": [0, 255, 256, 65535, 65536, -1, 2**31 - 1], "many": list(range(3000)),
        "long": "x" * 5000, "pair": ((1, 2), (1, 2, 3), (1,), (1, 2, 3, 4)),
    }  # fmt: skip
    if protocol == 1:
        del value["truth"]  # protocol 1 writes them as text
    expected = {key.encode(): item for key, item in value.items()}
    expected |= {b"text": "é".encode(), b"long": b"x" * 5000}
    assert read(pickle.dumps(value, protocol)) == expected


def test_an_array_that_python_3_wrote_with_protocol_3(read):
    for array in (PIXELS, np.asfortranarray(PIXELS)):
        found = read(pickle.dumps({"data": array, b"labels": [1, 2]}, 3))
        assert np.array_equal(found[b"data"], PIXELS)
        assert found[b"labels"] == [1, 2]


# --- what is refused


class Evil:
    def __init__(self, function, *arguments):
        self.parts = function, arguments

    def __reduce__(self):
        return self.parts


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("place", ["whole", "value", "label", "key"])
@pytest.mark.parametrize(
    "evil",
    [Evil(os.system, "touch owned"), Evil(eval, "open('owned', 'w')"), Evil(exec, "import os"),
     Evil(__import__, "antigravity"), Evil(getattr, "text", "upper"), Evil(bytearray, 10**12)],
    ids=["system", "eval", "exec", "import", "getattr", "bytearray"],
)  # fmt: skip
def test_code_is_never_run(refused, evil, place, protocol, tmp_path, monkeypatch):
    value = {"whole": evil, "value": {b"data": evil}, "label": {b"labels": [1, evil]},
             "key": {Key(evil): 1}}[place]  # fmt: skip
    content = pickle.dumps(value, protocol)
    monkeypatch.chdir(tmp_path)
    refused(content)
    assert not (tmp_path / "owned").exists()


class Key:
    """Hashable, and pickled as what it holds."""

    def __init__(self, evil):
        self.evil = evil

    def __reduce__(self):
        return self.evil.parts


def test_the_name_that_was_asked_for_is_told(refused):
    refused(b"\x80\x02cposix\nsystem\n(U\x04echot R.", "asks for posix.system, which no data needs")
    refused(b"\x80\x02c__builtin__\neval\n.", "asks for __builtin__.eval")
    refused(b"\x80\x02c\x1b[2J\n\xff" + b"x" * 900 + b"\n.", "asks for \\x1b[2J")
    refused(b"\x80\x02cnumpy\nload\n.", "asks for numpy.load")
    refused(b"\x80\x02cnumpy", "asks for numpy.")


def test_every_other_opcode_is_refused(refused):
    admitted = set(_Machine(memoryview(b"")).opcodes) | {ord(".")}
    assert len(admitted) == 32
    for opcode in pickletools.opcodes:
        code = ord(opcode.code)
        if code not in admitted:
            refused(START + bytes([code]) + b"\x00" * 16 + b"\n.", f"opcode {code:#04x} at byte 5")
    known = {ord(opcode.code) for opcode in pickletools.opcodes}
    for code in set(range(256)) - known:
        refused(START + bytes([code]) + b".", f"opcode {code:#04x}")
    names = {opcode.name for opcode in pickletools.opcodes if ord(opcode.code) in admitted}
    dangerous = {"INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "STACK_GLOBAL", "PERSID", "BINPERSID",
                 "EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER", "LONG4", "BINBYTES8",
                 "BYTEARRAY8", "FLOAT", "BINFLOAT", "DUP", "POP"}  # fmt: skip
    assert not names & dangerous


NDARRAY = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
TABLE = b"T" + struct.pack("<i", 2048) + b"\x07" * 2048


def array(state):
    return START + b"U\x04data" + NDARRAY + state + b"bs."


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "damaged pickle"),
        (b"\x80\x02", "damaged pickle"),
        (b"not a pickle", "opcode 0x6e at byte 0"),
        (b"\x80\x04}.", "a protocol above 3"),
        (b"\x80\x02K\x05.", "pickled int; expected a dict"),
        (START + b"..", "something lies behind its end"),
        (START + b"K\x05.", "something lies behind its end"),
        (b"\x80\x02(.", "a value is missing"),
        (START + b"t.", "a mark is missing"),
        (START + b"K\x01K\x02s.", "a key that is no string"),
        (START + b"}K\x02s.", "a key that is no string"),
        (START + b"(U\x01au.", "items are set"),
        (START + b"K\x01a.", "appended to a dict"),
        (b"\x80\x02]U\x01aK\x02s.", "items are set in a list"),
        (START + b"h\x09.", "memo 9 is empty"),
        (START + b"T\xff\xff\xff\xff.", "a string of -1 bytes"),
        (START + b"X\xff\xff\xff\xff.", "a string of 4294967295 bytes"),
        (START + b"B\x00\x00\x00\x80xyz.", "where fewer are left"),
        (START + b"U\x09abc.", "a string of 9 bytes"),
        (START + b"N}b.", "gives a state to what has none"),
        (START + b"]}b.", "gives a state to what has none"),
        (START + b"U\x04datacnumpy\nndarray\n}bs.", "gives a state to what has none"),
        (START + b"cnumpy\nndarray\n)R.", "calls something that makes no array"),
        (START + b"cnumpy\ndtype\nU\x01O\x89\x88\x87R.", "calls something that makes no array"),
        (START + NDARRAY.replace(b"U\x01b", b"U\x01O") + b".", "calls something"),
        (START + NDARRAY.replace(b"ndarray", b"dtype") + b".", "calls something"),
        (START + b"U\x04data" + NDARRAY + b"s.", "an array without values"),
        (array(b"}"), "no filled table"),
        (array(b"(K\x01(K\x02M\x00\x04t" + UINT8 + b"\x89U\x02abt"), "no filled table"),
        (array(b"(K\x01(K\x03M\x00\x04t" + UINT8 + b"\x89" + TABLE + b"t"), "no filled table"),
        (array(b"(K\x01(J\xfe\xff\xff\xffJ\x00\xfc\xff\xfft" + UINT8 + b"\x89" + TABLE + b"t"),
         "no filled table"),
        (array(b"(K\x01(M\x00\x08t" + UINT8 + b"\x89" + TABLE + b"t"), "no filled table"),
        (array(b"(K\x01(K\x02M\x00\x04tN\x89" + TABLE + b"t"), "no filled table"),
        (array(b"(K\x01(K\x02M\x00\x04t" + UINT8 + b"\x89]t"), "no filled table"),
    ],
)  # fmt: skip
def test_damaged_and_wrong_contents(refused, content, reason):
    refused(content, reason)


def test_the_table_that_the_wrong_ones_differ_from_is_read(read):
    state = b"(K\x01(K\x02M\x00\x04t" + UINT8 + b"\x89" + TABLE + b"t"
    assert np.array_equal(read(array(state))[b"data"], np.full((2, 1024), 7))


def test_no_more_memory_than_in_proportion_to_the_file(refused):
    bombs = (
        START + b"U\x04dataX\xff\xff\xff\x7f.",
        START + b"(" * 40_000 + b"t" * 40_000 + b".",  # a tuple 40000 deep
        START + b")\x85" + b"\x85" * 40_000 + b".",
        b"\x80\x02]q\x01" + b"h\x01a" * 40_000 + b".",  # a list that holds itself
        b"\x80\x02]q\x01(" + b"h\x01" * 40_000 + b"e.",
        b"\x80\x02]q\x01" + b"".join(b"(" + b"h%ch%c" % (k, k) + b"tq%c" % (k + 1)
                                     for k in range(1, 200) if k not in (9, 12)) + b".",
    )  # fmt: skip
    for bomb in bombs:
        tracemalloc.start()
        try:
            refused(bomb)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < 1_000_000 + 100 * len(bomb)


def test_too_many_opcodes_are_refused(refused, monkeypatch):
    monkeypatch.setattr("nembp.datasets.plain_pickle._MOST_OPCODES", 1000)
    refused(START + b"N" * 2000 + b".", "more than 1000 opcodes")


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
        assert isinstance(read_plain_pickle(path), dict)
