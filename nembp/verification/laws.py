"""The laws of the engine: what must hold, where it comes from, and how far a trial is from it.

A law is a generator of :class:`Deviation`, one for each comparison that it makes on a
:class:`Trial`. An error is relative to the larger of what was expected and the trial's ``scale``,
on which rounding acts: so one tolerance serves a whole law, on every machine. They stand in the
order in which ``nembp verify`` tries them: networks, single parts, trainings.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import itertools
import math
import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from pickle import PickleError
from threading import get_ident
from typing import Any, NamedTuple, TypeAlias, get_args

import numpy as np

from nembp import em, textbook
from nembp.adversarial.gradients import CycleBackpropagation
from nembp.adversarial.settings import AdversarialSettings, Kind
from nembp.adversarial.trainer import AdversarialTrainer
from nembp.backend import Backend, get_backend, stream
from nembp.checkpoints import Model, encode, environment, load_model, save_model
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine import backprop
from nembp.engine.activations import Activation, get_activation
from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import (
    Bernoulli,
    Bipolar,
    Gaussian,
    Likelihood,
    Multinomial,
    Readout,
    Score,
)
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Layer, Network, dense_network
from nembp.engine.noise import PLACES, Noise, noisy_layers
from nembp.engine.optimizers import OPTIMIZERS, SGD, Optimizer, get_optimizer
from nembp.engine.training import Trainer
from nembp.errors import ArchitectureError, VerificationError
from nembp.threads import threads
from nembp.verification import definitions
from nembp.verification.cases import SPREAD, Case, one_hot, random_targets
from nembp.verification.definitions import Array, knows
from nembp.verification.gradients import GradientReport, check_gradient, ratio


class Deviation(NamedTuple):
    """What was compared, with the worst entry and its relative error.

    The error is inf where a statement without numbers does not hold, or a value is not finite. The
    ``tolerance`` is this comparison's own, where it is not the law's.
    """

    what: str
    error: float
    tolerance: float | None = None


Deviations: TypeAlias = Iterator[Deviation]


def near(
    actual: Any,
    expected: Any,
    what: str,
    scale: float = 0.0,
    *,
    tolerance: float | None = None,
    labels: Sequence[str] = (),
) -> Deviation:
    """Return max |actual − expected| / max(max |expected|, ``scale``), and where it is.

    >>> near([1.0, 2.0], [1.0, 2.5], "a").what
    'a[1] is 2, expected 2.5 (relative error 2.0e-01)'
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        return Deviation(f"{what} has shape {actual.shape}, expected {expected.shape}", math.inf)
    if actual.size == 0:
        return Deviation(what, 0.0)
    actual, expected = actual.astype(float), expected.astype(float)
    with np.errstate(invalid="ignore"):
        distance = np.abs(actual - expected)
    distance = np.where(np.isfinite(distance), distance, math.inf)
    place = np.unravel_index(int(np.argmax(distance)), distance.shape)
    size = largest(expected[np.isfinite(expected)])
    error = float(distance[place]) / max(size, scale, 1e-300)
    if labels:
        what = f"{what}, {labels[int(place[0])]},"
    elif place:
        what = f"{what}[{', '.join(str(int(i)) for i in place)}]"
    values = f"{actual[place]:.6g}, expected {expected[place]:.6g}"
    return Deviation(f"{what} is {values} (relative error {error:.1e})", error, tolerance)


def holds(condition: Any, what: str) -> Deviation:
    """Return no deviation where ``condition`` is true, an infinite one where it is not."""
    return Deviation(what, 0.0 if condition else math.inf)


def equal(actual: Any, expected: Any, what: str) -> Deviation:
    """Return no deviation where all bits agree: for results of the very same calls."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape == expected.shape and np.array_equal(actual, expected, equal_nan=True):
        return Deviation(what, 0.0)
    return Deviation(near(actual, expected, what).what, math.inf)


def agrees(report: GradientReport) -> Deviation:
    """Return what a check of a gradient decides, by its own tolerances."""
    w = report.worst
    error, tolerance = w.relative_error, w.relative(w.tolerance)
    if report.passed:
        return Deviation(str(w), error, tolerance)
    return Deviation(report.summary, max(error, 2.0 * tolerance) or 1.0, tolerance)


def host(net: Any, array: Any) -> Array:
    """Copy an array of the network's device to the host, in float64."""
    return np.asarray(net.backend.to_numpy(array), dtype=float)


def largest(*arrays: Any) -> float:
    """Return the largest magnitude in any array."""
    return max(float(np.max(np.abs(array), initial=0.0)) for array in arrays)


def poisoned(backend: Backend) -> Backend:
    """Return a twin whose new buffers hold NaN, which any read before a write then spreads."""
    twin = copy.copy(backend)

    def empty(shape: tuple[int, ...], dtype: str) -> Any:
        if dtype == "bool":
            return backend.ones(shape, dtype)
        return backend.asarray(np.full(shape, np.nan), dtype)

    twin.empty = empty  # type: ignore[method-assign]
    return twin


# -- results ---------------------------------------------------------------------------------------
@dataclass(frozen=True)
class LawResult:
    """How far one law is from holding, and where that is worst.

    Of a law that was tried on random networks: of how many ``cases`` it spoke, Python ``code`` that
    repeats a failure in the smallest of them, and the ``seconds`` that it took.
    """

    law: str
    source: str
    passed: bool
    error: float = 0.0
    tolerance: float = 0.0
    worst: str | None = None
    cases: int = 1
    code: str | None = None
    seconds: float = 0.0


def result_of(
    law: str, source: str, tolerance: float, deviations: Iterable[Deviation]
) -> LawResult | None:
    """Return what a law says of one thing; None where it says nothing.

    An engine or extension that raises does not hold.
    """
    try:
        with np.errstate(all="ignore"):
            found = list(deviations)
    except (ArithmeticError, AssertionError, AttributeError, LookupError, PickleError, RuntimeError,
            TypeError, ValueError) as error:  # fmt: skip
        found = [Deviation(f"{type(error).__name__}: {error}", math.inf)]
    if not found:
        return None
    allowed = [tolerance if d.tolerance is None else d.tolerance for d in found]
    pairs = zip(found, allowed, strict=True)
    worst, limit = max(pairs, key=lambda pair: ratio(pair[0].error, pair[1]))
    return LawResult(law, source, bool(worst.error <= limit), worst.error, limit, worst.what)


@dataclass(frozen=True)
class LawReport:
    """What a check of a component or network found, law by law."""

    subject: str
    laws: tuple[LawResult, ...]

    @property
    def passed(self) -> bool:
        """Whether every law holds."""
        return all(law.passed for law in self.laws)

    @property
    def summary(self) -> str:
        """One line: the first law that does not hold."""
        failed = [law for law in self.laws if not law.passed]
        if not failed:
            return f"{self.subject}: every law holds"
        return f"{self.subject}: {failed[0].law}: {failed[0].worst}"

    def __str__(self) -> str:
        rows = [("law", "worst error", "tolerance", "")]
        for law in self.laws:
            numbers = f"{law.error:.1e}", f"{law.tolerance:.1e}"
            state = "passed" if law.passed else "FAILED"
            rows.append((law.law, *(numbers if law.tolerance > 0.0 else ("", "")), state))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [f"{self.subject}: {'passed' if self.passed else 'FAILED'}"]
        lines += ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
        for law in self.laws:
            if not law.passed:
                lines += ["", f"{law.law}: {law.worst}", f"  ({law.source})"]
        return "\n".join(lines)


# -- laws ------------------------------------------------------------------------------------------
ROUNDING = {"float64": 1e-12, "float32": 2e-5}  # between two ways to compute the same number
COMPLEX = {"float64": 1e-10, "float32": 2e-5}  # against complex steps
DESIGN = "nembp's definition"
BP = "Adigun and Kosko 2019, section 3: backprop invariance"
BBP = "Adigun and Kosko 2019: bidirectional backpropagation"
GULRAJANI = "Gulrajani and others 2017"
DEMPSTER = "Dempster, Laird and Rubin 1977, theorem 1"
OSOBA = "Osoba, Mitaim and Kosko 2013, theorem 1"
NORM = "Ioffe and Szegedy 2015, algorithms 1 and 2"
TRILINEAR = "∂T/∂y, ∂T/∂x, ∂T/∂W of T(x, W, y) = ⟨x·W, y⟩"
GAN = "Goodfellow and others 2014; Arjovsky, Chintala and Bottou 2017"
SUM = {"float64": 1e-12, "float32": 1e-12}  # of what is computed in float64 whatever the case's
CLOCK = 2, 30  # epoch and iteration, for annealing
NEM = "Audhkhasi, Osoba and Kosko 2016, theorems 1-3"


class Trial:
    """A part of a network on a device, with what is drawn to try it.

    Its ``scale`` is the size of the terms that its numbers are summed from, on which rounding acts.
    """

    kind: type = object  # of the parts
    scale = 1.0

    def __init__(
        self, part: Any, backend: Backend, dtype: str, rows: int, seed: int, hard: bool = False
    ) -> None:
        self.part, self.backend, self.dtype = part, backend, dtype
        self.rows, self.seed, self.hard = rows, seed, hard
        self.generator = np.random.default_rng(seed)
        self.changed: set[str] = set()  # arguments that a call wrote into

    @staticmethod
    def parts(case: Case) -> Sequence[Any]:
        """Return the parts of a case's network."""
        raise NotImplementedError

    @classmethod
    def of(cls, case: Case, backend: Backend) -> Iterator[Trial]:
        """Yield the trials of a case's parts."""
        for k, part in enumerate(cls.parts(case)):
            yield cls(part, backend, case.dtype, case.rows, case.seed + k, case.hard)

    @property
    def known(self) -> bool:
        """Whether the formula of the part is written out in the definitions."""
        return knows(self.part)

    def host(self, value: Any) -> Any:
        """Return what may be on the device as a float64 copy on the host."""
        device = hasattr(value, "shape") and not isinstance(value, (np.ndarray, np.generic))
        return np.asarray(self.backend.to_numpy(value) if device else value, dtype=float)

    def near(self, actual: Any, expected: Any, what: str, **options: Any) -> Deviation:
        """Return the largest difference, relative to the larger of ``expected`` and the scale."""
        options = {"scale": self.scale} | options
        return near(self.host(actual), self.host(expected), what, **options)

    def above(self, value: Any, what: str) -> Deviation:
        """Return how far the smallest value is below 0."""
        return self.near(np.minimum(value, 0.0), np.zeros_like(value), f"{what} below 0")

    def is_gradient(
        self, claim: Any, f: Callable[[Array], Any], at: Array, what: str
    ) -> Deviations:
        """Compare a gradient with complex steps along itself, random directions and coordinates."""
        claim = self.host(claim)
        yield near(np.isfinite(claim), np.ones(claim.shape), f"{what} is finite")
        flat = claim.reshape(-1)
        chosen = self.generator.permutation(flat.size)[:6]
        labels = [f"coordinate {i}" for i in chosen] + ["along a random direction"] * 3
        directions = [*np.eye(flat.size)[chosen], *self.generator.standard_normal((3, flat.size))]
        if 0.0 < float(np.linalg.norm(flat)) < np.inf:
            labels.append("along itself")
            directions.append(flat)
        units = [v / np.linalg.norm(v) for v in directions]
        slopes = [definitions.slope(f, at, v.reshape(claim.shape)) for v in units]
        yield self.near([float(flat @ v) for v in units], slopes, what, labels=labels)

    def array(self, value: Array) -> Any:
        """Return a copy on the device."""
        return self.backend.asarray(np.array(value), self.dtype)

    def rounded(self, value: Any) -> Array:
        """Return float64 values that the precision can represent."""
        return np.asarray(value).astype(self.dtype).astype(float)

    def normal(self, *shape: int) -> Array:
        """Draw normal numbers that the precision can represent."""
        return self.rounded(self.generator.standard_normal(shape))

    def written(self, function: Callable[..., Any], shape: Any, **given: Array) -> Array:
        """Return what ``function(*given, out)`` writes into an ``out`` full of NaN."""
        out = self.array(np.full(shape, np.nan))
        self.called(function, out, **given)
        return host(self, out)

    def called(self, function: Callable[..., Any], *more: Any, **given: Array) -> None:
        """Call ``function(*given, *more)``, and note which of ``given`` it writes into."""
        arrays = {name: self.array(value) for name, value in given.items()}
        function(*arrays.values(), *more)
        for name, array in arrays.items():
            same = np.array_equal(host(self, array), self.rounded(given[name]), equal_nan=True)
            self.changed |= set() if same else {name}


