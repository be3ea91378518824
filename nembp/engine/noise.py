"""NEM noise: draws, annealing, screening and the controls; on targets, and on signals.

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

Noise n on the signal aᵏ of layer k (the input, or a hidden layer) is kept where

    gain(n) = log p(t | aᵏ + n) − log p(t | aᵏ) ≥ 0,

the likelihood-ratio form of the same condition with the layer's signal as the hidden data
(Audhkhasi, Osoba, Kosko 2016, section 4): the layers above run again to find it. The step then
trains with aᵏ + n in place of aᵏ; the derivative f' stays that of aᵏ itself, for n is no part of
the activation. Weights have no noise of their own: noise M on a linear map reaches the layer above
as aᵏ M, which all samples share, so that only a whole batch could be screened, and both directions
go through the same W.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from numbers import Real
from typing import Any, ClassVar, Literal, get_args, get_type_hints

from nembp.backend import Array, Backend
from nembp.engine.likelihoods import Bernoulli, Gaussian, Likelihood, Multinomial, Readout
from nembp.engine.network import LayerSide, Network
from nembp.errors import ArchitectureError, check_choice

Kind = Literal["none", "nem", "blind", "anti", "drift"]
Clock = Literal["epoch", "iteration"]
Law = Literal["gaussian", "uniform", "curvature"]
Mode = Literal["additive", "multiplicative"]
Screening = Literal["auto", "vector", "component", "expectation"]
Rejected = Literal["zero", "reflect"]
Update = Literal["exact", "published", "zero-sum"]

DRIFT_DRAWS = 64  # draws averaged where the mean of the kept noise has no closed form
PLACES = ("input", "hidden", "last-hidden")  # of noise on signals
NAMES = [*map("".join, product(("forward", "backward"), ("", *(f"/{p}" for p in PLACES))))]


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
        curvature of the likelihood as covariance, C = −∂² log p/∂z∂zᵀ but for the precision or
        weight in front, which is also the covariance of a target drawn from the output itself:
        so the noise is large where the output is undecided.
    mode : {"additive", "multiplicative"}
        t + n, or t (1 + n), whose effective additive noise t n passes the same test.
    screening : {"auto", "vector", "component", "expectation"}
        Keep or drop whole samples by their gain, single units by their summand of it, or a whole
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
        for name, hint in get_type_hints(Noise).items():
            if options := get_args(hint):
                check_choice(f"noise {name}", getattr(self, name), options)
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

    def screening_for(self, likelihood: Likelihood) -> Screening:
        """Return how samples are screened under ``likelihood``."""
        if self.screening != "auto":
            return self.screening
        return "component" if isinstance(likelihood, Gaussian) else "vector"


def noise_that_acts(noise: Mapping[str, Noise] | None) -> dict[str, Noise]:
    """Return the noise by place, without places of kind "none".

    An ArchitectureError refuses what is no mapping of known places to noise.
    """
    noise = {} if noise is None else noise
    example = 'expected a dict such as {"forward": Noise("nem")}'
    if not isinstance(noise, Mapping):
        raise ArchitectureError(f"noise is {noise!r:.80}; {example}")
    for place, each in noise.items():
        if place not in NAMES:
            raise ArchitectureError(
                f"no place for noise is called {place!r}; there are {', '.join(NAMES)}"
            )
        if not isinstance(each, Noise):
            raise ArchitectureError(f"noise of {place} is {each!r:.80}; {example}")
    return {place: each for place, each in noise.items() if each.kind != "none"}


class NoiseSource:
    """Draws and screens the noise of a direction's target (rows, width) into its own buffers.

    ``generator`` is the backend's, of this direction's own stream.
    """

    kernel: ClassVar[str | None] = "draw_and_screen"  # of a device that does it in one pass

    def __init__(
        self,
        noise: Noise,
        likelihood: Likelihood,
        backend: Backend,
        rows: int,
        width: int,
        dtype: str,
        generator: Any,
        screening: Screening | None = None,
    ) -> None:
        self.noise, self.likelihood, self.backend = noise, likelihood, backend
        self.generator, self.units = generator, width  # units: terms of a sample's gain
        self.screening = screening or noise.screening_for(likelihood)  # how draws are screened
        self.std: Any = noise.std  # σₜ of the next draw; of a captured step (1,), on the device
        self.zero_sum = noise.update == "zero-sum" and isinstance(likelihood, Multinomial)
        self.draws = 1 if noise.kind == "blind" else noise.draws
        by_component = self.screening == "component"
        if self.zero_sum and by_component and noise.kind != "blind":
            raise ArchitectureError(
                "zero-sum noise on a softmax target cannot be screened by component: dropping "
                "units undoes the sum of zero; use screening 'vector', or another update"
            )
        b, shape = backend, (rows, width)
        self.n = b.empty(shape, dtype)  # the noise after screening
        # share of kept draws (of samples or of units), and mean gain in nats a sample
        self.accepted, self.gain = b.zeros((1, 1), dtype), b.zeros((1, 1), dtype)
        self._terms = b.empty(shape, dtype)  # whose sum over units is a sample's gain
        screened = shape if by_component else (rows, 1)  # what is kept or dropped
        self._score = self._terms if by_component else b.empty(screened, dtype)
        self._kept = b.empty(screened, dtype)  # 1 where the score is ≥ 0, else 0
        self._column = b.empty((rows, 1), dtype)
        self._mean, self._best = (b.empty(shape, dtype) for _ in range(2))
        self._best_score = b.empty(screened, dtype)

    def __call__(self, o: Readout, t: Array) -> Array:
        """Return noise of deviation ``std`` for target ``t`` under the readout ``o``."""
        if self.noise.kind == "drift":
            self._drift(o, t)
        else:
            self.backend.screen(self, o, t)
        return self.n

    def offer(self, o: Readout, t: Array) -> None:
        """Draw and screen once, or several times and take the best of each sample or unit."""
        b, xp, kept = self.backend, self.backend.xp, self._kept
        self._draw(o, t)
        for _ in range(1, self.draws):
            self._measure(o, t)
            self._best[...], self._best_score[...] = self.n, self._score
            self._draw(o, t)
            self._measure(o, t)
            # each of the two becomes 0 where the other is better, so their sum is the better one
            xp.greater_equal(self._best_score, self._score, out=kept)
            self._best *= kept
            xp.less(self._best_score, self._score, out=kept)
            self.n *= kept
            self.n += self._best
        if self.draws > 1:
            by_component = self.screening == "component"
            size = self.n if by_component else b.row_dot(self.n, self.n, self._column)
            xp.not_equal(size, 0.0, out=kept)
        self._average(kept, self.accepted)
        self._record_gain(o, t)

    # -- draws -----------------------------------------------------------------------------------
    def _draw(self, o: Readout, t: Array) -> None:
        """Fill ``n`` with noise of standard deviation σ = ``std``, and keep what the kind asks."""
        b, xp, law, kept = self.backend, self.backend.xp, self.noise.law, self._kept
        if law == "uniform":  # on ±√3 σ
            b.uniform(self.generator, self.n)
            self.n -= 0.5
            self._spread(2.0 * math.sqrt(3.0))
        else:
            b.normal(self.generator, self.n)
            self._spread(1.0)
        if law == "curvature":
            self._curve(o)
        self._shape(t)
        kept[...] = 1.0
        if self.noise.kind == "blind":
            return
        if self.noise.rejected == "reflect":
            self._measure(o, t)
            xp.greater_equal(self._score, 0.0, out=kept)
            kept *= 2.0  # 2 · kept − 1 is the sign: copysign takes thrice as long
            kept -= 1.0
            self.n *= kept
        self._measure(o, t)
        xp.greater_equal(self._score, 0.0, out=kept)
        self.n *= kept

    def _spread(self, c: float) -> None:
        """Multiply ``n`` by c σ."""
        if isinstance(self.std, float):
            self.n *= c * self.std
        else:
            self.n *= c
            self.n *= self.std

    def _curve(self, o: Readout) -> None:
        """Make n ← S n, whose covariance C = S Sᵀ is the likelihood's curvature at a.

        Bernoulli: C = diag(a ∘ (1 − a)); Gaussian: C = I; multinomial: C = diag(a) − a aᵀ with
        S = diag(√a) − a √aᵀ, so that the noise sums to zero.
        """
        xp, n, scratch = self.backend.xp, self.n, self._terms
        if isinstance(self.likelihood, Bernoulli):
            xp.multiply(o.a, -1.0, out=scratch)
            scratch += 1.0
            scratch *= o.a
            n *= xp.sqrt(scratch, out=scratch)
        elif isinstance(self.likelihood, Multinomial):
            n *= xp.sqrt(o.a, out=scratch)
            column = self.backend.row_sum(n, self._column)
            n -= xp.multiply(o.a, column, out=scratch)
        elif not isinstance(self.likelihood, Gaussian):
            raise ArchitectureError(
                "noise law curvature knows multinomial, bernoulli and gaussian targets, not "
                f"{self.likelihood!r}; use law gaussian or uniform"
            )

    def _shape(self, t: Array) -> None:
        """Make draws effective additive noise: times t, and projected to sum zero."""
        if self.noise.mode == "multiplicative":
            self.n *= t
        if self.zero_sum:
            self._project()

    def _project(self) -> None:
        """Subtract each row's mean: n ← (I − 1 1ᵀ/d) n, d the width."""
        column = self.backend.row_sum(self.n, self._column)
        column *= 1.0 / self.units
        self.n -= column

    # -- gains -----------------------------------------------------------------------------------
    def _measure(self, o: Readout, t: Array) -> None:
        """Write the score, which is to be ≥ 0: the gain of each sample, unit or batch.

        Negated for anti-NEM noise.
        """
        self._set_terms(o, t)
        if self._score is not self._terms:
            self.backend.row_sum(self._terms, self._score)
        if self.noise.kind == "anti":
            self._score *= -1.0
        if self.screening == "expectation":
            self._average(self._score, self.gain)
            self._score[...] = self.gain

    def _set_terms(self, o: Readout, t: Array) -> None:
        """Write the summands of each sample's gain into ``_terms``."""
        self.likelihood.gain_terms(o, t, self.n, self._terms)

    def _record_gain(self, o: Readout, t: Array) -> None:
        """Write the mean gain of a sample, the number of its terms times their mean."""
        self._set_terms(o, t)
        self._average(self._terms, self.gain)
        self.gain *= float(self.units)

    def _average(self, x: Array, out: Array) -> None:
        """Write the mean over all entries of ``x`` into ``out`` (1, 1)."""
        column = x if x.shape[1] == 1 else self.backend.row_sum(x, self._column)
        self.backend.sum_column(column, out, 1.0 / (x.shape[0] * x.shape[1]))

    # -- the mean of the kept noise --------------------------------------------------------------
    def _drift(self, o: Readout, t: Array) -> None:
        """Write E[n | kept] into ``n``, by its formula where it has one; no draw is accepted."""
        if not self._write_mean(o, t):
            self._mean[...] = 0.0
            for _ in range(DRIFT_DRAWS):
                self.offer(o, t)
                self._mean += self.n
            self.backend.xp.multiply(self._mean, 1.0 / DRIFT_DRAWS, out=self.n)
        self.accepted[...] = 0.0
        self._record_gain(o, t)

    def _write_mean(self, o: Readout, t: Array) -> bool:
        """Write E[n | kept] = c σ S Sᵀw / ‖Sᵀw‖ of n = S ξ, ξ ~ N(0, σ²I), kept where ⟨n, w⟩ ≥ 0.

        c = √(2/π) when rejected draws are reflected (a half-normal), 1/√(2π) when they are set
        to zero. S is the map of ``_shape``: diag(t), the zero-sum projection, or neither. False
        where the noise is another one.
        """
        half_space = self.likelihood.gain_is_linear and self.screening == "vector"
        if not half_space or self.noise.law != "gaussian" or self.draws > 1:
            return False
        self.likelihood.gain_slope(o, t, self.n)
        if self.zero_sum:  # Sᵀ = diag(t) P projects first
            self._project()
        if self.noise.mode == "multiplicative":
            self.n *= t
        norm = self.backend.row_dot(self.n, self.n, self._column)
        norm += 1e-30  # where w = 0 every draw is kept, and the mean is zero
        self.n /= self.backend.xp.sqrt(norm, out=norm)
        self._spread(math.sqrt(2.0 / math.pi) * (1.0 if self.noise.rejected == "reflect" else 0.5))
        self._shape(t)
        return True


