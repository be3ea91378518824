"""Bugs to plant in adversarial training; importing this adds them to ``BUGS``."""

from __future__ import annotations

import dataclasses

import numpy as np

import nembp.adversarial.players
from nembp.adversarial.objectives import RealClassLoss, Score
from nembp.adversarial.order import SampleOrder
from nembp.adversarial.penalty import GradientPenalty
from nembp.adversarial.players import DiscriminatorPlayer, GeneratorPlayer
from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.turns import Turns
from nembp.engine.activations import Logistic, Tanh
from nembp.engine.backprop import ClassLoss, CycleBackpropagation, JointBackpropagation
from nembp.engine.likelihoods import Bernoulli, Multinomial
from nembp.engine.linear import Dense
from nembp.engine.noise import NoiseSource
from planted import BUGS, plant

__all__ = ["BUGS"]


# -- what a step takes and gives -------------------------------------------------------------------
@plant(ClassLoss, "_sum_classes", "joint.memberships")
def every_sample_is_a_member(original, self):
    original(self)
    self._counts[0, 0] += self._members.shape[0] - self._counts.sum()


@plant(ClassLoss, "error", "joint.memberships")
def weight_of_the_end_ignored(original, self, out, clock):
    self.weight = 1.0
    original(self, out, clock)


@plant(JointBackpropagation, "_backward_end", "joint.memberships")
def inputs_are_the_labels(original, self, noise, generators):
    end = original(self, noise, generators)
    if isinstance(end, ClassLoss):
        self._c[-1][...] = np.eye(*self._c[-1].shape)
    return end


@plant(JointBackpropagation, "_sweep_forward_errors", "joint.input-error")
def input_error_only_with_a_gradient(original, self, gradient):
    original(self, gradient)
    if gradient is None:
        self.input_error[...] *= -1.0


# -- a network whose backward direction starts from its own output ---------------------------------
@plant(CycleBackpropagation, "_set_output_error", "adversarial.own-output")
def link_forgotten(original, self, error):
    original(self, error)
    self._delta[-1][...] = error + self._top if self._flow else error


@plant(CycleBackpropagation, "_set_output_error", "adversarial.own-output")
@plant(CycleBackpropagation, "_set_output_error", "adversarial.generator")
def gradient_does_not_flow(original, self, error):
    if self._flow:
        self._top[...] = 0.0
    original(self, error)


@plant(CycleBackpropagation, "_arrive", "adversarial.own-output")
def derivative_at_the_wrong_signal(original, self, k, start, stop):
    held = self._a[k].copy()
    self._a[k][...] = 0.5
    original(self, k, start, stop)
    self._a[k][...] = held


@plant(CycleBackpropagation, "__call__", "adversarial.own-output")
@plant(CycleBackpropagation, "__call__", "adversarial.generator")
def a_thousandth_off(original, self, gradient, *args):
    original(self, gradient, *args)
    gradient *= 1.001


@plant(Bernoulli, "multiply_derivative", "adversarial.link")
@plant(Bernoulli, "multiply_derivative", "adversarial.generator")
def derivative_of_the_link_left_out(original, self, o, error):
    pass


@plant(Multinomial, "multiply_derivative", "adversarial.link")
def diagonal_of_the_link_only(original, self, o, error):
    error *= o.a * (1.0 - o.a)


# -- players ---------------------------------------------------------------------------------------
@plant(Dense, "adjoint", "adversarial.generator")
def weights_transposed(original, self, backend, y, W, out):
    out[...] = y @ W.reshape(W.shape[::-1])


@plant(DiscriminatorPlayer, "__call__", "adversarial.discriminator")
def a_thousandth_off_and_more(original, self, gradient, *args):
    original(self, gradient, *args)
    gradient *= 1.001


@plant(DiscriminatorPlayer, "_ends", "adversarial.discriminator")
def labels_swapped(original, self):
    return original(self)[::-1]


