"""What `nembp bench` times: steps of dense and convolutional classifiers, layers, GANs, parts.

A suite has a function that makes the contenders of a `Case`, checks that PyTorch computes what
nembp does, and says what their times mean.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from cProfile import Profile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from time import perf_counter
from typing import Any

import numpy as np

from nembp.adversarial.settings import AdversarialSettings
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.architecture import Item, network, parse
from nembp.backend import Backend, get_backend, stream
from nembp.benchmarks import estimators, floor, harness, peers
from nembp.benchmarks.harness import Result
from nembp.benchmarks.memory import peak_memory
from nembp.benchmarks.peers import MissingPeerError, SklearnStep, TorchGan, TorchLayer, TorchStep
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

# so small that thousands of steps on one batch leave the arithmetic as it is: nothing overfits,
# no unit dies, and no moment of Adam decays into denormal numbers, which are slow
LEARNING_RATE = 1e-6
BACKWARD_WEIGHT = 0.1
LIT = 0.19  # share of pixels that are not zero, as in MNIST
CAPTURE = 3  # calls until a step is captured
FOREVER = 1 << 40  # iterations: no report ends a block of steps that is being timed
DIRECTIONS: dict[str, Path] = {"bidirectional": "classes", "one_direction": "none"}
PATHS: dict[str, Path] = DIRECTIONS | {"bidirectional_samples": "samples"}
PAIRS = (  # of times whose ratio is told
    ("nembp/bidirectional", "nembp/one_direction"),
    ("nembp/bidirectional_samples", "nembp/one_direction"),
    ("torch/bidirectional", "nembp/bidirectional"),
    ("torch/bidirectional", "nembp/bidirectional_samples"),
    ("torch/one_direction", "nembp/one_direction"),
    ("nembp/bidirectional", "torch/one_direction"),
    ("sklearn/one_direction", "nembp/one_direction"),
)
CALLED = "nembp call by call"
ON_CPU = {"torch": "eager"}
ON_GPU = ON_CPU | {"torch compiled": "compiled", "torch graph": "graph"}


# -- cases -----------------------------------------------------------------------------------------
SIZE = "[1-9][0-9]{0,8}"
FORMS = {  # by whether the input is an image: the text, kinds of layers, examples
    False: (f"{SIZE}(-{SIZE})+", ("dense",), "the sizes of its layers, as in 784-512-512-10"),
    True: (
        f"{SIZE}x{SIZE}x{SIZE}(/.+)+",
        ("conv", "pool", "dense"),
        "height x width x channels and the layers, as in 32x32x3/conv32x4s2/256/10 (a network), or "
        "one convolution, as in 16x16x32/conv64x4s2 (a layer)",
    ),
}


def layers_of(text: str, images: bool) -> tuple[tuple[int, ...], list[Item], int]:
    """Return the shape of the input, the layers above it, and the classes: 0 of a layer alone.

    The layers are entries of ``nembp train --layers``, the classes last. ArchitectureError, naming
    the text, if it is nothing to time.

    >>> shape, items, classes = layers_of("784-256-10", images=False)
    >>> shape, list(map(str, items)), classes
    ((784,), ['256'], 10)
    """
    form, words, expected = FORMS[images]
    first, *entries = text.split("/" if images else "-")
    try:
        if not re.fullmatch(form, text):
            raise ArchitectureError("no network")
        shape, items = tuple(map(int, first.split("x"))), list(parse(entries, "it"))
        for item in items:
            if item.word not in words or item.normalized:
                raise ArchitectureError(f"{item} is not timed")
        last, classes = items[-1], 0
        if last.word == "dense" and last.size > 1:
            classes = last.size
            items.pop()
        elif len(items) > 1 or last.word != "conv":
            raise ArchitectureError(f"it ends in {last}, no number of at least 2 classes")
        if images:
            network(shape, items, 2)
    except ArchitectureError as error:
        raise ArchitectureError(f"{text!r}: {error}; expected {expected}") from None
    return shape, items, classes


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
    def layers(self) -> tuple[tuple[int, ...], list[Item], int]:
        """Shape of the input, hidden layers, and classes (see `layers_of`)."""
        return layers_of(self.network, "/" in self.network)

    def start(self, backend: Backend) -> Network:
        """Return the network that every contender starts from, its hidden units ReLU."""
        shape, hidden, classes = self.layers
        backward = Gaussian(variance=1.0 / BACKWARD_WEIGHT)
        options: Any = {"backward": backward, "device": backend, "dtype": self.dtype}
        return network(shape, hidden, classes, **options)

    def draw(self) -> tuple[Host, Host]:
        """Return a batch, of rows in 0..1 mostly 0, of images in −1..1; and all classes' labels."""
        shape, _, classes = self.layers
        draw, size = stream(0, "benchmark/batch"), (self.batch, math.prod(shape))
        x, dark = draw.random(size), draw.random(size) >= LIT
        x = 2.0 * x - 1.0 if len(shape) > 1 else np.where(dark, 0.0, x)
        return x.astype(self.dtype), draw.permutation(np.arange(self.batch) % classes)


