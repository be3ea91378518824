"""Laws of single parts: linear maps, activations, likelihoods, optimizers."""

from __future__ import annotations

import contextvars
import copy
import itertools
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import get_ident
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.engine.activations import Activation
from nembp.engine.likelihoods import (
    Bernoulli,
    Bipolar,
    Gaussian,
    Likelihood,
    Multinomial,
    Readout,
)
from nembp.engine.linear import LinearMap, Transposed
from nembp.engine.network import Network, dense_network
from nembp.engine.optimizers import SGD, Adam, Momentum, Optimizer, RMSProp
from nembp.verification import definitions
from nembp.verification.definitions import knows
from nembp.verification.gradients import check_gradient
from nembp.verification.laws.law import (
    BBP,
    BP,
    COMPLEX,
    NEM,
    Bench,
    agrees,
    host,
    is_gradient,
    largest,
    law,
    poisoned,
)
from nembp.verification.reports import Array, Deviations, holds, near

SINGLE = 2e-5  # relative error allowed between float32 and float64
TRILINEAR = "∂T/∂y, ∂T/∂x, ∂T/∂W of T(x, W, y) = ⟨x·W, y⟩"
NAMES = ("forward", "adjoint", "weight gradient")


# -- linear maps -----------------------------------------------------------------------------------
def random_arrays(m: LinearMap, bench: Bench) -> tuple[Array, Array, Array, float]:
    """Return x, W and y for a linear map, and the size of the terms of a contraction."""
    x, W = bench.normal(bench.rows, m.inputs), bench.normal(*m.weight_shape)
    y = bench.normal(bench.rows, m.outputs)
    return x, W, y, bench.rows * math.prod(max(1.0, largest(array)) for array in (x, W, y))


def contractions(m: LinearMap, bench: Bench, x: Array, W: Array, y: Array) -> list[Array]:
    """Return forward(x), adjoint(y) and, of a map with weights, weight_gradient(x, y)."""
    up, down, outer = (partial(f, bench.backend) for f in (m.forward, m.adjoint, m.weight_gradient))
    results = [
        bench.written(up, (len(x), m.outputs), x=x, W=W),
        bench.written(down, (len(y), m.inputs), y=y, W=W),
    ]
    return results + ([bench.written(outer, m.weight_shape, x=x, y=y)] if m.weight_count else [])


def alike(
    found: list[Array], expected: list[Array], when: str, scale: float, tolerance: Any = None
) -> Deviations:
    """Compare the contractions of two ways."""
    for name, actual, value in zip(NAMES, found, expected, strict=False):
        yield near(actual, value, f"{name}{when}", scale, tolerance=tolerance)


@law("linear.trilinear", TRILINEAR, over=LinearMap)
def trilinear(m: LinearMap, bench: Bench) -> Deviations:
    """⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩ for every x, W and y."""
    x, W, y, _ = random_arrays(m, bench)
    gradient, norm = contractions(m, bench, x, W, y)[2:], np.linalg.norm
    for _ in range(3):  # the gradient does not see W, nor the adjoint x: both sides are linear
        up, down = contractions(m, bench, x, W, y)[:2]
        scale, form = float(norm(up) * norm(y) + norm(x) * norm(down)), np.sum(up * y)
        yield near(np.sum(x * down), form, "⟨x, adjoint(y)⟩", scale)
        for G in gradient:
            size = scale + float(norm(W) * norm(G))
            yield near(np.sum(W * G), form, "⟨W, weight_gradient(x, y)⟩", size)
        W = bench.normal(*W.shape)


@law("linear.definition", over=LinearMap)
def definition(m: LinearMap, bench: Bench) -> Deviations:
    """forward = x M(W), adjoint = y M(W)ᵀ, weight_gradient = ∂⟨x M(W), y⟩/∂W, M written out."""
    if not knows(m):
        return
    x, W, y, scale = random_arrays(m, bench)
    up, down, *gradient = contractions(m, bench, x, W, y)
    matrix = definitions.matrix_of(m, W)
    yield near(up, x @ matrix, "forward", scale)
    yield near(down, y @ matrix.T, "adjoint", scale)
    for _ in range(3 if m.weight_count else 0):
        V = bench.normal(*W.shape)
        form = np.sum((x @ definitions.matrix_of(m, V)) * y)
        yield near(np.sum(V * gradient[0]), form, "⟨V, weight gradient⟩", scale * W.size)


