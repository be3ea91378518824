"""Laws of devices: the same numbers as on the host."""

from __future__ import annotations

import numpy as np

from nembp.backend import Backend
from nembp.engine.backprop import backpropagate
from nembp.engine.batchnorm import Statistics
from nembp.verification.cases import Case
from nembp.verification.laws.deviations import Deviations, near
from nembp.verification.laws.gradients import error_size, host
from nembp.verification.laws.joint import run, size_of_errors

__all__ = ["agreement"]

STATISTICS: tuple[Statistics, ...] = ("batch", "running")


def agreement(case: Case, backend: Backend) -> Deviations:
    """Predictions, gradients and joint gradients, noise drawn on the host, are the CPU's."""
    ours, theirs = case.net(), case.net(device=backend)
    x, t = case.labelled_batch() if case.hard else case.batch()
    for cpu, device, source, target in (
        (ours, theirs, x, t),
        (ours.reversed, theirs.reversed, t, x),
    ):
        scale = 1.0 + error_size(cpu, source, target)
        expected = host(cpu, cpu.predict(source))
        way = f"of the {cpu.direction} direction"
        size = 1.0 + float(np.max(np.abs(expected)))
        yield near(host(device, device.predict(source)), expected, f"prediction {way}", scale=size)
        log_p = host(cpu, cpu.log_likelihood(source, target))
        actual = host(device, device.log_likelihood(source, target))
        yield near(actual, log_p, f"log-likelihood {way}", scale=scale)
        for by in STATISTICS if cpu.statistics_count else STATISTICS[:1]:
            gradient = host(cpu, backpropagate(cpu, source, target, statistics=by)[0])
            actual = host(device, backpropagate(device, source, target, statistics=by)[0])
            yield near(actual, gradient, f"gradient {way}", scale=scale)
    path = "classes" if case.hard else "samples"
    noise = case.noise
    results = [run(net, x, t, path, noise) for net in (ours, theirs)]
    for name, drawn in results[0][1].sources.items():
        n, other = host(ours, drawn.n), host(theirs, results[1][1].sources[name].n)
        if not np.array_equal(np.sign(n), np.sign(other)):
            return  # a gain of zero but for rounding, which the two screen differently
        yield near(other, n, f"{name} noise", scale=1.0)
    scale = 10.0 * size_of_errors(ours, x, t)
    yield near(results[1][0], results[0][0], f"joint gradient by path {path}", scale=scale)
    pair = [host(net, net.statistics) for net in (ours, theirs)]
    yield near(pair[1], pair[0], f"running statistics after path {path}", scale=10.0)
