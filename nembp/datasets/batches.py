"""Orders of mini-batches, and means over a split, without a float copy of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from nembp.datasets.dataset import Split
from nembp.datasets.scaling import Scaling, chunks
from nembp.errors import ArchitectureError, DataError

__all__ = ["batch_order", "class_means", "feature_means"]


def batch_order(
    n: int, batch_size: int, generator: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Random mini-batches of one epoch: every sample once, the last batch maybe smaller.

    Parameters
    ----------
    n : int
        Number of samples, at least 1.
    batch_size : int
        At least 1.
    generator : numpy.random.Generator
        The stream that draws the order, at the call.

    Returns
    -------
    iterator of ndarray of intp
        Row indices of each batch.

    Raises
    ------
    ArchitectureError
        If `n` or `batch_size` is below 1.

    Examples
    --------
    >>> batches = list(batch_order(5, 2, np.random.default_rng(0)))
    >>> [len(batch) for batch in batches], sorted(np.concatenate(batches).tolist())
    ([2, 2, 1], [0, 1, 2, 3, 4])
    """
    if n < 1 or batch_size < 1:
        raise ArchitectureError(
            f"{n} samples in batches of {batch_size}: expected at least 1 of each"
        )
    order = generator.permutation(n).astype(np.intp, copy=False)
    return (order[start : start + batch_size] for start in range(0, n, batch_size))


def class_means(
    split: Split, scaling: Scaling, classes: int | Sequence[str]
) -> NDArray[np.float64]:
    """Mean scaled sample of each class, c_k: the centroids that the backward direction learns.

    Parameters
    ----------
    split : Split
        With labels 0..K-1; read in chunks.
    scaling : Scaling
        Of `split.x`.
    classes : int or sequence of str
        K, or the K class names.

    Returns
    -------
    ndarray of float64, shape (K, features)

    Raises
    ------
    ArchitectureError
        If the split holds regression targets.
    DataError
        If a class has no sample: its mean is undefined.
    """
    k = classes if isinstance(classes, int) else len(classes)
    if split.y.ndim != 1 or split.y.dtype.kind not in "iu":
        raise ArchitectureError(
            f"class means need labels; this split has targets of shape {split.y.shape}"
        )
    counts = np.bincount(split.y, minlength=k)
    if len(counts) != k or not counts.all():
        raise DataError(
            f"samples per class are {counts.tolist()}; expected at least one in each of {k} classes"
        )
    x = split.x
    sums = np.zeros((k, int(np.prod(x.shape[1:]))))
    for part in chunks(x):
        labels = split.y[part]
        values = x[part].reshape(len(labels), -1)
        # row sums, not a product with one-hot rows: as fast, and no threads to wait for
        for label in np.unique(labels):
            sums[label] += values[labels == label].sum(axis=0, dtype=np.float64)
    means = (sums / counts[:, np.newaxis]).reshape(k, *x.shape[1:])
    return scaling.apply(means, np.float64).reshape(k, -1)  # the mean of an affine map is its image


def feature_means(split: Split, scaling: Scaling) -> NDArray[np.float64]:
    """Mean scaled sample of a split, read in chunks: where the backward input bias starts.

    Parameters
    ----------
    split : Split
        Not empty.
    scaling : Scaling
        Of `split.x`.

    Returns
    -------
    ndarray of float64, shape (features,)
    """
    total = np.zeros(split.x.shape[1:])
    for part in chunks(split.x):
        total += split.x[part].sum(axis=0, dtype=np.float64)
    mean = (total / len(split))[np.newaxis]
    return scaling.apply(mean, np.float64).reshape(-1)
