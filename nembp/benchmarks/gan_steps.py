"""A step of an adversarial training: nembp's trainer, and PyTorch, on the same start.

A step draws z, runs G, moves D on real and generated samples, and moves G on what D now says of
them: the non-saturating objective, Adam for both. ReLU layers; images in [0, 1] by logistic units.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.backend import Backend
from nembp.benchmarks.peers import MissingPeerError, import_peer
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Bernoulli
from nembp.engine.network import Network, dense_network
from nembp.engine.optimizers import Adam

__all__ = ["EngineGan", "TorchGan", "gan_multiply_adds", "gan_networks"]

Host = np.ndarray[Any, Any]
WARM_UP = 3  # steps before one is captured, and the first that is
FOREVER = 1 << 40  # iterations: no report ends a block of steps that is being timed


def gan_networks(sizes: tuple[int, ...], backend: Backend, dtype: str) -> tuple[Network, Network]:
    """Return G of these sizes, and D of them the other way round with one output."""
    options: dict[str, Any] = {"device": backend, "dtype": dtype, "backward": "gaussian"}
    generator = dense_network(sizes, forward=Bernoulli(), seed=0, **options)
    discriminator = dense_network((*sizes[:0:-1], 1), forward=Bernoulli(), seed=1, **options)
    return generator, discriminator


def gan_multiply_adds(sizes: tuple[int, ...], rows: int) -> int:
    """Return the multiply-adds of a one-directional step.

    G runs once and is differentiated once; D likewise on twice the rows, and once more for G's
    error at its input.

    >>> gan_multiply_adds((2, 3, 4), 1)
    144
    """
    up = list(pairwise(sizes))
    down = [*((n, m) for m, n in reversed(up[1:])), (sizes[1], 1)]

    def total(pairs: list[tuple[int, int]]) -> int:
        return sum(m * n for m, n in pairs)

    of_g = 3 * total(up) - total(up[:1])
    of_d = 2 * (3 * total(down) - total(down[:1])) + 2 * total(down)
    return rows * (of_g + of_d)


class EngineGan:
    """nembp's step, G trained in one direction or in both: an iteration of its trainer.

    So it also reads its samples, in a new order at every step, and keeps its record.

    Parameters
    ----------
    generator, discriminator : Network
        Where to start; trained in place.
    x : ndarray, shape (rows, features)
        The real samples.
    bidirectional : bool
        Whether G is trained backward too.
    rate : float
        Adam's.
    graphs : bool
        Capture the step as a CUDA graph; those that come before are made already.
    """

    def __init__(
        self,
        generator: Network,
        discriminator: Network,
        x: Host,
        bidirectional: bool,
        rate: float,
        graphs: bool = False,
    ) -> None:
        backend, dtype = generator.backend, generator.dtype
        samples = Split(x, np.zeros(len(x), np.int64))
        self.trainer = AdversarialTrainer(
            generator,
            discriminator,
            BatchReader(samples, Scaling(), Scaling(), 1, backend, dtype),
            AdversarialSettings(bidirectional="generator" if bidirectional else "none"),
            batch_size=len(x),
            iterations=FOREVER,
            report_every=FOREVER,
            optimizers=(Adam(rate, beta1=0.5), Adam(rate, beta1=0.5)),
            cuda_graphs=graphs,
        )
        self.backend, self.nets = backend, (generator, discriminator)
        for _ in range(WARM_UP if graphs else 0):
            self()

    def __call__(self) -> None:
        """Make a step."""
        self.trainer.step()

    def at_rest(self) -> tuple[Host, list[Host]]:
        """Return a z, and both gradients for it before anything moves, G's first."""
        trainer, host = self.trainer, self.backend.to_numpy
        of_g, of_d, rows = trainer.of_g, trainer.of_d, trainer.batch_size
        trainer.reader.read_x(self.backend.asarray(np.arange(rows)), of_d.real)
        self.backend.normal(self.backend.generator(0, "latent"), of_g.z)
        of_d.generated[...] = of_g.run()
        gradients = [optimizer.gradient for optimizer in trainer.optimizers]
        of_d(gradients[1], trainer.settings.discriminator_weight)
        of_g(gradients[0], trainer.settings.generator_weight)
        return host(of_g.z), [host(gradient) for gradient in gradients]


