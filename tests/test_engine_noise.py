"""Options of NEM noise and its controls, and normal draws; what noise is, the laws say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from engines import joint
from scipy import stats

from nembp.backend import get_backend, stream
from nembp.engine.backprop import JointBackpropagation
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError
from nembp.verification import LAWS
from nembp.verification.cases import Case


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


@pytest.mark.parametrize("update", ["exact", "published", "zero-sum"])
@pytest.mark.parametrize("mode", ["additive", "multiplicative"])
@pytest.mark.parametrize("rejected", ["reflect", "zero"])
def test_drift_in_a_half_space_is_the_mean_of_the_kept_noise(rejected, mode, update):
    """By the law's definition, of options that its random cases seldom join."""
    noise = Noise("drift", std=0.6, mode=mode, rejected=rejected, update=update)
    case = Case((3, 4), hard=False, noise={"forward": noise})
    found = LAWS["noise.screening"].result(case)
    assert found is not None
    assert found.passed, found


NEM = Noise("nem")
BY_COMPONENT = {"screening": "component"}


@pytest.mark.parametrize(
    ("message", "noise", "options"),
    [
        ("needs a hidden layer, and this network has none", {"forward/hidden": NEM},
         {"sizes": [5, 3]}),
        ("hidden and last-hidden both name layer 2",
         {"forward/hidden": NEM, "forward/last-hidden": NEM}, {}),
        ("screened by whole samples", {"forward/hidden": Noise("nem", **BY_COMPONENT)}, {}),
        ("needs a row for each sample", {"backward/input": NEM}, {"path": "classes"}),
        ("zero-sum", {"forward": Noise("nem", update="zero-sum", **BY_COMPONENT)}, {}),
    ],
)  # fmt: skip
def test_places_and_combinations_that_make_no_sense_are_refused(message, noise, options):
    net = dense_network(options.get("sizes", [5, 7, 6, 3]))
    with pytest.raises(ArchitectureError, match=message):
        joint(net, np.ones((3, 5)), np.eye(3), options.get("path", "samples"), noise)


def test_noise_of_kind_none_is_no_noise():
    net, none = dense_network([5, 3]), {"forward": Noise("none"), "backward": Noise("none")}
    step = joint(net, np.ones((3, 5)), np.eye(3), noise=none)[1]
    assert step.sources == JointBackpropagation(net, 4).sources == {}


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
