"""Bugs to plant in normalized layers; importing this adds them to ``BUGS``."""

from __future__ import annotations

import numpy as np

from nembp.engine import network
from nembp.engine.batchnorm import Counts, NormalizedLayers, Normalizer
from planted import BUGS, plant

__all__ = ["BUGS"]


def over_pixels(self, vector):
    return np.tile(vector, self._hat.shape[1] // vector.size)


@plant(Normalizer, "pull_back", "gradient.complex-steps")
@plant(Normalizer, "pull_back", "gradient.classical")
@plant(Normalizer, "pull_back", "gradient.input-error")
def jacobian_without_the_variance(original, self, error, *rest, **options):
    original(self, error, *rest, **options)
    if self.of_batch and self._counts is None:
        factor = self._gain * self._scale * self.gain_gradient / self._values
        error += over_pixels(self, factor) * self._hat


@plant(Normalizer, "pull_back", "gradient.complex-steps")
@plant(Normalizer, "pull_back", "gradient.central-differences")
def statistics_taken_for_constants(original, self, error, *rest, **options):
    self.of_batch, kept = False, self.of_batch
    original(self, error, *rest, **options)
    self.of_batch = kept


@plant(Normalizer, "pull_back", "normalization.evaluation")
def running_statistics_taken_for_the_batchs(original, self, error, *rest, **options):
    self.of_batch, kept = True, self.of_batch
    original(self, error, *rest, **options)
    self.of_batch = kept


@plant(Normalizer, "pull_back", "gradient.complex-steps")
@plant(Normalizer, "pull_back", "gradient.classical")
def gain_gradient_a_thousandth_off(original, self, error, *rest, **options):
    original(self, error, *rest, **options)
    self.gain_gradient *= 1.001


@plant(Normalizer, "_measure", "gradient.classical")
def statistics_over_all_channels(original, self, z):
    z -= z.mean()
    self.mean[...], self.variance[...] = 0.0, (z**2).mean()


@plant(Normalizer, "_measure", "gradient.classical")
def statistics_by_neuron_where_they_are_by_channel(original, self, z):
    mean = z.mean(axis=0)
    original(self, z.copy())
    z -= mean


@plant(Normalizer, "_measure", "joint.no-memory")
def statistics_of_the_last_batch(original, self, z):
    if hasattr(self, "measured"):
        z -= over_pixels(self, self.mean)
    else:
        original(self, z)
    self.measured = True


@plant(Normalizer, "_sum", "joint.blocks")
def sums_of_the_last_thread_only(original, self, terms, sums, shares=None):
    totals = self._sums
    original(self, terms, sums, shares)
    if len(totals) > 1:
        for which, out in enumerate(sums):
            out[...] = totals[-1][which].reshape(-1, out.size).sum(axis=0)


@plant(Counts, "take", "joint.classes")
def classes_counted_alike(original, self):
    original(self)
    self._of_classes[...] = 1.0 / self._of_classes.shape[0]


@plant(NormalizedLayers, "_write", "joint.samples")
def gains_of_the_other_direction(original, self, gradient):
    original(self, gradient)
    for forward, backward in zip(self._views[1], self._views[2], strict=True):
        if forward[1] is not None:
            forward[1][...], backward[1][...] = backward[1].copy(), forward[1].copy()


@plant(NormalizedLayers, "_write", "joint.none")
def still_direction_left_as_it_was(original, self, gradient):
    kept = [None if g is None else g.copy() for g in self.net.reversed.views(gradient).gains]
    original(self, gradient)
    if not any(self.down):
        for gain, before in zip(self.net.reversed.views(gradient).gains, kept, strict=True):
            if gain is not None:
                gain[...] = before


@plant(Normalizer, "update_running", "normalization.statistics")
def variance_with_its_bias(original, self):
    self.variance *= 1.0 - 1.0 / self._values
    original(self)


@plant(Normalizer, "update_running", "normalization.statistics")
def moved_twice(original, self):
    original(self)
    original(self)


@plant(network, "normalize_by_running", "normalization.evaluation")
def predictions_by_their_own_batch(original, net, k, z):
    if (settings := net.layers[k].normalization) is not None:
        sizes, views = z.shape, (net.gains[k], net.running[k])
        Normalizer(net.backend, net.dtype, *sizes, settings, *views).forward(z)
