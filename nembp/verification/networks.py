"""Whether a network's gradients are right, in both directions and together."""

from __future__ import annotations

from typing import Any

import numpy as np

from nembp.backend import stream
from nembp.engine.backprop import JointBackpropagation, backpropagate
from nembp.engine.batchnorm import Statistics
from nembp.engine.network import Network
from nembp.verification.directions import (
    batch_of,
    both_directions,
    error_size,
    host,
    parameter_blocks,
)
from nembp.verification.gradients import Method, check_gradient
from nembp.verification.law_reports import LawReport, LawResult, agree, holds, of_gradient
from nembp.verification.layout import Vector
from nembp.verification.objectives import quiet

__all__ = ["check_network"]

GRADIENT = "δᴸ = −∂log p/∂z, δᵏ⁻¹ = adjoint(δᵏ) ∘ f'(aᵏ⁻¹) (Adigun and Kosko 2019, theorems 1, 2)"
JOINT = "the joint gradient is the sum of the two one-direction gradients"
VIEWS = "net.reversed.reversed is net; they share memory"
MODES: tuple[Statistics, ...] = ("batch", "running")  # of normalized layers
ROUNDING = 1e-11  # relative error allowed between two orders of summation
SINGLE = 2e-3  # of a float32 gradient


def check_network(
    net: Network,
    x: Any,
    y: Any,
    *,
    method: Method = "auto",
    max_evaluations: int = 3000,
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check everything that training relies on, for this network on this batch.

    In float64, on the network's device: both directions' gradients and input errors against slopes
    of log p (complex steps where the network is analytic), by the statistics of the batch and by
    running ones where layers are normalized; the joint gradient of every path against
    the sum of the two; the nll that a step records; that steps carry nothing over; the views of
    ``net`` and ``net.reversed``. In the network's own precision: its gradients against float64.

    Parameters
    ----------
    net : Network
        Its parameters are left as they are.
    x, y : array, shapes (rows, net.inputs) and (rows, net.outputs)
        A small batch. With one-hot ``y`` the class-sum path is checked too.
    method, max_evaluations, seed, raises
        As in :func:`check_gradient`; evaluations of each gradient.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst coordinate, both values and a guess at the cause.
    ShapeError
        If ``x`` or ``y`` does not fit.

    >>> import numpy as np
    >>> from nembp.engine.network import dense_network
    >>> check_network(dense_network([3, 4, 2]), np.eye(3), np.eye(2)[[0, 1, 0]]).passed
    True
    """
    check = _NetworkCheck(net, x, y, method, max_evaluations, seed)
    with quiet():
        report = LawReport(repr(net), tuple(check.laws()))
    if raises:
        report.raise_for_failure()
    return report


class _NetworkCheck:
    def __init__(
        self, net: Network, x: Any, y: Any, method: Method, budget: int, seed: int
    ) -> None:
        x, y = batch_of(net.to(dtype="float64"), x, y)
        if net.direction == "backward":
            net, x, y = net.reversed, y, x
        self.given, self.method, self.budget, self.seed = net, method, budget, seed
        self.net = net.to(dtype="float64")
        self.x, self.y = x, y
        self.rows = len(self.x)
        self.start = host(net, net.parameters)
        self._copies: dict[tuple[str, str], Network] = {}

    def laws(self) -> list[LawResult]:
        """Return every law; those of gradients only if the views are right."""
        views = [self._reversed(), self._partition()]
        if not all(law.passed for law in views):
            return views
        laws = list(views)
        for net, source, target in both_directions(self.net, self.x, self.y):
            for by in MODES if net.statistics_count else MODES[:1]:
                laws.append(self._gradient(net, source, target, by))
                laws.append(self._input_error(net, source, target, by))
        for path in ("samples", "classes", "none"):
            if path != "classes" or self._has_class_path():
                laws += self._joint(path)
        if self.given.dtype != "float64":
            laws += [self._own_precision(direction) for direction in ("forward", "backward")]
        return laws

    def _has_class_path(self) -> bool:
        labels = np.all((self.y == 0) | (self.y == 1)) and np.all(self.y.sum(axis=1) == 1)
        return bool(labels) and self.net.reversed.likelihood.class_sums

    # -- views -----------------------------------------------------------------------------------
    def _reversed(self) -> LawResult:
        net, other = self.given, self.given.reversed
        same = other.reversed is net and other.parameters is net.parameters
        why = "net.reversed.reversed is another object, or has parameters of its own"
        return holds("net and net.reversed are one network", VIEWS, same, why)

    def _partition(self) -> LawResult:
        """Numbered parameters come back in order from the views of both directions."""
        net, law = self.net.copy(), "views cover the flat vector, in both directions"
        numbers = np.arange(float(net.parameter_count))
        net.parameters[...] = net.backend.asarray(numbers, "float64")
        back = net.reversed
        arrays = [*net.weights, *net.biases[1:], *back.biases[:0:-1]]
        arrays += [gain for gain in (*net.gains, *back.gains[::-1]) if gain is not None]
        seen = np.concatenate([host(net, array).reshape(-1) for array in arrays])
        result = agree(law, VIEWS, seen, numbers, name="parameters")
        if not result.passed:
            return result
        turned = np.concatenate([host(net, W).reshape(-1) for W in back.weights[::-1]])
        return agree(law, VIEWS, turned, numbers[: turned.size], name="net.reversed.weights")

    # -- one direction -----------------------------------------------------------------------------
    def _at(self, net: Network, theta: Vector) -> Network:
        """Return a copy of a direction with other parameters, in their precision."""
        dtype = str(theta.dtype)
        if (net.direction, dtype) not in self._copies:
            self._copies[net.direction, dtype] = net.to(dtype=dtype)
        copy = self._copies[net.direction, dtype]
        copy.parameters[...] = copy.backend.asarray(theta, dtype)
        return copy

    def _gradient(self, net: Network, source: Vector, target: Vector, by: Statistics) -> LawResult:
        def value(theta: Vector) -> Any:
            copy = self._at(net, theta)
            return -np.mean(host(copy, copy.log_likelihood(source, target, by)))

        def gradient(theta: Vector) -> Vector:
            copy = self._at(net, theta)
            return host(copy, backpropagate(copy, source, target, statistics=by)[0])

        report = check_gradient(
            value,
            self.start,
            gradient=gradient,
            method=self.method,
            blocks=parameter_blocks(net),
            rows=self.rows,
            max_evaluations=self.budget,
            seed=self.seed,
            raises=False,
        )
        return of_gradient(_named("gradient", net, by), GRADIENT, report)

    def _input_error(
        self, net: Network, source: Vector, target: Vector, by: Statistics
    ) -> LawResult:
        copies = {str(net.dtype): net}

        def at(x: Vector) -> Network:
            dtype = str(x.dtype)
            if dtype not in copies:
                copies[dtype] = net.to(dtype=dtype)
            return copies[dtype]

        report = check_gradient(
            lambda x: -np.mean(host(at(x), at(x).log_likelihood(x, target, by))),
            source,
            gradient=lambda x: host(at(x), backpropagate(at(x), x, target, statistics=by)[1]),
            method=self.method,
            blocks={"input error": source.shape},
            scale=1.0,
            rows=self.rows,
            max_evaluations=self.budget,
            seed=self.seed,
            raises=False,
        )
        return of_gradient(_named("input error", net, by), GRADIENT, report)

    def _own_precision(self, direction: str) -> LawResult:
        nets = (self.given, self.net)
        if direction == "backward":
            nets = (self.given.reversed, self.net.reversed)
        source, target = (self.x, self.y) if nets[0] is self.given else (self.y, self.x)
        own, exact = (host(net, backpropagate(net, source, target)[0]) for net in nets)
        law = f"gradient of the {direction} direction in {self.given.dtype}"
        size = error_size(nets[1], source, target) / self.rows
        return agree(
            law,
            GRADIENT,
            own,
            exact,
            name="θ",
            tolerance=SINGLE,
            scale=size,
            blocks=parameter_blocks(self.net),
        )

    # -- both directions -----------------------------------------------------------------------
    def _joint(self, path: str) -> list[LawResult]:
        expected = np.zeros(self.net.parameter_count)
        size, nll = 0.0, []
        for net, source, target in both_directions(self.net, self.x, self.y):
            if path == "none" and net.direction == "backward":
                continue
            expected += host(net, backpropagate(net, source, target)[0])
            size += error_size(net, source, target)
            log_p = net.log_likelihood(source, target, "batch")
            nll.append(-float(np.mean(host(net, log_p))))
        step = self._made(path)
        gradient, recorded = self._step(step, self.x, self.y, len(nll))
        blocks = parameter_blocks(self.net)
        name = f"joint gradient, path {path}"
        law = agree(
            name,
            JOINT,
            gradient,
            expected,
            name="θ",
            tolerance=ROUNDING,
            scale=size,
            blocks=blocks,
            rows=self.rows,
        )
        order = stream(self.seed, "verification/batch").permutation(self.rows)
        other = 0.5 * self.x[order], self.y[order[::-1]]
        again, _ = self._step(step, *other, len(nll))
        fresh, _ = self._step(self._made(path), *other, len(nll))
        why = "a stale buffer: the result depends on the batch before"
        same = holds(f"path {path} carries nothing over", JOINT, np.array_equal(again, fresh), why)
        size = 1.0 + max(abs(v) for v in nll) + size * max(1.0, float(np.max(np.abs(self.x))))
        return [
            law,
            agree(
                f"recorded nll, path {path}",
                JOINT,
                recorded,
                nll,
                name="nll",
                tolerance=ROUNDING,
                scale=size,
            ),
            same,
        ]

    def _made(self, path: str) -> JointBackpropagation:
        return JointBackpropagation(self.net, self.rows, path=path)  # type: ignore[arg-type]

    def _step(
        self, step: JointBackpropagation, x: Vector, y: Vector, directions: int
    ) -> tuple[Vector, Vector]:
        net = self.net
        step.x[...] = net.backend.asarray(x, "float64")
        step.t[...] = net.backend.asarray(y, "float64")
        gradient = net.backend.asarray(np.full(net.parameter_count, np.nan), "float64")
        step(gradient)
        recorded = [step.forward_nll, step.backward_nll][:directions]
        return host(net, gradient), np.array([float(host(net, v)[0, 0]) for v in recorded])


def _named(what: str, net: Network, by: Statistics) -> str:
    """Name a law of one direction: its statistics are those of the batch unless it says so."""
    return f"{what} of the {net.direction} direction" + (
        ", by running statistics" if by == "running" else ""
    )
