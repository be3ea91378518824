"""check_likelihood: right likelihoods pass, nembp's and others, and planted mistakes are told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from examples_extensions import Poisson
from hypothesis import given
from hypothesis import strategies as st
from strategies import any_likelihood, seeds

from nembp.engine.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.errors import ArchitectureError, VerificationError
from nembp.verification import check_likelihood


@pytest.mark.parametrize("name", sorted(LIKELIHOODS))
def test_own_likelihoods_pass(name):
    report = check_likelihood(name)
    assert report.passed
    support = {"multinomial": "labels", "gaussian": "reals", "bernoulli": "bits"}[name]
    assert report[f"p adds up to 1 over {support}"].error < 1e-9


@given(likelihood=any_likelihood, width=st.integers(1, 7), rows=st.integers(1, 7), seed=seeds)
def test_no_false_alarm(likelihood, width, rows, seed):
    report = check_likelihood(likelihood, width, rows=rows, seed=seed, raises=False)
    assert report.passed, str(report)


def test_a_user_written_likelihood_passes():
    report = check_likelihood(Poisson(), support="counts")
    assert report.passed
    assert check_likelihood(Poisson())["p adds up to 1 over counts"].passed  # found by itself


@dataclass(frozen=True)
class Exponential(Likelihood):
    """Waiting times of rate e⁻ᶻ: log p(t) = −z − t e⁻ᶻ, whose error is no multiple of a − t."""

    name = "exponential"
    task = "regression"

    @property
    def scale(self) -> float:
        return 1.0

    def random_targets(self, generator, rows, width) -> Any:
        return generator.exponential(1.0, (rows, width))

    def activate(self, o):
        o.a[...] = np.exp(o.z)

    def log_likelihood(self, o, t, counts=None, squares=None):
        z = o.z if counts is None else counts * o.z
        o.column[...] = np.sum(-z - t / o.a, axis=1, keepdims=True)
        return o.column

    def gain_terms(self, o, t, n, out):
        out[...] = -n / o.a

    def gain_slope(self, o, t, out):
        out[...] = -1 / o.a


class ExponentialWithItsError(Exponential):
    def error(self, o, t, out, *, counts=None, factor=1.0):
        out[...] = factor * ((1.0 if counts is None else counts) - t / o.a)


def test_a_likelihood_without_backprop_invariance_is_told():
    with pytest.raises(VerificationError, match="error = −∂log p/∂z"):
        check_likelihood(Exponential())
    with pytest.raises(VerificationError, match="error = scale · "):
        check_likelihood(ExponentialWithItsError())
    report = check_likelihood(ExponentialWithItsError(), canonical=False, support="positive")
    assert report.passed


# -- planted mistakes --------------------------------------------------------------------------
class ErrorSign(Gaussian):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out *= -1


class VarianceForgotten(Gaussian):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out *= self.variance


class MeanOverRows(Bernoulli):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out /= len(out)


class OneEntry(Multinomial):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        out[-1, -1] *= 1.001


class Published(Multinomial):
    """a − t whatever Σt is: right for proper targets, wrong with noise on them."""

    def error(self, o, t, out, *, counts=None, factor=1.0):
        super().error(o, t, out, counts=1.0, factor=factor)


class ScaleWrong(Gaussian):
    @property
    def scale(self):
        return 1.0 / self.variance**0.5

    def error(self, o, t, out, *, counts=None, factor=1.0):
        a = o.a if counts is None else counts * o.a
        out[...] = factor * (a - t) / self.variance


class FactorForgotten(Gaussian):
    def error(self, o, t, out, *, counts=None, factor=1.0):
        super().error(o, t, out, counts=counts)


class MassForgotten(Gaussian):
    def error(self, o, t, out, *, counts=None, factor=1.0):
        super().error(o, t, out, factor=factor)


class MassForgottenInLogP(Bernoulli):
    def log_likelihood(self, o, t, counts=None, squares=None):
        return super().log_likelihood(o, t)


class GainSign(Bernoulli):
    def gain_terms(self, o, t, n, out):
        super().gain_terms(o, t, n, out)
        out *= -1


class GainOfCleanSquare(Gaussian):
    """Forgets the −n² of the ball."""

    def gain_terms(self, o, t, n, out):
        out[...] = n * (o.a - t) / self.variance


class GainSlopeOfAnother(Gaussian):
    def gain_slope(self, o, t, out):
        out[...] = o.z * self.scale


class NormalizerForgotten(Gaussian):
    def log_normalizer(self, width):
        return 0.0


class TemperedTwice(Multinomial):
    @property
    def tempering(self):
        return 1.0


class LinkOfUnnormalized(Multinomial):
    def activate(self, o):
        o.a[...] = np.exp(o.z) / np.sum(np.exp(o.z), axis=1, keepdims=True)
        o.z[...] = o.a


class ChangesTarget(Gaussian):
    def log_likelihood(self, o, t, counts=None, squares=None):
        result = super().log_likelihood(o, t, counts, squares).copy()
        t -= o.a
        return result


class ChangesActivation(Gaussian):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        o.a -= t


class MixesRows(Gaussian):
    def log_likelihood(self, o, t, counts=None, squares=None):
        column = super().log_likelihood(o, t, counts, squares)
        column[...] = np.mean(column)
        return column


class ReadsBeforeWriting(Gaussian):
    def gain_terms(self, o, t, n, out):
        super().gain_terms(o, t, n, out)
        out += 0 * o.scratch


class Half(Gaussian):
    def error(self, o, t, out, **options):
        super().error(o, t, out, **options)
        if out.dtype == np.float32:
            out[...] = out.astype(np.float16)


WRONG = {
    ErrorSign: ("error = −∂log p/∂z, proper", "the sign is wrong"),
    VarianceForgotten: ("error = −∂log p/∂z, proper", r"a factor( 2|: .* times|.*\d)"),
    MeanOverRows: ("error = −∂log p/∂z, proper", "batch size: 6 times too small"),
    OneEntry: (r"error = −∂log p/∂z, proper.*error\[5, 4\]", "this coordinate alone"),
    Published: ("error = −∂log p/∂z, noisy targets", ""),
    ScaleWrong: ("error = scale · ", ""),
    FactorForgotten: ("factor multiplies the error", ""),
    MassForgotten: ("sums of targets give sums of errors", ""),
    MassForgottenInLogP: ("sums of targets give sums of log p", "class_sums"),
    GainSign: ("gain terms add up", "the sign is wrong"),
    GainOfCleanSquare: ("gain terms add up", ""),
    GainSlopeOfAnother: ("gain_slope = ", ""),
    NormalizerForgotten: ("p adds up to 1 over reals", ""),
    TemperedTwice: ("p adds up to 1 over labels", ""),
    LinkOfUnnormalized: ("normal form", ""),
    ChangesTarget: ("arguments are left alone", "argument t"),
    ChangesActivation: ("arguments are left alone", "argument o.a"),
    MixesRows: ("rows do not mix", ""),
    ReadsBeforeWriting: ("every result is written", r"gain_terms\[0, 0\]"),
    Half: ("float32 agrees with float64", ""),
}
ARGUMENTS: dict[type, dict[str, float]] = {
    VarianceForgotten: {"variance": 0.25},
    ScaleWrong: {"variance": 0.25},
    TemperedTwice: {"weight": 0.5},
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_a_planted_mistake_is_told(kind):
    law, cause = WRONG[kind]
    likelihood = kind(**ARGUMENTS.get(kind, {}))
    support = next(s for k, s in SUPPORTS.items() if issubclass(kind, k))
    with pytest.raises(VerificationError, match=f"{kind.__name__}: .*{law}.*{cause}"):
        check_likelihood(likelihood, support=support)


SUPPORTS = {Multinomial: "labels", Gaussian: "reals", Bernoulli: "bits"}


def test_supports():
    with pytest.raises(ArchitectureError, match="support must be one of labels, bits, counts"):
        check_likelihood("gaussian", support="integers")  # type: ignore[arg-type]
    with pytest.raises(VerificationError, match="p adds up to 1 over positive"):
        check_likelihood(Poisson(), support="positive")
    report = check_likelihood(NormalizerForgotten())  # of no known kind: nothing to hold it to
    assert "name one as support" in report["p adds up to 1"].note


def test_targets_may_be_given():
    def bits(generator, rows, width):
        return generator.integers(0, 2, (rows, width))

    assert check_likelihood(Bernoulli(), targets=bits).passed
    with pytest.raises(VerificationError, match="targets have shape"):
        check_likelihood(Bernoulli(), targets=lambda g, rows, width: np.zeros((rows, 1)))
