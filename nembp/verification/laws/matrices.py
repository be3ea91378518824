"""The matrix by which each kind of synapse multiplies, written out from its defining sum.

Nothing here calls a synapse, but for kinds that are not nembp's own, whose matrix is found by
feeding them unit vectors. Images are rows of H·W·C neurons: pixel (h, w), channel c is neuron
(h W + w) C + c. Works on NumPy arrays and on torch tensors alike.
"""

from __future__ import annotations

import math
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from nembp.backend import get_backend
from nembp.convolution import AveragePooling, Convolution, Reshape
from nembp.synapses import Dense, Synapse, Transposed

__all__ = ["is_written_out", "matrix_of", "weight_gradient_of"]

Matrix = np.ndarray[Any, Any]
NONE = -1  # the place of a weight where two neurons are not joined
OURS = (Dense, Convolution, AveragePooling, Reshape)


def is_written_out(synapse: Synapse) -> bool:
    """Whether the matrix of a synapse comes from its definition, not from the synapse itself."""
    if type(synapse) is Transposed:
        return is_written_out(synapse.synapse)
    return type(synapse) in OURS


def matrix_of(synapse: Synapse, W: Any) -> Any:
    """Return the (inputs, outputs) matrix by which a synapse with weights W multiplies rows."""
    if type(synapse) is Transposed:
        return matrix_of(synapse.synapse, W).T
    if type(synapse) is Dense:
        return W.reshape(synapse.inputs, synapse.outputs)
    if not is_written_out(synapse):
        out = np.empty((synapse.inputs, synapse.outputs))
        synapse.forward(get_backend("cpu"), np.eye(synapse.inputs), np.asarray(W, float), out)
        return out
    if not synapse.weight_count:
        matrix = _fixed(synapse)
        return matrix if isinstance(W, np.ndarray) else W.new_tensor(matrix)
    places = _places(synapse)
    matrix = W.reshape(-1)[np.maximum(places, 0)]
    matrix[places == NONE] = 0.0
    return matrix


def weight_gradient_of(synapse: Synapse, x: Matrix, y: Matrix) -> Matrix:
    """Return ∂⟨x·W, y⟩/∂W: each weight gathers xᵀ y wherever the matrix has it."""
    if type(synapse) is Transposed:
        return weight_gradient_of(synapse.synapse, y, x)
    if not synapse.weight_count:
        return np.zeros(synapse.weight_shape)
    if type(synapse) is Dense:
        return np.asarray(x.T @ y)
    if is_written_out(synapse):
        places = _places(synapse)
        joined = places != NONE
        sums = np.bincount(places[joined], (x.T @ y)[joined], minlength=synapse.weight_count)
        return np.asarray(sums.reshape(synapse.weight_shape))
    # linear in W, so its value at each unit weight
    units = np.eye(synapse.weight_count).reshape(-1, *synapse.weight_shape)
    forms = [np.sum((x @ matrix_of(synapse, unit)) * y) for unit in units]
    return np.array(forms, dtype=float).reshape(synapse.weight_shape)


@lru_cache(maxsize=256)
def _places(synapse: Convolution) -> Matrix:
    """Return where in flat W the weight of each (lower, upper) pair of neurons is, or NONE.

    x[s p + i − above, t q + j − left, c] W[i, j, c, k] y[p, q, k]; pixels outside are zeros.
    """
    (height, width, below), above = synapse.shape, synapse.channels
    tops = _tops(height, synapse.kernel[0], synapse.stride[0], synapse.padding[0])
    lefts = _tops(width, synapse.kernel[1], synapse.stride[1], synapse.padding[1])
    shape = (*synapse.kernel, below, above)
    kernel = np.arange(math.prod(shape)).reshape(shape)
    places = np.full((height * width * below, len(tops) * len(lefts) * above), NONE)
    for (p, top), (q, left) in product(enumerate(tops), enumerate(lefts)):
        upper = (p * len(lefts) + q) * above
        for i, j in product(range(synapse.kernel[0]), range(synapse.kernel[1])):
            h, w = top + i, left + j
            if 0 <= h < height and 0 <= w < width:
                lower = (h * width + w) * below
                places[lower : lower + below, upper : upper + above] = kernel[i, j]
    return places


def _tops(size: int, window: int, step: int, padding: int) -> range:
    """Return where along one axis the windows begin, all inside the padded image."""
    return range(-padding, size + padding - window + 1, step)


@lru_cache(maxsize=256)
def _fixed(synapse: AveragePooling | Reshape) -> Matrix:
    """Return the matrix of a map without weights."""
    lower = math.prod(synapse.shape)
    if isinstance(synapse, Reshape):
        axes = synapse.axes or tuple(range(len(synapse.shape)))
        turned = tuple(synapse.shape[axis] for axis in axes)
        matrix = np.zeros((lower, lower))
        for k, index in enumerate(product(*map(range, synapse.shape))):
            matrix[k, np.ravel_multi_index(tuple(index[axis] for axis in axes), turned)] = 1.0
        return matrix
    height, width, channels = synapse.shape
    tops = _tops(height, synapse.window[0], synapse.stride[0], 0)
    lefts = _tops(width, synapse.window[1], synapse.stride[1], 0)
    matrix = np.zeros((lower, len(tops) * len(lefts) * channels))
    for (p, top), (q, left) in product(enumerate(tops), enumerate(lefts)):
        for i, j, c in product(range(synapse.window[0]), range(synapse.window[1]), range(channels)):
            pixel = ((top + i) * width + left + j) * channels + c
            pooled = (p * len(lefts) + q) * channels + c
            matrix[pixel, pooled] = 1.0 / math.prod(synapse.window)
    return matrix
