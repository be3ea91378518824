"""The laws of noise as functions of a case and a device: on each end, noise as the law needs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.engine.likelihoods import Gaussian, Multinomial
from nembp.engine.noise import Noise
from nembp.verification.cases import Case
from nembp.verification.laws import ends, textbook
from nembp.verification.laws.deviations import Deviations

__all__ = ["balanced", "changed", "component", "reflected", "with_noise"]


def with_noise(law: Callable[..., Deviations], change: Callable[..., Noise | None]) -> Any:
    """Make a law of noise one of cases: on each end, its noise changed to what the law is about.

    ``change`` returns None where the law says nothing about the end.
    """

    def of_case(case: Case, backend: Backend) -> Deviations:
        specs = (case.forward_noise, case.backward_noise)
        for (end, z, t, _), spec in zip(ends.ends_of(case, backend), specs, strict=True):
            if not textbook.knows(end.likelihood) or spec.kind == "none":
                continue
            changed = change(end.likelihood, spec)
            if changed is not None:
                yield from law(end, changed, z, t, spec.std_at(2, 30), case.seed)

    return of_case


def changed(spec: Noise, **fields: Any) -> Noise:
    """Return noise with some options changed."""
    return Noise(**(vars(spec) | fields))


def component(likelihood: Any, spec: Noise) -> Noise:
    """Return NEM noise screened by component."""
    update = "exact" if spec.update == "zero-sum" else spec.update
    return changed(spec, kind="nem", screening="component", update=update)


def reflected(likelihood: Any, spec: Noise) -> Noise | None:
    """Return noise whose rejected draws are reflected, for half-spaces."""
    if isinstance(likelihood, Gaussian):
        return None
    kind = spec.kind if spec.kind in ("nem", "anti") else "nem"
    return changed(spec, kind=kind, rejected="reflect", screening="vector", draws=1)


def balanced(likelihood: Any, spec: Noise) -> Noise | None:
    """Return zero-sum noise, for softmax targets."""
    if not isinstance(likelihood, Multinomial):
        return None
    return changed(spec, update="zero-sum", screening="vector")
