"""Whether a likelihood's p adds up to one over the targets that it is about."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal, get_args

import numpy as np

from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.errors import ArchitectureError
from nembp.verification.law_reports import LawResult, agree
from nembp.verification.layout import Vector

__all__ = ["Support", "normalized"]

Support = Literal["labels", "bits", "counts", "reals", "positive"]

SOURCE = "p is a probability or a density"
TOLERANCE = 1e-6  # of the sum or integral
COUNTS = 400  # largest count summed
POINTS = 40_001  # of an integral
KNOWN: dict[type[Likelihood], Support] = {
    Multinomial: "labels",
    Bernoulli: "bits",
    Gaussian: "reals",
}


def normalized(
    likelihood: Likelihood,
    log_likelihood: Callable[[Vector, Vector], Vector],
    support: Support | None,
) -> LawResult:
    """Compare the total of p with 1, at three pre-activations.

    A tempered p(t)ʷ is first brought back to p(t). One neuron is summed or integrated over, or
    three where neurons share their probability.
    """
    if support is not None and support not in get_args(Support):
        options = ", ".join(get_args(Support))
        raise ArchitectureError(f"support must be one of {options}, got {support!r}")
    support = support or KNOWN.get(type(likelihood))
    candidates = (support,) if support else get_args(Support)
    results = {}
    for candidate in candidates:
        totals = [
            _total(likelihood, log_likelihood, candidate, shift) for shift in (-1.0, 0.3, 1.1)
        ]
        law = f"p adds up to 1 over {candidate}"
        results[candidate] = agree(
            law, SOURCE, totals, np.ones(3), name="total", tolerance=TOLERANCE
        )
        if results[candidate].passed:
            return results[candidate]
    if support:
        return results[support]
    note = "it does over none of labels, bits, counts, reals, positive; name one as support"
    return LawResult("p adds up to 1", SOURCE, True, note=note)


def _total(
    likelihood: Likelihood,
    log_likelihood: Callable[[Vector, Vector], Vector],
    support: Support,
    shift: float,
) -> float:
    t, measure = _targets(support, likelihood, shift)
    z = np.tile(np.linspace(shift, -shift, t.shape[1]) if t.shape[1] > 1 else [shift], (len(t), 1))
    log_p = log_likelihood(z, t) / likelihood.tempering
    with np.errstate(over="ignore"):
        return float(np.sum(np.exp(log_p) * measure))


def _targets(support: Support, likelihood: Likelihood, shift: float) -> tuple[Vector, Vector]:
    """Return every target of a support, one a row, and what each weighs in the total."""
    if support == "labels":
        return np.eye(4), np.ones(4)
    if support == "bits":
        return np.array(list(itertools.product([0.0, 1.0], repeat=3))), np.ones(8)
    if support == "counts":
        return np.arange(COUNTS + 1.0)[:, None], np.ones(COUNTS + 1)
    if support == "reals":
        width = 14.0 / np.sqrt(max(likelihood.scale, 1e-12))
        t = np.linspace(shift - width, shift + width, POINTS)
        return t[:, None], np.full(POINTS, t[1] - t[0])
    s = np.linspace(-30.0, 12.0, POINTS)  # t = eˢ, dt = eˢ ds
    return np.exp(s)[:, None], np.exp(s) * (s[1] - s[0])
