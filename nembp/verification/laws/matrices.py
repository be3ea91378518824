"""The matrix by which each kind of linear map multiplies, written out from its defining sum.

Nothing here calls a linear map, but for kinds that are not nembp's own, whose matrix is found by
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
from nembp.engine.convolution import Convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed

__all__ = ["is_written_out", "matrix_of", "weight_gradient_of"]

Matrix = np.ndarray[Any, Any]
NONE = -1  # the place of a weight where two neurons are not joined
OURS = (Dense, Convolution, AveragePooling, Reshape)


def is_written_out(linear_map: LinearMap) -> bool:
    """Whether the matrix of a linear map comes from its definition, not from the linear map itself."""
    if type(linear_map) is Transposed:
        return is_written_out(linear_map.linear_map)
    return type(linear_map) in OURS


def matrix_of(linear_map: LinearMap, W: Any) -> Any:
    """Return the (inputs, outputs) matrix by which a linear map with weights W multiplies rows."""
    if type(linear_map) is Transposed:
        return matrix_of(linear_map.linear_map, W).T
    if type(linear_map) is Dense:
        return W.reshape(linear_map.inputs, linear_map.outputs)
    if not is_written_out(linear_map):
        out = np.empty((linear_map.inputs, linear_map.outputs))
        linear_map.forward(get_backend("cpu"), np.eye(linear_map.inputs), np.asarray(W, float), out)
        return out
    if not linear_map.weight_count:
        matrix = _fixed(linear_map)
        return matrix if isinstance(W, np.ndarray) else W.new_tensor(matrix)
    places = _places(linear_map)
    matrix = W.reshape(-1)[np.maximum(places, 0)]
    matrix[places == NONE] = 0.0
    return matrix


def weight_gradient_of(linear_map: LinearMap, x: Matrix, y: Matrix) -> Matrix:
    """Return ∂⟨x·W, y⟩/∂W: each weight gathers xᵀ y wherever the matrix has it."""
    if type(linear_map) is Transposed:
        return weight_gradient_of(linear_map.linear_map, y, x)
    if not linear_map.weight_count:
        return np.zeros(linear_map.weight_shape)
    if type(linear_map) is Dense:
        return np.asarray(x.T @ y)
    if is_written_out(linear_map):
        places = _places(linear_map)
        joined = places != NONE
        sums = np.bincount(places[joined], (x.T @ y)[joined], minlength=linear_map.weight_count)
        return np.asarray(sums.reshape(linear_map.weight_shape))
    # linear in W, so its value at each unit weight
    units = np.eye(linear_map.weight_count).reshape(-1, *linear_map.weight_shape)
    forms = [np.sum((x @ matrix_of(linear_map, unit)) * y) for unit in units]
    return np.array(forms, dtype=float).reshape(linear_map.weight_shape)


@lru_cache(maxsize=256)
def _places(linear_map: Convolution) -> Matrix:
    """Return where in flat W the weight of each (lower, upper) pair of neurons is, or NONE.

    x[s p + i − above, t q + j − left, c] W[i, j, c, k] y[p, q, k]; pixels outside are zeros.
    """
    (height, width, below), above = linear_map.shape, linear_map.channels
    tops = _tops(height, linear_map.kernel[0], linear_map.stride[0], linear_map.padding[0])
    lefts = _tops(width, linear_map.kernel[1], linear_map.stride[1], linear_map.padding[1])
    shape = (*linear_map.kernel, below, above)
    kernel = np.arange(math.prod(shape)).reshape(shape)
    places = np.full((height * width * below, len(tops) * len(lefts) * above), NONE)
    for (p, top), (q, left) in product(enumerate(tops), enumerate(lefts)):
        upper = (p * len(lefts) + q) * above
        for i, j in product(range(linear_map.kernel[0]), range(linear_map.kernel[1])):
            h, w = top + i, left + j
            if 0 <= h < height and 0 <= w < width:
                lower = (h * width + w) * below
                places[lower : lower + below, upper : upper + above] = kernel[i, j]
    return places


def _tops(size: int, window: int, step: int, padding: int) -> range:
    """Return where along one axis the windows begin, all inside the padded image."""
    return range(-padding, size + padding - window + 1, step)


@lru_cache(maxsize=256)
def _fixed(linear_map: AveragePooling | Reshape) -> Matrix:
    """Return the matrix of a map without weights."""
    lower = math.prod(linear_map.shape)
    if isinstance(linear_map, Reshape):
        axes = linear_map.axes or tuple(range(len(linear_map.shape)))
        turned = tuple(linear_map.shape[axis] for axis in axes)
        matrix = np.zeros((lower, lower))
        for k, index in enumerate(product(*map(range, linear_map.shape))):
            matrix[k, np.ravel_multi_index(tuple(index[axis] for axis in axes), turned)] = 1.0
        return matrix
    height, width, channels = linear_map.shape
    tops = _tops(height, linear_map.window[0], linear_map.stride[0], 0)
    lefts = _tops(width, linear_map.window[1], linear_map.stride[1], 0)
    matrix = np.zeros((lower, len(tops) * len(lefts) * channels))
    for (p, top), (q, left) in product(enumerate(tops), enumerate(lefts)):
        for i, j, c in product(
            range(linear_map.window[0]), range(linear_map.window[1]), range(channels)
        ):
            pixel = ((top + i) * width + left + j) * channels + c
            pooled = (p * len(lefts) + q) * channels + c
            matrix[pixel, pooled] = 1.0 / math.prod(linear_map.window)
    return matrix
