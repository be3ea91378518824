"""Whether an optimizer descends, neuron by neuron, and starts anew when it is bound."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend, stream
from nembp.engine.network import Network, dense_network
from nembp.engine.optimizers import Optimizer, get_optimizer
from nembp.verification.hosts import Host
from nembp.verification.law_reports import LawReport, LawResult, agree, holds
from nembp.verification.layout import Vector
from nembp.verification.objectives import quiet

__all__ = ["check_optimizer"]

CONTRACT = "contract of Optimizer"
DECAY = "decoupled weight decay (Loshchilov and Hutter 2019)"
ELEMENTWISE = "an update sees a chunk of the vector, so it acts on each parameter alike"
STEPS = 6  # of a trajectory
CHUNK = 7  # parameters in a small chunk
DESCENT = 300  # steps down a quadratic
RATE = 0.05  # learning rate on the way down
SINGLE = 1e-4  # relative error allowed in float32


def check_optimizer(
    optimizer: str | Optimizer | type[Optimizer],
    *,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check what every optimizer must do, whatever its formula.

    The first step moves each parameter against its gradient, in proportion to the learning rate,
    and not at all where the gradient is zero; steps descend a quadratic; the vector may be cut into
    chunks, permuted, and mirrored; ``bind`` starts anew; weight decay shrinks the weights once and
    spares the biases; parameters are moved in place; float32 follows float64.

    Parameters
    ----------
    optimizer : str, Optimizer, or its class
        A name, or your own.
    device, seed, raises
        As in :func:`check_linear_map`.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst parameter, both values and a guess at the cause.

    >>> check_optimizer("adam").passed
    True
    """
    made = optimizer() if isinstance(optimizer, type) else get_optimizer(optimizer)
    check = _OptimizerCheck(made, Host(get_backend(device)), seed)
    with quiet():
        report = LawReport(f"optimizer {type(made).__name__}", tuple(check.laws()))
    if raises:
        report.raise_for_failure()
    return report


