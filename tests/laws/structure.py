"""Laws of synapses (the trilinear form) and of networks (two views of one vector)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from laws.numerics import ROUNDING, assert_near
from nembp.backend import get_backend
from nembp.network import Network
from nembp.synapses import Synapse, Transposed


def contractions(
    synapse: Synapse, x: np.ndarray, W: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return forward(x), adjoint(y) and weight_gradient(x, y), from buffers that held NaN."""
    backend = get_backend("cpu")
    up, down = np.full_like(y, np.nan), np.full_like(x, np.nan)
    gradient = np.full(synapse.weight_shape, np.nan)
    synapse.forward(backend, x, W, up)
    synapse.adjoint(backend, y, W, down)
    synapse.weight_gradient(backend, x, y, gradient)
    return up, down, gradient


def check_trilinear(synapse: Synapse, rows: int, seed: int) -> None:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩, and all three are linear."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, synapse.inputs))
    y = generator.normal(size=(rows, synapse.outputs))
    W = generator.normal(size=synapse.weight_shape)
    up, down, gradient = contractions(synapse, x, W, y)
    scale = float(np.abs(x).sum() * np.abs(y).max() * np.abs(W).max(initial=1.0))
    forms = [np.sum(up * y), np.sum(x * down)]
    if synapse.weight_count:
        forms.append(np.sum(W * gradient))
    for form in forms[1:]:
        assert_near(form, forms[0], ROUNDING, "trilinear form", scale=scale)
    assert abs(forms[0]) > 0.0, "the form vanishes, so its law says nothing"
    # each row by itself, since a form summed over rows cannot tell them apart
    for r in range(rows):
        row = slice(r, r + 1)
        one = contractions(synapse, x[row], W, y[row])
        assert_near(up[row], one[0], ROUNDING, "forward, row by row", scale=scale)
        assert_near(down[row], one[1], ROUNDING, "adjoint, row by row", scale=scale)
    twice = contractions(synapse, 2.0 * x, W, -3.0 * y)
    for actual, once, factor in zip(twice, (up, down, gradient), (2.0, -3.0, -6.0), strict=True):
        assert_near(actual, factor * once, ROUNDING, "linearity", scale=scale)


def check_transposed(synapse: Synapse, rows: int, seed: int) -> None:
    """``Transposed`` exchanges the arguments over the same W, and undoes itself."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, synapse.inputs))
    y = generator.normal(size=(rows, synapse.outputs))
    W = generator.normal(size=synapse.weight_shape)
    turned = Transposed(synapse)
    assert (turned.inputs, turned.outputs) == (synapse.outputs, synapse.inputs)
    assert turned.weight_shape == synapse.weight_shape
    assert turned.weight_count == synapse.weight_count
    up, down, gradient = contractions(synapse, x, W, y)
    swapped = contractions(turned, y, W, x)
    for actual, expected in zip(swapped, (down, up, gradient), strict=True):
        assert np.array_equal(actual, expected), "Transposed is not the same form turned"
    back = contractions(Transposed(turned), x, W, y)
    for actual, expected in zip(back, (up, down, gradient), strict=True):
        assert np.array_equal(actual, expected), "transposing twice changes the synapse"


def check_views(net: Network) -> None:
    """Weights and biases of both directions are views that cover the flat vector exactly once."""
    count = net.parameter_count
    assert net.parameters.shape == (count,)
    assert net.reversed.parameters is net.parameters
    assert net.reversed.parameter_count == count
    assert net.reversed.reversed is net
    kept = net.parameters.copy()
    net.parameters[...] = np.arange(count, dtype=net.dtype)
    weights = [W.reshape(-1) for W in net.weights]
    forward, backward = ([b for b in d.biases if b is not None] for d in (net, net.reversed))
    if net.direction == "backward":
        weights, forward, backward = weights[::-1], backward, forward
    seen = np.concatenate([*weights, *forward, *backward[::-1]])
    assert np.array_equal(seen, np.arange(count)), "views miss or repeat entries of the vector"
    for W, other in zip(net.weights, net.reversed.weights[::-1], strict=True):
        assert np.shares_memory(W, other)
        assert np.array_equal(W, other)
    assert net.biases[0] is None
    for layer, bias in zip(net.layers[1:], net.biases[1:], strict=True):
        assert bias is not None
        assert bias.shape == (layer.biases,)
    net.parameters[...] = kept


def check_copy(net: Network, copier: Callable[[Network], Network], dtype: str) -> None:
    """A copy predicts the same; its own vector drives its own two directions, and no others."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(3, net.inputs))
    y = generator.normal(size=(3, net.outputs))
    before = net.predict(x).copy(), net.reversed.predict(y).copy()
    vector = net.parameters.copy()
    copied = copier(net)
    check_views(copied)
    assert copied.dtype == dtype
    assert str(copied.parameters.dtype) == dtype
    assert copied.direction == net.direction
    assert (copied.layers, copied.synapses) == (net.layers, net.synapses)
    assert copied.likelihood == net.likelihood
    assert copied.reversed.likelihood == net.reversed.likelihood
    assert not np.shares_memory(copied.parameters, net.parameters), "a copy shares memory"
    assert np.array_equal(copied.parameters, vector.astype(dtype))
    precision = 1e-5 if "float32" in (dtype, net.dtype) else 1e-14
    assert_near(copied.predict(x), before[0], precision, "prediction of the copy", scale=1.0)
    assert_near(copied.reversed.predict(y), before[1], precision, "of its reversed", scale=1.0)
    copied.parameters[...] += 0.25
    for W, original in zip(copied.weights, net.weights, strict=True):
        assert_near(W, original + 0.25, precision, "weights of the changed copy", scale=1.0)
    assert np.array_equal(net.parameters, vector), "changing a copy changed the original"
    assert np.array_equal(net.predict(x), before[0]), "and its predictions"
    assert np.array_equal(net.reversed.predict(y), before[1]), "and its reversed predictions"
    one = copied.reversed.biases[-1]
    assert one is not None
    one[...] = 7.0
    assert np.count_nonzero(copied.parameters == 7.0) >= one.size
