"""The blocks of rows that a step works on, and the moves its sweeps are made of.

A step keeps for each layer two blocks of rows, P = [a ; e] and Q = [δ ; c], where a, δ are the
forward direction's activations and errors, c, e the backward direction's. a and e travel up the
same wires, δ and c down, so that where both are due one product carries them; and the joint
gradient of a synapse is always one product of both directions, ∂T/∂W at (Pᵏ⁻¹, Qᵏ).

In which order a step sweeps depends on what its ends need of each other:
:class:`nembp.joint.JointBackpropagation` knows both inputs beforehand, and
:class:`nembp.cycle.CycleBackpropagation` sends its own output back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nembp.backend import Array
from nembp.layers import add_bias
from nembp.links import After
from nembp.network import Network
from nembp.normalized import NormalizedLayers, Pass
from nembp.threads import single_threaded_blas

__all__ = ["Sweeps"]


class Sweeps:
    """Buffers and moves of a step, for a fixed number of rows.

    Parameters
    ----------
    net : Network
        Seen from its forward direction.
    forward, backward : int
        Rows of the forward and the backward direction; no backward ones in unidirectional
        training.
    backward_first : bool
        Whether the blocks are [e ; a] and [c ; δ] instead. A link keeps all rows of a signal that
        it carries the first rows of.
    members : array, shape (samples, classes), optional
        The samples of each backward row, where those are classes (:class:`nembp.ends.Memberships`).
    groups : sequence of int, optional
        Rows of the forward direction that normalized layers take statistics of together; all of
        them by default.
    input_error : bool
        Whether δ⁰, the forward error at the input, has a buffer.
    """

    def __init__(
        self,
        net: Network,
        forward: int,
        backward: int,
        *,
        backward_first: bool = False,
        members: Array = None,
        groups: Sequence[int] | None = None,
        input_error: bool = False,
    ) -> None:
        self.net, self.rows = net, forward
        self._bidirectional = backward > 0
        backend, dtype, both = net.backend, net.dtype, forward + backward
        sizes = [layer.size for layer in net.layers]
        self._P = [backend.empty((both, size), dtype) for size in sizes[:-1]]
        self._Q: list[Array] = [None, *(backend.empty((both, size), dtype) for size in sizes[1:])]
        self._first = backward if backward_first else forward  # rows of each block's upper part
        parts_of_block = slice(self._first), slice(self._first, both)
        up, down = parts_of_block[::-1] if backward_first else parts_of_block
        # views of the blocks by layer: aᵏ and eᵏ for k < L, δᵏ and cᵏ for k > 0
        self._a, self._e = [p[up, :] for p in self._P], [p[down, :] for p in self._P]
        self._delta: list[Array] = [None, *(q[up, :] for q in self._Q[1:])]
        self._c: list[Array] = [None, *(q[down, :] for q in self._Q[1:])]
        if input_error:
            self._delta[0] = backend.empty((forward, sizes[0]), dtype)
        self._widest = max(sizes)
        self._scratch = backend.empty((both * self._widest,), dtype)
        self._ones = backend.ones((1, both * max(sizes)), dtype)
        self._ones_views: dict[int, Array] = {}
        # bias gradients that wait for the end of the step, where a device sums them together
        self._sums: list[tuple[Array, Array, Array]] = []
        self._sum_tables: dict[Any, Array] = {}
        self._views: tuple[Any, ...] = (None,)  # of the last call's gradient vector

        parts = (backward, forward) if backward_first else (forward, backward)
        shared = any(synapse.wants_lanes for synapse in net.synapses)
        self._lanes = backend.lanes() if shared else 1  # or leave the threads to BLAS
        self._links = [
            synapse.link(backend, parts, dtype, lanes=self._lanes) for synapse in net.synapses
        ]
        self._normalized = NormalizedLayers(net, forward, backward, members, groups, self._lanes)
        self.moves_statistics = True

    def _in_lanes(self, step: Any, *args: Any) -> None:
        """Call a part of the step with the threads that its links want."""
        if self._lanes > 1:
            with single_threaded_blas():
                step(*args)
        else:
            step(*args)
        if self._sums:
            self.net.backend.column_sums_together(self._sums, self._sum_tables)
            self._sums.clear()

    def _load_weights(self) -> None:
        for link, W in zip(self._links, self.net.weights, strict=True):
            link.load(W)

    def _carry(
        self,
        contract: Callable[..., None],
        ends: tuple[Any, ...],
        after: After,
        passes: Sequence[Pass],
    ) -> None:
        """Contract with a link, then call ``after`` on rows that are done.

        Where a layer is normalized they are done once all rows are there, and the passes have been
        over them.
        """
        if passes:
            contract(*ends)
            for each in passes:
                each(after)
        else:
            contract(*ends, after)

    # -- gradients -----------------------------------------------------------------------------
    def _weight_gradient(self, gradient: Array, k: int) -> Array:
        """Return the view of ``gradient`` at the weights of synapse k."""
        return self._views_of(gradient)[0][k - 1]

    def _bias_gradients(self, gradient: Array, k: int) -> None:
        """Write ∂/∂bᵏ = Σ δᵏ and ∂/∂dᵏ⁻¹ = Σ eᵏ⁻¹, at the two ends of synapse k."""
        _, up, down = self._views_of(gradient)
        layers = self.net.layers  # β of a normalized one is the normalizer's
        if layers[k].normalization is None:
            self._column_sums(self._delta[k], up[k], layers[k].biases)
        if self._bidirectional and layers[k - 1].normalization is None:
            self._column_sums(self._e[k - 1], down[k - 1], layers[k - 1].biases)
        elif not self._bidirectional:  # the other direction's biases do not move
            down[k - 1][...] = 0.0

    def _views_of(self, gradient: Array) -> Any:
        """Return the views of the weights, and of the biases of each direction, by layer."""
        if self._views[0] is not gradient:
            net, xp = self.net, self.net.backend.xp
            forward, backward = net.views(gradient), net.reversed.views(gradient)
            up = [None if b is None else xp.reshape(b, (1, -1)) for b in forward.biases]
            down = [None if d is None else xp.reshape(d, (1, -1)) for d in backward.biases[::-1]]
            self._views = (gradient, forward.weights, up, down)
        return self._views[1:]

    # -- what is done to rows start..stop of a layer, while they are in cache ------------------
    def _activate(self, net: Network, k: int, signal: Array, start: int, stop: int) -> None:
        """Write f(signal + bᵏ) over rows of ``signal``; k counts from the input of ``net``."""
        layer, z, b = net.layers[k], signal[start:stop, :], net.biases[k]
        if net.backend.add_bias_activate(layer.activation, z, b if layer.biases else None):
            return
        add_bias(net.backend, z, b, layer)
        if layer.activation is not None:
            layer.activation.activate(net.backend, z, self._scratch_for(z, start))

    def _multiply_derivative(
        self, k: int, error: Array, a: Array, start: int, stop: int, first: int = 0
    ) -> None:
        """Write error ∘ f'(a) over rows of ``error``, which lie in their block from ``first`` on.

        k counts from the forward direction's input, whichever direction's error it is.
        """
        activation = self.net.layers[k].activation
        if activation is not None:
            backend, rows, at = self.net.backend, error[start:stop, :], a[start:stop, :]
            if backend.multiply_derivative(activation, rows, at):
                return
            scratch = self._scratch_for(rows, first + start)  # a's rows may be at work meanwhile
            activation.multiply_derivative(backend, rows, at, scratch)

    def _scratch_for(self, rows: Array, start: int) -> Array:
        """Return scratch for rows from ``start`` on, apart from that of all other rows."""
        count, width = rows.shape
        first = start * self._widest
        flat = self._scratch[first : first + count * width]
        return self.net.backend.xp.reshape(flat, (count, width))

    def _column_sums(self, x: Array, out: Array, channels: int) -> None:
        """Write Σ over rows, and over the neurons that share a bias, of ``x`` into ``out``."""
        if not channels:
            return
        if x.shape[1] != channels:
            x = self.net.backend.xp.reshape(x, (-1, channels))
        rows = x.shape[0]
        if rows not in self._ones_views:
            self._ones_views[rows] = self._ones[:, :rows]
        if self.net.backend.sums_together:
            self._sums.append((x, out, self._ones_views[rows]))
        else:
            self.net.backend.column_sums(x, out, self._ones_views[rows])