# -- noise on signals ------------------------------------------------------------------------------
def noisy_layers(net: Network, place: str) -> list[int]:
    """Return the layers that one of `PLACES` names, counted from the direction's own input.

    ``hidden`` is every hidden layer with an activation, so not what pools or reshapes.

    >>> from nembp.engine.network import dense_network
    >>> noisy_layers(dense_network([4, 5, 6, 3]), "hidden")
    [1, 2]
    """
    if place == "input":
        return [0]
    hidden = [k for k in range(1, len(net.maps)) if net.layers[k].activation is not None]
    if not hidden:
        raise ArchitectureError(
            f"noise place {place} needs a hidden layer, and this network has none; "
            "use target or input, or add hidden layers"
        )
    return hidden if place == "hidden" else hidden[-1:]


class LayerNoise(NoiseSource):
    """Draws and screens the noise of one layer's signal, by whole samples.

    A sample's one term of the gain is log p(t | aᵏ + n) − log p(t | aᵏ), by ``signals``.
    """

    kernel = None

    def __init__(
        self, signals: SignalNoise, layer: int, place: str, noise: Noise, generator: Any
    ) -> None:
        if noise.screening == "component":
            raise ArchitectureError(
                "noise on signals is screened by whole samples: one unit's share of the gain "
                "is not its own; use screening auto, vector or expectation"
            )
        if noise.law == "curvature":
            raise ArchitectureError(
                "noise law curvature is that of a target's likelihood, which signals have none of; "
                "use law gaussian or uniform"
            )
        self._of, self._layer, self.place = signals, layer, place
        net, rows = signals.net, signals.rows
        self.name = f"{net.direction}/{place}" + (f"-{layer}" if layer else "")  # in records
        made = net.likelihood, net.backend, rows, net.layers[layer].size, net.dtype
        screening: Screening = "vector" if noise.screening == "auto" else noise.screening
        super().__init__(noise, *made, generator, screening)
        self._terms, self.units = self._score, 1
        self.zero_sum = False  # a matter of targets

    def draw(self) -> None:
        """Fill ``n`` for the signal that the layer now has."""
        self(self._of.readout, self._of.signals[self._layer])

    def _set_terms(self, o: Readout, t: Array) -> None:
        of, k, xp = self._of, self._layer, self.backend.xp
        xp.add(of.signals[k], self.n, out=of.tried[k])
        xp.subtract(of.run(k, of.tried), of.log_p, out=self._terms)

    def _write_mean(self, o: Readout, t: Array) -> bool:
        return False


