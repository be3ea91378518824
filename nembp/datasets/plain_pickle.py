"""Pickles of plain data, read by a parser that can only make plain data.

A pickle is a program, and Python's `pickle.load` runs it, whatever it does. Here nothing is
imported and nothing called: the opcodes that Python 2 wrote for dicts, lists, tuples, numbers,
strings and NumPy arrays of uint8 are carried out by hand, and every other one is refused (the
opcodes: Python's Lib/pickletools.py; the arrays: NumPy's ndarray.__reduce__).
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.files import reading
from nembp.errors import DataError

__all__ = ["read_plain_pickle"]

_LONG = 1 << 10  # strings longer than this stay in the file
_MOST_OPCODES = 1_000_000  # CIFAR-100's largest file has 310,000
_REMEDY = "Nothing in it was run. Unpack the official archive again, or use its binary version."

_MARK = object()
_RECONSTRUCT, _NDARRAY, _DTYPE = "_reconstruct", "ndarray", "dtype"
_GLOBALS = {
    b"numpy.core.multiarray\n_reconstruct": _RECONSTRUCT,
    b"numpy._core.multiarray\n_reconstruct": _RECONSTRUCT,
    b"numpy\nndarray": _NDARRAY,
    b"numpy\ndtype": _DTYPE,
}


@dataclass(frozen=True)
class _Name:
    """A class or function that was named; it is never looked up."""

    name: str


@dataclass(frozen=True)
class _Block:
    """A long string, left where it lies in the file."""

    start: int
    length: int


@dataclass(eq=False)
class _Array:
    """An array of uint8; its state comes after it."""

    state: tuple[tuple[int, int], bool, _Block] | None = None


@dataclass(eq=False)
class _Uint8:
    """The dtype uint8; the state that comes after it says nothing more."""


class _RefusedError(ValueError):
    """What is wrong with a pickle."""


def read_plain_pickle(path: Path) -> dict[bytes, Any]:
    """Read a pickled dict of plain values; no code in it can run.

    Parameters
    ----------
    path : Path
        A file such as CIFAR's ``data_batch_1``, written by Python 2 with protocol 2, or by
        Python 3 with protocol 3.

    Returns
    -------
    dict
        Keys are bytes; values are bytes, int, bool, None, lists and tuples of these, and 2-D arrays
        of uint8, which are memory-mapped.

    Raises
    ------
    DataError
        If the file is missing or damaged, or asks for anything else: another class or function,
        another opcode, more opcodes than such a file has. No more memory is used than in
        proportion to the file.
    """
    with reading(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                value = _Machine(content).run()
        except _RefusedError as error:
            raise DataError(
                f"{path}: {error}; expected a pickle of plain data. {_REMEDY}"
            ) from error
        except (struct.error, IndexError, ValueError, OverflowError) as error:
            raise DataError(f"{path}: damaged pickle ({error}). {_REMEDY}") from error
    if not isinstance(value, dict):
        raise DataError(f"{path}: pickled {type(value).__name__}; expected a dict. {_REMEDY}")
    return {key: _mapped(path, item) for key, item in value.items()}


def _mapped(path: Path, value: Any) -> Any:
    """Replace an array by its values, and a long string by its bytes."""
    if isinstance(value, _Block):
        return np.memmap(path, np.uint8, "r", value.start, value.length).tobytes()
    if not isinstance(value, _Array):
        return value
    if value.state is None:
        raise DataError(f"{path}: an array without values. {_REMEDY}")
    shape, fortran, block = value.state
    order: Any = "F" if fortran else "C"
    mapped: NDArray[np.uint8] = np.memmap(path, np.uint8, "r", block.start, shape, order)
    return mapped


class _Machine:
    """The stack machine that a pickle is a program of, for plain data."""

    def __init__(self, content: mmap.mmap) -> None:
        self.content, self.position = content, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.opcodes: dict[int, Callable[[], None]] = {
            0x80: self.protocol, ord("("): lambda: self.stack.append(_MARK),
            ord("N"): lambda: self.stack.append(None),
            0x88: lambda: self.stack.append(True), 0x89: lambda: self.stack.append(False),
            ord("K"): lambda: self.number("<B"), ord("M"): lambda: self.number("<H"),
            ord("J"): lambda: self.number("<i"),
            ord("U"): lambda: self.string("<B"), ord("C"): lambda: self.string("<B"),
            ord("T"): lambda: self.string("<i"), ord("B"): lambda: self.string("<I"),
            ord("X"): lambda: self.string("<I"),
            ord("}"): lambda: self.stack.append({}), ord("]"): lambda: self.stack.append([]),
            ord(")"): lambda: self.stack.append(()), ord("t"): self.tuple_of_marked,
            0x85: lambda: self.tuple_of(1), 0x86: lambda: self.tuple_of(2),
            0x87: lambda: self.tuple_of(3),
            ord("a"): lambda: self.extend([self.pop()]),
            ord("e"): lambda: self.extend(self.marked()),
            ord("s"): lambda: self.update(self.pop(), self.pop()),
            ord("u"): lambda: self.update(*self.marked()[::-1]),
            ord("q"): lambda: self.put("<B"), ord("r"): lambda: self.put("<I"),
            ord("h"): lambda: self.get("<B"), ord("j"): lambda: self.get("<I"),
            ord("c"): self.name, ord("R"): self.reduce, ord("b"): self.build,
        }  # fmt: skip

    def run(self) -> Any:
        """Carry out opcodes up to the one that stops, which must end the file."""
        for _ in range(_MOST_OPCODES):
            code = self.content[self.position]
            self.position += 1
            if code == ord("."):
                value = self.pop()
                if self.stack or self.position != len(self.content):
                    raise _RefusedError("something lies behind its end")
                return value
            if code not in self.opcodes:
                raise _RefusedError(f"opcode {code:#04x} at byte {self.position - 1}")
            self.opcodes[code]()
        raise _RefusedError(f"more than {_MOST_OPCODES} opcodes")

    # -- what opcodes are made of
    def unpack(self, form: str) -> int:
        """Read a number."""
        start = self.position
        self.position += struct.calcsize(form)
        (value,) = struct.unpack(form, self.content[start : self.position])
        return int(value)

    def pop(self) -> Any:
        """Take the top of the stack, which must be a value."""
        if not self.stack or self.stack[-1] is _MARK:
            raise _RefusedError(f"a value is missing at byte {self.position}")
        return self.stack.pop()

    def marked(self) -> list[Any]:
        """Take the values down to the last mark."""
        values: list[Any] = []
        while self.stack:
            value = self.stack.pop()
            if value is _MARK:
                return values[::-1]
            values.append(value)
        raise _RefusedError(f"a mark is missing at byte {self.position}")

    # -- opcodes
    def protocol(self) -> None:
        if self.unpack("<B") > 3:
            raise _RefusedError("a protocol above 3")

    def number(self, form: str) -> None:
        self.stack.append(self.unpack(form))

    def string(self, form: str) -> None:
        length = self.unpack(form)
        start, end = self.position, self.position + length
        if length < 0 or end > len(self.content):
            raise _RefusedError(f"a string of {length} bytes at byte {start}, where fewer are left")
        long = length > _LONG
        self.stack.append(_Block(start, length) if long else self.content[start:end])
        self.position = end

    def tuple_of(self, length: int) -> None:
        self.stack.append(tuple([self.pop() for _ in range(length)][::-1]))

    def tuple_of_marked(self) -> None:
        self.stack.append(tuple(self.marked()))

    def extend(self, values: list[Any]) -> None:
        target = self.pop()
        if type(target) is not list:
            raise _RefusedError(f"something is appended to a {type(target).__name__}")
        target.extend(values)
        self.stack.append(target)

    def update(self, *pairs: Any) -> None:
        """Set items from value, key, value, key, ..."""
        target = self.pop()
        values, keys = pairs[::2], pairs[1::2]
        if type(target) is not dict or len(values) != len(keys):
            raise _RefusedError(f"items are set in a {type(target).__name__}")
        if not all(type(key) is bytes for key in keys):
            raise _RefusedError("a key that is no string")
        target.update(zip(keys[::-1], values[::-1], strict=True))
        self.stack.append(target)

    def put(self, form: str) -> None:
        value = self.pop()
        self.stack.append(value)
        self.memo[self.unpack(form)] = value

    def get(self, form: str) -> None:
        number = self.unpack(form)
        if number not in self.memo:
            raise _RefusedError(f"memo {number} is empty")
        self.stack.append(self.memo[number])

    def name(self) -> None:
        module, _, rest = self.content[self.position : self.position + 100].partition(b"\n")
        text = module + b"\n" + rest.partition(b"\n")[0]
        if text not in _GLOBALS:
            shown = text.decode("latin-1").replace("\n", ".").encode("unicode_escape").decode()
            raise _RefusedError(f"asks for {shown:.60}, which no data needs")
        self.position += len(text) + 1
        self.stack.append(_Name(_GLOBALS[text]))

    def reduce(self) -> None:
        """Call, in a pickle's words; here two known calls stand for what they would make."""
        arguments, function = self.pop(), self.pop()
        if function == _Name(_RECONSTRUCT) and arguments == (_Name(_NDARRAY), (0,), b"b"):
            self.stack.append(_Array())
        elif function == _Name(_DTYPE) and arguments == (b"u1", 0, 1):
            self.stack.append(_Uint8())
        else:
            raise _RefusedError("calls something that makes no array of uint8")

    def build(self) -> None:
        """Give an array its values: (version, shape, dtype, is_fortran, bytes)."""
        state, target = self.pop(), self.pop()
        if type(target) is _Array:
            target.state = _array_state(state)
        elif type(target) is not _Uint8:
            raise _RefusedError("gives a state to what has none")
        self.stack.append(target)


def _array_state(state: Any) -> tuple[tuple[int, int], bool, _Block]:
    if type(state) is tuple and len(state) == 5:
        _, shape, dtype, fortran, block = state
        if type(dtype) is _Uint8 and type(shape) is tuple and len(shape) == 2:
            rows, columns = shape
            sizes = type(rows) is int and type(columns) is int and rows > 0 and columns > 0
            if sizes and type(block) is _Block and rows * columns == block.length:
                return (rows, columns), bool(fortran is True or fortran == 1), block
    raise _RefusedError("an array that is no filled table of uint8")
