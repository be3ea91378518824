"""The public strategies under the names that the tests use."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Likelihood
from nembp.engine.linear import AveragePooling, Dense, Reshape, Transposed
from nembp.engine.noise import Noise
from nembp.testing.strategies import (
    KINDS,
    cases,
    likelihoods,
    maps,
    noise_for,
    seeds,
    weights,
)
from nembp.verification.cases import PAIRS, Case, one_hot, random_targets

# One strategy for each kind of linear map; test_laws_structure demands that none is missing.
SYNAPSES = {kind: maps(kind) for kind in (Dense, Convolution, AveragePooling, Reshape, Transposed)}
any_likelihood = likelihoods()


def noises(kind: str | None = None, **fixed: object) -> st.SearchStrategy[Noise]:
    return noise_for(kind=kind, **fixed)


def targets(
    likelihood: Likelihood, generator: np.random.Generator, rows: int, width: int, hard: bool
) -> np.ndarray:
    return random_targets(likelihood, generator, rows, width, hard=hard)


__all__ = [
    "KINDS",
    "PAIRS",
    "SYNAPSES",
    "Case",
    "any_likelihood",
    "cases",
    "likelihoods",
    "noises",
    "one_hot",
    "seeds",
    "targets",
    "weights",
]
