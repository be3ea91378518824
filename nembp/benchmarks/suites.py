"""What `nembp bench` times: steps of dense and convolutional classifiers, layers, GANs, parts.

A suite has a function that makes the contenders of a `Case`, checks that PyTorch computes what
nembp does, and says what their times mean.
"""

from __future__ import annotations

import math
import re
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.architecture import ConvolutionItem, DenseItem, Item, PoolingItem, network, parse
from nembp.backend import Backend, get_backend, stream
from nembp.benchmarks import Settings, estimators, harness
from nembp.benchmarks.floor import (
    BLOCK,
    AdamTraffic,
    MapProducts,
    Products,
    adam_bytes,
    extent,
    measure_card,
    multiply_adds,
)
from nembp.benchmarks.harness import PartsClock, Result, check_agreement, interleave, threads_now
from nembp.benchmarks.memory import peak_memory
from nembp.benchmarks.peers import (
    CapturedTorchStep,
    CompiledTorchStep,
    SklearnStep,
    TorchGan,
    TorchLayer,
    TorchStep,
    build,
    contender,
    load_peers,
)
from nembp.benchmarks.report import duration
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.backprop import JointBackpropagation, Path
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.engine.optimizers import Adam
from nembp.errors import ArchitectureError, DeviceError
from nembp.threads import single_threaded_blas

Host = np.ndarray[Any, Any]
Shape = tuple[int, int, int]

# so small that thousands of steps on one batch leave the arithmetic as it is: nothing overfits,
# no unit dies, and no moment of Adam decays into denormal numbers, which are slow
LEARNING_RATE = 1e-6
BACKWARD_WEIGHT = 0.1
LIT = 0.19  # share of pixels that are not zero, as in MNIST
CAPTURE = 3  # calls until a step is captured
FOREVER = 1 << 40  # iterations: no report ends a block of steps that is being timed
DIRECTIONS: dict[str, Path] = {"bidirectional": "classes", "one_direction": "none"}
PATHS: dict[str, Path] = DIRECTIONS | {"bidirectional_samples": "samples"}
LAYOUTS = {"N C H W": False, "N H W C": True}  # PyTorch's: channels last
RATIOS = {  # name: numerator, denominator
    "bidirectional/one_direction": ("nembp/bidirectional", "nembp/one_direction"),
    "bidirectional_samples/one_direction": ("nembp/bidirectional_samples", "nembp/one_direction"),
    "torch_bidirectional/bidirectional": ("torch/bidirectional", "nembp/bidirectional"),
    "torch_bidirectional/bidirectional_samples": (
        "torch/bidirectional",
        "nembp/bidirectional_samples",
    ),
    "torch_one_direction/one_direction": ("torch/one_direction", "nembp/one_direction"),
    "bidirectional/torch_one_direction": ("nembp/bidirectional", "torch/one_direction"),
    "sklearn_one_direction/one_direction": ("sklearn/one_direction", "nembp/one_direction"),
    "bidirectional/floor": ("nembp/bidirectional", "floor/bidirectional"),
    "one_direction/floor": ("nembp/one_direction", "floor/one_direction"),
}
CALLED = "nembp call by call"
ON_CPU: dict[str, type[TorchStep]] = {"torch": TorchStep}
ON_GPU = ON_CPU | {"torch compiled": CompiledTorchStep, "torch graph": CapturedTorchStep}


# -- networks in words -----------------------------------------------------------------------------
EXAMPLES = "32x32x3/conv32x4s2/256/10 (a network) or 16x16x32/conv64x4s2 (a layer)"


def parse_network(text: str) -> tuple[int, ...]:
    """Return the sizes of the layers; ArchitectureError, naming it, unless it is a classifier.

    >>> parse_network("784-256-10")
    (784, 256, 10)
    """
    if not re.fullmatch("[1-9][0-9]{0,8}(-[1-9][0-9]{0,8})+", text):
        raise ArchitectureError(
            f"{text!r} is no dense network; expected the sizes of its layers, as in 784-512-512-10"
        )
    sizes = tuple(map(int, text.split("-")))
    if sizes[-1] < 2:
        raise ArchitectureError(f"{text!r} has 1 output unit; a classifier needs at least 2")
    return sizes


