"""`CupyBackend` itself: products, memory, copies that overlap, and what it says when it cannot."""

from __future__ import annotations

import gc
import sys
import weakref
from types import ModuleType
from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import gpu, needs_kernels
from hypothesis import given
from hypothesis import strategies as st

import nembp.backend.gpu
from nembp.backend import get_backend, gpu_seems_present, stream
from nembp.backend.gpu import FULL_PRECISION, TF32, CupyBackend
from nembp.errors import ArchitectureError, DeviceError, DeviceMemoryError

pytestmark = needs_kernels


@pytest.fixture
def device(monkeypatch):
    return fake_cupy.install(monkeypatch)


# -- products --------------------------------------------------------------------------------------
def laid_out(values: np.ndarray, how: str) -> Any:
    """Return a matrix on the device that lies in memory as asked."""
    rows, columns = values.shape
    if how == "rows":
        return gpu().asarray(values)
    if how == "transposed":
        return gpu().asarray(np.ascontiguousarray(values.T)).T
    if how == "part":
        return gpu().asarray(np.pad(values, ((1, 2), (0, 3))))[1 : 1 + rows, :columns]
    wide = np.zeros((rows, 2 * columns), values.dtype)
    wide[:, ::2] = values
    return gpu().asarray(wide)[:, ::2]


layouts = st.sampled_from(["rows", "transposed", "part", "gaps"])


@pytest.mark.parametrize("dtype", ["float32", "float64", "complex128"])
@given(
    rows=st.integers(1, 9), inner=st.integers(0, 9), columns=st.integers(1, 9),
    left=layouts, right=layouts, part=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_products_of_every_layout(dtype, rows, inner, columns, left, right, part, seed):
    generator = np.random.default_rng(seed)
    A, B = (generator.normal(size=size).astype(dtype) for size in ((rows, inner), (inner, columns)))
    out = gpu().empty((rows + 2, columns), dtype)
    out = out[1 : 1 + rows, :] if part else out[:rows, :]
    assert gpu().matmul(laid_out(A, left), laid_out(B, right), out) is out
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(gpu().to_numpy(out), A @ B, rtol=0, atol=tolerance)


@pytest.mark.parametrize(("precision", "mode"), [("float32", FULL_PRECISION), ("tf32", TF32)])
def test_precision(device, precision, mode, monkeypatch):
    library = fake_cupy.Cublas()
    monkeypatch.setattr(nembp.backend.gpu, "load_cublas", lambda: library)
    backend = CupyBackend(precision)
    assert library.math_mode == mode
    assert ("TF32" in backend.describe()) == (precision == "tf32")


def test_a_refusal_of_cublas_is_an_error(device, monkeypatch, capsys):
    backend = CupyBackend()
    x = backend.ones((2, 2), "float32")
    monkeypatch.setattr(backend._cublas, "_workspace", backend.empty((4,), "uint8"))
    with pytest.raises(DeviceError, match="cublasSetWorkspace_v2 of cuBLAS failed with status 7"):
        backend.matmul(x, x, backend.empty((2, 2), "float32"))


# -- memory ----------------------------------------------------------------------------------------
def test_a_full_memory_is_one_clear_line(device):
    backend = get_backend("gpu")
    assert backend.free_memory() > 0
    before = backend.reserved_memory()
    backend.empty((1000,), "float32")
    assert backend.reserved_memory() == before + 4000
    device.memory_limit = device.pool.total + 10_000_000
    calls = (
        lambda: backend.empty((3_000_000,), "float64"),
        lambda: backend.asarray(np.zeros(3_000_000)),
        lambda: backend.ones((1_000_000,), "float64") + 1.0,
    )
    for allocate in calls:
        with pytest.raises(
            DeviceMemoryError, match=r"^the GPU's memory is full: [^\n]*$"
        ) as caught:
            allocate()
        assert "MB are free. Use a smaller --batch-size" in str(caught.value)
        assert "--device cpu" in str(caught.value)
    assert caught.value.exit_code == 8
    assert isinstance(caught.value, MemoryError)


# -- where it cannot be used -----------------------------------------------------------------------
def _no_driver() -> int:
    raise fake_cupy.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")


def _no_cublas() -> Any:
    raise OSError("no libcublas.so.13")


CUPY, RUNTIME = "cupy", "runtime"
MISSING: dict[str, tuple[str, dict[str, Any]]] = {
    r"CuPy, which is not installed; install .*\[cuda12\]": (CUPY, {}),
    "needs a CUDA GPU and driver, and CuPy found none .*no CUDA-capable device.*nvidia-smi": (
        RUNTIME, {"getDeviceCount": _no_driver, "driverGetVersion": lambda: 0},
    ),
    r"the driver knows CUDA 12, but the CuPy installed needs CUDA 13 .*nembp\[cuda12\]": (
        RUNTIME, {"getDeviceCount": _no_driver, "driverGetVersion": lambda: 12080},
    ),
    "the driver lists no GPU": (RUNTIME, {"getDeviceCount": lambda: 0}),
    r"needs cuBLAS, which was not found \(no libcublas.so.13\).*nembp\[cuda13\]": (
        "cublas", {"load_cublas": _no_cublas},
    ),
}  # fmt: skip


@pytest.mark.parametrize("says", MISSING)
def test_what_is_missing_is_named_and_auto_takes_the_cpu(device, monkeypatch, says):
    where, replaced = MISSING[says]
    if where == CUPY:
        monkeypatch.setitem(sys.modules, "cupy", None)
    on = sys.modules["cupy"].cuda.runtime if where == RUNTIME else nembp.backend.gpu
    for name, value in replaced.items():
        monkeypatch.setattr(on, name, value)
    with pytest.raises(DeviceError, match=says) as caught:
        get_backend("gpu")
    assert caught.value.exit_code == 4
    assert "--device cpu" in str(caught.value)
    assert get_backend("auto").name == "cpu"


def test_a_memory_that_others_fill_and_unknown_names(device):
    with pytest.raises(ArchitectureError, match="one of float32, tf32, got 'half'"):
        get_backend("gpu", "half")  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="'auto', 'cpu' or 'gpu', got 'tpu'"):
        get_backend("tpu")
    device.memory_limit = 100
    with pytest.raises(DeviceMemoryError, match="memory is full"):
        get_backend("gpu")
    assert get_backend("auto").name == "cpu"