def _captured(backend: Backend, work: Callable[[], object]) -> Any:
    graph = backend.capture(work)
    for _ in range(CAPTURE):
        graph()
    return graph


class Race:
    """The contenders of a case, why others cannot take part, and what came of it."""

    def __init__(self, case: Case, backend: Backend) -> None:
        self.case, self.backend = case, backend
        self.precision = getattr(backend, "precision", "float32")
        self.steps: dict[str, Any] = {}
        self.missing: dict[str, dict[str, str]] = {}
        self.agreement: dict[str, float] = {}
        self.seconds: dict[str, float] = {}

    def enter(self, name: str, kind: Callable[..., Any], *args: Any, **options: Any) -> bool:
        """Add a peer, or why it is missing; return whether it is there."""
        try:
            self.steps[name] = kind(*args, **options)
        except MissingPeerError as error:
            self.missing[name] = {"missing": str(error)}
        return name in self.steps

    def compare(self, name: str, what: str, ours: Host, theirs: Host) -> None:
        """Note how far PyTorch is from nembp; VerificationError if too far."""
        off = harness.check_agreement(f"the {what} of {self.case}", ours, theirs, self.precision)
        self.agreement[name] = max(off, self.agreement.get(name, 0.0))

    def run(
        self, kind: str, first: str, words: str, pairs: Iterable[tuple[str, str]] = (),
        least: Callable[[dict[str, float]], dict[str, float]] = lambda seconds: {}, **rounds: Any,
    ) -> Result:  # fmt: skip
        """Time the steps and return what every result has.

        The headline has the time of ``first``, and in words what that is. ``least`` makes of the
        medians the floor under each of nembp's steps that has one. Ratios are those of ``pairs``,
        and of these steps to their floor; None where a peer is missing.
        """
        start = perf_counter()
        threads = 1 if self.backend.name == "gpu" else self.case.threads
        times = harness.interleave(self.steps, self.backend.seconds, threads=threads, **rounds)
        elapsed = perf_counter() - start
        self.seconds = seconds = {name: time["median"] for name, time in times.items()}
        floors = least(seconds)
        medians = seconds | {f"floor/{name}": value for name, value in floors.items()}
        ratios = {}
        for above, below in (*pairs, *((f"nembp/{name}", f"floor/{name}") for name in floors)):
            both = above in medians and below in medians
            ratios[f"{_short(above)}/{_short(below)}"] = (
                medians[above] / medians[below] if both else None
            )
        return {
            "kind": kind,
            **asdict(self.case),
            "threads_in_force": harness.threads_now(),
            "times": times | self.missing,
            "floor": floors,
            "ratios": ratios,
            "agreement": self.agreement,
            "seconds": elapsed,
            "headline": f"{duration(seconds[first])}{words}, {times[first]['rounds']} rounds",
        }


