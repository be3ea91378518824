"""Whether an activation's derivative is the derivative of its function."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend, stream
from nembp.engine.activations import Activation, get_activation
from nembp.verification.gradients import check_gradient
from nembp.verification.hosts import Host, dtype_name
from nembp.verification.law_reports import LawReport, LawResult, agree, holds, of_gradient
from nembp.verification.layout import Vector
from nembp.verification.objectives import quiet

__all__ = ["check_activation"]

SOURCE = "contract of Activation"
SLOPE = "error ← error ∘ f'(z), f' in terms of a = f(z)"
DRAWS = 60  # random pre-activations, beside the special ones
SPECIAL = (0.0, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 4.0, -4.0, 12.0, -12.0)
EXTREME = (20.0, -20.0, 100.0, -100.0, 1e3, -1e3, 1e4, -1e4)
LARGE = 20.0  # beyond, a function may grow out of its precision, but not turn to NaN
SINGLE = 1e-4  # relative error allowed in float32


def check_activation(
    activation: str | Activation,
    *,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check that ``multiply_derivative`` multiplies by the derivative of ``activate``.

    Slopes at 71 pre-activations, 0 and others at which kinks are likely among them: there, any
    value between the two one-sided slopes passes. Both functions work in place, neuron by neuron,
    whatever their scratch holds; ``multiply_derivative`` leaves a alone; results stay finite at
    |z| ≤ 20 and never turn to NaN; ``analytic`` is true only of functions that take complex steps.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst coordinate, both values and a guess at the cause.

    >>> check_activation("tanh").passed
    True
    """
    activation = get_activation(activation)
    check = _ActivationCheck(activation, Host(get_backend(device)), seed)
    with quiet():
        report = LawReport(f"activation {type(activation).__name__}", tuple(check.laws()))
    if raises:
        report.raise_for_failure()
    return report


class _ActivationCheck:
    def __init__(self, activation: Activation, host: Host, seed: int) -> None:
        self.activation, self.host = activation, host
        g = self.generator = stream(seed, "verification/activation")
        self.z = np.concatenate([SPECIAL, g.normal(0.0, 2.0, DRAWS - 30), g.normal(0.0, 0.3, 30)])
        self.w = g.uniform(0.5, 1.5, self.z.size) * g.choice([-1.0, 1.0], self.z.size)
        self.changed = False

    def laws(self) -> list[LawResult]:
        finite = self._finite()
        if not finite.passed:
            return [finite]
        slope, analytic = self._slope()
        return [
            finite,
            slope,
            *([analytic] if analytic else []),
            self._multiplies(),
            self._elementwise(),
            self._single(),
            holds("a is left alone", SOURCE, not self.changed, "multiply_derivative wrote into a"),
        ]

    # -- the two functions on the host -------------------------------------------------------------
    def activate(self, z: Vector) -> Vector:
        """Return f(z) of an array (rows, neurons)."""
        a = self.host.array(z)
        scratch = self.host.array(np.full(z.shape, np.nan), dtype_name(z))
        self.activation.activate(self.host.backend, a, scratch)
        return self.host.numpy(a)

    def multiply(self, error: Vector, a: Vector) -> Vector:
        """Return error ∘ f'(z) where f(z) = a."""
        out, given = self.host.array(error), self.host.array(a)
        scratch = self.host.array(np.full(a.shape, np.nan), dtype_name(a))
        self.activation.multiply_derivative(self.host.backend, out, given, scratch)
        self.changed |= not np.array_equal(self.host.numpy(given), a, equal_nan=True)
        return self.host.numpy(out)

    # -- laws ------------------------------------------------------------------------------------
    def _finite(self) -> LawResult:
        law = "finite at |z| ≤ 20, and no NaN beyond"
        for dtype in ("float32", "float64"):
            z = np.array([[*SPECIAL, *EXTREME]], dtype=dtype)
            a = self.activate(z)
            slope = self.multiply(np.ones_like(a), a)
            for name, value in (("f", a), ("f'", slope)):
                unbounded = ~np.isfinite(value[0]) & (np.abs(z[0]) <= LARGE)
                bad = np.flatnonzero(unbounded | np.isnan(value[0]))
                if bad.size:
                    why = f"{name}({z[0, bad[0]]:g}) is {value[0, bad[0]]} in {dtype}"
                    return holds(law, SOURCE, False, why)
        return holds(law, SOURCE, True, "")

    def _slope(self) -> tuple[LawResult, LawResult | None]:
        def value(z: Vector) -> Any:
            return np.sum(self.w * self.activate(z[None, :])[0])

        def gradient(z: Vector) -> Vector:
            a = self.activate(z[None, :])
            return np.asarray(self.multiply(self.w[None, :], a)[0])

        report = check_gradient(
            value,
            self.z,
            gradient=gradient,
            scale=1.0,
            blocks={"f'(z)": self.z.shape},
            raises=False,
        )
        result = of_gradient("multiply_derivative is the slope of activate", SLOPE, report)
        if not result.passed and report.worst.index is not None:
            z = float(self.z[report.worst.index])
            said = f"at z = {z:.6g}" + (f"; {result.cause}" if result.cause else "")
            result = replace(result, cause=said)
        if not self.activation.analytic or self.host.backend.name != "cpu":
            return result, None
        why = "complex steps do not apply, so analytic must be False"
        analytic = report.method == "complex" or not result.passed
        return result, holds("analytic: complex steps apply", SOURCE, analytic, why)

    def _multiplies(self) -> LawResult:
        a = self.activate(self.z[None, :])
        error = np.asarray(self.generator.standard_normal(a.shape))
        slope = self.multiply(np.ones_like(a), a)
        law = "the error is multiplied"
        return agree(law, SLOPE, self.multiply(error, a), error * slope, name="error", scale=1.0)

    def _elementwise(self) -> LawResult:
        order = self.generator.permutation(self.z.size)
        row, column = self.z[None, :], self.z[order][:, None]
        expected = self.activate(row)[0][order]
        return agree(
            "neurons and rows do not mix",
            SOURCE,
            self.activate(column)[:, 0],
            expected,
            name="f(z)",
            scale=1.0,
            cause="f must act on each neuron of each row by itself",
        )

    def _single(self) -> LawResult:
        z = self.z[None, :].astype(np.float32)
        a, exact = self.activate(z), self.activate(z.astype(float))
        law = "float32 agrees with float64"
        first = agree(law, SOURCE, a, exact, name="f(z)", tolerance=SINGLE, scale=1.0)
        one = self.multiply(np.ones_like(a), a)
        two = self.multiply(np.ones_like(exact), exact)
        second = agree(law, SOURCE, one, two, name="f'(z)", tolerance=SINGLE, scale=1.0)
        return max(first, second, key=lambda result: result.error)
