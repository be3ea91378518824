"""Data sets of adversarial training by name: those of `nembp.datasets`, rings, grids, stacks."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import Any, Final

from nembp.adversarial.mixtures_2d import grid, ring
from nembp.adversarial.stacked import stacked
from nembp.datasets import Dataset, load
from nembp.errors import ArchitectureError

__all__ = ["DATA", "load_adversarial"]

DATA: Final = {
    "ring": "8 Gaussians on a circle, in two dimensions",
    "grid": "25 Gaussians on a 5x5 grid, in two dimensions",
    "stacked": "three MNIST digits as the channels of one image, 1,000 modes",
    "stacked-digits": "the same of scikit-learn's 8x8 digits (no download)",
}


def load_adversarial(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    *,
    samples: int | None = None,
    seed: int = 0,
    scale: float | None = None,
    modes: int | None = None,
    std: float | None = None,
    limit: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> Dataset:
    """Load a data set for adversarial training, images in [0, 1] as a logistic end makes them.

    Parameters
    ----------
    name : str
        One of `DATA`, or a name that `nembp.datasets.load` knows.
    data_dir : path, optional
        Of files; for "stacked" that of MNIST.
    samples : int, optional
        To draw for training, of `DATA` alone: 100,000, or 128,000 of stacked ones.
    seed : int
        Of these draws.
    scale, modes, std : optional
        Of ring and grid: the network's units, the number of modes (a square for a grid), and their
        standard deviation; by default the published ones.
    limit, image_size : optional
        Of files, as in `nembp.datasets.load`. The judge is trained on what the limit leaves.

    Raises
    ------
    ArchitectureError
        If an option does not go with the data set.
    DataError
        If the data cannot be read.

    >>> load_adversarial("grid", modes=9, samples=100).outputs
    9
    """
    shape = {"scale": scale, "modes": modes, "std": std}
    given = {key: value for key, value in shape.items() if value is not None}
    files = {"data_dir": data_dir, "limit": limit, "image_size": image_size}
    if name in DATA:
        apart = ("limit", "image_size") if name == "stacked" else tuple(files)
        _refuse(name, {key: files[key] for key in apart})
    else:
        _refuse(name, {"samples": samples})
    if name not in ("ring", "grid"):
        _refuse(name, shape)
    drawn: dict[str, Any] = {"seed": seed} | ({} if samples is None else {"n": samples})
    if name == "ring":
        return ring(**drawn, **given)  # type: ignore[arg-type]
    if name == "grid":
        return grid(**drawn, **_sided(given))
    if name in DATA:
        base = "mnist" if name == "stacked" else "digits"
        return stacked(load(base, data_dir), **drawn)
    data = load(name, data_dir, limit=limit, image_size=image_size, seed=0)
    if not data.is_image:
        return data
    return replace(data, x_scaling=data.to_unit, pixel_scaling=None)


def _sided(given: dict[str, Any]) -> dict[str, Any]:
    """Replace the number of modes by the side of their grid."""
    modes = given.pop("modes", None)
    if modes is None:
        return given
    side = round(modes**0.5) if modes > 0 else 0
    if side < 1 or side * side != modes:
        raise ArchitectureError(f"modes={modes}: a grid has a square number of them, such as 25")
    return given | {"side": side}


def _refuse(name: str, options: dict[str, Any]) -> None:
    unfit = [key for key, value in options.items() if value is not None]
    if unfit:
        raise ArchitectureError(f"{unfit[0]} does not go with the data set {name!r}; leave it out")
