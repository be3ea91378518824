"""One convolution by itself: forward and both gradients, nembp's, PyTorch's and the floor."""

from __future__ import annotations

import math
import time
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np

from nembp.backend import Backend, stream
from nembp.benchmarks.agreement import check_agreement
from nembp.benchmarks.cases import ImageCase
from nembp.benchmarks.environment import threads_now
from nembp.benchmarks.notation import convolution_of
from nembp.benchmarks.peers import MissingPeerError, import_peer
from nembp.benchmarks.steps import LAYOUTS, best_of, turns
from nembp.benchmarks.timing import Contender, interleave
from nembp.benchmarks.torch_graphs import device_clock
from nembp.benchmarks.torch_maps import from_image, to_image
from nembp.benchmarks.window_products import BLOCK, WindowProducts, extent
from nembp.engine.convolution import Convolution
from nembp.threads import single_threaded_blas

__all__ = ["EngineLayer", "TorchLayer", "measure_layer"]

Host = np.ndarray[Any, Any]
RESULTS = ("output", "input's gradient", "kernels' gradient")


class EngineLayer:
    """nembp's contractions as a training step makes them: signals up, then errors down.

    On several threads the step's own share the rows, and BLAS keeps to one meanwhile.
    """

    def __init__(
        self, linear_map: Convolution, backend: Backend, x: Host, y: Host, W: Host, dtype: str
    ) -> None:
        self._x, self._y = backend.asarray(x, dtype), backend.asarray(y, dtype)
        self._W = backend.asarray(W, dtype)
        workers = backend.workers() if linear_map.in_workers else 1
        self._map = linear_map.workspace(backend, (len(x),), dtype, workers=workers)
        self._blas = single_threaded_blas if workers > 1 else nullcontext
        self._up, self._down = backend.empty(y.shape, dtype), backend.empty(x.shape, dtype)
        self._gradient = backend.empty(W.shape, dtype)
        self._to_numpy = backend.to_numpy

    def __call__(self) -> None:
        """Compute all three."""
        with self._blas():
            self._map.load(self._W)
            self._map.forward(self._x, self._up)
            self._map.adjoint_and_gradient(self._x, self._y, self._down, self._gradient)

    def results(self) -> list[Host]:
        """Return T's three derivatives, computed last."""
        return [self._to_numpy(array) for array in (self._up, self._down, self._gradient)]


class TorchLayer:
    """``conv2d`` and ``torch.autograd.grad`` with respect to images and kernels.

    Raises
    ------
    MissingPeerError
        If PyTorch is not installed, or has no CUDA where the backend is a GPU.
    """

    def __init__(
        self,
        linear_map: Convolution,
        backend: Backend,
        x: Host,
        y: Host,
        W: Host,
        dtype: str,
        channels_last: bool,
    ) -> None:
        torch = import_peer("torch")
        device = "cuda" if backend.name == "gpu" else "cpu"
        if device == "cuda" and not torch.cuda.is_available():
            raise MissingPeerError("no CUDA")
        self.synchronize = torch.cuda.synchronize if device == "cuda" else backend.synchronize
        layout = torch.channels_last if channels_last else torch.contiguous_format

        def tensor(array: Host, trained: bool = False) -> Any:
            images = torch.tensor(np.ascontiguousarray(array, dtype), device=device)
            return images.to(memory_format=layout).requires_grad_(trained)

        self._x = tensor(to_image(x, linear_map.shape), trained=True)
        self._y = tensor(to_image(y, linear_map.output_shape))
        self._W = tensor(W.transpose(3, 2, 0, 1), trained=True)
        way = {"stride": linear_map.stride, "padding": linear_map.padding}
        self._forward = partial(torch.nn.functional.conv2d, **way)
        self._gradients = torch.autograd.grad

    def __call__(self) -> None:
        """Compute all three."""
        self._up = self._forward(self._x, self._W)
        self._down = self._gradients(self._up, (self._x, self._W), self._y)

    def results(self) -> list[Host]:
        """Return T's three derivatives, computed last, in the engine's layout."""
        up, x, W = (each.detach().cpu().contiguous().numpy() for each in (self._up, *self._down))
        return [from_image(up), from_image(x), W.transpose(2, 3, 1, 0)]


