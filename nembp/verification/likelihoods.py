"""Whether a likelihood's error and gain are those of its log-likelihood."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend, stream
from nembp.engine.likelihoods import Likelihood, get_likelihood
from nembp.verification.cases import random_targets
from nembp.verification.gradients import check_gradient
from nembp.verification.hosts import LikelihoodHost
from nembp.verification.law_reports import LawReport, LawResult, agree, holds, of_gradient
from nembp.verification.layout import Vector
from nembp.verification.normalization import Support, normalized
from nembp.verification.objectives import quiet

__all__ = ["Targets", "check_likelihood"]

Targets = Callable[[np.random.Generator, int, int], Any]

SLOPE = "error = −∂log p/∂z"
INVARIANCE = "backprop invariance (Adigun and Kosko 2019, section 3)"
GAIN = "gain = log p(t+n) − log p(t), the NEM condition's integrand"
SUMS = "sums of targets that share one activation (class-sum path)"
CONTRACT = "contract of Likelihood"
SINGLE = 1e-4  # relative error allowed in float32
LOOSE = 1e-10  # between sums of many terms


def check_likelihood(
    likelihood: str | Likelihood,
    width: int = 5,
    *,
    rows: int = 6,
    targets: Targets | None = None,
    support: Support | None = None,
    sums: bool | None = None,
    canonical: bool = True,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check a likelihood's error, gain and sums against its own log-likelihood.

    error = −∂log p/∂z, on proper targets and on noisy ones; = scale · (a − t) on proper ones
    (backprop invariance); Σ gain terms = log p(t+n) − log p(t) and its slope at n = 0; sums of
    targets give sums of log-likelihoods and errors; p adds up to 1; ``link`` leaves a readout in a
    normal form; rows do not mix, and arguments are left alone.

    Parameters
    ----------
    likelihood : str or Likelihood
        A name, or your own.
    width, rows : int
        Neurons and samples of the random pre-activations.
    targets : callable, optional
        (generator, rows, width) ↦ proper targets; by default those that the likelihood's own
        ``random_targets`` draws, or else those of its kind.
    support : {"labels", "bits", "counts", "reals", "positive"}, optional
        Over which targets p must add up to 1. By default the one that fits is looked for, and a
        likelihood that fits none is not held to it.
    sums : bool, optional
        Whether a log-likelihood must follow from sums of targets, as training on classes needs;
        by default what its ``class_sums`` says.
    canonical : bool
        Whether error = scale · (a − t) must hold, which is backprop invariance. It does where the
        link is that of an exponential family's natural parameter.
    device, seed, raises
        As in :func:`check_linear_map`.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst coordinate, both values and a guess at the cause.

    >>> check_likelihood("gaussian").passed
    True
    """
    likelihood = get_likelihood(likelihood)
    draw = targets or (lambda g, n, d: random_targets(likelihood, g, n, d, hard=False))
    host = LikelihoodHost(get_backend(device), likelihood)
    check = _LikelihoodCheck(host, draw, (rows, width), seed)
    with quiet():
        laws = check.laws(likelihood.class_sums if sums is None else sums, canonical)
        if laws[-1].passed:
            laws.append(normalized(likelihood, host.log_likelihood, support))
    report = LawReport(f"likelihood {type(likelihood).__name__}", tuple(laws))
    if raises:
        report.raise_for_failure()
    return report


