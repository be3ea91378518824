"""What a data set is, what its reader is asked for, and how two of them are compared."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.scaling import Scaling, chunks
from nembp.datasets.sources import Samples, choose
from nembp.errors import ArchitectureError, DataError, ShapeError

Task: TypeAlias = Literal["auto", "classification", "regression"]
ScalingName: TypeAlias = Literal["auto", "unit", "channel"]
ImageOrder: TypeAlias = Literal["auto", "first", "last"]

# -- what a reader is asked for ------------------------------------------------------------------
READ_BY = {  # options that only some of the built-in readers know
    **dict.fromkeys(("targets", "delimiter", "header", "decimal"), ("csv",)),
    **dict.fromkeys(("image_order", "x", "y"), ("npy", "npz")),
    "image_size": ("images",),
    "transpose": ("npy", "npz", "idx"),
    "max_bytes": ("idx", "mnist", "npz", "images"),
}
HOLD_CLASSES = ("digits", "cifar10", "cifar100", "images")


def _is_whole(value: Any, least: int) -> bool:
    return hasattr(value, "__index__") and bool(value >= least)


@dataclass(frozen=True)
class Request:
    """The options of `nembp.datasets.load`, which describes them; checked."""

    data_dir: Path | None = None
    targets: tuple[str, ...] | None = None
    task: Task = "auto"
    test_fraction: float = 0.2
    seed: int = 0
    limit: int | None = None
    scaling: ScalingName = "auto"
    image_size: tuple[int, int] | None = None
    delimiter: str | None = None
    header: bool | None = None
    decimal: str | None = None
    image_order: ImageOrder = "auto"
    transpose: bool | None = None
    x: str | None = None
    y: str | None = None
    max_bytes: int | None = None
    classes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        size, mark, limit, most = self.image_size, self.delimiter, self.limit, self.max_bytes
        share = self.test_fraction if isinstance(self.test_fraction, Real) else math.nan
        kinds = {"task": Task, "scaling": ScalingName, "image_order": ImageOrder}
        for option, holds, expected in (
            *((name, getattr(self, name) in get_args(kind), f"one of {', '.join(get_args(kind))}")
              for name, kind in kinds.items()),
            ("test_fraction", 0 < share < 1,
             "a share between 0 and 1, such as 0.2"),
            ("seed", _is_whole(self.seed, 0), "an integer of at least 0"),
            ("limit", limit is None or _is_whole(limit, 1), "at least 1 training sample"),
            ("image_size", size is None or (len(size) == 2 and min(size) >= 1
                                            and size[0] * size[1] <= 1 << 26),
             "(height, width) of 1 to 67 million pixels, as 32x32"),
            ("delimiter", mark in (None, "tab") or (isinstance(mark, str) and len(mark) == 1),
             "one character, or the word tab"),
            ("decimal", self.decimal in (None, ".", ","), "'.' or ','"),
            ("max_bytes", most is None or _is_whole(most, 1), "at least 1"),
            ("classes", isinstance(self.classes, tuple) and len(self.classes) != 1
             and all(isinstance(name, str) for name in self.classes)
             and len(set(self.classes)) == len(self.classes), "two different names or more"),
            ("x", (self.x is None) == (self.y is None), "both x and y, or neither")
        ):  # fmt: skip
            if not holds:
                raise ArchitectureError(f"{option}={getattr(self, option)!r}: expected {expected}")

    def check_read_by(self, name: str) -> None:
        """Raise ArchitectureError for options that the reader of this name does not know."""
        if self.task == "regression" and name in HOLD_CLASSES:
            raise ArchitectureError(f"{name} holds classes: task='regression' does not apply")
        for option in fields(self):
            readers = READ_BY.get(option.name, (name,))
            if name not in readers and getattr(self, option.name) != option.default:
                raise ArchitectureError(
                    f"{option.name} is for the data sets {', '.join(readers)}, not for {name!r}; "
                    "leave it out"
                )

    def path(self, name: str) -> Path:
        """`data_dir`, or ArchitectureError when none was given."""
        if self.data_dir is None:
            fetch = ""
            if name in ("mnist", "cifar10", "cifar100"):
                fetch = f"; `nembp data fetch {name} --data-dir DIR` fetches it"
            raise ArchitectureError(
                f"data set {name!r} is read from files and no path was given: "
                f"pass data_dir (--data-dir PATH){fetch}"
            )
        return self.data_dir

    def folder(self, name: str, expected: str) -> Path:
        """`data_dir`, or DataError unless it is the folder that is `expected`."""
        folder = self.path(name)
        if not os.path.isdir(folder):  # unlike Path.is_dir it takes no permission for no
            kind = "is a file" if os.path.exists(folder) else "no such folder"
            raise DataError(f"{folder}: {kind}; expected {expected}")
        return folder


# -- what it gives -------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False, repr=False)
class Split:
    """Samples (n, *shape) and int64 labels 0..K-1 (n,), or floating targets (n, outputs).

    Samples are raw, uint8 for images, which are never converted as a whole, floating otherwise;
    perhaps read-only and memory-mapped: `nembp.datasets.as_rows` reads either kind.
    """

    x: Samples
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    def subset(self, index: NDArray[np.integer[Any]]) -> Split:
        """Return the samples at `index`: a copy in memory, a view of what lies in files."""
        return Split(choose(self.x, index), self.y[index])


@dataclass(frozen=True, eq=False)
class Dataset:
    """A checked data set: raw splits and the scaling that training applies batch by batch.

    Every class occurs in `train`. `shape` is that of a sample, of images (H, W, C); `classes` are
    names in the order of the labels, () for regression, whose columns of `y` are `target_names`.
    `x_scaling` and `y_scaling` make what the network is given; `pixel_scaling`, where it is
    another, maps images to [0, 1]. `notes` say what the reader had to guess or passed over. The
    `fingerprint` is of all samples as read, whatever the order of a table's columns.
    """

    name: str
    train: Split
    test: Split
    shape: tuple[int, ...]
    classes: tuple[str, ...]
    x_scaling: Scaling
    y_scaling: Scaling
    target_names: tuple[str, ...]
    attribution: str
    source: str
    pixel_scaling: Scaling | None = None
    feature_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    fingerprint: str = ""

    def __repr__(self) -> str:
        """Say what it holds; the arrays would fill a screen."""
        shape = "x".join(map(str, self.shape))
        what = f"{self.outputs} {'classes' if self.is_classification else 'targets'}"
        return (
            f"Dataset({self.name!r}, {len(self.train)} training and {len(self.test)} test samples "
            f"of {shape}, {what})"
        )

    def matches(self, seen: str) -> bool:
        """Whether a fingerprint is of these data; those of old know no order of rows."""
        parts, own = seen.split("+"), self.fingerprint.split("+")
        return len(parts) == len(own) and all(map(str.startswith, own, parts))

    @property
    def features(self) -> int:
        """Number of values in one sample: the product of `shape`."""
        return math.prod(self.shape)

    @property
    def outputs(self) -> int:
        """Number of classes, or of regression targets."""
        return len(self.classes) if self.is_classification else len(self.target_names)

    @property
    def is_classification(self) -> bool:
        """Whether `y` holds labels."""
        return bool(self.classes)

    @property
    def is_image(self) -> bool:
        """Whether samples have the shape (H, W, C)."""
        return len(self.shape) == 3

    @property
    def to_unit(self) -> Scaling:
        """Scaling of raw pixels to [0, 1], in which images are drawn."""
        return self.x_scaling if self.pixel_scaling is None else self.pixel_scaling


# -- by name: columns and labels -----------------------------------------------------------------
def listed(names: Sequence[str], most: int = 20) -> str:
    """List names for people, the first ones of many."""
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"


def match_columns(
    found: Sequence[str], wanted: Sequence[str], where: str, others: Sequence[str] | None = ()
) -> list[int]:
    """Return the position among the columns `found` of each name in `wanted`.

    A DataError names one that is there twice or is missing, or that is neither wanted nor among
    `others`, which may be there too; None for any. `where` is the table, for messages.

    >>> match_columns(["b", "kind", "a"], ["a", "b"], "new.csv", others=["kind"])
    [2, 0]
    """
    places = {name: place for place, name in enumerate(found)}
    if len(places) < len(found):
        twice = next(name for k, name in enumerate(found) if places[name] != k)
        raise DataError(f"{where}: two columns are called {twice!r:.60}; expected different names")
    missing = [name for name in wanted if name not in places]
    known = set(found if others is None else [*wanted, *others])
    unknown = [name for name in found if name not in known]
    if missing or unknown:
        fault = f"no column {missing[0]!r:.60}" if missing else f"unknown column {unknown[0]!r:.60}"
        raise DataError(
            f"{where}: {fault}; the columns are {listed(found)}, but expected are "
            f"{listed(wanted)}, in any order. Rename, add or drop columns"
        )
    return [places[name] for name in wanted]


def with_columns(data: Dataset, names: Sequence[str]) -> Dataset:
    """Return a table's data set with its features in the order of `names`; see `match_columns`."""
    order = np.array(match_columns(data.feature_names, names, data.source))
    pair = (data.x_scaling.offset, data.x_scaling.factor)
    return replace(
        data,
        train=Split(np.asarray(data.train.x)[:, order], data.train.y),
        test=Split(np.asarray(data.test.x)[:, order], data.test.y),
        x_scaling=Scaling(*(v if np.ndim(v) == 0 else np.asarray(v)[order] for v in pair)),
        feature_names=tuple(names),
    )


