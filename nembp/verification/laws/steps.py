"""Laws of what a step takes and gives besides batches and gradients."""

from __future__ import annotations

import numpy as np

from nembp.backend import Backend
from nembp.engine.backprop import ClassAssignment, JointBackpropagation, backpropagate
from nembp.verification.cases import Case, one_hot
from nembp.verification.laws.deviations import Deviations, equal, near
from nembp.verification.laws.gradients import error_size, host

__all__ = ["given_inputs", "input_error"]


def given_inputs(case: Case, backend: Backend) -> Deviations:
    """Try backward inputs that are no labels of the targets, and samples that take no part.

    The joint gradient is ∇ forward + ∇ backward of the members alone, each with its input, by
    ``backpropagate``; sums over samples are divided by a number that is not theirs. A normalized
    layer takes its statistics from the members.
    """
    if not case.backward.class_sums:
        return
    net, (x, t), g = case.net(device=backend), case.batch(), case.generator("members")
    classes, count = int(g.integers(1, 4)), int(g.integers(1, case.rows + 1))
    inputs = case.rounded(g.normal(0.0, 1.0, (classes, net.outputs)))
    members = one_hot(g, count, classes)
    out = g.random(count) < 0.3
    out[0] = False  # one takes part
    members[out] = 0.0
    samples = int(g.integers(1, 9))
    weight = float(g.uniform(0.2, 3.0))
    step = JointBackpropagation(
        net,
        case.rows,
        path="classes",
        classes=ClassAssignment(inputs, backend.asarray(members, case.dtype)),
        samples=samples,
    )
    assert step.input is not None
    step.input.weight = weight
    step.x[...] = backend.asarray(x, case.dtype)
    step.t[...] = backend.asarray(t, case.dtype)
    vector = backend.asarray(np.full(net.parameter_count, np.nan), case.dtype)
    step(vector)
    rows = np.flatnonzero(~out)
    source, target = (members @ inputs)[rows], x[:count][rows]
    forward = host(net, backpropagate(net, x, t)[0]) * case.rows
    backward = host(net, backpropagate(net.reversed, source, target)[0]) * len(rows)
    expected = (forward + weight * backward) / samples
    ends = error_size(net, x, t) + weight * error_size(net.reversed, source, target)
    scale = ends * (1.0 + case.rows / samples)
    yield near(host(net, vector), expected, "gradient with given inputs", scale=scale)
    nll = -np.sum(host(net, net.reversed.log_likelihood(source, target, "batch"))) / samples
    squares = float(
        np.sum(target**2) + np.sum(host(net, net.reversed.predict(source, "batch")) ** 2)
    )
    size = 1.0 + case.backward.scale * (1.0 + squares) * (1.0 + case.rows / samples)
    yield near(host(net, step.backward_nll), [[nll]], "backward nll recorded", scale=size)


def input_error(case: Case, backend: Backend) -> Deviations:
    """Try the forward error at the input: as ``backpropagate`` has it, with a gradient or without.

    It takes no gradient, and the one that is taken is the same with it.
    """
    net, (x, t) = case.net(device=backend), case.batch()
    expected = host(net, backpropagate(net, x, t)[1])
    scale = error_size(net, x, t)
    results = []
    for wanted in (True, False):
        step = JointBackpropagation(net, len(x), path="none", input_error=wanted)
        step.x[...] = backend.asarray(x, case.dtype)
        step.t[...] = backend.asarray(t, case.dtype)
        if wanted:
            step(None)
            yield near(host(net, step.input_error), expected, "input error alone", scale=scale)
        results.append(backend.asarray(np.full(net.parameter_count, np.nan), case.dtype))
        step(results[-1])
        if wanted:
            yield near(host(net, step.input_error), expected, "input error", scale=scale)
    yield equal(host(net, results[0]), host(net, results[1]), "gradient with an input error")