def measure_layer(
    case: ImageCase, backend: Backend, repeats: int | None, budget: float
) -> dict[str, Any]:
    """Time a layer, after a check that PyTorch computes the same."""
    linear_map = convolution_of(case.network)
    assert linear_map is not None
    steps, missing = _contenders(linear_map, case, backend)
    clock_of = partial(device_clock, backend)
    agreement = _agreement(case, steps)
    contenders = {
        name: Contender(step, getattr(step, "synchronize", backend.synchronize), clock_of(step))
        for name, step in steps.items()
    }
    start = time.perf_counter()
    timings = interleave(contenders, repeats=repeats, budget=budget, **turns(case))
    elapsed = time.perf_counter() - start
    times: dict[str, dict[str, Any]] = {name: each.to_dict() for name, each in timings.items()}
    times |= best_of(times)
    ours, floor = times["nembp"]["median"], times["floor"]["median"]
    theirs = times["torch"]["median"] if "torch" in times else None
    work = 3 * case.batch * math.prod(extent(linear_map) or ())
    return {
        "kind": "layer",
        "network": case.network,
        "output_shape": linear_map.output_shape,
        "batch": case.batch,
        "threads": case.threads,
        "threads_in_force": threads_now(),
        "dtype": case.dtype,
        "multiply_adds": work,
        "agreement": agreement,
        "times": {**times, **{name: {"missing": reason} for name, reason in missing.items()}},
        "ratios": {
            "nembp/torch": None if theirs is None else ours / theirs,
            "nembp/floor": ours / floor,
        },
        "rate": work / ours,
        "seconds": elapsed,
        "headline": f"{1e3 * ours:.3g} ms, {timings['nembp'].rounds} rounds",
    }


def _contenders(
    linear_map: Convolution, case: ImageCase, backend: Backend
) -> tuple[dict[str, Any], dict[str, str]]:
    draw = stream(0, "benchmark/layer")
    x, y = (
        draw.standard_normal((case.batch, neurons), dtype=np.float32).astype(case.dtype)
        for neurons in (linear_map.inputs, linear_map.outputs)
    )
    W = linear_map.initial_weights(draw).astype(case.dtype)
    given = (linear_map, backend, x, y, W, case.dtype)
    built: dict[str, Any] = {"nembp": EngineLayer(*given)}
    missing: dict[str, str] = {}
    for layout, last in LAYOUTS.items():
        try:
            built[f"torch as {layout}"] = TorchLayer(*given, channels_last=last)
        except MissingPeerError as error:
            missing["torch"] = str(error)
    up, down = backend.asarray(y, case.dtype), backend.asarray(x, case.dtype)
    for how, block in {"at once": None, "in blocks": BLOCK}.items():
        products = WindowProducts(backend, linear_map, case.batch, case.dtype, block)
        built[f"floor as {how}"] = partial(_all_three, products, down, up)
    return built, missing


def _all_three(products: WindowProducts, x: Any, y: Any) -> None:
    products.forward(x, y)
    products.adjoint(y, x)
    products.weight_gradient(x, y)


def _agreement(case: ImageCase, steps: dict[str, Any]) -> dict[str, float]:
    """Return by how much PyTorch's results differ from nembp's at most, or raise."""
    found: dict[str, float] = {}
    ours = steps["nembp"]
    ours()
    for name, theirs in steps.items():
        if name.startswith("torch"):
            theirs()
            found[name] = max(
                check_agreement(f"the {what} of {case}", a, b)
                for what, a, b in zip(RESULTS, ours.results(), theirs.results(), strict=True)
            )
    return found
