"""`check_extension`: all that can be asked of a likelihood, linear map or other part of yours."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from typing import Any

from nembp.backend import Backend
from nembp.engine.activations import Activation
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.linear import Dense, LinearMap, Transposed
from nembp.engine.optimizers import Optimizer
from nembp.errors import ArchitectureError
from nembp.verification.activations import check_activation
from nembp.verification.cases import Case
from nembp.verification.law_reports import LawReport, LawResult
from nembp.verification.laws import LAWS
from nembp.verification.likelihoods import check_likelihood
from nembp.verification.maps import check_linear_map
from nembp.verification.networks import check_network
from nembp.verification.optimizers import check_optimizer
from nembp.verification.reports import Coordinate

__all__ = ["check_extension", "is_extension"]

BASES = (Likelihood, LinearMap, Activation, Optimizer)
CASES = 6  # networks of each kind
# laws about files and training need a registered name and labels, the others only the parts
WHOLE = ("gradient", "joint", "invariance", "network", "noise", "synapse", "files")


def is_extension(value: Any) -> bool:
    """Whether a value is, or makes, a part that :func:`check_extension` can check."""
    if isinstance(value, type):
        return issubclass(value, BASES)
    return isinstance(value, BASES)


def check_extension(
    extension: Any,
    *,
    sums: bool | None = None,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check a likelihood, linear map, activation or optimizer of yours, alone and inside networks.

    By itself it goes through :func:`~nembp.verification.check_likelihood` and its like. Then it
    takes its place in random bidirectional networks — a likelihood at either end, a linear map
    between others in both directions, an activation in the hidden layers — which go through
    :func:`~nembp.verification.check_network` and every law of
    :mod:`nembp.verification.laws` that speaks about them.

    Parameters
    ----------
    extension : object or class
        An instance, or a class that can be made without arguments.
    sums : bool, optional
        For a likelihood: whether log p must follow from sums of targets, which the class-sum path
        needs; what the class says in ``class_sums`` by default.
    device : str or Backend
        Where it runs.
    seed : int
        Of everything random.
    raises : bool
        Whether a broken law raises, or is only reported.

    Returns
    -------
    LawReport
        Its text is a table.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst place and a guess at the cause.
    ArchitectureError
        If it is none of the four, or a class that needs arguments.

    >>> from nembp.engine.activations import Tanh
    >>> check_extension(Tanh()).passed
    True
    """
    made = _made(extension)
    laws: list[LawResult] = []
    if isinstance(made, Likelihood):
        wanted = made.class_sums if sums is None else sums
        laws += check_likelihood(made, sums=wanted, device=device, seed=seed, raises=False).laws
    else:
        check = _checker(made)
        laws += check(made, device=device, seed=seed, raises=False).laws
    if all(law.passed for law in laws) and not isinstance(made, Optimizer):
        laws += _in_networks(made, device, seed)
    report = LawReport(f"{_family(made)} {type(made).__name__}", tuple(laws))
    if raises:
        report.raise_for_failure()
    return report


def _made(extension: Any) -> Any:
    """Return an instance."""
    if not is_extension(extension):
        raise ArchitectureError(
            f"expected a Likelihood, LinearMap, Activation or Optimizer, or its class; got "
            f"{extension!r}"
        )
    if not isinstance(extension, type):
        return extension
    if inspect.isabstract(extension):
        missing = ", ".join(sorted(vars(extension)["__abstractmethods__"]))
        raise ArchitectureError(f"{extension.__name__} still lacks the methods {missing}")
    try:
        inspect.signature(extension).bind()
    except TypeError as error:
        raise ArchitectureError(
            f"{extension.__name__} needs arguments ({error}); pass an instance, such as "
            f"{extension.__name__}(...)"
        ) from error
    return extension()


def _family(made: Any) -> str:
    return next(base.__name__.lower() for base in BASES if isinstance(made, base))


def _checker(made: Any) -> Callable[..., LawReport]:
    if isinstance(made, LinearMap):
        return check_linear_map
    return check_activation if isinstance(made, Activation) else check_optimizer


def _in_networks(made: Any, device: str | Backend, seed: int) -> Iterator[LawResult]:
    """Yield each law's worst result over networks that hold the extension."""
    cases = list(_cases(made, seed))
    yield from _network_laws(cases, device, seed)
    for law in LAWS.values():
        if law.name.partition(".")[0] not in WHOLE or law.name == "synapse.transposed":
            continue
        worst, where = None, None
        for case in cases:
            found = law.worst(case, device)
            if found is not None and (worst is None or not found.error <= worst.error):
                worst, where = found, case
        if worst is None or where is None:
            continue
        tolerance = law.tolerance[where.dtype]
        place = Coordinate(
            worst.what, None, worst.actual, worst.expected, tolerance=tolerance, scale=1.0
        )
        passed = worst.error <= tolerance
        cause = None if passed else f"{worst}, in {where!r}"
        yield LawResult(
            f"in a network: {law.name}",
            f"{law.statement}; {law.source}",
            passed,
            worst.error,
            tolerance,
            place if passed else None,
            cause,
        )


def _network_laws(cases: list[Case], device: str | Backend, seed: int) -> Iterator[LawResult]:
    """Yield what check_network says about the first network of which it says anything wrong."""
    reports = [
        check_network(case.net(device=device), *case.batch(), seed=seed, raises=False)
        for case in cases[:2]
    ]
    chosen = next((report for report in reports if not report.passed), reports[0])
    for law in chosen.laws:
        yield LawResult(**(vars(law) | {"law": f"in a network: {law.law}"}))


def _cases(made: Any, seed: int) -> Iterator[Case]:
    """Yield networks that hold the extension, of both directions and every other likelihood."""
    ends: tuple[Likelihood, ...] = (Multinomial(), Gaussian(0.5), Bernoulli())
    for k in range(CASES):
        other, normalized = ends[k % 3], (1,) if k == CASES - 1 else ()
        plain = Case((4, 5, 3), seed=seed + k, rows=3 + k, hard=bool(k % 2), normalized=normalized)
        if isinstance(made, Likelihood):
            both = {"forward": made, "backward": other}
            if k % 2:
                both = {"forward": other, "backward": made}
            yield plain.with_(**both)
        elif isinstance(made, Activation):
            yield plain.with_(activation=made, sizes=(3, 4, 4, 2), forward=other)
        else:
            turned = Transposed(made) if k % 2 else made
            sizes = (3, turned.inputs, turned.outputs, 2)
            joined = (Dense(3, turned.inputs), turned, Dense(turned.outputs, 2))
            yield plain.with_(sizes=sizes, maps=joined, forward=other)
