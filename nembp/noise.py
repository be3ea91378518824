"""NEM noise: draws, annealing, screening and the controls.

Noise n on a direction's target t is kept where it does not make the target less probable,
gain(n) = log p(t+n) − log p(t) ≥ 0, sample by sample: the sufficient form of the noisy
expectation-maximization condition E[gain] ≥ 0 (Osoba, Mitaim, Kosko 2013; Audhkhasi, Osoba,
Kosko 2016, theorems 1-3). One routine screens for every likelihood, since it needs only
``gain_terms``. The controls differ from NEM noise in one respect each:

========= ================================================================================
kind      what is added to the target
========= ================================================================================
``nem``   draws with gain ≥ 0
``blind`` the same draws, unscreened
``anti``  draws with gain ≤ 0
``drift`` the mean of the NEM noise without its randomness
``none``  nothing
========= ================================================================================
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Literal

from nembp.backend import Array, Backend
from nembp.errors import ArchitectureError
from nembp.likelihoods import Likelihood, Multinomial, Readout
from nembp.noise_curvature import spread_by_curvature
from nembp.noise_settings import Kind, Noise

__all__ = ["DRIFT_DRAWS", "Kind", "Noise", "NoiseSource"]

DRIFT_DRAWS = 64  # draws averaged where the mean of the kept noise has no closed form


@dataclass
class NoiseSource:
    """Draws and screens the noise of one direction into its own buffers.

    Parameters
    ----------
    noise : Noise
        What to draw.
    likelihood : Likelihood
        Of the direction whose target receives the noise.
    backend, rows, width, dtype
        Of the target.
    generator : object
        The backend's generator of this direction's own stream.

    Attributes
    ----------
    n : array, shape (rows, width)
        The noise after screening.
    accepted, gain : array, shape (1, 1)
        Share of kept draws (of samples or of neurons), and mean gain in nats a sample.
    zero_sum : bool
        Whether draws are projected to sum zero.
    deviation : array, shape (1,), or None
        σₜ on the device, which takes the place of the number that a call is given: a captured step
        finds that of its turn there (:mod:`nembp.replay`).
    """

    screens_target: ClassVar[bool] = True  # by ``likelihood``'s gain

    noise: Noise
    likelihood: Likelihood
    backend: Backend
    rows: int
    width: int
    dtype: str
    generator: Any
    n: Array = field(init=False)
    accepted: Array = field(init=False)
    gain: Array = field(init=False)
    zero_sum: bool = field(init=False)
    deviation: Array = field(init=False, default=None)

    def __post_init__(self) -> None:
        b, shape = self.backend, (self.rows, self.width)
        self.n = b.empty(shape, self.dtype)
        self.accepted = b.zeros((1, 1), self.dtype)
        self.gain = b.zeros((1, 1), self.dtype)
        self._terms = b.empty(shape, self.dtype)  # whose sum over neurons is a sample's gain
        self._component = self.screening == "component"
        screened = shape if self._component else (self.rows, 1)  # what is kept or dropped
        self._score = self._terms if self._component else b.empty(screened, self.dtype)
        self._mask = b.empty(screened, "bool")  # score ≥ 0
        self._sign = b.empty(screened, self.dtype)
        self._row_ones = b.ones((1, self.rows), self.dtype)
        self._columns = b.ones((self.width, 1), self.dtype)
        self._column = b.empty((self.rows, 1), self.dtype)
        balanced = self.noise.update == "zero-sum"
        self.zero_sum = balanced and isinstance(self.likelihood, Multinomial)
        if self.zero_sum and self._component and self.noise.kind != "blind":
            raise ArchitectureError(
                "zero-sum noise on a softmax target cannot be screened by component: dropping "
                "neurons undoes the sum of zero; use screening 'vector', or another update"
            )
        self._mean: Array = b.empty(shape, self.dtype) if self.noise.kind == "drift" else None
        self._several = self.noise.draws > 1 and self.noise.kind != "blind"
        if self._several:
            self._best, self._best_score = b.empty(shape, self.dtype), b.empty(screened, self.dtype)
            self._spare_mask = b.empty(screened, "bool")

    @property
    def screening(self) -> Literal["vector", "component", "expectation"]:
        """How draws are screened."""
        return self.noise.screening_for(self.likelihood)

    @cached_property
    def columns(self) -> tuple[Array, Array]:
        """A row each: the share kept and the gain, for a device that screens in one pass."""
        return self._column, self.backend.empty((self.rows, 1), self.dtype)

    def __call__(self, o: Readout, t: Array, std: float) -> Array:
        """Return noise for target ``t`` under the readout ``o``, at standard deviation ``std``."""
        std = std if self.deviation is None else self.deviation
        plain = not self._several and self.noise.law != "curvature"
        if plain and self.backend.draw_and_screen(self, o, t, std):
            return self.n
        if self.noise.kind == "drift":
            self._drift(o, t, std)
        else:
            self._offer(o, t, std)
        return self.n

    def _offer(self, o: Readout, t: Array, std: float) -> None:
        """Draw and screen once, or several times and take the best of each sample or neuron."""
        self._draw(o, t, std)
        self._screen(o, t)
        if not self._several:
            return
        b, xp = self.backend, self.backend.xp
        self._remember(o, t)
        for _ in range(self.noise.draws - 1):
            self._draw(o, t, std)
            self._screen(o, t)
            self._measure(o, t)
            # each of the two becomes 0 where the other is better, so their sum is the better one
            b.into(self._mask, xp.greater_equal, self._best_score, self._score)
            b.into(self._spare_mask, xp.logical_not, self._mask)
            b.keep(self._best, self._mask)
            b.keep(self.n, self._spare_mask)
            b.into(self.n, xp.add, self.n, self._best)
            self._remember(o, t)
        self._note_kept(o, t)

    def _remember(self, o: Readout, t: Array) -> None:
        """Keep ``n`` and its gain as the best so far."""
        self._measure(o, t)
        self.backend.copy(self.n, self._best)
        self.backend.copy(self._score, self._best_score)

    def _note_kept(self, o: Readout, t: Array) -> None:
        """Record the share of samples or neurons that have noise, and the mean gain."""
        b, xp = self.backend, self.backend.xp
        if self._component:
            b.into(self._mask, xp.not_equal, self.n, 0.0)
        else:
            b.row_dot(self.n, self.n, self._column)
            b.into(self._mask, xp.not_equal, self._column, 0.0)
        b.cast(self._mask, self._sign)
        self._average(self._sign, self.accepted)
        self._record_gain(o, t)

    def _draw(self, o: Readout, t: Array, std: float) -> None:
        """Fill ``n`` with unscreened noise of deviation σ = ``std``."""
        b, xp = self.backend, self.backend.xp
        if self.noise.law == "uniform":  # on ±√3 σ
            b.uniform(self.generator, self.n)
            b.into(self.n, xp.subtract, self.n, 0.5)
            self._spread(2.0 * math.sqrt(3.0), std)
        else:
            b.normal(self.generator, self.n)
            self._spread(1.0, std)
            if self.noise.law == "curvature":
                spread_by_curvature(self.likelihood, o, self.n, self._terms, self._column)
        self._shape(t, self.n)

    def _spread(self, c: float, std: float | Array) -> None:
        """Multiply ``n`` by c σ."""
        b, xp = self.backend, self.backend.xp
        if self.deviation is None:
            b.into(self.n, xp.multiply, self.n, c * std)
        else:
            b.into(self.n, xp.multiply, self.n, c)
            b.into(self.n, xp.multiply, self.n, std)

    def _shape(self, t: Array, n: Array) -> None:
        """Make draws effective additive noise: times t, and projected to sum zero."""
        if self.noise.mode == "multiplicative":
            self.backend.into(n, self.backend.xp.multiply, n, t)
        if self.zero_sum:
            self._project(n)

    def _project(self, n: Array) -> None:
        """Subtract each row's mean: n ← (I − 1 1ᵀ/d) n, d the width."""
        b, xp = self.backend, self.backend.xp
        b.row_sum(n, self._column)
        b.into(self._column, xp.multiply, self._column, 1.0 / self.width)
        b.into(n, xp.subtract, n, self._column)

    def _screen(self, o: Readout, t: Array) -> None:
        """Keep the draws that the kind asks for, and record the share kept and the mean gain."""
        b, xp = self.backend, self.backend.xp
        self._mask[...] = True
        if self.noise.kind != "blind":
            if self.noise.rejected == "reflect":
                self._measure(o, t)
                b.into(self._mask, xp.greater_equal, self._score, 0.0)
                b.cast(self._mask, self._sign)  # 2 · mask − 1: copysign takes three times as long
                b.into(self._sign, xp.multiply, self._sign, 2.0)
                b.into(self._sign, xp.subtract, self._sign, 1.0)
                b.into(self.n, xp.multiply, self.n, self._sign)
            self._measure(o, t)
            b.into(self._mask, xp.greater_equal, self._score, 0.0)
            b.keep(self.n, self._mask)
        b.cast(self._mask, self._sign)
        self._average(self._sign, self.accepted)
        self._record_gain(o, t)

    def _measure(self, o: Readout, t: Array) -> None:
        """Write the score, which is to be ≥ 0: the gain of each sample, neuron or batch.

        Negated for anti-NEM noise.
        """
        b, xp = self.backend, self.backend.xp
        self._score_gain(o, t)
        if self.noise.kind == "anti":
            b.into(self._score, xp.negative, self._score)
        if self.screening == "expectation":
            self._average(self._score, self.gain)
            self._score[...] = self.gain

    def _score_gain(self, o: Readout, t: Array) -> None:
        """Write the gain of each sample or neuron into ``_score``."""
        self.likelihood.gain_terms(o, t, self.n, self._terms)
        if not self._component:
            self.backend.row_sum(self._terms, self._score)

    def _record_gain(self, o: Readout, t: Array) -> None:
        """Write the mean gain of a sample, which is width times that of a neuron, into ``gain``."""
        self.likelihood.gain_terms(o, t, self.n, self._terms)
        self._average(self._terms, self.gain)
        self.backend.into(self.gain, self.backend.xp.multiply, self.gain, float(self.width))

    def _average(self, x: Array, out: Array) -> None:
        """Write the mean over all entries of ``x`` into ``out`` (1, 1)."""
        b = self.backend
        if x.shape[1] == 1:
            b.matmul(self._row_ones, x, out)
        else:
            b.matmul(x, self._columns, self._column)
            b.matmul(self._row_ones, self._column, out)
        b.into(out, b.xp.multiply, out, 1.0 / (x.shape[0] * x.shape[1]))

    # -- the mean of the kept noise ------------------------------------------------------------
    def _drift(self, o: Readout, t: Array, std: float) -> None:
        """Write E[n | kept] into ``n``, by its formula where it has one; no draw is accepted."""
        linear = self.likelihood.gain_is_linear and self.screening == "vector"
        if linear and not self._several and self.noise.law == "gaussian":
            self._half_space_mean(o, t, std)
        else:
            self._sampled_mean(o, t, std)
        self.backend.into(self.accepted, self.backend.xp.multiply, self.accepted, 0.0)
        self._record_gain(o, t)

    def _half_space_mean(self, o: Readout, t: Array, std: float) -> None:
        """E[n | kept] of n = S ξ, ξ ~ N(0, σ²I), kept where ⟨n, w⟩ ≥ 0: c σ S Sᵀw / ‖Sᵀw‖.

        c = √(2/π) when rejected draws are reflected (a half-normal), 1/√(2π) when they are set
        to zero. S is the map of ``_shape``: diag(t), the zero-sum projection, or neither.
        """
        b, xp = self.backend, self.backend.xp
        self.likelihood.gain_slope(o, t, self.n)
        if self.zero_sum:  # Sᵀ = diag(t) P projects first
            self._project(self.n)
        if self.noise.mode == "multiplicative":
            b.into(self.n, xp.multiply, self.n, t)
        b.row_dot(self.n, self.n, self._column)
        tiny = 1e-30  # where w = 0 every draw is kept, and the mean is zero
        b.into(self._column, xp.add, self._column, tiny)
        b.into(self._column, xp.sqrt, self._column)
        b.into(self.n, xp.divide, self.n, self._column)
        c = math.sqrt(2.0 / math.pi) * (1.0 if self.noise.rejected == "reflect" else 0.5)
        self._spread(c, std)
        self._shape(t, self.n)

    def _sampled_mean(self, o: Readout, t: Array, std: float) -> None:
        """Write the mean of `DRIFT_DRAWS` screened draws into ``n``."""
        b, xp = self.backend, self.backend.xp
        self._mean[...] = 0.0
        for _ in range(DRIFT_DRAWS):
            self._offer(o, t, std)
            b.into(self._mean, xp.add, self._mean, self.n)
        b.into(self.n, xp.multiply, self._mean, 1.0 / DRIFT_DRAWS)
