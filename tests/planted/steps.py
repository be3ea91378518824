"""Bugs to plant in the joint gradient and in the noise; importing this adds them to ``BUGS``."""

from __future__ import annotations

import numpy as np

from nembp.engine.backprop import ClassLoss, JointBackpropagation, SampleLoss, _Mean
from nembp.engine.likelihoods import Multinomial
from nembp.engine.noise import LayerNoise, Noise, NoiseSource, SignalNoise
from planted import BUGS, plant

__all__ = ["BUGS"]


# -- both directions in three sweeps ---------------------------------------------------------------
@plant(JointBackpropagation, "_views_of", "joint.samples")
def biases_of_the_other_direction(original, self, gradient):
    weights, up, down = original(self, gradient)
    return weights, [None, *down[:-1]], [*up[1:], None]


@plant(JointBackpropagation, "_sweep_forward_errors", "joint.none")
def moving_biases_of_the_other_direction(original, self, gradient):
    original(self, gradient)
    self.net.reversed.views(gradient).biases[-1][...] = 1.0


@plant(ClassLoss, "_sum_classes", "joint.classes")
@plant(ClassLoss, "_sum_classes", "joint.noisy")
def class_ignored(original, self):
    original(self)
    largest = int(np.argmax(self._counts))
    self._sums[largest, :] = 0.0
    self._counts[largest, :] = 0.0


@plant(ClassLoss, "_sum_classes", "joint.classes")
def classes_not_counted(original, self):
    original(self)
    self._counts[...] = 1.0


@plant(JointBackpropagation, "_multiply_derivative", "joint.samples")
@plant(JointBackpropagation, "_multiply_derivative", "joint.classes")
def derivative_of_upward_errors_only(original, self, k, error, a, *rows, **options):
    if a is self._c[k]:
        original(self, k, error, a, *rows, **options)


@plant(_Mean, "__call__", "joint.nll")
def nll_of_the_sum(original, self, column, out):
    out[...] = -column.sum()


@plant(JointBackpropagation, "_scratch_for", "joint.blocks")
def scratch_reaches_into_the_layer(original, self, rows, start):
    return rows if start else original(self, rows, start)


@plant(JointBackpropagation, "_arrive", "joint.blocks")
def errors_finished_in_the_first_block_only(original, self, k, start, stop):
    original(self, k, start, min(stop, max(self.rows + 2, start)))


@plant(JointBackpropagation, "_sweep_up", "joint.no-memory")
def signals_of_the_last_batch(original, self):
    if not hasattr(self, "swept"):
        original(self)
    self.swept = True


@plant(SampleLoss, "error", "joint.no-memory")
def target_of_the_last_batch(original, self, out, clock):
    now = self._target.copy()
    self._target[...] = getattr(self, "older", now)
    original(self, out, clock)
    self.older, self._target[...] = now, now


@plant(JointBackpropagation, "_sweep_forward_errors", "joint.no-memory")
def vector_zeroed_once(original, self, gradient):
    biases = gradient[-sum(layer.biases for layer in self.net.layers[:-1]) :]
    found = biases.copy()
    original(self, gradient)
    if getattr(self, "zeroed", None) is gradient:
        biases[...] = found
    self.zeroed = gradient


@plant(ClassLoss, "_sum_classes", "joint.classes")
def means_of_classes_for_sums(original, self):
    original(self)
    self._sums /= np.maximum(self._counts, 1.0)


@plant(JointBackpropagation, "_sweep_forward_errors", "joint.samples")
def shared_weight_counted_twice(original, self, gradient):
    original(self, gradient)
    self.net.views(gradient).weights[-1][...] *= 2.0


@plant(JointBackpropagation, "_multiply_derivative", "joint.samples")
def derivative_at_the_layer_below(original, self, k, error, a, *rows, **options):
    widths = [layer.size for layer in self.net.layers]
    same = k > 1 and widths[k - 1] == widths[k] and error is self._delta[k]
    wrong = self._a[k - 1] if same else a
    original(self, k, error, wrong, *rows, **options)


# -- noise in a step -------------------------------------------------------------------------------
@plant(JointBackpropagation, "_noise_source", "joint.noisy")
def noise_on_the_other_direction(original, self, direction, target, noise, generators):
    other = {"forward": "backward", "backward": "forward"}
    exchanged = {other[name]: n for name, n in (noise or {}).items()}
    return original(self, direction, target, exchanged, generators)


@plant(NoiseSource, "__call__", "joint.noisy")
def screened_under_the_uniform_prediction(original, self, o, t, std):
    z, a = o.z.copy(), o.a.copy()
    o.z[...], o.a[...] = z.mean(axis=1, keepdims=True), a.mean(axis=1, keepdims=True)
    n = original(self, o, t, std)
    o.z[...], o.a[...] = z, a
    return n


