"""The engine's definitions written out a second time, in plain NumPy, one direction at a time.

Everything takes complex numbers too, so that derivatives come from complex steps,
f'(θ) = Im f(θ + ih) / h with h = 1e-30, exact to rounding (Squire and Trapp 1998). They speak of
nembp's own parts alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from nembp import textbook
from nembp.backend import get_backend
from nembp.engine.activations import Activation, Identity, LeakyReLU, Logistic, ReLU, Tanh
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Bipolar, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.engine.network import Network
from nembp.engine.noise import DRIFT_DRAWS, Noise

Array: TypeAlias = np.ndarray[Any, Any]
Gain: TypeAlias = Callable[[Array], Array]

STEP = 1e-30
MAPS = (Dense, Convolution, AveragePooling, Reshape)
ACTIVATIONS = (Identity, LeakyReLU, Logistic, ReLU, Tanh)
LIKELIHOODS = (Multinomial, Gaussian, Bernoulli, Bipolar)


def knows(part: Any) -> bool:
    """Whether the formula of a part is written out here."""
    if type(part) is Transposed:
        return knows(part.linear_map)
    return part is None or type(part) in (*MAPS, *ACTIVATIONS, *LIKELIHOODS)


def slope(f: Callable[[Array], Any], at: Array, v: Array) -> float:
    """Return df(at + s v)/ds at s = 0."""
    return float(np.imag(f(at + 1j * STEP * v)) / STEP)


def gradient(f: Callable[[Array], Any], at: Array) -> Array:
    """Return every partial derivative of ``f`` at a flat vector."""
    return np.array([slope(f, at, unit) for unit in np.eye(at.size)])


# -- linear maps: x ↦ x M(W) -----------------------------------------------------------------------
def matrix_of(linear_map: LinearMap, W: Array) -> Array:
    """Return the matrix (inputs, outputs) by which a linear map with weights W multiplies rows."""
    if type(linear_map) is Transposed:
        return matrix_of(linear_map.linear_map, W).T
    if type(linear_map) is Dense:
        return W.reshape(linear_map.inputs, linear_map.outputs)
    if type(linear_map) is Convolution:
        places = _weights_of_pixels(linear_map)
        return np.asarray(np.append(W.reshape(-1), 0.0)[places])
    return _fixed(linear_map)


@lru_cache(maxsize=512)
def _weights_of_pixels(conv: Convolution) -> Array:
    """Return which weight joins each pair of neurons, −1 for none.

    y[p, q, k] = Σ_ijc x[s p + i − above, t q + j − left, c] W[i, j, c, k], zeros outside the image.
    """
    (height, width, below), (rows, columns, above) = conv.shape, conv.output_shape
    kernel = np.arange(math.prod(conv.weight_shape)).reshape(conv.weight_shape)
    places = np.full((height, width, below, rows, columns, above), -1)
    for p, q, i, j in product(range(rows), range(columns), *map(range, conv.kernel)):
        h = conv.stride[0] * p + i - conv.padding[0]
        w = conv.stride[1] * q + j - conv.padding[1]
        if 0 <= h < height and 0 <= w < width:
            places[h, w, :, p, q, :] = kernel[i, j]
    return places.reshape(conv.inputs, conv.outputs)


@lru_cache(maxsize=512)
def _fixed(linear_map: Any) -> Array:
    """Return the matrix of a map without weights, by its effect on the unit vectors."""
    n = linear_map.inputs
    units = np.eye(n).reshape(n, *linear_map.shape)
    if type(linear_map) is Reshape:
        axes = linear_map.axes or range(len(linear_map.shape))
        return units.transpose(0, *(axis + 1 for axis in axes)).reshape(n, n)
    (rows, columns, channels), (s, t) = linear_map.output_shape, linear_map.stride
    out = np.empty((n, rows, columns, channels))
    for p, q in product(range(rows), range(columns)):
        window = units[:, s * p :, t * q :][:, : linear_map.window[0], : linear_map.window[1]]
        out[:, p, q] = window.mean(axis=(1, 2))
    return out.reshape(n, -1)


# -- activations -----------------------------------------------------------------------------------
def activate(f: Activation | None, z: Array) -> Array:
    """Return f(z)."""
    if isinstance(f, ReLU | LeakyReLU):  # of complex numbers, by the real part
        return np.where(z.real > 0, z, getattr(f, "slope", 0.0) * z)
    return np.asarray(textbook.ACTIVATIONS[f.name if f else "identity"][0](z))


def derivative(f: Activation | None, z: Array) -> Array:
    """Return f'(z) at real or complex z."""
    if isinstance(f, ReLU | LeakyReLU):
        return np.where(z.real > 0, 1.0, getattr(f, "slope", 0.0))
    return np.asarray(textbook.ACTIVATIONS[f.name if f else "identity"][1](activate(f, z)))


