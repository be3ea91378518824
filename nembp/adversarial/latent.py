"""What a generator's samples are made of: z ~ N(0, I), or z of fair coins.

A binary z ∈ {0, 1}ᵇ is a code: the generator turns each of 2ᵇ of them into a sample, and need not
tear a connected z apart to reach modes that lie apart. Its backward direction names the bits, by a
Bernoulli likelihood each. Climbing log p(z | G(z)) then raises a lower bound on the mutual
information of code and sample (Barber and Agakov, NIPS 2003),

    I(z; G(z)) ≥ H(z) + E log p(z | G(z)),    H(z) = b log 2 nats,

which a generator that has collapsed cannot have, since its samples say nothing of their z.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.adversarial.settings import LatentLaw
from nembp.backend import Array, Backend, stream

__all__ = ["draw_latent", "fill_latent"]


def fill_latent(backend: Backend, generator: Any, law: LatentLaw, out: Array) -> Array:
    """Fill ``out`` with draws of z: normal ones, or 0 and 1 with probability ½ each."""
    if law == "gaussian":
        return backend.normal(generator, out)
    backend.uniform(generator, out)
    return backend.into(out, backend.xp.floor_divide, out, 0.5)


def draw_latent(n: int, width: int, seed: int, law: LatentLaw = "gaussian") -> NDArray[np.float64]:
    """Draw z on the host, shape (n, width), from the stream ``"samples"`` of a seed.

    The first rows are the same whatever n is.

    >>> draw_latent(2, 4, seed=0, law="binary")
    array([[1., 0., 1., 0.],
           [0., 0., 0., 0.]])
    """
    generator = stream(seed, "samples")
    if law == "gaussian":
        return generator.standard_normal((n, width))
    return np.floor_divide(generator.random((n, width)), 0.5)
