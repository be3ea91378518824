"""Rings and grids of Gaussians, on which mode collapse can be seen and counted.

The parameters are those of the published comparisons: the ring of 8 and the grid of 25 of
Srivastava et al. 2017 (VEEGAN), as Lin et al. 2018 (PacGAN), section 4.1, state them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.modes import Modes
from nembp.backend import stream
from nembp.datasets import Dataset, Scaling, Split
from nembp.datasets.scaling import LARGEST
from nembp.errors import ArchitectureError

__all__ = ["MixtureData", "grid", "mixture", "ring"]

TEST_SHARE = 10  # one test sample for so many to train on
LEAST_TEST = 2500  # as many as published scores are made of


@dataclass(frozen=True, eq=False, kw_only=True)
class MixtureData(Dataset):
    """Samples of a mixture of Gaussians; the labels are their modes.

    Parameters
    ----------
    modes : Modes
        In raw units, those of `train` and `test`; the network sees raw · `x_scaling.factor`.
    """

    modes: Modes


def ring(
    n: int = 100_000,
    modes: int = 8,
    radius: float = 1.0,
    std: float = 0.01,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> MixtureData:
    """Gaussians on a circle, at radius · (cos 2πi/K, sin 2πi/K).

    Parameters
    ----------
    n : int
        Training samples; a tenth as many to test, at least 2500.
    modes : int
        K.
    radius, std : float
        1 and 0.01 in PacGAN; Metz et al. 2017 (unrolled GAN) have 2 and 0.02, the same but for
        `scale`.
    scale : float
        Of the network's units: it sees raw · scale.
    seed : int
        Of the streams that draw the samples.

    Raises
    ------
    ArchitectureError
        If a number is not positive.

    >>> data = ring(1000)
    >>> data.modes.centres.shape, data.train.x.shape, len(data.test), data.classes[:2]
    ((8, 2), (1000, 2), 2500, ('mode 0', 'mode 1'))
    """
    _check("modes", modes)
    _check("radius", radius)
    angle = 2 * math.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return mixture("ring", Modes(centres, std), n, scale=scale, seed=seed)


def grid(
    n: int = 100_000,
    side: int = 5,
    spacing: float = 2.0,
    std: float = 0.05,
    *,
    scale: float = 1.0,
    seed: int = 0,
) -> MixtureData:
    """Gaussians on a square grid about the origin; by default at −4, −2, 0, 2 and 4.

    Parameters
    ----------
    side : int
        Modes along a side; side² in all.
    spacing : float
        Between neighbours.
    n, std, scale, seed
        As in `ring`.

    Raises
    ------
    ArchitectureError
        If a number is not positive.

    >>> grid(100).modes.centres[[0, 1, -1]].tolist()
    [[-4.0, -4.0], [-4.0, -2.0], [4.0, 4.0]]
    """
    _check("side", side)
    _check("spacing", spacing)
    places = spacing * (np.arange(side) - (side - 1) / 2)
    centres = np.stack(np.meshgrid(places, places, indexing="ij"), axis=-1).reshape(-1, 2)
    return mixture("grid", Modes(centres, std), n, scale=scale, seed=seed)


def mixture(name: str, modes: Modes, n: int, *, scale: float = 1.0, seed: int = 0) -> MixtureData:
    """Draw a data set from a mixture of Gaussians of equal weight, in any number of dimensions.

    Parameters
    ----------
    name : str
        Of the data set, and of its streams: ``name/train`` and ``name/test``.
    modes : Modes
        Centres and standard deviation.
    n, scale, seed
        As in `ring`.

    Raises
    ------
    ArchitectureError
        If a number is not positive, or points would leave what float32 holds.
    """
    _check("samples", n)
    _check("scale", scale)
    k, features = modes.centres.shape
    reach = (np.abs(modes.centres).max() + 6 * modes.std) * max(scale, 1.0)
    if not reach <= LARGEST:
        raise ArchitectureError(
            f"{name}: points of standard deviation {modes.std:g} times {scale:g} reach {reach:g}; "
            f"expected at most {LARGEST:g}. Lower std or scale"
        )
    return MixtureData(
        name=name,
        train=_draw(modes, n, stream(seed, f"{name}/train")),
        test=_draw(modes, max(LEAST_TEST, n // TEST_SHARE), stream(seed, f"{name}/test")),
        shape=(features,),
        classes=tuple(f"mode {i}" for i in range(k)),
        x_scaling=Scaling(factor=scale),
        y_scaling=Scaling(),
        target_names=(),
        attribution="",
        source=f"{k} Gaussians of standard deviation {modes.std:g}, seed {seed}",
        modes=modes,
    )


def _draw(modes: Modes, n: int, generator: np.random.Generator) -> Split:
    labels: NDArray[np.int64] = generator.integers(len(modes), size=n)
    x = modes.centres[labels] + modes.std * generator.standard_normal((n, modes.centres.shape[1]))
    return Split(x.astype(np.float32), labels)


def _check(name: str, value: float) -> None:
    if not 0 < value < math.inf:
        raise ArchitectureError(f"{name} must be positive and finite, got {value}")
