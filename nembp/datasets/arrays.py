"""Arrays in files: NumPy's .npy and .npz, and MNIST's IDX; none of them trusted.

An array is refused unless its file holds just what its header declares, and nothing is allocated
for a header that declares more than the file can hold.

IDX (http://yann.lecun.com/exdb/mnist/): bytes 0-3 are 0, 0, type code, number of dimensions; then
one big-endian 32-bit length per dimension; then the values in C order, big-endian.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request
from nembp.errors import DataError
from nembp.files import check_unpacked, parsing, reading

_Read: TypeAlias = tuple[NDArray[Any], str]  # an array, and where it was read from
_FRESH = "Get a fresh copy of the file, or save it again."


@dataclass(frozen=True)
class Stored:
    """What a file says, or must hold, of the array that starts at byte `start` of it."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int = 0
    order: Literal["C", "F"] = "C"

    @property
    def end(self) -> int:
        """Where the file must end."""
        return self.start + math.prod(self.shape) * self.dtype.itemsize

    def check(self, size: int, where: str) -> None:
        """Raise DataError unless the header and its values use up `size` bytes exactly."""
        # no array has 2**60 values, even where another length is 0
        if size != self.end or math.prod(length or 1 for length in self.shape) >= 2**60:
            fault = "trailing bytes" if size > self.end else "truncated, or its header is wrong"
            raise DataError(
                f"{where}: {fault}: {size} bytes; expected {self.end}, for shape {self.shape} of "
                f"{self.dtype.name}. {_FRESH}"
            )

    def values(self, content: bytes | bytearray) -> NDArray[Any]:
        """Return the values in the bytes that follow the header."""
        return np.ndarray(self.shape, self.dtype, content, order=self.order)

    def mapped(self, file: BinaryIO, where: str) -> NDArray[Any]:
        """Map the values of a file, read-only, once it is checked."""
        self.check(os.fstat(file.fileno()).st_size, where)
        if self.end == self.start:  # nothing to map
            return np.empty(self.shape, self.dtype)
        return np.memmap(file, self.dtype, "r", self.start, self.shape, self.order)


# -- .npy and .npz -------------------------------------------------------------------------------
def map_npy(path: Path) -> NDArray[Any]:
    """Map an .npy file of numbers or text, read-only; it must hold what its header declares."""
    with reading(path) as file:
        return _npy_header(file, str(path)).mapped(file, str(path))


def _npy_header(file: Any, where: str) -> Stored:
    read = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    # NumPy evaluates headers as Python literals: anything may be raised, and warned of
    with parsing(f"{where}: not a NumPy array", _FRESH), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            shape, fortran, dtype = read[np.lib.format.read_magic(file)[0]](file)
        except MemoryError as error:  # the parser's, which allocates nothing
            raise ValueError("nested too deeply") from error
    if dtype.hasobject:
        raise DataError(
            f"{where}: holds pickled objects, which are not read because they can run code; "
            "expected plain numbers or text. Convert it, as with astype(float) or astype(str), and "
            "save it again."
        )
    plain = dtype.kind in "biufUS" and dtype.itemsize and dtype.subdtype is None
    if not plain or len(shape) > 32 or min(shape, default=0) < 0:
        raise DataError(
            f"{where}: shape {shape} of dtype {dtype}; expected numbers or text. {_FRESH}"
        )
    return Stored(dtype, shape, file.tell(), "F" if fortran else "C")


def read_npz(
    path: Path, wanted: Sequence[str] | Callable[[list[str]], Sequence[str]], *, packed: bool = True
) -> dict[str, NDArray[Any]]:
    """Read the arrays of an .npz that are `wanted`, where they exist, in native byte order.

    `wanted` may be a function of the names of all. Without `packed`, no entry may be compressed.
    """
    arrays = {}
    with reading(path) as file:
        with parsing(f"{path}: not an .npz archive", _FRESH):
            archive = zipfile.ZipFile(file)
            members = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        for info in members.values():
            if not packed and info.compress_type != zipfile.ZIP_STORED:
                raise DataError(f"{path}: {info.filename} is compressed. {_FRESH}")
        names = wanted(list(members)) if callable(wanted) else wanted
        found = {name: members[name] for name in names if name in members}
        unpacked = sum(info.file_size for info in found.values())
        check_unpacked(unpacked, os.fstat(file.fileno()).st_size, str(path))
        for name, info in found.items():
            where = f"{path}: {name}"
            with parsing(f"{where}: damaged", _FRESH), archive.open(info) as member:
                header = _npy_header(member, where)
                header.check(info.file_size, where)
                content = bytearray(info.file_size - header.start)
                if member.readinto(content) != len(content) or member.read(1):  # type: ignore[attr-defined]
                    raise ValueError("of another length than it says")
            values = header.values(content)
            native = values.dtype.newbyteorder("=")
            arrays[name] = np.ascontiguousarray(values, native).reshape(header.shape)
    return arrays


