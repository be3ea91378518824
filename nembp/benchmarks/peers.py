"""The same steps in PyTorch and scikit-learn, as their users would write them.

Each peer starts from the parameters of nembp's networks and can give its gradients back in their
layout. In PyTorch images are N C H W; a map goes up by its operator and down by that operator's
transpose over the same parameter. The engine's layout is N H W C.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.benchmarks.harness import Work
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import AveragePooling, LinearMap
from nembp.engine.network import Network

Host = np.ndarray[Any, Any]
Shape = tuple[int, int, int]  # height, width, channels
WARM_UP = 3  # steps before one is captured, and the first that is


class MissingPeerError(Exception):
    """A peer that cannot take part here; its message is what the table says instead."""


def import_peer(name: str) -> Any:
    """Import a peer's module, or raise MissingPeerError."""
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError: installed, but a library of it is missing
        raise MissingPeerError("not installed") from error


def load_peers(precision: str) -> None:
    """Import the peers that are installed, so that limits on threads find their libraries.

    PyTorch's float32 products on a GPU may be TF32 where nembp's are.
    """
    with suppress(MissingPeerError):
        import_peer("sklearn.neural_network")
    with suppress(MissingPeerError):
        torch = import_peer("torch")
        for library in (torch.backends.cuda.matmul, torch.backends.cudnn):
            library.allow_tf32 = precision == "tf32"


# -- PyTorch ---------------------------------------------------------------------------------------
class _Torch:
    """A step of PyTorch on the device of a backend; MissingPeerError if it is not installed there.

    ``_step`` is what a call makes; on a GPU it can be captured as a CUDA graph.
    """

    _step: Work

    def __init__(self, backend: Backend, graph: bool = False) -> None:
        self.torch, self.on_gpu = import_peer("torch"), backend.name == "gpu"
        self.device = "cuda" if self.on_gpu else "cpu"
        self._functional = self.torch.nn.functional
        if graph and not self.on_gpu:
            raise MissingPeerError("GPU only")
        if self.on_gpu and not self.torch.cuda.is_available():
            raise MissingPeerError("no CUDA")

    def __call__(self) -> None:
        """Make a step."""
        self._step()

    def tensor(self, array: Host, trained: bool = False) -> Any:
        """Return an array on the device, images there in N C H W; on a CPU channels last.

        That was the faster layout in 60 of 72 measured rows, and else seldom slower by 3 %.
        """
        found = self.torch.tensor(np.ascontiguousarray(array), device=self.device)
        if found.dim() == 4 and not self.on_gpu:
            found = found.to(memory_format=self.torch.channels_last)
        return found.requires_grad_(trained)

    def capture(self, work: Work) -> Work:
        """Return the launch of a CUDA graph of ``work``, after the calls that its warm-up needs."""
        torch, side = self.torch, self.torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        launch: Work = graph.replay
        return launch


def to_image(rows: Host, shape: Shape) -> Host:
    """Return rows (N, H W C) as an array (N, C, H, W)."""
    return rows.reshape(-1, *shape).transpose(0, 3, 1, 2)


def _host(tensor: Any) -> Host:
    array: Host = tensor.detach().cpu().contiguous().numpy()
    return array


