"""Bidirectional backpropagation on one page of plain NumPy, without tricks: read this first.

A network joins layers 0..L by matrices W¹..Wᴸ, which both directions use (samples are rows):

    forward,  x → y:   a⁰ = x,   zᵏ = aᵏ⁻¹ Wᵏ + bᵏ,          aᵏ = f(zᵏ)
    backward, y → x:   cᴸ = y,   uᵏ⁻¹ = cᵏ (Wᵏ)ᵀ + dᵏ⁻¹,     cᵏ⁻¹ = f(uᵏ⁻¹)

At its end a direction has the output activation of its likelihood in place of f. Training climbs
log p(y | x) + log p(x | y) (Adigun and Kosko 2019), with noise on both targets that makes them more
probable (Audhkhasi, Osoba and Kosko 2016). The engine does the same faster, and is tested by this.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

ACTIVATIONS: dict[str, Any] = {  # f(z), and f'(z) in terms of a = f(z)
    "relu": (lambda z: np.maximum(z, 0), lambda a: np.where(a > 0, 1.0, 0.0)),
    "tanh": (np.tanh, lambda a: 1 - a**2),
    "logistic": (lambda z: 0.5 + 0.5 * np.tanh(0.5 * z), lambda a: a * (1 - a)),
    "identity": (lambda z: z, np.ones_like),
}


class Likelihood:
    """Of a target t, given the pre-activation z at the end of a direction."""

    activation: Any = staticmethod(ACTIVATIONS["identity"][0])
    natural: Any = activation  # log p(t) = ⟨t, natural(z)⟩ + what t has no part in

    def __init__(self, weight: float = 1.0) -> None:
        self.weight = weight  # a tempering power; the Gaussian's is its precision 1/v

    def error(self, z: Any, t: Any) -> Any:  # −∂log p/∂z: backprop invariance
        return self.weight * (self.activation(z) - t)

    def gain(self, z: Any, t: Any, n: Any) -> Any:  # log p(t + n) − log p(t), by sample
        return self.weight * np.sum(n * self.natural(z), axis=1, keepdims=True)


class Gaussian(Likelihood):
    """Regression."""

    def log_p(self, z: Any, t: Any) -> Any:
        return 0.5 * np.sum(np.log(self.weight / (2 * np.pi)) - self.weight * (t - z) ** 2, axis=1)

    def gain(self, z: Any, t: Any, n: Any) -> Any:  # the same, by component
        return 0.5 * self.weight * ((t - z) ** 2 - (t + n - z) ** 2)


class Bernoulli(Likelihood):
    """Bits, or numbers between 0 and 1."""

    activation = staticmethod(ACTIVATIONS["logistic"][0])

    def log_p(self, z: Any, t: Any) -> Any:
        return self.weight * np.sum(t * z - np.logaddexp(0, z), axis=1)


class Multinomial(Likelihood):
    """Classification: targets are one-hot rows, or other probabilities."""

    def natural(self, z: Any) -> Any:  # log a
        z = z - z.max(axis=1, keepdims=True)  # softmax is blind to a shift
        return z - np.log(np.exp(z).sum(axis=1, keepdims=True))

    def activation(self, z: Any) -> Any:  # softmax
        return np.exp(self.natural(z))

    def log_p(self, z: Any, t: Any) -> Any:
        return self.weight * np.sum(t * self.natural(z), axis=1)

    def error(self, z: Any, t: Any) -> Any:  # a − t, also where noise has made Σt ≠ 1
        return self.weight * (self.activation(z) * t.sum(axis=1, keepdims=True) - t)


def nem_noise(likelihood: Any, z: Any, t: Any, std: float, rng: Any) -> Any:
    """Return n with log p(t + n) ≥ log p(t): draws that would lose are reflected, or dropped."""
    n = std * rng.standard_normal(t.shape)
    n = np.where(likelihood.gain(z, t, n) >= 0, n, -n)
    return np.where(likelihood.gain(z, t, n) >= 0, n, 0.0)


class Network:
    """Two directions over one vector θ = (W¹..Wᴸ, b¹..bᴸ, d⁰..dᴸ⁻¹)."""

    def __init__(self, sizes: Any, activation: str, forward: Any, backward: Any, rng: Any) -> None:
        L, shapes = len(sizes) - 1, [*pairwise(sizes), *((n,) for n in sizes[1:] + sizes[:-1])]
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        self.theta, (self.f, self.slope) = np.zeros(ends[-1]), ACTIVATIONS[activation]
        views = [v.reshape(s) for v, s in zip(np.split(self.theta, ends), shapes, strict=False)]
        W, b, d = views[:L], views[L : 2 * L], views[2 * L :]
        for Wk in W:  # Glorot and Bengio (2010): the rule that treats both directions alike
            Wk[...] = rng.normal(0, np.sqrt(2 / sum(Wk.shape)), Wk.shape)
        self.forward = W, b, forward
        self.backward = [Wk.T for Wk in W[::-1]], d[::-1], backward

    def signals(self, direction: Any, x: Any) -> Any:
        """Return a⁰ = x, a¹, ..., aᴸ⁻¹ and zᴸ of a direction."""
        (W, b, _), a = direction, [x]
        for k in range(len(W) - 1):
            a.append(self.f(a[k] @ W[k] + b[k]))
        return [*a, a[-1] @ W[-1] + b[-1]]

    def gradient_of(self, direction: Any, x: Any, t: Any, std: float, rng: Any) -> Any:
        """Return the gradient of the mean −log p(t + n | x), of each W and of each b."""
        (W, _, likelihood), (*a, z) = direction, self.signals(direction, x)
        n = nem_noise(likelihood, z, t, std, rng) if std > 0 else 0.0
        delta = likelihood.error(z, t + n) / len(t)
        dW, db = [*W], [*W]
        for k in reversed(range(len(W))):
            dW[k], db[k] = a[k].T @ delta, delta.sum(axis=0)
            delta = (delta @ W[k].T) * self.slope(a[k])
        return dW, db

    def gradient(self, x: Any, y: Any, std: float = 0.0, rng: Any = None) -> Any:
        """Return the gradient of the mean −log p(y | x) − log p(x | y), with noise on y and x."""
        up, db = self.gradient_of(self.forward, x, y, std, rng)
        down, dd = self.gradient_of(self.backward, y, x, std, rng)
        dW = [one + other.T for one, other in zip(up, down[::-1], strict=True)]  # both use W
        return np.concatenate([g.ravel() for g in (*dW, *db, *dd[::-1])])


def train_on_digits(epochs: int = 30, seed: int = 0) -> tuple[float, float]:
    """Return the accuracy on held-out digits, and the distance of backward(class) from its mean."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    x, y, rng = images / 16, np.eye(10)[labels], np.random.default_rng(seed)
    train, held_out = np.split(rng.permutation(len(x)), [1440])
    net, m, v = Network([64, 128, 10], "relu", Multinomial(), Gaussian(), rng), 0.0, 0.0
    for step in range(1, 45 * epochs + 1):
        epoch, batch = divmod(step + 44, 45)
        train = rng.permutation(train) if batch == 0 else train
        rows = train[32 * batch : 32 * batch + 32]
        g = net.gradient(x[rows], y[rows], 0.02 / epoch, rng)  # annealed noise, σ₀ / t
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2  # Adam (Kingma and Ba, 2015)
        mean, size = m / (1 - 0.9**step), np.sqrt(v / (1 - 0.999**step))
        net.theta -= 0.004 * (1 - epoch / (epochs + 1)) * mean / (size + 1e-8)
    right = net.signals(net.forward, x[held_out])[-1].argmax(axis=1) == labels[held_out]
    means = np.array([x[train][labels[train] == k].mean(axis=0) for k in range(10)])
    away = np.linalg.norm(net.signals(net.backward, np.eye(10))[-1] - means, axis=1)
    return float(right.mean()), float(np.mean(away / np.linalg.norm(means, axis=1)))


if __name__ == "__main__":
    print("held-out accuracy {:.3f}, centroid error {:.3f}".format(*train_on_digits()))
