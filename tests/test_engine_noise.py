"""NEM noise and its controls, on targets and on hidden signals, against plain NumPy.

Noise on a target is read off from a gradient: of a network without hidden layers whose inputs are
the rows of the identity matrix, the gradient of the weights is each sample's error.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from engines import Array, joint, number, targets
from scipy import special, stats

from nembp.backend import get_backend, stream
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.likelihoods import Gaussian, get_likelihood
from nembp.engine.network import Network, dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError

KINDS = "nem", "blind", "anti", "drift"
SIGMAS = 6.0  # a two-sided 6-sigma test of one number is wrong once in 5e8
each_kind = pytest.mark.parametrize("kind", KINDS)


# -- noise on targets ------------------------------------------------------------------------------
def network_of(likelihood: Any, z: Array) -> Network:
    """Return a network that has these pre-activations at the rows of the identity matrix."""
    rows, width = z.shape
    net = dense_network([rows, width], forward=likelihood, dtype="float64")
    net.parameters[...] = 0.0
    net.weights[0][...] = z
    return net


def added(
    noise: Noise, likelihood: Any, z: Array, t: Array, seed: int = 0, iteration: int = 1
) -> tuple[Array, Any]:
    """Return the noise that a step adds to targets ``t``, and the record of its source."""
    net = network_of(likelihood, z)
    gradient, step = joint(
        net, np.eye(len(z)), t, "none", {"forward": noise}, seed=seed, clock=(1, iteration)
    )
    error = net.views(gradient).weights[0] * len(z) / likelihood.scale
    a = net.predict(np.eye(len(z)))
    source = step.sources["forward"]
    # of a softmax, the published update a − (t + n) tells n; of the exact one only its effect
    return a - t - error, source


@pytest.mark.parametrize("rejected", ["reflect", "zero"])
def test_reflection_accepts_every_draw_of_a_half_space(rejected):
    g = np.random.default_rng(0)
    z, t = g.normal(size=(200, 4)), np.eye(4)[g.integers(0, 4, 200)]
    for name in ("multinomial", "bernoulli"):
        noise = Noise("nem", rejected=rejected, screening="vector")
        share = number(added(noise, get_likelihood(name), z, t)[1].accepted)
        assert share == 1.0 if rejected == "reflect" else 0.3 < share < 0.7


@pytest.mark.parametrize("rejected", ["reflect", "zero"])
@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("multinomial", {}),
        ("multinomial", {"update": "zero-sum"}),
        ("bernoulli", {"law": "uniform"}),
        ("gaussian", {}),
        ("gaussian", {"screening": "vector"}),
    ],
    ids=str,
)
def test_drift_is_the_mean_of_the_nem_noise(name, options, mode, rejected):
    """One target many times over: 4 numbers at 6 sigma in 20 tests, false alarms below 2e-7."""
    rows, likelihood, g = 1000, get_likelihood(name), np.random.default_rng(11)
    z = np.repeat(g.normal(size=(1, 4)), rows, axis=0)
    t = np.repeat(targets(likelihood, g, 1, 4), rows, axis=0)
    options = {"update": "published", **options}
    found = [
        added(Noise(kind, std=0.6, mode=mode, rejected=rejected, **options), likelihood, z, t)[0]
        for kind in ("nem", "drift")
    ]
    errors = [n.std(axis=0) / math.sqrt(rows) for n in found]
    means = [n.mean(axis=0) for n in found]
    assert np.abs(means[0]).max() > 0.02, "the mean to be found must differ from none"
    assert np.all(np.abs(means[0] - means[1]) < SIGMAS * np.hypot(*errors) + 1e-12)


@pytest.mark.parametrize("name", ["multinomial", "gaussian", "bernoulli"])
def test_curvature_noise_has_the_covariance_of_the_output(name):
    """25 covariances of 1500 draws at 6 sigma: false alarms below 1e-7."""
    likelihood, rows = get_likelihood(name), 1500
    z = np.array([[1.0, 0.0, -1.0, 2.0, -3.0]])
    noise = Noise("blind", std=0.5, law="curvature", update="published")
    t = np.repeat(np.eye(5)[:1], rows, axis=0)
    n = added(noise, likelihood, np.repeat(z, rows, axis=0), t)[0] / 0.5
    a = special.softmax(z[0]) if name == "multinomial" else special.expit(z[0])
    expected = {
        "multinomial": np.diag(a) - np.outer(a, a),
        "bernoulli": np.diag(a * (1 - a)),
        "gaussian": np.eye(5),
    }[name]
    spread = np.sqrt((np.outer(np.diag(expected), np.diag(expected)) + expected**2) / rows)
    assert np.all(np.abs(n.T @ n / rows - expected) <= SIGMAS * spread + 1e-12)


# -- noise in a step -------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["samples", "classes"])
@each_kind
def test_backward_noise_of_either_path_keeps_its_promise(kind, path):
    """Of one row a sample, or one a class; the recorded nll is that of the clean targets."""
    net = dense_network([4, 5, 3], backward=Gaussian(0.5), dtype="float64", seed=1)
    g = np.random.default_rng(0)
    x, t = g.normal(size=(9, 4)), np.eye(3)[[0, 1, 2] * 3]
    gradient, step = joint(net, x, t, path, {"backward": Noise(kind, std=0.3)})
    gain = number(step.sources["backward"].gain)
    assert {"nem": gain > 0, "drift": gain > 0, "anti": gain < 0, "blind": gain < 0}[kind]
    assert number(step.backward_nll) == pytest.approx(
        -net.reversed.log_likelihood(t, x).mean(), rel=1e-12
    )
    assert np.abs(gradient - joint(net, x, t)[0]).max() > 1e-3


# -- noise on signals ------------------------------------------------------------------------------
ROWS = 8


def dense() -> Network:
    net = dense_network(
        [5, 7, 6, 3], activation="tanh", dtype="float64", backward=Gaussian(0.5), seed=3
    )
    net.parameters[...] = np.random.default_rng(0).normal(0.0, 0.6, net.parameter_count)
    return net


def data() -> tuple[Array, Array]:
    g = np.random.default_rng(1)
    return g.normal(size=(ROWS, 5)), np.eye(3)[g.integers(0, 3, ROWS)]


def test_noise_on_signals_comes_from_its_own_stream():
    net, (x, t) = dense(), data()
    alone, _ = joint(net, x, t, noise={"forward/hidden": Noise("nem", std=0.5)})
    both = {"forward/hidden": Noise("nem", std=0.5), "backward": Noise("nem")}
    more, _ = joint(net, x, t, noise=both)
    count = net.weight_count
    biases = sum(layer.biases for layer in net.layers[1:])
    forward = slice(count, count + biases)  # which the backward direction's noise leaves alone
    assert np.array_equal(alone[forward], more[forward])


# -- options ---------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kind", "white"), ("clock", "day"), ("law", "cauchy"), ("mode", "both"),
        ("screening", "none"), ("rejected", "retry"), ("update", "wrong"), ("std", -0.1),
        ("std", math.nan), ("std", "a"), ("decay", -1.0), ("decay", None),
        ("draws", 0), ("draws", 1.5),
    ],
)  # fmt: skip
def test_wrong_options_are_named(option, value):
    with pytest.raises(ArchitectureError, match=f"noise {option} must be") as error:
        Noise(**{"kind": "nem", option: value})
    assert str(value) in str(error.value)


def test_places_and_combinations_that_make_no_sense_are_refused():
    net, (x, t) = dense(), data()
    nem = Noise("nem")

    def refuses(
        message: str, noise: dict[str, Noise], path: Any = "samples", of: Any = net
    ) -> None:
        with pytest.raises(ArchitectureError, match=message):
            joint(of, x[:, : of.inputs], t, path, noise)

    refuses("needs a hidden layer, and this network has none", {"forward/hidden": nem},
            of=dense_network([4, 3], dtype="float64"))  # fmt: skip
    both = {"forward/hidden": nem, "forward/last-hidden": nem}
    refuses("hidden and last-hidden both name layer 2", both)
    refuses("screened by whole samples", {"forward/hidden": Noise("nem", screening="component")})
    refuses("needs a row for each sample", {"backward/input": nem}, "classes")
    zero_sum = Noise("nem", update="zero-sum", screening="component")
    refuses("zero-sum", {"forward": zero_sum})
    none = {"forward": Noise("none"), "backward": Noise("none")}
    assert joint(net, x, t, noise=none)[1].sources == JointBackpropagation(net, 4).sources == {}


# -- normal draws ----------------------------------------------------------------------------------
def test_float32_draws_are_normal_and_independent():
    """Each of these seeded tests has a false-alarm rate of 1e-4, fixed by the seed."""
    backend, count = get_backend("cpu"), 1 << 18
    out = backend.normal(stream(0, "noise/forward"), backend.empty((count,), "float32"))
    draws = np.asarray(out, dtype=np.float64)
    assert stats.kstest(draws, "norm").pvalue > 1e-4
    for limit in (3.0, 4.0):
        beyond = np.count_nonzero(np.abs(draws) > limit)
        assert stats.binomtest(beyond, count, 2 * stats.norm.sf(limit)).pvalue > 1e-4
    blocks = draws.reshape(-1, 2, 1 << 15)  # the two halves of Box and Muller's pairs
    a, b = blocks[:, 0].reshape(-1), blocks[:, 1].reshape(-1)
    for one, other in ((a, b), (a**2, b**2), (np.abs(a), b)):
        assert abs(np.corrcoef(one, other)[0, 1]) < 5 / math.sqrt(a.size)


@pytest.mark.parametrize("shape", [(1,), (2,), (7, 5), (1, (1 << 16) + 1), ((1 << 16) - 1,)])
def test_every_entry_is_drawn(shape):
    backend = get_backend("cpu")
    out = backend.normal(stream(1, "n"), np.full(shape, np.nan, dtype=np.float32))
    assert np.isfinite(out).all()
    assert len(np.unique(out)) > 0.99 * out.size
    double = backend.normal(stream(2, "n"), np.empty((3, 4)))
    assert np.array_equal(double, stream(2, "n").standard_normal((3, 4)))
