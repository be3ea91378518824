"""Bugs to plant in convolutions, maps without weights and links; importing adds to ``BUGS``."""

from __future__ import annotations

from contextlib import suppress

import numpy as np

import nembp.engine.backprop
import nembp.engine.network
from nembp.engine.convolution import Convolution, Im2colWorkspace
from nembp.engine.linear import (
    AveragePooling,
    BlockWorkspace,
    Dense,
    LinearMap,
    Reshape,
    Workspace,
)
from nembp.engine.winograd import WinogradWorkspace
from planted import BUGS, plant

__all__ = ["BUGS"]

_LEFT: dict[str, np.ndarray] = {}  # what the bugs with a memory keep


def images_of(linear_map, x):
    return x.reshape(len(x), *linear_map.shape)


# -- convolution -----------------------------------------------------------------------------------
@plant(Convolution, "forward", "synapse.definition")
@plant(Convolution, "forward", "synapse.trilinear")
@plant(Convolution, "forward", "gradient.classical")
def kernel_transposed(original, self, backend, x, W, out):
    same = self.kernel[0] == self.kernel[1]
    original(self, backend, x, W.swapaxes(0, 1).copy() if same else W, out)


@plant(Convolution, "adjoint", "synapse.definition")
@plant(Convolution, "adjoint", "synapse.trilinear")
@plant(Convolution, "adjoint", "gradient.classical")
def kernel_not_turned_back(original, self, backend, y, W, out):
    original(self, backend, y, W[::-1, ::-1].copy(), out)


