"""The same steps in PyTorch and scikit-learn, as their users would write them.

Each peer starts from the parameters of nembp's networks and can give its gradients back in their
layout. In PyTorch images are N C H W; a map goes up by its operator and down by that operator's
transpose over the same parameter. The engine's layout is N H W C.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend
from nembp.benchmarks.harness import Contender
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Gaussian
from nembp.engine.linear import AveragePooling, LinearMap
from nembp.engine.network import Layer, Network

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


def load_peers() -> None:
    """Import the peers that are installed, so that limits on threads find their libraries."""
    for name in ("torch", "sklearn.neural_network"):
        with suppress(MissingPeerError):
            import_peer(name)


def build(makers: dict[str, Callable[[], Any]]) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the contenders that can take part, and why the others are missing."""
    built, missing = {}, {}
    for name, make in makers.items():
        try:
            built[name] = make()
        except MissingPeerError as error:
            missing[name.partition(" as ")[0]] = str(error)
    return built, missing


def set_precision(precision: str) -> None:
    """Let PyTorch's float32 products be TF32 too, or not; nothing where it is not installed."""
    with suppress(MissingPeerError):
        torch = import_peer("torch")
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"


def contender(step: Any, backend: Backend) -> Contender:
    """Return a step with what waits for it and, on a GPU, times it by the device's events."""
    if backend.name != "gpu":
        return Contender(step)
    if not hasattr(step, "synchronize"):
        return Contender(step, backend.synchronize, backend.seconds)
    torch = import_peer("torch")

    def seconds(work: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return Contender(step, step.synchronize, seconds)


class _Torch:
    """PyTorch, on the device of a backend."""

    def __init__(self, backend: Backend, device: str | None = None) -> None:
        self.torch = torch = import_peer("torch")
        self.device = device or ("cuda" if backend.name == "gpu" else "cpu")
        self.on_gpu = self.device == "cuda"
        if self.on_gpu and not torch.cuda.is_available():
            raise MissingPeerError("no CUDA")
        self.synchronize: Callable[[], object] = (
            torch.cuda.synchronize if self.on_gpu else lambda: None
        )

    def leaf(self, array: Host) -> Any:
        """Return a parameter, so laid out."""
        array = np.ascontiguousarray(array)
        return self.torch.tensor(array, device=self.device, requires_grad=True)

    def capture(self, warm_up: Callable[[], object], work: Callable[[], object]) -> Any:
        """Return a CUDA graph of ``work``, after the steps that its warm-up needs."""
        if not self.on_gpu:
            raise MissingPeerError("GPU only")
        torch, side = self.torch, self.torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                warm_up()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        return graph


# -- linear maps -----------------------------------------------------------------------------------
def image_shapes(maps: Sequence[LinearMap]) -> list[Shape | None]:
    """Return the shape of each layer's images, None where its units are flat."""
    shapes: list[Shape | None] = [None] * (len(maps) + 1)
    for k, linear_map in enumerate(maps):
        if isinstance(linear_map, (Convolution, AveragePooling)):
            shapes[k], shapes[k + 1] = linear_map.shape, linear_map.output_shape
    return shapes


def to_image(rows: Host, shape: Shape) -> Host:
    """Return rows (N, H W C) as an array (N, C, H, W)."""
    return rows.reshape(-1, *shape).transpose(0, 3, 1, 2)


def from_image(images: Host) -> Host:
    """Return an array (N, C, H, W) as rows (N, H W C)."""
    return images.transpose(0, 2, 3, 1).reshape(images.shape[0], -1)


def _host(tensor: Any) -> Host:
    array: Host = tensor.detach().cpu().contiguous().numpy()
    return array


def _biased(images: Any, bias: Any) -> Any:
    """Return images plus a bias, one number a channel or one a unit (C, H, W)."""
    if bias is None:
        return images
    return images + (bias.view(-1, 1, 1) if bias.dim() == 1 else bias)


class TorchDense:
    """``linear``; images are flattened below it and unflattened again on the way down."""

    def __init__(self, peer: _Torch, lower: Shape | None, W: Host) -> None:
        self._linear, self._lower = peer.torch.nn.functional.linear, lower
        if lower is not None:  # rows of W from H W C to C H W
            W = W.reshape(*lower, -1).transpose(2, 0, 1, 3).reshape(W.shape)
        self.weight = peer.leaf(W.T)  # nn.Linear's layout is (outputs, inputs)

    def up(self, a: Any, bias: Any) -> Any:
        return self._linear(a.flatten(1), self.weight, bias)

    def down(self, c: Any, bias: Any) -> Any:
        if self._lower is None:
            return self._linear(c, self.weight.t(), bias)
        height, width, channels = self._lower
        images = self._linear(c, self.weight.t()).unflatten(1, (channels, height, width))
        return _biased(images, bias)

    def host(self, tensor: Any) -> Host:
        """Return a tensor shaped like ``weight`` in the engine's layout."""
        W: Host = tensor.detach().cpu().numpy().T
        if self._lower is None:
            return W
        height, width, channels = self._lower
        return W.reshape(channels, height, width, -1).transpose(1, 2, 0, 3).reshape(W.shape)


class TorchConvolution:
    """``conv2d`` and, with the same kernels, ``conv_transpose2d``."""

    def __init__(self, peer: _Torch, linear_map: Convolution, W: Host, channels_last: bool) -> None:
        torch, functional = peer.torch, peer.torch.nn.functional
        # nn.Conv2d's layout is (channels out, channels in, height, width)
        weight = peer.leaf(W.reshape(linear_map.weight_shape).transpose(3, 2, 0, 1))
        layout = torch.channels_last if channels_last else torch.contiguous_format
        self.weight = weight.detach().to(memory_format=layout).requires_grad_()
        way: Any = {"stride": linear_map.stride, "padding": linear_map.padding}
        self._up = partial(functional.conv2d, **way)
        left_over = _left_over(linear_map.shape, linear_map.kernel, **way)
        self._down = partial(functional.conv_transpose2d, output_padding=left_over, **way)

    def up(self, a: Any, bias: Any) -> Any:
        return self._with_bias(self._up, a, bias)

    def down(self, c: Any, bias: Any) -> Any:
        return self._with_bias(self._down, c, bias)

    def _with_bias(self, operator: Callable[..., Any], images: Any, bias: Any) -> Any:
        if bias is None or bias.dim() == 1:  # one a channel, which the operator takes
            return operator(images, self.weight, bias)
        return _biased(operator(images, self.weight), bias)

    def host(self, tensor: Any) -> Host:
        """Return a tensor shaped like ``weight`` in the engine's layout."""
        return _host(tensor).transpose(2, 3, 1, 0)


class TorchPooling:
    """``avg_pool2d`` and its transpose, a ``conv_transpose2d`` of each channel by itself."""

    weight = None

    def __init__(self, peer: _Torch, linear_map: AveragePooling, dtype: Any) -> None:
        functional, window, stride = peer.torch.nn.functional, linear_map.window, linear_map.stride
        kernels = np.full((linear_map.shape[2], 1, *window), 1.0 / math.prod(window), dtype)
        self._up = partial(functional.avg_pool2d, kernel_size=window, stride=stride)
        self._down = partial(
            functional.conv_transpose2d,
            weight=peer.torch.tensor(kernels, device=peer.device),
            stride=stride,
            groups=linear_map.shape[2],
            output_padding=_left_over(linear_map.shape, window, stride, (0, 0)),
        )

    def up(self, a: Any, bias: Any) -> Any:
        return _biased(self._up(a), bias)

    def down(self, c: Any, bias: Any) -> Any:
        return _biased(self._down(c), bias)


def _left_over(
    shape: Shape, window: tuple[int, int], stride: tuple[int, int], padding: tuple[int, int]
) -> tuple[int, int]:
    """Return the pixels that no window reaches: the transpose's ``output_padding``."""
    height, width = (
        (shape[axis] + 2 * padding[axis] - window[axis]) % stride[axis] for axis in (0, 1)
    )
    return height, width


# -- steps of classifiers --------------------------------------------------------------------------
class TorchStep(_Torch):
    """A step of PyTorch in eager mode with fused Adam.

    The objective is the engine's, −[log p(y | x) + log p(x | y)] / rows up to a constant:

        cross_entropy(z, labels) + w/2 · Σ (c⁰ − x)² / rows

    with c running down through the transposes of the same maps, one row a sample: the plain
    bidirectional step, without the class-sum path. ReLU layers.

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
        x: Host,
        labels: Host,
        *,
        bidirectional: bool,
        learning_rate: float,
        channels_last: bool = False,
        device: str | None = None,
    ) -> None:
        super().__init__(net.backend, device)
        torch, host, shapes = self.torch, net.backend.to_numpy, image_shapes(net.maps)
        self._functional = torch.nn.functional
        backward = net.reversed.likelihood
        assert isinstance(backward, Gaussian)

        def tensor_map(linear_map: LinearMap, lower: Shape | None, W: Host) -> Any:
            if isinstance(linear_map, Convolution):
                return TorchConvolution(self, linear_map, W, channels_last)
            if isinstance(linear_map, AveragePooling):
                return TorchPooling(self, linear_map, net.dtype)
            return TorchDense(self, lower, W)

        def bias(layer: Layer, shape: Shape | None, b: Any) -> Any:
            if b is None or not layer.biases:
                return None
            whole = shape is not None and layer.biases == layer.size  # one a unit
            return self.leaf(to_image(host(b), shape)[0] if whole and shape else host(b))

        given = zip(net.maps, shapes, net.weights, strict=False)
        self.maps = [tensor_map(each, lower, host(W)) for each, lower, W in given]
        up, down = (
            [bias(*each) for each in zip(net.layers, shapes, biases, strict=True)]
            for biases in (net.biases, net.reversed.biases[::-1])
        )
        self.up, self.down = up[1:], down[:-1] if bidirectional else []
        self._relu = [layer.activation is not None for layer in net.layers]
        batch = np.array(x, dtype=net.dtype)
        layout = torch.channels_last if channels_last else torch.contiguous_format
        if shapes[0] is not None:
            batch = np.ascontiguousarray(to_image(batch, shapes[0]))
            self.x = torch.tensor(batch, device=self.device).to(memory_format=layout)
        else:
            self.x = torch.tensor(batch, device=self.device)
        self.labels = torch.tensor(labels, device=self.device)
        self.t = self._functional.one_hot(self.labels, net.outputs).to(self.x.dtype)
        self._factor = 0.5 * backward.scale / len(labels)
        self._optimizer = torch.optim.Adam(self._trained(), lr=learning_rate, fused=True)

    def _trained(self) -> list[Any]:
        each = [*(each.weight for each in self.maps), *self.up, *self.down]
        return [tensor for tensor in each if tensor is not None]

    def objective(self) -> Any:
        """Return the joint objective of the batch in nats, up to a constant."""
        relu, a = self._functional.relu, self.x
        for k, (each, b) in enumerate(zip(self.maps, self.up, strict=True), start=1):
            a = each.up(a, b)
            a = relu(a) if self._relu[k] else a
        total = self._functional.cross_entropy(a, self.labels)
        if not self.down:
            return total
        c = self.t
        for k in reversed(range(len(self.maps))):
            c = self.maps[k].down(c, self.down[k])
            c = relu(c) if self._relu[k] else c
        squares = self._functional.mse_loss(c, self.x, reduction="sum")
        return total + self._factor * squares

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        self._optimizer.step()

    def gradient(self) -> Host:
        """Return the gradient at the parameters as they are, in the network's layout."""
        self._optimizer.zero_grad(set_to_none=True)
        self.objective().backward()
        return self._flat(lambda tensor: tensor.grad)

    def parameters(self) -> Host:
        """Return the trained parameters as one vector in the network's layout."""
        return self._flat(lambda tensor: tensor)

    def _flat(self, of: Callable[[Any], Any]) -> Host:
        arrays = [each.host(of(each.weight)) for each in self.maps if each.weight is not None]
        for b in (*self.up, *self.down):
            if b is not None:
                array = _host(of(b))
                arrays.append(array if array.ndim == 1 else from_image(array[None])[0])
        return np.concatenate([array.reshape(-1) for array in arrays])


class CompiledTorchStep(TorchStep):
    """`TorchStep` with objective and update under ``torch.compile(mode="reduce-overhead")``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        torch = self.torch
        eta = torch.tensor(float(options["learning_rate"]), device=self.device)
        self._optimizer = torch.optim.Adam(self._trained(), lr=eta, capturable=self.on_gpu)
        self._begin = torch.compiler.cudagraph_mark_step_begin
        try:
            self._compiled = torch.compile(self.objective, mode="reduce-overhead")
            self._update = torch.compile(self._optimizer.step, mode="reduce-overhead")
            for _ in range(WARM_UP):
                self()
        except Exception as error:  # whatever a compiler raises
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise MissingPeerError(f"not compiled: {reason[0][:60]}") from error

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._begin()
        self._optimizer.zero_grad(set_to_none=True)
        self._compiled().backward()
        self._update()


class CapturedTorchStep(TorchStep):
    """`TorchStep`, eager, with all of it captured as one CUDA graph."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        if not self.on_gpu:
            raise MissingPeerError("GPU only")
        eta = options["learning_rate"]
        self._optimizer = self.torch.optim.Adam(
            self._trained(), lr=eta, fused=True, capturable=True
        )

        def warm_up() -> None:
            super(CapturedTorchStep, self).__call__()
            self._optimizer.zero_grad(set_to_none=True)

        def work() -> None:
            self.objective().backward()
            self._optimizer.step()

        self._graph = self.capture(warm_up, work)

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._graph.replay()


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

    def __init__(self, net: Network, x: Host, labels: Host, *, learning_rate: float) -> None:
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


# -- a layer by itself, and adversarial training ---------------------------------------------------
class TorchLayer(_Torch):
    """``conv2d`` and ``torch.autograd.grad`` with respect to images and kernels."""

    def __init__(
        self,
        linear_map: Convolution,
        backend: Backend,
        x: Host,
        y: Host,
        W: Host,
        channels_last: bool,
    ) -> None:
        super().__init__(backend)
        torch = self.torch
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def tensor(array: Host, trained: bool = False) -> Any:
            images = torch.tensor(np.ascontiguousarray(array), device=self.device)
            return images.to(memory_format=layout).requires_grad_(trained)

        self._x = tensor(to_image(x, linear_map.shape), trained=True)
        self._y = tensor(to_image(y, linear_map.output_shape))
        self._W = tensor(W.transpose(3, 2, 0, 1), trained=True)
        way = {"stride": linear_map.stride, "padding": linear_map.padding}
        self._forward = partial(torch.nn.functional.conv2d, **way)

    def __call__(self) -> None:
        """Compute all three."""
        self._up = self._forward(self._x, self._W)
        self._down = self.torch.autograd.grad(self._up, (self._x, self._W), self._y)

    def results(self) -> list[Host]:
        """Return T's three derivatives, computed last, in the engine's layout."""
        up, x, W = (_host(each) for each in (self._up, *self._down))
        return [from_image(up), from_image(x), W.transpose(2, 3, 1, 0)]


class TorchGan(_Torch):
    """The one-directional adversarial step, eager; on a GPU it can be captured as a CUDA graph.

    It draws z, runs G, moves D on real and generated samples, and moves G on what D now says of
    them: the non-saturating objective, Adam for both. ReLU layers; images in [0, 1].
    """

    def __init__(
        self, generator: Network, discriminator: Network, x: Host, rate: float, graph: bool = False
    ) -> None:
        super().__init__(generator.backend)
        if graph and not self.on_gpu:
            raise MissingPeerError("GPU only")
        torch, host = self.torch, generator.backend.to_numpy
        self._layers = [
            [
                (self.leaf(host(W)), self.leaf(host(b)))
                for W, b in zip(net.weights, net.biases[1:], strict=True)
            ]
            for net in (generator, discriminator)
        ]
        self.x = torch.tensor(np.array(x, generator.dtype), device=self.device)
        options = {"dtype": self.x.dtype, "device": self.device}
        self.z = torch.zeros((len(x), generator.inputs), **options)
        self._ones, self._zeros = (
            torch.ones((len(x), 1), **options),
            torch.zeros((len(x), 1), **options),
        )
        self._criterion = torch.nn.functional.binary_cross_entropy_with_logits
        more = {"capturable": True} if graph else {}
        self._optimizers = [
            torch.optim.Adam(
                [p for pair in layers for p in pair],
                lr=rate,
                betas=(0.5, 0.999),
                fused=True,
                **more,
            )
            for layers in self._layers
        ]
        self._graph = self.capture(self._step, self._step) if graph else None

    def _run(self, which: int, a: Any) -> Any:
        *hidden, (W, b) = self._layers[which]
        for V, c in hidden:
            a = self.torch.relu(self.torch.addmm(c, a, V))
        return self.torch.addmm(b, a, W)

    def __call__(self) -> None:
        """Make a step."""
        if self._graph is None:
            self._step()
        else:
            self._graph.replay()

    def _step(self) -> None:
        self.z.normal_()
        self._work(lambda optimizer: optimizer.step())

    def _work(self, move: Callable[[Any], None]) -> None:
        of_g, of_d = self._optimizers
        generated = self.torch.sigmoid(self._run(0, self.z))
        of_d.zero_grad(set_to_none=True)
        both = self.torch.cat([self.x, generated.detach()])
        labels = self.torch.cat([self._ones, self._zeros])
        (2 * self._criterion(self._run(1, both), labels)).backward()
        move(of_d)
        of_g.zero_grad(set_to_none=True)
        trained = [p for pair in self._layers[0] for p in pair]
        value = self._criterion(self._run(1, generated), self._ones)
        for p, gradient in zip(trained, self.torch.autograd.grad(value, trained), strict=True):
            p.grad = gradient
        move(of_g)

    def gradients(self, z: Host) -> list[Host]:
        """Return both gradients for these z before anything moves, as nembp lays them out."""
        self.z.copy_(self.torch.tensor(z))
        self._work(lambda optimizer: None)
        flat = []
        for layers in self._layers:
            tensors = [W for W, _ in layers] + [b for _, b in layers]
            flat.append(np.concatenate([_host(t.grad).reshape(-1) for t in tensors]))
        return flat
