"""Ends with random pre-activations and targets."""

from __future__ import annotations

import pytest

from nembp.engine.likelihoods import LIKELIHOODS

each_likelihood = pytest.mark.parametrize("name", sorted(LIKELIHOODS))
SIGMAS = 6.0  # a two-sided 6-sigma test of one number is wrong once in 5e8
