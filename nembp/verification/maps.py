"""Whether a linear map is a trilinear form and its three derivatives."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend, stream
from nembp.engine.linear import LinearMap, Transposed
from nembp.verification.gradients import check_gradient
from nembp.verification.hosts import Host
from nembp.verification.law_reports import ROUNDING, LawReport, LawResult, agree, holds, of_gradient
from nembp.verification.laws import maps, matrices
from nembp.verification.laws.deviations import Deviation, worst_of
from nembp.verification.layout import Vector
from nembp.verification.objectives import quiet
from nembp.verification.reports import Coordinate

__all__ = ["check_linear_map"]

LAW = "⟨forward(x), y⟩ = ⟨x, adjoint(y)⟩ = ⟨W, weight_gradient(x, y)⟩"
CONTRACT = "contract of LinearMap"
BUDGET = 1000  # evaluations of a form; groups of weights beyond
SINGLE = 1e-4  # relative error allowed in float32


def check_linear_map(
    linear_map: LinearMap,
    *,
    rows: int = 4,
    device: str | Backend = "cpu",
    seed: int = 0,
    raises: bool = True,
) -> LawReport:
    """Check that a linear map's three functions are the derivatives of one trilinear form T(x, W, y).

    forward = ∂T/∂y is linear in x and in W; adjoint = ∂T/∂x and weight_gradient = ∂T/∂W are
    compared with slopes of ⟨forward(x), y⟩; all write every entry of their result, in any memory
    layout, and nothing else; rows do not mix; :class:`~nembp.engine.linear.Transposed` obeys the same
    law; results depend on no call before or at the same time; the links that steps use compute the
    same; the initial weights fit. nembp's own kinds are compared with their definitions.

    Parameters
    ----------
    linear_map : LinearMap
        With or without weights.
    rows : int
        Of the random signals.
    device : str or Backend
        Where it is computed.
    seed : int
        Of the random numbers.
    raises : bool
        Whether a broken law raises, or is only reported.

    Raises
    ------
    VerificationError
        If a law does not hold: with the worst coordinate, both values and a guess at the cause.

    >>> from nembp.engine.linear import Dense
    >>> check_linear_map(Dense(3, 2)).passed
    True
    """
    check = _LinearMapCheck(linear_map, Host(get_backend(device)), rows, seed)
    with quiet():
        report = LawReport(f"linear map {type(linear_map).__name__}", tuple(check.laws()))
    if raises:
        report.raise_for_failure()
    return report


class _LinearMapCheck:
    def __init__(self, linear_map: LinearMap, host: Host, rows: int, seed: int) -> None:
        self.linear_map, self.host, self.rows, self.seed = linear_map, host, rows, seed
        g = self.generator = stream(seed, "verification/synapse")
        self.x = g.standard_normal((rows, linear_map.inputs))
        self.y = g.standard_normal((rows, linear_map.outputs))
        self.W = g.standard_normal(linear_map.weight_shape)

    def laws(self) -> list[LawResult]:
        """Return every law; those about values, and about calls, only if those before hold."""
        first = [self._initial_weights(), *self._complete()]
        if not all(law.passed for law in first):
            return first
        more = [self._linear_in_x(), self._adjoint(), self._trilinear(self.linear_map, "the form")]
        if self.linear_map.weight_count:
            more[1:1] = [self._linear_in_weights()]
            more.insert(3, self._weight_gradient())
        more.append(self._trilinear(Transposed(self.linear_map), "the form of Transposed"))
        laws = [*first, *more, *self._rows(), self._layouts(), self._single(), self._untouched()]
        return laws + list(self._calls() if all(law.passed for law in laws) else ())

    # -- the three functions on the host -------------------------------------------------------
    def forward(self, x: Vector, W: Vector, linear_map: LinearMap | None = None) -> Vector:
        s = linear_map or self.linear_map
        return self.host.call(s.forward, (len(x), s.outputs), self._dtype(x, W), x=x, W=W)

    def adjoint(self, y: Vector, W: Vector, linear_map: LinearMap | None = None) -> Vector:
        s = linear_map or self.linear_map
        return self.host.call(s.adjoint, (len(y), s.inputs), self._dtype(y, W), y=y, W=W)

    def weight_gradient(self, x: Vector, y: Vector, linear_map: LinearMap | None = None) -> Vector:
        s = linear_map or self.linear_map
        return self.host.call(s.weight_gradient, s.weight_shape, self._dtype(x, y), x=x, y=y)

    @staticmethod
    def _dtype(*arrays: Vector) -> str:
        return str(np.result_type(*arrays))

    # -- laws ------------------------------------------------------------------------------------
    def _initial_weights(self) -> LawResult:
        law, s = "initial weights", self.linear_map
        drawn = [np.asarray(s.initial_weights(stream(self.seed, "weights"))) for _ in range(2)]
        if drawn[0].size != s.weight_count:
            why = f"{drawn[0].size} weights were drawn, but weight_shape is {s.weight_shape}"
            return holds(law, CONTRACT, False, why)
        fine = np.array_equal(drawn[0], drawn[1]) and bool(np.all(np.isfinite(drawn[0])))
        if not fine:
            why = "they must be finite and come from the generator alone: two draws differ"
            return holds(law, CONTRACT, False, why)
        varied = drawn[0].size < 2 or np.ptp(drawn[0]) > 0.0
        return holds(law, CONTRACT, varied, "all are equal, so neurons stay copies of each other")

    def _complete(self) -> list[LawResult]:
        results = {
            "forward": self.forward(self.x, self.W),
            "adjoint": self.adjoint(self.y, self.W),
        }
        if self.linear_map.weight_count:
            results["weight_gradient"] = self.weight_gradient(self.x, self.y)
        laws = []
        for name, result in results.items():
            bad = np.argwhere(~np.isfinite(result))
            place = [int(k) for k in bad[0]] if len(bad) else []
            why = f"out{place} was not written, or is not finite (out held NaN before)"
            laws.append(holds(f"{name} writes every entry of out", CONTRACT, not len(bad), why))
        return laws

    def _linear_in_x(self) -> LawResult:
        other = self.generator.standard_normal(self.x.shape)
        together = self.forward(self.x - 0.7 * other, self.W)
        apart = self.forward(self.x, self.W) - 0.7 * self.forward(other, self.W)
        return agree("forward is linear in x", LAW, together, apart, name="forward", scale=1.0)

    def _linear_in_weights(self) -> LawResult:
        other = self.generator.standard_normal(self.W.shape)
        together = self.forward(self.x, self.W - 0.7 * other)
        apart = self.forward(self.x, self.W) - 0.7 * self.forward(self.x, other)
        return agree("forward is linear in W", LAW, together, apart, name="forward", scale=1.0)

    def _adjoint(self) -> LawResult:
        report = check_gradient(
            lambda x: np.sum(self.forward(x, self.W) * self.y),
            self.x,
            gradient=lambda _: self.adjoint(self.y, self.W),
            blocks={"adjoint": self.x.shape},
            scale=1.0,
            rows=self.rows,
            max_evaluations=BUDGET,
            raises=False,
        )
        return of_gradient("adjoint = ∂⟨forward(x), y⟩/∂x", LAW, report)

    def _weight_gradient(self) -> LawResult:
        report = check_gradient(
            lambda W: np.sum(self.forward(self.x, W) * self.y),
            self.W,
            gradient=lambda _: self.weight_gradient(self.x, self.y),
            blocks={"weight_gradient": self.W.shape},
            scale=1.0,
            rows=self.rows,
            max_evaluations=BUDGET,
            raises=False,
        )
        return of_gradient("weight_gradient = ∂⟨forward(x), y⟩/∂W", LAW, report)

    def _trilinear(self, linear_map: LinearMap, name: str) -> LawResult:
        x, y = self.x, self.y
        if isinstance(linear_map, Transposed) and linear_map.linear_map is self.linear_map:
            x, y = y, x
        sums = [
            np.sum(self.forward(x, self.W, linear_map) * y),
            np.sum(x * self.adjoint(y, self.W, linear_map)),
        ]
        if linear_map.weight_count:
            sums.append(np.sum(self.W * self.weight_gradient(x, y, linear_map)))
        size = float(np.linalg.norm(self.forward(x, self.W, linear_map)) * np.linalg.norm(y))
        law = f"{name}: all three ways to T are one number"
        return agree(law, LAW, sums, [sums[0]] * len(sums), name="T", scale=size)

    def _rows(self) -> list[LawResult]:
        order = self.generator.permutation(self.rows)
        laws = []
        for name, function, signal in (
            ("forward", self.forward, self.x),
            ("adjoint", self.adjoint, self.y),
        ):
            whole = function(signal, self.W)
            mixed = function(signal[order], self.W)
            alone = np.concatenate([function(row[None, :], self.W) for row in signal])
            law = f"{name} treats rows alike and apart"
            result = agree(law, CONTRACT, mixed, whole[order], name=name)
            if result.passed:
                result = agree(law, CONTRACT, alone, whole, name=name)
            laws.append(result)
        if self.linear_map.weight_count:
            each = [self.weight_gradient(self.x[k : k + 1], self.y[k : k + 1]) for k in order]
            total = self.weight_gradient(self.x, self.y)
            law = "weight_gradient sums over rows"
            size = float(self.rows)
            laws.append(agree(law, CONTRACT, total, sum(each), name="weight_gradient", scale=size))
        return laws

    def _layouts(self) -> LawResult:
        """Pass rows of a larger buffer, and a transposed view as ``out``: the engine does."""
        b, s, dtype = self.host.backend, self.linear_map, "float64"
        x = self.host.array(np.concatenate([self.x, self.x + 1.0]), dtype)[: self.rows, :]
        W = self.host.array(self.W, dtype)
        results, expected = [], []
        for function, signal, width in (
            (s.forward, x, s.outputs),
            (s.adjoint, self.host.array(self.y, dtype), s.inputs),
        ):
            out = self.host.array(np.full((width, self.rows), np.nan), dtype)
            function(b, signal, W, out.T)
            results.append(self.host.numpy(out).T.reshape(-1))
        expected = [self.forward(self.x, self.W), self.adjoint(self.y, self.W)]
        return agree(
            "results go into an out of any memory layout",
            CONTRACT,
            np.concatenate(results),
            np.concatenate([array.reshape(-1) for array in expected]),
            name="out",
            cause="out may be a transposed view: reshaping it makes a copy, and the result is lost",
        )

    def _single(self) -> LawResult:
        x, y, W = (a.astype(np.float32) for a in (self.x, self.y, self.W))
        pairs: list[tuple[Any, Any]] = [
            (self.forward(x, W), self.forward(self.x, self.W)),
            (self.adjoint(y, W), self.adjoint(self.y, self.W)),
        ]
        if self.linear_map.weight_count:
            pairs.append((self.weight_gradient(x, y), self.weight_gradient(self.x, self.y)))
        law = "float32 agrees with float64"
        results = [
            agree(law, CONTRACT, a, e, name=name, tolerance=SINGLE, scale=1.0)
            for (a, e), name in zip(pairs, ("forward", "adjoint", "weight_gradient"), strict=False)
        ]
        return max(results, key=lambda result: result.error)

    def _calls(self) -> Iterator[LawResult]:
        """Call it again after others and meanwhile, and as steps do."""
        one, given = self.linear_map, (self.rows + 1, self.seed, self.host.backend)
        if matrices.is_written_out(one):
            yield _of_deviations("the definition", maps.definition(one, *given))
        memory = maps.keeps_no_memory([one, Transposed(one)], *given)
        yield _of_deviations("results do not depend on calls before", memory)
        meeting = maps.reentrant(one, *given)
        yield _of_deviations("calls of two threads do not meet", meeting)

    def _untouched(self) -> LawResult:
        names = ", ".join(sorted(self.host.changed))
        why = f"a call wrote into its argument {names}"
        return holds("arguments are left alone", CONTRACT, not self.host.changed, why)


def _of_deviations(law: str, deviations: Iterable[Deviation]) -> LawResult:
    worst = worst_of(deviations) or Deviation("nothing", 0.0)
    if worst.error <= ROUNDING:
        place = Coordinate(
            worst.what, None, worst.actual, worst.expected, tolerance=ROUNDING, scale=1.0
        )
        return LawResult(law, CONTRACT, True, worst.error, ROUNDING, place)
    return LawResult(law, CONTRACT, False, worst.error, ROUNDING, cause=str(worst))
