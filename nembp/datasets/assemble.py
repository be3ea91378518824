"""From raw arrays to a checked `Dataset`: the one door every reader goes through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.checks import (
    check_counts,
    check_every_class,
    encode_labels,
    feature_array,
    is_labels,
    target_array,
)
from nembp.datasets.dataset import Dataset, Request, Split
from nembp.datasets.scaling import (
    Scaling,
    check_range,
    image_scaling,
    standardized,
    unit_range,
)
from nembp.datasets.sources import Samples
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError, DataError

__all__ = ["Raw", "assemble"]


@dataclass(frozen=True, eq=False)
class Raw:
    """Arrays as read, and what to call them in messages.

    Parameters
    ----------
    x : ndarray or Rows, shape (n, ...)
        Images (n, H, W[, C]) or table rows (n, features); what is memory-mapped stays so.
    y : ndarray, shape (n,) or (n, outputs)
        Labels or regression targets.
    x_name, y_name : str
        File and array each was read from.
    """

    x: Samples
    y: NDArray[Any]
    x_name: str
    y_name: str


def assemble(
    name: str,
    train: Raw,
    test: Raw | None,
    request: Request,
    *,
    source: str,
    attribution: str = "",
    classes: tuple[str, ...] = (),
    target_names: tuple[str, ...] = (),
    x_scaling: Scaling | None = None,
) -> Dataset:
    """Check raw arrays, split them where there is no test part, and scale them.

    Parameters
    ----------
    name, source, attribution : str
        Passed on to the `Dataset`.
    train, test : Raw
        Without `test`, `request.test_fraction` of `train` is held out, stratified by class.
    request : Request
        Gives `task`, `test_fraction`, `seed`, `limit` and `scaling`.
    classes : tuple of str
        Class names when `y` already holds labels 0..K-1; by default the labels that occur in
        `train`, in sorted order.
    target_names : tuple of str
        Regression targets; default y0, y1, ...
    x_scaling : Scaling, optional
        Of images to [0, 1], or of a table. Default: by the dtype or range of the values; tables
        are standardized on the training part.

    Returns
    -------
    Dataset

    Raises
    ------
    DataError
        If counts or shapes disagree, a value is NaN or infinite, a split is empty, or fewer than
        two classes occur.
    """
    labelled = bool(classes) or is_labels(train.y, train.y_name, request.task)
    splits = [train] if test is None else [train, test]
    xs = [feature_array(raw.x, raw.x_name) for raw in splits]
    for raw in splits:
        check_counts(raw.x, raw.y, raw.x_name, raw.y_name)
    if xs[-1].shape[1:] != xs[0].shape[1:]:
        raise DataError(
            f"{splits[-1].x_name}: samples of shape {xs[-1].shape[1:]}, but training samples have "
            f"shape {xs[0].shape[1:]} ({train.x_name}); expected the same shape in both"
        )
    if labelled:
        for raw in splits[1:]:
            is_labels(raw.y, raw.y_name, "classification")
        ys, classes = encode_labels([(raw.y, raw.y_name) for raw in splits], classes)
    else:
        ys = [target_array(raw.y, raw.y_name) for raw in splits]
        _check_outputs(ys, splits)
    parts = [Split(x, y) for x, y in zip(xs, ys, strict=True)]
    if test is None:
        held_out = _hold_out(ys[0], len(classes), request, train.x_name)
        parts = [parts[0].subset(rows) for rows in held_out]
    if labelled:
        check_every_class(parts[0].y, classes, train.y_name)
    kept = _limited(parts[0].y, len(classes), request)
    if kept is not None:
        parts[0] = parts[0].subset(kept)
    y_scaling = Scaling() if labelled else standardized(parts[0].y)
    x_scaling, pixel_scaling = _input_scaling(parts[0].x, request, x_scaling)
    for raw, part in zip((train, test or train), parts, strict=True):
        if part.x.dtype != np.uint8:
            check_range(part.x, x_scaling, raw.x_name)
        if not labelled:
            check_range(part.y, y_scaling, raw.y_name)
    if not labelled and not target_names:
        target_names = tuple(f"y{column}" for column in range(parts[0].y.shape[1]))
    return Dataset(
        name=name,
        train=parts[0],
        test=parts[1],
        shape=tuple(int(length) for length in parts[0].x.shape[1:]),
        classes=classes,
        x_scaling=x_scaling,
        y_scaling=y_scaling,
        target_names=target_names,
        attribution=attribution,
        source=source,
        pixel_scaling=pixel_scaling,
    )


def _input_scaling(
    x: Samples, request: Request, given: Scaling | None
) -> tuple[Scaling, Scaling | None]:
    """Scaling of the network's inputs, and that of pixels to [0, 1] where it is another."""
    if x.ndim != 4:
        if request.scaling == "channel":
            raise ArchitectureError(
                f"scaling='channel' is for images (n, height, width, channels), not for samples of "
                f"shape {x.shape[1:]}; expected 'unit' or 'auto'"
            )
        if given is None and x.dtype == np.uint8:
            given = image_scaling(x)
        if given is None:
            given = unit_range(x) if request.scaling == "unit" else standardized(x)
        return given, None
    pixels = image_scaling(x) if given is None else given
    if request.scaling == "unit" or (request.scaling == "auto" and x.shape[3] == 1):
        return pixels, None
    return standardized(x, by_channel=True), pixels


def _check_outputs(ys: list[NDArray[Any]], splits: list[Raw]) -> None:
    if ys[0].shape[1] != ys[-1].shape[1]:
        raise DataError(
            f"{splits[-1].y_name}: {ys[-1].shape[1]} targets a sample, but training samples have "
            f"{ys[0].shape[1]} ({splits[0].y_name}); expected the same number in both"
        )


def _hold_out(
    y: NDArray[Any], n_classes: int, request: Request, where: str
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows of the training part and of the test part, which gets `test_fraction` of them."""
    n = len(y)
    if n <= max(1, n_classes):
        hint = " For numbers to predict use task='regression'." if n_classes else ""
        raise DataError(
            f"{where}: {n} samples of {n_classes} classes cannot be split into training and test: "
            f"expected at least {max(1, n_classes) + 1}, one per class to train on and one to "
            f"test.{hint}"
        )
    n_train = n - max(1, round(n * request.test_fraction))
    n_train = max(n_train, n_classes, 1)
    bits = random_bits(request.seed, "test split")
    if n_classes:
        return stratified_choice(y, n_train, bits)
    order = shuffled(n, bits)
    return order[:n_train], order[n_train:]


def _limited(y: NDArray[Any], n_classes: int, request: Request) -> NDArray[np.intp] | None:
    """Rows kept under `limit`, None for all."""
    limit = request.limit
    if limit is None or limit >= len(y):
        return None
    if limit < n_classes:
        raise ArchitectureError(
            f"limit={limit} training samples cannot hold each of {n_classes} classes: "
            f"expected at least {n_classes}"
        )
    bits = random_bits(request.seed, "limit")
    return stratified_choice(y, limit, bits)[0] if n_classes else shuffled(len(y), bits)[:limit]
