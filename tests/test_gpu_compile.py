"""The CUDA sources compile for the GPUs of today without a warning: NVRTC needs no GPU for that."""

from __future__ import annotations

import ctypes
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from nembp.backend import fused
from nembp.backend.fused import OPTIONS, SOURCES, kernel_source

WHEELS = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")


@cache
def nvrtc() -> Any:
    for wheel in WHEELS:
        try:
            files = metadata.files(wheel) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if file.name.startswith("libnvrtc.so"):
                return ctypes.CDLL(str(Path(str(file.locate()))))
    return None


needs_nvrtc = pytest.mark.skipif(
    nvrtc() is None, reason=f"NVRTC is not installed: pip install {WHEELS[0]}"
)


def compile_kernels(source: str, architecture: str) -> tuple[int, str]:
    """Return NVRTC's status and its log."""
    library, program, size = nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    code = source.encode()
    assert not library.nvrtcCreateProgram(ctypes.byref(program), code, b"kernels.cu", 0, None, None)
    options = [f"--gpu-architecture={architecture}".encode(), *(o.encode() for o in OPTIONS)]
    status = library.nvrtcCompileProgram(
        program, len(options), (ctypes.c_char_p * len(options))(*options)
    )
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    library.nvrtcDestroyProgram(ctypes.byref(program))
    return status, log.value.decode().strip()


@needs_nvrtc
@pytest.mark.parametrize(("dtype", "architecture"), [("float32", "sm_80"), ("float64", "sm_90")])
def test_kernels_compile(dtype, architecture):
    assert compile_kernels(kernel_source(dtype), architecture) == (0, "")


def test_every_source_is_used():
    folder = Path(fused.__file__).parent / "cuda"
    assert {path.stem for path in folder.glob("*.cu")} == set(SOURCES)