class SignalNoise:
    """The noise of one direction's signals, for a fixed number of rows.

    Where several layers are noisy, the gain of each is taken with the noise of those before it in
    place. A normalized layer's statistics are those of the signals without noise while noise is
    screened, so that a sample's gain depends on its own noise alone; ``groups`` counts the rows
    that they are taken of together. ``noise`` and ``generators`` are keyed by direction and place,
    as in ``"forward/hidden"``; ``sources`` by layer, counted from the direction's input.
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
        self.sources: dict[int, LayerNoise] = {}
        self.readout = Readout(backend, rows, sizes[-1], dtype)
        self.log_p = backend.empty((rows, 1), dtype)  # of the target, as the signals now are
        self.signals, self.tried = (
            [backend.empty((rows, size), dtype) for size in sizes[:-1]] for _ in range(2)
        )
        scratch = backend.empty((rows * max(sizes),), dtype)
        self._maps = [m.workspace(backend, (rows,), dtype) for m in net.maps]
        self._sides = [
            LayerSide(net, k, rows, scratch=scratch, groups=groups) for k in range(1, len(sizes))
        ]
        self._target: Array = None
        self.nll = backend.zeros((1, 1), dtype)  # mean of the signals without noise, in nats
        for key, each in noise.items():
            way, _, place = key.partition("/")
            for layer in noisy_layers(net, place) if place and way == net.direction else ():
                if layer in self.sources:
                    raise ArchitectureError(
                        f"noise places {self.sources[layer].place} and {place} both name layer "
                        f"{layer}"
                    )
                self.sources[layer] = LayerNoise(self, layer, place, each, generators[key])
        # the batch without noise, where the input is noisy
        self.clean = backend.empty((rows, sizes[0]), dtype) if 0 in self.sources else None

    def __call__(self, x: Array, t: Array) -> None:
        """Draw and screen the noise for a batch, and add that of the input to ``x``."""
        self._target = t
        for each, W in zip(self._maps, self.net.weights, strict=True):
            each.load(W)
        self.signals[0][...] = x
        self.log_p[...] = self.run(0, self.signals, held=False)
        self.net.backend.sum_column(self.log_p, self.nll, -1.0 / self.rows)
        layers = sorted(self.sources)
        for layer in layers:
            self.sources[layer].draw()
            if layer != layers[-1]:  # the next ones see this noise
                self.signals[layer] += self.sources[layer].n
                self.log_p[...] = self.run(layer, self.signals)
        if self.clean is not None:
            self.clean[...] = x
            x += self.sources[0].n

    def run(self, start: int, signals: list[Array], *, held: bool = True) -> Array:
        """Run the layers above ``start`` from its signal, and return log p(t) (rows, 1).

        Normalized by their statistics, or with ``held`` by those of the last call without it.
        """
        outputs = [*signals[1:], self.readout.z]
        for k in range(start, len(self._maps)):
            self._maps[k].forward(signals[k], outputs[k])
            self._sides[k].signal(outputs[k], held=held)
        self.net.likelihood.activate(self.readout)
        return self.net.likelihood.log_likelihood(self.readout, self._target)
