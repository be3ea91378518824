"""Counterexamples: a case on which a law fails, made small enough to read, and written as code."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

from nembp.engine.likelihoods import Gaussian, Likelihood, Multinomial
from nembp.engine.noise import Noise
from nembp.verification.cases import Case
from nembp.verification.simpler_maps import simpler_chains

__all__ = ["as_code", "shrink"]

SIMPLER = ("identity", "tanh", "relu", "logistic", "leaky-relu")  # simplest first
EVALUATIONS = 200  # of a law while shrinking, at most


def shrink(case: Case, still_fails: Callable[[Case], bool]) -> Case:
    """Return a smaller case that still fails, by taking every simplification that keeps failing.

    Parameters
    ----------
    case : Case
        One that fails.
    still_fails : callable
        Says whether a case fails; called 200 times at most.

    >>> from nembp.verification.cases import generate
    >>> shrink(generate(0, 0), lambda case: case.rows > 1).rows
    2
    """
    left = EVALUATIONS
    progress = True
    while progress:
        progress = False
        for steps in (_quieter, _narrower, _shorter, _plainer, _reseeded):
            while left > 0:
                smaller = None
                for candidate in steps(case):
                    left -= 1
                    if still_fails(candidate):
                        smaller = candidate
                        break
                    if left == 0:
                        break
                if smaller is None:
                    break
                case, progress = smaller, True
    return case


def _quieter(case: Case) -> Iterator[Case]:
    """Yield cases with less noise."""
    for name in ("forward_noise", "backward_noise"):
        noise = getattr(case, name)
        if noise == Noise():
            continue
        yield case.with_(**{name: Noise()})
        for key, value in (dataclasses.asdict(Noise()) | {"decay": 0.0}).items():
            if key != "kind" and getattr(noise, key) != value:
                yield case.with_(**{name: dataclasses.replace(noise, **{key: value})})


def _narrower(case: Case) -> Iterator[Case]:
    """Yield cases with fewer biases, layers or neurons, the boldest steps first."""
    if case.biases is not None:
        yield case.with_(biases=None)
    if case.linear:
        yield case.with_(linear=())
    if case.normalized:
        yield case.with_(normalized=())
        for k in case.normalized if len(case.normalized) > 1 else ():
            yield case.with_(normalized=tuple(j for j in case.normalized if j != k))
    if case.maps is not None:  # given linear maps fix the sizes
        yield from simpler_chains(case)
        return
    for k in range(1, len(case.sizes) - 1):
        biases = case.biases and case.biases[:k] + case.biases[k + 1 :]
        linear, normalized = (
            tuple(j - (j > k) for j in layers if j != k)
            for layers in (case.linear, case.normalized)
        )
        sizes = case.sizes[:k] + case.sizes[k + 1 :]
        yield case.with_(sizes=sizes, biases=biases, linear=linear, normalized=normalized)
    for k, size in enumerate(case.sizes):
        for width in (1, 2, size // 2, size - 1) if case.biases is None else ():
            if 1 <= width < size:
                yield case.with_(sizes=(*case.sizes[:k], width, *case.sizes[k + 1 :]))


def _shorter(case: Case) -> Iterator[Case]:
    """Yield cases with fewer rows."""
    for rows in (1, 2, case.rows // 2, case.rows - 1):
        if 1 <= rows < case.rows:
            yield case.with_(rows=rows)


def _plainer(case: Case) -> Iterator[Case]:
    """Yield cases with simpler likelihoods, activation and targets."""
    for name, default in (("forward", Multinomial()), ("backward", Gaussian())):
        end = getattr(case, name)
        for simpler in (default, *_plain(end)):
            if end not in (simpler, default):
                yield case.with_(**{name: simpler})
    if isinstance(case.activation, str) and case.activation in SIMPLER:
        for simpler_name in SIMPLER[: SIMPLER.index(case.activation)]:
            yield case.with_(activation=simpler_name)
    if not case.hard:
        yield case.with_(hard=True)


def _reseeded(case: Case) -> Iterator[Case]:
    """Yield the case at small seeds."""
    for seed in range(min(5, case.seed)):
        yield case.with_(seed=seed)


def _plain(end: Likelihood) -> list[Likelihood]:
    """Return a likelihood of the same kind with its default parameters, if all have one."""
    missing = dataclasses.MISSING
    if not all(field.default is not missing for field in dataclasses.fields(end)):
        return []
    return [type(end)()]


# -- code --------------------------------------------------------------------------------------
def as_code(case: Case, law: str | None = None, device: str = "cpu") -> str:
    """Return Python that rebuilds a case, and shows that a law fails on it.

    >>> print(as_code(Case((2, 1), rows=1), "joint.samples"))
    from nembp.verification.cases import Case
    from nembp.verification.laws import LAWS
    <BLANKLINE>
    case = Case((2, 1), rows=1)
    net, x, y = case.build()
    LAWS["joint.samples"].check(case)  # raises VerificationError where the law fails
    """
    names: dict[str, set[str]] = {"nembp.verification.cases": {"Case"}}
    if law is not None:
        names["nembp.verification.laws"] = {"LAWS"}
    arguments = [repr(case.sizes)]
    for field in dataclasses.fields(case)[1:]:
        value = getattr(case, field.name)
        if value != field.default:
            arguments.append(f"{field.name}={_written(value, names)}")
    imports = [
        f"from {module} import {', '.join(sorted(names[module]))}" for module in sorted(names)
    ]
    on = "" if device == "cpu" else f'"{device}"'
    lines = [*imports, "", f"case = Case({', '.join(arguments)})", f"net, x, y = case.build({on})"]
    if law is not None:
        on = f", {on}" if on else ""
        lines.append(
            f'LAWS["{law}"].check(case{on})  # raises VerificationError where the law fails'
        )
    return "\n".join(lines)


def _written(value: Any, names: dict[str, set[str]]) -> str:
    """Write a value without the fields that have their default, and note what to import."""
    if isinstance(value, tuple):
        return f"({', '.join(_written(v, names) for v in value)}{',' if len(value) == 1 else ''})"
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return repr(value)
    kind = type(value)
    names.setdefault(kind.__module__, set()).add(kind.__name__)
    shown = [
        f"{field.name}={_written(getattr(value, field.name), names)}"
        for field in dataclasses.fields(value)
        if field.init and getattr(value, field.name) != field.default
    ]
    return f"{kind.__name__}({', '.join(shown)})"