class TorchGan:
    """The one-directional step in PyTorch, eager; on a GPU it can be captured as a CUDA graph.

    Raises
    ------
    MissingPeerError
        If PyTorch is not installed, or has no CUDA where the networks are on a GPU.
    """

    def __init__(
        self, generator: Network, discriminator: Network, x: Host, rate: float, graph: bool = False
    ) -> None:
        self._torch = torch = import_peer("torch")
        device = "cuda" if generator.backend.name == "gpu" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise MissingPeerError("no CUDA")
        if graph and device == "cpu":
            raise MissingPeerError("GPU only")
        self.on_gpu = device == "cuda"
        self._layers = [self._tensors(net, device) for net in (generator, discriminator)]
        self.x = torch.tensor(np.array(x, generator.dtype), device=device)
        self.z = torch.zeros((len(x), generator.inputs), dtype=self.x.dtype, device=device)
        self._criterion = torch.nn.functional.binary_cross_entropy_with_logits
        ones = torch.ones((len(x), 1), dtype=self.x.dtype, device=device)
        self._ones, self._zeros = ones, torch.zeros_like(ones)
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
        self._graph: Any = None
        if graph:
            self._capture()

    def _tensors(self, net: Network, device: str) -> list[tuple[Any, Any]]:
        host = net.backend.to_numpy

        def tensor(array: Any) -> Any:
            return self._torch.tensor(host(array), device=device, requires_grad=True)

        return [(tensor(W), tensor(b)) for W, b in zip(net.weights, net.biases[1:], strict=True)]

    def _run(self, which: int, a: Any) -> Any:
        *hidden, (W, b) = self._layers[which]
        for V, c in hidden:
            a = self._torch.relu(self._torch.addmm(c, a, V))
        return self._torch.addmm(b, a, W)

    def __call__(self) -> None:
        """Make a step."""
        if self._graph is None:
            self.step()
        else:
            self._graph.replay()

    def step(self) -> None:
        """Make a step."""
        self.z.normal_()
        self._work(lambda optimizer: optimizer.step())

    def _work(self, move: Callable[[Any], None]) -> None:
        of_g, of_d = self._optimizers
        generated = self._torch.sigmoid(self._run(0, self.z))
        of_d.zero_grad(set_to_none=True)
        both = self._torch.cat([self.x, generated.detach()])
        labels = self._torch.cat([self._ones, self._zeros])
        (2 * self._criterion(self._run(1, both), labels)).backward()
        move(of_d)
        of_g.zero_grad(set_to_none=True)
        trained = [p for pair in self._layers[0] for p in pair]
        value = self._criterion(self._run(1, generated), self._ones)
        for p, gradient in zip(trained, self._torch.autograd.grad(value, trained), strict=True):
            p.grad = gradient
        move(of_g)

    def _capture(self) -> None:
        torch = self._torch
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self._graph = graph

    @cached_property
    def synchronize(self) -> Callable[[], None]:
        """Wait for the GPU, if it is used."""
        found: Callable[[], None] = self._torch.cuda.synchronize if self.on_gpu else lambda: None
        return found

    def gradients(self, z: Host) -> list[Host]:
        """Return both gradients for these z before anything moves, as nembp lays them out."""
        self.z.copy_(self._torch.tensor(z))
        self._work(lambda optimizer: None)
        flat = []
        for layers in self._layers:
            tensors = [W for W, _ in layers] + [b for _, b in layers]
            flat.append(np.concatenate([t.grad.cpu().numpy().reshape(-1) for t in tensors]))
        return flat
