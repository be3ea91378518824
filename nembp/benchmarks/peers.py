"""The same training step in PyTorch and scikit-learn, as their users would write it.

Each peer starts from the parameters of a :class:`~nembp.network.Network` and can give them back
in its layout, so that the tests can check that it does the same mathematics.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from nembp.likelihoods import Gaussian
from nembp.network import Network

__all__ = ["ABSENT", "MissingPeerError", "SklearnStep", "TorchStep", "load_peers"]

ABSENT = "not installed"


class MissingPeerError(Exception):
    """A peer that cannot take part here; its message is what the table says instead."""


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: installed, but a library of it is missing
        raise MissingPeerError(ABSENT) from error


class TorchStep:
    """A step of PyTorch in eager mode with fused Adam.

    The objective is the engine's, −[log p(y | x) + log p(x | y)] / rows up to a constant:

        cross_entropy(z, labels) + w/2 · Σ (c⁰ − x)² / rows

    with c running down through the transposed weights, ``linear(c, W.T, d)``, one row a sample:
    the plain bidirectional step, without the class-sum path. ReLU layers.

    Parameters
    ----------
    net : Network
        Start: dense ReLU layers, multinomial forward, Gaussian backward.
    x, labels : ndarray, shapes (rows, inputs) and (rows,)
        The batch, which stays on the device.
    bidirectional : bool
        Whether to train the backward direction too.
    learning_rate : float
        Of Adam.

    Raises
    ------
    MissingPeerError
        If PyTorch is not installed, or has no CUDA where the network is on a GPU.
    """

    def __init__(
        self,
        net: Network,
        x: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        *,
        bidirectional: bool,
        learning_rate: float,
    ) -> None:
        torch = _import("torch")
        self._torch, self._linear = torch, torch.nn.functional.linear
        device = "cuda" if net.backend.name == "gpu" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise MissingPeerError("no CUDA")
        self._cuda = device == "cuda"

        def tensor(array: Any, trained: bool = False) -> Any:
            host = np.array(net.backend.to_numpy(array), order="C")
            return torch.tensor(host, device=device, requires_grad=trained)

        # nn.Linear's layout is (outputs, inputs), the transpose of ours
        self.weights = [tensor(W.T, trained=True) for W in net.weights]
        self.up = [tensor(b, trained=True) for b in net.biases[1:]]
        down = net.reversed.biases[:0:-1] if bidirectional else []
        self.down = [tensor(d, trained=True) for d in down]  # of layers 0..L-1
        self.x = tensor(net.backend.asarray(x, net.dtype))
        self.labels = torch.tensor(labels, device=device)
        self.t = torch.nn.functional.one_hot(self.labels, net.outputs).to(self.x.dtype)
        backward = net.reversed.likelihood
        if not isinstance(backward, Gaussian):
            raise TypeError(f"the peer's backward direction is Gaussian, got {backward.name}")
        self._factor = 0.5 * backward.scale / len(labels)
        self._optimizer = torch.optim.Adam(
            [*self.weights, *self.up, *self.down], lr=learning_rate, fused=True
        )

    def objective(self) -> Any:
        """Return the joint objective of the batch in nats, up to a constant."""
        functional, last = self._torch.nn.functional, len(self.weights) - 1
        a = self.x
        for k, (W, b) in enumerate(zip(self.weights, self.up, strict=True)):
            a = self._linear(a, W, b)
            if k < last:
                a = functional.relu(a)
        total = functional.cross_entropy(a, self.labels)
        if not self.down:
            return total
        c = self.t
        for k in range(last, -1, -1):
            c = self._linear(c, self.weights[k].t(), self.down[k])
            if k > 0:
                c = functional.relu(c)
        squares = functional.mse_loss(c, self.x, reduction="sum")
        return total + self._factor * squares

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        self._optimizer.step()

    def synchronize(self) -> None:
        """Wait for the GPU, if it is used."""
        if self._cuda:
            self._torch.cuda.synchronize()

    def parameters(self) -> np.ndarray[Any, Any]:
        """Return the trained parameters as one vector in the network's layout."""
        trained = [*(W.t() for W in self.weights), *self.up, *self.down]
        return np.concatenate([p.detach().cpu().numpy().reshape(-1) for p in trained])


class SklearnStep:
    """One ``MLPClassifier.partial_fit`` on the batch: one direction, Adam, on the CPU.

    Its own overheads, such as validating the input, are part of the step; shuffling and weight
    decay are switched off. The first call of ``partial_fit``, which allocates everything, is made
    here, so Adam's moments are those of one step from scikit-learn's own start.

    Raises
    ------
    MissingPeerError
        If scikit-learn is not installed, the network is on a GPU, or it has two classes, for
        which MLPClassifier has a single logistic output.
    """

    def __init__(
        self,
        net: Network,
        x: np.ndarray[Any, Any],
        labels: np.ndarray[Any, Any],
        *,
        learning_rate: float,
    ) -> None:
        if net.backend.name == "gpu":
            raise MissingPeerError("CPU only")
        neural = _import("sklearn.neural_network")
        if net.outputs < 3:
            raise MissingPeerError("one logistic output")
        self.x, self.labels = np.ascontiguousarray(x, dtype=net.dtype), labels
        self.model = neural.MLPClassifier(
            tuple(layer.size for layer in net.layers[1:-1]),
            activation="relu",
            solver="adam",
            alpha=0.0,
            batch_size=len(labels),
            learning_rate_init=learning_rate,
            shuffle=False,
            random_state=0,
        )
        self.model.partial_fit(self.x, labels, classes=np.arange(net.outputs))
        to_numpy = net.backend.to_numpy
        for W, start in zip(self.model.coefs_, net.weights, strict=True):
            W[...] = to_numpy(start)
        for b, start in zip(self.model.intercepts_, net.biases[1:], strict=True):
            b[...] = to_numpy(start)

    def __call__(self) -> None:
        """One step."""
        self.model.partial_fit(self.x, self.labels)

    def parameters(self) -> np.ndarray[Any, Any]:
        """Return the trained parameters as one vector in the network's layout."""
        trained = [*self.model.coefs_, *self.model.intercepts_]
        return np.concatenate([p.reshape(-1) for p in trained])


def load_peers() -> dict[str, bool]:
    """Import the peers that are installed, and say which they are."""
    found = {}
    for name in ("torch", "sklearn.neural_network"):
        try:
            _import(name)
        except MissingPeerError:
            found[name.partition(".")[0]] = False
        else:
            found[name.partition(".")[0]] = True
    return found
