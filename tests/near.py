"""Comparing two arrays in a test."""

from __future__ import annotations

from typing import Any

from nembp.verification.laws.deviations import check, near


def assert_near(
    actual: Any, expected: Any, tolerance: float, what: str, scale: float = 0.0
) -> None:
    """Assert that the relative error is within ``tolerance`` (a NaN never is)."""
    check([near(actual, expected, what, scale)], tolerance)
