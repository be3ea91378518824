"""The public strategies under the names that the tests use."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st

from nembp.engine.likelihoods import Likelihood
from nembp.engine.noise import Noise
from nembp.testing.strategies import cases, likelihoods, noise_for, seeds
from nembp.verification.cases import Case, random_targets

any_likelihood = likelihoods()


def noises(kind: str | None = None, **fixed: object) -> st.SearchStrategy[Noise]:
    return noise_for(kind=kind, **fixed)


def targets(
    likelihood: Likelihood, generator: np.random.Generator, rows: int, width: int, hard: bool
) -> np.ndarray:
    return random_targets(likelihood, generator, rows, width, hard=hard)


__all__ = ["Case", "any_likelihood", "cases", "noises", "seeds", "targets"]