# -- likelihoods -----------------------------------------------------------------------------------
log_softmax: Any = textbook.Multinomial().natural  # of each row


def log_logistic(z: Array) -> Array:
    """Return log(1 / (1 + e⁻ᶻ))."""
    return np.asarray(np.where(z.real > 0, 0.0, z) - np.log1p(np.exp(np.where(z.real > 0, -z, z))))


def output_activation(likelihood: Likelihood, z: Array) -> Array:
    """Return softmax, identity, logistic or tanh of z."""
    if isinstance(likelihood, Multinomial):
        return np.asarray(np.exp(log_softmax(z)))
    known: dict[Any, Activation] = {Bernoulli: Logistic(), Bipolar: Tanh()}
    return activate(known.get(type(likelihood)), z)


def log_likelihood(likelihood: Likelihood, z: Array, t: Array) -> Array:
    """Return log p(t | z) of each row, for any real target."""
    if isinstance(likelihood, Gaussian):
        return np.asarray(textbook.Gaussian(1.0 / likelihood.variance).log_p(z, t))
    terms = gain_terms(likelihood, z, t, t)
    if isinstance(likelihood, Bernoulli):  # log p(0)
        terms = terms + likelihood.weight * log_logistic(-z)
    elif isinstance(likelihood, Bipolar):  # −log 2 cosh z
        terms = terms + likelihood.weight * (log_logistic(2.0 * z) - z)
    return np.asarray(np.sum(terms, axis=1))


def gain_terms(likelihood: Likelihood, z: Array, t: Array, n: Array) -> Array:
    """Return log p(t + n) − log p(t), neuron by neuron."""
    if isinstance(likelihood, Gaussian):
        return n * (2.0 * (z - t) - n) / (2.0 * likelihood.variance)
    return likelihood.scale * n * (log_softmax(z) if isinstance(likelihood, Multinomial) else z)


# -- one direction of a network --------------------------------------------------------------------
def unflatten(net: Network, flat: Array) -> list[tuple[Array, Any, Any]]:
    """Return matrix, bias (one a neuron) and gain (one a channel, or None) of each step up.

    The flat vector holds weights, forward biases, backward biases, forward gains, backward gains.
    """
    forward = net if net.direction == "forward" else net.reversed
    position, matrices = 0, []

    def take(count: int) -> Array:
        nonlocal position
        position += count
        return flat[position - count : position]

    for linear_map in forward.maps:
        matrices.append(matrix_of(linear_map, take(linear_map.weight_count)))
    reached = forward.layers[1:], forward.layers[:-1]
    # neuron j of a layer with c biases has bias j mod c
    biases = [[np.resize(take(u.biases), u.size) if u.biases else 0.0 for u in g] for g in reached]
    gains = [[take(u.gains) if u.normalization else None for u in group] for group in reached]
    assert position == flat.size, "the flat vector has entries that no layer uses"
    if net.direction == "forward":
        return list(zip(matrices, biases[0], gains[0], strict=True))
    return list(zip([M.T for M in matrices], biases[1], gains[1], strict=True))[::-1]


