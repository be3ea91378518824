"""A likelihood and a linear map as a user would write them, checked by ``test_checks.py``."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import digamma, loggamma

from nembp.backend import Array, Backend
from nembp.engine.likelihoods import Likelihood, Readout
from nembp.engine.linear import LinearMap


@dataclass(frozen=True)
class Poisson(Likelihood):
    """Counts with a log link: a = eᶻ, log p(t) = Σ t z − eᶻ − log t!.

    error = a − t, gain of noise n = Σ n z − log (t+n)! + log t!, which is not linear in n.
    log t! follows from no sum of targets, so training takes a row a sample.
    """

    name = "poisson"
    class_sums = False

    @property
    def scale(self) -> float:
        return 1.0

    def random_targets(self, generator: np.random.Generator, rows: int, width: int) -> Any:
        return generator.poisson(2.0, (rows, width))

    def activate(self, o: Readout) -> None:
        o.backend.xp.exp(o.z, out=o.a)

    def log_likelihood(
        self, o: Readout, t: Array, counts: Array | None = None, squares: Array | None = None
    ) -> Array:
        terms = o.backend.xp.multiply(t, o.z, out=o.scratch)
        terms -= o.a
        terms -= _log_factorial(o.backend, t)
        return o.backend.row_sum(terms, o.column)

    def gain_terms(self, o: Readout, t: Array, n: Array, out: Array) -> None:
        o.backend.xp.multiply(n, o.z, out=out)
        out -= _log_factorial(o.backend, t + n)
        out += _log_factorial(o.backend, t)

    def gain_slope(self, o: Readout, t: Array, out: Array) -> None:
        slope = digamma(o.backend.to_numpy(t).real + 1.0)
        o.backend.xp.subtract(o.z, o.backend.asarray(slope, str(t.dtype)), out=out)


def _log_factorial(backend: Backend, t: Array) -> Array:
    """Return log Γ(t + 1), for real t too; the array API has none, so SciPy's on the host."""
    value = loggamma(backend.to_numpy(t).real + 1.0)
    return backend.asarray(value, str(t.dtype).rpartition(".")[2])


@dataclass(frozen=True)
class LocallyConnected(LinearMap):
    """Each upper neuron sees a window of the lower ones through its own weights.

    z_rj = Σ_b x_r,j+b W_bj: a depthwise, unshared convolution of ``window`` neurons.
    """

    outputs: int
    window: int

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return self.outputs + self.window - 1

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.window, self.outputs)

    def forward(self, backend: Backend, x: Array, W: Array, out: Array) -> None:
        out[...] = 0.0
        for b in range(self.window):
            out += x[:, b : b + self.outputs] * W[b, :]

    def adjoint(self, backend: Backend, y: Array, W: Array, out: Array) -> None:
        out[...] = 0.0
        for b in range(self.window):
            out[:, b : b + self.outputs] += y * W[b, :]

    def weight_gradient(self, backend: Backend, x: Array, y: Array, out: Array) -> None:
        for b in range(self.window):
            out[b, :] = backend.xp.sum(x[:, b : b + self.outputs] * y, axis=0)

    def initial_weights(self, generator: np.random.Generator) -> np.ndarray:
        return generator.normal(0.0, 1.0 / math.sqrt(self.window), self.weight_shape)
