"""What adversarial networks learn from: latent samples, mixtures in the plane, stacked digits.

Rings and grids of Gaussians show and count mode collapse, with the parameters of the published
comparisons: the ring of 8 and the grid of 25 of Srivastava et al. 2017 (VEEGAN), as Lin et al. 2018
(PacGAN), section 4.1, state them. Stacked digits are three digits drawn at random as the channels
of one image, of 1,000 kinds (Metz et al. 2017, unrolled GAN, section 3.3.1).
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.settings import LatentLaw
from nembp.backend import Array, Backend, stream
from nembp.datasets import Dataset, Rows, Scaling, Split, as_rows, load
from nembp.datasets.scaling import LARGEST
from nembp.errors import ArchitectureError

DATA: Final = {
    "ring": "8 Gaussians on a circle, in two dimensions",
    "grid": "25 Gaussians on a 5x5 grid, in two dimensions",
    "stacked": "three MNIST digits as the channels of one image, 1,000 modes",
    "stacked-digits": "the same of scikit-learn's 8x8 digits (no download)",
}
CHANNELS = 3
TEST_SHARE = 10  # one test sample for so many to train on
LEAST_TEST = {"mixture": 2500, "stacked": 26_000}  # as many as published scores are made of
OF_MIXTURES = ("samples", "modes", "std", "scale")
OPTIONS = {
    "ring": OF_MIXTURES,
    "grid": OF_MIXTURES,
    "stacked": ("samples", "data_dir"),
    "stacked-digits": ("samples",),
}


# -- latent samples --------------------------------------------------------------------------------
def fill_latent(backend: Backend, generator: Any, law: LatentLaw, out: Array) -> Array:
    """Fill ``out`` with draws of z: normal ones, or 0 and 1 with probability ½ each.

    A binary z ∈ {0, 1}ᵇ is a code, which need not be torn apart to reach modes that lie apart.
    Climbing log p(z | G(z)) raises a lower bound on the mutual information of code and sample,
    I(z; G(z)) ≥ H(z) + E log p(z | G(z)) (Barber and Agakov, NIPS 2003), with H(z) = b log 2 nats:
    a generator that has collapsed has none, since its samples say nothing of their z.
    """
    if law == "gaussian":
        return backend.normal(generator, out)
    backend.uniform(generator, out)
    return backend.xp.floor_divide(out, 0.5, out=out)


def draw_latent(n: int, width: int, seed: int, law: LatentLaw = "gaussian") -> NDArray[np.float64]:
    """Draw z (n, width) on the host from a seed; the first rows are the same whatever n is.

    >>> draw_latent(2, 4, seed=0, law="binary")
    array([[1., 0., 1., 0.],
           [0., 0., 0., 0.]])
    """
    generator = stream(seed, "samples")
    if law == "gaussian":
        return generator.standard_normal((n, width))
    return np.floor_divide(generator.random((n, width)), 0.5)


# -- mixtures of Gaussians -------------------------------------------------------------------------
@dataclass(frozen=True, eq=False, kw_only=True)
class MixtureData(Dataset):
    """Samples of a mixture of Gaussians of equal weight and width; the labels are their modes."""

    centres: NDArray[np.float64]  # (modes, 2), in raw units
    std: float  # in each direction


def mixture(
    name: str,
    samples: int = 100_000,
    modes: int | None = None,
    std: float | None = None,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> MixtureData:
    """Draw Gaussians on a circle of radius 1 ("ring"), or on a square grid, 2 apart, about 0.

    ``samples`` are to train, a tenth as many to test, at least 2500, by streams of their own. The
    network sees raw · `scale`. The defaults of the ring are PacGAN's; Metz et al. 2017 (unrolled
    GAN) have twice the radius and standard deviation: the same but for `scale`.

    >>> data = mixture("ring", 1000)
    >>> data.centres.shape, data.train.x.shape, len(data.test), data.classes[:2]
    ((8, 2), (1000, 2), 2500, ('mode 0', 'mode 1'))
    >>> mixture("grid", 100).centres[[0, 1, -1]].tolist()
    [[-4.0, -4.0], [-4.0, -2.0], [4.0, 4.0]]
    """
    k, deviation = (8, 0.01) if name == "ring" else (25, 0.05)
    k, std = k if modes is None else modes, deviation if std is None else std
    _check_positive(samples=samples, modes=k, std=std, scale=scale)
    if name == "ring":
        angle = 2 * math.pi * np.arange(k) / k
        centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    else:
        side = math.isqrt(k)
        if k != side**2:
            raise ArchitectureError(f"modes={k}: a grid has a square number of them, such as 25")
        places = 2.0 * (np.arange(side) - (side - 1) / 2)
        centres = np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, 2)
    reach = (np.abs(centres).max() + 6 * std) * max(scale, 1.0)
    if not reach <= LARGEST:
        raise ArchitectureError(
            f"{name}: points of standard deviation {std:g} times {scale:g} reach {reach:g}; "
            f"expected at most {LARGEST:g}. Lower std or scale"
        )

    def draw(part: str, count: int) -> Split:
        generator = stream(seed, f"{name}/{part}")
        labels: NDArray[np.int64] = generator.integers(k, size=count)
        x = centres[labels] + std * generator.standard_normal((count, 2))
        return Split(x.astype(np.float32), labels)

    return MixtureData(
        name=name,
        train=draw("train", samples),
        test=draw("test", max(LEAST_TEST["mixture"], samples // TEST_SHARE)),
        shape=(2,),
        classes=tuple(f"mode {i}" for i in range(k)),
        x_scaling=Scaling(factor=scale),
        y_scaling=Scaling(),
        target_names=(),
        attribution="",
        source=f"{k} Gaussians of standard deviation {std:g}, seed {seed}",
        centres=centres,
        std=std,
    )


def _check_positive(**numbers: float) -> None:
    for name, value in numbers.items():
        if not 0 < value < math.inf:
            raise ArchitectureError(f"{name} must be positive and finite, got {value}")


# -- stacked digits --------------------------------------------------------------------------------
class StackedRows(Rows):
    """Images put together as they are read: row i has ``images[members[i]]`` as its channels.

    ``images`` have one channel, ``members`` the shape (n, channels).
    """

    def __init__(self, images: Rows, members: NDArray[np.integer[Any]]) -> None:
        self.images, self.members = images, members
        self.shape = (len(members), *images.shape[1:3], members.shape[1])
        self.dtype = images.dtype

    def _read(self, index: NDArray[np.intp], out: NDArray[Any]) -> None:
        for channel, members in enumerate(self.members[index].T):
            out[..., channel] = self.images.take(members)[..., 0]


@dataclass(frozen=True, eq=False, kw_only=True)
class StackedData(Dataset):
    """Stacked digits; their labels 0..999 are the three digits, the first channel's first.

    ``digits`` are the single ones, on which the classifier is trained that reads them.
    """

    digits: Dataset


def stacked(digits: Dataset, samples: int = 128_000, *, seed: int = 0) -> StackedData:
    """Stack digits drawn at random, with replacement: training ones to train, others to test.

    ``digits`` are images of one channel in ten classes, such as ``load("mnist", folder)``;
    ``samples`` stacks (height, width, 3) are to train, 128,000 in the publications, a tenth as many
    to test, at least 26,000. They take the memory of `digits` and three integers each.

    >>> data = stacked(load("digits"), 500)
    >>> data.train.x.shape, data.outputs, data.classes[907]
    ((500, 8, 8, 3), 1000, '907')
    """
    _check_positive(samples=samples)

    def stack(split: Split, count: int, part: str) -> Split:
        generator = stream(seed, f"stacked/{part}")
        members = generator.integers(len(split), size=(count, CHANNELS), dtype=np.int32)
        labels = split.y[members] @ np.array([100, 10, 1])
        return Split(StackedRows(as_rows(split.x), members), labels)

    return StackedData(
        name="stacked",
        train=stack(digits.train, samples, "train"),
        test=stack(digits.test, max(LEAST_TEST["stacked"], samples // TEST_SHARE), "test"),
        shape=(*digits.shape[:2], CHANNELS),
        classes=tuple("".join(names) for names in product(digits.classes, repeat=CHANNELS)),
        x_scaling=digits.to_unit,
        y_scaling=Scaling(),
        target_names=(),
        attribution=digits.attribution,
        source=f"{digits.source}, stacked with seed {seed}",
        digits=replace(digits, x_scaling=digits.to_unit, pixel_scaling=None),
    )


# -- by name ---------------------------------------------------------------------------------------
def load_adversarial(
    name: str, data_dir: str | os.PathLike[str] | None = None, *, seed: int = 0, **options: Any
) -> Dataset:
    """Load a data set for adversarial training, images in [0, 1] as a logistic output makes them.

    ``name`` is one of `DATA`, whose options are in `OPTIONS` (the folder of "stacked" is that of
    MNIST), or one that `nembp.datasets.load` knows, which gets them. None counts as left out.

    >>> load_adversarial("grid", modes=9, samples=100).outputs
    9
    """
    options["data_dir"] = data_dir
    given = {key: value for key, value in options.items() if value is not None}
    for key in given:
        if key not in OPTIONS[name] if name in DATA else key in OF_MIXTURES:
            raise ArchitectureError(f"{key} does not go with the data set {name!r}; leave it out")
    if name not in DATA:
        data = load(name, **given, seed=0)
        return replace(data, x_scaling=data.to_unit, pixel_scaling=None) if data.is_image else data
    if name in ("ring", "grid"):
        return mixture(name, **given, seed=seed)
    digits = load("mnist" if name == "stacked" else "digits", given.pop("data_dir", None))
    return stacked(digits, **given, seed=seed)
