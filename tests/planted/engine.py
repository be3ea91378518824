"""Bugs to plant in what trains, saves and explains a network; importing this fills ``BUGS``."""

from __future__ import annotations

import numpy as np

import nembp.em.binary
import nembp.verification.laws.files
import nembp.verification.laws.hidden
from nembp.datasets.reading import BatchReader
from nembp.engine.activations import Tanh
from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.network import Network
from nembp.engine.noise import NoiseSource
from nembp.engine.optimizers import SGD, Adam, Momentum, Optimizer, RMSProp
from nembp.engine.training import Trainer
from planted import plant
from planted.adversarial import BUGS as ADVERSARIAL
from planted.images import BUGS as IMAGES
from planted.normalized import BUGS as NORMALIZED
from planted.steps import BUGS

__all__ = ["ADVERSARIAL", "BUGS", "IMAGES", "NORMALIZED"]


# -- components --------------------------------------------------------------------------------
@plant(Tanh, "multiply_derivative", "activation.derivative")
def derivative_of_the_logistic(original, self, backend, error, a, scratch):
    error *= a * (1.0 - a)


@plant(Likelihood, "error", "invariance.update")
def update_without_its_scale(original, self, o, t, out, **options):
    original(self, o, t, out, **options)
    out /= self.scale


@plant(Dense, "adjoint", "gradient.input-error")
def input_error_of_another_row(original, self, backend, y, W, out):
    original(self, backend, np.roll(y, 1, axis=0), W, out)


@plant(Multinomial, "link", "likelihood.definition")
def softmax_normalized_over_rows(original, self, o):
    original(self, o)
    o.a[...] = o.a / o.a.sum(axis=0)


# -- views -------------------------------------------------------------------------------------
@plant(Network, "views", "network.views")
def slices_off_by_one(original, self, flat):
    views = original(self, flat)
    if self.direction == "forward":
        first = views.biases[1]
        start = self.weight_count - 1
        views.biases[1] = flat[start : start + first.shape[0]]
    return views


# -- screening ---------------------------------------------------------------------------------
@plant(NoiseSource, "_measure", "noise.reflection")
def reflected_to_the_wrong_side(original, self, o, t):
    original(self, o, t)
    self.n *= -1.0


@plant(NoiseSource, "_screen", "noise.component")
def rejected_draws_kept_turned(original, self, o, t):
    offered = self.n.copy()
    original(self, o, t)
    self.n[...] = np.where(self.n == 0.0, -offered, self.n)


# -- optimizers --------------------------------------------------------------------------------
@plant(Adam, "_update", "optimizer.formula")
def bias_correction_missing(original, self, chunk, eta):
    steps, self.steps = self.steps, 10**6
    original(self, chunk, eta)
    self.steps = steps


@plant(RMSProp, "_update", "optimizer.formula")
@plant(Momentum, "_update", "optimizer.formula")
def state_forgotten(original, self, chunk, eta):
    for state in chunk.state:
        state[...] = 0.0
    original(self, chunk, eta)


@plant(SGD, "_update", "optimizer.formula")
def ascent(original, self, chunk, eta):
    original(self, chunk, -eta)


@plant(Optimizer, "step", "optimizer.weight-decay")
def shared_weights_decay_twice(original, self, factor=1.0):
    self._weights *= 1.0 - self.learning_rate * factor * self.weight_decay
    original(self, factor)


@plant(Optimizer, "step", "optimizer.weight-decay")
def biases_decay_too(original, self, factor=1.0):
    original(self, factor)
    for lane in self._lanes:
        for chunk in lane:
            chunk.theta *= 1.0 - 1e-3 * self.weight_decay


# -- training ----------------------------------------------------------------------------------
@plant(Trainer, "step", "training.streams")
def noise_from_the_stream_of_the_batches(original, self, index, staged=None):
    if self._noise:
        self._order.random()
    original(self, index, staged)


@plant(Trainer, "factor", "training.replay")
def schedule_ignored(original, self, iteration):
    return 1.0


@plant(BatchReader, "read", "training.replay")
def labels_of_the_first_samples(original, self, index, x, t, staged=None):
    original(self, index, x, t, staged)
    original(self, np.sort(index), x.copy(), t)


@plant(Trainer, "step", "training.replay")
def noise_of_the_first_iteration(original, self, index, staged=None):
    iteration = self.iteration
    self.iteration = 0 if iteration % 2 else iteration
    original(self, index, staged)
    self.iteration = iteration + 1


# -- files -------------------------------------------------------------------------------------
@plant(nembp.verification.laws.files, "load_model", "files.round-trip")
def parameters_through_text(original, path, device="cpu"):
    model = original(path, device)
    flat = [float(f"{value:.7g}") for value in model.net.backend.to_numpy(model.net.parameters)]
    model.net.parameters[...] = model.net.backend.asarray(np.array(flat), model.net.dtype)
    return model


@plant(nembp.verification.laws.files, "load_model", "files.round-trip")
def directions_severed_by_loading(original, path, device="cpu"):
    model = original(path, device)
    other = model.net.copy()
    other.parameters[...] *= 1.5
    model.net.reversed = other.reversed
    return model


# -- expectation-maximization -------------------------------------------------------------------
@plant(nembp.verification.laws.hidden, "q_gradient", "em.fisher")
def posterior_of_another_point(original, net, theta, theta_n, *rest, **noise):
    return original(net, theta, theta_n + 0.1, *rest, **noise)


@plant(nembp.verification.laws.hidden, "entropy", "em.fisher")
def entropy_doubled(original, *arguments):
    return 2.0 * original(*arguments)


@plant(nembp.em.binary, "_climb", "em.gem")
def downhill(original, value, slope, start, *rest):
    found = original(value, slope, start, *rest)
    return found._replace(point=2.0 * start - found.point)


@plant(nembp.em.binary, "screen", "em.nem")
def unscreened(original, noise, n, gains, posterior, condition="every"):
    return n


@plant(Gaussian, "gain_terms", "em.nem")
def gain_of_the_opposite_noise(original, self, o, t, n, out):
    original(self, o, t, -n, out)
