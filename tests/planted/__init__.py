"""Bugs to plant in linear maps, likelihoods, neurons and networks, of the kinds that engines have had.

Each takes the place of one method, and gets the original as its first argument.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from nembp.engine.activations import LeakyReLU, Logistic, ReLU, Tanh
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense, Transposed
from nembp.engine.network import Network, Parameters


@dataclass(frozen=True)
class Bug:
    """What is planted where, and the law that must fail."""

    owner: Any
    method: str
    law: str
    body: Callable[..., Any]

    @property
    def of_images(self) -> bool:
        """Whether it is one of those in convolutions, maps without weights and links."""
        return self.body.__module__ == "planted.images"

    @property
    def planted(self) -> Any:
        """What to set in place of the method; AttributeError where the engine has none."""
        original = inspect.getattr_static(self.owner, self.method)
        if isinstance(original, property):
            return property(lambda this: self.body(original.fget, this))
        return lambda *args, **options: self.body(original, *args, **options)


BUGS: dict[str, Bug] = {}


def plant(owner: Any, method: str, law: str) -> Callable[..., Any]:
    """Register the decorated function as a bug of a method that breaks a law."""

    def register(body: Callable[..., Any]) -> Callable[..., Any]:
        name = f"{body.__name__}: {owner.__name__}.{method} breaks {law}"
        assert name not in BUGS, f"planted twice: {name}"
        BUGS[name] = Bug(owner, method, law, body)
        return body

    return register


# -- linear maps --------------------------------------------------------------------------------------
@plant(Dense, "forward", "synapse.trilinear")
@plant(Dense, "weight_gradient", "synapse.trilinear")
@plant(Dense, "weight_gradient", "gradient.complex-steps")
@plant(Dense, "weight_gradient", "gradient.classical")
def a_thousandth_off(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out *= 1.001


@plant(Dense, "weight_gradient", "synapse.trilinear")
@plant(Dense, "weight_gradient", "gradient.complex-steps")
@plant(Dense, "weight_gradient", "joint.noisy")
def one_entry_a_thousandth_off(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out[-1, -1] *= 1.001


@plant(Dense, "adjoint", "synapse.trilinear")
@plant(Dense, "adjoint", "gradient.complex-steps")
def kernel_not_transposed(original, self, backend, y, W, out):
    out[...] = y @ W.reshape(W.shape[::-1])


@plant(Transposed, "weight_gradient", "synapse.transposed")
def arguments_not_exchanged(original, self, backend, x, y, out):
    self.linear_map.weight_gradient(backend, x, y, out)


# -- likelihoods -----------------------------------------------------------------------------------
@plant(Likelihood, "error", "invariance.slope")
@plant(Likelihood, "error", "gradient.complex-steps")
def sign_flipped(original, self, o, t, out, **options):
    original(self, o, t, out, **options)
    out *= -1.0


@plant(Likelihood, "error", "gradient.complex-steps")
@plant(Likelihood, "error", "gradient.classical")
def rows_not_averaged(original, self, o, t, out, **options):
    original(self, o, t, out, **(options | {"factor": 1.0}))


@plant(Gaussian, "scale", "invariance.slope")
def variance_ignored(original, self):
    return 1.0


@plant(Multinomial, "error", "invariance.noisy-softmax")
def mass_of_the_target_ignored(original, self, o, t, out, **options):
    original(self, o, t, out, **({"mass": 1.0} | options))


@plant(Multinomial, "error", "invariance.noisy-softmax")
def published_is_exact(original, self, o, t, out, counts=None, factor=1.0):
    original(self, o, t, out, factor=factor)


@plant(Gaussian, "log_normalizer", "likelihood.definition")
def normalizer_left_out(original, self, width):
    return 0.0


@plant(Multinomial, "link", "likelihood.definition")
def z_left_as_it_was(original, self, o):
    z = o.z.copy()
    original(self, o)
    o.z[...] = z


@plant(Gaussian, "log_likelihood", "likelihood.class-sums")
@plant(Bernoulli, "log_likelihood", "likelihood.class-sums")
def mass_ignored(original, self, o, t, counts=None, squares=None):
    return original(self, o, t, None if counts is None else np.ones_like(counts), squares)


@plant(Bernoulli, "gain_terms", "likelihood.gain")
@plant(Multinomial, "gain_terms", "likelihood.gain")
def gain_a_thousandth_off(original, self, o, t, n, out):
    original(self, o, t, n, out)
    out *= 1.001


@plant(Gaussian, "gain_slope", "likelihood.gain")
def slope_flipped(original, self, o, t, out):
    original(self, o, t, out)
    out *= -1.0


# -- neurons ---------------------------------------------------------------------------------------
@plant(Tanh, "multiply_derivative", "gradient.complex-steps")
@plant(Logistic, "multiply_derivative", "gradient.complex-steps")
@plant(ReLU, "multiply_derivative", "gradient.central-differences")
@plant(LeakyReLU, "multiply_derivative", "gradient.central-differences")
def derivative_left_out(original, self, backend, error, a, scratch):
    pass


@plant(Tanh, "multiply_derivative", "gradient.complex-steps")
@plant(Tanh, "multiply_derivative", "activation.derivative")
def square_forgotten(original, self, backend, error, a, scratch):
    error *= 1.0 - a


# -- views and copies ------------------------------------------------------------------------------
@plant(Network, "views", "network.views")
def backward_biases_in_forward_order(original, self, flat):
    views = original(self, flat)
    if self.direction == "forward":
        return views
    return Parameters(views.weights, [None, *views.biases[:0:-1]], views.gains)


@plant(Network, "_bind", "network.views")
@plant(Network, "_bind", "network.copies")
def reversed_view_severed(original, self, flat, statistics=None):
    original(self, flat, statistics)
    views = self.views(flat.copy())
    self.reversed.biases = self.reversed.views(flat.copy()).biases
    self.weights = views.weights


@plant(Network, "to", "network.copies")
def copy_shares_memory(original, self, device=None, dtype=None):
    copied = original(self, device, dtype)
    copied._bind(self.parameters)
    return copied
