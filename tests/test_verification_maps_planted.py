"""check_linear_map: each planted mistake is told by the law that it breaks, and its cause."""

from __future__ import annotations

import numpy as np
import pytest
from test_verification_maps import Convolution

from nembp.engine.linear import Dense
from nembp.errors import VerificationError
from nembp.verification import check_linear_map


class Square(Dense):
    """A dense linear map of 4 to 4 neurons, so that a transposed matrix fits."""

    def __init__(self):
        super().__init__(4, 4)


class ForwardTransposed(Square):
    def forward(self, backend, x, W, out):
        backend.matmul(x, W.T, out)


class AdjointNotTransposed(Square):
    def adjoint(self, backend, y, W, out):
        backend.matmul(y, W, out)


class GradientTransposed(Square):
    def weight_gradient(self, backend, x, y, out):
        backend.matmul(y.T, x, out)


class KernelFlipped(Convolution):
    def weight_gradient(self, backend, x, y, out):
        super().weight_gradient(backend, x, y, out)
        out[...] = out[::-1].copy()


class KernelTransposed(Convolution):
    def weight_gradient(self, backend, x, y, out):
        super().weight_gradient(backend, x, y, out)
        out[...] = np.swapaxes(out, 1, 2).copy()


class OffByOne(Convolution):
    def adjoint(self, backend, y, W, out):
        super().adjoint(backend, y, W, out)
        out[...] = np.roll(out, self.below, axis=1)


class AdjointSign(Square):
    def adjoint(self, backend, y, W, out):
        backend.matmul(-y, W.T, out)


class GradientSign(Square):
    def weight_gradient(self, backend, x, y, out):
        backend.matmul(-x.T, y, out)


class GradientMean(Square):
    def weight_gradient(self, backend, x, y, out):
        backend.matmul(x.T, y, out)
        out /= len(x)


class GradientTwice(Square):
    def weight_gradient(self, backend, x, y, out):
        backend.matmul(2 * x.T, y, out)


class GradientAccumulates(Square):
    def weight_gradient(self, backend, x, y, out):
        out += x.T @ y


class LastColumnForgotten(Square):
    def forward(self, backend, x, W, out):
        out[:, :-1] = x @ W[:, :-1]


class WithBias(Square):
    def forward(self, backend, x, W, out):
        out[...] = x @ W + 1.0


class Quadratic(Square):
    def forward(self, backend, x, W, out):
        out[...] = x @ (W * abs(W))


class CentredRows(Square):
    def forward(self, backend, x, W, out):
        out[...] = (x - x.mean(axis=0)) @ W


class FirstRowOnly(Square):
    def weight_gradient(self, backend, x, y, out):
        out[...] = x[:1].T @ y[:1] * (len(x) if len(x) > 1 else 1)


class WritesIntoItsInput(Square):
    def forward(self, backend, x, W, out):
        out[...] = x @ W
        x *= 0.5


class ReshapesOut(Square):
    def adjoint(self, backend, y, W, out):
        out.reshape(-1)[...] = (y @ W.T).reshape(-1)


class HalfPrecision(Square):
    def forward(self, backend, x, W, out):
        out[...] = x @ W if x.dtype == np.float64 else (x @ W).astype(np.float16)


class StaleBuffer(Square):
    def adjoint(self, backend, y, W, out):
        kept = self.__dict__.setdefault("kept", {})
        out[...] = kept.setdefault(str(y.dtype), y @ W.T)[: len(y)]


class SharedBuffer(Square):
    """Keeps its argument where other threads write too."""

    def forward(self, backend, x, W, out):
        kept = self.__dict__.setdefault("kept", {})
        kept["x"] = x
        result = np.empty((len(x), 4), x.dtype)
        backend.matmul(x, W, result)
        backend.into(out, np.multiply, result, 1.0 if kept["x"] is x else 2.0)


