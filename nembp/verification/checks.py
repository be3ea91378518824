"""Checks of parts, networks and a user's own code: the engine's laws, and `check_gradient`."""

from __future__ import annotations

import contextlib
import difflib
import functools
import importlib
import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend, stream
from nembp.datasets.arrays import map_npy
from nembp.engine.activations import Activation, get_activation
from nembp.engine.backprop import backpropagate
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, get_likelihood
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.network import Network
from nembp.engine.optimizers import Optimizer, get_optimizer
from nembp.errors import ArchitectureError, DataError, NembpError, ShapeError, VerificationError
from nembp.threads import threads
from nembp.verification import laws
from nembp.verification.cases import Case, Given, generate
from nembp.verification.gradients import GradientReport, Method, check_gradient, quiet
from nembp.verification.laws import LAWS, Law, LawReport, LawResult, Way, both_ways, host

# -- laws on random cases --------------------------------------------------------------------------
CASES = 135  # three rounds of every activation with every pair of likelihoods


def find_laws(names: Sequence[str] = ()) -> list[Law]:
    """Return the laws of these names, or whose names begin with them and a point; all if none.

    >>> [law.name for law in find_laws(["joint.none", "em"])]
    ['joint.none', 'em.fisher', 'em.gem', 'em.nem']
    """
    found: dict[str, Law] = {}
    for name in names:
        matches = {n: law for n, law in LAWS.items() if n == name or n.startswith(f"{name}.")}
        if not matches:
            groups = dict.fromkeys(law.partition(".")[0] for law in LAWS)
            near = difflib.get_close_matches(name, [*LAWS, *groups], n=1)
            meant = f"; did you mean {near[0]!r}?" if near else "."
            raise ArchitectureError(
                f"there is no law {name!r}{meant} For a function of your own write "
                f"module:function, such as {name}:my_function; `nembp verify --list` lists the "
                f"laws, of {', '.join(groups)}"
            )
        found |= matches
    return list((found if names else LAWS).values())


def try_law(
    law: Law,
    cases: int = CASES,
    seed: int = 0,
    device: str | Backend = "cpu",
    dtype: str = "float64",
) -> LawResult:
    """Try one law on every random case that is its turn; report the smallest on which it fails.

    >>> try_law(LAWS["joint.none"], 10).passed
    True
    """
    started, results = time.perf_counter(), []
    with threads(1):  # matrices are tiny
        for index in range(0, cases, law.every):
            case = generate(seed, index, dtype)
            if (result := law.result(case, device)) is not None:
                results.append((result, sum(case.sizes) * case.rows, index))
    best, code = LawResult(law.name, law.source, True, tolerance=law.tolerance[dtype]), None
    if results:
        best = max((result for result, *_ in results), key=lambda result: result.error)
    if failed := [each for each in results if not each[0].passed]:
        best, _, index = min(failed, key=lambda each: each[1:])
        more = f', "{dtype}"' if dtype != "float64" else ""
        on = f', "{device}"' if isinstance(device, str) and device != "cpu" else ""
        code = (
            "from nembp.verification import LAWS, generate\n\n"
            f"case = generate({seed}, {index}{more})  # of {len(failed)} that fail, the smallest\n"
            f'LAWS["{law.name}"].check(case{on})  # raises VerificationError'
        )
    return replace(best, cases=len(results), code=code, seconds=time.perf_counter() - started)


# -- parts -----------------------------------------------------------------------------------------
PARTS: dict[type[laws.Trial], str] = {
    laws.OnLikelihood: "likelihood",
    laws.OnMap: "linear map",
    laws.OnActivation: "activation",
    laws.OnOptimizer: "optimizer",
}
NETWORK_LAWS = ("gradient", "joint", "normalization", "network")


def _check_part(
    part: Any,
    *,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
    held: Any = None,
) -> LawReport:
    """Return what every law over a kind of part says about one, at worst, in either precision."""
    if not is_extension(part):
        raise ArchitectureError(f"expected a part of a network or an optimizer, got {part!r:.60}")
    over = next(over for over in PARTS if isinstance(part, over.kind))
    backend, results = get_backend(device), list[LawResult | None]()
    with quiet():
        for law in [law for law in LAWS.values() if law.over is over]:
            said = []
            for dtype, tolerance in law.tolerance.items():
                trials = (over(part, backend, dtype, 5, seed, **held or {}) for _ in range(1))
                found = law.deviations(trials)
                said.append(laws.result_of(law.statement, law.source, tolerance, found))
            spoken = [result for result in said if result is not None]
            results.append(min(spoken, key=lambda result: result.passed, default=None))
    return _finished(f"{PARTS[over]} {type(part).__name__}", results, raises)


