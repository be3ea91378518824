"""Bugs to plant in normalized layers; importing this adds them to ``BUGS``."""

from __future__ import annotations

import numpy as np

from nembp.engine.backprop import Step
from nembp.engine.batchnorm import Counts, Normalizer
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


@plant(Step, "end", "joint.samples")
def gains_of_the_other_direction(original, self, gradient):
    original(self, gradient)
    ways = self.net.views(gradient).gains, self.net.reversed.views(gradient).gains[::-1]
    for forward, backward in zip(*ways, strict=True):
        if forward is not None:
            forward[...], backward[...] = backward.copy(), forward.copy()


@plant(Step, "end", "joint.none")
def still_direction_left_as_it_was(original, self, gradient):
    still = [gain for gain in self.net.reversed.views(gradient).gains if gain is not None]
    kept = [gain.copy() for gain in still]
    original(self, gradient)
    if not self.bidirectional:
        for gain, before in zip(still, kept, strict=True):
            gain[...] = before


@plant(Normalizer, "update_running", "normalization.statistics")
def variance_with_its_bias(original, self):
    self.variance *= 1.0 - 1.0 / self._values
    original(self)


@plant(Normalizer, "update_running", "normalization.statistics")
def moved_twice(original, self):
    original(self)
    original(self)


@plant(Normalizer, "__init__", "normalization.evaluation")
def predictions_by_their_own_batch(original, self, *args, statistics="batch", **options):
    original(self, *args, **options)