@plant(Convolution, "weight_gradient", "synapse.trilinear")
@plant(Convolution, "weight_gradient", "gradient.complex-steps")
def gradient_of_the_flipped_kernel(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out[...] = out[:, ::-1].copy()


@plant(Convolution, "weight_gradient", "synapse.trilinear")
@plant(Convolution, "weight_gradient", "gradient.classical")
def a_thousandth_of_a_kernel_off(original, self, backend, x, y, out):
    original(self, backend, x, y, out)
    out *= 1.001


@plant(Convolution, "forward", "synapse.definition")
@plant(Convolution, "forward", "gradient.complex-steps")
def channels_swapped(original, self, backend, x, W, out):
    original(self, backend, x, W[:, :, ::-1].copy(), out)


@plant(Convolution, "adjoint", "synapse.definition")
@plant(Convolution, "adjoint", "gradient.input-error")
def stride_off_by_one_in_the_adjoint(original, self, backend, y, W, out):
    original(self, backend, y, W, out)
    if self.stride[1] > 1:
        image = images_of(self, out)
        image[...] = np.roll(image, 1, axis=2)


@plant(Convolution, "forward", "synapse.definition")
@plant(Convolution, "forward", "synapse.trilinear")
def padding_on_the_wrong_side(original, self, backend, x, W, out):
    if self.padding[0]:  # all of it below: the image moves up by as much
        moved = np.zeros_like(images_of(self, x))
        kept = max(0, self.shape[0] - self.padding[0])
        moved[:, :kept] = images_of(self, x)[:, self.padding[0] :]
        x = moved.reshape(x.shape)
    original(self, backend, x, W, out)


@plant(Convolution, "forward", "synapse.definition")
@plant(Convolution, "forward", "gradient.classical")
def last_column_missing(original, self, backend, x, W, out):
    original(self, backend, x, W, out)
    if self.output_shape[1] > 1:
        out.reshape(len(x), *self.output_shape)[:, :, -1] = 0.0


@plant(Convolution, "adjoint", "synapse.definition")
@plant(Convolution, "adjoint", "synapse.trilinear")
def windows_overwritten_in_place_of_added(original, self, backend, y, W, out):
    one, image, total = np.zeros_like(y), np.zeros_like(out), np.zeros_like(out)
    for k in range(0, y.shape[1], self.channels):
        one[...] = 0.0
        one[:, k : k + self.channels] = y[:, k : k + self.channels]
        original(self, backend, one, W, image)
        total[...] = np.where(image != 0.0, image, total)
    out[...] = total


@plant(Convolution, "forward", "synapse.no-memory")
def border_of_the_last_batch(original, self, backend, x, W, out):
    original(self, backend, x, W, out)
    if max(self.padding):
        out[...] += 0.0 * _LEFT.get("border", 0.0)
    _LEFT["border"] = 0.0 * x.sum()


@plant(Convolution, "adjoint", "synapse.threads")
def one_buffer_for_all_threads(original, self, backend, y, W, out):
    shared = _LEFT.setdefault(f"{self.shape}", np.zeros(64))
    count = min(64, y.size)
    shared[:count] = y.reshape(-1)[:count]
    original(self, backend, y, W, out)  # meanwhile another thread may come
    if not np.array_equal(shared[:count], y.reshape(-1)[:count]):
        out[...] += 1.0


# -- maps without weights --------------------------------------------------------------------------
@plant(AveragePooling, "adjoint", "synapse.trilinear")
@plant(AveragePooling, "adjoint", "gradient.complex-steps")
def shared_among_one_axis(original, self, backend, y, W, out):
    original(self, backend, y, W, out)
    out *= self.window[0]


@plant(AveragePooling, "forward", "synapse.definition")
def sums_for_means(original, self, backend, x, W, out):
    original(self, backend, x, W, out)
    out *= self.window[0] * self.window[1]


@plant(Reshape, "adjoint", "synapse.trilinear")
@plant(Reshape, "adjoint", "gradient.classical")
def order_not_undone(original, self, backend, y, W, out):
    out[...] = y


# -- biases ----------------------------------------------------------------------------------------
@plant(nembp.engine.network, "add_bias", "gradient.classical")
def bias_of_a_pixel_for_a_channel(original, backend, signal, bias, layer):
    if bias is not None and layer.biases not in (0, layer.size):
        signal += np.repeat(bias, layer.size // layer.biases)
    else:
        original(backend, signal, bias, layer)


@plant(nembp.engine.backprop, "add_bias", "gradient.classical")
def bias_of_the_first_channel(original, backend, signal, bias, layer):
    if bias is not None and layer.biases not in (0, layer.size):
        signal += bias[0]
    else:
        original(backend, signal, bias, layer)


# -- workspaces ------------------------------------------------------------------------------------
@plant(Workspace, "adjoint_and_gradient", "synapse.links")
@plant(Im2colWorkspace, "adjoint_and_gradient", "synapse.links")
@plant(WinogradWorkspace, "adjoint_and_gradient", "synapse.links")
@plant(WinogradWorkspace, "adjoint_and_gradient", "joint.samples")
def gradient_a_thousandth_off(original, self, x, y, out, gradient):
    original(self, x, y, out, gradient)
    gradient *= 1.001


@plant(WinogradWorkspace, "load", "synapse.links")
@plant(Im2colWorkspace, "load", "synapse.links")
def weights_of_the_first_batch(original, self, W):
    if not hasattr(self, "seen"):
        original(self, W.copy())
    self.seen = True


@plant(BlockWorkspace, "_work", "joint.blocks")
def last_block_forgotten(original, self, rows, task):
    last = len(self.blocks(rows)) - 1

    def all_but_the_last(worker, index, block):
        if index < last or not last:
            task(worker, index, block)

    original(self, rows, all_but_the_last)


@plant(BlockWorkspace, "_work", "synapse.links")
def last_row_of_the_first_block_forgotten(original, self, rows, task):
    def most(worker, index, block):
        with suppress(IndexError, ValueError):
            stop = block.stop if block.start else max(1, block.stop - 1)
            task(worker, index, slice(block.start, stop))

    original(self, rows, most)


@plant(LinearMap, "workspace", "joint.samples")
@plant(Dense, "workspace", "joint.samples")
def workspace_of_the_transposed(original, self, backend, parts, dtype, *, upward=True, workers=1):
    square = self.inputs == self.outputs
    return original(self, backend, parts, dtype, upward=upward != square, workers=workers)