def number(text: str) -> float | None:
    """Return the number that a text is, None if it is none; Python's 1_000 is text."""
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def exact(text: str) -> float | None:
    """Return the number that a text is, whole ones exactly, None if it is none."""
    value = number(text)
    is_whole = text.strip().lstrip("+-").isdecimal() and value not in (None, math.inf, -math.inf)
    return int(text) if is_whole else value


def sorted_names(names: Sequence[str]) -> tuple[str, ...]:
    """Sort class names, as numbers where all are numbers."""
    values = {name: number(name) for name in names}
    if all(value is not None and math.isfinite(value) for value in values.values()):
        return tuple(sorted(names, key=lambda name: (values[name], name)))
    return tuple(sorted(names))


def class_indices(
    labels: NDArray[Any] | Sequence[Any],
    classes: Sequence[str],
    where: str,
    *,
    by_index: bool = False,
) -> NDArray[np.int64]:
    """Return the index of the class that each label names; a DataError where one names none.

    Labels are text, or numbers, which name the class whose name is that number; with `by_index`
    they are indices 0..K-1, whatever the names are. `where` they come from is for messages.

    >>> class_indices([3, 1.0, "2"], ["1", "2", "3"], "y.npy").tolist()
    [2, 0, 1]
    """
    names = [str(k) for k in range(len(classes))] if by_index else list(classes)
    index = {exact(name): k for k, name in enumerate(names)} | {n: k for k, n in enumerate(names)}
    found = []
    for label in np.asarray(labels, dtype=object).reshape(-1).tolist():
        text = label.decode("utf-8", "replace") if isinstance(label, bytes) else label
        if not isinstance(text, str):
            text = f"{text:d}" if isinstance(text, int) else repr(float(text))
        key = text.strip() if text.strip() in index else exact(text)
        if key is None or key not in index:
            expected = f"one of the classes {listed(names)}"
            if by_index:
                expected = f"an index from 0 to {len(names) - 1}"
            raise DataError(f"{where}: no class {label!r:.60}; expected {expected}")
        found.append(index[key])
    return np.array(found, dtype=np.int64)


