"""Comparing two arrays in a test."""

from __future__ import annotations

from typing import Any

from nembp.verification.reports import near


def assert_near(
    actual: Any, expected: Any, tolerance: float, what: str, scale: float = 0.0
) -> None:
    """Assert that the relative error is within ``tolerance`` (a NaN never is)."""
    found = near(actual, expected, what, scale)
    assert found.error <= tolerance, f"{found}; tolerance {tolerance:.0e}"