# words in the names of arrays, in any case: X_train, train_images, ...
_WORDS = {
    "x": "x data image images imgs features inputs samples",
    "y": "y label labels target targets classes",
    "train": "train training",
    "test": "test testing",
    "val": "val valid validation",
}
_EXPECTED = "x_train, y_train, x_test and y_test, or x and y, or other usual names"


def _understood(names: list[str], where: str) -> dict[str, str]:
    """Find which array has which role: x, y_train, ... to its name."""
    if set(names) == {"arr_0", "arr_1"}:
        return {"x": "arr_0", "y": "arr_1"}
    found: dict[str, list[str]] = {}
    for name in names:
        parted = re.sub(r"^([xyXY])(?=[a-z])|(?<=[a-z])(?=[A-Z])", r"\1_", name)
        words = re.findall(r"[a-z]+|\d+", parted.lower())
        means = [key for word in words for key, known in _WORDS.items() if word in known.split()]
        means.sort(key=lambda key: key not in "xy")
        if len(words) == len(means) and [key in "xy" for key in means] in ([True], [True, False]):
            found.setdefault("_".join(means), []).append(name)
    for role, alike in found.items():
        if len(alike) > 1 and role not in alike:
            raise DataError(
                f"{where}: {' and '.join(alike[:4])} may each be {role}; expected one. Name the "
                "two arrays to read (--x NAME --y NAME)"
            )
    return {role: role if role in alike else alike[0] for role, alike in found.items()}


def _choose(names: list[str], where: str, request: Request) -> tuple[list[str], list[str]]:
    """Return the names of x and y of each part, and notes of what is not obvious."""
    names = [name for name in names if name.isprintable()]
    shown = ", ".join(f"{name:.60}" for name in names[:20]) or "no arrays"
    if request.x is not None and request.y is not None:
        found, roles = {name: name for name in names}, [request.x, request.y]
    else:
        found, parts = _understood(names, where), [""]
        if "x_train" in found:
            parts = ["_train", "_val" if "x_val" in found and "x_test" not in found else "_test"]
        roles = [f"{axis}{part}" for part in parts for axis in "xy"]
    if missing := [role for role in roles if role not in found]:
        raise DataError(
            f"{where}: no array {missing[0]!r}; found {shown}; expected {_EXPECTED}. Rename them, "
            "or name the two to read (--x NAME --y NAME)"
        )
    chosen, notes = [found[role] for role in roles], list[str]()
    if not set(chosen) <= {"x", "y", "x_train", "y_train", "x_test", "y_test"}:
        notes.append(f"{where}: read are {', '.join(chosen)}.")
    if rest := [name for name in names if name not in chosen]:
        notes.append(f"{where}: not used are {', '.join(f'{name:.60}' for name in rest[:20])}.")
    return chosen, notes


def load_npy(request: Request) -> Dataset:
    """Load a folder of .npy files, named as in `load_npz`; behind ``load("npy", folder)``.

    Samples are memory-mapped and may be larger than memory; targets are read.
    """
    folder = request.folder("npy", f"a folder with .npy files: {_EXPECTED}")
    paths = {path.stem: path for path in sorted(folder.iterdir()) if path.suffix.lower() == ".npy"}
    chosen, notes = _choose(list(paths), str(folder), request)
    read = [(map_npy(paths[name]), str(paths[name])) for name in chosen]
    return _load("npy", folder, request, read, notes)


