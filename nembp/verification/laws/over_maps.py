"""The laws of linear maps and links as functions of a case and a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.engine.linear import Transposed
from nembp.verification.cases import Case
from nembp.verification.laws import maps
from nembp.verification.laws.deviations import Deviations

__all__ = ["forgetful", "of_maps"]


def of_maps(law: Callable[..., Deviations]) -> Any:
    """Make a law of linear maps one of cases: on every linear map, and on every one turned."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        for linear_map in case.net().maps:
            for one in (linear_map, Transposed(linear_map)):
                yield from law(one, case.rows, case.seed, backend, case.dtype)

    return of_case


def forgetful(case: Case, backend: Backend) -> Deviations:
    """Try all linear maps of the network one after another."""
    every = case.net().maps
    yield from maps.keeps_no_memory(every, case.rows, case.seed, backend, case.dtype)