@plant(NoiseSource, "__call__", "joint.noisy")
def noise_subtracted(original, self, o, t, std):
    return -original(self, o, t, std)


@plant(JointBackpropagation, "_noise_source", "joint.noisy")
def one_stream_for_both(original, self, direction, target, noise, generators):
    same = generators and dict.fromkeys(generators, generators["forward"])
    return original(self, direction, target, noise, same)


@plant(Multinomial, "error", "joint.noisy")
def published_forgotten(original, self, o, t, out, counts=None, factor=1.0):
    original(self, o, t, out, factor=factor)


@plant(Multinomial, "error", "joint.noisy")
def published_once_a_class(original, self, o, t, out, counts=None, factor=1.0):
    original(self, o, t, out, counts=None if counts is None else 1.0, factor=factor)


@plant(ClassLoss, "_noisy_targets", "joint.noisy")
def signals_of_the_next_class(original, self, clock):
    o = self.readout
    kept = o.a.copy()
    o.a[...] = np.roll(o.a, 1, axis=0)
    noisy = original(self, clock)
    o.a[...] = kept
    return noisy


# -- screening -------------------------------------------------------------------------------------
@plant(NoiseSource, "_draw", "noise.screening")
def deviation_doubled(original, self, o, t, std):
    original(self, o, t, 2.0 * std)


@plant(NoiseSource, "_screen", "noise.screening")
def screening_left_out(original, self, o, t):
    pass


@plant(NoiseSource, "_measure", "noise.screening")
def anti_is_nem(original, self, o, t):
    original(self, o, t)
    self._score *= -1.0


@plant(NoiseSource, "_screen", "noise.screening")
def everything_counts_as_accepted(original, self, o, t):
    original(self, o, t)
    self.accepted[...] = 1.0


@plant(NoiseSource, "_record_gain", "noise.screening")
def gain_of_a_neuron(original, self, o, t):
    original(self, o, t)
    self.gain /= self.width


@plant(NoiseSource, "_half_space_mean", "noise.screening")
def drift_a_hundredth_off(original, self, o, t, std):
    original(self, o, t, 1.01 * std)


@plant(NoiseSource, "_project", "noise.zero-sum")
def projection_left_out(original, self, n):
    pass


@plant(NoiseSource, "_shape", "noise.screening")
def noise_not_multiplied(original, self, t, n):
    pass


@plant(Noise, "std_at", "noise.annealing")
def epochs_for_iterations(original, self, epoch, iteration):
    return original(self, iteration, epoch)


@plant(NoiseSource, "_screen", "noise.screening")
def reflected_without_screening_again(original, self, o, t):
    offered = self.n.copy()
    original(self, o, t)
    if self.noise.rejected == "reflect":
        self.n[...] = np.where(self.n == 0.0, -offered, self.n)


@plant(NoiseSource, "_remember", "noise.screening")
def last_of_several_draws_taken(original, self, o, t):
    original(self, o, t)
    self._best_score[...] = -np.inf


@plant(NoiseSource, "_note_kept", "noise.screening")
def gain_of_the_last_draw_recorded(original, self, o, t):
    pass


# -- noise on signals ------------------------------------------------------------------------------
@plant(LayerNoise, "_write_gain", "noise.signals")
def gain_without_the_noise(original, self, out):
    kept = self.n.copy()
    self.n[...] = np.roll(kept, 1, axis=0)
    original(self, out)
    self.n[...] = kept


@plant(SignalNoise, "_keep_log_likelihood", "noise.signals")
def gains_since_the_first_layer(original, self):
    if not getattr(self, "looked", False) or not self.sources:
        original(self)
    self.looked = True


@plant(LayerNoise, "draw", "noise.signals")
def deviation_of_signals_halved(original, self, std):
    original(self, 0.5 * std)


@plant(SignalNoise, "disturb", "noise.signal-gradient")
def noise_left_out_of_the_step(original, self, layer, signal, start, stop):
    n, self.n = self.n, {}
    self.n, self.without[layer] = {}, signal
    original(self, layer, signal, start, stop)
    self.n = n


@plant(SignalNoise, "disturb", "noise.signal-gradient")
def derivative_at_the_noisy_signal(original, self, layer, signal, start, stop):
    original(self, layer, signal, start, stop)
    if layer in self.n and layer > 0:
        self.without[layer][start:stop, :] = signal[start:stop, :]


@plant(NoiseSource, "_draw", "noise.screening")
def curvature_forgotten(original, self, o, t, std):
    law = self.noise.law
    object.__setattr__(self.noise, "law", "gaussian" if law == "curvature" else law)
    original(self, o, t, std)
    object.__setattr__(self.noise, "law", law)
