"""Image files: one by one, and in folders, one for each class."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.dataset import Dataset, Request, listed, sorted_names
from nembp.datasets.sources import Rows, Samples
from nembp.errors import DataError, OutputError
from nembp.files import check_unpacked, parsing, reading

if TYPE_CHECKING:
    from PIL.Image import Image

# of what Pillow reads: formats of still images that need no other program
_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF", "GIF", "PPM", "TGA", "JPEG2000", "PCX")
SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".bmp", ".dib", ".webp", ".tif", ".tiff", ".gif",
    ".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".jp2", ".j2k", ".pcx"
)  # fmt: skip


# -- a file --------------------------------------------------------------------------------------
def read_image(
    path: Path,
    size: tuple[int, ...] | None,
    channels: int | None,
    *,
    resize: bool = False,
    remedy: str = "the size of the training images. Crop or resize it.",
) -> NDArray[Any]:
    """Read one image file, (height, width, channels), of uint8, or of uint16 if it is 16-bit grey.

    `size` (height, width) is what it must have, for the reason that `remedy` gives, or, to
    `resize`, is scaled to, with the proportions kept and what sticks out cut off alike on both
    sides. `channels` are 1 (grey) or 3 (RGB), or None for what the file has.
    """
    from PIL import Image

    # of damaged files Pillow raises nearly anything, and warns of metadata
    expected = "Expected PNG, JPEG, TIFF or another format that Pillow reads. Convert it to PNG."
    damage = parsing(f"{path}: not an image file, or damaged", expected)
    with reading(path) as file, damage, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with Image.open(file, formats=_FORMATS) as image:
            found, frames = image.size, getattr(image, "n_frames", 1)
            if frames > 1:
                raise DataError(
                    f"{path}: {frames} images in one file; expected one. Save the frames apart."
                )
            # nothing is decoded before its size is known to be right
            check_unpacked(
                found[0] * found[1] * len(image.getbands()), os.fstat(file.fileno()).st_size,
                str(path), is_image=True
            )  # fmt: skip
            image.verify()  # a PNG's checksums, which decoding passes over
        file.seek(0)
        with Image.open(file, formats=_FORMATS) as image:
            pixels = _decoded(image, size if resize else None, channels, path)
        if size is not None and pixels.shape[:2] != size:
            raise DataError(
                f"{path}: {found[0]} x {found[1]} pixels (width x height); expected "
                f"{size[1]} x {size[0]}, {remedy}"
            )
        return pixels


def _decoded(
    image: Image, size: tuple[int, ...] | None, channels: int | None, path: Path
) -> NDArray[Any]:
    """Return the pixels, brought to a size and to so many channels."""
    from PIL import Image, ImageOps

    grey16 = image.mode.startswith("I")
    modes = str([tile[3] for tile in getattr(image, "tile", ())])  # in which the pixels are stored
    if image.mode == "F" or (not grey16 and re.search(";16[BLN]", modes)):
        raise DataError(
            f"{path}: colours of 16 bits, or floating-point pixels, of which Pillow keeps 8 bits; "
            "expected 8 bits, or 16-bit grey. Convert it, or save all as an array (.npy)."
        )
    ImageOps.exif_transpose(image, in_place=True)
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    if alpha is not None and alpha.getextrema() != (255, 255):
        raise DataError(
            f"{path}: is see-through in places, so its pixels depend on what lies behind; expected "
            "an opaque image. Flatten it onto the background that the training images have."
        )
    if channels is None:
        channels = 1 if grey16 or image.mode in ("1", "L", "LA") else 3
    plain: Image.Image
    if grey16:
        wide = np.asarray(image, np.int64)
        if wide.size and (wide.min() < 0 or wide.max() > 65535):
            raise DataError(f"{path}: pixels of 32 bits; expected 8 or 16. Convert it.")
        plain = Image.fromarray(wide.astype(np.float32))  # Pillow resizes no 16 bits
    else:
        plain = image.convert("L" if channels == 1 else "RGB")
    if size is not None:
        plain = ImageOps.fit(plain, (size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = np.asarray(plain)
    if grey16:
        grey = np.rint(np.clip(pixels, 0, 65535)).astype(np.uint16)
        return np.asarray(grey[..., np.newaxis].repeat(channels, axis=2))
    return pixels.reshape(*pixels.shape[:2], channels)


# -- folders -------------------------------------------------------------------------------------
_LAYOUT = "DIR/train/CLASS/* and DIR/test/CLASS/*, or DIR/CLASS/*"
_TRAIN = ("train", "training", "train_set", "training_set")
_TESTS = (  # what is used first stands first
    "test", "testing", "test_set", "val", "valid", "validation", "dev", "eval", "evaluation"
)  # fmt: skip
_SYSTEM = {
    "@eadir", "__macosx", "$recycle.bin", "#recycle", "@recycle", "#snapshot", "lost+found",
    "system volume information", "thumbs.db", "desktop.ini", "__pycache__"
}  # fmt: skip


def load_images(request: Request) -> Dataset:
    """Load image files in class folders; the loader behind ``load("images", folder)``.

    `data_dir` holds train/CLASS/* and test/CLASS/* (or other usual names of splits, in any case),
    or CLASS/*, which is then split, with image files at any depth. Images must have one size, or
    are brought to `image_size`; if all are grey, they have one channel, else three. Pixels are
    decoded once, into a file that the system's temporary folder (TMPDIR) holds without a name and
    drops when the process ends.
    """
    folder = request.folder("images", f"a folder of class folders: {_LAYOUT}")
    passed: Counter[str] = Counter()  # suffixes of what is no image
    places, notes = _splits(folder)
    parts = [_classes(place, passed, 2 - k) for k, place in enumerate(places)]
    classes = sorted_names(list(parts[0]))
    if new := [name for name in parts[-1] if name not in classes]:
        raise DataError(
            f"{places[-1] / new[0]}: class {new[0]!r} has no training images; expected the classes "
            f"of {places[0]}"
        )
    if passed:
        kinds = ", ".join(f"{n} {suffix or 'without suffix'}" for suffix, n in passed.most_common())
        notes.append(f"{folder}: {passed.total()} files are no images and were not read: {kinds}.")
    files = [[path for name in classes for path in part.get(name, [])] for part in parts]
    labels = [np.repeat(range(len(classes)), [len(p.get(c, [])) for c in classes]) for p in parts]
    raws = [
        Raw(x, y, str(place), str(place))
        for place, x, y in zip(places, _spooled(files, request.image_size), labels, strict=True)
    ]
    if raws[0].x.dtype != np.uint8:
        notes.append(f"{folder}: 16-bit pixels, scaled from the range of the training images.")
    return assemble("images", raws, request, source=str(folder), classes=classes, notes=notes)


def _splits(folder: Path) -> tuple[list[Path], list[str]]:
    """Find the training folder, and the test folder where there is one; and what to say of it."""
    named = {name.lower().replace("-", "_"): name for name in _folders(folder)}
    train, test = (
        [named[split] for split in splits if split in named and _folders(folder / named[split])][:1]
        for splits in (_TRAIN, _TESTS)
    )
    notes: list[str] = []
    if not train:
        return [folder], notes
    if test and test != [named.get("test")]:
        notes.append(f"{folder}: {test[0]!r} is the test part.")
    if rest := [name for name in named.values() if name not in train + test]:
        notes.append(f"{folder}: the folders {listed(sorted(rest))} are not used.")
    return [folder / name for name in train + test], notes


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder with the names in it, sorted, of folders and of files, but the system's."""

    def shown(names: list[str]) -> list[str]:
        return sorted(n for n in names if not n.startswith(".") and n.lower() not in _SYSTEM)

    def fail(error: OSError) -> NoReturn:
        raise DataError(
            f"{error.filename}: cannot be read ({error.strerror}). Check the path."
        ) from error

    for place, folders, files in os.walk(folder, onerror=fail):  # no links: they may lead back
        folders[:] = shown(folders)
        yield Path(place), folders, shown(files)


def _folders(folder: Path) -> list[str]:
    return next(_walk(folder))[1]


def _classes(folder: Path, passed: Counter[str], least: int) -> dict[str, list[Path]]:
    """Return the image files of each class folder, and count what is passed over."""
    _, names, beside = next(_walk(folder))
    if len(names) < least:
        raise DataError(
            f"{folder}: {len(names)} class folders; expected at least {least} of them: {_LAYOUT}"
        )
    same = {tuple(_folders(folder / name)) for name in names}
    if len(names) > 1 and len(same) == 1 and same != {()}:
        raise DataError(
            f"{folder}: the folders {listed(names, 4)} all hold {listed(min(same), 4)}, so they "
            f"are probably no classes; expected {_LAYOUT}. Rename the splits to train and test, or "
            "give the path of one of the folders"
        )
    passed.update(Path(name).suffix.lower() for name in beside)
    images = {}
    for name in names:
        if not name.isprintable():
            raise DataError(f"{folder}: class folder {name!r}: not a printable name. Rename it.")
        files = [place / each for place, _, found in _walk(folder / name) for each in found]
        images[name] = [path for path in files if path.suffix.lower() in SUFFIXES]
        passed.update(path.suffix.lower() for path in files if path.suffix.lower() not in SUFFIXES)
        if not images[name]:
            raise DataError(
                f"{folder / name}: no image files; expected {', '.join(SUFFIXES)}, or no folder of "
                "this name"
            )
    return images


# -- pixels --------------------------------------------------------------------------------------
def _spooled(
    parts: list[list[Path]], image_size: tuple[int, int] | None, channels: int | None = None
) -> list[Samples]:
    """Decode the images of each part into a temporary file, and map it: (n, H, W, C).

    The first one says what they are: uint8, or uint16, which is read as float32. Once an image in
    colour follows grey ones, all are read again in colour.
    """
    first, place, mapped = parts[0][0], tempfile.gettempdir(), list[Samples]()
    sample = read_image(first, image_size, channels, resize=True)
    *size, bands = sample.shape
    needed, free = sum(map(len, parts)) * sample.nbytes, shutil.disk_usage(place).free
    remedy = "Free some space, or name a folder with more in the environment variable TMPDIR."
    if free < needed:
        raise OutputError(
            f"{place}: {free:,} bytes free, but the pixels of {sum(map(len, parts))} images of "
            f"shape {sample.shape} take {needed:,}. {remedy}"
        )
    rest = (
        f"the size of {first}. Crop or resize them, or have them resized by image_size "
        f"(--image-size {size[0]}x{size[1]})"
    )
    try:
        for paths in parts:
            with tempfile.TemporaryFile() as file:
                for path in paths:
                    image = read_image(
                        path, tuple(size), 3 if bands == 3 else None,
                        resize=image_size is not None, remedy=rest
                    )  # fmt: skip
                    if image.dtype != sample.dtype:
                        raise DataError(
                            f"{path}: {8 * image.dtype.itemsize} bits per pixel, but {first} has "
                            f"{8 * sample.dtype.itemsize}; expected the same in all. Convert them "
                            "to one depth."
                        )
                    if image.shape[2] != bands:
                        return _spooled(parts, image_size, 3)
                    file.write(image.tobytes())
                file.flush()
                pixels: Any = np.memmap(file, sample.dtype, "r", shape=(len(paths), *sample.shape))
            mapped.append(pixels if sample.dtype == np.uint8 else Rows([pixels], dtype=np.float32))
    except OSError as error:
        if isinstance(error, OutputError):
            raise
        raise OutputError(f"{place}: cannot hold pixels ({error.strerror}). {remedy}") from error
    return mapped
