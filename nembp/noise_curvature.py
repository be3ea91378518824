"""Noise matched to a likelihood's curvature: large where the output is undecided.

The curvature −∂² log p/∂z∂zᵀ of an output is, but for the precision or weight in front,

    multinomial  C = diag(a) − a aᵀ,    Bernoulli  C = diag(a ∘ (1 − a)),    Gaussian  C = I,

which is also the covariance of a target drawn from the output itself. Noise n = S ξ with ξ normal
and S Sᵀ = C, S = diag(√a) − a √aᵀ for the multinomial, is spread like the model's own doubt: none
on classes that are ruled out, none on samples that are certain. For a softmax it sums to zero, so
that exact and published update are one. It is screened like any other, so the NEM condition
gain(n) ≥ 0 holds; under the multinomial's half-space its mean leans along C log a, the gradient of
the output's negative entropy by z.
"""

from __future__ import annotations

from nembp.backend import Array
from nembp.errors import ArchitectureError
from nembp.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, Readout

__all__ = ["spread_by_curvature"]


def spread_by_curvature(
    likelihood: Likelihood, o: Readout, n: Array, scratch: Array, column: Array
) -> None:
    """Turn n into S n, whose covariance is C where that of n was the identity.

    Parameters
    ----------
    likelihood, o : Likelihood, Readout
        Of the target, with its activation a.
    n : array, shape (rows, width)
        Changed in place.
    scratch, column : array, shapes (rows, width) and (rows, 1)
        Work space.

    Raises
    ------
    ArchitectureError
        If the likelihood is none of the three whose curvature is known here.

    >>> import numpy as np
    >>> o = Multinomial().at(np.log([[0.5, 0.5, 1e-30]]))
    >>> n = np.array([[1.0, 3.0, 7.0]])
    >>> spread_by_curvature(Multinomial(), o, n, np.empty((1, 3)), np.empty((1, 1)))
    >>> n.round(4).tolist()
    [[-0.7071, 0.7071, 0.0]]
    """
    b, xp = o.backend, o.backend.xp
    if isinstance(likelihood, Gaussian):
        return
    if isinstance(likelihood, Bernoulli):
        b.into(scratch, xp.subtract, 1.0, o.a)
        b.into(scratch, xp.multiply, scratch, o.a)
        b.into(scratch, xp.sqrt, scratch)
        b.into(n, xp.multiply, n, scratch)
    elif isinstance(likelihood, Multinomial):
        b.into(scratch, xp.sqrt, o.a)
        b.into(n, xp.multiply, n, scratch)
        b.row_sum(n, column)
        b.into(scratch, xp.multiply, o.a, column)
        b.into(n, xp.subtract, n, scratch)
    else:
        raise ArchitectureError(
            f"noise law curvature knows multinomial, bernoulli and gaussian targets, not "
            f"{likelihood!r}; use law gaussian or uniform"
        )
