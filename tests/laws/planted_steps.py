"""Bugs to plant in the joint gradient and in the noise; importing this adds them to ``BUGS``."""

from __future__ import annotations

import numpy as np

from laws.planted import BUGS, plant
from nembp.backpropagation import JointBackpropagation
from nembp.ends import ClassEnd, SampleEnd, _Mean
from nembp.likelihoods import Multinomial
from nembp.noise import Noise, NoiseSource

__all__ = ["BUGS"]


# -- both directions in three sweeps ---------------------------------------------------------------
@plant(JointBackpropagation, "_views_of", "joint samples", "gradient by path samples")
def biases_of_the_other_direction(original, self, gradient):
    weights, up, down = original(self, gradient)
    return weights, [None, *down[:-1]], [*up[1:], None]


@plant(JointBackpropagation, "_gradients", "joint none", "gradient by path none")
def moving_biases_of_the_other_direction(original, self, gradient):
    original(self, gradient)
    self.net.reversed.views(gradient).biases[-1][...] = 1.0


@plant(ClassEnd, "_sum_classes", "joint classes", "gradient by path classes")
@plant(ClassEnd, "_sum_classes", "noisy classes", "noisy gradient by path classes")
def class_ignored(original, self):
    original(self)
    largest = int(np.argmax(self._counts))
    self._sums[largest, :] = 0.0
    self._counts[largest, :] = 0.0


@plant(ClassEnd, "_sum_classes", "joint classes", "gradient by path classes")
def classes_not_counted(original, self):
    original(self)
    self._counts[...] = 1.0


@plant(JointBackpropagation, "_multiply_derivative", "joint samples", "gradient by path samples")
@plant(JointBackpropagation, "_multiply_derivative", "joint classes", "gradient by path classes")
def derivative_of_upward_errors_only(original, self, error, a, k):
    if a is self._c[k]:
        original(self, error, a, k)


@plant(_Mean, "__call__", "joint samples", "forward nll")
@plant(_Mean, "__call__", "joint classes", "forward nll")
def nll_of_the_sum(original, self, column, out):
    out[...] = -column.sum()


@plant(JointBackpropagation, "_sweep_up", "no memory", "older batch")
def signals_of_the_last_batch(original, self):
    if not hasattr(self, "swept"):
        original(self)
    self.swept = True


@plant(SampleEnd, "error", "no memory", "older batch")
def target_of_the_last_batch(original, self, out, clock):
    now = self._target.copy()
    self._target[...] = getattr(self, "older", now)
    original(self, out, clock)
    self.older, self._target[...] = now, now


@plant(JointBackpropagation, "_gradients", "no memory none", "keeps what it held")
def vector_zeroed_once(original, self, gradient):
    biases = gradient[-sum(layer.biases for layer in self.net.layers[:-1]) :]
    found = biases.copy()
    original(self, gradient)
    if getattr(self, "zeroed", None) is gradient:
        biases[...] = found
    self.zeroed = gradient


# -- noise in a step -------------------------------------------------------------------------------
@plant(JointBackpropagation, "_noise_source", "noisy forward", "no noise on the forward target")
def noise_on_the_other_direction(original, self, direction, likelihood, width, noise, generators):
    other = {"forward": "backward", "backward": "forward"}
    exchanged = {other[name]: n for name, n in (noise or {}).items()}
    return original(self, direction, likelihood, width, exchanged, generators)


@plant(NoiseSource, "__call__", "noisy samples", "noisy gradient")
@plant(NoiseSource, "__call__", "noisy classes", "noisy gradient")
def noise_subtracted(original, self, o, t, std):
    return -original(self, o, t, std)


@plant(JointBackpropagation, "_noise_source", "noisy samples", "forward noise")
def one_stream_for_both(original, self, direction, likelihood, width, noise, generators):
    same = generators and dict.fromkeys(generators, generators["forward"])
    return original(self, direction, likelihood, width, noise, same)


@plant(Multinomial, "error", "noisy published", "noisy gradient by path classes")
def published_forgotten(original, self, o, t, out, mass=None, factor=1.0):
    original(self, o, t, out, factor=factor)


@plant(Multinomial, "error", "noisy published", "noisy gradient by path classes")
def published_once_a_class(original, self, o, t, out, mass=None, factor=1.0):
    original(self, o, t, out, mass=None if mass is None else 1.0, factor=factor)


@plant(ClassEnd, "_noisy_targets", "noisy classes", "backward noise")
def signals_of_the_next_class(original, self, clock):
    o = self.readout
    kept = o.a.copy()
    o.a[...] = np.roll(o.a, 1, axis=0)
    noisy = original(self, clock)
    o.a[...] = kept
    return noisy


# -- screening -------------------------------------------------------------------------------------
@plant(NoiseSource, "_draw", "screening nem", "nem noise")
@plant(NoiseSource, "_draw", "screening blind", "blind noise")
def deviation_doubled(original, self, t, std):
    original(self, t, 2.0 * std)


@plant(NoiseSource, "_screen", "screening nem", "nem noise")
@plant(NoiseSource, "_screen", "screening anti", "anti noise")
def screening_left_out(original, self, o, t):
    pass


@plant(NoiseSource, "_measure", "screening anti", "anti noise")
def anti_is_nem(original, self, o, t):
    original(self, o, t)
    self._score *= -1.0


@plant(NoiseSource, "_screen", "screening rejected", "share accepted")
def everything_counts_as_accepted(original, self, o, t):
    original(self, o, t)
    self.accepted[...] = 1.0


@plant(NoiseSource, "_record_gain", "screening nem", "mean gain")
@plant(NoiseSource, "_record_gain", "screening drift", "mean gain")
def gain_of_a_neuron(original, self, o, t):
    original(self, o, t)
    self.gain /= self.width


@plant(NoiseSource, "_half_space_mean", "screening drift", "drift noise")
def drift_a_hundredth_off(original, self, o, t, std):
    original(self, o, t, 1.01 * std)


@plant(NoiseSource, "_project", "zero-sum", "sum of the noise")
def projection_left_out(original, self, n):
    pass


@plant(NoiseSource, "_shape", "screening multiplicative", "blind noise")
def noise_not_multiplied(original, self, t, n):
    pass


@plant(Noise, "std_at", "annealing", "annealed gradient")
def epochs_for_iterations(original, self, epoch, iteration):
    return original(self, iteration, epoch)
