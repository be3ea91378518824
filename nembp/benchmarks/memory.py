"""Peak memory of a training run of MNIST's size, in a process of its own.

The process draws 60,000 + 10,000 uint8 images of 784 pixels, trains 784-512-256-10 in both
directions for one epoch as :class:`~nembp.engine.training.Trainer` does it, and scores both splits.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from typing import Any

import numpy as np

from nembp.backend import get_backend, stream
from nembp.benchmarks.harness import threads_limited
from nembp.benchmarks.peers import TorchStep, import_peer
from nembp.datasets import Scaling, Split
from nembp.datasets.reading import BatchReader
from nembp.engine.likelihoods import Gaussian
from nembp.engine.metrics import evaluate
from nembp.engine.network import dense_network
from nembp.engine.training import Trainer

IMAGES, TEST_IMAGES, SIZES, BATCH = 60_000, 10_000, (784, 512, 256, 10), 128
INPUTS, CLASSES = SIZES[0], SIZES[-1]


def peak_memory(threads: int, dtype: str, device: str, images: int = IMAGES) -> dict[str, Any]:
    """Train in a child process and return its peak resident memory.

    ``bytes`` is the peak, ``start_bytes`` that before the data; of a GPU ``device_bytes`` is what
    was reserved, ``torch_device_bytes`` the same of PyTorch. Or ``failed``, the reason.
    """
    found = _in_a_child(train, threads=threads, dtype=dtype, device=device, images=images)
    if device == "gpu" and "failed" not in found:
        found |= _in_a_child(train_torch, images=images)
        found["torch_failed"] = found.pop("failed", None)
    return found


def _in_a_child(function: Callable[..., dict[str, Any]], **arguments: Any) -> dict[str, Any]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        try:
            return pool.submit(function, **arguments).result()
        except Exception as error:  # noqa: BLE001  of the training, or that its process ended
            return {"failed": f"{type(error).__name__}: {error}"}


def resident_peak() -> int | None:
    """Return the peak resident memory of this process in bytes; None where no one tells it.

    Linux's VmHWM: getrusage's ru_maxrss of a child starts at its parent's.
    """
    with suppress(OSError), open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    with suppress(ImportError):  # Windows has none
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return None


def _drawn(draw: np.random.Generator, images: int) -> tuple[Any, Any]:
    x = draw.integers(0, 256, (images, INPUTS), dtype=np.uint8)
    return x, draw.integers(0, CLASSES, images)


def train(*, threads: int, dtype: str, device: str, images: int) -> dict[str, Any]:
    """Train in this process and return what :func:`peak_memory` reports."""
    backend, draw = get_backend(device), stream(0, "benchmark/memory")
    start_bytes, start = resident_peak(), time.perf_counter()
    to_unit, same = Scaling(factor=1 / 255), Scaling()
    training, test = (
        BatchReader(Split(*_drawn(draw, rows)), to_unit, same, CLASSES, backend, dtype)
        for rows in (images, max(1, images * TEST_IMAGES // IMAGES))
    )
    net = dense_network(SIZES, backward=Gaussian(variance=10.0), device=backend, dtype=dtype)
    with threads_limited(threads):
        trainer = Trainer(net, training, epochs=1, batch_size=BATCH)
        trainer.run()
        for split in (training, test):
            evaluate(net, split)
    return {
        "bytes": resident_peak(), "start_bytes": start_bytes,
        "seconds": time.perf_counter() - start, "network": "-".join(map(str, SIZES)),
        "images": images, "image_bytes": images * INPUTS, "batch": trainer.batch_size,
        "steps": trainer.iteration, "threads": threads, "dtype": dtype,
        "device": backend.describe(), "torch_device_bytes": None,
        "device_bytes": getattr(backend, "reserved_memory", lambda: None)(),
    }  # fmt: skip


def train_torch(*, images: int) -> dict[str, Any]:
    """Train the same network with PyTorch on a GPU; return the bytes that it reserved there."""
    torch = import_peer("torch")
    x, y = (
        torch.tensor(each, device="cuda") for each in _drawn(stream(0, "benchmark/memory"), images)
    )
    net = dense_network(SIZES, backward=Gaussian(variance=10.0), device="gpu")
    first = np.zeros((BATCH, INPUTS), "f4"), np.zeros(BATCH, "i8")
    step = TorchStep(net, *first, bidirectional=True, learning_rate=1e-3)
    for chosen in torch.randperm(images, device="cuda").split(BATCH):
        if len(chosen) == BATCH:
            step.x.copy_(x[chosen])
            step.x.mul_(1 / 255)
            step.labels.copy_(y[chosen])
            step.t.copy_(torch.nn.functional.one_hot(step.labels, CLASSES))
            step()
    torch.cuda.synchronize()
    return {"torch_device_bytes": torch.cuda.max_memory_reserved()}