@law("linear.transposed", BBP, over=LinearMap)
def transposed(m: LinearMap, bench: Bench) -> Deviations:
    """Transposed swaps forward and adjoint over the same W, and undoes itself."""
    x, W, y, scale = random_arrays(m, bench)
    turned = Transposed(m)
    shapes = turned.inputs, turned.outputs, turned.weight_shape, turned.weight_count
    expected = m.outputs, m.inputs, m.weight_shape, m.weight_count
    yield holds(shapes == expected, "sizes of the transposed map")
    here = contractions(m, bench, x, W, y)
    there = contractions(turned, bench, y, W, x)
    yield from alike([there[1], there[0], *there[2:]], here, " of the transposed", scale)
    back = contractions(Transposed(turned), bench, x, W, y)
    yield from alike(back, here, " transposed twice", scale)


@law("linear.contract", over=LinearMap, every=2)
def linear_contract(m: LinearMap, bench: Bench) -> Deviations:
    """Every entry of out is written, in any memory layout, rows by themselves, arguments alone."""
    x, W, y, scale = random_arrays(m, bench)
    here = contractions(m, bench, x, W, y)
    for name, result in zip(NAMES, here, strict=False):
        yield holds(np.all(np.isfinite(result)), f"{name} writes every entry of out")
    each = [contractions(m, bench, x[k : k + 1], W, y[k : k + 1]) for k in range(bench.rows)]
    alone = [np.concatenate([one[i] for one in each]) for i in (0, 1)]
    sums = [np.sum([one[2] for one in each], axis=0)] if m.weight_count else []
    yield from alike([*alone, *sums], here, " row by row", scale)
    for function, signal, result in ((m.forward, x, here[0]), (m.adjoint, y, here[1])):
        rows = bench.array(np.concatenate([signal, signal + 1.0]))[: bench.rows, :]
        out = bench.nan(result.shape[::-1])
        function(bench.backend, rows, bench.array(W), out.T)
        yield near(bench.numpy(out).T, result, "an out of another memory layout", scale)
    yield from alike(contractions(m, bench.in_float32(), x, W, y), here, " in float32", 1.0, SINGLE)
    one, two = (np.asarray(m.initial_weights(stream(bench.seed, "weights"))) for _ in range(2))
    fine = one.size == m.weight_count and np.array_equal(one, two) and np.all(np.isfinite(one))
    yield holds(fine, f"initial weights are {m.weight_count}, finite and the generator's alone")
    yield holds(one.size < 2 or np.ptp(one) > 0.0, "initial weights differ")
    yield holds(not bench.changed, f"no call writes into its argument {sorted(bench.changed)}")


@law("linear.no-memory", over=LinearMap, every=4)
def keeps_no_memory(m: LinearMap, bench: Bench) -> Deviations:
    """Results depend on x, W and y, not on calls before."""
    *arrays, _ = random_arrays(m, bench)
    before = contractions(m, bench, *arrays)
    for rows in (bench.rows + 2, max(1, bench.rows - 1), bench.rows):
        shapes = (rows, m.inputs), m.weight_shape, (rows, m.outputs)
        contractions(m, bench, *(np.full(shape, np.nan) for shape in shapes))
    yield from alike(contractions(m, bench, *arrays), before, " after other calls", 1.0)


@law("linear.threads", over=LinearMap, every=11)
def reentrant(m: LinearMap, bench: Bench) -> Deviations:
    """Calls of two threads do not meet."""
    (*mine, scale), (*theirs, other_scale) = (random_arrays(m, bench) for _ in range(2))
    expected = [contractions(m, bench, *arrays) for arrays in (mine, theirs)]
    seen: list[list[Array]] = []

    def other(twin: Backend) -> None:
        seen.append(contractions(m, Bench(twin, bench.dtype, bench.rows, 0), *theirs))

    twin = handing_over(bench.backend, other)
    found = contractions(m, Bench(twin, bench.dtype, bench.rows, 0), *mine)
    yield from alike(found, expected[0], " interrupted", scale)
    for results in seen:
        yield from alike(results, expected[1], " from another thread", other_scale)