class TorchNetwork:
    """The parameters of a network of ReLU or linear layers, and its passes in either direction.

    Each parameter is kept beside its places in the network's vector, by which it is laid out.
    """

    def __init__(self, owner: _Torch, net: Network, *, both: bool = False) -> None:
        self._tensor, self._functional = owner.tensor, owner.torch.nn.functional
        self.tensors: list[Any] = []
        self._places: list[Host] = []
        self._start = net.backend.to_numpy(net.parameters)
        places, twin = np.arange(net.parameter_count), net.to("cpu")
        forward, down = twin.views(places), twin.reversed.views(places)
        self._shapes: list[Shape | None] = [None] * len(net.layers)  # of images
        for k, linear_map in enumerate(net.maps):
            if isinstance(linear_map, (Convolution, AveragePooling)):
                self._shapes[k], self._shapes[k + 1] = linear_map.shape, linear_map.output_shape
        self._maps = list(map(self._map, net.maps, self._shapes, forward.weights))
        self._up = list(map(self._bias, forward.biases[1:], self._shapes[1:]))
        self._down = list(map(self._bias, down.biases[:0:-1], self._shapes)) if both else []
        self._relu = [layer.activation is not None for layer in net.layers]

    def _leaf(self, places: Host) -> Any:
        self.tensors.append(self._tensor(self._start[places], trained=True))
        self._places.append(places)
        return self.tensors[-1]

    def _bias(self, places: Any, shape: Shape | None) -> Any:
        """Return the bias of a layer: of each unit, of each channel, or none."""
        if shape is not None and len(places) == math.prod(shape):
            return self._leaf(to_image(places, shape)[0])
        return self._leaf(places) if len(places) else None

    def _map(self, linear_map: LinearMap, lower: Shape | None, W: Host) -> tuple[Any, Any]:
        """Return a map upwards and downwards over the same parameter, of signals and a bias."""
        functional = self._functional
        if isinstance(linear_map, Convolution):
            kernels = self._leaf(W.transpose(3, 2, 0, 1))  # (out, in, height, width)
            way: Any = {"stride": linear_map.stride, "padding": linear_map.padding}
            down = _transposed(functional, linear_map.shape, linear_map.kernel, **way)
            return partial(functional.conv2d, weight=kernels, **way), partial(down, weight=kernels)
        if isinstance(linear_map, AveragePooling):
            window, stride, channels = linear_map.window, linear_map.stride, linear_map.shape[2]
            mean = np.full((channels, 1, *window), 1.0 / math.prod(window), self._start.dtype)
            down = _transposed(functional, linear_map.shape, window, stride, (0, 0))
            down = partial(down, weight=self._tensor(mean), groups=channels)
            return partial(functional.avg_pool2d, kernel_size=window, stride=stride), down
        if lower is None:
            weight = self._leaf(W.T)  # nn.Linear's layout is (outputs, inputs)
        else:  # images are flattened: rows of W from H W C to C H W
            weight = self._leaf(W.reshape(*lower, -1).transpose(3, 2, 0, 1).reshape(W.shape[::-1]))

        def up(a: Any, bias: Any = None) -> Any:
            return functional.linear(a.flatten(1), weight, bias)

        def lowered(c: Any, bias: Any = None) -> Any:
            if lower is None:
                return functional.linear(c, weight.t(), bias)
            height, width, channels = lower
            images = functional.linear(c, weight.t()).unflatten(1, (channels, height, width))
            return images if bias is None else images + bias.view(-1, 1, 1)

        return up, lowered

    def image(self, rows: Host) -> Any:
        """Return a batch of inputs as a tensor."""
        shape = self._shapes[0]
        return self._tensor(to_image(rows, shape) if shape else rows)

    def forward(self, a: Any) -> Any:
        """Return the last pre-activation for inputs."""
        for k, ((up, _), bias) in enumerate(zip(self._maps, self._up, strict=True), start=1):
            a = self._layer(k, up, a, bias)
        return a

    def backward(self, c: Any) -> Any:
        """Return the input's pre-activation for outputs, by the transposes of the same maps."""
        for k in reversed(range(len(self._maps))):
            c = self._layer(k, self._maps[k][1], c, self._down[k])
        return c

    def _layer(self, k: int, operator: Any, signals: Any, bias: Any) -> Any:
        """Return the signals of a layer, its bias one a channel, or of images a unit."""
        if bias is None:
            z = operator(signals)
        elif bias.dim() == 1:
            z = operator(signals, bias=bias)
        else:
            z = operator(signals) + bias
        return self._functional.relu(z) if self._relu[k] else z

    def vector(self, tensors: Iterable[Any]) -> Host:
        """Return values of the parameters as one vector in the network's layout."""
        vector = np.empty(sum(places.size for places in self._places), self._start.dtype)
        for tensor, places in zip(tensors, self._places, strict=True):
            vector[places] = _host(tensor)
        return vector

    def gradient(self) -> Host:
        """Return the gradients of the parameters in the network's layout."""
        return self.vector(tensor.grad for tensor in self.tensors)


