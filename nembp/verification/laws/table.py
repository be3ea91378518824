"""The table of laws: every one that `nembp verify` tries, by name.

Design sections are those of the architecture: signals, likelihoods, NEM, three sweeps.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.errors import ArchitectureError
from nembp.kinds import encode
from nembp.likelihoods import Gaussian, Multinomial
from nembp.network import Network
from nembp.neurons import get_activation
from nembp.noise import Noise
from nembp.synapses import Transposed
from nembp.verification.cases import Case, random_targets
from nembp.verification.laws import (
    devices,
    ends,
    files,
    gradients,
    hidden,
    joint,
    noise,
    structure,
    textbook,
    training,
)
from nembp.verification.laws.deviations import CENTRAL, COMPLEX, Deviations, Vector
from nembp.verification.laws.law import Law, tolerances

__all__ = ["LAWS"]

BP = "Adigun and Kosko 2019, section 3: backprop invariance"
BBP = "Adigun and Kosko 2019: bidirectional backpropagation"
NEM = "Audhkhasi, Osoba and Kosko 2016, theorems 1-3"
DESIGN = "nembp's definition"


# -- what a case's laws are about --------------------------------------------------------------
def _known(case: Case) -> bool:
    """Whether the formulas of everything in the case are written out in the textbook."""
    known = textbook.knows(get_activation(case.activation))
    return known and textbook.knows(case.forward) and textbook.knows(case.backward)


def _both(case: Case, backend: Backend) -> list[tuple[Network, Vector, Vector]]:
    """Return both directions with their inputs and targets."""
    net, (x, t) = case.net(device=backend), case.batch()
    return [(net, x, t), (net.reversed, t, x)]


def _at_ends(law: Callable[..., Deviations], *, noisy: bool = False) -> Any:
    """Make a law of ends one of cases; ``noisy`` ones take noise too."""

    def of_case(case: Case, backend: Backend) -> Deviations:
        for end, z, t, n in ends.ends_of(case, backend):
            if textbook.knows(end.likelihood):
                yield from law(end, z, t, n) if noisy else law(end, z, t)

    return of_case


def _slopes_at_ends(case: Case, backend: Backend) -> Deviations:
    for end, z, t, n in ends.ends_of(case, backend):
        yield from ends.error_is_slope(end, z, t)
        if textbook.knows(end.likelihood):
            yield from ends.error_is_slope(end, z, case.rounded(t + n))


def _noisy_softmax(case: Case, backend: Backend) -> Deviations:
    for end, z, t, n in ends.ends_of(case, backend):
        if isinstance(end.likelihood, Multinomial):
            yield from ends.noisy_softmax_errors(end, z, t, n)


def _class_sums(case: Case, backend: Backend) -> Deviations:
    for end, z, _, _ in ends.ends_of(case, backend):
        g = case.generator("members")
        members = [int(i) for i in g.integers(0, len(z), int(g.integers(0, 13)))]
        shape = (len(members), z.shape[1])
        t = random_targets(end.likelihood, g, *shape, hard=case.hard)
        yield from ends.class_sums(end, z, case.rounded(t), members)


def _slopes(method: str, *, of_input: bool = False) -> Any:
    law = gradients.input_error if of_input else gradients.against_slopes

    def of_case(case: Case, backend: Backend) -> Deviations:
        if method == "complex" and not case.analytic:
            return
        for net, x, t in _both(case, backend):
            chosen = method if case.analytic or not of_input else "central"
            if chosen == "central" and not case.analytic and not _clear_of_kinks(case, net, x):
                continue
            yield from law(net, x, t, chosen, smooth=case.analytic, seed=case.seed)

    return of_case


def _clear_of_kinks(case: Case, net: Network, x: Vector) -> bool:
    known = textbook.knows(get_activation(case.activation))
    return not known or gradients.away_from_kinks(net, x)


def _chain_rule(case: Case, backend: Backend) -> Deviations:
    if _known(case):
        for net, x, t in _both(case, backend):
            yield from gradients.against_chain_rule(net, x, t)


def _joint(path: str) -> Any:
    def of_case(case: Case, backend: Backend) -> Deviations:
        x, t = case.labelled_batch() if path == "classes" else case.batch()
        yield from joint.sum_of_directions(case.net(device=backend), x, t, path)

    return of_case


def _path_of(case: Case) -> str:
    """Return a path that the case's targets allow: by class where they are labels."""
    return ("samples", "classes", "none")[case.seed % 3]


def _batch_for(case: Case, path: str) -> tuple[Vector, Vector]:
    return case.labelled_batch() if path == "classes" else case.batch()


def _memory(case: Case, backend: Backend) -> Deviations:
    path = _path_of(case)
    net = case.net(device=joint.poisoned(backend))
    other = case.with_(seed=case.seed + 1)
    yield from joint.keeps_no_memory(net, _batch_for(case, path), _batch_for(other, path), path)


