"""Laws of one direction: backprop invariance at its end, and the whole network's gradient."""

from __future__ import annotations

import numpy as np

from laws import textbook
from laws.numerics import ROUNDING, assert_gradient, assert_near, nll_of_input, nll_of_parameters
from nembp.backend import get_backend
from nembp.backpropagation import backpropagate
from nembp.likelihoods import Likelihood, Multinomial
from nembp.network import Network
from nembp.neurons import Activation


def check_activation(activation: Activation, z: np.ndarray) -> None:
    """f is its definition, and multiply_derivative multiplies by f', told from a alone."""
    backend = get_backend("cpu")

    def f(at: np.ndarray) -> np.ndarray:
        a = at.copy()
        activation.activate(backend, a, np.full_like(at, np.nan))
        return a

    slope = getattr(activation, "slope", 0.1)
    expected = np.where(z > 0, z, slope * z) if activation.name == "leaky-relu" else None
    if expected is None:
        expected = textbook.ACTIVATIONS[activation.name](z)
    assert_near(f(z), expected, ROUNDING, "activation", scale=1.0)
    error = np.full_like(z, 3.0)
    activation.multiply_derivative(backend, error, f(z), np.full_like(z, np.nan))
    h = 1e-5
    central = 3.0 * (f(z + h) - f(z - h)) / (2.0 * h)
    assert_near(error, central, 1e-9, "derivative, central differences", scale=1.0)
    if activation.analytic:
        exact = 3.0 * np.imag(f(z + 1e-30j)) / 1e-30
        assert_near(error, exact, ROUNDING, "derivative, complex steps", scale=1.0)


def error_of(likelihood: Likelihood, z: np.ndarray, t: np.ndarray, **options: object) -> np.ndarray:
    """Return the engine's output error for one row per row of ``z``."""
    out = np.full_like(z, np.nan)
    likelihood.error(likelihood.at(z), t, out, **options)
    return out


def check_error_is_slope(likelihood: Likelihood, z: np.ndarray, t: np.ndarray) -> None:
    """error = −∂log p/∂z for any real target, proper or with noise on it."""

    def nll(at: np.ndarray) -> object:
        return -np.sum(likelihood.log_likelihood(likelihood.at(at), t.astype(at.dtype)))

    generator = np.random.default_rng(0)
    error = error_of(likelihood, z, t)
    assert_gradient(error, nll, z, generator=generator, analytic=True, what="error")
    factor = error_of(likelihood, z, t, factor=0.25)
    assert_near(factor, 0.25 * error, ROUNDING, "error with a factor")


def check_classical_update(likelihood: Likelihood, z: np.ndarray, t: np.ndarray) -> None:
    """Backprop invariance: for proper targets the error is scale · (a − t)."""
    a = textbook.link(likelihood, z)
    weight = getattr(likelihood, "weight", None) or 1.0 / likelihood.variance
    error = error_of(likelihood, z, t)
    assert_near(error, weight * (a - t), ROUNDING, "error", scale=weight)
    assert likelihood.scale == weight
    explicit = weight * (likelihood.at(z).a - t)
    assert_near(error, explicit, 4e-15, "error and scale · (a − t) of its own a", scale=weight)


def check_noisy_softmax_errors(
    likelihood: Multinomial, z: np.ndarray, t: np.ndarray, n: np.ndarray
) -> None:
    """Each of the three updates is what its name says, on targets that do not sum to one."""
    noisy, a, w = t + n, textbook.link(likelihood, z), likelihood.weight
    mass = noisy.sum(axis=1, keepdims=True)
    scale = w * float(np.max(np.abs(noisy)) + np.max(np.abs(mass)) + 1.0)
    exact = error_of(likelihood, z, noisy)
    assert_near(exact, w * (a * mass - noisy), ROUNDING, "exact error", scale=scale)
    check_error_is_slope(likelihood, z, noisy)
    published = error_of(likelihood, z, noisy, mass=1.0)
    assert_near(published, w * (a - noisy), ROUNDING, "published error", scale=scale)
    balanced = n - n.mean(axis=1, keepdims=True)
    both = [error_of(likelihood, z, t + balanced, **m) for m in ({}, {"mass": 1.0})]
    assert_near(both[0], both[1], ROUNDING, "zero-sum noise: exact and published", scale=scale)


def check_log_likelihood(likelihood: Likelihood, z: np.ndarray, t: np.ndarray) -> None:
    """Link and log p(t) are those of SciPy, in nats."""
    o = likelihood.at(z)
    assert_near(o.a, textbook.link(likelihood, z), ROUNDING, "link", scale=1.0)
    if isinstance(likelihood, Multinomial):
        assert_near(o.a.sum(axis=1), np.ones(len(z)), ROUNDING, "sum of softmax")
        assert_near(np.exp(o.z), o.a, ROUNDING, "z in normal form is log a")
    expected = textbook.log_likelihood(likelihood, z, t)[:, None]
    scale = likelihood.scale * (1.0 + float(np.max(np.abs(z))))
    assert_near(likelihood.log_likelihood(o, t), expected, ROUNDING, "log p", scale=scale)


