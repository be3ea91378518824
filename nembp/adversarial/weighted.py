"""Ends whose weight lies on the device."""

from __future__ import annotations

from nembp.backend import Array, Backend
from nembp.engine.backprop import Clock, End

__all__ = ["WeightedEnd"]


class WeightedEnd:
    """An end whose error is multiplied by a number on the device too.

    A captured step would keep the ``weight`` that it was captured with; this number it finds where
    that of its turn lies (:mod:`nembp.engine.training`).

    Parameters
    ----------
    end : End
        What does all else.
    backend : Backend
        The device.
    course : array, shape (1,)
        The number.
    """

    def __init__(self, end: End, backend: Backend, course: Array) -> None:
        self._end, self._backend, self._course = end, backend, course
        self.readout, self.nll, self.source = end.readout, end.nll, end.source

    @property
    def weight(self) -> float:
        """Of the error, as the end has it, before the course."""
        return self._end.weight

    @weight.setter
    def weight(self, weight: float) -> None:
        self._end.weight = weight

    def error(self, out: Array, clock: Clock) -> None:
        """Write −course · weight · ∂log p/∂z / samples into ``out``, and the mean nll."""
        self._end.error(out, clock)
        self._backend.into(out, self._backend.xp.multiply, out, self._course)
