"""The convolution suite: layers by themselves, and training steps of classifiers of images."""

from __future__ import annotations

from typing import Any

from nembp.backend import Backend
from nembp.benchmarks import Progress, Settings
from nembp.benchmarks.cases import ImageCase, measure_cases
from nembp.benchmarks.contractions import measure_layer
from nembp.benchmarks.notation import check_images as check_network
from nembp.benchmarks.notation import convolution_of
from nembp.benchmarks.steps import measure_step
from nembp.benchmarks.tables import convolution_table

__all__ = ["DEFAULTS", "QUICK", "STEP", "check_network", "measure", "table"]

CIFAR = "32x32x3/conv32x4s2/conv64x4s2/conv128x4s2/256/10"
DEFAULTS = Settings(
    networks=(
        "32x32x3/conv32x4s2",
        "16x16x32/conv64x4s2",
        "8x8x64/conv128x4s2",
        "32x32x3/conv64x5s2",
        "16x16x64/conv128x5s2",
        "32x32x32/conv32x3",
        "16x16x64/conv64x3",
        CIFAR,
    ),
    batches=(32, 128),
    threads=(1, 2),
    budget=200.0,
    memory=False,
)
QUICK = Settings(
    networks=("16x16x32/conv64x4s2", "32x32x32/conv32x3", CIFAR),
    batches=(32,),
    threads=(1, 2),
    budget=12.0,
    memory=False,
)
STEP = (
    "A layer is a convolution's output for a batch of images, then the gradients of its input and "
    "of its kernels for a given error: in PyTorch conv2d and torch.autograd.grad. A step is the "
    "gradient and Adam's update of every parameter of a network; PyTorch's bidirectional one goes "
    "up by conv2d and down by conv_transpose2d with the same kernels, one backward row a sample, "
    "with fused Adam. PyTorch runs eagerly, in both memory layouts, of which the faster counts. "
    "Before the timing its results are checked against nembp's."
)


def table(results: list[dict[str, Any]]) -> str:
    """Return the tables of layers and steps."""
    return convolution_table(results)


def measure(settings: Settings, backend: Backend, progress: Progress) -> list[dict[str, Any]]:
    """Time every layer and network of the settings."""

    def one(
        case: ImageCase, backend: Backend, repeats: int | None, budget: float
    ) -> dict[str, Any]:
        if convolution_of(case.network) is None:
            return measure_step(case, backend, repeats, budget)
        return measure_layer(case, backend, repeats, budget)

    return measure_cases(settings, backend, progress, ImageCase, one)