def check_image_shape(shape: Sequence[int]) -> None:
    """Raise ShapeError unless `shape` is (height, width, channels) with 1 or 3 channels."""
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise ShapeError(
            f"samples of shape {tuple(shape)} are no images; expected (height, width, channels) "
            "with 1 channel (grey) or 3 (RGB)"
        )


# -- fingerprints --------------------------------------------------------------------------------
_MOST_BYTES = 1 << 24  # of a part's rows that enter a fingerprint
_PIECES = 4


def fingerprint(x: Samples, y: NDArray[Any], names: Sequence[str] = ()) -> str:
    """Fingerprint of samples and targets: the same in any order of named columns, not of rows.

    The number of rows, the sum of a 64-bit hash of each, and that of a hash of each and of its
    place, by which rows are split. Of long rows of large data, evenly spaced pieces enter.
    """
    n, features = len(x), math.prod(x.shape[1:])
    columns = np.arange(features)
    most = min(max(64, _MOST_BYTES // max(1, n) // x.dtype.itemsize), 1 << 16)
    if features > most:
        length = most // _PIECES
        starts = np.linspace(0, features - length, _PIECES).astype(np.int64)
        columns = np.unique(starts[:, np.newaxis] + np.arange(length))
    named: Any = [zlib.crc32(name.encode()) for name in names] if names else columns
    weights = _mixed(np.asarray(named, dtype=np.uint64)) | np.uint64(1)
    total, placed, targets = 0, 0, y.reshape(n, -1)
    target_weights = _mixed(np.arange(targets.shape[1], dtype=np.uint64) + np.uint64(1 << 40))
    for part in chunks(x):
        rows = np.asarray(x[part]).reshape(-1, features)
        rows = rows if len(columns) == features else rows[:, columns]
        hashes = _bits(rows) @ weights + _bits(targets[part]) @ target_weights
        total += int(_mixed(hashes).sum(dtype=np.uint64))
        hashes += np.arange(part.start, part.start + len(rows), dtype=np.uint64)
        placed += int(_mixed(hashes).sum(dtype=np.uint64))
    return f"{n}:{total % 2**64:016x}:{placed % 2**64:016x}"


def _bits(values: NDArray[Any]) -> NDArray[np.uint64]:
    """Return the same 64 bits for equal numbers, whatever their dtype."""
    bits = np.ascontiguousarray(values + np.float64(0.0)).view(np.uint64)  # -0.0 becomes 0.0
    return bits ^ (bits >> np.uint64(32))  # whole numbers leave the lower bits empty


def _mixed(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix the bits of each number (splitmix64)."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


# -- means ---------------------------------------------------------------------------------------
def class_means(split: Split, scaling: Scaling, classes: int) -> NDArray[np.float64]:
    """Mean scaled sample of each class, (K, features): what the backward direction learns."""
    x, counts = split.x, np.bincount(split.y, minlength=classes)
    sums = np.zeros((classes, int(np.prod(x.shape[1:]))))
    for part in chunks(x):
        labels = split.y[part]
        values = x[part].reshape(len(labels), -1)
        # row sums, not a product with one-hot rows: as fast, and no threads to wait for
        for label in np.unique(labels):
            sums[label] += values[labels == label].sum(axis=0, dtype=np.float64)
    means = (sums / counts[:, np.newaxis]).reshape(classes, *x.shape[1:])
    # the mean of an affine map is its image
    return scaling.apply(means, np.float64).reshape(classes, -1)


def feature_means(split: Split, scaling: Scaling) -> NDArray[np.float64]:
    """Mean scaled sample of a split, shape (features,): where the backward input bias starts."""
    # not by `class_means`, whose rows of a class are a copy: another order of a table's sums
    total: Any = sum(split.x[part].sum(axis=0, dtype=np.float64) for part in chunks(split.x))
    return scaling.apply((total / len(split))[np.newaxis], np.float64).reshape(-1)
