"""Laws of NEM noise: several draws, and the law of curvature."""

from __future__ import annotations

import math

import array_api_strict
import numpy as np
import pytest
from near import assert_near
from noise_cases import SIGMAS, each_likelihood

from nembp.backend import Backend, get_backend, stream
from nembp.engine.likelihoods import LIKELIHOODS, Bernoulli, Gaussian, Likelihood, Multinomial
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError
from nembp.verification.laws import noise as laws
from nembp.verification.laws.ends import End


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("kind", "white"),
        ("clock", "day"),
        ("law", "cauchy"),
        ("mode", "both"),
        ("screening", "none"),
        ("rejected", "retry"),
        ("update", "wrong"),
        ("std", -0.1),
        ("std", math.nan),
        ("decay", -1.0),
        ("decay", math.inf),
    ],
)
def test_wrong_options_are_named(option, value):
    with pytest.raises(ArchitectureError, match=f"noise {option} must be") as error:
        Noise(**{"kind": "nem", option: value})
    assert str(value) in str(error.value)


@each_likelihood
@pytest.mark.parametrize(("kind", "sign"), [("nem", 1.0), ("anti", -1.0)])
@pytest.mark.parametrize("screening", ["vector", "component", "expectation"])
def test_of_several_draws_the_one_that_gains_most_is_taken(name, kind, sign, screening):
    """Seeds of the stream go to one draw after the other, so one draw at a time is their first."""
    likelihood, z = LIKELIHOODS[name](), np.random.default_rng(1).normal(0.0, 1.0, (30, 4))
    t = np.eye(4)[np.arange(30) % 4]
    single = Noise(kind, std=0.4, screening=screening)
    generator = np.random.default_rng(2)
    one = laws.source(End(likelihood), single, 30, 4, generator)
    each = [np.array(one(likelihood.at(z), t, 0.4)) for _ in range(5)]
    gains = np.array([sign * laws.gains(single, likelihood, z, t, n) for n in each])
    place = np.argmax(gains, axis=0)
    expected = np.take_along_axis(np.array(each), place[None] + np.zeros((1, *t.shape), int), 0)[0]
    several = Noise(kind, std=0.4, screening=screening, draws=5)
    best = laws.source(End(likelihood), several, 30, 4, np.random.default_rng(2))
    n = best(likelihood.at(z), t, 0.4)
    assert_near(n, expected, 1e-15, "best of five draws")
    found = sign * laws.gains(several, likelihood, z, t, n)
    assert np.all(found >= -1e-12)
    assert np.all(found >= gains.max(axis=0) - 1e-12)
    if screening != "expectation":
        assert np.mean(found) > 1.2 * np.mean(gains[0])


def test_blind_noise_is_one_draw_however_many_are_asked_for():
    z, t = np.zeros((6, 3)), np.eye(3)[[0, 1, 2, 0, 1, 2]]
    found = [
        np.array(laws.source(End(Multinomial()), Noise("blind", draws=draws), 6, 3,
                             np.random.default_rng(0))(Multinomial().at(z), t, 0.1))
        for draws in (1, 7)
    ]  # fmt: skip
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("draws", [0, -1, 1.5])
def test_draws_are_one_or_more(draws):
    with pytest.raises(ArchitectureError, match="noise draws must be a whole number ≥ 1"):
        Noise("nem", draws=draws)


@pytest.mark.parametrize("likelihood", [Multinomial(), Bernoulli(), Gaussian()])
def test_curvature_noise_has_the_covariance_of_the_output_itself(likelihood):
    """C by differences of the error; 25 covariances at 6 sigma: false alarms below 1e-7."""
    z = np.array([[1.0, 0.0, -1.0, 2.0, -4.0]])
    end, h = End(likelihood), 1e-5
    t = np.eye(5)[:1]
    steps = h * np.eye(5)
    slopes = [(end.error(z + s, t) - end.error(z - s, t)) / (2 * h) for s in steps[:, None, :]]
    expected = np.concatenate(slopes) / likelihood.scale
    root = laws.root_curvatures(likelihood, end.activation(z))[0]
    np.testing.assert_allclose(root @ root.T, expected, atol=1e-9)
    noise, rows = Noise("blind", law="curvature"), 20_000
    source = laws.source(end, noise, rows, 5, np.random.default_rng(3))
    n = np.array(source(likelihood.at(np.repeat(z, rows, 0)), np.repeat(t, rows, 0), 0.5)) / 0.5
    variances = np.diag(expected)
    spread = np.sqrt((np.outer(variances, variances) + expected**2) / rows)
    assert np.all(np.abs(n.T @ n / rows - expected) <= SIGMAS * spread + 1e-12)
    if isinstance(likelihood, Multinomial):
        np.testing.assert_allclose(n.sum(axis=1), 0.0, atol=1e-12)


@pytest.mark.parametrize("kind", ["nem", "anti", "drift"])
def test_curvature_noise_leaves_certain_samples_alone(kind):
    z = np.array([[40.0, 0.0, 0.0], [0.3, 0.0, 0.1]])
    source = laws.source(
        End(Multinomial()), Noise(kind, law="curvature"), 2, 3, np.random.default_rng(0)
    )
    n = source(Multinomial().at(z), np.eye(3)[:2], 1.0)
    assert np.abs(n[0]).max() < 1e-7
    assert np.abs(n[1]).max() > 1e-2


def test_curvature_noise_is_for_targets_whose_curvature_is_known():

    class Unknown(Likelihood):
        scale = 1.0

        def activate(self, o): ...
        def log_likelihood(self, o, t, counts=None, squares=None): ...
        def gain_terms(self, o, t, n, out): ...

    noise = Noise("nem", law="curvature")
    source = laws.source(End(Unknown()), noise, 2, 3, np.random.default_rng(0))
    with pytest.raises(ArchitectureError, match="law curvature knows multinomial"):
        source(Gaussian().at(np.zeros((2, 3))), np.zeros((2, 3)), 0.1)


@each_likelihood
@pytest.mark.parametrize("kind", ["nem", "drift"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_draws_and_curvature_are_the_same_on_another_device(name, kind, dtype):
    likelihood, noise = LIKELIHOODS[name](), Noise(kind, law="curvature", draws=3)
    z = np.random.default_rng(1).normal(0.0, 1.0, (8, 4))
    t, found = np.eye(4)[np.arange(8) % 4], []
    for backend in (
        get_backend("cpu"),
        Backend(array_api_strict, array_api_strict.Device("device1")),
    ):
        end = End(likelihood, backend, dtype)
        source = laws.source(end, noise, 8, 4, stream(0, "noise"))
        n = source(end.readout(z), backend.asarray(t, dtype), 0.3)
        found.append(backend.to_numpy(n))
    np.testing.assert_allclose(*found, atol={"float64": 1e-14, "float32": 1e-6}[dtype])