def _finished(subject: str, results: Iterable[LawResult | None], raises: bool) -> LawReport:
    report = LawReport(subject, tuple(result for result in results if result is not None))
    if raises and not report.passed:
        raise VerificationError(report.summary, report)
    return report


def check_linear_map(linear_map: LinearMap, **options: Any) -> LawReport:
    """Check that a linear map's three functions are the derivatives of one trilinear form.

    forward = ∂T/∂y, adjoint = ∂T/∂x and weight_gradient = ∂T/∂W: the laws ``linear.*``. Raises
    VerificationError with the worst place and both values, as all of these checks; options are
    ``device``, ``seed``, and ``raises=False`` to only report.

    >>> check_linear_map(Dense(3, 2)).passed
    True
    """
    return _check_part(linear_map, **options)


def check_activation(activation: str | Activation, **options: Any) -> LawReport:
    """Check that ``multiply_derivative`` multiplies by the derivative of ``activate``.

    At kinks, 0 among them, any value between the two one-sided slopes passes. Options as those of
    :func:`check_linear_map`.
    """
    return _check_part(get_activation(activation), **options)


def check_optimizer(optimizer: str | Optimizer | type[Optimizer], **options: Any) -> LawReport:
    """Check that an optimizer descends, each parameter by itself, in place, with weight decay.

    Options as those of :func:`check_linear_map`.
    """
    made = optimizer() if isinstance(optimizer, type) else get_optimizer(optimizer)
    return _check_part(made, **options)


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
    if support is not None and support not in laws.SUPPORTS:
        raise ArchitectureError(
            f"support must be one of {', '.join(laws.SUPPORTS)}, got {support!r}"
        )
    held = {"targets": targets, "support": support, "sums": sums, "canonical": canonical}
    part = get_likelihood(likelihood)
    return _check_part(part, device=device, seed=seed, raises=raises, held=held)