def run(
    net: Network,
    flat: Array,
    x: Array,
    *,
    statistics: str = "batch",
    noise: Mapping[int, Array] | None = None,
) -> tuple[list[Array], list[Array], list[Any]]:
    """Return the signals a⁰.. aᴸ⁻¹, the pre-activations z¹.. zᴸ, and (mean, variance) of each.

    With ``noise`` on the signals of some layers.
    """
    noise = noise or {}
    a, z = [x + noise.get(0, 0.0)], []
    moments: list[Any] = []
    for k, (M, b, gain) in enumerate(unflatten(net, flat), start=1):
        layer, y = net.layers[k], a[-1] @ M
        moments.append(None)
        if gain is not None and layer.normalization is not None:
            values = y.reshape(-1, layer.biases)
            mean = values.mean(axis=0)
            variance = ((values - mean) ** 2).mean(axis=0)
            moments[-1] = mean, variance
            if statistics == "running":
                mean, variance = (net.backend.to_numpy(r) for r in net.running[k] or ())
            hat = (values - mean) / (variance + layer.normalization.epsilon) ** 0.5
            y = (gain * hat).reshape(y.shape)
        z.append(y + b)
        if k < len(net.maps):
            a.append(activate(layer.activation, z[-1]) + noise.get(k, 0.0))
    return a, z, moments


def z_of(net: Network, flat: Array, x: Array, **options: Any) -> Array:
    """Return the last pre-activation; options as those of :func:`run`."""
    return run(net, flat, x, **options)[1][-1]


def nll(net: Network, flat: Array, x: Array, t: Array, **options: Any) -> Any:
    """Return the mean of −log p(t | x)."""
    return -np.mean(log_likelihood(net.likelihood, z_of(net, flat, x, **options), t))


def output_error(likelihood: Likelihood, z: Array, t: Array, update: str = "exact") -> Array:
    """Return −∂log p/∂z; of the published softmax update, w (a − t) whatever Σ t is."""
    a = output_activation(likelihood, z)
    if isinstance(likelihood, Multinomial) and update != "published":
        a = a * np.sum(t, axis=1, keepdims=True)
    return np.asarray(likelihood.scale * (a - t))


# -- noise: what is drawn, what screening keeps, and its mean --------------------------------------
def standard_deviation(noise: Noise, clock: tuple[int, int]) -> float:
    """Return σₜ = σ₀ / tᵈ, t in epochs or iterations."""
    return float(noise.std / clock[noise.clock == "iteration"] ** noise.decay)


def draws(
    noise: Noise,
    likelihood: Likelihood,
    z: Array | None,
    t: Array,
    clock: tuple[int, int],
    generator: np.random.Generator,
    dtype: str,
) -> list[list[Array]]:
    """Return what is offered to screening: some draws, of which it takes one; for drift, often."""
    std, out, backend = (
        standard_deviation(noise, clock),
        np.empty(t.shape, dtype),
        get_backend("cpu"),
    )
    softmax = isinstance(likelihood, Multinomial)

    def draw() -> Array:
        if noise.law == "uniform":
            n = std * math.sqrt(12.0) * (backend.uniform(generator, out).astype(float) - 0.5)
        else:
            n = std * backend.normal(generator, out).astype(float)
        if noise.law == "curvature" and z is not None and not isinstance(likelihood, Gaussian):
            a = output_activation(likelihood, z)
            n = np.sqrt(a if softmax else a * (1.0 - a)) * n
            if softmax:  # S Sᵀ = diag(a) − a aᵀ
                n = n - a * n.sum(axis=1, keepdims=True)
        if noise.mode == "multiplicative":
            n = t * n
        if noise.update == "zero-sum" and z is not None and softmax:
            n = n - n.mean(axis=1, keepdims=True)
        return np.asarray(n)

    times, each = DRIFT_DRAWS if noise.kind == "drift" else 1, noise.draws
    return [[draw() for _ in range(1 if noise.kind == "blind" else each)] for _ in range(times)]


def gain_of(noise: Noise, likelihood: Likelihood, z: Array, t: Array) -> Gain:
    """Return n ↦ what screening looks at: the gain of each neuron, or of each sample (rows, 1)."""

    def gain(n: Array) -> Array:
        terms = gain_terms(likelihood, z, t, n)
        if noise.screening_for(likelihood) == "component":
            return terms
        whole = np.sum(terms, axis=1, keepdims=True)
        return np.full_like(whole, whole.mean()) if noise.screening == "expectation" else whole

    return gain


