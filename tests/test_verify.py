"""`nembp verify`: the runner, shrinking, the table, and exit codes."""

from __future__ import annotations

import re

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from strategies import cases
from verify_cases import plant

from nembp.backend import Backend
from nembp.engine.convolution import Convolution
from nembp.engine.likelihoods import Bernoulli, Gaussian
from nembp.engine.linear import Dense, Reshape, Transposed
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, VerificationError
from nembp.verification.cases import PAIRS, Case, generate
from nembp.verification.counterexamples import as_code, shrink
from nembp.verification.laws import LAWS, check
from nembp.verification.laws.deviations import Deviation, near
from nembp.verification.runner import find_laws, verify
from nembp.verification.simpler_maps import simpler_chains

STRICT = Backend(array_api_strict, array_api_strict.Device("device1"))


# -- the runner --------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("device", ["cpu", STRICT], ids=["cpu", "array-api-strict"])
def test_every_law_holds(device, dtype):
    found = verify(cases=15, seed=3, device=device, dtype=dtype)
    assert found.passed, [str(outcome.worst) for outcome in found.failures]
    tried = {outcome.law.name: outcome.cases for outcome in found.outcomes}
    assert min(tried.values()) >= 1
    assert ("device.agreement" in tried) == (device is STRICT)


def test_the_same_seed_gives_the_same_numbers():
    first, second, other = (verify(["joint"], cases=12, seed=s) for s in (5, 5, 6))
    errors = [[outcome.error for outcome in found.outcomes] for found in (first, second, other)]
    assert errors[0] == errors[1]
    assert errors[0] != errors[2]


def test_cases_go_round_all_kinds():
    seen = [generate(0, index) for index in range(45)]
    assert len({(c.activation, c.forward.name, c.backward.name) for c in seen}) == 45
    assert {(c.forward.name, c.backward.name) for c in seen[:9]} == set(PAIRS)
    assert {c.forward_noise.kind for c in seen} == {"nem", "blind", "anti", "drift"}
    assert {c.forward_noise.kind for c in seen if c.maps} == {"nem", "blind", "anti", "drift"}
    assert sum(c.maps is not None for c in seen[:42]) == 12


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_the_table_says_what_and_whence(law):
    assert law.statement
    assert law.source
    assert set(law.tolerance) == {"float64", "float32"}
    assert re.fullmatch(r"[a-z]+\.[a-z-]+", law.name)


@pytest.mark.parametrize("law", LAWS.values(), ids=list(LAWS))
def test_slow_laws_meet_every_kind_too(law):
    # kinds go round in cycles of 5, 7 and 9 cases
    seen = [generate(0, index) for index in range(0, 45 * law.every, law.every)]
    assert len({(c.activation, c.forward.name, c.backward.name) for c in seen}) == 45
    assert any(c.maps is not None for c in seen)


def test_progress_counts_up():
    seen = []
    verify(["network"], cases=10, progress=lambda *args: seen.append(args))
    done = [count for _, count, _ in seen]
    assert done == sorted(done)
    assert (done[0], seen[-1]) == (0, ("", 20, 20))
    assert {name for name, *_ in seen} == {"network.views", "network.copies", ""}


def test_a_wrong_option_is_named():
    for options, message in (
        ({"cases": 0}, "cases must be at least 1, got 0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"dtype": "int8"}, "dtype must be float64 or float32, got 'int8'"),
        ({"laws": ["nothing"]}, "there is no law 'nothing'. For a function of your own"),
    ):
        with pytest.raises(ArchitectureError, match=re.escape(message)):
            verify(**options)


def test_laws_are_found_by_the_beginnings_of_their_names():
    assert [law.name for law in find_laws(["noise.zero-sum", "invariance"])] == [
        "noise.zero-sum",
        "invariance.slope",
        "invariance.update",
        "invariance.noisy-softmax",
    ]
    assert len(find_laws()) == len(LAWS)


def test_a_failure_is_a_verification_error(monkeypatch):
    law = plant(monkeypatch, "biases_of_the_other_direction")
    found = verify([law, "network"], cases=20)
    assert not found.passed
    assert found["network.views"].passed
    with pytest.raises(VerificationError, match=f"1 of 3 laws do not hold: {law}$") as error:
        found.raise_for_failure()
    assert error.value.report is found


def test_an_engine_that_raises_breaks_the_law(monkeypatch):
    def crash(*args, **options):
        raise IndexError("out of range")

    monkeypatch.setattr("nembp.engine.linear.Dense.adjoint", crash)
    found = verify(["synapse.trilinear"], cases=3)["synapse.trilinear"]
    assert not found.passed
    assert "IndexError: out of range" in str(found.worst)


def test_a_nan_breaks_a_law(monkeypatch):
    def silent(self, backend, x, y, out):
        pass

    monkeypatch.setattr("nembp.engine.linear.Dense.weight_gradient", silent)
    found = verify(["joint.samples", "synapse.trilinear", "gradient.classical"], cases=3)
    assert len(found.failures) == 3


# -- deviations --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("actual", "expected", "error"),
    [
        ([1.0], [1.0], 0.0),
        ([np.nan], [1.0], np.inf),
        ([1.0], [np.nan], np.inf),
        ([np.inf], [np.inf], np.inf),
        ([1.0, 2.0], [1.0], np.inf),
        ([], [], 0.0),
        (2.0, 1.0, 1.0),
        ([0.0], [1e-3], 1.0),
    ],
)
def test_near(actual, expected, error):
    assert near(actual, expected, "x").error == error


