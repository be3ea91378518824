"""What few networks have, and gradients that are refused.

That gradients are the slopes of what they climb, on any device, the laws say (test_verify).
"""

from __future__ import annotations

import numpy as np
import pytest
from engines import assert_close, joint, picker

from nembp.engine.backprop import ClassAssignment, backpropagate, gradient
from nembp.engine.network import dense_network
from nembp.engine.noise import Noise
from nembp.errors import ArchitectureError, ShapeError
from nembp.verification import cases
from nembp.verification.laws import joint_size


def test_many_more_classes_than_samples_take_a_row_for_each_sample():
    net = dense_network([3, 4, 300], dtype="float64")
    g = np.random.default_rng(0)
    for rows in (5, 400):
        x, t = g.normal(size=(rows, 3)), np.eye(300)[g.integers(0, 300, rows)]
        gradient, step = joint(net, x, t, "classes")
        assert step.path == ("samples" if rows == 5 else "classes")
        assert len(step.P[0]) <= max(2 * rows, rows + 300)
        assert_close(gradient, joint(net, x, t, "samples")[0], 1e-12, joint_size(net, x, t))


def normalized_network():
    picks = (picker(np.random.default_rng(k)) for k in range(99))
    pair = "multinomial", "gaussian"
    nets = (cases.random_case(pick, pair, normalized=True).net() for pick in picks)
    return next(net for net in nets if net.statistics_count and net.outputs > 1)


def test_groups_of_rows_are_normalized_by_themselves():
    """As the real and the generated samples of a discriminator."""
    net = normalized_network()
    g = np.random.default_rng(0)
    x, t = g.normal(size=(12, net.inputs)), np.eye(net.outputs)[g.integers(0, net.outputs, 12)]
    gradient, _ = joint(net.copy(), x, t, "none", groups=(5, 7))
    parts = [backpropagate(net, x[rows], t[rows])[0] for rows in (slice(5), slice(5, None))]
    assert_close(gradient, (5 * parts[0] + 7 * parts[1]) / 12, 1e-12, 1.0)


def test_samples_that_take_no_part_in_a_direction_are_not_counted():
    """As generated samples, which have no backward target, in a discriminator's step."""
    net = normalized_network()
    g, part = np.random.default_rng(0), [0, 2, 3, 4, 7]
    x, labels = g.normal(size=(9, net.inputs)), np.arange(9) % net.outputs
    y = np.eye(net.outputs)[labels]
    members = np.zeros((8, net.outputs))
    members[part] = y[part]
    before = net.copy()
    gradient, _ = joint(net, x, y, "classes", classes=ClassAssignment(np.eye(net.outputs), members))
    backward = backpropagate(before.reversed, y[part], x[part])[0] * len(part) / 9
    assert_close(gradient, backpropagate(before, x, y)[0] + backward, 1e-12, 1.0)
    alone = before.copy()
    joint(alone, x[part], y[part])
    half = net.statistics_count // 2
    assert_close(net.statistics[half:], alone.statistics[half:], 1e-12, 1.0)


def test_a_gradient_that_is_not_the_one_asked_for_is_refused():
    net, x, hot = dense_network([3, 2]), np.ones((2, 3)), np.eye(2)
    for options, message in (
        ({"noise": {"target": Noise("nem")}}, "no place for noise is called 'target'"),
        ({"noise": {"backward": Noise("nem")}, "direction": "forward"}, "does nothing"),
        ({"x": x[:0], "t": hot[:0]}, "no rows"),
        ({"path": "none"}, "path must be one of samples, classes"),
        ({"path": "classes", "t": hot / 2}, "takes one-hot rows"),
    ):
        with pytest.raises((ArchitectureError, ShapeError), match=message):
            gradient(net, **{"x": x, "t": hot, **options})
    with pytest.raises(ShapeError, match="input has no rows"):
        net.predict(x[:0])
    for call in (gradient, backpropagate):
        with pytest.raises(ShapeError, match="the input has 2 rows, but the target has 3"):
            call(net, x, hot[[0, 1, 0]])