def _noisy_joint(case: Case, backend: Backend) -> Deviations:
    if _known(case) and case.noise:
        path = _path_of(case)
        x, t = _batch_for(case, path)
        net = case.net(device=joint.poisoned(backend))
        yield from joint.noisy_joint_gradient(net, x, t, path, case.noise)


def _annealed(case: Case, backend: Backend) -> Deviations:
    # blind: screening may decide otherwise where σ₀ / tᵈ and σₜ differ in their last bit
    noise = _changed(case.forward_noise, kind="blind")
    yield from joint.annealed(case.net(device=backend), *case.batch(), noise)


def _with_noise(law: Callable[..., Deviations], change: Callable[..., Noise | None]) -> Any:
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


def _changed(spec: Noise, **fields: Any) -> Noise:
    return Noise(**(vars(spec) | fields))


def _component(likelihood: Any, spec: Noise) -> Noise:
    update = "exact" if spec.update == "zero-sum" else spec.update
    return _changed(spec, kind="nem", screening="component", update=update)


def _reflected(likelihood: Any, spec: Noise) -> Noise | None:
    if isinstance(likelihood, Gaussian):
        return None
    kind = spec.kind if spec.kind in ("nem", "anti") else "nem"
    return _changed(spec, kind=kind, rejected="reflect", screening="vector")


def _balanced(likelihood: Any, spec: Noise) -> Noise | None:
    if not isinstance(likelihood, Multinomial):
        return None
    return _changed(spec, update="zero-sum", screening="vector")


def _trilinear(case: Case, backend: Backend) -> Deviations:
    for synapse in case.net().synapses:
        yield from structure.trilinear(synapse, case.rows, case.seed, backend, case.dtype)


def _transposed(case: Case, backend: Backend) -> Deviations:
    for synapse in case.net().synapses:
        for one in (synapse, Transposed(synapse)):
            yield from structure.trilinear(
                Transposed(one), case.rows, case.seed, backend, case.dtype
            )
            yield from structure.transposed(one, case.rows, case.seed, backend, case.dtype)


def _derivative(case: Case, backend: Backend) -> Deviations:
    z = case.generator("z").normal(0.0, 2.0, (case.rows, max(case.sizes)))
    activation = get_activation(case.activation)
    yield from structure.derivative(activation, case.rounded(z), backend, case.dtype)


def _views(case: Case, backend: Backend) -> Deviations:
    net = case.net(device=backend)
    yield from structure.views(net)
    yield from structure.views(net.reversed)


def _copies(case: Case, backend: Backend) -> Deviations:
    other = "float32" if case.dtype == "float64" else "float64"
    net = case.net(device=backend)
    for direction in (net, net.reversed):
        yield from structure.copies(direction, lambda n: n.copy())
        yield from structure.copies(direction, copy.deepcopy)
        yield from structure.copies(direction, lambda n: n.to(dtype=other), other)


def _optimizer(case: Case, backend: Backend) -> Deviations:
    for name in training.optimizers_of(case):
        yield from training.optimizer_formula(case.net(device=backend), name, case.seed)


def _weight_decay(case: Case, backend: Backend) -> Deviations:
    for name in training.optimizers_of(case):
        yield from training.weight_decay(case.net(device=backend), name)


def _training(case: Case, backend: Backend) -> Deviations:
    if _known(case):
        yield from training.training(case, backend)


def _round_trip(case: Case, backend: Backend) -> Deviations:
    net, (x, y) = case.net(device=backend), case.batch()
    try:
        encode((net.layers, net.synapses, case.forward, case.backward))
    except ArchitectureError:
        return  # a part of yours that is not registered cannot be in a file
    yield from files.round_trip(net, x, y, backend)


def _host(law: Callable[[Case], Deviations]) -> Any:
    def of_case(case: Case, backend: Backend) -> Deviations:
        if textbook.knows(case.forward) and textbook.knows(case.backward):
            yield from law(case)

    return of_case


def _device(case: Case, backend: Backend) -> Deviations:
    if backend.name != "cpu":
        yield from devices.agreement(case, backend)


EXACT = {"float64": 0.0, "float32": 0.0}

