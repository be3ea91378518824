"""Data sets: readers that take nothing on trust, and what training needs of them.

`load` finds a reader by name; `register` adds one; `assemble` is the door through which readers
pass raw arrays so that they are checked, split and scaled alike.
"""

from __future__ import annotations

from nembp.datasets.assemble import Raw, assemble
from nembp.datasets.batches import batch_order, class_means, feature_means
from nembp.datasets.dataset import Dataset, Request, Split
from nembp.datasets.idx import read_idx, write_idx
from nembp.datasets.loading import Loader, available, load, register
from nembp.datasets.scaling import Scaling
from nembp.datasets.sources import Rows, as_rows

__all__ = [
    "Dataset",
    "Loader",
    "Raw",
    "Request",
    "Rows",
    "Scaling",
    "Split",
    "as_rows",
    "assemble",
    "available",
    "batch_order",
    "class_means",
    "feature_means",
    "fetch_cifar",
    "fetch_mnist",
    "load",
    "read_idx",
    "register",
    "write_idx",
]


def __getattr__(name: str) -> object:
    """Import what fetches when it is used."""
    if name == "fetch_mnist":
        from nembp.datasets.mnist import fetch_mnist

        return fetch_mnist
    if name == "fetch_cifar":
        from nembp.datasets.cifar_fetch import fetch_cifar

        return fetch_cifar
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