# -- networks --------------------------------------------------------------------------------------
def check_network(
    net: Network,
    x: Any,
    y: Any,
    *,
    method: Method = "auto",
    max_evaluations: int = 6000,
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
        As in :func:`check_gradient`; evaluations of each direction.

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
    for way in both_ways(given.network, *given.arrays):
        sums = way.t.sum(axis=1)
        bad = np.flatnonzero(~(np.abs(sums - 1.0) <= 1e-5))
        if isinstance(way.end, Multinomial) and bad.size:
            raise DataError(
                f"{way} is multinomial, so each target must sum to 1, but row {bad[0]} sums to "
                f"{sums[bad[0]]:.6g}; noisy targets are for check_likelihood"
            )
    named, on = _named(("invariance", "gradient")), given.network.backend
    results: list[Any] = [law.result(given, on) for law in named]
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
    for way in both_ways(own, *given.arrays):
        exact = way._replace(net=way.net.to(dtype="float64"))
        if own.dtype != "float64":
            with quiet():
                a, b = (host(each.net, backpropagate(*each)[0]) for each in (way, exact))
                name, found = (
                    f"gradient of {way} in {own.dtype}",
                    laws.near(a, b, "gradient", laws.joint_size(*exact)),
                )
                results.append(laws.result_of(name, laws.BP, 2e-3, [found]))
        results += [_slope(exact, by, given.seed, **options) for by in way.averages]
    return [result for result in results if result is not None]


def _slope(way: Way, by: Any, seed: int, **options: Any) -> LawResult | None:
    """Check the gradient and the input error of a direction."""
    net, x, t = way

    def at(p: Any) -> Any:
        net.parameters[...] = net.backend.asarray(p["θ"], "float64")
        return p["x"]

    def nll(p: Any) -> Any:
        return -np.mean(net.backend.to_numpy(net.log_likelihood(at(p), t, by)))

    def claim(p: Any) -> Any:
        gradient, error = backpropagate(net, at(p), t, statistics=by)
        return {"θ": host(net, gradient), "x": host(net, error)}

    options = {"seed": seed, "max_evaluations": 6000, "rows": len(x), "raises": False} | options
    report = check_gradient(nll, {"θ": way.flat, "x": x}, gradient=claim, **options)
    law = f"gradient and input error of {way}, {by} statistics"
    return laws.result_of(law, laws.BP, 0.0, [laws.agrees(report)])


# -- parts of the user's, alone and inside networks ------------------------------------------------
def is_extension(value: Any) -> bool:
    """Whether a value is, or makes, a part that :func:`check_extension` can check."""
    bases = tuple(over.kind for over in PARTS)
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
    held = {"sums": sums} if isinstance(part, Likelihood) else None
    alone = _check_part(part, device=device, seed=seed, raises=False, held=held)
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
            forward, backward = (part, other) if k % 2 else (other, part)
            yield replace(plain, forward=forward, backward=backward)
        elif isinstance(part, Activation):
            yield replace(plain, activation=part, sizes=(3, 4, 4, 2), forward=other)
        else:
            turned = Transposed(part) if k % 2 else part
            maps = (Dense(3, turned.inputs), turned, Dense(turned.outputs, 2))
            sizes = (3, turned.inputs, turned.outputs, 2)
            yield replace(plain, sizes=sizes, maps=maps, forward=other)


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


# -- a function or part of the user's, from its own file -------------------------------------------
class UserCodeError(NembpError):
    """The user's code raised; ``trace`` is its traceback, without frames of nembp."""

    exit_code = 3

    def __init__(self, what: str, error: BaseException) -> None:
        kind = type(error).__name__
        super().__init__(f"{what} raised {kind}" + (f": {error}" if str(error) else ""))
        tb, ours = error.__traceback__, str(Path(__file__).parents[1]) + os.sep
        while tb is not None and (
            (name := tb.tb_frame.f_code.co_filename).startswith(ours) or "importlib" in name
        ):
            tb = tb.tb_next
        self.trace = "".join(traceback.format_exception(type(error), error, tb)).rstrip()


@contextlib.contextmanager
def _running(what: str) -> Iterator[None]:
    """Turn whatever the user's code raises into UserCodeError, and keep its prints off stdout."""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (NembpError, KeyboardInterrupt):
        raise
    except (Exception, SystemExit) as error:
        raise UserCodeError(what, error) from error


def load(target: str) -> Any:
    """Import ``module:attribute`` as from the working directory.

    >>> load("nembp.engine.activations:Tanh")
    <class 'nembp.engine.activations.Tanh'>
    """
    module_name, _, path = target.partition(":")
    if not path or not all(part.isidentifier() for part in module_name.split(".")):
        raise ArchitectureError(
            f"{target!r}: expected MODULE:NAME, such as my_module:my_function; a file my_file.py "
            "is the module my_file"
        )
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    importlib.invalidate_caches()
    with _running(f"importing {module_name}"):
        try:
            module: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise ArchitectureError(
                f"{target!r}: there is no module {error.name!r} in {os.getcwd()} or among the "
                "installed ones; run nembp verify from the folder that holds it"
            ) from error
    try:
        return functools.reduce(getattr, path.split("."), module)
    except AttributeError as error:
        public = {name: v for name, v in vars(module).items() if name[0] != "_" and callable(v)}
        own = [name for name, v in public.items() if v.__module__ == module.__name__]
        raise ArchitectureError(
            f"{target!r}: {module_name} ({module.__file__}) has no {path!r}; it has "
            f"{', '.join(own[:12]) or 'nothing that can be checked'}"
        ) from error


def check_user_code(
    target: str,
    *,
    point: str | None = None,
    size: int | None = None,
    device: str | Backend = "cpu",
    seed: int = 0,
) -> GradientReport | LawReport:
    """Check a function θ ↦ (value, gradient), or a likelihood, linear map, activation or optimizer.

    ``target`` is ``module:attribute``, imported as from the working directory. ``point`` is where
    to check a function: a file ``.npy``, or ``module:attribute`` of an array or of a function that
    returns one; by default ``point`` of the target's module, or ``size`` standard normal numbers.
    What the user's code raises is a UserCodeError; a wrong gradient or law is only reported.
    """
    value = load(target)
    if is_extension(value):
        if point is not None or size is not None:
            raise ArchitectureError(f"{target} is no function: --point and --size are not for it")
        with _running(target):
            return check_extension(value, device=device, seed=seed, raises=False)
    if not callable(value):
        raise ArchitectureError(
            f"{target} is {type(value).__name__}, not callable; expected a function that returns "
            "(value, gradient), or a Likelihood, LinearMap, Activation or Optimizer"
        )
    at = _point(target, point, size, seed)
    with _running(target):
        try:
            return check_gradient(value, at, seed=seed, name=target, raises=False)
        except ShapeError as error:
            raise ShapeError(f"{target}: {error}") from error


def _point(target: str, point: str | None, size: int | None, seed: int) -> Any:
    if size is not None:
        if point is not None:
            raise ArchitectureError("give --point or --size, not both")
        return stream(seed, "point").standard_normal(size)
    if point is not None and ":" not in point:
        return map_npy(Path(point))
    module = target.partition(":")[0]
    named = point or f"{module}:point"
    try:
        found = load(named)
    except ArchitectureError as error:
        if point is not None:
            raise
        raise ArchitectureError(
            f"no point to check {target} at: define `point` in {module}, or give --point FILE.npy "
            "or --size N for N random numbers"
        ) from error
    with _running(named):
        return found() if callable(found) else found
