"""Threads, instruction sets, conditions and memory of a run."""

from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import pytest

from nembp.backend import get_backend
from nembp.benchmarks import environment, instructions, memory, other_work, report


def test_threads_are_set_for_every_library_and_restored(monkeypatch):
    torch = pytest.importorskip("torch", reason="CI installs torch")
    before, blas_before = torch.get_num_threads(), environment.threads_now()["blas"]
    told, tell = [], torch.set_num_threads  # PyTorch's own MKL obeys nothing else
    monkeypatch.setattr(torch, "set_num_threads", lambda n: (told.append(n), tell(n)))
    for threads in (1, 2):
        with environment.threads_limited(threads):
            assert environment.threads_now() == {"blas": threads, "torch": threads}
            assert {library["threads"] for library in environment.blas_libraries()} == {threads}
    assert told == [1, before, 2, before]
    assert torch.get_num_threads() == before
    assert environment.threads_now()["blas"] == blas_before


def test_pinning_variables_and_core_type_are_reported(monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "Haswell")
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    monkeypatch.setenv("HARMLESS", "1")
    found = environment.conditions()["environment"]
    assert found["OPENBLAS_CORETYPE"] == "Haswell"
    assert found["OMP_NUM_THREADS"] == "3"
    assert found["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "HARMLESS" not in found
    described = environment.describe(get_backend("cpu"))
    assert described["versions"]["numpy"] == np.__version__
    assert described["blas"]
    assert all({"library", "core_type", "threads"} <= set(entry) for entry in described["blas"])


def test_peak_memory_is_that_of_the_child():
    ballast = np.ones(50_000_000, dtype=np.float64)  # 400 MB here must not count there
    peak = memory.peak_memory(threads=1, dtype="float32", device="cpu", images=300)
    assert peak["steps"] == 3
    assert peak["start_bytes"] <= peak["bytes"] < ballast.nbytes
    assert peak["image_bytes"] == 300 * 784
    line = report.memory_line(peak)
    assert line.startswith("peak memory: ")
    assert "3 bidirectional steps" in line


def test_peak_memory_grows_with_the_data():
    few, many = (
        memory.peak_memory(threads=1, dtype="float32", device="cpu", images=images)["bytes"]
        for images in (128, 20_128)
    )
    assert many - few > 0.9 * 20_000 * 784


def test_a_failed_memory_run_says_why():
    peak = memory.peak_memory(threads=1, dtype="float16", device="cpu", images=10)
    assert "float16" in peak["failed"]
    assert "not measured" in report.memory_line(peak)


# -- other work --------------------------------------------------------------------------------
def test_this_process_s_own_work_is_not_others():
    before = other_work.Meter.read()
    if before is None:
        pytest.skip("no /proc/stat here")
    end = time.process_time() + 0.1
    while time.process_time() < end:
        pass
    assert other_work.Meter.read().own - before.own > 0.09  # a difference of rounded seconds
    mine = other_work.shares(other_work.Meter(10, 1, 0, 1), other_work.Meter(20, 7, 0, 7))
    assert mine == {"processes": 0.0, "host": 0.0}


def test_other_work_is_noted_where_it_matters():
    assert other_work.note(None) is None
    assert other_work.note({"processes": 0.01, "host": 0.01}) is None
    text = other_work.note({"processes": 0.25, "host": 0.02})
    assert "25%" in text
    assert "2%" in text


def test_a_child_process_is_own_work_too():
    before = other_work.Meter.read()
    if before is None:
        pytest.skip("no /proc/stat here")
    spin = "import time\nwhile time.process_time() < 0.2: pass"
    subprocess.run([sys.executable, "-c", spin], check=True)
    assert other_work.Meter.read().own - before.own > 0.15  # counted in ticks of 10 ms


# -- instruction sets --------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "level"),
    [
        ("Haswell", "AVX2"),
        ("Zen", "AVX2"),
        ("SkylakeX", "AVX-512"),
        ("Sandybridge", "AVX"),
        ("AVX512", "AVX-512"),
        ("Intel AVX-512 with Intel DL Boost and bfloat16 support", "AVX-512"),
        ("Intel AVX2 with Intel DL Boost", "AVX2"),
        ("Intel AVX10.1/512", "AVX-512"),
        ("Intel SSE4.1", "SSE"),
        ("neoversen1", None),
        (None, None),
    ],
)
def test_levels_of_core_types_and_of_libraries_own_words(text, level):
    assert instructions.level_of(text) == level


def _note(core_type, onednn, **pins):
    blas = [{"library": "openblas", "core_type": core_type}]
    return instructions.pinning_note(blas, {"onednn": onednn, "cpu_capability": "AVX2"}, pins)


def test_different_instruction_sets_are_noted_with_the_remedy():
    behind = _note("Haswell", "Intel AVX-512", OPENBLAS_CORETYPE="Haswell")
    assert "products use AVX2 (openblas, core type Haswell)" in behind
    assert "convolutions AVX-512" in behind
    assert "`env -u OPENBLAS_CORETYPE nembp bench ...` or `ONEDNN_MAX_CPU_ISA=AVX2 " in behind
    assert "env -u" not in _note("Haswell", "Intel AVX-512")
    ahead = _note("SkylakeX", "Intel AVX2", ONEDNN_MAX_CPU_ISA="AVX2")
    assert "`env -u ONEDNN_MAX_CPU_ISA nembp bench ...` or `OPENBLAS_CORETYPE=Haswell" in ahead


@pytest.mark.parametrize(("core_type", "onednn"), [("Haswell", "Intel AVX2"), (None, "Intel AVX2")])
def test_the_same_or_unknown_instruction_sets_are_not_noted(core_type, onednn):
    assert _note(core_type, onednn) is None
    assert instructions.pinning_note([], None, {}) is None


def test_onednn_obeys_the_variable_that_the_note_names(monkeypatch):
    pytest.importorskip("torch", reason="CI installs torch")
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    told = instructions.onednn_instructions.__wrapped__()
    if told is None:
        pytest.skip("this build of PyTorch has no oneDNN, or another architecture")
    assert instructions.level_of(told) == "SSE"
