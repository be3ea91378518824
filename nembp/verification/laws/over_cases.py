"""The laws as functions of a case and a device: what each looks at in a random network."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.checkpoints import encode
from nembp.engine.activations import get_activation
from nembp.engine.likelihoods import Multinomial
from nembp.engine.network import Network
from nembp.errors import ArchitectureError
from nembp.verification.cases import Case, random_targets
from nembp.verification.laws import (
    devices,
    ends,
    files,
    gradients,
    joint,
    normalized,
    structure,
    textbook,
    training,
)
from nembp.verification.laws.deviations import Deviations, Vector
from nembp.verification.laws.over_noise import changed

__all__ = [
    "annealed",
    "at_ends",
    "batch_for",
    "both",
    "chain_rule",
    "class_sums",
    "clear_of_kinks",
    "copies",
    "derivative",
    "enumerated",
    "evaluation",
    "joint_by",
    "known",
    "memory",
    "moving_statistics",
    "noisy_joint",
    "noisy_softmax",
    "on_device",
    "optimizer",
    "path_of",
    "recorded",
    "replayed",
    "round_trip",
    "slopes",
    "slopes_at_ends",
    "views",
    "weight_decay",
]


def known(case: Case) -> bool:
    """Whether the formulas of everything in the case are written out in the textbook."""
    known = textbook.knows(get_activation(case.activation))
    return known and textbook.knows(case.forward) and textbook.knows(case.backward)


def both(case: Case, backend: Backend) -> list[tuple[Network, Vector, Vector]]:
    """Return both directions with their inputs and targets."""
    net, (x, t) = case.net(device=backend), case.batch()
    return [(net, x, t), (net.reversed, t, x)]


def at_ends(law: Callable[..., Deviations], *, noisy: bool = False) -> Any:
    """Make a law of ends one of cases; ``noisy`` ones take noise too."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        for end, z, t, n in ends.ends_of(case, backend):
            if textbook.knows(end.likelihood):
                yield from law(end, z, t, n) if noisy else law(end, z, t)

    return of_case


def slopes_at_ends(case: Case, backend: Backend) -> Deviations:
    """Try the error of both ends against slopes of log p, on noisy targets too."""
    for end, z, t, n in ends.ends_of(case, backend):
        yield from ends.error_is_slope(end, z, t)
        if textbook.knows(end.likelihood):
            yield from ends.error_is_slope(end, z, case.rounded(t + n))


def noisy_softmax(case: Case, backend: Backend) -> Deviations:
    """Try the three updates of noisy softmax targets."""
    for end, z, t, n in ends.ends_of(case, backend):
        if isinstance(end.likelihood, Multinomial):
            yield from ends.noisy_softmax_errors(end, z, t, n)


def class_sums(case: Case, backend: Backend) -> Deviations:
    """Try sums of up to 12 random targets at both ends."""
    for end, z, _, _ in ends.ends_of(case, backend):
        if not end.likelihood.class_sums:
            continue
        g = case.generator("members")
        members = [int(i) for i in g.integers(0, len(z), int(g.integers(0, 13)))]
        shape = (len(members), z.shape[1])
        t = random_targets(end.likelihood, g, *shape, hard=case.hard)
        yield from ends.class_sums(end, z, case.rounded(t), members)


def slopes(method: str, *, of_input: bool = False) -> Any:
    """Make the law of gradients, or of input errors, by one method of measuring slopes."""
    law = gradients.input_error if of_input else gradients.against_slopes

    def of_case(case: Case, backend: Backend) -> Deviations:
        if method == "complex" and not case.analytic:
            return
        for net, x, t in both(case, backend):
            chosen = method if case.analytic or not of_input else "central"
            if chosen == "central" and not case.analytic and not clear_of_kinks(case, net, x):
                continue
            yield from law(net, x, t, chosen, smooth=case.analytic, seed=case.seed)

    return of_case


def clear_of_kinks(case: Case, net: Network, x: Vector) -> bool:
    """Whether differences do not cross a kink, as far as that is known."""
    known = textbook.knows(get_activation(case.activation))
    return not known or gradients.away_from_kinks(net, x)


def chain_rule(case: Case, backend: Backend) -> Deviations:
    """Try both directions against classical backpropagation."""
    if known(case):
        for net, x, t in both(case, backend):
            yield from gradients.against_chain_rule(net, x, t)


