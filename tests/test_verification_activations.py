"""check_activation: nembp's own pass, others that are right pass, planted mistakes are told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from strategies import seeds

from nembp.engine.activations import ACTIVATIONS, Activation, Logistic, ReLU, Tanh
from nembp.errors import VerificationError
from nembp.testing import activations
from nembp.verification import check_activation


@pytest.mark.parametrize("name", sorted(ACTIVATIONS))
@settings(max_examples=max(5, settings.default.max_examples // 3))
@given(seed=seeds)
def test_own_activations_pass(name, seed):
    assert check_activation(name, seed=seed).passed


@given(activation=activations())
def test_no_false_alarm(activation):
    assert check_activation(activation, raises=False).passed


@dataclass(frozen=True)
class Formula(Activation):
    """An activation from two formulas: f of z, f' of a."""

    name = "formula"
    f: object = np.tanh
    slope: object = lambda a: 1 - a * a

    def activate(self, backend, z, scratch):
        z[...] = self.f(z)

    def multiply_derivative(self, backend, error, a, scratch):
        error *= self.slope(a)


@dataclass(frozen=True)
class Kinked(Formula):
    analytic = False


RIGHT = {
    "softplus": Formula(lambda z: np.log1p(np.exp(z)), lambda a: -np.expm1(-a)),
    "exponential": Formula(np.exp, lambda a: a),
    "arcsinh": Formula(np.arcsinh, lambda a: 1 / np.cosh(a)),
    "cube": Formula(lambda z: z**3 + z, lambda a: 1 + 3 * _root(a) ** 2),
    "elu": Kinked(
        lambda z: np.where(z > 0, z, np.expm1(z.real)), lambda a: np.where(a > 0, 1, a + 1)
    ),
    "hard tanh": Kinked(lambda z: np.clip(z.real, -1, 1), lambda a: np.where(abs(a) < 1, 1.0, 0.0)),
    "steps of one": Kinked(lambda z: abs(z.real), np.ones_like),
}


def _root(a):
    """Solve z³ + z = a by Newton's method (a complex step is carried along)."""
    z = np.cbrt(a.real).astype(a.dtype)
    for _ in range(60):
        z = z - (z**3 + z - a) / (3 * z * z + 1)
    return z


@pytest.mark.parametrize("name", ["softplus", "exponential", "arcsinh", "cube", "elu", "hard tanh"])
def test_others_that_are_right_pass(name):
    assert check_activation(RIGHT[name]).passed


def test_a_slope_that_depends_on_more_than_a_is_wrong():
    """|z| has slopes ±1 at the same a: no function of a can be its derivative."""
    with pytest.raises(VerificationError, match=r"slope of activate.*the sign|at z = -"):
        check_activation(RIGHT["steps of one"])


class UsesScratch(Tanh):
    def activate(self, backend, z, scratch):
        z[...] = np.tanh(z) + 0 * scratch


class ChangesA(Tanh):
    def multiply_derivative(self, backend, error, a, scratch):
        a *= a
        error -= error * a


class Softmax(Tanh):
    def activate(self, backend, z, scratch):
        z[...] = np.tanh(z - z.mean(axis=1, keepdims=True))


class MixesRows(Tanh):
    def activate(self, backend, z, scratch):
        z[...] = np.tanh(z - z.mean(axis=0) * (len(z) > 1))


class ClipsError(Tanh):
    def multiply_derivative(self, backend, error, a, scratch):
        np.clip(error, -1.9, 1.9, out=error)
        error *= 1 - a * a


class Adds(Tanh):
    def multiply_derivative(self, backend, error, a, scratch):
        error[...] = 1 - a * a + 0 * error


class Unstable(Logistic):
    def activate(self, backend, z, scratch):
        e = np.exp(z)
        z[...] = e / (1 + e)


class Half(Tanh):
    def activate(self, backend, z, scratch):
        z[...] = np.tanh(z if z.dtype != np.float32 else z.astype(np.float16))


class ClaimsToBeAnalytic(ReLU):
    analytic = True


WRONG = {
    "sign": (Formula(np.tanh, lambda a: a * a - 1), "slope of activate.*the sign is wrong"),
    "factor": (Formula(np.tanh, lambda a: 2 * (1 - a * a)), "slope of activate.*a factor 2"),
    "square forgotten": (Formula(np.tanh, lambda a: 1 - a), "slope of activate.*at z = "),
    "written in z": (Formula(np.tanh, lambda a: 1 / np.cosh(a) ** 2), "slope of activate"),
    "zero": (Formula(np.tanh, np.zeros_like), "slope of activate.*zero where it should not be"),
    "0.1 %": (Formula(np.tanh, lambda a: 1.001 * (1 - a * a)), "slope of activate"),
    "beyond a kink": (
        Kinked(lambda z: np.maximum(z, 0), lambda a: np.where(a >= 0, 1.0, 0.0)),
        "slope of activate.*at z = -",
    ),
    "uses scratch": (UsesScratch(), r"finite at .*f\(.*\) is nan"),
    "changes a": (ChangesA(), "a is left alone"),
    "mixes": (Softmax(), "neurons and rows do not mix|slope of activate"),
    "mixes rows": (MixesRows(), "neurons and rows do not mix"),
    "clips": (ClipsError(), "the error is multiplied"),
    "does not multiply": (Adds(), "slope of activate|the error is multiplied"),
    "overflows": (Unstable(), r"no NaN beyond; f\(100\) is nan in float32"),
    "half precision": (Half(), "float32 agrees with float64"),
    "claims too much": (ClaimsToBeAnalytic(), "complex steps do not apply"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_planted_mistake_is_told(name):
    activation, message = WRONG[name]
    with pytest.raises(VerificationError, match=message):
        check_activation(activation)


def test_at_the_kink_the_value_must_lie_between_the_slopes():
    outside = Kinked(lambda z: np.maximum(z, 0), lambda a: np.where(a > 0, 1.0, -0.5 * (a == 0)))
    with pytest.raises(VerificationError, match="at z = "):
        check_activation(outside)
    report = check_activation("relu")
    assert report["multiply_derivative is the slope of activate"].note == "kinks at the point: 1"