@dataclass(frozen=True)
class Law:
    """One statement about the engine that must hold for every case.

    Its ``function`` yields a deviation for each comparison on a trial, and none where the law says
    nothing. Laws that take long run on ``every`` so-manieth case; laws of the ``known`` say
    something only of nembp's own parts, whose formulas are written out in the definitions.
    """

    name: str
    statement: str
    source: str
    function: Callable[..., Deviations] = field(repr=False)
    over: type[Trial] = field(repr=False)
    tolerance: Mapping[str, float] = field(default_factory=lambda: ROUNDING)
    every: int = 1
    known: bool = False

    def deviations(self, trials: Iterable[Trial]) -> Deviations:
        """Yield the deviations of all trials that the law speaks of."""
        for trial in trials:
            yield from self.function(trial) if trial.known or not self.known else ()

    def result(self, case: Case, device: str | Backend = "cpu") -> LawResult | None:
        """Return what the law says about a case; None if nothing.

        >>> LAWS["joint.samples"].result(Case((3, 2))).passed
        True
        """
        found = self.deviations(self.over.of(case, get_backend(device)))
        return result_of(self.name, self.source, self.tolerance[case.dtype], found)

    def check(self, case: Case, device: str | Backend = "cpu") -> None:
        """Raise VerificationError with the worst place unless the law holds on a case."""
        result = self.result(case, device)
        if result is not None and not result.passed:
            raise VerificationError(
                f"{self.name}: {result.worst}; tolerance {result.tolerance:.0e} ({self.source})"
            )


LAWS: dict[str, Law] = {}


def law(name: str, over: type[Trial], source: str = DESIGN, **options: Any) -> Callable[..., Any]:
    """Add the decorated function to the laws; its docstring's first line is the statement."""

    def add(function: Callable[..., Deviations]) -> Callable[..., Deviations]:
        statement = (function.__doc__ or "").partition("\n")[0].removesuffix(".")
        LAWS[name] = Law(name, statement, source, function, over, **options)
        return function

    return add


# -- networks --------------------------------------------------------------------------------------
class Way(NamedTuple):
    """One direction of a network, with its inputs and its targets, and what defines it."""

    net: Network
    x: Array
    t: Array

    def __str__(self) -> str:
        return f"the {self.net.direction} direction"

    @property
    def end(self) -> Likelihood:
        """The likelihood of the targets."""
        return self.net.likelihood

    @property
    def flat(self) -> Array:
        """All parameters."""
        return host(self.net, self.net.parameters)

    @property
    def averages(self) -> tuple[Any, ...]:
        """The statistics by which a network can normalize."""
        return ("batch", "running") if self.net.statistics_count else ("batch",)

    def z(self, at: Array | None = None, **options: Any) -> Array:
        """Return the last pre-activation, by definition."""
        return definitions.z_of(self.net, self.flat if at is None else at, self.x, **options)

    def nll(self, at: Array, **options: Any) -> Any:
        """Return the mean of −log p(t | x), by definition."""
        return definitions.nll(self.net, at, self.x, self.t, **options)


def both_ways(net: Network, x: Array, t: Array) -> list[Way]:
    """Return both directions."""
    return [Way(net, x, t), Way(net.reversed, t, x)]


def joint_size(net: Network, x: Array, t: Array) -> float:
    """Return the size of what both output errors subtract, times the signals."""
    size = 0.0
    for way in both_ways(net, x, t):
        a = largest(host(way.net, way.net.predict(way.x, "batch")))
        mass = largest(way.t.sum(axis=1)) if isinstance(way.end, Multinomial) else 1.0
        size += abs(way.end.scale) * (a * (1.0 + mass) + largest(way.t) + 1e-3)
    return 2.0 * size * (1.0 + largest(x, t))


class OnNetwork(Trial):
    """The network of a case, whose new buffers hold NaN, and its batch."""

    def __init__(self, case: Case, backend: Backend) -> None:
        super().__init__(case, backend, case.dtype, case.rows, case.seed, case.hard)
        self.case, self.generator = case, case.generator("v")
        self.net, self.batch = case.net(device=poisoned(backend)), case.batch()
        self.path = ("samples", "classes", "none")[case.seed % 3]
        if self.path == "classes" and not case.backward.class_sums:
            self.path = "samples"

    @classmethod
    def of(cls, case: Case, backend: Backend) -> Iterator[Trial]:
        yield cls(case, backend)

    @property
    def known(self) -> bool:
        return self.case.known

    @cached_property
    def scale(self) -> float:  # type: ignore[override]
        return 10.0 * (1.0 + joint_size(self.net, *self.batch))

    def ways(self, path: str = "samples") -> list[Way]:
        """Return the directions of a path; one of classes has one-hot targets."""
        x, t = self.batch
        if path == "classes":
            t = one_hot(self.case.generator("labels"), *t.shape)
        return both_ways(self.net, x, t)[: 1 if path == "none" else 2]

    def written_by(self, step: Callable[..., Any], *arguments: Any) -> Array:
        """Return the gradient that a step writes into a vector full of NaN."""
        vector = self.array(np.full(self.net.parameter_count, np.nan))
        step(vector, *arguments)
        return host(self, vector)

    def step(
        self, way: Way, path: Any, noise: Any = None, step: Any = None
    ) -> tuple[Array, JointBackpropagation]:
        """Return a batch's joint gradient, and the step that gave it."""
        if step is None:
            drawn = {key: stream(7, f"noise/{key}") for key in noise or {}}
            options: Any = {"path": path, "noise": noise, "generators": drawn}
            step = JointBackpropagation(way.net, len(way.x), **options)
        step.x[...], step.t[...] = self.array(way.x), self.array(way.t)
        return self.written_by(step, *CLOCK), step


@law("gradient.definition", OnNetwork, BBP, known=True)
def predictions(on: OnNetwork) -> Deviations:
    """predict and log_likelihood = aᵏ = f(forward(aᵏ⁻¹) + bᵏ), written out."""
    for way in on.ways():
        net, x, t = way
        for by in way.averages:
            z = way.z(statistics=by)
            a = definitions.output_activation(way.end, z)
            yield on.near(net.predict(x, by), a, f"prediction of {way}")
            log_p = definitions.log_likelihood(way.end, z, t)
            yield on.near(net.log_likelihood(x, t, by), log_p, f"log-likelihood of {way}")


@law("gradient.complex-steps", OnNetwork, BBP, tolerance=COMPLEX, known=True)
def complex_steps(on: OnNetwork) -> Deviations:
    """∇(−mean log p) of each direction = Im f(θ + ih)/h, f written out."""
    for way in on.ways():
        for by in way.averages:
            gradient, nll = backpropagate(*way, statistics=by)[0], partial(way.nll, statistics=by)
            yield from on.is_gradient(gradient, nll, way.flat, f"gradient of {way}")


@law("gradient.input-error", OnNetwork, BBP, tolerance=COMPLEX, known=True)
def input_error(on: OnNetwork) -> Deviations:
    """input error = ∂(−mean log p)/∂x."""
    for way in on.ways():
        # beside the zeros of hard inputs, which put rectifiers without biases at their kinks
        x = on.rounded(way.x + 0.1 * on.generator.standard_normal(way.x.shape))
        nll = partial(definitions.nll, way.net, way.flat, t=way.t)
        error = backpropagate(way.net, x, way.t)[1]
        yield from on.is_gradient(error, nll, x, f"input error of {way}")


@law("gradient.textbook", OnNetwork, BP, known=True)
def of_the_textbook(on: OnNetwork) -> Deviations:
    """joint gradient = classical backpropagation in both directions (nembp.textbook)."""
    net, ends, layers = on.net, (on.case.forward, on.case.backward), on.net.layers
    names = {u.activation.name if u.activation else "identity" for u in layers[1:-1]}
    name, *others = names or {"identity"}
    plain = all(u.biases == u.size and not u.normalization for u in layers)
    dense = plain and not others and all(type(m) is Dense for m in net.maps)
    kinds: list[Any] = [getattr(textbook, type(end).__name__, None) for end in ends]
    if not (dense and name in textbook.ACTIVATIONS and all(kinds)):
        return
    pair = [kind(end.scale) for kind, end in zip(kinds, ends, strict=True)]
    sizes, g = [u.size for u in layers], np.random.default_rng(0)
    page = textbook.Network(sizes, name, pair[0], pair[1], g)
    page.theta[...] = host(net, net.parameters)
    yield on.near(backprop.gradient(net, *on.batch)[1], page.gradient(*on.batch), "gradient")


# -- both directions in three sweeps ---------------------------------------------------------------
def sum_of_directions(on: OnNetwork, path: str) -> Deviations:
    """Compare a path's gradient with the sum of the one-direction gradients, and its nll."""
    if path == "classes" and not on.case.backward.class_sums:
        return
    net, ways, what = on.net, on.ways(path), f"gradient by path {path}"
    expected = sum(host(net, backpropagate(*way)[0]) for way in ways)
    gradient, step = on.step(ways[0], path)
    yield on.near(gradient, expected, what)
    if on.known:  # what computes both could be wrong in both

        def nll(at: Array) -> Any:
            return sum(way.nll(at) for way in ways)

        yield from on.is_gradient(gradient, nll, ways[0].flat, what)
    if path == "samples":
        yield on.near(backprop.gradient(*ways[0])[1], expected, "gradient")
    yield from recorded_nll(on, step, ways)


def recorded_nll(on: OnNetwork, step: JointBackpropagation, ways: list[Way]) -> Deviations:
    """Compare ``forward_nll`` and ``backward_nll`` with the mean nll of the clean targets."""
    for way, value in zip(ways, (step.forward_nll, step.backward_nll), strict=False):
        nll = -np.mean(host(way.net, way.net.log_likelihood(way.x, way.t, "batch")))
        yield on.near(value, [[nll]], f"nll of {way} recorded by path {step.path}")


@law("joint.samples", OnNetwork, BBP)
def by_samples(on: OnNetwork) -> Deviations:
    """joint gradient = ∇ forward + ∇ backward, a row for each sample."""
    yield from sum_of_directions(on, "samples")


@law("joint.classes", OnNetwork, BBP)
def by_classes(on: OnNetwork) -> Deviations:
    """joint gradient = ∇ forward + ∇ backward, a row for each class."""
    yield from sum_of_directions(on, "classes")


@law("joint.none", OnNetwork)
def forward_alone(on: OnNetwork) -> Deviations:
    """without the backward direction: ∇ forward, its biases alone."""
    yield from sum_of_directions(on, "none")


@law("joint.blocks", OnNetwork)
def in_blocks(on: OnNetwork) -> Deviations:
    """rows in blocks on three threads give the same joint gradient."""
    if on.case.maps is not None:
        with threads(3):
            yield from sum_of_directions(on, "classes" if on.seed % 2 else "samples")