class _LikelihoodCheck:
    def __init__(
        self, host: LikelihoodHost, targets: Targets, shape: tuple[int, int], seed: int
    ) -> None:
        self.likelihood, self.host, self.shape = host.likelihood, host, shape
        g = self.generator = stream(seed, "verification/likelihood")
        self.z = g.normal(0.0, 1.5, shape)
        self.t = np.asarray(targets(g, *shape), dtype=float)
        self.n = g.normal(0.0, 0.3, shape)
        self.more = np.asarray(targets(g, *shape), dtype=float)  # a second sample of each row

    def laws(self, sums: bool, canonical: bool) -> list[LawResult]:
        """Return every law but the normalization."""
        first = [self._targets(), self._complete()]
        if not all(law.passed for law in first):
            return first
        laws = [
            *first,
            self._normal_form(),
            self._slope("proper targets", self.t),
            self._slope("noisy targets", self.t + self.n),
            self._rows(),
            *([self._classical()] if canonical else []),
            self._factor(),
            *(self._sums() if sums else []),
            self._gain(),
            self._gain_slope(),
            self._single(),
        ]
        names = ", ".join(sorted(self.host.changed))
        why = f"a call wrote into its argument {names}"
        return [*laws, holds("arguments are left alone", CONTRACT, not self.host.changed, why)]

    # -- laws ------------------------------------------------------------------------------------
    def _targets(self) -> LawResult:
        why = f"targets have shape {self.t.shape}, expected {self.shape}, all finite"
        fine = self.t.shape == self.more.shape == self.shape and bool(np.all(np.isfinite(self.t)))
        return holds("targets of the right shape", CONTRACT, fine, why)

    def _complete(self) -> LawResult:
        results = {
            "link: a": self.host.numpy(self.host.readout(self.z).a),
            "log_likelihood": self.host.log_likelihood(self.z, self.t),
            "error": self.host.error(self.z, self.t),
            "gain_terms": self.host.gain_terms(self.z, self.t, self.n),
        }
        for name, result in results.items():
            if not np.all(np.isfinite(result)):
                place = [int(k) for k in np.argwhere(~np.isfinite(result))[0]]
                why = f"{name}{place} was not written, or is not finite (buffers held NaN before)"
                return holds("every result is written", CONTRACT, False, why)
        return holds("every result is written", CONTRACT, True, "")

    def _normal_form(self) -> LawResult:
        o = self.host.readout(self.z)
        once = self.host.numpy(o.a)
        self.likelihood.activate(o)
        law = "link leaves z in a normal form: again, it gives the same a"
        return agree(law, CONTRACT, self.host.numpy(o.a), once, name="a", scale=1.0)

    def _slope(self, what: str, t: Vector) -> LawResult:
        report = check_gradient(
            lambda z: -np.sum(self.host.log_likelihood(z, t)),
            self.z,
            gradient=lambda z: self.host.error(z, t),
            scale=1.0,
            blocks={"error": self.shape},
            rows=self.shape[0],
            raises=False,
        )
        return of_gradient(f"error = −∂log p/∂z, {what}", SLOPE, report)

    def _classical(self) -> LawResult:
        a = self.host.numpy(self.host.readout(self.z).a)
        expected = self.likelihood.scale * (a - self.t)
        size = self.likelihood.scale * float(np.max(np.abs(a)) + np.max(np.abs(self.t)))
        error = self.host.error(self.z, self.t)
        law = "error = scale · (a − t), proper targets"
        return agree(law, INVARIANCE, error, expected, name="error", scale=size)

    def _factor(self) -> LawResult:
        error = self.host.error(self.z, self.t, factor=0.25)
        expected = 0.25 * self.host.error(self.z, self.t)
        return agree("factor multiplies the error", CONTRACT, error, expected, name="error")

    def _gain(self) -> LawResult:
        before = self.host.log_likelihood(self.z, self.t)
        after = self.host.log_likelihood(self.z, self.t + self.n)
        gain = np.sum(self.host.gain_terms(self.z, self.t, self.n), axis=1)
        size = float(np.max(np.abs(before)) + np.max(np.abs(after)))
        law = "gain terms add up to log p(t+n) − log p(t)"
        return agree(law, GAIN, gain, after - before, name="gain", tolerance=LOOSE, scale=size)

    def _gain_slope(self) -> LawResult:
        report = check_gradient(
            lambda n: np.sum(self.host.gain_terms(self.z, self.t, n)),
            np.zeros(self.shape),
            gradient=lambda _: self.host.gain_slope(self.z, self.t),
            scale=0.1,
            blocks={"gain_slope": self.shape},
            elsewhere=False,
            raises=False,
        )
        return of_gradient("gain_slope = ∂gain/∂n at n = 0", GAIN, report)

    def _sums(self) -> list[LawResult]:
        mass = np.full((self.shape[0], 1), 2.0)
        total = self.t + self.more
        squares = [np.sum(t * t, axis=1, keepdims=True) for t in (self.t, self.more)]
        each = [self.host.log_likelihood(self.z, t) for t in (self.t, self.more)]
        together = self.host.log_likelihood(self.z, total, mass, squares[0] + squares[1])
        size = sum(float(np.max(np.abs(e))) for e in each)
        size += self.likelihood.scale * float(np.max(np.sum(self.z**2, axis=1) + squares[0][:, 0]))
        errors = self.host.error(self.z, self.t) + self.host.error(self.z, self.more)
        first = agree(
            "sums of targets give sums of log p",
            SUMS,
            together,
            each[0] + each[1],
            name="log p",
            tolerance=LOOSE,
            scale=size,
            cause="if log p does not follow from Σt, mass and Σ‖t‖², let class_sums be False",
        )
        both = self.host.error(self.z, total, counts=mass)
        law = "sums of targets give sums of errors"
        return [first, agree(law, SUMS, both, errors, name="error", tolerance=LOOSE, scale=1e-3)]

    def _rows(self) -> LawResult:
        law, singles = "rows do not mix", [slice(k, k + 1) for k in range(self.shape[0])]
        results = []
        for name, function in (("log p", self.host.log_likelihood), ("error", self.host.error)):
            alone = [function(self.z[row], self.t[row]) for row in singles]
            whole = function(self.z, self.t)
            results.append(agree(law, CONTRACT, whole, np.concatenate(alone), name=name))
        return results[1] if results[0].passed else results[0]

    def _single(self) -> LawResult:
        z, t = self.z.astype(np.float32), self.t.astype(np.float32)
        z64, t64 = z.astype(float), t.astype(float)
        law = "float32 agrees with float64"
        log_p = self.host.log_likelihood(z64, t64)
        size = self.likelihood.scale * (1.0 + float(np.max(np.abs(z)) + np.max(np.abs(t))))
        first = agree(
            law,
            CONTRACT,
            self.host.log_likelihood(z, t),
            log_p,
            name="log p",
            tolerance=SINGLE,
            scale=size,
        )
        second = agree(
            law,
            CONTRACT,
            self.host.error(z, t),
            self.host.error(z64, t64),
            name="error",
            tolerance=SINGLE,
            scale=size,
        )
        return max(first, second, key=lambda result: result.error)
