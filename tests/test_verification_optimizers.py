"""check_optimizer: nembp's own pass, others that are right pass, planted mistakes are told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import seeds

from nembp.engine.optimizers import OPTIMIZERS, SGD, Adam, Momentum, Optimizer, RMSProp
from nembp.errors import VerificationError
from nembp.verification import check_optimizer


@settings(max_examples=max(5, settings.default.max_examples // 2))
@given(
    kind=st.sampled_from(sorted(OPTIMIZERS)),
    rate=st.floats(1e-4, 1.0),
    decay=st.floats(0.0, 0.1),
    seed=seeds,
)
def test_own_optimizers_pass(kind, rate, decay, seed):
    report = check_optimizer(OPTIMIZERS[kind](rate, decay), seed=seed, raises=False)
    assert report.passed, str(report)


def test_names_classes_and_instances_are_taken():
    optimizer = Adam()
    for given_ in ("adam", Adam, optimizer):
        assert check_optimizer(given_).subject == "optimizer Adam"
    assert not optimizer.state  # a copy was tried, not the user's own
    law = "the first step is proportional to the learning rate"
    assert "does not depend on the gradient's size" in check_optimizer("adam")[law].note
    assert check_optimizer("sgd")[law].note == "and to the gradient"


class SignDescent(Optimizer):
    """θ ← θ − η sign g: right, and unlike the others."""

    name = "sign"
    default_learning_rate = 0.01

    def _update(self, chunk, eta):
        chunk.theta -= eta * np.sign(chunk.g)


class Nesterov(Momentum):
    def _update(self, chunk, eta):
        (v,) = chunk.state
        v *= self.momentum
        v += chunk.g
        chunk.theta -= eta * (chunk.g + self.momentum * v)


@pytest.mark.parametrize("kind", [SignDescent, Nesterov])
def test_others_that_are_right_pass(kind):
    assert check_optimizer(kind).passed


# -- planted mistakes --------------------------------------------------------------------------
class Ascends(SGD):
    def _update(self, chunk, eta):
        chunk.theta += eta * chunk.g


class OneSignWrong(SGD):
    def _update(self, chunk, eta):
        chunk.theta -= eta * abs(chunk.g)


class MovesWithoutGradient(Adam):
    def _update(self, chunk, eta):
        super()._update(chunk, eta)
        chunk.theta -= eta


class SquareRootOfRate(SGD):
    def _update(self, chunk, eta):
        chunk.theta -= eta**0.5 * chunk.g


class CountsChunks(Adam):
    """Its step counter is advanced by every chunk."""

    def _update(self, chunk, eta):
        super()._update(chunk, eta)
        self.steps += 1


class ClipsEachChunk(SGD):
    def _update(self, chunk, eta):
        chunk.theta -= eta * chunk.g / max(1.0, float(np.linalg.norm(chunk.g)))


class SlowsAlong(SGD):
    def _update(self, chunk, eta):
        chunk.theta -= eta * chunk.g / (1 + np.arange(chunk.g.size) % 3)


class FavoursPositive(Momentum):
    def _update(self, chunk, eta):
        (v,) = chunk.state
        v *= self.momentum
        v += np.where(v > 0, 1.01, 1.0) * chunk.g
        chunk.theta -= eta * v


class RemembersStateAcrossBinds(Momentum):
    def bind(self, net):
        kept = self.state
        vector = super().bind(net)
        for slot, old in kept.items():
            self.state[slot][...] = old
        return vector


class RemembersSteps(Adam):
    def bind(self, net):
        steps = self.steps
        vector = super().bind(net)
        self.steps = steps
        return vector


class DecaysBiases(SGD):
    def bind(self, net):
        vector = super().bind(net)
        self._weights = net.parameters
        return vector


class DecaysTwice(SGD):
    def step(self, factor=1.0):
        if self.weight_decay:
            self._weights *= 1 - self.learning_rate * factor * self.weight_decay
        super().step(factor)


class Diverges(Momentum):
    def __init__(self):
        super().__init__(momentum=0.9)

    def _update(self, chunk, eta):
        (v,) = chunk.state
        v *= 1.1
        v += chunk.g
        chunk.theta -= eta * v


class ParametersReplaced(SGD):
    def bind(self, net):
        net.parameters = net.parameters.copy()
        return super().bind(net)


class HalfPrecision(RMSProp):
    def _update(self, chunk, eta):
        if chunk.theta.dtype == np.float32:
            chunk.g[...] = chunk.g.astype(np.float16)
            chunk.theta[...] = chunk.theta.astype(np.float16)
        super()._update(chunk, eta)


WRONG = {
    Ascends: "first step goes against the gradient; parameter 0 .*the sign is wrong",
    OneSignWrong: "first step goes against the gradient; parameter .* in 1?[0-9]+ of",
    MovesWithoutGradient: "first step goes against|nothing moves where the gradient is zero",
    SquareRootOfRate: "first step is proportional to the learning rate",
    CountsChunks: r"may be cut into chunks: θ\[step\].*advanced by each chunk",
    ClipsEachChunk: "may be cut into chunks",
    SlowsAlong: "may be cut into chunks|may be permuted",
    FavoursPositive: "may be mirrored",
    RemembersStateAcrossBinds: "bind starts anew.*a stale buffer",
    RemembersSteps: "bind starts anew.*a stale buffer",
    DecaysBiases: "weight decay",
    DecaysTwice: "weight decay",
    Diverges: "steps descend a quadratic",
    ParametersReplaced: "parameters are moved in place",
    HalfPrecision: "float32 follows float64",
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_a_planted_mistake_is_told(kind):
    with pytest.raises(VerificationError, match=f"optimizer {kind.__name__}: .*({WRONG[kind]})"):
        check_optimizer(kind)