@law("joint.no-memory", OnNetwork)
def keeps_no_memory(on: OnNetwork) -> Deviations:
    """a step depends on its batch and parameters alone."""
    net, way, what = on.net, on.ways(on.path)[0], f"path {on.path}: "
    _, step = on.step(way, on.path)
    way = Way(net, on.rounded(0.5 * way.x[::-1] + 0.25), way.t[::-1].copy())
    net.parameters[...] = on.array(0.7 * way.flat[::-1])
    again, _ = on.step(way, on.path, step=step)
    nll = [host(net, value) for value in (step.forward_nll, step.backward_nll)]
    fresh, other = on.step(way, on.path)
    yield on.near(again, fresh, f"{what}gradient after another batch")
    vector = on.array(np.full(net.parameter_count, np.nan))
    for _ in range(2):  # the second time its views are known
        step(vector)
        yield on.near(vector, fresh, f"{what}what a vector held,")
        vector[...] = on.array(np.full(net.parameter_count, np.nan))
    for value, expected in zip(nll, (other.forward_nll, other.backward_nll), strict=True):
        yield on.near(value, expected, f"{what}nll")


@law("linear.step", OnNetwork, "Lavin and Gray 2016; nembp's definition", every=8)
def in_a_step(on: OnNetwork) -> Deviations:
    """What a training step computes through one convolution = its definition, at any size."""
    g = on.case.generator("convolution")

    def two(low: int, high: int) -> tuple[int, int]:
        first, second = g.integers(low, high + 1, 2).tolist()
        return first, second

    shape = (*two(5, 12), two(1, 6)[0])
    conv = Convolution(shape, two(1, 8)[0], two(1, 4), two(1, 2), two(0, 1))
    sizes, biases = (conv.inputs, conv.outputs), (shape[2], conv.channels)
    maps: tuple[LinearMap, ...] = (conv,)
    if g.random() < 0.3:
        sizes, biases, maps = sizes[::-1], biases[::-1], (Transposed(conv),)
    options: Any = {"maps": maps, "biases": biases, "forward": Gaussian(), "dtype": on.dtype}
    one = OnNetwork(Case(sizes, rows=two(1, 40)[0], seed=on.seed, **options), on.backend)
    yield from sum_of_directions(one, "samples")
    yield from keeps_no_memory(one)


# -- normalized layers -----------------------------------------------------------------------------
@law("normalization.statistics", OnNetwork, NORM, known=True)
def moving_statistics(on: OnNetwork) -> Deviations:
    """a step moves r to (1 − m) r + m (μ, σ² N/(N − 1)); nothing else moves them."""
    net, ways = on.net, on.ways(on.path)
    if not net.statistics_count:
        return
    before, expected = host(net, net.statistics), net.copy()
    for way in both_ways(*ways[0]):
        way.net.predict(way.x)
        way.net.predict(way.x, "batch")
    for way, other in zip(ways, (expected, expected.reversed), strict=False):
        moments = definitions.run(way.net, way.flat, way.x)[2]
        for k, layer in enumerate(way.net.layers):
            values = len(way.x) * layer.size // max(layer.biases, 1)
            if other.running[k] is None or layer.normalization is None or values < 2:
                continue
            m, (mean, variance) = layer.normalization.momentum, moments[k - 1]
            unbiased = variance * values / (values - 1)
            for running, now in zip(other.running[k] or (), (mean, unbiased), strict=True):
                running[...] = on.array((1 - m) * host(net, running) + m * now)
    yield equal(host(net, net.statistics), before, "statistics after predictions")
    _, step = on.step(ways[0], on.path)
    moved = host(net, net.statistics)
    yield on.near(moved, expected.statistics, f"statistics after path {on.path}")
    step.moves_statistics = False
    on.step(ways[0], on.path, step=step)
    yield equal(host(net, net.statistics), moved, "statistics that are not to move")


@law("normalization.evaluation", OnNetwork, NORM)
def evaluation(on: OnNetwork) -> Deviations:
    """by running statistics each row is by itself."""
    for way in on.ways() if on.net.statistics_count else ():
        net, x, _ = way
        alone = np.concatenate([host(net, net.predict(x[i : i + 1])) for i in range(len(x))])
        yield on.near(alone, net.predict(x), f"rows one by one, {way}")


# -- noise on targets ------------------------------------------------------------------------------
def noisy_step(on: OnNetwork, path: str) -> Any:
    """Return gradient and step with noise on targets, and each direction's noise by definition.

    None where rounding decides about a draw, or there is no noise.
    """
    defined = {}
    for way in on.ways(path):
        name = way.net.direction
        if (noise := on.case.noise.get(name)) is not None:
            given = noise, way.end, way.z(), way.t, CLOCK, stream(7, f"noise/{name}"), on.dtype
            if (found := definitions.target_noise(*given)) is None:
                return None
            defined[name] = found
    if not on.case.noise:
        return None
    return *on.step(on.ways(path)[0], path, on.case.noise), defined


@law("noise.screening", OnNetwork, NEM, known=True)
def screening(on: OnNetwork) -> Deviations:
    """NEM: gain ≥ 0, anti: gain ≤ 0, blind: every draw, σₜ = σ₀ / tᵈ; as defined, by its stream."""
    if (found := noisy_step(on, "samples")) is None:
        return
    _, step, defined = found
    for way in on.ways():
        if (name := way.net.direction) in defined:
            noise, source, z = on.case.noise[name], step.sources[name], way.z()
            drawn = host(on.net, source.n)
            gain = definitions.gain_of(noise, way.end, z, way.t)(drawn)
            mean = definitions.gain_terms(way.end, z, way.t, drawn).sum() / len(z)
            yield from as_drawn(on, noise, source, (*defined[name], gain, mean))


def as_drawn(on: OnNetwork, noise: Noise, source: Any, defined: Any) -> Deviations:
    """Compare noise, and what its source records, with the definition; NEM lowers no likelihood."""
    n, share, gain, mean = defined
    yield on.near(source.n, n, f"{noise.kind} noise")
    sign = {"nem": 1.0, "anti": -1.0}.get(noise.kind, 0.0)
    yield on.above(sign * gain, f"gain of {noise.kind} noise")
    yield on.near(source.gain, [[mean]], "mean gain recorded")
    yield on.near(source.accepted, [[share]], "share accepted")


@law("joint.noisy", OnNetwork, NEM, known=True)
def noisy_gradient(on: OnNetwork) -> Deviations:
    """noisy joint gradient = backpropagation on the noisy targets."""
    if (found := noisy_step(on, on.path)) is None:
        return
    gradient, step, defined = found
    alone = set(step.sources) == set(defined)
    yield holds(alone, f"noise on the targets of {sorted(defined)} alone")
    errors, ways = [], on.ways(on.path)
    for way in ways:
        n, _ = defined.get(way.net.direction, (0.0, 0.0))
        noise = on.case.noise.get(way.net.direction, Noise())
        error = definitions.output_error(way.end, way.z(), way.t + n, noise.update)
        errors.append(error / len(way.x))

    def form(at: Array) -> Any:
        return sum(np.sum(e * way.z(at)) for way, e in zip(ways, errors, strict=True))

    what = f"noisy gradient by path {on.path}"
    yield from on.is_gradient(gradient, form, ways[0].flat, what)
    yield from recorded_nll(on, step, ways)