def _transposed(functional: Any, shape: Shape, window: Any, stride: Any, padding: Any) -> Any:
    """Return ``conv_transpose2d`` that gives back the pixels which no window reaches."""
    left = [(shape[i] + 2 * padding[i] - window[i]) % stride[i] for i in (0, 1)]
    way = {"stride": stride, "padding": padding, "output_padding": left}
    return partial(functional.conv_transpose2d, **way)


class TorchStep(_Torch):
    """A step of PyTorch: gradient and Adam update.

    ``eager`` with fused Adam; or ``compiled``, objective and update under
    ``torch.compile(mode="reduce-overhead")``; or the eager step captured as one CUDA ``graph``. The
    objective is the engine's, −[log p(y | x) + log p(x | y)] / rows up to a constant:

        cross_entropy(z, labels) + w/2 · Σ (c⁰ − x)² / rows

    with c running down through the transposes of the same maps, one row a sample: the plain
    bidirectional step, without the class-sum path. Multinomial forward, Gaussian backward; the
    batch x (rows, inputs) with its labels stays on the device.
    """

    def __init__(
        self, net: Network, x: Host, labels: Host, *, bidirectional: bool, learning_rate: float,
        mode: str = "eager",
    ) -> None:  # fmt: skip
        super().__init__(net.backend, graph=mode == "graph")
        backward = net.reversed.likelihood
        assert isinstance(backward, Gaussian)
        self.net = TorchNetwork(self, net, both=bidirectional)
        self.x = self.net.image(np.array(x, dtype=net.dtype))
        self.labels = self.torch.tensor(labels, device=self.device)
        self.t = self._functional.one_hot(self.labels, net.outputs).to(self.x.dtype)
        self._factor = 0.5 * backward.scale / len(labels) if bidirectional else 0.0
        rate: Any = learning_rate
        options: Any = {"fused": True, "capturable": mode == "graph"}
        if mode == "compiled":
            rate = self.torch.tensor(float(learning_rate), device=self.device)
            options = {"fused": False, "capturable": self.on_gpu}
        self._optimizer = self.torch.optim.Adam(self.net.tensors, lr=rate, **options)
        self._step = self.capture(self._eager) if mode == "graph" else self._eager
        if mode == "compiled":
            self._step = self._compiled()

    def _compiled(self) -> Work:
        torch = self.torch

        def step() -> None:
            torch.compiler.cudagraph_mark_step_begin()
            self._optimizer.zero_grad(set_to_none=True)
            objective().backward()
            update()

        try:
            objective = torch.compile(self.objective, mode="reduce-overhead")
            update = torch.compile(self._optimizer.step, mode="reduce-overhead")
            for _ in range(WARM_UP):
                step()
        except Exception as error:  # whatever a compiler raises
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise MissingPeerError(f"not compiled: {reason[0][:60]}") from error
        return step

    def objective(self) -> Any:
        """Return the joint objective of the batch in nats, up to a constant."""
        total = self._functional.cross_entropy(self.net.forward(self.x), self.labels)
        if not self._factor:
            return total
        squares = self._functional.mse_loss(self.net.backward(self.t), self.x, reduction="sum")
        return total + self._factor * squares

    def gradient(self) -> Host:
        """Return the gradient at the parameters as they are, in the network's layout."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        return self.net.gradient()

    def _eager(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        self._optimizer.step()


class TorchLayer(_Torch):
    """``conv2d`` and ``torch.autograd.grad`` with respect to images and kernels."""

    def __init__(
        self, linear_map: Convolution, backend: Backend, x: Host, y: Host, W: Host
    ) -> None:
        super().__init__(backend)
        self._x = self.tensor(to_image(x, linear_map.shape), trained=True)
        self._y = self.tensor(to_image(y, linear_map.output_shape))
        self._W = self.tensor(W.transpose(3, 2, 0, 1), trained=True)
        way = {"stride": linear_map.stride, "padding": linear_map.padding}
        self._forward = partial(self._functional.conv2d, **way)

    def _step(self) -> None:
        self._up = self._forward(self._x, self._W)
        self._down = self.torch.autograd.grad(self._up, (self._x, self._W), self._y)

    def results(self) -> list[Host]:
        """Return the derivatives of x, y and W, computed last, in the engine's layout."""
        y, x, W = (_host(each) for each in (self._up, *self._down))
        rows = [images.transpose(0, 2, 3, 1).reshape(len(images), -1) for images in (x, y)]
        return [*rows, W.transpose(2, 3, 1, 0)]