def test_a_gpu_seems_present_where_there_is_cupy_or_a_driver(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.setattr("nembp.backend.os.path.exists", lambda path: False)
    monkeypatch.setattr("nembp.backend.shutil.which", lambda name: None)
    assert not gpu_seems_present()
    for name, there in (("os.path.exists", "/dev/nvidiactl"), ("shutil.which", "nvidia-smi")):
        with monkeypatch.context() as patch:
            patch.setattr(f"nembp.backend.{name}", lambda path, there=there: path == there)
            assert gpu_seems_present()
    monkeypatch.setitem(sys.modules, "cupy", ModuleType("cupy"))
    assert gpu_seems_present()


# -- copies that overlap ---------------------------------------------------------------------------
@pytest.mark.parametrize("copies_first", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_batches_that_are_copied_while_steps_run(device, copies_first, dtype):
    """Streams do their work as late and in as unkind an order as they may."""
    backend = CupyBackend()
    buffers = [backend.host_buffer((3, 4), dtype) for _ in range(2)]
    outs = [backend.empty((3, 4), "float32") for _ in range(7)]
    backend.synchronize()
    device.deferred, device.copies_first = True, copies_first
    expected = []
    for k, out in enumerate(outs):
        buffer = buffers[k % 2]
        backend.wait_for_copy(buffer)
        buffer[...] = np.arange(12).reshape(3, 4) + 10 * k
        rows = 2 if k == 4 else 3
        backend.receive(buffer[:rows], out[:rows, :], None, 0.5)
        expected.append(0.5 * buffer[:rows].astype("f4"))
    backend.synchronize()
    for out, values in zip(outs, expected, strict=True):
        assert np.array_equal(backend.to_numpy(out)[: len(values)], values)


def test_other_memory_of_the_host_is_copied_at_once(device):
    backend = CupyBackend()
    device.deferred = True
    values, out = np.ones((2, 2), "float32"), backend.empty((2, 2), "float32")
    backend.receive(values, out, None, 2.0)
    values[...] = 5.0
    assert np.array_equal(backend.to_numpy(out), np.full((2, 2), 2.0, "f4"))


# -- random draws ----------------------------------------------------------------------------------
def test_draws_into_part_of_a_matrix_and_into_complex_numbers():
    for dtype, tail in (("float32", (slice(None), slice(0, 2))), ("complex128", (slice(None),))):
        out = gpu().zeros((5, 4), dtype)
        gpu().normal(gpu().generator(0, "a"), out[tail])
        found = gpu().to_numpy(out)
        assert np.all(found[tail] != 0.0)
        assert np.count_nonzero(found) == found[tail].size


def test_noise_drawn_on_the_host_is_the_cpus():
    cpu, out = np.empty((3, 4), "float32"), gpu().empty((3, 4), "float32")
    get_backend("cpu").normal(stream(1, "a"), cpu)
    gpu().normal(stream(1, "a"), out)
    assert np.array_equal(gpu().to_numpy(out), cpu)


# -- graphs ----------------------------------------------------------------------------------------
def test_a_graph_keeps_what_it_works_on():
    """Else its memory would be given to others, and a replay would write into it."""
    x = gpu().ones((3,), "float32")
    alive = weakref.ref(x)

    def work(x: Any = x) -> None:
        x += 1.0

    work()
    launch = gpu().capture_graph(work)
    del x, work
    gc.collect()
    assert alive() is not None
    launch()
    assert gpu().to_numpy(alive()).tolist() == [3.0, 3.0, 3.0]


def test_a_function_is_captured_at_its_third_call_with_the_same_arguments():
    x, called = gpu().zeros((2,), "float32"), []

    def add(index: int) -> None:
        called.append(index)
        part = x[index : index + 1]
        part += 1.0

    captured = gpu().capture(add)
    for index in (0, 0, 1, 0, 0, 1):
        captured(index)
    assert called == [0, 0, 1, 0, 1]  # the fourth call captures, the fifth launches alone
    assert gpu().to_numpy(x).tolist() == [4.0, 2.0]
    assert (captured.launches, captured.reason) == (2, None)
    assert get_backend("cpu").capture(add) is add


def test_an_error_while_capturing_ends_the_capture(device):
    backend = CupyBackend()
    with pytest.raises(ZeroDivisionError):
        backend.capture_graph(lambda: 1 // 0)
    assert not any(stream.is_capturing() for stream in device.streams)
    assert backend.to_numpy(backend.ones((1,), "float32")) == 1.0