def _short(name: str) -> str:
    """Return the name of a contender in a ratio: bidirectional, torch_bidirectional, floor."""
    who, _, way = name.partition("/")
    if who in ("floor", "products") or not way:
        return who
    return way if who == "nembp" else f"{who}_{way}"


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
            self.graph = _captured(backend, self._captured_step)

    def _captured_step(self) -> None:
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
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    race, on_gpu = Race(case, backend), backend.name == "gpu"
    net, (x, labels), steps = case.start(backend), case.draw(), race.steps
    images = len(case.layers[0]) > 1

    def step(path: Path, captured: bool = False) -> EngineStep:
        return EngineStep(net.copy(), x, labels, path, captured=captured)

    for name, path in PATHS.items():
        steps[f"nembp/{name}"] = step(path, on_gpu)
    captured = all(getattr(each.graph, "launches", 0) for each in steps.values())
    modes = ON_GPU if on_gpu else ON_CPU
    for (who, mode), way in product(modes.items(), DIRECTIONS):
        both, name = way == "bidirectional", f"{who}/{way}"
        if mode == "compiled" and not both:  # PyTorch compiles for half a minute
            continue
        options: Any = {"bidirectional": both, "mode": mode}
        there = race.enter(name, TorchStep, net, x, labels, learning_rate=LEARNING_RATE, **options)
        if there and mode == "eager":
            theirs = steps[name].gradient()
            # in one direction PyTorch has no biases of the other, which come last
            ours = steps[f"nembp/{way}"].gradient()[: len(theirs)]
            race.compare(name, f"{way} gradient", ours, theirs)
    if not images and not on_gpu:
        given = (SklearnStep, net, x, labels)
        race.enter("sklearn/one_direction", *given, learning_rate=LEARNING_RATE)

    work = {f"nembp/{n}": floor.multiply_adds(net.maps, case.batch, p) for n, p in PATHS.items()}
    moved = floor.adam_bytes(net.parameter_count, case.dtype)
    own = {"parameters": net.parameter_count, "multiply_adds": work}
    headline = "nembp/bidirectional", " a bidirectional step"
    if on_gpu:
        for name, path in DIRECTIONS.items():
            called = steps[f"{CALLED}/{name}"] = step(path)
            products = floor.products(backend, called.gradient)
            steps[f"products/{name}"] = _captured(backend, products)
        card, moved = floor.measure_card(backend, case.dtype), moved + x.nbytes
        least = {n: floor.least_seconds(card, work[f"nembp/{n}"], moved) for n in DIRECTIONS}
        more = product((*ON_GPU, CALLED), DIRECTIONS)
        pairs = [*PAIRS, *((f"{who}/{name}", f"nembp/{name}") for who, name in more)]
        pairs += [(f"nembp/{name}", f"products/{name}") for name in DIRECTIONS]
        own |= {"precision": race.precision, "captured": captured, "bytes": moved, "card": card}
        return own | race.run("gpu step", *headline, pairs, lambda seconds: least, **rounds)

    for name, path in DIRECTIONS.items():
        steps[f"floor/{name}_products"] = floor.products(backend, step(path).gradient)
    for workers in {1, case.threads}:
        traffic = floor.AdamTraffic(backend, net.parameter_count, case.dtype, workers)
        steps[f"floor/adam_{workers}"] = traffic

    def sums(seconds: dict[str, float]) -> dict[str, float]:
        adam = min(value for name, value in seconds.items() if name.startswith("floor/adam"))
        return {name: seconds[f"floor/{name}_products"] + adam for name in DIRECTIONS}

    return own | {"adam_bytes": moved} | race.run("step", *headline, PAIRS, sums, **rounds)


