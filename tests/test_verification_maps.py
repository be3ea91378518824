"""check_linear_map: right linear maps of several kinds pass, and each planted mistake is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from examples_extensions import LocallyConnected
from hypothesis import given
from strategies import SYNAPSES

import nembp.engine.convolution
from nembp.engine.linear import AveragePooling, Dense, LinearMap, Reshape, Transposed
from nembp.errors import VerificationError
from nembp.verification import check_linear_map


@dataclass(frozen=True)
class Convolution(LinearMap):
    """A circular convolution along one axis: shared weights K of shape (taps, in, out)."""

    length: int = 5
    taps: int = 3
    below: int = 2
    above: int = 2

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return self.length * self.below

    @property
    def outputs(self) -> int:  # type: ignore[override]
        return self.length * self.above

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (self.taps, self.below, self.above)

    def _cut(self, x: Any, channels: int, tap: int) -> Any:
        return np.roll(x.reshape(-1, self.length, channels), -tap, axis=1)

    def forward(self, backend, x, W, out):
        z = sum(self._cut(x, self.below, k) @ W[k] for k in range(self.taps))
        out[...] = z.reshape(out.shape)

    def adjoint(self, backend, y, W, out):
        z = sum(
            np.roll(y.reshape(-1, self.length, self.above) @ W[k].T, k, axis=1)
            for k in range(self.taps)
        )
        out[...] = z.reshape(out.shape)

    def weight_gradient(self, backend, x, y, out):
        y = y.reshape(-1, self.length, self.above)
        for k in range(self.taps):
            out[k] = np.einsum("rli,rlo->io", self._cut(x, self.below, k), y)

    def initial_weights(self, generator):
        return generator.normal(size=self.weight_shape)


@dataclass(frozen=True)
class Pool(LinearMap):
    """Averages of neighbouring pairs: no weights."""

    outputs: int = 3

    @property
    def inputs(self) -> int:  # type: ignore[override]
        return 2 * self.outputs

    @property
    def weight_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        return (0,)

    def forward(self, backend, x, W, out):
        out[...] = 0.5 * (x[:, ::2] + x[:, 1::2])

    def adjoint(self, backend, y, W, out):
        out[:, ::2] = 0.5 * y
        out[:, 1::2] = 0.5 * y

    def weight_gradient(self, backend, x, y, out):
        assert out.size == 0

    def initial_weights(self, generator):
        return np.zeros(0)


RIGHT = [
    Dense(3, 2),
    Dense(1, 1),
    Transposed(Dense(4, 3)),
    Convolution(),
    Convolution(above=3, taps=2),
    Transposed(Convolution()),
    LocallyConnected(4, 3),
    Pool(),
    nembp.engine.convolution.Convolution((5, 6, 2), 3, (3, 2), (2, 1), (1, 2)),
    nembp.engine.convolution.Convolution((4, 4, 2), 2, (3, 3), (1, 1), (1, 1)),
    Transposed(nembp.engine.convolution.Convolution((4, 4, 2), 2, (4, 4), (2, 2), (1, 1))),
    AveragePooling((5, 4, 2), (2, 2), (2, 1)),
    Reshape((5,)),
    Reshape((2, 3, 2), (2, 0, 1)),
]


@pytest.mark.parametrize("linear_map", RIGHT, ids=str)
def test_right_maps_pass(linear_map):
    report = check_linear_map(linear_map)
    assert report.passed
    assert ("forward is linear in W" in str(report)) == (linear_map.weight_count > 0)


@pytest.mark.parametrize("kind", sorted(SYNAPSES, key=lambda kind: kind.__name__))
def test_no_false_alarm(kind):
    @given(linear_map=SYNAPSES[kind])
    def passes(linear_map):
        assert check_linear_map(linear_map, raises=False).passed

    passes()


def test_a_large_linear_map_is_checked_in_groups():
    @dataclass(frozen=True)
    class Wrong(Dense):
        def weight_gradient(self, backend, x, y, out):
            super().weight_gradient(backend, x, y, out)
            out[41, 57] *= 1.001

    assert check_linear_map(Dense(60, 100)).passed
    with pytest.raises(VerificationError, match=r"weight_gradient\[41, 57\]"):
        check_linear_map(Wrong(60, 100))
