"""Random matrices for the tests of adversarial scores."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

quick = settings(deadline=None, max_examples=40)
seeds = st.integers(0, 10_000)


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def rotation(d: int, seed: int) -> np.ndarray:
    return np.linalg.qr(generator(seed).standard_normal((d, d)))[0]
