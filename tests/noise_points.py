"""Points, a sample at a direction's end, that the tests of drawn noise share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from nembp.engine.likelihoods import Likelihood, get_likelihood
from nembp.plotting.noise import Point


def point(name: str, z: Any, t: Any, weight: float = 1.0) -> Point:
    """A sample whose output has these pre-activations."""
    likelihood: Likelihood = get_likelihood(name, weight)
    o = likelihood.at(np.array([z], np.float64))
    return Point(likelihood, o.z[0], o.a[0], np.asarray(t, np.float64))


def random_point(name: str, width: int, seed: int = 0, spread: float = 1.0) -> Point:
    """A one-hot, binary or normal target under a random output."""
    g = np.random.default_rng(seed)
    targets = {
        "multinomial": lambda: np.eye(width)[g.integers(width)],
        "bernoulli": lambda: g.integers(0, 2, width).astype(float),
        "gaussian": lambda: g.standard_normal(width),
    }
    return point(name, spread * g.standard_normal(width), targets[name](), g.uniform(0.2, 3.0))


@st.composite
def points(draw: Any, names: tuple[str, ...] = ("multinomial", "bernoulli", "gaussian")) -> Point:
    """Random points of 2 to 40 neurons."""
    name, width = draw(st.sampled_from(names)), draw(st.integers(2, 40))
    spread = draw(st.sampled_from((0.01, 1.0, 20.0)))
    return random_point(name, width, draw(st.integers(0, 2**32)), spread)
