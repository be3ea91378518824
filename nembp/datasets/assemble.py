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
from nembp.datasets.scaling import Scaling, check_range, image_scaling, standardized
from nembp.datasets.splitting import random_bits, shuffled, stratified_choice
from nembp.errors import ArchitectureError, DataError


@dataclass(frozen=True, eq=False)
class Raw:
    """Arrays as read, and what to call them in messages.

    Parameters
    ----------
    x : ndarray, shape (n, ...)
        Images (n, H, W[, C]) or table rows (n, features).
    y : ndarray, shape (n,) or (n, outputs)
        Labels or regression targets.
    x_name, y_name : str
        File and array each was read from.
    """

    x: NDArray[Any]
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
        Gives `task`, `test_fraction`, `seed` and `limit`.
    classes : tuple of str
        Class names when `y` already holds labels 0..K-1; by default the labels that occur in
        `train`, in sorted order.
    target_names : tuple of str
        Regression targets; default y0, y1, ...
    x_scaling : Scaling, optional
        Default: images to [0, 1], tables standardized on the training part.

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
    xs = [feature_array(part.x, part.x_name) for part in splits]
    for part in splits:
        check_counts(part.x, part.y, part.x_name, part.y_name)
    if xs[-1].shape[1:] != xs[0].shape[1:]:
        raise DataError(
            f"{splits[-1].x_name}: samples of shape {xs[-1].shape[1:]}, but training samples have "
            f"shape {xs[0].shape[1:]} ({train.x_name}); expected the same shape in both"
        )
    if labelled:
        for part in splits[1:]:
            is_labels(part.y, part.y_name, "classification")
        ys, classes = encode_labels([(part.y, part.y_name) for part in splits], classes)
    else:
        ys = [target_array(part.y, part.y_name) for part in splits]
        _check_outputs(ys, splits)
    if test is None:
        train_rows, test_rows = _hold_out(ys[0], len(classes), request, train.x_name)
        xs = [xs[0][train_rows], xs[0][test_rows]]
        ys = [ys[0][train_rows], ys[0][test_rows]]
    if labelled:
        check_every_class(ys[0], classes, train.y_name)
    kept = _limited(ys[0], len(classes), request)
    if kept is not None:
        xs[0], ys[0] = xs[0][kept], ys[0][kept]
    y_scaling = Scaling() if labelled else standardized(ys[0])
    if x_scaling is None:
        pixels = xs[0].dtype == np.uint8 or xs[0].ndim == 4
        x_scaling = image_scaling(xs[0]) if pixels else standardized(xs[0])
    for part, x, y in zip((train, test or train), xs, ys, strict=True):
        if x.dtype != np.uint8:
            check_range(x, x_scaling, part.x_name)
        if not labelled:
            check_range(y, y_scaling, part.y_name)
    if not labelled and not target_names:
        target_names = tuple(f"y{column}" for column in range(ys[0].shape[1]))
    return Dataset(
        name=name,
        train=Split(xs[0], ys[0]),
        test=Split(xs[1], ys[1]),
        shape=tuple(int(length) for length in xs[0].shape[1:]),
        classes=classes,
        x_scaling=x_scaling,
        y_scaling=y_scaling,
        target_names=target_names,
        attribution=attribution,
        source=source,
    )


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