def load_npz(request: Request) -> Dataset:
    """Load an archive, or the only one of a folder; the loader behind ``load("npz", path)``.

    Integer or text y of shape (n,) and one-hot rows are classes, other floats regression targets.
    """
    path = only_file(request.path("npz"), (".npz",))
    chosen, notes = list[str](), list[str]()

    def choose(names: list[str]) -> list[str]:
        chosen[:], notes[:] = _choose(names, str(path), request)
        return chosen

    arrays = read_npz(path, choose)
    read = [(arrays[name], f"{path}: {name}") for name in chosen]
    return _load("npz", path, request, read, notes)


def _load(
    kind: str, source: Path, request: Request, read: list[_Read], notes: list[str], by: str = ""
) -> Dataset:
    """Put the data set together of x and y of each part."""
    parts = []
    for (x, x_name), (y, y_name) in zip(read[::2], read[1::2], strict=True):
        first = request.image_order == "first"
        if x.ndim == 4 and request.image_order == "auto" and x.shape[1] <= 4 < x.shape[3]:
            first = True
            notes.append(
                f"{x_name}: shape {x.shape} is taken as (samples, channels, height, width); "
                "--image-order last says otherwise."
            )
        images = np.moveaxis(x, 1, 3) if first and x.ndim == 4 else x
        parts.append(Raw(images, np.array(y), x_name, y_name))
    return assemble(kind, parts, request, source=str(source), attribution=by, notes=notes)


def only_file(path: Path, suffixes: tuple[str, ...]) -> Path:
    """`path` itself, or the only file with such a suffix, in any case, where it is a folder."""
    if not os.path.isdir(path):
        return path
    found = sorted(file for file in path.iterdir() if file.suffix.lower() in suffixes)
    if len(found) != 1:
        raise DataError(
            f"{path}: {len(found)} {suffixes[0]} files in this folder; expected one, or the path "
            "of a file"
        )
    return found[0]


# -- IDX -----------------------------------------------------------------------------------------
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: str | os.PathLike[str]) -> NDArray[Any]:
    """Read an IDX file, raw or gzip (told apart by content), using exactly all of its bytes.

    A raw file is memory-mapped, read-only; values of several bytes are big-endian, as they are in
    the file. A DataError says what of it is missing, damaged or declared falsely.
    """
    path = Path(path)
    with reading(path) as file, parsing(f"{path}: damaged gzip data", _FRESH):
        size = os.fstat(file.fileno()).st_size
        start = file.read(2)
        file.seek(0)
        packed = start == b"\x1f\x8b"
        if path.suffix == ".gz" and size and not packed:
            raise DataError(
                f"{path}: not gzip data (starts with {start.hex(' ')}, expected 1f 8b). If it is "
                "unpacked already, rename it without .gz; else get a fresh copy."
            )
        stream: Any = gzip.GzipFile(fileobj=file) if packed else file
        header = _idx_header(stream, str(path))
        if not packed:
            return header.mapped(file, str(path))
        check_unpacked(header.end, size, str(path))
        content = stream.read(header.end - header.start + 1)  # one more: to reach the end
        header.check(header.start + len(content), str(path))
        return header.values(content)


def _idx_header(file: BinaryIO, where: str) -> Stored:
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0" or start[2] not in _TYPES or start[3] > 32:
        raise DataError(
            f"{where}: not an IDX file (starts with {start.hex(' ') or 'nothing'}, expected 00 00, "
            f"a type 08-0e and a number of dimensions, as in 00 00 08 03). {_FRESH}"
        )
    lengths = file.read(4 * start[3])
    if len(lengths) < 4 * start[3]:
        raise DataError(f"{where}: too few bytes for an IDX header (truncated file). {_FRESH}")
    shape = struct.unpack(f">{start[3]}I", lengths)
    return Stored(np.dtype(_TYPES[start[2]]), shape, 4 + len(lengths))


# -- sets of four IDX files ----------------------------------------------------------------------
# the standard order: training images and labels, test images and labels
NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_NAME = re.compile(r"(.*)(train|t10k|test)-(images|labels)([-.])idx([13])-ubyte(\.gz)?")


