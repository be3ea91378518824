"""Checkers of gradients and laws, for nembp's own engine and for what its users add to it.

>>> import numpy as np
>>> def f(theta):
...     return np.sum(theta**3), 3 * theta**2
>>> check_gradient(f, np.linspace(-1, 1, 5)).passed
True

Every check returns a report whose text is a table, and raises
:class:`~nembp.errors.VerificationError` with the worst place and both values (``raises=False`` only
reports). ``LAWS[name].check(generate(seed, index))`` repeats what ``nembp verify`` found.
"""

from __future__ import annotations

from nembp.errors import VerificationError
from nembp.verification.cases import Case, generate
from nembp.verification.checks import (
    check_activation,
    check_backprop_invariance,
    check_extension,
    check_likelihood,
    check_linear_map,
    check_network,
    check_optimizer,
)
from nembp.verification.gradients import Coordinate, GradientReport, check_gradient
from nembp.verification.laws import LAWS, LawReport, LawResult

__all__ = [
    "LAWS",
    "Case",
    "Coordinate",
    "GradientReport",
    "LawReport",
    "LawResult",
    "VerificationError",
    "check_activation",
    "check_backprop_invariance",
    "check_extension",
    "check_gradient",
    "check_likelihood",
    "check_linear_map",
    "check_network",
    "check_optimizer",
    "generate",
]
