"""Laws of the joint gradient: design.md, section 3."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from laws import joint
from laws.noise import is_tied
from laws.numerics import ROUNDING, assert_near
from strategies import KINDS, PAIRS, cases, noises

from nembp.backpropagation import backpropagate, joint_gradient
from nembp.errors import ShapeError
from nembp.network import dense_network
from nembp.noise import Noise

each_pair = pytest.mark.parametrize("pair", PAIRS, ids="-".join)
each_path = pytest.mark.parametrize("path", ["samples", "classes", "none"])
fewer = settings(max_examples=settings.default.max_examples // 2)


@each_path
@each_pair
@given(data=st.data())
def test_joint_gradient_is_the_sum_of_both_directions(pair, path, data):
    case = data.draw(cases(pair))
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    joint.check_joint_gradient(case.net(), x, t, path)


@each_pair
@given(data=st.data())
def test_both_paths_agree_on_labels(pair, data):
    case = data.draw(cases(pair))
    net, (x, t) = case.net(), case.labelled_batch()
    by_class, first = joint.run(net, x, t, "classes")
    by_sample, second = joint.run(net, x, t, "samples")
    scale = joint.size_of_errors(net, x, t)
    assert_near(by_class, by_sample, ROUNDING, "gradients of the two paths", scale=scale)
    joint.check_recorded_nll(net, x, t, first)
    joint.check_recorded_nll(net, x, t, second)


@each_path
@given(case=cases())
def test_steps_do_not_remember(path, case):
    batch = case.labelled_batch if path == "classes" else case.batch
    other = case.with_(seed=case.seed + 1)
    second = other.labelled_batch() if path == "classes" else other.batch()
    joint.check_no_memory(case.net(), batch(), second, path)


def assume_untied(case, x, t, noise):
    net = case.net()
    ends = {"forward": (net, x, t), "backward": (net.reversed, t, x)}
    assume(not any(is_tied(*ends[direction], n, case.seed) for direction, n in noise.items()))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("path", ["samples", "classes"])
@given(data=st.data())
def test_noisy_joint_gradient_is_that_of_the_noisy_targets(path, kind, data):
    case = data.draw(cases())
    arm = data.draw(st.sampled_from([("forward",), ("backward",), ("forward", "backward")]))
    noise = {direction: data.draw(noises(kind), label=direction) for direction in arm}
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    assume_untied(case, x, t, noise)
    with joint.poisoned_memory():
        joint.check_noisy_joint_gradient(case.net(), x, t, path, noise)


@each_pair
@fewer
@given(data=st.data())
def test_noise_in_one_direction_of_every_pair(pair, data):
    case = data.draw(cases(pair))
    path = data.draw(st.sampled_from(["samples", "classes", "none"]))
    noise = {"forward": data.draw(noises()), "backward": data.draw(noises())}
    x, t = case.labelled_batch() if path == "classes" else case.batch()
    assume_untied(case, x, t, noise)
    joint.check_noisy_joint_gradient(case.net(), x, t, path, noise)


@given(case=cases(), noise=noises())
def test_kind_none_draws_nothing(case, noise):
    net, (x, t) = case.net(), case.batch()
    silent = {"forward": Noise("none"), "backward": Noise("none", update=noise.update)}
    gradient, step = joint.run(net, x, t, "samples", silent)
    assert np.array_equal(gradient, joint.run(net, x, t, "samples")[0])
    assert step.sources == {}


@given(case=cases(), noise=noises())
def test_a_step_anneals_by_its_clock(case, noise):
    x, t = case.batch()
    assume_untied(case, x, t, {"forward": noise, "backward": noise})
    joint.check_annealing(case.net(), x, t, noise)


def test_joint_gradient_refuses_batches_of_unequal_length():
    small = dense_network([3, 2], dtype="float64")
    with pytest.raises(ShapeError, match="x has 2 rows, but y has 3"):
        joint_gradient(small, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
    with pytest.raises(ShapeError, match="target has 3 rows, but the input has 2"):
        backpropagate(small, np.ones((2, 3)), np.eye(2)[[0, 1, 0]])
