"""Laws of the joint gradient: the three sweeps sum both directions' own gradients."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from near import assert_near
from strategies import KINDS, PAIRS, cases, noises

from nembp.backend import get_backend
from nembp.engine.backprop import backpropagate, joint_gradient
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.errors import ShapeError
from nembp.verification.laws import check, joint
from nembp.verification.laws.deviations import ROUNDING

each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])
fewer = settings(max_examples=settings.default.max_examples // 2)
POISONED = joint.poisoned(get_backend("cpu"))


def hold_unless_tied(deviations):
    """Check a law that says nothing where a gain is zero but for rounding."""
    found = list(deviations)
    assume(found)
    check(found)


@each_path
@each_pair
@given(data=st.data())
def test_joint_gradient_is_the_sum_of_both_directions(pair, path, data):
    case = data.draw(cases(pair))
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    check(joint.sum_of_directions(case.net(), x, t, path))
    check(joint.recorded_nll(case.net(), x, t, joint.run(case.net(), x, t, path)[1]))


@each_pair
@given(data=st.data())
def test_both_paths_agree_on_labels(pair, data):
    case = data.draw(cases(pair))
    net, (x, t) = case.net(), case.labelled_batch()
    by_class, first = joint.run(net, x, t, "classes")
    by_sample, second = joint.run(net, x, t, "samples")
    scale = joint.size_of_errors(net, x, t)
    assert_near(by_class, by_sample, ROUNDING, "gradients of the two paths", scale=scale)
    check(joint.recorded_nll(net, x, t, first))
    check(joint.recorded_nll(net, x, t, second))


@each_path
@given(case=cases())
def test_steps_do_not_remember(path, case):
    batch = case.labelled_batch if path == "classes" else case.batch
    other = case.with_(seed=case.seed + 1)
    second = other.labelled_batch() if path == "classes" else other.batch()
    net = case.net(device=POISONED)
    check(joint.keeps_no_memory(net, batch(), second, path), 0.0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["samples", "classes"])
@given(data=st.data())
def test_noisy_joint_gradient_is_that_of_the_noisy_targets(path, kind, data):
    case = data.draw(cases())
    arm = data.draw(st.sampled_from([("forward",), ("backward",), ("forward", "backward")]))
    noise = {direction: data.draw(noises(kind), label=direction) for direction in arm}
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    hold_unless_tied(joint.noisy_joint_gradient(case.net(device=POISONED), x, t, path, noise))


@each_pair
@fewer
@given(data=st.data())
def test_noise_in_one_direction_of_every_pair(pair, data):
    case = data.draw(cases(pair))
    path = data.draw(st.sampled_from(["samples", "classes", "none"]))
    noise = {"forward": data.draw(noises()), "backward": data.draw(noises())}
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    hold_unless_tied(joint.noisy_joint_gradient(case.net(), x, t, path, noise))


@given(case=cases(), noise=noises())
def test_kind_none_draws_nothing(case, noise):
    net, (x, t) = case.net(), case.batch()
    silent = {"forward": Noise("none"), "backward": Noise("none", update=noise.update)}
    gradient, step = joint.run(net, x, t, "samples", silent)
    assert np.array_equal(gradient, joint.run(net, x, t, "samples")[0])
    assert step.sources == {}


@given(case=cases(), noise=noises(kind="blind"))
def test_a_step_anneals_by_its_clock(case, noise):
    x, t = case.batch()
    check(joint.annealed(case.net(), x, t, noise))


def test_joint_gradient_refuses_batches_of_unequal_length():
    small = dense_network([3, 2], dtype="float64")
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        joint_gradient(small, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
    with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
        backpropagate(small, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
