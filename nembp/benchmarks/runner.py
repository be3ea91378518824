"""Runs a suite and assembles its report."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from nembp.backend import get_backend
from nembp.benchmarks import Progress, Settings, get_suite
from nembp.benchmarks.environment import conditions, describe, usable_cpus
from nembp.benchmarks.instructions import pinning_note
from nembp.benchmarks.memory import peak_memory
from nembp.benchmarks.other_work import Meter, note, shares

__all__ = ["run"]

BUSY = 0.5  # load average of a machine that has other things to do


def run(name: str, settings: Settings, progress: Progress = lambda line: None) -> dict[str, Any]:
    """Run a suite and return its report, an object that ``json`` can write.

    Parameters
    ----------
    name : str
        Of the suite in :data:`nembp.benchmarks.SUITES`.
    settings : Settings
        The suite's ``DEFAULTS`` or ``QUICK``, or others.
    progress : callable
        Told a line when a case is done.

    Raises
    ------
    ArchitectureError
        If the suite or a network is unknown.
    DeviceError
        If the device cannot be used.
    """
    suite = get_suite(name)
    for network in settings.networks:
        suite.check_network(network)
    backend = get_backend(settings.device, settings.precision)
    start, begun, meter = time.perf_counter(), conditions(), Meter.read()
    notes = _notes(settings, begun["load_average"])
    for each in notes:
        progress(f"note: {each}")
    results = suite.measure(settings, backend, progress)
    taken = shares(meter, Meter.read())
    notes += [text] if (text := note(taken)) else []
    memory = None
    if settings.memory:
        progress("peak memory of a training run ...")
        memory = peak_memory(
            threads=max(settings.threads), dtype=settings.dtype, device=backend.name
        )
    described = describe(backend)
    if backend.name == "cpu":
        pinned = pinning_note(described["blas"], described["torch"], begun["environment"])
        notes += [pinned] if pinned else []
    return {
        "suite": name,
        **begun,
        "taken_by_others": taken,
        **described,
        "settings": asdict(settings),
        "step": suite.STEP,
        "notes": notes,
        "results": results,
        "peak_memory": memory,
        "seconds": time.perf_counter() - start,
    }


def _notes(settings: Settings, load: float | None) -> list[str]:
    """Return what a reader must know before trusting the timings."""
    cpus = usable_cpus()
    notes = [
        f"{threads} threads share {cpus} usable CPUs: those timings mean little"
        for threads in settings.threads
        if threads > cpus
    ]
    if load is not None and load > BUSY:
        notes.append(
            f"the machine was busy when the run began (load average {load:.1f}): other work "
            "distorts the timings, above all with several threads"
        )
    return notes
