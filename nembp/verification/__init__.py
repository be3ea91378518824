"""Checkers of gradients and laws, for nembp's own engine and for what its users add to it.

>>> import numpy as np
>>> def f(theta):
...     return np.sum(theta**3), 3 * theta**2
>>> check_gradient(f, np.linspace(-1, 1, 5)).passed
True

Every check returns a report whose text is a table, and raises
:class:`~nembp.errors.VerificationError` with the worst coordinate, both values, and a guess at the
cause where the pattern of the errors tells one (``raises=False`` only reports).
"""

from __future__ import annotations

from nembp.errors import VerificationError
from nembp.verification.activations import check_activation
from nembp.verification.gradients import check_gradient
from nembp.verification.invariance import check_backprop_invariance
from nembp.verification.law_reports import LawReport, LawResult
from nembp.verification.likelihoods import check_likelihood
from nembp.verification.maps import check_linear_map
from nembp.verification.networks import check_network
from nembp.verification.optimizers import check_optimizer
from nembp.verification.reports import Coordinate, GradientReport

__all__ = [
    "Coordinate",
    "GradientReport",
    "LawReport",
    "LawResult",
    "VerificationError",
    "check_activation",
    "check_backprop_invariance",
    "check_gradient",
    "check_likelihood",
    "check_linear_map",
    "check_network",
    "check_optimizer",
]
