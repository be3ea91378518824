"""A stand-in for CuPy made of NumPy, so that the Python side of `CupyBackend` runs without a GPU.

What it takes seriously: arrays of the device are no NumPy arrays and refuse to become any; kernels
are the real sources, compiled for the host (:mod:`cuda_on_cpu`), with the types of their arguments
checked; work can be deferred, each stream in its order and streams in either order, so that events
that are missing show; a graph under capture records calls in place of doing them, and refuses what
CUDA refuses (copies to and from the host, waiting, compiling, and CuPy's own products); memory has
a limit. New memory holds NaN or nonsense.

What it cannot know: speed, rounding of the device, and whether CUDA itself agrees.
"""

from __future__ import annotations

import contextlib
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from cuda_on_cpu import Kernel
from fake_arrays import FUNCTIONS, Device, array, asarray, filled, ndarray, new, to_host
from fake_cublas import Cublas
from fake_streams import (
    CUDARuntimeError,
    Event,
    Graph,
    MemoryPool,
    OutOfMemoryError,
    State,
    Stream,
    device,
    get_elapsed_time,
    new_device,
)

__all__ = ["CUDARuntimeError", "Cublas", "State", "Stream", "install", "make"]


class RawModule:
    def __init__(self, code: str, options: tuple[str, ...] = ()) -> None:
        device().sync_allowed("a module is loaded")
        self.code = code

    def get_function(self, name: str) -> Callable[..., None]:
        device().sync_allowed("a kernel is loaded")
        kernel = Kernel(self.code, name)

        def launch(grid: Any, block: Any, args: Any) -> None:
            device().launches.append(name)
            device().current.put(kernel(grid, block, args))

        return launch


@contextlib.contextmanager
def using_allocator(allocate: Callable[[int], Any]) -> Iterator[None]:
    before, device().allocate = device().allocate, allocate
    try:
        yield
    finally:
        device().allocate = before


def set_allocator(allocate: Callable[[int], Any]) -> None:
    device().allocate = allocate


def _pinned(size: int) -> Any:
    device().sync_allowed("memory of the host is locked")
    return bytearray(b"\xab" * size)


def make() -> types.ModuleType:
    """Return the module ``cupy``."""
    cupy = types.ModuleType("cupy")
    named = {n: getattr(np, n) for n in dir(np) if isinstance(getattr(np, n), type)}
    vars(cupy).update({k: v for k, v in named.items() if k not in ("ndarray", "matrix")})
    vars(cupy).update(FUNCTIONS)
    vars(cupy).update(
        ndarray=ndarray, asarray=asarray, array=array, asnumpy=to_host, zeros=filled(0.0),
        ones=filled(1.0), empty=_new_array, RawModule=RawModule, pi=np.pi, inf=np.inf,
        nan=np.nan, newaxis=None, e=np.e, get_default_memory_pool=lambda: device().pool,
        __version__="14.2.0",
    )  # fmt: skip
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda device: {"name": b"NumPy"},
        memGetInfo=lambda: (device().memory_limit - device().pool.total, device().memory_limit),
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        streamCaptureModeRelaxed=2,
    )
    cupy.cuda = types.ModuleType("cupy.cuda")  # type: ignore[attr-defined]
    vars(cupy.cuda).update(
        Device=Device, Stream=Stream, Event=Event, MemoryPool=MemoryPool, runtime=runtime,
        memory=types.SimpleNamespace(OutOfMemoryError=OutOfMemoryError), Graph=Graph,
        get_current_stream=lambda: device().current, set_allocator=set_allocator,
        using_allocator=using_allocator, alloc_pinned_memory=_pinned,
        get_elapsed_time=get_elapsed_time,
    )  # fmt: skip
    return cupy


def _new_array(shape: Any, dtype: Any = float, **options: Any) -> ndarray:
    return new(shape, dtype)


def install(monkeypatch: Any) -> State:
    """Make `import cupy` give this, and `CupyBackend` find its cuBLAS; return the device."""
    state = new_device()
    cupy = make()
    devices = types.ModuleType("cupy.cuda.device")
    vars(devices)["Device"] = Device
    modules = {"cupy": cupy, "cupy.cuda": vars(cupy)["cuda"], "cupy.cuda.device": devices}
    for name, original in (("linalg", np.linalg), ("fft", np.fft)):
        module = modules[f"cupy.{name}"] = vars(cupy)[name] = types.ModuleType(f"cupy.{name}")
        vars(module).update({n: getattr(original, n) for n in original.__all__})
        vars(module)["__all__"] = list(original.__all__)
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("nembp.backend.gpu.load_cublas", Cublas)
    return state
