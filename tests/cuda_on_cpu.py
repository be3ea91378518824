"""The CUDA kernels compiled by the host's C++ compiler (cuda_on_cpu.h), as RawModule has them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

COMPILER = shutil.which("g++") or shutil.which("clang++")
HEADER = Path(__file__).with_name("cuda_on_cpu.h")
FLAGS = (
    "-std=c++17", "-O1", "-ffp-contract=off", "-fno-math-errno", "-shared", "-fPIC", "-Wall",
    "-Wextra", "-Werror", "-Wno-unused-function", "-Wno-unknown-pragmas",
    "-Wl,-Bsymbolic",
)  # fmt: skip
ONE_AT_A_TIME = threading.Lock()  # the place of the CUDA thread that runs is one for all
SCALARS = {
    "int": np.int32,
    "count_t": np.int64,
    "word64": np.uint64,
    "double": np.float64,
    "float": np.float32,
    "unsigned char": np.uint8,
}


@cache
def preprocessed(source: str) -> str:
    """Return a source with its macros expanded: kernels may be made by macros."""
    assert COMPILER is not None
    command = [COMPILER, "-E", "-P", "-x", "c++", "-"]
    done = subprocess.run(command, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def signatures(source: str) -> dict[str, list[tuple[str, bool]]]:
    """Return the arguments of every kernel: the type of each, and whether it is a pointer."""
    kernels = re.findall(r'extern "C" __global__ void\s+(\w+)\s*\(([^)]*)\)', preprocessed(source))
    return {name: [_argument(a) for a in text.split(",")] for name, text in kernels}


def _argument(text: str) -> tuple[str, bool]:
    kind = re.sub(r"\bconst\b|\w+\s*$", "", text.strip()).strip()
    return kind.rstrip("* ").strip(), kind.endswith("*")


def with_barriers(source: str) -> set[str]:
    """Return the functions in which a block waits for all of its threads, by whatever they call."""
    heads = r"(?:__global__|__device__) [^;{}()]*?(\w+)\s*\([^()]*\)\s*(?={)"
    pieces = re.split(heads, preprocessed(source))
    bodies = dict(zip(pieces[1::2], pieces[2::2], strict=True))
    waiting, more = {"__syncthreads"}, True
    while more:
        calls = re.compile(rf"\b({'|'.join(waiting)})\s*\(")
        found = {name for name, body in bodies.items() if calls.search(body)}
        more = not found <= waiting
        waiting |= found
    return waiting


@cache
def compiled(source: str) -> ctypes.CDLL:
    """Compile a source once in the life of this machine's temporary folder."""
    assert COMPILER is not None
    waiting = with_barriers(source)
    launchers = []
    for name, arguments in signatures(source).items():
        casts = [
            f"*({kind}{'*' if pointer else ''}*)args[{i}]"
            for i, (kind, pointer) in enumerate(arguments)
        ]
        launchers.append(
            f"static void call_{name}(void** args) {{ {name}({', '.join(casts)}); }}\n"
            f'extern "C" int launch_{name}(const unsigned int* sizes, void** args) '
            f"{{ return launch(call_{name}, {int(name in waiting)}, sizes, args); }}"
        )
    text = "\n".join([HEADER.read_text(), source, *launchers])
    key = hashlib.sha256((text + COMPILER).encode()).hexdigest()[:16]
    library = Path(tempfile.gettempdir()) / f"nembp-kernels-{os.getuid()}-{key}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory() as folder:
            code, made = Path(folder) / "kernels.cpp", Path(folder) / "kernels.so"
            code.write_text(text)
            done = subprocess.run(
                [COMPILER, *FLAGS, str(code), "-o", str(made)],
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            staged = library.with_suffix(f".{os.getpid()}")
            shutil.copy(made, staged)
            os.replace(staged, library)
    return ctypes.CDLL(str(library))


class Kernel:
    """A kernel that checks what nothing on a GPU checks: number and types of its arguments."""

    def __init__(self, source: str, name: str) -> None:
        real = np.float64 if "#define NEMBP_DOUBLE" in source.splitlines()[0] else np.float32
        self._scalars = {**SCALARS, "real": real}
        self.name, self.arguments = name, signatures(source)[name]
        self._launch = getattr(compiled(source), f"launch_{name}")

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> Any:
        """Return what launches the kernel; the arguments are read now, as a launch does."""
        assert len(args) == len(self.arguments), f"{self.name} takes {len(self.arguments)}"
        assert np.prod(block) <= 1024
        assert all(1 <= size <= 2**31 - 1 for size in grid)
        values = [self._value(*each) for each in zip(args, self.arguments, strict=True)]
        sizes = (ctypes.c_uint * 6)(*(*grid, 1, 1)[:3], *(*block, 1, 1)[:3])

        def launch() -> None:
            pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
            with ONE_AT_A_TIME:  # threads of the host may launch at once
                status = self._launch(sizes, pointers)
            assert status == 0, f"{self.name}: a barrier was not reached"

        launch.arrays = args  # type: ignore[attr-defined]  # kept alive
        return launch

    def _value(self, arg: Any, argument: tuple[str, bool]) -> np.ndarray[Any, Any]:
        kind, pointer = argument
        dtype = np.dtype(self._scalars[kind])
        if pointer and not isinstance(arg, np.uintp):
            assert arg.dtype == dtype, f"{self.name} takes {kind}*, got {arg.dtype}"
            assert arg.flags.c_contiguous, f"{self.name}: an array is not contiguous"
            return np.array([arg.data.ptr], np.uint64)
        if pointer:
            assert arg == 0
            return np.array([0], np.uint64)
        assert type(arg) is dtype.type, f"{self.name} takes {kind}, got {type(arg).__name__}"
        return np.array([arg])