class TorchGan(_Torch):
    """The one-directional adversarial step, eager; on a GPU it can be captured as a CUDA graph.

    It draws z, runs G, moves D on real and generated samples, and moves G on what D now says of
    them: the non-saturating objective, Adam for both. Images in [0, 1].
    """

    def __init__(
        self, generator: Network, discriminator: Network, x: Host, rate: float, graph: bool = False
    ) -> None:
        super().__init__(generator.backend, graph=graph)
        self.nets = [TorchNetwork(self, net) for net in (generator, discriminator)]
        self.x = self.tensor(np.array(x, generator.dtype))
        self.z = self.x.new_zeros((len(x), generator.inputs))
        self._ones, self._zeros = self.x.new_ones((len(x), 1)), self.x.new_zeros((len(x), 1))
        self._criterion = self._functional.binary_cross_entropy_with_logits
        way = {"lr": rate, "betas": (0.5, 0.999), "fused": True, "capturable": graph}
        self._optimizers = [self.torch.optim.Adam(net.tensors, **way) for net in self.nets]
        self._step = self.capture(self._eager) if graph else self._eager

    def _eager(self) -> None:
        self.z.normal_()
        self._work(move=True)

    def _work(self, *, move: bool) -> None:
        (g, d), (of_g, of_d) = self.nets, self._optimizers
        generated = self.torch.sigmoid(g.forward(self.z))
        of_d.zero_grad(set_to_none=True)
        both = self.torch.cat([self.x, generated.detach()])
        labels = self.torch.cat([self._ones, self._zeros])
        (2 * self._criterion(d.forward(both), labels)).backward()
        if move:
            of_d.step()
        value = self._criterion(d.forward(generated), self._ones)
        gradients = self.torch.autograd.grad(value, g.tensors)
        for tensor, gradient in zip(g.tensors, gradients, strict=True):
            tensor.grad = gradient
        if move:
            of_g.step()

    def gradients(self, z: Host) -> list[Host]:
        """Return both gradients for these z before anything moves, as nembp lays them out."""
        self.z.copy_(self.torch.tensor(z))
        self._work(move=False)
        return [net.gradient() for net in self.nets]


# -- scikit-learn ----------------------------------------------------------------------------------
class SklearnStep:
    """One ``MLPClassifier.partial_fit`` on the batch: one direction, Adam, on the CPU.

    Its own overheads, such as validating the input, are part of the step. The first call, which
    allocates everything, is made here. With two classes it has one output and cannot take part.
    """

    def __init__(self, net: Network, x: Host, labels: Host, *, learning_rate: float) -> None:
        neural = import_peer("sklearn.neural_network")
        if net.outputs < 3:
            raise MissingPeerError("one logistic output")
        self.x, self.labels = np.ascontiguousarray(x, dtype=net.dtype), labels
        self.model = neural.MLPClassifier(
            tuple(layer.size for layer in net.layers[1:-1]), alpha=0.0, batch_size=len(labels),
            learning_rate_init=learning_rate, shuffle=False, random_state=0,
        )  # fmt: skip
        self.model.partial_fit(self.x, self.labels, classes=np.arange(net.outputs))
        for own, start in zip(self._arrays(), [*net.weights, *net.biases[1:]], strict=True):
            own[...] = net.backend.to_numpy(start)

    def _arrays(self) -> list[Host]:
        return [*self.model.coefs_, *self.model.intercepts_]

    def __call__(self) -> None:
        """One step."""
        self.model.partial_fit(self.x, self.labels)

    def parameters(self) -> Host:
        """Return the trained parameters as one vector in the network's layout."""
        return np.concatenate([p.reshape(-1) for p in self._arrays()])
