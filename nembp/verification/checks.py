"""Checks of parts and networks: the engine's laws on one of them, and `check_gradient`."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.activations import Activation, get_activation
from nembp.engine.backprop import backpropagate
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Network
from nembp.engine.optimizers import Optimizer, get_optimizer
from nembp.errors import ArchitectureError, DataError, ShapeError
from nembp.verification.cases import Case, Given
from nembp.verification.gradients import GradientReport, Method, check_gradient, quiet
from nembp.verification.laws import LAWS, Law
from nembp.verification.laws.law import BP, Bench, agrees, host
from nembp.verification.laws.networks import averages, error_size, ways
from nembp.verification.laws.parts import SUPPORTS
from nembp.verification.reports import Array, LawReport, LawResult, near, result_of

FAMILIES = {
    Likelihood: "likelihood",
    LinearMap: "linear map",
    Activation: "activation",
    Optimizer: "optimizer",
}
NETWORK_LAWS = ("gradient", "joint", "normalization", "network")


# -- parts -----------------------------------------------------------------------------------------
def _check_part(
    part: Any, device: str | Backend, seed: int, raises: bool, **held: Any
) -> LawReport:
    """Return what every law over a kind of part says about one."""
    backend, results = get_backend(device), list[LawResult | None]()
    base = next(base for base in FAMILIES if isinstance(part, base))
    with quiet():
        for law in [law for law in LAWS.values() if law.over is base]:
            found = law.function(part, Bench(backend, "float64", 5, seed, **held))
            tolerance = law.tolerance["float64"]
            results.append(result_of(law.statement, law.source, tolerance, found))
    return _finished(f"{FAMILIES[base]} {type(part).__name__}", results, raises)


def _finished(subject: str, results: Iterable[LawResult | None], raises: bool) -> LawReport:
    report = LawReport(subject, tuple(result for result in results if result is not None))
    return report.raise_for_failure() if raises else report


def check_linear_map(
    linear_map: LinearMap, *, device: str | Backend = "cpu", seed: int = 0, raises: bool = True
) -> LawReport:
    """Check that a linear map's three functions are the derivatives of one trilinear form.

    forward = ∂T/∂y, adjoint = ∂T/∂x and weight_gradient = ∂T/∂W: the laws ``linear.*``. Raises
    VerificationError with the worst place and both values, as all of these checks.

    >>> check_linear_map(Dense(3, 2)).passed
    True
    """
    return _check_part(linear_map, device, seed, raises)


def check_activation(
    activation: str | Activation,
    *,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check that ``multiply_derivative`` multiplies by the derivative of ``activate``.

    At kinks, 0 among them, any value between the two one-sided slopes passes.
    """
    return _check_part(get_activation(activation), device, seed, raises)


