"""Mistakes of convolutions, each told by check_linear_map or the laws; also the consistent ones.

A mistake made alike in all three functions leaves the trilinear law intact: only the definition
tells it.
"""

from __future__ import annotations

import numpy as np
import pytest

from nembp.backend import NumpyBackend
from nembp.engine.convolution import Convolution, WindowsLink
from nembp.engine.linear import AveragePooling, Reshape
from nembp.errors import VerificationError
from nembp.verification import check_linear_map
from nembp.verification.runner import verify

SQUARE = {"shape": (5, 5, 2), "channels": 2, "kernel": (3, 3), "padding": (1, 1)}


class Plain(Convolution):
    """The same, without links that compute otherwise."""

    def __init__(self, **fields):
        super().__init__(**(SQUARE | fields))


class KernelTransposed(Plain):
    def forward(self, backend, x, W, out):
        super().forward(backend, x, W.swapaxes(0, 1).copy(), out)


class KernelFlipped(Plain):
    def weight_gradient(self, backend, x, y, out):
        super().weight_gradient(backend, x, y, out)
        out[...] = out[::-1].copy()


class ChannelsSwapped(Plain):
    def adjoint(self, backend, y, W, out):
        super().adjoint(backend, y, W.swapaxes(2, 3).copy(), out)


class StrideOffByOne(Plain):
    def __init__(self):
        super().__init__(stride=(2, 2))

    def adjoint(self, backend, y, W, out):
        super().adjoint(backend, y, W, out)
        image = out.reshape(len(y), *self.shape)
        image[...] = np.roll(image, 1, axis=1)


class PaddingOnTheWrongSide(Plain):
    def __init__(self):
        super().__init__(padding=(2, 0))

    def forward(self, backend, x, W, out):
        image = np.zeros((len(x), *self.shape), x.dtype)
        image[:, :-2] = x.reshape(image.shape)[:, 2:]
        super().forward(backend, image.reshape(x.shape), W, out)


class LastColumnMissing(Plain):
    def forward(self, backend, x, W, out):
        super().forward(backend, x, W, out)
        out.reshape(len(x), *self.output_shape)[:, :, -1] = 0.0


class LastColumnNotWritten(Plain):
    def forward(self, backend, x, W, out):
        whole = np.empty_like(out)
        super().forward(backend, x, W, whole)
        shape = (len(x), *self.output_shape)
        out.reshape(shape)[:, :, :-1] = whole.reshape(shape)[:, :, :-1]


class WindowsOverwritten(Plain):
    def adjoint(self, backend, y, W, out):
        one, image, total = np.zeros_like(y), np.empty_like(out), np.zeros_like(out)
        for k in range(0, y.shape[1], self.channels):
            one[...] = 0.0
            one[:, k : k + self.channels] = y[:, k : k + self.channels]
            super().adjoint(backend, one, W, image)
            total[...] = np.where(image != 0.0, image, total)
        out[...] = total


class ThousandthOff(Plain):
    def weight_gradient(self, backend, x, y, out):
        super().weight_gradient(backend, x, y, out)
        out *= 1.001


class OneWeightThousandthOff(Plain):
    def weight_gradient(self, backend, x, y, out):
        super().weight_gradient(backend, x, y, out)
        out[2, 1, 0, 1] *= 1.001


class PoolingSums(AveragePooling):
    def __init__(self):
        super().__init__((4, 5, 2), (2, 2), (2, 2))

    def adjoint(self, backend, y, W, out):
        super().adjoint(backend, y, W, out)
        out *= 4.0


class PoolingBeyondTheLastWindow(AveragePooling):
    def __init__(self):
        super().__init__((4, 5, 1), (2, 2), (2, 2))

    def adjoint(self, backend, y, W, out):
        whole = np.empty_like(out)
        super().adjoint(backend, y, W, whole)
        shape = (len(y), *self.shape)
        out.reshape(shape)[:, :, :4] = whole.reshape(shape)[:, :, :4]


class ReshapeThereAndThere(Reshape):
    def __init__(self):
        super().__init__((2, 3, 4), (1, 2, 0))

    def adjoint(self, backend, y, W, out):
        self.forward(backend, y, W, out)


