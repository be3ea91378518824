"""Which vector instructions nembp's and the peer's kernels use, asked of the libraries.

OpenBLAS names the processor that its kernels are made for; oneDNN, which has PyTorch's
convolutions, names its instruction set only in its log, and nowhere else.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

__all__ = ["level_of", "onednn_instructions", "pinning_note"]

TIME_LIMIT: Final = 60.0  # seconds
LEVELS: Final = ("AVX-512", "AVX2", "AVX", "SSE")  # best first
# OpenBLAS's core types on x86-64; those of other processors have no entry
CORE_TYPES: Final = {
    **dict.fromkeys(("skylakex", "cooperlake", "sapphirerapids"), "AVX-512"),
    **dict.fromkeys(("haswell", "zen", "excavator"), "AVX2"),
    **dict.fromkeys(("sandybridge", "bulldozer", "piledriver", "steamroller"), "AVX"),
    **dict.fromkeys(("prescott", "core2", "penryn", "nehalem", "atom", "barcelona"), "SSE"),
}
_ASK: Final = """
import torch
with torch.backends.mkldnn.verbose(torch.backends.mkldnn.VERBOSE_ON):
    torch.nn.functional.conv2d(torch.ones(17, 8, 8, 8), torch.ones(8, 8, 4, 4))
"""


@cache
def onednn_instructions() -> str | None:
    """Return oneDNN's instruction set as its log has it; None if it tells none.

    In a process of its own, under the same environment: oneDNN fixes its instruction set once, and
    writes its log to standard output.
    """
    try:
        child = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            check=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search("info,cpu,isa:(.*)", child.stdout)
    return found[1].strip() if found else None


def level_of(text: str | None) -> str | None:
    """Return the instruction set that a core type, or a library's own words, stand for.

    >>> level_of("Haswell"), level_of("Intel AVX-512 with AVX512BW, AVX512VL, and AVX512DQ")
    ('AVX2', 'AVX-512')
    """
    if not text:
        return None
    if text.lower() in CORE_TYPES:
        return CORE_TYPES[text.lower()]
    plain = text.upper().replace("AVX10", "AVX-512").replace("AVX512", "AVX-512")
    return next((level for level in LEVELS if level in plain), None)


def pinning_note(
    blas: list[dict[str, Any]], torch: dict[str, Any] | None, pins: Mapping[str, str]
) -> str | None:
    """Return a note if nembp's products and PyTorch's kernels use different instruction sets.

    Parameters
    ----------
    blas, torch : list of dict, dict
        As in :func:`nembp.benchmarks.environment.describe`; NumPy's BLAS comes first.
    pins : mapping
        Environment variables that choose kernels.
    """
    ours = level_of(blas[0]["core_type"]) if blas else None
    theirs = level_of((torch or {}).get("onednn") or (torch or {}).get("cpu_capability"))
    if ours is None or theirs is None or ours == theirs:
        return None
    behind = LEVELS.index(ours) > LEVELS.index(theirs)
    names = ("OPENBLAS_CORETYPE",) if behind else ("ONEDNN_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY")
    free = " ".join(f"-u {name}" for name in names if name in pins)
    if behind:
        hold = f"ONEDNN_MAX_CPU_ISA={ours} ATEN_CPU_CAPABILITY={ours.lower()}"
    else:
        hold = "OPENBLAS_CORETYPE=Haswell"
    remedies = [f"`env {free} nembp bench ...`"] if free else []
    return (
        f"nembp's products use {ours} ({blas[0]['library']}, core type {blas[0]['core_type']}), "
        f"PyTorch's convolutions {theirs}; both use the same under "
        f"{' or '.join([*remedies, f'`{hold} nembp bench ...`'])}. PyTorch's dense products are "
        "MKL's, which chooses for itself"
    )