def handing_over(backend: Backend, other: Callable[[Backend], None]) -> Backend:
    """Return a twin before each of whose operations ``other`` runs in another thread, 40 times."""
    twin, owner, left = copy.copy(backend), get_ident(), [40]

    def wrapped(operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            if get_ident() == owner and left[0]:
                left[0] -= 1
                with ThreadPoolExecutor(1) as pool:
                    pool.submit(contextvars.copy_context().run, other, twin).result()
            return operation(*args, **options)

        return call

    for name in ("add_windows", "copy_windows", "empty", "matmul", "ones", "zeros"):
        if hasattr(backend, name):
            setattr(twin, name, wrapped(getattr(backend, name)))
    return twin


# -- activations -----------------------------------------------------------------------------------
def applied(f: Activation, bench: Bench, z: Array) -> Array:
    """Return f(z)."""
    a = bench.array(z)
    f.activate(bench.backend, a, bench.nan(z.shape))
    return bench.numpy(a)


def multiplied(f: Activation, bench: Bench, error: Array, a: Array) -> Array:
    """Return error ∘ f'(z) where f(z) = a."""
    out, given = bench.array(error), bench.array(a)
    f.multiply_derivative(bench.backend, out, given, bench.nan(a.shape))
    if not np.array_equal(bench.numpy(given), bench.numpy(bench.array(a)), equal_nan=True):
        bench.changed.add("a")
    return bench.numpy(out)


@law("activation.derivative", "Squire and Trapp 1998: complex steps", over=Activation)
def activation_derivative(f: Activation, bench: Bench) -> Deviations:
    """multiply_derivative(e, a) = e ∘ f'(z), a = f(z), the slope of activate."""
    if not knows(f):
        yield from measured_derivative(f, bench)
        return
    z = 2.0 * bench.normal(bench.rows, 7)
    a, error = applied(f, bench, z), bench.normal(bench.rows, 7)
    yield near(a, definitions.activate(f, z), "f(z)", 1.0)
    h = definitions.STEP
    slope = np.imag(definitions.activate(f, z + 1j * h)) / h
    yield near(multiplied(f, bench, error, a), error * slope, "error ∘ f'(z)", 1.0 + largest(error))


def measured_derivative(f: Activation, bench: Bench) -> Deviations:
    """Compare with slopes of ``activate``; at kinks, 0 among them, with both one-sided ones."""
    z = np.concatenate([[0.0, 1e-3, -1e-3, 0.5, -0.5, 1.0, -1.0, 4.0, -4.0], bench.normal(40)])
    w, backend = bench.generator.uniform(0.5, 1.5, z.size), bench.backend

    def value(z: Array) -> Any:
        if z.dtype.kind != "c":
            return np.sum(w * applied(f, bench, z[None])[0])
        a = backend.asarray(z[None].copy())
        f.activate(backend, a, backend.asarray(np.full(a.shape, np.nan + 0j)))
        return np.sum(w * backend.to_numpy(a)[0])

    def slopes(z: Array) -> Array:
        return np.ravel(multiplied(f, bench, w[None], applied(f, bench, z[None])))

    options: Any = {"name": "slope of activate", "blocks": {"f'(z)": z.shape}, "raises": False}
    report = check_gradient(value, z, gradient=slopes, scale=1.0, seed=bench.seed, **options)
    yield agrees(report)
    if f.analytic and report.passed and backend.name == "cpu":
        complex_steps = report.method == "complex"
        yield holds(complex_steps, "complex steps do not apply, so analytic must be False")


@law("activation.curvature", "Gulrajani and others 2017", over=Activation)
def activation_curvature(f: Activation, bench: Bench) -> Deviations:
    """multiply_curvature(e, a) = e ∘ f''(z) / f'(z)."""
    if not knows(f) or f.piecewise_linear:
        return
    z, error = bench.normal(bench.rows, 7), bench.normal(bench.rows, 7)
    a, held = applied(f, bench, z), bench.array(error)
    f.multiply_curvature(bench.backend, held, bench.array(a), bench.nan(a.shape))
    h = definitions.STEP
    second = np.imag(definitions.derivative(f, z + 1j * h)) / h
    expected = error * second / definitions.derivative(f, z)
    yield near(bench.numpy(held), expected, "error ∘ f''/f'", 1.0 + largest(error))


@law("activation.contract", over=Activation, every=4)
def activation_contract(f: Activation, bench: Bench) -> Deviations:
    """f acts on each neuron by itself, stays finite, multiplies the error, and leaves a alone."""
    for dtype in ("float32", "float64"):
        at = Bench(bench.backend, dtype, 1, 0)
        z = np.array([[0.0, 1e-3, 0.5, 1.0, 4.0, 12.0, 20.0, 100.0, 1e3, 1e4]])
        z = np.concatenate([z, -z], axis=1)
        a = applied(f, at, z)
        both = np.concatenate([a, multiplied(f, at, np.ones_like(a), a)])
        bad = np.isnan(both) | (~np.isfinite(both) & (np.abs(z) <= 20.0))
        where = z[0, np.flatnonzero(bad.any(axis=0))[:1]]
        yield holds(not where.size, f"f and f' are finite in {dtype}, but not at z = {where}")
    z = np.concatenate([bench.normal(1, 40), 0.3 * bench.normal(1, 20)], axis=1)
    a, order = applied(f, bench, z), bench.generator.permutation(60)
    yield near(applied(f, bench, z[:, order].T)[:, 0], a[0, order], "f(z) in another order", 1.0)
    slope, error = multiplied(f, bench, np.ones_like(a), a), bench.normal(1, 60)
    yield near(multiplied(f, bench, error, a), error * slope, "the error multiplied", 1.0)
    single = bench.in_float32()
    yield near(applied(f, single, z), a, "f(z) in float32", 1.0, tolerance=SINGLE)
    slopes = multiplied(f, single, np.ones_like(a), a)
    yield near(slopes, slope, "f'(z) in float32", 1.0, tolerance=SINGLE)
    yield holds(not bench.changed, "a is left alone by multiply_derivative")


# -- likelihoods -----------------------------------------------------------------------------------
class Calls:
    """A likelihood's functions on a bench, on readouts whose work space holds NaN."""

    def __init__(self, likelihood: Likelihood, bench: Bench) -> None:
        self.likelihood, self.bench = likelihood, bench

    def readout(self, z: Array) -> Readout:
        bench = self.bench
        o = Readout(poisoned(bench.backend), len(z), z.shape[1], bench.dtype)
        o.z[...] = bench.array(z)
        self.likelihood.activate(o)
        return o

    def activation(self, z: Array) -> Array:
        return self.bench.numpy(self.readout(z).a)

    def log_p(self, z: Array, t: Array, *sums: Array) -> Array:
        """Return log p(t) of each row, shape (rows,)."""

        def write(*given: Any) -> None:
            *targets, out = given
            out[...] = self.likelihood.log_likelihood(self.readout(z), *targets)

        given = dict(zip(("t", "counts", "square"), (t, *sums), strict=False))
        return self.bench.written(write, (len(z), 1), **given)[:, 0]

    def _of_readout(self, function: Callable[..., None], z: Array, **given: Array) -> Array:
        o, bench = self.readout(z), self.bench
        before = bench.numpy(o.z), bench.numpy(o.a)
        result = bench.written(partial(function, o), z.shape, **given)
        for name, was, now in zip(("o.z", "o.a"), before, (o.z, o.a), strict=True):
            if not np.array_equal(bench.numpy(now), was, equal_nan=True):
                bench.changed.add(name)
        return result

    def error(self, z: Array, t: Array, **options: Any) -> Array:
        """Return −∂log p/∂z."""
        if isinstance(options.get("counts"), np.ndarray):
            options["counts"] = self.bench.array(options["counts"])
        return self._of_readout(partial(self.likelihood.error, **options), z, t=t)

    def gain(self, z: Array, t: Array, n: Array) -> Array:
        return self._of_readout(self.likelihood.gain_terms, z, t=t, n=n)

    def gain_slope(self, z: Array, t: Array) -> Array:
        return self._of_readout(self.likelihood.gain_slope, z, t=t)


def at_end(
    likelihood: Likelihood, bench: Bench, width: int = 4
) -> tuple[Calls, Array, Array, Array, float]:
    """Return the calls, z, t, noise and the size of what an error subtracts."""
    g = bench.generator
    z = bench.rounded(bench.normal(bench.rows, width) * float(g.choice([0.1, 1.0, 3.0])))
    n = bench.rounded(bench.normal(bench.rows, width) * float(g.choice([0.05, 0.5])))
    calls, t = Calls(likelihood, bench), bench.draw(likelihood, bench.rows, width)
    size = largest(calls.activation(z)) * (1.0 + largest(t.sum(axis=1)) + largest(n) * width)
    return calls, z, t, n, abs(likelihood.scale) * (size + largest(t) + largest(n))


@law("likelihood.definition", over=Likelihood)
def likelihood_definition(likelihood: Likelihood, bench: Bench) -> Deviations:
    """a = softmax, identity or logistic of z, and log p(t) is as written."""
    if not knows(likelihood):
        return
    calls, z, t, n, size = at_end(likelihood, bench)
    expected = definitions.output_activation(likelihood, z)
    yield near(calls.activation(z), expected, "a", 1.0)
    for targets in (t, bench.rounded(t + n)):
        log_p = definitions.log_likelihood(likelihood, z, targets)
        scale = 1.0 + size * (1.0 + largest(z) + largest(targets)) * z.shape[1]
        yield near(calls.log_p(z, targets), log_p, "log p(t)", scale)


@law("likelihood.class-sums", "exponential families", over=Likelihood)
def class_sums(likelihood: Likelihood, bench: Bench) -> Deviations:
    """log p and error of a sum of targets = the sums of log p and error."""
    g = bench.generator
    if not (likelihood.class_sums if bench.sums is None else bench.sums):
        return
    if not likelihood.class_sums:
        why = "class_sums is False, so log p does not follow from sums of targets"
        yield holds(False, why)
        return
    calls, z, _, _, _ = at_end(likelihood, bench)
    members = g.integers(0, len(z), int(g.integers(1, 13)))
    t = bench.draw(likelihood, len(members), z.shape[1])
    belongs = np.eye(len(z))[members].T
    sums, mass = bench.rounded(belongs @ t), belongs.sum(axis=1, keepdims=True)
    square = bench.rounded(belongs @ np.sum(t * t, axis=1, keepdims=True))
    each, summed = calls.log_p(z[members], t), calls.log_p(z, sums, mass, square)
    a = calls.activation(z)
    scale = (1.0 + largest(each)) * len(members)
    scale += abs(likelihood.scale) * float(np.sum(square) + np.sum(mass * (1.0 + z * z + a * a)))
    yield near(summed, belongs @ each, "sum of log-likelihoods", scale)
    errors = belongs @ calls.error(z[members], t)
    scale = abs(likelihood.scale) * len(members) * (1.0 + largest(a) + largest(t))
    yield near(calls.error(z, sums, counts=mass), errors, "sum of errors", scale)


@law("likelihood.gain", NEM, over=Likelihood)
def gains(likelihood: Likelihood, bench: Bench) -> Deviations:
    """Σ gain(n) = log p(t+n) − log p(t), slope = ∂gain/∂n."""
    calls, z, t, n, size = at_end(likelihood, bench)
    terms, before = calls.gain(z, t, n), calls.log_p(z, t)
    after = calls.log_p(z, bench.rounded(t + n))
    size *= 1.0 + largest(z) + largest(t) + largest(n)
    scale = 10.0 * (1.0 + largest(before) + largest(after) + size * z.shape[1])
    yield near(terms.sum(axis=1), after - before, "gain", scale)
    if knows(likelihood):
        expected = definitions.gain_terms(likelihood, z, t, n)
        yield near(terms, expected, "gain of each neuron", scale)
    # where a gain is at most quadratic in the noise, this difference is exact
    h, tolerance = (1.0, None) if knows(likelihood) else (1e-4, 1e-6)
    ends = [calls.gain(z, t, np.full_like(z, way * h)) for way in (1.0, -1.0)]
    slope, difference = calls.gain_slope(z, t), (ends[0] - ends[1]) / (2.0 * h)
    yield near(slope, difference, "slope of the gain", scale, tolerance=tolerance)


@law("likelihood.output-derivative", over=Likelihood, tolerance=COMPLEX)
def output_derivative(likelihood: Likelihood, bench: Bench) -> Deviations:
    """An error at a = softmax, identity or logistic of z reaches z times ∂a/∂z."""
    if not knows(likelihood):
        return
    calls, z, t, _, _ = at_end(likelihood, bench)
    error = bench.normal(*t.shape)
    held = bench.array(error)
    likelihood.multiply_derivative(calls.readout(z), held)

    def reads(at: Array) -> Any:
        return np.sum(error * definitions.output_activation(likelihood, at))

    yield from is_gradient(bench.numpy(held), reads, z, "∂/∂z", bench.generator, 4.0)


@law("likelihood.contract", over=Likelihood, every=4)
def likelihood_contract(likelihood: Likelihood, bench: Bench) -> Deviations:
    """Results are whole, rows by themselves, arguments alone; activate leaves a normal form."""
    calls, z, t, n, size = at_end(likelihood, bench)
    a, gain, error = calls.activation(z), calls.gain(z, t, n), calls.error(z, t)
    for name, result in (("a", a), ("gain", gain)):
        yield holds(np.all(np.isfinite(result)), f"every entry of {name} is written, and finite")
    o = calls.readout(z)
    likelihood.activate(o)
    yield near(bench.numpy(o.a), a, "a, activated twice", 1.0)
    single = Calls(likelihood, bench.in_float32())
    at = [value.astype(np.float32).astype(float) for value in (z, t)]
    scale = 1.0 + size * (1.0 + largest(z) + largest(t)) * z.shape[1]
    for name, terms in (("log_p", scale), ("error", size)):
        function, of_single = getattr(calls, name), getattr(single, name)
        result = function(z, t)
        yield holds(np.all(np.isfinite(result)), f"every entry of {name} is written, and finite")
        rows = [function(z[k : k + 1], t[k : k + 1]) for k in range(len(z))]
        yield near(np.concatenate(rows), result, f"{name} row by row", terms)
        yield near(of_single(*at), function(*at), f"{name} in float32", terms, tolerance=SINGLE)
    yield near(calls.error(z, t, factor=0.25), 0.25 * error, "error with a factor", size)
    yield holds(not bench.changed, f"no call writes into its argument {sorted(bench.changed)}")


@law("likelihood.normalization", "p is a probability or a density", over=Likelihood, every=16)
def normalization(likelihood: Likelihood, bench: Bench) -> Deviations:
    """p adds up to 1 over labels, bits, signs, counts, real or positive numbers."""
    if bench.dtype != "float64":
        return
    kinds = {Multinomial: "labels", Bernoulli: "bits", Bipolar: "signs", Gaussian: "reals"}
    named = bench.support or kinds.get(type(likelihood))
    totals = {
        name: [
            total_probability(Calls(likelihood, bench), name, shift) for shift in (-1.0, 0.3, 1.1)
        ]
        for name in ([named] if named else SUPPORTS)
    }
    fits = [name for name, total in totals.items() if np.allclose(total, 1.0, atol=1e-6)]
    for name in [named] if named else fits[:1]:
        yield near(totals[name], np.ones(3), f"total over {name}", tolerance=1e-6)


SUPPORTS = ("labels", "bits", "signs", "counts", "reals", "positive")


def total_probability(calls: Calls, support: str, shift: float) -> float:
    """Return Σp over all targets of a support; a tempered p(t)ʷ is brought back to p(t)."""
    measure: Any = 1.0
    pairs = {"bits": (0.0, 1.0), "signs": (-1.0, 1.0)}
    if support in pairs:
        t = np.array(list(itertools.product(pairs[support], repeat=3)))
    elif support == "labels":
        t = np.eye(4)
    elif support == "counts":
        t = np.arange(401.0)[:, None]
    elif support == "reals":
        width = 14.0 / math.sqrt(max(calls.likelihood.scale, 1e-12))
        t = np.linspace(shift - width, shift + width, 20_001)[:, None]
        measure = t[1, 0] - t[0, 0]
    else:
        s = np.linspace(-30.0, 12.0, 20_001)[:, None]  # t = eˢ, dt = eˢ ds
        t = np.exp(s)
        measure = t[:, 0] * (s[1, 0] - s[0, 0])
    z = np.tile(np.linspace(shift, -shift, t.shape[1]) if t.shape[1] > 1 else [shift], (len(t), 1))
    log_p = calls.log_p(z, t) / calls.likelihood.tempering
    return float(np.sum(np.exp(log_p) * measure))


@law("invariance.slope", BP, over=Likelihood, tolerance=COMPLEX)
def error_is_slope(likelihood: Likelihood, bench: Bench) -> Deviations:
    """error = −∂log p/∂z at each end, on noisy targets too."""
    calls, z, t, n, size = at_end(likelihood, bench)
    known, g = knows(likelihood), bench.generator
    log_p = partial(definitions.log_likelihood, likelihood) if known else calls.log_p
    yield holds(t.shape == z.shape and np.all(np.isfinite(t)), f"targets have shape {z.shape}")
    for what, targets in (("proper", t), ("noisy", bench.rounded(t + n))):
        name, error = f"error, {what} targets", partial(calls.error, t=targets)

        def nll(at: Array, targets: Array = targets) -> Any:
            return -np.sum(log_p(at, targets))

        if known:
            yield from is_gradient(error(z), nll, z, name, g, size)
        else:
            options: Any = {"method": "central", "blocks": {"error": z.shape}, "raises": False}
            yield agrees(check_gradient(nll, z, gradient=error, scale=1.0, name=name, **options))


@law("invariance.update", BP, over=Likelihood)
def classical_update(likelihood: Likelihood, bench: Bench) -> Deviations:
    """error = scale · (a − t) for proper targets; the scale of the Gaussian is 1/v."""
    if not bench.canonical:
        return
    calls, z, t, _, size = at_end(likelihood, bench)
    if isinstance(likelihood, Multinomial):
        t = bench.rounded(t / t.sum(axis=1, keepdims=True))
    scale = likelihood.scale
    if isinstance(likelihood, Gaussian):
        scale = 1.0 / likelihood.variance
    yield near(calls.error(z, t), scale * (calls.activation(z) - t), "error", size)


@law("invariance.noisy-softmax", NEM, over=Likelihood)
def noisy_softmax(likelihood: Likelihood, bench: Bench) -> Deviations:
    """a Σ(t+n) − (t+n) exact, a − (t+n) published; with zero-sum noise they agree."""
    if type(likelihood) is not Multinomial:
        return
    calls, z, t, n, size = at_end(likelihood, bench)
    noisy, w = bench.rounded(t + n), likelihood.weight
    a, mass = definitions.output_activation(likelihood, z), noisy.sum(axis=1, keepdims=True)
    yield near(calls.error(z, noisy), w * (a * mass - noisy), "exact error", size)
    yield near(calls.error(z, noisy, counts=1.0), w * (a - noisy), "published error", size)
    balanced = t + n - n.mean(axis=1, keepdims=True)
    both = calls.error(z, balanced), calls.error(z, balanced, counts=1.0)
    yield near(both[0], both[1], "exact and published error of zero-sum noise", size)


# -- optimizers ------------------------------------------------------------------------------------
def moves_of(optimizer: Optimizer, g: Array, factors: tuple[float, ...]) -> Any:
    """Yield the moves along gradients as the papers write them, with the default constants."""
    v, s = np.zeros_like(g[0]), np.zeros_like(g[0])
    for t, gradient in enumerate(g, start=1):
        eta = optimizer.learning_rate * factors[(t - 1) % len(factors)]
        if isinstance(optimizer, SGD):
            yield eta * gradient
        elif isinstance(optimizer, Momentum):
            v = 0.9 * v + gradient
            yield eta * v
        elif isinstance(optimizer, RMSProp):
            s = 0.9 * s + 0.1 * gradient**2
            yield eta * gradient / (np.sqrt(s) + 1e-8)
        else:
            v, s = 0.9 * v + 0.1 * gradient, 0.999 * s + 0.001 * gradient**2
            yield eta * (v / (1 - 0.9**t)) / (np.sqrt(s / (1 - 0.999**t)) + 1e-8)


def small_problem(bench: Bench) -> tuple[Network, Array, Array]:
    """Return a network, where its parameters start, and four gradients of many sizes."""
    net, g = dense_network([5, 4, 3], device=bench.backend, dtype=bench.dtype), bench.generator
    start, shape = bench.normal(net.parameter_count), (4, net.parameter_count)
    sizes = g.choice([-1.0, 1.0], shape) * 10.0 ** g.uniform(-2.0, 1.0, shape[1])
    return net, start, bench.rounded(sizes * g.uniform(0.5, 1.5, shape))


def fresh(optimizer: Optimizer, weight_decay: float = 0.0) -> Optimizer:
    """Return a copy, without weight decay unless it is given."""
    other = copy.copy(optimizer)
    other.weight_decay = weight_decay
    return other


def path_of(
    optimizer: Optimizer, net: Network, gradients: Any, start: Array, *factors: float
) -> Array:
    """Return the parameters after each step along gradients, or functions of the parameters."""
    net.parameters[...] = net.backend.asarray(start, net.dtype)
    vector, path = optimizer.bind(net), [start]
    for gradient, factor in zip(gradients, itertools.cycle(factors or (1.0,)), strict=False):
        g = gradient(path[-1]) if callable(gradient) else np.array(gradient)
        vector[...] = net.backend.asarray(g, net.dtype)
        optimizer.step(factor)
        path.append(host(net, net.parameters))
    return np.array(path[1:])


@law(
    "optimizer.formula", "Polyak 1964; Tieleman and Hinton 2012; Kingma and Ba 2015", over=Optimizer
)
def optimizer_formula(optimizer: Optimizer, bench: Bench) -> Deviations:
    """SGD, momentum, RMSProp, Adam = their papers."""
    if type(optimizer) not in (SGD, Momentum, RMSProp, Adam):
        return
    net, start, g = small_problem(bench)
    expected = start - np.cumsum([*moves_of(optimizer, g, (1.0, 0.5))], axis=0)
    moved = path_of(fresh(optimizer), net, g, start, 1.0, 0.5)
    yield near(moved, expected, "parameters[step, i]", 10.0 * largest(g))


@law("optimizer.weight-decay", "Loshchilov and Hutter 2019", over=Optimizer)
def weight_decay(optimizer: Optimizer, bench: Bench) -> Deviations:
    """θ_w ← (1 − ηλ) θ_w once a step, biases spared."""
    net, start, g = small_problem(bench)
    expected = start.copy()
    expected[: net.weight_count] *= 1.0 - optimizer.learning_rate * 0.1
    end = path_of(fresh(optimizer, 0.1), net, 0.0 * g[:1], start)
    yield near(end[0], expected, "parameters after one step of decay", 1.0)


@law("optimizer.contract", over=Optimizer, every=4)
def optimizer_contract(optimizer: Optimizer, bench: Bench) -> Deviations:
    """Steps go down, each parameter by itself, in place; bind starts anew."""
    net, start, g = small_problem(bench)
    held, again = net.parameters, fresh(optimizer)

    def path(*arguments: Any, of: Network = net) -> Array:
        return path_of(fresh(optimizer), of, *arguments)

    shape = tuple(fresh(optimizer).bind(net).shape)
    yield holds(shape == start.shape, "bind returns a vector of all parameters")
    whole = path(g, start)
    scale = largest(start) + 10.0 * largest(np.diff(whole, axis=0))
    yield holds(np.all((whole[0] - start) * g[0] < 0.0), "the first step goes against the gradient")
    still = path(np.zeros((2, start.size)), start)
    yield near(still, [start, start], "parameters where the gradient is zero", scale)
    half = path(g[:1], start, 0.5)[0] - start
    yield near(half, 0.5 * (whole[0] - start), "a step at half the learning rate", scale)
    order = bench.generator.permutation(start.size)
    yield near(path(g[:, order], start[order]), whole[:, order], "parameters permuted", scale)
    small = copy.copy(bench.backend)
    small.chunk = 16
    for backend, dtype, slack in ((small, bench.dtype, None), (bench.backend, "float32", SINGLE)):
        other = dense_network([5, 4, 3], device=backend, dtype=dtype)
        what = f"parameters in chunks of {backend.chunk}, in {dtype}"
        yield near(path(g, start, of=other), whole, what, scale, tolerance=slack)
    for _ in range(2):
        yield near(path_of(again, net, g, start), whole, "parameters after bind again", scale)
    end = path(g[:1], start)[0]
    seen = host(net, net.weights[0]).reshape(-1)
    same = net.parameters is held and np.array_equal(seen, end[: seen.size])
    yield holds(same, "parameters move in place, and the network's views see it")
    curvature = bench.generator.uniform(0.5, 2.0, start.size)
    slow = min(1.0, 0.02 / optimizer.learning_rate)
    end = path([lambda theta: curvature * theta] * 60, start, slow)[-1]
    yield holds(curvature @ end**2 < curvature @ start**2, "60 steps descend a quadratic")
