"""Files of CIFAR-10 and CIFAR-100 as the official archives hold them, with fewer records."""

from __future__ import annotations

import io
import pickle
import struct
from dataclasses import replace

import numpy as np

from nembp.datasets import cifar


class Python2(pickle._Pickler):
    """Writes strings as bytes, as Python 2 did."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_bytes(self, value):
        short = len(value) < 256
        head = b"U" + bytes([len(value)]) if short else b"T" + struct.pack("<i", len(value))
        self.write(head + value)
        self.memoize(value)

    dispatch[bytes] = save_bytes


def python2(value):
    """The pickle of a value as Python 2's cPickle wrote it."""
    file = io.BytesIO()
    Python2(file, 2).dump(value)
    content = file.getvalue().replace(b"cnumpy._core", b"cnumpy.core")
    return content.replace(b"X\x02\0\0\0u1", b"U\x02u1")


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