def parse_images(text: str) -> tuple[Shape, tuple[Item, ...]]:
    """Return the image (height, width, channels) and the layers above it, the classes last.

    The layers are entries of ``nembp train --layers``, separated by slashes. One convolution alone
    is a layer to time by itself. ArchitectureError, naming the text, if it is neither.

    >>> shape, layers = parse_images("32x32x3/conv32x4s2/10")
    >>> shape, ",".join(map(str, layers))
    ((32, 32, 3), 'conv32x4s2,10')
    """
    first, *entries = text.split("/")
    sizes = re.fullmatch("x".join(["([1-9][0-9]{0,8})"] * 3), first)
    if sizes is None or not entries:
        raise ArchitectureError(
            f"{text!r} is no network of images; expected height x width x channels and the layers, "
            f"as in {EXAMPLES}"
        )
    height, width, channels = map(int, sizes.groups())
    shape = height, width, channels
    try:
        items = parse(entries, "it")
        for item in items:
            if not isinstance(item, (ConvolutionItem, DenseItem, PoolingItem)):
                raise ArchitectureError(f"{item}; this suite times conv, pool and dense layers")
            if not isinstance(item, PoolingItem) and item.normalized:
                raise ArchitectureError(f"{item}; this suite times layers without bn")
        last = items[-1]
        alone = len(items) == 1 and isinstance(last, ConvolutionItem)
        if not alone and not (isinstance(last, DenseItem) and last.size > 1):
            raise ArchitectureError(
                f"it ends in {last}; expected a number of classes of at least 2, or one "
                f"convolution alone, as in {EXAMPLES}"
            )
        network(shape, items if alone else items[:-1], 2)
    except ArchitectureError as error:
        raise ArchitectureError(f"{text!r}: {error}") from None
    return shape, items


def convolution_of(text: str) -> Convolution | None:
    """Return the convolution of a layer to time by itself; None of a network.

    >>> convolution_of("16x16x32/conv64x4s2").output_shape
    (8, 8, 64)
    """
    shape, items = parse_images(text)
    item = items[-1]
    if not isinstance(item, ConvolutionItem):
        return None
    return Convolution(shape, item.channels, item.kernel, item.stride, item.padding)


# -- cases -----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Case:
    """One line of a table: a network on a batch."""

    network: str
    batch: int
    threads: int
    dtype: str = "float32"

    def __str__(self) -> str:
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{self.network}, batch {self.batch}, {threads}"

    @property
    def layers(self) -> tuple[tuple[int, ...], tuple[Item, ...], int]:
        """Shape of the input, hidden layers, and classes."""
        if "/" in self.network:
            shape, items = parse_images(self.network)
            return shape, items[:-1], int(str(items[-1]))
        inputs, *hidden, classes = parse_network(self.network)
        return (inputs,), parse(hidden), classes

    def start(self, backend: Backend) -> Network:
        """Return the network that every contender starts from, its hidden units ReLU."""
        backward = Gaussian(variance=1.0 / BACKWARD_WEIGHT)
        return network(*self.layers, backward=backward, device=backend, dtype=self.dtype)

    def draw(self) -> tuple[Host, Host]:
        """Return the batch and its labels: pixels in 0..1, most of them dark, or in −1..1."""
        shape, _, classes = self.layers
        images = len(shape) > 1
        x, labels = synthetic_batch(self.batch, math.prod(shape), classes, 1.0 if images else LIT)
        return (2.0 * x - 1.0 if images else x).astype(self.dtype), labels


def synthetic_batch(rows: int, inputs: int, classes: int, lit: float = 1.0) -> tuple[Host, Host]:
    """Draw x (rows, inputs) in 0..1, the share ``lit`` of it not 0, and labels of all classes."""
    draw = stream(0, "benchmark/batch")
    x = draw.random((rows, inputs))
    x *= draw.random((rows, inputs)) < lit
    return x, draw.permutation(np.arange(rows) % classes)


def _captured(backend: Backend, work: Callable[[], object]) -> Any:
    graph = backend.capture(work)
    for _ in range(CAPTURE):
        graph()
    return graph


def _precision(backend: Backend) -> str:
    return getattr(backend, "precision", "float32")


def _agreement(
    case: Case, backend: Backend, results: dict[str, tuple[Host, Host]]
) -> dict[str, float]:
    """Return how far nembp and PyTorch are apart in each result; VerificationError if too far."""
    return {
        what: check_agreement(f"the {what} of {case}", *both, _precision(backend))
        for what, both in results.items()
    }


