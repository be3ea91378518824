"""The laws of linear maps and links as functions of a case and a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.engine.linear import Transposed
from nembp.threads import threads
from nembp.verification.cases import Case
from nembp.verification.laws import joint, links, maps
from nembp.verification.laws.deviations import Deviations
from nembp.verification.laws.over_cases import batch_for

__all__ = ["forgetful", "in_blocks", "linked", "of_maps"]


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


def linked(case: Case, backend: Backend) -> Deviations:
    """Try the links of every linear map, at a few rows, or at enough for several blocks."""
    rows = case.rows + 40 * (case.seed % 2)
    for linear_map in case.net().maps:
        yield from links.links(linear_map, rows, case.seed, backend, case.dtype)


def in_blocks(case: Case, backend: Backend) -> Deviations:
    """Try the paths on three threads, where linear maps share their work in blocks of rows."""
    if case.maps is None:
        return
    path = "classes" if case.seed % 2 and case.backward.class_sums else "samples"
    x, t = batch_for(case, path)
    with threads(3):
        yield from joint.sum_of_directions(case.net(device=backend), x, t, path)
