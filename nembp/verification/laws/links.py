"""Laws of workspaces: what computes a step's contractions gives what the linear map gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nembp.backend import Backend, get_backend
from nembp.engine.convolution import Convolution, Im2colWorkspace
from nembp.engine.linear import Dense, LinearMap, RowWorkspace, Transposed, Workspace
from nembp.engine.winograd import WinogradWorkspace, plans
from nembp.verification.laws.deviations import Deviations, Vector, near
from nembp.verification.laws.joint import poisoned
from nembp.verification.laws.maps import contractions, random_arrays

__all__ = ["all_workspaces", "links"]


FEW = 3  # sizes of tiles that are tried of one convolution


def all_workspaces(
    linear_map: LinearMap,
    backend: Backend,
    parts: tuple[int, int],
    dtype: str,
    *,
    upward: bool = True,
    workers: int = 1,
    seed: int = 0,
) -> Iterator[tuple[str, Workspace]]:
    """Yield the workspace that a step would take, and others that the linear map can have.

    Rows shared among workers; im2col, and Winograd's algorithm by tiles of three sizes, which the
    seed chooses; all whatever they cost.
    """
    yield (
        "workspace",
        linear_map.workspace(backend, parts, dtype, upward=upward, workers=workers),
    )
    inner = linear_map
    while isinstance(inner, Transposed):
        inner, upward = inner.linear_map, not upward
    if type(inner) is Dense:
        yield "rows", RowWorkspace(inner, backend, upward, workers)
    if type(inner) is not Convolution:
        return
    yield "im2col", Im2colWorkspace(inner, backend, parts, dtype, upward=upward, workers=workers)
    if not backend.has_strided_views:
        return
    known = plans(inner.shape, inner.output_shape, inner.kernel, inner.stride, inner.padding)
    for k in np.random.default_rng(seed).permutation(len(known))[:FEW]:
        workspace = WinogradWorkspace(
            inner, known[k], backend, parts, dtype, upward=upward, workers=workers
        )
        yield f"Winograd with tiles of {known[k].results}", workspace


def links(
    linear_map: LinearMap,
    rows: int,
    seed: int,
    backend: Backend | None = None,
    dtype: str = "float64",
) -> Deviations:
    """forward, adjoint and gradient of every workspace are the linear map's contractions.

    In buffers that held NaN, for a part of the rows, rows of two parts, after a batch of NaN, and
    again with other weights.
    """
    backend = poisoned(backend or get_backend("cpu"))
    for second, upward, workers in ((0, True, 1), (rows + 1, True, 3), (2, False, 1 + seed % 3)):
        turned = linear_map if upward else Transposed(linear_map)
        batches = [random_arrays(turned, rows + second, seed + k, dtype) for k in (0, 1)]
        wanted = [contractions(turned, *arrays, backend, dtype) for arrays in batches]
        for name, workspace in all_workspaces(
            linear_map, backend, (rows, second), dtype, upward=upward, workers=workers, seed=seed
        ):
            work = _Work(workspace, backend, dtype, name, rows, second)
            for arrays, expected in zip(batches, wanted, strict=True):
                yield from work.compare(*arrays, expected)
                list(work.step(*(np.full_like(array, np.nan) for array in arrays)))
            yield from work.compare(*batches[0], wanted[0])


class _Work:
    """A workspace as a step uses it, from and to arrays of the host."""

    def __init__(
        self, workspace: Workspace, backend: Backend, dtype: str, name: str, rows: int, second: int
    ) -> None:
        self.workspace, self.backend, self.dtype = workspace, backend, dtype
        self.name, self.rows, self.second = name, rows, second

    def _array(self, value: Vector) -> Any:
        return self.backend.asarray(value, self.dtype)

    def _host(self, value: Any) -> Vector:
        return self.backend.to_numpy(value).astype(float)

    def step(self, x: Vector, W: Vector, y: Vector, *, some: bool = False) -> Iterator[Vector]:
        """Load, go up and down; yield forward, adjoint, adjoint of the second part, gradient.

        With ``some``, results of the first part of the rows alone.
        """
        workspace, most = self.workspace, self.rows if some else len(x)
        lower, upper, weights = self._array(x), self._array(y), self._array(W)
        workspace.load(weights)
        ups = self._array(np.full_like(y[:most], np.nan))
        workspace.forward(lower, ups)
        yield self._host(ups)
        part = self._array(np.full_like(x[self.rows :], np.nan))
        if self.second:
            workspace.adjoint(upper[self.rows :, :], part)
        yield self._host(part)
        gradient = self._array(np.full_like(W, np.nan))
        downs = self._array(np.full_like(x[:most], np.nan))
        workspace.adjoint_and_gradient(lower, upper, downs, gradient)
        yield self._host(downs)
        yield self._host(gradient)
        if W.size:
            gradient[...] = np.nan
            workspace.adjoint_and_gradient(lower, upper, None, gradient)
            yield self._host(gradient)

    def compare(self, x: Vector, W: Vector, y: Vector, expected: tuple[Vector, ...]) -> Deviations:
        """Compare with the linear map's own contractions."""
        up, down, gradient = expected
        largest = [float(np.abs(array).max(initial=1.0)) for array in (x, W, y)]
        scale = largest[0] * largest[1] * largest[2]
        for some in (False, True):
            most = self.rows if some else len(x)
            same = [up[:most], down[self.rows :], down[:most], gradient, gradient]
            names = ("forward", "adjoint", "adjoint of all", "gradient", "gradient alone")
            found = self.step(x, W, y, some=some)
            for what, actual, value in zip(names, found, same, strict=False):
                yield near(actual, value, f"{self.name}: {what}", scale=scale)
