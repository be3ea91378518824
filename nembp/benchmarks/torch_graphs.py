"""PyTorch's steps as fast as it can make them on a GPU: compiled, and captured as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nembp.backend import Backend
from nembp.benchmarks.peers import MissingPeerError, TorchStep, import_peer

__all__ = ["CapturedTorchStep", "CompiledTorchStep", "device_clock", "set_precision"]

WARM_UP = 3


def set_precision(precision: str) -> None:
    """Let PyTorch's float32 products be TF32 too, or not; nothing where it is not installed."""
    try:
        torch = import_peer("torch")
    except MissingPeerError:
        return
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"


def device_clock(backend: Backend, step: Any) -> Callable[[Callable[[], object]], float] | None:
    """Return what times a contender by events of the GPU that it works on; None on a CPU."""
    if backend.name != "gpu":
        return None
    if not hasattr(step, "synchronize"):
        return backend.seconds
    torch = import_peer("torch")

    def seconds(work: Callable[[], object]) -> float:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return seconds


class CompiledTorchStep(TorchStep):
    """`TorchStep` with objective and update under ``torch.compile(mode="reduce-overhead")``."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        torch = import_peer("torch")
        eta = torch.tensor(float(options["learning_rate"]), device=self.x.device)
        self._optimizer = torch.optim.Adam(self._trained(), lr=eta, capturable=self.on_gpu)
        self._begin = torch.compiler.cudagraph_mark_step_begin
        try:
            self._compiled = torch.compile(self.objective, mode="reduce-overhead")
            self._update = torch.compile(self._optimizer.step, mode="reduce-overhead")
            for _ in range(WARM_UP):
                self()
        except Exception as error:  # whatever a compiler raises
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise MissingPeerError(f"not compiled: {reason[0][:60]}") from error

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._begin()
        self._optimizer.zero_grad(set_to_none=True)
        self._compiled().backward()
        self._update()


class CapturedTorchStep(TorchStep):
    """`TorchStep`, eager, with all of it captured as one CUDA graph.

    Raises
    ------
    MissingPeerError
        If there is no CUDA.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        torch = import_peer("torch")
        if not self.on_gpu:
            raise MissingPeerError("GPU only")
        eta = options["learning_rate"]
        self._optimizer = torch.optim.Adam(self._trained(), lr=eta, fused=True, capturable=True)
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                super().__call__()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        self._optimizer.zero_grad(set_to_none=True)
        with torch.cuda.graph(self._graph):
            self.objective().backward()
            self._optimizer.step()

    def __call__(self) -> None:
        """Gradient and Adam update."""
        self._graph.replay()
