"""check_gradient at kinks, out of domains, and on what is no function at all."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.errors import VerificationError
from nembp.verification import check_gradient

METHODS = ("auto", "central")


def rectifier(slope_at_zero):
    def f(theta):
        slope = np.where(theta > 0, 1.0, np.where(theta < 0, 0.0, slope_at_zero))
        return np.maximum(theta, 0).sum() + (theta**2).sum(), slope + 2 * theta

    return f


@pytest.mark.parametrize("slope", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_at_a_kink_any_value_between_the_slopes_passes(slope, method):
    report = check_gradient(rectifier(slope), np.array([-1.0, 0.0, 2.0]), method=method)
    assert report.kinks == 1


@pytest.mark.parametrize("slope", [-0.5, 1.2])
@pytest.mark.parametrize("method", METHODS)
def test_at_a_kink_other_values_do_not(slope, method):
    report = check_gradient(
        rectifier(slope), np.array([-1.0, 0.0, 2.0]), method=method, raises=False
    )
    assert report.worst.index == 1
    assert report.worst.sides == pytest.approx((0.0, 1.0), abs=1e-6)
    assert "kink (of a ReLU" in str(report.cause)


@pytest.mark.parametrize("distance", [1e-1, 1e-3, 1e-5, 1e-7])
def test_away_from_a_kink_a_mistake_is_no_kink(distance):
    def f(theta):
        return np.maximum(theta, 0).sum() + 2.0, np.where(theta > 0, 1.001, 0.0)

    report = check_gradient(f, np.array([distance, 1.0, -2.0]), scale=1.0, raises=False)
    assert not report.passed
    assert "kink" not in str(report.cause)


def test_where_opposite_kinks_meet_the_gradient_need_not_lie_between():
    """θ₁ − θ₁ made of two rectifiers that count as 0 at 0: slopes 1 and 1, gradient 0."""

    def f(theta):
        z = theta[0] + theta[1]
        value = 3 * max(z, 0.0) - max(-z, 0.0) + theta[2] ** 2
        slope = 3.0 * (z > 0) + 1.0 * (z < 0)
        return value, np.array([slope, slope, 2 * theta[2]])

    report = check_gradient(f, np.array([1.0, -1.0, 0.5]))
    assert report.kinks == 2


def test_a_wrong_value_at_a_kink_of_its_own_is_wrong():
    def f(theta):
        slope = np.where(theta > 0, 3.0, np.where(theta < 0, 1.0, 0.0))
        return np.where(theta > 0, 3 * theta, theta).sum(), slope

    report = check_gradient(f, np.array([1.0, 0.0, -2.0]), raises=False)
    assert report.worst.index == 1
    assert sorted(report.worst.sides) == pytest.approx([1.0, 3.0])


# -- what is not a function ----------------------------------------------------------------------
def test_values_that_change_from_call_to_call():
    rng = np.random.default_rng(0)
    with pytest.raises(VerificationError, match="the value changes from call to call"):
        check_gradient(lambda t: (t @ t + rng.normal(), 2 * t), np.ones(3))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite(value):
    with pytest.raises(VerificationError, match=r"the value is (nan|inf)"):
        check_gradient(lambda t: (value, 2 * t), np.ones(3))


def test_a_gradient_that_is_not_finite_is_named():
    def f(theta):
        return theta @ theta, np.where(np.arange(5) == 3, np.nan, 2 * theta)

    with pytest.raises(VerificationError, match=r"θ\[3\] is nan.*the gradient is not finite there"):
        check_gradient(f, np.ones(5))


def test_a_function_defined_at_one_point_alone_does_not_pass():
    def f(theta):
        return (1.0 if np.all(theta == 1.0) else np.nan), 2 * theta

    report = check_gradient(f, np.ones(3), raises=False)
    assert not report.passed
    assert "not finite at any step" in str(report.cause)


def test_exceptions_out_of_the_domain_are_no_errors_but_those_at_the_point_are():
    def f(theta):
        if theta[0] < 0:
            raise ValueError("negative")
        return float(np.sqrt(theta[0])), np.array([0.5 / np.sqrt(theta[0])])

    assert check_gradient(f, np.array([1e-3]), scale=1.0).passed
    with pytest.raises(ValueError, match="negative"):
        check_gradient(f, np.array([-1.0]))


def test_an_overwritten_buffer_is_noted_though_the_gradient_is_right():
    buffer = np.empty(4)

    def f(theta):
        np.multiply(theta, 2, out=buffer)
        return theta @ theta, buffer

    report = check_gradient(f, np.arange(4.0))
    assert any("buffer that the next call overwrites" in note for note in report.notes)


def test_a_function_that_writes_into_its_point_is_noted():
    def f(theta):
        value, gradient = theta @ theta, 2 * theta
        theta *= 0
        return value, gradient

    report = check_gradient(f, np.arange(4.0))
    assert any("writes into the point" in note for note in report.notes)


def test_a_check_that_could_not_find_anything_says_so():
    report = check_gradient(lambda t: (1e14 + np.sin(t).sum(), np.cos(t)), np.ones(3))
    assert any("inconclusive" in note for note in report.notes)
    assert report.covered == 0.0
