"""Data sets kept in memory: replicates of a process mostly train on the same few."""

from __future__ import annotations

import os
from collections import OrderedDict
from typing import Any

from nembp.datasets import Dataset
from nembp.runs.config import RunConfig
from nembp.runs.preparation import load_data

__all__ = ["KEPT", "kept_data"]

KEPT = 8  # the sizes and seeds that replicates at work side by side may read
DECIDING = (
    "dataset",
    "data_dir",
    "targets",
    "task",
    "test_fraction",
    "split_seed",
    "limit",
    "scaling",
    "image_size",
)

_kept: OrderedDict[tuple[Any, ...], Dataset] = OrderedDict()


def kept_data(config: RunConfig) -> Dataset:
    """Return `load_data` of a configuration, from memory if this process loaded it lately.

    What lies in the folder is compared by name, size and time of change, so that changed files
    are read anew. The 8 sets used last are kept. Data sets are read, never written, by all that
    trains on them.
    """
    key = (*(getattr(config, name) for name in DECIDING), _stamp(config.data_dir))
    data = _kept.pop(key, None)
    if data is None:
        data = load_data(config)
    _kept[key] = data
    while len(_kept) > KEPT:
        _kept.popitem(last=False)
    return data


def _stamp(path: str | None) -> tuple[tuple[str, int, int], ...]:
    """Return name, size and time of change of a file, or of what lies in a folder and in its own.

    Whatever cannot be looked at is left to `load_data`, which says what is wrong with it.
    """
    if path is None:
        return ()
    found = []
    try:
        for folder, folders, files in os.walk(path):
            folders[:] = sorted(folders) if folder == path else []
            for name in sorted(files):
                about = os.stat(os.path.join(folder, name))
                found.append((name, about.st_size, about.st_mtime_ns))
        if not os.path.isdir(path):
            about = os.stat(path)
            found.append((path, about.st_size, about.st_mtime_ns))
    except OSError:
        pass
    return tuple(found)