class _OptimizerCheck:
    def __init__(self, optimizer: Optimizer, host: Host, seed: int) -> None:
        self.optimizer, self.host = optimizer, host
        g = self.generator = stream(seed, "verification/optimizer")
        self.start = g.normal(0.0, 1.0, self._net().parameter_count)
        sizes = 10.0 ** g.uniform(-2.0, 1.0, self.start.size)
        self.gradients = g.choice([-1.0, 1.0], (STEPS, sizes.size)) * sizes
        self.gradients *= g.uniform(0.5, 1.5, self.gradients.shape)

    def laws(self) -> list[LawResult]:
        """Return every law; those about paths only if a first step is what it should be."""
        first = [self._bound(), self._against(), self._zero()]
        if not all(law.passed for law in first):
            return first
        return [
            *first,
            self._proportional(),
            self._descends(),
            self._chunks(),
            self._permuted(),
            self._mirrored(),
            self._anew(),
            self._decay(),
            self._in_place(),
            self._single(),
        ]

    # -- paths -----------------------------------------------------------------------------------
    def _net(self, chunk: int | None = None, dtype: str = "float64") -> Network:
        backend = self.host.backend
        if chunk is not None:
            backend = copy.copy(backend)
            backend.chunk = chunk
        return dense_network([5, 4, 3], device=backend, dtype=dtype)

    def _fresh(self, weight_decay: float = 0.0) -> Optimizer:
        optimizer = copy.copy(self.optimizer)
        optimizer.weight_decay = weight_decay
        return optimizer

    def path(
        self,
        gradients: Vector,
        start: Vector,
        *,
        factor: float = 1.0,
        optimizer: Optimizer | None = None,
        net: Network | None = None,
    ) -> Vector:
        """Return the parameters after each step, shape (steps, parameters)."""
        net = net or self._net()
        optimizer = optimizer or self._fresh()
        net.parameters[...] = self.host.array(start, net.dtype)
        vector = optimizer.bind(net)
        path = []
        for gradient in gradients:
            vector[...] = self.host.array(gradient, net.dtype)
            optimizer.step(factor)
            path.append(self.host.numpy(net.parameters).astype(float))
        return np.array(path)

    def _same(
        self, law: str, source: str, actual: Any, expected: Any, cause: str | None = None
    ) -> LawResult:
        size = float(np.max(np.abs(self.start)))
        return agree(law, source, actual, expected, name="θ[step]", scale=size, cause=cause)

    # -- laws ------------------------------------------------------------------------------------
    def _bound(self) -> LawResult:
        law, net = "bind returns the gradient vector", self._net()
        vector = self._fresh().bind(net)
        why = f"it has shape {tuple(vector.shape)}, but there are {net.parameter_count} parameters"
        return holds(law, CONTRACT, tuple(vector.shape) == (net.parameter_count,), why)

    def _against(self) -> LawResult:
        law, g = "the first step goes against the gradient", self.gradients[0]
        moved = self.path(self.gradients[:1], self.start)[0] - self.start
        wrong = np.flatnonzero(~(moved * g < 0.0))
        if not wrong.size:
            return holds(law, CONTRACT, True, "")
        k, count = int(wrong[0]), wrong.size
        how = "the sign is wrong" if np.all(moved * g > 0.0) else f"in {count} of {g.size}"
        why = f"parameter {k} moves by {moved[k]:.4g} with gradient {g[k]:.4g}; {how}"
        return holds(law, CONTRACT, False, why)

    def _zero(self) -> LawResult:
        zero = np.zeros((2, self.start.size))
        law = "nothing moves where the gradient is zero"
        return self._same(law, CONTRACT, self.path(zero, self.start), [self.start, self.start])

    def _proportional(self) -> LawResult:
        first = self.gradients[:1]
        half = self.path(first, self.start, factor=0.5) - self.start
        whole = self.path(first, self.start) - self.start
        ten = self.path(10.0 * first, self.start) - self.start
        law = "the first step is proportional to the learning rate"
        result = self._same(law, CONTRACT, half, 0.5 * whole)
        ways = {"it does not depend on the gradient's size": 1.0, "and to the gradient": 10.0}
        for note, times in ways.items():
            if np.allclose(ten, times * whole, rtol=1e-3, atol=0.0):
                return replace(result, note=note)
        return result

    def _descends(self) -> LawResult:
        law, net = "steps descend a quadratic", self._net()
        curvature = self.generator.uniform(0.5, 2.0, self.start.size)
        optimizer = self._fresh()
        net.parameters[...] = self.host.array(self.start, net.dtype)
        vector = optimizer.bind(net)
        factor = min(1.0, RATE / optimizer.learning_rate)
        theta = self.start
        before = float(curvature @ theta**2)
        for _ in range(DESCENT):
            vector[...] = self.host.array(curvature * theta, net.dtype)
            optimizer.step(factor)
            theta = self.host.numpy(net.parameters).astype(float)
        after = float(curvature @ theta**2)
        rate = factor * optimizer.learning_rate
        why = f"½Σcθ² went from {before:.3g} to {after:.3g} in {DESCENT} steps of rate {rate:.3g}"
        return holds(law, CONTRACT, after < before, why)

    def _chunks(self) -> LawResult:
        cut = self.path(self.gradients, self.start, net=self._net(CHUNK))
        why = "state or counters are advanced by each chunk in place of each step"
        law = "the vector may be cut into chunks"
        return self._same(law, ELEMENTWISE, cut, self.path(self.gradients, self.start), why)

    def _permuted(self) -> LawResult:
        order = self.generator.permutation(self.start.size)
        mixed = self.path(self.gradients[:, order], self.start[order])
        expected = self.path(self.gradients, self.start)[:, order]
        return self._same("the vector may be permuted", ELEMENTWISE, mixed, expected)

    def _mirrored(self) -> LawResult:
        mirrored = self.path(-self.gradients, -self.start)
        expected = -self.path(self.gradients, self.start)
        return self._same("the vector may be mirrored", ELEMENTWISE, mirrored, expected)

    def _anew(self) -> LawResult:
        optimizer = self._fresh()
        first = self.path(self.gradients, self.start, optimizer=optimizer)
        second = self.path(self.gradients, self.start, optimizer=optimizer)
        why = "a stale buffer: state or a counter survives bind"
        return self._same("bind starts anew", CONTRACT, second, first, why)

    def _decay(self) -> LawResult:
        decay, net = 0.1, self._net()
        optimizer = self._fresh(decay)
        rate = optimizer.learning_rate
        end = self.path(np.zeros((1, self.start.size)), self.start, optimizer=optimizer, net=net)
        expected = self.start.copy()
        expected[: net.weight_count] *= 1.0 - rate * decay
        law = "weight decay: θ ← (1 − ηλ) θ for weights, once; not for biases"
        return self._same(law, DECAY, end[0], expected)

    def _in_place(self) -> LawResult:
        net = self._net()
        held = net.parameters
        end = self.path(self.gradients[:1], self.start, net=net)[0]
        law, W = "parameters are moved in place", self.host.numpy(net.weights[0]).reshape(-1)
        same = net.parameters is held and np.array_equal(W, end[: W.size])
        return holds(law, CONTRACT, same, "the network's views no longer see its parameters")

    def _single(self) -> LawResult:
        single = self.path(self.gradients, self.start, net=self._net(dtype="float32"))
        double = self.path(self.gradients, self.start)
        law = "float32 follows float64"
        return agree(law, CONTRACT, single, double, name="θ[step]", tolerance=SINGLE, scale=1.0)
