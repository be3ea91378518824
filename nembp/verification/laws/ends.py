"""Laws of a direction's end: link, log-likelihood, error and gain of every likelihood."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.verification.cases import Case, random_targets
from nembp.verification.laws import textbook
from nembp.verification.laws.deviations import Deviations, Vector, gradient_of, near

__all__ = [
    "End",
    "class_sums",
    "classical_update",
    "definitions",
    "ends_of",
    "error_is_slope",
    "gains",
    "noisy_softmax_errors",
]


CPU = get_backend("cpu")


@dataclass(frozen=True)
class End:
    """The engine's likelihood on a device, from and to float64 arrays on the host."""

    likelihood: Likelihood
    backend: Backend = CPU
    dtype: str = "float64"

    def readout(self, z: Vector) -> Any:
        """Return the engine's readout at ``z``."""
        return self.likelihood.at(self._device(z), self.backend)

    def activation(self, z: Vector) -> Vector:
        """Return a = link(z)."""
        return self._host(self.readout(z).a)

    def error(self, z: Vector, t: Vector, **options: Any) -> Vector:
        """Return the error −∂log p/∂z, written over NaN."""
        out = self._device(np.full_like(z, np.nan))
        if isinstance(options.get("counts"), np.ndarray):
            options["counts"] = self._device(options["counts"])
        self.likelihood.error(self.readout(z), self._device(t), out, **options)
        return self._host(out)

    def log_likelihood(self, z: Vector, t: Vector, *sums: Vector) -> Vector:
        """Return log p(t) of each row, shape (rows, 1)."""
        sums = tuple(self._device(value) for value in sums)
        return self._host(self.likelihood.log_likelihood(self.readout(z), self._device(t), *sums))

    def gain_terms(self, z: Vector, t: Vector, n: Vector) -> Vector:
        """Return the gain of each neuron's noise, written over NaN."""
        out = self._device(np.full_like(z, np.nan))
        self.likelihood.gain_terms(self.readout(z), self._device(t), self._device(n), out)
        return self._host(out)

    def gain_slope(self, z: Vector, t: Vector) -> Vector:
        """Return ∂gain/∂n at n = 0, written over NaN."""
        out = self._device(np.full_like(z, np.nan))
        self.likelihood.gain_slope(self.readout(z), self._device(t), out)
        return self._host(out)

    def size(self, z: Vector, t: Vector) -> float:
        """Return the size of what an error subtracts, on which rounding acts."""
        a = float(np.max(np.abs(self.activation(z)), initial=0.0))
        mass = 1.0
        if isinstance(self.likelihood, Multinomial):
            mass += float(np.max(np.abs(t.sum(axis=1)), initial=0.0))
        return abs(self.likelihood.scale) * (mass * a + float(np.max(np.abs(t), initial=0.0)))

    def _device(self, value: Vector) -> Any:
        return self.backend.asarray(value, self.dtype)

    def _host(self, array: Any) -> Vector:
        return self.backend.to_numpy(array).astype(float)


def ends_of(case: Case, backend: Backend) -> Iterator[tuple[End, Vector, Vector, Vector]]:
    """Yield each end of a case with pre-activations, targets and noise for it."""
    sides = ("forward", case.forward, case.sizes[-1]), ("backward", case.backward, case.sizes[0])
    for name, likelihood, width in sides:
        g = case.generator(name)
        shape = (case.rows, width)
        z = g.normal(0.0, float(g.choice([0.1, 1.0, 3.0])), shape)
        t = random_targets(likelihood, g, *shape, hard=case.hard)
        n = g.normal(0.0, float(g.choice([0.05, 0.5])), shape)
        end = End(likelihood, backend, case.dtype)
        yield end, case.rounded(z), case.rounded(t), case.rounded(n)


def definitions(end: End, z: Vector, t: Vector) -> Deviations:
    """The link and log p(t) are their formulas.

    Softmax, identity or logistic; Σ t log a, −‖t−a‖²/2v − (d/2) log 2πv, or
    Σ t log a + (1−t) log(1−a).
    """
    likelihood = end.likelihood
    yield near(end.activation(z), textbook.link(likelihood, z), "link", scale=1.0)
    if isinstance(likelihood, Multinomial):
        total = end.activation(z).sum(axis=1)
        yield near(total, np.ones(len(z)), "sum of the softmax")
        normal = np.exp(end.backend.to_numpy(end.readout(z).z).astype(float))
        yield near(normal, end.activation(z), "z in normal form is log a:", scale=1.0)
    expected = textbook.log_likelihood(likelihood, z, t)[:, None]
    scale = likelihood.scale * (1.0 + float(np.max(np.abs(z)))) * max(1.0, float(np.max(np.abs(t))))
    yield near(end.log_likelihood(z, t), expected, "log p", scale=scale * z.shape[1])