class DirtyBorder(Square):
    """Adds what the row after the last holds, which other calls may have left there."""

    def adjoint(self, backend, y, W, out):
        kept = self.__dict__.setdefault("kept", np.zeros((64, 4)))
        kept[: len(y)] = y
        backend.matmul(y, W.T, out)
        out += 0.0 * kept[len(y)]


class WorkspaceOfOtherWeights(Square):
    def workspace(self, *args, **options):
        made = super().workspace(*args, **options)
        load = made.load
        made.load = lambda W: load(W if made._W is None else made._W)
        return made


class WeightsOfAnotherShape(Square):
    def initial_weights(self, generator):
        return np.zeros((4, 3))


class WeightsAllEqual(Square):
    def initial_weights(self, generator):
        return np.zeros((4, 4))


class WeightsUnseeded(Square):
    def initial_weights(self, generator):
        return np.random.default_rng().normal(size=(4, 4))


WRONG = {
    ForwardTransposed: (r"adjoint = ∂.*adjoint\[", ""),
    AdjointNotTransposed: (r"adjoint = ∂.*adjoint\[", ""),
    GradientTransposed: (r"weight_gradient = ∂.*weight_gradient\[", r"\(4, 4\) is transposed"),
    KernelFlipped: (r"weight_gradient = ∂", "flipped along axis 0"),
    KernelTransposed: (r"weight_gradient = ∂", "axes in the order"),
    OffByOne: (r"adjoint = ∂", ""),
    AdjointSign: (r"adjoint = ∂", "the sign is wrong"),
    GradientSign: (r"weight_gradient = ∂", "the sign is wrong"),
    GradientMean: (r"weight_gradient = ∂", "batch size: 4 times too small"),
    GradientTwice: (r"weight_gradient = ∂", "a factor 2"),
    GradientAccumulates: ("weight_gradient writes every entry of out", "held NaN before"),
    LastColumnForgotten: ("forward writes every entry of out", r"out\[0, 3\] was not written"),
    WithBias: ("forward is linear in x", ""),
    Quadratic: ("forward is linear in W", ""),
    CentredRows: (r"adjoint = ∂", ""),
    FirstRowOnly: (r"weight_gradient = ∂", ""),
    WritesIntoItsInput: ("arguments are left alone", "wrote into its argument x"),
    ReshapesOut: ("out of any memory layout", "reshaping it makes a copy"),
    HalfPrecision: ("float32 agrees with float64", ""),
    StaleBuffer: ("adjoint treats rows alike and apart|form of Transposed", ""),
    SharedBuffer: ("calls of two threads do not meet", "forward.* from another thread|interrupted"),
    DirtyBorder: ("do not depend on calls before", "(forward|adjoint) after other calls"),
    WorkspaceOfOtherWeights: ("links compute the same", "workspace: "),
    WeightsOfAnotherShape: ("initial weights", "12 weights were drawn"),
    WeightsAllEqual: ("initial weights", "all are equal"),
    WeightsUnseeded: ("initial weights", "two draws differ"),
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_a_planted_mistake_is_told(kind):
    law, cause = WRONG[kind]
    with pytest.raises(VerificationError, match=f"linear map {kind.__name__}: .*({law}).*{cause}"):
        check_linear_map(kind())


def test_the_report_is_a_table_and_the_error_names_both_values():
    report = check_linear_map(GradientMean(), raises=False)
    text = str(report)
    assert text.startswith("linear map GradientMean: FAILED\nlaw ")
    assert "forward is linear in x" in text
    failed = report["weight_gradient = ∂⟨forward(x), y⟩/∂W"]
    assert not failed.passed
    assert failed.worst.analytic * 4 == pytest.approx(failed.worst.numeric)
    assert f"{failed.worst.analytic:.6g}" in text
    assert report.worst is failed
    with pytest.raises(KeyError, match="no law 'x'; there are: initial weights; "):
        report["x"]