_TABLE = (
    Law("synapse.trilinear", "⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩",
        "∂T/∂y, ∂T/∂x, ∂T/∂W of T(x, W, y) = ⟨x·W, y⟩", _trilinear),
    Law("synapse.transposed", "Transposed swaps forward and adjoint over the same W",
        BBP, _transposed),
    Law("activation.derivative", "multiply_derivative(e, a) = e ∘ f'(z), a = f(z)",
        "Squire and Trapp 1998: complex steps", _derivative),
    Law("likelihood.definition", "a = link(z), log p(t) as written",
        DESIGN, _at_ends(ends.definitions)),
    Law("likelihood.class-sums", "log p and error of a sum of targets = sums of log p and error",
        "exponential families", _class_sums),
    Law("likelihood.gain", "Σ gain(n) = log p(t+n) − log p(t), slope = ∂gain/∂n",
        NEM, _at_ends(ends.gains, noisy=True)),
    Law("invariance.slope", "error = −∂log p/∂z at each end, by complex steps",
        BP, _slopes_at_ends, tolerances(COMPLEX)),
    Law("invariance.update", "error = (a − t)·scale for proper targets; 1/v for the Gaussian",
        BP, _at_ends(ends.classical_update)),
    Law("invariance.noisy-softmax", "a Σ(t+n) − (t+n) exact, a − (t+n) published",
        NEM, _noisy_softmax),
    Law("gradient.complex-steps", "∇(−mean log p) of each direction = Im f(θ + ih)/h",
        BBP, _slopes("complex"), tolerances(COMPLEX)),
    Law("gradient.central-differences", "∇(−mean log p) = (f(θ + h) − f(θ − h))/2h",
        BBP, _slopes("central"), tolerances(CENTRAL), every=3),
    Law("gradient.classical", "gradient = classical backpropagation, written out",
        BP, _chain_rule),
    Law("gradient.input-error", "input error = ∂(−mean log p)/∂x",
        BBP, _slopes("complex", of_input=True), tolerances(COMPLEX)),
    Law("joint.samples", "joint gradient = ∇ forward + ∇ backward, a row a sample",
        BBP, _joint("samples")),
    Law("joint.classes", "joint gradient = ∇ forward + ∇ backward, a row a class",
        BBP, _joint("classes")),
    Law("joint.none", "without the backward direction: ∇ forward, its biases alone",
        DESIGN, _joint("none")),
    Law("joint.no-memory", "a step depends on its batch and parameters alone",
        DESIGN, _memory, EXACT),
    Law("joint.noisy", "noisy joint gradient = backpropagation on the noisy targets",
        NEM, _noisy_joint),
    Law("noise.screening", "NEM: gain ≥ 0; anti: gain ≤ 0; blind: every draw",
        NEM, _with_noise(noise.screening, lambda likelihood, spec: spec)),
    Law("noise.component", "each nᵢ² ≤ 2nᵢ(aᵢ − tᵢ) implies log p(t+n) ≥ log p(t)",
        NEM, _with_noise(noise.component_implies_whole, _component)),
    Law("noise.reflection", "n or −n passes every half-space",
        NEM, _with_noise(noise.reflection, _reflected)),
    Law("noise.annealing", "σₜ = σ₀ / tᵈ, t in epochs or iterations",
        DESIGN, _annealed),
    Law("noise.zero-sum", "Σ n = 0 on softmax targets",
        DESIGN, _with_noise(noise.zero_sum, _balanced)),
    Law("network.views", "net.reversed.reversed is net; both are views of one vector",
        BBP, _views, EXACT),
    Law("network.copies", "a copy shares no memory, and is the same network",
        DESIGN, _copies, every=3),
    Law("optimizer.formula", "SGD, momentum, RMSProp, Adam = their papers",
        "Polyak 1964; Tieleman and Hinton 2012; Kingma and Ba 2015", _optimizer),
    Law("optimizer.weight-decay", "θ_w ← (1 − ηλ) θ_w once a step, biases spared",
        "Loshchilov and Hutter 2019", _weight_decay),
    Law("training.replay", "a training = its definition, replayed in NumPy",
        DESIGN, _training, every=3),
    Law("training.streams", "noise of deviation 0 changes no bit of a training",
        DESIGN, training.silent_noise, EXACT, every=5),
    Law("files.round-trip", "load(save(net)) = net, bit for bit",
        DESIGN, _round_trip, EXACT, every=5),
    Law("em.fisher", "∇ log p = ∇Q at Θₙ; log p = Q + H",
        "Fisher's identity", _host(hidden.fisher), tolerances(COMPLEX, COMPLEX)),
    Law("em.gem", "a GEM step never lowers log p",
        "Dempster, Laird and Rubin 1977, theorem 1", _host(hidden.gem),
        tolerances(single=1e-12), every=3),
    Law("em.nem", "E[log p(y+n, h|x)/p(y, h|x)] ≥ 0 for NEM noise",
        "Osoba, Mitaim and Kosko 2013, theorem 1", _host(hidden.nem),
        tolerances(single=1e-12), every=3),
    Law("device.agreement", "the device computes the host's numbers",
        DESIGN, _device, on_host=False),
)  # fmt: skip

LAWS = {law.name: law for law in _TABLE}
