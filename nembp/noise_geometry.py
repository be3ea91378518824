"""The geometry of NEM screening, in two coordinates.

Noise n on a target t is kept where gain(n) = log p(t+n) − log p(t) ≥ 0 (Adigun and Kosko 2019,
section 4; Audhkhasi, Osoba and Kosko 2016, theorems 1-3). Of a multinomial or Bernoulli end that
is the half-space ⟨n, w⟩ ≥ 0 with w = ∂gain/∂n; of a Gaussian one the ball ‖t + n − a‖ ≤ ‖t − a‖.
Here are two coordinates of noise in which that can be seen, for :mod:`nembp.noise_draws`:

* a :class:`Plane` holds the half-space's normal w, so that a draw of any dimension falls on the
  side that decides about it;
* a :class:`TurnedPlane` holds a − t and is turned to hold each draw, so that the ball is a disc and
  a draw of any dimension lies in the ball where its point lies in the disc.

The target is the origin of all coordinates, which are in units of the target.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nembp.backend import get_backend
from nembp.errors import ShapeError
from nembp.likelihoods import Likelihood, Readout
from nembp.network import Network

__all__ = [
    "Corner",
    "Disc",
    "Frame",
    "GainCurve",
    "HalfPlane",
    "Plane",
    "Point",
    "Region",
    "TurnedPlane",
]

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Point:
    """One sample at a direction's end.

    Attributes
    ----------
    likelihood : Likelihood
        Of the direction.
    z, a, t : ndarray of float64, shape (width,)
        Pre-activation in the likelihood's normal form, activation, target.
    """

    likelihood: Likelihood
    z: Floats
    a: Floats
    t: Floats

    @classmethod
    def of(cls, net: Network, x: ArrayLike, t: ArrayLike) -> Point:
        """Run a direction, ``net`` or ``net.reversed``, on one sample.

        Parameters
        ----------
        net : Network
            The direction.
        x, t : array_like, shape (1, inputs) and (1, outputs)
            Its input and target, in the network's units.

        Raises
        ------
        ShapeError
            If they do not fit the network, or its output is not finite.
        """
        target = np.asarray(t, np.float64)
        if target.shape != (1, net.outputs):
            raise ShapeError(f"target has shape {target.shape}, expected (1, {net.outputs})")
        z = np.asarray(net.backend.to_numpy(net.readout(x).z), np.float64)
        if not np.all(np.isfinite(z)):
            raise ShapeError(
                "the network's output for this sample is not finite; expected finite numbers. "
                "Check the sample's scale, or train again at a lower learning rate"
            )
        o = net.likelihood.at(z)
        return cls(net.likelihood, o.z[0], o.a[0], target[0])

    @property
    def width(self) -> int:
        """Number of neurons."""
        return len(self.t)

    def only(self, neurons: ArrayLike) -> Point:
        """Return some neurons alone: noise in the others is held at zero, and adds no gain."""
        k = np.asarray(neurons, np.intp)
        return Point(self.likelihood, self.z[k], self.a[k], self.t[k])

    def rows(self, n: int) -> tuple[Readout, Floats]:
        """Return the readout and target of ``n`` samples that are all this one."""
        o = Readout.allocate(get_backend("cpu"), n, self.width, "float64")
        o.z[...], o.a[...] = self.z, self.a  # as they are: some neurons of a softmax stay so
        return o, np.tile(self.t, (n, 1))

    def gain(self, n: ArrayLike) -> Floats:
        """Return log p(t+n) − log p(t) in nats for noise (draws, width), shape (draws,)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        o, t = self.rows(len(noise))
        terms = np.empty_like(noise)
        self.likelihood.gain_terms(o, t, noise, terms)
        return np.asarray(terms.sum(axis=1))

    @property
    def slope(self) -> Floats:
        """∂gain/∂n at n = 0, shape (width,)."""
        o, t = self.rows(1)
        w = np.empty_like(t)
        self.likelihood.gain_slope(o, t, w)
        return np.asarray(w[0])


# -- coordinates -----------------------------------------------------------------------------------
class Frame(Protocol):
    """Two coordinates of noise."""

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""