def check_optimizer(
    optimizer: str | Optimizer | type[Optimizer],
    *,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check that an optimizer descends, each parameter by itself, in place, with weight decay."""
    made = optimizer() if isinstance(optimizer, type) else get_optimizer(optimizer)
    return _check_part(made, device, seed, raises)


def check_likelihood(
    likelihood: str | Likelihood,
    *,
    targets: Callable[[np.random.Generator, int, int], Any] | None = None,
    support: str | None = None,
    sums: bool | None = None,
    canonical: bool = True,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check a likelihood's error, gain and sums against its own log-likelihood.

    error = −∂log p/∂z, on proper and on noisy targets; = scale · (a − t) on proper ones (backprop
    invariance); Σ gain terms = log p(t+n) − log p(t); sums of targets give sums of log-likelihoods
    and errors; p adds up to 1: the laws ``likelihood.*`` and ``invariance.*``.

    Parameters
    ----------
    likelihood : str or Likelihood
        A name, or your own.
    targets : callable, optional
        (generator, rows, width) ↦ proper targets; by default those that the likelihood's own
        ``random_targets`` draws, or else those of its kind.
    support : {"labels", "bits", "signs", "counts", "reals", "positive"}, optional
        Over which targets p must add up to 1; by default the one that fits, if any.
    sums : bool, optional
        Whether log p must follow from sums of targets, as training on classes needs; by default
        what its ``class_sums`` says.
    canonical : bool
        Whether error = scale · (a − t) must hold: where the output activation is that of an
        exponential family's natural parameter.
    """
    if support is not None and support not in SUPPORTS:
        raise ArchitectureError(f"support must be one of {', '.join(SUPPORTS)}, got {support!r}")
    held = {"targets": targets, "support": support, "sums": sums, "canonical": canonical}
    return _check_part(get_likelihood(likelihood), device, seed, raises, **held)


# -- networks --------------------------------------------------------------------------------------
def check_network(
    net: Network,
    x: Any,
    y: Any,
    *,
    method: Method = "auto",
    max_evaluations: int = 3000,
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check everything that training relies on, for this network on this batch.

    In float64: both directions' gradients and input errors against slopes of log p, by the
    statistics of the batch and by running ones where layers are normalized; and the laws
    ``gradient.*``, ``joint.*``, ``normalization.*``, ``network.*``. In the network's own precision:
    its gradients against float64.

    Parameters
    ----------
    net : Network
        Its parameters are left as they are.
    x, y : array, shapes (rows, net.inputs) and (rows, net.outputs)
        A small batch.
    method, max_evaluations, seed, raises
        As in :func:`check_gradient`; evaluations of each gradient.

    >>> from nembp.engine.network import dense_network
    >>> check_network(dense_network([3, 4, 2]), np.eye(3), np.eye(2)[[0, 1, 0]]).passed
    True
    """
    given = _given(net, x, y, seed)
    results: list[Any] = _slopes(given, method=method, max_evaluations=max_evaluations)
    results += [law.result(given, given.network.backend) for law in _named(NETWORK_LAWS)]
    return _finished(repr(net), results, raises)


def check_backprop_invariance(
    net: Network, x: Any, y: Any, *, seed: int = 0, raises: bool = True
) -> LawReport:
    """Check that in each direction maximum likelihood is classical backpropagation.

    −∂log p/∂z at the output is a − t (over v for a Gaussian), and the gradient of the whole network
    is that of log p, and of :mod:`nembp.textbook` (Adigun and Kosko 2019, theorems 1 and 2).
    Targets must be proper: of a multinomial, rows that sum to one (DataError).
    """
    given = _given(net, x, y, seed)
    for way, _, t in ways(given.network, *given.arrays):
        sums = t.sum(axis=1)
        bad = np.flatnonzero(~(np.abs(sums - 1.0) <= 1e-5))
        if isinstance(way.likelihood, Multinomial) and bad.size:
            raise DataError(
                f"the {way.direction} direction is multinomial, so each target must sum to 1, but "
                f"row {bad[0]} sums to {sums[bad[0]]:.6g}; noisy targets are for check_likelihood"
            )
    laws = _named(("invariance", "gradient"))
    results: list[Any] = [law.result(given, given.network.backend) for law in laws]
    results += [] if given.known else _slopes(given)  # of which the definitions say nothing
    return _finished(f"backprop invariance of {net!r}", results, raises)


def _named(groups: Iterable[str]) -> list[Law]:
    return [law for law in LAWS.values() if law.name.partition(".")[0] in groups]


def _given(net: Network, x: Any, y: Any, seed: int) -> Given:
    if net.direction == "backward":
        net, x, y = net.reversed, y, x
    x, t = (np.asarray(net.backend.to_numpy(v) if hasattr(v, "get") else v, float) for v in (x, y))
    for name, array, width in zip("xy", (x, t), (net.inputs, net.outputs), strict=True):
        if array.ndim != 2 or array.shape[1] != width or not np.all(np.isfinite(array)):
            raise ShapeError(
                f"{name} has shape {array.shape}, expected (rows, {width}), all finite"
            )
    if len(x) != len(t) or not len(x):
        raise ShapeError(f"x has {len(x)} rows and y has {len(t)}; give as many of both, 1 or more")
    sizes, ends = tuple(u.size for u in net.layers), (net.likelihood, net.reversed.likelihood)
    return Given(sizes, "tanh", *ends, len(x), seed, hard=False, network=net, arrays=(x, t))


def _slopes(given: Given, **options: Any) -> list[LawResult]:
    """Check the gradients of both directions, and those in the network's own precision."""
    own, results = given.network, list[LawResult | None]()
    options = {"seed": given.seed, "max_evaluations": 3000} | options
    for way, x, t in ways(own, *given.arrays):
        exact, of_way = way.to(dtype="float64"), f"of the {way.direction} direction"
        with quiet():
            if own.dtype != "float64":
                a, b = (host(n, backpropagate(n, x, t)[0]) for n in (way, exact))
                error = near(a, b, "gradient", error_size(exact, x, t))
                results.append(result_of(f"gradient {of_way} in {own.dtype}", BP, 2e-3, [error]))
            for by in averages(own):
                for report in _gradients(exact, x, t, by, options):
                    law = f"{report.name} {of_way}, {by} statistics"
                    results.append(result_of(law, BP, 0.0, [agrees(report)]))
    return [result for result in results if result is not None]


def _gradients(
    net: Network, x: Array, t: Array, by: Any, options: dict[str, Any]
) -> Iterator[GradientReport]:
    """Yield the checks of the gradient and input error of a direction, in float64."""

    def nll(theta: Array, x: Array) -> Any:
        net.parameters[...] = net.backend.asarray(theta, "float64")
        return -np.mean(net.backend.to_numpy(net.log_likelihood(x, t, by)))

    def gradient(theta: Array, x: Array, which: int) -> Array:
        net.parameters[...] = net.backend.asarray(theta, "float64")
        return host(net, backpropagate(net, x, t, statistics=by)[which])

    start, options = host(net, net.parameters), {"rows": len(x), "raises": False} | options
    yield check_gradient(
        lambda theta: nll(theta, x),
        start,
        gradient=lambda theta: gradient(theta, x, 0),
        name="gradient",
        **options,
    )
    yield check_gradient(
        lambda x: nll(start, x),
        x,
        gradient=lambda x: gradient(start, x, 1),
        scale=1.0,
        name="input error",
        **options,
    )


# -- parts of the user's, alone and inside networks ------------------------------------------------
def is_extension(value: Any) -> bool:
    """Whether a value is, or makes, a part that :func:`check_extension` can check."""
    bases = tuple(FAMILIES)
    return issubclass(value, bases) if isinstance(value, type) else isinstance(value, bases)


def check_extension(
    extension: Any,
    *,
    sums: bool | None = None,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check a likelihood, linear map, activation or optimizer of yours, alone and inside networks.

    By itself it goes through :func:`check_likelihood` and its like. Then it takes its place in
    random bidirectional networks (a likelihood at either end, a linear map between others in both
    directions, an activation in the hidden layers), which go through :func:`check_network` and
    every law that speaks about them. Pass an instance, or a class that needs no arguments; ``sums``
    is as in :func:`check_likelihood`.

    >>> from nembp.engine.activations import Tanh
    >>> check_extension(Tanh()).passed
    True
    """
    if not is_extension(extension):
        raise ArchitectureError(
            "expected a Likelihood, LinearMap, Activation or Optimizer, or its class; got "
            f"{extension!r}"
        )
    if inspect.isabstract(extension):
        missing = ", ".join(sorted(vars(extension)["__abstractmethods__"]))
        raise ArchitectureError(f"{extension.__name__} still lacks the methods {missing}")
    try:
        part = extension() if isinstance(extension, type) else extension
    except TypeError as error:
        raise ArchitectureError(
            f"{extension.__name__} needs arguments ({error}); pass an instance, such as "
            f"{extension.__name__}(...)"
        ) from error
    alone = _check_part(part, device, seed, False, sums=sums)
    inside = alone.passed and not isinstance(part, Optimizer)
    results = _in_networks(list(_cases(part, seed)), device) if inside else ()
    return _finished(alone.subject, [*alone.laws, *results], raises)


def _cases(part: Any, seed: int) -> Iterator[Case]:
    """Yield networks that hold the extension, of both directions and every other likelihood."""
    ends: tuple[Likelihood, ...] = (Multinomial(), Gaussian(0.5), Bernoulli())
    for k in range(6):
        other, normalized = ends[k % 3], (1,) if k == 5 else ()
        plain = Case((4, 5, 3), seed=seed + k, rows=3 + k, hard=bool(k % 2), normalized=normalized)
        if isinstance(part, Likelihood):
            both = {"forward": part, "backward": other}
            yield plain.with_(**both if k % 2 else {"forward": other, "backward": part})
        elif isinstance(part, Activation):
            yield plain.with_(activation=part, sizes=(3, 4, 4, 2), forward=other)
        else:
            turned = Transposed(part) if k % 2 else part
            maps = (Dense(3, turned.inputs), turned, Dense(turned.outputs, 2))
            sizes = (3, turned.inputs, turned.outputs, 2)
            yield plain.with_(sizes=sizes, maps=maps, forward=other)


def _in_networks(cases: list[Case], device: str | Backend) -> Iterator[LawResult]:
    """Yield each law's worst result over networks that hold the extension, slopes first."""
    slopes: list[LawResult] = []
    for case in cases[:2]:
        if all(slope.passed for slope in slopes):
            slopes = _slopes(_given(case.net(device=device), *case.batch(), case.seed))
    for slope in slopes:
        yield replace(slope, law=f"in a network: {slope.law}")
    for law in _named((*NETWORK_LAWS, "files")):
        found = [(law.result(case, device), case) for case in cases]
        results = [(result, case) for result, case in found if result is not None]
        if results:
            result, case = max(results, key=lambda pair: (not pair[0].passed, pair[0].error))
            worst = result.worst if result.passed else f"{result.worst}, in {case!r}"
            yield replace(result, law=f"in a network: {law.name}: {law.statement}", worst=worst)
