"""Pickles as Python 2's cPickle wrote them with protocol 2, byte by byte."""

from __future__ import annotations

import struct
from itertools import count

import numpy as np

UINT8 = (
    b"cnumpy\ndtype\nq\x01(U\x02u1K\x00K\x01tR"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def python2(value):
    """The pickle of a value; strings are Python 2's, that is bytes."""
    memo = count(2)

    def put():
        number = next(memo)
        return b"q" + bytes([number]) if number < 256 else b"r" + struct.pack("<I", number)

    def items(values, start, end):
        out = b""
        for first in range(0, len(values), 1000):
            out += start + b"".join(map(write, values[first : first + 1000])) + end
        return out

    def write(part):
        if part is None or isinstance(part, bool):
            return {None: b"N", True: b"\x88", False: b"\x89"}[part]
        if isinstance(part, int):
            if 0 <= part < 1 << 16:
                return b"K" + bytes([part]) if part < 256 else b"M" + struct.pack("<H", part)
            return b"J" + struct.pack("<i", part)
        if isinstance(part, bytes):
            short = len(part) < 256
            head = b"U" + bytes([len(part)]) if short else b"T" + struct.pack("<i", len(part))
            return head + part + put()
        if isinstance(part, list):
            return b"]" + put() + items(part, b"(", b"e")
        if isinstance(part, tuple):
            return b"(" + b"".join(map(write, part)) + b"t" + put()
        if isinstance(part, dict):
            flat = [item for pair in part.items() for item in pair]
            return b"}" + put() + b"(" + b"".join(map(write, flat)) + b"u"
        return array(part)

    def array(part):
        fortran = not part.flags.c_contiguous
        content = part.tobytes("F" if fortran else "C")
        shape = b"(" + b"".join(write(length) for length in part.shape) + b"t"
        return (
            b"cnumpy.core.multiarray\n_reconstruct\n" + put() + b"cnumpy\nndarray\n" + put()
            + b"K\x00\x85" + put() + b"U\x01b" + put() + b"\x87" + put() + b"R" + put()
            + b"(K\x01" + shape + put() + UINT8 + (b"\x88" if fortran else b"\x89")
            + b"T" + struct.pack("<i", len(content)) + content + put() + b"tb"
        )  # fmt: skip

    return b"\x80\x02" + write(value) + b"."


def batch(pixels, labels, key=b"labels"):
    """What a file of CIFAR's Python version holds."""
    return {
        b"batch_label": b"training batch 1 of 5",
        key: [int(label) for label in labels],
        b"data": np.asarray(pixels, np.uint8),
        b"filenames": [b"leptodactylus_pentadactylus_s_000004.png"] * len(labels),
    }