FORM = "weight_gradient = ∂|adjoint = ∂"
WRONG = {
    KernelTransposed: FORM,
    KernelFlipped: "weight_gradient = ∂.*flipped along axis 0",
    ChannelsSwapped: "adjoint = ∂",
    StrideOffByOne: "adjoint = ∂",
    PaddingOnTheWrongSide: FORM,
    LastColumnMissing: FORM,
    LastColumnNotWritten: r"forward writes every entry of out.*out\[0, 8\] was not written",
    WindowsOverwritten: "adjoint = ∂",
    ThousandthOff: "weight_gradient = ∂",
    OneWeightThousandthOff: r"weight_gradient = ∂.*weight_gradient\[2, 1, 0, 1\]",
    PoolingSums: "adjoint = ∂.*4",
    PoolingBeyondTheLastWindow: "adjoint writes every entry of out",
    ReshapeThereAndThere: "adjoint = ∂",
}


@pytest.mark.parametrize("kind", WRONG, ids=lambda kind: kind.__name__)
def test_a_planted_mistake_is_told(kind):
    with pytest.raises(VerificationError, match=f"linear map {kind.__name__}: .*({WRONG[kind]})"):
        check_linear_map(kind())


def test_the_class_itself_is_right():
    assert check_linear_map(Plain()).passed
    assert check_linear_map(Plain(stride=(2, 2))).passed


# -- alike in all three functions ----------------------------------------------------------------
def flipped(patch):
    """Convolution in place of correlation: all windows are seen upside down."""
    copied, added = NumpyBackend.copy_windows, NumpyBackend.add_windows

    def copy_windows(self, images, stride, out):
        copied(self, images, stride, out)
        out[...] = out[:, :, :, ::-1].copy()
        return out

    def add_windows(self, windows, stride, out):
        return added(self, windows[:, :, :, ::-1].copy(), stride, out)

    patch.setattr(NumpyBackend, "copy_windows", copy_windows)
    patch.setattr(NumpyBackend, "add_windows", add_windows)


def channels_turned(patch):
    """Channels out in another order."""
    load, descend = WindowsLink.load, WindowsLink.descend

    def descend_turned(self, x, y, out, gradient, after=None):
        descend(self, x, y, out, gradient, after)
        lower, upper = (x, y) if self.upward else (y, x)
        mine = np.empty_like(gradient)
        turned = upper.reshape(-1, self.linear_map.channels)[:, ::-1].reshape(upper.shape)
        pair = (lower, turned) if self.upward else (turned, lower)
        descend(self, *pair, None, mine)
        gradient[...] = mine

    patch.setattr(WindowsLink, "load", lambda self, W: load(self, W[..., ::-1].copy()))
    patch.setattr(WindowsLink, "descend", descend_turned)


def padding_below(patch):
    """Twice the padding below the image and none above; what leaves at the top comes in below."""
    gather, lower = WindowsLink._gather, WindowsLink._lower

    def moved(self, rows, by):
        return np.roll(rows.reshape(-1, *self.linear_map.shape), by, axis=1).reshape(rows.shape)

    def gathered(self, lane, x):
        return gather(self, lane, moved(self, x, -self.linear_map.padding[0]))

    def lowered(self, lane, y, out):
        lower(self, lane, y, out)
        out[...] = moved(self, out, self.linear_map.padding[0])

    patch.setattr(WindowsLink, "_gather", gathered)
    patch.setattr(WindowsLink, "_lower", lowered)


@pytest.mark.parametrize("plant", [flipped, channels_turned, padding_below])
def test_a_consistent_mistake_is_told_by_the_definition(plant, monkeypatch):
    with monkeypatch.context() as patch:
        plant(patch)
        found = verify(["synapse.trilinear", "synapse.definition", "gradient.classical"], cases=90)
        assert found["synapse.trilinear"].passed, "planted otherwise than meant"
        for law in ("synapse.definition", "gradient.classical"):
            assert not found[law].passed
            assert "TypeError" not in str(found[law].worst)
        with pytest.raises(VerificationError, match="the definition"):
            check_linear_map(Convolution((4, 4, 2), 3, (3, 2), (1, 1), (1, 0)))
    assert verify(["synapse.definition"], cases=20).passed
