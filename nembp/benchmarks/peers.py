"""The same steps in PyTorch and scikit-learn, as their users would write them.

Each peer starts from the parameters of nembp's networks and can give its gradients back in their
layout. In PyTorch images are N C H W; a map goes up by its operator and down by that operator's
transpose over the same parameter. The engine's layout is N H W C.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.benchmarks.harness import Stopwatch, Work
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import AveragePooling, LinearMap
from nembp.engine.network import Network

Host = np.ndarray[Any, Any]
Shape = tuple[int, int, int]  # height, width, channels
Operator = Callable[[Any, Any], Any]  # of signals and a bias
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


def stopwatch(step: Any, backend: Backend) -> Stopwatch:
    """Return what times a step: the backend's stopwatch, or on a GPU PyTorch's events."""
    if backend.name != "gpu" or not isinstance(step, _Torch):
        return backend.seconds

    def seconds(work: Work) -> float:
        begin, end = (step.torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return seconds


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

    def tensor(self, array: Host, channels_last: bool = False, trained: bool = False) -> Any:
        """Return an array on the device, images in one of both memory layouts."""
        found = self.torch.tensor(np.ascontiguousarray(array), device=self.device)
        if channels_last and found.dim() == 4:
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


def _biased(operator: Any, signals: Any, bias: Any) -> Any:
    """Return what an operator makes of signals, plus a bias: one a channel, or of images a unit."""
    if bias is None:
        return operator(signals)
    return operator(signals, bias=bias) if bias.dim() == 1 else operator(signals) + bias


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
    bidirectional step, without the class-sum path. ReLU or linear layers, multinomial forward,
    Gaussian backward; the batch x (rows, inputs) with its labels stays on the device.
    """

    def __init__(
        self, net: Network, x: Host, labels: Host, *, bidirectional: bool, learning_rate: float,
        channels_last: bool = False, mode: str = "eager",
    ) -> None:  # fmt: skip
        super().__init__(net.backend, graph=mode == "graph")
        backward = net.reversed.likelihood
        assert isinstance(backward, Gaussian)
        self._last = channels_last
        # each parameter beside its places in the network's vector, by which it is laid out
        self._places: list[tuple[Any, Host]] = []
        self._start = net.backend.to_numpy(net.parameters)
        places, twin = np.arange(net.parameter_count), net.to("cpu")
        forward, down = twin.views(places), twin.reversed.views(places)
        shapes: list[Shape | None] = [None] * len(net.layers)  # of images
        for k, linear_map in enumerate(net.maps):
            if isinstance(linear_map, (Convolution, AveragePooling)):
                shapes[k], shapes[k + 1] = linear_map.shape, linear_map.output_shape
        self._maps = list(map(self._map, net.maps, shapes, forward.weights))
        self._up = list(map(self._bias, forward.biases[1:], shapes[1:]))
        self._down = list(map(self._bias, down.biases[:0:-1], shapes)) if bidirectional else []
        self._relu = [layer.activation is not None for layer in net.layers]
        batch = np.array(x, dtype=net.dtype)
        self.x = self.tensor(to_image(batch, shapes[0]) if shapes[0] else batch, channels_last)
        self.labels = self.torch.tensor(labels, device=self.device)
        self.t = self._functional.one_hot(self.labels, net.outputs).to(self.x.dtype)
        self._factor = 0.5 * backward.scale / len(labels)
        rate: Any = learning_rate
        options: Any = {"fused": True, "capturable": mode == "graph"}
        if mode == "compiled":
            rate = self.torch.tensor(float(learning_rate), device=self.device)
            options = {"fused": False, "capturable": self.on_gpu}
        trained = [tensor for tensor, _ in self._places]
        self._optimizer = self.torch.optim.Adam(trained, lr=rate, **options)
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

    def _leaf(self, places: Host) -> Any:
        tensor = self.tensor(self._start[places], self._last, trained=True)
        self._places.append((tensor, places))
        return tensor

    def _bias(self, places: Any, shape: Shape | None) -> Any:
        """Return the bias of a layer: of each unit, of each channel, or none."""
        if shape is not None and len(places) == math.prod(shape):
            return self._leaf(to_image(places, shape)[0])
        return self._leaf(places) if len(places) else None

    def _map(
        self, linear_map: LinearMap, lower: Shape | None, W: Host
    ) -> tuple[Operator, Operator]:
        """Return a map upwards and downwards over the same parameter."""
        functional = self._functional
        up: Any
        down: Any
        if isinstance(linear_map, Convolution):
            kernels = self._leaf(W.transpose(3, 2, 0, 1))  # (out, in, height, width)
            way: Any = {"stride": linear_map.stride, "padding": linear_map.padding}
            up = partial(functional.conv2d, weight=kernels, **way)
            down = _transposed(functional, linear_map.shape, linear_map.kernel, **way)
            down = partial(down, weight=kernels)
        elif isinstance(linear_map, AveragePooling):
            window, stride, channels = linear_map.window, linear_map.stride, linear_map.shape[2]
            mean = np.full((channels, 1, *window), 1.0 / math.prod(window), self._start.dtype)
            up = partial(functional.avg_pool2d, kernel_size=window, stride=stride)
            down = _transposed(functional, linear_map.shape, window, stride, (0, 0))
            down = partial(down, weight=self.tensor(mean), groups=channels)
        else:
            if lower is not None:  # images are flattened: rows of W from H W C to C H W
                W = W.reshape(*lower, -1).transpose(2, 0, 1, 3).reshape(W.shape)
            weight = self._leaf(W.T)  # nn.Linear's layout is (outputs, inputs)

            def up(a: Any, bias: Any = None) -> Any:
                return functional.linear(a.flatten(1), weight, bias)

            def down(c: Any, bias: Any = None) -> Any:
                if lower is None:
                    return functional.linear(c, weight.t(), bias)
                height, width, channels = lower
                images = functional.linear(c, weight.t()).unflatten(1, (channels, height, width))
                return images if bias is None else images + bias.view(-1, 1, 1)

        return partial(_biased, up), partial(_biased, down)

    def objective(self) -> Any:
        """Return the joint objective of the batch in nats, up to a constant."""
        relu, a = self._functional.relu, self.x
        for k, ((up, _), bias) in enumerate(zip(self._maps, self._up, strict=True), start=1):
            a = up(a, bias)
            a = relu(a) if self._relu[k] else a
        total = self._functional.cross_entropy(a, self.labels)
        if not self._down:
            return total
        c = self.t
        for k in reversed(range(len(self._maps))):
            c = self._maps[k][1](c, self._down[k])
            c = relu(c) if self._relu[k] else c
        squares = self._functional.mse_loss(c, self.x, reduction="sum")
        return total + self._factor * squares

    def _differentiate(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()

    def _eager(self) -> None:
        self._differentiate()
        self._optimizer.step()

    def gradient(self) -> Host:
        """Return the gradient at the parameters as they are, in the network's layout."""
        self._differentiate()
        return self._vector([tensor.grad for tensor, _ in self._places])

    def parameters(self) -> Host:
        """Return the trained parameters as one vector in the network's layout."""
        return self._vector([tensor for tensor, _ in self._places])

    def _vector(self, tensors: list[Any]) -> Host:
        vector = np.empty(sum(places.size for _, places in self._places), self._start.dtype)
        for tensor, (_, places) in zip(tensors, self._places, strict=True):
            vector[places] = _host(tensor)
        return vector


class TorchLayer(_Torch):
    """``conv2d`` and ``torch.autograd.grad`` with respect to images and kernels."""

    def __init__(
        self, linear_map: Convolution, backend: Backend, x: Host, y: Host, W: Host, last: bool
    ) -> None:
        super().__init__(backend)
        self._x = self.tensor(to_image(x, linear_map.shape), last, trained=True)
        self._y = self.tensor(to_image(y, linear_map.output_shape), last)
        self._W = self.tensor(W.transpose(3, 2, 0, 1), last, trained=True)
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
    them: the non-saturating objective, Adam for both. ReLU layers; images in [0, 1].
    """

    def __init__(
        self, generator: Network, discriminator: Network, x: Host, rate: float, graph: bool = False
    ) -> None:
        super().__init__(generator.backend, graph=graph)
        torch, host = self.torch, generator.backend.to_numpy
        # weights, then biases, of each network
        self._trained = [
            [self.tensor(host(each), trained=True) for each in (*net.weights, *net.biases[1:])]
            for net in (generator, discriminator)
        ]
        self.x = self.tensor(np.array(x, generator.dtype))
        self.z = self.x.new_zeros((len(x), generator.inputs))
        self._ones, self._zeros = self.x.new_ones((len(x), 1)), self.x.new_zeros((len(x), 1))
        self._criterion = self._functional.binary_cross_entropy_with_logits
        way = {"lr": rate, "betas": (0.5, 0.999), "fused": True, "capturable": graph}
        self._optimizers = [torch.optim.Adam(each, **way) for each in self._trained]
        self._step = self.capture(self._eager) if graph else self._eager

    def _run(self, trained: list[Any], a: Any) -> Any:
        last = len(trained) // 2 - 1
        for k in range(last + 1):
            a = self.torch.addmm(trained[last + 1 + k], a, trained[k])
            a = self.torch.relu(a) if k < last else a
        return a

    def _eager(self) -> None:
        self.z.normal_()
        self._work(move=True)

    def _work(self, *, move: bool) -> None:
        (g, d), (of_g, of_d) = self._trained, self._optimizers
        generated = self.torch.sigmoid(self._run(g, self.z))
        of_d.zero_grad(set_to_none=True)
        both = self.torch.cat([self.x, generated.detach()])
        labels = self.torch.cat([self._ones, self._zeros])
        (2 * self._criterion(self._run(d, both), labels)).backward()
        if move:
            of_d.step()
        of_g.zero_grad(set_to_none=True)
        value = self._criterion(self._run(d, generated), self._ones)
        for p, gradient in zip(g, self.torch.autograd.grad(value, g), strict=True):
            p.grad = gradient
        if move:
            of_g.step()

    def gradients(self, z: Host) -> list[Host]:
        """Return both gradients for these z before anything moves, as nembp lays them out."""
        self.z.copy_(self.torch.tensor(z))
        self._work(move=False)
        return [np.concatenate([_host(p.grad).reshape(-1) for p in each]) for each in self._trained]


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