@plant(DiscriminatorPlayer, "_memberships", "adversarial.discriminator")
def generated_have_the_real_label(original, self, rows):
    memberships = original(self, rows)
    if memberships is not None and self.labels is None:
        memberships.inputs[...] = 1.0
    return memberships


@plant(DiscriminatorPlayer, "_set_points", "adversarial.discriminator")
def points_beyond_the_samples(original, self, penalty):
    original(self, penalty)
    penalty.x[...] = penalty.x + (self.real - self.generated)


@plant(nembp.adversarial.players, "_end", "adversarial.generator")
def sign_flipped(original, discriminator, rows, settings):
    end = original(discriminator, rows, settings)
    end.weight = -end.weight
    return end


@plant(RealClassLoss, "error", "adversarial.generator")
def posterior_is_uniform(original, self, out, clock):
    original(self, out, clock)
    self._posterior[...] = 1.0 / self._posterior.shape[1]
    self.likelihood.error(self.readout, self._target, out, factor=1.0 / self._samples)


@plant(GeneratorPlayer, "__call__", "adversarial.generator")
def weight_of_the_backward_direction_ignored(original, self, gradient, weight=1.0, clock=(1, 1)):
    original(self, gradient, 1.0, clock)


# -- the gradient penalty --------------------------------------------------------------------------
@plant(GradientPenalty, "_sweep_signal_errors", "adversarial.penalty")
def second_derivatives_left_out(original, self, gradient):
    for epsilon in self._epsilon[1:]:
        epsilon[...] = 0.0
    original(self, gradient)


@plant(GradientPenalty, "_set_slope_error", "adversarial.penalty")
def slope_not_centred_at_one(original, self, weight):
    original(self, weight)
    self._omega[0][...] = self.slope * (2.0 * weight / self.rows)


@plant(Tanh, "multiply_curvature", "adversarial.penalty")
@plant(Logistic, "multiply_curvature", "adversarial.penalty")
def curvature_a_hundredth_off(original, self, backend, error, a, scratch):
    original(self, backend, error, a, scratch)
    error *= 1.01


@plant(GradientPenalty, "_arrive", "adversarial.penalty")
def slopes_error_without_derivative(original, self, k, start, stop):
    held = self._omega[k][start:stop].copy()
    original(self, k, start, stop)
    self._omega[k][start:stop] = held


# -- noise, streams and steps ----------------------------------------------------------------------
@plant(Score, "log_likelihood", "adversarial.noise")
def noise_on_the_wrong_side(original, self, o, t, counts=None, squares=None):
    return original(self, o, abs(t), counts, squares)


@plant(NoiseSource, "_measure", "adversarial.noise")
def screening_upside_down(original, self, o, t):
    original(self, o, t)
    self._score *= -1.0


@plant(AdversarialSettings, "weight_factor", "adversarial.replay")
def schedule_of_the_weights_ignored(original, self, share):
    return 1.0


@plant(Turns, "discriminate", "adversarial.replay")
def fresh_latent_samples_for_the_generator(original, self, numbers):
    original(self, numbers)
    self.generator.backend.normal(self._latent, self.g.z)
    self.g.run()


@plant(Turns, "discriminate", "adversarial.replay")
def learning_rate_a_thousandth_off(original, self, numbers):
    original(self, dataclasses.replace(numbers, factor=numbers.factor * 1.001))


@plant(SampleOrder, "take", "adversarial.replay")
def samples_in_one_order_for_good(original, self, batches):
    epoch = original(self, self._n // self._size)
    return np.resize(epoch, batches * self._size)


@plant(Turns, "_set_players", "adversarial.streams")
def noise_from_the_stream_of_latent_samples(original, self, rows, noise, seed):
    draw, latent = self._draw, self._latent
    self._draw = lambda seed, name: latent if name.startswith("noise") else draw(seed, name)
    original(self, rows, noise, seed)