@dataclass(frozen=True, eq=False)
class Plane:
    """A plane through the target; noise falls on it at right angles.

    Attributes
    ----------
    axes : ndarray of float64, shape (2, width)
        Orthonormal.
    """

    axes: Floats

    @classmethod
    def through(cls, first: ArrayLike, second: ArrayLike) -> Plane:
        """Return the plane whose first axis lies along ``first`` and that holds ``second``.

        A vector without length, or along the first, is replaced by an axis of the neurons.

        >>> Plane.through([0.0, 3.0], [1.0, 1.0]).axes.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
        """
        one = _unit(np.asarray(first, np.float64), np.zeros((0, np.size(first))))
        return cls(np.stack([one, _unit(np.asarray(second, np.float64), one[np.newaxis])]))

    @classmethod
    def simplex(cls) -> Plane:
        """Return the plane of three probabilities; its columns are the corners from the centre.

        Distances in it are those of the probabilities: sides are √2 long.
        """
        return cls(np.array([[-1.0, 1.0, 0.0], [-1.0, -1.0, 2.0]]) / np.sqrt([[2.0], [6.0]]))

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""
        return np.atleast_2d(np.asarray(n, np.float64)) @ self.axes.T

    def lift(self, c: ArrayLike) -> Floats:
        """Return the noise (draws, width) in the plane at coordinates (draws, 2)."""
        return np.atleast_2d(np.asarray(c, np.float64)) @ self.axes


@dataclass(frozen=True, eq=False)
class TurnedPlane:
    """A plane through an axis, turned about it to hold each draw.

    The second coordinate is the length of a draw across the axis, positive on one side of it: of
    noise of any dimension, both coordinates' squares sum to ‖n‖².

    Attributes
    ----------
    axis, side : ndarray of float64, shape (width,)
        Orthonormal; draws with ⟨n, side⟩ ≥ 0 have a positive second coordinate.
    """

    axis: Floats
    side: Floats

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, width) falls, shape (draws, 2)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        along = noise @ self.axis
        across = np.linalg.norm(noise - along[:, np.newaxis] * self.axis, axis=1)
        return np.stack([along, np.where(noise @ self.side >= 0, across, -across)], axis=1)


@dataclass(frozen=True, eq=False)
class GainCurve:
    """Of a single neuron: its noise, and the gain of that in nats."""

    point: Point

    def coordinates(self, n: ArrayLike) -> Floats:
        """Return where noise (draws, 1) falls, shape (draws, 2)."""
        noise = np.atleast_2d(np.asarray(n, np.float64))
        return np.stack([noise[:, 0], self.point.gain(noise)], axis=1)


def _unit(vector: Floats, others: Floats) -> Floats:
    """Return the direction of ``vector`` across orthonormal ``others``; an axis where it is 0."""
    axes = np.eye(min(vector.size, len(others) + 1), vector.size)  # one of them is not in `others`
    for candidate in (vector, *axes):
        rest = candidate / (np.abs(candidate).max() or 1.0)
        for _ in range(2):  # once more for what rounding left of the others
            rest = rest - (rest @ others.T) @ others
        length = float(np.linalg.norm(rest))
        if length > 1e-9:
            return np.asarray(rest / length)
    raise ShapeError(f"a plane needs at least 2 neurons, got {vector.size}")


# -- where the gain is ≥ 0 ------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class HalfPlane:
    """Coordinates c with ⟨c, normal⟩ ≥ 0; all of them where the normal is 0."""

    normal: Floats

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray(np.asarray(c) @ self.normal >= 0)


@dataclass(frozen=True, eq=False)
class Corner:
    """Coordinates c with cᵢ slopeᵢ ≥ 0 for both i."""

    slope: Floats

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray((np.asarray(c) * self.slope >= 0).all(axis=1))


@dataclass(frozen=True, eq=False)
class Disc:
    """Coordinates at most ``radius`` from ``centre``."""

    centre: Floats
    radius: float

    def contains(self, c: ArrayLike) -> NDArray[np.bool_]:
        """Say which coordinates (draws, 2) lie in it."""
        return np.asarray(np.linalg.norm(np.asarray(c) - self.centre, axis=1) <= self.radius)


Region = HalfPlane | Corner | Disc