def idx_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Find a folder's files by their prefix and standard name: raw ones first, as they are mapped.

    A dash may be a dot; a file may lie in a folder of its own name, as Kaggle packs it; and files
    other than MNIST's may say "test" where MNIST's say "t10k".
    """
    found: dict[tuple[str, str], Path] = {}
    names = os.listdir(folder) if os.path.isdir(folder) else []
    matches = [match for name in names if (match := _IDX_NAME.fullmatch(name))]
    for match in sorted(matches, key=lambda m: (m[2] == "test", m[4] == ".", bool(m[6]))):
        path = folder / match[0]
        path = path / match[0] if os.path.isdir(path) else path
        part = match[2].replace("test", "t10k")
        if os.path.isfile(path):
            found.setdefault((match[1], f"{part}-{match[3]}-idx{match[5]}-ubyte"), path)
    return found


def read_four(place: Path) -> tuple[list[_Read], str]:
    """Read the four files in the standard order; unpacked images are memory-mapped.

    `place` is their folder; or, where it has several sets, folder/prefix. Returned is the prefix of
    their names, too, such as "emnist-letters-".
    """
    fetch = f"`nembp data fetch mnist --data-dir {place}` fetches MNIST's."
    folder, wanted = place, ""
    if not os.path.isdir(place):  # unlike Path.is_dir it takes no permission for no
        folder, wanted = place.parent, place.name.rstrip("-") + "-"
    files = idx_files(folder)
    prefixes = sorted({prefix for prefix, name in files if name == NAMES[0]})
    if wanted and wanted not in prefixes:
        kind = "not a folder" if os.path.exists(place) else "no such folder"
        raise DataError(f"{place}: {kind}; expected one with the four IDX files. {fetch}")
    if len(prefixes) > 1 and wanted not in prefixes:
        names = ", ".join(prefix.rstrip("-") for prefix in prefixes)
        raise DataError(
            f"{place}: several sets: {names}; expected one. Add a set's name to the path, as in "
            f"{place / prefixes[0].rstrip('-')}"
        )
    prefix, read = wanted if wanted in prefixes else "".join(prefixes), []
    for name in NAMES:
        if (prefix, name) not in files:
            raise DataError(
                f"{folder / (prefix + name)}: no such file, nor with .gz or as "
                f"{prefix + name.replace('-idx', '.idx')}; expected the four IDX files in the "
                f"folder. {fetch}"
            )
        read.append((read_idx(files[prefix, name]), str(files[prefix, name])))
    return read, prefix


def load_idx(request: Request) -> Dataset:
    """Load any set of four IDX files; the loader behind ``load("idx", folder)``.

    Unpacked files are memory-mapped and may be larger than memory; gzip files are unpacked into
    it. EMNIST's images, known by their names, are stored by columns and are turned.
    """
    place, notes = request.path("idx"), []
    read, prefix = read_four(place)
    if prefix.startswith("emnist") and request.transpose is None:
        request = replace(request, transpose=True)
        notes.append(
            f"{place}: EMNIST stores its images transposed; they are turned. --no-transpose leaves "
            "them as they are."
        )
    return _load("idx", place, request, read, notes)


MNIST = {  # MD5 and size in bytes of each file, unpacked
    NAMES[0]: ("6bbc9ace898e44ae57da46a324031adb", 47_040_016),
    NAMES[1]: ("a25bea736e30d166cdddb491f175f624", 60_008),
    NAMES[2]: ("2646ac647ad5339dbf082846283269ea", 7_840_016),
    NAMES[3]: ("27ae3e4e09519cfbb04c329615203637", 10_008),
}


def load_mnist(request: Request) -> Dataset:
    """Load MNIST and verify its checksums; the loader behind ``load("mnist", folder)``."""
    folder = request.path("mnist")
    read, _ = read_four(folder)
    for (x, where), (expected, _) in zip(read, MNIST.values(), strict=True):
        header = struct.pack(f">2xBB{x.ndim}I", 0x08, x.ndim, *x.shape)
        digest = hashlib.md5(header, usedforsecurity=False)
        digest.update(np.ascontiguousarray(x).data)
        if (found := digest.hexdigest()) != expected:
            raise DataError(
                f"{where}: not MNIST's file (MD5 {found} unpacked, expected {expected}). "
                f"Move it away and run `nembp data fetch mnist --data-dir {folder}`, or load "
                "another set of this format with --dataset idx."
            )
    by = "MNIST by Y. LeCun, C. Cortes and C. Burges, CC BY-SA 3.0"
    return _load("mnist", folder, request, read, [], by)
