"""The same training step in PyTorch and scikit-learn, as their users would write it.

Each peer starts from the parameters of a :class:`~nembp.engine.network.Network` and can give them back
in its layout, so that the tests can check that it does the same mathematics.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from nembp.benchmarks.torch_maps import (
    bias_host,
    bias_tensor,
    get_map,
    image_shapes,
    to_image,
)
from nembp.engine.likelihoods import Gaussian
from nembp.engine.network import Network

__all__ = ["ABSENT", "MissingPeerError", "SklearnStep", "TorchStep", "import_peer", "load_peers"]

ABSENT = "not installed"


class MissingPeerError(Exception):
    """A peer that cannot take part here; its message is what the table says instead."""


def import_peer(name: str) -> Any:
    """Import a peer's module, or raise MissingPeerError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: installed, but a library of it is missing
        raise MissingPeerError(ABSENT) from error


class TorchStep:
    """A step of PyTorch in eager mode with fused Adam.

    The objective is the engine's, −[log p(y | x) + log p(x | y)] / rows up to a constant:

        cross_entropy(z, labels) + w/2 · Σ (c⁰ − x)² / rows

    with c running down through the transposes of the same maps (:mod:`.torch_maps`), one row a
    sample: the plain bidirectional step, without the class-sum path. ReLU layers.

    Parameters
    ----------
    net : Network
        Start: ReLU or linear layers, multinomial forward, Gaussian backward.
    x, labels : ndarray, shapes (rows, inputs) and (rows,)
        The batch, which stays on the device.
    bidirectional : bool
        Whether to train the backward direction too.
    learning_rate : float
        Of Adam.
    channels_last : bool
        Whether images and kernels lie in memory with their channels last.
    device : str, optional
        PyTorch's; by default that of the network.

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
        channels_last: bool = False,
        device: str | None = None,
    ) -> None:
        torch = import_peer("torch")
        self._functional = torch.nn.functional
        device = device or ("cuda" if net.backend.name == "gpu" else "cpu")
        if device == "cuda" and not torch.cuda.is_available():
            raise MissingPeerError("no CUDA")
        self.on_gpu = device == "cuda"
        self._synchronize = torch.cuda.synchronize if device == "cuda" else None
        backward = net.reversed.likelihood
        if not isinstance(backward, Gaussian):
            raise TypeError(f"the peer's backward direction is Gaussian, got {backward.name}")

        host, shapes = net.backend.to_numpy, image_shapes(net.maps)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.maps = []
        for linear_map, W, lower in zip(net.maps, net.weights, shapes, strict=False):
            each = get_map(torch, linear_map, lower, host(W), device=device)
            if each.weight is not None and each.weight.dim() == 4:
                each.weight = each.weight.detach().to(memory_format=layout).requires_grad_()
            self.maps.append(each)

        def biases(all_biases: Sequence[Any]) -> list[Any]:
            return [
                bias_tensor(torch, layer, shape, host(b), device=device)
                if b is not None and layer.biases
                else None
                for layer, shape, b in zip(net.layers, shapes, all_biases, strict=True)
            ]

        self.up = biases(net.biases)[1:]
        down = biases(net.reversed.biases[::-1])[:-1]  # of layers 0..L-1
        self.down = down if bidirectional else []
        self._relu = [layer.activation is not None for layer in net.layers]
        batch = np.array(x, dtype=net.dtype)
        if shapes[0] is not None:
            batch = np.ascontiguousarray(to_image(batch, shapes[0]))
        self.x = torch.tensor(batch, device=device)
        self.x = self.x.to(memory_format=layout) if shapes[0] is not None else self.x
        self.labels = torch.tensor(labels, device=device)
        self.t = torch.nn.functional.one_hot(self.labels, net.outputs).to(self.x.dtype)
        self._factor = 0.5 * backward.scale / len(labels)
        self._optimizer = torch.optim.Adam(self._trained(), lr=learning_rate, fused=True)

    def _trained(self) -> list[Any]:
        each = [*(each.weight for each in self.maps), *self.up, *self.down]
        return [tensor for tensor in each if tensor is not None]

    def objective(self) -> Any:
        """Return the joint objective of the batch in nats, up to a constant."""
        relu, last = self._functional.relu, len(self.maps)
        a = self.x
        for k, (each, b) in enumerate(zip(self.maps, self.up, strict=True), start=1):
            a = each.up(a, b)
            a = relu(a) if self._relu[k] else a
        total = self._functional.cross_entropy(a, self.labels)
        if not self.down:
            return total
        c = self.t
        for k in range(last - 1, -1, -1):
            c = self.maps[k].down(c, self.down[k])
            c = relu(c) if self._relu[k] else c
        squares = self._functional.mse_loss(c, self.x, reduction="sum")
        return total + self._factor * squares

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        self._optimizer.step()

    def synchronize(self) -> None:
        """Wait for the GPU, if it is used."""
        if self._synchronize is not None:
            self._synchronize()

    def gradient(self) -> np.ndarray[Any, Any]:
        """Return the gradient at the parameters as they are, in the network's layout."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        return self._flat(lambda tensor: tensor.grad)

    def parameters(self) -> np.ndarray[Any, Any]:
        """Return the trained parameters as one vector in the network's layout."""
        return self._flat(lambda tensor: tensor)

    def _flat(self, of: Callable[[Any], Any]) -> np.ndarray[Any, Any]:
        weights = [each.host(of(each.weight)) for each in self.maps if each.weight is not None]
        biases = [bias_host(of(b)) for b in (*self.up, *self.down) if b is not None]
        return np.concatenate([array.reshape(-1) for array in (*weights, *biases)])


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
        neural = import_peer("sklearn.neural_network")
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
            import_peer(name)
        except MissingPeerError:
            found[name.partition(".")[0]] = False
        else:
            found[name.partition(".")[0]] = True
    return found