# -- a convolution by itself -----------------------------------------------------------------------
def measure_layer(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time forward and both gradients, after a check that PyTorch computes the same.

    nembp's contractions are made as in a training step: signals up, then errors down; on several
    threads its own share the rows, and BLAS keeps to one meanwhile.
    """
    shape, (item,), _ = case.layers
    linear_map, draw = item.join(shape, "the input")[0], stream(0, "benchmark/layer")
    assert isinstance(linear_map, Convolution)
    x, y = (
        draw.standard_normal((case.batch, size), dtype=np.float32).astype(case.dtype)
        for size in (linear_map.inputs, linear_map.outputs)
    )
    host = x, y, linear_map.initial_weights(draw).astype(case.dtype)
    below, above, W = (backend.asarray(each, case.dtype) for each in host)
    down, up, gradient = ours = [backend.empty(each.shape, case.dtype) for each in host]
    workers = backend.workers() if linear_map.in_workers else 1
    space = linear_map.workspace(backend, (case.batch,), case.dtype, workers=workers)

    def step() -> None:
        with single_threaded_blas() if workers > 1 else nullcontext():
            space.load(W)
            space.forward(below, up)
            space.adjoint_and_gradient(below, above, down, gradient)

    race = Race(case, backend)
    race.steps = {"nembp": step, "floor": floor.products(backend, step)}
    if race.enter("torch", TorchLayer, linear_map, backend, *host):
        race.steps["torch"]()
        what = ("input's gradient", "output", "kernels' gradient")
        theirs = race.steps["torch"].results()
        for each in zip(what, map(backend.to_numpy, ours), theirs, strict=True):
            race.compare("torch", *each)
    pairs = ("nembp", "torch"), ("nembp", "floor")
    common, work = race.run("layer", "nembp", "", pairs, **rounds), floor.terms(linear_map)
    return common | {
        "output_shape": linear_map.output_shape, "multiply_adds": 3 * case.batch * work,
        "rate": 3 * case.batch * work / race.seconds["nembp"],
    }  # fmt: skip


# -- adversarial steps -----------------------------------------------------------------------------
def gan_networks(sizes: tuple[int, ...], backend: Backend, dtype: str) -> tuple[Network, Network]:
    """Return G of these sizes, and D of them the other way round with one output."""
    options: dict[str, Any] = {"device": backend, "dtype": dtype, "backward": "gaussian"}
    generator = dense_network(sizes, forward=Bernoulli(), seed=0, **options)
    discriminator = dense_network((*sizes[:0:-1], 1), forward=Bernoulli(), seed=1, **options)
    return generator, discriminator


def gan_trainer(
    nets: tuple[Network, Network], x: Host, bidirectional: bool, graphs: bool = False,
    rate: float = LEARNING_RATE,
) -> AdversarialTrainer:  # fmt: skip
    """Return a trainer whose iteration is a step, G trained in one direction or in both.

    It also reads its samples and keeps a record. With ``graphs`` it has been captured.
    """
    backend, dtype, same = nets[0].backend, nets[0].dtype, Scaling()
    reader = BatchReader(Split(x, np.zeros(len(x), np.int64)), same, same, 1, backend, dtype)
    settings = AdversarialSettings(bidirectional="generator" if bidirectional else "none")
    trainer = AdversarialTrainer(
        nets[0].copy(), nets[1].copy(), reader, settings, batch_size=len(x), iterations=FOREVER,
        report_every=FOREVER, optimizers=(Adam(rate, beta1=0.5), Adam(rate, beta1=0.5)),
        cuda_graphs=graphs,
    )  # fmt: skip
    for _ in range(CAPTURE if graphs else 0):
        trainer.step()
    return trainer


def at_rest(trainer: AdversarialTrainer) -> tuple[Host, list[Host]]:
    """Return a z, and both gradients for it before anything moves, G's first."""
    backend, of_g, of_d = trainer.generator.backend, trainer.of_g, trainer.of_d
    trainer.reader.read_x(backend.asarray(np.arange(trainer.batch_size)), of_d.real)
    backend.normal(backend.generator(0, "latent"), of_g.z)
    of_d.generated[...] = of_g.run()
    gradients = [optimizer.gradient for optimizer in trainer.optimizers]
    of_d(gradients[1], trainer.settings.discriminator_weight)
    of_g(gradients[0], trainer.settings.generator_weight)
    return backend.to_numpy(of_g.z), [backend.to_numpy(gradient) for gradient in gradients]


def measure_gan(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time the steps of a case, after a check that PyTorch's gradients are nembp's."""
    race, sizes = Race(case, backend), tuple(map(int, case.network.split("-")))
    graphs, one, peer = backend.name == "gpu", "nembp/one_direction", "torch/one_direction"
    nets = gan_networks(sizes, backend, case.dtype)
    x = stream(0, "benchmark/batch").random((case.batch, sizes[-1])).astype(case.dtype)
    trainer = gan_trainer(nets, x, False, graphs)
    race.steps |= {
        one: trainer.step,
        "nembp/bidirectional": gan_trainer(nets, x, True, graphs).step,
    }
    if graphs:
        race.steps[f"{CALLED}/one_direction"] = gan_trainer(nets, x, False).step
    if race.enter(peer, TorchGan, *nets, x, LEARNING_RATE):
        z, mine = at_rest(gan_trainer(nets, x, False))
        for which, a, b in zip("GD", mine, race.steps[peer].gradients(z), strict=True):
            race.compare(which, f"gradient of {which}", a[: len(b)], b)
    race.enter("torch graph/one_direction", TorchGan, *nets, x, LEARNING_RATE, graph=True)
    # G runs and is differentiated once; D likewise on twice the rows, and once for G's error
    of_g, of_d = (floor.multiply_adds(net.maps, case.batch, "none") for net in nets)
    work = of_g + 2 * of_d + 2 * case.batch * sum(each.weight_count for each in nets[1].maps)
    moved = sum(floor.adam_bytes(net.parameter_count, case.dtype) for net in nets) + x.nbytes
    least = {}
    if graphs:
        card = floor.measure_card(backend, case.dtype)
        least["one_direction"] = floor.least_seconds(card, work, moved)
    pairs = [(name, one) for name in (*race.steps, *race.missing) if name != one]
    return race.run("gan step", one, " a step", pairs, lambda seconds: least, **rounds) | {
        "precision": race.precision, "captured": trainer.captured > 0,
        "why_not_captured": trainer.why_not_captured, "multiply_adds": work, "bytes": moved,
    }  # fmt: skip


# -- parts of a step -------------------------------------------------------------------------------
NOISE = Noise("nem", std=0.1, decay=0.0)  # constant, so that step after step does the same
VARIANTS: dict[str, tuple[Path, dict[str, Noise]]] = {
    "one": ("none", {}),
    "one, noise": ("none", {"forward": NOISE}),
    "both": ("classes", {}),
    "both, noise": ("classes", {"forward": NOISE, "backward": NOISE}),
    "samples": ("samples", {}),
    "samples, noise": ("samples", {"forward": NOISE, "backward": NOISE}),
}
PARTS = ("linear", "backprop", "activations", "likelihoods", "noise", "optimizers", "standard")


def shares(profile: Profile) -> dict[str, float]:
    """Return the shares of time in each module of `PARTS`, which has that of its ufuncs."""
    profile.create_stats()
    found = dict.fromkeys((*PARTS, "others"), 0.0)
    for (file, *_), (_, _, seconds, *_) in profile.stats.items():
        module = os.path.basename(file).removesuffix(".py")
        found[module if module in PARTS else "others"] += seconds
    return {part: seconds / sum(found.values()) for part, seconds in found.items()}


def measure_parts(case: Case, backend: Backend, **rounds: Any) -> Result:
    """Time the steps of a case, alone and under a profiler, and their bare products."""
    if backend.name == "gpu":  # which works on while Python goes to the next part
        raise DeviceError("the parts of a step can be timed on the CPU only; use --device cpu")
    race, net, batch = Race(case, backend), case.start(backend), case.draw()

    def step(path: Path, noise: dict[str, Noise] | None = None) -> EngineStep:
        return EngineStep(net.copy(), *batch, path, noise=noise)

    profiles = {name: Profile() for name in VARIANTS}
    for name, how in VARIANTS.items():
        race.steps[name] = step(*how)
        race.steps[f"{name}, profiled"] = partial(profiles[name].runcall, step(*how))
    for path in PATHS.values():
        race.steps[f"products of {path}"] = floor.products(backend, step(path).gradient)
    common, variants = race.run("parts", "both", " a bidirectional step", **rounds), {}
    for name, (path, _) in VARIANTS.items():
        of = shares(profiles[name])
        variants[name] = {
            "step": common["times"][name],
            "parts": {part: share * race.seconds[name] for part, share in of.items()},
            "shares": of,
            "bare_products": race.seconds[f"products of {path}"],
        }
    return common | {"parameters": net.parameter_count, "variants": variants}


# -- suites ----------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Suite:
    """What a suite times by default and otherwise with ``--quick``, in words, and how.

    ``check`` raises ArchitectureError, naming it, for a text that is no network of the suite.
    """

    defaults: dict[str, Any]
    quick: dict[str, Any]
    step: str
    check: Callable[[str], object]
    measure: Callable[..., Result]


# networks as in 784-512-512-10, or of images 32x32x3/conv32x4s2/256/10; batches in rows; threads of
# BLAS and of PyTorch alike; budget in seconds of timing, start-up and the memory run not counted;
# repeats, the interleaved rounds of a line, None to fit them into the budget; precision of a GPU's
# float32 products, nembp's and PyTorch's
DEFAULTS: dict[str, Any] = {
    "threads": (1, 2), "memory": False, "repeats": None, "dtype": "float32", "device": "auto",
    "precision": "float32",
}  # fmt: skip


def _measure_images(case: Case, backend: Backend, **rounds: Any) -> Result:
    return (measure_step if case.layers[2] else measure_layer)(case, backend, **rounds)


_dense = partial(layers_of, images=False)
CIFAR = "32x32x3/conv32x4s2/conv64x4s2/conv128x4s2/256/10"
LAYERS = ("32x32x3/conv32x4s2", "16x16x32/conv64x4s2", "8x8x64/conv128x4s2", "32x32x3/conv64x5s2",
          "16x16x64/conv128x5s2", "32x32x32/conv32x3", "16x16x64/conv64x3")  # fmt: skip
DENSE = ("784-256-128-10", "784-512-512-10", "784-1024-1024-1024-10")
STEP = (
    "A step is the gradient and Adam's update of every parameter, on a batch that already lies in "
    "the step's buffers"
)
CHECKED = "Before the timing its results are checked against nembp's."
SUITES = {
    "dense": Suite(
        {"networks": DENSE, "batches": (32, 128, 512), "budget": 140.0, "memory": True},
        {"networks": DENSE[1:2], "batches": (32, 128), "budget": 8.0, "memory": False},
        f"{STEP}: reading and scaling data is not part of it. PyTorch runs eagerly with fused "
        f"Adam, and its bidirectional step has one backward row a sample. {CHECKED}",
        _dense,
        measure_step,
    ),
    "convolution": Suite(
        {"networks": (*LAYERS, CIFAR), "batches": (32, 128), "budget": 200.0},
        {"networks": (LAYERS[1], LAYERS[5], CIFAR), "batches": (32,), "budget": 12.0},
        "A layer is a convolution's output for a batch of images, then the gradients of its input "
        f"and of its kernels for a given error. {STEP}. PyTorch's goes up by conv2d and down by "
        "conv_transpose2d with the same kernels, one backward row a sample, with fused Adam. It "
        f"runs eagerly, on a CPU with channels last. {CHECKED}",
        partial(layers_of, images=True),
        _measure_images,
    ),
    "adversarial": Suite(
        {"networks": ("64-256-256-784",), "batches": (64, 256), "budget": 40.0},
        {"batches": (64,), "threads": (1,), "budget": 6.0},
        "A step moves the discriminator on real and generated samples, then the generator, by "
        "Adam, the non-saturating objective; nembp's trainer also reads its samples and keeps a "
        "record. A network is the generator's; the discriminator has its layers the other way "
        "round and one output. PyTorch runs eagerly with fused Adam, in one direction, on a GPU "
        f"also captured. {CHECKED}",
        _dense,
        measure_gan,
    ),
    "parts": Suite(
        {"networks": DENSE[1:2], "batches": (32, 128, 512), "budget": 60.0},
        {"batches": (128,), "threads": (1,), "budget": 6.0},
        f"{STEP}. It is timed whole, and again under Python's profiler, which says what share of "
        "the time is spent in each module of the engine.",
        _dense,
        measure_parts,
    ),
    "estimators": Suite(
        {"networks": tuple(estimators.OWN), "batches": (200,), "threads": (1,), "budget": 140.0,
         "device": "cpu"},
        {"networks": ("iris", "wine"), "repeats": 1},
        "BidirectionalClassifier, both directions, beside scikit-learn's MLPClassifier: 60 epochs, "
        "five folds of each of two splits, fits interleaved. Gains of accuracy are paired by fold, "
        "± their standard error; noisy is under Gaussian noise of 0.7 standard deviations on the "
        "test inputs. Files, as in --networks mnist:DIR,csv:FILE, give 5,000 training samples.",
        estimators.samples,
        estimators.measure,
    ),
}  # fmt: skip


def run(
    name: str, chosen: dict[str, Any], *, quick: bool = False,
    progress: Callable[[str], object] = print,
) -> Result:  # fmt: skip
    """Run a suite as ``chosen``, else its defaults; return its report, which ``json`` can write.

    ``progress`` is told a line when a case is done; a case's unused time goes to the later ones. On
    a GPU the number of CPU threads decides nothing: only the first is measured.
    VerificationError if PyTorch computes something else.
    """
    suite, start, before = SUITES[name], perf_counter(), harness.meter()
    settings = DEFAULTS | suite.defaults | (suite.quick if quick else {}) | chosen
    # at the start: some peers set such variables themselves when they are imported
    pins = {key: os.environ[key] for key in sorted(os.environ) if key.startswith(harness.PINS)}
    load = round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
    for each in settings["networks"]:
        suite.check(each)
    backend = get_backend(settings["device"], settings["precision"])
    threads, dtype, date = settings["threads"], settings["dtype"], datetime.now(UTC)
    for note in harness.notes(threads, load):
        progress(f"note: {note}")
    counts = threads[:1] if backend.name == "gpu" else threads
    lines = product(settings["networks"], counts, settings["batches"])
    cases = [Case(network, batch, count, dtype) for network, count, batch in lines]
    peers.load_peers(getattr(backend, "precision", "float32"))
    results: list[Result] = []
    for number, case in enumerate(cases, start=1):
        left = settings["budget"] - sum(result["seconds"] for result in results)
        rounds = {"repeats": settings["repeats"], "budget": left / (len(cases) - number + 1)}
        with harness.threads_limited(case.threads):
            results.append(suite.measure(case, backend, **rounds))
        progress(f"[{number}/{len(cases)}] {case}: {results[-1]['headline']}")
    taken, memory = harness.shares(before, harness.meter()), None
    if settings["memory"]:
        progress("peak memory of a training run ...")
        memory = peak_memory(max(threads), dtype, backend.name)
    return {
        "suite": name, "date": date.isoformat(timespec="seconds"), "load_average": load,
        "environment": pins, "taken_by_others": taken, **harness.describe(backend),
        "settings": settings, "step": suite.step, "results": results, "peak_memory": memory,
        "notes": harness.notes(threads, load, taken), "seconds": perf_counter() - start,
    }  # fmt: skip
