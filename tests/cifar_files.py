"""Files of CIFAR-10 and CIFAR-100 as the official archives hold them, with fewer records."""

from __future__ import annotations

import struct
from dataclasses import replace
from itertools import count

import numpy as np

from nembp.datasets import cifar

UINT8 = (
    b"cnumpy\ndtype\nq\x01(U\x02u1K\x00K\x01tR"
    b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
)


def python2(value):
    """The pickle of a value as Python 2's cPickle wrote it: protocol 2, strings as bytes."""
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


COUNT = 30  # records a file, where the official ones have 10000
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
HUNDRED = [f"class {number}" for number in range(100)]


def shrink(monkeypatch):
    """Make the reader expect as few records as are written here."""
    for name, train, test in (("CIFAR10", COUNT, COUNT), ("CIFAR100", 120, COUNT)):
        layouts = [
            replace(layout, train=dict.fromkeys(layout.train, train),
                    test=dict.fromkeys(layout.test, test))
            for layout in getattr(cifar, name)
        ]  # fmt: skip
        monkeypatch.setattr(cifar, name, tuple(layouts))


def records(seed, count=COUNT, classes=10):
    """Pixels (n, 3072), plane by plane, and labels."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    colour = np.random.default_rng(9).integers(0, 200, (classes, 3))[labels].repeat(1024, axis=1)
    return (colour + generator.integers(0, 50, (count, 3072))).astype(np.uint8), labels


FILES = {name: records(seed) for seed, name in enumerate([*cifar._FIVE, "test_batch"])}


def binary(folder):
    folder.mkdir(parents=True)
    for name, (pixels, labels) in FILES.items():
        content = np.column_stack([labels.astype(np.uint8), pixels])
        (folder / f"{name}.bin").write_bytes(content.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def pickled(folder, order="C"):
    folder.mkdir(parents=True)
    for name, (pixels, labels) in FILES.items():
        content = python2(batch(np.asarray(pixels, order=order), labels))
        (folder / name).write_bytes(content)
    meta = {b"num_cases_per_batch": 10000, b"label_names": [name.encode() for name in NAMES]}
    (folder / "batches.meta").write_bytes(python2(meta | {b"num_vis": 3072}))
    return folder


def expected(names):
    pixels = np.concatenate([FILES[name][0] for name in names])
    return pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def hundred(tmp_path, kind):
    sets = {"train": records(1, 120, 100), "test": records(2, COUNT, 100)}
    folder = tmp_path / ("cifar-100-binary" if kind == "binary" else "cifar-100-python")
    folder.mkdir()
    for name, (pixels, labels) in sets.items():
        if kind == "binary":
            content = np.column_stack([labels // 5, labels, pixels]).astype(np.uint8).tobytes()
            (folder / f"{name}.bin").write_bytes(content)
        else:
            fields = batch(pixels, labels, b"fine_labels")
            fields[b"coarse_labels"] = (labels // 5).tolist()
            (folder / name).write_bytes(python2(fields))
    if kind == "binary":
        (folder / "fine_label_names.txt").write_text("\n".join(HUNDRED))
    else:
        names = {b"fine_label_names": [name.encode() for name in HUNDRED]}
        (folder / "meta").write_bytes(python2(names))
    return sets