def test_check_raises_at_the_first_deviation():
    with pytest.raises(VerificationError, match="b is wrong; tolerance 1e-12"):
        check([Deviation("a", 0.0), Deviation("b is wrong", 1.0), Deviation("c", 1.0)])
    with pytest.raises(VerificationError):
        check([Deviation("a", np.nan)])


# -- counterexamples ---------------------------------------------------------------------------
def test_shrinking_keeps_what_fails_and_nothing_else():
    start = generate(0, 4).with_(sizes=(5, 6, 7, 3), biases=(5, 3, 1, 3), rows=8)
    noisy = Noise("blind", std=0.3, mode="multiplicative")
    start = start.with_(forward=Bernoulli(2.0), forward_noise=noisy, hard=False)

    def still_fails(case):
        return case.rows >= 3 and isinstance(case.forward, Bernoulli) and max(case.sizes) >= 2

    small = shrink(start, still_fails)
    assert still_fails(small)
    assert len(small.sizes) == 2
    assert sum(small.sizes) == 3
    assert small == Case(small.sizes, "identity", Bernoulli(), rows=3, seed=0)


CHAIN = Case(
    (50, 18, 18, 12, 3),
    "tanh",
    rows=6,
    seed=7,
    biases=(50, 2, 0, 3, 3),
    linear=(2,),
    maps=(
        Convolution((5, 5, 2), 2, (3, 3), (2, 2), (1, 1)),
        Reshape((3, 3, 2), (2, 0, 1)),
        Transposed(Convolution((2, 2, 3), 2, (2, 2), (1, 1), (1, 1))),
        Dense(12, 3),
    ),
)


@pytest.mark.parametrize(
    ("fails", "left"),
    [
        (lambda case: True, Case((1, 1), "identity", rows=1)),
        (
            lambda case: any(type(s) is Convolution for s in case.maps or ()),
            Case((1, 1), "identity", rows=1, maps=(Convolution((1, 1, 1), 1, (1, 1)),)),
        ),
        (
            lambda case: any(max(getattr(s, "stride", (1,))) > 1 for s in case.maps or ()),
            Case((1, 1), "identity", rows=1, maps=(Convolution((1, 1, 1), 1, (1, 1), (1, 2)),)),
        ),
        (
            lambda case: any(
                type(s) is Convolution and s.kernel[0] >= 2 and max(s.padding) for s in inner(case)
            ),
            Case(
                (1, 2),
                "identity",
                rows=1,
                maps=(Convolution((1, 1, 1), 1, (2, 1), (1, 1), (1, 0)),),
            ),
        ),
        (
            lambda case: any(type(s) is Reshape and s.axes for s in case.maps or ()),
            Case((1, 1), "identity", rows=1, maps=(Reshape((1, 1, 1), (2, 0, 1)),)),
        ),
        (
            lambda case: any(type(s) is Transposed for s in case.maps or ()),
            Case(
                (1, 1),
                "identity",
                rows=1,
                maps=(Transposed(Convolution((1, 1, 1), 1, (1, 1))),),
            ),
        ),
    ],
    ids=["anything", "convolution", "stride", "kernel and padding", "order", "turned"],
)
def test_chains_of_images_shrink(fails, left):
    small = shrink(CHAIN, fails)
    assert fails(small)
    small.net()
    assert small.with_(seed=0) == left


def inner(case):
    return [getattr(s, "linear_map", s) for s in case.maps or ()]


@given(case=cases(images=True))
def test_every_simpler_chain_is_a_network(case):
    for smaller in simpler_chains(case):
        net, x, y = smaller.build()
        assert np.all(np.isfinite(net.log_likelihood(x, y)))


@given(case=cases())
def test_code_rebuilds_the_case(case):
    space: dict[str, object] = {}
    exec(as_code(case), space)
    assert space["case"] == case
    net, x, y = case.build()
    assert np.array_equal(space["net"].parameters, net.parameters)
    assert np.array_equal(space["x"], x)
    assert np.array_equal(space["y"], y)


def test_code_holds_only_what_differs():
    case = Case((2, 3), backward=Gaussian(0.5), forward_noise=Noise("nem", std=0.3), seed=4)
    assert as_code(case, "joint.noisy").splitlines() == [
        "from nembp.engine.likelihoods import Gaussian",
        "from nembp.engine.noise import Noise",
        "from nembp.verification.cases import Case",
        "from nembp.verification.laws import LAWS",
        "",
        "case = Case((2, 3), backward=Gaussian(variance=0.5), seed=4, "
        "forward_noise=Noise(kind='nem', std=0.3))",
        "net, x, y = case.build()",
        'LAWS["joint.noisy"].check(case)  # raises VerificationError where the law fails',
    ]


def test_cases_are_representable_in_their_precision():
    for index in range(20):
        x, t = generate(1, index, "float32").batch()
        assert np.array_equal(x, x.astype("float32"))
        assert np.array_equal(t, t.astype("float32"))