def check_gain(likelihood: Likelihood, z: np.ndarray, t: np.ndarray, n: np.ndarray) -> None:
    """Σ gain_terms = log p(t + n) − log p(t), and gain_slope is its slope at n = 0."""
    terms, slope = np.full_like(z, np.nan), np.full_like(z, np.nan)
    likelihood.gain_terms(likelihood.at(z), t, n, terms)
    before = textbook.log_likelihood(likelihood, z, t)
    gain = textbook.log_likelihood(likelihood, z, t + n) - before
    scale = float(np.max(np.abs(before))) + likelihood.scale * (1.0 + float(np.max(np.abs(z))))
    assert_near(terms.sum(axis=1), gain, 1e-11, "gain", scale=scale)
    each = textbook.gain_terms(likelihood, z, t, n)
    assert_near(terms, each, 1e-11, "gain of each neuron", scale=scale)
    likelihood.gain_slope(likelihood.at(z), t, slope)
    h = np.full_like(z, 1e-4)  # gains are at most quadratic, so central differences are exact
    plus, minus = (textbook.gain_terms(likelihood, z, t, s * h) for s in (1.0, -1.0))
    assert_near(slope, (plus - minus) / (2.0 * h), 1e-10, "slope of the gain", scale=scale)


def check_log_likelihood_sums(
    likelihood: Likelihood, z: np.ndarray, t: np.ndarray, members: list[int]
) -> None:
    """With ``mass`` and ``square``, a row is the sum over targets that share one activation.

    Target i belongs to row ``members[i]`` of ``z``; a row may have none.
    """
    rows = len(z)
    belongs = np.eye(rows)[members].reshape(len(members), rows).T
    sums, mass = belongs @ t, belongs.sum(axis=1, keepdims=True)
    square = belongs @ np.sum(t * t, axis=1, keepdims=True)
    each = textbook.log_likelihood(likelihood, z[members], t)
    summed = likelihood.log_likelihood(likelihood.at(z), sums, mass, square)
    scale = float(np.max(np.abs(each), initial=0.0)) * len(members) + 1.0
    if hasattr(likelihood, "variance"):  # mass ‖a‖² − 2⟨a, t⟩ + square cancels
        scale += float(np.sum(square) + np.sum(mass * z * z)) / likelihood.variance
    expected = belongs @ each[:, None]
    assert_near(summed, expected, ROUNDING, "sum of log-likelihoods", scale=scale)
    errors = belongs @ error_of(likelihood, z[members], t)
    together = error_of(likelihood, z, sums, mass=mass)
    scale = likelihood.scale * (float(np.max(np.abs(z)) + np.max(np.abs(t), initial=0.0)) + 1.0)
    scale *= len(members)
    assert_near(together, errors, ROUNDING, "sum of errors", scale=scale)


def check_gradient(
    net: Network, x: np.ndarray, t: np.ndarray, *, analytic: bool, seed: int = 0
) -> None:
    """``backpropagate`` gives the gradient of the mean nll, and its error at the input."""
    generator = np.random.default_rng(seed)
    gradient, input_error = backpropagate(net, x, t)
    for value, f, at, what in (
        (gradient, nll_of_parameters(net, x, t), np.array(net.parameters), "gradient"),
        (input_error, nll_of_input(net, t), x, "input error"),
    ):
        assert_gradient(
            value, f, at, generator=generator, analytic=analytic, smooth=analytic, what=what
        )


def check_against_chain_rule(net: Network, x: np.ndarray, t: np.ndarray) -> None:
    """The same gradient comes out of the chain rule written in plain NumPy."""
    _, z = textbook.signals(net, net.parameters, x, textbook.ACTIVATIONS)
    assert_near(net.readout(x).a, textbook.link(net.likelihood, z), ROUNDING, "prediction", 1.0)
    error = textbook.output_error(net.likelihood, z, t) / len(x)
    expected = textbook.pull_back(net, x, error)
    scale = float(np.max(np.abs(error)))
    assert_near(backpropagate(net, x, t)[0], expected, ROUNDING, "gradient", scale=scale)
    log_p = textbook.log_likelihood(net.likelihood, z, t)
    scale = 1.0 + float(np.max(np.abs(z))) * net.likelihood.scale
    assert_near(net.log_likelihood(x, t), log_p, ROUNDING, "log-likelihood", scale=scale)


def away_from_kinks(net: Network, x: np.ndarray, margin: float) -> bool:
    """Whether every hidden pre-activation is farther than ``margin`` from zero."""
    matrices, biases = textbook.unflatten(net, net.parameters)
    a = x
    for k in range(1, len(matrices)):
        z = a @ matrices[k - 1] + biases[k - 1]
        if np.min(np.abs(z)) <= margin:
            return False
        a = textbook.ACTIVATIONS[net.layers[k].activation.name](z)
    return True