def error_is_slope(end: End, z: Vector, t: Vector) -> Deviations:
    """error = −∂log p/∂z for any real target, proper or with noise on it; factor multiplies it."""
    likelihood = end.likelihood

    def nll(at: Vector) -> Any:
        return -np.sum(likelihood.log_likelihood(likelihood.at(at), t.astype(at.dtype)))

    error, scale = end.error(z, t), end.size(z, t)
    generator = np.random.default_rng(0)
    yield from gradient_of(
        nll, z, error, "error", generator=generator, method="complex", scale=scale
    )
    yield near(end.error(z, t, factor=0.25), 0.25 * error, "error with a factor", scale=scale)


def classical_update(end: End, z: Vector, t: Vector) -> Deviations:
    """For proper targets the error is scale · (a − t): the classical update."""
    likelihood = end.likelihood
    weight = getattr(likelihood, "weight", None) or 1.0 / likelihood.variance  # type: ignore[attr-defined]
    yield near(likelihood.scale, weight, "scale")
    error, scale = end.error(z, t), end.size(z, t)
    expected = weight * (textbook.link(likelihood, z) - t)
    yield near(error, expected, "error", scale=scale)
    # of its own activation: nothing but a difference and a product
    explicit = weight * (end.activation(z) - t)
    yield near(error, explicit, "error of its own a", scale=scale)


def noisy_softmax_errors(end: End, z: Vector, t: Vector, n: Vector) -> Deviations:
    """Each of the three updates is what its name says, on targets that do not sum to one.

    a Σ(t+n) − (t+n) exact, a − (t+n) published; with zero-sum noise the two agree.
    """
    likelihood = end.likelihood
    assert isinstance(likelihood, Multinomial)
    noisy, a, w = t + n, textbook.link(likelihood, z), likelihood.weight
    mass = noisy.sum(axis=1, keepdims=True)
    scale = w * float(np.max(np.abs(noisy)) + np.max(np.abs(mass)) + 1.0)
    yield near(end.error(z, noisy), w * (a * mass - noisy), "exact error", scale=scale)
    published = end.error(z, noisy, counts=1.0)
    yield near(published, w * (a - noisy), "published error", scale=scale)
    balanced = t + n - n.mean(axis=1, keepdims=True)
    both = end.error(z, balanced), end.error(z, balanced, counts=1.0)
    yield near(*both, "zero-sum noise: exact and published error", scale=scale)


def class_sums(end: End, z: Vector, t: Vector, members: list[int]) -> Deviations:
    """With ``mass`` and ``square``, a row is the sum over targets that share one activation.

    Target i belongs to row ``members[i]`` of ``z``; a row may have none.
    """
    likelihood, rows = end.likelihood, len(z)
    belongs = np.eye(rows)[members].reshape(len(members), rows).T
    sums, mass = belongs @ t, belongs.sum(axis=1, keepdims=True)
    square = belongs @ np.sum(t * t, axis=1, keepdims=True)
    each = end.log_likelihood(z[members], t)
    summed = end.log_likelihood(z, sums, mass, square)
    scale = float(np.max(np.abs(each), initial=0.0)) * len(members) + 1.0
    if isinstance(likelihood, Gaussian):  # mass ‖a‖² − 2⟨a, t⟩ + square cancels
        scale += float(np.sum(square) + np.sum(mass * z * z)) / likelihood.variance
    yield near(summed, belongs @ each, "sum of log-likelihoods", scale=scale)
    errors = belongs @ end.error(z[members], t)
    # a multinomial's mass is its target's own sum, which zero-sum noise leaves alone
    together = end.error(z, sums, counts=mass)
    scale = (end.size(z, t) + likelihood.scale) * max(1, len(members))
    yield near(together, errors, "sum of errors", scale=scale)


def gains(end: End, z: Vector, t: Vector, n: Vector) -> Deviations:
    """Σ gain terms = log p(t+n) − log p(t), term by term; the slope is ∂gain/∂n at n = 0."""
    likelihood = end.likelihood
    terms = end.gain_terms(z, t, n)
    before = textbook.log_likelihood(likelihood, z, t)
    gain = textbook.log_likelihood(likelihood, z, t + n) - before
    size = 1.0 + float(np.max(np.abs(z)) + np.max(np.abs(t)) + np.max(np.abs(n)))
    scale = 10.0 * (float(np.max(np.abs(before))) + likelihood.scale * size * z.shape[1])
    yield near(terms.sum(axis=1), gain, "gain", scale=scale)
    each = textbook.gain_terms(likelihood, z, t, n)
    yield near(terms, each, "gain of each neuron", scale=scale)
    # a gain is at most quadratic in the noise, so this difference is exact
    ones = np.ones_like(z)
    up, down = (textbook.gain_terms(likelihood, z, t, h) for h in (ones, -ones))
    yield near(end.gain_slope(z, t), (up - down) / 2.0, "slope of the gain", scale=scale)
