"""Numeric slopes: as exact as they say, and honest about their two errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nembp.verification.differences import (
    complex_slope,
    noise_of,
    quick_slope,
    quick_step,
    sweep,
)

EPS = 2.0**-52
# name: (function, slope at 0, relative error that a sweep must reach)
SMOOTH = {
    "exp": (lambda t: math.exp(t + 0.3), math.exp(0.3), 1e-12),
    "sine": (lambda t: math.sin(t + 0.3), math.cos(0.3), 1e-12),
    "fast": (lambda t: math.sin(100 * t + 0.3), 100 * math.cos(0.3), 1e-10),
    "period 1/64": (
        lambda t: math.sin(128 * math.pi * (t + 0.3)),
        128 * math.pi * math.cos(128 * math.pi * 0.3),
        1e-10,
    ),
    "slow": (lambda t: math.exp(1e-3 * t), 1e-3, 1e-10),
    "quadratic": (lambda t: (t + 3) ** 2, 6.0, 1e-12),
    "constant": (lambda t: 3.0, 0.0, 0.0),
    "line": (lambda t: 3 * t, 3.0, 1e-14),
    "edge of a domain": (lambda t: math.log(t + 0.01) if t > -0.01 else math.nan, 100.0, 1e-10),
    "kink at 1e-3": (lambda t: max(t - 1e-3, 0.0) + t * t + t, 1.0, 1e-10),
    "kink at 1e-8": (lambda t: max(t - 1e-8, 0.0) + t * t + t, 1.0, 1e-6),
}


@pytest.mark.parametrize("name", SMOOTH)
def test_a_sweep_is_exact_and_its_errors_include_what_is_missing(name):
    f, exact, reach = SMOOTH[name]
    noise = noise_of(f, f(0.0), EPS)
    slope = sweep(f, f(0.0), noise)
    assert abs(slope.value - exact) <= reach * max(abs(exact), 1e-300)
    assert abs(slope.value - exact) <= 4.0 * (slope.truncation + slope.rounding)
    assert not slope.kink


@pytest.mark.parametrize("name", [name for name in SMOOTH if "kink" not in name])
def test_a_quick_slope_includes_what_is_missing(name):
    f, exact, _ = SMOOTH[name]
    noise = noise_of(f, f(0.0), EPS)
    slope = quick_slope(f, noise, quick_step(f, noise))
    assert abs(slope.value - exact) <= 4.0 * (slope.truncation + slope.rounding)
    assert abs(slope.value - exact) <= 1e-6 * max(abs(exact), 1e-300)


def test_truncation_and_rounding_are_told_apart():
    def wave(t):
        return math.sin(20 * t + 0.3)

    noise = noise_of(wave, wave(0.0), EPS)
    long, short = (quick_slope(wave, noise, h) for h in (1e-2, 1e-9))
    exact = 20 * math.cos(0.3)
    assert long.truncation > 1e3 * long.rounding
    assert 0.3 < long.truncation / abs(long.value - exact) < 3.0
    assert short.rounding > 1e3 * abs(exact) * EPS
    assert abs(short.value - exact) < 4.0 * (short.rounding + short.truncation)


@pytest.mark.parametrize(
    ("f", "left", "right"),
    [
        (lambda t: max(t, 0.0) + t * t + 0.3, 0.0, 1.0),
        (lambda t: abs(t) + math.sin(t) + 0.3, 0.0, 2.0),
        (lambda t: max(t - 1e-13, 0.0) + t, 1.0, 2.0),  # nearer than any step
        (lambda t: min(t, 0.0) * 1e-3 + math.exp(t), 1.001, 1.0),
    ],
)
def test_a_kink_is_told_by_one_sided_slopes(f, left, right):
    slope = sweep(f, f(0.0), noise_of(f, f(0.0), EPS))
    assert slope.kink
    assert slope.left == pytest.approx(left, abs=1e-6)
    assert slope.right == pytest.approx(right, abs=1e-6)


@given(
    st.floats(-3, 3),
    st.floats(0.1, 10),
    st.sampled_from([np.sin, np.exp, np.tanh, np.arctan]),
)
def test_complex_steps_are_exact_to_rounding(at, rate, f):
    slope = complex_slope(lambda t: complex(f(at + rate * t)))
    reference = sweep(lambda t: float(f(at + rate * t)), float(f(at)), EPS * abs(f(at)))
    assert abs(slope.value - reference.value) <= 10.0 * reference.error + 1e-14 * abs(slope.value)
    assert slope.truncation == 0.0


NOISY = {
    "float64": (math.exp, 0.5 * EPS, 4 * EPS),
    "float32 result": (lambda t: float(np.exp(np.float32(t + 0.3))), 5e-9, 3e-7),
    "float32 argument": (lambda t: math.exp(float(np.float32(t + 0.3))), 5e-9, 3e-7),
    "coarse grid": (lambda t: math.exp(round(t * 2**30) / 2**30), 1e-11, 1e-8),
    "cancellation": (lambda t: (1e8 + math.exp(t)) - 1e8, 2e-9, 1e-7),
    "kink within reach": (lambda t: math.exp(t) + max(t - 1e-7, 0.0), 0.5 * EPS, 1e-11),
}


@pytest.mark.parametrize("name", NOISY)
def test_the_noise_of_values_is_measured(name):
    f, low, high = NOISY[name]
    assert low <= noise_of(f, f(0.0), EPS) <= high


def test_a_float32_grid_that_the_rows_hit_is_still_seen():
    """Rows of points an exact multiple of the grid apart look smooth: they stand still before."""
    for at in np.linspace(0.5, 1.0, 23):

        def f(t, at=float(at)):
            return math.sin(float(np.float32(at * (1.0 + t))))

        assert noise_of(f, f(0.0), EPS) > 1e-9


def test_undefined_steps_are_passed_over():
    slope = sweep(lambda t: math.nan if t else 1.0, 1.0, EPS)
    assert math.isnan(slope.value)
    assert slope.error == math.inf
