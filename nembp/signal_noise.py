"""NEM noise on signals: at a direction's input, or in its hidden layers.

Noise n on the signal aᵏ of layer k is kept where it does not make the target less probable,

    gain(n) = log p(t | aᵏ + n) − log p(t | aᵏ) ≥ 0,

sample by sample: the likelihood-ratio form of the noisy expectation-maximization condition with
the layer's signal as the hidden data (Audhkhasi, Osoba, Kosko, Neural Networks 78:15-23, 2016,
section 4). The remaining layers run again to find it, so a noisy layer costs one forward run of
the layers above it, two with reflection. Where several layers are noisy the gain of each is taken
with the noise of those before it in place.

The step then trains with aᵏ + n in place of aᵏ: it is what the next synapse sees, in its signal and
in its gradient; the derivative f' stays that of aᵏ itself, for n is no part of the activation.

A normalized layer's statistics are those of the batch's signals without noise while noise is
screened, so that a sample's gain depends on its own noise alone.

Weights have no noise of their own. Noise M on a synapse reaches the layer above as aᵏ M, which is
noise on its signals that all samples of a batch share, so the theorem could only be met by the mean
gain of the batch (as signals do with screening "expectation"): one decision for 10⁵ numbers, of
which what is kept leans towards the gradient by 0.8 σ and wanders by σ √10⁵ elsewhere. That is a
longer step with blind noise on it, and a longer step is what every claim here is controlled for.
And both directions go through the same W in the same products (:mod:`nembp.sweeps`), so that noise
meant for one would disturb the other or cost its products anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from nembp.backend import Array
from nembp.errors import ArchitectureError
from nembp.grouped import grouped_normalizers
from nembp.layers import add_bias
from nembp.likelihoods import Readout
from nembp.network import Network
from nembp.noise import Noise, NoiseSource

__all__ = ["PLACES", "LayerNoise", "SignalNoise", "noisy_layers", "signal_noise"]

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

    >>> from nembp.network import dense_network
    >>> noisy_layers(dense_network([4, 5, 6, 3]), "hidden")
    [1, 2]
    """
    if place not in PLACES:
        raise ArchitectureError(
            f"noise place must be target or one of {', '.join(PLACES)}, got {place!r}"
        )
    if place == "input":
        return [0]
    last = len(net.synapses)
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
        self._links = [synapse.link(backend, (rows,), dtype) for synapse in net.synapses]
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