def _race(
    case: Case,
    backend: Backend,
    steps: dict[str, Any],
    missing: dict[str, str],
    first: tuple[str, str],
    **rounds: Any,
) -> tuple[Result, dict[str, float]]:
    """Time the steps; return what every result has, and the medians.

    Of contenders ``name as layout`` the faster one is ``name`` too, with its ``layout``. ``first``
    is the contender that the headline tells, and its words.
    """
    start = time.perf_counter()
    runners = {name: contender(step, backend) for name, step in steps.items()}
    threads = case.threads if backend.name == "cpu" else 1
    times = interleave(runners, threads=threads, **rounds)
    elapsed = time.perf_counter() - start
    for name, found in list(times.items()):
        short, _, layout = name.partition(" as ")
        if layout and (short not in times or found["median"] < times[short]["median"]):
            times[short] = {**found, "layout": layout}
    seconds = {name: time["median"] for name, time in times.items()}
    name, words = first
    result = {
        **asdict(case),
        "threads_in_force": threads_now(),
        "times": times | {name: {"missing": why} for name, why in missing.items()},
        "seconds": elapsed,
        "headline": f"{duration(seconds[name])}{words}, {times[name]['rounds']} rounds",
    }
    return result, seconds


def _quotients(
    seconds: dict[str, float], pairs: dict[str, tuple[str, str]]
) -> dict[str, float | None]:
    """Return the ratios of medians; None where a peer is missing."""
    return {
        name: seconds[above] / seconds[below] if {above, below} <= set(seconds) else None
        for name, (above, below) in pairs.items()
    }


# -- whole steps -----------------------------------------------------------------------------------
class EngineStep:
    """nembp's own step, of one path, on a batch already in its buffers.

    ``captured``: launched as a CUDA graph from now on, its Adam always at its thousandth step.
    """

    def __init__(
        self, net: Network, x: Host, labels: Host, path: Path, learning_rate: float = LEARNING_RATE,
        noise: dict[str, Noise] | None = None, captured: bool = False,
    ) -> None:  # fmt: skip
        self.net, backend = net, net.backend
        draws = {name: backend.generator(0, f"benchmark/{name}") for name in noise or {}}
        given: Any = {"path": path, "noise": noise, "generators": draws}
        self.joint = JointBackpropagation(net, len(labels), **given)
        self.joint.x[...] = backend.asarray(x, net.dtype)
        self.joint.t[...] = backend.asarray(np.eye(net.outputs)[labels], net.dtype)
        self.adam = Adam(learning_rate)
        self._gradient = self.adam.bind(net)
        self.graph: Any = None
        if captured:
            self._numbers = backend.asarray(np.array(self.adam.numbers(1000, 1.0)))
            self.graph = _captured(backend, self._work)

    def _work(self) -> None:
        self.joint(self._gradient)
        self.net.backend.optimizer_step(self.adam, self._numbers)

    def __call__(self) -> None:
        """Gradient and Adam update."""
        if self.graph is not None:
            self.graph()
        else:
            self.joint(self._gradient)
            self.adam.step()

    def gradient(self) -> Host:
        """Return the gradient at the parameters as they are."""
        self.joint(self._gradient)
        return self.net.backend.to_numpy(self._gradient)


