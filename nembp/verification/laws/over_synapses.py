"""The laws of synapses and links as functions of a case and a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.synapses import Transposed
from nembp.threads import threads
from nembp.verification.cases import Case
from nembp.verification.laws import joint, links, synapses
from nembp.verification.laws.deviations import Deviations
from nembp.verification.laws.over_cases import batch_for

__all__ = ["forgetful", "in_blocks", "linked", "of_synapses"]


def of_synapses(law: Callable[..., Deviations]) -> Any:
    """Make a law of synapses one of cases: on every synapse, and on every one turned."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        for synapse in case.net().synapses:
            for one in (synapse, Transposed(synapse)):
                yield from law(one, case.rows, case.seed, backend, case.dtype)

    return of_case


def forgetful(case: Case, backend: Backend) -> Deviations:
    """Try all synapses of the network one after another."""
    every = case.net().synapses
    yield from synapses.keeps_no_memory(every, case.rows, case.seed, backend, case.dtype)


def linked(case: Case, backend: Backend) -> Deviations:
    """Try the links of every synapse, at a few rows, or at enough for several blocks."""
    rows = case.rows + 40 * (case.seed % 2)
    for synapse in case.net().synapses:
        yield from links.links(synapse, rows, case.seed, backend, case.dtype)


def in_blocks(case: Case, backend: Backend) -> Deviations:
    """Try the paths on three threads, where synapses share their work in blocks of rows."""
    if case.synapses is None:
        return
    path = "classes" if case.seed % 2 and case.backward.class_sums else "samples"
    x, t = batch_for(case, path)
    with threads(3):
        yield from joint.sum_of_directions(case.net(device=backend), x, t, path)
