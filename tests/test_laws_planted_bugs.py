"""The checker is checked: each law passes on the engine and fails on an engine with a bug."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from laws import gradients, joint, noise, structure
from laws.planted import Bug
from laws.planted_steps import BUGS
from strategies import Case, targets

from nembp.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.neurons import Tanh
from nembp.noise import Noise
from nembp.synapses import Dense, Transposed

LIKELIHOODS = (Multinomial(weight=0.7), Gaussian(variance=2.0), Bernoulli(weight=1.3))


def case(activation: str = "tanh", forward: Likelihood = LIKELIHOODS[0], **changes: object) -> Case:
    # equal sizes, so that nothing but a number can give a wrong order away
    sizes = (4, 4, 4, 4)
    plain = Case(sizes, sizes, activation, forward, LIKELIHOODS[1], rows=6, seed=3, hard=False)
    return plain.with_(**changes)


def ends() -> list[tuple[Likelihood, np.ndarray, np.ndarray, np.random.Generator]]:
    """Return each likelihood with pre-activations and targets of 5 rows."""
    generator = np.random.default_rng(0)
    return [
        (kind, generator.normal(size=(5, 4)), targets(kind, generator, 5, 4, False), generator)
        for kind in LIKELIHOODS
    ]


def for_each_end(check: Callable[..., None], *, noisy: bool = False) -> Callable[[], None]:
    def law() -> None:
        for kind, z, t, generator in ends():
            check(kind, z, t, *([generator.normal(size=z.shape)] if noisy else []))

    return law


def gradient(activation: str) -> Callable[[], None]:
    def law() -> None:
        c = case(activation)
        gradients.check_gradient(c.net(), *c.batch(), analytic=c.analytic)

    return law


def gradient_reversed() -> None:
    c = case(sizes=(3, 5, 2, 4), biases=(3, 5, 2, 4))
    x, t = c.batch()
    gradients.check_gradient(c.net().reversed, t, x, analytic=True)


def joint_by(path: str) -> Callable[[], None]:
    def law() -> None:
        c = case()
        joint.check_joint_gradient(c.net(), *c.labelled_batch(), path)

    return law


def no_memory(path: str) -> Callable[[], None]:
    def law() -> None:
        c = case()
        batches = c.batch(), c.with_(seed=4).batch()
        joint.check_no_memory(c.net(), *batches, path)

    return law


def noisy(path: str, arm: tuple[str, ...], **changes: object) -> Callable[[], None]:
    def law() -> None:
        c = case(**changes)
        each = Noise("nem", std=0.4, update="published" if changes else "exact")
        joint.check_noisy_joint_gradient(
            c.net(), *c.labelled_batch(), path, dict.fromkeys(arm, each)
        )

    return law


def screening(kind: str, **options: object) -> Callable[[], None]:
    def law() -> None:
        for likelihood, z, t, _ in ends():
            noise.check_screening(Noise(kind, **options), likelihood, z, t, 0.4, seed=1)

    return law


def zero_sum() -> None:
    likelihood, z, t, _ = ends()[0]
    noise.check_zero_sum(Noise("blind", update="zero-sum"), likelihood, z, t, seed=1)


def annealing() -> None:
    c = case()
    joint.check_annealing(c.net(), *c.batch(), Noise("blind", std=0.4, decay=1.0))


def sums() -> None:
    for likelihood, z, t, _ in ends():
        gradients.check_log_likelihood_sums(likelihood, z, t, [0, 0, 3, 3, 3])


BOTH = ("forward", "backward")
LAWS: dict[str, Callable[[], None]] = {
    "trilinear": lambda: structure.check_trilinear(Dense(3, 4), rows=5, seed=0),
    "transposed": lambda: structure.check_transposed(Transposed(Dense(4, 4)), rows=5, seed=0),
    "activation": lambda: gradients.check_activation(Tanh(), np.linspace(-2.0, 2.0, 6)),
    "error": for_each_end(gradients.check_error_is_slope),
    "noisy softmax": lambda: gradients.check_noisy_softmax_errors(
        *ends()[0][:3], np.random.default_rng(1).normal(size=(5, 4))
    ),
    "log likelihood": for_each_end(gradients.check_log_likelihood),
    "sums": sums,
    "gain": for_each_end(gradients.check_gain, noisy=True),
    **{f"gradient {f}": gradient(f) for f in ("tanh", "logistic", "relu", "leaky-relu")},
    "gradient reversed": gradient_reversed,
    "chain rule": lambda: gradients.check_against_chain_rule(case().net(), *case().batch()),
    **{f"joint {path}": joint_by(path) for path in ("samples", "classes", "none")},
    "no memory": no_memory("samples"),
    "no memory none": no_memory("none"),
    "noisy forward": noisy("samples", ("forward",)),
    "noisy samples": noisy("samples", BOTH),
    "noisy classes": noisy("classes", BOTH),
    "noisy published": noisy("classes", BOTH, backward=Multinomial()),
    "screening nem": screening("nem"),
    "screening anti": screening("anti"),
    "screening blind": screening("blind"),
    "screening drift": screening("drift"),
    "screening rejected": screening("nem", rejected="zero"),
    "screening multiplicative": screening("blind", mode="multiplicative"),
    "zero-sum": zero_sum,
    "annealing": annealing,
    "views": lambda: structure.check_views(case().net()),
    "copy": lambda: structure.check_copy(case().net(), lambda net: net.copy(), "float64"),
}


@pytest.mark.parametrize("law", LAWS)
def test_every_law_holds_without_a_bug(law):
    LAWS[law]()


@pytest.mark.parametrize("bug", BUGS.values(), ids=list(BUGS))
def test_every_planted_bug_is_found(bug: Bug, monkeypatch):
    monkeypatch.setattr(bug.owner, bug.method, bug.planted)
    with pytest.raises(AssertionError, match=bug.message):
        LAWS[bug.law]()


def test_every_law_has_a_bug_that_it_finds():
    assert {bug.law for bug in BUGS.values()} == set(LAWS)