def measure_step(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's.

    On a GPU nembp's step is captured, PyTorch's runs in three ways, and the floor is the step's
    multiply-adds over the rate of a large product, and the bytes that Adam and the reading of the
    batch must move over the bandwidth of a long copy.
    """
    on_gpu, dtype = backend.name == "gpu", case.dtype
    net, (x, labels) = case.start(backend), case.draw()
    images = any(isinstance(linear_map, Convolution) for linear_map in net.maps)

    def products(path: Path, block: int | None = None) -> Products:
        return Products(backend, net.maps, case.batch, path, dtype, block)

    steps: dict[str, Any] = {
        f"nembp/{name}": EngineStep(net.copy(), x, labels, path, captured=on_gpu)
        for name, path in PATHS.items()
    }
    captured = all(getattr(step.graph, "launches", 0) for step in steps.values())
    makers: dict[str, Callable[[], Any]] = {}
    for (who, kind), name, (layout, last) in product(
        (ON_GPU if on_gpu else ON_CPU).items(), DIRECTIONS, LAYOUTS.items()
    ):
        if last and not images:
            continue
        if kind is CompiledTorchStep and (last or name != "bidirectional"):
            continue  # compiling takes PyTorch half a minute
        made: Any = {"bidirectional": name == "bidirectional", "channels_last": last}
        made["learning_rate"] = LEARNING_RATE
        makers[f"{who}/{name}{f' as {layout}' * images}"] = partial(kind, net, x, labels, **made)
    if not images and not on_gpu:
        sklearn = partial(SklearnStep, net, x, labels, learning_rate=LEARNING_RATE)
        makers["sklearn/one_direction"] = sklearn
    built, missing = build(makers)
    agreement = {}
    for name in filter(lambda name: name.startswith("torch/"), built):
        direction = name.removeprefix("torch/").partition(" as ")[0]
        ours, theirs = steps[f"nembp/{direction}"].gradient(), built[name].gradient()
        # in one direction PyTorch has no biases of the other, which come last
        both = {f"{direction} gradient": (ours[: len(theirs)], theirs)}
        (agreement[name],) = _agreement(case, backend, both).values()
    steps |= built
    for name, path in DIRECTIONS.items():
        if on_gpu:
            steps[f"{CALLED}/{name}"] = EngineStep(net.copy(), x, labels, path)
            steps[f"products/{name}"] = _captured(backend, products(path))
            continue
        steps[f"floor/{name}_products"] = products(path)
        if images:
            steps[f"floor/{name}_products_in_blocks"] = products(path, BLOCK)
    for workers in {1, case.threads} if not on_gpu else ():
        traffic = AdamTraffic(backend, net.parameter_count, dtype, workers)
        steps[f"floor/adam_{workers}"] = traffic
    first = ("nembp/bidirectional", " a bidirectional step")
    common, seconds = _race(case, backend, steps, missing, first, **rounds)

    work = {f"nembp/{k}": multiply_adds(net.maps, case.batch, path) for k, path in PATHS.items()}
    moved, floor, pairs = adam_bytes(net.parameter_count, dtype), {}, dict(RATIOS)
    if on_gpu:
        card, moved = measure_card(backend, dtype), moved + x.nbytes
        pairs = {
            f"{who}/{name}": (f"{who}/{name}", f"nembp/{name}")
            for who in (*ON_GPU, CALLED)
            for name in DIRECTIONS
        }
        pairs |= {
            f"{name}/{below}": (f"nembp/{name}", f"{below}/{name}")
            for below in ("floor", "products")
            for name in DIRECTIONS
        }
        own = {"precision": _precision(backend), "captured": captured, "bytes": moved}
        own |= {"kind": "gpu step", "card": card._asdict()}
        floor = {name: card.seconds(work[f"nembp/{name}"], moved) for name in DIRECTIONS}
    else:
        own = {"kind": "step", "adam_bytes": moved}
        for name in DIRECTIONS:
            floor[name] = sum(
                min(seconds[key] for key in seconds if key.startswith(part))
                for part in (f"floor/{name}_products", "floor/adam")
            )
    seconds |= {f"floor/{name}": least for name, least in floor.items()}
    return {
        **common,
        **own,
        "parameters": net.parameter_count,
        "multiply_adds": work,
        "agreement": agreement,
        "floor": floor,
        "ratios": _quotients(seconds, pairs),
    }


# -- a convolution by itself -----------------------------------------------------------------------
class EngineLayer:
    """nembp's contractions as a training step makes them: signals up, then errors down.

    On several threads the step's own share the rows, and BLAS keeps to one meanwhile.
    """

    def __init__(
        self, linear_map: Convolution, backend: Backend, x: Host, y: Host, W: Host
    ) -> None:
        dtype = str(x.dtype)
        self._x, self._y, self._W = (backend.asarray(each, dtype) for each in (x, y, W))
        workers = backend.workers() if linear_map.in_workers else 1
        self._map = linear_map.workspace(backend, (len(x),), dtype, workers=workers)
        self._blas = single_threaded_blas if workers > 1 else nullcontext
        self._up, self._down, self._gradient = (
            backend.empty(shape, dtype) for shape in (y.shape, x.shape, W.shape)
        )
        self._to_numpy = backend.to_numpy

    def __call__(self) -> None:
        """Compute all three."""
        with self._blas():
            self._map.load(self._W)
            self._map.forward(self._x, self._up)
            self._map.adjoint_and_gradient(self._x, self._y, self._down, self._gradient)

    def results(self) -> list[Host]:
        """Return T's three derivatives, computed last."""
        return [self._to_numpy(array) for array in (self._up, self._down, self._gradient)]


def measure_layer(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time forward and both gradients, after a check that PyTorch computes the same."""
    linear_map, draw = convolution_of(case.network), stream(0, "benchmark/layer")
    assert linear_map is not None
    x, y = (
        draw.standard_normal((case.batch, size), dtype=np.float32).astype(case.dtype)
        for size in (linear_map.inputs, linear_map.outputs)
    )
    given = (linear_map, backend, x, y, linear_map.initial_weights(draw).astype(case.dtype))
    steps: dict[str, Any] = {"nembp": EngineLayer(*given)}
    built, missing = build(
        {
            f"torch as {layout}": partial(TorchLayer, *given, last)
            for layout, last in LAYOUTS.items()
        }
    )
    steps |= built
    for step in steps.values():
        step()
    what, ours = ("output", "input's gradient", "kernels' gradient"), steps["nembp"].results()
    agreement = {}
    for name, theirs in built.items():
        pairs = zip(ours, theirs.results(), strict=True)
        results = dict(zip(what, pairs, strict=True))
        agreement[name] = max(_agreement(case, backend, results).values())
    below, above = (backend.asarray(each, case.dtype) for each in (x, y))
    for how, block in {"at once": None, "in blocks": BLOCK}.items():
        products = MapProducts(backend, linear_map, case.batch, case.dtype, block)
        steps[f"floor as {how}"] = partial(products.all_three, below, above)
    common, seconds = _race(case, backend, steps, missing, ("nembp", ""), **rounds)
    work = 3 * case.batch * math.prod(extent(linear_map) or ())
    return {
        **common,
        "kind": "layer",
        "output_shape": linear_map.output_shape,
        "multiply_adds": work,
        "agreement": agreement,
        "ratios": _quotients(
            seconds, {f"nembp/{name}": ("nembp", name) for name in ("torch", "floor")}
        ),
        "rate": work / seconds["nembp"],
    }


# -- adversarial steps -----------------------------------------------------------------------------
def gan_networks(sizes: tuple[int, ...], backend: Backend, dtype: str) -> tuple[Network, Network]:
    """Return G of these sizes, and D of them the other way round with one output."""
    options: dict[str, Any] = {"device": backend, "dtype": dtype, "backward": "gaussian"}
    generator = dense_network(sizes, forward=Bernoulli(), seed=0, **options)
    discriminator = dense_network((*sizes[:0:-1], 1), forward=Bernoulli(), seed=1, **options)
    return generator, discriminator


class EngineGan:
    """nembp's step, G trained in one direction or in both: an iteration of its trainer.

    So it also reads its samples, in a new order at every step, and keeps its record. With
    ``graphs`` the steps come after those that a capture needs.
    """

    def __init__(
        self,
        nets: tuple[Network, Network],
        x: Host,
        bidirectional: bool,
        rate: float = LEARNING_RATE,
        graphs: bool = False,
    ) -> None:
        self.nets, backend = nets, nets[0].backend
        samples = Split(x, np.zeros(len(x), np.int64))
        self.trainer = AdversarialTrainer(
            *nets,
            BatchReader(samples, Scaling(), Scaling(), 1, backend, nets[0].dtype),
            AdversarialSettings(bidirectional="generator" if bidirectional else "none"),
            batch_size=len(x),
            iterations=FOREVER,
            report_every=FOREVER,
            optimizers=(Adam(rate, beta1=0.5), Adam(rate, beta1=0.5)),
            cuda_graphs=graphs,
        )
        for _ in range(CAPTURE if graphs else 0):
            self()

    def __call__(self) -> None:
        """Make a step."""
        self.trainer.step()

    def at_rest(self) -> tuple[Host, list[Host]]:
        """Return a z, and both gradients for it before anything moves, G's first."""
        trainer, backend = self.trainer, self.nets[0].backend
        of_g, of_d = trainer.of_g, trainer.of_d
        trainer.reader.read_x(backend.asarray(np.arange(trainer.batch_size)), of_d.real)
        backend.normal(backend.generator(0, "latent"), of_g.z)
        of_d.generated[...] = of_g.run()
        gradients = [optimizer.gradient for optimizer in trainer.optimizers]
        of_d(gradients[1], trainer.settings.discriminator_weight)
        of_g(gradients[0], trainer.settings.generator_weight)
        return backend.to_numpy(of_g.z), [backend.to_numpy(gradient) for gradient in gradients]


def measure_gan(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    sizes, graphs = parse_network(case.network), backend.name == "gpu"
    nets = gan_networks(sizes, backend, case.dtype)
    x = synthetic_batch(case.batch, sizes[-1], 2)[0].astype(case.dtype)

    def ours(bidirectional: bool, graphs: bool) -> EngineGan:
        return EngineGan((nets[0].copy(), nets[1].copy()), x, bidirectional, graphs=graphs)

    steps: dict[str, Any] = {
        "nembp/one_direction": ours(False, graphs),
        "nembp/bidirectional": ours(True, graphs),
    }
    if graphs:
        steps[f"{CALLED}/one_direction"] = ours(False, False)
    built, missing = build(
        {
            f"{who}/one_direction": partial(TorchGan, *nets, x, LEARNING_RATE, graph)
            for who, graph in {"torch": False, "torch graph": True}.items()
        }
    )
    steps |= built
    agreement = None
    if "torch/one_direction" in built:
        z, mine = ours(False, False).at_rest()
        pairs = zip("GD", mine, built["torch/one_direction"].gradients(z), strict=True)
        results = {f"gradient of {who}": (a[: len(b)], b) for who, a, b in pairs}
        agreement = dict(zip("GD", _agreement(case, backend, results).values(), strict=True))
    first = ("nembp/one_direction", " a step")
    common, seconds = _race(case, backend, steps, missing, first, **rounds)
    # G runs and is differentiated once; D likewise on twice the rows, and once for G's error
    of_g, of_d = (multiply_adds(net.maps, case.batch, "none") for net in nets)
    work = of_g + 2 * of_d + 2 * case.batch * sum(each.weight_count for each in nets[1].maps)
    moved = sum(adam_bytes(net.parameter_count, case.dtype) for net in nets) + x.nbytes
    floor = measure_card(backend, case.dtype).seconds(work, moved) if graphs else None
    one, trainer = seconds["nembp/one_direction"], steps["nembp/one_direction"].trainer
    return {
        **common,
        "kind": "gan step",
        "precision": _precision(backend),
        "captured": trainer.captured > 0,
        "why_not_captured": trainer.why_not_captured,
        "multiply_adds": work,
        "bytes": moved,
        "agreement": agreement,
        "floor": floor,
        "ratios": {
            **{name: seconds[name] / one for name in seconds},
            "one_direction/floor": None if floor is None else one / floor,
        },
    }


# -- parts of a step -------------------------------------------------------------------------------
PRODUCTS, REST = "products", "Python"
PARTS = (PRODUCTS, "neurons", "bias sums", "output end", "input end", "noise", "Adam", REST)
NOISE = Noise("nem", std=0.1, decay=0.0)  # constant, so that step after step does the same
VARIANTS: dict[str, tuple[Path, dict[str, Noise]]] = {
    "one": ("none", {}),
    "one, noise": ("none", {"forward": NOISE}),
    "both": ("classes", {}),
    "both, noise": ("classes", {"forward": NOISE, "backward": NOISE}),
    "samples": ("samples", {}),
    "samples, noise": ("samples", {"forward": NOISE, "backward": NOISE}),
}


class TimedStep:
    """An :class:`EngineStep` whose parts a stopwatch times; ``laps`` has the seconds of each step.

    What is timed are calls, some fifty a step, at about 0.3 µs each. For networks whose linear maps
    work on the calling thread: dense ones.
    """

    def __init__(self, step: EngineStep, clock: Callable[[], float] = time.perf_counter) -> None:
        self.laps: list[dict[str, float]] = []
        self._step, self._watch, joint = step, PartsClock(REST, clock), step.joint
        calls = [(joint, "end", "bias sums"), (step.adam, "step", "Adam")]
        for each in joint.maps:
            names = ("load", "forward", "adjoint", "adjoint_and_gradient")
            calls += [(each, name, PRODUCTS) for name in names]
        for side in filter(None, (*joint.up, *joint.down)):
            calls += [(side, name, "neurons") for name in ("signal", "error")]
        for loss, part in ((joint.output, "output end"), (joint.input, "input end")):
            if loss is not None:
                calls.append((loss, "error", part))
                if loss.source is not None:
                    timed = self._watch.timed("noise", loss.source)
                    loss.source = _TimedSource(loss.source.noise, timed)  # type: ignore[assignment]
        for owner, name, part in calls:
            setattr(owner, name, self._watch.timed(part, getattr(owner, name)))

    def __call__(self) -> None:
        """Make a step."""
        self._watch.lap()
        self._step()
        self.laps.append(self._watch.lap())


@dataclass(frozen=True)
class _TimedSource:
    noise: Noise
    call: Callable[..., Any]

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)


def measure_parts(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time the steps of a case, their parts, and the bare products."""
    if backend.name == "gpu":  # which works on while Python goes to the next part
        raise DeviceError("the parts of a step can be timed on the CPU only; use --device cpu")
    net, batch = case.start(backend), case.draw()

    def step(path: Path, noise: dict[str, Noise]) -> EngineStep:
        return EngineStep(net.copy(), *batch, path, noise=noise)

    timed = {name: TimedStep(step(*how)) for name, how in VARIANTS.items()}
    steps: dict[str, Any] = {name: step(*how) for name, how in VARIANTS.items()}
    steps |= {f"{name}, timed": each for name, each in timed.items()}
    for each in PATHS.values():
        products = Products(backend, net.maps, case.batch, each, case.dtype)
        steps[f"products of {each}"] = products
    common, seconds = _race(case, backend, steps, {}, ("both", " a bidirectional step"), **rounds)
    variants = {}
    for name, (path, _) in VARIANTS.items():
        laps = timed[name].laps
        parts = {p: statistics.median(lap.get(p, 0.0) for lap in laps) for p in PARTS}
        variants[name] = {
            "step": common["times"][name],
            "step_with_stopwatch": seconds[f"{name}, timed"],
            "parts": parts,
            "shares": {part: parts[part] / sum(parts.values()) for part in PARTS},
            "bare_products": seconds[f"products of {path}"],
        }
    own = {"kind": "parts", "parameters": net.parameter_count, "variants": variants}
    return common | own


# -- suites ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Suite:
    """What a suite times by default and with ``--quick``, in words, and how.

    ``check`` raises ArchitectureError, naming it, for a text that is no network of the suite.
    """

    defaults: Settings
    quick: Settings
    step: str
    check: Callable[[str], object]
    measure: Callable[..., Result]


def _measure_images(case: Case, backend: Backend, **rounds: Any) -> Result:
    alone = convolution_of(case.network) is not None
    return (measure_layer if alone else measure_step)(case, backend, **rounds)


CIFAR = "32x32x3/conv32x4s2/conv64x4s2/conv128x4s2/256/10"
SUITES = {
    "dense": Suite(
        Settings(
            networks=("784-256-128-10", "784-512-512-10", "784-1024-1024-1024-10"),
            batches=(32, 128, 512),
            threads=(1, 2),
        ),
        Settings(("784-512-512-10",), (32, 128), (1, 2), budget=8.0, memory=False),
        "A step is the gradient and Adam's update of every parameter, on a batch that already lies "
        "in the step's buffers: reading and scaling data is not part of it. PyTorch runs eagerly "
        "with fused Adam, and its bidirectional step is the plain one, one backward row a sample. "
        "Before the timing its gradients are checked against nembp's.",
        parse_network,
        measure_step,
    ),
    "convolution": Suite(
        Settings(
            networks=(
                "32x32x3/conv32x4s2",
                "16x16x32/conv64x4s2",
                "8x8x64/conv128x4s2",
                "32x32x3/conv64x5s2",
                "16x16x64/conv128x5s2",
                "32x32x32/conv32x3",
                "16x16x64/conv64x3",
                CIFAR,
            ),
            batches=(32, 128),
            threads=(1, 2),
            budget=200.0,
            memory=False,
        ),
        Settings(
            ("16x16x32/conv64x4s2", "32x32x32/conv32x3", CIFAR),
            (32,),
            (1, 2),
            budget=12.0,
            memory=False,
        ),
        "A layer is a convolution's output for a batch of images, then the gradients of its input "
        "and of its kernels for a given error: in PyTorch conv2d and torch.autograd.grad. A step "
        "is the gradient and Adam's update of every parameter of a network; PyTorch's "
        "bidirectional one goes up by conv2d and down by conv_transpose2d with the same kernels, "
        "one backward row a sample, with fused Adam. PyTorch runs eagerly, in both memory layouts, "
        "of which the faster counts. Before the timing its results are checked against nembp's.",
        parse_images,
        _measure_images,
    ),
    "adversarial": Suite(
        Settings(("64-256-256-784",), (64, 256), (1, 2), budget=40.0, memory=False),
        Settings(("64-256-256-784",), (64,), (1,), budget=6.0, memory=False),
        "A step draws z, moves the discriminator on real and generated samples and then the "
        "generator, both by Adam, the non-saturating objective. A network is the generator's; the "
        "discriminator has its layers the other way round and one output. nembp's step is an "
        "iteration of its trainer, which also reads its samples and keeps a record. PyTorch runs "
        "eagerly with fused Adam, in one direction, and on a GPU also captured as a CUDA graph. "
        "Before the timing its gradients are checked against nembp's.",
        parse_network,
        measure_gan,
    ),
    "parts": Suite(
        Settings(("784-512-512-10",), (32, 128, 512), (1, 2), budget=60.0, memory=False),
        Settings(("784-512-512-10",), (128,), (1,), budget=6.0, memory=False),
        "A step is the gradient and Adam's update of every parameter, on a batch that already lies "
        "in the step's buffers. The step is timed whole, and again with a stopwatch on its parts; "
        "the share of a part is its median time over that of the step with the stopwatch.",
        parse_network,
        measure_parts,
    ),
    "estimators": Suite(
        Settings(("breast-cancer", "wine", "iris", "digits", "synthetic"), (200,), (1,),
                 device="cpu", memory=False),
        Settings(("iris", "wine"), (200,), (1,), repeats=1, device="cpu", memory=False),
        "BidirectionalClassifier, both directions, beside scikit-learn's MLPClassifier with the "
        "same settings: 60 epochs, five folds of each of two splits, fits interleaved. Gains are "
        "differences of accuracy, paired by fold, ± their standard error; noisy accuracy is under "
        "Gaussian noise of 0.7 standard deviations on the test inputs. Data sets from files, as in "
        "--networks mnist:DIR,csv:FILE, give 5,000 of their training samples.",
        estimators.samples,
        estimators.measure,
    ),
}  # fmt: skip


def run(name: str, settings: Settings, progress: Callable[[str], object] = print) -> Result:
    """Run a suite and return its report, an object that ``json`` can write.

    ``progress`` is told a line when a case is done; a case's unused time goes to the later ones. On
    a GPU the number of CPU threads decides nothing: only the first is measured.
    VerificationError if PyTorch computes something else.
    """
    suite = SUITES[name]
    for each in settings.networks:
        suite.check(each)
    backend = get_backend(settings.device, settings.precision)
    start, begun, meter = time.perf_counter(), harness.conditions(), harness.Meter.read()
    notes = harness.early_notes(settings.threads, begun["load_average"])
    for note in notes:
        progress(f"note: {note}")
    threads = settings.threads[:1] if backend.name == "gpu" else settings.threads
    cases = [
        Case(network, batch, count, settings.dtype)
        for network in settings.networks
        for count in threads
        for batch in settings.batches
    ]
    load_peers(_precision(backend))
    results: list[Result] = []
    for number, case in enumerate(cases, start=1):
        left = settings.budget - sum(result["seconds"] for result in results)
        with harness.threads_limited(case.threads):
            share = left / (len(cases) - number + 1)
            results.append(suite.measure(case, backend, repeats=settings.repeats, budget=share))
        progress(f"[{number}/{len(cases)}] {case}: {results[-1]['headline']}")
    taken = harness.shares(meter, harness.Meter.read())
    notes += harness.late_notes(taken)
    memory = None
    if settings.memory:
        progress("peak memory of a training run ...")
        memory = peak_memory(max(settings.threads), settings.dtype, backend.name)
    described = harness.describe(backend)
    if backend.name == "cpu":
        notes += harness.pinning_note(described["blas"], described["torch"])
    return {
        "suite": name,
        **begun,
        "taken_by_others": taken,
        **described,
        "settings": asdict(settings),
        "step": suite.step,
        "notes": notes,
        "results": results,
        "peak_memory": memory,
        "seconds": time.perf_counter() - start,
    }
