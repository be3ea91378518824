"""The gradient of any callable, checked against differences and complex steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from nembp.errors import ArchitectureError
from nembp.verification.layout import Layout, scale_of
from nembp.verification.objectives import Objective
from nembp.verification.procedure import Options, run
from nembp.verification.reports import GradientReport

__all__ = ["Method", "check_gradient"]

Method = Literal["auto", "central", "complex"]


def check_gradient(
    function: Callable[..., Any],
    point: Any,
    *,
    gradient: Callable[..., Any] | None = None,
    method: Method = "auto",
    rtol: float | None = None,
    atol: float = 0.0,
    scale: Any = None,
    blocks: Mapping[str, tuple[int, ...]] | None = None,
    rows: int | None = None,
    max_evaluations: int = 10_000,
    elsewhere: bool = True,
    seed: int = 0,
    name: str | None = None,
    raises: bool = True,
) -> GradientReport:
    """Check a gradient against numeric derivatives, each with its own error estimates.

    Slopes come from complex steps where the function is analytic (it takes complex points and
    agrees there with differences), else from central differences (f(θ+h) − f(θ−h)) / 2h whose
    step, chosen for each coordinate, makes truncation and rounding error small together. Up to
    ``max_evaluations`` values, every coordinate is measured; beyond, random directions over groups
    clear or convict all members at once, and halving finds the one that is wrong.

    Parameters
    ----------
    function : callable
        θ ↦ (value, gradient); or θ ↦ value, if ``gradient`` is given.
    point : array, or dict, list or tuple of arrays
        Where to check. The function gets it, and gives its gradient, in this structure. In
        float32, differences are taken in float64 if the function takes such points.
    gradient : callable, optional
        θ ↦ gradient.
    method : {"auto", "central", "complex"}
        How slopes are measured.
    rtol, atol : float
        Allowed |analytic − numeric| ≤ rtol · max(|analytic|, |numeric|) + atol beyond the
        estimated errors. By default rtol is 1e-9 for complex steps, 1e-7 for differences, and
        3e-5 for a float32 gradient.
    scale : float or like ``point``, optional
        The change over which each coordinate matters; by default its magnitude, or, of a small
        one, a tenth of the median magnitude.
    blocks : dict of tuple of int, optional
        Names and shapes of consecutive pieces of a flat ``point``: they name coordinates, and let
        a transposed or swapped piece be told.
    rows : int, optional
        Batch size, which a wrong factor is compared with.
    max_evaluations : int
        Values to ask for, about.
    elsewhere : bool
        Whether the gradient is also looked at a percent away, which finds one that was computed
        once and kept. Turn it off where only this point has this gradient.
    seed, name
        Of the random directions; of the function in the report.
    raises : bool
        Whether a wrong gradient raises, or is only reported.

    Returns
    -------
    GradientReport
        Its text is a table.

    Raises
    ------
    VerificationError
        If the gradient is wrong: with the worst coordinate, both values, and a guess at the cause.
    ShapeError
        If the function does not return one number and a gradient.

    >>> import numpy as np
    >>> def square(theta):
    ...     return theta @ theta, 2 * theta
    >>> check_gradient(square, np.arange(3.0)).passed
    True
    >>> report = check_gradient(lambda theta: (theta @ theta, -theta), np.arange(3.0), raises=False)
    >>> report.failures[0].label, report.failures[0].numeric
    ('θ[2]', 4.0)
    """
    if method not in ("auto", "central", "complex"):
        raise ArchitectureError(f"method must be auto, central or complex, got {method!r}")
    layout = Layout(point, blocks)
    layout.check_finite()
    called = name or str(getattr(function, "__name__", type(function).__name__))
    options = Options(called, method, rtol, atol, rows, max_evaluations, elsewhere, seed)
    report = run(Objective(function, gradient, layout), scale_of(layout, scale), options)
    if raises:
        report.raise_for_failure()
    return report
