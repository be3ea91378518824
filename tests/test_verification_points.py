"""check_gradient on points of any structure and precision, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from nembp.errors import ArchitectureError, ShapeError, VerificationError
from nembp.verification import check_gradient


def test_points_come_back_in_the_structure_they_were_given_in():
    W, b = np.arange(6.0).reshape(2, 3), np.ones(3)

    def dictionary(p):
        assert set(p) == {"W", "b"}
        assert p["W"].shape == (2, 3)
        return (p["W"] ** 2).sum() + (p["b"] ** 3).sum(), {"W": 2 * p["W"], "b": -3 * p["b"] ** 2}

    report = check_gradient(dictionary, {"W": W, "b": b}, raises=False)
    assert report.worst.label.startswith("b[")
    assert report.cause == "the sign is wrong: so in every coordinate measured of b"

    def pair(p):
        assert isinstance(p, tuple)
        return (p[0] ** 2).sum() + p[1].sum(), (2 * p[0], np.ones(3))

    assert check_gradient(pair, (W, b)).passed
    assert check_gradient(lambda t: ((t**2).sum(), 2 * t), W).passed
    assert check_gradient(lambda t: (t**2, 2 * t), 1.5).passed
    assert check_gradient(lambda t: (np.sum(t**2), 2 * t), [1, 2, 3]).passed
    assert check_gradient(lambda t: np.sum(t**2), W, gradient=lambda t: 2 * t).passed


def test_coordinates_are_named_by_their_blocks():
    def f(theta):
        gradient = 2 * theta
        gradient[7] = 0.0
        return theta @ theta, gradient

    point = np.arange(1.0, 11.0)
    report = check_gradient(f, point, blocks={"W": (3, 2), "b": (4,)}, raises=False)
    assert report.worst.label == "b[1]"
    with pytest.raises(ShapeError, match="the blocks have 9 entries, but the point has 10"):
        check_gradient(f, point, blocks={"W": (3, 3)})


@pytest.mark.parametrize(
    ("f", "point", "error", "message"),
    [
        (lambda t: t @ t, np.ones(3), ShapeError, r"must return \(value, gradient\)"),
        (lambda t: (t, t), np.ones(3), ShapeError, "the value must be one number"),
        (lambda t: (t @ t, t[:2]), np.ones(3), VerificationError, r"shape \(2,\), but the point"),
        (
            lambda t: (np.sum(t**2), 2 * t.T),
            np.ones((2, 3)),
            VerificationError,
            r"has shape \(3, 2\), but the point has \(2, 3\); it is transposed",
        ),
        (lambda t: (1j, t), np.ones(3), ShapeError, "must be real, got a complex number"),
        (lambda t: (t @ t, 2j * t), np.ones(3), ShapeError, "must be real numbers"),
        (lambda t: (0.0, t), np.ones(0), ShapeError, "the point is empty"),
        (lambda t: (0.0, t), [1.0, np.nan], ShapeError, r"holds nan \(coordinate 1 of 2\)"),
        (lambda t: (0.0, t), np.ones(3) * 1j, ShapeError, "the point must be real"),
        (lambda t: (0.0, {"a": 1.0}), {"b": np.ones(2)}, ShapeError, "no entry 'b'"),
        (lambda t: (0.0, np.ones(2)), {"b": np.ones(2)}, ShapeError, "structure of the point"),
    ],
)
def test_what_is_no_gradient_is_refused(f, point, error, message):
    with pytest.raises(error, match=message):
        check_gradient(f, point)


@pytest.mark.parametrize("scale", [-1.0, 0.0, np.ones(2), np.array([1.0, np.nan, 1.0])])
def test_scales_must_fit(scale):
    with pytest.raises(ArchitectureError, match="scale must be a positive number, or 3 of them"):
        check_gradient(lambda t: (t @ t, 2 * t), np.ones(3), scale=scale)


def test_a_scale_far_from_the_magnitude_can_be_told():
    def f(theta):  # changes over 1e-7 about 1
        return np.sum(np.sin((theta - 1) / 1e-7)), np.cos((theta - 1) / 1e-7) / 1e-7

    assert check_gradient(f, np.ones(3) + 3e-8, scale=1e-7, method="central").passed


# -- precision -------------------------------------------------------------------------------------
def network(dtype, wrong=None, narrow=False):
    """Return ½‖tanh(X W) v − y‖² and its gradient, computed in float32 if ``narrow``."""
    rng = np.random.default_rng(3)
    X, y = rng.normal(size=(20, 4)).astype(dtype), rng.normal(size=20).astype(dtype)
    point = rng.normal(size=18).astype(dtype)

    def f(theta):
        theta = np.asarray(theta, dtype) if narrow else theta
        W, v = theta[:12].reshape(4, 3), theta[12:15]
        a = np.tanh(X @ W)
        e = (a @ v + theta[15:].sum() - y) / dtype(20)
        delta = np.outer(e, v) * (1 - a * a)
        gradient = np.concatenate([(X.T @ delta).ravel(), a.T @ e, np.full(3, e.sum(), e.dtype)])
        if wrong is not None:
            gradient = gradient * np.where(np.arange(18) == wrong, dtype(1.05), dtype(1))
        return 10 * (e @ e), gradient

    return f, point


@pytest.mark.parametrize("narrow", [False, True])
def test_float32_functions(narrow):
    f, point = network(np.float32, narrow=narrow)
    assert point.dtype == np.float32
    report = check_gradient(f, point)
    assert report.passed
    # differences are taken in float64 where the function takes float64 points
    assert (report.noise < 1e-12) == (not narrow)
    assert report.resolution < 1e-2
    f, point = network(np.float32, wrong=12, narrow=narrow)
    found = check_gradient(f, point, raises=False)
    assert found.worst.index == 12


def test_a_float32_gradient_is_allowed_its_rounding_and_no_more():
    def single(theta):
        return np.float32(3) * theta.astype(np.float32) ** 2

    point = np.linspace(0.5, 2.0, 7)
    assert check_gradient(lambda t: np.sum(t**3), point, gradient=single).method == "complex"

    def cubes(theta):
        return np.sum(theta**3)

    def coarse(theta):  # claims float64, but has been through float32
        return (3 * theta**2).astype(np.float32).astype(float)

    report = check_gradient(cubes, point * np.pi, gradient=coarse, raises=False)
    assert not report.passed
    assert report.cause is not None
    assert "float32 rounding" in report.cause


def test_half_precision_inside_a_float32_gradient_is_told():
    f, point = network(np.float32)

    def bad(theta):
        value, gradient = f(theta)
        if theta.dtype == np.float32:
            gradient = gradient + np.float32(0.02) * np.abs(gradient)
        return value, gradient

    report = check_gradient(bad, point, raises=False)
    assert "float32 rounding: computed in float64 the gradient is right" in str(report.cause)


@pytest.mark.parametrize("budget", [10_000, 1500])
def test_float32_values_hide_small_errors_and_the_report_says_which(budget):
    rng = np.random.default_rng(0)
    c, point = rng.choice([-1.0, 1.0], 300), rng.normal(size=300)

    def scaled(factor):
        def f(theta):
            t = np.asarray(theta, np.float32).astype(float)
            return float(np.float32(np.sum(c * np.sin(t)))), factor * c * np.cos(t)

        return check_gradient(f, point, max_evaluations=budget, raises=False)

    right = scaled(1.0)
    assert right.passed
    assert 1e-5 < right.resolution < 2e-2
    if budget == 10_000:  # coordinates that two steps do not resolve are swept
        assert right.covered > 0.8
    assert not scaled(1.0 + 10 * right.resolution).passed
