"""Backprop invariance: maximum likelihood gives back classical backpropagation, both ways."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.engine.backprop import backpropagate
from nembp.engine.likelihoods import Multinomial
from nembp.engine.network import Network
from nembp.errors import DataError
from nembp.verification.directions import batch_of, both_directions, host, parameter_blocks
from nembp.verification.gradients import check_gradient
from nembp.verification.law_reports import LawReport, LawResult, agree, of_gradient
from nembp.verification.laws import textbook
from nembp.verification.layout import Vector
from nembp.verification.objectives import quiet

__all__ = ["check_backprop_invariance"]

SOURCE = "Adigun and Kosko 2019, theorems 1 and 2"
ROUNDING = 1e-11
FREE = 1e-6  # relative error allowed where a user's own activation is differentiated numerically


def check_backprop_invariance(
    net: Network, x: Any, y: Any, *, seed: int = 0, raises: bool = True
) -> LawReport:
    """Check that in each direction maximum likelihood is classical backpropagation.

    In float64, for the forward direction x → y and the backward direction y → x:

    - −∂log p/∂z at the output is a − t (over v for a Gaussian, times the weight of a tempered
      likelihood): by formula, and by slopes of log p;
    - the gradient of the whole network is that of classical backpropagation with the output error
      a − t, written out in :mod:`nembp.verification.laws.textbook` without the engine.

    Parameters
    ----------
    net : Network
        Of any likelihoods, linear maps and activations.
    x, y : array, shapes (rows, net.inputs) and (rows, net.outputs)
        Proper targets of the two directions: of a multinomial, rows that sum to one.
    seed, raises
        As in :func:`check_gradient`.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst coordinate, both values and a guess at the cause.
    DataError
        If a target is not proper.

    >>> import numpy as np
    >>> from nembp.engine.network import dense_network
    >>> check_backprop_invariance(dense_network([3, 4, 2]), np.eye(3), np.eye(2)[[0, 1, 0]]).passed
    True
    """
    exact = net.to(dtype="float64")
    x, y = batch_of(exact, x, y)
    x, y = _proper(exact.reversed, x), _proper(exact, y)
    laws: list[LawResult] = []
    with quiet():
        for direction, source, target in both_directions(exact, x, y):
            laws += _laws_of(direction, source, target, seed)
    report = LawReport(f"backprop invariance of {net!r}", tuple(laws))
    if raises:
        report.raise_for_failure()
    return report


def _laws_of(net: Network, x: Vector, t: Vector, seed: int) -> list[LawResult]:
    way, likelihood, backend = net.direction, net.likelihood, net.backend
    flat = host(net, net.parameters)
    _, z = textbook.signals(net, flat, x)
    a = textbook.link(likelihood, z)
    size = max(1.0, float(np.max(np.abs(z))))
    predicted = agree(
        f"{way}: signals",
        SOURCE,
        host(net, net.predict(x, "batch")),
        a,
        name="a",
        tolerance=ROUNDING,
        scale=size,
    )

    def error(at: Vector) -> Vector:
        o = likelihood.at(backend.asarray(at, "float64"), backend)
        out = backend.empty(at.shape, "float64")
        likelihood.error(o, backend.asarray(t, "float64"), out)
        return host(net, out)

    def nll(at: Vector) -> Any:
        dtype = str(at.dtype)
        o = likelihood.at(backend.asarray(at, dtype), backend)
        return -np.sum(host(net, likelihood.log_likelihood(o, backend.asarray(t, dtype))))

    scale = textbook.precision(likelihood)
    size = scale * float(np.max(np.abs(a)) + np.max(np.abs(t)))
    formula = agree(
        f"{way}: output error = scale · (a − t)",
        SOURCE,
        error(z),
        scale * (a - t),
        name="error",
        tolerance=ROUNDING,
        scale=size,
    )
    slopes = check_gradient(
        nll,
        z,
        gradient=error,
        scale=1.0,
        blocks={"error": z.shape},
        rows=len(x),
        seed=seed,
        raises=False,
    )
    slope_law = of_gradient(f"{way}: output error = −∂log p/∂z", SOURCE, slopes)
    gradient = _classical_gradient(net, x, t, scale * (a - t) / len(x), flat, size / len(x))
    return [predicted, formula, slope_law, gradient]


def _classical_gradient(
    net: Network, x: Vector, t: Vector, output_error: Vector, flat: Vector, scale: float
) -> LawResult:
    """Compare the engine's gradient with the textbook's, from the classical error a − t."""
    own = [layer.activation for layer in net.layers if layer.activation is not None]
    known = all(type(f).__module__ == "nembp.engine.activations" for f in own)
    return agree(
        f"{net.direction}: gradient = classical backpropagation",
        SOURCE,
        host(net, backpropagate(net, x, t)[0]),
        textbook.pull_back(net, x, output_error, flat),
        name="gradient",
        tolerance=ROUNDING if known else FREE,
        scale=scale,
        blocks=parameter_blocks(net),
        rows=len(x),
    )


def _proper(net: Network, t: Vector) -> Vector:
    """Return the targets of a direction; of a multinomial one, their sums rounded to one."""
    if not isinstance(net.likelihood, Multinomial):
        return t
    sums = t.sum(axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.abs(sums - 1.0) <= 1e-5))
    if bad.size:
        raise DataError(
            f"the {net.direction} direction is multinomial, so each target must sum to 1, but row "
            f"{bad[0]} sums to {sums[bad[0], 0]:.6g}; noisy targets are for check_likelihood"
        )
    return np.asarray(t / sums)