def screened(
    noise: Noise, gain: Gain, offers: list[list[Array]], rounding: float
) -> tuple[Array, float] | None:
    """Return the noise that is taken, and the share of draws accepted; None if rounding decides."""
    if noise.kind == "blind":
        return offers[0][0], 1.0
    sign, found = -1.0 if noise.kind == "anti" else 1.0, []
    drawn = [[(n, sign * gain(n), sign * gain(-n)) for n in some] for some in offers]
    both = rounding, -rounding  # decide ties one way, and the other
    for margin, lead in product(both, both if noise.draws > 1 else (0.0,)):
        best = [_best(some, noise.rejected == "reflect", margin, lead) for some in drawn]
        share = 0.0 if noise.kind == "drift" else float(np.mean(best[0][1]))
        found.append((np.mean([n for n, _ in best], axis=0), share))
    n, share = found[0]
    same = all(np.array_equal(n, other) and share == accepted for other, accepted in found)
    return (n, share) if same else None


def _best(drawn: list[Any], reflect: bool, margin: float, lead: float) -> tuple[Array, Array]:
    """Return the draw that gains most, as it is kept, and where it is.

    Gains have to exceed a margin, and those of earlier draws by a lead.
    """
    kept, gains = [], []
    for k, (n, forward, mirrored) in enumerate(drawn):
        moved = np.abs(n) if forward.shape == n.shape else np.abs(n).max(axis=1, keepdims=True)
        fine = forward >= margin * (moved > 0.0)
        turned = ~fine & (mirrored >= margin * (moved > 0.0)) & reflect
        kept.append(np.where(fine, n, np.where(turned, -n, 0.0)))
        gains.append(np.where(fine, forward, np.where(turned, mirrored, 0.0)) - k * lead)
    if len(drawn) == 1:
        return kept[0], fine | turned
    place = np.broadcast_to(np.argmax(gains, axis=0), n.shape)
    best = np.take_along_axis(np.array(kept), place[None], 0)[0]
    some = best != 0.0
    return best, some if gains[0].shape == best.shape else some.any(axis=1, keepdims=True)


def target_noise(
    noise: Noise,
    likelihood: Likelihood,
    z: Array,
    t: Array,
    clock: tuple[int, int],
    generator: np.random.Generator,
    dtype: str = "float64",
) -> tuple[Array, float] | None:
    """Return the noise on targets, and the share accepted; None if rounding decides about any."""
    std = standard_deviation(noise, clock)
    size = float(np.max(np.abs(z)) + np.max(np.abs(t))) + std + 1.0
    plain = noise.law == "gaussian" and noise.draws == 1 and not isinstance(likelihood, Gaussian)
    if noise.kind == "drift" and plain and noise.screening_for(likelihood) == "vector":
        n = half_space_mean(noise, likelihood, z, t, std)
        gain = gain_terms(likelihood, z, t, n).sum(axis=1)
        # a direction w / ‖w‖ is rounding alone where w is
        tied = np.any((gain > 0.0) & (gain < 1e-3 * likelihood.scale * size * std))
        return None if tied else (n, 0.0)
    rounding = 300.0 * float(np.finfo(dtype).eps) * likelihood.scale * std * size * t.shape[1]
    offers = draws(noise, likelihood, z, t, clock, generator, dtype)
    return screened(noise, gain_of(noise, likelihood, z, t), offers, rounding)


def half_space_mean(noise: Noise, likelihood: Likelihood, z: Array, t: Array, std: float) -> Array:
    """Return E[n | kept] of n = S ξ, kept where ⟨Sᵀw, ξ⟩ ≥ 0: σ √(2/π) S Sᵀw / ‖Sᵀw‖.

    Half that where rejected draws are zeroed instead of reflected.
    """
    unit, mean = np.eye(t.shape[1]), np.empty_like(t)
    for i, row in enumerate(t):
        S = np.diag(row) if noise.mode == "multiplicative" else unit
        if noise.update == "zero-sum" and isinstance(likelihood, Multinomial):
            S = (unit - 1.0 / len(row)) @ S
        w = gain_terms(likelihood, z[i : i + 1], t[i : i + 1], np.ones((1, len(row))))[0]
        v = S.T @ w
        length = float(np.linalg.norm(v))
        mean[i] = S @ v / length if length > 0.0 else 0.0
    share = 1.0 if noise.rejected == "reflect" else 0.5
    return np.asarray(std * math.sqrt(2.0 / math.pi) * share * mean)