# -- noise on signals ------------------------------------------------------------------------------
def signal_step(on: OnNetwork) -> Any:
    """Return a step with noise on signals of one direction; None where the case has none."""
    if (spec := on.case.noise.get("forward")) is None:
        return None
    place, way = PLACES[on.seed % 3], on.ways()[on.seed // 3 % 2]
    if not any(layer.activation for layer in way.net.layers):
        place = "input"
    other: Any = {"component": "auto", "curvature": "gaussian"}  # signals have neither
    screened, drawn = (other.get(v, v) for v in (spec.screening, spec.law))
    spec = replace(spec, screening=screened, law=drawn, update="exact")
    key = f"{way.net.direction}/{place}"
    gradient, step = on.step(on.ways()[0], "samples", {key: spec})
    layers = noisy_layers(way.net, place)
    sources = {k: step.sources[key if place == "input" else f"{key}-{k}"] for k in layers}
    return way, spec, key, gradient, step, sources


@law("noise.signals", OnNetwork, NEM, known=True)
def signals(on: OnNetwork) -> Deviations:
    """on signals: log p(t|aᵏ+n) − log p(t|aᵏ) ≥ 0 for NEM, ≤ 0 for anti."""
    found = signal_step(on) if not on.case.normalized else None
    if found is None:
        return
    way, spec, key, _, _, sources = found
    flat, generator = way.flat, stream(7, f"noise/{key}")
    before: dict[int, Array] = {}

    def log_p(noise: dict[int, Array]) -> Array:
        return definitions.log_likelihood(way.end, way.z(flat, noise=noise), way.t)[:, None]

    for k, source in sources.items():
        clean, signal = log_p(before), definitions.run(way.net, flat, way.x, noise=before)[0][k]

        def gain(n: Array, k: int = k, clean: Array = clean) -> Array:
            each = log_p({**before, k: n}) - clean
            return np.full_like(each, each.mean()) if spec.screening == "expectation" else each

        given = spec, way.end, None, signal, CLOCK, generator, on.dtype
        rounding = 300.0 * float(np.finfo(on.dtype).eps) * (1.0 + largest(clean))
        defined = definitions.screened(spec, gain, definitions.draws(*given), rounding)
        if defined is None:
            return
        drawn = host(way.net, source.n)
        mean = np.mean(log_p({**before, k: drawn}) - clean)
        yield from as_drawn(on, spec, source, (*defined, gain(drawn), mean))
        before[k] = drawn


@law("noise.signal-gradient", OnNetwork, NEM, tolerance=COMPLEX, known=True)
def signal_gradient(on: OnNetwork) -> Deviations:
    """on signals: joint gradient = ∇(−mean log p(t|aᵏ+n)), n fixed."""
    if (found := signal_step(on)) is None:
        return
    noisy, _, key, gradient, step, sources = found
    drawn, ways = {k: host(on.net, source.n) for k, source in sources.items()}, on.ways()

    def nll(at: Array) -> Any:
        return sum(way.nll(at, noise=drawn if way.net is noisy.net else {}) for way in ways)

    yield from on.is_gradient(gradient, nll, ways[0].flat, f"gradient, {key}")
    for name, array, kept in zip("xt", (step.x, step.t), on.batch, strict=True):
        yield equal(host(on.net, array), kept, f"{name} after the step")


# -- views, copies, files, devices -----------------------------------------------------------------
@law("network.views", OnNetwork, BBP)
def views(on: OnNetwork) -> Deviations:
    """net.reversed.reversed is net; both are views of one vector, each entry once."""
    yield from _views(on.net)


def _views(net: Network) -> Deviations:
    forward = net if net.direction == "forward" else net.reversed
    back, kept = forward.reversed, net.snapshot()
    yield holds(net.reversed.reversed is net, "net.reversed.reversed is net")
    yield holds(forward.parameters is back.parameters, "the directions share one vector")
    yield holds(forward.statistics is back.statistics, "the directions share their statistics")
    gains = *forward.gains, *back.gains[::-1]
    pieces = *forward.weights, *forward.biases, *back.biases[::-1], *gains
    pairs = (*forward.running, *back.running[::-1])
    moments = [each for pair in pairs for each in pair or ()]
    for flat, views, what in ((net.parameters, pieces, "entry"), (net.statistics, moments, "mean")):
        expected = np.arange(flat.shape[0])
        flat[...] = net.backend.asarray(expected, net.dtype)
        seen = [host(net, piece).reshape(-1) for piece in views if piece is not None]
        yield equal(np.concatenate([np.zeros(0), *seen]), expected, f"{what} seen through views")
    for W, other in zip(forward.weights, back.weights[::-1], strict=True):
        yield equal(host(net, W), host(net, other), "weights of the other direction")
    sizes = [None if b is None else tuple(b.shape) for b in net.biases]
    yield holds(sizes == [None, *((u.biases,) for u in net.layers[1:])], "sizes of the biases")
    net.restore(kept)


def same_network(one: Network, other: Network, what: str) -> Deviations:
    """Compare two networks, which may differ in precision, but for what they predict."""
    a, b = ((n.layers, n.maps, n.likelihood, n.reversed.likelihood) for n in (one, other))
    same = a == b and one.direction == other.direction
    yield holds(same, f"parts of {what}")
    yield from same_bits(one, other, f"of {what}")


def same_bits(one: Network, other: Network, when: str) -> Deviations:
    """Compare what training moves in two networks."""
    names = "parameters", "running statistics"
    for a, b, name in zip(one.snapshot(), other.snapshot(), names, strict=True):
        yield equal(a, b.astype(one.dtype), f"{name} {when}")


@law("network.copies", OnNetwork, every=4)
def copies(on: OnNetwork) -> Deviations:
    """a copy shares no memory, and is the same network."""
    other, coarse = ("float32", 1e-6) if on.dtype == "float64" else ("float64", 1e-4)
    for net, x, t in on.ways():
        before, prediction = net.snapshot()[0], host(net, net.predict(x))
        back = host(net, net.reversed.predict(t))
        same = net.copy(), copy.deepcopy(net), pickle.loads(pickle.dumps(net))
        for twin, slack in (*((n, None) for n in same), (net.to(dtype=other), coarse)):
            yield from _views(twin)
            yield holds(twin.dtype == (other if slack else on.dtype), "dtype of the copy")
            yield from same_network(twin, net, "the copy")
            for a, b in ((twin.predict(x), prediction), (twin.reversed.predict(t), back)):
                yield on.near(host(twin, a), b, "prediction of a copy", tolerance=slack)
            twin.parameters[...] = twin.backend.asarray(before + 0.25, twin.dtype)
            yield equal(net.snapshot()[0], before, "the original's parameters")
            yield equal(host(net, net.predict(x)), prediction, "the original's prediction")


@law("files.round-trip", OnNetwork, every=8)
def round_trip(on: OnNetwork) -> Deviations:
    """load(save(net)) = net, bit for bit."""
    net, (x, t) = on.net, on.batch
    try:
        encode((net.layers, net.maps, net.likelihood, net.reversed.likelihood))
    except ArchitectureError:
        return  # a part of yours that is not registered cannot be in a file
    model = Model(
        net=net, shape=(net.inputs,), classes=(), target_names=(), x_scaling=Scaling(),
        y_scaling=Scaling(), centroids=None, is_image=False, dataset="random", settings={},
        environment=environment(net),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        save_model(Path(folder) / "model.npz", model)
        loaded = load_model(Path(folder) / "model.npz", on.backend).net
    yield holds(loaded.dtype == net.dtype, "dtype of the loaded network")
    yield from same_network(loaded, net, "the loaded network")
    for a, b, at in ((loaded, net, x), (loaded.reversed, net.reversed, t)):
        yield equal(host(a, a.predict(at)), host(b, b.predict(at)), "its prediction")


# -- linear maps -----------------------------------------------------------------------------------
class OnMap(Trial):
    """A linear map, x, W and y, and the size of the terms of a contraction."""

    kind = LinearMap

    def __init__(self, part: Any, *where: Any) -> None:
        super().__init__(part, *where)
        self.x, self.W = self.normal(self.rows, part.inputs), self.normal(*part.weight_shape)
        self.y = self.normal(self.rows, part.outputs)
        sizes = (max(1.0, largest(array)) for array in (self.x, self.W, self.y))
        self.scale = self.rows * math.prod(sizes)

    @staticmethod
    def parts(case: Case) -> list[Any]:
        return [part for m in case.net().maps for part in (m, Transposed(m))]

    def contractions(
        self, x: Array | None = None, y: Array | None = None, m: LinearMap | None = None
    ) -> dict[str, Array]:
        """Return forward(x), adjoint(y) and, of a map with weights, weight_gradient(x, y)."""
        m, W = m or self.part, self.W
        x, y = self.x if x is None else x, self.y if y is None else y
        on, results = self.backend, {}
        up, down = partial(m.forward, on), partial(m.adjoint, on)
        results["forward"] = self.written(up, (len(x), m.outputs), x=x, W=W)
        results["adjoint"] = self.written(down, (len(y), m.inputs), y=y, W=W)
        if m.weight_count:
            outer = partial(m.weight_gradient, on)
            results["weight gradient"] = self.written(outer, m.weight_shape, x=x, y=y)
        return results

    def alike(self, found: dict[str, Array], expected: dict[str, Array], when: str) -> Deviations:
        """Compare the contractions of two ways."""
        for name, actual in found.items():
            yield self.near(actual, expected[name], f"{name}{when}")


@law("linear.trilinear", OnMap, TRILINEAR)
def trilinear(on: OnMap) -> Deviations:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩ for every x, W and y."""
    norm = np.linalg.norm
    G = on.contractions().get("weight gradient")  # does not see W, so both sides are linear
    for _ in range(3):
        up, down = [*on.contractions().values()][:2]
        scale, form = float(norm(up) * norm(on.y) + norm(on.x) * norm(down)), np.sum(up * on.y)
        yield near(np.sum(on.x * down), form, "⟨x, adjoint(y)⟩", scale)
        if G is not None:
            size = scale + float(norm(on.W) * norm(G))
            yield near(np.sum(on.W * G), form, "⟨W, weight_gradient(x, y)⟩", size)
        on.W = on.normal(*on.W.shape)


@law("linear.definition", OnMap, known=True)
def definition(on: OnMap) -> Deviations:
    """forward = x M(W), adjoint = y M(W)ᵀ, weight_gradient = ∂⟨x M(W), y⟩/∂W, M written out."""
    found, matrix = on.contractions(), definitions.matrix_of(on.part, on.W)
    yield on.near(found["forward"], on.x @ matrix, "forward")
    yield on.near(found["adjoint"], on.y @ matrix.T, "adjoint")
    for _ in range(3 if on.part.weight_count else 0):
        V = on.normal(*on.W.shape)
        form = np.sum((on.x @ definitions.matrix_of(on.part, V)) * on.y)
        slope = np.sum(V * found["weight gradient"])
        yield on.near(slope, form, "⟨V, weight gradient⟩", scale=on.scale * V.size)


@law("linear.transposed", OnMap, BBP)
def transposed(on: OnMap) -> Deviations:
    """Transposed swaps forward and adjoint over the same W, and undoes itself."""
    m, turned, here = on.part, Transposed(on.part), on.contractions()
    shapes = turned.inputs, turned.outputs, turned.weight_shape, turned.weight_count
    expected = m.outputs, m.inputs, m.weight_shape, m.weight_count
    yield holds(shapes == expected, "sizes of the transposed map")
    there = on.contractions(on.y, on.x, turned)
    there |= {"forward": there["adjoint"], "adjoint": there["forward"]}
    yield from on.alike(there, here, " of the transposed")
    back = on.contractions(m=Transposed(turned))
    yield from on.alike(back, here, " transposed twice")


@law("linear.contract", OnMap, every=2)
def linear_contract(on: OnMap) -> Deviations:
    """Every entry of out is written, in any memory layout, rows by themselves, arguments alone."""
    m, x, y, here = on.part, on.x, on.y, on.contractions()
    for name, result in here.items():
        yield holds(np.all(np.isfinite(result)), f"{name} writes every entry of out")
    each = [on.contractions(x[k : k + 1], y[k : k + 1]) for k in range(on.rows)]
    alone = {name: np.array([one[name] for one in each]) for name in here}
    rows = {n: v.sum(axis=0) if n == "weight gradient" else v[:, 0] for n, v in alone.items()}
    yield from on.alike(rows, here, " row by row")
    for function, signal, name in ((m.forward, x, "forward"), (m.adjoint, y, "adjoint")):
        taken = on.array(np.concatenate([signal, signal + 1.0]))[: on.rows, :]
        out = on.array(np.full(here[name].shape[::-1], np.nan))
        function(on.backend, taken, on.array(on.W), out.T)
        yield on.near(host(on, out).T, here[name], "an out of another memory layout")
    one, two = (np.asarray(m.initial_weights(stream(on.seed, "weights"))) for _ in range(2))
    fine = one.size == m.weight_count and np.array_equal(one, two) and np.all(np.isfinite(one))
    yield holds(fine, f"initial weights are {m.weight_count}, finite and the generator's alone")
    yield holds(one.size < 2 or np.ptp(one) > 0.0, "initial weights differ")
    yield holds(not on.changed, f"no call writes into its argument {sorted(on.changed)}")


@law("linear.no-memory", OnMap, every=4)
def remembers_nothing(on: OnMap) -> Deviations:
    """Results depend on x, W and y, not on calls before."""
    before, W = on.contractions(), on.W
    on.W = np.full_like(W, np.nan)
    for rows in (on.rows + 2, max(1, on.rows - 1), on.rows):
        x, y = (np.full((rows, n), np.nan) for n in (on.part.inputs, on.part.outputs))
        on.contractions(x, y)
    on.W = W
    yield from on.alike(on.contractions(), before, " after other calls")


@law("linear.threads", OnMap, every=11)
def reentrant(on: OnMap) -> Deviations:
    """Calls of two threads do not meet."""
    mine, theirs = on, OnMap(on.part, on.backend, on.dtype, on.rows, on.seed + 1)
    expected, seen = [mine.contractions(), theirs.contractions()], list[dict[str, Array]]()
    owner, left = get_ident(), 40
    twin = copy.copy(on.backend)

    def handing_over(operation: Callable[..., Any]) -> Callable[..., Any]:
        """Let another thread run before an operation."""

        def call(*args: Any, **options: Any) -> Any:
            nonlocal left
            if get_ident() == owner and left:
                left -= 1
                with ThreadPoolExecutor(1) as pool:
                    run = contextvars.copy_context().run
                    seen.append(pool.submit(run, theirs.contractions).result())
            return operation(*args, **options)

        return call

    for name in ("add_windows", "copy_windows", "empty", "matmul", "ones", "zeros"):
        if hasattr(on.backend, name):
            setattr(twin, name, handing_over(getattr(on.backend, name)))
    mine.backend = theirs.backend = twin
    yield from mine.alike(mine.contractions(), expected[0], " interrupted")
    for results in seen:
        yield from theirs.alike(results, expected[1], " from another thread")


# -- activations -----------------------------------------------------------------------------------
class OnActivation(Trial):
    """An activation."""

    kind = Activation
    scale = 4.0

    @staticmethod
    def parts(case: Case) -> list[Any]:
        return [get_activation(case.activation)]

    def applied(self, z: Array) -> Array:
        """Return f(z)."""
        a = self.array(z)
        self.part.activate(self.backend, a, self.array(np.full(z.shape, np.nan)))
        return host(self, a)

    def multiplied(self, error: Array, a: Array, method: str = "multiply_derivative") -> Array:
        """Return error ∘ f'(z) where f(z) = a; or times what another method multiplies by."""
        out = self.array(error)
        function = partial(getattr(self.part, method), self.backend, out)
        self.called(function, self.array(np.full(a.shape, np.nan)), a=a)
        return host(self, out)


@law("activation.derivative", OnActivation, "Squire and Trapp 1998: complex steps")
def activation_derivative(on: OnActivation) -> Deviations:
    """multiply_derivative(e, a) = e ∘ f'(z), a = f(z), the slope of activate."""
    if not on.known:
        yield from measured_derivative(on)
        return
    z, error = 2.0 * on.normal(on.rows, 7), on.normal(on.rows, 7)
    a, h = on.applied(z), definitions.STEP
    yield on.near(a, definitions.activate(on.part, z), "f(z)")
    slope = np.imag(definitions.activate(on.part, z + 1j * h)) / h
    yield on.near(on.multiplied(error, a), error * slope, "error ∘ f'(z)")


def measured_derivative(on: OnActivation) -> Deviations:
    """Compare with slopes of ``activate``; at kinks, 0 among them, with both one-sided ones."""
    if on.dtype != "float64":
        return
    z = np.concatenate([[0.0, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 4.0, -4.0], on.normal(40)])
    w, backend = on.generator.uniform(0.5, 1.5, z.size), on.backend

    def value(z: Array) -> Any:
        if z.dtype.kind != "c":
            return np.sum(w * on.applied(z[None])[0])
        a = backend.asarray(z[None].copy())
        on.part.activate(backend, a, backend.asarray(np.full(a.shape, np.nan + 0j)))
        return np.sum(w * backend.to_numpy(a)[0])

    def slopes(z: Array) -> Array:
        return np.ravel(on.multiplied(w[None], on.applied(z[None])))

    options: Any = {"name": "slope of activate", "blocks": {"f'(z)": z.shape}, "raises": False}
    report = check_gradient(value, z, gradient=slopes, scale=1.0, seed=on.seed, **options)
    yield agrees(report)
    if on.part.analytic and report.passed and backend.name == "cpu":
        complex_steps = report.method == "complex"
        yield holds(complex_steps, "complex steps do not apply, so analytic must be False")


@law("activation.curvature", OnActivation, GULRAJANI, known=True)
def activation_curvature(on: OnActivation) -> Deviations:
    """multiply_curvature(e, a) = e ∘ f''(z) / f'(z)."""
    if on.part.piecewise_linear:
        return
    z, error, h = on.normal(on.rows, 7), on.normal(on.rows, 7), definitions.STEP
    found = on.multiplied(error, on.applied(z), "multiply_curvature")
    slope, above = (definitions.derivative(on.part, at) for at in (z, z + 1j * h))
    yield on.near(found, error * np.imag(above) / h / slope, "error ∘ f''/f'")


@law("activation.contract", OnActivation, every=4)
def activation_contract(on: OnActivation) -> Deviations:
    """f acts on each neuron by itself, stays finite, multiplies the error, and leaves a alone."""
    z = np.array([[0.0, 1e-3, 0.5, 1.0, 4.0, 12.0, 20.0, 100.0, 1e3, 1e4]])
    z = np.concatenate([z, -z], axis=1)
    for dtype in ("float32", "float64"):
        at = OnActivation(on.part, on.backend, dtype, 1, 0)
        a = at.applied(z)
        both = np.concatenate([a, at.multiplied(np.ones_like(a), a)])
        bad = np.isnan(both) | (~np.isfinite(both) & (np.abs(z) <= 20.0))
        where = z[0, np.flatnonzero(bad.any(axis=0))[:1]]
        yield holds(not where.size, f"f and f' are finite in {dtype}, but not at z = {where}")
    z = np.concatenate([on.normal(1, 40), 0.3 * on.normal(1, 20)], axis=1)
    a, error, order = on.applied(z), on.normal(1, 60), on.generator.permutation(60)
    yield on.near(on.applied(z[:, order].T)[:, 0], a[0, order], "f(z) in another order")
    slope = on.multiplied(np.ones_like(a), a)
    yield on.near(on.multiplied(error, a), error * slope, "the error multiplied")
    yield holds(not on.changed, "a is left alone by multiply_derivative")


# -- likelihoods -----------------------------------------------------------------------------------
class OnLikelihood(Trial):
    """A likelihood on readouts whose work space holds NaN, with z, targets t and noise n.

    Targets are labels or bits if ``hard``, or drawn by ``targets``. p adds up to 1 over the
    ``support``, ``sums`` of targets do or do not give sums of log p, and the error of a
    ``canonical`` one is scale · (a − t); what is None is for the likelihood to say. ``size`` is
    that of what an error subtracts.
    """

    kind = Likelihood

    targets: Any = None
    support: str | None = None
    sums: bool | None = None
    canonical = True

    def __init__(self, part: Any, *where: Any, **held: Any) -> None:
        super().__init__(part, *where)
        vars(self).update(held)
        if self.sums is None:
            self.sums = part.class_sums
        g, shape = self.generator, (self.rows, 4)
        self.z = self.rounded(float(g.choice([0.1, 1.0, 3.0])) * self.normal(*shape))
        self.n = self.rounded(float(g.choice([0.05, 0.5])) * self.normal(*shape))
        self.t = self.draw(*shape)
        most = largest(self.z, self.t, self.n)
        mass = 1.0 + largest(self.t.sum(axis=1)) + 4.0 * largest(self.n)
        self.size = abs(part.scale) * (largest(self.activation(self.z)) * mass + 2.0 * most)
        self.scale = 30.0 * (1.0 + self.size * (1.0 + most))

    @staticmethod
    def parts(case: Case) -> list[Any]:
        return [case.forward, case.backward]

    def draw(self, rows: int, width: int) -> Array:
        """Draw targets."""
        if self.targets is not None:
            return self.rounded(np.asarray(self.targets(self.generator, rows, width), float))
        return self.rounded(random_targets(self.part, self.generator, rows, width, hard=self.hard))

    def readout(self, z: Array) -> Readout:
        """Return z and a on the device."""
        o = Readout(poisoned(self.backend), len(z), z.shape[1], self.dtype)
        o.z[...] = self.array(z)
        self.part.activate(o)
        return o

    def activation(self, z: Array) -> Array:
        """Return a."""
        return host(self, self.readout(z).a)

    def log_p(self, z: Array, t: Array, *sums: Array) -> Array:
        """Return log p(t) of each row, shape (rows,)."""

        def write(*given: Any) -> None:
            *targets, out = given
            out[...] = self.part.log_likelihood(self.readout(z), *targets)

        given = dict(zip(("t", "counts", "square"), (t, *sums), strict=False))
        return self.written(write, (len(z), 1), **given)[:, 0]

    def result(self, name: str, z: Array, *given: Array, **options: Any) -> Array:
        """Return what ``error(t)``, ``gain_terms(t, n)`` or ``gain_slope(t)`` at z writes."""
        o = self.readout(z)
        before = host(self, o.z), host(self, o.a)
        if isinstance(options.get("counts"), np.ndarray):
            options["counts"] = self.array(options["counts"])
        function = partial(getattr(self.part, name), o, **options)
        result = self.written(function, z.shape, **dict(zip("tn", given, strict=False)))
        for array, was, now in zip(("o.z", "o.a"), before, (o.z, o.a), strict=True):
            if not np.array_equal(host(self, now), was, equal_nan=True):
                self.changed.add(array)
        return result

    def error(self, z: Array, t: Array, **options: Any) -> Array:
        """Return −∂log p/∂z."""
        return self.result("error", z, t, **options)


@law("likelihood.definition", OnLikelihood, known=True)
def likelihood_definition(on: OnLikelihood) -> Deviations:
    """a = softmax, identity or logistic of z, and log p(t) is as written."""
    z, t = on.z, on.t
    a = definitions.output_activation(on.part, z)
    yield on.near(on.activation(z), a, "a", scale=1.0)
    for targets in (t, on.rounded(t + on.n)):
        log_p = definitions.log_likelihood(on.part, z, targets)
        yield on.near(on.log_p(z, targets), log_p, "log p(t)")


@law("likelihood.class-sums", OnLikelihood, "exponential families")
def class_sums(on: OnLikelihood) -> Deviations:
    """log p and error of a sum of targets = the sums of log p and error."""
    z, g = on.z, on.generator
    if not on.sums:
        return
    if not on.part.class_sums:
        why = "class_sums is False, so log p does not follow from sums of targets"
        yield holds(False, why)
        return
    members = g.integers(0, len(z), int(g.integers(1, 13)))
    t, belongs = on.draw(len(members), z.shape[1]), np.eye(len(z))[members].T
    sums, mass = on.rounded(belongs @ t), belongs.sum(axis=1, keepdims=True)
    square = on.rounded(belongs @ np.sum(t * t, axis=1, keepdims=True))
    each, errors = on.log_p(z[members], t), on.error(z[members], t)
    scale = (on.scale + largest(each)) * len(members)
    summed = on.log_p(z, sums, mass, square)
    yield on.near(summed, belongs @ each, "sum of log-likelihoods", scale=scale)
    found = on.error(z, sums, counts=mass)
    yield on.near(found, belongs @ errors, "sum of errors", scale=on.size * len(members))


@law("likelihood.gain", OnLikelihood, NEM)
def gains(on: OnLikelihood) -> Deviations:
    """Σ gain(n) = log p(t+n) − log p(t), slope = ∂gain/∂n."""
    if not on.known and on.dtype != "float64":
        return  # near a pole of log p, rounding is large
    z, t, n = on.z, on.t, on.n
    terms = on.result("gain_terms", z, t, n)
    before, after = on.log_p(z, t), on.log_p(z, on.rounded(t + n))
    on.scale += 10.0 * (largest(before) + largest(after))
    yield on.near(terms.sum(axis=1), after - before, "gain")
    if on.known:
        yield on.near(terms, definitions.gain_terms(on.part, z, t, n), "gain of each neuron")
    # where a gain is at most quadratic in the noise, this difference is exact
    step, tolerance = (1.0, None) if on.known else (1e-4, 1e-6)
    up, down = (on.result("gain_terms", z, t, np.full_like(z, h)) for h in (step, -step))
    slope, difference = on.result("gain_slope", z, t), (up - down) / (2.0 * step)
    yield on.near(slope, difference, "slope of the gain", tolerance=tolerance)


@law("likelihood.output-derivative", OnLikelihood, tolerance=COMPLEX, known=True)
def output_derivative(on: OnLikelihood) -> Deviations:
    """An error at a = softmax, identity or logistic of z reaches z times ∂a/∂z."""
    error = on.normal(*on.z.shape)
    held = on.array(error)
    on.part.multiply_derivative(on.readout(on.z), held)

    def reads(at: Array) -> Any:
        return np.sum(error * definitions.output_activation(on.part, at))

    yield from on.is_gradient(held, reads, on.z, "∂/∂z")


@law("likelihood.contract", OnLikelihood, every=4)
def likelihood_contract(on: OnLikelihood) -> Deviations:
    """Results are whole, rows by themselves, arguments alone; activate leaves a normal form."""
    z, t, o = on.z, on.t, on.readout(on.z)
    a, error = on.activation(z), on.error(z, t)
    on.part.activate(o)
    yield on.near(o.a, a, "a, activated twice", scale=1.0)
    yield on.near(on.error(z, t, factor=0.25), 0.25 * error, "error with a factor", scale=on.size)
    results = {
        "a": a,
        "gain": on.result("gain_terms", z, t, on.n),
        "error": error,
        "log_p": on.log_p(z, t),
    }
    for name, result in results.items():
        yield holds(np.all(np.isfinite(result)), f"every entry of {name} is written, and finite")
    for name, function in (("log_p", on.log_p), ("error", on.error)):
        rows = [function(z[k : k + 1], t[k : k + 1]) for k in range(len(z))]
        yield on.near(np.concatenate(rows), results[name], f"{name} row by row")
    yield holds(not on.changed, f"no call writes into its argument {sorted(on.changed)}")


SUPPORTS = ("labels", "bits", "signs", "counts", "reals", "positive")


@law("likelihood.normalization", OnLikelihood, "p is a probability or a density", every=16)
def normalization(on: OnLikelihood) -> Deviations:
    """p adds up to 1 over labels, bits, signs, counts, real or positive numbers."""
    if on.dtype != "float64":
        return
    kinds = {Multinomial: "labels", Bernoulli: "bits", Bipolar: "signs", Gaussian: "reals"}
    named = on.support or kinds.get(type(on.part))
    totals = {
        support: [total_probability(on, support, shift) for shift in (-1.0, 0.3, 1.1)]
        for support in ([named] if named else SUPPORTS)
    }
    fits = [name for name, total in totals.items() if np.allclose(total, 1.0, atol=1e-6)]
    for name in [named] if named else fits[:1]:
        yield near(totals[name], np.ones(3), f"total over {name}", tolerance=1e-6)


def total_probability(on: OnLikelihood, support: str, shift: float) -> float:
    """Return Σp over all targets of a support; a tempered p(t)ʷ is brought back to p(t)."""
    measure: Any = 1.0
    if support == "labels":
        t = np.eye(4)
    elif support in ("bits", "signs"):
        t = np.array([*itertools.product((0.0 if support == "bits" else -1.0, 1.0), repeat=3)])
    elif support == "counts":
        t = np.arange(401.0)[:, None]
    else:
        width = 14.0 / math.sqrt(max(on.part.scale, 1e-12))
        ends = (shift - width, shift + width) if support == "reals" else (-30.0, 12.0)
        s = np.linspace(*ends, 20_001)
        t, measure = s[:, None], s[1] - s[0]
        if support == "positive":  # t = eˢ, dt = eˢ ds
            t, measure = np.exp(t), np.exp(s) * measure
    z = np.tile(np.linspace(shift, -shift, t.shape[1]) if t.shape[1] > 1 else [shift], (len(t), 1))
    log_p = on.log_p(z, t) / on.part.tempering
    return float(np.sum(np.exp(log_p) * measure))


@law("invariance.slope", OnLikelihood, BP, tolerance=COMPLEX)
def error_is_slope(on: OnLikelihood) -> Deviations:
    """error = −∂log p/∂z at each end, on noisy targets too."""
    z, t = on.z, on.t
    log_p = partial(definitions.log_likelihood, on.part) if on.known else on.log_p
    yield holds(t.shape == z.shape and np.all(np.isfinite(t)), f"targets have shape {z.shape}")
    for what, targets in (("proper", t), ("noisy", on.rounded(t + on.n))):
        name, error = f"error, {what} targets", partial(on.error, t=targets)

        def nll(at: Array, targets: Array = targets) -> Any:
            return -np.sum(log_p(at, targets))

        if on.known:
            yield from on.is_gradient(error(z), nll, z, name)
        elif on.dtype == "float64":
            options: Any = {"method": "central", "blocks": {"error": z.shape}, "raises": False}
            yield agrees(check_gradient(nll, z, gradient=error, scale=1.0, name=name, **options))


@law("invariance.update", OnLikelihood, BP)
def classical_update(on: OnLikelihood) -> Deviations:
    """error = scale · (a − t) for proper targets; the scale of the Gaussian is 1/v."""
    if not on.canonical:
        return
    t, scale = on.t, on.part.scale
    if isinstance(on.part, Multinomial):
        t = on.rounded(t / t.sum(axis=1, keepdims=True))
    if isinstance(on.part, Gaussian):
        scale = 1.0 / on.part.variance
    yield on.near(on.error(on.z, t), scale * (on.activation(on.z) - t), "error", scale=on.size)


@law("invariance.noisy-softmax", OnLikelihood, NEM)
def noisy_softmax(on: OnLikelihood) -> Deviations:
    """a Σ(t+n) − (t+n) exact, a − (t+n) published; with zero-sum noise they agree."""
    if type(on.part) is not Multinomial:
        return
    z, noisy, w = on.z, on.rounded(on.t + on.n), on.part.weight
    a, mass = definitions.output_activation(on.part, z), noisy.sum(axis=1, keepdims=True)
    yield on.near(on.error(z, noisy), w * (a * mass - noisy), "exact error", scale=on.size)
    yield on.near(on.error(z, noisy, counts=1.0), w * (a - noisy), "published error", scale=on.size)
    balanced = on.t + on.n - on.n.mean(axis=1, keepdims=True)
    exact, published = on.error(z, balanced), on.error(z, balanced, counts=1.0)
    yield on.near(exact, published, "exact and published error", scale=on.size)


# -- optimizers ------------------------------------------------------------------------------------
class OnOptimizer(Trial):
    """An optimizer, a network, where its parameters start, and four gradients of many sizes."""

    kind = Optimizer

    def __init__(self, part: Any, *where: Any) -> None:
        super().__init__(part, *where)
        self.net = dense_network([5, 4, 3], device=self.backend, dtype=self.dtype)
        self.start, g = self.normal(self.net.parameter_count), self.generator
        shape = 4, self.start.size
        sizes = g.choice([-1.0, 1.0], shape) * 10.0 ** g.uniform(-2.0, 1.0, shape[1])
        self.g = self.rounded(sizes * g.uniform(0.5, 1.5, shape))
        self.scale = 1.0 + largest(self.start, self.g)

    @staticmethod
    def parts(case: Case) -> list[Any]:
        return [get_optimizer(sorted(OPTIMIZERS)[case.seed % len(OPTIMIZERS)])]

    def copied(self, weight_decay: float = 0.0) -> Optimizer:
        """Return a copy of the optimizer, without weight decay unless it is given."""
        other: Optimizer = copy.copy(self.part)
        other.weight_decay = weight_decay
        return other

    def path(
        self, gradients: Any, start: Any = None, *factors: float, by: Any = None, net: Any = None
    ) -> Array:
        """Return the parameters after each step along gradients, or functions of the parameters."""
        net, by = net or self.net, by or self.copied()
        start = self.start if start is None else start
        net.parameters[...] = net.backend.asarray(start, net.dtype)
        vector, path = by.bind(net), [start]
        for gradient, factor in zip(gradients, itertools.cycle(factors or (1.0,)), strict=False):
            g = gradient(path[-1]) if callable(gradient) else np.array(gradient)
            vector[...] = net.backend.asarray(g, net.dtype)
            by.step(factor)
            path.append(host(net, net.parameters))
        return np.array(path[1:])


def moves_of(optimizer: Optimizer, g: Array, factors: tuple[float, ...]) -> Any:
    """Yield the moves along gradients as the papers write them, with the default constants."""
    v, s = np.zeros_like(g[0]), np.zeros_like(g[0])
    for t, gradient in enumerate(g, start=1):
        eta = optimizer.learning_rate * factors[(t - 1) % len(factors)]
        if optimizer.name == "sgd":
            yield eta * gradient
        elif optimizer.name == "momentum":
            v = 0.9 * v + gradient
            yield eta * v
        elif optimizer.name == "rmsprop":
            s = 0.9 * s + 0.1 * gradient**2
            yield eta * gradient / (np.sqrt(s) + 1e-8)
        else:
            v, s = 0.9 * v + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
            yield eta * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)


@law("optimizer.formula", OnOptimizer, "Polyak 1964; Tieleman and Hinton 2012; Kingma and Ba 2015")
def optimizer_formula(on: OnOptimizer) -> Deviations:
    """SGD, momentum, RMSProp, Adam = their papers."""
    if type(on.part) not in OPTIMIZERS.values():
        return
    expected = on.start - np.cumsum([*moves_of(on.part, on.g, (1.0, 0.5))], axis=0)
    moved = on.path(on.g, on.start, 1.0, 0.5)
    yield on.near(moved, expected, "parameters[step, i]")


@law("optimizer.weight-decay", OnOptimizer, "Loshchilov and Hutter 2019")
def weight_decay(on: OnOptimizer) -> Deviations:
    """θ_w ← (1 − ηλ) θ_w once a step, biases spared."""
    expected = on.start.copy()
    expected[: on.net.weight_count] *= 1.0 - on.part.learning_rate * 0.1
    end = on.path(0.0 * on.g[:1], by=on.copied(0.1))
    yield on.near(end[0], expected, "parameters after one step of decay")


@law("optimizer.contract", OnOptimizer, every=4)
def optimizer_contract(on: OnOptimizer) -> Deviations:
    """Steps go down, each parameter by itself, in place; bind starts anew."""
    net, start, g, held, again = on.net, on.start, on.g, on.net.parameters, on.copied()
    shape = tuple(on.copied().bind(net).shape)
    yield holds(shape == start.shape, "bind returns a vector of all parameters")
    whole = on.path(g)
    yield holds(np.all((whole[0] - start) * g[0] < 0.0), "the first step goes against the gradient")
    still = on.path(np.zeros((2, start.size)))
    yield on.near(still, [start, start], "parameters where the gradient is zero")
    half = on.path(g[:1], start, 0.5)[0] - start
    yield on.near(half, 0.5 * (whole[0] - start), "a step at half the learning rate")
    order = on.generator.permutation(start.size)
    permuted = on.path(g[:, order], start[order])
    yield on.near(permuted, whole[:, order], "parameters permuted")
    small = copy.copy(on.backend)
    small.chunk = 16
    cut = on.path(g, net=dense_network([5, 4, 3], device=small, dtype=on.dtype))
    yield on.near(cut, whole, "the vector cut into chunks")
    for _ in range(2):
        yield on.near(on.path(g, by=again), whole, "parameters after bind again")
    end = on.path(g[:1])[0]
    seen = host(net, net.weights[0]).reshape(-1)
    same = net.parameters is held and np.array_equal(seen, end[: seen.size])
    yield holds(same, "parameters move in place, and the network's views see it")
    curvature = on.generator.uniform(0.5, 2.0, start.size)
    slow = min(1.0, 0.02 / on.part.learning_rate)
    end = on.path([lambda theta: curvature * theta] * 60, start, slow)[-1]
    yield holds(curvature @ end**2 < curvature @ start**2, "60 steps descend a quadratic")


# -- a network's training --------------------------------------------------------------------------
def trainer_of(
    on: OnNetwork, optimizer: str, rate: float, **options: Any
) -> tuple[Trainer, Array, Array]:
    """Return a short training, its samples and targets; hard ones are labels.

    At a rate of 0.001 it moves a little, whatever the likelihoods' weights.
    """
    case, net = on.case, on.case.net(device=on.backend)
    x, y = replace(case, rows=2 * case.rows + 1).batch()
    y = case.generator("training").integers(0, net.outputs, len(x)) if case.hard else y
    reader = BatchReader(Split(x, y), Scaling(), Scaling(), net.outputs, on.backend, net.dtype)
    rate /= max(1.0, case.forward.scale, case.backward.scale)
    moved_by = get_optimizer(optimizer, rate, weight_decay=options.pop("decay", 0.0))
    options |= {"epochs": 2, "batch_size": case.rows + 1, "seed": case.seed % 2**31}
    trainer = Trainer(net, reader, optimizer=moved_by, noise=case.noise, **options)
    return trainer, x, np.eye(net.outputs)[y] if case.hard else y


@law("training.replay", OnNetwork, every=4, known=True)
def replayed(on: OnNetwork) -> Deviations:
    """a training = its definition, replayed in NumPy."""
    net = replace(on.case, dtype="float64").net()
    net.parameters[...] = on.case.net().parameters  # rounded to the case's precision
    options: Any = {"schedule": "cosine", "backward": on.seed % 4 != 0, "host_noise": True}
    trainer, x, t = trainer_of(on, "momentum", 1e-3, decay=0.1, **options)
    seed, batch, rate = on.seed % 2**31, trainer.batch_size, trainer.optimizer.learning_rate
    ways = both_ways(net, x, t)[: 2 if options["backward"] else 1]
    streams = [stream(seed, f"noise/{way.net.direction}") for way in ways]
    order, iteration = stream(seed, "batches"), 0
    velocity, steps = np.zeros(net.parameter_count), trainer.epochs * math.ceil(len(x) / batch)
    for epoch in range(1, trainer.epochs + 1):
        index = order.permutation(len(x))
        for rows in (index[k : k + batch] for k in range(0, len(x), batch)):
            eta = 0.5 * (1.0 + math.cos(math.pi * iteration / steps)) * rate
            iteration, velocity = iteration + 1, 0.9 * velocity
            for whole, drawn in zip(ways, streams, strict=True):
                way = Way(whole.net, whole.x[rows], whole.t[rows])
                z, noise = way.z(), on.case.noise.get(way.net.direction, Noise())
                t = way.t
                if noise.kind != "none":
                    given = noise, way.end, z, t, (epoch, iteration), drawn, on.dtype
                    if (found := definitions.target_noise(*given)) is None:
                        return
                    t = t + found[0]
                error = definitions.output_error(way.end, z, t, noise.update) / len(rows)

                def pulled(at: Array, way: Way = way, error: Array = error) -> Any:
                    return np.sum(error * way.z(at))

                velocity = velocity + definitions.gradient(pulled, way.flat)
            net.parameters[: net.weight_count] *= 1.0 - eta * 0.1
            net.parameters[...] -= eta * velocity
    trainer.run()
    what, size = "parameters after the training", 10.0 * (1.0 + rate * on.scale)
    yield on.near(trainer.net.parameters, net.parameters, what, scale=size)


class StoppedError(Exception):
    """Stops a training between two steps."""


def stopped_and_whole(make: Callable[[], Any], seed: int) -> tuple[Any, Any]:
    """Return a trainer that went on where another was stopped, and one that nothing stopped."""
    whole, first, second = make(), make(), make()
    whole.run()
    last = 1 + seed % max(1, whole.iteration - 1)

    def stop() -> None:
        if first.iteration == last:
            raise StoppedError

    first.after_step = stop
    with contextlib.suppress(StoppedError):
        first.run()
    second.resume(first.state())
    second.run()
    return second, whole


@law("training.resume", OnNetwork, every=4)
def resumed(on: OnNetwork) -> Deviations:
    """a training that goes on where another was stopped = one in one go, bit for bit."""
    seed = on.seed % 2**31
    name = sorted(OPTIMIZERS)[seed % len(OPTIMIZERS)]
    found, whole = stopped_and_whole(lambda: trainer_of(on, name, 1e-4)[0], seed)
    yield from same_bits(found.net, whole.net, f"after the training by {name}")
    a, b = (each.history["train/forward/nll"] for each in (found, whole))
    yield equal(a, b, "the history of the nll")


# -- a generator against a discriminator -----------------------------------------------------------
class Game:
    """A case's network as the generator G, a discriminator D of its layers turned and one more.

    The objectives are written out, and take complex parameters.
    """

    def __init__(self, case: Case, backend: Backend, settings: AdversarialSettings) -> None:
        case = replace(case, forward=type(case.forward)(), backward=type(case.backward)())
        self.settings, self.rows, self.seed = settings, case.rows, case.seed % 2**31
        self.g = net = case.net(device=backend)
        last = Dense(net.inputs, settings.classes + 1)
        hidden = Layer(net.inputs, get_activation(case.activation))
        layers = [*net.layers[:0:-1], hidden, Layer(last.outputs)]
        if settings.kind == "wasserstein-gp":
            layers = [replace(layer, normalization=None) for layer in layers]
        maps: list[LinearMap] = [*(Transposed(m) for m in net.maps[::-1]), last]
        forward: Likelihood = Multinomial() if settings.classes else Bernoulli()
        ends = Score() if settings.has_critic else forward, case.forward
        self.d = Network(layers, maps, *ends, device=backend, dtype=net.dtype, seed=None)
        draws = case.generator("discriminator").normal(0.0, SPREAD, self.d.parameter_count)
        self.d.parameters[...] = backend.asarray(draws, net.dtype)
        self.x = replace(case, rows=2 * case.rows + 1).batch()[1]
        classes = max(1, settings.classes)
        self.labels = case.generator("labels").integers(0, classes, len(self.x))
        self.permutation: Any = slice(None)
        if settings.backward_permuted and settings.discriminator_backward:
            self.permutation = stream(self.seed, "permutation").permutation(self.d.inputs)

    def trainer(self, iterations: int, noise: Any = None, rate: float = 1.0) -> AdversarialTrainer:
        """Return a training by gradient descent, G at half D's learning rate."""
        outputs, g = self.settings.classes or 1, self.g
        data = Split(self.x, self.labels), Scaling(), Scaling(), outputs, g.backend, g.dtype
        options: Any = {"batch_size": self.rows, "iterations": iterations, "noise": noise}
        options |= {"optimizers": (SGD(0.5 * rate), SGD(rate)), "seed": self.seed}
        reader = BatchReader(*data)
        return AdversarialTrainer(g, self.d, reader, self.settings, host_noise=True, **options)

    def draws(self) -> Any:
        """Yield z, real samples, labels and the shares of x̂ of one step of D after another."""
        names, cpu, dtype = ("latent", "batches", "penalty"), get_backend("cpu"), self.g.dtype
        latent, order, between = (stream(self.seed, name) for name in names)
        while True:
            index = order.permutation(len(self.x))
            for k in range(0, len(self.x) - self.rows + 1, self.rows):
                z = cpu.normal(latent, np.empty((self.rows, self.g.inputs), dtype))
                share = cpu.uniform(between, np.empty((self.rows, 1), dtype))
                rows = index[k : k + self.rows]
                labels = np.eye(max(1, self.settings.classes))[self.labels[rows]]
                yield np.asarray(z, float), self.x[rows], labels, np.asarray(share, float)

    def generated(self, flat: Array, z: Array) -> Array:
        """Return G(z)."""
        last = definitions.z_of(self.g, flat, z)
        return definitions.output_activation(self.g.likelihood, last)

    def outputs_for(self, labels: Array) -> tuple[Array, Array]:
        """Return what D says of real and of generated samples, at best; a critic ±1."""
        real, fake = np.ones((self.rows, 1)), np.full((self.rows, 1), -1.0)
        if self.settings.classes:
            real = np.concatenate([labels, np.zeros((self.rows, 1))], axis=1)
            fake = np.eye(self.settings.classes + 1)[[-1] * self.rows]
        return real, fake if self.settings.classes or self.settings.has_critic else 0.0 * fake

    def backward_pairs(self, x: Array, y: Array, labels: Array) -> tuple[Array, Array]:
        """Return the label that goes down and the x that it aims at, for each sample with both."""
        real, fake = self.outputs_for(labels)
        if self.settings.backward_labels == "real":
            return real, x[:, self.permutation]
        return np.concatenate([real, fake]), np.concatenate([x, y])[:, self.permutation]

    def of_d(self, flat: Array, draw: Any, y: Array, weight: float = 1.0) -> Any:
        """Return what D descends; ``weight`` multiplies that of its backward direction."""
        (_, x, labels, share), settings, net = draw, self.settings, self.d
        # each sort by itself: a normalized D has statistics of real and of generated samples
        if settings.has_critic:
            fake, real = (np.mean(definitions.z_of(net, flat, each)) for each in (y, x))
            value = fake - real
        else:
            pairs = zip((x, y), self.outputs_for(labels), strict=True)
            value = sum(definitions.nll(net, flat, each, t) for each, t in pairs)
        if settings.kind == "wasserstein-gp":
            value = value + settings.penalty_weight * penalty(net, flat, y + share * (x - y))
        if settings.discriminator_backward:
            pair = self.backward_pairs(x, y, labels)
            weight *= settings.discriminator_weight * len(pair[0]) / self.rows
            value = value + weight * definitions.nll(net.reversed, flat, *pair)
        return value

    def of_g(self, flat: Array, draw: Any, held: Array, weight: float = 1.0) -> Any:
        """Return what G descends; its backward direction starts from ``held`` unless that flows."""
        z, settings, parameters = draw[0], self.settings, host(self.d, self.d.parameters)
        y = self.generated(flat, z)
        s = definitions.z_of(self.d, parameters, y)
        if settings.has_critic:
            value = -np.mean(s)
        elif settings.kind == "minimax":
            value = -definitions.nll(self.d, parameters, y, self.outputs_for(draw[2])[1])
        elif settings.classes:  # any but that of generated samples
            log_p = definitions.log_softmax(s)[:, :-1]
            value = -np.mean((log_p - definitions.log_softmax(log_p))[:, 0])  # −log Σp
        else:
            value = -np.mean(definitions.log_logistic(s))
        if settings.generator_backward:
            start, target = y if settings.backward_flow else held, self.target_of_g(z)
            weight *= settings.generator_weight
            value = value + weight * definitions.nll(self.g.reversed, flat, start, target)
        return value

    def target_of_g(self, z: Array) -> Array:
        """Return what the backward direction of G aims at."""
        return np.roll(z, -self.settings.backward_permuted, axis=0)


def penalty(net: Network, flat: Array, x: Array) -> Any:
    """Return mean (‖∇ₓ f(x)‖ − 1)², the slope by the chain rule."""
    steps, z = definitions.unflatten(net, flat), definitions.run(net, flat, x)[1]
    slope: Any = np.ones((len(x), 1))
    for k in range(len(steps), 0, -1):
        slope = slope @ steps[k - 1][0].T
        if k > 1:
            slope = slope * definitions.derivative(net.layers[k - 1].activation, z[k - 2])
    return np.mean((np.sqrt(np.sum(slope * slope, axis=1)) - 1.0) ** 2)


def settings_of(case: Case, kind: str | None = None, **fixed: Any) -> AdversarialSettings:
    """Return the settings of a case's game, of a given kind or of any."""
    g, kinds = case.generator("settings"), get_args(Kind)
    chosen: Any = kind or kinds[case.seed % len(kinds)]
    classes = int(g.integers(2, 4)) if chosen in ("vanilla", "minimax") and g.random() < 0.4 else 0
    options = {
        "bidirectional": "both" if g.random() < 0.8 else "none",
        "discriminator_weight": round(float(g.uniform(0.1, 2.0)), 3),
        "generator_weight": round(float(g.uniform(0.1, 2.0)), 3),
        "backward_labels": ("real", "both")[int(g.integers(2))],
        "backward_flow": bool(g.random() < 0.5),
        "backward_permuted": bool(g.random() < 0.2),
        "classes": classes,
        "penalty_weight": round(float(g.uniform(0.5, 5.0)), 3),
        "clip": 1e3,
        "critic_steps": 1,
    }
    return AdversarialSettings(chosen, **(options | fixed))


def moves(on: OnNetwork, kind: str | None = None) -> Deviations:
    """Compare what one iteration of gradient descent moves with slopes of both objectives."""
    game = Game(on.case, on.backend, settings_of(on.case, kind))
    before = [host(net, net.parameters) for net in (game.g, game.d)]
    game.trainer(1).run()
    after = [host(net, net.parameters) for net in (game.g, game.d)]
    draw = next(game.draws())
    y = game.generated(before[0], draw[0])
    objectives = partial(game.of_g, draw=draw, held=y), partial(game.of_d, draw=draw, y=y)
    for k, name, factor in ((1, "D", 1.0), (0, "G", 2.0)):
        moved, what = factor * (before[k] - after[k]), f"gradient of {name}, {game.settings.kind}"
        yield from on.is_gradient(moved, objectives[k], before[k], what)


@law("adversarial.gradients", OnNetwork, GAN, tolerance=COMPLEX, every=2, known=True)
def adversarial_gradients(on: OnNetwork) -> Deviations:
    """G and D move against the gradients of what they descend, of any kind."""
    yield from moves(on)


@law("adversarial.penalty", OnNetwork, GULRAJANI, tolerance=COMPLEX, every=4, known=True)
def penalty_gradient(on: OnNetwork) -> Deviations:
    """∇ λ mean (‖∇ₓ f(x̂)‖ − 1)² by complex steps, second derivatives too."""
    yield from moves(on, "wasserstein-gp")


@law("adversarial.own-output", OnNetwork, BBP, tolerance=COMPLEX, known=True)
def own_output(on: OnNetwork) -> Deviations:
    """G(z) ↦ z: ∇ of what reads G(z) + ∇ log p(z | G(z)), held or not."""
    net, z, g = on.net, on.batch[0], on.generator
    flat, back = host(net, net.parameters), net.reversed
    last = definitions.z_of(net, flat, z)
    error = on.rounded(np.asarray(g.normal(0.0, 1.0, last.shape)) / len(z))
    weight = round(float(g.uniform(0.2, 3.0)), 3)

    def value(at: Array, held: Any, both: bool) -> Any:
        y = definitions.output_activation(net.likelihood, definitions.z_of(net, at, z))
        start = y if held is None else held
        backward = weight * definitions.nll(back, at, start, z) if both else 0.0
        return np.sum(error * y) + backward

    for both, flow in ((False, False), (True, False), (True, True)):
        step = CycleBackpropagation(net, len(z), bidirectional=both, flow=flow)
        step.z[...] = net.backend.asarray(z, net.dtype)
        step.run()
        y = host(net, step.output)
        expected = definitions.output_activation(net.likelihood, last)
        yield on.near(y, expected, "output")
        if step.input is not None:
            step.input.weight = weight
        gradient, held = on.written_by(step, on.array(error)), None if flow else y
        name = f"gradient, output {'flowing' if flow else 'held' if both else 'alone'}"
        yield from on.is_gradient(gradient, partial(value, held=held, both=both), flat, name)


@law("adversarial.replay", OnNetwork, every=8, known=True)
def adversarial_replay(on: OnNetwork) -> Deviations:
    """a training = its definition: fresh z, D's steps, G's; scheduled weights, clipped critics."""
    if on.net.parameter_count > 120:
        return
    kind = ("vanilla", "wasserstein")[on.seed % 2]
    fixed = {"critic_steps": 1 + on.seed % 3, "clip": 0.4, "weight_schedule": "linear"}
    settings = settings_of(on.case, kind, classes=0, **fixed)
    game, rate, steps = Game(on.case, on.backend, settings), 1e-2, 2
    g, d = (host(net, net.parameters) for net in (game.g, game.d))
    count = game.d.weight_count + sum(layer.biases for layer in game.d.layers[1:])
    draws = game.draws()
    twin = Game(replace(on.case, dtype="float64"), get_backend("cpu"), settings)
    for iteration in range(steps):
        weight = 1.0 - iteration / steps
        for _ in range(settings.steps):
            draw = next(draws)
            y = twin.generated(g, draw[0])
            descended = partial(twin.of_d, draw=draw, y=y, weight=weight)
            d = d - rate * definitions.gradient(descended, d)
            if kind == "wasserstein":
                d[:count] = np.clip(d[:count], -0.4, 0.4)
        twin.d.parameters[...] = d
        descended = partial(twin.of_g, draw=draw, held=y, weight=weight)
        g = g - 0.5 * rate * definitions.gradient(descended, g)
    game.trainer(steps, rate=rate).run()
    for net, expected, name in ((game.d, d, "D"), (game.g, g, "G")):
        yield on.near(net.parameters, expected, f"{name}'s parameters after training")


@law("adversarial.noise", OnNetwork, NEM, every=2, known=True)
def adversarial_noise(on: OnNetwork) -> Deviations:
    """NEM noise at D, z and x: gain ≥ 0; f(x + n) ≥ f(x), f(g + n) ≤ f(g)."""
    settings, spec = settings_of(on.case), Noise("nem", std=0.3, decay=0.0, screening="vector")
    for key in noise_places(settings):
        game = Game(on.case, on.backend, settings)
        if key.endswith("input") and game.d.statistics_count:
            continue  # a normalized D's score of a sample is no function of that sample alone
        g, d = (host(net, net.parameters) for net in (game.g, game.d))
        trainer = game.trainer(1, {key: spec})
        trainer.run()
        source, (z, x, labels, _) = trainer.sources[key], next(game.draws())
        n, y = host(game.g, source.n), game.generated(g, z)
        if key.endswith("input"):
            inputs = np.concatenate([x, y])
            s = [definitions.z_of(game.d, d, at) for at in (inputs, inputs + n)]
            rise = (s[1] - s[0])[:, 0] * np.repeat([1.0, -1.0], game.rows)
            yield holds(np.any(n), f"{key} receives noise")
            yield on.above(rise, f"{key}: rise of f, fall of f(G(z))")
            continue
        if key == "generator/backward":
            way, flat, sources, t = game.g.reversed, g, [y], game.target_of_g(z)
        elif key == "discriminator/backward":
            source_of_t, t = game.backward_pairs(x, y, labels)
            way, flat, sources = game.d.reversed, d, [source_of_t]
        else:  # each sort has statistics of its own
            way, flat, sources, t = game.d, d, [x, y], np.concatenate(game.outputs_for(labels))
        u = np.concatenate([definitions.z_of(way, flat, each) for each in sources])
        gain = definitions.gain_terms(way.likelihood, u, t, n).sum(axis=1)
        yield on.above(gain, f"{key}: gain")
        yield on.near(source.gain, [[gain.mean()]], f"{key}: mean gain")


def noise_places(settings: AdversarialSettings) -> list[str]:
    """Return where a game can have noise."""
    keys = ["critic/input"] if settings.has_critic else ["discriminator/forward"]
    if not settings.has_critic and not settings.classes:
        keys.append("discriminator/input")
    if settings.bidirectional == "both":
        keys += [] if settings.has_critic else ["discriminator/backward"]
        keys.append("generator/backward")
    return keys


@law("adversarial.resume", OnNetwork, every=4)
def adversarial_resumed(on: OnNetwork) -> Deviations:
    """a game that goes on where another was stopped = one in one go, bit for bit."""
    settings = settings_of(on.case, averaging=0.9)
    noise = dict.fromkeys(noise_places(settings), Noise("nem", std=0.1, screening="vector"))

    def make() -> AdversarialTrainer:
        return Game(on.case, on.backend, settings).trainer(4, noise, rate=1e-4)

    found, whole = stopped_and_whole(make, on.seed)
    yield from same_bits(found.generator, whole.generator, "of G after training")
    yield from same_bits(found.discriminator, whole.discriminator, "of D after training")
    yield equal(found.sample(2), whole.sample(2), "samples of the averaged generator")


@law("adversarial.streams", OnNetwork, every=4)
def silent_adversarial_noise(on: OnNetwork) -> Deviations:
    """noise of standard deviation 0 changes nothing: noise has its own streams."""
    settings, ends = settings_of(on.case), []
    silent = dict.fromkeys(noise_places(settings), Noise("blind", std=0.0))
    for noise in (None, silent):
        game = Game(on.case, on.backend, settings)
        game.trainer(3, noise, rate=1e-4).run()
        ends.append([host(net, net.parameters) for net in (game.g, game.d)])
    for a, b, name in zip(*ends, "GD", strict=True):
        yield on.near(b, a, f"{name}'s parameters after training", scale=10.0)


# -- expectation-maximization, on a network whose hidden states can be enumerated ------------------
def binary_network(on: OnNetwork) -> Any:
    """Return a binary network of the case's ends, up to 4-3-4, either way; its Θ, x and y."""
    case = on.case
    inputs, outputs = min(case.sizes[0], 4), min(case.sizes[-1], 4)
    hidden, rows = min(case.sizes[len(case.sizes) // 2], 3), min(case.rows, 4)
    net = em.BinaryNetwork(inputs, hidden, outputs, case.forward, case.backward)
    theta = net.initial(case.generator("em"), 0.7)
    x = random_targets(case.backward, case.generator("x"), rows, inputs, hard=case.hard)
    y = random_targets(case.forward, case.generator("t"), rows, outputs, hard=case.hard)
    return (net, theta, x, y) if case.seed % 2 else (net.reversed, theta, y, x)


EXACT = {"float64": 1e-10, "float32": 1e-10}


@law("em.fisher", OnNetwork, "Fisher's identity", tolerance=EXACT, every=2, known=True)
def fisher(on: OnNetwork) -> Deviations:
    """∇ log p = ∇Q at Θₙ; log p = Q + H."""
    net, theta, x, y = binary_network(on)
    scale = (1.0 + on.case.forward.scale + on.case.backward.scale) * (1.0 + largest(x, y)) ** 2
    r = em.posterior(net, theta, x, y)
    slope = em.gradient(net, theta, x, y)
    yield near(em.q_gradient(net, theta, r, x, y), slope, "∇Q", scale)
    v = 0.5 * on.generator.standard_normal(theta.size)
    ends = [net.log_likelihood(theta + 1e-5 * h * v, x, y) for h in (1.0, -1.0)]
    difference, size = (ends[0] - ends[1]) / 2e-5, scale * len(x)
    yield near(slope @ v, difference, "∇ log p along a line", size, tolerance=1e-7)
    other = theta + v
    parts = em.q(net, other, r, x, y), em.entropy(net, other, r, x, y)
    log_p = net.log_likelihood(other, x, y)
    yield near(sum(parts), log_p, "Q + H", 1.0 + abs(parts[0]) + abs(parts[1]))


@law("em.gem", OnNetwork, DEMPSTER, tolerance=SUM, every=4, known=True)
def gem(on: OnNetwork) -> Deviations:
    """a GEM step never lowers log p."""
    net, theta, x, y = binary_network(on)
    both = on.seed % 4 > 1
    step = em.gem_step(net, theta, x, y, both=both)
    ways, Q, log_p = [(net, x, y), (net.reversed, y, x)][: 1 + both], [], []
    for at in (theta, step.theta):
        Q.append(sum(em.q(way, at, em.posterior(way, theta, *xy), *xy) for way, *xy in ways))
        log_p.append(sum(way.log_likelihood(at, *xy) for way, *xy in ways))
    for what, (before, after) in (("Q", Q), ("log p", log_p)):
        yield near(min(after - before, 0.0), 0.0, f"gain of {what}", 1.0 + abs(before))
    yield near([step.q_before, step.q_after], Q, "recorded Q", 1.0 + abs(Q[0]))


@law("em.nem", OnNetwork, OSOBA, tolerance=SUM, every=4, known=True)
def nem(on: OnNetwork) -> Deviations:
    """E[log p(y+n, h|x)/p(y, h|x)] ≥ 0 for NEM noise."""
    net, theta, x, y = binary_network(on)
    condition: Any = "posterior" if on.seed % 4 < 2 else "every"
    spec = on.case.noise.get("forward", Noise())
    spec = replace(spec, decay=0.0, law="gaussian", update="exact", draws=1)
    if spec.screening == "expectation":
        spec = replace(spec, screening="vector")  # by row
    r = em.posterior(net, theta, x, y)
    Q = em.q(net, theta, r, x, y)
    scale = (1.0 + abs(Q) + net.likelihood.scale * (1.0 + spec.std)) * y.size
    kinds: Any = ("nem", 1.0), ("anti", -1.0)
    for kind, sign in kinds:
        noise, given = replace(spec, kind=kind), (net, theta, x, y)
        options: Any = {"condition": condition, "support": "lattice", "draws": 2}
        found = em.nem_inequality(*given, noise, on.generator, **options).exact
        assert found is not None
        yield near(min(sign * found, 0.0), 0.0, f"expectation of {kind} noise", scale)
        n = em.draw_noise(*given, noise, on.generator, condition=condition)
        gain = sign * (em.q(net, theta, r, x, y + n) - Q)
        yield near(min(gain, 0.0), 0.0, f"Q_N − Q of {kind} noise", scale)
