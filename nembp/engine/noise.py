"""What noise is asked for: `Noise`, whose words the command line and the configuration share.

Noise matched to a likelihood's curvature: large where the output is undecided.

The curvature −∂² log p/∂z∂zᵀ of an output is, but for the precision or weight in front,

    multinomial  C = diag(a) − a aᵀ,    Bernoulli  C = diag(a ∘ (1 − a)),    Gaussian  C = I,

which is also the covariance of a target drawn from the output itself. Noise n = S ξ with ξ normal
and S Sᵀ = C, S = diag(√a) − a √aᵀ for the multinomial, is spread like the model's own doubt: none
on classes that are ruled out, none on samples that are certain. For a softmax it sums to zero, so
that exact and published update are one. It is screened like any other, so the NEM condition
gain(n) ≥ 0 holds; under the multinomial's half-space its mean leans along C log a, the gradient of
the output's negative entropy by z.

NEM noise: draws, annealing, screening and the controls.

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

NEM noise on signals: at a direction's input, or in its hidden layers.

Noise n on the signal aᵏ of layer k is kept where it does not make the target less probable,

    gain(n) = log p(t | aᵏ + n) − log p(t | aᵏ) ≥ 0,

sample by sample: the likelihood-ratio form of the noisy expectation-maximization condition with
the layer's signal as the hidden data (Audhkhasi, Osoba, Kosko, Neural Networks 78:15-23, 2016,
section 4). The remaining layers run again to find it, so a noisy layer costs one forward run of
the layers above it, two with reflection. Where several layers are noisy the gain of each is taken
with the noise of those before it in place.

The step then trains with aᵏ + n in place of aᵏ: it is what the next linear map sees, in its signal and
in its gradient; the derivative f' stays that of aᵏ itself, for n is no part of the activation.

A normalized layer's statistics are those of the batch's signals without noise while noise is
screened, so that a sample's gain depends on its own noise alone.

Weights have no noise of their own. Noise M on a linear map reaches the layer above as aᵏ M, which is
noise on its signals that all samples of a batch share, so the theorem could only be met by the mean
gain of the batch (as signals do with screening "expectation"): one decision for 10⁵ numbers, of
which what is kept leans towards the gradient by 0.8 σ and wanders by σ √10⁵ elsewhere. That is a
longer step with blind noise on it, and a longer step is what every claim here is controlled for.
And both directions go through the same W in the same products (:mod:`nembp.engine.backprop`), so that noise
meant for one would disturb the other or cost its products anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, ClassVar, Literal, get_args

from nembp.backend import Array, Backend
from nembp.engine.batchnorm import grouped_normalizers
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, Readout
from nembp.engine.network import Network, add_bias
from nembp.errors import ArchitectureError

Kind = Literal["none", "nem", "blind", "anti", "drift"]
Clock = Literal["epoch", "iteration"]
Law = Literal["gaussian", "uniform", "curvature"]
Mode = Literal["additive", "multiplicative"]
Screening = Literal["auto", "vector", "component", "expectation"]
Rejected = Literal["zero", "reflect"]
Update = Literal["exact", "published", "zero-sum"]


@dataclass(frozen=True)
class Noise:
    """What noise one direction's target receives.

    Parameters
    ----------
    kind : {"none", "nem", "blind", "anti", "drift"}
        NEM noise or one of its controls.
    std : float
        σ₀, the standard deviation of the first draw, in units of the target.
    decay, clock : float, {"iteration", "epoch"}
        σₜ = σ₀ / tᵈ with d = ``decay`` and t counted from 1 in iterations or epochs.
    law : {"gaussian", "uniform", "curvature"}
        Distribution of the draws: of standard deviation σₜ, or on targets normal with σₜ² times the
        curvature of the likelihood as covariance (:mod:`nembp.engine.noise`).
    mode : {"additive", "multiplicative"}
        t + n, or t (1 + n), whose effective additive noise t n passes the same test.
    screening : {"auto", "vector", "component", "expectation"}
        Keep or drop whole samples by their gain, single neurons by their summand of it, or a whole
        batch by its mean gain, which is the NEM theorem's own condition E[gain] ≥ 0.
        ``auto`` is ``component`` for the Gaussian (in hundreds of dimensions its ball accepts
        almost no whole vector) and ``vector`` for the half-spaces.
    rejected : {"reflect", "zero"}
        Try −n before a rejected draw becomes 0, or set it to 0 at once.
    update : {"exact", "published", "zero-sum"}
        Softmax targets with noise need not sum to one: the exact error a Σ(t+n) − (t+n), the
        published a − (t+n), or noise projected to sum zero. The other likelihoods have one error.
    draws : int
        Draws of each sample, screened one by one, of which the one with the largest gain is taken
        (for ``anti``, with the least): n = argmax_j gain(n_j), so that the noise leans further
        towards the target. Each of them has gain ≥ 0, hence E[gain] ≥ 0 as the theorem asks.
        ``blind`` noise is one draw whatever this is, since choosing by gain is screening.

    Raises
    ------
    ArchitectureError
        If an option is not one of those above, or ``std`` or ``decay`` is negative.

    >>> Noise("nem", std=0.2, decay=0.5).std_at(epoch=1, iteration=4)
    0.1
    """

    kind: Kind = "none"
    std: float = 0.1
    decay: float = 1.0
    clock: Clock = "iteration"
    law: Law = "gaussian"
    mode: Mode = "additive"
    screening: Screening = "auto"
    rejected: Rejected = "reflect"
    update: Update = "exact"
    draws: int = 1

    def __post_init__(self) -> None:
        choices = {
            "kind": Kind,
            "clock": Clock,
            "law": Law,
            "mode": Mode,
            "screening": Screening,
            "rejected": Rejected,
            "update": Update,
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in get_args(allowed):
                options = ", ".join(get_args(allowed))
                raise ArchitectureError(
                    f"noise {name} must be one of {options}, got {getattr(self, name)!r}"
                )
        for name in ("std", "decay"):
            value: float = getattr(self, name)
            if not isinstance(value, Real) or not (0.0 <= float(value) < math.inf):
                raise ArchitectureError(f"noise {name} must be a finite number ≥ 0, got {value!r}")

        if not isinstance(self.draws, int) or self.draws < 1:
            raise ArchitectureError(f"noise draws must be a whole number ≥ 1, got {self.draws!r}")

    def std_at(self, epoch: int, iteration: int) -> float:
        """Return σₜ for the epoch and iteration, both counted from 1."""
        t = epoch if self.clock == "epoch" else iteration
        return self.std / math.pow(t, self.decay)

    def screening_for(
        self, likelihood: Likelihood
    ) -> Literal["vector", "component", "expectation"]:
        """Return how samples are screened under ``likelihood``."""
        if self.screening != "auto":
            return self.screening
        return "component" if isinstance(likelihood, Gaussian) else "vector"


def spread_by_curvature(
    likelihood: Likelihood, o: Readout, n: Array, scratch: Array, column: Array
) -> None:
    """Turn n into S n, whose covariance is C where that of n was the identity.

    Parameters
    ----------
    likelihood, o : Likelihood, Readout
        Of the target, with its activation a.
    n : array, shape (rows, width)
        Changed in place.
    scratch, column : array, shapes (rows, width) and (rows, 1)
        Work space.

    Raises
    ------
    ArchitectureError
        If the likelihood is none of the three whose curvature is known here.

    >>> import numpy as np
    >>> o = Multinomial().at(np.log([[0.5, 0.5, 1e-30]]))
    >>> n = np.array([[1.0, 3.0, 7.0]])
    >>> spread_by_curvature(Multinomial(), o, n, np.empty((1, 3)), np.empty((1, 1)))
    >>> n.round(4).tolist()
    [[-0.7071, 0.7071, 0.0]]
    """
    b, xp = o.backend, o.backend.xp
    if isinstance(likelihood, Gaussian):
        return
    if isinstance(likelihood, Bernoulli):
        b.into(scratch, xp.subtract, 1.0, o.a)
        b.into(scratch, xp.multiply, scratch, o.a)
        b.into(scratch, xp.sqrt, scratch)
        b.into(n, xp.multiply, n, scratch)
    elif isinstance(likelihood, Multinomial):
        b.into(scratch, xp.sqrt, o.a)
        b.into(n, xp.multiply, n, scratch)
        b.row_sum(n, column)
        b.into(scratch, xp.multiply, o.a, column)
        b.into(n, xp.subtract, n, scratch)
    else:
        raise ArchitectureError(
            f"noise law curvature knows multinomial, bernoulli and gaussian targets, not "
            f"{likelihood!r}; use law gaussian or uniform"
        )


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
        finds that of its turn there (:mod:`nembp.engine.training`).
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


PLACES = ("input", "hidden", "last-hidden")


def noisy_layers(net: Network, place: str) -> list[int]:
    """Return the layers that a place names, counted from the direction's own input.

    Parameters
    ----------
    net : Network
        Seen from the direction.
    place : {"input", "hidden", "last-hidden"}
        ``hidden`` is every hidden layer with an activation, so not what pools or reshapes.

    Raises
    ------
    ArchitectureError
        If the place is none of these, or the network has no hidden layer to be noisy.

    >>> from nembp.engine.network import dense_network
    >>> noisy_layers(dense_network([4, 5, 6, 3]), "hidden")
    [1, 2]
    """
    if place not in PLACES:
        raise ArchitectureError(
            f"noise place must be target or one of {', '.join(PLACES)}, got {place!r}"
        )
    if place == "input":
        return [0]
    last = len(net.maps)
    hidden = [k for k in range(1, last) if net.layers[k].activation is not None]
    if not hidden:
        raise ArchitectureError(
            f"noise place {place} needs a hidden layer, and this network has none; "
            "use target or input, or add hidden layers"
        )
    return hidden if place == "hidden" else hidden[-1:]


class LayerNoise(NoiseSource):
    """Draws and screens the noise of one layer's signal.

    Parameters
    ----------
    trial : SignalNoise
        Whose signals these are.
    layer : int
        Counted from the direction's own input.
    """

    screens_target = False

    def __init__(self, trial: SignalNoise, layer: int, noise: Noise, generator: Any) -> None:
        if noise.screening == "component":
            raise ArchitectureError(
                "noise on signals is screened by whole samples: one neuron's share of the gain "
                "is not its own; use screening auto, vector or expectation"
            )
        if noise.law == "curvature":
            raise ArchitectureError(
                "noise law curvature is that of a target's likelihood, which signals have none of; "
                "use law gaussian or uniform"
            )
        self._trial, self._layer = trial, layer
        net = trial.net
        width = net.layers[layer].size
        super().__init__(
            noise, net.likelihood, net.backend, trial.rows, width, net.dtype, generator
        )
        self.zero_sum = False  # a matter of softmax targets

    def draw(self, std: float) -> None:
        """Fill ``n`` for the signal that the trial now has at this layer."""
        self(self._trial.readout, self._trial.signals[self._layer], std)

    @property
    def name(self) -> str:
        """Its place and number, for records."""
        place = self._trial.places[self._layer]
        return place if place == "input" else f"{place}-{self._layer}"

    @property
    def screening(self) -> Literal["vector", "component", "expectation"]:
        """How draws are screened: by whole samples or batches."""
        return "expectation" if self.noise.screening == "expectation" else "vector"

    def _score_gain(self, o: Readout, t: Array) -> None:
        self._write_gain(self._score)

    def _record_gain(self, o: Readout, t: Array) -> None:
        self._write_gain(self._column)
        self._average(self._column, self.gain)

    def _write_gain(self, out: Array) -> None:
        trial, b = self._trial, self.backend
        b.into(out, b.xp.subtract, trial.log_likelihood_with(self._layer, self.n), trial.clean)

    def _drift(self, o: Readout, t: Array, std: float) -> None:
        self._sampled_mean(o, t, std)
        self.backend.into(self.accepted, self.backend.xp.multiply, self.accepted, 0.0)
        self._record_gain(o, t)


class SignalNoise:
    """The noise of one direction's signals, for a fixed number of rows.

    Parameters
    ----------
    net : Network
        Seen from the direction.
    rows : int
        Samples in a batch.
    noise : mapping of str to Noise
        By place.
    generators : mapping of str to generator
        Of each place's own stream.
    groups : sequence of int, optional
        Rows that normalized layers take statistics of together; all of them by default.

    Attributes
    ----------
    n : dict of array
        After a call: the screened noise of each noisy layer, counted from the direction's input.
    sources : dict of LayerNoise
        By layer, with their share accepted and mean gain.
    nll : array, shape (1, 1)
        Mean −log p(t) of the signals without noise, in nats, after a call.
    """

    def __init__(
        self,
        net: Network,
        rows: int,
        noise: Mapping[str, Noise],
        generators: Mapping[str, Any],
        groups: Sequence[int] | None = None,
    ) -> None:
        self.net, self.rows = net, rows
        backend, dtype = net.backend, net.dtype
        sizes = [layer.size for layer in net.layers]
        self.readout = Readout.allocate(backend, rows, sizes[-1], dtype)
        self.clean = backend.empty((rows, 1), dtype)  # log p(t) of what the signals now are
        self.signals = [backend.empty((rows, size), dtype) for size in sizes[:-1]]
        self._tried = [backend.empty((rows, size), dtype) for size in sizes[:-1]]
        self._scratch = backend.empty((rows * max(sizes),), dtype)
        self._links = [linear_map.link(backend, (rows,), dtype) for linear_map in net.maps]
        self._normalizers = grouped_normalizers(net, rows, groups)
        self._target: Array = None
        self.nll = backend.zeros((1, 1), dtype)
        self._ones = backend.ones((1, rows), dtype)
        self.places: dict[int, str] = {}
        self.sources: dict[int, LayerNoise] = {}
        for place, each in noise.items():
            for layer in noisy_layers(net, place):
                if layer in self.sources:
                    raise ArchitectureError(
                        f"noise places {self.places[layer]} and {place} both name layer {layer}"
                    )
                self.places[layer] = place
                self.sources[layer] = LayerNoise(self, layer, each, generators[place])
        self.n = {layer: source.n for layer, source in self.sources.items()}
        # the step's signals without their noise: derivatives are taken there
        self.without = {k: backend.empty((rows, sizes[k]), dtype) for k in self.sources}

    def __call__(self, x: Array, t: Array, epoch: int, iteration: int) -> None:
        """Draw and screen the noise for a batch: ``x`` and ``t`` of this direction."""
        backend, xp = self.net.backend, self.net.backend.xp
        self._target = t
        for link, W in zip(self._links, self.net.weights, strict=True):
            link.load(W)
        backend.copy(x, self.signals[0])
        self._run(0, self.signals, held=False)
        self._keep_log_likelihood()
        backend.matmul(self._ones, self.clean, self.nll)
        backend.into(self.nll, xp.multiply, self.nll, -1.0 / self.rows)
        layers = sorted(self.sources)
        for layer in layers:
            source = self.sources[layer]
            source.draw(source.noise.std_at(epoch, iteration))
            if layer != layers[-1]:  # the next ones see this noise
                backend.into(self.signals[layer], xp.add, self.signals[layer], source.n)
                self._run(layer, self.signals)
                self._keep_log_likelihood()

    def disturb(self, layer: int, signal: Array, start: int, stop: int) -> None:
        """Add its noise to rows of the step's signal of a layer, where the layer has any."""
        if layer in self.n:
            backend, xp, rows = self.net.backend, self.net.backend.xp, signal[start:stop, :]
            backend.copy(rows, self.without[layer][start:stop, :])
            backend.into(rows, xp.add, rows, self.n[layer][start:stop, :])

    def log_likelihood_with(self, layer: int, n: Array) -> Array:
        """Return log p(t) (rows, 1) with noise ``n`` on the signal of one layer."""
        backend = self.net.backend
        backend.into(self._tried[layer], backend.xp.add, self.signals[layer], n)
        self._run(layer, self._tried)
        return self.net.likelihood.log_likelihood(self.readout, self._target)

    def _keep_log_likelihood(self) -> None:
        backend = self.net.backend
        value = self.net.likelihood.log_likelihood(self.readout, self._target)
        backend.copy(value, self.clean)

    def _run(self, start: int, signals: list[Array], *, held: bool = True) -> None:
        """Run the layers above ``start`` from its signal to the readout.

        Normalized by their statistics, or with ``held`` by those of the last call without it.
        """
        net, last = self.net, len(self._links)
        for k in range(start + 1, last + 1):
            z = self.readout.z if k == last else signals[k]
            self._links[k - 1].forward(signals[k - 1], z)
            if (normalizer := self._normalizers[k]) is not None:
                normalizer.forward(z, held=held)
            layer, b = net.layers[k], net.biases[k]
            if net.backend.add_bias_activate(layer.activation, z, b if layer.biases else None):
                continue
            add_bias(net.backend, z, b, layer)
            if layer.activation is not None:
                flat = self._scratch[: self.rows * layer.size]
                scratch = net.backend.xp.reshape(flat, (self.rows, layer.size))
                layer.activation.activate(net.backend, z, scratch)
        net.likelihood.link(self.readout)


def signal_noise(
    net: Network,
    rows: int,
    noise: Mapping[str, Noise] | None,
    generators: Mapping[str, Any] | None,
    groups: Sequence[int] | None = None,
) -> SignalNoise | None:
    """Return the noise of a direction's signals, or None where none is asked for.

    ``noise`` and ``generators`` are keyed by direction and place, as in ``"forward/hidden"``;
    ``groups`` as in `SignalNoise`.
    """
    prefix = f"{net.direction}/"
    places = {
        key.removeprefix(prefix): each
        for key, each in (noise or {}).items()
        if key.startswith(prefix) and each.kind != "none"
    }
    if not places:
        return None
    streams = {k: (generators or {})[prefix + k] for k in places}
    return SignalNoise(net, rows, places, streams, groups)