def joint_by(path: str) -> Any:
    """Make the law of one path."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        if path == "classes" and not case.backward.class_sums:
            return
        x, t = batch_for(case, path)
        yield from joint.sum_of_directions(case.net(device=backend), x, t, path)

    return of_case


def recorded(case: Case, backend: Backend) -> Deviations:
    """Try the nll that a step of each path records."""
    for path in ("samples", "classes", "none"):
        if path == "classes" and not case.backward.class_sums:
            continue
        net, (x, t) = case.net(device=backend), batch_for(case, path)
        _, step = joint.run(net, x, t, path)
        yield from joint.recorded_nll(net, x, t, step)


def path_of(case: Case) -> str:
    """Return a path that the case's targets allow: by class where they are labels."""
    return ("samples", "classes", "none")[case.seed % 3]


def batch_for(case: Case, path: str) -> tuple[Vector, Vector]:
    """Return a batch that a path takes."""
    return case.labelled_batch() if path == "classes" else case.batch()


def memory(case: Case, backend: Backend) -> Deviations:
    """Try a step twice, in buffers that held NaN."""
    path = path_of(case)
    net = case.net(device=joint.poisoned(backend))
    other = case.with_(seed=case.seed + 1)
    yield from joint.keeps_no_memory(net, batch_for(case, path), batch_for(other, path), path)


def noisy_joint(case: Case, backend: Backend) -> Deviations:
    """Try the joint gradient of noisy targets, in buffers that held NaN."""
    if known(case) and case.noise:
        path = path_of(case)
        x, t = batch_for(case, path)
        net = case.net(device=joint.poisoned(backend))
        yield from joint.noisy_joint_gradient(net, x, t, path, case.noise)


def annealed(case: Case, backend: Backend) -> Deviations:
    """Try the annealing of the forward noise."""
    # blind: screening may decide otherwise where σ₀ / tᵈ and σₜ differ in their last bit
    law = "uniform" if case.forward_noise.law == "uniform" else "gaussian"
    noise = changed(case.forward_noise, kind="blind", law=law)
    yield from joint.annealed(case.net(device=backend), *case.batch(), noise)


def moving_statistics(case: Case, backend: Backend) -> Deviations:
    """Try what a step of a path does to running statistics, in buffers that held NaN."""
    net, path = case.net(device=joint.poisoned(backend)), path_of(case)
    if net.statistics_count and known(case):
        yield from normalized.moving(net, *batch_for(case, path), path)


def evaluation(case: Case, backend: Backend) -> Deviations:
    """Try both directions of normalized networks by running statistics."""
    if known(case):
        for net, x, t in both(case, backend):
            if net.statistics_count:
                yield from normalized.evaluation(net, x, t)


def derivative(case: Case, backend: Backend) -> Deviations:
    """Try the activation on random pre-activations."""
    z = case.generator("z").normal(0.0, 2.0, (case.rows, max(case.sizes)))
    activation = get_activation(case.activation)
    yield from structure.derivative(activation, case.rounded(z), backend, case.dtype)


def views(case: Case, backend: Backend) -> Deviations:
    """Try the views of both directions."""
    net = case.net(device=backend)
    yield from structure.views(net)
    yield from structure.views(net.reversed)


def copies(case: Case, backend: Backend) -> Deviations:
    """Try copies, and copies in another precision, of both directions."""
    other = "float32" if case.dtype == "float64" else "float64"
    net = case.net(device=backend)
    for direction in (net, net.reversed):
        yield from structure.copies(direction, lambda n: n.copy())
        yield from structure.copies(direction, copy.deepcopy)
        yield from structure.copies(direction, lambda n: n.to(dtype=other), other)


def optimizer(case: Case, backend: Backend) -> Deviations:
    """Try the case's optimizer."""
    for name in training.optimizers_of(case):
        yield from training.optimizer_formula(case.net(device=backend), name, case.seed)


def weight_decay(case: Case, backend: Backend) -> Deviations:
    """Try the decay of the case's optimizer."""
    for name in training.optimizers_of(case):
        yield from training.weight_decay(case.net(device=backend), name)


def replayed(case: Case, backend: Backend) -> Deviations:
    """Try a whole training."""
    if known(case):
        yield from training.training(case, backend)


def round_trip(case: Case, backend: Backend) -> Deviations:
    """Try a model file and a pickle, where every part of the network is registered."""
    net, (x, y) = case.net(device=backend), case.batch()
    try:
        encode((net.layers, net.maps, case.forward, case.backward))
    except ArchitectureError:
        return  # a part of yours that is not registered cannot be in a file
    yield from files.round_trip(net, x, y, backend)


def enumerated(law: Callable[[Case], Deviations]) -> Any:
    """Make a law of enumerated networks one of cases."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        if textbook.knows(case.forward) and textbook.knows(case.backward):
            yield from law(case)

    return of_case


def on_device(case: Case, backend: Backend) -> Deviations:
    """Try agreement with the host, on another device than the host."""
    if backend.name != "cpu":
        yield from devices.agreement(case, backend)
