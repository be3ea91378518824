"""Files made at random, and what reading them may cost."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from nembp.datasets import Dataset
from nembp.errors import DataError

# the buffers of one read (pieces, chunks, Python's own) whatever the file
CONSTANT = 2 << 20
# times the unpacked content. IDX: the content and its growth. npz: the content, and copies of
# labels while they are sorted. csv: a cell of 2 bytes makes a float, a label a Python string.
TIMES = {"idx": 3, "npz": 16, "csv": 40}

FILES = settings(max_examples=7 * settings().max_examples, deadline=None)


def idx_bytes(x: np.ndarray) -> bytes:
    """The content of an IDX file."""
    code = {"u1": 8, "i1": 9, "i2": 0xB, "i4": 0xC, "f4": 0xD, "f8": 0xE}[x.dtype.str[1:]]
    header = struct.pack(f">2xBB{x.ndim}I", code, x.ndim, *x.shape)
    return header + x.astype(x.dtype.newbyteorder(">")).tobytes()


def write_idx(path: str | Path, x: np.ndarray) -> None:
    """Write an array as IDX, gzip if the name ends in .gz."""
    packed = Path(path).suffix == ".gz"
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(gzip.compress(idx_bytes(x), mtime=0) if packed else idx_bytes(x))


def traced(read: Callable[[], Any]) -> tuple[Any, int]:
    """Result of `read`, None for a DataError, and the most memory it held."""
    message = ""
    tracemalloc.start()
    try:
        result = read()
    except DataError as error:
        result, message = None, str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert len(message.splitlines()) <= 1  # one line for the user
    assert len(message) < 2000
    return result, peak


@st.composite
def mutated(draw, valid: st.SearchStrategy[bytes]) -> bytes:
    """Valid content with bytes flipped, cut off, inserted or appended."""
    content = bytearray(draw(valid))
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(content)))
        kind = draw(st.sampled_from(["flip", "cut", "insert", "append", "overwrite"]))
        if kind == "flip" and at < len(content):
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=8))
        elif kind == "append":
            content += draw(st.binary(min_size=1, max_size=40) | st.just(bytes(1000)))
        elif kind == "overwrite":
            junk = draw(st.binary(max_size=8))
            content[at : at + len(junk)] = junk
    return bytes(content)


def check_dataset(dataset: Dataset) -> None:
    """All that `load` promises."""
    assert len(dataset.train) >= 1
    assert len(dataset.test) >= 1
    for split in (dataset.train, dataset.test):
        assert len(split.x) == len(split.y)
        assert split.x.shape[1:] == dataset.shape
        assert split.x.dtype in (np.uint8, np.float32, np.float64)
        assert np.isfinite(dataset.x_scaling.apply(split.x)).all()
        if dataset.is_classification:
            assert split.y.dtype == np.int64
            assert split.y.min() >= 0
            assert split.y.max() < dataset.outputs
        else:
            assert split.y.shape == (len(split), dataset.outputs)
            assert np.isfinite(dataset.y_scaling.apply(split.y)).all()
    if dataset.is_classification:
        assert dataset.outputs >= 2
        assert np.bincount(dataset.train.y, minlength=dataset.outputs).min() >= 1
        " ".join(dataset.classes).encode()  # can be printed
